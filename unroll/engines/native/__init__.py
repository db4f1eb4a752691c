"""The native engine: cells that have a compiled kernel, scanned over time on the CPU, derivatives by hand.

Same contract and same results as `unroll.engines.reference`, faster. Eager calls take the short way, autograd functions
around the C calls (`eager`); cells without a kernel of their own are read into step programs, which the library interprets
(`programs`, `lowering`). Tracing (`torch.compile`, `torch.export`, `torch.jit.trace`, fake tensors) and autocast take
operators (`operators`). Derivatives of derivatives go through the reference. Which cells have a kernel says `kernels`.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
from torch import Tensor

from unroll.cells.base import Cell, State
from unroll.engines.native import (
    eager,
    operators,  # noqa: F401 - registers them
    programs,
)
from unroll.engines.native.eager import DTYPES, adam, gradients, readout_loss, refuses
from unroll.engines.native.kernels import kernel_of
from unroll.engines.native.library import (
    available,
    describe,
    instruction_set,
    multiply_add,
    recorded,
    transformed,
    trim,
)
from unroll.engines.native.programs import step_of


def why_not(cell: Cell, x: Tensor) -> str | None:
    """Why the kernels cannot scan `cell` over `x`; None if they can."""
    if (missing := available()) is not None:
        return missing
    special = kernel_of(cell) is not None
    W: Any = cell.W if special else next(chain(cell.parameters(), cell.buffers()), x)
    if x.device.type != "cpu" or W.device.type != "cpu":
        return f"the kernels run on the CPU, and these are on {x.device} and {W.device}"
    if W.dtype not in DTYPES:
        return f"the kernels compute in float32 and float64, not in {W.dtype}"
    if torch.is_autocast_enabled("cpu"):
        if W.dtype == torch.float64:
            return "autocast makes the input float32 and leaves the weights float64"
        if not special:
            return "autocast works on the operations of the cell itself"
    elif x.is_floating_point() and x.dtype != W.dtype:
        return f"the input is {x.dtype} and the weights are {W.dtype}"
    if not special:
        for p in cell.parameters():
            if p.dtype != W.dtype or p.device.type != "cpu":
                return f"the weights are {W.dtype} on {W.device}, and {p.dtype} on {p.device}"
    if not special and recorded(x):
        return "operations are recorded, which works on those of the cell itself"
    if not torch.compiler.is_compiling() and (obstacle := transformed()) is not None:
        return obstacle
    if special:
        return None
    step = step_of(cell, not x.is_floating_point())
    return step if isinstance(step, str) else None


def scan(
    cell: Cell, x: Tensor, state: State, lengths: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, State]:
    """Scan `cell` over time; see `unroll.engines.reference.scan` for arguments and results."""
    one = eager.scan if kernel_of(cell) is not None else programs.scan
    return one(cell, x, state, lengths, reverse)


__all__ = [
    "adam",
    "available",
    "describe",
    "gradients",
    "instruction_set",
    "multiply_add",
    "readout_loss",
    "refuses",
    "scan",
    "trim",
    "why_not",
]
