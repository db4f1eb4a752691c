"""The GRU cell: one time step of a gated recurrent unit.

Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation", EMNLP
2014, eqs. 5-8, with the reset gate applied after the recurrent product and its own bias there, as cuDNN and torch have it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from unroll.cells.base import State, parts
from unroll.cells.parameters import CellParameters


class GRUGates(NamedTuple):
    """Everything a GRU computes in one time step."""

    r: Float[Tensor, "B H"]
    z: Float[Tensor, "B H"]
    n: Float[Tensor, "B H"]
    h: Float[Tensor, "B H"]


class GRUCell(CellParameters):
    """One step of a GRU.

        r_t = σ(W_r h_{t-1} + U_r x_t + b_r)              reset gate
        z_t = σ(W_z h_{t-1} + U_z x_t + b_z)              update gate
        n_t = tanh(U_n x_t + b_n + r_t ⊙ (W_n h_{t-1} + b_h))     candidate
        h_t = z_t ⊙ h_{t-1} + (1 - z_t) ⊙ n_t             hidden state

    The three blocks are stacked in this order in W (3H, H), U (3H, D) and b (3H,); b_h is (H,).

    >>> cell = GRUCell(28, 128)
    >>> cell(torch.zeros(64, 28), cell.initial_state(64)).shape
    torch.Size([64, 128])
    """

    title = "GRU"
    about = "a network of gated recurrent units (GRU)"
    explained = "Two gates, whose values lie between 0 and 1, decide how much of it is replaced"
    meanings: ClassVar[Mapping[str, str]] = {
        "r": "reset gate: share of the state that the candidate sees",
        "z": "update gate: share of the state that is kept",
        "n": "candidate: what could be written",
        "h": "hidden state: what the next step and the readout see",
    }
    state_names = ("h",)
    gate_names = ("r", "z", "n")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.b_h = nn.Parameter(torch.empty(hidden_size, device=device, dtype=dtype)) if bias else None
        self.initialise("uniform")

    def equations(self, x: Float[Tensor, "B D"] | Integer[Tensor, " B"], h: Float[Tensor, "B H"]) -> GRUGates:
        """x (B, D) features or (B,) word indices, h (B, H) of the step before -> all four quantities."""
        from_x = self.project(x)  # (B, 3H), the three gates' arguments side by side
        if self.b is not None:
            from_x = from_x + self.b
        x_r, x_z, x_n = from_x.chunk(3, dim=-1)  # (B, H) each
        h_r, h_z, h_n = (h @ self.W.T).chunk(3, dim=-1)
        if self.b_h is not None:
            h_n = h_n + self.b_h

        r = torch.sigmoid(h_r + x_r)
        z = torch.sigmoid(h_z + x_z)
        n = torch.tanh(x_n + r * h_n)
        h = z * h + (1 - z) * n
        return GRUGates(r, z, n, h)

    def forward(
        self, x: Float[Tensor, "B D"] | Integer[Tensor, " B"], state: Float[Tensor, "B H"]
    ) -> Float[Tensor, "B H"]:
        """x (B, D), h_{t-1} (B, H) -> h_t (B, H)."""
        return self.equations(x, state).h

    def quantities(self, x: Tensor, state: State) -> dict[str, Tensor]:
        return self.equations(x, *parts(state))._asdict()
