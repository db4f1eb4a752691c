"""What a training step does beside the recurrence, compiled too: readout and loss with their gradients, and Adam's update.

Each is one call where torch's operations are a dozen or more, most of them shorter than it takes to start them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unroll.engines import native
from unroll.errors import InputError


def why_not(tensor: Tensor) -> str | None:
    """What keeps the compiled step from a tensor; None if nothing does."""
    if (missing := native.available()) is not None:
        return missing
    if tensor.device.type != "cpu":
        return f"the kernels run on the CPU, and the parameters are on {tensor.device}"
    if tensor.dtype not in (torch.float32, torch.float64):
        return f"the kernels compute in float32 and float64, not in {tensor.dtype}"
    return None


# --- readout and loss -------------------------------------------------------------------------------------------------

_MOST = 4_000_000  # products of a batch's readout; with more of them torch's threads are faster than our one


class _ReadoutCall(ctypes.Structure):
    """`ReadoutCall` of native/engine.hpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("double", "rows", "classes", "features")),
        *((name, ctypes.c_void_p) for name in ("h", "W", "b", "targets", "class_weights")),
        *((name, ctypes.c_double) for name in ("smoothing", "total")),
        *((name, ctypes.c_void_p) for name in ("loss", "d_h", "d_W", "d_b")),
    )


def readout_loss(
    h: Tensor,
    W: Tensor,
    b: Tensor,
    y: Tensor,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    *,
    total: float | None = None,
    reference: bool = False,
) -> Tensor:
    """The mean cross-entropy of a linear readout, as `torch.nn.functional.cross_entropy` has it.

        z = h Wᵀ + b,   p = softmax(z)
        q_k = (1 - smoothing) w_y [k = y] + smoothing w_k / C
        loss = - sum over the batch and k of q_k log p_k / total
        dz_k = (p_k sum_j q_j - q_k) / total,   dh = dz W,   dW = dzᵀ h,   db = sum over the batch of dz

    Label smoothing: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking the Inception architecture. CVPR 2016, section 7.

    Args:
        h: (B, F) what is read.
        W: (C, F).
        b: (C,).
        y: (B,) int64, the classes.
        weights: (C,) their weights w; None for ones.
        total: what to divide by; None for the sum of w_y over the batch.
        reference: by torch's operations everywhere, not only where the compiled one cannot do it.

    Raises:
        InputError: a y is no class.
    """
    if total is None:
        total = float(len(y) if weights is None else weights[y].sum())
    if reference or h.numel() * len(b) > _MOST or h.dtype != W.dtype or why_not(h) is not None:
        return _plain(h, W, b, y, weights, smoothing, total)
    loss: Tensor = _ReadoutLoss.apply(h, W, b, y, weights, smoothing, total)  # type: ignore[no-untyped-call]
    return loss


def _plain(
    h: Tensor, W: Tensor, b: Tensor, y: Tensor, weights: Tensor | None, smoothing: float, total: float
) -> Tensor:
    z = torch.addmm(b, h, W.T)
    return torch.nn.functional.cross_entropy(z, y, weights, reduction="sum", label_smoothing=smoothing) / total


class _ReadoutLoss(torch.autograd.Function):
    """The gradients are computed with the loss, and wait for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, W: Tensor, b: Tensor, y: Tensor, weights: Tensor | None, smoothing: float, total: float
    ) -> Tensor:
        inputs = h, W, b, y = h.contiguous(), W.contiguous(), b.contiguous(), y.contiguous()
        weights = None if weights is None else weights.contiguous()
        loss, d_h, d_W, d_b = h.new_empty(()), torch.empty_like(h), torch.empty_like(W), torch.empty_like(b)
        call = _ReadoutCall(
            h.dtype == torch.float64,
            len(h),
            *W.shape,
            *(tensor.data_ptr() for tensor in inputs),
            None if weights is None else weights.data_ptr(),
            smoothing,
            total,
            *(tensor.data_ptr() for tensor in (loss, d_h, d_W, d_b)),
        )
        assert native._library is not None
        status = native._library.unroll_readout(ctypes.byref(call))
        if status == 1:
            raise MemoryError("not enough memory for the readout")
        if status == 2:
            raise InputError(f"classes run from {int(y.min())} to {int(y.max())}; expected 0 to {len(b) - 1}")
        ctx.save_for_backward(*inputs, weights, d_h, d_W, d_b)
        ctx.options = smoothing, total
        return loss

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor) -> Any:
        h, W, b, y, weights, *gradients = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody will want the gradients' own gradients
            aliases = h.view_as(h), W.view_as(W), b.view_as(b)
            loss = _plain(*aliases, y, weights, *ctx.options)
            gradients = torch.autograd.grad(loss, aliases, create_graph=True)
        elif float(d_loss) == 1:  # nearly always
            return *gradients, None, None, None, None
        return *(gradient * d_loss for gradient in gradients), None, None, None, None


# --- updating ---------------------------------------------------------------------------------------------------------


class _AdamCall(ctypes.Structure):
    """`AdamCall` of native/engine.hpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("double", "threads", "tensors")),
        *((name, ctypes.c_void_p) for name in ("gradients", "sizes", "theta", "m", "v", "norm")),
        *((name, ctypes.c_double) for name in ("max_norm", "penalty", "keep", "beta1", "beta2", "rate", "eps")),
    )


def adam(
    theta: Tensor,
    m: Tensor,
    v: Tensor,
    gradients: Sequence[Tensor | None],
    sizes: Sequence[int],
    max_norm: float | None,
    *,
    penalty: float,
    keep: float,
    betas: tuple[float, float],
    rate: float,
    eps: float,
) -> Tensor:
    """Update theta, m and v (N,) in place; the norm of the gradients before clipping, a 0-dim tensor.

        g <- g min(1, max_norm / (||g||_2 + 1e-6)) + penalty theta
        m <- m + (1 - beta1) (g - m)
        v <- beta2 v + (1 - beta2) g^2
        theta <- keep theta - rate m / (sqrt(v) + eps)

    Args:
        gradients: one for each stretch of theta, of that many numbers without gaps; None counts as zeros.
        sizes: how long the stretches are.
    """
    norm = torch.empty((), dtype=theta.dtype, device=theta.device)
    count = len(sizes)
    pointers = (ctypes.c_void_p * count)(*(None if g is None else g.data_ptr() for g in gradients))
    lengths = (ctypes.c_int64 * count)(*sizes)
    call = _AdamCall(
        theta.dtype == torch.float64,
        torch.get_num_threads(),
        count,
        ctypes.addressof(pointers),
        ctypes.addressof(lengths),
        theta.data_ptr(),
        m.data_ptr(),
        v.data_ptr(),
        norm.data_ptr(),
        max_norm or 0.0,
        penalty,
        keep,
        *betas,
        rate,
        eps,
    )
    assert native._library is not None
    if native._library.unroll_adam(ctypes.byref(call)):
        raise MemoryError("not enough memory to update the parameters")
    return norm
