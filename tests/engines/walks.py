"""What the tests of the native engine share: cells and states of every kind, their results, and how they are compared."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unroll.cells import Cell, LSTMCell, RNNCell
from unroll.engines import native
from unroll.engines.native import library as native_library

KINDS = ["lstm", "tanh", "relu"]
SETS = [
    name
    for name in ("portable", "avx2", "avx512", "neon")
    if native_library.library and native_library.library.unroll_select(name.encode())
]
if native_library.library:
    native_library.library.unroll_select((native.instruction_set() or "").encode())


def make_cell(kind: str, D: int, H: int, bias: bool = True, dtype: torch.dtype = torch.float64) -> Cell:
    if kind == "lstm":
        return LSTMCell(D, H, bias=bias, dtype=dtype)
    return RNNCell(D, H, bias=bias, nonlinearity=kind, dtype=dtype)


def make_state(kind: str, B: int, H: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    return tuple(torch.randn(B, H, dtype=dtype) for _ in range(2 if kind == "lstm" else 1))


def torch_layer(kind: str, D: int, H: int, **options):
    if kind == "lstm":
        return nn.LSTM(D, H, **options)
    return nn.RNN(D, H, nonlinearity=kind, **options)


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
