"""How many small faults the tests notice: a sample of mutants of the code that trains, made by Cosmic Ray.

A mutant is a source file with one operator, number, condition, loop, decorator or exception replaced. The tests that TESTS
names for the file are run in a process of their own; they kill the mutant if they fail or do not come to an end. Places are
drawn at random, each with one of its replacements, so that an operator with a dozen of them does not count a dozen times.
Not mutated: annotations, raise statements (their messages), numbers in f-strings, what only type checkers read, and what
Python would not compile.

The session, build/mutants/session.sqlite, goes on where it was interrupted; a mutant is tested again once its file has
changed. Each worker has a copy of the package and its tests in build/mutants/worker-N, and mutates nothing else.
Usage: python benchmarks/mutants.py [--count N] [--seed N] [--workers N] [--again]
"""

from __future__ import annotations

import argparse
import hashlib
import queue
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
import warnings
import zlib
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_and_test, mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkItem, WorkResult
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "mutants"
GOAL = 0.9
SHORTEST_LIMIT = 60.0  # seconds; a machine that does other things too must not make a mutant look endless
MEMORY = 16_000_000  # KiB of address space: a size multiplied by mistake must not take the machine down

# The tests that matter for a file, the quickest and the most likely to fail first.
TESTS = {
    "unroll/optim.py": "test_optim.py engines/test_step.py",
    "unroll/heads.py": "test_heads.py test_models.py training/test_oracle.py",
    "unroll/layers.py": "test_layers.py cells/test_contract.py test_models.py",
    "unroll/models.py": "test_models.py test_rnn_lab.py training/test_oracle.py",
    "unroll/data/parts.py": "data/test_parts.py data/test_sentences.py data/test_series.py",
    "unroll/data/batches.py": "data/test_batches.py training/test_oracle.py",
    "unroll/training/fit.py": "training/test_fit.py training/test_oracle.py training/test_fields.py training/test_loop.py",
    "unroll/training/callbacks.py": "training/test_fit.py training/test_loop.py training/test_oracle.py training/test_fields.py",
    "unroll/training/train.py": "training/test_loop.py training/test_oracle.py test_cli.py training/test_distributed.py",
    "unroll/training/evaluate.py": "training/test_loop.py training/test_run.py training/test_oracle.py report/test_report.py",
    "unroll/training/distributed.py": "training/test_distributed.py",
    "unroll/training/trials.py": "training/test_trials.py insight/test_memory.py tuning/test_effects_command.py",
    "unroll/training/facts.py": "training/test_tasks.py",
    "unroll/training/tasks.py": "training/test_tasks.py training/test_oracle.py test_rnn_lab.py test_cli.py",
}
# For every other file in unroll/training, after the tests that are named like it.
OTHER_TESTS = (
    "training/test_run.py training/test_old_runs.py::test_it_predicts_what_it_predicted_then "
    "test_rnn_lab.py training/test_loop.py test_cli.py"
)

# In a worker's copy the package shall be the copy, not what the editable installation points to.
SITECUSTOMIZE = """import sys

sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "ScikitBuildRedirectingFinder"]
"""


def read(source: str) -> str:
    return (ROOT / source).read_text(encoding="utf-8")


def sources() -> list[str]:
    """The files to mutate."""
    training = (path.relative_to(ROOT).as_posix() for path in (ROOT / "unroll" / "training").glob("*.py"))
    return sorted(path for path in {*TESTS, *training} if (ROOT / path).is_file())


def tests_of(source: str) -> list[str]:
    """The tests of a file that there are, and its own doctests."""
    names = TESTS.get(source) or f"training/test_{Path(source).stem}.py {OTHER_TESTS}"
    paths = [f"tests/{name}" for name in dict.fromkeys(names.split())]
    there = [path for path in paths if (ROOT / path.split("::")[0]).is_file()]
    if source in TESTS and there != paths:
        sys.exit(f"{source}: of its tests {', '.join(paths)} not all exist")
    return there + [source] * (">>>" in read(source))


# ---------------------------------------------------------------------------------------------------------- the sample


def is_code(node: Any) -> bool:
    """Whether a node is code whose meaning counts: see the head of this file."""
    while (parent := node.parent) is not None:
        before = parent.children[max(0, parent.children.index(node) - 1)]
        if parent.type in ("tfpdef", "funcdef", "annassign") and node.type != "suite" and before in (":", "->"):
            return False  # an annotation
        if parent.type == "raise_stmt" or (node.type == "number" and parent.search_ancestor("fstring")):
            return False
        if parent.type == "parameters" and node.type == "operator":  # the * before keyword arguments
            return False
        if node.type == "if_stmt" and node.children[1].get_code().strip() == "TYPE_CHECKING":
            return False
        node = parent
    return True


def mutations(source: str) -> Iterator[tuple[tuple[object, ...], MutationSpec]]:
    """Every mutation of a file, with its place: lines further up can change without changing it."""
    code = read(source)
    lines, nodes = code.splitlines(), list(ast_nodes(get_ast(code)))
    for name in operator_names():
        if get_operator(name).arguments():  # those that want to be told which variables to replace
            continue
        operator = get_operator(name)()
        positions = ((node, *where) for node in nodes for where in operator.mutation_positions(node))
        for occurrence, (node, start, end) in enumerate(positions):
            if is_code(node):
                scope = node.search_ancestor("funcdef", "classdef")
                within = scope.name.value if scope else ""
                place = (source, within, lines[start[0] - 1].strip(), start[1], name.split("_")[0])
                yield place, MutationSpec(source, name, occurrence, start, end)


def compiles(code: str, spec: MutationSpec) -> bool:
    """Whether the tool can make this mutant, and Python can compile it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            mutant = mutate_code(code, get_operator(spec.operator_name)(), spec.occurrence)
            return mutant is not None and compile(mutant, "mutant", "exec") is not None
        except (SyntaxError, ValueError, Warning, AttributeError):  # the last from exceptions with a dot in their name
            return False


def sample(seed: int, count: int) -> list[WorkItem]:
    """`count` places, and one mutant of each; a file that changes leaves those of the other files nearly as they are."""

    def rank(*what: object) -> bytes:
        return hashlib.sha256(repr((seed, *what)).encode()).digest()

    found: dict[tuple[object, ...], list[MutationSpec]] = defaultdict(list)
    for source in tqdm(sources(), desc="Looking for places", unit=" files", disable=None, leave=False):
        for place, spec in mutations(source):
            found[place].append(spec)
    print(f"{sum(map(len, found.values()))} mutants in {len(found)} places of {len(sources())} files", flush=True)
    items: list[WorkItem] = []
    for place in sorted(found, key=lambda place: rank(place)):
        code = read(str(place[0]))
        for spec in sorted(found[place], key=lambda spec: rank(spec.operator_name, spec.occurrence)):
            if compiles(code, spec):
                version = zlib.crc32(code.encode())
                items.append(WorkItem.single(f"{place[0]} {version} {spec.operator_name} {spec.occurrence}", spec))
                break
        if len(items) == count:
            break
    return items


# ----------------------------------------------------------------------------------------------------------- the tests


def command(worker: Path, arguments: list[str]) -> str:
    """Python in a worker's copy, as a shell's command."""
    settings = f"PYTHONPATH={shlex.quote(str(worker))} OMP_NUM_THREADS=1 OMP_THREAD_LIMIT=1"
    python = shlex.join([sys.executable, *arguments])
    return shlex.join(["sh", "-c", f"ulimit -v {MEMORY}; cd {shlex.quote(str(worker))} && {settings} exec {python}"])


def pytest(worker: Path, source: str) -> str:
    options = ["-x", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", f"--basetemp={worker / 'tmp'}"]
    return command(worker, ["-m", "pytest", *options, *tests_of(source)])


def copy_tree(worker: Path) -> Path:
    """A copy of the package, its compiled library and the tests, in which Python finds the copy."""
    shutil.rmtree(worker, ignore_errors=True)
    for name in ("unroll", "tests"):
        shutil.copytree(ROOT / name, worker / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", worker)
    for library in Path(sysconfig.get_path("platlib"), "unroll", "engines").glob("*native.*"):
        shutil.copy(library, worker / "unroll" / "engines")
    (worker / "sitecustomize.py").write_text(SITECUSTOMIZE)
    look = command(worker, ["-c", "from unroll.engines import native; print(native.__file__, native.available())"])
    found = subprocess.run(shlex.split(look), capture_output=True, text=True, check=True).stdout.strip()
    if found != f"{worker / 'unroll' / 'engines' / 'native' / '__init__.py'} None":
        sys.exit(f"{worker}: expected the copy of the package with its native engine, got {found}")
    return worker


def clean_run(worker: Path, source: str) -> float:
    """Seconds that the tests of a file take without a mutant."""
    began = time.perf_counter()
    outcome, output = run_tests(pytest(worker, source), 1800)
    if outcome != TestOutcome.SURVIVED:
        sys.exit(f"the tests of {source} fail without any mutant:\n{output[-3000:]}")
    print(f"{source}: {time.perf_counter() - began:.1f} s without a mutant", flush=True)
    return time.perf_counter() - began


def test(worker: Path, spec: MutationSpec, limit: float) -> WorkResult:
    own = MutationSpec(worker / spec.module_path, spec.operator_name, spec.occurrence, spec.start_pos, spec.end_pos)
    return mutate_and_test([own], pytest(worker, spec.module_path.as_posix()), limit)


def run(db: WorkDB, pending: list[WorkItem], workers: int) -> None:
    """Test all pending mutants; their results go into the session one by one."""
    free: queue.Queue[Path] = queue.Queue()
    for number in range(workers):
        free.put(copy_tree(BUILD / f"worker-{number}"))

    def in_a_copy(function: Any, *arguments: Any) -> Any:
        worker = free.get()
        try:
            return function(worker, *arguments)
        finally:
            free.put(worker)

    with ThreadPoolExecutor(workers) as pool:
        try:
            files = sorted({item.mutations[0].module_path.as_posix() for item in pending})
            clean = dict(zip(files, pool.map(lambda source: in_a_copy(clean_run, source), files), strict=True))
            limits = {source: max(SHORTEST_LIMIT, 5 * seconds) for source, seconds in clean.items()}
            began, jobs = time.perf_counter(), {}
            for item in pending:
                spec = item.mutations[0]
                jobs[pool.submit(in_a_copy, test, spec, limits[spec.module_path.as_posix()])] = item.job_id
            for job in tqdm(as_completed(jobs), total=len(jobs), unit=" mutants", disable=None):
                if job.result().test_outcome not in (TestOutcome.KILLED, TestOutcome.SURVIVED):
                    raise RuntimeError(f"{jobs[job]} could not be tested: {job.result().output}")
                db.set_result(jobs[job], job.result())
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    print(f"{(time.perf_counter() - began) / len(pending):.1f} s a mutant")


def fate(result: WorkResult) -> str:
    if result.test_outcome == TestOutcome.SURVIVED:
        return "survived"
    return "timed out" if result.output == "timeout" else "killed"


def described(item: WorkItem, result: WorkResult) -> str:
    """file:line operator: what the line was and became."""
    spec = item.mutations[0]
    changed = [line for line in (result.diff or "").splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]
    lines = "  ".join(f"{line[0]} {line[1:].strip()}" for line in changed)
    return f"{spec.module_path.as_posix()}:{spec.start_pos[0]} {spec.operator_name.removeprefix('core/')}: {lines}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--again", action="store_true", help="test anew those that were not killed")
    arguments = parser.parse_args()
    BUILD.mkdir(parents=True, exist_ok=True)
    items = sample(arguments.seed, arguments.count)
    with use_db(str(BUILD / "session.sqlite")) as db:
        there = {item.job_id for item in db.work_items}
        db.add_work_items([item for item in items if item.job_id not in there])
        done = {job for job, result in db.results if not arguments.again or fate(result) == "killed"}
        if pending := [item for item in items if item.job_id not in done]:
            run(db, pending, arguments.workers)
        results = dict(db.results)
    fates: dict[str, list[str]] = {"killed": [], "timed out": [], "survived": []}
    for item in sorted(items, key=lambda item: (item.mutations[0].module_path, item.mutations[0].start_pos)):
        fates[fate(results[item.job_id])].append(described(item, results[item.job_id]))
    for name in ("timed out", "survived"):
        print(f"\n{name}:", *fates[name] or ["none"], sep="\n  ")
    share = 1 - len(fates["survived"]) / len(items)
    print("\n" + ", ".join(f"{len(lines)} {name}" for name, lines in fates.items()))
    print(f"{100 * share:.1f}% of {len(items)} killed or timed out; the goal is {100 * GOAL:.0f}%")
    sys.exit(share < GOAL)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from here")
