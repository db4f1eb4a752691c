"""Sets of labelled grey images in four IDX files: MNIST, which is in the package, and any folder like it.

A folder holds, plain or as .gz or .xz,

    train-images-idx3-ubyte   (N, rows, columns) of uint8     t10k-images-idx3-ubyte   the same for the test
    part train-labels-idx1-ubyte   (N,) whole numbers from 0       t10k-labels-idx1-ubyte

The last dash may be a dot (``train-images.idx3-ubyte``), ``t10k`` may be ``test``, and all names may start
with ``emnist-SET-``, if the folder has one SET only. An optional ``classes.txt`` names the classes, one a
line from class 0.

Sources: LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition. Proc. IEEE
86(11), 1998; Cohen, Afshar, Tapson, van Schaik: EMNIST: an extension of MNIST to handwritten letters. 2017
(arXiv 1702.05373).

What it does not do: download anything, or decode one image at a time: the set is one tensor, a batch is an
index into it.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from unroll.data.idx import read_ahead, read_idx, read_idx_shape
from unroll.errors import DataError, InputError

if TYPE_CHECKING:
    from torch import Tensor

PACKAGED = Path(__file__).parent / "files" / "mnist"
"""The four original MNIST files."""

PIXELS_AT_ONCE = 1 << 18  # as float64, so many stay in the cache

Split = Literal["train", "test"]
_Part = tuple[Split, Literal["images", "labels"]]

_NAME = re.compile(
    r"(?:(?P<family>emnist-[a-z]+)-)?(?P<split>train|t10k|test)-(?P<what>images|labels)[-.]idx[13]-ubyte"
    r"(?P<packed>\.gz|\.xz)?"
)
_USUAL: dict[_Part, str] = {
    ("train", "images"): "train-images-idx3-ubyte",
    ("train", "labels"): "train-labels-idx1-ubyte",
    ("test", "images"): "t10k-images-idx3-ubyte",
    ("test", "labels"): "t10k-labels-idx1-ubyte",
}


@dataclass(frozen=True)
class ImageSet:
    """images (N, rows, columns) uint8, 0 to 255; labels (N,) int64, each a position in class_names."""

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def begin_loading(folder: str | Path | None) -> None:
    """Begin to unpack the images that `load_images` will ask for, in a thread; to be called before torch is imported."""
    with suppress(DataError, OSError):  # left to load_images
        files = _find(PACKAGED if folder is None else Path(folder))
        read_ahead(files[split, "images"] for split in ("train", "test") if (split, "images") in files)


def load_images(folder: str | Path | None = None, split: Split = "train") -> ImageSet:
    """One part of the image set in `folder`; None is the MNIST that comes with the package.

    Of the other part, if it is there, only the labels (for the number of classes) and the size of the images
    are read. EMNIST's images, which are stored on their side, are turned upright.

    Raises `DataError` for files that are missing or damaged, that contradict each other, or that hold
    something other than grey images and whole-number labels.
    """
    import torch

    if split not in ("train", "test"):
        raise InputError(f"split is {split!r}; expected 'train' or 'test'")
    folder = PACKAGED if folder is None else Path(folder)
    files = _find(folder)
    missing = [_USUAL[part] for part in _USUAL if part[0] == split and part not in files]
    if missing:
        there = sorted(path.name for path in folder.iterdir())
        listed = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
        raise DataError(
            f"{folder}: no {' and no '.join(missing)} (plain, .gz or .xz); the folder has {listed or 'no files'}"
        )
    images_file, labels_file = files[split, "images"], files[split, "labels"]
    images, labels = _read_images(images_file), _read_labels(labels_file)
    if len(images) != len(labels):
        raise DataError(
            f"{images_file} holds {len(images):,} images and {labels_file.name} {len(labels):,} labels; expected as "
            "many of one as of the other: do they belong together?"
        )
    if len(images) == 0:
        raise DataError(f"{images_file} holds no images; expected at least one")

    other: Split = "test" if split == "train" else "train"
    if other_file := files.get((other, "images")):
        shape = read_idx_shape(other_file)
        if shape[1:] != images.shape[1:]:
            raise DataError(
                f"{images_file} holds images of {_size(images.shape[1:])} and {other_file.name} of "
                f"{_size(shape[1:])}; expected one size: do they belong together?"
            )
    highest = int(labels.max())
    if other_labels := files.get((other, "labels")):
        highest = max(highest, int(_read_labels(other_labels).max(initial=0)))
    names = _class_names(folder, highest)

    if images_file.name.startswith("emnist-"):
        images = np.ascontiguousarray(images.transpose(0, 2, 1))
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), names)


def pixel_moments(images: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of all pixels of uint8 images of any shape, on a scale from 0 to 1.

        mean = sum p / (255 n),   std^2 = (n sum p^2 - (sum p)^2) / (255 n)^2

    over the n pixels p. The sums are whole numbers, so that nothing is rounded before the last division and the result is
    the same on every machine.

    Raises `InputError` for images of another type or none, `DataError` where all pixels are equal.
    """
    import torch

    if images.dtype != torch.uint8 or images.numel() == 0:
        raise InputError(f"images are {tuple(images.shape)} of {images.dtype}; expected at least one pixel of uint8")
    n, first, second = images.numel(), 0, 0
    room = torch.empty(min(n, PIXELS_AT_ONCE), dtype=torch.float64)  # whole numbers below 2^53 are exact in it
    for part in images.reshape(-1).split(PIXELS_AT_ONCE):
        p = room[: len(part)].copy_(part)
        first += int(p.sum())
        second += int(p.dot(p))
    spread = n * second - first * first
    if spread == 0:
        raise DataError(f"all {n:,} pixels have the value {first // n}; expected images that differ from blank paper")
    return first / (255 * n), float(np.sqrt(spread / (255 * n) ** 2))


def _find(folder: Path) -> dict[_Part, Path]:
    """The files of the folder's image set by their part in it."""
    if not folder.is_dir():
        state = "is a file" if folder.exists() else "does not exist"
        raise DataError(
            f"{folder} {state}; expected a folder with the four IDX files, such as {_USUAL['train', 'images']}"
        )
    families: dict[str, dict[_Part, Path]] = {}
    # Sorted, a plain file comes before its .gz, and that before its .xz: the first that is met is taken.
    for path in sorted(folder.iterdir()):
        match = _NAME.fullmatch(path.name)
        if match and path.is_file():
            split: Split = "train" if match["split"] == "train" else "test"
            what: Literal["images", "labels"] = "images" if match["what"] == "images" else "labels"
            families.setdefault(match["family"] or "", {}).setdefault((split, what), path)
    if len(families) > 1:
        names = ", ".join(f"{family}-*" if family else "train-* and t10k-*" for family in sorted(families))
        raise DataError(f"{folder} holds {len(families)} image sets ({names}); expected one: give each its own folder")
    return next(iter(families.values()), {})


def _read_images(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    images = read_idx(path)
    if images.dtype != np.uint8 or images.ndim != 3:
        raise DataError(
            f"{path} holds {images.ndim} dimensions of {images.dtype}; expected 3 (image, row, column) of uint8"
        )
    return images


def _read_labels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    labels = read_idx(path)
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(f"{path} holds {labels.ndim} dimensions of {labels.dtype}; expected 1 of whole numbers")
    if labels.min(initial=0) < 0:
        where = int(np.argmax(labels < 0))
        raise DataError(f"{path}: label {where} (counted from 0) is {labels[where]}; expected a class number from 0")
    return labels.astype(np.int64)


def _class_names(folder: Path, highest: int) -> tuple[str, ...]:
    path = folder / "classes.txt"
    if not path.is_file():
        return tuple(str(k) for k in range(highest + 1))
    try:
        names = tuple(line.strip() for line in path.read_text(encoding="utf-8").rstrip().splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected one class name a line, as UTF-8 text") from None
    if len(names) <= highest or not all(names) or len(set(names)) < len(names):
        raise DataError(
            f"{path} has {len(names)} lines, {len(set(names) - {''})} of them different names; expected one name a "
            f"line for each of the classes 0 to {highest}"
        )
    return names


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
