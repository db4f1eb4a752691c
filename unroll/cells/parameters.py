"""The parameters W, U, b that every cell has, and the ways to draw their first values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from unroll.cells.base import Cell, check_size
from unroll.errors import InputError, nearest

Initialisation = Literal["uniform", "linear", "normal", "orthogonal"]


class CellParameters(Cell):
    """W (G·H, H), U (G·H, D) and b (G·H,): one block of H rows for each of the G gates.

    `gate_names` are in the order of their blocks.

    Args:
        input_size: D, the number of features of x_t (or the number of words, where x_t is a word index).
        hidden_size: H, the number of hidden units.
        bias: without it b is None and counts as zero.

    Raises:
        InputError: a size is no whole number of at least 1.
    """

    first_values: ClassVar[Mapping[str, float]] = {}
    """Parameters that begin with a number, such as gains with 1, and are not drawn."""
    input_size: int

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **unknown: Any,
    ) -> None:
        super().__init__()
        for name in unknown:
            raise InputError(f"{type(self).__name__} has no argument {name!r}")
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            check_size(name, size)
        self.input_size = input_size
        self.state_sizes = (hidden_size,) * len(self.state_names)
        rows = len(self.gate_names) * hidden_size
        self.W = nn.Parameter(torch.empty(rows, hidden_size, device=device, dtype=dtype))
        self.U = nn.Parameter(torch.empty(rows, input_size, device=device, dtype=dtype))
        self.b = nn.Parameter(torch.empty(rows, device=device, dtype=dtype)) if bias else None
        self.initialise("uniform")

    @torch.no_grad()
    def initialise(self, how: str) -> None:
        """Draw W, U and b anew, in this order, and after them what else a cell has, its vectors like b.

        - ``uniform``: all from U(-1/√H, 1/√H), torch's default for its recurrent layers.
        - ``linear``: all from U(-1/√(D+H), 1/√(D+H)), the default of a linear layer on [h_{t-1}, x_t], as in the LSTM
          lab.
        - ``normal``: W and U from N(0, 1) divided by the square root of their number of columns, b zero, as in the RNN
          lab.
        - ``orthogonal``: each gate's block of W a random orthogonal matrix (Saxe et al. 2014, section 3), U Glorot
          uniform per gate (Glorot & Bengio 2010, eq. 16), b zero.

        Raises:
            InputError: `how` is none of these.
        """
        D, H = self.input_size, self.hidden_size
        if how in ("uniform", "linear"):
            bound = 1 / math.sqrt(H if how == "uniform" else D + H)
            for name, parameter in self.named_parameters():
                if name in self.first_values:
                    parameter.fill_(self.first_values[name])
                else:
                    parameter.uniform_(-bound, bound)
            return
        if how == "normal":
            self.W.normal_().div_(math.sqrt(H))
            self.U.normal_().div_(math.sqrt(D))
        elif how == "orthogonal":
            for block in self.W.split(H):
                nn.init.orthogonal_(block)
            for block in self.U.split(H):
                nn.init.xavier_uniform_(block)
        else:
            raise InputError(f"unknown initialisation {how!r}{nearest(how, get_args(Initialisation))}")
        for name, parameter in self.named_parameters():
            if parameter.dim() == 1:
                parameter.fill_(self.first_values.get(name, 0.0))

    @torch.no_grad()
    def set_bias(self, gate: str, value: float | Tensor) -> None:
        """Set the bias of one gate: one number, or (H,). A cell without this gate, or without biases, stays as it is."""
        if self.b is not None and gate in self.gate_names:
            self.b[self.block(gate)] = value

    def block(self, gate: str) -> slice:
        """The rows of W, U and b that belong to a gate."""
        n, H = self.gate_names.index(gate), self.hidden_size
        return slice(n * H, (n + 1) * H)

    def project(self, x: Float[Tensor, "*S D"] | Integer[Tensor, "*S"]) -> Float[Tensor, "*S GH"]:
        """U x_t: (…, D) features -> (…, G·H).

        Integer x (…) holds word indices and stands for one-hot vectors; U times a one-hot vector is a column of U, so
        the column is looked up and no one-hot vector is ever made.
        """
        if x.is_floating_point():
            return x @ self.U.T
        return nn.functional.embedding(x, self.U.T)

    def extra_repr(self) -> str:
        return f"{self.input_size}, {self.hidden_size}, bias={self.b is not None}"
