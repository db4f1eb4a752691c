"""The commands that choose between recipes: effects."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from unroll.tuning.effects import Training

HELP = {"help_option_names": ["-h", "--help"]}


@click.command(short_help="Measure what each change from one recipe to another is worth.", context_settings=HELP)
@click.argument("first")
@click.argument("second")
@click.option("--seeds", type=int, default=5, metavar="N", help="trainings of each recipe; 5 if left out")
@click.option("--out", metavar="FOLDER", help="where to put tables and figure; effects/FIRST-to-SECOND if left out")
def effects(first: str, second: str, seeds: int, out: str | None) -> None:
    """Measure what each change from the recipe FIRST to the recipe SECOND is worth in accuracy and in time.

    Each hyperparameter that differs is changed alone from FIRST, and undone alone from SECOND; everything is trained with
    the seeds 0 to N-1. What FOLDER already holds is not trained again.
    """
    from unroll.training.recipe import load_recipe

    before, after = (
        load_recipe(first),
        load_recipe(second),
    )  # before torch is imported: a misspelt name is answered at once
    folder = Path(out) if out is not None else Path("effects") / f"{before.name}-to-{after.name}"
    if before.name == after.name:
        before, after = before.model_copy(update={"name": first}), after.model_copy(update={"name": second})
    from unroll.report.insight import save_insight
    from unroll.report.tuning import draw_effects, markdown, table_of, text_table
    from unroll.training.facts import facts
    from unroll.training.run import write_atomically
    from unroll.tuning.effects import Study, load_tested, measure, plan, summarise, walk

    way = walk(before, after)
    todo = plan(way, seeds)
    dataset = load_tested(way.first)
    load_tested(way.second)
    study = Study(folder, way, dataset, facts())
    del dataset  # every training reads its own
    words = ["unroll", "effects", first, second, "--seeds", str(seeds), *([] if out is None else ["--out", out])]
    command = shlex.join(words)
    done = sum(study.find(one.recipe) is not None for one in todo)
    if 0 < done < len(todo):
        click.echo(f"{done} of {len(todo)} trainings are in {study.path} already", err=True)
    try:
        impossible = measure(way, study, seeds, _progress)
    except KeyboardInterrupt:
        click.echo(f"interrupted; go on with: {command}", err=True)
        sys.exit(130)
    found = summarise(way, study, seeds, impossible)
    caption, rows = table_of(found)
    study.finish(seeds, caption, rows)
    write_atomically(folder / "effects.md", markdown(found, command, study.content["machine"]))
    png = save_insight(draw_effects(found), folder / "effects")
    for line in text_table(found):
        click.echo(line)
    click.echo(f"Table: {folder / 'effects.md'}")
    click.echo(f"Figure: {png}")
    click.echo(f"Numbers: {study.path}")


def _progress(todo: Sequence[Training]) -> Iterable[Training]:
    """A bar on stderr that says what is being trained."""
    from tqdm import tqdm

    with tqdm(total=len(todo), unit=" trainings", leave=False, disable=not sys.stderr.isatty()) as bar:
        for training in todo:
            bar.set_description(training.what)
            yield training
            bar.update()


COMMANDS = (effects,)
