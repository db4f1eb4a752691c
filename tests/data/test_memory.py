"""Files that promise more than they hold, or than the machine can: refused before room is made for it."""

from __future__ import annotations

import gzip
import lzma
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from unroll.data import parts
from unroll.data.images import begin_loading, load_image_dataset, read_idx
from unroll.data.series import read_series
from unroll.errors import DataError


def npy(shape: tuple[int, ...], dtype: str = "<f8", data: bytes = b"") -> bytes:
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def zipped(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def idx_header(*shape: int) -> bytes:
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)


ZEROS = bytes(1 << 24)
BOMBS: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], object]]] = {
    "npy, a header of 8 TB": ("X.npy", lambda path: path.write_bytes(npy((10**6, 10**6))), read_series),
    "npy, no more than its header": ("X.npy", lambda path: path.write_bytes(npy((10**3, 2, 10)) + ZEROS), read_series),
    "npy, text of 4 GB": ("X.npy", lambda path: path.write_bytes(npy((1,), "<U1000000000")), read_series),
    "npz, a header of 8 TB": ("a.npz", lambda path: zipped(path, X=npy((10**6, 10**6)), y=npy((1,))), read_series),
    "npz, labels of 8 TB": ("a.npz", lambda path: zipped(path, X=npy((1, 1)), y=npy((10**12,))), read_series),
    "npz, packed zeros": ("a.npz", lambda path: zipped(path, X=npy((2, 1 << 23), "|u1", ZEROS)), read_series),
    "npz, shorter than its header": ("a.npz", lambda path: zipped(path, X=npy((9, 1 << 12))), read_series),
    "idx, a header of 4 GB": ("x", lambda path: path.write_bytes(idx_header(1 << 16, 1 << 8, 1 << 8)), read_idx),
    "idx, gzip of zeros": ("x", lambda path: path.write_bytes(gzip.compress(idx_header(1 << 24) + ZEROS)), read_idx),
    "idx, gzip of more": ("x", lambda path: path.write_bytes(gzip.compress(idx_header(9) + ZEROS)), read_idx),
    "idx, xz of zeros": ("x", lambda path: path.write_bytes(lzma.compress(idx_header(1 << 24) + ZEROS)), read_idx),
    "idx, xz of more": ("x", lambda path: path.write_bytes(lzma.compress(idx_header(9) + ZEROS)), read_idx),
    "idx, xz with a dictionary of 4 GB": ("x", lambda path: path.write_bytes(wide_xz(idx_header(1) + b"1")), read_idx),
    "idx, 255 dimensions": ("x", lambda path: path.write_bytes(idx_header(*[1] * 255) + b"1"), read_idx),
}


def wide_xz(content: bytes) -> bytes:
    """An xz file whose header asks for a dictionary of 4 GB."""
    packed = bytearray(lzma.compress(content))
    assert packed[14:16] == b"\x21\x01"  # LZMA2 with one byte of properties
    packed[16] = 40
    size = 4 * (packed[12] + 1)
    packed[12 + size - 4 : 12 + size] = struct.pack("<I", zlib.crc32(packed[12 : 12 + size - 4]))
    return bytes(packed)


@pytest.mark.parametrize("name", BOMBS)
def test_what_promises_more_than_it_can_hold_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file, write, read = BOMBS[name]
    write(tmp_path / file)
    monkeypatch.setattr(parts, "LARGE", 1 << 20)
    monkeypatch.setattr("unroll.data.images.AT_ONCE", 1 << 20)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"fit in memory|damage|not an IDX|X has shape"):
        read(tmp_path / file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 13 << 20  # xz works in 8 MiB, usually


def test_what_the_machine_cannot_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", X=np.random.default_rng(0).integers(0, 9, (4, 100), np.uint8), y=np.arange(4))
    monkeypatch.setattr(parts, "memory", lambda: 3200)
    assert len(read_series(tmp_path / "a.npz").series) == 4
    monkeypatch.setattr(parts, "memory", lambda: 3199)  # as float64
    with pytest.raises(
        DataError, match=r"a\.npz: the header promises \(4, 100\) values of type uint8, which do not fit"
    ):
        read_series(tmp_path / "a.npz")


def test_what_the_reading_thread_meets_is_raised_where_it_is_waited_for(tmp_path: Path) -> None:
    for split, name in product(("train", "t10k"), ("images-idx3", "labels-idx1")):
        (tmp_path / f"{split}-{name}-ubyte").write_bytes(gzip.compress(idx_header(1 << 31, 1 << 10, 1 << 10)))
    with pytest.raises(DataError, match="do not fit in memory"):
        load_image_dataset(str(tmp_path), True, reading=begin_loading(tmp_path))


@pytest.mark.parametrize("highest", [1 << 16, 2_000_000_000])
def test_a_label_beyond_all_classes_is_refused(tmp_path: Path, highest: int) -> None:
    for split in ("train", "t10k"):
        (tmp_path / f"{split}-images-idx3-ubyte").write_bytes(idx_header(2, 1, 1) + b"12")
        labels = struct.pack(">BBBBI2i", 0, 0, 12, 1, 2, 0, highest)
        (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(labels)
    with pytest.raises(
        DataError, match=f"label 1 .counted from 0. is {highest}; expected a class number from 0 to 65535"
    ):
        load_image_dataset(str(tmp_path), True)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"X": b"no array", "y": npy((1,))}, "damaged or no NumPy file"),
        ({"X": b"", "y": npy((1,))}, "damaged or no NumPy file"),
        ({"X": npy((1, 1), "<f8", bytes(8)), "y": b"\x80\x04K\x01."}, "damaged or no NumPy file"),
        ({"X": npy((1, 1), "|O", b"\x80\x04K\x01."), "y": npy((1,))}, "holds Python objects"),
        ({"X": npy((1, 1), "<f8", bytes(9)), "y": npy((1,))}, "is damaged: an array of shape"),
        ({"X": npy((-1, 1)), "y": npy((1,))}, "damaged"),
        ({"X": npy((1, 1), "<f8", bytes(8)), "y": npy((1,), "<U1", struct.pack("<I", 0x110000))}, "beyond U.10FFFF"),
        ({"X": npy((1, 1), "<f8", bytes(8)), "y": npy((1,), ">U1", struct.pack(">I", 0x110000))}, "beyond U.10FFFF"),
        ({"X": npy((1, 1), "<f8", bytes(8)), "y": npy((1,), "<U0")}, "the label is missing"),
        ({"X": npy((1, 1), "<f8", bytes(8)), "y": npy((1,), "<c16", bytes(16))}, "the label is of type complex128"),
        ({"X": npy((1, 1), "<f8", bytes(8)), "y": npy((1,), "|V3", b"abc")}, "the label is of type void"),
    ],
)
def test_members_that_are_no_arrays_of_numbers_or_text_are_refused(
    tmp_path: Path, members: dict[str, bytes], message: str
) -> None:
    zipped(tmp_path / "a.npz", **members)
    with pytest.raises(DataError, match=message) as caught:
        read_series(tmp_path / "a.npz")
    assert "\n" not in str(caught.value)


def test_other_members_of_an_npz_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, X=np.zeros((2, 3)), y=np.array(["x", "y"]))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("notes.txt", b"no array")
    assert read_series(path).labels == ["x", "y"]
