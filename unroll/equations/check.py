"""One step of a cell under autograd, in float64, at a batch size at which it is not read: what its step program is held to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unroll.cells.base import Cell, Mask, joined, parts, place_of
from unroll.equations.program import UnreadableError

BATCH = 3
SCALES = 2.0**20, 2.0**-20  # gradients so much larger and smaller, which a function that clips them would change
CLOSE = 1e-9  # how much results may differ, as a share of the largest number


@dataclass(frozen=True)
class Sample:
    """What a step is given, and the gradients of the state after it; all leaves want gradients."""

    x: Tensor
    states: list[Tensor]
    masks: list[Tensor]
    d_new: list[Tensor]
    parameters: dict[str, Tensor]
    buffers: dict[str, Tensor]


def sample(cell: Cell, words: bool) -> Sample:
    """Random values for a step of a cell, the same ones every time."""
    generator = torch.Generator().manual_seed(1)

    def draw(size: int) -> Tensor:
        return torch.randn(BATCH, size, generator=generator, dtype=torch.float64)

    x = word_indices(cell, BATCH) if words else draw(cell.input_size or 1).requires_grad_()
    states = [draw(size).requires_grad_() for size in cell.state_sizes]
    masks = sample_masks(cell.masks, BATCH, generator)
    parameters, buffers = copies(cell)
    for p in parameters.values():
        p.requires_grad_()
    return Sample(x, states, masks, [draw(size) for size in cell.state_sizes], parameters, buffers)


def differentiated(cell: Cell, given: Sample, parameters: Iterable[Tensor]) -> list[Tensor]:
    """The new state, and the gradients of x (unless x are words), the states and the parameters.

    Without the gradients in a process that was forked after a backward pass, where autograd has none to give.
    """
    tensors = {**given.parameters, **given.buffers}
    with torch.enable_grad():
        new = parts(torch.func.functional_call(cell, tensors, (given.x, joined(given.states), *given.masks)))
        leaves = [*([given.x] if given.x.requires_grad else []), *given.states, *parameters]
        pairs = [(part, d) for part, d in zip(new, given.d_new, strict=True) if part.requires_grad]
        found: Sequence[Tensor | None] = ()
        scaled: Sequence[Sequence[Tensor | None]] = ()
        try:
            found, *scaled = (
                torch.autograd.grad(
                    [p for p, _ in pairs], leaves, [d * scale for _, d in pairs], retain_graph=True, allow_unused=True
                )
                for scale in (1.0, *SCALES)
            )
        except RuntimeError as error:
            if "fork" not in str(error):
                raise
    for scale, others in zip(SCALES, scaled, strict=False):
        for one, other in zip(found, others, strict=True):
            if (
                one is not None
                and other is not None
                and not torch.allclose(one * scale, other, CLOSE, CLOSE * scale, equal_nan=True)
            ):
                raise UnreadableError(
                    f"{place_of(cell)} changes gradients by a hook, or by a function of its own, that is not linear in them"
                )
    of_leaves = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, found, strict=False)]
    return [*(part.detach() for part in new), *of_leaves]


def same(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> bool:
    """Whether numbers are the same as those of `differentiated`, as far as it has some."""
    return all(
        torch.allclose(
            a, b, rtol=0, atol=CLOSE * (max(1.0, float(b.abs().max())) if b.numel() else 1.0), equal_nan=True
        )
        for a, b in zip(ours, theirs, strict=False)
    )


def copies(cell: Cell, dtype: torch.dtype = torch.float64) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Parameters and buffers by name, on the CPU."""
    parameters = {
        name: p.detach().to("cpu", dtype, copy=True).requires_grad_(p.requires_grad)
        for name, p in cell.named_parameters()
    }
    buffers = {
        name: b.detach().to("cpu", dtype if b.is_floating_point() else b.dtype, copy=True)
        for name, b in cell.named_buffers()
    }
    return parameters, buffers


def word_indices(cell: Cell, batch: int) -> Tensor:
    """Words (B,) that a cell knows."""
    return torch.arange(batch) % (cell.input_size or 1)


def sample_masks(masks: Sequence[Mask], batch: int, generator: torch.Generator) -> list[Tensor]:
    """Masks (B, width) for one step, in float64, of which about half is dropped whatever their shares."""
    return [
        (torch.rand(batch, mask.width, generator=generator, dtype=torch.float64) < 0.5) * mask.kept for mask in masks
    ]
