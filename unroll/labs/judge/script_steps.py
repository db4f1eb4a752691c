"""Single updates of a script: of gradients that are worked out by hand, and by other rules than the lab's plain one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from unroll.labs.judge.script_match import MIXES, Match, Run, mixed_gradients
from unroll.labs.judge.script_reference import How
from unroll.labs.judge.script_roles import Reading, as_roles

FIRST = 8  # updates by hand that are followed, and as many of the later ones


@dataclass
class Step:
    """One parameter's move after pass k, with what it may have been made of."""

    name: str
    k: int
    value: Any  # before the move
    move: Any
    wanted: Any  # the sum of the gradients since the last update
    current: Any  # the last pass's alone
    held: Any  # what its .grad held, with whatever was not zeroed; None where that is not known

    @property
    def noise(self) -> float:
        """What the value's rounding to 32 bits may add to a move."""
        return 3e-7 * float(np.abs(self.value).max())

    def near(self, move: Any) -> bool:
        """Whether the parameter has moved so."""
        return bool(np.abs(self.move - move).max() <= 2e-3 * np.abs(self.move).max() + 2 * self.noise)


def moves_by(step: Step, grad: Any, rate: float) -> bool:
    """Whether a parameter has moved by this rate times this gradient; None is no gradient."""
    return grad is not None and step.near(-rate * grad)


# --- gradients by hand ----------------------------------------------------------------------------------------------------------


def by_hand(run: Run, match: Match | None, names: list[str]) -> list[list[Step]] | None:
    """The updates of a script without backward(), with the gradients of the sentences that explain each best.

    Returns:
        Some of the updates, the first ones and later ones, in order; None where no reading of the parameters is known, or
        where their loss is not the lab's.
    """
    how = How() if match is None else match.how
    tried = [match.reading] if match is not None else run.readings()[:4]
    names = [name for name in names if all(name in {p.name for p in reading} for reading in tried)]
    if not tried or not names or how.words == "seen" or how.start != "zeros":
        return None
    values = _states(run, [*names, *(p.name for p in tried[0] if p.name not in names)])
    count = len(next(iter(values.values()))) if values else 0
    if count < 2:
        return []
    chosen = sorted({*range(min(FIRST, count - 1)), *np.linspace(0, count - 2, FIRST).astype(int).tolist()})
    best: tuple[tuple[int, float], list[list[Step]]] | None = None
    for reading in tried:
        whole, left, updates = 0, 0.0, []
        for k in chosen:
            (less, error), steps = _likeliest(run, reading, how, values, k)
            if k < FIRST:  # later ones are small beside the values' rounding
                whole, left = whole + less, left + error
            updates.append(steps)
        if best is None or (whole, left) < best[0]:
            best = (whole, left), updates
    return None if best is None else best[1]


def followed(run: Run) -> Match | None:
    """The lab's way, where no loss was seen and the first updates are the learning rate times its gradients; else None."""
    if any(row["loss"] is not None for row in run.rows):
        return None
    for reading in run.readings()[:4]:
        match = Match(reading, How(), {})
        updates = by_hand(run, match, [piece.name for piece in reading]) or []
        if len(updates) > 2 and all(_fits(steps, [], ()) for steps in updates[:FIRST]):
            return match
    return None


def _states(run: Run, names: list[str]) -> dict[str, Any]:
    """The parameters between updates, one row each, from the rows of all ends of forwards and what they were at the end."""
    values = {}
    for name in names:
        last = run.seen["final"].get(name)
        rows = run.values[name]
        values[name] = rows if last is None or last.shape != rows.shape[1:] else np.concatenate([rows, last[None]])
    count = min((len(rows) for rows in values.values()), default=0)
    values = {name: rows[:count] for name, rows in values.items() if len(rows)}
    finite = [k for k in range(count) if all(np.isfinite(rows[k]).all() for rows in values.values())]
    kept = finite[:1]
    for k in finite[1:]:
        if any((rows[k] != rows[kept[-1]]).any() for rows in values.values()):
            kept.append(k)
    return {name: rows[kept].astype(np.float64) for name, rows in values.items()}


def _likeliest(
    run: Run, reading: Reading, how: How, values: dict[str, Any], k: int
) -> tuple[tuple[int, float], list[Step]]:
    """One update with the gradients that explain most of its moves.

    Returns:
        How few they leave (less the number of parameters that move by a multiple of theirs, then the share of all moves that is
        left), and the update.
    """
    at = {piece.name: values[piece.name][k : k + 1] for piece in reading}
    roles = as_roles(reading, at, run.n, run.m)
    best: tuple[tuple[int, float], list[Step]] | None = None
    for mix in MIXES[:3]:  # the others are multiples of these
        grads = mixed_gradients(run, reading, how, roles, run.words, mix, None)
        steps = [
            Step(name, k, rows[k], rows[k + 1] - rows[k], grads[name], grads[name], None)
            for name, rows in values.items()
            if name in grads
        ]
        before = [(values[s.name][k] - values[s.name][k - 1]).ravel() for s in steps] if k else []
        left = _left([s.move.ravel() for s in steps], [[s.wanted.ravel() for s in steps], before])
        whole = sum(s.move.size > 2 and _left([s.move.ravel()], [[s.wanted.ravel()]]) < 2e-3 for s in steps)
        if best is None or (-whole, left) < best[0]:
            best = (-whole, left), steps
    return best if best is not None else ((0, 0.0), [])


def _left(moves: list[Any], parts: list[list[Any]]) -> float:
    """The share of the moves that no sum of multiples of the parts makes up."""
    if not moves:
        return 0.0
    move = np.concatenate(moves)
    columns = np.stack([np.concatenate(part) for part in parts if part], axis=1)
    fit = columns @ np.linalg.lstsq(columns, move, rcond=None)[0]
    return float(np.linalg.norm(move - fit) / (np.linalg.norm(move) or 1.0))


# --- other rules ----------------------------------------------------------------------------------------------------------------

_RULES = {
    "weight decay": ("value",),
    "weight decay of the matrices": ("matrix",),
    "momentum": ("before",),
    "Nesterov's momentum": ("before", "gradient before"),
    "momentum and weight decay": ("before", "value"),
}


def not_plain(updates: list[list[Step]], faults: dict[str, list[Step]]) -> str | None:
    """The known rule by which parameters move that do not move by the learning rate times their gradients; None: none.

    Args:
        updates: all that are known.
        faults: what is known of single parameters; those whose fault is another one are left out.
    """
    out = {step.name for kind, steps in faults.items() if kind != "rnn-update-differs" for step in steps}
    first = min((step.k for step in faults.get("rnn-update-differs", [])), default=0)
    at = next((i for i, steps in enumerate(updates) if any(step.k == first for step in steps)), 0)
    chosen = sorted({*range(min(FIRST, len(updates))), *range(max(at - 2, 0), min(at + 3, len(updates)))})
    pairs = [
        (updates[i], updates[i - 1] if i else []) for i in chosen if not i or _adjacent(updates[i - 1], updates[i])
    ]
    pairs = [([s for s in steps if s.name not in out], before) for steps, before in pairs]
    pairs = [(steps, before) for steps, before in pairs if any(s.move.any() for s in steps)]
    if len(pairs) < 3:
        return None
    # With all values cut in all updates it may as well be the gradients' signs.
    if all(_clipped(steps) for steps, _ in pairs) and any(_whole(steps) for steps in updates):
        return "clipped gradients"
    return next((rule for rule, parts in _RULES.items() if all(_fits(*pair, parts) for pair in pairs)), None)


def _adjacent(before: list[Step], steps: list[Step]) -> bool:
    """Whether no other update lies between; an update may follow each sentence or each epoch of two."""
    return bool(before and steps) and steps[0].k - before[0].k <= 2


def _fits(steps: list[Step], before: list[Step], parts: tuple[str, ...]) -> bool:
    """Whether one sum of multiples of the gradients, down them, and the parts makes up all moves of an update."""
    last = {step.name: step for step in before}
    rows = [[step.wanted.ravel()] for step in steps]
    for part in parts:
        for row, step in zip(rows, steps, strict=True):
            nothing = np.zeros(step.move.size)
            if part == "value" or part == "matrix":
                row.append(step.value.ravel() if part == "value" or min(step.value.shape, default=1) > 1 else nothing)
            elif step.name in last:
                row.append((last[step.name].move if part == "before" else last[step.name].wanted).ravel())
            else:
                row.append(nothing)
    columns = np.concatenate([np.stack(row, axis=1) for row in rows])
    if len(columns) < 3 * columns.shape[1]:
        return False
    factors = np.linalg.lstsq(columns, np.concatenate([s.move.ravel() for s in steps]), rcond=None)[0]
    fits = (s.near((np.stack(row, axis=1) @ factors).reshape(s.move.shape)) for row, s in zip(rows, steps, strict=True))
    used = any(np.abs(factors[0] * s.wanted).max() > 2 * s.noise for s in steps)  # and is no rounding of p *= 0.9
    return bool(factors[0] < 0) and used and all(fits)


def _whole(steps: list[Step]) -> list[float]:
    """The rates of those values of an update that move by less than the largest."""
    top = max((float(np.abs(s.move).max()) for s in steps), default=0.0)
    return [
        float(-m / g)
        for s in steps
        for m, g in zip(s.move.ravel(), s.wanted.ravel(), strict=True)
        if g and 50 * s.noise < abs(m) < 0.999 * top
    ]


def _clipped(steps: list[Step]) -> bool:
    """Whether all moves are down gradients whose values were cut at one size."""
    top = max(float(np.abs(s.move).max()) for s in steps)
    rates = _whole(steps)
    if rates:
        rate = float(np.median(rates))  # small gradients give it badly
    else:
        rate = max(
            (float(r) for s in steps for r in (-s.move / np.where(s.wanted == 0, np.inf, s.wanted)).flat), default=0.0
        )
    return rate > 0 and all(s.near(-np.clip(rate * s.wanted, -top, top)) for s in steps)
