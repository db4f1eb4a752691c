"""Several runs beside each other: what differs in their recipes, how well they do, and whether that is chance.

Two models that read the same test sequences are compared on those that only one of them gets right, with McNemar's test
(Psychometrika 12(2), 1947) in its exact form: under chance alone these would fall to either side like coins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import binomtest

from unroll.errors import InputError
from unroll.files import refuse_foreign
from unroll.report.blocks import aligned, percent, shown
from unroll.report.figures import as_label, figure_files, save_figure, side_by_side, styled
from unroll.training.run import RunFolder

SKIPPED = ("name", "about", "log", "log_every")  # fields of a recipe that change nothing in a model
RAN_WITH = ("unroll", "python", "torch", "numpy", "processor", "processes", "threads", "engine")


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
    """Runs beside each other.

    Attributes:
        runs: name, size, times and losses of each; accuracy, its interval and loss are None where it was not tested.
        differences: the values of every recipe field that is not the same in all.
        ran_with: likewise of versions and machine, with which times and last digits differ too.
    """

    runs: list[dict[str, Any]]
    differences: dict[str, list[Any]]
    ran_with: dict[str, list[Any]]
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

    differences = _differing([folder.recipe.model_dump() for folder in folders])
    differences = {name: values for name, values in differences.items() if name not in SKIPPED}
    ran_with = _differing([{name: folder.facts.get(name, "–") for name in RAN_WITH} for folder in folders])

    pairs: list[Pair] = []
    notes: list[str] = []
    tested = {
        row["name"]: folder.predictions() for folder, row in zip(folders, rows, strict=True) if row["total"] is not None
    }
    for (first, a), (second, b) in combinations(tested.items(), 2):
        if not np.array_equal(a["y"], b["y"]):
            notes.append(f"{first} and {second} were tested on different sequences; their accuracies cannot be paired")
            continue
        right_a, right_b = (saved["p"].argmax(1) == saved["y"] for saved in (a, b))
        only_first, only_second = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
        pairs.append(Pair(first, second, only_first, only_second, mcnemar(only_first, only_second)))
    notes += [f"{name} was not tested" for name in names if name not in tested]
    if len(pairs) > 1:
        notes.append(f"p is not corrected for making {len(pairs)} comparisons; multiply it by {len(pairs)} to be safe")
    return Comparison(rows, differences, ran_with, pairs, notes)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p of McNemar's test.

    >>> mcnemar(0, 0), round(mcnemar(2, 10), 6)
    (1.0, 0.038574)
    """
    total = only_first + only_second
    return 1.0 if total == 0 else float(binomtest(only_first, total).pvalue)


def _differing(of_each: list[dict[str, Any]]) -> dict[str, list[Any]]:
    values = {
        name: [one.get(name, "–") for one in of_each] for name in dict.fromkeys(k for one in of_each for k in one)
    }
    return {name: found for name, found in values.items() if any(value != found[0] for value in found)}


def _row(folder: RunFolder, name: str) -> dict[str, Any]:
    metrics = folder.metrics()
    test = metrics.get("test", {})
    return {
        "name": name,
        **{key: test.get(key) for key in ("accuracy", "interval95", "correct", "total", "loss")},
        "parameters": metrics["parameters"],
        "epochs": metrics["epochs"],
        "seconds": metrics["seconds"]["training"],
        "losses": [row["loss"] for row in folder.history()],
    }


def lines(comparison: Comparison) -> list[str]:
    """The comparison as text tables."""
    rows = [["run", "accuracy", "95% interval", "loss", "parameters", "epochs", "training"]]
    for run in comparison.runs:
        tested = ["–", "–", "–"]
        if run["accuracy"] is not None:
            low, high = run["interval95"]
            tested = [percent(run["accuracy"]), f"{100 * low:.2f} to {percent(high)}", f"{run['loss']:.4f}"]
        rows.append([run["name"], *tested, f"{run['parameters']:,}", str(run["epochs"]), f"{run['seconds']:.1f} s"])
    found = [*aligned(rows, ">"), ""]
    if comparison.differences:
        rows = [["recipe", *(run["name"] for run in comparison.runs)]]
        rows += [[name.replace("_", " "), *map(shown, values)] for name, values in comparison.differences.items()]
        found += [*aligned(rows, ">"), ""]
    else:
        found += ["The recipes are the same.", ""]
    if comparison.ran_with:
        rows = [["ran with", *(run["name"] for run in comparison.runs)]]
        rows += [[name, *map(str, values)] for name, values in comparison.ran_with.items()]
        found += [*aligned(rows, ">"), ""]
    if comparison.pairs:
        rows = [["McNemar test", "only the first right", "only the second right", "p"]]
        for pair in comparison.pairs:
            p = f"{pair.p:.3f}" if pair.p >= 0.01 else f"{pair.p:.2g}" if pair.p >= 1e-300 else "< 1e-300"
            rows.append([f"{pair.first} / {pair.second}", str(pair.only_first), str(pair.only_second), p])
        found += [*aligned(rows, ">"), ""]
    return found + comparison.notes if comparison.notes else found[:-1]


# ------------------------------------------------------------------------------------------------------------ figure

STYLES: list[tuple[str, Any, str]] = [  # colour, line, marker
    ("#1f4e8c", "-", "o"),
    ("#c1440e", (0, (5, 2)), "s"),
    ("#2b7a5b", (0, (1, 1.2)), "^"),
    ("#6a3d9a", (0, (6, 2, 1, 2)), "D"),
    ("#8a6d00", (0, (3, 1)), "v"),
    ("#1a1a1a", "-", "x"),
]


def comparison_files(path: Path) -> tuple[Path, Path]:
    """What `draw_comparison` writes, PNG and SVG.

    Raises:
        InputError: the path ends in neither .png nor .svg.
    """
    if path.suffix.lower() not in (".png", ".svg"):
        raise InputError(f"the figure is {path}; expected a name that ends in .png")
    return figure_files(path.with_suffix(""))


def draw_comparison(comparison: Comparison, path: Path) -> Path:
    """Loss curves and accuracies with their intervals, as PNG and SVG; runs differ in line and marker too.

    Raises:
        InputError: the path ends in neither .png nor .svg, or cannot be written.
    """
    refuse_foreign(*comparison_files(path))
    figure = _draw(comparison.runs)
    try:
        return save_figure(figure, path.with_suffix(""))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another with --figure") from None


@styled
def _draw(runs: list[dict[str, Any]]) -> Figure:
    figure, (left, right) = side_by_side(9.6, max(3.6, 1.6 + 0.4 * len(runs)))
    right.grid(False, axis="y")
    for k, run in enumerate(runs):
        colour, stroke, marker = STYLES[k % len(STYLES)]
        epochs = range(1, len(run["losses"]) + 1)
        dots = marker if len(epochs) <= 30 else None
        left.plot(
            epochs,
            run["losses"],
            color=colour,
            linestyle=stroke,
            marker=dots,
            markersize=4,
            label=as_label(run["name"]),
        )
        if run["accuracy"] is not None:
            share, low, high = (100 * value for value in (run["accuracy"], *run["interval95"]))
            reach = [[share - low], [high - share]]
            right.errorbar(share, k, xerr=reach, color=colour, marker=marker, capsize=3, linestyle="none")
            above: dict[str, Any] = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
            right.annotate(f"{share:.2f}%", (share, k), fontsize=9, color=colour, **above)
    left.set(title="Training loss", xlabel="Epoch", ylabel="Loss (cross-entropy, nats)", ylim=(0, None))
    left.xaxis.get_major_locator().set_params(integer=True)
    left.legend()
    right.set(title="Test accuracy with 95% interval", xlabel="Accuracy (%)", ylim=(len(runs) - 0.4, -0.7))
    right.set_yticks(range(len(runs)), [as_label(run["name"]) for run in runs])
    right.margins(x=0.15)
    return figure
