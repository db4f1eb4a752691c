"""The check of training loop, test and pictures on whole small files: right ones in many styles, and ones with a fault."""

from __future__ import annotations

import json
import linecache
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from tests.labs.training_faults import FAULTS
from tests.labs.training_files import HEAD, LOADERS, LOOP, MODEL, STYLES, TESTING, WHOLE, swapped
from unroll.labs.check import check
from unroll.labs.child import few_batches
from unroll.labs.child.lines import described
from unroll.labs.child.observe_training import TrainingRecorder
from unroll.labs.judge.testing import numbers
from unroll.labs.judge.training import CODES, REMARKS, judge_training, reached

TRAIN, TEST = 256, 150


def _made(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = np.random.default_rng(0).integers(0, 256, (10, 28, 28)) * (
        np.random.default_rng(1).random((10, 28, 28)) < 0.3
    )
    labels = rng.integers(0, 10, count)
    images = np.where(rng.random((count, 28, 28)) < 0.8, shapes[labels], rng.integers(0, 200, (count, 28, 28)))
    images[:, 0] = 0
    return images.astype(np.uint8), labels


PARTS = {"train": _made(TRAIN, 2), "test": _made(TEST, 3)}


class Served(Dataset):
    """A stand-in for torchvision's MNIST."""

    def __init__(self, root: str = "", train: bool = True, transform: Any = None, download: bool = False) -> None:
        images, labels = PARTS["train" if train else "test"]
        self.data, self.targets, self.train = torch.from_numpy(images), torch.from_numpy(labels), train

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, int]:
        return (self.data[k].float() / 255)[None], int(self.targets[k])


def observe(text: str, whole: bool = False) -> dict[str, Any]:
    """Run a text as the check does, and return what was seen of it."""
    import matplotlib

    matplotlib.use("Agg", force=True)
    from matplotlib import pyplot

    name = "student.py"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"__name__": "__main__", "MNIST": Served}
    outcome: dict[str, Any] = {"error": None, "stopped": None, "printed": ""}
    recorder = TrainingRecorder(name, PARTS, whole=whole)
    shown, pyplot.show = pyplot.show, lambda *a, **k: None
    try:
        with warnings.catch_warnings(), recorder:
            warnings.simplefilter("ignore")  # torch and matplotlib warn of each other
            try:
                exec(compile(text, name, "exec"), namespace)
            except Exception as error:
                print("stopped by", repr(error))
                outcome["error"] = described(error, name)
    finally:
        pyplot.show = shown
        pyplot.close("all")
    observed = recorder.data(namespace, outcome)
    json.dumps({key: value for key, value in observed.items() if not isinstance(value, np.ndarray)})
    assert observed["failed"] == []
    return observed


def found(text: str) -> dict[str, int | None]:
    """The codes of what is wrong, each with its line."""
    return {p.code: p.line for p in judge_training(observe(text)) if p.code not in REMARKS}


@pytest.mark.parametrize("style", STYLES)
def test_training_check_calls_no_right_file_wrong(style: str) -> None:
    observed = observe(STYLES[style])
    assert not observed["stopped"]
    assert [p for p in judge_training(observed) if p.code not in REMARKS] == []


@pytest.mark.parametrize("fault", FAULTS)
def test_training_check_names_each_fault_alone(fault: str) -> None:
    code, text = FAULTS[fault]
    assert set(found(text)) == {code}


def test_training_check_tells_the_lines_of_faults() -> None:
    for fault, words in [
        ("softmax", "criterion(torch.softmax"),
        ("no zero_grad", "loss.backward()"),
        ("parameters missing", "optimizer.step()"),
        ("counts-batches", ""),
        ("few pictures", "plt.imshow"),
    ]:
        code, text = FAULTS.get(fault, FAULTS["batches counted"])
        line = found(text)[code]
        assert line is not None
        assert (words or "print(f'Test") in text.splitlines()[line - 1]


def test_training_check_points_at_the_line_that_counts_wrongly() -> None:
    total, correct = "        total += labels.size(0)\n", "        correct += (predicted == labels).sum().item()\n"
    for words, code, *changes in [
        ("total += 1", "counts-batches", (total, "        total += 1\n")),
        ("total = total + 1", "counts-batches", (total, "        total = total + 1\n")),
        (
            "accuracy = correct / n",
            "counts-batches",
            (
                "print(f'Test Accuracy: {100 * correct / total",
                "n = len(test_loader)\naccuracy = correct / n\nprint(f'Test Accuracy: {100 * accuracy",
            ),
        ),
        ("correct = (predicted", "last-batch-only", (correct, correct.replace("+=", "="))),
        ("total += len(train_dataset)", "wrong-denominator", (total, "        total += len(train_dataset) / 2\n")),
        (
            "correct += (predicted == labels).float",
            "mean-of-batches",
            ("(test_dataset, batch_size=batch_size", "(test_dataset, batch_size=64"),
            (total, "        total += 1\n"),
            (correct, "        correct += (predicted == labels).float().mean().item()\n"),
        ),
    ]:
        text = swapped(*changes)
        ((name, line),) = found(text).items()
        assert name == code
        assert text.splitlines()[(line or 0) - 1].strip().startswith(words)


ZERO, BACK, STEP = "        optimizer.zero_grad()\n", "        loss.backward()\n", "        optimizer.step()\n"
HAND = "        for p in model.parameters():\n            p.data -= learning_rate * p.grad\n"
HAND_ZERO = "        for p in model.parameters():\n            p.grad.zero_()\n"
HAND_NONE = "        for p in model.parameters():\n            p.grad = None\n"


@pytest.mark.parametrize(
    ("order", "code", "said"),
    [
        (STEP + ZERO + BACK, "training-order", "step() stands between the forward and its backward()"),
        (ZERO + STEP + BACK, "step-without-gradients", "step() stands before backward()"),
        (BACK + ZERO + STEP, "step-without-gradients", "zero_grad() stands between backward() and step()"),
        (HAND + HAND_NONE + BACK, "training-order", "The update stands before the first backward()"),
        (HAND_ZERO + BACK + HAND, "training-order", "Gradients are zeroed before the first backward()"),
        (BACK + HAND_NONE + HAND, "training-order", "None again before the update"),
    ],
)
def test_training_check_names_an_order_that_cannot_be(order: str, code: str, said: str) -> None:
    (problem,) = [p for p in judge_training(observe(swapped((ZERO + BACK + STEP, order)))) if p.code not in REMARKS]
    assert problem.code == code
    assert said in problem.message


def test_training_check_takes_no_other_none_for_a_gradient() -> None:
    assert found(swapped((ZERO, "        None.zero_()\n"))) == {}
    assert found(swapped((STEP, STEP + "        model.fc.weight.grad = None.grad\n"), (ZERO, ""))) == {}


def test_training_check_names_the_missing_parameters() -> None:
    (problem,) = [p for p in judge_training(observe(FAULTS["parameters missing"][1])) if p.code == "parameters-missing"]
    assert problem.about == "cell.gates.weight, cell.gates.bias"
    assert "model" in problem.message


@pytest.mark.parametrize("stop", [HEAD, LOADERS, MODEL, LOOP, TESTING])
def test_training_check_says_nothing_of_what_a_stopped_file_did_not_reach(stop: str) -> None:
    at = WHOLE.index(stop) + len(stop)
    assert found(WHOLE[:at] + "raise ValueError('here')\n" + WHOLE[at:]) == {}


def test_training_check_says_nothing_behind_a_stop_within_a_loop() -> None:
    for line in ("        outputs = model(images)\n", "        loss.backward()\n", "        total += labels.size(0)\n"):
        assert found(swapped((line, line + "        raise ValueError('here')\n"))) == {}


def test_training_check_says_of_an_unfinished_file_what_is_to_come() -> None:
    assert set(found(HEAD + LOADERS + MODEL)) == {"no-training", "no-testing", "no-pictures"}


def test_training_check_remarks_are_no_faults() -> None:
    text = swapped(
        ("shuffle=True", "shuffle=False"),
        ("model.eval()\n", ""),
        ("with torch.no_grad():\n    for", "if True:\n    for"),
    )
    codes = {p.code for p in judge_training(observe(text))}
    assert codes == {"not-shuffled", "no-eval", "no-no-grad"} <= REMARKS


def _witness(fault: str) -> tuple[str, str]:
    code, text = FAULTS[fault]
    (problem,) = [p for p in judge_training(observe(text)) if p.code == code]
    assert problem.witness is not None
    return problem.witness.expected, problem.witness.got


def test_training_check_witnesses() -> None:
    alone, got = (float(text.split(",")[0]) for text in _witness("no zero_grad"))
    assert 0 < alone != got
    assert _witness("softmax")[1] == "a sum of 1"
    assert _witness("step behind the loop") == ("3 steps", "1 step")
    assert _witness("nan learning rate")[1] == "nan"
    assert _witness("test ends early, not printed")[1] == "128 images"
    expected, got = _witness("predictions of another draw")
    assert expected != got


def test_training_check_tells_no_zero_grad_by_the_gradient_of_the_batch_alone() -> None:
    # Each batch is the same image, whose gradient by hand is (softmax - one-hot) x for the weight, and without x for the bias.
    text = """\
import torch
from torch import nn
data = MNIST(train=True)
x, y = data[0][0].reshape(1, -1), torch.tensor([data[0][1]])
model = nn.Linear(784, 10)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
norms = []
for k in range(3):
    error = model(x).detach().softmax(1) - torch.eye(10)[y]
    norms.append(float((error.square().sum() * (x.square().sum() + 1)).sqrt()))
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
print(norms[1])
"""
    observed = observe(text)
    (problem,) = [p for p in judge_training(observed) if p.code == "no-zero-grad"]
    printed = float(next(e["text"] for e in observed["events"] if e["kind"] == "print"))
    assert problem.witness is not None
    assert float(problem.witness.expected.split(",")[0]) == pytest.approx(printed, rel=1e-3)


def test_training_check_sees_an_accuracy_that_is_logged_or_written() -> None:
    told = "print(f'Test Accuracy: {100 * correct / total:.2f}%')"
    logged = swapped(
        (told, "import logging; logging.getLogger('lab').warning('Test Accuracy: %.2f%%', 100 * correct / total)")
    )
    observed = observe(logged)
    assert reached(observed)["testing"]
    wrong = logged.replace("total = 0", "total = 0; wrong = 0").replace(
        "100 * correct / total)", "correct / len(test_loader))"
    )
    assert set(found(wrong)) == {"counts-batches"}
    observed = observe(STYLES["written to stdout"])
    tests = [(i, p) for i, p in zip(observed["images"], observed["predicted"], strict=True) if i >= TRAIN][:TEST]
    right = sum(p == observed["labels"][i] for i, p in tests)
    for printed, has in [
        (f"loss 0.2\ntest accuracy {right / TEST:.4f}\n", True),
        (f"loss {right / TEST:.4f}\ntest accuracy 0.9173\n", False),
    ]:
        observed["printed"] = printed
        assert reached(observed)["testing"] == has


def _long(epochs: int, *changes: tuple[str, str]) -> str:
    return swapped(("10, 100, 0.01, 2", f"10, 32, 0.01, {epochs}"), *changes)


def test_training_check_cuts_a_long_training_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_batches, "STEPS", 20)
    observed = observe(_long(6))
    steps = [e for e in observed["events"] if e["kind"] == "step"]
    assert len(steps) == 3 * 8 + 3 * 2  # three whole epochs are 24 steps
    assert [p for p in judge_training(observed) if p.code not in REMARKS] == []
    assert reached(observed) == {"training": True, "testing": True, "pictures": True}
    assert sum(e["kind"] == "step" for e in observe(_long(6), whole=True)["events"]) == 6 * 8


def test_training_check_of_a_long_training_names_the_same_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_batches, "STEPS", 20)
    step = "        optimizer.step()\n"
    for code, *changes in [
        ("no-zero-grad", ("        optimizer.zero_grad()\n", "")),
        ("step-once-an-epoch", (step, step[4:])),
        ("tested-on-training", ("images, labels in test_loader", "images, labels in train_loader")),
    ]:
        assert set(found(_long(6, *changes))) == {code}
    assert set(found(_long(24, (step, step + "        break\n")))) == {"one-batch"}


def test_training_check_cuts_no_pass_that_asks_for_single_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_batches, "STEPS", 20)
    by_hand = _long(
        6,
        (
            "    for step, (images, labels) in enumerate(train_loader):\n",
            "    batches = iter(train_loader)\n    for step in range(len(train_loader)):\n"
            "        images, labels = next(batches)\n",
        ),
    )
    observed = observe(by_hand)
    assert not observed["stopped"]
    assert sum(e["kind"] == "step" for e in observed["events"]) == 6 * 8


def test_training_check_counts_a_second_model_s_steps_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_batches, "STEPS", 20)
    twice = _long(4, (LOOP, LOOP + MODEL + LOOP))
    assert sum(e["kind"] == "step" for e in observe(twice)["events"]) == 2 * (3 * 8 + 2)


def test_check_runs_a_file_again_that_counts_on_every_batch(tmp_path: Path) -> None:
    counts = _long(
        9,
        ("        optimizer.step()\n", "        optimizer.step(); every.append(loss.item())\n"),
        ("\nfor epoch", "\nevery = []\nfor epoch"),
        (TESTING, "print(torch.tensor(every).reshape(num_epochs, len(train_loader)).mean(1)[-1])\n" + TESTING),
        (
            "train_dataset, test",
            "from torchvision.datasets import MNIST as Images\n"
            "from torchvision.transforms import ToTensor\n"
            "MNIST = lambda train: Images('.', train, ToTensor())\ntrain_dataset, test",
        ),
    )
    file = tmp_path / "homework.py"
    file.write_text(counts, encoding="utf-8")
    checked = check(file, "homework")
    assert checked.stopped is None
    assert [p for p in checked.problems if p.check in ("training", "testing", "pictures")] == []


def test_training_check_tells_what_it_reached() -> None:
    assert reached(observe(WHOLE)) == {"training": True, "testing": True, "pictures": True}
    assert reached(observe(HEAD + LOADERS + MODEL)) == {"training": False, "testing": False, "pictures": False}


def test_training_recorder_puts_back_what_it_watched() -> None:
    from matplotlib.axes import Axes

    places = [
        (torch.autograd, "backward"),
        (torch.autograd, "grad"),
        (torch.utils.data.DataLoader, "__iter__"),
        (Axes, "imshow"),
        (Axes, "clear"),
        (__builtins__, "print"),
    ]

    def look() -> list[Any]:
        return [p[name] if isinstance(p, dict) else getattr(p, name) for p, name in places]

    before = look()
    observe(WHOLE)
    with pytest.raises(KeyError), TrainingRecorder("student.py", PARTS):
        raise KeyError
    assert all(a is b for a, b in zip(before, look(), strict=True))
    assert "clear" not in vars(Axes)


def test_training_recorder_changes_no_number() -> None:
    values = []
    for watch in (False, True):
        namespace: dict[str, Any] = {"MNIST": Served, "print": lambda *a, **k: None}
        code = compile(HEAD + LOADERS + MODEL + LOOP + TESTING, "student.py", "exec")
        if watch:
            with TrainingRecorder("student.py", PARTS):
                exec(code, namespace)
        else:
            exec(code, namespace)
        values.append([p.detach().clone() for p in namespace["model"].parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*values, strict=True))


def test_training_recorder_knows_what_is_served_while_it_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    served = types.ModuleType("unroll.labs.child.served")
    served.made = []  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unroll.labs.child.served", served)

    def made(train: bool) -> Served:
        served.made.append(Served(train=train))
        return served.made[-1]

    with TrainingRecorder("student.py") as recorder:
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
        model(made(False).data[:3].float())
        model(made(True).data[:2].float())
    assert recorder.data({})["images"].tolist() == [TRAIN, TRAIN + 1, TRAIN + 2, 0, 1]


def test_training_recorder_modules_are_outermost_first() -> None:
    namespace: dict[str, Any] = {"MNIST": Served}
    with TrainingRecorder("student.py", PARTS) as recorder:
        exec(compile(HEAD + LOADERS + MODEL + LOOP, "student.py", "exec"), namespace)
    classes = [type(module).__name__ for module in recorder.modules]
    assert classes.index("ManualLSTMClassifier") < classes.index("ManualLSTMCell") < classes.index("Linear")


def test_training_check_numbers_of_a_text() -> None:
    assert list(numbers("Test 97.50% of T10")) == [(97.5, 0.01)]
    assert list(numbers("1.5e1 and 3")) == [(15.0, 1.0), (3.0, 1.0)]


def test_training_check_codes_have_titles_and_hints() -> None:
    used = {code for code, _ in FAULTS.values()} | REMARKS | {"training-order"}
    assert used == set(CODES)
    assert all(code.title and code.hints for code in CODES.values())
