"""The figures under docs/evidence, which only `evidence.py` draws; see `unroll.report.insight` for those that users see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from unroll.insight.look import look
from unroll.report.canvas import subplots
from unroll.report.figures import ACCENT, INK, save_figure, side_by_side, styled
from unroll.report.insight import BESIDE, CELLS, LINES, draw_gradients, draw_look, draw_memory

LOOKED_AT = 8  # a five that is first taken for something else


def draw(evidence: dict[str, Any], out: Path, run: Path) -> None:
    """Draw every figure into `out`; the one of a single input only where there is a folder `run`."""
    figures: dict[str, Figure] = {
        "states": draw_states({cell: evidence["states"][cell] for cell in ("lstm", "rnn")}),
        "gates": draw_gates(evidence["gates"]),
        "gradients": draw_clipping(draw_gradients(evidence["gradients"]["curves"]), evidence["gradients"]["clipping"]),
        "ablation": draw_ablation(evidence["ablation"]["rows"]),
        "memory": draw_memory(evidence["memory"]["all"]),
        "rows": draw_sizes(evidence["rows"]["rows"]),
    }
    if run.is_dir():
        seen = look(run, number=LOOKED_AT)
        figures["look"] = draw_look(seen.trace, seen.words, seen.picture, seen.truth)
    for name, figure in figures.items():
        save_figure(figure, out / name)
        (out / f"{name}.svg").unlink()  # heat maps and 784 steps make large files; the page shows the PNG


@styled
def draw_states(found: dict[str, dict[str, Any]]) -> Figure:
    """When each model knows, and what of each step can be read back from its last state.

    Args:
        found: by model ("lstm", "rnn"): a ``label``, ``right`` of `evidence_measures.knowing`, ``recall`` of `recall`.
    """
    figure, (left, right) = side_by_side(10, 3.8)
    for cell, values in found.items():
        style = {**CELLS[cell], "markersize": 4, "label": values.get("label", CELLS[cell]["label"])}
        t = range(1, len(values["right"]) + 1)
        left.plot(t, [100 * share for share in values["right"]], **style)
        shown = [(k, share) for k, share in zip(t, values["recall"], strict=True) if share is not None]
        right.plot(*zip(*shown, strict=True), **style)
    left.set(xlabel="row read, t", ylabel="right answers if asked now (%)", title="When does it know?", ylim=(0, 102))
    right.set(
        xlabel="row t, to be read back after the last row",
        ylabel="share of the row's variance (R²)",
        title="What does the last state still hold?",
        ylim=(min(0, right.get_ylim()[0]), 1),
    )
    left.legend()
    right.legend()
    return figure


@styled
def draw_gates(found: dict[str, Any]) -> Figure:
    """The gates' means over the steps, and from which steps what is left at the end was written.

    Args:
        found: what `evidence_measures.gate_use` returned.
    """
    figure, (left, right) = side_by_side(10, 3.8)
    titles = {"f": "forget gate f", "i": "input gate i", "o": "output gate o"}
    for name, style in zip(titles, LINES, strict=False):
        values = found[name]["by_step"]
        left.plot(range(1, len(values) + 1), values, label=titles[name], linewidth=1.6, **style)
    left.set(
        xlabel="row read, t", ylabel="mean over units and pictures", title="How far the gates are open", ylim=(0, 1)
    )
    left.legend()
    t = range(1, len(found["left"]) + 1)
    right.bar(t, [100 * share for share in found["left"]], color="#9a9a9a", edgecolor=INK, linewidth=0.5)
    right.set(xlabel="row read, t", ylabel="share of what is left at the end (%)", title="When was it written?")
    left.set_axisbelow(True)
    right.set_axisbelow(True)
    return figure


@styled
def draw_ablation(rows: Sequence[dict[str, Any]]) -> Figure:
    """Test accuracy of each variant: every seed a dot, the mean a bar.

    Args:
        rows: what `unroll.insight.ablate.table` returned.
    """
    figure, axes = subplots(figsize=(7.6, 0.52 * len(rows) + 1.2), layout="constrained")
    for place, row in enumerate(rows):
        shares = [100 * accuracy for accuracy in row["accuracies"]]
        color = ACCENT if row["removed"] is None else INK
        axes.plot(shares, [place] * len(shares), "o", color=color, markersize=5, alpha=0.75)
        axes.plot([100 * row["mean"]] * 2, [place - 0.28, place + 0.28], color=color, linewidth=2)
    axes.axvline(100 * rows[0]["mean"], color=ACCENT, linewidth=0.8, linestyle="--", zorder=0)
    axes.set_yticks(range(len(rows)), [row["what"] for row in rows])
    axes.invert_yaxis()
    axes.grid(True, axis="x")
    axes.set_xlabel("test accuracy (%): each training a dot, their mean a bar")
    return figure


@styled
def draw_sizes(rows: Sequence[dict[str, Any]]) -> Figure:
    """Accuracy against parameters and against time of a training step.

    Args:
        rows: ``name``, ``cell``, ``accuracies``, ``parameters``, ``milliseconds`` of each model.
    """
    figure, pair = side_by_side(9.4, 3.6, sharey=True)
    units = (("parameters", "parameters"), ("milliseconds", "time of a training step (ms, batch of 64)"))
    for axes, (key, label) in zip(pair, units, strict=True):
        for row in rows:
            shares = [100 * accuracy for accuracy in row["accuracies"]]
            style = {key: value for key, value in CELLS[row["cell"]].items() if key != "label"} | {"linestyle": "none"}
            axes.plot([row[key]] * len(shares), shares, markersize=6, alpha=0.8, **style)
            axes.annotate(row["name"], (row[key], max(shares)), textcoords="offset points", xytext=(0, 8), ha="center")
        axes.set(xlabel=label, xlim=(0, 1.25 * max(row[key] for row in rows)))
        axes.margins(y=0.25)
    pair[0].set_ylabel("test accuracy (%), each training a mark")
    return figure


@styled
def draw_clipping(figure: Figure, clipped: Sequence[dict[str, Any]]) -> Figure:
    """Add a row to what `draw_gradients` drew: the updates and the loss without and with clipping.

    Args:
        clipped: what `evidence_measures.clipping` returned, without and with clipping.
    """
    drawn = figure.axes
    rows = len(drawn) // 2 + 1
    figure.set_size_inches(11, 3.1 * rows)
    grid = figure.add_gridspec(rows, 2)
    for place, axes in zip(grid, drawn, strict=False):
        axes.set_subplotspec(place)
    left, right = (figure.add_subplot(grid[rows - 1, column]) for column in (0, 1))
    for run, style in zip(clipped, (LINES[2], LINES[0]), strict=False):
        label = "no clipping" if run["max_norm"] is None else f"clipped at norm {run['max_norm']:g}"
        steps = range(1, len(run["loss"]) + 1)
        length = run["learning_rate"] * np.clip(run["gradient_norm"], None, run["max_norm"])
        left.plot(steps, length, linewidth=1.1, **style)
        right.plot(steps, np.minimum(run["loss"], 10), label=label, linewidth=1.1, **style)
    left.grid(True)
    right.grid(True)
    left.set(title="clipping on and off: the RNN on 28 rows", xlabel="update", ylabel="length of the update")
    right.set(title="the loss meanwhile", xlabel="update", ylabel="loss (nats; cut off at 10)")
    right.legend(fontsize=9, **BESIDE)
    return figure
