"""Where the author's file is: its frames that run, the lines that an exception came through, the text at a place."""

from __future__ import annotations

import ast
import linecache
import sys
from collections.abc import Iterator
from itertools import islice
from types import CodeType, FrameType
from typing import Any

from unroll.errors import shortened

Span = tuple[int, int, int, int]
"""First line, last line, first column, last column (in bytes) of an expression."""

_SPANS: dict[tuple[CodeType, int], Span | None] = {}  # there are many calls of few expressions
_TREES: dict[str, tuple[str, ast.Module]] = {}


def frames(filename: str) -> Iterator[FrameType]:
    """The calls of the file's own code that are being run, the innermost one first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == filename:
            yield frame
        frame = frame.f_back


def line_now(filename: str) -> int | None:
    """The line of the file that is being run, the innermost one; None in a call that is not the file's."""
    frame = next(frames(filename), None)
    return None if frame is None else frame.f_lineno


def described(error: BaseException, filename: str, gap: bool = False) -> dict[str, Any]:
    """``type``, ``message`` (in one line, shortened) and ``line`` of an exception.

    The line is the last one of the file that it came through, None if it came through none.

    Args:
        gap: of a gap that a function of the author's own reports, such as ``gap(2, "the forget gate")``, take the line that
            calls it.
    """
    try:
        message = str(error)
    except BaseException:  # a class of the student's own
        message = ""
    through: list[tuple[CodeType, int]] = []
    trace = error.__traceback__
    while trace is not None:
        through.append((trace.tb_frame.f_code, trace.tb_lineno))
        trace = trace.tb_next
    if gap and isinstance(error, NotImplementedError) and len(through) > 1:
        (caller, _), (raising, _) = through[-2:]
        if caller.co_filename == raising.co_filename == filename and raising.co_varnames[:1] != ("self",):
            through.pop()
    line = next((line for code, line in reversed(through) if code.co_filename == filename), None)
    if isinstance(error, SyntaxError) and error.filename in (filename, None):
        message, line = error.msg, error.lineno or line
    if isinstance(error, MemoryError) and not message:
        message = "there is not enough memory"
    return {"type": type(error).__name__, "message": shortened(" ".join(message.split())), "line": line}


def span_of(frame: FrameType) -> Span | None:
    """The expression that a frame is at; None where Python has not kept it."""
    key = frame.f_code, frame.f_lasti
    if key not in _SPANS:
        found: Any = next(islice(frame.f_code.co_positions(), frame.f_lasti // 2, None), None)
        _SPANS[key] = None if found is None or None in found else found
    return _SPANS[key]


def text_at(filename: str, span: Span) -> str | None:
    """The expression at a span, as its author wrote it; None if it stands on more than one line."""
    first, last, start, stop = span
    if first != last:
        return None
    return linecache.getline(filename, first).encode()[start:stop].decode(errors="replace")


def parsed(filename: str) -> ast.Module:
    """The file's text as a tree; an empty one of text that is no Python."""
    source = "".join(linecache.getlines(filename))
    if filename not in _TREES or _TREES[filename][0] != source:
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError):
            tree = ast.Module([], [])
        _TREES[filename] = source, tree
    return _TREES[filename][1]
