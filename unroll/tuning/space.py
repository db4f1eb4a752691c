"""The space of a search: for some fields of a recipe, the values to choose from.

In a recipe's file it stands beside the fields, and the command line narrows it in the same words:

    space:
      learning_rate: 0.0003..0.03 log        from 0.0003 to 0.03, each factor as likely as another
      hidden_size: 32..256 step 32           32, 64, …, 256
      optimizer: [sgd, adam, adamw]          one of these; on the command line: optimizer=sgd,adam,adamw

A range of whole numbers holds both of its ends.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from typing import Any

from optuna.trial import BaseTrial

from unroll.errors import RecipeError, nearest
from unroll.training.recipe import DATA, INDIFFERENT, TITLES, AnyRecipe, field_value, parse_recipe, value_text

RANGE = re.compile(r"\s*(?P<low>\S+?)\s*\.\.\s*(?P<high>\S+)(?:\s+(?P<log>log)|\s+step\s+(?P<step>\S+))?\s*")
LARGEST = 1e100  # the square of a range shall be a number, for the sampler takes it
NO_HYPERPARAMETERS = {"task", "validation", *TITLES, *INDIFFERENT, *DATA}


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both whole or both not."""

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        if isinstance(self.low, int) and isinstance(self.high, int):
            return trial.suggest_int(name, self.low, self.high, log=self.log, step=int(self.step or 1))
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)

    def __contains__(self, value: Any) -> bool:
        if not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        step = self.step or (1 if isinstance(self.low, int) else None)
        return step is None or abs((value - self.low) / step - round((value - self.low) / step)) < 1e-9

    @property
    def written(self) -> str:
        return f"{self.low!r}..{self.high!r}" + (" log" if self.log else f" step {self.step!r}" if self.step else "")


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    def suggest(self, trial: BaseTrial, name: str) -> Any:
        return trial.suggest_categorical(name, self.values)

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    @property
    def written(self) -> list[Any]:
        return list(self.values)


Space = dict[str, Range | Choice]


def read_space(written: Any, recipe: AnyRecipe, changes: list[str], fixed: set[str], where: str) -> Space:
    """The space that a recipe's file holds, as the command line changes it.

    Args:
        written: what stands under `space` in the recipe's file; None: nothing.
        recipe: the recipe itself, to check fields and values against.
        changes: FIELD=VALUES of the command line; they replace or extend what is written.
        fixed: fields that the command line sets to one value: they are not searched.
        where: the recipe's name, for messages.

    Raises:
        RecipeError: an unknown field, reversed bounds, a value that the field does not take, or nothing to search.
    """
    if written is not None and not isinstance(written, dict):
        raise RecipeError(f"recipe {where}: space is {written!r}; expected lines of the form 'field: low..high'")
    lines = [(str(name), values, f"recipe {where}: space") for name, values in (written or {}).items()]
    for change in changes:
        name, _, text = change.partition("=")
        if not text.strip():
            raise RecipeError(f"--space is {change!r}; expected FIELD=LOW..HIGH or FIELD=A,B,C")
        lines.append((name.strip().replace("-", "_"), text, "--space"))
    space: Space = {}
    for name, values, place in lines:
        space[name] = _values(name, values, space.get(name), recipe, place)
        if name in fixed and place == "--space":
            raise RecipeError(f"{name} is given one value and a --space; expected one of the two")
    space = {name: values for name, values in space.items() if name not in fixed}
    if not space:
        raise RecipeError(
            f"recipe {where} leaves nothing to search; say what, as in: --space 'learning_rate=0.0003..0.03 log'"
        )
    return space


def _values(name: str, values: Any, before: Range | Choice | None, recipe: AnyRecipe, where: str) -> Range | Choice:
    """One line of a space, checked."""
    known = [field for field in type(recipe).model_fields if field not in NO_HYPERPARAMETERS]
    if name not in known:
        raise RecipeError(f"{where}: {recipe.task} have no hyperparameter {name!r}{nearest(name, known)}")
    if found := RANGE.fullmatch(values) if isinstance(values, str) else None:
        given: Range | Choice = _range(name, found, before, where)
    else:
        choices = values.split(",") if isinstance(values, str) else values if isinstance(values, list) else [values]
        if not choices or any(isinstance(value, list | dict) for value in choices):
            raise RecipeError(f"{where}: {name} is {choices!r}; expected values to choose from")
        given = Choice(tuple(field_value(value.strip()) if isinstance(value, str) else value for value in choices))
    taken = []
    for value in (given.low, given.high) if isinstance(given, Range) else given.values:
        try:
            taken.append(getattr(parse_recipe({**recipe.model_dump(), name: value}, where), name))
        except RecipeError as error:
            raise RecipeError(str(error).removeprefix("recipe ")) from None
    if isinstance(given, Choice):
        if len(set(taken)) < len(taken):
            words = ", ".join(map(value_text, given.values))
            raise RecipeError(f"{where}: {name} is {words}; expected different values to choose from")
        return Choice(tuple(taken))
    if isinstance(taken[0], bool) or not isinstance(taken[0], int | float):
        raise RecipeError(f"{where}: {name} is no number that could run from {given.low:g} to {given.high:g}")
    if isinstance(taken[0], int) and isinstance(given.step, float):
        raise RecipeError(f"{where}: {name} is a whole number; expected a whole step, not {given.step:g}")
    return replace(given, low=taken[0], high=taken[1])


def _range(name: str, found: re.Match[str], before: Range | Choice | None, where: str) -> Range:
    low, high = field_value(found["low"]), field_value(found["high"])
    step = None if found["step"] is None else field_value(found["step"])
    for value in (low, high, 1 if step is None else step):
        if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= LARGEST:
            raise RecipeError(
                f"{where}: {name} is {found[0].strip()!r}; expected numbers of at most {LARGEST:g}, as in 0.001..0.1"
            )
    if not low < high:
        raise RecipeError(f"{where}: {name} runs from {low:g} to {high:g}; expected the smaller number first")
    log = found["log"] is not None
    if step is None and not log and isinstance(before, Range):
        log, step = before.log, before.step  # narrowing keeps the scale
    if log and not low > 0:
        raise RecipeError(f"{where}: {name} begins at {low:g}; a logarithmic range begins above 0")
    if step is not None and not 0 < step <= high - low:
        raise RecipeError(
            f"{where}: {name} goes from {low:g} to {high:g} in steps of {step:g}; expected a smaller step above 0"
        )
    if step is not None:
        high = low + step * math.floor((high - low) / step + 1e-9)  # the last value that the steps reach
        high = high if isinstance(high, int) else round(high, 12)  # 0.3, and not 0.30000000000000004
    return Range(low, high, log, step)
