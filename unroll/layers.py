"""RNN and LSTM layers: a cell walked over time, stacked in layers and in both directions.

The constructors, the calls and the results have the form of `torch.nn.RNN` and `torch.nn.LSTM`, so that either can
stand in the other's place; `from_torch` and `to_torch` carry weights over. Beyond torch's form: `lengths` for padded
batches, integer inputs as word indices, and the choice of an engine. Not here: projections (`proj_size`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from unroll.cells import LSTMCell, RNNCell
from unroll.cells.rnn import Nonlinearity
from unroll.engines import EngineName, check_engine, walk
from unroll.errors import InputError


class Recurrent(nn.Module):
    """What RNN and LSTM share: layers, directions, lengths, and the shapes of inputs and states.

    The cells are `cells[layer][direction]`, each with its own W, U and b; layer 0 reads x, every other layer reads the
    outputs of all directions of the layer below.
    """

    cell_type: ClassVar[type[RNNCell] | type[LSTMCell]]
    torch_type: ClassVar[type[nn.RNN] | type[nn.LSTM]]
    parts: ClassVar[int]  # tensors in a state: s, or h and c
    cells: Sequence[Sequence[Any]]  # by layer and direction

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        engine: EngineName = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        **cell_options: Any,
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise InputError(f"num_layers is {num_layers}, but there must be at least 1")
        if not 0 <= dropout < 1:
            raise InputError(f"dropout is {dropout}; expected a share in [0, 1)")
        check_engine(engine)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.engine = engine
        self.directions = 2 if bidirectional else 1
        self.cells = nn.ModuleList(  # type: ignore[assignment]
            nn.ModuleList(
                self.cell_type(
                    input_size if layer == 0 else hidden_size * self.directions,
                    hidden_size,
                    bias=bias,
                    device=device,
                    dtype=dtype,
                    **cell_options,
                )
                for _ in range(self.directions)
            )
            for layer in range(num_layers)
        )

    def _walk(
        self, x: Tensor | PackedSequence, hx: tuple[Tensor, ...] | None, lengths: Tensor | None
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, ...]]:
        """Outputs and final states in the caller's own form; hx and the final states as tuples of `parts` tensors."""
        packed = x if isinstance(x, PackedSequence) else None
        batched = True
        if packed is not None:
            if lengths is not None:
                raise InputError("a PackedSequence carries its own lengths; leave out the argument lengths")
            x, lengths = pad_packed_sequence(packed)
        else:
            assert isinstance(x, Tensor)
            batched = x.dim() == (3 if x.is_floating_point() else 2)
            self._check_input(x)
            if not batched:
                x = x.unsqueeze(1)
                hx = None if hx is None else tuple(part.unsqueeze(1) for part in hx)
            elif self.batch_first:
                x = x.transpose(0, 1)
        T, B = x.shape[:2]
        if T == 0:
            raise InputError("the input has no time step (T = 0); expected at least 1")
        lengths = self._check_lengths(lengths, T, B)
        if not x.is_floating_point():
            x = self._check_words(x, lengths)
        if hx is None:
            zero = (x if x.is_floating_point() else self.cells[0][0].W).new_zeros(B, self.hidden_size)
        else:
            self._check_states(hx, B)

        final: list[tuple[Tensor, ...]] = []
        h = x
        for layer, cells in enumerate(self.cells):
            if layer > 0 and self.dropout > 0 and self.training:
                h = nn.functional.dropout(h, self.dropout)
            ways: list[Tensor] = []
            for direction, cell in enumerate(cells):
                number = layer * self.directions + direction
                state = (zero,) * self.parts if hx is None else tuple(part[number] for part in hx)
                outputs, end = walk(
                    cell,
                    h,
                    state if self.parts > 1 else state[0],
                    lengths,
                    reverse=direction == 1,
                    engine=self.engine,
                )
                ways.append(outputs)
                final.append(end if isinstance(end, tuple) else (end,))
            h = ways[0] if len(ways) == 1 else torch.cat(ways, dim=-1)  # (T, B, H·directions)
        # (layers·directions, B, H) each; for one walk a view costs less than a copy
        states = tuple(
            part[0].unsqueeze(0) if len(part) == 1 else torch.stack(part) for part in zip(*final, strict=True)
        )

        if packed is not None:
            return self._pack(h, lengths, packed), states
        if not batched:
            return h.squeeze(1), tuple(part.squeeze(1) for part in states)
        return (h.transpose(0, 1) if self.batch_first else h), states

    def _check_input(self, x: Tensor) -> None:
        name = type(self).__name__
        if not x.is_floating_point():
            if x.dim() not in (1, 2):
                raise InputError(f"{name}: word indices have shape {tuple(x.shape)}; expected (T,) or (T, B)")
            return
        if x.dim() not in (2, 3):
            raise InputError(f"{name}: the input has shape {tuple(x.shape)}; expected (T, D) or (T, B, D)")
        if x.shape[-1] != self.input_size:
            raise InputError(
                f"{name}: the input has {x.shape[-1]} features in its last axis; expected input_size = {self.input_size}"
            )

    def _check_words(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Word indices (T, B) of any integer type as int64, once each is known to be a word; padding may hold anything."""
        name, V = type(self).__name__, self.input_size
        if x.is_complex() or x.dtype == torch.bool:
            raise InputError(f"{name}: the input is {x.dtype}; expected features in floats or word indices in integers")
        x = x.to(torch.int64)
        tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if torch.compiler.is_compiling() or tracing or x.numel() == 0:
            return x  # a graph cannot branch on values
        words = x
        if lengths is not None:
            words = x.masked_fill(torch.arange(x.shape[0], device=x.device)[:, None] >= lengths.to(x.device), 0)
        try:
            lowest, highest = (int(value) for value in words.aminmax())
        except RuntimeError:
            return x  # a tensor without values to look at: fake, on the meta device, or one of many under vmap
        if lowest < 0 or highest >= V:
            raise InputError(
                f"{name}: the input holds word index {lowest if lowest < 0 else highest}; expected 0 to {V - 1}, "
                f"for input_size is V = {V}"
            )
        return x

    def _check_lengths(self, lengths: Tensor | None, T: int, B: int) -> Tensor | None:
        if lengths is None:
            return None
        if not isinstance(lengths, Tensor):
            lengths = torch.tensor(lengths, device="cpu")
        lengths = lengths.to("cpu", torch.int64)
        if lengths.shape != (B,):
            raise InputError(f"lengths has shape {tuple(lengths.shape)}; expected one for each sequence, ({B},)")
        if torch.compiler.is_compiling():  # a graph cannot branch on values; the native engine checks once more
            return lengths
        if B and not (int(lengths.min()) >= 0 and int(lengths.max()) <= T):
            raise InputError(
                f"lengths run from {int(lengths.min())} to {int(lengths.max())}; expected 0 to {T}, the number of steps"
            )
        return lengths

    def _check_states(self, hx: tuple[Tensor, ...], B: int) -> None:
        expected = (self.num_layers * self.directions, B, self.hidden_size)
        for part in hx:
            if tuple(part.shape) != expected:
                raise InputError(
                    f"an initial state has shape {tuple(part.shape)}; expected (layers·directions, B, H) = {expected}"
                )

    @staticmethod
    def _pack(h: Tensor, lengths: Tensor | None, packed: PackedSequence) -> PackedSequence:
        assert lengths is not None
        # pad_packed_sequence gave the batch back in the caller's order; pack it in the order it came in.
        if packed.sorted_indices is not None:
            h = h.index_select(1, packed.sorted_indices)
            lengths = lengths.index_select(0, packed.sorted_indices.cpu())
        data = pack_padded_sequence(h, lengths)
        return PackedSequence(data.data, packed.batch_sizes, packed.sorted_indices, packed.unsorted_indices)

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}"
        for name in ("bias", "batch_first", "dropout", "bidirectional"):
            value = getattr(self, name)
            if value != {"bias": True, "dropout": 0.0}.get(name, False):
                text += f", {name}={value}"
        return text + f", engine={self.engine!r}"

    @classmethod
    def from_torch(cls, theirs: nn.RNNBase, engine: EngineName = "auto") -> Self:
        """A layer with the weights of a `torch.nn` layer; its two biases are added into the one.

        Raises:
            InputError: the layer is of another kind, or has projections.
        """
        if not isinstance(theirs, cls.torch_type):
            raise InputError(f"from_torch got a {type(theirs).__name__}; expected torch.nn.{cls.torch_type.__name__}")
        if theirs.proj_size:
            raise InputError(f"the layer has proj_size = {theirs.proj_size}; layers with projections are not supported")
        weight = next(theirs.parameters())
        ours = cls(
            theirs.input_size,
            theirs.hidden_size,
            num_layers=theirs.num_layers,
            bias=theirs.bias,
            batch_first=theirs.batch_first,
            dropout=theirs.dropout,
            bidirectional=theirs.bidirectional,
            engine=engine,
            device=weight.device,
            dtype=weight.dtype,
            **cls._options_of(theirs),
        )
        with torch.no_grad():
            for cell, suffix in ours._cells_with_suffix():
                cell.W.copy_(getattr(theirs, f"weight_hh_{suffix}"))
                cell.U.copy_(getattr(theirs, f"weight_ih_{suffix}"))
                if cell.b is not None:
                    cell.b.copy_(getattr(theirs, f"bias_ih_{suffix}") + getattr(theirs, f"bias_hh_{suffix}"))
        return ours.train(theirs.training)

    def to_torch(self) -> nn.RNNBase:
        """A `torch.nn` layer with these weights; its second bias is zero."""
        parameter = self.cells[0][0].W
        theirs = self.torch_type(
            self.input_size,
            self.hidden_size,
            num_layers=self.num_layers,
            bias=self.bias,
            batch_first=self.batch_first,
            dropout=self.dropout,
            bidirectional=self.bidirectional,
            device=parameter.device,
            dtype=parameter.dtype,
            **self._options_of(self),
        )
        with torch.no_grad():
            for cell, suffix in self._cells_with_suffix():
                getattr(theirs, f"weight_hh_{suffix}").copy_(cell.W)
                getattr(theirs, f"weight_ih_{suffix}").copy_(cell.U)
                if cell.b is not None:
                    getattr(theirs, f"bias_ih_{suffix}").copy_(cell.b)
                    getattr(theirs, f"bias_hh_{suffix}").zero_()
        return theirs.train(self.training)

    def _cells_with_suffix(self) -> list[tuple[Any, str]]:
        """Each cell with the ending of its weights' names in torch's layers."""
        return [
            (cell, f"l{layer}" + ("_reverse" if direction else ""))
            for layer, cells in enumerate(self.cells)
            for direction, cell in enumerate(cells)
        ]

    @staticmethod
    def _options_of(layer: nn.Module) -> dict[str, Any]:
        return {}


class RNN(Recurrent):
    """Vanilla RNN layers; the equation is in `unroll.cells.rnn`.

    Args and call as `torch.nn.RNN`: the input is (T, B, D), or (B, T, D) with `batch_first`, or (T, D) for one
    sequence, or a PackedSequence; the result is the outputs of the top layer (T, B, H·directions) and the last states
    (layers·directions, B, H). Integer inputs (T, B) are word indices and stand for one-hot vectors. With `lengths` (B,)
    the steps beyond a sequence's length change nothing and give output zero.

    >>> layer = RNN(5, 2)
    >>> outputs, s_n = layer(torch.zeros(4, 1, 5))
    >>> outputs.shape, s_n.shape
    (torch.Size([4, 1, 2]), torch.Size([1, 1, 2]))
    """

    cell_type = RNNCell
    torch_type = nn.RNN
    parts = 1

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: Nonlinearity = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        *,
        engine: EngineName = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            engine=engine,
            device=device,
            dtype=dtype,
            nonlinearity=nonlinearity,
        )
        self.nonlinearity = nonlinearity

    def forward(
        self, x: Tensor | PackedSequence, hx: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        outputs, (s_n,) = self._walk(x, None if hx is None else (hx,), lengths)
        return outputs, s_n

    @staticmethod
    def _options_of(layer: nn.Module) -> dict[str, Any]:
        return {"nonlinearity": layer.nonlinearity}


class LSTM(Recurrent):
    """LSTM layers; the equations are in `unroll.cells.lstm`.

    Args and call as `torch.nn.LSTM`: the input is (T, B, D), or (B, T, D) with `batch_first`, or (T, D) for one
    sequence, or a PackedSequence; the result is the outputs of the top layer (T, B, H·directions) and the pair of last
    states (h_n, c_n), each (layers·directions, B, H). Integer inputs (T, B) are word indices and stand for one-hot
    vectors. With `lengths` (B,) the steps beyond a sequence's length change nothing and give output zero.

    >>> layer = LSTM(28, 128)
    >>> outputs, (h_n, c_n) = layer(torch.zeros(28, 64, 28))
    >>> outputs.shape, h_n.shape
    (torch.Size([28, 64, 128]), torch.Size([1, 64, 128]))
    """

    cell_type = LSTMCell
    torch_type = nn.LSTM
    parts = 2

    def forward(
        self, x: Tensor | PackedSequence, hx: tuple[Tensor, Tensor] | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor | PackedSequence, tuple[Tensor, Tensor]]:
        outputs, (h_n, c_n) = self._walk(x, hx, lengths)
        return outputs, (h_n, c_n)
