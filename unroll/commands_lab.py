"""The commands for a lab, together as `unroll lab`: start, check, run and handin for students, grade for teachers."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import click

from unroll.errors import InputError
from unroll.options import Command, output
from unroll.terminal import say

FILE = click.Path(path_type=Path)


@click.group(short_help="The two labs with code of your own: start, check, run, hand in.", no_args_is_help=True)
def lab() -> None:
    """The two labs with code of your own: a file to start from, its check, its run on all data, and the hand-in."""


@lab.command(cls=Command, short_help="Write a file to start a lab from.")
@click.argument("name", metavar="homework|inclass")
@click.option("--notebook", is_flag=True, help="a notebook (my_lab.ipynb) instead of a script (my_lab.py)")
@output("where to put it; this folder if left out")
def start(name: str, notebook: bool, out: Path | None) -> None:
    """Write my_lab.py, which has the lab's names and gaps for your own code.

    It can be run as it is, and says which gap comes next. A file that stands there already is never overwritten.
    """
    from unroll.labs.starter import write_starter

    path, gaps = write_starter(name, notebook=notebook, folder=out)
    say(f"Starter: {path} ({gaps} gaps)", f"Fill the gaps, and check it: unroll lab check {shlex.quote(str(path))}")


@lab.command(cls=Command, short_help="Compare your code with the lab's equations, and name what differs.")
@click.argument("file", type=FILE)
@click.option("--lab", "name_of_lab", metavar="NAME", help="homework, inclass, or a YAML file of your course")
@click.option("--cell", metavar="CLASS", help="the class to check, where it has another name than the lab's")
@click.option(
    "--hint",
    type=click.IntRange(1, 99),
    metavar="N",
    help="say what is wrong by hints alone; 1 is the first, 2 says more",
)
@click.option("--json", "as_json", is_flag=True, help="print everything as JSON")
def check(file: Path, name_of_lab: str | None, cell: str | None, hint: int | None, as_json: bool) -> None:
    """Compare FILE, your script or notebook, with the lab's equations, and name what differs: equation, line, and an input
    that shows it.

    The file runs on few images, so that it takes seconds; no accuracy is asked for. Its values decide, not its style. Exit
    status 0 means that nothing is wrong, 1 that something is.
    """
    from unroll.labs.check import check as run_check
    from unroll.labs.printed import hint as hinted
    from unroll.labs.printed import lines, plain

    checked = run_check(file, name_of_lab, cell)
    if as_json:
        say(*json.dumps(checked.to_json(), indent=2, ensure_ascii=False).split("\n"))
    else:
        shown = lines(checked) if hint is None else hinted(checked, hint)
        say(*(shown if _shows("✗σ⊙c̃") else map(plain, shown)))
    sys.exit(0 if checked.ok else 1)


def _shows(text: str) -> bool:
    """Whether stdout can print a text."""
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


@lab.command(cls=Command, short_help="Run your own file on the lab's data, and keep what it did.")
@click.argument("file", type=FILE)
@click.option(
    "--lab",
    "name_of_lab",
    metavar="NAME",
    help="homework, inclass, or a YAML file; if left out, what the file looks like",
)
@output("run folder to make; runs/FILE without its suffix if left out", metavar="RUN")
@click.option(
    "--seed", type=click.IntRange(0, (1 << 63) - 1), default=0, help="random seed, set before the file begins"
)
def run(file: Path, name_of_lab: str | None, out: Path | None, seed: int) -> None:
    """Run FILE, a script or a notebook of your own, and keep in a run folder what it printed, drew, learnt and predicts.

    MNIST comes with the package, whole; nothing is downloaded. Of a file that ends early, or is interrupted with Ctrl-C, what
    it did until then is kept in a folder whose name ends in -unfinished, if --out names none; the exit status is 1, or 130.
    """
    from unroll.labs.source import guess_lab, read_source
    from unroll.labs.spec import load_lab

    named = guess_lab(read_source(file)) if name_of_lab is None else name_of_lab
    asked = load_lab(named)
    from unroll.labs.run import INTERRUPTED, run_lab

    try:
        made = run_lab(file, asked.called, out, seed)
    except KeyboardInterrupt:
        say(f"interrupted; nothing was kept of this run of {file}", error=True)
        sys.exit(130)
    failure = made.record.failure
    if failure is not None:
        say(f"Run folder, unfinished: {made.path}")
        sys.exit(130 if failure.type == INTERRUPTED else 1)
    say(f"Run folder: {made.path}")
    words = shlex.join(["unroll", "lab", "handin", str(made.path), "--lab", named])
    say(f"Hand it in: {words} --student-id ID --answers answers.md")


@lab.command(cls=Command, short_help="Make the two files of a lab's hand-in.")
@click.argument("folder", metavar="RUN", required=False)
@click.option(
    "--lab", "name_of_lab", required=True, metavar="NAME", help="homework, inclass, or a YAML file of your course"
)
@click.option("--student-id", metavar="ID", help="your number")
@click.option("--name", metavar="NAME", help="your name, for the title page")
@click.option(
    "--answers", metavar="FILE.md", type=FILE, help="your answers: Markdown, a heading such as '## 5' for each question"
)
@click.option("--handout", metavar="FILE.pdf", type=FILE, help="the lab's handout: the results go behind its pages")
@click.option(
    "--compare", metavar="RUN", type=FILE, help="show a recipe's results too, at the end, under a heading that says so"
)
@output("where to put both files; a folder of their name if left out")
@click.option("--draft", is_flag=True, help="build from a run that did not finish too, and say so")
@click.option("--questions", is_flag=True, help="only print the lab's questions, as a file to write the answers into")
def handin(
    folder: str | None,
    name_of_lab: str,
    student_id: str | None,
    name: str | None,
    answers: Path | None,
    handout: Path | None,
    compare: Path | None,
    out: Path | None,
    draft: bool,
    questions: bool,
) -> None:
    """Make the two files of a hand-in from RUN, a folder of `unroll lab run`: your results and answers, and your code."""
    from unroll.labs.spec import load_lab, questions_file

    asked = load_lab(name_of_lab)
    if questions:
        say(*questions_file(asked).rstrip("\n").split("\n"))
        return
    if folder is None:
        raise InputError("name the run folder, as in: unroll lab handin runs/my_lab --lab homework …")
    if student_id is None:
        raise InputError("a hand-in needs --student-id, as in: --student-id 313513054")
    from unroll.labs.answers import unanswered_line
    from unroll.labs.handin import handin as make
    from unroll.report.pdf import replaced_line

    made = make(
        Path(folder),
        asked,
        student_id,
        answers=answers,
        name=name,
        handout=handout,
        compare=compare,
        out=out,
        draft=draft,
    )
    say(f"Report: {made.pdf}", f"Code: {made.code}")
    line = unanswered_line(asked, made.unanswered)
    if line is not None:
        say(line, error=True)
    if made.replaced:
        say(replaced_line(made.replaced), error=True)


@lab.command(cls=Command, short_help="Grade a class's hand-ins, each in a sandbox, with a reason for every point.")
@click.argument("submissions", required=False, type=FILE)
@output("the output folder; an existing one is continued", default="graded")
@click.option(
    "--lab",
    "name_of_lab",
    metavar="NAME",
    help="homework, inclass, or a YAML file of your course; homework if left out",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    metavar="N",
    help="hand-ins graded in parallel; the number of cores if left out",
)
@click.option("--no-train", is_flag=True, help="leave out the run on all data, and so the points for the accuracy")
@click.option(
    "--collect",
    metavar="points.json",
    type=FILE,
    help="put in the points that you gave on the review page, and grade nothing",
)
@click.option("--unsafe-no-sandbox", is_flag=True, help="run the files without a sandbox; for files of your own alone")
def grade(
    submissions: Path | None,
    out: Path,
    name_of_lab: str | None,
    jobs: int | None,
    no_train: bool,
    collect: Path | None,
    unsafe_no_sandbox: bool,
) -> None:
    """Grade SUBMISSIONS: a folder or a zip, of a folder or a zip for each student, or as Moodle and Canvas export it.

    Each file runs in a sandbox, without network, and sees nothing of yours. Every deduction has a reason and an input that shows
    it; what could not be read, and every written answer, waits for you on the page review.html. Whose hand-in has not changed
    is not graded again.
    """
    from unroll.labs.grade.grade import collect as put_in
    from unroll.labs.grade.grade import grade as grade_class

    if collect is not None:
        if submissions is not None:
            raise InputError(
                "--collect grades nothing; leave SUBMISSIONS out, as in: unroll lab grade --collect points.json"
            )
        found = put_in(out, collect)
    elif submissions is None:
        raise InputError("name a folder or a zip of hand-ins, as in: unroll lab grade submissions.zip --lab homework")
    else:
        from unroll.labs.grade.sandbox import find_sandbox

        sandbox = find_sandbox(unsafe_no_sandbox)
        found = grade_class(
            submissions,
            out,
            sandbox,
            name_of_lab,
            jobs=jobs or os.cpu_count() or 1,
            training=not no_train,
            trusted=unsafe_no_sandbox,
        )
    waiting = sum(bool(record.needs_review) for record in found.records)
    say(
        f"Graded: {len(found.records)} hand-ins, {found.anew} of them now; {waiting} need a look",
        *([f"Alike beyond chance: {len(found.alike)} groups, in copies.csv"] if found.alike else []),
        f"Points: {found.folder / 'grades.csv'}",
        f"Summary: {found.folder / 'summary.html'}",
        f"To review: {found.folder / 'review.html'}",
    )


COMMANDS = (lab,)
