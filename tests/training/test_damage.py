"""Files of a run that are not what training wrote: each is used as it is meant, or refused in one line."""

from __future__ import annotations

import io
import json
import random
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import unroll
from unroll.errors import RunError, UnrollError
from unroll.files import load_tensors, save_tensors
from unroll.report.compare import compare
from unroll.training import callbacks
from unroll.training.run import RunFolder
from unroll.training.train import prepare, train

RUNS = Path(__file__).parent.parent / "fixtures" / "runs-0.1"
SAID = 1500  # characters of the longest message
VALUES = [None, True, 0, -1, 1.5, 10**12, 10**30, 1e308, float("nan"), "", "x", "\ud800", [], {}, ["a", 1], {"a": 1}]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where in a JSON value something stands."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, inner in pairs for place in [(*path, key), *places(inner, (*path, key))]]


def with_other_metadata(metadata: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """One entry away, one more, or another value in the place of one."""
    changed: dict[str, Any] = json.loads(json.dumps(metadata))
    *path, last = chance.choice(places(changed))
    inner: Any = changed
    for key in path:
        inner = inner[key]
    how = chance.choice("-+====")
    if how == "-":
        del inner[last]
    elif how == "+" and isinstance(inner, dict):
        inner["more"] = chance.choice(VALUES)
    else:
        inner[last] = chance.choice(VALUES)
    return changed


def with_other_bytes(content: bytes, chance: random.Random) -> bytes:
    """Bits turned over, bytes away or more of them, mostly in the header."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 3, 20])):
        at = chance.randrange(min(len(changed), chance.choice([10, 2500, 10**9])))
        how = chance.choice("^^^-+")
        if how == "^":
            changed[at] ^= 1 << chance.randrange(8)
        elif how == "-":
            del changed[at : at + chance.randrange(1, 30)]
        else:
            changed[at:at] = chance.randbytes(3)
    return bytes(changed)


def mutants(source: Path, target: Path, count: int, seed: int) -> Any:
    """Write one damaged `source` after the other to `target`; whether the metadata alone were changed."""
    chance = random.Random(seed)
    content, (tensors, metadata) = source.read_bytes(), load_tensors(source)
    for _ in range(count):
        if chance.random() < 0.6:
            save_tensors(target, tensors, with_other_metadata(metadata, chance))
            yield True
        else:
            target.write_bytes(with_other_bytes(content, chance))
            yield False


def check_message(error: UnrollError) -> None:
    assert "\n" not in str(error)
    assert len(str(error)) < SAID


@pytest.mark.parametrize("name", ["lstm-mnist", "lstm-sentences", "lstm-series", "rnn-sentences"])
def test_a_damaged_model_is_loaded_or_refused(tmp_path, name):
    target, loaded = tmp_path / "model.safetensors", 0
    for _ in mutants(RUNS / name / "model.safetensors", target, 100, 13):
        try:
            loaded += len(unroll.load(target).class_names) >= 2
        except UnrollError as error:
            check_message(error)
    assert 0 < loaded < 50  # a text may be another, and some fields do not matter to a trained model


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run of the RNN lab that was interrupted in its fourth epoch, its recipe and data."""
    from unroll.training.recipe import load_recipe

    changes = {"epochs": 4, "optimizer": "adam", "weight_average": 0.9, "log_every": 1}
    recipe = load_recipe("rnn-sentences", changes)
    folder, dataset = RunFolder.create(tmp_path_factory.mktemp("interrupted") / "run", recipe, {}), prepare(recipe)

    def interrupt(row: dict[str, Any]) -> None:
        if row["epoch"] == 4:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks, "SECONDS_BETWEEN_SAVES", 0.0)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, folder, echo=lambda line: None, dataset=dataset, on_epoch=interrupt)
    return folder.path, recipe, dataset


def test_a_damaged_save_is_gone_on_with_or_refused(interrupted, tmp_path):
    source, recipe, dataset = interrupted
    whole = shutil.copytree(source, tmp_path / "whole")
    train(recipe, RunFolder(whole), echo=lambda line: None, dataset=dataset, resume=True)
    weights = (whole / "model.safetensors").read_bytes()
    gone_on = 0
    (tmp_path / "run").mkdir()
    for metadata_alone in mutants(source / "resume.safetensors", tmp_path / "mutant", 80, 13):
        run = shutil.copytree(source, tmp_path / "run", dirs_exist_ok=True)
        for name in ("metrics.json", "model.safetensors", "predictions.npz"):
            (run / name).unlink(missing_ok=True)
        shutil.move(tmp_path / "mutant", run / "resume.safetensors")
        threads = torch.get_num_threads()
        try:
            train(recipe, RunFolder(run), echo=lambda line: None, dataset=dataset, resume=True)
        except UnrollError as error:
            check_message(error)
            continue
        finally:
            torch.set_num_threads(threads)
        assert metadata_alone  # any other damage is noticed
        assert (run / "model.safetensors").read_bytes() == weights
        gone_on += 1
    assert 0 < gone_on < 30


@pytest.mark.parametrize("bit", [0, 4, 31])
@pytest.mark.parametrize("name", ["theta", "optimizer.steps", "average.average"])
def test_one_bit_of_a_saved_tensor_is_noticed(interrupted, tmp_path, name, bit):
    source, recipe, dataset = interrupted
    run = shutil.copytree(source, tmp_path / "run")
    path = run / "resume.safetensors"
    content = bytearray(path.read_bytes())
    header = int.from_bytes(content[:8], "little")
    begin, _ = json.loads(content[8 : 8 + header])[name]["data_offsets"]
    content[8 + header + begin + bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"resume\.safetensors is damaged: its content does not fit its checksum"):
        train(recipe, RunFolder(run), echo=lambda line: None, dataset=dataset, resume=True)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_layers", 10**12, "num_layers is 1000000000000; expected less than or equal to 1000"),
        ("num_layers", 1000, r"layers\.cells\.1\.0\.U is absent there"),
        ("hidden_size", 1_000_000, r"W_out is \(3, 8\) there, but the recipe makes it \(3, 1000000\)"),
        ("task", ["images"], r"the task of its recipe is \['images'\]"),
        ("task", "series", "have no field"),
    ],
)
def test_a_models_recipe_is_compared_before_anything_is_built(tmp_path, field, value, message):
    tensors, metadata = load_tensors(RUNS / "lstm-mnist" / "model.safetensors")
    metadata["recipe"][field] = value
    save_tensors(tmp_path / "model.safetensors", tensors, metadata)
    began = time.process_time()
    with pytest.raises(UnrollError, match=message):
        unroll.load(tmp_path / "model.safetensors")
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("name", "field", "value", "message"),
    [
        ("lstm-mnist", "columns", 10**30, "a size or a scale that none can have"),
        ("lstm-mnist", "std", 0.0, "a size or a scale that none can have"),
        ("lstm-mnist", "std", float("nan"), "encoder.std is nan; expected a finite number"),
        ("lstm-mnist", "rows", "8", "encoder.rows is '8'; expected a valid integer"),
        ("lstm-mnist", "class_names", ["0", "1", "1"], "class_names holds the same text twice"),
        ("lstm-mnist", "class_names", ["0", "1", "\ud800"], "half of a character"),
        ("lstm-mnist", "colour", 1, "encoder.colour is no entry that this version knows"),
        ("lstm-series", "deviation", [1.0], "mean, deviation and features differ in number"),
        ("lstm-sentences", "max_length", -1, "the encoder's max_length is not that of the recipe"),
        ("lstm-sentences", "words", None, "encoder.words is None; expected a valid tuple"),
    ],
)
def test_an_encoder_that_makes_no_sense_is_refused(tmp_path, name, field, value, message):
    tensors, metadata = load_tensors(RUNS / name / "model.safetensors")
    metadata["encoder"][field] = value
    save_tensors(tmp_path / "model.safetensors", tensors, metadata)
    with pytest.raises(UnrollError, match=re.escape(message)):
        unroll.load(tmp_path / "model.safetensors")


def test_weights_that_are_no_numbers_are_refused(tmp_path):
    tensors, metadata = load_tensors(RUNS / "lstm-mnist" / "model.safetensors")
    for values in (torch.full_like(tensors["b_out"], torch.nan), tensors["b_out"].int()):
        save_tensors(tmp_path / "model.safetensors", tensors | {"b_out": values}, metadata)
        with pytest.raises(RunError, match="b_out holds what is no finite number"):
            unroll.load(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["metrics.json", "history.jsonl"])
def test_a_damaged_table_is_read_or_refused(tmp_path, name):
    run = shutil.copytree(RUNS / "lstm-mnist", tmp_path / "run")
    path, chance, read = run / name, random.Random(13), 0
    text = path.read_text(encoding="utf-8")
    for number in range(150):
        if number % 2:
            path.write_bytes(with_other_bytes(text.encode(), chance))
        else:
            lines = [text] if name == "metrics.json" else text.splitlines()
            lines[-1] = json.dumps(with_other_metadata(json.loads(lines[-1]), chance))
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        try:
            compare([RunFolder(run), RunFolder(RUNS / "lstm-mnist-best")])
            read += 1
        except UnrollError as error:
            check_message(error)
    assert 0 < read < 100


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([1, 2], None),
        ([1, 2, 2], "line 3 is of epoch 2, expected 3"),
        ([1], None),
        ([2], "line 1 is of epoch 2, expected 1"),
    ],
)
def test_a_history_holds_every_epoch_once(tmp_path, lines, message):
    run = RunFolder(shutil.copytree(RUNS / "lstm-mnist", tmp_path / "run"))
    path = run.path / "history.jsonl"
    rows = dict(enumerate(path.read_text(encoding="utf-8").splitlines(), start=1))
    path.write_text("".join(rows[number] + "\n" for number in lines), encoding="utf-8")
    if message is None:
        assert [row["epoch"] for row in run.history()] == lines
    else:
        with pytest.raises(RunError, match=message):
            run.history()


def test_a_history_whose_last_line_is_cut_is_refused(tmp_path):
    run = RunFolder(shutil.copytree(RUNS / "lstm-mnist", tmp_path / "run"))
    path = run.path / "history.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(
        RunError, match=r"history\.jsonl is damaged: line 2 is cut off; go on with: unroll train --resume"
    ):
        run.history()


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("p", lambda p: p[:-1]),
        ("p", lambda p: p.astype("U3")),
        ("p", lambda p: p[0]),
        ("p", lambda p: np.full_like(p, np.nan)),
        ("y", lambda y: y + 1),
        ("y", lambda y: y.astype(float)),
        ("one_of_each", lambda numbers: numbers + 1000),
        ("mistakes", lambda numbers: numbers - 1000),
        ("shown_values", lambda values: values[:-1]),
        ("shown_lengths", lambda lengths: lengths + 1),
        ("y", None),
    ],
)
def test_predictions_that_do_not_fit_each_other_are_refused(tmp_path, name, change):
    run = RunFolder(shutil.copytree(RUNS / "lstm-mnist", tmp_path / "run"))
    saved = run.predictions()
    changed = {key: array for key, array in saved.items() if key != name}
    if change is not None:
        changed[name] = change(saved[name])
    content = io.BytesIO()
    np.savez(content, **changed)
    (run.path / "predictions.npz").write_bytes(content.getvalue())
    with pytest.raises(RunError, match=r"predictions\.npz is damaged: .*; train the run again"):
        run.predictions()
