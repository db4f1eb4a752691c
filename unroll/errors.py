"""The errors a user may meet.

Each message is one line that says what came, what was expected and what to do about it. The command line prints that
line and exits with status 2; from Python they are ordinary exceptions. `assert` is kept for invariants of our own.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# The password of an address, to the last @ of its own or to where it was cut; the words of our own advice are none.
SECRET = re.compile(r"(:/{1,2}[^\s/:@]*:)(?!PASSWORD@)(?:(?:(?!:/).)*@|\S{0,480} … )|(password=)[^\s&'\"]+")
LONGEST = 480  # characters of a message: what came may be of any length, the line that tells of it may not


class UnrollError(Exception):
    """Base of every error that comes from what the user gave, not from a defect in the package.

    A long message is shortened in its middle: its beginning says where, its end what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(shortened(message))


class InputError(UnrollError, ValueError):
    """An argument of a call does not fit: a wrong shape, a value out of its range, an unknown name."""


class DataError(UnrollError):
    """A data file is missing, truncated, corrupted, or its contents contradict each other."""


class RecipeError(UnrollError):
    """A recipe or one of its fields does not exist or has a value that makes no sense."""


class RunError(UnrollError):
    """A run folder is not one, is incomplete, or belongs to another architecture."""


class TrainingError(UnrollError):
    """Training cannot go on: the loss is no longer a number, or the disk is full."""


def shortened(text: str, most: int = LONGEST) -> str:
    """The text without passwords, and with its middle left out where it has more than `most` characters.

    >>> shortened("a" * 99, 20)
    'aaaaaaaaa … aaaaaaaa'
    >>> shortened("no recipe postgresql://ann:secret@host/name")
    'no recipe postgresql://ann:***@host/name'
    """
    text = masked(text)
    if len(text) <= most:
        return text
    kept = most - len(" … ")
    return f"{text[: (kept + 1) // 2]} … {text[-(kept // 2) :]}"


def masked(text: str) -> str:
    """The text with *** for the passwords of addresses: every message passes here, whoever words it."""
    return SECRET.sub(lambda found: f"{found[1]}***@" if found[1] else f"{found[2]}***", text)


def quoted(value: object) -> str:
    """A value as Python writes it, shortened.

    >>> quoted("fast"), quoted([1, 2])
    ("'fast'", '[1, 2]')
    """
    if isinstance(value, str):
        return repr(shortened(value, 100))
    try:
        return shortened(repr(value), 100)
    except ValueError:  # a whole number of more digits than Python writes
        return "a number too large to write"


def check_digits(text: str, what: str, error: type[UnrollError]) -> None:
    """Raise `error` for a number that is one to Python alone: it reads 1_0 and the digits of every script as 10."""
    if "_" in text or not text.isascii():
        raise error(f"{what} is {quoted(text)}; expected a number in the digits 0 to 9, without '_'")


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the known name closest to `name`, or the whole list where none is close."""
    name, known = str(name), sorted(known)
    # Comparing takes time with the square of the length, and nothing that long is a misspelt name.
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6) if len(name) <= 100 else []
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {shortened(', '.join(known), 300)}"
