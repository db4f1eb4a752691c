"""Every call of a cell while a classifier runs: what it was given, what it returned, and where each tensor came from."""

from __future__ import annotations

import ast
import copy
import inspect
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unroll.labs.child.find import role_of
from unroll.labs.child.lines import frames, line_now, span_of, text_at
from unroll.labs.child.patches import Patches
from unroll.labs.child.tape import BUILT_IN


class CellCall:
    """One call of a cell.

    Attributes:
        cell: the instance.
        bound: the arguments by name, where they fit forward.
        args, kwargs: as given, in the order of forward's own arguments, whatever keywords were used.
        given: every tensor among the arguments, in that order: (name of its argument, itself, its value then).
        optional: names of arguments that may be left out.
        out: the value of every different tensor that came back, in order.
        leaves: what stands for them in the graph, where the outputs are cut.
        grad: whether gradients were on.
        line, text: where the classifier calls it, and how that reads; None where it is not known.
    """

    def __init__(self, cell: nn.Module) -> None:
        self.cell = cell
        self.bound: inspect.BoundArguments | None = None
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}
        self.given: list[tuple[str, Tensor, Tensor]] = []
        self.optional: frozenset[str] = frozenset()
        self.out: list[Tensor] = []
        self.leaves: list[Tensor] = []
        self.grad = True
        self.line: int | None = None
        self.text: str | None = None

    def without(self, names: set[str]) -> CellCall | None:
        """The same call with some arguments left out; None where they cannot be told by name."""
        if self.bound is None:
            return None
        made, bound = CellCall(self.cell), copy.copy(self.bound)
        bound.arguments = {
            name: {key: one for key, one in value.items() if key not in names}
            if name == _rest(bound.signature)
            else value
            for name, value in self.bound.arguments.items()
            if name not in names
        }
        made.args, made.kwargs = bound.args[1:], bound.kwargs
        made.given = [one for one in self.given if one[0] not in names]
        return made


def _rest(signature: inspect.Signature) -> str | None:
    """The name of ``**kwargs``."""
    return next((p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD), None)


class CallRecorder(TorchFunctionMode):
    """Records the calls of a class of cells, and torch's functions outside of them, inside a with statement.

    Args:
        kind: the cell's class; None: there is none to record.
        filename: of the student's file.
        cut: hand back leaves of the graph in place of what the cell returned, so that a gradient with respect to them says
            what reads them directly.

    Attributes:
        events: (calls of the cell before it, name of torch's function, the student's line).
        built_in: (class such as ``nn.LSTM``, the student's line, whether inside the cell).
        failed: the first call that raised an exception.
    """

    def __init__(self, kind: type | None, filename: str, cut: bool = False) -> None:
        super().__init__()
        self.kind, self.filename, self.cut = kind, filename, cut
        self.calls: list[CellCall] = []
        self.failed: CellCall | None = None
        self.events: list[tuple[int, str, int | None]] = []
        self.built_in: list[tuple[str, int | None, bool]] = []
        self._made: dict[int, tuple[Tensor, int | None]] = {}
        self._depth, self._silent = 0, False
        self._patches = Patches()
        self._signature: inspect.Signature | None = None
        self._texts: dict[tuple[CodeType, int], str | None] = {}  # of the few places that call a cell

    def __enter__(self) -> CallRecorder:
        if self.kind is not None:
            original = self.kind.forward  # type: ignore[attr-defined]
            recorder = self
            try:
                self._signature = inspect.signature(original)
            except (TypeError, ValueError):
                self._signature = None

            def forward(cell: nn.Module, *args: Any, **kwargs: Any) -> Any:
                return recorder._call(original, cell, args, kwargs)

            self._patches.set(self.kind, "forward", forward)
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *about: Any) -> None:
        super().__exit__(*about)  # type: ignore[no-untyped-call]
        self._patches.undo()

    def line_of(self, tensor: Any) -> int | None:
        """The student's line whose torch function returned this tensor."""
        made = self._made.get(id(tensor))
        return made[1] if made is not None else None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if self._silent:
            return result
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = getattr(func.__self__, "__name__", name)
        if name in BUILT_IN:
            self.built_in.append((BUILT_IN[name], line_now(self.filename), self._depth > 0))
        if not self._depth:
            line = line_now(self.filename)
            self.events.append((len(self.calls), name, line))
            for one in tensors_of(result):
                self._made[id(one)] = (one, line)  # kept: an id is given again to another tensor
        return result

    def _call(self, original: Any, cell: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._depth:  # of a cell within a cell
            return original(cell, *args, **kwargs)
        call = CellCall(cell)
        frame = next(frames(self.filename), None)
        if frame is not None:
            call.line = frame.f_lineno
            at = frame.f_code, frame.f_lasti
            if at not in self._texts:
                self._texts[at] = _expression(frame, self.filename)
            call.text = self._texts[at]
        call.grad = torch.is_grad_enabled()
        self._silent = True
        for name, given in self._bound(call, args, kwargs):
            call.given.append((name, given, given.clone() if self.cut else given.detach().clone()))
        self._silent = False
        self._depth += 1
        try:
            out = original(cell, *args, **kwargs)
        except Exception:
            self.failed = self.failed or call
            raise
        finally:
            self._depth -= 1
        self._silent = True
        swapped: dict[int, Tensor] = {}
        for one in tensors_of(out):
            if id(one) not in swapped:
                leaf = one.detach().clone()
                if self.cut and one.is_floating_point():
                    leaf.requires_grad_(True)
                swapped[id(one)] = leaf.clone() if self.cut and torch.is_grad_enabled() else one
                call.out.append(one.detach().clone())
                call.leaves.append(leaf)
        if self.cut:
            out = _rebuilt(out, swapped)
        self._silent = False
        self.calls.append(call)
        return out

    def _bound(self, call: CellCall, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
        """The tensors among arguments with the names that forward gives them, in forward's own order."""
        try:
            bound = self._signature.bind(call.cell, *args, **kwargs) if self._signature is not None else None
        except TypeError:  # forward will say so itself
            bound = None
        if self._signature is None or bound is None:
            call.args, call.kwargs = args, kwargs
            named = [*(("", one) for one in args), *kwargs.items()]
        else:
            call.bound, call.args, call.kwargs = bound, bound.args[1:], bound.kwargs
            parameters = self._signature.parameters
            named, optional = [], set()
            for name, value in list(bound.arguments.items())[1:]:
                if parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
                    named += list(value.items())
                    optional |= set(value)
                else:
                    named.append((name, value))
                    if parameters[name].default is not inspect.Parameter.empty:
                        optional.add(name)
            call.optional = frozenset(optional)
        for name, value in named:
            for tensor in tensors_of(value):
                yield name, tensor


class Roles(NamedTuple):
    """What the tensors are that a call was given, by their places among `CellCall.given`.

    Attributes:
        x: x_t, or what was computed of it beforehand, such as U x_t; None where the call is given nothing of the kind.
        states: of h_{t-1} and c_{t-1}.
        extras: of everything else.
    """

    x: int | None
    states: tuple[int, ...]
    extras: tuple[int, ...]


def roles_of(call: CellCall, x: int | None, reads: frozenset[int] = frozenset()) -> Roles:
    """Which tensors of a call are x and the state, and which are neither.

    The names of forward's arguments decide; where they say nothing, what a tensor is made of and its shape.

    Args:
        x: the place that holds rows of pictures by its values, if there is one.
        reads: places that are computed of the pictures.
    """
    names = [name for name, _, _ in call.given]
    roles = [role_of(name) for name in names]
    places = range(len(names))
    if x is None:
        stated = [k for k in places if roles[k] in ("h", "c")]
        free = [k for k in places if k not in stated]
        like = [k for k in free if roles[k] == "x" or _like_x(names[k])]
        x = next(
            (k for pool in ([k for k in like if k in reads], sorted(reads & set(free)), like, free) for k in pool), None
        )
    rest = [k for k in places if k != x]
    named = {role: _first(call, [names[k] for k in rest if roles[k] == role]) for role in ("h", "c")}
    if named["h"] is not None and named["c"] is not None:
        states = [k for k in rest if names[k] in named.values()]
    else:
        states = _states_of(call, rest, reads)
    return Roles(x, tuple(states), tuple(k for k in rest if k not in states))


def _like_x(name: str) -> bool:
    return name.lower().startswith(("x", "inp")) or name.lower().endswith("_x")


def _first(call: CellCall, names: list[str]) -> str | None:
    """The first of these arguments that must be given, else the first of them."""
    return next((name for name in names if name not in call.optional), names[0] if names else None)


def _states_of(call: CellCall, rest: list[int], reads: frozenset[int]) -> list[int]:
    """The state among tensors whose names do not say it: a pair in one argument, or what has the shape of an output."""
    if len(rest) <= 2 and all(_fits(call, k) for k in rest):
        return rest
    pool = [k for k in rest if k not in reads]
    names = [call.given[k][0] for k in pool]
    pair = _first(call, [name for name in names if names.count(name) > 1])
    if pair is not None:
        return [k for k in pool if call.given[k][0] == pair]
    if len(pool) > 1 or len(rest) > 2:
        fitting = [k for k in pool if _fits(call, k)]
        pool = fitting or pool
    return sorted(sorted(pool, key=lambda k: call.given[k][0] in call.optional)[:2])


def _fits(call: CellCall, place: int) -> bool:
    shape = call.given[place][2].shape
    if shape.numel() == 1:  # one zero for all
        return True
    for one in call.out:
        try:
            if torch.broadcast_shapes(shape, one.shape) == one.shape and shape[-1:] == one.shape[-1:]:
                return True
        except RuntimeError:
            continue
    return not call.out


def tensors_of(given: Any) -> Iterator[Tensor]:
    """The tensors in nested tuples, lists, dicts and plain objects, in order."""
    if isinstance(given, Tensor):
        yield given
    else:
        for one in _parts(given).values():
            yield from tensors_of(one)


def placed(given: Any, tensors: Iterator[Tensor]) -> Any:
    """The same nested form with other tensors, by their order: one tensor may stand in two places."""
    if isinstance(given, Tensor):
        return next(tensors)
    parts = _parts(given)
    return _joined(given, {name: placed(one, tensors) for name, one in parts.items()}) if parts else given


def _rebuilt(given: Any, by: dict[int, Tensor]) -> Any:
    if isinstance(given, Tensor):
        return by.get(id(given), given)
    parts = _parts(given)
    return _joined(given, {name: _rebuilt(one, by) for name, one in parts.items()}) if parts else given


def _parts(given: Any) -> dict[Any, Any]:
    """What a tuple, list, dict or plain object of the student's (a dataclass or the like) holds, by place or name."""
    if isinstance(given, tuple | list):
        return dict(enumerate(given))
    if isinstance(given, dict):
        return dict(given)
    held = getattr(given, "__dict__", None)
    plain = type(given).__module__ in ("__main__", "types") and not isinstance(given, type | nn.Module)
    return dict(held) if plain and isinstance(held, dict) and any(_holds(one) for one in held.values()) else {}


def _holds(value: Any) -> bool:
    return isinstance(value, Tensor) or (
        isinstance(value, tuple | list) and any(isinstance(one, Tensor) for one in value)
    )


def _joined(given: Any, parts: dict[Any, Any]) -> Any:
    """Something like ``given`` of other parts."""
    if isinstance(given, tuple):
        return type(given)(*parts.values()) if hasattr(given, "_fields") else tuple(parts.values())
    if isinstance(given, list):
        return list(parts.values())
    if isinstance(given, dict):
        return dict(parts)
    made = copy.copy(given)
    made.__dict__.update(parts)
    return made


def _expression(frame: FrameType, filename: str) -> str | None:
    """The expression that a frame is in, as the student wrote it, where it is one line."""
    span = span_of(frame)
    text = None if span is None else text_at(filename, span)
    if text is None:
        return None
    try:
        return text if isinstance(ast.parse(text, mode="eval").body, ast.Call) else None
    except (SyntaxError, ValueError):
        return None
