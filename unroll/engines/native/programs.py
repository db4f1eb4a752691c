"""Cells of any author's on the kernels' interpreter: read into a step program, checked, lowered, and run over time."""

from __future__ import annotations

import ctypes
import os
import threading
import warnings
import weakref
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from unroll.cells.base import Cell, State, draw_masks, joined, parts, place_of
from unroll.engines import reference
from unroll.engines.native.eager import Saved, check_status
from unroll.engines.native.library import ProgramCall, library
from unroll.engines.native.lowering import Code, lower
from unroll.equations.cell import ProgramCell
from unroll.equations.check import differentiated, same, sample
from unroll.equations.held import remembered, replica
from unroll.equations.program import Program, UnreadableError
from unroll.equations.read import read
from unroll.equations.reverse import Reverse, gradients, reverse
from unroll.errors import InputError


class Compiled:
    """A program in the kernels' library, for gradients of some inputs or of nothing."""

    def __init__(self, program: Program, back: Reverse | None, inputs: tuple[bool, ...]) -> None:
        code: Code = lower(program, back, inputs)
        words, numbers = array("q", code.words), array("d", code.numbers)
        assert library is not None
        made = library.unroll_program_make(
            words.buffer_info()[0], len(words), numbers.buffer_info()[0] if numbers else 0, len(numbers)
        )
        if not made:
            raise UnreadableError("the kernels refuse the program")
        self.handle: int = made
        self.weights = tuple(code.weights)
        weakref.finalize(self, library.unroll_program_free, made)


class Step:
    """A cell's step program, known to compute what the cell does.

    Raises:
        UnreadableError: it is none.
    """

    def __init__(self, cell: Cell, words: bool) -> None:
        cell = replica(cell)  # other threads may use it meanwhile
        program = self.program = read(cell, words)
        self._compiled: dict[tuple[bool, ...], Compiled] = {}
        # As they are now: another parameter or buffer in its place is another step.
        self.tensors = {**dict(cell.named_parameters()), **dict(cell.named_buffers())}
        self.tables: list[int] = []  # weights whose rows are looked up: an input of the kernels each
        if words:
            lookups = [n for n, node in enumerate(program.nodes) if node.op == "lookup"]
            self.tables = [program.nodes[n].args[1] for n in lookups]
            for n, node in enumerate(program.nodes):
                if (mask := program.mask_of(n)) is not None:  # the last inputs, here after the tables
                    program.nodes[n] = replace(node, of=(len(lookups) + mask,))
            for k, n in enumerate(lookups):
                program.nodes[n] = replace(program.nodes[n], op="input", args=(), of=(k,))
            tables = (program.nodes[t].shape[1] for t in self.tables)
            program.inputs = (*tables, *(mask.width for mask in program.masks))
        self.back = reverse(program)
        _check(cell, self, words)
        needed = (True,) * (len(program.inputs) - len(program.masks)) + (False,) * len(program.masks)
        self.compiled(needed, True)  # so that a program that the kernels refuse is known now

    def rows(self, x: Tensor, parameters: Mapping[str, Tensor], like: Tensor) -> list[Tensor]:
        """The inputs of the program: x itself, or the rows that words x stand for."""
        if not self.tables:
            return [x]
        values: dict[int, Tensor] = {}
        self.program.compute(values, self.tables, parameters, like)
        return [torch.nn.functional.embedding(x, values[t]) for t in self.tables]

    def parted(self, given: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Inputs, states and weights of a call, as the kernels take them."""
        n, m = len(self.program.inputs), len(self.program.inputs) + len(self.program.states)
        given = [t.resolve_neg() for t in given]
        inputs = [t if t.stride(2) == 1 or t.shape[2] == 1 else t.contiguous() for t in given[:n]]
        return inputs, [t.contiguous() for t in given[n:m]], [t.contiguous() for t in given[m:]]

    def compiled(self, needed: tuple[bool, ...], grad: bool) -> Compiled:
        """The code for gradients of the `needed` inputs; without `grad` for none at all."""
        key = (grad, *needed) if grad else (False,)
        if key not in self._compiled:
            self._compiled[key] = Compiled(self.program, self.back if grad else None, needed)
        return self._compiled[key]


def _check(cell: Cell, step: Step, words: bool) -> None:
    """Evaluate and differentiate a program once, against the cell under autograd."""
    program, given = step.program, sample(cell, words)
    # Of words the tables' own gradients are autograd's, here and in a scan.
    tables = program.needed(step.tables)
    apart = {program.nodes[n].of[0] for n in tables if program.nodes[n].op == "parameter"}
    expected = differentiated(cell, given, [p for name, p in given.parameters.items() if name not in apart])
    with torch.no_grad():
        inputs = [*step.rows(given.x, given.parameters, given.states[0]), *given.masks]
        values = program.step(inputs, given.states, given.parameters)
        d_inputs, d_states, d_learnt = gradients(program, step.back, values, given.d_new, given.parameters)
    of_learnt = [d for name, d in d_learnt.items() if name not in apart]
    ours = [*(values[n] for n in program.new), *(() if words else d_inputs[:1]), *d_states, *of_learnt]
    if not same(ours, expected):
        raise UnreadableError(f"{place_of(cell)} and its step program compute different numbers")


# One cell is read at a time: torch's function mode is for one thread. A fork waits until it is read.
_READING = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_READING.acquire, after_in_parent=_READING.release, after_in_child=_READING.release)
# By what x are and the mode: who trains and evaluates in turn would read both programs again and again.
_STEPS: weakref.WeakKeyDictionary[Cell, dict[tuple[bool, bool], tuple[Any, Step | str]]] = weakref.WeakKeyDictionary()


def step_of(cell: Cell, words: bool) -> Step | str:
    """The program of a cell as it is now, or why there is none; read once until the cell changes."""
    with _READING, torch.inference_mode(False):
        now, key = remembered(cell), (words, cell.training)
        known = _STEPS.setdefault(cell, {})
        if key not in known or known[key][0] != now or not _unchanged(known[key][1]):
            found: Step | str
            try:
                found = Step(cell, words)
            except UnreadableError as why:
                found = str(why)
                if "different numbers" in found:
                    warnings.warn(f"{found}; the reference engine takes its place", stacklevel=2)
            except InputError:
                raise
            except Exception as why:  # the author's own, or one of computing in float64; the reference engine will tell
                said = str(why).partition("\n")[0] or type(why).__name__
                found = f"{place_of(cell)} fails on what it is read with, in float64: {said}"
            known[key] = (now, found)
        return known[key][1]


def _unchanged(step: Step | str) -> bool:
    """Whether tensors that are neither parameters nor buffers hold what was read in them."""
    return isinstance(step, str) or all(torch.equal(tensor, read_as) for tensor, read_as in step.program.foreign)


def scan(
    cell: Cell, x: Tensor, state: State, lengths: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, State]:
    """Scan `cell` over time; see `unroll.engines.reference.scan` for arguments and results."""
    step = step_of(cell, not x.is_floating_point())
    if isinstance(step, str):  # another thread has changed the cell since `why_not` was asked
        return reference.scan(cell, x, state, lengths, reverse)
    states = parts(state)
    learnt = step.tensors
    if step.tables and lengths is not None:  # what stands in the padding need not be a word
        x = x.masked_fill(torch.arange(x.shape[0], device=x.device)[:, None] >= lengths, 0)
    inputs = [*step.rows(x, learnt, states[0]), *draw_masks(cell, x.shape[0], state)]
    grad = torch.is_grad_enabled() and any(t.requires_grad for t in (*inputs, *states, *learnt.values()))
    compiled = step.compiled(tuple(t.requires_grad for t in inputs), grad)
    values: dict[int, Tensor] = {}
    step.program.compute(values, compiled.weights, learnt, states[0])
    weights = [values[n] for n in compiled.weights]
    _check_fit(cell, step, inputs, states, dict(zip(compiled.weights, weights, strict=True)), lengths)
    found = _Program.apply(step, compiled, grad, lengths, reverse, *inputs, *states, *weights)  # type: ignore[no-untyped-call]
    return found[0], joined(found[1:])


def _check_fit(
    cell: Cell,
    step: Step,
    inputs: Sequence[Tensor],
    states: Sequence[Tensor],
    weights: Mapping[int, Tensor],
    lengths: Tensor | None,
) -> None:
    """The kernels trust their pointers: raise InputError where a tensor has another shape or type than the program's."""
    (T, B, _), kind = inputs[0].shape, (inputs[0].dtype, inputs[0].device)
    expected: list[tuple[str, tuple[int, ...]]] = [("the input", (T, B, size)) for size in step.program.inputs]
    expected += [("the state", (B, size)) for size in step.program.states]
    expected += [("a weight", step.program.nodes[n].shape) for n in weights]
    if len(states) != len(step.program.states):
        raise InputError(f"{place_of(cell)}: the state is {len(states)} tensors; expected {len(step.program.states)}")
    for (name, shape), tensor in zip(expected, [*inputs, *states, *weights.values()], strict=True):
        if tensor.shape != shape:
            raise InputError(f"{place_of(cell)}: {name} has shape {tuple(tensor.shape)}; expected {shape}")
        if (tensor.dtype, tensor.device) != kind:
            raise InputError(
                f"{place_of(cell)}: {name} is {tensor.dtype} on {tensor.device}; expected {kind[0]} on {kind[1]}, as the input"
            )
    if lengths is not None and (lengths.shape != (B,) or lengths.dtype != torch.int64 or lengths.device != kind[1]):
        raise InputError(
            f"lengths is {tuple(lengths.shape)} {lengths.dtype} on {lengths.device}; expected ({B},) int64 on the CPU"
        )


def _pointers(tensors: Sequence[Tensor | None]) -> Any:
    return (ctypes.c_void_p * len(tensors))(*(None if t is None else t.data_ptr() for t in tensors))


class _Program(torch.autograd.Function):
    """The interpreter under autograd."""

    @staticmethod
    def forward(
        ctx: Any, step: Step, compiled: Compiled, grad: bool, lengths: Tensor | None, reverse: bool, *given: Tensor
    ) -> tuple[Tensor, ...]:
        inputs, states, weights = step.parted(given)
        x = inputs[0]
        if lengths is not None:
            lengths = lengths.contiguous()
        T, B, _ = x.shape
        out = x.new_empty(T, B, states[0].shape[1])
        last = [torch.empty_like(t) for t in states]
        call, kept = _call(inputs, states, weights, lengths, reverse)
        kept += [pointers := _pointers(last)]
        call.save, call.out, call.last = grad, out.data_ptr(), ctypes.addressof(pointers)
        assert library is not None
        check_status(library.unroll_program_forward(compiled.handle, ctypes.addressof(call)))
        if grad:
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(out, *given)
            ctx.saved = Saved(call.saved)
            ctx.options = step, compiled, lengths, reverse
        return out, *last

    @staticmethod
    def backward(ctx: Any, d_out: Tensor | None, *d_last: Tensor | None) -> Any:
        out, *given = ctx.saved_tensors
        step, compiled, lengths, reverse = ctx.options
        needed = ctx.needs_input_grad[5:]
        if torch.is_grad_enabled():
            return *[None] * 5, *_differentiable(ctx.options, given, [d_out, *d_last], needed)
        saved, ctx.saved = ctx.saved, None
        inputs, states, weights = step.parted(given)
        call, kept = _call(inputs, states, weights, lengths, reverse)
        if saved is None:  # a second time through the same graph: the first has used up what was saved
            saved = Saved(_again(compiled, call, out, states))
        if d_out is not None:
            d_out = d_out.resolve_neg()
            d_out = d_out if d_out.stride(2) == 1 or d_out.shape[2] == 1 else d_out.contiguous()
            call.d_out, call.d_out_time, call.d_out_batch = d_out.data_ptr(), d_out.stride(0), d_out.stride(1)
        d_last = tuple(None if d is None else d.resolve_neg().contiguous() for d in d_last)
        n, m = len(inputs), len(inputs) + len(states)
        found = [torch.empty(t.shape, dtype=t.dtype) if want else None for t, want in zip(given, needed, strict=True)]
        for k, d in enumerate(step.back.inputs):
            if d is None:  # a cell that does not read it: the kernels write nothing there
                found[k] = None
        for name, tensors in (
            ("d_last", d_last),
            ("d_inputs", found[:n]),
            ("d_initial", found[n:m]),
            ("d_weights", found[m:]),
        ):
            kept.append(pointers := _pointers(tensors))
            setattr(call, name, ctypes.addressof(pointers))
        call.out, call.saved = out.data_ptr(), saved.pointer
        assert library is not None
        check_status(library.unroll_program_backward(compiled.handle, ctypes.addressof(call)))
        saved.release()
        return *[None] * 5, *found


def _again(compiled: Compiled, call: ProgramCall, out: Tensor, states: Sequence[Tensor]) -> int:
    """What a forward pass saves, once more."""
    last = [torch.empty_like(t) for t in states]
    spare, pointers = torch.empty_like(out), _pointers(last)
    call.save, call.out, call.last = True, spare.data_ptr(), ctypes.addressof(pointers)
    assert library is not None
    check_status(library.unroll_program_forward(compiled.handle, ctypes.addressof(call)))
    saved: int = call.saved
    return saved


def _call(
    given: Sequence[Tensor], states: Sequence[Tensor], weights: Sequence[Tensor], lengths: Tensor | None, reverse: bool
) -> tuple[ProgramCall, list[Any]]:
    """A call with what both directions need, and what must live as long as it."""
    inputs, initial, of_weights = _pointers(given), _pointers(states), _pointers(weights)
    strides = (ctypes.c_int64 * (2 * len(given)))(*(t.stride(k) for k in (0, 1) for t in given))
    x = given[0]
    call = ProgramCall(
        x.dtype == torch.float64,
        reverse,
        False,
        torch.get_num_threads(),
        x.shape[0],
        x.shape[1],
        None if lengths is None else lengths.data_ptr(),
        ctypes.addressof(inputs),
        ctypes.addressof(strides),
        ctypes.addressof(strides) + 8 * len(given),
        ctypes.addressof(initial),
        ctypes.addressof(of_weights),
    )
    return call, [inputs, initial, of_weights, strides, lengths]


def _differentiable(
    options: tuple[Any, ...], given: Sequence[Tensor], d_outputs: Sequence[Tensor | None], needed: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients once more, by the reference, so that they can be differentiated themselves."""
    step, compiled, lengths, reverse = options
    aliases = [t.view_as(t) for t in given]
    n, m = len(step.program.inputs), len(step.program.inputs) + len(step.program.states)
    weights = dict(zip(compiled.weights, aliases[m:], strict=True))
    cell = ProgramCell(step.program, step.program, known=weights)
    wanted = {k: t for k, t in enumerate(aliases) if needed[k]}
    x, state = torch.cat(aliases[:n], -1), joined(aliases[n:m])
    found = reference.differentiable(cell, x, state, lengths, reverse, d_outputs, list(wanted.values()))
    gradients_of = dict(zip(wanted, found, strict=True))
    return [gradients_of.get(k) for k in range(len(given))]
