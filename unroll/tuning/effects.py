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
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from unroll.data.batches import Dataset
from unroll.errors import DataError, InputError, RecipeError, TrainingError
from unroll.training.evaluate import evaluated
from unroll.training.facts import facts
from unroll.training.recipe import DATA, INDIFFERENT, TITLES, AnyRecipe, parse_recipe, value_text
from unroll.training.train import fit_recipe, prepare
from unroll.training.trials import REMEDY, Row, Trials, fingerprint, signature

Way = Literal["alone", "undone"]
WAYS: tuple[Way, ...] = ("alone", "undone")
Array = NDArray[np.float64]
Progress = Callable[[Sequence[AnyRecipe]], Iterable[AnyRecipe]]

# Times and rounding of two machines, or of two versions, would not compare.
MACHINE = ("unroll", "torch", "processor", "threads", "engine")


class Walk(NamedTuple):
    """Two recipes, and those with one change made or undone; where such a recipe makes no sense, the reason why."""

    first: AnyRecipe
    second: AnyRecipe
    steps: dict[tuple[str, Way], AnyRecipe | str]
    """By the change, such as ``epochs: 1 → 3``, and the way."""


def walk(first: AnyRecipe, second: AnyRecipe) -> Walk:
    """Lay out what is to be trained between two recipes.

    Raises:
        InputError: they are of different tasks or read different data, or no hyperparameter differs.
    """
    if first.name == second.name:
        raise InputError(f"both recipes are called {first.name!r}; give them two names")
    if first.task != second.task:
        raise InputError(
            f"{first.name} is about {first.task} and {second.name} about {second.task}; expected two recipes of one task"
        )
    for field in DATA:
        ours, theirs = (getattr(recipe, field, None) for recipe in (first, second))
        if field in ("data", "test_data"):
            ours, theirs = (place and str(Path(place).resolve()) for place in (ours, theirs))
        if ours != theirs:
            raise InputError(
                f"{first.name} and {second.name} are tested on different data: {field} is {value_text(ours)} and "
                f"{value_text(theirs)}; give both the same"
            )
    second = second.model_copy(update=first.model_dump(include={*INDIFFERENT, *DATA}))
    before, after = first.model_dump(), second.model_dump()
    steps: dict[tuple[str, Way], AnyRecipe | str] = {}
    for field in [field for field in before if field not in TITLES and before[field] != after[field]]:
        change = f"{field.replace('_', ' ')}: {value_text(before[field])} → {value_text(after[field])}"
        steps[change, "alone"] = _changed(first, field, after[field])
        steps[change, "undone"] = _changed(second, field, before[field])
    if not steps:
        raise InputError(f"no hyperparameter differs between {first.name} and {second.name}; name two other recipes")
    return Walk(first, second, steps)


def _changed(recipe: AnyRecipe, field: str, value: Any) -> AnyRecipe | str:
    try:
        changed = parse_recipe({**recipe.model_dump(exclude={"name"}), field: value}, recipe.name)
    except RecipeError as error:
        return str(error)
    return changed.model_copy(update={"name": f"{recipe.name} with {field} {value_text(value)}"})


# ----------------------------------------------------------------------------------------------------------- measuring


class Study(Trials):
    """effects.json: every finished training of a walk, and whose they are.

    Args:
        folder: where the file is, or will be.
        way: what it is about.
        dataset: what the first recipe reads with seed 0.

    Raises:
        InputError: the file there is damaged, or about other recipes or data.
    """

    about: dict[str, Any]

    def __init__(self, folder: Path, way: Walk, dataset: Dataset) -> None:
        numbers = dict.fromkeys(("accuracy", "seconds"), (float, NoneType))
        super().__init__(folder / "effects.json", ("recipe", "seed"), {"recipe": dict, "seed": int, **numbers})
        about = {"first": signature(way.first), "second": signature(way.second), "data": fingerprint(dataset)}
        if not self.path.is_file():
            self.about = {**about, "machine": facts()}
        elif not {*about, "machine"} <= set(self.about or {}):
            raise InputError(f"{self.path} is damaged; {REMEDY}")
        parts = {"first": "the first recipe is", "second": "the second recipe is", "data": "the data are"}
        for key, what in parts.items():
            if self.about[key] != about[key]:
                raise InputError(
                    f"{self.path} belongs to another study ({what} not the same); name another folder with --out, or "
                    "remove it"
                )

    def trained(self, recipe: AnyRecipe) -> Row | None:
        """The finished training of a recipe with its seed."""
        return self.find(recipe=signature(recipe), seed=recipe.seed)


def plan(way: Walk, seeds: int) -> list[AnyRecipe]:
    """Every training of a walk, seed after seed: what slows the machine down for a while then slows all recipes alike.

    Recipes that come out the same, as where only one hyperparameter differs, are trained once.

    Raises:
        InputError: fewer than two seeds.
    """
    if seeds < 2:
        raise InputError(f"seeds is {seeds}; expected at least 2, such as 5, as a single training has no spread")
    wanted: dict[str, AnyRecipe] = {}
    for recipe in (way.first, way.second, *way.steps.values()):
        if not isinstance(recipe, str):
            wanted.setdefault(json.dumps(signature(recipe), sort_keys=True), recipe)
    return [recipe.model_copy(update={"seed": seed}) for seed in range(seeds) for recipe in wanted.values()]


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


def measure(way: Walk, study: Study, seeds: int, progress: Progress = iter) -> None:
    """Train everything that the study lacks; each training is in its file as soon as it is finished.

    A step that turns out to be impossible, such as a batch larger than the training part, becomes the reason why.

    Raises:
        InputError: fewer than two seeds, or the study was begun on another machine or version.
        UnrollError: one of the two recipes themselves cannot be trained.
    """
    missing = [recipe for recipe in plan(way, seeds) if study.trained(recipe) is None]
    if not missing:
        return
    there, here = study.about["machine"], facts()
    for fact in MACHINE:
        if study.rows and there.get(fact) != here.get(fact):
            raise InputError(
                f"{study.path} was measured with {fact} {there.get(fact)}, this is {here.get(fact)}, and the two would not "
                "compare; name another folder with --out"
            )
    if not study.rows:
        study.about["machine"] = here
    study.save()  # a place that cannot be written to shall not cost a training
    ends = signature(way.first), signature(way.second)
    for recipe in progress(missing):
        what = signature(recipe)
        same = [key for key, step in way.steps.items() if not isinstance(step, str) and signature(step) == what]
        if not same and what not in ends:
            continue  # impossible with the seed before
        try:
            outcome = train_once(recipe)
        except (RecipeError, InputError) as error:  # values that do not go together
            if what in ends:
                raise
            way.steps.update(dict.fromkeys(same, str(error)))
        else:
            study.add({"recipe": what, "seed": recipe.seed, **outcome})


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
    if n < 2:
        return Estimate(n, *map(float, known))
    mean, deviation = float(known.mean()), float(known.std(ddof=1))
    reach = float(student.ppf(0.975, n - 1)) * deviation / n**0.5
    return Estimate(n, mean, deviation, mean - reach, mean + reach)


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


def effect(change: str, made: str, differences: Array) -> Effect:
    """Of differences as between two of `Effects.outcomes`."""
    points, seconds, logs = map(estimate, differences)
    mean, low, high = (None if x is None else float(np.exp(x)) for x in (logs.mean, logs.low, logs.high))
    diverged = differences.shape[1] - points.number
    return Effect(change, made, points, seconds, Estimate(logs.number, mean, None, low, high), diverged)


@dataclass(frozen=True)
class Effects:
    """All that a study says.

    outcomes: of both recipes, by name: test accuracy in percent, seconds of training and their logarithms, seed by seed; NaN
    where it diverged; single: two of each change, alone and undone; together: all of them at once; sums: of the single ones,
    alone and undone, absent where a change cannot be made alone.
    """

    seeds: int
    outcomes: dict[str, Array]
    single: list[Effect]
    together: Effect
    sums: dict[Way, Effect]

    def all(self) -> list[Effect]:
        return [*self.single, self.together, *self.sums.values()]


def summarise(way: Walk, study: Study, seeds: int) -> Effects:
    """The statistics of a study in which everything has been trained."""

    def outcomes(recipe: AnyRecipe) -> Array:
        rows = [study.trained(recipe.model_copy(update={"seed": seed})) or {} for seed in range(seeds)]
        accuracy, seconds = np.array([[row.get("accuracy"), row.get("seconds")] for row in rows], dtype=np.float64).T
        # Seconds are kept to the millisecond, so that a very short training may have come out as none at all.
        seconds = np.maximum(seconds, 0.001)
        return np.array([100 * accuracy, seconds, np.log(seconds)])

    first, second = outcomes(way.first), outcomes(way.second)
    single: list[Effect] = []
    parts: dict[Way, list[Array]] = {made: [] for made in WAYS}
    for (change, made), step in way.steps.items():
        if isinstance(step, str):
            single.append(Effect(change, made, reason=step))
        else:
            parts[made].append(outcomes(step) - first if made == "alone" else second - outcomes(step))
            single.append(effect(change, made, parts[made][-1]))
    whole = {made: np.sum(found, axis=0) for made, found in parts.items() if 2 * len(found) == len(way.steps)}
    sums = {made: effect(f"sum of those {made}", "sum", total) for made, total in whole.items()}
    together = effect("all of them", "together", second - first)
    return Effects(seeds, {way.first.name: first, way.second.name: second}, single, together, sums)
