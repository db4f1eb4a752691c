"""What is said of a data file before training: what was read from it, and which columns look as if they gave it away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from unroll.data.parts import Labelled, listed, shorten
from unroll.errors import DataError

FEW = 10  # series; of fewer nothing is concluded
MUCH = 0.5  # of the words: so many unknown ones are worth a warning


def summary(found: Labelled, what: str, lengths: Sequence[int]) -> list[str]:
    """How many series or sentences there are, their lengths, features and classes, what is not read, and what is doubtful."""
    unit = "words" if what == "sentences" else "steps"
    steps = f"{min(lengths):,}" if min(lengths) == max(lengths) else f"{min(lengths):,} to {max(lengths):,}"
    classes = [f"{shorten(name)} ({count:,})" for name, count in sorted(Counter(found.labels).items())]
    features = [f"features: {listed(found.features, 20)}"] if found.features else []
    dropped = [f"not read: {listed(found.dropped, 20)}"] if found.dropped else []
    said = [f"{len(found.series):,} {what} of {steps} {unit}", *features, f"classes: {listed(classes, 20)}", *dropped]
    return [f"Read {found.where.name}: {'; '.join(said)}", *found.doubts]


def doubtful(found: Labelled, chosen: bool) -> list[str]:
    """Warnings about features that may not be measurements.

    Args:
        chosen: the features were chosen by name: what is sure to be a mistake otherwise is a warning then.

    Raises:
        DataError: a feature is surely none, or no series has a second step.
    """
    if len(found.series) > 1 and all(len(array) == 1 for array in found.series):
        raise DataError(
            f"{found.where}: each of the {len(found.series):,} series has one step only; name the column that all steps of "
            "a series share with --id-column"
        )
    warnings = []
    for name, why, surely in _doubts(found):
        if surely and not chosen:
            raise DataError(
                f"{found.where}: feature {shorten(name)!r} {why}; leave it out with --ignore {shorten(name)!r}, or name those "
                "that are measurements with --features NAME,…"
            )
        warnings.append(f"Warning: feature {shorten(name)!r} {why}; --ignore {shorten(name)!r} leaves it out")
    return warnings


def _doubts(found: Labelled) -> Iterator[tuple[str, str, bool]]:
    """Each feature that may be no measurement, why, and whether that is sure."""
    steps = np.concatenate(found.series)  # (ΣT, D)
    lengths = [len(array) for array in found.series]
    inside = np.ones(len(steps), bool)  # (ΣT,): whether the step before is of the same series
    inside[np.cumsum(lengths) - lengths] = False
    before, after = steps[:-1][inside[1:]], steps[1:][inside[1:]]
    with np.errstate(invalid="ignore"):  # NaN of the kind that warns
        tests = before == after, before < after, before > after, steps == np.round(steps)
    same, grows, falls, whole = (np.all(true, axis=0) for true in tests)
    y = np.unique(found.labels, return_inverse=True)[1]
    owners = np.repeat(y, lengths)

    for d, name in enumerate(found.features):
        if name.startswith("Unnamed: "):
            yield name, "has no name in the file's first line, as a row number that pandas wrote", True
        elif len(lengths) >= FEW and (same[d] or grows[d] or falls[d] or whole[d]):
            values, which = np.unique(steps[:, d], return_inverse=True)
            first = np.zeros(len(values), np.int64)
            first[which] = owners
            tells = len(values) > 1 and bool((first[which] == owners).all())  # no value occurs in two classes
            verb, way = ("grows", 1) if grows[d] else ("falls", -1)
            if (grows[d] or falls[d]) and len(values) == len(steps) and (whole[d] or (way * np.diff(which) > 0).all()):
                yield name, f"{verb} through all steps of the file, as a row number", True
            elif grows[d] or falls[d]:
                yield name, f"{verb} with every step of every series, as a clock or a row number", False
            elif same[d] and tells and FEW * len(values) <= len(lengths):
                yield name, "by itself gives the label", True
            elif same[d] and whole[d] and len(values) == len(lengths):
                yield name, "is another whole number for each series, as an identifier", True
            elif same[d] and len(values) > 1:
                yield name, "is the same in all steps of each series, as the number of a subject", False
            elif tells and 2 * len(values) <= len(steps):
                yield name, "by itself gives the label: no value of it occurs in two classes", False


def unknown_words(part: str, values: Tensor) -> list[str]:
    """A warning where much of a part's words (…) is the unknown word, 0."""
    share = float((values == 0).double().mean())
    if share <= MUCH:
        return []
    return [
        f"Warning: {100 * share:.0f}% of the words in the {part} part do not occur in the training part's vocabulary: little "
        "can be said about them"
    ]
