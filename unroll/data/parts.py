"""What the tasks share: labels, classes, the split into training, validation and test parts, and encoders as JSON."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from unroll.errors import DataError


class Saved:
    """A dataclass of text, numbers and tuples of these, to JSON and back."""

    unsaved: ClassVar[tuple[str, ...]] = ()
    """Fields that are not kept."""
    renamed: ClassVar[dict[str, str]] = {}
    """Fields that have another name in JSON."""

    def to_json(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in self.unsaved}  # type: ignore[arg-type]
        return {self.renamed.get(k, k): list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_json(cls, saved: dict[str, Any]) -> Self:
        """What `to_json` gave."""
        names = {name: field for field, name in cls.renamed.items()}
        return cls(**{names.get(k, k): tuple(v) if isinstance(v, list) else v for k, v in saved.items()})


def label_text(value: Any) -> str | None:
    """A label as text, whatever it came as: 1 and 1.0 are "1", true is "true"; None where there is none."""
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        if math.isnan(value):
            return None
        return str(int(value)) if float(value).is_integer() else str(value)
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, str):
        return value.strip() or None
    return None


def no_label(value: Any, what: str) -> str:
    """Why `label_text` finds no label in a value; `what` and where it is begins the message."""
    if value is None or isinstance(value, str | float | np.floating):
        return f"{what} is missing; expected text or a number, got {value!r}"
    return f"{what} is of type {type(value).__name__}; expected text or a number"


def class_names(labels: Sequence[str], where: Path) -> tuple[str, ...]:
    """All labels that occur, in order: by value where all are numbers, else by alphabet.

    Raises:
        DataError: there is one class only.
    """
    names = set(labels)
    if len(names) < 2:
        only = next(iter(names), "none")
        raise DataError(f"all {len(labels)} sequences of {where} have the label {only!r}; expected two classes or more")
    ordered = sorted(names)
    try:
        values = {name: float(name) for name in ordered}
    except ValueError:
        return tuple(ordered)
    # The text "nan" is a float, but one without a place in any order: what came out would hang on the set's order.
    if not all(map(math.isfinite, values.values())):
        return tuple(ordered)
    return tuple(sorted(ordered, key=values.__getitem__))


def classes(labels: Sequence[str], names: tuple[str, ...], places: Sequence[str]) -> list[int]:
    """The class of each label, as its position in `names`; `places` say where each label was read.

    Raises:
        DataError: a label is none of the training part's.
    """
    numbers = {name: k for k, name in enumerate(names)}
    for label, place in zip(labels, places, strict=True):
        if label not in numbers:
            known = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
            raise DataError(f"{place}: label {label!r} does not occur in the training part, which has {known}")
    return [numbers[label] for label in labels]


def split(labels: Sequence[str], test: float, validation: float, seed: int) -> tuple[list[int], list[int], list[int]]:
    """Split the sequences 0 … N-1 into training, validation and test part.

    The order is drawn from the seed alone, because files are often sorted by label, and every part gets every class in
    the proportion of the whole, up to rounding: sequence number r (from 0) of the n in its class is put at (r + ½)/n,
    and each part is a stretch of what results. The training part keeps the file's order.

    Args:
        labels: one for each sequence.
        test: how much goes to the test part: below 1 a share, else a number; 0 nothing.
        validation: likewise, of what is then left.

    Raises:
        DataError: nothing would be left to train on, or to hold out.
    """
    total = len(labels)
    tested = _amount("test", test, total)
    held_out = _amount("validation", validation, total - tested)
    sizes, ranks = Counter(labels), Counter[str]()
    place: dict[int, float] = {}
    for i in np.random.default_rng(seed).permutation(total).tolist():
        place[i] = (ranks[labels[i]] + 0.5) / sizes[labels[i]]
        ranks[labels[i]] += 1
    order = sorted(place, key=place.__getitem__)  # stable: ties stay in the order drawn
    return (
        sorted(order[tested + held_out :]),
        sorted(order[tested : tested + held_out]),
        sorted(order[:tested]),
    )


def _amount(name: str, amount: float, total: int) -> int:
    count = round(amount * total) if amount < 1 else round(amount)
    if amount > 0 and not 0 < count < total:
        raise DataError(f"{name} = {amount:g} of {total} sequences leaves nothing on one side; choose another {name}")
    return count
