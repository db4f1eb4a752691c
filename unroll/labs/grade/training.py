"""The whole run of a hand-in in a sandbox, and the accuracy of its model, computed where its code knows no labels.

Whatever the run's process hands back is the word of a process in which the student's code ran: printed text, losses, predictions
and pictures may be forged. Its weights and its step program may be, too, but they are data: what they give for images that are
shown by a second process in an unknown order, without labels, is what they are worth, wherever they come from.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from unroll.data.images import read_part
from unroll.errors import InputError, shortened
from unroll.labs.grade.pictures import taken_over
from unroll.labs.grade.record import Graded, Reason, Seen, Trained
from unroll.labs.grade.sandbox import Sandbox
from unroll.labs.own_run import SAME, printed_accuracies
from unroll.labs.process import KEPT, Limits
from unroll.labs.recompute import ALIKE, GIVEN, WEIGHT
from unroll.labs.spec import Item, Lab
from unroll.terminal import printable

SECONDS = 20 * 60.0
SPARE = 120.0  # seconds beyond these for what comes before and after the file
THREADS = 1  # as many hand-ins as there are cores run in parallel, and a sum depends on the number of threads
RUN = Limits(memory=4 << 30, output=64 << 20, go_on=True, observed=512 << 20)
ASK = Limits(seconds=300, memory=4 << 30, output=1 << 20, go_on=True, observed=16 << 20)
PLACE = "/submission"
MOST_WEIGHTS = 64 << 20  # bytes; 50 MB are an LSTM of 1750 units, and the training images
MOST_TENSORS = 10_000
MOST_PROGRAM = 4 << 20  # characters
READ = 200_000  # characters of the end of what was printed, in which accuracies are looked for
LINE = 300  # characters of a line in which they are
TRAINING = 10_000  # training images that are shown beside the test images
NOISE, MEMORISED = 1.0, 3.0  # points of percent; see `_doubts`

OF_TRAINING = re.compile(r"train|valid|\bval\b|val_|epoch|step|loss", re.IGNORECASE)

By = Literal["engine", "model"]
_Given = tuple[dict[str, Any], dict[str, Any]] | str  # fields of a task and weights; or why there are none
HOW = {
    "engine": "by Unroll's engine from the cell's step program and its weights",
    "model": "by the file's own classes with its weights, in a process without labels",
}


@dataclass(frozen=True)
class Training:
    """What is known of a run.

    Attributes:
        trained: for the record.
        figures: PNG files by their names, encoded by us.
        log: the end of what it printed; printable characters and ends of lines alone.
        notes: what is missing, and why, in sentences.
        doubts: why a person has to look before the accuracy counts.
        stopped: why it was ended after its first epoch, where the lab file asks for that.
    """

    trained: Trained
    figures: dict[str, bytes]
    log: str
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    stopped: str | None = None


class _Outcome(BaseModel):
    printed: str
    stopped: str | None
    error: dict[str, Any] | None


class _Run(BaseModel):
    """What `unroll.labs.child.observe_run` hands back, if it is what came."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    outcome: _Outcome
    losses: np.ndarray[Any, Any]
    prediction: dict[str, Any]
    hopeless: float | None = None
    weights: dict[str, np.ndarray[Any, Any]] = {}
    engine: dict[str, Any] | None = None
    input: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    pictures: dict[str, np.ndarray[Any, Any]] = {}
    warnings: list[str] = []


def train(
    name: str,
    content: bytes,
    lab: Lab,
    sandbox: Sandbox,
    slot: int = 0,
    *,
    seed: int = 0,
    threads: int = THREADS,
    seconds: float = SECONDS,
    trusted: bool = False,
    small: bool = False,
) -> Training:
    """Run a hand-in's code on the whole data of its lab, and compute its model's accuracy over the test images.

    Args:
        name, content: of the file of code.
        slot: is handed to the sandbox.
        seed, threads: are fixed for the run, so that it gives the same twice.
        seconds: of the run; one that takes longer has no accuracy, and is for a person to look at.
        trusted: the code is one's own, so that labels may be within its reach.
        small: serve few images, for trying; all test images are classified all the same.
    """
    file = {"file": f"{PLACE}/{name}", "seed": seed, "threads": threads}
    stop_above = next((i.stop_if_first_epoch_loss_above for i in lab.items if i.stop_if_first_epoch_loss_above), None)
    task = {
        **file, "name": "run", "sha256": hashlib.sha256(content).hexdigest(), "small": small, "printed": True,
        "figures": True, "seconds": seconds, "stop_above": stop_above,
    }  # fmt: skip
    begin = time.monotonic()
    seen = _run(sandbox, task, {name: content}, replace(RUN, seconds=seconds + SPARE), slot)
    took = round(time.monotonic() - begin, 1)
    if isinstance(seen, _Failed):
        return Training(Trained(seconds=took, accuracy=None, why_not=seen.why), {}, log_of(seen.printed))
    figures, notes = taken_over(seen.pictures)
    notes += [shortened(printable(text), 200) for text in seen.warnings[:20] if "figure" in text]
    training = Training(
        Trained(seconds=took, losses=_ends(seen.losses), printed=_printed(seen.outcome.printed), accuracy=None),
        figures,
        log_of(seen.outcome.printed),
        tuple(notes),
    )
    if lab.kind != "lstm":
        return training
    ask = _Asking(sandbox, slot, {**file, "blind": not trusted, "small": small}, {name: content}, seen)
    found = ask.accuracy(seconds)
    if isinstance(found, str):
        return replace(training, trained=training.trained.model_copy(update={"why_not": found}))
    doubts = list(found.doubts)
    if seen.outcome.error is not None:
        doubts.append("the file ended early, and the accuracy is that of its model as it was then")
    if not all(np.isfinite(value).all() for value in seen.weights.values() if value.dtype.kind == "f"):
        notes.append("weights of the model are nan or infinite")
    stopped = None
    if seen.hopeless is not None:
        stopped = (
            f"the mean loss of its first epoch is {seen.hopeless:.4f}, above {stop_above:g}, so that it was stopped there, as "
            "the lab file says"
        )
    trained = training.trained.model_copy(update={"accuracy": found.test, "by": found.by})
    return replace(training, trained=trained, notes=tuple(notes), doubts=tuple(doubts), stopped=stopped)


# --- the first process


@dataclass(frozen=True)
class _Failed:
    why: str
    printed: str = ""


def _run(
    sandbox: Sandbox, task: dict[str, Any], files: Mapping[str, bytes], limits: Limits, slot: int
) -> _Run | _Failed:
    try:
        seen = sandbox.run(task, files, limits, slot)
    except InputError as error:
        return _Failed(shortened(printable(f"{error}"), 300))
    child = seen.get("child")
    if child is not None:
        said = child if isinstance(child, dict) else {}
        return _Failed(shortened(printable(str(said.get("message"))), 300), str(said.get("printed", "")))
    try:
        return _Run.model_validate(seen)
    except ValidationError:
        return _Failed("what its process handed back is not what a run hands back")


def log_of(printed: str) -> str:
    """The end of what was printed, as a terminal would show it in the end: lines of printable characters.

    >>> log_of("10%\\r20%\\rdone\\nloss\\t1\\x1b[2J\\n")
    'done\\nloss 1\\\\u001b[2J\\n'
    """
    lines = []
    for line in printed[-2 * KEPT :].replace("\r\n", "\n").removesuffix("\n").split("\n"):
        shown = next((part for part in reversed(line.split("\r")) if part), "")
        lines.append(f"{printable(shown.expandtabs(1))}\n")
    return "".join(lines)[-KEPT:] if printed else ""


def _ends(losses: NDArray[Any]) -> tuple[float, float] | None:
    values = losses[np.isfinite(losses)] if losses.dtype.kind == "f" else np.empty(0)
    return (float(values[0]), float(values[-1])) if values.size else None


def _accuracies(printed: str) -> list[tuple[float, float]]:
    """As `printed_accuracies`, of lines that do not tell of the training, and in bounded time, whatever the text.

    >>> _accuracies("Epoch 1, accuracy: 91.2%\\nTest Accuracy: 90.48%")
    [(90.48, 0.01)]
    """
    lines = (line[:LINE] for line in printed[-READ:].splitlines())
    return printed_accuracies(
        "\n".join(line for line in lines if "test" in line.lower() or not OF_TRAINING.search(line))
    )


def _printed(printed: str) -> float | None:
    found = _accuracies(printed)
    return found[-1][0] if found else None


# --- the second process


@dataclass(frozen=True)
class _Accuracy:
    test: float
    by: By
    doubts: tuple[str, ...]


@cache
def _part(split: Literal["train", "test"]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    images, labels, _ = read_part(None, split)
    return images, labels


class _Shown:
    """Test images, the same ones with noise, and training images, in an order that is known here alone.

    Attributes:
        images: (N, 28, 28).
    """

    def __init__(self) -> None:
        draw = np.random.default_rng(int.from_bytes(os.urandom(16), "little"))  # no seed that code could know
        test, labels = _part("test")
        noise = draw.integers(-1, 2, test.shape, dtype=np.int16)
        noisy = np.clip(test + noise, 0, 255).astype(np.uint8)
        train, train_labels = _part("train")
        chosen = draw.choice(len(train), TRAINING, replace=False)
        images = np.concatenate([test, noisy, train[chosen]])
        self._labels = labels, labels, train_labels[chosen]
        self._order = draw.permutation(len(images))
        self.images = images[self._order]

    def classes(self, predicted: NDArray[Any]) -> list[NDArray[Any]]:
        """The classes of the three kinds of images, in the order of their labels."""
        found = np.empty(len(predicted), dtype=np.int64)
        found[self._order] = predicted
        return np.split(found, np.cumsum([len(part) for part in self._labels])[:-1])

    def accuracies(self, predicted: NDArray[Any]) -> list[float]:
        """In percent, of each."""
        return [
            round(100 * float((found == labels).mean()), 9)
            for found, labels in zip(self.classes(predicted), self._labels, strict=True)
        ]


@dataclass
class _Asking:
    """Asks for a model's classes in a process of its own, by the engine first."""

    sandbox: Sandbox
    slot: int
    task: dict[str, Any]
    files: dict[str, bytes]
    seen: _Run

    def accuracy(self, seconds: float) -> _Accuracy | str:
        """By the first way that gives what the model itself gave in its run; or why none does."""
        if self.seen.outcome.stopped is not None and self.seen.hopeless is None:
            return f"it was stopped after {seconds / 60:g} minutes"
        claimed = self.seen.prediction.get("predicted")
        labels = _part("test")[1][: len(claimed) if self.task["small"] and isinstance(claimed, np.ndarray) else None]
        claimed = _classes(claimed, len(labels))
        if claimed is None:
            return _said(self.seen.prediction.get("reason"))
        shown = _Shown()
        why = ""
        ways: tuple[tuple[By, _Given], ...] = (("engine", self._engine()), ("model", self._model()))
        for by, given in ways:
            found = given if isinstance(given, str) else self._ask(shown, by, *given)
            if isinstance(found, str):
                why = found
                continue
            test, noisy, training = shown.accuracies(found)
            anew = shown.classes(found)[0][: len(labels)]
            equal = int((anew == claimed).sum())
            if equal >= ALIKE * len(labels):
                return _Accuracy(test, by, tuple(_doubts(test, noisy, training)))
            now, then = (100 * float((found == labels).mean()) for found in (anew, claimed))
            why = (
                f"made anew from its weights, the model gives other classes than in its run: {equal:,} of {len(labels):,} are "
                f"equal; {now:.2f}% are right, and {then:.2f}% were in its run"
            )
        return why

    def _engine(self) -> _Given:
        given = self.seen.engine or {"reason": "no cell was handed over"}
        tensors = given.get("tensors")
        if "reason" in given or not isinstance(tensors, dict):
            return _said(given.get("reason"))
        try:
            if len(json.dumps(given.get("cell"))) > MOST_PROGRAM:
                return "its step program is too large"
        except RecursionError:
            return "its step program is nested too deeply"
        scale = {name: given.get(name) for name in ("scale", "shift")}
        return {"cell": given.get("cell"), "input": scale}, {
            **tensors,
            "W_out": given.get("W_out"),
            "b_out": given.get("b_out"),
        }

    def _model(self) -> _Given:
        asked, model = self.seen.input or {"reason": "no model was handed over"}, self.seen.model or {}
        if "reason" in asked:
            return _said(asked.get("reason"))
        if not self.seen.weights:
            return "its model has no weights that could be handed over"
        return {"input": asked, "class": str(model.get("class"))[:200]}, self.seen.weights

    def _ask(self, shown: _Shown, by: str, asked: dict[str, Any], weights: dict[str, Any]) -> NDArray[Any] | str:
        """The classes of all that is shown; or why there are none."""
        from safetensors.numpy import save

        if not all(isinstance(value, np.ndarray) and value.dtype.kind in "biuf" for value in weights.values()):
            return "its weights are no arrays of numbers"
        if len(weights) > MOST_TENSORS or sum(value.nbytes for value in weights.values()) > MOST_WEIGHTS:
            return f"its weights have more than {MOST_WEIGHTS >> 20} MB"
        given = save({"images": shown.images} | {f"{WEIGHT}{name}": value for name, value in weights.items()})
        task = {**self.task, **asked, "name": "predict", "by": by, "seconds": ASK.seconds}
        try:
            answer = self.sandbox.run(task, {**self.files, GIVEN: given}, ASK, self.slot, labels=not task["blind"])
        except InputError as error:
            return _said(f"{error}")
        if isinstance(answer.get("child"), dict):
            return _said(answer["child"].get("message"))
        found = _classes(answer.get("predicted"), len(shown.images))
        return _said(answer.get("reason")) if found is None else found


def _said(reason: Any) -> str:
    """A reason that comes from a process of the student's, in one line."""
    return shortened(printable(str(reason)), 300) if isinstance(reason, str) else "its process gave no classes"


def _classes(values: Any, count: int) -> NDArray[Any] | None:
    fits = isinstance(values, np.ndarray) and values.dtype.kind in "iu" and values.shape == (count,)
    return values if fits else None


def _doubts(test: float, noisy: float, training: float) -> list[str]:
    """What an accuracy looks like that comes of a table of the test images, whole or by their likeness."""
    found = []
    if abs(test - noisy) > NOISE:
        found.append(
            f"{test:.2f}% of the test images are classified correctly, and {noisy:.2f}% with noise of one grey level, which no "
            "eye sees; it may know the very images"
        )
    if test - training > MEMORISED:
        found.append(
            f"{test:.2f}% of the test images are classified correctly, and {training:.2f}% of the training images; it may have "
            "learnt the test images"
        )
    return found


# --- points


def again(name: str, lab: Lab, seed: int = 0) -> str:
    """The command that runs a hand-in once more."""
    return f"unroll lab run {shlex.quote(name)} --lab {shlex.quote(lab.said)} --seed {seed}"


def accuracy_item(number: int, item: Item, training: Training, repeat: str) -> Graded:
    """The points of an item with bands.

    Args:
        repeat: the command that runs the file once more.
    """
    trained = training.trained
    graded = Graded(number=number, title=item.title, points=item.points)
    if trained.accuracy is None or trained.by is None:
        return graded.model_copy(update={"review": [f"the accuracy could not be recomputed: {trained.why_not}"]})
    awarded = item.points_for_accuracy(trained.accuracy / 100)
    higher = [band for band in item.bands if band.points > awarded and trained.accuracy < band.at_least]
    reached = next((band for band in item.bands if trained.accuracy >= band.at_least), None)
    said = f"The model's test accuracy is {trained.accuracy:.2f}%, recomputed {HOW[trained.by]}"
    said += f"; {training.stopped}" if training.stopped else ""
    said += f": {awarded:g} of {item.points:g} points are for "
    said += f"at least {reached.at_least:g}%." if reached else f"less than {item.bands[-1].at_least:g}%."
    expected = (
        f"at least {higher[-1].at_least:g}% for {higher[-1].points:g} points" if higher else said.rpartition("for ")[2]
    )
    reason = Reason(
        points=float(item.points or 0) - awarded,
        code="accuracy",
        message=said,
        witness=Seen(given=repeat, expected=expected.rstrip("."), got=f"{trained.accuracy:.2f}%"),
    )
    if training.doubts:
        return graded.model_copy(
            update={"review": list(training.doubts), "remarks": [reason.model_copy(update={"points": 0.0})]}
        )
    kind = "deductions" if reason.points else "remarks"
    return graded.model_copy(update={"awarded": awarded, kind: [reason]})


def printed_reason(training: Training, points: float, repeat: str) -> Reason | None:
    """That the file printed another accuracy than its model has; None where it did not, or nothing can be said.

    It costs nothing where an earlier line has the right number, such as that of the last of several models.
    """
    trained = training.trained
    if trained.accuracy is None or trained.printed is None or training.doubts or training.stopped:
        return None
    accuracy = trained.accuracy
    found = _accuracies(training.log)
    fits = [abs(value - accuracy) <= max(SAME, digit) for value, digit in found] or [
        abs(trained.printed - accuracy) <= SAME
    ]
    if fits[-1]:
        return None
    return Reason(
        points=0.0 if any(fits) else points,
        code="accuracy-differs",
        message=f"The last accuracy that the file printed is {trained.printed:g}%, but its model classifies {accuracy:.2f}% of "
        "the test images; the recomputed number counts.",
        witness=Seen(
            given=repeat, expected=f"Test Accuracy: {accuracy:.2f}%", got=f"Test Accuracy: {trained.printed:g}%"
        ),
    )
