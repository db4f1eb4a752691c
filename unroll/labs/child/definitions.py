"""What a student's file defines, without what it does: a file of its imports, classes, functions and simple constants.

It is no defence: a class's body, too, can do anything. It makes a trained model's classes known without training it again.
"""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import Any

from unroll.labs.source import Source

SIMPLE = (
    ast.Constant, ast.Name, ast.Attribute, ast.Tuple, ast.List, ast.Dict, ast.Set, ast.UnaryOp, ast.BinOp, ast.Compare,
    ast.BoolOp, ast.IfExp, ast.Subscript, ast.Slice, ast.JoinedStr, ast.FormattedValue, ast.Starred, ast.keyword,
    ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop,
)  # fmt: skip
CALLS = {
    "int", "float", "str", "bool", "len", "range", "list", "tuple", "dict", "min", "max", "round", "sum", "torch.device",
    "torch.cuda.is_available", "cuda.is_available", "torch.backends.mps.is_available", "SimpleNamespace",
    "types.SimpleNamespace",
}  # fmt: skip


def definitions(source: Source) -> Source:
    """The file that only defines what the given one does; a statement that fails there is passed over.

    Raises:
        SyntaxError: the file is no Python.
    """
    tree = ast.parse(source.text)
    plain = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and all(_dotted(base) in ("object", "NamedTuple") for base in node.bases)
    }
    kept: list[ast.stmt] = []
    for node in _kept(tree.body, CALLS | plain):
        if isinstance(node, ast.ImportFrom) and node.module == "__future__":
            kept.append(node)
        else:
            passed = ast.ExceptHandler(ast.Name("Exception", ast.Load()), None, [ast.Pass()])
            kept.append(ast.Try([node], [passed], [], []))
    text = ast.unparse(ast.fix_missing_locations(ast.Module(kept, [])))
    return replace(source, text=f"{text}\npass\n", listing=text, cells=())


def calls_of(source: Source, name: str) -> list[tuple[list[str], dict[str, str]]]:
    """The arguments with which a class is called in a file, the last call first: by place and by name, as Python text."""
    found = []
    for node in ast.walk(ast.parse(source.text)):
        if isinstance(node, ast.Call) and _dotted(node.func) == name:
            given = [*node.args, *(keyword.value for keyword in node.keywords)]
            if all(is_simple(value) and not isinstance(value, ast.Starred) for value in given):
                named = {
                    keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords if keyword.arg is not None
                }
                if len(named) == len(node.keywords):
                    found.append((node.lineno, ([ast.unparse(value) for value in node.args], named)))
    return [call for _, call in sorted(found, key=lambda row: row[0], reverse=True)]


def is_simple(expression: ast.expr, calls: set[str] = CALLS) -> bool:
    """Whether an expression is made of constants, names, operators and harmless calls alone."""
    return all(
        isinstance(node, SIMPLE) or (isinstance(node, ast.Call) and _dotted(node.func) in calls)
        for node in ast.walk(expression)
    )


def _kept(body: list[ast.stmt], calls: set[str]) -> list[ast.stmt]:
    found: list[ast.stmt] = []
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.append(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets: list[ast.expr] = [*node.targets] if isinstance(node, ast.Assign) else [node.target]
            if _names(targets) and node.value is not None and is_simple(node.value, calls):
                found.append(node)
        elif isinstance(node, ast.If) and is_simple(node.test, calls):
            inner, other = _kept(node.body, calls), _kept(node.orelse, calls)
            if inner or other:
                found.append(ast.If(node.test, inner or [ast.Pass()], other))
        elif isinstance(node, ast.Try):
            found += _tried(node, calls)
    return found


def _names(targets: list[ast.expr]) -> bool:
    """Whether what is assigned to are the file's own names, and no other module's."""
    return all(
        _names(target.elts) if isinstance(target, ast.Tuple) else isinstance(target, ast.Name) for target in targets
    )


def _tried(node: ast.Try, calls: set[str]) -> list[ast.stmt]:
    """The definitions within a try statement; the statement itself where all of it are definitions, such as imports."""
    parts = [node.body, *(handler.body for handler in node.handlers), node.orelse, node.finalbody]
    if all(len(_kept(part, calls)) == len(part) for part in parts):
        return [node]
    return _kept(node.body, calls)


def _dotted(node: Any) -> str | None:
    if isinstance(node, ast.Attribute):
        inner = _dotted(node.value)
        return None if inner is None else f"{inner}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else None
