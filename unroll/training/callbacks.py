"""Callbacks of `unroll.training.fit`: averaging, early stopping, printing, the files of a run folder, TensorBoard."""

from __future__ import annotations

import io
import json
import math
import os
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TextIO

import torch
from torch import Tensor
from tqdm import tqdm

from unroll import optim
from unroll.data.batches import Dataset
from unroll.engines import explain
from unroll.equations.cell import ProgramCell
from unroll.errors import InputError, RunError
from unroll.files import load_header, load_tensors, save_tensors
from unroll.terminal import is_terminal
from unroll.training import distributed
from unroll.training.fit import Callback, Training
from unroll.training.recipe import AnyRecipe
from unroll.training.saved import (
    AGAIN,
    Count,
    Finite,
    Position,
    Strict,
    check_architecture,
    checked,
    checked_history,
    checked_recipe,
    difference,
    fingerprints,
)

SECONDS_BETWEEN_SAVES = 5.0  # an epoch that ends sooner after the last save is not saved: it is quickly run again
Say = Callable[[str], None]


class Average(Callback):
    """Evaluate with a moving average of the weights (`unroll.optim.WeightAverage`)."""

    name = "average"

    def __init__(self, decay: float) -> None:
        self.decay = decay

    def on_begin(self, training: Training) -> None:
        self._average = optim.WeightAverage(training.optimizer.theta, self.decay)
        training.chosen = self._average.average

    def on_step(self, training: Training, step: int, loss: float) -> None:
        self._average.update(training.optimizer.theta)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return self._average.state_dict(), {}

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any], training: Training) -> None:
        self._average.load_state_dict(tensors)


class EarlyStopping(Callback):
    """Stop after `patience` epochs without a better held-out loss, and choose the weights of the best epoch."""

    name = "early_stopping"

    def __init__(self, patience: int) -> None:
        self.patience = patience

    class State(Strict):
        """What a save has to say of it; best_loss is None and best_epoch 0 while there is no best epoch yet."""

        best_loss: Finite | None
        best_epoch: Count

    def on_begin(self, training: Training) -> None:
        if training.data.validation is None:
            raise InputError("early stopping needs a held-out part; set validation, such as 0.1")
        self.best_loss = math.inf
        self.best_epoch = 0
        self._best = training.optimizer.theta.clone()

    def on_epoch(self, training: Training, row: dict[str, Any]) -> None:
        if row["validation_loss"] < self.best_loss:
            self.best_loss, self.best_epoch = row["validation_loss"], row["epoch"]
            with training.with_chosen_weights():
                self._best.copy_(training.optimizer.theta)
        training.stop |= training.epoch - self.best_epoch >= self.patience

    def on_end(self, training: Training) -> None:
        if self.best_epoch:
            training.chosen = self._best

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        best_loss = self.best_loss if math.isfinite(self.best_loss) else None
        return {"best": self._best}, {"best_loss": best_loss, "best_epoch": self.best_epoch}

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any], training: Training) -> None:
        state = checked(self.State, values, "the state of early stopping")
        self._best.copy_(tensors["best"])
        self.best_loss = math.inf if state.best_loss is None else state.best_loss
        self.best_epoch = state.best_epoch
        training.stop |= training.epoch - self.best_epoch >= self.patience


class Listener(Callback):
    """Call a function with each epoch's row; what it raises ends the training."""

    def __init__(self, listen: Callable[[dict[str, Any]], None]) -> None:
        self._listen = listen

    def on_epoch(self, training: Training, row: dict[str, Any]) -> None:
        self._listen(row)


class ProgressBar(Callback):
    """A bar on stderr, where that is a terminal."""

    _bar: Any = None  # until the training begins

    def on_begin(self, training: Training) -> None:
        self._bar = tqdm(
            total=training.settings.epochs * training.steps_per_epoch,
            initial=training.epoch * training.steps_per_epoch,
            unit=" steps",
            unit_scale=True,
            dynamic_ncols=True,
            leave=False,
            disable=not (distributed.leads() and is_terminal(sys.stderr)),
        )

    def on_step(self, training: Training, step: int, loss: float) -> None:
        self._bar.update()

    def on_close(self, training: Training) -> None:
        if self._bar is not None:
            self._bar.close()


class Printer(Callback):
    """Print the labs' lines: losses within epochs (``log="steps"``), or of some epochs only (``log="epochs"``)."""

    def __init__(self, say: Say, log: str, every: int) -> None:
        self._say = say
        self._by_steps = log == "steps"
        self._every = every

    def on_step(self, training: Training, step: int, loss: float) -> None:
        if self._by_steps and step % self._every == 0:
            self._line(training, training.epoch + 1, f", Step [{step}/{training.steps_per_epoch}], Loss: {loss:.4f}")

    def on_epoch(self, training: Training, row: dict[str, Any]) -> None:
        if not self._by_steps:
            if row["epoch"] % self._every == 0:
                self._line(training, row["epoch"], f" - Loss: {sum(training.losses):.4f}")
            return
        text = f", Average Loss: {row['loss']:.4f}"
        if "validation_loss" in row:
            held_out = {name.removeprefix("validation_"): value for name, value in row.items()}
            summary = training.model.head.summary(held_out)
            text += f", Validation Loss: {row['validation_loss']:.4f}, Validation {summary}"
        self._line(training, row["epoch"], text)

    def _line(self, training: Training, epoch: int, text: str) -> None:
        with tqdm.external_write_mode():
            self._say(f"Epoch [{epoch}/{training.settings.epochs}]{text}")


class Diary:
    """log.txt and history.jsonl of a run folder, open for writing, and what is printed.

    A process that is not the first keeps its diary to itself.
    """

    def __init__(self, folder: Path, echo: Say) -> None:
        self._echo = echo
        self._log: TextIO
        self._history: TextIO
        if distributed.leads():
            self._log = open(folder / "log.txt", "a", encoding="utf-8")  # noqa: SIM115 - closed by __exit__
            self._history = open(folder / "history.jsonl", "a", encoding="utf-8")  # noqa: SIM115
        else:
            self._log, self._history = io.StringIO(), io.StringIO()
            self._echo = lambda line: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()
        self._history.close()

    def line(self, text: str) -> None:
        """Print a line, and keep it."""
        self._echo(text)
        self._log.write(text + "\n")
        self._log.flush()

    def epoch(self, row: dict[str, Any]) -> None:
        """Keep an epoch's row."""
        self._history.write(json.dumps(row) + "\n")
        self._history.flush()

    def sizes(self) -> tuple[int, int]:
        """Where log.txt and history.jsonl end, all of them on the disk."""
        for file in (self._log, self._history):
            os.fsync(file.fileno())
        return self._log.tell(), self._history.tell()

    def check(self, log: int, history: int, epochs: int) -> None:
        """Before `truncate`.

        Raises:
            RunError: a file is shorter than it was, or the history is not that of so many epochs.
        """
        for file, size in ((self._log, log), (self._history, history)):
            path = Path(file.name)
            content = path.read_bytes()[:size]
            if len(content) < size:
                raise RunError(
                    f"{path} has {len(content)} bytes, but had {size} when the run was saved: what is missing cannot be "
                    f"made again; put the whole file back, or {AGAIN}"
                )
            if content[-1:] not in (b"", b"\n"):
                raise RunError(f"{path} is not what it was when the run was saved; put the file back, or {AGAIN}")
        rows = checked_history(content.decode(errors="replace"), path)
        if len(rows) != epochs:
            raise RunError(f"{path} is damaged: it holds {len(rows)} of the {epochs} epochs that are saved; {AGAIN}")

    def truncate(self, log: int, history: int) -> None:
        """Take back what was written after a save: those epochs are about to be run again."""
        self._log.truncate(log)
        self._history.truncate(history)


class History(Callback):
    """Write each epoch's row to history.jsonl, with the losses of every `every`-th batch."""

    def __init__(self, diary: Diary, log: str, every: int) -> None:
        self._diary = diary
        self._every = every if log == "steps" else None

    def on_epoch(self, training: Training, row: dict[str, Any]) -> None:
        every = self._every or training.steps_per_epoch
        row["steps"] = [[i + 1, training.losses[i]] for i in range(every - 1, len(training.losses), every)]
        self._diary.epoch(row)


class TensorBoard(Callback):
    """Write event files."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        self._events = SummaryWriter(folder)

    def on_epoch(self, training: Training, row: dict[str, Any]) -> None:
        for name, value in row.items():
            if isinstance(value, float):
                self._events.add_scalar(name, value, row["epoch"])

    def on_close(self, training: Training) -> None:
        self._events.close()


class Engines(Callback):
    """Say which engine runs a cell of one's own, and why not a faster one; a line of the log, so after the `Saver`.

    Args:
        words: the first layer reads word indices.
    """

    def __init__(self, diary: Diary, words: bool) -> None:
        self._diary = diary
        self._words = words

    def on_begin(self, training: Training) -> None:
        model: Any = training.model
        layers = model.layers
        cell, like = layers.cells[0][0], training.optimizer.theta
        x = like.new_zeros(1, 1, dtype=torch.int64) if self._words else like.new_zeros(1, 1, layers.input_size or 1)
        name, obstacle = explain(layers.engine, cell, x)
        as_what = f"its step program, {cell.operations} operations" if isinstance(cell, ProgramCell) else "its own step"
        called = cell.called if isinstance(cell, ProgramCell) else type(getattr(cell, "module", cell)).__name__
        why = "" if obstacle is None else f": {obstacle}"
        self._diary.line(f"Cell {called}: the {name} engine runs {as_what}{why}")


class Saver(Callback):
    """Save where to go on, at most every few seconds, and go on there.

    Args:
        path: the file, resume.safetensors.
        diary: is taken back to where it was.
        recipe, dataset: what is trained, which must be what the save was made of.
        resume: go on from the file, if there is one; else begin anew, with what is to be said of the data.
    """

    def __init__(self, path: Path, diary: Diary, recipe: AnyRecipe, dataset: Dataset, resume: bool) -> None:
        self._path = path
        self._diary = diary
        self._recipe = recipe
        self._dataset = dataset
        self._resume = resume

    @cached_property
    def _data(self) -> dict[str, str]:
        return fingerprints(self._dataset)  # no sooner than the first save: most runs are over by then

    def on_begin(self, training: Training) -> None:
        self._saved_at = time.perf_counter()
        if not (self._resume and self._restore(training)):
            self._diary.truncate(0, 0)
            for note in self._dataset.notes:
                self._diary.line(note)

    def on_epoch(self, training: Training, row: dict[str, Any]) -> None:
        if distributed.leads() and time.perf_counter() - self._saved_at > SECONDS_BETWEEN_SAVES:
            self._save(training)

    def _save(self, training: Training) -> None:
        log, history = self._diary.sizes()
        position = Position(
            epoch=training.epoch,
            seconds=training.seconds,
            log=log,
            history=history,
            threads=torch.get_num_threads(),
            recipe=self._recipe.model_dump(),
            data=self._data,
            callbacks={callback.name: callback.state()[1] for callback in training.callbacks if callback.name},
        )
        save_tensors(self._path, _tensors(training), {"position": position.model_dump()})
        self._saved_at = time.perf_counter()

    def _restore(self, training: Training) -> bool:
        """Go back to the last save; False where there is none.

        Raises:
            RunError: the save is damaged or of another version, or recipe, data, log.txt or history.jsonl have changed.
        """
        saved = distributed.lead(lambda: self._read(training) if self._path.is_file() else None)
        if saved is None:
            return False
        tensors, position = saved
        torch.set_num_threads(position.threads)  # sums are the same to the bit only with as many threads
        training.optimizer.theta.copy_(tensors["theta"])
        training.optimizer.load_state_dict(_part(tensors, "optimizer."))
        training.epoch = position.epoch
        training.seconds = position.seconds
        for callback in training.callbacks:
            if callback.name is not None:
                callback.restore(_part(tensors, f"{callback.name}."), position.callbacks[callback.name], training)
        self._diary.truncate(position.log, position.history)
        return True

    def _read(self, training: Training) -> tuple[dict[str, Tensor], Position]:
        """The save, fit to go on with; read by the process that has it, for all."""
        shapes, metadata = load_header(self._path)
        if not isinstance(found := metadata.get("position"), dict) or "data" not in found:
            raise RunError(f"{self._path} was written by another version of this package; {AGAIN}")
        if set(metadata) != {"position"}:
            raise RunError(f"{self._path} is damaged: its metadata have other entries than position; {AGAIN}")
        position = checked(Position, found, self._path, "position.")
        changed = difference(
            checked_recipe(position.recipe, self._path),
            self._recipe,
            "{0} was {1} when training began and is {2} in recipe.yaml now",
        )
        if changed is not None:
            raise RunError(f"{self._path.parent}: {changed}; change it back, or train a new run")
        for part, digest in self._data.items():
            if position.data.get(part) != digest:
                raise RunError(
                    f"{self._path.parent}: {part} have changed since training began; put them back, or train a new run"
                )
        own = _tensors(training)
        check_architecture(self._path, shapes, {name: tuple(tensor.shape) for name, tensor in own.items()})
        tensors, _ = load_tensors(self._path)
        named = {callback.name for callback in training.callbacks if callback.name}
        fits = position.callbacks.keys() == named and position.epoch <= training.settings.epochs
        if not fits or any(tensors[name].dtype != tensor.dtype for name, tensor in own.items()):
            raise RunError(f"{self._path} is damaged: it is not of a training of this recipe; {AGAIN}")
        self._diary.check(position.log, position.history, position.epoch)
        return tensors, position


def _tensors(training: Training) -> dict[str, Tensor]:
    """Everything that changes from step to step."""
    tensors = {"theta": training.optimizer.theta}
    tensors |= {f"optimizer.{name}": value for name, value in training.optimizer.state_dict().items()}
    for callback in training.callbacks:
        if callback.name is not None:
            tensors |= {f"{callback.name}.{name}": value for name, value in callback.state()[0].items()}
    return tensors


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
