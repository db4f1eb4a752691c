"""The native engine computes what the reference computes, whatever it is given."""

from __future__ import annotations

import copy
import gc
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence

from unroll.cells import Cell, LSTMCell, RNNCell
from unroll.engines import choose, native, reference
from unroll.engines import scan as scan_with
from unroll.engines.native import eager
from unroll.engines.native import library as native_library
from unroll.errors import InputError
from unroll.layers import LSTM, RNN

pytestmark = pytest.mark.skipif(native.available() is not None, reason=str(native.available()))

KINDS = ["lstm", "tanh", "relu"]
SETS = [
    name
    for name in ("portable", "avx2", "avx512", "neon")
    if native_library.library and native_library.library.unroll_select(name.encode())
]
if native_library.library:
    native_library.library.unroll_select((native.instruction_set() or "").encode())


@pytest.fixture
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a test on another instruction set than the best."""
    native_library.library.unroll_select(request.param.encode())
    yield request.param
    native_library.library.unroll_select(native.instruction_set().encode())


def make_cell(kind: str, D: int, H: int, bias: bool = True, dtype: torch.dtype = torch.float64) -> Cell:
    if kind == "lstm":
        return LSTMCell(D, H, bias=bias, dtype=dtype)
    return RNNCell(D, H, bias=bias, nonlinearity=kind, dtype=dtype)


def make_state(kind: str, B: int, H: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    return tuple(torch.randn(B, H, dtype=dtype) for _ in range(2 if kind == "lstm" else 1))


def results(engine, cell, x, state, lengths=None, reverse=False, into=(True, True), wants=(True, True, True)):
    """Outputs, final state and the gradients of x, the state and the parameters of a random loss on the parts in `into`."""
    want_x, want_state, want_parameters = wants
    x = x.detach() if not x.is_floating_point() else x.detach().requires_grad_(want_x)
    state = tuple(part.detach().requires_grad_(want_state) for part in state)
    out, last = engine.scan(cell, x, state if len(state) > 1 else state[0], lengths, reverse)
    last = last if isinstance(last, tuple) else (last,)
    random = torch.Generator().manual_seed(0)
    loss = torch.zeros((), dtype=out.dtype)
    for wanted, part in zip((into[0], *[into[1]] * len(last)), (out, *last), strict=True):
        weight = torch.randn(part.shape, generator=random, dtype=part.dtype)
        if wanted:
            loss = loss + (part * weight).sum()
    sources = [p for p in (x, *state) if p.requires_grad] + (list(cell.parameters()) if want_parameters else [])
    gradients = torch.autograd.grad(loss, sources, allow_unused=True) if sources and loss.requires_grad else ()
    return [out, *last, *gradients]


def assert_same(ours, theirs, tolerance: float) -> None:
    assert len(ours) == len(theirs)
    for n, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert a.shape == b.shape
        if b.numel() == 0:
            continue
        error = (a - b).abs().max() / b.abs().max().clamp_min(1e-300)
        assert error <= tolerance or torch.equal(a, b), f"result {n} of {len(ours)}: relative error {error:.1e}"


@st.composite
def walks(draw):
    return {
        "kind": draw(st.sampled_from(KINDS)),
        "T": draw(st.integers(1, 6)),
        "B": draw(st.integers(0, 20)),
        "D": draw(st.integers(1, 20)),
        "H": draw(st.integers(1, 40)),
        "bias": draw(st.booleans()),
        "reverse": draw(st.booleans()),
        "ragged": draw(st.booleans()),
        "words": draw(st.booleans()),
        "layout": draw(st.sampled_from(["time first", "batch first", "features strided", "features first"])),
        "into": draw(st.sampled_from([(True, True), (True, False), (False, True)])),
        "wants": draw(st.tuples(st.booleans(), st.booleans(), st.booleans())),
    }


def lay_out(layout: str, T: int, B: int, D: int, dtype: torch.dtype = torch.float64) -> Tensor:
    if layout == "batch first":
        return torch.randn(B, T, D, dtype=dtype).transpose(0, 1)
    if layout == "features strided":
        return torch.randn(T, B, 2 * D, dtype=dtype)[:, :, ::2]
    if layout == "features first":
        return torch.randn(D, B, T, dtype=dtype).permute(2, 1, 0)
    return torch.randn(T, B, D, dtype=dtype)


@settings(max_examples=100, deadline=None)
@given(walks())
def test_every_shape_layout_and_option_gives_what_the_reference_gives(walk):
    torch.manual_seed(0)
    T, B, D, H = (walk[name] for name in "TBDH")
    cell = make_cell(walk["kind"], D, H, walk["bias"])
    x = torch.randint(0, D, (T, B)) if walk["words"] else lay_out(walk["layout"], T, B, D)
    lengths = torch.randint(0, T + 1, (B,)) if walk["ragged"] else None
    arguments = (cell, x, make_state(walk["kind"], B, H), lengths, walk["reverse"], walk["into"], walk["wants"])
    assert_same(results(native, *arguments), results(reference, *arguments), 1e-10)


SHAPES = [
    (1, 1, 1, 1),
    (3, 7, 28, 16),
    (4, 33, 28, 20),
    (3, 64, 28, 128),
    (3, 130, 3, 70),
    (2, 300, 5, 17),
    (40, 9, 2, 5),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_shapes_at_the_edges_of_tiles_and_blocks_agree(kind, shape):
    torch.manual_seed(0)
    T, B, D, H = shape
    cell, x, state = make_cell(kind, D, H), torch.randn(T, B, D, dtype=torch.float64), make_state(kind, B, H)
    for lengths in (None, torch.randint(0, T + 1, (B,))):
        for reverse in (False, True):
            arguments = (cell, x, state, lengths, reverse)
            assert_same(results(native, *arguments), results(reference, *arguments), 1e-10)


@pytest.mark.parametrize("instruction_set", SETS, indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_every_instruction_set_agrees_with_the_reference(instruction_set, dtype, kind):
    torch.manual_seed(0)
    for T, B, D, H in [(3, 5, 4, 7), (4, 33, 28, 37), (5, 12, 9, 64)]:
        cell = make_cell(kind, D, H, dtype=dtype)
        x, state = torch.randn(T, B, D, dtype=dtype), make_state(kind, B, H, dtype)
        for lengths in (None, torch.randint(0, T + 1, (B,))):
            arguments = (cell, x, state, lengths, True)
            tolerance = 1e-10 if dtype == torch.float64 else 1e-5
            assert_same(results(native, *arguments), results(reference, *arguments), tolerance)


def torch_layer(kind: str, D: int, H: int, **options):
    if kind == "lstm":
        return nn.LSTM(D, H, **options)
    return nn.RNN(D, H, nonlinearity=kind, **options)


def gradients_of(layer, x, state):
    x = x.detach().requires_grad_()
    state = tuple(part.detach().requires_grad_() for part in state)
    out, last = layer(x, state if len(state) > 1 else state[0])
    last = last if isinstance(last, tuple) else (last,)
    random = torch.Generator().manual_seed(0)
    loss = sum((part * torch.randn(part.shape, generator=random)).sum() for part in (out, *last))
    loss.backward()
    return [out, *last, x.grad, *(part.grad for part in state)]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_layers_agree_with_torch_in_float32(kind, bias, layers, bidirectional):
    torch.manual_seed(0)
    T, B, D, H = 28, 20, 28, 48
    theirs = torch_layer(kind, D, H, num_layers=layers, bias=bias, bidirectional=bidirectional)
    ours = (LSTM if kind == "lstm" else RNN).from_torch(theirs, engine="native")
    x = torch.randn(T, B, D)
    state = tuple(torch.randn(layers * (1 + bidirectional), B, H) for _ in range(2 if kind == "lstm" else 1))
    assert_same(gradients_of(ours, x, state), gradients_of(theirs, x, state), 1e-5)
    for cell, suffix in ours._cells_with_suffix():
        assert_same(
            [cell.W.grad, cell.U.grad, *([cell.b.grad] if bias else [])],
            [
                getattr(theirs, f"{name}_{suffix}").grad
                for name in ("weight_hh", "weight_ih", "bias_ih")[: 3 if bias else 2]
            ],
            1e-5,
        )


@st.composite
def layers(draw):
    return {
        "kind": draw(st.sampled_from(KINDS)),
        "T": draw(st.integers(1, 6)),
        "B": draw(st.integers(1, 6)),
        "D": draw(st.integers(1, 9)),
        "H": draw(st.integers(1, 20)),
        "num_layers": draw(st.integers(1, 3)),
        "bidirectional": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "input": draw(st.sampled_from(["time first", "batch first", "features strided", "features first", "packed"])),
    }


@settings(max_examples=25, deadline=None, derandomize=True)
@given(layers())
def test_layers_agree_with_torch_in_float32_whatever_their_form(form):
    torch.manual_seed(0)
    T, B, D, H = (form[name] for name in "TBDH")
    options = {name: form[name] for name in ("num_layers", "bidirectional", "bias")}
    theirs = torch_layer(form["kind"], D, H, **options)
    ours = (LSTM if form["kind"] == "lstm" else RNN).from_torch(theirs, engine="native")
    x = lay_out(form["input"], T, B, D, torch.float32)
    lengths = torch.randint(1, T + 1, (B,))
    state = tuple(
        torch.randn(form["num_layers"] * (1 + form["bidirectional"]), B, H)
        for _ in range(2 if form["kind"] == "lstm" else 1)
    )

    def call(layer):
        def through(x, state):
            if form["input"] != "packed":
                return layer(x, state)
            out, last = layer(pack_padded_sequence(x, lengths, enforce_sorted=False), state)
            return out.data, last

        return through

    found = gradients_of(call(ours), x, state)
    expected = gradients_of(call(theirs), x, state)
    for cell, suffix in ours._cells_with_suffix():
        found += [cell.W.grad, cell.U.grad, *([cell.b.grad] if form["bias"] else [])]
        names = ("weight_hh", "weight_ih", "bias_ih")[: 2 + form["bias"]]
        expected += [getattr(theirs, f"{name}_{suffix}").grad for name in names]
    assert_same(found, expected, 1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("input", ["padded", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_on_cuda_computes_what_it_does_on_the_cpu(kind, input):
    torch.manual_seed(0)
    T, B, D, H = 6, 5, 4, 20
    layer = LSTM(D, H, 2, bidirectional=True) if kind == "lstm" else RNN(D, H, 2, kind, bidirectional=True)
    x, lengths = torch.randn(T, B, D), torch.tensor([6, 1, 3, 6, 2])
    found = []
    for device in ("cpu", "cuda"):
        layer = copy.deepcopy(layer).to(device)
        layer.zero_grad()
        there = x.to(device).requires_grad_()
        assert choose("auto", layer.cells[0][0], there) == ("native" if device == "cpu" else "reference")
        if input == "packed":
            out, last = layer(pack_padded_sequence(there, lengths, enforce_sorted=False))
            out = out.data
        else:
            out, last = layer(there, lengths=lengths)
        last = last if isinstance(last, tuple) else (last,)
        sum(part.square().sum() for part in (out, *last)).backward()
        found.append([part.cpu() for part in (out, *last, there.grad, *(p.grad for p in layer.parameters()))])
    assert_same(*found, 1e-5)


# --- derivatives ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_derivatives_pass_gradcheck_and_second_derivatives_too(kind, ragged):
    torch.manual_seed(0)
    T, B, D, H = 3, 3, 2, 3
    cell = make_cell(kind, D, H)
    lengths = torch.tensor([2, 3, 0]) if ragged else None

    def function(x, W, U, b, *state):
        for name, value in (("W", W), ("U", U), ("b", b)):
            if name in cell._parameters:
                delattr(cell, name)
            setattr(cell, name, value)
        out, last = native.scan(cell, x, state if len(state) > 1 else state[0], lengths)
        return out, *(last if isinstance(last, tuple) else (last,))

    inputs = (torch.randn(T, B, D, dtype=torch.float64), cell.W, cell.U, cell.b, *make_state(kind, B, H))
    inputs = tuple(tensor.detach().requires_grad_() for tensor in inputs)
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("words", [False, True])
def test_a_gradient_penalty_is_the_references(kind, words):
    torch.manual_seed(0)
    cell = make_cell(kind, 4, 5)
    x = torch.randint(0, 4, (6, 3)) if words else torch.randn(6, 3, 4, dtype=torch.float64)
    state = make_state(kind, 3, 5)
    found = []
    for engine in (native, reference):
        out, _ = engine.scan(cell, x, state if len(state) > 1 else state[0])
        gradients = torch.autograd.grad(out.square().sum(), list(cell.parameters()), create_graph=True)
        penalty = sum(g.square().sum() for g in gradients)
        found.append([*gradients, *torch.autograd.grad(penalty, list(cell.parameters()))])
    assert_same(*found, 1e-10)


def test_an_input_that_depends_on_the_weights_counts_once_in_second_derivatives():
    torch.manual_seed(0)
    cell = make_cell("lstm", 3, 3)
    found = []
    for engine in (native, reference):
        x = cell.W[:4, :3].reshape(2, 2, 3) * 2
        out, _ = engine.scan(cell, x, cell.initial_state(2))
        (g,) = torch.autograd.grad(out.square().sum(), [cell.W], create_graph=True)
        found.append([g, *torch.autograd.grad(g.square().sum(), [cell.W])])
    assert_same(*found, 1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_graph_can_be_walked_back_twice(kind):
    torch.manual_seed(0)
    cell = make_cell(kind, 4, 20)
    out, _ = native.scan(cell, torch.randn(5, 9, 4, dtype=torch.float64), cell.initial_state(9))
    loss = out.sin().sum()
    first = torch.autograd.grad(loss, list(cell.parameters()), retain_graph=True)
    second = torch.autograd.grad(loss, list(cell.parameters()), retain_graph=True)
    third = torch.autograd.grad(loss, list(cell.parameters()))
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(first, second, third, strict=True))


def test_without_gradients_nothing_is_kept_and_the_result_is_the_same():
    torch.manual_seed(0)
    cell = make_cell("lstm", 4, 20)
    x = torch.randn(5, 9, 4, dtype=torch.float64)
    with_graph = native.scan(cell, x, cell.initial_state(9))[0]
    with torch.no_grad():
        without = native.scan(cell, x, cell.initial_state(9))[0]
    with torch.inference_mode():
        inference = native.scan(cell, x, cell.initial_state(9))[0]
    assert with_graph.grad_fn is not None
    assert without.grad_fn is None
    assert torch.equal(with_graph, without)
    assert torch.equal(with_graph, inference)


def test_only_the_gradients_that_are_wanted_are_made():
    cell = make_cell("lstm", 4, 20)
    x = torch.randn(5, 9, 4, dtype=torch.float64, requires_grad=True)
    cell.W.requires_grad_(False)
    out, _ = native.scan(cell, x, cell.initial_state(9))
    out.sum().backward()
    assert cell.W.grad is None
    assert x.grad is not None
    assert cell.U.grad is not None


# --- values at the edge -----------------------------------------------------------------------------------------------

EXTREMES = {
    "saturated": lambda x: x.sign() * 1e4,
    "zero": lambda x: x * 0,
    "denormal": lambda x: x * 1e-39,
    "huge": lambda x: x * 1e30,
    "one infinity": lambda x: x.index_put(
        (torch.tensor(2), torch.tensor(1), torch.tensor(0)), torch.tensor(float("inf"), dtype=x.dtype)
    ),
    "minus infinity": lambda x: x.index_put(
        (torch.tensor(2), torch.tensor(1), torch.tensor(0)), torch.tensor(-float("inf"), dtype=x.dtype)
    ),
    "one NaN": lambda x: x.index_put(
        (torch.tensor(2), torch.tensor(1), torch.tensor(0)), torch.tensor(float("nan"), dtype=x.dtype)
    ),
}


@pytest.mark.parametrize("instruction_set", SETS, indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("H", [21, 32])
def test_extreme_inputs_come_out_as_torch_has_them(H, kind, extreme, dtype, instruction_set):
    torch.manual_seed(0)
    T, B, D = 5, 4, 3
    theirs = torch_layer(kind, D, H, dtype=dtype)
    ours = (LSTM if kind == "lstm" else RNN).from_torch(theirs, engine="native")
    x = EXTREMES[extreme](torch.randn(T, B, D, dtype=dtype))
    found = []
    for layer in (ours, theirs):
        x = x.detach().requires_grad_()
        out, last = layer(x)
        out.nansum().backward()
        found.append([out, *(last if isinstance(last, tuple) else (last,)), x.grad])
    found[0] += [ours.cells[0][0].W.grad, ours.cells[0][0].U.grad, ours.cells[0][0].b.grad]
    found[1] += [theirs.weight_hh_l0.grad, theirs.weight_ih_l0.grad, theirs.bias_ih_l0.grad]
    outputs = 3 if kind == "lstm" else 2
    close = 1e-5 if dtype == torch.float32 else 1e-12
    for n, (a, b) in enumerate(zip(*found, strict=True)):
        tolerance = close
        if n >= outputs:
            # The derivative of a saturated gate is zero or a rounding error; times a large input the latter shows, and
            # times an infinite one the one is NaN and the other infinite.
            tolerance = 100 * close
            a, b = (part.masked_fill(~part.isfinite(), float("nan")) for part in (a, b))
        scale = b.nan_to_num(0, 0, 0).abs().max().clamp_min(0.1).item()
        torch.testing.assert_close(
            a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True, msg=lambda text, n=n: f"result {n}: {text}"
        )


@pytest.mark.parametrize("instruction_set", SETS, indirect=True)
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_that_is_not_finite_counts_from_the_first_step_on_though_h0_is_zero(kind, dtype, bad, instruction_set):
    # 0 times infinity is NaN: the product that the kernels would leave out has something to say.
    D, H, B = 3, 37, 9
    for row, column in ((0, 0), (20, 36), (H - 1, 17)):
        cell = make_cell(kind, D, H, dtype=dtype)
        with torch.no_grad():
            cell.W[row - H, column] = bad  # of the last gate
        x, state = torch.randn(1, B, D, dtype=dtype), cell.initial_state(B)
        expected, found = reference.scan(cell, x, state)[0], native.scan(cell, x, state)[0]
        assert expected[0, :, row].isnan().all()
        torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("instruction_set", SETS, indirect=True)
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_derivative_that_is_not_finite_counts_in_the_first_step_though_h0_is_zero(kind, dtype, bad, instruction_set):
    # The same on the way back: what da h_0^T adds to the gradient of W is 0 only if da is finite.
    D, H, B = 3, 37, 9
    for steps, sequence, unit in ((1, 0, 0), (1, 4, 20), (3, 4, 36), (3, B - 1, 0)):
        cell = make_cell(kind, D, H, dtype=dtype)
        with torch.no_grad():
            cell.b[-H:] = 4  # so that every relu is open
        x, state = torch.randn(steps, B, D, dtype=dtype), cell.initial_state(B)
        gradients = []
        for engine in (reference, native):
            out = engine.scan(cell, x, state)[0]
            d_out = torch.ones_like(out)
            d_out[0, sequence, unit] = bad
            gradients.append(torch.autograd.grad(out, [cell.W], d_out)[0])
        expected, found = gradients
        assert expected[unit - H].isnan().all()
        torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_that_is_not_finite_is_seen_whichever_thread_packs_it(kind):
    D, H, B, T = 3, 130, 40, 24
    x = torch.randn(T, B, D, dtype=torch.float64)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for unit in (0, 20, 40, 60, 80, 100, 129):  # in every group of units
            cell = make_cell(kind, D, H)
            with torch.no_grad():
                cell.W[unit - H, 7] = math.inf
            found = native.scan(cell, x, cell.initial_state(B))[0]
            assert found[0, :, unit].isnan().all(), unit
    finally:
        torch.set_num_threads(before)


def test_saturated_gates_are_exact_so_that_memory_does_not_leak():
    cell = make_cell("lstm", 1, 1, dtype=torch.float32)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.b.copy_(torch.tensor([-1e4, 1e4, 0.0, 1e4]))  # nothing in, nothing forgotten
    c0 = torch.tensor([[0.7]])
    _, (h, c) = native.scan(cell, torch.zeros(10_000, 1, 1), (torch.zeros(1, 1), c0))
    assert torch.equal(c, c0)
    torch.testing.assert_close(h, torch.tanh(c0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("instruction_set", SETS, indirect=True)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)], ids=str)
def test_the_nonlinearities_are_accurate_relative_to_their_value(instruction_set, dtype, tolerance):
    z = torch.cat([torch.linspace(-30, 30, 4001, dtype=dtype), torch.logspace(-6, 0, 200, dtype=dtype)])
    cell = make_cell("tanh", 1, 1, bias=False, dtype=dtype)
    with torch.no_grad():
        cell.W.zero_()
        cell.U.fill_(1)
    out, _ = native.scan(cell, z.reshape(1, -1, 1), z.new_zeros(len(z), 1))
    exact = torch.tanh(z.double())
    torch.testing.assert_close(out.flatten().double(), exact, rtol=tolerance, atol=0)

    cell = make_cell("lstm", 1, 1, bias=True, dtype=dtype)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.U[1] = 1  # c = f c0 = sigmoid(z)
        cell.b[0] = -1e4
    zeros = z.new_zeros(len(z), 1)
    _, (_, c) = native.scan(cell, z.reshape(1, -1, 1), (zeros, zeros + 1))
    torch.testing.assert_close(c.flatten().double(), torch.sigmoid(z.double()), rtol=tolerance, atol=0)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_the_padding_changes_nothing(kind, reverse):
    torch.manual_seed(0)
    T, B, D, H = 7, 11, 5, 20
    cell, state = make_cell(kind, D, H), make_state(kind, B, H)
    lengths = torch.randint(0, T + 1, (B,))
    x = torch.randn(T, B, D, dtype=torch.float64)
    padding = torch.arange(T)[:, None] >= lengths
    spoilt = x.masked_fill(padding[:, :, None], float("nan"))
    clean = results(native, cell, x, state, lengths, reverse)
    dirty = results(native, cell, spoilt, state, lengths, reverse)
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))
    assert not clean[0][padding].any()

    words = torch.randint(0, D, (T, B))
    clean = results(native, cell, words, state, lengths, reverse)
    dirty = results(native, cell, words.masked_fill(padding, -1), state, lengths, reverse)
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))


# --- threads and memory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ragged", [False, True])
def test_runs_repeat_bit_for_bit(kind, ragged):
    torch.manual_seed(0)
    T, B, D, H = 9, 70, 12, 40
    cell = make_cell(kind, D, H, dtype=torch.float32)
    x, state = torch.randn(T, B, D), make_state(kind, B, H, torch.float32)
    lengths = torch.randint(0, T + 1, (B,)) if ragged else None
    first = results(native, cell, x, state, lengths)
    for _ in range(5):
        again = results(native, cell, x, state, lengths)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("ragged", [False, True])
def test_any_number_of_threads_gives_the_same_outputs(ragged):
    torch.manual_seed(0)
    T, B, D, H = 9, 70, 12, 40
    cell = make_cell("lstm", D, H)
    x, state = torch.randn(T, B, D, dtype=torch.float64), make_state("lstm", B, H)
    lengths = torch.randint(0, T + 1, (B,)) if ragged else None
    truth = results(reference, cell, x, state, lengths)
    found = []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        found.append(results(native, cell, x, state, lengths))
        assert_same(found[-1], truth, 1e-10)
        assert torch.equal(found[-1][0], found[0][0])


def test_the_number_of_threads_may_change_between_forward_and_backward():
    torch.manual_seed(0)
    cell = make_cell("lstm", 12, 40)
    x = torch.randn(9, 70, 12, dtype=torch.float64)
    truth = results(reference, cell, x, cell.initial_state(70), into=(True, False), wants=(False, False, True))
    out, _ = native.scan(cell, x, cell.initial_state(70))
    torch.set_num_threads(1)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(0), dtype=out.dtype)
    found = torch.autograd.grad((out * weight).sum(), list(cell.parameters()))
    assert_same(found, truth[3:], 1e-10)


def test_several_python_threads_may_walk_at_once():
    torch.manual_seed(0)
    cells = [make_cell("lstm", 5, 30) for _ in range(4)]
    x = torch.randn(12, 40, 5, dtype=torch.float64)
    state = make_state("lstm", 40, 30)
    expected = [results(native, cell, x, state) for cell in cells]
    wrong: list[int] = []

    def work(n: int) -> None:
        for _ in range(10):
            found = results(native, cells[n], x, state)
            if not all(torch.equal(a, b) for a, b in zip(found, expected[n], strict=True)):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_memory_of_a_graph_that_is_never_walked_back_is_reused(monkeypatch):
    taken: list[int] = []
    given: list[int] = []

    class Library:
        unroll_forward = native_library.library.unroll_forward
        unroll_backward = native_library.library.unroll_backward

        @staticmethod
        def unroll_release(pointer: int) -> None:
            given.append(pointer)
            release(pointer)

    gc.collect()
    native.trim()
    release = native_library.library.unroll_release
    monkeypatch.setattr(eager, "library", Library)
    cell = make_cell("lstm", 5, 30)
    x = torch.randn(12, 40, 5, dtype=torch.float64)
    for _ in range(5):
        out = native.scan(cell, x, cell.initial_state(40))[0]
        taken.append(out.grad_fn.saved.pointer)
        del out
        gc.collect()
    assert [pointer for pointer in given if pointer in taken] == taken
    assert len(set(taken)) == 1


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux for this process's memory")
def test_no_more_memory_is_kept_than_was_in_use_at_once():
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    gc.collect()
    native.trim()
    cell, before = make_cell("lstm", 1, 64, dtype=torch.float32), resident()
    for step in range(12):  # each too large for what was kept of the ones before
        T = round(130 * 1.3**step)
        out = native.scan(cell, torch.zeros(T, 64, 1), cell.initial_state(64))[0]
        del out
    largest = 5 * T * 64 * 64 * 4  # four gates and c
    kept = resident() - before
    native.trim()
    assert 0.5 * largest < kept < 1.7 * largest
    assert resident() - before < 0.5 * largest


DEFAULT_DEVICE = """
import torch
from unroll.layers import LSTM

torch.manual_seed(0)
layer = LSTM(4, 6, bidirectional=True, engine="native").double()
x, words = torch.randn(5, 3, 4, dtype=torch.float64), torch.randint(0, 4, (5, 3))

def results():
    found = []
    for input, lengths in ((x, None), (words, [5, 2, 0])):
        out, _ = layer(input, lengths=lengths)
        gradients = torch.autograd.grad(out.square().sum(), list(layer.parameters()), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in gradients), list(layer.parameters()))
        traced = torch.ops.unroll.scan(
            x, x.new_zeros(3, 6), x.new_zeros(3, 6), *layer.cells[0][0].parameters(), None, False, False, 0, True
        )[0]
        found += [out, *gradients, *second, traced, *torch.autograd.grad(traced.sum(), [layer.cells[0][0].W])]
    return found

expected = results()
with torch.device("meta"):
    found = results()
assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
"""


def test_the_default_device_does_not_matter():
    # In a process of its own: memory on another device than the kernels' would end it.
    run = subprocess.run([sys.executable, "-c", DEFAULT_DEVICE], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3, 2, 5)}, "expected (T, B, 4)"),
        ({"state": (torch.zeros(3, 6), torch.zeros(2, 6))}, "expected (B, H) = (2, 6)"),
        ({"state": (torch.zeros(2, 6).double(),) * 2}, "give both the same dtype"),
        ({"lengths": torch.tensor([1, 4])}, "between 0 and T"),
        ({"lengths": torch.tensor([-1, 3])}, "between 0 and T"),
        ({"lengths": torch.tensor([1])}, "expected (2,) int64"),
        ({"lengths": torch.tensor([1.0, 2.0])}, "expected (2,) int64"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_kernels_see_it(change, message):
    arguments = {"x": torch.zeros(3, 2, 4), "state": (torch.zeros(2, 6),) * 2, "lengths": None} | change
    with pytest.raises(InputError) as raised:
        native.scan(LSTMCell(4, 6), **arguments)
    assert message in str(raised.value)


def test_the_reasons_why_not():
    cell = LSTMCell(2, 3)
    x = torch.zeros(1, 1, 2)
    assert native.why_not(cell, x) is None
    assert native.why_not(cell, torch.zeros(1, 1, dtype=torch.int64)) is None
    assert "float16" in native.why_not(cell.half(), x.half())
    assert "the weights are torch.float32" in native.why_not(LSTMCell(2, 3), x.double())
    assert "meta" in native.why_not(LSTMCell(2, 3, device="meta"), x)

    class Own(LSTMCell):  # read into a step program
        pass

    class Noisy(LSTMCell):
        def forward(self, x, state):
            h, c = super().forward(x, state)
            return h + torch.randn_like(h), c

    assert native.why_not(Own(2, 3), x) is None
    why = native.why_not(Noisy(2, 3), x)
    assert why.startswith(__file__)
    assert why.endswith(": randn_like draws random numbers of its own")
    assert "meta" in native.why_not(Own(2, 3, device="meta"), x)
    assert "the weights are torch.float32" in native.why_not(Own(2, 3), x.double())

    assert choose("auto", LSTMCell(2, 3), x) is native
    assert choose("auto", LSTMCell(2, 3).half(), x.half()) is reference
    assert choose("auto", Own(2, 3), x) is native
    assert choose("auto", Noisy(2, 3), x) is reference


def test_without_the_library_everything_runs_on_the_reference(monkeypatch):
    monkeypatch.setattr(native_library, "library", None)
    monkeypatch.setattr(native_library, "_obstacle", "the compiled kernels are not installed")
    assert native.describe() == "reference (the compiled kernels are not installed)"
    layer = LSTM(3, 4)
    layer(torch.zeros(2, 2, 3))[0].sum().backward()
    with pytest.raises(InputError, match="not installed"):
        scan_with(layer.cells[0][0], torch.zeros(2, 2, 3), (torch.zeros(2, 4),) * 2, engine="native")


def test_the_instruction_set_can_be_forced_from_outside():
    program = "from unroll.engines import native; print(native.describe())"
    for wanted, printed in [
        ("portable", "native (portable)"),
        ("vax", "reference (UNROLL_ISA=vax is no instruction set"),
    ]:
        if wanted == "portable" and wanted not in SETS:
            continue
        run = subprocess.run(
            [sys.executable, "-c", program],
            env={"UNROLL_ISA": wanted, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.startswith(printed)
