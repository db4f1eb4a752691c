"""Test accuracy of recipes over several seeds.

Each seed is a run in runs/seeds; a run that is there already is not run again, one that was interrupted goes on.
Usage: python benchmarks/seeds.py [RECIPE …] [--seeds N]
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

from tqdm import tqdm

from unroll.training.recipe import load_recipe
from unroll.training.trials import finished_run

RECIPES = ["lstm-mnist-template", "lstm-mnist-tuned", "lstm-mnist", "lstm-mnist-fast"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    work = [(name, seed) for name in arguments.recipes for seed in range(arguments.seeds)]
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in arguments.recipes}
    for name, seed in tqdm(work, unit=" runs", disable=None):
        metrics = finished_run(Path("runs/seeds") / f"{name}-{seed}", load_recipe(name, {"seed": seed})).metrics()
        row = {"accuracy": 100 * metrics["test"]["accuracy"], "seconds": metrics["seconds"]["training"]}
        measured[name].append(row)
    print("| recipe | test accuracy, mean | spread (standard deviation) | each seed | training |")
    print("| --- | --- | --- | --- | --- |")
    for name, rows in measured.items():
        accuracies = [row["accuracy"] for row in rows]
        spread = statistics.stdev(accuracies) if len(rows) > 1 else 0.0
        each = ", ".join(f"{accuracy:.2f}" for accuracy in accuracies)
        seconds = statistics.median(row["seconds"] for row in rows)
        print(f"| `{name}` | {statistics.mean(accuracies):.2f}% | {spread:.2f} | {each} | {seconds:.1f} s |")
    print(json.dumps({"benchmark": "seeds", "measured": measured}))


if __name__ == "__main__":
    main()
