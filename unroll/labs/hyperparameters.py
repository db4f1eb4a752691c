"""The hyperparameters of a student's file: numbers that it gives names to, and hands to what is trained."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator
from typing import Any

from unroll.labs.source import Source

NAMES = (
    "input_size", "hidden_size", "num_layers", "num_classes", "batch_size", "learning_rate", "lr", "num_epochs", "epochs",
    "n", "m", "T", "seed", "dropout", "weight_decay", "momentum",
)  # fmt: skip
"""Hyperparameters by the labs' names; the longer ones in capitals, too."""
TAKES = {
    "randn", "rand", "zeros", "ones", "empty", "full", "normal", "reshape", "view", "random_split", "manual_seed", "seed",
    "manual_seed_all", "clip_grad_norm_", "clip_grad_value_", "uniform_", "normal_", "dropout",
}  # fmt: skip
"""Functions of torch that are given sizes, rates and seeds; classes (a model, an optimizer, a loader) are, too."""
Loop = ast.For | ast.AsyncFor | ast.While


def is_plain(value: Any) -> bool:
    """Whether it is a number, a short text or a few of them."""
    if type(value) is float:
        return math.isfinite(value)
    if type(value) in (list, tuple):
        return len(value) <= 4 and all(map(is_plain, value))
    return type(value) in (bool, int) or (type(value) is str and len(value) <= 100)


def hyperparameters(source: Source, namespace: dict[str, Any]) -> dict[str, Any]:
    """The numbers that a file gives names to at its top, in its order, and hands to a model, an optimizer, a loader, an update
    or the loop over epochs; and those with the labs' names wherever they stand.

    What is counted up from nothing is none. One that is changed on the way has the value that it was given first.

    Args:
        namespace: the file's names after it ran; empty where they are not known.
    """
    try:
        tree = ast.parse(source.text)
    except (SyntaxError, ValueError, RecursionError):
        return {}
    set_here: dict[str, ast.expr] = {}
    times: dict[str, int] = {}
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        for target in _targets(node):
            times[target] = times.get(target, 0) + 1
            value = getattr(node, "value", None)
            if value is not None and not isinstance(node, ast.AugAssign) and (id(node) in top or _is_known(target)):
                set_here.setdefault(target, value)
    changing = _changing(tree)
    surely, likely = _handed(tree, set_here)
    found = {}
    for name, expression in set_here.items():
        value = namespace.get(name)
        if name in changing or name not in namespace or not is_plain(value):
            try:
                value = ast.literal_eval(expression)
            except ValueError:
                continue
        from_nothing = isinstance(expression, ast.Constant) and not expression.value
        if value is None or not is_plain(value) or (name in changing and from_nothing):
            continue
        is_number = isinstance(expression, ast.Constant | ast.UnaryOp | ast.BinOp) and not isinstance(value, str)
        is_handed = name in surely or (name in likely and not from_nothing)
        if _is_known(name) or (is_number and is_handed and times[name] == 1):
            found[name] = value
    for name in NAMES:
        is_set = name in namespace and name not in found and name not in changing
        if is_set and type(namespace[name]) in (int, float) and len(name) > 1:
            found[name] = namespace[name]
    return found


def _is_known(name: str) -> bool:
    return name in NAMES or (len(name) > 1 and name.lower() in NAMES)


def _targets(node: ast.AST) -> Iterator[str]:
    """The names that a statement sets; twice where it changes them."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign):
        targets = [node.target]
    elif isinstance(node, ast.AugAssign):
        targets = [node.target, node.target]
    return (target.id for target in targets if isinstance(target, ast.Name))


def _changing(tree: ast.AST) -> set[str]:
    """The names that are changed from what they were, and those that loops go through."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.AugAssign):
            found |= set(_targets(node))
        elif isinstance(node, ast.Assign):
            found |= set(_targets(node)) & _names(node.value)
        elif isinstance(node, ast.For | ast.AsyncFor):
            found |= _names(node.target)
    return found


def _handed(tree: ast.AST, set_here: dict[str, ast.expr]) -> tuple[set[str], set[str]]:
    """The names that are surely handed to what is trained, and those that seem to be: a counter may be among these."""
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    surely: set[str] = set()
    likely: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = _called(node)
            given = _names(*node.args, *(keyword.value for keyword in node.keywords))
            if called[:1].isupper() or called in TAKES:
                surely |= given
            elif called in own:
                likely |= given
        elif isinstance(node, ast.arguments):
            likely |= _names(*node.defaults, *(value for value in node.kw_defaults if value is not None))
        elif isinstance(node, ast.Dict):
            likely |= _names(*node.values)
        elif isinstance(node, ast.For | ast.AsyncFor):
            if _repeats_training(node, own):
                likely |= _names(node.iter)
        elif isinstance(node, ast.While):
            likely |= _names(node.test)
        elif isinstance(node, ast.Assign | ast.AugAssign | ast.Expr):
            targets = node.targets if isinstance(node, ast.Assign) else []
            into = any(isinstance(target, ast.Attribute | ast.Subscript) for target in targets)
            down = isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Sub)
            if into or down or any(isinstance(n, ast.Attribute) and n.attr == "grad" for n in ast.walk(node)):
                likely |= _names(node.value)
    for _ in range(3):  # one may be computed from another, and that from a third
        for name, expression in set_here.items():
            surely |= _names(expression) if name in surely else set()
            likely |= _names(expression) if name in likely else set()
    return surely, likely


def _repeats_training(loop: ast.For | ast.AsyncFor, own: set[str]) -> bool:
    """Whether a loop may be that over epochs: there is another one in it, a step of training, or a function of the file."""
    inner = [node for statement in loop.body for node in ast.walk(statement)]
    return any(
        isinstance(node, Loop) or (isinstance(node, ast.Call) and _called(node) in own | {"backward", "step"})
        for node in inner
    )


def _called(call: ast.Call) -> str:
    """The last name of what is called."""
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _names(*expressions: ast.expr) -> set[str]:
    return {node.id for expression in expressions for node in ast.walk(expression) if isinstance(node, ast.Name)}
