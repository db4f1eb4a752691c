"""What the files of a run folder must hold, checked where they are read: nothing in them is believed.

Whatever is wrong with a file is a RunError of one line. Fields are checked as those of recipes are, with pydantic.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from unroll.data import batches
from unroll.data.batches import Dataset, Encoder
from unroll.data.images import ImageEncoder
from unroll.data.parts import refuse_surrogates
from unroll.data.series import SeriesEncoder
from unroll.errors import InputError, RunError
from unroll.training.recipe import TITLES, AnyRecipe, ImageRecipe, saved_recipe, value_text
from unroll.training.tasks import ENCODERS

MODEL_FORMAT = "unroll-1"
AGAIN = "train the run again"
LARGEST = 100_000_000  # words of a vocabulary, pixels of a row: what is larger is a damaged number

Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """A number is no text, and text no number; every field is known."""

    model_config = ConfigDict(strict=True, extra="forbid", defer_build=True)  # no run needs all of them


class Model(Strict):
    """The metadata of model.safetensors.

    Attributes:
        cells: of a cell of one's own by layer and direction what `unroll.equations.cell.ProgramCell.to_data` gives, or why
            there is none; empty for the cells of this package.
    """

    format: str
    recipe: dict[str, Any]
    task: str
    encoder: dict[str, Any]
    cells: list[list[Any]] | str = Field(default=[])


class Position(Strict):
    """Where to go on: the metadata of resume.safetensors.

    Attributes:
        log, history: how long log.txt and history.jsonl were, in bytes.
        threads: sums are the same to the bit only with as many.
        recipe, data: what the training began with, see `difference` and `fingerprints`.
        callbacks: what each callback with a name had to say.
    """

    epoch: Annotated[int, Field(ge=1)]
    seconds: Seconds
    log: Count
    history: Count
    threads: Annotated[int, Field(ge=1, le=1024)]
    recipe: dict[str, Any]
    data: dict[str, str]
    callbacks: dict[str, dict[str, Any]]


class Epoch(Strict):
    """A line of history.jsonl."""

    model_config = ConfigDict(extra="allow")

    epoch: Count
    loss: Finite
    learning_rate: Finite
    gradient_norm: float
    steps: list[tuple[Count, Finite]]
    seconds: Seconds
    validation_loss: float = Field(default=0.0)
    validation_accuracy: Share = Field(default=0.0)


class Score(Strict):
    """How many sequences of a class, and how many of them were read correctly."""

    correct: Count
    total: Count
    accuracy: Share | None


class Tested(Strict):
    """What a head measured on one part of the data."""

    accuracy: Share
    interval95: tuple[Share, Share]
    correct: Count
    total: Annotated[int, Field(ge=1)]
    loss: float
    per_class: dict[str, Score]
    confusion: list[list[Count]]

    @model_validator(mode="after")
    def _one_row_a_class(self) -> Self:
        if {len(self.confusion), *map(len, self.confusion)} != {len(self.per_class)}:
            raise ValueError("a row and a column of confusion for each class")
        return self


class Times(Strict):
    model_config = ConfigDict(extra="allow")

    __pydantic_extra__: dict[str, Seconds]
    training: Seconds


class Metrics(Strict):
    """metrics.json."""

    model_config = ConfigDict(extra="allow")

    parameters: Count
    training_sequences: Annotated[int, Field(ge=1)]
    epochs: Count
    seconds: Times
    validation: Tested = Field(default=None)  # type: ignore[assignment]  # may be left out, but not null
    test: Tested = Field(default=None)  # type: ignore[assignment]


Kind = TypeVar("Kind", bound=BaseModel)


def checked(kind: type[Kind], found: Any, where: object, part: str = "") -> Kind:
    """`found`, values or the text of JSON, as a `kind`; `where` it was read, and in which part, begins the message.

    Raises:
        RunError: it is none.
    """
    try:
        return kind.model_validate_json(found) if isinstance(found, str) else kind.model_validate(found)
    except ValidationError as error:
        raise damaged(where, error, part) from None


def damaged(where: object, error: ValidationError, part: str = "") -> RunError:
    """The first of pydantic's complaints, as one line."""
    first = error.errors(include_url=False)[0]
    field = ".".join(str(part)[:40] for part in first["loc"])
    if first["type"] == "missing":
        problem = f"{field} is missing"
    elif first["type"] == "extra_forbidden":
        problem = f"{field} is no entry that this version knows"
    elif first["type"] == "json_invalid":
        problem = f"it is no JSON ({first['ctx']['error']})"
    else:
        expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        problem = f"{field or 'it'} is {reprlib.repr(first['input'])}; expected {expected}"
    return RunError(f"{where} is damaged: {part}{problem}; {AGAIN}")


def checked_history(text: str, path: Path) -> list[dict[str, Any]]:
    """The rows of history.jsonl.

    Raises:
        RunError: a line is damaged, cut, missing or there twice.
    """
    *lines, rest = text.split("\n")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        row = checked(Epoch, line, path, f"line {number}: ")
        if row.epoch != number:
            raise RunError(f"{path} is damaged: line {number} is of epoch {row.epoch}, expected {number}; {AGAIN}")
        rows.append(json.loads(line))
    if rest:
        raise RunError(
            f"{path} is damaged: line {len(lines) + 1} is cut off; go on with: unroll train --resume {path.parent}"
        )
    return rows


def checked_predictions(saved: dict[str, NDArray[Any]], path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of predictions.npz, as `unroll.training.evaluate.write_predictions` describes them.

    Raises:
        RunError: one is missing, or they do not fit each other.
    """
    dimensions = {"p": 2, "y": 1, "one_of_each": 1, "mistakes": 1, "shown_values": None, "shown_lengths": 1}
    for name, expected in dimensions.items():
        if name not in saved:
            raise RunError(f"{path} is damaged: it holds no {name}; {AGAIN}")
        array = np.asarray(saved[name])  # np.load gives the bytes of what is no array
        kinds = "f" if name == "p" else "iuf" if name == "shown_values" else "iu"
        if array.dtype.kind not in kinds or array.ndim != (expected or max(2, array.ndim)):
            raise RunError(f"{path} is damaged: {name} has shape {array.shape} of {array.dtype}; {AGAIN}")
    N, C = saved["p"].shape
    shown = saved["shown_values"]
    for name, below in (("y", C), ("one_of_each", N), ("mistakes", N), ("shown_lengths", shown.shape[1] + 1)):
        if saved[name].size and not 0 <= saved[name].min() <= saved[name].max() < below:
            raise RunError(f"{path} is damaged: {name} goes beyond {below - 1}; {AGAIN}")
    if len(saved["y"]) != N or not np.isfinite(saved["p"]).all():
        raise RunError(f"{path} is damaged: p is not one row of probabilities for each of y; {AGAIN}")
    if not len(shown) == len(saved["shown_lengths"]) == len(saved["one_of_each"]) + len(saved["mistakes"]):
        raise RunError(f"{path} is damaged: it does not hold the sequences that it shows; {AGAIN}")
    return saved


def checked_encoder(recipe: AnyRecipe, saved: dict[str, Any], where: Path) -> Encoder:
    """The encoder of a recipe's data from its JSON.

    Raises:
        RunError: a field is missing, of another type, or does not fit the others.
    """
    if isinstance(recipe, ImageRecipe) and "pictures" not in saved:  # version 0.1 read all pictures as digits
        saved = {**saved, "pictures": "digits" if recipe.data is None else "plain"}
    try:
        encoder: Encoder = ENCODERS[recipe.task].from_json(saved)
    except ValidationError as error:
        raise damaged(where, error, "encoder.") from None
    for name in ("lowercase", "max_length", "word_dropout", "fill_missing"):
        if getattr(encoder, name, None) != getattr(recipe, name, None):
            raise RunError(f"{where} is damaged: the encoder's {name} is not that of the recipe; {AGAIN}")
    lists = {name: value for name, value in vars(encoder).items() if isinstance(value, tuple)}
    for name, values in lists.items():
        for text in values:
            if isinstance(text, str):
                refuse_surrogates(text, f"{where}: {name}", InputError)
        if isinstance(values[0] if values else None, str) and len(set(values)) < len(values):
            raise RunError(f"{where} is damaged: the encoder's {name} holds the same text twice; {AGAIN}")
    sizes: Sequence[int] = (encoder.input_size,)
    scales: Sequence[float] = ()
    if isinstance(encoder, ImageEncoder):
        sizes, scales = (encoder.rows, encoder.columns), (encoder.std,)
    elif isinstance(encoder, SeriesEncoder):
        scales = encoder.deviation
        if not len(encoder.mean) == len(encoder.deviation) == len(encoder.feature_names):
            raise RunError(f"{where} is damaged: the encoder's mean, deviation and features differ in number; {AGAIN}")
    if len(encoder.class_names) < 2 or not all(0 < n <= LARGEST for n in sizes) or not all(n > 0 for n in scales):
        raise RunError(f"{where} is damaged: its encoder has a size or a scale that none can have; {AGAIN}")
    return encoder


def checked_recipe(fields: dict[str, Any], where: Path) -> AnyRecipe:
    """The recipe in the metadata of a file.

    Raises:
        RunError: it has no task.
        RecipeError: a field or a value is none of a recipe.
    """
    if not isinstance(fields.get("task"), str):
        raise RunError(f"{where} is damaged: the task of its recipe is {reprlib.repr(fields.get('task'))}; {AGAIN}")
    return saved_recipe(fields, str(where))


def check_architecture(path: Path, found: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]]) -> None:
    """Raise RunError unless both hold the same names and shapes."""
    for name in sorted(found.keys() | expected.keys()):
        there, wanted = found.get(name, "absent"), expected.get(name, "absent")
        if there != wanted:
            raise RunError(
                f"{path} belongs to another architecture: {name} is {there} there, but the recipe makes it {wanted}"
            )


# ------------------------------------------------------------------------------------------ what a training began with


def difference(one: AnyRecipe, two: AnyRecipe, says: str) -> str | None:
    """The first field in which two recipes differ, put into `says` as {0}, {1} and {2}: name and both values.

    None where they are the same in all that matters: what a recipe is called does not, nor where its data lie, because what
    the data are is told by their fingerprints.
    """
    before, after = one.model_dump(), two.model_dump()
    outside = (*TITLES, "data", "test_data")
    names = [name for name in {**before, **after} if name not in outside]
    differing = [name for name in names if before.get(name) != after.get(name)]
    if not differing:
        return None
    text = says.format(differing[0], *(value_text(fields.get(differing[0])) for fields in (before, after)))
    return text + (f" ; {len(differing) - 1} more fields have changed" if len(differing) > 1 else "")


def fingerprint(*parts: batches.Sequences | None) -> str:
    """SHA-256 of sequences, so that they are known to be the same wherever they lie; parts that are None say nothing."""
    digest = hashlib.sha256()
    for part in parts:
        for tensor in (part.values, part.y, part.lengths) if part is not None else ():
            if tensor is not None:
                digest.update(tensor.contiguous().numpy().reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def fingerprints(dataset: Dataset) -> dict[str, str]:
    """One for each part of the data, and one for the names of classes, features or words: 0.03 s for MNIST."""
    names = [value for value in dataset.encoder.to_json().values() if isinstance(value, list)]
    text = json.dumps([found for found in names if found and isinstance(found[0], str)])
    return {
        "the names of the classes, features or words": hashlib.sha256(text.encode()).hexdigest(),
        "the training data": fingerprint(dataset.train),
        "the validation data": fingerprint(dataset.validation),
        "the test data": fingerprint(dataset.test),
    }
