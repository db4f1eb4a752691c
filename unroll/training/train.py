"""From a recipe to a trained model: `fit_recipe` in memory, `train` with a run folder."""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from unroll.cells.own import is_own, load_own
from unroll.data.batches import Dataset
from unroll.data.images import Reading
from unroll.errors import DataError, RecipeError, RunError, TrainingError
from unroll.files import write_atomically
from unroll.models import SequenceModel
from unroll.training import callbacks, distributed
from unroll.training.evaluate import predictions, write_predictions
from unroll.training.fit import Callback, Settings, Training, find_device, fit
from unroll.training.recipe import AnyRecipe
from unroll.training.run import FIRST, RunFolder, first_weights, save_model
from unroll.training.tasks import check_cell, check_memory, first_model, load_dataset, reads_words, test_lines

Echo = Callable[[str], None]


def prepare(recipe: AnyRecipe, reading: Reading | None = None, begun: bool = False) -> Dataset:
    """The recipe's data, in memory; after this a run of the recipe can begin.

    A cell of one's own is loaded, which runs its file.

    Args:
        begun: a run of the recipe is to be gone on with: what it began with is in its folder, and no file is run.
        reading: what `begin_loading` gave for the recipe's images, where it has been called already.

    Raises:
        DataError: the data are missing or damaged.
        InputError: this machine has not the recipe's device, or a cell of one's own cannot be loaded or computes no step.
        RecipeError: a batch is larger than the training part, or too small for so many processes, or the model is larger
            than the machine's memory.
    """
    distributed.together(lambda: find_device(recipe.device, recipe.engine))
    if is_own(recipe.cell) and not begun:
        distributed.together(lambda: load_own(recipe.cell))
    dataset = distributed.together(lambda: load_dataset(recipe, reading))
    if recipe.batch_size > (left := len(dataset.train)):
        sequences = f"{left} training sequence" + ("s" if left > 1 else "")
        for field, part in (("validation", dataset.validation), ("test", dataset.test)):
            held = getattr(recipe, field, None)  # images come with a test part
            if held and part is not None and left < len(part) and recipe.batch_size <= left + len(part):
                raise RecipeError(
                    f"{field} is {held:g}, which leaves {sequences}, fewer than one batch ({recipe.batch_size}); choose a "
                    f"smaller {field}"
                )
        raise RecipeError(
            f"batch_size is {recipe.batch_size}, but there {'is' if left == 1 else 'are'} only {sequences}; "
            f"choose a smaller one, such as --batch-size {1 << (left.bit_length() - 1)}"
        )
    distributed.together(lambda: check_memory(recipe, dataset.encoder))
    if not begun:
        distributed.together(lambda: check_cell(recipe, dataset.encoder))
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


def fit_recipe(
    recipe: AnyRecipe,
    dataset: Dataset,
    more: Sequence[Callback] = (),
    change: Callable[[SequenceModel], None] | None = None,
    model: SequenceModel | None = None,
) -> Training:
    """Train the model of a recipe in memory.

    Args:
        dataset: what `prepare` gave for the recipe.
        more: callbacks beside those that the recipe asks for.
        change: what to do to the model before training.
        model: with its first weights; None: `first_model` makes it.

    Raises:
        TrainingError: the loss or the weights are no longer numbers.
    """
    model = model or first_model(recipe, dataset.encoder)
    model.head.fit_to(dataset.train.y)
    if change is not None:
        change(model)
    own: list[Callback] = []
    if recipe.weight_average is not None:
        own.append(callbacks.Average(recipe.weight_average))
    if recipe.patience is not None:
        own.append(callbacks.EarlyStopping(recipe.patience))
    return fit(model, dataset, Settings.of(recipe), [*own, *more])


def train(
    recipe: AnyRecipe,
    folder: RunFolder,
    echo: Echo = print,
    test: bool = True,
    tensorboard: bool = False,
    resume: bool = False,
    dataset: Dataset | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
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
        RunError: another process is at work in the folder; or, to go on there, the run is finished, or what it began with
            has changed.
        UnrollError: the data or the recipe do not allow it.
    """
    started = time.perf_counter()
    dataset = dataset or prepare(recipe, begun=resume)
    with ExitStack() as stack:
        stack.enter_context(folder.alone())
        distributed.lead(lambda: _begin(folder, resume))
        model = _first(recipe, folder, dataset, resume) if is_own(recipe.cell) else None
        diary = stack.enter_context(callbacks.Diary(folder.path, echo))
        more: list[Callback] = [
            callbacks.History(diary, recipe.log, recipe.log_every),
            callbacks.Printer(diary.line, recipe.log, recipe.log_every),
        ]
        if tensorboard and distributed.leads():
            more.append(callbacks.TensorBoard(folder.path / "tensorboard"))
        # after all that it saves
        more.append(callbacks.Saver(folder.path / "resume.safetensors", diary, recipe, dataset, resume))
        if model is not None:
            more.append(callbacks.Engines(diary, reads_words(recipe)))
        more.append(callbacks.ProgressBar())  # which begins where the saver goes on
        if on_epoch is not None:
            more.append(callbacks.Listener(on_epoch))
        try:
            training = fit_recipe(recipe, dataset, more, model=model)
        except TrainingError as error:
            raise TrainingError(f"{error} (folder {folder.path} is kept)") from None
        if not distributed.leads():
            return {}
        save_model(folder.path / "model.safetensors", training.model, dataset.encoder, recipe)
        metrics = outcome(training, dataset, recipe, folder, diary.line if test else None)
        metrics["seconds"]["total"] = round(time.perf_counter() - started, 3)
        write_atomically(folder.path / "metrics.json", json.dumps(metrics, indent=2) + "\n")
        (folder.path / "resume.safetensors").unlink(missing_ok=True)
    return metrics


def _first(recipe: AnyRecipe, folder: RunFolder, dataset: Dataset, resume: bool) -> SequenceModel:
    """The model as training begins with it, of cells of one's own: made and kept, or as it has been kept.

    Whatever comes later has the cells from there, and not from their source.

    Raises:
        RunError: the run is to be gone on with, and has not kept them, or they were no step programs.
    """
    if resume:
        return distributed.lead(lambda: first_weights(folder))
    model = distributed.together(lambda: first_model(recipe, dataset.encoder))
    distributed.lead(lambda: save_model(folder.path / FIRST, model, dataset.encoder, recipe))
    return model


def _begin(folder: RunFolder, resume: bool) -> None:
    if resume and folder.finished:
        raise RunError(f"{folder.path} is finished; there is nothing to resume")
    folder.tidy()


def outcome(
    training: Training, dataset: Dataset, recipe: AnyRecipe, folder: RunFolder, say: Echo | None
) -> dict[str, Any]:
    """Evaluate a trained model, print the test's outcome and write predictions.npz; what goes into metrics.json.

    Args:
        say: receives the printed lines; None: the test set is not looked at.
    """
    model, encoder = training.model, dataset.encoder
    metrics: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "training_sequences": len(dataset.train),
        "epochs": training.epoch,
        "seconds": {"training": round(training.seconds, 3)},
    }
    if dataset.validation is not None:
        p = predictions(model, dataset.validation, encoder)
        metrics["validation"] = model.head.metrics(p, dataset.validation.y, encoder.class_names)
    if say is not None and dataset.test is not None:
        began = time.perf_counter()
        p = predictions(model, dataset.test, encoder)
        metrics["seconds"]["test"] = round(time.perf_counter() - began, 3)
        metrics["test"] = model.head.metrics(p, dataset.test.y, encoder.class_names)
        for line in test_lines(recipe, dataset, p) or [f"Test {model.head.summary(metrics['test'])}"]:
            say(line)
        write_predictions(folder.path / "predictions.npz", model.head, p, dataset.test)
    return metrics
