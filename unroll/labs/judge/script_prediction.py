"""What a script prints: its predictions, its losses, its plot."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from unroll.labs.judge.script_match import SENTENCES, Match, Run
from unroll.labs.judge.script_reference import How, forward
from unroll.labs.judge.script_roles import as_roles
from unroll.labs.judge.script_text import joined, numbers
from unroll.labs.problems import Problem, Witness

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_WORD = r"\b(?:positive|pos|good|negative|neg|bad)\b"
_LEGEND = r"(?i)\b(?:[01]\s*(?:=|:|is|means)\s*\w+|(?:positive|pos|good|negative|neg|bad)\s*[=:]\s*[01]\b(?!\.\d))"
_SENTENCE = re.compile(r"\bthe\W{1,6}movie\W{1,6}is\W{1,6}(good|bad)\b", re.I)
_MAY_BE = rf"(?i){_WORD}|pred"


def prediction_problems(run: Run, match: Match | None, faulty: bool) -> list[Problem]:
    """Problems of item 4, and remarks on losses, history and plot.

    Args:
        faulty: something else is wrong; wrong predictions are then said to follow from it.
    """
    stopped = run.seen.get("stopped")
    said = predictions(run, match)
    found: list[Problem] = []
    if len(said) < 2 and stopped is not None:
        return []  # not reached
    if not said:
        found.append(_none(run))
    elif _hard_coded(run):
        found.append(_no_network(run))
    else:
        wrong = [label for label in said if said[label] != label]
        if wrong and faulty:
            text = f"{_spoken(said, wrong)} Look again once the rest is right."
            found.append(Problem("prediction", "rnn-prediction-follows", None, text))
        elif wrong:
            found.append(_wrong(run, match, said, wrong))
        elif len(said) < 2 and _several(run):
            found.append(_not_read(run))
        elif len(said) < 2:
            text = "Only one sentence's prediction is printed; the lab wants both."
            found.append(Problem("prediction", "rnn-no-prediction", None, text))
    if stopped is None and run.rows:
        found += _losses(run, faulty)
        found += _remarks(run, match, faulty)
    return found


# --- predictions ----------------------------------------------------------------------------------------------------------------


def predictions(run: Run, match: Match | None) -> dict[int, int]:
    """What was predicted for the sentence of each label: from what was printed after training, or from what argmax gave."""
    lines = [line for row in _late(run) for line in row["text"].splitlines() if line.strip()]
    found: dict[int, int] = {}
    for number, line in enumerate(lines):
        label, cut = _parts(line)
        if label is None:
            continue
        told = _said(cut[1]) if len(cut) == 2 else None
        if told is None and number + 1 < len(lines):
            after, rest = _parts(lines[number + 1])
            if len(rest) == 2 and after is None:
                told = _said(rest[1])
        if told is None and len(cut) == 1 and (arrow := re.split(r"→|->|=>|:", cut[0])) and len(arrow) > 1:
            told = _said(arrow[-1])
        if told is not None:
            found[label] = told
    return found if len(found) == 2 else _chosen(run, match) | found


def _late(run: Run) -> list[dict[str, Any]]:
    """What was printed after training."""
    return [row for row in run.seen["printed"] if row["passes"] >= run.seen["count"]]


def _parts(line: str) -> tuple[int | None, list[str]]:
    """The label of the sentence that a line names, and the line cut before its prediction; without what says which class is 0."""
    if len(set(re.findall(_LEGEND, line))) > 1:
        line = re.sub(_LEGEND, "", line)
    sentence = _SENTENCE.findall(line)
    # The sentence itself may have the word that the rest of the line has as well, as in P(good).
    label = (int(sentence[0] == "good") if len(set(sentence)) == 1 else None) if sentence else None
    rest = _SENTENCE.sub("", line) if label is not None else line
    cut = re.split(r"(?i)pred\w*|classified|output", rest, maxsplit=1)
    return (_which(cut[0]) if label is None else label), cut


def _which(text: str) -> int | None:
    good, bad = bool(re.search(r"\bgood\b", text)), bool(re.search(r"\bbad\b", text))
    return None if good == bad else int(good)


def _said(text: str) -> int | None:
    """The class that a text names first: 0 or 1, or a word for them; other numbers are probabilities."""
    for part in re.finditer(rf"(?i)(?P<number>{_NUMBER})|(?P<word>{_WORD})", text):
        if part["word"]:
            return int(part["word"].lower() in ("positive", "pos", "good"))
        if float(part["number"]) in (0, 1):
            return int(float(part["number"]))
    return None


def _chosen(run: Run, match: Match | None) -> dict[int, int]:
    """What argmax and its like gave after training for the sentence of each label, which is told by the logits it was given."""
    rows = [
        c
        for c in run.seen["choices"]
        if c["passes"] >= run.seen["count"] and c["call"] in ("argmax", "max", "argmin", "min") and len(c["given"]) == 2
    ]
    logits = _final_logits(run, match)
    if not _late(run) or logits is None:
        return {}
    found: dict[int, int] = {}
    for row in rows:
        labels = [label for label, z in logits.items() if any(_near(row["given"], one) for one in (z, _softmax(z)))]
        if len(labels) == 1 and len(row["picked"]) == 1 and row["picked"][0] in (0, 1):
            found[labels[0]] = int(row["picked"][0])
    return found


def _near(one: Any, other: Any) -> bool:
    return bool(np.allclose(one, other, rtol=1e-3, atol=1e-5))


def _softmax(z: Any) -> Any:
    grown = np.exp(z - z.max())
    return grown / grown.sum()


def _final_logits(run: Run, match: Match | None) -> dict[int, Any] | None:
    """The lab's logits of each sentence with the last parameters; None where the script's forward is another."""
    if match is None or match.how != How():
        return None
    final = {p.name: run.seen["final"].get(p.name) for p in match.reading}
    if any(v is None or v.shape != run.values[name].shape[1:] for name, v in final.items()):
        return None
    roles = as_roles(match.reading, {name: v[None] for name, v in final.items() if v is not None}, run.n, run.m)
    return {label: forward(roles, run.words[label], How())[1][0] for label in (0, 1)}


def _several(run: Run) -> bool:
    """Whether more than one line or choice after training may be a prediction."""
    lines = [line for row in _late(run) for line in row["text"].splitlines() if re.search(_MAY_BE, line)]
    return len(lines) > 1 or sum(c["passes"] >= run.seen["count"] for c in run.seen["choices"]) > 1


def _hard_coded(run: Run) -> bool:
    """Whether nothing that was computed can have come into what is printed: no value was read or compared."""
    seen = run.seen.get("read_out") or {"certain": 1, "since": 1}
    whole = run.seen.get("stopped") is None and run.seen["count"] > 0 and not run.by_hand
    return whole and seen["certain"] == 0 and seen["since"] == 0


def _no_network(run: Run) -> Problem:
    line = next((row["line"] for row in reversed(_late(run)) if re.search(_MAY_BE, row["text"])), None)
    return Problem(
        "prediction",
        "rnn-prediction-hard-coded",
        line,
        "The printed predictions do not come from the network: after training no value of the logits is read or compared (no "
        "argmax, no .item()), so that the same would be printed whatever was learned.",
    )


def _spoken(said: dict[int, int], wrong: list[int]) -> str:
    parts = [f"{said[label]} for the sentence with {'good' if label else 'bad'}" for label in wrong]
    return f"The prediction is {joined(parts)}; the lab has 1 for good and 0 for bad."


def _wrong(run: Run, match: Match | None, said: dict[int, int], wrong: list[int]) -> Problem:
    text = _spoken(said, wrong)
    line = next((row["line"] for row in reversed(run.seen["printed"]) if _which(row["text"]) is not None), None)
    logits = _final_logits(run, match)
    if logits is None or match is None:
        return Problem("prediction", "rnn-prediction", line, text)
    best = {label: int(np.argmax(z)) for label, z in logits.items()}
    label = wrong[0]
    given = [f"# after training: {list(SENTENCES[label])}"]
    given += [f"{p.name} = torch.tensor({numbers(run.seen['final'][p.name], full=True)})" for p in match.reading]
    witness: Witness | None = Witness(
        "\n".join(given),
        f"logits = {numbers(logits[label])}, prediction = {best[label]}",
        f"prediction = {said[label]}",
    )
    if best[label] == said[label]:  # nothing to show: the same comes out
        witness = None
    chosen = next((c for c in reversed(run.seen["choices"]) if c["call"] in ("argmin", "min")), None)
    if all(best[one] == one for one in (0, 1)) and len(wrong) == len(said):
        if chosen is not None:
            why = f"{chosen['call']} takes the smallest logit; the prediction is the class with the largest."
            return Problem("prediction", "rnn-argmin", chosen["line"], f"{text} {why}", None, witness)
        if len(wrong) == 2:
            why = "It is the other one than the class with the largest logit."
            return Problem("prediction", "rnn-argmin", line, f"{text} {why}", None, witness)
    if all(best[one] == one for one in wrong):
        why = "The trained parameters give the right ones by the lab's equations, so it is the testing that differs."
    else:
        why = _not_learned(run, match)
    return Problem("prediction", "rnn-prediction", line, f"{text} {why}", None, witness)


def _not_learned(run: Run, match: Match) -> str:
    """Why the logits at the end give a wrong prediction."""
    values = [run.values[p.name] for p in match.reading]
    ends = [run.seen["final"][p.name] for p in match.reading]
    largest = max((float(np.abs(np.diff(v[-20:], axis=0)).max()) for v in values if len(v) > 1), default=np.inf)
    away = [
        p.name
        for p, v, end in zip(match.reading, values, ends, strict=True)
        if np.abs(end - v[-1]).max() > 10 * largest > 0
    ]
    if away:
        return (
            f"{joined(away)} {'is' if len(away) == 1 else 'are'} far from what the training ended with: the test runs with other "
            f"values than those that were learned."
        )
    first, last = run.rows[0]["loss"], run.rows[-1]["loss"]
    said = f", the loss has gone from {first:.3g} to {last:.3g}" if first is not None and last is not None else ""
    return f"The logits after {len(run.rows)} backward passes say the same: the network has not learned enough{said}."


def _not_read(run: Run) -> Problem:
    text = (
        "Not all predictions could be read from what is printed; the lab prints the sentence, an arrow and the "
        "prediction, 0 or 1."
    )
    return Problem("prediction", "rnn-unread", _late(run)[-1]["line"] if _late(run) else None, text)


def _none(run: Run) -> Problem:
    if _late(run) and any(c["passes"] >= run.seen["count"] for c in run.seen["choices"]):
        return _not_read(run)
    return Problem(
        "prediction",
        "rnn-no-prediction",
        None,
        "No prediction is printed after training; the lab wants both sentences with their predictions, 0 or 1.",
    )


# --- losses ---------------------------------------------------------------------------------------------------------------------


def _losses(run: Run, faulty: bool) -> list[Problem]:
    said: list[tuple[int, float, int, dict[str, Any]]] = []
    for row in run.seen["printed"]:
        for line in row["text"].splitlines():
            text = re.search(rf"(?i)epoch\D*(\d+).*?loss\D*?({_NUMBER})", line)
            if text is not None:
                digits = len(text[2].split(".")[1]) if re.fullmatch(r"[-+]?\d*\.\d+", text[2]) else 6
                said.append((int(text[1]), float(text[2]), digits, row))
    if not said:
        return [
            Problem(
                "prediction",
                "rnn-no-losses",
                None,
                "No loss is printed while training; the lab prints one every 50 epochs.",
            )
        ]
    if run.by_hand or faulty:  # a fault before may be why
        return []
    losses = np.array([row["loss"] for row in run.rows])
    if any(_of_run(run, losses, *one) for one in said):
        return []
    epoch, value, _, row = said[0]
    return [
        Problem(
            "prediction",
            "rnn-printed-loss",
            row["line"],
            f"The loss printed for epoch {epoch} is {value:g}; the run's losses then were "
            f"{numbers(losses[: row['passes']][-2:])}.",
            "loss",
        )
    ]


def _of_run(run: Run, losses: Any, epoch: int, value: float, digits: int, row: dict[str, Any]) -> bool:
    """Whether a printed loss is a sensible one of the run at that time: one, a sum or a mean, of the epoch or since the start."""
    if run.seen["count"] > len(losses):
        return True  # not all were kept
    room = 1.01 * 10.0**-digits + 1e-3 * abs(value)
    ends = {row["passes"], 2 * epoch, epoch, 2 * epoch + 2, epoch + 1}
    candidates: list[float] = []
    for end in ends:
        past = losses[:end]
        if not len(past):
            continue
        for count in (1, 2, 20, 50, 100, len(past)):
            part = past[-count:]
            candidates += [float(part.mean()), float(part.sum()), float(part.sum() / 2), float(part[0])]
        around = losses[max(end - 4, 0) : end + 4]
        if not len(around):
            continue
        low, high = float(around.min()), float(around.sum())
        if low - room <= value <= high + room:  # losses computed again after an update lie between these
            return True
    return any(abs(value - one) <= room for one in candidates)


def _remarks(run: Run, match: Match | None, faulty: bool) -> list[Problem]:
    found = []
    together = match is not None and bool(match.mixes) and all(0 not in mix for mix in match.mixes.values())
    epochs = run.seen["count"] / (1 if together else 2)
    if not run.by_hand and not faulty and epochs != 300:
        found.append(
            Problem(
                "prediction",
                "rnn-epochs",
                run.rows[0]["line"],
                f"The script trains for {epochs:g} epochs; the lab has 300.",
            )
        )
    if not run.settings.get("loss_history") and not run.seen["plots"]:
        found.append(
            Problem(
                "prediction", "rnn-no-history", None, "There is no loss_history, from which the lab draws the loss."
            )
        )
    if not any(max(plot["points"], default=0) > 1 for plot in run.seen["plots"]):
        found.append(Problem("prediction", "rnn-no-plot", None, "The loss is not plotted."))
    return found
