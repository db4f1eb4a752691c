"""Whether a student's classifier reads a picture as the lab asks, and if not, what it does instead.

The lab: h_0 = c_0 = 0; row t of a picture, and h_{t-1} and c_{t-1}, go into the cell for t = 1 … T; logits = W_out h_T + b_out.
Pure functions of what `observe_classifier` told. More than the lab asks (dropout, layers, both directions) is no fault.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from unroll.labs.judge.classifier_codes import CODES, REMARKS, fault
from unroll.labs.judge.logits import head_problems
from unroll.labs.judge.reading import Reading, shown
from unroll.labs.problems import Problem, Witness, at_gap, in_words

__all__ = ["CODES", "REMARKS", "judge_classifier"]


def judge_classifier(observed: dict[str, Any]) -> list[Problem]:
    """Problems of the classifier, remarks (codes in `REMARKS`) last; empty where it is right.

    Args:
        observed: what `observe_classifier` returned.
    """
    if observed["status"] != "ok":
        return [_unread(observed)]
    found = _judged(observed)
    return sorted(_once(found), key=lambda problem: problem.code in REMARKS)


def _once(problems: list[Problem]) -> list[Problem]:
    kept: dict[tuple[str, int | None, str | None], Problem] = {}
    for problem in problems:
        kept.setdefault((problem.code, problem.line, problem.about), problem)
    return list(kept.values())


def _unread(observed: dict[str, Any]) -> Problem:
    observed = at_gap(observed)
    if observed["status"] == "unread":
        return fault(
            "classifier-unread", observed.get("line"), f"The classifier could not be looked at: {observed['why']}."
        )
    said = in_words(observed)
    line = observed["line"]
    if observed["type"] == "None" and observed.get("where") == "forward":
        return fault(
            "classifier-unfinished",
            line,
            f"The classifier's {observed['message']}; the lab asks for the logits (B, 10).",
        )
    if observed["type"] == "NotImplementedError":
        return fault("classifier-unfinished", line, f"The classifier is not finished: {said}.")
    call = observed.get("wrong_call")
    if call:  # else a form of input that is not the file's own may be at fault
        code = "cell-call" if observed["own"] or not observed["seen"] else "classifier-unread"
        return fault(code, call["line"], f"{_wrong_call(call)} ({said}).")
    if observed.get("seen") or line is None or observed.get("where") not in ("forward", "constructor"):
        return fault(
            "classifier-unread",
            line,
            f"The classifier could not be run on random pictures (B, 28, 28) of the lab's sizes ({said}).",
        )
    return fault(
        "classifier-raises", line, f"The classifier raises {said} for pictures (B, 28, 28) with 6 hidden units."
    )


def _wrong_call(call: dict[str, Any]) -> str:
    """What the classifier gives the cell, and what the cell takes."""
    gives = f"`{call['text']}` gives the cell" if call["text"] else "Here the cell is given"
    if "came" in call:
        came, takes = call["came"], call["takes"]
        return f"{gives} {len(came)} arguments ({'; '.join(came)}); its forward takes {len(takes)}: {', '.join(takes)}"
    came = " and ".join(f"{name} {value}" for name, value, _ in call["wrong"])
    needed = " and ".join(f"{name} {value}" for name, _, value in call["wrong"])
    batch, D, H = call["sizes"]
    return f"{gives} {came}; it needs {needed} for {batch} pictures, rows of {D} numbers and {H} hidden units"


def _judged(observed: dict[str, Any]) -> list[Problem]:
    problems = _forbidden(observed)
    if not observed["calls"]:
        return problems or [
            *_own_loop(observed),
            *_leaks(observed),
            *_shape(observed),
            *head_problems(observed, False),
            *_mixed(observed),
        ]
    reading = Reading(observed)
    shape = _shape(observed)
    steps = [*reading.rows(), *reading.states(), *reading.start()]
    leaks = _leaks(observed)
    if any(problem.code == "state-leaks" for problem in leaks):
        steps = [problem for problem in steps if problem.code != "start-not-zero"]
    head = [] if shape else head_problems(observed, reading.plain)
    ends = reading.end() if not any(problem.code == "output-layer-unused" for problem in [*shape, *head]) else []
    if any(problem.code == "states-swapped" for problem in steps):
        ends = [problem for problem in ends if problem.code != "c-for-h"]  # the same two names, exchanged once
    if ends:
        head = [problem for problem in head if problem.code != "classifier-differs"]
    found = [*steps, *leaks, *ends, *shape, *head]
    if not any(problem.code not in REMARKS for problem in found):
        found += _mixed(observed)
    if not any(problem.code not in REMARKS for problem in found) and reading.readable:
        found += _differs(observed, reading)
    found += [*_gradients(observed, reading), *_parameters(observed)]
    if not reading.readable:
        found.append(
            fault(
                "classifier-unread",
                observed["line"],
                "Which rows and states each call of the cell is given could not be told; only the rest was looked at.",
            )
        )
    return [*problems, *(_shown(observed, problem) for problem in found)]


def _own_loop(observed: dict[str, Any]) -> list[Problem]:
    """A loop that does without calls of the cell is right where its logits and gradients are those of the cell's calls."""
    if observed["cell"] is None or (observed["own_loop"] is not None and observed["own_loop"]["gradients"]):
        return []
    known = (
        "its own loop was looked at only in part"
        if observed["own_loop"] is None
        else "the logits of its own loop are right, but their gradients are not those that the cell would give"
    )
    return [
        fault(
            "cell-not-called",
            observed["line"],
            f"{observed['name']}.forward does not call {observed['cell']}; {known}.",
        )
    ]


# What changes the logits of any picture, so that the witness of the whole classifier shows it.
SHOWN = frozenset(
    """start-not-zero h-not-handed-on c-not-handed-on state-not-handed-on states-swapped state-older steps-missing steps-repeated
    same-row rows-reversed rows-order columns-for-rows view-for-transpose batch-mixed not-last-step c-for-h all-steps
    classifier-differs head-activation logits-activation""".split()  # noqa: SIM905
)


def _forbidden(observed: dict[str, Any]) -> list[Problem]:
    outside = [one for one in observed["built_in"] if not one[2]]  # one in the cell is the cell's fault
    return [
        fault("forbidden-module", line, f"{name} is called; the lab allows no ready-made recurrent module.")
        for name, line, _ in outside[:1]
    ]


def _leaks(observed: dict[str, Any]) -> list[Problem]:
    again = observed["again"]
    line = observed["calls"][0]["line"] if observed["calls"] else observed["line"]
    if again["same"] is None:
        error = again["error"] or {}
        return [
            fault(
                "state-leaks",
                error.get("line") or line,
                f"The classifier raises {error.get('type')} when it is called a second time ({error.get('message')}): "
                "something is kept from the first call.",
            )
        ]
    if again["same"]:
        if observed["seeds"]["same"] is False and not observed["seeds"]["starts_differ"]:
            return [
                fault(
                    "random-in-eval",
                    observed["line"],
                    "The logits of the same picture change in evaluation mode: something random is not switched off.",
                )
            ]
        return []
    if again["reset"] is not None:
        return [
            fault(
                "state-kept",
                line,
                f"The state is kept from one batch to the next unless {again['reset']} is called before each of them.",
            )
        ]
    who = "The cell keeps something" if again["inside_cell"] else "The state is kept"
    what = ": the first step is given the last state of the batch before" if again["from_last"] else ""
    return [
        fault(
            "state-leaks",
            line,
            f"{who} from one call to the next{what}; each batch must begin with zeros. "
            "The same picture has other logits, depending on what was read before.",
            "h_0, c_0",
        )
    ]


def _shape(observed: dict[str, Any]) -> list[Problem]:
    logits, B, C = observed["logits"], observed["B"], observed["classes"]
    if logits.shape == (B, C):
        return []
    line = observed["logits_line"] or observed["line"]
    states = observed["head"]["states"]
    if states and states[1] and logits.ndim == 2 and logits.shape == (B, states[1][0].shape[1]):
        return [
            fault(
                "output-layer-unused",
                line,
                f"forward returns {logits.shape}, the state itself; the lab: logits = W_out h_T + b_out, ({B}, {C}).",
                "logits",
            )
        ]
    return [
        fault(
            "logits-shape",
            line,
            f"The logits of {B} pictures have the shape {tuple(logits.shape)}; expected ({B}, {C}), one row a picture.",
            "logits",
        )
    ]


def _mixed(observed: dict[str, Any]) -> list[Problem]:
    random = observed["seeds"]["same"] is False
    if not observed["mixed"] or random or any("Norm" in name for name in observed["modules"]):
        return []
    if any(event[1] in ("batch_norm", "instance_norm", "normalize") for event in observed["events"]):
        return []
    if any(event[1] in ("mean", "std", "max", "min", "var") and event[0] == 0 for event in observed["events"]):
        return []  # the input may be scaled by the batch's own mean
    return [
        fault(
            "batch-mixed",
            observed["logits_line"] or observed["line"],
            "The logits of a picture change when other pictures of its batch do.",
            "logits",
        )
    ]


def _gradients(observed: dict[str, Any], reading: Reading) -> list[Problem]:
    """States that are handed on without their gradient."""
    training = observed["training"]
    if training["error"] is not None or not training["carries"]:
        return []
    line = next((e[2] for e in observed["events"] if e[1] in ("detach", "detach_", "data") and e[0] > 0), None)
    call = observed["calls"][min(1, len(observed["calls"]) - 1)]
    if not training["grad_on"] or (not training["logits_grad"] and not training["carries"][-1].count(True)):
        return [
            fault(
                "no-gradient",
                line or call["line"],
                "The cell is called without gradients (torch.no_grad or the like), so that its weights are not learned.",
            )
        ]
    lost = set()
    for n, (one, flags) in enumerate(zip(observed["calls"], training["carries"], strict=False)):
        slots = reading.slots(one)
        for k, (state, flag) in enumerate(zip(one["states"], flags, strict=False)):
            if state["from"] is not None and not flag and observed["cells"][one["cell"]]["parameters"]:
                lost.add(f"{slots[k]}_{{t-1}}" if slots[k] in ("h", "c") else "the state")
                call = observed["calls"][n]
    if lost:
        names = " and ".join(sorted(lost, reverse=True))
        return [
            fault(
                "state-detached",
                line or call["line"],
                f"{shown(call)}: no gradient comes back through {names} (detach or the like), so that the cell learns nothing "
                "from the rows before; the values are right.",
                names,
            )
        ]
    depends = observed["depends"] or {"value": False, "gradient": True}
    if not observed["head"]["uses"] and training["logits_grad"] and depends["value"] and not depends["gradient"]:
        return [
            fault(
                "state-detached",
                line or observed["logits_line"],
                "h_T goes into the output layer without its gradient, so that the cell's weights are not learned.",
                "h_T",
            )
        ]
    return []


def _parameters(observed: dict[str, Any]) -> list[Problem]:
    problems = []
    for one in observed["cells"]:
        line = observed["calls"][0]["line"]
        if one["anew"]:
            problems.append(
                fault(
                    "cell-made-anew",
                    line,
                    "forward makes a new cell at each call: its weights are random each time and are never learned.",
                )
            )
        elif not one["registered"] and one["parameters"]:
            problems.append(
                fault(
                    "cell-unregistered",
                    line,
                    "The cell is no submodule: model.parameters() and model.to() leave it out.",
                )
            )
    unused = observed["unused"]
    if unused["names"] and len(unused["names"]) < unused["of"]:
        problems.append(
            fault("parameter-unused", observed["line"], f"No gradient reaches {', '.join(unused['names'][:4])}.")
        )
    return problems


def _differs(observed: dict[str, Any], reading: Reading) -> list[Problem]:
    """Nothing known is wrong, and the values are not the lab's."""
    if reading.right or not reading.plain or _as_expected(observed) or observed["seeds"]["same"] is False:
        return []
    if observed["again"]["same"] is not True:
        return []
    starts = [s for s in observed["calls"][0]["states"] if s["learned"]]
    if starts or observed["expected"] is None:
        return []
    return [
        fault(
            "classifier-differs",
            observed["line"],
            "The logits are not those of the same cell begun at zeros, called for rows 1 to 28, and W_out h_T + b_out; "
            "why could not be told.",
            "logits",
        )
    ]


def _as_expected(observed: dict[str, Any]) -> bool:
    """Whether the logits are those of the student's own cell over all rows and the output layer."""
    head, expected = observed["head"], observed["expected"]
    if expected is None or head.get("W") is None:
        return False
    return any(
        state.shape[1] == head["W"].shape[1]
        and np.allclose(state @ head["W"].T + head["b"], observed["logits"], rtol=1e-6, atol=10 * observed["tolerance"])
        for state in expected[:1]
    )


def _shown(observed: dict[str, Any], problem: Problem) -> Problem:
    """The problem with lines that show it, where there are some."""
    if problem.witness is not None:
        return problem
    if problem.code in SHOWN:
        witness = _values(observed["witness"])
    elif problem.code == "state-leaks":
        witness = _values(observed["witness_again"])
    elif problem.code in ("state-detached", "no-gradient"):
        witness = _gradient(observed["witness_gradient"])
    else:
        return problem
    return fault(problem.code, problem.line, problem.message, problem.about, witness)


def _values(found: dict[str, Any] | None) -> Witness | None:
    if found is None:
        return None
    got, expected = (", ".join(f"{number:.4f}" for number in found[key]) for key in ("got", "expected"))
    return Witness(found["given"], expected, got)


def _gradient(found: dict[str, Any] | None) -> Witness | None:
    """Gradients with respect to a row before the last: without them the cell learns nothing from it."""
    if found is None:
        return None
    got, expected = found["got"], found["expected"]
    if got is not None and np.allclose(got, expected, rtol=0.05, atol=1e-7):
        return None
    numbers = ", ".join(f"{number:.2e}" for number in expected)
    return Witness(found["given"], numbers, "None" if got is None else ", ".join(f"{number:.2e}" for number in got))
