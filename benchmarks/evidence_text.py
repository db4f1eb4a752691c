"""From docs/evidence/*.json to the text and the tables of docs/questions.md; see `evidence.py`."""

from __future__ import annotations

import math
import re
from typing import Any


def render(template: str, evidence: dict[str, Any]) -> str:
    """The template with every {{…}} replaced.

    Raises:
        KeyError: a placeholder names nothing in the evidence.
    """

    def replaced(match: re.Match[str]) -> str:
        path, _, how = match[1].partition(":")
        if path == "table":
            return TABLES[how](evidence)
        value: Any = evidence
        for key in path.split("."):
            try:
                value = value[int(key)] if isinstance(value, list) else value[key]
            except (KeyError, IndexError, ValueError, TypeError):
                raise KeyError(f"{{{{{match[1]}}}}}: nothing is called {key!r} there") from None
        if value is None:
            return "–"
        return power_of_ten(value) if how == "power" else format(value, how)

    return re.sub(r"\{\{([^{}]+)\}\}", replaced, template)


def power_of_ten(value: float) -> str:
    """3.2e-11 -> 10⁻¹¹·⁵ would be exact; a power of ten is enough: 10⁻¹¹."""
    if value <= 0:
        return "less than 10⁻³⁰⁰"
    digits = str(round(math.log10(value))).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{digits}"


def ablation_table(evidence: dict[str, Any]) -> str:
    length = evidence["ablation"]["long_length"]
    long = {row["removed"]: row for row in evidence["ablation"]["long"]}
    lines = [
        f"| the cell | parameters | MNIST rows: test accuracy | against the whole | adding over {length} steps: solved |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in evidence["ablation"]["rows"]:
        against = "" if row["removed"] is None else f"{-100 * row['cost']:+.2f} points".replace("-", "−")
        accuracy = f"{100 * row['mean']:.2f}% ± {100 * row['deviation']:.2f}"
        kept = long.get(row["removed"])
        remembered = "not tried" if kept is None else solved(kept)
        lines.append(f"| {row['what']} | {row['parameters']:,} | {accuracy} | {against} | {remembered} |")
    return "\n".join(lines)


def solved(row: dict[str, Any]) -> str:
    """How many trainings got there, and after how many sequences; where none did, how much it got right."""
    detail = f"({row['right']:.0%} right)" if row["sequences"] is None else f"after {row['sequences']:,.0f} sequences"
    if row["sequences"] is None and row["diverged"]:
        detail = f"({row['diverged']} diverged)"
    return f"{row['solved']} of {row['seeds']} {detail}"


def memory_table(evidence: dict[str, Any]) -> str:
    names = {"order": "temporal order", "adding": "adding", "copy": "copy", "rows": "digit, then blank rows"}
    lines = ["| task | length | LSTM | vanilla RNN (tanh) | RNN, max(0, ·), W = 1 |", "| --- | --- | --- | --- | --- |"]
    for task, name in names.items():
        found = evidence["memory"][task]
        for length in found["lstm"]:
            cells = [solved(found[cell][length]) for cell in ("lstm", "rnn", "irnn")]
            lines.append(f"| {name} | {length} | {' | '.join(cells)} |")
    return "\n".join(lines)


def rows_table(evidence: dict[str, Any]) -> str:
    lines = ["| model | units | parameters | training step | test accuracy |", "| --- | --- | --- | --- | --- |"]
    for row in evidence["rows"]["rows"]:
        spread = " to ".join(f"{100 * bound(row['accuracies']):.2f}" for bound in (min, max))
        lines.append(
            f"| {row['name']} | {row['hidden_size']} | {row['parameters']:,} | {row['milliseconds']:.1f} ms "
            f"| {100 * row['mean']:.2f}% ({spread}) |"
        )
    return "\n".join(lines)


TABLES = {"ablation": ablation_table, "memory": memory_table, "rows": rows_table}
