"""Figures of single test images: one of every class, and the mistakes the model was surest of."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from unroll.training.recipe import ImageRecipe
from unroll.training.run import RunFolder

INK, WRONG = "#1a1a1a", "#c1440e"


def draw_examples(folder: RunFolder) -> dict[str, Figure]:
    """`digits` and, if there were any, `mistakes`; nothing for runs that are not about images."""
    if not isinstance(folder.recipe, ImageRecipe):
        return {}
    names = list(folder.metrics()["test"]["per_class"])
    saved = folder.predictions()
    p, y, chosen, mistakes = saved["p"], saved["y"], saved["one_of_each"], saved["mistakes"]
    images = saved["shown_values"]
    figures = {"digits": _grid(images[: len(chosen)], chosen, p, y, names, columns=5)}
    if len(mistakes):
        figures["mistakes"] = _grid(images[len(chosen) :], mistakes, p, y, names, columns=5, sure=True)
    return figures


def _grid(
    images: np.ndarray[Any, Any],
    numbers: np.ndarray[Any, Any],
    p: np.ndarray[Any, Any],
    y: np.ndarray[Any, Any],
    names: list[str],
    columns: int,
    sure: bool = False,
) -> Figure:
    rows = -(-len(images) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(1.5 * columns, 1.95 * rows), squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, n in zip(grid.flat, images, numbers, strict=False):
        predicted, true = int(p[n].argmax()), int(y[n])
        right = predicted == true
        axes.imshow(image, cmap="gray_r", vmin=0, vmax=255, interpolation="nearest")
        text = f"true {names[true]}\npredicted {names[predicted]}"
        if sure:
            text += f" ({100 * p[n, predicted]:.0f}%)"
        axes.set_title(
            text if right else f"{text}" + ("" if sure else "  ✗"),
            fontsize=9,
            color=INK if right else WRONG,
            fontweight="normal" if right else "bold",
        )
    figure.tight_layout()
    return figure
