"""Files that are there whole or not at all, and how much of one the machine can hold."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unroll.errors import InputError, RunError, UnrollError

if TYPE_CHECKING:
    from torch import Tensor

CHECKSUM = "sha256"
TEMPORARY = ".unroll"  # how names of temporary files end, by which they are known to be ours

NAME = re.compile(r"\w[\w. -]*")
MOST_CHARACTERS = 100
NAME_RULE = f"a name: at most {MOST_CHARACTERS} letters, digits, spaces, '-', '_' and '.', and no '.' first or last"
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(10))}  # by Windows


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write beside and rename, so that the file is there whole or not at all."""
    write_together({path: content})


def write_together(files: Mapping[Path, bytes | str]) -> None:
    """`write_atomically` of several: no file is renamed before all are written, so that a full disk leaves none of them."""
    data = {path: content.encode() if isinstance(content, str) else content for path, content in files.items()}
    try:
        _write(data)
    except FileNotFoundError:  # the folder is gone; or another process has taken the temporary file for a stale one
        _write(data)


def _write(files: dict[Path, bytes]) -> None:
    written: dict[str, Path] = {}
    try:
        for path, data in files.items():
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
            written[name] = path
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)
        for name, path in written.items():
            os.replace(name, path)
    except BaseException:
        for name in written:
            with suppress(FileNotFoundError):
                os.unlink(name)
        raise


def made_folder(path: Path) -> Path:
    """The folder at `path`, made where there is none; InputError where a file stands in the way."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{path} cannot be a folder: a file stands in the way; name another with --out") from None
    return path


def refuse_special(path: Path) -> None:
    """Raise OSError, which every reader words, where there is something else than a file: a pipe would be waited for, and
    a device such as /dev/zero read without end."""
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a pipe or a device"
        raise OSError(errno.EINVAL, f"it is {kind}; expected a file", str(path))


def memory() -> int | None:
    """Bytes of the machine's memory, where the system tells."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def stale_files(folder: Path) -> list[Path]:
    """What killed processes left of `write_atomically` in a folder of ours and its figures, if none is writing there now."""
    return [file for place in (folder, folder / "figures") for file in place.glob(f".*.*{TEMPORARY}")]


def remove_stale(folder: Path) -> int:
    """Remove the `stale_files`; how many there were. Only for who holds the folder's lock."""
    stale = stale_files(folder)
    for file in stale:
        file.unlink(missing_ok=True)
    return len(stale)


@contextmanager
def locked(lock: Path, otherwise: UnrollError) -> Iterator[None]:
    """Hold a lock file that one process at a time can hold; raise `otherwise` where another one does."""
    from filelock import FileLock, Timeout  # with asyncio, which most commands do without

    held = FileLock(lock)  # the system lets go of it when the process ends, however it ends
    try:
        held.acquire(timeout=0)
    except Timeout:
        raise otherwise from None
    try:
        yield
    finally:
        held.release()


def is_name(text: str) -> bool:
    """Whether a text can name a file or a folder on every system, and cannot lead out of the folder that it is in."""
    stem = text.partition(".")[0].strip().upper()
    return (
        len(text) <= MOST_CHARACTERS
        and NAME.fullmatch(text) is not None
        and text == text.strip()
        and not text.endswith(".")
        and stem not in RESERVED
    )


def name_from(text: str) -> str:
    """A name made from any text, such as the stem of a file.

    >>> name_from("runs (2)"), name_from("..")
    ('runs -2', 'unnamed')
    """
    if is_name(text):
        return text
    kept = re.sub(r"[^\w. -]", "-", text)[:MOST_CHARACTERS].strip(". -")
    return kept if is_name(kept) else "unnamed"


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """A safetensors file with `metadata` and a checksum of all as JSON in the one entry ``unroll``.

    One entry, because safetensors writes several in an order that changes from run to run.
    """
    from safetensors.torch import save

    contiguous = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    metadata = {**metadata, CHECKSUM: _checksum(contiguous, metadata)}
    write_atomically(path, save(contiguous, {"unroll": json.dumps(metadata)}))


def load_header(path: Path) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """The tensors' shapes, by name, and the metadata of what `save_tensors` wrote; no tensor is read.

    Raises:
        RunError: the file is missing or damaged.
    """
    with _opened(path) as (file, metadata):
        metadata.pop(CHECKSUM, None)
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}, metadata  # noqa: SIM118


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the metadata of what `save_tensors` wrote.

    Raises:
        RunError: the file is missing or damaged.
    """
    with _opened(path) as (file, metadata):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    checksum = metadata.pop(CHECKSUM, None)  # version 0.1 wrote none
    if checksum is not None and checksum != _checksum(tensors, metadata):
        raise RunError(f"{path} is damaged: its content does not fit its checksum; take a copy, or train the run again")
    return tensors, metadata


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A safetensors file, open, and its metadata; whatever is wrong with it is a RunError."""
    from safetensors import SafetensorError, safe_open

    try:
        refuse_special(path)
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get("unroll", "{}"))
            if not isinstance(metadata, dict):
                raise ValueError("its metadata are no JSON object")
            yield file, metadata
    except FileNotFoundError:
        raise RunError(f"{path} does not exist") from None
    except RecursionError:
        raise RunError(f"{path} is damaged: its metadata are nested too deeply") from None
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError) as error:
        # the last two: a type of numbers that torch has not
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
        raise RunError(f"{path} is damaged or no safetensors file: {reason}") from None


def _checksum(tensors: dict[str, Tensor], metadata: dict[str, Any]) -> str:
    """SHA-256 of names, types, shapes and bytes of all tensors, and of the metadata."""
    import torch

    digest = hashlib.sha256(json.dumps(metadata).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(errors="backslashreplace"))
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


SIGNS = {
    ".pdf": rb"/Keywords ?\(recurrent neural network(?:,|\\054) .{1,200}sequence classification.{0,100}\)"
    rb"\s?(?:/Author ?(?:<[0-9A-Fa-f]{1,4000}>|\(.{0,2000}?\))\s?)?/Creator ?\(Typst",
    ".png": rb"\A\x89PNG.{0,4096}?tEXtSoftware\x00unroll",
    ".svg": rb"<dc:title>unroll</dc:title>",
    ".onnx": rb"\A\x08.\x12\x06unroll",
    ".safetensors": rb'\A.{8}\{"__metadata__":\{"unroll":',
    "README.md": rb"\A---\n.{0,1000}library_name: unroll-rnn",
    "look.npz": rb"\APK.{28}layer0\.",
    "gradients.json": rb'\A\[\{"label": ".{1,1000}", "cell": "',
    "effects.md": rb"\A# From .{1,1000}: what each change is worth\n",
    "trials.json": rb'\A\{\n "study": "',
    "best.yaml": rb"(?m)^about: the best of \d+ complete and \d+ pruned trials",
}
"""What is in every file that a command of ours writes where people tell it to, by the file's name or suffix."""


def refuse_foreign(*paths: Path) -> None:
    """Raise InputError where a file stands that would be lost: one that this package did not write, or no file at all.

    The rule of every command for what it is told to write, asked before it writes anything: a new file is made, a file
    of ours (by its content, see `SIGNS`) or an empty one is replaced, and everything else stays. The lists of trainings
    that `ablate`, `memory` and `effects` go on with are read instead, and refused where they are anything else.
    """
    for path in paths:
        try:
            if not path.exists() or (path.is_file() and _is_ours(path)):
                continue
            what = "is a folder" if path.is_dir() else "was not written by this package and would be lost"
        except OSError as error:
            what = f"cannot be read: {error.strerror}"
        raise InputError(f"{path} {what}; move it away, or name another place")


def _is_ours(path: Path) -> bool:
    content = path.read_bytes()
    sign = SIGNS.get(path.name, SIGNS.get(path.suffix.lower()))
    return not content or (sign is not None and re.search(sign, content, re.DOTALL) is not None)
