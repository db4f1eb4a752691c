"""Copies of a hand-in as a student makes them who does not want to be found, and plain programs that are nobody's copy."""

from __future__ import annotations

import ast
import json
import random
from itertools import pairwise
from typing import Any

DEAD = (
    "unused = None",
    "debug_level = 0",
    "assert True",
    "tmp_value = [1, 2, 3]",
    "_ = str(7)",
    "check = len('ab') == 2",
)


class _Renamed(ast.NodeTransformer):
    """Every name that the file binds, for another one; what the labs ask for by name is renamed too."""

    def __init__(self, tree: ast.AST) -> None:
        bound: set[str] = set()
        attributes: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                bound.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                attributes.add(node.attr)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                bound.add(node.name)
            elif isinstance(node, ast.arg):
                bound.add(node.arg)
        self.names = {
            name: f"v{n}_{name[::-1][:3]}"
            for n, name in enumerate(sorted(bound - {"self", "forward"}))
            if name[:2] != "__"
        }
        self.attributes = {name: f"a{n}" for n, name in enumerate(sorted(attributes))}

    def visit_Name(self, node: ast.Name) -> ast.Name:
        node.id = self.names.get(node.id, node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.arg = self.names.get(node.arg, node.arg)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.Attribute:
        self.generic_visit(node)
        node.attr = self.attributes.get(node.attr, node.attr)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        self.generic_visit(node)
        node.name = self.names.get(node.name, node.name)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.generic_visit(node)
        node.name = self.names.get(node.name, node.name)
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        if isinstance(node.value, str) and " " in node.value:
            node.value = node.value.upper()
        elif isinstance(node.value, float):
            node.value = node.value * 2
        return node


def disguised(text: str, seed: int = 0) -> str:
    """The program with other names, messages and learning rates, no comments, other formatting, dead lines between its own and
    its classes and functions in another order."""
    draw = random.Random(seed)
    tree = ast.parse(text)
    renamed = _Renamed(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            own = isinstance(node.func, ast.Name) and node.func.id in renamed.names
            for keyword in node.keywords if own else ():
                keyword.arg = renamed.names.get(keyword.arg or "", keyword.arg)
    tree = renamed.visit(tree)
    for node in list(ast.walk(tree)):
        for field in ("body", "orelse"):
            body = getattr(node, field, None)
            if isinstance(body, list) and body and draw.random() < 0.4:
                body.insert(draw.randrange(len(body)), ast.parse(draw.choice(DEAD)).body[0])
    body = tree.body
    places = [n for n, node in enumerate(body) if isinstance(node, ast.ClassDef | ast.FunctionDef)]
    for first, second in pairwise(places):
        body[first], body[second] = body[second], body[first]
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def as_notebook(text: str, lines: int = 25) -> str:
    """A script as a notebook, cut where a statement begins at the margin."""
    cells: list[list[str]] = [[]]
    for line in text.splitlines(keepends=True):
        if len(cells[-1]) >= lines and line[:1].isalpha() and not line.startswith(("else", "elif", "except")):
            cells.append([])
        cells[-1].append(line)
    notebook: dict[str, Any] = {"cells": [{"cell_type": "code", "source": cell} for cell in cells], "nbformat": 4}
    return json.dumps(notebook)
