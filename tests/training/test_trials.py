"""A list of trainings in a file: none is run twice, nothing finished is lost, and nobody else writes there."""

from __future__ import annotations

import json

import pytest

from unroll.errors import InputError
from unroll.training import callbacks
from unroll.training.recipe import parse_recipe
from unroll.training.trials import Trials, alone, finished_run, signature

FIELDS = {"name": str, "seed": int, "score": (float, type(None))}


def made(path):
    return Trials(path, ("name", "seed"), FIELDS)


def complete(trials, todo, done):
    def train(one):
        done.append(one)
        if one == ("c", 0):
            raise KeyboardInterrupt
        return {"score": 0.5}

    return trials.complete(todo, lambda one: {"name": one[0], "seed": one[1]}, train)


def test_trials_are_written_as_they_finish_and_not_run_again(tmp_path):
    path, done = tmp_path / "trials.json", []
    with pytest.raises(KeyboardInterrupt):
        complete(made(path), [("a", 0), ("a", 1), ("c", 0)], done)
    assert [row["seed"] for row in json.loads(path.read_text())] == [0, 1]
    rows = complete(made(path), [("b", 0), ("a", 1), ("a", 0)], done)
    assert done == [("a", 0), ("a", 1), ("c", 0), ("b", 0)]
    assert [(row["name"], row["seed"]) for row in rows] == [("b", 0), ("a", 1), ("a", 0)]
    assert len(made(path).rows) == 3
    assert made(path).find(name="a", seed=1) == {"name": "a", "seed": 1, "score": 0.5}
    assert made(path).find(name="a", seed=2) is None


def test_trials_keep_what_else_stands_in_the_file(tmp_path):
    path = tmp_path / "trials.json"
    path.write_text(json.dumps({"about": "é", "trainings": [{"name": "a", "seed": 0, "score": None}]}))
    trials = made(path)
    assert trials.about == {"about": "é"}
    trials.add({"name": "b", "seed": 0, "score": 1.0})
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["about"] == "é"
    assert [row["name"] for row in content["trainings"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is damaged; remove it, or name another folder with --out"),
        ("3", "it holds no list of trainings"),
        ('{"rows": []}', "it holds no list of trainings"),
        ('[{"name": "a", "seed": 0, "score": 1.0}, 2]', "it holds no list of trainings"),
        ('[{"name": "a", "score": 1.0}]', r"training 0 \(from 0\) has no entry seed, as an older version left it"),
        ('[{"name": "a", "seed": true, "score": 1.0}]', r"training 0 \(from 0\) has seed = True"),
        ('[{"name": "a", "seed": 0, "score": "x"}]', r"training 0 \(from 0\) has score = 'x'"),
    ],
)
def test_trials_refuse_a_file_that_holds_something_else(tmp_path, content, message):
    path = tmp_path / "trials.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        made(path)
    assert path.read_text() == content


def test_a_finished_run_is_taken_as_it_is_and_a_broken_one_gone_on_with(bars_recipe, tmp_path, monkeypatch):
    recipe = bars_recipe(epochs=3)
    whole = finished_run(tmp_path / "whole", recipe)
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_SAVES", 0.0)

    def broken(self, training, row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.ProgressBar, "on_epoch", broken)
        with pytest.raises(KeyboardInterrupt):
            finished_run(tmp_path / "broken", recipe)
    begun = []
    monkeypatch.setattr(callbacks.ProgressBar, "on_begin", lambda self, training: begun.append(training.epoch))
    monkeypatch.setattr(callbacks.ProgressBar, "on_step", lambda *_: None)
    again = finished_run(tmp_path / "broken", recipe)
    assert begun == [2]
    assert finished_run(tmp_path / "broken", recipe).metrics() == again.metrics()
    assert begun == [2]
    weights = [(folder.path / "model.safetensors").read_bytes() for folder in (whole, again)]
    assert weights[0] == weights[1]


def test_alone_keeps_others_out_until_it_has_ended(tmp_path):
    folder = tmp_path / "new" / "study"
    with alone(folder, "unroll effects"):
        assert folder.is_dir()
        with pytest.raises(InputError, match="another unroll effects is at work in"), alone(folder, "unroll effects"):
            pass
    with alone(folder, "unroll effects"):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be a folder: a file stands in the way"), alone(tmp_path / "file", "x"):
        pass


def test_signature_leaves_out_what_makes_no_difference():
    recipe = parse_recipe({"task": "images", "data": "a", "name": "b", "hidden_size": 7}, "test")
    found = signature(recipe)
    assert found["hidden_size"] == 7
    assert not {"name", "about", "seed", "engine", "device", "log", "log_every", "data"} & set(found)


def test_trials_are_found_whatever_the_order_of_a_keys_fields(tmp_path):
    trials = Trials(tmp_path / "trials.json", ("recipe",), {"recipe": dict})
    trials.add({"recipe": {"a": 1, "b": 2}, "score": 1})
    assert trials.find(recipe={"b": 2, "a": 1}) == {"recipe": {"a": 1, "b": 2}, "score": 1}
