"""Feedback for one student: points with the reason for every one that is missing, as Markdown and as a PDF.

Both are made from one list of blocks. Nothing of a student's text is taken for markup in either.
"""

from __future__ import annotations

import re
import shlex
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from unroll.errors import InputError, shortened
from unroll.labs.grade.record import Graded, Reason, Record, Trained
from unroll.labs.spec import Lab
from unroll.report.blocks import section
from unroll.report.markdown import Block, Inline, settable
from unroll.report.pdf import Document, typeset

LOG_LINES = 40  # of the end of what the file printed
MOST_LINES = 60  # of a witness's part
WIDTH = 96  # characters of a line that is set as it is
MOST_FIGURES = 12


def points_text(points: float | None) -> str:
    """
    >>> points_text(1.0), points_text(2.5), points_text(None)
    ('1 point', '2.5 points', 'points')
    """
    return "points" if points is None else f"{points:g} point{'' if points == 1 else 's'}"


def open_items(record: Record) -> list[Graded]:
    """The items that have no points yet."""
    return [item for item in record.items if item.awarded is None]


def most_points(record: Record) -> float:
    """The points of all items together; an item without points counts nothing."""
    return sum(item.points or 0 for item in record.items)


def listed(words: Sequence[object]) -> str:
    """
    >>> listed([5, 6, 7]), listed([5])
    ('5, 6 and 7', '5')
    """
    *first, last = map(str, words)
    return f"{', '.join(first)} and {last}" if first else last


def feedback_md(record: Record, lab: Lab) -> str:
    """The feedback as Markdown; pictures are linked as ``figures/NAME``, where `Record.figures` lie."""
    head = f"# {_escaped(_title(lab))}\n\nStudent {_escaped(record.student)}\n\n"
    return head + _markdown([*_summary(record), *_body(record, lab, record.figures)])


def feedback_pdf(record: Record, lab: Lab, figures: Mapping[str, bytes] | None = None) -> bytes:
    """The feedback as a PDF, the same bytes every time on one machine.

    Args:
        figures: the content of `Record.figures`, PNG; those that are missing, or that cannot be set, are left out.
    """
    shown = {name: figures[name] for name in record.figures if figures is not None and name in figures}
    try:
        return _typeset(record, lab, shown)
    except InputError:  # of all that comes in, a picture alone can be refused
        if not shown:
            raise
        return _typeset(record, lab, {})


def _typeset(record: Record, lab: Lab, figures: Mapping[str, bytes]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="unroll-") as folder:
        files = {}
        for number, name in enumerate(figures, start=1):
            target = f"figure-{number}.png"
            files[target] = Path(folder, target)
            files[target].write_bytes(figures[name])
        title = _title(lab)
        document = Document(
            title=title,
            running=(title, record.student),
            byline=[[_text(f"Student {record.student}")]],
            summary=_summary(record),
            body=_body(record, lab, list(files)),
            description=f"Feedback for {record.student}",
            keywords=["recurrent neural network", "feedback", "sequence classification"],  # known as ours by these
            files=files,
        )
        return typeset(document)


def _title(lab: Lab) -> str:
    return shortened(f"Feedback: {' '.join(lab.title.split())}", 250)


# --- blocks ------------------------------------------------------------------------------------------------------------------


def _text(text: str) -> Inline:
    return {"t": "text", "v": text}


def _strong(text: str) -> Inline:
    return {"t": "strong", "c": [_text(text)]}


def _p(*nodes: Inline | str) -> Block:
    return {"t": "p", "c": [_text(node) if isinstance(node, str) else node for node in nodes]}


def _pre(lines: Sequence[str], lang: str = "") -> Block:
    """Lines as they are; long ones go on in the next, and of very many the middle is left out."""
    whole = [piece for line in lines for piece in (_wrapped(line) or [""])]
    if len(whole) > MOST_LINES:
        half = MOST_LINES // 2
        whole = [*whole[:half], f"… {len(whole) - 2 * half} lines left out …", *whole[-half:]]
    return {"t": "pre", "v": "\n".join(whole), "lang": lang}


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(line.expandtabs(4)[:4000], WIDTH, drop_whitespace=False, break_on_hyphens=False)


def _summary(record: Record) -> list[Block]:
    waiting = open_items(record)
    most = most_points(record)
    nodes: list[Inline | str] = [
        _strong(f"{'Points so far' if waiting else 'Points'}: {record.awarded:g} of {most:g}.")
    ]
    if waiting:
        worth = sum(item.points or 0 for item in waiting)
        noun = "item" if len(waiting) == 1 else "items"
        numbers = listed([item.number for item in waiting])
        nodes.append(f" A person still decides {noun} {numbers} ({points_text(worth)}).")
    blocks = [_p(*nodes)]
    if record.stopped is not None:
        blocks.append(_p(f"The file did not run to its end: {record.stopped}"))
    return blocks


def _body(record: Record, lab: Lab, figures: Sequence[str]) -> list[Block]:
    rows = [_cells(str(item.number), item.title, _score(item)) for item in record.items]
    head = _cells("No.", "Item", "Points")
    blocks: list[Block] = [{"t": "grid", "align": ["right", "left", "right"], "head": head, "rows": rows}]
    for item in record.items:
        blocks += _item(item)
    if record.trained is not None:
        blocks += _trained(record.trained)
    blocks += _formulas(record.formulas)
    log = [line.rstrip() for line in record.log.rstrip().split("\n")] if record.log.strip() else []
    if log:
        left = len(log) - LOG_LINES
        blocks += [_head("What your file printed", "log")]
        blocks += [_p(f"The last {LOG_LINES} of {len(log)} lines:")] if left > 0 else []
        blocks += [_pre(log[-LOG_LINES:])]
    if figures:
        blocks += [_head("What your file drew", "figures")]
        blocks += [
            {"t": "picture", "file": name, "alt": f"Figure {number} of your file", "caption": ""}
            for number, name in enumerate(figures[:MOST_FIGURES], start=1)
        ]
        left = len(figures) - MOST_FIGURES
        blocks += [_p(f"{left} more are not shown here.")] if left > 0 else []
    if record.notes:
        blocks += [_head("About the files that were handed in", "notes")]
        blocks += [{"t": "ul", "items": [[_p(note)] for note in record.notes]}]
    if record.code is not None:
        blocks += [
            _head("To see it for yourself", "again"),
            _p(
                "Every difference that is named here can be repeated with the lines beside it. The same check, on your machine:"
            ),
            {
                "t": "pre",
                "v": f"unroll lab check {shlex.quote(record.code)} --lab {shlex.quote(lab.said)}",
                "lang": "sh",
            },
        ]
    return blocks


def _cells(*words: str) -> list[list[Inline]]:
    return [[_text(word)] for word in words]


def _head(title: str, label: str) -> Block:
    return section(title, f"sec-{label}", numbered=False)


def _score(item: Graded) -> str:
    of = "" if item.points is None else f" of {item.points:g}"
    return f"{'–' if item.awarded is None else f'{item.awarded:g}'}{of}"


def _item(item: Graded) -> list[Block]:
    blocks = [_head(f"{item.number}. {item.title}: {_score(item)}", f"item-{item.number}")]
    for reason in item.deductions:
        blocks += _reason(reason)
    for reason in item.remarks:
        blocks += _reason(reason)
    if item.awarded is None:
        blocks.append(_p("A person decides the points of this item."))
    elif not item.deductions:
        blocks.append(_p("Nothing here costs points."))
    return blocks


def _reason(reason: Reason) -> list[Block]:
    lost = f"−{points_text(reason.points)}" if reason.points else "Remark"
    place = "" if reason.place is None else f", {reason.place}"
    blocks = [_p(_strong(f"{lost}{place}:"), f" {reason.message}")]
    if reason.witness is not None:
        seen = reason.witness
        blocks += [_p("To see it:"), _pre(seen.given.split("\n"), "python")]
        blocks += [_pre([*_beside("expected ", seen.expected), *_beside("got      ", seen.got)])]
    return blocks


def _beside(name: str, text: str) -> list[str]:
    return [(name if k == 0 else " " * len(name)) + line for k, line in enumerate(text.split("\n"))]


def _trained(trained: Trained) -> list[Block]:
    said = [f"Your file was run as a whole; that took {trained.seconds:.0f} seconds."]
    if trained.losses is not None:
        said.append(f"Its loss went from {trained.losses[0]:.4g} to {trained.losses[1]:.4g}.")
    if trained.printed is not None:
        said.append(f"It printed a test accuracy of {trained.printed:.2f}%.")
    if trained.accuracy is not None:
        how = {"engine": " from the weights of your model", "model": " with your own model"}.get(trained.by or "", "")
        said.append(f"Computed again{how}, over all test images, it is {trained.accuracy:.2f}%; this number counts.")
    elif trained.why_not is not None:
        said.append(f"The accuracy could not be computed again: {trained.why_not.rstrip('.')}.")
    return [_head("The whole run", "run"), _p(" ".join(said))]


def _formulas(formulas: Mapping[str, list[str]]) -> list[Block]:
    yours, labs = formulas.get("yours", []), formulas.get("lab", [])
    if not yours:
        return []
    blocks = [_head("What your code computes", "formulas"), _pre(yours)]
    return blocks if not labs or yours == labs else [*blocks, _p("The lab asks for:"), _pre(labs)]


# --- Markdown ----------------------------------------------------------------------------------------------------------------


def _markdown(blocks: Sequence[Block]) -> str:
    """Blocks as CommonMark with tables; every character of the text stands for itself."""
    return "\n".join(f"{_block(block)}\n" for block in blocks)


def _block(block: Block) -> str:
    match block["t"]:
        case "p":
            return _inline(block["c"])
        case "section":
            return f"## {_inline([_text(block['title'])])}"
        case "pre":
            text = settable(block["v"])
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
            return f"{fence}{block['lang']}\n{text}\n{fence}"
        case "grid":
            marks = ["--:" if side == "right" else "---" for side in block["align"]]
            rows = [[_inline(cell) for cell in row] for row in (block["head"], *block["rows"])]
            return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], marks, *rows[1:]))
        case "ul":
            return "\n".join(f"- {_block(item[0])}" for item in block["items"])
        case "picture":
            return f"![{_escaped(block['alt'])}](figures/{quote(block['file'])})"
    raise AssertionError(block["t"])


def _inline(nodes: Sequence[dict[str, Any]]) -> str:
    whole = "".join(f"**{_inline(node['c'])}**" if node["t"] == "strong" else _escaped(node["v"]) for node in nodes)
    return re.sub(r"^(\d*)([#+=.)-])(?=[\s#=-]|$)", r"\1\\\2", whole.strip())


def _escaped(text: str) -> str:
    """Text in one line, with as few backslashes as do: people read this file as it is, too.

    >>> print(_escaped("*h*_t, (see http://a.b)"))
    \\*h\\*\\_t, (see http:\\//a.b)
    """
    line = re.sub(r"\s+", " ", settable(text))
    line = re.sub(r"[\\`*_\[\]<>|~&$]", r"\\\g<0>", line)
    return re.sub(r"(?i)\b(www)\.", r"\1\.", line).replace("://", ":\\//")
