"""Look: one input of a run, traced and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from unroll.data.images import ImageEncoder
from unroll.data.sentences import SentenceEncoder
from unroll.errors import InputError
from unroll.insight.trace import Trace, trace
from unroll.training.run import Classifier, RunFolder, load
from unroll.training.tasks import load_test_part, warnings_about


class Look(NamedTuple):
    """A trace of one input, and what a figure of it needs to know besides; and what a person should know of the input.

    `meanings` are those of `unroll.cells.Cell`.
    """

    trace: Trace
    words: list[str] | None
    picture: bool
    truth: str | None
    warnings: Sequence[str] = ()
    meanings: Mapping[str, str] = {}


def look(run: str | Path, given: str | None = None, number: int | None = None) -> Look:
    """Trace one input of a run.

    Args:
        run: a run folder.
        given: a picture file or a sentence; None: a test sequence.
        number: which test sequence, counted from 0; None: the first that the run keeps with its predictions.

    Raises:
        InputError: the input does not fit the run, or there is no such test sequence.
        RunError: the run holds no trained model.
    """
    if given is not None and number is not None:
        raise InputError(f"both an input ({given!r}) and --number {number} were given; give one of them")
    folder, classifier = RunFolder(run), load(run)
    encoder, truth = classifier.encoder, None
    if given is None:
        found, truth = _test_sequence(folder, classifier, number)
    elif not isinstance(encoder, ImageEncoder | SentenceEncoder):
        raise InputError(f"the run reads {encoder.task}: choose one of its test sequences, with --number N")
    else:
        found = trace(classifier, given)
    words = encoder.words_of(torch.from_numpy(found.x[:, 0])) if isinstance(encoder, SentenceEncoder) else None
    warnings = [] if given is None else warnings_about(encoder, [given])
    meanings = classifier.model.layers.cells[0][0].meanings
    return Look(found, words, isinstance(encoder, ImageEncoder), truth, warnings, meanings)


def _test_sequence(folder: RunFolder, classifier: Classifier, number: int | None) -> tuple[Trace, str]:
    kept = folder.path / "predictions.npz"
    if number is None and kept.is_file():
        # The run keeps some test sequences beside its predictions: no need to read the whole data set.
        with np.load(kept) as saved:
            y = int(saved["y"][saved["one_of_each"][0]])
            values = torch.from_numpy(saved["shown_values"][:1])
            T = int(saved["shown_lengths"][0])
    else:
        test = load_test_part(classifier.recipe, classifier.encoder, None)
        number = number or 0
        if not 0 <= number < len(test):
            raise InputError(f"test sequence {number} does not exist; there are {len(test)}, numbered from 0")
        values, _ = test.take(torch.tensor([number]))
        y, T = int(test.y[number]), values.shape[1]
    return trace(classifier, classifier.encoder.features(values[:, :T])), classifier.class_names[y]
