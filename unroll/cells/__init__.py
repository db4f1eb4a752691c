"""The cells: one file per set of equations, one time step each."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from unroll.cells.own import is_own, own_parts
from unroll.errors import InputError, nearest

if TYPE_CHECKING:
    from unroll.cells.base import Cell as Cell
    from unroll.cells.base import Mask as Mask
    from unroll.cells.base import State as State
    from unroll.cells.base import as_cell as as_cell
    from unroll.cells.coupled import CoupledLSTMCell as CoupledLSTMCell
    from unroll.cells.dropout import RecurrentDropout as RecurrentDropout
    from unroll.cells.dropout import VariationalDropout as VariationalDropout
    from unroll.cells.dropout import Zoneout as Zoneout
    from unroll.cells.gru import GRUCell as GRUCell
    from unroll.cells.layernorm import LayerNormLSTMCell as LayerNormLSTMCell
    from unroll.cells.lstm import LSTMCell as LSTMCell
    from unroll.cells.lstm import LSTMGates as LSTMGates
    from unroll.cells.mgu import MGUCell as MGUCell
    from unroll.cells.parameters import CellParameters
    from unroll.cells.peephole import PeepholeLSTMCell as PeepholeLSTMCell
    from unroll.cells.rnn import RNNCell as RNNCell

# The cells that recipes can name, each a class in the file of that name.
CELLS = {
    "rnn": "RNNCell",
    "lstm": "LSTMCell",
    "gru": "GRUCell",
    "peephole": "PeepholeLSTMCell",
    "coupled": "CoupledLSTMCell",
    "layernorm": "LayerNormLSTMCell",
    "mgu": "MGUCell",
}

_FILES = dict.fromkeys(("Cell", "Mask", "State", "as_cell"), "base") | {"LSTMGates": "lstm"}
_FILES |= dict.fromkeys(("RecurrentDropout", "VariationalDropout", "Zoneout"), "dropout")
_FILES |= {name: file for file, name in CELLS.items()}


def cell_type(name: str) -> type[CellParameters]:
    """The class of the cell that recipes call `name`.

    Raises:
        InputError: there is no such cell.
    """
    if name not in CELLS:
        raise InputError(f"unknown cell {name!r}{nearest(name, CELLS)}")
    found: type[CellParameters] = __getattr__(CELLS[name])
    return found


def title_of(name: str) -> str:
    """What reports call the cell of a recipe: of one's own the name of its class, which is not run for that.

    Raises:
        InputError: there is no such cell.
    """
    return own_parts(name)[1] if is_own(name) else cell_type(name).title


def __getattr__(name: str) -> Any:  # recipes are checked before torch is imported, and ask for the names alone
    if name in _FILES:
        return getattr(importlib.import_module(f"unroll.cells.{_FILES[name]}"), name)
    raise AttributeError(f"module 'unroll.cells' has no attribute {name!r}")
