"""Each call of a cell as data: which rows of which pictures it was given, and which earlier output each state is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unroll.labs.child.argument_names import CLASSES, ROWS
from unroll.labs.child.call_cell import Form
from unroll.labs.child.cell_calls import CallRecorder, CellCall, Roles, placed, roles_of, tensors_of
from unroll.labs.child.graph import nodes_below

B = 3  # pictures of most runs: no size that an axis of a picture or of a small model has


class Run(NamedTuple):
    """One forward.

    Attributes:
        logits: as they came; None where there are none.
        record: of the cell's calls.
        error: the exception, as data.
        returned: what came back, in words.
        x: the pictures, where gradients with respect to them are wanted.
    """

    logits: Tensor | None
    record: CallRecorder
    error: dict[str, Any] | None
    returned: str
    x: Tensor | None = None


class Facts:
    """What each call of the cell was given, in a run whose outputs were cut."""

    def __init__(self, run: Run, x: Tensor, tolerance: float) -> None:
        self.run, self.x, self.tolerance = run, x, tolerance
        self.made = run.record.calls
        self.leaves = [(n, j, leaf) for n, call in enumerate(self.made) for j, leaf in enumerate(call.leaves)]
        self.values: dict[bytes, tuple[int, int]] = {}
        self.instances: list[nn.Module] = []
        self.tables = tables_of(x)
        self._ignoring: dict[tuple[int, tuple[str, ...]], bool] = {}
        self.roles = [self._roles(n, call) for n, call in enumerate(self.made)]

    def calls(self) -> list[dict[str, Any]]:
        facts = []
        for n, (call, roles) in enumerate(zip(self.made, self.roles, strict=True)):
            rows, columns = None, False
            x_from: tuple[int, int] | None = None
            x_line = None
            if roles.x is not None:
                _, tensor, value = call.given[roles.x]
                if value.numel() < self.x.numel():  # else the cell itself takes the row out of the pictures
                    rows, columns = matched(array_of(value.detach()), self.tables, self.tolerance)
                x_line = self.run.record.line_of(tensor)
                if rows is None:
                    x_from = self.values.get(key_of(value)) or self._only_use(value, n)
                    rows = self._rows_read(value) if x_from is None else None
            facts.append(
                {
                    "cell": self._instance(call),
                    "line": call.line,
                    "text": call.text,
                    "rows": rows,
                    "columns": columns,
                    "x_from": None if x_from is None else list(x_from),
                    "x_line": x_line,
                    "states": [self._state(call.given[k], n) for k in roles.states],
                    "outs": len(call.out),
                }
            )
            for j, one in enumerate(call.out):
                self.values.setdefault(key_of(one), (n, j))
        return facts

    def _instance(self, call: CellCall) -> int:
        if not any(call.cell is one for one in self.instances):
            self.instances.append(call.cell)
        return next(i for i, one in enumerate(self.instances) if one is call.cell)

    def _roles(self, n: int, call: CellCall) -> Roles:
        """What each tensor of a call is; x is what the cell reads, also where it is given a row that it does not look at."""
        found = x_place(call, self.tables)
        if found is not None and len(call.given) <= 3:
            return roles_of(call, found)
        reads = frozenset(k for k, (_, _, value) in enumerate(call.given) if k == found or self._reads_pictures(value))
        roles = roles_of(call, found, reads)
        if roles.x is None or not roles.extras:
            return roles
        kind = self._instance(call), tuple(name for name, _, _ in call.given)
        if kind not in self._ignoring:
            self._ignoring[kind] = _ignores(call, roles.x, self.tolerance)
        others = [k for k in roles.extras if k in reads] or [k for k in roles.extras if self._uses(call.given[k][2], n)]
        if not self._ignoring[kind] or not others:
            return roles
        rest = sorted((set(roles.extras) | {roles.x}) - {others[0]})
        return Roles(others[0], roles.states, tuple(rest))

    def _reads_pictures(self, value: Tensor) -> bool:
        if self.run.x is None or not value.requires_grad:
            return False
        return any(True for _ in _reads(value, [(0, 0, self.run.x)]))

    def _rows_read(self, value: Tensor) -> list[list[int]] | None:
        """(picture, row) that each row of x_t is made of, told by gradients: a layer may stand before the cell."""
        x = self.run.x
        if x is None or not value.requires_grad or value.dim() != 2:
            return None
        if len(value) not in (1, B) and value.shape[1] == B:  # kept in columns
            value = value.T
        if len(value) not in (1, B):
            return None
        found = []
        for row in value:
            try:
                (grad,) = torch.autograd.grad(row.square().sum(), [x], retain_graph=True, allow_unused=True)
            except RuntimeError:
                return None
            read = [] if grad is None else (grad != 0).any(2).nonzero().tolist()
            if len(read) != 1:
                return None
            found.append([int(n) for n in read[0]])
        return found

    def _state(self, given: tuple[str, Tensor, Tensor], n: int) -> dict[str, Any]:
        name, tensor, value = given
        found = self.values.get(key_of(value))
        zero = not bool((value.detach() != 0).any())
        uses = self._uses(value, n)  # of zeros too: a faulty cell may return nothing else
        return {
            "name": name,
            "zero": zero,
            "from": None if found is None or zero else list(found),
            "uses": uses,
            "learned": not uses and bool(value.requires_grad) and self._reads_parameter(value),
            "first": n > 0 and any(key_of(value) == key_of(self.made[0].given[k][2]) for k in self.roles[0].states),
            "line": self.run.record.line_of(tensor),
        }

    def _uses(self, value: Tensor, n: int) -> list[list[int]]:
        """Outputs of earlier calls that a tensor is made of, told by gradients."""
        earlier = [(m, j, leaf) for m, j, leaf in self.leaves if m < n and leaf.requires_grad]
        return [[m, j] for m, j in _reads(value, earlier)]

    def _only_use(self, value: Tensor, n: int) -> tuple[int, int] | None:
        uses = self._uses(value, n)
        return (uses[0][0], uses[0][1]) if len(uses) == 1 else None

    def _reads_parameter(self, value: Tensor) -> bool:
        return any(isinstance(getattr(node, "variable", None), nn.Parameter) for node in nodes_below([value]))

    def cells(self, model: nn.Module, first: Run, again: list[CellCall]) -> list[dict[str, Any]]:
        """Each instance that was called: whether the classifier owns it, and whether it is made anew at each forward."""
        own = {id(module) for module in model.modules()}
        called: list[nn.Module] = []
        for call in first.record.calls:
            if not any(call.cell is one for one in called):
                called.append(call.cell)
        return [
            {
                "registered": id(one) in own,
                "anew": id(one) not in own and bool(again) and all(call.cell is not one for call in again),
                "parameters": len(list(one.parameters())),
            }
            for one in called
        ]

    def head(self) -> dict[str, Any]:
        """Outputs that the logits read directly."""
        logits = self.run.logits
        if logits is None or not logits.requires_grad:
            return {"uses": [], "grad": False}
        earlier = [(m, j, leaf) for m, j, leaf in self.leaves if leaf.requires_grad]
        return {"uses": [[m, j] for m, j in _reads(logits, earlier)], "grad": True}


def _reads(value: Tensor, leaves: list[tuple[int, int, Tensor]]) -> Iterator[tuple[int, int]]:
    if not leaves or not value.requires_grad:
        return
    generator = torch.Generator().manual_seed(5)
    weights = torch.rand(value.shape, generator=generator, dtype=torch.float64).to(value.dtype) + 0.5
    try:
        grads = torch.autograd.grad(
            (value * weights).sum(), [leaf for _, _, leaf in leaves], allow_unused=True, retain_graph=True
        )
    except RuntimeError:  # an in-place operation has destroyed what the gradient needs
        return
    for (m, j, _), grad in zip(leaves, grads, strict=True):
        if grad is not None and bool((grad != 0).any()):
            yield m, j


def tables_of(x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Every row and every column of pictures (B, T, D), each without its mean and of length 1."""
    rows = array_of(x.detach())
    return _normal(rows.reshape(-1, ROWS)), _normal(rows.transpose(0, 2, 1).reshape(-1, ROWS))


def _normal(rows: np.ndarray) -> np.ndarray:
    rows = rows - rows.mean(1, keepdims=True)
    scaled: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-30)
    return scaled


def matched(value: np.ndarray, tables: Any, tolerance: float) -> tuple[list[list[int]] | None, bool]:
    """(picture, row) of each row of what a cell was given, however it was scaled and shifted; else None."""
    for along in (-1, 0):
        if value.ndim < 1 or value.shape[along] != ROWS:
            continue
        rows = _normal(np.moveaxis(value, along, -1).reshape(-1, ROWS))
        for columns, table in enumerate(tables):
            like = np.abs(rows @ table.T)
            best = like.argmax(1)
            if (like.max(1) > 1 - max(1e-8, tolerance)).all():
                return [[int(n) // ROWS, int(n) % ROWS] for n in best], bool(columns)
    return None, False


def x_place(call: CellCall, tables: Any) -> int | None:
    """Which tensor among a call's arguments holds rows of the pictures; None where none does."""
    for place, (_, _, value) in enumerate(call.given):
        if matched(array_of(value.detach()), tables, 1e-5)[0] is not None:
            return place
    return None


def _ignores(call: CellCall, place: int, tolerance: float) -> bool:
    """Whether what the cell returns does not depend on one of the tensors that it was given."""
    given = [value.detach() for _, _, value in call.given]
    same, other = (
        called_again(call, given),
        called_again(call, [*given[:place], given[place] + 0.5, *given[place + 1 :]]),
    )
    if not same or not other or len(same) != len(other):
        return False
    return all(close(a, b, tolerance) for a, b in zip(same, other, strict=True))


def called_again(call: CellCall, given: list[Tensor], grad: bool = False) -> list[Tensor] | None:
    """What the cell returns for other tensors in the places of those that a call was given."""
    try:
        with torch.set_grad_enabled(grad):
            args, kwargs = placed((call.args, call.kwargs), iter(given))
            return different(call.cell(*args, **kwargs))
    except Exception:
        return None


def different(out: Any) -> list[Tensor]:
    """The tensors that a cell returned, each once."""
    return list({id(one): one for one in tensors_of(out)}.values())


def outside_of(model: nn.Module, cells: list[nn.Module]) -> list[Tensor]:
    """The parameters that are not those of a cell."""
    inside = {id(p) for cell in cells for p in cell.parameters()}
    return [p for p in model.parameters() if id(p) not in inside]


def output_layer(outside: list[Tensor]) -> tuple[Tensor, Tensor | None] | None:
    """W (10, H) and b (10,) where an output layer is all that there is beside the cells."""
    matrices = [p for p in outside if p.dim() == 2 and p.shape[0] != p.shape[1]]
    vectors = [p for p in outside if p.dim() == 1 and len(p) == CLASSES]
    if len(matrices) != 1 or CLASSES not in matrices[0].shape or len(vectors) > 1 or len(outside) > 2:
        return None
    W = matrices[0] if matrices[0].shape[0] == CLASSES else matrices[0].T
    return W, vectors[0] if vectors else None


def without_extras(call: CellCall, roles: Roles) -> tuple[CellCall, Roles] | None:
    """The same call with x alone beside the state; None where that is not possible, or the cell then gives something else."""
    names = [name for name, _, _ in call.given]
    pool = [k for k in (roles.x, *roles.extras) if k is not None]
    left_out = {names[k] for k in pool} & call.optional
    kept = [k for k in range(len(names)) if names[k] not in left_out]
    xs = [k for k in pool if k in kept]
    bare = call.without(left_out) if len(xs) == 1 and set(roles.states) < set(kept) else None
    if bare is None:
        return None
    out = called_again(bare, [value for _, _, value in bare.given])
    if out is None or len(out) != len(call.out):
        return None
    if not all(close(a, b, 1e-9 if b.dtype == torch.float64 else 2e-5) for a, b in zip(out, call.out, strict=True)):
        return None
    return bare, Roles(kept.index(xs[0]), tuple(kept.index(k) for k in roles.states), ())


def iterated(form: Form, cell: nn.Module, x: Tensor, swapped: bool) -> Tensor | None:
    """h_T (B, H) by a cell, called for row after row from zeros; None where it does not return two states."""
    ends = []
    for part in x.split(1) if form.layout == "flat" else [x]:
        h = c = part.new_zeros(len(part), form.H)
        for t in range(ROWS):
            found = different([value for _, value in form.call(cell, part[:, t], h, c)])
            rows = [one for one in (form.rows(value, len(part)) for value in found) if one is not None]
            if rows and "c" not in "".join(form.roles):
                h = rows[0]
                continue
            if len(rows) < 2:
                return None
            h, c = (rows[1], rows[0]) if swapped else (rows[0], rows[1])
        ends.append(h)
    return torch.cat(ends)


def rows_of(value: Tensor, batch: int) -> np.ndarray | None:
    """A state as (B, H), whether it is kept in rows or in columns."""
    found = array_of(value.detach()).squeeze()
    if found.ndim == 1 and batch == 1:
        return found[None]
    if found.ndim != 2:
        return None
    if found.shape[0] == batch:
        return found
    return found.T if found.shape[1] == batch else None


def close(a: Tensor | None, b: Tensor | None, tolerance: float) -> bool:
    """Whether two tensors have one shape and the same values."""
    if a is None or b is None or a.shape != b.shape:
        return False
    return bool(torch.allclose(a.detach().double(), b.detach().double(), rtol=tolerance, atol=tolerance))


def key_of(value: Tensor) -> bytes:
    """The values in bytes, to find a tensor that is bit for bit the same."""
    return np.ascontiguousarray(array_of(value.detach())).tobytes()


def array_of(value: Tensor) -> np.ndarray:
    """A tensor as float64."""
    made: np.ndarray = value.detach().cpu().double().numpy()
    return made
