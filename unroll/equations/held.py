"""What a cell holds beside its tensors: to know whether it has changed, and to leave it as it was."""

from __future__ import annotations

import random
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from unroll.cells.base import Cell


def remembered(module: nn.Module) -> tuple[Any, ...]:
    """What plain values, modules and parameters hang in a module's tree: other than before means another program.

    Parameters count by identity, other tensors by identity and by how often they were written to, plain values by what they
    are, lists, dicts and objects by what they hold, functions by their code and the plain globals that it names.
    """
    found: list[Any] = []
    look, classes = _Look(), {}
    for name, part in module.named_modules():
        kind = type(part)
        if kind not in classes:
            classes[kind] = look.of_class(kind)
        found.append((name, id(part), part.training, classes[kind]))
        for key, value in vars(part).items():
            if key in ("_parameters", "_modules"):
                found.append(tuple((k, id(v)) for k, v in value.items()))
            elif isinstance(value, _PLAIN):
                found.append((key, value))
            elif not isinstance(value, dict) or value:  # of hooks there are many dicts, and nothing is in them
                found.append((key, look.at(value)))
    return tuple(found)


_PLAIN = (bool, int, float, complex, str, bytes, type(None))
MOST_VALUES, MOST_IN_ONE, DEEPEST_VALUE = 2000, 200, 6


class _Look:
    """Looks at values, at not too many and not too deep."""

    def __init__(self) -> None:
        self.left = MOST_VALUES

    def at(self, value: Any, depth: int = DEEPEST_VALUE) -> Any:
        if isinstance(value, _PLAIN):
            return value
        self.left -= 1
        if depth == 0 or self.left < 0 or isinstance(value, nn.Module | nn.Parameter | ModuleType | type):
            return id(value)
        if isinstance(value, Tensor):  # torch has no other name for how often a tensor was written to
            return id(value), value.is_inference() or value.requires_grad or value._version
        if isinstance(value, _HOLDERS) and len(value) > MOST_IN_ONE:
            return id(value), len(value)
        if isinstance(value, list | tuple | set | frozenset | deque):
            return id(type(value)), tuple(self.at(one, depth - 1) for one in value)
        if isinstance(value, dict):
            return tuple((self.at(k, 1), self.at(v, depth - 1)) for k, v in value.items())
        if isinstance(value, MethodType):
            return id(value.__self__), self.at(value.__func__, depth)
        if isinstance(value, FunctionType):
            return self.of_function(value, depth)
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.ndarray):
            return id(value), hash(value.tobytes()) if value.nbytes < 1e6 else None
        own = getattr(value, "__dict__", None)
        return (id(value), self.at(own, depth - 1)) if type(own) is dict else id(value)

    def of_function(self, function: FunctionType, depth: int) -> Any:
        """Its code, with the globals, defaults and values of functions around it."""
        code, spaces = function.__code__, function.__globals__
        if spaces.get("__name__", "").partition(".")[0] in ("torch", "unroll"):
            return id(code)
        named = [spaces[name] for name in code.co_names if name in spaces]
        around = [cell.cell_contents for cell in function.__closure__ or () if _is_full(cell)]
        return id(code), self.at([*named, *around, *(function.__defaults__ or ())], depth - 1)

    def of_class(self, kind: type) -> Any:
        """The values and functions of an author's class, which may be changed, or loaded anew, at any time."""
        found = []
        for one in kind.__mro__:
            if one.__module__.partition(".")[0] in ("torch", "unroll", "builtins", "typing"):
                continue
            for key, value in vars(one).items():
                if key == "__init__" or (key.startswith("__") and not isinstance(value, FunctionType)):
                    continue
                found.append((key, self.at(value)))
        return tuple(found)


def _is_full(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def replica(cell: Cell) -> Cell:
    """A cell with the same tensors and attributes, which may be given others without the cell's own being touched.

    Other threads may be at work with the cell meanwhile.
    """
    made: dict[int, nn.Module] = {}
    modules = list(cell.modules())
    if any(isinstance(part, torch.jit.ScriptModule) for part in modules):  # which live outside of Python
        return cell
    for part in modules:
        made[id(part)] = part.__new__(type(part))
        vars(made[id(part)]).update(vars(part))
    for part in modules:
        own = vars(made[id(part)])
        own["_parameters"], own["_buffers"] = dict(part._parameters), dict(part._buffers)
        own["_modules"] = {name: None if one is None else made[id(one)] for name, one in part._modules.items()}
        for key, value in own.items():
            if isinstance(value, MethodType) and id(value.__self__) in made:
                own[key] = MethodType(value.__func__, made[id(value.__self__)])
    return cast(Cell, made[id(cell)])


@contextmanager
def as_it_was(module: nn.Module) -> Iterator[None]:
    """Leave the lists, dicts and sets among modules' attributes with what they held."""
    kept = [(v, v.copy()) for part in module.modules() for v in vars(part).values() if isinstance(v, _HOLDERS)]
    try:
        yield
    finally:
        for value, held in kept:
            if not _holds(value, held):
                value.clear()
                value.update(held) if isinstance(value, dict | set) else value.extend(held)


_HOLDERS = (list, dict, set, deque)


def _holds(value: Any, held: Any) -> bool:
    """Whether two lists, dicts or sets hold the very same."""
    now, then = ([*v, *v.values()] if isinstance(v, dict) else list(v) for v in (value, held))
    return len(now) == len(then) and all(a is b for a, b in zip(now, then, strict=True))


def random_states() -> tuple[Any, ...]:
    """The states of all random numbers that a step may draw without torch's telling."""
    numpy = sys.modules.get("numpy")
    return torch.get_rng_state(), random.getstate(), numpy and numpy.random.get_state()


def drawn_since(states: tuple[Any, ...]) -> tuple[bool, ...]:
    """Of which generators, by the places in `random_states`, numbers have been drawn since; by whom, nobody can tell."""
    (of_torch, of_python, of_numpy), now = states, random_states()
    of_array = of_numpy is not None and (of_numpy[2:] != now[2][2:] or (of_numpy[1] != now[2][1]).any())
    return not torch.equal(of_torch, now[0]), of_python != now[1], bool(of_array)


def restore_random(states: tuple[Any, ...]) -> None:
    """Set the generators back that numbers have been drawn of."""
    numpy: Any = sys.modules.get("numpy")
    put = torch.set_rng_state, random.setstate, numpy and numpy.random.set_state
    for drawn, set_state, state in zip(drawn_since(states), put, states, strict=True):
        if drawn:
            set_state(state)
