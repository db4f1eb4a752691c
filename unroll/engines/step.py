"""What a training step does beside the recurrence, compiled too: cross-entropy with its gradient, and Adam's update.

Each is one call where torch's operations are a dozen, most of them shorter than it takes to start them.
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


# --- cross-entropy ----------------------------------------------------------------------------------------------------


class _LossCall(ctypes.Structure):
    """`LossCall` of native/engine.hpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("double", "rows", "classes")),
        *((name, ctypes.c_void_p) for name in ("logits", "targets", "class_weights")),
        *((name, ctypes.c_double) for name in ("smoothing", "total")),
        *((name, ctypes.c_void_p) for name in ("loss", "d_logits")),
    )


def cross_entropy(
    z: Tensor,
    y: Tensor,
    w: Tensor | None = None,
    smoothing: float = 0.0,
    *,
    total: float | None = None,
    reference: bool = False,
) -> Tensor:
    """The mean cross-entropy of a batch, as `torch.nn.functional.cross_entropy` has it, which does it on a GPU.

        p = softmax(z)
        q_k = (1 - smoothing) w_y [k = y] + smoothing w_k / C
        loss = - sum over the batch and k of q_k log p_k / total
        dloss / dz_k = (p_k sum_j q_j - q_k) / total

    Label smoothing: Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking the Inception architecture. CVPR 2016, section 7.

    Args:
        z: (B, C) logits.
        y: (B,) int64, the classes.
        w: (C,) their weights; None for ones.
        total: what to divide by; None for the sum of w_y over the batch.
        reference: leave it to torch everywhere.

    Raises:
        InputError: a y is no class.
    """
    if total is None:
        total = float(len(y) if w is None else w[y].sum())
    if reference or why_not(z) is not None:
        return _plain(z, y, w, smoothing, total)
    loss: Tensor = _CrossEntropy.apply(z, y, w, smoothing, total)  # type: ignore[no-untyped-call]
    return loss


def _plain(z: Tensor, y: Tensor, w: Tensor | None, smoothing: float, total: float) -> Tensor:
    return torch.nn.functional.cross_entropy(z, y, w, reduction="sum", label_smoothing=smoothing) / total


class _CrossEntropy(torch.autograd.Function):
    """The gradient is computed with the loss, and waits for the backward pass."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor, w: Tensor | None, smoothing: float, total: float) -> Tensor:
        z, y = z.contiguous(), y.contiguous()
        w = None if w is None else w.contiguous()
        loss, d_z = z.new_empty(()), torch.empty_like(z)
        call = _LossCall(
            z.dtype == torch.float64,
            *z.shape,
            z.data_ptr(),
            y.data_ptr(),
            None if w is None else w.data_ptr(),
            smoothing,
            total,
            loss.data_ptr(),
            d_z.data_ptr(),
        )
        assert native._library is not None
        if native._library.unroll_cross_entropy(ctypes.byref(call)):
            raise InputError(f"classes run from {int(y.min())} to {int(y.max())}; expected 0 to {z.shape[1] - 1}")
        ctx.save_for_backward(z, y, w, d_z)
        ctx.options = smoothing, total
        return loss

    @staticmethod
    def backward(ctx: Any, d_loss: Tensor) -> Any:
        z, y, w, d_z = ctx.saved_tensors
        if torch.is_grad_enabled():  # somebody will want the gradient's own gradient
            alias = z.view_as(z)
            (d_z,) = torch.autograd.grad(_plain(alias, y, w, *ctx.options), alias, create_graph=True)
        return d_z * d_loss, None, None, None, None


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
