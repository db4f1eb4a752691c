"""Figures of what happens inside: traces, gradients through time, ablations, memory. All can be read in greyscale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage

from unroll.equations.formulas import text_symbol
from unroll.equations.names import symbol_of
from unroll.insight.trace import Trace, decided
from unroll.report.canvas import empty, subplots
from unroll.report.figures import ACCENT, INK, WRONG, as_label, styled

Array = NDArray[Any]

# Both maps grow steadily in lightness, so that a grey print keeps their order.
SHARE, SIGNED = "Greys", "cividis"
BESIDE: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}  # a legend right of its axes
LINES: list[dict[str, Any]] = [
    {"color": INK, "linestyle": "-"},
    {"color": ACCENT, "linestyle": "--"},
    {"color": WRONG, "linestyle": "-."},
    {"color": "#7a7a7a", "linestyle": "-"},
    {"color": "#4f8f4f", "linestyle": ":"},
    {"color": "#8c6bb1", "linestyle": (0, (6, 2, 1, 2, 1, 2))},
]


def unit_order(values: Array) -> Array:
    """An order of the H units in which those with similar courses stand together; values (T, H).

    Ward's clustering with the leaves turned so that neighbours are as near as possible (Bar-Joseph, Gifford & Jaakkola,
    Bioinformatics 17, 2001).
    """
    if values.shape[1] < 3:
        return np.arange(values.shape[1])
    return np.asarray(leaves_list(linkage(values.T.astype(float), "ward", optimal_ordering=True)))


@styled
def draw_look(
    trace: Trace,
    words: Sequence[str] | None = None,
    picture: bool = False,
    truth: str | None = None,
    layer: int = -1,
    direction: str = "forward",
    meanings: Mapping[str, str] = MappingProxyType({}),
) -> Figure:
    """The first sequence of a trace: its input, the probability of each class after each step, every gate and state.

    Args:
        trace: what `unroll.insight.trace.trace` found.
        words: the sentence, if it is one.
        picture: whether the sequence is a picture read row by row.
        truth: the true class, if it is known.
        layer, direction: which ones to draw.
        meanings: what the quantities are, see `unroll.cells.Cell`.
    """
    T = int(trace.lengths[0])
    class_names = [as_label(name, 20) for name in trace.class_names]
    words = None if words is None else [as_label(word, 20) for word in words]
    names = trace.names()
    found: dict[str, Array] = {name: trace(name, layer, direction)[:T, 0] for name in names}
    state = "c" if "c" in found else names[-1]
    order = unit_order(found[state])  # one for all that have as many units
    orders = {name: order if values.shape[1] == len(order) else unit_order(values) for name, values in found.items()}
    columns = min(2, len(names))
    heights = [1.45 if picture else 0.5 if words else 1.1, 1.9, *[1.9] * -(-len(names) // columns), 2.1]
    step = "row read, t" if picture else "word read, t" if words else "time step, t"
    figure = empty(figsize=(11, sum(heights) + 0.55 * len(heights)), layout="constrained")
    bands: Any = figure.subfigures(len(heights), 1, height_ratios=heights)

    x = trace.x[:T, 0]
    p = None if trace.p is None else trace.p[:T, 0]
    if picture:
        _filmstrip(bands[0], x, p, class_names)
    elif words:
        bands[0].text(0.5, 0.35, " ".join(words[:40]), ha="center", fontsize=12)
    else:
        axes = bands[0].subplots()
        _image(axes, x, words, 0, cmap="Greys")
        axes.set(title="input x", ylabel="feature")
    if p is not None:
        _probabilities(bands[1].subplots(), p, class_names, words, step, truth)
    panels = [axes for band in bands[2:-1] for axes in band.subplots(1, columns, squeeze=False)[0]]
    for axes, name in zip(panels, names, strict=False):
        _heat_map(axes, _title(name, meanings), found[name][:, orders[name]], words, step)
    for axes in panels[len(names) :]:
        axes.axis("off")
    _busiest(bands[-1].subplots(), found[state], state, words, step)
    return figure


def _image(axes: Axes, values: Array, words: Sequence[str] | None, first: int, **options: Any) -> Any:
    """values (T, K) as a picture, time from left to right, K from `first` on upwards."""
    T, K = values.shape
    extent = (0.5, T + 0.5, first - 0.5, first + K - 0.5)
    image = axes.imshow(values.T, extent=extent, aspect="auto", interpolation="nearest", origin="lower", **options)
    _time_axis(axes, T, words)
    return image


def _filmstrip(figure: Any, x: Array, p: Array | None, names: Sequence[str]) -> None:
    """The picture at some moments: rows read in ink, rows to come in pale grey, the row being read in a frame."""
    T, D = x.shape
    moments = np.unique(np.linspace(1, T, 8).round().astype(int))[1:]
    shade = (x - x.min()) / max(float(np.ptp(x)), 1e-9)
    for axes, t in zip(figure.subplots(1, len(moments)), moments, strict=True):
        ink = 1 - shade
        ink[t:] = 1 - 0.12 * shade[t:] - 0.05
        axes.imshow(ink, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.add_patch(Rectangle((-0.5, t - 1.5), D, 1, fill=False, edgecolor=WRONG, linewidth=1.6))
        title = f"after row {t}"
        if p is not None:
            best = int(p[t - 1].argmax())
            title += f"\nsays {names[best] if names else best} ({100 * p[t - 1, best]:.0f}%)"
        axes.set_title(title, fontsize=9)
        axes.axis("off")


def _time_axis(axes: Axes, T: int, words: Sequence[str] | None) -> None:
    if words is not None and T <= 40:
        slant: dict[str, Any] = {"rotation": 45, "ha": "right"} if T > 8 else {}
        axes.set_xticks(range(1, T + 1), list(words[:T]), **slant)
        return
    ticks = [t for t in axes.get_xticks() if 1 <= t <= T and t == int(t)] if T > 40 else [1, *range(4, T + 1, 4)]
    axes.set_xticks(ticks)


def _probabilities(
    axes: Axes, p: Array, names: Sequence[str], words: Sequence[str] | None, step: str, truth: str | None
) -> None:
    T, C = p.shape
    image = _image(axes, p, words, 0, cmap=SHARE, vmin=0, vmax=1)
    leader = p.argmax(1)
    axes.plot(range(1, T + 1), leader, linestyle="none", marker="o", markersize=4, color=WRONG, markeredgecolor="white")
    axes.axvline(decided(p) - 0.5, color=ACCENT, linewidth=1.5, linestyle="--")
    label = names[leader[-1]] if names else str(leader[-1])
    known = "" if truth is None else f", it is {as_label(truth, 20)}"
    axes.set_title(
        f"When did it know? It says {label} (p = {p[-1].max():.2f}{known}); from step {decided(p)} on it never says"
        " anything else"
    )
    if C <= 30:
        axes.set_yticks(range(C), list(names) if names else None)
    axes.set(xlabel=step, ylabel="class")
    axes.figure.colorbar(image, ax=axes, label="probability", pad=0.01)


def _title(name: str, meanings: Mapping[str, str]) -> str:
    """forget gate: share of c that is kept -> forget gate f: share of c that is kept"""
    what, colon, more = meanings.get(name, "").partition(":")
    symbol = text_symbol(symbol_of(name))
    return f"{what} {symbol}{colon}{more}".strip() if what else as_label(symbol)


def _heat_map(axes: Axes, title: str, values: Array, words: Sequence[str] | None, step: str) -> None:
    H = values.shape[1]
    bound = max(1.0, float(np.abs(values).max()))
    gate = bool(values.min() >= 0 and values.max() <= 1)  # a share of something; all others have signs
    scale: dict[str, Any] = {"cmap": SHARE, "vmin": 0} if gate else {"cmap": SIGNED, "vmin": -bound}
    image = _image(axes, values, words, 1, vmax=bound, **scale)
    axes.set(title=title, xlabel=step, ylabel="unit (similar ones together)")
    axes.set_yticks([1, H] if H > 8 else range(1, H + 1))
    axes.figure.colorbar(image, ax=axes, pad=0.01)


def _busiest(axes: Axes, values: Array, name: str, words: Sequence[str] | None, step: str) -> None:
    """The five units whose state moves most between the first step and the last, added up."""
    T = len(values)
    travelled = np.abs(np.diff(values, axis=0, prepend=0)).sum(0)
    for unit, style in zip(np.argsort(-travelled)[:5], LINES, strict=False):
        axes.plot(range(1, T + 1), values[:, unit], linewidth=1.5, label=f"unit {unit + 1}", **style)
    axes.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.set(title=f"The {min(5, values.shape[1])} units whose {name} changes most", xlabel=step, ylabel=name)
    axes.set_xlim(0.5, T + 0.5)
    _time_axis(axes, T, words)
    axes.legend(**BESIDE)


# ----------------------------------------------------------------------------------------------- gradients through time


@styled
def draw_gradients(curves: Sequence[dict[str, Any]]) -> Figure:
    """Gradient norms against time on the left, the largest singular value of one step's Jacobian on the right.

    Args:
        curves: what `unroll.insight.gradients.measure_runs` returned; one row for each way of reading and each of
            untrained and trained.
    """
    groups: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for curve in curves:
        groups.setdefault((curve["reading"], curve["trained"]), []).append(curve)
    rows = len(groups)
    figure, grid = subplots(rows, 2, figsize=(11, 3.1 * rows), squeeze=False, layout="constrained")
    for axes in grid.flat:
        axes.grid(True)
    for (left, right), ((reading, trained), members) in zip(grid, groups.items(), strict=False):
        T = members[0]["T"]
        what = f"{T} {reading if reading in ('rows', 'pixels') else 'steps'}"
        for number, curve in enumerate(members):
            style = _curve_style(curve, [other["cell"] for other in members[:number]].count(curve["cell"]))
            for name, norms in curve["norms"].items():
                # The cell state's is the thin one beside the hidden state's.
                drawn = style | ({"linewidth": 0.7} if name == "c" else {"markevery": max(1, len(curve["t"]) // 6)})
                left.semilogy(curve["t"], np.clip(norms["median"], 1e-300, None), **drawn)
                if trained and name != "c":
                    shade = {"color": style["color"], "alpha": 0.15, "linewidth": 0}
                    left.fill_between(curve["t"], norms["low"], norms["high"], **shade)
            jacobian = curve["jacobian"]
            right.plot(jacobian["t"], jacobian["largest"], label=as_label(curve["label"]), markevery=5, **style)
        left.set_ylim(bottom=max(left.get_ylim()[0], 1e-30))
        title = f"{what}, {'trained' if trained else 'untrained'}: gradient that arrives at step t"
        left.set(title=title, xlabel="step t", ylabel="‖∂loss/∂hₜ‖ (thin: ∂cₜ), median")
        right.axhline(1, color="#999999", linewidth=0.8, zorder=0)
        right.set(title="what one step does to it", xlabel="step t", ylabel="largest singular value", ylim=(0, None))
        right.legend(fontsize=9, **BESIDE)
    return figure


def _curve_style(curve: dict[str, Any], number: int) -> dict[str, Any]:
    """RNN in orange with squares, LSTM in ink, so that kinds can be told apart; dashes tell the members of a kind."""
    dashes: Any = ["-", "--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)), (0, (1, 3))][number % 6]
    kind = {"color": WRONG, "marker": "s", "markersize": 4} if curve["cell"] == "rnn" else {"color": INK}
    return {**kind, "linestyle": dashes, "linewidth": 1.6}


# -------------------------------------------------------------------------------------------------------------- memory

TASK_TITLES = {
    "order": ("temporal order", "length T of the sequence (steps)"),
    "adding": ("adding", "length T of the sequence (steps)"),
    "copy": ("copy", "pause before the symbols are repeated (steps)"),
    "rows": ("MNIST rows, then blank rows", "blank rows after the digit (steps)"),
}
MEMORY_LABELS = ("trainings that solved it (%)", "right answers, median (%)", "sequences needed, median")
PUBLISHED = {"adding": (100, 74_000, "LSTM in 1997: 74,000")}
CELLS: dict[str, dict[str, Any]] = {
    "lstm": {"color": INK, "linestyle": "-", "marker": "o", "label": "LSTM"},
    "rnn": {"color": WRONG, "linestyle": "--", "marker": "s", "label": "vanilla RNN (tanh)"},
    "irnn": {"color": ACCENT, "linestyle": ":", "marker": "^", "label": "RNN with max(0, ·), W = 1 to begin with"},
}


@styled
def draw_memory(rows: Sequence[dict[str, Any]]) -> Figure:
    """Success rate, right answers and sequences needed against length, one column a task.

    Args:
        rows: what `unroll.insight.memory.summary` returned.
    """
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    size = (3.9 * len(tasks) + 0.6, 8.4)
    figure, grid = subplots(3, len(tasks), figsize=size, squeeze=False, layout="constrained")
    for column, task in enumerate(tasks):
        members = [row for row in rows if row["task"] == task]
        lengths = sorted({row["length"] for row in members})
        place = {length: k for k, length in enumerate(lengths)}
        success, right, needed = grid[:, column]
        for axes in grid[:, column]:
            axes.grid(True)
        for cell, style in CELLS.items():
            own = sorted((row for row in members if row["cell"] == cell), key=lambda row: row["length"])
            x = [place[row["length"]] for row in own]
            success.plot(x, [100 * row["solved"] / row["seeds"] for row in own], **style)
            right.plot(x, [100 * row["right"] for row in own], **style)
            solved = [row for row in own if row["sequences"] is not None]
            needed.semilogy([place[row["length"]] for row in solved], [row["sequences"] for row in solved], **style)
        if task in PUBLISHED and PUBLISHED[task][0] in place:
            length, count, text = PUBLISHED[task]
            needed.plot(place[length], count, marker="*", markersize=11, color="#7a7a7a", linestyle="none", label=text)
        title, unit = TASK_TITLES[task]
        success.set(title=title, ylim=(-5, 105))
        right.set(ylim=(0, 105))
        needed.set(xlabel=unit, ylim=(500, 300_000))
        for axes in grid[:, column]:
            axes.set_xticks(range(len(lengths)), map(str, lengths))
            axes.set_xlim(-0.4, len(lengths) - 0.6)
    for axes, label in zip(grid[:, 0], MEMORY_LABELS, strict=True):
        axes.set_ylabel(label)
    seen = {handle.get_label(): handle for axes in grid[2] for handle in axes.get_legend_handles_labels()[0]}
    figure.legend(seen.values(), seen.keys(), loc="outside lower center", ncol=len(seen))
    return figure
