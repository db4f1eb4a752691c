"""The classifier's check: right ones in many styles are never called wrong, each fault has its own code."""

# ruff: noqa: E501  (a student's text stands in one line)
from __future__ import annotations

import json
import linecache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from tests.labs.classifiers import CELL, CORRECT, FAULTS, INIT, LOOP, MAYBE, OWN, RIGHT, text_of
from unroll.labs.child.find import LSTM, Wanted
from unroll.labs.child.observe_classifier import observe_classifier
from unroll.labs.judge.classifier import CODES, REMARKS, judge_classifier


class Found(NamedTuple):
    cell: type | None
    classifier: type | None
    classifiers: list[nn.Module]
    classifier_reason: str = ""
    namespace: tuple[()] = ()
    wanted: Wanted = LSTM


def observed(text: str, name: str = "lab_of_a_student.py", instances: bool = False) -> dict[str, Any]:
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, name, "exec"), space)
    kind = space["ManualLSTMClassifier"]
    made = [kind(28, 32, 10)] if instances else []
    return observe_classifier(Found(space["ManualLSTMCell"], kind, made), name)


def codes(found: dict[str, Any], remarks: bool = False) -> list[str]:
    problems = judge_classifier(found)
    assert all(problem.code in CODES and problem.check == "classifier" for problem in problems)
    return [problem.code for problem in problems if remarks or problem.code not in REMARKS]


@pytest.mark.parametrize("style", CORRECT)
def test_classifier_right_is_never_called_wrong(style: str) -> None:
    found = observed(CORRECT[style])
    assert found["status"] == "ok", found
    assert codes(found) == []
    assert "classifier-unread" not in codes(found, remarks=True)


@pytest.mark.parametrize(("code", "number"), [(code, n) for code, texts in FAULTS.items() for n in range(len(texts))])
def test_classifier_fault_has_its_own_code(code: str, number: int) -> None:
    assert set(codes(observed(FAULTS[code][number]))) == {code}


def test_classifier_fault_tells_line_call_and_witness() -> None:
    text = FAULTS["c-not-handed-on"][0]
    (problem,) = judge_classifier(observed(text))
    assert problem.line is not None
    assert problem.witness is not None
    assert text.splitlines()[problem.line - 1].strip().startswith("h, _ = self.cell")
    assert "`self.cell(x[:, t, :], h, c)`" in problem.message
    assert problem.about == "c_{t-1}"
    space: dict[str, Any] = {"torch": torch}
    exec(text, space)
    *lines, last = problem.witness.given.splitlines()
    exec("\n".join(lines), space)
    assert ", ".join(f"{number:.4f}" for number in eval(last, space).tolist()) == problem.witness.got
    model, x = space["model"], space["x"]
    h = c = torch.zeros(2, 6)
    for t in range(28):
        h, c = model.cell(x[:, t], h, c)
    assert ", ".join(f"{number:.4f}" for number in model.fc(h)[0, :3].tolist()) == problem.witness.expected


@pytest.mark.parametrize(
    ("end", "init", "where"),
    [
        ("return F.softmax(self.fc(h), dim=1)", INIT, "F.softmax"),
        ("return self.soft(self.fc(h))", INIT + "\nself.soft = nn.Softmax(dim=-1)", "self.soft(self.fc"),
        ("e = torch.exp(self.fc(h))\nreturn e / e.sum(1, keepdim=True)", INIT, "return e"),
        (
            "a = torch.softmax(h, 1)\nh = h + 0 * a\np = self.fc(h).softmax(1)\nq = p * 1\nreturn q",
            INIT,
            "p = self.fc(h).softmax(1)",
        ),
    ],
)
def test_classifier_softmax_is_a_remark_at_its_own_line(end: str, init: str, where: str) -> None:
    text = text_of(LOOP + end, init)
    (problem,) = judge_classifier(observed(text))
    assert (problem.code, "softmax-seen" in REMARKS) == ("softmax-seen", True)
    assert problem.line is not None
    assert where in text.splitlines()[problem.line - 1]


def test_classifier_without_a_softmax_in_training_has_no_remark() -> None:
    assert codes(observed(CORRECT["log_softmax"]), remarks=True) == []
    in_eval = observed(text_of(LOOP + "y = self.fc(h)\nreturn y if self.training else F.softmax(y, 1)"))
    assert codes(in_eval, remarks=True) == []


@pytest.mark.parametrize(
    ("style", "code"),
    [
        ("learned start", "start-learned"),
        ("state kept, reset by hand", "state-kept"),
        ("normalised, no bias", "output-without-bias"),
    ],
)
def test_classifier_remarks_cost_nothing(style: str, code: str) -> None:
    assert code in REMARKS
    assert set(codes(observed(CORRECT[style]), remarks=True)) == {code}


@pytest.mark.parametrize("wrong", ["x[:, 27 - t]", "x[:, t] * 0.5"])
def test_classifier_with_a_loop_of_its_own_that_differs_gets_a_remark(wrong: str) -> None:
    assert codes(observed(text_of(OWN.replace("x[:, t]", wrong))), remarks=True) == ["cell-not-called"]
    assert codes(observed(text_of(OWN)), remarks=True) == []


def test_classifier_with_a_loop_of_its_own_is_not_right_without_its_gradient() -> None:
    found = observed(text_of(OWN.replace("[x[:, t], h]", "[x[:, t], h.detach()]")))
    assert found["own_loop"] == {"gradients": False}
    assert codes(found, remarks=True) == ["cell-not-called"]


@pytest.mark.parametrize("given", ["ux[:, 27 - t]", "ux[:, 0]"])
def test_classifier_reads_the_rows_that_the_cell_reads(given: str) -> None:
    forward = "ux = self.cell.U(x)\n" + RIGHT.replace("x[:, t, :], h, c", f"x[:, t], h, c, ux={given}")
    assert codes(observed(text_of(forward, cell=MAYBE))) == ["rows-reversed" if "27" in given else "same-row"]


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("h, c = self.cell", "h, _ = self.cell", "c-not-handed-on"),
        ("h, c = self.cell", "c, h = self.cell", "states-swapped"),
        ("h = torch.zeros", "h = torch.ones", "start-not-zero"),
        ("], h, c, ux", "], h.detach(), c, ux", "state-detached"),
    ],
)
def test_classifier_faults_beside_a_projection_are_seen(old: str, new: str, code: str) -> None:
    forward = "ux = self.cell.U(x)\n" + RIGHT.replace("x[:, t, :], h, c", "x[:, t], h, c, ux=ux[:, t]")
    assert old in forward
    (problem,) = judge_classifier(observed(text_of(forward.replace(old, new), cell=MAYBE)))
    assert problem.code == code
    assert problem.witness is not None


def test_classifier_forbidden_module_is_seen_behind_one_in_the_cell() -> None:
    text = text_of(
        RIGHT.replace("fc(h)", "fc(self.rnn(x)[0][:, -1] + h)"),
        INIT + "\nself.rnn = nn.GRU(input_size, hidden_size, batch_first=True)",
        cell=CELL.replace(
            "        self.gates", "        self.inner = nn.LSTMCell(input_size, hidden_size)\n        self.gates"
        ).replace("        c_t =", "        self.inner(x)\n        c_t ="),
    )
    assert "forbidden-module" in codes(observed(text))


@pytest.mark.parametrize("code", ["state-leaks", "state-detached", "no-gradient"])
def test_classifier_fault_that_the_logits_do_not_show_has_a_witness(code: str) -> None:
    text = FAULTS[code][0]
    (problem,) = judge_classifier(observed(text))
    assert problem.witness is not None
    *lines, last = problem.witness.given.splitlines()
    space: dict[str, Any] = {"torch": torch}
    exec(text, space)
    exec("\n".join(lines), space)
    got = eval(last, space)
    form = "{:.4f}" if code == "state-leaks" else "{:.2e}"
    assert problem.witness.got == ("None" if got is None else ", ".join(form.format(number) for number in got.tolist()))
    assert problem.witness.got != problem.witness.expected


def test_classifier_detached_at_the_end_has_a_witness_without_gradient() -> None:
    (problem,) = judge_classifier(observed(FAULTS["state-detached"][2]))
    assert problem.witness is not None
    assert problem.witness.given.endswith("x.grad")
    assert problem.witness.got == "None"


@pytest.mark.parametrize(
    "forward",
    [
        LOOP.replace("h, c = self.cell(x[:, t, :], h, c)", "self.cell(x[:, t, :], h, c)\n    h, c = self.cell.last")
        + "return self.fc(torch.relu(self.fc2(h)))",
        "for t in range(28):\n    self.cell(x, t)\nreturn self.fc(self.cell.last[0])",
    ],
)
def test_classifier_whose_cell_hands_on_in_its_own_way_is_not_called_wrong(forward: str) -> None:
    whole = "x, t" in forward
    cell = CELL.replace(
        "return torch.sigmoid(o) * torch.tanh(c_t), c_t", "self.last = torch.sigmoid(o) * torch.tanh(c_t), c_t"
    )
    if whole:
        cell = cell.replace(
            "x, h_prev, c_prev):",
            "x, t):\n        zeros = x.new_zeros(len(x), self.hidden_size)\n        h_prev, c_prev = self.last if t else (zeros, zeros)\n        x = x[:, t]",
        )
    init = INIT if whole else INIT + "\nself.fc2 = nn.Linear(hidden_size, hidden_size)"
    assert codes(observed(text_of(forward, init, cell=cell))) == []


def test_classifier_that_ends_the_program_is_seen_as_far_as_it_goes() -> None:
    assert codes(observed(text_of("exit()")), remarks=True) == ["classifier-raises"]


def test_classifier_of_an_unknown_constructor_is_copied_from_an_instance() -> None:
    text = text_of(RIGHT, arguments="input_size, hidden_size, num_classes, *, magic")
    text = text.replace("*, magic", "magic=None").replace(
        "super().__init__()\n        self.hidden_size = hidden_size\n        self.cell",
        "super().__init__()\n        assert hidden_size == 32\n        self.hidden_size = hidden_size\n        self.cell",
    )
    found = observed(text, instances=True)
    assert found["call"] is None
    assert codes(found, remarks=True) == []
    assert codes(observed(text.replace("h, c = self", "h, _ = self"), instances=True)) == ["c-not-handed-on"]


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("torch.sigmoid(o) * torch.tanh(c_t), c_t", "c_t, torch.sigmoid(o) * torch.tanh(c_t)"),
        ("torch.sigmoid(o) * torch.tanh(c_t), c_t", "torch.sigmoid(o) * c_t, c_t"),
        (" + torch.sigmoid(i) * torch.tanh(g)", ""),
        ("torch.sigmoid(f) * c_prev", "torch.sigmoid(f) * c_prev.detach()"),
        ("torch.sigmoid(o) * torch.tanh(c_t), c_t", "torch.zeros_like(c_t), torch.zeros_like(c_t)"),
        ("torch.sigmoid(o) * torch.tanh(c_t), c_t", "h_prev, c_prev"),
    ],
)
def test_classifier_is_not_blamed_for_its_cell(right: str, wrong: str) -> None:
    assert right in CELL
    assert codes(observed(text_of(RIGHT, cell=CELL.replace(right, wrong)))) == []


def test_classifier_for_one_batch_size_is_not_called_wrong() -> None:
    text = text_of(RIGHT.replace("torch.zeros(B,", "torch.zeros(batch_size,")) + "\nbatch_size = 64\n"
    assert codes(observed(text), remarks=True) == ["classifier-unread"]


@pytest.mark.parametrize("forward", ["pass", "...", "return None", "raise NotImplementedError"])
def test_classifier_that_is_not_written_yet_is_a_remark(forward: str) -> None:
    assert codes(observed(text_of(forward)), remarks=True) == ["classifier-unfinished"]


def test_classifier_is_not_blamed_for_a_form_of_input_that_nobody_tried() -> None:
    text = text_of(RIGHT.replace("x[:, t, :]", "x[:, t, :7]").replace("x.size(1)", "28"))
    assert codes(observed(text.replace("28, 32, 10", "7, 32, 10"), instances=True), remarks=True) == [
        "classifier-unread"
    ]


def test_classifier_that_is_not_there_is_a_remark() -> None:
    found = observe_classifier(Found(None, None, [], "no class fits"), "nothing.py")
    assert codes(found, remarks=True) == ["classifier-unread"]
    assert codes(found) == []
    assert "no class fits" in found["why"]


def test_classifier_observation_is_plain_data_and_leaves_the_class_as_it_was() -> None:
    def plain(value: Any) -> bool:
        if isinstance(value, dict):
            return all(isinstance(key, str) and plain(one) for key, one in value.items())
        if isinstance(value, list | tuple):
            return all(plain(one) for one in value)
        return value is None or type(value) in (bool, int, float, str, np.ndarray)

    text = CORRECT["plain"]
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(text, "plain.py", "exec"), space)
    cell, forward = space["ManualLSTMCell"], space["ManualLSTMCell"].forward
    dtype, state = torch.get_default_dtype(), torch.get_rng_state()
    found = observe_classifier(Found(cell, space["ManualLSTMClassifier"], []), "plain.py")
    assert plain(found)
    json.dumps(found, default=lambda array: array.tolist())
    assert cell.forward is forward
    assert torch.get_default_dtype() == dtype
    assert torch.equal(torch.get_rng_state(), state)
