"""What only moves numbers about: slices, views, concatenations and transposes, of rows and of weights.

One rule serves for all such functions of torch: the function is called on the numbers of the columns, and what comes out is
looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unroll.equations.read import Reader, Value

MOST_PIECES = 256  # that a movement of columns may be made of


def reshaped(reader: Reader, op: str, node: int, shape: tuple[int, ...]) -> int:
    """A weight in another shape, by ``reshape`` or ``expand``; itself where it has that shape already."""
    if reader.node(node).shape == shape:
        return node
    return reader.program.add(op, node, of=shape, shape=shape, line=reader.line)


def result_of(reader: Reader, node: int, batched: bool = True) -> Value:
    """What a rule gives: the tensor comes when torch has computed it."""
    return Value(torch.empty(0), node, batched)


def transposed(reader: Reader, node: int) -> int:
    known = reader.node(node)
    if known.op == "transpose":
        return known.args[0]
    return reader.program.add("transpose", node, of=(0, 1), shape=known.shape[::-1], line=reader.line)


def gathered(reader: Reader, nodes: Sequence[int], index: Tensor) -> int:
    """Columns of rows that lie side by side, in the order of `index`, as slices and their concatenation."""
    starts, total = [], 0
    for node in nodes:
        starts.append(total)
        total += math.prod(reader.node(node).shape) if reader.node(node).shape else 1
    ends = [*starts[1:], total]
    numbers = index.tolist()
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] and n not in starts:
            runs[-1][1] = n + 1
        else:
            runs.append([n, n + 1])
    if len(runs) > MOST_PIECES:
        raise reader.refuse(f"columns are put in an order of {len(runs)} pieces; expected at most {MOST_PIECES}")
    pieces = []
    for first, last in runs:
        which = next(k for k, end in enumerate(ends) if first < end)
        node = nodes[which]
        if not reader.node(node).row:
            if reader.node(node).op == "number":
                raise reader.refuse("a number stands among columns; make it a part of a parameter or state")
            shape = (last - first,)
            same = reader.node(node).shape == shape
            of = (0, first - starts[which], last - starts[which])
            pieces.append(node if same else reader.program.add("slice", node, of=of, shape=shape, line=reader.line))
        else:
            pieces.append(reader.program.slice(node, first - starts[which], last - starts[which], reader.line))
    if len(pieces) > 1 and not any(reader.node(p).row for p in pieces):
        return reader.program.add("concat", *pieces, of=(0,), shape=(len(numbers),), line=reader.line)
    return reader.program.concat(pieces, reader.line)


def moved(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Whatever only moves numbers about: it is done to their indices, and these are looked at."""
    sources: list[Tensor] = []

    def indices(given: Any) -> Any:
        if (
            isinstance(given, Tensor)
            and (id(given) in reader.known or id(given) in reader.own)
            and given.is_floating_point()
        ):
            start = sum(t.numel() for t in sources)
            sources.append(given)
            return torch.arange(start, start + given.numel()).reshape(given.shape)
        if isinstance(given, tuple | list) and not isinstance(given, torch.Size):
            return type(given)(indices(one) for one in given)
        return given

    # What stands among them without being known is looked up, so that it is numbered too.
    for given in args if not isinstance(args[0], tuple | list) else args[0]:
        if isinstance(given, Tensor) and given.is_floating_point():
            reader.value(given)
    found = func(*indices(args), **{name: indices(value) for name, value in kwargs.items()})
    values = [reader.value(source) for source in sources]
    if isinstance(found, tuple | list):
        return [_placed(reader, one, sources, values) for one in found]
    return _placed(reader, found, sources, values)


def _placed(reader: Reader, index: Tensor, sources: list[Tensor], values: list[Value]) -> Value:
    """The node of moved numbers, from the indices that came out where they are."""
    batch = reader.batch
    if not any(value.batched for value in values):
        if len(values) == 1:
            return _moved_weight(reader, index, sources[0], values[0])
        return _joined_weights(reader, index, sources, values)
    if index.dim() == 0 or index.shape[0] != batch:
        raise reader.refuse(
            "moves the axis of the batch; the step is given (B, features), and this stays the first axis"
        )
    flat = index.reshape(batch, -1)
    # The index of a column of sequence 0, among the columns of all sources: a batched source gives its row, a weight all.
    columns = torch.empty_like(flat[0])
    offset, start, nodes = 0, 0, []
    fits = torch.ones(flat.shape[1], dtype=torch.bool)
    for source, value in zip(sources, values, strict=True):
        size = source.numel()
        mine = (flat[0] >= offset) & (flat[0] < offset + size)
        width = size // batch if value.batched else size
        columns[mine] = flat[0][mine] - offset + start
        step = width if value.batched else 0
        expected = flat[0] + step * torch.arange(batch)[:, None]
        fits &= ~mine | (flat == expected).all(0)
        nodes.append(value.node)
        offset, start = offset + size, start + width
    if not bool(fits.all()):
        raise reader.refuse("mixes the sequences of a batch")
    if len(nodes) == 1 and reader.node(nodes[0]).op == "number":
        return result_of(reader, nodes[0])
    return result_of(reader, gathered(reader, nodes, columns))


def _moved_weight(reader: Reader, index: Tensor, source: Tensor, value: Value) -> Value:
    node, shape = value.node, tuple(index.shape)
    numbers = torch.arange(source.numel()).reshape(source.shape)
    if reader.node(node).op == "number":
        return result_of(reader, node, len(shape) > 1 and shape[0] == reader.batch)
    if (
        len(shape) > 1
        and shape[0] == reader.batch
        and shape[0] not in source.shape
        and bool((index == index[:1]).all())
    ):
        row = _moved_weight(reader, index[0].flatten(), source, value)
        return result_of(reader, row.node, True)  # one row for all sequences
    if index.numel() == source.numel() and torch.equal(index.flatten(), numbers.flatten()):
        return result_of(reader, reshaped(reader, "reshape", node, shape), False)
    if source.dim() == 2 and torch.equal(index, numbers.T):
        return result_of(reader, transposed(reader, node), False)
    bounds = [_bounds(index, source, axis) for axis in range(source.dim())]
    box = numbers
    for axis, (start, stop) in enumerate(bounds):
        box = box.narrow(axis, start, stop - start)
    if torch.equal(box.flatten(), index.flatten()):
        for axis, (start, stop) in enumerate(bounds):
            old = reader.node(node).shape
            if (start, stop) != (0, old[axis]):
                to = (*old[:axis], stop - start, *old[axis + 1 :])
                node = reader.program.add("slice", node, of=(axis, start, stop), shape=to, line=reader.line)
        return result_of(reader, reshaped(reader, "reshape", node, shape), False)
    try:
        same = torch.equal(numbers.expand(shape), index)
    except RuntimeError:  # it cannot be expanded to that
        same = False
    if same:
        return result_of(reader, reshaped(reader, "expand", node, shape), False)
    raise reader.refuse("a movement of a parameter's numbers that is no slice, transpose or reshape")


def _bounds(index: Tensor, source: Tensor, axis: int) -> tuple[int, int]:
    stride = math.prod(source.shape[axis + 1 :])
    places = index.flatten() // stride % source.shape[axis]
    return (int(places.min()), int(places.max()) + 1) if len(places) else (0, 0)


def _joined_weights(reader: Reader, index: Tensor, sources: list[Tensor], values: list[Value]) -> Value:
    shape, dims = tuple(index.shape), sources[0].dim()
    pieces, start = [], 0
    for source in sources:
        pieces.append(torch.arange(start, start + source.numel()).reshape(source.shape))
        start += source.numel()
    for axis in range(dims):
        try:
            whole = torch.cat(pieces, axis)
        except RuntimeError:
            continue
        if torch.equal(whole, index):
            nodes = [value.node for value in values]
            return result_of(
                reader, reader.program.add("concat", *nodes, of=(axis,), shape=shape, line=reader.line), False
            )
    if all(source.shape == sources[0].shape for source in sources):
        rows = [reshaped(reader, "reshape", v.node, (1, *sources[0].shape)) for v in values]
        if torch.equal(torch.stack(pieces), index):
            return result_of(reader, reader.program.add("concat", *rows, of=(0,), shape=shape, line=reader.line), False)
    raise reader.refuse("parameters are put together in a way that is no concatenation")
