"""What several commands share: options for the fields of recipes, for files and folders, and progress bars."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import click

from unroll.errors import InputError
from unroll.streams import on_terminal

if TYPE_CHECKING:
    from unroll.training.recipe import AnyRecipe


class RecipeCommand(click.Command):
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
        if value is not None and not value.strip():  # an unset variable of a shell is not the same as no option
            raise InputError(f"{name} is empty; expected a name, or leave the option out")
        return None if value is None else Path(value)

    return click.option(name, default=default, metavar=metavar, help=text, callback=path)


def made_folder(path: Path) -> Path:
    """The folder at `path`, made where there is none."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{path} cannot be a folder: a file stands in the way; name another with --out") from None
    return path


def progress(unit: str, **settings: Any) -> Callable[..., Any]:
    """A maker of progress bars on stderr, which are shown in a terminal and leave nothing behind."""
    from tqdm import tqdm

    return partial(tqdm, unit=f" {unit}", leave=False, disable=not on_terminal(), **settings)


def with_places(recipe: AnyRecipe) -> AnyRecipe:
    """The recipe with absolute paths, so that its data are found again from any other folder."""
    places = {name: getattr(recipe, name, None) for name in ("data", "test_data")}
    return recipe.model_copy(update={k: str(Path(v).resolve()) for k, v in places.items() if v is not None})


def given_fields(options: dict[str, str | None]) -> dict[str, Any]:
    """The fields that the command line gave, as values."""
    from unroll.training.recipe import field_value

    return {name: field_value(text) for name, text in options.items() if text is not None}


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
