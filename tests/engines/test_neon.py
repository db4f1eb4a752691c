"""The kernels for ARM, on any machine: compiled for it, and run by an emulator against the equations in double precision.

On Debian: apt-get install g++-aarch64-linux-gnu qemu-user.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMPILER = "aarch64-linux-gnu-g++"
EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
LIBRARIES = "/usr/aarch64-linux-gnu"  # where Debian puts ARM's C library


def find_cmake() -> str | None:
    return shutil.which("cmake") or shutil.which("cmake", path=str(Path(sys.executable).parent))


MISSING = [
    name
    for name, found in (("cmake", find_cmake()), (COMPILER, shutil.which(COMPILER)), ("qemu-aarch64", EMULATOR))
    if not found
]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")
def test_the_neon_kernels_compute_what_the_equations_say(tmp_path):
    cmake = find_cmake()
    target = ["-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", f"-DCMAKE_CXX_COMPILER={COMPILER}"]
    subprocess.run(
        [cmake, "-S", ROOT, "-B", tmp_path, "-DUNROLL_CHECK=ON", "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror", *target],
        check=True,
        capture_output=True,
    )
    build = subprocess.run([cmake, "--build", tmp_path, "-j", "2"], capture_output=True, text=True)
    assert build.returncode == 0, build.stdout + build.stderr
    assert (tmp_path / "libunroll_native.so").is_file()
    run = subprocess.run([EMULATOR, "-L", LIBRARIES, tmp_path / "unroll_check"], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (0, "fine: neon\n"), run.stdout + run.stderr
