"""A run of a student's own file, and the folder that it leaves."""

from __future__ import annotations

import datetime
import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unroll.data.images import read_part
from unroll.errors import RunError
from unroll.files import load_tensors, locked
from unroll.labs import own_run as own_run_module
from unroll.labs import run as run_module
from unroll.labs.hyperparameters import hyperparameters
from unroll.labs.own_run import OwnRun, printed_accuracy
from unroll.labs.run import run_lab
from unroll.labs.source import read_source
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
    assert run.log.splitlines()[-1] == "Test accuracy: 99%"
    assert (run.path / "log.txt").read_text(encoding="utf-8") == run.log + "".join(f"{line}\n" for line in lines[-3:])
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
        "Run folder, unfinished: runs/my_lab-unfinished",
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


STEPS = """
import torch
from torch import nn
import matplotlib.pyplot as plt
learning_rate = 0.5
model = nn.Linear(300, 300)
optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
for step in range(3):
    loss = model(torch.ones(2, 300)).square().mean()
    loss.backward()
    optimizer.step()
    print(f"Loss: {loss.item():.4f}")
plt.plot([1, 2])
plt.title("Training Loss Curve")
plt.savefig("curve.png")
print("trained", flush=True)
"""


def run_steps(unroll, tmp_path: Path, end: str) -> tuple[int, str, str]:
    (tmp_path / "my_lab.py").write_text(STEPS + end, encoding="utf-8")
    return unroll("lab", "run", "my_lab.py", "--lab", "inclass")


def assert_kept(folder: Path, model: bool) -> OwnRun:
    """Whether a folder holds an unfinished run of `STEPS`, and says so."""
    run = OwnRun(folder)
    assert run.record.status == "failed"
    assert run.log.splitlines()[-1] == "trained"
    assert [f"Loss: {loss:.4f}" for loss in run.losses] == run.log.splitlines()[:3]
    assert [figure.title for figure in run.record.figures] == ["Training Loss Curve"]
    assert run.figures[0].read_bytes().startswith(b"\x89PNG")
    assert run.record.hyperparameters == {"learning_rate": 0.5}
    assert (folder / "model.safetensors").is_file() == model
    return run


def test_lab_run_of_a_file_that_ends_its_process_is_whole(unroll, tmp_path: Path) -> None:
    status, out, _ = run_steps(unroll, tmp_path, "import os\nos._exit(0)")
    assert (status, out.splitlines()[4]) == (0, "Run folder: runs/my_lab")
    assert OwnRun("runs/my_lab").record.status == "complete"
    assert Path("runs/my_lab/model.safetensors").is_file()


def test_lab_run_keeps_what_there_was_of_a_process_that_ended_without_a_word(unroll, tmp_path: Path) -> None:
    for _ in range(2):  # the second takes the place of the first
        status, out, err = run_steps(unroll, tmp_path, "import posix\nposix._exit(0)")
        assert (status, err) == (1, "")
        assert out.splitlines()[4:] == [
            "The file ended early.",
            "Unfinished: it ended its own process (exit status 0), so that nothing can be said of it; its model and its "
            "predictions are lost",
            "Run folder, unfinished: runs/my_lab-unfinished",
        ]
        assert_kept(Path("runs/my_lab-unfinished"), model=False)
        assert [path.name for path in Path("runs").iterdir()] == ["my_lab-unfinished"]
    assert run_steps(unroll, tmp_path, "")[0] == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["my_lab", "my_lab-unfinished"]
    assert OwnRun("runs/my_lab").record.status == "complete"


def test_lab_run_of_a_file_that_prints_too_much_goes_on(
    unroll, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "LIMITS", replace(run_module.LIMITS, output=1 << 18))
    end = "for n in range(20_000):\n    print('a line of much text', n)\nprint('Test accuracy: 50%')"
    assert run_steps(unroll, tmp_path, end)[0] == 0
    run = OwnRun("runs/my_lab")
    lines = run.log.splitlines()
    cut = [n for n, line in enumerate(lines) if line.startswith("[more than 0 MB were printed")]
    assert len(cut) == 1
    assert next(filter(None, reversed(lines[: cut[0]]))).startswith("a line of much text")
    assert lines[-2:] == ["a line of much text 19999", "Test accuracy: 50%"]
    assert len(run.log) < 400_000
    assert (run.record.printed_accuracy, run.record.status) == (50, "complete")
    assert (run.path / "model.safetensors").is_file()


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then a write fails as on a full disk, only with another number
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
from unroll.__main__ import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_lab_run_on_a_full_disk_keeps_what_there_is_room_for(tmp_path: Path) -> None:
    (tmp_path / "my_lab.py").write_text(STEPS, encoding="utf-8")
    command = [sys.executable, "-c", FULL, "lab", "run", "my_lab.py", "--lab", "inclass"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert "is the disk full?; its model and its predictions are lost" in done.stdout
    assert_kept(tmp_path / "runs" / "my_lab-unfinished", model=False)


def test_own_run_names_what_could_not_be_written(own_run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(own_run_module, "save_tensors", full)
    run = OwnRun(own_run(weights={"W": np.ones((2, 2), dtype=np.float32)}))
    assert run.record.lost == ["model.safetensors (No space left on device)"]
    assert run.record.status == "failed"
    assert "Lost, since it could not be written: model.safetensors (No space left on device)" in run_module.summary(run)
    assert len(run.losses) == 469


def begin(tmp_path: Path, text: str) -> subprocess.Popen[str]:
    """`unroll lab run` of a file that prints its process's number at last, when that is printed."""
    (tmp_path / "my_lab.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "unroll", "lab", "run", "my_lab.py", "--lab", "inclass"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while process.stdout.readline() not in ("trained\n", ""):
        pass
    return process


WAITS = "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(60)\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_lab_run_that_is_interrupted_keeps_what_there_was_and_ends_the_students_process(tmp_path: Path) -> None:
    process = begin(tmp_path, STEPS + WAITS)
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert out.splitlines() == [
        f"The file ended early, at line {len((STEPS + WAITS).splitlines())}:",
        "    time.sleep(60)",
        "KeyboardInterrupt",
        "Run folder, unfinished: runs/my_lab-unfinished",
    ]
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
    run = OwnRun(tmp_path / "runs" / "my_lab-unfinished")
    assert run.log.splitlines()[-2:] == ["trained", str(child)]
    assert (run.path / "log.txt").read_text(encoding="utf-8").endswith("    time.sleep(60)\nKeyboardInterrupt\n")
    assert (run.path / "model.safetensors").is_file()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["my_lab-unfinished"]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the student's process may outlive its parent")
def test_lab_run_removes_what_a_killed_one_has_left_and_nothing_else(unroll, tmp_path: Path) -> None:
    process = begin(tmp_path, f"print('trained', flush=True)\n{WAITS}")
    process.kill()
    process.communicate(timeout=60)
    runs = tmp_path / "runs"
    assert [path.suffix for path in runs.iterdir()] == [".unroll"]
    mine, at_work = runs / ".notes.1.unroll", runs / ".other.1.unroll"
    mine.mkdir()
    at_work.mkdir()
    (tmp_path / "my_lab.py").write_text("x = 1", encoding="utf-8")
    with locked(at_work / run_module.LOCK, RunError("it is at work")):
        assert unroll("lab", "run", "my_lab.py", "--lab", "inclass")[0] == 0
    assert {path.name for path in runs.iterdir()} == {"my_lab", mine.name, at_work.name}


def test_own_run_goes_on_where_a_figure_cannot_be_drawn(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    from unroll.labs.child.observe_run import Figures

    kept = Figures(tmp_path / "figures")
    for dpi_of_width in (1e6, 2):  # the first would take terabytes
        figure = Figure(figsize=(dpi_of_width, 2))
        figure.add_subplot().set_title("digits")
        kept.save(figure)
    assert [(row["title"], row["titles"]) for row in kept.rows] == [("digits", ["digits"])]
    assert len(kept.failed) == 1
    assert "could not be drawn" in kept.failed[0]


def test_own_run_knows_a_figures_own_title_from_those_of_its_parts(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    from unroll.labs.child.observe_run import Figures

    kept = Figures(tmp_path / "figures")
    for own in ("Ten digits", ""):
        figure = Figure()
        for number in (1, 2):
            figure.add_subplot(1, 2, number).set_title(f"true: {number}")
        if own:
            figure.suptitle(own)
        kept.save(figure)
    assert [row["title"] for row in kept.rows] == ["Ten digits", ""]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("hidden = 64\nmodel = Net(28, hidden)", {"hidden": 64}),
        ("rate = 0.1\noptimizer = torch.optim.SGD(parameters, rate)", {"rate": 0.1}),
        ("size = 32\nloader = DataLoader(data, batch_size=size, shuffle=True)", {"size": 32}),
        ("ROUNDS = 3\nfor e in range(ROUNDS):\n    for x, y in loader:\n        train(x, y)", {"ROUNDS": 3}),
        ("alpha = 0.1\nW -= alpha * W.grad", {"alpha": 0.1}),
        ("alpha = 0.1\nW.data = W.data - alpha * W.grad", {"alpha": 0.1}),
        ("base = 4\nwidth = 2 * base\nnet = Net(width)", {"base": 4, "width": 8}),
        ("steps = 28\nx = images.reshape(-1, steps, 28)", {"steps": 28}),
        ("rounds = 2\ndef train(rounds):\n    pass\ntrain(rounds)", {"rounds": 2}),
        ("momentum = 0", {"momentum": 0}),
        ("BATCH_SIZE = 64", {"BATCH_SIZE": 64}),
        ("learning_rate = 0.1\nfor e in range(2):\n    learning_rate *= 0.5", {"learning_rate": 0.1}),
        ("n = 2\nfor n in range(5):\n    pass", {"n": 2}),
        ("correct = 0\ntotal = 0\ngap(1, 'count')\nprint(100 * correct / total)", {}),
        ("correct = 0\ntotal = 0\ndef share(a, b):\n    return a / b\nprint(share(correct, total))", {}),
        ("n = 0\nfor x in data:\n    n += 1", {}),
        ("epochs = 0\nwhile epochs < 3:\n    epochs = epochs + 1", {}),
        ("print_every = 100\nif i % print_every == 0:\n    print(i)", {}),
        ("pictures = 10\nfor i in range(pictures):\n    show(i)", {}),
    ],
)
def test_hyperparameters_are_the_numbers_that_training_is_given(
    tmp_path: Path, text: str, found: dict[str, Any]
) -> None:
    path = tmp_path / "lab.py"
    path.write_text(text, encoding="utf-8")
    namespace = {"width": 8, "n": 4, "i": 9, "correct": 5, "learning_rate": 0.025, "e": 1}
    names = {name: value for name, value in namespace.items() if name in text}
    assert hyperparameters(read_source(path), names) == found
