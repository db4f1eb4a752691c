"""A step program as ONNX: a Scan over time with the step as its body, in ONNX's textual syntax.

What depends on x_t alone is computed for all time steps before the Scan, and weights that are computed from parameters are
constants: only what reads the state is done step by step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unroll.equations.names import author_names
from unroll.equations.program import Program
from unroll.errors import InputError

# By operation ONNX's operator, or nodes that make {y} of the operands {0}, {1}, … or of {all}. Types: 1 float32, 9 bool.
OPERATORS = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "neg": "Neg",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "relu": "Relu",
    "exp": "Exp",
    "log": "Log",
    "sqrt": "Sqrt",
    "abs": "Abs",
    "sign": "Sign",
    "sin": "Sin",
    "cos": "Cos",
    "softplus": "Softplus",
    "log1p": "{y}_one = Constant<value_float = 1.0>() {y}_sum = Add({0}, {y}_one) {y} = Log({y}_sum)",
    "expm1": "{y}_one = Constant<value_float = 1.0>() {y}_exp = Exp({0}) {y} = Sub({y}_exp, {y}_one)",
    "erf": "Erf",
    "maximum": "Max",
    "minimum": "Min",
    "pow": "Pow",
    "less": "{y}_is = Less({0}, {1}) {y} = Cast<to = 1>({y}_is)",
    "equal": "{y}_is = Equal({0}, {1}) {y} = Cast<to = 1>({y}_is)",
    "where": "{y}_is = Cast<to = 9>({0}) {y} = Where({y}_is, {1}, {2})",
    "stop": "Identity",
    "linear": "MatMul",
    "lookup": "{y} = Gather<axis = 0>({1}, {0})",
    "sum": "{y} = ReduceSum<keepdims = 1>({0}, last_axis)",
    "max": "{y} = ReduceMax<axes = [-1], keepdims = 1>({0})",
    "slice": "{y} = Slice({0}, at_{start}, at_{stop}, last_axis)",
    "concat": "{y} = Concat<axis = -1>({all})",
}


def scan(
    program: Program,
    parameters: Mapping[str, Tensor],
    initial: Sequence[Tensor],
    x: str,
    y: str,
    constants: dict[str, Any],
    mask: str | None = None,
    backwards: bool = False,
) -> list[str]:
    """The nodes of a graph that scan a program over time; float32, for opset 17.

    Args:
        initial: (size,) for each part of the state: what it is before the first step.
        x: name of the features (T, B, D), or of word indices (T, B) in a program of words.
        y: what the outputs (T, B, H) are called; the last ones (B, H) are ``last_`` and this. All other new names begin with it.
        constants: by name, arrays of the graph; further ones are added.
        mask: name of what says which steps belong to a sequence, (T, B, 1) bool: beyond them the state stays, and outputs are 0.
        backwards: begin with the last step.

    Raises:
        InputError: there is no operator for an operation of the program.
    """
    known = program.nodes
    rows = [n for n in program.needed(program.new) if known[n].row]
    inside: set[int] = set()  # what reads the state
    for n in rows:
        if known[n].op == "state" or inside.intersection(known[n].args):
            inside.add(n)
    write = _Writer(program, rows, parameters, x, y, constants)
    nodes = [made for n in rows if n not in inside for made in write.node(n)]

    # What the body is given of each step: rows (B, n) of what was computed before it, and which sequences go on.
    given = ({a for n in inside for a in known[n].args if known[a].row} | set(program.new)) - inside
    scanned = {write.names[n]: f"float[batch,{known[n].width}]" for n in sorted(given)}
    if mask is not None:
        scanned[mask] = "bool[batch,1]"
        constants["zero_output"] = np.float32(0)
    if not scanned:  # a cell that does not look at x, which still says how many steps there are
        scanned[x] = f"float[batch,{program.inputs[0]}]" if program.inputs else "int64[batch]"
    write.names |= {n: f"{y}_now_{write.names[n]}" for n in given}
    body = [made for n in rows if n in inside for made in write.node(n)]

    def stepped(made: str, n: int, otherwise: str) -> str:
        new = write.names[n]
        return f"{made} = Identity({new})" if mask is None else f"{made} = Where({y}_now_{mask}, {new}, {otherwise})"

    body += [stepped(f"{y}_after_{k}", n, f"{y}_before_{k}") for k, n in enumerate(program.new)]
    body.append(stepped(f"{y}_out", program.new[0], "zero_output"))
    constants["at_1"] = np.array([1])

    nodes += [f"{y}_batch = Shape<start = 1, end = 2>({x})", f"{y}_rows = Concat<axis = 0>({y}_batch, at_1)"]
    for k, part in enumerate(initial):
        constants[f"{y}_first_{k}"] = _array(part)
        nodes.append(f"{y}_initial_{k} = Expand({y}_first_{k}, {y}_rows)")
    sizes, way = list(enumerate(program.states)), int(backwards)
    takes = [f"float[batch,{size}] {y}_before_{k}" for k, size in sizes]
    takes += [f"{shape} {y}_now_{name}" for name, shape in scanned.items()]
    gives = [f"float[batch,{size}] {y}_after_{k}" for k, size in sizes] + [f"float[batch,{program.states[0]}] {y}_out"]
    results = [f"last_{y}", *(f"{y}_last_{k}" for k, _ in sizes[1:]), y]
    operands = [*(f"{y}_initial_{k}" for k, _ in sizes), *scanned]
    nodes.append(
        f"{', '.join(results)} = Scan<num_scan_inputs = {len(scanned)}, scan_output_directions = [{way}], "
        f"scan_input_directions = {[way] * len(scanned)}, body = step ({', '.join(takes)}) => ({', '.join(gives)}) "
        f"{{ {' '.join(body)} }}>({', '.join(operands)})"
    )
    return nodes


def _array(values: Tensor) -> Any:
    return values.detach().float().cpu().numpy()


class _Writer:
    """Writes rows of a program as nodes of a graph, and weights as its constants."""

    def __init__(
        self,
        program: Program,
        rows: Sequence[int],
        parameters: Mapping[str, Tensor],
        x: str,
        y: str,
        constants: dict[str, Any],
    ) -> None:
        self._program, self._x, self._y, self._constants = program, x, y, constants
        self._weights: dict[int, Tensor] = {}
        read = {a for n in rows if program.nodes[n].op != "lookup" for a in program.nodes[n].args} | set(program.new)
        wanted = [a for n in rows for a in program.nodes[n].args if not program.nodes[a].row]
        with torch.no_grad():
            program.compute(self._weights, wanted, parameters, torch.empty(0))
        called, self.names, self._there = author_names(program), {}, set()
        for n in rows:
            node, name = program.nodes[n], called.get(n, "")
            self.names[n] = f"{y}_{n}_{name}" if name.isascii() and name.isidentifier() else f"{y}_{n}"
            if node.op == "state":
                self.names[n] = f"{y}_before_{node.of[0]}"
            elif node.op == "input" and program.inputs:
                self.names[n] = x
            # Lookups read a word's index as it is; as a number it is made only where something else reads it.
            if node.op == "state" or (node.op == "input" and (program.inputs or n not in read)):
                self._there.add(n)

    def node(self, n: int) -> list[str]:
        """A row as one node or more; none where it is there already."""
        node, y = self._program.nodes[n], self.names[n]
        if n in self._there:
            return []
        if node.op == "input":
            self._constants["last_axis"] = np.array([-1])
            return [f"{y}_index = Cast<to = 1>({self._x})", f"{y} = Unsqueeze({y}_index, last_axis)"]
        if node.op not in OPERATORS:
            raise InputError(f"{node.line}: ONNX has no operator for {node.op} of step programs")
        nodes, args = [], [self._operand(a, node.op == "linear") for a in node.args]
        if node.op == "lookup":
            args[0] = self._x
        if node.op == "concat":
            row = next(k for k, a in enumerate(node.args) if self._program.nodes[a].row)
            for k, a in enumerate(node.args):
                if not self._program.nodes[a].row:  # a weight, the same for all sequences and steps
                    nodes += [
                        f"{y}_axes_{k} = Shape<end = -1>({args[row]})",
                        f"{y}_shape_{k} = Concat<axis = 0>({y}_axes_{k}, at_1)",
                        f"{y}_part_{k} = Expand({args[k]}, {y}_shape_{k})",
                    ]
                    args[k] = f"{y}_part_{k}"
        start, stop = node.of[1:] if node.op == "slice" else (None, None)
        form = OPERATORS[node.op] if "=" in OPERATORS[node.op] else f"{{y}} = {OPERATORS[node.op]}({{all}})"
        self._constants |= {f"at_{k}": np.array([k]) for k in (start, stop) if k is not None}
        if "last_axis" in form:
            self._constants["last_axis"] = np.array([-1])
        return [*nodes, form.format(*args, y=y, all=", ".join(args), start=start, stop=stop)]

    def _operand(self, n: int, turned: bool) -> str:
        if self._program.nodes[n].row:
            return self.names[n]
        name = f"{self._y}_weight_{n}" + "_turned" * turned
        self._constants[name] = _array(self._weights[n].T if turned else self._weights[n])
        return name
