"""Where in a script something stands, and how its parts are called in messages."""

from __future__ import annotations

from typing import Any

import numpy as np

from unroll.labs.judge.script_match import Match, Run
from unroll.labs.judge.script_roles import role_by_name, roles_of
from unroll.labs.problems import Problem


def joined(names: list[str]) -> str:
    """Names as a sentence has them.

    >>> joined(["W", "U", "b"]), joined(["W"])
    ('W, U and b', 'W')
    """
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else "".join(names)


def numbers(value: Any, full: bool = False) -> str:
    """Values as Python writes them, shortened to six digits unless `full`."""
    array = np.asarray(value)
    if array.ndim == 0:
        return f"{float(array):.9g}" if full else f"{float(array):.6g}"
    return f"[{', '.join(numbers(one, full) for one in array)}]"


def name_of(match: Match, role: str) -> str:
    """The script's own name of a parameter; the lab's where it has none."""
    return next((p.name for p in match.reading if role in roles_of(p)), role)


def place_of(match: Match | None, k: int) -> str:
    """Which sentence of which epoch pass `k` is, in words."""
    if match is not None and match.mixes and all(0 not in mix for mix in match.mixes.values()):
        return f"epoch {k + 1}"
    return f"epoch {k // 2 + 1}, {('first', 'second')[k % 2]} sentence"


def line_of(run: Run, match: Match, what: str) -> int | None:
    """The line of the ``state``, the ``output`` or the ``loss`` of the first sentence; None where it was not seen."""
    if not run.rows:
        return None
    row = run.rows[0]
    if what == "loss":
        line: int | None = row["taken"][-1]["line"] if row["taken"] else row["line"]
        return line
    wanted = ("W_out", "b_out") if what == "output" else ("W", "U", "b")
    names = [p.name for role in wanted for p in match.reading if role in roles_of(p)]
    if what == "output":
        names = [name_of(match, "W_out"), *names]
    for name in names:
        for call in row["tape"]:
            if name in call["of"] and call.get("behind", True) and call["call"] not in ("T", "t", "transpose"):
                return int(call["line"])
    return None


def turned_problem(run: Run, match: Match) -> Problem | None:
    """W or W_out is used transposed where U is used as it stands: another function than the lab's, if one that learns as well."""
    pieces = {role: p for p in match.reading for role in roles_of(p)}
    if "U" not in pieces or pieces["U"].turned or pieces["U"].role != "U":
        return None
    columns = _columns(run)
    for role, what in (("W", "state"), ("W_out", "output")):
        piece = pieces.get(role)
        if piece is None or not piece.turned or run.values[piece.name].shape[1] != run.values[piece.name].shape[2]:
            continue
        if role == "W_out" and role_by_name(piece.name) != "W_out":
            continue
        line = line_of(run, match, what)
        U = pieces["U"].name
        seen = "s_{t-1}" if role == "W" else "s_4"
        about = "s_t" if role == "W" else "logits"
        text = (
            f"{piece.name} is used transposed and {U} is not: what is computed is {piece.name}ᵀ {seen}; the lab "
            f"has {piece.name} {seen}."
        )
        if columns:
            return Problem("forward", "rnn-w-turned", line, text, about)
        return Problem("forward", "rnn-rows-turned", line, f"{text} It learns as well.", about)
    return None


def _columns(run: Run) -> bool:
    """Whether states are columns (n, 1)."""
    shapes = [call["shape"] for call in run.rows[0]["tape"] if call["call"] == "tanh" and "shape" in call]
    return bool(shapes) and all(shape == [run.n, 1] for shape in shapes)
