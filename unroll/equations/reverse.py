"""The derivative of a step program, as more nodes of the same program: a rule for each operation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unroll.equations.program import Program
from unroll.equations.writing import Writer

# d is ∂L/∂y. A rule gives ∂L/∂a for each operand a, None where there is none; widths are put right afterwards.
DERIVATIVES: dict[str, Callable[..., tuple[int | None, ...]]] = {
    "add": lambda s, d, y, a, b: (d, d),
    "sub": lambda s, d, y, a, b: (d, s.neg(s.fit(d, b))),
    "mul": lambda s, d, y, a, b: (s.mul(d, b), s.mul(d, a)) if a != b else (s.mul(s.mul(2.0, d), a), None),
    "div": lambda s, d, y, a, b: (s.div(d, b), s.neg(s.div(s.fit(s.mul(d, y), b), b))),
    "neg": lambda s, d, y, a: (s.neg(d),),
    "sigmoid": lambda s, d, y, a: (s.sigmoid_back(d, y),),
    "tanh": lambda s, d, y, a: (s.tanh_back(d, y),),
    "relu": lambda s, d, y, a: (s.relu_back(d, y),),
    "exp": lambda s, d, y, a: (s.mul(d, y),),
    "log": lambda s, d, y, a: (s.div(d, a),),
    "sqrt": lambda s, d, y, a: (s.div(s.mul(0.5, d), y),),
    "abs": lambda s, d, y, a: (s.mul(d, s.sign(a)),),
    "sign": lambda s, d, y, a: (None,),
    "sin": lambda s, d, y, a: (s.mul(d, s.cos(a)),),
    "cos": lambda s, d, y, a: (s.neg(s.mul(d, s.sin(a))),),
    "log1p": lambda s, d, y, a: (s.div(d, s.add(1.0, a)),),
    "expm1": lambda s, d, y, a: (s.mul(d, s.exp(a)),),
    "erf": lambda s, d, y, a: (s.mul(d, s.mul(2 / math.sqrt(math.pi), s.exp(s.neg(s.mul(a, a))))),),
    "softplus": lambda s, d, y, a: (s.mul(d, s.sigmoid(a)),),
    # Where both are the same each gets half, as torch has it.
    "maximum": lambda s, d, y, a, b: (s.mul(d, _share(s, b, a)), s.mul(d, _share(s, a, b))),
    "minimum": lambda s, d, y, a, b: (s.mul(d, _share(s, a, b)), s.mul(d, _share(s, b, a))),
    "pow": lambda s, d, y, a, b: (s.mul(d, s.mul(b, s.pow(a, s.sub(b, 1.0)))), None),
    "less": lambda s, d, y, a, b: (None, None),
    "equal": lambda s, d, y, a, b: (None, None),
    "where": lambda s, d, y, m, a, b: (None, s.where(m, d, 0.0), s.where(m, 0.0, d)),
    "stop": lambda s, d, y, a: (None,),
    "sum": lambda s, d, y, a: (s.wide(d, a),),
    # To all that are as large as the largest, in equal shares.
    "max": lambda s, d, y, a: (s.mul(s.div(d, s.sum(s.equal(a, y))), s.equal(a, y)),),
}


def _share(s: Any, less: int, more: int) -> int:
    """1 where `less` is the smaller one, 1/2 where both are equal, else 0."""
    return s.add(s.less(less, more), s.mul(0.5, s.equal(less, more)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Reverse:
    """Which nodes hold what the backward step gives.

    Attributes:
        inputs: of the gradient of each input; None where it has none.
        states: of the gradient of each part of the state before the step; None for zero.
        matrices: (M, d, v): the weight M (n, k) gets the sum over all steps and sequences of dᵀ v.
        vectors: (w, d): the weight w (n,) gets the sum over all steps and sequences of d.
    """

    inputs: tuple[int | None, ...]
    states: tuple[int | None, ...]
    matrices: tuple[tuple[int, int, int], ...]
    vectors: tuple[tuple[int, int], ...]

    @property
    def wanted(self) -> tuple[int, ...]:
        """All nodes to be computed."""
        found = [n for n in (*self.inputs, *self.states) if n is not None]
        return (*found, *(d for _, d, _ in self.matrices), *(d for _, d in self.vectors))


class _BackwardWriter(Writer):
    def mul(self, a: int | float, b: int | float) -> int:
        """A product; 0 where a factor is, so that what has no gradient is left out."""
        a, b = (self.program.number(n) if isinstance(n, float) else n for n in (a, b))
        zero = 0.0 in (self.program.value_of(a), self.program.value_of(b))
        return self.program.number(0.0) if zero else self.program.add("mul", a, b)

    def fit(self, d: int, like: int) -> int:
        """d summed over its columns where `like` has one only: the sooner, the less is left to be done."""
        nodes = self.program.nodes
        narrow = nodes[like].row and nodes[like].width == 1 and nodes[d].width != 1
        return self.program.add("sum", d) if narrow else d

    def wide(self, d: int, like: int) -> int:
        """d (B, 1) as wide as another row."""
        width = self.program.nodes[like].width
        return d if width == 1 else self.program.add("widen", d, of=(width,), shape=(width,))


def reverse(program: Program) -> Reverse:
    """Add the backward step to a program: from a node ``gradient`` for each part of the new state."""
    write = _BackwardWriter(program)
    gradients: dict[int, list[int]] = {}
    matrices: list[tuple[int, int, int]] = []
    vectors: list[tuple[int, int]] = []
    forward = program.needed(program.new)
    for k, n in enumerate(program.new):
        gradients.setdefault(n, []).append(program.add("gradient", of=(k,), shape=(program.states[k],)))

    def send(n: int, d: int | None) -> None:
        """d to a node, summed or widened to its own width."""
        node = program.nodes[n]
        if d is None or node.op == "number" or program.value_of(d) == 0.0:
            return
        if node.row:
            if node.width == 1 and program.nodes[d].width != 1:
                d = write.sum(d)
            elif program.nodes[d].width != node.width:
                d = write.wide(d, n)
            gradients.setdefault(n, []).append(d)
        else:
            vectors.append((n, d))

    for n in reversed(forward):
        node = program.nodes[n]
        parts = gradients.get(n)
        if not parts or not node.row:
            continue
        d = parts[0]
        for other in parts[1:]:
            d = write.add(d, other)
        gradients[n] = [d]
        if node.op in ("input", "state"):
            continue
        if node.op == "lookup":
            raise NotImplementedError  # words are looked up outside of the step
        if node.op == "linear":
            v, M = node.args
            matrices.append((M, d, v))
            send(v, program.add("linear_back", d, M, shape=(program.nodes[v].width,)))
        elif node.op == "slice":
            _, start, _ = node.of
            width = program.nodes[node.args[0]].width
            send(node.args[0], program.add("place", d, of=(start, width), shape=(width,)))
        elif node.op == "concat":
            start = 0
            for a in node.args:
                width = program.nodes[a].shape[0]
                send(a, program.slice(d, start, start + width))
                start += width
        else:
            if program.nodes[d].width != node.width:
                d = write.wide(d, n)
            for a, of_a in zip(node.args, DERIVATIVES[node.op](write, d, n, *node.args), strict=True):
                send(a, of_a)

    def of(op: str, count: int) -> tuple[int | None, ...]:
        leaves = {program.nodes[n].of[0]: n for n in forward if program.nodes[n].op == op}
        return tuple(gradients[leaves[k]][0] if k in leaves and leaves[k] in gradients else None for k in range(count))

    return Reverse(of("input", len(program.inputs)), of("state", len(program.states)), tuple(matrices), tuple(vectors))


def gradients(
    program: Program,
    back: Reverse,
    values: dict[int, Tensor],
    d_new: Sequence[Tensor],
    parameters: Mapping[str, Tensor],
) -> tuple[list[Tensor], list[Tensor], dict[str, Tensor]]:
    """One backward step by torch's operations, to check a program and to explain it.

    Args:
        values: of the forward step, as `Program.step` gives them.
        d_new: (B, size) for each part of the new state.

    Returns:
        Gradients of the inputs, the states and the parameters.
    """
    values = dict(values)
    for n, node in enumerate(program.nodes):
        if node.op == "gradient":
            values[n] = d_new[node.of[0]]
    program.compute(values, back.wanted, parameters)
    of_x = next(iter(values.values()))
    d_inputs = [
        values[n] if n is not None else torch.zeros(len(of_x), w).to(of_x)
        for n, w in zip(back.inputs, program.inputs, strict=True)
    ]
    d_states = [
        values[n] if n is not None else torch.zeros(len(of_x), size).to(of_x)
        for n, size in zip(back.states, program.states, strict=True)
    ]
    # From the weights to the parameters they are made of.
    with torch.enable_grad():
        roots = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        weights = sorted({w for w, *_ in (*back.matrices, *back.vectors)})
        made: dict[int, Tensor] = {}
        program.compute(made, weights, roots)
        sums = {w: torch.zeros_like(made[w]) for w in weights}
        for M, d, v in back.matrices:
            sums[M] += values[d].T @ values[v]
        for w, d in back.vectors:
            sums[w] += values[d].expand(-1, made[w].numel()).sum(0).reshape(made[w].shape)
        reached = [w for w in weights if made[w].requires_grad]
        found = (
            torch.autograd.grad(
                [made[w] for w in reached], list(roots.values()), [sums[w] for w in reached], allow_unused=True
            )
            if reached
            else [None] * len(roots)
        )
    return (
        d_inputs,
        d_states,
        {name: torch.zeros_like(p) if g is None else g for (name, p), g in zip(roots.items(), found, strict=True)},
    )
