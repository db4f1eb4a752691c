"""What the tests of the compiled kernels share: building their own check, and running it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from unroll.engines import native
from unroll.engines.native import library as native_library

ROOT = Path(__file__).parents[2]


def find_tool(name: str) -> str | None:
    """cmake or ctest: the system's, or what pip has installed beside Python."""
    return shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))


@pytest.fixture
def run_check(tmp_path: Path) -> Callable[..., str]:
    """Configures with these options, builds in the test's folder, and runs what ctest knows; everything it printed."""
    cmake, ctest = find_tool("cmake"), find_tool("ctest")
    if cmake is None or ctest is None:
        pytest.skip("needs cmake")

    def run(*options: str) -> str:
        for command in (
            [cmake, "-S", ROOT, "-B", tmp_path, *options],
            [cmake, "--build", tmp_path, "-j", "2"],
            [ctest, "--verbose", "--no-tests=error"],
        ):
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a test on another instruction set than the best."""
    native_library.library.unroll_select(request.param.encode())
    yield request.param
    native_library.library.unroll_select(native.instruction_set().encode())
