"""Where a hand-in runs: a fresh process that sees an empty home and its own file, has no network, and hands back data only.

`Bubblewrap` is the first choice. A program that runs in it finds no folder of this machine that it could write into, and of
those it can read only the system's and the package's. The result comes through a pipe; whatever runs in it ends with it.
docs/reliability.md says what this promises and what it does not.
"""

from __future__ import annotations

import json
import os
import platform
import select
import shutil
import signal
import site
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import unroll
from unroll.data.images import PACKAGED
from unroll.errors import InputError, shortened
from unroll.labs.child.entry import tasks_of_user
from unroll.labs.child.supervise import descendants
from unroll.labs.grade.system_calls import refused_calls
from unroll.labs.process import ENTRY, PATIENCE, Child, Limits, ended_by_signals, follow, run_child, surroundings_of
from unroll.terminal import printable

SUBMISSION = Path("/submission")
FOLDER = "/tmp/lab"  # of the child, in the sandbox
FONTS = "/tmp/matplotlib"
USERS = 61000, 500  # the first, and how many, of the users that root gives a process to
NOBODY = 65534
SHARED = 256 << 20  # bytes of /dev/shm
FLOOR = 256 << 20  # bytes of memory that the machine must have left
LOOK = 0.1  # seconds between two looks at the memory
TRIAL = 60  # seconds for the trial of a sandbox
OLD_KERNEL = 5, 14  # from here on, a user namespace counts its own processes
SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
SETTINGS = ("/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime", "/etc/fonts")
IMAGE = "UNROLL_LAB_IMAGE"
HELP = (
    "install bubblewrap (apt install bubblewrap, or dnf install bubblewrap), or Docker or Podman (docs/labs/sandbox.md); "
    "--unsafe-no-sandbox runs files of your own without one"
)
NAMESPACES = (
    "this system keeps user namespaces from you; run it as root, or allow them: docs/labs/sandbox.md says how, for "
    "Ubuntu's AppArmor, for Debian and for containers"
)

OnText = Callable[[str], object] | None


class Sandbox(Protocol):
    """Where a hand-in runs."""

    name: str

    def run(
        self,
        task: dict[str, Any],
        files: Mapping[str, bytes],
        limits: Limits,
        slot: int = 0,
        on_text: OnText = None,
        labels: bool = True,
    ) -> dict[str, Any]:
        """Do a task in a fresh process, and return what it has observed; see `unroll.labs.process.run_child`.

        Args:
            task: as there; ``file`` names one of the files by its path in `SUBMISSION`.
            files: what lies there, read-only, by name.
            limits: without `grace`. Of `file` bytes are all temporary files together, too. `memory` holds for each process,
                and for all of them together.
            slot: two that run at once have two of these.
            on_text: as there.
            labels: whether the labels of the images can be read; else their files are empty.

        Returns:
            As there, and ``pictures``: the bytes of the figures of a run as uint8 arrays, by name, as the file drew them.

        Raises:
            InputError: as there.
        """
        ...


def find_sandbox(unsafe: bool = False) -> Sandbox:
    """The best sandbox that works here; with `unsafe`, none at all.

    Raises:
        InputError: there is none; it says how to get one.
    """
    if unsafe:
        return Unsandboxed()
    faults = []
    for name in ("bwrap", "docker", "podman"):
        program = shutil.which(name)
        if program is None or (name == "bwrap" and sys.platform != "linux"):
            continue
        found = Bubblewrap(program) if name == "bwrap" else Container(program)
        fault = found.fault()
        if fault is None:
            return found
        faults.append(f"{name}: {fault}")
    why = "; ".join(shortened(printable(fault), 200) for fault in faults[:1])
    raise InputError(f"there is no sandbox for the hand-ins{f' ({why})' if why else ''}: {HELP}")


class Unsandboxed:
    """No sandbox: a child process with the rights of who started it."""

    name = "none"

    def run(
        self,
        task: dict[str, Any],
        files: Mapping[str, bytes],
        limits: Limits,
        slot: int = 0,
        on_text: OnText = None,
        labels: bool = True,
    ) -> dict[str, Any]:
        """See `Sandbox.run`; the labels can be read in any case."""
        with tempfile.TemporaryDirectory(prefix="unroll-lab-", ignore_cleanup_errors=True) as place:
            for name, content in _checked(files).items():
                (Path(place) / name).write_bytes(content)
            if "file" in task:
                task = {**task, "file": str(Path(place) / Path(task["file"]).name)}
            return run_child({**task, "figures": True}, limits, on_text)


class Bubblewrap:
    """bubblewrap 0.8 or later. As root it gives the process to a user without rights; else it works in a user namespace."""

    name = "bubblewrap"

    def __init__(self, program: str) -> None:
        self._program = program
        self._root = os.geteuid() == 0
        self._namespaces, self._tree = self._arguments(), _tree()
        self._fonts = _fonts()

    def fault(self) -> str | None:
        """Why it does not work here, by a trial; None: it does."""
        probe = "import importlib.util as u; print(all(map(u.find_spec, ('unroll', 'torch', 'encodings'))))"
        command = [*self._command(Limits(), 0, []), sys.executable, "-I", "-c", probe]
        try:
            tried = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env={}, timeout=TRIAL)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if tried.stdout.strip() == b"True":
            return None
        said = tried.stderr.decode(errors="replace").strip().replace("bwrap: ", "").split("\n")[-1]
        if "nknown option" in said:
            return f"{said}; 0.8 or later is needed"
        if any(word in said for word in ("uid map", "namespace", "RTM_NEWADDR", "Operation not permitted")):
            return f"{said}; {NAMESPACES}"
        return said or "Python and its packages cannot be seen in it"

    def run(
        self,
        task: dict[str, Any],
        files: Mapping[str, bytes],
        limits: Limits,
        slot: int = 0,
        on_text: OnText = None,
        labels: bool = True,
    ) -> dict[str, Any]:
        """See `Sandbox.run`."""
        if not self._root and _kernel() < OLD_KERNEL:
            limits = replace(limits, processes=limits.processes + tasks_of_user())
        with ended_by_signals(), ExitStack() as stack:
            given = [(str(SUBMISSION / name), content) for name, content in _checked(files).items()]
            if self._fonts is not None:
                given.append(self._fonts)
            arguments, handles = [], []
            for place, content in given:
                handles.append(_held(content, stack))
                arguments += ["--perms", "0444", "--file", str(handles[-1]), place]
            for path in () if labels else _label_files():
                handles.append(_held(b"", stack))
                arguments += ["--perms", "0444", "--ro-bind-data", str(handles[-1]), str(path)]
            if (refused := refused_calls()) is not None:
                handles.append(_held(refused, stack))
                arguments += ["--seccomp", str(handles[-1])]
            child = _Boxed(self._command(limits, slot, arguments), handles, limits)
            return follow(child, task, limits, on_text)

    def _arguments(self) -> list[str]:
        """What it shares with the rest of the machine: nothing; and with which rights it begins."""
        found = ["--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
        found += ["--die-with-parent", "--new-session", "--clearenv", "--hostname", "lab"]
        if self._root:
            # No user namespace: it would hold no second user. The three that are left are for `setpriv`, which drops them.
            found += ["--cap-drop", "ALL"]
            for capability in ("SETUID", "SETGID", "SETPCAP"):
                found += ["--cap-add", f"CAP_{capability}"]
        else:
            found += ["--unshare-user", "--disable-userns", "--uid", str(NOBODY), "--gid", str(NOBODY)]
        return found

    def _command(self, limits: Limits, slot: int, arguments: list[str]) -> list[str]:
        found = [self._program, *self._namespaces, "--proc", "/proc", "--dev", "/dev"]
        for place, size in (("/dev/shm", SHARED), ("/tmp", limits.file)):
            found += ["--perms", "1777", "--size", str(size), "--tmpfs", place]
        found += [*self._tree, "--perms", "0777", "--dir", FONTS, *arguments]
        found += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]
        for name, value in _environment().items():
            found += ["--setenv", name, value]
        if self._root:
            user = str(USERS[0] + slot % USERS[1])
            found += ["setpriv", "--reuid", user, "--regid", user, "--clear-groups"]
            found += ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
        return found


class _Boxed(Child):
    """A child process in bubblewrap."""

    def __init__(self, command: list[str], handles: list[int], limits: Limits) -> None:
        self._memory, self._next = limits.memory, 0.0
        self._result = _Result(limits.observed)
        info, told = os.pipe()
        command = [command[0], "--info-fd", str(told), *command[1:], sys.executable, *ENTRY, FOLDER]
        self._init: int | None = None  # the first process in it; with this one, the kernel ends all others
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={},  # the first process in it would show this one's
                pass_fds=[*handles, told, self._result.told],
                start_new_session=True,
            )
        finally:
            os.close(told)
            self._result.begin()
            with open(info, "rb") as file, suppress(ValueError, KeyError, OSError):
                self._init = os.pidfd_open(json.loads(file.read())["child-pid"])
        self.task = {"parent": None, "pipe": self._result.told, "figures": True}

    def interrupt(self) -> bool:
        return False

    def too_large(self) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + LOOK
        processes = descendants(self.process.pid)
        return _resident(processes) > self._memory < _held_by(processes) or _available() < FLOOR

    def end(self) -> None:
        if self._init is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init, signal.SIGKILL)
            select.select([self._init], [], [], PATIENCE)  # it has ended when all the others have
            os.close(self._init)
            self._init = None
        with suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def status(self) -> int:
        return _status(self.process.wait())

    def content(self, most: int) -> bytes | None:
        return self._result.read()


class Container:
    """Docker or Podman, with an image that holds the package; see docs/labs/sandbox.md."""

    def __init__(self, program: str) -> None:
        self._program = program
        self.name = Path(program).name
        self._image = os.environ.get(IMAGE, "unroll-lab")
        self._labels: list[str] = []

    def fault(self) -> str | None:
        """Why it does not work here, by a trial; None: it does."""
        probe = "from unroll.labs.grade.sandbox import _label_files as f; print(*f(), sep='\\n')"
        for arguments in (["info"], ["run", "--rm", "--network", "none", self._image, "python", "-c", probe]):
            try:
                tried = subprocess.run(
                    [self._program, *arguments], capture_output=True, stdin=subprocess.DEVNULL, timeout=TRIAL
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                return str(error)
            if tried.returncode:
                said = tried.stderr.decode(errors="replace").strip().split("\n")[-1]
                return f"{said} (image {self._image}; another by {IMAGE})" if arguments[0] == "run" else said
        self._labels = tried.stdout.decode().split("\n")[:-1]
        return None

    def run(
        self,
        task: dict[str, Any],
        files: Mapping[str, bytes],
        limits: Limits,
        slot: int = 0,
        on_text: OnText = None,
        labels: bool = True,
    ) -> dict[str, Any]:
        """See `Sandbox.run`."""
        with ended_by_signals(), tempfile.TemporaryDirectory(prefix="unroll-lab-") as place:
            folder = Path(place) / "submission"
            folder.mkdir()
            for name, content in _checked(files).items():
                (folder / name).write_bytes(content)
                (folder / name).chmod(0o444)
            os.chmod(place, 0o755)  # the user in the container is another one
            os.chmod(folder, 0o755)
            name = f"unroll-lab-{os.path.basename(place)[-8:]}-{os.getpid()}-{slot}"
            child = _Contained(
                [self._program, "run", "--name", name], self._options(folder, limits, slot, labels), limits
            )
            return follow(child, task, limits, on_text)

    def _options(self, folder: Path, limits: Limits, slot: int, labels: bool) -> list[str]:
        user = USERS[0] + slot % USERS[1]
        found = ["--rm", "--interactive", "--network", "none", "--read-only", "--cap-drop", "ALL"]
        found += ["--security-opt", "no-new-privileges", "--pids-limit", str(limits.processes + 16)]
        found += ["--memory", str(limits.memory), "--memory-swap", str(limits.memory), "--user", f"{user}:{user}"]
        found += ["--tmpfs", f"/tmp:rw,nosuid,nodev,mode=1777,size={limits.file}", "--shm-size", str(SHARED)]
        found += ["--hostname", "lab", "--workdir", "/tmp", "--volume", f"{folder}:{SUBMISSION}:ro"]
        for path in () if labels else self._labels:
            found += ["--volume", f"{os.devnull}:{path}:ro"]
        for variable, value in _environment().items():
            if variable != "PATH":  # the image's own
                found += ["--env", f"{variable}={value}"]
        # Docker hands on no pipe but these three: the result takes the place of stderr, what is printed that of stdout.
        return [*found, self._image, "sh", "-c", f"exec python {' '.join(ENTRY)} {FOLDER} 3>&2 2>&1"]


class _Contained(Child):
    """A child process in a container."""

    def __init__(self, command: list[str], options: list[str], limits: Limits) -> None:
        self._program, self._name = command[0], command[-1]
        self._result = _Result(limits.observed)
        try:
            self.process = subprocess.Popen(
                [*command, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._result.told
            )
        finally:
            self._result.begin()
        self.task = {"parent": None, "pipe": 3, "figures": True}

    def interrupt(self) -> bool:
        return False

    def end(self) -> None:
        with suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                [self._program, "rm", "--force", self._name],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=TRIAL,
            )  # fmt: skip
        with suppress(OSError):
            self.process.kill()

    def status(self) -> int:
        return _status(self.process.wait())

    def content(self, most: int) -> bytes | None:
        return self._result.read()


class _Result:
    """Reads what a child hands back through a pipe, up to a number of bytes; then it closes the pipe.

    Attributes:
        told: the end that the child writes to.
    """

    def __init__(self, most: int) -> None:
        self._most = most + 4096  # more than a nonce
        self._pipe, self.told = os.pipe()
        self._content = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)

    def begin(self) -> None:
        """Once the child holds its end."""
        os.close(self.told)
        self._thread.start()

    def _read(self) -> None:
        with open(self._pipe, "rb", buffering=0) as file:
            while len(self._content) <= self._most and (part := file.read(1 << 20)):
                self._content += part

    def read(self) -> bytes | None:
        """All of it, once the child has ended; None: nothing."""
        self._thread.join(PATIENCE)
        return bytes(self._content) or None


def _status(code: int) -> int:
    """A status as `subprocess` tells it, from one that a program has passed on as a shell does."""
    return 128 - code if code > 128 else code


def _checked(files: Mapping[str, bytes]) -> Mapping[str, bytes]:
    for name in files:
        if not name or name in (".", "..") or "/" in name or "\0" in name:
            raise InputError(f"a file for the sandbox is called {name!r}; expected a plain name")
    return files


def _held(content: bytes, stack: ExitStack) -> int:
    """A file in memory, open at its beginning."""
    handle = os.memfd_create("unroll-lab")
    stack.callback(os.close, handle)
    with open(handle, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(handle, 0, os.SEEK_SET)
    return handle


def _folders() -> list[Path]:
    """Where Python and its packages lie, outside /usr.

    Raises:
        InputError: one of them holds the home of who calls.
    """
    found = {Path(sys.prefix), Path(sys.base_prefix), *map(Path, unroll.__path__)}
    if site.ENABLE_USER_SITE and site.USER_BASE:
        found.add(Path(site.USER_BASE) / "lib")
    found |= {folder.resolve() for folder in found}
    for folder in found:
        if Path.home().resolve().is_relative_to(folder):
            raise InputError(
                f"Python is installed in {folder}, which the sandbox cannot show; make an environment by venv"
            )
    outer = [Path("/usr"), *found]
    return sorted(
        f for f in found if f.is_dir() and not any(f != o and f.is_relative_to(o) for o in outer) and f != outer[0]
    )


def _tree() -> list[str]:
    """The folders that can be seen: the system's and the package's, read-only."""
    bound = [Path("/usr"), *_folders()]
    parents = {parent for folder in [*bound, Path("/etc/x")] for parent in folder.parents}
    found = []
    for parent in sorted(parents - {Path("/"), Path("/tmp")}):
        found += ["--perms", "0755", "--dir", str(parent)]
    for folder in bound:
        found += ["--ro-bind", str(folder), str(folder)]
    for name in SYSTEM:
        if os.path.islink(name):
            found += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            found += ["--ro-bind", name, name]
    for name in SETTINGS:
        found += ["--ro-bind-try", name, name]
    return [*found, "--perms", "0755", "--dir", str(SUBMISSION)]


def _label_files() -> list[Path]:
    return sorted(PACKAGED.glob("*labels*"))


def _environment() -> dict[str, str]:
    found = {
        **surroundings_of("/tmp"), "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "USER": "student",
        "LOGNAME": "student", "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": FONTS, "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    if site.ENABLE_USER_SITE and site.USER_BASE:
        found["PYTHONUSERBASE"] = site.USER_BASE
    return found


def _fonts() -> tuple[str, bytes] | None:
    """matplotlib's list of fonts, with which it starts in a moment; None where there is none."""
    try:
        import matplotlib
        from matplotlib.font_manager import FontManager

        name = f"fontlist-v{FontManager.__version__}.json"
        return f"{FONTS}/{name}", (Path(matplotlib.get_cachedir()) / name).read_bytes()
    except (ImportError, OSError):
        return None


def _kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2] if part.isdigit())


def _resident(processes: list[int]) -> int:
    """Bytes in memory, with what they share counted for each of them."""
    pages = 0
    for process in processes:
        with suppress(OSError, IndexError, ValueError):
            pages += int(Path(f"/proc/{process}/statm").read_bytes().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _held_by(processes: list[int]) -> int:
    """Bytes in memory, with what they share counted once."""
    found = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_bytes().split(b"\nPss:")
            found += int(lines[1].split()[0]) << 10
        except PermissionError:
            found += _resident([process])
        except (OSError, IndexError, ValueError):  # it has ended
            continue
    return found


def _available() -> int:
    """Bytes of memory that the machine has left."""
    for line in Path("/proc/meminfo").read_text().split("\n"):
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    return FLOOR
