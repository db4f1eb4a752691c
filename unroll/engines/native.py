"""Placeholder until the compiled kernels are bound."""

from __future__ import annotations

from torch import Tensor

from unroll.cells import Cell
from unroll.engines import reference
from unroll.engines.reference import State


def why_not(cell: Cell, x: Tensor) -> str | None:
    return "no compiled kernel is installed"


def describe() -> str:
    return "reference (no compiled kernel)"


def walk(
    cell: Cell, x: Tensor, state: State, lengths: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, State]:
    return reference.walk(cell, x, state, lengths, reverse)
