"""Cross-validate the recipe lstm-sentences on a file of labelled sentences.

    python benchmarks/sentences.py --data reviews.csv
    python benchmarks/sentences.py --data rt-polarity.pos rt-polarity.neg

With two files each is a class, one sentence a line, as in the sentence polarity set of Pang & Lee (ACL 2005), which is
in latin-1. There Kim's CNN without pretrained vectors reaches 76.1% over 10 folds (EMNLP 2014, table 2, CNN-rand).
Prints a line for each fold, then a table and one JSON line. Any field of the recipe can be changed: --set epochs=5.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
import yaml

from unroll.data.sentences import tokenize
from unroll.data.tables import read_records
from unroll.training.recipe import load_recipe
from unroll.training.run import RunFolder
from unroll.training.train import train


def read(paths: list[Path]) -> list[tuple[str, str]]:
    """(sentence, label) of one table, or of one file for each class."""
    if len(paths) == 1:
        return [(str(text), str(label)) for _, (text, label) in read_records(paths[0], ("text", "label"))[0]]
    rows = []
    for path in paths:
        lines = path.read_bytes().decode("latin-1").split("\n")
        rows += [(line.strip(), path.suffix.lstrip(".") or path.name) for line in lines if tokenize(line)]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", type=Path, required=True)
    parser.add_argument("--recipe", default="lstm-sentences")
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--only", type=int, help="stop after so many folds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE")
    arguments = parser.parse_args()

    changes = {}
    for item in arguments.set:
        name, _, value = item.partition("=")
        changes[name] = yaml.safe_load(value)
    rows = read(arguments.data)
    fold_of = torch.randperm(len(rows), generator=torch.Generator().manual_seed(arguments.seed)) % arguments.folds
    accuracies, seconds, epochs = [], [], []
    with tempfile.TemporaryDirectory() as name:
        for fold in range(arguments.only or arguments.folds):
            for part, wanted in (("train", fold_of != fold), ("test", fold_of == fold)):
                with open(Path(name) / f"{part}.csv", "w", newline="", encoding="utf-8") as file:
                    writer = csv.writer(file)
                    writer.writerow(("text", "label"))
                    writer.writerows(rows[n] for n in wanted.nonzero()[:, 0].tolist())
            files = {"data": f"{name}/train.csv", "test_data": f"{name}/test.csv"}
            recipe = load_recipe(arguments.recipe, {**files, "seed": arguments.seed + fold, **changes})
            began = time.perf_counter()
            metrics = train(recipe, RunFolder.create(Path(name) / f"fold{fold}", recipe, {}), echo=lambda line: None)
            seconds.append(time.perf_counter() - began)
            accuracies.append(metrics["test"]["accuracy"])
            epochs.append(metrics["epochs"])
            print(
                f"fold {fold + 1:2}: {100 * accuracies[-1]:.2f}%  {epochs[-1]} epochs  {seconds[-1]:.1f} s  "
                f"({100 * metrics['validation']['accuracy']:.2f}% held out)",
                flush=True,
            )
    result = {
        "benchmark": "sentences",
        "recipe": arguments.recipe,
        "changes": changes,
        "sentences": len(rows),
        "folds": len(accuracies),
        "accuracy": statistics.mean(accuracies),
        "deviation": statistics.pstdev(accuracies),
        "median_seconds": statistics.median(seconds),
    }
    print(f"accuracy  {100 * result['accuracy']:.2f}% ± {100 * result['deviation']:.2f} (deviation between folds)")
    print(f"a fold    {result['median_seconds']:.1f} s (median)")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
