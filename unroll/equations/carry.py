"""A cell as step programs that outlive its source: what a file carries of a cell of one's own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from unroll.cells.base import AdaptedCell, Cell, parts
from unroll.equations.cell import ProgramCell
from unroll.equations.check import copies, differentiated, same, sample
from unroll.equations.program import Program, UnreadableError
from unroll.equations.read import READINGS, Reader, owned, read
from unroll.errors import InputError


def as_program(cell: Cell, words: bool = False) -> ProgramCell:
    """A cell as its step programs, on the same parameters, known to compute what the cell does.

    It has the cell's initial state too, and needs the cell's class no more. Where only the evaluation mode can be read, it has
    no program of training mode.

    Raises:
        UnreadableError: it is no step program.
    """
    if isinstance(cell, ProgramCell):
        return cell
    called = type(cell.module if isinstance(cell, AdaptedCell) else cell).__name__
    modes = [(part, part.training) for part in cell.modules()]
    programs: list[Program | None] = []
    try:
        for training in (False, True):
            cell.train(training)
            try:
                program = read(cell, words)
                _read_initial(cell, program)
                _keep_constants(program, "training" if training else "evaluation", dict(cell.named_buffers()))
                programs.append(program)
            except UnreadableError:
                if not training:
                    raise
                programs.append(None)
        evaluation, training_program = programs
        assert evaluation is not None
        # By way of the form that a file carries: what is trained now is what will be read then.
        try:
            data = ProgramCell(evaluation, training_program, dict(cell.named_parameters()), called=called).to_data()
            made = ProgramCell.from_data(data)
        except InputError as why:
            raise UnreadableError(str(why)) from None
        found = _filled(made, cell, evaluation.constants | (training_program.constants if training_program else {}))
        for training in (False, True) if training_program is not None else (False,):
            cell.train(training)
            _check_same(cell, found.train(training), words)
    finally:
        for part, mode in modes:
            part.training = mode
    return found.train(cell.training)


def _read_initial(cell: Cell, program: Program) -> None:
    """The cell's own initial state, as weights of the program; nothing where it is zero."""
    owner, usual = (cell.module, nn.Module) if isinstance(cell, AdaptedCell) else (cell, Cell)
    if getattr(type(owner), "initial_state", None) is getattr(usual, "initial_state", None):
        return
    if all(not part.requires_grad and not part.any() for part in parts(cell.initial_state(1))):
        return
    parameters, buffers = copies(cell)
    batch = READINGS[0][0]
    reader = Reader(program, batch, owned(parameters, buffers))
    begun = {f"cell.{name}": tensor for name, tensor in (parameters | buffers).items()}
    with torch.no_grad(), reader:
        state = torch.func.functional_call(_Beginning(cell), begun, (batch,))
    found = []
    for tensor, size in zip(parts(state), program.states, strict=True):
        node = reader.value(tensor).node
        if program.nodes[node].row or program.nodes[node].shape not in ((), (1,), (size,)):
            raise UnreadableError(f"{reader.line}: the initial state differs between the sequences of a batch")
        found.append(node)
    program.initial = tuple(found) if any(program.value_of(n) != 0 for n in found) else ()


class _Beginning(nn.Module):
    """The initial state as the forward of a module, which `functional_call` can call."""

    def __init__(self, cell: Cell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, batch_size: int) -> Any:
        return self.cell.initial_state(batch_size)


def _keep_constants(program: Program, mode: str, buffers: dict[str, Tensor]) -> None:
    """Names for constants that no buffer has, which differ between the modes."""
    constants: dict[str, Tensor] = {}
    for n, node in enumerate(program.nodes):
        if node.op != "constant":
            continue
        name = node.of[0]
        kept = name if name in buffers else f"{mode}_{name}"
        constants[kept] = program.constants[name].detach().to(torch.float64)
        if not bool(constants[kept].isfinite().all()):
            raise UnreadableError(f"the constant {name} holds what is no finite number")
        program.nodes[n] = replace(node, of=(kept,))
    program.constants = constants


def _filled(made: ProgramCell, cell: Cell, constants: dict[str, Tensor]) -> ProgramCell:
    """A cell made of data, with the parameters themselves of another one and with constants."""
    learnt = dict(cell.named_parameters())
    for name in list(dict(made.named_parameters())):
        path, _, last = name.rpartition(".")
        setattr(made.get_submodule(path), last, learnt[name])
    for name, buffer in made.named_buffers():
        buffer.copy_(constants[name])
    return made


def _check_same(cell: Cell, made: ProgramCell, words: bool) -> None:
    """Compare values and gradients of one step with the cell's own."""
    given = sample(cell, words)
    theirs = differentiated(cell, given, given.parameters.values())
    ours = differentiated(made, replace(given, buffers=copies(made)[1]), given.parameters.values())
    if not same(ours, theirs):
        raise UnreadableError(f"{made.called} and its step program compute different numbers")
