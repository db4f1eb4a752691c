"""Labelled series: every kind of file, standardisation, missing values, and every kind of bad input."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from unroll.data.series import SeriesEncoder, load_series_dataset, read_series
from unroll.errors import DataError, InputError

LONG = """id,time,a,b,label
s1,1,1.0,10,up
s2,0,5.0,50,down
s1,0,0.0,20,up
s1,2,2.0,30,up
s2,1,4.0,40,down
"""

TS = """# a comment
@problemName Small
@timeStamps false
@missing true
@univariate false
@dimensions 2
@equalLength false
@classLabel true up down
@data
0,1,2:20,10,30:up
5,4:50,40:down
"""


def write(folder: Path, name: str, content: str) -> Path:
    path = folder / name
    path.write_text(content)
    return path


def save(folder: Path, name: str = "a.npz", **arrays: np.ndarray) -> Path:
    np.savez(folder / name, **arrays)  # type: ignore[arg-type]
    return folder / name


def two_series(folder: Path, kind: str) -> Path:
    """The same two series, of 3 and 2 steps of 2 features, in each kind of file."""
    X = np.array([[[0, 20], [1, 10], [2, 30]], [[5, 50], [4, 40], [np.nan, np.nan]]])
    y, lengths = np.array(["up", "down"]), np.array([3, 2])
    if kind == "npz":
        return save(folder, X=X, y=y, lengths=lengths)
    if kind == "npy":
        for name, array in (("X_all", X), ("y_all", y), ("lengths_all", lengths)):
            np.save(folder / f"{name}.npy", array)
        return folder / "X_all.npy"
    return write(folder, f"a.{kind}", {"csv": LONG, "tsv": LONG.replace(",", "\t"), "ts": TS}[kind])


@pytest.mark.parametrize("kind", ["npz", "npy", "csv", "tsv", "ts"])
def test_one_content_is_read_alike_from_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    found = read_series(two_series(tmp_path, kind))
    assert [array.tolist() for array in found.series] == [[[0, 20], [1, 10], [2, 30]], [[5, 50], [4, 40]]]
    assert found.labels == ["up", "down"]


@pytest.mark.parametrize("kind", ["npz", "npy", "csv", "ts"])
def test_files_to_predict_need_no_labels(tmp_path: Path, kind: str) -> None:
    path = two_series(tmp_path, kind)
    if kind == "npz":
        path = save(tmp_path, X=np.zeros((2, 3, 2)))
    elif kind == "npy":
        (tmp_path / "y_all.npy").unlink()
    elif kind == "csv":
        path = write(tmp_path, "a.csv", "\n".join(line.rsplit(",", 1)[0] for line in LONG.splitlines()))
    else:
        unlabelled = TS.replace("true up down", "false").replace(":up", "").replace(":down", "")
        path = write(tmp_path, "a.ts", unlabelled)
    found = read_series(path, labelled=False)
    assert [array.shape[1] for array in found.series] == [2, 2]
    assert found.labels == []


def test_one_feature_may_come_without_an_axis_of_its_own(tmp_path: Path) -> None:
    path = save(tmp_path, X=np.array([[1, 2, 3], [4, 5, 6]]), y=np.array([0, 1]))
    assert [array.tolist() for array in read_series(path).series] == [[[1], [2], [3]], [[4], [5], [6]]]


def test_times_may_be_dates(tmp_path: Path) -> None:
    text = "id,time,a,label\nx,2024-03-01,3,0\nx,2024-02-29 12:00:00,2,0\nx,2024-02-29,1,0\n"
    assert read_series(write(tmp_path, "a.csv", text)).series[0].tolist() == [[1], [2], [3]]


# ---------------------------------------------------------------------------------------------------- standardisation


def labelled(folder: Path, seed: int = 0, N: int = 40, T: int = 7, **extra: np.ndarray) -> Path:
    X = np.random.default_rng(seed).normal([1000.0, -3.0], [5.0, 0.1], (N, T, 2))
    return save(folder, X=X, y=np.arange(N) % 2, **extra)


def test_features_have_mean_0_and_deviation_1_over_the_training_part_alone(tmp_path: Path) -> None:
    data = load_series_dataset(str(labelled(tmp_path)), test=0.5, validation=0.2)
    steps = data.train.values.double().reshape(-1, 2)
    assert data.train.values.shape == (16, 7, 2)
    assert torch.allclose(steps.mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(steps.std(0, correction=0), torch.ones(2, dtype=torch.float64), atol=1e-5)
    assert data.test is not None
    assert data.test.values.reshape(-1, 2).mean(0).abs().min() > 1e-4, "the test part is not to be looked at"


def test_padding_takes_no_part_in_the_standardisation(tmp_path: Path) -> None:
    X = np.full((2, 3, 1), 1e6)
    X[0, :3, 0], X[1, :1, 0] = [1, 2, 3], [6]
    data = load_series_dataset(str(save(tmp_path, X=X, y=np.array([0, 1]), lengths=np.array([3, 1]))))
    assert isinstance(data.encoder, SeriesEncoder)
    assert data.encoder.mean == (3.0,)
    assert data.encoder.deviation == pytest.approx((np.std([1, 2, 3, 6]),))
    assert data.train.lengths is not None
    assert data.train.lengths.tolist() == [3, 1]


def test_a_large_offset_costs_no_precision(tmp_path: Path) -> None:
    X = 1.7e9 + np.array([[[0.0], [1.0]], [[2.0], [3.0]]])
    data = load_series_dataset(str(save(tmp_path, X=X, y=np.array([0, 1]))))
    expected = (np.arange(4) - 1.5) / np.std(np.arange(4))
    np.testing.assert_allclose(data.train.values.ravel(), expected, rtol=1e-6)


def test_a_feature_that_never_changes_becomes_zero(tmp_path: Path) -> None:
    X = np.full((4, 3, 1), 0.1)
    data = load_series_dataset(str(save(tmp_path, X=X, y=np.array([0, 1, 0, 1]))))
    assert data.train.values.abs().max() < 1e-12


def test_raw_arrays_are_encoded_as_those_of_the_file_were(tmp_path: Path) -> None:
    path = two_series(tmp_path, "csv")
    data = load_series_dataset(str(path))
    assert isinstance(data.encoder, SeriesEncoder)
    values, lengths = data.encoder.encode([[[0, 20], [1, 10], [2, 30]], np.array([[5, 50], [4, 40]])])
    assert torch.equal(values, data.train.values)
    assert lengths is not None
    assert lengths.tolist() == [3, 2]
    assert data.encoder.features(torch.zeros(5, 3, 2)).shape == (3, 5, 2)
    assert SeriesEncoder.from_json(json.loads(json.dumps(data.encoder.to_json()))) == data.encoder


def test_test_features_are_matched_by_name_not_by_place(tmp_path: Path) -> None:
    train = write(tmp_path, "train.csv", LONG)
    rows = [line.split(",") for line in LONG.splitlines()]
    swapped = write(tmp_path, "test.csv", "\n".join(",".join([r[4], r[3], r[2], r[0], r[1]]) for r in rows))
    data = load_series_dataset(str(train), str(swapped))
    assert data.test is not None
    assert torch.equal(data.test.values, data.train.values)
    other = write(tmp_path, "other.csv", LONG.replace(",b,", ",c,"))
    with pytest.raises(DataError, match=r"other\.csv has the features a, c; expected a, b"):
        load_series_dataset(str(train), str(other))


# ----------------------------------------------------------------------------------------------------- missing values

GAPS = "id,time,a,label\nx,0,,0\nx,1,4,0\nx,2,NA,0\ny,0,?,1\ny,1,8,1\ny,2,nan,1\n"


@pytest.mark.parametrize(
    ("how", "filled"),
    [("zero", [0, 4, 0, 0, 8, 0]), ("mean", [6, 4, 6, 6, 8, 6]), ("last", [6, 4, 4, 6, 8, 8])],
)
def test_missing_values_are_filled_never_from_another_series(tmp_path: Path, how: str, filled: list[float]) -> None:
    data = load_series_dataset(str(write(tmp_path, "a.csv", GAPS)), fill_missing=how)  # type: ignore[arg-type]
    assert isinstance(data.encoder, SeriesEncoder)
    assert data.encoder.mean == (6.0,)
    assert data.encoder.deviation == (2.0,)
    assert data.train.values.flatten().tolist() == [(value - 6) / 2 for value in filled]


@pytest.mark.parametrize("value", ["", "?", "NA", "NaN"])
def test_a_missing_value_is_an_error_that_names_series_step_and_feature(tmp_path: Path, value: str) -> None:
    path = write(tmp_path, "a.csv", LONG.replace("s2,1,4.0,40", f"s2,1,4.0,{value}"))
    with pytest.raises(DataError, match=r"series s2, step 1 \(from 0\), feature b: the value is missing; set fill"):
        load_series_dataset(str(path))


def test_a_missing_value_in_an_array_or_ts_file_is_placed_too(tmp_path: Path) -> None:
    X = np.zeros((3, 4, 2))
    X[2, 1, 1] = np.nan
    with pytest.raises(DataError, match=r"a\.npz, series 2 .from 0., step 1 .from 0., feature 1"):
        load_series_dataset(str(save(tmp_path, X=X, y=np.array([0, 1, 1]))))
    with pytest.raises(DataError, match=r"a\.ts, line 11, step 1 .from 0., feature 0"):
        load_series_dataset(str(write(tmp_path, "a.ts", TS.replace("5,4:", "5,?:"))))


def test_an_infinite_value_is_refused_even_when_missing_ones_are_filled(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", LONG.replace("s1,2,2.0", "s1,2,inf"))
    with pytest.raises(DataError, match=r"series s1, step 2 \(from 0\), feature a: the value is inf; expected"):
        load_series_dataset(str(path), fill_missing="last")


def test_a_value_that_float32_cannot_hold_is_named(tmp_path: Path) -> None:
    for value in ("1e300", "-1e39"):
        path = write(tmp_path, "a.csv", LONG.replace("s1,2,2.0", f"s1,2,{value}"))
        place = rf"series s1, step 2 \(from 0\), feature a: the value is {re.escape(str(float(value)))}; expected"
        with pytest.raises(DataError, match=place):
            load_series_dataset(str(path))
    encoder = load_series_dataset(str(labelled(tmp_path))).encoder
    assert isinstance(encoder, SeriesEncoder)
    fine = np.zeros((4, 2))
    with pytest.raises(InputError, match=r"series 1, step 3 .from 0., feature 0: the value is 1e\+300; expected"):
        encoder.encode([fine, np.array([[0.0, 0]] * 3 + [[1e300, 0]])])
    narrow = SeriesEncoder((0.0,), (1e-6,), ("a",), ("0", "1"))
    with pytest.raises(InputError, match=r"series 0, step 1 .from 0., feature a: the value is 1e\+35, too far from"):
        narrow.encode([np.array([0.0, 1e35])])


def test_large_values_are_standardised_without_overflow(tmp_path: Path) -> None:
    X = np.array([[[-1e38], [1e38]], [[-1e38], [1e38]]])
    data = load_series_dataset(str(save(tmp_path, X=X, y=np.array([0, 1]))))
    assert data.train.values.ravel().tolist() == [-1, 1, -1, 1]


def test_a_feature_without_any_value_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "id,time,a,b,label\nx,0,1,,0\nx,1,1,,0\ny,0,2,,1\n")
    with pytest.raises(DataError, match="feature b has no value in the training part"):
        load_series_dataset(str(path), fill_missing="mean")


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": np.zeros((2, 3))}, r"has no array 'y'; it holds X"),
        ({"x": np.zeros((2, 3)), "y": np.arange(2)}, r"has no array 'X'; it holds x, y"),
        ({"X": np.zeros(3), "y": np.arange(3)}, r"X has shape \(3,\)"),
        ({"X": np.array([["a", "b"]]), "y": np.arange(1)}, "type <U1; expected numbers"),
        ({"X": np.zeros((2, 0, 1)), "y": np.arange(2)}, "at least one time step"),
        ({"X": np.zeros((2, 3)), "y": np.arange(3)}, r"y has shape \(3,\), but X has 2 series"),
        (
            {"X": np.zeros((2, 3)), "y": np.arange(2), "lengths": np.array([3, 4])},
            r"\[1\] is 4; expected 1 to 3",
        ),
        ({"X": np.zeros((2, 3)), "y": np.arange(2), "lengths": np.array([0, 3])}, r"lengths\[0\] is 0"),
        ({"X": np.zeros((2, 3)), "y": np.arange(2), "lengths": np.array([1.5, 3])}, "whole numbers"),
        ({"X": np.zeros((2, 3)), "y": np.array([None, 1])}, "holds Python objects"),
        ({"X": np.zeros((2, 3)), "y": np.array([np.nan, 1])}, r"series 0 .from 0.: the label is missing"),
        (
            {"X": np.zeros((2, 3)), "y": np.array(["2024-01-01", "2024-01-02"], "M8[D]")},
            "the label is of type datetime64; expected",
        ),
        ({"X": np.zeros((2, 3)), "y": np.array([b"\xe9", b"a"])}, r"the label is b'\\xe9', which is not UTF-8"),
        ({"X": np.zeros((2, 3)), "y": np.array(["\ud83d", "a"])}, r"the label holds \\ud83d, which is half"),
        ({"X": np.zeros((0, 3)), "y": np.zeros(0)}, "holds no series"),
        ({"X": np.zeros((2, 3)), "y": np.ones(2)}, "all 2 sequences of .* have the label '1'"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_series_dataset(str(save(tmp_path, **arrays)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (LONG, "", "is empty"),
        ("id,time", "name,time", "no column 'id'; its first line names 'name', 'time', 'a', 'b', 'label'"),
        ("a,b,label", "a,b,class", "no column 'label'"),
        ("s1,0,0.0,20,up", "s1,0,0.0,20", "line 4: found 4 fields, expected 5"),
        ("s1,0,0.0,20,up", "s1,0,0.0,20,down", "line 4: series s1 has label 'down' here, but 'up' in line 2"),
        ("s1,0,0.0,20,up", "s1,1,0.0,20,up", "line 4: series s1 has this time already in line 2"),
        ("s1,0,0.0,20,up", "s1,noon,0.0,20,up", "line 4: time is 'noon'; expected a number"),
        ("s1,0,0.0,20,up", "s1,0,zero,20,up", "line 4: feature a is 'zero'; expected a number"),
        ("s1,0,0.0,20,up", ",0,0.0,20,up", "line 4: the series' id is missing"),
        ("s1,0,0.0,20,up", "s1,0,0.0,20,", "line 4: the label is missing"),
    ],
)
def test_long_tables_that_do_not_fit_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in LONG
    with pytest.raises(DataError, match=message):
        load_series_dataset(str(write(tmp_path, "a.csv", LONG.replace(old, new))))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("@data\n", "", "line 9: expected a line that begins with @"),
        ("@timeStamps false", "@timeStamps true", "line 3: series with time stamps are not supported"),
        ("@classLabel true up down", "@targetLabel true", "line 8: the targets are numbers"),
        ("@classLabel true up down", "@classLabel false", "@classLabel is false"),
        ("5,4:50,40:down", "5,4:50,40:dwn", "line 11: label 'dwn' is none of those .* did you mean 'down'"),
        ("5,4:50,40:down", "5,4:50:down", r"line 11: the dimensions have \[1, 2\] values"),
        ("5,4:50,40:down", "5,4:down", "line 11: found 1 dimensions, expected 2"),
        ("5,4:50,40:down", "5,x:50,40:down", "line 11: feature 0 is 'x'; expected a number"),
    ],
)
def test_ts_files_that_do_not_fit_are_refused_with_their_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TS
    with pytest.raises(DataError, match=message):
        load_series_dataset(str(write(tmp_path, "a.ts", TS.replace(old, new))))


def test_damaged_and_foreign_files_are_refused_in_one_line(tmp_path: Path) -> None:
    whole = labelled(tmp_path).read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    (tmp_path / "flipped.npz").write_bytes(flipped)
    (tmp_path / "text.npy").write_text("no array\nat all")
    for name in ("cut.npz", "flipped.npz", "text.npy"):
        with pytest.raises(DataError, match=f"{name}.* is damaged or no NumPy file") as caught:
            load_series_dataset(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match=r"a\.xlsx: expected a file of series, with suffix"):
        load_series_dataset(str(write(tmp_path, "a.xlsx", "x")))
    with pytest.raises(DataError, match=r"absent\.npz does not exist"):
        load_series_dataset(str(tmp_path / "absent.npz"))
    with pytest.raises(DataError, match="no series are part of the package"):
        load_series_dataset(None)


def test_labels_may_be_byte_strings(tmp_path: Path) -> None:
    y = np.array(["up", "été"])
    assert read_series(save(tmp_path, X=np.zeros((2, 3)), y=np.char.encode(y, "utf-8"))).labels == y.tolist()


def test_a_ts_file_need_not_name_its_labels(tmp_path: Path) -> None:
    assert read_series(write(tmp_path, "a.ts", TS.replace("true up down", "true"))).labels == ["up", "down"]


def test_nanoseconds_are_told_apart(tmp_path: Path) -> None:
    start = 1_700_000_000_000_000_000
    lines = [f"s,{start + 200},2,x", f"s,{start},0,x", f"s,{start + 100},1,x"]
    path = write(tmp_path, "a.csv", "\n".join(["id,time,a,label", *lines]))
    assert read_series(path).series[0].ravel().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("values", "labels"),
    [("EXP_X.npy", "EXP_y.npy"), ("X_MAX.npy", "y_MAX.npy"), ("trainX.npy", "trainy.npy"), ("X.npy", "y.npy")],
)
def test_the_x_of_a_name_is_one_by_itself_if_there_is_one(tmp_path: Path, values: str, labels: str) -> None:
    np.save(tmp_path / values, np.zeros((2, 3)))
    np.save(tmp_path / labels, np.array([4, 5]))
    assert read_series(tmp_path / values).labels == ["4", "5"]


def test_labels_beside_an_npy_file_are_asked_for_by_name(tmp_path: Path) -> None:
    np.save(tmp_path / "X_train.npy", np.zeros((2, 3)))
    with pytest.raises(DataError, match=r"the labels are missing; expected them beside it in y_train\.npy"):
        read_series(tmp_path / "X_train.npy")
    np.save(tmp_path / "waves.npy", np.zeros((2, 3)))
    with pytest.raises(DataError, match=r"X_waves\.npy and y_waves\.npy"):
        read_series(tmp_path / "waves.npy")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (np.zeros((4, 3)), r"series 1 has shape \(4, 3\); expected \(T, 2\), T steps of the features 0, 1"),
        (np.zeros((0, 2)), r"series 1 has shape \(0, 2\)"),
        (np.zeros(4), r"series 1 has shape \(4,\)"),
        ("abc", "series 1 is no array of numbers"),
        ([[1.0, np.nan]], "series 1, step 0 .from 0., feature 1: the value is missing"),
    ],
)
def test_inputs_that_do_not_fit_the_model_are_named(tmp_path: Path, item: object, message: str) -> None:
    encoder = load_series_dataset(str(labelled(tmp_path))).encoder
    assert isinstance(encoder, SeriesEncoder)
    with pytest.raises(InputError, match=message):
        encoder.encode([np.zeros((4, 2)), item])
