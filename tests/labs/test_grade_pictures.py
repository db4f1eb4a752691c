"""Pictures from an untrusted process."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from unroll.labs.grade.pictures import HIGHEST, MOST_PICTURES, WIDEST, encoded_anew, taken_over


def png(width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    room = io.BytesIO()
    Image.new(mode, (width, height)).save(room, "PNG", **options)
    return room.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int, height: int) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))


def test_pictures_are_encoded_anew() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "<script>")
    found = encoded_anew(png(3000, 500, pnginfo=info) + b"what follows")
    with Image.open(io.BytesIO(found)) as image:
        assert (image.format, image.size, image.mode) == ("PNG", (WIDEST, 267), "RGB")
    assert b"script" not in found
    assert b"follows" not in found
    with Image.open(io.BytesIO(encoded_anew(png(10, 9000)))) as image:
        assert image.size[1] == HIGHEST
    with Image.open(io.BytesIO(encoded_anew(png(2, 2, "RGBA")))) as image:
        assert image.getpixel((0, 0)) == (255, 255, 255)


SIGN = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no PNG"),
        (b"GIF89a" + bytes(100), "no PNG"),
        (png(50, 50)[:60], "damaged"),
        (png(50, 50)[:33], "damaged"),
        (SIGN + header(100_000, 100_000), "pixels"),
        (SIGN + header(0, 5), "pixels"),
        (SIGN + header(5, 5) + header(9_000, 9_000) + chunk(b"IDAT", zlib.compress(bytes(100))), "pixels"),
        (SIGN + header(5, 5) + chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(90 << 20))), "damaged"),
        (bytes(17 << 20), "more than 16 MB"),
    ],
)  # fmt: skip
def test_pictures_that_are_none_or_too_large_are_refused(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        encoded_anew(content)


def test_pictures_beyond_a_dozen_and_what_fails_are_noted() -> None:
    array = np.frombuffer(png(2, 2), np.uint8)
    found, notes = taken_over(
        {f"{n:02d}.png": array for n in range(20)} | {"18.png": array[:9], "19.png": array.astype(float)}
    )
    assert list(found) == [f"{n:02d}.png" for n in range(1, MOST_PICTURES - 1)]
    assert [note.partition(":")[0] for note in notes] == [
        "only the last 12 of 20 figures are kept",
        "figure 19 is left out",
        "figure 20 is left out",
    ]
