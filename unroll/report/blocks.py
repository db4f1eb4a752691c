"""Blocks of a document, made from our own words, and numbers in words."""

from __future__ import annotations

import json
import math
import re
import textwrap
from pathlib import Path
from typing import Any

from unroll.errors import RunError
from unroll.report.markdown import Block, Inline, formula, inline

LINES_A_COLUMN = 52
CODE_WIDTH = 104  # characters that fit into a line of a listing; longer lines go on in the next
# Tables of so many rows and listings of so many lines are kept whole, at the head or foot of a page.
FLOATING_ROWS, FLOATING_LINES = 36, 62
SIDES = {"l": "left", "r": "right", "w": "wide"}


def section(title: str, label: str, level: int = 1, numbered: bool = True) -> Block:
    return {"t": "section", "title": title, "label": label, "level": level, "numbered": numbered}


def paragraph(text: str) -> Block:
    """Markdown of ours; `[](#label)` refers to a table, a figure or a listing."""
    return {"t": "p", "c": [_reference(node) for node in inline(text)]}


def _reference(node: Inline) -> Inline:
    if node["t"] == "link" and node["url"].startswith("#"):
        return {"t": "ref", "to": node["url"][1:]}
    return node


def equation(latex: str, alt: str, label: str) -> Block:
    block = formula(latex, alt)
    assert block["t"] == "equation", latex
    return block | {"label": label}


def table(label: str, caption: str, head: list[str], sides: str, rows: list[Any], floating: bool = False) -> Block:
    """A table; `sides` has a letter for each column: flush left, flush right, or wide."""
    align = [SIDES[side] for side in sides]
    block = {"t": "table", "head": head, "align": align, "rows": rows, "caption": inline(caption), "label": label}
    return block | {"float": "auto" if floating and len(rows) <= FLOATING_ROWS else "none"}


def listing(text: str, caption: str, label: str) -> Block:
    numbers, lines = [], []
    for number, line in enumerate(text.expandtabs(4).splitlines(), start=1):
        indent = len(line) - len(line.lstrip()) + 8
        again = " " * indent if indent < CODE_WIDTH // 2 else ""
        pieces = textwrap.wrap(line, CODE_WIDTH, subsequent_indent=again, break_on_hyphens=False) or [""]
        lines += pieces
        numbers += [str(number)] + [""] * (len(pieces) - 1)
    block = {"t": "listing", "text": "\n".join(lines), "numbers": numbers}
    return block | {"lang": "python", "caption": inline(caption), "label": label}


def record(lines: list[str]) -> Block:
    """The printed record, in two columns where its lines are short, cut into pieces that fit a page."""
    columns = 2 if len(lines) > 16 and max(map(len, lines)) <= 46 else 1
    size = LINES_A_COLUMN * columns
    chunks = []
    for start in range(0, len(lines), size):
        piece = lines[start : start + size]
        per_column = math.ceil(len(piece) / columns)
        chunks.append(["\n".join(piece[i : i + per_column]) for i in range(0, len(piece), per_column)])
    caption = inline("The training record as it was printed.")
    block: Block = {"t": "record", "chunks": chunks, "caption": caption, "label": "lst-record"}
    return block | {"float": "auto" if len(lines) <= FLOATING_LINES * columns else "none"}


def note(text: str) -> Block:
    """A remark that something is missing."""
    return {"t": "missing", "c": inline(text)}


def absent(what: str, file: str) -> Block:
    return note(f"**Missing:** {what} (`{file}` is not in the run folder).")


def json_table(path: Path, caption: str) -> list[Block]:
    """A JSON file with a list of flat rows (or such a list under "rows") -> a table; nothing for any other."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise RunError(f"{path} is damaged: expected JSON; make it again or remove it") from None
    if not isinstance(content, dict):
        content = {"rows": content}
    rows = content.get("rows")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        return []
    columns = {
        name: [row.get(name) for row in rows] for name, value in rows[0].items() if not isinstance(value, list | dict)
    }
    sides = ""
    for values in columns.values():
        known = [value for value in values if value is not None]
        sides += "r" if known and all(isinstance(value, int | float) for value in known) else "l"
    head = [name.replace("_", " ") for name in columns]
    cells = [list(row) for row in zip(*map(numbers, columns.values()), strict=True)]
    return [table(f"tab-{path.stem}", escape(str(content.get("caption") or caption)), head, sides, cells)]


# --------------------------------------------------------------------------------------------------------------- words


def numbers(values: list[Any]) -> list[str]:
    """The cells of a column; its fractions with equally many decimals, so that they stand in line.

    >>> numbers([0.991, 0.97, None]), numbers([1e-09, 2.0]), numbers([81674, 3])
    (['0.991', '0.970', '–'], ['1e-09', '2'], ['81,674', '3'])
    """
    fractions = [value for value in values if isinstance(value, float)]
    how = ".4g"
    if all(value == 0 or 1e-3 <= abs(value) < 1e5 for value in fractions):
        how = f".{max((len(f'{value:.4g}'.partition('.')[2]) for value in fractions), default=0)}f"

    def cell(value: Any) -> str:
        if isinstance(value, float):
            return format(value, how)
        if isinstance(value, int) and not isinstance(value, bool):
            return f"{value:,}"
        return "–" if value is None else shown(value)

    return [cell(value) for value in values]


def shown(value: Any) -> str:
    """A field's value for people.

    >>> shown(True), shown(None), shown(6e-5), shown(28), shown("adamw"), shown(("a", "b"))
    ('yes', 'none', '6e-05', '28', 'adamw', 'a, b')
    """
    if isinstance(value, tuple | list):
        return ", ".join(map(shown, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def count(number: int, what: str) -> str:
    """
    >>> count(1, "epoch"), count(60000, "test image"), count(2, "series")
    ('1 epoch', '60,000 test images', '2 series')
    """
    plural = what if number == 1 or what.endswith("s") else what + "s"
    return f"{number:,} {plural}"


def duration(seconds: float) -> str:
    """
    >>> duration(0.158), duration(54.4), duration(754)
    ('0.16 s', '54 s', '12 min 34 s')
    """
    if seconds < 120:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def escape(text: str) -> str:
    """Text of others within Markdown of ours."""
    return re.sub(r"([\\`*_{}\[\]<>()#+\-.!|$~&])", r"\\\1", " ".join(text.split()))


def aligned(rows: list[list[str]], flush: str = "") -> list[str]:
    """Rows of words -> lines of text, the first column flush left and the others as `flush` says: left, or right (">").

    A row that is shorter than the first ends with a remark that may run on.

    >>> aligned([["a", "bc"], ["abc", "d"]], ">")
    ['a    bc', 'abc   d']
    """
    widths = [max(len(row[k]) for row in rows if k == 0 or len(row) == len(rows[0])) for k in range(len(rows[0]))]
    flushes = ["", *[flush] * len(rows[0])]
    return [
        "  ".join(f"{word:{f}{w}}" for word, f, w in zip(row, flushes, widths, strict=False)).rstrip() for row in rows
    ]
