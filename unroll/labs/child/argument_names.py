"""What an argument of a constructor is, by its name: a size of the network, or a setting."""

from __future__ import annotations

import inspect
import re
from typing import Any

ROWS = 28  # of a picture, and columns: many a student writes them as numbers
HIDDEN, CLASSES = 6, 10  # of a classifier that is looked at

_MEANINGS = (  # the first that fits
    ("layers", "^(?!.*hid).*layer|layers|depth"),
    ("dropout", "drop|^p$"),
    ("device", "device"),
    ("bias", "bias"),
    ("classes", "class|out|label|target|categor|^[CK]$|^n_?c$|^nc"),
    ("hidden", "(?i:hid|unit|state|rnn|lstm|cell_?size|n_?h$|^h$|^h_|^h_?dim|^nh)"),
    (
        "input",
        "(?i:in_?(size|dim)|input|feat|embed|vocab|col|width|^d$|^d_?in|^in$|^inp|^in_|^n_?in|n_?x$|^x|^nx)|^I$",
    ),
    ("rows", "seq|time|step|row|length|^T$"),
)
SETTINGS: dict[str, Any] = {
    "layers": 1,
    "dropout": 0.0,
    "device": "cpu",
    "bias": True,
    "classes": CLASSES,
    "rows": ROWS,
}
"""What is given where a class needs it, beside the sizes of the input and the state."""


def meaning_of(name: str) -> str | None:
    """A key of `SETTINGS`, ``hidden`` or ``input``; None where the name does not say.

    >>> meaning_of("hidden_size"), meaning_of("input_dim"), meaning_of("num_classes"), meaning_of("dropout"), meaning_of("a")
    ('hidden', 'input', 'classes', 'dropout', None)
    """
    return next((meaning for meaning, form in _MEANINGS if re.search(form, name)), None)


def init_arguments(kind: type) -> list[inspect.Parameter] | None:
    """The arguments that a class is made of, without self and what takes any; None where they cannot be told."""
    try:
        given = list(inspect.signature(kind.__init__).parameters.values())[1:]  # type: ignore[misc]
    except (TypeError, ValueError):
        return None
    return [one for one in given if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
