"""A process between the one that asked for a student's file to be run and the one that runs it (Linux).

It inherits whatever the file has started and left, in sessions of their own too, and ends all of it when the file has ended,
when it is told to (SIGTERM), or when the process that asked is gone.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

ENDS_WITH_PARENT, ADOPTS = 1, 36  # PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER
ROUNDS = 2000  # of killing what is left, should it start processes meanwhile
PAUSE = 0.002  # seconds between them


def supervise(parent: int) -> None:
    """Return in a new process, and watch over it in this one, which then ends as the new one ended. Elsewhere: return at once."""
    if sys.platform != "linux":
        return
    import ctypes
    import resource

    control = ctypes.CDLL(None).prctl
    if control(ADOPTS, 1, 0, 0, 0) != 0:
        return
    heard = {signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGCHLD}
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    control(ENDS_WITH_PARENT, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(1)
    supervisor = os.getpid()
    worker = os.fork()
    if worker == 0:
        control(ENDS_WITH_PARENT, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if os.getppid() != supervisor:
            os._exit(1)
        return
    status: int = signal.SIGKILL  # as `os.waitpid` tells it
    try:
        status = _watch(worker, heard, status)
    finally:
        _end_all()
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            with suppress(OSError, ValueError):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
            os.kill(supervisor, number)
        os._exit(os.WEXITSTATUS(status))


def _watch(worker: int, heard: set[signal.Signals], otherwise: int) -> int:
    """The status that a process ends with; `otherwise` where this one is told to end before. Ctrl-C is handed on."""
    while True:
        told = signal.sigwait(heard)
        if told == signal.SIGINT:
            with suppress(OSError):
                os.kill(worker, signal.SIGINT)
        elif told != signal.SIGCHLD:
            return otherwise
        for process, status in _ended():
            if process == worker:
                return status


def _ended() -> list[tuple[int, int]]:
    """The children that have ended, with their status."""
    found = []
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found.append(ended)
    return found


def _end_all() -> None:
    """Kill all that descends from this process; what loses its parent becomes a child of this one."""
    for _ in range(ROUNDS):
        left = descendants(os.getpid())
        if not left:
            return
        for process in left:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
        time.sleep(PAUSE)
        _ended()


def descendants(root: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError, ValueError):
                # pid (name, with any characters) state parent …
                above = int((entry / "stat").read_bytes().rpartition(b")")[2].split()[1])
                children.setdefault(above, []).append(int(entry.name))
    found, look = [], [root]
    while look:
        below = children.get(look.pop(), [])
        found += below
        look += below
    return found
