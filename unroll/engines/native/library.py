"""The shared library of compiled kernels: found, checked and loaded once, when this module is imported.

The kernels (C++ under ``native/``) have no tie to torch: tensors go in as pointers. Where the package was installed without
them (environment variable ``UNROLL_NO_NATIVE=1`` at installation), `library` is None and `available` says why.

``UNROLL_ISA`` (``avx512``, ``avx2``, ``neon``, ``portable``) forces an instruction set; by default the best is taken that the
machine has.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.utils._python_dispatch import _get_current_dispatch_mode

_LIBRARY = "libunroll_native.so"


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


# The fields of `Call` in native/engine.hpp, in its order; each 8 bytes.
FIELDS: Sequence[str] = """
    kind double reverse projected save threads T B H D lengths x x_time x_batch h0 c0 W U b out h_last c_last saved
    d_out d_out_time d_out_batch d_h_last d_c_last d_x d_h0 d_c0 d_W d_U d_b
""".split()  # noqa: SIM905 (a list would take a line for every name)
SAVED = FIELDS.index("saved")


class ReadoutCall(ctypes.Structure):
    """`ReadoutCall` of native/engine.hpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("double", "rows", "classes", "features")),
        *((name, ctypes.c_void_p) for name in ("h", "W", "b", "targets", "class_weights")),
        *((name, ctypes.c_double) for name in ("smoothing", "total")),
        *((name, ctypes.c_void_p) for name in ("loss", "d_h", "d_W", "d_b")),
    )


class AdamCall(ctypes.Structure):
    """`AdamCall` of native/engine.hpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("double", "threads", "tensors")),
        *((name, ctypes.c_void_p) for name in ("gradients", "sizes", "theta", "m", "v", "norm")),
        *((name, ctypes.c_double) for name in ("max_norm", "penalty", "keep", "beta1", "beta2", "rate", "eps")),
    )


class ProgramCall(ctypes.Structure):
    """`ProgramCall` of native/engine.hpp."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("double", "reverse", "save", "threads", "T", "B")),
        *((name, ctypes.c_void_p) for name in ("lengths", "inputs", "input_time", "input_batch", "initial", "weights")),
        *((name, ctypes.c_void_p) for name in ("out", "last", "saved", "d_out")),
        *((name, ctypes.c_int64) for name in ("d_out_time", "d_out_batch")),
        *((name, ctypes.c_void_p) for name in ("d_last", "d_inputs", "d_initial", "d_weights")),
    )


ABI = 3  # `abi_number` of native/engine.hpp
SIZES = {"Call": 8 * len(FIELDS), "AdamCall": ctypes.sizeof(AdamCall), "ReadoutCall": ctypes.sizeof(ReadoutCall)}
SIZES["ProgramCall"] = ctypes.sizeof(ProgramCall)


def _fits(library: ctypes.CDLL) -> bool:
    """Whether a library and this package mean the same by the calls they share."""
    try:
        abi, size = library.unroll_abi, library.unroll_size
    except AttributeError:
        return False
    size.argtypes = [ctypes.c_char_p]
    abi.restype = size.restype = ctypes.c_int64
    return abi() == ABI and all(size(name.encode()) == expected for name, expected in SIZES.items())


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
    for function in (library.unroll_program_forward, library.unroll_program_backward):
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        function.restype = ctypes.c_int
        function.errcheck = _refuse_failure  # type: ignore[assignment]
    library.unroll_program_make.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64]
    library.unroll_program_make.restype = ctypes.c_void_p
    library.unroll_program_free.argtypes = [ctypes.c_void_p]
    library.unroll_program_free.restype = ctypes.c_int
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


library, _instruction_set, _obstacle = _load()


def instruction_set() -> str | None:
    """``"avx512"``, ``"avx2"``, ``"neon"`` or ``"portable"``: what the kernels run on. None where there are none."""
    return _instruction_set


def available() -> str | None:
    """None if the kernels are there, else why they are not."""
    return _obstacle or None


def describe() -> str:
    """The engine that ``auto`` takes on a CPU, in words."""
    return f"native ({_instruction_set})" if library is not None else f"reference ({_obstacle})"


def trim() -> None:
    """Give back the memory that the kernels keep from call to call."""
    if library is not None:
        library.unroll_trim()


def multiply_add(rounds: int, threads: int) -> int:
    """Run multiply-adds on so many threads; how many float32 operations that was. Timed, it is the machine's peak."""
    return int(library.unroll_multiply_add(rounds, threads)) if library is not None else 0


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
