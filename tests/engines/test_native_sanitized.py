"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def find_cmake() -> str | None:
    return shutil.which("cmake") or shutil.which("cmake", path=str(Path(sys.executable).parent))


@pytest.mark.slow
@pytest.mark.skipif(find_cmake() is None or not shutil.which("c++"), reason="needs cmake and a C++ compiler")
def test_the_sanitizers_find_nothing_in_the_kernels(tmp_path):
    cmake = find_cmake()
    subprocess.run([cmake, "-S", ROOT, "-B", tmp_path, "-DUNROLL_SANITIZE=ON"], check=True, capture_output=True)
    build = subprocess.run(
        [cmake, "--build", tmp_path, "--target", "unroll_check", "-j", "2"], capture_output=True, text=True
    )
    assert build.returncode == 0, build.stdout + build.stderr
    options = {"ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
    run = subprocess.run([tmp_path / "unroll_check"], capture_output=True, text=True, env=os.environ | options)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.startswith("fine: ")
    assert not run.stderr
