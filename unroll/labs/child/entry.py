"""The child process in which a student's file runs: ``python -P -m unroll.labs.child.entry FOLDER``.

FOLDER holds ``task.json``; what the task's function returns is written there as ``observed.safetensors`` (its arrays) and
``observed.json`` (the rest), which is written last. What a run has seen so far stands in ``notes.jsonl``, for one that does not
come to its end.
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

from unroll.errors import UnrollError
from unroll.files import write_atomically
from unroll.labs.child.supervise import supervise

TASKS = {
    "check": ("unroll.labs.check", "observe"),
    "run": ("unroll.labs.child.observe_run", "observe_run"),
    "predict": ("unroll.labs.child.predict", "predict"),
    "pdf": ("unroll.labs.child.read_pdf", "read_pdf"),
}
TASK, ARRAYS, OBSERVED, NOTES = "task.json", "observed.safetensors", "observed.json", "notes.jsonl"
UNWRITTEN = 74  # the exit status where the disk takes nothing more (sysexits: EX_IOERR)
ARRAY = "\0array"  # no name in Python has a zero byte


def main(folder: Path) -> None:
    """Do the task in a folder, and end the process at once, whatever the student's file has left running."""
    task = json.loads((folder / TASK).read_text(encoding="utf-8"))
    supervise(task.pop("parent"))
    limit(task.pop("limits"))
    try:
        module, function = TASKS[task["name"]]
        result = getattr(importlib.import_module(module), function)({**task, "folder": str(folder)})
    except UnrollError as error:
        result = {"child": {"reason": "input", "message": str(error)}}
    except BaseException as error:
        text = traceback.format_exc(limit=-8)
        result = {"child": {"reason": "error", "message": f"{type(error).__name__}: {error}", "trace": text}}
    try:
        hand_back(folder, result)
    except OSError:
        os._exit(UNWRITTEN)
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()
    os._exit(0)


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
        bounds["RLIMIT_NPROC"] = _tasks_of_user() + limits["processes"]  # counts the user's, and does not bind root
    for name, value in bounds.items():
        number = getattr(resource, name)
        hard = resource.getrlimit(number)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with suppress(ValueError, OSError):
            resource.setrlimit(number, (value, value))


def _tasks_of_user() -> int:
    count, user = 0, os.getuid()
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == user:
                count += len(os.listdir(entry / "task"))
    return count


def hand_back(folder: Path, observed: dict[str, Any]) -> None:
    """Write what was observed: nested dictionaries and lists of JSON values, and numpy arrays or tensors of numbers.

    Raises:
        TypeError: it holds something else.
    """
    from safetensors.numpy import save

    arrays: dict[str, Any] = {}
    text = json.dumps(_plain(observed, arrays))
    write_atomically(folder / ARRAYS, save(arrays))
    write_atomically(folder / OBSERVED, text)


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
