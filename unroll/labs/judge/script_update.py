"""Whether a script moves each parameter by the learning rate times its gradient, after each sentence or each epoch."""

from __future__ import annotations

from typing import Any

import numpy as np

from unroll.labs.judge.script_match import Match, Run
from unroll.labs.judge.script_reference import How
from unroll.labs.judge.script_roles import ROLES, role_by_name
from unroll.labs.judge.script_steps import Step, by_hand, moves_by, not_plain
from unroll.labs.judge.script_stop import no_backward
from unroll.labs.judge.script_text import joined, numbers, place_of
from unroll.labs.problems import Problem, Witness


def update_problems(run: Run, match: Match | None, found: list[Problem]) -> list[Problem]:
    """Problems of item 3; empty where every parameter moves down its gradient."""
    optimizers = run.seen["optimizers"]
    if optimizers:
        name, line = next(iter(optimizers.items()))
        return [
            Problem(
                "update",
                "rnn-optimizer",
                line,
                f"optim.{name} makes the update; the lab wants it by hand: each parameter minus the learning rate "
                "times its gradient.",
            )
        ]
    if match is not None and match.late:
        return [
            Problem(
                "update",
                "rnn-update-first",
                _line(run, None),
                f"{place_of(match, 1)}: the parameters change between the forward and backward(), so each update uses the "
                f"gradients of the pass before. The order is forward, backward(), update.",
            )
        ]
    if not run.rows:
        return []
    if run.by_hand and run.seen.get("stopped") and not _any_move(run):
        return []  # backward() may have been to come
    if run.by_hand and not _any_move(run):
        return [no_backward(run)]
    bad = _not_finite(run)
    return [bad] if bad is not None else _Moves(run, match, found).problems()


_OPEN = frozenset({"rnn-update-differs", "rnn-not-updated"})
"""Kinds of which a parameter may be where its gradients are not those that were reckoned with."""


class _Moves:
    """All moves of all parameters, and the first of each kind that is not the lab's."""

    def __init__(self, run: Run, match: Match | None, found: list[Problem]) -> None:
        self.run, self.match = run, match
        told = {p.about for p in found if p.code in ("rnn-no-requires-grad", "rnn-no-leaf", "rnn-missing")}
        self.names = [name for name in run.used if role_by_name(name) not in told or role_by_name(name) is None]
        self.names = [name for name in self.names if not _is_start(match, name)]
        self.names.sort(key=lambda name: ROLES.index(role_by_name(name) or "b_out"))
        self.rate = self._rate()
        self.last: float | None = self.rate
        self.moved: set[str] = set()  # parameters that have been updated before
        self.faults: dict[str, list[Step]] = {}
        self.right: set[str] = set()  # parameters one of whose moves is the lab's
        self.epochs = False  # whether several passes were summed for one update
        self.raised = (run.rows[0]["loss"] or 0.0) < 0  # no cross-entropy: a likelihood may be there to be raised
        self.rates: list[float] = []  # of the updates that show theirs well, where the script names none

    def _rate(self) -> float | None:
        for name in ("learning_rate", "lr"):
            if np.isfinite(self.run.settings.get(name, np.nan)):
                return float(self.run.settings[name])
        return None

    def problems(self) -> list[Problem]:
        run = self.run
        updates = by_hand(run, self.match, self.names) if run.by_hand else self._recorded()
        if updates is None:
            return [_unread(run)] if self.match is None or self.match.how == How() else []
        if not updates:
            return self._never() if self._waits() else []
        # Two values, as b_out's gradients have, fit by chance: they tell the rate only where nothing else does.
        for parts, least in ((("wanted",), 3), (("wanted", "current", "held"), 3), (("wanted",), 1)):
            self._compare_all(updates, parts, least)
            if self.last is not None or run.by_hand:
                break
        if self.last is None and not run.by_hand and not self.raised:
            moved = next((m for steps in updates if (m := [s for s in steps if s.move.any() and s.wanted.any()])), [])
            if moved:
                self.faults["rnn-update-differs"] = moved
        known = self.right | {s.name for kind, steps in self.faults.items() if kind not in _OPEN for s in steps}
        if run.by_hand and not any(run.values[name][0].size > 2 for name in known):
            what = not_plain(updates, self.faults)
            return [_unread(run)] if what is None else [self._other(what)]
        added = []
        if "rnn-update-differs" in self.faults:
            self.faults.pop("rnn-rates", None)
            what = not_plain(updates, self.faults)
            if what is not None:
                self.faults.pop("rnn-update-differs")
                added.append(self._other(what))
        if self.faults.keys() <= {"rnn-rates"} and not added and (open_ := self._open()):
            added.append(Problem("update", "rnn-unread", _line(run, None), open_))
        if (self.epochs or self._together()) and not self.faults and not added:
            added.append(
                Problem(
                    "update",
                    "rnn-epoch-update",
                    _line(run, None),
                    "The parameters are updated once an epoch, with the gradients of both sentences; the lab updates "
                    "after each sentence.",
                )
            )
        return [*(self._told(kind, steps) for kind, steps in self.faults.items()), *added]

    def _recorded(self) -> list[list[Step]]:
        """Each update with the gradients of the backward passes before it."""
        run = self.run
        waiting: dict[str, Any] = {}
        updates: list[list[Step]] = []
        for k in range(self._end()):
            moves = {name: move for name in self.names if (move := self._move(k, name)) is not None}
            fresh = {name: grad for name in self.names if (grad := run.fresh(k, name)) is not None}
            for name, grad in fresh.items():
                waiting[name] = waiting.get(name, 0.0) + grad
            if not any(move.any() for move in moves.values()):
                continue
            self.epochs = self.epochs or (k % 2 == 1 and not updates)
            steps = []
            for name, move in moves.items():
                if name in waiting and name in fresh:
                    after = run.seen["after"].get(name)
                    held = None if run.rows[k]["kind"] == "grad" or after is None else after[k].astype(np.float64)
                    value = run.values[name][k].astype(np.float64)
                    steps.append(Step(name, k, value, move, waiting[name], fresh[name], held))
            updates.append(steps)
            waiting = {}
        return updates

    def _end(self) -> int:
        """The number of passes after which what became of the parameters is known."""
        rows = self.run.rows
        whole = rows[-1].get("error") is None and self.run.seen.get("stopped") is None
        return len(rows) if len(rows) <= 8 and whole else len(rows) - 1

    def _waits(self) -> bool:
        """Whether there was a gradient that an update could have used."""
        return self._end() > 1 and any(self.run.fresh(k, name) is not None for k in (0, 1) for name in self.names)

    def _together(self) -> bool:
        mixes = {} if self.match is None else self.match.mixes
        return bool(mixes) and all(0 not in mix for mix in mixes.values())

    def _move(self, k: int, name: str) -> Any:
        values = self.run.values[name]
        after = values[k + 1] if k + 1 < len(values) else self.run.seen["final"].get(name)
        if after is None or after.shape != values[k].shape:
            return None
        move = after.astype(np.float64) - values[k]
        return move if np.isfinite(move).all() else None

    def _open(self) -> str | None:
        """Why nothing wrong is not enough to call the updates right; None where it is."""
        if not self.right:
            return "No parameter was seen to move by a learning rate times its gradient."
        low, high = min(self.rates, default=1.0), max(self.rates, default=1.0)
        if self.rate is None and "rnn-rates" in self.faults:
            what = "different factors"
        elif high > 1.05 * low:
            what = f"another factor from update to update ({low:.3g} to {high:.3g})"
        else:
            return None
        return f"The parameters move down their gradients by {what}, and no learning_rate or lr tells which is meant."

    # --- one update -----------------------------------------------------------------------------------------------------

    def _compare_all(self, updates: list[list[Step]], parts: tuple[str, ...], least: int) -> None:
        self.moved.clear()
        for steps in updates:
            self._compare(steps, parts, least)
            self.moved |= {step.name for step in steps if step.move.any()}

    def _compare(self, steps: list[Step], parts: tuple[str, ...], least: int) -> None:
        typical = self._typical(steps, parts, least)
        known = {step.name for faults in self.faults.values() for step in faults}
        for step in steps:
            if step.name in known or typical is None:
                continue
            kind = self._kind(step, typical, steps)
            if kind is not None:
                self.faults.setdefault(kind, []).append(step)
            elif moves_by(step, step.wanted, typical):
                self.right.add(step.name)
                if self.rate is None and step.move.size > 2 and float(np.abs(step.move).max()) > 1000 * step.noise:
                    self.rates.append(typical)

    def _typical(self, steps: list[Step], parts: tuple[str, ...], least: int) -> float | None:
        """The learning rate of this update: the one that explains most moves, the script's own named one before others.

        Args:
            parts: which gradients of a step may show it.
            least: values that a parameter must have to show it, as long as no rate is known.
        """
        least = 1 if self.last is not None else least
        found = [_ratio(s, getattr(s, part)) for s in steps if s.move.size >= least for part in parts]
        free = sorted(rate for rate in found if rate is not None)
        tried = [rate for rate in (self.rate, *free) if rate is not None and (rate > 0 or rate == self.rate)]
        if not tried:
            # With no rate known and no parameter down its gradient, those that go up it show the rate.
            if self.last is None and free and not self.raised:
                self.last = -free[len(free) // 2]
            return self.last
        best = max(tried, key=lambda rate: sum(moves_by(s, s.wanted, rate) or moves_by(s, s.held, rate) for s in steps))
        self.last = best
        return best

    def _kind(self, step: Step, typical: float, steps: list[Step]) -> str | None:
        wanted = float(np.abs(typical * step.wanted).max())
        if not step.move.any():
            return "rnn-not-updated" if wanted > 20 * step.noise and wanted > 1e-9 else None
        if moves_by(step, step.wanted, typical) or max(wanted, float(np.abs(step.move).max())) <= 20 * step.noise:
            return None
        if moves_by(step, step.current, typical):
            return "rnn-gradient-lost"
        if moves_by(step, step.held, typical):
            return "rnn-not-zeroed"
        # A later step up the gradient may be one of momentum, which the first is not.
        first = step.name not in self.moved
        if first and any(moves_by(step, grad, -typical) for grad in (step.wanted, step.held, step.current)):
            return "rnn-ascent"
        for other in steps:
            if other.name == step.name or other.wanted.size != step.wanted.size:
                continue
            if any(moves_by(step, grad.reshape(step.move.shape), typical) for grad in (other.wanted, other.current)):
                return "rnn-wrong-gradient"
        rate = _ratio(step, step.wanted)
        if rate is None or (rate < 0 and not first):
            return "rnn-update-differs"
        if rate < 0:
            return "rnn-ascent"
        if wanted <= 200 * step.noise or abs(rate / typical - 1) < 0.02:
            return None
        alone = self.rate is not None and abs(self.rate - 1) > 0.1
        return "rnn-no-rate" if alone and abs(rate - 1) < 0.02 else "rnn-rates"

    # --- in words -------------------------------------------------------------------------------------------------------

    def _never(self) -> list[Problem]:
        idle = [one["line"] for name, one in self.run.seen["updates"].items() if one["idle"] and name in self.names]
        if idle:
            return [
                Problem(
                    "update",
                    "rnn-gradient-lost",
                    min(idle),
                    f"When the update is made, the gradients of {joined(self.names)} are zeros, so that nothing moves: they are "
                    "zeroed between backward() and the update, or backward() stands after it. The order is backward(), update, "
                    "zeroing.",
                )
            ]
        return [
            Problem(
                "update",
                "rnn-not-updated",
                self.run.rows[0]["line"],
                f"No parameter changes from one backward() to the next: {joined(self.names)} keep their first values, "
                "and nothing is learned.",
            )
        ]

    def _other(self, what: str) -> Problem:
        text = f"The update is not the plain one ({what}); the lab's is p ← p − learning rate · gradient."
        return Problem("update", "rnn-not-plain", _line(self.run, None), text)

    def _told(self, kind: str, steps: list[Step]) -> Problem:
        first = min(steps, key=lambda step: step.k)
        names = joined([step.name for step in steps])
        one = len(steps) == 1
        place = place_of(self.match, first.k)
        its, is_, has = ("its", "is", "has") if one else ("their", "are", "have")
        rate = self._shown()
        texts = {
            "rnn-not-updated": f"{names} {'was' if one else 'were'} not updated"
            f"{'' if self.run.by_hand else ', though backward() computed ' + its + ' gradient' + 's'[one:]}: "
            f"{'it keeps its' if one else 'they keep their'} first values.",
            "rnn-ascent": f"{names} {is_} moved up {its} gradient: the loss grows. The lab subtracts the learning rate times "
            "the gradient.",
            "rnn-not-zeroed": f"{names} {is_} updated with {its} gradient plus those of the sentences before: {its} .grad is not "
            f"zeroed after the update, and backward() adds to what it finds there.",
            "rnn-gradient-lost": f"{names} {is_} updated with the last sentence's gradient alone: the one before "
            f"had its gradient zeroed before an update used it.",
            "rnn-wrong-gradient": f"{names} {is_} updated with the gradient of another parameter.",
            "rnn-no-rate": f"{names} {is_} updated by the whole gradient: the learning rate ({rate:g}) is left out.",
            "rnn-rates": f"{names} {has} another learning rate than the other parameters.",
            "rnn-update-differs": f"{names} {'does' if one else 'do'} not move by the learning rate times {its} "
            f"gradient{'s'[one:]}"
            f"{': what is worked out by hand is another than that of the loss' if self.run.by_hand else ''}.",
        }
        witness = None if kind == "rnn-rates" else self._witness(first)
        about = role_by_name(first.name)
        return Problem("update", kind, _line(self.run, first.name), f"{place}: {texts[kind]}", about, witness)

    def _shown(self) -> float:
        """The learning rate in words: the script's own, or what its updates show, or the lab's."""
        return next((float(f"{rate:.3g}") for rate in (self.rate, self.last) if rate is not None), 0.1)

    def _witness(self, step: Step) -> Witness:
        rate = self._shown()
        given = [
            f"# {place_of(self.match, step.k)}",
            f"{step.name} = torch.tensor({numbers(step.value, full=True)})",
            f"gradient = torch.tensor({numbers(step.wanted, full=True)})",
            f"learning_rate = {rate:g}",
        ]
        return Witness(
            "\n".join(given),
            f"{step.name} = {numbers(step.value - rate * step.wanted)}",
            f"{step.name} = {numbers(step.value + step.move)}",
        )


def _any_move(run: Run) -> bool:
    return any(bool((values[1:] != values[:-1]).any()) for name, values in run.values.items() if role_by_name(name))


def _is_start(match: Match | None, name: str) -> bool:
    return match is not None and any(p.name == name and p.role == "s_0" for p in match.reading)


def _ratio(step: Step, grad: Any) -> float | None:
    """The r with which a parameter has moved by -r times a gradient; None where there is none."""
    square = 0.0 if grad is None else float((grad * grad).sum())
    if square == 0:
        return None
    rate = -float((step.move * grad).sum()) / square
    room = 2e-3 * np.abs(step.move).max() + step.noise
    return rate if rate != 0 and np.abs(step.move + rate * grad).max() <= room else None


def _unread(run: Run) -> Problem:
    return Problem(
        "update",
        "rnn-unread",
        _line(run, None),
        "The gradients are worked out by hand, and the check could not follow them: no parameter was seen to move by a "
        "learning rate times a gradient.",
    )


def _not_finite(run: Run) -> Problem | None:
    """Parameters that become nan or infinite in training."""
    for k in range(1, len(run.rows)):
        loss = run.rows[k]["loss"]
        if loss is None or np.isfinite(loss):
            continue
        names = sorted(run.used, key=lambda name: ROLES.index(role_by_name(name) or "b_out"))
        bad = [n for n in names if np.isfinite(run.values[n][0]).all() and not np.isfinite(run.values[n][k]).all()]
        if not bad:
            continue
        rate = next((v for key in ("learning_rate", "lr") if (v := run.settings.get(key)) is not None), None)
        said = f" The learning rate is {rate:g}." if rate is not None and not 1e-6 < rate < 5 else ""
        values = "nan" if any(np.isnan(run.values[n][k]).any() for n in bad) else "infinite"
        return Problem(
            "update",
            "rnn-nan",
            _line(run, None),
            f"After {k} backward pass{'es' * (k > 1)} {joined(bad)} hold{'s' * (len(bad) == 1)} {values}, and nothing is learned "
            f"from then on: the update before made {'it' if len(bad) == 1 else 'them'} so.{said}",
        )
    return None


def _line(run: Run, name: str | None) -> int | None:
    """The line that updates a parameter, or the first that updates any."""
    updates = run.seen["updates"]
    if name in updates:
        return int(updates[name]["line"])
    first = min((int(one["line"]) for one in updates.values()), default=None)
    if name is None and first is not None:
        return first
    names = run.rows[1].get("names", {}) if len(run.rows) > 1 else {}
    for one, about in names.items():
        if name in (None, one) and about["line"] not in (None, run.names.get(one, {}).get("line")):
            return int(about["line"])
    return first
