"""Finds the equations of a recorded LSTM step by value: which affine maps and activations c_t and h_t are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "sigmoid": lambda a: 1 / (1 + np.exp(-np.clip(a, -700, 700))),
    "tanh": np.tanh,
    "identity": lambda a: a,
    "relu": lambda a: np.maximum(a, 0),
}
_KNOWN = frozenset(
    """relu leaky_relu elu selu gelu silu softmax log_softmax softplus softsign hardsigmoid hardtanh hardswish mish relu6
    logsigmoid sin cos exp abs celu""".split()  # noqa: SIM905
)


@dataclass(eq=False)
class Gate:
    """A factor that depends on x and h alone: sign · φ(affine map).

    Attributes:
        function: φ by name; ``constant`` where it depends on nothing.
        sign: 1 or -1.
        map: (1 + D + H, H), the bias, U and W of its argument; None where the argument is not known.
        values: (M, H), without the sign.
        name, line: the author's, if such a value was recorded.
        parameters: what it is computed from.
        index: which of the recorded values it is.
    """

    function: str
    sign: float
    map: Array | None
    values: Array
    name: str | None = None
    line: int | None = None
    parameters: tuple[str, ...] = ()
    index: int | None = None

    @property
    def constant(self) -> float | None:
        """Its value where it is one number."""
        return float(self.sign * self.values.flat[0]) if self.function == "constant" else None


@dataclass(eq=False)
class Entry:
    """A recorded value of H columns: (3, M, H)."""

    values: Array
    name: str | None
    line: int | None
    function: str
    parameters: tuple[str, ...]
    fixed: bool  # it does not depend on c


@dataclass
class Equations:
    """What was found of a step; each part is None where it was not found.

    Attributes:
        f: what c_{t-1} is multiplied by.
        i, g: the factors of the rest of c_t.
        rest: ``product``, ``single`` (one factor, in g), ``sum``, ``zero``, or None.
        rest_sign: -1 where the rest is subtracted.
        o: what h_t has beside φ(u).
        u: ``c_t``, ``c_prev``, ``none``.
        u_function: φ.
        around: an activation around c_t or around h_t, by ``c_t`` and ``h_t``.
        h_sum: h_t is o plus φ(u).
        squashed: c_{t-1} goes through this before its multiplication.
        extra: what is added beside the lab's terms, by ``c_t`` and ``h_t``.
        peephole: the parts that depend on c within their activation.
        of_c: gates whose argument has c in place of h.
    """

    f: Gate | None = None
    i: Gate | None = None
    g: Gate | None = None
    rest: str | None = None
    rest_sign: float = 1.0
    o: Gate | None = None
    u: str | None = None
    u_function: str | None = None
    around: dict[str, str] = field(default_factory=dict)
    h_sum: bool = False
    squashed: str | None = None
    extra: dict[str, str] = field(default_factory=dict)
    peephole: list[str] = field(default_factory=list)
    of_c: list[str] = field(default_factory=list)

    @property
    def gates(self) -> dict[str, Gate]:
        """Those found, by the lab's letters."""
        parts = {"i": self.i, "f": self.f, "c̃": self.g, "o": self.o}
        return {name: gate for name, gate in parts.items() if gate is not None and gate.function != "constant"}

    @property
    def c_right(self) -> bool:
        """Whether c_t is that of an LSTM."""
        return (
            _is(self.f, "sigmoid")
            and self.rest == "product"
            and self.rest_sign == 1
            and _is(self.i, "sigmoid")
            and _is(self.g, "tanh")
            and not (self.around.get("c_t") or "c_t" in self.extra or self.squashed or self.peephole or self.of_c)
        )

    @property
    def h_right(self) -> bool:
        """Whether h_t is that of an LSTM."""
        return (
            _is(self.o, "sigmoid")
            and self.u == "c_t"
            and self.u_function == "tanh"
            and not (self.around.get("h_t") or "h_t" in self.extra)
            and not self.h_sum
        )

    @property
    def score(self) -> int:
        """How much was found, and how much of it is right."""
        found = sum(part is not None for part in (self.f, self.rest, self.u))
        right = _is(self.f, "sigmoid") + _is(self.i, "sigmoid") + _is(self.g, "tanh") + _is(self.o, "sigmoid")
        right += (self.u == "c_t") + (self.u_function == "tanh")
        return (
            4 * found
            + right
            + 10 * (self.c_right + self.h_right)
            - 2 * (len(self.around) + len(self.peephole) + len(self.extra))
        )


def _is(gate: Gate | None, function: str) -> bool:
    return gate is not None and gate.function == function and gate.sign == 1 and gate.map is not None


class Record:
    """A recorded run.

    Args:
        run: see `unroll.labs.child.observe_cell`.
    """

    def __init__(self, run: dict[str, Any]) -> None:
        x, h, c = (np.asarray(run[key], float) for key in ("x", "h", "c"))
        self.M, self.H, self.D = h.shape[0], h.shape[1], x.shape[1]
        self.x, self.h, self.c = x, h, c
        self.close = 5e-3 if run["float32"] else 1e-6
        ones = np.ones((self.M, 1))
        self.design = np.concatenate([ones, x, h], 1)
        self.inverse = np.linalg.pinv(self.design)
        every = [np.concatenate([ones, x, h, c[k]], 1) for k in range(3)]
        self.full = np.concatenate(every)
        self.full_inverse = np.linalg.pinv(self.full)
        self.outputs = [np.asarray(one["value"], float).reshape(3, self.M, self.H) for one in run["outputs"]]
        self.entries = list(self._entries(run["tape"]))
        self._gates: list[Gate] | None = None

    def _entries(self, tape: Sequence[dict[str, Any]]) -> Iterator[Entry]:
        seen: list[Array] = []
        for one in tape:
            value = np.asarray(one["value"], float)
            blocks = value.shape[1] // self.H
            for n in range(blocks):
                part = value[:, n * self.H : (n + 1) * self.H].reshape(3, self.M, self.H)
                if not np.isfinite(part).all():
                    continue
                name = one["name"] if blocks == 1 else None
                known = next(
                    (k for k, other in enumerate(seen) if other.shape == part.shape and np.array_equal(other, part)),
                    None,
                )
                if known is not None and name is None:
                    continue
                seen.append(part)
                yield Entry(part, name, one["line"], one["function"], tuple(one["parameters"]), self.fixed(part))

    def fixed(self, values: Array) -> bool:
        """Whether (3, M, H) are the same for the three values of c."""
        return bool(np.abs(values - values[:1]).max() <= self.close * (1 + np.abs(values[0]).max()))

    def zero(self, values: Array, scale: float = 1.0) -> bool:
        return bool(np.isfinite(values).all() and np.abs(values).max() <= self.close * scale)

    def line_of(self, values: Array) -> int | None:
        """The author's line that computes (3, M, H)."""
        fits = [e for e in self.entries if e.line is not None and np.allclose(e.values, values, 1e-9, 1e-12)]
        return next((e.line for e in fits if e.name), fits[0].line if fits else None)

    # --- affine maps and gates ---------------------------------------------------------------------------------------

    def affine(self, values: Array) -> Array | None:
        """The map of (M, H) that are affine in x and h."""
        if not np.isfinite(values).all():
            return None
        found = self.inverse @ values
        return found if self.zero(values - self.design @ found, 1 + float(np.abs(values).max())) else None

    def affine_full(self, values: Array) -> Array | None:
        """The map of (3, M, H) that are affine in x, h and c: (1 + D + 2 H, H)."""
        flat = values.reshape(-1, self.H)
        if not np.isfinite(flat).all():
            return None
        found = self.full_inverse @ flat
        return found if self.zero(flat - self.full @ found, 1 + float(np.abs(flat).max())) else None

    def gate(self, values: Array) -> Gate | None:
        """What (M, H) are as an activation of an affine map."""
        found = self._gate(values) or self._nested(values)
        if found is not None:
            self._name(found)
        return found

    def _nested(self, values: Array) -> Gate | None:
        """An activation of an activation, such as tanh(tanh(a))."""
        for outer, between in _arguments(values):
            if outer in ("sigmoid", "tanh") and np.isfinite(between).all():
                for inner, argument in _arguments(between):
                    found = self.affine(argument) if inner in ("sigmoid", "tanh") else None
                    if found is not None:
                        return Gate(f"{outer} of {inner}", 1.0, found, values)
        return None

    def _gate(self, values: Array) -> Gate | None:
        if not np.isfinite(values).all():
            return None
        straight = self.affine(values)
        if straight is not None:
            if self.zero(straight[1:]) and self.zero(straight[0] - straight[0, :1], 1 + abs(straight[0, 0])):
                return Gate("constant", 1.0, None, values)
            for entry in self.entries:  # one that is straight in a part of its range
                if (
                    entry.fixed
                    and entry.function in _KNOWN
                    and self.zero(entry.values[0] - values, 1 + float(np.abs(values).max()))
                ):
                    return Gate(entry.function, 1.0, None, values)
            return Gate("identity", 1.0, straight, values)
        for sign in (1.0, -1.0):
            for function, argument in _arguments(sign * values):
                found = self.affine(argument)
                if found is not None:
                    if function == "tanh" and sign < 0:
                        continue
                    return Gate(function, sign, found, sign * values)
        for entry in self.entries:
            if entry.fixed and entry.function in _KNOWN:
                for sign in (1.0, -1.0):
                    if self.zero(entry.values[0] - sign * values, 1 + float(np.abs(values).max())):
                        return Gate(entry.function, sign, self._map_under(entry), sign * values)
        return None

    def _map_under(self, entry: Entry) -> Array | None:
        """The map that a ReLU was applied to."""
        if entry.function == "relu":
            for other in self.entries:
                if other.fixed and np.allclose(np.maximum(other.values, 0), entry.values, 1e-9, 1e-12):
                    found = self.affine(other.values[0])
                    if found is not None:
                        return found
        return None

    def _name(self, gate: Gate, letter: str = "") -> None:
        """Give a gate the name and line of a recorded value that is its own, if possible of one that begins with a letter."""
        scale = 1 + float(np.abs(gate.values).max())
        fits = [
            k for k, entry in enumerate(self.entries) if entry.fixed and self.zero(entry.values[0] - gate.values, scale)
        ]
        if gate.function == "identity":
            fits.reverse()
        named = [k for k in fits if self.entries[k].name]
        own = [k for k in named if letter and str(self.entries[k].name).lower().startswith(letter)]
        best = next(iter(own + named + fits), None)
        if best is not None:
            entry = self.entries[best]
            gate.name, gate.line, gate.parameters, gate.index = entry.name, entry.line, entry.parameters, best

    def reads(self, gate: Gate) -> list[str]:
        """Which of h_{t-1} and x_t a gate's argument depends on; neither where the argument is not known."""
        parts = {"h_{t-1}": slice(1 + self.D, None), "x_t": slice(1, 1 + self.D)}
        return [
            n for n, part in parts.items() if gate.map is not None and np.abs(gate.map[part]).max() >= 10 * self.close
        ]

    def gates(self) -> list[Gate]:
        """Every recorded value that is an activation of an affine map, and both activations of the maps themselves."""
        if self._gates is None:
            made: list[Gate] = []
            maps: list[Gate] = []
            for entry in self.entries:
                if not entry.fixed or any(
                    np.allclose(entry.values[0], other.values, 1e-9, 1e-12) for other in made + maps
                ):
                    continue
                found = self._gate(entry.values[0]) or self._nested(entry.values[0])
                if found is None or found.function == "constant":
                    continue
                found.values, found.sign = found.sign * found.values, 1.0
                found.name, found.line, found.parameters = entry.name, entry.line, entry.parameters
                (maps if found.function == "identity" else made).append(found)
            for one in maps[-24:]:
                for function in ("sigmoid", "tanh"):
                    values = FUNCTIONS[function](one.values)
                    if not any(np.allclose(values, other.values, 1e-9, 1e-12) for other in made):
                        made.append(Gate(function, 1.0, one.map, values, None, one.line, one.parameters))
            self._gates = made + maps
        return self._gates

    # --- the step ----------------------------------------------------------------------------------------------------

    def equations(self, h_t: Array, c_t: Array) -> Equations:
        """The equations of two outputs (3, M, H)."""
        found = Equations()
        self._find_c(found, c_t)
        self._find_h(found, h_t, c_t)
        for letter, gate in found.gates.items():
            self._name(gate, letter[0])
        return found

    def _linear_in_c(self, values: Array, c: Array) -> tuple[Array, Array] | None:
        """Factor and rest (M, H) of values = factor · c + rest."""
        if not np.isfinite(values).all():
            return None
        factor = (values[1] - values[0]) / (c[1] - c[0])
        rest = values[0] - factor * c[0]
        return (factor, rest) if self.zero(values[2] - factor * c[2] - rest, 1 + float(np.abs(values).max())) else None

    def _find_c(self, found: Equations, c_t: Array) -> None:
        split = self._linear_in_c(c_t, self.c)
        if split is None:
            for function, argument in [a for a in _arguments(c_t) if a[0] in ("sigmoid", "tanh")]:
                split = self._linear_in_c(argument, self.c)
                if split is not None:
                    found.around["c_t"] = function
                    break
        if split is None:
            split = self._linear_in_c(c_t, np.tanh(self.c))
            found.squashed = "tanh" if split is not None else None
        if split is None:
            self._find_peephole(found, c_t)
            return
        found.f = self.gate(split[0])
        if found.f is None:
            more = self.gate(split[0] - 1)
            if more is not None and more.function == "sigmoid" and more.sign > 0:
                found.f, found.extra["c_t"] = more, "c_{t-1}"
        if found.f is None:
            found.f = self._product_as_one(split[0])
        self._find_rest(found, split[1])
        for name, term in self._terms() if found.rest is None else ():
            self._find_rest(found, split[1] - term[0])
            if found.rest == "product":
                found.extra["c_t"] = name
                break
            found.rest, found.i, found.g, found.rest_sign = None, None, None, 1.0

    def _terms(self) -> list[tuple[str, Array]]:
        """What may be added to a state beside the lab's terms, (3, M, H) each, that does not depend on c."""
        inputs = [("h_{t-1}", self.h), ("x_t", self.x)]
        return [(name, np.tile(values, (3, 1, 1))) for name, values in inputs if values.shape[1] == self.H]

    def _product_as_one(self, values: Array) -> Gate | None:
        for one in self.gates():
            with np.errstate(all="ignore"):
                other = self._gate(values / one.values)
            if other is not None and other.function in ("sigmoid", "tanh") and one.function in ("sigmoid", "tanh"):
                return Gate("product", 1.0, None, values, one.name, one.line)
        return None

    def _find_rest(self, found: Equations, rest: Array) -> None:
        if self.zero(rest):
            found.rest = "zero"
            return
        single = self.gate(rest)
        if single is not None:
            found.rest, found.g, found.rest_sign = "single", single, single.sign
            return
        best: tuple[int, Gate, Gate, float] | None = None
        for one in self.gates():
            with np.errstate(all="ignore"):
                other = self._gate(rest / one.values)
            if other is None or other.function == "constant":
                continue
            for i, g in ((one, other), (other, one)):
                worth = 4 * (i.function == "sigmoid") + 3 * (g.function == "tanh") + (other.sign > 0)
                worth += i.function != "identity"
                if best is None or worth > best[0]:
                    best = worth, i, g, other.sign
        if best is not None:
            found.rest, found.i, found.g, found.rest_sign = "product", best[1], best[2], best[3]
            for gate in (found.i, found.g):
                gate.sign = 1.0
                self._name(gate)
            self._look_for_minus(found)
            return
        for one in self.gates():
            other = self._gate(rest - one.values)
            if other is not None and other.function in ("sigmoid", "tanh") and one.function in ("sigmoid", "tanh"):
                found.rest = "sum"
                found.i, found.g = (one, other) if one.function == "sigmoid" else (other, one)
                return

    def _look_for_minus(self, found: Equations) -> None:
        """tanh is odd: that i ⊙ c̃ is subtracted shows only where the author's own tanh is the opposite of c̃."""
        g = found.g
        if g is None or g.function != "tanh" or g.index is not None:
            return
        for entry in self.entries:
            if entry.fixed and entry.function == "tanh" and self.zero(entry.values[0] + g.values, 2.0):
                g.values, g.map = -g.values, None if g.map is None else -g.map
                found.rest_sign = -1.0
                self._name(g)
                return

    def _find_peephole(self, found: Equations, c_t: Array) -> None:
        """c_t whose gates depend on c as well."""
        gates = [e for e in self.entries if (e.values > 0).all() and (e.values < 1).all()]
        tanhs = [e for e in self.entries if (np.abs(e.values) < 1).all() and e not in gates]
        maps: dict[int, Array | None] = {}
        for kind, pool in (("sigmoid", gates), ("tanh", tanhs)):
            for e in pool:
                maps[id(e)] = self.affine_full(dict(_arguments(e.values))[kind])
        gates, tanhs = ([e for e in pool if maps[id(e)] is not None] for pool in (gates, tanhs))
        for f in gates:
            for i in gates:
                for g in tanhs:
                    if self.zero(c_t - f.values * self.c - i.values * g.values, 1 + float(np.abs(c_t).max())):
                        for name, e in (("f", f), ("i", i), ("c̃", g)):
                            self._of_c(found, name, e, maps[id(e)])
                        found.f, found.i, found.g = (self._with_c(e, maps[id(e)]) for e in (f, i, g))
                        found.f.function = found.i.function = "sigmoid"
                        found.g.function, found.rest = "tanh", "product"
                        return

    def _of_c(self, found: Equations, name: str, entry: Entry, full: Array | None) -> None:
        if full is None:
            return
        w_h, w_c = full[1 + self.D : 1 + self.D + self.H], full[1 + self.D + self.H :]
        if not self.zero(w_c):
            (found.of_c if self.zero(w_h) else found.peephole).append(name)

    def _with_c(self, entry: Entry, full: Array | None) -> Gate:
        part = None if full is None else full[: 1 + self.D + self.H]
        return Gate("sigmoid", 1.0, part, entry.values[0], entry.name, entry.line, entry.parameters)

    def _share(self, values: Array, by: Array) -> Array | None:
        """r (M, H) with values = r · by for all c."""
        if not np.isfinite(values).all():
            return None
        largest = np.abs(by).argmax(0)[None]
        with np.errstate(all="ignore"):
            found: Array = np.take_along_axis(values, largest, 0)[0] / np.take_along_axis(by, largest, 0)[0]
        if not np.isfinite(found).all():
            return None
        return found if self.zero(values - found * by, 1 + float(np.abs(values).max())) else None

    def _find_h(self, found: Equations, h_t: Array, c_t: Array) -> None:
        sources = (("c_t", c_t), ("c_prev", self.c))
        tries: list[tuple[int, Gate | None, str, str]] = []
        for name, u in sources:
            for function in ("tanh", "identity", "sigmoid", "relu"):
                share = self._share(h_t, FUNCTIONS[function](u))
                gate = None if share is None else self.gate(share)
                if gate is not None:
                    tries.append((2 * (name == "c_t") + (function == "tanh"), gate, name, function))
        if tries:
            _, found.o, found.u, found.u_function = max(tries, key=lambda one: one[0])
            return
        if self.fixed(h_t):  # c does not reach it
            found.u = "none"
            found.o = self.gate(h_t[0])
            if found.o is None:
                for one in self.gates():
                    with np.errstate(all="ignore"):
                        other = self._gate(h_t[0] / one.values)
                    if other is not None and other.function == "sigmoid":
                        found.o = other
                        self._name(other)
            return
        inner = dict(_arguments(h_t))
        for function in ("tanh", "sigmoid"):
            for name, u in sources:
                share = self._share(inner[function], u)
                gate = None if share is None else self.gate(share)
                if gate is not None:
                    found.o, found.u, found.u_function, found.around["h_t"] = gate, name, "identity", function
                    return
        for function in ("tanh", "identity"):
            rest = h_t - FUNCTIONS[function](c_t)
            gate = self.gate(rest[0]) if self.fixed(rest) else None
            if gate is not None:
                found.o, found.u, found.u_function, found.h_sum = gate, "c_t", function, True
                return
        for name, term in (("c_t", c_t), ("c_{t-1}", self.c), *self._terms()):
            share = self._share(h_t - term, np.tanh(c_t))
            gate = None if share is None else self.gate(share)
            if gate is not None and gate.function == "sigmoid":
                found.o, found.u, found.u_function, found.extra["h_t"] = gate, "c_t", "tanh", name
                return
        for function in ("tanh", "identity"):
            with np.errstate(all="ignore"):
                share = h_t / FUNCTIONS[function](c_t)
                logit = dict(_arguments(share))["sigmoid"]
            full = self.affine_full(logit)
            extra = None if full is not None else self._affine_with(logit, c_t)
            if full is not None or extra is not None:
                found.u, found.u_function = "c_t", function
                gate = Gate("sigmoid", 1.0, None, share[0])
                if full is not None:
                    gate.map = full[: 1 + self.D + self.H]
                    self._of_c(found, "o", Entry(share, None, None, "", (), False), full)
                elif extra is not None:
                    gate.map = extra[: 1 + self.D + self.H]
                    found.peephole.append("o")
                found.o = gate
                return

    def _affine_with(self, values: Array, c_t: Array) -> Array | None:
        if not np.isfinite(values).all():
            return None
        rows = np.concatenate([np.tile(self.design, (3, 1)), c_t.reshape(-1, self.H)], 1)
        flat = values.reshape(-1, self.H)
        found: Array = np.linalg.lstsq(rows, flat, rcond=None)[0]
        return found if self.zero(flat - rows @ found, 1 + float(np.abs(flat).max())) else None

    def unused(self, found: Equations) -> list[Gate]:
        """Recorded gates that c_t and h_t are not made of."""
        maps = [gate.map for gate in found.gates.values() if gate.map is not None]
        left: list[Gate] = []
        for gate in self.gates():
            if gate.function not in ("sigmoid", "tanh") or gate.name is None or gate.map is None:
                continue
            if any(np.allclose(gate.map, other, 1e-6, 1e-9) for other in maps):
                continue
            left.append(gate)
        return left


def _arguments(values: Array) -> list[tuple[str, Array]]:
    """What an activation was applied to, for those that can be inverted; NaN where it cannot have been."""
    with np.errstate(all="ignore"):
        return [
            ("sigmoid", np.log(values) - np.log1p(-values)),
            ("tanh", np.arctanh(values)),
            ("softplus", np.log(np.expm1(values))),
            ("exp", np.log(values)),
        ]


def find_equations(run: dict[str, Any]) -> tuple[Record, Equations, tuple[int, int]] | None:
    """The best reading of a run: which output is h_t and which c_t, and their equations; None of less than two outputs."""
    record = Record(run)
    outputs = record.outputs
    distinct = [
        n for n, one in enumerate(outputs) if not any(np.allclose(one, other, 1e-9, 1e-12) for other in outputs[:n])
    ]
    if len(distinct) == 1 and len(outputs) > 1:
        found = record.equations(outputs[0], outputs[0])
        return (record, found, (0, 1)) if found.c_right else None
    if len(distinct) < 2:
        return None
    best: tuple[int, Equations, tuple[int, int]] | None = None
    pairs = [(p, q) for p in distinct for q in distinct if p != q]
    for p, q in sorted(pairs, key=lambda pair: pair[0] > pair[1]):
        found = record.equations(outputs[p], outputs[q])
        if best is None or found.score > best[0]:
            best = found.score, found, (p, q)
        if found.c_right and found.h_right:
            break
    assert best is not None
    return record, best[1], best[2]
