"""A whole file is checked in a child process: what is right, what is named, what is printed, and how a file may end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from tests.labs.test_starter import SOLUTIONS, filled
from unroll.cli import cli
from unroll.errors import InputError
from unroll.labs import check as module
from unroll.labs.check import Checked, check, guess_lab, judge
from unroll.labs.printed import hint, lines, plain
from unroll.labs.process import run_child
from unroll.labs.source import read_source
from unroll.labs.spec import load_lab
from unroll.labs.starter import starter

Check = Callable[[str, str], Checked]


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Checks a text once, and keeps what was found."""
    known: dict[str, Checked] = {}

    def find(lab: str, text: str) -> Checked:
        if text not in known:
            path = tmp_path_factory.mktemp("lab") / "my_lab.py"
            path.write_text(text, encoding="utf-8")
            known[text] = check(path, lab)
        return known[text]

    return find


def solved(lab: str, *changes: tuple[str, str]) -> str:
    """A filled-in starter, with changes."""
    text = filled(starter(lab), SOLUTIONS[lab])
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


@pytest.mark.parametrize("lab", ["homework", "inclass"])
def test_check_of_a_filled_in_starter_has_nothing_to_say(lab: str, checked: Check) -> None:
    found = checked(lab, solved(lab))
    assert found.ok
    assert [item.status for item in found.items] == ["right"] * 4
    assert found.problems == []
    points = {"homework": [30, None, 5, 5], "inclass": [5, 5, 5, 5]}[lab]
    assert [item.awarded for item in found.items] == points
    assert len(found.formulas["yours"]) == {"homework": 6, "inclass": 2}[lab]


def test_check_of_an_empty_starter_names_the_first_gap_once_and_leaves_all_open(checked: Check) -> None:
    found = checked("homework", starter("homework"))
    empty = checked("inclass", starter("inclass"))
    for lab, gaps, first in ((found, 19, "homework"), (empty, 13, "inclass")):
        assert not lab.ok
        assert [(item.awarded, item.status) for item in lab.items] == [(None, "open")] * 4
        assert len(lab.problems) == 1
        assert f"gap 1 of {gaps} comes next" in lab.problems[0].message
        assert 'gap(1, "' in starter(first).splitlines()[(lab.problems[0].line or 0) - 1]
        assert "line" not in lab.problems[0].message


RETURN = "        logits = self.fc(h)\n        return logits"


@pytest.mark.parametrize(
    "gap", ["raise NotImplementedError", "raise NotImplementedError('to do')", "...", "pass", "return None"]
)
def test_check_of_an_unfinished_classifier_costs_nothing_yet(gap: str, checked: Check) -> None:
    found = checked("homework", solved("homework", (RETURN, f"        {gap}")))
    assert not found.ok
    item = found.to_json()["items"][0]
    assert (item["awarded"], item["problems"]) == (None, [])
    assert "– 1. Manual LSTM cell (30 points)" in lines(found)
    said = " ".join(" ".join(lines(found)).split())
    assert "not finished" in said or "forward returned NoneType" in said


def test_check_of_a_script_with_a_gap_costs_nothing_of_what_comes_after_it(checked: Check) -> None:
    text = solved("inclass")
    at = text.index("loss.backward()")
    found = checked("inclass", text[:at] + "raise NotImplementedError('the update'); " + text[at:])
    assert [item.status for item in found.items] == ["right", "right", "open", "open"]
    assert [item.awarded for item in found.items] == [5, 5, None, None]


CALL = "self.cell(x[:, t], h, c)"
ZEROS = "{} = torch.zeros(x.size(0), self.hidden_size"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (CALL, "self.cell(x[t], h, c)", "gives the cell x (28, 28); it needs x (3, 28)"),
        (CALL, "self.cell(x, h, c)", "gives the cell x (3, 28, 28); it needs x (3, 28)"),
        (ZEROS.format("h"), "h = torch.zeros(x.size(0), 28", "gives the cell h_prev (3, 28); it needs h_prev (3, 6)"),
        (ZEROS.format("c"), "c = torch.zeros(x.size(0), 28", "gives the cell c_prev (3, 28); it needs c_prev (3, 6)"),
        (CALL, "self.cell(x[:, t], (h, c))", "its forward takes 3: x, h_prev, c_prev"),
        (CALL, "self.cell(x[:, t], h, c, t)", "gives the cell 4 arguments"),
    ],
)
def test_check_places_a_wrong_call_of_a_right_cell_on_the_call(old: str, new: str, said: str, checked: Check) -> None:
    text = solved("homework", (old, new))
    found = checked("homework", text)
    (problem,) = found.problems
    assert (problem.code, problem.check) == ("cell-call", "classifier")
    assert "self.cell(" in text.splitlines()[(problem.line or 0) - 1]
    assert said in problem.message
    assert found.items[0].awarded == 24


def test_check_does_not_blame_the_cell_for_pictures_of_another_shape(checked: Check) -> None:
    found = checked("homework", solved("homework", ("images.reshape(-1, 28, 28)", "images")))
    assert found.stopped is not None
    assert "run on pictures (B, 28, 28): look at what the model is given" in found.stopped.message
    assert found.items[0].status == "right"


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (
            "ManualLSTMClassifier",
            "its forward takes x, and a cell's takes x, h_prev and c_prev; there is ManualLSTMCell$",
        ),
        ("Missing", "no class Missing .* there is ManualLSTMCell, ManualLSTMClassifier"),
        ("gap", "no class gap"),
    ],
)
def test_check_refuses_a_cell_that_is_none(cell: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "my_lab.py"
    path.write_text(solved("homework"), encoding="utf-8")
    with pytest.raises(InputError, match=said):
        check(path, "homework", cell)


def test_check_of_a_named_cell_says_first_that_the_file_stops_before_it(tmp_path: Path) -> None:
    path = tmp_path / "my_lab.py"
    path.write_text("import torch\n1 / 0\nclass Mine(torch.nn.Module): ...\n", encoding="utf-8")
    found = check(path, "homework", "Mine")
    assert found.stopped is not None
    assert found.stopped.line == 2
    with pytest.raises(InputError, match="asks for no class"):
        check(path, "inclass", "Mine")


def test_check_of_a_notebook_names_the_cell_of_a_gap(tmp_path: Path) -> None:
    path = tmp_path / "my_lab.ipynb"
    path.write_text(starter("inclass", notebook=True), encoding="utf-8")
    found = check(path, "inclass")
    (problem,) = found.problems
    assert found.source.place(problem.line or 0).startswith("cell 3, line ")


FAULT = solved("homework", ("f * c_prev + i * c_tilde", "f * c_prev - i * c_tilde"))


def test_check_names_the_equation_its_line_and_a_witness(checked: Check) -> None:
    found = checked("homework", FAULT)
    (problem,) = found.problems
    assert (problem.code, problem.about) == ("minus", "c_t")
    assert FAULT.splitlines()[(problem.line or 0) - 1].split("=")[0].strip() == "c_t"
    assert problem.witness is not None
    assert problem.witness.expected != problem.witness.got
    assert found.items[0].awarded == 24


def test_check_prints_the_code_s_formula_beside_the_lab_s(checked: Check) -> None:
    text = lines(checked("homework", FAULT))
    yours, labs = text.index("Your code computes:"), text.index("The lab asks:")
    assert "    c_t = f_t ⊙ c_{t-1} - i_t ⊙ c̃_t" in text[yours:labs]
    assert "  ✗ c_t = f_t ⊙ c_{t-1} + i_t ⊙ c̃_t" in text[labs:]
    assert text[2].startswith("✗ 1. Manual LSTM cell (24 of 30 points)")


def test_check_prints_ascii_where_there_is_nothing_else(checked: Check) -> None:
    text = [plain(line) for line in lines(checked("homework", FAULT))]
    assert "\n".join(text).isascii()
    assert "    c_t = f_t * c_{t-1} - i_t * c_tilde_t" in text
    assert not any("\\u" in line for line in text)


def test_check_hints_come_one_after_the_other_and_the_message_last(checked: Check) -> None:
    found = checked("homework", FAULT)
    hints = module.CODES["minus"].hints
    for number, expected in enumerate(hints, start=1):
        text = " ".join(" ".join(hint(found, number)).split())
        assert f"Hint {number} of {len(hints)}: {expected}" in text
        assert found.problems[0].message not in text
    assert found.problems[0].message in " ".join(" ".join(hint(found, len(hints) + 1)).split())


def test_check_as_json(checked: Check) -> None:
    found = json.loads(json.dumps(checked("homework", FAULT).to_json()))
    assert found["ok"] is False
    assert found["lab"] == "homework"
    item = found["items"][0]
    assert (item["no"], item["points"], item["awarded"]) == (1, 30, 24)
    assert set(item["problems"][0]) == {"code", "line", "message", "place", "about", "witness"}
    assert set(item["problems"][0]["witness"]) == {"given", "expected", "got"}


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("import torch\nvocab = 1\nfor n in range(3:\n    pass", "file-raises", "SyntaxError"),
        ("vocab = 1\nimport os\nos._exit(0)", "file-ends", "ends itself here"),
        ("vocab = 1\ninput('name? ')", "file-raises", "nobody types"),
    ],
)
def test_check_says_why_a_file_does_not_come_to_its_end(text: str, code: str, said: str, checked: Check) -> None:
    found = checked("inclass", text)
    assert not found.ok
    assert found.stopped is not None
    assert found.stopped.code == code
    assert said in found.stopped.message
    assert not any(item.status == "right" for item in found.items)


def test_check_of_damaged_data_ends_in_remarks_and_not_in_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "my_lab.py"
    path.write_text(solved("homework"), encoding="utf-8")
    source, lab = read_source(path), load_lab("homework")
    seen = run_child({"name": "check", "file": str(path), "kind": "lstm", "cell": None}, module.LIMITS)
    assert judge(source, lab, seen).ok
    for part in ("cell", "classifier", "training"):
        for wrong in (None, {}, "x", [], {module.FAILED: "TypeError: cannot pickle"}):
            found = judge(source, lab, {**seen, part: wrong})
            said = {remark.code for item in found.items for remark in item.remarks}
            assert "check-failed" in said or (found.stopped is not None and not isinstance(wrong, dict))
            assert any(item.status == "open" for item in found.items)
        for key in seen[part]:
            judge(source, lab, {**seen, part: {k: v for k, v in seen[part].items() if k != key}})
    assert not judge(source, lab, {**seen, "outcome": None}).ok


@pytest.mark.parametrize(
    ("text", "said"),
    [("vocab = 1\nimport sys\nsys.exit()", "ends itself"), ("vocab = 1\nraise SystemExit('no data')", "no data")],
)
def test_check_says_where_a_file_ends_itself(text: str, said: str, checked: Check) -> None:
    found = checked("inclass", text)
    assert found.stopped is not None
    assert (found.stopped.code, found.stopped.line) == ("file-ends", text.count("\n") + 1)
    assert said in found.stopped.message


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, ["lab", "check", *map(str, arguments)])


def test_check_s_exit_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checked: Check) -> None:
    right, wrong = checked("inclass", solved("inclass")), checked("homework", FAULT)
    for found, status in ((right, 0), (wrong, 1)):
        monkeypatch.setattr(module, "check", lambda *_, found=found: found)
        assert run(tmp_path).exit_code == status
        assert json.loads(run(tmp_path, "--json").stdout)["ok"] is (status == 0)


def test_check_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    for arguments, said in (
        ([tmp_path / "none.py"], "none.py"),
        ([Path(__file__), "--lab", "homwork"], "did you mean 'homework'?"),
    ):
        with pytest.raises(InputError, match=said):
            CliRunner().invoke(cli, ["lab", "check", *map(str, arguments)], catch_exceptions=False)


@pytest.mark.parametrize(
    ("text", "lab"),
    [
        ("torchvision.datasets.MNIST('./data')", "homework"),
        ("vocab = {'The': 0}", "inclass"),
        ("class Cell(nn.Module): ...", "homework"),
    ],
)
def test_check_knows_the_lab_by_the_words_of_a_file(text: str, lab: str, tmp_path: Path) -> None:
    path = tmp_path / "my_lab.py"
    path.write_text(text)
    assert guess_lab(read_source(path)) == lab


def test_check_asks_where_a_file_looks_like_neither_lab(tmp_path: Path) -> None:
    path = tmp_path / "my_lab.py"
    path.write_text("print(1)")
    with pytest.raises(InputError, match="looks like neither lab"):
        guess_lab(read_source(path))


def test_check_of_a_child_that_left_nothing_awards_nothing(tmp_path: Path) -> None:
    path = tmp_path / "my_lab.py"
    path.write_text("print(1)")
    seen = {"child": {"reason": "memory", "message": "it asked for more memory than it may have", "printed": "a\nlast"}}
    found = judge(read_source(path), load_lab("homework"), seen)
    assert found.stopped is not None
    assert "'last'" in found.stopped.message
    assert [(item.awarded, item.status) for item in found.items] == [(None, "open")] * 4
