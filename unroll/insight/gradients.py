"""Gradients through time: how much of the loss's gradient reaches each time step, and what a single step does to it.

    ∂loss/∂h_{t-1} = Jᵀ_t ∂loss/∂h_t        J_t = ∂h_t/∂h_{t-1}

Where the singular values of J_t stay below 1 the product of many of them vanishes, where they stay above 1 it explodes.

Sources: Hochreiter, "Untersuchungen zu dynamischen neuronalen Netzen", 1991; Bengio, Simard & Frasconi, "Learning
Long-Term Dependencies with Gradient Descent is Difficult", IEEE Transactions on Neural Networks 5(2), 1994; Pascanu,
Mikolov & Bengio, "On the difficulty of training recurrent neural networks", ICML 2013, eqs. 5-7. The LSTM's forget
bias: Gers, Schmidhuber & Cummins 2000; Jozefowicz, Zaremba & Sutskever 2015.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unroll.cells.base import Cell, State, joined, parts
from unroll.data.batches import Encoder, Sequences
from unroll.data.images import ImageEncoder
from unroll.engines import scan
from unroll.errors import InputError
from unroll.heads import pool
from unroll.models import SequenceClassifier, SequenceModel
from unroll.training.run import before_training, load
from unroll.training.tasks import load_test_part

Array = NDArray[Any]
Progress = Callable[[Iterable[Any]], Iterable[Any]]


def gradient_norms(model: SequenceModel, x: Tensor, y: Tensor) -> dict[str, Array]:
    """‖∂loss/∂h_t‖₂ and ‖∂loss/∂c_t‖₂ of an LSTM, ‖∂loss/∂s_t‖₂ of an RNN: every sequence, every step, top layer.

    The loss is the cross-entropy of each sequence by itself. h_t, c_t and s_t are taken as what step t hands on: every
    way counts by which they reach the loss through later steps and the readout. So ∂loss/∂c_t includes the way over
    h_t = o_t ⊙ tanh(c_t), and ∂loss/∂h_t holds c_t fixed.

    Args:
        model: one direction.
        x: (T, B, D) or (T, B) word indices.
        y: (B,) classes.

    Returns:
        Arrays (T, B) by name: h and c, or s.

    Raises:
        InputError: the model reads in two directions.
    """
    if model.layers.directions != 1:
        raise InputError("gradients through time are measured in one direction; this model reads in two")
    x, y = x.to(model.W_out.device), y.to(model.W_out.device)
    with torch.no_grad():
        top, x = _read_by_top(model, x)
    T, B = x.shape[:2]
    states: list[tuple[Tensor, ...]] = []
    for t in range(T):
        states.append(parts(top(x[t], joined(states[-1]) if states else top.initial_state(B))))
    outputs = [state[0] for state in states]
    read = pool(model.head.pooling, torch.stack(outputs), outputs[-1], None)
    loss = nn.functional.cross_entropy(read @ model.W_out.T + model.b_out, y, reduction="sum")
    everything = [part for each in zip(*states, strict=True) for part in each]
    gradients = torch.autograd.grad(loss, everything, allow_unused=True)
    norms = torch.stack([torch.zeros(B) if g is None else g.norm(dim=-1).cpu() for g in gradients]).double().numpy()
    return dict(zip(top.state_names, norms.reshape(-1, T, B), strict=True))


def _read_by_top(model: SequenceModel, x: Tensor) -> tuple[Any, Tensor]:
    """The top cell, and what it reads (T, B, D) where the model reads x."""
    if model.embedding is not None:
        x = nn.functional.embedding(x, model.embedding)
    *below, top = [cell for (cell,) in model.layers.cells]
    for cell in below:
        x = scan(cell, x, cell.initial_state(x.shape[1]))[0]
    return top, x


# ------------------------------------------------------------------------------------------------- one step's Jacobian


def jacobian(cell: Cell, x: Tensor, state: State) -> Tensor:
    """∂(state after)/∂(state before) of one step, for every sequence: (B, S, S) for states of S units in all.

    Of an LSTM rows are (h_t, c_t), columns (h_{t-1}, c_{t-1}).
    """
    sizes = list(cell.state_sizes)

    def step(x: Tensor, before: Tensor) -> Tensor:
        new = cell(x[None], joined([part[None] for part in before.split(sizes)]))
        return torch.cat(parts(new), -1)[0]

    found: Tensor = torch.func.vmap(torch.func.jacrev(step, argnums=1))(x, torch.cat(parts(state), -1))
    return found


@torch.no_grad()
def singular_values(model: SequenceModel, x: Tensor) -> dict[str, Any]:
    """Singular values of the step-to-step Jacobian of the top layer, at up to 28 of the T steps, spread evenly.

    The first step, which has no state before it, is none of them.

    Args:
        x: (T, B, D) or (T, B): a handful of sequences is enough, each (sequence, step) costs one decomposition.

    Returns:
        ``t``: the steps (counted from 1); ``largest``, ``second``, ``median``: for each of them the mean over the
        sequences of that singular value.
    """
    top, h = _read_by_top(model, x.to(model.W_out.device))
    T = len(h)
    wanted = np.unique(np.linspace(min(2, T), T, min(28, T)).round().astype(int))
    state = top.initial_state(x.shape[1])
    found = []
    for t in range(1, T + 1):
        if t in wanted:
            found.append(torch.linalg.svdvals(jacobian(top, h[t - 1], state)))
        state = top(h[t - 1], state)
    values = torch.stack(found).mean(1)  # (steps, S), the mean over the sequences
    return {
        "t": wanted.tolist(),
        "largest": values[:, 0].tolist(),
        "second": values[:, min(1, values.shape[1] - 1)].tolist(),
        "median": values.median(1).values.tolist(),
    }


# --------------------------------------------------------------------------------------------------------- measurement


def measure(model: SequenceModel, x: Tensor, y: Tensor) -> dict[str, Any]:
    """Gradient norms and singular values of one model, as plain numbers.

    Returns:
        ``inputs``, ``T`` and the steps ``t``; for h, c or s the ``median`` over the inputs at each step with the quarter below
        (``low``) and above (``high``); ``reach``: the median at step 1 divided by that at step T; ``jacobian``: see
        `singular_values`, over the first 8 of the inputs.
    """
    # In float64, for float32 ends at 1e-38 and 1e38: the gradients would be called 0 or infinite long before they are.
    model = copy.deepcopy(model).cpu().double()
    x = x.double() if x.is_floating_point() else x
    parts = [gradient_norms(model, xs, ys) for xs, ys in zip(x.split(100, 1), y.split(100), strict=True)]
    result: dict[str, Any] = {"inputs": len(y), "T": len(x), "t": list(range(1, len(x) + 1)), "norms": {}}
    for name in parts[0]:
        norms = np.concatenate([part[name] for part in parts], axis=1)  # (T, inputs)
        low, median, high = np.quantile(norms, [0.25, 0.5, 0.75], axis=1)
        reach = float(median[0] / median[-1]) if median[-1] > 0 else None
        curves = {"median": median.tolist(), "low": low.tolist(), "high": high.tolist()}
        result["norms"][name] = {**curves, "reach": reach}
    result["jacobian"] = singular_values(model, x[:, :8])
    return result


def measure_runs(
    runs: Sequence[str | Path], inputs: int = 200, pixels: bool = True, progress: Progress = iter
) -> list[dict[str, Any]]:
    """Gradients through time of runs, untrained and trained, beside the other kind of cell of the same size.

    For each run the model as training began with it and as it is now; and untrained, once for each size, the vanilla
    RNN and the LSTM with a forget bias of 0, 1 and 3. Runs on pictures also get these untrained cells reading pixel by
    pixel.

    Args:
        runs: run folders, all of the same kind of data.
        inputs: test sequences of equal length to measure on.
        pixels: whether to read pictures pixel by pixel too, the slow part.
        progress: wraps the list of what is to be measured, for a progress bar.

    Returns:
        One dictionary a curve: ``label``, ``cell``, ``trained``, ``reading`` and what `measure` returns.

    Raises:
        InputError: a number below 1, or a run in two directions.
        RunError: a run holds no trained model.
    """
    if inputs < 1:
        raise InputError(f"inputs is {inputs}; expected at least 1, such as 200")
    wanted: list[tuple[dict[str, Any], SequenceModel, Tensor, Tensor]] = []
    sizes = set()
    for run in runs:
        classifier = load(run)
        recipe, encoder = classifier.recipe, classifier.encoder
        x, y = equally_long(load_test_part(recipe, encoder, None), encoder, inputs)
        name, reading = Path(run).name, "rows" if isinstance(encoder, ImageEncoder) else "steps"
        label = {"label": name, "cell": recipe.cell, "reading": reading}
        wanted.append(({**label, "trained": False}, before_training(run, classifier), x, y))
        wanted.append(({**label, "trained": True}, classifier.model, x, y))
        size = (recipe.hidden_size, x.shape[2] if x.is_floating_point() else encoder.input_size, len(y))
        if size in sizes:
            continue
        sizes.add(size)
        readings = [(reading, x, encoder.input_size)]
        if pixels and reading == "rows":
            readings.append(("pixels", by_pixels(x), 1))
        for reading, values, width in readings:
            for label, model in untrained(recipe.hidden_size, width, len(encoder.class_names), recipe.seed):
                wanted.append(({**label, "trained": False, "reading": reading}, model, values, y))
    return [{**label, **measure(model, x, y)} for label, model, x, y in progress(wanted)]


def untrained(
    hidden_size: int, input_size: int, num_classes: int, seed: int = 0
) -> list[tuple[dict[str, Any], SequenceModel]]:
    """Fresh models of one size: the RNN with small, orthogonal and large W, the LSTM with forget bias 0, 1, 3."""
    models: list[tuple[dict[str, Any], SequenceModel]] = []
    with torch.random.fork_rng(devices=[]):
        for cell, label, name, values in (
            ("rnn", "RNN, W = {:g} × orthogonal", "gain", (0.5, 1.0, 2.0)),
            ("lstm", "LSTM, forget bias {:g}", "forget_bias", (0.0, 1.0, 3.0)),
        ):
            for value in values:
                torch.manual_seed(seed)
                model = SequenceClassifier(cell, input_size, hidden_size, num_classes)
                model.initialise("orthogonal", value if cell == "lstm" else None)
                if cell == "rnn":
                    model.layers.cells[0][0].W.data.mul_(value)
                models.append(({"label": label.format(value), "cell": cell, name: value}, model))
    return models


def equally_long(test: Sequences, encoder: Encoder, count: int) -> tuple[Tensor, Tensor]:
    """The first `count` sequences of one length, the most frequent, as the model reads them: x (T, B, …), y (B,)."""
    index = torch.arange(len(test))
    if test.lengths is not None:
        index = index[test.lengths == test.lengths.mode().values]
    values, _ = test.take(index[:count])
    return encoder.features(values), test.y[index[:count]]


def by_pixels(x: Tensor) -> Tensor:
    """Pictures row by row (T, B, D) -> pixel by pixel (T·D, B, 1), in reading order."""
    return x.transpose(1, 2).flatten(0, 1)[:, :, None]


def text_table(curves: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The curves as cells of text: the norms at the first and the last step, and what one step does."""
    rows = [["model", "reads", "‖∂/∂h_1‖", "‖∂/∂h_T‖", "ratio", "largest σ"]]
    for curve in curves:
        norms = next(iter(curve["norms"].values()))
        name = curve["label"] + (", trained" if curve["trained"] else "")
        first = f"{norms['median'][0]:.1e}" if norms["median"][0] else "< 1e-300"
        ratio = f"{norms['reach']:.0e}" if norms["reach"] else "< 1e-300"
        largest = f"{np.mean(curve['jacobian']['largest']):.2f}"
        rows.append([name, f"{curve['T']} {curve['reading']}", first, f"{norms['median'][-1]:.1e}", ratio, largest])
    return rows
