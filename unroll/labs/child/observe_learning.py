"""Whether what a cell computes can be learnt: its gradients, and tensors that are no parameters."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from unroll.labs.child.call_cell import Made, deep_copy, random_rows, seed_cpu
from unroll.labs.child.find import OF_MODULES, Found, learnable
from unroll.labs.child.lines import described
from unroll.labs.child.tape import BUILT_IN, CUTS, DRAWS, Call, Tape, hanging


def once(made: Made, module: nn.Module, batch: int, seed: int = 21) -> list[Tensor]:
    """The outputs (B, H) for random rows."""
    with torch.no_grad():
        returned = made.form.call(module, *random_rows(made.form.D, made.form.H, batch, seed, made.dtype))
    return [rows for _, v in returned if (rows := made.form.rows(v, batch)) is not None]


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return len(one) == len(other) and all(
        torch.allclose(a, b, 1e-5, 1e-7, equal_nan=True) for a, b in zip(one, other, strict=True)
    )


def noise(made: Made) -> float:
    """How far a step is rounded: the second difference of its outputs over a step of 1e-6, relative to them.

    1e-15 in float64, about 1e-7 where float32 or complex64 come in between, whichever way.
    A kink of a ReLU hardly ever lies within the step.
    """
    given = random_rows(made.form.D, made.form.H, 1, 51, made.dtype)
    module = deep_copy(made.module)
    leaves = [*given, *(p for p in module.parameters() if p.is_floating_point())]
    start = [leaf.detach().clone() for leaf in leaves]
    results = []
    with torch.no_grad():
        for size in (-1e-6, 0.0, 1e-6):
            for leaf, value in zip(leaves, start, strict=True):
                leaf.copy_(value + size * (value + 1))
            torch.manual_seed(0)
            returned = made.form.call(deep_copy(module), *given)
            rows = [r.double() for _, v in returned if (r := made.form.rows(v, 1)) is not None]
            results.append(torch.cat(rows))
    low, middle, high = results
    return float((low + high - 2 * middle).abs().max() / (1 + middle.abs().max()))


def other_calls(tape: list[Call]) -> list[dict[str, Any]]:
    """What cuts gradients off, and what is built in."""
    return [
        {"function": call.function, "line": call.line, "text": call.text, "name": call.name}
        for call in tape
        if call.function in BUILT_IN or call.function in CUTS
    ]


def draws(tape: list[Call], many: int) -> list[dict[str, Any]]:
    """What draws random numbers; ``weights`` where it is no noise of `many` rows, but has the shape of a matrix of weights."""
    found = []
    for call in tape:
        if call.function in DRAWS:
            shape = () if call.value is None else tuple(call.value.shape)
            weights = len(shape) > 1 and min(shape) > 1 and many not in shape
            found.append({"function": call.function, "line": call.line, "text": call.text, "weights": weights})
    return found


def observe_gradients(made: Made, filename: str, fresh: bool = True) -> dict[str, Any]:
    """By leaf the derivative along a random direction, as autograd has it and as differences have it.

    ``none`` where autograd has none; ``used`` is whether the outputs change with the leaf at all.

    Args:
        fresh: call a new copy each time, as a cell needs that keeps something from call to call.
    """
    module, form = deep_copy(made.module), made.form
    double = made.double
    step = 1e-6 if double else 3e-3
    batch = 3 if form.layout != "flat" else 1
    try:
        once(made, deep_copy(module), batch)
    except Exception:
        batch = 1
    rows = dict(zip("xhc", random_rows(form.D, form.H, batch, 41, made.dtype), strict=True))
    leaves: dict[str, Tensor] = {**rows, **{f"parameter {n}": p for n, p in module.named_parameters()}}
    generator = torch.Generator().manual_seed(7)
    ways = {n: torch.randn(t.shape, generator=generator, dtype=torch.float64).to(made.dtype) for n, t in leaves.items()}
    weights: list[Tensor] = []

    def loss(returned: list[tuple[str, Any]]) -> Tensor:
        outputs = [r for _, v in returned if (r := form.rows(v, batch)) is not None]
        while len(weights) < len(outputs):
            weights.append(torch.randn(batch, form.H, generator=generator, dtype=torch.float64).to(made.dtype))
        return torch.stack([(a * w).sum() for a, w in zip(outputs, weights, strict=False)]).sum()

    def at(name: str, size: float) -> float:
        called = deep_copy(module) if fresh else module
        moved, there = dict(rows), leaves[name].detach().clone()
        with torch.no_grad():
            if name in rows:
                moved[name] = rows[name] + size * ways[name]
            else:
                changed = dict(called.named_parameters())[name.removeprefix("parameter ")]
                changed.add_(size * ways[name])
            seed_cpu(0)
            try:
                return float(loss(form.call(called, moved["x"], moved["h"], moved["c"])))
            finally:
                if name not in rows:
                    changed.copy_(there)

    numeric = {n: (at(n, step) - at(n, -step)) / (2 * step) for n in leaves}
    unmoved = at("x", 0.0)
    used = {n: abs(at(n, 0.3) - unmoved) > (1e-12 if double else 1e-6) for n in leaves}
    found: dict[str, Any] = {"used": used, "numeric": numeric, "double": double}
    inputs = {n: t.clone().requires_grad_() for n, t in rows.items()}
    try:
        with torch.enable_grad(), Tape(filename) as tape:
            seed_cpu(0)
            total = loss(form.call(module, *(inputs[n] * 1 for n in "xhc")))
        wanted = {n: t for n, t in {**leaves, **inputs}.items() if t.requires_grad}
        pieces: tuple[Tensor | None, ...]
        if total.requires_grad:
            pieces = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
        else:
            pieces = (None,) * len(wanted)  # there is no graph at all
    except Exception as error:
        found["error"] = described(error, filename, gap=True)
        return found
    got = dict(zip(wanted, pieces, strict=True))
    found["autograd"] = {n: None if (g := got.get(n)) is None else float((g * ways[n]).sum()) for n in leaves}
    calls = tape.finish()
    found["cuts"] = other_calls(calls)
    found["no_grad"] = next((call.line for call in calls if not call.grad and call.value is not None), None)
    return found


def observe_plain(found: Found, made: Made) -> list[dict[str, Any]]:
    """Tensors that the cell computes with and that no optimizer gets from ``parameters()``."""
    learnt: set[int] | None = None  # asked for where it is needed: it looks at all that is alive
    twins = {} if not found.cells else {path: twin for path, _, twin in _all_hanging(found.cells[0])}
    names: list[dict[str, Any]] = []
    registered = {p.untyped_storage().data_ptr() for p in made.module.parameters()}
    for path, buffer, tensor in _all_hanging(made.module):
        if tensor.untyped_storage().data_ptr() in registered or not _matters(made, tensor):
            continue
        if learnt is None and path in twins:
            learnt = _learnt()
        names.append(
            {
                "name": path,
                "buffer": buffer,
                "optimized": learnt is not None and path in twins and id(twins[path]) in learnt,
                "constant": bool((tensor == tensor.flatten()[0]).all() and tensor.flatten()[0] != 0),
                "shape": list(tensor.shape),
                "requires_grad": tensor.requires_grad,
            }
        )
    return names


def _learnt() -> set[int]:
    """The tensors of the optimizers that are alive: a file may make its own in a function."""
    optimizers = [o for o in gc.get_objects() if issubclass(type(o), torch.optim.Optimizer)]
    return {id(tensor) for o in optimizers for group in o.param_groups for tensor in group["params"]}


def _all_hanging(module: nn.Module) -> Iterator[tuple[str, bool, Tensor]]:
    """Path, whether it is a buffer, and tensor of all that hangs in a module and is no parameter of its parts."""
    for name, part in module.named_modules():
        if type(part).__module__.startswith("torch."):
            continue
        for key, value in [*vars(part).items(), *part._buffers.items()]:
            if key not in OF_MODULES:
                for path, tensor in hanging(value, f"{name}.{key}".lstrip(".")):
                    yield path, key in part._buffers, tensor


def observe_plain_class(found: Found) -> dict[str, Any] | None:
    """Of a cell that is no nn.Module whether an optimizer holds its tensors; ``optimized`` is None where that is not known."""
    if found.plain is None:
        return None
    own = [tensor for one in found.plain_seen for _, tensor in learnable(one)]
    learnt = _learnt() if own else set()
    return {"optimized": any(id(tensor) in learnt for tensor in own) if learnt else None}


def _matters(made: Made, tensor: Tensor) -> bool:
    """Whether the outputs change with a tensor."""
    kept = tensor.detach().clone()
    first = once(made, made.module, 1)
    try:
        with torch.no_grad():
            tensor.add_(torch.linspace(0.3, 0.7, tensor.numel(), dtype=tensor.dtype).reshape(tensor.shape))
        return not equal(first, once(made, made.module, 1))
    finally:
        with torch.no_grad():
            tensor.copy_(kept)
