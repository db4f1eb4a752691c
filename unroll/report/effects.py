"""Choosing between recipes, told: tables as text and Markdown, and figures that can be read in greyscale."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from unroll.report.blocks import aligned
from unroll.report.figures import ACCENT, INK, side_by_side, styled
from unroll.tuning.effects import WAYS, Effect, Effects, Estimate, estimate


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


def _signed(value: Estimate, sign: str = "+z", unit: str = "") -> str:
    if value.mean is None:
        return "–"
    return f"{value.mean:{sign}.2f}{unit}" + ("" if value.deviation is None else f" ± {value.deviation:.2f}")


def _interval(value: Estimate) -> str:
    return "–" if value.low is None else f"{value.low:+z.2f} to {value.high:+z.2f}"


def recipe_rows(effects: Effects) -> list[list[str]]:
    """A table's header, and what the two recipes themselves reach: name, accuracy, time."""
    rows = [["recipe", "test accuracy", "training"]]
    for name, outcomes in effects.outcomes.items():
        accuracy, seconds, _ = map(estimate, outcomes)
        lost = effects.seeds - accuracy.number
        note = f" ({lost} of {effects.seeds} diverged)" if lost else ""
        rows.append([name, _signed(accuracy, "", "%") + note, _signed(seconds, "", " s")])
    return rows


def adding_up(effects: Effects) -> str:
    """One sentence: the whole beside the sums of its parts."""
    if effects.together.points.mean is None:
        return "What all changes are worth together is not known, as trainings diverged."
    words = []
    for made, base in zip(WAYS, effects.outcomes, strict=True):
        total = effects.sums.get(made)
        verb = "made" if made == "alone" else "undone"
        if total is None:
            words.append(f"not all of them can be {verb} alone from {base}")
        elif total.points.mean is None:
            words.append(f"what those {made} from {base} add up to is not known, as trainings diverged")
        else:
            words.append(f"{verb} alone from {base} they add up to {total.points.mean:+z.2f}")
    return (
        f"Together the changes are worth {effects.together.points.mean:+z.2f} points; {', '.join(words)}. They need not add "
        "up: what a change is worth depends on those around it."
    )


def text_table(effects: Effects) -> list[str]:
    """The study as lines of text."""
    lines = aligned(recipe_rows(effects))
    columns = [name for name in cells(effects.together) if name != "95% interval "]  # a terminal is only so wide
    rows = [[words[name] for name in columns if name in words] for words in map(cells, effects.all())]
    header = [name.rstrip() for name in columns]
    return [*lines, "", *aligned([header, *rows]), "", adding_up(effects)]


MARKDOWN = """\
# From {first} to {second}: what each change is worth

    {command}

Mean ± standard deviation over {seeds} seeds.

{recipes}

Each change *alone* from {first}, and *undone* alone from {second}; more than 0 (a factor above 1) means that there is \
more with the change than without it. The differences are taken seed by seed; their 95% intervals are Student's. In the \
rows of sums the factors of time are multiplied.

{changes}

{adding_up}

![What each change is worth](effects.png)

Seeds 0 to {last} take the place of the recipes' own; the engine is the first recipe's; what is printed while training \
plays no part. Measured with unroll {unroll} and torch {torch} on {processor}, {threads} of {cores} cores, engine {engine}.
"""


def markdown(effects: Effects, command: str, facts: dict[str, Any]) -> str:
    """effects.md: the study, how it was measured, and where."""

    def table(rows: list[list[str]]) -> str:
        head, *body = [f"| {' | '.join(word.replace('|', chr(92) + '|') for word in row)} |" for row in rows]
        return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])

    columns = list(cells(effects.together))
    first, second = effects.outcomes
    rows = [[words.get(name, "") for name in columns] for words in map(cells, effects.all())]
    return MARKDOWN.format(
        first=first,
        second=second,
        command=command,
        seeds=effects.seeds,
        last=effects.seeds - 1,
        recipes=table(recipe_rows(effects)),
        changes=table([[name.rstrip() for name in columns], *rows]),
        adding_up=adding_up(effects),
        **facts,
    )


def table_of(effects: Effects) -> tuple[str, list[dict[str, Any]]]:
    """Caption and rows of the table that a report shows; ``measured``, which it leaves out, has every number."""
    shown = ("change", "made", "accuracy (points)", "95% interval", "time (factor)")
    rows: list[dict[str, Any]] = []
    for effect in effects.all():
        words = cells(effect)
        rows.append({name: words.get(name, "") for name in shown} | {"measured": asdict(effect)})
    first, second = effects.outcomes
    caption = (
        f"What each change from {first} to {second} is worth, alone from the first and undone alone from the "
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
    options = {"sharey": True, "width_ratios": (1.25, 1)}
    figure, (left, right) = side_by_side(11, 0.78 * len(places) + 1.5, "x", **options)
    right.set_xscale("log")
    for effect in (*effects.single, effects.together):
        y = places[effect.change] + OFFSETS[effect.made]
        _mark(left, effect, effect.points, y, "{:+z.2f}")
        _mark(right, effect, effect.factor, y, "{:.2f}")
    for axes, none in ((left, 0), (right, 1)):
        axes.axvline(none, color="#8a8a8a", linewidth=0.9, zorder=0)
        axes.axhline(len(changes) - 0.5, color="#8a8a8a", linewidth=0.9, linestyle=":", zorder=0)
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
    handles = [left.errorbar([], [], xerr=[], capsize=3, linestyle="none", **mark) for mark in MARKS.values()]
    first, second = effects.outcomes
    words = [f"made alone from {first}", f"undone alone from {second}", "all together"]
    figure.legend(handles, words, loc="outside lower center", ncol=3)
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
