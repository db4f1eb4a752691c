"""Figures of single test images: one of every class, and the mistakes the model was surest of."""

from __future__ import annotations

from typing import Any

from matplotlib.figure import Figure

from unroll.report.canvas import subplots
from unroll.report.figures import as_label
from unroll.training.run import RunFolder

INK, WRONG = "#1a1a1a", "#c1440e"
COLUMNS = 5


def draw_examples(folder: RunFolder) -> dict[str, Figure]:
    """`digits` and, if there were any, `mistakes`; nothing for runs that are not about images."""
    if folder.recipe.task != "images":
        return {}
    names = list(map(as_label, folder.metrics()["test"]["per_class"]))
    saved = folder.predictions()
    images, chosen, mistakes = saved["shown_values"], saved["one_of_each"], saved["mistakes"]
    figures = {"digits": _grid(images[: len(chosen)], chosen, saved, names)}
    if len(mistakes):
        figures["mistakes"] = _grid(images[len(chosen) :], mistakes, saved, names, sure=True)
    return figures


def _grid(images: Any, numbers: Any, saved: dict[str, Any], names: list[str], sure: bool = False) -> Figure:
    """Pictures with their labels; `sure`: all of them mistakes, with the probability of the predicted class."""
    rows = -(-len(images) // COLUMNS)
    figure, grid = subplots(rows, COLUMNS, figsize=(1.5 * COLUMNS, 1.95 * rows), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, n in zip(grid.flat, images, numbers, strict=False):
        predicted, true = int(saved["p"][n].argmax()), int(saved["y"][n])
        text = f"true {names[true]}\npredicted {names[predicted]}"
        style: dict[str, Any] = {"color": INK, "fontweight": "normal"}
        if predicted != true:
            text += f" ({100 * saved['p'][n, predicted]:.0f}%)" if sure else "  ✗"
            style = {"color": WRONG, "fontweight": "bold"}
        axes.imshow(image, cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(text, fontsize=9, **style)
    figure.tight_layout()
    return figure
