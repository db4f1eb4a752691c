"""The commands that make something of finished runs: report, compare, export."""

from __future__ import annotations

import json
from pathlib import Path

import click

from unroll.errors import InputError
from unroll.files import refuse_foreign
from unroll.options import Command, output
from unroll.terminal import say

FILE = click.Path(path_type=Path)


@click.command(cls=Command, short_help="Write a PDF about a run.")
@click.argument("run")
@output("PDF to write; RUN/report.pdf if left out", metavar="FILE")
@click.option("--title", metavar="TEXT", help="title of the report")
@click.option("--author", metavar="NAME", help="who stands under the title")
@click.option("--draft", is_flag=True, help="build from an unfinished run too, and say what is missing")
@click.option("--redraw", is_flag=True, help="draw the figures of the run again first")
def report(run: str, out: Path | None, title: str | None, author: str | None, draft: bool, redraw: bool) -> None:
    """Write one PDF about RUN: equations, hyperparameters, losses, test, examples, code, how to run it again."""
    from unroll.report.document import report as make
    from unroll.report.pdf import replaced_line, write_pdf
    from unroll.training.run import RunFolder

    folder = RunFolder(run)
    target = out or folder.path / "report.pdf"
    if target.suffix.lower() != ".pdf":
        raise InputError(f"--out is {out}; expected a file name that ends in .pdf")
    refuse_foreign(target)
    if redraw:
        from unroll.report.figures import draw_figures

        draw_figures(folder)
    document = make(folder, title=title, author=author, draft=draft)
    write_pdf(document, target)
    say(f"Report: {target}")
    if document.replaced:
        say(replaced_line(document.replaced), error=True)


@click.command(cls=Command, short_help="Set several runs beside each other.")
@click.argument("runs", nargs=-1, required=True, metavar="RUN RUN...")
@output("figure to draw (PNG, and SVG beside it)", "FILE", "--figure", default="comparison.png")
@click.option("--no-figure", is_flag=True, help="do not draw")
@click.option("--json", "as_json", is_flag=True, help="print everything as JSON")
def compare(runs: tuple[str, ...], figure: Path, no_figure: bool, as_json: bool) -> None:
    """Set several runs beside each other: recipes, accuracies, times, and whether the difference is chance."""
    from unroll.report.compare import compare as make
    from unroll.report.compare import comparison_files, draw_comparison, lines
    from unroll.training.run import RunFolder

    if not no_figure:
        refuse_foreign(*comparison_files(figure))
    comparison = make([RunFolder(run) for run in runs])
    drawn = None if no_figure else draw_comparison(comparison, figure)
    if as_json:
        say(*json.dumps(comparison.to_json(), indent=2, ensure_ascii=False).split("\n"))
        return
    say(*lines(comparison))
    if drawn is not None:
        say(f"Figure: {drawn}")


@click.command(cls=Command, short_help="Make ONNX and a model card of a run.")
@click.argument("run")
@output("write the model as ONNX, normalisation included", "FILE", "--onnx")
@click.option("--card", is_flag=True, help="write a model card (README.md) beside it, and the weights")
def export(run: str, onnx: Path | None, card: bool) -> None:
    """Make files of RUN's model that other tools load: ONNX, and a model card for sharing it.

    Any cell whose step can be read is exported: LSTM, GRU and RNN as ONNX's own operators, other cells as an ONNX Scan of
    their equations. Where ONNX Runtime is installed, the file is compared with `predict` before it is written.
    """
    from unroll.report.card import card_files, write_card
    from unroll.report.export import export_onnx
    from unroll.training.run import RunFolder

    if onnx is None and not card:
        raise InputError("say what to write: --onnx model.onnx, --card, or both")
    folder = RunFolder(run)
    if card:
        card_files(folder, onnx)  # before the first file is written
        folder.metrics()
    if onnx is not None:
        checked, said = export_onnx(folder, onnx), "not compared: ONNX Runtime is not installed"
        if checked is not None:
            inputs = "random inputs" + (f" and {checked.own} of its own test part" if checked.own else " alone")
            said = f"largest difference to predict, on {inputs}: {checked.difference:.1e}"
        say(f"ONNX: {onnx} ({said})")
    if card:
        for path in write_card(folder, onnx):
            say(f"Card: {path}" if path.name == "README.md" else f"Weights: {path}")


COMMANDS = (report, compare, export)
