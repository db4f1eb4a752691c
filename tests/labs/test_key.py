"""A student's cell is compared by values with any cell that a lab names: right in any style, and each fault named."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import linecache
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from unroll.cli import cli
from unroll.errors import InputError
from unroll.labs.check import CODES, check
from unroll.labs.child.find import Wanted, find
from unroll.labs.child.observe_cell import observe_cell
from unroll.labs.judge.cell_codes import REMARKS as OF_CELL
from unroll.labs.judge.key import REMARKS, formulas, judge_key
from unroll.labs.keys import Key, load_key
from unroll.labs.problems import Problem
from unroll.labs.source import guess_lab, read_source
from unroll.labs.spec import load_lab

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("key_cells", HERE / "key_cells.py")
assert _spec is not None
assert _spec.loader is not None
cells = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(cells)

STYLES = {"gru": cells.STYLES, "mgu": cells.MGU_STYLES, "peephole": cells.PEEPHOLE_STYLES}
FAULTS = {"gru": cells.FAULTS, "mgu": cells.MGU_FAULTS, "peephole": cells.PEEPHOLE_FAULTS}


def observed(source: str, key: Key) -> dict[str, Any]:
    text, name = cells.HEAD + source, "student.py"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    space: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(text, name, "exec"), space)
    return observe_cell(find(space, [], None, Wanted(key.called, key.states)), name)


def problems(source: str, name: str) -> list[Problem]:
    key = load_key(name)
    return judge_key(observed(source, key), key)


@pytest.mark.parametrize(("name", "style"), [(name, style) for name, all_ in STYLES.items() for style in all_])
def test_key_is_found_in_any_style(name: str, style: str) -> None:
    assert [one for one in problems(STYLES[name][style], name) if one.code not in REMARKS | OF_CELL] == []


@pytest.mark.parametrize(("name", "fault"), [(name, fault) for name, all_ in FAULTS.items() for fault in all_])
def test_key_names_a_fault_by_its_equation(name: str, fault: str) -> None:
    source, code, about = FAULTS[name][fault]
    found = problems(source, name)
    assert (code, about) in [(one.code, one.about) for one in found]
    assert all(one.code in CODES and one.witness is not None for one in found)
    wanted = 2 if fault == "two faults" else 1
    assert len([one for one in found if one.code not in REMARKS | OF_CELL]) == wanted


def test_key_says_a_gates_other_convention_as_a_remark() -> None:
    (one,) = problems(cells.STYLES["the other convention"], "gru")
    assert (one.code, one.about) == ("remark-turned", "z_t")


def test_key_shows_numbers_that_can_be_repeated() -> None:
    source, _, _ = cells.FAULTS["no 1 - z"]
    (one,) = problems(source, "gru")
    assert one.witness is not None
    space: dict[str, Any] = {}
    exec(cells.HEAD + source + one.witness.given, space)
    shown = ", ".join(f"{v:.3f}" for v in space["h_t"][0].tolist())
    assert one.witness.got == f"h_t = [{shown}]"
    cell, x, h = space["cell"], space["x"], space["h_prev"]
    v = space["torch"].cat([x, h], 1)
    r, z = (cell.W_r(v)).sigmoid(), cell.W_z(v).sigmoid()
    n = cell.W_n(space["torch"].cat([x, r * h], 1)).tanh()
    right = ", ".join(f"{v:.3f}" for v in (z * h + (1 - z) * n)[0].tolist())
    assert one.witness.expected == f"h_t = [{right}]"


def test_key_and_the_students_equations_stand_beside_each_other() -> None:
    key = load_key("gru")
    found = formulas(observed(cells.STYLES["raw parameters"], key), key)
    assert found["lab"][-1] == "h_t = z_t ⊙ h_{t-1} + (1 - z_t) ⊙ n_t"
    assert len(found["yours"]) == 4


def test_key_says_nothing_of_a_step_that_cannot_be_seen() -> None:
    hidden = cells.cell(
        "self.f = nn.GRUCell(D, H)\nself.g = torch.jit.script(nn.Sequential(nn.Linear(D + H, H), nn.Tanh()))",
        "return self.g(torch.cat((x, h), 1))",
        "x, h",
    )
    assert {one.code for one in problems(hidden, "gru")} <= {"unread", "differs"}


def test_key_finds_a_module_of_torchs() -> None:
    ready = cells.cell("self.c = nn.GRUCell(D, H)", "return self.c(x, h)", "x, h")
    assert "forbidden" in {one.code for one in problems(ready, "gru")}


# --- a lab ---

LEAKY = """import torch
from torch import nn


class LeakyCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size
        self.W = nn.Linear(hidden_size, hidden_size, bias=False)
        self.U = nn.Linear(input_size, hidden_size)
        self.a = nn.Linear(input_size, hidden_size)

    def forward(self, x, h):
        a = torch.sigmoid(self.a(x))
        s = torch.relu(self.W(h) + self.U(x))
        return a * h + (1 - a) * s
"""
STUDENT = cells.cell(
    "self.a = nn.Linear(D, H)\nself.s = nn.Linear(D + H, H)",
    "a = self.a(x).sigmoid()\ns = F.relu(self.s(torch.cat((h_prev, x), 1)))\nreturn s + a * (h_prev - s)",
    name="ManualLeakyCell",
)


def hand_in(folder: Path, source: str, called: str) -> Path:
    """A whole homework with another cell."""
    text = (HERE / "correct" / "hw_01.py").read_text(encoding="utf-8")
    start, rest = text.index("class ManualLSTMCell"), text.index("class ManualLSTMClassifier")
    after = text[rest:].replace("LSTM", called).replace("h_t, c_t = ", "h_t = ").replace(", h_t, c_t)", ", h_t)")
    after = "".join(line for line in after.splitlines(True) if "c_t = torch.zeros" not in line)
    path = folder / "mine.py"
    head = text[:start].replace("import torch.nn as nn", "import torch.nn as nn\nimport torch.nn.functional as F")
    path.write_text(f"{head}{source}\n\n{after}", encoding="utf-8")
    return path


def test_key_lab_of_a_gru_is_checked_whole_from_the_shell(tmp_path: Path) -> None:
    path = hand_in(tmp_path, cells.STYLES["one Linear a gate, reset before"], "GRU")
    assert guess_lab(read_source(path)) == "gru"
    done = CliRunner().invoke(cli, ["lab", "check", "--lab", "gru", str(path)])
    assert (done.exit_code, done.output.count("✓")) == (0, 4), done.output


def test_key_lab_names_faults_of_a_classifier_with_one_state(tmp_path: Path) -> None:
    path = hand_in(tmp_path, cells.STYLES["one Linear a gate, reset before"], "GRU")
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("(x[:, t, :], h_t)", "(x[:, t, :], torch.zeros_like(h_t))"), encoding="utf-8")
    (one,) = check(path, "gru").problems
    assert (one.code, one.about) == ("state-not-handed-on", "h_{t-1}")


def test_key_of_a_teachers_file_stands_beside_the_yaml(tmp_path: Path) -> None:
    (tmp_path / "my_key.py").write_text(LEAKY, encoding="utf-8")
    lab = tmp_path / "own.yaml"
    text = (HERE.parents[1] / "unroll" / "labs" / "gru.yaml").read_text(encoding="utf-8")
    lab.write_text(text.replace("\ncell: gru", "\ncell: my_key.py:LeakyCell"), encoding="utf-8")
    folder = tmp_path / "student"
    folder.mkdir()
    assert check(hand_in(folder, STUDENT, "Leaky"), str(lab)).problems == []
    faulty = hand_in(folder, STUDENT.replace("F.relu", "torch.tanh"), "Leaky")
    assert [(one.code, one.about) for one in check(faulty, str(lab)).problems] == [("key-activation", "s_t")]
    shutil.move(tmp_path / "my_key.py", tmp_path / "gone.py")
    load_key.cache_clear()
    with pytest.raises(InputError, match=r"my_key\.py cannot be read"):
        check(faulty, str(lab))


def test_key_that_is_unknown_is_said_with_the_nearest(tmp_path: Path) -> None:
    lab = tmp_path / "own.yaml"
    lab.write_text('name: "{student_id}"\ntitle: a\ncell: grru\nitems: [{text: a}]\n', encoding="utf-8")
    with pytest.raises(InputError, match="unknown cell 'grru'; did you mean 'gru'"):
        load_lab(str(lab))


def test_key_lab_has_no_starter_and_says_so() -> None:
    done = CliRunner().invoke(cli, ["lab", "start", "gru"])
    assert done.exit_code != 0
    assert isinstance(done.exception, InputError | SystemExit)
