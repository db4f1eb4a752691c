"""What a script's tensors are, as values that can be handed over: leaves of a loss, calls behind it, arrays and lists."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from unroll.labs.child.graph import nodes_below


def leaves(loss: Tensor | None) -> list[Tensor]:
    """The leaves that a loss was computed from, and whose gradients its backward computes."""
    below = (getattr(node, "variable", None) for node in nodes_below([] if loss is None else [loss]))
    return list({id(leaf): leaf for leaf in below if isinstance(leaf, Tensor)}.values())


def behind(tape: list[dict[str, Any]], loss: Tensor) -> list[dict[str, Any]]:
    """The calls that a loss was computed by."""
    needed, found = {id(loss)}, []
    for call in reversed(tape):
        written = call["call"] in ("__setitem__",) or (call["call"].endswith("_") and not call["call"].endswith("__"))
        if call["id"] in needed or (written and needed.intersection(call["ids"][:1])):
            needed.update(call["ids"])
            found.append(call)
    return found[::-1]


def stacked(rows: list[dict[str, Any]], key: str) -> dict[str, Any]:
    """For each name an array with one row a pass, NaN where the pass has none or one of another shape."""
    found: dict[str, Any] = {}
    for name in sorted({name for row in rows for name in row[key]}):
        first = next(row[key][name] for row in rows if name in row[key])
        empty = np.full(first.shape, np.nan, first.dtype)
        parts = [row[key].get(name, empty) for row in rows]
        found[name] = np.stack([part if part.shape == first.shape else empty for part in parts])
    return found


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two sets of named arrays are equal."""
    return one.keys() == other.keys() and all(np.array_equal(one[n], other[n], equal_nan=True) for n in one)


def stop_of(outcome: dict[str, Any] | None) -> dict[str, Any] | None:
    """Why the execution ended before its last line; None where it did not."""
    for found in (outcome, (outcome or {}).get("error")):
        if isinstance(found, dict) and found.get("type"):
            return {"type": found["type"], "message": str(found.get("message", "")), "line": found.get("line")}
    if outcome and outcome.get("stopped"):
        return {"type": "TimeUp", "message": "the limit in time", "line": outcome.get("line")}
    return None


def array_of(tensor: Tensor) -> Any:
    """A tensor's values as a numpy array of their own, of 32 or 64 bits."""
    return tensor.detach().cpu().clone().to(torch.float64 if tensor.dtype == torch.float64 else torch.float32).numpy()


def list_of(tensor: Tensor) -> list[float]:
    """A tensor's values, flat; none of a complex one."""
    return [float(v) for v in tensor.detach().flatten().tolist()] if not tensor.is_complex() else []


def number_of(value: Any) -> float | None:
    """A value as a float; None where it is no number."""
    try:
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        return None
