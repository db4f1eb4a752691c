"""Reductions over the columns of a row: sums, means, variances, norms, the largest, and what is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from unroll.equations.elementwise import Rule, RuleWriter, elementwise
from unroll.equations.movements import MOST_PIECES, gathered, reshaped, result_of
from unroll.equations.read import Reader, Value


def root(s: RuleWriter, a: int) -> int:
    """√a with derivative 0 where a is 0, as torch has it in norm and std."""
    zero = s.equal(a, 0.0)
    return s.sub(s.sqrt(s.add(a, zero)), zero)


def _reduced(reader: Reader, given: Tensor, dims: Any) -> tuple[int, Tensor]:
    """The node that axes `dims` reduce, and its columns (numbers of the result, reduced to one)."""
    value = reader.value(given)
    if not value.batched or not reader.node(value.node).row:
        raise reader.refuse("a reduction of what does not depend on the batch")
    rank = given.dim()
    axes = () if dims is None else sorted({d % rank for d in ([dims] if isinstance(dims, int) else dims)})
    if not axes or 0 in axes:
        raise reader.refuse("reduces over the sequences of a batch; expected dim=-1")
    rest = given.shape[1:]
    kept = [d - 1 for d in range(1, rank) if d not in axes]
    count = math.prod(rest[d - 1] for d in axes)
    columns = torch.arange(math.prod(rest)).reshape(rest).permute([*kept, *(d - 1 for d in axes)]).reshape(-1, count)
    return value.node, columns


def _groups(reader: Reader, given: Tensor, dims: Any) -> tuple[list[int], int]:
    """The rows (B, k) over which axes `dims` reduce, one for each number of the result, and k."""
    node, columns = _reduced(reader, given, dims)
    if len(columns) > MOST_PIECES:
        raise reader.refuse(f"reduces over {len(columns)} groups of columns; expected at most {MOST_PIECES}")
    return [gathered(reader, [node], group) for group in columns], columns.shape[1]


def reduction(expression: Callable[[RuleWriter, int, int, dict[str, Any]], int]) -> Rule:
    def rule(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
        dims = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
        rows, count = _groups(reader, args[0], dims)
        s = RuleWriter(reader)
        return result_of(
            reader, reader.program.concat([expression(s, row, count, kwargs) for row in rows], reader.line)
        )

    return rule


def sum_or_mean(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    """Sum or mean; over an axis before the last, such as that of the gates, an addition of slices."""
    dims = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
    node, columns = _reduced(reader, args[0], dims)
    s, (numbers, count) = RuleWriter(reader), columns.shape
    if numbers > count:
        found, *others = (gathered(reader, [node], columns[:, k]) for k in range(count))
        for other in others:
            found = s.add(found, other)
    else:
        found = reader.program.concat([s.sum(gathered(reader, [node], group)) for group in columns], reader.line)
    return result_of(reader, found if func.__name__ == "sum" else s.mul(found, 1.0 / count))


def _deviations(s: RuleWriter, v: int, count: int) -> int:
    return s.sub(v, s.mean(v, count))


def variance(s: RuleWriter, v: int, count: int, kwargs: dict[str, Any]) -> int:
    corrected = kwargs.get("correction", 1 if kwargs.get("unbiased", True) else 0)
    d = _deviations(s, v, count)
    return s.mul(s.sum(s.mul(d, d)), 1.0 / (count - corrected))


def norm(s: RuleWriter, v: int, count: int, kwargs: dict[str, Any]) -> int:
    if kwargs.get("p", kwargs.get("ord", 2)) not in (2, None, "fro"):
        raise s.reader.refuse("a norm that is not the Euclidean one")
    return root(s, s.sum(s.mul(v, v)))


def largest_or_smallest(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if func.__name__ in ("max", "min") and (
        (len(args) > 1 and isinstance(args[1], Tensor)) or isinstance(kwargs.get("other"), Tensor)
    ):
        return elementwise(lambda s, a, b: getattr(s, func.__name__ + "imum")(a, b))(reader, func, args, kwargs)
    sign = 1.0 if func.__name__ in ("max", "amax") else -1.0
    found = reduction(lambda s, v, n, o: s.mul(sign, s.max(s.mul(sign, v))))(reader, func, args, kwargs)
    return found if func.__name__ in ("amax", "amin") else [found, None]  # a step cannot compute with the indices


def layer_norm(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    root = func.__name__ == "rms_norm"
    names = (
        ("input", "normalized_shape", "weight", "eps")
        if root
        else ("input", "normalized_shape", "weight", "bias", "eps")
    )
    given = dict(zip(names, args, strict=False)) | kwargs
    v, shape = given["input"], tuple(given["normalized_shape"])
    eps = given.get("eps")
    eps = (torch.finfo(torch.float64).eps if root else 1e-5) if eps is None else eps
    if given.get("eps") is None and root:
        raise reader.refuse("rms_norm without eps, whose usual value is another for each type")
    rows, count = _groups(reader, v, tuple(range(-len(shape), 0)))
    s, found = RuleWriter(reader), []
    for row in rows:
        d = row if root else _deviations(s, row, count)
        deviation = s.sqrt(s.add(s.mean(s.mul(d, d), count), float(eps)))
        n = s.mul(d, s.div(1.0, deviation))
        for op, name in (("mul", "weight"), ("add", "bias")):
            if given.get(name) is not None:
                node = reshaped(reader, "reshape", reader.value(given[name]).node, (count,))
                n = getattr(s, op)(n, node)
        found.append(n)
    return result_of(reader, reader.program.concat(found, reader.line))


def softmax(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if not isinstance(dim, int) or dim % args[0].dim() != args[0].dim() - 1:
        raise reader.refuse(f"{func.__name__} over an axis that is not the last")
    rows, _ = _groups(reader, args[0], dim)
    s, found = RuleWriter(reader), []
    for row in rows:
        shifted = s.sub(row, s.stop(s.max(row)))
        e = s.exp(shifted)
        found.append(s.sub(shifted, s.log(s.sum(e))) if func.__name__ == "log_softmax" else s.div(e, s.sum(e)))
    return result_of(reader, reader.program.concat(found, reader.line))


def logsumexp(s: RuleWriter, v: int, count: int, kwargs: dict[str, Any]) -> int:
    largest = s.stop(s.max(v))
    return s.add(s.log(s.sum(s.exp(s.sub(v, largest)))), largest)
