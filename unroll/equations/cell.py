"""A step program as a cell: its source need not be there any more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from unroll.cells.base import Cell, Mask, State, draw_masks, joined, parts, zero_state
from unroll.equations.program import LEAVES, Program
from unroll.equations.saved import LONGEST, from_data, to_data
from unroll.errors import InputError, quoted

MOST_TENSORS = 10_000  # of one cell


class ProgramCell(Cell):
    """A cell that computes its step programs, in plain torch.

    Args:
        evaluation: the program of evaluation mode.
        training: the program of training mode; None: there is none, and training mode is refused.
        tensors: the parameters, by the names that the programs have for them, and what else belongs to the cell.
        known: values of nodes, such as weights that need not be leaves.
        called: the cell's name in messages and reports.
    """

    def __init__(
        self,
        evaluation: Program,
        training: Program | None,
        tensors: Mapping[str, nn.Parameter] | None = None,
        known: Mapping[int, Tensor] | None = None,
        called: str = "recurrent cell",
    ) -> None:
        super().__init__()
        self.evaluation_program, self.training_program = evaluation, training
        self.known, self.called = dict(known or {}), called
        self.title, self.about = called, f"a recurrent network of the cell {called}"
        self.state_sizes, self.state_names = evaluation.states, evaluation.state_names
        self.whole = known is not None  # x holds all inputs side by side
        self.words = not self.whole and len(evaluation.inputs) == len(evaluation.masks)
        self.input_size = None if self.words else sum(evaluation.inputs) if self.whole else evaluation.inputs[0]
        constants = {} if known is not None else (training.constants if training else {}) | evaluation.constants
        for name, tensor in [*(tensors or {}).items(), *constants.items()]:
            _hang(self, name, tensor)

    @property
    def program(self) -> Program:
        """The program of the mode that the cell is in.

        Raises:
            InputError: there is none of training mode.
        """
        found = self.training_program if self.training else self.evaluation_program
        if found is None:
            raise InputError(f"{self.called} has a step program for evaluation only; it cannot be trained")
        return found

    @property
    def masks(self) -> tuple[Mask, ...]:
        """What a step of this mode needs beside x and the state."""
        return () if self.whole else self.program.masks

    @property
    def operations(self) -> int:
        """How many operations a step has, weights that are computed once for a whole scan not counted."""
        nodes = self.program.nodes
        return sum(nodes[n].row and nodes[n].op not in LEAVES for n in self.program.needed(self.program.new))

    def read(self, words: bool) -> Program | None:
        """A program of one's own to work with, as `unroll.equations.read` gives it; None where x is of the other kind."""
        return self.program.copy(dict(self.named_buffers())) if words == self.words else None

    def _values(self, x: Tensor, state: State, masks: tuple[Tensor, ...] = ()) -> dict[int, Tensor]:
        program, buffers, states = self.program, dict(self.named_buffers()), parts(state)
        if self.masks and not masks:
            masks = tuple(mask[0] for mask in draw_masks(self, 1, state))
        inputs = x.split(program.inputs, -1) if self.whole else (x, *masks)
        given = {"input": inputs, "state": states}
        values = {n: given[node.op][node.of[0]] for n, node in enumerate(program.nodes) if node.op in given}
        for n, node in enumerate(program.nodes):
            if node.op == "constant" and node.of[0] in buffers:
                values[n] = buffers[node.of[0]].to(states[0])
        values |= self.known
        program.compute(values, program.new, dict(self.named_parameters()), states[0])
        return values

    def forward(self, x: Tensor, state: Any, *masks: Tensor) -> Any:
        values = self._values(x, state, masks)
        return joined([values[n] for n in self.program.new])

    def initial_state(self, batch_size: int) -> State:
        program = self.program
        state = zero_state(self, self.state_sizes, batch_size)
        if not program.initial:
            return state
        values: dict[int, Tensor] = {}
        like, program = parts(state)[0], program.copy(dict(self.named_buffers()))
        program.compute(values, program.initial, dict(self.named_parameters()), like)
        return joined([values[n].expand(part.shape) for n, part in zip(program.initial, parts(state), strict=True)])

    # --- in a file --------------------------------------------------------------------------------------------------

    def to_data(self) -> dict[str, Any]:
        """What a file needs to hold beside the tensors; see `from_data`.

        Raises:
            InputError: a number in a program is NaN.
        """
        evaluation = to_data(self.evaluation_program)
        training = None if self.training_program is None else to_data(self.training_program)
        data: dict[str, Any] = {
            "cell": self.called,
            "parameters": {name: list(p.shape) for name, p in self.named_parameters()},
            "frozen": [name for name, p in self.named_parameters() if not p.requires_grad],
            "constants": {name: list(b.shape) for name, b in self.named_buffers()},
            "evaluation": evaluation,
        }
        if training != evaluation:
            data["training"] = training
        return data

    @classmethod
    def from_data(cls, data: Any) -> ProgramCell:
        """The cell that `to_data` describes; its tensors are zero.

        Raises:
            InputError: it describes none.
        """
        entries = {"cell", "parameters", "frozen", "constants", "evaluation"}
        if not isinstance(data, dict) or data.keys() - {"training"} != entries:
            raise InputError(f"the cell is {quoted(data)}; expected an object with {', '.join(sorted(entries))}")
        shapes = {kind: _shapes(kind, data[kind]) for kind in ("parameters", "constants")}
        called, frozen = data["cell"], data["frozen"]
        if not (isinstance(called, str) and called.isidentifier() and len(called) <= LONGEST):
            raise InputError(f"the cell's name is {quoted(called)}; expected the name of a class")
        if not isinstance(frozen, list) or not all(isinstance(n, str) and n in shapes["parameters"] for n in frozen):
            raise InputError(f"the cell's frozen parameters are {quoted(frozen)}; expected names of its parameters")
        parameters = {
            name: nn.Parameter(torch.zeros(shape), requires_grad=name not in frozen)
            for name, shape in shapes["parameters"].items()
        }
        constants = {name: torch.zeros(shape, dtype=torch.float64) for name, shape in shapes["constants"].items()}
        evaluation = from_data(data["evaluation"], constants, shapes["parameters"])
        training: Program | None = evaluation
        if "training" in data:
            found = data["training"]
            training = None if found is None else from_data(found, constants, shapes["parameters"])
        if training is not None and _asked(training) != _asked(evaluation):
            raise InputError("the cell's step programs for training and evaluation have other inputs or states")
        return cls(evaluation, training, parameters, called=called)


def _asked(program: Program) -> tuple[Any, ...]:
    """Widths of the features, none for words, and of the states."""
    return program.inputs[: len(program.inputs) - len(program.masks)], program.states


def _shapes(kind: str, found: Any) -> dict[str, tuple[int, ...]]:
    fits = isinstance(found, dict) and len(found) <= MOST_TENSORS
    if not fits or not all(
        isinstance(shape, list) and len(shape) <= 8 and all(type(n) is int and 0 <= n < 2**40 for n in shape)
        for shape in found.values()
    ):
        raise InputError(f"the cell's {kind} are {quoted(found)}; expected a shape for each name")
    return {name: tuple(shape) for name, shape in found.items()}


def _hang(cell: nn.Module, name: str, tensor: Tensor) -> None:
    """Give a module a tensor under a name such as ``module.norm.weight``; modules between are made."""
    *path, last = name.split(".")
    place = cell
    try:
        for part in path:
            if part not in dict(place.named_children()):
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        if isinstance(tensor, nn.Parameter):
            place.register_parameter(last, tensor)
        else:
            place.register_buffer(last, tensor)
    except (KeyError, AttributeError, TypeError):
        raise InputError(f"the cell has a tensor named {quoted(name)}, which its step program cannot have") from None
