"""Step programs as data that a file can carry, and back: nothing that is read is believed.

    {"version": 1, "inputs": [28], "states": [64, 64], "state_names": ["h", "c"], "masks": [], "nodes": [...],
     "new": [9, 8], "initial": []}

A node is ``[op, args, of, name, line]``; its shape, and whether it is a row, follow from its operands.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

import torch

from unroll.cells.base import Mask, check_share
from unroll.equations.program import ELEMENTWISE, VERSION, Node, Program, broadcast
from unroll.errors import InputError, quoted

MOST_NODES = 20_000
LARGEST_WIDTH = 1_000_000  # columns of a row
LARGEST = 100_000_000  # numbers of a weight, and ten times as many of all weights together
MOST_WRITTEN = 100_000  # operations of one formula
DEEPEST = 200  # operations within each other in one formula
LONGEST = 200  # characters of a name or line
_BACK = ("sigmoid_back", "tanh_back", "relu_back")  # which only `unroll.equations.reverse` adds

Shape = tuple[int, ...]


def to_data(program: Program) -> dict[str, Any]:
    """What a program computes its new state from, with the author's names; without the tensors of `constants`.

    Raises:
        InputError: a number of it is NaN, or `from_data` would refuse it as too large.
    """
    from unroll.equations.names import author_names

    names, order = author_names(program), program.needed((*program.new, *program.initial))
    place = {n: k for k, n in enumerate(order)}
    nodes = []
    for n in order:
        node = program.nodes[n]
        of = [_number_text(node.of[0])] if node.op == "number" else list(node.of)
        name = names.get(n) if node.row else None
        line = None if node.line is None else PurePath(node.line).name[-LONGEST:]  # the folder is the author's alone
        line = line if line is not None and line.isprintable() else None
        nodes.append([node.op, [place[a] for a in node.args], of, name, line])
    return {
        "version": VERSION,
        "inputs": list(program.inputs),
        "states": list(program.states),
        "state_names": list(program.state_names),
        "masks": [list(mask) for mask in program.masks],
        "nodes": nodes,
        "new": [place[n] for n in program.new],
        "initial": [place[n] for n in program.initial],
    }


def _number_text(value: float) -> float | str:
    if value != value:
        raise InputError("the step program holds a number that is NaN")
    return value if math.isfinite(value) else str(value)  # JSON has no infinity


def from_data(found: Any, constants: Mapping[str, torch.Tensor], parameters: Mapping[str, Sequence[int]]) -> Program:
    """The opposite of `to_data`.

    Args:
        constants: the tensors that the program may name as constants.
        parameters: the shapes of the parameters that it may name.

    Raises:
        InputError: it is no program, or one of another version.
    """
    try:
        if not isinstance(found, dict):
            raise _DamageError(f"it is {quoted(found)}; expected an object")
        if found.get("version") != VERSION or type(found["version"]) is not int:
            raise InputError(f"the step program is of version {quoted(found.get('version'))}; expected {VERSION}")
        return _Builder(found, constants, parameters).program
    except _DamageError as damage:
        raise InputError(f"the step program is damaged: {damage}") from None


class _DamageError(Exception):
    """What is wrong with a program."""


class _Builder:
    """Builds a program node by node; each is given the shape that its operands ask for."""

    def __init__(
        self,
        found: dict[str, Any],
        constants: Mapping[str, torch.Tensor],
        parameters: Mapping[str, Sequence[int]],
    ) -> None:
        entries = {"version", "inputs", "states", "state_names", "masks", "nodes", "new", "initial"}
        if found.keys() != entries:
            raise _DamageError(f"entries {quoted(sorted(found.keys() ^ entries))} are missing or unknown")
        inputs, states = _sizes(found["inputs"], "inputs"), _sizes(found["states"], "states")
        masks = _masks(found["masks"])
        features = len(inputs) - len(masks)
        if features not in (0, 1) or not states or inputs[features:] != tuple(mask.width for mask in masks):
            raise _DamageError(
                f"it has inputs {quoted(inputs)}, masks {quoted(found['masks'])} and {len(states)} states"
            )
        self.words = not features
        names = _list(found["state_names"], "state_names")
        if len(names) != len(states) or len(set(map(str, names))) != len(names) or None in map(_name, names):
            raise _DamageError(f"state_names are {quoted(names)}")
        self.constants, self.parameters = constants, parameters
        self.program = Program(inputs, states, constants=dict(constants), state_names=tuple(names), masks=masks)
        self.numbers = 0
        nodes = _list(found["nodes"], "nodes")
        if len(nodes) > MOST_NODES:
            raise _DamageError(f"it has {len(nodes)} nodes; expected at most {MOST_NODES}")
        for n, node in enumerate(nodes):
            try:
                self._add(node)
            except _DamageError as damage:
                raise _DamageError(f"node {n}: {damage}") from None
        self.program.new = self._chosen(found["new"], "new", len(states))
        for k, n in enumerate(self.program.new):
            if not self.program.nodes[n].row or self.program.nodes[n].shape != (states[k],):
                raise _DamageError(f"state {k} is made a value of shape {self.program.nodes[n].shape}")
        self.program.initial = self._chosen(found["initial"], "initial", len(states) if found["initial"] else 0)
        for k, n in enumerate(self.program.initial):
            if self.program.nodes[n].row or self.program.nodes[n].shape not in ((), (1,), (states[k],)):
                raise _DamageError(f"state {k} begins with a value of shape {self.program.nodes[n].shape}")
        self._check_length()

    def _chosen(self, found: Any, what: str, count: int) -> tuple[int, ...]:
        chosen = _list(found, what)
        if len(chosen) != count or not all(type(n) is int and 0 <= n < len(self.program.nodes) for n in chosen):
            raise _DamageError(f"{what} is {quoted(found)}")
        return tuple(chosen)

    def _add(self, given: Any) -> None:
        program = self.program
        if not isinstance(given, list) or len(given) != 5:
            raise _DamageError(f"it is {quoted(given)}")
        op, args, of, name, line = given
        args, of = tuple(_list(args, "args")), tuple(_list(of, "of"))
        if not all(type(a) is int and 0 <= a < len(program.nodes) for a in args):
            raise _DamageError(f"its operands are {quoted(args)}; expected nodes before it")
        if name is not None and _name(name) is None:
            raise _DamageError(f"its name is {quoted(name)}")
        if line is not None and not (isinstance(line, str) and line.isprintable() and len(line) <= LONGEST):
            raise _DamageError(f"its line is {quoted(line)}")
        operands = [program.nodes[a] for a in args]
        row = op in ("input", "state") or any(node.row for node in operands)
        if op == "number":
            of = _number(of)
        shape = self._shape(op, operands, of, row)
        if any(type(size) is not int or size < 1 for size in shape):
            raise _DamageError(f"its shape would be {quoted(shape)}")
        if row and shape[0] > LARGEST_WIDTH:
            raise _DamageError(f"it has {shape[0]} columns; expected at most {LARGEST_WIDTH}")
        if not row:
            self.numbers += (count := math.prod(shape))
            if count > LARGEST or self.numbers > 10 * LARGEST:
                raise _DamageError(f"a weight of shape {quoted(shape)} is too large")
        count, n = len(program.nodes), program.add(op, *args, of=of, shape=shape, line=line)
        if n != count:
            raise _DamageError(f"{op} is there already, or computes nothing")
        program.nodes[n] = replace(program.nodes[n], name=name)

    def _shape(self, op: Any, args: list[Node], of: tuple[Any, ...], row: bool) -> Shape:
        """The shape of an operation's value, once its operands are known to fit."""
        if not isinstance(op, str) or (op not in _EXPECTED and (op not in ELEMENTWISE or op in _BACK)):
            raise _DamageError(f"{quoted(op)} is no operation")
        count, told = _EXPECTED.get(op, (None, 0))
        wrong = (count is not None and len(args) != count) or (told is not None and len(of) != told)
        if wrong or (op == "concat" and not args):
            raise _DamageError(f"{op} has {len(args)} operands and is told {quoted(of)}")
        shapes = [node.shape for node in args]
        if op in ELEMENTWISE or op == "stop":
            return _broadcast(op, args, row)
        if op == "number":
            return ()
        if op in ("input", "state"):
            words = (1,) if self.words else ()  # which are no row of features
            sizes = (*words, *self.program.inputs) if op == "input" else self.program.states
            return (sizes[_whole(of[0], 0, len(sizes) - 1)],)
        if op in ("parameter", "constant"):
            return self._tensor_shape(op, of[0])
        fitting: dict[str, Callable[..., bool]] = {
            "linear": lambda v, M: v.row and not M.row and len(M.shape) == 2 and M.shape[1:] == v.shape,
            "lookup": lambda w, M: w.op == "input" and self.words and w.of == (0,) and not M.row and len(M.shape) == 2,
            "sum": lambda v: len(v.shape) == 1,
            "max": lambda v: len(v.shape) == 1,
            "transpose": lambda M: not M.row and len(M.shape) == 2 and of == (0, 1),
            "reshape": lambda M: not M.row and math.prod(M.shape) == math.prod(_sizes(list(of), op)),
            "expand": lambda M: not M.row and _expands(M.shape, _sizes(list(of), op)),
        }
        if op in fitting and not fitting[op](*args):
            raise _DamageError(f"{op} of shapes {quoted(shapes)} does not fit")
        if op in ("linear", "lookup"):
            return (shapes[1][op == "lookup"],)
        if op in ("sum", "max"):
            return (1,)
        if op == "transpose":
            return shapes[0][::-1]
        if op in ("reshape", "expand"):
            return of
        axis = 0 if row else _whole(of[0], 0, max(len(shapes[0]) - 1, 0))
        if (row and of[0] != -1) or any(len(shape) != len(shapes[0]) or not shape for shape in shapes):
            raise _DamageError(f"{op} of shapes {quoted(shapes)} along axis {quoted(of[0])} does not fit")
        before, after = shapes[0][:axis], shapes[0][axis + 1 :]
        if op == "slice":
            start = _whole(of[1], 0, shapes[0][axis] - 1)
            return (*before, _whole(of[2], start + 1, shapes[0][axis]) - start, *after)
        if any((shape[:axis], shape[axis + 1 :]) != (before, after) for shape in shapes):
            raise _DamageError(f"concat of shapes {quoted(shapes)} along axis {axis} does not fit")
        return (*before, sum(shape[axis] for shape in shapes), *after)

    def _tensor_shape(self, op: str, name: Any) -> Shape:
        if op == "constant" and isinstance(name, str) and name in self.constants:
            return tuple(self.constants[name].shape)
        if op == "parameter" and isinstance(name, str) and name in self.parameters:
            return tuple(self.parameters[name])
        raise _DamageError(f"the cell has no {op} {quoted(name)}")

    def _check_length(self) -> None:
        """Refuse what would be a formula without end: a value that is used twice is written twice, if it has no name."""
        program = self.program
        uses = Counter(a for node in program.nodes for a in node.args)
        length, depth = [0] * len(program.nodes), [0] * len(program.nodes)
        for n, node in enumerate(program.nodes):
            length[n] = 1 + sum(length[a] for a in node.args)
            depth[n] = 1 + max((depth[a] for a in node.args), default=0)
            if length[n] > MOST_WRITTEN or depth[n] > DEEPEST:
                raise _DamageError(f"node {n}: its formula is too long; expected names between, in the author's code")
            named = node.name is not None or (uses[n] > 1 and node.op not in ("slice", "concat"))
            if node.row and named:
                length[n] = depth[n] = 1


# How many operands each operation has, and of how many things it is told; None: any number.
_EXPECTED: dict[str, tuple[int | None, int | None]] = {
    **dict.fromkeys(("input", "state", "parameter", "constant", "number"), (0, 1)),
    **dict.fromkeys(("linear", "lookup"), (2, 0)),
    **dict.fromkeys(("sum", "max", "stop"), (1, 0)),
    **dict.fromkeys(("reshape", "expand"), (1, None)),
    "slice": (1, 3),
    "concat": (None, 1),
    "transpose": (1, 2),
}
_OPERANDS = {
    **dict.fromkeys(("add", "sub", "mul", "div", "maximum", "minimum", "pow", "less", "equal"), 2),
    "where": 3,
}  # of element-wise operations; all others have one


def _broadcast(op: str, args: list[Node], row: bool) -> Shape:
    """The shape of an element-wise operation: rows meet rows of as many columns or of one, weights (n,) and numbers."""
    if len(args) != _OPERANDS.get(op, 1):
        raise _DamageError(f"{op} has {len(args)} operands")
    shapes = [node.shape for node in args]
    try:
        found = broadcast(*shapes)
    except ValueError:
        raise _DamageError(f"{op} of shapes {quoted(shapes)} does not fit") from None
    if row and len(found) != 1:
        raise _DamageError(f"{op} of shapes {quoted(shapes)} is no row")
    return found


def _expands(shape: Shape, to: Shape) -> bool:
    tail = to[len(to) - len(shape) :]
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(shape, tail, strict=True))


def _number(of: tuple[Any, ...]) -> tuple[float]:
    (value,) = of if len(of) == 1 else (None,)
    if value in ("inf", "-inf"):
        return (float(value),)
    if type(value) is not float or not math.isfinite(value):
        raise _DamageError(f"its number is {quoted(value)}")
    return (value,)


def _list(found: Any, what: str) -> list[Any]:
    if not isinstance(found, list):
        raise _DamageError(f"{what} is {quoted(found)}; expected a list")
    if any(isinstance(one, list | dict) for one in found) and what != "nodes":
        raise _DamageError(f"{what} is {quoted(found)}")
    return found


def _sizes(found: Any, what: str) -> Shape:
    return tuple(_whole(size, 1, LARGEST) for size in _list(found, what))


def _masks(found: Any) -> tuple[Mask, ...]:
    masks = []
    for one in found if isinstance(found, list) else [found]:
        if not (isinstance(one, list) and len(one) == 4 and type(one[2]) is bool and type(one[3]) is bool):
            raise _DamageError(f"a mask is {quoted(one)}")
        try:
            check_share("the share of a mask", one[1])
        except InputError as why:
            raise _DamageError(str(why)) from None
        masks.append(Mask(_whole(one[0], 1, LARGEST_WIDTH), float(one[1]), one[2], one[3]))
    return tuple(masks)


def _whole(found: Any, least: int, most: int) -> int:
    if type(found) is not int or not least <= found <= most:
        raise _DamageError(f"{quoted(found)} stands where a whole number from {least} to {most} is expected")
    return found


def _name(found: Any) -> str | None:
    return found if isinstance(found, str) and found.isidentifier() and len(found) <= LONGEST else None
