"""The parent's side of a child process: its limits, its output, its end, and what it hands back.

It is no sandbox: a student's own file runs on the student's own machine with that person's rights. The limits keep mistakes
(endless loops, too much memory, a flood of output) from taking the machine or the check with them. On Windows there are only
those of the clock and of the output, on macOS none of memory. What the file has started ends with it: on Linux all of it (see
`unroll.labs.child.supervise`), on macOS what has not put itself into a session of its own, on Windows the file's process alone.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unroll.errors import InputError
from unroll.labs.child.entry import ARRAY, LENGTH, NOTES, OBSERVED, UNWRITTEN

PATIENCE = 10  # seconds that the supervisor of a child has to end it
KEPT = 20_000  # characters of the end of what was printed
MOST_JSON = 32 << 20  # bytes of what is handed back; Python needs twenty times as many for it
NO_MEMORY = re.compile(r"bad_alloc|MemoryError|[Cc]annot allocate memory|not enough memory")


@dataclass(frozen=True)
class Limits:
    """Of a child process.

    Attributes:
        seconds: of the clock; None: none.
        memory: bytes that it may hold (Linux).
        file: bytes of a file that it may write.
        output: bytes that it may print.
        go_on: whether it goes on where it prints more, which is left out then, but for its end; else it is stopped.
        grace: seconds that it has after a Ctrl-C to hand back what it has observed; 0: none, and KeyboardInterrupt is raised.
        observed: bytes that it may hand back.
        processes: further processes and threads (Linux, not for root).
    """

    seconds: float | None = 90
    memory: int = 6 << 30
    file: int = 1 << 30
    output: int = 32 << 20
    go_on: bool = False
    grace: float = 0
    observed: int = 1 << 30
    processes: int = 2048


def run_child(
    task: dict[str, Any],
    limits: Limits = Limits(),
    on_text: Callable[[str], object] | None = None,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Do a task in a fresh Python process, and return what it has observed.

    Args:
        task: JSON values; ``name`` says which of `unroll.labs.child.entry.TASKS`.
        on_text: is called with what the child prints, as it comes, from another thread.
        folder: is used for what is written on the way, and stays; None: a temporary one.

    Returns:
        What the task's function returned: dictionaries and lists of JSON values and numpy arrays. Where the child has not
        come to that, ``{"child": {"reason", "message", "printed"}}``: reason is ``time``, ``memory``, ``output``, ``ended``
        (it ended itself), ``interrupted`` (by Ctrl-C, with `Limits.grace`), ``killed``, ``crashed``, ``damaged``,
        ``unwritten`` or ``error``; message says it in a sentence.

    Raises:
        InputError: the task's function raised it: what the student gave does not fit.
    """
    place = Path(tempfile.mkdtemp(prefix="unroll-lab-")) if folder is None else folder
    try:
        with ended_by_signals():
            return follow(Child(place), task, limits, on_text)
    finally:
        if folder is None:
            shutil.rmtree(place, ignore_errors=True)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let a terminal that is closed, or a kill, clean up as Ctrl-C does: the child ends, and no folder stays."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    kept: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGTERM", "SIGHUP"):
            if (number := getattr(signal, name, None)) is not None and signal.getsignal(number) == signal.SIG_DFL:
                kept[number] = signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def surroundings_of(place: str) -> dict[str, str]:
    """The variables that a child's environment has in any case; `place` is for what is temporary."""
    return {
        "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "Agg", "TMPDIR": place, "TEMP": place, "TMP": place,
        "PYTHONIOENCODING": "utf-8:backslashreplace", "PYTHONUNBUFFERED": "1", "PIP_NO_INDEX": "1", "PYTHONWARNINGS": "",
        "PYTHONHASHSEED": "0", "PYTHONFAULTHANDLER": "",
    }  # fmt: skip


# -P: modules that lie in the working folder are not taken for those that we import.
ENTRY = ("-P", "-m", "unroll.labs.child.entry")


class Child:
    """A child process that has begun, and what differs between one in a sandbox and this one, which is in none.

    Attributes:
        process: with a pipe to its stdin, and one from its stdout and stderr.
        task: what its task has beside what was asked for.
    """

    process: subprocess.Popen[bytes]
    task: dict[str, Any]

    def __init__(self, place: Path) -> None:
        """Begin; `place` is a folder for what is written on the way."""
        self._place = place
        inner = place / "temporary"
        inner.mkdir()
        own: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            own = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        self.process = subprocess.Popen(
            [sys.executable, *ENTRY, str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **surroundings_of(str(inner))},
            **own,
        )
        self.task = {"parent": os.getpid(), "pipe": None}

    def interrupt(self) -> bool:
        """Hand a Ctrl-C on; False where there is nothing to wait for."""
        if not (self._place / NOTES).is_file() or not hasattr(os, "killpg"):  # the student's file has not begun
            return False
        os.kill(self.process.pid, signal.SIGINT)
        return True

    def too_large(self) -> bool:
        """Whether it holds more memory than it may, by a look from outside."""
        return False

    def end(self) -> None:
        """Kill it with what it has started: of that, its supervisor knows more than its group."""
        end = time.monotonic() + PATIENCE
        with suppress(OSError):
            if sys.platform == "linux":
                os.kill(self.process.pid, signal.SIGTERM)
                while not _has_ended(self.process) and time.monotonic() < end:
                    time.sleep(0.002)
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()

    def status(self) -> int:
        """As `subprocess.Popen.returncode`, once it has ended."""
        return self.process.wait()

    def content(self, most: int) -> bytes | None:
        """What it has handed back, once it has ended, up to `most` + 1 bytes; None: nothing."""
        path = self._place / OBSERVED
        if path.is_symlink() or not path.is_file():
            return None
        with path.open("rb") as file:
            return file.read(most + 1)


def follow(
    child: Child, task: dict[str, Any], limits: Limits, on_text: Callable[[str], object] | None
) -> dict[str, Any]:
    """Tell a child process its task, wait for its end or bring it about, and return what it has observed: see `run_child`."""
    nonce = secrets.token_hex(16)
    given = {"figures": False, **task, **child.task, "limits": asdict(limits), "nonce": nonce}
    printed = _Reader(child.process, limits, on_text)
    why: str | None = None
    try:
        try:
            with suppress(BrokenPipeError), child.process.stdin as stdin:  # type: ignore[union-attr]
                stdin.write(json.dumps(given).encode())
            why = _wait(child, limits.seconds, printed)
        except KeyboardInterrupt:
            if not limits.grace:
                raise
            why = "interrupted"
            with suppress(KeyboardInterrupt, OSError):  # a second Ctrl-C ends it at once
                if child.interrupt():
                    _wait(child, limits.grace, printed)
    finally:
        child.end()  # and whatever it has started
        status = child.status()
        printed.join()
    if printed.full:
        return _ended("output", f"it printed more than {limits.output >> 20} MB, and was stopped", printed)
    if why == "time":
        return _ended("time", f"it was stopped after {limits.seconds:g} seconds", printed)
    if why == "memory":
        return _ended("memory", f"it held more memory than it may have ({limits.memory / (1 << 30):g} GB)", printed)
    content = child.content(len(nonce) + limits.observed)
    _, found, content = (content or b"").partition(nonce.encode())
    if not found:  # what was written there is not of our own
        return _ended("interrupted", "it was interrupted", printed) if why else _why(status, limits, printed)
    try:
        observed = read_observed(content, limits.observed)
    except Exception as error:
        return _ended("damaged", f"what it handed back cannot be read: {error}", printed)
    inner = observed.get("child")
    if isinstance(inner, dict) and inner.get("reason") == "input":
        raise InputError(str(inner.get("message")))
    return observed


def _wait(child: Child, seconds: float | None, printed: _Reader) -> str | None:
    """Until it ends or has printed too much; ``time`` or ``memory`` where it has not come to that within its limits.

    Without reaping it where the system can tell, so that its number stays its own until it is killed.
    """
    end = None if seconds is None else time.monotonic() + seconds
    pause = 0.005
    while not _has_ended(child.process) and not printed.full:
        if end is not None and time.monotonic() > end:
            return "time"
        if child.too_large():
            return "memory"
        printed.stopped.wait(pause)
        pause = min(pause * 1.5, 0.05)
    return None


def _has_ended(child: subprocess.Popen[bytes]) -> bool:
    if hasattr(os, "waitid"):
        return os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return child.poll() is not None


def _why(code: int, limits: Limits, printed: _Reader) -> dict[str, Any]:
    if NO_MEMORY.search(printed.text):
        return _ended(
            "memory", f"it asked for more memory than it may have ({limits.memory / (1 << 30):g} GB)", printed
        )
    if code == UNWRITTEN:
        return _ended("unwritten", "what was observed could not be written; is the disk full?", printed)
    if code >= 0:
        return _ended(
            "ended", f"it ended its own process (exit status {code}), so that nothing can be said of it", printed
        )
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        return _ended("killed", "its process was killed; perhaps the machine has too little memory", printed)
    if name == "SIGXCPU":
        return _ended("time", "it used more time of the processor than it may", printed)
    return _ended("crashed", f"its process crashed ({name})", printed)


def _ended(reason: str, message: str, printed: _Reader) -> dict[str, Any]:
    return {"child": {"reason": reason, "message": message, "printed": printed.text}}


class _Reader:
    """Reads what a child prints, so that it never waits for a full pipe."""

    def __init__(self, child: subprocess.Popen[bytes], limits: Limits, on_text: Callable[[str], object] | None) -> None:
        self.full = False
        self.text = ""
        self.stopped = threading.Event()
        self._child, self._limits, self._on_text = child, limits, on_text
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        stream: Any = self._child.stdout
        decode = codecs.getincrementaldecoder("utf-8")("replace").decode
        count, shown, most = 0, 0, self._limits.output
        while content := stream.read1(1 << 16):
            count += len(content)
            text = decode(content)
            self.text = (self.text + text)[-KEPT:]
            if count <= most:
                shown = count
                self._hand_on(text)
            elif not self._limits.go_on:
                self.full = True
                break
            elif count - len(content) == shown:
                self._hand_on(
                    f"\n[more than {most >> 20} MB were printed; what follows is left out, but for its end]\n"
                )
        if count > shown and not self.full:
            self._hand_on(self.text[-(count - shown) :])
        self.stopped.set()

    def _hand_on(self, text: str) -> None:
        if self._on_text is not None:
            with suppress(Exception):
                self._on_text(text)

    def join(self) -> None:
        """Wait for the end of the output; not for long, since what has left the child's group may hold it open."""
        self._thread.join(5)
        if not self._thread.is_alive():
            self._child.stdout.close()  # type: ignore[union-attr]


def read_observed(content: bytes, most: int) -> dict[str, Any]:
    """What `unroll.labs.child.entry.packed` made into bytes.

    Raises:
        ValueError: it is more than `most` bytes, damaged, or not of this form.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if len(content) > most:
        raise ValueError(f"it has more than {most:,} bytes")
    end = LENGTH + int.from_bytes(content[:LENGTH], "little")
    if len(content) < end:
        raise ValueError("it is cut short")
    if end > MOST_JSON:
        raise ValueError(f"it has more than {MOST_JSON:,} bytes beside its arrays")
    try:
        arrays = load(content[end:])  # checks every shape against the bytes that are there
        observed = _arrays(json.loads(content[LENGTH:end]), arrays)
    except (SafetensorError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"it is damaged ({type(error).__name__})") from None
    if not isinstance(observed, dict):
        raise ValueError("it is no dictionary")
    return observed


def _arrays(value: Any, arrays: dict[str, Any]) -> Any:
    if isinstance(value, dict):
        if ARRAY in value:
            return arrays[value[ARRAY]]
        return {name: _arrays(inner, arrays) for name, inner in value.items()}
    if isinstance(value, str):  # half a pair of surrogates cannot be written again
        return value.encode(errors="replace").decode()
    return [_arrays(inner, arrays) for inner in value] if isinstance(value, list) else value
