"""Run a student's text as Python runs a script, with what it prints, how it ends, and a limit in time.

The limit is an exception that is raised in the student's own code, so that what was defined until then can be looked at.
Each bare ``except:`` of that code lets it pass, because a handler for it is put before; where it is lost all the same, in a
``finally`` that goes on with a loop, say, it is raised again.
"""

from __future__ import annotations

import _thread
import ast
import asyncio
import builtins
import inspect
import io
import linecache
import os
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, cast

from unroll.errors import shortened
from unroll.labs.child.lines import described
from unroll.labs.source import Source

AGAIN = 0.2  # seconds after which a student's code that goes on is stopped again
MOST_PRINTED = 2_000_000  # characters; of more, the middle is left out
SIGNAL = getattr(signal, "SIGALRM", None)  # Windows has none


_GUARDS: list[Any] = []
HIDDEN = "_unroll_time_up"  # how a student's text knows `TimeUp`, without a name in its own namespace


class TimeUp(BaseException):
    """A student's code has had its time."""


@dataclass
class Outcome:
    """How a run ended.

    Attributes:
        error: ``type``, ``message`` and ``line`` (of the text, None if it is in none) of the exception that ended it.
        printed: what it wrote to stdout and stderr.
        stopped: ``"time"`` where the limit in time ended it.
        line: where it was then, or where it ended itself.
    """

    error: dict[str, Any] | None = None
    printed: str = ""
    stopped: str | None = None
    line: int | None = None

    @property
    def whole(self) -> bool:
        """Whether the text ran to its end."""
        return self.error is None and self.stopped is None

    def data(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)


def execute(
    source: Source,
    namespace: dict[str, Any],
    seconds: float | None = None,
    live: Callable[[bytes], object] | None = None,
) -> Outcome:
    """Run a text as ``python FILE`` does, in the given namespace, which keeps what was defined, however it ends.

    Args:
        namespace: the globals; ``__name__`` and ``__file__`` are set in it.
        seconds: of the clock, after which it is stopped; None: never. Only in the main thread.
        live: is given what is printed, at once.
    """
    name = str(source.path)
    lines = [f"{line}\n" for line in source.text.split("\n")]  # as Python counts them
    linecache.cache[name] = (len(source.text), None, lines, name)  # for tracebacks and `inspect`, in notebooks too
    namespace.update({"__name__": "__main__", "__file__": name, "__builtins__": __builtins__, "__doc__": None})
    out = Printed(live)
    outcome = Outcome()
    with _as_main(name, namespace, out), _torch_as_it_was():
        try:
            tree = _Passing().visit(ast.parse(source.text, name))
            waits = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT if source.is_notebook else 0  # as Jupyter does
            code = compile(tree, name, "exec", waits, dont_inherit=True)
            with time_limit(seconds):
                if code.co_flags & inspect.CO_COROUTINE:
                    asyncio.run(eval(code, namespace))
                else:
                    exec(code, namespace)
        except TimeUp as stop:
            outcome.stopped, outcome.line = "time", described(stop, name)["line"]
        except SystemExit as end:
            outcome.line = described(end, name)["line"]
            if isinstance(end.code, str):
                sys.stdout.writelines([f"{end.code}\n"])
            if end.code not in (None, 0, False):
                said = end.code if isinstance(end.code, str) else f"exit status {end.code}"
                outcome.error = {"type": "SystemExit", "message": shortened(said), "line": outcome.line}
        except BaseException as error:
            outcome.error = described(error, name)
    outcome.printed = out.text()
    return outcome


@contextmanager
def _torch_as_it_was() -> Iterator[None]:
    """Undo the switches that a file may have left, so that what it made can be looked at."""
    import torch

    gradients, dtype, device = torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device()
    try:
        yield
    finally:
        if torch.is_inference_mode_enabled():
            _GUARDS.append(torch.inference_mode(False))  # which ends when nobody holds it
            _GUARDS[-1].__enter__()
        torch.set_grad_enabled(gradients)
        torch.set_default_dtype(dtype)
        if torch.get_default_device() != device:
            torch.set_default_device(None if device.type == "cpu" else device)  # None: no mode at all


class _Passing(ast.NodeTransformer):
    """Puts ``except TimeUp: raise`` before each handler that would catch it."""

    def visit_Try(self, node: ast.Try) -> ast.Try:
        self.generic_visit(node)
        for number, handler in enumerate(node.handlers):
            if handler.type is None or not _names_an_exception(handler.type):
                passing = ast.ExceptHandler(ast.Name(HIDDEN, ast.Load()), None, [ast.Raise(None, None)])
                for part in ast.walk(passing):
                    ast.copy_location(part, handler)
                node.handlers.insert(number, passing)
                break
        return node


def _names_an_exception(kind: ast.expr) -> bool:
    """Whether a handler's type is surely not BaseException, as far as names tell."""
    names = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return all(isinstance(name, ast.Name | ast.Attribute) and "BaseException" not in ast.dump(name) for name in names)


class _Main(types.ModuleType):
    """The module ``__main__`` with a given dictionary, for `pickle` and `inspect`, which look for classes there."""

    def __init__(self, name: str, namespace: dict[str, Any]) -> None:
        super().__init__("__main__")
        object.__setattr__(self, "_namespace", namespace)
        object.__setattr__(self, "__file__", name)

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        return self._namespace  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        try:
            return object.__getattribute__(self, "_namespace")[name]
        except KeyError:
            raise AttributeError(f"module '__main__' has no attribute {name!r}") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self._namespace[name] = value


@contextmanager
def _as_main(name: str, namespace: dict[str, Any], out: Printed) -> Iterator[None]:
    kept = sys.argv, sys.stdin, sys.stdout, sys.stderr, sys.modules.get("__main__")
    text = io.TextIOWrapper(cast(Any, out), encoding="utf-8", errors="backslashreplace", write_through=True)
    with open(os.devnull, encoding="utf-8") as nothing:
        sys.argv, sys.stdin, sys.stdout, sys.stderr = [name], nothing, text, text
        sys.modules["__main__"] = _Main(name, namespace)
        setattr(builtins, HIDDEN, TimeUp)
        try:
            yield
        finally:
            with suppress(BaseException):
                text.flush()
                text.detach()
            delattr(builtins, HIDDEN)
            sys.argv, sys.stdin, sys.stdout, sys.stderr = kept[:4]
            if kept[4] is not None:
                sys.modules["__main__"] = kept[4]


class Printed(io.BufferedIOBase):
    """Bytes that were printed: the first and the last of them, where there are many."""

    def __init__(self, live: Callable[[bytes], object] | None = None) -> None:
        self._live = live
        self._first = bytearray()
        self._last = bytearray()
        self._lost = False

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        content = bytes(data)
        room = max(MOST_PRINTED // 2 - len(self._first), 0)
        self._first += content[:room]
        self._last += content[room:]
        if len(self._last) > MOST_PRINTED:
            self._lost = True
            del self._last[: -MOST_PRINTED // 2]
        if self._live is not None:
            self._live(content)
        return len(content)

    def text(self) -> str:
        middle = b"\n[...]\n" if self._lost else b""
        return bytes(self._first + middle + self._last).decode(errors="replace").replace("\r\n", "\n")


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Raise `TimeUp` in what runs inside after so many seconds, again and again until it ends; None: never."""
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    number = signal.SIGINT if SIGNAL is None else SIGNAL
    armed = True
    done = threading.Event()

    def stop(signum: int, frame: types.FrameType | None) -> None:
        if not armed:
            return
        raise TimeUp

    def watch() -> None:
        wait = seconds
        while not done.wait(wait):
            _thread.interrupt_main(number)
            wait = AGAIN

    before = signal.signal(number, stop)
    if SIGNAL is not None:
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)  # interrupts what waits in the system, too
    else:
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        armed = False
        done.set()
        if SIGNAL is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(number, before)
