"""A person's answers: Markdown with a heading for each question -> blocks of the report. Nothing is ever filled in."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

from unroll.errors import InputError
from unroll.files import refuse_special
from unroll.labs.spec import Lab
from unroll.report.blocks import note, section
from unroll.report.markdown import Block, parse_markdown, plain

NUMBERED = re.compile(r"(?:question|q|answer|a)?[\s.:#]*(\d{1,6})\b", re.IGNORECASE)
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".svg")


def read_text(path: Path, what: str) -> tuple[bytes, str]:
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


def read_answers(path: Path, lab: Lab) -> dict[int, list[Block]]:
    """Markdown with a heading for each question, such as "## 5" or "## Question 5" -> blocks by the lab's number.

    Questions are numbered as the lab's items are, or from 1 on. Where all numbers in the file can be read either way, they
    are the lab's.

    Raises:
        InputError: the file cannot be read, has no such heading, has one twice, names a question that is not asked, or mixes
            both ways of numbering.
    """
    blocks = parse_markdown(read_text(path, "answers")[1])
    level = next((b["level"] for b in blocks if b["t"] == "h" and _number(b) is not None), None)
    if level is None:
        raise InputError(
            f"answers file {path} has no heading with a question's number; expected {_asked(lab)}, as in '## "
            f"{next(iter(lab.questions), 1)}', each followed by the answer"
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
        elif number in answers:
            raise InputError(f"answers file {path} has two headings for question {number}; join them")
        else:
            current = answers[number] = []
    meant = _meant(path, lab, list(answers))
    return {meant[number]: found for number, found in answers.items() if any(block["t"] != "h" for block in found)}


def _meant(path: Path, lab: Lab, used: list[int]) -> dict[int, int]:
    """The lab's number of each question that a file's headings name, all of them numbered in one way."""
    own = list(lab.questions)
    ways = [{number: number for number in own}, dict(enumerate(own, start=1))]
    for way in ways:
        if all(number in way for number in used):
            return way
    unknown = [number for number in used if not any(number in way for way in ways)]
    if unknown:
        raise InputError(f"answers file {path} answers question {unknown[0]}, but the lab asks {_asked(lab)}")
    raise InputError(
        f"answers file {path} mixes two ways of numbering ({', '.join(map(str, used))}); expected {_asked(lab)}"
    )


def _asked(lab: Lab) -> str:
    """The numbers that headings may have, in words."""
    own = list(lab.questions)
    if not own:
        return "no questions"
    after = list(range(1, len(own) + 1))
    return _listed(own) if own == after else f"{_listed(own)} (or {_listed(after)} in their place)"


def _listed(numbers: list[int]) -> str:
    together = len(numbers) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]} to {numbers[-1]}" if together else ", ".join(map(str, numbers))


def _number(heading: Block) -> int | None:
    match = NUMBERED.match(plain(heading["c"]).strip())
    return int(match[1]) if match else None


def answer_blocks(lab: Lab, answered: dict[int, list[Block]], path: Path | None, files: dict[str, Path]) -> list[Block]:
    """The questions with their numbers and points, and the answers under them.

    Args:
        answered: as `read_answers` gives it.
        path: the file of answers, beside which its pictures are looked for; None where there is none.
        files: the document's pictures; those of the answers are added.

    Raises:
        InputError: a picture is missing or too large.
    """
    if not lab.questions:
        return []
    blocks: list[Block] = [section("Questions and answers", "sec-answers", numbered=False)]
    for number, question in lab.questions.items():
        points = "" if question.points is None else f" ({question.points:g} points)"
        blocks.append(section(f"Question {number}{points}", f"sec-question-{number}", level=2, numbered=False))
        blocks.append({"t": "question", "c": parse_markdown(question.text or "")})
        if number in answered:
            assert path is not None
            blocks += [_placed(block, files, path) for block in answered[number]]
        else:
            blocks.append(note("**Not answered.**"))
    return blocks


def _placed(block: Block, files: dict[str, Path], path: Path) -> Block:
    """A block of an answer, its pictures found and registered with the document, its headings under the question's."""
    if block["t"] == "picture":
        source = path.parent / block["file"]
        if source.suffix.lower() not in PICTURES:
            raise InputError(f"answers file {path}: picture {block['file']} is none of {', '.join(PICTURES)}")
        if not source.is_file():
            raise InputError(f"answers file {path}: picture {block['file']} does not exist beside it")
        check_picture_size(source)
        target = f"answer-{len(files)}{source.suffix.lower()}"
        files[target] = source
        alt = block["alt"] or source.stem
        return {"t": "picture", "file": target, "alt": alt, "caption": block["alt"]}
    if block["t"] == "h":
        return {**block, "level": 3}
    if block["t"] == "quote":
        return {**block, "c": [_placed(inner, files, path) for inner in block["c"]]}
    if block["t"] in ("ul", "ol"):
        return {**block, "items": [[_placed(inner, files, path) for inner in item] for item in block["items"]]}
    return block


def check_picture_size(picture: Path) -> None:
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
    numbers = ", ".join(map(str, unanswered))
    return f"{noun} {numbers} not answered ({len(unanswered)} of {asked}); the report lists {them} so."
