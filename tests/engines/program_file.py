"""The words of random step programs in one file, which native/check_programs.cpp reads."""

from __future__ import annotations

from array import array
from pathlib import Path

from tests.equations.random_cells import random_cell
from unroll.engines.native.lowering import lower
from unroll.equations import UnreadableError, read
from unroll.equations.reverse import reverse


def write_programs(path: Path, count: int) -> None:
    """Programs of the first random cells, every third one forward only.

    The file is 8-byte numbers: how many words, the words, how many constants, the constants, and so on.
    """
    with path.open("wb") as file:
        for seed in range(count):
            program = read(random_cell(seed).cell())
            back = reverse(program)
            try:
                code = lower(program, back if seed % 3 else None, [True] * len(program.inputs))
            except UnreadableError:  # more pieces than the kernels take
                continue
            for numbers in (array("q", code.words), array("d", code.numbers)):
                file.write(array("q", [len(numbers)]).tobytes() + numbers.tobytes())
