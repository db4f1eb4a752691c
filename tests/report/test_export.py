"""ONNX: the same logits as the model's own, whatever it is made of; the card's snippets run."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml

from unroll.cli import main
from unroll.data.images import ImageEncoder
from unroll.data.sentences import SentenceEncoder
from unroll.data.series import SeriesEncoder
from unroll.report.card import card_text
from unroll.report.export import build_graph, check, export_onnx
from unroll.training.recipe import parse_recipe
from unroll.training.run import Classifier, RunFolder, load
from unroll.training.tasks import build_model

WORDS = SentenceEncoder(("[unknown]", "a", "b", "c", "d", "e"), ("0", "1", "2"))
IMAGES = ImageEncoder(("0", "1", "2"), 28, 9, 0.13, 0.31)
SERIES = SeriesEncoder((1.0, -20.0, 0.0), (0.5, 7.0, 1.0), ("x", "y", "z"), ("no", "yes"))
MODELS = [
    {},
    {"num_layers": 2},
    {"bidirectional": True},
    {"num_layers": 3, "bidirectional": True},
    {"pooling": "mean", "bidirectional": True},
    {"pooling": "max", "num_layers": 2},
]


def run_cli(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit:
        main([str(argument) for argument in arguments])
    return exit.value.code


def classifier(task: str, encoder, **changes) -> Classifier:
    recipe = parse_recipe({"task": task, "hidden_size": 5, **changes}, "test")
    torch.manual_seed(1)
    model = build_model(recipe, encoder)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.8, 0.8)
    return Classifier(model, encoder, recipe)


@pytest.mark.parametrize("cell", ["lstm", "rnn"])
@pytest.mark.parametrize("changes", MODELS, ids=str)
@pytest.mark.parametrize(
    ("task", "encoder", "more"),
    [
        ("images", IMAGES, {}),
        ("sentences", WORDS, {}),
        ("sentences", WORDS, {"embedding_size": 4}),
        ("series", SERIES, {}),
    ],
)
def test_onnx_runtime_gives_the_models_own_logits(cell, changes, task, encoder, more):
    made = classifier(task, encoder, cell=cell, **changes, **more)
    model = build_graph(made)
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count(cell.upper()) == changes.get("num_layers", 1)
    assert check(made, model.SerializeToString()).difference < 1e-5


def test_the_relu_network_keeps_its_nonlinearity():
    made = classifier("images", IMAGES, cell="rnn", nonlinearity="relu")
    assert check(made, build_graph(made).SerializeToString()).difference < 1e-5


def test_the_check_would_notice_gates_in_the_wrong_order():
    made = classifier("images", IMAGES)
    model = build_graph(made)
    with torch.no_grad():  # the graph keeps the weights it was built with
        made.model.layers.cells[0][0].W.copy_(made.model.layers.cells[0][0].W.roll(5, 0))
    assert check(made, model.SerializeToString()).difference > 1e-3


def test_padding_beyond_a_length_changes_nothing():
    made = classifier("series", SERIES, bidirectional=True, num_layers=2)
    session = onnxruntime.InferenceSession(build_graph(made).SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((2, 9, 3)).astype(np.float32)
    other = x.copy()
    other[1, 4:] = 1e6
    lengths = np.array([9, 4])
    first, second = (session.run(["logits"], {"x": part, "lengths": lengths})[0] for part in (x, other))
    np.testing.assert_array_equal(first, second)


def test_batch_and_time_are_free_and_probabilities_add_up(bars_run, tmp_path):
    path = tmp_path / "made" / "model.onnx"
    assert export_onnx(RunFolder(bars_run), path) == check(load(bars_run), path.read_bytes())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", "time", 8]
    for B, T in ((1, 8), (4, 8), (3, 21)):
        (p,) = session.run(["probabilities"], {"x": np.full((B, T, 8), 128, np.float32)})
        assert p.shape == (B, 3)
        np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)


def test_raw_pixels_give_the_saved_predictions(bars_run, bars_folder, tmp_path):
    from unroll.data.images import load_images

    path = tmp_path / "model.onnx"
    export_onnx(RunFolder(bars_run), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    test = load_images(bars_folder, "test")
    (p,) = session.run(["probabilities"], {"x": test.images.numpy().astype(np.float32)})
    with np.load(bars_run / "predictions.npz") as saved:
        np.testing.assert_allclose(p, saved["p"], atol=1e-5)


def snippets(card: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


@pytest.mark.parametrize("changes", [{}, {"num_layers": 2, "bidirectional": True}, {"cell": "rnn"}], ids=str)
def test_the_cards_torch_snippet_makes_a_layer_with_the_same_outputs(bars_recipe, tmp_path, monkeypatch, changes):
    from unroll.training.train import train

    recipe = bars_recipe(epochs=1, **changes)
    folder = RunFolder.create(tmp_path / "run", recipe, {})
    train(recipe, folder, echo=lambda line: None)
    monkeypatch.chdir(folder.path)
    (snippet,) = [text for text in snippets(card_text(folder)) if "torch.nn." in text]
    made: dict = {}
    exec(snippet, made)
    theirs = made[recipe.cell]
    x = torch.randn(7, 3, 8)
    torch.testing.assert_close(theirs(x)[0], load(folder.path).model.layers(x)[0], atol=1e-5, rtol=1e-5)


def test_the_card_has_the_metadata_that_sharing_sites_read(bars_run, tmp_path):
    out = tmp_path / "share"
    assert run_cli("export", bars_run, "--onnx", out / "model.onnx", "--card") == 0
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "model.onnx", "model.safetensors"]
    card = (out / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---")[1])
    accuracy = RunFolder(bars_run).metrics()["test"]["accuracy"]
    assert metadata["pipeline_tag"] == "image-classification"
    assert metadata["model-index"][0]["results"][0]["metrics"][0]["value"] == accuracy
    assert f"{100 * accuracy:.2f}%" in card
    assert load(out / "model.safetensors").class_names == load(bars_run).class_names
    assert run_cli("export", bars_run, "--onnx", out / "model.onnx", "--card") == 0  # again, over its own


def test_the_cards_onnx_snippet_runs(bars_run, tmp_path, monkeypatch):
    export_onnx(RunFolder(bars_run), tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    (snippet,) = [text for text in snippets(card_text(RunFolder(bars_run), "model.onnx")) if "onnxruntime" in text]
    made: dict = {"x": np.zeros((2, 8, 8), np.float32)}
    exec(snippet, made)
    assert made["probabilities"].shape == (2, 3)


def test_a_readme_of_ones_own_is_never_overwritten(bars_run, tmp_path, capsys):
    (tmp_path / "README.md").write_text("# My project\n")
    assert run_cli("export", bars_run, "--onnx", tmp_path / "model.onnx", "--card") == 2
    assert "would be lost" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == "# My project\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "say what to write"),
        (["--onnx", "model.pt"], "ends in .onnx"),
        (["--onnx", "/dev/null/x.onnx"], "cannot be written"),
    ],
)
def test_bad_input_is_one_line(bars_run, capsys, arguments, said):
    assert run_cli("export", bars_run, *arguments) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1


def test_an_unfinished_run_cannot_be_exported(bars_run, copied, tmp_path, capsys):
    run = copied(bars_run)
    (run / "model.safetensors").unlink()
    assert run_cli("export", run, "--onnx", tmp_path / "model.onnx") == 2
    assert "no trained model" in capsys.readouterr().err
    assert not Path(tmp_path / "model.onnx").exists()
