"""IDX files, the format of MNIST and its relatives: numbers of one type in a grid of any number of dimensions.

    byte 0, 1   0, 0
    byte 2      type of the numbers (see `DTYPES`)
    byte 3      number of dimensions n
    n x 4       size of each dimension, big-endian
    the rest    the numbers, big-endian, last dimension fastest

Source: LeCun, Cortes, Burges: the MNIST database of handwritten digits, "file format". Files may be as they
are or compressed with gzip or xz; which one is read from the first bytes, not from the name.

What it does not do: write.
"""

from __future__ import annotations

import gzip
import io
import lzma
import math
import threading
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from unroll.errors import DataError

DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
"""IDX type byte -> numpy dtype."""


GZIP = b"\x1f\x8b"

_ahead: dict[Path, Future[bytes | None]] = {}


def read_ahead(paths: Iterable[Path]) -> None:
    """Begin to unpack gzip files in a thread, for `read_idx`, which comes later; trouble is left to that."""
    work = [(path, Future[bytes | None]()) for path in paths]
    _ahead.update(work)

    def unpack() -> None:
        for path, future in work:
            try:
                packed = path.read_bytes()
                # In one go: a thread that does it in pieces waits for Python's lock at each.
                future.set_result(gzip.decompress(packed) if packed.startswith(GZIP) else None)
            except Exception as error:  # raised again where it is waited for
                future.set_exception(error)

    threading.Thread(target=unpack, daemon=True).start()


def read_idx(path: str | Path) -> NDArray[Any]:
    """The whole file as a new, writable array in the machine's byte order.

    Raises `DataError` when the file is missing, not IDX, truncated, longer than its header says, or when its
    compression is damaged.
    """
    path = Path(path)
    with _opened(path, _ahead.pop(path, None)) as stream:
        dtype, shape = _read_header(stream, path)
        expected = math.prod(shape) * dtype.itemsize
        described = f"{_times(shape)} numbers of {dtype.itemsize} byte{'s' * (dtype.itemsize > 1)}"
        # Unpacked straight into the array, unless it was read ahead: half the memory of unpacking first, and no copy.
        try:
            array = np.empty(shape, dtype)
        except (ValueError, MemoryError) as error:
            raise DataError(
                f"{path}: the header promises {described}, which do not fit in memory; is the file damaged?"
            ) from error
        room = memoryview(array.reshape(-1).view(np.uint8).data)
        found = 0
        while found < expected and (count := stream.readinto(room[found:])):  # type: ignore[attr-defined]
            found += count
        if found < expected:
            raise DataError(
                f"{path}: truncated: {found:,} bytes after the header, which promises {expected:,} ({described}); "
                "copy or download the file again"
            )
        # Reading on to the end is also what makes gzip and xz verify their checksums.
        beyond = sum(len(block) for block in iter(lambda: stream.read(1 << 20), b""))
        if beyond:
            raise DataError(
                f"{path}: {found + beyond:,} bytes after the header, which promises {expected:,} ({described}); "
                "the file is damaged or two files were joined: copy or download it again"
            )
    return array if dtype.isnative else array.astype(dtype.newbyteorder("="))


def read_idx_shape(path: str | Path) -> tuple[int, ...]:
    """The sizes of the dimensions, from the header alone: the numbers are neither read nor checked.

    Raises `DataError` when the file is missing or does not start as an IDX file.
    """
    path = Path(path)
    with _opened(path) as stream:
        return _read_header(stream, path)[1]


@contextmanager
def _opened(path: Path, ahead: Future[bytes | None] | None = None) -> Iterator[BinaryIO]:
    """The file's contents as a stream, unpacked where they are packed; damage met while reading is a DataError."""
    try:
        if ahead is not None and (unpacked := ahead.result()) is not None:
            yield io.BytesIO(unpacked)
            return
        with path.open("rb") as file:
            start = file.read(6)
            file.seek(0)
            if start.startswith(GZIP):
                with gzip.open(file) as stream:
                    yield cast(BinaryIO, stream)
            elif start == b"\xfd7zXZ\x00":
                with lzma.open(file) as stream:
                    yield cast(BinaryIO, stream)
            else:
                yield file
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; expected an IDX file, plain or compressed with gzip or xz") from None
    except EOFError:
        size = path.stat().st_size
        raise DataError(
            f"{path}: truncated: the compressed data break off after {size:,} bytes; copy or download the file again"
        ) from None
    except (gzip.BadGzipFile, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path}: damaged compression ({error}); copy or download the file again") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); expected an IDX file") from None


def _read_header(stream: BinaryIO, path: Path) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\x00\x00" or magic[2] not in DTYPES or magic[3] == 0:
        known = ", ".join(f"{code:02x}" for code in DTYPES)
        raise DataError(
            f"{path}: not an IDX file: it starts with the bytes {magic.hex(' ') or '(none: it is empty)'}; "
            f"expected 00 00, a type ({known}) and a number of dimensions, as 00 00 08 03 for images"
        )
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise DataError(
            f"{path}: truncated: the header has {4 + len(sizes)} bytes; expected {4 + 4 * magic[3]} for "
            f"{magic[3]} dimensions: copy or download the file again"
        )
    return np.dtype(DTYPES[magic[2]]), tuple(np.frombuffer(sizes, ">u4").tolist())


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(f"{size:,}" for size in shape)
