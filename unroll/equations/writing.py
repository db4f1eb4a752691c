"""Writing nodes of a program as expressions: what the rules of reading and of differentiation are made of."""

from __future__ import annotations

from collections.abc import Callable

from unroll.equations.program import Program


class Writer:
    """Adds nodes to a program: ``write.mul(a, 2.0)`` is the node of a times two; floats stand for number nodes.

    Args:
        line: the author's file and line that the nodes come from.
    """

    def __init__(self, program: Program, line: str | None = None) -> None:
        self.program, self.line = program, line

    def __getattr__(self, op: str) -> Callable[..., int]:
        def add(*args: int | float) -> int:
            nodes = [self.program.number(a) if isinstance(a, float) else a for a in args]
            return self.program.add(op, *nodes, line=self.line)

        return add
