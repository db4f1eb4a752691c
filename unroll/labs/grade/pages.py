"""The pages for a teacher: ``summary.html``, and what they share with ``review.html``.

A page is one file that loads nothing and works from a disk. What students wrote is text in it; should a tag slip through after
all, the page's policy lets no script run but its own, known by its hash.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from unroll.labs.check import CODES
from unroll.labs.grade.collect import PERSON
from unroll.labs.grade.copies import Alike
from unroll.labs.grade.feedback import listed, most_points, open_items
from unroll.labs.grade.record import Record
from unroll.labs.spec import Lab
from unroll.report.blocks import count
from unroll.report.markdown import settable

HERE = Path(__file__).parent
MOST_MISTAKES = 30
MOST_NAMED = 12  # students behind one mistake


def text(value: object) -> str:
    """Anything as text of a page, or of an attribute.

    >>> text('<b a="1">\\u202e')
    '&lt;b a=&quot;1&quot;&gt;'
    """
    return escape(settable(str(value)))


def page(title: str, body: str, script: str = "") -> str:
    """A whole page; `body` is HTML, and so has gone through `text` where it is a student's."""
    css = (HERE / "page.css").read_text(encoding="utf-8")
    allowed = f"'sha256-{_hash(script)}'" if script else "'none'"
    policy = f"default-src 'none'; script-src {allowed}; style-src 'sha256-{_hash(css)}'; base-uri 'none'; form-action 'none'"
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>{text(title)}</title>",
            f"<style>{css}</style>",
            "</head>",
            "<body>",
            body,
            f"<script>{script}</script>" if script else "",
            "</body>",
            "</html>",
            "",
        ]
    )


def _hash(content: str) -> str:
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def link(*names: str, said: str) -> str:
    """A link to a file of the class's folder."""
    return f'<a href="{text("/".join(quote(part, safe="") for part in names))}">{text(said)}</a>'


def bullets(lines: Sequence[str]) -> str:
    """A list of lines of text; nothing for none."""
    return f"<ul>{''.join(f'<li>{text(line)}</li>' for line in lines)}</ul>" if lines else ""


def summary_html(records: Sequence[Record], lab: Lab, alike: Sequence[Alike] = ()) -> str:
    """The class at a glance: points of all, how they spread, the commonest mistakes, what needs a look, and copies."""
    records = sorted(records, key=lambda record: record.student)
    parts = [
        f"<h1>{text(lab.title)}</h1>",
        f"<p>{count(len(records), 'hand-in')}. {_open_line(records)} See also "
        '<a href="review.html">review.html</a> and <a href="grades.csv">grades.csv</a>.</p>',
        *_totals(records),
        *_look_at(records, lab),
        *_mistakes(records),
        *_copies(alike),
        *_table(records, lab),
    ]
    return page(f"Summary: {lab.title}", "<main>\n" + "\n".join(parts) + "\n</main>")


def _open_line(records: Sequence[Record]) -> str:
    numbers = sorted({item.number for record in records for item in open_items(record)})
    if not numbers:
        return "Every item has its points."
    waiting = sum(bool(open_items(record)) for record in records)
    return f"{count(waiting, 'hand-in')} wait for a person, with {'items' if len(numbers) > 1 else 'item'} {listed(numbers)}."


# --- totals ------------------------------------------------------------------------------------------------------------------


def _totals(records: Sequence[Record]) -> list[str]:
    if not records:
        return []
    totals = sorted(record.awarded for record in records)
    middle = (totals[(len(totals) - 1) // 2] + totals[len(totals) // 2]) / 2
    said = f"Points so far: median {middle:g}, from {totals[0]:g} to {totals[-1]:g}."
    return ["<h2>Points</h2>", f"<p>{said}</p>", histogram(totals, max(most_points(record) for record in records))]


def histogram(totals: Sequence[float], most: float) -> str:
    """How many have how many points, as an SVG of about ten bars; the last holds the highest total too."""
    if not totals:
        return ""
    size = next(step for step in (0.5, 1, 2, 2.5, 5, 10, 20, 25, 50, 100, 1e9) if most <= 14 * step)
    bars = max(1, math.ceil(most / size))
    counts = [0] * bars
    for total in totals:
        counts[min(int(total / size), bars - 1)] += 1
    width, height, room = 44, 120, 24
    names = [f"{k * size:g}–{(k + 1) * size:g}" for k in range(bars)]
    said = ", ".join(f"{name} points: {number}" for name, number in zip(names, counts, strict=True) if number)
    drawn = []
    for k, number in enumerate(counts):
        tall = round(height * number / max(counts), 1)
        x = k * width + room
        drawn.append(f'<rect class="bar" x="{x + 2}" y="{room + height - tall}" width="{width - 4}" height="{tall}"/>')
        if number:
            drawn.append(f'<text x="{x + width / 2}" y="{room + height - tall - 5}">{number}</text>')
    marks = [f'<text x="{k * width + room}" y="{room + height + 16}">{k * size:g}</text>' for k in range(bars + 1)]
    whole = bars * width + 2 * room
    axis = f'<line x1="{room}" x2="{whole - room}" y1="{room + height}" y2="{room + height}"/>'
    return (
        f'<svg role="img" aria-label="Histogram of the points so far. {text(said)}" width="{whole}" height="{height + 2 * room}" '
        f'viewBox="0 0 {whole} {height + 2 * room}">{"".join(drawn)}{axis}{"".join(marks)}</svg>'
    )


# --- what to look at ---------------------------------------------------------------------------------------------------------


def _look_at(records: Sequence[Record], lab: Lab) -> list[str]:
    """Hand-ins that tried something, broke, or lack a file, by name."""
    parts = ["<h2>Hand-ins to look at</h2>"]
    found = [
        (one.student, list(dict.fromkeys([*one.review, *([one.stopped] if one.stopped else [])]))) for one in records
    ]
    found = [(student, why) for student, why in found if why]
    if found:
        rows = "".join(
            f"<li>{link(student, 'feedback.md', said=student)}: {text('; '.join(why))}</li>" for student, why in found
        )
        parts.append(f"<ul>{rows}</ul>")
    items = [
        record for record in records if any(item.review for item in record.items if item.number not in lab.questions)
    ]
    if items:
        names = ", ".join(link(record.student, "feedback.md", said=record.student) for record in items)
        parts.append(f"<p><strong>An item has a reason for review</strong> ({len(items)}), see the table: {names}</p>")
    return parts if len(parts) > 1 else [*parts, "<p>None.</p>"]


def _mistakes(records: Sequence[Record]) -> list[str]:
    """The problems that cost points, the commonest first."""
    students: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for item in record.items:
            for reason in item.deductions:
                if reason.code != PERSON:
                    students[reason.code].add(record.student)
    common = sorted(students.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    parts = ["<h2>Commonest mistakes</h2>"]
    if not common:
        return [*parts, "<p>None.</p>"]
    rows = []
    for code, who in common[:MOST_MISTAKES]:
        named = sorted(who)[:MOST_NAMED]
        more = f" and {len(who) - len(named)} more" if len(who) > len(named) else ""
        title = CODES[code].title if code in CODES else ""
        names = ", ".join(link(student, "feedback.md", said=student) for student in named)
        rows.append(
            f'<tr><td class="number">{len(who)}</td><td><code>{text(code)}</code></td><td>{text(title)}</td>'
            f'<td class="text">{names}{more}</td></tr>'
        )
    left = len(common) - MOST_MISTAKES
    head = '<tr><th scope="col" class="number">Students</th><th scope="col">Code</th><th scope="col">What is wrong</th>'
    parts.append(
        f'<div class="scroll" tabindex="0" role="region" aria-label="Commonest mistakes"><table><thead>{head}'
        f'<th scope="col">Who</th></tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    )
    return parts if left <= 0 else [*parts, f"<p>{count(left, 'further code')}, each rarer.</p>"]


def _copies(alike: Sequence[Alike]) -> list[str]:
    parts = ["<h2>Alike beyond chance</h2>", "<p>For a person to judge; nobody has lost points for it.</p>"]
    if not alike:
        return [parts[0], "<p>None.</p>"]
    for one in alike:
        names = ", ".join(link(student, "feedback.md", said=student) for student in one.students)
        parts.append(f"<p><strong>{names}</strong>: {text(one.kind)}</p>{bullets(one.evidence)}")
    return parts


def _table(records: Sequence[Record], lab: Lab) -> list[str]:
    heads = [f"{number}. {item.title}" for number, item in enumerate(lab.items, start=1)]
    columns = "".join(f'<th scope="col" class="number">{text(head)}</th>' for head in heads)
    rows = []
    for record in records:
        items = {item.number: item for item in record.items}
        cells = []
        for number in range(1, len(lab.items) + 1):
            item = items.get(number)
            found = "" if item is None else "open" if item.awarded is None else f"{item.awarded:g}"
            cells.append(f'<td class="number">{found}</td>')
        reasons = bullets(record.needs_review)
        rows.append(
            f'<tr><th scope="row">{link(record.student, "feedback.pdf", said=record.student)}</th>{"".join(cells)}'
            f'<td class="number"><strong>{record.awarded:g}</strong></td><td class="text">{reasons}</td></tr>'
        )
    ends = '<th scope="col" class="number">Total so far</th><th scope="col">Needs review</th>'
    return [
        "<h2>All students</h2>",
        f'<div class="scroll" tabindex="0" role="region" aria-label="All students"><table>'
        f'<thead><tr><th scope="col">Student</th>{columns}{ends}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>",
    ]
