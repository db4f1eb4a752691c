"""The minimal gated unit: a GRU with one gate instead of two.

Source: Zhou, Wu, Zhang & Zhou, "Minimal Gated Unit for Recurrent Neural Networks", International Journal of Automation and
Computing 13(3), 2016, pages 226-234.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from unroll.cells.base import State, parts
from unroll.cells.parameters import CellParameters


class MGUGates(NamedTuple):
    """Everything a minimal gated unit computes in one time step."""

    f: Float[Tensor, "B H"]
    h_tilde: Float[Tensor, "B H"]
    h: Float[Tensor, "B H"]


class MGUCell(CellParameters):
    """One step of a minimal gated unit.

        f_t = σ(W_f h_{t-1} + U_f x_t + b_f)                  forget gate
        h̃_t = tanh(W_h (f_t ⊙ h_{t-1}) + U_h x_t + b_h)       candidate
        h_t = (1 - f_t) ⊙ h_{t-1} + f_t ⊙ h̃_t                 hidden state

    The two blocks are stacked in this order in W (2H, H), U (2H, D) and b (2H,). The gate has the paper's name; unlike an LSTM's,
    it replaces h where it is 1 and keeps it where it is 0, so that a positive bias of f makes the cell forget sooner.

    >>> cell = MGUCell(28, 128)
    >>> cell(torch.zeros(64, 28), cell.initial_state(64)).shape
    torch.Size([64, 128])
    """

    title = "minimal gated unit"
    about = "a network of minimal gated units (MGU)"
    explained = (
        "One gate, whose values lie between 0 and 1, decides what the candidate sees and how much of $h_t$ it replaces"
    )
    meanings: ClassVar[Mapping[str, str]] = {
        "f": "forget gate: share of h that is replaced",
        "h_tilde": "candidate: what could be written",
        "h": "hidden state: what the next step and the readout see",
    }
    state_names = ("h",)
    gate_names = ("f", "h_tilde")

    def equations(self, x: Float[Tensor, "B D"] | Integer[Tensor, " B"], h: Float[Tensor, "B H"]) -> MGUGates:
        """x (B, D) features or (B,) word indices, h (B, H) of the step before -> all three quantities."""
        from_x = self.project(x)  # (B, 2H), the two blocks' arguments side by side
        if self.b is not None:
            from_x = from_x + self.b
        x_f, x_h = from_x.chunk(2, dim=-1)  # (B, H) each
        W_f, W_h = self.W.chunk(2)  # (H, H) each

        f = torch.sigmoid(h @ W_f.T + x_f)
        h_tilde = torch.tanh((f * h) @ W_h.T + x_h)
        h = (1 - f) * h + f * h_tilde
        return MGUGates(f, h_tilde, h)

    def forward(
        self, x: Float[Tensor, "B D"] | Integer[Tensor, " B"], state: Float[Tensor, "B H"]
    ) -> Float[Tensor, "B H"]:
        """x (B, D), h_{t-1} (B, H) -> h_t (B, H)."""
        return self.equations(x, state).h

    def quantities(self, x: Tensor, state: State) -> dict[str, Tensor]:
        return self.equations(x, *parts(state))._asdict()
