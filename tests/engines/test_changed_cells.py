"""Cells that change between two scans, act on their gradients, or keep something: as the reference has them."""

from __future__ import annotations

import copy
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import unroll
from unroll.engines import explain, native
from unroll.errors import InputError

SCALE = {0: 0.5}


class Cell(nn.Module):
    """A recurrent step with something of a test's own in it."""

    hidden_size, input_size = 6, 4
    factor = 0.5

    def __init__(self, step: Callable[..., Tensor], **own: Any) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(6, 6) * 0.4)
        self.U = nn.Parameter(torch.randn(6, 4) * 0.4)
        self.b = nn.Parameter(torch.zeros(6))
        self.step = step
        self.register_buffer("kept", torch.linspace(0.1, 1, 6))
        self.tensor = torch.linspace(0.1, 1, 6)
        self.numbers, self.named, self.pair = [0.5], {"k": 0.5}, (torch.ones(6), 1)
        self.array = np.array([0.5])
        for name, value in own.items():
            setattr(self, name, value)

    def sums(self, x: Tensor, h: Tensor) -> Tensor:
        return x @ self.U.T + h @ self.W.T + self.b

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return self.step(self, x, h)


def outcomes(layer: unroll.Recurrent, x: Tensor) -> list[Tensor]:
    """Outputs, and the gradients of x and all parameters."""
    x = x.clone().requires_grad_()
    out = layer(x)[0]
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).reshape(out.shape)
    wanted = [p for p in layer.parameters() if p.requires_grad]
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), [x, *wanted], allow_unused=True)]


def check(cell: nn.Module, change: Callable[[Any], object] = lambda _: None, engine: str | None = "native") -> None:
    """Compare with the reference before and after a change; with sequences that begin and end with zeros."""
    ours, other = unroll.Recurrent(cell), unroll.Recurrent(copy.deepcopy(cell), engine="reference")
    like = next(cell.parameters())
    x = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1)).to(like)
    x[0] = x[-1] = 0
    for _ in range(2):
        for a, b in zip(outcomes(ours, x), outcomes(other, x), strict=True):
            torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-4)
        if engine is not None:
            assert explain("auto", ours.cells[0][0], x)[0] == engine
        change(ours.cells[0][0].module)
        change(other.cells[0][0].module)


@pytest.mark.parametrize(
    ("step", "change"),
    [
        (lambda s, x, h: torch.tanh(s.sums(x, h)) * s.kept, lambda c: c.kept.mul_(2)),
        (lambda s, x, h: torch.tanh(s.sums(x, h)) * s.kept, lambda c: c.kept.data.mul_(2)),
        (
            lambda s, x, h: torch.tanh(s.sums(x, h)) * s.kept,
            lambda c: c.load_state_dict({**c.state_dict(), "kept": torch.full((6,), 0.3)}),
        ),
        (lambda s, x, h: torch.tanh(s.sums(x, h)) * s.tensor, lambda c: c.tensor.mul_(2)),
        (
            lambda s, x, h: torch.tanh(s.sums(x, h)) * s.pair[0],
            lambda c: setattr(c, "pair", (torch.full((6,), 0.3), 1)),
        ),
        (lambda s, x, h: torch.tanh(s.sums(x, h)) * s.numbers[0], lambda c: c.numbers.__setitem__(0, 2.0)),
        (lambda s, x, h: torch.tanh(s.sums(x, h)) * s.named["k"], lambda c: c.named.update(k=2.0)),
        (lambda s, x, h: torch.tanh(s.sums(x, h)) * float(s.array[0]), lambda c: c.array.__setitem__(0, 2.0)),
        (
            lambda s, x, h: torch.tanh(s.sums(x, h)),
            lambda c: setattr(c, "step", lambda s, x, h: s.sums(x, h).sigmoid()),
        ),
    ],
    ids=["buffer", "data", "load", "tensor", "tuple", "list", "dict", "array", "function"],
)
def test_changed_cell_is_read_anew(step: Callable[..., Tensor], change: Callable[[Any], object]) -> None:
    check(Cell(step), change)


def test_changed_cell_by_a_hook_is_the_references() -> None:
    for hooked in (
        lambda c: c.register_forward_hook(lambda m, given, out: out * 0.5),
        lambda c: c.register_forward_pre_hook(lambda m, given: (given[0] * 0.5, given[1])),
    ):
        check(Cell(lambda s, x, h: torch.tanh(s.sums(x, h))), hooked, engine=None)


def test_changed_cell_by_a_global_or_its_class_is_read_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    for step, place, name, value in (
        (lambda s, x, h: torch.tanh(s.sums(x, h)) * SCALE[0], SCALE, 0, 2.0),
        (lambda s, x, h: torch.tanh(s.sums(x, h)) * s.factor, Cell, "factor", 2.0),
    ):
        ours = unroll.Recurrent(cell := Cell(step))
        x = torch.randn(5, 3, 4)
        ours(x)
        if isinstance(place, dict):
            monkeypatch.setitem(place, name, value)
        else:
            monkeypatch.setattr(place, name, value)
        torch.testing.assert_close(ours(x)[0], unroll.Recurrent(cell, engine="reference")(x)[0])


class Clip(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, d: Tensor) -> Tensor:
        return d.clamp(-5, 5)


def test_changed_gradients_are_the_references() -> None:
    def hooked(s: Cell, x: Tensor, h: Tensor) -> Tensor:
        h = torch.tanh(s.sums(x, h))
        if h.requires_grad:
            h.register_hook(lambda d: d.clamp(-5, 5))
        return h

    for step in (hooked, lambda s, x, h: Clip.apply(torch.tanh(s.sums(x, h)))):
        cell = Cell(step)
        cell.W.data.mul_(6)
        check(cell, engine="reference")


def test_cell_that_keeps_something_in_a_list_or_dict_is_the_references() -> None:
    def logs(s: Cell, x: Tensor, h: Tensor) -> Tensor:
        s.numbers.append(h.detach())
        return torch.tanh(s.sums(x, h))

    def counts(s: Cell, x: Tensor, h: Tensor) -> Tensor:
        s.named["k"] += 1
        return torch.tanh(s.sums(x, h)) if s.named["k"] % 2 else h

    for step in (logs, counts):
        check(Cell(step), engine="reference")
    cell = Cell(logs)
    unroll.Recurrent(cell)(torch.randn(5, 3, 4))
    assert len(cell.numbers) == 6  # the reading left nothing behind


def test_cell_with_its_own_kept_tensor_is_left_as_it_was() -> None:
    def previous(s: Cell, x: Tensor, h: Tensor) -> Tensor:
        before = torch.zeros_like(h) if s.before is None else s.before
        s.before = torch.tanh(s.sums(x, h) + 0.5 * before)
        return s.before

    cell = Cell(previous, before=None)
    unroll.Recurrent(cell)(torch.randn(5, 3, 4))
    assert cell.before.shape == (3, 6)


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: torch.ops.aten.rand.default([]).item()])
def test_cell_with_random_numbers_of_python_is_the_references(draw: Callable[[], float]) -> None:
    cell = unroll.as_cell(Cell(lambda s, x, h: h if draw() < 1e-9 else torch.tanh(s.sums(x, h))))
    assert "random numbers of its own" in (explain("auto", cell, torch.randn(5, 3, 4))[1] or "")


def test_cell_that_asks_for_the_type_is_read_in_its_own() -> None:
    check(Cell(lambda s, x, h: torch.tanh(s.sums(x, h) if x.dtype == torch.float32 else h)), engine=None)
    check(
        Cell(lambda s, x, h: h / (h.abs().sum(-1, True) + 1e6 * torch.finfo(h.dtype).eps) + s.sums(x, h)), engine=None
    )


def test_cell_with_a_parameter_of_another_type_has_the_references_numbers() -> None:
    cell = Cell(lambda s, x, h: torch.tanh(s.sums(x, h) + s.p.to(x)))
    cell.p = nn.Parameter(torch.linspace(0, 1, 6, dtype=torch.float64))
    check(cell, engine="reference")


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        (lambda B: torch.zeros(1, 6), r"the state has shape \(1, 6\); expected \(3, 6\)"),
        (lambda B: torch.zeros(B, 1), r"the state has shape \(3, 1\)"),
        (lambda B: torch.zeros(B, 6, dtype=torch.float64), "torch.float64"),
        (lambda B: None, "Cell.initial_state returned None"),
        (lambda B: (torch.zeros(B, 6),) * 2, "Cell.initial_state returned 2 tensors; expected 1"),
    ],
)
def test_initial_state_that_does_not_fit_is_refused(begin: Callable[[int], Any], said: str) -> None:
    cell = Cell(lambda s, x, h: torch.tanh(s.sums(x, h)), initial_state=begin)
    with pytest.raises(InputError, match=said):
        unroll.Recurrent(cell)(torch.randn(5, 3, 4))


@pytest.mark.parametrize(
    "step",
    [
        lambda s, x, h: s.sums(x, h).clamp(min=0),
        lambda s, x, h: s.sums(x, h).clamp(0, 1),
        lambda s, x, h: F.relu6(s.sums(x, h)),
        lambda s, x, h: F.hardtanh(s.sums(x, h), 0, 1),
        lambda s, x, h: F.hardswish(s.sums(x, h) - 3),
        lambda s, x, h: F.elu(s.sums(x, h), 0.3),
        lambda s, x, h: torch.tanh(s.sums(x, h / (h.norm(dim=-1, keepdim=True) + 1e-3))),
        lambda s, x, h: torch.tanh(s.sums(x, h / (h.std(-1, keepdim=True) + 1e-3))),
        lambda s, x, h: torch.tanh(s.sums(x, h.abs() ** (1.5 + s.b))),
    ],
    ids=["clamp_min", "clamp", "relu6", "hardtanh", "hardswish", "elu", "norm", "std", "power"],
)
def test_gradients_at_zeros_are_torchs(step: Callable[..., Tensor]) -> None:
    check(Cell(step))
    check(Cell(step).double())


def test_negated_views_are_read_by_their_values() -> None:
    x = torch._neg_view(torch.randn(5, 3, 4))
    for layer in (unroll.Recurrent(Cell(lambda s, x, h: torch.tanh(s.sums(x, h)))), unroll.LSTM(4, 6)):
        torch.testing.assert_close(layer(x)[0], layer(x.clone() + 0)[0])


def test_first_scan_in_inference_mode_is_native() -> None:
    layer = unroll.Recurrent(Cell(lambda s, x, h: torch.tanh(s.sums(x, h))))
    x = torch.randn(5, 3, 4)
    with torch.inference_mode():
        layer(x)
    assert explain("auto", layer.cells[0][0], x) == ("native", None)


def test_first_scans_of_several_threads_agree() -> None:
    """Nobody sees the float64 parameters that a cell is read with."""
    layer = unroll.Recurrent(Cell(lambda s, x, h: torch.tanh(s.sums(x, h)), note=0))
    other = unroll.Recurrent(layer.cells[0][0], engine="reference")
    x = torch.randn(5, 3, 4)
    expected, failures = other(x)[0].detach(), []

    def work(k: int) -> None:
        try:
            for n in range(20):
                if k == 0:
                    layer.cells[0][0].module.note = n
                torch.testing.assert_close((other if k == 1 else layer)(x)[0].detach(), expected)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


@pytest.mark.parametrize("draw", [random.random, np.random.rand, lambda: torch.rand(1).item()])
def test_random_numbers_of_another_thread_are_not_the_cells(draw: Callable[[], float]) -> None:
    """Nor does the next draw repeat them."""
    drawn: list[float] = []

    def others() -> Iterator[None]:
        for _ in range(3):  # throughout a reading, and into the next one
            other = threading.Thread(target=lambda: drawn.append(draw()))
            other.start()
            other.join()
            yield

    turns = others()

    def step(s: Cell, x: Tensor, h: Tensor) -> Tensor:
        next(turns, None)
        return torch.tanh(s.sums(x, h))

    assert explain("auto", unroll.as_cell(Cell(step)), torch.randn(5, 3, 4)) == ("native", None)
    assert len({*drawn, draw()}) == 4


def test_cell_that_is_changed_while_it_is_scanned_has_the_references_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = unroll.Recurrent(Cell(lambda s, x, h: torch.tanh(s.sums(x, h))))
    other, x = unroll.Recurrent(layer.cells[0][0], engine="reference"), torch.randn(5, 3, 4)
    why_not = native.why_not

    def asked(*given: Any) -> str | None:
        """As if another thread did it right after the engine was chosen."""
        found = why_not(*given)
        layer.cells[0][0].module.step = lambda s, x, h: torch.tanh(s.sums(x, h) + torch.rand(1) * 1e-9)
        return found

    monkeypatch.setattr(native, "why_not", asked)
    torch.testing.assert_close(layer(x)[0], other(x)[0])


def test_cell_options_and_sizes() -> None:
    class Option(Cell):
        def forward(self, x: Tensor, h: Tensor, verbose: bool = False) -> Tensor:
            return torch.tanh(self.sums(x, h))

    assert unroll.as_cell(Option(None)).state_sizes == (6,)
    assert unroll.as_cell(nn.LSTMCell(4, 6)).state_sizes == (6, 6)
    assert unroll.as_cell(Cell(None, hidden_size=np.int64(6))).state_sizes == (6,)
    with pytest.raises(InputError, match=r"Cell.hidden_size is 6.0; expected a whole number"):
        unroll.as_cell(Cell(None, hidden_size=6.0))
    with pytest.raises(InputError, match="a size of state_sizes is '6'"):
        unroll.as_cell(Cell(None), "6")
    with pytest.raises(InputError, match="the cell is <class"):
        unroll.Recurrent(Cell)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "step",
    [
        lambda s, x, h: torch.tanh(s.sums(x, h)) + torch.expm1(1e-4 * x[:, :1]) / (1e-4 * x[:, :1] + 1e-9),
        lambda s, x, h: torch.tanh(s.sums(x, h)) + torch.log1p(x[:, :1] ** 2 * 1e-6) * 1e6,
        lambda s, x, h: F.gelu(s.sums(x, h)),
        lambda s, x, h: F.elu(1e-5 * s.sums(x, h)) * 1e5,
    ],
    ids=["expm1", "log1p", "gelu", "elu"],
)
def test_small_arguments_lose_nothing(step: Callable[..., Tensor]) -> None:
    check(Cell(step))
