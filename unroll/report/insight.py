"""Figures of what happens inside: traces, gradients through time, ablations, memory. All can be read in greyscale."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage

from unroll.insight.trace import Trace, decided
from unroll.report.figures import ACCENT, INK, STYLE, WRONG, save_figure

Array = NDArray[Any]
P = ParamSpec("P")

# Both maps grow steadily in lightness, so that a grey print keeps their order.
SHARE, SIGNED = "Greys", "cividis"
TITLES = {
    "f": "forget gate f: share of c that is kept",
    "i": "input gate i: share of the candidate let in",
    "c_tilde": "candidate c̃: what could be written",
    "o": "output gate o: share of tanh(c) shown",
    "c": "cell state c: what is remembered",
    "h": "hidden state h: what the next step and the readout see",
    "s": "hidden state s",
}
LINES: list[dict[str, Any]] = [
    {"color": INK, "linestyle": "-"},
    {"color": ACCENT, "linestyle": "--"},
    {"color": WRONG, "linestyle": "-."},
    {"color": "#7a7a7a", "linestyle": "-"},
    {"color": "#4f8f4f", "linestyle": ":"},
    {"color": "#8c6bb1", "linestyle": (0, (6, 2, 1, 2, 1, 2))},
]


def save_insight(figure: Figure, path: Path) -> Path:
    """Write `path`.png and `path`.svg, making the folder; the PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_figure(figure, path)


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """The house style for everything that `draw` makes."""

    style: Any = STYLE

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with plt.rc_context(style):
            return draw(*args, **kwargs)

    return drawn


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
    sequence: int = 0,
    layer: int = -1,
    direction: str = "forward",
) -> Figure:
    """One sequence of a trace: its input, the probability of each class after each step, every gate and state.

    Args:
        trace: what `unroll.insight.trace.trace` found.
        words: the sentence, if it is one.
        picture: whether the sequence is a picture read row by row.
        truth: the true class, if it is known.
        sequence, layer, direction: which ones to draw.
    """
    T = int(trace.lengths[sequence])
    known = trace.names()
    names = sorted(known, key=lambda name: [*TITLES, *known].index(name))
    found: dict[str, Array] = {name: trace(name, layer, direction)[:T, sequence] for name in names}
    state = "c" if "c" in found else known[-1]
    order = unit_order(found[state])
    rows = -(-len(names) // 2) if len(names) > 1 else 1
    heights = [1.45 if picture else 0.5 if words else 1.1, 1.9, *[1.9] * rows, 2.1]
    step = "row read, t" if picture else "word read, t" if words else "time step, t"
    figure = plt.figure(figsize=(11, sum(heights) + 0.55 * len(heights)), layout="constrained")
    bands: Any = figure.subfigures(len(heights), 1, height_ratios=heights)

    x = trace.x[:T, sequence]
    if picture:
        _filmstrip(bands[0], x, None if trace.p is None else trace.p[:T, sequence], trace.class_names)
    elif words:
        bands[0].text(0.5, 0.35, " ".join(words[:40]), ha="center", fontsize=12)
    else:
        axes = bands[0].subplots()
        axes.imshow(x.T, cmap="Greys", extent=(0.5, T + 0.5, -0.5, x.shape[1] - 0.5), **_MAP)
        axes.set(title="input x", ylabel="feature")
        _time_axis(axes, T, words)
    if trace.p is not None:
        _probabilities(bands[1].subplots(), trace.p[:T, sequence], trace.class_names, words, step, truth)
    columns = 2 if len(names) > 1 else 1
    for number, name in enumerate(names):
        if number % columns == 0:
            pair = bands[2 + number // columns].subplots(1, columns, squeeze=False)[0]
        _heat_map(bands[2 + number // columns], pair[number % columns], name, found[name][:, order], words, step)
    _busiest(bands[-1].subplots(), found[state], state, words, step)
    return figure


_MAP: dict[str, Any] = {"aspect": "auto", "interpolation": "nearest", "origin": "lower"}


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
    image = axes.imshow(p.T, cmap=SHARE, vmin=0, vmax=1, extent=(0.5, T + 0.5, -0.5, C - 0.5), **_MAP)
    leader = p.argmax(1)
    axes.plot(range(1, T + 1), leader, linestyle="none", marker="o", markersize=4, color=WRONG, markeredgecolor="white")
    axes.axvline(decided(p) - 0.5, color=ACCENT, linewidth=1.5, linestyle="--")
    label = names[leader[-1]] if names else str(leader[-1])
    known = "" if truth is None else f", it is {truth}"
    axes.set_title(
        f"When did it know? It says {label} (p = {p[-1].max():.2f}{known}); from step {decided(p)} on it never says"
        " anything else"
    )
    if C <= 30:
        axes.set_yticks(range(C), list(names) if names else None)
    axes.set(xlabel=step, ylabel="class")
    _time_axis(axes, T, words)
    axes.figure.colorbar(image, ax=axes, label="probability", pad=0.01)


def _heat_map(figure: Any, axes: Axes, name: str, values: Array, words: Sequence[str] | None, step: str) -> None:
    T, H = values.shape
    gate = bool(values.min() >= 0 and values.max() <= 1)  # a share of something; all others have signs
    bound = max(1.0, float(np.abs(values).max()))
    image = axes.imshow(
        values.T,
        cmap=SHARE if gate else SIGNED,
        vmin=0 if gate else -bound,
        vmax=bound,
        extent=(0.5, T + 0.5, 0.5, H + 0.5),
        **_MAP,
    )
    axes.set(title=TITLES.get(name, name), xlabel=step, ylabel="unit (similar ones together)")
    axes.set_yticks([1, H] if H > 8 else range(1, H + 1))
    _time_axis(axes, T, words)
    figure.colorbar(image, ax=axes, pad=0.01)


def _busiest(axes: Axes, values: Array, name: str, words: Sequence[str] | None, step: str, shown: int = 5) -> None:
    """The units whose state moves most between the first step and the last, added up."""
    T = len(values)
    travelled = np.abs(np.diff(values, axis=0, prepend=0)).sum(0)
    for unit, style in zip(np.argsort(-travelled)[:shown], LINES, strict=False):
        axes.plot(range(1, T + 1), values[:, unit], linewidth=1.5, label=f"unit {unit + 1}", **style)
    axes.axhline(0, color="#bbbbbb", linewidth=0.8, zorder=0)
    axes.set(title=f"The {min(shown, values.shape[1])} units whose {name} changes most", xlabel=step, ylabel=name)
    axes.set_xlim(0.5, T + 0.5)
    _time_axis(axes, T, words)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


# ----------------------------------------------------------------------------------------------- gradients through time


@styled
def draw_gradients(curves: Sequence[dict[str, Any]], clipped: Sequence[dict[str, Any]] = ()) -> Figure:
    """Gradient norms against time on the left, the largest singular value of one step's Jacobian on the right.

    Args:
        curves: what `unroll.insight.gradients.measure_runs` returned; one row for each way of reading and each of
            untrained and trained.
        clipped: what `unroll.insight.gradients.clipping` returned, without and with clipping, in a row of its own.
    """
    groups: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for curve in curves:
        groups.setdefault((curve["reading"], curve["trained"]), []).append(curve)
    rows = len(groups) + bool(clipped)
    figure, grid = plt.subplots(rows, 2, figsize=(11, 3.1 * rows), squeeze=False, layout="constrained")
    for (left, right), ((reading, trained), members) in zip(grid, groups.items(), strict=False):
        T = members[0]["T"]
        what = {"rows": f"{T} rows", "pixels": f"{T} pixels"}.get(reading, f"{T} steps")
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
            right.plot(jacobian["t"], jacobian["largest"], label=curve["label"], markevery=5, **style)
        left.set_ylim(bottom=max(left.get_ylim()[0], 1e-30))
        left.set_title(f"{what}, {'trained' if trained else 'untrained'}: gradient that arrives at step t")
        left.set(xlabel="step t", ylabel="‖∂loss/∂hₜ‖ (thin: ∂cₜ), median")
        right.axhline(1, color="#999999", linewidth=0.8, zorder=0)
        right.set(title="what one step does to it", xlabel="step t", ylabel="largest singular value", ylim=(0, None))
        right.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
        for axes in (left, right):
            axes.grid(True)
    if clipped:
        _clipping(grid[-1], clipped)
    return figure


def _curve_style(curve: dict[str, Any], number: int) -> dict[str, Any]:
    """RNN in orange with squares, LSTM in ink, so that kinds can be told apart; dashes tell the members of a kind."""
    dashes: Any = ["-", "--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)), (0, (1, 3))][number % 6]
    kind = {"color": WRONG, "marker": "s", "markersize": 4} if curve["cell"] == "rnn" else {"color": INK}
    return {**kind, "linestyle": dashes, "linewidth": 1.6}


def _clipping(pair: Any, clipped: Sequence[dict[str, Any]]) -> None:
    for run, style in zip(clipped, (LINES[2], LINES[0]), strict=False):
        label = "no clipping" if run["max_norm"] is None else f"clipped at norm {run['max_norm']:g}"
        steps = range(1, len(run["loss"]) + 1)
        length = run["learning_rate"] * np.clip(run["gradient_norm"], None, run["max_norm"])
        pair[0].plot(steps, length, linewidth=1.1, **style)
        pair[1].plot(steps, np.minimum(run["loss"], 10), label=label, linewidth=1.1, **style)
    pair[0].set(title="clipping on and off: the RNN on 28 rows", xlabel="update", ylabel="length of the update")
    pair[1].set(title="the loss meanwhile", xlabel="update", ylabel="loss (nats; cut off at 10)")
    pair[1].legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    for axes in pair:
        axes.grid(True)


# -------------------------------------------------------------------------------------------------------------- memory

TASK_TITLES = {
    "order": ("temporal order", "length T of the sequence (steps)"),
    "adding": ("adding", "length T of the sequence (steps)"),
    "copy": ("copy", "pause before the symbols are repeated (steps)"),
    "rows": ("MNIST rows, then blank rows", "blank rows after the digit (steps)"),
}
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
    figure, grid = plt.subplots(
        3, len(tasks), figsize=(3.9 * len(tasks) + 0.6, 8.4), squeeze=False, layout="constrained"
    )
    for column, task in enumerate(tasks):
        members = [row for row in rows if row["task"] == task]
        lengths = sorted({row["length"] for row in members})
        place = {length: k for k, length in enumerate(lengths)}
        success, right, needed = grid[:, column]
        for cell, style in CELLS.items():
            own = sorted((row for row in members if row["cell"] == cell), key=lambda row: row["length"])
            x = [place[row["length"]] for row in own]
            success.plot(x, [100 * row["solved"] / row["seeds"] for row in own], **style)
            right.plot(x, [100 * row["right"] for row in own], **style)
            solved = [row for row in own if row["sequences"] is not None]
            needed.semilogy([place[row["length"]] for row in solved], [row["sequences"] for row in solved], **style)
        needed.set_ylim(500, 300_000)
        if task in PUBLISHED and PUBLISHED[task][0] in place:
            length, count, text = PUBLISHED[task]
            needed.plot(place[length], count, marker="*", markersize=11, color="#7a7a7a", linestyle="none", label=text)
        success.set_title(TASK_TITLES[task][0])
        for axes in (success, right, needed):
            axes.set_xticks(range(len(lengths)), [str(length) for length in lengths])
            axes.set_xlim(-0.4, len(lengths) - 0.6)
            axes.grid(True)
        success.set_ylim(-5, 105)
        right.set_ylim(0, 105)
        needed.set_xlabel(TASK_TITLES[task][1])
    grid[0, 0].set_ylabel("trainings that solved it (%)")
    grid[1, 0].set_ylabel("right answers, median (%)")
    grid[2, 0].set_ylabel("sequences needed, median")
    seen: dict[str, Any] = {}
    for axes in grid[2]:
        handles, labels = axes.get_legend_handles_labels()
        seen |= dict(zip(labels, handles, strict=True))
    figure.legend(seen.values(), seen.keys(), frameon=False, loc="outside lower center", ncol=len(seen))
    return figure


# ------------------------------------------------------------------------------------- states, gates, removals, sizes


@styled
def draw_states(found: dict[str, dict[str, Any]], step: str = "row read, t") -> Figure:
    """When each model knows, and what of each step can be read back from its last state.

    Args:
        found: by model ("lstm", "rnn"): a ``label``, ``right`` of `unroll.insight.states.knowing`, ``recall`` of `recall`.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for cell, values in found.items():
        style = {**CELLS[cell], "markersize": 4, "label": values.get("label", CELLS[cell]["label"])}
        t = range(1, len(values["right"]) + 1)
        left.plot(t, [100 * share for share in values["right"]], **style)
        shown = [(k, share) for k, share in zip(t, values["recall"], strict=True) if share is not None]
        right.plot(*zip(*shown, strict=True), **style)
    left.set(xlabel=step, ylabel="right answers if asked now (%)", title="When does it know?", ylim=(0, 102))
    right.set(
        xlabel="row t, to be read back after the last row",
        ylabel="share of the row's variance (R²)",
        title="What does the last state still hold?",
        ylim=(min(0, right.get_ylim()[0]), 1),
    )
    for axes in (left, right):
        axes.grid(True)
        axes.legend(frameon=False)
    return figure


@styled
def draw_gates(found: dict[str, Any], step: str = "row read, t") -> Figure:
    """The gates' means over the steps, and from which steps what is left at the end was written.

    Args:
        found: what `unroll.insight.states.gate_use` returned.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    titles = {"f": "forget gate f", "i": "input gate i", "o": "output gate o"}
    for name, style in zip(titles, LINES, strict=False):
        values = found[name]["by_step"]
        left.plot(range(1, len(values) + 1), values, label=titles[name], linewidth=1.6, **style)
    left.set(xlabel=step, ylabel="mean over units and pictures", title="How far the gates are open", ylim=(0, 1))
    left.legend(frameon=False)
    t = range(1, len(found["left"]) + 1)
    right.bar(t, [100 * share for share in found["left"]], color="#9a9a9a", edgecolor=INK, linewidth=0.5)
    right.set(xlabel=step, ylabel="share of what is left at the end (%)", title="When was it written?")
    for axes in (left, right):
        axes.grid(True)
        axes.set_axisbelow(True)
    return figure


@styled
def draw_ablation(rows: Sequence[dict[str, Any]]) -> Figure:
    """Test accuracy of each variant: every seed a dot, the mean a bar.

    Args:
        rows: what `unroll.insight.ablate.table` returned.
    """
    figure, axes = plt.subplots(figsize=(7.6, 0.52 * len(rows) + 1.2), layout="constrained")
    for place, row in enumerate(rows):
        shares = [100 * accuracy for accuracy in row["accuracies"]]
        whole = row["removed"] is None
        axes.plot(shares, [place] * len(shares), "o", color=ACCENT if whole else INK, markersize=5, alpha=0.75)
        axes.plot([100 * row["mean"]] * 2, [place - 0.28, place + 0.28], color=ACCENT if whole else INK, linewidth=2)
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
    figure, pair = plt.subplots(1, 2, figsize=(9.4, 3.6), layout="constrained", sharey=True)
    units = (("parameters", "parameters"), ("milliseconds", "time of a training step (ms, batch of 64)"))
    for axes, (key, label) in zip(pair, units, strict=True):
        for row in rows:
            shares = [100 * accuracy for accuracy in row["accuracies"]]
            style = {key: value for key, value in CELLS[row["cell"]].items() if key != "label"} | {"linestyle": "none"}
            axes.plot([row[key]] * len(shares), shares, markersize=6, alpha=0.8, **style)
            axes.annotate(row["name"], (row[key], max(shares)), textcoords="offset points", xytext=(0, 8), ha="center")
        axes.set(xlabel=label, xlim=(0, 1.25 * max(row[key] for row in rows)))
        axes.margins(y=0.25)
        axes.grid(True)
    pair[0].set_ylabel("test accuracy (%), each training a mark")
    return figure
