"""How a script computes its losses: found by comparing them, and their gradients, with the lab's "
"equations and known differences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from unroll.labs.judge.script_reference import How, forward, gradients, loss_of, ways
from unroll.labs.judge.script_roles import ROLES, Reading, as_roles, from_roles, readings, role_by_name

VOCAB = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}
SENTENCES = (("The", "movie", "is", "bad"), ("The", "movie", "is", "good"))  # at the place of their labels
# The share of the losses of the sentence with label 0 and with label 1 in what one backward is called on.
MIXES = ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.5, 0.5), (0.5, 0.0), (0.0, 0.5))


@dataclass(frozen=True)
class Match:
    """A way that gives a script's losses and gradients.

    Attributes:
        reading: which tensor is which parameter.
        how: the differences from the lab's equations; none in `How()`.
        mixes: of each pass that was compared, by its number, its losses' shares (see `MIXES`).
        late: the losses come from the parameters as they were before the update that precedes the backward.
    """

    reading: Reading
    how: How
    mixes: dict[int, tuple[float, float]]
    late: bool = False


class Run:
    """What `ScriptRecorder` has seen, with its parts by name."""

    def __init__(self, observed: dict[str, Any]) -> None:
        self.seen = observed
        self.rows: list[dict[str, Any]] = observed.get("passes") or []
        self.values: dict[str, Any] = observed.get("values") or {}
        self.settings: dict[str, Any] = observed.get("settings") or {}
        self.names: dict[str, Any] = self.rows[0].get("names", {}) if self.rows else observed.get("named") or {}
        self.by_hand = bool(self.rows) and self.rows[0]["kind"] == "loss"
        self.used = self._used()
        vocab = self.settings.get("vocab") or {}
        fits = all(word in vocab for word in VOCAB) and sorted(vocab.values()) == list(range(len(vocab)))
        self.vocab: dict[str, int] = vocab if fits else VOCAB
        self.m = len(self.vocab)
        self.n = self._units()
        self._known: dict[Any, Any] = {}  # what is asked for with every way that is tried
        self.words = [np.stack([self.onehot(word) for word in sentence]) for sentence in SENTENCES]

    def onehot(self, word: str) -> Any:
        return np.eye(self.m)[self.vocab[word]]

    def _used(self) -> list[str]:
        """The parameters that the first loss was computed from."""
        if not self.rows:
            return []
        called = {name for call in self.rows[0]["tape"] if call.get("behind", True) for name in call["of"]}
        used = [*self.rows[0]["used"], *sorted(called - set(self.rows[0]["used"]))]
        if self.by_hand and not called:
            used = list(self.values)
        named = [name for name in used if not name.startswith("leaf ")]
        direct = {name for name in named if role_by_name(name) is not None and name in called}
        # A parameter that was made by a calculation hides the leaf behind it.
        return [name for name in used if name in self.values and (name in named or not direct)]

    def _units(self) -> int:
        shapes = {name: self.values[name].shape[1:] for name in (*self.used, *self.values)}
        for name, shape in shapes.items():
            if role_by_name(name) == "W" and len(shape) == 2 and shape[0] == shape[1]:
                return int(shape[0])
        for name in sorted(shapes, key=lambda name: role_by_name(name) != "U"):
            if len(shapes[name]) == 2 and self.m in shapes[name] and shapes[name][0] != shapes[name][1]:
                high, wide = shapes[name]
                return int(wide if high == self.m else high)
        n = self.settings.get("n")
        return n if isinstance(n, int) and 0 < n <= 512 else 2

    def readings(self) -> list[Reading]:
        """See `unroll.labs.judge.script_roles.readings`."""
        if not self.used:
            return []
        zeros = {name for name in self.used if not self.values[name][0].any()}
        shapes = {name: tuple(self.values[name].shape[1:]) for name in self.used}
        return readings(shapes, self.n, self.m, zeros)

    def fresh(self, k: int, name: str) -> Any:
        """The gradient that pass k has computed; None where it is not known."""
        after, before = self.seen["after"].get(name), self.seen["before"].get(name)
        if after is None or np.isnan(after[k]).any():
            return None
        if before is None or np.isnan(before[k]).any():
            return after[k].astype(np.float64)
        return after[k].astype(np.float64) - before[k]

    def inputs(self, k: int) -> Any:
        """The words (T, m) that pass k was seen to multiply by U; None where that was not seen.

        Words that the loss does not depend on are among them where they make up one of the lab's sentences.
        """
        if ("inputs", k) not in self._known:
            self._known["inputs", k] = self._inputs(k)
        return self._known["inputs", k]

    def _inputs(self, k: int) -> Any:
        if k >= len(self.rows) or "tape" not in self.rows[k]:
            return None
        all_of_them = self._words(self.rows[k]["tape"])
        behind = self._words([call for call in self.rows[k]["tape"] if call.get("behind", True)])
        for seen in (behind, all_of_them):
            if any(seen is not None and seen.shape == words.shape and (seen == words).all() for words in self.words):
                return seen
        return behind

    def _words(self, tape: list[dict[str, Any]]) -> Any:
        found = []
        for call in tape:
            sizes = [len(one) for one in call["with"]]
            if "cat" in call["call"] or "stack" in call["call"]:
                if self.m != self.n and sorted(sizes) == sorted((self.n, self.m)):
                    found.append(call["with"][sizes.index(self.m)])
                continue
            for one in call["with"]:
                # With as many units as words a state looks like a word, unless it has a single 1.
                if len(one) == self.m and (self.m != self.n or (sorted(set(one)) == [0.0, 1.0] and sum(one) == 1)):
                    found.append(one)
        return np.array(found) if found else None

    def start(self, k: int) -> Any:
        """The state s_0 (n,) that pass k was seen to begin with; None where that was not seen."""
        if k >= len(self.rows) or "tape" not in self.rows[k]:
            return None
        for call in self.rows[k]["tape"]:
            if not call.get("behind", True):
                continue
            sizes = [len(one) for one in call["with"]]
            joins = "cat" in call["call"] or "stack" in call["call"]
            if joins and self.m != self.n and sorted(sizes) == sorted((self.n, self.m)):
                return np.array(call["with"][sizes.index(self.n)])
            if any(role_by_name(name) == "W" for name in call["of"]) and self.n in sizes and not joins:
                return np.array(call["with"][sizes.index(self.n)])
        return None

    def roles(self, reading: Reading, k: int) -> dict[str, Any]:
        """One set of the lab's parameters, P = 1, as pass k found them."""
        if (reading, k) not in self._known:
            values = {p.name: self.values[p.name][k : k + 1] for p in reading}
            self._known[reading, k] = as_roles(reading, values, self.n, self.m)
        roles: dict[str, Any] = self._known[reading, k]
        return roles

    def sentence(self, k: int) -> int | None:
        """The label of the sentence whose words pass k was seen to read; None for others, or where that was not seen."""
        if ("sentence", k) not in self._known:
            self._known["sentence", k] = self._sentence(k)
        label: int | None = self._known["sentence", k]
        return label

    def _sentence(self, k: int) -> int | None:
        seen = self.inputs(k)
        for label, words in enumerate(self.words):
            if seen is not None and seen.shape == words.shape and (seen == words).all():
                return label
        return None


def find_match(run: Run) -> Match | None:
    """The way with the fewest differences from the lab that gives the script's losses and gradients; None where none does."""
    found = run.readings()
    if not found or not run.rows:
        return None
    for reading in found[:60]:
        mixes = fits(run, reading, How())
        if mixes is not None:
            return Match(reading, How(), mixes)
    for reading in found[:2]:
        mixes = fits(run, reading, How(), late=True)
        if mixes is not None and len(mixes) > 1:
            return Match(reading, How(), mixes, late=True)
    # A square W and a square W_out fit both ways round: four readings of the same names.
    best = [r for r in found if all(role_by_name(p.name) in (None, p.role) for p in r)][:4] or found[:2]
    first = range(min(8, len(run.rows)))
    labels = [run.sentence(k) for k in first]
    known = None not in labels
    words = ("asked", "seen") if len(set(labels)) == 1 < len(labels) else ("asked",)  # one sentence with both labels
    zeros = all(start is not None and not start.any() for start in map(run.start, first))
    for how in ways(2):
        if (known and how.words not in words) or (zeros and how.start != "zeros"):
            continue
        for reading in best:
            mixes = fits(run, reading, how)
            if mixes is not None:
                return Match(reading, how, mixes)
    return None


def examined(run: Run) -> list[int]:
    """The passes that are compared: the first, and some of the later ones."""
    count = len(run.rows)
    later = np.linspace(8, count - 1, 8).astype(int).tolist() if count > 16 else range(8, count)
    return [*range(min(8, count)), *sorted(set(later))]


def fits(run: Run, reading: Reading, how: How, late: bool = False) -> dict[int, tuple[float, float]] | None:
    """The shares of the two sentences in each pass that was compared, if `how` gives the losses and gradients of all."""
    mixes: dict[int, tuple[float, float]] = {}
    last: Any = None
    seen = how.words == "seen" or how.start in ("seen", "kept")
    for k in examined(run):
        if seen and k >= 8:
            break
        at = max(k - 1, 0) if late else k
        if run.rows[k]["loss"] is None or any(np.isnan(run.values[p.name][at]).any() for p in reading):
            continue
        roles = run.roles(reading, at)
        start = _start(run, how, k, last)
        if start is not None and start.shape != (run.n,):
            return None
        found = _one(run, reading, how, k, roles, start, gradient=not late and (k < 4 or k in (7, 8)))
        if found is None:
            return None
        mixes[k], last = found
    return mixes or None


def _start(run: Run, how: How, k: int, last: Any) -> Any:
    if how.start == "seen":
        start = run.start(k)
        return np.full(1, np.nan) if start is None else start
    return last if how.start == "kept" else None


def _one(
    run: Run, reading: Reading, how: How, k: int, roles: dict[str, Any], start: Any, gradient: bool
) -> tuple[tuple[float, float], Any] | None:
    words = run.words
    if how.words == "seen":
        inputs = run.inputs(k)
        if inputs is None:
            return None
        words = [inputs, inputs]
    states, losses = [], []
    with np.errstate(all="ignore"):
        for label in (0, 1):
            s, logits = forward(roles, words[label], how, start)
            states.append(s[-1][0])
            losses.append(float(loss_of(logits, label, how)[0]))
    loss = run.rows[k]["loss"]
    known = run.sentence(k) if how.words == "asked" else None
    for mix in MIXES:
        if known is not None and mix[known] == 0:
            continue
        said = mix[0] * losses[0] + mix[1] * losses[1] if 0 not in mix else max(mix) * losses[mix.index(max(mix))]
        if not abs(said - loss) <= 3e-6 + 1e-4 * abs(loss):
            continue
        if gradient and not _same_gradients(run, reading, how, k, roles, words, mix, start):
            continue
        return mix, states[int(mix[1] > 0)]
    return None


def mixed_gradients(
    run: Run, reading: Reading, how: How, roles: dict[str, Any], words: list[Any], mix: tuple[float, float], start: Any
) -> dict[str, Any]:
    """The gradient of each tensor of a reading, in its shape, of the sentences' losses in these shares."""
    total: dict[str, Any] = {}
    with np.errstate(all="ignore"):
        for label in (0, 1):
            if mix[label]:
                for role, grad in gradients(roles, words[label], label, how, start).items():
                    total[role] = total.get(role, 0) + mix[label] * grad
    return {p.name: from_roles(p, total, run.values[p.name].shape[1:]) for p in reading}


def _same_gradients(
    run: Run,
    reading: Reading,
    how: How,
    k: int,
    roles: dict[str, Any],
    words: list[Any],
    mix: tuple[float, float],
    start: Any,
) -> bool:
    wanted = mixed_gradients(run, reading, how, roles, words, mix, start)
    top = max((float(np.abs(one).max()) for one in wanted.values()), default=0.0)
    for name, want in wanted.items():
        got = run.fresh(k, name)
        if got is None:
            continue
        before = run.seen["before"].get(name)
        held = 0.0 if before is None else float(np.nan_to_num(np.abs(before[k])).max())
        room = 1e-3 * np.abs(want).max() + 2e-7 * top + 4e-7 * held
        if not np.abs(got - want).max() <= room:
            return False
    return True


def missing(reading: Reading) -> list[str]:
    """The lab's parameters that a reading has not."""
    found = {letter for p in reading for letter in (("W", "U") if p.role in ("WU", "UW") else (p.role,))}
    return [role for role in ROLES if role not in found]
