"""Starters: they stop at their first gap in one line, and filled in by the labs' equations they are right."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unroll.errors import InputError
from unroll.labs.starter import starter, starters, write_starter

NOT_ALLOWED = re.compile(r"\b(nn\.LSTM|nn\.LSTMCell|nn\.RNN|optim\.SGD)\b")
# What a student may write in the place of each gap, by its number.
INCLASS = {
    1: "torch.randn(n, n, requires_grad=True)",
    2: "torch.randn(n, m, requires_grad=True)",
    3: "torch.zeros(n, 1, requires_grad=True)",
    4: "torch.randn(2, n, requires_grad=True)",
    5: "torch.zeros(2, 1, requires_grad=True)",
    6: "torch.tanh(W @ s + U @ x + b)",
    7: "W_out @ s + b_out",
    8: "loss.backward()",
    9: "for p in (W, U, b, W_out, b_out): p -= learning_rate * p.grad",
    10: "for p in (W, U, b, W_out, b_out): p.grad.zero_()",
    11: "torch.tanh(W @ s + U @ x + b)",
    12: "W_out @ s + b_out",
    13: "logits.argmax().item()",
}
HOMEWORK = {
    1: "self.linear = nn.Linear(input_size + hidden_size, 4 * hidden_size)",
    2: "torch.sigmoid(self.linear(torch.cat([x, h_prev], 1)).chunk(4, 1)[0])",
    3: "torch.sigmoid(self.linear(torch.cat([x, h_prev], 1)).chunk(4, 1)[1])",
    4: "torch.tanh(self.linear(torch.cat([x, h_prev], 1)).chunk(4, 1)[2])",
    5: "f * c_prev + i * c_tilde",
    6: "torch.sigmoid(self.linear(torch.cat([x, h_prev], 1)).chunk(4, 1)[3])",
    7: "o * torch.tanh(c_t)",
    8: "nn.Linear(hidden_size, num_classes)",
    9: "torch.zeros(x.size(0), self.hidden_size, device=x.device)",
    10: "torch.zeros(x.size(0), self.hidden_size, device=x.device)",
    11: "self.cell(x[:, t], h, c)",
    12: "self.fc(h)",
    13: "model(images)",
    14: "criterion(outputs, labels)",
    15: "optimizer.zero_grad(); loss.backward(); optimizer.step()",
    16: "model(images).argmax(1)",
    17: "total += labels.size(0); correct += (predicted == labels).sum().item()",
    18: "next(iter(test_loader))",
    19: 'f"true {labels[n]}, predicted {predicted[n]}"',
}
SOLUTIONS = {"inclass": INCLASS, "homework": HOMEWORK}
# As much of torchvision as the starter uses, with few images of noise.
TORCHVISION = """
import sys, types, torch
from torch.utils.data import Dataset
class MNIST(Dataset):
    def __init__(self, root, train, transform, download):
        self.images = torch.rand(30, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    def __len__(self):
        return len(self.images)
    def __getitem__(self, n):
        if n >= len(self):
            raise IndexError
        return self.images[n], n % 10
datasets = types.SimpleNamespace(MNIST=MNIST)
transforms = types.ModuleType("torchvision.transforms")
transforms.ToTensor = lambda: None
sys.modules["torchvision.transforms"] = transforms
"""


def filled(text: str, solutions: dict[int, str], upto: int = 99) -> str:
    """A starter with the gaps below `upto` filled in."""

    def put(found: re.Match[str]) -> str:
        number = int(found[1])
        return solutions[number] if number < upto else found[0]

    return re.sub(r'\bgap\((\d+), ".*?"\)', put, text)


def run(folder: Path, text: str) -> tuple[int, str, str]:
    """Run a script by itself, as `python my_lab.py` does; exit status, stdout, stderr."""
    (folder / "my_lab.py").write_text(text, encoding="utf-8")
    (folder / "served").mkdir(exist_ok=True)
    (folder / "served" / "torchvision.py").write_text(TORCHVISION)
    surroundings = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(folder / "served"), "PYTHONIOENCODING": "utf-8"}
    surroundings |= {"OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(folder / "mpl")}
    command = [sys.executable, "-W", "ignore", "my_lab.py"]
    done = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, encoding="utf-8", timeout=240)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("lab", ["homework", "inclass"])
def test_every_gap_is_numbered_in_the_order_of_the_file_and_has_one_short_sentence(lab):
    text = starter(lab)
    found = re.findall(r'\bgap\((\d+), "(.*?)"\)', text)
    assert [int(number) for number, _ in found] == list(SOLUTIONS[lab])
    assert all(len(what) < 90 for _, what in found)
    assert f"of {len(found)} comes next" in text
    compile(text, lab, "exec")
    code = re.sub(r"#.*", "", text)
    assert not NOT_ALLOWED.search(code)
    assert "unroll" not in code.replace("unroll lab run my_lab.py", "")
    assert "@" not in re.sub(r" @ ", "", code)


def test_there_is_a_starter_for_each_lab():
    assert starters() == ["homework", "inclass"]


@pytest.mark.parametrize(
    ("lab", "upto"), [("inclass", 1), ("inclass", 9), ("homework", 1), ("homework", 6), ("homework", 17)]
)
def test_a_starter_stops_at_its_first_open_gap_in_one_line(lab, upto, tmp_path):
    text = filled(starter(lab), SOLUTIONS[lab], upto)
    status, _, said = run(tmp_path, text)
    line = next(n for n, line in enumerate(text.splitlines(), start=1) if f"gap({upto}, " in line)
    assert (status, said.count("\n")) == (1, 1), said
    assert f"line {line}: gap {upto} of {len(SOLUTIONS[lab])} comes next: " in said
    assert "Traceback" not in said


def test_another_mistake_still_has_its_traceback(tmp_path):
    text = filled(starter("inclass"), INCLASS | {6: "torch.tanh(W @ s + U @ x + nothing)"})
    status, _, said = run(tmp_path, text)
    assert status == 1
    assert "Traceback" in said
    assert "NameError: name 'nothing' is not defined" in said


def test_without_torchvision_the_homework_names_the_command_that_serves_it(tmp_path):
    text = starter("homework").replace("import torchvision\n", "import torchvision_that_is_not_there\n", 1)
    status, _, said = run(tmp_path, text)
    assert (status, said) == (1, "torchvision is not installed; run this file with: unroll lab run my_lab.py\n")


def test_the_in_class_starter_filled_in_predicts_both_sentences(tmp_path):
    status, out, said = run(tmp_path, filled(starter("inclass"), INCLASS))
    assert (status, said) == (0, "")
    lines = out.splitlines()
    assert [re.sub(r"\d\.\d+", "L", line) for line in lines[:6]] == [
        f"Epoch [{n}/300] - Loss: L" for n in range(50, 301, 50)
    ]
    assert float(lines[5].rpartition(" ")[2]) < 0.1
    assert lines[6:] == [
        "==== Testing ====",
        "Sentence: ['The', 'movie', 'is', 'good'] → Prediction: 1",
        "Sentence: ['The', 'movie', 'is', 'bad'] → Prediction: 0",
    ]


def test_the_homework_starter_filled_in_trains_and_tests_over_all_images(tmp_path):
    status, out, said = run(tmp_path, filled(starter("homework"), HOMEWORK))
    assert (status, said) == (0, "")
    assert re.fullmatch(r"Test Accuracy: \d+\.\d\d%\n", out)


def test_the_homework_cell_filled_in_is_torchs_cell():
    text = filled(starter("homework"), HOMEWORK)
    namespace = {"nn": torch.nn, "torch": torch}
    exec(text[text.index("class ManualLSTMCell") : text.index("class ManualLSTMClassifier")], namespace)
    torch.manual_seed(1)
    ours, theirs = namespace["ManualLSTMCell"](3, 4).double(), torch.nn.LSTMCell(3, 4).double()
    with torch.no_grad():  # torch stacks i, f, c̃, o; the solution f, i, c̃, o
        order = torch.cat([torch.arange(4) + 4 * k for k in (1, 0, 2, 3)])
        ours.linear.weight.copy_(torch.cat([theirs.weight_ih, theirs.weight_hh], 1)[order])
        ours.linear.bias.copy_((theirs.bias_ih + theirs.bias_hh)[order])
    x, h, c = (torch.randn(5, size, dtype=torch.float64) for size in (3, 4, 4))
    for got, expected in zip(ours(x, h, c), theirs(x, (h, c)), strict=True):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("lab", ["homework", "inclass"])
def test_a_notebook_is_valid_and_holds_the_scripts_code(lab, tmp_path):
    import nbformat

    path, gaps = write_starter(lab, notebook=True, folder=tmp_path / "new")
    assert (path.name, gaps) == ("my_lab.ipynb", len(SOLUTIONS[lab]))
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    script = re.sub(r"^# %% .*\n", "", starter(lab), flags=re.MULTILINE).replace("my_lab.py", "my_lab.ipynb")
    assert re.sub(r"\n+", "\n", code) == re.sub(r"\n+", "\n", script).strip("\n")
    assert len(cells) == 2 * starter(lab).count("# %% ")


def test_the_command_writes_a_starter_and_never_over_a_file(unroll, tmp_path):
    status, out, err = unroll("lab", "start", "inclass")
    assert (status, err) == (0, "")
    assert out.startswith("Starter: my_lab.py (13 gaps)\n")
    (tmp_path / "my_lab.py").write_text("work = 1\n")
    status, out, err = unroll("lab", "start", "homework")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "my_lab.py exists and may hold work of yours" in err
    assert (tmp_path / "my_lab.py").read_text() == "work = 1\n"
    assert unroll("lab", "start", "homework", "--notebook", "--out", "a/b")[0] == 0
    assert (tmp_path / "a" / "b" / "my_lab.ipynb").is_file()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["homewrk"], "did you mean 'homework'"),
        (["../x"], "there is no starter"),
        (["inclass", "--out", "/dev/null/x"], "/dev/null"),
    ],
)
def test_a_starter_that_cannot_be_is_one_line(unroll, words, said):
    status, out, err = unroll("lab", "start", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err


def test_a_starter_is_asked_for_by_a_known_name():
    with pytest.raises(InputError, match="known: homework, inclass"):
        starter("")
