"""Cells in many styles are right, and each fault is named: equation, line, and numbers that can be repeated."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import linecache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unroll.labs.child.find import find
from unroll.labs.child.observe_cell import observe_cell
from unroll.labs.judge.cell import formulas, judge_cell
from unroll.labs.judge.cell_codes import CODES, REMARKS
from unroll.labs.judge.weights import short
from unroll.labs.problems import Problem

_spec = importlib.util.spec_from_file_location("cells", Path(__file__).with_name("cells.py"))
assert _spec is not None
assert _spec.loader is not None
cells = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cells)
FOUR, HEAD, LAST, SUM = cells.FOUR, cells.HEAD, cells.LAST, cells.SUM

CLASSIFIER = """
class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        h = torch.zeros(x.size(0), self.hidden_size)
        c = torch.zeros(x.size(0), self.hidden_size)
        for t in range(x.size(1)):
            h, c = self.cell(x[:, t, :], h, c)
        return self.fc(h)

model = ManualLSTMClassifier(28, 32, 10)
"""


def run(source: str) -> tuple[dict[str, Any], dict[str, Any], str]:
    """What was observed of a source, its namespace, and the text with line numbers from 1."""
    text, name = HEAD + source, "student.py"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    space: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(text, name, "exec"), space)
    observed = observe_cell(find(space, []), name)
    assert "failed" not in observed or "run" in observed["failed"]
    return observed, space, text


def problems(source: str, remarks: bool = False) -> list[Problem]:
    return judge_cell(run(source)[0], remarks)


@pytest.mark.parametrize("style", cells.STYLES)
def test_cell_is_right_in_any_style(style: str) -> None:
    assert problems(cells.STYLES[style]) == []


@pytest.mark.parametrize("fault", cells.FAULTS)
def test_cell_fault_is_named(fault: str) -> None:
    source, code, words = cells.FAULTS[fault]
    found = problems(source)
    assert any(one.code == code and words in one.message for one in found), found
    assert all(one.check == "cell" and one.code in CODES for one in found)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self.W_o(z)", "self.W_f(z)"),
        ("f_t = torch.sigmoid", "f_t = torch.tanh"),
        ("torch.tanh(self.W_c(z))", "self.W_c(z)"),
        (SUM, "c_t = i_t * c_tilde"),
        (SUM, "c_t = f_t * c_prev - i_t * c_tilde"),
        (SUM, "c_t = f_t * c_prev + f_t * c_tilde"),
        (LAST, "h_t = o_t * torch.tanh(c_prev)"),
        (LAST, "h_t = o_t * c_t"),
        (LAST, "h_t = torch.tanh(c_t)"),
        ("return h_t, c_t", "return c_t, h_t"),
    ],
)
def test_cell_fault_has_the_line_that_was_changed(old: str, new: str) -> None:
    source = FOUR.replace(old, new)
    text = (HEAD + source).splitlines()
    wrong = [n for n, (a, b) in enumerate(zip(text, (HEAD + FOUR).splitlines(), strict=True), start=1) if a != b]
    lines = {one.line for one in problems(source)}
    if old.startswith("return"):  # h_t and c_t are right, but what is called h_t is not
        wrong = [n for n, line in enumerate(text, start=1) if "h_t =" in line]
    assert lines == set(wrong)


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ([("self.W_o(z)", "self.W_f(z)"), (LAST, "h_t = o_t * c_t")], {"shared-weights", "h-no-tanh"}),
        (
            [
                ("f_t = torch.sigmoid", "f_t = torch.tanh"),
                ("torch.tanh(self.W_c(z))", "self.W_c(z)"),
                ("tanh(c_t)", "tanh(c_prev)"),
            ],
            {"activation", "no-activation", "h-from-old-c"},
        ),
        ([(SUM, "c_t = i_t * c_tilde"), (LAST, "h_t = o_t * c_t")], {"no-forget-term", "h-no-tanh"}),
        ([("return h_t, c_t", "return c_t, h_t"), (SUM, "c_t = f_t * c_prev - i_t * c_tilde")], {"order", "minus"}),
        ([(LAST, "h_t = c_t")], {"no-output-gate", "h-no-tanh"}),
        ([(SUM, "c_t = f_t * c_prev + i_t * f_t")], {"partner", "shared-weights"}),
    ],
)
def test_cell_faults_are_named_together(changes: list[tuple[str, str]], codes: set[str]) -> None:
    source = FOUR
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    assert {one.code for one in problems(source)} == codes


def test_cell_that_is_something_else_differs_with_numbers() -> None:
    source = FOUR.replace(LAST, "h_t = o_t * torch.tanh(c_t) * h_prev")
    (one,) = problems(source)
    assert (one.code, one.about) == ("differs", "h_t")
    assert one.witness is not None
    assert one.witness.expected != one.witness.got


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            LAST,
            "h_t = F.dropout(o_t * torch.tanh(c_t))",
            "numbers also in evaluation mode (F.dropout(o_t * torch.tanh(c_t)))",
        ),
        (LAST, "h_t = o_t * torch.tanh(c_t) + 0.1 * torch.randn_like(h_prev)", "mode (torch.randn_like(h_prev))"),
        ("f_t = ", "self.W_f = nn.Linear(12, 7)\n        f_t = ", "(nn.Linear(12, 7)): equal inputs"),
        ("self.W_f(z)", "z @ torch.randn(z.shape[1], self.hidden_size)", "no weight is ever learnt"),
    ],
)
def test_cell_that_draws_is_told_what_and_no_more(old: str, new: str, words: str) -> None:
    source = FOUR.replace(old, new)
    (one,) = problems(source)
    assert one.code == "random"
    assert words in one.message
    assert new.splitlines()[0] in (HEAD + source).splitlines()[(one.line or 0) - 1]
    assert one.witness is not None
    assert one.witness.expected != one.witness.got


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (cells.FAULTS["own state"][0], "leak"),
        (FOUR.replace("(x, h_prev)", "(x, h_prev.detach())"), "detached"),
        (cells.FAULTS["nn.LSTMCell"][0], "forbidden"),
        (FOUR.replace("i_t = torch.sigmoid(self.W_i(z))", "i_t = 1 - f_t"), "coupled"),
        (FOUR.replace("(x, h_prev)", "(x, torch.zeros_like(h_prev))"), "no-h"),
        (FOUR.replace("(x, h_prev)", "(x * 0, h_prev)"), "no-x"),
    ],
)
def test_cell_fault_has_a_witness_of_its_own(source: str, code: str) -> None:
    one = next(one for one in problems(source) if one.code == code)
    assert one.witness is not None
    assert one.witness.expected != one.witness.got


def test_cell_gates_without_something_are_named_in_one_sentence() -> None:
    source = cells.SPLIT.replace("h_prev @ self.W_o.T + ", "").replace("h_prev @ self.W_f.T + ", "")
    (one,) = problems(source)
    assert one.message.startswith("The forget gate f and the output gate o do not depend on h_{t-1}")
    (one,) = problems(cells.SPLIT.replace(" + self.b_f)", ")").replace(" + self.b_o)", ")"))
    assert one.message.startswith("The forget gate f and the output gate o have no bias, but the others have one.")


def test_cell_numbers_have_no_negative_zero() -> None:
    assert short([-0.0001, -1.0, 0.0004]) == "[0.000, -1.000, 0.000]"


def test_cell_gap_has_the_line_that_calls_it() -> None:
    source = "def gap(what):\n    raise NotImplementedError(what)\n"
    source += FOUR.replace("torch.sigmoid(self.W_i(z))", 'gap("the input gate")')
    (one,) = problems(source, remarks=True)
    assert one.line is not None
    assert "i_t = gap" in (HEAD + source).splitlines()[one.line - 1]
    stub = FOUR.replace("        z =", "        raise NotImplementedError('later')\n        z =")
    (one,) = problems(stub, remarks=True)
    assert one.line is not None
    assert "raise" in (HEAD + stub).splitlines()[one.line - 1]


def test_cell_that_is_no_module_is_looked_at_all_the_same() -> None:
    observed, space, _ = run(cells.PLAIN.replace(" * torch.tanh(c)", " * c"))
    found = judge_cell(observed)
    assert {one.code for one in found} == {"h-no-tanh", "remark-no-module"}
    shown = found[-1].witness
    assert shown is not None
    try:
        exec(shown.given, space)  # also by a person, who has the class as it is
    finally:
        torch.set_default_dtype(torch.float32)
    assert shown.got == f"h_t = {short(space['h_t'].detach())}, c_t = {short(space['c_t'].detach())}"


def test_cell_that_is_no_module_must_have_its_tensors_in_the_optimizer() -> None:
    source = cells.PLAIN + "\ncell, fc = ManualLSTMCell(28, 32), nn.Linear(32, 10)\n"
    ours = "opt = torch.optim.SGD([*(v for v in vars(cell).values()), *fc.parameters()], 0.1)\n"
    assert problems(source + ours) == []
    (one,) = problems(source + "opt = torch.optim.SGD(fc.parameters(), 0.1)\n")
    assert (one.code, "is no nn.Module" in one.message) == ("no-parameter", True)


def test_cell_that_stands_in_the_classifier_is_unread() -> None:
    step = FOUR[FOUR.index("    def forward") :].replace("forward", "lstm_step")
    classifier = CLASSIFIER.replace("self.cell = ManualLSTMCell(input_size, hidden_size)", "pass")
    method = classifier.replace("self.cell(", "self.lstm_step(").replace("\nmodel =", step + "\nmodel =")
    (one,) = problems(method, remarks=True)
    assert (one.code, "ManualLSTMClassifier.lstm_step" in one.message) == ("unread", True)
    whole = classifier.replace("            h, c =", "            torch.sigmoid(h), torch.tanh(c)\n            h, c =")
    (one,) = problems(whole.replace("model =", "# "), remarks=True)
    assert (one.code, "ManualLSTMClassifier.forward" in one.message) == ("unread", True)
    built_in = classifier.replace("self.cell(", "self.lstm(").replace("pass", "self.lstm = nn.LSTM(28, 32)")
    assert [one.code for one in problems(built_in)] == ["no-cell"]


def test_cell_that_two_classes_could_be_is_unread() -> None:
    two = FOUR.replace("ManualLSTMCell", "LstmA") + FOUR.replace("ManualLSTMCell", "LstmB")
    (one,) = problems(two)
    assert (one.code, "LstmA, LstmB" in one.message) == ("unread", True)


def test_cell_witness_can_be_repeated() -> None:
    """The numbers are those that the given lines make, and those of the equations written out here."""
    observed, space, _ = run(FOUR.replace(LAST, "h_t = o_t * c_t"))
    (one,) = judge_cell(observed)
    assert one.witness is not None
    torch.set_default_dtype(torch.float32)
    exec(one.witness.given, space)
    h, c = space["h_t"][0].tolist(), space["c_t"][0].tolist()
    shown = lambda h, c: f"h_t = [{h[0]:.3f}, {h[1]:.3f}], c_t = [{c[0]:.3f}, {c[1]:.3f}]"  # noqa: E731
    assert one.witness.got == shown(h, c)
    right = (torch.sigmoid(space["cell"].W_o(torch.cat((space["x"], space["h_prev"]), 1))) * torch.tanh(space["c_t"]))[
        0
    ]
    assert one.witness.expected == shown(right.tolist(), c)


def test_cell_order_is_no_fault_where_the_caller_knows_it() -> None:
    swapped = FOUR.replace("return h_t, c_t", "return c_t, h_t")
    assert [one.code for one in problems(swapped + CLASSIFIER)] == ["order"]
    assert problems(swapped + CLASSIFIER.replace("h, c = self.cell", "c, h = self.cell")) == []


def test_cell_that_takes_no_batch_is_a_fault_where_the_classifier_gives_one() -> None:
    joined = FOUR.replace("dim=1", "dim=0")
    assert problems(joined) == []  # right for one image
    (one,) = problems(joined + CLASSIFIER)
    assert one.code == "exception"
    assert "dimension 0" in one.message


def test_cell_plain_tensors_in_the_optimizer_are_no_fault() -> None:
    source = cells.SPLIT.replace("nn.Parameter(torch.randn(H, H) * 0.1)", "torch.randn(H, H, requires_grad=True)")
    source += "\ncell = ManualLSTMCell(28, 32)\n"
    ours = "opt = torch.optim.SGD([cell.W_i, cell.W_f, cell.W_o, cell.W_g, *cell.parameters()], 0.1)\n"
    assert problems(source + ours) == []
    (one,) = problems(source + "opt = torch.optim.SGD(cell.parameters(), 0.1)\n")
    assert one.code == "no-parameter"


def test_cell_made_of_a_configuration_is_looked_at_as_it_was_seen() -> None:
    source = FOUR.replace("self, input_size, hidden_size):", "self, cfg):").replace(
        "self.hidden_size = hidden_size", "input_size, hidden_size = cfg['d'], cfg['h']"
    )
    assert [one.code for one in problems(source)] == ["unread"]
    seen = source + "\ncell = ManualLSTMCell({'d': 28, 'h': 16})\n"
    assert problems(seen) == []
    assert [one.code for one in problems(seen.replace("tanh(c_t)", "tanh(c_prev)"))] == ["h-from-old-c"]


def test_cell_remarks_are_no_faults() -> None:
    observed, _, _ = run(cells.STYLES["i and f called the other way"])
    assert [one.code for one in judge_cell(observed)] == ["remark-names"]
    assert judge_cell(observed, remarks=False) == []
    # Beside a fault, and beside another remark, the names are still told.
    named = cells.STYLES["i and f called the other way"]
    codes = [one.code for one in judge_cell(run(named.replace(LAST, "h_t = o_t * c_t"))[0])]
    assert codes == ["h-no-tanh", "remark-names"]
    codes = [
        one.code
        for one in judge_cell(run(named.replace("        n =", "        self.more = nn.Linear(3, 2)\n        n ="))[0])
    ]
    assert codes == ["remark-names", "remark-unused"]
    assert set(CODES) >= REMARKS


def test_cell_formulas_have_the_authors_names() -> None:
    shown = formulas(run(FOUR.replace(LAST, "h_t = o_t * c_t"))[0])
    assert "h_t = o_t ⊙ c_t" in shown["yours"]
    assert "h_t = o_t ⊙ tanh(c_t)" in shown["lab"]
    columns = formulas(run(cells.STYLES["columns"])[0])["yours"]
    assert "c_t = f ⊙ c_{t-1} + i ⊙ g" in columns


def test_cell_that_was_not_found_says_why() -> None:
    (one,) = problems("x = 1\n")
    assert (one.code, one.line) == ("no-cell", None)


def test_cell_leaves_torch_as_it_was_and_hands_back_data() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state(), torch.get_default_dtype()
    observed, _, _ = run(FOUR)
    assert torch.equal(before[0], before[0].clone())
    assert torch.get_default_dtype() is before[1]

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return value.tolist()
        raise TypeError(type(value))

    assert json.loads(json.dumps(observed, default=plain))["name"] == "ManualLSTMCell"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (SUM, "c_t = (f_t.to(torch.complex64) * c_prev + i_t * c_tilde).real"),
        (
            SUM,
            "s = torch.stack([f_t * c_prev, i_t * c_tilde], -1).float()\n        c_t = torch.view_as_complex(s).real + s[..., 1]",
        ),
        (SUM, "c_t = (torch.complex(f_t, -i_t) * torch.complex(c_prev, c_tilde)).real"),
        (SUM, "c_t = (f_t.float() * c_prev.float() + i_t.float() * c_tilde.float()).to(x.dtype)"),
        ("torch.tanh(self.W_c(z))", "torch.tanh(self.W_c(z).to(torch.complex64)).real.to(x.dtype)"),
    ],
)
def test_cell_that_rounds_on_the_way_is_right(old: str, new: str) -> None:
    assert problems(FOUR.replace(old, new)) == []


def test_cell_that_rounds_on_the_way_is_wrong_where_its_equation_is() -> None:
    rounded = "c_t = (f_t.to(torch.complex64) * c_prev{} * c_tilde).real"
    assert [one.code for one in problems(FOUR.replace(SUM, rounded.format(" - i_t")))] == ["minus"]
    cut = FOUR.replace(SUM, rounded.format(".detach() + i_t"))
    assert "detached" in {one.code for one in problems(cut)}


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("self.W_f(z)", "self.W_f(torch.cat((x, 0 * h_prev), 1))", "f_t = σ(x_t by W_f.bias, W_f.weight)"),
        ("self.W_o(z)", "self.W_o(torch.cat((0 * x, h_prev), 1))", "o_t = σ(h_{t-1} by W_o.bias, W_o.weight)"),
        ("self.W_o(z)", "self.W_o(z)", "o_t = σ(h_{t-1} and x_t by W_o.bias, W_o.weight)"),
    ],
)
def test_cell_formula_of_values_says_what_is_read(old: str, new: str, line: str) -> None:
    observed, _, _ = run(FOUR.replace(old, new))
    assert line in formulas({**observed, "formula": None})["yours"]


@pytest.mark.parametrize("body", ["pass", "...", "'''To do.'''", "return None", "raise NotImplementedError('to do')"])
def test_cell_that_is_not_written_yet_is_unfinished(body: str) -> None:
    head = FOUR[: FOUR.index("        z = torch.cat")]
    assert [one.code for one in problems(f"{head}        {body}\n", remarks=True)] == ["unfinished"]
    assert [one.code for one in problems(FOUR[: FOUR.index("    def forward")], remarks=True)] == ["unfinished"]
    assert [one.code for one in problems(FOUR.replace("return h_t, c_t", "pass"))] == ["sizes"]
