"""The operators behind the native engine, under the tools that trace: torch.compile, torch.export, autocast, vmap."""

from __future__ import annotations

import pytest
import setuptools  # noqa: F401  # before any test imports distutils: torch's compiler wants this one's
import torch
from torch import nn

from unroll.engines import native
from unroll.engines.native import kernels
from unroll.errors import InputError
from unroll.layers import LSTM, RNN

pytestmark = pytest.mark.skipif(native.available() is not None, reason=str(native.available()))

LAYERS = {
    "lstm": lambda: LSTM(4, 20, engine="native"),
    "tanh": lambda: RNN(4, 20, engine="native"),
    "relu": lambda: RNN(4, 20, nonlinearity="relu", engine="native"),
    "two layers, both directions": lambda: LSTM(4, 20, num_layers=2, bidirectional=True, engine="native"),
}


def gradients(layer: nn.Module, call, x: torch.Tensor) -> list[torch.Tensor]:
    layer.zero_grad()
    x = x.detach().requires_grad_(x.is_floating_point())
    out, last = call(x)
    last = last if isinstance(last, tuple) else (last,)
    sum(part.sin().sum() for part in (out, *last)).backward()
    return [out, *last, *([x.grad] if x.is_floating_point() else []), *(p.grad for p in layer.parameters())]


@pytest.mark.parametrize("words", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_torch_compile_takes_a_layer_whole(name, words):
    torch.manual_seed(0)
    layer = LAYERS[name]()
    x = torch.randint(0, 4, (5, 7)) if words else torch.randn(5, 7, 4)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    eager = [tensor.clone() for tensor in gradients(layer, layer, x)]
    for a, b in zip(gradients(layer, compiled, x), eager, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where the backend loads
def test_torch_compile_generates_code_around_a_layer():
    torch.manual_seed(0)
    layer, x = LAYERS["lstm"](), torch.randn(5, 7, 4)
    compiled = torch.compile(layer, fullgraph=True)
    eager = [tensor.clone() for tensor in gradients(layer, layer, x)]
    for a, b in zip(gradients(layer, compiled, x), eager, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    torch._dynamo.reset()


def test_torch_compile_with_gradients_off():
    layer = LAYERS["lstm"]()
    x = torch.randn(5, 7, 4)
    with torch.no_grad():
        compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
        assert torch.equal(compiled(x)[0], layer(x)[0])
    torch._dynamo.reset()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", ["lstm", "tanh"])
def test_torch_export_carries_the_operator(name, strict):
    layer = LAYERS[name]().eval()
    x = torch.randn(5, 7, 4)
    with torch.no_grad():
        program = torch.export.export(layer, (x,), strict=strict)
        names = {str(node.target) for node in program.graph.nodes}
        assert "unroll.scan.default" in names
        assert torch.equal(program.module()(x)[0], layer(x)[0])


@pytest.mark.parametrize("lengths", [None, torch.tensor([3, 0, 4])], ids=["equal lengths", "ragged"])
@pytest.mark.parametrize("projected", [False, True])
@pytest.mark.parametrize("kind", [kernels.LSTM, kernels.RNN_TANH])
def test_the_operators_pass_torchs_own_checks(kind, projected, lengths):
    torch.manual_seed(0)
    T, B, D, H = 4, 3, 2, 5
    G = 4 if kind == kernels.LSTM else 1
    shapes = [(T, B, G * H if projected else D), (B, H), (B, H), (G * H, H), (G * H, D), (G * H,)]
    x, h0, c0, W, U, b = (torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes)
    arguments = (x, h0, c0 if G == 4 else None, W, U, b, lengths, False, projected, kind)
    checks = ("test_schema", "test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(torch.ops.unroll.scan.default, (*arguments, G == 4), test_utils=checks)

    detached = [a.detach() if isinstance(a, torch.Tensor) else a for a in arguments]
    out, h, c, saved = torch.ops.unroll.scan(*detached, True)
    d = torch.randn_like(out), torch.randn_like(h), torch.randn_like(c) if G == 4 else None
    needed = [True, True, G == 4, True, not projected, True]
    backward = torch.ops.unroll.scan_backward.default
    torch.library.opcheck(backward, (*d, out, saved, *detached, needed), test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize("kind", [kernels.LSTM, kernels.RNN_TANH])
def test_the_operators_can_be_differentiated_twice(kind):
    torch.manual_seed(0)
    T, B, D, H = 2, 2, 2, 3
    G = 4 if kind == kernels.LSTM else 1
    shapes = [(T, B, D), (B, H), (G * H, H), (G * H, D), (G * H,), (B, H)]
    tensors = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]

    def function(x, h0, W, U, b, c0=None):
        results = torch.ops.unroll.scan(x, h0, c0, W, U, b, None, False, False, kind, True)
        return results[: 2 if c0 is None else 3]

    tensors = tensors if G == 4 else tensors[:-1]
    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)


@pytest.mark.parametrize("name", ["lstm", "tanh"])
def test_autocast_computes_in_float32(name):
    torch.manual_seed(0)
    layer = LAYERS[name]()
    x = torch.randn(5, 7, 4)
    expected = layer(x.bfloat16().float())[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(x.bfloat16())[0]
    assert out.dtype == torch.float32
    assert torch.equal(out, expected)
    out.sum().backward()
    assert layer.cells[0][0].W.grad.dtype == torch.float32


def test_torch_func_falls_back_to_the_reference():
    torch.manual_seed(0)
    layer = LSTM(4, 6)
    x = torch.randn(3, 2, 4)

    def loss(parameters, x):
        return torch.func.functional_call(layer, parameters, (x,))[0].square().sum()

    parameters = {name: value.detach() for name, value in layer.named_parameters()}
    found = torch.func.grad(loss)(parameters, x)
    layer(x)[0].square().sum().backward()
    for name, parameter in layer.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad)
    per_sample = torch.func.vmap(torch.func.grad(loss), (None, 1))(parameters, x.unsqueeze(2))
    torch.testing.assert_close(sum(per_sample["cells.0.0.W"]), layer.cells[0][0].W.grad)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on its first make_dual
def test_forward_mode_derivatives_come_from_the_reference():
    torch.manual_seed(0)
    layer = LSTM(4, 6)
    x, tangent = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    _, expected = torch.func.jvp(lambda x: layer(x)[0], (x,), (tangent,))
    with torch.autograd.forward_ad.dual_level():
        out = layer(torch.autograd.forward_ad.make_dual(x, tangent))[0]
        assert "forward-mode derivatives" in native.why_not(layer.cells[0][0], x)
        torch.testing.assert_close(torch.autograd.forward_ad.unpack_dual(out).tangent, expected)
    assert native.why_not(layer.cells[0][0], x) is None


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", LAYERS)
def test_torch_jit_trace_records_the_operator(name):
    layer = LAYERS[name]()
    traced = torch.jit.trace(layer, (torch.randn(5, 7, 4),))
    for T in (5, 9):  # the operator walks over as many steps as come
        x = torch.randn(T, 7, 4)
        assert torch.equal(traced(x)[0], layer(x)[0])


def test_fake_tensors_flow_through():
    from torch._subclasses.fake_tensor import FakeTensorMode

    layer = LAYERS["lstm"]()
    with FakeTensorMode(allow_non_fake_inputs=True):
        out, (h, _) = layer(torch.randn(5, 7, 4))
        assert out.shape == (5, 7, 20)
        assert h.shape == (1, 7, 20)


def test_padded_batches_compile_into_one_graph():
    layer = LAYERS["lstm"]()
    x, lengths = torch.randn(5, 3, 4), torch.tensor([5, 0, 3])
    compiled = torch.compile(lambda x, lengths: layer(x, lengths=lengths)[0], backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x, lengths), layer(x, lengths=lengths)[0])
    torch._dynamo.reset()


# --- what the operators refuse ----------------------------------------------------------------------------------------


def operator_arguments(kind: int) -> dict[str, object]:
    """Arguments that fit, by name; T, B, D, H = 4, 3, 2, 5."""
    G = 4 if kind == kernels.LSTM else 1
    shapes = {"x": (4, 3, 2), "h0": (3, 5), "c0": (3, 5), "W": (G * 5, 5), "U": (G * 5, 2), "b": (G * 5,)}
    tensors = {name: torch.randn(shape) if name != "c0" or G == 4 else None for name, shape in shapes.items()}
    return {**tensors, "lengths": torch.tensor([4, 0, 2]), "reverse": False, "projected": False, "kind": kind}


MISFITS = [
    ("x", lambda x: x.half(), "the input is torch.float16"),
    ("x", lambda x: x[0], "the input has shape (3, 2)"),
    ("h0", lambda h0: h0.double(), "a state is torch.float64"),
    ("h0", lambda h0: h0[:1], "a state has shape (1, 5)"),
    ("W", lambda W: W[:-1], "W has shape"),
    ("W", lambda W: W[0], "W is (5,)"),
    ("U", lambda U: U[:1], "U has shape (1, 2)"),
    ("U", lambda U: U[0], "U is (2,)"),
    ("b", lambda b: b[:3], "b has shape (3,)"),
    ("b", lambda b: b.double(), "b is torch.float64"),
    ("lengths", lambda lengths: lengths.int(), "expected (3,) int64"),
    ("lengths", lambda lengths: lengths + 1, "between 0 and T"),
    ("kind", lambda kind: 3, "kind is 3"),
    ("kind", lambda kind: {kernels.LSTM: kernels.RNN_TANH, kernels.RNN_TANH: kernels.LSTM}[kind], "kind is"),
]


@pytest.mark.parametrize(("name", "spoil", "message"), MISFITS)
@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("kind", [kernels.LSTM, kernels.RNN_TANH])
def test_the_operators_refuse_what_does_not_fit(kind, backward, name, spoil, message):
    arguments = operator_arguments(kind)
    out, h, c, saved = torch.ops.unroll.scan(**arguments, save=True)
    arguments[name] = spoil(arguments[name])
    operator, given = torch.ops.unroll.scan, [*arguments.values(), True]
    if backward:
        d_c = c if kind == kernels.LSTM else None
        operator, given = torch.ops.unroll.scan_backward, [out, h, d_c, out, saved, *arguments.values(), [True] * 6]
    with pytest.raises(InputError) as raised:
        operator(*given)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("which", "spoil", "message"),
    [
        (0, lambda d: d[:1], "d_out has shape (1, 3, 5)"),
        (1, lambda d: d.double(), "d_h_last is torch.float64"),
        (2, lambda d: d[:1], "d_c_last has shape (1, 5)"),
        (3, lambda out: out[:, :1], "out has shape (4, 1, 5)"),
        (4, lambda saved: saved[:0], "saved has shape (0,)"),
        (5, lambda needed: needed[:3], "needed has 3 entries"),
    ],
)
def test_the_backward_operator_refuses_gradients_and_memory_that_do_not_fit(which, spoil, message):
    arguments = operator_arguments(kernels.LSTM)
    out, h, c, saved = torch.ops.unroll.scan(**arguments, save=True)
    given = [out, h, c, out, saved, [True] * 6]
    given[which] = spoil(given[which])
    with pytest.raises(InputError) as raised:
        torch.ops.unroll.scan_backward(*given[:5], *arguments.values(), given[5])
    assert message in str(raised.value)


def test_memory_that_no_such_forward_pass_has_filled_is_refused():
    arguments = operator_arguments(kernels.LSTM)
    out, h, c, saved = torch.ops.unroll.scan(**arguments, save=True)
    # One sequence longer; and as many steps in all, dealt out otherwise.
    others = [
        torch.ops.unroll.scan(**{**arguments, "lengths": torch.tensor(lengths)}, save=True)[3]
        for lengths in ([4, 1, 2], [2, 0, 4])
    ]
    for other in (torch.zeros_like(saved), torch.full_like(saved, 1e30), *others):
        with pytest.raises(InputError, match="saved does not come from a forward pass like this one"):
            torch.ops.unroll.scan_backward(out, h, c, out, other, *arguments.values(), [True] * 6)


def test_autocast_never_lets_the_kernels_read_one_dtype_as_another():
    layer = LSTM(4, 6).double()
    cell = layer.cells[0][0]
    x, state = torch.randn(5, 7, 4).bfloat16(), torch.zeros(7, 6, dtype=torch.float64)
    with torch.autocast("cpu"):
        assert "autocast" in native.why_not(cell, x)
        with pytest.raises(InputError, match=r"the input is torch\.float32 and the weights are torch\.float64"):
            native.scan(cell, x, (state, state))
        # All in float64, autocast changes nothing, and the reference computes it.
        out = layer(x.double())[0]
    torch.testing.assert_close(out, layer(x.double())[0])
