"""stdout and stderr: whether somebody watches, and what becomes of them where the shell has closed them."""

from __future__ import annotations

import os
import sys


def on_terminal() -> bool:
    """Whether stderr is a terminal, so that a progress bar is seen; it is not where it is closed (``2>&-``)."""
    return sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty()


def open_closed() -> None:
    """Lead streams that the shell has closed (``>&-``) nowhere.

    Else the next files that are opened, such as a run's log, would get their numbers, and whatever a library prints.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free, which is this one
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115
