"""End commands by force, at random moments, and see that going on gives what an undisturbed run gives, to the bit.

Every resumable command is run once undisturbed; then it is killed (SIGKILL, with all its processes) at moments drawn at random,
gone on with, perhaps killed again, and in the end its files are compared with those of the undisturbed run: the same
names, the same bytes, but for times. Two more kinds of accidents: a disk that is full (a small file system of its own, or a
limit on the size of files where that is not allowed), and the same command started twice at one moment, of which one shall do the
work and the other end with one line and status 2.

Processes are forked from this one once everything is imported, so that a kill costs a fraction of a second.

Usage: python tests/reliability/crash.py [--kills N] [--seed N] [--only COMMAND ...]
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LONGEST = 180.0  # seconds that a command may take; then it counts as hanging
TIMES = re.compile(r"second|time|date|machine|factor|rows|caption")  # a study's rows are its table, times included
PASSING = ("figures", "tensorboard")  # folders whose files are compared by name alone


@dataclass(frozen=True)
class Command:
    """A resumable command: how it begins, and how it goes on in what it left behind."""

    name: str
    begin: list[str]
    out: str
    again: Callable[[Path], list[str]] | None = None
    exact: bool = True  # a search draws on what trials were finished before, and at what moment

    def next(self, place: Path) -> list[str]:
        """Its arguments in a folder in which it has been interrupted, or not yet begun."""
        return self.begin if self.again is None else self.again(place / self.out) or self.begin


def resume(run: Path) -> list[str]:
    return ["train", "--resume", run.name] if (run / "recipe.yaml").is_file() else []


SMALL = ["--hidden-size", "4", "--batch-size", "8", "--log-every", "1"]
COMMANDS = [
    Command(
        "train",
        ["train", "lstm-series", "--data", "x.npz", "--test", "0.2", "--epochs", "12", "--out", "out", *SMALL],
        "out",
        resume,
    ),
    Command(
        "train, early stopping and averaging",
        [
            "train",
            "lstm-series",
            "--data",
            "x.npz",
            "--test",
            "0.2",
            "--validation",
            "0.2",
            "--patience",
            "4",
            "--epochs",
            "10",
            "--weight-average",
            "0.9",
            "--dropout",
            "0.2",
            "--out",
            "out",
            *SMALL,
        ],
        "out",
        resume,
    ),
    Command("effects", ["effects", "a.yaml", "b.yaml", "--seeds", "2", "--out", "out"], "out"),
    Command(
        "ablate",
        ["ablate", "run", "--gate", "o", "--gate", "f", "--seeds", "2", "--epochs", "2", "--out", "out"],
        "out",
    ),
    Command("memory", ["memory", "order", "--length", "10", "--seeds", "1", "--out", "out"], "out"),
    Command(
        "tune",
        ["tune", "a.yaml", "--trials", "5", "--workers", "1", "--space", "hidden_size=2,3,4,5,6", "--out", "out"],
        "out",
        None,
        False,
    ),
]


def prepare(place: Path) -> None:
    """Data, recipes and a finished run, for all commands."""
    draw = np.random.default_rng(0)
    y = np.arange(40) % 2
    X = draw.normal(size=(40, 6, 2)) + y[:, None, None]
    np.savez(place / "x.npz", X=X, y=y)
    recipe = (
        "task: series\ndata: x.npz\ntest: 0.2\nvalidation: 0.2\nepochs: 2\nhidden_size: 3\nbatch_size: 8\nseed: 1\n"
    )
    (place / "a.yaml").write_text(recipe)
    (place / "b.yaml").write_text(recipe.replace("hidden_size: 3", "hidden_size: 4") + "learning_rate: 0.01\n")


# ------------------------------------------------------------------------------------------------------------ processes


def start(arguments: list[str], place: Path, before: Callable[[], None] = lambda: None) -> int:
    """A process of its own, in a session of its own, that runs the command in a folder; its number."""
    child = os.fork()
    if child:
        return child
    status = 70
    try:
        os.setsid()
        os.chdir(place)
        for number, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(place / f".{name}-{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), number)
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(os.fdopen(n, "wb", closefd=False), line_buffering=True) for n in (1, 2)
        )
        before()
        from unroll.cli import main as unroll

        unroll(arguments)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:
        with suppress(OSError):
            traceback.print_exc()
    finally:
        try:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        finally:
            os._exit(status)


def wait(child: int, place: Path, kill_after: float | None = None) -> tuple[int, str]:
    """The exit status (-9: killed) and what the process wrote to stderr; it is killed with all its own after some seconds."""
    began, limit = time.monotonic(), LONGEST if kill_after is None else kill_after
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done or time.monotonic() - began > limit:
            break
        time.sleep(0.002)
    if not done:
        with suppress(ProcessLookupError):  # it has no session of its own yet
            os.killpg(child, signal.SIGKILL)
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if kill_after is None:
            raise FaultError(f"still at work after {LONGEST:.0f} s")
    errors = place / f".stderr-{child}"
    text = errors.read_text(errors="replace") if errors.exists() else ""  # it may be killed before it has made one
    for name in ("stdout", "stderr"):
        (place / f".{name}-{child}").unlink(missing_ok=True)
    return os.waitstatus_to_exitcode(status), text


class FaultError(Exception):
    """Something went otherwise than promised."""


# ----------------------------------------------------------------------------------------------------------- comparing


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if not TIMES.search(k)}
    return [without_times(v) for v in value] if isinstance(value, list) else value


def left(out: Path) -> dict[str, str]:
    """Every file that a command left, with a digest of what of it does not depend on time."""
    found: dict[str, str] = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_dir() or path.name in (".lock",) or path.suffix in (".db", ".sqlite"):
            continue
        content = path.read_bytes()
        if any(part in PASSING for part in path.parts) or path.suffix in (".md", ".png", ".svg", ".db", ".log"):
            content = b"there" if content else b""
        elif path.suffix in (".json", ".jsonl"):
            lines = content.decode().splitlines() if path.suffix == ".jsonl" else [content.decode()]
            content = json.dumps([without_times(json.loads(line)) for line in lines], sort_keys=True).encode()
        elif path.suffix == ".yaml":
            content = re.sub(rb"(?s)ran_with:.*", b"", content)
        found[name] = hashlib.sha256(content).hexdigest()[:16]
    return found


def compare(command: Command, found: dict[str, str], expected: dict[str, str]) -> None:
    for name in sorted(found.keys() | expected.keys()):
        if name not in found:
            raise FaultError(f"{name} is missing")
        if name not in expected:
            raise FaultError(f"{name} was left behind")
        if command.exact and found[name] != expected[name]:
            raise FaultError(f"{name} differs from that of an undisturbed run")


def one_line(status: int, errors: str) -> None:
    """A refusal: exit status 2 and one line."""
    lines = [line for line in errors.splitlines() if line.strip()]
    if status != 2 or len(lines) != 1 or not lines[0].startswith("unroll: "):
        raise FaultError(f"status {status} and {errors[-600:]!r}; expected status 2 and one line")


@contextmanager
def workplace(source: Path) -> Iterator[Path]:
    """A folder with what the commands need, of the same name each time, for recipes keep the paths of their data."""
    place = source.parent / "here"
    shutil.copytree(source, place)
    try:
        yield place
    finally:
        shutil.rmtree(place)


# ----------------------------------------------------------------------------------------------------------- accidents


def killed(command: Command, source: Path, expected: dict[str, str], seconds: float, draw: random.Random) -> str:
    """Kill a command up to three times, and go on until it ends by itself."""
    with workplace(source) as place:
        moments = [draw.uniform(0, 1.05 * seconds) for _ in range(draw.choice((1, 1, 2, 3)))]
        for moment in moments:
            status, errors = wait(start(command.next(place), place), place, moment)
            if status not in (0, -signal.SIGKILL) and "nothing to resume" not in errors:
                raise FaultError(f"killed after {moments} s, then status {status}: {errors[-600:]}")
        status, errors = wait(start(command.next(place), place), place)
        if status != 0 and "nothing to resume" not in errors:
            raise FaultError(f"killed after {moments} s, then status {status}: {errors[-600:]}")
        compare(command, left(place / command.out), expected)
        return f"killed {len(moments)} times"


def on_a_full_disk(
    command: Command, source: Path, expected: dict[str, str], seconds: float, draw: random.Random
) -> str:
    """Let a command run out of space, then make room and go on."""
    import resource

    with workplace(source) as place:
        size = draw.choice((0, 1000, 3000, 8000))  # stderr goes to a file too, and shall hold a line or nothing

        def limit() -> None:
            signal.signal(
                signal.SIGXFSZ, signal.SIG_IGN
            )  # then a write fails as on a full disk, only with another number
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

        status, errors = wait(start(command.next(place), place, limit), place)
        if status != 0 and not (size == 0 and not errors):  # no room even for the line on stderr
            one_line(status, errors)
        status, errors = wait(start(command.next(place), place), place)
        if status != 0 and "nothing to resume" not in errors:
            raise FaultError(f"after a disk with {size} bytes of room, status {status}: {errors[-600:]}")
        compare(command, left(place / command.out), expected)
        return f"{size} bytes of room"


def twice(command: Command, source: Path, expected: dict[str, str], seconds: float, draw: random.Random) -> str:
    """Start the same command twice; one does the work, the other is told so."""
    with workplace(source) as place:
        if command.again and draw.random() < 0.5:  # both go on with what a third left
            wait(start(command.begin, place), place, draw.uniform(0.3, 0.9) * seconds)
        pause = draw.choice((0.0, 0.0, 0.01, draw.uniform(0, seconds)))
        arguments = command.next(place)
        first = start(arguments, place)
        time.sleep(pause)
        second = start(arguments, place)
        ends = [wait(first, place), wait(second, place)]
        statuses = sorted(status for status, _ in ends)
        if statuses == [2, 2] and all("nothing to resume" in errors for _, errors in ends):
            statuses = [0]  # the third had finished
        elif statuses not in ([0, 0], [0, 2]):
            raise FaultError(f"two at once ended with {ends}")
        for status, errors in ends:
            if status == 2:
                one_line(status, errors)
        compare(command, left(place / command.out), expected)
        return f"two at once, ended with {statuses}"


ACCIDENTS = {"kill": killed, "full disk": on_a_full_disk, "two at once": twice}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--kills", type=int, default=100, help="over all commands; a quarter as many of the other accidents"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="COMMAND", choices=[command.name for command in COMMANDS])
    given = parser.parse_args()
    faults, counts = campaign(given.kills, given.seed, given.only, lambda line: print(line, flush=True))
    for fault in faults:
        print(fault)
    print(json.dumps({"campaign": "crash", "seed": given.seed, **counts, "faults": len(faults)}))
    sys.exit(bool(faults))


def campaign(
    kills: int, seed: int, only: list[str] | None, say: Callable[[str], None]
) -> tuple[list[str], dict[str, int]]:
    """All accidents; the faults, and how many accidents of each kind there were."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    import unroll.report.effects
    import unroll.report.figures
    import unroll.tuning.study  # noqa: F401
    from unroll.training import callbacks

    torch.set_num_threads(1)  # a fork in which OpenMP has been at work may hang
    callbacks.SECONDS_BETWEEN_SAVES = 0.0
    commands = [command for command in COMMANDS if only is None or command.name in only]
    numbers = {"kill": kills, "full disk": kills // 4, "two at once": kills // 4}
    draw = random.Random(seed)
    faults: list[str] = []
    with tempfile.TemporaryDirectory(prefix="unroll-crash-") as name:
        source = Path(name) / "source"
        source.mkdir()
        prepare(source)
        run = ["train", "a.yaml", "--out", "run", "--cell", "lstm", "--no-figures"]
        status, errors = wait(start(run, source), source)
        assert status == 0, errors
        undisturbed: dict[str, tuple[dict[str, str], float]] = {}
        for command in commands:
            with workplace(source) as place:
                began = time.monotonic()
                status, errors = wait(start(command.begin, place), place)
                if status:
                    raise SystemExit(f"{command.name} fails undisturbed: {errors}")
                undisturbed[command.name] = left(place / command.out), time.monotonic() - began
                say(f"{command.name}: {undisturbed[command.name][1]:.1f} s undisturbed")
        for kind, number in numbers.items():
            for n in range(number):
                command = commands[n % len(commands)]
                expected, seconds = undisturbed[command.name]
                try:
                    how = ACCIDENTS[kind](command, source, expected, seconds, random.Random(draw.random()))
                    say(f"{kind} {n + 1} of {number}, {command.name}: {how}")
                except FaultError as fault:
                    faults.append(f"{kind} {n + 1}, {command.name}: {fault}")
                    say(f"FAULT {faults[-1]}")
    return faults, numbers


if __name__ == "__main__":
    main()
