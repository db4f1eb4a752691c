"""A trained classifier's cell handed over as data: its step program, its weights, and its output layer."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unroll.cells.base import as_cell
from unroll.equations.carry import as_program
from unroll.errors import shortened
from unroll.labs.child.find import find

NEAR = 1e-5  # of values of about 1


def hand_over(namespace: Mapping[str, Any], model: nn.Module, input_size: int) -> dict[str, Any]:
    """``cell``, ``tensors``, ``W_out``, ``b_out`` of a trained classifier; or ``reason``, why it cannot be told in this form.

    Args:
        namespace: the file's names.
        model: the classifier.
        input_size: of the cell.
    """
    found = find(namespace, [model])
    if found.cell is None:
        return {"reason": found.reason or "no cell was found"}
    cells = [part for part in model.modules() if isinstance(part, found.cell)]
    if len(cells) != 1:
        return {"reason": f"the model has {len(cells)} cells, and not one"}
    own = {id(parameter) for parameter in cells[0].parameters()}
    head = [parameter.detach() for parameter in model.parameters() if id(parameter) not in own]
    if sorted(parameter.dim() for parameter in head) not in ([2], [1, 2]):
        return {"reason": "the model is not one cell with one output layer"}
    weight = next(parameter for parameter in head if parameter.dim() == 2)
    bias = next((parameter for parameter in head if parameter.dim() == 1), torch.zeros(len(weight), dtype=weight.dtype))
    if bias.shape != weight.shape[:1]:
        return {"reason": "the model is not one cell with one output layer"}
    try:
        cell = as_cell(copy.deepcopy(cells[0]).eval().requires_grad_(), (weight.shape[1],) * 2)
        cell.input_size = input_size
        made = as_program(cell)
        data = made.to_data()
    except Exception as error:  # of a student's code anything may come
        return {"reason": f"the cell's step cannot be read ({shortened(f'{type(error).__name__}: {error}', 200)})"}
    tensors = {name: tensor.detach().cpu() for name, tensor in [*made.named_parameters(), *made.named_buffers()]}
    return {"cell": data, "tensors": tensors, "W_out": weight, "b_out": bias}


def scale_of(images: Tensor, pixels: Tensor) -> dict[str, Any]:
    """``scale`` and ``shift`` by which pixels (N, 28, 28), of 0 to 1, become images of the same shape; or ``reason``."""
    x, y = pixels.double().flatten(), images.double().flatten()
    spread = x - x.mean()
    scale = float(spread @ y / (spread @ spread))
    shift = float(y.mean() - scale * x.mean())
    if not float((scale * x + shift - y).abs().max()) <= NEAR * max(1.0, abs(scale)):
        return {"reason": "the images are prepared in another way than by a scale and a shift"}
    return {"scale": scale, "shift": shift}
