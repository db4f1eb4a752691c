"""The RNN lab from end to end: its printed lines, its figures, and the way from one's own sentences to predictions."""

from __future__ import annotations

import csv
import json
import random
import re
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import unroll as package
from unroll.cli import main
from unroll.report.paths import readout, states
from unroll.training.recipe import load_recipe
from unroll.training.run import RunFolder, load
from unroll.training.tasks import first_model, load_dataset

LINES = """Epoch [50/300] - Loss: 0.0816
Epoch [100/300] - Loss: 0.0347
Epoch [150/300] - Loss: 0.0216
Epoch [200/300] - Loss: 0.0156
Epoch [250/300] - Loss: 0.0122
Epoch [300/300] - Loss: 0.0100
=== Testing ===
Sentence: ['The', 'movie', 'is', 'bad'] -> Prediction: 0
Sentence: ['The', 'movie', 'is', 'good'] -> Prediction: 1
"""

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def lab_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab") / "run"
    with pytest.raises(SystemExit):
        main(["train", "rnn-sentences", "--out", str(folder)])
    return folder


def write_reviews(path: Path, count: int = 240, seed: int = 0) -> Path:
    """Sentences that can be learnt: one word tells the label, and 'not' before it turns it round."""
    draw = random.Random(seed)
    good, bad = ["good", "great", "moving"], ["bad", "dull", "poor"]
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("text", "label"))
        for _ in range(count):
            positive, negated = draw.random() < 0.5, draw.random() < 0.3
            word = draw.choice(good if positive else bad)
            thing = draw.choice(["film", "plot", "cast", "ending"])
            phrase = f"not {word}" if negated else word
            text = draw.choice(
                [f"The {thing}, I think, is {phrase}", f'"{phrase}"\nsays it of this {thing}', f"{phrase}!"]
            )
            writer.writerow((text, "pos" if positive != negated else "neg"))
    return path


QUICK = ["--epochs", 8, "--hidden-size", 16, "--embedding-size", 16, "--batch-size", 16, "--learning-rate", 0.02]


# ----------------------------------------------------------------------------------------------------------- the lab


@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_the_lab_prints_its_own_lines_to_the_last_digit(unroll: Command, engine: str) -> None:
    status, out, err = unroll("train", "rnn-sentences", "--engine", engine, "--no-figures")
    assert (status, err) == (0, "")
    assert out == LINES + "Run folder: runs/rnn-sentences\n"


def test_the_losses_are_those_of_a_loop_written_out_here() -> None:
    torch.manual_seed(42)
    n, m = 2, 5
    W, U, b = torch.randn(n, n) / n**0.5, torch.randn(n, m) / m**0.5, torch.zeros(n)
    W_out, b_out = torch.randn(2, n) / n**0.5, torch.zeros(2)
    parameters = [W, U, b, W_out, b_out]
    for p in parameters:
        p.requires_grad_()
    printed = ""
    for epoch in range(1, 301):
        total = 0.0
        for words, y in (([0, 1, 2, 3], 1), ([0, 1, 2, 4], 0)):
            s = torch.zeros(n)
            for word in words:
                s = torch.tanh(W @ s + U @ torch.eye(m)[word] + b)
            loss = nn.functional.cross_entropy((W_out @ s + b_out)[None], torch.tensor([y]))
            loss.backward()
            total += loss.item()
            with torch.no_grad():
                for p in parameters:
                    assert p.grad is not None
                    p -= 0.1 * p.grad
                    p.grad.zero_()
        if epoch % 50 == 0:
            printed += f"Epoch [{epoch}/300] - Loss: {total:.4f}\n"
    assert LINES.startswith(printed)


def test_the_lab_has_22_parameters_of_the_shapes_it_names(lab_run: Path) -> None:
    shapes = [tuple(p.shape) for p in load(lab_run).model.parameters()]
    assert sorted(shapes) == sorted([(2, 2), (2, 5), (2,), (2, 2), (2,)])
    assert RunFolder(lab_run).metrics()["parameters"] == 22


def test_the_lab_draws_its_loss_curve_and_the_hidden_paths(lab_run: Path) -> None:
    for name in ("loss", "paths"):
        with Image.open(lab_run / "figures" / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5
        assert (lab_run / "figures" / f"{name}.svg").read_text().rstrip().endswith("</svg>")


def test_the_hidden_paths_are_those_of_the_cell_and_end_on_the_right_side(lab_run: Path) -> None:
    classifier = load(lab_run)
    for words, label in (([0, 1, 2, 3], 1), ([0, 1, 2, 4], 0)):
        path = states(classifier.model, torch.tensor(words))
        cell = classifier.model.layers.cells[0][0]
        W, U, b = (p.detach().double().numpy() for p in (cell.W, cell.U, cell.b))
        s = np.zeros(2)
        for t, word in enumerate(words, start=1):
            s = np.tanh(W @ s + U[:, word] + b)
            np.testing.assert_allclose(path[t], s, atol=1e-6)
        assert path[0].tolist() == [0, 0]
        logits = readout(classifier.model, path[-1])
        assert logits.argmax() == label
        with torch.no_grad():
            np.testing.assert_allclose(logits, classifier.model(torch.tensor(words)[:, None])[0], atol=1e-5)


def test_the_first_weights_follow_from_the_recipe_alone() -> None:
    recipe = load_recipe("rnn-sentences")
    encoder = load_dataset(recipe).encoder
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, second = first_model(recipe, encoder), first_model(recipe, encoder)
    assert torch.equal(torch.rand(1), expected), "the caller's random numbers must not change"
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    torch.manual_seed(42)
    assert torch.equal(first.layers.cells[0][0].W, torch.randn(2, 2) / 2**0.5)


def test_backpropagation_by_hand_is_shown_beside_autograd(unroll: Command, lab_run: Path) -> None:
    status, out, _ = unroll("bptt")
    assert status == 0
    assert "Sentence: ['The', 'movie', 'is', 'good']  (class 1)" in out
    assert "Sentence: ['The', 'movie', 'is', 'bad']  (class 0)" in out
    differences = [float(text) for text in re.findall(r"largest difference between the two: (\S+)", out)]
    assert len(differences) == 2
    assert max(differences) < 1e-12
    losses = re.findall(r"loss (\S+); after p -= 0.1 \* p.grad: (\S+)", out)
    assert all(float(after) < float(before) for before, after in losses)
    _, trained, _ = unroll("bptt", lab_run)
    assert float(re.findall(r"loss (\S+);", trained)[0]) < 0.01
    status, _, err = unroll("bptt", "nowhere")
    assert (status, err.count("\n")) == (2, 1)


# --------------------------------------------------------------------------------------------------- one's own sentences


def test_own_sentences_go_from_file_to_prediction_in_two_commands(unroll: Command, tmp_path: Path) -> None:
    write_reviews(tmp_path / "reviews.csv")
    status, out, err = unroll("train", "lstm-sentences", "--data", "reviews.csv", *QUICK)
    assert (status, err) == (0, "")
    accuracy = re.search(r"^Test Accuracy: (.*)%$", out, re.M)
    assert accuracy is not None
    assert float(accuracy[1]) > 90

    status, out, err = unroll("predict", "runs/lstm-sentences", "The film is not dull", "The sushi is dull")
    assert status == 0
    assert [line.split(": ")[1].split()[0] for line in out.splitlines()] == ["pos", "neg"]
    assert err == "unroll: not in the vocabulary, read as the unknown word: sushi\n"


def test_predictions_come_from_stdin_and_as_json(
    unroll: Command, lab_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(b"The movie is bad\r\n\nThe movie is good\n")))
    status, out, err = unroll("predict", lab_run, "-", "--json")
    assert (status, err) == (0, "")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [(row["input"], row["label"]) for row in rows] == [("The movie is bad", "0"), ("The movie is good", "1")]
    for row in rows:
        assert list(row["probabilities"]) == ["0", "1"]
        assert sum(row["probabilities"].values()) == pytest.approx(1)


def test_words_that_the_labs_vocabulary_lacks_are_named_and_left_out(unroll: Command, lab_run: Path) -> None:
    _, expected, _ = unroll("predict", lab_run, "The movie is good")
    status, out, err = unroll("predict", lab_run, "The new movie is so good")
    assert status == 0
    assert err == "unroll: not in the vocabulary, left out: new, so\n"
    assert out.split(": ", 1)[1] == expected.split(": ", 1)[1]
    status, out, err = unroll("predict", lab_run, "nothing known")
    assert (status, out) == (2, "")
    assert "holds no word of the vocabulary" in err


def test_python_predicts_what_the_command_does(lab_run: Path) -> None:
    good, bad = package.load(lab_run).predict(["The movie is good", "The movie is bad"])
    assert (good.label, bad.label) == ("1", "0")
    assert good.probability > 0.99


def test_a_prediction_does_not_depend_on_the_other_sentences(unroll: Command, tmp_path: Path) -> None:
    write_reviews(tmp_path / "reviews.csv", 60)
    unroll("train", "lstm-sentences", "--data", "reviews.csv", "--no-figures", *QUICK[2:], "--epochs", 1)
    classifier = package.load(tmp_path / "runs" / "lstm-sentences")
    texts = ["good", "The film, I think, is not bad at all and so on and on", "dull plot"]
    together = classifier.predict(texts)
    for text, row in zip(texts, together, strict=True):
        assert classifier.predict([text])[0].probabilities == pytest.approx(row.probabilities, abs=1e-6)


def test_a_run_is_tested_on_another_file_with_its_own_vocabulary(unroll: Command, tmp_path: Path) -> None:
    write_reviews(tmp_path / "reviews.csv")
    write_reviews(tmp_path / "more.csv", seed=1)
    unroll("train", "lstm-sentences", "--data", "reviews.csv", "--no-figures", *QUICK)
    status, out, _ = unroll("evaluate", "runs/lstm-sentences", "--data", "more.csv", "--json")
    assert status == 0
    metrics = json.loads(out)
    assert metrics["total"] == 240
    assert metrics["accuracy"] > 0.9
    (tmp_path / "odd.csv").write_text("text,label\nfine,pos\nso so,maybe\n")
    status, _, err = unroll("evaluate", "runs/lstm-sentences", "--data", "odd.csv")
    assert status == 2
    assert "odd.csv, line 3: label 'maybe' does not occur in the training part" in err


def test_the_labs_recipe_takes_own_sentences_too_and_draws_their_paths(unroll: Command, tmp_path: Path) -> None:
    write_reviews(tmp_path / "reviews.csv", 60)
    status, out, _ = unroll("train", "rnn-sentences", "--data", "reviews.csv", "--epochs", 2, "--log-every", 1)
    assert status == 0
    assert re.search(r"^Epoch \[2/2\] - Loss: \d+\.\d{4}$", out, re.M)
    assert "Test Accuracy" in out
    assert (tmp_path / "runs" / "rnn-sentences" / "figures" / "paths.png").is_file()


def test_rare_classes_weigh_as_much_as_common_ones_when_balanced(tmp_path: Path) -> None:
    from unroll.training.tasks import build_model

    text = "text,label\n" + "some words,a\n" * 6 + "other words,b\n" * 2
    (tmp_path / "a.csv").write_text(text)
    changes = {"data": str(tmp_path / "a.csv"), "test": 0, "validation": 0, "patience": None}
    changes["class_weights"] = "balanced"
    recipe = load_recipe("lstm-sentences", changes)
    dataset = load_dataset(recipe)
    head = build_model(recipe, dataset.encoder).head
    head.fit_to(dataset.train.y)
    weights = head.class_weights
    assert weights.tolist() == pytest.approx([8 / 12, 8 / 4])


@pytest.mark.parametrize(
    ("content", "arguments", "message"),
    [
        ("", [], "is empty"),
        ("text,label\na b,1\nc d,1\n", [], "have the label '1'"),
        ("review,label\na,1\n", [], "no column 'text'; its first line names 'review', 'label'"),
        ("text,label\na,1\n,0\n", [], "line 3: the sentence holds no word"),
        ("text,label\na,1\nb\n", [], "line 3: found 1 field"),
        ("text,label\na,1\na,0\n", ["--test", 0, "--validation", 0, "--patience", "none"], "vocabulary"),
        ("text,label\na,1\nb,0\n", ["--test-data", "absent.csv"], "absent.csv does not exist"),
    ],
)
def test_bad_sentences_meet_one_line_and_leave_nothing_behind(
    unroll: Command, tmp_path: Path, content: str, arguments: list[object], message: str
) -> None:
    (tmp_path / "own.csv").write_text(content)
    status, out, err = unroll("train", "lstm-sentences", "--data", "own.csv", "--min-count", 1, *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert err.startswith("unroll: ")
    assert [path.name for path in tmp_path.iterdir()] == ["own.csv"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("lowercase", "true"), ("class_weights", "balanced"), ("test", "0.5"), ("min_count", "2"), ("text_column", "a")],
)
def test_what_the_labs_sentences_would_ignore_is_refused(
    unroll: Command, tmp_path: Path, field: str, value: str
) -> None:
    status, out, err = unroll("train", "rnn-sentences", f"--{field.replace('_', '-')}", value)
    assert (status, out) == (2, "")
    shown = repr(value) if field == "text_column" else value
    assert err.startswith(f"unroll: {field} is {shown}, but there is no data; say")
    assert list(tmp_path.iterdir()) == []


def test_a_value_that_is_the_recipes_own_is_taken_without_data(unroll: Command) -> None:
    same = ["--lowercase", "false", "--class-weights", "none", "--test", "0.2"]
    assert unroll("train", "rnn-sentences", *same, "--no-figures")[0] == 0


def test_a_forgotten_file_of_sentences_is_asked_for(unroll: Command) -> None:
    status, _, err = unroll("train", "lstm-sentences")
    assert status == 2
    assert err.startswith("unroll: say where your sentences are with --data FILE")


# ---------------------------------------------------------------------------------------------------------- one's series


def save_waves(path: Path, count: int = 120, seed: int = 0) -> Path:
    """Sine waves, slow or fast, of unequal length, in a second feature noise; far from mean 0 and deviation 1."""
    draw = np.random.default_rng(seed)
    y = draw.integers(0, 2, count)
    lengths = draw.integers(15, 30, count)
    t = np.arange(30)
    waves = np.sin(t * np.where(y, 1.2, 0.4)[:, None] + draw.uniform(0, 6, (count, 1)))
    X = np.stack([500 + 40 * waves, draw.normal(-7, 0.01, waves.shape)], axis=-1)
    np.savez(path, X=X, y=np.array(["slow", "fast"])[y], lengths=lengths)
    return path


def test_own_series_go_from_file_to_prediction_in_two_commands(unroll: Command, tmp_path: Path) -> None:
    save_waves(tmp_path / "waves.npz")
    quick = ["--hidden-size", 12, "--epochs", 25, "--patience", "none", "--batch-size", 16, "--learning-rate", 0.02]
    status, out, err = unroll("train", "lstm-series", "--data", "waves.npz", *quick)
    assert (status, err) == (0, "")
    accuracy = re.search(r"^Test Accuracy: (.*)%$", out, re.M)
    assert accuracy is not None
    assert float(accuracy[1]) > 90

    save_waves(tmp_path / "new.npz", 20, seed=1)
    status, out, _ = unroll("predict", "runs/lstm-series", "new.npz")
    assert status == 0
    with np.load(tmp_path / "new.npz") as new:
        right = [f": {label}" in line for label, line in zip(new["y"], out.splitlines(), strict=True)]
        assert sum(right) >= 18
        predictions = package.load("runs/lstm-series").predict(
            [x[:length] for x, length in zip(new["X"], new["lengths"], strict=True)]
        )
    assert [f": {p.label}" in line for p, line in zip(predictions, out.splitlines(), strict=True)] == [True] * 20
    status, _, err = unroll("train", "lstm-series")
    assert status == 2
    assert "say where yours are with --data FILE" in err
