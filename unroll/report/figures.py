"""Figures of a run, drawn from its folder alone, as PNG and SVG; all can be read in greyscale."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib

matplotlib.use("agg")  # no window, no display

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from unroll.errors import shortened
from unroll.files import refuse_foreign, write_atomically
from unroll.report.canvas import subplots
from unroll.report.glyphs import with_glyphs
from unroll.report.pdf import check_epoch
from unroll.terminal import printable
from unroll.training.run import RunFolder

P = ParamSpec("P")

INK, PAPER, ACCENT, WRONG = "#1a1a1a", "#ffffff", "#1f4e8c", "#c1440e"
STYLE: Any = {
    "figure.facecolor": PAPER,
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": INK,
    "axes.grid": False,
    "grid.color": "#d9d9d9",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.hashsalt": "unroll",  # the same run gives the same bytes
    "svg.fonttype": "path",
}


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """The house style for everything that `draw` makes."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def side_by_side(width: float, height: float, grid: Any = "both", **options: Any) -> tuple[Figure, Any]:
    """A figure, and its two axes with a grid."""
    figure, pair = subplots(1, 2, figsize=(width, height), layout="constrained", **options)
    for axes in pair:
        axes.grid(True, axis=grid)
    return figure, pair


def draw_figures(folder: RunFolder) -> list[Path]:
    """Draw everything that the run folder has the material for; the PNG files."""
    from unroll.report.examples import draw_examples
    from unroll.report.paths import draw_paths

    with matplotlib.rc_context(STYLE):
        figures: dict[str, Figure] = {"loss": draw_loss(folder)}
        metrics = folder.metrics()
        if "test" in metrics:
            figures |= {"confusion": draw_confusion(metrics["test"]), **draw_examples(folder), **draw_paths(folder)}
        refuse_foreign(*(file for name in figures for file in figure_files(folder.path / "figures" / name)))
        # The loss last: where it is, all are (`RunFolder.drawn`).
        return [save_figure(figures[name], folder.path / "figures" / name) for name in (*list(figures)[1:], "loss")]


def figure_files(path: Path) -> tuple[Path, Path]:
    """What `save_figure` writes: `path`.png and `path`.svg."""
    return path.with_name(f"{path.name}.png"), path.with_name(f"{path.name}.svg")


def save_figure(figure: Figure, path: Path) -> Path:
    """Write `path`.svg and `path`.png, making the folder, and close the figure; the PNG.

    Raises:
        InputError: a file of someone else's stands there.
    """
    check_epoch()
    png, svg = figure_files(path)
    refuse_foreign(png, svg)
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, metadata in ((svg, {"Date": None, "Creator": "unroll"}), (png, {"Software": "unroll"})):
        with matplotlib.rc_context(STYLE):  # the style of an SVG's text and names is asked for here, not while drawing
            data = _saved(figure, file.suffix[1:], metadata)
        if file == svg:  # a text stands in a comment beside its outlines, and no XML may hold control characters
            data = data.translate(None, bytes({*range(32)} - {9, 10, 13}))
        write_atomically(file, data)
    return png


def _saved(figure: Figure, form: str, metadata: dict[str, Any]) -> bytes:
    content = io.BytesIO()

    def save() -> None:
        content.seek(0)
        content.truncate()
        figure.savefig(content, format=form, dpi=150, bbox_inches="tight", metadata=metadata)

    with_glyphs(figure, save)
    return content.getvalue()


def as_label(text: str, most: int = 40) -> str:
    r"""Text of others in a figure, such as the name of a class: no formula, and of at most so many characters.

    >>> print(as_label("a$b$"))
    a\$b\$
    """
    return shortened(printable(text), most).replace("$", r"\$")


def draw_loss(folder: RunFolder) -> Figure:
    """Training loss against epochs: single steps where they were kept, each epoch's mean, the held-out loss."""
    history, recipe = folder.history(), folder.recipe
    figure, axes = subplots(figsize=(6.4, 3.8))
    epochs = [row["epoch"] for row in history]
    per_epoch = -(-folder.metrics()["training_sequences"] // recipe.batch_size)
    if recipe.log == "epochs":
        # The RNN lab's own plot: the sum over the training sentences, epoch by epoch.
        axes.plot(epochs, [row["loss"] * per_epoch for row in history], color=ACCENT, linewidth=1.6)
        axes.set(title="Training Loss Curve", xlabel="Epoch", ylabel="Total Loss")
    else:
        steps = [(row["epoch"] - 1 + step / per_epoch, loss) for row in history for step, loss in row["steps"]]
        if steps:
            axes.plot(*zip(*steps, strict=True), color="#9db7d6", linewidth=1, label="single batches", zorder=1)
        axes.plot(
            epochs, [row["loss"] for row in history], color=ACCENT, marker="o", markersize=4, label="mean of the epoch"
        )
        if history and "validation_loss" in history[0]:
            held_out = [row["validation_loss"] for row in history]
            axes.plot(epochs, held_out, color=WRONG, marker="s", markersize=4, linestyle="--", label="held-out part")
        axes.set(title="Training Loss Curve", xlabel="Epoch", ylabel="Loss (cross-entropy, nats)")
        axes.legend()
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(True)
    axes.set(xlim=(0, None), ylim=(0, None))
    return figure


@styled
def draw_curve(points: list[tuple[float, float]]) -> Figure:
    """The loss against the training step; from (step, loss) to (step, loss)."""
    figure, axes = subplots(figsize=(6.4, 3.4))
    axes.plot(*zip(*points, strict=True), color=ACCENT, linewidth=1.2)
    axes.set(title="Training Loss Curve", xlabel="Training step", ylabel="Loss")
    axes.grid(True)
    axes.set(xlim=(0, None), ylim=(min(0.0, *(y for _, y in points)), None))
    return figure


def draw_confusion(test: dict[str, Any]) -> Figure:
    """Confusion matrix: rows true, columns predicted; shaded by share of the row."""
    counts, names = np.array(test["confusion"]), list(map(as_label, test["per_class"]))
    shares = counts / counts.sum(1, keepdims=True).clip(min=1)
    size = min(12.0, 2.2 + 0.46 * len(names))
    figure, axes = subplots(figsize=(size, size))
    # The diagonal would drown the mistakes: shade those on a scale of their own, up to the worst.
    mistakes = shares * (1 - np.eye(len(names)))
    axes.imshow(mistakes, cmap="Oranges", vmin=0, vmax=max(mistakes.max() * 1.6, 1e-9))
    for k in range(len(names)):
        axes.add_patch(Rectangle((k - 0.5, k - 0.5), 1, 1, color="#e3eaf3", zorder=1))
    if len(names) <= 30:
        for row, column in np.ndindex(counts.shape):
            if counts[row, column]:
                weight = "bold" if row == column else "normal"
                said: dict[str, Any] = {
                    "ha": "center",
                    "va": "center",
                    "fontsize": 8,
                    "fontweight": weight,
                    "color": INK,
                }
                axes.text(column, row, str(counts[row, column]), **said)
    rotation = 0 if max(map(len, names)) <= 3 else 45
    axes.set_xticks(range(len(names)), names, rotation=rotation, ha="center" if rotation == 0 else "right")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="predicted", ylabel="true", title=f"{test['correct']} of {test['total']} correct")
    return figure
