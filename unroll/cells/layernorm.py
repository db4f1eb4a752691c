"""The layer-norm LSTM cell: what enters the gates, and the cell state where it is shown, have one scale at every step.

Source: Ba, Kiros & Hinton, "Layer Normalization", arXiv:1607.06450, 2016, supplementary material, eqs. 20-22.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from unroll.cells.base import State
from unroll.cells.lstm import LSTMCell, LSTMGates
from unroll.cells.parameters import CellParameters


class LayerNormLSTMCell(CellParameters):
    """One step of a layer-norm LSTM.

        a_t = LN(W h_{t-1}; α_h) + LN(U x_t; α_x) + b     the four gates' arguments a_i, a_f, a_c, a_o
        i_t = σ(a_i)                                      input gate
        f_t = σ(a_f)                                      forget gate
        c̃_t = tanh(a_c)                                   candidate
        o_t = σ(a_o)                                      output gate
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ c̃_t                   cell state
        h_t = o_t ⊙ tanh(LN(c_t; α_c) + β)                hidden state

        LN(z; α) = α ⊙ (z - μ) / √(v + 10⁻⁵),   μ and v: mean and variance of the entries of z

    The four blocks are stacked in this order in W (4H, H), U (4H, D), b (4H,) and in the gains α_h and α_x (4H,), which are
    `alpha_h` and `alpha_x`; `alpha_c` and `beta` are (H,). The paper's β_1 and β_2 are part of b, to which they are added. Every
    initialisation begins with gains 1 and β = 0. Without `bias` there is neither b nor β.

    >>> cell = LayerNormLSTMCell(28, 128)
    >>> h, c = cell(torch.zeros(64, 28), cell.initial_state(64))
    >>> h.shape
    torch.Size([64, 128])
    """

    title = "layer-norm LSTM"
    about = "a long short-term memory network (LSTM) with layer normalisation"
    explained = (
        "Three gates, whose arguments are normalised, decide what the cell state $c_t$ takes in, keeps and shows"
    )
    meanings = LSTMCell.meanings
    state_names = ("h", "c")
    gate_names = ("i", "f", "c_tilde", "o")
    first_values: ClassVar[dict[str, float]] = {"alpha_h": 1.0, "alpha_x": 1.0, "alpha_c": 1.0, "beta": 0.0}

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.alpha_h = nn.Parameter(torch.ones(4 * hidden_size, device=device, dtype=dtype))
        self.alpha_x = nn.Parameter(torch.ones(4 * hidden_size, device=device, dtype=dtype))
        self.alpha_c = nn.Parameter(torch.ones(hidden_size, device=device, dtype=dtype))
        self.beta = nn.Parameter(torch.zeros(hidden_size, device=device, dtype=dtype)) if bias else None

    def equations(
        self, x: Float[Tensor, "B D"] | Integer[Tensor, " B"], h: Float[Tensor, "B H"], c: Float[Tensor, "B H"]
    ) -> LSTMGates:
        """x (B, D) features or (B,) word indices, h and c (B, H) of the step before -> all six quantities."""
        H = self.hidden_size
        from_h = layer_norm(h @ self.W.T, (4 * H,), self.alpha_h)
        from_x = layer_norm(self.project(x), (4 * H,), self.alpha_x)
        a = from_h + from_x  # (B, 4H), the four gates' arguments side by side
        if self.b is not None:
            a = a + self.b
        a_i, a_f, a_c, a_o = a.chunk(4, dim=-1)  # (B, H) each

        i = torch.sigmoid(a_i)
        f = torch.sigmoid(a_f)
        c_tilde = torch.tanh(a_c)
        o = torch.sigmoid(a_o)
        c = f * c + i * c_tilde
        h = o * torch.tanh(layer_norm(c, (H,), self.alpha_c, self.beta))
        return LSTMGates(i, f, c_tilde, o, c, h)

    def forward(
        self, x: Float[Tensor, "B D"] | Integer[Tensor, " B"], state: tuple[Float[Tensor, "B H"], Float[Tensor, "B H"]]
    ) -> tuple[Float[Tensor, "B H"], Float[Tensor, "B H"]]:
        """x (B, D), (h_{t-1}, c_{t-1}) -> (h_t, c_t), each (B, H)."""
        gates = self.equations(x, *state)
        return gates.h, gates.c

    def quantities(self, x: Tensor, state: State) -> dict[str, Tensor]:
        return self.equations(x, *state)._asdict()
