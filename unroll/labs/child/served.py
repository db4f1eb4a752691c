"""MNIST for a student's file: ``torchvision.datasets.MNIST`` from the package, without a download, and what else of torchvision
the labs use where it is not installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from unroll.data.images import first_images, read_part
from unroll.labs.child import transforms

SMALL = {True: 256, False: 150}
"""Images of the training and of the test part that are served for a check; all ten digits are among them."""
CLASSES = [
    "0 - zero", "1 - one", "2 - two", "3 - three", "4 - four", "5 - five", "6 - six", "7 - seven", "8 - eight", "9 - nine",
]  # fmt: skip

made: list[MNIST] = []
"""The parts that a student's file has made, in order, while `served` is in force."""


class _State:
    small = False
    last: MNIST | None = None


@cache
def _part(train: bool) -> tuple[Tensor, Tensor]:
    images, labels, _ = read_part(None, "train" if train else "test")
    return torch.from_numpy(images), torch.from_numpy(labels)


@cache
def _few(train: bool) -> tuple[Tensor, Tensor]:
    images, labels = first_images("train" if train else "test", SMALL[train])
    return torch.from_numpy(images), torch.from_numpy(labels)


class MNIST(Dataset[Any]):
    """torchvision's class, with the images of the package.

    Attributes:
        data: uint8 (N, 28, 28).
        targets: int64 (N,).
        train, transform, target_transform, root, classes: as in torchvision.
    """

    classes = CLASSES
    mirrors = resources = ()

    def __init__(
        self,
        root: str | Path | None = None,
        train: bool = True,
        transform: Callable[..., Any] | None = None,
        target_transform: Callable[..., Any] | None = None,
        download: bool = False,
    ) -> None:
        self.root, self.train = root, bool(train)
        self.transform, self.target_transform = transform, target_transform
        part = _few(self.train) if _State.small else _part(self.train)
        # Copies, because a student may write into them.
        self.data, self.targets = (values.clone() for values in part)
        made.append(self)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: Any) -> tuple[Any, Any]:
        index = int(index)
        images, labels = self.data, self.targets
        if not -len(images) <= index < len(images):
            images, labels = _part(self.train)  # of a small part: the very image that the whole one has there
            if not 0 <= index < len(images) or not _State.small:
                raise IndexError(f"index {index} is out of range for {len(self)} images")
        _State.last = self
        image: Any = Image.fromarray(images[index].numpy())
        label: Any = int(labels[index])
        image = image if self.transform is None else self.transform(image)
        return image, label if self.target_transform is None else self.target_transform(label)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        split = "Train" if self.train else "Test"
        return (
            f"Dataset MNIST\n    Number of datapoints: {len(self)}\n    Root location: {self.root}\n    Split: {split}"
        )

    @property
    def class_to_idx(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.classes)}

    train_data = test_data = property(lambda self: self.data)
    train_labels = test_labels = property(lambda self: self.targets)


def last_part() -> MNIST | None:
    """The part that an image was last taken from, one by one."""
    return _State.last


def make_grid(
    tensor: Any, nrow: int = 8, padding: int = 2, normalize: bool = False, value_range: Any = None,
    scale_each: bool = False, pad_value: float = 0.0,
) -> Tensor:  # fmt: skip
    """Pictures (B, channels, H, W) side by side with padding around each, `nrow` in a row: (3, rows, columns)."""
    pictures = torch.stack(list(tensor), 0) if isinstance(tensor, list | tuple) else tensor
    if pictures.ndim == 2:
        pictures = pictures[None]
    if pictures.ndim == 3:
        pictures = pictures[None]
    if pictures.shape[1] == 1:
        pictures = pictures.expand(-1, 3, -1, -1)
    if normalize:
        pictures = pictures.clone().float()
        for part in pictures if scale_each else [pictures]:
            low, high = value_range or (float(part.min()), float(part.max()))
            part.clamp_(low, high).sub_(low).div_(max(high - low, 1e-5))
    if len(pictures) == 1:
        return pictures[0]
    across = min(nrow, len(pictures))
    down = -(-len(pictures) // across)
    rows, columns = pictures.shape[2] + padding, pictures.shape[3] + padding
    grid = pictures.new_full((pictures.shape[1], rows * down + padding, columns * across + padding), pad_value)
    for number, picture in enumerate(pictures):
        top, left = number // across * rows + padding, number % across * columns + padding
        grid[:, top : top + picture.shape[1], left : left + picture.shape[2]] = picture
    return grid


def save_image(tensor: Any, fp: Any, format: str | None = None, **options: Any) -> None:
    """Write `make_grid`'s picture."""
    grid = make_grid(tensor, **options).mul(255).add_(0.5).clamp_(0, 255).to(torch.uint8)
    Image.fromarray(grid.permute(1, 2, 0).numpy()).save(fp, format=format)


class _StandIn(types.ModuleType):
    """A module that says what it is where something is asked of it that it has not."""

    def __init__(self, name: str, things: dict[str, Any]) -> None:
        super().__init__(name, "A stand-in for torchvision, which is not installed.")
        self.__path__: list[str] = []
        vars(self).update(things)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(
            f"{self.__name__}.{name}: torchvision is not installed, and its stand-in has only what the labs need; "
            "install it with: pip install torchvision"
        )


def _stand_ins() -> dict[str, types.ModuleType]:
    functions = {thing.__name__: thing for thing in transforms.FUNCTIONS}
    classes = {thing.__name__: thing for thing in transforms.CLASSES}
    newer = classes | {thing.__name__: thing for thing in transforms.NEWER}
    functional = _StandIn("torchvision.transforms.functional", functions)
    v2 = _StandIn("torchvision.transforms.v2", {**newer, "functional": functional})
    of_transforms = _StandIn("torchvision.transforms", {**classes, "functional": functional, "v2": v2})
    of_class = _StandIn("torchvision.transforms.transforms", classes)
    mnist = _StandIn("torchvision.datasets.mnist", {"MNIST": MNIST})
    datasets = _StandIn("torchvision.datasets", {"MNIST": MNIST, "mnist": mnist})
    utils = _StandIn("torchvision.utils", {"make_grid": make_grid, "save_image": save_image})
    parts = {"datasets": datasets, "transforms": of_transforms, "utils": utils, "__version__": "0.0.0+unroll"}
    top = _StandIn("torchvision", parts)
    modules = (top, datasets, mnist, of_transforms, of_class, functional, v2, utils)
    return {module.__name__: module for module in modules}


def is_installed() -> bool:
    """Whether the real torchvision can be imported."""
    if isinstance(sys.modules.get("torchvision"), _StandIn):
        return False
    try:
        return importlib.util.find_spec("torchvision") is not None and bool(
            importlib.import_module("torchvision.datasets")
        )
    except Exception:  # it is there, but does not fit the torch that is installed
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        return False


@contextmanager
def served(small: bool = False) -> Iterator[list[MNIST]]:
    """While in force, ``torchvision.datasets.MNIST`` is the package's; gives the parts that are made of it.

    Args:
        small: serve the first images only (see `SMALL`).
    """
    made.clear()
    before, _State.small, _State.last = _State.small, small, None
    try:
        if is_installed():
            datasets: Any = importlib.import_module("torchvision.datasets")
            inner: Any = importlib.import_module("torchvision.datasets.mnist")
            real = datasets.MNIST, inner.MNIST
            datasets.MNIST = inner.MNIST = MNIST
            try:
                yield made
            finally:
                datasets.MNIST, inner.MNIST = real
        else:
            stand_ins = _stand_ins()
            sys.modules.update(stand_ins)
            try:
                yield made
            finally:
                for name in stand_ins:
                    sys.modules.pop(name, None)
    finally:
        _State.small, _State.last = before, None
