"""What is remembered of a model's parameters while it is trained: whether they change, and their gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


class Tracked:
    """A module that is called from outside any other, with what is known of its parameters.

    Attributes:
        first: each parameter as it was at the first call, until it is seen to differ; then None.
        begun: the first number of each parameter at the first call.
        gradient: the largest entry of each gradient so far, over the largest entry of its parameter.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.names = [name for name, p in module.named_parameters() if p.requires_grad]
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.first: list[Tensor | None] = [p.detach().clone() for p in self.parameters]
        self.begun = self.entries()
        self.gradient = [0.0] * len(self.names)
        self.backwards = 0

    def compare(self) -> None:
        for k, (parameter, first) in enumerate(zip(self.parameters, self.first, strict=True)):
            if first is not None and not torch.equal(parameter.detach(), first):
                self.first[k] = None

    def entries(self) -> list[float]:
        """The first number of each parameter as it is."""
        return [float(p.detach().flatten()[0]) if p.numel() else 0.0 for p in self.parameters]

    def lost(self) -> list[bool]:
        """Which parameters hold a number that is none, or is infinite."""
        return [not bool(torch.isfinite(p.detach()).all()) for p in self.parameters]

    def values(self) -> list[float]:
        return [float(p.detach().sum()) for p in self.parameters]

    def gradients(self) -> list[float | None]:
        """A number a gradient: None where there is none, 0 only for zeros."""
        return [None if p.grad is None else _digest(p.grad) for p in self.parameters]

    @property
    def random(self) -> bool:
        """Whether it computes otherwise in training than in evaluation."""
        return any(_is_random(module) for module in self.module.modules())


def _digest(tensor: Tensor) -> float:
    flat = tensor.detach().flatten()
    total = float(flat.abs().sum())
    return total and total + float(flat[:: max(1, len(flat) // 7)].sum())


def _is_random(module: nn.Module) -> bool:
    """Whether a module computes otherwise in training than in evaluation."""
    return isinstance(module, _NORMS) or (isinstance(module, _DROPOUTS) and module.p > 0)
