"""What the exception that ended a script says of the lab's forward and updates."""

from __future__ import annotations

import re
from dataclasses import dataclass

from unroll.labs.judge.script_match import Match, Run
from unroll.labs.judge.script_roles import role_by_name
from unroll.labs.judge.script_text import joined, place_of
from unroll.labs.problems import Problem


@dataclass(frozen=True)
class _Error:
    """What Python said, where, and in which sentence."""

    text: str
    line: int | None
    place: str
    code: str = ""


def stop_problem(run: Run, match: Match | None) -> Problem | None:
    """The problem behind the exception that ended the script; None where there was none, or it is none of the lab's."""
    error = run.seen.get("stopped")
    if error is None:
        failed = run.seen.get("failed")
        # Where nothing was told of the end: a call that failed, and after it neither a backward nor a line printed.
        if failed is None or failed["passes"] != run.seen["count"] or run.seen["choices"] or len(run.rows) > 100:
            return None
        error = failed
    text = error["message"]
    place = place_of(match, max(len(run.rows) - 1, 0))
    for pattern, make in (
        ("a leaf Variable that requires grad", _outside),
        ("modified by an inplace operation", _modified),
        ("backward through the graph a second time", _twice),
        ("does not require grad and does not have a grad_fn", _no_gradient),
        ("NoneType", _none),
        (
            r"shapes? cannot be multiplied|size mismatch|must match the size|Expected input batch_size|not have the same"
            r"|invalid for input of size|match the broadcast shape",
            _shapes,
        ),
    ):
        if re.search(pattern, text):
            return make(run, _Error(text, error.get("line"), place, error.get("code", "")))
    return None


def _outside(_: Run, error: _Error) -> Problem:
    return Problem(
        "update",
        "rnn-outside-no-grad",
        error.line,
        f"{error.place}: a parameter is changed in place outside of torch.no_grad(). PyTorch records what is computed from "
        f"parameters, the update too, and refuses to change them meanwhile (it said: {error.text[:90]}). The update "
        "is no part of the loss.",
    )


def _modified(_: Run, error: _Error) -> Problem:
    return Problem(
        "update",
        "rnn-update-first",
        error.line,
        f"{error.place}: a parameter was changed between the forward and the backward() that needs its old value. "
        "The order is forward, "
        f"backward(), update.",
    )


def _twice(run: Run, error: _Error) -> Problem:
    start = run.start(len(run.rows) - 1)
    if start is not None and start.any() and len(run.rows) > 1:
        return Problem(
            "forward",
            "rnn-state-kept",
            error.line,
            f"{error.place} begins with the last state of the sentence before it, and not with zeros; backward() then wants "
            f"to go on into that sentence's graph, which is gone.",
            "s_0",
        )
    return Problem(
        "forward",
        "rnn-graph-twice",
        error.line,
        f"{error.place}: the loss contains something that was computed before the last backward(), whose graph is gone since. "
        f"Each sentence needs a forward and a loss of its own.",
    )


def _no_gradient(run: Run, error: _Error) -> Problem:
    row = run.rows[-1] if run.rows else {}
    names = [n for n, about in row.get("names", {}).items() if role_by_name(n) and not about["requires_grad"]]
    if len(run.rows) > 1:
        return _made_anew(run, names, error.place)
    if any(about["requires_grad"] for about in row.get("names", {}).values()):
        return Problem(
            "forward",
            "rnn-detached",
            error.line,
            f"{error.place}: the loss does not depend on any parameter as backward() sees it: somewhere between "
            "parameters and loss the "
            f"graph is cut (detach(), .data, .item(), a new tensor of old values, or no_grad()).",
            "loss",
        )
    return Problem(
        "values",
        "rnn-no-requires-grad",
        error.line,
        f"{joined(names) or 'The parameters'} do not ask for gradients (requires_grad is False): backward() "
        "has nothing to compute.",
    )


def _made_anew(run: Run, names: list[str], place: str) -> Problem:
    row = run.rows[-1] if len(run.rows) > 1 else {}
    lines = [row["names"][n]["line"] for n in names if row.get("names", {}).get(n, {}).get("line")]
    said = joined(names) or "A parameter"
    verb = "is" if len(names) < 2 else "are"
    return Problem(
        "update",
        "rnn-reassigned",
        min(lines, default=None),
        f"{place}: {said} {verb} no parameter any more: the update before it made a new tensor and gave it "
        "the old name, and a new "
        f"tensor has no gradient of its own. Change the parameter in place.",
    )


def _none(run: Run, error: _Error) -> Problem | None:
    if not run.seen["count"]:
        if not run.rows:
            return None
        if not run.seen["backward"]:  # nor is it written anywhere
            return no_backward(run)
        if re.search("zero_|fill_", f"{error.text} {error.code}"):
            return Problem(
                "update",
                "rnn-zeroed-first",
                error.line,
                "The gradients are zeroed before the first backward(), and a .grad is None until then. The order is backward(), "
                "update, zeroing; zeroing may come first only where it passes over a .grad that is None.",
            )
        return Problem(
            "update",
            "rnn-update-first",
            error.line,
            "The update uses gradients before the first backward(): a .grad is None until then. The order is forward, "
            "backward(), update, zeroing.",
        )
    anew = [
        name
        for name, about in run.seen["ended"].items()
        if role_by_name(name) and (not about["leaf"] or not about["requires_grad"]) and _was_leaf(run, name)
    ]
    if anew:
        problem = _made_anew(run, anew, error.place)
        lines = [run.seen["ended"][n]["line"] for n in anew if run.seen["ended"][n]["line"]]
        return Problem(problem.check, problem.code, min(lines, default=error.line), problem.message)
    last = len(run.rows) - 1
    if run.rows[last]["kind"] != "backward" or run.by_hand:
        return None
    lost = [
        name
        for name, about in run.seen["ended"].items()
        if role_by_name(name) and about["grad"] is False and run.fresh(last, name) is not None
    ]
    if lost:
        return Problem(
            "update",
            "rnn-gradient-lost",
            error.line,
            f"{error.place}: backward() has computed the gradient{'s' * (len(lost) > 1)} of {joined(lost)}, and "
            f"{'they are' if len(lost) > 1 else 'it is'} None again before the update. The order is backward(), update, zeroing.",
        )
    return None  # a parameter without a gradient is told of by the forward


def no_backward(run: Run) -> Problem:
    """No `backward()` was called."""
    return Problem(
        "update",
        "rnn-no-backward",
        run.rows[0]["line"],
        "The loss is computed, but backward() is not called on it: there are no gradients to update with.",
    )


def _was_leaf(run: Run, name: str) -> bool:
    about = run.names.get(name)
    return about is not None and bool(about["leaf"] and about["requires_grad"])


def _shapes(run: Run, error: _Error) -> Problem:
    shapes = ", ".join(
        f"{name} {tuple(about['shape'])}" for name, about in run.seen["ended"].items() if role_by_name(name)
    )
    wide = _widened(run)
    if wide is not None:
        return wide
    # After a backward(), and with no product of the next forward yet: it is the update's line.
    updates = run.seen["count"] > 0 and "multiplied" not in error.text and not any(c["with"] for c in run.seen["open"])
    return Problem(
        "update" if updates else "forward",
        "rnn-shapes",
        error.line,
        f"Shapes do not fit on this line (PyTorch said: {error.text[:120]}). {shapes}.",
        None if updates else "s_t",
    )


def _widened(run: Run) -> Problem | None:
    """A column and a flat bias, which add to a square."""
    for call in run.seen["open"]:
        shape = call.get("shape")
        if call["call"] in ("add", "__add__", "__radd__") and shape == [run.n, run.n] and run.n > 1:
            names = {
                n: about
                for n, about in run.seen["ended"].items()
                if role_by_name(n) == "b" and about["shape"] == [run.n]
            }
            if names:
                name = next(iter(names))
                return Problem(
                    "values",
                    "rnn-shape",
                    run.seen["made"].get(name, call["line"]),
                    f"{name} has the shape ({run.n},): added to a column ({run.n}, 1) it gives a square ({run.n}, "
                    f"{run.n}), and no "
                    f"column. With columns {name} has the shape ({run.n}, 1).",
                    "b",
                )
    return None
