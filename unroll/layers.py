"""Recurrent layers: cells scanned over time, stacked in layers and in both directions.

`Recurrent` takes any cells. The constructors, the calls and the results of `RNN`, `LSTM` and `GRU` have the form of
`torch.nn.RNN`, `torch.nn.LSTM` and `torch.nn.GRU`; `from_torch` and `to_torch` carry weights over. Beyond torch's form:
`lengths` for padded batches, integer inputs as word indices, and the choice of an engine. Not here: projections.
"""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from unroll.cells import cell_type
from unroll.cells.base import Cell, State, as_cell, check_share, check_size, joined, parts
from unroll.cells.rnn import Nonlinearity
from unroll.engines import EngineName, check_engine, scan
from unroll.errors import InputError, nearest, quoted


def stack(
    cell: Callable[..., nn.Module], input_size: int, hidden_size: int, num_layers: int, directions: int, **options: Any
) -> list[list[Cell]]:
    """New cells by layer and direction: layer 0 reads D features, every other layer the outputs below it.

    Args:
        cell: a class, or whatever makes a module of one step (see `unroll.as_cell`) from D and H.
        options: for the cells' constructor.

    Raises:
        InputError: a size is no whole number of at least 1.
    """
    for name, size in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
        check_size(name, size)
    layers: list[list[Cell]] = []
    width = input_size
    for _ in range(num_layers):
        layers.append([as_cell(cell(width, hidden_size, **options)) for _ in range(directions)])
        for made in layers[-1]:
            made.input_size = made.input_size or width  # which a class need not say that has just been told it
        width = sum(made.hidden_size for made in layers[-1])
    return layers


def _by_layer(
    given: nn.Module | Sequence[nn.Module] | Sequence[Sequence[nn.Module]], num_layers: int | None, bidirectional: bool
) -> list[list[Cell]]:
    """Cells by layer and direction, of one cell, of one for each layer, or as they are."""
    alone = isinstance(given, nn.Module)
    if not alone and not isinstance(given, Sequence):
        raise InputError(
            f"the cell is {quoted(given)}; expected a module that computes one time step, or a list of them"
        )
    rows: list[Any] = [given] * (num_layers or 1) if isinstance(given, nn.Module) else list(given)
    if not rows or (num_layers is not None and num_layers != len(rows)):
        raise InputError(f"there are cells for {len(rows)} layers; expected {num_layers or 'at least 1'}")
    layers: list[list[Cell]] = []
    for n, row in enumerate(rows):
        if isinstance(row, nn.Module):
            first = _copied(row) if alone and n else as_cell(row)
            layers.append([first, _copied(first)] if bidirectional else [first])
        else:
            layers.append([as_cell(cell) for cell in row])
    width, sizes = layers[0][0].input_size, layers[0][0].state_sizes
    for n, ways in enumerate(layers, 1):
        for cell in ways:
            if cell.state_sizes != sizes or len(ways) != len(layers[0]):
                raise InputError(
                    f"layer {n} has states of sizes {cell.state_sizes}; expected {sizes}, as the others have"
                )
            if None not in (width, cell.input_size) and cell.input_size != width:
                raise InputError(
                    f"layer {n} reads {cell.input_size} features; expected {width}: give one cell for each layer"
                )
        width = sum(cell.hidden_size for cell in ways)
    return layers


def _copied(cell: nn.Module) -> Cell:
    """A cell like this one, with parameters of its own."""
    made = as_cell(copy.deepcopy(cell))
    made.initialise("uniform")
    for module in made.modules():
        if callable(reset := getattr(module, "reset_parameters", None)):
            reset()
    return made


class Recurrent(nn.Module):
    """Cells scanned over time.

    The input is (T, B, D), or (B, T, D) with `batch_first`, or (T, D) for one sequence, or a PackedSequence. Integer inputs
    (T, B) are word indices and stand for one-hot vectors. With `lengths` (B,) the steps beyond a sequence's length change
    nothing and give output zero. The result is the outputs of the top layer (T, B, H·directions) and the last state, in the
    cells' own form, each tensor (layers·directions, B, H).

    Args:
        cells: a module that computes one step (see `unroll.as_cell`), or a list with one for each layer, or with one list of
            cells, by direction, for each layer. ``cells[0]`` reads x, every other layer the outputs of all directions below it.
        num_layers: of one cell, how many layers; further ones are copies, whose parameters are drawn anew where the cell has a
            ``reset_parameters``.
        bidirectional: scan in both directions; the second one has a copy of each cell.
        dropout: share of the outputs between layers that is dropped in training.
        engine: ``"auto"``, ``"native"`` or ``"reference"``.

    Raises:
        InputError: the cells do not fit each other, dropout is no share, or there is no such engine.

    >>> layer = Recurrent(nn.GRUCell(28, 64), bidirectional=True)
    >>> layer(torch.zeros(28, 32, 28))[0].shape
    torch.Size([28, 32, 128])
    """

    cells: Sequence[Sequence[Any]]  # each a `Cell`

    def __init__(
        self,
        cells: nn.Module | Sequence[nn.Module] | Sequence[Sequence[nn.Module]],
        num_layers: int | None = None,
        bidirectional: bool = False,
        dropout: float = 0.0,
        batch_first: bool = False,
        engine: EngineName = "auto",
    ) -> None:
        super().__init__()
        layers = _by_layer(cells, num_layers, bidirectional)
        check_engine(engine)
        self.cells = nn.ModuleList(nn.ModuleList(ways) for ways in layers)  # type: ignore[assignment]
        self.input_size = layers[0][0].input_size
        self.hidden_size = layers[0][0].hidden_size
        self.num_layers = len(layers)
        self.directions = len(layers[0])
        self.bidirectional = self.directions == 2
        self.batch_first = batch_first
        self.dropout = check_share("dropout", dropout)
        self.engine = engine

    def forward(
        self, x: Tensor | PackedSequence, hx: State | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor | PackedSequence, State]:
        """Outputs and last states, in the caller's own form of x."""
        packed = x if isinstance(x, PackedSequence) else None
        batched = True
        if packed is not None:
            if lengths is not None:
                raise InputError("a PackedSequence carries its own lengths; leave out the argument lengths")
            x, lengths = pad_packed_sequence(packed)
        else:
            self.check_input(x)
            assert isinstance(x, Tensor)
            batched = x.dim() == (3 if x.is_floating_point() else 2)
            if not batched:
                x = x.unsqueeze(1)
            elif self.batch_first:
                x = x.transpose(0, 1)
        T, B = x.shape[:2]
        if T == 0:
            raise InputError("the input has no time step (T = 0); expected at least 1")
        lengths = self.check_lengths(lengths, T, B)
        if not x.is_floating_point():
            x = self._check_words(x, lengths)
        given = None if hx is None else self._check_states(hx, B, batched)

        final: list[tuple[Tensor, ...]] = []
        h = x
        for layer, cells in enumerate(self.cells):
            if layer > 0 and self.dropout > 0 and self.training:
                h = nn.functional.dropout(h, self.dropout)
            ways: list[Tensor] = []
            for direction, cell in enumerate(cells):
                number = layer * self.directions + direction
                state = cell.initial_state(B) if given is None else joined([part[number] for part in given])
                outputs, end = scan(cell, h, state, lengths, direction == 1, self.engine)
                ways.append(outputs)
                final.append(parts(end))
            h = ways[0] if len(ways) == 1 else torch.cat(ways, dim=-1)  # (T, B, H·directions)
        # (layers·directions, B, H) each; for one scan a view costs less than a copy
        states = [part[0].unsqueeze(0) if len(part) == 1 else torch.stack(part) for part in zip(*final, strict=True)]

        if packed is not None:
            return self._pack(h, lengths, packed), joined(states)
        if not batched:
            return h.squeeze(1), joined([part.squeeze(1) for part in states])
        return (h.transpose(0, 1) if self.batch_first else h), joined(states)

    def check_input(self, x: Any) -> None:
        """Raise InputError where x (T, D), (T, B, D), (T,) or (T, B) does not fit the first layer."""
        name = type(self).__name__
        if not isinstance(x, Tensor):
            raise InputError(f"{name}: the input is a {type(x).__name__}; expected a tensor or a PackedSequence")
        if not x.is_floating_point():
            if x.dim() not in (1, 2):
                raise InputError(f"{name}: word indices have shape {tuple(x.shape)}; expected (T,) or (T, B)")
            return
        if x.dim() not in (2, 3):
            raise InputError(f"{name}: the input has shape {tuple(x.shape)}; expected (T, D) or (T, B, D)")
        if self.input_size is not None and x.shape[-1] != self.input_size:
            raise InputError(
                f"{name}: the input has {x.shape[-1]} features in its last axis; expected input_size = {self.input_size}"
            )

    def _check_words(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """Word indices (T, B) of any integer type as int64, once each is known to be a word; padding may hold anything."""
        name, V = type(self).__name__, self.input_size or sys.maxsize
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

    def check_lengths(self, lengths: Tensor | None, T: int, B: int) -> Tensor | None:
        """lengths (B,) as int64 on the CPU. Raises InputError where one is no whole number in 0 to T."""
        if lengths is None:
            return None
        if not isinstance(lengths, Tensor):
            try:
                lengths = torch.tensor(lengths, device="cpu")
            except (TypeError, ValueError, RuntimeError):
                raise InputError(f"lengths is {quoted(lengths)}; expected {B} whole numbers from 0 to {T}") from None
        if lengths.dtype == torch.bool or lengths.is_floating_point() or lengths.is_complex():
            raise InputError(f"lengths are {lengths.dtype}; expected whole numbers, such as torch.int64")
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

    def _check_states(self, hx: State, B: int, batched: bool) -> tuple[Tensor, ...]:
        """The tensors of an initial state, with an axis for the batch, once each is known to fit."""
        cell = self.cells[0][0]
        given = (hx,) if isinstance(hx, Tensor) else tuple(hx) if isinstance(hx, list | tuple) else ()
        if len(given) != len(cell.state_sizes) or not all(isinstance(part, Tensor) for part in given):
            found = f"{type(hx).__name__} of {len(hx)}" if isinstance(hx, list | tuple) else type(hx).__name__
            names = ", ".join(f"{name}_0" for name in cell.state_names)
            wanted = "a tensor" if len(cell.state_sizes) == 1 else f"a tuple ({names})"
            raise InputError(f"the initial state is a {found}; expected {wanted}")
        if not batched:
            given = tuple(part.unsqueeze(1) if part.dim() else part for part in given)
        for part, size in zip(given, cell.state_sizes, strict=True):
            expected = (self.num_layers * self.directions, B, size)
            if tuple(part.shape) != expected:
                raise InputError(
                    f"an initial state has shape {tuple(part.shape)}; expected (layers·directions, B, H) = {expected}"
                )
        return given

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
        for name, usual in (("batch_first", False), ("dropout", 0.0), ("bidirectional", False)):
            if getattr(self, name) != usual:
                text += f", {name}={getattr(self, name)}"
        return text + f", engine={self.engine!r}"


class _InTorchsForm(Recurrent):
    """What RNN, LSTM and GRU share: torch's arguments, and weights from and to torch's layers."""

    kind: ClassVar[str]  # of the cells, as recipes call it
    torch_type: ClassVar[type[nn.RNN] | type[nn.LSTM] | type[nn.GRU]]

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
        options = {"bias": bias, "device": device, "dtype": dtype, **cell_options}
        kind = cell_type(self.kind)
        for name in options.keys() - inspect.signature(kind).parameters:
            known = inspect.signature(type(self)).parameters.keys() - {"cell_options", "unknown"}
            hint = "; there are no projections here" if name == "proj_size" else nearest(name, known)
            raise InputError(f"{type(self).__name__} has no argument {name!r}{hint}")
        cells = stack(kind, input_size, hidden_size, num_layers, 2 if bidirectional else 1, **options)
        super().__init__(cells, batch_first=batch_first, dropout=dropout, engine=engine)
        self.bias = bias

    def extra_repr(self) -> str:
        return super().extra_repr() + ("" if self.bias else ", bias=False")

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
                    cls._take_biases(cell, getattr(theirs, f"bias_ih_{suffix}"), getattr(theirs, f"bias_hh_{suffix}"))
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
                    self._give_bias(cell, getattr(theirs, f"bias_hh_{suffix}").zero_())
        return theirs.train(self.training)

    @staticmethod
    def _take_biases(cell: Any, of_x: Tensor, of_h: Tensor) -> None:
        """The two biases of a layer of torch's become ours."""
        cell.b.copy_(of_x + of_h)

    @staticmethod
    def _give_bias(cell: Any, of_h: Tensor) -> None:
        """What of our biases stands at h in torch's layer: nothing, unless the cell has one there."""

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


class RNN(_InTorchsForm):
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

    kind = "rnn"
    torch_type = nn.RNN

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
        **unknown: Any,
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
            **unknown,
        )
        self.nonlinearity = nonlinearity

    @staticmethod
    def _options_of(layer: nn.Module) -> dict[str, Any]:
        return {"nonlinearity": layer.nonlinearity}


class LSTM(_InTorchsForm):
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

    kind = "lstm"
    torch_type = nn.LSTM


class GRU(_InTorchsForm):
    """GRU layers; the equations are in `unroll.cells.gru`.

    Args and call as `torch.nn.GRU`: the input is (T, B, D), or (B, T, D) with `batch_first`, or (T, D) for one sequence, or a
    PackedSequence; the result is the outputs of the top layer (T, B, H·directions) and the last states
    (layers·directions, B, H). Integer inputs (T, B) are word indices and stand for one-hot vectors. With `lengths` (B,) the
    steps beyond a sequence's length change nothing and give output zero.

    >>> layer = GRU(28, 128)
    >>> outputs, h_n = layer(torch.zeros(28, 64, 28))
    >>> outputs.shape, h_n.shape
    (torch.Size([28, 64, 128]), torch.Size([1, 64, 128]))
    """

    kind = "gru"
    torch_type = nn.GRU

    @staticmethod
    def _take_biases(cell: Any, of_x: Tensor, of_h: Tensor) -> None:
        H = cell.hidden_size
        cell.b.copy_(of_x)
        cell.b[: 2 * H] += of_h[: 2 * H]
        cell.b_h.copy_(of_h[2 * H :])

    @staticmethod
    def _give_bias(cell: Any, of_h: Tensor) -> None:
        of_h[2 * cell.hidden_size :] = cell.b_h
