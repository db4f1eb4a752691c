"""Fewer batches of a long training: once it was seen to work, what comes after says nothing new, and takes most of the time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

STEPS = 60  # backward passes of a model that are waited for
EPOCHS = 2  # whole ones
LEFT = 2  # batches of a later epoch: two, as a loop's last index is divided by


class FewBatches:
    """Decides which passes over a loader are cut short.

    Only a pass in which the model is trained is: that is known when its first batches have been used, so that a test over the
    same loader goes over all of it. Not for use where a file divides its batches in another way; the caller runs a file once
    more without this where it ends with an exception.

    Attributes:
        cut: how many passes were cut short.
    """

    def __init__(self) -> None:
        self.cut = 0
        self._backwards = 0
        self._whole = Counter[int]()
        self._begun: tuple[int, int, int] | None = None  # loader, backward passes until then, batches

    def on_model(self) -> None:
        """Another model came up: it is to be seen as long as the first."""
        self._backwards, self._begun = 0, None
        self._whole.clear()

    def on_backward(self) -> None:
        self._backwards += 1

    def on_loader(self, loader: int, batches: int | None) -> bool:
        """Whether the pass that begins here may be cut short."""
        if self._begun is not None:
            before, since, count = self._begun
            self._whole[before] += self._backwards - since >= count
        self._begun = None if batches is None else (loader, self._backwards, batches)
        return (
            batches is not None and batches > LEFT and self._backwards >= STEPS and self._whole[loader] >= EPOCHS
        )  # fmt: skip

    def few(self, batches: Iterator[Any], event: dict[str, Any]) -> Iterator[Any]:
        """The batches of such a pass; where it was cut short, that is noted in its event."""
        since = self._backwards
        for count, batch in enumerate(batches, start=1):
            yield batch
            if count >= LEFT and self._backwards - since >= count:
                event["cut"] = True
                self.cut += 1
                return
