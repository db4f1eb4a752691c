"""What the states hold and what clipping does, on sequences for which the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from evidence_measures import clipping, gate_use, knowing, last_states, recall

from unroll import LSTM, SequenceClassifier
from unroll.errors import InputError
from unroll.insight.trace import trace


def test_a_step_is_recalled_from_a_state_that_holds_it_and_from_no_other():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(3, 400, 2))
    states = np.concatenate([x[2] @ draw.normal(size=(2, 4)), 0.01 * draw.normal(size=(400, 2))], axis=1)
    shares = recall(states, x, penalty=1e-6)
    assert shares[2] > 0.999
    assert max(shares[:2]) < 0.05
    with pytest.raises(InputError, match="at least 4"):
        recall(states[:3], x[:, :3])


def test_recall_is_tested_on_sequences_that_it_was_not_fitted_on():
    draw = np.random.default_rng(1)
    x, states = draw.normal(size=(1, 40, 3)), draw.normal(size=(40, 19))
    assert recall(states, x, penalty=1e-9)[0] < 0


def test_knowing_counts_right_answers_step_by_step():
    p = np.array([[[0.9, 0.1], [0.8, 0.2]], [[0.3, 0.7], [0.6, 0.4]]])  # T = 2, N = 2, C = 2
    found = knowing(p, np.array([1, 0]))
    assert found["right"] == [0.5, 1.0]
    assert found["sure"] == pytest.approx([0.85, 0.65])
    assert found["decided"][1] == 1.5


def test_gate_use_is_what_the_gates_were():
    torch.manual_seed(0)
    layer = LSTM(2, 3)
    cell = layer.cells[0][0]
    with torch.no_grad():
        cell.W.zero_()
        cell.U.zero_()
        cell.b.copy_(torch.tensor([-9.0] * 3 + [2.0] * 3 + [1.0] * 3 + [9.0] * 3))
    ink = np.zeros((4, 5), dtype=bool)
    ink[1] = True
    found = gate_use(trace(layer, torch.randn(4, 5, 2)), ink)
    f = 1 / (1 + np.exp(-2.0))
    assert found["f"]["mean"] == pytest.approx(f, abs=1e-6)
    assert (found["i"]["closed"], found["o"]["open"], found["f"]["open"]) == (1, 1, 0)
    assert found["keeps"] == pytest.approx(1 / (1 - f), rel=1e-5)
    expected = f ** np.arange(3, -1, -1)
    np.testing.assert_allclose(found["left"], expected / expected.sum(), rtol=1e-5)
    assert found["f"]["ink"] == pytest.approx(found["f"]["blank"])


def test_what_is_left_at_the_end_is_what_was_written_times_every_forget_gate_since():
    torch.manual_seed(2)
    seen = trace(LSTM(2, 3), torch.randn(5, 4, 2))
    i, f, c_tilde = seen("i"), seen("f"), seen("c_tilde")
    expected = [np.mean(np.abs(i[t] * c_tilde[t]) * np.prod(f[t + 1 :], axis=0)) for t in range(5)]
    np.testing.assert_allclose(gate_use(seen)["left"], np.array(expected) / sum(expected), rtol=1e-5)


def test_the_last_states_are_those_the_readout_sees():
    torch.manual_seed(1)
    for cell in ("rnn", "lstm"):
        model, x = SequenceClassifier(cell, 3, 4, 2, num_layers=2).eval(), torch.randn(5, 6, 3)
        h = torch.from_numpy(last_states(model, x))
        torch.testing.assert_close(h @ model.W_out.T + model.b_out, model(x))


def test_clipping_reports_the_norm_before_it_clips_and_stops_where_the_loss_is_no_number():
    def build() -> SequenceClassifier:
        torch.manual_seed(0)
        return SequenceClassifier("rnn", 3, 5, 4)

    def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.ones(4, 2, 3) * (float("nan") if step == 3 else 1.0), torch.tensor([0, 1])

    clipped, free = (clipping(build, batch, 0.5, 6, norm) for norm in (1e-6, None))
    assert len(free["loss"]) == 4
    assert clipped["gradient_norm"][0] == pytest.approx(free["gradient_norm"][0])
    assert clipped["gradient_norm"][0] > 1e-3
    assert abs(clipped["loss"][1] - clipped["loss"][0]) < 1e-5 < abs(free["loss"][1] - free["loss"][0])
