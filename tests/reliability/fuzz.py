"""Damage files of every kind that the package reads, and see that nothing but an answer or an UnrollError comes of it.

Each target of `targets.py` gets its share of the time, in a process of its own that atheris guides by the lines of the package
that a file reaches; the mutations are those of `mutate.py` and atheris' own. A fault is an exception that is no
UnrollError, a message of several lines or of more than MESSAGE characters, more than SECONDS for one file, or more than
MEMORY megabytes. Each is kept as build/fuzz/TARGET/NAME with what was raised beside it; once it is mended, it belongs into
found/TARGET/, where the tests read it each time.

Usage: python tests/reliability/fuzz.py [--seconds N] [--seed N] [--only TARGET ...]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
BUILD = Path(__file__).resolve().parent.parent.parent / "build" / "fuzz"
MESSAGE, SECONDS, MEMORY = 2000, 10, 3000
WORKERS = 2


class SlowError(Exception):
    """One file took too long."""


def fault(read: Any, path: Path) -> BaseException | None:
    """What is wrong with how a file is read; None where it is read or refused as it should be."""
    from unroll.errors import UnrollError

    def late(*_: object) -> None:
        raise SlowError(f"more than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        read(path)
    except UnrollError as error:
        text = str(error)
        return None if len(text) <= MESSAGE and "\n" not in text else ValueError(f"a message of {len(text)} characters")
    except BaseException as error:
        return error
    finally:
        signal.alarm(0)
    return None


def keep(target: str, content: bytes, error: BaseException) -> None:
    """Keep a file that shows a fault, one for each place that faults come from."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/unroll/" in f.filename]
    place = f"{frames[-1].filename.rpartition('/')[2]}-{frames[-1].lineno}" if frames else "nowhere"
    folder = BUILD / target
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{type(error).__name__}-{place}"
    if not (folder / name).exists():
        (folder / name).write_bytes(content)
        shown = "".join(traceback.format_exception(error))
        (folder / f"{name}.txt").write_text(shown[-4000:])


def guided(name: str, seconds: float, seed: int) -> None:
    """Damage the files of one target, guided by atheris; never returns."""
    import atheris

    with atheris.instrument_imports(include=["unroll"]):
        import unroll.commands_report
        import unroll.commands_tuning
        import unroll.labs.handin
        import unroll.training.train  # noqa: F401
    import mutate
    from targets import TARGETS

    warnings.simplefilter("ignore")
    target = next(target for target in TARGETS if target.name == name)
    corpus = BUILD / "seeds" / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed_file in target.seeds():
        (corpus / hashlib.sha1(seed_file).hexdigest()).write_bytes(seed_file)
    report = BUILD / f"{name}.count"
    files = 0

    def one(content: bytes) -> None:
        nonlocal files
        files += 1
        error = attempt(target, content)
        if error is not None:
            keep(name, content, error)
        if files % 50 == 0:
            report.write_text(str(files))

    def mutation(content: bytes, most: int, number: int) -> bytes:
        draw = random.Random(number)
        if draw.random() < 0.2:
            return bytes(atheris.Mutate(content, most))
        try:
            return target.mutation(content, draw)[:most]
        except (
            Exception
        ):  # a file that is damaged already may not come apart; and an exception here ends in a standstill
            return mutate.damaged(content, draw)[:most]

    limits = [
        f"-max_total_time={int(seconds)}",
        f"-seed={seed + 1}",
        f"-rss_limit_mb={MEMORY}",
        f"-timeout={6 * SECONDS}",
    ]
    found = f"-artifact_prefix={BUILD / 'broken'}/{name}-"
    (BUILD / "broken").mkdir(parents=True, exist_ok=True)
    arguments = [sys.argv[0], *limits, found, "-max_len=200000", "-verbosity=0", str(corpus)]
    atheris.Setup(arguments, one, custom_mutator=mutation)
    atheris.Fuzz()


def attempt(target: Any, content: bytes) -> BaseException | None:
    """Read one damaged file in a folder of its own."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None, prefix="fuzz-") as place:
        path = Path(place) / target.file
        path.write_bytes(content)
        return fault(target.read, path)


def main() -> None:
    from targets import TARGETS

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="for all targets together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="TARGET", choices=[target.name for target in TARGETS])
    parser.add_argument("--guided", metavar="TARGET", help="this one, in this process (used by the command itself)")
    given = parser.parse_args()
    if given.guided:
        guided(given.guided, given.seconds, given.seed)
    names = given.only or [target.name for target in TARGETS]
    share = given.seconds * WORKERS / len(names)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run(name: str) -> int:
        (BUILD / f"{name}.count").unlink(missing_ok=True)
        for old in (*(BUILD / name).glob("*"), *(BUILD / "broken").glob(f"{name}-*")):
            old.unlink()
        command = [sys.executable, __file__, "--guided", name, "--seconds", str(share), "--seed", str(given.seed)]
        began = time.perf_counter()
        process = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=environment, check=False
        )
        count = BUILD / f"{name}.count"
        files = int(count.read_text()) if count.is_file() else 0
        broken = sorted((BUILD / "broken").glob(f"{name}-*"))
        kept = sorted(path.name for path in (BUILD / name).glob("*") if path.suffix != ".txt")
        if process.returncode and not broken:
            kept.append(f"the process ended with status {process.returncode}: {process.stderr[-500:]}")
        faults[name] = kept + [path.name for path in broken]
        print(
            f"{name:20} {files:8,} files  {time.perf_counter() - began:5.0f} s  {len(faults[name])} faults", flush=True
        )
        return files

    BUILD.mkdir(parents=True, exist_ok=True)
    faults: dict[str, list[str]] = {}
    with ThreadPoolExecutor(WORKERS) as pool:
        files = sum(pool.map(run, names))
    for name, kept in faults.items():
        for fault_name in kept:
            print(f"{name}: {fault_name}")
    print(
        json.dumps({"campaign": "fuzz", "seed": given.seed, "files": files, "faults": sum(map(len, faults.values()))})
    )
    sys.exit(bool(sum(map(len, faults.values()))))


if __name__ == "__main__":
    main()
