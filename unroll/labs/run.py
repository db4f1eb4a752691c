"""A run of a student's own file on the lab's data, kept in a folder of the kind "own code"; see `unroll.labs.own_run`.

A folder is made beside its place and renamed when it is whole: what is there was not interrupted.
"""

from __future__ import annotations

import datetime
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

from unroll.errors import InputError, RunError
from unroll.files import TEMPORARY
from unroll.labs.own_run import Failure, OwnRun, write_own_run
from unroll.labs.problems import GAP
from unroll.labs.process import Limits, run_child
from unroll.labs.source import Source, read_source
from unroll.terminal import printable, say

LIMITS = Limits(seconds=None, memory=16 << 30, file=4 << 30, output=64 << 20, observed=2 << 30)
THREADS = 4
"""What a starter says of its first gap (see `unroll/labs/starter`)."""


def run_lab(
    path: Path,
    lab: str,
    out: Path | None = None,
    seed: int = 0,
    echo: Callable[[str], object] = say,
    *,
    small: bool = False,
) -> OwnRun:
    """Run a student's own file on the whole data of its lab, and keep what it printed, drew, learnt and predicts.

    Args:
        path: a script or a notebook.
        lab: what the lab is called; it is noted.
        out: the folder to make, or to make anew if it is a run of this kind; None: a new one in ``runs``, called after the
            file.
        seed: of the generators, which are set before the file begins.
        echo: is given each line, as it is printed, and what there is to say at the end.
        small: serve few images, for trying.

    Returns:
        What is in the folder; its record's status is ``failed`` where the file ended with an exception.

    Raises:
        InputError: there is no such file.
        RunError: the folder is somebody else's or cannot be written, or the process ended without a result.
    """
    source = read_source(path)
    if not 0 <= seed < 1 << 63:
        raise InputError(f"seed is {seed}; expected a whole number from 0 to {(1 << 63) - 1}")
    target = out if out is not None else _free_folder(path.stem)
    _refuse_foreign(target)
    made_parent = not target.parent.exists()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Absolute, since a file runs in another working folder.
        place = Path(tempfile.mkdtemp(dir=target.parent.absolute(), prefix=f".{target.name}.", suffix=TEMPORARY))
    except OSError as error:
        raise RunError(f"{target} cannot be made: {error.strerror}") from None
    try:
        work = place / "work"
        work.mkdir()
        threads = min(THREADS, os.cpu_count() or 1)
        task = {
            "name": "run", "file": str(path.absolute()), "sha256": source.sha256, "seed": seed, "threads": threads,
            "small": small,
        }  # fmt: skip
        log = _Log(echo)
        began = datetime.datetime.now(datetime.UTC)
        observed = run_child(task, LIMITS, log.write, work)
        log.close()
        if "child" in observed:
            raise RunError(f"{path} left no result: {observed['child']['message']}")
        whole = place / "run"
        from unroll.labs.recompute import compare

        write_own_run(
            whole,
            source,
            lab=lab,
            seed=seed,
            threads=threads,
            time=began,
            seen=observed,
            log=log.text,
            figures=work / "figures",
            engine=compare(observed["engine"], observed["prediction"].get("predicted")),
        )
        _put(whole, target)
    except OSError as error:
        raise RunError(f"{target} cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if made_parent:
            with suppress(OSError):
                target.parent.rmdir()  # if it is still empty
    made = OwnRun(target)
    for line in summary(made):
        echo(line)
    return made


def _free_folder(name: str) -> Path:
    """runs/NAME, or runs/NAME-2 and so on where that is taken."""
    paths = (Path("runs") / (name if number == 1 else f"{name}-{number}") for number in count(1))
    return next(path for path in paths if not path.exists())


def _refuse_foreign(target: Path) -> None:
    """Raise RunError where something would be lost that is no run of this kind."""
    if not target.exists():
        return
    if not target.is_dir():
        raise RunError(f"{target} cannot be a run folder: a file stands in the way; name another with --out")
    if not any(target.iterdir()):
        return
    try:
        OwnRun(target)
    except RunError:
        raise RunError(
            f"{target} holds something else than a run of your own code, or one that was changed since; name another with --out"
        ) from None


def _put(whole: Path, target: Path) -> None:
    """Rename a folder into its place, and remove what was there."""
    _refuse_foreign(target)  # again: the run took its time
    old = whole.parent / "old"
    if target.exists():
        os.rename(target, old)
    try:
        os.rename(whole, target)
    except OSError:
        if old.exists():
            os.rename(old, target)
        raise


class _Log:
    """Takes text in pieces from a thread, and hands on whole lines."""

    def __init__(self, echo: Callable[[str], object]) -> None:
        self._echo = echo
        self._lines: list[str] = []
        self._rest = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        with self._lock:
            *lines, self._rest = (self._rest + text).replace("\r\n", "\n").split("\n")
            for line in lines:
                self._take(line)

    def _take(self, line: str) -> None:
        # A bar of progress writes over its line; what a terminal would show in the end is kept.
        line = printable(next((part for part in reversed(line.split("\r")) if part), ""))
        self._lines.append(line)
        with suppress(OSError, ValueError):  # a terminal that is gone
            self._echo(line)

    def close(self) -> None:
        with self._lock:
            if self._rest:
                self._take(self._rest)
                self._rest = ""

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)


def summary(run: OwnRun) -> list[str]:
    """What there is to say at the end of a run, in lines."""
    record = run.record
    lines = []
    if record.failure is not None:
        lines += _failure(run.source, record.failure)
    if record.accuracy is not None and record.images is not None:
        of = f"{record.correct:,} of {record.images:,} test images"
        lines.append(f"Recomputed from the model's weights: {record.accuracy:.2f}% ({of})")
        if record.differs:
            lines.append(
                f"The file printed an accuracy of {record.printed_accuracy:g}%, but its model classifies "
                f"{record.accuracy:.2f}% of the test images; the recomputed number counts."
            )
        if record.engine_accuracy is not None:
            equal = f"{record.engine_agrees:,} of {record.images:,} predictions equal"
            lines.append(f"Unroll's engine, from its weights: {record.engine_accuracy:.2f}% ({equal})")
    elif record.not_recomputed is not None and record.failure is None:
        lines.append(f"The accuracy could not be recomputed: {record.not_recomputed}.")
    return lines


def _failure(source: Source, failure: Failure) -> list[str]:
    """The line that a file ended at, and what Python says; of a starter's gap, which it is and where."""
    gap = GAP.fullmatch(failure.message)
    if gap is not None:
        return [f"Gap {gap['number']} comes next, at {source.place(int(gap['line']))}: {gap['what']}"]
    lines = ["The file ended early" + ("." if failure.place is None else f", at {failure.place}:")]
    written = source.listing.split("\n")
    if failure.line is not None and 0 < failure.line <= len(written):
        lines.append(f"    {written[failure.line - 1].strip()}")
    return [*lines, failure.said]
