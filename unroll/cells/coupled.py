"""The LSTM cell with coupled gates: as much is written as was forgotten.

Source: the variant CIFG of Greff, Srivastava, Koutník, Steunebrink & Schmidhuber, "LSTM: A Search Space Odyssey", IEEE
Transactions on Neural Networks and Learning Systems 28(10), 2017, section 3, here without peepholes. There the input gate is
learnt and f_t = 1 - i_t; here it is the forget gate, so that its bias means what it means elsewhere. As σ(-a) = 1 - σ(a), the
two are the same cells, with the signs of one block turned.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from unroll.cells.base import State
from unroll.cells.lstm import LSTMCell, LSTMGates
from unroll.cells.parameters import CellParameters


class CoupledLSTMCell(CellParameters):
    """One step of an LSTM whose input gate is what its forget gate leaves.

        f_t = σ(W_f h_{t-1} + U_f x_t + b_f)        forget gate
        i_t = 1 - f_t                               input gate
        c̃_t = tanh(W_c h_{t-1} + U_c x_t + b_c)     candidate
        o_t = σ(W_o h_{t-1} + U_o x_t + b_o)        output gate
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ c̃_t             cell state
        h_t = o_t ⊙ tanh(c_t)                       hidden state

    The three blocks are stacked in the order f, c̃, o in W (3H, H), U (3H, D) and b (3H,).

    >>> cell = CoupledLSTMCell(28, 128)
    >>> h, c = cell(torch.zeros(64, 28), cell.initial_state(64))
    >>> h.shape
    torch.Size([64, 128])
    """

    title = "LSTM with coupled gates"
    about = "a long short-term memory network (LSTM) with coupled gates"
    explained = "Two gates, whose values lie between 0 and 1, decide what the cell state $c_t$ replaces and shows"
    meanings = LSTMCell.meanings
    state_names = ("h", "c")
    gate_names = ("f", "c_tilde", "o")

    def equations(
        self, x: Float[Tensor, "B D"] | Integer[Tensor, " B"], h: Float[Tensor, "B H"], c: Float[Tensor, "B H"]
    ) -> LSTMGates:
        """x (B, D) features or (B,) word indices, h and c (B, H) of the step before -> all six quantities."""
        a = h @ self.W.T + self.project(x)  # (B, 3H), the gates' arguments side by side
        if self.b is not None:
            a = a + self.b
        a_f, a_c, a_o = a.chunk(3, dim=-1)  # (B, H) each

        f = torch.sigmoid(a_f)
        i = 1 - f
        c_tilde = torch.tanh(a_c)
        o = torch.sigmoid(a_o)
        c = f * c + i * c_tilde
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
