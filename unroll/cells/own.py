"""Cells of one's own: ``FILE.py:CLASS``, run where somebody asks for a training, and never when a run is read."""

from __future__ import annotations

import inspect
import linecache
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from unroll.errors import InputError, nearest

if TYPE_CHECKING:
    from torch import nn

FORM = re.compile(r"(.+\.py):([^\W\d]\w*)")
EXPECTED = "FILE.py:CLASS"

_loaded: dict[str, Callable[..., nn.Module]] = {}


def is_own(cell: str) -> bool:
    """Whether a recipe's cell is a class in a file."""
    return FORM.fullmatch(cell) is not None


def own_parts(cell: str) -> tuple[Path, str]:
    """File and class of a cell of one's own."""
    found = FORM.fullmatch(cell)
    assert found is not None
    return Path(found[1]), found[2]


def load_own(cell: str) -> None:
    """Run the file of a cell of one's own, so that `own_type` knows its class. This executes the file.

    Raises:
        InputError: there is no such file or class, or the file cannot be run.
    """
    path, name = own_parts(cell)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise InputError(f"the cell's file {path} cannot be read: {error.strerror}; expected {EXPECTED}") from None
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    linecache.checkcache(str(path))  # an earlier text of the file
    before = sys.modules.get(module.__name__)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    sys.path.insert(0, str(path.parent.resolve()))  # what stands beside it can be imported, as python FILE.py has it
    try:
        exec(compile(source, str(path), "exec"), vars(module))
    except (Exception, SystemExit) as error:
        raise InputError(f"the cell's file {path} cannot be run: {described(error, path)}") from None
    finally:
        sys.path.remove(str(path.parent.resolve()))
        if before is not None:
            sys.modules[module.__name__] = before
    found = vars(module).get(name)
    if not callable(found):
        known = [n for n, value in vars(module).items() if callable(value) and _made_in(value, module)]
        hint = nearest(name, known) if known else "; it defines no class at all"
        raise InputError(f"{path} has no class or function {name!r}{hint}")
    _loaded[_key(cell)] = found


def own_type(cell: str) -> Callable[..., nn.Module]:
    """The class of a cell of one's own, which `load_own` has loaded.

    Raises:
        InputError: it has not been.
    """
    if _key(cell) not in _loaded:
        raise InputError(f"the cell {cell} is code in a file, which only training a recipe runs; train it anew")
    return _loaded[_key(cell)]


def check_own(cell: str, input_size: int, hidden_size: int, words: bool) -> None:
    """Raise InputError unless the class of a cell of one's own makes, of D and H, a module that computes one step.

    Args:
        words: x_t are word indices (B,), and not features (B, D).
    """
    import torch

    from unroll.cells.base import as_cell, parts

    path, name = own_parts(cell)
    kind, call = own_type(cell), f"{name}({input_size}, {hidden_size})"
    try:
        made = kind(input_size, hidden_size)
    except (Exception, SystemExit) as error:
        raise InputError(f"{call} fails: {described(error, path)}; it is called with D and H") from None
    try:
        step = as_cell(made)
    except InputError as error:
        raise InputError(f"{error} ({_place(made, kind)})") from None
    x = torch.zeros(2, dtype=torch.int64) if words else torch.zeros(2, input_size)
    remedy = ""
    if words:
        remedy = "; it reads word indices (B,) here: give --embedding-size, such as 64, for features (B, 64)"
    try:
        with torch.no_grad():
            state = step.initial_state(2)
            new = parts(step(x, state))
    except InputError as error:
        place = _place(made, kind)
        raise InputError(f"{error}{remedy}" if place in str(error) else f"{error} ({place}){remedy}") from None
    except (Exception, SystemExit) as error:
        raise InputError(f"{name} computes no step: {described(error, path)}{remedy}") from None
    shown = [tuple(getattr(t, "shape", ())) for t in new]
    wanted = [(2, size) for size in step.state_sizes]
    if shown != wanted or [tuple(t.shape) for t in parts(state)] != wanted:
        begun = [tuple(t.shape) for t in parts(state)]
        raise InputError(
            f"{name} goes from a state of shapes {begun} to {shown}; expected {wanted} ({_place(made, kind)})"
        )
    types = [str(t.dtype) for t in parts(state)], [str(t.dtype) for t in new]
    if types[0] != types[1]:
        raise InputError(
            f"{name} goes from a state of {types[0]} to {types[1]}; expected the same ({_place(made, kind)})"
        )


def described(error: BaseException, path: Path) -> str:
    """An exception in one line, with the last line of the author's file that it came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    line = frames[-1].lineno if frames else None
    if isinstance(error, SyntaxError) and error.filename == str(path):
        line = error.lineno
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    said = f"{type(error).__name__}: {' '.join(text.split())}" if text else type(error).__name__
    return said if line is None else f"{said} ({path}:{line})"


def _place(made: Any, kind: Any) -> str:
    """File and line of the step, as far as they can be found."""
    steps: tuple[Any, ...] = getattr(type(made), "forward", None), kind
    for one in steps:
        try:
            code = inspect.unwrap(one)
            return f"{inspect.getsourcefile(code)}:{inspect.getsourcelines(code)[1]}"
        except (TypeError, OSError):
            continue
    return "whose source is not there"


def _made_in(value: Any, module: ModuleType) -> bool:
    return getattr(value, "__module__", None) == module.__name__


def _key(cell: str) -> str:
    path, name = own_parts(cell)
    return f"{path.resolve()}:{name}"
