"""The child process in which a student's file runs: ``python -P -m unroll.labs.child.entry FOLDER``.

Its task comes through stdin, which is empty afterwards, so that a student's file finds none of it. What the task's function
returns is handed back as one stream (see `packed`) behind the task's nonce: to the pipe that the task names, or else as
``observed`` in FOLDER. What a run has seen so far stands in ``notes.jsonl`` there, for one that does not come to its end.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from unroll.errors import UnrollError, shortened
from unroll.files import write_atomically
from unroll.labs.child.supervise import supervise

TASKS = {
    "check": ("unroll.labs.check", "observe"),
    "run": ("unroll.labs.child.observe_run", "observe_run"),
    "predict": ("unroll.labs.child.predict", "predict"),
    "pdf": ("unroll.labs.child.read_pdf", "read_pdf"),
}
OBSERVED, NOTES, FIGURES = "observed", "notes.jsonl", "figures"
UNWRITTEN = 74  # the exit status where the disk takes nothing more (sysexits: EX_IOERR)
ARRAY = "\0array"  # no name in Python has a zero byte
LENGTH = 8  # bytes, the lowest first


def main(folder: Path) -> None:
    """Do the task that stdin brings, and end the process at once, whatever the student's file has left running."""
    task = json.loads(sys.stdin.buffer.read())
    _empty_stdin()
    parent, nonce, pipe, figures = (task.pop(name) for name in ("parent", "nonce", "pipe", "figures"))
    if pipe is not None:
        os.set_inheritable(pipe, False)
    if parent is not None:
        supervise(parent)
    limits = task.pop("limits")
    limit(limits)
    folder.mkdir(exist_ok=True)
    importlib.import_module("safetensors.numpy")  # before the student's file has taken all the memory
    try:
        module, function = TASKS[task["name"]]
        result = getattr(importlib.import_module(module), function)({**task, "folder": str(folder)})
        if figures:
            result["pictures"] = _pictures(folder / FIGURES, limits["observed"] // 2)
    except UnrollError as error:
        result = {"child": {"reason": "input", "message": str(error)}}
    except BaseException as error:
        text = traceback.format_exc(limit=-8)
        result = {
            "child": {"reason": "error", "message": shortened(f"{type(error).__name__}: {error}", 400), "trace": text}
        }
    content = nonce.encode() + packed(result)
    try:
        if pipe is None:
            write_atomically(folder / OBSERVED, content)
        else:
            with open(pipe, "wb") as file:
                file.write(content)
    except OSError:
        os._exit(UNWRITTEN)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(0)


def _empty_stdin() -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)


def _pictures(folder: Path, most: int) -> dict[str, Any]:
    """The bytes of each file in a folder, by its name; none after those that have more than `most` bytes together."""
    import numpy as np

    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_symlink() or not path.is_file() or (most := most - path.stat().st_size) < 0:
            continue
        found[path.name] = np.frombuffer(path.read_bytes(), np.uint8)
    return found


def limit(limits: dict[str, Any]) -> None:
    """Bound this process and its children, where the system can (not on Windows; memory on Linux only)."""
    try:
        import resource
    except ImportError:
        return
    bounds = {"RLIMIT_CORE": 0, "RLIMIT_FSIZE": limits["file"]}
    if limits["seconds"] is not None:
        # For what outlives its parent; the parent looks at the clock.
        bounds["RLIMIT_CPU"] = int(limits["seconds"] * (os.cpu_count() or 1)) + 10
    if sys.platform == "linux":
        bounds["RLIMIT_DATA"] = limits["memory"]  # not addresses: torch reserves many that it never uses
        bounds["RLIMIT_NPROC"] = tasks_of_user() + limits["processes"]  # counts the user's, and does not bind root
    for name, value in bounds.items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(number, (value, value))


def tasks_of_user() -> int:
    """Processes and threads of this user, as far as they are seen from here."""
    count, user = 0, os.getuid()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == user:
                count += len(os.listdir(entry / "task"))
    return count


def packed(observed: dict[str, Any]) -> bytes:
    """What was observed as bytes: the length of its JSON, this, and the arrays as safetensors.

    Args:
        observed: nested dictionaries and lists of JSON values, and numpy arrays or tensors of numbers.

    Raises:
        TypeError: it holds something else.
    """
    from safetensors.numpy import save

    arrays: dict[str, Any] = {}
    text = json.dumps(_plain(observed, arrays)).encode()
    return len(text).to_bytes(LENGTH, "little") + text + bytes(save(arrays))


def _plain(value: Any, arrays: dict[str, Any]) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):  # classes of these that a student's file made, too
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, str):
        return str(value).encode(errors="replace").decode()
    if isinstance(value, dict):
        return {str(name).replace("\0", ""): _plain(inner, arrays) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(inner, arrays) for inner in value]
    import numpy as np

    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if str(value.dtype) == "torch.bfloat16" else value).numpy()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        name = str(len(arrays))
        arrays[name] = np.array(value.astype(value.dtype.newbyteorder("=")), order="C")
        return {ARRAY: name}
    raise TypeError(f"a child hands back JSON values and arrays of numbers, and not {type(value).__name__}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
