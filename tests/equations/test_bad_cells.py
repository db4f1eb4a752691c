"""Cells that break the contract of a step, and inputs that do not fit them: one line with the cell's name and place."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from tests.equations.cells import Own
from unroll.cells.base import Cell, as_cell
from unroll.engines import native, reference
from unroll.errors import InputError
from unroll.layers import Recurrent

D, H = 5, 6


class Plain(Own):
    def __init__(self):
        super().__init__(D, H, W=(H, H), U=(H, D))
        self.later = self.W * 2  # a tensor with a gradient that is no leaf

    def forward(self, x, h):
        return torch.tanh(h @ self.W.T + x @ self.U.T)


class Narrow(Plain):
    def forward(self, x, h):
        return super().forward(x, h)[:, :3]


class Two(Plain):
    def forward(self, x, h):
        return super().forward(x, h), h


class Writes(Plain):
    def forward(self, x, h):
        h.mul_(0.5)
        return super().forward(x, h)


class NoLeaf(Plain):
    def forward(self, x, h):
        return torch.tanh(h @ self.later.T + x @ self.U.T)


class Single(Plain):
    """A plain attribute of float32, which cannot be multiplied with the float64 that a cell is read in."""

    def __init__(self):
        super().__init__()
        self.turn = torch.eye(H).flip(0)

    def forward(self, x, h):
        return super().forward(x, h) @ self.turn


class Counts(Plain):
    def forward(self, x, h):
        self.calls = getattr(self, "calls", 0) + 1
        return super().forward(x, h)


class Sizeless(Plain):
    """Does not say D."""

    def __init__(self):
        super().__init__()
        self.input_size = None

    def forward(self, x, h):
        return super().forward(x, h)


class OfCell(Cell):
    def __init__(self):
        super().__init__()
        self.input_size, self.state_sizes, self.state_names = D, (H,), ("h",)
        self.W = nn.Parameter(torch.randn(H, H))

    def forward(self, x, state):
        return (state @ self.W)[:, :2]


def place(kind):
    return rf"{kind.__name__}\.forward \(.*test_bad_cells\.py:{kind.forward.__code__.co_firstlineno}\)"


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Narrow, r" returned \[\(\d, 3\)\]; expected the new state, \[\(\d, 6\)\]"),
        (Two, r" returned \[\(\d, 6\), \(\d, 6\)\]; expected the new state, \[\(\d, 6\)\]"),
        (Writes, " writes to the state in place; expected a new tensor"),
        (OfCell, r" returned \[\(2, 2\)\]; expected the shapes of the state before, \[\(2, 6\)\]"),
    ],
)
def test_cells_that_change_the_state_are_refused_by_place(kind, message, engine):
    with pytest.raises(InputError, match=place(kind) + message):
        Recurrent(as_cell(kind()), engine=engine)(torch.randn(3, 2, D))


@pytest.mark.parametrize(
    "x", [torch.zeros(3, 2, D).double(), torch.zeros(3, 2, D, device="meta")], ids=["type", "device"]
)
def test_inputs_of_another_type_or_device_than_the_parameters_are_refused_by_place(x):
    where = f"the input is {x.dtype} on {x.device.type} and the parameters are torch.float32 on cpu; convert"
    with pytest.raises(InputError, match=place(Plain) + ": " + where):
        reference.scan(as_cell(Plain()), x, torch.zeros(2, H, dtype=x.dtype, device=x.device))


@pytest.mark.skipif(native.instruction_set() is None, reason="the compiled kernels are not installed")
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (NoLeaf, "reads a tensor that wants a gradient and is no parameter of the cell"),
        (Single, "fails on what it is read with, in float64: expected m1 and m2 to have the same dtype"),
    ],
)
def test_cells_that_are_not_read_run_on_the_reference_engine(kind, why):
    cell, x = as_cell(kind()), torch.randn(3, 2, D)
    assert why in native.why_not(cell, x)
    with pytest.raises(InputError, match=why):
        Recurrent(cell, engine="native")(x)
    out, _ = Recurrent(cell)(x)
    assert torch.equal(out, reference.scan(cell, x, torch.zeros(2, H))[0])
    out.sum().backward()
    assert float(cell.module.W.grad.abs().sum()) > 0


@pytest.mark.skipif(native.instruction_set() is None, reason="the compiled kernels are not installed")
@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Counts, " keeps something from one call to the next, or makes modules while it runs"),
        (Sizeless, " does not say its input_size"),
    ],
)
def test_cells_that_are_refused_as_a_whole_are_named_by_class_and_place(kind, why):
    assert re.fullmatch(place(kind) + why, native.why_not(as_cell(kind()), torch.randn(3, 2, D)))
