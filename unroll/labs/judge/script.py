"""Judges what was seen of the in-class lab's script: parameters, forward, updates, predictions."""

from __future__ import annotations

from typing import Any

import numpy as np

from unroll.labs.judge.script_codes import CODES, REMARKS
from unroll.labs.judge.script_match import SENTENCES, Match, Run, find_match, missing
from unroll.labs.judge.script_prediction import prediction_problems, predictions
from unroll.labs.judge.script_reference import How, forward, loss_of
from unroll.labs.judge.script_roles import ROLES, role_by_name
from unroll.labs.judge.script_steps import followed
from unroll.labs.judge.script_stop import stop_problem
from unroll.labs.judge.script_text import joined, line_of, name_of, numbers, place_of, turned_problem
from unroll.labs.judge.script_update import update_problems
from unroll.labs.judge.script_values import values_problems, wrong_shape
from unroll.labs.problems import Problem, Witness

__all__ = ["CODES", "REMARKS", "formulas", "judge_script", "reached"]


def judge_script(observed: dict[str, Any]) -> list[Problem]:
    """Problems of a script, in the order of the lab's items, remarks (codes in `REMARKS`) among them; empty where all is right.

    Args:
        observed: what `unroll.labs.child.observe_script.ScriptRecorder.data` returns.
    """
    run = Run(observed)
    match = find_match(run) or (followed(run) if run.by_hand else None)
    stop = stop_problem(run, match)
    found = values_problems(run, match)
    if match is None and "rnn-shape" in {p.code for p in found}:
        text = "Nothing can be said of s_t and the logits before all shapes are right."
        found.append(Problem("forward", "rnn-unread", None, text))
    else:
        found += _forward(run, match, stop)
    if stop is not None and not _explains(found, stop):
        found.append(stop)
    seen = {p.code for p in found}
    if not any(p.check == "update" for p in found) and "rnn-no-leaf" not in seen:
        found += update_problems(run, match, found)
    found += _absent(run, found)
    faulty = any(p.code not in REMARKS for p in found)
    found += prediction_problems(run, match, faulty)
    order = ("values", "forward", "update", "prediction")
    return sorted(found, key=lambda p: (order.index(p.check), p.code in REMARKS))


def _explains(found: list[Problem], stop: Problem) -> bool:
    """Whether a problem that is known already is why the script stopped."""
    codes = {p.code for p in found if p.code not in REMARKS}
    if stop.code in codes:
        return True
    if stop.code in ("rnn-reassigned", "rnn-update-first"):  # a gradient was None
        return bool(codes & {"rnn-no-requires-grad", "rnn-no-leaf", "rnn-no-w", "rnn-no-u", "rnn-no-b", "rnn-no-b-out"})
    if stop.code == "rnn-graph-twice":
        return "rnn-state-kept" in codes
    return stop.code == "rnn-shapes" and "rnn-shape" in codes


# --- item 2 ---------------------------------------------------------------------------------------------------------------------


def _forward(run: Run, match: Match | None, stop: Problem | None) -> list[Problem]:
    found = [
        Problem(
            "forward",
            "rnn-forbidden",
            line,
            f"nn.{name} computes the states; the lab wants s_t written by hand.",
            "s_t",
        )
        for name, line in run.seen["modules"].items()
    ]
    if found or not run.rows:
        return found
    if match is None:
        if stop is not None and stop.check == "forward":
            return []
        return _differs(run)
    found = [*_unused(run, match)]
    for attribute, value in match.how.differences():
        problem = _difference(run, match, attribute, value)
        if problem is not None:
            found.append(problem)
    if not found:
        found += [p for p in (_same_sentence(run, match), turned_problem(run, match)) if p is not None]
    return found


def _unused(run: Run, match: Match) -> list[Problem]:
    """Parameters that exist and that the loss does not depend on."""
    named = {role: name for name in run.names if (role := role_by_name(name)) is not None}
    gone = [role for role in missing(match.reading) if role in named]
    gone = [
        role for role in gone if not wrong_shape(role, tuple(run.names[named[role]]["shape"]), run)
    ]  # told of by item 1
    texts = {
        "W": (
            "rnn-no-w",
            "s_t",
            "s_t is computed without {0} s_{{t-1}}: the state is not fed back, and only the last word counts.",
        ),
        "U": (
            "rnn-no-u",
            "s_t",
            "s_t is computed without {0} x_t: the words do not come in, and no sentence differs from another.",
        ),
        "b": ("rnn-no-b", "s_t", "s_t is computed without {0}, which then never learns."),
        "W_out": ("rnn-no-w", "logits", "The logits are computed without {0}."),
        "b_out": ("rnn-no-b-out", "logits", "{0} is not added to the logits, and never learns."),
    }
    found = []
    for role in gone:
        code, about, text = texts[role]
        line = line_of(run, match, "output" if about == "logits" else "state")
        found.append(Problem("forward", code, line, text.format(named[role]), about, _witness(run, match)))
    return found


def _difference(run: Run, match: Match, attribute: str, value: str) -> Problem | None:
    W, U, b, W_out, b_out = (name_of(match, role) for role in ROLES)
    state, output, loss = (line_of(run, match, what) for what in ("state", "output", "loss"))
    texts: dict[tuple[str, str], tuple[str, int | None, str, str]] = {
        ("recurrent", "none"): (
            "rnn-no-w",
            state,
            "s_t",
            f"{W} is multiplied by the same zeros at every step: the state is not fed back as s_{{t-1}}, and only "
            "the last word counts.",
        ),
        ("recurrent", "minus"): ("rnn-sign", state, "s_t", f"{W} s_{{t-1}} is subtracted; the lab adds it."),
        ("inputs", "none"): ("rnn-no-u", state, "s_t", f"s_t is computed without {U} x_t: the words do not come in."),
        ("inputs", "minus"): ("rnn-sign", state, "s_t", f"{U} x_t is subtracted; the lab adds it."),
        ("bias", "none"): ("rnn-no-b", state, "s_t", f"s_t is computed without {b}."),
        ("bias", "minus"): ("rnn-sign", state, "s_t", f"{b} is subtracted in s_t; the lab adds it."),
        ("out_bias", "none"): ("rnn-no-b-out", output, "logits", f"{b_out} is not added to the logits."),
        ("out_bias", "minus"): (
            "rnn-sign",
            output,
            "logits",
            f"{b_out} is subtracted from the logits; the lab adds it.",
        ),
        ("out_bias", "b"): (
            "rnn-b-for-b-out",
            output,
            "logits",
            f"The logits add {b}, the bias of s_t, in place of {b_out}.",
        ),
        ("product", "transpose"): (
            "rnn-w-turned",
            state,
            "s_t",
            f"s_t uses {W} transposed; the lab has {W} s_{{t-1}}.",
        ),
        ("product", "W_out"): (
            "rnn-w-mixed",
            state,
            "s_t",
            f"s_{{t-1}} is multiplied by {W_out}, the output's weights, and not by {W}.",
        ),
        ("out", "transpose"): (
            "rnn-w-turned",
            output,
            "logits",
            f"The logits use {W_out} transposed; the lab has {W_out} s_4.",
        ),
        ("out", "W"): (
            "rnn-w-mixed",
            output,
            "logits",
            f"The logits multiply the state by {W}, the weights of s_t, and not by {W_out}.",
        ),
        ("activation", "none"): (
            "rnn-no-activation",
            state,
            "s_t",
            "s_t has no φ around the sum: the whole network is one linear map of the words.",
        ),
        ("activation", "before b"): (
            "rnn-activation-place",
            state,
            "s_t",
            f"{b} is added outside of tanh; the lab has it inside.",
        ),
        ("activation", "relu"): (
            "rnn-activation",
            state,
            "s_t",
            "φ is ReLU here; it is usually tanh, which keeps s_t between −1 and 1.",
        ),
        ("activation", "sigmoid"): (
            "rnn-activation",
            state,
            "s_t",
            "φ is the sigmoid here; it is usually tanh, which is centred at 0.",
        ),
        ("squashed", "no log"): (
            "rnn-loss",
            loss,
            "loss",
            "The loss is the negative logit of the label itself, as NLLLoss takes it, without the log-softmax of "
            "the cross-entropy.",
        ),
        ("detached", "state"): (
            "rnn-detached",
            state,
            "s_t",
            f"The values are right, but gradients stop at s_{{t-1}}: {W}, {U} and {b} learn from the last word alone, "
            f"not through time.",
        ),
    }
    known = texts.get((attribute, value))
    if known is not None:
        code, line, about, message = known
        return Problem("forward", code, line, message, about, None if code in REMARKS else _witness(run, match))
    if attribute == "squashed":
        return Problem(
            "forward",
            "rnn-softmax",
            loss,
            f"The logits pass {value} before the cross-entropy, which does its own softmax: the loss stays high "
            "and the gradients small.",
            "logits",
            _witness(run, match),
        )
    if attribute == "read":
        which = {
            "one before": "s_3",
            "mean": "the mean of all states",
            "first": "s_1",
            "sum": "the sum of all states",
        }[value]
        return Problem(
            "forward",
            "rnn-read",
            output,
            f"The logits are computed from {which}; the lab uses s_4, the state after the last word.",
            "logits",
            _witness(run, match),
        )
    if attribute == "target":
        what = {"other": "the other sentence's label", "zero": "0 for both sentences", "one": "1 for both sentences"}[
            value
        ]
        return Problem(
            "forward",
            "rnn-label",
            loss,
            f"The loss compares the logits with {what}; the lab has 1 for the sentence with good and 0 for the one with bad.",
            "loss",
            _witness(run, match),
        )
    if attribute == "words":
        return _wrong_words(run, match, value, state)
    return _wrong_start(run, match, state)


def _wrong_words(run: Run, match: Match, value: str, line: int | None) -> Problem:
    known = {
        "reversed": "The words are read from the last to the first.",
        "three": "Only the first three words are read; each sentence has four.",
        "without the first": "The first word is not read; each sentence has four.",
    }
    if value in known:
        return Problem("forward", "rnn-words", line, known[value], "x_t", _witness(run, match))
    read = {run.sentence(k) for k in range(min(8, len(run.rows)))}
    if len(read) == 1 and None not in read:
        only = list(SENTENCES[read.pop() or 0])
        text = f"Every time the sentence {only} is read, with both labels; the other one is never read."
        return Problem("forward", "rnn-same-sentence", line, text, "x_t")
    for k in range(8):
        inputs = run.inputs(k)
        if inputs is None or run.sentence(k) is not None:
            continue
        spoken = [_word(run, x) for x in inputs]
        place = place_of(match, k)
        if None in spoken or (sorted(map(tuple, inputs)) != sorted(set(map(tuple, inputs))) and len(inputs) == 4):
            vectors = ", ".join(numbers(x) for x in inputs)
            if None in spoken:
                return Problem(
                    "forward",
                    "rnn-onehot",
                    run.seen["made"].get("x", line),
                    f"{place}: the words' vectors are {vectors}; a one-hot vector has a single 1, at the word's number, "
                    "and zeros.",
                    "x_t",
                    _witness(run, match),
                )
        if _permuted(run):
            return Problem(
                "forward",
                "rnn-onehot",
                line,
                f"{place}: the words' vectors are those of {spoken}; the 1 does not stand at the word's number in the "
                "vocabulary.",
                "x_t",
                _witness(run, match),
            )
        return Problem(
            "forward",
            "rnn-words",
            line,
            f"{place}: the words that are read are {spoken}; the lab has {list(SENTENCES[1])} and {list(SENTENCES[0])}.",
            "x_t",
            _witness(run, match),
        )
    return Problem(
        "forward", "rnn-words", line, "The words that are read are not the sentences'.", "x_t", _witness(run, match)
    )


def _permuted(run: Run) -> bool:
    """Whether each word has a vector of its own, only not the vocabulary's."""
    seen = [run.inputs(k) for k in (0, 1)]
    if any(one is None or len(one) != 4 for one in seen):
        return False
    first, second = seen[0].argmax(1).tolist(), seen[1].argmax(1).tolist()
    right = run.words[0].argmax(1).tolist()
    return (
        first[:3] == second[:3]
        and first[3] != second[3]
        and len({*first, *second}) == 5
        and sorted(first[:3]) != sorted(right[:3])
    )


def _word(run: Run, x: Any) -> str | None:
    for word in run.vocab:
        if (x == run.onehot(word)).all():
            return word
    return None


def _wrong_start(run: Run, match: Match, line: int | None) -> Problem | None:
    starts = [run.start(k) for k in range(min(8, len(run.rows)))]
    known = [one for one in starts if one is not None]
    # Where the first sentence begins with zeros and others do not, a state was handed on.
    if match.how.start == "seen" and len(known) == len(starts) > 1 and known[0].any():
        return Problem(
            "forward",
            "rnn-start",
            line,
            f"s_0 is {numbers(starts[0])}; it is usually zeros: before the first word nothing is known.",
            "s_0",
        )
    k = next((k for k, one in enumerate(starts) if one is not None and one.any()), 1)
    shown = "" if k >= len(starts) or starts[k] is None else f": s_0 is {numbers(starts[k])}"
    return Problem(
        "forward",
        "rnn-state-kept",
        line,
        f"{place_of(match, k)} begins with the last state of the sentence before it{shown}; it has to begin with zeros, "
        f"or the prediction depends on what was read before.",
        "s_0",
        _witness(run, match),
    )


def _same_sentence(run: Run, match: Match) -> Problem | None:
    if len(run.rows) < 20 or any(0 not in mix for mix in match.mixes.values()):
        return None
    labels = {mix.index(max(mix)) for mix in match.mixes.values()}
    known = {run.sentence(k) for k in range(8)} - {None}
    if len(labels) != 1 or (known and known != labels):
        return None
    read = SENTENCES[labels.pop()]
    return Problem(
        "forward",
        "rnn-same-sentence",
        line_of(run, match, "state"),
        f"Every time the sentence {list(read)} is read; the other one is never trained on.",
        "x_t",
    )


def _differs(run: Run) -> list[Problem]:
    found = run.readings()
    losses = {call["call"] for call in run.rows[0]["tape"]} & {
        "binary_cross_entropy",
        "binary_cross_entropy_with_logits",
        "mse_loss",
    }
    if losses and not run.rows[0]["taken"]:
        line = next(call["line"] for call in run.rows[0]["tape"] if call["call"] in losses)
        return [
            Problem(
                "forward",
                "rnn-loss",
                line,
                f"The loss is {min(losses)}; the lab has the cross-entropy of two logits (CrossEntropyLoss).",
                "loss",
            )
        ]
    state = _of_state(run)
    if state is not None:
        return [state]
    if not found or run.by_hand:
        return [
            Problem(
                "forward",
                "rnn-unread",
                run.rows[0]["line"],
                f"The loss is computed from {joined(run.used) or 'no parameter'}, in which the lab's five parameters "
                "could not be made out.",
                "s_t",
            )
        ]
    match = Match(found[0], How(), {})
    line = line_of(run, match, "state")
    return [
        Problem(
            "forward",
            "rnn-differs",
            line,
            f"The forward differs from the lab's, and the check could not say how.{_first_state(run, match)}",
            "s_t",
            _witness(run, match),
        )
    ]


def _of_state(run: Run) -> Problem | None:
    """The loss of the first sentence is computed from s_4."""
    label, taken = run.sentence(0), run.rows[0].get("taken")
    if label is None or not taken or len(taken[-1]["input"]) != run.n:
        return None
    for reading in run.readings()[:8]:
        with np.errstate(all="ignore"):
            last = forward(run.roles(reading, 0), run.words[label], How())[0][-1][0]
        if "U" not in missing(reading) and np.allclose(last, taken[-1]["input"], rtol=1e-4, atol=1e-6):
            gone = [name for role in ("W_out", "b_out") for name in run.names if role_by_name(name) == role]
            without = f" {joined(gone)} get{'s' * (len(gone) == 1)} no gradient from it." if gone else ""
            text = f"The loss is computed from the state s_4 and not from the logits, W_out s_4 + b_out.{without}"
            return Problem("forward", "rnn-loss-of-state", taken[-1]["line"], text, "loss")
    return None


def _first_state(run: Run, match: Match) -> str:
    """Which of the lab's values the script's first sentence does not show."""
    label = run.sentence(0)
    values = [np.array(call["value"]) for call in run.rows[0]["tape"] if "value" in call]
    if label is None:
        return ""
    states, logits = forward(run.roles(match.reading, 0), run.words[label], How())
    taken = run.rows[0].get("taken")
    for name, want in [*((f"s_{t}", s[0]) for t, s in enumerate(states, 1)), ("logits", logits[0])]:
        if name == "logits" and taken:
            values = [np.array(taken[-1]["input"])]
        if not any(v.shape == want.shape and np.allclose(v, want, rtol=1e-3, atol=1e-5) for v in values):
            return f" The first of the lab's values that does not come up for the first sentence is {name} = {numbers(want)}."
    loss = float(loss_of(logits, label)[0])
    if abs(loss - run.rows[0]["loss"]) > 1e-4 * abs(loss) + 1e-5:
        return f" States and logits of the first sentence are right; its loss should be {loss:.6g}."
    return " The first sentence's values are right; a gradient, or a later sentence, is not."


def _witness(run: Run, match: Match) -> Witness | None:
    """The first pass whose loss is not the lab's, in numbers."""
    for k in range(min(8, len(run.rows))):
        if any(np.isnan(run.values[p.name][k]).any() for p in match.reading):
            continue
        label = run.sentence(k)
        mix = match.mixes.get(k, (0.0, 1.0))
        label = mix.index(max(mix)) if label is None else label
        states, logits = forward(run.roles(match.reading, k), run.words[label], How())
        loss = float(loss_of(logits, label)[0])
        if run.rows[k]["loss"] is None:
            continue
        if abs(loss - run.rows[k]["loss"]) <= 1e-4 * abs(loss) + 3e-6 and k + 1 < min(8, len(run.rows)):
            continue
        given = [f"# {place_of(match, k)}, with these values:"]
        given += [f"{p.name} = torch.tensor({numbers(run.values[p.name][k], full=True)})" for p in match.reading]
        given += [f"sentence, label = {list(SENTENCES[label])}, {label}"]
        values = [f"s_{t} = {numbers(s[0])}" for t, s in enumerate(states, 1)]
        taken = run.rows[k].get("taken") or []
        got = f"logits = {numbers(taken[-1]['input'])}, " if taken else ""
        return Witness(
            "\n".join(given),
            f"{', '.join(values)}, logits = {numbers(logits[0])}, loss = {loss:.6g}",
            f"{got}loss = {run.rows[k]['loss']:.6g}",
        )
    return None


# --- what was not reached -------------------------------------------------------------------------------------------------------


def reached(observed: dict[str, Any]) -> dict[str, bool]:
    """For each check, whether enough was seen for "nothing wrong" to mean that it is right."""
    run = Run(observed)
    if run.seen.get("stopped") is None:
        return {}  # what is missing is a problem then
    match = find_match(run) or (followed(run) if run.by_hand else None)
    named = {role_by_name(name): about for name, about in run.names.items()}
    # A parameter may ask for its gradient on a later line than the one that makes it.
    made = all(role in named and named[role]["requires_grad"] for role in ROLES)
    return {
        "values": made or match is not None,
        "forward": bool(run.rows),
        "update": len(run.rows) > 2,  # so that two updates are known, and whether gradients were zeroed between
        "prediction": len(predictions(run, match)) == 2,
    }


def _absent(run: Run, found: list[Problem]) -> list[Problem]:
    """One problem for each of items 1 to 3 of which a script that was not stopped has nothing."""
    if run.seen.get("stopped") is not None:
        return []
    checks = {p.check for p in found if p.code not in REMARKS}
    missed = []
    if not run.names:
        missed.append(("values", "The script ends before it has made its parameters."))
    if not run.rows:
        missed.append(("forward", "The script ends before a loss was computed and backward() called on it."))
    if not run.rows or (len(run.rows) == 1 and not run.seen["updates"]):
        missed.append(("update", "The script ends before a parameter was updated."))
    return [Problem(check, "rnn-not-reached", None, text) for check, text in missed if check not in checks]


# --- formulas -------------------------------------------------------------------------------------------------------------------


def formulas(observed: dict[str, Any]) -> dict[str, list[str]]:
    """The equations of the script in its own names, and the lab's: ``yours`` and ``lab``; ``yours`` is empty where not read."""
    run = Run(observed)
    match = find_match(run)
    lab = ["s_t = tanh(W s_{t-1} + U x_t + b)", "logits = W_out s_4 + b_out"]
    if match is None:
        return {"yours": [], "lab": lab}
    gone = missing(match.reading)
    how = match.how
    W, U, b, W_out, b_out = (name_of(match, role) for role in ROLES)
    turned = turned_problem(run, match)
    marks = {"W": "ᵀ" if how.product == "transpose" or (turned and turned.about == "s_t") else ""}
    before = "s_0" if how.recurrent == "none" else "s_{t-1}"
    first = W_out if how.product == "W_out" else W
    terms = [
        (f"{first}{marks['W']} {before}", how.recurrent if how.recurrent != "none" else "plus", "W"),
        (f"{U} x_t", how.inputs, "U"),
    ]
    if how.activation != "before b":
        terms.append((b, how.bias, "b"))
    total = _sum([(text, sign) for text, sign, role in terms if role not in gone])
    phi = {"tanh": "tanh", "before b": "tanh", "none": "", "relu": "ReLU", "sigmoid": "σ"}[how.activation]
    after = f" + {b}" if how.activation == "before b" else ""
    state = f"s_t = {phi}({total}){after}" if phi else f"s_t = {total}"
    if how.detached == "state":
        state += ", s_{t-1} without its gradient"
    read = {"last": "s_4", "one before": "s_3", "mean": "mean(s_1 … s_4)", "first": "s_1", "sum": "(s_1 + … + s_4)"}[
        how.read
    ]
    weights = {"W_out": W_out, "transpose": f"{W_out}ᵀ", "W": W}[how.out]
    logits = [(f"{weights} {read}", "plus")]
    if how.out_bias == "b":
        logits.append((b, "plus"))
    elif "b_out" not in gone:
        logits.append((b_out, how.out_bias))
    text = _sum(logits)
    if how.squashed not in ("none", "no log"):
        text = f"{how.squashed}({text})"
    return {"yours": [state, f"logits = {text}"], "lab": lab}


def _sum(terms: list[tuple[str, str]]) -> str:
    text = ""
    for term, sign in terms:
        if sign == "none":
            continue
        if text:
            text += f" {'−' if sign == 'minus' else '+'} {term}"
        else:
            text = f"−{term}" if sign == "minus" else term
    return text or "0"
