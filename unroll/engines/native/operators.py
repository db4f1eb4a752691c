"""The operators ``unroll::lstm`` and ``unroll::rnn``: what traced programs and autocast call in the place of eager calls.

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
# a graph may not be changed under its owner's feet.

torch.library.define(
    "unroll::lstm",
    "(Tensor x, Tensor h0, Tensor c0, Tensor W, Tensor U, Tensor? b, Tensor? lengths, bool reverse, bool projected, "
    "bool save) -> (Tensor out, Tensor h_last, Tensor c_last, Tensor saved)",
)
torch.library.define(
    "unroll::lstm_backward",
    "(Tensor? d_out, Tensor? d_h_last, Tensor? d_c_last, Tensor out, Tensor saved, Tensor x, Tensor h0, Tensor c0, "
    "Tensor W, Tensor U, Tensor? b, Tensor? lengths, bool reverse, bool projected, bool[] needed) -> Tensor[]",
)
torch.library.define(
    "unroll::rnn",
    "(Tensor x, Tensor h0, Tensor W, Tensor U, Tensor? b, Tensor? lengths, bool reverse, bool projected, bool relu) "
    "-> (Tensor out, Tensor h_last)",
)
torch.library.define(
    "unroll::rnn_backward",
    "(Tensor? d_out, Tensor? d_h_last, Tensor out, Tensor x, Tensor h0, Tensor W, Tensor U, Tensor? b, "
    "Tensor? lengths, bool reverse, bool projected, bool relu, bool[] needed) -> Tensor[]",
)


def _sizes(task: Task) -> tuple[int, int, int]:
    return task.x.shape[0], task.x.shape[1], task.W.shape[1]


def _saved_size(T: int, B: int, H: int) -> int:
    # Four gates and c for every step of every sequence, H rounded up to the widest vector; a header of 64 bytes.
    return T * B * 5 * ((H + 15) // 16 * 16) + 16


def _lstm_task(*fields: Any) -> Task:
    return Task._make((*fields, LSTM))


def _rnn_task(x: Tensor, h0: Tensor, *others: Any) -> Task:
    *fields, relu = others
    return Task._make((x, h0, None, *fields, RNN_RELU if relu else RNN_TANH))


@torch.library.impl("unroll::lstm", "CPU")
def _lstm(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *fields, save = arguments
    task = _lstm_task(*fields)
    check_tensors(task)
    size = _saved_size(*_sizes(task)) if save else 0
    saved = task.W.new_zeros((size,))  # all of it defined, as tools that compare results expect
    out, h, c, _ = forward(task, saved if save else False)
    assert c is not None
    return out, h, c, saved


@torch.library.register_fake("unroll::lstm")  # type: ignore[untyped-decorator]
def _lstm_fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *fields, save = arguments
    task = _lstm_task(*fields)
    W, (T, B, H) = task.W, _sizes(task)
    saved = W.new_empty((_saved_size(T, B, H) if save else 0,))
    return W.new_empty((T, B, H)), W.new_empty((B, H)), W.new_empty((B, H)), saved


@torch.library.impl("unroll::rnn", "CPU")
def _rnn(*arguments: Any) -> tuple[Tensor, Tensor]:
    task = _rnn_task(*arguments)
    check_tensors(task)
    return forward(task, False)[:2]


@torch.library.register_fake("unroll::rnn")  # type: ignore[untyped-decorator]
def _rnn_fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    task = _rnn_task(*arguments)
    T, B, H = _sizes(task)
    return task.W.new_empty((T, B, H)), task.W.new_empty((B, H))


# The backward operators return only the gradients that are needed.


def _results(
    task: Task,
    needed: Sequence[bool],
    out: Tensor,
    d_out: Tensor | None,
    d_h_last: Tensor | None,
    d_c_last: Tensor | None = None,
    saved: Tensor | None = None,
) -> Iterator[tuple[str, Tensor | None, str, tuple[int, ...]]]:
    """What a backward operator is given beyond the task, for `check_tensors` (which looks at x and W first)."""
    if len(needed) != 6:
        raise InputError(f"needed has {len(needed)} entries; expected 6, one each for x, h0, c0, W, U and b")
    if task.x.dim() != 3 or task.W.dim() != 2:
        return  # `check_tensors` says so
    T, B, H = _sizes(task)
    yield "out", out, "(T, B, H)", (T, B, H)
    yield "d_out", d_out, "(T, B, H)", (T, B, H)
    yield "d_h_last", d_h_last, "(B, H)", (B, H)
    yield "d_c_last", d_c_last, "(B, H)", (B, H)
    yield "saved", saved, "what a forward pass with save=True gives", (_saved_size(T, B, H),)


@torch.library.impl("unroll::lstm_backward", "CPU")
def _lstm_backward(*arguments: Any) -> list[Tensor]:
    d_out, d_h_last, d_c_last, out, saved, *fields, needed = arguments
    task = _lstm_task(*fields)
    check_tensors(task, *_results(task, needed, out, d_out, d_h_last, d_c_last, saved))
    saved = saved.clone()
    gradients = backward(task, (d_out, d_h_last, d_c_last), out, saved.data_ptr(), needed)
    return [gradient for gradient in gradients if gradient is not None]


@torch.library.impl("unroll::rnn_backward", "CPU")
def _rnn_backward(*arguments: Any) -> list[Tensor]:
    d_out, d_h_last, out, *fields, needed = arguments
    task = _rnn_task(*fields)
    check_tensors(task, *_results(task, needed, out, d_out, d_h_last))
    gradients = backward(task, (d_out, d_h_last), out, 0, needed)
    return [gradient for gradient in gradients if gradient is not None]


@torch.library.register_fake("unroll::lstm_backward")  # type: ignore[untyped-decorator]
def _lstm_backward_fake(*arguments: Any) -> list[Tensor]:
    _, _, _, _, _, *fields, needed = arguments
    return _like(_lstm_task(*fields), needed)


@torch.library.register_fake("unroll::rnn_backward")  # type: ignore[untyped-decorator]
def _rnn_backward_fake(*arguments: Any) -> list[Tensor]:
    _, _, _, *fields, needed = arguments
    return _like(_rnn_task(*fields), needed)


def _like(task: Task, needed: Sequence[bool]) -> list[Tensor]:
    pairs = zip(task.inputs, needed, strict=True)
    return [tensor.new_empty(tensor.shape) for tensor, want in pairs if want and tensor is not None]


def _register_autograd(lstm: bool) -> None:
    """Autograd for the operators: the same gradients as `_Scan`, through the backward operators."""
    states = 2 if lstm else 1

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)
        task = _lstm_task(*inputs[:-1]) if lstm else _rnn_task(*inputs)
        ctx.save_for_backward(*task[:7], output[0], output[3] if lstm else None)
        ctx.options = task[7:]

    def differentiate(ctx: Any, *d_outputs: Tensor | None) -> Any:
        *tensors, out, saved = ctx.saved_tensors
        task = Task(*tensors, *ctx.options)
        n = list(ctx.needs_input_grad)
        if not lstm:
            n.insert(2, False)
        needed = [want and tensor is not None for want, tensor in zip(n, task.inputs, strict=False)]
        needed[4] = needed[4] and not task.projected
        d = d_outputs[: 1 + states]
        gradients: list[Tensor | None]
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            gradients = differentiable_backward(task, d, needed)
        else:
            if lstm:
                found = torch.ops.unroll.lstm_backward(*d, out, saved, *task[:9], needed)
            else:
                x, h0, _, *fields, kind = task
                found = torch.ops.unroll.rnn_backward(*d, out, x, h0, *fields, kind == RNN_RELU, needed)
            left = iter(found)
            gradients = [next(left) if want else None for want in needed]
        if not lstm:
            del gradients[2]
        return *gradients, *[None] * 4

    name = "unroll::lstm" if lstm else "unroll::rnn"
    torch.library.register_autograd(name, differentiate, setup_context=setup_context)
    torch.library.register_autocast(name, "cpu", torch.float32)


_register_autograd(lstm=True)
_register_autograd(lstm=False)
