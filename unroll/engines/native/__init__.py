"""The native engine: cells that have a compiled kernel, scanned over time on the CPU, derivatives by hand.

Same contract and same results as `unroll.engines.reference`, faster. Eager calls take the short way, autograd functions
around the C calls (`eager`). Tracing (`torch.compile`, `torch.export`, `torch.jit.trace`, fake tensors) and autocast take
operators (`operators`). Derivatives of derivatives go through the reference. Which cells have a kernel says `kernels`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unroll.cells.base import Cell
from unroll.engines.native import operators  # noqa: F401 - registers them
from unroll.engines.native.eager import DTYPES, adam, gradients, readout_loss, refuses, scan
from unroll.engines.native.kernels import kernel_of
from unroll.engines.native.library import available, describe, instruction_set, multiply_add, transformed, trim


def why_not(cell: Cell, x: Tensor) -> str | None:
    """Why the kernels cannot scan `cell` over `x`; None if they can."""
    if (missing := available()) is not None:
        return missing
    if kernel_of(cell) is None:
        return f"no compiled kernel for a {type(cell).__name__}"
    W: Tensor = cell.W  # type: ignore[assignment]
    if x.device.type != "cpu" or W.device.type != "cpu":
        return f"the kernels run on the CPU, and these are on {x.device} and {W.device}"
    if W.dtype not in DTYPES:
        return f"the kernels compute in float32 and float64, not in {W.dtype}"
    if torch.is_autocast_enabled("cpu"):
        if W.dtype == torch.float64:
            return "autocast makes the input float32 and leaves the weights float64"
    elif x.is_floating_point() and x.dtype != W.dtype:
        return f"the input is {x.dtype} and the weights are {W.dtype}"
    return None if torch.compiler.is_compiling() else transformed()


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
