"""The native engine computes what the reference computes, and torch; so do its derivatives."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pack_padded_sequence
from walks import KINDS, SETS, assert_same, make_cell, make_state, results, torch_layer

from unroll.engines import choose, native, reference
from unroll.layers import LSTM, RNN

pytestmark = pytest.mark.skipif(native.available() is not None, reason=str(native.available()))


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
        assert choose("auto", layer.cells[0][0], there) is (native if device == "cpu" else reference)
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
