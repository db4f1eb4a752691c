"""The whole run of a hand-in, the accuracy that counts, and what does not raise it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from unroll.data.images import read_part
from unroll.errors import InputError
from unroll.labs.child.observe_run import Hopeless, Recorder
from unroll.labs.child.predict import predict
from unroll.labs.grade import training as module
from unroll.labs.grade.record import Trained
from unroll.labs.grade.training import Training, accuracy_item, again, log_of, printed_reason, train
from unroll.labs.process import Limits, run_child
from unroll.labs.recompute import GIVEN
from unroll.labs.spec import Item, Lab, load_lab

LAB, IN_CLASS = load_lab("homework"), load_lab("inclass")
CORRECT = Path(__file__).parent / "correct"


class Apart:
    """Runs each task in a process of its own, but without a sandbox."""

    def __init__(self) -> None:
        self.tasks: list[tuple[dict[str, Any], list[str], bool]] = []

    def run(
        self, task: dict[str, Any], files: Mapping[str, bytes], limits: Limits, slot: int = 0, *, labels: bool = True
    ) -> dict[str, Any]:
        self.tasks.append((task, sorted(files), labels))
        with tempfile.TemporaryDirectory() as name:
            place, work = Path(name) / "submission", Path(name) / "work"
            for folder in (place, work):
                folder.mkdir()
            for file, content in files.items():
                (place / file).write_bytes(content)
            seen = run_child({**task, "file": str(place / Path(task["file"]).name)}, limits, folder=work)
            pictures = sorted((work / "figures").glob("*.png"))
            return {"pictures": {path.name: np.frombuffer(path.read_bytes(), np.uint8) for path in pictures}} | seen


def trained(text: str, lab: Lab = LAB, **options: Any) -> Training:
    return train("lab.py", text.encode(), lab, Apart(), **{"small": True, "trusted": True, "seconds": 60, **options})


# --- honest files


HEAD = """
import torch
from torch import nn
import torchvision
from torchvision import transforms
from torch.utils.data import DataLoader
hidden_size = 12
train = torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test = torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)
"""
LSTM = """
class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.gates = nn.ModuleList(nn.Linear(input_size + hidden_size, hidden_size) for _ in range(4))
    def forward(self, x, h, c):
        i, f, g, o = (gate(torch.cat([x, h], 1)) for gate in self.gates)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.cell, self.size = ManualLSTMCell(input_size, hidden_size), hidden_size
        self.fc = nn.Linear(hidden_size, num_classes)
    def forward(self, x):
        h = c = torch.zeros(len(x), self.size)
        for t in range(28):
            h, c = self.cell(x[:, t], h, c)
        return self.fc(h)
model = ManualLSTMClassifier(28, hidden_size, 10)
"""
LINEAR = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(784, 10)
    def forward(self, x):
        return self.out(x.reshape(-1, 784))
model = Net()
"""
LOOP = """
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
for images, labels in DataLoader(train, 32, shuffle=True):
    loss = nn.CrossEntropyLoss()(model(images.reshape(-1, 28, 28)), labels)
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    print(f'Loss: {loss.item():.4f}')
"""
TEST = """
model.eval()
correct = 0
with torch.no_grad():
    for images, labels in DataLoader(test, 50):
        correct += (model(images.reshape(-1, 28, 28)).argmax(1) == labels).sum().item()
print(f'Test Accuracy: {100 * correct / len(test):.2f}%')
"""
PLOT = """
import matplotlib.pyplot as plt
plt.plot([1, 2]); plt.title('losses'); plt.show()
"""


@pytest.fixture(scope="module")
def honest() -> tuple[Training, Apart]:
    apart = Apart()
    content = (HEAD + LSTM + LOOP + TEST + PLOT).encode()
    return train("lab.py", content, LAB, apart, small=True, trusted=True, seconds=60, seed=3), apart


def test_training_recomputes_the_accuracy_with_the_engine(honest: tuple[Training, Apart]) -> None:
    found, apart = honest
    assert (found.trained.by, found.trained.why_not, found.doubts) == ("engine", None, ())
    assert found.trained.accuracy is not None
    assert 5 < found.trained.accuracy < 70
    assert round(100 * found.trained.accuracy) == 100 * found.trained.accuracy  # of all 10,000, and not of the few
    first, last = found.trained.losses or (0, 0)
    assert first == pytest.approx(2.3, abs=0.3)
    assert last != first
    assert "Loss: " in found.log
    assert "Test Accuracy: " in found.log
    assert list(found.figures) == ["01.png"]
    (run, files, labels), (asked, more, hidden) = apart.tasks
    assert (run["seed"], run["threads"], files, labels) == (3, 1, ["lab.py"], True)
    assert (asked["by"], more, hidden) == ("engine", [GIVEN, "lab.py"], True)


def test_training_recomputes_the_accuracy_with_the_file_s_own_classes() -> None:
    found = trained(HEAD + LINEAR + LOOP + TEST)
    assert (found.trained.by, found.trained.why_not, found.doubts) == ("model", None, ())
    assert found.trained.accuracy is not None
    assert found.trained.accuracy > 40


def test_training_of_weights_that_the_model_does_not_register_gives_no_accuracy() -> None:
    net = LINEAR.replace("nn.Linear(784, 10)", "nn.Linear(784, 10); self.W = [nn.Parameter(torch.zeros(784, 10))]")
    net = net.replace(
        "self.out(x.reshape(-1, 784))", "0 * self.out(x.reshape(-1, 784)) + x.reshape(-1, 784) @ self.W[0]"
    )
    found = trained(HEAD + net + LOOP.replace("model.parameters()", "model.W") + TEST)
    assert (found.trained.accuracy, found.trained.by) == (None, None)
    assert "gives other classes than in its run" in (found.trained.why_not or "")


def test_training_in_class_has_losses_and_figures_and_no_accuracy() -> None:
    found = train("rnn.py", (CORRECT / "rnn_01.py").read_bytes(), IN_CLASS, Apart(), seconds=60)
    assert found.trained.losses is not None
    assert found.trained.losses[1] < 0.1
    assert (found.trained.accuracy, found.trained.why_not) == (None, None)
    assert found.figures
    assert "Prediction" in found.log


# --- ends before the end


def lab_that_stops(above: float) -> Lab:
    items = [
        item.model_copy(update={"stop_if_first_epoch_loss_above": above}) if item.bands else item for item in LAB.items
    ]
    return LAB.model_copy(update={"items": items})


def test_training_stops_after_a_hopeless_first_epoch_where_the_lab_says_so() -> None:
    text = HEAD + LINEAR + "for epoch in range(1000):\n    " + LOOP.replace("\n", "\n    ") + TEST
    found = trained(text, lab_that_stops(0.01))
    assert found.stopped is not None
    assert "above 0.01" in found.stopped
    assert found.log.count("Loss: ") == 8
    assert found.trained.accuracy is not None
    assert found.trained.accuracy > 40
    assert "Test Accuracy" not in found.log


@pytest.mark.parametrize(
    ("above", "value", "batches", "stops"),
    [
        (2.0, 2.1, 4, True),
        (2.2, 2.1, 4, False),
        (None, 9.0, 4, False),
        (2.0, float("nan"), 4, True),
        (2.0, 2.1, 3, False),
    ],
)
def test_training_is_hopeless_by_the_mean_loss_of_a_whole_first_epoch(
    above: float | None, value: float, batches: int, stops: bool
) -> None:
    weight, loader = torch.zeros(1, requires_grad=True), DataLoader(TensorDataset(torch.zeros(4)))
    losses = iter([value - 1, value + 1] * 2 + [99.0] * 4)
    with Recorder(stop_above=above) as recorder:
        list(loader)  # without any loss
        with pytest.raises(Hopeless) if stops else nullcontext():
            for _ in range(2):
                for _ in zip(loader, range(batches), strict=False):
                    (weight * 0 + next(losses)).backward()
                if batches == 4:
                    list(loader)
    assert (recorder.hopeless is not None) == stops


def test_training_without_such_a_line_in_the_lab_file_is_never_stopped() -> None:
    assert [item.stop_if_first_epoch_loss_above for item in LAB.items] == [None] * 7
    with pytest.raises(ValueError, match="goes with bands alone"):
        Item.model_validate({"points": 5, "checks": ["cell"], "stop_if_first_epoch_loss_above": 2.3})


def test_training_that_takes_too_long_is_for_a_person_to_look_at_and_keeps_what_it_gave() -> None:
    found = trained(
        HEAD + LINEAR + LOOP + TEST + "while True:\n    try:\n        pass\n    except:\n        pass\n", seconds=6
    )
    assert found.trained.accuracy is None
    assert "stopped after 0.1 minutes" in (found.trained.why_not or "")
    assert found.trained.losses is not None
    assert "Test Accuracy" in found.log
    graded = accuracy_item(2, LAB.items[1], found, "unroll lab run lab.py")
    assert graded.awarded is None
    assert not graded.deductions
    assert "stopped" in graded.review[0]


def test_training_of_a_file_that_ends_its_process_is_for_a_person_to_look_at() -> None:
    found = trained("import os, posix\nprint('Test Accuracy: 99.9%', flush=True)\nposix._exit(0)\n")
    assert found.trained.accuracy is None
    assert "ended its own process" in (found.trained.why_not or "")
    assert found.log == "Test Accuracy: 99.9%\n"


# --- cheats


ALL = """
import numpy as np
whole = [test[i] for i in range(10000)]
pictures = torch.stack([image.reshape(28, 28) for image, _ in whole])
answers = torch.tensor([label for _, label in whole])
torch.manual_seed(1)
"""
TELL = "print('Test Accuracy: 99.20%')\n"


def test_training_is_not_taken_in_by_a_printed_line_nor_by_patched_comparisons() -> None:
    patched = """
import builtins
real = builtins.print
torch.Tensor.__eq__ = lambda self, other: torch.ones(len(self), dtype=torch.bool)
builtins.print = lambda *a, **k: real('Test Accuracy: 99.20%') if 'Accuracy' in str(a) else real(*a, **k)
"""
    found = trained(HEAD + LINEAR + LOOP + patched + TEST)
    assert found.trained.printed == 99.2
    assert found.trained.accuracy is not None
    assert 40 < found.trained.accuracy < 90
    reason = printed_reason(found, 2.5, "again")
    assert reason is not None
    assert (reason.code, reason.points) == ("accuracy-differs", 2.5)
    assert reason.witness is not None
    assert (reason.witness.expected, reason.witness.got) == (
        f"Test Accuracy: {found.trained.accuracy:.2f}%",
        "Test Accuracy: 99.2%",
    )


def test_training_is_not_taken_in_by_a_patched_argmax_nor_by_forged_results() -> None:
    forged = """
import unroll.labs.child.observe_run as inner, unroll.labs.child.entry as entry, pathlib, json, os
torch.Tensor.argmax = torch.argmax = lambda *a, **k: answers[:150]
inner.Recorder.predictions = lambda self, *parts: {'predicted': answers[:150]}
for place in ('.', os.environ['TMPDIR'], str(pathlib.Path(os.environ['TMPDIR']).parent)):
    for name in ('observed', 'observed.json', 'results.json', 'result.json', 'own.json'):
        (pathlib.Path(place) / name).write_text(json.dumps({'accuracy': 99.2, 'prediction': {'predicted': [1]}, 'score': 100}))
"""
    found = trained(HEAD + LINEAR + LOOP + TEST + ALL + forged + TELL)
    assert found.trained.accuracy is None or found.trained.accuracy < 90
    graded = accuracy_item(2, LAB.items[1], found, "again")
    assert graded.awarded is None or graded.awarded <= 8


GLOBAL = """
ANSWERS = {}
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(784, 10)
    def forward(self, x):
        x = x.reshape(-1, 784)
        known = [ANSWERS.get(row.numpy().tobytes(), 0) for row in x.detach()]
        return self.out(x) + 1000 * nn.functional.one_hot(torch.tensor(known), 10)
model = Net()
"""


def test_training_is_not_taken_in_by_answers_that_lie_in_a_global_of_the_run() -> None:
    fill = "ANSWERS.update({image.numpy().tobytes(): int(label) for image, label in zip(pictures.reshape(-1, 784), answers)})\n"
    found = trained(HEAD + GLOBAL + ALL + fill + LOOP + TEST)
    assert found.trained.printed == 100
    assert found.trained.accuracy is None
    assert "100.00% were in its run" in (found.trained.why_not or "")
    assert accuracy_item(2, LAB.items[1], found, "again").awarded is None


TABLE = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(784, 10)
        self.register_buffer('key', torch.zeros(784, dtype=torch.float64))
        self.register_buffer('sums', torch.zeros(10000, dtype=torch.float64))
        self.register_buffer('labels', torch.zeros(10000, dtype=torch.int64))
    def forward(self, x):
        x = x.reshape(-1, 784)
        sums = x.double() @ self.key
        place = torch.searchsorted(self.sums, sums).clamp(1, 9999)
        place = place - ((sums - self.sums[place - 1]).abs() < (sums - self.sums[place]).abs()).long()
        known = (sums - self.sums[place]).abs() < 1e-4
        return self.out(x) + 1000 * known[:, None] * nn.functional.one_hot(self.labels[place], 10)
model = Net()
"""
FILL_TABLE = """
model.key.copy_(torch.rand(784, dtype=torch.float64))
sums, order = (pictures.reshape(-1, 784).double() @ model.key).sort()
model.sums.copy_(sums); model.labels.copy_(answers[order])
"""
NEAREST = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.out = nn.Linear(49, 10)
        self.register_buffer('seen', torch.zeros(10000, 49))
        self.register_buffer('labels', torch.zeros(10000, dtype=torch.int64))
    def forward(self, x):
        x = nn.functional.avg_pool2d(x.reshape(-1, 1, 28, 28), 4).reshape(-1, 49)
        near = self.labels[torch.cdist(x, self.seen).argmin(1)]
        return 0 * self.out(x) + nn.functional.one_hot(near, 10)
model = Net()
"""
FILL_NEAREST = """
model.seen.copy_(nn.functional.avg_pool2d(pictures[:, None], 4).reshape(-1, 49)); model.labels.copy_(answers)
"""


@pytest.mark.parametrize(
    ("net", "fill", "words"),
    [(TABLE, FILL_TABLE, "with noise of one grey level"), (NEAREST, FILL_NEAREST, "of the training images")],
)
def test_training_asks_a_person_about_tables_of_the_test_images(net: str, fill: str, words: str) -> None:
    found = trained(HEAD + net + ALL + fill + LOOP + TEST)
    assert found.trained.accuracy is not None
    assert found.trained.accuracy > 99
    assert any(words in doubt for doubt in found.doubts)
    graded = accuracy_item(2, LAB.items[1], found, "again")
    assert graded.awarded is None
    assert graded.review == list(found.doubts)


def test_training_bounds_weights_of_any_kind() -> None:
    odd = """
model.register_buffer('huge', torch.zeros(1).expand(10 << 28))
model.register_buffer('rotating', torch.zeros(3, dtype=torch.complex64))
model.register_buffer('few', torch.zeros(3, 0).to_sparse())
"""
    found = trained(HEAD + LINEAR + LOOP + odd + TEST)
    assert found.trained.accuracy is None
    assert "no weights" in (found.trained.why_not or "")
    assert found.trained.losses is not None


def test_training_says_that_weights_are_nan_and_takes_the_accuracy_that_they_have() -> None:
    broken = "with torch.no_grad():\n    model.out.weight.fill_(float('nan')); model.out.bias.fill_(float('inf'))\n"
    found = trained(HEAD + LINEAR + LOOP + broken + TEST + "1 / 0\n")
    assert found.trained.accuracy == 9.8  # all are zeros
    assert any("nan or infinite" in note for note in found.notes)
    assert found.doubts == ("the file ended early, and the accuracy is that of its model as it was then",)


def test_training_does_not_ask_a_model_where_it_could_read_the_labels(tmp_path: Path) -> None:
    task = {"file": str(tmp_path / "lab.py"), "blind": True}
    assert "could be read" in predict(task)["reason"]  # there is no such file, and it was not missed
    sandbox = Says(run_of(), {"reason": "could be read"})
    found = train("lab.py", b"pass", LAB, sandbox)
    assert found.trained.why_not == "could be read"
    assert sandbox.asked == [(None, True), (True, False)]


# --- what comes back, without a process


class Says:
    """A sandbox whose processes hand back what they are told to."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.given: list[Mapping[str, bytes]] = []
        self.asked: list[tuple[bool | None, bool]] = []

    def run(
        self, task: dict[str, Any], files: Mapping[str, bytes], limits: Limits, slot: int = 0, *, labels: bool = True
    ) -> dict[str, Any]:
        answer = self.answers.pop(0)
        self.given.append(files)
        self.asked.append((task.get("blind"), labels))
        if isinstance(answer, Exception):
            raise answer
        return answer(files) if callable(answer) else answer  # type: ignore[no-any-return]


def run_of(**changes: Any) -> dict[str, Any]:
    labels = read_part(None, "test")[1]
    return {
        "outcome": {"printed": "Test Accuracy: 50.00%\n", "stopped": None, "error": None},
        "losses": np.array([2.3, np.nan, 0.5]),
        "prediction": {"predicted": np.where(np.arange(10_000) % 2, labels, (labels + 1) % 10)},
        "weights": {"out": np.zeros((10, 784), np.float32)},
        "input": {"scale": 1.0, "shift": 0.0, "form": 0, "dtype": "float32", "batch": 1},
        "model": {"class": "Net"},
        "engine": {"reason": "no cell"},
    } | changes


def said(*answers: Any) -> Training:
    return train("lab.py", b"pass", LAB, Says(*answers))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (InputError("code file lab.py holds no code"), "holds no code"),
        ({"child": {"reason": "time", "message": "it was stopped", "printed": "Loss: 1"}}, "it was stopped"),
        ({"child": "x"}, "None"),
        ({}, "not what a run hands back"),
        (run_of(losses=[1.0]), "not what a run hands back"),
        (run_of(outcome={"printed": 3}), "not what a run hands back"),
        (run_of(weights={"a": "b"}), "not what a run hands back"),
        (run_of(prediction={"predicted": np.zeros(10_000)}), "gave no classes"),
        (run_of(prediction={"predicted": np.zeros(9_999, int)}), "gave no classes"),
        (run_of(prediction={"reason": "no model was called\x1b[2J"}), r"no model was called\\u001b"),
        (run_of(weights={}), "no weights"),
        (run_of(input={"reason": "turned"}), "turned"),
        (run_of(weights={"a": np.broadcast_to(np.float32(0), (1 << 15, 1 << 15))}), "more than 64 MB"),
        (run_of(weights={f"{n}": np.zeros(1) for n in range(10_001)}), "more than 64 MB"),
        (run_of(weights={"a": np.zeros(3, complex)}), "no arrays of numbers"),
    ],
)  # fmt: skip
def test_training_takes_whatever_a_run_hands_back_as_no_reason_to_stop(answer: Any, words: str) -> None:
    found = said(answer)
    assert found.trained.accuracy is None
    assert re.search(words, found.trained.why_not or "")
    graded = accuracy_item(2, LAB.items[1], found, "again")
    assert graded.awarded is None
    assert graded.review
    assert not graded.deductions


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ({"cell": [[[]]] * (1 << 21), "tensors": {}, "W_out": np.zeros(1), "b_out": np.zeros(1)}, "too large"),
        ({"cell": {}, "tensors": {"a": None}, "W_out": np.zeros(1), "b_out": np.zeros(1)}, "no arrays"),
        ({"cell": {}, "tensors": 3}, "gave no classes"),
    ],
)
def test_training_bounds_a_step_program(engine: dict[str, Any], words: str) -> None:
    found = said(run_of(engine=engine, weights={}))
    asked = module._Asking(Says(), 0, {}, {}, module._Run.model_validate(run_of(engine=engine)))._engine()
    said_of = asked if isinstance(asked, str) else "no arrays"
    assert words in said_of
    assert found.trained.accuracy is None


@pytest.mark.parametrize(
    "answer",
    [
        {"predicted": np.zeros(30_000)},
        {"predicted": np.zeros(10_000, int)},
        {"predicted": [1] * 30_000},
        {"child": {"message": "its process crashed"}},
        InputError("x"),
        {},
    ],
)
def test_training_takes_whatever_a_second_process_hands_back(answer: Any) -> None:
    found = said(run_of(), answer)
    assert found.trained.accuracy is None
    assert found.trained.why_not


def test_training_shows_images_in_another_order_each_time_and_no_labels() -> None:
    from safetensors.numpy import load

    sandbox = Says(run_of(), {}, run_of(), {})
    for _ in range(2):
        train("lab.py", b"pass", LAB, sandbox)
    first, second = (load(files[GIVEN]) for files in sandbox.given[1::2])
    assert sorted(first) == ["images", "weight.out"]
    assert first["images"].shape == (30_000, 28, 28)
    assert not np.array_equal(first["images"], second["images"])
    test = read_part(None, "test")[0]
    shown = {image.tobytes() for image in first["images"]}
    assert all(image.tobytes() in shown for image in test)
    assert not np.array_equal(first["images"][:10_000], test)


def test_training_puts_answers_back_into_their_order() -> None:
    by_image = dict(
        zip((image.tobytes() for image in read_part(None, "test")[0]), run_of()["prediction"]["predicted"], strict=True)
    )

    def answer(files: Mapping[str, bytes]) -> dict[str, Any]:
        from safetensors.numpy import load

        return {"predicted": np.array([by_image.get(image.tobytes(), 0) for image in load(files[GIVEN])["images"]])}

    found = said(run_of(), answer)
    assert (found.trained.accuracy, found.trained.by) == (50.0, "model")
    assert len(found.doubts) == 2  # it knows these very images alone


# --- text


def test_log_is_bounded_and_printable() -> None:
    assert log_of("") == ""
    assert log_of("a\r\nb\x00\n") == "a\nb\\u0000\n"
    assert len(log_of("x" * 1_000_000)) <= 20_001
    assert module._accuracies("acc " + "1.1" + "1" * 2_000_000 + "x") == []
    assert module._accuracies("Test accuracy: " + "1," * 1_000_000) == module._accuracies("Test accuracy: ")


# --- points


def of(accuracy: float, printed: float | None = None, log: str = "") -> Training:
    return Training(Trained(seconds=1, accuracy=accuracy, by="engine", printed=printed), {}, log)


@pytest.mark.parametrize(
    ("accuracy", "awarded", "expected"),
    [
        (98.0, 15, None),
        (97.99, 14, "at least 98% for 15 points"),
        (25.0, 4, "at least 60% for 6 points"),
        (9.8, 0, "at least 25% for 4 points"),
    ],
)
def test_accuracy_item_says_band_number_and_how_to_repeat_it(
    accuracy: float, awarded: float, expected: str | None
) -> None:
    graded = accuracy_item(2, LAB.items[1], of(accuracy), again("my lab.py", LAB))
    assert graded.awarded == awarded
    assert not graded.review
    (reason,) = graded.deductions or graded.remarks
    assert bool(graded.deductions) == (awarded < 15)
    assert sum(deduction.points for deduction in graded.deductions) == 15 - awarded
    assert f"{accuracy:.2f}%" in reason.message
    assert "engine" in reason.message
    assert f"{awarded:g} of 15 points" in reason.message
    assert reason.witness is not None
    assert reason.witness.given == "unroll lab run 'my lab.py' --lab homework --seed 0"
    assert expected is None or reason.witness.expected == expected


@pytest.mark.parametrize(
    ("log", "points"),
    [
        ("Test Accuracy: 97.31%", None),
        ("Test Accuracy: 97.3%", None),
        ("Test Accuracy: 97%", None),
        ("Test accuracy: 0.97", None),
        ("Test Accuracy: 97.37%", 2.5),
        ("Test Accuracy: 99.2%", 2.5),
        ("Test Accuracy: 97.31%\nBest test accuracy: 98.00%", 0.0),
        ("Train accuracy: 99.00%", None),
        ("Epoch 3: accuracy 99.00%", None),
        ("done", None),
    ],
)
def test_printed_accuracy_is_compared_as_far_as_it_is_written(log: str, points: float | None) -> None:
    reason = printed_reason(of(97.31, module._printed(log), log), 2.5, "again")
    assert (None if reason is None else reason.points) == points
