"""Dropout in time, for any cell: zoneout, and dropout of what a step reads.

Each wraps a cell, and is one. Its random numbers are masks (`unroll.cells.base.Mask`), which the engine draws before a scan: the
same ones for every engine and for both directions of a pass, decided by `torch.manual_seed`. In evaluation nothing is drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from unroll.cells.base import Cell, Mask, State, as_cell, check_share, joined, parts
from unroll.errors import InputError


class Wrapper(Cell):
    """A cell around another one, with masks of its own beside that one's.

    Args:
        cell: a cell, or a module that computes one step (see `unroll.as_cell`).

    Raises:
        InputError: the module is no cell, or a share is not in [0, 1).
    """

    def __init__(self, cell: nn.Module, name: str) -> None:
        super().__init__()
        self.cell = as_cell(cell)
        self.input_size, self.state_sizes, self.state_names = (
            self.cell.input_size,
            self.cell.state_sizes,
            self.cell.state_names,
        )
        and_so = f" and {name}" if isinstance(self.cell, Wrapper) else f" with {name}"
        self.title, self.about = self.cell.title + and_so, self.cell.about + and_so

    @property
    def own(self) -> tuple[Mask, ...]:
        """The masks that this wrapper uses itself, in training."""
        raise NotImplementedError

    @property
    def masks(self) -> tuple[Mask, ...]:
        return (*(self.own if self.training else ()), *self.cell.masks)

    def parted(self, state: State, masks: Sequence[Tensor]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """This wrapper's values and the cell's; drawn here where a step is called without them.

        Raises:
            InputError: they are too many or too few.
        """
        wanted = self.masks
        if not masks:
            masks = [mask.draw(1, parts(state)[0])[0] for mask in wanted]
        if len(masks) != len(wanted):
            raise InputError(f"{type(self).__name__}.forward got {len(masks)} masks; expected {len(wanted)}")
        mine = len(wanted) - len(self.cell.masks)
        return masks[:mine], masks[mine:]

    def initial_state(self, batch_size: int) -> State:
        return self.cell.initial_state(batch_size)

    def initialise(self, how: str) -> None:
        self.cell.initialise(how)

    def set_bias(self, gate: str, value: float | Tensor) -> None:
        self.cell.set_bias(gate, value)


class Zoneout(Wrapper):
    """Zoneout: in training every unit of every state keeps its old value with probability p; in evaluation the mean stands.

        s_t = m_t ⊙ ŝ_t + (1 - m_t) ⊙ s_{t-1}     training: m_t is 0 with probability p, else 1, anew at each step
        s_t = (1 - p) ŝ_t + p s_{t-1}             evaluation

    ŝ_t is what the cell computes from x_t and the state before. Source: Krueger et al., "Zoneout: Regularizing RNNs by Randomly
    Preserving Hidden Activations", ICLR 2017 (arXiv:1606.01305, 2016), section 3.

    Args:
        cell: a cell, or a module that computes one step (see `unroll.as_cell`).
        share: p, for all tensors of the state or one for each, in the order of `state_names`.

    Raises:
        InputError: the module is no cell, or `share` does not fit.

    >>> import torch
    >>> cell = Zoneout(nn.GRUCell(28, 128), 0.1)
    >>> cell(torch.zeros(64, 28), cell.initial_state(64)).shape
    torch.Size([64, 128])
    """

    def __init__(self, cell: nn.Module, share: float | Sequence[float]) -> None:
        super().__init__(cell, "zoneout")
        each = tuple(share) if isinstance(share, list | tuple) else (share,) * len(self.state_sizes)
        if len(each) != len(self.state_sizes):
            names = ", ".join(self.state_names)
            raise InputError(f"share has {len(each)} numbers; expected one, or one for each state ({names})")
        self.share = tuple(check_share("share", one) for one in each)

    @property
    def own(self) -> tuple[Mask, ...]:
        return tuple(Mask(size, p) for size, p in zip(self.state_sizes, self.share, strict=True) if p > 0)

    def mixed(self, before: State, after: State, masks: Sequence[Tensor]) -> State:
        """New and old state, unit by unit."""
        values, found = iter(masks), []
        for old, new, p in zip(parts(before), parts(after), self.share, strict=True):
            if p == 0:
                found.append(new)
            elif self.training:
                m = next(values)
                found.append(m * new + (1 - m) * old)
            else:
                found.append((1 - p) * new + p * old)
        return joined(found)

    def forward(self, x: Tensor, state: Any, *masks: Tensor) -> Any:
        """x_t, the state before (B, size) each, masks (B, size) of the states with a share above 0 -> the state after."""
        mine, others = self.parted(state, masks)
        return self.mixed(state, self.cell(x, state, *others), mine)

    def quantities(self, x: Tensor, state: State) -> dict[str, Tensor]:
        found = self.cell.quantities(x, state)
        mine, _ = self.parted(state, ())
        new = self.mixed(state, joined([found[name] for name in self.state_names]), mine)
        return {**found, **dict(zip(self.state_names, parts(new), strict=True))}

    def extra_repr(self) -> str:
        return f"share={', '.join(f'{p:g}' for p in self.share)}"


class _Reading(Wrapper):
    """Dropout of what a step reads: x_t and h_{t-1}, divided by 1 - p where they are kept."""

    constant: bool
    name: str

    def __init__(self, cell: nn.Module, inputs: float, states: float) -> None:
        super().__init__(cell, self.name)
        self.inputs, self.states = inputs, states
        if inputs > 0 and self.input_size is None:
            raise InputError(
                f"{type(cell).__name__} does not say its input_size, the width of the inputs to be dropped"
            )

    @property
    def own(self) -> tuple[Mask, ...]:
        each = (self.input_size, self.inputs), (self.state_sizes[0], self.states)
        return tuple(Mask(size or 0, p, self.constant, scaled=True) for size, p in each if p > 0)

    def dropped(self, x: Tensor, state: State, masks: Sequence[Tensor]) -> tuple[Tensor, State]:
        """What the cell reads.

        Raises:
            InputError: x are words, and inputs are to be dropped.
        """
        values = iter(masks)
        x_kept, (h_kept, *others) = x, parts(state)
        if self.training and self.inputs > 0:
            if not x.is_floating_point():
                raise InputError(f"inputs is {self.inputs:g}, but x are words; drop states alone, or embed the words")
            x_kept = next(values) * x
        if self.training and self.states > 0:
            h_kept = next(values) * h_kept
        return x_kept, joined([h_kept, *others])

    def forward(self, x: Tensor, state: Any, *masks: Tensor) -> Any:
        """x_t (B, D), the state before, masks (B, D) and (B, H) where their shares are above 0 -> the state after."""
        mine, others = self.parted(state, masks)
        x, state = self.dropped(x, state, mine)
        return self.cell(x, state, *others)

    def quantities(self, x: Tensor, state: State) -> dict[str, Tensor]:
        mine, _ = self.parted(state, ())
        return self.cell.quantities(*self.dropped(x, state, mine))

    def extra_repr(self) -> str:
        return f"inputs={self.inputs:g}, states={self.states:g}"


class VariationalDropout(_Reading):
    """Variational dropout: in training a step reads m_x ⊙ x_t and m_h ⊙ h_{t-1}, with the same masks at every step.

    What is kept is divided by 1 - p, and in evaluation nothing is dropped. h is the first tensor of the state; others, such as c,
    pass. Every sequence of a batch has masks of its own. Source: Gal & Ghahramani, "A Theoretically Grounded Application of
    Dropout in Recurrent Neural Networks", NeurIPS 2016, section 4.

    This is meant for cells that read h_{t-1} in products with weights alone, as RNN and LSTM do. A GRU or MGU also carries h
    itself on, and what it carries is then dropped and scaled at every step; take `Zoneout` for those.

    Args:
        cell: a cell, or a module that computes one step (see `unroll.as_cell`).
        inputs: share of x_t that is dropped. x_t must be features; word indices cannot be dropped.
        states: share of h_{t-1} that is dropped.

    Raises:
        InputError: the module is no cell, does not say its input_size where `inputs` is above 0, or a share is not in [0, 1).

    >>> import torch
    >>> cell = VariationalDropout(nn.RNNCell(28, 128), inputs=0.2, states=0.3)
    >>> cell(torch.zeros(64, 28), cell.initial_state(64)).shape
    torch.Size([64, 128])
    """

    constant = True
    name = "variational dropout"

    def __init__(self, cell: nn.Module, inputs: float = 0.0, states: float = 0.0) -> None:
        super().__init__(cell, check_share("inputs", inputs), check_share("states", states))


class RecurrentDropout(_Reading):
    """Recurrent dropout: in training a step reads m_t ⊙ h_{t-1}, with a mask drawn anew at each step.

    What is kept is divided by 1 - p, and in evaluation nothing is dropped. Of the ways that Semeniuta, Severyn & Barth compare in
    "Recurrent Dropout without Memory Loss", COLING 2016, this is the one that any cell has: dropout of the hidden state, sampled
    per step. Their own, dropout of the candidate, needs a cell that has one. As `VariationalDropout` it is meant for cells that
    read h_{t-1} in products alone.

    Args:
        cell: a cell, or a module that computes one step (see `unroll.as_cell`).
        share: of h_{t-1} that is dropped.

    Raises:
        InputError: the module is no cell, or `share` is not in [0, 1).

    >>> import torch
    >>> cell = RecurrentDropout(nn.RNNCell(28, 128), 0.25)
    >>> cell(torch.zeros(64, 28), cell.initial_state(64)).shape
    torch.Size([64, 128])
    """

    constant = False
    name = "recurrent dropout"

    def __init__(self, cell: nn.Module, share: float) -> None:
        super().__init__(cell, 0.0, check_share("share", share))
