"""What every reader of data files must see: one table of readers, one test for each kind of fault."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from unroll.data import parts
from unroll.data.sentences import load_sentence_dataset, read_sentences
from unroll.data.series import LONG, SUFFIXES, load_series_dataset, read_series
from unroll.data.tables import FOREIGN, read_table
from unroll.errors import DataError


class Reader(NamedTuple):
    """A kind of file, how to write one of labelled sequences, how to read it, and how to make data to train on of it."""

    suffix: str
    write: Callable[[Path, Sequence[Any]], object]  # labels as the file shall hold them, text or numbers
    read: Callable[[Path], parts.Labelled]
    load: Callable[..., Any]

    def file(self, folder: Path, labels: Sequence[Any]) -> Path:
        path = folder / f"X{self.suffix}"
        self.write(path, labels)
        return path


def values(n: int) -> np.ndarray:
    """A series of 3 steps of 2 features, some of them negative, none of them in order."""
    return np.random.default_rng(n).normal(size=(3, 2)).round(3)


def write_table(path: Path, labels: Sequence[Any], mark: str = ",") -> None:
    rows = [["id", "time", "a", "b", "label"]]
    rows += [[f"s{n}", t, *step, label] for n, label in enumerate(labels) for t, step in enumerate(values(n).tolist())]
    path.write_text("".join(mark.join(map(str, row)) + "\n" for row in rows), encoding="utf-8")


def write_arrays(path: Path, labels: Sequence[Any]) -> None:
    X, y = np.stack([values(n) for n in range(len(labels))]), np.array(labels)
    if path.suffix == ".npz":
        np.savez(path, X=X, y=y)
    else:
        np.save(path, X)
        np.save(path.with_name("y.npy"), y)


def write_ts(path: Path, labels: Sequence[Any]) -> None:
    rows = [":".join(",".join(map(str, d)) for d in values(n).T.tolist()) + f":{y}" for n, y in enumerate(labels)]
    path.write_text("\n".join(["@problemName x", "@classLabel true", "@data", *rows]), encoding="utf-8")


def write_sentences(path: Path, labels: Sequence[Any]) -> None:
    mark = "\t" if path.suffix == ".tsv" else ","
    rows = ["text" + mark + "label", *(f"word{n} film{mark}{label}" for n, label in enumerate(labels))]
    if path.suffix == ".jsonl":
        rows = [json.dumps({"text": f"word{n} film", "label": label}) for n, label in enumerate(labels)]
    path.write_text("\n".join(rows), encoding="utf-8")


TEXT_SERIES = {suffix: partial(write_table, mark="," if suffix == ".csv" else "\t") for suffix in LONG}
SERIES = [
    Reader(suffix, write, read_series, load_series_dataset)
    for suffix, write in {**TEXT_SERIES, ".ts": write_ts, ".npz": write_arrays, ".npy": write_arrays}.items()
]
SENTENCES = [
    Reader(suffix, write_sentences, read_sentences, load_sentence_dataset) for suffix in (".csv", ".tsv", ".jsonl")
]
ARRAYS = (".npz", ".npy")
READERS = SERIES + SENTENCES
TEXTS = [reader for reader in READERS if reader.suffix not in ARRAYS]


def every(readers: Sequence[Reader]) -> Any:
    names = [f"{'series' if reader in SERIES else 'sentences'}{reader.suffix}" for reader in readers]
    return pytest.mark.parametrize("reader", readers, ids=names)


def test_every_kind_of_file_of_series_is_in_the_table() -> None:
    assert {reader.suffix for reader in SERIES} == set(SUFFIXES)


# ------------------------------------------------------------------------------------------------------------- labels


@every(READERS)
@pytest.mark.parametrize(
    ("written", "read"),
    [
        (("1", "1.0", "1.00", "-0.0"), ["1", "1", "1", "0"]),
        (("0", "0.0", "-0", "12."), ["0", "0", "0", "12"]),
        (("0.5", "0.50", "01", "+1"), ["0.5", "0.50", "01", "+1"]),
        (("1.1", "1.10", "10", "1.01"), ["1.1", "1.10", "10", "1.01"]),
        (("cafe\u0301", "caf\u00e9", "\ufeffcaf\u00e9", "caf\u00e9\u200d"), ["caf\u00e9"] * 4),
        (("\u2764\ufe0f", "\u2764", "1e3", "1_0"), ["\u2764", "\u2764", "1e3", "1_0"]),
    ],
)
def test_labels_that_are_the_same_are_one_class(
    tmp_path: Path, reader: Reader, written: Sequence[str], read: list[str]
) -> None:
    assert reader.read(reader.file(tmp_path, written)).labels == read


@every(READERS)
def test_two_files_may_write_their_labels_in_two_ways(tmp_path: Path, reader: Reader) -> None:
    (tmp_path / "test").mkdir()
    train, test = reader.file(tmp_path, ["0", "1"]), reader.file(tmp_path / "test", ["1.0", "0.0"])
    data = reader.load(str(train), str(test))
    assert data.encoder.class_names == ("0", "1")
    assert data.test.y.tolist() == [1, 0]


@every([reader for reader in READERS if reader.suffix in (*ARRAYS, ".jsonl")])
def test_numbers_as_labels_are_as_their_text(tmp_path: Path, reader: Reader) -> None:
    assert reader.read(reader.file(tmp_path, [1, 2, 10])).labels == ["1", "2", "10"]
    assert reader.read(reader.file(tmp_path, [1.0, 0.5, -0.0])).labels == ["1", "0.5", "0"]


def test_a_class_of_a_run_of_version_0_1_is_found_by_its_number() -> None:
    assert parts.classes(["1", "0.5"], ("0.5", "1.0"), ["", ""]) == [1, 0]
    assert parts.classes(["1", "1.0"], ("1", "1.0"), ["", ""]) == [0, 1]


@every(READERS)
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([f"{n / 7:.5f}" for n in range(60)], r"60 labels of .*X\.\w+ are 60 different numbers.*regression"),
        ([f"{n % 25 + 0.5}" for n in range(200)], "25 different numbers, which looks like regression"),
        ([str(1000 + n) for n in range(30)], "30 different numbers, which looks like regression"),
        ([f"{n} " + "long " * 500 for n in range(30)], r"30 different texts, such as '0 long .*…'.*--label-column$"),
    ],
)
def test_labels_that_are_no_classes_are_called_so_in_a_short_line(
    tmp_path: Path, reader: Reader, labels: list[str], message: str
) -> None:
    if reader.suffix == ".ts" and " " in labels[0]:
        labels = [label.replace(" ", "-") for label in labels]
        message = message.replace("0 long ", "0-long-")
    path = reader.file(tmp_path, labels)
    with pytest.raises(DataError, match=message) as caught:
        reader.load(str(path))
    assert len(str(caught.value)) < 300 + len(str(path))


@every(READERS)
def test_many_classes_with_many_examples_are_classes(tmp_path: Path, reader: Reader) -> None:
    path = reader.file(tmp_path, [str(n % 40) for n in range(120)])
    assert len(reader.load(str(path)).encoder.class_names) == 40


@every(READERS)
@pytest.mark.parametrize(("part", "remedy"), [("validation", "--validation 0"), ("test", "--test 0")])
def test_few_sequences_name_the_remedy(tmp_path: Path, reader: Reader, part: str, remedy: str) -> None:
    path = reader.file(tmp_path, ["x", "y", "x"])
    with pytest.raises(DataError, match=f"{part} = 0.1 of 3 sequences leaves nothing .*{remedy}"):
        reader.load(str(path), **{part: 0.1})


# ----------------------------------------------------------------------------------------------------------------- ids


@every([reader for reader in SERIES if reader.suffix in LONG])
def test_ids_are_the_text_that_is_written(tmp_path: Path, reader: Reader) -> None:
    ids = ["1.1", "1.10", "1", "1.0", "01", "-0", "0"]
    path = reader.file(tmp_path, ["x"] * len(ids))
    text = path.read_text()
    for n, name in enumerate(ids):
        text = text.replace(f"s{n}", f" {name} " if n % 2 else name)
    path.write_text(text)
    found = reader.read(path)
    assert found.places == [f"{path}, series {name}" for name in ids]
    assert [len(series) for series in found.series] == [3] * len(ids)
    path.write_text(text + text.splitlines()[-1])
    with pytest.raises(DataError, match="series 0 has this time already"):
        reader.read(path)
    path.write_text(text.replace("1.10", "\u200b", 1), encoding="utf-8")
    with pytest.raises(DataError, match="line 5: the series' id is missing"):
        reader.read(path)


# --------------------------------------------------------------------------------------------------------------- text


@every(TEXTS)
@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x0b", "\x0c", "\x1c", "\x85"])
def test_lines_end_at_line_ends_only(tmp_path: Path, reader: Reader, character: str) -> None:
    path = reader.file(tmp_path, [f"x{character}x", f"y{character}y"])
    assert reader.read(path).labels == [f"x{character}x", f"y{character}y"]


@every(TEXTS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_marks_make_no_difference(tmp_path: Path, reader: Reader, end: str, mark: str) -> None:
    path = reader.file(tmp_path, ["x", "y"])
    plain = reader.read(path)
    path.write_bytes((mark + path.read_text().replace("\n", end)).encode())
    found = reader.read(path)
    assert found.labels == plain.labels == ["x", "y"]
    assert [np.asarray(item).tolist() for item in found.series] == [np.asarray(item).tolist() for item in plain.series]


@every(TEXTS)
@pytest.mark.parametrize("start", FOREIGN)
def test_files_of_other_formats_are_called_by_their_names(tmp_path: Path, reader: Reader, start: bytes) -> None:
    path = tmp_path / f"X{reader.suffix}"
    for rest in (b"\x00\xff\xfe" * 9, b"\xff\xfe" * 9, b"\x00,\n" * 9):
        path.write_bytes(start + rest)
        with pytest.raises(DataError) as caught:
            reader.load(str(path))
        assert str(caught.value) == f"{path} is {FOREIGN[start]}"


@pytest.mark.parametrize("suffix", ["png", "jpeg", "gif", "tiff", "webp", "pdf"])
def test_a_picture_given_as_text_is_called_a_picture(tmp_path: Path, suffix: str) -> None:
    for name in (f"digits.{suffix}", "a.csv", "a.ts"):
        path = tmp_path / name
        Image.new("RGB", (9, 9)).save(path, suffix)
        for load in (load_sentence_dataset, load_series_dataset):
            with pytest.raises(DataError, match=rf"(?i) is a .*{suffix}.*; expected text, such as CSV$"):
                load(str(path))


@every(READERS)
def test_a_folder_and_what_is_not_there_are_told_apart(tmp_path: Path, reader: Reader) -> None:
    path = tmp_path / f"X{reader.suffix}"
    for wrong in (path, path / "deeper"):
        with pytest.raises(DataError) as caught:
            reader.load(str(wrong))
        assert str(caught.value) == f"data file {wrong} does not exist"
    path.mkdir()
    for wrong in (path, tmp_path):
        with pytest.raises(DataError) as caught:
            reader.load(str(wrong))
        assert str(caught.value) == f"data file {wrong} cannot be read: it is a folder; expected a file"


@pytest.mark.parametrize("suffix", [".parquet", ".xlsx", ".csv.gz"])
def test_the_format_is_named_whatever_the_suffix(tmp_path: Path, suffix: str) -> None:
    start = {".parquet": b"PAR1", ".xlsx": b"PK\x03\x04", ".csv.gz": b"\x1f\x8b"}[suffix]
    path = tmp_path / f"X{suffix}"
    path.write_bytes(start + b"\x00\xff\xfe" * 9)
    for load in (load_series_dataset, load_sentence_dataset):
        with pytest.raises(DataError, match=r"is a Parquet file|Excel|compressed with gzip"):
            load(str(path))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.txt"])
def test_a_json_array_is_called_so(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text('[\n {"text": "a", "label": 1},\n {"text": "b", "label": 0}\n]\n')
    with pytest.raises(DataError, match=r"is a JSON array; expected JSON lines, one object a line"):
        read_sentences(path)


@every(TEXTS)
def test_a_column_is_not_read_as_two_things(tmp_path: Path, reader: Reader) -> None:
    if reader.suffix == ".ts":
        return  # it names no columns
    names = ["text_column", "label_column"] if reader in SENTENCES else ["id_column", "time_column", "label_column"]
    path = reader.file(tmp_path, ["x", "y"])
    for one, two in product(names, names):
        if one < two:
            with pytest.raises(DataError, match="column 'label' is to be read as two things"):
                reader.load(str(path), **{one: "label", two: "label"})


# ------------------------------------------------------------------------------------------------ TSV and quotes in CSV


def test_lone_quotes_in_tsv_merge_no_records(tmp_path: Path) -> None:
    lines = ['"This is bad .\t0', "A film\t1", 'This is good . "\t1', "Well\t0"]
    for name, content in (("a.tsv", ["text\tlabel", *lines]), ("b.tsv", ["label\ttext", *(_swapped(lines))])):
        path = tmp_path / name
        path.write_text("\n".join(content))
        found = read_sentences(path)
        assert found.labels == ["0", "1", "1", "0"]
        assert found.series[0] == ['"', "this", "is", "bad", "."]
        assert found.series[2] == ["this", "is", "good", ".", '"']


def _swapped(lines: Sequence[str]) -> list[str]:
    return ["\t".join(reversed(line.split("\t"))) for line in lines]


def test_lone_quotes_beside_another_damaged_line_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\n"bad\t0\nbroken\ngood"\t1\n')
    with pytest.raises(DataError, match="line 3: found 1 field, expected 2"):
        read_sentences(path)


def test_a_space_before_a_quote_makes_no_other_class(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('text, label\n"a, b", "pos"\nc,pos\nd,  neg\n')
    found = read_sentences(path)
    assert found.labels == ["pos", "pos", "neg"]
    assert found.series[0] == ["a", ",", "b"]


@pytest.mark.parametrize("mark", [",", ";"])
def test_spaces_after_a_quoted_field_are_not_read(tmp_path: Path, mark: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text('"text" ,"label"\n"a "", b\nc"" , d ,""" , "pos" \nc,pos\ne "f" ,neg\n'.replace(",", mark))
    second = ['a ", b\nc" , d ,"'.replace(",", mark), "pos"]
    assert read_table(path)[0] == [(1, ["text", "label"]), (2, second), (4, ["c", "pos"]), (5, ['e "f" ', "neg"])]
    path.write_text(f'text{mark}label\n"a" {mark}pos\n"b" c{mark}neg\n')
    with pytest.raises(DataError, match="line 3: after a quoted field"):
        read_table(path)


# ------------------------------------------------------------------------------------------------------------ features


@every([reader for reader in SERIES if reader.suffix in LONG])
def test_two_features_of_one_name_are_refused_unless_left_out(tmp_path: Path, reader: Reader) -> None:
    path = reader.file(tmp_path, ["x", "y"])
    header, rest = path.read_text().split("\n", 1)
    path.write_text(header.replace("b", "a", 1) + "\n" + rest)
    for labelled in (True, False):
        with pytest.raises(DataError, match=r"2 columns are named 'a'.* --ignore a"):
            read_series(path, labelled=labelled)
    with pytest.raises(DataError, match="2 columns are named 'a'"):
        read_series(path, features=["a"])


def test_two_values_of_one_name_are_refused_in_json_and_npz(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a", "label": 1}\n{"text": "a", "label": 1, "text": "b"}\n')
    with pytest.raises(DataError, match="line 2: 'text' stands there twice"):
        read_sentences(path)
    path = tmp_path / "a.npz"
    write_arrays(path, ["x", "y"])
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("X.npy", archive.read("X.npy"))
    with pytest.raises(DataError, match="holds two arrays 'X'"):
        read_series(path)


@every(SERIES)
def test_features_are_chosen_and_left_out(tmp_path: Path, reader: Reader) -> None:
    path = reader.file(tmp_path, ["x", "y"])
    a, b = ("a", "b") if reader.suffix in LONG else ("0", "1")
    for found in (read_series(path, features=[b]), read_series(path, ignore=[a])):
        assert found.features == [b]
        assert found.dropped == [a]
        assert found.series[1].tolist() == values(1)[:, 1:].tolist()
    with pytest.raises(DataError, match="has no feature 'c'"):
        reader.load(str(path), features=["c"])
    with pytest.raises(DataError, match="has no column 'c' to ignore"):
        reader.load(str(path), ignore=["c"])
    with pytest.raises(DataError, match=f"no feature is left of {a}, {b}"):
        reader.load(str(path), ignore=[a, b])


def test_a_column_left_out_may_hold_anything_or_be_absent_from_a_test_file(tmp_path: Path) -> None:
    path, other = tmp_path / "a.csv", tmp_path / "b.csv"
    path.write_text("id,time,who,a,label\n1,0,Ann,0,x\n1,1,Ann,1,x\n2,0,Bob,2,y\n2,1,Bob,1,y\n")
    other.write_text("id,time,a,label\n1,0,0,x\n1,1,1,x\n")
    data = load_series_dataset(str(path), str(other), ignore=["who"])
    assert data.encoder.input_size == 1
    assert data.test is not None


@every(SERIES)
def test_series_of_one_step_each_are_refused_with_the_remedy(tmp_path: Path, reader: Reader) -> None:
    path = reader.file(tmp_path, ["x", "y"])
    if reader.suffix in LONG:
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], lines[1], lines[4]]))
    elif reader.suffix == ".ts":
        path.write_text("@classLabel true x y\n@data\n1:2:x\n3:4:y\n")
    else:
        np.savez(tmp_path / "X.npz", X=np.zeros((2, 1, 2)), y=np.array(["x", "y"]))
        np.save(tmp_path / "X.npy", np.zeros((2, 1, 2)))
    with pytest.raises(DataError, match=r"each of the 2 series has one step only; .*--id-column"):
        reader.load(str(path))


# -------------------------------------------------------------------------------------------------- numbers and times


@every([reader for reader in SERIES if reader.suffix not in ARRAYS])
@pytest.mark.parametrize("number", ["1_5", "1__5", "١٢", "0x1f", "1 5", "\u22121", "--1", "1e"])
def test_what_is_no_number_in_a_table_is_refused(tmp_path: Path, reader: Reader, number: str) -> None:
    path = reader.file(tmp_path, ["x", "y"])
    value = str(values(1)[1, 0])
    text = path.read_text()
    assert text.count(value) == 1
    path.write_text(text.replace(value, number), encoding="utf-8")
    with pytest.raises(DataError, match=r"feature .* is '.*'; expected a number"):
        read_series(path)


@pytest.mark.parametrize(
    "times",
    [
        ("2024-05-31T12:00:00.000000001", "2024-05-31T12:00:00.000000002", "2024-05-31T12:00:00.00000001"),
        ("2024-05-31 12:00:00", "2024-05-31 12:00:00.0000000001", "2024-05-31 12:00:00.1"),
        ("2024-05-31T12:00:00.999999999+00:00", "2024-05-31T14:00:01+02:00", "2024-05-31T12:00:01.000000001Z"),
        ("1700000000000000000", "1700000000000000000.5", "1700000000000000001"),
        ("1.5", "1700000000000000001", "1700000000000000002"),
        ("-1e-3", "0.1", "0.1000000000000000000001"),
    ],
)
def test_times_are_read_exactly(tmp_path: Path, times: Sequence[str]) -> None:
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0]):
        path = tmp_path / "a.csv"
        path.write_text("id,time,a,label\n" + "".join(f"s,{times[i]},{i},x\n" for i in order))
        assert read_series(path).series[0].ravel().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1", "1.0"),
        ("2024-05-31T12:00:00.1234567890", "2024-05-31T12:00:00.123456789"),
        ("2024-05-31", "2024-05-31T02:00:00+02:00"),
    ],
)
def test_the_same_time_twice_is_refused(tmp_path: Path, first: str, second: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"id,time,a,label\ns,{first},1,x\ns,{second},2,x\n")
    with pytest.raises(DataError, match="line 3: series s has this time already in line 2"):
        read_series(path)


@pytest.mark.parametrize("time", ["1_5", "nan", "inf", "1e", "١", "", "9" * 60_000 + "_"])
def test_what_is_no_time_is_refused_in_a_short_line(tmp_path: Path, time: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"id,time,a,label\ns,1,1,x\ns,{time},2,x\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 3: time is '.*'; expected a number") as caught:
        read_series(path)
    assert len(str(caught.value)) < 400


# ---------------------------------------------------------------------------------------------------------- .ts headers


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("@dimensions 3", "line 3: the header says @dimensions 3, but found 2"),
        ("@dimension 1", "the header says @dimensions 1, but found 2"),
        ("@univariate true", "the header says @univariate true, but found 2 dimensions"),
        ("@seriesLength 5", "line 3: the header says that all series have 5 steps .*, but found 3"),
        ("@equalLength true", "line 4: the header says that all series have 3 steps .*, but found 2"),
        ("@missing false", "line 5: the header says @missing false, but a value is missing"),
        ("@dimension 2\n@dimensions 3", "line 2: @dimensions is not what a line before says; keep the true one"),
        ("@missing true\n@missing false", "line 2: @missing is not what a line before says"),
        ("@classLabel true x y\n@classLabel true x", "line 2: @classLabel is not what a line before says"),
        ("@equalLength false\n@seriesLength 3", "line 2: @equalLength is false, but @seriesLength names one length"),
        ("@seriesLength 3\n@equalLength false", "line 2: @equalLength is false, but @seriesLength names one length"),
        ("@seriesLength 5 6", "line 1: @seriesLength is '5 6'; expected one word"),
        ("@missing true false", "line 1: @missing is 'true false'; expected one word"),
        ("@classLabel false x y", "line 1: @classLabel is 'false x y'; expected one word"),
        ("@data 1,2,3:4,5,6:x", "line 1: @data is '1,2,3:4,5,6:x'; expected nothing behind it"),
        ("@dimensions \u0662", "line 1: @dimensions is '\u0662'; expected a whole number"),
        ("@dimensions many", "line 1: @dimensions is 'many'; expected a whole number"),
        ("@equalLength perhaps", "line 1: @equalLength is 'perhaps'; expected true or false"),
    ],
)
def test_headers_of_ts_files_that_contradict_the_data_are_refused(tmp_path: Path, header: str, message: str) -> None:
    path = tmp_path / "a.ts"
    data = "\n@data\n1,2,3:4,5,6:x\n1,2:4,5:y\n1,?:4,5:y\n"
    path.write_text(header + data, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_series(path)
    for fits in ("@dimensions 2", "@univariate false", "@equalLength false", "@missing true", "@classLabel true x y"):
        path.write_text(f"@equalLength false\n{fits}" + data)
        assert len(read_series(path).series) == 3
    path.write_text("@problemName two words\n@univariate false\n@dimensions 1\n@dimension 1\n@data\n1,2,3:x\n")
    assert len(read_series(path).series) == 1
