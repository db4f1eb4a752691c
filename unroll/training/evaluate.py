"""Evaluation: what a model says of a set of sequences, and how good that is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unroll.data.batches import Encoder, Sequences, batches
from unroll.files import write_atomically
from unroll.heads import Head
from unroll.models import SequenceModel

BATCH_SIZE = 500


@torch.no_grad()
def predictions(model: SequenceModel, data: Sequences, encoder: Encoder) -> Tensor:
    """What the head decodes for every sequence, in order, on the CPU; class probabilities (N, C) of a classifier."""
    was_training = model.training
    model.eval()
    rows = []
    for batch in batches(data, encoder, BATCH_SIZE):
        batch = batch.to(model.W_out)
        rows.append(model.head.decode(model(batch.x, batch.lengths)).cpu())
    model.train(was_training)
    return torch.cat(rows)


def evaluated(model: SequenceModel, data: Sequences, encoder: Encoder) -> dict[str, Any]:
    """The head's metrics on a set of sequences."""
    return model.head.metrics(predictions(model, data, encoder), data.y, encoder.class_names)


def write_predictions(path: Path, head: Head, p: Tensor, test: Sequences) -> None:
    """What the head decoded and the targets y (N,) of the whole test set, and the inputs of the sequences that figures show.

    Those are the head's `examples`, groups of numbers; their inputs are `shown_values`, padded, with `shown_lengths`.
    """
    groups: dict[str, Any] = head.examples(p, test.y)
    values, lengths = test.take(torch.cat([torch.empty(0, dtype=torch.int64), *groups.values()]))
    content = io.BytesIO()
    np.savez_compressed(
        content,
        p=p.numpy(),
        y=test.y.numpy(),
        **{name: numbers.numpy() for name, numbers in groups.items()},
        shown_values=values.numpy(),
        shown_lengths=np.full(len(values), values.shape[1]) if lengths is None else lengths.numpy(),
    )
    write_atomically(path, content.getvalue())
