"""The packaged MNIST and folders like it."""

from __future__ import annotations

import gzip
import hashlib
import lzma
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unroll.data.images import DTYPES, PACKAGED, SPLITS, begin_loading, load_images, pixel_moments
from unroll.errors import DataError, InputError

MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}


def write_idx(path: Path, array: Any, kind: int = 0x08) -> None:
    array = np.asarray(array)
    contents = struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape)
    contents += array.astype(DTYPES[kind]).tobytes()
    pack: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".xz": lzma.compress}
    path.write_bytes(pack.get(path.suffix, bytes)(contents))


def pictures(count: int, rows: int = 4, columns: int = 3, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (count, rows, columns)).astype(np.uint8)


TRAIN, TEST = pictures(5), pictures(2, seed=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_idx(tmp_path / "train-images-idx3-ubyte", TRAIN)
    write_idx(tmp_path / "train-labels-idx1-ubyte", [0, 2, 1, 2, 0])
    write_idx(tmp_path / "t10k-images-idx3-ubyte", TEST)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", [3, 0])
    return tmp_path


@pytest.mark.parametrize("name", MD5)
def test_the_packaged_files_are_the_originals(name: str) -> None:
    packed = (PACKAGED / f"{name}.gz").read_bytes()
    assert hashlib.md5(gzip.decompress(packed), usedforsecurity=False).hexdigest() == MD5[name]
    licence = (PACKAGED / "LICENCE.md").read_text(encoding="utf-8")
    assert MD5[name] in licence
    assert hashlib.sha256(packed).hexdigest() in licence


def test_the_packaged_mnist_has_its_known_sizes_labels_and_moments() -> None:
    train, names = load_images()
    assert train.values.shape == (60_000, 28, 28)
    assert train.values.dtype == torch.uint8
    assert train.y.dtype == torch.int64
    assert train.y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert train.y.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert names == tuple("0123456789")
    assert pixel_moments(train.values) == pytest.approx((0.1306604762738429, 0.30810780385646264), rel=1e-12)

    test, test_names = load_images(split="test")
    assert test.values.shape == (10_000, 28, 28)
    assert len(test) == 10_000
    assert test.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert test_names == names


def test_a_folder_gives_its_images_and_labels_and_classes_of_both_parts(folder: Path) -> None:
    (train, names), (test, test_names) = load_images(folder), load_images(str(folder), "test")
    np.testing.assert_array_equal(train.values, TRAIN)
    np.testing.assert_array_equal(test.values, TEST)
    assert train.y.tolist() == [0, 2, 1, 2, 0]
    assert test.y.tolist() == [3, 0]
    assert names == test_names == ("0", "1", "2", "3")
    train.values[0] = 0  # a tensor of its own, which may be written to


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
@pytest.mark.parametrize(
    ("prefix", "dash", "test"),
    [("", "-", "t10k"), ("", ".", "t10k"), ("", "-", "test"), ("emnist-letters-", "-", "test")],
)
def test_the_usual_spellings_of_the_file_names_are_all_found(
    tmp_path: Path, prefix: str, dash: str, test: str, suffix: str
) -> None:
    for part, images in (("train", TRAIN), (test, TEST)):
        write_idx(tmp_path / f"{prefix}{part}-images{dash}idx3-ubyte{suffix}", images)
        write_idx(tmp_path / f"{prefix}{part}-labels{dash}idx1-ubyte{suffix}", range(len(images)))
    for split, expected in (("train", TRAIN), ("test", TEST)):
        loaded, _ = load_images(tmp_path, split)  # type: ignore[arg-type]
        # EMNIST's are stored on their side.
        np.testing.assert_array_equal(loaded.values, expected.transpose(0, 2, 1) if prefix else expected)
        assert loaded.values.is_contiguous()


def test_a_plain_file_is_preferred_to_its_compressed_copy(folder: Path) -> None:
    write_idx(folder / "train-images-idx3-ubyte.gz", pictures(5, seed=9))
    np.testing.assert_array_equal(load_images(folder)[0].values, TRAIN)


def test_the_test_part_is_loaded_without_the_training_images(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:20])  # the header only
    assert len(load_images(folder, "test")[0]) == 2
    path.unlink()
    assert len(load_images(folder, "test")[0]) == 2
    (folder / "train-labels-idx1-ubyte").unlink()
    assert load_images(folder, "test")[1] == ("0", "1", "2", "3")


def test_classes_are_named_by_classes_txt(folder: Path) -> None:
    (folder / "classes.txt").write_text("top\n trouser \npullover\ndress\ncoat\n\n", encoding="utf-8")
    assert load_images(folder)[1] == ("top", "trouser", "pullover", "dress", "coat")


@pytest.mark.parametrize(
    "content", ["\ufefftop\na\u2028b\nc\nd\n", "top\r\na\u2028b\r\nc\r\nd", "top\ra\u2028b\rc\rd\r"]
)
def test_classes_txt_has_one_name_a_line_however_it_was_saved(folder: Path, content: str) -> None:
    (folder / "classes.txt").write_bytes(content.encode())
    assert load_images(folder)[1] == ("top", "a\u2028b", "c", "d")


def broken(path: str, change: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda folder: change(folder / path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            broken("train-labels-idx1-ubyte", Path.unlink),
            r"no train-labels-idx1-ubyte \(plain, .gz or .xz\); the folder has t10k-images-idx3-ubyte, t10k-labels",
        ),
        (broken("train-labels-idx1-ubyte", lambda p: write_idx(p, range(4))), "holds 5 images .* 4 labels"),
        (
            broken("t10k-images-idx3-ubyte", lambda p: write_idx(p, pictures(2, 3, 4))),
            "images of 4 x 3 and .* of 3 x 4",
        ),
        (
            broken("train-labels-idx1-ubyte", lambda p: write_idx(p, [0, 1, -2, 3, 4], 0x09)),
            r"label 2 \(counted from 0\) is -2",
        ),
        (broken("train-labels-idx1-ubyte", lambda p: write_idx(p, [0.0] * 5, 0x0D)), "1 dimensions of float32"),
        (broken("train-labels-idx1-ubyte", lambda p: write_idx(p, [[0] * 5])), "2 dimensions of uint8"),
        (broken("train-images-idx3-ubyte", lambda p: write_idx(p, TRAIN, 0x0C)), "3 dimensions of int32"),
        (broken("train-images-idx3-ubyte", lambda p: write_idx(p, TRAIN[0])), "2 dimensions of uint8"),
        (broken("t10k-labels-idx1-ubyte", lambda p: p.write_bytes(p.read_bytes()[:-1])), "t10k-labels.*truncated"),
        (broken("emnist-digits-train-images-idx3-ubyte", lambda p: write_idx(p, TRAIN)), "holds 2 image sets"),
        (broken("classes.txt", lambda p: p.write_text("a\nb\nc\n")), "has 3 lines.*each of the classes 0 to 3"),
        (broken("classes.txt", lambda p: p.write_text("a\nb\nb\nc\n")), "has 4 lines, 3 of them different"),
        (broken("classes.txt", lambda p: p.write_text("a\n\nb\nc\n")), "has 4 lines, 3 of them different"),
        (broken("classes.txt", lambda p: p.write_bytes(b"\xff\xfe")), "classes.txt, line 1: byte 0xff is not UTF-8"),
    ],
)
def test_a_contradiction_in_the_folder_is_named_in_one_line(
    folder: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(folder)
    with pytest.raises(DataError, match=message) as caught:
        load_images(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_an_empty_set_is_refused(folder: Path) -> None:
    write_idx(folder / "train-images-idx3-ubyte", TRAIN[:0])
    write_idx(folder / "train-labels-idx1-ubyte", [])
    with pytest.raises(DataError, match="holds no images"):
        load_images(folder)


def test_a_folder_that_is_none_and_a_split_that_is_none_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent does not exist; expected a folder"):
        load_images(tmp_path / "absent")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="file is a file; expected a folder"):
        load_images(tmp_path / "file")
    with pytest.raises(DataError, match=r"no train-images-idx3-ubyte and no train-labels-idx1-ubyte .* has file"):
        load_images(tmp_path)
    with pytest.raises(InputError, match="split is 'validation'"):
        load_images(split="validation")  # type: ignore[arg-type]


def test_moments_are_those_of_all_pixels_on_a_scale_to_one() -> None:
    images = torch.tensor([[[0, 255], [255, 0]], [[51, 51], [51, 51]]], dtype=torch.uint8)
    pixels = images.double().reshape(-1) / 255
    mean, std = pixel_moments(images)
    assert mean == pytest.approx(float(pixels.mean()), rel=1e-15)
    assert std == pytest.approx(float(pixels.std(correction=0)), rel=1e-14)


def test_moments_of_images_without_any_contrast_are_refused() -> None:
    with pytest.raises(DataError, match="all 12 pixels have the value 7"):
        pixel_moments(torch.full((1, 3, 4), 7, dtype=torch.uint8))
    with pytest.raises(InputError, match=r"torch.float32"):
        pixel_moments(torch.rand(1, 3, 4))
    with pytest.raises(InputError, match="at least one pixel"):
        pixel_moments(torch.zeros(0, 3, 4, dtype=torch.uint8))


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz"])
def test_a_set_whose_loading_was_begun_is_the_same_and_is_not_held(tmp_path: Path, suffix: str) -> None:
    for part, images in (("train", TRAIN), ("t10k", TEST)):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{suffix}", images)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{suffix}", range(len(images)))
    reading = begin_loading(tmp_path)
    for split in SPLITS:
        ahead, names = load_images(tmp_path, split, reading)
        expected, expected_names = load_images(tmp_path, split)
        assert torch.equal(ahead.values, expected.values)
        assert torch.equal(ahead.y, expected.y)
        assert names == expected_names
        ahead.values[0] = 0  # a tensor of its own, which may be written to
    assert not reading


def test_what_is_wrong_with_a_set_whose_loading_was_begun_is_said_when_it_is_loaded(folder: Path) -> None:
    (folder / "t10k-images-idx3-ubyte").write_bytes(b"")
    for place, split, message in (
        (folder / "absent", "train", "does not exist"),
        (folder, "train", "not an IDX file"),
        (folder, "test", "not an IDX file"),
    ):
        with pytest.raises(DataError, match=message):
            load_images(place, split, begin_loading(place))  # type: ignore[arg-type]


def test_a_set_is_read_without_torch(tmp_path: Path) -> None:
    # So that it can be read while torch is imported.
    program = (
        "import sys; from unroll.data import images; images.read_part(None, 'test'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
