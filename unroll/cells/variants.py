"""The LSTM with one of its parts taken away, to see what that part is worth.

Source: the variants NFG, NIG, NOG, NIAF and CIFG of Greff, Srivastava, Koutník, Steunebrink & Schmidhuber, "LSTM: A Search
Space Odyssey", IEEE Transactions on Neural Networks and Learning Systems 28(10), 2017, section 3 (here without peephole
connections, like the cell itself).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from unroll.cells.base import Cell
from unroll.cells.lstm import LSTMCell, LSTMGates
from unroll.cells.parameters import CellParameters
from unroll.errors import InputError, nearest

Removal = Literal["f", "i", "o", "c_tilde", "coupled"]
REMOVALS: dict[Removal, str] = {
    "f": "f = 1: nothing is ever forgotten",
    "i": "i = 1: every candidate is let in whole",
    "o": "o = 1: tanh(c) is always shown",
    "c_tilde": "c̃ linear: the candidate is not squashed",
    "coupled": "i = 1 - f: as much is written as was forgotten",
}


def check_removal(name: str) -> Removal:
    """`name` as what it is.

    Raises:
        InputError: there is no such gate.
    """
    if name not in get_args(Removal):
        raise InputError(f"unknown gate {name!r}{nearest(name, get_args(Removal))}")
    return name  # type: ignore[return-value]


class AblatedLSTMCell(LSTMCell):
    """An LSTM cell in which the candidate is linear or the gates are coupled, on the parameters of another cell.

    All four blocks of W, U and b are kept; the block that its equations no longer read gets gradient zero.
    """

    def __init__(self, cell: LSTMCell, removed: Literal["c_tilde", "coupled"]) -> None:
        super().__init__(cell.input_size, cell.hidden_size, cell.b is not None, device="meta")
        self.W, self.U, self.b = cell.W, cell.U, cell.b
        self.removed = removed

    def equations(self, x: Tensor, h: Tensor, c: Tensor) -> LSTMGates:
        a = h @ self.W.T + self.project(x)  # (B, 4H)
        if self.b is not None:
            a = a + self.b
        a_i, a_f, a_c, a_o = a.chunk(4, dim=-1)  # (B, H) each

        f = torch.sigmoid(a_f)
        i = 1 - f if self.removed == "coupled" else torch.sigmoid(a_i)
        c_tilde = a_c if self.removed == "c_tilde" else torch.tanh(a_c)
        o = torch.sigmoid(a_o)
        c = f * c + i * c_tilde
        h = o * torch.tanh(c)
        return LSTMGates(i, f, c_tilde, o, c, h)


HELD_OPEN = ("i", "f", "o")
OPEN = 100.0  # σ(100) is 1 to the last bit in float32 and float64


def without(cell: Cell, removed: Removal) -> Cell:
    """The cell with a part taken away, on the same parameters; a gate that is held open is changed in place.

    Raises:
        InputError: the cell is no LSTM.
    """
    if not isinstance(cell, LSTMCell):
        raise InputError(
            f"only the LSTM has gates to remove here, and the cell is of kind {cell.title!r}; use a run with cell: lstm"
        )
    if removed in ("c_tilde", "coupled"):
        return AblatedLSTMCell(cell, removed)
    hold_open(cell, removed)
    return cell


def unread(cell: Cell, removed: Removal) -> int:
    """How many parameters of an LSTM cell its equations no longer read, once a part is removed."""
    return 0 if removed == "c_tilde" else sum(p.numel() for p in cell.parameters()) // 4


@torch.no_grad()
def hold_open(cell: CellParameters, gate: Removal) -> None:
    """Make i, f or o of an ordinary LSTM cell 1 for good: W and U of its block 0, its bias so large that σ(b) = 1 exactly.

    So every engine can scan it. `keep_open` is for training.

    Raises:
        InputError: the gate is none of i, f, o, or the cell has no bias.
    """
    if gate not in HELD_OPEN:
        raise InputError(f"{gate!r} cannot be held open; expected one of {', '.join(HELD_OPEN)}")
    if cell.b is None:
        raise InputError("a gate is held open by its bias, and the cell has none; build it with bias=True")
    rows = cell.block(gate)
    cell.W[rows] = 0
    cell.U[rows] = 0
    cell.b[rows] = OPEN


def keep_open(cell: CellParameters, gate: Removal) -> None:
    """Set the gradients of a gate that is held open to zero, so that an update leaves its block as it is.

    σ' is 0 there, but kernels that approximate it leave 1e-10, which Adam would blow up to a step. Weight decay alone still
    moves b; `OPEN` leaves it room.
    """
    for parameter in (cell.W, cell.U, cell.b):
        if parameter is not None and parameter.grad is not None:
            parameter.grad[cell.block(gate)] = 0
