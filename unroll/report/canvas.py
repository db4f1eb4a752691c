"""Empty figures. They are not pyplot's, which keeps each one until it is told to close it."""

from __future__ import annotations

from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def empty(figsize: tuple[float, float], layout: Any = None) -> Figure:
    """A figure of `figsize` inches."""
    figure = Figure(figsize=figsize, layout=layout)
    FigureCanvasAgg(figure)  # which can draw, and so lay out, before it is saved
    return figure


def subplots(
    rows: int = 1, columns: int = 1, *, figsize: tuple[float, float], layout: Any = None, **options: Any
) -> tuple[Figure, Any]:
    """A figure of `figsize` inches with its axes, as `matplotlib.figure.Figure.subplots` gives them for `options`."""
    figure = empty(figsize, layout)
    return figure, figure.subplots(rows, columns, **options)
