"""Backpropagation through time by hand, for the vanilla RNN: what autograd does, formula by formula.

Source: Werbos, "Backpropagation Through Time: What It Does and How to Do It", Proceedings of the IEEE 78(10), 1990; in
these letters Goodfellow, Bengio & Courville, "Deep Learning", 2016, eqs. 10.8-10.11 (forward) and 10.18-10.28
(backward).

One sequence at a time, one layer, one direction, in NumPy and float64: to be read, not to be fast. The column vectors
of the formulas are arrays with one axis. `np.outer(a, b)` is a bᵀ.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from unroll.data.sentences import SentenceEncoder
from unroll.errors import InputError
from unroll.models import SequenceClassifier, SequenceModel
from unroll.training.recipe import SentenceRecipe, load_recipe
from unroll.training.run import load
from unroll.training.tasks import first_model, load_dataset

Array = NDArray[np.float64]


@dataclass
class Parameters:
    """What is learnt, or the gradient of the loss by each; the shapes of both are the same."""

    W: Array  # (H, H)
    U: Array  # (H, D)
    b: Array  # (H,)
    W_out: Array  # (C, H)
    b_out: Array  # (C,)

    def items(self) -> list[tuple[str, Array]]:
        return list(vars(self).items())


class Walk(NamedTuple):
    """What the forward walk computes and the backward walk needs."""

    x: list[Array]  # x[t] (D,) is x_t; x[0] stands unused, so that the indices are those of the formulas
    s: list[Array]  # s[t] (H,) is s_t; s[0] is the initial state
    p: Array  # (C,)
    loss: float


def forward(parameters: Parameters, x: Iterable[Array], y: int) -> Walk:
    """From the first word to the loss.

        s_0 = 0
        s_t = tanh(W s_{t-1} + U x_t + b)          t = 1 … T
        p   = softmax(W_out s_T + b_out)
        loss = -log p_y

    Args:
        parameters: see `Parameters`.
        x: the T inputs x_1 … x_T, each (D,).
        y: the true class.
    """
    W, U, b = parameters.W, parameters.U, parameters.b
    x = [np.zeros(U.shape[1]), *x]
    s = [np.zeros(W.shape[0])]
    for t in range(1, len(x)):
        s.append(np.tanh(W @ s[t - 1] + U @ x[t] + b))
    logits = parameters.W_out @ s[-1] + parameters.b_out
    e = np.exp(logits - logits.max())  # the shift cancels out in p, and keeps exp from overflowing
    p = e / e.sum()
    return Walk(x, s, p, float(-np.log(p[y])))


def backward(parameters: Parameters, walk: Walk, y: int) -> Parameters:
    """From the loss back to the first word: the gradient of the loss by every parameter.

    Softmax and cross-entropy together have a simple derivative by the logits: what the model said minus what is true,

        δ_out = p - onehot(y)
        ∂loss/∂W_out = δ_out s_Tᵀ                ∂loss/∂b_out = δ_out

    With a_t = W s_{t-1} + U x_t + b, so that s_t = tanh(a_t) and tanh'(a_t) = 1 - s_t², let δ_t = ∂loss/∂a_t. The last
    state is seen by the readout alone, every other one by the step after it alone:

        δ_T = (W_outᵀ δ_out) ⊙ (1 - s_T²)
        δ_t = (Wᵀ δ_{t+1})   ⊙ (1 - s_t²)        t = T-1 … 1

    All steps use the same W, U and b, so their contributions add up:

        ∂loss/∂W = Σ_t δ_t s_{t-1}ᵀ     ∂loss/∂U = Σ_t δ_t x_tᵀ     ∂loss/∂b = Σ_t δ_t
    """
    x, s, T = walk.x, walk.s, len(walk.s) - 1
    gradient = Parameters(*(np.zeros_like(value) for _, value in parameters.items()))

    delta_out = walk.p - np.eye(len(walk.p))[y]
    gradient.W_out = np.outer(delta_out, s[T])
    gradient.b_out = delta_out

    by_s = parameters.W_out.T @ delta_out  # ∂loss/∂s_t, from the readout into the last state
    for t in range(T, 0, -1):
        delta = by_s * (1 - s[t] ** 2)
        gradient.W += np.outer(delta, s[t - 1])
        gradient.U += np.outer(delta, x[t])
        gradient.b += delta
        by_s = parameters.W.T @ delta  # into the state before
    return gradient


def update(parameters: Parameters, gradient: Parameters, learning_rate: float) -> Parameters:
    """p ← p - η ∂loss/∂p for every parameter: one step of gradient descent."""
    steps = zip(parameters.items(), gradient.items(), strict=True)
    return Parameters(*(p - learning_rate * g for (_, p), (_, g) in steps))


# ----------------------------------------------------------------------------------------------------- against autograd


def _weights(model: SequenceModel) -> list[nn.Parameter]:
    """In the order of `Parameters`."""
    cell: Any = model.layers.cells[0][0]
    return [cell.W, cell.U, cell.b, model.W_out, model.b_out]


def parameters_of(model: SequenceModel) -> Parameters:
    """The weights of a model, in float64.

    Raises:
        InputError: the model is not one layer of a vanilla RNN with tanh in one direction that reads its last state.
    """
    layers = model.layers
    plain = (
        getattr(layers.cells[0][0], "nonlinearity", None) == "tanh"
        and layers.num_layers == 1
        and layers.directions == 1
        and model.head.pooling == "last"
        and model.embedding is None
    )
    if not plain:
        raise InputError(
            "backpropagation by hand is written for one layer of a vanilla RNN (tanh, one direction, the readout on the"
            " last state, no embedding); expected a run such as that of rnn-sentences"
        )
    return Parameters(*(weight.detach().cpu().double().numpy().copy() for weight in _weights(model)))


def autograd_gradient(parameters: Parameters, words: list[int], y: int) -> tuple[float, Parameters]:
    """Loss and gradient for one sentence by torch's autograd, through the package's own model, in float64."""
    H, D = parameters.U.shape
    model = SequenceClassifier("rnn", D, H, len(parameters.b_out), engine="reference").double()
    for weight, (_, value) in zip(_weights(model), parameters.items(), strict=True):
        weight.data.copy_(torch.from_numpy(value))
    loss = nn.functional.cross_entropy(model(torch.tensor(words)[:, None]), torch.tensor([y]))
    loss.backward()
    return loss.item(), Parameters(*(weight.grad.numpy() for weight in _weights(model)))  # type: ignore[union-attr]


class Comparison(NamedTuple):
    """One sentence: both gradients, one update with the one made by hand, and the loss after it."""

    walk: Walk
    by_hand: Parameters
    by_autograd: Parameters
    updated: Parameters
    loss_after: float

    @property
    def difference(self) -> float:
        """The largest difference between any two numbers of the gradients."""
        pairs = zip(self.by_hand.items(), self.by_autograd.items(), strict=True)
        return max(float(np.abs(a - b).max()) for (_, a), (_, b) in pairs)


def compare(parameters: Parameters, words: list[int], y: int, learning_rate: float) -> Comparison:
    """Both gradients for one sentence of word indices, and one update."""
    x = list(np.eye(parameters.U.shape[1])[words])  # one-hot vectors
    walk = forward(parameters, x, y)
    by_hand = backward(parameters, walk, y)
    loss, by_autograd = autograd_gradient(parameters, words, y)
    assert abs(loss - walk.loss) < 1e-9
    updated = update(parameters, by_hand, learning_rate)
    return Comparison(walk, by_hand, by_autograd, updated, forward(updated, x, y).loss)


def lines(comparison: Comparison, words: list[str], label: str, learning_rate: float) -> list[str]:
    """A comparison as text: the walk, then every gradient by hand and by autograd side by side."""
    text = [f"Sentence: {words}  (class {label})", ""]
    for t, (s, word) in enumerate(zip(comparison.walk.s, ["(before the first word)", *words], strict=True)):
        text.append(f"  s_{t} = {_vector(s)}  {word}")
    text += [f"  p   = {_vector(comparison.walk.p, sign='')}", ""]
    for (name, a), (_, b) in zip(comparison.by_hand.items(), comparison.by_autograd.items(), strict=True):
        left, right = ["by hand", *_matrix(a)], ["autograd", *_matrix(b)]
        width = max(map(len, left))
        for row, (one, other) in enumerate(zip(left, right, strict=True)):
            head = f"∂loss/∂{name}" if row == 0 else ""
            text.append(f"  {head:14} {one:{width}}   {other}".rstrip())
    text += ["", f"  largest difference between the two: {comparison.difference:.1e}"]
    loss, after = comparison.walk.loss, comparison.loss_after
    return [*text, f"  loss {loss:.6f}; after p -= {learning_rate:g} * p.grad: {after:.6f}"]


def demonstrate(run: str | None = None) -> list[str]:
    """Backpropagation by hand beside autograd, for two training sentences one after the other.

    Args:
        run: a run folder, whose weights to begin with; None for the RNN lab's first weights.

    Raises:
        RunError: there is no such run.
        InputError: it is not one of sentences, or not of a plain vanilla RNN.
    """
    classifier = None if run is None else load(run)
    recipe = load_recipe("rnn-sentences") if classifier is None else classifier.recipe
    if not isinstance(recipe, SentenceRecipe):
        raise InputError(f"run {run} is about {recipe.task}; expected a run about sentences")
    parameters = None if classifier is None else parameters_of(classifier.model)  # before any data are read
    dataset = load_dataset(recipe)
    encoder, train = dataset.encoder, dataset.train
    parameters = parameters or parameters_of(first_model(recipe, encoder))
    beginning = "the first weights of rnn-sentences" if run is None else f"the weights of {run}"
    assert isinstance(encoder, SentenceEncoder)
    text = [f"Backpropagation through time, one sentence after the other, beginning with {beginning}.", ""]
    for n in range(min(2, len(train))):
        values, _ = train.take(torch.tensor([n]))
        y, rate = int(train.y[n]), recipe.learning_rate
        comparison = compare(parameters, values[0].tolist(), y, rate)
        parameters = comparison.updated
        text += [*lines(comparison, encoder.words_of(values[0]), encoder.class_names[y], rate), ""]
    return text[:-1]


LARGE = 8  # rows or columns beyond which a matrix is no longer shown number by number


def _vector(values: Array, sign: str = "+") -> str:
    shown = ", ".join(f"{value:{sign}.6f}" for value in values[:LARGE])
    return f"({shown}{', …' if len(values) > LARGE else ''})"


def _matrix(values: Array) -> list[str]:
    """One line for each row; a vector is a column, as in the formulas."""
    if max(values.shape) > LARGE:
        return [f"{' x '.join(map(str, values.shape))}, of norm {np.linalg.norm(values):.6f}"]
    rows = values if values.ndim == 2 else values[:, None]
    return [" ".join(f"{value:+.6f}" for value in row) for row in rows]
