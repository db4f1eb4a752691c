"""Damaged files: seeded mutations of bytes, of JSON and YAML values, and of the containers that hold them.

Damage at random places of a packed or framed file only ever tests the frame. So a mutation takes the frame apart (gzip, the
zip of an .npz, the header of a safetensors file), changes what is inside, and puts a sound frame around it again.
"""

from __future__ import annotations

import gzip
import io
import json
import lzma
import random
import struct
import zipfile
from collections.abc import Callable
from typing import Any

Mutation = Callable[[bytes, random.Random], bytes]

BYTES = [
    b"\0",
    b"\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\r",
    b"\n",
    b"\r\n",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
]
WORDS = [
    *(
        "0",
        "-1",
        "1e999",
        "-0.0",
        "nan",
        "inf",
        "1_5",
        "٣",
        "9" * 400,
        "0x_",
        "1e5",
        "2024-99-99",
        "2024-05-31T12:00:00Z",
    ),
    *(
        "id",
        "time",
        "label",
        "text",
        "true",
        "null",
        "none",
        '"',
        "'",
        ",",
        ";",
        "\t",
        ":",
        "{",
        "}",
        "[",
        "]",
        "&a",
        "*a",
        "!!",
    ),
    *(
        "\u2028",
        "\ufeff",
        "\u200d",
        "\ufe0f",
        "\x1b]0;x\x07",
        "\x00",
        "\ud7ff",
        "é",
        "<script>",
        "@data",
        "@dimensions 3",
    ),
]
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**12, -(10**30), 0.5, 1e308, float("nan"), float("inf")),
    *(
        "",
        " ",
        "x",
        "\x00",
        "../../x",
        "a" * 3000,
        "lstm",
        "images",
        "series",
        "sentences",
        "1" * 5000,
        "\x1b[2J",
        "2024-99-99",
    ),
    *([], {}, [None], [[]], {"": None}, [1, 2, 3], ["a", "a"], [[0.0]], {"a": {"b": []}}),
]


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Bytes with one to four of them, or stretches of them, changed, removed, doubled or put in."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at = draw.randrange(len(data) + 1)
        length = min(draw.choice((1, 1, 2, 4, 8, 32, 200)), len(data) - at)
        how = draw.randrange(8)
        if how == 0 and length:
            data[at] ^= 1 << draw.randrange(8)
        elif how == 1 and length:
            data[at] = draw.randrange(256)
        elif how == 2:
            del data[at : at + length]
        elif how == 3:
            data[at:at] = data[at : at + length] * draw.choice((1, 2, 50))
        elif how == 4:
            data[at:at] = draw.choice(BYTES)
        elif how == 5:
            data[at : at + length] = draw.choice(WORDS).encode("utf-8", "surrogatepass")
        elif how == 6:
            other = draw.randrange(len(data) + 1)
            data[other:other] = data[at : at + length]
        else:
            del data[at:]
    return bytes(data)


def changed(value: Any, draw: random.Random) -> Any:
    """A JSON value with one of its parts replaced, removed or added."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        name = draw.choice(sorted(value, key=str))
        how = draw.random()
        if how < 0.1:
            return {k: v for k, v in value.items() if k != name}
        if how < 0.15:
            return {**value, str(draw.choice(VALUES)): draw.choice(VALUES)}
        return {**value, name: changed(value[name], draw)}
    if isinstance(value, list) and value and draw.random() < 0.8:
        at = draw.randrange(len(value))
        how = draw.random()
        if how < 0.2:
            return value[:at] + value[at + 1 :]
        if how < 0.3:
            return value + value[: at + 1]
        return [*value[:at], changed(value[at], draw), *value[at + 1 :]]
    if isinstance(value, int | float) and not isinstance(value, bool) and draw.random() < 0.4:
        return value * draw.choice((-1, 2, 10**9, 0)) + draw.choice((-1, 0, 1))
    return draw.choice(VALUES)


def of_json(content: bytes, draw: random.Random) -> bytes:
    """JSON, of one object or of one on each line."""
    try:
        lines = [json.loads(line) for line in content.splitlines()] if draw.random() < 0.8 else []
    except ValueError:
        try:
            return json.dumps(changed(json.loads(content), draw)).encode()
        except ValueError:
            lines = []
    if not lines:
        return damaged(content, draw)
    at = draw.randrange(len(lines))
    lines[at] = changed(lines[at], draw)
    return "\n".join(map(json.dumps, lines)).encode() + b"\n"


def of_yaml(content: bytes, draw: random.Random) -> bytes:
    """Lines of the form `field: value`, as values or as text."""
    lines = content.decode("utf-8", "replace").splitlines()
    if not lines or draw.random() < 0.3:
        return damaged(content, draw)
    at = draw.randrange(len(lines))
    name, colon, _ = lines[at].partition(":")
    value = draw.choice(
        (json.dumps(draw.choice(VALUES)), draw.choice(WORDS), "[" * 200, "&a [*a, *a]", "!!timestamp x")
    )
    lines[at : at + draw.randrange(2)] = [f"{name}{colon} {value}"]
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def of_safetensors(content: bytes, draw: random.Random) -> bytes:
    """The header, the JSON that its metadata hold, or the numbers; the frame fits in most cases."""
    try:
        length = struct.unpack("<Q", content[:8])[0]
        header, numbers = json.loads(content[8 : 8 + length]), content[8 + length :]
        inner = json.loads(header["__metadata__"]["unroll"])
    except (ValueError, KeyError, TypeError, struct.error):
        return damaged(content, draw)
    where = draw.random()
    if where < 0.6:
        for _ in range(draw.choice((1, 1, 3))):
            inner = changed(inner, draw)
        header["__metadata__"]["unroll"] = json.dumps(inner)
    elif where < 0.75:
        header["__metadata__"]["unroll"] = damaged(json.dumps(inner).encode(), draw).decode("utf-8", "replace")
    elif where < 0.9:
        header = changed(header, draw)
    elif where < 0.95:
        numbers = damaged(numbers, draw)
    else:
        return damaged(content, draw)
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed)) + packed + numbers


def of_zip(content: bytes, draw: random.Random) -> bytes:
    """One member of an archive: its header of an array, its bytes, or its name."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except Exception:  # zipfile and zlib raise many kinds where an archive is damaged already
        members = []
    if not members or draw.random() < 0.15:
        return damaged(content, draw)
    at = draw.randrange(len(members))
    name, data = members[at]
    how = draw.random()
    if how < 0.1:
        name = draw.choice(("X.npy", "y.npy", "lengths.npy", "readme.txt", "../x.npy", ".npy", "x"))
    elif how < 0.5:
        data = of_npy(data, draw)
    elif how < 0.6:
        members.append((name, data))
    else:
        data = damaged(data, draw)
    members[at] = name, data
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return packed.getvalue()


def of_npy(content: bytes, draw: random.Random) -> bytes:
    """The header of a NumPy array: its type, order and shape."""
    shape = draw.choice(
        ("(3,)", "()", "(2, 3)", "(-1,)", "(0, 4, 2)", f"({2**62}, 4)", "(10**9,)", "(1.5,)", "(2, 3, 4, 5)")
    )
    kind = draw.choice(("<f8", "<f4", "|O", "<U3", "|S4", "<M8[ns]", "<c16", "|V8", "<i8", "|b1", "x", "<f2", ">i4"))
    header = f"{{'descr': '{kind}', 'fortran_order': {draw.choice(('True', 'False', '1'))}, 'shape': {shape}, }}"
    start = 10 + int.from_bytes(content[8:10], "little")
    if draw.random() < 0.3:
        header = damaged(content[10:start], draw).decode("latin-1")
    packed = header.encode("latin-1", "replace").ljust(118)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(packed)) + packed + content[start:]


def packed(inside: Mutation) -> Mutation:
    """Of a file that is plain, or packed with gzip or xz."""

    def mutation(content: bytes, draw: random.Random) -> bytes:
        how = draw.randrange(6)
        if how < 2:
            return inside(content, draw)
        frame = gzip.compress(inside(content, draw), 1) if how < 4 else lzma.compress(inside(content, draw), preset=0)
        return damaged(frame, draw) if how % 2 else frame

    return mutation
