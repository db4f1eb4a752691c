"""The child process: its limits, its ends, and what it hands back."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unroll.errors import InputError
from unroll.labs.child.entry import packed
from unroll.labs.process import Limits, read_observed, run_child
from unroll.labs.source import read_source


def run(folder: Path, text: str, **limits: Any) -> dict[str, Any]:
    path = folder / "lab.py"
    path.write_text(text, encoding="utf-8")
    task = {
        "name": "run",
        "file": str(path),
        "sha256": read_source(path).sha256,
        "seed": 0,
        "threads": 1,
        "small": True,
    }
    return run_child(task, Limits(**{"seconds": 60, **limits}))


def test_child_hands_back_nested_values_and_arrays() -> None:
    observed = {
        "a": [1, 2.5, None, True, "测\ud800", {"x": np.arange(6.0).reshape(2, 3).T}],
        "b": (np.float32(1.5), np.array(3), np.zeros((0, 2), bool)),
        "c": float("nan"),
    }
    found = read_observed(packed(observed), 1 << 20)
    assert found["a"][:5] == [1, 2.5, None, True, "测?"]
    assert np.array_equal(found["a"][5]["x"], observed["a"][5]["x"])
    assert found["b"][0] == 1.5
    assert found["b"][1].shape == ()
    assert found["b"][2].shape == (0, 2)
    assert np.isnan(found["c"])


def test_child_hands_back_no_objects() -> None:
    for value in (object(), np.array([object()]), b"bytes"):
        with pytest.raises(TypeError, match="JSON values"):
            packed({"a": value})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (packed({"a": np.zeros(1000)}), "more than 1,000 bytes"),
        (packed({"a": np.zeros(10)}).replace(b"[10]", b"[19]"), "damaged"),
        (packed({"a": np.zeros(10)})[:20], "cut short"),
        (b"", "damaged|cut short"),
        (bytes([100, 0, 0, 0, 0, 0, 0, 0]) + b"[" * 100, "damaged|Expecting"),
        (packed({})[8:], "cut short"),
    ],
)  # fmt: skip
def test_child_s_data_are_bounded_and_checked(content: bytes, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_observed(content, 1000)


def test_child_s_json_is_bounded_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unroll.labs.process.MOST_JSON", 100)
    with pytest.raises(ValueError, match="more than 100 bytes beside its arrays"):
        read_observed(packed({"a": "x" * 200}), 1000)
    assert read_observed(packed({"a": np.zeros(100)}), 1000)["a"].shape == (100,)


FORGED = """
import json, os, pathlib
place = pathlib.Path(os.environ["TMPDIR"]).parent
(place / "observed").write_bytes((2).to_bytes(8, "little") + b"{}" + (2).to_bytes(8, "little") + b"{}")
import posix
posix._exit(0)
"""


def test_child_s_results_are_not_taken_from_a_file_that_the_student_s_code_wrote(tmp_path: Path) -> None:
    child = run(tmp_path, FORGED)["child"]
    assert (child["reason"], child["message"][:24]) == ("ended", "it ended its own process")


@pytest.mark.parametrize(
    ("text", "limits", "reason", "words"),
    [
        ("import posix\nposix._exit(0)", {}, "ended", "exit status 0"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", {}, "crashed", "SIGSEGV"),
        ("while True:\n    pass", {"seconds": 6}, "time", "after 6 seconds"),
        ("while True:\n    print('x' * 100000)", {"output": 1 << 20}, "output", "more than 1 MB"),
    ],
)
def test_child_that_ends_otherwise_is_told_in_words(
    tmp_path: Path, text: str, limits: dict[str, Any], reason: str, words: str
) -> None:
    child = run(tmp_path, text, **limits)["child"]
    assert child["reason"] == reason
    assert words in child["message"]


def test_child_s_memory_is_bounded(tmp_path: Path) -> None:
    observed = run(tmp_path, "import numpy as np\nx = np.ones(1 << 30)", memory=2 << 30)
    assert "Memory" in observed["outcome"]["error"]["type"]


def test_child_whose_input_does_not_fit_raises_it_here(tmp_path: Path) -> None:
    path = tmp_path / "lab.py"
    path.write_text("x = 1", encoding="utf-8")
    with pytest.raises(InputError, match="was changed just now"):
        run_child({"name": "run", "file": str(path), "sha256": "0" * 64, "seed": 0, "threads": 1})


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="a signal of POSIX")
def test_a_terminal_that_is_closed_ends_the_child_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = signal.getsignal(signal.SIGHUP)
    with pytest.raises(SystemExit, match=str(128 + signal.SIGHUP)):
        run(tmp_path, f"import os, signal\nos.kill({os.getpid()}, signal.SIGHUP)\nwhile True: pass")
    assert signal.getsignal(signal.SIGHUP) == before
    assert [path.name for path in tmp_path.iterdir()] == ["lab.py"]


STRAYS = """
import os, subprocess, sys, time
sleep = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
numbers = [subprocess.Popen(sleep, start_new_session=True, env={}).pid]
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if (number := os.fork()) == 0:
        os.close(write)
        time.sleep(60)
    os.write(write, str(number).encode())
    os._exit(0)
os.wait()
numbers.append(int(os.read(read, 100)))
open(PATH, "w").write(" ".join(map(str, numbers)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands a process what its descendants have left")
@pytest.mark.parametrize(
    ("end", "limits"),
    [
        ("", {}),
        ("import posix\nposix._exit(0)", {}),
        ("import signal\nos.kill(os.getpid(), signal.SIGKILL)", {}),
        ("while True: time.sleep(1)", {"seconds": 8}),
    ],
)
def test_child_s_processes_end_with_it_in_sessions_of_their_own_too(
    tmp_path: Path, end: str, limits: dict[str, Any]
) -> None:
    path = tmp_path / "numbers"
    run(tmp_path, STRAYS.replace("PATH", repr(str(path))) + end, **limits)
    numbers = [int(number) for number in path.read_text().split()]
    assert len(numbers) == 2
    for number in numbers:
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)
