"""Several runs beside each other: what differs in their recipes, how well they do, and whether that is chance.

Two models that read the same test sequences are compared on those that only one of them gets right, with McNemar's test
(Psychometrika 12(2), 1947) in its exact form: under chance alone these would fall to either side like coins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from unroll.errors import InputError
from unroll.training.run import RunFolder

SKIPPED = ("name", "about", "log", "log_every")  # fields of a recipe that change nothing in a model


@dataclass
class RunRow:
    """One run; accuracy, interval and loss are None where it was not tested."""

    name: str
    accuracy: float | None
    interval95: tuple[float, float] | None
    correct: int | None
    total: int | None
    loss: float | None
    parameters: int
    epochs: int
    seconds: float
    losses: list[float] = field(repr=False)


@dataclass
class Pair:
    """Two runs on the same test sequences: how many only one of them reads correctly, and McNemar's p."""

    first: str
    second: str
    only_first: int
    only_second: int
    p: float


@dataclass
class Comparison:
    """Runs beside each other; `differences` holds the values of every recipe field that is not the same in all."""

    runs: list[RunRow]
    differences: dict[str, list[Any]]
    pairs: list[Pair]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def compare(folders: Sequence[RunFolder]) -> Comparison:
    """Set runs beside each other.

    Raises:
        InputError: fewer than two runs were given, or one twice.
        RunError: a run is not finished.
    """
    if len(folders) < 2:
        raise InputError(f"{len(folders)} run was given; expected at least two to compare")
    if len({folder.path.resolve() for folder in folders}) < len(folders):
        raise InputError("the same run was given twice; name each once")
    names = [folder.path.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder.path) for folder in folders]
    rows = [_row(folder, name) for folder, name in zip(folders, names, strict=True)]

    recipes = [folder.recipe.model_dump() for folder in folders]
    fields = dict.fromkeys(name for recipe in recipes for name in recipe if name not in SKIPPED)
    values = {name: [recipe.get(name, "–") for recipe in recipes] for name in fields}
    differences = {name: found for name, found in values.items() if any(value != found[0] for value in found)}

    pairs: list[Pair] = []
    notes: list[str] = []
    tested = [
        (name, *_right(folder)) for folder, name, row in zip(folders, names, rows, strict=True) if row.total is not None
    ]
    for (first, y_first, right_first), (second, y_second, right_second) in combinations(tested, 2):
        if not np.array_equal(y_first, y_second):
            notes.append(f"{first} and {second} were tested on different sequences; their accuracies cannot be paired")
            continue
        only_first = int((right_first & ~right_second).sum())
        only_second = int((right_second & ~right_first).sum())
        pairs.append(Pair(first, second, only_first, only_second, mcnemar(only_first, only_second)))
    for name, row in zip(names, rows, strict=True):
        if row.total is None:
            notes.append(f"{name} was not tested")
    if len(pairs) > 1:
        notes.append(f"p is not corrected for making {len(pairs)} comparisons; multiply it by {len(pairs)} to be safe")
    return Comparison(rows, differences, pairs, notes)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p of McNemar's test.

    >>> mcnemar(0, 0), round(mcnemar(2, 10), 6)
    (1.0, 0.038574)
    """
    total = only_first + only_second
    return 1.0 if total == 0 else float(binomtest(only_first, total).pvalue)


def _row(folder: RunFolder, name: str) -> RunRow:
    metrics = folder.metrics()
    test = metrics.get("test", {})
    interval = test.get("interval95")
    return RunRow(
        name=name,
        accuracy=test.get("accuracy"),
        interval95=None if interval is None else (interval[0], interval[1]),
        correct=test.get("correct"),
        total=test.get("total"),
        loss=test.get("loss"),
        parameters=metrics["parameters"],
        epochs=metrics["epochs"],
        seconds=metrics["seconds"]["training"],
        losses=[row["loss"] for row in folder.history()],
    )


def _right(folder: RunFolder) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """True classes (N,) of the test sequences, and which of them the model reads correctly (N,)."""
    saved = folder.predictions()
    return saved["y"], saved["p"].argmax(1) == saved["y"]


# -------------------------------------------------------------------------------------------------------------- text


def lines(comparison: Comparison) -> list[str]:
    """The comparison as text tables."""
    rows = [["run", "accuracy", "95% interval", "loss", "parameters", "epochs", "training"]]
    for run in comparison.runs:
        if run.accuracy is None or run.interval95 is None:
            tested = ["–", "–", "–"]
        else:
            low, high = run.interval95
            tested = [f"{100 * run.accuracy:.2f}%", f"{100 * low:.2f} to {100 * high:.2f}%", f"{run.loss:.4f}"]
        rows.append([run.name, *tested, f"{run.parameters:,}", str(run.epochs), f"{run.seconds:.1f} s"])
    found = [*_columns(rows), ""]
    if comparison.differences:
        header = ["recipe", *(run.name for run in comparison.runs)]
        table = [[name.replace("_", " "), *map(_shown, values)] for name, values in comparison.differences.items()]
        found += [*_columns([header, *table]), ""]
    else:
        found += ["The recipes are the same.", ""]
    if comparison.pairs:
        header = ["McNemar test", "only the first right", "only the second right", "p"]
        table = [
            [f"{pair.first} / {pair.second}", str(pair.only_first), str(pair.only_second), _p(pair.p)]
            for pair in comparison.pairs
        ]
        found += [*_columns([header, *table]), ""]
    return found + comparison.notes if comparison.notes else found[:-1]


def _columns(rows: list[list[str]]) -> list[str]:
    """Rows of words -> lines with the first column flush left, all others flush right."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        "  ".join(
            word.ljust(width) if k == 0 else word.rjust(width)
            for k, (word, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _p(p: float) -> str:
    if p < 1e-300:
        return "< 1e-300"
    return f"{p:.2g}" if p < 0.01 else f"{p:.3f}"


# ------------------------------------------------------------------------------------------------------------ figure


def draw_comparison(comparison: Comparison, path: Path) -> Path:
    """Loss curves and accuracies with their intervals, as PNG and SVG; runs differ in line and marker too.

    Raises:
        InputError: the path ends in neither .png nor .svg, or cannot be written.
    """
    if path.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"the figure is {path}; expected a name that ends in .png")
    import matplotlib

    from unroll.report.figures import STYLE, save_figure

    with matplotlib.rc_context(STYLE):
        figure = _draw(comparison)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return save_figure(figure, path.with_suffix(""))
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}; choose another with --figure") from None


def _draw(comparison: Comparison) -> Any:
    import matplotlib.pyplot as plt

    colours = ["#1f4e8c", "#c1440e", "#2b7a5b", "#6a3d9a", "#8a6d00", "#1a1a1a"]
    strokes: list[Any] = ["-", (0, (5, 2)), (0, (1, 1.2)), (0, (6, 2, 1, 2)), (0, (3, 1)), "-"]
    markers = ["o", "s", "^", "D", "v", "x"]
    count = len(comparison.runs)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, max(3.6, 1.6 + 0.4 * count)), layout="constrained")
    for k, run in enumerate(comparison.runs):
        colour, stroke, marker = colours[k % 6], strokes[k % 6], markers[k % 6]
        epochs = range(1, len(run.losses) + 1)
        dots = marker if len(run.losses) <= 30 else None
        left.plot(epochs, run.losses, color=colour, linestyle=stroke, marker=dots, markersize=4, label=run.name)
        if run.accuracy is not None and run.interval95 is not None:
            low, high = run.interval95
            reach = [[100 * (run.accuracy - low)], [100 * (high - run.accuracy)]]
            right.errorbar(100 * run.accuracy, k, xerr=reach, color=colour, marker=marker, capsize=3, linestyle="none")
            right.annotate(
                f"{100 * run.accuracy:.2f}%", (100 * run.accuracy, k), xytext=(0, 7), textcoords="offset points",
                ha="center", fontsize=9, color=colour,
            )  # fmt: skip
    left.set(title="Training loss", xlabel="Epoch", ylabel="Loss (cross-entropy, nats)")
    left.set_ylim(bottom=0)
    left.xaxis.get_major_locator().set_params(integer=True)
    left.grid(True)
    left.legend(frameon=False)
    right.set(title="Test accuracy with 95% interval", xlabel="Accuracy (%)")
    right.set_yticks(range(count), [run.name for run in comparison.runs])
    right.set_ylim(count - 0.4, -0.7)
    right.margins(x=0.15)
    right.grid(True, axis="x")
    return figure
