"""Recipes: everything that a training run depends on, as data.

A recipe is a YAML file. Its `task` says what is classified; the fields are those of the task's class below. Any field
can be replaced on the command line. The recipes that come with the package are in `unroll/recipes`. A
recipe's file may also hold a `space`, between which values of the fields to search: see `unroll.tuning.space`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from unroll.cells import CELLS
from unroll.cells.own import EXPECTED, is_own
from unroll.errors import RecipeError, check_digits, nearest, quoted
from unroll.files import NAME_RULE, is_name, name_from
from unroll.training import DeviceName
from unroll.yaml_files import plain_value, read_yaml

RECIPES = Path(__file__).parent.parent / "recipes"

Positive = Annotated[int, Field(ge=1, le=1_000_000_000)]
Size = Annotated[int, Field(ge=1, le=1_000_000)]  # the numbers of a matrix shall be countable
Share = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
NoneByName = BeforeValidator(lambda value: "none" if value is None else value)  # the command line's none is no value
Column = Annotated[str, Field(coerce_numbers_to_str=True)]


def _parted(names: Any) -> Any:
    """Names as the command line gives them: parted by commas."""
    found = [name.strip() for name in names.split(",") if name.strip()] if isinstance(names, str) else names
    if not found and isinstance(found, list | tuple | dict):
        raise ValueError("names of columns, parted by commas")  # pydantic says it
    return [found] if isinstance(found, int | float) else found


Columns = Annotated[tuple[Column, ...], BeforeValidator(_parted)]


def _name(value: str) -> str:
    if not is_name(value):
        raise ValueError(NAME_RULE)  # pydantic says it
    return value


Name = Annotated[str, AfterValidator(_name)]


def _cell(value: str) -> str:
    if value not in CELLS and not is_own(value):
        raise ValueError(f"{', '.join(map(repr, CELLS))} or {EXPECTED}")  # pydantic says it
    return value


class Recipe(BaseModel):
    """What all tasks share."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    name: Name = Field("unnamed", description="name of the recipe")
    about: str = Field("", description="one line: what it is for")
    task: str

    cell: Annotated[str, AfterValidator(_cell)] = Field(
        "lstm", description=f"kind of cell: {', '.join(CELLS)}, or a class of your own, {EXPECTED}"
    )
    nonlinearity: Literal["tanh", "relu"] = Field("tanh", description="of the vanilla RNN")
    hidden_size: Size = Field(128, description="hidden units H in each layer and direction")
    num_layers: Annotated[int, Field(ge=1, le=1000)] = Field(1, description="layers on top of each other")
    bidirectional: bool = Field(False, description="read the sequence in both directions")
    dropout: Share = Field(0.0, description="share of values dropped between layers and before the readout")
    pooling: Literal["last", "mean", "max"] = Field(
        "last", description="what the readout reads: h_T, or h_t pooled over t"
    )
    initialisation: Literal["uniform", "linear", "normal", "orthogonal"] = Field(
        "orthogonal", description="first values of the weights"
    )
    forget_bias: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None, description="first value of the forget gate's bias; none: as initialisation says"
    )

    optimizer: Literal["sgd", "adam", "adamw"] = Field("adamw", description="update rule")
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(1e-3, description="(peak) learning rate")
    momentum: Share = Field(0.0, description="of SGD")
    nesterov: bool = Field(False, description="Nesterov's momentum in SGD")
    weight_decay: NotNegative = Field(0.0, description="weight decay")
    schedule: Literal["constant", "one_cycle", "cosine"] = Field("constant", description="learning rate over time")
    max_norm: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, description="clip the gradient to this norm; none: no clipping"
    )
    label_smoothing: Share = Field(0.0, description="share of the target spread over all classes")
    weight_average: Share | None = Field(None, description="decay of the weights' moving average; none: no averaging")

    batch_size: Positive = Field(64, description="sequences in a batch")
    epochs: Positive = Field(5, description="passes over the training data")
    shuffle: bool = Field(True, description="draw a new order every epoch")
    validation: NotNegative = Field(
        0.0, description="training sequences held out for choosing: a share (below 1) or a number; 0: none"
    )
    patience: Positive | None = Field(
        None, description="stop after so many epochs without a better held-out loss, keep the best; none: never"
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="seed of everything random")
    engine: Literal["auto", "native", "reference"] = Field("auto", description="compute engine")
    device: DeviceName = Field("auto", description="where tensors are; auto: a GPU if any")
    log: Literal["steps", "epochs"] = Field("steps", description="print losses within epochs, or of some epochs only")
    log_every: Positive = Field(100, description="steps (or epochs) between printed losses")

    data: str | None = Field(None, description="where the data is; none: what the package brings")


class ImageRecipe(Recipe):
    """Pictures read row by row: T rows of D pixels."""

    task: Literal["images"] = "images"
    standardise: bool = Field(
        True, description="scale pixels to mean 0 and deviation 1 over the training part; else to 0..1"
    )
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(
        0.0, description="augmentation: at most so many degrees to either side"
    )
    scaling: Share = Field(0.0, description="augmentation: at most this share larger or smaller")
    shear: Annotated[float, Field(ge=0, lt=90)] = Field(
        0.0, description="augmentation: at most so many degrees of slant to either side"
    )
    translation: NotNegative = Field(0.0, description="augmentation: at most so many pixels in either direction")
    elastic: NotNegative = Field(0.0, description="augmentation: elastic displacement in pixels")
    pictures: Literal["auto", "digits", "plain"] = Field(
        "auto", description="picture files to predict: centred as MNIST's, or as they are; auto: as the data are"
    )
    plain_epochs: Annotated[int, Field(ge=0, le=1_000_000_000)] = Field(
        0, description="last epochs that run without augmentation"
    )


class SentenceRecipe(Recipe):
    """Sentences read word by word."""

    task: Literal["sentences"] = "sentences"
    test_data: str | None = Field(None, description="a file of its own for testing")
    test: NotNegative = Field(
        0.0, description="where there is no test_data: sequences split off for testing, share or number"
    )
    text_column: Column = Field(
        "text", description="column of the sentence: a name, or a number where there is no header"
    )
    label_column: Column = Field(
        "label", description="column of the label: a name, or a number where there is no header"
    )
    lowercase: bool = Field(True, description="read The and the as one word")
    min_count: Positive = Field(1, description="times a word must occur in the training part to get an entry")
    max_vocabulary: Positive | None = Field(None, description="keep only so many of the most frequent words")
    max_length: Positive | None = Field(None, description="read only so many words of a sentence")
    embedding_size: Size | None = Field(None, description="learn a vector of this size for each word; none: one-hot")
    word_dropout: Share = Field(0.0, description="share of words replaced by the unknown word in training")
    class_weights: Annotated[Literal["none", "balanced"], NoneByName] = Field(
        "none", description="weigh classes by how rare they are"
    )


class SeriesRecipe(Recipe):
    """Series of measurements: T steps of D features."""

    task: Literal["series"] = "series"
    test_data: str | None = Field(None, description="a file of its own for testing")
    test: NotNegative = Field(
        0.0, description="where there is no test_data: sequences split off for testing, share or number"
    )
    id_column: str = Field("id", description="of a long CSV: column that says which series a line belongs to")
    time_column: str = Field("time", description="of a long CSV: column that orders the lines of a series")
    label_column: str = Field("label", description="of a long CSV: column that holds the series' label")
    features: Columns | None = Field(
        None, description="columns to read as features, parted by commas; none: all others"
    )
    ignore: Columns | None = Field(None, description="columns not to read as features, parted by commas")
    fill_missing: Annotated[Literal["none", "zero", "last", "mean"], NoneByName] = Field(
        "none", description="what takes the place of missing values"
    )
    class_weights: Annotated[Literal["none", "balanced"], NoneByName] = Field(
        "none", description="weigh classes by how rare they are"
    )


AnyRecipe = ImageRecipe | SentenceRecipe | SeriesRecipe
# What is no hyperparameter: how a recipe is called; what makes no difference to what is learnt, or is drawn anew anyway;
# and what it is about.
TITLES = ("name", "about")
INDIFFERENT = ("seed", "engine", "device", "log", "log_every", "pictures")
DATA = ("data", "test_data", "test", "text_column", "label_column", "id_column", "time_column", "features", "ignore")
KINDS: dict[str, type[AnyRecipe]] = {"images": ImageRecipe, "sentences": SentenceRecipe, "series": SeriesRecipe}
# Fields that hold text: a column 007 or a folder 2024 is no number.
TEXTS = {
    name
    for kind in KINDS.values()
    for name, field in kind.model_fields.items()
    if str in (a := field.annotation, *get_args(a))
}
EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]{1,4}")


def known_recipes() -> dict[str, Path]:
    """Name and file of every recipe that comes with the package."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.yaml"))}


def load_recipe(name: str, changes: dict[str, Any] | None = None) -> AnyRecipe:
    """A recipe by its name or its file, with some fields replaced.

    A change of what it is about, such as its size, leaves it without the file's `about`, which may no longer be true.

    Raises:
        RecipeError: there is no such recipe or field, or a value makes no sense.
    """
    fields, where = read_recipe(name)
    for other in ("ran_with", "space"):  # a run folder's recipe.yaml is a recipe too; a space is for unroll.tuning
        fields.pop(other, None)
    if set(changes or {}) - {*TITLES, *INDIFFERENT, *DATA}:
        fields["about"] = ""
    recipe = parse_recipe({**fields, **(changes or {})}, where)
    if isinstance(recipe, SentenceRecipe) and recipe.data is None and recipe.test != fields.get("test", 0):
        # The file's own is meant for data to come; one that is given now would be ignored.
        raise RecipeError(f"test is {recipe.test:g}, but there is no data; say where it is with --data FILE")
    return recipe


def read_recipe(name: str) -> tuple[dict[str, Any], str]:
    """What stands in a recipe's file, unchecked, and how to call it in messages.

    Raises:
        RecipeError: there is no such recipe, or the file is no YAML.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = known_recipes()
        if name not in known:
            raise RecipeError(f"unknown recipe {name!r}{nearest(name, known)}")
        path = known[name]
    fields = read_yaml(path, "recipe file", RecipeError)
    return {"name": name_from(path.stem), **fields}, str(path) if path.parent != RECIPES else name


def parse_recipe(fields: dict[str, Any], where: str) -> AnyRecipe:
    """Fields -> recipe; `where` they come from begins every error message."""
    task = fields.get("task")
    if not isinstance(task, str) or task not in KINDS:
        raise RecipeError(f"recipe {where}: task is {quoted(task)}; expected one of {', '.join(KINDS)}")
    kind = KINDS[task]
    for field in fields:
        if field not in kind.model_fields:
            raise RecipeError(
                f"recipe {where}: {task} have no field {quoted(field)}{nearest(str(field), kind.model_fields)}"
            )
    try:
        recipe = kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = str(first["loc"][0])
        expected = first["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
        raise RecipeError(f"recipe {where}: {field} is {quoted(first['input'])}; expected {expected}") from None
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        raise RecipeError(f"recipe {where}: a number is too large to write; expected a smaller one") from None
    for field, given in fields.items():
        if isinstance(given, str) and isinstance(getattr(recipe, field), int | float):
            check_digits(given, f"recipe {where}: {field}", RecipeError)
    for field in TEXTS - {"about"}:
        if str(getattr(recipe, field, "absent")).strip() == "":
            raise RecipeError(f"recipe {where}: {field} is empty; expected text")
    if recipe.optimizer == "sgd" and recipe.nesterov and not recipe.momentum:
        raise RecipeError(
            f"recipe {where}: nesterov is true and momentum is 0; expected a momentum above 0, such as 0.9"
        )
    if recipe.patience is not None and not recipe.validation:
        raise RecipeError(
            f"recipe {where}: patience is {recipe.patience}, but nothing is held out to be patient about; "
            "set validation, such as 0.1, or patience to none"
        )
    return recipe


def saved_recipe(fields: dict[str, Any], where: str) -> AnyRecipe:
    """The recipe of a run, which an older version may have given any name."""
    name = fields.get("name")
    return parse_recipe({**fields, "name": name_from(name)} if isinstance(name, str) else fields, where)


def value_text(value: Any) -> str:
    """A field's value as the command line takes it.

    >>> value_text(None), value_text(True), value_text(6e-5), value_text("adamw")
    ('none', 'true', '6e-05', 'adamw')
    """
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else f"{value}"


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML text that `load_recipe` reads back."""
    return yaml.safe_dump(recipe.model_dump(), sort_keys=False, allow_unicode=True, width=110)


def field_value(text: str, field: str = "") -> Any:
    """An option's text as the value of a field that YAML would read; 'none' is no value.

    >>> field_value("1e-3"), field_value("007", "text_column"), field_value("none"), field_value("2024-01-31")
    (0.001, '007', None, '2024-01-31')
    """
    if text.lower() == "none":
        return "none" if text != text.lower() else None
    if field in TEXTS:
        return text
    value = plain_value(text)
    if isinstance(value, str) and EXPONENT.fullmatch(value):
        return float(value)  # 1e-3 is a number to a person, but text to YAML
    return text if value is None else value
