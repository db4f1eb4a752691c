"""What a classifier's logits are of the state that they are made of: the output layer, or something before or after it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from unroll.labs.judge.classifier_codes import fault
from unroll.labs.problems import Problem

_NORMS = frozenset("layer_norm batch_norm instance_norm group_norm normalize rms_norm".split())  # noqa: SIM905
_ACTIVATIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "tanh": np.tanh,
    "ReLU": lambda x: np.maximum(x, 0),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
}


def _output(observed: dict[str, Any]) -> str:
    """What forward returns in training mode, told by values: rows that add to 1, or whose exponentials do."""
    training = observed["training"]
    values = training["logits"] if training.get("error") is None else observed["logits"]
    if values.ndim != 2 or values.shape[1] < 2 or not np.isfinite(values).all():
        return "logits"
    if (values > 0).all() and np.allclose(values.sum(1), 1, atol=1e-5):
        return "softmax"
    if (values < 0).all() and np.allclose(np.exp(values).sum(1), 1, atol=1e-5):
        return "log_softmax"
    return "logits"


def head_problems(observed: dict[str, Any], plain: bool) -> list[Problem]:
    """Problems of what stands between h_T and the logits.

    Args:
        plain: one cell, called once a row: its last output is h_T.
    """
    output = _output(observed)
    problems = _softmax(observed) if output == "softmax" else []
    if plain and output != "softmax":
        problems += _layer(observed, output)
    unused = observed["unused"]
    if plain and unused["of"] and len(unused["names"]) == unused["of"] and observed["head"]["uses"]:
        problems.append(
            fault(
                "output-layer-unused",
                observed["logits_line"] or observed["line"],
                f"The logits do not go through the output layer: no gradient reaches {', '.join(unused['names'][:3])}.",
                "logits",
            )
        )
    return problems


def _softmax(observed: dict[str, Any]) -> list[Problem]:
    """A remark: whether the training takes its logarithm, or does a softmax once more, is seen there."""
    return [
        fault(
            "softmax-seen",
            _line_of(observed, ("softmax",)) or observed["logits_line"] or observed["line"],
            "forward returns softmax(logits), the lab's the logits: nn.CrossEntropyLoss does the softmax itself.",
            "logits",
        )
    ]


def _layer(observed: dict[str, Any], output: str) -> list[Problem]:
    """Compare the logits with the output layer of h_T, where that layer is the only thing with weights."""
    head = observed["head"]
    W, b, states = head.get("W"), head.get("b"), head["states"]
    if W is None or not states or not head["uses"]:
        return []
    h = states[1][0]
    logits = head["logits"]
    last = max(m for m, _ in head["uses"])
    if h.shape[1] != W.shape[1] or logits.shape != (len(h), len(W)) or len({m for m, _ in head["uses"]}) != 1:
        return []
    which = 1 if last == len(observed["calls"]) - 1 else 0
    if last not in (0, len(observed["calls"]) - 1):
        return []
    place = head["uses"][0][1]
    if place >= len(states[which]):
        return []
    state = states[which][place]
    plain = state @ W.T + b

    def close(made: np.ndarray) -> bool:
        return np.allclose(made, logits, rtol=1e-4, atol=max(1e-7, 10 * observed["tolerance"]))

    logarithm = plain - np.log(np.exp(plain).sum(1, keepdims=True))
    if output == "logits" and close(np.exp(logarithm)):  # a softmax in evaluation alone
        return []
    if close(plain) or (output == "log_softmax" and close(logarithm)):
        return (
            []
            if head.get("bias", True)
            else [
                fault(
                    "output-without-bias",
                    observed["logits_line"],
                    "The output layer has no bias; the lab: W_out h_T + b_out.",
                    "logits",
                )
            ]
        )
    for name, function in _ACTIVATIONS.items():
        if close(function(state) @ W.T + b):
            line = _line_of(observed, (name.lower(),)) or observed["logits_line"]
            return [
                fault(
                    "head-activation",
                    line,
                    f"{name} stands between the state and the output layer; the lab: logits = W_out h_T + b_out.",
                    "logits",
                )
            ]
        if close(function(plain)):
            line = _line_of(observed, (name.lower(),)) or observed["logits_line"]
            why = "logits of 0 and below all become 0" if name == "ReLU" else "the logits can no longer become large"
            return [
                fault(
                    "logits-activation",
                    line,
                    f"{name} stands behind the output layer: {why}; the lab: logits = W_out h_T + b_out.",
                    "logits",
                )
            ]
    tail = {event[1] for event in observed["events"] if event[0] == len(observed["calls"])}
    if tail & _NORMS or any("Norm" in name for name in observed["modules"]) or observed["seeds"]["same"] is False:
        return []
    n = int(np.abs(plain - logits).max(1).argmax())
    return [
        fault(
            "head-unread",
            observed["logits_line"],
            f"The logits are not W_out h_T + b_out; why could not be told (logit 0 of a picture: {plain[n, 0]:.4f} "
            f"by that equation, {logits[n, 0]:.4f} here).",
            "logits",
        )
    ]


def _line_of(observed: dict[str, Any], names: tuple[str, ...]) -> int | None:
    """The line behind the last call of the cell where one of these functions of torch is called last."""
    calls = len(observed["calls"])
    for before, name, line in reversed(observed["events"]):
        if before == calls and name in names:
            return int(line) if line is not None else None
    return None
