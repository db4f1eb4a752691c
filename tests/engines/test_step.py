"""The compiled parts of a training step: readout and loss against torch's, Adam's update against the plain rule."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad

from unroll.engines import native, readout_loss
from unroll.engines.native import library as native_library
from unroll.errors import InputError
from unroll.optim import Adam, AdamW

pytestmark = pytest.mark.skipif(native.instruction_set() is None, reason="the compiled kernels are not installed")

SIZES = [(1,), (4097,), (3, 5), (0,), (100, 230)]


def parameters(dtype):
    generator = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(size, generator=generator, dtype=dtype)) for size in SIZES]


def few_steps(optimiser, dtype, steps=4):
    """The norms of `steps` updates with random gradients; the third parameter has none."""
    generator = torch.Generator().manual_seed(2)
    norms = []
    for step in range(steps):
        for n, p in enumerate(optimiser._parameters):
            # Matrices' gradients come transposed in memory, as those of a product may.
            gradient = torch.randn(p.shape[::-1], generator=generator, dtype=dtype)
            p.grad = None if n == 2 else gradient.t() if p.dim() == 2 else gradient
        optimiser.learning_rate = 0.1 / (1 + step)
        norms.append(optimiser.step())
    return torch.stack(norms)


@pytest.mark.parametrize("max_norm", [None, 50.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("kind", "decay"), [(Adam, 0.0), (Adam, 0.2), (AdamW, 0.2)])
def test_the_compiled_update_is_the_plain_rule(kind, decay, dtype, max_norm):
    made = {}
    for engine in ("native", "reference"):
        optimiser = kind(parameters(dtype), 0.1, weight_decay=decay, max_norm=max_norm, betas=(0.8, 0.9), engine=engine)
        norms = few_steps(optimiser, dtype)
        made[engine] = (norms, optimiser.theta, *optimiser._state().values())
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    for ours, plain in zip(made["native"], made["reference"], strict=True):
        torch.testing.assert_close(ours, plain, rtol=tolerance, atol=tolerance)


def test_the_update_is_the_same_to_the_bit_with_any_number_of_threads():
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            optimiser = AdamW(parameters(torch.float32), 0.1, max_norm=1.0, engine="native")
            made.append((few_steps(optimiser, torch.float32), optimiser.theta))
    finally:
        torch.set_num_threads(before)
    for norms, theta in made[1:]:
        assert torch.equal(norms, made[0][0])
        assert torch.equal(theta, made[0][1])


@pytest.mark.parametrize(
    ("shape", "gradient"),
    [
        ((8,), lambda dense: torch.ones(1).expand(8)),
        ((8,), lambda dense: dense[::2]),
        ((8, 1), lambda dense: dense.reshape(8, 2)[:, :1]),
        ((2, 4), lambda dense: dense.reshape(8, 2)[:, 0].reshape(4, 2).t()),
    ],
)
def test_gradients_are_read_whatever_their_strides(shape, gradient):
    made = []
    for engine in ("native", "reference"):
        p = nn.Parameter(torch.zeros(shape))
        p.grad = gradient(torch.arange(16.0))
        made.append((Adam([p], 0.1, engine=engine).step(), p.detach()))
    torch.testing.assert_close(*made)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("engine", ["native", "reference"])
def test_a_gradient_that_is_no_number_reaches_the_norm_and_the_weights(engine, bad):
    optimiser = Adam(parameters(torch.float32), 0.1, max_norm=1.0, engine=engine)
    for p in optimiser._parameters:
        p.grad = torch.ones_like(p)
    optimiser._parameters[1].grad[4000] = bad
    assert not bool(optimiser.step().isfinite())
    assert bool(optimiser._parameters[1][4000].isnan())


def test_an_engine_that_cannot_update_says_why():
    half = [nn.Parameter(torch.ones(2, dtype=torch.bfloat16))]
    with pytest.raises(InputError, match=r"not in torch\.bfloat16; use engine='auto'"):
        Adam(half, 0.1, engine="native")
    with pytest.raises(InputError, match="unknown engine 'nativ'; did you mean 'native'"):
        Adam(half, 0.1, engine="nativ")
    half[0].grad = torch.ones_like(half[0])
    Adam(half, 0.1).step()
    torch.testing.assert_close(half[0].detach(), torch.full((2,), 0.9, dtype=torch.bfloat16))


# ----------------------------------------------------------------------------------------------- readout and loss


def torchs(h, W, b, y, weights=None, smoothing=0.0):
    return nn.functional.cross_entropy(nn.functional.linear(h, W, b), y, weights, label_smoothing=smoothing)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    B=st.integers(1, 9),
    C=st.integers(1, 12),
    F=st.integers(1, 40),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    weighted=st.booleans(),
    scale=st.sampled_from([0.0, 1.0, 100.0]),
    transposed=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_the_loss_and_its_gradients_are_torchs(B, C, F, dtype, smoothing, weighted, scale, transposed, seed):
    generator = torch.Generator().manual_seed(seed)

    def draw(rows, columns):
        drawn = torch.randn(columns, rows, generator=generator, dtype=dtype).T
        return (drawn if transposed else drawn.contiguous()).requires_grad_()

    h, W, b = draw(B, F), (scale * draw(C, F).detach()).requires_grad_(), draw(1, C)[0]
    y = torch.randint(C, (B,), generator=generator)
    weights = torch.rand(C, generator=generator, dtype=dtype) + 0.1 if weighted else None
    ours, theirs = readout_loss(h, W, b, y, weights, smoothing), torchs(h, W, b, y, weights, smoothing)
    assert "ReadoutLoss" in ours.grad_fn.name()
    tolerance = {"rtol": 1e-11, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(ours, theirs, **tolerance)
    found, expected = (torch.autograd.grad(3 * loss, (h, W, b)) for loss in (ours, theirs))
    tolerance["atol"] *= max(1, scale)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **tolerance)


def case(B=6, C=3, F=5):
    generator = torch.Generator().manual_seed(0)
    h, W, b = (torch.randn(size, generator=generator).double().requires_grad_() for size in ((B, F), (C, F), (C,)))
    return h, W, b, torch.arange(B) % C


@pytest.fixture
def each_set():
    """Every instruction set of this machine, one after the other."""

    def sets():
        for name in ("portable", "avx2", "avx512", "neon"):
            if native_library.library is not None and native_library.library.unroll_select(name.encode()):
                yield name

    yield sets()
    if native_library.library is not None:
        native_library.library.unroll_select(native.instruction_set().encode())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_number_of_classes_and_features_on_any_instruction_set(each_set, dtype):
    for name in each_set:
        for C, F in ((1, 1), (2, 130), (10, 112), (16, 3), (17, 33), (50, 7)):
            h, W, b, y = (t.to(dtype).detach().requires_grad_() if t.is_floating_point() else t for t in case(5, C, F))
            weights = 1 + torch.arange(C, dtype=dtype)
            found, expected = readout_loss(h, W, b, y, weights, 0.1), torchs(h, W, b, y, weights, 0.1)
            torch.testing.assert_close(found, expected, msg=lambda text, name=name: f"{name}: {text}")
            for mine, its in zip(
                torch.autograd.grad(found, (h, W, b)), torch.autograd.grad(expected, (h, W, b)), strict=True
            ):
                torch.testing.assert_close(mine, its, msg=lambda text, name=name: f"{name}: {text}")


def test_shares_of_a_batch_add_up_to_the_whole():
    h, W, b, y = case()
    weights = torch.tensor([1.0, 2, 3]).double()
    total = float(weights[y].sum())
    for engine in ("auto", "reference"):
        parts = [readout_loss(h[s], W, b, y[s], weights, 0.1, total, engine) for s in (slice(4), slice(4, 6))]
        torch.testing.assert_close(sum(parts), torchs(h, W, b, y, weights, 0.1))
    assert float(readout_loss(h[:0], W, b, y[:0], total=total).detach()) == 0


@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_infinite_and_missing_logits_are_taken_as_torch_takes_them(at, bad):
    h, W, b, y = case()
    b = b.detach().clone()
    b[at] = bad
    losses = [function(h[:1], W, b, y[:1]) for function in (readout_loss, torchs)]
    torch.testing.assert_close(*losses, equal_nan=True)
    for found, expected in zip(*(torch.autograd.grad(loss, (h, W)) for loss in losses), strict=True):
        torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("weights", lambda w: w.float()),
        ("weights", lambda w: w[:2]),
        ("b", lambda b: b.float()),
        ("b", lambda b: b[:2]),
        ("W", lambda W: W[:, :4]),
        ("y", lambda y: y[:5]),
        ("y", lambda y: y.float()),
        ("y", lambda y: y.int()),
        ("h", lambda h: h[0]),
    ],
)
def test_what_does_not_fit_is_left_to_torch_and_its_errors(name, change):
    h, W, b, y = case()
    arguments = {"h": h, "W": W, "b": b, "y": y, "weights": torch.ones(3).double()}
    assert "ReadoutLoss" in readout_loss(**arguments).grad_fn.name()
    arguments[name] = change(arguments[name])
    with pytest.raises((RuntimeError, IndexError, ValueError)):
        readout_loss(**arguments)


@pytest.mark.parametrize("y", [[0, 3], [-1, 0]])
def test_a_class_that_is_none_is_an_error(y):
    h, W, b, _ = case(B=2)
    for weights in (None, torch.ones(3).double()):
        with pytest.raises(InputError, match=f"classes run from {min(y)} to {max(y)}; expected 0 to 2"):
            readout_loss(h, W, b, torch.tensor(y), weights)


def test_the_loss_can_be_differentiated_twice():
    h, W, b, y = case(B=2)
    weights = torch.rand(3).double()
    torch.autograd.gradcheck(lambda *inputs: readout_loss(*inputs, y, weights, 0.1), (h, W, b))
    torch.autograd.gradgradcheck(lambda *inputs: readout_loss(*inputs, y, weights, 0.1), (h, W, b))
    # With some of them constant, or laid out otherwise.
    torch.autograd.gradgradcheck(lambda W: readout_loss(h.detach(), W, b.detach(), y), W)
    torch.autograd.gradgradcheck(
        lambda h: readout_loss(h.t(), W.detach(), b, y), h.detach().t().clone().requires_grad_()
    )


def test_a_gradient_that_is_changed_does_not_change_the_next_one():
    h, W, b, y = case()
    loss = readout_loss(h, W, b, y)
    (first,) = torch.autograd.grad(loss, W, retain_graph=True)
    kept = first.clone()
    first.zero_()
    assert torch.equal(torch.autograd.grad(loss, W)[0], kept)


@pytest.mark.parametrize("scale", [1.0, 3.0, math.nan])
def test_the_gradients_are_scaled_by_the_losss_own(scale):
    h, W, b, y = case()
    expected = scale * torch.autograd.grad(torchs(h, W, b, y), W)[0]
    (found,) = torch.autograd.grad(readout_loss(h, W, b, y), W, torch.tensor(scale, dtype=W.dtype))
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_several_gradients_of_the_loss_at_once():
    h, W, b, y = case()
    scales = torch.tensor([1.0, 3.0], dtype=W.dtype)
    (found,) = torch.autograd.grad(readout_loss(h, W, b, y), W, scales, is_grads_batched=True)
    expected = torch.autograd.grad(torchs(h, W, b, y), W)[0]
    torch.testing.assert_close(found, torch.stack([expected, 3 * expected]))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own doing
def test_traced_transformed_and_fake_tensors_go_to_torch():
    h, W, b, y = (tensor.detach() for tensor in case())
    expected = torch.autograd.grad(torchs(h, W.requires_grad_(), b, y), W)[0]
    W = W.detach()
    torch.testing.assert_close(torch.func.grad(lambda W: readout_loss(h, W, b, y))(W), expected)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(W, torch.ones_like(W))
        tangent = forward_ad.unpack_dual(readout_loss(h, dual, b, y)).tangent
    torch.testing.assert_close(tangent, expected.sum())
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert readout_loss(*map(mode.from_tensor, (h, W, b, y))).shape == ()
    compiled = torch.compile(readout_loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(h, W, b, y), torchs(h, W, b, y))


def test_a_large_readout_is_left_to_torchs_threads():
    h, W, b = torch.randn(64, 128), torch.randn(1000, 128, requires_grad=True), torch.zeros(1000)
    y = torch.randint(1000, (64,))
    loss = readout_loss(h, W, b, y)
    assert "ReadoutLoss" not in loss.grad_fn.name()
    torch.testing.assert_close(loss, torchs(h, W, b, y))


@pytest.mark.skipif(native.available() is not None, reason=str(native.available()))
def test_adam_runs_on_the_engine_asked_for(monkeypatch):
    def never(*_, **__):
        raise AssertionError("compiled code is run")

    monkeypatch.setattr(native, "adam", never)
    for engine in ("auto", "native", "reference"):
        parameter = torch.nn.Parameter(torch.ones(3))
        parameter.grad = torch.ones(3)
        optimiser = Adam([parameter], 0.1, engine=engine)
        if engine == "reference":
            optimiser.step()
            continue
        with pytest.raises(AssertionError, match="compiled code is run"):
            optimiser.step()
