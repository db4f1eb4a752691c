"""What is said of a file before training, and columns that are no measurements."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unroll.data.sentences import load_sentence_dataset
from unroll.data.series import load_series_dataset
from unroll.errors import DataError


def doubtful_table(folder: Path, column: Callable[[int, int], Any], name: str = "c") -> str:
    """24 series of 5 steps of noise, sorted by class, and one column more."""
    random, rows = np.random.default_rng(0), [f"id,time,a,{name},label"]
    rows += [f"s{n},{t},{random.normal()},{column(n, t)},{n // 12}" for n in range(24) for t in range(5)]
    (folder / "a.csv").write_text("\n".join(rows))
    return str(folder / "a.csv")


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (lambda n, t: 5 * n + t, "grows through all steps of the file, as a row number"),
        (lambda n, t: 1.7e9 + 5.5 * n + t, "grows through all steps of the file, as a row number"),
        (lambda n, t: (7 * n) % 24 * 5 + t, "grows through all steps of the file, as a row number"),
        (lambda n, t: 10_000 - 5 * n - t, "falls through all steps of the file, as a row number"),
        (lambda n, t: 1.7e9 - 5.5 * n - t, "falls through all steps of the file, as a row number"),
        (lambda n, t: (7 * n) % 24 * 5 - t, "falls through all steps of the file, as a row number"),
        (lambda n, t: (7 * n) % 24, "is another whole number for each series, as an identifier"),
        (lambda n, t: n // 12 + 3, "by itself gives the label"),
    ],
)
def test_columns_that_are_no_measurements_are_refused_unless_asked_for(
    tmp_path: Path, column: Callable[[int, int], Any], why: str
) -> None:
    path = doubtful_table(tmp_path, column)
    with pytest.raises(
        DataError, match=rf"feature 'c' {why}; leave it out with --ignore 'c', or name those .*--features"
    ):
        load_series_dataset(path)
    assert load_series_dataset(path, ignore=["c"]).encoder.input_size == 1
    data = load_series_dataset(path, features=["a", "c"])
    assert data.notes[-1] == f"Warning: feature 'c' {why}; --ignore 'c' leaves it out"


@pytest.mark.parametrize(
    ("column", "why"),
    [
        (lambda n, t: t, "grows with every step of every series, as a clock"),
        (lambda n, t: 5 - t, "falls with every step of every series, as a clock"),
        (lambda n, t: n % 12 // 2, "is the same in all steps of each series, as the number of a subject"),
        (lambda n, t: n // 6, "is the same in all steps of each series, as the number of a subject"),
        (lambda n, t: 2 * t % 3 + 10 * (n // 12), "by itself gives the label: no value of it occurs in two classes"),
    ],
)
def test_columns_that_may_be_no_measurements_are_warned_of(
    tmp_path: Path, column: Callable[[int, int], Any], why: str
) -> None:
    notes = load_series_dataset(doubtful_table(tmp_path, column)).notes
    assert len(notes) == 2
    assert notes[1].startswith(f"Warning: feature 'c' {why}")


@pytest.mark.parametrize("column", [lambda n, t: (t * 7 + n) % 5, lambda n, t: 3, lambda n, t: -t * n])
def test_of_measurements_nothing_is_said(tmp_path: Path, column: Callable[[int, int], Any]) -> None:
    assert len(load_series_dataset(doubtful_table(tmp_path, column)).notes) == 1


@pytest.mark.parametrize("name", ["", "Unnamed: 3"])
def test_a_column_without_a_name_is_refused_and_can_be_left_out(tmp_path: Path, name: str) -> None:
    path = doubtful_table(tmp_path, lambda n, t: (t * 7 + n) % 5, name)
    with pytest.raises(
        DataError, match=r"feature 'Unnamed: 3' has no name .*; leave it out with --ignore 'Unnamed: 3'"
    ):
        load_series_dataset(path)
    assert load_series_dataset(path, ignore=["Unnamed: 3"]).encoder.input_size == 1


def test_what_was_read_is_said(tmp_path: Path) -> None:
    path = doubtful_table(tmp_path, lambda n, t: t)
    assert (
        load_series_dataset(path, path, ignore=["c"]).notes
        == ["Read a.csv: 24 series of 5 steps; features: a; classes: 0 (12), 1 (12); not read: c"] * 2
    )
    text = tmp_path / "b.csv"
    text.write_text("n,text,label\n1,good film,pos\n2,film,neg\n3,bad,neg\n")
    assert load_sentence_dataset(str(text)).notes == [
        "Read b.csv: 3 sentences of 1 to 2 words; classes: neg (2), pos (1); not read: n"
    ]


@pytest.mark.parametrize("mark", [",", ";"])
def test_lone_quotes_that_may_have_merged_lines_are_warned_of(tmp_path: Path, mark: str) -> None:
    path, rows = tmp_path / "a.csv", ["text,label", '"Bad .,0', "A film,1", 'Good . ",1', "Well,0", '"Bad,1', 'Good",0']
    path.write_text("\n".join(rows).replace(",", mark))
    notes = load_sentence_dataset(str(path)).notes
    assert len(notes) == 2
    assert notes[1].startswith("Warning: a.csv, line 2 (and 1 more): a quoted field holds line ends and ")
    path.write_text(
        'text,label\n"It is ""good"", and\nlong",1\n"Bad, and short",0\n"Two\nlines",0\n'.replace(",", mark)
    )
    assert len(load_sentence_dataset(str(path)).notes) == 2  # as it may be so
    path.write_text('text,label\n"It is ""good""\nand long",1\n"Bad, and short",0\n'.replace(",", mark))
    assert len(load_sentence_dataset(str(path)).notes) == 1
    columns = f"id,time,a,note,label\n1,0,1,x,0\n1,1,2,x,0\n2,0,1,{chr(34)}x,1\n2,1,1,x{chr(34)},1\n2,2,2,x,1\n"
    path.write_text(columns.replace(",", mark))
    assert load_series_dataset(str(path), ignore=["note"]).notes[1].startswith("Warning: a.csv, line 4: a quoted field")


def test_test_parts_of_unknown_words_are_warned_of(tmp_path: Path) -> None:
    train, test = tmp_path / "a.csv", tmp_path / "b.csv"
    train.write_text("text,label\nAnn Lee,f\nBob Ray,m\n")
    test.write_text("text,label\nEve Lee,f\nTom Fox,m\n")
    data = load_sentence_dataset(str(train), str(test))
    assert data.notes[2].startswith("Warning: 75% of the words in the test part do not occur in the training part's")
    test.write_text("text,label\nEve Lee,f\nBob Fox,m\n")
    assert len(load_sentence_dataset(str(train), str(test)).notes) == 2
