"""Small recipes for studies of effects, and outcomes in the place of trainings."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from unroll.training.recipe import load_recipe
from unroll.training.trials import alone
from unroll.tuning import effects
from unroll.tuning.effects import Study, measure, summarise, walk


@pytest.fixture
def small(bars_folder, tmp_path):
    """Writes a recipe file beside the tests' other files; its path."""

    def write(name, **changes):
        fields = {"task": "images", "data": str(bars_folder), "hidden_size": 4, "batch_size": 50, "epochs": 1}
        path = tmp_path.parent / f"{tmp_path.name}-{name}.yaml"
        path.write_text(yaml.safe_dump({"name": name, **fields, **changes}))
        return path

    return write


@pytest.fixture
def pair(small):
    """Two recipes that differ in three hyperparameters."""
    return small("slow"), small("fast", hidden_size=12, learning_rate=0.02, epochs=3)


@pytest.fixture
def counted(monkeypatch, outcome):
    """The trainings that were run, as (fields, seed), with outcomes that follow from them in the place of a training."""
    ran = []

    def train_once(recipe):
        ran.append((recipe.hidden_size, recipe.learning_rate, recipe.epochs, recipe.seed))
        return outcome(recipe)

    monkeypatch.setattr(effects, "train_once", train_once)
    return ran


def made_up(recipe):
    """An outcome that is no sum of its parts and differs from seed to seed."""
    draw = np.random.default_rng([recipe.hidden_size, round(1e6 * recipe.learning_rate), recipe.epochs, recipe.seed])
    share = 1 - 1 / (1 + 0.02 * recipe.hidden_size * recipe.epochs * (1 + 50 * recipe.learning_rate))
    correct = round(1000 * share + draw.normal(0, 8))
    seconds = round(0.1 * recipe.epochs * recipe.hidden_size * draw.uniform(0.9, 1.1), 3)
    return {"accuracy": correct / 1000, "correct": correct, "total": 1000, "seconds": seconds}


def run_study(first, second, folder, seeds=5, trained=made_up):
    """A whole study with outcomes in the place of trainings; what came of it."""
    way = walk(load_recipe(str(first)), load_recipe(str(second)))
    book = Study(folder, way, effects.load_tested(way.first))
    with pytest.MonkeyPatch.context() as patch, alone(folder, "unroll effects"):
        patch.setattr(effects, "train_once", trained)
        measure(way, book, seeds)
    return summarise(way, book, seeds)


@pytest.fixture
def outcome():
    return made_up


@pytest.fixture
def study():
    return run_study
