"""What a student's classifier does with its cell: runs on random pictures, told as data for `judge_classifier`.

Runs in the child process. The cell's outputs are cut out of the graph in one run, so that gradients say which of them each
later step and the logits read directly; other runs look for what is kept between calls, for rows of a batch that are mixed,
and for parameters that nothing reads.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import inspect
import io
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unroll.labs.child.argument_names import CLASSES, HIDDEN, ROWS
from unroll.labs.child.call_cell import forms, seed_cpu
from unroll.labs.child.cell_calls import CallRecorder, Roles, tensors_of
from unroll.labs.child.cell_facts import (
    B,
    Facts,
    Run,
    array_of,
    called_again,
    close,
    iterated,
    output_layer,
    outside_of,
    rows_of,
    without_extras,
)
from unroll.labs.child.find import required
from unroll.labs.child.lines import described, parsed
from unroll.labs.child.make_classifier import (
    FORMS,
    Made,
    candidates,
    default_dtype,
    in_mode,
    pictures,
)
from unroll.labs.child.wrong_call import wrong_call

# What ends a student's code: exit() in a forward is no reason to lose what else there is to see.
ENDS = (Exception, SystemExit)
LARGER = "for p in model.parameters(): p.data *= 5"  # a line of a witness


def observe_classifier(found: Any, filename: str, own: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the classifier computes, as nested dicts of plain values and NumPy arrays.

    Args:
        found: the class of the classifier, and its instances; see `unroll.labs.child.find`.
        filename: of the student's file, as its code objects have it.
        own: ``type`` and ``line`` of the exception in which the file's own run ended.

    Returns:
        ``{"status": "ok", …}``; ``{"status": "unread", "why": …}``; or ``{"status": "error", "type", "message", "line"}``. No
        exception of the student's code gets out of here.
    """
    if found.classifier is None and not found.classifiers:
        return {"status": "unread", "why": str(found.classifier_reason or "no classifier was found"), "line": None}
    seen = any(found.classifier is None or type(one) is found.classifier for one in found.classifiers)
    errors: list[dict[str, Any]] = []
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        for made in candidates(found):
            if isinstance(made, BaseException):
                errors.append({**described(made, filename), "where": "constructor"})
                continue
            for form in FORMS:
                try:
                    with default_dtype(made.dtype):
                        observed = _Observer(found, filename, made, form).observe()
                except ENDS as error:
                    observed = {"status": "error", **described(error, filename), "where": "observer"}
                if observed["status"] == "ok":
                    return observed
                errors.append(observed)
                fixed = _seen(_Observer(found, filename, made, form).batch_that_fits, None)
                if fixed is not None:
                    return {"status": "unread", "why": f"it takes batches of {fixed} pictures alone", "line": None}
    if not errors:
        return {"status": "unread", "why": "its constructor's arguments are not the lab's", "line": None}
    return {"status": "error", **_first_of(errors, own or {}), "seen": seen}


def _first_of(errors: list[dict[str, Any]], own: dict[str, Any]) -> dict[str, Any]:
    """The exception that says most: the one in which the file's own run ended (``own`` says whether it is that one), else that
    of the lab's own form of input, in the first way that the classifier was made."""
    same = [one for one in errors if all(one.get(key) == own.get(key, "") for key in ("type", "line"))]
    first = {"line": None, "type": "Error", "message": "", "where": "forward", **(same or errors)[0], "status": "error"}
    return first | {"own": bool(same)}


class _Observer:
    """One classifier, one type, one form of input."""

    def __init__(self, found: Any, filename: str, made: Made, form: str) -> None:
        self.found, self.kind, self.classifier = found, found.cell, found.classifier
        self.filename, self.made, self.form = filename, made, form
        self.roles: list[Roles] = []
        self.tolerance = 1e-9 if made.dtype == torch.float64 else 2e-5

    def observe(self) -> dict[str, Any]:
        x, other = pictures(B, 1, self.made.dtype), pictures(B, 2, self.made.dtype)
        model = self.made.fresh()
        first = self.run(model, x)
        if first.logits is None:
            call = _seen(lambda: wrong_call(self.found, first.record.failed, B, self.made.dtype), None)
            about = {"where": "forward", "returned": first.returned, "wrong_call": call}
            return {"status": "error", **(first.error or {}), **about}
        if self.form != "time first" and first.logits.shape[0] == ROWS and self._time_first_fits(x):
            return {"status": "error", "type": "Error", "message": "time comes first", "where": "form", "line": None}
        if self.form == "time first" and first.logits.shape[0] != B:
            return {"status": "error", "type": "Error", "message": "time comes second", "where": "form", "line": None}
        second, third = self.run(model, other), self.run(model, x)
        cut = self._cut(x)
        facts = Facts(cut, x, self.tolerance)
        self.roles = facts.roles
        rows = model if self.classifier is None else self.classifier
        logits = first.logits.detach()
        return {
            "status": "ok",
            "name": getattr(rows, "__name__", type(rows).__name__),
            "cell": getattr(self.kind, "__name__", None),
            "call": self.made.call,
            "line": _line_of_forward(model, self.filename),
            "form": self.form,
            "tolerance": self.tolerance,
            "B": B,
            "T": ROWS,
            "classes": CLASSES,
            "logits": array_of(logits),
            "logits_line": cut.record.line_of(cut.logits),
            "calls": facts.calls(),
            "cells": facts.cells(model, first, self.run(model, x).record.calls),
            "semantic": _seen(lambda: self._semantic(first), [None, None]),
            "head": {**facts.head(), **self._head()},
            "events": [list(event) for event in cut.record.events[-4000:]],
            "built_in": [list(one) for one in dict.fromkeys(first.record.built_in)],
            "modules": sorted({type(module).__name__ for module in model.modules()}),
            "again": self._again(first, second, third),
            "seeds": self._seeds(x, first),
            "mixed": _seen(lambda: self._mixed(x, logits), None),
            "depends": _seen(lambda: self._depends(x), None),
            "training": self._training(x),
            "unused": _seen(lambda: self._unused(x), {"names": [], "of": 0}),
            "expected": _seen(lambda: self._replayed(first, x), None),
            "own_loop": None if first.record.calls else _seen(lambda: self._own_loop(x), None),
            "witness": _seen(self._witness, None) or _seen(lambda: self._witness(LARGER), None),
            "witness_again": self._shown_again(logits, third),
            "witness_gradient": _seen(self._witness_gradient, None),
        }

    def run(self, model: nn.Module, x: Tensor, cut: bool = False, seed: int = 0) -> Run:
        """One forward in the mode that the model is in."""
        record = CallRecorder(self.kind, self.filename, cut)
        seed_cpu(seed)
        given = [FORMS[self.form](x), *self._states(model, len(x))]
        try:
            with record:
                out = model(*given)
        except ENDS as error:
            return Run(None, record, described(error, self.filename), "an exception")
        tensors = [one for one in tensors_of(out) if one.is_floating_point()]
        fitting = [one for one in tensors if one.dim() == 2 and one.shape[1] == CLASSES]
        logits = next(iter(fitting or tensors), None)
        returned = type(out).__name__ if logits is None else "a tensor"
        nothing = {"type": "None", "message": f"forward returned {returned}", "line": None}
        return Run(logits, record, nothing if logits is None else None, returned)

    def batch_that_fits(self) -> int | None:
        """The batch size among the file's own names, where forward runs with that one."""
        names = getattr(inspect.unwrap(type(self.made.fresh()).forward), "__globals__", {})
        sizes = {value for name, value in names.items() if "batch" in str(name).lower() and type(value) is int}
        for size in sorted(size for size in sizes if 0 < size <= 512 and size != B):
            with default_dtype(self.made.dtype):
                if self.run(self.made.fresh(), pictures(size, 1, self.made.dtype)).logits is not None:
                    return int(size)
        return None

    def _states(self, model: nn.Module, batch: int) -> list[Tensor]:
        """Zeros for what forward wants beside x: a student's loop may hand the first state in."""
        return [torch.zeros(batch, self.made.hidden or HIDDEN) for _ in required(type(model))[1:]]

    def _time_first_fits(self, x: Tensor) -> bool:
        run = _Observer.run(self._like("time first"), self.made.fresh(), x)
        return run.logits is not None and run.logits.shape[0] == B

    def _like(self, form: str) -> _Observer:
        other = object.__new__(_Observer)
        other.__dict__.update(self.__dict__, form=form)
        return other

    def _cut(self, x: Tensor, train: bool = False) -> Run:
        for given in (x.clone().requires_grad_(True), x):
            model = in_mode(self.made.fresh(), train)
            run = self.run(model, given.clone() if given.requires_grad else given, cut=True)
            if run.logits is not None:
                return run._replace(x=given if given.requires_grad else None)
        return self.run(in_mode(self.made.fresh(), train), x)

    def _again(self, first: Run, second: Run, third: Run) -> dict[str, Any]:
        """The same pictures after others: what is different was kept."""
        if third.logits is None or second.logits is None:
            failed = second if second.logits is None else third
            return {"same": None, "error": failed.error}
        last = second.record.calls[-1].out if second.record.calls else []
        begun = self._first_states(third)
        return {
            "same": close(first.logits, third.logits, self.tolerance),
            "from_last": any(close(a, b, self.tolerance) for a in begun for b in last),
            "inside_cell": _cell_keeps(first, third, self.tolerance),
            "reset": self._reset_by_hand(),
            "error": None,
        }

    def _first_states(self, run: Run) -> list[Tensor]:
        if not run.record.calls or not self.roles:
            return []
        given = run.record.calls[0].given
        return [given[k][2] for k in self.roles[0].states if k < len(given)]

    def _reset_by_hand(self) -> str | None:
        """A method of the classifier that sets a state and that other code of the file calls."""
        kind = self.classifier
        if kind is None:
            return None
        names = {
            name
            for name, value in vars(kind).items()
            if callable(value) and any(word in name.lower() for word in ("reset", "init", "zero", "clear"))
        } - {"__init__"}
        called = {
            node.func.attr
            for node in ast.walk(parsed(self.filename))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        }
        return min(names & called, default=None)

    def _seeds(self, x: Tensor, first: Run) -> dict[str, Any]:
        """The same pictures with another state of torch's generator."""
        other = self.run(self.made.fresh(), x, seed=99)
        if other.logits is None or first.logits is None:
            return {"same": None, "starts_differ": False}
        starts = zip(self._first_states(first), self._first_states(other), strict=False)
        return {
            "same": close(first.logits, other.logits, self.tolerance),
            "starts_differ": any(not close(a, b, self.tolerance) for a, b in starts),
        }

    def _mixed(self, x: Tensor, logits: Tensor) -> bool | None:
        """Whether the logits of a picture change when the others of its batch do."""
        if logits.dim() < 1 or logits.shape[0] != B:
            return None
        model = self.made.fresh()
        before = self.run(model, x).logits
        model = self.made.fresh()
        changed = x.clone()
        changed[1:] = pictures(B, 3, self.made.dtype)[1:]
        after = self.run(model, changed).logits
        if before is None or after is None or before.shape != after.shape:
            return None
        return not close(before[0], after[0], self.tolerance)

    def _depends(self, x: Tensor) -> dict[str, bool] | None:
        """Whether the logits, and their gradients, have to do with the cells that are called; None of cells without weights."""
        model = self.made.fresh()
        before = self.run(model, x)
        cells = list({id(p): p for call in before.record.calls for p in call.cell.parameters()}.values())
        if not cells or before.logits is None:
            return None
        gradient = before.logits.requires_grad and any(
            grad is not None and bool((grad != 0).any())
            for grad in torch.autograd.grad(before.logits.square().sum(), cells, allow_unused=True)
        )
        with torch.no_grad():
            for p in cells:
                p.mul_(1.5)
        after = self.run(model, x)
        return {"value": not close(before.logits, after.logits, self.tolerance), "gradient": bool(gradient)}

    def _training(self, x: Tensor) -> dict[str, Any]:
        """One forward in training mode, its outputs cut: which states carry gradients, and what the logits look like."""
        run = self._cut(x, train=True)
        if run.logits is None:
            return {"error": run.error}
        flags = [
            [bool(call.given[k][1].requires_grad) for k in roles.states if k < len(call.given)]
            for call, roles in zip(run.record.calls, self.roles, strict=False)
        ]
        return {
            "error": None,
            "carries": flags,
            "grad_on": all(call.grad for call in run.record.calls),
            "logits": array_of(run.logits.detach()),
            "logits_grad": run.logits.requires_grad,
        }

    def _unused(self, x: Tensor) -> dict[str, Any]:
        """Parameters that no gradient reaches, apart from those of a cell that was called."""
        model = in_mode(self.made.fresh(), True)
        run = self.run(model, x)
        cells = {id(p) for call in run.record.calls for p in call.cell.parameters()}
        outside = [(name, p) for name, p in model.named_parameters() if id(p) not in cells and p.requires_grad]
        if run.logits is None or not run.logits.requires_grad or not outside:
            return {"names": [], "of": len(outside)}
        weights = torch.randn(run.logits.shape)
        try:
            grads = torch.autograd.grad((run.logits * weights).sum(), [p for _, p in outside], allow_unused=True)
        except RuntimeError:
            return {"names": [], "of": len(outside)}
        names = [
            name for (name, _), grad in zip(outside, grads, strict=True) if grad is None or not bool((grad != 0).any())
        ]
        return {"names": names, "of": len(outside)}

    def _semantic(self, first: Run) -> list[int | None]:
        """Which part of the state is c, of those given and of those returned, told by what grows with a large number."""
        if not first.record.calls:
            return [None, None]
        call, roles = first.record.calls[0], self.roles[0]
        if len(roles.states) != 2 or len(call.out) != 2 or max(roles.states) >= len(call.given):
            return [None, None]
        large = []
        for k in roles.states:
            given = [
                torch.full_like(value, 40.0 if n == k else 0.0) if n in roles.states else value
                for n, (_, _, value) in enumerate(call.given)
            ]
            out = called_again(call, given)
            if out is None or len(out) != 2:
                return [None, None]
            large.append([float(one.abs().max()) > 4 for one in out])
        inward = [k for k in range(2) if any(large[k])]
        outward = [j for j in range(2) if large[0][j] or large[1][j]]
        return [inward[0], outward[0]] if len(inward) == len(outward) == 1 else [None, None]

    def _head(self) -> dict[str, Any]:
        """Outputs of the first and the last call beside the logits, over a larger batch; the output layer's weights."""
        model = self.made.fresh()
        hidden = self.made.hidden or HIDDEN
        x = pictures(min(hidden + 12, 300), 4, self.made.dtype)
        run = self.run(model, x)
        data: dict[str, Any] = {"states": [], "logits": None, "W": None, "b": None, "outside": 0}
        if run.logits is None or not run.record.calls:
            return data
        calls = run.record.calls
        outside = outside_of(model, [call.cell for call in calls])
        data["outside"] = len(outside)
        data["logits"] = array_of(run.logits.detach())
        rows = [[rows_of(one, len(x)) for one in call.out] for call in calls]
        known = [[one for one in call if one is not None] for call in rows]
        if all(len(a) == len(b) for a, b in zip(known, rows, strict=True)) and known[0] and known[-1]:
            data["states"] = [known[0], known[-1]]
            if len({tuple(one.shape for one in call) for call in known}) == 1:
                data["mean"] = [np.mean([call[j] for call in known], axis=0) for j in range(len(known[0]))]
            data["steps"] = len(calls)
        layer = output_layer(outside)
        if layer is not None:
            W, b = layer
            data["W"] = array_of(W)
            data["b"] = np.zeros(CLASSES) if b is None else array_of(b)
            data["bias"] = b is not None
        return data

    def _replayed(self, run: Run, x: Tensor) -> list[np.ndarray] | None:
        """The states (B, H) after all rows, read by the student's own cell from zeros, in the order that it returns them.

        None where the first call cannot be repeated.
        """
        states = self._steps(run, x)
        rows = [rows_of(one, len(x)) for one in states or []]
        return None if not rows or any(one is None for one in rows) else [one for one in rows if one is not None]

    def _steps(self, run: Run, x: Tensor, grad: bool = False) -> list[Tensor] | None:
        if not run.record.calls or not self.roles:
            return None
        call, roles = run.record.calls[0], self.roles[0]
        if roles.x is None or len(roles.states) != len(call.out) or max(roles.x, *roles.states) >= len(call.given):
            return None
        if roles.extras:
            without = without_extras(call, roles)
            if without is None:
                return None
            call, roles = without
        assert roles.x is not None
        value = call.given[roles.x][2]
        if value.numel() != len(x) * ROWS:
            return None
        turned = value.dim() == 2 and value.shape[0] == ROWS and value.shape[1] == len(x)
        states = [torch.zeros_like(call.given[k][2]) for k in roles.states]
        for t in range(ROWS):
            row = x[:, t].T if turned else x[:, t].reshape(value.shape)
            given = dict(zip(roles.states, states, strict=True)) | {roles.x: row}
            out = called_again(call, [given[k] for k in range(len(call.given))], grad)
            if out is None or [tuple(one.shape) for one in out] != [tuple(one.shape) for one in states]:
                return None
            states = out
        return states

    def _own_loop(self, x: Tensor) -> dict[str, bool] | None:
        """Compare a loop that does without calls of the cell with the classifier's own cell, called for row after row.

        Returns:
            Whether the gradients agree where the logits do; None where the logits do not, or could not be compared.
        """
        model = self.made.fresh()
        cells = [one for one in model.modules() if self.kind is not None and type(one) is self.kind]
        layer = output_layer(outside_of(model, cells))
        logits = self.run(model, x).logits
        if len(cells) != 1 or layer is None or logits is None or not logits.requires_grad:
            return None
        W, b = layer
        parameters = [p for p in model.parameters() if p.requires_grad]
        weights = torch.linspace(0.5, 1.5, logits.numel(), dtype=logits.dtype).reshape(logits.shape)
        for form in forms(self.found, ROWS, W.shape[1]) + forms(self.found, ROWS, W.shape[1], flip=True):
            for swapped in (False, True):
                try:
                    h = iterated(form, cells[0], x, swapped)
                except ENDS:
                    continue
                made = None if h is None else h @ W.T + (0 if b is None else b)
                if made is None:
                    continue
                kinds = made, made.log_softmax(1), made.softmax(1)
                like = next((one for one in kinds if close(one, logits, self.tolerance)), None)
                if like is None:
                    continue
                pairs = zip(
                    *(
                        torch.autograd.grad((one * weights).sum(), parameters, allow_unused=True, retain_graph=True)
                        for one in (like, logits)
                    ),
                    strict=True,
                )
                return {"gradients": all(p is q or close(p, q, 100 * self.tolerance) for p, q in pairs)}
        return None

    # --- lines that anybody can repeat: the generator seeded, the class made, a random picture -----------------------------

    def _lines(self, *more: str, x: str = "", T: int = ROWS) -> tuple[str, dict[str, Any]] | None:
        call = self.made.call
        if call is None or self.form not in ("rows", "image") or self.classifier is None:
            return None
        shape = f"2, 1, {T}, 28" if self.form == "image" else f"2, {T}, 28"
        lines = ["torch.manual_seed(0)", f"model = {call}.eval()", f"x = torch.rand({shape}{x})", *more]
        return "\n".join(lines), {self.classifier.__name__: self.classifier, "torch": torch}

    def _typed(self, text: str, space: dict[str, Any]) -> Any:
        """The value of the last line."""
        *lines, last = text.splitlines()
        with default_dtype(torch.float32):
            exec("\n".join(lines), space)
            return eval(last, space)

    def _witness(self, *more: str) -> dict[str, Any] | None:
        """Logits, and what they are by the lab's loop over the student's own cell, where four digits show that they differ."""
        made = self._lines(*more, "model(x)[0, :3]")
        if made is None:
            return None
        given, space = made
        record = CallRecorder(self.kind, self.filename)
        with record:
            got = self._typed(given, space)
        model, x = space["model"], space["x"].reshape(2, ROWS, ROWS)
        layer = output_layer(outside_of(model, [call.cell for call in record.calls]))
        states = self._replayed(Run(None, record, None, ""), x)
        if layer is None or not states or states[0].shape[1] != layer[0].shape[1]:
            return None
        W, b = layer
        expected = states[0] @ array_of(W).T + (0 if b is None else array_of(b))
        return _apart(given, array_of(got), expected[0, :3])

    def _shown_again(self, logits: Tensor, third: Run) -> dict[str, Any] | None:
        """Logits of the same pictures, twice, where they differ so that four digits show it."""
        if close(logits, third.logits, self.tolerance):
            return None
        # A small cell has forgotten after 28 rows what it began with. One row shows it, where the loop takes as many as
        # come; else larger weights may.
        for T, more in ((1, []), (ROWS, []), (ROWS, [LARGER])):
            made = self._lines(*more, "first = model(x)[0, :3]", "model(x)[0, :3]", T=T)
            got = None if made is None else _seen(functools.partial(self._typed, *made), None)
            if made is None or got is None:
                continue
            found = _apart(made[0], array_of(got), array_of(made[1]["first"]))
            if found is not None:
                return found
        return None

    def _witness_gradient(self) -> dict[str, Any] | None:
        """The gradient of a logit with respect to the last row but one, and the one by the student's own cell."""
        where = "0, 0, -2, :3" if self.form == "image" else "0, -2, :3"
        made = self._lines("model(x)[0, 0].backward()", f"x.grad[{where}]", x=", requires_grad=True")
        if made is None:
            return None
        given, space = made
        record = CallRecorder(self.kind, self.filename)
        with record:
            try:
                got = self._typed(given, space)
            except TypeError:  # x.grad is None
                if space["x"].grad is not None:
                    raise
                given, got = given.rpartition("\n")[0] + "\nx.grad", None
        model, x = space["model"], space["x"].detach().reshape(2, ROWS, ROWS).requires_grad_(True)
        layer = output_layer(outside_of(model, [call.cell for call in record.calls]))
        states = self._steps(Run(None, record, None, ""), x, grad=True)
        if layer is None or not states or states[0].shape != (2, layer[0].shape[1]):
            return None
        (grad,) = torch.autograd.grad((states[0] @ layer[0].T)[0, 0], [x])
        return {"given": given, "got": None if got is None else array_of(got), "expected": array_of(grad[0, -2, :3])}


def _apart(given: str, got: np.ndarray, expected: np.ndarray) -> dict[str, Any] | None:
    if np.allclose(got, expected, rtol=0, atol=1e-3):
        return None
    return {"given": given, "got": got, "expected": expected}


def _seen(look: Callable[[], Any], otherwise: Any) -> Any:
    """One thing to see; a failure of it loses nothing of the others."""
    try:
        return look()
    except ENDS:  # the student's objects may do anything
        return otherwise


def _cell_keeps(first: Run, third: Run, tolerance: float) -> bool:
    """Whether a cell gave something else for the same arguments."""
    for before, after in zip(first.record.calls, third.record.calls, strict=False):
        if len(before.given) != len(after.given):
            return False
        if all(close(a[2], b[2], tolerance) for a, b in zip(before.given, after.given, strict=True)):
            if any(not close(a, b, tolerance) for a, b in zip(before.out, after.out, strict=False)):
                return True
        else:
            return False
    return False


def _line_of_forward(model: nn.Module, filename: str) -> int | None:
    code = getattr(inspect.unwrap(type(model).forward), "__code__", None)
    return code.co_firstlineno if code is not None and code.co_filename == filename else None
