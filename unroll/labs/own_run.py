"""The folder of the kind "own code": what a run of a student's own file leaves behind.

code.py, code.ipynb   the very bytes that ran
log.txt               what it printed, and what Python said where it ended early
losses.jsonl          step and loss of each ``backward()``
figures/01.png …      the figures that it showed, saved or left open
model.safetensors     the weights of its model, where it had one
predictions.npz       the classes that this model gives the 10,000 test images
own.json              what is known of the run, with the SHA-256 of every other file
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from unroll.data.images import read_part
from unroll.errors import RunError, shortened
from unroll.files import refuse_special, save_tensors, write_atomically
from unroll.labs.problems import GAP
from unroll.labs.source import Source, read_source
from unroll.terminal import printable

KIND: Literal["own code"] = "own code"
RECORD = "own.json"
VERSION: Literal[1] = 1
MOST_RECORD = 8 << 20  # bytes
ROOM = 1 << 16  # bytes, of most records
MOST_BYTES = 256 << 20  # of another file that is read as a whole
SAME = 0.0501  # points of percent; accuracies that are so near are one number, printed with one decimal
EARLIEST = datetime.datetime(1980, 1, 1, tzinfo=datetime.UTC)
LATEST = datetime.datetime(2999, 12, 31, tzinfo=datetime.UTC)
ACCURACY = re.compile(r"(?<![^\W_])acc(?:uracy)?\b(.*?)(?=(?<![^\W_])acc(?:uracy)?\b|$)", re.IGNORECASE | re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.,-])(\d{1,3}(?:\.\d+)?)(?![\w.,]*\w)\s*(%?)")


class Failure(BaseModel):
    """How a file ended early."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str
    message: str
    line: int | None = None
    place: str | None = None

    @property
    def said(self) -> str:
        """What Python said, as it says it."""
        return f"{self.type}: {self.message}" if self.message else self.type


class Figure(BaseModel):
    """One of the run's figures: its title as a whole, empty where it has none, and all the titles in it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(pattern=r"^[0-9]{2}\.png$")
    title: str = ""
    titles: list[str] = []


class OwnRecord(BaseModel):
    """``own.json``.

    Attributes:
        lab: as it was called.
        time: when it began.
        file, sha256: name of the file that ran, and of its content.
        status: ``complete``, or ``failed`` where the file ended early.
        failure: then, how.
        seed, threads: what was fixed before it ran.
        seconds: of its run.
        steps, first_loss, last_loss: of its losses.
        images: test images that were served; None where it read none.
        correct, accuracy: of its model, over all of them, in percent; None where no model could be asked.
        not_recomputed: why not.
        engine_accuracy, engine_agrees: the same in percent by this package's engine, from the weights of the cell and the
            output layer, and how many of its predictions are the model's own; None where the two cannot be compared.
        not_by_engine: why not.
        printed_accuracy: the last one that it printed, in percent.
        figures, hyperparameters, optimizer, model, versions, warnings: what was seen.
        lost: files that could not be written, with the reason.
        files: SHA-256 of the other files of the folder.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["own code"]
    version: Literal[1]
    lab: str
    file: str
    code: Literal["code.py", "code.ipynb"]
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    status: Literal["complete", "failed"]
    time: AwareDatetime = Field(ge=EARLIEST, le=LATEST)
    failure: Failure | None = None
    seed: int
    threads: int
    seconds: float = Field(ge=0, allow_inf_nan=False)
    steps: int = Field(ge=0)
    first_loss: float | None = None
    last_loss: float | None = None
    images: int | None = Field(None, ge=1)
    correct: int | None = Field(None, ge=0)
    accuracy: float | None = Field(None, ge=0, le=100)
    not_recomputed: str | None = None
    engine_accuracy: float | None = Field(None, ge=0, le=100)
    engine_agrees: int | None = Field(None, ge=0)
    not_by_engine: str | None = None
    printed_accuracy: float | None = Field(None, ge=0, allow_inf_nan=False)
    figures: list[Figure] = []
    hyperparameters: dict[str, Any] = {}
    optimizer: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    versions: dict[str, str] = {}
    warnings: list[str] = []
    lost: list[str] = []
    files: dict[str, str] = {}

    @property
    def differs(self) -> bool:
        """Whether the file printed another accuracy than its model has."""
        printed, computed = self.printed_accuracy, self.accuracy
        return printed is not None and computed is not None and abs(printed - computed) > SAME


class OwnRun:
    """A folder that `run_lab` made.

    Attributes:
        path: the folder.
        record: what is known of the run.

    Raises:
        RunError: it is none, or not as it was written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        file = self.path / RECORD
        if self.path.is_file():
            raise RunError(f"{self.path} is a file; expected a run folder, as unroll lab run makes it")
        if not self.path.is_dir():
            raise RunError(f"{self.path} does not exist; run your code first: unroll lab run my_lab.py")
        if not file.is_file():
            if (self.path / "recipe.yaml").is_file():
                raise RunError(
                    f"{self.path} is a run of a recipe, not of your own code; run that first (unroll lab run my_lab.py), and "
                    "take its folder"
                )
            raise RunError(
                f"{self.path} is no run of own code: it has no {RECORD}; make one with: unroll lab run my_lab.py"
            )
        try:
            if file.stat().st_size > MOST_RECORD:
                raise self._damaged(RECORD, "it is too large")
            self.record = OwnRecord.model_validate_json(file.read_bytes())
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise self._damaged(RECORD, f"{where}: {first['msg']}") from None
        except OSError as error:
            raise self._damaged(RECORD, error.strerror or "unreadable") from None
        files, figures = self.record.files, {f"figures/{figure.file}" for figure in self.record.figures}
        missing = {self.record.code, "log.txt", "losses.jsonl"} | figures
        if missing - set(files) or files[self.record.code] != self.record.sha256:
            raise self._damaged(RECORD, "it lacks the SHA-256 of a file")
        for name, digest in files.items():
            if self._digest(name) != digest:
                what = "is not the code that ran: it" if name == self.record.code else "is not what the run wrote: it"
                raise RunError(
                    f"{self.path / name} {what} was changed after the run, as its hash in {RECORD} shows; run yours again "
                    f"with: {self.again}"
                )

    @property
    def again(self) -> str:
        """The command that runs the file again."""
        return f"unroll lab run {self.record.file}"

    def _damaged(self, name: str, why: str) -> RunError:
        why = shortened(why, 300)
        return RunError(f"{self.path / name} is damaged ({why}); run your code again with: unroll lab run my_lab.py")

    def _place(self, name: str) -> Path:
        """A file of the folder; RunError where there is none."""
        if not re.fullmatch(r"(figures/)?\w[\w.]*", name):
            raise self._damaged(RECORD, f"{name[:80]!r} is no file of the folder")
        path = self.path / name
        try:
            refuse_special(path)
        except OSError as error:
            raise self._damaged(name, error.strerror or "unreadable") from None
        return path

    def _digest(self, name: str) -> str:
        try:
            with self._place(name).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise self._damaged(name, error.strerror or "unreadable") from None

    def _read(self, name: str) -> bytes:
        path = self._place(name)
        try:
            if path.stat().st_size > MOST_BYTES:
                raise self._damaged(name, f"more than {MOST_BYTES >> 20} MB")
            return path.read_bytes()
        except OSError as error:
            raise self._damaged(name, error.strerror or "unreadable") from None

    @cached_property
    def source(self) -> Source:
        """The code that ran."""
        return read_source(self.path / self.record.code)

    @cached_property
    def log(self) -> str:
        """What it printed."""
        text = self._read("log.txt").decode(errors="replace")
        return (
            text if self.record.failure is None else text.removesuffix(_text(ending(self.source, self.record.failure)))
        )

    @cached_property
    def losses(self) -> NDArray[np.float64]:
        """(steps,): the loss of each training step; NaN where it was no finite number."""
        rows = self._read("losses.jsonl").splitlines()
        try:
            return np.array([_number(json.loads(row)["loss"]) for row in rows], dtype=np.float64)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            raise self._damaged("losses.jsonl", "expected a line of JSON with the loss of each step") from None

    @property
    def figures(self) -> list[Path]:
        """The pictures, in order."""
        return [self.path / "figures" / figure.file for figure in self.record.figures]

    @cached_property
    def predicted(self) -> NDArray[np.int64] | None:
        """(N,): the classes that its model gives the test images; None where it could not be asked."""
        if "predictions.npz" not in self.record.files:
            return None
        try:
            with np.load(self._place("predictions.npz"), allow_pickle=False) as file:
                found: NDArray[np.int64] = file["predicted"]
        except (OSError, ValueError, KeyError) as error:
            raise self._damaged("predictions.npz", type(error).__name__) from None
        if found.dtype.kind not in "iu" or found.shape != (self.record.images,):
            raise self._damaged("predictions.npz", f"it has the shape {found.shape}")
        return found


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)


def ending(source: Source, failure: Failure) -> list[str]:
    """The line that a file ended at, and what Python says; of a starter's gap, which it is and where."""
    gap = GAP.fullmatch(failure.message)
    if gap is not None:
        return [f"Gap {gap['number']} comes next, at {source.place(int(gap['line']))}: {gap['what']}"]
    lines = ["The file ended early" + ("." if failure.place is None else f", at {failure.place}:")]
    written = source.listing.split("\n")
    if failure.line is not None and 0 < failure.line <= len(written):
        lines.append(f"    {written[failure.line - 1].strip()}")
    return [*lines, failure.said]


def _text(lines: list[str]) -> str:
    return "".join(f"{printable(line)}\n" for line in lines)


def write_own_run(
    folder: Path,
    source: Source,
    *,
    lab: str,
    seed: int,
    threads: int,
    time: datetime.datetime,
    seen: dict[str, Any],
    log: str,
    figures: Path,
    engine: dict[str, Any],
) -> None:
    """Write a folder of this kind; it must not exist yet. What the disk does not take is named in it, and makes it a failed one.

    Args:
        source: the file that ran.
        time: when it began.
        seen: what `unroll.labs.child.observe_run.observe_run` returned.
        log: what was printed, in whole lines.
        figures: the folder that the figures of `seen` lie in; it is moved.
        engine: fields of the record by `unroll.labs.recompute.compare`.
    """
    folder.mkdir()
    code: Literal["code.py", "code.ipynb"] = "code.ipynb" if source.path.suffix.lower() == ".ipynb" else "code.py"
    room = folder / RECORD
    room.write_bytes(bytes(ROOM))  # kept for the record, should the disk become full
    write_atomically(folder / code, source.content)
    outcome, predicted = seen["outcome"], seen["prediction"].get("predicted")
    failure = None
    if outcome["error"] is not None:
        line = outcome["error"]["line"]
        failure = Failure(**outcome["error"], place=None if line is None else source.place(line))
    losses = [float(value) for value in seen["losses"]]
    rows = ({"step": step, "loss": value if np.isfinite(value) else None} for step, value in enumerate(losses, start=1))
    if seen["figures"]:
        shutil.move(figures, folder / "figures")  # takes no room
    correct = None
    if predicted is not None:
        correct = int((predicted == read_part(None, "test")[1][: len(predicted)]).sum())
    lost: list[str] = []

    def write(name: str, content: Callable[[], bytes | str | None]) -> None:
        try:
            if (found := content()) is not None:
                write_atomically(folder / name, found)
        except OSError as error:
            lost.append(f"{name} ({error.strerror})")

    write("losses.jsonl", lambda: "".join(f"{json.dumps(row)}\n" for row in rows))
    write("predictions.npz", lambda: None if predicted is None else _packed(predicted))
    if seen["weights"]:
        write("model.safetensors", lambda: _save_model(folder, seen, source))
    unwritten = Failure(type="Unfinished", message="the disk has no room for all of the run")
    failure = failure or (unwritten if lost else None)
    write("log.txt", lambda: log + ("" if failure is None else _text(ending(source, failure))))
    failure = failure or (unwritten if lost else None)
    for name in ("losses.jsonl", "log.txt"):
        (folder / name).touch()
    room.unlink()
    finite = [value for value in losses if np.isfinite(value)]
    record = OwnRecord(
        kind=KIND,
        version=VERSION,
        lab=lab,
        file=source.path.name,
        code=code,
        sha256=source.sha256,
        status="complete" if failure is None else "failed",
        time=time.replace(microsecond=0),
        failure=failure,
        seed=seed,
        threads=threads,
        seconds=round(seen["seconds"], 3),
        steps=len(losses),
        first_loss=finite[0] if finite else None,
        last_loss=finite[-1] if finite else None,
        images=seen["images"],
        correct=correct,
        accuracy=None if correct is None or predicted is None else 100 * correct / len(predicted),
        not_recomputed=seen["prediction"].get("reason") if seen["images"] else None,
        **engine,
        printed_accuracy=printed_accuracy(log),
        figures=[Figure(**row) for row in seen["figures"]],
        hyperparameters=seen["hyperparameters"],
        optimizer=seen["optimizer"],
        model=seen["model"],
        versions=seen["versions"],
        warnings=[shortened(text) for text in seen["warnings"]],
        lost=lost,
        files={
            file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        },
    )
    write_atomically(folder / RECORD, record.model_dump_json(indent=1) + "\n")


def _packed(predicted: NDArray[np.int64]) -> bytes:
    room = io.BytesIO()
    np.savez(room, predicted=predicted)
    return room.getvalue()


def _save_model(folder: Path, seen: dict[str, Any], source: Source) -> None:
    import torch

    tensors = {name: torch.from_numpy(value) for name, value in seen["weights"].items()}
    save_tensors(folder / "model.safetensors", tensors, {"kind": KIND, "model": seen["model"], "code": source.sha256})


def printed_accuracy(log: str) -> float | None:
    """The last accuracy of the test that a log holds, in percent; of any, where none says that it is the test's.

    >>> printed_accuracy("Train accuracy: 99.0%\\nTest Accuracy: 28.48%\\nTrain accuracy: 99.1%")
    28.48
    >>> printed_accuracy("acc = 0.9"), printed_accuracy("done")
    (90.0, None)
    >>> printed_accuracy("Accuracy on the 10000 test images: 97.5 %"), printed_accuracy("Accuracy: 9412/10000 = 0.9412")
    (97.5, 94.12)
    """
    found = printed_accuracies(log)
    return found[-1][0] if found else None


def printed_accuracies(log: str) -> list[tuple[float, float]]:
    """All such accuracies in order, in percent, each with what its last digit is worth.

    >>> printed_accuracies("Test accuracy: 0.97\\nTest accuracy: 97.31%")
    [(97.0, 1.0), (97.31, 0.01)]
    """
    found = []
    for line in log.splitlines():
        for match in ACCURACY.finditer(line):
            numbers = [(float(text), sign, text) for text, sign in NUMBER.findall(match[1]) if float(text) <= 100]
            # A share of 1 or a percentage, and not the number of an epoch: one with a sign or a point, where there is one.
            numbers = [n for n in numbers if n[1]] or [n for n in numbers if n[0] % 1] or numbers
            if numbers:
                found.append((line, *numbers[0]))
    chosen = [row for row in found if "test" in row[0].lower()] or found
    return [_percent(*row[1:]) for row in chosen]


def _percent(value: float, sign: str, text: str) -> tuple[float, float]:
    digit = 10.0 ** -len(text.partition(".")[2])
    return (round(100 * value, 10), 100 * digit) if not sign and value <= 1 else (value, digit)
