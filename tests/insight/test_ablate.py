"""Gates removed: the equations, that a gate held open stays open, and the table."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from unroll.cells import LSTMCell
from unroll.cells.variants import HELD_OPEN, OPEN, REMOVALS, hold_open, keep_open, without
from unroll.cli import cli
from unroll.engines import choose, native, reference
from unroll.engines.native import programs
from unroll.errors import InputError
from unroll.insight import ablate
from unroll.insight.ablate import count_parameters, plan, remove, table, text_table
from unroll.insight.trace import trace
from unroll.models import SequenceClassifier
from unroll.optim import Adam
from unroll.training.recipe import load_recipe
from unroll.training.run import RunFolder
from unroll.training.train import train


@pytest.mark.parametrize("removed", REMOVALS)
def test_each_variant_changes_one_line_of_the_equations_and_no_other(removed):
    torch.manual_seed(0)
    cell = LSTMCell(3, 4, dtype=torch.float64)
    x, h, c = torch.randn(2, 3).double(), torch.randn(2, 4).double(), torch.randn(2, 4).double()
    whole, new = cell.equations(x, h, c), without(copy.deepcopy(cell), removed).equations(x, h, c)
    one = torch.ones_like(c)
    a_c = (h @ cell.W.T + x @ cell.U.T + cell.b)[:, 8:12]
    expected = (
        whole._asdict()
        | {
            "f": {"f": one},
            "i": {"i": one},
            "o": {"o": one},
            "c_tilde": {"c_tilde": a_c},
            "coupled": {"i": 1 - whole.f},
        }[removed]
    )
    for name in ("i", "f", "c_tilde", "o"):
        torch.testing.assert_close(getattr(new, name), expected[name], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(new.c, expected["f"] * c + expected["i"] * expected["c_tilde"])
    torch.testing.assert_close(new.h, expected["o"] * torch.tanh(new.c))


@pytest.mark.parametrize("gate", HELD_OPEN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("engine", ["reference", "native"])
def test_a_gate_held_open_is_so_on_every_engine_and_no_gradient_closes_it(gate, dtype, engine):
    if engine == "native" and native.instruction_set() is None:
        pytest.skip("installed without the kernels")
    torch.manual_seed(1)
    model = SequenceClassifier("lstm", 3, 5, 4, engine=engine).to(dtype)
    cell = model.layers.cells[0][0]
    x, y = torch.randn(7, 6, 3, dtype=dtype), torch.tensor([0, 1, 2, 3, 0, 1])
    hold_open(cell, gate)
    outputs, _ = model.layers(x)
    state = cell.initial_state(6)
    for t in range(7):
        state = cell(x[t], state)
        torch.testing.assert_close(outputs[t], state[0], rtol=1e-5, atol=1e-6)
    optimizer = Adam(model.parameters(), 0.05)
    rows = cell.block(gate)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(x), y).backward()
        keep_open(cell, gate)
        for parameter in (cell.W, cell.U, cell.b):
            assert not parameter.grad[rows].any()
            assert parameter.grad[: rows.start].any() or parameter.grad[rows.stop :].any()
        optimizer.step()
    assert bool((cell.b[rows] == OPEN).all())
    assert bool((torch.as_tensor(trace(model, x)(gate)) == 1).all())


@pytest.mark.parametrize("removed", REMOVALS)
def test_a_model_with_a_part_removed_keeps_its_parameters_and_learns(removed):
    torch.manual_seed(2)
    model = SequenceClassifier("lstm", 3, 8, 2, num_layers=2, bidirectional=True)
    before = [id(p) for p in model.parameters()]
    remove(model, removed)
    assert [id(p) for p in model.parameters()] == before
    x, y = torch.randn(5, 16, 3), torch.arange(16) % 2
    optimizer = Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    walked_by = {choose("auto", cell, x) for cell in model.layers.cells[0]}
    if native.instruction_set() is not None:
        assert walked_by == {native}


@pytest.mark.skipif(native.instruction_set() is None, reason="the compiled kernels are not installed")
@pytest.mark.parametrize("removed", REMOVALS)
def test_each_variant_is_a_step_program_with_the_references_numbers_and_gradients(removed):
    torch.manual_seed(3)
    cell = without(LSTMCell(3, 5, dtype=torch.float64), removed)
    x = torch.randn(6, 4, 3, dtype=torch.float64, requires_grad=True)
    assert native.why_not(cell, x) is None
    assert isinstance(programs.step_of(cell, words=False), programs.Step)
    found = []
    for engine in (reference, programs):
        outputs, last = engine.scan(cell, x, cell.initial_state(4), torch.tensor([6, 0, 3, 5]))
        total = (outputs**2).sum() + last[1].sum()
        found.append([outputs, *last, *torch.autograd.grad(total, [x, *cell.parameters()])])
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-10)


def test_a_variant_without_a_gate_has_a_quarter_of_the_cell_fewer_parameters():
    model = SequenceClassifier("lstm", 3, 8, 2)
    total = sum(p.numel() for p in model.parameters())
    assert count_parameters(model, None) == count_parameters(model, "c_tilde") == total
    for removed in ("f", "i", "o", "coupled"):
        assert count_parameters(model, removed) == total - (8 * 8 + 8 * 3 + 8)


def test_the_table_compares_means_over_seeds_with_the_whole_cell():
    results = [
        {"removed": removed, "seed": seed, "accuracy": accuracy, "seconds": 1.0, "parameters": 10, "loss": 0.1}
        for removed, accuracies in ((None, (0.9, 0.92)), ("f", (0.8, 0.84)))
        for seed, accuracy in enumerate(accuracies)
    ]
    whole, without = table(results)
    assert (whole["mean"], whole["cost"]) == (pytest.approx(0.91), 0)
    assert without["cost"] == pytest.approx(0.09)
    assert without["deviation"] == pytest.approx(0.02 * 2**0.5)
    assert text_table([whole, without])[2][1] == "82.00% ± 2.83"
    assert [text_table([{**whole, "cost": cost}])[1][2] for cost in (0.0, 1e-6, -1e-6)] == ["+0.00 points"] * 3


def test_unknown_gates_no_seeds_and_other_cells_are_refused():
    with pytest.raises(InputError, match="did you mean 'coupled'"):
        plan(["copled"], 1)
    with pytest.raises(InputError, match="at least 1"):
        plan([], 0)
    with pytest.raises(InputError, match="only the LSTM"):
        remove(SequenceClassifier("rnn", 3, 4, 2), "f")
    with pytest.raises(InputError, match="held open"):
        hold_open(LSTMCell(3, 4), "coupled")
    with pytest.raises(InputError, match="has none"):
        hold_open(LSTMCell(3, 4, bias=False), "f")


def test_the_command_trains_every_variant_and_writes_the_table(tmp_path: Path):
    path = tmp_path / "run"
    recipe = load_recipe("rnn-sentences", {"epochs": 2, "cell": "lstm"})
    train(recipe, RunFolder.create(path, recipe, {}), echo=lambda line: None)
    done = CliRunner().invoke(
        cli, ["ablate", str(path), "--gate", "f", "--gate", "coupled", "--seeds", "2"], catch_exceptions=False
    )
    assert done.exit_code == 0
    rows = json.loads((path / "ablate.json").read_text())["rows"]
    assert [row["removed"] for row in rows] == [None, "f", "coupled"]
    assert all(len(row["accuracies"]) == 2 for row in rows)
    for arguments in (["--gate", "x"], ["--seeds", "0"]):
        refused = CliRunner().invoke(cli, ["ablate", str(path), *arguments])
        assert isinstance(refused.exception, InputError)


def test_ablation_goes_on_and_knows_its_data(bars_recipe, bars_folder, tmp_path, monkeypatch):
    recipe, file = bars_recipe(epochs=1), tmp_path / "ablate.json"
    first = ablate.ablate(recipe, file, ["f"], seeds=1)
    trained = []

    def retrain(recipe, dataset, removed):
        trained.append(removed)
        return {"accuracy": 0.5, "loss": 1.0, "seconds": 1.0, "parameters": 5}

    monkeypatch.setattr(ablate, "retrain", retrain)
    assert ablate.ablate(recipe, file, ["f"], seeds=1) == first
    assert trained == []
    other = tmp_path / "other"
    shutil.copytree(bars_folder, other)
    labels = other / "train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-3] + bytes(3))
    ablate.ablate(recipe.model_copy(update={"data": str(other)}), file, ["f"], seeds=1)
    assert trained == [None, "f"]


def test_ablation_of_a_cell_of_ones_own_is_refused_in_one_line(tmp_path):
    recipe = load_recipe("lstm-mnist").model_copy(update={"cell": "mine.py:Mine"})
    with pytest.raises(
        InputError, match=r"^only the LSTM has gates to remove, and the cell is Mine; use a run with"
    ) as caught:
        ablate.ablate(recipe, tmp_path / "ablate.json")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
