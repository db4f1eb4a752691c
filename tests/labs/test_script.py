"""The check of the in-class script: correct scripts in unlike styles, and scripts with one fault each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.labs.scripts import (
    BACK,
    FAULTS,
    HEAD,
    MAKE,
    RIGHT,
    ROWS,
    STEP,
    STYLES,
    TRAIN,
    UPDATE,
    ZERO,
    changed,
    observe,
)
from unroll.labs.judge.script import CODES, REMARKS, formulas, judge_script, reached
from unroll.labs.problems import Problem


def faults(problems: list[Problem]) -> list[tuple[str, str]]:
    return [(p.check, p.code) for p in problems if p.code not in REMARKS]


def only(problems: list[Problem]) -> list[tuple[str, str]]:
    """The faults without those parts that a stopped script did not reach."""
    return [fault for fault in faults(problems) if fault[1] != "rnn-not-reached"]


@pytest.mark.parametrize("style", STYLES)
def test_script_correct(style: str) -> None:
    seen = observe(STYLES[style])
    assert seen["stopped"] is None
    problems = judge_script(seen)
    assert faults(problems) == []
    remarks = {"rnn-epoch-update"} if style in ("once an epoch", "one loss for both") else set()
    assert {p.code for p in problems} == remarks


@pytest.mark.parametrize("fault", FAULTS)
def test_script_fault(fault: str) -> None:
    check, code, text = FAULTS[fault]
    compile(text, "lab.py", "exec")
    problems = judge_script(observe(text))
    assert only(problems) == [(check, code)]
    assert all(p.code in CODES for p in problems)


ROW_STATE = "h = torch.zeros(1, n)\n"


@pytest.mark.parametrize(
    ("pairs", "wanted", "remarks"),
    [
        (((ROW_STATE, "h = torch.ones(1, n)\n"),), [], {"rnn-start"}),
        (
            ((f"    {ROW_STATE}", "    global h\n    h = h.detach()\n"), ("def forward", f"{ROW_STATE}def forward")),
            ["rnn-state-kept"],
            set(),
        ),
        ((("forward(sentence), torch", "forward(train_data[0][0]), torch"),), ["rnn-same-sentence"], None),
        ((("h @ Whh + ", "h @ Whh.T + "),), [], set()),
        ((("h @ Whh + ", "h @ Whh.T + "), (" + bh)", ")")), ["rnn-no-b"], set()),
    ],
)
def test_script_rows_are_not_called_transposed(
    pairs: tuple[tuple[str, str], ...], wanted: list[str], remarks: set[str] | None
) -> None:
    """What else differs does not make a row's ``h @ W`` the transpose of the lab's ``W s``."""
    seen = observe(changed(*pairs, text=ROWS))
    problems = judge_script(seen)
    assert [code for _, code in faults(problems)] == wanted
    if remarks is not None:
        assert {p.code for p in problems} & REMARKS == remarks
    assert "ᵀ" not in formulas(seen)["yours"][0]


def test_script_same_sentence_with_both_labels() -> None:
    text = changed(
        ("        for word in sentence:\n            x", "        for word in train_data[1][0]:\n            x")
    )
    (problem,) = [p for p in judge_script(observe(text)) if p.code not in REMARKS]
    assert (problem.check, problem.code) == ("forward", "rnn-same-sentence")
    assert "'bad'] is read, with both labels" in problem.message


def test_script_two_faults_are_both_named() -> None:
    text = changed(
        (STEP, "s = torch.sigmoid(W @ s + U @ x + b)"),
        ("loss_fn(logits.T", "loss_fn(torch.softmax(logits.T, 1)"),
        ("            b -= learning_rate * b.grad\n", ""),
    )
    problems = judge_script(observe(text))
    assert only(problems) == [("forward", "rnn-softmax"), ("update", "rnn-not-updated")]
    assert "rnn-activation" in {p.code for p in problems}


def test_script_line_and_place_of_the_first_difference() -> None:
    text = changed(("            b_out -= learning_rate * b_out.grad\n", ""))
    (problem,) = judge_script(observe(text))
    assert problem.message.startswith("epoch 1, first sentence: b_out was not updated")
    text = changed((ZERO, ""))
    (problem,) = judge_script(observe(text))
    assert problem.message.startswith("epoch 1, second sentence: W, U, b, W_out and b_out are updated")
    assert text.splitlines()[(problem.line or 0) - 1].strip() == "W -= learning_rate * W.grad"
    text = changed(("loss_fn(logits.T", "loss_fn(torch.softmax(logits.T, 1)"))
    (problem,) = judge_script(observe(text))
    assert "softmax" in text.splitlines()[(problem.line or 0) - 1]


def test_script_witness_can_be_repeated() -> None:
    text = changed((STEP, "s = torch.tanh(W @ s - U @ x + b)"))
    problem = judge_script(observe(text))[0]
    assert problem.witness is not None
    space: dict[str, Any] = {"torch": torch}
    exec(problem.witness.given, space)
    results = []
    for sign in (1, -1):
        s = torch.zeros(2, 1)
        for word in space["sentence"]:
            x = torch.eye(5)[:, [["The", "movie", "is", "good", "bad"].index(word)]]
            s = torch.tanh(space["W"] @ s + sign * space["U"] @ x + space["b"])
        logits = space["W_out"] @ s + space["b_out"]
        results.append(float(cross_entropy(logits.T, torch.tensor([space["label"]]))))
    said = [float(part.split("loss = ")[1]) for part in (problem.witness.expected, problem.witness.got)]
    assert said == pytest.approx(results, rel=1e-5)


def test_script_update_witness_is_one_step() -> None:
    text = changed(("W -= learning_rate * W.grad", "W += learning_rate * W.grad"))
    (problem,) = judge_script(observe(text))
    assert problem.witness is not None
    space: dict[str, Any] = {"torch": torch}
    exec(problem.witness.given, space)
    exec(problem.witness.expected.replace("W = ", "expected = "), space)
    exec(problem.witness.got.replace("W = ", "got = "), space)
    step = space["learning_rate"] * space["gradient"].numpy()
    np.testing.assert_allclose(space["expected"], space["W"].numpy() - step, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(space["got"], space["W"].numpy() + step, rtol=1e-4, atol=1e-6)


def test_script_formulas_use_its_own_names() -> None:
    assert formulas(observe(ROWS))["yours"] == ["s_t = tanh(Whh s_{t-1} + Wxh x_t + bh)", "logits = Why s_4 + by"]
    wrong = formulas(observe(changed((STEP, "s = W @ s - U @ x + b"))))
    assert wrong["yours"] == ["s_t = W s_{t-1} − U x_t + b", "logits = W_out s_4 + b_out"]
    assert wrong["lab"] == ["s_t = tanh(W s_{t-1} + U x_t + b)", "logits = W_out s_4 + b_out"]
    assert formulas(observe("x = 1\n"))["yours"] == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "import torch\n",
        "def f(:\n",
        HEAD,
        HEAD + MAKE,
        HEAD + MAKE + "raise ValueError(W)\n",
        "import torch\nx = torch.ones(1, requires_grad=True)\n(x * x).sum().backward()\n",
    ],
)
def test_script_unfinished(text: str) -> None:
    codes = {p.code for p in judge_script(observe(text))}
    assert codes <= {
        "rnn-not-reached",
        "rnn-missing",
        "rnn-no-prediction",
        "rnn-unread",
        "rnn-epochs",
        "rnn-no-plot",
        "rnn-no-history",
        "rnn-no-losses",
    }
    # What stands behind the line that stopped it is open; what a whole script lacks is a problem.
    seen = observe(text)
    if seen["stopped"] is None:
        assert codes & {"rnn-not-reached", "rnn-no-prediction"}
        assert reached(seen) == {}
    else:
        assert codes == set()
        assert not reached(seen)["prediction"]


Z = "        for p in (W, U, b, W_out, b_out):\n            "
ZERO_, NONE, IF = (
    f"{Z}p.grad.zero_()\n",
    f"{Z}p.grad = None\n",
    f"{Z}if p.grad is not None:\n                p.grad.zero_()\n",
)
MOVE = UPDATE[: UPDATE.index("            for p")]
DATA = f"{Z}if p.grad is not None:\n                p.data -= learning_rate * p.grad\n"


@pytest.mark.parametrize(
    ("order", "code", "line"),
    [
        (MOVE + ZERO_ + BACK, "rnn-update-first", "W -= "),
        (MOVE + BACK + ZERO_, "rnn-update-first", "W -= "),
        (DATA + IF + BACK, "rnn-update-first", "p.data -= "),
        (ZERO_ + BACK + MOVE, "rnn-zeroed-first", "p.grad.zero_()"),
        (BACK + ZERO_ + MOVE, "rnn-gradient-lost", "W -= "),
        (BACK + NONE + MOVE, "rnn-gradient-lost", "W -= "),
        (IF + DATA + BACK, "rnn-gradient-lost", "p.data -= "),
    ],
)
def test_script_names_the_order_of_backward_update_and_zeroing(order: str, code: str, line: str) -> None:
    text = changed((BACK + UPDATE, order))
    (problem,) = [p for p in judge_script(observe(text)) if p.code not in REMARKS]
    assert (problem.check, problem.code) == ("update", code)
    assert "The order is " in problem.message
    assert text.splitlines()[(problem.line or 0) - 1].strip().startswith(line)


@pytest.mark.parametrize(
    ("stop", "done"),
    [
        ("W = torch.randn(n, n)\nraise ValueError\n", set()),
        (MAKE.replace("n, n, requires_grad=True", "n, n") + "raise ValueError\n", set()),
        (MAKE + "raise ValueError\n", {"values"}),
        (MAKE + TRAIN.replace(BACK, BACK + "        raise ValueError\n"), {"values", "forward"}),
        (
            MAKE + TRAIN.replace("            U -=", "            raise ValueError\n            U -="),
            {"values", "forward"},
        ),
        (MAKE + TRAIN + "raise ValueError\n", {"values", "forward", "update"}),
    ],
)
def test_script_that_is_stopped_is_right_only_where_enough_was_seen(stop: str, done: set[str]) -> None:
    seen = observe(HEAD + stop)
    assert faults(judge_script(seen)) == []
    assert {check for check, enough in reached(seen).items() if enough} == done


def test_script_shapes_that_do_not_fit_in_the_update_are_the_update_s() -> None:
    text = changed(("U -= learning_rate * U.grad", "U -= learning_rate * W.grad"))
    (problem,) = judge_script(observe(text))
    assert (problem.check, problem.code) == ("update", "rnn-shapes")
    assert "U -= " in text.splitlines()[(problem.line or 0) - 1]


def test_script_recorder_restores_what_it_patches() -> None:
    import builtins

    import matplotlib.axes

    before = (torch.autograd.backward, torch.autograd.grad, builtins.print, matplotlib.axes.Axes.plot)
    observe(RIGHT.replace("0.1, 300", "0.1, 1"))
    observe("raise SystemError('no')")
    assert before == (torch.autograd.backward, torch.autograd.grad, builtins.print, matplotlib.axes.Axes.plot)
