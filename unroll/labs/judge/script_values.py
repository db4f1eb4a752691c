"""Whether a script's parameters are there, have the lab's shapes, ask for gradients, and begin with values that can learn."""

from __future__ import annotations

from typing import Any

import numpy as np

from unroll.labs.judge.script_match import Match, Run, missing
from unroll.labs.judge.script_roles import ROLES, role_by_name, roles_of
from unroll.labs.judge.script_text import joined, name_of
from unroll.labs.problems import Problem


def values_problems(run: Run, match: Match | None) -> list[Problem]:
    """Problems of item 1; empty where all five are there, fit, ask for gradients and begin with values that can learn."""
    found: list[Problem] = []
    held = {role: piece.name for piece in match.reading for role in roles_of(piece)} if match else {}
    named: dict[str, str] = {}
    for name in run.names:
        if (known := role_by_name(name)) is not None:
            named.setdefault(known, name)
    unknown = [name for name in run.used if role_by_name(name) is None]
    gone = [role for role in ROLES if role not in held and role not in named]
    whole = run.seen.get("stopped") is None or run.rows
    if gone and whole and (match is not None or (not unknown and (named or run.rows))):
        found.append(_absent(gone))
    for role in ROLES:
        name = held.get(role, named.get(role, ""))
        if name not in run.names:
            continue
        about = run.names[name]
        line = run.seen["made"].get(name.split(".")[-1].split("[")[0], about["line"])
        if role not in held and (wanted := wrong_shape(role, tuple(about["shape"]), run)):
            found.append(
                Problem(
                    "values",
                    "rnn-shape",
                    line,
                    f"{name} has the shape {tuple(about['shape'])}; the lab's {role} has {wanted} (n = {run.n} units, "
                    f"m = {run.m} words).",
                    role,
                )
            )
            continue
        found += _asks(run, name, role, about, line)
    return [*_once(found), *_first_values(run, match)]


def _absent(gone: list[str]) -> Problem:
    verb = "are" if len(gone) > 1 else "is"
    return Problem(
        "values",
        "rnn-missing",
        None,
        f"{joined(gone)} {verb} missing: the lab has five parameters, W, U and b for s_t, W_out and b_out for the logits.",
        gone[0],
    )


def wrong_shape(role: str, shape: tuple[int, ...], run: Run) -> str | None:
    """The shape that the lab has for a parameter where this one is neither it nor its transpose; None where it fits."""
    n, m = run.n, run.m
    right: dict[str, tuple[int, ...]] = {"W": (n, n), "U": (n, m), "b": (n, 1), "W_out": (2, n), "b_out": (2, 1)}
    fits = {right[role], right[role][::-1]} | ({right[role][:1]} if right[role][1] == 1 else set())
    return None if shape in fits else str(right[role])


def _asks(run: Run, name: str, role: str, about: dict[str, Any], line: int | None) -> list[Problem]:
    if run.by_hand or _moves(run, name):
        return []
    if not run.rows and not any(call["with"] for call in run.seen["open"]):
        return []  # it may still be asked for
    if not about["requires_grad"]:
        return [
            Problem(
                "values",
                "rnn-no-requires-grad",
                line,
                f"{name} does not ask for a gradient (requires_grad is False), so backward() computes none for it and "
                "it cannot learn.",
                role,
            )
        ]
    if not about["leaf"]:
        return [
            Problem(
                "values",
                "rnn-no-leaf",
                line,
                f"{name} is the result of a calculation with a tensor that asks for its gradient, and not such a tensor itself: "
                f"backward() gives that other one the gradient, and {name}.grad stays None.",
                role,
            )
        ]
    return []


def _moves(run: Run, name: str) -> bool:
    values = run.values.get(name)
    if values is None or len(values) < 2:
        return False
    return bool(np.nanmax(np.abs(np.diff(values.reshape(len(values), -1), axis=0)), initial=0) > 0)


def _once(found: list[Problem]) -> list[Problem]:
    """One problem for several parameters with the same fault that are told of in the same words."""
    result: list[Problem] = []
    for code in dict.fromkeys(p.code for p in found):
        same = [p for p in found if p.code == code]
        if len(same) > 1 and code in ("rnn-no-requires-grad", "rnn-no-leaf"):
            names = joined([p.message.split(" ", 1)[0] for p in same])
            first = same[0]
            if code == "rnn-no-requires-grad":
                message = (
                    f"{names} do not ask for gradients (requires_grad is False), so backward() computes none for them and they "
                    f"cannot learn."
                )
            else:
                message = (
                    f"{names} are results of calculations with tensors that ask for their gradients: backward() gives those the "
                    f"gradients, and the .grad of {names} stays None."
                )
            same = [Problem(first.check, code, first.line, message, first.about)]
        result += same
    return result


def _first_values(run: Run, match: Match | None) -> list[Problem]:
    if match is None or not run.rows:
        return []
    roles = {key: value[0] for key, value in run.roles(match.reading, 0).items()}
    bad = [p.name for p in match.reading if not np.isfinite(run.values[p.name][0]).all()]
    if bad:
        return [
            Problem("values", "rnn-not-finite", None, f"{joined(bad)} begins with values that are no numbers.", None)
        ]
    gone = missing(match.reading)
    zero = [role for role in ("W", "U", "W_out") if role not in gone and not roles[role].any()]
    line = run.seen["made"].get(name_of(match, zero[0])) if zero else None
    if "W_out" in zero and "U" in zero and not roles["b"].any():
        return [
            Problem(
                "values",
                "rnn-zeros",
                line,
                f"{joined([name_of(match, z) for z in zero])} begin with zeros: every s_t is zero, and so is every gradient but "
                f"b_out's, so the network learns next to nothing. Weights have to begin with small random values.",
                "U",
            )
        ]
    found = [
        Problem(
            "values",
            "rnn-zero-weights",
            run.seen["made"].get(name_of(match, role)),
            f"{name_of(match, role)} begins with zeros; random values are usual, so that units differ from one another.",
            role,
        )
        for role in zero
    ]
    same = [r for r in ("U", "W_out") if r not in gone and r not in zero and len(roles[r]) > 1 and _equal(roles[r], r)]
    if len(same) == 2 and not zero:
        found.append(
            Problem(
                "values",
                "rnn-zero-weights",
                run.seen["made"].get(name_of(match, "U")),
                "All units begin with equal weights, so that they stay equal and do the work of one; random values "
                "set them apart.",
                "U",
            )
        )
    return found


def _equal(value: Any, role: str) -> bool:
    units = value if role == "U" else value.T
    return bool((units == units[:1]).all())
