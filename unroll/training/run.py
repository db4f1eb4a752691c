"""The run folder: what training leaves behind, and all that figures, reports and predictions need.

    recipe.yaml          everything needed to run it again, with versions, seed and machine
    history.jsonl        one line an epoch
    log.txt              what was printed
    metrics.json         the test's outcome, with times
    model.safetensors    the weights; labels, normalisation and architecture in its metadata
    predictions.npz      class probabilities of every test sequence
    resume.safetensors   where to go on, while training is under way
    figures/             PNG and SVG

Every file is written beside and renamed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor

from unroll.data.batches import Encoder, Sequences
from unroll.errors import DataError, InputError, RunError
from unroll.files import load_tensors, save_tensors, write_atomically
from unroll.models import SequenceModel
from unroll.training.evaluate import evaluated, predictions
from unroll.training.fit import find_device
from unroll.training.recipe import AnyRecipe, dump_recipe, saved_recipe
from unroll.training.tasks import ENCODERS, build_model, load_test_part
from unroll.yaml_files import read_yaml

MODEL_FORMAT = "unroll-1"


class RunFolder:
    """A run folder on disk.

    Raises:
        RunError: the folder does not exist or holds no recipe.
    """

    made: Sequence[Path] = ()  # the folders that `create` made, the inner before the outer

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
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
        try:
            made = [folder for folder in (path, *path.parents) if not folder.exists()]
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                raise RunError(
                    f"{path} is not empty; name another folder with --out, or go on with: unroll train --resume {path}"
                )
            write_atomically(path / "recipe.yaml", text)
        except (FileExistsError, NotADirectoryError):
            raise RunError(f"{path} cannot be a run folder: a file stands in the way") from None
        except OSError as error:
            raise RunError(f"{path} cannot be made or written: {error.strerror}") from None
        folder = cls(path)
        folder.made = made
        return folder

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
        return read_yaml(self.path / "recipe.yaml", "recipe file", RunError)

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
        if not path.is_file():
            return []
        return [_json(path, line, ("epoch", "loss")) for line in path.read_text(encoding="utf-8").splitlines()]

    def metrics(self) -> dict[str, Any]:
        """metrics.json.

        Raises:
            RunError: the run is not finished, or the file is damaged.
        """
        path = self.path / "metrics.json"
        if not path.is_file():
            raise RunError(f"{self.path} is not finished; go on with: unroll train --resume {self.path}")
        return _json(path, path.read_text(encoding="utf-8"), ("parameters", "training_sequences", "epochs", "seconds"))

    def predictions(self) -> dict[str, NDArray[Any]]:
        """predictions.npz: see `unroll.training.evaluate.write_predictions`.

        Raises:
            RunError: the file is missing or damaged.
        """
        path = self.path / "predictions.npz"
        try:
            with np.load(path) as saved:
                return {name: saved[name] for name in saved.files}
        except FileNotFoundError:
            raise RunError(f"{path} does not exist; train the run again") from None
        except Exception:  # zipfile, zlib and NumPy each raise kinds of their own where a file is damaged
            raise RunError(f"{path} is damaged; train the run again") from None


def _json(path: Path, text: str, expected: tuple[str, ...]) -> dict[str, Any]:
    """A JSON object that has the entries `expected`."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not set(expected) <= set(found):
        raise RunError(f"{path} is damaged: expected JSON with {', '.join(expected)}; train the run again")
    return found


def save_model(path: Path, model: SequenceModel, encoder: Encoder, recipe: AnyRecipe) -> None:
    """The weights, with what is needed to use them."""
    save_tensors(
        path,
        dict(model.state_dict()),
        {
            "format": MODEL_FORMAT,
            "recipe": recipe.model_dump(),
            "task": encoder.task,
            "encoder": encoder.to_json(),
        },
    )


@dataclass(frozen=True)
class Prediction:
    """The most probable class of one input, and the probability of every class."""

    label: str
    probabilities: dict[str, float]

    @property
    def probability(self) -> float:
        return self.probabilities[self.label]


class Classifier:
    """A trained model with what it needs to read raw inputs."""

    def __init__(self, model: SequenceModel, encoder: Encoder, recipe: AnyRecipe) -> None:
        self.model = model.eval()
        self.encoder = encoder
        self.recipe = recipe

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.encoder.class_names

    def predict(self, inputs: Sequence[Any]) -> list[Prediction]:
        """Predict the class of each input.

        Args:
            inputs: for images picture files or uint8 arrays (T, D); for sentences strings; for series arrays (T, D).
        """
        if len(inputs) == 0:
            return []
        values, lengths = self.encoder.encode(inputs)
        unlabelled = torch.zeros(len(inputs), dtype=torch.int64)
        p = predictions(self.model, Sequences(values, unlabelled, lengths), self.encoder)
        return [
            Prediction(self.class_names[int(row.argmax())], dict(zip(self.class_names, row.tolist(), strict=True)))
            for row in p
        ]


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


def load(run: str | Path) -> Classifier:
    """The trained classifier of a run folder, or of a `model.safetensors` file alone.

    Raises:
        RunError: there is none, it is damaged, or its weights do not fit its recipe.
    """
    path = Path(run)
    own = None
    if path.suffix != ".safetensors":
        folder = RunFolder(path)
        own = folder.recipe
        path = folder.path / "model.safetensors"
        if not path.is_file():
            raise RunError(f"{folder.path} holds no trained model yet; go on with: unroll train --resume {folder.path}")
    tensors, metadata = load_tensors(path)
    if metadata.get("format") != MODEL_FORMAT:
        found = metadata.get("format")
        raise RunError(f"{path} is no model of this package: its format is {found!r}, not {MODEL_FORMAT!r}")
    recipe = saved_recipe(metadata["recipe"], str(path))
    if own is not None and own != recipe:
        raise RunError(f"{path} belongs to another run: its recipe is not the one in recipe.yaml beside it")
    encoder = ENCODERS[metadata["task"]].from_json(metadata["encoder"])
    model = build_model(recipe, encoder)
    check_architecture(path, tensors, dict(model.state_dict()))
    model.load_state_dict(tensors)
    try:
        device = find_device(recipe.device)
    except InputError:  # it was trained on another machine
        device = find_device("auto")
    return Classifier(model.to(device), encoder, recipe)


def check_architecture(path: Path, found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise RunError unless both hold the same names and shapes."""
    for name in sorted(found.keys() | expected.keys()):
        shapes = [tuple(side[name].shape) if name in side else "absent" for side in (found, expected)]
        if shapes[0] != shapes[1]:
            raise RunError(
                f"{path} belongs to another architecture: {name} is {shapes[0]} there, "
                f"but the recipe makes it {shapes[1]}"
            )
