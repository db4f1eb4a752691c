"""The hand-in: what a person's own code did when it ran, with their name and their answers, and the code beside it.

Everything in it comes from the folder of one run of own code; a recipe's results are shown only beside it, under a heading
that says whose they are. A question without an answer is named as missing: nothing is ever filled in.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unroll.errors import InputError, RunError, quoted
from unroll.files import NAME_RULE, is_name, refuse_foreign
from unroll.labs.answers import answer_blocks, read_answers
from unroll.labs.handout import behind, read_handout
from unroll.labs.own_run import OwnRun
from unroll.labs.results import finite, how_it_was_run, sections, summary
from unroll.labs.spec import Lab
from unroll.report.blocks import listing, paragraph, section
from unroll.report.markdown import Block
from unroll.report.pdf import Document, typeset, write_whole

STUDENT_ID = re.compile(r"[\w-]{1,64}")
MOST_POINTS = 2000  # of a curve; more are drawn as means


@dataclass(frozen=True)
class Handin:
    """What was written.

    Attributes:
        pdf, code: the two files.
        unanswered: the lab's numbers of the questions that have no answer.
        replaced: characters that no font on this machine has, shown as �; see `unroll.report.pdf.replaced_line`.
    """

    pdf: Path
    code: Path
    unanswered: list[int]
    replaced: set[str]


def handin(
    run: Path,
    lab: Lab,
    student_id: str,
    *,
    answers: Path | None = None,
    name: str | None = None,
    handout: Path | None = None,
    compare: Path | None = None,
    out: Path | None = None,
    draft: bool = False,
) -> Handin:
    """Make `NAME.pdf` and `NAME.py` (or `.ipynb`) in one folder, NAME after the lab's pattern.

    Args:
        run: the folder of a run of own code; the listing and the copy are the code that ran.
        student_id: letters, digits, - and _.
        answers: Markdown; see `read_answers`. None: no question is answered.
        name: the person's name, for the title page.
        handout: the lab's handout, a PDF; the results are put behind its pages.
        compare: the folder of a recipe's run, whose results are shown at the end under a heading that says so.
        out: the folder to write into; NAME if left out.
        draft: build from a run that did not finish too.

    Raises:
        InputError, RunError: anything given does not fit; then nothing is written.
    """
    if not STUDENT_ID.fullmatch(student_id):
        raise InputError(f"student id is {quoted(student_id)}; expected letters, digits, - and _, as in 313513054")
    own = OwnRun(run)
    if own.record.failure is not None and not draft:
        raise RunError(
            f"the code of {run} ended with an error (see {run / 'log.txt'}); mend and run it again, or see what there is with "
            "--draft"
        )
    _check_lab(own, lab)
    file_name = lab.file_name(student_id)
    if not is_name(file_name):
        raise InputError(f"the lab's files would be called {quoted(file_name)}; expected {NAME_RULE}")
    pages = None if handout is None else read_handout(handout)
    content = own.source.content
    code_name = f"{file_name}{own.source.path.suffix}"
    answered = {} if answers is None else read_answers(answers, lab)
    files: dict[str, Path] = {}
    with tempfile.TemporaryDirectory(prefix="unroll-") as drawn:
        body = [
            *sections(own, lab.kind, files, _curve(own, Path(drawn))),
            *answer_blocks(lab, answered, answers, files),
            {"t": "flush"},
            section("The complete code", "sec-own-code", numbered=False),
            paragraph(f"[](#lst-code) is the file `{code_name}` that comes with this report; it is the code that ran."),
            listing(own.source.listing, f"The code, `{code_name}`.", "lst-code"),
            *how_it_was_run(own, code_name),
        ]
        if compare is not None:
            body += _recipe_blocks(compare, files)
        document = Document(
            title=lab.title,
            running=(lab.title, student_id),
            summary=summary(own, code_name),
            body=body,
            byline=[[{"t": "text", "v": line}] for line in ([name] if name else []) + [f"Student {student_id}"]],
            author=name or student_id,
            description=f"Hand-in of a run of {code_name}",
            # The last is what the copy is known by when it is made again.
            keywords=[
                "recurrent neural network",
                "RNN" if lab.kind == "rnn" else lab.cell_name,
                "sequence classification",
                f"code {hashlib.sha256(content).hexdigest()}",
            ],
            when=own.record.time,
            files=files,
        )
        target = out if out is not None else Path(file_name)
        copy, report = target / code_name, target / f"{file_name}.pdf"
        refuse_foreign(report)
        if not _is_copy(copy, content, report):
            refuse_foreign(copy)
        pdf = typeset(document)
    if pages is not None and handout is not None:
        pdf = behind(pages, handout, pdf)
    write_whole(report, pdf, {copy: content})
    unanswered = [number for number in lab.questions if number not in answered]
    return Handin(report, copy, unanswered, document.replaced)


def _check_lab(own: OwnRun, lab: Lab) -> None:
    """Raise InputError where the code ran as another lab's."""
    ran = own.record.lab
    if ran in ("homework", "inclass") and lab.called in ("homework", "inclass") and ran != lab.called:
        raise InputError(f"{own.path} ran code of the lab {ran}, and --lab is {lab.called}; choose another run or lab")


def _curve(own: OwnRun, folder: Path) -> Path | None:
    """A plot of the losses, as an SVG in `folder`; None where there are none."""
    losses = finite(own)
    if len(losses) < 2:
        return None
    from unroll.report.figures import draw_curve, figure_files, save_figure

    size = -(-len(losses) // MOST_POINTS)
    parts = [losses[start : start + size] for start in range(0, len(losses), size)]
    points = [(sum(step for step, _ in part) / len(part), sum(loss for _, loss in part) / len(part)) for part in parts]
    path = folder / "curve"
    save_figure(draw_curve(points), path)
    return figure_files(path)[1]


def _recipe_blocks(run: Path, files: dict[str, Path]) -> list[Block]:
    """A recipe's results, a level below a heading that says whose they are."""
    from unroll.report.document import Parts
    from unroll.training.run import RunFolder

    parts = Parts(RunFolder(run))
    blocks = parts.results()
    files |= parts.files  # whose names begin otherwise than those of the hand-in's own
    below = [
        _relabelled(b | {"level": b.get("level", 1) + 1, "numbered": False} if b["t"] == "section" else b)
        for b in blocks
    ]
    warning = (
        "What follows was measured with another implementation, which comes with the package *unroll*. It is here to compare "
        "with, and says nothing about the code above."
    )
    return [
        section("Results of the package's recipe, not of this code", "sec-recipe", numbered=False),
        paragraph(warning),
        *parts.document("", [], None, []).summary,
        *below,
    ]


def _relabelled(node: Any) -> Any:
    """A tree of blocks whose labels, and references to them, are unlike those of the hand-in's own."""
    if isinstance(node, dict):
        changed = {name: _relabelled(value) for name, value in node.items()}
        for name in ("label", "to"):
            if isinstance(node.get(name), str):
                changed[name] = f"recipe-{node[name]}"
        return changed
    return [_relabelled(value) for value in node] if isinstance(node, list) else node


def _is_copy(path: Path, content: bytes, report: Path) -> bool:
    """Whether a file is a copy of the code that is handed in, or of that which the report beside it came with."""
    try:
        there = path.read_bytes()
        if there == content:
            return True
        return f"code {hashlib.sha256(there).hexdigest()}".encode() in report.read_bytes()
    except OSError:
        return False
