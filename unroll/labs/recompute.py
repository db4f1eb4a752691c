"""A student's trained cell on our own engine: the same weights, the same images, another program."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unroll.errors import InputError, UnrollError, shortened

BATCH = 1000
GIVEN = "given.safetensors"
"""What `unroll.labs.child.predict` finds beside a student's file: ``images`` uint8 (N, 28, 28), and a model's weights, each by
its name behind `WEIGHT`."""
WEIGHT = "weight."
ALIKE = 0.995  # share of predictions that are equal where both compute the same; a few differ by rounding alone


def compare(given: dict[str, Any] | None, predicted: NDArray[np.int64] | None) -> dict[str, Any]:
    """What our engine makes of the test images, beside what the student's model did with them.

    Args:
        given: what a child handed over: ``cell``, ``tensors``, ``W_out``, ``b_out``, ``scale``, ``shift``, or a ``reason``.
        predicted: (N,), classes of the first N test images by the model itself.

    Returns:
        ``engine_accuracy`` in percent and ``engine_agrees``, the number of equal predictions; or ``not_by_engine``, why they
        cannot be compared. Nothing where the model predicted nothing.
    """
    if given is None or predicted is None:
        return {}
    if "reason" in given:
        return {"not_by_engine": shortened(str(given["reason"]))}
    from unroll.data.images import read_part

    images, labels, _ = read_part(None, "test")
    count = len(predicted)
    try:
        if count > len(images):
            raise InputError(f"it has predictions for {count} images")
        x = images[:count] / 255 * float(given["scale"]) + float(given["shift"])
        found = predictions(given, x.astype(np.asarray(given["W_out"]).dtype))
    except (UnrollError, KeyError, TypeError, ValueError, RuntimeError) as error:
        return {"not_by_engine": f"the engine could not run its cell ({shortened(f'{error}', 200)})"}
    agrees = int((found == predicted).sum())
    if agrees < ALIKE * count:
        return {
            "not_by_engine": "the classifier computes something else than one cell over the rows and an output layer: only "
            f"{agrees:,} of {count:,} predictions are equal"
        }
    return {"engine_accuracy": 100 * float((found == labels[:count]).mean()), "engine_agrees": agrees}


def predictions(given: dict[str, Any], x: NDArray[Any]) -> NDArray[np.int64]:
    """The classes (N,) that a cell handed over gives to sequences x (N, T, D), by our engine.

    Raises:
        InputError: it is no cell, or does not fit x.
    """
    import torch

    from unroll.equations.cell import ProgramCell
    from unroll.layers import Recurrent

    cell = ProgramCell.from_data(given["cell"])
    sequences = torch.from_numpy(x)
    with torch.no_grad():
        for name, tensor in [*cell.named_parameters(), *cell.named_buffers()]:
            found = torch.as_tensor(given["tensors"][name])
            if found.shape != tensor.shape:
                raise InputError(f"{name} is {tuple(found.shape)}; expected {tuple(tensor.shape)}")
            tensor.copy_(found)
        layer = Recurrent(cell.eval(), batch_first=True).to(sequences.dtype)
        weight, bias = (torch.as_tensor(given[name]).to(sequences) for name in ("W_out", "b_out"))
        classes = []
        for part in sequences.split(BATCH):
            state = layer(part)[1]
            h = state if isinstance(state, torch.Tensor) else state[0]
            classes.append((h[-1] @ weight.T + bias).argmax(1))  # h (1, B, H): of the one layer
    return torch.cat(classes).numpy()
