"""A class graded: points with reasons, what is graded again, and what a person decides."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.labs.test_check import solved
from unroll.errors import InputError, RunError
from unroll.files import locked
from unroll.labs.check import Checked, Item
from unroll.labs.grade.grade import LOCK, Class, collect, grade
from unroll.labs.grade.points import items_of
from unroll.labs.grade.record import Record, Trained
from unroll.labs.grade.sandbox import Unsandboxed
from unroll.labs.grade.training import Training
from unroll.labs.grade.written import Answers
from unroll.labs.problems import Problem, Witness
from unroll.labs.process import Limits
from unroll.labs.source import read_source
from unroll.labs.spec import load_lab

MINUS = ("f * c_prev + i * c_tilde", "f * c_prev - i * c_tilde")


class Box:
    """Runs each file once for all tests, as what is observed does not change."""

    name = "none"
    seen: ClassVar[dict[bytes, dict[str, Any]]] = {}

    def __init__(self) -> None:
        self.runs = 0

    def run(
        self,
        task: dict[str, Any],
        files: Mapping[str, bytes],
        limits: Limits,
        slot: int = 0,
        on_text: Any = None,
        labels: bool = True,
    ) -> dict[str, Any]:
        self.runs += 1
        if task["name"] == "pdf":
            return {"pages": 1, "text": "5. It forgets.\n\n6. The learning rate.\n\n7. An LSTM.", "reason": None}
        (content,) = files.values()
        if b"NOTHING" in content:
            return {"outcome": 7}
        if content not in self.seen:
            self.seen[content] = Unsandboxed().run(task, files, limits)
        return self.seen[content]


def hand_in(place: Path, student: int, text: str | None, pdf: bool = True) -> None:
    folder = place / str(student)
    folder.mkdir(parents=True, exist_ok=True)
    if text is not None:
        (folder / f"{student}_Lab7_Homework.py").write_text(text, encoding="utf-8")
    if pdf:
        (folder / f"{student}_Lab7_Homework.pdf").write_bytes(b"%PDF-1.4\n")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    found = tmp_path / "submissions"
    hand_in(found, 313000001, solved("homework"))
    hand_in(found, 313000002, solved("homework", MINUS))
    hand_in(found, 313000003, "def f(:\n", pdf=False)
    hand_in(found, 313000004, None)
    hand_in(found, 313000005, "NOTHING = 1\n")
    return found


def graded(place: Path, box: Box | None = None, **settings: Any) -> Class:
    return grade(
        place, place.parent / "graded", box or Box(), "homework", training=False, echo=lambda line: None, **settings
    )


def content(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}


def rows(out: Path) -> dict[str, dict[str, str]]:
    text = (out / "grades.csv").read_text(encoding="utf-8-sig")
    return {row["student"]: row for row in csv.DictReader(text.splitlines())}


def test_grade_gives_points_with_reasons_and_deducts_nothing_for_what_it_cannot_read(place: Path) -> None:
    found = graded(place, jobs=2)
    right, wrong, broken, without, strange = found.records
    assert [item.awarded for item in right.items] == [30, None, 5, 5, None, None, None]
    assert right.needs_review == []
    assert right.items[4].text == "It forgets."
    (deduction,) = wrong.items[0].deductions
    assert (wrong.items[0].awarded, deduction.points) == (24, 6)
    assert deduction.place is not None
    assert deduction.witness is not None
    for record in (broken, without, strange):
        assert [item.awarded for item in record.items] == [None] * 7
        assert record.needs_review
    assert "SyntaxError" in " ".join(broken.needs_review)
    assert without.needs_review == ["there is no code"]
    table = rows(found.folder)
    assert table["313000002"]["total"] == "34"
    assert "there is no PDF" in table["313000003"]["needs_review"]
    feedback = (found.folder / "313000002" / "feedback.md").read_text(encoding="utf-8")
    assert "24 of 30" in feedback
    assert (found.folder / "313000002" / "feedback.pdf").read_bytes().startswith(b"%PDF")
    scores = json.loads((found.folder / "313000002" / "results.json").read_text(encoding="utf-8"))
    assert scores["score"] == 34


def test_grade_again_does_what_has_changed_and_leaves_the_same_bytes(place: Path) -> None:
    first = graded(place)
    before = content(first.folder)
    box = Box()
    again = graded(place, box)
    assert (again.anew, box.runs) == (0, 0)
    assert content(again.folder) == before
    (first.folder / "313000001" / "result.json").unlink()  # as a kill leaves it
    assert graded(place).anew == 1
    assert content(again.folder) == before
    hand_in(place, 313000002, solved("homework"))
    changed = graded(place)
    assert changed.anew == 1
    assert changed.records[1].items[0].awarded == 30


def test_grade_keeps_what_a_person_decided(place: Path, tmp_path: Path) -> None:
    found = graded(place)
    points = tmp_path / "points.json"
    given = {"313000001": {"5": {"points": 4.5, "comment": "clear"}}, "313000004": {"1": {"points": 0}}}
    points.write_text(json.dumps({"lab": "homework", "points": given, "seen": ["313000004"]}), encoding="utf-8")
    decided = collect(found.folder, points)
    assert decided.records[0].items[4].awarded == 4.5
    assert rows(found.folder)["313000001"]["total"] == "44.5"
    assert "clear" in (found.folder / "313000001" / "feedback.md").read_text(encoding="utf-8")
    assert decided.records[3].review == []
    points.write_text(json.dumps({"lab": "homework", "points": {"313000001": {"6": {"points": 5}}}}), encoding="utf-8")
    collect(found.folder, points)
    assert graded(place).records[0].awarded == 49.5
    points.write_text(json.dumps({"lab": "homework", "points": {"313000001": {"6": {"points": 6}}}}), encoding="utf-8")
    with pytest.raises(InputError, match="expected 0 to 5"):
        collect(found.folder, points)


def test_grade_refuses_folders_that_are_not_its_own(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "graded"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(RunError, match="no graded class"):
        graded(place)
    with pytest.raises(RunError, match="no graded class"):
        collect(out, tmp_path / "points.json")
    (out / "thesis.txt").unlink()
    graded(place)
    with pytest.raises(InputError, match="is graded as homework, not as inclass"):
        grade(place, out, Box(), "inclass")
    with locked(out / LOCK, RunError("held")), pytest.raises(RunError, match="by another process"):
        graded(place)


def test_grade_from_the_shell_is_interrupted_at_once_and_goes_on(place: Path, tmp_path: Path) -> None:
    for student in (313000001, 313000002):
        hand_in(place, student, "import time\ntime.sleep(600)\n")
    command = [sys.executable, "-m", "unroll", "lab", "grade", str(place), "--out", str(tmp_path / "graded")]
    options = ["--lab", "homework", "--no-train", "--unsafe-no-sandbox", "--jobs", "1"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    end = time.monotonic() + 60
    while not (tmp_path / "graded" / "313000001").is_dir() and time.monotonic() < end:
        os.sched_yield()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in said
    assert not (tmp_path / "graded" / "313000001" / "result.json").exists()


def checked(tmp_path: Path, *problems: Problem, awarded: float | None) -> Checked:
    path = tmp_path / "a.py"
    path.write_text("x = 1\n")
    lab = load_lab("homework")
    items = [
        Item(1, "cell", 30, awarded, list(problems), []),
        Item(2, "training", 15, None, [], []),
        Item(3, "testing", 5, 5, [], []),
        Item(4, "pictures", 5, 5, [], []),
    ]
    return Checked(read_source(path), lab, items)


def problem(code: str) -> Problem:
    return Problem("cell", code, 1, f"about {code}", witness=Witness("cell()", "1", "2"))


@pytest.mark.parametrize(
    ("codes", "costs"),
    [((), []), (("activation",), [6]), (("activation",) * 7, [6, 6, 6, 6, 6, 0, 0]), (("minus", "no-cell"), [30, 0])],
)
def test_deductions_add_up_to_what_is_missing(codes: tuple[str, ...], costs: list[float], tmp_path: Path) -> None:
    lab = load_lab("homework")
    one = items_of(lab, checked(tmp_path, *map(problem, codes), awarded=30.0 - sum(costs)), None, Answers())[0]
    assert [reason.points for reason in one.deductions] == costs
    assert one.awarded == 30 - sum(costs)
    assert one.review == []


def training(accuracy: float | None, printed: float | None, why_not: str | None = None) -> Training:
    by = None if accuracy is None else "engine"
    return Training(Trained(seconds=1, accuracy=accuracy, printed=printed, by=by, why_not=why_not), {}, "")


@pytest.mark.parametrize(
    ("accuracy", "printed", "second", "third"),
    [(98.5, 98.5, 15, 5), (95.2, 95.2, 12, 5), (20.0, 99.0, 0, 2.5), (None, 99.0, None, 5)],
)
def test_the_accuracy_of_the_weights_decides_and_not_what_is_printed(
    accuracy: float | None, printed: float, second: float | None, third: float, tmp_path: Path
) -> None:
    lab = load_lab("homework")
    found = items_of(
        lab, checked(tmp_path, awarded=30.0), training(accuracy, printed, "no model"), Answers(), name="a.py"
    )
    assert [item.awarded for item in found[1:3]] == [second, third]
    for item in found[1:3]:
        lost = 0 if item.awarded is None else (item.points or 0) - item.awarded
        assert sum(reason.points for reason in item.deductions) == lost
    assert bool(found[1].review) == (accuracy is None)


def test_a_record_tells_each_reason_once() -> None:
    items = [
        {"number": 1, "title": "a", "points": 5, "review": ["it stopped", "unread"]},
        {"number": 2, "title": "b", "points": 5, "review": ["scan"], "question": True},
    ]
    given = {
        "student": "1",
        "lab": "x",
        "key": "k",
        "code": None,
        "pdf": None,
        "items": items,
        "review": ["it stopped"],
    }
    assert Record.model_validate(given).needs_review == ["it stopped", "item 1: unread"]
