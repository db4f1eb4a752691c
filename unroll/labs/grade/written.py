"""The written answers of a hand-in: which part of its PDF's text answers which question.

What cannot be told apart is not guessed at: then every question has the whole text, with a note that says so. The PDF is opened
by `unroll.labs.child.read_pdf` in a process of its own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice, takewhile, zip_longest
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unroll.labs.spec import Lab

MOST_ANSWER = 20_000  # characters of one answer
PREFIX = 30  # letters of a question by whose beginning it is found where its end reads otherwise
OWN_END = ("The complete code", "Results of the package's recipe, not of this code", "How it was run")
STOP = re.compile(
    r"^[ \t]*(?:import (?:torch|numpy|matplotlib)\b|from torch|appendix\b"
    r"|\(?[a-d][.)]\s*(?:hyperparameters?|training loss|test accuracy|prediction)).*",
    re.IGNORECASE | re.MULTILINE,
)
"""Lines with which something else than an answer begins."""
WORD = re.compile(
    r"^[ \t#>*•-]{0,20}(?:(?:answers?|ans|questions?|ques|q|problem)[ \t.:#(-]{0,9}(?:to[ \t]{1,9})?"
    r"(?:questions?|q)?[ \t.:#(-]{0,9}|a|第[ \t]?|(?:問題|问题|題目|题目|回答|答)[ \t]?)"
    r"(\d{1,2})[ \t]?(?:[題题]|(?=[\s).:：、,，\](—-])|$)[).:：、\]]{0,3}",
    re.IGNORECASE | re.MULTILINE,
)
"""A heading such as "Question 5", "Q5:" or "A5."."""
DIGIT = re.compile(r"^[ \t#>*]*(?:\((\d{1,2})\)|(\d{1,2})[.):：、])(?=\s|$)", re.MULTILINE)
"""A line that begins as an item of a list does, such as "5." or "(5)"."""
JUNK = re.compile(
    r"\A(?:[\s*#:：.)\]—-]{0,20}(?:[(\[]?\s?\d{1,3}(?:\.\d)?\s?(?:points?|pts?|分|%)\s?[)\]]?|(?:my\s)?(?:answers?|ans|a)\s?[:：])){0,5}"
    r"[\s*#:：.)\]—-]{0,20}",
    re.IGNORECASE,
)
"""What stands between a question and its answer."""
UNPARTED = "The answers could not be told apart; this is the whole text of the PDF."
MOST_MARKS = 300  # of more, none is taken: it is no list of answers
TWICE = "\n\n[…]\n\n"  # between two pieces for the same question


@dataclass(frozen=True)
class Answers:
    """What was found.

    Attributes:
        found: the text by the lab's number of the question; empty where the question stands with nothing below, absent where it
            was not found.
        notes: by the same numbers, what a person has to know beside the text.
    """

    found: dict[int, str] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """The written part of one hand-in.

    Attributes:
        answers: see there.
        pages: of the PDF; None where they are not known.
        reason: why there is no text at all; None where there is some.
    """

    answers: Answers
    pages: int | None
    reason: str | None


class _Observed(BaseModel):
    model_config = ConfigDict(strict=True)

    pages: int | None = Field(default=None, ge=0)
    text: str = ""
    reason: str | None = None
    note: str | None = None


class _Mark(NamedTuple):
    """Where a question stands, or, with number None, where something else begins."""

    start: int
    end: int
    number: int | None
    note: str | None = None


def written(observed: dict[str, Any], lab: Lab) -> Written:
    """What the task ``pdf`` handed back (see `unroll.labs.child.read_pdf.read_pdf`), as answers.

    Where the child ended without an answer, or nothing could be read, every question has a note with the reason.
    """
    child = observed.get("child")
    if isinstance(child, dict):
        observed = {"reason": f"The PDF could not be read: {child.get('message')}."}
    try:
        seen = _Observed.model_validate(observed)
    except ValidationError:
        seen = _Observed(reason="What was read of the PDF is damaged.")
    if seen.reason is not None:
        return Written(Answers({}, dict.fromkeys(lab.questions, seen.reason)), seen.pages, seen.reason)
    answers = split_answers(seen.text, lab)
    if seen.note is not None:
        joined = {number: " ".join(filter(None, (answers.notes.get(number), seen.note))) for number in lab.questions}
        answers = Answers(answers.found, joined)
    return Written(answers, seen.pages, None)


def split_answers(text: str, lab: Lab) -> Answers:
    """The parts of a PDF's text that answer the lab's questions.

    A question is found by its own sentences, by a heading such as "Question 5", or by "5." at the beginning of a line. Numbers
    are the lab's, or count its questions from 1.

    Args:
        text: of all pages, parted by form feeds.
    """
    if not lab.questions:
        return Answers()
    text = _without_running_lines(text, lab)
    sentences = _sentences(text, lab)
    if len(sentences) > MOST_MARKS:
        return _to_all(text, UNPARTED, lab)
    words = _headings(WORD, text, lab, sentences, by_place=True)
    stops = _stops(text)
    marks = sentences + words
    answers = _between(text, marks, stops)
    open_ = [number for number in lab.questions if not answers.found.get(number)]
    if open_ and (digits := _headings(DIGIT, text, lab, sentences, by_place=not marks)):
        again = _between(text, marks + digits, stops)
        if sum(not again.found.get(number) for number in lab.questions) < len(open_):
            # As many numbered lines as questions are no accident; of more, some are something else.
            said = (
                None if len(digits) == len(lab.questions) else "Parted from the rest by the number of its line alone."
            )
            notes = {n: _joined(again.notes.get(n), said) for n in again.found}
            answers = Answers(again.found, {n: note for n, note in notes.items() if note})
    some = [number for number, found in answers.found.items() if found]
    if not some and set(answers.found) != set(lab.questions):
        return _to_all(text, UNPARTED, lab)
    if len(some) == 1 < len(answers.found) and some[0] == list(answers.found)[-1]:
        said = "Only the list of the questions was found; this is what follows it."
        return _to_all(answers.found[some[0]], said, lab)
    notes = dict(answers.notes)
    for number in lab.questions:
        if number not in answers.found:
            notes[number] = "The question was not found in the PDF; its answer may stand elsewhere in it."
        elif not answers.found[number]:
            notes[number] = _joined(
                notes.get(number), "No text stands below the question; a picture would not be seen here."
            )
    return Answers({number: _short(found) for number, found in answers.found.items()}, notes)


def _to_all(text: str, note: str, lab: Lab) -> Answers:
    return Answers(dict.fromkeys(lab.questions, _short(text.strip())), dict.fromkeys(lab.questions, note))


def _without_running_lines(text: str, lab: Lab) -> str:
    """Without the page numbers and titles that our own hand-ins carry on every page."""
    head = re.compile(rf"\A\s*{re.escape(lab.title)} [\w-]{{1,64}}\n")
    foot = re.compile(r"\n\d{1,3} / \d{1,3}\Z")
    return "\n".join(foot.sub("", head.sub("", page.rstrip())) for page in text.split("\f"))


# --- marks -------------------------------------------------------------------------------------------------------------------


def _letters(text: str) -> tuple[str, list[int]]:
    """Letters and digits alone, in one form, and where each stands: line breaks, hyphens and ligatures differ between PDFs."""
    found: list[str] = []
    places: list[int] = []
    for place, sign in enumerate(text):
        for letter in unicodedata.normalize("NFKC", sign).casefold():
            if letter.isalnum():
                found.append(letter)
                places.append(place)
    return "".join(found), places


def _sentences(text: str, lab: Lab) -> list[_Mark]:
    """Where the questions' own sentences begin a line, but for a number or points before them."""
    letters, places = _letters(text)
    marks = []
    for number, question in lab.questions.items():
        asked = _letters(re.sub(r"\\[a-zA-Z]+", "", question.text or ""))[0]
        if len(asked) < 8:
            continue  # too short to be told from an answer
        begin = asked if asked in letters or len(asked) <= PREFIX else asked[:PREFIX]
        at = letters.find(begin)
        while at >= 0:
            last = at + len(begin)
            if begin != asked:  # to the end of the question, where it is not far, else as far as it is the same
                end = letters.find(asked[-20:], last, at + 2 * len(asked))
                same = takewhile(
                    lambda pair: pair[0] == pair[1], zip(letters[at : at + len(asked)], asked, strict=False)
                )
                last = at + sum(1 for _ in same) if end < 0 else end + 20
            line = text.rfind("\n", 0, places[at]) + 1
            before = text[line : places[at]]
            if len(before) <= 40 and not re.search(r"\b[^\W\d]{3,}\b.*\b[^\W\d]{3,}\b", before):
                marks.append(_Mark(line, _after_sentence(text, places[last - 1] + 1), number))
            at = letters.find(begin, last)
    return sorted(marks)


def _after_sentence(text: str, place: int) -> int:
    match = re.compile(r"[.?!:;)\]\"'”’]*").match(text, place)
    return match.end() if match else place


def _headings(pattern: re.Pattern[str], text: str, lab: Lab, sentences: Sequence[_Mark], by_place: bool) -> list[_Mark]:
    """Headings with numbers, once it is known what the numbers mean; none where that is in doubt.

    Args:
        by_place: take 1 for the first question too, where no sentence shows what numbers mean.
    """
    own = list(lab.questions)
    in_place = dict(enumerate(own, start=1))
    found = [(match, int(next(filter(None, match.groups())))) for match in pattern.finditer(text)]
    found = [(match, number) for match, number in found if 1 <= number <= len(lab.items)]
    if len(found) > MOST_MARKS:
        return []
    before = [(match, number, _sentence_at(text, match, sentences)) for match, number in found]
    shown = {(number, question) for _, number, question in before if question is not None}
    if pattern is DIGIT:  # lists are numbered too
        found = [(match, number) for match, number, question in before if question is None]
        numbers = [number for _, number in found]
        if len(set(numbers)) != len(numbers):
            return []
    used = {number for _, number in found}
    if shown:
        as_own = all(number == question for number, question in shown)
        if not as_own and not all(in_place.get(number) == question for number, question in shown):
            return []
    else:
        as_own = bool(used & (set(own) - set(in_place))) or used <= set(own)
        if not as_own and not by_place:
            return []
    if not as_own and (pattern is DIGIT or not used <= set(in_place)):
        numbers = [number for _, number in found]
        if numbers != list(in_place):  # of a list in an answer
            return []
    note = None
    if not as_own and not shown:
        note = "Its number was taken as counting the questions alone, from 1 on."
    marks = []
    for match, number in found:
        meant = (number if number in lab.questions else None) if as_own else in_place.get(number)
        marks.append(_Mark(match.start(), match.end(), meant, note))
    return marks


def _sentence_at(text: str, match: re.Match[str], sentences: Sequence[_Mark]) -> int | None:
    """The question whose sentence a heading begins, or stands right before; None where it is none."""
    for mark in sentences:
        if mark.start <= match.start() < mark.end:
            return mark.number
        if 0 <= mark.start - match.end() <= 80 and not _answer(text[match.end() : mark.start]):
            return mark.number
    return None


def _stops(text: str) -> list[_Mark]:
    """Where something else than an answer begins: our own hand-in's next part, code, the results."""
    marks = []
    for title in OWN_END:
        for match in re.finditer(rf"^{re.escape(title)}[ \t]*$", text, re.MULTILINE):
            marks.append(_Mark(match.start(), match.end(), None))
    for match in islice(STOP.finditer(text), MOST_MARKS):
        said = " ".join(match[0].split())[:60]
        marks.append(_Mark(match.start(), match.end(), None, f"It is shown up to the line that begins with “{said}”."))
    return marks


# --- what stands between them ------------------------------------------------------------------------------------------------


def _between(text: str, marks: Sequence[_Mark], stops: Sequence[_Mark]) -> Answers:
    """The text behind each mark, up to the next."""
    places = sorted([*marks, *stops], key=lambda mark: (mark.start, -mark.end))
    merged: list[_Mark] = []
    for mark in places:
        if merged and mark.start < merged[-1].end:  # "5." of "5. Explain ..."
            continue
        if merged and merged[-1].number == mark.number is not None and not _answer(text[merged[-1].end : mark.start]):
            merged[-1] = _Mark(merged[-1].start, mark.end, mark.number, merged[-1].note or mark.note)
            continue
        merged.append(mark)
    pieces: list[tuple[int, str, str | None]] = []
    for mark, after in zip_longest(merged, merged[1:]):
        if mark.number is None:
            continue
        said = mark.note
        if after is not None and after.number is None:
            said = _joined(mark.note, after.note) or None
        pieces.append((mark.number, _answer(text[mark.end : None if after is None else after.start]), said))
    pieces = _without_list(pieces)
    found: dict[int, str] = {}
    notes: dict[int, str] = {}
    for number, piece, note in pieces:
        if piece and found.get(number):
            found[number] += TWICE + piece
            notes[number] = _joined(
                notes.get(number), "The question stands more than once; all that follows it is shown."
            )
        else:
            found[number] = found.get(number) or piece
        if piece and note is not None and note not in notes.get(number, ""):
            notes[number] = _joined(notes.get(number), note)
    return Answers(found, notes)


def _without_list(pieces: list[tuple[int, str, str | None]]) -> list[tuple[int, str, str | None]]:
    """Without the first round where it is the handout's bare list of questions, which are answered further on.

    What follows the last of its questions is then the rest of the handout.
    """
    numbers = [number for number, _, _ in pieces]
    again = next((k for k, number in enumerate(numbers) if number in numbers[:k]), None)
    if again is None or any(piece for _, piece, _ in pieces[: again - 1]):
        return pieces
    later = {number for number, piece, _ in pieces[again:] if piece}
    return pieces[again:] if again > 1 and set(numbers[:again]) <= later else pieces


def _answer(text: str) -> str:
    """A piece without what belongs to the question; empty where our own hand-in says that it is not answered."""
    rest = JUNK.sub("", text, count=1).strip()
    return "" if rest == "Not answered." else rest


def _short(text: str) -> str:
    return text if len(text) <= MOST_ANSWER else text[:MOST_ANSWER] + "\n[… cut here; see the PDF]"


def _joined(*parts: str | None) -> str:
    return " ".join(dict.fromkeys(part for part in parts if part))
