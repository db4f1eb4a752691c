"""Attributes that are replaced while a student's file runs, and put back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any


class Patches:
    """Attributes that are replaced, and put back in reverse order."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []

    def set(self, owner: Any, name: str, value: Any) -> None:
        """Replace an attribute."""
        missing = object()
        before = vars(owner).get(name, missing)
        setattr(owner, name, value)
        self._undo.append(
            (lambda: delattr(owner, name)) if before is missing else (lambda: setattr(owner, name, before))
        )

    def wrap(self, owner: Any, name: str, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        """Replace a function, where there is one, by what `change` makes of it."""
        before = getattr(owner, name, None)
        if callable(before):
            self.set(owner, name, wraps(before)(change(before)))

    def later(self, undo: Callable[[], object]) -> None:
        """Call something when everything is put back, such as the removal of a hook."""
        self._undo.append(undo)

    def undo(self) -> None:
        """Put everything back."""
        while self._undo:
            with suppress(AttributeError):
                self._undo.pop()()
