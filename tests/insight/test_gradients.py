"""Gradients through time against finite differences, and Jacobians in closed form against torch.func."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from unroll.cells import LSTMCell, RNNCell
from unroll.cli import cli
from unroll.errors import InputError
from unroll.insight.gradients import (
    by_pixels,
    gradient_norms,
    jacobian,
    measure,
    singular_values,
    text_table,
    untrained,
)
from unroll.models import SequenceClassifier
from unroll.report.insight import draw_gradients
from unroll.training.recipe import load_recipe
from unroll.training.run import RunFolder
from unroll.training.train import train


def model_of(cell: str, **options) -> SequenceClassifier:
    torch.manual_seed(0)
    model = SequenceClassifier(cell, 3, 5, 4, engine="reference", **options).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    return model


def loss_from(
    model: SequenceClassifier, state: tuple[torch.Tensor, ...], x: torch.Tensor, y: torch.Tensor
) -> torch.Tensor:
    """The loss of going on from `state` over the steps x that are left."""
    cell = model.layers.cells[0][0]
    state = state if len(state) > 1 else state[0]
    for step in x:
        state = cell(step, state)
    h = state[0] if isinstance(state, tuple) else state
    return torch.nn.functional.cross_entropy(h @ model.W_out.T + model.b_out, y)


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_the_norms_are_those_of_finite_differences_of_the_state_handed_on(cell):
    model, x, y = model_of(cell), torch.randn(6, 1, 3, dtype=torch.float64), torch.tensor([2])
    found = gradient_norms(model, x, y)
    step_cell, state, eps = model.layers.cells[0][0], model.layers.cells[0][0].initial_state(1), 1e-6
    state = state if isinstance(state, tuple) else (state,)
    with torch.no_grad():
        for t in range(6):
            # c_t reaches the loss through h_t = o_t tanh(c_t) too: o_t is what step t has computed.
            o = step_cell.equations(x[t], *state).o if cell == "lstm" else None
            new = step_cell(x[t], state if len(state) > 1 else state[0])
            state = new if isinstance(new, tuple) else (new,)
            for part, name in enumerate(found):
                slopes = []
                for unit in range(5):
                    sides = []
                    for sign in (1, -1):
                        moved = [value.clone() for value in state]
                        moved[part][0, unit] += sign * eps
                        if name == "c":
                            moved[0] = o * torch.tanh(moved[1])
                        sides.append(loss_from(model, tuple(moved), x[t + 1 :], y).item())
                    slopes.append((sides[0] - sides[1]) / (2 * eps))
                assert found[name][t, 0] == pytest.approx(np.linalg.norm(slopes), rel=1e-5), (name, t)


def test_each_sequence_has_a_loss_of_its_own():
    model, x, y = model_of("lstm"), torch.randn(4, 3, 3, dtype=torch.float64), torch.tensor([0, 1, 2])
    together = gradient_norms(model, x, y)
    for n in range(3):
        alone = gradient_norms(model, x[:, n : n + 1], y[n : n + 1])
        for name in ("h", "c"):
            np.testing.assert_allclose(together[name][:, n], alone[name][:, 0], rtol=1e-12)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_jacobian_of_the_rnn_is_that_of_the_formula(nonlinearity):
    torch.manual_seed(1)
    cell = RNNCell(3, 4, nonlinearity=nonlinearity, dtype=torch.float64)
    x, s = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    new = cell(x, s)
    slope = 1 - new**2 if nonlinearity == "tanh" else (new > 0).double()
    torch.testing.assert_close(jacobian(cell, x, s), slope[:, :, None] * cell.W)  # diag(φ') W


def test_jacobian_of_the_lstm_is_that_of_the_formulas():
    torch.manual_seed(2)
    cell = LSTMCell(3, 4, dtype=torch.float64)
    x = torch.randn(2, 3, dtype=torch.float64)
    h, c = torch.randn(2, 2, 4, dtype=torch.float64)
    i, f, c_tilde, o, c_new, _ = cell.equations(x, h, c)
    W_i, W_f, W_c, W_o = cell.W.chunk(4)
    through = o * (1 - torch.tanh(c_new) ** 2)  # ∂h_t/∂c_t
    c_by_h = (
        (c * f * (1 - f))[:, :, None] * W_f
        + (c_tilde * i * (1 - i))[:, :, None] * W_i
        + (i * (1 - c_tilde**2))[:, :, None] * W_c
    )
    h_by_h = (torch.tanh(c_new) * o * (1 - o))[:, :, None] * W_o + through[:, :, None] * c_by_h
    top = torch.cat([h_by_h, torch.diag_embed(through * f)], 2)
    truth = torch.cat([top, torch.cat([c_by_h, torch.diag_embed(f)], 2)], 1)
    torch.testing.assert_close(jacobian(cell, x, (h, c)), truth)


def test_an_orthogonal_rnn_at_rest_neither_grows_nor_shrinks_a_gradient_and_its_double_doubles_it():
    for label, model in untrained(6, 1, 3):
        if label["cell"] == "rnn":
            values = singular_values(model, torch.zeros(5, 2, 1))
            assert values["largest"] == pytest.approx([label["gain"]] * len(values["t"]), rel=1e-5)
            norms = measure(model, torch.zeros(5, 2, 1), torch.tensor([0, 1]))["norms"]["s"]
            assert norms["reach"] == pytest.approx(label["gain"] ** 4, rel=1e-5)


def test_a_larger_forget_bias_carries_the_gradient_further():
    torch.manual_seed(3)
    x, y = torch.rand(40, 20, 1), torch.arange(20) % 3
    reaches = [
        measure(model, x, y)["norms"]["c"]["reach"] for label, model in untrained(8, 1, 3) if "forget_bias" in label
    ]
    assert reaches[0] < reaches[1] < reaches[2]


def test_gradients_too_small_for_float32_are_still_measured():
    model = untrained(6, 1, 3)[0][1]
    assert 0 < measure(model, torch.zeros(300, 1, 1), torch.tensor([0]))["norms"]["s"]["median"][0] < 1e-60


def test_pixels_come_in_reading_order():
    pictures = torch.arange(12.0).view(2, 2, 3)  # T = 2 rows of 2 pictures, 3 columns
    assert by_pixels(pictures)[:, 0, 0].tolist() == [0, 1, 2, 6, 7, 8]


def test_two_directions_are_refused():
    with pytest.raises(InputError, match="one direction"):
        gradient_norms(model_of("lstm", bidirectional=True), torch.zeros(2, 1, 3), torch.tensor([0]))


def test_the_command_measures_runs_and_writes_figure_and_numbers(tmp_path: Path):
    path = tmp_path / "rnn"
    recipe = load_recipe("rnn-sentences", {"epochs": 2})
    train(recipe, RunFolder.create(path, recipe, {}), echo=lambda line: None)
    done = CliRunner().invoke(cli, ["gradients", str(path), "--inputs", "2"], catch_exceptions=False)
    assert done.exit_code == 0
    curves = json.loads((path / "figures" / "gradients.json").read_text())
    assert [curve["trained"] for curve in curves[:2]] == [False, True]
    assert len(curves) == 8
    assert len(text_table(curves)) == 9
    assert (path / "figures" / "gradients.png").is_file()
    figure = draw_gradients(curves)
    assert any("‖∂loss/∂hₜ‖" in axes.get_ylabel() for axes in figure.axes)
    refused = CliRunner().invoke(cli, ["gradients", str(path), "--inputs", "0"])
    assert isinstance(refused.exception, InputError)


def test_the_command_says_where_there_are_fewer_inputs_than_asked(unroll, bars_run):
    status, _, err = unroll("gradients", bars_run, "--inputs", "99999999", "--no-pixels", "--out", "out")
    assert status == 0
    assert "unroll: measured on 60 test sequences, as there are no more of one length\n" in err
    status, _, err = unroll("gradients", bars_run, "--inputs", "60", "--no-pixels", "--out", "out")
    assert (status, "no more" in err) == (0, False)
