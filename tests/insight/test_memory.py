"""The memory tasks: what they ask, that guessing fails, that an LSTM learns them, and the command."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from unroll.cli import cli
from unroll.errors import InputError
from unroll.insight import memory
from unroll.insight.memory import (
    ALPHABET,
    RECIPES,
    REPEATED,
    Rememberer,
    equal_rnn,
    learn,
    parameters_of_lstm,
    summary,
    task,
)
from unroll.report.insight import draw_memory


def draw(name: str, length: int, size: int = 400) -> tuple[memory.Task, torch.Tensor, torch.Tensor]:
    made = task(name, length)
    return made, *made.batch(size, torch.Generator().manual_seed(0))


def test_temporal_order_asks_for_the_two_symbols_in_their_order():
    _, x, y = draw("order", 50)
    assert x.shape == (50, 400)
    for n in range(400):
        places = (x[:, n] < 2).nonzero()[:, 0]
        assert len(places) == 2
        assert 5 <= places[0] < 10
        assert 20 <= places[1] < 25
        assert y[0, n] == 2 * x[places[0], n] + x[places[1], n]
    assert set(y[0].tolist()) == {0, 1, 2, 3}


def test_adding_asks_for_the_scaled_sum_of_the_marked_numbers():
    made, x, y = draw("adding", 21)
    assert x.shape == (21, 400, 2)
    for n in range(400):
        marked = (x[:, n, 1] == 1).nonzero()[:, 0]
        assert len(marked) == 2
        assert marked[0] < 10 <= marked[1]
        assert y[0, n].item() == pytest.approx(0.5 + x[marked, n, 0].sum().item() / 4, abs=1e-6)
    assert made.right(y[:, :, None] + 0.039, y) == 1
    assert made.right(y[:, :, None] + 0.041, y) == 0


def test_copy_shows_the_symbols_then_blanks_a_signal_and_blanks():
    made, x, y = draw("copy", 7)
    assert x.shape == (made.steps, 400) == (7 + 2 * REPEATED, 400)
    assert torch.equal(x[:REPEATED], y)
    signal = REPEATED + 7 - 1
    assert bool((x[signal] == ALPHABET + 1).all())
    rest = [t for t in range(REPEATED, made.steps) if t != signal]
    assert bool((x[rest] == ALPHABET).all())


def test_rows_are_digits_followed_by_nothing():
    made, x, y = draw("rows", 5, size=20)
    assert x.shape == (33, 20, 28)
    assert not x[28:].any()
    assert bool(x[:28].abs().sum((0, 2)).gt(0).all())
    test_x, _ = made.batch(20, torch.Generator().manual_seed(0), "test")
    assert not torch.equal(x, test_x)
    assert set(y[0].tolist()) <= set(range(10))


@pytest.mark.parametrize("name", ["order", "adding", "copy"])
def test_an_answer_that_remembers_nothing_is_right_as_often_as_guessing(name):
    made, _, y = draw(name, 30, size=5000)
    blind = torch.zeros(made.answers, 5000, made.outputs)
    if name == "adding":
        blind += 0.5
    assert made.right(blind, y) == pytest.approx(made.guessing, abs=0.03)


@pytest.mark.parametrize(("hidden", "inputs", "outputs"), [(32, 2, 1), (64, 28, 10), (64, 10, 8)])
def test_the_rnn_gets_as_many_parameters_as_the_lstm(hidden, inputs, outputs):
    wanted = parameters_of_lstm(hidden, inputs, outputs)
    H = equal_rnn(hidden, inputs, outputs)
    assert H * (H + inputs + 1) + outputs * (H + 1) == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("name", ["order", "adding", "copy"])
def test_the_first_values_are_those_of_the_recipe_and_both_cells_are_of_one_size(name):
    made, sizes = task(name, 40), []
    for cell in ("lstm", "rnn", "irnn"):
        torch.manual_seed(0)
        recipe = RECIPES[made.name, cell]
        model = Rememberer(made, cell, recipe)
        sizes.append(sum(p.numel() for p in model.parameters()))
        own = model.layer.cells[0][0]
        if cell == "lstm":
            H = recipe.hidden_size
            keeps = 1 / (1 - torch.sigmoid(own.b[H : 2 * H]))  # e-folding steps of the forget gate, plus one
            assert keeps.min() >= 2
            assert keeps.max() <= made.steps
            torch.testing.assert_close(own.b[:H], -own.b[H : 2 * H])
        elif cell == "irnn":
            assert torch.equal(own.W, torch.eye(own.hidden_size))
            assert own.nonlinearity == "relu"
    assert sizes[1:] == pytest.approx([sizes[0]] * 2, rel=0.02)


def test_an_lstm_learns_temporal_order_and_counts_its_sequences():
    recipe = replace(RECIPES["order", "lstm"], sequences=20_000)
    result = learn(task("order", 20), "lstm", recipe, seed=1)
    assert result["solved"]
    assert result["right"] >= 0.99
    assert result["sequences"] in range(2000, 20_000, 2000)


def test_a_gate_can_be_held_open_while_learning():
    recipe = replace(RECIPES["adding", "lstm"], sequences=4000)
    made = task("adding", 20)
    whole, without = (learn(made, "lstm", recipe, held_open=gate) for gate in (None, "i"))
    assert whole["right"] != without["right"]


def test_training_that_does_not_get_there_says_so():
    recipe = replace(RECIPES["adding", "rnn"], sequences=100)
    result = learn(task("adding", 40), "rnn", recipe)
    assert not result["solved"]
    assert result["sequences"] == 100


def test_a_loss_that_is_no_longer_a_number_ends_the_training():
    recipe = replace(RECIPES["adding", "irnn"], learning_rate=50.0, sequences=20_000)
    result = learn(task("adding", 100), "irnn", recipe)
    assert result["diverged"]
    assert not result["solved"]
    assert result["sequences"] < 20_000


def test_the_summary_counts_only_what_was_solved():
    base = {"task": "adding", "cell": "lstm", "length": 9, "parameters": 5, "seconds": 1.0, "diverged": False}
    results = [
        base | {"seed": 0, "solved": True, "sequences": 100, "right": 1.0},
        base | {"seed": 1, "solved": True, "sequences": 300, "right": 0.99},
        base | {"seed": 2, "solved": False, "sequences": 900, "right": 0.5},
    ]
    (row,) = summary(results)
    assert (row["solved"], row["seeds"], row["sequences"], row["right"]) == (2, 3, 200, 0.99)
    (none,) = summary(results[2:])
    assert none["sequences"] is None
    assert draw_memory([row, none | {"cell": "rnn"}]).axes


@pytest.mark.parametrize(
    ("name", "length", "text"),
    [("order", 0, "at least 10"), ("adding", 1, "at least 2"), ("copy", 0, "at least 1"), ("ading", 5, "did you mean")],
)
def test_tasks_that_make_no_sense_are_refused(name, length, text):
    with pytest.raises(InputError, match=text):
        task(name, length)


def test_the_command_trains_draws_and_does_not_train_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for key, recipe in RECIPES.items():
        monkeypatch.setitem(RECIPES, key, replace(recipe, sequences=200))
    arguments = ["memory", "order", "--length", "10", "--seeds", "1", "--out", str(tmp_path / "m")]
    first = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert first.exit_code == 0
    results = json.loads((tmp_path / "m" / "memory.json").read_text())
    assert [result["cell"] for result in results] == ["lstm", "rnn", "irnn"]
    assert (tmp_path / "m" / "memory.png").is_file()
    monkeypatch.setattr(memory, "learn", None)
    again = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert again.output == first.output
    (tmp_path / "m" / "memory.json").write_text("{")
    for bad in (
        arguments[1:],
        ["order", "--out", str(tmp_path / "m" / "memory.png")],
        ["order", "--length", "0"],
        ["unheard"],
        ["order", "--seeds", "0"],
    ):
        refused = CliRunner().invoke(cli, ["memory", *bad])
        assert isinstance(refused.exception, InputError)


RESULT = {
    "task": "order",
    "length": 10,
    "cell": "lstm",
    "seed": 0,
    "solved": True,
    "diverged": False,
    "sequences": 200,
    "right": 1.0,
    "best": 1.0,
    "parameters": 100,
    "seconds": 1.0,
}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            [{k: v for k, v in RESULT.items() if k != "diverged"}],
            "training 0 .from 0. has no entry diverged, as an older",
        ),
        ([RESULT, {**RESULT, "sequences": "many"}], "training 1 .from 0. has sequences = 'many'"),
        ({"results": [RESULT]}, "it holds no list of trainings"),
        ([RESULT, 3], "it holds no list of trainings"),
        (None, "it holds no list of trainings"),
    ],
)
def test_numbers_of_another_version_or_kind_are_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: object, message: str
):
    file = tmp_path / "memory.json"
    file.write_text(json.dumps(content))
    monkeypatch.setattr(memory, "learn", None)
    refused = CliRunner().invoke(cli, ["memory", "order", "--length", "10", "--out", str(tmp_path)])
    assert isinstance(refused.exception, InputError)
    assert re.search(message, str(refused.exception))
    assert str(refused.exception).endswith("; remove it, or name another folder with --out")
    assert json.loads(file.read_text()) == content
    file.write_text(json.dumps([RESULT]))
    assert memory.measure([], file) == []
