"""Points that a person gave on the review page, read back and put into the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unroll.errors import InputError, nearest, quoted
from unroll.files import refuse_special
from unroll.labs.grade.record import Graded, Reason, Record
from unroll.labs.spec import Lab

PERSON = "person"
"""The code of what a person decided; its message is that person's comment."""
NO_COMMENT = "A person decided the points of this item."
MOST_BYTES = 20 << 20


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Given(_Strict):
    """What a person says of one item.

    Attributes:
        points: None where the points stay as they are.
        comment: for the student; empty where there is none.
    """

    points: float | None = Field(default=None, ge=0)
    comment: str = Field(default="", max_length=10_000)


ItemNumber = Annotated[str, Field(pattern=r"^[1-9]\d{0,2}$")]


class Points(_Strict):
    """The content of ``points.json``.

    Attributes:
        lab: as it is called.
        points: by student and number of the item.
        seen: students whose hand-ins a person has looked at as a whole, so that its reasons for review are settled.
    """

    lab: str
    points: dict[str, dict[ItemNumber, Given]] = {}
    seen: list[str] = []


def read_points(path: Path, lab: Lab, records: Sequence[Record]) -> Points:
    """The points in a file that the review page saved.

    Raises:
        InputError: it cannot be read, is of another form, lab or class, or gives more points than an item has.
    """
    try:
        refuse_special(path)
        if path.stat().st_size > MOST_BYTES:
            raise InputError(
                f"points file {path} has more than {MOST_BYTES >> 20} MB; expected what the review page saves"
            )
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"points file {path} cannot be read: {error.strerror}") from None
    try:
        points = Points.model_validate_json(content.removeprefix(b"\xef\xbb\xbf"))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(
            f"points file {path}: {quoted(where)}: {first['msg']}; expected what the review page saves"
        ) from None
    if points.lab != lab.called:
        raise InputError(
            f"points file {path} is for the lab {quoted(points.lab)}, and this class did {quoted(lab.called)}"
        )
    known = {record.student: {item.number: item for item in record.items} for record in records}
    for student in (*points.points, *points.seen):
        if student not in known:
            raise InputError(f"points file {path}: no student {quoted(student)} in this class{nearest(student, known)}")
    for student, items in points.points.items():
        for number, given in items.items():
            _check(f"points file {path}: student {student}, item {number}", known[student].get(int(number)), given)
    return points


def _check(where: str, item: Graded | None, given: Given) -> None:
    if item is None:
        raise InputError(f"{where}: the lab has no such item")
    if given.points is not None and item.points is not None and given.points > item.points:
        raise InputError(f"{where}: {given.points:g} points; expected 0 to {item.points:g}")


def apply_points(records: Sequence[Record], points: Points) -> list[Record]:
    """The records with what a person decided; doing it twice changes nothing.

    An item that got points is settled: no reason to review it is left. What a check found stays with it, as deductions where
    these leave so many points, else as remarks.
    """
    return [_with(record, points.points.get(record.student, {}), record.student in points.seen) for record in records]


def _with(record: Record, given: Mapping[str, Given], seen: bool) -> Record:
    items = [_decided(item, given.get(str(item.number))) for item in record.items]
    return record.model_copy(update={"items": items, "review": [] if seen else record.review})


def _decided(item: Graded, given: Given | None) -> Graded:
    if given is None or (given.points is None and not given.comment.strip()):
        return item
    comment = given.comment.strip()
    deductions = [reason for reason in item.deductions if reason.code != PERSON]
    remarks = [reason for reason in item.remarks if reason.code != PERSON]
    if given.points is None:
        remarks.append(Reason(points=0, code=PERSON, message=comment))
        return item.model_copy(update={"deductions": item.deductions, "remarks": remarks})
    lost = 0.0 if item.points is None else item.points - given.points
    rest = round(lost - sum(reason.points for reason in deductions), 9)
    if rest < 0:  # the person forgives something of what was found
        remarks = [reason.model_copy(update={"points": 0.0}) for reason in deductions] + remarks
        deductions, rest = [], lost
    if rest > 0:
        deductions.append(Reason(points=rest, code=PERSON, message=comment or NO_COMMENT))
    elif comment:
        remarks.append(Reason(points=0, code=PERSON, message=comment))
    changed = {"awarded": given.points, "deductions": deductions, "remarks": remarks, "review": []}
    return item.model_copy(update=changed)
