"""The errors a user may meet.

Each message is one line that says what came, what was expected and what to do about it. The command line prints that
line and exits with status 2; from Python they are ordinary exceptions. `assert` is kept for invariants of our own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnrollError(Exception):
    """Base of every error that comes from what the user gave, not from a defect in the package."""


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


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'x'?"`` for the known name closest to `name`, or the whole list where none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}"
