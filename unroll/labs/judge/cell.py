"""Whether a student's cell is an LSTM, and which of its equations is not: pure functions of what was observed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from unroll.labs.judge.cell_codes import CODES, REMARKS
from unroll.labs.judge.equations import EquationsJudge
from unroll.labs.judge.step_equations import Equations, Gate, Record, find_equations
from unroll.labs.judge.weights import number, short
from unroll.labs.problems import Problem, Witness, at_gap, in_words

__all__ = ["CODES", "REMARKS", "formulas", "judge_cell"]

LAB = [
    "i_t = σ(W_i h_{t-1} + U_i x_t + b_i)",
    "f_t = σ(W_f h_{t-1} + U_f x_t + b_f)",
    "o_t = σ(W_o h_{t-1} + U_o x_t + b_o)",
    "c̃_t = tanh(W_c h_{t-1} + U_c x_t + b_c)",
    "c_t = f_t ⊙ c_{t-1} + i_t ⊙ c̃_t",
    "h_t = o_t ⊙ tanh(c_t)",
]


def judge_cell(observed: dict[str, Any], remarks: bool = True) -> list[Problem]:
    """The problems of a cell, none of one that computes an LSTM's step.

    Args:
        observed: see `unroll.labs.child.observe_cell.observe_cell`.
        remarks: also say what is no fault; codes in `REMARKS`.
    """
    return [p for p in CellJudge(observed).problems() if remarks or p.code not in REMARKS]


def formulas(observed: dict[str, Any]) -> dict[str, list[str]]:
    """``yours``: what the cell computes, in its author's names where it could be read; ``lab``: the lab's equations."""
    read = (observed.get("formula") or {}).get("text")
    if read:
        return {"yours": str(read).splitlines(), "lab": list(LAB)}
    if "run" not in observed:
        return {"yours": [], "lab": list(LAB)}
    found = find_equations(observed["run"])
    return {"yours": [] if found is None else list(_described(found[0], found[1])), "lab": list(LAB)}


def _described(record: Record, found: Equations) -> Iterator[str]:
    """What was found, in the author's names and the lab's letters."""

    def name(gate: Gate | None, letter: str) -> str:
        if gate is None:
            return "?"
        if gate.constant is not None:
            return number(gate.constant)
        return gate.name or f"{letter}_t"

    def more(of: str) -> str:
        return f" + {found.extra[of]}" if of in found.extra else ""

    for letter, gate in found.gates.items():
        function = {"sigmoid": "σ", "identity": ""}.get(gate.function, gate.function)
        of = ", ".join(gate.parameters) or "W, U and b"
        read = record.reads(gate) + ["c"] * (letter in found.peephole + found.of_c)
        yield f"{name(gate, letter)} = {function}({' and '.join(read) or '?'} by {of})"
    sign = "-" if found.rest_sign < 0 else "+"
    rest = {
        "product": f" {sign} {name(found.i, 'i')} ⊙ {name(found.g, 'c̃')}",
        "single": f" {sign} {name(found.g, 'c̃')}",
        "sum": f" + {name(found.i, 'i')} + {name(found.g, 'c̃')}",
        "zero": "",
    }.get(found.rest or "", " + ?")
    if found.f is not None:
        minus = "-" if found.f.sign < 0 and found.f.constant is None else ""
        yield f"c_t = {minus}{name(found.f, 'f')} ⊙ c_{{t-1}}{rest}{more('c_t')}"
    u = {"c_t": "c_t", "c_prev": "c_{t-1}"}.get(found.u or "")
    if u is not None:
        shown = u if found.u_function == "identity" else f"{found.u_function}({u})"
        yield f"h_t = {name(found.o, 'o')} {'+' if found.h_sum else '⊙'} {shown}{more('h_t')}"


class CellJudge(EquationsJudge):
    """What there is to say of a whole cell.

    Attributes:
        lab_class: what the lab calls its class.
        arguments: of the lab's step.
        returned: by the lab's step.
    """

    lab_class = "ManualLSTMCell"
    arguments: tuple[str, ...] = ("x", "h_prev", "c_prev")
    returned: tuple[str, ...] = ("h_t", "c_t")

    def problems(self) -> list[Problem]:
        seen = self.seen
        if not seen["found"]:
            self._absent()
            return self.found
        if "error" in seen:
            self._failed(seen["error"])
            return self.found
        self._forbidden()
        leaks = self._calls()
        if "run" not in seen:
            failed = seen.get("failed", {}).get("run")
            if failed is not None:
                code = "unfinished" if failed["type"] == "NotImplementedError" else "exception"
                self.say(code, f"{seen['name']} fails: {in_words(failed)}.", failed["line"])
            return self.found
        self._batches()
        self._gradients()
        self._plain()
        self._plain_class()
        self.equations(leaks)
        return self.found

    def _absent(self) -> None:
        self.line = None
        seen = self.seen
        if seen.get("unclear"):
            self.say("unread", f"No cell was checked: {seen['reason']}.")
        elif seen.get("step"):
            step = seen["step"]
            self.say(
                "unread",
                f"The step was not checked: it stands in {step['name']}, and not in a class of its own; the lab asks for a class "
                f"{self.lab_class}.",
                step["line"],
            )
        else:
            self.say("no-cell", f"No cell was found: {seen['reason']}.")

    def _failed(self, error: dict[str, Any]) -> None:
        name, error = self.seen["name"], at_gap(error)
        said = in_words(error)
        if self.seen.get("plain_class") is not None:
            said += f" ({name} is no nn.Module)"
        if error["stage"] == "look":
            self.say("unread", f"{name} could not be checked: {said}.", error["line"])
            return
        if error["type"] == "NotImplementedError":
            self.say("unfinished", f"{name} is not finished: {said}.", error["line"])
            return
        if error["stage"] in ("signature", "forward") and self.seen.get("empty"):
            self.say("unfinished", f"{name} is not finished: it has no forward({', '.join(self.arguments)}) yet.")
            return
        sizes = error["sizes"]
        if error["stage"] == "construct":
            call = f"{name}({sizes[0]}, {sizes[1]})" if sizes else name
            code = "exception" if error["needs"] == 2 else "unread"  # what other arguments are to be, nobody knows
            self.say(code, f"{call} cannot be made: {said}.", error["line"])
        elif error["stage"] == "signature":
            self.say(
                "unread",
                f"{name} was not checked: its {error['message']}; the lab's step takes {_listed(self.arguments)}.",
                None,
            )
        elif error["type"] == "WrongShapeError":
            self.say("sizes", f"{' and '.join(self.returned)} must have the shape of h_prev, but {error['message']}.")
        else:
            self.say(
                "exception", f"A call with x {_of(sizes, 0)} and states {_of(sizes, 1)} fails: {said}.", error["line"]
            )

    def _forbidden(self) -> None:
        for call in (self.seen.get("run") or {}).get("calls", []):
            if call["function"] in ("detach", "data", "item", "numpy", "tolist"):
                continue
            if "lstm" in call["function"] or "gru" in call["function"] or "rnn" in call["function"]:
                shown = call["text"] or f"torch's {call['function']}"
                self.say(
                    "forbidden",
                    f"{shown} lets torch's own {call['function']} compute the step; the lab asks for the equations by hand.",
                    call["line"],
                    witness=Witness(
                        "the calls of torch's functions that one step makes",
                        "none of lstm, gru or rnn",
                        call["function"],
                    ),
                )
                return

    def _calls(self) -> bool:
        repeated = self.seen.get("repeated")
        if repeated is None:
            return False
        if repeated["leaks"]:
            names = repeated["changed"][:3]
            kept = f" ({', '.join(f'self.{name}' for name in names)} change{'s' * (len(names) == 1)})" if names else ""
            given = f"the same {', '.join(self.arguments)} twice, another call between"
            self.say(
                "leak",
                f"Two calls with the same {_listed(self.arguments)} give different results{kept}: the cell keeps a state of its "
                "own from call to call, so that images depend on those before them.",
                witness=_apart(given, repeated["first"], repeated["again"]),
            )
            return True
        if repeated["random"]:
            self._random(repeated)
        return bool(repeated["random"])

    def _random(self, repeated: dict[str, Any]) -> None:
        drawn = (self.seen.get("run") or {}).get("draws") or []
        weights = [one for one in drawn if one["weights"]]
        first = next(iter(weights or drawn), {"text": None, "line": None})
        by = f" ({first['text']})" if first["text"] else ""
        message = (
            f"New random weights are made at each call of the step{by}: equal inputs give unequal results, and no weight is ever "
            "learnt."
            if weights
            else f"The step draws random numbers also in evaluation mode{by}, so that equal inputs give unequal results."
        )
        shown = _apart(f"the same {', '.join(self.arguments)} twice", repeated["first"], repeated["other"])
        self.say("random", message, first["line"], witness=shown)

    def _batches(self) -> None:
        batch, classifier = self.seen.get("batch"), self.seen.get("classifier")
        if batch is None or any(one.code == "random" for one in self.found):
            return
        if self.seen["layout"] != "row" and not batch["runs"] and classifier is not None and not classifier["ok"]:
            error, (first, last) = classifier["error"], self.seen["lines"]
            if first <= (error["line"] or 0) <= last:
                self.say(
                    "exception",
                    f"The step fails when the classifier calls it with a batch: {in_words(error)}.",
                    error["line"],
                )
        if batch.get("error") and classifier is not None and not classifier["ok"]:
            error = batch["error"]
            self.say("exception", f"A batch of several images fails: {in_words(error)}.", error["line"])
        if batch.get("mixed"):
            self.say(
                "mixed",
                "The result of an image changes with the other images of its batch: the step mixes rows, but each image has a "
                "state of its own.",
                witness=Witness(
                    "the first of four images, and the same with the other three changed",
                    short(batch["first"]),
                    short(batch["changed"]),
                ),
            )
        elif batch.get("differs"):
            self.say(
                "mixed",
                "An image gives another result within a batch of four than alone: something depends on the size of the batch.",
                witness=Witness(
                    "one image alone, and the same in a batch of four",
                    short(batch["alone"]),
                    short(batch["together"]),
                ),
            )

    def _gradients(self) -> None:
        seen = self.seen.get("gradients")
        if seen is None:
            return
        if "error" in seen:
            error = seen["error"]
            self.say("backward", f"loss.backward() through the step fails: {in_words(error)}.", error["line"])
            return
        close = 1e-4 if seen["double"] else 5e-2
        cut = next((call for call in seen["cuts"]), None)
        lost: list[str] = []
        for leaf, numeric in seen["numeric"].items():
            got = seen["autograd"][leaf]
            if leaf == "x" or not seen["used"][leaf]:  # images need no gradient
                continue
            if abs(numeric - (got or 0.0)) > close * (1 + abs(numeric)):
                lost.append(leaf)
        if not lost:
            return
        at = cut["line"] if cut else seen["no_grad"]
        by = (cut["text"] or f".{cut['function']}()") if cut else "torch.no_grad()" if seen["no_grad"] else None
        states = [{"h": "h_{t-1}", "c": "c_{t-1}"}[leaf] for leaf in lost if leaf in "hc"]
        weights = [leaf.removeprefix("parameter ") for leaf in lost if leaf.startswith("parameter ")]
        what = " and ".join(states) if states else ", ".join(weights[:4]) + (", …" if len(weights) > 4 else "")
        first = lost[0]
        shown = Witness(
            f"derivative of a weighted sum of {' and '.join(self.returned)} along a random direction of "
            f"{first.removeprefix('parameter ')}",
            number(seen["numeric"][first], 4),
            "no gradient" if seen["autograd"][first] is None else number(seen["autograd"][first], 4),
        )
        means = (
            "errors do not go back to earlier steps" if states else "these weights are not learnt as the equations say"
        )
        self.say(
            "detached",
            f"The gradient of {what} is not that of what the step computes{f' (see {by})' if by else ''}: {means}.",
            at,
            witness=shown,
        )

    def _plain(self) -> None:
        wrong = [
            one
            for one in self.seen.get("plain") or []
            if not one["optimized"]
            and (one["requires_grad"] or not one["constant"])
            and max(one["shape"], default=1) > 1
        ]
        if not wrong:
            return
        names = ", ".join(f"self.{one['name']}" for one in wrong[:4])
        several = len(wrong) > 1
        why = (
            ("buffers, not nn.Parameters" if several else "a buffer, not an nn.Parameter")
            if wrong[0]["buffer"]
            else "in a Python list or dict (nn.ModuleList, nn.ParameterList or nn.ParameterDict would register "
            + ("them)" if several else "it)")
            if "[" in wrong[0]["name"]
            else ("plain tensors, not nn.Parameters" if several else "a plain tensor, not an nn.Parameter")
        )
        is_, it, it_is = ("are", "them", "they are") if several else ("is", "it", "it is")
        if len(wrong) > 4:
            names += ", …"
        self.say(
            "no-parameter",
            f"{names} {is_} used in the step but {is_} {why}: model.parameters() does not give {it} to the optimizer, so {it_is} "
            "never learnt.",
        )

    def _plain_class(self) -> None:
        """Of a cell that is no nn.Module."""
        about, name = self.seen.get("plain_class"), self.seen["name"]
        if about is None:
            return
        what = f"{name} is no nn.Module: model.parameters() does not have its weights"
        if about["optimized"] is False:
            self.say("no-parameter", f"{what}, and no optimizer holds them, so they are never learnt.")
        else:
            self.say("remark-no-module", f"{what}; the lab asks for an nn.Module.")


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _apart(given: str, first: list[Any], other: list[Any]) -> Witness | None:
    """The outputs of two calls that should be equal."""
    pairs = zip(first, other, strict=False)
    found = next(((a[0], b[0]) for a, b in pairs if not np.allclose(a, b, 1e-5, 1e-7)), None)
    return None if found is None else Witness(given, short(found[0]), short(found[1]))


def _of(sizes: Any, k: int) -> str:
    return "of the lab's shape" if not sizes else f"(1, {sizes[k]})"
