"""A step program as formulas: one tree of terms for each value that has a name, which `unroll.equations.formulas` writes.

Three things are done to a program, by rules that know no particular cell. Patterns become words: the sum of a row divided by its
width is its mean. Gates that are stacked in one product are taken apart: a slice of a sum is the sum of the slices, down to the
rows of the parameters, which get the name of the slice as an index. And a named sum of products that only stands as the argument
of another named value is written there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from unroll.equations.names import Symbol, author_names, distinct, parameter_symbols, symbol_of
from unroll.equations.program import ELEMENTWISE, Program

Of = tuple[Any, ...]
MOST_PUSHED = 200  # terms of a stacked sum that is taken apart
LONGEST_TERM = 60  # parts of a formula; what has more is written in two


@dataclass(frozen=True)
class Term:
    """A formula.

    Attributes:
        op: an operation, a key of `unroll.equations.formulas.OPERATIONS`; ``symbol``, ``number`` or ``plus``.
        args: what it is done to.
        of: the symbol; the number; the signs of the summands; the bounds of a slice.
    """

    op: str
    args: tuple[Term, ...] = ()
    of: Any = ()


@dataclass(frozen=True)
class Equation:
    """Left = right; several symbols on the left are the parts of the right side, in order."""

    left: tuple[Symbol, ...]
    right: Term


@dataclass(frozen=True)
class Letters:
    """A parameter: its path in the cell, its shape, and the symbols of its parts in the formulas (or its own one)."""

    path: str
    shape: tuple[int, ...]
    symbols: tuple[Symbol, ...]


@dataclass(frozen=True)
class Formulas:
    """What a step computes.

    Attributes:
        equations: in the order of the author's code.
        parameters: in the order in which the step reads them.
        values: the nodes of the program that have an equation, by the names that the author gave them.
    """

    equations: tuple[Equation, ...]
    parameters: tuple[Letters, ...]
    values: dict[str, int]

    def operations(self) -> list[str]:
        """The operations that occur, each once."""
        found: dict[str, None] = {}

        def look(term: Term) -> None:
            found[term.op] = None
            for arg in term.args:
                look(arg)

        for equation in self.equations:
            look(equation.right)
            if len(equation.left) > 1:
                found["concat"] = None
        return list(found)


def formulas(program: Program) -> Formulas:
    """The formulas of a program.

    >>> from unroll.cells import RNNCell
    >>> from unroll.equations import read
    >>> [letters.path for letters in formulas(read(RNNCell(5, 2))).parameters]
    ['W', 'U', 'b']
    """
    graph = _Graph(program)
    graph.take_apart()
    return _Emitter(graph).formulas()


@dataclass(frozen=True)
class _Node:
    op: str
    args: tuple[int, ...]
    of: Of
    shape: tuple[int, ...]
    row: bool


class _Graph:
    """The program in the operations of formulas; nodes stand after what they are computed from."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.nodes: list[_Node] = []
        self._known: dict[tuple[str, tuple[int, ...], Of], int] = {}
        self.origin: dict[int, int] = {}  # the program's node
        self.names: dict[int, str] = {}
        self._facts: list[tuple[bool, bool, int]] = []
        self.labels: dict[int, str] = {}  # what tells a slice from the others of the same source
        found: dict[int, int] = {}
        names = author_names(program)
        for n in program.needed(program.new):
            node = program.nodes[n]
            found[n] = self._translated(node.op, tuple(found[a] for a in node.args), node.of, node.shape)
            self.origin.setdefault(found[n], n)
            if n in names and self.nodes[found[n]].op not in ("input", "state", "parameter", "constant", "number"):
                name = names[n].removesuffix("_t")
                self.names.setdefault(found[n], name or names[n])
        self.new = [found[n] for n in program.new]
        states = program.state_names or ("h", "c", *(f"state_{k}" for k in range(2, len(self.new))))
        self.states = states[: len(self.new)]
        for n, name in reversed(list(zip(self.new, self.states, strict=True))):
            if self.nodes[n].op not in ("input", "state"):
                self.names[n] = name  # so that what a step hands on is called what it was called before

    # --- nodes ----------------------------------------------------------------------------------------------------

    def add(self, op: str, *args: int, of: Of = (), shape: tuple[int, ...] | None = None) -> int:
        key = (op, args, of)
        if key not in self._known:
            row = op in ("input", "state") or any(self.nodes[a].row for a in args)
            if shape is None:
                shape = max((self.nodes[a].shape for a in args), key=lambda s: (len(s), s))
            self.nodes.append(_Node(op, args, of, shape, row))
            self._known[key] = len(self.nodes) - 1
        return self._known[key]

    def _translated(self, op: str, args: tuple[int, ...], of: Of, shape: tuple[int, ...]) -> int:
        """A node of the program, simplified."""
        nodes = self.nodes
        first = nodes[args[0]] if args else None
        if op == "linear":
            return self.add("product", args[1], args[0], shape=shape)
        if op == "lookup":  # the product with a one-hot vector
            return self.add("product", self._transposed(args[1]), args[0], shape=shape)
        if op == "transpose":
            return self._transposed(args[0], of)
        if op in ("reshape", "expand") and first is not None:
            return args[0] if first.op == "number" else self.add("reshape", args[0], of=shape, shape=shape)
        if op == "slice" and first is not None:
            return self.cut(args[0], 0 if of[0] == -1 else of[0], of[1], of[2])
        if op == "pow" and self._number(args[1]) == 2:
            return self.add("square", args[0])
        if op == "mul":
            return self._times(*args)
        if op == "div":
            return self._over(*args)
        return self.add(
            op, *args, of=of if op in ("input", "state", "parameter", "constant", "number") else (), shape=shape
        )

    def _number(self, n: int) -> float | None:
        return float(self.nodes[n].of[0]) if self.nodes[n].op == "number" else None

    def _transposed(self, n: int, axes: Of = (0, 1)) -> int:
        node = self.nodes[n]
        if node.op == "transpose" and node.of == axes:
            return node.args[0]
        shape = list(node.shape)
        a, b = axes
        shape[a], shape[b] = shape[b], shape[a]
        return self.add("transpose", n, of=axes, shape=tuple(shape))

    def _times(self, a: int, b: int) -> int:
        nodes = self.nodes
        if a == b:
            return self.add("square", a)
        if nodes[b].op == "number":
            a, b = b, a
        if nodes[a].op == "number":
            if nodes[b].op == "sum" and self._number(a) == 1 / nodes[nodes[b].args[0]].shape[0]:
                return self._mean(nodes[b].args[0])
            return self.add("neg", b) if self._number(a) == -1 else self.add("scale", a, b)
        for one, other in ((a, b), (b, a)):
            if nodes[other].op == "div" and self._number(nodes[other].args[0]) == 1:
                return self._over(one, nodes[other].args[1])
            if nodes[other].op == "square" and nodes[other].args[0] == one:
                return self.add("pow", one, self.add("number", of=(3.0,), shape=()))
        return self.add("mul", a, b)

    def _mean(self, v: int) -> int:
        if self.nodes[v].op == "square" and (source := self._centred(self.nodes[v].args[0])) is not None:
            return self.add("var", source, shape=(1,))
        return self.add("mean", v, shape=(1,))

    def _centred(self, n: int) -> int | None:
        """v where n is v minus its mean."""
        node = self.nodes[n]
        if (
            node.op == "sub"
            and self.nodes[node.args[1]].op == "mean"
            and self.nodes[node.args[1]].args[0] == node.args[0]
        ):
            return node.args[0]
        return None

    def _over(self, a: int, b: int) -> int:
        nodes = self.nodes
        if nodes[b].op == "sqrt" and (source := self._centred(a)) is not None:
            under = nodes[nodes[b].args[0]]
            wanted = self.add("var", source, shape=(1,))
            if under.op == "add" and wanted in under.args and any(nodes[n].op == "number" for n in under.args):
                return self.add("norm", source)
        if nodes[b].op == "sum" and nodes[b].args[0] == a and nodes[a].op == "exp":
            shifted = nodes[nodes[a].args[0]]
            if shifted.op == "sub" and nodes[shifted.args[1]].op == "stop":
                return self.add("softmax", shifted.args[0])
        return self.add("div", a, b)

    def cut(self, n: int, axis: int, start: int, stop: int) -> int:
        """Rows start … stop of a weight along an axis, or such columns of a row value; a cut of a cut is one."""
        node = self.nodes[n]
        if node.shape[axis] == stop - start:
            return n
        if node.op == "slice" and node.of[0] == axis:
            return self.cut(node.args[0], axis, node.of[1] + start, node.of[1] + stop)
        if node.op == "transpose" and node.of == (0, 1) and axis < 2:
            return self._transposed(self.cut(node.args[0], 1 - axis, start, stop))
        shape = (*node.shape[:axis], stop - start, *node.shape[axis + 1 :])
        return self.add("slice", n, of=(axis, start, stop), shape=shape)

    # --- which nodes there are ------------------------------------------------------------------------------------

    def reachable(self) -> list[int]:
        found, stack = set(self.new), list(self.new)
        while stack:
            for a in self.nodes[stack.pop()].args:
                if a not in found:
                    found.add(a)
                    stack.append(a)
        return sorted(found)

    def consumers(self) -> dict[int, list[int]]:
        found: dict[int, list[int]] = {n: [] for n in self.reachable()}
        for n in found:
            for a in self.nodes[n].args:
                found[a].append(n)
        return found

    # --- stacked gates --------------------------------------------------------------------------------------------

    def take_apart(self) -> None:
        """Push slices of sums down to the parameters, until there is none left that can be."""
        while True:
            users = self.consumers()
            for n, used in users.items():
                cuts = sorted({u for u in used if self.nodes[u].op == "slice"}, key=lambda u: self.nodes[u].of)
                if not cuts:
                    continue
                self._label(cuts, users)
                if not self.nodes[n].row or n in self.new or len(cuts) < len(set(used)):
                    continue
                bounds = [self.nodes[u].of for u in cuts]
                apart = all(one[2] <= other[1] for one, other in pairwise(bounds))
                if apart and self._can_push(n):
                    pushed = {}
                    for u in cuts:
                        start, stop = self.nodes[u].of[1:]
                        pushed[u] = self._pushed(n, start, stop, self.labels.get(u))
                    self._substitute(pushed)
                    break
            else:
                return

    def _label(self, cuts: Sequence[int], users: dict[int, list[int]]) -> None:
        """Keep what tells the slices of one source apart, in the author's names."""
        names = [self.names.get(u) or self.labels.get(u) or self._name_above(u, users) for u in cuts]
        apart = None if None in names else distinct([str(name) for name in names])
        for u, label in zip(cuts, apart or (), strict=False):
            self.labels.setdefault(u, label)

    def _name_above(self, n: int, users: dict[int, list[int]]) -> str | None:
        """The first named value that is computed from n, where n serves nothing else."""
        while len(users[n]) == 1:
            n = users[n][0]
            if n in self.names:
                return self.names[n]
        return None

    def _can_push(self, n: int) -> bool:
        """Whether a slice of n is a formula of slices, not too long, down to a product with weights."""
        while len(self._facts) <= n:
            self._facts.append(self._fact(self.nodes[len(self._facts)]))
        splits, product, size = self._facts[n]
        return splits and product and size <= MOST_PUSHED

    def _fact(self, node: _Node) -> tuple[bool, bool, int]:
        """Of a node: whether its slices are formulas of slices, whether these hold a product, how many terms they have."""
        if node.op == "product" or not node.row or node.shape == (1,):
            return True, node.op == "product", 1
        splits, product, size = zip(*(self._facts[a] for a in node.args), strict=True) if node.args else ((), (), ())
        through = node.op in ELEMENTWISE or node.op in ("scale", "square", "slice")
        return through and all(splits), any(product), 1 + sum(size)

    def _pushed(self, n: int, start: int, stop: int, label: str | None) -> int:
        node = self.nodes[n]
        if node.shape in ((), (1,)):
            return n
        if node.op == "product":
            found = self.cut(node.args[0], 0, start, stop)
            self._mark(found, label)
            return self.add("product", found, node.args[1], shape=(stop - start,))
        if not node.row or node.op == "slice":
            found = self.cut(n, 0, start, stop)
            self._mark(found, label)
            return found
        return self.add(node.op, *(self._pushed(a, start, stop, label) for a in node.args), of=node.of)

    def _mark(self, n: int, label: str | None) -> None:
        if self.nodes[n].op == "transpose":
            n = self.nodes[n].args[0]
        if label is not None and self.nodes[n].op == "slice":
            self.labels.setdefault(n, label)

    def _substitute(self, instead: dict[int, int]) -> None:
        """Replace nodes by others in everything that is computed from them."""
        found: dict[int, int] = {}

        waiting = list(self.new)
        while waiting:
            n = waiting[-1]
            needed = (instead[n],) if n in instead else self.nodes[n].args
            missing = [a for a in needed if a not in found]
            if n in found or not missing:
                waiting.pop()
                if n not in found:
                    found[n] = (
                        found[instead[n]] if n in instead else self._with_args(n, tuple(found[a] for a in needed))
                    )
            waiting += missing if n not in found else ()
        self.new = [found[n] for n in self.new]
        for n, m in found.items():
            kept: list[dict[int, Any]] = [self.names, self.labels, self.origin]
            for known in kept:
                if n in known and m != n:
                    known.setdefault(m, known[n])

    def _with_args(self, n: int, args: tuple[int, ...]) -> int:
        node = self.nodes[n]
        if args == node.args:
            return n
        return (
            self.cut(args[0], *node.of)
            if node.op == "slice"
            else self.add(node.op, *args, of=node.of, shape=node.shape)
        )


class _Emitter:
    """Decides what has an equation of its own, and makes terms."""

    def __init__(self, graph: _Graph) -> None:
        self.graph, self.nodes = graph, graph.nodes
        self.users = graph.consumers()
        self.order = list(self.users)
        self.blocks: dict[int, Symbol] = {}
        self._name_parameters()
        self.names = {n: name for n, name in graph.names.items() if n in self.users and self.nodes[n].row}
        affine = self._affine()
        for n in [n for n in self.names if n not in graph.new and n in affine and self._is_argument(n)]:
            del self.names[n]
        self.authors = dict(self.names)
        self.split = self._splits()
        self._name_the_rest()
        self.symbols = self._numbered()

    def _affine(self) -> set[int]:
        """The sums of products with weights, and of weights."""
        found: set[int] = set()
        for n in self.order:
            node = self.nodes[n]
            sums = node.op in ("add", "sub", "neg", "scale") and found.issuperset(node.args)
            if sums or node.op == "product" or not node.row:
                found.add(n)
        return found

    def _is_argument(self, n: int) -> bool:
        """Whether n is used once: in a sum or product that is named, or whose function is."""
        while len(self.users[n]) == 1:
            n = self.users[n][0]
            if n in self.graph.names:
                return True
            if self.nodes[n].op not in ("add", "sub", "neg", "scale", "mul"):
                return False
        return False

    def _splits(self) -> dict[int, list[int]]:
        """The first of several named slices that make up a whole, by the whole: they have one equation together."""
        found = {}
        for n in self.order:
            cuts = sorted(set(self.users[n]), key=lambda u: self.nodes[u].of[1:])
            if (
                self.nodes[n].row
                and len(cuts) > 1
                and all(self.nodes[u].op == "slice" and u in self.names for u in cuts)
            ):
                ends = [0, *(self.nodes[u].of[2] for u in cuts)]
                if [self.nodes[u].of[1] for u in cuts] == ends[:-1] and ends[-1] == self.nodes[n].shape[0]:
                    found[n] = cuts
                    if n not in self.graph.new:
                        self.names.pop(n, None)
        return found

    def _size(self, n: int) -> int:
        return 1 if n in self.names or not self.nodes[n].row else 1 + sum(self._size(a) for a in self.nodes[n].args)

    def _name_the_rest(self) -> None:
        taken = {symbol_of(name).base for name in self.names.values()} | {s.base for s in self.letters.values()}
        letter = next((one for one in "uvwqyza" if one not in taken), "value")
        count = 0
        for n in self.order:
            node = self.nodes[n]
            if n in self.names or n in self.split or not node.row:
                continue
            size = self._size(n)
            again = len(self.users[n]) > 1 and size > 3 and node.op not in ("slice", "concat")
            if again or size > LONGEST_TERM:
                count += 1
                self.names[n] = f"{letter}{count}"

    def _numbered(self) -> dict[int, Symbol]:
        """A symbol for each named value; an earlier value of a name that is given again has a number."""
        many, seen = Counter(self.names.values()), Counter[str]()
        many["x"] += 1  # the step's input has this name already
        found = {}
        for n in sorted(self.names, key=self._place):
            name = self.names[n]
            seen[name] += 1
            found[n] = symbol_of(name, "t")
            if seen[name] < many[name] and n not in self.graph.new:
                found[n] = replace(found[n], sub=(*found[n].sub, str(seen[name])))
        return found

    def _place(self, n: int) -> tuple[int, int]:
        return self.graph.origin.get(n, len(self.graph.program.nodes)), n

    # --- parameters -----------------------------------------------------------------------------------------------

    def _core(self, n: int) -> int:
        while self.nodes[n].op in ("reshape", "transpose", "slice"):
            n = self.nodes[n].args[0]
        return n

    def _name_parameters(self) -> None:
        leaves = [n for n in self.order if self.nodes[n].op in ("parameter", "constant")]
        products = {self._core(self.nodes[n].args[0]) for n in self.order if self.nodes[n].op == "product"}
        paths = {n: str(self.nodes[n].of[0]) for n in leaves}
        symbols = parameter_symbols({path: n in products for n, path in paths.items()})
        self.letters = {n: symbols[path] for n, path in paths.items()}
        cuts: dict[int, list[int]] = {}
        for n in self.order:
            if self.nodes[n].op == "slice" and not self.nodes[n].row and self._core(n) in self.letters:
                cuts.setdefault(self._core(n), []).append(n)
        self.parts: dict[int, list[Symbol]] = {}
        for leaf, found in cuts.items():
            found.sort(key=lambda n: self.nodes[n].of)
            bounds = [self.nodes[n].of for n in found]
            apart = all(one[2] <= other[1] for one, other in pairwise(bounds))
            if not apart or len({(self.nodes[n].args[0], self.nodes[n].of[0]) for n in found}) > 1:
                continue
            labels = [self.graph.labels.get(n) for n in found]
            if None in labels or len(set(labels)) < len(labels):
                labels = [str(k) for k in range(1, len(found) + 1)]
            own = self.letters[leaf]
            for n, label in zip(found, labels, strict=True):
                self.blocks[n] = replace(own, sub=(*own.sub, str(label)))
            self.parts[leaf] = [self.blocks[n] for n in found]

    # --- terms ----------------------------------------------------------------------------------------------------

    def formulas(self) -> Formulas:
        graph, equations, values = self.graph, [], {}
        together = {cuts[0]: whole for whole, cuts in self.split.items()}
        others = {n for cuts in self.split.values() for n in cuts[1:]}
        for n in sorted(self.names, key=self._place):
            if n in together:
                cuts = self.split[together[n]]
                equations.append(Equation(tuple(self.symbols[u] for u in cuts), self.term(together[n])))
            elif n not in others:
                equations.append(Equation((self.symbols[n],), self.term(n, whole=True)))
            if n in self.authors:
                symbol = self.symbols[n]
                plain = symbol_of(self.names[n], "t") == symbol
                values[self.names[n] if plain else f"{self.names[n]}{symbol.sub[-1]}"] = graph.origin[n]
        for k, (n, name) in enumerate(zip(graph.new, graph.states, strict=True)):
            if self.nodes[n].op in ("input", "state") or n in graph.new[:k]:  # handed on as it is
                equations.append(Equation((symbol_of(name, "t"),), self.term(n)))
        letters = [n for n in self.order if self.nodes[n].op in ("parameter", "constant")]
        parameters = tuple(
            Letters(str(self.nodes[n].of[0]), self.nodes[n].shape, tuple(self.parts.get(n, [self.letters[n]])))
            for n in letters
        )
        return Formulas(tuple(equations), parameters, values)

    def term(self, n: int, whole: bool = False) -> Term:
        """A node as a term; `whole`: not as the symbol that it may have."""
        node = self.nodes[n]
        if not whole and n in self.symbols:
            return Term("symbol", of=self.symbols[n])
        if node.op in ("input", "state", "parameter", "constant"):
            return Term("symbol", of=self._leaf(n))
        if node.op == "number":
            return Term("number", of=node.of)
        if n in self.blocks:
            return Term("symbol", of=self.blocks[n])
        if node.op == "reshape":
            return self.term(node.args[0])
        if node.op in ("add", "sub", "neg"):
            return self._sum(node)
        args = tuple(self.term(a) for a in node.args)
        return Term(node.op, args, node.of if node.op == "slice" else ())

    def _leaf(self, n: int) -> Symbol:
        node = self.nodes[n]
        program = self.graph.program
        if (mask := program.mask_of(self.graph.origin[n])) is not None:
            number = () if len(program.masks) == 1 else (str(mask + 1),)
            return Symbol("m", number, time=None if program.masks[mask].constant else "t")
        if node.op == "input":
            return Symbol("x", () if node.of[0] == 0 else (str(node.of[0] + 1),), time="t")
        if node.op == "state":
            return symbol_of(self.graph.states[node.of[0]], "t-1")
        return self.letters[n]

    def _sum(self, node: _Node) -> Term:
        """Summands side by side, each with its sign."""
        signs: list[int] = []
        summands: list[Term] = []
        for a, sign in zip(node.args, {"add": (1, 1), "sub": (1, -1), "neg": (-1,)}[node.op], strict=True):
            term = self.term(a)
            if term.op == "plus" and (sign == 1 or len(term.args) == 1):
                signs += [sign * s for s in term.of]
                summands += term.args
            elif term.op == "number" and term.of[0] < 0:
                signs.append(-sign)
                summands.append(Term("number", of=(-term.of[0],)))
            else:
                signs.append(sign)
                summands.append(term)
        return Term("plus", tuple(summands), tuple(signs))
