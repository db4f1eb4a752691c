"""A run of a student's own file, and the folder that it leaves."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from unroll.data.images import read_part
from unroll.errors import RunError
from unroll.files import load_tensors
from unroll.labs import run as run_module
from unroll.labs.own_run import OwnRun, printed_accuracy
from unroll.labs.run import run_lab
from unroll.labs.starter import starter

LAB = """
import torch
from torch import nn
import torchvision
from torchvision import transforms
from torch.utils.data import DataLoader
import matplotlib.pyplot as plt
batch_size = 64
learning_rate = 0.01
normal = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
train = torchvision.datasets.MNIST(root='./data', train=True, transform=normal, download=True)
test = torchvision.datasets.MNIST(root='./data', train=False, transform=normal, download=True)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(784, 10)
        self.drop = nn.Dropout(0.5)
    def forward(self, x):
        return self.out(self.drop(x.reshape(-1, 784)))
model = Net()
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
for images, labels in DataLoader(train, batch_size, shuffle=True):
    loss = criterion(model(images.reshape(-1, 28, 28)), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f'Loss: {loss.item():.4f}')
model.eval()
correct = 0
with torch.no_grad():
    for images, labels in DataLoader(test, 40):
        correct += (model(images.reshape(-1, 28, 28)).argmax(1) == labels).sum().item()
print(f'Test Accuracy: {100 * correct / len(test):.2f}%')
plt.plot([1, 2])
plt.title('losses')
plt.show()
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    folder = tmp_path_factory.mktemp("own")
    path = folder / "my_lab.py"
    path.write_text(LAB, encoding="utf-8")
    lines: list[str] = []
    return run_lab(path, "homework", folder / "run", seed=3, echo=lines.append, small=True).path, lines


def test_own_run_keeps_what_ran_and_what_it_gave(own: tuple[Path, list[str]]) -> None:
    run = OwnRun(own[0])
    record = run.record
    assert run.source.text == LAB
    assert record.status == "complete"
    assert (record.lab, record.seed, record.images) == ("homework", 3, 150)
    assert record.hyperparameters == {"batch_size": 64, "learning_rate": 0.01}
    assert record.optimizer is not None
    assert (record.optimizer["class"], record.optimizer["lr"]) == ("SGD", 0.01)
    assert [f"Loss: {loss:.4f}" for loss in run.losses] == run.log.splitlines()[:4]
    assert [figure.titles for figure in record.figures] == [["losses"]]
    assert run.figures[0].read_bytes().startswith(b"\x89PNG")
    age = datetime.datetime.now(datetime.UTC) - record.time
    assert datetime.timedelta(0) <= age < datetime.timedelta(hours=1)


def test_own_run_recomputes_the_accuracy_from_the_weights(own: tuple[Path, list[str]]) -> None:
    run = OwnRun(own[0])
    tensors, _ = load_tensors(own[0] / "model.safetensors")
    images, labels, _ = read_part(None, "test")
    x = ((images[:150].reshape(150, -1) / 255 - 0.1307) / 0.3081).astype(np.float32)
    predicted = (x @ tensors["out.weight"].numpy().T + tensors["out.bias"].numpy()).argmax(1)
    assert run.predicted is not None
    assert np.array_equal(run.predicted, predicted)
    assert run.record.correct == int((predicted == labels[:150]).sum())
    assert run.record.printed_accuracy == pytest.approx(run.record.accuracy, abs=0.006)
    assert own[1][:5] == run.log.splitlines()
    assert "Recomputed" in own[1][5]
    assert len(own[1]) == 6


def test_own_run_refuses_a_folder_that_was_changed(own: tuple[Path, list[str]]) -> None:
    code = own[0] / "code.py"
    content = code.read_bytes()
    try:
        code.write_bytes(content + b"\n")
        with pytest.raises(RunError, match="was changed after the run"):
            OwnRun(own[0])
    finally:
        code.write_bytes(content)


@pytest.mark.parametrize("content", ["{}", "[", '{"kind": "other"}'])
def test_own_run_refuses_a_damaged_record_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "own.json").write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match="damaged") as error:
        OwnRun(tmp_path)
    assert "\n" not in str(error.value)


def test_own_run_never_replaces_a_foreign_folder(tmp_path: Path) -> None:
    path = tmp_path / "lab.py"
    path.write_text("x = 1", encoding="utf-8")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "text.md").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match="something else"):
        run_lab(path, "inclass", tmp_path / "thesis", echo=list)
    assert [file.name for file in (tmp_path / "thesis").iterdir()] == ["text.md"]


SCRIPT = """
import torch
torch.manual_seed(42)
n = 2
learning_rate = 0.1
W = torch.randn(n, n, requires_grad=True)
for epoch in range(3):
    loss = (W ** 2).sum()
    loss.backward()
    with torch.no_grad():
        W -= learning_rate * W.grad
        W.grad.zero_()
    print("Epoch", epoch, loss.item())
print("Test accuracy: 99%")
raise ValueError("early")
"""


def test_own_run_of_a_script_that_fails_is_kept_and_marked(tmp_path: Path) -> None:
    path = tmp_path / "lab.ipynb"
    cells = [{"cell_type": "code", "source": "%matplotlib inline"}, {"cell_type": "code", "source": SCRIPT.strip()}]
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    lines: list[str] = []
    run = run_lab(path, "inclass", tmp_path / "run", echo=lines.append)
    assert run.record.status == "failed"
    assert run.record.failure is not None
    assert run.record.failure.place == "cell 2, line 14"
    assert lines[-3:] == [
        "The file ended early, at cell 2, line 14:",
        '    raise ValueError("early")',
        "ValueError: early",
    ]
    assert len(run.losses) == 3
    assert run.losses[1] == pytest.approx(run.losses[0] * 0.64)
    assert run.record.accuracy is None
    assert run.record.hyperparameters == {"n": 2, "learning_rate": 0.1}


def test_own_run_that_is_interrupted_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "run_child", interrupted)
    path = tmp_path / "lab.py"
    path.write_text("x = 1", encoding="utf-8")
    with pytest.raises(KeyboardInterrupt):
        run_lab(path, "inclass", tmp_path / "run", echo=list)
    assert [file.name for file in tmp_path.iterdir()] == ["lab.py"]


CELLS = {
    "gates in one matrix": (
        "self.all = nn.Linear(n + k, 4 * k)",
        "self.all(torch.cat([x, h], 1)).chunk(4, 1)",
        "x[:, t]",
    ),
    "the images' columns": (
        "self.all = nn.Linear(n + k, 4 * k)",
        "self.all(torch.cat([x, h], 1)).chunk(4, 1)",
        "x[..., t]",
    ),
}
HOMEWORK = """
import torch
from torch import nn
import torchvision
from torchvision import transforms
from torch.utils.data import DataLoader
change = transforms.Compose([transforms.ToTensor(), PREPARED])
test = torchvision.datasets.MNIST(root='./data', train=False, transform=change, download=True)
class ManualLSTMCell(nn.Module):
    def __init__(self, n, k):
        super().__init__()
        MAKE
    def forward(self, x, h, c):
        i, f, g, o = GATES
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        return o.sigmoid() * c.tanh(), c
class ManualLSTMClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.fc = ManualLSTMCell(28, 20), nn.Linear(20, 10)
    def forward(self, x):
        h = c = torch.zeros(len(x), 20)
        for t in range(28):
            h, c = self.cell(TAKE, h, c)
        return self.fc(h)
model = ManualLSTMClassifier()
with torch.no_grad():
    for p in model.parameters():
        p.mul_(8)
    for images, labels in DataLoader(test, 40):
        model(images.reshape(-1, 28, 28))
"""


@pytest.mark.parametrize(
    ("cell", "prepared", "reason"),
    [
        ("gates in one matrix", "transforms.Normalize((0.1307,), (0.3081,))", None),
        ("gates in one matrix", "transforms.Lambda(lambda x: 1 - x)", None),
        ("gates in one matrix", "transforms.Lambda(lambda x: x * x)", "the images are prepared in another way than"),
        ("the images' columns", "transforms.Lambda(lambda x: x)", "the classifier computes something else than"),
    ],
)
def test_own_run_is_computed_again_by_our_engine_where_that_can_be(
    tmp_path: Path, cell: str, prepared: str, reason: str | None
) -> None:
    make, gates, take = CELLS[cell]
    text = HOMEWORK.replace("PREPARED", prepared).replace("MAKE", make).replace("GATES", gates).replace("TAKE", take)
    path = tmp_path / "lab.py"
    path.write_text(text, encoding="utf-8")
    lines: list[str] = []
    run = run_lab(path, "homework", tmp_path / "run", echo=lines.append, small=True)
    record = run.record
    assert record.status == "complete", record.failure
    assert run.predicted is not None
    assert len(set(run.predicted.tolist())) > 2  # else any engine would agree
    if reason is None:
        assert (record.engine_agrees, record.not_by_engine) == (150, None)
        assert record.engine_accuracy == pytest.approx(record.accuracy)
        assert lines[-1].endswith("(150 of 150 predictions equal)")
    else:
        assert record.engine_accuracy is None
        assert record.not_by_engine is not None
        assert record.not_by_engine.startswith(reason)
        assert "engine" not in lines[-1]


@pytest.mark.parametrize(
    ("log", "percent"),
    [
        ("Test Accuracy: 28.48%", 28.48),
        ("Train accuracy: 99.0%\nTest Accuracy: 28.48%\nTrain accuracy: 99.1%", 28.48),
        ("acc = 0.9", 90),
        ("test_accuracy: 0.5", 50),
        ("Accuracy of the network on the 10000 test images: 97.5 %", 97.5),
        ("Accuracy: 9412/10000 = 0.9412", 94.12),
        ("train acc 0.93 - test acc 0.91, loss 0.3", 91),
        ("Accuracy of epoch 3: 0.93", 93),
        ("Accuracy: " + "9" * 500, None),
        ("The movie is accurate: 5", None),
    ],
)
def test_own_run_reads_the_accuracy_that_was_printed(log: str, percent: float | None) -> None:
    assert printed_accuracy(log) == (None if percent is None else pytest.approx(percent))


def test_lab_run_names_the_folder_and_what_comes_next(unroll, tmp_path: Path) -> None:
    (tmp_path / "my_lab.py").write_text("vocab = 2\nprint('a bar 10%\\ra bar 100%')\n", encoding="utf-8")
    status, out, err = unroll("lab", "run", "my_lab.py", "--seed", 5)
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "a bar 100%",
        "Run folder: runs/my_lab",
        "Hand it in: unroll lab handin runs/my_lab --lab inclass --student-id ID --answers answers.md",
    ]
    record = OwnRun("runs/my_lab").record
    assert (record.lab, record.seed) == ("inclass", 5)
    (tmp_path / "my_lab.py").write_text("vocab = 2\nx = (\n", encoding="utf-8")
    status, out, err = unroll("lab", "run", "my_lab.py")
    assert (status, err) == (1, "")
    assert out.splitlines() == [
        "The file ended early, at line 2:",
        "    x = (",
        "SyntaxError: '(' was never closed",
        "Run folder: runs/my_lab-2",
    ]


def test_lab_run_of_a_starter_says_which_gap_comes_next(unroll, tmp_path: Path) -> None:
    (tmp_path / "my_lab.ipynb").write_text(starter("inclass", notebook=True), encoding="utf-8")
    status, out, _ = unroll("lab", "run", "my_lab.ipynb")
    assert status == 1
    assert out.startswith("Gap 1 of 13 comes next, at cell 3, line ")
    assert "NotImplementedError" not in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere.py"], "nowhere.py cannot be read"),
        (["my_lab.py"], "looks like neither lab; say which: --lab homework, or --lab inclass"),
        (["my_lab.py", "--lab", "homewrk"], "did you mean 'homework'"),
        (["my_lab.py", "--lab", "inclass", "--seed", "-1"], "--seed"),
        (["my_lab.py", "--lab", "inclass", "--out", "my_lab.py"], "a file stands in the way"),
    ],
)
def test_lab_run_refuses_what_does_not_fit_in_one_line(unroll, tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "my_lab.py").write_text("x = 1", encoding="utf-8")
    status, out, err = unroll("lab", "run", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert [file.name for file in tmp_path.iterdir()] == ["my_lab.py"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_lab_run_that_is_interrupted_is_one_line_and_ends_the_students_process(tmp_path: Path) -> None:
    text = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)\n"
    (tmp_path / "my_lab.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "unroll", "lab", "run", "my_lab.py", "--lab", "inclass"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "interrupted; nothing was kept of this run of my_lab.py\n"
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    assert [file.name for file in tmp_path.iterdir()] == ["my_lab.py"]


def test_own_run_goes_on_where_a_figure_cannot_be_drawn(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    from unroll.labs.child.observe_run import Figures

    kept = Figures(tmp_path / "figures")
    for dpi_of_width in (1e6, 2):  # the first would take terabytes
        figure = Figure(figsize=(dpi_of_width, 2))
        figure.add_subplot().set_title("digits")
        kept.save(figure)
    assert [row["titles"] for row in kept.rows] == [["digits"]]
    assert len(kept.failed) == 1
    assert "could not be drawn" in kept.failed[0]
