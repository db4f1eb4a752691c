"""Runs the files that are named in a sandbox, and prints what came of each as lines of JSON: for tests as another user."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unroll.labs.grade.sandbox import Sandbox, find_sandbox
from unroll.labs.process import Limits

LIMITS = Limits(seconds=60, memory=1 << 30, file=64 << 20, output=4 << 20, observed=8 << 20, processes=30)


def run(
    box: Sandbox, content: bytes, limits: Limits = LIMITS, say: Callable[[str], object] = str, **more: Any
) -> tuple[dict[str, Any], str]:
    """What the sandbox hands back of a file that runs in it on few images, and what the file printed."""
    printed: list[str] = []

    def note(text: str) -> None:
        printed.append(text)
        say(text)

    task = {"name": "run", "file": "/submission/lab.py", "sha256": hashlib.sha256(content).hexdigest(), "seed": 0}
    found = box.run(task | {"threads": 1, "small": True}, {"lab.py": content}, limits, on_text=note, **more)
    return found, "".join(printed)


if __name__ == "__main__":
    box = find_sandbox()
    for name in sys.argv[1:]:
        found, printed = run(box, Path(name).read_bytes())
        print(json.dumps({"child": found.get("child"), "printed": printed}))
