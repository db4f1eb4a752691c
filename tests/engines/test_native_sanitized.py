"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer, and under ThreadSanitizer; random programs among them."""

from __future__ import annotations

import shutil

import pytest
from program_file import write_programs


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("c++"), reason="needs a C++ compiler")
@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_the_sanitizers_find_nothing_in_the_kernels(run_check, tmp_path, sanitizers):
    write_programs(tmp_path / "programs", 80)
    output = run_check(f"-DUNROLL_SANITIZE={sanitizers}", f"-DUNROLL_PROGRAMS={tmp_path / 'programs'}")
    # What the program printed: nothing else that a sanitizer says may pass, though ctest looks at its end only.
    said = [line[3:] for line in output.split("Test timeout computed to be:")[1].splitlines() if line.startswith("1: ")]
    assert len(said) == 2, output
    assert "programs; of" in said[0], output
    assert said[1].startswith("fine: "), output
