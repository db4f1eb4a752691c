"""A graded class as tables for other programs: ``grades.csv`` for a spreadsheet, ``results.json`` for Gradescope."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

from unroll.errors import shortened
from unroll.labs.grade.copies import Alike
from unroll.labs.grade.feedback import listed, most_points, open_items, points_text
from unroll.labs.grade.record import Graded, Reason, Record
from unroll.labs.spec import Lab
from unroll.report.markdown import settable
from unroll.terminal import printable

BOM = "\ufeff"
FORMULA = tuple("=+-@＝＋－＠")  # what spreadsheets take for the beginning of a formula
MOST_CELL = 2000  # characters; a spreadsheet's cell has an end, and a person who reads it too


def grades_csv(records: Sequence[Record], lab: Lab) -> str:
    """A row a student, by id: the points of every item, their sum, what is still open, why a person has to look, and notes.

    It begins with a byte order mark: without it, Excel reads the file in the country's old character set, and spoils every
    name that is not English; LibreOffice, R and pandas know it. An open item's cell is empty, and counts nothing in the total.
    """
    titles = [f"{n}. {item.title}" + ("" if item.points is None else f" ({item.points:g})") for n, item in _items(lab)]
    lines = [[cell(title) for title in ["student", *titles, "total", "open", "needs_review", "notes"]]]
    for record in sorted(records, key=lambda record: record.student):
        awarded = {item.number: item.awarded for item in record.items}
        points = ["" if (found := awarded.get(n)) is None else f"{found:g}" for n, _ in _items(lab)]
        waiting = " ".join(str(item.number) for item in open_items(record))
        said = [waiting, " | ".join(record.needs_review), " | ".join(record.notes)]
        lines.append([cell(text) for text in [record.student, *points, f"{record.awarded:g}", *said]])
    return table(lines)


def table(rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells as a CSV file, which begins with a byte order mark, as `grades_csv` says."""
    room = io.StringIO()
    csv.writer(room, lineterminator="\r\n").writerows(rows)
    return BOM + room.getvalue()


def copies_csv(alike: Iterable[Alike]) -> str:
    """A row for each group of hand-ins that are alike beyond chance."""
    rows = [["students", "kind", "evidence"]]
    rows += [[cell(", ".join(one.students)), one.kind, cell(" ".join(one.evidence))] for one in alike]
    return table(rows)


def _items(lab: Lab) -> list[tuple[int, Any]]:
    return list(enumerate(lab.items, start=1))


def cell(text: str) -> str:
    """One line of text that a spreadsheet takes for text.

    It has no semicolon: half the world's spreadsheets part cells there, and what follows one could be a formula again.

    >>> cell("=HYPERLINK(1)"), cell("a\\nb"), cell(" -1")
    ("'=HYPERLINK(1)", 'a b', "'-1")
    """
    line = shortened(printable(" ".join(text.replace(";", ",").split())), MOST_CELL)
    return f"'{line}" if line.startswith(FORMULA) else line


def results_json(record: Record, lab: Lab) -> str:
    """What Gradescope's autograders write: a test an item, with a score where it has points, none where a person decides.

    The score at the top is the points so far, since not every test has one. All text is shown as text.
    """
    waiting = open_items(record)
    said = [f"Points so far: {record.awarded:g} of {most_points(record):g}."]
    if waiting:
        said.append(
            f"A person decides {'item' if len(waiting) == 1 else 'items'} {listed([i.number for i in waiting])}."
        )
    if record.stopped is not None:
        said.append(f"The file did not run to its end: {record.stopped}")
    said += record.notes
    whole = {
        "score": record.awarded,
        "output": settable("\n".join(said)),
        "output_format": "text",
        "test_output_format": "text",
        "test_name_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "tests": [_test(item) for item in record.items],
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _test(item: Graded) -> dict[str, Any]:
    test: dict[str, Any] = {"number": str(item.number), "name": settable(item.title), "visibility": "visible"}
    if item.awarded is None:
        most = "" if item.points is None else f", at most {points_text(item.points)}"
        return {**test, "output": _output(item, [f"A person decides{most}."])}
    score = {"score": item.awarded}
    if item.points is not None:
        score["max_score"] = item.points
        test["status"] = "passed" if item.awarded >= item.points else "failed"
    return {**test, **score, "output": _output(item, [] if item.deductions else ["Nothing here costs points."])}


def _output(item: Graded, first: list[str]) -> str:
    return settable(
        "\n".join([*first, *(line for reason in item.deductions + item.remarks for line in _lines(reason))])
    )


def _lines(reason: Reason) -> list[str]:
    lost = f"−{points_text(reason.points)}" if reason.points else "Remark"
    place = "" if reason.place is None else f", {reason.place}"
    lines = [f"{lost}{place}: {reason.message}"]
    if reason.witness is not None:
        seen = reason.witness
        lines += [*(f"    {line}" for line in seen.given.split("\n"))]
        lines += [f"    expected {seen.expected}", f"    got      {seen.got}"]
    return lines
