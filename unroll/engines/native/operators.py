"""The operators ``unroll::scan`` and its backward: what traced programs and autocast call in the place of eager calls.

They carry the rules that `torch.compile`, `torch.export`, `torch.jit.trace` and fake tensors need.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from unroll.engines.native.eager import backward, check_tensors, forward
from unroll.engines.native.kernels import LSTM, RNN_RELU, RNN_TANH, Task, differentiable_backward
from unroll.errors import InputError

# `saved` is a tensor here, for a traced graph knows nothing else; and the backward operator works on a copy of it, for
# a graph may not be changed under its owner's feet. A cell without c gives a `c_last` without numbers.
_TASK = "Tensor x, Tensor h0, Tensor? c0, Tensor W, Tensor U, Tensor? b, Tensor? lengths, bool reverse, bool projected, int kind"
torch.library.define(
    "unroll::scan", f"({_TASK}, bool save) -> (Tensor out, Tensor h_last, Tensor c_last, Tensor saved)"
)
torch.library.define(
    "unroll::scan_backward",
    f"(Tensor? d_out, Tensor? d_h_last, Tensor? d_c_last, Tensor out, Tensor saved, {_TASK}, bool[] needed) -> Tensor[]",
)


def _shapes(task: Task, save: bool) -> list[tuple[int, ...]]:
    """Of out, h_last, c_last and saved."""
    (T, B), H = task.x.shape[:2], task.W.shape[1]
    if task.kind != LSTM:
        return [(T, B, H), (B, H), (0,), (0,)]
    # Four gates and c for every step of every sequence, H rounded up to the widest vector; a header of 64 bytes.
    return [(T, B, H), (B, H), (B, H), (T * B * 5 * ((H + 15) // 16 * 16) + 16 if save else 0,)]


def _check(task: Task, *results: tuple[str, Tensor | None, str, tuple[int, ...]]) -> None:
    if task.kind not in (LSTM, RNN_TANH, RNN_RELU) or (task.kind == LSTM) != (task.c0 is not None):
        given = "without" if task.c0 is None else "with"
        raise InputError(
            f"kind is {task.kind} {given} c0; expected {LSTM} with it, or {RNN_TANH} or {RNN_RELU} without"
        )
    check_tensors(task, *results)


@torch.library.impl("unroll::scan", "CPU")
def _scan(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    task, save = Task(*arguments[:10]), arguments[10]
    _check(task)
    saved = task.W.new_zeros(_shapes(task, save)[3])  # all of it defined, as tools that compare results expect
    out, h, c, _ = forward(task, saved if save and task.kind == LSTM else False)
    return out, h, task.W.new_empty(0) if c is None else c, saved


@torch.library.register_fake("unroll::scan")  # type: ignore[untyped-decorator]
def _scan_fake(*arguments: Any) -> tuple[Tensor, ...]:
    task = Task(*arguments[:10])
    return tuple(map(task.W.new_empty, _shapes(task, arguments[10])))


def _results(
    task: Task,
    needed: Sequence[bool],
    d_out: Tensor | None,
    d_h_last: Tensor | None,
    d_c_last: Tensor | None,
    out: Tensor,
    saved: Tensor,
) -> Iterator[tuple[str, Tensor | None, str, tuple[int, ...]]]:
    """What the backward operator is given beyond the task, for `check_tensors` (which looks at x and W first)."""
    if len(needed) != 6:
        raise InputError(f"needed has {len(needed)} entries; expected 6, one each for x, h0, c0, W, U and b")
    if task.x.dim() != 3 or task.W.dim() != 2:
        return  # `check_tensors` says so
    of_out, of_h, of_c, of_saved = _shapes(task, save=True)
    yield "out", out, "(T, B, H)", of_out
    yield "d_out", d_out, "(T, B, H)", of_out
    yield "d_h_last", d_h_last, "(B, H)", of_h
    yield "d_c_last", d_c_last, "(B, H)" if task.kind == LSTM else "(0,)", of_c
    yield "saved", saved, "what a forward pass with save=True gives", of_saved


@torch.library.impl("unroll::scan_backward", "CPU")
def _scan_backward(*arguments: Any) -> list[Tensor]:
    """Only the gradients that are needed."""
    *given, out, saved = arguments[:5]
    task, needed = Task(*arguments[5:15]), arguments[15]
    _check(task, *_results(task, needed, *arguments[:5]))
    saved = saved.clone()
    gradients = backward(task, given[: 1 + len(task.states)], out, saved.data_ptr(), needed)
    return [gradient for gradient in gradients if gradient is not None]


@torch.library.register_fake("unroll::scan_backward")  # type: ignore[untyped-decorator]
def _scan_backward_fake(*arguments: Any) -> list[Tensor]:
    pairs = zip(Task(*arguments[5:15]).inputs, arguments[15], strict=True)
    return [tensor.new_empty(tensor.shape) for tensor, want in pairs if want and tensor is not None]


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:7], output[0], output[3])
    ctx.options = inputs[7:10]


def _differentiate(ctx: Any, *d_outputs: Tensor | None) -> Any:
    """The same gradients as `eager._Scan`, through the backward operator."""
    *tensors, out, saved = ctx.saved_tensors
    task, d = Task(*tensors, *ctx.options), d_outputs[:3]
    needed = [want and tensor is not None for want, tensor in zip(ctx.needs_input_grad, task.inputs, strict=False)]
    needed[4] = needed[4] and not task.projected
    gradients: list[Tensor | None]
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        gradients = differentiable_backward(task, d, needed)
    else:
        found = iter(torch.ops.unroll.scan_backward(*d, out, saved, *task, needed))
        gradients = [next(found) if want else None for want in needed]
    return *gradients, *[None] * 5


torch.library.register_autograd("unroll::scan", _differentiate, setup_context=_setup_context)
torch.library.register_autocast("unroll::scan", "cpu", torch.float32)
