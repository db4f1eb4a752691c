"""What a test says: accuracy with its interval, per class, confusion matrix; and the predictions themselves."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import binomtest
from torch import Tensor

from unroll.data.batches import Sequences
from unroll.training.run import write_atomically

MISTAKES_SHOWN = 20


def wilson(correct: int, total: int) -> tuple[float, float]:
    """95% interval of a share (Wilson, JASA 22(158), 1927)."""
    interval = binomtest(correct, total).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def measure(p: Tensor, y: Tensor, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Class probabilities p (N, C) and true classes y (N,) -> what goes into metrics.json.

    In the confusion matrix, row k counts how the sequences of class k were read.
    """
    C = len(class_names)
    predicted = p.argmax(1)
    confusion = torch.bincount(y * C + predicted, minlength=C * C).view(C, C)
    per_class = {}
    for k, name in enumerate(class_names):
        correct, total = int(confusion[k, k]), int(confusion[k].sum())
        per_class[name] = {"correct": correct, "total": total, "accuracy": correct / total if total else None}
    correct = int(confusion.diagonal().sum())
    return {
        "accuracy": correct / len(y),
        "interval95": wilson(correct, len(y)),
        "correct": correct,
        "total": len(y),
        "loss": float(-p.gather(1, y[:, None]).clamp(min=1e-12).log().mean()),
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }


def write_predictions(path: Path, p: Tensor, test: Sequences) -> None:
    """p (N, C) and y (N,) of the whole test set, and the inputs of the sequences that figures show.

    Shown are the first sequence of every class (`one_of_each`, by number) and the mistakes of which the model was surest
    (`mistakes`); their inputs are `shown_values`, padded, with `shown_lengths`.
    """
    y = test.y
    predicted = p.argmax(1)
    present = [int(k) for k in y.unique()]
    one_of_each = torch.tensor([int((y == k).nonzero()[0, 0]) for k in present])
    wrong = (predicted != y).nonzero()[:, 0]
    mistakes = wrong[p[wrong].amax(1).argsort(descending=True, stable=True)][:MISTAKES_SHOWN]
    values, lengths = test.take(torch.cat([one_of_each, mistakes]))
    content = io.BytesIO()
    np.savez_compressed(
        content,
        p=p.numpy(),
        y=y.numpy(),
        one_of_each=one_of_each.numpy(),
        mistakes=mistakes.numpy(),
        shown_values=values.numpy(),
        shown_lengths=np.full(len(values), values.shape[1]) if lengths is None else lengths.numpy(),
    )
    write_atomically(path, content.getvalue())
