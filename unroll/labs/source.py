"""A student's file, script or notebook, as the Python text that is run, with the places of its lines.

What only a notebook understands becomes a comment, line by line, so that every line keeps its number:

    %matplotlib inline          pass  # %matplotlib inline
    !pip install torchvision    pass  # !pip install torchvision
    help?                       pass  # help?
    %time train()               train()
    %%time                      # %%time           and the cell below it is run
    %%bash                      # %%bash           and so is every line below it
"""

from __future__ import annotations

import codecs
import hashlib
import io
import json
import re
import tokenize
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from unroll.errors import InputError
from unroll.files import refuse_special

MOST_BYTES = 64 << 20  # a notebook carries its pictures
MOST_LINES, MOST_CODE = 5_000, 1 << 20  # of code: a lab's has some hundred lines
SUFFIXES = (".py", ".ipynb")
MARKS = ((codecs.BOM_UTF8, ""), (codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"))

RUNS_CELL = {"time", "timeit", "capture", "prun", "python", "python3"}  # cell magics below which there is Python
RUNS_LINE = {"time", "timeit", "prun"}
MAGIC = re.compile(r"(\s*)(%{1,2}|!{1,2})\s*([A-Za-z_]\w*)?(.*)", re.DOTALL)
OPTIONS = re.compile(r"\s*(?:-\w+(?:\s*\d+)?\s+)*")
ASSIGNED = re.compile(r"(\s*)[A-Za-z_][\w.,\s\[\]]*=\s*[!%]\s*[A-Za-z.~/].*", re.DOTALL)
HELP = re.compile(r"\s*(?:\?{1,2}\s*%{0,2}[\w.*]+|%{0,2}[A-Za-z_][\w.*\[\]]*\?{1,2})\s*;?\s*")
OPENING = re.compile(r"""(?P<comment>\#)|(?P<string>\"{3}|'{3}|\"|')|(?P<open>[(\[{])|(?P<close>[)\]}])""")


@dataclass(frozen=True)
class Source:
    """A student's file.

    Attributes:
        path: as given.
        content: the file's bytes.
        text: the Python text that is run.
        listing: the same lines as the student wrote them; a notebook's cells each after a line ``# %% [n]``.
        cells: the first line of each code cell's code, and the cell's number among the code cells; empty for a script.
    """

    path: Path
    content: bytes
    text: str
    listing: str
    cells: tuple[tuple[int, int], ...] = ()

    @cached_property
    def sha256(self) -> str:
        """Of the file's bytes, in hexadecimal."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def is_notebook(self) -> bool:
        """Whether it has cells."""
        return bool(self.cells)

    def place(self, line: int) -> str:
        """Where a line of `text`, counted from 1, stands in the student's own file.

        >>> Source(Path("a.py"), b"", "", "").place(26)
        'line 26'
        >>> Source(Path("a.ipynb"), b"", "", "", ((2, 1), (6, 3))).place(7)
        'cell 3, line 2'
        """
        if not self.cells:
            return f"line {line}"
        first, number = self.cells[max(bisect_right(self.cells, (line, 1 << 60)) - 1, 0)]
        return f"cell {number}, line {max(line - first + 1, 1)}"


def read_source(path: str | Path) -> Source:
    """A script or a notebook (nbformat 3 and 4), whatever its encoding and its ends of lines.

    A mistake in its Python is none here: it is found when the text is run.

    Raises:
        InputError: there is no such file, it cannot be read, it is neither, or it holds no code.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"code file {path} ends in {suffix or 'nothing'}; expected .py or .ipynb")
    try:
        refuse_special(path)
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = getattr(error, "strerror", None) or "no file can have this name"
        raise InputError(f"code file {path} cannot be read: {reason}") from None
    if len(content) > MOST_BYTES:
        raise InputError(f"code file {path} has more than {MOST_BYTES >> 20} MB; clear the notebook's outputs")
    text = _decoded(path, content)
    cells = _cells(path, text, suffix)
    parts = (
        [(1, _lines(text))]
        if cells is None
        else [(n, _lines(cell)) for n, cell in enumerate(cells, start=1) if cell.strip()]
    )
    if not any(line.strip() for _, part in parts for line in part):
        raise InputError(f"code file {path} holds no code")
    lines, characters = (
        sum(map(count, (part for _, part in parts))) for count in (len, lambda part: sum(map(len, part)))
    )
    if lines > MOST_LINES or characters > MOST_CODE:
        raise InputError(
            f"code file {path} has {lines:,} lines of code, {characters:,} characters; expected a lab's, of no more than "
            f"{MOST_LINES:,} lines and {MOST_CODE >> 20} MB"
        )
    run: list[str] = []
    written: list[str] = []
    firsts: list[tuple[int, int]] = []
    for number, part in parts:
        if cells is not None:
            head = ["", f"# %% [{number}]"] if written else [f"# %% [{number}]"]
            written += head
            run += head
            firsts.append((len(run) + 1, number))
        written += part
        run += _as_python(part)
    return Source(path, content, "\n".join(run) + "\n", "\n".join(written).rstrip(), tuple(firsts))


def guess_lab(source: Source) -> str:
    """``homework``, ``inclass`` or ``gru``, by the words of a file.

    Raises:
        InputError: it has those of neither.
    """
    text = source.text
    if re.search(r"^class ManualGRU", text, re.MULTILINE):
        return "gru"
    if "MNIST" in text:
        return "homework"
    if any(word in text for word in ("word_to_onehot", "vocab", '"movie"', "'movie'")):
        return "inclass"
    if "nn.Module" in text or "Module)" in text:
        return "homework"
    raise InputError(f"{source.path} looks like neither lab; say which: --lab homework, or --lab inclass")


def _decoded(path: Path, content: bytes) -> str:
    """The text of a file, by its mark or its cookie; UTF-8 where it has neither."""
    for mark, name in MARKS:
        if name and content.startswith(mark):
            raise InputError(f"code file {path} is in {name}, which Python does not read; save it as UTF-8")
    try:
        encoding = "utf-8-sig"
        if path.suffix.lower() == ".py":
            encoding, _ = tokenize.detect_encoding(io.BytesIO(content).readline)
        text = content.decode(encoding)
    except (SyntaxError, LookupError) as error:
        raise InputError(
            f"code file {path} cannot be read: {error.msg if isinstance(error, SyntaxError) else error}"
        ) from None
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"code file {path} cannot be read: line {line} is no {error.encoding} text; save it as UTF-8"
        ) from None
    if "\0" in text:
        raise InputError(f"code file {path} holds a zero byte, so it is no Python text; save it again as UTF-8")
    return text


def _lines(text: str) -> list[str]:
    """As Python counts them: a form feed ends none."""
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")


def _cells(path: Path, text: str, suffix: str) -> list[str] | None:
    """The code cells of a notebook, in order; None for a script. A notebook that is called .py is one too."""
    if suffix == ".py" and not text.lstrip().startswith("{"):
        return None
    try:
        return list(_code_cells(json.loads(text)))
    except (ValueError, KeyError, TypeError, RecursionError):
        if suffix == ".py":
            return None
        raise InputError(f"code file {path} is no Jupyter notebook; expected JSON with a list of cells") from None


def _code_cells(notebook: Any) -> Iterator[str]:
    cells = (
        notebook["cells"] if "cells" in notebook else [c for sheet in notebook["worksheets"] for c in sheet["cells"]]
    )
    for cell in cells:
        if cell["cell_type"] == "code":
            source = cell["source"] if "source" in cell else cell["input"]  # nbformat 3
            text = source if isinstance(source, str) else "".join(source)
            yield text.encode(errors="replace").decode().replace("\0", "")  # halves of characters, which JSON may hold


def _as_python(lines: list[str]) -> list[str]:
    """The lines of one cell, or of a script, with magics as comments; as many lines as came."""
    first = next((n for n, line in enumerate(lines) if line.strip()), 0)
    if lines[first].startswith("%%"):
        name = lines[first][2:].split()
        head = [*lines[:first], f"# {lines[first]}"]
        below = lines[first + 1 :]
        return head + (
            _as_python(below) if name and name[0] in RUNS_CELL and below else [f"# {line}" for line in below]
        )
    out: list[str] = []
    state = _Lexer()
    carried = False  # a magic that a backslash carries on
    for line in lines:
        if carried:
            carried = line.rstrip().endswith("\\")
            out.append(f"# {line}")
        elif state.at_start and (magic := _magic(line)) is not None:
            carried = magic.startswith(("pass", " ")) and "pass  # " in magic and line.rstrip().endswith("\\")
            out.append(magic)
            if "pass  # " not in magic:
                state.read(magic)
        else:
            state.read(line)
            out.append(line)
    return out


def _magic(line: str) -> str | None:
    """The Python for a line at which a statement begins, if it is none yet."""
    found = MAGIC.fullmatch(line)
    if found is not None:
        space, sign, name, rest = found.groups()
        if sign == "%" and name in RUNS_LINE and (statement := rest[OPTIONS.match(rest).end() :].strip()):  # type: ignore[union-attr]
            return f"{space}{statement}"
        return f"{space}pass  # {line.strip()}"
    if (assigned := ASSIGNED.fullmatch(line)) is not None:
        return f"{assigned[1]}pass  # {line.strip()}"
    if HELP.fullmatch(line) is not None:
        return f"{line[: len(line) - len(line.lstrip())]}pass  # {line.strip()}"
    return None


class _Lexer:
    """Whether the next line begins a statement: no bracket, long string or backslash is open."""

    def __init__(self) -> None:
        self._depth = 0
        self._string = ""
        self._carried = False

    @property
    def at_start(self) -> bool:
        return not (self._depth or self._string or self._carried)

    def read(self, line: str) -> None:
        at = 0
        self._carried = False
        while at < len(line):
            if self._string:
                if line[at] == "\\":
                    at += 2
                elif line.startswith(self._string, at):
                    at, self._string = at + len(self._string), ""
                else:
                    at += 1
                continue
            found = OPENING.search(line, at)
            if found is None or found.lastgroup == "comment":
                self._carried = found is None and line.endswith("\\")
                return
            at = found.end()
            if found.lastgroup == "string":
                self._string = found[0]
            elif found.lastgroup == "open":
                self._depth += 1
            else:
                self._depth = max(self._depth - 1, 0)
        if self._string and len(self._string) == 1 and not line.endswith("\\"):
            self._string = ""  # it ends with its line, closed or not
