"""Series of measurements with labels: T time steps of D features each, of equal length or not.

Three kinds of files:

- ``.npz`` with arrays X (N, T, D) or (N, T), y (N,) and perhaps lengths (N,); or ``.npy`` with X alone, beside a second
  file with y (X_train.npy and y_train.npy) and perhaps a third with lengths (lengths_train.npy);
- a long table (.csv, .tsv): one line for each time step, with columns for the series' id, the time, the label, and one
  for each feature;
- ``.ts``, the text format of the UCR and UEA archives (Bagnall et al., arXiv:1811.00075): several dimensions, unequal
  lengths and missing values included; time stamps and regression targets are not.

Not here: resampling. Steps are taken as they come, whatever time lies between them.
"""

from __future__ import annotations

import datetime
import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor

from unroll.data import parts
from unroll.data.batches import Dataset, Sequences
from unroll.data.tables import missing_column, read_table, read_text, refuse_surrogates
from unroll.errors import DataError, InputError, nearest

Fill = Literal["none", "zero", "last", "mean"]
LARGEST = float(np.finfo(np.float32).max)
MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none"})


@dataclass
class LabelledSeries:
    """What a file holds: arrays (T, D) in float64 with NaN where values are missing, and labels.

    `places` say where each series was read, `features` what its columns are called, for messages.
    """

    where: Path
    features: list[str]
    series: list[np.ndarray] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def choose(self, numbers: Sequence[int]) -> LabelledSeries:
        """The series with these numbers."""
        return LabelledSeries(
            self.where,
            self.features,
            [self.series[i] for i in numbers],
            [self.labels[i] for i in numbers] if self.labels else [],
            [self.places[i] for i in numbers],
        )

    def with_features(self, names: Sequence[str]) -> LabelledSeries:
        """The same series with their features in this order.

        Raises:
            DataError: the features are others.
        """
        if sorted(self.features) != sorted(names):
            raise DataError(
                f"{self.where} has the features {_listed(self.features)}; expected {_listed(names)}, as in training"
            )
        order = [self.features.index(name) for name in names]
        series = self.series if order == list(range(len(order))) else [array[:, order] for array in self.series]
        return LabelledSeries(self.where, list(names), series, self.labels, self.places)


# ----------------------------------------------------------------------------------------------------------- encoder


@dataclass(frozen=True)
class SeriesEncoder(parts.Saved):
    """Series as D standardised features for each time step: x ← (x - mean)/deviation, both of the training part.

    Attributes:
        mean, deviation: of each feature, over all time steps of the training part; D numbers.
        feature_names: what the features are called.
        class_names: what the classes are called.
        fill_missing: what takes the place of a missing value: ``"zero"`` 0, ``"mean"`` the training part's mean,
            ``"last"`` the value before it in the series (the mean where there is none); ``"none"``: missing values are
            an error.
    """

    task: ClassVar[str] = "series"
    renamed: ClassVar[dict[str, str]] = {"feature_names": "features"}

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]
    fill_missing: Fill = "none"

    @classmethod
    def fit(cls, train: LabelledSeries, class_names: tuple[str, ...], fill_missing: Fill = "none") -> Self:
        """Mean and deviation of the values that are there in the training part.

        Raises:
            DataError: a feature has no value at all, or one beyond float32.
        """
        _refuse_too_large(train.series, train.places, train.features, DataError)  # or the squares below overflow
        steps = np.concatenate(train.series)  # (ΣT, D)
        there = np.isfinite(steps)
        for name, count in zip(train.features, there.sum(0).tolist(), strict=True):
            if count == 0:
                raise DataError(f"{train.where}: feature {name} has no value in the training part; remove it")
        count = there.sum(0)
        mean = np.where(there, steps, 0).sum(0) / count
        variance = (np.where(there, steps - mean, 0) ** 2).sum(0) / count
        # A feature that never changes says nothing: it becomes 0, not the rounding error divided by itself.
        constant = np.sqrt(variance) <= 1e-12 * np.maximum(1.0, np.abs(mean))
        deviation = np.where(constant, 1.0, np.sqrt(variance))
        return cls(tuple(mean.tolist()), tuple(deviation.tolist()), tuple(train.features), class_names, fill_missing)

    @property
    def input_size(self) -> int:
        """D."""
        return len(self.mean)

    def encode(self, series: Sequence[Any]) -> tuple[Tensor, Tensor | None]:
        """Arrays (T, D), or (T,) of one feature -> standardised values in the form of `Sequences`.

        Returns:
            (N, T, D) and None where all are equally long, else (ΣT, D) and lengths (N,); float32.

        Raises:
            InputError: an array has another shape, or a value is missing and not to be filled, or infinite.
        """
        arrays = []
        for n, item in enumerate(series):
            try:
                array = np.asarray(item, dtype=np.float64)
            except (TypeError, ValueError):
                raise InputError(f"series {n} is no array of numbers; expected shape (T, {self.input_size})") from None
            if array.ndim == 1 and self.input_size == 1:
                array = array[:, None]
            if array.ndim != 2 or array.shape[1] != self.input_size or len(array) == 0:
                raise InputError(
                    f"series {n} has shape {array.shape}; expected (T, {self.input_size}), T steps of the features "
                    f"{_listed(self.feature_names)}"
                )
            arrays.append(array)
        return self.standardise(arrays, [f"series {n}" for n in range(len(arrays))], self.feature_names, InputError)

    def standardise(
        self,
        arrays: Sequence[np.ndarray],
        places: Sequence[str],
        features: Sequence[str],
        error: type[DataError] | type[InputError] = DataError,
    ) -> tuple[Tensor, Tensor | None]:
        """As `encode`, for arrays (T, D) that have the right shape; `places` and `features` are named in errors."""
        _refuse_too_large(arrays, places, features, error)
        mean, deviation = np.array(self.mean), np.array(self.deviation)
        lengths = np.array([len(array) for array in arrays])
        steps = np.concatenate(arrays) if len(arrays) else np.empty((0, self.input_size))  # (ΣT, D)
        if self.fill_missing == "none":
            remedy = "set fill_missing to zero, last or mean"
            _refuse(np.isnan(steps), arrays, places, features, error, lambda _: f"is missing; {remedy}")
        steps = _filled(steps, lengths, self.fill_missing, mean)
        scaled = (steps - mean) / deviation
        _refuse(
            np.abs(scaled) > LARGEST,
            arrays,
            places,
            features,
            error,
            lambda value: f"is {value}, too far from what the training part holds; expected a value nearer to it",
        )
        values = torch.from_numpy(scaled.astype(np.float32))
        if len(lengths) and (lengths == lengths[0]).all():
            return values.view(len(lengths), -1, self.input_size), None
        return values, torch.from_numpy(lengths)

    def features(self, values: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """values (B, T, D) -> model inputs (T, B, D)."""
        return values.transpose(0, 1)


def _refuse(
    bad: np.ndarray,
    arrays: Sequence[np.ndarray],
    places: Sequence[str],
    features: Sequence[str],
    error: type[DataError] | type[InputError],
    why: Callable[[float], str],
) -> None:
    """Raise `error` with the place of the first value where `bad` (ΣT, D) is true."""
    if not bad.any():
        return
    row, column = np.argwhere(bad)[0].tolist()
    n = 0
    while row >= len(arrays[n]):
        row, n = row - len(arrays[n]), n + 1
    what = why(float(arrays[n][row, column]))
    raise error(f"{places[n]}, step {row} (from 0), feature {features[column]}: the value {what}")


def _refuse_too_large(
    arrays: Sequence[np.ndarray],
    places: Sequence[str],
    features: Sequence[str],
    error: type[DataError] | type[InputError],
) -> None:
    """Infinities, and what float32 cannot hold."""
    bad = np.concatenate([np.abs(array) > LARGEST for array in arrays]) if len(arrays) else np.zeros((0, 1), bool)

    def why(value: float) -> str:
        return f"is {value}; expected a finite number" + ("" if math.isinf(value) else f" of at most {LARGEST:.2g}")

    _refuse(bad, arrays, places, features, error, why)


def _filled(steps: np.ndarray, lengths: np.ndarray, how: Fill, mean: np.ndarray) -> np.ndarray:
    """steps (ΣT, D) with something in the place of every NaN."""
    missing = np.isnan(steps)
    if how == "none" or not missing.any():
        return steps
    if how == "zero":
        return np.where(missing, 0.0, steps)
    if how == "last":
        rows = np.arange(len(steps))[:, None]
        starts = np.repeat(lengths.cumsum() - lengths, lengths)[:, None]  # (ΣT, 1), where the row's series begins
        last = np.maximum.accumulate(np.where(missing, -1, rows), axis=0)  # the last row that has a value
        before = np.take_along_axis(steps, np.maximum(last, 0), axis=0)
        steps = np.where(missing & (last >= starts), before, steps)
    return np.where(np.isnan(steps), mean, steps)


# -------------------------------------------------------------------------------------------------------------- files


def read_series(
    path: Path, id_column: str = "id", time_column: str = "time", label_column: str = "label", labelled: bool = True
) -> LabelledSeries:
    """The series of a file of any kind that the module names.

    Args:
        id_column, time_column, label_column: of a long table; all other columns are features.
        labelled: without labels the file is one to predict: y, or the column of labels, may be absent.

    Raises:
        DataError: the file or one of its lines is not as expected.
    """
    if not path.is_file():
        raise DataError(f"data file {path} does not exist")
    suffix = path.suffix.lower()
    if suffix in (".npz", ".npy"):
        found = _read_arrays(path, labelled)
    elif suffix == ".ts":
        found = _read_ts(path, labelled)
    elif suffix in (".csv", ".tsv", ".tab", ".txt"):
        found = _read_long(path, id_column, time_column, label_column, labelled)
    else:
        raise DataError(f"{path}: expected a file of series, with suffix .npz, .npy, .csv, .tsv or .ts")
    if not found.series:
        raise DataError(f"{path} holds no series")
    return found


def _read_arrays(path: Path, labelled: bool) -> LabelledSeries:
    if path.suffix.lower() == ".npz":
        arrays = _load(path)
        assert isinstance(arrays, dict)
        for name in ("X", "y") if labelled else ("X",):
            if name not in arrays:
                raise DataError(
                    f"{path} has no array {name!r}; it holds {_listed(list(arrays))}; expected X, y, perhaps lengths"
                )
        X, y, lengths = arrays["X"], arrays.get("y"), arrays.get("lengths")
    else:
        X, y, lengths = _load(path), None, None
        for name in ("y", "lengths"):
            # An X by itself, as in EXP_X.npy, goes before one within a word, as in trainX.npy.
            alone, found_alone = re.subn(r"(?<![^\W\d_])X(?![^\W\d_])", name, path.name, count=1)
            beside = path.with_name(alone if found_alone else path.name.replace("X", name, 1))
            exists = beside != path and beside.is_file()
            if name == "y" and labelled and not exists:
                expected = beside.name if beside != path else f"X_{path.stem}.npy and y_{path.stem}.npy"
                raise DataError(
                    f"{path}: the labels are missing; expected them beside it in {expected}, or both in one .npz"
                )
            if exists:
                y, lengths = (_load(beside), lengths) if name == "y" else (y, _load(beside))
    X = np.asarray(X)
    if X.ndim == 2:
        X = X[:, :, None]
    if X.ndim != 3 or X.dtype.kind not in "fiub":
        raise DataError(f"{path}: X has shape {X.shape} and type {X.dtype}; expected numbers (N, T, D) or (N, T)")
    N, T, D = X.shape
    if T == 0 or D == 0:
        raise DataError(f"{path}: X has shape {X.shape}; expected at least one time step and one feature")
    if y is not None and y.shape != (N,):
        raise DataError(f"{path}: y has shape {y.shape}, but X has {N} series; expected ({N},)")
    if lengths is None:
        lengths = np.full(N, T)
    if lengths.shape != (N,) or lengths.dtype.kind not in "iu":
        raise DataError(
            f"{path}: lengths has shape {lengths.shape} and type {lengths.dtype}; expected ({N},) whole numbers"
        )
    for n, length in enumerate(lengths.tolist()):
        if not 1 <= length <= T:
            raise DataError(f"{path}: lengths[{n}] is {length}; expected 1 to {T}, the steps of X")
    found = LabelledSeries(path, [str(d) for d in range(D)])
    for n in range(N):
        place = f"{path}, series {n} (from 0)"
        found.series.append(X[n, : lengths[n]].astype(np.float64))
        found.places.append(place)
        if y is not None:
            found.labels.append(_label(y[n], place))
    return found


def _load(path: Path) -> Any:
    """One array, or a dictionary of arrays; never Python objects, because loading those runs code from the file."""
    try:
        with open(path, "rb") as file:
            content = np.load(file, allow_pickle=False)
            return dict(content) if isinstance(content, np.lib.npyio.NpzFile) else content
    except ValueError as error:
        if "Object arrays" in str(error):
            raise DataError(
                f"{path} holds Python objects, which are not read; expected arrays of numbers or text "
                "(series of unequal length: pad them, and give lengths)"
            ) from None
        raise DataError(f"{path} is damaged or no NumPy file") from None
    except Exception:  # zipfile, zlib and struct each raise their own kinds where a file is damaged
        raise DataError(f"{path} is damaged or no NumPy file") from None


def _read_long(path: Path, id_column: str, time_column: str, label_column: str, labelled: bool) -> LabelledSeries:
    table = read_table(path)
    header = [name.strip() for name in table[0][1]]
    for column in (id_column, time_column, *([label_column] if labelled else [])):
        if column not in header:
            raise DataError(missing_column(path, column, header))
    special = {id_column, time_column, label_column}
    wanted = [i for i, name in enumerate(header) if name not in special]
    if not wanted:
        raise DataError(f"{path} has no column of measurements beside {_listed(header)}")
    features = [header[i] for i in wanted]
    where_id, where_time = header.index(id_column), header.index(time_column)
    where_label = header.index(label_column) if labelled else None

    rows: dict[str, list[tuple[float, int, list[float]]]] = {}
    labels: dict[str, tuple[str, int]] = {}
    as_time = _clock(path, table[1:], where_time, time_column)
    for line, fields in table[1:]:
        place = f"{path}, line {line}"
        name = fields[where_id].strip()
        if not name:
            raise DataError(f"{place}: the series' {id_column} is missing")
        if where_label is not None:
            label = _label(fields[where_label], place)
            first, first_line = labels.setdefault(name, (label, line))
            if label != first:
                raise DataError(
                    f"{place}: series {name} has label {label!r} here, but {first!r} in line {first_line}; "
                    "expected one label for each series"
                )
        values = [_number(fields[i], place, feature) for i, feature in zip(wanted, features, strict=True)]
        rows.setdefault(name, []).append((as_time(fields[where_time], place), line, values))

    found = LabelledSeries(path, features)
    for name, steps in rows.items():
        steps.sort(key=lambda step: step[0])
        for before, after in itertools.pairwise(steps):
            if before[0] == after[0]:
                raise DataError(
                    f"{path}, line {after[1]}: series {name} has this {time_column} already in line {before[1]}"
                )
        found.series.append(np.array([values for _, _, values in steps]))
        found.places.append(f"{path}, series {name}")
        if labelled:
            found.labels.append(labels[name][0])
    return found


def _clock(path: Path, rows: list[tuple[int, list[str]]], column: int, name: str) -> Callable[[str, str], float]:
    """How the column of times is read: as numbers, or as dates in ISO form."""

    def number(text: str, place: str) -> float:
        try:
            return int(text)  # float would take nanoseconds since 1970 that lie close together for the same
        except ValueError:
            pass
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise DataError(f"{place}: {name} is {text.strip()!r}; expected a number, as in the first line of data")
        return value

    def date(text: str, place: str) -> float:
        try:
            moment = datetime.datetime.fromisoformat(text.strip())
        except ValueError:
            raise DataError(
                f"{place}: {name} is {text.strip()!r}; expected a number, or a date such as 2024-05-31 12:00:00"
            ) from None
        return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()

    if not rows:
        raise DataError(f"{path} holds no record after its header line; expected one a line")
    try:
        float(rows[0][1][column])
    except ValueError:
        return date
    return number


_HEADER = re.compile(r"@(\w+)\s*(.*)")


def _read_ts(path: Path, labelled: bool) -> LabelledSeries:
    found = LabelledSeries(path, [])
    declared: list[str] | None = None  # the labels that @classLabel names
    has_label = True
    in_data = False
    for line, content in enumerate(read_text(path).splitlines(), start=1):
        content = content.strip()
        place = f"{path}, line {line}"
        if not content or content.startswith(("#", "%")):
            continue
        if not in_data:
            match = _HEADER.match(content)
            if match is None:
                raise DataError(f"{place}: expected a line that begins with @, or @data before the first series")
            key, words = match[1].lower(), match[2].split()
            on = bool(words) and words[0].lower() == "true"
            if key == "timestamps" and on:
                raise DataError(f"{place}: series with time stamps are not supported; expected @timeStamps false")
            if key == "targetlabel" and on:
                raise DataError(
                    f"{place}: the targets are numbers to be estimated; expected classes (@classLabel true …)"
                )
            if key == "classlabel":
                has_label, declared = on, words[1:] if on and words[1:] else None
            in_data = key == "data"
            if in_data and labelled and not has_label:
                raise DataError(f"{path}: @classLabel is false; expected series with labels")
            continue
        dimensions = content.split(":")
        if has_label:
            label = dimensions.pop().strip()
            if not dimensions:
                raise DataError(f"{place}: expected dimensions and a label, parted by colons; found no colon")
            if declared is not None and label not in declared:
                raise DataError(
                    f"{place}: label {label!r} is none of those that @classLabel names{nearest(label, declared)}"
                )
            found.labels.append(_label(label, place))
        columns = [[_number(value, place, str(d)) for value in text.split(",")] for d, text in enumerate(dimensions)]
        lengths = {len(column) for column in columns}
        if len(lengths) > 1:
            raise DataError(f"{place}: the dimensions have {sorted(lengths)} values; expected the same number of each")
        if not found.features:
            found.features = [str(d) for d in range(len(columns))]
        if len(columns) != len(found.features):
            raise DataError(
                f"{place}: found {len(columns)} dimensions, expected {len(found.features)} as in the first series"
            )
        found.series.append(np.array(columns).T)
        found.places.append(f"{path}, line {line}")
    return found


def _label(value: Any, place: str) -> str:
    if isinstance(value, bytes):  # NumPy's type S
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise DataError(
                f"{place}: the label is {bytes(value)!r}, which is not UTF-8; expected text or a number"
            ) from None
    label = parts.label_text(value)
    if label is None:
        raise DataError(parts.no_label(value, f"{place}: the label"))
    refuse_surrogates(label, f"{place}: the label")
    return label


def _number(text: str, place: str, feature: str) -> float:
    try:
        return float(text)
    except ValueError:
        if text.strip().lower() in MISSING:
            return math.nan
        raise DataError(f"{place}: feature {feature} is {text.strip()[:40]!r}; expected a number") from None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "") if names else "nothing"


# ----------------------------------------------------------------------------------------------------------- dataset


def load_series_dataset(
    data: str | None,
    test_data: str | None = None,
    *,
    test: float = 0.0,
    validation: float = 0.0,
    seed: int = 0,
    id_column: str = "id",
    time_column: str = "time",
    label_column: str = "label",
    fill_missing: Fill = "none",
) -> Dataset:
    """Labelled series, ready to train on.

    Args:
        data: file to train on.
        test_data: file to test with; None to split off `test` of the series (below 1 a share, else a number).
        validation: how much of what is left to hold out for choosing.
        seed: of the split; see `unroll.data.parts.split`.
        id_column, time_column, label_column: see `read_series`.
        fill_missing: see `SeriesEncoder`.

    Raises:
        DataError: the files are not as expected, or the parts do not fit together.
    """
    if data is None:
        raise DataError(
            "no series are part of the package; say where yours are with --data FILE (.npz, .npy, .csv or .ts)"
        )
    if fill_missing not in get_args(Fill):
        raise InputError(f"fill_missing is {fill_missing!r}{nearest(fill_missing, get_args(Fill))}")
    columns = {"id_column": id_column, "time_column": time_column, "label_column": label_column}
    everything = read_series(Path(data), **columns)  # type: ignore[arg-type]
    own_test = None
    if test_data is not None:
        own_test = read_series(Path(test_data), **columns).with_features(everything.features)  # type: ignore[arg-type]
    parts.class_names(everything.labels, Path(data))  # one class alone is the greater mistake than too few of it
    chosen = parts.split(everything.labels, 0.0 if own_test else test, validation, seed)
    train, held_out, tested = (everything.choose(numbers) for numbers in chosen)
    tested = own_test or tested
    names = parts.class_names(train.labels, Path(data))
    encoder = SeriesEncoder.fit(train, names, fill_missing)

    def sequences(part: LabelledSeries) -> Sequences | None:
        if not part.series:
            return None
        values, lengths = encoder.standardise(part.series, part.places, part.features)
        return Sequences(values, torch.tensor(parts.classes(part.labels, names, part.places)), lengths)

    trained = sequences(train)
    assert trained is not None
    return Dataset(encoder, trained, sequences(held_out), sequences(tested))


def load_test_series(
    data: str, encoder: SeriesEncoder, id_column: str = "id", time_column: str = "time", label_column: str = "label"
) -> Sequences:
    """A file of labelled series to test a trained model with.

    Raises:
        DataError: the file is not as expected, or holds features or labels that the model does not know.
    """
    found = read_series(Path(data), id_column, time_column, label_column).with_features(encoder.feature_names)
    values, lengths = encoder.standardise(found.series, found.places, found.features)
    return Sequences(values, torch.tensor(parts.classes(found.labels, encoder.class_names, found.places)), lengths)
