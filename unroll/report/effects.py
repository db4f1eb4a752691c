"""Choosing between recipes, told: tables as text and Markdown, and figures that can be read in greyscale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from unroll.report.figures import ACCENT, INK, styled
from unroll.tuning.effects import Effect, Effects, Estimate, estimate


def cells(effect: Effect) -> dict[str, str]:
    """The words of a row: change, made, accuracy, its interval, time, its interval, factor, its interval."""
    row = {"change": effect.change, "made": effect.made}
    if effect.reason is not None:
        return {**row, "accuracy (points)": f"not possible alone: {effect.reason}"}
    diverged = f" ({effect.diverged} of {effect.diverged + effect.points.number} diverged)" if effect.diverged else ""
    factor = effect.factor
    return {
        **row,
        "accuracy (points)": _signed(effect.points) + diverged,
        "95% interval": _interval(effect.points),
        "time (s)": _signed(effect.seconds),
        "95% interval ": _interval(effect.seconds),
        "time (factor)": "–" if factor.mean is None else f"{factor.mean:.2f}×",
        "95% interval  ": "–" if factor.low is None else f"{factor.low:.2f} to {factor.high:.2f}",
    }


def _signed(value: Estimate) -> str:
    if value.mean is None:
        return "–"
    return f"{value.mean:+z.2f}" + ("" if value.deviation is None else f" ± {value.deviation:.2f}")


def _interval(value: Estimate) -> str:
    return "–" if value.low is None else f"{value.low:+z.2f} to {value.high:+z.2f}"


def recipe_rows(effects: Effects) -> list[list[str]]:
    """What the two recipes themselves reach: name, accuracy, time; for the header of a table."""
    rows = []
    for name, outcomes in effects.outcomes.items():
        accuracy, seconds = estimate(outcomes.accuracy), estimate(outcomes.seconds)
        lost = int(np.isnan(outcomes.accuracy).sum())
        note = f" ({lost} of {effects.seeds} diverged)" if lost else ""
        words = [
            "–" if found.mean is None else f"{found.mean:.2f}{unit}" + _deviation(found)
            for found, unit in ((accuracy, "%"), (seconds, " s"))
        ]
        rows.append([name, words[0] + note, words[1]])
    return rows


def _deviation(value: Estimate) -> str:
    return "" if value.deviation is None else f" ± {value.deviation:.2f}"


def adding_up(effects: Effects) -> str:
    """One sentence: the whole beside the sums of its parts."""
    if effects.together.points.mean is None:
        return "What all changes are worth together is not known, as trainings diverged."
    words = []
    for (made, total), base in zip(effects.sums.items(), (effects.first, effects.second), strict=True):
        if total is None:
            words.append(f"not all of them can be {'made' if made == 'alone' else 'undone'} alone from {base}")
        elif total.points.mean is None:
            words.append(f"what those {made} from {base} add up to is not known, as trainings diverged")
        else:
            words.append(
                f"{'made' if made == 'alone' else 'undone'} alone from {base} they add up to {total.points.mean:+z.2f}"
            )
    return (
        f"Together the changes are worth {effects.together.points.mean:+z.2f} points; {', '.join(words)}. They need not add "
        "up: what a change is worth depends on those around it."
    )


def text_table(effects: Effects) -> list[str]:
    """The study as lines of text."""
    lines = _aligned([["recipe", "test accuracy", "training"], *recipe_rows(effects)])
    columns = [name for name in cells(effects.together) if name != "95% interval "]  # a terminal is only so wide
    rows = [[words[name] for name in columns if name in words] for words in map(cells, effects.all())]
    header = [name.rstrip() for name in columns]
    return [*lines, "", *_aligned([header, *rows]), "", adding_up(effects)]


def _aligned(rows: list[list[str]]) -> list[str]:
    """Rows of words -> lines; a row that is shorter than the first ends with a remark that may run on."""
    full = [row for row in rows if len(row) == len(rows[0])]
    widths = [max(len(row[k]) for row in full) for k in range(len(rows[0]))]
    widths[0] = max(len(row[0]) for row in rows)
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths, strict=False)).rstrip() for row in rows]


def markdown(effects: Effects, command: str, facts: dict[str, Any]) -> str:
    """effects.md: the study, how it was measured, and where."""

    def table(rows: Sequence[Sequence[str]]) -> list[str]:
        escaped = [[word.replace("|", "\\|") for word in row] for row in rows]
        lines = [f"| {' | '.join(row)} |" for row in escaped]
        return [lines[0], f"| {' | '.join('---' for _ in rows[0])} |", *lines[1:]]

    columns = list(cells(effects.together))
    rows = [[words.get(name, "") for name in columns] for words in map(cells, effects.all())]
    return "\n".join(
        [
            f"# From {effects.first} to {effects.second}: what each change is worth",
            "",
            f"    {command}",
            "",
            f"Mean ± standard deviation over {effects.seeds} seeds.",
            "",
            *table([["recipe", "test accuracy", "training"], *recipe_rows(effects)]),
            "",
            f"Each change *alone* from {effects.first}, and *undone* alone from {effects.second}; more than 0 (a factor above 1) "
            "means that there is more with the change than without it. The differences are taken seed by seed; their 95% "
            "intervals are Student's. In the rows of sums the factors of time are multiplied.",
            "",
            *table([[name.rstrip() for name in columns], *rows]),
            "",
            adding_up(effects),
            "",
            "![What each change is worth](effects.png)",
            "",
            f"Seeds 0 to {effects.seeds - 1} take the place of the recipes' own; the engine is the first recipe's; what is "
            f"printed while training plays no part. Measured with unroll {facts['unroll']} and torch {facts['torch']} on "
            f"{facts['processor']}, {facts['threads']} of {facts['cores']} cores, engine {facts['engine']}.",
            "",
        ]
    )


def table_of(effects: Effects) -> tuple[str, list[dict[str, Any]]]:
    """Caption and rows of the table that a report shows; ``measured``, which it leaves out, has every number."""
    shown = ("change", "made", "accuracy (points)", "95% interval", "time (factor)")
    rows: list[dict[str, Any]] = []
    for effect in effects.all():
        words = cells(effect)
        rows.append({name: words.get(name, "") for name in shown} | {"measured": asdict(effect)})
    caption = (
        f"What each change from {effects.first} to {effects.second} is worth, alone from the first and undone alone from the "
        f"second: mean and standard deviation over {effects.seeds} seeds, the mean's 95% interval, and the factor by which "
        "training takes longer."
    )
    return caption, rows


# -------------------------------------------------------------------------------------------------------------- figure

MARKS: dict[str, dict[str, Any]] = {
    "alone": {"marker": "o", "color": INK, "markersize": 6},
    "undone": {"marker": "s", "color": ACCENT, "markersize": 6, "markerfacecolor": "white"},
    "together": {"marker": "D", "color": INK, "markersize": 6},
}
OFFSETS = {"alone": -0.2, "undone": 0.24, "together": 0.05}


@styled
def draw_effects(effects: Effects) -> Figure:
    """What each change is worth: points of accuracy on the left, the factor of training time on the right.

    A row for each change, with a mark and a 95% interval for either way of making it, and one for all of them together.
    """
    changes = list(dict.fromkeys(effect.change for effect in effects.single))
    places = {change: place for place, change in enumerate(changes)} | {effects.together.change: len(changes)}
    figure, pair = plt.subplots(
        1, 2, figsize=(11, 0.78 * len(places) + 1.5), sharey=True, layout="constrained", width_ratios=(1.25, 1)
    )
    left, right = pair
    right.set_xscale("log")
    for effect in (*effects.single, effects.together):
        y = places[effect.change] + OFFSETS[effect.made]
        _mark(left, effect, effect.points, y, "{:+z.2f}")
        _mark(right, effect, effect.factor, y, "{:.2f}")
    left.axvline(0, color="#8a8a8a", linewidth=0.9, zorder=0)
    right.axvline(1, color="#8a8a8a", linewidth=0.9, zorder=0)
    for axes in pair:
        axes.axhline(len(changes) - 0.5, color="#8a8a8a", linewidth=0.9, linestyle=":", zorder=0)
        axes.grid(True, axis="x")
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        axes.margins(x=0.3)  # room for the words at the outermost marks
    left.set_yticks(range(len(places)), [change.replace(": ", "\n") for change in places])
    left.set_ylim(len(places) - 0.5, -0.6)
    left.set(title="test accuracy", xlabel="worth of the change (percentage points)")
    right.set(title="training time", xlabel="worth of the change (times as long)")
    right.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    right.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    right.xaxis.set_minor_formatter(NullFormatter())
    handles = [
        left.errorbar([], [], xerr=[], capsize=3, linestyle="none", **MARKS[made])
        for made in ("alone", "undone", "together")
    ]
    words = [f"made alone from {effects.first}", f"undone alone from {effects.second}", "all together"]
    figure.legend(handles, words, frameon=False, loc="outside lower center", ncol=3)
    return figure


def _mark(axes: Axes, effect: Effect, value: Estimate, y: float, how: str) -> None:
    """A mark with its interval, and both in words above it."""
    if value.mean is None:
        said = "diverged" if effect.reason is None else "not possible alone"
        axes.text(0.02, y, said, transform=axes.get_yaxis_transform(), fontsize=8, style="italic", va="center")
        return
    reach = None if value.low is None or value.high is None else [[value.mean - value.low], [value.high - value.mean]]
    axes.errorbar(value.mean, y, xerr=reach, capsize=3, linestyle="none", **MARKS[effect.made])
    said = how.format(value.mean)
    if value.low is not None:
        said += f" ({how.format(value.low)} to {how.format(value.high)})"
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # or the grid runs through the digits
    axes.annotate(said, (value.mean, y), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8, bbox=paper)
