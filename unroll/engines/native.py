"""The native engine: LSTM and vanilla RNN walked over time by compiled CPU kernels, derivatives by hand.

Same contract and same results as `unroll.engines.reference`, faster. The kernels (C++ under ``native/``) are a shared
library without any tie to torch: tensors go in as pointers. Where the package was installed without them (environment
variable ``UNROLL_NO_NATIVE=1`` at installation), `instruction_set()` is None and everything runs on the reference.

Two ways lead to the kernels. Eager calls take the short one, an autograd function around the C calls (or, where a training
step is nothing but a walk and a readout, `walk_there` and `walk_back` without autograd). Tracing
(`torch.compile`, `torch.export`, `torch.jit.trace`, fake tensors) and autocast take the operators ``unroll::lstm`` and
``unroll::rnn``, which carry the rules that such tools need. Derivatives of derivatives go through the reference.

``UNROLL_ISA`` (``avx512``, ``avx2``, ``neon``, ``portable``) forces an instruction set; by default the best is taken that the
machine has.
"""

from __future__ import annotations

import ctypes
import os
import sys
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

from unroll.cells import Cell, LSTMCell, RNNCell
from unroll.engines import reference
from unroll.engines.reference import State
from unroll.errors import InputError

_LIBRARY = "libunroll_native.so"
_LSTM, _RNN_TANH, _RNN_RELU = 0, 1, 2
_DTYPES = (torch.float32, torch.float64)

# Gradients in the order of the inputs (x, h0, c0, W, U, b); None where nobody wants one.
_Gradients = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None, Tensor | None]


class _Task(NamedTuple):
    """A walk to be done: over which tensors, and how. The operators below take the same in the same order."""

    x: Tensor
    h0: Tensor
    c0: Tensor | None
    W: Tensor
    U: Tensor
    b: Tensor | None
    lengths: Tensor | None
    reverse: bool
    projected: bool
    kind: int

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor | None, Tensor, Tensor, Tensor | None]:
        """What gradients are for."""
        return self[:6]


# --- the library ------------------------------------------------------------------------------------------------------


def _find_library() -> Path | None:
    # An editable installation keeps compiled files apart from the sources; the package's path lists both places.
    for folder in sys.modules["unroll.engines"].__path__:
        path = Path(folder) / _LIBRARY
        if path.exists():
            return path
    return None


def _lend_openmp(library: ctypes.CDLL) -> None:
    """Let the kernels run on the OpenMP workers that torch has already started (see native/threads.cpp)."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:
        return
    paths = {line.split(maxsplit=5)[-1] for line in maps.splitlines() if "omp" in line and "/" in line}
    names = ("libgomp", "libiomp5", "libomp")
    found = [path for path in paths if Path(path).name.startswith(names)]
    home = str(Path(torch.__file__).parent)
    found.sort(key=lambda path: (not path.startswith(home), path))
    for path in found:
        try:
            runtime = ctypes.CDLL(path)
            functions = [
                ctypes.cast(getattr(runtime, name), ctypes.c_void_p)
                for name in ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads", "omp_in_parallel")
            ]
        except (OSError, AttributeError):
            continue
        library.unroll_use_openmp(*functions)
        return


# What native/engine.hpp calls `abi_number`, and the bytes of its structs: of `_FIELDS` below, of `_AdamCall` and
# `_ReadoutCall` in unroll/engines/step.py.
_ABI = 1
_SIZES = {"Call": 272, "AdamCall": 128, "ReadoutCall": 120}


def _fits(library: ctypes.CDLL) -> bool:
    """Whether a library and this package mean the same by the calls they share."""
    try:
        abi, size = library.unroll_abi, library.unroll_size
    except AttributeError:
        return False
    size.argtypes = [ctypes.c_char_p]
    abi.restype = size.restype = ctypes.c_int64
    return abi() == _ABI and all(size(name.encode()) == expected for name, expected in _SIZES.items())


def _refuse_failure(status: int, *_: object) -> int:
    """A status, unless it is the one that stands for whatever nobody thought of."""
    if status < 0:
        raise RuntimeError("the compiled kernels failed, and cannot say why")
    return status


def _load() -> tuple[ctypes.CDLL | None, str | None, str]:
    path = _find_library()
    if path is None:
        return None, None, "the compiled kernels are not installed"
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return None, None, f"the compiled kernels do not load ({error})"
    if not _fits(library):
        return None, None, "the compiled kernels are older than the package; install it again"
    library.unroll_select.argtypes = [ctypes.c_char_p]
    library.unroll_select.restype = ctypes.c_char_p
    library.unroll_use_openmp.argtypes = [ctypes.c_void_p] * 4
    library.unroll_use_openmp.restype = None
    for function in (
        library.unroll_forward,
        library.unroll_backward,
        library.unroll_readout,
        library.unroll_adam,
    ):
        function.argtypes = [ctypes.c_void_p]
        function.restype = ctypes.c_int
        function.errcheck = _refuse_failure  # type: ignore[assignment]
    library.unroll_release.argtypes = [ctypes.c_void_p]
    library.unroll_release.restype = ctypes.c_int
    library.unroll_trim.argtypes = []
    library.unroll_trim.restype = ctypes.c_int
    library.unroll_multiply_add.argtypes = [ctypes.c_int64, ctypes.c_int]
    library.unroll_multiply_add.restype = ctypes.c_int64
    library.unroll_multiply_add.errcheck = _refuse_failure  # type: ignore[assignment]
    wanted = os.environ.get("UNROLL_ISA", "")
    chosen = library.unroll_select(wanted.encode())
    if chosen is None:
        return None, None, f"UNROLL_ISA={wanted} is no instruction set of this machine"
    _lend_openmp(library)
    return library, chosen.decode(), ""


_library, _instruction_set, _obstacle = _load()


def instruction_set() -> str | None:
    """``"avx512"``, ``"avx2"``, ``"neon"`` or ``"portable"``: what the kernels run on. None where there are none."""
    return _instruction_set


def available() -> str | None:
    """None if the kernels are there, else why they are not."""
    return _obstacle or None


def describe() -> str:
    """The engine that ``auto`` takes on a CPU, in words."""
    return f"native ({_instruction_set})" if _library is not None else f"reference ({_obstacle})"


def trim() -> None:
    """Give back the memory that the kernels keep from call to call."""
    if _library is not None:
        _library.unroll_trim()


def multiply_add(rounds: int, threads: int) -> int:
    """Run multiply-adds on so many threads; how many float32 operations that was. Timed, it is the machine's peak."""
    return int(_library.unroll_multiply_add(rounds, threads)) if _library is not None else 0


def why_not(cell: Cell, x: Tensor) -> str | None:
    """What keeps this engine from walking `cell` over `x`; None if nothing does."""
    if _library is None:
        return _obstacle
    if type(cell) is not LSTMCell and type(cell) is not RNNCell:
        return f"no compiled kernel for a {type(cell).__name__}"
    W = cell.W
    if x.device.type != "cpu" or W.device.type != "cpu":
        return f"the kernels run on the CPU, and these are on {x.device} and {W.device}"
    if W.dtype not in _DTYPES:
        return f"the kernels compute in float32 and float64, not in {W.dtype}"
    if torch.is_autocast_enabled("cpu"):
        if W.dtype == torch.float64:
            return "autocast makes the input float32 and leaves the weights float64"
    elif x.is_floating_point() and x.dtype != W.dtype:
        return f"the input is {x.dtype} and the weights are {W.dtype}"
    return None if torch.compiler.is_compiling() else transformed()


def transformed() -> str | None:
    """Which transformation of functions is under way that the kernels do not take part in; None if none is."""
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "it stands inside a torch.func transform"
    # torch has no public question for this; at a level of its own a tensor may carry a tangent.
    if forward_ad._current_level >= 0:
        return "the kernels have no forward-mode derivatives"
    return None


def recorded(tensor: Tensor) -> bool:
    """Whether operations are traced, faked or intercepted at this moment: then a tensor's memory must not be touched."""
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        or _get_current_dispatch_mode() is not None
        or type(tensor) not in (Tensor, torch.nn.Parameter)
    )


# --- calls into C -----------------------------------------------------------------------------------------------------

# The fields of `Call` in native/engine.cpp, in its order; each 8 bytes.
_FIELDS: Sequence[str] = """
    kind double reverse projected save threads T B H D lengths x x_time x_batch h0 c0 W U b out h_last c_last saved
    d_out d_out_time d_out_batch d_h_last d_c_last d_x d_h0 d_c0 d_W d_U d_b
""".split()  # noqa: SIM905 (a list would take a line for every name)
_SAVED = _FIELDS.index("saved")


def _call(*fields: int) -> array[int]:
    """A `Call` that begins with these fields; the others are zero. An array: ctypes would take four times as long."""
    return array("q", (*fields, *[0] * (len(_FIELDS) - len(fields))))


class _Saved:
    """Memory of the kernels that a forward pass has filled for its backward pass; given back when it is dropped."""

    __slots__ = ("pointer",)

    def __init__(self, pointer: int) -> None:
        self.pointer = pointer

    def release(self) -> None:
        if self.pointer and _library is not None:
            _library.unroll_release(self.pointer)
            self.pointer = 0

    __del__ = release


def _pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _rows(tensor: Tensor) -> Tensor:
    """(T, B, N) with N contiguous; the kernels take any other strides as they are."""
    return tensor if tensor.stride(2) == 1 or tensor.shape[2] == 1 else tensor.contiguous()


def _check(status: int) -> None:
    if status == 1:
        raise MemoryError("not enough memory to walk over the sequences")
    if status == 2:
        raise InputError("lengths must lie between 0 and T, the number of steps")
    if status == 3:
        raise InputError("saved does not come from a forward pass like this one")


def _forward(task: _Task, saved: Tensor | bool) -> tuple[Tensor, Tensor, Tensor | None, int]:
    """Outputs (T, B, H), final h and c, and a pointer to what the backward pass needs (LSTM).

    `saved` is where to put that: a tensor, True for memory of the kernels' own, False for nowhere.
    """
    x, h0, c0, W, U, b, lengths, reverse, projected, kind = task
    T, B, _ = x.shape
    H = W.shape[1]
    x = _rows(x)
    h0 = h0.contiguous()
    W = W.contiguous()
    U = U.contiguous()
    out, h_last = W.new_empty(T, B, H), W.new_empty(B, H)
    c_last = None
    if c0 is not None:
        c0 = c0.contiguous()
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
    assert _library is not None
    _check(_library.unroll_forward(call.buffer_info()[0]))
    return out, h_last, c_last, call[_SAVED]


def _backward(
    task: _Task, d_outputs: Sequence[Tensor | None], out: Tensor, saved: int, needed: Sequence[bool]
) -> _Gradients:
    """Gradients of (x, h0, c0, W, U, b) from those of out, the final h and (LSTM) the final c; destroys `saved`."""
    x, h0, c0, W, U, b, lengths, reverse, projected, kind = task
    d_out, d_h_last, d_c_last = d_outputs if c0 is not None else (*d_outputs, None)
    T, B, _ = x.shape
    H = W.shape[1]
    x = _rows(x)
    h0 = h0.contiguous()
    W = W.contiguous()
    U = U.contiguous()
    out = out.contiguous()
    if c0 is not None:
        c0 = c0.contiguous()
    if lengths is not None:
        lengths = lengths.contiguous()
    if d_out is not None:
        d_out = _rows(d_out)
    if d_h_last is not None:
        d_h_last = d_h_last.contiguous()
    if d_c_last is not None:
        d_c_last = d_c_last.contiguous()
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
    assert _library is not None
    _check(_library.unroll_backward(call.buffer_info()[0]))
    return d_x, d_h0, d_c0, d_W, d_U, d_b


# --- walking ----------------------------------------------------------------------------------------------------------


def walk(
    cell: Cell, x: Tensor, state: State, lengths: Tensor | None = None, reverse: bool = False
) -> tuple[Tensor, State]:
    """Walk `cell` over time; see `unroll.engines.reference.walk` for arguments and results."""
    h0, c0 = state if isinstance(state, tuple) else (state, None)
    kind, W, U, b = _kind(cell), cell.W, cell.U, cell.b
    projected = not x.is_floating_point()
    if projected:
        if lengths is not None:  # what stands in the padding need not be a word
            x = x.masked_fill(torch.arange(x.shape[0], device=x.device)[:, None] >= lengths, 0)
        x = torch.nn.functional.embedding(x, U.T)
    task = _Task(x, h0, c0, W, U, b, lengths, reverse, projected, kind)
    autocast = torch.is_autocast_enabled("cpu")
    if not autocast:  # else the operator sees the tensors as autocast has cast them, and checks those
        _check_tensors(task)

    if autocast or recorded(x):
        if c0 is not None:
            # A recorded program does not know whether gradients will be wanted where it runs.
            save = torch.jit.is_tracing() or (  # type: ignore[attr-defined, no-untyped-call]
                torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in task.inputs)
            )
            out, h, c, _ = torch.ops.unroll.lstm(x, h0, c0, W, U, b, lengths, reverse, projected, save)
            return out, (h, c)
        out, h = torch.ops.unroll.rnn(x, h0, W, U, b, lengths, reverse, projected, kind == _RNN_RELU)
        return out, h

    if torch.is_grad_enabled() and (
        W.requires_grad
        or x.requires_grad
        or h0.requires_grad
        or (c0 is not None and c0.requires_grad)
        or U.requires_grad
        or (b is not None and b.requires_grad)
    ):
        out, h, c = _Walk.apply(*task)  # type: ignore[no-untyped-call]
    else:
        out, h, c, _ = _forward(task, False)
    return out, (h if c is None else (h, c))


class Walked(NamedTuple):
    """A walk that no graph records, from `walk_there` to `walk_back`."""

    h: Tensor
    task: _Task
    out: Tensor
    saved: _Saved


def walk_there(cell: Cell, x: Tensor, lengths: Tensor | None = None) -> Walked:
    """Walk a cell that `why_not` has nothing against from zeros over x (T, B, D), features; its `h` (B, H) is the last."""
    kind, W = _kind(cell), cell.W
    zero = W.new_zeros(x.shape[1], W.shape[1])
    task = _Task(x, zero, zero if kind == _LSTM else None, W, cell.U, cell.b, lengths, False, False, kind)
    _check_tensors(task)
    out, h, _, saved = _forward(task, kind == _LSTM)
    return Walked(h, task, out, _Saved(saved))


def walk_back(walked: Walked, d_h: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The gradients by W, U and b, given that by the last h; None for a b that is not there.

    Raises:
        RuntimeError: an LSTM's way back is gone a second time, and the first has used up what was saved.
    """
    _, task, out, saved = walked
    lstm = task.kind == _LSTM
    if lstm and not saved.pointer:
        raise RuntimeError("walk_back goes back once; walk there again")
    d_outputs = (None, d_h, None) if lstm else (None, d_h)
    gradients = _backward(task, d_outputs, out, saved.pointer, (False, False, False, True, True, True))[3:]
    saved.release()
    return gradients


def _kind(cell: Cell) -> int:
    return _LSTM if type(cell) is LSTMCell else _RNN_TANH if cell.nonlinearity == "tanh" else _RNN_RELU


def _check_tensors(task: _Task, *results: tuple[str, Tensor | None, str, tuple[int, ...]]) -> None:
    """The kernels trust their pointers, so nothing that does not fit the weights may pass.

    `results` are further tensors, of a backward pass: name, tensor, axes in words, shape.
    """
    x, h0, c0, W, U, b, lengths, _, projected, kind = task
    if W.dim() != 2 or U.dim() != 2 or W.dtype not in _DTYPES:
        raise InputError(
            f"W is {tuple(W.shape)} {W.dtype} and U is {tuple(U.shape)}; expected (G·H, H) and (G·H, D) in float32 or float64"
        )
    GH, H = W.shape
    D = U.shape[1]
    features = GH if projected else D
    if x.dim() != 3 or x.shape[2] != features:
        raise InputError(f"the input has shape {tuple(x.shape)}; expected (T, B, {features})")
    T, B, _ = x.shape
    rows = 4 * H if kind == _LSTM else H
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


class _Walk(torch.autograd.Function):
    """The kernels under autograd, eager. It is given the fields of a `_Task`."""

    @staticmethod
    def forward(ctx: Any, *fields: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        task = _Task(*fields)
        out, h_last, c_last, saved = _forward(task, task.c0 is not None)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*task[:7], out)
        ctx.saved = _Saved(saved)
        ctx.options = task[7:]
        return out, h_last, c_last

    @staticmethod
    def backward(ctx: Any, *d_outputs: Tensor | None) -> Any:
        *tensors, out = ctx.saved_tensors
        task = _Task(*tensors, *ctx.options)
        needed = ctx.needs_input_grad[:6]
        gradients: Sequence[Tensor | None]
        if torch.is_grad_enabled():
            gradients = _differentiable_backward(task, d_outputs, needed)
        else:
            saved, ctx.saved = ctx.saved, None
            if saved is None and task.c0 is not None:
                # A second time through the same graph: the first has used up what was saved.
                saved = _Saved(_forward(task, True)[3])
            pointer = saved.pointer if saved is not None else 0
            gradients = _backward(task, d_outputs[: 2 + (task.c0 is not None)], out, pointer, needed)
        return *gradients, None, None, None, None


def _differentiable_backward(
    task: _Task, d_outputs: Sequence[Tensor | None], needed: Sequence[bool]
) -> list[Tensor | None]:
    """The gradients once more, by the reference, so that they can be differentiated themselves."""
    # Aliases, so that only the way through this walk counts should one input depend on another.
    inputs = [None if tensor is None else tensor.view_as(tensor) for tensor in task.inputs]
    x, h0, c0, W, U, b = inputs
    assert x is not None and h0 is not None and W is not None and U is not None  # noqa: PT018
    lengths, reverse, projected, kind = task[6:]
    lstm = kind == _LSTM
    used = torch.eye(W.shape[0], dtype=W.dtype, device=W.device) if projected else U
    cell: Cell = (
        LSTMCell(1, 1, bias=b is not None, device="meta")
        if lstm
        else RNNCell(1, 1, bias=b is not None, nonlinearity="tanh" if kind == _RNN_TANH else "relu", device="meta")
    )
    for name, value in (("W", W), ("U", used), ("b", b)):
        delattr(cell, name)
        setattr(cell, name, value)

    state: State = h0 if c0 is None else (h0, c0)
    out, last = reference.walk(cell, x, state, lengths, reverse)
    outputs = [out, *(last if isinstance(last, tuple) else (last,))]
    pairs = [(o, d) for o, d in zip(outputs, d_outputs, strict=False) if d is not None and o.requires_grad]
    wanted = [n for n in range(6) if needed[n] and inputs[n] is not None]
    gradients: list[Tensor | None] = [None] * 6
    if pairs and wanted:
        found = torch.autograd.grad(
            [o for o, _ in pairs],
            [inputs[n] for n in wanted],  # type: ignore[arg-type]
            [d for _, d in pairs],
            create_graph=True,
            allow_unused=True,
        )
        for n, gradient in zip(wanted, found, strict=True):
            gradients[n] = gradient
    return gradients


# --- operators --------------------------------------------------------------------------------------------------------
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


def _sizes(task: _Task) -> tuple[int, int, int]:
    return task.x.shape[0], task.x.shape[1], task.W.shape[1]


def _saved_size(T: int, B: int, H: int) -> int:
    # Four gates and c for every step of every sequence, H rounded up to the widest vector; a header of 64 bytes.
    return T * B * 5 * ((H + 15) // 16 * 16) + 16


def _lstm_task(*fields: Any) -> _Task:
    return _Task._make((*fields, _LSTM))


def _rnn_task(x: Tensor, h0: Tensor, *others: Any) -> _Task:
    *fields, relu = others
    return _Task._make((x, h0, None, *fields, _RNN_RELU if relu else _RNN_TANH))


@torch.library.impl("unroll::lstm", "CPU")
def _lstm(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *fields, save = arguments
    task = _lstm_task(*fields)
    _check_tensors(task)
    size = _saved_size(*_sizes(task)) if save else 0
    saved = task.W.new_zeros((size,))  # all of it defined, as tools that compare results expect
    out, h, c, _ = _forward(task, saved if save else False)
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
    _check_tensors(task)
    return _forward(task, False)[:2]


@torch.library.register_fake("unroll::rnn")  # type: ignore[untyped-decorator]
def _rnn_fake(*arguments: Any) -> tuple[Tensor, Tensor]:
    task = _rnn_task(*arguments)
    T, B, H = _sizes(task)
    return task.W.new_empty((T, B, H)), task.W.new_empty((B, H))


# The backward operators return only the gradients that are needed.


def _results(
    task: _Task,
    needed: Sequence[bool],
    out: Tensor,
    d_out: Tensor | None,
    d_h_last: Tensor | None,
    d_c_last: Tensor | None = None,
    saved: Tensor | None = None,
) -> Iterator[tuple[str, Tensor | None, str, tuple[int, ...]]]:
    """What a backward operator is given beyond the task, for `_check_tensors` (which looks at x and W first)."""
    if len(needed) != 6:
        raise InputError(f"needed has {len(needed)} entries; expected 6, one each for x, h0, c0, W, U and b")
    if task.x.dim() != 3 or task.W.dim() != 2:
        return  # `_check_tensors` says so
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
    _check_tensors(task, *_results(task, needed, out, d_out, d_h_last, d_c_last, saved))
    saved = saved.clone()
    gradients = _backward(task, (d_out, d_h_last, d_c_last), out, saved.data_ptr(), needed)
    return [gradient for gradient in gradients if gradient is not None]


@torch.library.impl("unroll::rnn_backward", "CPU")
def _rnn_backward(*arguments: Any) -> list[Tensor]:
    d_out, d_h_last, out, *fields, needed = arguments
    task = _rnn_task(*fields)
    _check_tensors(task, *_results(task, needed, out, d_out, d_h_last))
    gradients = _backward(task, (d_out, d_h_last), out, 0, needed)
    return [gradient for gradient in gradients if gradient is not None]


@torch.library.register_fake("unroll::lstm_backward")  # type: ignore[untyped-decorator]
def _lstm_backward_fake(*arguments: Any) -> list[Tensor]:
    _, _, _, _, _, *fields, needed = arguments
    return _like(_lstm_task(*fields), needed)


@torch.library.register_fake("unroll::rnn_backward")  # type: ignore[untyped-decorator]
def _rnn_backward_fake(*arguments: Any) -> list[Tensor]:
    _, _, _, *fields, needed = arguments
    return _like(_rnn_task(*fields), needed)


def _like(task: _Task, needed: Sequence[bool]) -> list[Tensor]:
    pairs = zip(task.inputs, needed, strict=True)
    return [tensor.new_empty(tensor.shape) for tensor, want in pairs if want and tensor is not None]


def _register_autograd(lstm: bool) -> None:
    """Autograd for the operators: the same gradients as `_Walk`, through the backward operators."""
    states = 2 if lstm else 1

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.set_materialize_grads(False)
        task = _lstm_task(*inputs[:-1]) if lstm else _rnn_task(*inputs)
        ctx.save_for_backward(*task[:7], output[0], output[3] if lstm else None)
        ctx.options = task[7:]

    def backward(ctx: Any, *d_outputs: Tensor | None) -> Any:
        *tensors, out, saved = ctx.saved_tensors
        task = _Task(*tensors, *ctx.options)
        n = list(ctx.needs_input_grad)
        if not lstm:
            n.insert(2, False)
        needed = [want and tensor is not None for want, tensor in zip(n, task.inputs, strict=False)]
        needed[4] = needed[4] and not task.projected
        d = d_outputs[: 1 + states]
        gradients: list[Tensor | None]
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            gradients = _differentiable_backward(task, d, needed)
        else:
            if lstm:
                found = torch.ops.unroll.lstm_backward(*d, out, saved, *task[:9], needed)
            else:
                x, h0, _, *fields, kind = task
                found = torch.ops.unroll.rnn_backward(*d, out, x, h0, *fields, kind == _RNN_RELU, needed)
            left = iter(found)
            gradients = [next(left) if want else None for want in needed]
        if not lstm:
            del gradients[2]
        return *gradients, *[None] * 4

    name = "unroll::lstm" if lstm else "unroll::rnn"
    torch.library.register_autograd(name, backward, setup_context=setup_context)
    torch.library.register_autocast(name, "cpu", torch.float32)


_register_autograd(lstm=True)
_register_autograd(lstm=False)
