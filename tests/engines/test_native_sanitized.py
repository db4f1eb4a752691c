"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer."""

from __future__ import annotations

import shutil

import pytest


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("c++"), reason="needs a C++ compiler")
def test_the_sanitizers_find_nothing_in_the_kernels(run_check):
    output = run_check("-DUNROLL_SANITIZE=ON")
    # What the program printed: nothing else that a sanitizer says may pass, though ctest looks at its end only.
    said = output.split("Test timeout computed to be:")[1].splitlines()
    assert [line[:9] for line in said if line.startswith("1: ")] == ["1: fine: "], output
