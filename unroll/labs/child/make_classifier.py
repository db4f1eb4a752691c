"""A small copy of a student's classifier, made from its class by the names of its arguments, or copied from an instance."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unroll.labs.child.argument_names import CLASSES, HIDDEN, ROWS, SETTINGS, init_arguments, meaning_of
from unroll.labs.child.call_cell import deep_copy, seed_cpu


class Made(NamedTuple):
    """A classifier to look at.

    Attributes:
        fresh: makes it anew, always the same one.
        dtype: of its parameters.
        call: Python that makes it; None where it is a copy.
        hidden: H; None where that is not known.
    """

    fresh: Callable[[], nn.Module]
    dtype: torch.dtype
    call: str | None
    hidden: int | None


def candidates(found: Any) -> Iterator[Made | BaseException]:
    """Ways to have the classifier, the best first; an exception where its class could not be made."""
    kind = found.classifier
    templates: list[tuple[nn.Module, str | None, int | None]] = []
    if kind is not None:
        arguments = constructor_arguments(kind)
        if arguments is not None:
            shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
            hidden = HIDDEN if HIDDEN in arguments.values() else None
            try:
                with default_dtype(torch.float32):
                    templates.append((_made(kind, arguments), f"{kind.__name__}({shown})", hidden))
            except Exception as error:
                yield error
    for one in found.classifiers:
        if isinstance(one, nn.Module) and (kind is None or type(one) is kind):
            try:
                templates.append((deep_copy(one).cpu(), None, getattr(one, "hidden_size", None)))
            except Exception as error:
                yield error
            break
    for template, call, hidden in templates:
        for dtype in (torch.float64, torch.float32):
            yield Made(_copier(template, dtype), dtype, call, hidden if isinstance(hidden, int) else None)


def constructor_arguments(kind: type) -> dict[str, Any] | None:
    """Small sizes for the arguments of a class's constructor, by their names; None where one is not understood."""
    parameters = init_arguments(kind)
    if parameters is None:
        return None
    sizes = {"input": ROWS, "hidden": HIDDEN, "classes": CLASSES}
    given: dict[str, Any] = {}
    for parameter in parameters:
        meaning = meaning_of(parameter.name) or ""
        if parameter.default is inspect.Parameter.empty:
            given[parameter.name] = (SETTINGS | sizes).get(meaning)
        elif meaning in sizes and _is_size(parameter.default):
            given[parameter.name] = sizes[meaning]
    unknown = [name for name, value in given.items() if value is None]
    if unknown and list(given)[:3] == [p.name for p in parameters[:3]] and len(given) == 3:
        return dict(zip(given, (ROWS, HIDDEN, CLASSES), strict=True))  # by their places, as in the lab
    return None if unknown else given


class default_dtype:
    """The type of ``torch.zeros(2)`` inside a with statement."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    def __enter__(self) -> None:
        self.before = torch.get_default_dtype()
        torch.set_default_dtype(self.dtype)

    def __exit__(self, *_: object) -> None:
        torch.set_default_dtype(self.before)


def pictures(B: int, seed: int, dtype: torch.dtype) -> Tensor:
    """Random rows (B, T, D) in [0, 1)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(B, ROWS, ROWS, generator=generator, dtype=torch.float64).to(dtype)


# How pictures (B, T, D) may be handed in: the lab's form first.
FORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "rows": lambda x: x,
    "image": lambda x: x.unsqueeze(1),
    "flat": lambda x: x.reshape(len(x), -1),
    "time first": lambda x: x.transpose(0, 1).contiguous(),
}


def randomise(model: nn.Module) -> None:
    """Draw every parameter anew: zeros and equal values would hide what is read."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if isinstance(parameter, nn.UninitializedParameter) or not parameter.is_floating_point():
                continue
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.2 * drawn)


def _made(kind: type, arguments: dict[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        seed_cpu(0)
        made = kind(**arguments)
    if not isinstance(made, nn.Module):
        raise TypeError(f"{kind.__name__} makes no nn.Module")
    return made.cpu()


def _copier(template: nn.Module, dtype: torch.dtype) -> Callable[[], nn.Module]:
    def fresh() -> nn.Module:
        model = deep_copy(template).to(dtype)
        randomise(model)
        return in_mode(model, False)

    return fresh


def in_mode(module: nn.Module, training: bool) -> nn.Module:
    """Switch to training or evaluation without `nn.Module.train`: a student may have a method of that name that trains."""
    for part in module.modules():
        part.training = training
    return module


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
