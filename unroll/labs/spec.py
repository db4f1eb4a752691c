"""What a lab asks for: its items in their own numbering, with points, and what each is judged by.

Two labs come along as YAML files beside this one, which explain the fields; a course can bring its own.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from unroll.cells import CELLS
from unroll.cells.own import is_own
from unroll.errors import InputError, nearest, quoted
from unroll.files import NAME_RULE, is_name
from unroll.labs.keys import Key, load_key, name_of
from unroll.yaml_files import read_yaml

LABS = Path(__file__).parent
CHECKS = {
    "lstm": ("cell", "classifier", "training", "testing", "pictures"),
    "rnn": ("values", "forward", "update", "prediction"),
}
"""What a check can look at in a student's file, by the kind of the lab."""


class Question(BaseModel):
    """One question, as a lab file without items lists them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str = Field(min_length=1)
    points: float | None = Field(None, gt=0, allow_inf_nan=False)


class Band(BaseModel):
    """The points that a test accuracy of at least so many percent is worth."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at_least: float = Field(ge=0, le=100)
    points: float = Field(ge=0, allow_inf_nan=False)


class Item(BaseModel):
    """One item of a lab.

    Attributes:
        points: at most; None where the lab names none, which only a question may leave out.
        title: in a few words.
        checks: the checks (`CHECKS`) whose problems belong to this item; none for a question.
        each: points lost for each problem; None: all of them for the first.
        bands: points by test accuracy; empty where accuracy decides nothing.
        stop_if_first_epoch_loss_above: the mean loss of the first epoch above which a grading stops the training, and takes the
            accuracy that the model has then; None: never. With bands only.
        text: the question, in Markdown; None where the item is none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    points: float | None = Field(None, gt=0, allow_inf_nan=False)
    title: str = Field("", max_length=200)
    checks: list[str] = []
    each: float | None = Field(None, gt=0, allow_inf_nan=False)
    bands: list[Band] = []
    stop_if_first_epoch_loss_above: float | None = Field(None, gt=0, allow_inf_nan=False)
    text: str | None = Field(None, min_length=1)

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.text is None and not self.checks and not self.bands:
            raise ValueError("has neither checks nor bands nor a text, so nothing is asked")
        if self.text is not None and (self.checks or self.bands):
            raise ValueError("has a text and checks or bands too; make two items of it")
        if self.text is None and self.points is None:
            raise ValueError("has no points")
        if self.each is not None and (not self.checks or self.bands):
            raise ValueError("'each' goes with checks alone")
        if self.stop_if_first_epoch_loss_above is not None and not self.bands:
            raise ValueError("'stop_if_first_epoch_loss_above' goes with bands alone")
        limits = [band.at_least for band in self.bands]
        if limits != sorted(set(limits), reverse=True):
            raise ValueError("bands do not fall from one at_least to the next")
        if any(band.points > (self.points or 0) for band in self.bands):
            raise ValueError("a band has more points than the item")
        return self

    @property
    def kind(self) -> Literal["checks", "accuracy", "question"]:
        """What decides its points."""
        return "question" if self.text is not None else "accuracy" if self.bands else "checks"

    def points_for_problems(self, count: int) -> float:
        """What is left of its points where a check has found so many problems.

        >>> Item(points=30, checks=["cell"], each=6).points_for_problems(1)
        24.0
        """
        points = float(self.points or 0)
        return max(0.0, points - count * (points if self.each is None else self.each))

    def points_for_accuracy(self, accuracy: float) -> float:
        """What a test accuracy, a share of 1, is worth by its bands: those of the first that it reaches.

        >>> Item(points=15, bands=[{"at_least": 97, "points": 15}]).points_for_accuracy(0.9713)
        15.0
        """
        percent = round(100 * accuracy, 9)  # 0.57 * 100 is 56.99999999999999
        return float(next((band.points for band in self.bands if percent >= band.at_least), 0))


class Lab(BaseModel):
    """What a lab asks for.

    Attributes:
        name: of the two files; {student_id} stands for the number.
        title: of the report.
        cell: `lstm` or `rnn`, or a key (see `load_key`), where the lab says; see `kind`.
        items: in the order of their numbers, from 1 on. A file of the older form, with `questions` alone, has those as items.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"\{student_id\}")
    title: str = Field(min_length=1)
    cell: str | None = None
    items: list[Item] = Field(min_length=1, max_length=100)
    _called: str = PrivateAttr("")
    _path: Path = PrivateAttr(Path())

    @model_validator(mode="before")
    @classmethod
    def _questions_are_items(cls, fields: Any) -> Any:
        if not isinstance(fields, dict) or "questions" not in fields:
            return fields
        if "items" in fields:
            raise ValueError("has items and questions; make the questions items with a text")
        questions = fields["questions"]
        if not isinstance(questions, list):
            raise ValueError("questions: expected a list")
        items = [Question.model_validate(question).model_dump() for question in questions]
        if not items:
            raise ValueError("questions: expected at least one")
        return {**{name: value for name, value in fields.items() if name != "questions"}, "items": items}

    @model_validator(mode="after")
    def _checks_are_known(self) -> Self:
        asked = [check for item in self.items for check in item.checks]
        for number, item in enumerate(self.items, start=1):
            for check in item.checks:
                if check not in CHECKS[self.kind]:
                    known = ", ".join(CHECKS[self.kind])
                    raise ValueError(f"item {number}: no check {quoted(check)} for {self.kind}; known: {known}")
        if len(set(asked)) != len(asked):
            raise ValueError("a check belongs to two items; expected one for each")
        return self

    @property
    def kind(self) -> Literal["lstm", "rnn"]:
        """What a check looks for: classes as in the homework, or a script as in class; by `cell`, else by the checks."""
        if self.cell is not None:
            return "rnn" if self.cell == "rnn" else "lstm"
        return "rnn" if any(check in CHECKS["rnn"] for item in self.items for check in item.checks) else "lstm"

    @field_validator("cell")
    @classmethod
    def _cell_is_known(cls, cell: str | None) -> str | None:
        if cell is None or cell in CELLS or is_own(cell):
            return cell
        raise ValueError(
            f"unknown cell {quoted(cell)}{nearest(cell, CELLS)} (or name a class in a file, as in my_key.py:MyCell)"
        )

    def load_key(self) -> Key | None:
        """The cell that a student's is compared with, where that is another than the LSTM; None of the labs without one.

        A class in a file (`my_key.py:MyCell`, beside the lab's own file) is the teacher's: this executes the file.

        Raises:
            InputError: there is no such file or class, or its equations cannot be read.
        """
        if self.cell is None or self.cell in ("lstm", "rnn"):
            return None
        return load_key(str(self._path.parent / self.cell) if is_own(self.cell) else self.cell)

    @property
    def cell_name(self) -> str:
        """What the cell is called in words, and in the names of a student's classes, such as ``LSTM``."""
        if self.cell in (None, "lstm", "rnn"):
            return self.kind.upper()
        return name_of(str(self.cell))

    @property
    def called(self) -> str:
        """As `--lab` names it; of a course's own file, its name without suffix."""
        return self._called

    def key_digest(self) -> str:
        """Of the file of a key of the teacher's own; empty where the key is a name."""
        file = (self.cell or "").rpartition(":")[0]
        return hashlib.sha256((self._path.parent / file).read_bytes()).hexdigest() if file else ""

    @property
    def said(self) -> str:
        """What to give `--lab`."""
        return Path(self.source).name

    @property
    def source(self) -> str:
        """The same for this machine: the lab's name, or the path of its file."""
        return self._called if self._path.parent == LABS.absolute() else str(self._path)

    @property
    def questions(self) -> dict[int, Item]:
        """The items that are to be answered in words, by their numbers."""
        return {n: item for n, item in enumerate(self.items, start=1) if item.text is not None}

    def file_name(self, student_id: str) -> str:
        return self.name.replace("{student_id}", student_id)


def load_lab(name: str) -> Lab:
    """A lab by its name (`homework`, `inclass`) or its file.

    Raises:
        InputError: there is no such lab, or its file is not as expected.
    """
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        known = {file.stem: file for file in LABS.glob("*.yaml")}
        if name not in known:
            raise InputError(f"unknown lab {name!r}{nearest(name, known)} (or name a file that ends in .yaml)")
        path = known[name]
    fields = read_yaml(path, "lab file", InputError)
    try:
        lab = Lab.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        what = " ".join(first["msg"].removeprefix("Value error, ").split())
        raise InputError(f"lab file {path}: {where}: {what}; see unroll/labs/homework.yaml") from None
    if not is_name(lab.file_name("1")):
        raise InputError(f"lab file {path}: name is {quoted(lab.name)}; expected {NAME_RULE}, and {{student_id}} in it")
    lab._called, lab._path = path.stem, path.absolute()
    return lab


def questions_file(lab: Lab) -> str:
    """The lab's questions as Markdown, for a person to write their answers into."""
    lines = []
    for number, question in lab.questions.items():
        text = (question.text or "").strip().replace("--", "- -")
        lines += [f"## {number}", "", f"<!-- {text} -->", "", ""]
    return "\n".join(lines).rstrip() + "\n"
