"""The in-class lab's equations in plain numpy, and the ways in which a script can differ from them.

Everything is computed in float64 from the script's own values. Gradients are by complex steps: exact to the last digits, and for
any of the differences without a rule of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

STEP = 1e-30  # of a complex step: its square is nothing beside a value


@dataclass(frozen=True)
class How:
    """A way to compute the loss of one sentence; as it stands, the lab's.

    Attributes:
        recurrent, inputs, bias, out_bias: ``plus``, ``none`` or ``minus`` W s_{t-1}, U x_t, b and b_out.
        product: ``W``, or its transpose, or W_out in its place.
        activation: ``tanh``, ``none``, ``relu``, ``sigmoid``, or ``before b``: the bias is added after the tanh.
        start: what s_0 is: ``zeros``, ``kept`` from the sentence before, or ``seen``: what the script was seen to use.
        words: ``asked`` or ``seen``, or those of the lab in another number or order.
        read: which state the output is computed from.
        out: ``W_out``, or its transpose, or W in its place.
        squashed: what is done to the logits before the loss.
        target: ``label``, or another.
        detached: whether gradients stop at s_{t-1}.
    """

    recurrent: str = "plus"
    inputs: str = "plus"
    bias: str = "plus"
    product: str = "W"
    activation: str = "tanh"
    start: str = "zeros"
    words: str = "asked"
    read: str = "last"
    out: str = "W_out"
    out_bias: str = "plus"
    squashed: str = "none"
    target: str = "label"
    detached: str = "no"

    def differences(self) -> list[tuple[str, str]]:
        """What is not the lab's: names of attributes and their values."""
        return [(f.name, getattr(self, f.name)) for f in fields(self) if getattr(self, f.name) != f.default]


OPTIONS: dict[str, tuple[str, ...]] = {
    "words": ("seen", "reversed", "three", "without the first"),
    "recurrent": ("none", "minus"),
    "inputs": ("none", "minus"),
    "bias": ("none", "minus"),
    "product": ("transpose", "W_out"),
    "activation": ("none", "relu", "sigmoid", "before b"),
    "start": ("kept", "seen"),
    "read": ("one before", "mean", "first", "sum"),
    "out": ("transpose", "W"),
    "out_bias": ("none", "minus", "b"),
    "squashed": ("softmax", "sigmoid", "tanh", "relu", "no log"),
    "target": ("other", "zero", "one"),
    "detached": ("state",),
}


def ways(most: int) -> Iterator[How]:
    """The ways with up to `most` differences, those with fewer first."""
    for count in range(most + 1):
        for names in itertools.combinations(OPTIONS, count):
            for values in itertools.product(*(OPTIONS[name] for name in names)):
                yield replace(How(), **dict(zip(names, values, strict=True)))


def forward(roles: dict[str, Any], xs: Any, how: How, start: Any = None) -> tuple[list[Any], Any]:
    """States s_1 … s_T, each (P, n), and logits (P, 2) from P sets of parameters and the words (T, m) of one sentence.

    Args:
        roles: see `unroll.labs.judge.script_roles.as_roles`.
        start: s_0 (n,), where it is another than zeros.
    """
    W, U, b = roles["W"], roles["U"], roles["b"]
    if how.product == "transpose":
        W = np.swapaxes(W, 1, 2)
    elif how.product == "W_out" and W.shape == roles["W_out"].shape:
        W = roles["W_out"]
    words = {"reversed": xs[::-1], "three": xs[:-1], "without the first": xs[1:]}.get(how.words, xs)
    s = roles["s_0"] if start is None else roles["s_0"] + start
    signs = {"plus": 1.0, "none": 0.0, "minus": -1.0}
    states = []
    for x in words:
        before = s.real if how.detached == "state" else s
        total = signs[how.recurrent] * (W @ before[..., None])[..., 0] + signs[how.inputs] * (U @ x)
        if how.activation == "before b":
            s = np.tanh(total) + signs[how.bias] * b
        else:
            s = _activation(total + signs[how.bias] * b, how.activation)
        states.append(s)
    read = _read(states, how.read)
    W_out = roles["W_out"]
    if how.out == "transpose" and W_out.shape[1] == W_out.shape[2]:
        W_out = np.swapaxes(W_out, 1, 2)
    elif how.out == "W" and W_out.shape == roles["W"].shape:
        W_out = roles["W"]
    logits = (W_out @ read[..., None])[..., 0]
    logits = (
        logits + (b if b.shape[1] == 2 else np.nan)
        if how.out_bias == "b"
        else logits + signs[how.out_bias] * roles["b_out"]
    )
    if how.squashed == "softmax":
        logits = np.exp(logits - _logsum(logits)[:, None])
    elif how.squashed not in ("none", "no log"):
        logits = _activation(logits, how.squashed)
    return states, logits


def _activation(z: Any, name: str) -> Any:
    if name == "none":
        return z
    if name == "relu":
        return np.where(z.real > 0, z, 0)
    return 1 / (1 + np.exp(-z)) if name == "sigmoid" else np.tanh(z)


def _read(states: list[Any], which: str) -> Any:
    if which == "mean":
        return sum(states) / len(states)
    if which == "sum":
        return sum(states)
    return states[{"last": -1, "one before": max(-2, -len(states)), "first": 0}[which]]


def _logsum(z: Any) -> Any:
    top = z.real.max(axis=1)
    return top + np.log(np.exp(z - top[:, None]).sum(axis=1))


def loss_of(logits: Any, label: int, how: How = How()) -> Any:
    """Cross-entropy (P,) of logits (P, 2)."""
    target = {"other": 1 - label, "zero": 0, "one": 1}.get(how.target, label)
    if how.squashed == "no log":
        return -logits[:, target]
    return _logsum(logits) - logits[:, target]


def gradients(roles: dict[str, Any], xs: Any, label: int, how: How, start: Any = None) -> dict[str, Any]:
    """The loss's gradient with respect to each parameter.

    Args:
        roles: one set, P = 1.
    """
    sizes = {name: value[0].size for name, value in roles.items()}
    total = sum(sizes.values())
    flat = np.concatenate([roles[name][0].ravel() for name in sizes])
    grad = np.empty(total)
    for first in range(0, total, 256):
        rows = np.arange(first, min(first + 256, total))
        moved = np.tile(flat.astype(complex), (len(rows), 1))
        moved[np.arange(len(rows)), rows] += 1j * STEP
        at, parts = 0, {}
        for name, size in sizes.items():
            parts[name] = moved[:, at : at + size].reshape(len(rows), *roles[name].shape[1:])
            at += size
        grad[rows] = loss_of(forward(parts, xs, how, start)[1], label, how).imag / STEP
    at, found = 0, {}
    for name, size in sizes.items():
        found[name] = grad[at : at + size].reshape(roles[name].shape[1:])
        at += size
    return found
