"""Whether a recorded step is a key's: the key's program with *some* weights gives the step's outputs, or it does not.

A program's argument of an activation is linear in the weights, once the activations before it are known. So the program is
gone through from its first node on; where it comes to an activation, each recorded value is tried that is that activation of
such an argument, for some weights (least squares); where it comes to the new state, the outputs decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from unroll.equations.program import Program

Array = NDArray[np.float64]
SPARE = 4  # rows beyond the unknown weights, so that no step fits by chance
UNITS = 8  # of a wide argument, that are looked at to tell whether it is one
_MOST = 4000  # values of arguments that are tried in one search

FUNCTIONS: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
    "tanh": np.tanh,
    "relu": lambda a: np.maximum(a, 0),
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "sign": np.sign,
    "sin": np.sin,
    "cos": np.cos,
    "softplus": lambda a: np.logaddexp(a, 0),
    "log1p": np.log1p,
    "expm1": np.expm1,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "pow": np.power,
    "less": lambda a, b: (a < b).astype(float),
    "equal": lambda a, b: (a == b).astype(float),
    "where": np.where,
    "stop": lambda a: a,
    "sum": lambda a: a.sum(-1, keepdims=True),
    "max": lambda a: a.max(-1, keepdims=True),
}
_INVERSE: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda v: np.log(v) - np.log1p(-v),
    "tanh": np.arctanh,
    "exp": np.log,
}


class UnmatchableError(Exception):
    """A key, or a step, that this way of comparing cannot compare; why, as a clause."""


@dataclass(frozen=True)
class Weight:
    """A weight whose values are not known; its label is the same in every change of a program."""

    label: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """A summand of an argument: `times` ⊙ (`base` @ weights).

    Attributes:
        kind: ``matrix``, ``bias``, or ``unit`` where each unit has a weight of its own for a row.
        labels: of the weights.
        reads: what is multiplied: ``i0``, ``s0``, ``n19``, or ``1`` where no row is.
        scaled: what the product is multiplied by, unit by unit.
        base: (N, k).
        times: (N, n); None: nothing.
    """

    kind: str
    labels: frozenset[str]
    reads: str
    scaled: tuple[str, ...]
    base: Array
    times: Array | None


@dataclass(frozen=True)
class Linear:
    """A row whose values hang linearly on weights: ``fixed`` (N, n), and groups."""

    fixed: Array
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Fitted:
    """An argument of an activation, or a new state, with the weights that were found for it.

    Attributes:
        node: of the program.
        value: (N, n).
        argument: how it hangs on weights.
        weights: of each of its groups, (k, n).
        turned: the sigmoid of the negative argument was recorded as the gate.
    """

    node: int
    value: Array
    argument: Linear
    weights: tuple[Array, ...] = ()
    turned: bool = False


@dataclass
class Match:
    """A program that gives a step's outputs.

    Attributes:
        fitted: the arguments, by the activation's node.
        values: of the activations, by their nodes.
        new: the outputs' entries, in the order of the key's states.
    """

    fitted: dict[int, Fitted]
    values: dict[int, Array]
    new: tuple[int, ...] = ()


class Recorded:
    """What was recorded of a step, as arrays.

    Args:
        run: see `unroll.labs.child.observe_cell`.
        states: of the key.
    """

    def __init__(self, run: Mapping[str, Any], states: int) -> None:
        levels = run["c"] if states == 2 else run["c"][:1]
        L, (M, self.H) = len(levels), run["h"].shape
        self.x = np.tile(run["x"], (L, 1))
        h, c = np.tile(run["h"], (L, 1)), np.concatenate(list(levels))
        self.states = [h, c][:states]
        self.many, self.close = L * M, 3e-3 if run["float32"] else 1e-7
        self.entries = run["tape"]
        self.outputs: list[Array] = []
        for one in run["outputs"]:
            value = np.asarray(one["value"])[: self.many]
            if not any(self.same(value, other) for other in self.outputs):
                self.outputs.append(value)
        self._chunks: dict[int, tuple[list[tuple[Array, int]], Array]] = {}
        self._arguments: dict[tuple[str, int], list[Array]] = {}
        self._spans: dict[tuple[Any, ...], list[Array]] = {}

    def same(self, one: Array, other: Array) -> bool:
        return one.shape == other.shape and bool(np.allclose(one, other, self.close, self.close))

    def chunks(self, width: int) -> tuple[list[tuple[Array, int]], Array]:
        """Every different recorded value (N, width), also as a part of a wider one, with its entry; and all as (C, N width)."""
        if width not in self._chunks:
            kept: list[tuple[Array, int]] = []
            rows: set[bytes] = set()
            for n, entry in enumerate(self.entries):
                value = np.asarray(entry["value"], dtype=float)[: self.many]
                parts, left = divmod(value.shape[1], width)
                if left or not parts or not np.isfinite(value).all():
                    continue
                for j in range(parts):
                    for one in (value[:, j * width : (j + 1) * width], value[:, j::parts])[: 2 if parts > 1 else 1]:
                        key = np.round(one, 9).tobytes()
                        if key not in rows:
                            rows.add(key)
                            kept.append((np.ascontiguousarray(one), n))
            flat = np.array([one.ravel() for one, _ in kept]).reshape(len(kept), -1)
            self._chunks[width] = kept, flat
        return self._chunks[width]

    def entry_of(self, value: Array) -> dict[str, Any] | None:
        """The first entry that holds a value."""
        kept, flat = self.chunks(value.shape[1])
        if not kept:
            return None
        near = (np.abs(flat - value.ravel()) <= self.close * (1 + np.abs(value).max())).all(1)
        return dict(self.entries[kept[int(near.argmax())][1]]) if near.any() else None

    def count(self, function: str, value: Array) -> int:
        """How often a function of torch's gave a value."""
        width = value.shape[1]
        found = 0
        for entry in self.entries:
            if entry["function"] == function:
                made = np.asarray(entry["value"], dtype=float)[: self.many]
                parts = [made[:, j : j + width] for j in range(0, made.shape[1] - width + 1, width)]
                found += sum(self.same(part, value) or self.same(1 - part, value) for part in parts)
        return found

    def arguments(self, op: str, width: int) -> list[Array]:
        """Values that differ from row to row, whose ``op`` was recorded; of none, every such value."""
        if (op, width) not in self._arguments:
            kept, _ = self.chunks(width)
            found: list[Array] = []
            with np.errstate(all="ignore"):
                for one, _ in kept:
                    if np.ptp(one, axis=0).max() < self.close:
                        continue  # a part of a weight
                    made = [_INVERSE[op](one)] if op in _INVERSE else [one]
                    if op == "sigmoid":
                        made.append(-made[0])
                    elif op not in _INVERSE and op not in ("", "mul") and self.entry_of(FUNCTIONS[op](one)) is None:
                        continue
                    found += [p for p in made if np.isfinite(p).all() and np.abs(p).max() < 30]
            self._arguments[op, width] = found
        return self._arguments[op, width]

    def spanned(self, op: str, argument: Linear, key: tuple[Any, ...]) -> list[Array]:
        """Those of `arguments` that an argument can be, for some weights."""
        if key not in self._spans:
            wanted = self.arguments(op, argument.fixed.shape[1])
            if len(wanted) == 0:
                self._spans[key] = []
            else:
                stack = np.stack(wanted) - argument.fixed
                rest = _residual(argument, stack)
                bound = self.close * (1 + np.abs(stack).max((1, 2)))
                self._spans[key] = [p for p, r, b in zip(wanted, rest, bound, strict=True) if r <= b]
        return self._spans[key]


def _columns(argument: Linear) -> Array:
    """What each unit's weights are multiplied by, (n, N, k); (1, N, k) where that is the same for every unit."""
    n = 1 if all(group.times is None for group in argument.groups) else argument.fixed.shape[1]
    many = len(argument.fixed)
    parts = [
        np.broadcast_to(g.base if g.times is None else g.times.T[:, :, None] * g.base, (n, many, g.base.shape[1]))
        for g in argument.groups
    ]
    found = np.concatenate(parts, axis=2)
    if found.shape[2] + SPARE > many:
        raise UnmatchableError("too few rows were recorded for so many weights")
    return found


def _of_units(argument: Linear, units: NDArray[np.int64]) -> Linear:
    groups = [replace(g, times=None if g.times is None else g.times[:, units]) for g in argument.groups]
    return Linear(argument.fixed[:, units], tuple(groups))


def _residual(argument: Linear, wanted: Array) -> Array:
    """The greatest distance of (C, N, n) values from what an argument can be, over some of a wide one's units."""
    units = np.unique(np.linspace(0, wanted.shape[2] - 1, UNITS).astype(int))
    wanted, columns = wanted[:, :, units], _columns(_of_units(argument, units))
    u, s, _ = np.linalg.svd(columns, full_matrices=False)
    q = u * (s > 1e-10 * s[:, :1])[:, None, :]
    sides = np.transpose(wanted, (2, 1, 0))  # (n, N, C)
    worst: Array = np.abs(sides - q @ (q.transpose(0, 2, 1) @ sides)).max((0, 1))
    return worst


def weights_of(argument: Linear, value: Array) -> tuple[Array, ...]:
    """The weights of each group (k, n) by which an argument has a value."""
    columns, wanted = _columns(argument), value - argument.fixed
    sizes = [group.base.shape[1] for group in argument.groups]
    solved = [
        np.linalg.lstsq(one, wanted if len(columns) == 1 else wanted[:, k : k + 1], rcond=1e-10)[0]
        for k, one in enumerate(columns)
    ]
    return tuple(np.split(np.concatenate(solved, 1), np.cumsum(sizes)[:-1]))


# --- going through a program ----------------------------------------------------------------------------------------------------


@dataclass
class Walk:
    """A program, node by node.

    Attributes:
        forced: nodes that are arguments although no activation follows, as one has been left out.
    """

    program: Program
    x: Array
    states: Sequence[Array]
    forced: frozenset[int] = frozenset()
    values: dict[int, Any] = field(default_factory=dict)

    def order(self) -> list[int]:
        return self.program.needed(self.program.new)

    def value(self, n: int) -> Any:
        """An array, a `Linear`, a `Weight` or a number, of a node whose operands are known."""
        node = self.program.nodes[n]
        op, of = node.op, node.of
        if op == "input":
            return self.x
        if op == "state":
            return self.states[of[0]]
        if op == "number":
            return float(of[0])
        if op == "parameter":
            return Weight(str(of[0]), tuple(node.shape))
        if op == "constant":
            return np.asarray(self.program.constants[of[0]].double().cpu().numpy())
        args = [self.values[a] for a in node.args]
        if not any(isinstance(a, Linear | Weight) for a in args):
            return self._known(op, of, args, n)
        if not node.row:
            shown = ", ".join(a.label if isinstance(a, Weight) else "·" for a in args)
            if op == "slice":
                return Weight(f"{shown}[{of[1]}:{of[2]}]", tuple(node.shape))
            return Weight(shown if op == "transpose" else f"{op}{list(of)}({shown})", tuple(node.shape))
        return self._linear(op, of, args, node.args, n)

    def _known(self, op: str, of: tuple[Any, ...], args: list[Any], n: int) -> Any:
        if op == "linear":
            return args[0] @ args[1].T
        if op == "slice":
            return np.moveaxis(np.moveaxis(args[0], of[0], 0)[of[1] : of[2]], 0, of[0])
        if op == "concat":
            many = max(np.shape(a)[0] for a in args)
            parts = [np.broadcast_to(a, (many, a.shape[-1])) if self.program.nodes[n].row else a for a in args]
            return np.concatenate(parts, of[0])
        if op == "transpose":
            return np.swapaxes(args[0], *of)
        if op in ("reshape", "expand"):
            shape = self.program.nodes[n].shape
            return np.broadcast_to(args[0], shape) if op == "expand" else args[0].reshape(shape)
        if op == "widen":
            return np.broadcast_to(args[0], (len(args[0]), of[0]))
        if op not in FUNCTIONS:
            raise UnmatchableError(f"its program has the operation {op}")
        with np.errstate(all="ignore"):
            return FUNCTIONS[op](*args)

    def _linear(self, op: str, of: tuple[Any, ...], args: list[Any], at: tuple[int, ...], n: int) -> Linear:
        width = self.program.nodes[n].shape[0]
        if op == "linear" and isinstance(args[1], Weight):
            many = len(self.x)
            if isinstance(args[0], Linear):
                raise UnmatchableError("a product of two weights stands in it")
            group = Group("matrix", frozenset({args[1].label}), self.named(at[0]), (), args[0], None)
            return Linear(np.zeros((many, width)), (group,))
        if op in ("add", "sub"):
            a, b = (self._as_linear(v, width) for v in args)
            b = b if op == "add" else Linear(-b.fixed, b.groups)
            return Linear(a.fixed + b.fixed, _merged((*a.groups, *b.groups)))
        if op == "neg":
            return Linear(-args[0].fixed, args[0].groups)
        if op == "slice" and isinstance(args[0], Linear) and of[0] in (-1, 1):
            cut = slice(of[1], of[2])
            groups = tuple(
                replace(
                    g,
                    labels=frozenset(f"{label}[{of[1]}:{of[2]}]" for label in g.labels),
                    times=None if g.times is None else g.times[:, cut],
                )
                for g in args[0].groups
            )
            return Linear(args[0].fixed[:, cut], groups)
        if op in ("mul", "div"):
            return self._scaled(op, args, at, width)
        raise UnmatchableError(f"{op} of what is linear in weights")

    def _scaled(self, op: str, args: list[Any], at: tuple[int, ...], width: int) -> Linear:
        if op == "mul" and not isinstance(args[0], Linear | Weight):
            args, at = args[::-1], at[::-1]
        one, other = args
        if isinstance(other, Weight) and op == "mul":
            if isinstance(one, Weight):
                raise UnmatchableError("a product of two weights stands in it")
            if isinstance(one, Linear):  # weights times a weight: some other weights
                if one.fixed.any():
                    raise UnmatchableError("a weight scales a sum")
                return one
        if isinstance(other, Linear | Weight):
            raise UnmatchableError(f"{op} of what is linear in weights")
        if isinstance(one, Weight) and op == "mul" and isinstance(other, np.ndarray):
            wide = np.broadcast_to(other, (len(self.x), width))
            ones = np.ones((len(self.x), 1))
            return Linear(
                np.zeros(wide.shape), (Group("unit", frozenset({one.label}), "1", (self.named(at[1]),), ones, wide),)
            )
        scaled = self._as_linear(one, width)
        factor = np.broadcast_to(other if op == "mul" else 1 / other, scaled.fixed.shape)
        name = () if isinstance(other, float) else (self.named(at[1]),)
        groups = tuple(
            replace(
                g,
                scaled=tuple(sorted((*g.scaled, *name))),
                times=None if not name and g.times is None else factor * (1 if g.times is None else g.times),
            )
            for g in scaled.groups
        )
        return Linear(scaled.fixed * factor, _merged(groups))

    def _as_linear(self, value: Any, width: int) -> Linear:
        many = len(self.x)
        if isinstance(value, Linear):
            return value
        if isinstance(value, Weight):
            group = Group("bias", frozenset({value.label}), "1", (), np.ones((many, 1)), None)
            return Linear(np.zeros((many, width)), (group,))
        return Linear(np.broadcast_to(np.asarray(value, dtype=float), (many, width)), ())

    def named(self, n: int) -> str:
        node = self.program.nodes[n]
        return f"{node.op[0]}{node.of[0]}" if node.op in ("input", "state") else f"n{n}"


def _merged(groups: Sequence[Group]) -> tuple[Group, ...]:
    """Groups of the same columns are one."""
    found: dict[tuple[str, tuple[str, ...]], Group] = {}
    for group in groups:
        key = group.reads, group.scaled
        before = found.get(key)
        found[key] = group if before is None else replace(before, labels=before.labels | group.labels)
    return tuple(found.values())


@dataclass
class Search:
    """The search for a program in what was recorded.

    Attributes:
        deepest: how many arguments and outputs have been found at most, and the node that was not found then.
    """

    recorded: Recorded
    program: Program
    forced: frozenset[int] = frozenset()
    deepest: tuple[int, int | None] = (-1, None)
    _tried: int = 0

    def match(self, new: tuple[int, ...]) -> Match | None:
        """The first way in which the program gives these outputs.

        Raises:
            UnmatchableError: the program cannot be compared.
        """
        walk = Walk(self.program, self.recorded.x, self.recorded.states, self.forced)
        found = next(self._from(walk, walk.order(), 0, {}, new), None)
        return found

    def _from(
        self,
        walk: Walk,
        order: list[int],
        at: int,
        fitted: dict[int, Fitted],
        new: tuple[int, ...],
    ) -> Iterator[Match]:
        program, recorded = self.program, self.recorded
        while at < len(order):
            n = order[at]
            node = program.nodes[n]
            force = [a for a in node.args if isinstance(walk.values.get(a), Linear) and self._needs(walk, n, a)]
            if force:
                a = force[0]
                op = node.op if len(node.args) == 1 and node.op in FUNCTIONS and a not in self.forced else ""
                argument: Linear = walk.values[a]
                signature = tuple((g.reads, g.scaled) for g in argument.groups), _digest(argument)
                self._note(len(fitted), n)
                for p in recorded.spanned(op, argument, (op, signature)):
                    self._tried += 1
                    if self._tried > _MOST:
                        return
                    one = Fitted(a, p, argument)
                    inner = replace(walk, values={**walk.values, a: p})
                    yield from self._from(inner, order, at, {**fitted, n: one}, new)
                return
            walk.values[n] = walk.value(n)
            if n in program.new:
                self._note(len(fitted), n)
                output = self._output(n, walk.values[n], new[program.new.index(n)])
                if output is None:
                    return
                fitted = {**fitted, n: output}
            at += 1
        yield self._made(walk, fitted, new)

    def _output(self, n: int, value: Any, number: int) -> Fitted | None:
        """A new state, where it is the output of this number."""
        wanted, recorded = self.recorded.outputs[number], self.recorded
        if isinstance(value, Linear):
            stack = (wanted - value.fixed)[None]
            fits = _residual(value, stack)[0] <= recorded.close * (1 + np.abs(stack).max())
            return Fitted(n, wanted, value) if fits else None
        if not (np.shape(value) == wanted.shape and recorded.same(value, wanted)):
            return None
        return Fitted(n, wanted, Linear(wanted, ()))

    def _needs(self, walk: Walk, n: int, a: int) -> bool:
        """Whether a node cannot be computed while one of its operands is linear in weights."""
        op = self.program.nodes[n].op
        if a in self.forced:
            return True
        if op in ("add", "sub", "neg", "slice"):
            return False
        others = [walk.values[b] for b in self.program.nodes[n].args if b != a]
        if op == "mul":
            return any(isinstance(b, Linear) for b in others) or len(others) == 0
        if op == "div":
            return self.program.nodes[n].args[1] == a
        return True

    def _note(self, depth: int, n: int) -> None:
        if depth > self.deepest[0]:
            self.deepest = depth, n

    def _made(self, walk: Walk, fitted: dict[int, Fitted], new: tuple[int, ...]) -> Match:
        found = {}
        for n, one in fitted.items():
            turned = self.program.nodes[n].op == "sigmoid" and self._is_turned(one.value)
            found[n] = replace(
                one, weights=weights_of(one.argument, one.value) if one.argument.groups else (), turned=turned
            )
        values = {n: walk.values[n] for n in fitted if isinstance(walk.values.get(n), np.ndarray)}
        return Match(found, values, new)

    def _is_turned(self, argument: Array) -> bool:
        kept, flat = self.recorded.chunks(argument.shape[1])
        gate = FUNCTIONS["sigmoid"](argument).ravel()
        first = [int((np.abs(flat - g).max(1) < self.recorded.close * 10).argmax()) for g in (gate, 1 - gate)]
        there = [
            bool(np.abs(flat[k] - g).max() < self.recorded.close * 10)
            for k, g in zip(first, (gate, 1 - gate), strict=True)
        ]
        return there[1] and (not there[0] or kept[first[1]][1] < kept[first[0]][1])


def _digest(argument: Linear) -> tuple[Any, ...]:
    return (
        argument.fixed.tobytes(),
        *((g.base.tobytes(), None if g.times is None else g.times.tobytes()) for g in argument.groups),
    )


def computed(
    program: Program, x: Array, states: Sequence[Array], weights: Mapping[frozenset[str], Array], turned: bool = False
) -> list[Array] | None:
    """The new states by a program with given weights, by their labels; None where one of them is not among them."""
    walk = Walk(program, x, states)
    for n in walk.order():
        node = program.nodes[n]
        for a in node.args:
            value = walk.values[a]
            if isinstance(value, Linear) and node.op not in ("add", "sub", "neg", "slice"):
                if node.op == "mul" and not any(isinstance(walk.values[b], Linear) for b in node.args if b != a):
                    continue
                made = _evaluated(value, weights)
                if made is None:
                    return None
                walk.values[a] = made
        walk.values[n] = walk.value(n)
    found = []
    for n in program.new:
        value = walk.values[n]
        made = _evaluated(value, weights) if isinstance(value, Linear) else value
        if made is None:
            return None
        found.append(made)
    return found


def _evaluated(value: Linear, weights: Mapping[frozenset[str], Array]) -> Array | None:
    total = value.fixed
    for group in value.groups:
        known = weights.get(group.labels)
        if known is None:
            known = next((w for labels, w in weights.items() if labels & group.labels), None)
        if known is None and group.reads == "1":
            continue  # a bias that the step has not
        if known is None or known.shape[0] != group.base.shape[1]:
            return None
        product = group.base @ known
        total = total + (product if group.times is None else group.times * product)
    return total
