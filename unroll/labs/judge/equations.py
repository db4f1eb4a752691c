"""What the equations of a cell have in place of the lab's."""

from __future__ import annotations

from unroll.labs.judge.cell_codes import REMARKS
from unroll.labs.judge.step_equations import Equations, Gate, Record, find_equations
from unroll.labs.judge.weights import WeightsJudge, number


class EquationsJudge(WeightsJudge):
    """What there is to say of a cell's c_t and h_t."""

    def equations(self, leaks: bool) -> None:
        run = self.seen["run"]
        read = find_equations(run)
        if read is None:
            many = len(run["outputs"])
            if many:
                what = (
                    "only one state"
                    if len(run["returned"]) == 1
                    else "the same values twice, or only one state of the right shape"
                )
                self.say("returns", f"The step returns {what}; the lab asks for h_t and c_t.")
            return
        record, found, (p, q) = read
        if leaks and not (found.c_right and found.h_right):
            return  # what the cell keeps hides its equations
        for name, n in (("h_t", p), ("c_t", q)):
            self.lines[name] = record.line_of(record.outputs[n]) or self.line
        self.lines["gates"] = next((gate.line for gate in found.gates.values() if gate.line), self.line)
        start = len(self.found)
        self._order(record, found, p, q)
        before = len(self.found)
        self._c(record, found)
        self._h(record, found)
        if any(one.code == "mixed" for one in self.found):  # what a batch of one makes of a mixed gate says little
            self.found = [one for one in self.found if not (one.code.startswith("no-") and one.code.endswith("-gate"))]
        elif not (found.of_c or found.peephole):
            self._weights(record, found)
        hidden = any(one.code in ("forbidden", "mixed") for one in self.found)
        if len(self.found) == before and not hidden and not (found.c_right and found.h_right):
            self._differs(record, found, p, q)
        self._names(found)
        if all(one.code in REMARKS for one in self.found) and (unused := self._unused()):
            self.say("remark-unused", f"The step is right.{unused}")
        if len(self.found) > start:
            self._add_witness(start, p, q)

    def _order(self, record: Record, found: Equations, p: int, q: int) -> None:
        run = self.seen["run"]
        paths = [one["path"] for one in run["outputs"]]
        flipped = self.seen["roles"][-1] == "ch"
        if (p > q) == flipped or len(record.outputs) > 2:
            return
        if not (found.c_right or (found.f is not None and found.f.function == "sigmoid" and found.rest == "product")):
            return
        classifier = self.seen.get("classifier") or {}
        handed = classifier.get("handed") or {}
        roles = [r for r in self.seen["roles"] if r != "x"]
        flat = ["h", "c"] if roles == ["hc"] else ["c", "h"] if roles == ["ch"] else roles
        at = {paths[p]: "h", paths[q]: "c"}
        offset = 1 if self.seen["roles"][0] == "x" else 0
        told = [flat[k - offset] == at[n] for n, k in handed.items() if n in at and 0 <= k - offset < len(flat)]
        if told and all(told):
            return  # whoever calls it knows
        self.say(
            "order",
            "The step returns c_t first and h_t second; the lab returns h_t, c_t, and its caller takes one for the other.",
            about="h_t",
        )

    def _activation(self, letter: str, gate: Gate, wanted: str) -> None:
        shown = {"sigmoid": "σ", "identity": "no activation"}.get(gate.function, gate.function)
        right = {"sigmoid": "σ", "tanh": "tanh"}[wanted]
        code = "no-activation" if gate.function == "identity" else "activation"
        range_ = "between 0 and 1: it is a share" if wanted == "sigmoid" else "between -1 and 1"
        self.say(
            code,
            f"The {self._gate_name(letter, gate)} has {shown}; the lab has {right}, whose values lie {range_}.",
            gate.line,
            letter,
        )

    def _c(self, record: Record, found: Equations) -> None:
        f, i, g = found.f, found.i, found.g
        if found.around.get("c_t"):
            self.say(
                "c-activation",
                f"c_t is {found.around['c_t']} of the sum; the lab's c_t is the sum itself, so that memory is carried unchanged.",
                about="c_t",
            )
        if found.squashed:
            self.say(
                "c-activation", f"c_t has {found.squashed}(c_{{t-1}}); the lab's has c_{{t-1}} itself.", about="c_t"
            )
        if "c_t" in found.extra:
            self.say(
                "added",
                f"{found.extra['c_t']} is added to c_t; the lab's c_t is f ⊙ c_{{t-1}} + i ⊙ c̃ alone.",
                about="c_t",
            )
        self._peepholes(found)
        swapped = (
            f is not None
            and f.function == "tanh"
            and found.rest == "product"
            and i is not None
            and g is not None
            and {i.function, g.function} == {"sigmoid"}
        )
        if swapped:
            assert f is not None
            self.say(
                "partner",
                f"c_{{t-1}} is multiplied by the candidate{_named(f)}, and the two gates by each other; the lab has "
                "f ⊙ c_{t-1} + i ⊙ c̃.",
                about="c_t",
            )
            return
        self._forget(record, found)
        self._input(record, found)

    def _forget(self, record: Record, found: Equations) -> None:
        f = found.f
        if f is None:
            return
        if found.rest == "zero" and f.constant is not None and abs(f.constant - 1) < 1e-3:
            self.say("c-unchanged", "The step returns c_{t-1} as c_t: the cell state is never updated.", about="c_t")
            return
        if f.constant is not None:
            if abs(f.constant) < 1e-3:
                self.say(
                    "no-forget-term",
                    "c_t does not depend on c_{t-1}: the forget term f ⊙ c_{t-1} is missing, so nothing is remembered."
                    + self._unused(),
                    about="c_t",
                )
            elif abs(f.constant - 1) < 1e-3:
                self.say(
                    "no-forget-gate",
                    "c_t takes c_{t-1} as it is: the forget gate is missing, so nothing is ever forgotten."
                    + self._unused(),
                    about="c_t",
                )
            else:
                self.say(
                    "no-forget-gate",
                    f"c_{{t-1}} is multiplied by {number(f.constant)}; the lab has the forget gate.",
                    about="c_t",
                )
            return
        if f.function == "product":
            self.say("partner", "c_{t-1} is multiplied by two gates; the lab has the forget gate alone.", about="c_t")
            return
        if f.sign < 0:
            self.say("minus", f"The forget term is subtracted{_named(f)}; the lab adds f ⊙ c_{{t-1}}.", about="c_t")
        if f.function != "sigmoid":
            self._activation("f", f, "sigmoid")

    def _input(self, record: Record, found: Equations) -> None:
        i, g = found.i, found.g
        if found.rest == "zero":
            if any(one.code == "c-unchanged" for one in self.found):
                return
            self.say(
                "no-input-term",
                "c_t is made of c_{t-1} alone: the input term i ⊙ c̃ is missing, so nothing new is ever written."
                + self._unused(),
                about="c_t",
            )
        elif found.rest == "sum":
            self.say("plus", "The input gate and the candidate are added; the lab multiplies them: i ⊙ c̃.", about="c_t")
        elif found.rest == "single" and g is not None:
            if g.constant is not None:
                self.say(
                    "no-input-term",
                    f"c_t gets {number(g.constant)} beside the forget term; the lab has i ⊙ c̃.",
                    about="c_t",
                )
                return
            if found.rest_sign < 0 and g.function != "identity":
                self.say("minus", "The input term is subtracted; the lab adds i ⊙ c̃.", about="c_t")
            if g.function == "sigmoid":
                self.say(
                    "no-candidate",
                    f"c_t gets a gate{_named(g)} alone; the lab has the input gate times a candidate: i ⊙ c̃.",
                    about="c_t",
                )
            else:
                self.say(
                    "no-input-gate",
                    f"c_t gets the candidate{_named(g)} whole: the input gate is missing; the lab has i ⊙ c̃.{self._unused()}",
                    about="c_t",
                )
                if g.function != "tanh":
                    self._activation("c̃", g, "tanh")
        elif found.rest == "product" and i is not None and g is not None:
            if found.rest_sign < 0:
                self.say("minus", "i ⊙ c̃ is subtracted; the lab adds it to f ⊙ c_{t-1}.", about="c_t")
            if i.function == "tanh" and g.function == "tanh":
                self._activation("i", self._like_a_gate(found, i, g), "sigmoid")
                return
            free = [gate for gate in record.unused(found) if gate.function == "tanh"]
            if i.function == g.function == "sigmoid" and free:
                self.say(
                    "partner",
                    f"The input term is made of two gates{_named(i)}; the candidate {free[0].name} is computed and not used.",
                    about="c_t",
                )
                return
            if i.function != "sigmoid":
                self._activation("i", i, "sigmoid")
            if g.function != "tanh":
                self._activation("c̃", self._like_a_candidate(i, g), "tanh")

    def _like_a_gate(self, found: Equations, one: Gate, other: Gate) -> Gate:
        """Which of two factors is meant as the input gate, by their names."""
        return other if (other.name or "").startswith("i") else one

    def _like_a_candidate(self, i: Gate, g: Gate) -> Gate:
        """Which of two factors of the same activation is meant as the candidate."""
        if i.function == g.function and (g.name or "").startswith("i"):
            return i
        return g

    def _peepholes(self, found: Equations) -> None:
        if found.of_c:
            gates = {letter: gate for letter, gate in found.gates.items() if letter in found.of_c}
            are = "is" if len(gates) == 1 else "are"
            self.say(
                "c-in-gates",
                f"{self._gates_named(gates, list(gates))} {are} computed from c_{{t-1}} in place of h_{{t-1}}.",
                next((gate.line for gate in gates.values() if gate.line), None),
                found.of_c[0],
            )
        if found.peephole:
            self.say(
                "peephole",
                f"c is also an input of {', '.join(found.peephole)} (a peephole); the lab's gates have h_{{t-1}} and x_t alone.",
                about=found.peephole[0],
            )

    def _h(self, record: Record, found: Equations) -> None:
        o = found.o
        said = any(one.code in ("peephole", "c-in-gates") for one in self.found)
        if not said and ["o"] in (found.of_c, found.peephole):
            self._peepholes(found)
        if found.u is None:
            return
        if found.u == "none":
            if o is not None and o.constant is None:
                self.say(
                    "h-without-c",
                    f"h_t does not depend on the cell state{_named(o)}: tanh(c_t) is missing in o ⊙ tanh(c_t).",
                    about="h_t",
                )
            else:
                self.say(
                    "h-without-c", "h_t does not depend on the cell state; the lab has o ⊙ tanh(c_t).", about="h_t"
                )
            return
        if found.around.get("h_t"):
            self.say(
                "h-activation",
                f"h_t is {found.around['h_t']} of the product o ⊙ c_t; the lab has o ⊙ tanh(c_t).",
                about="h_t",
            )
        if "h_t" in found.extra:
            self.say(
                "added", f"{found.extra['h_t']} is added to h_t; the lab's h_t is o ⊙ tanh(c_t) alone.", about="h_t"
            )
        if found.u == "c_prev":
            self.say(
                "h-from-old-c",
                "h_t is made of c_{t-1}; the lab has o ⊙ tanh(c_t) of the new state, so h_t is a step behind.",
                about="h_t",
            )
        if found.h_sum:
            self.say("plus", "h_t is o plus the cell state; the lab multiplies: o ⊙ tanh(c_t).", about="h_t")
        elif o is not None and o.constant is not None:
            self.say(
                "no-output-gate",
                "h_t has no output gate: the lab has o ⊙ tanh(c_t), so that a part of the state can be hidden."
                + self._unused()
                if abs(o.constant - 1) < 1e-3
                else f"h_t has {number(o.constant)} in place of the output gate.",
                about="h_t",
            )
        if found.u_function not in ("tanh", None) and not found.around.get("h_t"):
            what = {"c_t": "c_t", "c_prev": "c_{t-1}"}[found.u]
            if found.u_function == "identity":
                self.say(
                    "h-no-tanh",
                    f"h_t has {what} without tanh; the lab has o ⊙ tanh(c_t), which keeps h between -1 and 1.",
                    about="h_t",
                )
            else:
                self.say("h-activation", f"h_t has {found.u_function}({what}); the lab has tanh(c_t).", about="h_t")
        if o is not None and o.constant is None and not found.h_sum:
            if o.sign < 0:
                self.say("minus", "h_t has a minus; the lab has o ⊙ tanh(c_t).", about="h_t")
            if o.function != "sigmoid":
                self._activation("o", o, "sigmoid")

    def _differs(self, record: Record, found: Equations, p: int, q: int) -> None:
        thin = not any(gate.function in ("sigmoid", "tanh") for gate in record.gates())
        if thin and found.h_right and found.f is not None and found.f.function == "sigmoid":
            self.say("unread", "The step was not checked: how it makes the candidate could not be seen.")
            return
        parts = []
        if found.f is None or found.rest is None:
            parts.append("c_t")
        if found.u is None or (found.o is None and found.u != "none"):
            parts.append("h_t")
        about = " and ".join(parts) or "the step"
        self.say(
            "differs",
            f"{about[0].lower() + about[1:]} differs from the lab's cell; could not say how.",
            about=parts[0] if parts else None,
        )

    def _names(self, found: Equations) -> None:
        f, i = found.f, found.i
        if f is not None and i is not None and f.name and i.name:
            swapped = f.name[:1].lower() == "i" and i.name[:1].lower() == "f"
            if swapped:
                self.say(
                    "remark-names",
                    f"{f.name} multiplies c_{{t-1}} and {i.name} the candidate. That by itself is the same model, but the lab "
                    "calls them f and i.",
                    f.line,
                    "c_t",
                )


def _named(gate: Gate | None) -> str:
    return f" ({gate.name})" if gate is not None and gate.name else ""
