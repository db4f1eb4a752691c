"""Training in memory: what callbacks see and may do, and that nothing else happens."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from unroll.errors import InputError, TrainingError
from unroll.heads import Head
from unroll.models import SequenceClassifier, SequenceModel
from unroll.training import callbacks
from unroll.training.callbacks import Average, EarlyStopping
from unroll.training.evaluate import predictions, write_predictions
from unroll.training.fit import Callback, Settings, Training, fit
from unroll.training.recipe import ImageRecipe
from unroll.training.run import Classifier
from unroll.training.tasks import first_model
from unroll.training.train import fit_recipe, prepare


@pytest.fixture
def bars(bars_recipe):
    """A recipe with a held-out part, its data, and a fresh model."""
    recipe = bars_recipe(validation=0.25, epochs=4, device="cpu")
    dataset = prepare(recipe)
    return recipe, dataset, first_model(recipe, dataset.encoder)


class Watch(Callback):
    """Keeps what it is told, and stops after some epoch."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.seen: list[tuple] = []
        self.stop_after = stop_after

    def on_begin(self, training):
        self.seen.append(("begin", training.epoch))

    def on_step(self, training, step, loss):
        self.seen.append(("step", training.epoch, step))
        assert loss == training.losses[step - 1]

    def on_epoch(self, training, row):
        self.seen.append(("epoch", training.epoch, row["epoch"]))
        training.stop = row["epoch"] == self.stop_after

    def on_end(self, training):
        self.seen.append(("end", training.epoch))


def test_fit_tells_callbacks_every_step_and_epoch_in_order(bars):
    recipe, dataset, model = bars
    watch = Watch(stop_after=2)
    training = fit(model, dataset, Settings.of(recipe), [watch])
    steps = dataset.steps(recipe.batch_size)
    assert steps == 8  # 150 sequences in batches of 20
    one = [("step", 0, step) for step in range(1, steps + 1)]
    two = [("step", 1, step) for step in range(1, steps + 1)]
    assert watch.seen == [("begin", 0), *one, ("epoch", 1, 1), *two, ("epoch", 2, 2), ("end", 2)]
    assert training.epoch == 2
    assert training.seconds > 0


def test_fit_prints_and_writes_nothing(bars, tmp_path, monkeypatch, capfd):
    recipe, dataset, model = bars
    monkeypatch.chdir(tmp_path)
    fit(model, dataset, Settings.of(recipe), [Average(0.9), EarlyStopping(2)])
    assert capfd.readouterr() == ("", "")
    assert not list(Path(tmp_path).iterdir())


def test_fit_leaves_the_chosen_weights_in_the_model(bars):
    recipe, dataset, model = bars

    class Choose(Callback):
        def on_end(self, training):
            training.chosen = torch.full_like(training.optimizer.theta, 0.25)

    fit(model, dataset, Settings.of(recipe), [Choose()])
    assert all(bool((p == 0.25).all()) for p in model.parameters())


def test_fit_trains_a_model_in_float64_on_data_in_float32(bars):
    recipe, dataset, model = bars
    training = fit(model.double(), dataset, Settings.of(recipe))
    assert training.optimizer.theta.dtype == torch.float64
    assert training.losses[-1] < 1.0


def test_callbacks_may_change_the_gradients(bars):
    recipe, dataset, model = bars
    before = model.b_out.detach().clone()

    class Freeze(Callback):
        def on_gradients(self, training):
            assert training.model.b_out.grad.any()
            training.model.b_out.grad.zero_()

    fit(model, dataset, Settings.of(recipe), [Freeze()])
    assert torch.equal(model.b_out, before)


def test_fit_refuses_weights_that_are_no_numbers(bars):
    recipe, dataset, model = bars

    class Spoil(Callback):
        def on_epoch(self, training, row):
            if row["epoch"] == recipe.epochs:
                training.optimizer.theta[3] = torch.inf

    with pytest.raises(TrainingError, match="the last updates made weights that are NaN or infinite"):
        fit(model, dataset, Settings.of(recipe), [Spoil()])


def test_fit_is_what_fit_recipe_does_with_the_recipes_callbacks(bars_recipe):
    recipe = bars_recipe(validation=0.25, weight_average=0.8, patience=3, epochs=3)
    dataset = prepare(recipe)
    model = first_model(recipe, dataset.encoder)
    fit(model, dataset, Settings.of(recipe), [Average(0.8), EarlyStopping(3)])
    same = fit_recipe(recipe, dataset).model
    for one, other in zip(model.parameters(), same.parameters(), strict=True):
        assert torch.equal(one, other)


def test_settings_are_fields_of_recipes_with_their_usual_values():
    usual = ImageRecipe()
    for field in dataclasses.fields(Settings):
        assert getattr(usual, field.name) == field.default, field.name
    changed = ImageRecipe(epochs=7, max_norm=2.0, plain_epochs=3, device="cpu")
    found = Settings.of(changed)
    assert (found.epochs, found.max_norm, found.plain_epochs, found.device) == (7, 2.0, 3, "cpu")


def test_settings_of_unknown_names_are_refused(bars):
    recipe, dataset, model = bars
    for field, value in (("optimizer", "adm"), ("schedule", "cosin")):
        with pytest.raises(InputError, match=f"unknown {field} '{value}'; did you mean"):
            fit(model, dataset, dataclasses.replace(Settings.of(recipe), **{field: value}))


def test_callbacks_are_closed_however_training_ends(bars):
    recipe, dataset, model = bars
    closed = []

    class Break(Callback):
        def on_step(self, training, step, loss):
            raise KeyboardInterrupt

        def on_close(self, training):
            closed.append(training.epoch)

    with pytest.raises(KeyboardInterrupt):
        fit(model, dataset, Settings.of(recipe), [Break()])
    assert closed == [0]


def test_early_stopping_needs_a_held_out_part():
    with pytest.raises(InputError, match="early stopping needs a held-out part"):
        fit(SequenceClassifier("rnn", 2, 3, 2), prepare_pictures(), Settings(batch_size=2), [EarlyStopping(1)])


def test_a_wish_to_stop_is_not_taken_back(bars):
    recipe, dataset, model = bars
    training = fit(model, dataset, Settings.of(recipe), [Watch(stop_after=1), EarlyStopping(3)])
    assert training.epoch == 1


def test_devices_are_found_by_name(bars):
    from unroll.training.fit import find_device

    recipe, dataset, model = bars
    assert find_device("cpu") == torch.device("cpu")
    gpu = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert find_device("auto") == torch.device(gpu)
    with pytest.raises(InputError, match="unknown device 'gpu'; known: auto, cuda, mps, cpu"):
        fit(model, dataset, dataclasses.replace(Settings.of(recipe), device="gpu"))


def test_models_of_another_kind_are_trained_too():
    class Fitted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(()))

        def backward(self, x, y, lengths):
            loss = (self.w - 3) ** 2
            loss.backward()
            return loss

    data = prepare_pictures()
    training = fit(Fitted(), data, Settings(epochs=3, optimizer="sgd", learning_rate=0.1, batch_size=1))
    assert training.losses[-1] < training.losses[0] < 9


def prepare_pictures():
    """Ten labelled sequences without a held-out part."""
    from unroll.data.batches import Dataset, Sequences

    class Plain:
        class_names = ("a", "b")

        def features(self, values, generator=None):
            return values.transpose(0, 1)

    return Dataset(Plain(), Sequences(torch.randn(10, 4, 2), torch.arange(10) % 2), None, None)


def test_rows_hold_loss_rate_and_norm():
    rows = []

    class Keep(Callback):
        def on_epoch(self, training, row):
            rows.append(row)

    model = SequenceClassifier("rnn", 2, 3, 2)
    training = fit(model, prepare_pictures(), Settings(epochs=2, batch_size=4, schedule="cosine"), [Keep()])
    assert [row["epoch"] for row in rows] == [1, 2]
    assert rows[1]["loss"] == pytest.approx(sum(training.losses) / 3)
    assert rows[1]["learning_rate"] < rows[0]["learning_rate"] < 1e-3
    assert rows[1]["gradient_norm"] > 0
    assert rows[1]["seconds"] >= rows[0]["seconds"] >= 0
    assert "validation_loss" not in rows[0]


def test_progress_counts_all_steps_and_goes_away(bars, monkeypatch):
    recipe, dataset, model = bars
    made = {}

    class Bar:
        steps = 0

        def __init__(self, **options):
            made.update(options, bar=self)

        def update(self):
            self.steps += 1

        def close(self):
            made["closed"] = True

    monkeypatch.setattr(callbacks, "tqdm", Bar)
    fit(model, dataset, Settings.of(recipe), [callbacks.ProgressBar()])
    assert made["total"] == recipe.epochs * 8 == made["bar"].steps
    assert made["initial"] == 0
    assert made["leave"] is False
    assert made["unit_scale"] is True
    assert made["closed"]


def test_early_stopping_goes_on_with_the_best_loss_that_it_had(bars):
    recipe, dataset, model = bars
    stopping = EarlyStopping(3)
    training = Training(model, dataset, Settings.of(recipe), [stopping])
    stopping.on_begin(training)
    training.epoch = 2
    best = training.optimizer.theta.clone()
    stopping.restore({"best": best}, {"best_loss": 0.5, "best_epoch": 1}, training)
    assert (stopping.best_loss, stopping.best_epoch, training.stop) == (0.5, 1, False)
    stopping.restore({"best": best}, {"best_loss": None, "best_epoch": 0}, training)
    assert stopping.best_loss == float("inf")


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch):
    from unroll.training import distributed
    from unroll.training.fit import find_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert find_device("cuda") == torch.device("cuda")
    monkeypatch.setattr(distributed, "size", lambda: 2)
    assert find_device("cuda") == torch.device("cuda", 1)
    assert find_device("cpu") == torch.device("cpu")


class Mean(Head):
    """One number for each sequence, its class's number here: squared error. All that another task needs."""

    outputs, pooling, followed = 1, "mean", ("loss", "error")

    def loss(self, h, W, b, y, total, engine):
        return ((h @ W.T + b)[:, 0] - y).square().sum() / (total or len(y))

    def weight(self, y):
        return float(len(y))

    def decode(self, z):
        return z[:, 0]

    def metrics(self, predicted, y, names):
        error = predicted - y
        return {"loss": float(error.square().mean()), "error": float(error.abs().mean())}

    def summary(self, metrics):
        return f"Error: {metrics['error']:.3f}"

    def answer(self, predicted, names):
        return float(predicted)

    def examples(self, predicted, y):
        return {"worst": (predicted - y).abs().argsort(descending=True)[:3]}


def test_a_task_of_another_kind_is_trained_followed_and_tested(bars, tmp_path):
    recipe, dataset, _ = bars
    torch.manual_seed(0)
    model = SequenceModel("lstm", dataset.encoder.input_size, 8, Mean())
    printed, rows = [], []
    more = [EarlyStopping(50), callbacks.Printer(printed.append, "steps", 10**6), callbacks.Listener(rows.append)]
    fit(model, dataset, Settings(epochs=40, batch_size=20, learning_rate=0.01), more)
    assert rows[-1]["validation_error"] < 0.5 * rows[0]["validation_error"]
    assert printed[0].endswith(f"Validation Error: {rows[0]['validation_error']:.3f}")
    found = predictions(model, dataset.test, dataset.encoder)
    write_predictions(tmp_path / "predictions.npz", model.head, found, dataset.test)
    with np.load(tmp_path / "predictions.npz") as saved:
        error = np.abs(saved["p"] - saved["y"])
        assert error[saved["worst"]].tolist() == sorted(error, reverse=True)[:3]
        assert len(saved["shown_values"]) == 3
    answers = Classifier(model, dataset.encoder, recipe).predict(list(dataset.test.values[:2].numpy()))
    assert answers == pytest.approx(found[:2].tolist())
