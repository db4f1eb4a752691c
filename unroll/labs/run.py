"""A run of a student's own file on the lab's data, kept in a folder of the kind "own code"; see `unroll.labs.own_run`.

A folder is made beside its place and renamed when it is whole. A run that came to no end of its own is kept too, with what it
had done until then, under a name that says so.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

from unroll.errors import InputError, RunError
from unroll.files import TEMPORARY, locked
from unroll.labs.child.entry import FIGURES, NOTES, OBSERVED
from unroll.labs.own_run import OwnRun, ending, write_own_run
from unroll.labs.process import Limits, run_child
from unroll.labs.source import Source, read_source
from unroll.terminal import printable, say

LIMITS = Limits(seconds=None, memory=16 << 30, file=4 << 30, output=64 << 20, go_on=True, grace=20, observed=2 << 30)
THREADS = 4
LOCK = "lab-run.lock"
UNFINISHED = "-unfinished"
INTERRUPTED = "KeyboardInterrupt"


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
        What is in the folder; its record's status is ``failed`` where the file did not come to its end, and the folder's name
        ends in ``-unfinished`` then, unless `out` names it.

    Raises:
        InputError: there is no such file.
        RunError: the folder is somebody else's or cannot be written, or the process ended and there is nothing to keep.
        KeyboardInterrupt: it was interrupted, and there is nothing to keep.
    """
    source = read_source(path)
    if not 0 <= seed < 1 << 63:
        raise InputError(f"seed is {seed}; expected a whole number from 0 to {(1 << 63) - 1}")
    target = out if out is not None else _free_folder(path.stem)
    _refuse_foreign(target)
    try:
        with _place(target) as place:
            work = place / "work"
            work.mkdir()
            threads = min(THREADS, os.cpu_count() or 1)
            task = {
                "name": "run", "file": str(path.absolute()), "sha256": source.sha256, "seed": seed, "threads": threads,
                "small": small,
            }  # fmt: skip
            log = _Log(echo)
            began, begin = datetime.datetime.now(datetime.UTC), time.monotonic()
            observed = run_child(task, LIMITS, log.write, work)
            log.close()
            if "child" in observed:
                observed = _left(observed["child"], source, work, log.text, time.monotonic() - begin)
            for name in (OBSERVED, NOTES):
                (work / name).unlink(missing_ok=True)  # read by now; the disk may be full
            from unroll.labs.recompute import compare

            whole = place / "run"
            write_own_run(
                whole,
                source,
                lab=lab,
                seed=seed,
                threads=threads,
                time=began,
                seen=observed,
                log=log.text,
                figures=work / FIGURES,
                engine=compare(observed["engine"], observed["prediction"].get("predicted")),
            )
            if out is None and OwnRun(whole).record.failure is not None:
                target = _free_folder(path.stem, unfinished=True)
            _put(whole, target)
    except OSError as error:
        raise RunError(f"{target} cannot be written: {error.strerror}") from None
    made = OwnRun(target)
    for line in summary(made):
        echo(line)
    return made


@contextmanager
def _place(target: Path) -> Iterator[Path]:
    """A folder beside another, to work in; it is removed at the end, or by the next run where this one is killed."""
    made_parent = not target.parent.exists()
    target.parent.mkdir(parents=True, exist_ok=True)
    parent = target.parent.absolute()  # since a file runs in another working folder
    _remove_left(parent)
    place = Path(tempfile.mkdtemp(dir=parent, prefix=f".{target.name}.", suffix=TEMPORARY))
    try:
        with locked(place / LOCK, RunError(f"{target} is being cleared by another run; try again")):
            yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        if made_parent:
            with suppress(OSError):
                target.parent.rmdir()  # if it is still empty


def _remove_left(parent: Path) -> None:
    """Remove what runs that were killed have left of `_place`. Their locks went with their processes."""
    for folder in parent.glob(f".*.*{TEMPORARY}"):
        lock = folder / LOCK
        # One that was killed between the two renames of `_put` holds what it was about to replace.
        if folder.is_symlink() or not lock.is_file() or ((folder / "old").exists() and (folder / "run").exists()):
            continue
        with suppress(RunError, OSError), locked(lock, RunError("it is at work")):
            shutil.rmtree(folder, ignore_errors=True)


def _left(child: dict[str, Any], source: Source, work: Path, log: str, seconds: float) -> dict[str, Any]:
    """What `observe_run` would have returned, as far as it is known of a run whose process handed nothing back.

    Raises:
        RunError: there is nothing.
        KeyboardInterrupt: neither, of one that was interrupted.
    """
    losses, figures = [], []
    with suppress(OSError):
        for line in (work / NOTES).read_bytes().splitlines():
            with suppress(ValueError):  # the last one, cut
                row = json.loads(line)
                losses += [row["loss"]] if "loss" in row else []
                figures += [row["figure"]] if "figure" in row else []
    interrupted = child["reason"] == "interrupted"
    if not (log.strip() or losses or figures):
        if interrupted:
            raise KeyboardInterrupt
        raise RunError(f"{source.path} left no result: {child['message']}")
    from unroll.labs.child.observe_run import versions
    from unroll.labs.hyperparameters import hyperparameters

    message = f"{child['message']}; its model and its predictions are lost"
    return {
        "outcome": {"error": {"type": INTERRUPTED if interrupted else "Unfinished", "message": message, "line": None}},
        "seconds": seconds,
        "losses": losses,
        "figures": figures,
        "hyperparameters": hyperparameters(source, {}),
        "optimizer": None,
        "model": None,
        "weights": {},
        "prediction": {"reason": "the file ended early"},
        "engine": None,
        "images": None,
        "warnings": [],
        "versions": versions(),
    }


def _free_folder(name: str, unfinished: bool = False) -> Path:
    """runs/NAME, or runs/NAME-2 and so on where that is taken; one for what is unfinished takes the place of another such."""
    end = UNFINISHED if unfinished else ""
    paths = (Path("runs") / f"{name}{end}{'' if number == 1 else f'-{number}'}" for number in count(1))
    return next(path for path in paths if not path.exists() or (unfinished and _is_unfinished(path)))


def _is_unfinished(path: Path) -> bool:
    try:
        return OwnRun(path).record.failure is not None
    except RunError:
        return False


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
        self._rest: list[str] = []  # of a line that has not ended
        self._lock = threading.Lock()

    def write(self, text: str) -> None:
        with self._lock:
            self._rest.append(text)
            if "\n" not in text:
                return
            *lines, rest = "".join(self._rest).replace("\r\n", "\n").split("\n")
            self._rest = [rest]
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
            if rest := "".join(self._rest):
                self._take(rest)
            self._rest = []

    @property
    def text(self) -> str:
        return "".join(f"{line}\n" for line in self._lines)


def summary(run: OwnRun) -> list[str]:
    """What there is to say at the end of a run, in lines."""
    record = run.record
    lines = []
    if record.failure is not None:
        lines += ending(run.source, record.failure)
    if record.lost:
        lines.append(f"Lost, since it could not be written: {', '.join(record.lost)}")
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
