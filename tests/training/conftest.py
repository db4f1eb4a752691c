"""The product's training beside a plain one: both run in float64 on data so small that a run takes a moment."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file


@pytest.fixture(scope="session")
def oracle() -> ModuleType:
    """oracle.py, which is no test file and in no package."""
    spec = importlib.util.spec_from_file_location("training_oracle", Path(__file__).with_name("oracle.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["training_oracle"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@contextmanager
def float64() -> Iterator[None]:
    """Models are made in float64; in one thread.

    The tensors are so small that a second thread would only be waited for.
    """
    before, threads = torch.get_default_dtype(), torch.get_num_threads()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_default_dtype(before)
        torch.set_num_threads(threads)


# ----------------------------------------------------------------------------------------------------- the product


def train_product(recipe: Any, folder: Path, outcome: Any) -> Any:
    """Train `recipe` and fill in the `outcome`: the one place that knows how the product is asked to train."""
    from unroll.training.run import RunFolder
    from unroll.training.train import prepare, train

    def doubled(part: Any) -> Any:
        if part is None or not part.values.is_floating_point():
            return part
        return dataclasses.replace(part, values=part.values.double())

    data = prepare(recipe)
    data = dataclasses.replace(data, **{name: doubled(getattr(data, name)) for name in ("train", "validation", "test")})
    run = RunFolder.create(folder, recipe, {})
    metrics = train(recipe, run, echo=outcome.lines.append, dataset=data)
    for row in run.history():
        outcome.losses.append([loss for _, loss in row["steps"]])
        outcome.learning_rates.append(row["learning_rate"])
        outcome.gradient_norms.append(row["gradient_norm"])
        if "validation_loss" in row:
            outcome.validation.append((row["validation_loss"], row["validation_accuracy"]))
    outcome.weights = load_file(run.path / "model.safetensors")
    if "test" in metrics:
        outcome.p = torch.from_numpy(run.predictions()["p"])
    for name in ("validation", "test"):
        if name in metrics:
            found = metrics[name]
            outcome.metrics[name] = {key: found[key] for key in ("loss", "accuracy", "confusion")}
            outcome.metrics[name]["class_names"] = list(found["per_class"])
    return outcome


@pytest.fixture(scope="session")
def product(oracle: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Recipe -> what the product makes of it, in float64."""

    def run(recipe: Any) -> Any:
        with float64():
            return train_product(recipe, tmp_path_factory.mktemp("product") / "run", oracle.Outcome())

    return run


@pytest.fixture(scope="session")
def plain(oracle: ModuleType) -> Any:
    """Recipe -> what it ought to make of it, in float64."""

    def run(recipe: Any) -> Any:
        with float64():
            return oracle.train(recipe)

    return run


# -------------------------------------------------------------------------------------------------- two outcomes


def difference(one: Any, two: Any) -> str | None:
    """The first thing in which two outcomes differ by more than rounding; None where they agree."""
    for name in ("losses", "learning_rates", "gradient_norms", "validation"):
        a, b = getattr(one, name), getattr(two, name)
        for epoch, (of_one, of_two) in enumerate(zip(a, b, strict=False), start=1):
            if np.shape(of_one) != np.shape(of_two) or not np.allclose(of_one, of_two, rtol=1e-9, atol=1e-11):
                return f"{name} of epoch {epoch}: {of_one} and {of_two}"
        if len(a) != len(b):
            return f"{name} of {len(a)} and of {len(b)} epochs"
    pairs = {f"weight {name}": (one.weights.get(name), two.weights.get(name)) for name in one.weights | two.weights}
    for name, (a, b) in {**pairs, "test probabilities": (one.p, two.p)}.items():
        if a is None and b is None:
            continue
        if a is None or b is None or a.shape != b.shape or not torch.allclose(a, b, rtol=1e-8, atol=1e-9):
            return f"{name}: {a} and {b}"
    for part in one.metrics | two.metrics:
        a, b = one.metrics.get(part, {}), two.metrics.get(part, {})
        for name in a | b:
            if name not in a or name not in b or not (a[name] == b[name] or np.allclose(a[name], b[name], rtol=1e-9)):
                return f"{name} of the {part} part: {a.get(name)} and {b.get(name)}"
    return None


@pytest.fixture(scope="session")
def compare() -> Any:
    return difference


# ------------------------------------------------------------------------------------------------------ tiny data


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory, idx_writer: Any) -> SimpleNamespace:
    """Names of three folders of pictures, and of three files each of sentences and series."""
    folder = tmp_path_factory.mktemp("tiny")
    series = {"series": "series.csv", "more_series": "more_series.npz", "test_series": "test_series.csv"}
    sentences = {"sentences": "sentences.csv", "more_sentences": "more_sentences.csv", "test_sentences": "test.csv"}
    pictures = {"pictures": "pictures", "more_pictures": "more_pictures", "turning_pictures": "turning_pictures"}
    files = pictures | sentences | series
    for seed, name in enumerate(("pictures", "more_pictures")):
        write_pictures(folder / name, 40 + 10 * seed, seed, idx_writer)
    write_pictures(folder / "turning_pictures", 40, 2, idx_writer, turning=12)
    for seed, (name, count) in enumerate({"sentences": 60, "more_sentences": 45, "test_sentences": 11}.items()):
        write_sentences(folder / files[name], count, seed)
    write_series(folder / files["series"], 44, 1)
    write_series(folder / files["test_series"], 9, 2)
    random = np.random.default_rng(3)
    np.savez(folder / files["more_series"], X=random.normal(size=(30, 5, 4)), y=random.permutation(np.arange(30) % 3))
    return SimpleNamespace(**{name: str(folder / file) for name, file in files.items()})


def write_pictures(folder: Path, count: int, seed: int, writer: Any, turning: int = 0) -> None:
    """8 x 8 pixels, a bright row that says the class, in noise; the later pictures are the brighter ones.

    The last `turning` pictures for training have wrong labels: the more is learnt from the others, the worse they are read.
    """
    random = np.random.default_rng(seed)
    folder.mkdir()
    for prefix, size in (("train", count), ("t10k", 15)):
        labels = random.permutation(np.arange(size) % 3)
        pictures = random.integers(0, 80, (size, 8, 8)) + np.arange(size)[:, None, None]
        pictures[np.arange(size), 2 * labels + 1] += random.integers(60, 120, (size, 8))
        if prefix == "train" and turning:
            labels[-turning:] = (labels[-turning:] + 1) % 3
        writer(folder / f"{prefix}-images-idx3-ubyte", pictures)
        writer(folder / f"{prefix}-labels-idx1-ubyte", labels)


def write_sentences(path: Path, count: int, seed: int) -> None:
    """Two columns of one to seven words, two of labels: a quarter of one class, and three grades."""
    random = np.random.default_rng(seed)
    words = ["the", "The", "a", "film", "Film", "was", "is", "not", "very", "dull", "fine", "long", "Long", "end"]

    def text() -> str:
        return " ".join(random.choice(words, random.integers(1, 8)))

    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "title", "label", "grade"])
        for number in range(count):
            sentence, title, label = text(), text(), "bad" if number % 4 == 0 else "good"
            rows.writerow([f"{sentence} {'dull' if label == 'bad' else 'fine'}", title, label, (2, 9, 10)[number % 3]])


def write_series(path: Path, count: int, seed: int) -> None:
    """A long table in no order, some values missing; there are two ids, two times and two labels to choose from."""
    random, lines = np.random.default_rng(seed), []
    for number in range(count):
        label, length = (
            number % 4 % 3,
            int(random.integers(4, 9)),
        )  # half of them are of class 0
        for t in range(length):
            values = [f"{random.normal() + label * (t > 1):.3f}", f"{random.normal(3, 2):.3f}"]
            values = ["" if random.random() < 0.15 else value for value in values]
            piece = 2 * number + (t >= length // 2)
            lines.append([number, piece, t, (5 * t) % 11, label, number % 3, *values])
    with open(path, "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "piece", "time", "tick", "label", "state", "a", "b"])
        rows.writerows(lines[i] for i in random.permutation(len(lines)))


BASE: dict[str, dict[str, Any]] = {
    "images": {"batch_size": 6},
    "sentences": {"batch_size": 7, "test": 10},
    "series": {"batch_size": 5, "test": 0.2, "fill_missing": "mean"},
}


@pytest.fixture(scope="session")
def tiny_recipe(tiny: SimpleNamespace) -> Any:
    """A recipe of a kind on tiny data, with changes; the name of a tiny file stands for the file."""
    from unroll.training.recipe import parse_recipe

    data = {"images": "pictures", "sentences": "sentences", "series": "series"}

    def make(kind: str, **changes: Any) -> Any:
        fields = {
            "task": kind,
            "data": data[kind],
            "hidden_size": 5,
            "learning_rate": 0.02,
            "epochs": 3,
            "log_every": 1,
        }
        fields = fields | BASE[kind] | changes
        files = {name: getattr(tiny, fields[name]) for name in ("data", "test_data") if fields.get(name)}
        return parse_recipe(fields | files, "tiny")

    return make
