"""IDX files: every type, every kind of compression, and every way in which a file may be damaged."""

from __future__ import annotations

import gzip
import lzma
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unroll.data import images as idx_files
from unroll.data.images import DTYPES, read_idx, read_idx_shape
from unroll.errors import DataError

PACK: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}
IMAGES = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5)


def idx(array: np.ndarray[Any, Any], kind: int) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape)
    return header + array.astype(DTYPES[kind]).tobytes()


def image_bytes() -> bytes:
    return idx(IMAGES, 0x08)


def test_a_file_written_byte_by_byte_is_read_as_it_says(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(bytes.fromhex("00 00 0B 02  00 00 00 02  00 00 00 03  0001 0002 0003 FFFF 0100 7FFF"))
    assert read_idx(path).tolist() == [[1, 2, 3], [-1, 256, 32767]]


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("shape", [(7,), (2, 3), (2, 3, 4), (2, 1, 3, 2), (0,), (0, 3)])
@pytest.mark.parametrize("kind", DTYPES, ids=lambda kind: f"{kind:02x}")
def test_every_type_shape_and_compression_comes_back(
    tmp_path: Path, kind: int, shape: tuple[int, ...], suffix: str
) -> None:
    dtype = np.dtype(DTYPES[kind]).newbyteorder("=")
    low = 0 if dtype.kind == "u" else -100
    expected = np.random.default_rng(0).integers(low, 120, shape).astype(dtype)
    path = tmp_path / "x"  # no suffix: the contents decide
    path.write_bytes(PACK[suffix](idx(expected, kind)))
    array = read_idx(str(path))
    assert array.dtype == dtype
    assert array.dtype.isnative
    assert array.flags.writeable
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, expected)
    assert read_idx_shape(path) == shape


def test_the_name_does_not_decide_how_a_file_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(lzma.compress(image_bytes()))
    np.testing.assert_array_equal(read_idx(path), IMAGES)


def test_a_gzip_of_several_members_is_one_file(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(image_bytes()[:20]) + gzip.compress(image_bytes()[20:]))
    np.testing.assert_array_equal(read_idx(path), IMAGES)


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-1], r"truncated: 29 bytes after the header, which promises 30 \(2 x 3 x 5 numbers"),
        (lambda b: b[:16], "truncated: 0 bytes after the header"),
        (lambda b: b + b"\0\0", "32 bytes after the header, which promises 30"),
        (lambda b: b[:15], "truncated: the header has 15 bytes; expected 16 for 3 dimensions"),
        (lambda b: b[:3], "not an IDX file: it starts with the bytes 00 00 08;"),
        (lambda b: b"", r"starts with the bytes \(none: it is empty\)"),
        (lambda b: b"\x01" + b[1:], "starts with the bytes 01 00 08 03;"),
        (lambda b: b"\0\0\x0a\x03" + b[4:], "starts with the bytes 00 00 0a 03;"),
        (lambda b: b"\0\0\x08\0" + b[4:], "starts with the bytes 00 00 08 00;"),
        (lambda b: b"\0\0\x0e\x03" + b"\xff" * 12 + b[16:], "do not fit in memory"),
    ],
)
def test_a_damaged_file_is_named_with_what_it_has_and_should_have(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str, suffix: str
) -> None:
    path = tmp_path / f"t10k-images{suffix}"
    path.write_bytes(PACK[suffix](damage(image_bytes())))
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9, 0.999])
def test_compression_that_breaks_off_is_reported_as_truncated(tmp_path: Path, suffix: str, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 30, 30)).astype(np.uint8)
    packed = PACK[suffix](idx(noise, 0x08))
    path = tmp_path / "x"
    path.write_bytes(packed[: int(keep * len(packed))])
    with pytest.raises(DataError, match="truncated"):
        read_idx(path)


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
def test_a_flipped_bit_in_compressed_data_never_goes_unnoticed(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (3, 30, 30)).astype(np.uint8)
    packed = PACK[suffix](idx(noise, 0x08))
    path = tmp_path / "x"
    for place in range(len(packed) // 10, len(packed), len(packed) // 7):
        path.write_bytes(packed[:place] + bytes([packed[place] ^ 4]) + packed[place + 1 :])
        with pytest.raises(DataError, match=r"damage|truncated"):
            read_idx(path)


@pytest.mark.parametrize("read", [read_idx, read_idx_shape])
def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(DataError, match=r"absent: no such file; expected an IDX file"):
        read(tmp_path / "absent")
    with pytest.raises(DataError, match="cannot be read"):
        read(tmp_path)


def test_the_shape_is_read_without_the_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(image_bytes()[:16])
    assert read_idx_shape(path) == (2, 3, 5)


@pytest.mark.parametrize("limit", [20, 40, 10_000])
def test_large_gzip_files_are_read_as_small_ones(tmp_path: Path, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx_files, "AT_ONCE", limit)
    path, whole = tmp_path / "x", gzip.compress(image_bytes())
    for packed in (whole, gzip.compress(image_bytes()[:20]) + gzip.compress(image_bytes()[20:])):
        path.write_bytes(packed)
        found = read_idx(path)
        assert found.flags.writeable
        np.testing.assert_array_equal(found, IMAGES)
    path.write_bytes(whole[:-9])
    with pytest.raises(DataError, match="truncated"):
        read_idx(path)
