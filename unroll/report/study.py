"""Figures of a search: its history, what mattered, and all trials as lines through their values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from unroll.report.canvas import subplots
from unroll.report.figures import ACCENT, INK, PAPER, WRONG, save_figure, styled
from unroll.training.recipe import parse_recipe, value_text
from unroll.tuning.space import Choice, Range, read_space

GREY = "#9a9a9a"
PLATE: Any = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6, "alpha": 0.85}
AXES_SHOWN = 9  # of the parallel coordinates; more cannot be read
GOOD = 5  # trials drawn in colour
FIGURES = ("history", "importance", "parallel")


def draw_study(found: dict[str, Any], folder: Path) -> list[Path]:
    """Draw what `unroll.tuning.study.summary` found, into the folder; the PNG files."""
    figures = {"history": draw_history(found)}
    if found["importance"]:
        figures["importance"] = draw_importance(found)
    if len(found["space"]) > 1:
        figures["parallel"] = draw_parallel(found)
    return [save_figure(figure, folder / name) for name, figure in figures.items()]


@styled
def draw_history(found: dict[str, Any]) -> Figure:
    """Held-out accuracy of every complete trial, the best so far, and which trials were pruned."""
    complete = [t for t in found["trials"] if t["state"] == "complete"]
    numbers = [t["number"] for t in complete]
    values = [100 * t["accuracy"] for t in complete]
    figure, ax = subplots(figsize=(7, 3.4), layout="constrained")
    # The scale is the good trials'; a failure would press them all into one line.
    low = min(sorted(values)[len(values) // 4 :]) if len(values) > 4 else min(values)
    room = max(0.05, 0.15 * (max(values) - low))
    ax.set_ylim(low - room, max(values) + room)
    below = [n for n, v in zip(numbers, values, strict=True) if v < low - room]
    ax.plot(numbers, values, "o", color=INK, markersize=4, label="trial", clip_on=True)
    ax.step(numbers, np.maximum.accumulate(values), where="post", color=ACCENT, label="best so far")
    pruned = [t["number"] for t in found["trials"] if t["state"] == "pruned"]
    for marked, mark, label in ((below, "v", "below the scale"), (pruned, "x", "pruned")):
        if marked:
            foot: Any = {"transform": ax.get_xaxis_transform(), "color": WRONG, "markersize": 5}
            ax.plot(marked, [0.02] * len(marked), mark, label=label, **foot)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="trial", ylabel="held-out accuracy (%)", title=f"Search over {found['recipe']['name']}")
    ax.grid(axis="y")
    ax.legend(fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.18))
    return figure


@styled
def draw_importance(found: dict[str, Any]) -> Figure:
    """The importance of every hyperparameter, largest at the top."""
    names = list(found["importance"])[::-1]
    shares, low, high = 100 * np.array([found["importance"][name] for name in names]).T
    figure, ax = subplots(figsize=(7, 1.1 + 0.27 * len(names)), layout="constrained")
    ax.hlines(names, low, high, color=GREY, linewidth=5)
    ax.plot(shares, names, "o", color=ACCENT)
    ax.set(xlim=(0, None), xlabel="share of the trials' variance (%), fANOVA; grey: 80% of 20 resamplings")
    ax.set(title=f"What mattered for {found['recipe']['name']}")
    return figure


@styled
def draw_parallel(found: dict[str, Any]) -> Figure:
    """Every complete trial as a line through its values, the best ones in colour; the most important fields only."""
    recipe = parse_recipe(found["recipe"], found["study"])
    space = read_space(found["space"], recipe, [], set(), found["study"])
    fields = sorted(space, key=lambda name: -found["importance"].get(name, (0.0,))[0])[:AXES_SHOWN]
    trials = sorted((t for t in found["trials"] if t["state"] == "complete"), key=lambda t: t["accuracy"])
    blue = min(GOOD, len(trials)) - 1
    title = f"{found['study']}: {len(trials)} complete trial{'s' * (len(trials) > 1)}; orange: the best"
    title += f", blue: the {blue} after it" if blue else ""
    figure, ax = subplots(figsize=(1.6 + 1.05 * len(fields), 4.2), layout="constrained")
    ax.set(xlim=(-0.3, len(fields) + 0.3), ylim=(-0.04, 1.04), title=title)
    ax.set_axis_off()
    for x, name in enumerate(fields):
        ax.axvline(x, color=INK, linewidth=0.8)
        ax.text(x, -0.09, name.replace("_", "\n"), ha="center", va="top", fontsize=8)
        for place, text in _ticks(space[name]):
            ax.text(x - 0.04, place, text, ha="right", va="center", fontsize=7, zorder=5, bbox=PLATE)
    values = [t["accuracy"] for t in trials]
    low, high = values[max(0, len(values) // 4 - 1)], values[-1]
    ax.axvline(len(fields), color=INK, linewidth=0.8)
    ax.text(len(fields), -0.09, "held-out\naccuracy", ha="center", va="top", fontsize=8)
    for value, place in ((low, 0.0), (high, 1.0)):
        ax.text(len(fields) + 0.06, place, f"{100 * value:.2f}%", va="center", fontsize=7)
    for rank, trial in enumerate(trials):
        heights = [_height(space[name], trial["fields"][name]) for name in fields]
        heights.append(min(1.0, max(-0.04, (trial["accuracy"] - low) / ((high - low) or 1))))
        good = rank >= len(trials) - GOOD
        color, width = (WRONG if rank == len(trials) - 1 else ACCENT, 1.6) if good else (GREY, 0.6)
        ax.plot(range(len(heights)), heights, color=color, linewidth=width, alpha=1 if good else 0.6, zorder=2 + good)
    return figure


def _height(values: Range | Choice, value: Any) -> float:
    """Where on its axis, from 0 to 1, a value stands."""
    if isinstance(values, Choice):
        return (values.values.index(value) + 0.5) / len(values.values)
    if values.log:
        return math.log(value / values.low) / math.log(values.high / values.low)
    return float((value - values.low) / (values.high - values.low))


def _ticks(values: Range | Choice) -> list[tuple[float, str]]:
    if isinstance(values, Choice):
        return [(_height(values, value), value_text(value)) for value in values.values]
    return [(0.0, f"{values.low:g}"), (1.0, f"{values.high:g}")]
