"""Unroll: recurrent networks written out from their equations."""

from __future__ import annotations

import importlib
import os

__version__ = "0.1.0"

# torch's threads wait for each other by spinning, for milliseconds unless told otherwise. That gains nothing measurable, and
# when something else runs on the same cores it makes everything many times slower (docs/log.md). Read when torch loads.
os.environ.setdefault("GOMP_SPINCOUNT", "5000")

# Looked up when first used: `unroll --help` shall not wait for torch.
_PUBLIC = {
    "RNN": "unroll.layers",
    "LSTM": "unroll.layers",
    "GRU": "unroll.layers",
    "Recurrent": "unroll.layers",
    "RNNCell": "unroll.cells",
    "LSTMCell": "unroll.cells",
    "GRUCell": "unroll.cells",
    "SequenceClassifier": "unroll.models",
    "as_cell": "unroll.cells",
    "load": "unroll.training.run",
    "trace": "unroll.insight.trace",
}

_MODULES = ("cells", "engines", "equations")

TYPE_CHECKING = False  # as type checkers know it; importing `typing` is most of what this file would take
if TYPE_CHECKING:
    from typing import Any

    from unroll import cells as cells
    from unroll import engines as engines
    from unroll import equations as equations
    from unroll.cells import GRUCell as GRUCell
    from unroll.cells import LSTMCell as LSTMCell
    from unroll.cells import RNNCell as RNNCell
    from unroll.cells import as_cell as as_cell
    from unroll.insight.trace import trace as trace
    from unroll.layers import GRU as GRU
    from unroll.layers import LSTM as LSTM
    from unroll.layers import RNN as RNN
    from unroll.layers import Recurrent as Recurrent
    from unroll.models import SequenceClassifier as SequenceClassifier
    from unroll.training.run import load as load


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"unroll.{name}")
    raise AttributeError(f"module 'unroll' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC, *_MODULES])
