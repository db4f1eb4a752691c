"""What people see in a terminal: every line that is printed passes here.

Labels, sentences and file names come from anywhere. What would steer the terminal (ESC, say), reverse the direction of
writing or hide text is shown by its number, in JSON's form, so that JSON stays JSON.
"""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any

import click

# What is not seen of a text, for all who print, set or read one: the insides of brackets in a regular expression.
# Control characters but tab and the ends of lines, halves of characters, and what is no character:
CONTROL = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff"
# Soft hyphens, changes of direction, tags, and signs without a shape; not those that join letters or choose between shapes:
SHAPELESS = "\u00ad\u061c\u180e\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f"
# These, and what parts words and lines or marks annotations without a shape:
INVISIBLE = f"{SHAPELESS}\u200b\u2028\u2029\ufff9-\ufffb"
UNPRINTABLE = re.compile(f"[\n\r{CONTROL}{INVISIBLE}]")


def printable(text: str) -> str:
    r"""One line, with all that is no visible character as its number.

    >>> print(printable("a\x1b]0;b\nc"))
    a\u001b]0;b\nc
    """
    return UNPRINTABLE.sub(lambda found: json.dumps(found[0])[1:-1], text)


def say(*lines: str, error: bool = False) -> None:
    """Print each line, on stdout or stderr."""
    click.echo("\n".join(map(printable, lines)), err=error)


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal; None is none: a shell may have closed it."""
    try:
        return stream is not None and bool(stream.isatty())
    except ValueError:  # closed by the program
        return False


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
