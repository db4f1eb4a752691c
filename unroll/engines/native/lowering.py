"""From a step program to what the kernels' interpreter runs (native/program.hpp).

Slices and concatenations vanish here: every row value is cut into *pieces* where anybody cuts it, and every piece is a block of
memory of its own. Sums of products become one instruction, with biases and addends; products of the same operands share one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from unroll.engines.native.instructions import (
    BEFORE,
    CONSTANT,
    GRADIENT,
    NUMBER,
    SAVED,
    SCRATCH,
    SENT,
    STATE,
    STRIP,
    VECTOR,
    Value,
    ordered,
    share_memory,
    touched,
)
from unroll.equations.program import Node, Program, UnreadableError
from unroll.equations.reverse import Reverse

# Where the rows of a weight gradient's product come from, in the order of `Source` in native/program.hpp.
VALUE, INPUT, OUTPUT = range(3)
MOST_PIECES = 64  # of the operands of one instruction: `most_pieces` in native/program.hpp
# What the backward step would rather compute again than read.
_CHEAP = {
    "add",
    "sub",
    "mul",
    "neg",
    "relu",
    "abs",
    "sign",
    "where",
    "less",
    "equal",
    "maximum",
    "minimum",
    "copy",
    "widen",
    "tanh",
    "sigmoid",
}
_FREE = {"slice", "concat", "place", "stop"}  # pieces of other values
_UNALIGNED = {"linear", "linear_back", "sum", "max", "widen", "input", "state", "gradient"}

Piece = tuple[int, int]  # start, width
Unit = tuple[int, Piece]  # a piece of a node


@dataclass
class Code:
    """What `unroll_program_make` is given, and which weights it reads.

    Attributes:
        words: the program, see native/program.hpp.
        numbers: its constants.
        weights: nodes of the weights, in the order in which their tensors are given.
    """

    words: list[int] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)


@dataclass
class _Sum:
    """A piece y = Σ v Mᵀ + biases + addends.

    Attributes:
        products: (operand v, weight M, first column of the product, whether it is v M and not v Mᵀ).
        inner: pieces that need not be computed by themselves.
    """

    unit: Unit
    products: list[tuple[int, int, int, bool]] = field(default_factory=list)
    biases: list[Unit] = field(default_factory=list)
    addends: list[Unit] = field(default_factory=list)
    inner: set[Unit] = field(default_factory=set)


def lower(program: Program, back: Reverse | None, inputs: Sequence[bool]) -> Code:
    """The code of a program.

    Args:
        back: its backward step; None where no gradient is wanted.
        inputs: of which inputs gradients are wanted.
    """
    return _Lowering(program, back, inputs).code


class _Lowering:
    def __init__(self, program: Program, back: Reverse | None, inputs: Sequence[bool]) -> None:
        self.program, self.back, self.code = program, back, Code()
        self.nodes: list[Node] = list(program.nodes)  # copies are added to it
        self.values: list[Value] = []
        self.ids: dict[tuple[object, ...], int] = {}
        self.factored: set[Unit] = set()  # sums of products of two, and products that are only summed
        self.strip: set[int] = set()
        self.sent: dict[int, int] = {}
        self.again: list[int] = []
        self.saved: set[int] = set()
        self.bounds: dict[int, set[int]] = {}
        self.forward = [n for n in program.needed(program.new) if program.nodes[n].row]
        self.new = self._unshared(list(program.new), ("input", "state"), self.forward)
        self.mine = set(self.forward)
        self.reverse: list[int] = []
        self.d_inputs: list[int | None] = []
        self.d_states: list[int | None] = []
        if back is not None:
            self.d_inputs = [n if want else None for n, want in zip(back.inputs, inputs, strict=True)]
            wanted = [n for n in (*self.d_inputs, *back.states) if n is not None]
            wanted += [d for _, d, _ in back.matrices] + [d for _, d in back.vectors]
            self.reverse = [n for n in program.needed(wanted) if program.nodes[n].row and n not in self.mine]
            there = [n for n in back.states if n is not None]
            apart = iter(self._unshared(there, ("gradient", "input", "state"), self.reverse, self.mine))
            self.d_states = [None if n is None else next(apart) for n in back.states]
            self.sent = {n: k for k, n in enumerate(self.d_states) if n is not None}
        self._divide()
        if back is not None:
            self._choose_saved(back)
            for _, d, v in back.matrices:
                for m in (*self.roots(d), *self.roots(v)):
                    if (
                        m not in self.saved
                        and m not in self.sent
                        and self.nodes[m].op not in ("input", "state", "gradient")
                    ):
                        self.strip.add(m)
        forward = self._emit(self.forward, False)
        backward: list[list[int]] = []
        jobs: list[list[int]] = []
        if back is not None:
            leaves = [n for n in self.forward if self.nodes[n].op == "input"]
            backward = self._emit([*leaves, *self.again, *self.reverse], True)
            for k, n in enumerate(self.d_inputs):
                for piece in self.pieces(n) if n is not None else ():
                    value = self.operand(n, piece, True)  # type: ignore[arg-type]
                    if self.values[value][1] == CONSTANT:  # nothing comes back to these columns
                        zeros = self.value(("zeros", k, piece), piece[1], SCRATCH)
                        backward.append([NUMBER["copy"], zeros, value])
                        value = zeros
                    backward.append([NUMBER["store_input"], k, piece[0], value])
            for w, piece, unit in self._sums_of_vectors():
                product = unit in self.factored and self.nodes[unit[0]].op == "mul"
                factors = self.nodes[unit[0]].args if product else ()
                read = [self._read(a, unit[1], True) for a in factors] or [self.operand(*unit, True)]
                backward.append([NUMBER["accumulate"], self.weight(w), piece[0], *read])
            jobs = self._jobs(back, backward)
            self._forget(backward, jobs)
        forward, backward = (ordered(part, self.values) for part in (forward, backward))
        share_memory((forward, backward), self.values)
        self._encode(forward, backward, jobs)

    def _unshared(
        self, wanted: list[int], leaves: Sequence[str], nodes: list[int], foreign: Sequence[int] | set[int] = ()
    ) -> list[int]:
        """Nodes that nobody else is: a leaf, pieces of others, another program's node or one met before is copied."""
        found: list[int] = []
        for n in wanted:
            node = self.nodes[n]
            if node.op in (*leaves, *_FREE) or self._scattered(n) or n in foreign or n in found:
                self.nodes.append(Node("copy", (n,), (), node.shape, True))
                n = len(self.nodes) - 1
                nodes.append(n)
            found.append(n)
        return found

    # --- pieces -------------------------------------------------------------------------------------------------

    def _divide(self) -> None:
        """Where each row value is cut, so that all that meet element by element are cut alike."""
        nodes = [*self.forward, *self.reverse]
        bounds = {n: {0, self.nodes[n].width} for n in nodes}
        same: list[tuple[int, int, int, int]] = []  # columns [0, width) of a are columns [start, start + width) of b
        for n in nodes:
            node = self.nodes[n]
            if node.op == "slice":
                same.append((n, node.args[0], node.of[1], node.width))
            elif node.op == "place":
                width = self.nodes[node.args[0]].width
                same.append((node.args[0], n, node.of[0], width))
                bounds[n] |= {node.of[0], node.of[0] + width}
            elif node.op == "concat":
                start = 0
                for a in node.args:
                    width = self.nodes[a].shape[0]
                    bounds[n] |= {start, start + width}
                    if self.nodes[a].row:
                        same.append((a, n, start, width))
                    start += width
            elif node.op not in _UNALIGNED:
                rows = [a for a in node.args if self.nodes[a].row and self.nodes[a].width == node.width]
                same += [(a, n, 0, node.width) for a in rows]
            if node.op == "slice":
                bounds[node.args[0]] |= {node.of[1], node.of[2]}
        for k, size in enumerate(self.program.states):
            alike = [n for n in nodes if self.nodes[n].op in ("state", "gradient") and self.nodes[n].of[0] == k]
            alike += [self.new[k], *(n for n in self.d_states[k : k + 1] if n is not None)]
            same += [(alike[0], other, 0, size) for other in alike[1:]]
        changed = True
        while changed:
            changed = False
            for a, b, start, width in same:
                up = {start + c for c in bounds[a]}
                down = {c - start for c in bounds[b] if start <= c <= start + width}
                if not (up <= bounds[b] and down <= bounds[a]):
                    bounds[b] |= up
                    bounds[a] |= down
                    changed = True
        self.bounds = bounds

    def pieces(self, n: int) -> list[Piece]:
        node = self.nodes[n]
        if not node.row:
            return [(0, node.shape[0] if node.shape else 1)]
        cuts = sorted(self.bounds[n])
        return [(a, b - a) for a, b in pairwise(cuts)]

    def root(self, n: int, piece: Piece) -> tuple[int, Piece] | None:
        """The node whose own piece a piece of a node is; None for zeros."""
        node, (start, width) = self.nodes[n], piece
        if node.op == "slice" and node.row:
            return self.root(node.args[0], (start + node.of[1], width))
        if node.op == "stop":
            return self.root(node.args[0], piece)
        if node.op == "place":
            inside = start - node.of[0]
            fits = 0 <= inside < self.nodes[node.args[0]].width
            return self.root(node.args[0], (inside, width)) if fits else None
        if self._scattered(n):
            here = [
                (a, self.root(a, (0, 1) if self.nodes[a].row and self.nodes[a].width == 1 else piece))
                for a in node.args
            ]
            there = [r for _, r in here if r is not None]
            if len(there) < 2:
                return there[0] if there else None
        if node.op == "concat" and node.row:
            for a in node.args:
                size = self.nodes[a].shape[0]
                if start < size:
                    return self.root(a, (start, width))
                start -= size
        return n, piece

    def _scattered(self, n: int) -> bool:
        """Whether a node is a sum whose pieces may be those of one addend alone."""
        node = self.nodes[n]
        return node.op == "add" and node.row and "place" in (self.nodes[a].op for a in self._addends(n))

    def _addends(self, n: int) -> Iterator[int]:
        for a in self.nodes[n].args:
            yield a
            if self.nodes[a].op == "add":
                yield from self._addends(a)

    def roots(self, n: int) -> set[int]:
        """The rows that a node is made of by cutting and joining alone."""
        found = (self.root(n, piece) for piece in self.pieces(n))
        return {r[0] for r in found if r is not None and self.nodes[r[0]].row}

    # --- what is kept for the backward pass ---------------------------------------------------------------------

    def _rows(self, n: int) -> Iterator[int]:
        for a in self.nodes[n].args:
            if self.nodes[a].row:
                yield from self.roots(a)

    def _choose_saved(self, back: Reverse) -> None:
        """`saved`: forward nodes that are kept; `again`: those that the backward step computes again, which is cheaper."""
        wanted = {a for n in self.reverse for a in self._rows(n) if a in self.mine}
        wanted |= {
            n
            for d in (*self.sent, *self.d_inputs, *(d for _, d, _ in back.matrices), *(d for _, d in back.vectors))
            if d is not None
            for n in self.roots(d)
            if n in self.mine
        }
        for _, _, v in back.matrices:
            wanted |= {n for n in self.roots(v) if n in self.mine and not self._handed_up(n)}
        cheap: set[int] = set()
        for n in self.forward:
            node = self.nodes[n]
            if node.op in _CHEAP and all(
                a in cheap or a in wanted or self.nodes[a].op == "input" for a in self._rows(n)
            ):
                cheap.add(n)
        self.saved = {n for n in wanted if n not in cheap and self.nodes[n].op != "input"}
        again: set[int] = set()
        stack = [n for n in wanted if n in cheap]
        while stack:
            n = stack.pop()
            if n not in again and self.nodes[n].op != "input" and n not in self.saved:
                again.add(n)
                stack += self._rows(n)
        self.again = sorted(again)

    def _handed_up(self, n: int) -> bool:
        """Whether a value is what the layer has handed up, which its caller keeps."""
        return self.nodes[n].op == "state" and self.nodes[n].of[0] == 0

    # --- values -------------------------------------------------------------------------------------------------

    def value(self, key: tuple[object, ...], width: int, home: int, index: int = 0, offset: int = 0) -> int:
        if key not in self.ids:
            self.ids[key] = len(self.values)
            self.values.append((width, home, index, offset))
        return self.ids[key]

    def weight(self, n: int) -> int:
        if n not in self.code.weights:
            self.code.weights.append(n)
        return self.code.weights.index(n)

    def number(self, value: float) -> int:
        numbers = self.code.numbers
        known = [k for k, other in enumerate(numbers) if repr(other) == repr(value)]
        if not known:
            numbers.append(value)
        return self.value(("number", repr(value)), 1, CONSTANT, known[0] if known else len(numbers) - 1)

    def operand(self, n: int, piece: Piece, backward: bool) -> int:
        """The value of a piece of a node, as an instruction reads it; of something one wide that one."""
        if self.nodes[n].op == "number":
            return self.number(self.nodes[n].of[0])
        if self.nodes[n].row and self.nodes[n].width == 1:
            piece = 0, 1
        found = self.root(n, piece)
        if found is None:
            return self.number(0.0)
        n, piece = found
        node, (start, width) = self.nodes[n], piece
        if not node.row:
            return self.value(("vector", n, piece), width, VECTOR, self.weight(n), start)
        if node.op == "state":
            return self.value(
                ("before", node.of[0], piece), width, BEFORE, self.result(self.new[node.of[0]], piece, False)
            )
        if node.op == "gradient":
            return self.value(("gradient", node.of[0], piece), width, GRADIENT, node.of[0], start)
        return self.result(n, piece, backward and n not in self.saved)

    def _read(self, n: int, piece: Piece, backward: bool) -> int:
        """As `operand`, for operations element by element."""
        found = self._element(n, piece)
        return self.number(0.0) if found is None else self.operand(*found, backward)

    def result(self, n: int, piece: Piece, backward: bool) -> int:
        """The value that a piece of a node is computed into."""
        width = piece[1]
        if backward and n in self.sent:
            return self.value(("sent", n, piece), width, SENT, self.sent[n], piece[0])
        if backward:
            return self.value(("back", n, piece), width, STRIP if n in self.strip else SCRATCH)
        home = SCRATCH
        if n in self.new:
            k = self.new.index(n)
            before = any(self.nodes[m].op == "state" and self.nodes[m].of[0] == k for m in self.saved)
            home = SAVED if before or n in self.saved else STATE
        elif n in self.saved:
            home = SAVED
        return self.value(("forward", n, piece), width, home)

    # --- instructions -------------------------------------------------------------------------------------------

    def _args(self, unit: Unit) -> list[Unit]:
        """The row pieces that a piece is computed from; what is no row is left out."""
        n, piece = unit
        node = self.nodes[n]
        found: list[Unit | None] = []
        for a in node.args:
            if not self.nodes[a].row:
                continue
            if node.op in ("linear", "linear_back", "sum", "max"):
                found += [self.root(a, part) for part in self.pieces(a)]
            else:
                found.append(self._element(a, piece))
        return [u for u in found if u is not None and self.nodes[u[0]].row]

    def _element(self, n: int, piece: Piece) -> Unit | None:
        """The piece that an operation reads element by element; of what is one wide everywhere, that one."""
        found = self.root(n, (0, 1) if self.nodes[n].row and self.nodes[n].width == 1 else piece)
        while found is not None and self.nodes[found[0]].op == "widen":
            found = self.root(self.nodes[found[0]].args[0], (0, 1))
        return found

    def _emit(self, nodes: Sequence[int], backward: bool) -> list[list[int]]:
        """The instructions of one direction, each a list of numbers: operation, then what it is told."""
        units = [(n, piece) for n in nodes if self.nodes[n].op not in _FREE for piece in self.pieces(n)]
        units = [u for u in units if self.root(*u) == u]
        uses = Counter(a for u in units for a in self._args(u))
        if backward:
            uses.update(u for _, _, u in self._sums_of_vectors())
        kept = {u for u in units if u[0] in self._wanted(backward)}
        leaves = ("state", "gradient")
        there = {u for u in units if self.nodes[u[0]].op not in leaves and (uses[u] or u in kept)}
        single = {u for u in there if uses[u] == 1 and u not in kept}
        sums = {u: s for u in there if (s := self._sum(u, single)) is not None}
        inside = {m for s in sums.values() for m in s.inner}
        sums = {u: s for u, s in sums.items() if u not in inside}
        inside = {m for s in sums.values() for m in s.inner}
        fused: dict[Unit, int] = {}  # a sum's addend that is a product of two, by its place
        for u in units:
            if u in there and u not in sums and u not in inside and self.nodes[u[0]].op == "add":
                for k, a in enumerate(self.nodes[u[0]].args):
                    m = self.root(a, u[1]) if self.nodes[a].row and self.nodes[a].width > 1 else None
                    if u not in fused and m in single and self.nodes[m[0]].op == "mul":
                        fused[u] = k
                        inside.add(m)
        # Products that are only summed, over a row or over all steps, are not kept.
        for u in units:
            if self.nodes[u[0]].op == "sum" and u in there:
                terms = self._args(u)
                if (
                    all(m in single and self.nodes[m[0]].op == "mul" and m[1][1] > 1 for m in terms)
                    and 2 * len(terms) <= MOST_PIECES
                ):
                    self.factored.add(u)
                    inside |= set(terms)
        if backward:
            for _, _, m in self._sums_of_vectors():
                if m in single and self.nodes[m[0]].op == "mul" and m[1][1] > 1:
                    self.factored.add(m)
                    inside.add(m)
        order = [u for u in units if u in there and u not in inside]
        found: list[list[int]] = []
        made: set[Unit] = set()
        for place, u in enumerate(order):
            if u in made:
                continue
            made.add(u)
            if u not in sums:
                found.append(self._plain(u, fused.get(u), backward))
                continue
            # All sums of products of the same operands, as far as their addends are there.
            key, waiting = self._operands(sums[u], backward), {m for m in order[place:] if m not in made}
            same = [u]
            for m in order[place + 1 :]:
                alike = m in sums and m not in made and self._operands(sums[m], backward) == key
                if alike and not waiting & set(sums[m].addends):
                    same.append(m)
            made |= set(same)
            found.append(self._affine([sums[m] for m in same], key, backward))
        return found

    def _sums_of_vectors(self) -> list[tuple[int, Piece, Unit]]:
        """Weights (n,), a piece of each, and the rows whose sum is its gradient."""
        assert self.back is not None
        found = []
        for w, d in self.back.vectors:
            for piece in self.pieces(d):
                unit = self.root(d, piece)
                if unit is not None:
                    found.append((w, piece, unit))
        return found

    def _wanted(self, backward: bool) -> set[int]:
        """Nodes whose values somebody needs when all is done."""
        if not backward:
            return {*self.new, *self.saved}
        assert self.back is not None
        found = {*self.sent, *self.strip}
        ends = [n for n in self.d_inputs if n is not None]
        ends += [m for _, d, v in self.back.matrices for m in (d, v)]
        return found | {r for n in ends for r in self.roots(n) if self.nodes[r].op != "input"}

    def _sum(self, unit: Unit, single: set[Unit]) -> _Sum | None:
        """A piece as a sum of products with weights; None where it is none."""
        found, stack = _Sum(unit), [unit]
        while stack:
            m = stack.pop()
            node, piece = self.nodes[m[0]], m[1]
            free = (m == unit or m in single) and piece[1] == unit[1][1]
            if node.op in ("linear", "linear_back") and free and self._args(m):
                found.products.append((*node.args, piece[0], node.op == "linear_back"))  # type: ignore[arg-type]
            elif (
                node.op == "add" and free and all(self.nodes[a].row or self.nodes[a].op != "number" for a in node.args)
            ):
                for a in node.args:
                    if self.nodes[a].row:
                        r = self._element(a, piece)
                        if r is not None and self.nodes[r[0]].row:
                            stack.append(r)
                        elif r is not None:
                            found.biases.append(r)
                    else:
                        found.biases.append((a, piece))
            else:
                found.addends.append(m)
                continue
            if m != unit:
                found.inner.add(m)
        found.products.sort()
        wide = all(u[1][1] in (1, unit[1][1]) for u in found.addends) and all(
            u[1][1] == unit[1][1] for u in found.biases
        )
        return found if found.products and wide else None

    def _operands(self, s: _Sum, backward: bool) -> tuple[int, ...]:
        return tuple(
            self.operand(v, part, backward)
            for v, _, _, _ in s.products
            for part in self.pieces(v)
            if self.root(v, part)
        )

    def _count(self, n: int, pieces: Sequence[int]) -> None:
        if len(pieces) > MOST_PIECES:
            line = self.nodes[n].line or "the step"
            raise UnreadableError(
                f"{line}: reads a row of {len(pieces)} pieces that were cut and joined; the kernels take {MOST_PIECES}"
            )

    def _affine(self, sums: Sequence[_Sum], operands: tuple[int, ...], backward: bool) -> list[int]:
        self._count(sums[0].unit[0], operands)
        code = [NUMBER["affine"], len(operands), *operands, len(sums)]
        for s in sums:
            biases = [self.operand(*u, backward) for u in s.biases]
            addends = [self.operand(*u, backward) for u in s.addends]
            code += [self.result(*s.unit, backward), len(biases), *biases, len(addends), *addends]
            for v, M, start, back in s.products:
                for column, _ in (part for part in self.pieces(v) if self.root(v, part)):
                    row, column = (column, start) if back else (start, column)
                    code += [self.weight(M), row, column, int(back)]
        return code

    def _plain(self, unit: Unit, product: int | None, backward: bool) -> list[int]:
        n, piece = unit
        node, result = self.nodes[n], self.result(n, piece, backward)
        if node.op == "input":
            return [NUMBER["load_input"], result, node.of[0], piece[0]]
        if node.op == "linear_back":  # of zeros, or it were a sum
            return [NUMBER["copy"], result, self.number(0.0)]
        if unit in self.factored:
            terms = [[self._read(a, m[1], backward) for a in self.nodes[m[0]].args] for m in self._args(unit)]
            return [NUMBER["dot"], result, 2 * len(terms), *(v for pair in terms for v in pair)]
        if node.op in ("sum", "max"):
            parts = [self.operand(node.args[0], part, backward) for part in self.pieces(node.args[0])]
            self._count(n, parts)
            return [NUMBER[node.op], result, len(parts), *parts]
        if product is not None:
            factor = self.root(node.args[product], piece)
            assert factor is not None
            of_product = [self._read(a, factor[1], backward) for a in self.nodes[factor[0]].args]
            return [NUMBER["multiply_add"], result, *of_product, self._read(node.args[1 - product], piece, backward)]
        operands = [self._read(a, piece, backward) for a in node.args]
        return [NUMBER["copy" if node.op == "widen" else node.op], result, *operands]

    def _forget(self, backward: Sequence[list[int]], jobs: Sequence[list[int]]) -> None:
        """Do not save those pieces of saved nodes that the backward step does not read."""
        read = {v for one in backward for v in touched(one)[1]}
        read |= {self.result(n, piece, False) for n in self.new for piece in self.pieces(n)}
        for sources, *rest in jobs:
            read |= {rest[4 * k + 1] for k in range(sources) if rest[4 * k] == VALUE}
            read |= set(rest[4 * sources + 1 :: 1 + 4 * sources])
        for v, (width, home, _, _) in enumerate(self.values):
            if home == SAVED and v not in read:
                self.values[v] = width, SCRATCH, 0, 0

    def _jobs(self, back: Reverse, backward: list[list[int]]) -> list[list[int]]:
        """The products that the gradients of matrices are: sums over steps and sequences of dᵀ v.

        A job is the operands that it multiplies with, and the pieces d that have all of them in common.
        """
        rows: dict[Unit, list[tuple[int, int, int, Piece]]] = {}  # by piece of d: M, its row, v and its piece
        for M, d, v in back.matrices:
            for piece in self.pieces(d):
                found = self.root(d, piece)
                if found is not None:
                    rows.setdefault(found, []).extend((M, piece[0], v, part) for part in self.pieces(v))
        jobs: dict[tuple[tuple[int, ...], ...], list[tuple[int, list[tuple[int, ...]]]]] = {}
        for (root, piece), blocks in rows.items():
            value = self._kept(root, piece, backward)
            sources: list[tuple[int, ...]] = []
            places: list[tuple[int, ...]] = []
            for M, row, v, part in blocks:
                source = self._source(v, part, backward)
                if source is not None:
                    sources.append((*source, part[1]))
                    places.append((self.weight(M), row, part[0], 0))
            order = sorted(range(len(sources)), key=lambda n: sources[n][0] != OUTPUT)  # what is handed up comes first
            self._count(root, order)
            key, blocks_of = tuple(sources[n] for n in order), [places[n] for n in order]
            jobs.setdefault(key, []).append((value, blocks_of))
        return [
            [
                len(sources),
                *(x for s in sources for x in s),
                len(rest),
                *(x for value, places in rest for x in (value, *(y for p in places for y in p))),
            ]
            for sources, rest in jobs.items()
        ]

    def _kept(self, root: int, piece: Piece, backward: list[list[int]]) -> int:
        """A value in a strip, or a saved one."""
        value = self.operand(root, piece, True)
        if self.values[value][1] in (SAVED, STRIP, BEFORE):
            return value
        copy = self.value(("strip", root, piece), piece[1], STRIP)
        backward.append([NUMBER["copy"], copy, value])
        return copy

    def _source(self, v: int, part: Piece, backward: list[list[int]]) -> tuple[int, int, int] | None:
        """Where the rows of an operand are at the end: source, which, offset; None for zeros."""
        found = self.root(v, part)
        if found is None:
            return None
        root, piece = found
        if self.nodes[root].op == "input":
            return INPUT, self.nodes[root].of[0], piece[0]
        if self._handed_up(root) and root not in self.saved:
            return OUTPUT, 0, piece[0]
        return VALUE, self._kept(root, piece, backward), 0

    def _encode(self, forward: list[list[int]], backward: list[list[int]], jobs: list[list[int]]) -> None:
        program, words = self.program, self.code.words
        states: list[int] = [len(program.states)]
        for k, size in enumerate(program.states):
            pieces = self.pieces(self.new[k])
            states += [size, len(pieces)]
            for piece in pieces:
                new = self.result(self.new[k], piece, False)
                before = self.value(("before", k, piece), piece[1], BEFORE, new)
                gradient = sent = -1
                if self.back is not None:
                    gradient = self.value(("gradient", k, piece), piece[1], GRADIENT, k, piece[0])
                    n = self.d_states[k]
                    sent = -1 if n is None else self.result(n, piece, True)
                states += [*piece, new, before, gradient, sent]
        words += [len(program.inputs), *program.inputs, len(self.code.weights)]
        for w in self.code.weights:
            shape = self.nodes[w].shape
            words += [shape[0] if shape else 1, shape[1] if len(shape) > 1 else 1]
        words += [len(self.values), *(x for value in self.values for x in value), *states, len(self.code.numbers)]
        for part in (forward, backward, jobs):
            words += [len(part), *(x for one in part for x in (len(one), *one))]
