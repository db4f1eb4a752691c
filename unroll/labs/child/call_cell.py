"""Calls a student's cell in whatever form it is written: its arguments' order, rows or columns, what it returns."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from unroll.labs.child.argument_names import SETTINGS, init_arguments, meaning_of
from unroll.labs.child.find import Found, role_of, step_roles

SMALL = 5, 7  # D and H of the cell that is looked at
WITNESS = 2, 2
LAYOUTS = "row", "column", "flat"  # (B, D), (D, B), and (D,) for one sequence


@dataclass(frozen=True)
class Form:
    """How a cell is called.

    Attributes:
        roles: of the arguments: ``x``, ``h``, ``c``, or ``hc`` for a pair, ``ch`` for one of the other order.
        layout: see `LAYOUTS`.
        D, H: sizes.
    """

    roles: tuple[str, ...]
    layout: str
    D: int
    H: int

    def call(self, cell: nn.Module, x: Tensor, h: Tensor, c: Tensor) -> list[tuple[str, Any]]:
        """x (B, D), h and c (B, H) -> what the cell returns, flat, as pairs of a path such as ``1.0`` and a value."""
        given = {"x": self.laid(x), "h": self.laid(h), "c": self.laid(c)}
        pairs = {"hc": (given["h"], given["c"]), "ch": (given["c"], given["h"])}
        values = [pairs[role] if role in pairs else given[role] for role in self.roles]
        return list(_flat(cell(*values)))

    def laid(self, rows: Tensor) -> Tensor:
        """Rows (B, n) as the cell takes them, in memory of their own."""
        if self.layout == "column":
            return rows.T.clone(memory_format=torch.contiguous_format)
        return rows[0].clone() if self.layout == "flat" else rows.clone()

    def rows(self, value: Any, batch: int) -> Tensor | None:
        """What a cell returned as rows (B, H); None where it has not their size."""
        if not isinstance(value, Tensor) or value.numel() != batch * self.H:
            return None
        if batch == 1:
            return value.reshape(1, self.H)
        found = value.squeeze()
        if self.layout == "column":
            return found.T if tuple(found.shape) == (self.H, batch) else None
        return found if tuple(found.shape) == (batch, self.H) else None

    def written(self, called: str, x: Tensor, h: Tensor, c: Tensor, cell: str = "cell") -> str:
        """Python that makes the arguments and calls the cell, whose step is called as `cell` says."""
        told = "".join(self.roles)
        lines = [
            f"{name} = {_literal(self.laid(v))}"
            for name, v in (("x", x), ("h_prev", h), ("c_prev", c))
            if name[0] in told
        ]
        names = {"x": "x", "h": "h_prev", "c": "c_prev", "hc": "(h_prev, c_prev)", "ch": "(c_prev, h_prev)"}
        return "\n".join([*lines, f"{called} = {cell}({', '.join(names[role] for role in self.roles)})"])


def _literal(value: Tensor) -> str:
    return f"torch.tensor({value.tolist()}, dtype=torch.float64)"


def _flat(returned: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(returned, tuple | list):
        for n, one in enumerate(returned):
            yield from _flat(one, f"{path}.{n}" if path else str(n))
    elif isinstance(returned, Mapping):
        for key, one in returned.items():
            yield from _flat(one, f"{path}.{key}" if path else str(key))
    else:
        yield path, returned


def constructed(kind: type[nn.Module], D: int, H: int) -> tuple[str, nn.Module]:
    """A cell of these sizes, made by what its arguments are called, and the Python that makes it.

    Raises:
        Exception: whatever the author's code raises.
    """
    wanted = init_arguments(kind) or []
    values: dict[str, Any] = {}
    sizes = [D, H]
    for argument in wanted:
        size = {"hidden": H, "input": D}.get(meaning_of(argument.name) or "")
        if size in sizes:
            sizes.remove(size)
            values[argument.name] = size
        elif argument.default is inspect.Parameter.empty:
            values[argument.name] = _other(argument.name.lower(), sizes)
    shown = ", ".join(
        str(values[a.name])
        if a.kind is not inspect.Parameter.KEYWORD_ONLY and all(p.name in values for p in wanted[:k])
        else f"{a.name}={values[a.name]}"
        for k, a in enumerate(wanted)
        if a.name in values
    )
    text = f"cell = {kind.__name__}({shown})"
    space: dict[str, Any] = {kind.__name__: kind}
    exec(text, space)
    return text, space["cell"]


def _other(name: str, sizes: list[int]) -> Any:
    """What is given for an argument that is no size, or whose name does not say which: the next one, then."""
    if "batch" in name:
        return 4
    meaning = meaning_of(name)
    known = meaning in ("layers", "dropout", "device", "bias") or "class" in name  # what a cell puts out is its state
    return SETTINGS[meaning] if known and meaning is not None else sizes.pop(0) if sizes else 1


@dataclass
class Made:
    """A cell to look at.

    Attributes:
        module: in evaluation mode, on the CPU, of the author's own or random parameters.
        text: the Python that makes one; None of a copy.
        form: how it is called.
        dtype: of its numbers.
        noise: how far its results are from smooth, see `unroll.labs.child.observe_learning.noise`.
    """

    module: nn.Module
    text: str | None
    form: Form
    dtype: torch.dtype
    noise: float = 0.0

    @property
    def double(self) -> bool:
        """Whether the whole step is computed in float64."""
        return self.dtype is torch.float64 and self.noise < 1e-10


def drawn(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module with random parameters, so large that gates differ and so small that they are not saturated."""
    generator = torch.Generator().manual_seed(3)
    module = module.to(device="cpu", dtype=dtype).eval()
    with torch.no_grad():
        for p in module.parameters():
            if p.is_floating_point() and not is_lazy(p):
                scale = 0.9 / max(*p.shape[-2:], 4) ** 0.5 if p.dim() > 1 else 0.5
                p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) * scale)
    return module


def settled(module: nn.Module, form: Form, dtype: torch.dtype) -> nn.Module:
    """The module, after a first call where that call makes its parameters, as with nn.LazyLinear."""
    before = {name: None if is_lazy(p) else tuple(p.shape) for name, p in module.named_parameters()}
    called = deep_copy(module)
    for batch in (1, 3):
        try:
            with torch.no_grad():
                form.call(called, *random_rows(form.D, form.H, batch, 5, dtype))
            break
        except Exception:
            called = deep_copy(module)
    after = {name: None if is_lazy(p) else tuple(p.shape) for name, p in called.named_parameters()}
    return module if before == after else drawn(called, dtype)


def seed_cpu(seed: int) -> None:
    """As `torch.manual_seed` for what runs on the CPU; that one notes its caller's stack for each kind of device, slowly."""
    torch.default_generator.manual_seed(seed)


def random_rows(D: int, H: int, many: int, seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """x (many, D), h and c (many, H), whose c are not small."""
    generator = torch.Generator().manual_seed(seed)
    x, h, c = (torch.randn(many, n, generator=generator, dtype=torch.float64) for n in (D, H, H))
    return x.to(dtype), h.to(dtype), (c + 0.2 * c.sign()).to(dtype)


def forms(found: Found, D: int, H: int, flip: bool = False) -> list[Form]:
    """The ways to call a cell of these sizes, the likeliest first.

    Args:
        flip: a pair is (c, h).
    """
    assert found.cell is not None
    roles = step_roles(found.cell, found.wanted.states)
    if roles is None:
        return []
    roles = ["ch" if flip and role == "hc" else role for role in roles]
    return [Form(tuple(roles), layout, D, H) for layout in LAYOUTS]


def own_sizes(found: Found, module: nn.Module) -> list[tuple[int, int]]:
    """What D and H of an instance may be, the likeliest first."""
    names = [vars(module), dict(found.namespace)]
    ds = [v for space in names for k, v in space.items() if isinstance(v, int) and role_of(k.split("_")[0]) == "x"]
    hs = [v for space in names for k, v in space.items() if isinstance(v, int) and k.lower().startswith(("hid", "h_"))]
    pairs = [(d, h) for h in hs[:3] for d in ds[:3]]
    shapes = {tuple(p.shape) for p in module.parameters() if not is_lazy(p) and p.dim() == 2}
    for n, m in sorted(shapes):
        for h in dict.fromkeys((n, m, n // 4, m // 4)):
            pairs += [(d, h) for d in (max(n, m) - h, min(n, m), max(n, m), min(n, m) - h, 28) if d > 0 and h > 1]
    return [pair for pair in dict.fromkeys(pairs) if 0 < pair[0] < 2000 and 1 < pair[1] < 2000][:24]


def deep_copy(module: nn.Module) -> nn.Module:
    """A copy of a module, also of one that keeps tensors with a history; what has no copy, such as an open file, is shared."""
    memo: dict[int, Any] = {}
    for part in module.modules():
        for value in vars(part).values():
            for one in value if isinstance(value, list | tuple) else [value]:
                if isinstance(one, Tensor) and not one.is_leaf:
                    memo[id(one)] = one.detach().clone()
    with suppress(Exception):
        return copy.deepcopy(module, memo)
    shared: dict[int, Any] = {}
    with suppress(RecursionError):
        _share(module, shared, set())
    with suppress(Exception):
        return copy.deepcopy(module, dict(shared))
    made = type(module).__new__(type(module))  # its class has a copy of its own kind, which fails
    for name, value in vars(module).items():
        made.__dict__[name] = value
        with suppress(Exception):
            made.__dict__[name] = copy.deepcopy(value, dict(shared))
    return made


def _share(value: Any, memo: dict[int, Any], seen: set[int]) -> None:
    """Note for `copy.deepcopy` what it is to take instead of copies: of what has none the thing itself."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        if not value.is_leaf:
            memo[id(value)] = value.detach().clone()
        return
    within: list[Any] = []
    if isinstance(value, Mapping):
        within = list(value.values())
    elif isinstance(value, list | tuple | set | frozenset):
        within = list(value)
    elif not isinstance(value, type | ModuleType | FunctionType):
        within = list(getattr(value, "__dict__", {}).values())
    for one in within:
        _share(one, memo, seen)
    if isinstance(value, nn.Module):
        return
    try:
        copy.deepcopy(value, dict(memo))
    except Exception:
        memo[id(value)] = value
