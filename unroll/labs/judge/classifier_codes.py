"""The codes of what `judge_classifier` finds; those in `REMARKS` cost nothing."""

from __future__ import annotations

from unroll.labs.problems import Code, Problem, Witness

CHECK = "classifier"

_STEP = (
    "Write the loop on paper for T = 3: what goes into the cell at each step, and what comes out?",
    "Compare the arguments of the cell's call with h_{t-1} and c_{t-1} of the equations.",
)
_ROWS = (
    "Print the shape of x, and of what the cell is given at a step.",
    "x is (B, T, D): which axis is time? Compare one x_t with the row of a picture.",
)
_START = ("What do h and c hold before the first row of a picture?", "Where are they made, and how often?")
_HEAD = ("What is logits in the lab's last equation made of?", "Look at what stands between the loop and return.")
_GRADIENT = ("The values are right. What does a gradient need to come back to the first row?",)
_OWN = ("Which modules does model.parameters() know?", "What belongs into __init__, and what into forward?")

CODES: dict[str, Code] = {
    "classifier-unread": Code("the classifier could not be looked at", ()),
    "classifier-raises": Code("the classifier raises an exception", ("Read the message and its line.",)),
    "classifier-unfinished": Code("the classifier is not finished", ("Its forward must return the logits, (B, 10).",)),
    "cell-call": Code(
        "the classifier calls the cell with arguments that do not fit",
        ("The cell itself is right. What does the line give it, and in which order?", _ROWS[0]),
    ),
    "classifier-differs": Code("the logits differ from the lab's; how could not be told", _STEP),
    "cell-not-called": Code("the classifier does not call the cell", ("Where should the loop over the rows call it?",)),
    "forbidden-module": Code("a ready-made recurrent module is used", ("The lab wants the equations written out.",)),
    "start-not-zero": Code("h_0 or c_0 is not zero", _START),
    "start-learned": Code("h_0 or c_0 is learned", _START),
    "state-leaks": Code("the state is kept from one batch to the next", _START),
    "state-kept": Code("the state is kept unless a method is called", _START),
    "h-not-handed-on": Code("h_t is not handed on to the next step", _STEP),
    "c-not-handed-on": Code("c_t is not handed on to the next step", _STEP),
    "state-not-handed-on": Code("the state is not handed on to the next step", _STEP),
    "states-swapped": Code("h and c are handed on in the wrong places", _STEP),
    "state-older": Code("the state comes from an earlier step than the one before", _STEP),
    "state-detached": Code("the state is handed on without its gradient", _GRADIENT),
    "no-gradient": Code("the cell is called without gradients", _GRADIENT),
    "steps-missing": Code("rows are left out", _ROWS),
    "steps-repeated": Code("rows are read more than once", _ROWS),
    "same-row": Code("every step reads the same row", _ROWS),
    "rows-reversed": Code("the rows are read backwards", _ROWS),
    "rows-order": Code("the rows are read in another order", _ROWS),
    "columns-for-rows": Code("columns are read instead of rows", _ROWS),
    "view-for-transpose": Code("view or reshape in place of a transpose mixes pictures", _ROWS),
    "steps-over-batch": Code("the steps go over the pictures of a batch", _ROWS),
    "batch-mixed": Code("pictures of a batch are mixed", _ROWS),
    "not-last-step": Code("the logits are made of another step than the last", _HEAD),
    "all-steps": Code("the logits are made of several steps", _HEAD),
    "c-for-h": Code("the logits are made of c_T, not h_T", _HEAD),
    "c-beside-h": Code("the logits read c_T beside h_T", _HEAD),
    "cell-result-unused": Code("the logits do not depend on the cell", _HEAD),
    "output-layer-unused": Code("the output layer is not used", _HEAD),
    "head-activation": Code("an activation stands before the output layer", _HEAD),
    "logits-activation": Code("an activation stands behind the output layer", _HEAD),
    "softmax-seen": Code("forward returns a softmax, not the logits", ()),
    "logits-shape": Code("the logits have another shape than (B, 10)", _HEAD),
    "cell-made-anew": Code("a new cell is made at each forward", _OWN),
    "cell-unregistered": Code("the cell is no submodule of the classifier", _OWN),
    "parameter-unused": Code("a parameter of the classifier is not used", _OWN),
    "output-without-bias": Code("the output layer has no bias", _HEAD),
    "head-extra": Code("the logits read several steps through further parameters", _HEAD),
    "head-unread": Code("what stands between h_T and the logits could not be told", _HEAD),
    "random-in-eval": Code(
        "the logits are random in evaluation mode", ("model.eval() switches nn.Dropout off, and what not?",)
    ),
}

REMARKS: frozenset[str] = frozenset(
    """classifier-unread classifier-unfinished cell-not-called start-learned state-kept softmax-seen cell-unregistered
    parameter-unused output-without-bias head-extra head-unread random-in-eval""".split()  # noqa: SIM905
)


def fault(
    code: str, line: int | None, message: str, about: str | None = None, witness: Witness | None = None
) -> Problem:
    """A problem of the classifier."""
    return Problem(CHECK, code, line, message, about, witness)
