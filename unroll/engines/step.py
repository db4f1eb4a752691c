"""What a training step does beside the recurrence, compiled too: readout and loss with their gradients, and Adam's update.

Each is one call where torch's operations are a dozen or more, most of them shorter than it takes to start them.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unroll.engines import native
from unroll.errors import InputError


def why_not(tensor: Tensor) -> str | None:
    """What keeps the compiled step from a tensor by its kind; None if nothing does."""
    if (missing := native.available()) is not None:
        return missing
    if tensor.device.type != "cpu":
        return f"the kernels run on the CPU, and the parameters are on {tensor.device}"
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        return f"the kernels take plain tensors, not a {type(tensor).__name__}"
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
        InputError: a y is no class. What does not fit otherwise is left to torch, which says so.
    """
    if reference or not _fits(h, W, b, y, weights):
        return _plain(h, W, b, y, weights, smoothing, total)
    loss: Tensor = _ReadoutLoss.apply(h, W, b, y, weights, smoothing, total)  # type: ignore[no-untyped-call]
    return loss


def _fits(h: Tensor, W: Tensor, b: Tensor, y: Tensor, weights: Tensor | None) -> bool:
    """Whether the compiled function, which trusts its pointers, can do this, and does it faster."""
    if native.recorded(h) or native.transformed() is not None or why_not(h) is not None:
        return False
    classes, numbers = len(b), (W, b) if weights is None else (W, b, weights)
    return (
        h.numel() * classes <= _MOST
        and h.dim() == 2
        and W.shape == (classes, h.shape[1])
        and b.dim() == 1
        and y.shape == h.shape[:1]
        and y.dtype == torch.int64
        and (weights is None or weights.shape == b.shape)
        and all(tensor.dtype == h.dtype for tensor in numbers)
        and all(tensor.device == h.device for tensor in (*numbers, y))
    )


def _plain(
    h: Tensor, W: Tensor, b: Tensor, y: Tensor, weights: Tensor | None, smoothing: float, total: float | None
) -> Tensor:
    z = torch.addmm(b, h, W.T)
    if total is None:
        return torch.nn.functional.cross_entropy(z, y, weights, label_smoothing=smoothing)
    return torch.nn.functional.cross_entropy(z, y, weights, reduction="sum", label_smoothing=smoothing) / total


def _compiled(
    h: Tensor, W: Tensor, b: Tensor, y: Tensor, weights: Tensor | None, smoothing: float, total: float | None
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """The loss, and its gradients by h, W and b."""
    given = [None if tensor is None else tensor.contiguous() for tensor in (h, W, b, y, weights)]
    loss, d_h, d_W, d_b = h.new_empty(()), h.new_empty(h.shape), W.new_empty(W.shape), b.new_empty(b.shape)
    call = _ReadoutCall(
        h.dtype == torch.float64,
        len(h),
        *W.shape,
        *(None if tensor is None else tensor.data_ptr() for tensor in given),
        smoothing,
        math.nan if total is None else total,
        *(tensor.data_ptr() for tensor in (loss, d_h, d_W, d_b)),
    )
    assert native._library is not None
    status = native._library.unroll_readout(ctypes.byref(call))
    if status == 1:
        raise MemoryError("not enough memory for the readout")
    if status == 2:
        raise InputError(f"classes run from {int(y.min())} to {int(y.max())}; expected 0 to {len(b) - 1}")
    return loss, (d_h, d_W, d_b)


def readout_gradients(
    h: Tensor, W: Tensor, b: Tensor, y: Tensor, weights: Tensor | None = None, smoothing: float = 0.0
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """`readout_loss`, and its gradients by h, W and b."""
    if _fits(h, W, b, y, weights):
        return _compiled(h, W, b, y, weights, smoothing, None)
    with torch.enable_grad():
        h, W, b = (tensor.detach().requires_grad_() for tensor in (h, W, b))
        loss = readout_loss(h, W, b, y, weights, smoothing)
        return loss.detach(), torch.autograd.grad(loss, (h, W, b))


class _ReadoutLoss(torch.autograd.Function):
    """The gradients are computed with the loss, and wait for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        W: Tensor,
        b: Tensor,
        y: Tensor,
        weights: Tensor | None,
        smoothing: float,
        total: float | None,
    ) -> Tensor:
        loss, gradients = _compiled(h, W, b, y, weights, smoothing, total)
        ctx.save_for_backward(h, W, b, y, weights, *gradients)
        ctx.options = smoothing, total
        return loss

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor) -> Any:
        h, W, b, y, weights, *gradients = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody will want the gradients' own gradients
            # Aliases, so that only the way through this loss counts should one input depend on another.
            aliases = h.view_as(h), W.view_as(W), b.view_as(b)
            wanted = [n for n in range(3) if ctx.needs_input_grad[n]]
            loss = _plain(*aliases, y, weights, *ctx.options)
            found = torch.autograd.grad(loss, [aliases[n] for n in wanted], create_graph=True)
            for n, gradient in zip(wanted, found, strict=True):
                gradients[n] = gradient
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
