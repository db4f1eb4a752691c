"""Training: printed lines, the same bits from the same seed, and going on after an interruption."""

import errno
import json
import math
import os
import re
import signal
import subprocess
import sys

import pytest
import torch

from unroll.engines import native
from unroll.errors import RecipeError, RunError, TrainingError
from unroll.files import load_tensors
from unroll.training import callbacks, fit
from unroll.training import train as training_train
from unroll.training.evaluate import evaluated
from unroll.training.run import LOCK, RunFolder, load
from unroll.training.tasks import first_model
from unroll.training.train import prepare, train


def run(recipe, path, **options):
    lines = []
    folder = RunFolder.create(path, recipe, {})
    metrics = train(recipe, folder, echo=lines.append, **options)
    return folder, metrics, lines


def contents(folder):
    """What must not depend on how often a run was interrupted; times and times only are left out."""
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in folder.history()]
    return (folder.path / "model.safetensors").read_bytes(), (folder.path / "log.txt").read_text(), history


def test_the_printed_lines_are_the_labs(bars_recipe, tmp_path):
    folder, metrics, lines = run(bars_recipe(epochs=2), tmp_path / "run")
    number = r"\d\.\d{4}"
    patterns = [
        rf"Epoch \[1/2\], Step \[5/10\], Loss: {number}",
        rf"Epoch \[1/2\], Step \[10/10\], Loss: {number}",
        rf"Epoch \[1/2\], Average Loss: {number}",
        rf"Epoch \[2/2\], Step \[5/10\], Loss: {number}",
        rf"Epoch \[2/2\], Step \[10/10\], Loss: {number}",
        rf"Epoch \[2/2\], Average Loss: {number}",
        r"Test Accuracy: \d+\.\d\d%",
    ]
    assert len(lines) == len(patterns)
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern, line), line
    assert (folder.path / "log.txt").read_text().splitlines() == lines
    assert lines[-1] == f"Test Accuracy: {100 * metrics['test']['accuracy']:.2f}%"
    assert lines[2] == f"Epoch [1/2], Average Loss: {folder.history()[0]['loss']:.4f}"


def test_average_loss_is_the_mean_of_all_steps(bars_recipe, tmp_path):
    folder, _, _ = run(bars_recipe(log_every=1, epochs=1), tmp_path / "run")
    (row,) = folder.history()
    losses = [loss for _, loss in row["steps"]]
    assert len(losses) == 10
    assert row["loss"] == pytest.approx(sum(losses) / 10)


def test_it_learns(bars_recipe, tmp_path):
    _, metrics, _ = run(bars_recipe(), tmp_path / "run")
    assert metrics["test"]["accuracy"] > 0.95


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(bars_recipe, tmp_path):
    first = contents(run(bars_recipe(seed=3, dropout=0.2), tmp_path / "a")[0])
    again = contents(run(bars_recipe(seed=3, dropout=0.2), tmp_path / "b")[0])
    other = contents(run(bars_recipe(seed=4, dropout=0.2), tmp_path / "c")[0])
    assert first == again
    assert first[0] != other[0]


VARIED = {
    "dropout": 0.3,
    "num_layers": 2,
    "rotation": 10.0,
    "translation": 1.0,
    "schedule": "one_cycle",
    "weight_average": 0.99,
    "validation": 0.2,
    "patience": 5,
    "max_norm": 1.0,
    "batch_size": 16,
    "epochs": 4,
}


@pytest.mark.parametrize("interrupted_at", [0, 3, 10, 17, 39])
def test_an_interrupted_run_ends_with_the_bits_of_an_uninterrupted_one(
    bars_recipe, tmp_path, monkeypatch, interrupted_at
):
    recipe = bars_recipe(**VARIED)
    whole = contents(run(recipe, tmp_path / "whole")[0])

    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_SAVES", 0.0)
    step, taken = fit.Training.step, 0

    def interrupt(self, batch, number):
        nonlocal taken
        if taken == interrupted_at:
            raise KeyboardInterrupt
        taken += 1
        return step(self, batch, number)

    monkeypatch.setattr(fit.Training, "step", interrupt)
    folder = RunFolder.create(tmp_path / "broken", recipe, {})
    with pytest.raises(KeyboardInterrupt):
        train(recipe, folder, echo=lambda line: None)
    assert not folder.finished

    monkeypatch.setattr(fit.Training, "step", step)
    torch.rand(7)  # whatever the generator's state is when it goes on
    train(folder.recipe, folder, echo=lambda line: None, resume=True)
    assert contents(folder) == whole
    assert not (folder.path / "resume.safetensors").exists()


KILLED = """
import os, signal, sys
from unroll.training import callbacks, fit
from unroll.cli import main
callbacks.SECONDS_BETWEEN_SAVES = 0.0
step, last = fit.Training.step, int(sys.argv[1])

def killed(self, batch, number):
    if number == last:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, number)

fit.Training.step = killed
main(sys.argv[2:])
"""


@pytest.mark.slow
def test_a_killed_process_goes_on_to_the_same_bits(bars_folder, tmp_path):
    fields = ["--data", str(bars_folder), "--hidden-size", "12", "--batch-size", "20", "--epochs", "6"]
    fields += ["--log-every", "5", "--dropout", "0.2"]

    def run_until(last, *arguments):
        command = [sys.executable, "-c", KILLED, str(last), "train", "--no-figures", *arguments]
        return subprocess.run(command, capture_output=True).returncode

    assert run_until(-1, "lstm-mnist", "--out", str(tmp_path / "a"), *fields) == 0
    # In the third epoch of ten steps each.
    assert run_until(25, "lstm-mnist", "--out", str(tmp_path / "b"), *fields) == -signal.SIGKILL
    assert not RunFolder(tmp_path / "b").finished
    assert run_until(-1, "--resume", str(tmp_path / "b")) == 0
    assert contents(RunFolder(tmp_path / "b")) == contents(RunFolder(tmp_path / "a"))


def test_a_full_disk_loses_nothing_that_was_saved(bars_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_SAVES", 0.0)
    recipe = bars_recipe()
    whole = contents(run(recipe, tmp_path / "whole")[0])
    folder = RunFolder.create(tmp_path / "full", recipe, {})
    sync, calls = os.fsync, 0

    def full(handle):
        nonlocal calls
        calls += 1
        if calls > 3:  # log.txt, history.jsonl and resume.safetensors are written once
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        train(recipe, folder, echo=lambda line: None)
    assert load_tensors(folder.path / "resume.safetensors")[1]["position"]["epoch"] == 1
    assert not [name for name in os.listdir(folder.path) if name.startswith(".") and name != LOCK]
    monkeypatch.setattr(os, "fsync", sync)
    train(recipe, folder, echo=lambda line: None, resume=True)
    assert contents(folder) == whole


def test_resuming_with_another_recipe_is_refused(bars_recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_SAVES", 0.0)
    recipe = bars_recipe()
    folder = RunFolder.create(tmp_path / "run", recipe, {})
    outcome = training_train.outcome
    monkeypatch.setattr(training_train, "outcome", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(recipe, folder, echo=lambda line: None)
    monkeypatch.setattr(training_train, "outcome", outcome)
    text = (folder.path / "recipe.yaml").read_text()
    (folder.path / "recipe.yaml").write_text(text.replace("hidden_size: 12", "hidden_size: 13"))
    with pytest.raises(RunError, match=r"hidden_size was 12 when training began and is 13 in recipe\.yaml now"):
        train(folder.recipe, folder, echo=lambda line: None, resume=True)


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_step(bars_recipe, tmp_path):
    recipe = bars_recipe(optimizer="sgd", learning_rate=1e38, cell="rnn", nonlinearity="relu")
    folder = RunFolder.create(tmp_path / "run", recipe, {})
    with pytest.raises(TrainingError, match=r"the loss became (nan|inf) at epoch 1, step \d+; lower learning_rate"):
        train(recipe, folder, echo=lambda line: None)
    assert (folder.path / "recipe.yaml").is_file()


def test_a_batch_larger_than_the_set_is_refused(bars_recipe, tmp_path):
    with pytest.raises(RecipeError, match=r"batch_size is 201, but there are only 200 training sequences"):
        prepare(bars_recipe(batch_size=201))


def test_held_out_images_are_the_last_ones_and_are_not_trained_on(bars_recipe):
    dataset = prepare(bars_recipe(validation=50))
    everything = prepare(bars_recipe()).train
    assert len(dataset.train) == 150
    assert torch.equal(dataset.validation.values, everything.values[150:])
    assert torch.equal(dataset.train.values, everything.values[:150])


def test_averaged_weights_are_what_is_saved_and_tested(bars_recipe, tmp_path):
    recipe = bars_recipe(weight_average=0.9)
    folder, metrics, _ = run(recipe, tmp_path / "run")
    thetas = []

    class Watch(fit.Callback):
        def on_step(self, training, step, loss):
            thetas.append(training.optimizer.theta.clone())

    dataset = prepare(recipe)
    model = first_model(recipe, dataset.encoder)
    average = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    training_train.fit_recipe(recipe, dataset, [Watch()])
    for t, theta in enumerate(thetas):
        average.lerp_(theta, 1 - min(0.9, (1 + t) / (10 + t)))
    saved = load(folder.path)
    torch.testing.assert_close(torch.cat([p.detach().reshape(-1) for p in saved.model.parameters()]), average)
    assert evaluated(saved.model, dataset.test, dataset.encoder)["loss"] == metrics["test"]["loss"]


def test_without_a_test_the_test_set_is_not_looked_at(bars_recipe, tmp_path):
    folder, metrics, lines = run(bars_recipe(epochs=1), tmp_path / "run", test=False)
    assert "test" not in metrics
    assert not (folder.path / "predictions.npz").exists()
    assert not [line for line in lines if "Test" in line]


def test_tensorboard_files_hold_the_losses(bars_recipe, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder, _, _ = run(bars_recipe(), tmp_path / "run", tensorboard=True)
    events = event_accumulator.EventAccumulator(str(folder.path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx([row["loss"] for row in folder.history()])


def test_metrics_hold_times_and_size(bars_recipe, tmp_path):
    folder, metrics, _ = run(bars_recipe(), tmp_path / "run")
    assert json.loads((folder.path / "metrics.json").read_text())["test"]["confusion"] == metrics["test"]["confusion"]
    assert metrics["parameters"] == 4 * 12 * (12 + 8 + 1) + 3 * 12 + 3
    assert math.isfinite(metrics["seconds"]["training"])


def test_every_epoch_is_told_and_what_the_listener_raises_ends_the_run(bars_recipe, tmp_path):
    told = []

    def listen(row):
        told.append(row)
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    recipe = bars_recipe(epochs=4, validation=0.25)
    folder = RunFolder.create(tmp_path / "run", recipe, {})
    with pytest.raises(KeyboardInterrupt):
        train(recipe, folder, echo=lambda line: None, on_epoch=listen)
    assert told == folder.history()
    assert [row["epoch"] for row in told] == [1, 2]
    assert not folder.finished


@pytest.mark.skipif(native.available() is not None, reason=str(native.available()))
def test_both_engines_train_alike(bars_recipe, tmp_path):
    losses = []
    for engine in ("reference", "native"):
        folder, _, _ = run(bars_recipe(engine=engine, epochs=2, log_every=1), tmp_path / engine)
        losses.append([loss for row in folder.history() for _, loss in row["steps"]])
    assert len(losses[0]) == 20
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
