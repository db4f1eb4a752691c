"""Run the check on the hand-ins beside this file, the sixty and the second set: `make labs`.

Prints a line for each, and at its end what the check is held to: no correct one is called wrong, all but one in thirty are called
right, and of nine in ten with a fault the fault is named, by one of the codes that `index.json` has for it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from unroll.labs.check import Checked, check

HERE = Path(__file__).parent
SETS = {"": "the sixty", "second/": "the second set"}


def index(kind: str) -> list[dict[str, Any]]:
    """The rows of `index.json` of one kind."""
    rows: list[dict[str, Any]] = json.loads((HERE / kind / "index.json").read_text(encoding="utf-8"))
    return rows


def is_right(checked: Checked) -> bool:
    """Whether all that was looked at is right."""
    return checked.ok and all(item.status == "right" for item in checked.items)


def is_named(checked: Checked, row: dict[str, Any]) -> bool:
    """Whether a fault is named by one of its codes, and nothing else is blamed."""
    codes = {problem.code for problem in checked.problems}
    return bool(codes & set(row["codes"])) and codes <= {*row["codes"], "file-raises", "rnn-not-reached"}


def count(found: Sequence[tuple[str, dict[str, Any], Checked]]) -> dict[str, tuple[int, int]]:
    """How many of how many are called wrong, called right, and named."""
    correct = [checked for kind, _, checked in found if kind.endswith("correct")]
    named = [is_named(checked, row) for kind, row, checked in found if kind.endswith("faulty")]
    return {
        "called wrong": (sum(not checked.ok for checked in correct), len(correct)),
        "called right": (sum(map(is_right, correct)), len(correct)),
        "named": (sum(named), len(named)),
    }


def is_good(counts: dict[str, tuple[int, int]]) -> bool:
    """Whether a set's counts are what the check is held to."""
    right, named = counts["called right"], counts["named"]
    return counts["called wrong"][0] == 0 and right[0] >= right[1] - right[1] // 22 and named[0] >= 0.9 * named[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=2, help="files at a time")
    jobs, good = parser.parse_args().jobs, True
    for folder, name in SETS.items():
        rows = [(folder + kind, row) for kind in ("correct", "faulty") for row in index(folder + kind)]
        with ThreadPoolExecutor(jobs) as pool:
            checked = list(pool.map(lambda one: check(HERE / one[0] / one[1]["file"]), rows))
        found = [(kind, row, one) for (kind, row), one in zip(rows, checked, strict=True)]
        for kind, row, one in found:
            codes = ", ".join(problem.code for problem in one.problems) or "nothing wrong"
            missed = f" (NOT NAMED: {row['fault']})" if "fault" in row and not is_named(one, row) else ""
            print(f"{kind}/{row['file']}: {codes}{missed}")
        counts = count(found)
        good = good and is_good(counts)
        print(f"{name}: {', '.join(f'{what} {n} of {of}' for what, (n, of) in counts.items())}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
