"""Whether a student's cell is a lab's key, any cell that a course names, and which of its equations is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unroll.labs.judge.cell import CellJudge
from unroll.labs.judge.cell_codes import REMARKS as OF_CELL
from unroll.labs.judge.key_match import (
    FUNCTIONS,
    Array,
    Fitted,
    Group,
    Match,
    Recorded,
    Search,
    UnmatchableError,
    computed,
)
from unroll.labs.judge.weights import short
from unroll.labs.problems import Code, Problem, Witness

if TYPE_CHECKING:
    from unroll.equations.program import Program
    from unroll.labs.keys import Key

__all__ = ["CODES", "REMARKS", "formulas", "judge_key"]

_LINE = "Write your line and the lab's equation below each other, symbol by symbol."
CODES: dict[str, Code] = {
    "key-activation": Code("an equation of the lab's key has another activation, or none", (_LINE,)),
    "key-sign": Code("a minus stands for a plus, or the other way round", (_LINE,)),
    "key-left-out": Code("a factor or a term is left out", (_LINE, "Is every symbol of the equation in your line?")),
    "key-operation": Code("a sum stands for a product, or the other way round", (_LINE,)),
    "key-operand": Code("another value stands in an equation", (_LINE, "Which gate, and which state, belongs there?")),
    "key-order": Code("a gate is applied in another place", (_LINE, "What is the gate to be multiplied by?")),
    "key-added": Code("an equation has one factor, term or activation more", (_LINE,)),
    "remark-turned": Code("a gate is one minus the lab's; the model is the same", (_LINE,)),
}
REMARKS = frozenset({"remark-turned"})
"""What is said without it being a fault."""
PAIRS = 8  # changes that are tried together with a second one


class Fit(NamedTuple):
    """A program that gives the step's outputs.

    Attributes:
        program: changed, if the key's own did not.
        key: the key's, before any change.
        changes: (numbers among `changes` of the program before it, code, the program before it).
        match: how.
    """

    program: Program
    key: Program
    changes: tuple[tuple[int, str, Program], ...]
    match: Match


def judge_key(observed: dict[str, Any], key: Key) -> list[Problem]:
    """The problems of a cell, remarks among them; none of one that computes the key's step for some weights.

    Args:
        observed: see `unroll.labs.child.observe_cell.observe_cell`; of its looks at the cell the best counts.
        key: the lab's.
    """
    best: list[Problem] | None = None
    for look in observed.get("looks") or [observed]:
        found = _KeyJudge(look, key).problems()
        if best is None or _wrong(found) < _wrong(best):
            best = found
    return best or []


def _wrong(found: Sequence[Problem]) -> int:
    return sum(one.code not in REMARKS | OF_CELL for one in found)


def formulas(observed: dict[str, Any], key: Key) -> dict[str, list[str]]:
    """``yours``: what the cell computes, in its author's names, where it could be read; ``lab``: the key's equations."""
    look = (observed.get("looks") or [observed])[0]
    read = (look.get("formula") or {}).get("text")
    program = key.programs(*(look.get("sizes") or (5, 7)))[0]
    return {"yours": str(read).splitlines() if read else [], "lab": str(program).splitlines()}


class _KeyJudge(CellJudge):
    """What there is to say of a whole cell beside a key."""

    def __init__(self, observed: dict[str, Any], key: Key) -> None:
        super().__init__(observed)
        self.key, self.lab_class = key, f"Manual{key.called}Cell"
        self.arguments = ("x", "h_prev", "c_prev")[: 1 + key.states]
        self.returned = ("h_t", "c_t")[: key.states]

    def equations(self, leaks: bool) -> None:
        run = self.seen["run"]
        recorded = Recorded(run, self.key.states)
        D, H = run["x"].shape[1], run["h"].shape[1]
        if len(recorded.outputs) < self.key.states:
            if run["outputs"]:
                wanted = "h_t" if self.key.states == 1 else "h_t and c_t"
                self.say("returns", f"The step returns {len(recorded.outputs)} of the lab's states: {wanted}.")
            return
        programs = self.key.programs(D, H)
        try:
            fit, missed = self._found(recorded, programs)
        except UnmatchableError as why:
            self.say("unread", f"The step was not checked: {why}.")
            return
        if leaks and (fit is None or fit.changes):
            return  # what the cell keeps hides its equations
        start = len(self.found)
        if fit is None:
            self._unlike(recorded, missed)
            return
        for k, name in enumerate(_states(fit.key)):
            entry = recorded.entry_of(recorded.outputs[fit.match.new[k]])
            self.lines[f"{name}_t"] = (entry or {}).get("line") or self.line
        if fit.match.new != tuple(range(len(fit.match.new))) and self.key.states == 2 and not self._told(fit):
            self.say("order", "The step returns its states in another order than the lab's: h_t first, then c_t.")
        for number, (_, code, before) in enumerate(fit.changes):
            after = fit.changes[number + 1][2] if number + 1 < len(fit.changes) else fit.program
            self._change(recorded, fit, code, before, after, fit.changes[number][0])
        self._key_weights(recorded, fit)
        self._turned(recorded, fit)
        if all(one.code in REMARKS | OF_CELL for one in self.found) and (unused := self._unused()):
            self.say("remark-unused", f"The step is right.{unused}")
        self._witnesses(start, fit)

    def _told(self, fit: Fit) -> bool:
        """Whether who calls the cell takes its outputs in the order in which it returns them."""
        handed = (self.seen.get("classifier") or {}).get("handed") or {}
        roles = [role for role in self.seen["roles"] if role != "x"]
        flat = list("".join(roles))
        offset = 1 if self.seen["roles"][0] == "x" else 0
        at = {str(n): "hc"[k] for k, n in enumerate(fit.match.new)}
        told = [flat[k - offset] == at[n] for n, k in handed.items() if n in at and 0 <= k - offset < len(flat)]
        return bool(told) and all(told)

    # --- looking for it -------------------------------------------------------------------------------------------------------

    def _found(self, recorded: Recorded, programs: list[Program]) -> tuple[Fit | None, tuple[Program, int | None]]:
        """The program that gives the outputs; else None, and the node of a key at which it was not found."""
        many = min(len(recorded.outputs), 4)
        orders = list(permutations(range(many), self.key.states))
        searches, fits = [], list[Fit]()
        plain: Fit | None = None
        for program in programs:
            search = Search(recorded, program)
            searches.append(search)
            for new in orders:
                match = search.match(new)
                if match is not None:
                    fit = Fit(program, program, (), match)
                    if not self._twice(recorded, fit):
                        return fit, (program, None)
                    plain = plain or fit
        nearest = max(range(len(programs)), key=lambda k: searches[k].deepest[0])
        missed = programs[nearest], searches[nearest].deepest[1]
        if plain is None and not self._legible(recorded):
            raise UnmatchableError("what its gates and its candidate are could not be seen")
        deeper: list[tuple[int, Program, frozenset[int], Program, tuple[int, str, Program]]] = []
        for program in [programs[nearest], *(p for p in programs if p is not programs[nearest])]:
            for number, changed, forced, code in _changed(program):
                search = Search(recorded, changed, forced)
                step = number, code, program
                for new in orders[: 1 if self.key.states == 1 else 2]:
                    match = _matched(search, new)
                    if match is not None:
                        fits.append(Fit(changed, program, (step,), match))
                        if not self._faults(recorded, fits[-1]):
                            return fits[-1], missed
                if search.deepest[0] > searches[programs.index(program)].deepest[0]:
                    deeper.append((search.deepest[0], changed, forced, program, step))
        best = min(fits, key=lambda fit: self._faults(recorded, fit), default=None)
        if best is not None and plain is None:
            return best, missed
        if plain is not None:
            return plain, missed
        for _, first, forced, program, step in sorted(deeper, key=lambda one: -one[0])[:PAIRS]:
            for number, changed, more, code in _changed(first, forced):
                match = _matched(Search(recorded, changed, more), orders[0])
                if match is not None:
                    return Fit(changed, program, (step, (number, code, first)), match), missed
        return None, missed

    def _faults(self, recorded: Recorded, fit: Fit) -> int:
        """How much is wrong with the weights by which a program fits."""
        before, lines = self.found, self.lines
        self.found = []
        try:
            self._key_weights(recorded, fit)
            return len(self.found)
        finally:
            self.found, self.lines = before, lines

    def _twice(self, recorded: Recorded, fit: Fit) -> bool:
        """Whether one gate of the step, which was computed once, stands for two of the key's."""
        gates = [one.value for n, one in fit.match.fitted.items() if fit.program.nodes[n].op == "sigmoid"]
        double = [a for k, a in enumerate(gates) if any(recorded.same(a, b) for b in gates[:k])]
        return any(recorded.count("sigmoid", FUNCTIONS["sigmoid"](a)) < 2 for a in double)

    def _legible(self, recorded: Recorded) -> bool:
        """Whether something was recorded that is an activation of an affine map of x and the states."""
        ones = np.ones((recorded.many, 1))
        columns = np.concatenate([ones, recorded.x, *recorded.states], 1)
        if columns.shape[1] + 4 > recorded.many:
            return False
        q, _ = np.linalg.qr(columns)
        for op in ("sigmoid", "tanh"):
            for p in recorded.arguments(op, recorded.H):
                if np.ptp(p) > 1e-3 and np.abs(p - q @ (q.T @ p)).max() <= recorded.close * (1 + np.abs(p).max()):
                    return True
        return False

    # --- saying it ------------------------------------------------------------------------------------------------------------

    def _unlike(self, recorded: Recorded, missed: tuple[Program, int | None]) -> None:
        if any(one.code in ("forbidden", "mixed") for one in self.found):
            return
        program, node = missed
        left = _statement(program, node) if node is not None else None
        wanted = _rows(program).get(left or "")
        at = (
            f": nothing that the step computes is the lab's {left} = {wanted} with weights of its own" if wanted else ""
        )
        seen = self.seen.get("witness")
        shown = None
        if seen is not None and seen["got"]:
            got = ", ".join(short(one) for one in seen["got"][: self.key.states])
            shown = Witness(seen["given"], "a step of the lab's equations, with some weights", got)
        self.say("differs", f"The step is none of the lab's{at}.", about=left, witness=shown)

    def _change(self, recorded: Recorded, fit: Fit, code: str, before: Program, after: Program, number: int) -> None:
        from unroll.labs.judge.key_changes import changes

        node = changes(before)[number].node
        left = _statement(before, node)
        was, now = _rows(before).get(left), _rows(after).get(left)
        lines = _lines_of(recorded, fit)
        own, line = lines.get(left, (None, self.lines.get(left)))
        named = f" ({own})" if own and own != left else ""
        if now is None:  # it has become a part of another equation
            rows = _rows(before)
            left_, now = next(((a, b) for a, b in _rows(after).items() if rows.get(a) != b), (left, "another"))
            here = f"{left}{named} is left out or changed here, so that {left_} = {now}"
        else:
            here = f"{left}{named} is {now} here"
        asked = _rows(fit.key).get(left, was)
        self.say(code, f"{here}; the lab has {left} = {asked}.{self._unused()}", line, left)

    def _turned(self, recorded: Recorded, fit: Fit) -> None:
        lines = _lines_of(recorded, fit)
        for n, one in fit.match.fitted.items():
            if one.turned:
                left = _statement(fit.program, n)
                own, line = lines.get(left, (None, None))
                self.say(
                    "remark-turned",
                    f"{own or left} is one minus the lab's {left}: by itself the same model, with weights of the other sign.",
                    line,
                    left,
                )

    def _key_weights(self, recorded: Recorded, fit: Fit) -> None:
        """Gates without a state, x or bias, or with the weights of another."""
        close = recorded.close * 10
        fitted = {_statement(fit.program, n): one for n, one in fit.match.fitted.items()}
        lines = _lines_of(recorded, fit)
        empty: dict[str, list[str]] = {"x": [], "h": [], "bias": [], "unit": []}
        for left, one in fitted.items():
            kinds: dict[str, list[float]] = {}
            for group, w in _pairs(one):
                kinds.setdefault(_kind(group), []).append(float(np.abs(w).max()))
            for kind, sizes in kinds.items():
                if max(sizes) < close:
                    empty[kind].append(left)
        biased = [left for left, one in fitted.items() if any(g.kind == "bias" for g in one.argument.groups)]
        if len(empty["bias"]) == len(biased):
            empty["bias"] = []  # a cell without biases
        said = {"x": ("no-x", "x_t"), "h": ("no-h", "h_{t-1}"), "bias": ("no-bias", "no bias, but others have one")}
        for kind, lefts in empty.items():
            for left in lefts:
                line = lines.get(left, (None, None))[1]
                if kind == "unit":
                    self.say("key-left-out", f"{left} does not see the cell state; the lab's does.", line, left)
                    continue
                code, what = said[kind]
                verb = "has" if kind == "bias" else "does not depend on"
                text = f"{left} {verb} {what}; the lab has {left} = {_rows(fit.key).get(left)}."
                self.say(code, text, line, left)
        for left, one in fitted.items():
            for group, w in _pairs(one):
                square = group.kind == "matrix" and w.shape[0] == w.shape[1] > 2 and np.abs(w).max() > close
                if square and np.abs(w - np.diag(np.diag(w))).max() < close:
                    text = f"{left} multiplies by element; the lab has a matrix, so that every unit sees all others."
                    self.say("elementwise", text, lines.get(left, (None, None))[1], left)
        self._ties(fitted, lines, close)

    def _ties(
        self, fitted: Mapping[str, Fitted], lines: Mapping[str, tuple[str | None, int | None]], close: float
    ) -> None:
        """Weights that two gates share although the key's do not, or the other way round."""
        for (a, one), (b, other) in ((x, y) for k, y in enumerate(fitted.items()) for x in list(fitted.items())[:k]):
            alike: set[str] = set()
            for group, w in _pairs(one):
                for second, v in _pairs(other):
                    if w.shape != v.shape or _kind(group) != _kind(second) or np.abs(w).max() < close:
                        continue
                    tied, same = bool(group.labels & second.labels), np.abs(w - v).max() < close
                    if tied and not same:
                        self.say("differs", f"{a} and {b} have weights of their own; the lab's share them.", about=b)
                    elif same and not tied:
                        alike.add(group.kind)
                    elif not tied and group.kind == "matrix" and np.abs(w + v).max() < close:
                        alike.add("coupled")
            line, pair = lines.get(b, (None, None))[1], f"{a} and {b}"
            if "matrix" in alike:
                self.say(
                    "shared-weights",
                    f"{pair} are computed with the same weights; in the lab each has its own.{self._unused()}",
                    line,
                    b,
                )
            elif "coupled" in alike:
                self.say(
                    "coupled", f"{pair} add to one; in the lab each has weights of its own.{self._unused()}", line, b
                )
            elif "bias" in alike:
                self.say("shared-bias", f"{pair} have the same bias; in the lab each has its own.", line, b)

    # --- showing it -----------------------------------------------------------------------------------------------------------

    def _witnesses(self, since: int, fit: Fit) -> None:
        """Add the numbers of a small cell that show a problem."""
        mine = [n for n in range(since, len(self.found)) if self.found[n].code not in REMARKS | OF_CELL]
        seen = self.seen.get("witness")
        if not mine or seen is None or len(seen["got"]) <= max(fit.match.new):
            return
        recorded = Recorded(seen["run"], self.key.states)
        program = self.key.programs(2, 2)[self.key.programs(*_sizes(self.seen)).index(fit.key)]
        small, forced = program, frozenset[int]()
        for number, _, _ in fit.changes:
            made = next(((p, f) for n, p, f, _ in _changed(small, forced) if n == number), None)
            if made is None:
                return
            small, forced = made
        match = _matched(Search(recorded, small, forced), fit.match.new)
        if match is None:
            return
        weights = {g.labels: w for one in match.fitted.values() for g, w in _pairs(one)}
        states = [np.asarray(seen["h"]), np.asarray(seen["c"])][: self.key.states]
        right = computed(program, np.asarray(seen["x"]), states, weights)
        got = [np.asarray(seen["got"][k]) for k in fit.match.new]
        names = [f"{name}_t" for name in _states(program)]

        def write(values: Sequence[Array]) -> str:
            return ", ".join(f"{n} = {short(v)}" for n, v in zip(names, values, strict=True))

        shown = None
        if right is not None and not all(np.allclose(a, b, 1e-6, 1e-8) for a, b in zip(right, got, strict=True)):
            shown = Witness(seen["given"], write(right), write(got))
        elif fit.changes:
            shown = Witness(
                seen["given"], "; ".join(f"{name} = {_rows(fit.key).get(name)}" for name in names), write(got)
            )
        for n in mine:
            one = self.found[n]
            if one.witness is None:
                self.found[n] = replace(one, witness=_shown(seen, small, match, one, shown))


def _shown(
    seen: dict[str, Any], program: Program, match: Match, problem: Problem, states: Witness | None
) -> Witness | None:
    """The states where they show a problem, else what its weights give."""
    of_states = problem.code in CODES or problem.code == "order"
    return states if states is not None and of_states else _products(seen, program, match, problem)


def _products(seen: dict[str, Any], program: Program, match: Match, problem: Problem) -> Witness | None:
    """What the weights of the gates give, where h_t does not show whose they are."""
    parts = []
    for n, one in match.fitted.items():
        products = [g.base[:1] @ w for g, w in _pairs(one) if g.kind == "matrix"]
        biases = [w[0] for g, w in _pairs(one) if g.kind == "bias"]
        shown = products if problem.code != "no-bias" else biases
        if not shown:
            continue
        parts.append(f"{_statement(program, n)}: {' and '.join(short(v) for v in shown)}")
    what = {"no-h": "none is zero", "no-x": "none is zero", "no-bias": "none is zero"}.get(problem.code, "all differ")
    kind = "the biases" if problem.code == "no-bias" else "the products with weights, of the first of 16 random rows"
    return Witness(f"{seen['given']}\n# {kind}", what, "; ".join(parts)) if parts else None


def _changed(
    program: Program, forced: frozenset[int] = frozenset()
) -> Iterator[tuple[int, Program, frozenset[int], str]]:
    """The programs with one change more: number, program, arguments that no activation follows, code."""
    from unroll.equations.names import author_names
    from unroll.labs.judge.key_changes import changes

    names = author_names(program)
    for number, change in enumerate(changes(program)):
        made = change.applied(program, names)
        if made is not None:
            yield number, made[0], made[1] | forced, change.code


def _matched(search: Search, new: tuple[int, ...]) -> Match | None:
    try:
        return search.match(new)
    except UnmatchableError:
        return None


def _states(program: Program) -> tuple[str, ...]:
    return program.state_names or ("h", "c")[: len(program.states)]


def _rows(program: Program) -> dict[str, str]:
    """The equations of a program by their left sides."""
    return dict(line.split(" = ", 1) for line in str(program).splitlines() if " = " in line)


def _statement(program: Program, node: int) -> str:
    """The left side of the equation that a node is computed for."""
    from unroll.equations.formulas import text_symbol
    from unroll.equations.names import author_names, symbol_of

    names, rows = author_names(program), _rows(program)
    new = {n: f"{name}_t" for n, name in zip(program.new, _states(program), strict=False)}
    reached = {node}
    for n in range(node, len(program.nodes)):
        if n == node or reached & set(program.nodes[n].args):
            reached.add(n)
            for left in (new.get(n), text_symbol(symbol_of(names[n], "t")) if n in names else None):
                if left is not None and left in rows:
                    return left
    return "h_t"


def _lines_of(recorded: Recorded, fit: Fit) -> dict[str, tuple[str | None, int | None]]:
    """By the key's left sides the author's name and line."""
    found: dict[str, tuple[str | None, int | None]] = {}
    for n, one in fit.match.fitted.items():
        op = fit.program.nodes[n].op
        value: Array = FUNCTIONS[op](one.value) if op in ("sigmoid", "tanh", "relu", "exp") else one.value
        entry = recorded.entry_of(1 - value if one.turned else value) or recorded.entry_of(one.value)
        if entry is not None:
            found[_statement(fit.program, n)] = entry["name"], entry["line"]
    for k, name in enumerate(_states(fit.program)):
        entry = recorded.entry_of(recorded.outputs[fit.match.new[k]])
        if entry is not None:
            found[f"{name}_t"] = entry["name"], entry["line"]
    return found


def _pairs(one: Fitted) -> Iterator[tuple[Group, Array]]:
    return zip(one.argument.groups, one.weights, strict=True)


def _kind(group: Group) -> str:
    return group.kind if group.kind != "matrix" else "x" if group.reads.startswith("i") else "h"


def _sizes(seen: dict[str, Any]) -> tuple[int, int]:
    return int(seen["sizes"][0]), int(seen["sizes"][1])
