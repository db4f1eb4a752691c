"""The reference engine: the plain loop over the cell under autograd. It is the truth that the others are held to.

Runs wherever torch runs (CPU, CUDA, any floating type), and scans any cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from unroll.cells.base import Cell, State, draw_masks, joined, parts, place_of
from unroll.errors import InputError


def why_not(cell: Cell, x: Tensor) -> str | None:
    """None: this engine scans every cell."""
    return None


def gradients(*_: Any) -> None:
    """None: they are autograd's business here."""


def readout_loss(
    h: Tensor,
    W: Tensor,
    b: Tensor,
    y: Tensor,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    total: float | None = None,
) -> Tensor:
    """The mean cross-entropy of a linear readout, as `torch.nn.functional.cross_entropy` has it.

        z = h Wᵀ + b,   p = softmax(z)
        q_k = (1 - smoothing) w_y [k = y] + smoothing w_k / C
        loss = - sum over the batch and k of q_k log p_k / total

    Label smoothing: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking the Inception architecture. CVPR 2016, section 7.

    Args:
        h: (B, F) what is read.
        W: (C, F).
        b: (C,).
        y: (B,) int64, the classes.
        weights: (C,) their weights w; None for ones.
        total: what to divide by; None for the sum of w_y over the batch.
    """
    z = torch.addmm(b, h, W.T)
    if total is None:
        return torch.nn.functional.cross_entropy(z, y, weights, label_smoothing=smoothing)
    return torch.nn.functional.cross_entropy(z, y, weights, reduction="sum", label_smoothing=smoothing) / total


def scan(
    cell: Cell,
    x: Float[Tensor, "T B D"] | Integer[Tensor, "T B"],
    state: State,
    lengths: Integer[Tensor, " B"] | None = None,
    reverse: bool = False,
) -> tuple[Float[Tensor, "T B H"], State]:
    """Scan `cell` over time.

    Args:
        cell: one time step.
        x: (T, B, D) features or (T, B) word indices, T at least 1.
        state: the state before the first step: s (B, H), or the pair (h, c).
        lengths: (B,) how many leading steps of each sequence count; the rest is padding and changes nothing, whatever
            stands there. None: all T.
        reverse: from each sequence's last step to its first.

    Returns:
        The outputs (T, B, H), zero where there is padding, and the state after each sequence's own last step.

    Raises:
        InputError: the cell's parameters are of another type or on another device than x, or its first step returns other
            shapes than the state's or writes to the state.
    """
    _check_kind(cell, x)
    valid = None
    if lengths is not None:
        steps = torch.arange(x.shape[0], device=x.device)
        valid = steps[:, None] < lengths.to(x.device)  # (T, B)
        padding = ~valid if x.dim() == 2 else ~valid[:, :, None]
        x = x.masked_fill(padding, 0)  # a NaN in the padding would reach the gradients through 0·NaN
    outputs: list[Tensor] = []
    masks = draw_masks(cell, x.shape[0], state)
    order = range(x.shape[0] - 1, -1, -1) if reverse else range(x.shape[0])
    for t in order:
        drawn = [mask[t] for mask in masks]
        new = cell(x[t], state, *drawn) if outputs else _first_step(cell, x[t], state, drawn)
        if valid is None:
            state = new
            outputs.append(parts(state)[0])
        else:
            running = valid[t][:, None]
            state = joined([torch.where(running, a, b) for a, b in zip(parts(new), parts(state), strict=True)])
            outputs.append(parts(state)[0] * running)
    if reverse:
        outputs.reverse()
    return torch.stack(outputs), state


def differentiable(
    cell: Cell,
    x: Tensor,
    state: State,
    lengths: Tensor | None,
    reverse: bool,
    d_outputs: Sequence[Tensor | None],
    wanted: Sequence[Tensor],
) -> Sequence[Tensor | None]:
    """Gradients of a scan that can be differentiated themselves, for engines whose own cannot.

    Args:
        d_outputs: of the outputs and the last states.
        wanted: what gradients are for. Aliases of what the engine was given, so that only the way through this scan counts
            should one of them depend on another.
    """
    out, last = scan(cell, x, state, lengths, reverse)
    pairs = [(o, d) for o, d in zip([out, *parts(last)], d_outputs, strict=False) if d is not None and o.requires_grad]
    if not pairs or not wanted:
        return [None] * len(wanted)
    outputs, d = zip(*pairs, strict=True)
    return torch.autograd.grad(outputs, wanted, d, create_graph=True, allow_unused=True)


def _first_step(cell: Cell, x: Tensor, state: State, masks: Sequence[Tensor]) -> State:
    """A step of a cell that is looked at: outputs of the steps before would change with a state that is written to."""
    before = parts(state)
    if torch.compiler.is_compiling() or any(part.is_inference() for part in before):  # who count no writes
        return cell(x, state, *masks)  # type: ignore[no-any-return]
    counts = [part._version for part in before]  # how often each was written to; torch has no other name for it
    new: State = cell(x, state, *masks)
    if [part._version for part in before] != counts:
        raise InputError(f"{place_of(cell)} writes to the state in place; expected a new tensor")
    shapes, expected = ([tuple(getattr(part, "shape", ())) for part in of] for of in (parts(new), before))
    if shapes != expected:
        raise InputError(f"{place_of(cell)} returned {shapes}; expected the shapes of the state before, {expected}")
    return new


def _check_kind(cell: Cell, x: Tensor) -> None:
    device = x.device.type
    if not x.is_floating_point() or (torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)):
        return
    kinds = {(p.dtype, p.device.type) for p in cell.parameters() if p.is_floating_point()}
    if kinds and (x.dtype, device) not in kinds:
        learnt = " and ".join(sorted(f"{dtype} on {where}" for dtype, where in kinds))
        raise InputError(
            f"{place_of(cell)}: the input is {x.dtype} on {device} and the parameters are {learnt}; "
            "convert one with .to(…)"
        )
