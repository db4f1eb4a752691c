"""The commands that choose between recipes: tune, effects."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unroll.errors import InputError, UnrollError, quoted
from unroll.files import NAME_RULE, is_name
from unroll.options import SEEDS, Command, RecipeCommand, given_fields, output, progress, with_places
from unroll.terminal import say

if TYPE_CHECKING:
    from unroll.training.recipe import AnyRecipe


@click.command(cls=RecipeCommand, short_help="Search for better hyperparameters.")
@click.argument("recipe")
@click.option(
    "--trials", type=click.IntRange(1, 1_000_000), default=40, metavar="N", help="trials in all; 40 if left out"
)
@click.option(
    "--space",
    multiple=True,
    metavar="FIELD=VALUES",
    help="search these values: low..high, 'low..high log', 'low..high step s', or a,b,c; may be given often",
)
@click.option("--workers", type=click.IntRange(1, 1000), default=1, metavar="N", help="processes on this machine")
@click.option(
    "--storage",
    metavar="URL",
    help="postgresql://… to share the study with other machines; the password may be in PGPASSWORD",
)
@output("the study's folder and name; tuning/RECIPE if left out")
def tune(
    recipe: str,
    trials: int,
    space: tuple[str, ...],
    workers: int,
    storage: str | None,
    out: Path | None,
    **fields: str | None,
) -> None:
    """Search for the values of the RECIPE's space that do best on held-out training sequences.

    The test set is never looked at. A field given as an option, such as --epochs 3, has that value in every trial. The
    same command goes on with a study that was interrupted, and with more --trials extends it.
    """
    from unroll.files import made_folder, refuse_foreign, remove_stale
    from unroll.report.figures import figure_files
    from unroll.report.study import FIGURES, draw_study
    from unroll.training.recipe import load_recipe, read_recipe
    from unroll.tuning.space import read_space
    from unroll.tuning.study import (
        HELD_OUT,
        Plan,
        hide_in_process_list,
        storage_url,
        summary,
        text_summary,
        write_results,
    )
    from unroll.tuning.study import tune as run_search

    if storage is not None:
        hide_in_process_list(storage)
    changes = given_fields(fields)
    # The recipe's own: a --validation is about the search.
    own_validation = load_recipe(recipe).validation
    changes.setdefault("validation", own_validation or HELD_OUT)
    base = load_recipe(recipe, changes)
    searched = read_space(read_recipe(recipe)[0].get("space"), base, list(space), set(changes), recipe)
    folder = out or Path("tuning") / base.name
    if not is_name(f"{folder.name}-best"):  # of the study, and of the recipe that comes out of it
        raise InputError(
            f"the study would be called {quoted(folder.name)}, like its folder; expected {NAME_RULE}; choose it with --out"
        )
    from unroll.training.train import prepare

    prepare(base)  # bad data shall be found before anything is made
    base = with_places(base)
    url = storage_url(storage, folder)
    made_folder(folder)
    drawn = [file for name in FIGURES for file in figure_files(folder / name)]
    refuse_foreign(folder / "trials.json", folder / "best.yaml", *drawn)
    remove_stale(folder)
    plan = Plan(
        url, folder.name, base.model_dump(), {name: values.written for name, values in searched.items()}, trials
    )

    try:
        study = run_search(plan, workers, progress("trials", dynamic_ncols=True))
        found = summary(study, plan)
        best = write_results(folder, found, own_validation)
        figures = draw_study(found, folder)
    except UnrollError:
        with suppress(OSError):
            folder.rmdir()  # only an empty one goes: nothing came of this search
        raise
    except KeyboardInterrupt:
        say("interrupted; the same command goes on", error=True)
        sys.exit(130)
    say(*text_summary(found))
    for path in figures:
        say(f"Figure: {path}")
    say(f"Best recipe: {best}")


@click.command(cls=Command, short_help="Measure what each change from one recipe to another is worth.")
@click.argument("first")
@click.argument("second")
@click.option("--seeds", type=SEEDS, default=5, metavar="N", help="trainings of each recipe; 5 if left out")
@output("tables and figure; effects/FIRST-to-SECOND if left out")
def effects(first: str, second: str, seeds: int, out: Path | None) -> None:
    """Measure what each change from the recipe FIRST to the recipe SECOND is worth in accuracy and in time.

    Each hyperparameter that differs is changed alone from FIRST, and undone alone from SECOND; everything is trained with
    the seeds 0 to N-1. What FOLDER already holds is not trained again.
    """
    from unroll.training.recipe import load_recipe

    # Before torch is imported: a misspelt name is answered at once.
    before, after = load_recipe(first), load_recipe(second)
    folder = out or Path("effects") / f"{before.name}-to-{after.name}"
    if before.name == after.name:
        before, after = before.model_copy(update={"name": first}), after.model_copy(update={"name": second})
    from unroll.files import refuse_foreign, write_atomically
    from unroll.report.effects import draw_effects, markdown, table_of, text_table
    from unroll.report.figures import figure_files, save_figure
    from unroll.training.trials import alone
    from unroll.tuning.effects import Study, load_tested, measure, plan, summarise, walk

    refuse_foreign(folder / "effects.md", *figure_files(folder / "effects"))
    way = walk(before, after)
    todo = plan(way, seeds)
    dataset = load_tested(way.first.model_copy(update={"seed": 0}))  # the seed may decide what is split off for testing
    load_tested(way.second)
    with alone(folder, "unroll effects"):
        study = Study(folder, way, dataset)
        del dataset  # every training reads its own
        words = [
            "unroll",
            "effects",
            first,
            second,
            "--seeds",
            str(seeds),
            *([] if out is None else ["--out", str(out)]),
        ]
        command = shlex.join(words)
        done = sum(study.trained(recipe) is not None for recipe in todo)
        if 0 < done < len(todo):
            say(f"{done} of {len(todo)} trainings are in {study.path} already", error=True)
        try:
            measure(way, study, seeds, _progress)
        except KeyboardInterrupt:
            say(f"interrupted; go on with: {command}", error=True)
            sys.exit(130)
        found = summarise(way, study, seeds)
        caption, rows = table_of(found)
        study.about |= {"seeds": seeds, "caption": caption, "rows": rows}  # which a report shows as a table
        study.save()
        write_atomically(folder / "effects.md", markdown(found, command, study.about["machine"]))
        png = save_figure(draw_effects(found), folder / "effects")
    say(*text_table(found))
    say(f"Table: {folder / 'effects.md'}")
    say(f"Figure: {png}")
    say(f"Numbers: {study.path}")


def _progress(todo: Sequence[AnyRecipe]) -> Iterable[AnyRecipe]:
    """A bar on stderr that says what is being trained."""
    with progress("trainings")(total=len(todo)) as bar:
        for recipe in todo:
            bar.set_description(f"seed {recipe.seed}: {recipe.name}")
            yield recipe
            bar.update()


COMMANDS = (tune, effects)
