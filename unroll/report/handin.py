"""The hand-in: a report of a run under a person's own name, with their own code and their own answers.

What is asked stands in a small YAML file for each lab (`labs/`); a course can bring its own. Answers are Markdown, one
heading for each numbered question. A question without an answer is named as missing: nothing is ever filled in.
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unroll.errors import InputError, nearest, quoted
from unroll.files import NAME_RULE, is_name, refuse_foreign, refuse_special
from unroll.report.blocks import listing, note, paragraph, section
from unroll.report.document import Parts
from unroll.report.markdown import Block, parse_markdown, plain
from unroll.report.pdf import typeset, write_whole
from unroll.training.run import RunFolder
from unroll.yaml_files import read_yaml

LABS = Path(__file__).parent / "labs"
STUDENT_ID = re.compile(r"[\w-]{1,64}")
NUMBERED = re.compile(r"(?:question|q|answer|a)?[\s.:#]*(\d{1,6})\b", re.IGNORECASE)
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")


class Question(BaseModel):
    """One question of a lab."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str = Field(min_length=1)
    points: float | None = Field(None, gt=0)


class Lab(BaseModel):
    """What a lab asks for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"\{student_id\}")
    title: str = Field(min_length=1)
    cell: str | None = None  # as recipes call it
    questions: list[Question] = Field(min_length=1)

    def file_name(self, student_id: str) -> str:
        return self.name.replace("{student_id}", student_id)


class Handin(NamedTuple):
    """What was written, and the numbers of the questions that have no answer."""

    pdf: Path
    code: Path
    unanswered: list[int]


def load_lab(name: str) -> Lab:
    """A lab by its name (`homework`, `inclass`) or its file.

    Raises:
        InputError: there is no such lab, or its file is not as expected.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = {file.stem: file for file in LABS.glob("*.yaml")}
        if name not in known:
            raise InputError(f"unknown lab {name!r}{nearest(name, known)} (or name a file that ends in .yaml)")
        path = known[name]
    fields = read_yaml(path, "lab file", InputError)
    try:
        lab = Lab.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"lab file {path}: {where}: {first['msg']}; see {LABS.name}/homework.yaml") from None
    if not is_name(lab.file_name("1")):
        raise InputError(f"lab file {path}: name is {quoted(lab.name)}; expected {NAME_RULE}, and {{student_id}} in it")
    return lab


def questions_file(lab: Lab) -> str:
    """The lab's questions as Markdown, for a person to write their answers into."""
    lines = []
    for number, question in enumerate(lab.questions, start=1):
        text = question.text.strip().replace("--", "- -")
        lines += [f"## {number}", "", f"<!-- {text} -->", "", ""]
    return "\n".join(lines).rstrip() + "\n"


def read_answers(path: Path, lab: Lab) -> dict[int, list[Block]]:
    """Markdown with a heading for each question, such as "## 1" or "## Question 1" -> blocks by question.

    Raises:
        InputError: the file cannot be read, has no such heading, has one twice, or names a question that is not asked.
    """
    blocks = parse_markdown(_read(path, "answers")[1])
    level = next((b["level"] for b in blocks if b["t"] == "h" and _number(b) is not None), None)
    asked = len(lab.questions)
    if level is None:
        raise InputError(
            f"answers file {path} has no heading with a question's number; expected '## 1' to '## {asked}', "
            "each followed by the answer"
        )
    answers: dict[int, list[Block]] = {}
    current: list[Block] = []
    for block in blocks:
        depth = block["level"] if block["t"] == "h" else level + 1
        number = _number(block) if depth == level else None
        if depth < level:
            current = []  # what follows a title of the whole file, or of a part of it, answers nothing
        elif number is None:
            current.append(block)
        elif not 1 <= number <= asked:
            raise InputError(f"answers file {path} answers question {number}, but the lab asks 1 to {asked}")
        elif number in answers:
            raise InputError(f"answers file {path} has two headings for question {number}; join them")
        else:
            current = answers[number] = []
    return {number: found for number, found in answers.items() if any(block["t"] != "h" for block in found)}


def _number(heading: Block) -> int | None:
    match = NUMBERED.match(plain(heading["c"]).strip())
    return int(match[1]) if match else None


def handin(
    folder: RunFolder,
    lab: Lab,
    student_id: str,
    code: Path,
    *,
    answers: Path | None = None,
    name: str | None = None,
    out: Path | None = None,
    draft: bool = False,
) -> Handin:
    """Make `NAME.pdf` and `NAME.py` (or `.ipynb`) in one folder, NAME after the lab's pattern.

    Args:
        folder: the run to report.
        student_id: letters, digits, - and _.
        code: the person's own script or notebook; it becomes the listing, and is copied.
        answers: Markdown; see `read_answers`. None: no question is answered.
        name: the person's name, for the title page.
        out: the folder to write into; NAME if left out.
        draft: build from an unfinished run too.

    Raises:
        InputError, RunError: anything given does not fit; then nothing is written.
    """
    if not STUDENT_ID.fullmatch(student_id):
        raise InputError(f"student id is {quoted(student_id)}; expected letters, digits, - and _, as in 313513054")
    parts = Parts(folder, draft)
    if lab.cell is not None and parts.recipe.cell != lab.cell:
        raise InputError(
            f"{folder.path} trained a cell of kind {parts.recipe.cell}, but the lab asks for {lab.cell}; choose another run"
        )
    file_name = lab.file_name(student_id)
    if not is_name(file_name):
        raise InputError(f"the lab's files would be called {quoted(file_name)}; expected {NAME_RULE}")
    code_name = f"{file_name}{code.suffix.lower()}"
    content, source = read_code(code)
    answered = {} if answers is None else read_answers(answers, lab)
    body = [
        *parts.results(),
        *_answers(lab, answered, parts, answers),
        {"t": "flush"},
        section("The complete code", "sec-code"),
        paragraph(f"[](#lst-code) is the file `{code_name}` that comes with this report."),
        listing(source, f"The code, `{code_name}`.", "lst-code"),
        *parts.again(),
    ]
    lines = [*([name] if name else []), f"Student {student_id}"]
    byline = [[{"t": "text", "v": line}] for line in lines]
    document = parts.document(lab.title, body, name or student_id, byline)
    document.running = (lab.title, student_id)
    # What the copy is known by when it is made again.
    document.keywords = [*document.keywords, f"code {hashlib.sha256(content).hexdigest()}"]

    target = out if out is not None else Path(file_name)
    copy, report = target / code_name, target / f"{file_name}.pdf"
    refuse_foreign(report)
    if not _is_copy(copy, content, report):
        refuse_foreign(copy)
    pdf = typeset(document)
    write_whole(copy, content, checked=True)
    write_whole(report, pdf)
    unanswered = [number for number in range(1, len(lab.questions) + 1) if number not in answered]
    return Handin(report, copy, unanswered)


def _is_copy(path: Path, content: bytes, report: Path) -> bool:
    """Whether a file is a copy of the code that is handed in, or of that which the report beside it came with."""
    try:
        there = path.read_bytes()
        if there == content:
            return True
        return f"code {hashlib.sha256(there).hexdigest()}".encode() in report.read_bytes()
    except OSError:
        return False


def _read(path: Path, what: str) -> tuple[bytes, str]:
    """A person's file: its bytes, and its text.

    Raises:
        InputError: it cannot be read, or is no UTF-8 text.
    """
    try:
        refuse_special(path)
        content = path.read_bytes()
        return content, content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
        raise InputError(f"{what} file {path} cannot be read: {reason}") from None


def read_code(path: Path) -> tuple[bytes, str]:
    """A script or notebook -> its bytes, and what the listing shows of it.

    Raises:
        InputError: it cannot be read, is empty, or is neither.
    """
    suffix = path.suffix.lower()
    if suffix not in (".py", ".ipynb"):
        raise InputError(f"code file {path} ends in {suffix or 'nothing'}; expected .py or .ipynb")
    content, text = _read(path, "code")
    if suffix == ".ipynb":
        try:
            cells = json.loads(text)["cells"]
            sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(f"code file {path} is no Jupyter notebook; expected JSON with a list of cells") from None
        text = "\n\n".join(f"# %% [{n}]\n{source}" for n, source in enumerate(sources, start=1) if source.strip())
    if not text.strip():
        raise InputError(f"code file {path} holds no code")
    return content, text.rstrip()


def _answers(lab: Lab, answered: dict[int, list[Block]], parts: Parts, path: Path | None) -> list[Block]:
    blocks: list[Block] = [section("Questions and answers", "sec-answers")]
    for number, question in enumerate(lab.questions, start=1):
        points = "" if question.points is None else f" ({question.points:g} points)"
        blocks.append(section(f"Question {number}{points}", f"sec-question-{number}", level=2))
        blocks.append({"t": "question", "c": parse_markdown(question.text)})
        if number in answered:
            assert path is not None
            blocks += [_placed(block, parts, path) for block in answered[number]]
        else:
            blocks.append(note("**Not answered.**"))
    return blocks


def _placed(block: Block, parts: Parts, path: Path) -> Block:
    """A block of an answer, its pictures found and registered with the document, its headings under the question's."""
    if block["t"] == "picture":
        source = path.parent / block["file"]
        if source.suffix.lower() not in PICTURES:
            raise InputError(f"answers file {path}: picture {block['file']} is none of {', '.join(PICTURES)}")
        if not source.is_file():
            raise InputError(f"answers file {path}: picture {block['file']} does not exist beside it")
        _check_size(source)
        target = f"answer-{len(parts.files)}{source.suffix.lower()}"
        parts.files[target] = source
        alt = block["alt"] or source.stem
        return {"t": "picture", "file": target, "alt": alt, "caption": block["alt"]}
    if block["t"] == "h":
        return {**block, "level": 3}
    if block["t"] == "quote":
        return {**block, "c": [_placed(inner, parts, path) for inner in block["c"]]}
    if block["t"] in ("ul", "ol"):
        return {**block, "items": [[_placed(inner, parts, path) for inner in item] for item in block["items"]]}
    return block


def _check_size(picture: Path) -> None:
    """Raise InputError where a small file unpacks into more pixels than any screen has."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            Image.open(picture).close()
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise InputError(f"the picture {picture} is too large; make it smaller, below 80 million pixels") from None
        except (OSError, SyntaxError, ValueError):
            pass  # the compiler tells of what is no picture


def unanswered_line(lab: Lab, unanswered: list[int]) -> str | None:
    """What the command says about questions without an answer; None where there are none."""
    asked = len(lab.questions)
    if not unanswered:
        return None
    if len(unanswered) == asked:
        return f"None of the {asked} questions is answered; the report lists them as not answered."
    noun, them = ("Question", "it") if len(unanswered) == 1 else ("Questions", "them")
    return f"{noun} {', '.join(map(str, unanswered))} of {asked} not answered; the report lists {them} so."
