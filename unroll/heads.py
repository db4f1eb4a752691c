"""Heads: what a model is trained to say. A head knows its outputs, which states it reads, its loss, decoding and metrics.

The numbers z = W_out h + b_out themselves are the model's (`unroll.models`): every head has such a linear readout.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from unroll.cells.base import check_size
from unroll.engines import EngineName, readout_loss
from unroll.errors import InputError, nearest

Pooling = Literal["last", "mean", "max"]
MISTAKES_SHOWN = 20


def pool(how: Pooling, outputs: Tensor, last: Tensor, lengths: Tensor | None) -> Tensor:
    """Which states are read: the last ones, or the mean or maximum over all steps.

    Args:
        outputs: (T, B, F) of the top layer, zero beyond a sequence's length.
        last: (B, F), the last state of each direction, side by side.
        lengths: (B,), or None where all are T.

    Returns:
        (B, F).
    """
    if how not in get_args(Pooling):
        raise InputError(f"unknown pooling {how!r}{nearest(how, get_args(Pooling))}")
    if how == "last":
        return last
    if lengths is None:
        return outputs.mean(0) if how == "mean" else outputs.amax(0)
    steps = lengths.to(outputs.device)
    if how == "mean":
        return outputs.sum(0) / steps.clamp(min=1)[:, None]
    padding = torch.arange(outputs.shape[0], device=outputs.device)[:, None] >= steps  # (T, B)
    return outputs.masked_fill(padding[:, :, None], -torch.inf).amax(0)


class Head(ABC):
    """What a model is trained to say.

    Attributes:
        outputs: how many numbers the readout gives.
        pooling: which states it reads, see `pool`.
        cross_entropy: where the loss is the cross-entropy of z, its class weights (C,) or None and its label smoothing; so
            that an engine may compute it together with the scan. None where the loss is another.
        followed: which of `metrics` are measured on the held-out part after every epoch. ``loss`` is one of them.
    """

    outputs: int
    pooling: Pooling
    followed: tuple[str, ...]
    cross_entropy: tuple[Tensor | None, float] | None = None

    def fit_to(self, y: Tensor) -> None:  # noqa: B027 - most heads have nothing to do
        """Take from the training part's targets what the loss needs to know of them."""

    @abstractmethod
    def loss(self, h: Tensor, W: Tensor, b: Tensor, y: Tensor, total: float | None, engine: EngineName) -> Tensor:
        """The mean loss of a batch: h (B, F), W (O, F), b (O,), targets y (B,).

        Args:
            total: what to divide by, where the batch is a share of a larger one; None: what `weight` gives for y.
            engine: which one computes it.
        """

    @abstractmethod
    def weight(self, y: Tensor) -> float:
        """The denominator of the mean loss of a batch."""

    @abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """z (B, O) -> what is predicted."""

    @abstractmethod
    def metrics(self, predicted: Tensor, y: Tensor, names: tuple[str, ...]) -> dict[str, Any]:
        """What `decode` gave for N sequences and their targets y (N,) -> what goes into metrics.json.

        Among it ``loss``, by which early stopping chooses, and where a search is to choose by it ``accuracy``.
        """

    @abstractmethod
    def summary(self, metrics: dict[str, Any]) -> str:
        """The metrics that are printed, such as ``Accuracy: 98.77%``; beside the loss, of those in `followed`."""

    @abstractmethod
    def answer(self, predicted: Tensor, names: tuple[str, ...]) -> Any:
        """What `decode` gave for one sequence, as its user is told."""

    @abstractmethod
    def examples(self, predicted: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Groups of sequences worth showing in figures, each by its numbers."""


@dataclass(frozen=True)
class Prediction:
    """The most probable class of one input, and the probability of every class."""

    label: str
    probabilities: dict[str, float]

    @property
    def probability(self) -> float:
        return self.probabilities[self.label]


class Classification(Head):
    """One of C classes for each sequence: cross-entropy of z, probabilities softmax(z).

    Args:
        classes: C.
        pooling: ``"last"``, ``"mean"`` or ``"max"``.
        label_smoothing: share of the target spread over all classes.
        balanced: weigh class k by N / (C · N_k) in the loss, so that all classes weigh the same.

    Raises:
        InputError: fewer than two classes, or no such pooling.
    """

    followed = ("loss", "accuracy")

    def __init__(
        self, classes: int, pooling: Pooling = "last", label_smoothing: float = 0.0, balanced: bool = False
    ) -> None:
        check_size("num_classes", classes)
        if classes < 2:
            raise InputError(f"num_classes is {classes}, but a classifier needs at least 2 classes")
        if pooling not in get_args(Pooling):
            raise InputError(f"unknown pooling {pooling!r}{nearest(pooling, get_args(Pooling))}")
        self.outputs = classes
        self.pooling = pooling
        self.label_smoothing = label_smoothing
        self.balanced = balanced
        self.class_weights: Tensor | None = None

    @property
    def cross_entropy(self) -> tuple[Tensor | None, float]:  # type: ignore[override]
        return self.class_weights, self.label_smoothing

    def fit_to(self, y: Tensor) -> None:
        if self.balanced:
            counts = torch.bincount(y, minlength=self.outputs).clamp(min=1)
            self.class_weights = len(y) / (self.outputs * counts.to(torch.get_default_dtype()))

    def loss(self, h: Tensor, W: Tensor, b: Tensor, y: Tensor, total: float | None, engine: EngineName) -> Tensor:
        weights = None if self.class_weights is None else self.class_weights.to(h)
        return readout_loss(h, W, b, y, weights, self.label_smoothing, total, engine)

    def weight(self, y: Tensor) -> float:
        return float(len(y) if self.class_weights is None else self.class_weights[y.cpu()].sum())

    def decode(self, z: Tensor) -> Tensor:
        """Class probabilities (B, C)."""
        return z.softmax(-1)

    def metrics(self, predicted: Tensor, y: Tensor, names: tuple[str, ...]) -> dict[str, Any]:
        """Accuracy with its 95% interval, mean cross-entropy, and per class; of probabilities (N, C).

        Row k of the ``confusion`` matrix counts the predictions for the sequences of class k.
        """
        C = len(names)
        confusion = torch.bincount(y * C + predicted.argmax(1), minlength=C * C).view(C, C)
        per_class = {}
        for k, name in enumerate(names):
            right, total = int(confusion[k, k]), int(confusion[k].sum())
            per_class[name] = {"correct": right, "total": total, "accuracy": right / total if total else None}
        correct = int(confusion.diagonal().sum())
        return {
            "accuracy": correct / len(y),
            "interval95": wilson(correct, len(y)),
            "correct": correct,
            "total": len(y),
            "loss": float(-predicted.gather(1, y[:, None]).clamp(min=1e-12).log().mean()),
            "per_class": per_class,
            "confusion": confusion.tolist(),
        }

    def summary(self, metrics: dict[str, Any]) -> str:
        return f"Accuracy: {100 * metrics['accuracy']:.2f}%"

    def answer(self, predicted: Tensor, names: tuple[str, ...]) -> Prediction:
        return Prediction(names[int(predicted.argmax())], dict(zip(names, predicted.tolist(), strict=True)))

    def examples(self, predicted: Tensor, y: Tensor) -> dict[str, Tensor]:
        """``one_of_each``: the first sequence of every class; ``mistakes``: those of which the model was surest."""
        wrong = (predicted.argmax(1) != y).nonzero()[:, 0]
        surest = predicted[wrong].amax(1).argsort(descending=True, stable=True)
        return {
            "one_of_each": torch.tensor([int((y == k).nonzero()[0, 0]) for k in y.unique().tolist()]),
            "mistakes": wrong[surest][:MISTAKES_SHOWN],
        }


def wilson(correct: int, total: int) -> tuple[float, float]:
    """95% interval of a share k / n.

        (k + z²/2 ± z √(k (n - k) / n + z²/4)) / (n + z²),    z = 1.96

    Source: Wilson, Journal of the American Statistical Association 22(158), 1927. SciPy has it too, but takes a third of a
    second to import, at the end of every training.
    """
    z = NormalDist().inv_cdf(0.975)
    centre = correct + z * z / 2
    reach = z * math.sqrt(correct * (total - correct) / total + z * z / 4)
    return max(0.0, (centre - reach) / (total + z * z)), min(1.0, (centre + reach) / (total + z * z))
