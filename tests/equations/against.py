"""A random cell on the kernels' interpreter, held to the reference engine."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from tests.equations.random_cells import Sketch
from unroll.cells.base import Cell, joined, parts
from unroll.engines import reference
from unroll.engines.native import programs

CLOSE = 1e-10  # of the largest number, in float64
FLOOR = 32 * torch.finfo(torch.float32).eps  # of the largest number: what a float32 result may always differ


@dataclass(frozen=True)
class Call:
    """One scan: steps, sequences, and what is asked of it."""

    T: int
    B: int
    ragged: bool = False
    reverse: bool = False
    of_x: bool = True  # whether the input wants a gradient
    of_out: bool = True  # whether the loss reads the outputs
    of_last: bool = True  # whether the loss reads the last state


CALLS = [
    Call(4, 7),
    Call(5, 7, ragged=True),
    Call(4, 5, ragged=True, reverse=True, of_x=False),
    Call(1, 1, of_last=False),
    Call(3, 0),
    Call(3, 64, reverse=True, of_out=False),
]


def results(engine: object, cell: Cell, call: Call, dtype: torch.dtype, nudge: float = 0.0) -> dict[str, Tensor]:
    """Outputs, last state and all gradients of one scan, by name."""
    cell = cell.to(dtype)
    generator = torch.Generator().manual_seed(100 * call.T + call.B)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).clamp(-3, 3).double()  # which float32 can hold

    x = (draw(call.T, call.B, cell.input_size or 1) * (1 + nudge)).to(dtype).requires_grad_(call.of_x)
    states = [(draw(call.B, n) * (1 - nudge)).to(dtype).requires_grad_() for n in cell.state_sizes]
    lengths = torch.randint(0, call.T + 1, (call.B,), generator=generator) if call.ragged else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of reductions over no sequences at all
        out, last = engine.scan(cell, x, joined(states), lengths, call.reverse)  # type: ignore[attr-defined]
    found = {"out": out, **{f"last {k}": part for k, part in enumerate(parts(last))}}
    weights = {name: draw(*value.shape).to(dtype) for name, value in found.items()}
    read = {n: v for n, v in found.items() if v.requires_grad and (call.of_out if n == "out" else call.of_last)}
    leaves = ({"x": x} if call.of_x else {}) | {f"state {k}": s for k, s in enumerate(states)}
    leaves |= dict(cell.named_parameters())
    of = (
        torch.autograd.grad(
            list(read.values()),
            list(leaves.values()),
            [weights[n] for n in read],
            materialize_grads=True,
            allow_unused=True,
        )
        if read
        else [torch.zeros_like(leaf) for leaf in leaves.values()]
    )
    return {n: v.detach() for n, v in found.items()} | {f"d {n}": g for n, g in zip(leaves, of, strict=True)}


def distance(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a share of the largest number or of one; infinite where only one is finite."""
    if not one.numel():
        return 0.0
    scale = max(1.0, float(other.abs().max()))
    found = float((one.double() - other.double()).abs().max()) / scale
    return found if found == found else float("inf")


def fault(sketch: Sketch, calls: list[Call] | None = None) -> str | None:
    """In what a cell on the interpreter differs from the reference in float64; None where it does not."""
    cell = sketch.cell().double()
    step = programs.step_of(cell, False)
    if isinstance(step, str) and "pieces that were cut and joined; the kernels take" in step:
        return None  # a limit
    if isinstance(step, str):
        return f"not read: {step}"
    for call in CALLS if calls is None else calls:
        ours, theirs = (results(engine, cell, call, torch.float64) for engine in (programs, reference))
        for name, expected in theirs.items():
            if ours[name].shape != expected.shape:
                return f"{call}: {name} is {tuple(ours[name].shape)}; expected {tuple(expected.shape)}"
            far = distance(ours[name], expected)
            # At a jump, or where errors grow, the reference itself moves as far when its input moves by a rounding.
            if far > CLOSE and not _shaky(cell, call, name, expected):
                return f"{call}: {name} differs by {far:.1e}"
    return None


def _shaky(cell: Cell, call: Call, name: str, expected: Tensor) -> bool:
    nudged = (results(reference, cell, call, torch.float64, sign * 1e-14)[name] for sign in (-1, 1))
    return any(not distance(found, expected) <= CLOSE / 10 for found in nudged)


def rounding(sketch: Sketch, call: Call) -> dict[str, float]:
    """How many times torch's own error in float32 ours is, by name of result; what is below the floor counts as 1."""
    cell = sketch.cell().float()
    if isinstance(programs.step_of(cell, False), str):
        return {"out": 1.0}  # `fault` says why
    exact = results(reference, cell.double(), call, torch.float64)
    ours, theirs = (results(engine, cell.float(), call, torch.float32) for engine in (programs, reference))
    found = {}
    for name, expected in exact.items():
        a, b = distance(ours[name], expected), distance(theirs[name], expected)
        found[name] = 1.0 if a <= FLOOR else a / max(b, 1e-12)
    return found
