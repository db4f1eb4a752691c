"""The graph that torch keeps of what a tensor was computed from."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from typing import Any

from torch import Tensor


def nodes_below(roots: Iterable[Tensor], most: int = 100_000, ends: Container[int] = frozenset()) -> Iterator[Any]:
    """The functions that tensors were computed by, each once.

    Args:
        most: how many are looked at.
        ends: ids of those below which nothing is looked at.
    """
    seen: dict[int, Any] = {}  # holds them: one that is thrown away may give its id to another
    waiting: list[Any] = [root.grad_fn for root in roots]
    while waiting and len(seen) < most:
        node = waiting.pop()
        if node is None or id(node) in seen:
            continue
        seen[id(node)] = node
        yield node
        if id(node) not in ends:
            waiting.extend(below for below, _ in node.next_functions)
