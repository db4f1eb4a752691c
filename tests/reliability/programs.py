"""Random cells on the kernels' interpreter, held to the reference engine, for as long as one likes.

Each cell is a seed. One that differs is cut down to the smallest that differs as well, which is printed with its seed: put the
seed into `test_random_cells_that_were_wrong_once` of tests/engines/test_random_programs.py once it is mended.

Usage: python -m tests.reliability.programs [--seed N] [--seconds N]
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial

import torch

from tests.equations.against import Call, fault, rounding
from tests.equations.random_cells import Sketch, random_cell, smallest


def wrong(sketch: Sketch) -> str | None:
    """What is wrong with a cell; an exception is."""
    try:
        return fault(sketch)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def kind(found: str | None) -> str | None:
    """A fault without its numbers: a cell that is cut down is to have the same one."""
    return None if found is None else "differs" if "differs by" in found else found.split(":")[0]


def alike(fault: str | None, sketch: Sketch) -> bool:
    return kind(wrong(sketch)) == fault


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the first cell")
    parser.add_argument("--seconds", type=float, default=600)
    options = parser.parse_args()
    torch.set_num_threads(1)
    end, seed, faults, largest = time.monotonic() + options.seconds, options.seed, 0, 1.0
    while time.monotonic() < end:
        sketch = random_cell(seed)
        found = wrong(sketch)
        if found is None and seed % 10 == 0:
            largest = max(largest, *rounding(sketch, Call(6, 11)).values())
        if found is not None:
            faults += 1
            small = smallest(sketch, partial(alike, kind(found)))
            print(f"seed {seed}: {found}\n{small.source()}{wrong(small)}\n", flush=True)
        seed += 1
    cells = f"{seed - options.seed} cells from seed {options.seed}"
    print(f"{cells}: {faults} faults; float32 errors are at most {largest:.1f} times torch's")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
