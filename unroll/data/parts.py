"""What the tasks share: labels, classes, the split into training, validation and test parts, and encoders as JSON."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np

from unroll.errors import DataError, InputError
from unroll.files import memory
from unroll.terminal import SHAPELESS

# Unicode's Default_Ignorable_Code_Point, of which nothing is seen, without the zero-width space and the two joiners.
_IGNORABLE = re.compile(
    f"[{SHAPELESS}\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\ufff0-\ufff8"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0080-\U000e0fff]"
)
_WHOLE_NUMBER = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0*)?")  # not 1.10: it may be version 1.10, and 1.1 another
LARGE, EXPANDS = 1 << 28, 200  # bytes, and times: what is larger and was packed tighter is nothing but zeros
MOST_CLASSES = 20  # that are not taken for a wrong column or for regression, whatever they look like


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
        """What `to_json` gave.

        Raises:
            pydantic.ValidationError: a field is missing, unknown, or not of its type.
        """
        from pydantic import ConfigDict, create_model  # not at the top: reading data does without

        kept: dict[str, Any] = {
            f.name: (f.type, ... if f.default is MISSING else f.default)
            for f in fields(cls)  # type: ignore[arg-type]
            if f.name not in cls.unsaved
        }
        config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
        model = create_model(cls.__name__, __config__=config, __module__=cls.__module__, **kept)
        names = {name: field for field, name in cls.renamed.items()}
        values = {names.get(k, k): tuple(v) if isinstance(v, list) else v for k, v in saved.items()}
        return cls(**dict(model.model_validate(values)))


@dataclass
class Labelled:
    """What a file holds: series of steps, which are arrays (T, D) or lists of words, and their labels, if any.

    `places` say where each series was read, `features` what its columns are called, for messages; `dropped` are columns
    that are not read, `doubts` warnings about how the file was read.
    """

    where: Path
    features: list[str] = field(default_factory=list)
    series: list[Any] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def choose(self, numbers: Sequence[int]) -> Labelled:
        """The series with these numbers."""
        series, labels, places = ([column[i] for i in numbers] for column in (self.series, self.labels, self.places))
        return replace(self, series=series, labels=labels, places=places)

    def with_features(self, names: Sequence[str]) -> Labelled:
        """The same series, arrays, with their features in this order.

        Raises:
            DataError: the features are others.
        """
        if sorted(self.features) != sorted(names):
            raise DataError(
                f"{self.where} has the features {listed(self.features)}; expected {listed(names)}, as in training"
            )
        if self.features == list(names):
            return self
        order = [self.features.index(name) for name in names]
        return replace(self, features=list(names), series=[array[:, order] for array in self.series])

    def divide(
        self, own_test: Labelled | None, test: float, validation: float, seed: int
    ) -> tuple[Labelled, Labelled, Labelled]:
        """Training, validation and test part; with a test file of its own, none of the rest is tested with."""
        class_names(self.labels, self.where)  # one class alone is the greater mistake than too few of it
        train, held_out, tested = map(self.choose, split(self.labels, 0.0 if own_test else test, validation, seed))
        return train, held_out, own_test or tested


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first names, parted by commas."""
    shown = [shorten(name) for name in names[:most]]
    return ", ".join(shown) + (", …" if len(names) > most else "") if names else "nothing"


def shorten(text: str, limit: int = 40) -> str:
    """The beginning of a text, for messages."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def check_room(path: Path, size: int, what: str) -> None:
    """Raise DataError before `size` bytes are allocated that the machine lacks, or that such a file cannot hold.

    A few packed bytes may stand for any number of zeros.
    """
    there, packed = memory(), path.stat().st_size
    if there is not None and size > there:
        raise DataError(f"{path}: the header promises {what}, which do not fit in memory; is the file damaged?")
    if size > LARGE and size > EXPANDS * packed:
        raise DataError(
            f"{path}: the header promises {what}, in a file of {packed:,} bytes; is it damaged? If not, save it uncompressed"
        )


def visible(text: str) -> str:
    """A text as it is seen: letters composed (Unicode NFC), without characters that are not shown, such as U+FE0F.

    The zero-width space parts words, so that it becomes a space; joiners stay.
    """
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", _IGNORABLE.sub("", text.replace("\u200b", " ")))


def number(text: str) -> float:
    """A number as tables mean it: the digits 0 to 9, a point, an exponent; not Python's 1_000.

    Raises:
        ValueError: it is none.
    """
    text = text.strip()
    if "_" in text or not text.isascii():
        raise ValueError(f"no number: {text!r}")
    return float(text)


def refuse_surrogates(text: str, what: str, error: type[DataError] | type[InputError] = DataError) -> None:
    """Raise `error` where a text holds half of a character, which cannot be printed, drawn, or written to a file."""
    try:
        text.encode()
    except UnicodeEncodeError as problem:
        half = ascii(text[problem.start])[1:-1]
        raise error(f"{what} holds {half}, which is half of a character; expected text that UTF-8 can hold") from None


def label_text(value: Any, what: str) -> str:
    """A label as text, whatever it came as: 1 and 1.0 are "1", also as text, but 1.1 and 1.10 are two; true is "true".

    Args:
        what: the label, with its place; begins every message.

    Raises:
        DataError: there is none, or it is neither text nor a number.
    """
    if isinstance(value, bytes):  # NumPy's type S
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise DataError(f"{what} is {bytes(value)[:40]!r}, which is not UTF-8; expected text or a number") from None
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, int | np.integer) or (isinstance(value, float | np.floating) and float(value).is_integer()):
        return str(int(value))
    if value is not None and not isinstance(value, str | float | np.floating):
        raise DataError(f"{what} is of type {type(value).__name__}; expected text or a number")
    text = _canonical(str(value))
    if value is None or not text or (not isinstance(value, str) and math.isnan(value)):
        raise DataError(f"{what} is missing; expected text or a number, got {value!r}")
    refuse_surrogates(text, what)
    return text


@lru_cache(1 << 12)  # long tables repeat them in every line
def _canonical(text: str) -> str:
    text = visible(text).strip().strip("\u200c\u200d").strip()
    whole = _WHOLE_NUMBER.fullmatch(text)
    return text if whole is None else "0" if whole[1] == "-0" else whole[1]


def id_text(text: str, what: str) -> str:
    """What a series is told by: the text as it is written, but for blanks around it; 1, 1.0 and 01 are three.

    Raises:
        DataError: there is none; `what` begins the message.
    """
    if not visible(text).strip():
        raise DataError(f"{what} is missing; expected text or a number, got {text!r}")
    return text.strip()


def class_names(labels: Sequence[str], where: Path) -> tuple[str, ...]:
    """All labels that occur, in order: by value where all are numbers, else by alphabet.

    Raises:
        DataError: there is one class only, or the labels look like no classes at all.
    """
    names = set(labels)
    if len(names) < 2:
        only = shorten(next(iter(names), "none"))
        raise DataError(f"all {len(labels)} sequences of {where} have the label {only!r}; expected two classes or more")
    ordered, numbers = sorted(names), False
    # The text "nan" is a float, but one without a place in any order: what came out would hang on the set's order.
    with suppress(ValueError):
        if all(math.isfinite(number(name)) for name in ordered):
            ordered.sort(key=number)
            numbers = True
    scattered = 2 * len(names) > len(labels) or (numbers and not all(number(name).is_integer() for name in ordered))
    if len(names) > MOST_CLASSES and scattered:
        found = f"the {len(labels):,} labels of {where} are {len(names):,} different"
        if numbers:
            raise DataError(
                f"{found} numbers, which looks like regression; expected a few classes: put the numbers into groups, or "
                "name another column with --label-column"
            )
        raise DataError(
            f"{found} texts, such as {shorten(ordered[0])!r}; expected a few classes: name the column that holds them "
            "with --label-column"
        )
    return tuple(ordered)


def classes(labels: Sequence[str], names: tuple[str, ...], places: Sequence[str]) -> list[int]:
    """The class of each label, as its position in `names`; `places` say where each label was read.

    Raises:
        DataError: a label is none of the training part's.
    """
    numbers = {name: k for k, name in enumerate(names)}
    for k, name in enumerate(names):  # runs of version 0.1 may have a class "1.0"
        numbers.setdefault(_canonical(name), k)
    for label, place in zip(labels, places, strict=True):
        if label not in numbers:
            known = listed(names, 10)
            raise DataError(f"{place}: label {shorten(label)!r} does not occur in the training part, which has {known}")
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
    tested = amount_of("test", test, total)
    held_out = amount_of("validation", validation, total - tested)
    sizes, ranks = Counter(labels), Counter[str]()
    place: dict[int, float] = {}
    for i in np.random.default_rng(seed).permutation(total).tolist():
        place[i] = (ranks[labels[i]] + 0.5) / sizes[labels[i]]
        ranks[labels[i]] += 1
    order = sorted(place, key=place.__getitem__)  # stable: ties stay in the order drawn
    ends = tested, tested + held_out
    return sorted(order[ends[1] :]), sorted(order[ends[0] : ends[1]]), sorted(order[: ends[0]])


def amount_of(name: str, amount: float, total: int) -> int:
    count = round(amount * total) if amount < 1 else round(amount)
    if amount and not 0 < count < total:
        raise DataError(
            f"{name} = {amount:g} of {total} sequences leaves nothing on one side; choose another {name}, or none of it: "
            f"--{name} 0" + (" (and --patience none)" if name == "validation" else "")
        )
    return count
