"""Labs as data: items with the labs' numbers and points, and files of courses' own."""

from __future__ import annotations

import json

import pytest

from unroll.errors import InputError
from unroll.labs.spec import CHECKS, LABS, load_lab, questions_file

OWN = {"name": "{student_id}_HW", "title": "t"}


@pytest.mark.parametrize(
    ("name", "points", "kinds", "kind", "file"),
    [
        (
            "homework",
            [30, 15, 5, 5, 5, 5, 5],
            ["checks", "accuracy", "checks", "checks", "question", "question", "question"],
            "lstm",
            "313513054_Lab7_Homework",
        ),
        ("inclass", [5] * 6, ["checks"] * 4 + ["question"] * 2, "rnn", "313513054_Lab7_InClass"),
    ],
)
def test_the_labs_that_come_along_have_the_labs_items(name, points, kinds, kind, file):
    lab = load_lab(name)
    assert [item.points for item in lab.items] == points
    assert [item.kind for item in lab.items] == kinds
    assert (lab.kind, lab.called, lab.file_name("313513054")) == (kind, name, file)
    assert sorted(check for item in lab.items for check in item.checks) == sorted(CHECKS[kind])
    assert all(item.title for item in lab.items)


def test_every_lab_file_is_read():
    assert {path.stem for path in LABS.glob("*.yaml")} == {"homework", "inclass", "gru"}


@pytest.fixture
def load(tmp_path):
    def made(**fields):
        path = tmp_path / "mine.yaml"
        path.write_text(json.dumps(OWN | fields))  # JSON is YAML
        return load_lab(str(path))

    return made


def test_a_problem_costs_what_the_item_says_and_never_more_than_there_is(load):
    item, whole = load(
        items=[{"points": 30, "checks": ["cell"], "each": 8}, {"points": 5, "checks": ["testing"]}]
    ).items
    assert [item.points_for_problems(n) for n in (0, 1, 3, 4)] == [30, 22, 6, 0]
    assert [whole.points_for_problems(n) for n in (0, 1)] == [5, 0]


def test_an_accuracy_is_worth_the_first_band_that_it_reaches(load):
    bands = [{"at_least": 97, "points": 15}, {"at_least": 57, "points": 9}]
    (item,) = load(items=[{"points": 15, "bands": bands, "checks": ["training"]}]).items
    assert item.kind == "accuracy"
    assert [item.points_for_accuracy(a) for a in (1, 0.97, 0.9699, 0.57, 0.1)] == [15, 15, 9, 9, 0]


def test_a_file_with_questions_alone_has_them_as_items(load):
    lab = load(questions=[{"text": "a", "points": 12.5}, {"text": "b"}], cell="lstm")
    assert [(n, item.text, item.points) for n, item in lab.questions.items()] == [(1, "a", 12.5), (2, "b", None)]
    assert lab.called == "mine"


def test_the_kind_is_told_by_the_cell_or_else_by_the_checks(load):
    assert load(items=[{"text": "a"}], cell="rnn").kind == "rnn"
    assert load(items=[{"points": 1, "checks": ["forward"]}]).kind == "rnn"
    assert load(items=[{"points": 1, "checks": ["cell"]}]).kind == "lstm"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"items": []}, "items"),
        ({"items": [{"points": 1, "checks": ["cel"]}]}, "no check 'cel' for lstm; known: cell, classifier"),
        ({"items": [{"points": 1, "checks": ["cell", "forward"]}]}, "no check 'cell' for rnn"),
        ({"items": [{"points": 1, "checks": ["cell"]}] * 2}, "a check belongs to two items"),
        ({"items": [{"points": 1}]}, "so nothing is asked"),
        ({"items": [{"checks": ["cell"]}]}, "has no points"),
        ({"items": [{"points": 1, "checks": ["cell"], "text": "a"}]}, "make two items of it"),
        ({"items": [{"points": 1, "text": "a", "each": 1}]}, "'each' goes with checks alone"),
        (
            {"items": [{"points": 1, "bands": [{"at_least": 1, "points": 1}, {"at_least": 2, "points": 1}]}]},
            "do not fall",
        ),
        ({"items": [{"points": 1, "bands": [{"at_least": 1, "points": 2}]}]}, "more points than the item"),
        ({"items": [{"text": "a"}], "questions": [{"text": "a"}]}, "has items and questions"),
        ({"items": [{"text": "a", "pionts": 1}]}, "items.0.pionts"),
        ({"questions": "what?"}, "questions: expected a list"),
        ({"questions": []}, "questions"),
        ({"questions": [{"text": "a", "points": -1}]}, "points"),
        ({"name": "x", "items": [{"text": "a"}]}, "name"),
        ({"name": "../{student_id}", "items": [{"text": "a"}]}, "expected a name: at most 100 letters"),
        ({"name": "C:{student_id}", "items": [{"text": "a"}]}, "expected a name: at most 100 letters"),
    ],
)
def test_a_lab_file_that_does_not_fit_is_one_line(load, fields, said):
    with pytest.raises(InputError) as error:
        load(**fields)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "said"), [("name: [", "not valid YAML"), ("just text", "expected lines of the form")])
def test_a_lab_file_that_is_none_is_one_line(tmp_path, text, said):
    (tmp_path / "lab.yaml").write_text(text)
    with pytest.raises(InputError, match=said):
        load_lab(str(tmp_path / "lab.yaml"))


def test_an_unknown_lab_is_answered_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'homework'"):
        load_lab("homewrk")


def test_questions_are_printed_with_the_labs_numbers():
    text = questions_file(load_lab("homework"))
    assert [line for line in text.splitlines() if line.startswith("#")] == ["## 5", "## 6", "## 7"]
