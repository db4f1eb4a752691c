"""Ablation: take one part of the LSTM away, train again, and see what the part was worth.

The parts and their sources are in `unroll.cells.variants`. Every variant is trained by the run's own recipe, data order
and first weights, over several seeds; nothing is tuned anew for the variant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from unroll.cells import CELLS, cell_type, title_of
from unroll.cells.lstm import LSTMCell
from unroll.cells.variants import HELD_OPEN, REMOVALS, Removal, check_removal, keep_open, unread, without
from unroll.data.batches import Dataset
from unroll.errors import DataError, InputError
from unroll.models import SequenceModel
from unroll.training.evaluate import evaluated
from unroll.training.fit import Callback, Training
from unroll.training.recipe import AnyRecipe
from unroll.training.tasks import load_dataset
from unroll.training.train import fit_recipe
from unroll.training.trials import Trials, fingerprint, signature

Progress = Callable[[Iterable[Any]], Iterable[Any]]


def remove(model: SequenceModel, removed: Removal) -> None:
    """Take a part away from every LSTM cell of `model`, in place; its parameters stay the same tensors.

    Raises:
        InputError: the model is no LSTM.
    """
    for cells in model.layers.cells:
        for direction, cell in enumerate(cells):
            cells[direction] = without(cell, removed)  # type: ignore[index]


class KeepOpen(Callback):
    """Leave a gate that is held open as it is; other parts, and None, need nothing."""

    def __init__(self, removed: Removal | None) -> None:
        self._removed = removed

    def on_gradients(self, training: Training) -> None:
        if self._removed in HELD_OPEN:
            for cell in training.model.modules():
                if isinstance(cell, LSTMCell):
                    keep_open(cell, self._removed)


def count_parameters(model: SequenceModel, removed: Removal | None) -> int:
    """The parameters that the equations still read."""
    total = sum(p.numel() for p in model.parameters())
    if removed is None:
        return total
    return total - sum(unread(cell, removed) for cells in model.layers.cells for cell in cells)


def retrain(recipe: AnyRecipe, dataset: Dataset, removed: Removal | None) -> dict[str, Any]:
    """Train once with a part removed (None: none), and test.

    Returns:
        ``accuracy`` on the test set, ``loss`` of the last epoch, ``seconds`` of training, ``parameters`` still in use.

    Raises:
        DataError: the data have no test part.
        TrainingError: the loss is no longer a number.
    """
    if dataset.test is None:
        raise DataError("the data of this run have no test part to measure with; give the recipe test or test_data")
    change = None if removed is None else lambda model: remove(model, removed)
    training = fit_recipe(recipe, dataset, [KeepOpen(removed)], change)
    return {
        "accuracy": evaluated(training.model, dataset.test, dataset.encoder)["accuracy"],
        "loss": sum(training.losses) / len(training.losses),
        "seconds": round(training.seconds, 2),
        "parameters": count_parameters(training.model, removed),
    }


def plan(gates: Sequence[str], seeds: int) -> list[tuple[Removal | None, int]]:
    """What is to be trained: the whole cell and then each removal, with every seed.

    Raises:
        InputError: an unknown gate, or fewer than one seed.
    """
    if seeds < 1:
        raise InputError(f"seeds is {seeds}; expected at least 1, such as 3")
    removals: list[Removal | None] = [None, *(check_removal(gate) for gate in gates or REMOVALS)]
    return [(removed, seed) for removed in dict.fromkeys(removals) for seed in range(seeds)]


def ablate(
    recipe: AnyRecipe, file: Path, gates: Sequence[str] = (), seeds: int = 3, progress: Progress = iter
) -> list[dict[str, Any]]:
    """Train the whole cell and each variant with several seeds; what `file` holds is not trained again.

    Args:
        recipe: of a run with an LSTM.
        file: JSON, with every training as soon as it is finished, and the table.
        gates: keys of `REMOVALS`; empty: all.
        seeds: how many: the recipe's own seed and those that follow it.
        progress: wraps the list of trainings, for a progress bar.

    Returns:
        What `table` returns.

    Raises:
        InputError: the recipe's cell is no LSTM, an unknown gate, fewer than one seed, a damaged file.
    """
    todo = [(removed, recipe.model_copy(update={"seed": recipe.seed + seed})) for removed, seed in plan(gates, seeds)]
    if recipe.cell not in CELLS:
        raise InputError(
            f"only the LSTM has gates to remove, and the cell is {title_of(recipe.cell)}; use a run with cell: lstm"
        )
    without(cell_type(recipe.cell)(1, 1), "c_tilde")  # another cell is refused before the data are read
    entries: dict[str, Any] = {"recipe": dict, "data": str, "removed": (str, NoneType), "seed": int}
    trials = Trials(file, tuple(entries), entries)
    dataset = load_dataset(recipe)
    about = {"recipe": signature(recipe), "data": fingerprint(dataset)}

    trials.about = {"recipe": recipe.model_dump()}
    results = trials.complete(
        todo,
        lambda one: {**about, "removed": one[0], "seed": one[1].seed},
        lambda one: retrain(one[1], dataset, one[0]),
        progress,
    )
    rows = table(results)
    trials.about["rows"] = rows
    trials.save()
    return rows


def table(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a variant: ``mean`` and ``deviation`` of the accuracies over the seeds, and ``cost`` against the whole cell.

    The deviation is that of a sample (n - 1), None for a single seed.
    """
    rows: list[dict[str, Any]] = []
    for removed in dict.fromkeys(result["removed"] for result in results):
        same = [result for result in results if result["removed"] == removed]
        accuracies = [result["accuracy"] for result in same]
        mean = float(np.mean(accuracies))
        row = {
            "removed": removed,
            "what": "the whole cell" if removed is None else REMOVALS[removed],
            "accuracies": accuracies,
            "mean": mean,
            "deviation": float(np.std(accuracies, ddof=1)) if len(same) > 1 else None,
            "parameters": same[0]["parameters"],
            "seconds": float(np.mean([result["seconds"] for result in same])),
            "cost": rows[0]["mean"] - mean if rows else 0.0,
        }
        rows.append(row)
    return rows


def text_table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The rows as cells of text, in percent and percentage points."""
    table = [["variant", "accuracy", "against the whole", "parameters"]]
    for row in rows:
        spread = "" if row["deviation"] is None else f" ± {100 * row['deviation']:.2f}"
        share, change = f"{100 * row['mean']:.2f}%{spread}", f"{-100 * row['cost']:+z.2f} points"
        table.append([row["what"], share, change, f"{row['parameters']:,}"])
    return table
