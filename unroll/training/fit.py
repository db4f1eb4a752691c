"""The training loop: model + data + settings -> trained model, in memory.

The loop is the labs' own: forward, loss, backward, update, over and over. Nothing is printed or written here; what happens
around the loop is the business of callbacks (`unroll.training.callbacks`). Every epoch draws its order, distortions and
dropout from a seed of its own, so that a training that goes on from the end of an epoch ends with the same bits as one that
was never interrupted (docs/decisions/0003).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from unroll import optim
from unroll.data.batches import Batch, Sequences
from unroll.engines import EngineName
from unroll.errors import InputError, TrainingError, nearest
from unroll.training import DeviceName, distributed
from unroll.training.evaluate import evaluated


def find_device(name: str, engine: EngineName = "auto") -> torch.device:
    """The device of that name; ``auto`` is a GPU where there is one, unless the CPU's kernels are asked for by name.

    Raises:
        InputError: this machine has no such device.
    """
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto" and engine == "native":
        name = "cpu"
    if name == "auto":
        name = next(device for device, there in found.items() if there)
    if name not in found:
        raise InputError(f"unknown device {name!r}; known: auto, {', '.join(found)}")
    if not found[name]:
        raise InputError(f"device is {name!r}, but torch finds none on this machine; use device auto")
    if name == "cuda" and distributed.size() > 1:  # one GPU for each process of a machine
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device(name)


def _checked(what: str, name: str, known: Mapping[str, Any]) -> Any:
    if name not in known:
        raise InputError(f"unknown {what} {name!r}{nearest(name, known)}")
    return known[name]


@dataclass(frozen=True)
class Settings:
    """How a model is trained. The fields and their meaning are those of recipes (`unroll.training.recipe.Recipe`).

    `engine` is that of the optimiser; the model has its own.
    """

    epochs: int = 5
    batch_size: int = 64
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str | optim.Schedule = "constant"
    max_norm: float | None = None
    shuffle: bool = True
    plain_epochs: int = 0
    seed: int = 0
    engine: EngineName = "auto"
    device: DeviceName = "auto"

    @classmethod
    def of(cls, recipe: Any) -> Settings:
        """The settings among the fields of a recipe."""
        names = [field.name for field in fields(cls) if hasattr(recipe, field.name)]
        return cls(**{name: getattr(recipe, name) for name in names})


class Data(Protocol):
    """What is trained on; `unroll.data.batches.Dataset` is one."""

    @property
    def validation(self) -> Sequences | None: ...

    @property
    def encoder(self) -> Any: ...

    def steps(self, batch_size: int) -> int:
        """Batches in an epoch."""

    def epoch(self, batch_size: int, generator: torch.Generator, shuffle: bool, augment: bool) -> Iterator[Batch]:
        """The batches of an epoch; order and distortions are drawn from the generator."""


class Callback:
    """What happens around the loop. Each method is given the training under way; the order is that of the list.

    A callback that must survive an interruption has a `name` and says its `state`.
    """

    name: str | None = None

    def on_begin(self, training: Training) -> None:
        """Before the first epoch, or the first that is left."""

    def on_gradients(self, training: Training) -> None:
        """Before each update, when the gradients are in the parameters: to change them."""

    def on_step(self, training: Training, step: int, loss: float) -> None:
        """After each update; `step` counts from 1 within the epoch, `loss` is that before the update."""

    def on_epoch(self, training: Training, row: dict[str, Any]) -> None:
        """After each epoch, with its row of history.jsonl."""

    def on_end(self, training: Training) -> None:
        """After the last epoch, while the model still has the last weights."""

    def on_close(self, training: Training) -> None:
        """At the very end, however the training ended: to close what was opened."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors, and values that JSON can hold, from which `restore` goes on."""
        return {}, {}

    def restore(self, tensors: dict[str, Tensor], values: dict[str, Any], training: Training) -> None:
        """Go back to what `state` said."""


class Training:
    """A training under way: what `fit` moves on and callbacks look at.

    Attributes:
        epoch: epochs done.
        seconds: spent in them.
        steps_per_epoch: batches in an epoch.
        losses: of the batches of the epoch under way.
        chosen: the weights theta (N,) that evaluation is to use, such as averaged ones; None: the current ones.
        stop: set by a callback to end the training after this epoch.
    """

    def __init__(self, model: nn.Module, data: Data, settings: Settings, callbacks: Sequence[Callback] = ()) -> None:
        self.model: Any = model.to(find_device(settings.device, settings.engine))
        self.data = data
        self.settings = settings
        self.callbacks = callbacks
        self.optimizer = _optimizer(settings, model)
        named = settings.schedule
        self.schedule = _checked("schedule", named, optim.SCHEDULES) if isinstance(named, str) else named
        self.steps_per_epoch = data.steps(settings.batch_size)
        self.epoch = 0
        self.seconds = 0.0
        self.losses: list[float] = []
        self.chosen: Tensor | None = None
        self.stop = False
        # After the optimiser, which has moved the parameters into its vector.
        self._replica = distributed.Replica(model) if distributed.size() > 1 else None

    def run(self) -> None:
        """All epochs that are left."""
        try:
            self._tell("on_begin")
            while self.epoch < self.settings.epochs and not self.stop:
                row = self._run_epoch()
                self._tell("on_epoch", row)
            if not bool(self.optimizer.theta.isfinite().all()):
                raise TrainingError(
                    "the last updates made weights that are NaN or infinite; lower learning_rate or set max_norm"
                )
            self._tell("on_end")
        finally:
            self._tell("on_close")

    def with_chosen_weights(self) -> AbstractContextManager[None]:
        """Within this context the model has the weights that evaluation is to use."""
        return nullcontext() if self.chosen is None else optim.applied(self.chosen, self.optimizer.theta)

    def _tell(self, what: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, what)(self, *arguments)

    def _run_epoch(self) -> dict[str, Any]:
        """One pass over the training data; its row of history.jsonl."""
        settings, began = self.settings, time.perf_counter()
        generator = self._seed_epoch()
        augment = self.epoch < settings.epochs - settings.plain_epochs
        self.losses = []
        norms: list[Tensor] = []
        self.model.train()
        stream = self.data.epoch(settings.batch_size, generator, settings.shuffle, augment)
        for step, batch in enumerate(stream, 1):
            loss, norm = self.step(batch, self.epoch * self.steps_per_epoch + step - 1)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss became {loss} at epoch {self.epoch + 1}, step {step}; lower learning_rate or set max_norm"
                )
            self.losses.append(loss)
            norms.append(norm)
            self._tell("on_step", step, loss)
        row: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "loss": sum(self.losses) / len(self.losses),
            "learning_rate": self.optimizer.learning_rate,
            "gradient_norm": float(torch.stack(norms).mean()),
        }
        if self.data.validation is not None:
            row.update(self._validate(self.data.validation))
        self.epoch += 1
        self.seconds += time.perf_counter() - began
        row["seconds"] = round(self.seconds, 3)
        return row

    def step(self, batch: Batch, number: int) -> tuple[float, Tensor]:
        """One update, the `number`-th of the training from 0; the loss before it, and the gradient's norm."""
        settings, optimizer = self.settings, self.optimizer
        batch = batch.to(optimizer.theta)
        optimizer.learning_rate = self.schedule(number, settings.epochs * self.steps_per_epoch, settings.learning_rate)
        optimizer.zero_grad()
        if self._replica is not None:
            loss = self._replica.backward(batch)
        else:
            loss = self.model.backward(batch.x, batch.y, batch.lengths)
        self._tell("on_gradients")
        norm = optimizer.step()
        return loss.item(), norm

    def _seed_epoch(self) -> torch.Generator:
        """Seed everything random in this epoch from the seed and the epoch's number alone."""
        order, dropout = np.random.SeedSequence([self.settings.seed, self.epoch]).generate_state(2, np.uint64) >> 1
        torch.manual_seed(int(dropout) + distributed.rank())  # no two sequences of a batch shall lose the same units
        return torch.Generator().manual_seed(int(order))

    def _validate(self, data: Sequences) -> dict[str, float]:
        def measure() -> dict[str, float]:
            found = evaluated(self.model, data, self.data.encoder)
            return {f"validation_{name}": found[name] for name in self.model.head.followed}

        with self.with_chosen_weights():
            return distributed.lead(measure)


def fit(model: nn.Module, data: Data, settings: Settings | None = None, callbacks: Sequence[Callback] = ()) -> Training:
    """Train a model in memory; nothing is printed or written but by callbacks. Torch's generator is seeded every epoch.

    Args:
        model: its ``backward(x, y, lengths)`` returns the loss of a batch and leaves its gradients in the parameters, as
            `unroll.models.SequenceModel` has it; it is moved to the settings' device.
        data: what to train on, and perhaps a held-out part that is evaluated after every epoch.

    Returns:
        The training. The model has the weights that callbacks chose, or the last ones.

    Raises:
        TrainingError: the loss or the weights are no longer numbers.
        InputError: a setting makes no sense for this model or machine.
    """
    training = Training(model, data, settings or Settings(), callbacks)
    training.run()
    if training.chosen is not None:
        with torch.no_grad():
            training.optimizer.theta.copy_(training.chosen)
    return training


def _optimizer(settings: Settings, model: nn.Module) -> optim.Optimiser:
    shared: dict[str, Any] = {"weight_decay": settings.weight_decay, "max_norm": settings.max_norm}
    if settings.optimizer == "sgd":
        shared |= {"momentum": settings.momentum, "nesterov": settings.nesterov}
    else:
        shared["engine"] = settings.engine
    kind = _checked("optimizer", settings.optimizer, optim.OPTIMISERS)
    made: optim.Optimiser = kind(model.parameters(), settings.learning_rate, **shared)
    return made
