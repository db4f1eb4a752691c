"""Points with their reasons, from what a check and a training say. Nothing is deducted for what could not be read."""

from __future__ import annotations

from unroll.labs.check import NOTHING, Checked
from unroll.labs.check import Item as CheckedItem
from unroll.labs.grade.record import Graded, Reason, Seen
from unroll.labs.grade.training import Training, accuracy_item, again, printed_reason
from unroll.labs.grade.written import Answers
from unroll.labs.problems import Code, Problem
from unroll.labs.spec import Item, Lab

CODES = {
    "accuracy": Code("the accuracy reached is worth fewer points than the item has", ()),
    "accuracy-differs": Code("the accuracy printed is not that of the model", ()),
    "person": Code("a person decided the points", ()),
}
"""What grading says beside the check's codes."""
TESTING = "testing"


def items_of(
    lab: Lab, checked: Checked | None, training: Training | None, answers: Answers, name: str = "", why: str = ""
) -> list[Graded]:
    """All of a lab's items with their points.

    Args:
        checked: what the check says; None where there was no code that could be read.
        training: what a training on all data says; None where it was not asked for.
        answers: the written answers, and what there is to know beside them.
        name: of the file of code.
        why: why nothing was checked.
    """
    seen = {} if checked is None else {item.number: item for item in checked.items}
    if checked is not None and checked.stopped is not None:
        why = checked.stopped.message
    graded = []
    for number, item in enumerate(lab.items, start=1):
        one = Graded(number=number, title=item.title, points=item.points)
        if item.kind == "question":
            note = answers.notes.get(number)
            one = one.model_copy(
                update={"question": True, "text": answers.found.get(number), "review": [] if note is None else [note]}
            )
        elif item.kind == "checks":
            one = _by_check(one, item, checked, seen.get(number), why)
            if TESTING in item.checks and training is not None:
                one = _recomputed(one, item, training, again(name, lab))
        else:
            if training is not None:
                one = accuracy_item(number, item, training, again(name, lab))
            elif checked is None:
                one = one.model_copy(update={"review": [why]})
            if checked is not None and (found := seen.get(number)) is not None:
                beside = [_reason(problem, 0, checked) for problem in [*found.problems, *found.remarks]]
                one = one.model_copy(update={"remarks": [*one.remarks, *beside]})
        graded.append(one)
    return graded


def _by_check(one: Graded, item: Item, checked: Checked | None, found: CheckedItem | None, why: str) -> Graded:
    if checked is None or found is None:
        return one.model_copy(update={"review": [why or "it was not looked at"]})
    remarks = [_reason(problem, 0, checked) for problem in found.remarks]
    if found.awarded is None:
        words = [remark.message for remark in remarks] or [why or "the check has seen too little of this"]
        return one.model_copy(update={"review": words, "remarks": remarks})
    left = float(item.points or 0)
    deductions = []
    # What leaves nothing is told first, and costs all there is.
    for problem in sorted(found.problems, key=lambda problem: problem.code not in NOTHING):
        each = left if item.each is None or problem.code in NOTHING else min(left, item.each)
        left -= each
        deductions.append(_reason(problem, each, checked))
    return one.model_copy(update={"awarded": left, "deductions": deductions, "remarks": remarks})


def _recomputed(one: Graded, item: Item, training: Training, repeat: str) -> Graded:
    """With what there is to say of the accuracy that the file printed; once where the check has found why already."""
    left = one.awarded
    told = left is None or any(reason.points for reason in one.deductions)
    cost = 0.0 if told or left is None else min(left, left if item.each is None else item.each)
    reason = printed_reason(training, cost, repeat)
    if reason is None:
        return one
    if reason.points and left is not None:
        return one.model_copy(update={"awarded": left - reason.points, "deductions": [*one.deductions, reason]})
    return one.model_copy(update={"remarks": [*one.remarks, reason]})


def _reason(problem: Problem, points: float, checked: Checked) -> Reason:
    witness = problem.witness
    return Reason(
        points=points,
        code=problem.code,
        message=problem.message,
        place=None if problem.line is None else checked.source.place(problem.line),
        witness=None if witness is None else Seen(**vars(witness)),
    )
