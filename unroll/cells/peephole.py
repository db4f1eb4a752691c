"""The peephole LSTM cell: its gates see the cell state.

Source: Gers & Schmidhuber, "Recurrent Nets that Time and Count", IJCNN 2000, section 2. The input and the forget gate read
c_{t-1}, the output gate reads c_t; every unit reads its own c alone. The squashing functions are tanh, as in `unroll.cells.lstm`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from unroll.cells.base import State
from unroll.cells.lstm import LSTMCell, LSTMGates
from unroll.cells.parameters import CellParameters


class PeepholeLSTMCell(CellParameters):
    """One step of an LSTM with peepholes.

        i_t = σ(W_i h_{t-1} + U_i x_t + p_i ⊙ c_{t-1} + b_i)     input gate
        f_t = σ(W_f h_{t-1} + U_f x_t + p_f ⊙ c_{t-1} + b_f)     forget gate
        c̃_t = tanh(W_c h_{t-1} + U_c x_t + b_c)                  candidate
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ c̃_t                          cell state
        o_t = σ(W_o h_{t-1} + U_o x_t + p_o ⊙ c_t + b_o)         output gate
        h_t = o_t ⊙ tanh(c_t)                                    hidden state

    The four blocks are stacked in the order i, f, c̃, o in W (4H, H), U (4H, D) and b (4H,); the peepholes in the order i, f, o
    in p (3H,). They are drawn like b: with ``normal`` and ``orthogonal`` they begin at zero, so the cell as an LSTM.

    >>> cell = PeepholeLSTMCell(28, 128)
    >>> h, c = cell(torch.zeros(64, 28), cell.initial_state(64))
    >>> h.shape
    torch.Size([64, 128])
    """

    title = "peephole LSTM"
    about = "a long short-term memory network (LSTM) with peepholes"
    explained = (
        "Three gates, which see the cell state $c_t$ through peepholes, decide what it takes in, keeps and shows"
    )
    meanings = LSTMCell.meanings
    state_names = ("h", "c")
    gate_names = ("i", "f", "c_tilde", "o")

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.p = nn.Parameter(torch.empty(3 * hidden_size, device=device, dtype=dtype))
        self.initialise("uniform")

    def equations(
        self, x: Float[Tensor, "B D"] | Integer[Tensor, " B"], h: Float[Tensor, "B H"], c: Float[Tensor, "B H"]
    ) -> LSTMGates:
        """x (B, D) features or (B,) word indices, h and c (B, H) of the step before -> all six quantities."""
        a = h @ self.W.T + self.project(x)  # (B, 4H), the four gates' arguments side by side
        if self.b is not None:
            a = a + self.b
        a_i, a_f, a_c, a_o = a.chunk(4, dim=-1)  # (B, H) each
        p_i, p_f, p_o = self.p.chunk(3)  # (H,) each

        i = torch.sigmoid(a_i + p_i * c)
        f = torch.sigmoid(a_f + p_f * c)
        c_tilde = torch.tanh(a_c)
        c = f * c + i * c_tilde
        o = torch.sigmoid(a_o + p_o * c)
        h = o * torch.tanh(c)
        return LSTMGates(i, f, c_tilde, o, c, h)

    def forward(
        self, x: Float[Tensor, "B D"] | Integer[Tensor, " B"], state: tuple[Float[Tensor, "B H"], Float[Tensor, "B H"]]
    ) -> tuple[Float[Tensor, "B H"], Float[Tensor, "B H"]]:
        """x (B, D), (h_{t-1}, c_{t-1}) -> (h_t, c_t), each (B, H)."""
        gates = self.equations(x, *state)
        return gates.h, gates.c

    def quantities(self, x: Tensor, state: State) -> dict[str, Tensor]:
        return self.equations(x, *state)._asdict()
