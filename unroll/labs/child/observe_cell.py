"""What a student's cell does: calls it on rows that are chosen to tell its equations, and records everything as data."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from unroll.labs.child.argument_names import init_arguments
from unroll.labs.child.call_cell import (
    SMALL,
    WITNESS,
    Form,
    Made,
    constructed,
    deep_copy,
    drawn,
    forms,
    own_sizes,
    random_rows,
    seed_cpu,
    settled,
)
from unroll.labs.child.find import LSTM, Found, arguments, is_empty, step_roles
from unroll.labs.child.lines import described
from unroll.labs.child.observe_learning import (
    draws,
    equal,
    noise,
    observe_gradients,
    observe_plain,
    observe_plain_class,
    once,
    other_calls,
)
from unroll.labs.child.tape import Call, Tape, tensors
from unroll.labs.judge.cell import judge_cell

LEVELS = 3  # values of c for every x and h
EXTRA = 8  # rows beyond those that an affine map needs
WIDEST = 8  # times H, of a value that is kept


def observe_cell(found: Found, filename: str) -> dict[str, Any]:
    """What `unroll.labs.judge.cell` needs to know of a cell.

    The cell is made with 5 inputs and 7 units. Where that one is not right, and an instance of another size was seen while the
    file ran, that one is looked at too, for a file may name its own sizes; it stands where it is right.

    Args:
        found: the class, and its instances.
        filename: of the author's code, for lines.

    Returns:
        names, the recorded ``run``, and what two calls, gradients and batches showed; only data. Of another lab's key, which is
        not here, ``looks``: the same in each way of making and calling the cell.
    """
    if found.cell is None:
        return {"found": False, "reason": found.reason, "unclear": found.unclear, "step": found.step}
    with _as_it_was(), warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if found.wanted != LSTM:
            return _looks(found, filename)
        seen = _observe(found, filename)
        pair = "hc" in (step_roles(found.cell) or [])
        for own, flip in ((True, False), (False, True), (True, True)):
            if (own and not found.cells) or (flip and not pair) or not judge_cell(seen, remarks=False):
                continue
            other = _observe(found, filename, own, flip)
            if "run" in other and ("run" not in seen or not judge_cell(other, remarks=False)):
                seen = other
    return seen


def _looks(found: Found, filename: str) -> dict[str, Any]:
    """Every look at a cell that may be the one to judge: of small sizes, else as it was seen; a pair of states in both orders."""
    assert found.cell is not None
    pair = "hc" in (step_roles(found.cell, found.wanted.states) or [])
    looks: list[dict[str, Any]] = []
    for flip in (False, True) if pair else (False,):
        seen = _observe(found, filename, flip=flip)
        if "run" not in seen and found.cells:
            own = _observe(found, filename, own=True, flip=flip)
            seen = own if "run" in own else seen
        looks.append(seen)
    return looks[0] | {"looks": looks}


@contextmanager
def _as_it_was() -> Iterator[None]:
    before, random, grad = torch.get_default_dtype(), torch.get_rng_state(), torch.is_grad_enabled()
    try:
        yield
    finally:
        torch.set_default_dtype(before)
        torch.set_rng_state(random)
        torch.set_grad_enabled(grad)


def _observe(found: Found, filename: str, own: bool = False, flip: bool = False) -> dict[str, Any]:
    assert found.cell is not None
    code = getattr(found.cell.forward, "__code__", None)
    data: dict[str, Any] = {
        "found": True,
        "name": found.cell.__name__,
        "line": getattr(code, "co_firstlineno", None),
        "lines": [code.co_firstlineno, max(n for *_, n in code.co_lines() if n)] if code else [0, 0],
        "empty": is_empty(found.cell),
        "plain_class": observe_plain_class(found),
        "classifier": None,
    }
    with suppress(Exception):
        data["classifier"] = _run_classifier(found, filename)
    try:
        made = _copied(found, flip) if own else _made(found, SMALL, flip)
    except _FailedError as failed:
        return data | {"error": failed.data(filename) | {"needs": _needs(found.cell)}}
    except Exception as error:  # a module that is unlike all others in what makes it one
        return data | {"error": _FailedError("look", error).data(filename) | {"needs": 0}}
    data["sizes"] = [made.form.D, made.form.H]
    data["layout"], data["roles"] = made.form.layout, list(made.form.roles)
    with suppress(Exception):  # of a cell that refuses a batch of one
        made.noise = noise(made)
    stages: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("repeated", lambda: _repeat(made)),
        ("run", lambda: _record(made, filename, "repeated" in data and data["repeated"]["leaks"], _rows(found, made))),
        ("batch", lambda: _batch(made, filename)),
        ("gradients", lambda: observe_gradients(made, filename, _keeps(data.get("repeated")))),
        ("plain", lambda: observe_plain(found, made)),
        ("formula", lambda: _formula(made)),
    )
    for key, stage in stages:
        try:
            data[key] = stage()
        except Exception as error:
            data.setdefault("failed", {})[key] = described(error, filename, gap=True)
    if not own and "run" in data:
        data["witness"] = _witness(found, made, data, filename)
    return data


def _rows(found: Found, made: Made) -> int | None:
    """How many rows tell any cell of a key apart, each of whose equations may have weights for x, two rows of h and c."""
    return None if found.wanted == LSTM else 2 * (1 + made.form.D + made.form.H) + EXTRA


def _needs(kind: type[nn.Module]) -> int:
    """How many arguments a class cannot be made without."""
    return sum(one.default is one.empty for one in init_arguments(kind) or [])


class _FailedError(Exception):
    """A cell that cannot be made or called."""

    def __init__(self, stage: str, error: BaseException, sizes: tuple[int, int] | None = None) -> None:
        super().__init__(stage)
        self.stage, self.error, self.sizes = stage, error, sizes

    def data(self, filename: str) -> dict[str, Any]:
        return {"stage": self.stage, "sizes": self.sizes, **described(self.error, filename, gap=True)}


# --- making one ---


def _made(found: Found, sizes: tuple[int, int], flip: bool) -> Made:
    """A cell of one's own sizes, in float64, or float32 where it insists.

    Raises:
        _FailedError: the author's code raised something.
    """
    assert found.cell is not None
    first: _FailedError | None = None
    for dtype in (torch.float64, torch.float32):
        torch.set_default_dtype(dtype)
        try:
            text, module = constructed(found.cell, *sizes)
        except Exception as error:
            raise first or _FailedError("construct", error, sizes) from None
        module = drawn(module, dtype)
        ways = forms(found, *sizes)
        if not ways:
            raise _FailedError(
                "signature", TypeError("forward takes " + ", ".join(a.name for a in arguments(found.cell)))
            )
        pairs = [sizes, *(pair for pair in own_sizes(found, module) if pair != sizes)]
        for pair in pairs if first is None else pairs[:1]:
            for form in forms(found, *pair, flip):
                try:
                    _try(module, form, dtype)
                except Exception as error:
                    first = first or _FailedError("forward", error, sizes)
                    continue
                return Made(settled(module, form, dtype), text, form, dtype)
    assert first is not None
    raise first


def _copied(found: Found, flip: bool) -> Made:
    """A copy of an instance that was seen, with its own sizes.

    Raises:
        _FailedError: none of the sizes that it may have fits.
    """
    first: _FailedError | None = None
    for dtype in (torch.float64, torch.float32):
        torch.set_default_dtype(dtype)
        module = drawn(deep_copy(found.cells[0]), dtype)
        for pair in own_sizes(found, module):
            for form in forms(found, *pair, flip):
                try:
                    _try(module, form, dtype)
                except Exception as error:
                    first = first or _FailedError("forward", error, pair)
                    continue
                return Made(module, None, form, dtype)
    raise first or _FailedError("forward", RuntimeError("its sizes are not known"))


def _try(module: nn.Module, form: Form, dtype: torch.dtype) -> None:
    """Call a copy once, on a batch of one, and on one of three where that fails. Raises whatever the author's code does."""
    first: Exception | None = None
    for batch in (1, 3) if form.layout != "flat" else (1,):
        try:
            with torch.no_grad():
                returned = form.call(deep_copy(module), *random_rows(form.D, form.H, batch, 5, dtype))
        except Exception as error:
            first = first or error
            continue
        if any(form.rows(value, batch) is not None for _, value in returned):
            return
        if [value for _, value in returned] == [None]:
            first = first or WrongShapeError("the cell returns nothing")
            continue
        shapes = [list(v.shape) if isinstance(v, Tensor) else type(v).__name__ for _, v in returned]
        wanted = list(form.laid(torch.zeros(batch, form.H)).shape)
        first = first or WrongShapeError(f"the cell returns {shapes} for a state of {wanted}")
    assert first is not None
    raise first


class WrongShapeError(Exception):
    """A cell returns nothing of the state's shape."""


# --- looking at it ---


def _record(made: Made, filename: str, fresh: bool, many: int | None = None) -> dict[str, Any]:
    """The outputs and every intermediate, for rows of all x, h and three c each.

    Each row is a call of its own, for then a value of any shape belongs to its row; all in one call where a batch of one is
    refused.
    """
    form, dtype = made.form, made.dtype
    many = many or 1 + form.D + form.H + EXTRA
    x, h, c = random_rows(form.D, form.H, many, 11, dtype)
    levels = torch.stack([c, c + 0.7 + c.abs(), c - 0.5 - 0.5 * c.abs()])
    if "c" not in "".join(form.roles):
        levels = levels[:1]
    rows = [(x[m : m + 1], h[m : m + 1], level[m : m + 1]) for level in levels for m in range(many)]
    tapes: list[list[Call]] = []
    outputs: list[list[tuple[str, Any]]] = []
    known = dict(made.module.named_parameters())
    try:
        for row in rows:
            module = deep_copy(made.module) if fresh else made.module
            with torch.no_grad(), Tape(filename, known) as tape:
                outputs.append(form.call(module, *row))
            tapes.append(tape.finish())
        whole = _aligned(form, tapes, outputs, len(rows))
    except Exception:
        every = [torch.cat([row[k] for row in rows]) for k in range(3)]
        with torch.no_grad(), Tape(filename, known) as tape:
            returned = form.call(deep_copy(made.module), *every)
        whole = _of_batch(form, tape.finish(), returned, len(rows))
    return {
        "x": x.double().numpy(),
        "h": h.double().numpy(),
        "c": levels.double().numpy(),
        "float32": not made.double,
        **whole,
    }


def _entry(call: Call, value: Any) -> dict[str, Any]:
    return {
        "function": call.function,
        "line": call.line,
        "name": call.name,
        "text": call.text,
        "parameters": sorted(call.parameters),
        "value": value,
    }


def _aligned(form: Form, tapes: list[list[Call]], outputs: list[list[tuple[str, Any]]], many: int) -> dict[str, Any]:
    first = tapes[0]
    same = all(
        len(tape) == len(first) and all(a.function == b.function for a, b in zip(tape, first, strict=True))
        for tape in tapes
    )
    entries = []
    for n, call in enumerate(first if same else []):
        values = [tape[n].value for tape in tapes]
        if any(v is None or v.shape != values[0].shape for v in values):  # type: ignore[union-attr]
            continue
        width = values[0].numel()  # type: ignore[union-attr]
        if width % form.H == 0 and 0 < width <= WIDEST * form.H:
            stacked = torch.stack([v.double().flatten() for v in values])  # type: ignore[union-attr]
            entries.append(_entry(call, stacked.numpy()))
    found = []
    anew = tapes[-1]  # what the first call draws, it may draw once for all
    for n, (path, _) in enumerate(outputs[0]):
        rows = [form.rows(returned[n][1], 1) if n < len(returned) else None for returned in outputs]
        if all(row is not None for row in rows):
            found.append({"path": path, "value": torch.cat(rows).double().numpy()})  # type: ignore[arg-type]
    return {
        "tape": entries,
        "calls": other_calls(first),
        "draws": draws(anew, 1),
        "outputs": found,
        "returned": [path for path, _ in outputs[0]],
    }


def _of_batch(form: Form, tape: list[Call], returned: list[tuple[str, Any]], many: int) -> dict[str, Any]:
    entries = []
    for call in tape:
        value = call.value
        if value is None or many not in value.shape:
            continue
        flat = value.movedim(list(value.shape).index(many), 0).reshape(many, -1)
        if flat.shape[1] % form.H == 0 and flat.shape[1] <= WIDEST * form.H:
            entries.append(_entry(call, flat.double().numpy()))
    found = []
    for path, value in returned:
        rows = form.rows(value, many)
        if rows is not None:
            found.append({"path": path, "value": rows.double().numpy()})
    return {
        "tape": entries,
        "calls": other_calls(tape),
        "draws": draws(tape, many),
        "outputs": found,
        "returned": [path for path, _ in returned],
    }


def _repeat(made: Made) -> dict[str, Any]:
    """Whether a cell that is called twice with the same gives the same."""
    batch = 1
    try:
        once(made, deep_copy(made.module), 1)
    except Exception:
        batch = 3
    module = deep_copy(made.module)
    before = _held(module)
    seed_cpu(0)
    first = once(made, module, batch)
    changed = sorted(key for key, value in _held(module).items() if not _same(before.get(key), value))
    once(made, module, batch, seed=22)  # something else between
    seed_cpu(0)
    third = once(made, module, batch)
    seed_cpu(1)
    other = once(made, deep_copy(made.module), batch)
    return {
        "leaks": not equal(first, third),
        "random": not equal(first, other),
        "changed": changed,
        "first": [t.double().numpy() for t in first],
        "again": [t.double().numpy() for t in third],
        "other": [t.double().numpy() for t in other],
    }


def _keeps(repeated: dict[str, Any] | None) -> bool:
    """Whether a cell may keep something from call to call."""
    return repeated is None or bool(repeated["leaks"] or repeated["changed"])


def _held(module: nn.Module) -> dict[str, Any]:
    """Plain tensors and numbers that hang in a module."""
    found: dict[str, Any] = {}
    for name, part in module.named_modules():
        for key, value in {**vars(part), **part._buffers}.items():
            if isinstance(value, Tensor):
                found[f"{name}.{key}".lstrip(".")] = value.detach().clone()
            elif isinstance(value, int | float | str | type(None)) or (
                isinstance(value, list | tuple) and len(value) < 50
            ):
                found[f"{name}.{key}".lstrip(".")] = len(value) if isinstance(value, list | tuple) else value
    return found


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(one, other)
    return type(one) is type(other) and bool(one == other)


def _batch(made: Made, filename: str) -> dict[str, Any]:
    """Whether a row of a batch comes out as it does alone, and whether it hangs on other rows."""
    form, batch = made.form, 4
    if form.layout == "flat":
        return {"runs": False}
    x, h, c = random_rows(form.D, form.H, batch, 31, made.dtype)

    def call(*rows: Tensor) -> list[Tensor]:
        with torch.no_grad():
            returned = form.call(deep_copy(made.module), *rows)
        return [r for _, v in returned if (r := form.rows(v, rows[0].shape[0])) is not None]

    try:
        whole = call(x, h, c)
    except Exception as error:
        return {"runs": False, "error": described(error, filename, gap=True)}
    other = call(*(torch.cat([v[:1], v[1:] * 0.5 + 1]) for v in (x, h, c)))
    mixed = [not torch.allclose(a[0], b[0], 1e-4, 1e-6) for a, b in zip(whole, other, strict=True)]
    found: dict[str, Any] = {"runs": True, "outputs": len(whole), "mixed": any(mixed)}
    if any(mixed):
        k = mixed.index(True)
        found["first"], found["changed"] = whole[k][0].double().numpy(), other[k][0].double().numpy()
    try:
        alone = [call(x[b : b + 1], h[b : b + 1], c[b : b + 1]) for b in range(batch)]
    except Exception:
        return found
    apart = [torch.cat([one[k] for one in alone]) for k in range(min(len(alone[0]), len(whole)))]
    found["differs"] = not equal(whole[: len(apart)], apart)
    found["alone"], found["together"] = apart[0][0].double().numpy(), whole[0][0].double().numpy()
    return found


# --- in its surroundings ---


def _run_classifier(found: Found, filename: str) -> dict[str, Any] | None:
    """How a classifier that was seen hands a cell's outputs on: by output number the argument that it comes back as."""
    if not found.classifiers or not found.cells:
        return None
    module = deep_copy(found.classifiers[0]).eval()
    inside = [part for part in module.modules() if type(part) is found.cell]
    steps: list[tuple[list[Tensor], list[Tensor]]] = []

    def keep(_: Any, given: Any, named: Any, returned: Any) -> None:
        steps.append((list(tensors((given, named))), list(tensors(returned))))

    for part in inside[:1]:
        part.register_forward_hook(keep, with_kwargs=True)
    torch.set_default_dtype(torch.float32)
    like = next((p.dtype for p in module.parameters()), torch.float32)
    error: dict[str, Any] | None = None
    for shape in ((2, 28, 28), (2, 1, 28, 28), (2, 784)):
        steps.clear()
        try:
            with torch.no_grad():
                module(torch.rand(shape, dtype=like))
        except Exception as failed:
            error = error or described(failed, filename, gap=True)
            continue
        return {"ok": True, "handed": _handed(steps), "steps": len(steps)}
    return {"ok": False, "error": error}


def _handed(steps: list[tuple[list[Tensor], list[Tensor]]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for (_, before), (given, _) in pairwise(steps):
        for n, output in enumerate(before):
            for k, argument in enumerate(given):
                if output is argument or (output.shape == argument.shape and torch.equal(output, argument)):
                    found[str(n)] = k
    return found


def _formula(made: Made) -> dict[str, Any]:
    """The step program as text, or why it cannot be read."""
    from unroll.cells.base import as_cell
    from unroll.equations.formulas import text
    from unroll.equations.program import UnreadableError
    from unroll.equations.read import read
    from unroll.errors import InputError

    torch.set_default_dtype(torch.float32)
    if made.form.layout != "row" or made.form.roles not in (("x", "h"), ("x", "h", "c"), ("x", "hc")):
        return {"text": None, "why": "its step does not take rows of a batch as x and its states"}
    module = deep_copy(made.module)
    for name, value in (("input_size", made.form.D), ("hidden_size", made.form.H)):
        if not hasattr(module, name):
            setattr(module, name, value)
    try:
        sizes = (made.form.H,) * (1 if made.form.roles == ("x", "h") else 2)
        cell = as_cell(module, sizes)
        if cell.input_size is None:
            cell.input_size = made.form.D
        return {"text": text(read(cell))}
    except (UnreadableError, InputError, ValueError) as why:
        return {"text": None, "why": str(why)}


# --- a witness ---


def _witness(found: Found, made: Made, data: dict[str, Any], filename: str) -> dict[str, Any] | None:
    """The same record of a cell of two inputs and two units, which a person can make in three lines."""
    if made.text is None or made.dtype is not torch.float64:
        return None
    assert found.cell is not None
    x, h, c = (torch.tensor([row], dtype=torch.float64) for row in ([0.5, -1.0], [1.0, 0.5], [2.0, -1.0]))
    try:
        torch.set_default_dtype(torch.float32)  # as a person would begin
        text, _ = constructed(found.cell, *WITNESS)
        form = replace(made.form, D=WITNESS[0], H=WITNESS[1])
        single = data["run"]["returned"] == [""]
        pair = [one["path"] for one in data["run"]["outputs"]] == ["0", "1"] and len(data["run"]["returned"]) == 2
        called = "h_t, c_t" if pair else "h_t" if single else "out"
        start = f"torch.manual_seed(0)\n{text}.double()\nfor p in cell.parameters(): torch.nn.init.normal_(p)"
        if found.plain is not None:  # it has no parameters() to draw anew
            start = f"torch.manual_seed(0)\ntorch.set_default_dtype(torch.float64)\n{text}"
        given = f"{start}\n{form.written(called, x, h, c, found.plain_call)}"
        space: dict[str, Any] = {**found.namespace, found.cell.__name__: found.cell, "torch": torch}
        with torch.enable_grad():
            exec(start, space)
            cell = deep_copy(space["cell"])
            exec(given, space)
        returned = [space["h_t"], space["c_t"]] if pair else list(tensors(space["h_t" if single else "out"]))
        run = _record(
            Made(cell.eval(), None, form, torch.float64, made.noise), filename, _keeps(data.get("repeated")), many=16
        )
    except Exception:
        return None
    got = [rows.detach().double().numpy() for v in returned if (rows := form.rows(v, 1)) is not None]
    return {"given": given, "run": run, "x": x.numpy(), "h": h.numpy(), "c": c.numpy(), "got": got}
