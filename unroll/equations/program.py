"""The step program: one time step of a cell as data.

A program is a list of nodes in the order in which they are computed. A node is a *row* value, one row of numbers for each
sequence of the batch, (B, n); or a *weight*, computed from parameters and constants alone, once for a whole scan.

    input, state        the rows that a step is given: features x_t and whatever else, the state before the step
    parameter, constant, number
    linear(v, M)        v Mᵀ for a row v (B, k) and a weight M (n, k)
    lookup(w, M)        row w_b of a weight M (V, n) for each word w (B,)
    slice, concat       columns of a row
    sum, max            over a row: (B, n) -> (B, 1)
    ELEMENTWISE         of rows of n columns or 1, weights (n,) and numbers
    stop                no gradient goes through

The backward step, which `unroll.equations.reverse` adds, has four more: gradient (of a part of the new state), linear_back
(d M for d (B, n) and M (n, k)), place (columns within a wider row of zeros) and widen (B, 1) -> (B, n).

Weights may be reshaped beside that: transpose, reshape, expand, and slice and concat over any axis.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from unroll.cells.base import Mask
from unroll.errors import InputError

VERSION = 1

# What each element-wise operation computes, in torch.
ELEMENTWISE: dict[str, Callable[..., Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "neg": torch.neg,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "exp": torch.exp,
    "log": torch.log,
    "sqrt": torch.sqrt,
    "abs": torch.abs,
    "sign": torch.sign,
    "sin": torch.sin,
    "cos": torch.cos,
    "softplus": torch.nn.functional.softplus,
    "log1p": torch.log1p,
    "expm1": torch.expm1,
    "erf": torch.erf,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "pow": torch.pow,
    "less": lambda a, b: (a < b).to(torch.result_type(a, b)),
    "equal": lambda a, b: (a == b).to(torch.result_type(a, b)),
    "where": lambda m, a, b: torch.where(m != 0, a, b),
    # Of the backward step: d times the derivative of σ, tanh and ReLU, told from their result y.
    "sigmoid_back": lambda d, y: d * y * (1 - y),
    "tanh_back": lambda d, y: d * (1 - y * y),
    "relu_back": lambda d, y: torch.where(y <= 0, 0, d),
}
LEAVES = ("input", "state", "parameter", "constant", "number", "gradient")


def broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape of an element-wise operation; torch's own function for it imports sympy, which takes half a second.

    Raises:
        ValueError: the shapes do not fit.
    """
    found = []
    for k in range(max(map(len, shapes), default=0), 0, -1):
        sizes = {shape[-k] for shape in shapes if len(shape) >= k} - {1}
        if len(sizes) > 1:
            raise ValueError(shapes)
        found.append(sizes.pop() if sizes else 1)
    return tuple(found)


class UnreadableError(Exception):
    """Why a cell is no step program; a sentence without its end."""


@dataclass(frozen=True, eq=False)
class Node:
    """One value of a program.

    Attributes:
        op: the operation.
        args: numbers of the nodes that it reads.
        of: what else it is told: bounds of a slice, the value of a number, the name of a parameter.
        shape: of a weight; (n,) of a row value (B, n).
        row: whether it is a row.
        name: what the author calls it, if anything.
        line: the author's file and line.
    """

    op: str
    args: tuple[int, ...]
    of: tuple[Any, ...]
    shape: tuple[int, ...]
    row: bool
    name: str | None = None
    line: str | None = None

    @property
    def width(self) -> int:
        """n of a row value (B, n)."""
        return self.shape[0]


@dataclass
class Program:
    """One time step.

    Attributes:
        nodes: in the order in which they are computed.
        inputs: widths of the rows that each step is given; the first is x_t, the last are the masks.
        states: widths of the state's tensors.
        new: the nodes of the state after the step.
        constants: tensors that the cell holds beside its parameters, by name.
        places: by the author's file and expression (lines and columns) the nodes of its value, in the order of the calls.
        state_names: what the state's tensors are called.
        masks: what the last of the inputs are drawn as.
        foreign: tensors that are neither parameters nor buffers of the cell, and what was read in them.
        initial: of each part of the state before the first step its node, a weight; none: all are zero.
    """

    inputs: tuple[int, ...]
    states: tuple[int, ...]
    nodes: list[Node] = field(default_factory=list)
    new: tuple[int, ...] = ()
    constants: dict[str, Tensor] = field(default_factory=dict)
    places: list[tuple[tuple[str, tuple[int, ...]], list[int]]] = field(default_factory=list, repr=False)
    state_names: tuple[str, ...] = ()
    masks: tuple[Mask, ...] = ()
    foreign: list[tuple[Tensor, Tensor]] = field(default_factory=list, repr=False)
    initial: tuple[int, ...] = ()
    _known: dict[tuple[Any, ...], int] = field(default_factory=dict, repr=False)

    # --- making one -----------------------------------------------------------------------------------------------

    def add(
        self,
        op: str,
        *args: int,
        of: tuple[Any, ...] = (),
        shape: tuple[int, ...] | None = None,
        line: str | None = None,
    ) -> int:
        """The number of a node; one that is there already where the same has been computed."""
        key = (op, args, of)
        if op == "number":
            key = (op, args, (repr(of[0]),))  # 0.0 and -0.0 are equal, and not the same
        if key in self._known:
            return self._known[key]
        simple = self._simplified(op, args)
        if simple is not None:
            return simple
        row = op in ("input", "state", "gradient") or any(self.nodes[n].row for n in args)
        node = Node(op, args, of, self._shape(op, args) if shape is None else shape, row, None, line)
        self.nodes.append(node)
        self._known[key] = len(self.nodes) - 1
        return len(self.nodes) - 1

    def number(self, value: float) -> int:
        return self.add("number", of=(float(value),), shape=())

    def slice(self, v: int, start: int, stop: int, line: str | None = None) -> int:
        """Columns of a row."""
        width = self.nodes[v].width
        if (start, stop) == (0, width):
            return v
        return self.add("slice", v, of=(-1, start, stop), shape=(stop - start,), line=line)

    def concat(self, parts: Sequence[int], line: str | None = None) -> int:
        """Rows side by side."""
        if len(parts) == 1:
            return parts[0]
        return self.add("concat", *parts, of=(-1,), shape=(sum(self.nodes[p].width for p in parts),), line=line)

    def label(self, n: int, name: str) -> int:
        """Keep what the author calls a node, and return it; the first name stays."""
        node = self.nodes[n]
        if node.name is None and node.op not in LEAVES:
            self.nodes[n] = replace(node, name=name)
        return n

    def value_of(self, n: int) -> float | None:
        """The value of a number, None of another node."""
        node = self.nodes[n]
        return node.of[0] if node.op == "number" else None

    def _simplified(self, op: str, args: tuple[int, ...]) -> int | None:
        """What stands for an operation that computes nothing, such as times one; of numbers alone their number."""
        if op in ELEMENTWISE and all(self.nodes[n].op == "number" for n in args):
            numbers = [torch.tensor(self.nodes[n].of[0], dtype=torch.float64, device="cpu") for n in args]
            return self.number(float(ELEMENTWISE[op](*numbers)))
        if op in ("add", "sub", "mul", "div"):
            a, b = args
            idle = 0.0 if op in ("add", "sub") else 1.0
            if self.value_of(b) == idle and self.nodes[a].op != "number":
                return a
            if op in ("add", "mul") and self.value_of(a) == idle and self.nodes[b].op != "number":
                return b
        if op == "neg" and self.nodes[args[0]].op == "neg":
            return self.nodes[args[0]].args[0]
        wide = [n for n in args if self.nodes[n].op == "widen"]
        if wide and op in ELEMENTWISE and all(n in wide or self.nodes[n].op == "number" for n in args):
            narrow = self.add(op, *(self.nodes[n].args[0] if n in wide else n for n in args))
            width = self.nodes[wide[0]].width
            return self.add("widen", narrow, of=(width,), shape=(width,))
        return None

    def _shape(self, op: str, args: tuple[int, ...]) -> tuple[int, ...]:
        shapes = [self.nodes[n].shape for n in args]
        if op in ELEMENTWISE or op == "stop":
            return broadcast(*shapes)
        if op == "linear":
            return (shapes[1][0],)
        if op == "lookup":
            return (shapes[1][1],)
        if op in ("sum", "max"):
            return (1,)
        raise AssertionError(op)

    def mask_of(self, n: int) -> int | None:
        """Which of the masks a node is; None of another node."""
        node = self.nodes[n]
        # Words are an input that is not among `inputs`.
        first = max(1, len(self.inputs) - len(self.masks))
        return node.of[0] - first if node.op == "input" and node.of[0] >= first else None

    # --- asking it ------------------------------------------------------------------------------------------------

    def needed(self, wanted: Sequence[int], known: Container[int] = ()) -> list[int]:
        """Those nodes that the wanted ones are computed from, and they themselves, in order; none behind a known one."""
        found, stack = set(wanted), list(wanted)
        while stack:
            n = stack.pop()
            if n in known:
                continue
            for a in self.nodes[n].args:
                if a not in found:
                    found.add(a)
                    stack.append(a)
        return sorted(found)

    def compute(
        self,
        values: dict[int, Tensor],
        wanted: Sequence[int],
        parameters: Mapping[str, Tensor],
        like: Tensor | None = None,
    ) -> None:
        """Fill in the wanted nodes and what they need, by torch's operations.

        Args:
            values: what is known already, such as inputs and states.
            parameters: tensors by name, and buffers that are to stand for what was read in them.
            like: a tensor of the type and on the device of constants; None: one of the values.
        """
        if like is None:
            like = next((value for value in values.values() if value.is_floating_point()), None)
        for n in self.needed(wanted, values):
            if n not in values:
                values[n] = self._value(self.nodes[n], values, parameters, like)

    def _value(
        self, node: Node, values: dict[int, Tensor], parameters: Mapping[str, Tensor], like: Tensor | None
    ) -> Tensor:
        args = [values[n] for n in node.args]
        op, of = node.op, node.of
        if op == "parameter":
            return parameters[of[0]]
        if op in ("constant", "number"):
            if op == "number":
                value = torch.tensor(of[0], dtype=torch.float64)
            else:
                value = parameters[of[0]] if of[0] in parameters else self.constants[of[0]]
            return value if like is None else value.to(like)
        if op in ELEMENTWISE:
            return ELEMENTWISE[op](*args)
        if op == "stop":
            return args[0].detach()
        if op == "linear":
            return args[0] @ args[1].T
        if op == "lookup":
            return torch.nn.functional.embedding(args[0], args[1])
        if op == "linear_back":
            return args[0] @ args[1]
        if op == "place":
            return torch.nn.functional.pad(args[0], (of[0], of[1] - of[0] - args[0].shape[-1]))
        if op == "widen":
            return args[0].expand(-1, of[0])
        if op == "sum":
            return args[0].sum(-1, keepdim=True)
        if op == "max":
            return args[0].amax(-1, keepdim=True)
        if op == "slice":
            axis, start, stop = of
            return args[0].narrow(axis, start, stop - start)
        if op == "concat":
            if node.row:  # a weight among rows is the same for all sequences
                batch = next(len(a) for a, n in zip(args, node.args, strict=True) if self.nodes[n].row)
                args = [a if self.nodes[n].row else a.expand(batch, -1) for a, n in zip(args, node.args, strict=True)]
            return torch.cat(args, of[0])
        if op == "transpose":
            return args[0].transpose(*of)
        if op == "reshape":
            return args[0].reshape(node.shape)
        if op == "expand":
            return args[0].expand(node.shape)
        raise AssertionError(op)

    def step(
        self, inputs: Sequence[Tensor], states: Sequence[Tensor], parameters: Mapping[str, Tensor]
    ) -> dict[int, Tensor]:
        """All values of one step; those of `new` are the state after it."""
        values: dict[int, Tensor] = {}
        for n, node in enumerate(self.nodes):
            if node.op in ("input", "state"):
                values[n] = (inputs if node.op == "input" else states)[node.of[0]]
        self.compute(values, self.new, parameters)
        return values

    # --- on paper -------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        from unroll.equations.formulas import text

        return text(self)

    def to_json(self) -> str:
        """What the new state is computed from, with the author's names; without the tensors of `constants`."""
        from unroll.equations.saved import to_data

        return json.dumps(to_data(self), allow_nan=False)

    @classmethod
    def from_json(cls, text: str, constants: Mapping[str, Tensor], parameters: Mapping[str, Sequence[int]]) -> Program:
        """The opposite of `to_json`: a program whose every node fits its operands.

        Args:
            constants: the tensors that it may name as constants.
            parameters: the shapes of the parameters that it may name.

        Raises:
            InputError: it is no program, or one of another version.
        """
        from unroll.equations.saved import from_data

        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            raise InputError("the step program is damaged: it is no JSON") from None
        return from_data(found, constants, parameters)

    def copy(self, constants: Mapping[str, Tensor]) -> Program:
        """The same program with nodes of its own, to which a backward step can be added.

        Args:
            constants: the tensors of its constants.
        """
        return replace(self, nodes=list(self.nodes), constants=dict(constants), _known=dict(self._known))
