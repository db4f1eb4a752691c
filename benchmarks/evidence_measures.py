"""Measurements that only `evidence.py` makes: what the states hold, over many sequences, and what clipping does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import solve
from torch import Tensor, nn

from unroll.cells.base import parts
from unroll.errors import InputError
from unroll.insight.trace import Trace, decided
from unroll.models import SequenceModel
from unroll.optim import SGD

Array = NDArray[Any]


def knowing(p: Array, y: Array) -> dict[str, Any]:
    """When a model knows: p (T, N, C) after each step, y (N,).

    Returns:
        ``right``: for each step the share of sequences whose most probable class is the true one; ``sure``: the mean
        probability of the most probable class; ``decided``: quartiles of the step from which the answer stays the same.
    """
    last = [decided(p[:, n]) for n in range(p.shape[1])]
    return {
        "right": (p.argmax(-1) == y).mean(1).tolist(),
        "sure": p.max(-1).mean(1).tolist(),
        "decided": np.quantile(last, [0.25, 0.5, 0.75]).tolist(),
    }


def recall(states: Array, x: Array, penalty: float = 1.0) -> list[float]:
    """How well each input of a sequence can be read back from its last state by a linear map.

        R²_t = 1 - Σ‖x_t - A_t h_T - a_t‖² / Σ‖x_t - mean‖²

    A_t is fitted by ridge regression on the first half of the sequences, R² is measured on the second half.

    Args:
        states: h_T (N, H).
        x: (T, N, D).
        penalty: λ of the ridge, in units of the states' mean square.

    Returns:
        R²_1 … R²_T: 1 where x_t can be read off the state, 0 (or a little less) where nothing of it is left. NaN where
        the input never changes.
    """
    if len(states) < 4:
        raise InputError(f"recall got {len(states)} sequences; expected at least 4, to fit on half and test on half")
    half = len(states) // 2
    h = np.concatenate([states, np.ones((len(states), 1))], axis=1).astype(np.float64)
    fit, test = h[:half], h[half:]
    ridge = penalty * float((states**2).mean()) * np.eye(h.shape[1])
    A = solve(fit.T @ fit + ridge, fit.T @ np.concatenate(list(x[:, :half].astype(np.float64)), axis=1), assume_a="pos")
    guessed = np.split(test @ A, len(x), axis=1)
    shares = []
    for truth, guess in zip(x[:, half:].astype(np.float64), guessed, strict=True):
        total = float(((truth - truth.mean(0)) ** 2).sum())
        shares.append(1 - float(((truth - guess) ** 2).sum()) / total if total else float("nan"))
    return shares


def gate_use(trace: Trace, ink: Array | None = None) -> dict[str, Any]:
    """How an LSTM uses its gates, over all sequences, units and steps of a trace.

    Args:
        ink: (T, N) true where the step shows something; None: not told apart.

    Returns:
        For each of i, f, o: the ``mean``, the shares ``open`` (above 0.9) and ``closed`` (below 0.1), the mean
        ``by_step``, and with `ink` the means ``ink`` and ``blank``. ``keeps``: the median over the units of
        1/(1 - mean f), the steps in which a unit forgets all but 1/e. ``left``: for each
        step the share that it has in what is left at the end: |i_t c̃_t| times all later forget gates, over the sum.
    """
    result: dict[str, Any] = {}
    for name in ("i", "f", "o"):
        gate = trace(name)
        result[name] = {
            "mean": float(gate.mean()),
            "open": float((gate > 0.9).mean()),
            "closed": float((gate < 0.1).mean()),
            "by_step": gate.mean((1, 2)).tolist(),
        }
        if ink is not None:
            result[name] |= {"ink": float(gate[ink].mean()), "blank": float(gate[~ink].mean())}
    result["keeps"] = float(np.median(1 / (1 - trace("f").mean((0, 1)))))
    left = np.abs(trace("i") * trace("c_tilde"))  # what step t wrote
    left[:-1] *= np.cumprod(trace("f")[:0:-1], axis=0)[::-1]  # times all the forget gates after it
    result["left"] = (left.mean((1, 2)) / left.mean((1, 2)).sum()).tolist()
    return result


@torch.no_grad()
def last_states(model: SequenceModel, x: Tensor) -> Array:
    """h_T (s_T) of the top layer, (N, H); x (T, N, D), all of one length."""
    return np.asarray(parts(model.layers(x.to(model.W_out.device))[1])[0][-1].cpu())


def clipping(
    build: Callable[[], SequenceModel],
    batch: Callable[[int], tuple[Tensor, Tensor]],
    learning_rate: float,
    steps: int,
    max_norm: float | None,
) -> dict[str, Any]:
    """Train with plain gradient descent and keep the gradient's norm before clipping, and the loss, of every step.

        g <- g min(1, max_norm / ‖g‖)        Pascanu et al. 2013, algorithm 1

    Training ends early where the loss is no longer a number.
    """
    model = build()
    optimizer = SGD(model.parameters(), learning_rate, max_norm=max_norm)
    norms, losses = [], []
    for step in range(steps):
        x, y = batch(step)
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        norms.append(float(optimizer.step()))
        if not np.isfinite(losses[-1] + norms[-1]):
            break
    return {"max_norm": max_norm, "learning_rate": learning_rate, "gradient_norm": norms, "loss": losses}
