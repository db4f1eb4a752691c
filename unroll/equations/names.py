"""Names as the author gave them, and the symbols that formulas make of them."""

from __future__ import annotations

import ast
import linecache
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from unroll.equations.program import Program

ACCENTS = {"tilde": "\u0303", "hat": "\u0302", "bar": "\u0304", "dot": "\u0307"}
Span = tuple[int, ...]  # lines and columns of an expression


@dataclass(frozen=True)
class Symbol:
    """A letter or word with its indices.

    Attributes:
        base: such as ``"c"``.
        sub: indices in the author's spelling, such as ``("ih", "2")``.
        accent: a key of `ACCENTS`.
        time: ``"t"`` or ``"t-1"`` of what differs from step to step.
    """

    base: str
    sub: tuple[str, ...] = ()
    accent: str | None = None
    time: str | None = None


def symbol_of(name: str, time: str | None = None) -> Symbol:
    """A name of Python's as a symbol.

    >>> symbol_of("c_tilde", "t")
    Symbol(base='c', sub=(), accent='tilde', time='t')
    """
    parts = [part for part in name.split("_") if part] or [name]
    accent = next((part for part in parts[1:] if part in ACCENTS), None)
    parts = [parts[0], *(part for part in parts[1:] if part not in ACCENTS)]
    base, digits = re.fullmatch(r"(.*?)(\d*)", parts[0]).groups()  # type: ignore[union-attr]
    if not base:
        base, digits = parts[0], ""
    sub = "_".join([*([digits] if digits else []), *parts[1:]])
    return Symbol(base, (sub,) if sub else (), accent, time)


def author_names(program: Program) -> dict[int, str]:
    """What the author calls the nodes: the targets of assignments, as far as the source can be read, or what a node keeps."""
    found = {n: node.name for n, node in enumerate(program.nodes) if node.name is not None}
    targets: dict[str, dict[Span, list[str]]] = {}
    for (file, span), nodes in program.places:
        if file not in targets:
            linecache.checkcache(file)  # it may have been written anew since
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


def distinct(names: Sequence[str]) -> list[str] | None:
    """What tells names that belong together apart: the names without the beginning or end that they share.

    None where they are not all different.

    >>> distinct(["a_i", "a_f"]), distinct(["in_gate", "out_gate"]), distinct(["f", "c_tilde"]), distinct(["a", "a"])
    (['i', 'f'], ['in', 'out'], ['f', 'c'], None)
    """
    if len(names) > 1:
        for flip in (slice(None), slice(None, None, -1)):  # the beginning, then the end
            words = [name.split("_")[flip] for name in names]
            while all(len(word) > 1 for word in words) and len({word[0] for word in words}) == 1:
                words = [word[1:] for word in words]
            names = ["_".join(word[flip]) for word in words]
    short = ["_".join(part for part in name.split("_") if part not in ACCENTS) or name for name in names]
    names = short if len(set(short)) == len(short) else list(names)
    return names if len(set(names)) == len(names) else None


def parameter_symbols(paths: Mapping[str, bool]) -> dict[str, Symbol]:
    """A symbol for each parameter, by its path in the cell: as short as they stay different.

    The ``weight`` and ``bias`` of torch's modules have the letters of their documentation: W and b, or γ and β where they
    scale and shift.

    Args:
        paths: whether a parameter is used in products, by path.
    """
    choices = {path: _choices(path, matrix, paths) for path, matrix in paths.items()}
    level = dict.fromkeys(paths, 0)
    while True:
        chosen = {path: found[min(level[path], len(found) - 1)] for path, found in choices.items()}
        many = Counter(chosen.values())
        again = [path for path in paths if many[chosen[path]] > 1 and level[path] + 1 < len(choices[path])]
        if not again:
            return chosen
        for path in again:
            level[path] += 1


def _choices(path: str, matrix: bool, paths: Mapping[str, bool]) -> list[Symbol]:
    *modules, name = path.split(".")
    if modules[:1] == ["module"]:  # of a module that `as_cell` took
        modules = modules[1:]
    whole = "_".join(modules)
    kind = re.fullmatch("(weight|bias)(_.*)?", name)
    if kind is None:
        own = symbol_of(name)
    elif kind[1] == "weight":
        own = symbol_of(("W" if matrix else "gamma") + (kind[2] or ""))
    else:
        scales = not paths.get(".".join([*path.split(".")[:-1], "weight"]), True)
        own = symbol_of(("beta" if scales else "b") + (kind[2] or ""))
    found = [own]
    if modules and kind is not None:
        module = symbol_of(modules[-1])
        if module.base[:1].isupper():  # the author has called the module itself as the matrix is called
            found.append(module if kind[1] == "weight" else replace(own, sub=(*own.sub, *module.sub)))
        found.append(replace(own, sub=(*own.sub, modules[-1])))
    if modules:
        found.append(replace(own, sub=(*own.sub, whole)))
    return found
