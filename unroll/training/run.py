"""The run folder: what training leaves behind, and all that figures, reports and predictions need.

    recipe.yaml          everything needed to run it again, with versions, seed and machine
    history.jsonl        one line an epoch
    log.txt              what was printed
    metrics.json         the test's outcome, with times
    model.safetensors    the weights; labels, normalisation and architecture in its metadata
    first.safetensors    the same, as training began, where the cell is one's own; its source is not needed any more
    predictions.npz      class probabilities of every test sequence
    resume.safetensors   where to go on, while training is under way
    figures/             PNG and SVG; loss.png, which every run has, is written last

Every file is written beside and renamed. One process at a time works in a folder: the one that holds `.train.lock`.
"""

from __future__ import annotations

import json
import os
import reprlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import nn

from unroll.cells.own import is_own, own_parts
from unroll.data.batches import Encoder, Sequences
from unroll.equations.carry import as_program
from unroll.equations.program import UnreadableError
from unroll.errors import DataError, InputError, RunError, quoted
from unroll.files import load_header, load_tensors, locked, remove_stale, save_tensors, stale_files, write_atomically
from unroll.models import SequenceModel
from unroll.training import distributed
from unroll.training.evaluate import evaluated, predictions
from unroll.training.fit import find_device
from unroll.training.recipe import AnyRecipe, dump_recipe, saved_recipe
from unroll.training.saved import (
    AGAIN,
    MODEL_FORMAT,
    Metrics,
    Model,
    check_architecture,
    checked,
    checked_encoder,
    checked_history,
    checked_predictions,
    checked_recipe,
)
from unroll.training.tasks import build_model, first_model, load_test_part, of_programs, reads_words
from unroll.yaml_files import read_yaml

LOCK = ".train.lock"
FIRST = "first.safetensors"


class RunFolder:
    """A run folder on disk.

    Raises:
        RunError: the folder does not exist, is a file, or holds no recipe.
        InputError: `path` is no path.
    """

    made: Sequence[Path] = ()  # the folders that `create` made, the inner before the outer
    _held = False

    def __init__(self, path: str | Path) -> None:
        self.path = run_path(path)
        if self.path.is_file():
            raise RunError(f"{self.path} is a file; expected a run folder, as unroll train makes it")
        if not self.path.is_dir():
            raise RunError(f"run folder {self.path} does not exist")
        if not (self.path / "recipe.yaml").is_file():
            raise RunError(f"{self.path} is not a run folder: it holds no recipe.yaml")

    @classmethod
    def create(cls, path: str | Path, recipe: AnyRecipe, facts: dict[str, Any]) -> RunFolder:
        """Make a new run folder with its recipe; `facts` are versions and machine.

        Raises:
            RunError: the folder already holds something, or cannot be made.
        """
        path = Path(path)
        text = dump_recipe(recipe) + yaml.safe_dump({"ran_with": facts}, sort_keys=False)

        def refuse_content() -> None:
            stale = stale_files(path)
            if any(file.name != LOCK and file not in stale for file in path.iterdir()):
                raise RunError(
                    f"{path} is not empty; name another folder with --out, or go on with: unroll train --resume {path}"
                )

        try:
            made = [folder for folder in (path, *path.parents) if not folder.exists()]
            path.mkdir(parents=True, exist_ok=True)
            refuse_content()
            with _one_process(path):  # of two that make the same folder, one finds the other's recipe in it
                refuse_content()
                remove_stale(path)
                write_atomically(path / "recipe.yaml", text)
        except (FileExistsError, NotADirectoryError):
            raise RunError(f"{path} cannot be a run folder: a file stands in the way") from None
        except OSError as error:
            raise RunError(f"{path} cannot be made or written: {error.strerror}") from None
        folder = cls(path)
        folder.made = made
        return folder

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other process from training in the folder meanwhile; of a group of processes the first holds it.

        Raises:
            RunError: another process is at work in it.
        """
        if self._held:  # whoever goes on with a run holds it around the training, too
            yield
            return
        with ExitStack() as stack:
            distributed.lead(lambda: stack.enter_context(_one_process(self.path)))
            self._held = True
            try:
                yield
            finally:
                self._held = False

    def tidy(self) -> bool:
        """Remove what a killed process left behind, within `alone`; whether there was anything."""
        left = remove_stale(self.path)
        resume = self.path / "resume.safetensors"
        if self.finished and resume.is_file():
            resume.unlink()
            left += 1
        return left > 0

    @property
    def drawn(self) -> bool:
        """Whether all figures are there."""
        return (self.path / "figures" / "loss.png").is_file()

    def discard(self) -> None:
        """Undo `create`: away with all that is in the folder, and with the folders that were not there before."""
        for path in self.path.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        for path in self.made:
            with suppress(OSError):  # another run has come to stand beside this one
                path.rmdir()

    @property
    def saved(self) -> dict[str, Any]:
        """recipe.yaml as it is."""
        path = self.path / "recipe.yaml"
        fields = read_yaml(path, "recipe file", RunError)
        if not isinstance(fields.get("ran_with", {}), dict):
            raise RunError(f"{path} is damaged: expected lines of the form 'field: value'")
        return fields

    @property
    def recipe(self) -> AnyRecipe:
        return saved_recipe({k: v for k, v in self.saved.items() if k != "ran_with"}, str(self.path / "recipe.yaml"))

    @property
    def facts(self) -> dict[str, Any]:
        """Versions, machine and time of the run."""
        facts = self.saved.get("ran_with")
        return facts if isinstance(facts, dict) else {}

    @property
    def finished(self) -> bool:
        return (self.path / "metrics.json").is_file() and (self.path / "model.safetensors").is_file()

    def history(self) -> list[dict[str, Any]]:
        """One dictionary an epoch.

        Raises:
            RunError: the file is damaged.
        """
        path = self.path / "history.jsonl"
        return checked_history(_text(path), path) if path.is_file() else []

    def metrics(self) -> dict[str, Any]:
        """metrics.json.

        Raises:
            RunError: the run is not finished, or the file is damaged.
        """
        path = self.path / "metrics.json"
        if not path.is_file():
            raise RunError(f"{self.path} is not finished; go on with: unroll train --resume {self.path}")
        text = _text(path)
        checked(Metrics, text, path)
        found: dict[str, Any] = json.loads(text)
        return found

    def predictions(self) -> dict[str, NDArray[Any]]:
        """predictions.npz: see `unroll.training.evaluate.write_predictions`.

        Raises:
            RunError: the file is missing or damaged.
        """
        path = self.path / "predictions.npz"
        try:
            with np.load(path) as saved:
                arrays = {name: saved[name] for name in saved.files}
        except FileNotFoundError:
            raise RunError(f"{path} does not exist; {AGAIN}") from None
        except Exception:  # zipfile, zlib and NumPy each raise kinds of their own where a file is damaged
            raise RunError(f"{path} is damaged; {AGAIN}") from None
        found, test = checked_predictions(arrays, path), self.metrics().get("test")
        if test is None or found["p"].shape != (test["total"], len(test["per_class"])):
            raise RunError(f"{path} belongs to another run: metrics.json beside it is about another test; {AGAIN}")
        return found


def run_path(run: str | Path) -> Path:
    """Raises InputError where `run` cannot name a run."""
    if not isinstance(run, str | os.PathLike) or run == "":
        raise InputError(f"the run is {quoted(run)}; expected the path of a run folder or of its model.safetensors")
    return Path(run)


@contextmanager
def _one_process(path: Path) -> Iterator[None]:
    busy = f"another process is at work in {path}; wait until it has ended, or name another folder with --out"
    with locked(path / LOCK, RunError(busy)):
        yield


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is damaged: byte {error.start} is not UTF-8") from None


def save_model(path: Path, model: SequenceModel, encoder: Encoder, recipe: AnyRecipe) -> None:
    """The weights, with what is needed to use them; of cells of one's own their step programs, too."""
    tensors: dict[str, Any] = dict(model.state_dict())
    metadata: dict[str, Any] = {
        "format": MODEL_FORMAT,
        "recipe": recipe.model_dump(),
        "task": encoder.task,
        "encoder": encoder.to_json(),
    }
    if is_own(recipe.cell):
        try:
            cells = [
                [as_program(cell, reads_words(recipe, layer)) for cell in row]
                for layer, row in enumerate(model.layers.cells)
            ]
            metadata["cells"] = [[cell.to_data() for cell in row] for row in cells]
            for layer, row in enumerate(cells):  # with what they hold beside the parameters
                for direction, cell in enumerate(row):
                    prefix = f"layers.cells.{layer}.{direction}."
                    tensors = {name: t for name, t in tensors.items() if not name.startswith(prefix)}
                    tensors |= {f"{prefix}{name}": t for name, t in cell.state_dict().items()}
        except UnreadableError as why:
            metadata["cells"] = str(why)
    save_tensors(path, tensors, metadata)


class Classifier:
    """A trained model with what it needs to read raw inputs."""

    def __init__(self, model: SequenceModel, encoder: Encoder, recipe: AnyRecipe) -> None:
        self.model = model.eval()
        self.encoder = encoder
        self.recipe = recipe

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.encoder.class_names

    def predict(self, inputs: Sequence[Any]) -> list[Any]:
        """The head's answer to each input: a `unroll.heads.Prediction` where the model classifies.

        Args:
            inputs: for images picture files or uint8 arrays (T, D); for sentences strings; for series arrays (T, D).

        Raises:
            InputError: the inputs are no list, or one does not fit.
        """
        if isinstance(inputs, str | bytes | os.PathLike) or not hasattr(inputs, "__len__"):
            raise InputError(f"the inputs are {quoted(inputs)}; expected a list of them, such as [{quoted(inputs)}]")
        if len(inputs) == 0:
            return []
        values, lengths = self.encoder.encode(inputs)
        unlabelled = torch.zeros(len(inputs), dtype=torch.int64)
        p = predictions(self.model, Sequences(values, unlabelled, lengths), self.encoder)
        return [self.model.head.answer(row, self.class_names) for row in p]


def evaluate(run: str | Path, data: str | None = None) -> dict[str, Any]:
    """The metrics of a run's model on the test part of `data` (None: the run's own).

    Raises:
        RunError: the run holds no trained model.
        DataError: the data cannot be read or do not fit the model.
    """
    classifier = load(run)
    test = load_test_part(classifier.recipe, classifier.encoder, data)
    if not len(test):
        raise DataError(f"the test part of {data or 'the run'} is empty")
    return evaluated(classifier.model, test, classifier.encoder)


def before_training(run: str | Path, classifier: Classifier) -> SequenceModel:
    """The model of a loaded run as training began with it.

    Raises:
        RunError: its cell is one's own, and the run folder does not hold it, or it is no step program.
    """
    if not is_own(classifier.recipe.cell):
        return first_model(classifier.recipe, classifier.encoder)
    path = run_path(run)
    return _read((path.parent if path.suffix == ".safetensors" else path) / FIRST, classifier.recipe)[0].eval()


def first_weights(folder: RunFolder) -> SequenceModel:
    """The model of cells of one's own as training began with it, which is all that going on with a run needs of it.

    Raises:
        RunError: it was not kept, or training needs the cell's source.
    """
    path = folder.path / FIRST
    if not path.is_file():
        raise RunError(f"{path} does not exist, so that the cell is known by its source alone; {AGAIN}")
    metadata = load_header(path)[1]
    if isinstance(metadata.get("cells"), str):
        raise RunError(f"{folder.path} cannot be resumed: its cell is no step program ({metadata['cells']}); {AGAIN}")
    model = _read(path, folder.recipe)[0]
    for row in model.layers.cells:
        for cell in row:
            if cell.training_program is None:
                raise RunError(
                    f"{folder.path} cannot be resumed: its cell has a step program for evaluation only; {AGAIN}"
                )
    return model.train()


def load(run: str | Path, cell: Callable[[int, int], nn.Module] | None = None) -> Classifier:
    """The trained classifier of a run folder, or of a `model.safetensors` file alone.

    Nothing that the run names is executed: a cell of one's own is computed from its step program in the file.

    Args:
        cell: the class of a cell of one's own that is no step program, which the file does not hold.

    Raises:
        RunError: there is none, it is damaged, or its weights do not fit its recipe.
        InputError: `run` is no path.
    """
    path = run_path(run)
    own = None
    if path.suffix != ".safetensors":
        folder = RunFolder(path)
        own = folder.recipe
        path = folder.path / "model.safetensors"
        if not path.is_file():
            raise RunError(f"{folder.path} holds no trained model yet; go on with: unroll train --resume {folder.path}")
    model, encoder, recipe = _read(path, own, cell)
    try:
        device = find_device(recipe.device, recipe.engine)
    except InputError:  # it was trained on another machine
        device = find_device("auto", recipe.engine)
    return Classifier(model.to(device), encoder, recipe)


def _read(
    path: Path, own: AnyRecipe | None, cell: Callable[[int, int], nn.Module] | None = None
) -> tuple[SequenceModel, Encoder, AnyRecipe]:
    """The model in a file, which must be of the recipe `own`, where there is one."""
    shapes, metadata = load_header(path)
    if metadata.get("format") != MODEL_FORMAT:
        found = reprlib.repr(metadata.get("format"))
        raise RunError(f"{path} is no model of this package: its format is {found}, not {MODEL_FORMAT!r}")
    saved = checked(Model, metadata, path)
    recipe = checked_recipe(saved.recipe, path)
    if own is not None and own != recipe:
        raise RunError(f"{path} belongs to another run: its recipe is not the one in recipe.yaml beside it")
    if saved.task != recipe.task:
        raise RunError(f"{path} is damaged: its task is {reprlib.repr(saved.task)}, but its recipe's is {recipe.task}")
    encoder = checked_encoder(recipe, saved.encoder, path)
    if saved.cells and not is_own(recipe.cell):
        raise RunError(f"{path} is damaged: it holds cells beside the cell {recipe.cell} of its recipe; {AGAIN}")
    if isinstance(saved.cells, str) and cell is None:
        raise RunError(
            f"{path} does not hold its cell, which is no step program ({saved.cells}); from Python: "
            f"unroll.load({str(path.parent)!r}, cell={own_parts(recipe.cell)[1]})"
        )

    def build() -> SequenceModel:
        if not is_own(recipe.cell):
            return build_model(recipe, encoder)
        return build_model(recipe, encoder, cell if isinstance(saved.cells, str) else of_programs(recipe, saved.cells))

    try:
        with torch.device("meta"):  # before any memory is asked for
            expected = build().state_dict()
    except (InputError, RunError) as error:
        if not is_own(recipe.cell):
            raise
        raise RunError(f"{path} is damaged: {error}; {AGAIN}") from None
    check_architecture(path, shapes, {name: tuple(tensor.shape) for name, tensor in expected.items()})
    tensors, _ = load_tensors(path)
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.float32, torch.float64) or not bool(tensor.isfinite().all()):
            raise RunError(f"{path} is damaged: {name} holds what is no finite number; {AGAIN}")
    model = build()
    model.load_state_dict(tensors)
    return model, encoder, recipe
