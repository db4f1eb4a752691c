"""Which of the served images came by: into the model, and onto the axes of figures with what is written there.

An image is known again by which of its pixels lie above its darkest one: that is the same before and after ``ToTensor``,
``Normalize`` and a division by 255.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unroll.labs.child.patches import Patches

SIDE = 28
LONGEST = 300  # characters of a text that are kept
UNKNOWN = -1

Parts = dict[str, tuple[Any, Any]]
"""Per part, ``train`` and ``test``: images (N, 28, 28) of uint8, and labels (N,)."""


class Album:
    """The images that are known again. Numbers run through the training images, then through the test images."""

    def __init__(self, parts: Parts) -> None:
        self.counts = {part: len(parts[part][0]) if part in parts else 0 for part in ("train", "test")}
        self.labels = np.concatenate(
            [np.asarray(parts[part][1]).astype(np.int64).ravel() for part in ("train", "test") if part in parts]
            or [np.zeros(0, np.int64)]
        )
        self._bright: dict[bytes, int] = {}
        first = 0
        for part in ("train", "test"):
            if part not in parts:
                continue
            flat = np.asarray(parts[part][0]).reshape(-1, SIDE * SIDE)
            masks = np.packbits(flat > flat.min(1, keepdims=True), axis=1)
            for number, row in enumerate(masks, start=first):
                key = row.tobytes()
                known = self._bright.get(key)
                if known is None:
                    self._bright[key] = number
                elif known < first or self.labels[known] != self.labels[number]:
                    self._bright[key] = UNKNOWN  # the same image in both parts, or with two labels, tells nothing
            first += len(flat)
        self.distinct = {
            "train": sum(0 <= n < self.counts["train"] for n in self._bright.values()),
            "test": sum(n >= self.counts["train"] for n in self._bright.values()),
        }

    def find(self, values: NDArray[Any], inverted: bool = False) -> NDArray[np.int32] | None:
        """Return the number of each image (N,), `UNKNOWN` where it is none of ours; None for what has not the size of images.

        Args:
            values: (N, 28, 28), (N, 1, 28, 28), (N, 784), one image, or time-first (28, N, 28).
            inverted: whether to look for dark digits on white as well.
        """
        if values.size == 0 or values.size % (SIDE * SIDE) or values.ndim > 4 or values.dtype == object:
            return None
        tries = [values.reshape(-1, SIDE * SIDE)]
        if values.ndim == 3 and values.shape[0] == SIDE and values.shape[2] == SIDE:
            tries.append(values.transpose(1, 0, 2).reshape(-1, SIDE * SIDE))
        best: NDArray[np.int32] | None = None
        for flat in tries:
            masks = [np.packbits(flat > flat.min(1, keepdims=True), axis=1)]
            if inverted:
                masks.append(np.packbits(flat < flat.max(1, keepdims=True), axis=1))
            for mask in masks:
                found = np.fromiter((self._bright.get(row.tobytes(), UNKNOWN) for row in mask), np.int32, len(mask))
                if best is None or (found >= 0).sum() > (best >= 0).sum():
                    best = found
        return best

    def find_tiles(self, values: NDArray[Any]) -> list[int]:
        """The numbers of the images in one drawn picture: itself, or many side by side, with or without a frame."""
        if values.ndim == 3:
            values = (
                values[..., 0] if values.shape[2] in (3, 4) else values[..., 0] if values.shape[2] == 1 else values[0]
            )
        if values.ndim != 2 or min(values.shape) < SIDE:
            return []
        if values.shape == (SIDE, SIDE):
            found = self.find(values, inverted=True)
            return [] if found is None else [int(n) for n in found if n >= 0]
        most: list[int] = []
        for gap in (0, 1, 2, 4):
            for edge in {0, gap // 2, gap}:
                tiles = [
                    values[row : row + SIDE, column : column + SIDE]
                    for row in range(edge, values.shape[0] - SIDE + 1, SIDE + gap)
                    for column in range(edge, values.shape[1] - SIDE + 1, SIDE + gap)
                ]
                if not tiles or len(tiles) > 400:
                    continue
                found = self.find(np.stack(tiles), inverted=True)
                known = [] if found is None else [int(n) for n in found if n >= 0]
                most = max(most, known, key=len)
        return most


class Gallery:
    """Watches what is drawn with matplotlib, from `start` to `stop`.

    Attributes:
        pictures: per drawn image its ``line``, ``images`` (numbers of an `Album`), ``size``, ``own`` (texts of its axes),
            ``figure`` (texts of its figure) and ``event``, the clock when the texts were read.
    """

    def __init__(
        self,
        album: Callable[[], Album],
        line: Callable[[], int | None],
        clock: Callable[[], int],
        quietly: Callable[..., Any],
    ) -> None:
        self._album, self._line, self._clock, self._quietly = album, line, clock, quietly
        self.pictures: list[dict[str, Any]] = []
        self._open: dict[int, tuple[Any, dict[str, Any]]] = {}
        self._patches = Patches()

    def start(self) -> None:
        from matplotlib.axes import Axes

        def drawn(axes: Any, result: Any) -> None:
            values = np.asarray(result.get_array())
            self._finish(axes)
            if len(self.pictures) < 2000:
                picture = {"line": self._line(), "images": self._album().find_tiles(values), "size": list(values.shape)}
                self.pictures.append(picture)
                self._open[id(axes)] = axes, picture

        self._watch(Axes, "imshow", after=drawn)
        self._watch(Axes, "pcolormesh", after=drawn)
        self._watch(Axes, "clear", before=self._finish)

    def stop(self) -> None:
        for axes, _ in list(self._open.values()):
            self._quietly(self._finish, axes)
        self._patches.undo()

    def _watch(self, owner: Any, name: str, before: Any = None, after: Any = None) -> None:
        def change(plain: Callable[..., Any]) -> Callable[..., Any]:
            def watched(axes: Any, *args: Any, **kwargs: Any) -> Any:
                if before is not None:
                    self._quietly(before, axes)
                result = plain(axes, *args, **kwargs)
                if after is not None:
                    self._quietly(after, axes, result)
                return result

            return watched

        self._patches.wrap(owner, name, change)

    def _finish(self, axes: Any) -> None:
        """Read the texts beside an image before another one, or nothing, takes its place."""
        _, picture = self._open.pop(id(axes), (None, None))
        if picture is None:
            return
        own = [axes.get_title(loc=place) for place in ("left", "center", "right")]
        own += [axes.get_xlabel(), axes.get_ylabel(), *(text.get_text() for text in axes.texts)]
        figure = axes.get_figure()
        whole = [] if figure is None else [text.get_text() for text in figure.texts]  # its title is one of them
        picture["own"] = " | ".join(text for text in own if text)[:LONGEST]
        picture["figure"] = " | ".join(text for text in whole if text)[: 4 * LONGEST]
        picture["event"] = self._clock()
