"""The contract of a cell: a module that computes one time step. Everything that uses a cell asks for this and no more."""

from __future__ import annotations

import inspect
import numbers
import re
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from unroll.errors import InputError, quoted

State = Tensor | tuple[Tensor, ...]
"""What a cell hands from step to step: one tensor, or a tuple whose first entry is what the layer hands up."""


class Mask(NamedTuple):
    """Random numbers (B, width) that a step needs in training: 0 for what is dropped, and a positive number for what is kept.

    Attributes:
        width: columns.
        share: probability of a zero, in [0, 1).
        constant: one draw for all steps of a sequence; else anew at each step.
        scaled: what is kept is 1 / (1 - share), so that the mean is 1; else it is 1.
    """

    width: int
    share: float
    constant: bool = False
    scaled: bool = False

    @property
    def kept(self) -> float:
        """The number that stands for what is kept."""
        return 1 / (1 - self.share) if self.scaled else 1.0

    def draw(self, T: int, like: Tensor) -> Tensor:
        """(T, B, width) by torch's generator, of the type and on the device of `like` (B, …); constant ones are not copied.

        Raises:
            InputError: the share is not in [0, 1).
        """
        check_share("the share of a mask", self.share)
        drawn = like.new_empty(1 if self.constant else T, len(like), self.width).bernoulli_(1 - self.share)
        return (drawn * self.kept if self.scaled else drawn).expand(T, -1, -1)


class Cell(nn.Module):
    """One time step of a recurrent network; parameters of any names.

    Attributes:
        input_size: D features of x_t, or V words where x_t is a word index; None where the cell does not say.
        state_sizes: units of each tensor of a state. The first is what the layer hands up.
        state_names: the letters of those tensors, such as ``("h", "c")``.
        gate_names: the gates whose bias `set_bias` can set.
        title: name of the cell in reports.
        about: the same in a sentence, with its article.
        explained: what its gates are for, in a sentence that ends where the formulas begin; with LaTeX between dollar signs.
        meanings: what its quantities are, by their names, such as ``{"f": "forget gate: share of c that is kept"}``.
    """

    input_size: int | None
    state_sizes: tuple[int, ...]
    state_names: tuple[str, ...]
    title: str = "recurrent cell"
    about: str = "a recurrent network"
    gate_names: ClassVar[tuple[str, ...]] = ()
    explained: ClassVar[str] = ""
    meanings: ClassVar[Mapping[str, str]] = {}

    @property
    def masks(self) -> tuple[Mask, ...]:
        """What a step needs beside x and the state, in the mode (training or evaluation) that the cell is in.

        An engine draws the masks of a whole scan before it begins, in this order, and hands each step its own: forward takes
        them (B, width) as further arguments, and draws them itself where it is called without.
        """
        return ()

    def forward(self, x: Tensor, state: Any) -> Any:
        """x_t (B, D) or word indices (B,), the state before -> the state after."""
        raise NotImplementedError

    def initial_state(self, batch_size: int) -> State:
        """The state before the first step: zeros, unless the cell says otherwise."""
        return zero_state(self, self.state_sizes, batch_size)

    def initialise(self, how: str) -> None:
        """Draw the parameters anew, in cells that have a choice of how; others keep what they were made with."""

    def set_bias(self, gate: str, value: float | Tensor) -> None:
        """Set the bias of one gate; a cell without this gate, or without biases, stays as it is."""

    def quantities(self, x: Tensor, state: State) -> dict[str, Tensor]:
        """Everything with a name that a step computes, in the order of the equations; the new state is among it.

        Of a cell that does not say, the new state alone; `unroll.insight.trace` then takes the names from its source.
        """
        return dict(zip(self.state_names, parts(self(x, state)), strict=True))

    @property
    def hidden_size(self) -> int:
        """H, the units that the layer hands up."""
        return self.state_sizes[0]


def check_size(name: str, size: object) -> None:
    """Raise InputError unless `size` is a whole number of at least 1."""
    if not isinstance(size, numbers.Integral) or isinstance(size, bool) or size < 1:
        raise InputError(f"{name} is {quoted(size)}; expected a whole number of at least 1")


def check_share(name: str, share: object) -> float:
    """A share as a float.

    Raises:
        InputError: it is no number in [0, 1).
    """
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise InputError(f"{name} is {quoted(share)}; expected a share in [0, 1)")
    return float(share)


def draw_masks(cell: Cell, T: int, state: State) -> list[Tensor]:
    """The masks (T, B, width) of a scan over T steps that begins with `state`."""
    return [mask.draw(T, parts(state)[0]) for mask in cell.masks]


def parts(state: State) -> tuple[Tensor, ...]:
    """The tensors of a state, as a tuple."""
    return (state,) if isinstance(state, Tensor) else state


def joined(tensors: Sequence[Tensor]) -> State:
    """The opposite of `parts`: a single tensor stands for itself."""
    return tensors[0] if len(tensors) == 1 else tuple(tensors)


def zero_state(module: nn.Module, sizes: Sequence[int], batch_size: int) -> State:
    """Zeros (B, size) for each size, of the module's type and on its device."""
    like = getattr(module, "W", None)  # asking all parameters takes longer than a short scan
    if not isinstance(like, nn.Parameter):
        like = next(chain(module.parameters(), module.buffers()), torch.empty(0))
    made = {size: like.new_zeros(batch_size, size) for size in sizes}
    return joined([made[size] for size in sizes])


class AdaptedCell(Cell):
    """A module of any author's as a cell; made by `as_cell`."""

    def __init__(self, module: nn.Module, state_sizes: tuple[int, ...], state_names: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.title = type(module).__name__
        self.about = f"a recurrent network of the cell {self.title}"
        self.state_sizes, spread = state_sizes, len(state_names) > 1
        self.state_names = ("h", "c", *(f"state_{n}" for n in range(2, len(state_sizes))))[: len(state_sizes)]
        if len(state_names) == len(state_sizes):  # forward has an argument for each
            self.state_names = tuple(
                _plain_name(name, usual) for name, usual in zip(state_names, self.state_names, strict=True)
            )
        self.input_size = getattr(module, "input_size", None)
        self.spread = spread

    def forward(self, x: Tensor, state: Any) -> Any:
        before = parts(state)
        after = self.module(x, *before) if self.spread else self.module(x, state)
        found = after if isinstance(after, tuple) else (after,)
        fits = [getattr(new, "shape", None) for new in found] == [s.shape for s in before]
        if not fits:
            shown = [tuple(new.shape) if isinstance(new, Tensor) else type(new).__name__ for new in found]
            raise InputError(
                f"{place_of(self)} returned {shown}; expected the new state, "
                f"{[tuple(s.shape) for s in before]}, the shapes that it was given"
            )
        return joined(found)

    def initial_state(self, batch_size: int) -> State:
        own = getattr(self.module, "initial_state", None)
        if own is None:
            return zero_state(self.module, self.state_sizes, batch_size)
        state = own(batch_size)
        found = (state,) if isinstance(state, Tensor) else state
        if not isinstance(found, tuple | list) or not all(isinstance(part, Tensor) for part in found):
            raise InputError(
                f"{self.title}.initial_state returned {quoted(state)}; expected a tensor (B, H), or a tuple of them"
            )
        if len(found) != len(self.state_sizes):
            raise InputError(
                f"{self.title}.initial_state returned {len(found)} tensors; expected {len(self.state_sizes)}"
            )
        return joined(found) if len(found) == 1 else tuple(found)


def _plain_name(argument: str, usual: str) -> str:
    """The name of a state from that of an argument such as ``h_prev``; the usual one where it says nothing."""
    name = re.sub("^(prev|previous|old|last)_|_(prev|previous|old|last|t)$", "", argument)
    return usual if name in ("state", "hidden", "hx", "cx", "") else name


def place_of(cell: Cell) -> str:
    """The author's class and where its forward stands: ``Own.forward (own.py:12)``."""
    kind = type(cell.module) if isinstance(cell, AdaptedCell) else type(cell)
    code = getattr(kind.forward, "__code__", None)
    return f"{kind.__name__}.forward" + ("" if code is None else f" ({code.co_filename}:{code.co_firstlineno})")


def as_cell(module: nn.Module, state_sizes: int | Sequence[int] | None = None) -> Cell:
    """A module that computes one step as a cell.

    Its forward may be ``forward(x, h)``, ``forward(x, h, c)`` or ``forward(x, (h, c))``, and returns the new state in the same
    form. The initial state is zeros, or what the module's own ``initial_state(batch_size)`` returns.

    Args:
        module: one time step; a `Cell` is returned as it is.
        state_sizes: units of each tensor of the state. None: the module's `hidden_size`, once for each argument of forward
            after x.

    Raises:
        InputError: the module's forward takes other arguments, or the sizes are not known.

    >>> as_cell(nn.GRUCell(3, 5))(torch.zeros(2, 3), torch.zeros(2, 5)).shape
    torch.Size([2, 5])
    """
    if isinstance(module, Cell):
        return module
    if not isinstance(module, nn.Module):
        raise InputError(f"the cell is {quoted(module)}; expected a module that computes one time step")
    name = type(module).__name__
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    arguments = [
        p
        for p in inspect.signature(module.forward).parameters.values()
        if p.kind in positional and p.default in (inspect.Parameter.empty, None)  # others are options
    ]
    state_names = [argument.name for argument in arguments[1:]]
    states = len(state_names)
    if states < 1:
        raise InputError(f"{name}.forward takes {len(arguments)} arguments; expected x and the state before the step")
    if state_sizes is None:
        hidden_size = getattr(module, "hidden_size", None)
        if hidden_size is None:
            raise InputError(f"{name} has no hidden_size; give state_sizes, such as (128,) or (128, 128)")
        check_size(f"{name}.hidden_size", hidden_size)
        state_sizes = (hidden_size,) * (2 if isinstance(module, nn.LSTMCell) else states)
    given = (
        tuple(state_sizes) if isinstance(state_sizes, Sequence) and not isinstance(state_sizes, str) else (state_sizes,)
    )
    for size in given:
        check_size("a size of state_sizes", size)
    sizes = tuple(int(size) for size in given)
    if not sizes or states not in (1, len(sizes)):
        raise InputError(
            f"state_sizes is {sizes}, but {name}.forward takes {states} tensors after x; expected one size for each"
        )
    return AdaptedCell(module, sizes, state_names)
