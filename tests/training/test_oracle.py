"""The product trains as the plain loop of oracle.py does: every loss, the weights that are kept, and what they predict."""

from __future__ import annotations

import pytest
import torch

RECIPES = {
    "images": {
        "as it comes": {},
        "sgd": {"optimizer": "sgd", "learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01, "max_norm": 0.5},
        "nesterov": {
            "optimizer": "sgd",
            "learning_rate": 0.05,
            "momentum": 0.8,
            "nesterov": True,
            "schedule": "cosine",
        },
        "adam": {"optimizer": "adam", "weight_decay": 0.02, "max_norm": 1.0, "schedule": "one_cycle"},
        "distorted": {
            **{"rotation": 20.0, "scaling": 0.2, "shear": 15.0, "translation": 1.5, "elastic": 0.8, "plain_epochs": 1},
            **{"label_smoothing": 0.1, "schedule": "one_cycle", "weight_decay": 0.1},
        },
        "deep": {
            **{"num_layers": 3, "bidirectional": True, "dropout": 0.3, "pooling": "mean", "validation": 9},
            **{"weight_average": 0.6, "epochs": 5},
        },
        "rnn": {
            **{"cell": "rnn", "nonlinearity": "relu", "num_layers": 2, "dropout": 0.2, "initialisation": "linear"},
            **{"standardise": False, "validation": 0.25, "epochs": 5, "seed": 3},
        },
        "in order": {"shuffle": False, "dropout": 0.4, "initialisation": "uniform", "forget_bias": 1.0},
        "gru": {
            **{"cell": "gru", "num_layers": 2, "bidirectional": True, "dropout": 0.2, "initialisation": "linear"},
            **{"weight_decay": 0.1, "max_norm": 0.5},
        },
        "peephole": {
            **{"cell": "peephole", "num_layers": 2, "bidirectional": True, "initialisation": "uniform"},
            **{"forget_bias": 1.0, "dropout": 0.2},
        },
        "in order and distorted": {"shuffle": False, "rotation": 20.0, "plain_epochs": 1},
    },
    "sentences": {
        "as it comes": {},
        "embedded": {
            **{"embedding_size": 4, "dropout": 0.3, "word_dropout": 0.2, "bidirectional": True, "pooling": "max"},
            **{"class_weights": "balanced", "label_smoothing": 0.1, "min_count": 3, "validation": 10, "epochs": 5},
        },
        "in order": {"shuffle": False, "word_dropout": 0.3},
        "layernorm": {"cell": "layernorm", "num_layers": 2, "bidirectional": True, "initialisation": "linear"},
        "mgu": {"cell": "mgu", "forget_bias": -1.0, "bidirectional": True, "pooling": "mean"},
        "one by one": {  # more than 50 batches: sorted by length in two stretches
            **{"batch_size": 1, "epochs": 2, "test": 0, "cell": "rnn", "initialisation": "normal", "optimizer": "sgd"},
            **{"schedule": "cosine", "max_norm": 1.0},
        },
        "tested elsewhere": {
            **{"test_data": "test_sentences", "validation": 0.2, "num_layers": 2, "dropout": 0.2, "epochs": 4},
            **{"weight_average": 0.5, "patience": 4, "max_vocabulary": 8, "max_length": 5, "lowercase": False},
        },
    },
    "series": {
        "as it comes": {},
        "bidirectional": {
            **{"bidirectional": True, "pooling": "max", "dropout": 0.2, "class_weights": "balanced", "epochs": 5},
            **{"fill_missing": "last", "forget_bias": 1.0, "validation": 0.2, "max_norm": 1.0, "schedule": "one_cycle"},
        },
        "of equal length": {
            "data": "more_series",
            "pooling": "mean",
            "optimizer": "adam",
            "weight_decay": 0.1,
            "epochs": 5,
        },
        "rnn": {
            **{"cell": "rnn", "num_layers": 2, "initialisation": "normal", "test_data": "test_series", "validation": 9},
            **{
                "optimizer": "sgd",
                "learning_rate": 0.1,
                "momentum": 0.5,
                "label_smoothing": 0.2,
                "fill_missing": "zero",
            },
            **{"weight_average": 0.5, "patience": 3},
        },
    },
}


def printed(recipe, outcome):
    """The lines that a run with this outcome prints, every step among them."""
    lines = []
    for epoch, losses in enumerate(outcome.losses, start=1):
        head = f"Epoch [{epoch}/{recipe.epochs}], "
        lines += [f"{head}Step [{step}/{len(losses)}], Loss: {loss:.4f}" for step, loss in enumerate(losses, start=1)]
        lines.append(f"{head}Average Loss: {sum(losses) / len(losses):.4f}")
        if outcome.validation:
            loss, accuracy = outcome.validation[epoch - 1]
            lines[-1] += f", Validation Loss: {loss:.4f}, Validation Accuracy: {100 * accuracy:.2f}%"
    if "test" in outcome.metrics:
        lines.append(f"Test Accuracy: {100 * outcome.metrics['test']['accuracy']:.2f}%")
    return lines


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in RECIPES for name in RECIPES[kind]])
def test_training_is_the_plain_loops(tiny_recipe, product, plain, compare, kind, name):
    recipe = tiny_recipe(kind, **RECIPES[kind][name])
    found, expected = product(recipe), plain(recipe)
    assert sum(map(len, expected.losses)) >= 20, "too few steps to show much"
    assert compare(found, expected) is None
    said = [line for line in found.lines if line.startswith(("Read ", "Warning: "))]  # of a data file, before all else
    assert found.lines == said + printed(recipe, expected)
    assert bool(said) == (kind != "images")


@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("weight_average", [None, 0.5])
def test_early_stopping_stops_and_keeps_the_best_epoch(tiny_recipe, product, plain, compare, patience, weight_average):
    # Held out are pictures with wrong labels: the first epoch is the best, whatever is learnt after it.
    fields = {"data": "turning_pictures", "validation": 12, "learning_rate": 0.05, "weight_average": weight_average}
    recipe = tiny_recipe("images", epochs=8, patience=patience, **fields)
    found = product(recipe)
    losses = [loss for loss, _ in found.validation]
    assert losses == sorted(losses)
    assert len(losses) == 1 + patience
    assert found.metrics["validation"]["loss"] == pytest.approx(losses[0], rel=1e-9)
    first = product(tiny_recipe("images", epochs=1, **fields))
    for name, weights in first.weights.items():
        assert torch.equal(found.weights[name], weights), name
    assert compare(found, plain(recipe)) is None
