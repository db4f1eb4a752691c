"""What is there after ``import unroll`` alone."""

from __future__ import annotations

import subprocess
import sys

import unroll


def test_public_names_are_there_after_one_import_and_none_is_loaded_before():
    code = "import sys, unroll; assert 'torch' not in sys.modules; print(unroll.equations.read, unroll.engines.explain)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.startswith("<function read at")
    assert done.stderr == ""
    assert {"cells", "engines", "equations", "Recurrent"} <= set(dir(unroll))
    assert all(getattr(unroll, name) is not None for name in dir(unroll))
