"""What is remembered of a model's parameters while it is trained: whether they change, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_ENOUGH = 64  # entries of a matrix that can be told from another by their correlation
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)


class Tracked:
    """A module that is called from outside any other, with what is known of its parameters.

    Attributes:
        parameters: the frozen ones too: a model may be frozen for its test, or be a copy that is never trained itself.
        first: each parameter as it was at the first call. changed: whether it was seen to differ.
        begun: the first number of each parameter at the first call.
        gradient: the largest entry of each gradient so far, over the largest entry of its parameter.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        named = [(name, p) for name, p in module.named_parameters() if p.is_floating_point()]
        self.names = [name for name, _ in named]
        self.parameters = [p for _, p in named]
        self.first = [p.detach().clone() for p in self.parameters]
        self.changed = [False] * len(named)
        self._learns = [p.requires_grad for p in self.parameters]
        self.begun = self.entries()
        self.gradient = [0.0] * len(self.names)
        self.backwards = 0

    def compare(self) -> None:
        for k, (parameter, first) in enumerate(zip(self.parameters, self.first, strict=True)):
            if not self.changed[k]:
                self.changed[k] = not torch.equal(parameter.detach(), first)

    def entries(self) -> list[float]:
        """The first number of each parameter as it is."""
        return [float(p.detach().flatten()[0]) if p.numel() else 0.0 for p in self.parameters]

    def lost(self) -> list[bool]:
        """Which parameters hold a number that is none, or is infinite; a constant, such as a mask, may."""
        ours = zip(self.parameters, self._learns, self.changed, strict=True)
        return [(learns or changed) and not bool(torch.isfinite(p.detach()).all()) for p, learns, changed in ours]

    def unlike(self, trained: list[Tracked]) -> bool:
        """Whether it was never changed, and has certainly nothing of any of these models: no copy of one, and no mix of several.

        What is made of a model's weights correlates with them; of matrices that were drawn apart no one does by more than
        chance. Where the models are not of one form, or there is no matrix to compare, nothing is certain.
        """
        if not trained or self.backwards or any(self.changed):
            return False
        return all(self._unlike(other, then) for other in trained for then in (other.first, other.parameters))

    def _unlike(self, other: Tracked, then: Sequence[Tensor]) -> bool:
        mine = [(name, p.shape) for name, p in zip(self.names, self.parameters, strict=True)]
        if mine != [(name, p.shape) for name, p in zip(other.names, then, strict=True)]:
            return False
        pairs = [
            (p.detach().double().flatten(), q.detach().double().flatten())
            for p, q in zip(self.parameters, then, strict=True)
            if p.dim() > 1 and p.numel() >= _ENOUGH
        ]
        drawn = [(p, q) for p, q in pairs if float(p.std()) > 0 and float(q.std()) > 0]
        return bool(drawn) and all(
            abs(float(torch.corrcoef(torch.stack(pair))[0, 1])) < 5 / len(pair[0]) ** 0.5 for pair in drawn
        )

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
