"""The compiled kernels as eager calls: the scan of a cell, the readout's loss, and Adam's update, with derivatives.

What the tensors' pointers are trusted to be is checked here. Tracing and autocast take the operators instead
(`unroll.engines.native.operators`).
"""

from __future__ import annotations

import ctypes
import math
from array import array
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unroll.cells.base import State
from unroll.engines import reference
from unroll.engines.native.kernels import LSTM, Gradients, Task, differentiable_backward, kernel_of
from unroll.engines.native.library import (
    FIELDS,
    SAVED,
    AdamCall,
    ReadoutCall,
    available,
    library,
    recorded,
    transformed,
)
from unroll.errors import InputError

DTYPES = (torch.float32, torch.float64)


def refuses(tensor: Tensor) -> str | None:
    """Why the kernels cannot work on a tensor of this kind; None if they can."""
    if (missing := available()) is not None:
        return missing
    if tensor.device.type != "cpu":
        return f"the kernels run on the CPU, and the parameters are on {tensor.device}"
    if type(tensor) not in (Tensor, torch.nn.Parameter):
        return f"the kernels take plain tensors, not a {type(tensor).__name__}"
    if tensor.dtype not in (torch.float32, torch.float64):
        return f"the kernels compute in float32 and float64, not in {tensor.dtype}"
    return None


# --- calls into C -----------------------------------------------------------------------------------------------------


def _call(*fields: int) -> array[int]:
    """A `Call` that begins with these fields; the others are zero. An array: ctypes would take four times as long."""
    return array("q", (*fields, *[0] * (len(FIELDS) - len(fields))))


class Saved:
    """Memory of the kernels that a forward pass has filled for its backward pass; given back when it is dropped."""

    __slots__ = ("pointer",)

    def __init__(self, pointer: int) -> None:
        self.pointer = pointer

    def release(self) -> None:
        if self.pointer and library is not None:
            library.unroll_release(self.pointer)
            self.pointer = 0

    __del__ = release


def _pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _rows(tensor: Tensor) -> Tensor:
    """(T, B, N) with N contiguous; the kernels take any other strides as they are."""
    tensor = tensor.resolve_neg()
    return tensor if tensor.stride(2) == 1 or tensor.shape[2] == 1 else tensor.contiguous()


def check_status(status: int) -> None:
    if status == 1:
        raise MemoryError("not enough memory to scan the sequences")
    if status == 2:
        raise InputError("lengths must lie between 0 and T, the number of steps")
    if status == 3:
        raise InputError("saved does not come from a forward pass like this one")


def forward(task: Task, saved: Tensor | bool) -> tuple[Tensor, Tensor, Tensor | None, int]:
    """Outputs (T, B, H), final h and c, and a pointer to what the backward pass needs (LSTM).

    `saved` is where to put that: a tensor, True for memory of the kernels' own, False for nowhere.
    """
    x, h0, c0, W, U, b, lengths, reverse, projected, kind = task
    T, B, _ = x.shape
    H = W.shape[1]
    x = _rows(x)
    h0 = h0.resolve_neg().contiguous()
    W = W.contiguous()
    U = U.contiguous()
    out, h_last = W.new_empty(T, B, H), W.new_empty(B, H)
    c_last = None
    if c0 is not None:
        c0 = c0.resolve_neg().contiguous()
        c_last = W.new_empty(B, H)
    if b is not None:
        b = b.contiguous()
    if lengths is not None:
        lengths = lengths.contiguous()
    call = _call(
        kind,
        W.dtype == torch.float64,
        reverse,
        projected,
        saved is not False,
        torch.get_num_threads(),
        T,
        B,
        H,
        U.shape[1],
        _pointer(lengths),
        x.data_ptr(),
        x.stride(0),
        x.stride(1),
        h0.data_ptr(),
        _pointer(c0),
        W.data_ptr(),
        U.data_ptr(),
        _pointer(b),
        out.data_ptr(),
        h_last.data_ptr(),
        _pointer(c_last),
        saved.data_ptr() if isinstance(saved, Tensor) else 0,
    )
    assert library is not None
    check_status(library.unroll_forward(call.buffer_info()[0]))
    return out, h_last, c_last, call[SAVED]


def backward(
    task: Task, d_outputs: Sequence[Tensor | None], out: Tensor, saved: int, needed: Sequence[bool]
) -> Gradients:
    """Gradients of (x, h0, c0, W, U, b) from those of out, the final h and (LSTM) the final c; destroys `saved`."""
    x, h0, c0, W, U, b, lengths, reverse, projected, kind = task
    d_out, d_h_last, d_c_last = d_outputs if c0 is not None else (*d_outputs, None)
    T, B, _ = x.shape
    H = W.shape[1]
    x = _rows(x)
    h0 = h0.resolve_neg().contiguous()
    W = W.contiguous()
    U = U.contiguous()
    out = out.contiguous()
    if c0 is not None:
        c0 = c0.resolve_neg().contiguous()
    if lengths is not None:
        lengths = lengths.contiguous()
    if d_out is not None:
        d_out = _rows(d_out)
    if d_h_last is not None:
        d_h_last = d_h_last.resolve_neg().contiguous()
    if d_c_last is not None:
        d_c_last = d_c_last.resolve_neg().contiguous()
    d_x = W.new_empty(x.shape) if needed[0] else None
    d_h0 = W.new_empty(B, H) if needed[1] else None
    d_c0 = W.new_empty(B, H) if needed[2] and c0 is not None else None
    d_W = torch.empty_like(W) if needed[3] else None
    # With the input projected already, U plays no part here.
    d_U = torch.empty_like(U) if needed[4] and not projected else None
    d_b = torch.empty_like(b) if needed[5] and b is not None else None
    call = _call(
        kind,
        W.dtype == torch.float64,
        reverse,
        projected,
        False,
        torch.get_num_threads(),
        T,
        B,
        H,
        U.shape[1],
        _pointer(lengths),
        x.data_ptr(),
        x.stride(0),
        x.stride(1),
        h0.data_ptr(),
        _pointer(c0),
        W.data_ptr(),
        U.data_ptr(),
        0,
        out.data_ptr(),
        0,
        0,
        saved,
        _pointer(d_out),
        0 if d_out is None else d_out.stride(0),
        0 if d_out is None else d_out.stride(1),
        _pointer(d_h_last),
        _pointer(d_c_last),
        _pointer(d_x),
        _pointer(d_h0),
        _pointer(d_c0),
        _pointer(d_W),
        _pointer(d_U),
        _pointer(d_b),
    )
    assert library is not None
    check_status(library.unroll_backward(call.buffer_info()[0]))
    return d_x, d_h0, d_c0, d_W, d_U, d_b


# --- scanning ----------------------------------------------------------------------------------------------------------


def scan(
    cell: Any, x: Tensor, state: State, lengths: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, State]:
    """Scan `cell` over time; see `unroll.engines.reference.scan` for arguments and results."""
    h0, c0 = state if isinstance(state, tuple) else (state, None)
    kind, W, U, b = kernel_of(cell), cell.W, cell.U, cell.b
    assert kind is not None  # or `why_not` had said so
    projected = not x.is_floating_point()
    if projected:
        if lengths is not None:  # what stands in the padding need not be a word
            x = x.masked_fill(torch.arange(x.shape[0], device=x.device)[:, None] >= lengths, 0)
        x = torch.nn.functional.embedding(x, U.T)
    task = Task(x, h0, c0, W, U, b, lengths, reverse, projected, kind)
    autocast = torch.is_autocast_enabled("cpu")
    if not autocast:  # else the operator sees the tensors as autocast has cast them, and checks those
        check_tensors(task)

    if autocast or recorded(x):
        # A recorded program does not know whether gradients will be wanted where it runs.
        save = torch.jit.is_tracing() or (  # type: ignore[attr-defined, no-untyped-call]
            torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in task.inputs)
        )
        out, h, c, _ = torch.ops.unroll.scan(*task, save)
        return out, (h if c0 is None else (h, c))

    if torch.is_grad_enabled() and (
        W.requires_grad
        or x.requires_grad
        or h0.requires_grad
        or (c0 is not None and c0.requires_grad)
        or U.requires_grad
        or (b is not None and b.requires_grad)
    ):
        out, h, c = _Scan.apply(*task)  # type: ignore[no-untyped-call]
    else:
        out, h, c, _ = forward(task, False)
    return out, (h if c is None else (h, c))


def check_tensors(task: Task, *results: tuple[str, Tensor | None, str, tuple[int, ...]]) -> None:
    """The kernels trust their pointers, so nothing that does not fit the weights may pass.

    `results` are further tensors, of a backward pass: name, tensor, axes in words, shape.
    """
    x, h0, c0, W, U, b, lengths, _, projected, kind = task
    if W.dim() != 2 or U.dim() != 2 or W.dtype not in DTYPES:
        raise InputError(
            f"W is {tuple(W.shape)} {W.dtype} and U is {tuple(U.shape)}; expected (G·H, H) and (G·H, D) in float32 or float64"
        )
    GH, H = W.shape
    D = U.shape[1]
    features = GH if projected else D
    if x.dim() != 3 or x.shape[2] != features:
        raise InputError(f"the input has shape {tuple(x.shape)}; expected (T, B, {features})")
    T, B, _ = x.shape
    rows = 4 * H if kind == LSTM else H
    dtype, device = W.dtype, W.device
    for name, tensor, axes, shape in (
        ("the input", x, "(T, B, D)", (T, B, features)),
        ("a state", h0, "(B, H)", (B, H)),
        ("a state", c0, "(B, H)", (B, H)),
        ("W", W, "(G·H, H)", (rows, H)),
        ("U", U, "(G·H, D)", (rows, D)),
        ("b", b, "(G·H,)", (rows,)),
        *results,
    ):
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise InputError(f"{name} has shape {tuple(tensor.shape)}; expected {axes} = {shape}")
        if tensor.dtype != dtype:
            raise InputError(f"{name} is {tensor.dtype} and the weights are {dtype}; give both the same dtype")
        if tensor.device != device:
            raise InputError(f"{name} is on {tensor.device} and the weights are on {device}; move it there")
    if lengths is not None and (lengths.shape != (B,) or lengths.dtype != torch.int64 or lengths.device != device):
        raise InputError(
            f"lengths is {tuple(lengths.shape)} {lengths.dtype} on {lengths.device}; expected ({B},) int64 on the CPU"
        )


class _Scan(torch.autograd.Function):
    """The kernels under autograd, eager. It is given the fields of a `Task`."""

    @staticmethod
    def forward(ctx: Any, *fields: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        task = Task(*fields)
        out, h_last, c_last, saved = forward(task, task.c0 is not None)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*task[:7], out)
        ctx.saved = Saved(saved)
        ctx.options = task[7:]
        return out, h_last, c_last

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor | None) -> Any:
        *tensors, out = ctx.saved_tensors
        task = Task(*tensors, *ctx.options)
        needed = ctx.needs_input_grad[:6]
        gradients: Sequence[Tensor | None]
        if torch.is_grad_enabled():
            gradients = differentiable_backward(task, d_outputs, needed)
        else:
            saved, ctx.saved = ctx.saved, None
            if saved is None and task.c0 is not None:
                # A second time through the same graph: the first has used up what was saved.
                saved = Saved(forward(task, True)[3])
            pointer = saved.pointer if saved is not None else 0
            gradients = backward(task, d_outputs[: 2 + (task.c0 is not None)], out, pointer, needed)
        return *gradients, None, None, None, None


# --- readout and loss -------------------------------------------------------------------------------------------------

_MOST = 4_000_000  # products of a batch's readout; with more of them torch's threads are faster than our one


def readout_loss(
    h: Tensor,
    W: Tensor,
    b: Tensor,
    y: Tensor,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
    total: float | None = None,
) -> Tensor:
    """The mean cross-entropy of a linear readout with its derivatives by hand; see `unroll.engines.reference.readout_loss`.

        q_k = (1 - smoothing) w_y [k = y] + smoothing w_k / C
        dz_k = (p_k sum_j q_j - q_k) / total,   dh = dz W,   dW = dzᵀ h,   db = sum over the batch of dz

    Raises:
        InputError: a y is no class. What does not fit otherwise is left to the reference.
    """
    if recorded(h) or transformed() is not None or not _fits(h, h.shape, W, b, y, weights):
        return reference.readout_loss(h, W, b, y, weights, smoothing, total)
    loss: Tensor = _ReadoutLoss.apply(h, W, b, y, weights, smoothing, total)  # type: ignore[no-untyped-call]
    return loss


def _fits(like: Tensor, shape: Sequence[int], W: Tensor, b: Tensor, y: Tensor, weights: Tensor | None) -> bool:
    """Whether the compiled function, which trusts its pointers, can read h of this shape, and does it faster.

    `like` is a tensor of the type and on the device of h.
    """
    if refuses(like) is not None:
        return False
    classes, numbers = len(b), (W, b) if weights is None else (W, b, weights)
    return (
        len(shape) == 2
        and shape[0] * shape[1] * classes <= _MOST
        and W.shape == (classes, shape[1])
        and b.dim() == 1
        and y.shape == shape[:1]
        and y.dtype == torch.int64
        and (weights is None or weights.shape == b.shape)
        and all(tensor.dtype == like.dtype for tensor in numbers)
        and all(tensor.device == like.device for tensor in (*numbers, y))
    )


def _compiled(
    h: Tensor, W: Tensor, b: Tensor, y: Tensor, weights: Tensor | None, smoothing: float, total: float | None
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """The loss, and its gradients by h, W and b."""
    given = [None if tensor is None else tensor.contiguous() for tensor in (h, W, b, y, weights)]
    loss, d_h, d_W, d_b = h.new_empty(()), h.new_empty(h.shape), W.new_empty(W.shape), b.new_empty(b.shape)
    call = ReadoutCall(
        h.dtype == torch.float64,
        len(h),
        *W.shape,
        *(None if tensor is None else tensor.data_ptr() for tensor in given),
        smoothing,
        math.nan if total is None else total,
        *(tensor.data_ptr() for tensor in (loss, d_h, d_W, d_b)),
    )
    assert library is not None
    status = library.unroll_readout(ctypes.byref(call))
    if status == 1:
        raise MemoryError("not enough memory for the readout")
    if status == 2:
        raise InputError(f"classes run from {int(y.min())} to {int(y.max())}; expected 0 to {len(b) - 1}")
    return loss, (d_h, d_W, d_b)


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
            loss = reference.readout_loss(*aliases, y, weights, *ctx.options)
            found = torch.autograd.grad(loss, [aliases[n] for n in wanted], create_graph=True)
            for n, gradient in zip(wanted, found, strict=True):
                gradients[n] = gradient
        return *(gradient * d_loss for gradient in gradients), None, None, None, None


@torch.no_grad()
def gradients(
    cell: Any,
    x: Tensor,
    lengths: Tensor | None,
    W: Tensor,
    b: Tensor,
    y: Tensor,
    weights: Tensor | None = None,
    smoothing: float = 0.0,
) -> tuple[Tensor, list[tuple[Tensor, Tensor]]] | None:
    """`readout_loss` of the last h of a `scan` from zeros, and its gradients, without a recorded graph.

    Args:
        x: (T, B, D).

    Returns:
        The loss, and the parameters with their gradients; None where only autograd can do it.
    """
    kernel = kernel_of(cell)
    # What `why_not` has excluded is not asked again: torch.func transforms, forward-mode derivatives.
    if kernel is None or torch.is_autocast_enabled("cpu") or torch.is_anomaly_enabled():
        return None
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
        return None
    if x.shape[0] == 0 or x.requires_grad:
        return None  # a scan of no steps is no scan; x wants a gradient too
    parameters = [cell.W, cell.U, W, b] if cell.b is None else [cell.W, cell.U, cell.b, W, b]
    if not all(type(p) is torch.nn.Parameter and p.requires_grad for p in parameters):
        return None  # frozen, or made from others
    if not _fits(x, (x.shape[1], cell.hidden_size), W, b, y, weights):
        return None
    h0 = x.new_zeros(x.shape[1], cell.hidden_size)
    if type(h0) is not Tensor:
        return None  # somebody intercepts operations
    task = Task(x, h0, h0 if kernel == LSTM else None, cell.W, cell.U, cell.b, lengths, False, False, kernel)
    check_tensors(task)
    out, h, _, pointer = forward(task, kernel == LSTM)
    saved = Saved(pointer)  # given back even if the loss is refused
    loss, (d_h, d_W, d_b) = _compiled(h, W, b, y, weights, smoothing, None)
    d_last = (None, d_h, None) if kernel == LSTM else (None, d_h)
    of_cell = backward(task, d_last, out, saved.pointer, (False, False, False, True, True, True))[3:]
    saved.release()
    found = [gradient for gradient in (*of_cell, d_W, d_b) if gradient is not None]
    return loss, list(zip(parameters, found, strict=True))


# --- updating ---------------------------------------------------------------------------------------------------------


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
    call = AdamCall(
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
    assert library is not None
    if library.unroll_adam(ctypes.byref(call)):
        raise MemoryError("not enough memory to update the parameters")
    return norm
