"""Engines: ways to walk a cell over time. All compute the same thing; they differ in speed and in what they can do.

- ``reference``: the plain loop under autograd; any device, any floating type.
- ``native``: the fused CPU kernels; float32 and float64.
- ``auto``: native where it can do the job, else reference.
"""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from unroll.cells import Cell
from unroll.engines import native, reference
from unroll.engines.reference import State
from unroll.errors import InputError, nearest

EngineName = Literal["auto", "native", "reference"]
ENGINES = tuple(name for name in get_args(EngineName) if name != "auto")


def check_engine(name: str) -> None:
    """Raise InputError unless `name` is an engine's."""
    if name not in get_args(EngineName):
        raise InputError(f"unknown engine {name!r}{nearest(name, get_args(EngineName))}")


def takes_native(engine: EngineName, obstacle: str | None) -> bool:
    """Whether the native engine shall do a job, given what keeps it from that, if anything does.

    Raises:
        InputError: it was asked for by name and cannot.
    """
    if engine == "native" and obstacle is not None:
        raise InputError(f"engine 'native' cannot do this: {obstacle}; use engine='auto'")
    return engine != "reference" and obstacle is None


def choose(engine: EngineName, cell: Cell, x: Tensor) -> str:
    """The engine that will walk `cell` over `x`.

    Raises:
        InputError: an engine was asked for by name that cannot do the job.
    """
    if engine == "reference":
        return "reference"
    return "native" if takes_native(engine, native.why_not(cell, x)) else "reference"


def walk(
    cell: Cell,
    x: Tensor,
    state: State,
    lengths: Tensor | None = None,
    reverse: bool = False,
    engine: EngineName = "auto",
) -> tuple[Tensor, State]:
    """Walk `cell` over time with the engine chosen; see `unroll.engines.reference.walk` for shapes and meaning."""
    if choose(engine, cell, x) == "native":
        return native.walk(cell, x, state, lengths, reverse)
    return reference.walk(cell, x, state, lengths, reverse)


__all__ = ["ENGINES", "EngineName", "State", "check_engine", "choose", "takes_native", "walk"]
