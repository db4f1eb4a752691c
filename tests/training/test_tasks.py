"""What a recipe makes of its task: the size of the model."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from unroll.data.series import SeriesEncoder
from unroll.errors import RecipeError
from unroll.training import callbacks, tasks
from unroll.training.facts import facts
from unroll.training.recipe import load_recipe, parse_recipe
from unroll.training.run import RunFolder
from unroll.training.tasks import build_model, check_memory, load_dataset, load_test_part, parameter_count, read_inputs
from unroll.training.tasks import test_lines as printed_test
from unroll.training.train import train

ENCODER = SimpleNamespace(input_size=11, class_names=("a", "b", "c"))


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("embedding_size", [None, 5])
def test_the_parameters_are_counted_without_making_them(cell, num_layers, bidirectional, embedding_size):
    fields = {"cell": cell, "hidden_size": 7, "num_layers": num_layers, "bidirectional": bidirectional}
    recipe = parse_recipe({"task": "sentences", "embedding_size": embedding_size, **fields}, "test")
    made = sum(parameter.numel() for parameter in build_model(recipe, ENCODER).parameters())
    assert parameter_count(recipe, ENCODER) == made


@pytest.mark.parametrize(
    ("fields", "vectors"),
    [
        ({"optimizer": "adamw"}, 5),
        ({"optimizer": "sgd"}, 3),
        ({"optimizer": "sgd", "momentum": 0.9, "weight_average": 0.99}, 5),
    ],
)
def test_memory_is_asked_for_parameters_gradient_and_state(monkeypatch, fields, vectors):
    recipe = parse_recipe({"task": "images", **fields}, "test")
    needed = 4 * vectors * parameter_count(recipe, ENCODER)
    for there in (needed, None):  # None: a system that does not tell
        monkeypatch.setattr(tasks, "memory", lambda there=there: there)
        check_memory(recipe, ENCODER)
    monkeypatch.setattr(tasks, "memory", lambda: needed - 1)
    with pytest.raises(RecipeError, match="choose a smaller hidden_size or fewer num_layers"):
        check_memory(recipe, ENCODER)


def test_files_of_series_without_labels_are_read_for_predictions(tmp_path):
    recipe = parse_recipe({"task": "series", "data": "unused.csv"}, "test")
    path = tmp_path / "new.csv"
    path.write_text("id,time,a,b\nx,1,0.5,2\nx,2,0.25,3\ny,1,1,4\n")
    names, series = read_inputs(
        recipe, SeriesEncoder((0.0, 0.0), (1.0, 1.0), ("b", "a"), ("0", "1"), "none"), [str(path)]
    )
    assert len(names) == 2
    assert [one.tolist() for one in series] == [[[2, 0.5], [3, 0.25]], [[4, 1]]]


def test_what_was_read_is_printed_once_before_training(tiny_recipe, product):
    lines = product(tiny_recipe("series", epochs=1)).lines
    assert lines[0] == (
        "Read series.csv: 44 series of 4 to 8 steps; features: piece, tick, state, a, b; "
        "classes: 0 (22), 1 (11), 2 (11)"
    )
    assert [line.split("'")[:2] for line in lines[1:3]] == [["Warning: feature ", name] for name in ("piece", "state")]
    assert lines[3].startswith("Epoch ")
    lines = product(tiny_recipe("sentences", epochs=1)).lines
    assert lines[0].startswith("Read sentences.csv: 60 sentences of ")
    assert lines[0].endswith("classes: bad (15), good (45); not read: title, grade")
    assert lines[1].startswith("Epoch ")
    assert product(tiny_recipe("images", epochs=1)).lines[0].startswith("Epoch ")


def test_what_was_read_is_not_printed_again_where_a_run_goes_on(tiny_recipe, tmp_path, monkeypatch):
    def interrupt(row):
        raise KeyboardInterrupt

    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_SAVES", 0.0)
    recipe = tiny_recipe("series", epochs=2)
    folder, said = RunFolder.create(tmp_path / "run", recipe, {}), []
    with pytest.raises(KeyboardInterrupt):
        train(recipe, folder, echo=said.append, on_epoch=interrupt)
    train(recipe, folder, echo=said.append, resume=True)
    assert [line.startswith("Epoch ") for line in said[:4]] == [False, False, False, True]
    assert not [line for line in said[3:] if line.startswith(("Read ", "Warning: "))]
    assert len({line for line in said if line.startswith("Epoch [1/2]")}) == sum("[1/2]" in line for line in said)


def test_the_test_part_is_read_with_the_models_own_encoder(tiny_recipe):
    recipe = tiny_recipe("sentences")
    dataset = load_dataset(recipe)
    first, *others = dataset.encoder.words
    encoder = dataclasses.replace(dataset.encoder, words=(first, *reversed(others)))
    test = load_test_part(recipe, encoder, None)
    assert not torch.equal(test.values, dataset.test.values)
    assert encoder.words_of(test.values) == dataset.encoder.words_of(dataset.test.values)


def test_pictures_and_sentences_are_taken_as_they_are():
    recipe = parse_recipe({"task": "sentences", "data": "unused.csv"}, "test")
    assert read_inputs(recipe, ENCODER, ["a b", "c"]) == (["a b", "c"], ["a b", "c"])


def test_printed_predictions_are_each_sentences_own():
    recipe = load_recipe("rnn-sentences")
    dataset = load_dataset(recipe)
    p = torch.tensor([[0.9, 0.1], [0.8, 0.2]])
    assert [line.rpartition(" ")[2] for line in printed_test(recipe, dataset, p)[1:]] == ["0", "0"]
    assert [line.rpartition(" ")[2] for line in printed_test(recipe, dataset, p.flip(1))[1:]] == ["1", "1"]


def test_facts_name_the_processor_and_the_versions():
    found = facts()
    if Path("/proc/cpuinfo").exists():
        named = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        assert not named or named[0].endswith(found["processor"])
    assert found["torch"] == str(torch.__version__)
    assert found["threads"] == torch.get_num_threads()
    assert "processes" not in found
