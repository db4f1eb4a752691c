"""Effects: what every single change on the way from one recipe to another is worth, measured.

Each hyperparameter that differs is changed alone from the first recipe, and undone alone from the second, because what a
change is worth depends on what surrounds it. Both recipes and every one between them are trained with the same seeds, and
the differences are taken seed by seed, so that what a seed does to both falls out of them. The interval is Student's
(Biometrika 6(1), 1908), for a mean of few differences whose spread is estimated from themselves.

What it does not do: train two changes together (other than all of them), or correct for looking at many intervals at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from unroll.data.batches import Dataset
from unroll.errors import DataError, InputError, RecipeError, TrainingError
from unroll.training.evaluate import evaluated
from unroll.training.recipe import DATA, INDIFFERENT, TITLES, AnyRecipe, parse_recipe, value_text
from unroll.training.train import fit_recipe, prepare
from unroll.training.trials import REMEDY, Trials, fingerprint, signature

Way = Literal["alone", "undone"]
Array = NDArray[np.float64]

# Times and rounding of two machines, or of two versions, would not compare.
MACHINE = ("unroll", "torch", "processor", "threads", "engine")


@dataclass(frozen=True)
class Change:
    """One hyperparameter that differs."""

    field: str
    before: Any
    after: Any

    @property
    def text(self) -> str:
        return f"{self.field.replace('_', ' ')}: {value_text(self.before)} → {value_text(self.after)}"


@dataclass(frozen=True)
class Walk:
    """Two recipes, and those with one change made or undone; where such a recipe makes no sense, the reason why."""

    first: AnyRecipe
    second: AnyRecipe
    changes: tuple[Change, ...]
    between: dict[tuple[Way, str], AnyRecipe | str]


def walk(first: AnyRecipe, second: AnyRecipe) -> Walk:
    """Lay out what is to be trained between two recipes.

    Raises:
        InputError: they are of different tasks or read different data, or no hyperparameter differs.
    """
    if first.task != second.task:
        raise InputError(
            f"{first.name} is about {first.task} and {second.name} about {second.task}; expected two recipes of one task"
        )
    before, after = first.model_dump(), second.model_dump()
    for field in DATA:
        ours, theirs = (_place(field, values.get(field)) for values in (before, after))
        if ours != theirs:
            raise InputError(
                f"{first.name} and {second.name} are tested on different data: {field} is {value_text(ours)} and "
                f"{value_text(theirs)}; give both the same"
            )
    second = second.model_copy(update={field: before[field] for field in (*INDIFFERENT, *DATA) if field in before})
    after = second.model_dump()
    changes = tuple(
        Change(field, before[field], after[field])
        for field in before
        if field not in TITLES and before[field] != after[field]
    )
    if not changes:
        raise InputError(f"no hyperparameter differs between {first.name} and {second.name}; name two other recipes")
    between: dict[tuple[Way, str], AnyRecipe | str] = {}
    for change in changes:
        between["alone", change.field] = _changed(first, change.field, change.after)
        between["undone", change.field] = _changed(second, change.field, change.before)
    return Walk(first, second, changes, between)


def _place(field: str, value: Any) -> Any:
    return str(Path(value).resolve()) if field in ("data", "test_data") and value is not None else value


def _changed(recipe: AnyRecipe, field: str, value: Any) -> AnyRecipe | str:
    try:
        return parse_recipe({**recipe.model_dump(), field: value}, recipe.name)
    except RecipeError as error:
        return str(error)


# ----------------------------------------------------------------------------------------------------------- measuring


@dataclass(frozen=True)
class Training:
    """One training that is wanted."""

    what: str
    recipe: AnyRecipe
    keys: tuple[tuple[Way, str], ...]
    """Whose part between the two recipes it is; none for the two themselves."""


Progress = Callable[[Sequence[Training]], Iterable[Training]]


class Study:
    """effects.json: every finished training, and whose they are.

    Args:
        folder: where the file is, or will be.
        way: what it is about.
        dataset: what the first recipe reads with seed 0.
        facts: of this machine, as `unroll.training.facts.facts` says them.

    Raises:
        InputError: the file there is damaged, or about other recipes or data.
    """

    def __init__(self, folder: Path, way: Walk, dataset: Dataset, facts: dict[str, Any]) -> None:
        self.path = folder / "effects.json"
        self.facts = facts
        about = {"first": signature(way.first), "second": signature(way.second), "data": fingerprint(dataset)}
        kinds: dict[str, Any] = {
            "recipe": dict,
            "seed": int,
            "accuracy": (float, NoneType),
            "seconds": (float, NoneType),
        }
        self._trials = Trials(self.path, ("recipe", "seed"), kinds)
        found = self._trials.about or {}
        self.content = self._trials.about = found if self.path.is_file() else {**about, "machine": facts}
        if self.path.is_file():
            if not {*about, "machine"} <= set(self.content):
                raise InputError(f"{self.path} is damaged; {REMEDY}")
            different = [key for key in about if self.content[key] != about[key]]
            if different:
                what = {"first": "the first recipe is", "second": "the second recipe is", "data": "the data are"}
                raise InputError(
                    f"{self.path} belongs to another study ({what[different[0]]} not the same); name another folder "
                    "with --out, or remove it"
                )

    def check_machine(self) -> None:
        """Raise InputError unless what is measured now can be set beside what is in the file."""
        for fact in MACHINE:
            there, here = self.content["machine"].get(fact), self.facts.get(fact)
            if self._trials.rows and there != here:
                raise InputError(
                    f"{self.path} was measured with {fact} {there}, this is {here}, and the two would not compare; name "
                    "another folder with --out"
                )

    def find(self, recipe: AnyRecipe) -> dict[str, Any] | None:
        """The finished training of a recipe with its seed."""
        return self._trials.find(recipe=signature(recipe), seed=recipe.seed)

    def add(self, recipe: AnyRecipe, outcome: dict[str, Any]) -> None:
        self._trials.add({"recipe": signature(recipe), "seed": recipe.seed, **outcome})

    def finish(self, seeds: int, caption: str, rows: list[dict[str, Any]]) -> None:
        """Put what came of it beside the trainings: a report shows ``rows`` as a table under ``caption``."""
        self.content |= {"seeds": seeds, "caption": caption, "rows": rows}
        self.save()

    def save(self) -> None:
        """Write the file."""
        self._trials.save()


def plan(way: Walk, seeds: int) -> list[Training]:
    """Every training of a walk, seed after seed: what slows the machine down for a while then slows all recipes alike.

    Recipes that come out the same, as where only one hyperparameter differs, are trained once.

    Raises:
        InputError: fewer than two seeds.
    """
    if seeds < 2:
        raise InputError(f"seeds is {seeds}; expected at least 2, such as 5, as a single training has no spread")
    wanted: dict[str, Training] = {}

    def want(what: str, recipe: AnyRecipe, *keys: tuple[Way, str]) -> None:
        known = wanted.get(same := json.dumps(signature(recipe), sort_keys=True))
        wanted[same] = Training(what, recipe, keys) if known is None else _joined(known, keys)

    want(way.first.name, way.first)
    want(way.second.name, way.second)
    for change in way.changes:
        steps: tuple[tuple[Way, AnyRecipe, Any], ...] = (
            ("alone", way.first, change.after),
            ("undone", way.second, change.before),
        )
        for made, base, value in steps:
            recipe = way.between[made, change.field]
            if not isinstance(recipe, str):
                want(f"{base.name} with {change.field} {value_text(value)}", recipe, (made, change.field))
    return [
        Training(f"seed {seed}: {one.what}", one.recipe.model_copy(update={"seed": seed}), one.keys)
        for seed in range(seeds)
        for one in wanted.values()
    ]


def _joined(known: Training, keys: tuple[tuple[Way, str], ...]) -> Training:
    # A recipe that one of the two also is must be possible; only what lies between them may turn out not to be.
    return Training(known.what, known.recipe, (*known.keys, *keys) if known.keys else ())


def load_tested(recipe: AnyRecipe) -> Dataset:
    """The data of a recipe.

    Raises:
        DataError: they have no test part, or are missing or damaged.
        RecipeError: a batch is larger than the training part.
    """
    dataset = prepare(recipe)
    if dataset.test is None:
        raise DataError(
            f"the data of {recipe.name} have no test part to measure with; give both recipes test or test_data"
        )
    return dataset


def train_once(recipe: AnyRecipe) -> dict[str, Any]:
    """Train in memory, and test; nothing is kept but the outcome.

    Returns:
        ``accuracy``, ``correct`` and ``total`` on the test set, and ``seconds`` of training; all None where the training
        diverged: chance would be an accuracy, and the mean of accuracies would hide what happened.

    Raises:
        UnrollError: a training cannot begin.
    """
    dataset = load_tested(recipe)
    assert dataset.test is not None  # `load_tested` has seen to it
    try:
        training = fit_recipe(recipe, dataset)
    except TrainingError:
        return dict.fromkeys(("accuracy", "correct", "total", "seconds"))
    metrics = evaluated(training.model, dataset.test, dataset.encoder)
    found = {key: metrics[key] for key in ("accuracy", "correct", "total")}
    return {**found, "seconds": round(training.seconds, 3)}


def measure(way: Walk, study: Study, seeds: int, progress: Progress = iter) -> dict[tuple[Way, str], str]:
    """Train everything that the study lacks; each training is in its file as soon as it is finished.

    Returns:
        The changes that turned out to be impossible, such as a batch larger than the training part, and why.

    Raises:
        InputError: fewer than two seeds, or the study was begun on another machine or version.
        UnrollError: one of the two recipes themselves cannot be trained.
    """
    missing = [one for one in plan(way, seeds) if study.find(one.recipe) is None]
    impossible: dict[tuple[Way, str], str] = {}
    if not missing:
        return impossible
    study.check_machine()
    study.save()  # a place that cannot be written to shall not cost a training
    for one in progress(missing):
        if any(key in impossible for key in one.keys):
            continue
        try:
            outcome = train_once(one.recipe)
        except (RecipeError, InputError) as error:  # values that do not go together
            if not one.keys:
                raise
            impossible |= dict.fromkeys(one.keys, str(error))
            continue
        study.add(one.recipe, outcome)
    return impossible


# ---------------------------------------------------------------------------------------------------------- statistics


@dataclass(frozen=True)
class Estimate:
    """Mean, standard deviation (n - 1) and 95% interval of `number` values; None where there are too few of them."""

    number: int
    mean: float | None = None
    deviation: float | None = None
    low: float | None = None
    high: float | None = None


NOTHING = Estimate(0)


def estimate(values: Array) -> Estimate:
    """Of the values that are numbers:  mean ± t(0.975, n - 1) · deviation / √n."""
    known = values[~np.isnan(values)]
    n = len(known)
    if n == 0:
        return NOTHING
    mean = float(known.mean())
    if n == 1:
        return Estimate(1, mean)
    deviation = float(known.std(ddof=1))
    reach = float(student.ppf(0.975, n - 1)) * deviation / n**0.5
    return Estimate(n, mean, deviation, mean - reach, mean + reach)


@dataclass(frozen=True)
class Outcomes:
    """Of one recipe, seed by seed: test accuracy in percent and seconds of training; NaN where it diverged."""

    accuracy: Array
    seconds: Array


@dataclass(frozen=True)
class Effect:
    """What a change is worth: its outcome less the outcome without it.

    change   what is changed
    made     ``alone`` from the first recipe, ``undone`` alone from the second, ``together``, or ``sum`` of either
    points   test accuracy, in percentage points
    seconds  of training
    factor   by which it makes the training longer: the geometric mean, and its interval from the logarithms
    diverged number of seeds with which one of the two trainings diverged
    reason   why the change cannot be made alone; None where it can
    """

    change: str
    made: str
    points: Estimate = NOTHING
    seconds: Estimate = NOTHING
    factor: Estimate = NOTHING
    diverged: int = 0
    reason: str | None = None


def differences(before: Outcomes, after: Outcomes) -> Array:
    """(3, seeds): points of accuracy, seconds, and the logarithm of the factor of time, which adds up as they do."""
    logs = np.log(after.seconds / before.seconds)
    return np.stack([after.accuracy - before.accuracy, after.seconds - before.seconds, logs])


def effect(change: str, made: str, found: Array) -> Effect:
    """The effect that `differences` show."""
    points, seconds, logs = map(estimate, found)
    mean, low, high = (None if x is None else float(np.exp(x)) for x in (logs.mean, logs.low, logs.high))
    factor = Estimate(logs.number, mean, None, low, high)
    return Effect(change, made, points, seconds, factor, int(np.isnan(found[0]).sum()))


@dataclass(frozen=True)
class Effects:
    """All that a study says.

    single: two of each change, alone and undone; together: all of them at once; sums: of the single ones, alone and undone,
    None where a change cannot be made alone.
    """

    first: str
    second: str
    seeds: int
    outcomes: dict[str, Outcomes]
    """Of both recipes, by name."""
    single: list[Effect]
    together: Effect
    sums: dict[Way, Effect | None]

    def all(self) -> list[Effect]:
        return [*self.single, self.together, *(effect for effect in self.sums.values() if effect is not None)]


def summarise(way: Walk, study: Study, seeds: int, impossible: dict[tuple[Way, str], str]) -> Effects:
    """The statistics of a study in which everything has been trained; `impossible` is what `measure` returned."""

    def outcomes(recipe: AnyRecipe) -> Outcomes:
        rows = [study.find(recipe.model_copy(update={"seed": seed})) for seed in range(seeds)]
        values = [[None, None] if row is None else [row["accuracy"], row["seconds"]] for row in rows]
        accuracy, seconds = np.array(values, dtype=np.float64).T
        # Seconds are kept to the millisecond, so that a very short training may have come out as none at all.
        return Outcomes(100 * accuracy, np.maximum(seconds, 0.001))

    first, second = outcomes(way.first), outcomes(way.second)
    single: list[Effect] = []
    parts: dict[Way, list[Array]] = {"alone": [], "undone": []}
    for change in way.changes:
        for made, found in parts.items():
            recipe = way.between[made, change.field]
            reason = recipe if isinstance(recipe, str) else impossible.get((made, change.field))
            if reason is not None or isinstance(recipe, str):
                single.append(Effect(change.text, made, reason=reason))
                continue
            other = outcomes(recipe)
            found.append(differences(first, other) if made == "alone" else differences(other, second))
            single.append(effect(change.text, made, found[-1]))
    sums: dict[Way, Effect | None] = {
        made: effect(f"sum of those {made}", "sum", np.sum(found, axis=0)) if len(found) == len(way.changes) else None
        for made, found in parts.items()
    }
    together = effect("all of them", "together", differences(first, second))
    both = {way.first.name: first, way.second.name: second}
    return Effects(way.first.name, way.second.name, seeds, both, single, together, sums)
