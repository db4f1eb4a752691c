"""What a student's file finds around it while it runs: MNIST without a download, no windows, no network, no keyboard, no GPU.

All of it is undone at the end. It is no sandbox: it keeps a student's own file on the student's own machine from waiting for
what a check has not, and says so in words; it does not defend against code that means harm.
"""

from __future__ import annotations

import builtins
import importlib.abc
import importlib.machinery
import itertools
import os
import random
import shutil
import socket
import sys
import tempfile
import threading
import types
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from unroll.labs.child.patches import Patches
from unroll.labs.child.served import MNIST, served

COMPILER = "torch._dynamo"
SEED = 0
MOST_FIGURES = 60
FACTORIES = (
    "tensor", "as_tensor", "zeros", "ones", "empty", "full", "rand", "randn", "randint", "randperm", "arange", "linspace",
    "logspace", "eye", "zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like",
    "normal", "tril_indices", "triu_indices", "asarray",
)  # fmt: skip
METHODS = ("new_zeros", "new_ones", "new_empty", "new_full", "new_tensor")


class RefusedError(OSError):
    """A student's file asks for what it does not get here."""


@dataclass
class Surroundings:
    """What was noticed around a student's file.

    Attributes:
        parts: the served parts of MNIST that it made.
        figures: the figures that it showed, saved or left open, in order.
        warnings: text of each warning, once.
        on_figure: is called with a figure when it is shown or saved, before it is closed.
    """

    parts: list[MNIST]
    figures: list[Any] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    on_figure: Callable[[Any], object] | None = None

    def keep(self, figure: Any) -> None:
        """Note a figure."""
        if len(self.figures) < MOST_FIGURES and not any(figure is known for known in self.figures):
            self.figures.append(figure)
        if self.on_figure is not None:
            self.on_figure(figure)

    def keep_open(self) -> None:
        """Note the figures that are open."""
        if "matplotlib.pyplot" in sys.modules:
            import matplotlib.pyplot as plt

            for number in plt.get_fignums():
                self.keep(plt.figure(number))


@contextmanager
def surroundings(
    path: Path | None = None,
    *,
    small: bool = False,
    seed: int = SEED,
    threads: int = 1,
    on_figure: Callable[[Any], object] | None = None,
) -> Iterator[Surroundings]:
    """Put everything in place, and take it away again.

    The working folder is an empty one that is removed; modules beside the file can be imported.

    Args:
        path: the student's file.
        small: serve few images (see `unroll.labs.child.served`).
        seed: of torch, numpy and `random`.
        threads: of torch.
        on_figure: see `Surroundings`.
    """
    with ExitStack() as stack:
        around = Surroundings(stack.enter_context(served(small)), on_figure=on_figure)
        stack.enter_context(_warnings(around))
        stack.enter_context(_place(path))
        patch = Patches()
        stack.callback(patch.undo)
        stack.enter_context(_generators(seed, threads))
        _close_network(patch)
        _close_keyboard(patch)
        _end_in_order(patch)
        _without_gpu(patch)
        _data_loading(patch, small)
        _notebook(patch)
        stack.enter_context(_imports(around, patch))
        if small:
            stack.enter_context(_without_compiler())
        yield around


class _Compiler(types.ModuleType):
    """In the place of `torch._dynamo`, until somebody asks it for more than the optimizers do."""

    def disable(self, function: Callable[..., Any], *_: Any, **__: Any) -> Callable[..., Any]:
        return function

    def graph_break(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        self.leave()
        return getattr(importlib.import_module(COMPILER), name)

    def leave(self) -> None:
        """Make room for the real one."""
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER]
        if vars(torch).get("_dynamo") is self:
            del torch._dynamo


@contextmanager
def _without_compiler() -> Iterator[None]:
    """Let torch's optimizers do without its compiler, whose import takes longer than a check on few images.

    Each imports it at its first step, to tell it that nothing is to be compiled there.
    """
    if COMPILER in sys.modules:
        yield
        return
    stand_in = _Compiler(COMPILER)
    sys.modules[COMPILER] = torch._dynamo = stand_in
    try:
        yield
    finally:
        stand_in.leave()


# --- place, generators, warnings ------------------------------------------------------------------------------------------------


@contextmanager
def _place(path: Path | None) -> Iterator[None]:
    before, environment, search = os.getcwd(), dict(os.environ), list(sys.path)
    folder = tempfile.mkdtemp(prefix="unroll-lab-")
    if path is not None:
        sys.path.insert(0, str(Path(path).resolve().parent))
    os.chdir(folder)
    os.environ.update({"MPLBACKEND": "Agg", "TQDM_DISABLE": "1", "WANDB_MODE": "disabled"})
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = search
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _generators(seed: int, threads: int) -> Iterator[None]:
    before = torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    np.random.seed(seed % (1 << 32))
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_default_dtype(before[1])
        torch.set_grad_enabled(before[2])
        if torch.are_deterministic_algorithms_enabled():  # setting it imports the compiler
            torch.use_deterministic_algorithms(False)
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])


@contextmanager
def _warnings(around: Surroundings) -> Iterator[None]:
    def keep(message: Warning | str, category: type[Warning], *rest: Any, **more: Any) -> None:
        text = f"{category.__name__}: {message}"
        if text not in around.warnings and len(around.warnings) < 100:
            around.warnings.append(text)

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.showwarning = keep  # catch_warnings puts it back
        yield


# --- network, keyboard, GPU -----------------------------------------------------------------------------------------------------


def _close_network(patch: Patches) -> None:
    refusal = "there is no network while this file runs; MNIST comes with the package, so no download is needed"

    def refuse(*arguments: Any, **named: Any) -> Any:
        raise RefusedError(refusal)

    def local_only(function: Callable[..., Any]) -> Callable[..., Any]:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                raise RefusedError(refusal)
            return function(self, address)

        return connect

    for name in ("connect", "connect_ex"):
        patch.wrap(socket.socket, name, local_only)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        patch.set(socket, name, refuse)


def _close_keyboard(patch: Patches) -> None:
    def ask(prompt: object = "", /) -> str:
        raise EOFError("input() waits for a person, and nobody types here; give the value in the file")

    patch.set(builtins, "input", ask)


def _end_in_order(patch: Patches) -> None:
    """`os._exit` ends a file as `sys.exit` does, so that what it has made is seen; a process that was forked ends at once."""
    end, whole = os._exit, os.getpid()

    def leave(status: int) -> None:
        if os.getpid() != whole or threading.current_thread() is not threading.main_thread():
            end(status)
        raise SystemExit(status)

    patch.set(os, "_exit", leave)


def _is_gpu(device: Any) -> bool:
    if isinstance(device, torch.device):
        return device.type in ("cuda", "mps", "xpu")
    return isinstance(device, str) and device.partition(":")[0] in ("cuda", "mps", "xpu")


def _on_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the CPU wherever a GPU is asked for."""

    def call(*arguments: Any, **named: Any) -> Any:
        if "device" in named and (_is_gpu(named["device"]) or type(named["device"]) is int):
            named["device"] = "cpu"
        return function(*(torch.device("cpu") if _is_gpu(value) else value for value in arguments), **named)

    return call


def _to_cpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """``to`` likewise; its first argument may be the number of a GPU."""
    moved = _on_cpu(function)

    def to(self: Any, *arguments: Any, **named: Any) -> Any:
        if arguments and type(arguments[0]) is int:
            arguments = ("cpu", *arguments[1:])
        return moved(self, *arguments, **named)

    return to


def _without_gpu(patch: Patches) -> None:
    """GPU code runs on the CPU: the labs' networks are small, and the results are the same."""
    patch.set(torch.cuda, "is_available", lambda: False)
    patch.set(torch.cuda, "device_count", lambda: 0)
    patch.set(torch.cuda, "get_device_name", lambda *arguments: "none")
    patch.set(torch.cuda, "current_device", lambda: 0)
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats", "set_device"):
        patch.set(torch.cuda, name, lambda *arguments, **named: None)
    patch.set(torch.backends.mps, "is_available", lambda: False)
    for name in FACTORIES:
        patch.wrap(torch, name, _on_cpu)
    for name in METHODS:
        patch.wrap(torch.Tensor, name, _on_cpu)
    patch.set(torch, "Generator", _generator(torch.Generator))
    patch.wrap(torch, "set_default_device", _on_cpu)
    patch.wrap(torch, "load", lambda load: _loaded(load))
    for owner in (torch.Tensor, nn.Module):
        patch.wrap(owner, "to", _to_cpu)
        for name in ("cuda", "xpu", "pin_memory"):
            if hasattr(owner, name):
                patch.set(owner, name, lambda self, *arguments, **named: self)
    # Compiling takes longer than a check may, and needs a compiler.
    patch.set(torch, "compile", lambda model=None, **named: (lambda function: function) if model is None else model)
    patch.set(nn.Module, "compile", lambda self, *arguments, **named: None)
    for name in ("script", "trace"):  # what is watched here is Python
        patch.set(torch.jit, name, lambda what=None, *arguments, **named: what)


def _generator(real: type[torch.Generator]) -> type[torch.Generator]:
    class Generator(real):  # type: ignore[misc,valid-type]
        """A class still: torch writes it into annotations."""

        def __new__(cls, device: Any = "cpu") -> Any:
            return real("cpu" if _is_gpu(device) else device)

    return Generator


def _loaded(load: Callable[..., Any]) -> Callable[..., Any]:
    def call(file: Any, *arguments: Any, **named: Any) -> Any:
        if arguments:
            named["map_location"], arguments = arguments[0], arguments[1:]
        return load(file, *arguments, **{**named, "map_location": "cpu"})

    return call


# --- loading of data ------------------------------------------------------------------------------------------------------------


def _data_loading(patch: Patches, small: bool) -> None:
    before = DataLoader.__init__
    names = signature(before)
    off = {
        "num_workers": 0, "pin_memory": False, "persistent_workers": False, "prefetch_factor": None, "timeout": 0,
        "multiprocessing_context": None, "pin_memory_device": "",
    }  # fmt: skip

    def begin(self: Any, *arguments: Any, **named: Any) -> None:
        try:
            given = names.bind(self, *arguments, **named)
        except TypeError:
            before(self, *arguments, **named)  # says what is wrong
            return
        for name, value in off.items():
            if name in given.arguments:
                given.arguments[name] = value
        if _is_gpu(getattr(given.arguments.get("generator"), "device", None)):
            given.arguments["generator"] = None
        before(*given.args, **given.kwargs)

    patch.set(DataLoader, "__init__", wraps(before)(begin))
    if small:
        _few_images(patch)


def _few_images(patch: Patches) -> None:
    """Parts that are cut out of the whole MNIST by number are cut out of the few images that are served."""
    import torch.utils.data.dataset as inner

    whole = {True: 60_000, False: 10_000}
    split, subset = inner.random_split, inner.Subset

    def random_split(dataset: Any, lengths: Sequence[float], *arguments: Any, **named: Any) -> Any:
        if isinstance(dataset, MNIST) and sum(lengths) == whole[dataset.train]:
            count, ends, total = len(dataset), [0], 0
            for length in lengths:
                total += int(length)
                ends.append(round(count * total / whole[dataset.train]))
            lengths = [end - start for start, end in itertools.pairwise(ends)]
        return split(dataset, lengths, *arguments, **named)

    def begin(self: Any, dataset: Any, indices: Sequence[int]) -> None:
        if isinstance(dataset, MNIST) and len(indices) > len(dataset):
            indices = list(indices[: len(dataset)])
        of_subset(self, dataset, indices)

    of_subset = subset.__init__
    patch.set(subset, "__init__", wraps(of_subset)(begin))
    for module in (inner, torch.utils.data):
        patch.set(module, "random_split", wraps(split)(random_split))


# --- notebooks ------------------------------------------------------------------------------------------------------------------


class _Shell:
    """What ``get_ipython()`` gives: it takes every magic, and does nothing."""

    config: dict[str, Any] = {}  # noqa: RUF012 - as tqdm asks for it
    kernel = None

    @property
    def events(self) -> _Shell:
        """Where pyplot registers its own, as soon as IPython is imported."""
        return self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *arguments, **named: None

    def run_line_magic(self, name: str, line: str = "", *rest: Any) -> None:
        """Nothing."""

    run_cell_magic = run_line_magic


def _nothing(*arguments: Any, **named: Any) -> None:
    """Do nothing."""


def _notebook(patch: Patches) -> None:
    shell = _Shell()
    patch.set(builtins, "get_ipython", lambda: shell)
    patch.set(builtins, "display", _nothing)
    change = os.chdir

    def chdir(path: Any) -> None:
        if isinstance(path, str) and path.startswith("/content") and not os.path.exists(path):
            return  # a folder of Colab
        change(path)

    patch.set(os, "chdir", chdir)


def _module(name: str, **things: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__path__ = []
    vars(module).update(things)
    return module


def _colab() -> dict[str, types.ModuleType]:
    drive = _module("google.colab.drive", mount=_nothing, flush_and_unmount=_nothing)
    files = _module("google.colab.files", download=_nothing, upload=lambda *arguments: {})
    output = _module("google.colab.output", clear=_nothing)
    patches = _module("google.colab.patches", cv2_imshow=_nothing)
    colab = _module("google.colab", drive=drive, files=files, output=output, patches=patches)
    return {module.__name__: module for module in (colab, drive, files, output, patches)}


def _ipython(shell: Any) -> dict[str, types.ModuleType]:
    quiet = ("display", "clear_output", "set_matplotlib_formats")
    shown = ("HTML", "Image", "Markdown", "Latex", "Math", "Javascript", "SVG", "Video", "Audio")
    display = _module("IPython.display", **dict.fromkeys(quiet, _nothing), **dict.fromkeys(shown, _nothing))
    top = _module("IPython", display=display, get_ipython=shell, version_info=(9, 0, 0))
    core = _module("IPython.core", display=display)
    return {"IPython": top, "IPython.display": display, "IPython.core": core, "IPython.core.display": display}


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Changes modules as they are imported, and makes stand-ins of those that are not installed."""

    def __init__(self, after: dict[str, Callable[[Any], object]], stand_ins: dict[str, types.ModuleType]) -> None:
        self.after, self.stand_ins = after, stand_ins

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if name in self.stand_ins:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        change = self.after.get(name)
        if change is None:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Changed(spec.loader, change)
                return spec
        return None

    def create_module(self, spec: Any) -> types.ModuleType:
        return self.stand_ins[spec.name]

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class _Changed(importlib.abc.Loader):
    def __init__(self, loader: Any, change: Callable[[Any], object]) -> None:
        self._loader, self._change = loader, change

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        self._loader.exec_module(module)
        self._change(module)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


# --- windows --------------------------------------------------------------------------------------------------------------------


def _is_there(name: str) -> bool:
    try:
        return name in sys.modules or find_spec(name) is not None
    except (ImportError, ValueError):
        return False


@contextmanager
def _imports(around: Surroundings, patch: Patches) -> Iterator[None]:
    def no_window(what: str) -> Callable[..., Any]:
        def refuse(*arguments: Any, **named: Any) -> Any:
            raise RefusedError(
                f"{what} opens a window, and there is none here; show pictures with matplotlib, as the lab does"
            )

        return refuse

    def of_cv2(module: Any) -> None:
        for name in ("imshow", "namedWindow", "waitKey"):
            patch.set(module, name, no_window(f"cv2.{name}"))

    def of_pillow(module: Any) -> None:
        patch.set(module.Image, "show", _nothing)

    def of_tqdm(module: Any) -> None:
        import tqdm

        for name, value in (("tqdm", tqdm.tqdm), ("tqdm_notebook", tqdm.tqdm), ("trange", tqdm.trange)):
            patch.set(module, name, value)

    after: dict[str, Callable[[Any], object]] = {
        "cv2": of_cv2,
        "tkinter": lambda module: patch.set(module.Tk, "__init__", no_window("tkinter")),
        "PIL.Image": of_pillow,
        "tqdm.notebook": of_tqdm,
        "IPython": lambda module: patch.set(module, "get_ipython", builtins.get_ipython),  # type: ignore[attr-defined]
        "matplotlib": lambda module: patch.set(module, "use", _nothing),
        "matplotlib.pyplot": lambda module: _pyplot(around, patch, module),
    }
    stand_ins = _colab()
    if not _is_there("google"):
        stand_ins["google"] = _module("google", colab=stand_ins["google.colab"])
    if not _is_there("IPython"):
        stand_ins |= _ipython(builtins.get_ipython)  # type: ignore[attr-defined]
    finder = _Finder(after, stand_ins)
    for name, change in after.items():
        if name in sys.modules:
            change(sys.modules[name])
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in stand_ins:
            if sys.modules.get(name) is stand_ins[name]:
                del sys.modules[name]
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")


def _pyplot(around: Surroundings, patch: Patches, plt: Any) -> None:
    """Figures are kept where they are shown, and closed as a person closes their windows."""
    import matplotlib
    from matplotlib.figure import Figure

    if matplotlib.get_backend().lower() != "agg":
        plt.switch_backend("Agg")
    patch.set(matplotlib, "use", _nothing)
    patch.wrap(plt, "switch_backend", lambda switch: lambda *arguments, **named: switch("Agg"))  # pyplot calls it too
    save = Figure.savefig

    def show(*arguments: Any, block: bool | None = None, **named: Any) -> None:
        around.keep_open()
        if block is not False and not plt.isinteractive():
            plt.close("all")

    def show_figure(self: Any, *arguments: Any, **named: Any) -> None:
        around.keep(self)

    def savefig(self: Any, *arguments: Any, **named: Any) -> Any:
        result = save(self, *arguments, **named)
        around.keep(self)
        return result

    patch.set(plt, "show", show)
    patch.set(plt, "pause", _nothing)
    patch.set(plt, "ginput", _nothing)
    patch.set(plt, "waitforbuttonpress", _nothing)
    patch.set(Figure, "show", show_figure)
    patch.set(Figure, "savefig", wraps(save)(savefig))
