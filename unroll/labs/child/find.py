"""Which of the classes in a student's file is the cell, and which the classifier."""

from __future__ import annotations

import dis
import functools
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

from torch import Tensor, nn

from unroll.labs.child.tape import hanging

_OTHERS = ("torch", "torchvision", "torchaudio", "unroll", "builtins", "lightning", "pytorch_lightning")
_ROLES = {
    "x": {"x", "xt", "input", "inputs", "inp", "xs", "features"},
    "h": {"h", "ht", "hidden", "hx", "hprev", "hs", "hid", "ht1", "short"},
    "c": {"c", "ct", "cell", "cx", "cprev", "memory", "mem", "cs", "ct1", "long"},
}


@dataclass(frozen=True)
class Wanted:
    """What a lab calls its classes, and how many states its cell has.

    Attributes:
        called: ``LSTM``, as in ManualLSTMCell.
        states: 2 of h and c, 1 of h alone.
    """

    called: str = "LSTM"
    states: int = 2

    @property
    def cell(self) -> str:
        return f"Manual{self.called}Cell"

    @property
    def classifier(self) -> str:
        return f"Manual{self.called}Classifier"

    @property
    def step(self) -> str:
        """The cell's forward, as the lab has it."""
        return "forward(x, h_prev, c_prev)" if self.states == 2 else "forward(x, h_prev)"


LSTM = Wanted()


@dataclass
class Found:
    """What was found in a namespace.

    Attributes:
        cell, classifier: the classes; None where there is none, or more than one could be it.
        reason: why there is no cell, in a sentence.
        classifier_reason: why there is no classifier.
        cells, classifiers: instances that were seen while the file ran, the first ones first.
        namespace: of the file.
        unclear: there may be a cell, but which class it is cannot be told.
        step: where the step stands, there being no class of its own: ``name`` of a method or function, and ``line``.
        plain: the author's own class, where that is no nn.Module; `cell` is then a module made of it.
        plain_call: how its step is called, such as ``cell.forward``.
        plain_seen: instances of it.
        wanted: what was looked for.
    """

    cell: type[nn.Module] | None = None
    classifier: type[nn.Module] | None = None
    reason: str | None = None
    classifier_reason: str | None = None
    cells: list[nn.Module] = field(default_factory=list)
    classifiers: list[nn.Module] = field(default_factory=list)
    namespace: Mapping[str, Any] = field(default_factory=dict)
    unclear: bool = False
    step: dict[str, Any] | None = None
    plain: type | None = None
    plain_call: str = "cell"
    plain_seen: list[Any] = field(default_factory=list)
    wanted: Wanted = LSTM


def find(
    namespace: Mapping[str, Any], seen: Sequence[nn.Module], cell_name: str | None = None, wanted: Wanted = LSTM
) -> Found:
    """The cell and the classifier of a file that has run.

    The cell is the class that is asked for, the one with the lab's name (these also where they are no nn.Module), or the only
    one whose forward takes x and the lab's states; the classifier is the one with the lab's name, or the only one that takes
    x alone and uses the cell.

    Args:
        namespace: the file's names.
        seen: modules whose forward was called while the file ran.
        cell_name: the class to take as the cell.
        wanted: names, and the number of states.
    """
    classes = _classes(namespace, seen)
    instances = [part for module in seen for part in module.modules()]
    instances += [part for value in namespace.values() if isinstance(value, nn.Module) for part in value.modules()]
    found = Found(namespace=namespace, wanted=wanted)
    named = namespace.get(cell_name or wanted.cell)
    if (
        (cell_name or wanted.cell) not in classes
        and isinstance(named, type)
        and _own(named)
        and not issubclass(named, nn.Module)
    ):
        _take_plain(found, named, instances)
        if found.reason is not None:
            found.reason += f"; there is {_listed(list(classes))}"
    else:
        found.cell, found.reason, found.unclear = _find_cell(classes, instances, cell_name, wanted)
    if found.cell is None and cell_name is None and not found.unclear:
        found.step = _step_elsewhere(namespace, classes, wanted)
    found.classifier, found.classifier_reason = _find_classifier(classes, instances, found.cell, wanted)
    unique = list({id(module): module for module in instances}.values())
    found.cells = [module for module in unique if type(module) is found.cell]
    found.classifiers = [module for module in unique if type(module) is found.classifier]
    return found


def _classes(namespace: Mapping[str, Any], seen: Sequence[nn.Module]) -> dict[str, type[nn.Module]]:
    """The author's own classes by name, in the order in which they were made."""
    found: dict[str, type[nn.Module]] = {}
    values = [*namespace.values(), *(type(part) for module in seen for part in module.modules())]
    for value in values:
        if isinstance(value, type) and issubclass(value, nn.Module) and _own(value):
            found.setdefault(value.__name__, value)
    return found


def _own(value: Any) -> bool:
    """Whether a class or function is the author's."""
    return str(getattr(value, "__module__", "torch")).partition(".")[0] not in _OTHERS


def _find_cell(
    classes: Mapping[str, type[nn.Module]], instances: Sequence[nn.Module], asked: str | None, wanted: Wanted
) -> tuple[type[nn.Module] | None, str | None, bool]:
    """The cell; else why there is none, and whether it is only unclear which it is."""
    there = _listed(list(classes))
    if asked is not None:
        if asked in classes:
            kind = classes[asked]
            if not arguments(kind) or (asked != wanted.classifier and step_roles(kind, wanted.states) is not None):
                return kind, None, False
            others = [name for name in classes if name != asked]
            likely = [n for n in others if n != wanted.classifier and step_roles(classes[n], wanted.states) is not None]
            takes = ", ".join(one.name for one in arguments(kind))
            needed = ["x", "h_prev", "c_prev"][: 1 + wanted.states]
            needs = f"{', '.join(needed[:-1])} and {needed[-1]}"
            why = f"its forward takes {takes}, and a cell's takes {needs}; there is {_listed(likely or others)}"
            return None, why, False
        return None, f"there is no class {asked} that is a torch.nn.Module; there is {there}", False
    if wanted.cell in classes:
        return classes[wanted.cell], None, False
    steps = {
        name: kind for name, kind in classes.items() if step_roles(kind, wanted.states) and name != wanted.classifier
    }
    if len(steps) > 1:  # a classifier may take a state as well
        steps = {
            n: k for n, k in steps.items() if not any(_uses(k, o, instances) for o in steps.values() if o is not k)
        }
    if len(steps) > 1:
        named = {name: kind for name, kind in steps.items() if wanted.called.lower() in name.lower()}
        steps = named or steps
    if len(steps) == 1:
        return next(iter(steps.values())), None, False
    if steps:
        return None, f"more than one class could be the cell: {_listed(list(steps))}; name one with --cell", True
    if not classes:
        return None, f"the file defines no class that is a torch.nn.Module; expected {wanted.cell}", False
    return None, f"no class has a {wanted.step}, and none is called {wanted.cell}; there is {there}", False


def _step_elsewhere(
    namespace: Mapping[str, Any], classes: Mapping[str, type[nn.Module]], wanted: Wanted
) -> dict[str, Any] | None:
    """A method or function of the author's that looks like the step: by its arguments, or by calling both σ and tanh."""
    functions = [(name, value) for name, value in namespace.items() if inspect.isfunction(value) and _own(value)]
    plain = {name: value for name, value in namespace.items() if isinstance(value, type) and _own(value)}
    groups = [
        [(f"{name}.{method}", value) for method, value in vars(kind).items() if inspect.isfunction(value)]
        for name, kind in {**plain, **classes}.items()
    ]
    for group in [*groups, *([one] for one in functions)]:
        called = {word.lower() for _, value in group for word in _words(value.__code__)}
        steps = [(name, value) for name, value in group if _named_as_step(value, wanted)]
        both = [(name, value) for name, value in group if {"sigmoid", "tanh"} <= set(_words(value.__code__))]
        if {"sigmoid", "tanh"} <= called:
            forward = [(name, value) for name, value in group if name.endswith(".forward")]
            for name, value in (steps + both + forward)[:1]:
                return {"name": name, "line": value.__code__.co_firstlineno}
    return None


def _words(code: CodeType) -> Iterator[str]:
    """The names that code reads, also within its comprehensions."""
    yield from code.co_names
    for one in code.co_consts:
        if isinstance(one, CodeType):
            yield from _words(one)


def _named_as_step(function: Any, wanted: Wanted) -> bool:
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    return {"x", *"hc"[: wanted.states]} <= {role_of(name) for name in names}


# --- a cell that is no nn.Module


def _take_plain(found: Found, kind: type, instances: Sequence[nn.Module]) -> None:
    """Take a class that is no nn.Module as the cell, where one can be made of it."""
    name = kind.__name__
    own = [key for base in kind.__mro__[:-1] for key, value in vars(base).items() if inspect.isfunction(value)]
    steps = [key for key in own if _named_as_step(getattr(kind, key), found.wanted)]
    step = next((key for key in ("forward", "__call__", *steps) if key in own), None)
    if step is None:
        found.reason = f"{name} is no torch.nn.Module, and has no {found.wanted.step}"
        return
    try:
        found.cell = as_module(kind, step)
    except TypeError:
        found.reason = f"{name} is no torch.nn.Module"
        return
    found.plain, found.plain_call = kind, "cell" if "__call__" in own else f"cell.{step}"
    holders = [value for module in instances for value in vars(module).values()]
    seen = [value for value in [*found.namespace.values(), *holders] if type(value) is kind]
    found.plain_seen = list({id(value): value for value in seen}.values())


def as_module(kind: type, step: str) -> type[nn.Module]:
    """A module made of a class that is none: called alike, and its tensors that require gradients are its parameters.

    Args:
        step: the name of the method that is to be ``forward``.

    Raises:
        TypeError: the class cannot be one.
    """

    initial: Any = getattr(kind, "__init__")  # noqa: B009 (of a class that is not known)

    @functools.wraps(initial)
    def begin(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        nn.Module.__init__(self)
        initial(self, *args, **kwargs)

    def named_parameters(self: nn.Module, *args: Any, **kwargs: Any) -> Iterator[tuple[str, Tensor]]:
        named = dict(nn.Module.named_parameters(self, *args, **kwargs))
        known = {id(p) for p in named.values()}
        yield from named.items()
        for path, tensor in learnable(self):
            if id(tensor) not in known:
                known.add(id(tensor))
                yield path, tensor

    def parameters(self: nn.Module, recurse: bool = True) -> Iterator[Tensor]:
        return (tensor for _, tensor in self.named_parameters())

    def apply(self: nn.Module, function: Any, recurse: bool = True) -> nn.Module:
        nn.Module._apply(self, function)
        for key, value in vars(self).items():
            if key not in OF_MODULES:
                for _, tensor in hanging(value, key):
                    if tensor.is_leaf:
                        tensor.data = function(tensor.data)
        return self

    made = {
        "__init__": begin,
        "__module__": kind.__module__,
        "__hash__": object.__hash__,
        "__eq__": object.__eq__,
        "forward": getattr(kind, step),
        "named_parameters": named_parameters,
        "parameters": parameters,
        "_apply": apply,
    }
    return type(kind.__name__, (kind, nn.Module), made)


OF_MODULES = frozenset({"_parameters", "_modules", "_buffers"})
"""Attributes in which a module keeps what is registered."""


def learnable(thing: Any) -> Iterator[tuple[str, Tensor]]:
    """Tensors among the attributes of an object that is no module, with their paths, which require gradients."""
    for key, value in list(vars(thing).items()):
        if key not in OF_MODULES:
            yield from ((path, one) for path, one in hanging(value, key) if one.requires_grad and one.is_leaf)


def _find_classifier(
    classes: Mapping[str, type[nn.Module]],
    instances: Sequence[nn.Module],
    cell: type[nn.Module] | None,
    wanted: Wanted,
) -> tuple[type[nn.Module] | None, str | None]:
    if wanted.classifier in classes and classes[wanted.classifier] is not cell:
        return classes[wanted.classifier], None
    others = {name: kind for name, kind in classes.items() if kind is not cell}
    if cell is None:
        whole = {name: kind for name, kind in others.items() if len(required(kind)) == 1}
    else:
        whole = {
            name: kind for name, kind in others.items() if len(required(kind)) == 1 and _uses(kind, cell, instances)
        }
        if len(whole) > 1:  # a model around the model that is meant
            inner = {
                n: k for n, k in whole.items() if not any(_uses(k, o, instances) for o in whole.values() if o is not k)
            }
            whole = inner or whole
    if len(whole) == 1:
        return next(iter(whole.values())), None
    if whole:
        return None, f"more than one class could be the classifier: {_listed(list(whole))}; call it {wanted.classifier}"
    return None, f"no class takes x alone and uses the cell, and none is called {wanted.classifier}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", …" if len(names) > 8 else "") if names else "none"


def arguments(kind: type[nn.Module]) -> list[inspect.Parameter]:
    """The positional arguments of a class's forward, without self; none where they cannot be told."""
    try:
        given = list(inspect.signature(kind.forward).parameters.values())[1:]
    except (TypeError, ValueError):
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [argument for argument in given if argument.kind in positional]


def is_empty(kind: type[nn.Module]) -> bool:
    """Whether a class has no forward of its own yet, or one that only says ``pass``, ``...`` or ``return None``."""
    code = getattr(kind.forward, "__code__", None)
    if kind.forward is nn.Module.forward or code is None:
        return kind.forward is nn.Module.forward
    return all(one.opname in ("RESUME", "NOP", "LOAD_CONST", "RETURN_VALUE") for one in dis.get_instructions(code))


def required(kind: type[nn.Module]) -> list[inspect.Parameter]:
    """Those of `arguments` that have no default."""
    return [argument for argument in arguments(kind) if argument.default is inspect.Parameter.empty]


def role_of(name: str) -> str | None:
    """``x``, ``h`` or ``c``: what an argument of this name is; None where the name does not say.

    >>> role_of("h_prev"), role_of("prev_c"), role_of("x_t"), role_of("state")
    ('h', 'c', 'x', None)
    """
    words = [word for word in re.split(r"[_\d]+", name.lower()) if word]
    roles = {role for role, known in _ROLES.items() for word in words if word in known}
    if roles == {"h", "c"} and words[-1] == "cell":  # hidden_cell holds both
        return None
    return roles.pop() if len(roles) == 1 else None


def step_roles(kind: type[nn.Module], states: int = 2) -> list[str] | None:
    """What the arguments of a step are: ``x``, ``h``, ``c`` in their order, or ``x`` and ``hc`` for a pair; None of no step."""
    if states == 1:
        return _roles_of_one(kind)
    found = [argument for argument in arguments(kind) if argument.default in (inspect.Parameter.empty, None)]
    roles = [role_of(argument.name) for argument in found]
    if len(found) >= 3:
        if len(required(kind)) > 3:
            return None
        return [str(role) for role in roles[:3]] if set(roles[:3]) == {"x", "h", "c"} else ["x", "h", "c"]
    if len(found) == 2 and (roles[1] != "x"):
        name = found[1].name.lower()
        if roles[1] is None or name in ("hidden", "h", "hx", "hs") or "hc" in name:
            return ["x", "hc"]
    return None


def _roles_of_one(kind: type[nn.Module]) -> list[str] | None:
    """The same of a step whose state is h alone."""
    found = [argument for argument in arguments(kind) if argument.default in (inspect.Parameter.empty, None)]
    if len(found) < 2 or len(required(kind)) > 2:
        return None
    roles = [role_of(argument.name) for argument in found[:2]]
    return ["h", "x"] if roles == ["h", "x"] else ["x", "h"]


def _uses(kind: type[nn.Module], cell: type[nn.Module], instances: Sequence[nn.Module]) -> bool:
    """Whether a class's instances hold a cell, or its code names it."""
    for module in instances:
        if type(module) is kind and any(type(part) is cell for part in module.modules() if part is not module):
            return True
    for value in vars(kind).values():
        code = getattr(value, "__code__", None)
        if code is not None and cell.__name__ in code.co_names:
            return True
    return False
