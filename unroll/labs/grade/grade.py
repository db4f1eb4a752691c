"""A class's hand-ins, graded one by one in a sandbox, and what is made of all of them.

The folder of a graded class can be graded again at any time: whose hand-in has not changed keeps its record. A record is
written last of a student's files, so that what a kill interrupted is graded anew.
"""

from __future__ import annotations

import hashlib
import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

import unroll
from unroll.errors import InputError, RunError, shortened
from unroll.files import TEMPORARY, locked, made_folder, write_atomically
from unroll.labs.check import Checked, judge, task_of
from unroll.labs.grade.collect import Points, apply_points, read_points
from unroll.labs.grade.copies import Alike, copies
from unroll.labs.grade.feedback import feedback_md, feedback_pdf
from unroll.labs.grade.pages import summary_html
from unroll.labs.grade.points import items_of
from unroll.labs.grade.record import HAND_INS, Record
from unroll.labs.grade.review import review_html
from unroll.labs.grade.sandbox import SUBMISSION, Sandbox
from unroll.labs.grade.submissions import Submission, read_submissions
from unroll.labs.grade.tables import copies_csv, grades_csv, results_json
from unroll.labs.grade.training import Training, train
from unroll.labs.grade.written import Answers, written
from unroll.labs.process import Limits
from unroll.labs.source import Source, read_source
from unroll.labs.spec import Lab, load_lab
from unroll.labs.starter import starter, starters
from unroll.terminal import printable, say

CLASS, LOCK, POINTS = "class.json", "class.lock", "points.json"
RECORD, FEEDBACK = "result.json", "feedback.md"
SECONDS = 20.0  # for a file on few images, which takes two or three; whose takes longer is for a person to look at
CHECK = Limits(seconds=90, memory=2 << 30, file=256 << 20, output=8 << 20, observed=256 << 20, processes=128)
READ_PDF = Limits(seconds=60, memory=2 << 30, observed=16 << 20)


class ClassRecord(BaseModel):
    """``class.json``: what a folder was graded as.

    Attributes:
        lab: as it is called.
        source: its name, or the path of its file.
        asks: what it asked for.
        students: whose hand-ins there are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1] = 1
    lab: str
    source: str
    asks: Lab
    students: list[str] = []


class KeptPoints(BaseModel):
    """``points.json`` of the class's folder: what a person decided, and of which hand-ins (`Record.key`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: Points
    keys: dict[str, str]


@dataclass(frozen=True)
class Class:
    """A graded class.

    Attributes:
        folder: of everything.
        records: by id, with what a person decided.
        anew: how many of them were graded in this run.
        alike: hand-ins that are alike beyond chance.
    """

    folder: Path
    lab: Lab
    records: list[Record]
    anew: int
    alike: list[Alike]


def grade(
    place: Path,
    out: Path,
    sandbox: Sandbox,
    lab: str | None = None,
    *,
    jobs: int = 1,
    training: bool = True,
    trusted: bool = False,
    echo: Callable[[str], object] = say,
) -> Class:
    """Grade the hand-ins in a folder or a zip.

    Args:
        place: see `unroll.labs.grade.submissions.read_submissions`.
        out: the class's folder; made, or gone on with.
        lab: a lab's name or YAML file; None: that of the folder, else the homework.
        jobs: how many hand-ins are graded in parallel.
        training: whether each file is run on all data too, for the points that the accuracy decides.
        trusted: the files are one's own, which the labels may be shown to.
        echo: is given a line for each hand-in.

    Raises:
        InputError: there is nothing to grade, or the lab is another than the folder's.
        RunError: the folder is somebody else's, in use, or cannot be written.
    """
    asked = _asked(lab, _read_class(out), out)
    asked.load_key()  # once, and before the threads
    with _held(out):
        kept = _read_class(out)
        # Before anything else, as it tells a graded class from hand-ins.
        _keep_class(out, asked, [] if kept is None else kept.students)
        submissions = read_submissions(place, asked, out / HAND_INS)
        _keep_class(out, asked, [one.student for one in submissions])
        grading = _Grading(out, asked, sandbox, training, trusted)
        records: dict[str, Record] = {}
        todo = []
        for one in submissions:
            record = grading.known(one)
            if record is None:
                todo.append(one)
            else:
                records[one.student] = record
        if records:
            echo(f"{len(records)} of {len(submissions)} hand-ins have not changed since they were graded")
        for record, line in _in_turns(todo, grading, jobs, len(submissions)):
            records[record.student] = record
            echo(line)
        ordered = [records[one.student] for one in submissions]
        return _written(out, asked, ordered, _points(out, asked, ordered), len(todo))


def collect(out: Path, points: Path) -> Class:
    """Put the points that a person gave on the review page into a graded class.

    Raises:
        InputError: the points are not this class's.
        RunError: the folder is no graded class.
    """
    if not (out / CLASS).is_file():
        raise RunError(f"{out} is no graded class; make one with: unroll lab grade SUBMISSIONS --out {out}")
    with _held(out):
        kept = _read_class(out)
        assert kept is not None
        lab = kept.asks
        lab._called, lab._path = kept.lab, Path(f"{kept.lab}.yaml")
        records = [_record(out / student) for student in kept.students]
        whole = [record for record in records if record is not None]
        if len(whole) < len(records) or not whole:
            raise RunError(f"{out} is not graded to the end; go on with: unroll lab grade SUBMISSIONS --out {out}")
        given = read_points(points, lab, whole)
        before = _points(out, lab, whole)
        merged = {student: {**before.points.get(student, {}), **items} for student, items in given.points.items()}
        both = Points(
            lab=lab.called,
            points={**before.points, **merged},
            seen=sorted({*before.seen, *given.seen}),
        )
        keys = {record.student: record.key for record in whole if record.student in {*both.points, *both.seen}}
        write_atomically(out / POINTS, KeptPoints(points=both, keys=keys).model_dump_json(indent=1) + "\n")
        return _written(out, lab, whole, both, 0)


# --- the folder


@contextmanager
def _held(out: Path) -> Iterator[None]:
    """The class's folder, made where there is none, and held against a second process."""
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; expected a folder for the graded class, or none yet")
    if out.is_dir() and not (out / CLASS).is_file() and any(path.name != LOCK for path in out.iterdir()):
        raise RunError(f"{out} holds files that are no graded class; name another folder with --out")
    try:
        made_folder(out)
        with locked(out / LOCK, RunError(f"{out} is being graded by another process")):
            for path in out.rglob(f".*.*{TEMPORARY}"):  # what killed processes left
                path.unlink(missing_ok=True)
            yield
    except OSError as error:
        raise RunError(f"{out} cannot be written: {error.strerror}") from None


def _read_class(out: Path) -> ClassRecord | None:
    if not (out / CLASS).is_file():
        return None
    try:
        return ClassRecord.model_validate_json((out / CLASS).read_bytes())
    except ValidationError:
        raise RunError(f"{out / CLASS} is damaged; remove it, and grade into the same folder again") from None


def _keep_class(out: Path, lab: Lab, students: list[str]) -> None:
    record = ClassRecord(lab=lab.called, source=lab.source, asks=lab, students=students)
    write_atomically(out / CLASS, record.model_dump_json(indent=1) + "\n")


def _asked(name: str | None, kept: ClassRecord | None, out: Path) -> Lab:
    lab = load_lab(name if name is not None else "homework" if kept is None else kept.source)
    if kept is not None and kept.source != lab.source:
        raise InputError(f"{out} is graded as {kept.source}, not as {lab.source}; name another folder with --out")
    return lab


def _points(out: Path, lab: Lab, records: Sequence[Record]) -> Points:
    """What a person decided before, of the hand-ins that are still the same."""
    try:
        kept = KeptPoints.model_validate_json((out / POINTS).read_bytes())
    except FileNotFoundError:
        return Points(lab=lab.called)
    except ValidationError:
        raise RunError(
            f"{out / POINTS} is damaged; collect the points of the review page again, or remove it"
        ) from None
    same = {record.student for record in records if kept.keys.get(record.student) == record.key}
    given = kept.points
    points = {student: items for student, items in given.points.items() if student in same}
    return Points(lab=given.lab, points=points, seen=[student for student in given.seen if student in same])


def _record(folder: Path) -> Record | None:
    """A student's record; None where there is none that can be read."""
    try:
        return Record.model_validate_json((folder / RECORD).read_bytes())
    except (OSError, ValidationError):
        return None


def _write(path: Path, content: bytes | str) -> None:
    """Unless it stands there already: what has not changed keeps its time."""
    data = content.encode() if isinstance(content, str) else content
    with suppress(OSError):
        if path.read_bytes() == data:
            return
    write_atomically(path, data)


# --- one hand-in


class _Grading:
    """Grades hand-ins, in several threads."""

    def __init__(self, out: Path, lab: Lab, sandbox: Sandbox, training: bool, trusted: bool) -> None:
        self.out, self.lab, self.sandbox, self.trusted = out, lab, sandbox, trusted
        self.training = training and any(item.bands for item in lab.items)
        settings = [unroll.__version__, lab.model_dump(mode="json"), lab.called, sandbox.name, lab.key_digest()]
        self._settings = json.dumps(settings, sort_keys=True).encode()

    def key(self, one: Submission) -> str:
        """Of everything that the points depend on."""
        digest = hashlib.sha256(self._settings)
        for path in (one.code, one.pdf):
            content = b"" if path is None else path.read_bytes()
            digest.update(hashlib.sha256(b"" if path is None else path.name.encode()).digest())
            digest.update(hashlib.sha256(content).digest())
        digest.update(json.dumps([one.notes, one.doubts]).encode())
        return digest.hexdigest()

    def known(self, one: Submission) -> Record | None:
        """Its record, if nothing has changed since; what was trained stays where no training is asked for now."""
        record = _record(self.out / one.student)
        if record is None or record.key != self.key(one):
            return None
        return record if record.trained is not None or not self.training or record.code is None else None

    def grade(self, one: Submission, slot: int) -> Record:
        """Check it, run it, write its files; the record last."""
        folder = made_folder(self.out / one.student)
        for name in (RECORD, FEEDBACK):
            (folder / name).unlink(missing_ok=True)
        answers, review = self._answers(one, slot)
        try:
            record, figures = self._graded(one, answers, review, slot)
            return self._keep(folder, record, figures)
        except OSError:  # of our own disk
            raise
        except Exception as error:  # a hand-in's data may be anything, and the class goes on
            why = printable(shortened(f"it could not be graded: {type(error).__name__}: {error}", 300))
            return self._keep(folder, self._made(one, None, None, answers, [*review, why]), {})

    def _keep(self, folder: Path, record: Record, figures: dict[str, bytes]) -> Record:
        text = record.model_dump_json(indent=1) + "\n"
        pictures = made_folder(folder / "figures")
        for old in pictures.glob("*.png"):
            if old.name not in figures:
                old.unlink()
        for name, content in figures.items():
            _write(pictures / name, content)
        write_feedback(folder, record, self.lab)
        write_atomically(folder / RECORD, text)
        return record

    def _graded(
        self, one: Submission, answers: Answers, review: list[str], slot: int
    ) -> tuple[Record, dict[str, bytes]]:
        if one.code is None:
            return self._made(one, None, None, answers, ["there is no code", *review]), {}
        try:
            source = read_source(one.code)
        except InputError as error:
            why = printable(f"{error}".replace(str(one.code), one.code.name))
            return self._made(one, None, None, answers, [why, *review]), {}
        files = {one.code.name: source.content}
        seen = self.sandbox.run(task_of(SUBMISSION / one.code.name, self.lab, seconds=SECONDS), files, CHECK, slot)
        checked = judge(source, self.lab, seen)
        training = None
        if self.training:
            training = train(one.code.name, source.content, self.lab, self.sandbox, slot, trusted=self.trusted)
        figures = {} if training is None else training.figures
        return self._made(one, checked, training, answers, review), figures

    def _answers(self, one: Submission, slot: int) -> tuple[Answers, list[str]]:
        if one.pdf is None:
            return Answers(), ["there is no PDF"] if self.lab.questions else []
        task = {"name": "pdf", "file": str(SUBMISSION / one.pdf.name)}
        found = written(self.sandbox.run(task, {one.pdf.name: one.pdf.read_bytes()}, READ_PDF, slot), self.lab)
        return found.answers, [] if found.reason is None else [found.reason]

    def _made(
        self,
        one: Submission,
        checked: Checked | None,
        training: Training | None,
        answers: Answers,
        review: list[str],
    ) -> Record:
        name = "" if one.code is None else one.code.name
        stopped = None if checked is None else checked.stopped
        review = [*review, *one.doubts, *([] if stopped is None else [stopped.message])]
        return Record(
            student=one.student,
            lab=self.lab.called,
            key=self.key(one),
            code=name or None,
            pdf=None if one.pdf is None else one.pdf.name,
            items=items_of(self.lab, checked, training, answers, name, review[0] if review else ""),
            notes=[*one.notes, *(() if training is None else training.notes)],
            review=review,
            stopped=None if stopped is None else stopped.message,
            formulas={} if checked is None else {of: lines[:60] for of, lines in checked.formulas.items()},
            trained=None if training is None else training.trained,
            log="" if training is None else training.log,
            figures=[] if training is None else sorted(training.figures),
        )


def write_feedback(folder: Path, record: Record, lab: Lab) -> None:
    """A student's feedback in its three forms, unless it stands there already."""
    text = feedback_md(record, lab)
    with suppress(OSError):
        if (folder / FEEDBACK).read_text(encoding="utf-8") == text and (folder / "feedback.pdf").is_file():
            return
    figures = {name: (folder / "figures" / name).read_bytes() for name in record.figures}
    write_atomically(folder / "results.json", results_json(record, lab))
    write_atomically(folder / "feedback.pdf", feedback_pdf(record, lab, figures))
    write_atomically(folder / FEEDBACK, text)


# --- all of them


def _in_turns(todo: Sequence[Submission], grading: _Grading, jobs: int, of: int) -> Iterator[tuple[Record, str]]:
    """The records as they come, each with a line for the screen.

    The threads end with the process, and what runs in the sandbox ends with its thread: Ctrl-C waits for nothing.
    """
    waiting: queue.SimpleQueue[Submission] = queue.SimpleQueue()
    done: queue.SimpleQueue[Record | BaseException] = queue.SimpleQueue()
    for one in todo:
        waiting.put(one)

    def work(slot: int) -> None:
        while True:
            try:
                done.put(grading.grade(waiting.get_nowait(), slot))
            except queue.Empty:
                return
            except BaseException as error:
                done.put(error)
                return

    for slot in range(min(jobs, len(todo))):
        threading.Thread(target=work, args=(slot,), daemon=True).start()
    begin = time.monotonic()
    for count in range(1, len(todo) + 1):
        record = done.get()
        if isinstance(record, BaseException):
            raise record
        left = (time.monotonic() - begin) / count * (len(todo) - count)
        yield record, f"{of - len(todo) + count} of {of}  {_said(record)}{_left(left) if count < len(todo) else ''}"


def _said(record: Record) -> str:
    most = sum(item.points or 0 for item in record.items if item.awarded is not None)
    look = "  (needs review)" if record.needs_review else ""
    return f"{record.student}: {record.awarded:g} of {most:g} points{look}"


def _left(seconds: float) -> str:
    return f"  about {seconds:.0f} s left" if seconds < 100 else f"  about {seconds / 60:.0f} min left"


def _sources(out: Path, records: Sequence[Record]) -> dict[str, Source]:
    """What can be read of the code, by student."""
    found = {}
    for record in records:
        if record.code is not None:
            with suppress(InputError):
                found[record.student] = read_source(out / HAND_INS / record.student / record.code)
    return found


def _starters(lab: Lab, out: Path) -> list[Source]:
    """What the course gave out, as far as it is this package's."""
    if lab.called not in starters():
        return []
    path = out / "starter.py"
    _write(path, starter(lab.called))
    try:
        return [read_source(path)]
    finally:
        path.unlink()


def _written(out: Path, lab: Lab, records: list[Record], points: Points, anew: int) -> Class:
    """Write what is made of all hand-ins."""
    decided = apply_points(records, points)
    for record in decided:
        write_feedback(out / record.student, record, lab)
    alike = copies(_sources(out, decided), _starters(lab, out))
    _write(out / "grades.csv", grades_csv(decided, lab))
    _write(out / "copies.csv", copies_csv(alike))
    _write(out / "summary.html", summary_html(decided, lab, alike))
    _write(out / "review.html", review_html(decided, lab, hashlib.sha256(os.fsencode(out.resolve())).hexdigest()[:16]))
    return Class(out, lab, decided, anew, alike)
