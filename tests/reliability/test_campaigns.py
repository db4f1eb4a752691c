"""The short form of the campaigns `make fuzz`, `make crash` and `make hostile`, with fixed seeds."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import random
import subprocess
import sys
import zlib
from pathlib import Path

import fuzz
import pytest
import targets

import unroll

HERE = Path(__file__).parent
FOUND = sorted(path for path in targets.FOUND.glob("*/*") if path.is_file())
# Readers of what others have read before: they call those that are tested.
COMPOSED = {
    "load_own": "runs a file of Python that the user names, as import does",
    "load_dataset": "calls the task's reader",
    "load_tested": "calls load_dataset",
    "load_test_part": "calls the task's reader",
    "load_test_images": "calls load_images",
    "load_test_sentences": "calls read_sentences",
    "load_test_series": "calls read_series",
    "read_inputs": "calls read_series",
    "read_text": "is called by read_answers",
    "read_name": "reads the name of a file",
    "read_folder_name": "reads the name of a folder",
    "read_code": "reads the code of a class, and no file",
}


@pytest.mark.parametrize("target", targets.TARGETS, ids=lambda target: target.name)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused_in_one_line(target):
    seeds, draw = target.seeds(), random.Random(zlib.crc32(target.name.encode()))
    for seed in seeds:
        assert fuzz.attempt(target, seed) is None
    for _ in range(40):
        content = draw.choice(seeds)
        for _ in range(draw.choice((1, 1, 3))):
            content = target.mutation(content, draw)
        if (error := fuzz.attempt(target, content)) is not None:
            raise AssertionError(f"{content[:300]!r}") from error


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}/{path.name}")
@pytest.mark.filterwarnings("ignore")
def test_files_that_once_showed_a_fault(path):
    target = next(target for target in targets.TARGETS if target.name == path.parent.name)
    if (error := fuzz.attempt(target, path.read_bytes())) is not None:
        raise AssertionError(path.name) from error


def test_every_reader_of_files_is_fuzzed():
    tested = {name for target in targets.TARGETS for name in target.readers} | COMPOSED.keys()
    for module in pkgutil.walk_packages(unroll.__path__, "unroll."):
        if module.name.rpartition(".")[2] in ("__main__", "libunroll_native"):
            continue
        for name, function in inspect.getmembers(importlib.import_module(module.name), inspect.isfunction):
            if function.__module__ == module.name and name.startswith(("read_", "load", "begin_loading")):
                assert name in tested, f"{module.name}.{name} reads files and no target of targets.py tests it"


def run(script: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, HERE / script, *arguments], capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


@pytest.mark.slow
def test_commands_that_are_killed_go_on_to_the_same_result():
    run("crash.py", "--kills", "12", "--seed", "1")


@pytest.mark.slow
def test_hostile_input_meets_one_line():
    run("hostile.py")
