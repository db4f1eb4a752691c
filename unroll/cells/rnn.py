"""The vanilla RNN cell: one time step of Elman's network.

Source: Elman, "Finding Structure in Time", Cognitive Science 14(2), 1990; the letters are those of Goodfellow, Bengio &
Courville, "Deep Learning", 2016, eqs. 10.8-10.9, with W recurrent and U from the input. Plain autograd; scanning over
time is the engines' job.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor

from unroll.cells.parameters import CellParameters
from unroll.errors import InputError

Nonlinearity = Literal["tanh", "relu"]


class RNNCell(CellParameters):
    """One step of a vanilla RNN.

        s_t = tanh(W s_{t-1} + U x_t + b)

    or with max(0, ·) in the place of tanh, where `nonlinearity` is ``"relu"``.

    >>> cell = RNNCell(5, 2)
    >>> cell(torch.zeros(1, 5), cell.initial_state(1)).shape
    torch.Size([1, 2])
    """

    title = "vanilla RNN"
    about = "a vanilla recurrent network"
    meanings: ClassVar[Mapping[str, str]] = {"s": "hidden state"}
    state_names = ("s",)
    gate_names = ("s",)

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise InputError(f"nonlinearity is {nonlinearity!r}; expected 'tanh' or 'relu'")
        super().__init__(input_size, hidden_size, bias, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, x: Float[Tensor, "B D"] | Integer[Tensor, " B"], s: Float[Tensor, "B H"]) -> Float[Tensor, "B H"]:
        """x (B, D) features or (B,) word indices, s_{t-1} (B, H) -> s_t (B, H)."""
        a = s @ self.W.T + self.project(x)  # (B, H)
        if self.b is not None:
            a = a + self.b
        return torch.tanh(a) if self.nonlinearity == "tanh" else torch.relu(a)
