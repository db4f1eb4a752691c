"""The kernels for ARM, on any machine: compiled for it, and run by an emulator against the equations in double precision.

On Debian: apt-get install g++-aarch64-linux-gnu qemu-user.
"""

from __future__ import annotations

import shutil

import pytest

COMPILER = "aarch64-linux-gnu-g++"
EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
LIBRARIES = "/usr/aarch64-linux-gnu"  # where Debian puts ARM's C library
MISSING = [name for name, found in ((COMPILER, shutil.which(COMPILER)), ("qemu-aarch64", EMULATOR)) if not found]


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}")
def test_the_neon_kernels_compute_what_the_equations_say(run_check, tmp_path):
    output = run_check(
        "-DUNROLL_CHECK=ON",
        "-DCMAKE_SYSTEM_NAME=Linux",
        "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
        f"-DCMAKE_CXX_COMPILER={COMPILER}",
        f"-DCMAKE_CROSSCOMPILING_EMULATOR={EMULATOR};-L;{LIBRARIES}",  # ctest runs the check with it
    )
    assert "1: fine: neon\n" in output, output
    assert (tmp_path / "libunroll_native.so").is_file()
