"""Images as sequences: row t of a picture is x_t, so T rows of D pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from unroll.data.augment import Augmentation, augment
from unroll.data.batches import Dataset, Sequences
from unroll.data.idx import SPLITS, Reading, Split, read_part
from unroll.errors import DataError, InputError

PIXELS_AT_ONCE = 1 << 18  # as float64, so many stay in the cache


@dataclass(frozen=True)
class ImageSet:
    """images (N, rows, columns) uint8, 0 to 255; labels (N,) int64, each a position in class_names."""

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)


def load_images(folder: str | Path | None = None, split: Split = "train", reading: Reading | None = None) -> ImageSet:
    """`read_part` as tensors; taken out of `reading` where the set's reading was begun."""
    images, labels, names = read_part(folder, split) if reading is None else reading.pop(split).result()
    return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), names)


def pixel_moments(images: Tensor) -> tuple[float, float]:
    """Mean and standard deviation of all pixels of uint8 images of any shape, on a scale from 0 to 1.

        mean = sum p / (255 n),   std^2 = (n sum p^2 - (sum p)^2) / (255 n)^2

    over the n pixels p. The sums are whole numbers, so that nothing is rounded before the last division and the result is
    the same on every machine.

    Raises `InputError` for images of another type or none, `DataError` where all pixels are equal.
    """
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


@dataclass(frozen=True)
class ImageEncoder:
    """Pixels 0..255 -> numbers with the training part's mean 0 and deviation 1 (or 0..1 for mean 0 and std 1)."""

    class_names: tuple[str, ...]
    rows: int
    columns: int
    mean: float
    std: float
    augmentation: Augmentation = field(default_factory=Augmentation)
    task: ClassVar[str] = "images"

    @property
    def input_size(self) -> int:
        return self.columns

    def features(self, values: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """uint8 images (B, T, D) -> (T, B, D); distorted at random where a generator is given."""
        if generator is not None and self.augmentation.any():
            values = augment(values.float(), generator, self.augmentation)
        # (values / 255 - mean) / std in one pass; the layers take time first as a view
        return torch.add(torch.tensor(-self.mean / self.std), values.transpose(0, 1), alpha=1 / (255 * self.std))

    def encode(self, inputs: Sequence[Any]) -> tuple[Tensor, None]:
        """Picture files or uint8 arrays (T, D) -> values (N, T, D)."""
        from unroll.data.pictures import load_picture  # with Pillow, which training does without

        pictures = []
        for item in inputs:
            if isinstance(item, str | Path):
                pictures.append(load_picture(Path(item), self.rows, self.columns))
                continue
            array = torch.as_tensor(np.asarray(item))
            if array.dtype != torch.uint8 or array.shape != (self.rows, self.columns):
                raise InputError(
                    f"a picture has shape {tuple(array.shape)} and type {array.dtype}; "
                    f"expected ({self.rows}, {self.columns}) of uint8, or the name of a picture file"
                )
            pictures.append(array)
        return torch.stack(pictures), None

    def to_json(self) -> dict[str, Any]:
        return {
            "class_names": list(self.class_names),
            "rows": self.rows,
            "columns": self.columns,
            "mean": self.mean,
            "std": self.std,
        }

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> ImageEncoder:
        return cls(**{**saved, "class_names": tuple(saved["class_names"])})


def load_image_dataset(
    folder: str | None,
    standardise: bool,
    validation: float = 0.0,
    augmentation: Augmentation | None = None,
    reading: Reading | None = None,
) -> Dataset:
    """The four IDX files in `folder` (None: the MNIST that comes with the package); `reading` may be under way."""
    train_part, test_part = (load_images(folder, split, reading) for split in SPLITS)
    train, test = Sequences(train_part.images, train_part.labels), Sequences(test_part.images, test_part.labels)
    held_out = None
    if validation:
        train, held_out = train.hold_out(validation)
    mean, std = pixel_moments(train.values) if standardise else (0.0, 1.0)
    rows, columns = train.values.shape[1:]
    encoder = ImageEncoder(train_part.class_names, rows, columns, mean, std, augmentation or Augmentation())
    return Dataset(encoder, train, held_out, test)


def load_test_images(folder: str | None, encoder: ImageEncoder) -> Sequences:
    """The test part in `folder` (None: of the packaged MNIST), for a model that was trained with `encoder`.

    Raises:
        DataError: the pictures are of another size, or there are more classes than the model knows.
    """
    part = load_images(folder, "test")
    where, size = folder or "the packaged MNIST", tuple(part.images.shape[1:])
    if size != (encoder.rows, encoder.columns):
        raise DataError(f"{where}: pictures of {size}, but the model reads ({encoder.rows}, {encoder.columns})")
    if int(part.labels.max()) >= len(encoder.class_names):
        raise DataError(
            f"{where}: label {int(part.labels.max())}, but the model knows {len(encoder.class_names)} classes"
        )
    return Sequences(part.images, part.labels)
