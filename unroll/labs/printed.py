"""A checked file in a terminal: a dozen lines where it is right, and beside each fault what shows it."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator

from unroll.labs.check import CODES, Checked, Item
from unroll.labs.problems import Problem

MARKS = {"right": "✓", "wrong": "✗", "open": "–"}
WIDTH = 100
# For terminals that have ASCII alone, letter by letter; no two that stand in one formula become the same.
PLAIN = {
    "✓": "[ok]",
    "✗": "[x]",
    "–": "-",
    "c̃": "c_tilde",
    "σ": "sigmoid",
    "⊙": "*",
    "−": "-",
    "→": "->",
    "×": "x",
    "…": "...",
    "²": "^2",
    "ᵀ": "^T",
    "√": "sqrt",
    "φ": "phi",
}


def lines(checked: Checked) -> list[str]:
    """Each item with its points, each problem with its line, what the code computes beside what the lab asks, witnesses."""
    found = [f"{checked.source.path.name}: {checked.lab.title}"]
    if checked.note is not None:
        found.append(checked.note)
    if checked.stopped is not None:
        found += ["", *_problem(checked, checked.stopped)]
    found += [""]
    for item in checked.items:
        found += [_head(item)]
        for problem in item.problems:
            found += _problem(checked, problem)
        if item.status == "open" and not item.remarks:
            found += ["    The check has seen too little of this to say that it is right."]
        for remark in item.remarks:
            found += _wrapped(f"{_where(checked, remark)}{remark.message}", "    remark: ", "            ")
    yours, labs = (checked.formulas.get(whose, []) for whose in ("yours", "lab"))
    if yours:
        about = {problem.about for problem in checked.problems if problem.check in ("cell", "forward")}
        found += ["", "Your code computes:", *(f"    {line}" for line in yours)]
        if about and yours != labs:
            found += ["The lab asks:", *(f"  {_mark(line, about)} {line}" for line in labs)]
    return found


def hint(checked: Checked, number: int) -> list[str]:
    """The marks of the items, and of the first problem one hint; 1 is the vaguest."""
    found = [f"{checked.source.path.name}: {checked.lab.title}", ""]
    found += [_head(item) for item in checked.items]
    if not checked.problems:
        return [*found, "", "Nothing to hint at."]
    first = next((p for item in checked.items for p in item.problems), checked.problems[0])
    hints = CODES[first.code].hints if first.code in CODES else ()
    place = _where(checked, first) if number > len(hints) else ""
    if not hints or number > len(hints):
        return [*found, "", *_wrapped(f"{place}{first.message}", "No further hint: ", "    ")]
    found += ["", *_wrapped(hints[number - 1], f"Hint {number} of {len(hints)}: ", "    ")]
    if number < len(hints):
        found += [f"The next one: --hint {number + 1}"]
    return found


def plain(line: str) -> str:
    """A line in ASCII.

    >>> plain("✗ c̃ = σ(a)")
    '[x] c_tilde = sigmoid(a)'
    """
    for sign, written in PLAIN.items():
        line = line.replace(sign, written)
    return line.encode("ascii", "backslashreplace").decode()


def _mark(equation: str, about: Collection[str | None]) -> str:
    """✗ before an equation that a problem is about."""
    left = equation.partition(" = ")[0]
    return MARKS["wrong"] if {left, left.removesuffix("_t")} & set(about) else " "


def _head(item: Item) -> str:
    points = f"{item.points:g} points" if item.awarded is None else f"{item.awarded:g} of {item.points:g} points"
    return f"{MARKS[item.status]} {item.number}. {item.title} ({points})"


def _problem(checked: Checked, problem: Problem) -> Iterator[str]:
    yield from _wrapped(f"{_where(checked, problem)}{problem.message}", "    ", "    ")
    if problem.witness is not None:
        yield "    To see it:"
        yield from (f"        {line}" for line in problem.witness.given.split("\n"))
        yield f"        expected {problem.witness.expected}"
        yield f"        got      {problem.witness.got}"


def _where(checked: Checked, problem: Problem) -> str:
    return "" if problem.line is None else f"{checked.source.place(problem.line)}: "


def _wrapped(text: str, first: str, then: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=then, break_long_words=False)
