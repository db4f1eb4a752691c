"""What a student's text says of a training loop that a short run cannot show: what stands under an `if`, what is a constant."""

from __future__ import annotations

import ast
from typing import Any

# Ways to show a number or a picture that are not watched: where one is used, nothing is said to be missing.
_OTHER_OUTPUT = {"write", "display", "tqdm", "logging", "logger", "writelines", "pprint"}
_OTHER_PICTURES = set("PIL cv2 plotly skimage imageio bokeh visdom save_image wandb SummaryWriter".split())  # noqa: SIM905


def read_code(text: str) -> dict[str, Any]:
    """Return what is asked of the text, as JSON values.

    ``steps``: calls of ``….step()`` but for schedulers', each with ``line`` and whether it stands under a condition;
    ``backward``: whether a gradient is asked for anywhere; ``backwards`` and ``grads``: the lines of ``.backward`` and ``.grad``;
    ``prints``: per call of ``print``, its lines and whether all that it prints are constants; ``fractions``: see `_fractions`;
    ``shown``: lines of a bare expression, which a notebook displays; ``made``: per class that is called, the lines, and whether
    it is in a loop over epochs; ``loops``: per ``for``, its lines and whether it is left early; ``other_output``,
    ``other_pictures``: other ways of showing. Text that is no Python gives none of them.
    """
    facts: dict[str, Any] = {
        "steps": [],
        "backward": False,
        "backwards": [],
        "grads": [],
        "fractions": [],
        "prints": [],
        "shown": [],
        "made": {},
        "loops": [],
        "other_output": False,
        "other_pictures": False,
    }
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return facts | {"backward": True, "other_output": True, "other_pictures": True}
    reader = _Reader(facts, _constants(tree))
    reader.visit(tree)
    facts["fractions"] = _fractions(tree)
    facts["shown"] = [
        node.lineno
        for node in tree.body
        if isinstance(node, ast.Expr) and not isinstance(node.value, ast.Call | ast.Constant)
    ]
    return facts


def _fractions(tree: ast.AST) -> list[dict[str, Any]]:
    """The quotients that each print shows, worked out there or in a name that it shows.

    Each has ``print`` and ``end``, the lines of the print, its own ``line``, and ``above`` and ``below``: for every name in them
    the lines of the statements that change it, and whether each ``adds`` to it.
    """
    made: dict[str, list[ast.expr]] = {}
    changed: dict[str, list[dict[str, Any]]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AugAssign):
            for goal in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(goal, ast.Name):
                    made.setdefault(goal.id, []).append(node.value)
                    adds = isinstance(node, ast.AugAssign) or goal.id in _names(node.value)
                    changed.setdefault(goal.id, []).append({"line": node.lineno, "adds": adds})
        elif isinstance(node, ast.FunctionDef):
            made[node.name] = [r.value for r in ast.walk(node) if isinstance(r, ast.Return) and r.value is not None]
    found = []
    for node in ast.walk(tree):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"):
            continue
        waiting: list[ast.expr] = list(node.args)
        known = set[str]()
        while waiting:
            value = waiting.pop()
            quotients = [n for n in ast.walk(value) if isinstance(n, ast.BinOp) and isinstance(n.op, ast.Div)]
            for quotient in quotients:
                sides = {
                    side: [one for name in sorted(_names(part)) for one in changed.get(name, [])]
                    for side, part in (("above", quotient.left), ("below", quotient.right))
                }
                found.append({"print": node.lineno, "end": node.end_lineno, "line": quotient.lineno, **sides})
            for name in _names(value) - known if not quotients else ():
                known.add(name)
                waiting += made.get(name, [])
    return found


def _names(node: ast.AST) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _constants(tree: ast.AST) -> set[str]:
    """Names that are given nothing but plain numbers or texts, anywhere in the text."""
    constant, other = set[str](), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            (constant if isinstance(node.value, ast.Constant) else other).add(node.targets[0].id)
            continue
        # a name that is stored to in any other way: a loop, +=, with, a walrus, unpacking, an argument, an import
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
                other.add(child.id)
        if isinstance(node, ast.arg):
            other.add(node.arg)
    return constant - other


class _Reader(ast.NodeVisitor):
    def __init__(self, facts: dict[str, Any], constants: set[str]) -> None:
        self.facts, self.constants = facts, constants
        self._conditions = 0
        self._epochs = 0

    def visit_If(self, node: ast.If) -> None:
        main = "__name__" in ast.dump(node.test)
        self._conditions += not main
        self.generic_visit(node)
        self._conditions -= not main

    def visit_While(self, node: ast.While) -> None:
        self._conditions += 1
        self.generic_visit(node)
        self._conditions -= 1

    def visit_For(self, node: ast.For) -> None:
        over = ast.unparse(node.iter)
        left = any(isinstance(inner, ast.Break | ast.Return) for inner in _own(node))
        self.facts["loops"].append({"line": node.lineno, "end": node.end_lineno, "left": left})
        epochs = "range(" in over and ("epoch" in over.lower() or ast.unparse(node.target).lower() in ("epoch", "ep"))
        self._epochs += epochs
        self.generic_visit(node)
        self._epochs -= epochs

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        # where a function is called from is not known: it is no part of the loop or the condition that it is written in
        kept = self._conditions, self._epochs
        self._conditions = self._epochs = 0
        self.generic_visit(node)
        self._conditions, self._epochs = kept

    def visit_Name(self, node: ast.Name) -> None:
        self._other(node.id)

    def visit_alias(self, node: ast.alias) -> None:
        for part in node.name.split("."):
            self._other(part)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self._other((node.module or "").split(".")[0])
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._other(node.attr)
        if node.attr in ("backward", "grad"):
            self.facts["backward"] = True
            self.facts["grads" if node.attr == "grad" else "backwards"].append(node.lineno)
        self.generic_visit(node)

    def _other(self, name: str) -> None:
        self.facts["other_output"] |= name in _OTHER_OUTPUT
        self.facts["other_pictures"] |= name in _OTHER_PICTURES

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func
        if isinstance(called, ast.Attribute) and called.attr == "step":
            if "sched" not in ast.unparse(called.value).lower():
                self.facts["steps"].append({"line": node.lineno, "under_if": self._conditions > 0})
        elif isinstance(called, ast.Name) and called.id == "print":
            names = {n.id for given in node.args for n in ast.walk(given) if isinstance(n, ast.Name)}
            worked_out = any(
                isinstance(n, ast.Call | ast.Attribute | ast.Subscript) for given in node.args for n in ast.walk(given)
            )
            literal = not worked_out and names <= self.constants
            self.facts["prints"].append({"line": node.lineno, "end": node.end_lineno, "literal": literal})
        elif isinstance(called, ast.Name):
            made = self.facts["made"].setdefault(called.id, [])
            made.append({"line": node.lineno, "each_epoch": self._epochs > 0})
        self.generic_visit(node)


def _own(loop: ast.For) -> list[ast.AST]:
    """The statements of a loop, but for those of loops and functions in it, whose `break` is not its own."""
    found: list[ast.AST] = []
    waiting: list[ast.AST] = list(loop.body)
    while waiting:
        node = waiting.pop()
        found.append(node)
        if not isinstance(node, ast.For | ast.While | ast.FunctionDef | ast.Lambda | ast.ClassDef):
            waiting.extend(ast.iter_child_nodes(node))
    return found
