"""The table of compiled kernels: which cells have one, what a kernel is given, and the cell that it computes.

Derivatives of derivatives are taken through that cell, by the reference engine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unroll.cells import LSTMCell, RNNCell
from unroll.cells.base import Cell, joined
from unroll.engines import reference

LSTM, RNN_TANH, RNN_RELU = 0, 1, 2  # `Call.kind` in native/engine.hpp

# By exact type: a subclass may compute something else.
KERNELS: dict[type[Cell], Callable[[Any], int]] = {
    LSTMCell: lambda cell: LSTM,
    RNNCell: lambda cell: RNN_TANH if cell.nonlinearity == "tanh" else RNN_RELU,
}


def kernel_of(cell: Cell) -> int | None:
    """The kernel for a cell; None where it has none."""
    known = KERNELS.get(type(cell))
    return None if known is None else known(cell)


def cell_of(kernel: int, W: Tensor, U: Tensor, b: Tensor | None) -> Cell:
    """The cell that a kernel computes, on these weights, which need not be leaves."""
    cell: Cell
    if kernel == LSTM:
        cell = LSTMCell(1, 1, bias=b is not None, device="meta")
    else:
        nonlinearity = "tanh" if kernel == RNN_TANH else "relu"
        cell = RNNCell(1, 1, bias=b is not None, nonlinearity=nonlinearity, device="meta")
    for name, value in (("W", W), ("U", U), ("b", b)):
        delattr(cell, name)
        setattr(cell, name, value)
    return cell


# Gradients in the order of the inputs (x, h0, c0, W, U, b); None where nobody wants one.
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]


class Task(NamedTuple):
    """A scan to be done: over which tensors, and how. The operators take the same in the same order."""

    x: Tensor
    h0: Tensor
    c0: Tensor | None
    W: Tensor
    U: Tensor
    b: Tensor | None
    lengths: Tensor | None
    reverse: bool
    projected: bool
    kind: int

    @property
    def states(self) -> tuple[Tensor, ...]:
        """What the scan begins with."""
        return (self.h0,) if self.c0 is None else (self.h0, self.c0)

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor, Tensor | None]:
        """What gradients are for."""
        return self[:6]


def differentiable_backward(
    task: Task, d_outputs: Sequence[Tensor | None], needed: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients once more, by the reference, so that they can be differentiated themselves."""
    inputs = [None if tensor is None else tensor.view_as(tensor) for tensor in task.inputs]
    x, h0, c0, W, U, b = inputs
    assert x is not None and h0 is not None and W is not None and U is not None  # noqa: PT018
    lengths, reverse, projected, kind = task[6:]
    used = torch.eye(W.shape[0], dtype=W.dtype, device=W.device) if projected else U
    state = joined([h0] if c0 is None else [h0, c0])
    wanted = {n: t for n, t in enumerate(inputs) if needed[n] and t is not None}
    found = reference.differentiable(
        cell_of(kind, W, used, b), x, state, lengths, reverse, d_outputs, list(wanted.values())
    )
    gradients = dict(zip(wanted, found, strict=True))
    return [gradients.get(n) for n in range(6)]
