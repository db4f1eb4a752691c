"""``review.html``: everything that a person decides on one page, with boxes for points that are saved as ``points.json``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from unroll.labs.grade.collect import NO_COMMENT, PERSON
from unroll.labs.grade.feedback import points_text
from unroll.labs.grade.pages import HERE, bullets, link, page, text
from unroll.labs.grade.record import HAND_INS, Graded, Reason, Record
from unroll.labs.spec import Lab

LONG = 900  # characters of an answer that may need scrolling, and so has to be reached with the keyboard
HELP = (
    "Tab goes from box to box; Enter to the next box for points, Shift+Enter back. What is typed stays in this browser; "
    "save points.json, and put it in with"
)


def review_html(records: Sequence[Record], lab: Lab, class_id: str) -> str:
    """The written answers side by side, question by question, and what else waits for a person.

    Points that a person gave before stand in their boxes.

    Args:
        class_id: tells this class from others whose pages are opened in the same browser, such as a digest of its folder.
    """
    records = sorted(records, key=lambda record: record.student)
    body = [
        f'<main data-lab="{text(lab.called)}" data-kept="{text(f"{lab.called}:{class_id}")}">',
        f"<h1>Review: {text(lab.title)}</h1>",
        f"<p>{HELP} <code>unroll lab grade … --collect points.json</code>.</p>",
        _bar(lab, records),
    ]
    for number, question in lab.questions.items():
        body += [
            f'<section aria-labelledby="q{number}"><h2 id="q{number}">Question {number}: {text(question.title)} '
            f'<span class="soft">({points_text(question.points)})</span></h2>',
            f'<p class="question">{text(question.text)}</p>',
            f'<div class="cards">{"".join(_answer(record, number) for record in records)}</div></section>',
        ]
    body += _reasons(records, lab)
    return page(f"Review: {lab.title}", "\n".join([*body, "</main>"]), (HERE / "review.js").read_text(encoding="utf-8"))


def _bar(lab: Lab, records: Sequence[Record]) -> str:
    links = [f'<a href="#q{number}">Question {number}</a>' for number in lab.questions]
    if any(_has_reasons(record, lab) for record in records):
        links.append('<a href="#reasons">Reasons for review</a>')
    return (
        '<nav class="bar-top" aria-label="Progress"><strong id="left" aria-live="polite">The script of this page has not run: '
        "what is typed is not kept.</strong>"
        '<button type="button" id="next">Next open box</button>'
        '<button type="button" id="save" class="main">Save points.json</button>'
        f'{" ".join(links)}<span id="status" role="status"></span></nav>'
    )


def _answer(record: Record, number: int) -> str:
    item = next((item for item in record.items if item.number == number), None)
    if item is None:
        return ""
    found = f'<p class="warn">{text(" ".join(item.review))}</p>' if item.review else ""
    if item.text:
        reach = (
            f' tabindex="0" role="group" aria-label="Answer of {text(record.student)}"' if len(item.text) > LONG else ""
        )
        found += f'<div class="answer" dir="auto"{reach}>{text(item.text)}</div>'
    elif not item.review:
        found += '<p class="warn">No answer was found.</p>'
    pdf = "" if record.pdf is None else link(HAND_INS, record.student, record.pdf, said="PDF")
    return _card(record, item, found, pdf, left=True, is_question=True)


def _has_reasons(record: Record, lab: Lab) -> bool:
    return bool(record.review or any(item.review for item in record.items if item.number not in lab.questions))


def _reasons(records: Sequence[Record], lab: Lab) -> list[str]:
    """Hand-ins and items that a person has to look at for another reason than a written answer."""
    cards = []
    for record in records:
        if record.review:
            cards.append(_whole(record))
        for item in record.items:
            # Who has looked at a whole hand-in may change any of its points.
            if item.number not in lab.questions and (item.review or record.review):
                code = "" if record.code is None else link(HAND_INS, record.student, record.code, said="code")
                cards.append(_card(record, item, _known(item), code, left=bool(item.review)))
    if not cards:
        return []
    return [
        '<section aria-labelledby="reasons"><h2 id="reasons">Reasons for review</h2>',
        "<p>Where a box stays empty, the points stay as they are; an open item stays open.</p>",
        f'<div class="cards">{"".join(cards)}</div></section>',
    ]


def _known(item: Graded) -> str:
    parts = [bullets(item.review)]
    so_far = "none" if item.awarded is None else f"{item.awarded:g}"
    parts.append(f'<p class="soft">Points so far: {so_far}.</p>')
    for reason in item.deductions + item.remarks:
        parts.append(_reason(reason))
    return "".join(parts)


def _reason(reason: Reason) -> str:
    place = "" if reason.place is None else f"{reason.place}: "
    lost = f"−{reason.points:g}, " if reason.points else ""
    said = f"<p>{text(lost + place + reason.message)}</p>"
    if reason.witness is None:
        return said
    seen = reason.witness
    shown = f"{seen.given}\nexpected {seen.expected}\ngot      {seen.got}"
    return f'{said}<pre class="code">{text(shown)}</pre>'


def _whole(record: Record) -> str:
    """A card for what is said of a hand-in as a whole, with a box to tick."""
    label = f"looked-{text(record.student)}"
    pdf = "" if record.pdf is None else link(HAND_INS, record.student, record.pdf, said="PDF")
    code = "" if record.code is None else link(HAND_INS, record.student, record.code, said="code")
    log = f'<pre class="code">{text(record.log[-600:])}</pre>' if record.log.strip() else ""
    return (
        f'<article class="card" data-student="{text(record.student)}" data-item="all" data-left="1" '
        f'data-of="{_of(record.review)}"><div class="head"><h3>{text(record.student)}: the whole hand-in</h3>'
        f"<span>{code} {pdf}</span></div>{bullets(record.review)}{bullets(record.notes)}{log}{_changed()}"
        f'<p><input type="checkbox" id="{label}"> '
        f'<label for="{label}">I have looked at this; nothing is left to review</label></p>'
        "</article>"
    )


def _card(record: Record, item: Graded, found: str, where: str, left: bool, is_question: bool = False) -> str:
    """A card with what there is, and boxes for points and comment.

    Args:
        found, where: HTML.
        left: it counts as open until it has points.
    """
    given = [reason for reason in item.deductions + item.remarks if reason.code == PERSON]
    decided = bool(given) or (is_question and item.awarded is not None)
    value = f' value="{item.awarded:g}"' if decided and item.awarded is not None else ""
    comment = "\n".join(reason.message for reason in given if reason.message != NO_COMMENT)
    most = "" if item.points is None else f' max="{item.points:g}"'
    of = "" if item.points is None else f" of {item.points:g}"
    box, student = f"{item.number}-{text(record.student)}", text(record.student)
    what = f"item {item.number}, {student}"
    shown = _of([item.text or "", *item.review])
    title = "" if is_question else f": {item.number}. {text(item.title)}"
    return (
        f'<article class="card" data-student="{student}" data-item="{item.number}" data-left="{int(left)}" '
        f'data-of="{shown}"><div class="head"><h3>{student}{title}</h3><span>{where}</span></div>'
        f'{found}{_changed()}<div class="boxes"><label for="p-{box}">Points{of}</label>'
        f'<input type="number" id="p-{box}" min="0"{most} step="0.5" inputmode="decimal"{value} aria-label="Points{of}, {what}">'
        f'<label for="c-{box}">Comment</label>'
        f'<textarea id="c-{box}" rows="1" aria-label="Comment, {what}">{text(comment)}</textarea></div></article>'
    )


def _changed() -> str:
    return (
        '<p class="changed" hidden>What is shown here has changed since these points were typed. Please look again.</p>'
    )


def _of(shown: Sequence[str]) -> str:
    return hashlib.sha256("\0".join(shown).encode(errors="replace")).hexdigest()[:16]
