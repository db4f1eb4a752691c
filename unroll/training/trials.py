"""Resumable lists of trainings: in one JSON file, where each finished one is written at once, or as run folders.

What is finished is not trained again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from unroll.data.batches import Dataset
from unroll.errors import InputError, RunError
from unroll.files import locked, made_folder, remove_stale, write_atomically
from unroll.training import saved
from unroll.training.facts import facts
from unroll.training.recipe import INDIFFERENT, TITLES, AnyRecipe
from unroll.training.run import RunFolder
from unroll.training.train import train

T = TypeVar("T")
Row = dict[str, Any]
REMEDY = "remove it, or name another folder with --out"


def signature(recipe: AnyRecipe) -> dict[str, Any]:
    """The fields that a training's outcome depends on, apart from its seed and from where the data lie."""
    outside = (*TITLES, *INDIFFERENT, "data", "test_data")
    return {field: value for field, value in recipe.model_dump().items() if field not in outside}


def fingerprint(dataset: Dataset) -> str:
    """Of all parts, so that a study is known to be about them wherever they lie."""
    return saved.fingerprint(dataset.train, dataset.test, dataset.validation)


class Trials:
    """The finished trainings of a file, one row each.

    Args:
        path: the JSON file: a list of rows, or an object whose entry ``trainings`` is one.
        key: the entries of a row by which a training is found again.
        fields: entries that every row must have, each with the types that its value may be of.

    Raises:
        InputError: the file holds something else.
    """

    def __init__(self, path: Path, key: Sequence[str], fields: Mapping[str, type | tuple[type, ...]]) -> None:
        self.path = path
        self.about: dict[str, Any] | None = None
        """What else an object in the file holds; None where the file is a list."""
        self.rows: list[Row] = []
        self._key = key
        if path.is_file():
            self._read(fields)
        self._found = {self._name(row): row for row in self.rows}

    def _read(self, fields: Mapping[str, type | tuple[type, ...]]) -> None:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except ValueError:
            raise InputError(f"{self.path} is damaged; {REMEDY}") from None
        rows = content.pop("trainings", None) if isinstance(content, dict) else content
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise InputError(f"{self.path} is damaged: it holds no list of trainings; {REMEDY}")
        for n, row in enumerate(rows):
            for name, kinds in fields.items():
                if name not in row:
                    raise InputError(
                        f"{self.path} is damaged: training {n} (from 0) has no entry {name}, as an older version left it; "
                        f"{REMEDY}"
                    )
                if type(row[name]) not in (kinds if isinstance(kinds, tuple) else (kinds,)):
                    raise InputError(
                        f"{self.path} is damaged: training {n} (from 0) has {name} = {row[name]!r}; {REMEDY}"
                    )
        self.rows = rows
        self.about = content if isinstance(content, dict) else None

    def _name(self, row: Mapping[str, Any]) -> str:
        return json.dumps([row[name] for name in self._key], sort_keys=True)

    def find(self, **key: Any) -> Row | None:
        """The finished training with this key."""
        return self._found.get(self._name(key))

    def add(self, row: Row) -> None:
        """Keep a finished training, and write the file."""
        self.rows.append(row)
        self._found[self._name(row)] = row
        self.save()

    def complete(
        self,
        todo: Sequence[T],
        key: Callable[[T], dict[str, Any]],
        train: Callable[[T], Row],
        progress: Callable[[Sequence[T]], Iterable[T]] = iter,
    ) -> list[Row]:
        """Train what is missing of `todo`; the rows of all of it, in its order.

        Args:
            key: of one entry of `todo`.
            train: does one, and returns what else belongs into its row.
            progress: wraps the list, for a progress bar.
        """
        for one in progress(todo):
            if self.find(**key(one)) is None:
                self.add({**key(one), **train(one)})
        return [self._found[self._name(key(one))] for one in todo]

    def save(self) -> None:
        """Write the file."""
        content = self.rows if self.about is None else {**self.about, "trainings": self.rows}
        write_atomically(self.path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def finished_run(path: Path, recipe: AnyRecipe) -> RunFolder:
    """The run of a recipe in a folder: taken as it is where it is finished, else gone on with, or begun.

    Raises:
        RunError: the folder holds the run of another recipe.
    """
    begun = path.exists()
    folder = RunFolder(path) if begun else RunFolder.create(path, recipe, facts())
    other = saved.difference(folder.recipe, recipe, "{0} is {1} there, not {2}")
    if other is not None:
        raise RunError(f"{path} is the run of another recipe: {other}; {REMEDY}")
    if not folder.finished:
        train(folder.recipe, folder, echo=lambda line: None, resume=begun)
    return folder


@contextmanager
def alone(folder: Path, command: str) -> Iterator[None]:
    """Make a folder of trainings, and keep every other process that does the same out of it meanwhile.

    Raises:
        InputError: there can be no such folder, or another process is in it.
    """
    made_folder(folder)
    busy = f"another {command} is at work in {folder}; wait until it has ended, or name another folder with --out"
    with locked(folder / ".lock", InputError(busy)):
        remove_stale(folder)
        yield
