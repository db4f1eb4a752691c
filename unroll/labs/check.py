"""The check of a student's own file: a child process runs and observes it, this one judges what was observed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from unroll.errors import InputError, quoted, shortened
from unroll.labs.judge import cell as judge_cell
from unroll.labs.judge import classifier as judge_classifier
from unroll.labs.judge import key as judge_key
from unroll.labs.judge import script as judge_script
from unroll.labs.judge import training as judge_training
from unroll.labs.problems import Code, Problem, at_gap
from unroll.labs.process import Limits, run_child
from unroll.labs.source import Source, guess_lab, read_source
from unroll.labs.spec import CHECKS, Lab, load_lab
from unroll.labs.spec import Item as LabItem

SECONDS = 60.0  # for the file itself, which runs on few images
SECONDS_EACH = 30.0  # for looking at the cell, and then at the classifier
FAILED = "not observed"
DAMAGED = {"reason": "damaged", "message": "what was observed cannot be read", "printed": ""}
LIMITS = Limits(seconds=180, memory=6 << 30)
_RUNS = ("Run the file by itself (unroll lab run FILE), and read the last lines.",)
OF_FILE = {
    "file-raises": Code("the file ends with an exception", ("Read the line, and what Python says of it.",)),
    "file-ends": Code("the file ends itself before its last line", ("What does it print last?",)),
    "file-time": Code("the file does not come to its end in time", ("Is there a loop that never ends?",)),
    "file-memory": Code("the file needs too much memory", ("Which list or tensor grows in the loop?",)),
    "file-output": Code("the file prints without end", ("Which print stands in the innermost loop?",)),
    "file-ended": Code("the file ends its own process", ("Leave out os._exit, os.kill and the like.",)),
    "file-killed": Code("the file's process was killed by the system", _RUNS),
    "file-crashed": Code("the file's process crashed", _RUNS),
    "file-damaged": Code("what was observed could not be read", _RUNS),
    "file-unwritten": Code("what was observed could not be written", ("Is the disk full?",)),
    "file-error": Code("the check itself failed on this file", _RUNS),
    "check-failed": Code("a part of the file could not be looked at", _RUNS),
}
CODES: dict[str, Code] = {
    **OF_FILE,
    **judge_cell.CODES,
    **judge_key.CODES,
    **judge_classifier.CODES,
    **judge_training.CODES,
    **judge_script.CODES,
}
REMARKS = (
    {"unread", "check-failed"}
    | judge_cell.REMARKS
    | judge_key.REMARKS
    | judge_classifier.REMARKS
    | judge_training.REMARKS
    | judge_script.REMARKS
)
"""What a check says without it being a fault."""
UNFINISHED = frozenset({"unfinished", "classifier-unfinished"})
UNREAD = UNFINISHED | {"unread", "classifier-unread", "cell-not-called", "rnn-unread", "check-failed"}
"""Remarks after which nothing is known to be right."""
NOTHING = frozenset(
    """no-cell exception forbidden forbidden-module no-training no-testing no-pictures rnn-not-reached rnn-forbidden
    rnn-optimizer rnn-prediction-hard-coded""".split()  # noqa: SIM905
)
"""Problems that leave nothing of an item."""


# --- in the child ---------------------------------------------------------------------------------------------------------------


def observe(task: dict[str, Any]) -> dict[str, Any]:
    """Run a student's file on few images, and look at what it made. Runs in the child.

    Args:
        task: ``file``, ``seconds`` that it has, ``kind`` of the lab (``lstm`` or ``rnn``), ``cell``, the class to look at, or
            None, and of a lab with a key ``wanted``: what its classes are called after, and the number of the cell's states.

    Returns:
        ``outcome`` of the run, and what each part of the check has seen, as JSON values and arrays.
    """
    from unroll.labs.child.execute import execute
    from unroll.labs.child.find import LSTM, Wanted, find
    from unroll.labs.child.observe_cell import observe_cell
    from unroll.labs.child.observe_classifier import observe_classifier
    from unroll.labs.child.observe_script import ScriptRecorder
    from unroll.labs.child.observe_training import TrainingRecorder
    from unroll.labs.child.surroundings import surroundings

    source = read_source(Path(task["file"]))
    name, namespace, seconds = str(source.path), dict[str, Any](), task.get("seconds", SECONDS)
    with surroundings(source.path, small=True):
        if task["kind"] == "rnn":
            with ScriptRecorder(name, namespace) as script:
                outcome = execute(source, namespace, seconds).data() | {"seconds": seconds}
            return {"outcome": outcome, "script": _observed(lambda: script.data(outcome))}
        with TrainingRecorder(name, text=source.text) as recorder:
            outcome = execute(source, namespace, seconds).data() | {"seconds": seconds}
        if outcome["error"] is not None and recorder.few is not None and recorder.few.cut:
            # It may have counted on every batch of an epoch that was cut short.
            namespace = {}
            with TrainingRecorder(name, text=source.text, whole=True) as recorder:
                outcome = execute(source, namespace, seconds).data() | {"seconds": seconds}
        wanted = Wanted(*task["wanted"]) if task.get("wanted") else LSTM
        found = find(_without_traps(namespace), recorder.modules, task["cell"], wanted)
        return {
            "outcome": outcome,
            "cell": _observed(lambda: observe_cell(found, name)),
            "classifier": _observed(lambda: observe_classifier(found, name, outcome["error"])),
            "training": _observed(lambda: recorder.data(namespace, outcome)),
        }


def _without_traps(namespace: dict[str, Any]) -> dict[str, Any]:
    """Without what raises as soon as its class is asked for."""
    kept = {}
    for name, value in list(namespace.items()):
        with suppress(Exception):
            isinstance(value, type)
            kept[name] = value
    return kept


def _observed(observe: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What one observer has seen; a failure of one loses nothing of the others."""
    from unroll.labs.child.execute import TimeUp, time_limit

    try:
        with time_limit(SECONDS_EACH):
            return observe()
    except TimeUp:
        return {FAILED: f"it took longer than {SECONDS_EACH:g} seconds"}
    except Exception as error:  # the student's objects are asked there, and may do anything
        return {FAILED: shortened(f"{type(error).__name__}: {error}", 200)}


# --- here -----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """What a check says of one of a lab's items.

    Attributes:
        number, title, points: as the lab has them.
        awarded: points by the check; None where it gives none: a written answer, an accuracy, or what it could not see.
        problems: what costs points.
        remarks: what does not.
        seen: whether there was enough to see for "no problem" to mean that it is right.
    """

    number: int
    title: str
    points: float
    awarded: float | None
    problems: list[Problem]
    remarks: list[Problem]
    seen: bool = True

    @property
    def status(self) -> str:
        """``right``, ``wrong``, or ``open`` where nothing can be said."""
        return "wrong" if self.problems else "right" if self.seen else "open"


@dataclass
class Checked:
    """A checked file.

    Attributes:
        source, lab: what was checked, and as what.
        items: those of the lab's items that a check looks at.
        formulas: ``yours`` and ``lab``, lines of text; empty where nothing was read.
        stopped: why the file did not run to its end; None where it did.
        note: what else there is to say of the whole file.
    """

    source: Source
    lab: Lab
    items: list[Item] = field(default_factory=list)
    formulas: dict[str, list[str]] = field(default_factory=dict)
    stopped: Problem | None = None
    note: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the file ran to its end and nothing in it is wrong."""
        return self.stopped is None and not any(item.problems for item in self.items)

    @property
    def problems(self) -> list[Problem]:
        """All of them, in the order of the items."""
        first = [] if self.stopped is None else [self.stopped]
        return first + [problem for item in self.items for problem in item.problems]

    def to_json(self) -> dict[str, Any]:
        """See docs/labs/check.md."""
        return {
            "ok": self.ok,
            "lab": self.lab.called,
            "formulas": self.formulas,
            "stopped": None if self.stopped is None else self._row(self.stopped),
            "items": [
                {
                    "no": item.number,
                    "points": item.points,
                    "awarded": item.awarded,
                    "problems": [self._row(problem) for problem in item.problems],
                    "remarks": [self._row(remark) for remark in item.remarks],
                }
                for item in self.items
            ],
        }

    def _row(self, problem: Problem) -> dict[str, Any]:
        row: dict[str, Any] = {"code": problem.code, "line": problem.line, "message": problem.message}
        if problem.line is not None:
            row["place"] = self.source.place(problem.line)
        if problem.about is not None:
            row["about"] = problem.about
        if problem.witness is not None:
            row["witness"] = vars(problem.witness)
        return row


def check(path: Path, lab: str | None = None, cell: str | None = None) -> Checked:
    """Run a student's own file in a child process, and compare what it computes with the lab's equations.

    The file is run on few of the lab's images, so that it takes seconds. Its values decide: whatever its style, code that
    computes what the lab asks is right.

    Args:
        path: a script or a notebook.
        lab: a lab's name or YAML file; None: what the file looks like.
        cell: the class to check; None: by the lab's name for it, or the only one that fits.

    Raises:
        InputError: there is no such file or lab, the file tells neither lab from the other, or `cell` names no cell of it.
    """
    source = read_source(path)
    asked = load_lab(lab if lab is not None else guess_lab(source))
    if cell is not None and asked.kind == "rnn":
        raise InputError(f"--cell is {quoted(cell)}: the lab {asked.called} asks for no class; leave it out")
    seen = run_child(task_of(path, asked, cell), LIMITS)
    if cell is not None and _is_refused(cell, source, seen):
        raise InputError(f"--cell is {quoted(cell)}: {seen['cell'].get('reason')}")
    checked = judge(source, asked, seen)
    if lab in ("homework", "inclass") and (looks := _looks_like(source)) not in (None, lab):
        checked.note = f"It looks like the lab {looks}, and was checked as {lab}, as --lab says."
    return checked


def task_of(path: Path, lab: Lab, cell: str | None = None, seconds: float = SECONDS) -> dict[str, Any]:
    """The task of a child that observes a file for `judge`, and gives it so many seconds on few images.

    Raises:
        InputError: the lab's key cannot be read.
    """
    key = lab.load_key()
    wanted = None if key is None else [key.called, key.states]
    return {"name": "check", "file": str(path), "kind": lab.kind, "cell": cell, "wanted": wanted, "seconds": seconds}


def _is_refused(cell: str, source: Source, seen: dict[str, Any]) -> bool:
    """Whether the class that was asked for is none; one that the file ends before is not there yet."""
    outcome, known = seen.get("outcome") or {}, seen.get("cell")
    early = outcome.get("error") or outcome.get("line")
    if early and re.search(rf"^\s*class {re.escape(cell)}\b", source.text, re.MULTILINE):
        return isinstance(known, dict) and "a cell's takes" in str(known.get("reason"))
    return isinstance(known, dict) and known.get("found") is False


def _looks_like(source: Source) -> str | None:
    try:
        return guess_lab(source)
    except InputError:
        return None


def judge(source: Source, lab: Lab, seen: dict[str, Any]) -> Checked:
    """What the data that a child has handed back say of a file; of data that are not whole, nothing is said."""
    problems: list[Problem] = []
    formulas: dict[str, list[str]] = {}
    reached: dict[str, bool] = {}
    parts = {"outcome", "script"} if lab.kind == "rnn" else {"outcome", "cell", "classifier", "training"}
    if not all(isinstance(seen.get(part), dict) for part in parts):
        seen = {"child": seen.get("child") if isinstance(seen.get("child"), dict) else DAMAGED}
    elif lab.kind == "rnn":
        script = seen["script"]
        problems = _judged(judge_script.judge_script, script, CHECKS["rnn"])
        formulas = _safe(judge_script.formulas, script) or {}
        reached = _safe(judge_script.reached, script) or {}
    else:
        key = lab.load_key()
        judge_of_cell = judge_cell.judge_cell if key is None else partial(judge_key.judge_key, key=key)
        formulas_of = judge_cell.formulas if key is None else partial(judge_key.formulas, key=key)
        problems = _judged(judge_of_cell, seen["cell"], ["cell"])
        formulas = _safe(formulas_of, seen["cell"]) or {}
        of_classifier = _judged(judge_classifier.judge_classifier, seen["classifier"], ["classifier"])
        # Of a cell that cannot be made nothing else can be said.
        if not any(p.code in NOTHING | {"unfinished"} for p in problems):
            problems += of_classifier
        problems += _judged(judge_training.judge_training, seen["training"], ["training", "testing", "pictures"])
        reached = _safe(judge_training.reached, seen["training"]) or {}
    stopped = _stopped(seen, problems)
    if stopped is not None:  # what was to come after it is not missing, and what it stopped in is not right
        if not reached.get("testing"):
            reached["training"] = False
        problems = [p for p in problems if p.code != "no-cell"]
        reached |= {"cell": "cell" in {p.check for p in problems} or bool(formulas.get("yours"))}
    told = [p for p in problems if _is_open(p, seen, stopped)]
    reached |= dict.fromkeys((p.check for p in told), False)
    problems = [p for p in problems if p not in told]
    items = [_item(n, item, problems, reached, seen) for n, item in enumerate(lab.items, start=1) if item.checks]
    return Checked(source, lab, items, formulas, stopped)


def _is_open(problem: Problem, seen: dict[str, Any], stopped: Problem | None) -> bool:
    """Whether a part is only missing yet, and why is told already: the file stopped before it, or in its gap."""
    if problem.code in UNFINISHED:
        error = (seen["outcome"] or {}).get("error") if stopped is not None else None
        said = at_gap(error)["message"].rstrip(".") if error else ""
        return bool(said) and said in problem.message
    outcome = seen.get("outcome") or {}
    return problem.code == "rnn-not-reached" and bool(stopped or outcome.get("error") or outcome.get("stopped"))


def _judged(judge: Callable[[Any], list[Problem]], data: Any, checks: Sequence[str]) -> list[Problem]:
    """What a judge says of data; a remark where there are none, or where the judge itself fails on them."""
    why = data.get(FAILED) if isinstance(data, dict) else None
    try:
        if why is None:
            return judge(data)
    except Exception as error:  # a child's data may be anything, and the rest of the check goes on
        why = f"{type(error).__name__}: {error}"
    text = f"This could not be looked at: {why}."
    return [Problem(check, "check-failed", None, text) for check in checks]


def _safe(ask: Callable[[Any], Any], data: Any) -> Any:
    """An answer, or None where the data give none; `_judged` has told then."""
    try:
        return ask(data)
    except Exception:
        return None


def _item(number: int, item: LabItem, found: Sequence[Problem], reached: dict[str, bool], seen: dict[str, Any]) -> Item:
    mine = [p for p in found if p.check in item.checks]
    problems, remarks = [p for p in mine if p.code not in REMARKS], [p for p in mine if p.code in REMARKS]
    unseen = "child" in seen or any(p.code in UNREAD for p in remarks)
    unseen = unseen or any(not reached.get(check, True) for check in item.checks)
    awarded = None
    if item.kind == "checks" and (problems or not unseen):
        awarded = 0.0 if any(p.code in NOTHING for p in problems) else item.points_for_problems(len(problems))
    return Item(number, item.title, float(item.points or 0), awarded, problems, remarks, not unseen)


def _stopped(seen: dict[str, Any], problems: Sequence[Problem]) -> Problem | None:
    """Why a file did not run to its end, unless a problem says so already."""
    if "child" in seen:
        printed = seen["child"].get("printed", "").strip().split("\n")[-1]
        last = f"; the last line that it printed is {quoted(printed)}" if printed else ""
        return Problem(
            "file",
            f"file-{seen['child']['reason']}",
            None,
            f"The file could not be checked: {seen['child']['message']}{last}.",
        )
    outcome = seen["outcome"]
    if outcome["stopped"] == "time":
        return Problem(
            "file",
            "file-time",
            outcome["line"],
            f"stopped here after {outcome['seconds']:g} seconds on few images: an endless loop, more epochs or steps than a "
            "check can wait for, or a busy machine. What comes after it was not looked at.",
        )
    error = None if outcome["error"] is None else at_gap(outcome["error"])
    if error is None and outcome["line"] is not None and any(p.code in NOTHING for p in problems):
        return Problem("file", "file-ends", outcome["line"], "The file ends itself here.")
    faults = [p for p in problems if p.code not in {*REMARKS, "rnn-not-reached"}]
    if error is not None and error["message"] and any(error["message"].rstrip(".") in p.message for p in faults):
        return None
    if (
        any(p.code == "cell-call" for p in faults) and seen["classifier"]["own"]
    ):  # the same, which is raised within the cell
        return None
    if error is None or any(p.line == error["line"] is not None for p in faults):
        return None
    if error["type"] == "SystemExit":
        return Problem("file", "file-ends", error["line"], f"The file ends itself here: {error['message']}")
    said = f"Python says {error['type']}: {error['message']}" if error["message"] else f"Python says {error['type']}"
    if error["type"] == "NotImplementedError" and error["message"]:  # a gap of a starter, which says what is missing
        return Problem("file", "file-raises", error["line"], f"The file is not finished: {error['message']}")
    if seen.get("classifier", {}).get("status") == "ok" and _within(seen["cell"], error["line"]):
        said += ". The classifier and its cell run on pictures (B, 28, 28): look at what the model is given"
    return Problem("file", "file-raises", error["line"], said)


def _within(cell: dict[str, Any], line: int | None) -> bool:
    """Whether a line is one of the cell's forward."""
    first, last = cell.get("lines") or [0, 0]
    return line is not None and first <= line <= last
