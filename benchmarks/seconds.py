"""Wall-clock seconds to an accuracy: `unroll` against the same recipe written with torch.nn.LSTM, torch.optim and DataLoader.

The clock runs from before the process is started, through imports and reading the data, to the end of the first epoch after
which at least so many of MNIST's test images are read correctly. Both sides test after every epoch, with averaged weights
where the recipe has them; the test steers nothing but the clock. Every measurement is a process of its own; the rivals take
turns, seed by seed, and begin with the same weights. The rival's DataLoader draws single pictures from tensors in memory and
makes batches of them in its collate function, distortions included (ours, as torch has none that fit); it has no worker or two,
whichever makes the first epoch faster on this machine. Of this package it imports only what reads and distorts pictures.

Usage: python benchmarks/seconds.py [--recipe NAME] [--seeds N] [--workers N]
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

RIVALS = {"unroll": "`unroll`, {recipe}", "torch": "torch.nn.LSTM, torch.optim, DataLoader ({workers} workers)"}
TARGETS = (0.9814, 0.99)


class Clock:
    """Prints each epoch's accuracy with the seconds since `started`, and ends the process when there is no more to learn."""

    def __init__(self, started: float, epochs: int) -> None:
        self.started, self.epochs = started, epochs

    def tell(self, epoch: int, accuracy: float) -> None:
        row = {"epoch": epoch, "seconds": time.time() - self.started, "accuracy": accuracy}
        print(json.dumps(row), flush=True)
        if accuracy >= max(TARGETS) or epoch >= self.epochs:
            sys.exit()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="lstm-mnist-fast")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, help="of the rival's DataLoader; the faster of 0 and 2 if left out")
    inner = parser.add_argument_group("used by the benchmark itself")
    inner.add_argument("--rival", choices=RIVALS, help="run this one in this process")
    inner.add_argument("--fields", help="the recipe, as JSON")
    inner.add_argument("--started", type=float, help="when the process was asked for")
    inner.add_argument("--epochs", type=int, default=sys.maxsize, help="stop after so many of the recipe's")
    arguments = parser.parse_args()
    if arguments.rival:
        clock = Clock(arguments.started, arguments.epochs)
        fields = json.loads(arguments.fields)
        if arguments.rival == "unroll":
            run_unroll(fields, clock)
        else:
            run_torch(fields, clock, arguments.workers)
        return

    from unroll.training.recipe import load_recipe

    fields = load_recipe(arguments.recipe).model_dump()
    check(fields)
    workers = arguments.workers
    if workers is None:
        first = {n: min(measure("torch", fields, n, epochs=1)[0]["seconds"] for _ in range(2)) for n in (0, 2)}
        workers = min(first, key=lambda n: first[n])
        print(f"first epoch with no worker {first[0]:.1f} s, with two {first[2]:.1f} s", file=sys.stderr)
    measured: dict[str, list[list[dict[str, float]]]] = {rival: [] for rival in RIVALS}
    for seed in range(arguments.seeds):
        for rival, runs in measured.items():
            runs.append(measure(rival, {**fields, "seed": seed}, workers))
            last = runs[-1][-1]
            said = f"{100 * last['accuracy']:.2f}% after epoch {last['epoch']}, {last['seconds']:.1f} s"
            print(f"seed {seed}, {rival}: {said}", file=sys.stderr)
    report(arguments.recipe, workers, measured)


def report(recipe: str, workers: int, measured: dict[str, list[list[dict[str, float]]]]) -> None:
    """A table, and all of it as one JSON line."""
    reached = {
        rival: {target: [first_at(rows, target) for rows in runs] for target in TARGETS}
        for rival, runs in measured.items()
    }
    medians = {rival: {t: statistics.median(found[t]) for t in TARGETS} for rival, found in reached.items()}
    heads = [f"{100 * target:g}%: median | each seed | reached" for target in TARGETS]
    print(f"| seconds from the start of the process to a test accuracy of | {' | '.join(heads)} |")
    print("| --- |" + " --- |" * 3 * len(TARGETS))
    for rival, found in reached.items():
        cells = [RIVALS[rival].format(recipe=recipe, workers=workers or "no")]
        for target, seconds in found.items():
            got = sum(map(math.isfinite, seconds))
            cells += [shown(medians[rival][target], " s"), ", ".join(map(shown, seconds)), f"{got} of {len(seconds)}"]
        print(f"| {' | '.join(cells)} |")
    pairs = {target: (medians["torch"][target], medians["unroll"][target]) for target in TARGETS}
    ratios = {t: theirs / ours if math.isfinite(theirs + ours) else math.nan for t, (theirs, ours) in pairs.items()}
    print("| ratio |" + "".join(f" {shown(ratio, '×')} | | |" for ratio in ratios.values()))
    content = {"benchmark": "seconds", "recipe": recipe, "workers": workers, "medians": medians, "runs": measured}
    print(json.dumps(finite({**content, "ratios": ratios})))


def first_at(rows: list[dict[str, float]], target: float) -> float:
    """Seconds to the first epoch that reached the target; infinite where none did."""
    return next((row["seconds"] for row in rows if row["accuracy"] >= target), math.inf)


def shown(value: float, unit: str = "") -> str:
    return f"{value:.2f}{unit}" if math.isfinite(value) else "–"


def finite(value: Any) -> Any:
    """JSON knows neither infinity nor NaN."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def measure(rival: str, fields: dict[str, Any], workers: int, epochs: int | None = None) -> list[dict[str, float]]:
    """One run in a process of its own; a row for each epoch."""
    command = [sys.executable, __file__, "--rival", rival, "--fields", json.dumps(fields), "--workers", str(workers)]
    command += [] if epochs is None else ["--epochs", str(epochs)]
    done = subprocess.run([*command, "--started", repr(time.time())], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{rival} failed")
    return [json.loads(line) for line in done.stdout.splitlines()]


def check(fields: dict[str, Any]) -> None:
    """End with one line where the rival below would do something else than the recipe."""
    expected = {"task": "images", "cell": "lstm", "pooling": "last", "initialisation": "orthogonal", "shuffle": True}
    expected |= {"validation": 0.0, "patience": None, "bidirectional": False, "data": None, "standardise": True}
    for name, value in expected.items():
        if fields[name] != value:
            sys.exit(f"{name} is {fields[name]!r}; this benchmark knows only recipes with {value!r}")


def run_unroll(fields: dict[str, Any], clock: Clock) -> None:
    gc.disable()  # all in the order in which the command does it
    from unroll.data.images import begin_loading
    from unroll.training.recipe import parse_recipe

    reading = begin_loading(fields["data"])
    from unroll.training.run import RunFolder
    from unroll.training.train import prepare, train

    gc.enable()
    gc.set_threshold(100_000)
    recipe = parse_recipe(fields, fields["name"])
    dataset = prepare(recipe, reading)
    dataset = dataclasses.replace(dataset, validation=dataset.test)  # so that every epoch is tested
    with tempfile.TemporaryDirectory() as place:
        train(
            recipe,
            RunFolder.create(f"{place}/run", recipe, {}),
            echo=lambda line: None,
            test=False,
            dataset=dataset,
            on_epoch=lambda row: clock.tell(row["epoch"], row["validation_accuracy"]),
        )


def run_torch(fields: dict[str, Any], clock: Clock, workers: int) -> None:
    """The recipe as one writes it with what torch has."""
    import torch
    from torch import nn
    from torch.optim.swa_utils import AveragedModel
    from torch.utils.data import DataLoader, TensorDataset

    from unroll.data.augment import Augmentation, augment
    from unroll.data.images import load_images, pixel_moments

    class Classifier(nn.Module):
        def __init__(self, hidden_size, num_layers, dropout):
            super().__init__()
            between = dropout if num_layers > 1 else 0.0  # torch warns of a dropout that nothing lies between
            self.lstm = nn.LSTM(28, hidden_size, num_layers, batch_first=True, dropout=between)
            self.dropout = nn.Dropout(dropout)
            self.readout = nn.Linear(hidden_size, 10)

        def forward(self, x):
            _, (h, _) = self.lstm(x)
            return self.readout(self.dropout(h[-1]))

        @torch.no_grad()
        def initialise(self, forget_bias):
            H = self.lstm.hidden_size
            for layer in range(self.lstm.num_layers):
                recurrent, inputs = (getattr(self.lstm, f"weight_{kind}_l{layer}") for kind in ("hh", "ih"))
                for block in recurrent.split(H):
                    nn.init.orthogonal_(block)
                for block in inputs.split(H):
                    nn.init.xavier_uniform_(block)
                for kind in ("ih", "hh"):
                    getattr(self.lstm, f"bias_{kind}_l{layer}").zero_()
                if forget_bias is not None:
                    getattr(self.lstm, f"bias_ih_l{layer}")[H : 2 * H] = forget_bias
            nn.init.xavier_uniform_(self.readout.weight)
            self.readout.bias.zero_()

    (train, _), (test, _) = load_images(None, "train"), load_images(None, "test")
    mean, std = pixel_moments(train.values)
    amounts = Augmentation(*(fields[name] for name in ("rotation", "scaling", "shear", "translation", "elastic")))

    def features(images):
        return (images.float() / 255 - mean) / std

    def collate(samples):
        images, labels = zip(*samples, strict=True)
        return features(torch.stack(images)), torch.stack(labels)

    def collate_distorted(samples):
        images, labels = zip(*samples, strict=True)
        distorted = augment(torch.stack(images).float(), torch.default_generator, amounts)
        return features(distorted), torch.stack(labels)

    def loader(collated):
        return DataLoader(
            TensorDataset(train.values, train.y),
            fields["batch_size"],
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=collated,
        )

    torch.manual_seed(fields["seed"])
    model = Classifier(fields["hidden_size"], fields["num_layers"], fields["dropout"])
    torch.manual_seed(fields["seed"])
    model.initialise(fields["forget_bias"])

    rate, decay, epochs = fields["learning_rate"], fields["weight_decay"], fields["epochs"]
    if fields["optimizer"] == "sgd":
        optimizer = torch.optim.SGD(
            model.parameters(), rate, fields["momentum"], weight_decay=decay, nesterov=fields["nesterov"]
        )
    else:
        kind = torch.optim.AdamW if fields["optimizer"] == "adamw" else torch.optim.Adam
        optimizer = kind(model.parameters(), rate, weight_decay=decay)
    steps = epochs * math.ceil(len(train) / fields["batch_size"])
    scheduler = {
        "constant": lambda: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0),
        "one_cycle": lambda: torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps, cycle_momentum=False),
        "cosine": lambda: torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2
        ),
    }[fields["schedule"]]()
    limit = fields["weight_average"]

    @torch.no_grad()
    def average(averages, parameters, number):
        # Our rule of optim.WeightAverage. AveragedModel's first update copies, where ours would keep a tenth.
        number = int(number)
        torch._foreach_lerp_(averages, parameters, 1 - min(limit, (1 + number) / (10 + number)))

    averaged = None if limit is None else AveragedModel(model, multi_avg_fn=average)
    criterion = nn.CrossEntropyLoss(label_smoothing=fields["label_smoothing"])

    @torch.no_grad()
    def accuracy(tested):
        tested.eval()
        parts = zip(test.values.split(500), test.y.split(500), strict=True)
        correct = sum(int((tested(features(images)).argmax(1) == labels).sum()) for images, labels in parts)
        return correct / len(test)

    distorted, plain = loader(collate_distorted if amounts.any() else collate), loader(collate)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for x, y in plain if epoch >= epochs - fields["plain_epochs"] else distorted:
            loss = criterion(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            if fields["max_norm"] is not None:
                nn.utils.clip_grad_norm_(model.parameters(), fields["max_norm"])
            optimizer.step()
            scheduler.step()
            if averaged is not None:
                averaged.update_parameters(model)
            total += loss.item()
        clock.tell(epoch + 1, accuracy(model if averaged is None else averaged))


if __name__ == "__main__":
    main()
