"""Records every torch call of a function: its value, and the line and variable name that its author gave it."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from unroll.labs.child.lines import Span, frames, parsed, span_of, text_at

_HERE, _TORCH = str(Path(__file__).parent), str(Path(torch.__file__).parent)
_ASKED = frozenset(
    """shape size dim ndim numel nelement dtype device layout requires_grad is_leaf is_floating_point is_complex is_contiguous
    stride storage_offset get_device is_cuda is_mps is_cpu is_sparse is_quantized names __len__ __repr__ __str__ __format__
    __hash__ element_size itemsize nbytes grad grad_fn retain_grad requires_grad_ data_ptr untyped_storage""".split()  # noqa: SIM905
)
CUTS = frozenset({"detach", "detach_", "data", "item", "numpy", "tolist", "__float__", "__array__"})
"""What takes a value out of reach of gradients."""
BUILT_IN = {
    "lstm": "nn.LSTM",
    "gru": "nn.GRU",
    "rnn_tanh": "nn.RNN",
    "rnn_relu": "nn.RNN",
    "lstm_cell": "nn.LSTMCell",
    "gru_cell": "nn.GRUCell",
    "rnn_tanh_cell": "nn.RNNCell",
    "rnn_relu_cell": "nn.RNNCell",
    "quantized_lstm": "nn.quantized.dynamic.LSTM",
}
"""The functions behind torch's own recurrent modules, by the name that torch calls them."""
DRAWS = frozenset(
    """rand randn rand_like randn_like randint randperm normal uniform bernoulli exponential multinomial dropout alpha_dropout
    feature_alpha_dropout rrelu kaiming_uniform kaiming_normal xavier_uniform xavier_normal orthogonal trunc_normal""".split()  # noqa: SIM905
)
"""What draws random numbers."""
MOST_CALLS = 3000  # of one step; further ones are not recorded


@dataclass
class Call:
    """One torch call.

    Attributes:
        function: torch's name for it, without what marks an in-place one.
        line: the author's.
        name: the variable that the value is assigned to; None where it is none.
        text: the author's expression.
        value: what came out, of any shape; None of calls that give no tensor of real numbers.
        parameters: the names of those tensors of the cell that it is computed from.
        grad: whether gradients were on.
    """

    function: str
    line: int | None
    name: str | None
    text: str | None
    value: Tensor | None
    parameters: frozenset[str]
    grad: bool
    names: dict[int, str] = field(default_factory=dict, repr=False)


class Tape(TorchFunctionMode):
    """Records the torch calls made within it.

    Args:
        filename: of the author's file, as its code has it.
        known: names of the tensors that the calls may start from, such as parameters.
    """

    def __init__(self, filename: str, known: Mapping[str, Tensor] | None = None) -> None:
        super().__init__()
        self.filename, self.calls = filename, list[Call]()
        self._sources: dict[int, frozenset[str]] = {}
        self._alive: list[Any] = []  # so that no id is given twice
        self._targets = targets(filename)
        self._last: dict[tuple[int, Span], list[tuple[Call, int, int]]] = {}
        for name, tensor in (known or {}).items():
            self._sources[id(tensor)] = frozenset({name})
            self._alive.append(tensor)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = getattr(func.__self__, "__name__", name)
        result = func(*args, **kwargs)
        if name in _ASKED or len(self.calls) > MOST_CALLS:
            return result
        sources = frozenset[str]().union(*(self._sources.get(id(t), frozenset()) for t in tensors((args, kwargs))))
        changed = name in ("__setitem__", "copy_") or (name.endswith("_") and not name.startswith("__"))
        if changed and args and isinstance(args[0], Tensor):
            self._sources[id(args[0])] = sources
            self._keep(name, args[0], sources, 0, 1)
            return result
        outputs = list(tensors(result))
        for number, one in enumerate(outputs):
            self._sources[id(one)] = sources
            self._keep(name, one, sources, number, len(outputs))
        if not outputs:
            self._keep(name, None, sources, 0, 1)
        self._alive.append((result, args))
        return result

    def _keep(self, name: str, value: Tensor | None, sources: frozenset[str], number: int, many: int) -> None:
        places = list(self._places())
        line = places[0][1][0] if places else None
        text = (text_at(self.filename, places[0][1]) or "").strip() if places else ""
        real = value is not None and value.is_floating_point()
        copy = value.detach().clone() if real and value is not None else None
        plain = name.rstrip("_") if not name.startswith("__") else name
        call = Call(plain, line, None, text if 0 < len(text) <= 60 else None, copy, sources, torch.is_grad_enabled())
        self.calls.append(call)
        for depth, (frame, span) in enumerate(places):
            wanted = self._targets.get(span)
            if wanted is None:
                continue
            for earlier, _, at in self._last.get((frame, span), []):
                if earlier is not call and (number == 0 or many == 1):
                    earlier.names.pop(at, None)  # a later call of the same expression gives the variable its value
            if number == 0:
                self._last[frame, span] = []
            self._last.setdefault((frame, span), []).append((call, number, depth))
            if len(wanted) == many and wanted[number] is not None:
                call.names[depth] = str(wanted[number])
            elif len(wanted) == 1 and wanted[0] is not None and many > 1:
                call.names[depth] = f"{wanted[0]}[{number}]"

    def finish(self) -> list[Call]:
        """The calls, with the names that the outermost assignment gave them."""
        for call in self.calls:
            if call.names:
                call.name = call.names[max(call.names)]
        return self.calls

    def _places(self) -> Iterator[tuple[int, Span]]:
        """Frames of the author's file and the expressions that they are at, innermost first."""
        for frame in frames(self.filename):
            if (span := span_of(frame)) is not None:
                yield id(frame), span


def tensors(given: Any) -> Iterator[Tensor]:
    """The tensors within tuples, lists and dicts, in order."""
    if isinstance(given, Tensor):
        yield given
    elif isinstance(given, tuple | list):
        for one in given:
            yield from tensors(one)
    elif isinstance(given, dict):
        for one in given.values():
            yield from tensors(one)


def hanging(value: Any, path: str) -> Iterator[tuple[str, Tensor]]:
    """Tensors of real numbers within an attribute, with their paths, also those of modules within a list."""
    if isinstance(value, Tensor):
        if value.is_floating_point() and value.numel():
            yield path, value
    elif isinstance(value, list | tuple):
        for n, one in enumerate(value):
            yield from hanging(one, f"{path}[{n}]")
    elif isinstance(value, dict):
        for key, one in list(value.items()):
            yield from hanging(one, f"{path}[{key!r}]")
    elif isinstance(value, nn.Module):
        for name, p in value.named_parameters():
            yield f"{path}.{name}", p


_CACHED: dict[str, tuple[ast.Module, dict[Span, list[str | None]]]] = {}


def targets(filename: str) -> dict[Span, list[str | None]]:
    """By the span (first line, last line, first column, last column) of an assigned expression what it is assigned to."""
    tree = parsed(filename)
    if filename in _CACHED and _CACHED[filename][0] is tree:
        return _CACHED[filename][1]
    found: dict[Span, list[str | None]] = {}

    def keep(value: ast.expr | ast.stmt, target: ast.expr) -> None:
        if isinstance(target, ast.Tuple | ast.List) and isinstance(value, ast.Tuple | ast.List):
            for part, one in zip(value.elts, target.elts, strict=False):
                keep(part, one)
            return
        parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
        span = (value.lineno, value.end_lineno or 0, value.col_offset, value.end_col_offset or 0)
        found[span] = [_name(part) for part in parts]

    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            keep(node.value, node.targets[0])
        elif isinstance(node, ast.AnnAssign | ast.NamedExpr) and node.value is not None:
            keep(node.value, node.target)
        elif isinstance(node, ast.AugAssign):
            keep(node, node.target)
    _CACHED[filename] = tree, found
    return found


def _name(target: ast.expr) -> str | None:
    if isinstance(target, ast.Name):
        return target.id
    if isinstance(target, ast.Attribute):
        return target.attr
    if (
        isinstance(target, ast.Subscript)
        and isinstance(target.slice, ast.Constant)
        and isinstance(target.slice.value, str)
    ):
        return target.slice.value
    return None
