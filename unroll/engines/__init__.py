"""Engines: ways to scan a cell over time. All compute the same thing; they differ in speed and in what they can do.

- ``reference``: the plain loop under autograd; any cell, any device, any floating type.
- ``native``: the fused CPU kernels; float32 and float64.
- ``auto``: the first of `ENGINES` that can do the job.

An engine is a module with

    why_not(cell, x) -> str | None                               the reason it cannot scan this cell over x
    scan(cell, x, state, lengths, reverse) -> outputs, state     `unroll.engines.reference.scan` has shapes and meaning
    readout_loss(h, W, b, y, weights, smoothing, total) -> loss  cross-entropy of a linear readout
    gradients(cell, x, lengths, W, b, y, …) -> … | None          that of the last state of a scan, with its gradients and no
                                                                 recorded graph; None where it cannot
"""

from __future__ import annotations

from typing import Any, Literal, get_args

from torch import Tensor

from unroll.cells.base import Cell, State
from unroll.engines import native, reference
from unroll.errors import InputError, nearest

EngineName = Literal["auto", "native", "reference"]
ENGINES: dict[str, Any] = {"native": native, "reference": reference}  # in the order in which ``auto`` asks them


def check_engine(name: str) -> None:
    """Raise InputError unless `name` is an engine's."""
    if name not in get_args(EngineName):
        raise InputError(f"unknown engine {name!r}{nearest(name, get_args(EngineName))}")


def check_able(name: str, obstacle: str | None) -> None:
    """Raise InputError where an engine that was asked for by name cannot do a job."""
    if obstacle is not None:
        raise InputError(f"engine {name!r} cannot do this: {obstacle}; use engine='auto'")


def choose(name: EngineName, cell: Cell, x: Tensor) -> Any:
    """The engine that will scan `cell` over `x`.

    Raises:
        InputError: an engine was asked for by name that cannot do the job.
    """
    if name != "auto":
        check_able(name, ENGINES[name].why_not(cell, x))
        return ENGINES[name]
    return next(engine for engine in ENGINES.values() if engine.why_not(cell, x) is None)


def explain(name: EngineName, cell: Cell, x: Tensor) -> tuple[str, str | None]:
    """Name of the engine that will scan `cell` over `x`, and what is in the way of the first one in the list, if anything.

    Raises:
        InputError: an engine was asked for by name that cannot do the job.
    """
    chosen = choose(name, cell, x)
    found = next(known for known, engine in ENGINES.items() if engine is chosen)
    first = next(iter(ENGINES))
    return found, None if found == first or name == found else ENGINES[first].why_not(cell, x)


def scan(
    cell: Cell,
    x: Tensor,
    state: State,
    lengths: Tensor | None = None,
    reverse: bool = False,
    engine: EngineName = "auto",
) -> tuple[Tensor, State]:
    """Scan `cell` over time with the engine chosen; see `unroll.engines.reference.scan` for shapes and meaning."""
    found: tuple[Tensor, State] = choose(engine, cell, x).scan(cell, x, state, lengths, reverse)
    return found


def readout_loss(
    h: Tensor,
    W: Tensor,
    b: Tensor,
    y: Tensor,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    total: float | None = None,
    engine: EngineName = "auto",
) -> Tensor:
    """The mean cross-entropy of a linear readout; see `unroll.engines.reference.readout_loss`."""
    chosen = next(iter(ENGINES.values())) if engine == "auto" else ENGINES[engine]
    loss: Tensor = chosen.readout_loss(h, W, b, y, weights, smoothing, total)
    return loss
