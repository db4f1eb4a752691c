"""Functions of tensors, element by element: what torch broadcasts, as operands that fit each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unroll.equations.movements import gathered, reshaped, result_of
from unroll.equations.program import broadcast
from unroll.equations.read import Reader, Value
from unroll.equations.writing import Writer

Rule = Callable[[Reader, Any, tuple[Any, ...], dict[str, Any]], Any]


class RuleWriter(Writer):
    """A writer of the nodes that a call of the author's becomes."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader.program, reader.line)
        self.reader = reader

    def linear(self, v: int, M: int, b: int | None = None) -> int:
        product = self.program.add("linear", v, M, line=self.line)
        return product if b is None else self.add(product, b)

    def mean(self, v: int, count: int) -> int:
        return self.mul(self.sum(v), 1.0 / count)


def aligned(reader: Reader, given: Sequence[Any]) -> tuple[list[int], bool]:
    """Nodes of operands that torch broadcasts against each other, each as wide as the result, one wide, or a number."""
    values = [reader.value(one) for one in given]
    shapes = [tuple(one.shape) if isinstance(one, Tensor) else () for one in given]
    nodes = [value.node for value in values]
    batched = any(value.batched for value in values)
    if not batched:
        return nodes, False
    whole = broadcast(*shapes)
    rest = whole[1:]
    found = []
    for node, value, shape in zip(nodes, values, shapes, strict=True):
        if reader.node(node).op == "number":
            found.append(node)
        elif value.batched:
            if len(shape) != len(whole):
                raise reader.refuse(f"shapes {shapes} mix the sequences of a batch")
            found.append(_widened(reader, node, shape[1:], rest))
        else:
            if len(shape) > len(rest):
                if len(shape) != len(whole) or shape[0] != 1:
                    raise reader.refuse(f"shapes {shapes} mix the sequences of a batch")
                node = reshaped(reader, "reshape", node, shape[1:])
            if math.prod(shape) == 1 and math.prod(rest) > 1:
                node = reshaped(reader, "reshape", node, (1,))
                found.append(reshaped(reader, "expand", node, (math.prod(rest),)))
                continue
            node = reshaped(reader, "expand", node, rest)
            found.append(reshaped(reader, "reshape", node, (math.prod(rest),)))
    return found, True


def _widened(reader: Reader, node: int, shape: tuple[int, ...], rest: tuple[int, ...]) -> int:
    """A row value of axes `shape` broadcast to axes `rest`; one column stays one, for it fits everywhere."""
    if shape == rest or math.prod(shape) == 1:
        return node
    return gathered(reader, [node], torch.arange(math.prod(shape)).reshape(shape).expand(rest).flatten())


def elementwise(
    expression: Callable[..., int], operands: int | None = None, options: tuple[tuple[str, Any], ...] = ()
) -> Rule:
    """A rule for a function of tensors, element by element.

    Args:
        expression: from `RuleWriter`, the operands' nodes and the options to the result's node.
        operands: how many arguments are tensors or numbers to be broadcast; the others are options.
        options: further arguments by name, with their usual values, in order.
    """
    count = operands if operands is not None else expression.__code__.co_argcount - 1 - len(options)

    def rule(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
        named = (
            "input",
            "other",
            "tensor1",
            "tensor2",
            "end",
            "weight",
            "mask",
            "value",
            "exponent",
            "min",
            "max",
            "self",
        )
        given, more = list(args[:count]), list(args[count:])
        chosen = {}
        for k, (name, usual) in enumerate(options):
            chosen[name] = more[k] if k < len(more) else kwargs.get(name, usual)
        given += [kwargs[name] for name in named if name in kwargs and name not in chosen][: count - len(given)]
        if len(given) != count:
            raise reader.refuse(f"{func.__name__} is called in a way that is not known")
        nodes, batched = aligned(reader, given)
        return result_of(reader, expression(RuleWriter(reader), *nodes, *chosen.values()), batched)

    return rule
