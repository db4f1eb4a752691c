"""ONNX: the same logits as the model's own, whatever it is made of; the card's snippets run."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from torch import nn

from tests.equations.cells import Coupled, LayerNormLSTM, Minimal, Odd, Own, Peephole, own
from unroll.cli import main
from unroll.data.images import ImageEncoder
from unroll.data.sentences import SentenceEncoder
from unroll.data.series import Fill, SeriesEncoder
from unroll.equations import read
from unroll.errors import InputError
from unroll.files import load_tensors, save_tensors
from unroll.layers import Recurrent, stack
from unroll.report import export
from unroll.report.card import card_text
from unroll.report.export import build_graph, check, export_onnx
from unroll.training.recipe import parse_recipe
from unroll.training.run import Classifier, RunFolder, load
from unroll.training.tasks import build_model
from unroll.training.tasks import test_inputs as own_inputs

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


def unread(graph) -> set[str]:
    """Constants that no node reads, of which ONNX Runtime warns everyone who loads the file."""
    graphs = [graph, *(a.g for node in graph.node for a in node.attribute if a.name == "body")]
    return {c.name for c in graph.initializer} - {name for g in graphs for node in g.node for name in node.input}


def run_cli(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit:
        main([str(argument) for argument in arguments])
    return exit.value.code


def classifier(task: str, encoder, kind=None, **changes) -> Classifier:
    """A model of a recipe's cell, or of cells of another `kind`."""
    recipe = parse_recipe({"task": task, "hidden_size": 5, **changes}, "test")
    torch.manual_seed(1)
    model = build_model(recipe, encoder)
    if kind is not None:
        first = model.layers.cells[0][0]
        layers = stack(partial(own, kind), first.input_size, 5, recipe.num_layers, model.layers.directions)
        model.layers = Recurrent(layers)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.8, 0.8)
    return Classifier(model, encoder, recipe)


@pytest.mark.parametrize("cell", ["lstm", "rnn", "gru"])
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
    assert unread(model.graph) == set()
    assert check(made, model.SerializeToString()).difference < 1e-5


@pytest.mark.parametrize(
    "kind", [LayerNormLSTM, Peephole, Coupled, Minimal, nn.GRUCell], ids=lambda kind: kind.__name__
)
@pytest.mark.parametrize("changes", MODELS, ids=str)
@pytest.mark.parametrize(
    ("task", "encoder", "more"),
    [("images", IMAGES, {}), ("sentences", WORDS, {"embedding_size": 4}), ("series", SERIES, {})],
)
def test_onnx_scans_cells_that_onnx_has_no_operator_for(kind, changes, task, encoder, more):
    made = classifier(task, encoder, kind, **changes, **more)
    model = build_graph(made)
    onnx.checker.check_model(model, full_check=True)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Scan") == changes.get("num_layers", 1) * (2 if "bidirectional" in changes else 1)
    assert unread(model.graph) == set()
    assert check(made, model.SerializeToString()).difference < 1e-5
    first, *_ = model.graph.input
    assert [axis.dim_param for axis in first.type.tensor_type.shape.dim][:2] == ["batch", "time"]


class Looked(Own):
    """Words are rows of a table."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__(D, H, W=(H, H), table=(D, H))

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        rows = nn.functional.embedding(x, self.table) if x.dim() == 1 else x
        return torch.tanh(h @ self.W.T + rows)


def test_onnx_looks_words_up_in_a_cell_that_reads_them():
    made = classifier("sentences", WORDS, Looked, pooling="mean")
    assert check(made, build_graph(made).SerializeToString()).difference < 1e-5


class Sorted(Own):
    def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        return h.sort(-1).values


class Drawn(Sorted):
    def initial_state(self, batch_size: int) -> torch.Tensor:
        return torch.arange(batch_size * 5.0).view(batch_size, 5)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            Sorted,
            r"^the cell of layer 1 cannot be exported, for its step cannot be read: \S*test_export\.py:\d+: .*sort$",
        ),
        (Drawn, "^the initial state of layer 1 differs between sequences; expected the same for all of them$"),
    ],
)
def test_onnx_of_a_cell_that_cannot_be_exported_is_refused_by_line(kind, said, monkeypatch):
    if kind is Drawn:
        monkeypatch.setattr(Drawn, "forward", lambda self, x, h: h * 0.5)
    with pytest.raises(InputError, match=said):
        build_graph(classifier("images", IMAGES, kind))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_onnx_operators_and_the_scan_of_the_same_cell_agree(cell, monkeypatch):
    made = classifier("series", SERIES, cell=cell, bidirectional=True, num_layers=2, pooling="max")
    by_operator = build_graph(made)
    monkeypatch.setattr(export, "OPERATORS", {})
    by_scan = build_graph(made)
    assert "Scan" in [node.op_type for node in by_scan.graph.node]
    x, lengths = np.random.default_rng(0).standard_normal((4, 9, 3)), np.array([9, 4, 1, 7])
    found = [
        onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            ["logits"], {"x": x, "lengths": lengths}
        )[0]
        for graph in (by_operator, by_scan)
    ]
    np.testing.assert_allclose(*found, rtol=1e-5, atol=1e-6)


AWKWARD = {  # mean and deviation of each feature, as they are out there
    "unix times": ((1.7e9 + 50.3, 0.0), (1.0, 1.0)),
    "latitude and longitude": ((52.520008, 13.404954), (1e-4, 2e-4)),
    "pressures in pascal": ((101325.0, 101325.0), (0.5, 30.0)),
    "nearly nothing and a lot": ((1e-30, -1e30), (1e-33, 1e27)),
}


@pytest.mark.parametrize("fill", get_args(Fill))
@pytest.mark.parametrize("scale", AWKWARD)
@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_series_of_any_scale_with_missing_values_are_read_as_predict_reads_them(scale, fill, pooling):
    mean, deviation = AWKWARD[scale]
    encoder = SeriesEncoder(mean, deviation, ("a", "b"), ("no", "yes"), fill)
    made = classifier("series", encoder, bidirectional=pooling == "mean", num_layers=2, pooling=pooling)
    model = build_graph(made)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    random = np.random.default_rng(1)
    raw = [mean + random.standard_normal((length, 2)) * deviation for length in (9, 4, 1, 9)]
    if fill != "none":
        raw[0][:3, 0] = np.nan  # from the beginning on
        raw[0][5:, 1] = np.nan  # to the end
        raw[1][1:3] = np.nan
        raw[2][:] = np.nan  # all, right behind a series that has values
    expected = [[*prediction.probabilities.values()] for prediction in made.predict(raw)]
    x = np.zeros((4, 9, 2))
    for row, values in zip(x, raw, strict=True):
        row[: len(values)] = values
    (p,) = session.run(["probabilities"], {"x": x, "lengths": np.array([len(values) for values in raw])})
    np.testing.assert_allclose(p, expected, atol=1e-6)
    assert check(made, model.SerializeToString()).difference < 1e-5


@pytest.mark.parametrize("fault", ["float32", "no filling"])
def test_the_check_notices_what_the_graph_does_otherwise(fault):
    fill = "last" if fault == "no filling" else "none"
    made = classifier("series", SeriesEncoder((1.7e9 + 50.3, 0.0), (1.0, 1.0), ("a", "b"), ("no", "yes"), fill))
    if fault == "float32":
        found = build_graph(made)
        rounded = np.array(made.encoder.mean, np.float32).astype(float)
        (mean,) = [constant for constant in found.graph.initializer if constant.name == "mean"]
        mean.CopyFrom(onnx.numpy_helper.from_array(rounded, "mean"))
    else:
        other = replace(made.encoder, fill_missing="none")
        found = build_graph(Classifier(made.model, other, made.recipe))
    assert not check(made, found.SerializeToString()).difference < 1e-3


@pytest.mark.parametrize("fill", get_args(Fill))
@pytest.mark.parametrize("changes", MODELS, ids=str)
@pytest.mark.parametrize("kind", [None, Odd], ids=str)
def test_what_predict_refuses_comes_out_as_nan(kind, fill, changes):
    made = classifier("series", replace(SERIES, fill_missing=fill), kind, **changes)
    session = onnxruntime.InferenceSession(build_graph(made).SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.ones((4, 4, 3))
    x[0, 1, 1] = np.nan
    x[1, 3, 2] = -np.inf
    x[2, 0, 0] = 1e300
    x[3, 3:] = np.nan  # behind the end
    (p,) = session.run(["probabilities"], {"x": x, "lengths": np.array([4, 4, 4, 3])})
    assert np.isnan(p[0]).all() == (fill == "none")
    assert np.isnan(p[1:3]).all()
    np.testing.assert_allclose(p[3], [*made.predict([x[3, :3]])[0].probabilities.values()], atol=1e-6)
    for refused in x[int(fill != "none") : 3]:
        with pytest.raises(InputError):
            made.predict([refused])


@pytest.fixture(scope="module")
def clock_run(tmp_path_factory):
    """A run on series of Unix times, some of them missing, that says which way the clock goes."""
    from unroll.training.train import train

    folder = tmp_path_factory.mktemp("clock")
    random = np.random.default_rng(0)
    y = np.arange(60) % 2
    X = 1.7e9 + np.where(y, 1, -1)[:, None] * np.arange(12) * 0.3 + random.normal(0, 0.3, (60, 12))
    X[random.random(X.shape) < 0.1] = np.nan
    np.savez(folder / "clock.npz", X=X, y=y, lengths=random.integers(8, 13, 60))
    fields = {
        "name": "clock",
        "data": str(folder / "clock.npz"),
        "test": 0.25,
        "fill_missing": "last",
        "hidden_size": 8,
    }
    recipe = parse_recipe({"task": "series", **fields, "epochs": 20, "learning_rate": 0.02, "batch_size": 9}, "test")
    train(recipe, RunFolder.create(folder / "run", recipe, {}), echo=lambda line: None)
    return folder / "run"


def test_export_compares_with_predict_on_the_runs_own_test_part(clock_run, tmp_path, capsys):
    assert RunFolder(clock_run).metrics()["test"]["accuracy"] > 0.9
    assert run_cli("export", clock_run, "--onnx", tmp_path / "clock.onnx") == 0
    said = capsys.readouterr().out
    assert re.search(
        r"\(largest difference to predict, on random inputs and 15 of its own test part: \d\.\de-\d\d\)", said
    )
    (own,) = [len(own_inputs(c.recipe, c.encoder, 200)) for c in [load(clock_run)]]
    assert own == 15


@pytest.mark.parametrize("now", ["gone", "of missing values"])
def test_export_works_where_the_data_are_no_longer_what_they_were(clock_run, tmp_path, capsys, now):
    moved, data = tmp_path / "run", tmp_path / "clock.npz"
    shutil.copytree(clock_run, moved)
    tensors, metadata = load_tensors(moved / "model.safetensors")
    if now != "gone":
        with np.load(metadata["recipe"]["data"]) as saved:
            np.savez(data, **saved)
    changes = {"data": str(data), "fill_missing": "none"}
    metadata["recipe"] |= changes
    metadata["encoder"]["fill_missing"] = "none"
    save_tensors(moved / "model.safetensors", tensors, metadata)
    saved = yaml.safe_load((moved / "recipe.yaml").read_text())
    (moved / "recipe.yaml").write_text(yaml.safe_dump({**saved, **changes}))
    assert run_cli("export", moved, "--onnx", tmp_path / "clock.onnx") == 0
    assert "on random inputs alone: " in capsys.readouterr().out


@pytest.mark.parametrize("difference", [2e-5, float("nan")])
def test_a_graph_that_differs_is_not_written(bars_run, tmp_path, capsys, monkeypatch, difference):
    monkeypatch.setattr(export, "check", lambda *given: export.Check(difference, 60))
    assert run_cli("export", bars_run, "--onnx", tmp_path / "made" / "model.onnx", "--card") == 2
    said = capsys.readouterr().err
    assert f"ONNX Runtime and predict differ by {difference:.1e}; expected at most 1e-05" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "made").exists()


def test_the_first_test_inputs_are_what_predict_takes(bars_run, sentences_run, clock_run):
    for run, count in ((bars_run, 60), (sentences_run, 2), (clock_run, 15)):
        found = load(run)
        own = own_inputs(found.recipe, found.encoder, 200)
        assert len(own) == count
        assert len(own_inputs(found.recipe, found.encoder, 2)) == 2
        with np.load(run / "predictions.npz") as saved:
            p = [[*prediction.probabilities.values()] for prediction in found.predict(own)]
            np.testing.assert_allclose(p, saved["p"], atol=1e-6)


def test_the_relu_network_keeps_its_nonlinearity():
    made = classifier("images", IMAGES, cell="rnn", nonlinearity="relu")
    assert check(made, build_graph(made).SerializeToString()).difference < 1e-5


def test_the_check_would_notice_gates_in_the_wrong_order():
    made = classifier("images", IMAGES)
    model = build_graph(made)
    with torch.no_grad():  # the graph keeps the weights it was built with
        made.model.layers.cells[0][0].W.copy_(made.model.layers.cells[0][0].W.roll(5, 0))
    assert check(made, model.SerializeToString()).difference > 1e-3


@pytest.mark.parametrize("kind", [None, LayerNormLSTM, nn.GRUCell], ids=str)
def test_padding_beyond_a_length_changes_nothing(kind):
    made = classifier("series", SERIES, kind, bidirectional=True, num_layers=2)
    session = onnxruntime.InferenceSession(build_graph(made).SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal((2, 9, 3))
    lengths = np.array([9, 4])
    found = []
    for padding in (0, 1e6, np.nan):
        x[1, 4:] = padding
        found.append(session.run(["logits"], {"x": x, "lengths": lengths})[0])
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])


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
    test, _ = load_images(bars_folder, "test")
    (p,) = session.run(["probabilities"], {"x": test.values.numpy().astype(np.float32)})
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


def test_the_card_of_a_cell_that_torch_has_no_layer_for_shows_its_equations(bars_recipe, tmp_path):
    from unroll.training.train import train

    recipe = bars_recipe(epochs=1, cell="gru")
    folder = RunFolder.create(tmp_path / "run", recipe, {})
    train(recipe, folder, echo=lambda line: None)
    card = card_text(folder)
    assert str(read(load(folder.path).model.layers.cells[0][0])) in card
    assert "torch.nn" not in card


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


def test_the_readmes_own_export_runs_in_the_folder_of_the_project(bars_run, tmp_path, monkeypatch):
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    found = re.search(r"`unroll (export [^`]*)`", readme)
    assert found is not None
    (tmp_path / "README.md").write_text(readme, encoding="utf-8")
    shutil.copytree(bars_run, tmp_path / "runs" / "lstm-mnist")
    monkeypatch.chdir(tmp_path)
    assert run_cli(*found[1].split()) == 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == readme


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
    assert not (tmp_path / "model.onnx").exists()
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
