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

from unroll.errors import InputError
from unroll.insight.trace import Trace, decided
from unroll.report.figures import ACCENT, INK, STYLE, WRONG, save_figure

Array = NDArray[Any]
P = ParamSpec("P")

# Both maps grow steadily in lightness, so that a grey print keeps their order.
SHARE, SIGNED = "Greys", "cividis"
TITLES = {
    "f": "forget gate f: share of c that is kept",
    "i": "input gate i: share of the candidate let in",
    "o": "output gate o: share of tanh(c) shown",
    "c_tilde": "candidate c̃: what could be written",
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
    """Write `path`.png and `path`.svg, making the folder; the PNG.

    Raises:
        InputError: the folder cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InputError(f"{path.parent} cannot be a folder: a file stands in the way; name another") from None
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
    names = [name for name in ("f", "i", "c_tilde", "o", "c", "h", "s") if name in trace.names()]
    found: dict[str, Array] = {name: trace(name, layer, direction)[:T, sequence] for name in names}
    state = "c" if "c" in found else "s"
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
    gate = name in ("f", "i", "o")
    bound = 1.0 if name != "c" else max(1.0, float(np.abs(values).max()))
    image = axes.imshow(
        values.T,
        cmap=SHARE if gate else SIGNED,
        vmin=0 if gate else -bound,
        vmax=bound,
        extent=(0.5, T + 0.5, 0.5, H + 0.5),
        **_MAP,
    )
    axes.set(title=TITLES[name], xlabel=step, ylabel="unit (similar ones together)")
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
    """Gradient norms against time above, the largest singular value of one step's Jacobian below.

    Args:
        curves: what `unroll.insight.gradients.measure_runs` returned; one column for each way of reading and each of
            untrained and trained.
        clipped: what `unroll.insight.gradients.clipping` returned, with and without clipping, in a column of its own.
    """
    groups: dict[tuple[str, bool], list[dict[str, Any]]] = {}
    for curve in curves:
        groups.setdefault((curve["reading"], curve["trained"]), []).append(curve)
    columns = len(groups) + bool(clipped)
    figure, grid = plt.subplots(2, columns, figsize=(4.6 * columns, 7.2), squeeze=False, layout="constrained")
    for column, ((reading, trained), members) in enumerate(groups.items()):
        T = members[0]["T"]
        what = {"rows": f"{T} rows", "pixels": f"{T} pixels"}.get(reading, f"{T} steps")
        upper, lower = grid[:, column]
        for number, curve in enumerate(members):
            style = _curve_style(curve, [other["cell"] for other in members[:number]].count(curve["cell"]))
            for name, norms in curve["norms"].items():
                steps = np.arange(1, T + 1)
                thin = name == "c"
                label = curve["label"] if not thin else None
                upper.semilogy(steps, np.clip(norms["median"], 1e-300, None), label=label, **(style | _thinner(thin)))
                if trained and not thin:
                    upper.fill_between(
                        steps, norms["low"], norms["high"], color=style["color"], alpha=0.15, linewidth=0
                    )
            jacobian = curve["jacobian"]
            lower.plot(jacobian["t"], jacobian["largest"], label=curve["label"], **style)
        upper.set(title=f"{what}, {'trained' if trained else 'untrained'}", xlabel="step t")
        lower.axhline(1, color="#999999", linewidth=0.8, zorder=0)
        lower.set(xlabel="step t", ylim=(0, None))
        bottom = upper.get_ylim()[0]
        upper.set_ylim(bottom=max(bottom, 1e-30))
        lower.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncol=2)
        for axes in (upper, lower):
            axes.grid(True)
    grid[0, 0].set_ylabel("‖∂loss/∂h_t‖, ‖∂loss/∂s_t‖ (thin: ‖∂loss/∂c_t‖)\nmedian over the inputs")
    grid[1, 0].set_ylabel("largest singular value of one step's Jacobian")
    if clipped:
        _clipping(grid[:, -1], clipped)
    return figure


def _curve_style(curve: dict[str, Any], number: int) -> dict[str, Any]:
    """RNN in orange, LSTM in ink, so that kinds can be told apart; dashes tell the members of a kind."""
    dashes: Any = ["-", "--", ":", "-.", (0, (6, 2, 1, 2, 1, 2)), (0, (1, 3))][number % 6]
    return {"color": WRONG if curve["cell"] == "rnn" else INK, "linestyle": dashes, "linewidth": 1.6}


def _thinner(thin: bool) -> dict[str, Any]:
    return {"linewidth": 0.7} if thin else {}


def _clipping(pair: Any, clipped: Sequence[dict[str, Any]]) -> None:
    for run, style in zip(clipped, (LINES[2], LINES[0]), strict=False):
        label = "no clipping" if run["max_norm"] is None else f"clipped at norm {run['max_norm']:g}"
        steps = range(1, len(run["loss"]) + 1)
        pair[0].semilogy(steps, run["gradient_norm"], label=label, linewidth=1.1, **style)
        pair[1].plot(steps, np.minimum(run["loss"], 10), label=label, linewidth=1.1, **style)
    pair[0].set(title="clipping on and off", xlabel="update", ylabel="gradient norm before clipping")
    pair[1].set(xlabel="update", ylabel="loss (nats; cut off at 10)")
    for axes in pair:
        axes.legend(frameon=False, fontsize=8)
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
    grid[2, 0].set_ylabel("training sequences needed, median")
    seen: dict[str, Any] = {}
    for axes in grid[2]:
        handles, labels = axes.get_legend_handles_labels()
        seen |= dict(zip(labels, handles, strict=True))
    figure.legend(seen.values(), seen.keys(), frameon=False, loc="outside lower center", ncol=len(seen))
    return figure
