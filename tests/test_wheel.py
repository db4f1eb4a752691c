"""The package can be built where there is no compiler."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def test_a_wheel_without_the_kernels_is_pure_python(tmp_path):
    pytest.importorskip("scikit_build_core", reason="scikit-build-core is not installed")
    pytest.importorskip("pip", reason="pip is not installed")
    options = ("--no-build-isolation", "--no-deps", "--no-index", "--quiet", "--disable-pip-version-check")
    run = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *options, ".", "-w", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "UNROLL_NO_NATIVE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "unroll/engines/native/eager.py" in names
    assert not [name for name in names if name.endswith((".so", ".dylib", ".pyd"))]
