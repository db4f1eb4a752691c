"""What a check finds: problems, each with a code that is documented, a line, and a witness that can be repeated."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

GAP = re.compile(r"line (?P<line>\d{1,6}): gap (?P<number>\d+ of \d+) comes next: (?P<what>.*)")
"""What a starter's open gap says."""


@dataclass(frozen=True)
class Code:
    """A kind of problem.

    Attributes:
        title: what is wrong, in a short sentence, for the table of codes in the guide.
        hints: what to look at, from vague to near; never the solution.
    """

    title: str
    hints: tuple[str, ...]


@dataclass(frozen=True)
class Witness:
    """One input that shows a problem, so that a person can repeat it.

    Attributes:
        given: Python to type, such as ``cell = ManualLSTMCell(2, 2)`` and its arguments, lines joined by newlines.
        expected, got: what the lab's equations give, and what the code gave.
    """

    given: str
    expected: str
    got: str


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        check: which of a lab's checks found it, such as ``cell``; the lab's YAML says which item of points that belongs to.
        code: a key of `Code`s.
        line: of the Python text that was run (see `Source`); None where no one line is to blame.
        message: what the code does, what the lab asks, and what the difference means, in one or two sentences.
        about: the equation or gate, in the lab's letters, such as ``o`` or ``c_t``; None where it is none.
        witness: see there.
    """

    check: str
    code: str
    line: int | None
    message: str
    about: str | None = None
    witness: Witness | None = None


def at_gap(error: dict[str, Any]) -> dict[str, Any]:
    """An exception (``type``, ``message``, ``line``) with the line of the gap that it tells of.

    It is raised in a function of the starter's own, and where that stands is of no use to anybody.
    """
    gap = GAP.fullmatch(error["message"]) if error.get("type") == "NotImplementedError" else None
    if gap is None:
        return error
    return {**error, "line": int(gap["line"]), "message": error["message"].partition(": ")[2]}


def in_words(error: dict[str, Any]) -> str:
    """An exception (``type``, ``message``) within a sentence; of what a starter's gap says is missing only that."""
    message = str(error["message"]).rstrip(".")
    if error["type"] == "NotImplementedError" and message:
        return message
    return f"{error['type']}: {message}" if message else str(error["type"])
