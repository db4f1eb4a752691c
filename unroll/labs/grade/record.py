"""What is known of one hand-in after it was graded: points with their reasons, and what a person has to look at.

A record is written to ``ID/result.json`` in the folder of a graded class; every other output is made from the records.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from unroll.errors import shortened

VERSION: Literal[1] = 1
HAND_INS = "handed.in"
"""Where the files lie as they were handed in, a folder a student. No id has a dot, so none is called so."""


Text = Annotated[str, AfterValidator(lambda text: shortened(text, 2000))]
"""Text that may come of a hand-in, whatever its length."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Seen(_Strict):
    """An input that shows a problem, so that a person can repeat it; see `unroll.labs.problems.Witness`."""

    given: Text
    expected: Text
    got: Text


class Reason(_Strict):
    """One deduction, or one remark where `points` is 0.

    Attributes:
        points: that it costs.
        code: of the problem (docs/labs/check.md), or of the grading's own (docs/labs/teachers.md).
        message: in words.
        place: such as "line 26" or "cell 3, line 2"; None where no one line is to blame.
        witness: None where the message says all that there is to repeat.
    """

    points: float = Field(ge=0)
    code: str
    message: Text
    place: str | None = None
    witness: Seen | None = None


class Graded(_Strict):
    """One item of the lab.

    Attributes:
        number, title, points: as the lab has them; `points` is None where it names none.
        awarded: None where a person decides: a written answer, or what could not be read.
        deductions: they add up to `points - awarded`, where something was awarded.
        remarks: what costs nothing.
        review: why a person has to look; empty where none has to.
        question: whether it is one, whose points a person gives in any case.
        text: the written answer to it, as it was found in the PDF; None where none was found.
    """

    number: int = Field(ge=1)
    title: str
    points: float | None
    awarded: float | None = None
    deductions: list[Reason] = []
    remarks: list[Reason] = []
    review: list[Text] = []
    question: bool = False
    text: str | None = None


class Trained(_Strict):
    """The whole run of the file, and the accuracy of its model over the test images.

    Attributes:
        seconds: of the run.
        losses: the first, and the last.
        printed: the last accuracy that it printed, in percent.
        accuracy: recomputed, in percent; None where it could not be.
        by: what recomputed it: ``engine``, from the cell's program and weights, or ``model``, the student's own classes with
            these weights in a process without labels.
        why_not: why it could not be recomputed.
    """

    seconds: float = Field(ge=0)
    losses: tuple[float, float] | None = None
    printed: float | None = None
    accuracy: float | None = Field(None, ge=0, le=100)
    by: Literal["engine", "model"] | None = None
    why_not: Text | None = None


class Record(_Strict):
    """One hand-in.

    Attributes:
        student: the id, under which its folder stands.
        lab: as it is called.
        key: a digest of everything that the points depend on: code, PDF, lab, options, version. Who has the same key is not
            graded again.
        code, pdf: the names of the files as handed in; None where there is none.
        items: all of the lab's, in their order.
        notes: what was repaired, ignored or replaced on the way in.
        review: why a person has to look at the whole hand-in, beside the items' own reasons.
        stopped: how the file ended before its end, in words.
        formulas: ``yours`` and ``lab``, lines of text.
        trained: None where it was not asked for, or the file has nothing to train.
        log: the end of what the file printed.
        figures: names of the pictures in ``ID/figures``.
    """

    version: Literal[1] = VERSION
    student: str
    lab: str
    key: str
    code: str | None
    pdf: str | None
    items: list[Graded]
    notes: list[Text] = []
    review: list[Text] = []
    stopped: Text | None = None
    formulas: dict[str, list[Text]] = {}
    trained: Trained | None = None
    log: str = ""
    figures: list[str] = []

    @property
    def needs_review(self) -> list[str]:
        """Every reason for a person to look, each once, written answers apart."""
        of_items = [(item.number, why) for item in self.items if not item.question for why in item.review]
        return self.review + [f"item {number}: {why}" for number, why in of_items if why not in self.review]

    @property
    def awarded(self) -> float:
        """The points so far."""
        return sum(item.awarded for item in self.items if item.awarded is not None)
