"""What several commands share: options for the fields of recipes, for files and folders, and progress bars."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import click

from unroll.cells.own import is_own, own_parts
from unroll.errors import InputError, check_digits
from unroll.terminal import is_terminal, say

if TYPE_CHECKING:
    from unroll.training.recipe import AnyRecipe

SEEDS = click.IntRange(max=1000)  # each command says how many it needs at least
NUMBERS = type(click.INT), type(click.FLOAT)  # with and without a range
SECONDS_BETWEEN_LINES = 20  # of progress, where stderr is no terminal


class Command(click.Command):
    """A command whose options are given once, but for those that may be given often, and hold something."""

    def make_parser(self, ctx: click.Context) -> Any:
        parser = super().make_parser(ctx)
        parse = parser.parse_args

        def parse_once(args: list[str]) -> Any:
            values, rest, order = parse(args)
            for option in order:
                if isinstance(option, click.Option) and not option.multiple and order.count(option) > 1:
                    raise InputError(f"{option.opts[0]} is given {order.count(option)} times; expected once")
            parameters = {p.name: p for p in self.get_params(ctx)}
            for name, value in values.items():
                called = parameters[name].opts[0]
                for text in value if isinstance(value, list | tuple) else [value]:
                    if isinstance(text, str) and not text.strip():
                        # An unset variable of a shell is not the same as no option, or as the folder that one is in.
                        raise InputError(f"{called} is empty; expected a value, or leave it out")
                    if isinstance(text, str) and isinstance(parameters[name].type, NUMBERS):
                        check_digits(text, called, InputError)
            return values, rest, order

        parser.parse_args = parse_once  # type: ignore[method-assign]
        return parser


class RecipeCommand(Command):
    """A command with one option for every field of every recipe; made when it is first used."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        from unroll.training.recipe import KINDS

        known = {parameter.name for parameter in self.params}
        for kind in KINDS.values():
            for name, field in kind.model_fields.items():
                if name not in known and name not in ("name", "about", "task"):
                    known.add(name)
                    option = f"--{name.replace('_', '-')}"
                    self.params.append(
                        click.Option([option, name], metavar=_metavar(field.annotation), help=field.description)
                    )
        return super().get_params(ctx)


def output(text: str, metavar: str = "FOLDER", name: str = "--out", default: str | None = None) -> Callable[[Any], Any]:
    """An option that names the folder or file that a command writes to; the command gets a Path."""

    def path(context: click.Context, option: click.Parameter, value: str | None) -> Path | None:
        return None if value is None else Path(value)

    return click.option(name, default=default, metavar=metavar, help=text, callback=path)


def progress(unit: str, **settings: Any) -> Callable[..., Any]:
    """A maker of progress bars on stderr, which leave nothing behind; without a terminal a line now and then."""
    from tqdm import tqdm

    class Lines(tqdm):  # type: ignore[type-arg]
        """A line in the place of the bar, where the last one is long ago."""

        def __init__(self, *arguments: Any, **given: Any) -> None:
            self.written_at = time.monotonic()
            super().__init__(*arguments, **given)

        def display(self, msg: str | None = None, pos: int | None = None) -> None:
            if msg is None and time.monotonic() - self.written_at >= SECONDS_BETWEEN_LINES:
                self.written_at = time.monotonic()
                best = f", {self.postfix}" if self.postfix else ""
                say(f"unroll: {self.n} of {self.total} {unit}{best}", error=True)

    if is_terminal(sys.stderr):
        return partial(tqdm, unit=f" {unit}", leave=False, **settings)
    return partial(Lines, unit=f" {unit}", leave=False, file=io.StringIO(), mininterval=0, miniters=1, **settings)


def with_places(recipe: AnyRecipe) -> AnyRecipe:
    """The recipe with absolute paths, so that its data and its cell are found again from any other folder."""
    places = {name: getattr(recipe, name, None) for name in ("data", "test_data")}
    found = {k: str(Path(v).resolve()) for k, v in places.items() if v is not None}
    if is_own(recipe.cell):
        file, name = own_parts(recipe.cell)
        found["cell"] = f"{file.resolve()}:{name}"
    return recipe.model_copy(update=found)


def given_fields(options: dict[str, str | None]) -> dict[str, Any]:
    """The fields that the command line gave, as values."""
    from unroll.training.recipe import field_value

    return {name: field_value(text, name) for name, text in options.items() if text is not None}


def _metavar(annotation: Any) -> str:
    """What the help shows for a field's value: its choices, or what kind of value it is."""
    from types import NoneType

    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) is Literal:
        return "|".join(map(str, get_args(annotation)))
    kinds = {bool: "true|false", int: "N", float: "X", str: "TEXT", NoneType: "none"}
    if get_origin(annotation) is tuple:
        return "NAME,…"
    if annotation in kinds:
        return kinds[annotation]
    return "|".join(_metavar(part) for part in get_args(annotation))
