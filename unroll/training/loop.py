"""Training: a recipe goes in, a run folder comes out.

The loop is the labs' own: forward, cross-entropy, backward, update, over and over. Around it stands what makes a run
trustworthy: every epoch draws its order, distortions and dropout from a seed of its own, so that a run which was
interrupted goes on from the end of its last saved epoch and ends with the same bits as one that was not.
"""

from __future__ import annotations

import io
import json
import math
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Self, TextIO

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from unroll import optim
from unroll.data.batches import Batch, Dataset, Sequences, batches
from unroll.data.idx import Reading
from unroll.errors import DataError, RecipeError, RunError, TrainingError
from unroll.models import SequenceClassifier
from unroll.training import distributed
from unroll.training.recipe import AnyRecipe, ImageRecipe
from unroll.training.run import (
    RunFolder,
    load_tensors,
    probabilities,
    save_model,
    save_tensors,
    write_atomically,
)
from unroll.training.tasks import check_memory, class_weights, first_model, load_dataset, test_lines

SECONDS_BETWEEN_SAVES = 5.0  # an epoch that ends sooner after the last save is not saved: it is quickly run again
Echo = Callable[[str], None]
OnEpoch = Callable[[dict[str, Any]], None]


def prepare(recipe: AnyRecipe, reading: Reading | None = None) -> Dataset:
    """The recipe's data, in memory; after this a run of the recipe can begin.

    Args:
        reading: what `begin_loading` gave for the recipe's images, where it has been called already.

    Raises:
        DataError: the data are missing or damaged.
        RecipeError: a batch is larger than the training part, or too small for so many processes, or the model is larger
            than the machine's memory.
    """
    dataset = distributed.together(lambda: load_dataset(recipe, reading))
    if recipe.batch_size > len(dataset.train):
        raise RecipeError(
            f"batch_size is {recipe.batch_size}, but there are only {len(dataset.train)} training sequences; "
            f"choose a smaller one, such as --batch-size {1 << (len(dataset.train).bit_length() - 1)}"
        )
    distributed.together(lambda: check_memory(recipe, dataset.encoder))
    if distributed.size() > recipe.batch_size:
        raise RecipeError(
            f"batch_size is {recipe.batch_size}, but {distributed.size()} processes share each batch; "
            "choose a larger one, or start fewer processes"
        )
    labels = dataset.train.y.numpy()
    found = distributed.gather((len(labels), zlib.crc32(labels.tobytes())))
    for number, other in enumerate(found):
        if other != found[0]:
            raise DataError(
                f"process {number} has other training data ({other[0]} sequences) than process 0 ({found[0][0]}); "
                "give all machines the same"
            )
    return dataset


def train(
    recipe: AnyRecipe,
    folder: RunFolder,
    echo: Echo = print,
    test: bool = True,
    tensorboard: bool = False,
    resume: bool = False,
    dataset: Dataset | None = None,
    on_epoch: OnEpoch | None = None,
) -> dict[str, Any]:
    """Train, test, and fill the run folder.

    In a group of processes (`unroll.training.distributed`) all of them call this; only process 0 prints and writes.

    Args:
        recipe: what to do.
        folder: where to put it, made by `RunFolder.create`.
        dataset: what `prepare` gave, where it has been called already.
        echo: receives every printed line.
        test: whether to look at the test set at the end; leave it out while choosing between recipes.
        tensorboard: write event files to `tensorboard/` in the folder too.
        resume: go on where an interrupted run of the same recipe was last saved.
        on_epoch: is called with each epoch's row of history.jsonl; what it raises ends the run.

    Returns:
        What stands in metrics.json; nothing where this is not process 0.

    Raises:
        TrainingError: the loss is no longer a number.
        UnrollError: the data or the recipe do not allow it.
    """
    started = time.perf_counter()
    dataset = dataset or prepare(recipe)
    with Diary(folder.path, echo, tensorboard) as diary:
        trainer = Trainer(recipe, dataset, folder, diary, on_epoch)
        if resume:
            trainer.restore()
        else:
            diary.truncate(0, 0)
        trainer.run()
        if not bool(trainer.optimizer.theta.isfinite().all()):
            raise TrainingError(
                "the last updates made weights that are no numbers; lower learning_rate or set max_norm "
                f"(folder {folder.path} is kept)"
            )
        if not distributed.leads():
            return {}
        weights = folder.path / "model.safetensors"
        with trainer.evaluation_weights():
            save_model(weights, trainer.model, dataset.encoder, recipe)
            metrics = trainer.outcome(test)
        metrics["seconds"]["total"] = round(time.perf_counter() - started, 3)
        write_atomically(folder.path / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        (folder.path / "resume.safetensors").unlink(missing_ok=True)
    return metrics


class Diary:
    """log.txt, history.jsonl, what is printed, and TensorBoard's event files if wanted.

    A process that is not the first keeps its diary to itself.
    """

    def __init__(self, path: Path, echo: Echo, tensorboard: bool) -> None:
        self._events = None
        self._echo = echo
        self._log: TextIO
        self._history: TextIO
        if not distributed.leads():
            self._log, self._history = io.StringIO(), io.StringIO()
            self._echo = lambda line: None
            return
        self._log = open(path / "log.txt", "a", encoding="utf-8")  # noqa: SIM115 - closed by __exit__
        self._history = open(path / "history.jsonl", "a", encoding="utf-8")  # noqa: SIM115
        if tensorboard:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._events = SummaryWriter(path / "tensorboard")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()
        self._history.close()
        if self._events is not None:
            self._events.close()

    def line(self, text: str) -> None:
        self._echo(text)
        self._log.write(text + "\n")
        self._log.flush()

    def epoch(self, row: dict[str, Any]) -> None:
        self._history.write(json.dumps(row) + "\n")
        self._history.flush()
        if self._events is not None:
            for name, value in row.items():
                if isinstance(value, float):
                    self._events.add_scalar(name, value, row["epoch"])

    def sizes(self) -> tuple[int, int]:
        return self._log.tell(), self._history.tell()

    def truncate(self, log: int, history: int) -> None:
        """Take back what was written after a save: those epochs are about to be run again."""
        self._log.truncate(log)
        self._history.truncate(history)


class Trainer:
    """The state of a run under way."""

    def __init__(
        self, recipe: AnyRecipe, dataset: Dataset, folder: RunFolder, diary: Diary, on_epoch: OnEpoch | None = None
    ) -> None:
        self.recipe = recipe
        self.dataset = dataset
        self.folder = folder
        self.diary = diary
        self.on_epoch = on_epoch
        self.model = first_model(recipe, dataset.encoder)
        self.optimizer = _optimizer(recipe, self.model)
        self.average = (
            None if recipe.weight_average is None else optim.WeightAverage(self.optimizer.theta, recipe.weight_average)
        )
        self.schedule = optim.SCHEDULES[recipe.schedule]
        self.class_weights = class_weights(recipe, dataset)
        self.steps_per_epoch = math.ceil(len(dataset.train) / recipe.batch_size)
        self.epoch = 0  # epochs done
        self.seconds = 0.0  # spent in the epochs done
        self.best_loss = math.inf
        self.best_theta: Tensor | None = None
        self.best_epoch = 0
        self.saved_at = time.perf_counter()
        # After the optimiser, which has moved the parameters into its vector.
        self.replica = distributed.Replica(self.model) if distributed.size() > 1 else None

    # ------------------------------------------------------------------------------------------------- the loop

    def run(self) -> None:
        """All epochs that are left."""
        recipe, total = self.recipe, len(self.dataset.train)
        with tqdm(
            total=recipe.epochs * total,
            initial=self.epoch * total,
            unit=" sequences",
            unit_scale=True,
            dynamic_ncols=True,
            leave=False,
            disable=not (distributed.leads() and sys.stderr.isatty()),
        ) as bar:
            while self.epoch < recipe.epochs and not self._out_of_patience():
                row = self._run_epoch(bar)
                if distributed.leads() and time.perf_counter() - self.saved_at > SECONDS_BETWEEN_SAVES:
                    self.save()
                if self.on_epoch is not None:
                    self.on_epoch(row)

    def _run_epoch(self, bar: Any) -> dict[str, Any]:
        """One pass over the training data; its row of history.jsonl."""
        recipe, began = self.recipe, time.perf_counter()
        epoch = self.epoch
        generator = self._seed_epoch(epoch)
        augment = not (isinstance(recipe, ImageRecipe) and epoch >= recipe.epochs - recipe.plain_epochs)
        head = f"Epoch [{epoch + 1}/{recipe.epochs}]"
        losses: list[float] = []
        norms: list[Tensor] = []
        self.model.train()
        if recipe.shuffle:
            stream = batches(self.dataset.train, self.dataset.encoder, recipe.batch_size, generator, augment)
        else:
            stream = batches(self.dataset.train, self.dataset.encoder, recipe.batch_size)
        for step, batch in enumerate(stream):
            loss, norm = self._step(batch, epoch * self.steps_per_epoch + step)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"the loss became {loss} at epoch {epoch + 1}, step {step + 1}; lower learning_rate or set "
                    f"max_norm (folder {self.folder.path} is kept)"
                )
            losses.append(loss)
            norms.append(norm)
            bar.update(len(batch.y))
            if recipe.log == "steps" and (step + 1) % recipe.log_every == 0:
                with bar.external_write_mode():
                    self.diary.line(f"{head}, Step [{step + 1}/{self.steps_per_epoch}], Loss: {loss:.4f}")
        mean = sum(losses) / len(losses)
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "loss": mean,
            "learning_rate": self.optimizer.learning_rate,
            "gradient_norm": float(torch.stack(norms).mean()),
        }
        every = recipe.log_every if recipe.log == "steps" else max(1, self.steps_per_epoch)
        row["steps"] = [[i + 1, losses[i]] for i in range(every - 1, len(losses), every)]
        text = f"{head}, Average Loss: {mean:.4f}"
        if self.dataset.validation is not None:
            row.update(self._validate(self.dataset.validation))
            text += (
                f", Validation Loss: {row['validation_loss']:.4f}, "
                f"Validation Accuracy: {100 * row['validation_accuracy']:.2f}%"
            )
        self.epoch = epoch + 1
        self.seconds += time.perf_counter() - began
        row["seconds"] = round(self.seconds, 3)
        self.diary.epoch(row)
        with bar.external_write_mode():
            if recipe.log == "steps":
                self.diary.line(text)
            elif self.epoch % recipe.log_every == 0:
                self.diary.line(f"{head} - Loss: {sum(losses):.4f}")
        return row

    def _step(self, batch: Batch, step: int) -> tuple[float, Tensor]:
        """One update; the loss before it, and the gradient's norm."""
        recipe, optimizer = self.recipe, self.optimizer
        optimizer.learning_rate = self.schedule(step, recipe.epochs * self.steps_per_epoch, recipe.learning_rate)
        optimizer.zero_grad()
        if self.replica is not None:
            loss = self.replica.backward(batch, self.class_weights, recipe.label_smoothing)
        else:
            loss = self.model.backpropagate(batch.x, batch.y, batch.lengths, self.class_weights, recipe.label_smoothing)
        norm = optimizer.step()
        if self.average is not None:
            self.average.update(optimizer.theta)
        return loss.item(), norm

    def _seed_epoch(self, epoch: int) -> torch.Generator:
        """Seed everything random in this epoch from the recipe's seed and the epoch's number alone."""
        order, dropout = np.random.SeedSequence([self.recipe.seed, epoch]).generate_state(2, np.uint64) >> 1
        torch.manual_seed(int(dropout) + distributed.rank())  # no two sequences of a batch shall lose the same units
        return torch.Generator().manual_seed(int(order))

    # -------------------------------------------------------------------------------------------- held-out part

    def _validate(self, data: Sequences) -> dict[str, float]:
        def measure() -> tuple[float, float]:
            p = probabilities(self.model, data, self.dataset.encoder)
            loss = float(-p.gather(1, data.y[:, None]).clamp(min=1e-12).log().mean())
            return loss, float((p.argmax(1) == data.y).double().mean())

        with self._averaged():
            loss, accuracy = distributed.lead(measure)
            if self.recipe.patience is not None and loss < self.best_loss:
                self.best_loss, self.best_epoch = loss, self.epoch + 1
                self.best_theta = self.optimizer.theta.clone()
        return {"validation_loss": loss, "validation_accuracy": accuracy}

    def _out_of_patience(self) -> bool:
        patience = self.recipe.patience
        return patience is not None and self.epoch - self.best_epoch >= patience

    def _averaged(self) -> AbstractContextManager[None]:
        return nullcontext() if self.average is None else optim.applied(self.average.average, self.optimizer.theta)

    def evaluation_weights(self) -> AbstractContextManager[None]:
        """Within this context the model has the weights that count: the best epoch's, the averaged, or the last."""
        if self.best_theta is not None:
            return optim.applied(self.best_theta, self.optimizer.theta)
        return self._averaged()

    # -------------------------------------------------------------------------------------------------- outcome

    def outcome(self, test: bool) -> dict[str, Any]:
        """Test the model, print the outcome, and write predictions.npz."""
        from unroll.training.outcome import measure, write_predictions

        names = self.dataset.encoder.class_names
        metrics: dict[str, Any] = {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "training_sequences": len(self.dataset.train),
            "epochs": self.epoch,
            "seconds": {"training": round(self.seconds, 3)},
        }
        if self.dataset.validation is not None:
            p = probabilities(self.model, self.dataset.validation, self.dataset.encoder)
            metrics["validation"] = measure(p, self.dataset.validation.y, names)
        if test and self.dataset.test is not None:
            began = time.perf_counter()
            p = probabilities(self.model, self.dataset.test, self.dataset.encoder)
            metrics["seconds"]["test"] = round(time.perf_counter() - began, 3)
            for line in test_lines(self.recipe, self.dataset, p):
                self.diary.line(line)
            metrics["test"] = measure(p, self.dataset.test.y, names)
            write_predictions(self.folder.path / "predictions.npz", p, self.dataset.test)
        return metrics

    # --------------------------------------------------------------------------------------------- save, resume

    def save(self) -> None:
        """Write where to go on."""
        tensors = {"theta": self.optimizer.theta}
        tensors |= {f"optimizer.{name}": value for name, value in self.optimizer.state_dict().items()}
        if self.average is not None:
            tensors |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        if self.best_theta is not None:
            tensors["best"] = self.best_theta
        log, history = self.diary.sizes()
        position = {
            "epoch": self.epoch,
            "seconds": self.seconds,
            "best_loss": self.best_loss if math.isfinite(self.best_loss) else None,
            "best_epoch": self.best_epoch,
            "log": log,
            "history": history,
            "threads": torch.get_num_threads(),
            "shapes": {name: list(p.shape) for name, p in self.model.named_parameters()},
        }
        save_tensors(self.folder.path / "resume.safetensors", tensors, {"position": position})
        self.saved_at = time.perf_counter()

    def restore(self) -> None:
        """Go back to the last save; without one, to the start.

        Raises:
            RunError: the save belongs to another architecture, or is damaged.
        """
        path = self.folder.path / "resume.safetensors"
        saved = distributed.lead(lambda: load_tensors(path) if path.is_file() else None)
        if saved is None:
            self.diary.truncate(0, 0)
            return
        tensors, metadata = saved
        position = metadata.get("position", {})
        shapes = {name: list(p.shape) for name, p in self.model.named_parameters()}
        if position.get("shapes") != shapes or tensors["theta"].shape != self.optimizer.theta.shape:
            raise RunError(
                f"{path} belongs to another architecture: {position.get('shapes')} there, "
                f"but the recipe makes it {shapes}"
            )
        torch.set_num_threads(position["threads"])  # sums are the same to the bit only with as many threads
        self.optimizer.theta.copy_(tensors["theta"])
        self.optimizer.load_state_dict(_part(tensors, "optimizer."))
        if self.average is not None:
            self.average.load_state_dict(_part(tensors, "average."))
        self.best_theta = tensors.get("best")
        self.best_loss = math.inf if position["best_loss"] is None else position["best_loss"]
        self.best_epoch = position["best_epoch"]
        self.epoch = position["epoch"]
        self.seconds = position["seconds"]
        self.diary.truncate(position["log"], position["history"])


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _optimizer(recipe: AnyRecipe, model: SequenceClassifier) -> optim.Optimiser:
    shared: dict[str, Any] = {"weight_decay": recipe.weight_decay, "max_norm": recipe.max_norm}
    if recipe.optimizer == "sgd":
        shared |= {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
    else:
        shared["engine"] = recipe.engine
    return optim.OPTIMISERS[recipe.optimizer](model.parameters(), recipe.learning_rate, **shared)
