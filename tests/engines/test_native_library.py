"""The compiled library as a guest in Python's process: whether it fits the package, and what it does when the system
refuses something. Refused memory and threads are also tried out, one by one, by the check program (native/check.cpp)."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
import torch

from unroll.engines import native
from unroll.engines.native import library as native_library
from unroll.layers import LSTM

needs_kernels = pytest.mark.skipif(native.available() is not None, reason=str(native.available()))


def run_program(program: str) -> str:
    """What a program prints in a process of its own, given a minute."""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


# --- whether it fits --------------------------------------------------------------------------------------------------


FAKE = """
#include <cstring>
extern "C" long long unroll_abi() {{ return {abi}; }}
extern "C" long long unroll_size(const char* name) {{
  return !std::strcmp(name, "Call") ? {Call} : !std::strcmp(name, "AdamCall") ? {AdamCall} : {ReadoutCall};
}}
"""
OTHERS = {
    "says nothing": 'extern "C" int unroll_adam() { return 0; }',
    "other number": FAKE.format(abi=native_library.ABI + 1, **native_library.SIZES),
    **{
        f"other {name}": FAKE.format(abi=native_library.ABI, **{**native_library.SIZES, name: size + 8})
        for name, size in native_library.SIZES.items()
    },
}


@pytest.mark.skipif(not shutil.which("c++"), reason="needs a C++ compiler")
@pytest.mark.parametrize("other", OTHERS)
def test_a_library_of_another_version_is_left_alone(other, tmp_path, monkeypatch):
    source, path = tmp_path / "other.cpp", tmp_path / "libother.so"
    source.write_text(OTHERS[other])
    subprocess.run(["c++", "-shared", "-fPIC", source, "-o", path], check=True)
    monkeypatch.setattr(native_library, "_find_library", lambda: path)

    library, instruction_set, obstacle = native_library._load()

    assert (library, instruction_set) == (None, None)
    assert obstacle == "the compiled kernels are older than the package; install it again"
    monkeypatch.setattr(native_library, "library", library)
    monkeypatch.setattr(native_library, "_obstacle", obstacle)
    assert native.describe() == f"reference ({obstacle})"
    LSTM(3, 4)(torch.zeros(2, 2, 3))[0].sum().backward()


# --- what the system refuses ------------------------------------------------------------------------------------------

WALK = """
import hashlib, os, resource, signal, sys, threading, time
import torch
from unroll.cells import LSTMCell
from unroll.engines import native

torch.manual_seed(0)
# Enough work for four of our threads, and too little for torch to start its own: GNU OpenMP ends the process if it cannot.
cell = LSTMCell(16, 32)
x = torch.randn(12, 64, 16)


def walk(back=True):
    \"""All results, as a number.\"""
    out, (h, c) = native.scan(cell, x, cell.initial_state(64))
    gradients = torch.autograd.grad(out.sum() + c.sum(), list(cell.parameters())) if back else ()
    return hashlib.sha256(b"".join(part.detach().numpy().tobytes() for part in (out, h, c, *gradients))).hexdigest()


"""


@needs_kernels
@pytest.mark.skipif(sys.platform != "linux", reason="limits threads as Linux does")
def test_where_no_thread_can_start_the_results_are_the_same_to_the_bit():
    limited = """
torch.set_num_threads(1)
walk()  # so that everything is imported, and no worker has been started yet
if os.getuid() == 0:  # who is not limited
    os.setgid(65534), os.setuid(65534)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
try:
    threading.Thread(target=print).start()
except RuntimeError:
    torch.set_num_threads(4)
    print(walk(), native.multiply_add(10, 4) > 0)
else:
    print("not limited")
"""
    printed = run_program(WALK + limited).split()
    if printed == ["not", "limited"]:
        pytest.skip("this system does not limit threads")
    assert printed == run_program(f"{WALK}torch.set_num_threads(4)\nprint(walk(), True)").split()


@needs_kernels
def test_a_failure_that_nobody_thought_of_is_an_error_and_not_the_end_of_python():
    with pytest.raises(RuntimeError, match="the compiled kernels failed"):
        native.multiply_add(1, -1)


@needs_kernels
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_walks_though_its_parents_threads_are_gone():
    program = """
torch.set_num_threads(4)
expected = walk(back=False)  # the way back is autograd's, which does not outlive a fork
child = os.fork()
if child == 0:
    signal.alarm(20)  # rather than wait for ever
    os._exit(0 if walk(back=False) == expected else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_program(WALK + program) == "0\n"
