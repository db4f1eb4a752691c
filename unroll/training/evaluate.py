"""Testing a trained model on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unroll.errors import DataError
from unroll.training.outcome import measure
from unroll.training.run import load, probabilities
from unroll.training.tasks import load_test_part


def evaluate(run: str | Path, data: str | None = None) -> dict[str, Any]:
    """Measure the model of a run on the test part of `data` (None: the run's own).

    Raises:
        RunError: the run holds no trained model.
        DataError: the data cannot be read or do not fit the model.
    """
    classifier = load(run)
    test = load_test_part(classifier.recipe, classifier.encoder, data)
    if not len(test):
        raise DataError(f"the test part of {data or 'the run'} is empty")
    return measure(probabilities(classifier.model, test, classifier.encoder), test.y, classifier.class_names)
