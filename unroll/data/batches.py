"""Labelled sequences in memory, and batches as index operations on them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

import torch
from torch import Tensor

from unroll.data.parts import Labelled, amount_of, classes

POOL = 50  # batches whose sequences are sorted by length together


@dataclass(frozen=True)
class Batch:
    """x (T, B, D) features or (T, B) word indices; y (B,) classes; lengths (B,), or None where all are T."""

    x: Tensor
    y: Tensor
    lengths: Tensor | None

    def to(self, like: Tensor) -> Batch:
        """On the device of `like`, features in its type; lengths stay on the CPU."""
        x = self.x.to(like) if self.x.is_floating_point() else self.x.to(like.device)
        return Batch(x, self.y.to(like.device), self.lengths)

    def share(self, rank: int, size: int) -> Batch:
        """Every `size`-th sequence, from number `rank` on; none where the batch is too small for that.

        Not a stretch of neighbours: in a batch that is sorted by length, one process would get all the long ones.
        """
        own = slice(rank, None, size)
        lengths = None if self.lengths is None else self.lengths[own]
        steps = None if lengths is None else max([1, *lengths.tolist()])
        return Batch(self.x[:steps, own], self.y[own], lengths)


@dataclass(frozen=True)
class Sequences:
    """N labelled sequences.

    Of equal length: `values` (N, T, …) and `lengths` None. Otherwise: `values` (ΣT, …) holds one sequence after the
    other, and `lengths` (N,) says where they end. `y` (N,) int64.
    """

    values: Tensor
    y: Tensor
    lengths: Tensor | None = None

    def __post_init__(self) -> None:
        assert len(self.values if self.lengths is None else self.lengths) == len(self.y)
        if self.lengths is not None:
            assert len(self.values) == int(self.lengths.sum())
            object.__setattr__(self, "_starts", self.lengths.cumsum(0) - self.lengths)

    def __len__(self) -> int:
        return len(self.y)

    def take(self, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Sequences by number: padded values (B, T, …) and their lengths (B,), or None where all are equal."""
        if self.lengths is None:
            return self.values.index_select(0, index), None
        lengths = self.lengths[index]
        steps = torch.arange(max(1, int(lengths.max())))
        inside = steps < lengths[:, None]  # (B, T)
        starts: Tensor = self._starts[index]  # type: ignore[attr-defined]
        where = (starts[:, None] + steps).masked_fill(~inside, 0)
        padded = self.values[where]
        padded[~inside] = 0
        return padded, lengths

    def subset(self, index: Tensor) -> Sequences:
        """The sequences with these numbers, as a set of their own."""
        if self.lengths is None:
            return Sequences(self.values[index], self.y[index])
        pieces = self.values.split(self.lengths.tolist())
        values = torch.cat([pieces[i] for i in index.tolist()]) if len(index) else self.values[:0]
        return Sequences(values, self.y[index], self.lengths[index])

    def hold_out(self, amount: float) -> tuple[Sequences, Sequences]:
        """Split off the last `amount` sequences (below 1: that share of them; 0: none).

        Raises:
            DataError: nothing would be left on one of the sides.
        """
        count = amount_of("validation", amount, len(self))
        first, last = torch.arange(len(self)).split([len(self) - count, count])
        return self.subset(first), self.subset(last)


def ragged(values: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor | None]:
    """values (ΣT, …), one sequence after the other -> (N, T, …) and None if all are equally long; else with lengths."""
    if len(set(lengths)) == 1:
        return values.view(len(lengths), lengths[0], *values.shape[1:]), None
    return values, torch.tensor(lengths, dtype=torch.int64)


class Encoder(Protocol):
    """How a task's raw inputs become the model's inputs; saved with the weights, so that a run can be used alone."""

    task: ClassVar[str]

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def input_size(self) -> int:
        """D features, or V words."""
        ...

    def features(self, values: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """values (B, T, …) as stored -> model inputs (T, B, D) or (T, B); with a generator, augmented."""
        ...

    def encode(self, inputs: Sequence[Any]) -> tuple[Tensor, Tensor | None]:
        """Raw inputs -> `values` and `lengths` of a `Sequences`."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Everything that `from_json` needs to make an equal encoder."""
        ...


class FileEncoder(Encoder, Protocol):
    """Of what is read from one file, labels beside the series."""

    def stored(self, found: Labelled) -> tuple[Tensor, Tensor | None]:
        """`values` and `lengths` of a `Sequences`."""
        ...


def as_sequences(encoder: FileEncoder, found: Labelled) -> Sequences:
    """What a file holds, as a model reads it.

    Raises:
        DataError: a label is none of the encoder's, or a series cannot be read.
    """
    values, lengths = encoder.stored(found)
    return Sequences(values, torch.tensor(classes(found.labels, encoder.class_names, found.places)), lengths)


@dataclass(frozen=True)
class Dataset:
    """What training needs to know about its data; `notes` are lines to print before it begins."""

    encoder: Encoder
    train: Sequences
    validation: Sequences | None
    test: Sequences | None
    notes: Sequence[str] = ()

    @classmethod
    def of(cls, encoder: FileEncoder, *divided: Labelled, notes: Sequence[str] = ()) -> Self:
        """Of what `Labelled.divide` made of a file."""
        train, held_out, test = (as_sequences(encoder, part) if part.series else None for part in divided)
        assert train is not None
        return cls(encoder, train, held_out, test, notes)

    def steps(self, batch_size: int) -> int:
        """Batches in an epoch."""
        return math.ceil(len(self.train) / batch_size)

    def epoch(self, batch_size: int, generator: torch.Generator, shuffle: bool, augment: bool) -> Iterator[Batch]:
        """The training part once, in batches; order and distortions are drawn from the generator."""
        return batches(self.train, self.encoder, batch_size, generator, shuffle, augment)


def batches(
    data: Sequences,
    encoder: Encoder,
    batch_size: int,
    generator: torch.Generator | None = None,
    shuffle: bool = True,
    augment: bool = False,
) -> Iterator[Batch]:
    """All sequences once, in batches; without a generator in order and as they are."""
    for index in _order(data, batch_size, generator if shuffle else None):
        values, lengths = data.take(index)
        yield Batch(encoder.features(values, generator if augment else None), data.y.index_select(0, index), lengths)


def _order(data: Sequences, batch_size: int, generator: torch.Generator | None) -> list[Tensor]:
    """Which sequences go into which batch.

    Shuffled sequences of unequal length share a batch with others of about their own, or half of the work would be done
    on padding: stretches of POOL batches are sorted by length, and the batches that come of it are shuffled once more.
    """
    if generator is None:
        return list(torch.arange(len(data)).split(batch_size))
    order = torch.randperm(len(data), generator=generator)
    if data.lengths is None:
        return list(order.split(batch_size))
    pools = order.split(POOL * batch_size)
    found = [part for pool in pools for part in pool[data.lengths[pool].argsort(stable=True)].split(batch_size)]
    return [found[i] for i in torch.randperm(len(found), generator=generator).tolist()]
