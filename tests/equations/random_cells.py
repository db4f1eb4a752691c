"""Random cells in plain PyTorch, as source text that can be read, cut down and run by itself.

A cell is a list of lines ``name = expression``. Every value carries a bound on its size, so that no number runs away and
results can be compared to many digits; expressions that could come near a jump or a pole are kept away from it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count

import torch
from torch import nn

from tests.equations.cells import Own
from unroll.cells.base import Cell, as_cell

WIDTHS = 1, 2, 3, 5, 7, 8, 9, 16, 17, 33
LARGEST = 6.0  # bound of a value that is used further as it is
GIVEN = 3.0  # bound of inputs, states and parameters, about


@dataclass(frozen=True)
class Line:
    """``name = text``, and what is known of the value."""

    name: str
    text: str
    width: int
    bound: float
    reads: tuple[str, ...]


@dataclass(frozen=True)
class Sketch:
    """A random cell.

    Attributes:
        seed: which one it is.
        x: features of x_t.
        states: widths of the state's tensors.
        parameters: shapes by name; those that begin with ``mask`` are buffers.
        lines: the step.
        new: names of the state after the step.
    """

    seed: int
    x: int
    states: tuple[int, ...]
    parameters: dict[str, tuple[int, ...]] = field(default_factory=dict)
    lines: tuple[Line, ...] = ()
    new: tuple[str, ...] = ()

    def source(self) -> str:
        """The class, as somebody would write it."""
        names = [f"s{k}" for k in range(len(self.states))]
        shapes = ", ".join(f"{n}={shape}" for n, shape in self.parameters.items() if not n.startswith("mask"))
        masks = [(n, shape) for n, shape in self.parameters.items() if n.startswith("mask")]
        made = [f"        self.register_buffer({n!r}, torch.rand({shape}).round() + 0.5)" for n, shape in masks]
        return "\n".join(
            [
                "class Random(Own):",
                "    def __init__(self):",
                f"        super().__init__({self.x}, {self.states[0]}{', ' if shapes else ''}{shapes})",
                *made,
                f"    def forward(self, x, {', '.join(names)}):",
                *(f"        {line.name} = {line.text}" for line in self.lines),
                f"        return {', '.join(self.new)}",
                "",
            ]
        )

    def cell(self) -> Cell:
        """The cell, with parameters that its seed says."""
        with torch.random.fork_rng([]):
            torch.manual_seed(self.seed)
            found: dict[str, type[nn.Module]] = {}
            exec(compile(self.source(), f"<random cell {self.seed}>", "exec"), {"torch": torch, "Own": Own}, found)
            return as_cell(found["Random"](), self.states)  # type: ignore[call-arg]

    def used(self) -> Sketch:
        """The same without lines and parameters that nobody reads."""
        wanted, kept = set(self.new), []
        for line in reversed(self.lines):
            if line.name in wanted:
                wanted |= set(line.reads)
                kept.append(line)
        return replace(self, lines=tuple(reversed(kept)), parameters=_read(self.parameters, kept))

    def smaller(self) -> Iterator[Sketch]:
        """Sketches that have a little less, to find the smallest one with a fault."""
        given = {"x": self.x, **{f"s{k}": n for k, n in enumerate(self.states)}}
        widths = given | {line.name: line.width for line in self.lines}
        for k in range(len(self.new)):
            for name in [f"s{k}", *(line.name for line in self.lines)]:
                if name != self.new[k] and widths[name] == self.states[k] and not _after(self.lines, name, self.new[k]):
                    yield replace(self, new=(*self.new[:k], name, *self.new[k + 1 :])).used()
        for n, line in enumerate(self.lines):
            for name in dict.fromkeys((*line.reads, *given, "zero")):
                text = f"torch.zeros_like({line.name})" if name == "zero" else name
                if name != "zero" and widths[name] == line.width and line.text != text:
                    lines = (*self.lines[:n], replace(line, text=text, reads=(name,)), *self.lines[n + 1 :])
                    yield replace(self, lines=lines).used()


def _read(parameters: dict[str, tuple[int, ...]], lines: Iterable[Line]) -> dict[str, tuple[int, ...]]:
    """The parameters that stand in some lines."""
    names = {name for line in lines for name in re.findall(r"self\.(\w+)", line.text)}
    return {name: shape for name, shape in parameters.items() if name in names}


def _after(lines: tuple[Line, ...], name: str, other: str) -> bool:
    """Whether a line comes after another one."""
    order = [line.name for line in lines]
    return name in order and (other not in order or order.index(name) > order.index(other))


def smallest(sketch: Sketch, faulty: Callable[[Sketch], bool]) -> Sketch:
    """A sketch with the same fault that cannot be made smaller."""
    sketch = next((s for s in [sketch.used()] if faulty(s)), sketch)
    for _ in range(200):
        smaller = next((s for s in sketch.smaller() if s != sketch and _size(s) < _size(sketch) and faulty(s)), None)
        if smaller is None:
            break
        sketch = smaller
    return sketch


def _size(sketch: Sketch) -> tuple[int, int]:
    return len(sketch.lines), sum(len(line.text) for line in sketch.lines)


class _Writer:
    """Writes the lines of one cell."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.draw = random.Random(seed)
        self.given: list[Line] = []
        self.lines: list[Line] = []
        self.parameters: dict[str, tuple[int, ...]] = {}
        self.numbers = count()

    # --- values ---------------------------------------------------------------------------------------------------

    def pick(self, width: int | None = None) -> Line:
        """A value, rather a late one; of a width, made if need be."""
        choice = [v for v in self.values if width is None or v.width == width]
        if not choice:
            return self.fitted(self.pick(), width or 1)
        if self.draw.random() < 0.5:
            choice = choice[-4:]
        return self.draw.choice(choice)

    def wide(self, width: int) -> Line:
        """A value that fits a width: as wide, or one wide."""
        return self.pick(1 if self.draw.random() < 0.15 else width)

    @property
    def values(self) -> list[Line]:
        return [*self.given, *self.lines]

    def keep(self, text: str, width: int, bound: float, *reads: Line) -> Line:
        """One more line; a value that may be large is squashed."""
        if bound > LARGEST:
            text, bound = f"torch.tanh({text})", 1.0
        line = Line(f"v{len(self.lines)}", text, width, max(bound, 1e-3), tuple(r.name for r in reads))
        self.lines.append(line)
        self.parameters = _read(self.parameters, self.lines)  # without those of lines that were not chosen
        return line

    def parameter(self, *shape: int, kind: str = "p") -> str:
        """A parameter of a shape: a new one, or, so that weights are tied, one that is there."""
        known = [n for n, s in self.parameters.items() if s == shape and n.startswith(kind)]
        if known and self.draw.random() < 0.4:
            return f"self.{self.draw.choice(known)}"
        name = f"{kind}{next(self.numbers)}"
        self.parameters[name] = shape
        return f"self.{name}"

    # --- operations -----------------------------------------------------------------------------------------------

    def fitted(self, v: Line, width: int) -> Line:
        """A value as another of a width."""
        if v.width > width and self.draw.random() < 0.5:
            start = self.draw.randint(0, v.width - width)
            return self.keep(f"{v.name}[:, {start}:{start + width}]", width, v.bound, v)
        return self.linear(v, width)

    def linear(self, v: Line | None = None, n: int | None = None) -> Line:
        v = v or self.pick()
        n = n or self.draw.choice(WIDTHS)
        k, a = v.width, v.name
        kind = self.draw.randrange(9)
        if kind == 0:
            text = f"{a} @ {self.parameter(n, k)}.T"
        elif kind == 1:
            text = f"{a} @ {self.parameter(k, n)}"
        elif kind == 2:
            text = f"torch.nn.functional.linear({a}, {self.parameter(n, k)}, {self.parameter(n)})"
        elif kind == 3:
            text = f"{a} @ ({self.parameter(n, k)} * {self.parameter(n, k, kind='mask')}).T"
        elif kind == 4:
            start = self.draw.randint(0, 3)
            text = f"{a} @ {self.parameter(n + 4, k)}[{start}:{start + n}].t()"
        elif kind == 5:
            start = self.draw.randint(0, 3)
            text = f"torch.nn.functional.linear({a}, {self.parameter(n, k + 4)}[:, {start}:{start + k}])"
        elif kind == 6:
            text = f"{a} @ torch.tanh({self.parameter(n, k)}).transpose(0, 1)"
        elif kind == 7:
            text = f"{a} @ torch.cat([{self.parameter(n, k)}, {self.parameter(2, k)}]).T[:, 1:{n + 1}]"
        else:
            text = f"torch.einsum('bk,nk->bn', {a}, {self.parameter(n, k)})"
        return self.keep(f"({text}) / {round(k**0.5, 3)}", n, 2 * v.bound + 1, v)

    def unary(self) -> Line:
        v = self.pick()
        a, bound, width = v.name, v.bound, v.width
        table: list[tuple[str, float]] = [
            (f"torch.sigmoid({a})", 1),
            (f"{a}.tanh()", 1),
            (f"torch.relu({a})", bound),
            (f"torch.exp(-{a}.abs())", 1),
            (f"torch.exp({a} / {bound:.3f})", 3),
            (f"torch.log({a}.abs() + 0.5)", bound),
            (f"torch.log1p({a} * {a})", bound),
            (f"torch.expm1(-{a}.abs())", 1),
            (f"torch.erf({a})", 1),
            (f"torch.sqrt({a} ** 2 + 0.4)", bound + 1),
            (f"(1 + {a} * {a}).rsqrt()", 1),
            (f"{a}.abs()", bound),
            (f"torch.sign({a} - 0.37)", 1),
            (f"torch.sin({a})", 1),
            (f"torch.cos({a})", 1),
            (f"torch.nn.functional.softplus({a})", bound + 1),
            (f"-{a}", bound),
            (f"{a} ** 3 / {bound * bound:.3f}", bound),
            (f"({a}.abs() + 0.5) ** 1.7", (bound + 0.5) ** 1.7),
            (f"1 / (1 + {a}.abs())", 1),
            (f"{a}.detach()", bound),
            (f"{a}.detach() * {a}", bound * bound),
            (f"torch.nn.functional.elu({a} + 0.21)", bound + 1),
            (f"torch.nn.functional.silu({a})", bound),
            (f"torch.nn.functional.leaky_relu({a} - 0.11, 0.2)", bound + 1),
            (f"torch.clamp({a}, -0.83, 1.21)", 1.3),
            (f"1 - {a}", bound + 1),
            (f"{a} * 1.0 + 0", bound),
            (f"0.3 * {a} - 1.5", bound + 1),
            (f"{a} * {self.parameter(width)}", 3 * bound),
            (f"{a} + {self.parameter(width)}", bound + 3),
            (f"{a} - {self.parameter(width + 2)}[1:{width + 1}]", bound + 3),
            (f"{a} / ({self.parameter(width)}.abs() + 0.5)", 2 * bound),
            (f"{a} * {self.parameter()}", 3 * bound),
            (f"{a} * {self.parameter(1)} + {self.parameter(1)}", 3 * bound + 3),
            (f"torch.exp(-{self.parameter(width)} ** 2) * {a}", bound),
            (f"{a} * {self.parameter(width, kind='mask')}", 2 * bound),
            (f"torch.ones_like({a}) - {a}", bound + 1),
            (f"torch.eq(torch.relu({a}), 0) * {a}", bound),
            (f"torch.zeros_like({a}).sub({a}).flip(-1)", bound),
        ]
        text, found = self.draw.choice(table)
        return self.keep(text, width, found, v)

    def binary(self) -> Line:
        v = self.pick()
        w = self.wide(v.width)
        u = self.wide(v.width)
        a, b, c, most = v.name, w.name, u.name, max(v.bound, w.bound)
        table: list[tuple[str, float]] = [
            (f"{a} + {b}", v.bound + w.bound),
            (f"{b} - {a}", v.bound + w.bound),
            (f"{a} * {b}", v.bound * w.bound),
            (f"{a} / (1 + {b}.abs())", v.bound),
            (f"{b} / ({a} * {a} + 0.5)", 2 * w.bound),
            (f"torch.maximum({a}, {b} + 0.13)", most + 1),
            (f"torch.minimum({b} - 0.07, {a})", most + 1),
            (f"torch.where({a} < {b} - 0.17, {a}, {c} + 0 * {a})", max(v.bound, u.bound)),
            (f"({b} > 0.29) * {a}", v.bound),
            (f"torch.lerp({a}, {b} + 0 * {a}, torch.sigmoid({c} + 0 * {a}))", most),
            (f"torch.addcmul({a}, {b}, {c}, value=0.5)", v.bound + w.bound * u.bound),
            (f"torch.sigmoid({c}) * {a} + (1 - torch.sigmoid({c})) * {b}", most),
            (f"{a} * {b} + {c}", v.bound * w.bound + u.bound),
            (f"{a} * {b} - {a} * {c}", v.bound * (w.bound + u.bound)),
        ]
        text, found = self.draw.choice(table)
        reads = [line for line in (v, w, u) if line.name in text]
        return self.keep(text, v.width, found, *reads)

    def moved(self) -> Line:
        v = self.pick()
        a, n = v.name, v.width
        kind = self.draw.randrange(7)
        if kind == 0:
            start, stop = sorted(self.draw.sample(range(n + 1), 2))
            return self.keep(f"{a}[:, {start}:{stop}]", stop - start, v.bound, v)
        if kind == 1:
            return self.keep(f"{a}[:, ::2]", (n + 1) // 2, v.bound, v)
        if kind == 2:
            return self.keep(f"torch.roll({a}, 1, -1)", n, v.bound, v)
        if kind == 3 and n % 2 == 0:
            half = self.draw.randrange(2)
            return self.keep(f"{a}.chunk(2, -1)[{half}]", n // 2, v.bound, v)
        if kind == 4 and n % 3 == 0:
            return self.keep(f"{a}.view(-1, 3, {n // 3}).sum(1)", n // 3, 3 * v.bound, v)
        if kind == 5:
            return self.keep(f"{a}[:, {self.draw.randrange(n)}].unsqueeze(1)", 1, v.bound, v)
        parts = [v, *(self.pick() for _ in range(self.draw.randint(1, 2)))]
        if self.draw.random() < 0.2:
            parts.append(parts[0])
        if sum(p.width for p in parts) > 80:
            return self.unary()
        text = f"torch.cat([{', '.join(p.name for p in parts)}], 1)"
        return self.keep(text, sum(p.width for p in parts), max(p.bound for p in parts), *parts)

    def reduced(self) -> Line:
        v = self.pick()
        a, n, bound = v.name, v.width, v.bound
        table: list[tuple[str, int, float]] = [
            (f"{a}.sum(-1, keepdim=True) / {n}", 1, bound),
            (f"{a}.mean(1, keepdim=True)", 1, bound),
            (f"{a}.amax(-1, keepdim=True)", 1, bound),
            (f"{a}.amin(-1, keepdim=True)", 1, bound),
            (f"{a}.var(-1, unbiased=False, keepdim=True)", 1, bound * bound),
            (f"({a}.var(-1, unbiased=False, keepdim=True) + 0.2).sqrt()", 1, bound + 1),
            (f"torch.softmax({a}, -1)", n, 1),
            (f"torch.nn.functional.layer_norm({a}, ({n},), {self.parameter(n)}, {self.parameter(n)}, 0.3)", n, 4),
            (f"{a} - {a}.mean(-1, keepdim=True)", n, 2 * bound),
            (f"torch.logsumexp({a}, -1, keepdim=True)", 1, bound + 4),
            (f"({a} * {a}).sum(1, keepdim=True) / {n}", 1, bound * bound),
            (f"{a} * ({a} ** 2).mean(-1, keepdim=True).add(0.3).rsqrt()", n, bound * 2),
        ]
        text, width, found = self.draw.choice(table)
        return self.keep(text, width, found, v)

    # --- the whole ------------------------------------------------------------------------------------------------

    def sketch(self) -> Sketch:
        draw = self.draw
        x = draw.choice(WIDTHS)
        states = tuple(draw.choice(WIDTHS) for _ in range(draw.choice([1, 1, 2, 2, 3])))
        self.given = [Line("x", "", x, GIVEN, ()), *(Line(f"s{k}", "", n, GIVEN, ()) for k, n in enumerate(states))]
        makers = [self.linear, self.unary, self.unary, self.binary, self.binary, self.moved, self.reduced]
        for v in self.given:  # seldom left unread
            if draw.random() < 0.7:
                self.linear(v)
        for _ in range(draw.randint(2, 24)):
            draw.choice(makers)()
        new: list[str] = []
        for k, n in enumerate(states):
            kind = draw.random()
            equal = [name for name, m in zip(new, states, strict=False) if m == n]
            if kind < 0.08:
                new.append(f"s{k}")
            elif kind < 0.2 and equal:
                new.append(equal[0])
            elif kind < 0.25 and x == n:
                new.append("x")
            else:
                v = self.pick(n)
                for _ in range(draw.choice([0, 1, 1, 2])):  # of several, so that most lines are of use
                    w = self.fitted(self.pick(), n)
                    v = self.keep(f"{v.name} {draw.choice('+-*')} {w.name}", n, max(v.bound, 1) * (w.bound + 1), v, w)
                if v.bound > 1.5 or v in self.given:
                    how = draw.choice(["torch.tanh({})", "torch.sigmoid({})", "0.5 * {} / (1 + {}.abs())", "{}.sin()"])
                    v = self.keep(how.replace("{}", v.name), n, 1, v)
                new.append(v.name)
        found = Sketch(self.seed, x, states, self.parameters, tuple(self.lines), tuple(new))
        if draw.random() < 0.8:
            found = found.used()
        unused: dict[str, tuple[int, ...]] = {"unused": (3, 2)} if draw.random() < 0.1 else {}
        return replace(found, parameters=found.parameters | unused)


def random_cell(seed: int) -> Sketch:
    """The cell of a seed."""
    return _Writer(seed).sketch()
