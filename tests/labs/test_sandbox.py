"""The sandbox, and the hostile files that it is there for; those that fake an accuracy belong to the tests of the training."""

from __future__ import annotations

import hashlib
import json
import os
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import unroll
from unroll.data.images import PACKAGED
from unroll.errors import InputError
from unroll.labs.child.supervise import descendants
from unroll.labs.grade import sandbox, system_calls
from unroll.labs.grade.sandbox import Bubblewrap, Container, Unsandboxed, find_sandbox
from unroll.labs.process import Limits

sys.path.insert(0, str(Path(__file__).parent))
from sandboxed import LIMITS, run

HOSTILE = Path(__file__).parent / "hostile"
BWRAP = shutil.which("bwrap")
BOX = Bubblewrap(BWRAP) if BWRAP and sys.platform == "linux" else None
FAULT = "bubblewrap is not installed" if BOX is None else BOX.fault()
needs_box = pytest.mark.skipif(FAULT is not None, reason=str(FAULT))
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can be another user")
SECRET = "canary-5309"
MARK = f"unroll-left-by-{os.getpid()}".encode()  # tests of another worker leave processes of their own
OWN = re.compile(r"READ /{1,2}submission/lab\.py|WROTE /tmp\b")  # what a file may have


def number(printed: str, word: str) -> int:
    """The number behind a word that a file printed."""
    return int(printed.split(word)[1].split()[0])


def nothing_got(seen: dict[str, Any], printed: str) -> None:
    """No word that a file prints where it got what it should not get."""
    for word in ("CONNECTED", "RESOLVED", "WROTE /", "OPENED", "CHANGED", "MADE a", "MOUNTED", "FOUND", "BECAME", "TAKEN",
                 "NAMESPACE", "TRACED", "ROOT", "KILLED", "FORGED': True", "STILL HERE", "READ /"):  # fmt: skip
        assert word not in OWN.sub("", printed)


def few(word: str) -> Callable[..., None]:
    def judge(seen: dict[str, Any], printed: str) -> None:
        assert 1 <= number(printed, word) <= LIMITS.processes

    return judge


def out_of_memory(seen: dict[str, Any], printed: str) -> None:
    assert number(printed, "HELD") <= LIMITS.memory >> 20


def disk(seen: dict[str, Any], printed: str) -> None:
    assert number(printed, "HOLDS") <= (LIMITS.file + sandbox.SHARED) >> 20


def large_file(seen: dict[str, Any], printed: str) -> None:
    assert number(printed, "SIZE") <= LIMITS.file
    assert "SPARSE" not in printed


def reads_files(seen: dict[str, Any], printed: str) -> None:
    nothing_got(seen, printed)
    assert "READ /submission/lab.py" in printed  # it did look


def reads_home(seen: dict[str, Any], printed: str) -> None:
    nothing_got(seen, printed)
    assert "HOME /tmp" in printed


def reads_processes(seen: dict[str, Any], printed: str) -> None:
    assert 1 <= number(printed, "PROCESSES") <= 3
    assert "pytest" not in printed


def reads_stdin(seen: dict[str, Any], printed: str) -> None:
    assert "STDIN b''" in printed
    assert "sha256" not in printed
    assert "nonce" not in printed


def becomes_root(seen: dict[str, Any], printed: str) -> None:
    nothing_got(seen, printed)
    assert f"USER ({sandbox.USERS[0]}, " in printed or f"USER ({sandbox.NOBODY}, " in printed
    for word in (
        "CapPrm:\t0000000000000000",
        "CapBnd:\t0000000000000000",
        "CapEff:\t0000000000000000",
        "NoNewPrivs:\t1",
    ):
        assert word in printed
    assert "Seccomp:\t2" in printed


def network(seen: dict[str, Any], printed: str) -> None:
    nothing_got(seen, printed)
    assert "['lo']" in printed or number(printed, "TRIED") > 60_000


def figures(seen: dict[str, Any], printed: str) -> None:
    assert "LAID" in printed
    assert {name: bytes(value) for name, value in seen["pictures"].items()} == {"22.png": b"no picture at all"}


def printed_words(*words: str) -> Callable[..., None]:
    def judge(seen: dict[str, Any], printed: str) -> None:
        nothing_got(seen, printed)
        assert all(word in printed for word in words)

    return judge


# name: why the child handed nothing back (None: it did; or one of several), other limits, and what else has to be true
Reason = str | None
CASES: dict[str, tuple[Reason | tuple[Reason, ...], dict[str, Any], Callable[..., None]]] = {
    "attributes_raise": ("error", {}, printed_words("SET")),
    "becomes_root": (None, {}, becomes_root),
    "deep_recursion": ("crashed", {}, nothing_got),
    "disk": (None, {}, disk),
    "endless_loop": ("time", {"seconds": 3}, nothing_got),
    "endless_output": ("output", {}, nothing_got),
    "endless_stubborn": ("time", {"seconds": 3}, nothing_got),
    "exits": ("ended", {}, printed_words("All tests passed")),
    "fake_results": ("ended", {}, nothing_got),
    "floods_results": ("ended", {}, nothing_got),
    "fork_bomb": (None, {}, few("FORKS")),
    "killed": ("killed", {}, nothing_got),
    "large_file": (None, {}, large_file),
    "large_results": ("damaged", {}, nothing_got),
    "memory": (("memory", "error", None), {}, out_of_memory),
    "memory_nobody_holds": (None, {}, printed_words("not permitted")),
    "memory_of_many": ("memory", {}, nothing_got),
    "memory_shared": ("memory", {}, nothing_got),
    "network_loopback": (None, {}, network),
    "network_out": (None, {}, network),
    "never_done": (None, {}, printed_words("END OF THE FILE")),
    "output_of_a_child": ("output", {}, nothing_got),
    "outlives": (None, {}, printed_words("LEFT 3")),
    "outlives_at_once": ("ended", {}, nothing_got),
    "reads_environment": (None, {}, printed_words("HOME")),
    "reads_files": (None, {}, reads_files),
    "reads_home": (None, {}, reads_home),
    "reads_processes": (None, {}, reads_processes),
    "reads_stdin": (None, {}, reads_stdin),
    "signals": (None, {}, printed_words("HERE")),
    "sleeps": ("time", {"seconds": 3}, nothing_got),
    "strange_figures": (None, {}, figures),
    "thread_bomb": (None, {}, few("THREADS")),
    "writes_outside": (None, {}, nothing_got),
}
OF_A_USER = (
    "fork_bomb", "becomes_root", "reads_environment", "reads_processes", "writes_outside", "network_loopback", "memory_shared",
)  # fmt: skip


@pytest.fixture
def canaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Secrets of the grader's: in the environment, in files, in another hand-in, in a command, and behind sockets."""
    monkeypatch.setenv("UNROLL_SECRET", SECRET)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("home/.secret", "home/.netrc", "graded/handin-2/lab.py", "grader.env", "secret.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(SECRET)
    wait = [sys.executable, "-S", "-c", "import time; time.sleep(120)", "unroll-victim", SECRET]
    victim = subprocess.Popen(wait, cwd=tmp_path)
    with socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX) as near:
        near.bind(f"\0unroll-secret-{victim.pid}")
        near.listen()
        yield victim
    victim.kill()
    victim.wait()


def test_every_hostile_file_is_tried() -> None:
    assert sorted(path.stem for path in HOSTILE.glob("*.py")) == sorted(CASES)
    assert len(CASES) >= 25


@needs_box
@pytest.mark.parametrize("name", CASES)
def test_sandbox_holds(name: str, canaries: subprocess.Popen[bytes]) -> None:
    reason, limits, judge = CASES[name]
    begin = time.monotonic()
    content = (HOSTILE / f"{name}.py").read_bytes().replace(b"unroll-left-behind", MARK)
    seen, printed = run(BOX, content, replace(LIMITS, **limits))
    assert descendants(os.getpid()) == [canaries.pid]
    assert canaries.poll() is None
    found = None if "child" not in seen else seen["child"]["reason"]
    assert found in (reason if isinstance(reason, tuple) else (reason,)), (seen.get("child"), printed[-1000:])
    assert SECRET not in printed + repr(seen)
    judge(seen, printed)
    assert not [path for path in ("/unroll-was-here", "/usr/unroll-was-here") if os.path.exists(path)]
    assert not list(Path(unroll.__file__).parent.glob("unroll-was-here"))
    assert not left_behind()
    assert time.monotonic() - begin < 59  # nothing ran to the end of its sixty seconds


def left_behind() -> list[bytes]:
    """Commands of processes that a hostile file has left, wherever they are now."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:
            continue
    return [command for command in found if MARK in command]


@needs_box
@as_root
def test_sandbox_holds_without_root(canaries: subprocess.Popen[bytes]) -> None:
    """The same files, given to a user without rights, who works in a user namespace."""
    shown: list[str] = []
    home = Path("/root")
    folders = [folder for folder in sandbox._folders() if folder.is_relative_to(home)]
    for parent in sorted({p for f in folders for p in f.parents if p != home and p.is_relative_to(home)}):
        shown += ["--perms", "0755", "--dir", str(parent)]
    for folder in folders:
        shown += ["--ro-bind", str(folder), str(folder)]
    # Where root's own home holds Python, another user would not find it.
    view = [str(BWRAP), "--dev-bind", "/", "/", "--perms", "0755", "--tmpfs", str(home), *shown]
    user = [
        "setpriv",
        "--reuid",
        "12345",
        "--regid",
        "12345",
        "--clear-groups",
        "--inh-caps=-all",
        "--bounding-set=-all",
    ]
    script = Path(__file__).with_name("sandboxed.py").read_text()
    files = [str(HOSTILE / f"{name}.py") for name in OF_A_USER]
    environment = {**os.environ, "HOME": "/nowhere", "MPLCONFIGDIR": "/tmp", "OMP_NUM_THREADS": "1"}
    command = [*view, *user, sys.executable, "-P", "-c", script, *files]
    ran = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/", timeout=200)
    if "namespace" in ran.stderr or "uid map" in ran.stderr:
        pytest.skip(f"a user gets no namespace here: {ran.stderr.strip()[-200:]}")
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert SECRET not in ran.stdout
    rows = [json.loads(line) for line in ran.stdout.splitlines()]
    for name, row in zip(OF_A_USER, rows, strict=True):
        reason, _, judge = CASES[name]
        found = None if row["child"] is None else row["child"]["reason"]
        assert found == reason, (name, row)
        judge(row, row["printed"])


@needs_box
def test_sandbox_gives_every_slot_a_user_and_every_run_an_empty_home() -> None:
    text = (
        b"import os\nprint(os.getuid(), os.listdir('/submission'), os.path.exists('/tmp/mine'))\nopen('/tmp/mine', 'w')"
    )
    printed = [run(BOX, text, slot=slot)[1] for slot in (0, 1, 1)]
    assert all("['lab.py'] False" in row for row in printed)
    if os.geteuid() == 0:
        assert [row.split()[0] for row in printed] == ["61000", "61001", "61001"]


@needs_box
def test_sandbox_hands_back_figures_and_values_as_data() -> None:
    text = textwrap.dedent("""
        import matplotlib.pyplot as plt
        loss_history = [3.0, 1.0]
        plt.plot(loss_history)
        plt.title("Loss")
        plt.show()
    """).encode()
    seen, printed = run(BOX, text)
    assert seen["outcome"]["error"] is None, printed
    assert [row["title"] for row in seen["figures"]] == ["Loss"]
    assert list(seen["pictures"]) == ["01.png"]
    assert seen["pictures"]["01.png"].dtype == np.uint8
    assert bytes(seen["pictures"]["01.png"]).startswith(b"\x89PNG")
    assert run(Unsandboxed(), text)[0]["pictures"].keys() == {"01.png"}


@needs_box
def test_sandbox_runs_the_check() -> None:
    content = sorted((Path(__file__).parent / "correct").glob("*.py"))[0].read_bytes()
    task = {"name": "check", "file": "/submission/a lab.py", "kind": "lstm", "cell": None}
    seen = BOX.run(task, {"a lab.py": content}, Limits(seconds=120))  # type: ignore[union-attr]
    assert seen["outcome"]["error"] is None
    assert "pictures" in seen


@needs_box
def test_sandbox_hides_the_labels_of_the_test_images_where_it_is_told_to() -> None:
    labels = [str(path) for path in sandbox._label_files()]
    assert labels
    assert all(str(PACKAGED) in path for path in labels)
    text = f"print([len(open(path, 'rb').read()) for path in {labels}])".encode()
    assert "[0" in run(BOX, text, labels=False)[1]
    assert "[0" not in run(BOX, text)[1]


@needs_box
def test_sandbox_says_what_does_not_fit() -> None:
    task = {"name": "run", "file": "/submission/lab.py", "sha256": "0" * 64, "seed": 0, "threads": 1}
    with pytest.raises(InputError, match="was changed just now"):
        BOX.run(task, {"lab.py": b"x = 1"}, LIMITS)  # type: ignore[union-attr]
    for name in ("../x.py", "a/b", "", ".", "..", "a\0b"):
        with pytest.raises(InputError, match="expected a plain name"):
            BOX.run(task, {name: b""}, LIMITS)  # type: ignore[union-attr]


@needs_box
def test_sandbox_ends_with_a_grader_that_is_killed(tmp_path: Path) -> None:
    text = b"import time\nprint('BEGUN', flush=True)\ntime.sleep(60)"
    script = Path(__file__).with_name("sandboxed.py").read_text().split("if __name__")[0]
    script += f"run(find_sandbox(), {text!r}, say=lambda text: print(text, flush=True))"
    grader = subprocess.Popen([sys.executable, "-P", "-c", script], stdout=subprocess.PIPE, cwd=tmp_path)
    assert grader.stdout is not None
    assert b"BEGUN" in grader.stdout.readline()
    inner = descendants(grader.pid)
    assert len(inner) >= 3  # bubblewrap, the first process in it, and the child
    watched = [os.pidfd_open(process) for process in inner]
    os.kill(grader.pid, signal.SIGKILL)
    grader.wait()
    for handle in watched:
        assert select.select([handle], [], [], 10)[0], "it has not ended"
        os.close(handle)
    grader.stdout.close()


# --- which one ------------------------------------------------------------------------------------------------------------------


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **texts: str) -> None:
    """Shell scripts as the only programs there are."""
    for name, text in texts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_sandbox_that_is_nowhere_is_asked_for_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(tmp_path, monkeypatch)
    with pytest.raises(InputError, match="apt install bubblewrap") as error:
        find_sandbox()
    for word in ("dnf install bubblewrap", "Docker", "--unsafe-no-sandbox"):
        assert word in str(error.value)
    assert "\n" not in str(error.value)
    assert find_sandbox(unsafe=True).name == "none"


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is for Linux")
@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("bwrap: setting up uid map: Permission denied", "keeps user namespaces from you"),
        ("bwrap: loopback: Failed RTM_NEWADDR: Operation not permitted", "AppArmor"),
        ("bwrap: Unknown option --disable-userns", "0.8 or later is needed"),
        ("bwrap: something \033[31melse", "something"),
    ],
)
def test_sandbox_that_does_not_work_says_why(
    said: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path, monkeypatch, bwrap=f"/bin/echo '{said}' >&2; exit 1", docker="/bin/echo no daemon >&2; exit 1")
    with pytest.raises(InputError, match=words) as error:
        find_sandbox()
    assert "--unsafe-no-sandbox" in str(error.value)
    assert "\033" not in str(error.value)


# A stand-in for docker: it notes what it is asked for, and runs the command that comes after the image on this machine.
DOCKER = """
/bin/echo "$@" >> "$(/usr/bin/dirname "$0")/asked"
case "$1" in info|rm) exit 0;; esac
while [ "$1" != unroll-lab ]; do shift; done
shift
[ "$1" = python ] && { /bin/echo /package/t10k-labels; exit 0; }
/bin/echo "WARNING: something of docker's own" >&2
eval "$(/bin/echo "$3" | /bin/sed -e 's#exec python#exec PYTHON#' -e 's#/tmp/lab#FOLDER#')"
"""


@pytest.mark.skipif(sys.platform == "win32", reason="a shell stands in for docker")
def test_container_is_closed_and_hands_back_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = DOCKER.replace("PYTHON", sys.executable).replace("FOLDER", str(tmp_path / "lab"))
    programs(tmp_path, monkeypatch, docker=stand_in)
    box = find_sandbox()
    assert isinstance(box, Container)
    content = b"import os\nprint('begun')"
    (tmp_path / "lab.py").write_bytes(content)
    task = {"name": "run", "file": str(tmp_path / "lab.py"), "sha256": hashlib.sha256(content).hexdigest(), "seed": 0}
    printed: list[str] = []
    seen = box.run(task | {"threads": 1, "small": True}, {"lab.py": content}, LIMITS, 3, printed.append, labels=False)
    assert seen["outcome"]["error"] is None
    assert "".join(printed) == "begun\n"
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.split()[0] for line in asked] == ["info", "run", "run", "rm"]
    for option in (
        "--rm", "--interactive", "--network none", "--read-only", "--cap-drop ALL", "--security-opt no-new-privileges",
        "--pids-limit 46", f"--memory {1 << 30}", f"--memory-swap {1 << 30}", "--user 61003:61003", "/submission:ro",
        "/dev/null:/package/t10k-labels:ro", f"size={64 << 20}",
    ):  # fmt: skip
        assert f" {option}" in asked[2] or f"{option} " in asked[2]
    assert asked[3].split()[-1] == asked[2].split()[2]


# --- the filter of system calls -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("machine", "column"), [("x86_64", 0), ("aarch64", 1)])
def test_system_calls_are_refused_by_number(machine: str, column: int) -> None:
    content = system_calls.refused_calls(machine)
    assert content is not None
    audit = system_calls.MACHINES[machine][1]
    refused, unknown = system_calls.REFUSE, system_calls.UNKNOWN

    def answer(number: int, first: int = 0, audit: int = audit) -> int:
        """What the filter returns, by the rules of the kernel's own machine for it."""
        data, place, value = {0: number, 4: audit, 16: first}, 0, 0
        steps = list(struct.iter_unpack("=HBBI", content or b""))
        while True:
            code, yes, no, constant = steps[place]
            place += 1
            if code == 0x06:
                return int(constant)
            if code == 0x20:
                value = data[constant]
            else:
                holds = {0x15: value == constant, 0x35: value >= constant, 0x45: bool(value & constant)}[code]
                place += yes if holds else no

    for numbers in system_calls.CALLS.values():
        assert answer(numbers[column]) == refused
    clone = system_calls.CLONE[column]
    assert [answer(clone, flags) for flags in (0x11, 0x3D0F00, 0x10000011)] == [0x7FFF0000, 0x7FFF0000, refused]
    assert answer(435) == unknown
    for number in ((0, 1, 9, 39, 57, 231), (29, 63, 64, 172, 222, 94))[column]:
        assert answer(number) == 0x7FFF0000
    assert answer(1, audit=0x40000003) == 0x80000000  # a program of another machine's
    assert system_calls.refused_calls("riscv64") is None
    if machine == "x86_64":
        assert answer(0x40000000 + 1) == refused
