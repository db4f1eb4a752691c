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
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import IO, Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from torch import Tensor

from unroll.data import notes, parts
from unroll.data.batches import Dataset, Sequences, as_sequences, ragged
from unroll.data.tables import (
    check_file,
    header_of,
    lines_of,
    positions,
    read_table,
    read_text,
    refuse_equal,
    refuse_foreign,
)
from unroll.errors import DataError, InputError, nearest

Fill = Literal["none", "zero", "last", "mean"]
LONG = (".csv", ".tsv", ".tab", ".txt")
SUFFIXES = (".npz", ".npy", ".ts", *LONG)
LARGEST = float(np.finfo(np.float32).max)
NPY_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
MISSING = frozenset({"", "?", "na", "n/a", "nan", "null", "none"})


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
    def fit(cls, train: parts.Labelled, class_names: tuple[str, ...], fill_missing: Fill = "none") -> Self:
        """Mean and deviation of the values that are there in the training part.

        Raises:
            DataError: a feature has no value at all, or one beyond float32.
        """
        steps = _steps(train, DataError)  # (ΣT, D)
        for name, without in zip(train.features, np.isnan(steps).all(0), strict=True):
            if without:
                raise DataError(f"{train.where}: feature {name} has no value in the training part; remove it")
        mean, deviation = np.nanmean(steps, 0), np.nanstd(steps, 0)
        # A feature that never changes says nothing: it becomes 0, not the rounding error divided by itself.
        deviation[deviation <= 1e-12 * np.maximum(1.0, np.abs(mean))] = 1.0
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
        found = parts.Labelled(Path(), list(self.feature_names))
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
                    f"{parts.listed(self.feature_names)}"
                )
            found.series.append(array)
            found.places.append(f"series {n}")
        return self.stored(found, InputError)

    def stored(
        self, found: parts.Labelled, error: type[DataError | InputError] = DataError
    ) -> tuple[Tensor, Tensor | None]:
        """As `encode`, for arrays (T, D) that have the right shape."""
        steps, mean = _steps(found, error), np.array(self.mean)
        lengths = [len(array) for array in found.series]
        if self.fill_missing == "none":
            _refuse(np.isnan(steps), found, error, "is missing; set fill_missing to zero, last or mean")
        scaled = (_filled(steps, lengths, self.fill_missing, mean) - mean) / np.array(self.deviation)
        far = "is {}, too far from what the training part holds; expected a value nearer to it"
        _refuse(np.abs(scaled) > LARGEST, found, error, far)
        return ragged(torch.from_numpy(scaled.astype(np.float32)), lengths)

    def features(self, values: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """values (B, T, D) -> model inputs (T, B, D)."""
        return values.transpose(0, 1)


def _refuse(bad: np.ndarray, found: parts.Labelled, error: type[DataError | InputError], why: str) -> None:
    """Raise `error` with the place of the first value where `bad` (ΣT, D) is true."""
    if bad.any():
        row, column = np.argwhere(bad)[0].tolist()
        ends = np.cumsum([len(array) for array in found.series])
        n = int(np.searchsorted(ends, row, side="right"))
        row -= int(ends[n]) - len(found.series[n])
        place = f"{found.places[n]}, step {row} (from 0), feature {found.features[column]}"
        raise error(f"{place}: the value {why.format(float(found.series[n][row, column]))}")


def _steps(found: parts.Labelled, error: type[DataError | InputError]) -> np.ndarray:
    """The steps of all series (ΣT, D), none of them infinite or more than float32 can hold."""
    steps = np.concatenate([np.empty((0, len(found.features))), *found.series])
    _refuse(np.abs(steps) > LARGEST, found, error, f"is {{}}; expected a finite number of at most {LARGEST:.2g}")
    return steps


def _filled(steps: np.ndarray, lengths: list[int], how: Fill, mean: np.ndarray) -> np.ndarray:
    """steps (ΣT, D) with something in the place of every NaN."""
    if how == "last":
        missing = np.isnan(steps)
        rows = np.arange(len(steps))[:, None]
        starts = np.repeat(np.cumsum(lengths) - lengths, lengths)[:, None]  # (ΣT, 1), where the row's series begins
        last = np.maximum.accumulate(np.where(missing, -1, rows), axis=0)  # the last row that has a value
        before = np.take_along_axis(steps, np.maximum(last, 0), axis=0)
        steps = np.where(missing & (last >= starts), before, steps)
    return np.where(np.isnan(steps), 0.0 if how == "zero" else mean, steps)


# -------------------------------------------------------------------------------------------------------------- files


def read_series(
    path: Path,
    id_column: str = "id",
    time_column: str = "time",
    label_column: str = "label",
    features: Sequence[str] | None = None,
    ignore: Sequence[str] | None = None,
    labelled: bool = True,
) -> parts.Labelled:
    """The series of a file of any kind that the module names.

    Args:
        id_column, time_column, label_column: of a long table.
        features: which of the other columns to read; None: all. Files without names of columns count them from 0.
        ignore: which of them not to read.
        labelled: without labels the file is one to predict: y, or the column of labels, may be absent.

    Raises:
        DataError: the file or one of its lines is not as expected.
    """
    check_file(path)
    suffix = path.suffix.lower()
    if suffix in LONG:
        found = _read_long(path, (id_column, time_column, label_column), features, ignore, labelled)
    elif suffix in SUFFIXES:
        found = _read_ts(path, labelled) if suffix == ".ts" else _read_arrays(path, labelled)
        kept = _kept(path, found.features, features, ignore)
        if len(kept) < len(found.features):
            names = [found.features[i] for i in kept]
            dropped = sorted(set(found.features) - set(names), key=int)
            found = replace(found, features=names, series=[array[:, kept] for array in found.series], dropped=dropped)
    else:
        refuse_foreign(path)
        raise DataError(f"{path}: expected a file of series, with suffix {', '.join(SUFFIXES)}")
    if not found.series:
        raise DataError(f"{path} holds no series")
    return found


def _kept(path: Path, names: Sequence[str], features: Sequence[str] | None, ignore: Sequence[str] | None) -> list[int]:
    """Which of the columns that may be features are read as such.

    Raises:
        DataError: one that is asked for is not there, two have one name, or none is left.
    """
    there = set(names)
    for name in features or ():
        if name not in there:
            raise DataError(f"{path} has no feature {name!r}{nearest(name, names)}")
    chosen = (there if features is None else set(features)) - set(ignore or ())
    kept = [i for i, name in enumerate(names) if name in chosen]
    for name, count in Counter(names[i] for i in kept).items():
        if count > 1:
            raise DataError(
                f"{path}: {count} columns are named {name!r}; give each a name of its own, or leave them out with "
                f"--ignore {name}"
            )
    if names and not kept:
        raise DataError(f"{path}: no feature is left of {parts.listed(names)}; change --features or --ignore")
    return kept


def _read_arrays(path: Path, labelled: bool) -> parts.Labelled:
    arrays = _load(path)
    for name in ("y", "lengths") if path.suffix.lower() == ".npy" else ():
        # An X by itself, as in EXP_X.npy, goes before one within a word, as in trainX.npy.
        alone, found_alone = re.subn(r"(?<![^\W\d_])X(?![^\W\d_])", name, path.name, count=1)
        beside = path.with_name(alone if found_alone else path.name.replace("X", name, 1))
        if beside != path and beside.is_file():
            arrays[name] = _load(beside)["X"]
        elif name == "y" and labelled:
            expected = beside.name if beside != path else f"X_{path.stem}.npy and y_{path.stem}.npy"
            raise DataError(
                f"{path}: the labels are missing; expected them beside it in {expected}, or both in one .npz"
            )
    for name in ("X", "y") if labelled else ("X",):
        if name not in arrays:
            held = parts.listed(list(arrays))
            raise DataError(f"{path} has no array {name!r}; it holds {held}; expected X, y, perhaps lengths")
    X, y = arrays["X"], arrays.get("y")
    X = X[:, :, None] if X.ndim == 2 else X
    if X.ndim != 3 or X.dtype.kind not in "fiub" or 0 in X.shape[1:]:
        raise DataError(
            f"{path}: X has shape {X.shape} and type {X.dtype}; expected numbers (N, T, D) or (N, T), "
            "of at least one time step and one feature"
        )
    N, T, D = X.shape
    if y is not None and y.shape != (N,):
        raise DataError(f"{path}: y has shape {y.shape}, but X has {N} series; expected ({N},)")
    lengths = arrays.get("lengths", np.full(N, T))
    if lengths.shape != (N,) or lengths.dtype.kind not in "iu":
        raise DataError(
            f"{path}: lengths has shape {lengths.shape} and type {lengths.dtype}; expected ({N},) whole numbers"
        )
    for n, length in enumerate(lengths.tolist()):
        if not 1 <= length <= T:
            raise DataError(f"{path}: lengths[{n}] is {length}; expected 1 to {T}, the steps of X")
    places = [f"{path}, series {n} (from 0)" for n in range(N)]
    with np.errstate(over="ignore"):  # of wider numbers; infinite ones are refused later
        series = [X[n, : lengths[n]].astype(np.float64) for n in range(N)]
    labels = [] if y is None else [parts.label_text(y[n], f"{places[n]}: the label") for n in range(N)]
    return parts.Labelled(path, [str(d) for d in range(D)], series, labels, places)


def _load(path: Path) -> dict[str, np.ndarray]:
    """The arrays X, y and lengths of a file, those of them that are there; X where there is but one.

    Raises:
        DataError: the file is damaged, or an array is larger than the machine's memory.
    """
    try:
        if path.suffix.lower() == ".npy":
            with open(path, "rb") as file:
                return {"X": _array(path, file, path.stat().st_size)}
        arrays: dict[str, np.ndarray] = {}
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name in arrays:
                    raise DataError(f"{path} holds two arrays {name!r}; expected one")
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise DataError(f"{path} is packed in a way that NumPy does not use; save it with np.savez")
                with archive.open(member) as stream:
                    # Others are named only, in messages.
                    wanted = name in ("X", "y", "lengths")
                    arrays[name] = _array(path, stream, member.file_size) if wanted else np.empty(0)
        return arrays
    except DataError:
        raise
    except Exception:  # zipfile, zlib and struct each raise their own kinds where a file is damaged
        raise DataError(f"{path} is damaged or no NumPy file") from None


def _array(path: Path, stream: IO[bytes], size: int) -> np.ndarray:
    """The array in a stream of `size` bytes; never Python objects: reading those runs their code."""
    shape, _, dtype = NPY_HEADERS[np.lib.format.read_magic(stream)](stream)
    if dtype.hasobject:
        raise DataError(
            f"{path} holds Python objects, which are not read; expected arrays of numbers or text "
            "(series of unequal length: pad them, and give lengths)"
        )
    count = math.prod(shape)
    parts.check_room(path, count * max(dtype.itemsize, 8), f"{shape} values of type {dtype}")  # 8: as float64
    if count * dtype.itemsize != size - stream.tell():
        raise DataError(f"{path} is damaged: an array of shape {shape} is announced, but other data follow")
    stream.seek(0)
    array: np.ndarray = np.lib.format.read_array(stream, allow_pickle=False)
    characters = np.frombuffer(array.tobytes() if dtype.kind == "U" else b"", dtype.str[0] + "u4")
    if characters.max(initial=0) > 0x10FFFF:
        raise DataError(f"{path} is damaged: a text holds a character beyond U+10FFFF, the last one")
    return array


def _read_long(
    path: Path,
    columns: tuple[str, str, str],
    features: Sequence[str] | None,
    ignore: Sequence[str] | None,
    labelled: bool,
) -> parts.Labelled:
    table, doubts = read_table(path)
    header = header_of(table)
    refuse_equal(path, columns)
    id_column, time_column, _ = columns
    where_id, where_time, *where_label = positions(path, columns if labelled else columns[:2], header)
    others = [i for i, name in enumerate(header) if name not in columns]
    if not others:
        raise DataError(f"{path} has no column of measurements beside {parts.listed(header)}")
    if not table[1:]:
        raise DataError(f"{path} holds no record after its header line; expected one a line")
    wanted = [others[i] for i in _kept(path, [header[i] for i in others], features, ignore)]
    read_time: Callable[[str], Any] = _date
    expected = "a number, or a date such as 2024-05-31 12:00:00"
    try:
        _exact(table[1][1][where_time])
        read_time, expected = _exact, "a number, as in the first line of data"
    except ValueError:
        pass

    rows: dict[str, list[tuple[Any, int, list[float]]]] = {}
    labels: dict[str, tuple[str, int]] = {}
    for line, fields in table[1:]:
        place = f"{path}, line {line}"
        name = parts.id_text(fields[where_id], f"{place}: the series' {id_column}")
        if labelled:
            label = parts.label_text(fields[where_label[0]], f"{place}: the label")
            first, first_line = labels.setdefault(name, (label, line))
            if label != first:
                ours, theirs = parts.shorten(label), parts.shorten(first)
                raise DataError(
                    f"{place}: series {parts.shorten(name)} has label {ours!r} here, but {theirs!r} in line {first_line}; "
                    "expected one label for each series"
                )
        try:
            time = read_time(fields[where_time])
        except ValueError:
            shown = parts.shorten(fields[where_time].strip())
            raise DataError(f"{place}: {time_column} is {shown!r}; expected {expected}") from None
        rows.setdefault(name, []).append((time, line, [_number(fields[i], place, header[i]) for i in wanted]))

    dropped = [header[i] for i in sorted(set(others) - set(wanted))]
    found = parts.Labelled(path, [header[i] for i in wanted], dropped=dropped, doubts=doubts)
    for name, steps in rows.items():
        steps.sort(key=lambda step: step[0])
        for before, after in itertools.pairwise(steps):
            if before[0] == after[0]:
                raise DataError(
                    f"{path}, line {after[1]}: series {parts.shorten(name)} has this {time_column} already in line {before[1]}"
                )
        found.series.append(np.array([values for _, _, values in steps]))
        found.places.append(f"{path}, series {name}")
        found.labels += [labels[name][0]] if labelled else []
    return found


def _exact(text: str) -> Decimal:
    """A time that is a number, without rounding: nanoseconds since 1970 have more digits than a float."""
    if not math.isfinite(parts.number(text)):
        raise ValueError(f"no time: {text!r}")
    try:
        return Decimal(text.strip())
    except InvalidOperation:  # an exponent that no time has
        raise ValueError(f"no time: {text!r}") from None


def _date(text: str) -> tuple[int, str]:
    """A date in ISO form: microseconds since 1970, and the further digits of the fraction, which order as text does."""
    moment = datetime.datetime.fromisoformat(text.strip())
    further = re.search(r"[.,]\d{6}(\d+)", text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
    return (moment - EPOCH) // datetime.timedelta(microseconds=1), further[1].rstrip("0") if further else ""


TS_REFUSED = {
    "timestamps": "series with time stamps are not supported; expected @timeStamps false",
    "targetlabel": "the targets are numbers to be estimated; expected classes (@classLabel true …)",
}


def _read_ts(path: Path, labelled: bool) -> parts.Labelled:
    found = parts.Labelled(path)
    header: dict[str, Any] = {}  # whole numbers and truth values, by names in small letters
    classes: list[str] = []  # the labels that @classLabel names
    for line, content in enumerate(lines_of(read_text(path)), start=1):
        content = content.strip()
        place = f"{path}, line {line}"
        if not content or content.startswith(("#", "%")):
            continue
        if "data" not in header:
            match = re.match(r"@(\w+)\s*(.*)", content)
            if match is None:
                raise DataError(f"{place}: expected a line that begins with @, or @data before the first series")
            key, words = match[1].lower().replace("dimensions", "dimension"), match[2].split()
            value = _ts_value(place, match[1], words)
            if header.setdefault(key, value) != value:
                raise DataError(f"{place}: @{match[1]} is not what a line before says; keep the true one of them")
            if header.get("equallength") is False and "serieslength" in header:
                raise DataError(
                    f"{place}: @equalLength is false, but @seriesLength names one length; keep the true one of them"
                )
            if key in TS_REFUSED and header[key]:
                raise DataError(f"{place}: {TS_REFUSED[key]}")
            if key == "classlabel":
                classes = [parts.label_text(word, f"{place}: the label") for word in words[1:]]
            if key == "data" and labelled and not header.get("classlabel", True):
                raise DataError(f"{path}: @classLabel is false; expected series with labels")
            continue
        dimensions = content.split(":")
        if header.get("classlabel", True):
            label = dimensions.pop()
            if not dimensions:
                raise DataError(f"{place}: expected dimensions and a label, parted by colons; found no colon")
            label = parts.label_text(label, f"{place}: the label")
            if classes and label not in classes:
                known = nearest(label, classes)
                shown = parts.shorten(label)
                raise DataError(f"{place}: label {shown!r} is none of those that @classLabel names{known}")
            found.labels.append(label)
        columns = [[_number(value, place, str(d)) for value in text.split(",")] for d, text in enumerate(dimensions)]
        lengths = {len(column) for column in columns}
        if len(lengths) > 1:
            raise DataError(f"{place}: the dimensions have {sorted(lengths)} values; expected the same number of each")
        found.features = found.features or [str(d) for d in range(len(columns))]
        if len(columns) != len(found.features):
            expected = f"expected {len(found.features)} as in the first series"
            raise DataError(f"{place}: found {len(columns)} dimensions, {expected}")
        found.series.append(np.array(columns).T)
        found.places.append(place)
        _compare_with_header(place, header, found.series)
    return found


def _ts_value(place: str, key: str, words: list[str]) -> Any:
    """What a line of the header says, where it says something about the data."""
    word, name = words[0].lower() if words else "", key.lower()
    whole = name in ("dimension", "dimensions", "serieslength")
    truth = name in ("equallength", "missing", "univariate", "classlabel", "timestamps", "targetlabel")
    if whole:
        if not (word.isdecimal() and word.isascii() and len(word) < 10):
            raise DataError(f"{place}: @{key} is {parts.shorten(word)!r}; expected a whole number")
    elif truth and word not in ("true", "false"):
        raise DataError(f"{place}: @{key} is {parts.shorten(word)!r}; expected true or false")
    if (name, word) == ("classlabel", "true"):
        return tuple(words[1:]) or True
    if words if name == "data" else (whole or truth) and words[1:]:
        shown = parts.shorten(" ".join(words))
        raise DataError(
            f"{place}: @{key} is {shown!r}; expected {'nothing behind it' if name == 'data' else 'one word'}"
        )
    return int(word) if whole else word == "true" if truth else True


def _compare_with_header(place: str, header: dict[str, Any], series: list[np.ndarray]) -> None:
    """Raise DataError where the last series is not as the header says."""
    T, D = series[-1].shape
    dimensions = header.get("dimension", D)
    equal = header.get("equallength", "serieslength" in header)
    length = header.get("serieslength", len(series[0])) if equal else T
    for wrong, says in (
        (dimensions != D, f"@dimensions {dimensions}, but found {D}"),
        (header.get("univariate", False) and D > 1, f"@univariate true, but found {D} dimensions"),
        (length != T, f"that all series have {length} steps (@equalLength, @seriesLength), but found {T}"),
        (not header.get("missing", True) and np.isnan(series[-1]).any(), "@missing false, but a value is missing"),
    ):
        if wrong:
            raise DataError(f"{place}: the header says {says}; correct the header or the data")


def _number(text: str, place: str, feature: str) -> float:
    try:
        return parts.number(text)
    except ValueError:
        if text.strip().lower() in MISSING:
            return math.nan
        shown = parts.shorten(text.strip())
        raise DataError(
            f"{place}: feature {feature} is {shown!r}; expected a number (what is no feature is left out with --ignore)"
        ) from None


# ----------------------------------------------------------------------------------------------------------- dataset


def load_series_dataset(
    data: str | None,
    test_data: str | None = None,
    *,
    test: float = 0.0,
    validation: float = 0.0,
    seed: int = 0,
    fill_missing: Fill = "none",
    encoder: SeriesEncoder | None = None,
    **columns: Any,
) -> Dataset:
    """Labelled series, ready to train on.

    Args:
        data: file to train on.
        test_data: file to test with; None to split off `test` of the series (below 1 a share, else a number).
        validation: how much of what is left to hold out for choosing.
        seed: of the split; see `unroll.data.parts.split`.
        fill_missing: see `SeriesEncoder`.
        encoder: of a trained model; None: made for the training part.
        columns: see `read_series`.

    Raises:
        DataError: the files are not as expected, or the parts do not fit together.
    """
    if data is None:
        raise DataError(
            "no series are part of the package; say where yours are with --data FILE (.npz, .npy, .csv or .ts)"
        )
    if fill_missing not in get_args(Fill):
        raise InputError(f"fill_missing is {fill_missing!r}{nearest(fill_missing, get_args(Fill))}")
    everything = read_series(Path(data), **columns)
    for name in columns.get("ignore") or ():
        if name not in everything.dropped:
            known = nearest(name, everything.dropped + everything.features)
            raise DataError(f"{everything.where} has no column {name!r} to ignore{known}")
    files = [everything]
    if test_data is not None:
        files.append(read_series(Path(test_data), **columns).with_features(everything.features))
    train, *others = everything.divide(files[1] if test_data else None, test, validation, seed)
    said = [notes.summary(found, "series", [len(array) for array in found.series]) for found in files]
    said.append(notes.doubtful(everything, chosen=columns.get("features") is not None))
    encoder = encoder or SeriesEncoder.fit(train, parts.class_names(train.labels, train.where), fill_missing)
    return Dataset.of(encoder, train, *others, notes=list(itertools.chain(*said)))


def load_test_series(data: str, encoder: SeriesEncoder, **columns: Any) -> Sequences:
    """A file of labelled series to test a trained model with.

    Args:
        columns: see `read_series`.

    Raises:
        DataError: the file is not as expected, or holds features or labels that the model does not know.
    """
    return as_sequences(encoder, read_series(Path(data), **columns).with_features(encoder.feature_names))
