"""Backpropagation through time by hand, against autograd, finite differences and a hand computation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from unroll.errors import InputError
from unroll.insight.bptt import (
    Parameters,
    autograd_gradient,
    backward,
    compare,
    forward,
    lines,
    parameters_of,
    update,
)
from unroll.models import SequenceClassifier


def random_parameters(H: int, D: int, C: int, seed: int = 0) -> Parameters:
    draw = np.random.default_rng(seed).normal
    return Parameters(draw(size=(H, H)), draw(size=(H, D)), draw(size=H), draw(size=(C, H)), draw(size=C))


@pytest.mark.parametrize(("H", "D", "C", "T"), [(2, 5, 2, 4), (1, 2, 2, 2), (7, 3, 4, 12)])
def test_every_gradient_agrees_with_autograd_to_1e_12(H: int, D: int, C: int, T: int) -> None:
    parameters = random_parameters(H, D, C, seed=T)
    words = np.random.default_rng(T).integers(D, size=T).tolist()
    walk = forward(parameters, np.eye(D)[words], C - 1)
    by_hand = backward(parameters, walk, C - 1)
    loss, by_autograd = autograd_gradient(parameters, words, C - 1)
    assert walk.loss == pytest.approx(loss, abs=1e-12)
    for (name, a), (_, b) in zip(by_hand.items(), by_autograd.items(), strict=True):
        assert a.shape == b.shape, name
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12, err_msg=name)
        assert np.abs(a).max() > 1e-6, f"a gradient of zero by {name} would prove nothing"


def test_every_gradient_agrees_with_finite_differences() -> None:
    parameters = random_parameters(3, 2, 2)
    x = [np.array([0.5, -1.0]), np.array([2.0, 0.1]), np.array([-0.3, 0.7])]  # no one-hot vectors this time
    gradient = backward(parameters, forward(parameters, x, 0), 0)
    epsilon = 1e-6
    for (name, value), (_, g) in zip(parameters.items(), gradient.items(), strict=True):
        for place in np.ndindex(value.shape):
            kept = value[place]
            value[place] = kept + epsilon
            above = forward(parameters, x, 0).loss
            value[place] = kept - epsilon
            below = forward(parameters, x, 0).loss
            value[place] = kept
            assert g[place] == pytest.approx((above - below) / (2 * epsilon), abs=1e-8), (name, place)


def test_two_steps_agree_with_a_computation_by_hand() -> None:
    one = Parameters(*(np.array(value) for value in ([[0.5]], [[1.0]], [0.0], [[1.0], [-1.0]], [0.0, 0.0])))
    walk = forward(one, [np.array([1.0]), np.array([0.0])], 0)
    s_1 = math.tanh(1.0)
    s_2 = math.tanh(0.5 * s_1)
    p_1 = 1 / (1 + math.exp(2 * s_2))
    assert [float(s[0]) for s in walk.s] == pytest.approx([0.0, s_1, s_2])
    assert walk.loss == pytest.approx(-math.log(1 - p_1))
    d_2 = -2 * p_1 * (1 - s_2**2)
    d_1 = 0.5 * d_2 * (1 - s_1**2)
    gradient = backward(one, walk, 0)
    assert gradient.W.item() == pytest.approx(d_2 * s_1)
    assert gradient.U.item() == pytest.approx(d_1)
    assert gradient.b.item() == pytest.approx(d_1 + d_2)


def test_large_logits_do_not_overflow() -> None:
    parameters = random_parameters(2, 2, 2)
    parameters.b_out[:] = [1000.0, -1000.0]
    assert forward(parameters, [np.eye(2)[0]], 0).loss == pytest.approx(0.0)


def test_the_update_goes_down_and_leaves_its_argument_alone() -> None:
    parameters = random_parameters(2, 5, 2)
    before = [value.copy() for _, value in parameters.items()]
    result = compare(parameters, [0, 1], 1, 0.05)
    assert result.loss_after < result.walk.loss
    assert all(np.array_equal(a, b) for a, (_, b) in zip(before, parameters.items(), strict=True))
    moved = update(parameters, result.by_hand, 0.05)
    assert np.array_equal(result.updated.W, moved.W)
    np.testing.assert_allclose(parameters.W - moved.W, 0.05 * result.by_hand.W, atol=1e-15)


def test_the_printed_lines_hold_both_gradients_and_their_difference() -> None:
    result = compare(random_parameters(2, 5, 2), [0, 1], 1, 0.1)
    text = "\n".join(lines(result, ["The", "movie"], "yes", 0.1))
    assert text.count(f"{result.by_hand.W_out[0, 0]:+.6f}") == 2
    assert "s_2 = (" in text
    assert f"{result.difference:.1e}" in text
    assert f"after p -= 0.1 * p.grad: {result.loss_after:.6f}" in text


def test_weights_are_taken_from_a_model_of_the_right_kind_only() -> None:
    model = SequenceClassifier("rnn", 5, 2, 2)
    taken = parameters_of(model)
    assert torch.equal(torch.from_numpy(taken.U).float(), model.layers.cells[0][0].U)
    for other in (
        SequenceClassifier("lstm", 5, 2, 2),
        SequenceClassifier("rnn", 5, 2, 2, num_layers=2),
        SequenceClassifier("rnn", 5, 2, 2, bidirectional=True),
        SequenceClassifier("rnn", 5, 2, 2, nonlinearity="relu"),
        SequenceClassifier("rnn", 5, 2, 2, embedding_size=3),
        SequenceClassifier("rnn", 5, 2, 2, pooling="mean"),
    ):
        with pytest.raises(InputError, match="written for one layer of a vanilla RNN"):
            parameters_of(other)
