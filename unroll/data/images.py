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
from unroll.data.mnist import load_images, pixel_moments
from unroll.errors import DataError, InputError


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
    folder: str | None, standardise: bool, validation: float = 0.0, augmentation: Augmentation | None = None
) -> Dataset:
    """The four IDX files in `folder` (None: the MNIST that comes with the package)."""
    train_part, test_part = load_images(folder, "train"), load_images(folder, "test")
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
