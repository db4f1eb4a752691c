"""The LSTM cell: one time step of long short-term memory.

Source: Hochreiter & Schmidhuber, "Long Short-Term Memory", Neural Computation 9(8), 1997, with the forget gate of Gers,
Schmidhuber & Cummins, "Learning to Forget", Neural Computation 12(10), 2000, eqs. 2.1-2.6. No peephole connections.
Plain autograd; scanning over time is the engines' job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from unroll.cells.base import State
from unroll.cells.parameters import CellParameters


class LSTMGates(NamedTuple):
    """Everything an LSTM computes in one time step."""

    i: Float[Tensor, "B H"]
    f: Float[Tensor, "B H"]
    c_tilde: Float[Tensor, "B H"]
    o: Float[Tensor, "B H"]
    c: Float[Tensor, "B H"]
    h: Float[Tensor, "B H"]


class LSTMCell(CellParameters):
    """One step of an LSTM.

        i_t = σ(W_i h_{t-1} + U_i x_t + b_i)        input gate
        f_t = σ(W_f h_{t-1} + U_f x_t + b_f)        forget gate
        c̃_t = tanh(W_c h_{t-1} + U_c x_t + b_c)     candidate
        o_t = σ(W_o h_{t-1} + U_o x_t + b_o)        output gate
        c_t = f_t ⊙ c_{t-1} + i_t ⊙ c̃_t             cell state
        h_t = o_t ⊙ tanh(c_t)                       hidden state

    The four blocks are stacked in this order in W (4H, H), U (4H, D) and b (4H,).

    >>> cell = LSTMCell(28, 128)
    >>> h, c = cell(torch.zeros(64, 28), cell.initial_state(64))
    >>> h.shape
    torch.Size([64, 128])
    """

    title = "LSTM"
    about = "a long short-term memory network (LSTM)"
    explained = (
        "Three gates, whose values lie between 0 and 1, decide what the cell state $c_t$ takes in, keeps and shows"
    )
    meanings: ClassVar[Mapping[str, str]] = {
        "i": "input gate: share of the candidate let in",
        "f": "forget gate: share of c that is kept",
        "c_tilde": "candidate: what could be written",
        "o": "output gate: share of tanh(c) shown",
        "c": "cell state: what is remembered",
        "h": "hidden state: what the next step and the readout see",
    }
    state_names = ("h", "c")
    gate_names = ("i", "f", "c_tilde", "o")

    def equations(
        self, x: Float[Tensor, "B D"] | Integer[Tensor, " B"], h: Float[Tensor, "B H"], c: Float[Tensor, "B H"]
    ) -> LSTMGates:
        """x (B, D) features or (B,) word indices, h and c (B, H) of the step before -> all six quantities."""
        a = h @ self.W.T + self.project(x)  # (B, 4H), the four gates' arguments side by side
        if self.b is not None:
            a = a + self.b
        a_i, a_f, a_c, a_o = a.chunk(4, dim=-1)  # (B, H) each

        i = torch.sigmoid(a_i)
        f = torch.sigmoid(a_f)
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
