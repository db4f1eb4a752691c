"""Hand-ins that are alike beyond chance, for a person to judge: never a deduction.

A lab is small and its template public, so that two who never met write much the same. What counts is only what is rare:

- the same file, byte for byte or but for whitespace;
- the same program once names, strings, numbers, comments, formatting, order and the starter's lines are taken out: most of what
  the shorter one has is in the other too, and its lines are ones that few others have;
- the same unusual numbers, messages, comments and names, in programs that are alike.

A line counts by its rarity: -log2 of its share among the other hand-ins, in bits, and nothing if a third of them have it. (MOSS
and compare50 compare runs of 20 to 30 tokens instead, and leave out what stands in the base file or in more than ten files. Lines
need no window, so that lines put between or moved break nothing.) Files are read as text by a lexer that has an answer for every
text: nothing is parsed, imported or run, and a file with a mistake in it is compared like any other.
"""

from __future__ import annotations

import keyword
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations, groupby
from typing import Literal, NamedTuple, TypeVar

from unroll.labs.source import Source
from unroll.terminal import printable

MOST_CHARACTERS = 100_000  # of a file are compared; a lab's solution has some 5,000
FEWEST = 8  # hand-ins in a class that can say what is rare
# Measured on classes of unlike hand-ins, and on copies of theirs with other names, numbers, order and formatting:
# Rare lines in common, times their share of the shorter program: strangers reach 34, and most copies 55.
PROGRAM_BITS = 45.0
TASTE_BITS = 22.0  # rare numbers, messages, comments and names in common; strangers reach 17
TASTE_SHARE = 0.35  # of the shorter program's lines that the other has too, where taste is to count
MOST_OF_NAMES = 12.0  # bits that names can give: a language of few words for it is not enough
STREAM_TOKENS = 350  # of a program that is equal from end to end, in a class too small to say what is rare
FEW = 3  # hand-ins that share a mark, at most
QUOTED = 4  # marks in a sentence, and runs of lines, twice as many
SENTENCES = 8  # of a group

Kind = Literal["same file", "same text", "same program", "same constants"]
KINDS: tuple[Kind, ...] = ("same file", "same text", "same program", "same constants")

_TOKEN = re.compile(
    r"""(?P<space>[ \t\f\r]+|\\\n) | (?P<comment>\#[^\n]*)
    | (?P<string>(?i:[rbfut]{0,2})(?:
        \"{3}(?:\\.|[^\\])*?(?:\"{3}|\Z) | '{3}(?:\\.|[^\\])*?(?:'{3}|\Z)
        | "(?:\\.|[^"\\\n])*"? | '(?:\\.|[^'\\\n])*'?))
    | (?P<number>(?:0[xXbBoO][\da-fA-F_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?)[jJ]?)
    | (?P<name>[^\W\d]\w*) | (?P<line>\n) | (?P<op>\*\*=?|//=?|->|:=|[-+*/%@&|^<>=!]=|<<|>>|.)""",
    re.DOTALL | re.VERBOSE,
)
T = TypeVar("T", bound=Hashable)

_BLOCKS = {"if", "elif", "else", "for", "while", "with", "def", "class", "try", "except", "finally"}
_STARTS = {"class", "def", "import", "return", "while", "with", "try"}  # a line that begins so is inside no bracket
_ASSIGNS = {"=", "+=", "-=", "*=", "/=", ":"}
_FILLER = re.compile(r"\{[^{}]*\}|%[-+ #0]*[\d.]*[a-zA-Z]")
_QUOTES = re.compile(r"\A\w*(?:\"{3}|'{3}|[\"'])|[\"']+\Z")
_WORD = re.compile(r"[^\W\d_]{2,}")
_FAMOUS = {"1234", "12345", "123456", "4321", "31337", "1337", "3407", "314", "3141", "31415", "314159", "271828"} | {
    *(
        "1307",
        "3081",
        "255",
        "784",
        "469",
        "938",
        "6e4",
        "999",
        "9999",
        "123",
        "321",
        "1797",
        "485",
        "456",
        "406",
        "229",
        "224",
        "225",
    )
}
"""Digits of numbers that many know: seeds, MNIST's sizes, mean and deviation."""


@dataclass(frozen=True)
class Alike:
    """Hand-ins that are alike beyond chance.

    Attributes:
        students: their ids, sorted; two or more.
        kind: the weakest that joins them.
        evidence: short sentences, with the lines of the files. They quote the files: escape them.
    """

    students: tuple[str, ...]
    kind: Kind
    evidence: tuple[str, ...]


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


class _Mark(NamedTuple):
    """What is left of a file's own taste once the program is taken away."""

    kind: Literal["number", "message", "comment", "name"]
    text: str
    bits: float


@dataclass(frozen=True)
class _HandIn:
    """A file as it is compared.

    Attributes:
        text: without whitespace.
        shapes: of each line of code that is not the starter's, in order: its tokens without names, and where it begins.
        marks: and the first line of each.
    """

    source: Source
    text: str
    shapes: tuple[tuple[tuple[str, ...], int], ...]
    marks: Mapping[_Mark, int]

    @cached_property
    def where(self) -> dict[tuple[str, ...], list[int]]:
        """Of each shape, the lines."""
        found: dict[tuple[str, ...], list[int]] = {}
        for shape, line in self.shapes:
            found.setdefault(shape, []).append(line)
        return found


def copies(files: Mapping[str, Source], starter: Sequence[Source] = ()) -> list[Alike]:
    """The hand-ins that are alike beyond chance, most certain first; the same for the same files in any order.

    Args:
        files: by student.
        starter: what the course gave out: its lines count nothing, and a hand-in with no others is compared with none. A sample
            solution may be among them.

    With fewer than `FEWEST` hand-ins nothing is known of what is rare: equal files and equal long programs are listed alone.
    """
    given = [_read(source) for source in starter]
    known = {shape for one in given for shape, _ in one.shapes}
    taken = {mark for one in given for mark in one.marks}
    hands = {student: _without(_read(files[student]), known, taken) for student in sorted(files)}
    hands = {student: hand for student, hand in hands.items() if hand.shapes}
    links = _equal(hands)
    if len(hands) >= FEWEST:
        links = {**_rare(hands), **links}
    return sorted(_groups(links, hands), key=lambda one: (KINDS.index(one.kind), one.students))


# --- reading


def _read(source: Source) -> _HandIn:
    lines, comments = _logical_lines(source.text[:MOST_CHARACTERS])
    imported = {token.text for row in lines if _is_import(row) for token in row if token.kind == "name"}
    code = [row for row in lines if not _is_import(row) and any(token.kind != "string" for token in row)]
    names, attributes = _bound(code)
    shapes = tuple((_shape(row, names, attributes, imported), row[0].line) for row in code)
    return _HandIn(source, "".join(source.text.split()), shapes, _marks(code, comments, names | attributes))


def _without(hand: _HandIn, known: set[tuple[str, ...]], taken: set[_Mark]) -> _HandIn:
    """A hand-in without what the starter has."""
    return replace(
        hand,
        shapes=tuple((shape, line) for shape, line in hand.shapes if shape not in known),
        marks={mark: line for mark, line in hand.marks.items() if mark not in taken},
    )


def _logical_lines(text: str) -> tuple[list[list[_Token]], list[tuple[str, int]]]:
    """The lines of code as Python joins and parts them, and the comments with their lines."""
    lines: list[list[_Token]] = [[]]
    comments: list[tuple[str, int]] = []
    depth, line, fresh = 0, 1, True
    for match in _TOKEN.finditer(text):
        kind, token = str(match.lastgroup), match[0]
        if kind == "comment":
            comments.append((token, line))
        elif kind == "line":
            fresh = True
            if not depth:
                lines.append([])
        elif kind != "space":
            if fresh and depth and token in _STARTS:  # a bracket was never closed
                depth = 0
                lines.append([])
            fresh = False
            depth = max(depth + (token in "([{") - (token in ")]}"), 0) if kind == "op" else depth
            if token == ";" and not depth:
                lines.append([])
            else:
                lines[-1].append(_Token(kind, token, line))
                if token == ":" and not depth and lines[-1][0].text in _BLOCKS:
                    lines.append([])  # a body on the line of its head
        line += token.count("\n")
    return [row for row in lines if row], comments


def _is_import(row: Sequence[_Token]) -> bool:
    return row[0].text in ("import", "from")


def _bound(code: Iterable[Sequence[_Token]]) -> tuple[set[str], set[str]]:
    """The names that a file binds itself, and the attributes: those that can be called otherwise."""
    names, attributes = {"self"}, set()
    for row in code:
        head, depth = row[0].text, 0
        target = head not in _BLOCKS and _assigns(row)
        binds = 0  # until how deep a for, a lambda or a def still binds
        for n, (kind, token, _) in enumerate(row):
            before = row[n - 1].text if n else ""
            after = row[n + 1].text if n + 1 < len(row) else ""
            if kind == "op":
                depth += (token in "([{") - (token in ")]}")
                target = target and not (token in _ASSIGNS and not depth)
                binds = 0 if token == ":" else binds
            elif token in ("for", "lambda", "def"):
                binds = 1
            elif token == "in":
                binds = 0
            elif kind == "name" and not keyword.iskeyword(token):
                if before in ("def", "class"):
                    names.add(token)
                    attributes.add(token)
                elif before == ".":
                    if target and after != "." and after not in "([":
                        attributes.add(token)
                elif (target and after not in (".", "(", "[")) or binds or before == "as" or after == ":=":
                    names.add(token)
    return names, attributes


def _assigns(row: Iterable[_Token]) -> bool:
    """Whether there is a sign of assignment outside brackets."""
    depth = 0
    for kind, token, _ in row:
        if kind == "op":
            depth += (token in "([{") - (token in ")]}")
            if token in _ASSIGNS and not depth:
                return True
    return False


def _shape(row: Sequence[_Token], names: set[str], attributes: set[str], imported: set[str]) -> tuple[str, ...]:
    """A line of code without what can be changed and leaves the program as it is.

    Own names are numbered by their first place in the line; strings and numbers are all alike; brackets of calls, commas before
    a bracket that closes, and the modules that a function is called through are left out: ``nn.Linear`` is ``Linear``.
    """
    shape: list[str] = []
    seen: dict[str, int] = {}
    depth = 0
    for n, (kind, token, _) in enumerate(row):
        before = row[n - 1].text if n else ""
        after = row[n + 1].text if n + 1 < len(row) else ""
        if kind == "string":
            if shape[-1:] != ["''"]:
                shape.append("''")
        elif kind == "number":
            shape.append("0")
        elif kind == "op":
            depth += (token in "([{") - (token in ")]}")
            if token not in "()." and not (token == "," and after in ")]}"):
                shape.append(token)
        elif before == ".":
            shape.append(f".{seen.setdefault(token, len(seen))}" if token in attributes else token)
        elif token in imported:
            if after != ".":
                shape.append(token)
        elif token in names and not (
            after == "=" and depth and row[0].text != "def"
        ):  # an argument's name is another's
            shape.append(f"n{seen.setdefault(token, len(seen))}")
        else:
            shape.append(token)
    return tuple(shape)


def _marks(code: Iterable[Sequence[_Token]], comments: Iterable[tuple[str, int]], own: set[str]) -> dict[_Mark, int]:
    found: dict[_Mark, int] = {}
    for row in code:
        for kind, token, line in row:
            mark = None
            if kind == "number":
                mark = _number(token)
            elif kind == "string":
                words = _WORD.findall(text := _FILLER.sub("{}", _QUOTES.sub("", token)))
                mark = _Mark("message", text, min(2.0 * (len(words) - 1), 16.0)) if len(words) > 1 else None
            elif token in own and len(token) > 2:
                mark = _Mark("name", token, 1.5)
            if mark is not None:
                found.setdefault(mark, line)
    for comment, line in comments:
        words = re.findall(r"\w+", comment.lower())
        if len(words) > 2:
            found.setdefault(_Mark("comment", " ".join(words), min(2.0 * (len(words) - 1), 16.0)), line)
    return found


def _number(token: str) -> _Mark | None:
    """A number of three digits or more that is no round one, no power of two, no year and not known to many."""
    try:
        value = float(token.replace("_", ""))
    except ValueError:
        return None
    if not (0 < value < 1e15):
        return None
    digits = f"{value:.9e}".replace(".", "").partition("e")[0].strip("0")
    whole = int(value) if value == int(value) else 0
    if (
        len(digits) < 3
        or digits in _FAMOUS
        or len(set(digits)) == 1
        or (whole and whole & (whole - 1) == 0)
        or 1900 <= whole < 2100
    ):
        return None
    return _Mark("number", f"{value:.10g}", 3.3 * len(digits))


# --- comparing


class _Link(NamedTuple):
    """Why two hand-ins are alike; `weight` in bits, to choose the links of a group by."""

    kind: Kind
    weight: float
    evidence: tuple[str, ...]


_Pair = tuple[str, str]


def _equal(hands: Mapping[str, _HandIn]) -> dict[_Pair, _Link]:
    """The pairs that are equal, whatever the rest of the class wrote."""
    links: dict[_Pair, _Link] = {}
    kinds: tuple[tuple[Kind, Callable[[_HandIn], Hashable], str], ...] = (
        (
            "same program",
            _long_stream,
            "are the same program from end to end but for names, strings, numbers and comments",
        ),
        ("same text", lambda hand: hand.text, "are the same text but for blanks and ends of lines"),
        ("same file", lambda hand: hand.source.content, "are the same file, byte for byte"),
    )
    for kind, key, words in kinds:
        alike: dict[Hashable, list[str]] = {}
        for student, hand in hands.items():
            if (value := key(hand)) is not None:
                alike.setdefault(value, []).append(student)
        for pair in (pair for students in alike.values() for pair in combinations(students, 2)):
            own = len(hands[pair[0]].shapes)
            lines = "1 line of code is not the starter's" if own == 1 else f"{own} lines of code are not the starter's"
            links[pair] = _Link(kind, math.inf, (f"{_both(pair)} {words}; {lines}.",))
    return links


def _long_stream(hand: _HandIn) -> Hashable:
    shapes = tuple(shape for shape, _ in hand.shapes)
    return shapes if sum(map(len, shapes)) >= STREAM_TOKENS else None


def _rare(hands: Mapping[str, _HandIn]) -> dict[_Pair, _Link]:
    """The pairs that share more rare lines, or rare numbers and words, than chance gives."""
    owners = _owners({student: hand.where for student, hand in hands.items()})
    shared: Counter[_Pair] = Counter()
    weights: defaultdict[_Pair, float] = defaultdict(float)
    for shape, students in owners.items():
        bits = _bits(shape, len(students) - 2, len(hands) - 2)
        for pair in combinations(students, 2):
            shared[pair] += 1
            weights[pair] += bits
    marks: defaultdict[_Pair, list[_Mark]] = defaultdict(list)
    for mark, students in _owners({student: hand.marks for student, hand in hands.items()}).items():
        for pair in combinations(students, 2) if len(students) <= min(FEW, len(hands) // 4) else ():
            marks[pair].append(mark)
    links: dict[_Pair, _Link] = {}
    for pair, count in shared.items():
        share = count / min(len(hands[student].where) for student in pair)
        taste = marks[pair]
        names = sum(mark.bits for mark in taste if mark.kind == "name")
        taste_bits = sum(mark.bits for mark in taste if mark.kind != "name") + min(names, MOST_OF_NAMES)
        same = share * weights[pair] >= PROGRAM_BITS
        if same or (share >= TASTE_SHARE and taste_bits >= TASTE_BITS):
            evidence = (_lines_in_common(pair, hands, owners), *_marks_in_common(pair, hands, taste))
            kind: Kind = "same program" if same else "same constants"
            links[pair] = _Link(kind, weights[pair] + taste_bits, evidence)
    return links


def _owners(of: Mapping[str, Iterable[T]]) -> dict[T, list[str]]:
    """Who has each, where two or more have it."""
    owners: dict[T, list[str]] = {}
    for student, things in of.items():
        for thing in things:
            owners.setdefault(thing, []).append(student)
    return {thing: students for thing, students in owners.items() if len(students) > 1}


def _bits(shape: tuple[str, ...], others: int, of: int) -> float:
    """How much it says that two share a line which `others` of the rest, `of`, have too: -log2 of its share among them.

    The share is drawn towards what it is without a class, with the weight of four hand-ins: a long line is rarer than a short
    one, but no line says more than 3 bits by its length alone.
    """
    if others > of / 3:
        return 0.0
    size = sum(map(len, shape))
    bits = -math.log2((others + 4 * 2 ** -min(size / 8, 3)) / (of + 4))
    return bits if size >= 5 else bits / 2


def _groups(links: Mapping[_Pair, _Link], hands: Mapping[str, _HandIn]) -> Iterator[Alike]:
    """Those who are linked, however far, with the strongest links that join them."""
    group = {student: {student} for student in hands}
    kept: list[tuple[_Pair, _Link]] = []
    for pair, link in sorted(links.items(), key=lambda item: (KINDS.index(item[1].kind), -item[1].weight, item[0])):
        first, second = (group[student] for student in pair)
        if first is not second:
            kept.append((pair, link))
            first |= second
            for student in second:
                group[student] = first
    for students in {id(one): one for one in group.values() if len(one) > 1}.values():
        inside = [link for pair, link in kept if pair[0] in students]
        evidence = [sentence for link in inside for sentence in link.evidence]
        if len(evidence) > SENTENCES:
            evidence[SENTENCES - 1 :] = [
                f"There are {len(evidence) - SENTENCES + 1} more such sentences about this group."
            ]
        yield Alike(tuple(sorted(students)), max((link.kind for link in inside), key=KINDS.index), tuple(evidence))


# --- saying


def _both(pair: _Pair) -> str:
    return f"{pair[0]} and {pair[1]}"


def _lines_in_common(pair: _Pair, hands: Mapping[str, _HandIn], owners: Mapping[tuple[str, ...], list[str]]) -> str:
    first, second = (hands[student] for student in pair)
    common = [shape for shape in first.where if shape in second.where]
    few = max(FEW, len(hands) // 10)
    rare = [shape for shape in common if len(owners[shape]) <= few]
    places = (
        f"{_places(hand.source, sorted({line for shape in rare for line in hand.where[shape]}))} of {student}"
        for student, hand in zip(pair, (first, second), strict=True)
    )
    least = min(len(first.where), len(second.where))
    told = f"{_both(pair)}: of {least} different lines of code in the shorter file the other has {len(common)}, but for names."
    if not rare:
        return told
    return f"{told} {len(rare)} of these are in no more than {few} hand-ins: {' and '.join(places)}."


def _marks_in_common(pair: _Pair, hands: Mapping[str, _HandIn], marks: Sequence[_Mark]) -> Iterator[str]:
    """A sentence for each kind, the rarest first."""
    ordered = sorted(marks, key=lambda mark: (mark.kind, -mark.bits, mark.text))
    for kind, of_kind in groupby(ordered, key=lambda mark: mark.kind):
        found = list(of_kind)
        told = ", ".join(
            f"{mark.text if kind == 'number' else _quoted(mark.text)}"
            f" ({' and '.join(hands[student].source.place(hands[student].marks[mark]) for student in pair)})"
            for mark in found[:QUOTED]
        )
        more = f", and {len(found) - QUOTED} more" if len(found) > QUOTED else ""
        yield f"{_both(pair)} have the same {kind}{'s' if len(found) > 1 else ''}, rare in the class: {told}{more}."


def _quoted(text: str) -> str:
    text = printable(text)
    return f'"{text[:57]}..."' if len(text) > 60 else f'"{text}"'


def _places(source: Source, lines: Sequence[int]) -> str:
    """Lines as a student's file has them, runs in short: "lines 31-36, 40", "cell 3, lines 2-4; cell 5, line 1"."""
    split = [source.place(line).rpartition("line ") for line in lines]
    told: list[str] = []
    for cell, places in groupby(split, key=lambda place: place[0]):
        numbers = [int(place[2]) for place in places]
        starts = [n for n in numbers if n - 1 not in numbers]
        ends = [n for n in numbers if n + 1 not in numbers]
        runs = [f"{a}" if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True)]
        told.append(f"{cell}line{'s' if len(numbers) > 1 else ''} {_first(runs)}")
    return _first(told, "; ")


def _first(texts: Sequence[str], between: str = ", ") -> str:
    most = 2 * QUOTED
    return between.join([*texts[:most], *(["..."] if len(texts) > most else [])])
