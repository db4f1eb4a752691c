"""Rebuild everything under docs/evidence/, and docs/questions.md from it: `make evidence`.

Every training is a piece with a result file of its own under runs/evidence/, so an interrupted run goes on where it was;
remove that folder to begin anew. Trainings run side by side, one thread each; what is timed runs alone afterwards.

The text is docs/questions.template.md, in which {{file.key.key:format}} stands for a number of docs/evidence/file.json and
{{table:name}} for a table made from one.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from typing import Any

from evidence_text import render

os.environ.setdefault("GOMP_SPINCOUNT", "5000")

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "runs" / "evidence"
DOCS = ROOT / "docs"
OUT = DOCS / "evidence"
TEMPLATE, PAGE = DOCS / "questions.template.md", DOCS / "questions.md"
SEEDS = 3


@dataclass
class Piece:
    """One result file: `function` called with `arguments`; `seconds` is a guess, for the order and the progress bar."""

    name: str
    function: Callable[..., dict[str, Any]]
    arguments: dict[str, Any] = field(default_factory=dict)
    seconds: float = 10.0

    @property
    def path(self) -> Path:
        return CACHE / f"{self.name}.json"


# ------------------------------------------------------------------------------------------------- what is trained

PIXEL_UPDATES, PIXEL_UNITS = 2000, 64
ABLATION_EPOCHS = 3


def train_run(name: str, recipe: str, changes: dict[str, Any], test: bool) -> dict[str, Any]:
    """A run folder under runs/evidence."""
    from unroll.training.recipe import load_recipe
    from unroll.training.run import RunFolder
    from unroll.training.train import train

    folder = CACHE / "folders" / name
    shutil.rmtree(folder, ignore_errors=True)  # of an attempt that did not get to its result file
    chosen = load_recipe(recipe, changes)
    metrics = train(chosen, RunFolder.create(folder, chosen, {}), echo=lambda line: None, test=test)
    part = metrics["test" if test else "validation"] if recipe != "rnn-sentences" else {"accuracy": 1.0, "loss": 0.0}
    return {
        "changes": changes,
        "accuracy": part["accuracy"],
        "loss": part["loss"],
        "parameters": metrics["parameters"],
        "seconds": metrics["seconds"]["training"],
    }


def trials() -> dict[str, list[dict[str, Any]]]:
    """Eight settings for each of three models: the LSTM, the RNN with as many units, the RNN with as many parameters."""
    from unroll.insight.memory import equal_rnn

    lstm = [
        {"learning_rate": rate, "forget_bias": bias} for rate in (0.002, 0.003, 0.005, 0.008) for bias in (1.0, 2.0)
    ]
    rnn = [
        {"cell": "rnn", "nonlinearity": kind, "learning_rate": rate, "forget_bias": None}
        for kind in ("tanh", "relu")
        for rate in (0.0005, 0.001, 0.002, 0.004)
    ]
    large = equal_rnn(128, 28, 10)
    return {
        "lstm": lstm,
        "rnn": rnn,
        "rnn-large": [{**changes, "hidden_size": large} for changes in rnn],
    }


def ablation(removed: Any, seed: int) -> dict[str, Any]:
    from unroll.insight.ablate import retrain
    from unroll.training.recipe import load_recipe
    from unroll.training.tasks import load_dataset

    recipe = load_recipe("lstm-mnist", {"epochs": ABLATION_EPOCHS, "seed": seed})
    return {"removed": removed, "seed": seed, **retrain(recipe, load_dataset(recipe), removed)}


def remember(name: str, length: int, cell: Any, seed: int) -> dict[str, Any]:
    from unroll.insight.memory import RECIPES, learn, task

    made = task(name, length)
    return learn(made, cell, RECIPES[made.name, cell], seed)


LONG = ("adding", 200)


def remember_without(removed: Any, seed: int) -> dict[str, Any]:
    """A long task for the LSTM with a gate held open."""
    from unroll.insight.memory import RECIPES, learn, task

    made = task(*LONG)
    result = learn(made, "lstm", RECIPES[made.name, "lstm"], seed, held_open=removed)
    return {"removed": removed, **result}


def pixels(cell: Any) -> dict[str, Any]:
    """A model that reads 784 pixels one after the other, trained for a short while; kept as safetensors."""
    import torch

    from unroll.data.images import load_image_dataset
    from unroll.files import save_tensors
    from unroll.insight.gradients import by_pixels
    from unroll.optim import Adam, one_cycle

    dataset, model = load_image_dataset(None, standardise=True), pixel_model(cell)
    optimizer = Adam(model.parameters(), 0.002, max_norm=1.0)
    generator = torch.Generator().manual_seed(0)
    for step in range(PIXEL_UPDATES):
        optimizer.learning_rate = one_cycle(step, PIXEL_UPDATES, 0.002)
        index = torch.randint(len(dataset.train), (64,), generator=generator)
        x = by_pixels(dataset.encoder.features(dataset.train.values[index]))
        loss = torch.nn.functional.cross_entropy(model(x), dataset.train.y[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert dataset.test is not None
    with torch.no_grad():
        x = by_pixels(dataset.encoder.features(dataset.test.values[:2000]))
        right = sum(
            int((model(a).argmax(1) == b).sum())
            for a, b in zip(x.split(200, 1), dataset.test.y[:2000].split(200), strict=True)
        )
    (CACHE / "folders").mkdir(parents=True, exist_ok=True)
    save_tensors(CACHE / "folders" / f"pixels-{cell}.safetensors", dict(model.state_dict()), {})
    return {"accuracy": right / 2000, "updates": PIXEL_UPDATES, "units": PIXEL_UNITS}


def pixel_model(cell: Any) -> Any:
    import torch

    from unroll.models import SequenceClassifier

    torch.manual_seed(0)
    model = SequenceClassifier(cell, 1, PIXEL_UNITS, 10)
    model.initialise("orthogonal", 3.0)
    return model


def clip(max_norm: float | None, learning_rate: float) -> dict[str, Any]:
    """Plain gradient descent on the vanilla RNN of the rows, W orthogonal, with and without clipping."""
    import torch
    from evidence_measures import clipping

    from unroll.data.images import load_image_dataset
    from unroll.models import SequenceClassifier

    dataset = load_image_dataset(None, standardise=True)
    x, y = dataset.encoder.features(dataset.train.values[: 64 * 400]), dataset.train.y[: 64 * 400]

    def build() -> SequenceClassifier:
        torch.manual_seed(0)
        model = SequenceClassifier("rnn", 28, 128, 10)
        model.initialise("orthogonal")
        return model

    return clipping(
        build, lambda k: (x[:, 64 * k : 64 * k + 64], y[64 * k : 64 * k + 64]), learning_rate, 400, max_norm
    )


# ------------------------------------------------------------------------------------------------- what is measured


def best(results: dict[str, dict[str, Any]], model: str) -> dict[str, Any]:
    """The trial of `model` with the smallest held-out loss."""
    tried = [result for name, result in results.items() if re.fullmatch(rf"trial-{model}-\d+", name)]
    return min(tried, key=lambda result: result["loss"])


def label(recipe: Any) -> str:
    """The name of a trained model in a figure."""
    if recipe.cell == "lstm":
        return "LSTM"
    return "vanilla RNN, tanh" if recipe.nonlinearity == "tanh" else "vanilla RNN, max(0, ·)"


def states() -> dict[str, Any]:
    """When LSTM and RNN know, what their last states hold, and the lab's two sentences."""
    import numpy as np
    import torch
    from evidence_measures import gate_use, knowing, last_states, recall

    from unroll.insight.trace import trace
    from unroll.training.run import load
    from unroll.training.tasks import load_test_part

    found: dict[str, Any] = {}
    for name in ("lstm", "rnn"):
        classifier = load(CACHE / "folders" / f"rows-{name}-0")
        test = load_test_part(classifier.recipe, classifier.encoder, None)
        x = classifier.encoder.features(test.values)
        p = np.concatenate([trace(classifier.model, part).p for part in x.split(1000, 1)], axis=1)
        found[name] = {"label": label(classifier.recipe), **knowing(p, test.y.numpy())}
        found[name]["recall"] = recall(last_states(classifier.model, x), x.numpy())
        if name == "lstm":
            ink = test.values[:1000].amax(2).T.numpy() > 0
            found["gates"] = gate_use(trace(classifier.model, x[:, :1000]), ink)
            found["gates"]["pictures"] = 1000
    lab = load(CACHE / "folders" / "rnn-lab")
    good, bad = (trace(lab, f"The movie is {word}") for word in ("good", "bad"))
    found["lab"] = {
        "good": good("s")[:, 0].tolist(),
        "bad": bad("s")[:, 0].tolist(),
        "distance": np.linalg.norm(good("s") - bad("s"), axis=-1)[:, 0].tolist(),
        "p_good": good.p[:, 0, lab.class_names.index("1")].tolist(),
        "p_bad": bad.p[:, 0, lab.class_names.index("1")].tolist(),
    }
    W = lab.model.layers.cells[0][0].W.detach()
    found["lab"]["largest"] = float(torch.linalg.svdvals(W)[0])
    return found


def gradients() -> dict[str, Any]:
    """Curves for 28 rows and 784 pixels, untrained and trained."""
    from unroll.files import load_tensors
    from unroll.insight.gradients import by_pixels, equally_long, measure, measure_runs
    from unroll.training.run import load
    from unroll.training.tasks import load_test_part

    folders = [CACHE / "folders" / f"rows-{name}-0" for name in ("lstm", "rnn")]
    names = {folder.name: label(load(folder).recipe) for folder in folders}
    curves = [
        {**curve, "label": names.get(curve["label"], curve["label"])} for curve in measure_runs(folders, inputs=200)
    ]
    # The untrained runs are two of the untrained cells beside them: once is enough.
    curves = [curve for curve in curves if curve["trained"] or curve["label"] not in names.values()]
    classifier = load(folders[0])
    x, y = equally_long(load_test_part(classifier.recipe, classifier.encoder, None), classifier.encoder, 200)
    for cell in ("lstm", "rnn"):
        model = pixel_model(cell)
        model.load_state_dict(load_tensors(CACHE / "folders" / f"pixels-{cell}.safetensors")[0])
        name = "LSTM" if cell == "lstm" else "vanilla RNN, tanh"
        kind = {"label": name, "cell": cell, "trained": True, "reading": "pixels"}
        curves.append({**kind, **measure(model, by_pixels(x), y)})
    for curve in curves:
        every = max(1, curve["T"] // 98)
        curve["t"] = curve["t"][::-every][::-1]
        for norms in curve["norms"].values():
            for key in ("median", "low", "high"):
                norms[key] = norms[key][::-every][::-1]
    return {"curves": sorted(curves, key=lambda curve: (curve["T"], curve["trained"], curve["cell"]))}


def timing(settings: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Median time of a training step of each model, interleaved; milliseconds."""
    import numpy as np
    import torch

    from unroll.models import SequenceClassifier
    from unroll.optim import AdamW

    x, y = torch.randn(28, 64, 28), torch.randint(10, (64,))
    models, times = {}, {name: [] for name in settings}
    for name, changes in settings.items():
        model = SequenceClassifier(
            changes.get("cell", "lstm"),
            28,
            changes.get("hidden_size", 128),
            10,
            nonlinearity=changes.get("nonlinearity", "tanh"),
        )
        models[name] = model, AdamW(model.parameters(), 1e-3, max_norm=1.0)
    for _ in range(150):
        for name, (model, optimizer) in models.items():
            began = time.perf_counter()
            loss = torch.nn.functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            times[name].append(1000 * (time.perf_counter() - began))
    return {name: {"milliseconds": float(np.median(values[20:]))} for name, values in times.items()}


def machine() -> dict[str, Any]:
    from unroll.training.facts import facts

    return facts()


# ------------------------------------------------------------------------------------------------------ in which order


def stages(workers: int) -> list[tuple[int, Callable[[dict[str, dict[str, Any]]], list[Piece]]]]:
    """Which pieces there are, given the results so far; with how many processes each stage runs."""

    def first(_: dict[str, dict[str, Any]]) -> list[Piece]:
        from unroll.cells.variants import REMOVALS
        from unroll.insight.memory import plan

        pieces = [
            Piece("rnn-lab", train_run, {"name": "rnn-lab", "recipe": "rnn-sentences", "changes": {}, "test": True}, 2)
        ]
        for model, settings in trials().items():
            for n, changes in enumerate(settings):
                name = f"trial-{model}-{n}"
                changes = {**changes, "epochs": 2, "validation": 5000}
                arguments = {"name": name, "recipe": "lstm-mnist", "changes": changes, "test": False}
                pieces.append(Piece(name, train_run, arguments, 4 if model == "rnn" else 11))
        for removed in (None, *REMOVALS):
            for seed in range(SEEDS):
                slow = removed in ("c_tilde", "coupled")
                name = f"ablate-{removed or 'none'}-{seed}"
                pieces.append(Piece(name, ablation, {"removed": removed, "seed": seed}, 50 if slow else 18))
        for task, cell, recipe, seed in plan([], [], SEEDS):
            # An LSTM stops early; a vanilla RNN mostly uses up all its sequences.
            share = 1.0 if cell != "lstm" or task.name == "rows" else 0.4
            seconds = 2.5e-8 * share * recipe.sequences * task.steps * (recipe.hidden_size / 8) ** 1.3
            arguments = {"name": task.name, "length": task.length, "cell": cell, "seed": seed}
            pieces.append(Piece(f"memory-{task.name}-{task.length}-{cell}-{seed}", remember, arguments, seconds))
        for removed in (None, "f", "i", "o"):
            for seed in range(SEEDS):
                arguments = {"removed": removed, "seed": seed}
                pieces.append(Piece(f"without-{removed or 'none'}-{seed}", remember_without, arguments, 6))
        pieces += [Piece(f"pixels-{cell}", pixels, {"cell": cell}, 130) for cell in ("lstm", "rnn")]
        for norm in (None, 1.0):
            arguments = {"max_norm": norm, "learning_rate": 0.3}
            pieces.append(Piece(f"clip-{'on' if norm else 'off'}", clip, arguments, 3))
        return pieces

    def second(results: dict[str, dict[str, Any]]) -> list[Piece]:
        pieces = []
        for model in trials():
            changes = {k: v for k, v in best(results, model)["changes"].items() if k not in ("epochs", "validation")}
            for seed in range(SEEDS):
                name = f"rows-{model}-{seed}"
                arguments = {"name": name, "recipe": "lstm-mnist", "changes": {**changes, "seed": seed}, "test": True}
                pieces.append(Piece(name, train_run, arguments, 12 if model == "rnn" else 30))
        return pieces

    def third(results: dict[str, dict[str, Any]]) -> list[Piece]:
        settings = {model: best(results, model)["changes"] for model in trials()}
        return [
            Piece("states", states, {}, 15),
            Piece("gradients", gradients, {}, 60),
            Piece("timing", timing, {"settings": settings}, 3),
            Piece("machine", machine, {}, 1),
        ]

    return [(workers, first), (workers, second), (1, third)]


def run_piece(piece: Piece) -> str:
    from unroll.files import write_atomically

    write_atomically(piece.path, json.dumps(piece.function(**piece.arguments)) + "\n")
    return piece.name


def begin_worker(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def collect(workers: int) -> dict[str, dict[str, Any]]:
    """Run every piece that has no result file yet; all results by name."""
    from tqdm import tqdm

    CACHE.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    cores = os.cpu_count() or 1
    for processes, plan in stages(workers):
        pieces = plan(results)
        missing = sorted((piece for piece in pieces if not piece.path.is_file()), key=lambda piece: -piece.seconds)
        # Workers are started anew, not forked: torch's threads do not survive a fork.
        with (
            ProcessPoolExecutor(processes, get_context("spawn"), begin_worker, (max(1, cores // processes),)) as pool,
            tqdm(
                total=round(sum(piece.seconds for piece in missing)), unit="", disable=not missing, leave=False
            ) as bar,
        ):
            running = {pool.submit(run_piece, piece): piece for piece in missing}
            for done in as_completed(running):
                bar.set_description(done.result())
                bar.update(round(running[done].seconds))
        results |= {piece.name: json.loads(piece.path.read_text()) for piece in pieces}
    return results


# --------------------------------------------------------------------------------------------------- files and page


def gather(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The content of every file under docs/evidence."""
    from unroll.insight.ablate import table
    from unroll.insight.memory import RECIPES, summary

    rows = []
    names = {"lstm": "LSTM", "rnn": "RNN", "rnn-large": "RNN, large"}
    for model, name in names.items():
        finals = [results[f"rows-{model}-{seed}"] for seed in range(SEEDS)]
        accuracies = [final["accuracy"] for final in finals]
        changes = best(results, model)["changes"]
        rows.append(
            {
                "name": name,
                "cell": changes.get("cell", "lstm"),
                "hidden_size": changes.get("hidden_size", 128),
                "settings": {
                    k: v for k, v in changes.items() if k not in ("epochs", "validation", "cell", "hidden_size")
                },
                "accuracies": accuracies,
                "mean": sum(accuracies) / SEEDS,
                "parameters": finals[0]["parameters"],
                **results["timing"][model],
            }
        )
    remembered = [result for name, result in results.items() if name.startswith("memory-")]
    summed = summary(remembered)
    memory: dict[str, Any] = {
        "all": summed,
        "seeds": SEEDS,
        "recipes": {f"{t}-{c}": vars(r) for (t, c), r in RECIPES.items()},
    }
    for row in summed:
        memory.setdefault(row["task"], {}).setdefault(row["cell"], {})[str(row["length"])] = row
    for result in remembered:
        key = memory[result["task"]][result["cell"]][str(result["length"])]
        key.setdefault("each", []).append({k: result[k] for k in ("seed", "solved", "sequences", "right")})
    ablated = table([result for name, result in results.items() if name.startswith("ablate-")])
    found = dict(results["states"])
    return {
        "machine": results["machine"],
        "states": {key: found[key] for key in ("lstm", "rnn", "lab")},
        "gates": {
            **found["gates"],
            "left_first_half": sum(found["gates"]["left"][:14]),
            "left_last_quarter": sum(found["gates"]["left"][21:]),
        },
        "gradients": {
            "curves": results["gradients"]["curves"],
            "clipping": [results["clip-off"], results["clip-on"]],
            **{f"{name.replace('-', '_')}_end": mean(results[name]["loss"][-50:]) for name in ("clip-off", "clip-on")},
            "pixels": {cell: results[f"pixels-{cell}"] for cell in ("lstm", "rnn")},
            **named_curves(results["gradients"]["curves"]),
        },
        "ablation": {
            "epochs": ABLATION_EPOCHS,
            "seeds": SEEDS,
            "rows": ablated,
            "long": [without(results, removed) for removed in (None, "f", "i", "o")],
            "long_length": LONG[1],
            **{row["removed"] or "whole": {"mean": row["mean"], "change": -100 * row["cost"]} for row in ablated},
        },
        "memory": memory,
        "rows": {
            "rows": rows,
            **{row["name"].lower().replace(", ", "_"): row for row in rows},
            "time_share": rows[1]["milliseconds"] / rows[0]["milliseconds"],
            "parameter_share": rows[1]["parameters"] / rows[0]["parameters"],
            "gap_points": 100 * (rows[0]["mean"] - rows[1]["mean"]),
            "gap_large_points": 100 * (rows[0]["mean"] - rows[2]["mean"]),
        },
    }


def without(results: dict[str, dict[str, Any]], removed: Any) -> dict[str, Any]:
    from unroll.insight.memory import summary

    (row,) = summary([results[f"without-{removed or 'none'}-{seed}"] for seed in range(SEEDS)])
    return {"removed": removed, **row}


def named_curves(curves: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the text quotes of each curve, under names such as ``rows_lstm_bias_1`` and ``pixels_rnn_trained``."""
    named = {}
    for curve in curves:
        detail = "trained" if curve["trained"] else "bias" if curve["cell"] == "lstm" else "gain"
        value = curve.get("forget_bias", curve.get("gain"))
        suffix = "" if value is None else "_" + f"{value:g}".replace(".", "")
        norms = curve["norms"].get("h") or curve["norms"]["s"]
        largest = curve["jacobian"]["largest"]
        named[f"{curve['reading']}_{curve['cell']}_{detail}{suffix}"] = {
            "first": norms["median"][0],
            "last": norms["median"][-1],
            "reach": norms["reach"],
            "sigma": sum(largest) / len(largest),
        }
    return named


def rounded(value: Any) -> Any:
    """Six significant digits are more than anything here is known to; JSON knows no NaN."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def load_evidence() -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(OUT.glob("*.json"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes side by side")
    parser.add_argument("--text", action="store_true", help="only write docs/questions.md anew")
    arguments = parser.parse_args()
    from unroll.files import write_atomically

    began = time.perf_counter()
    if not arguments.text:
        OUT.mkdir(parents=True, exist_ok=True)
        for name, content in gather(collect(arguments.workers)).items():
            write_atomically(OUT / f"{name}.json", json.dumps(rounded(content), ensure_ascii=False) + "\n")
        from evidence_figures import draw

        draw(load_evidence(), OUT, CACHE / "folders" / "rows-lstm-0")
    write_atomically(PAGE, render(TEMPLATE.read_text(encoding="utf-8"), load_evidence()))
    print(f"{PAGE.relative_to(ROOT)} and {OUT.relative_to(ROOT)}/ are up to date ({time.perf_counter() - began:.0f} s)")


if __name__ == "__main__":
    sys.exit(main())
