"""A call of the cell that fails because of what it is given: which arguments came, and which the cell needs."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from unroll.labs.child.argument_names import HIDDEN, ROWS
from unroll.labs.child.call_cell import Form, deep_copy, forms, own_sizes, random_rows
from unroll.labs.child.cell_calls import CellCall
from unroll.labs.child.find import arguments


def wrong_call(found: Any, call: CellCall | None, batch: int, dtype: torch.dtype) -> dict[str, Any] | None:
    """Why a call that raised an exception could not work.

    Args:
        found: see `unroll.labs.child.find`.
        call: the first that failed.
        batch: how many pictures the classifier was given.

    Returns:
        ``line`` and ``text`` of the call, ``wrong``: name, what came and what is needed of each argument that does not fit, and
        ``sizes`` (batch, D, H); or, of a wrong number of arguments, ``came`` and ``takes``. None where the arguments fit, or the
        cell works with no arguments that could be tried: the call is not at fault then, as far as one can see.
    """
    form = None if call is None else _form_that_works(found, call.cell, batch, dtype)
    if call is None or form is None:
        return None
    about = {"line": call.line, "text": call.text, "sizes": [batch, form.D, form.H]}
    taken = [one for one in arguments(type(call.cell)) if one.default in (inspect.Parameter.empty, None)]
    if call.bound is None:
        every = [_described(one) for one in (*call.args, *call.kwargs.values())]
        return about | {"came": every, "takes": [one.name for one in taken]}
    state, x = (form.laid(torch.zeros(batch, n)) for n in (form.H, form.D))
    wrong = []
    for argument, role in zip(taken, form.roles, strict=False):
        value = call.bound.arguments.get(argument.name, argument.default)
        came, needed = _described(value), _described({"x": x, "h": state, "c": state}.get(role, (state, state)))
        if came != needed and value is not argument.default:
            wrong.append([argument.name, came, needed])
    return about | {"wrong": wrong} if wrong else None


def _form_that_works(found: Any, cell: nn.Module, batch: int, dtype: torch.dtype) -> Form | None:
    """How the cell itself can be called with a batch."""
    for sizes in dict.fromkeys([(ROWS, HIDDEN), *own_sizes(found, cell)]):
        for form in forms(found, *sizes):
            if form.layout == "flat":
                continue
            try:
                with torch.no_grad():
                    returned = form.call(deep_copy(cell), *random_rows(*sizes, batch, 5, dtype))
            except Exception:
                continue
            if any(form.rows(value, batch) is not None for _, value in returned):
                return form
    return None


def _described(value: Any) -> str:
    """The shape of a tensor, or what else it is."""
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {', '.join(map(_described, value[:4]))}"
    return "None" if value is None else f"of type {type(value).__name__}"
