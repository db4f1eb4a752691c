"""Which weights the gates of a cell have: of another gate, none, or of the wrong kind; and the numbers that show a fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from unroll.labs.judge.cell_codes import REMARKS
from unroll.labs.judge.step_equations import FUNCTIONS, Array, Equations, Gate, Record, find_equations
from unroll.labs.problems import Problem, Witness

GATES = {"i": "input gate", "f": "forget gate", "c̃": "candidate", "o": "output gate"}
MEANS = {
    "f": "what of the old state is kept",
    "i": "what of the candidate is let in",
    "c̃": "what could be written",
    "o": "what of the state is shown",
}


class WeightsJudge:
    """What is said of a cell, and what there is to say of its weights.

    Args:
        observed: see `unroll.labs.child.observe_cell.observe_cell`.
    """

    def __init__(self, observed: dict[str, Any]) -> None:
        self.seen = observed
        self.found: list[Problem] = []
        self.line: int | None = observed.get("line")
        self.lines: dict[str, int | None] = {}  # of the lab's letters

    def say(
        self, code: str, message: str, line: int | None = None, about: str | None = None, witness: Witness | None = None
    ) -> None:
        line = self.lines.get(about or "", self.line) if line is None else line
        self.found.append(Problem("cell", code, line, message, about, witness))

    def _gate_name(self, letter: str, gate: Gate | None) -> str:
        own = "" if gate is None or gate.name is None else gate.name
        named = "" if own.removesuffix("_t") in ("", letter, "c_tilde") else f" ({own})"
        return f"{GATES[letter]} {letter}{named}"

    def _weights(self, record: Record, found: Equations) -> None:
        gates = {name: gate for name, gate in found.gates.items() if gate.map is not None}
        if len(gates) < 2:
            return
        D = record.D
        blocks = {
            name: {"U": gate.map[1 : 1 + D], "W": gate.map[1 + D : 1 + D + record.H], "b": gate.map[:1]}
            for name, gate in gates.items()
            if gate.map is not None
        }
        close = record.close * 10
        empty = {kind: [n for n, b in blocks.items() if np.abs(b[kind]).max() < close] for kind in "UWb"}
        for kind, code, what in (("W", "no-h", "h_{t-1}"), ("U", "no-x", "x_t")):
            if len(empty[kind]) == len(blocks):
                self.say(code, f"No gate depends on {what}; the lab's have W h_{{t-1}} + U x_t + b.", about="gates")
            elif empty[kind]:
                first = empty[kind][0]
                do = "does" if len(empty[kind]) == 1 else "do"
                self.say(
                    code,
                    f"{self._gates_named(gates, empty[kind])} {do} not depend on {what}; the lab has W h_{{t-1}} + U x_t + b.",
                    gates[first].line,
                    first,
                )
        learned = [n for n, b in blocks.items() if np.ptp(b["b"]) > close]  # a constant is no bias
        if empty["b"] and learned:
            first = empty["b"][0]
            has = "has" if len(empty["b"]) == 1 else "have"
            others = "the others have one" if len(learned) > 1 else f"the {GATES[learned[0]]} has one"
            self.say(
                "no-bias",
                f"{self._gates_named(gates, empty['b'])} {has} no bias, but {others}.{self._unused()}",
                gates[first].line,
                first,
            )
        for name, b in blocks.items():
            W = b["W"]
            square = W.shape[0] == W.shape[1] > 1 and name not in empty["W"]
            if square and np.abs(W - np.diag(np.diag(W))).max() < close:
                self.say(
                    "elementwise",
                    f"The {self._gate_name(name, gates[name])} multiplies h_{{t-1}} by element; the lab has the product "
                    "W h_{t-1}, so that every unit sees all others.",
                    gates[name].line,
                    name,
                )
                break
        self._coupled(gates, close)
        self._shared(record, found, gates, blocks, close)

    def _gates_named(self, gates: dict[str, Gate], letters: Sequence[str]) -> str:
        names = ["the " + self._gate_name(n, gates[n]) for n in letters]
        shown = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
        return shown[0].upper() + shown[1:]

    def _coupled(self, gates: dict[str, Gate], close: float) -> None:
        f, i = gates.get("f"), gates.get("i")
        if f is None or i is None or f.map is None or i.map is None:
            return
        if np.abs(f.map + i.map).max() < close:
            self.say(
                "coupled",
                "The forget and the input gate add to one; the lab has a gate with weights of its own for each.",
                about="f",
            )

    def _shared(
        self,
        record: Record,
        found: Equations,
        gates: dict[str, Gate],
        blocks: dict[str, dict[str, Array]],
        close: float,
    ) -> None:
        groups: dict[str, list[list[str]]] = {}
        for kind in "WUb":
            left = [n for n in blocks if np.abs(blocks[n][kind]).max() > close]
            if kind == "b":  # a constant is no bias of another gate
                left = [n for n in left if np.ptp(blocks[n]["b"]) > close]
            made: list[list[str]] = []
            for n in left:
                for group in made:
                    if np.abs(blocks[group[0]][kind] - blocks[n][kind]).max() < close:
                        group.append(n)
                        break
                else:
                    made.append([n])
            groups[kind] = [group for group in made if len(group) > 1]
        said: set[tuple[str, ...]] = set()
        for kind in "WUb":
            for group in groups[kind]:
                key = tuple(group)
                if key in said:
                    continue
                said.add(key)
                kinds = [k for k in "WUb" if group in groups[k]]
                self._say_shared(record, found, gates, group, kinds)

    def _say_shared(
        self, record: Record, found: Equations, gates: dict[str, Gate], group: list[str], kinds: list[str]
    ) -> None:
        to_blame = self._to_blame(gates, group)
        others = [n for n in group if n != to_blame]
        gate, other = gates[to_blame], gates[others[0]]
        spare = [one for one in record.unused(found) if one.function == gate.function]
        same_value = gate.index is not None and gate.index == other.index
        if spare and same_value:
            place = {"f": "c_{t-1}", "i": "the candidate", "o": "tanh(c_t)", "c̃": "the input gate"}[to_blame]
            self.say(
                "partner",
                f"{place[0].upper() + place[1:]} is multiplied by {gate.name or 'the same gate'}, which also serves as the "
                f"{GATES[others[0]]}; {spare[0].name} is computed and not used there.",
                self.lines["h_t" if to_blame == "o" else "c_t"],
                to_blame,
            )
            return
        whole = len(kinds) == 3 or (kinds == ["W", "U"] and np.abs(gate.map[:1]).max() < 1e-6)  # type: ignore[index]
        if whole:
            what = "weights and bias" if len(kinds) == 3 else "weights"
        else:
            what = " and ".join({"W": "weights of h_{t-1}", "U": "weights of x_t", "b": "bias"}[k] for k in kinds)
        code = "shared-bias" if kinds == ["b"] else "shared-weights"
        self.say(
            code,
            f"The {self._gate_name(to_blame, gate)} has the {what} of the "
            f"{' and the '.join(self._gate_name(n, gates[n]) for n in others)}; the lab has its own for each, for it decides "
            f"{MEANS[to_blame]}.{self._unused()}",
            gate.line,
            to_blame,
        )

    def _to_blame(self, gates: dict[str, Gate], group: list[str]) -> str:
        """The gate whose name is not in the names of the parameters that it is computed from; else the last."""
        for n in reversed(group):
            words = {word[:1] for path in gates[n].parameters for word in path.lower().replace(".", "_").split("_")[1:]}
            own = (gates[n].name or n)[:1].lower()
            if words and own not in words and any(other[:1] in words for other in group if other != n):
                return n
        order = ["f", "i", "c̃", "o"]
        return max(group, key=order.index)

    def _unused(self) -> str:
        gradients = self.seen.get("gradients")
        if gradients is None:
            return ""
        names = [
            n.removeprefix("parameter ")
            for n, used in gradients["used"].items()
            if not used and n.startswith("parameter ")
        ]
        if not names:
            return ""
        return f" {', '.join(names[:4])} {'is' if len(names) == 1 else 'are'} never used."

    # --- numbers to repeat

    def _add_witness(self, since: int, p: int, q: int) -> None:
        seen = self.seen.get("witness")
        if seen is None or len(seen["got"]) <= max(p, q):
            return
        got_h, got_c = seen["got"][p], seen["got"][q]
        right = _right_step(seen)
        got = f"h_t = {short(got_h)}, c_t = {short(got_c)}"
        flipped = [n for n in range(len(self.found)) if self.found[n].code == "order" and self.found[n].witness is None]
        for n in flipped if right is not None else []:
            h, c = right or ([], [])
            shown = Witness(
                seen["given"], f"h_t = {short(h)}, c_t = {short(c)}", f"h_t = {short(got_c)}, c_t = {short(got_h)}"
            )
            self.found[n] = replace(self.found[n], witness=shown)
        if right is not None and np.allclose(right[0], got_h, 1e-6, 1e-8) and np.allclose(right[1], got_c, 1e-6, 1e-8):
            right = None  # a gate with another's weights: these numbers do not show it
        if right is None:
            self._witness_gates(since, seen)
            return
        expected = f"h_t = {short(right[0])}, c_t = {short(right[1])}"
        for n in range(since, len(self.found)):
            one = self.found[n]
            if one.witness is None and one.code not in REMARKS:
                self.found[n] = replace(one, witness=Witness(seen["given"], expected, got))

    def _witness_gates(self, since: int, seen: dict[str, Any]) -> None:
        """The gates' own values, where the cell lacks what the lab's h_t and c_t would be computed from."""
        read = find_equations(seen["run"])
        if read is None:
            return
        row = np.concatenate([[1.0], np.asarray(seen["x"])[0], np.asarray(seen["h"])[0]])
        D = read[0].D
        parts = {"U": slice(1, 1 + D), "W": slice(1 + D, None), "b": slice(0, 1)}
        shown = {"U": "x", "W": "h_prev", "b": ""}
        gates = {name: gate.map for name, gate in read[1].gates.items() if gate.map is not None}
        for n in range(since, len(self.found)):
            one = self.found[n]
            if one.witness is not None:
                continue
            kind = {"no-h": "W", "no-x": "U"}.get(one.code)
            if one.about == "gates" and kind is not None and gates:
                products = ", ".join(
                    f"{kind}_{m} {shown[kind]} = {short(row[parts[kind]] @ v[parts[kind]])}" for m, v in gates.items()
                )
                self.found[n] = replace(one, witness=Witness(seen["given"], "none of them is zero", products))
            if one.code == "coupled" and {"f", "i"} <= set(gates):
                f, i = (FUNCTIONS["sigmoid"](row @ gates[m]) for m in "fi")
                got = f"f_t = {short(f)}, i_t = {short(i)}, f_t + i_t = {short(f + i)}"
                self.found[n] = replace(one, witness=Witness(seen["given"], "f_t + i_t is not 1 for every unit", got))
            if one.about not in gates or self.found[n].witness is not None:
                continue
            for kind, part in parts.items():
                mine = row[part] @ gates[one.about][part]
                same = [m for m, v in gates.items() if m != one.about and np.allclose(row[part] @ v[part], mine)]
                ours, theirs = (f"{kind}_{name} {shown[kind]}".strip() for name in (one.about, same[0] if same else ""))
                if one.code in ("shared-weights", "shared-bias", "partner") and same and np.abs(mine).max() > 1e-9:
                    expected = f"{ours} and {theirs} differ"
                    got = f"{ours} = {theirs} = {short(mine)}"
                elif one.code == {"U": "no-x", "W": "no-h", "b": "no-bias"}[kind]:
                    expected, got = f"{ours} is not zero", f"{ours} = {short(mine)}"
                else:
                    continue
                self.found[n] = replace(one, witness=Witness(seen["given"], expected, got))
                break


def number(value: Any, digits: int = 3) -> str:
    """A number with so many digits, without the sign of a zero."""
    return f"{round(float(value), digits) + 0.0:.{digits}f}"


def short(values: Any) -> str:
    """Numbers of a row with three digits, the first four of them."""
    row = np.atleast_1d(np.asarray(values, float).squeeze())
    shown = ", ".join(number(v) for v in row[:4])
    return f"[{shown}{', …' if len(row) > 4 else ''}]"


def _right_step(seen: dict[str, Any]) -> tuple[Array, Array] | None:
    """h_t and c_t by the lab's equations with the cell's own affine maps; None where one of the four is not known."""
    read = find_equations(seen["run"])
    if read is None:
        return None
    record, found, _ = read
    maps = {name: gate.map for name, gate in found.gates.items()}
    spare = record.unused(found)
    for name, function in (("i", "sigmoid"), ("f", "sigmoid"), ("c̃", "tanh"), ("o", "sigmoid")):
        if maps.get(name) is None:
            left = [gate for gate in spare if gate.function == function]
            own = [gate for gate in left if (gate.name or "")[:1] == name[:1]] or left
            if len(own) != 1:
                return None
            maps[name] = own[0].map
    row = np.concatenate([[1.0], np.asarray(seen["x"])[0], np.asarray(seen["h"])[0]])
    a: dict[str, Any] = {}
    for name, found_map in maps.items():
        assert found_map is not None
        a[name] = row @ found_map
    sigmoid = FUNCTIONS["sigmoid"]
    c = sigmoid(a["f"]) * np.asarray(seen["c"])[0] + sigmoid(a["i"]) * np.tanh(a["c̃"])
    return sigmoid(a["o"]) * np.tanh(c), c
