"""A step program as formulas, in the author's own names."""

from __future__ import annotations

import ast
import linecache
from collections import Counter

from unroll.equations.program import Program

_INFIX = {"add": (" + ", 1), "sub": (" - ", 1), "mul": (" ⊙ ", 2), "div": (" / ", 2)}  # sign and strength
_FUNCTIONS = {"sigmoid": "σ", "relu": "ReLU", "maximum": "max", "minimum": "min"}
_ACCENTS = {"tilde": "\u0303", "hat": "\u0302", "bar": "\u0304", "dot": "\u0307"}
Span = tuple[int, ...]  # lines and columns of an expression


def text(program: Program) -> str:
    """One line for each value that the author has named, and for each part of the new state."""
    written = _Writer(program)
    return "\n".join(f"{left} = {right}" for left, right in written.equations())


def author_names(program: Program) -> dict[int, str]:
    """What the author calls the nodes: as the program carries it, or, where the source is there, what they are assigned to."""
    found = {n: node.name for n, node in enumerate(program.nodes) if node.name is not None}
    targets: dict[str, dict[Span, list[str]]] = {}
    for (file, span), nodes in program.places:
        if file not in targets:
            targets[file] = _targets("".join(linecache.getlines(file)))
        names = targets[file].get(span, [])
        if len(names) == len(nodes):
            for n, name in zip(nodes, names, strict=True):
                if name != "_":
                    found.setdefault(n, name)
    return found


def _targets(source: str) -> dict[Span, list[str]]:
    """By the span of an assigned expression the names that it is assigned to."""
    found: dict[Span, list[str]] = {}

    def keep(expression: ast.expr | ast.stmt, target: ast.expr) -> None:
        if isinstance(target, ast.Tuple | ast.List) and isinstance(expression, ast.Tuple):
            for part, one in zip(expression.elts, target.elts, strict=False):
                keep(part, one)
            return
        parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
        span = (expression.lineno, expression.end_lineno or 0, expression.col_offset, expression.end_col_offset or 0)
        found[span] = [part.id if isinstance(part, ast.Name) else "_" for part in parts]

    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return found
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            keep(node.value, node.targets[0])
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            keep(node.value, node.target)
        elif isinstance(node, ast.AugAssign):
            keep(node, node.target)
    return found


def pretty(name: str) -> str:
    """c_tilde -> c̃"""
    head, _, tail = name.rpartition("_")
    return head + _ACCENTS[tail] if head and tail in _ACCENTS else name


class _Writer:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.order = program.needed(program.new)
        self.names = {n: name for n, name in author_names(program).items() if n in self.order and self._nameable(n)}
        for k, n in enumerate(program.new):
            self.names[n] = self.names.get(n) or program.state_names[k]
        last: dict[str, int] = {}
        for n in sorted(self.names, reverse=True):  # an earlier value of a name that is used again gets a number
            name = self.names[n]
            last[name] = last.get(name, 0) + 1
            if last[name] > 1:
                self.names[n] = f"{name}{last[name] - 1}"
        uses = Counter(a for n in self.order for a in program.nodes[n].args)
        count = 0
        for n in self.order:
            big = self._size(n) > 3 and program.nodes[n].row and program.nodes[n].op not in ("slice", "concat")
            if n not in self.names and uses[n] > 1 and big:
                count += 1
                self.names[n] = f"u{count}"
        paths = [node.of[0] for node in program.nodes if node.op in ("parameter", "constant")]
        short = Counter(path.rpartition(".")[2] for path in paths)
        self.weights = {
            path: path.removeprefix("module.") if short[path.rpartition(".")[2]] > 1 else path.rpartition(".")[2]
            for path in paths
        }

    def _nameable(self, n: int) -> bool:
        return self.program.nodes[n].row and self.program.nodes[n].op not in ("input", "state")

    def _size(self, n: int) -> int:
        if n in self.names:
            return 1
        return 1 + sum(self._size(a) for a in self.program.nodes[n].args)

    def equations(self) -> list[tuple[str, str]]:
        return [(f"{pretty(self.names[n])}_t", self.formula(n)[0]) for n in self.order if n in self.names]

    def term(self, n: int, strength: int) -> str:
        """A node within a formula, in parentheses where it binds less than what is around it."""
        program, node = self.program, self.program.nodes[n]
        if n in self.names:
            return f"{pretty(self.names[n])}_t"
        if (mask := program.mask_of(n)) is not None:
            letter = "m" if len(program.masks) == 1 else f"m{mask + 1}"
            return letter if program.masks[mask].constant else f"{letter}_t"
        if node.op == "input":
            return "x_t" if node.of[0] == 0 else f"x{node.of[0] + 1}_t"
        if node.op == "state":
            return f"{pretty(self.program.state_names[node.of[0]])}_{{t-1}}"
        found, own = self.formula(n)
        return f"({found})" if own < strength else found

    def formula(self, n: int) -> tuple[str, int]:
        """The right side of a node, and how strongly its outermost operation binds."""
        program, node = self.program, self.program.nodes[n]
        op, args, of = node.op, node.args, node.of
        if op == "number":
            return f"{of[0]:g}", 4
        if op in ("parameter", "constant"):
            return self.weights[of[0]], 4
        if op == "mul" and args[0] == args[1]:
            return f"{self.term(args[0], 4)}²", 3
        if op == "mul" and (mean := self._mean(n)) is not None:
            return f"mean({self.term(mean, 0)})", 4
        if op == "mul":
            for a, b in (args, args[::-1]):
                other = program.nodes[b]
                if b not in self.names and other.op == "div" and program.value_of(other.args[0]) == 1:
                    return f"{self.term(a, 2)} / {self.term(other.args[1], 3)}", 2
        if op in _INFIX:
            sign, strength = _INFIX[op]
            if op == "mul" and any(program.nodes[a].op == "number" for a in args):
                sign = " "
                args = args if program.nodes[args[0]].op == "number" else args[::-1]
            right = strength + (op in ("sub", "div"))
            return f"{self.term(args[0], strength)}{sign}{self.term(args[1], right)}", strength
        if op == "neg":
            return f"-{self.term(args[0], 3)}", 2
        if op == "linear":
            return f"{self.term(args[1], 4)} {self.term(args[0], 4)}", 3
        if op == "lookup":
            return f"{self.term(args[1], 4)}ᵀ[x_t]", 4
        if op == "transpose":
            return f"{self.term(args[0], 4)}ᵀ", 4
        if op == "slice":
            cut = f"{of[1]}:{of[2]}" if of[0] in (0, -1) else f"{':, ' * of[0]}{of[1]}:{of[2]}"
            return f"{self.term(args[0], 4)}[{cut}]", 4
        if op in ("reshape", "expand"):
            return self.formula(args[0]) if args[0] not in self.names else (self.term(args[0], 4), 4)
        if op == "concat":
            return f"[{', '.join(self.term(a, 0) for a in args)}]", 4
        if op == "pow":
            return f"{self.term(args[0], 4)}^{self.term(args[1], 4)}", 3
        if op == "less":
            return f"[{self.term(args[0], 1)} < {self.term(args[1], 1)}]", 4
        if op == "equal":
            return f"[{self.term(args[0], 1)} = {self.term(args[1], 1)}]", 4
        if op == "sqrt":
            return f"√({self.term(args[0], 0)})", 4
        if op == "abs":
            return f"|{self.term(args[0], 0)}|", 4
        name = {"sum": "Σ", "max": "max", "stop": "stop"}.get(op, _FUNCTIONS.get(op, op))
        return f"{name}({', '.join(self.term(a, 0) for a in args)})", 4

    def _mean(self, n: int) -> int | None:
        """The node that n is the mean of: its sum times one part of its width."""
        nodes = self.program.nodes
        for a, b in (nodes[n].args, nodes[n].args[::-1]):
            if (
                nodes[a].op == "sum"
                and nodes[b].op == "number"
                and nodes[b].of[0] == 1.0 / nodes[nodes[a].args[0]].width
            ):
                return nodes[a].args[0]
        return None
