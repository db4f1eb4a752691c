"""The code blocks of a Markdown page, run as a reader would."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of every fenced block of a page, in order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)


def run(text: str, scope: dict[str, Any], folder: Path, file: str = "block.py") -> str:
    """Run a block and return what it prints. It is written to a file: what its first line says, as ``# noisy.py``, or `file`."""
    named = re.match(r"# (\w+\.py)\n", text)
    path = named[1] if named else file
    (folder / path).write_text(text, encoding="utf-8")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(text, path, "exec"), scope)
    return printed.getvalue()


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Each line typed after ``$``, and the lines shown below it."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def without_numbers(line: str) -> str:
    return re.sub(r"\d+(\.\d+)?", "0", line)
