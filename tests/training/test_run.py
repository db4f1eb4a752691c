"""Run folders, saved models and predictions."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import unroll
from unroll.errors import InputError, RunError
from unroll.files import load_tensors, save_tensors, write_atomically
from unroll.training.recipe import parse_recipe
from unroll.training.run import RunFolder, evaluate


def test_a_loaded_model_repeats_the_runs_own_test(bars_run):
    metrics = RunFolder(bars_run).metrics()["test"]
    again = evaluate(bars_run)
    assert again["confusion"] == metrics["confusion"]
    assert again["loss"] == pytest.approx(metrics["loss"], rel=1e-6)


def test_the_weights_file_alone_is_enough_to_predict(bars_run, tmp_path):
    alone = tmp_path / "anywhere.safetensors"
    alone.write_bytes((bars_run / "model.safetensors").read_bytes())
    with np.load(bars_run / "predictions.npz") as saved:
        pictures, numbers, p = saved["shown_values"], saved["one_of_each"], saved["p"]
    predictions = unroll.load(alone).predict(list(pictures[: len(numbers)]))
    for number, prediction in zip(numbers, predictions, strict=True):
        assert prediction.label == str(p[number].argmax())
        assert list(prediction.probabilities) == ["0", "1", "2"]
        np.testing.assert_allclose(list(prediction.probabilities.values()), p[number], atol=1e-6)


def test_saved_weights_carry_labels_normalisation_and_architecture(bars_run):
    with safe_open(bars_run / "model.safetensors", framework="pt") as file:
        metadata = json.loads(file.metadata()["unroll"])
    assert metadata["encoder"]["class_names"] == ["0", "1", "2"]
    assert 0 < metadata["encoder"]["mean"] < 1
    assert metadata["recipe"]["hidden_size"] == 12


def test_predictions_show_one_of_each_class_and_the_surest_mistakes_first(bars_run):
    with np.load(bars_run / "predictions.npz") as saved:
        p, y = saved["p"], saved["y"]
        assert y[saved["one_of_each"]].tolist() == [0, 1, 2]
        mistakes = saved["mistakes"]
    assert (p[mistakes].argmax(1) != y[mistakes]).all()
    assert (np.diff(p[mistakes].max(1)) <= 0).all()


def test_predicting_nothing_gives_nothing(bars_run):
    assert unroll.load(bars_run).predict([]) == []


@pytest.mark.parametrize("given", ["one.png", b"one.png", Path("one.png"), None, 5])
def test_predicting_what_is_no_list_is_refused(bars_run, given):
    with pytest.raises(InputError, match=r"^the inputs are .*; expected a list of them, such as \["):
        unroll.load(bars_run).predict(given)


@pytest.mark.parametrize("given", [None, 5, [], b"x", ""])
def test_what_is_no_path_is_no_run(given):
    for reader in (unroll.load, RunFolder):
        with pytest.raises(InputError, match=r"^the run is .*; expected the path of a run folder"):
            reader(given)
    with pytest.raises(InputError, match=r"^the (model|run) is .*; expected "):
        unroll.trace(given, torch.zeros(1, 1, 1))


def test_a_damaged_model_is_named(bars_run, tmp_path):
    path = tmp_path / "model.safetensors"
    content = (bars_run / "model.safetensors").read_bytes()
    for broken in (content[:-100], b"", b"\x80\x04no pickle is ever read"):
        path.write_bytes(broken)
        with pytest.raises(RunError, match=r"model\.safetensors is damaged or no safetensors file"):
            unroll.load(path)


def test_weights_of_another_architecture_are_refused(bars_run, tmp_path):
    tensors, metadata = load_tensors(bars_run / "model.safetensors")
    metadata["recipe"]["hidden_size"] = 13
    save_tensors(tmp_path / "model.safetensors", tensors, metadata)
    with pytest.raises(
        RunError, match=r"belongs to another architecture: W_out is \(3, 12\) there, .* makes it \(3, 13\)"
    ):
        unroll.load(tmp_path / "model.safetensors")


def test_a_safetensors_file_from_elsewhere_is_refused(tmp_path):
    save_tensors(tmp_path / "other.safetensors", {"a": torch.zeros(2)}, {})
    with pytest.raises(RunError, match="is no model of this package"):
        unroll.load(tmp_path / "other.safetensors")


def test_what_is_no_run_folder_is_named(tmp_path):
    with pytest.raises(RunError, match=r"run folder .*nowhere does not exist"):
        RunFolder(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"is not a run folder: it holds no recipe\.yaml"):
        RunFolder(tmp_path)


def test_a_folder_with_something_in_it_is_not_written_to(bars_recipe, tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(RunError, match="is not empty; name another folder with --out"):
        RunFolder.create(tmp_path, bars_recipe(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file.txt"
    write_atomically(path, "first")

    with pytest.raises(TypeError):
        write_atomically(path, [1, 2])
    assert path.read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", b'{"parameters": 3'),
        ("metrics.json", b"{}"),
        ("metrics.json", b"\xff"),
        ("history.jsonl", b'{"epoch": 1, "loss": 0.5}\n{"epoch": 2, "lo'),
        ("history.jsonl", b"\xff"),
        ("predictions.npz", b""),
    ],
)
def test_a_damaged_file_of_a_run_is_named(bars_run, tmp_path, name, content):
    folder = RunFolder(shutil.copytree(bars_run, tmp_path / "run"))
    (folder.path / name).write_bytes(content)
    with pytest.raises(RunError, match=rf"{name} is damaged"):
        {"metrics.json": folder.metrics, "history.jsonl": folder.history, "predictions.npz": folder.predictions}[name]()


def test_the_model_of_another_run_is_refused(bars_run, tmp_path):
    folder = shutil.copytree(bars_run, tmp_path / "run")
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("learning_rate: 0.02", "learning_rate: 0.03"))
    with pytest.raises(RunError, match=r"model\.safetensors belongs to another run"):
        unroll.load(folder)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00r", b"a: [", b"- 1"])
def test_a_run_whose_recipe_is_damaged_is_refused(bars_run, tmp_path, content):
    folder = shutil.copytree(bars_run, tmp_path / "run")
    (folder / "recipe.yaml").write_bytes(content)
    with pytest.raises(RunError, match=r"recipe\.yaml"):
        RunFolder(folder).recipe  # noqa: B018 - reading it is the test


def test_a_run_is_finished_with_its_metrics_and_its_model(tmp_path):
    recipe = parse_recipe({"task": "images"}, "test")
    folder = RunFolder.create(tmp_path / "run", recipe, {})
    assert not folder.finished
    (folder.path / "metrics.json").write_text("{}")
    assert not folder.finished
    (folder.path / "model.safetensors").write_bytes(b"")
    assert folder.finished
    (folder.path / "metrics.json").unlink()
    assert not folder.finished
