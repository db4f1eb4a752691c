"""Whole runs: the LSTM lab's own way of writing it, `torch.nn.LSTM` in our loop, and ours.

Each run is a process of its own that trains 128 units for 5 epochs of 60,000 images in batches of 64 and tests on 10,000.
The clock runs from the start of the process to the printed test accuracy. The rivals take turns, round by round; the
table gives medians. Usage: python benchmarks/lab.py [--rounds N] [--epochs N]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time

RIVALS = {
    "lab": "the lab's way (four nn.Linear, DataLoader, torch.optim.Adam)",
    "torch": "torch.nn.LSTM in our loop",
    "unroll": "unroll train lstm-mnist",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rival", choices=RIVALS, help="run this one in this process (used by the benchmark itself)")
    arguments = parser.parse_args()
    if arguments.rival:
        {"lab": run_lab, "torch": run_torch, "unroll": run_unroll}[arguments.rival](arguments.epochs)
        return
    results: dict[str, list[dict[str, float]]] = {rival: [] for rival in RIVALS}
    for number in range(arguments.rounds):
        for rival in RIVALS:
            results[rival].append(measure(rival, arguments.epochs))
            print(f"round {number + 1}, {rival}: {results[rival][-1]}", file=sys.stderr)
    medians = {
        rival: {key: statistics.median(row[key] for row in rows) for key in rows[0]} for rival, rows in results.items()
    }
    print("| | whole run | a training step | images a second | peak memory | test accuracy |")
    print("| --- | --- | --- | --- | --- | --- |")
    for rival, row in medians.items():
        ratio = medians["lab"]["seconds"] / row["seconds"]
        print(
            f"| {RIVALS[rival]} | {row['seconds']:.1f} s ({ratio:.1f}×) | {row['step_ms']:.2f} ms | "
            f"{row['images_per_second']:,.0f} | {row['peak_mb']:.0f} MB | {row['accuracy']:.2f}% |"
        )
    print(json.dumps({"benchmark": "lab", "rounds": arguments.rounds, "epochs": arguments.epochs, "medians": medians}))


def measure(rival: str, epochs: int) -> dict[str, float]:
    """One run in a process of its own."""
    began = time.perf_counter()
    command = [sys.executable, __file__, "--rival", rival, "--epochs", str(epochs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("Test Accuracy"):
                seconds = time.perf_counter() - began
                accuracy = float(line.split()[2].rstrip("%"))
            elif line.startswith("{"):
                facts = json.loads(line)
    if process.returncode:
        sys.exit(f"{rival} failed")
    return {"seconds": seconds, "accuracy": accuracy, **facts}


def finish(training_seconds: float, epochs: int) -> None:
    """The last line of a rival's process."""
    steps = epochs * -(-60_000 // 64)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    row = {
        "step_ms": 1000 * training_seconds / steps,
        "images_per_second": 60_000 * epochs / training_seconds,
        "peak_mb": peak,
    }
    print(json.dumps(row))


def run_lab(epochs: int) -> None:
    """As a student writes it from the lab sheet."""
    import numpy as np
    import torch
    from PIL import Image
    from torch import nn

    from unroll.data.images import load_images

    class Digits(torch.utils.data.Dataset):
        """One image at a time, from pixels to a picture to a tensor, as torchvision's MNIST with ToTensor does."""

        def __init__(self, split):
            part, _ = load_images(None, split)
            self.images, self.labels = part.values, part.y

        def __len__(self):
            return len(self.labels)

        def __getitem__(self, index):
            picture = Image.fromarray(self.images[index].numpy())
            pixels = torch.from_numpy(np.array(picture, copy=True)).view(1, 28, 28)
            return pixels.to(torch.float32).div(255), int(self.labels[index])

    class Cell(nn.Module):
        def __init__(self, input_size, hidden_size):
            super().__init__()
            self.forget = nn.Linear(input_size + hidden_size, hidden_size)
            self.input = nn.Linear(input_size + hidden_size, hidden_size)
            self.candidate = nn.Linear(input_size + hidden_size, hidden_size)
            self.output = nn.Linear(input_size + hidden_size, hidden_size)

        def forward(self, x, h, c):
            combined = torch.cat((x, h), dim=1)
            f = torch.sigmoid(self.forget(combined))
            i = torch.sigmoid(self.input(combined))
            g = torch.tanh(self.candidate(combined))
            o = torch.sigmoid(self.output(combined))
            c = f * c + i * g
            return o * torch.tanh(c), c

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = Cell(28, 128)
            self.readout = nn.Linear(128, 10)

        def forward(self, x):
            h = torch.zeros(x.size(0), 128)
            c = torch.zeros(x.size(0), 128)
            for t in range(x.size(1)):
                h, c = self.cell(x[:, t, :], h, c)
            return self.readout(h)

    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(Digits("train"), batch_size=64, shuffle=True)
    model = Network()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    began = time.perf_counter()
    for _ in range(epochs):
        for images, labels in loader:
            loss = criterion(model(images.view(-1, 28, 28)), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
    seconds = time.perf_counter() - began
    correct = 0
    with torch.no_grad():
        for images, labels in torch.utils.data.DataLoader(Digits("test"), batch_size=64):
            correct += int((model(images.view(-1, 28, 28)).argmax(1) == labels).sum())
    print(f"Test Accuracy: {correct / 100:.2f}%", flush=True)
    finish(seconds, epochs)


def run_torch(epochs: int) -> None:
    """Our loop and recipe, with torch.nn.LSTM in the place of our layer."""
    import torch

    from unroll import LSTM
    from unroll.training import train

    class TorchLayer(torch.nn.Module):
        """torch.nn.LSTM behind the call that our classifier makes."""

        def __init__(self, ours):
            super().__init__()
            same = LSTM(ours.input_size, ours.hidden_size)
            same.load_state_dict(ours.state_dict())
            self.theirs = same.to_torch()
            self.directions, self.engine = ours.directions, ours.engine

        def forward(self, x, lengths=None):
            return self.theirs(x)

    ours = train.first_model

    def first_model(recipe, encoder):
        model = ours(recipe, encoder)
        model.layers = TorchLayer(model.layers)
        return model

    train.first_model = first_model
    run_unroll(epochs)


def run_unroll(epochs: int) -> None:
    from unroll.training.recipe import load_recipe
    from unroll.training.run import RunFolder
    from unroll.training.train import train

    recipe = load_recipe("lstm-mnist", {"epochs": epochs})
    with tempfile.TemporaryDirectory() as place:
        metrics = train(recipe, RunFolder.create(f"{place}/run", recipe, {}), echo=lambda line: print(line, flush=True))
    finish(metrics["seconds"]["training"], epochs)


if __name__ == "__main__":
    main()
