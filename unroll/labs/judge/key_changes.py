"""Programs that differ from a key's in one operation: what a faulty step may compute instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unroll.equations.program import Program

ACTIVATIONS = ("sigmoid", "tanh", "relu")
_ORDER = ("key-activation", "key-sign", "key-left-out", "key-operation", "key-operand", "key-order", "key-added")
Make = Callable[["Program", dict[int, int], int], int]


@dataclass(frozen=True)
class Change:
    """A change of a program at one node.

    Attributes:
        code: of the problem that it is.
        node: of the program before.
        make: by the new program, its nodes by those before, and the node as it was, the node that stands there instead.
        forces: the argument of an activation that is left out is looked for all the same.
    """

    code: str
    node: int
    make: Make
    forces: bool = False

    def applied(self, program: Program, names: Mapping[int, str]) -> tuple[Program, frozenset[int]] | None:
        """The changed program, and arguments that no activation follows; None where nothing is changed by it.

        Args:
            names: of the program's nodes, by `unroll.equations.names.author_names`.
        """
        from unroll.equations.program import Program as New

        made = New(program.inputs, program.states, state_names=program.state_names, masks=program.masks)
        made.constants = program.constants
        at, forced = dict[int, int](), frozenset[int]()
        for n in range(len(program.nodes)):
            node = program.nodes[n]
            args = tuple(at[a] for a in node.args)
            at[n] = made.add(node.op, *args, of=node.of, shape=node.shape)
            if n == self.node:
                try:
                    new = self.make(made, at, at[n])
                except ValueError:  # shapes that do not fit each other
                    return None
                if new == at[n]:
                    return None
                at[n] = new
                forced = frozenset({new}) if self.forces else forced
            if n in names:
                made.label(at[n], names[n])
        made.new = tuple(at[n] for n in program.new)
        return made, forced


def changes(program: Program) -> list[Change]:
    """The single changes of a program, the likeliest mistakes first."""
    found = [change for n in program.needed(program.new) for change in _at(program, n)]
    return sorted(found, key=lambda change: _ORDER.index(change.code))


def _at(program: Program, n: int) -> Iterator[Change]:
    node = program.nodes[n]
    if not node.row:
        return
    op, args = node.op, node.args
    if op in ACTIVATIONS:
        for other in ACTIVATIONS:
            if other != op:
                yield Change("key-activation", n, _as(other, *args))
        yield Change("key-activation", n, _instead(args[0]), forces=True)
    if op in ("add", "sub"):
        a, b = args
        yield Change("key-sign", n, _as("sub" if op == "add" else "add", a, b))
        if op == "add":
            yield Change("key-sign", n, _as("sub", b, a))
        yield Change("key-left-out", n, _instead(a))
        yield Change("key-left-out", n, _instead(b) if op == "add" else _as("neg", b))
        yield Change("key-operation", n, _as("mul", a, b))
    if op == "mul":
        a, b = args
        yield Change("key-left-out", n, _instead(a))
        yield Change("key-left-out", n, _instead(b))
        yield Change("key-operation", n, _as("add", a, b))
    if op in ("add", "sub", "mul", "linear", *ACTIVATIONS):
        yield from _operands(program, n)
    yield from _moved(program, n)
    if n in program.new or op in ("add", "linear"):
        yield from _more(program, n)


def _as(op: str, *args: int) -> Make:
    return lambda new, at, _: new.add(op, *(at[a] for a in args))


def _instead(a: int) -> Make:
    return lambda new, at, _: at[a]


def _atoms(program: Program, before: int) -> list[int]:
    """States, values of activations and new states: what a student has names for."""
    activations = [n for n, node in enumerate(program.nodes[:before]) if node.op in ACTIVATIONS]
    states = [n for n, node in enumerate(program.nodes[:before]) if node.op == "state"]
    shares = [
        n for n, node in enumerate(program.nodes[:before])
        if node.op == "sub" and program.value_of(node.args[0]) == 1 and node.args[1] in activations
    ]  # 1 - z  # fmt: skip
    return list(dict.fromkeys([*states, *activations, *shares, *(n for n in program.new if n < before)]))


def _operands(program: Program, n: int) -> Iterator[Change]:
    node, atoms = program.nodes[n], _atoms(program, n)
    for k, a in enumerate(node.args):
        if a not in atoms:
            continue
        for b in atoms:
            if b == a or program.nodes[b].shape != program.nodes[a].shape:
                continue
            yield Change("key-operand", n, _with(program, n, k, b))
        if node.op == "mul" and program.nodes[a].op == "sigmoid":
            yield Change("key-operand", n, _turned(program, n, k, a))


def _with(program: Program, n: int, k: int, b: int) -> Make:
    node = program.nodes[n]
    return lambda new, at, _: new.add(
        node.op, *(at[b if j == k else a] for j, a in enumerate(node.args)), of=node.of, shape=node.shape
    )


def _turned(program: Program, n: int, k: int, a: int) -> Make:
    """A gate by one minus itself."""
    node = program.nodes[n]

    def make(new: Program, at: dict[int, int], _: int) -> int:
        share = new.add("sub", new.number(1.0), at[a])
        return new.add(node.op, *(share if j == k else at[b] for j, b in enumerate(node.args)))

    return make


def _moved(program: Program, n: int) -> Iterator[Change]:
    """A gate that is applied before a product of weights, and not after it, or the other way round."""
    node = program.nodes[n]
    if node.op == "add":  # a + g ⊙ b by g ⊙ (a + b)
        for other, scaled in (node.args, node.args[::-1]):
            if program.nodes[scaled].op == "mul":
                for gate, rest in (program.nodes[scaled].args, program.nodes[scaled].args[::-1]):
                    yield Change("key-order", n, _outside(gate, other, rest))
    if node.op == "mul":
        for gate, product in (node.args, node.args[::-1]):
            inner = product
            while program.nodes[inner].op in ("add", "slice"):
                inner = program.nodes[inner].args[0]
            fits = program.nodes[inner].op == "linear" and program.nodes[gate].row
            if fits and program.nodes[gate].shape == program.nodes[program.nodes[inner].args[0]].shape:
                yield Change("key-order", n, _before(program, gate, product, inner))
    if node.op == "linear" and program.nodes[node.args[0]].op == "mul":
        weight = node.args[1]
        for gate, other in (program.nodes[node.args[0]].args, program.nodes[node.args[0]].args[::-1]):
            if program.nodes[gate].shape == node.shape:
                yield Change(
                    "key-order",
                    n,
                    lambda new, at, _, g=gate, v=other: new.add(  # type: ignore[misc]
                        "mul", at[g], new.add("linear", at[v], at[weight], shape=node.shape)
                    ),
                )


def _outside(gate: int, other: int, rest: int) -> Make:
    return lambda new, at, _: new.add("mul", at[gate], new.add("add", at[other], at[rest]))


def _before(program: Program, gate: int, product: int, inner: int) -> Make:
    def make(new: Program, at: dict[int, int], _: int) -> int:
        value, weight = program.nodes[inner].args
        cut, M = (0, program.nodes[inner].width), at[weight]
        path, n = [], product
        while n != inner:
            path.append(n)
            n = program.nodes[n].args[0]
        for n in reversed(path):
            if program.nodes[n].op == "slice":
                _, start, stop = program.nodes[n].of
                cut = cut[0] + start, cut[0] + stop
        if cut != (0, program.nodes[inner].width):
            k = program.nodes[weight].shape[1]
            M = new.add("slice", M, of=(0, *cut), shape=(cut[1] - cut[0], k))
        gated = new.add("mul", at[gate], at[value])
        found = new.add("linear", gated, M, shape=(cut[1] - cut[0],))
        for n in reversed(path):
            if program.nodes[n].op == "add":
                found = new.add("add", found, at[program.nodes[n].args[1]])
        return found

    return make


def _more(program: Program, n: int) -> Iterator[Change]:
    """One activation more, or one more factor."""
    for op in ACTIVATIONS[1::-1]:
        if n in program.new:
            yield Change("key-added", n, lambda new, _, here, op=op: new.add(op, here))  # type: ignore[misc]
    node = program.nodes[n]
    atoms = [a for a in _atoms(program, n) if program.nodes[a].shape == node.shape]
    for a in atoms:
        if n in program.new:
            yield Change("key-added", n, lambda new, at, here, a=a: new.add("add", here, at[a]))  # type: ignore[misc]
        yield Change("key-added", n, lambda new, at, here, a=a: new.add("mul", at[a], here))  # type: ignore[misc]
