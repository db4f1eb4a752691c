"""Figures of what happens inside: traces, gradients through time, ablations, memory. All can be read in greyscale."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage

from unroll.insight.trace import Trace, decided
from unroll.report.figures import ACCENT, INK, WRONG, as_label, save_figure, side_by_side, styled

Array = NDArray[Any]

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
BESIDE: dict[str, Any] = {"loc": "center left", "bbox_to_anchor": (1, 0.5)}  # a legend right of its axes
LINES: list[dict[str, Any]] = [
    {"color": INK, "linestyle": "-"},
    {"color": ACCENT, "linestyle": "--"},
    {"color": WRONG, "linestyle": "-."},
    {"color": "#7a7a7a", "linestyle": "-"},
    {"color": "#4f8f4f", "linestyle": ":"},
    {"color": "#8c6bb1", "linestyle": (0, (6, 2, 1, 2, 1, 2))},
]


save_insight = save_figure


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
    class_names = [as_label(name, 20) for name in trace.class_names]
    words = None if words is None else [as_label(word, 20) for word in words]
    known = trace.names()
    names = sorted(known, key=lambda name: [*TITLES, *known].index(name))
    found: dict[str, Array] = {name: trace(name, layer, direction)[:T, sequence] for name in names}
    state = "c" if "c" in found else known[-1]
    order = unit_order(found[state])
    columns = min(2, len(names))
    heights = [1.45 if picture else 0.5 if words else 1.1, 1.9, *[1.9] * -(-len(names) // columns), 2.1]
    step = "row read, t" if picture else "word read, t" if words else "time step, t"
    figure = plt.figure(figsize=(11, sum(heights) + 0.55 * len(heights)), layout="constrained")
    bands: Any = figure.subfigures(len(heights), 1, height_ratios=heights)

    x = trace.x[:T, sequence]
    p = None if trace.p is None else trace.p[:T, sequence]
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
        _heat_map(axes, name, found[name][:, order], words, step)
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


def _heat_map(axes: Axes, name: str, values: Array, words: Sequence[str] | None, step: str) -> None:
    H = values.shape[1]
    bound = max(1.0, float(np.abs(values).max()))
    gate = bool(values.min() >= 0 and values.max() <= 1)  # a share of something; all others have signs
    scale: dict[str, Any] = {"cmap": SHARE, "vmin": 0} if gate else {"cmap": SIGNED, "vmin": -bound}
    image = _image(axes, values, words, 1, vmax=bound, **scale)
    axes.set(title=TITLES.get(name, name), xlabel=step, ylabel="unit (similar ones together)")
    axes.set_yticks([1, H] if H > 8 else range(1, H + 1))
    axes.figure.colorbar(image, ax=axes, pad=0.01)


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
    axes.legend(**BESIDE)


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
    pair[1].legend(fontsize=9, **BESIDE)


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
    figure, grid = plt.subplots(3, len(tasks), figsize=size, squeeze=False, layout="constrained")
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


# ------------------------------------------------------------------------------------- states, gates, removals, sizes


@styled
def draw_states(found: dict[str, dict[str, Any]], step: str = "row read, t") -> Figure:
    """When each model knows, and what of each step can be read back from its last state.

    Args:
        found: by model ("lstm", "rnn"): a ``label``, ``right`` of `unroll.insight.states.knowing`, ``recall`` of `recall`.
    """
    figure, (left, right) = side_by_side(10, 3.8)
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
    left.legend()
    right.legend()
    return figure


@styled
def draw_gates(found: dict[str, Any], step: str = "row read, t") -> Figure:
    """The gates' means over the steps, and from which steps what is left at the end was written.

    Args:
        found: what `unroll.insight.states.gate_use` returned.
    """
    figure, (left, right) = side_by_side(10, 3.8)
    titles = {"f": "forget gate f", "i": "input gate i", "o": "output gate o"}
    for name, style in zip(titles, LINES, strict=False):
        values = found[name]["by_step"]
        left.plot(range(1, len(values) + 1), values, label=titles[name], linewidth=1.6, **style)
    left.set(xlabel=step, ylabel="mean over units and pictures", title="How far the gates are open", ylim=(0, 1))
    left.legend()
    t = range(1, len(found["left"]) + 1)
    right.bar(t, [100 * share for share in found["left"]], color="#9a9a9a", edgecolor=INK, linewidth=0.5)
    right.set(xlabel=step, ylabel="share of what is left at the end (%)", title="When was it written?")
    left.set_axisbelow(True)
    right.set_axisbelow(True)
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
