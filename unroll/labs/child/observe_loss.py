"""What a loss was given: logits, probabilities or log-probabilities, and of which call of the model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def facts_of(given: Tensor, values: NDArray[np.float64]) -> dict[str, Any]:
    """What the numbers that a loss was given, (batch, classes), look like, as JSON values."""
    return {
        "rows": len(values),
        "row": [float(v) for v in values[0]] if len(values) else [],
        "sums_to_one": bool((values >= -1e-6).all() and np.allclose(values.sum(1), 1, atol=1e-3)),
        "log_probabilities": bool(np.allclose(np.logaddexp.reduce(values, axis=1), 0, atol=1e-2)),
        "sigmoid": _made_by(given, "Sigmoid") and bool(((values >= 0) & (values <= 1)).all()),
    }


def form_of(
    given: Tensor, values: NDArray[np.float64], outputs: Iterable[tuple[int, Tensor]]
) -> tuple[int | None, str]:
    """Which of a model's outputs (event, logits), the last one first, a loss's input comes from, and as what."""
    for at, output in outputs:
        if given is output:
            return at, "same"
        if output.shape != given.shape:
            continue
        raw = output.detach().double().cpu().numpy()
        logs = raw - np.logaddexp.reduce(raw, axis=1, keepdims=True)
        for form, made in (
            ("same", raw),
            ("log_softmax", logs),
            ("softmax", np.exp(logs)),
            ("sigmoid", 0.5 * (1 + np.tanh(raw / 2))),
        ):
            if np.allclose(values, made, atol=1e-5):
                return at, form
    return None, "unknown"


def _made_by(tensor: Tensor, name: str) -> bool:
    """Whether a tensor is what this function returned, in another shape at most."""
    node = tensor.grad_fn
    while node is not None and any(word in node.name() for word in ("View", "Reshape", "Squeeze")):
        node = node.next_functions[0][0] if node.next_functions else None
    return node is not None and node.name().startswith(name)
