"""Two processes that torchrun starts and that meet over loopback: they do what one process does."""

import json
import os
import random
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from unroll.data.batches import Batch
from unroll.training import distributed, fit
from unroll.training.recipe import load_recipe
from unroll.training.run import RunFolder
from unroll.training.tasks import first_model
from unroll.training.train import prepare, train

# What a worker does in place of `python -m unroll`. Each process has a current folder of its own, as it would on a machine
# of its own. It runs one command after the other: starting processes is what takes the time here.
WORKER = """
import json, os, signal, sys
import torch
from unroll.cli import main
from unroll.training import callbacks, fit

rank = os.environ["RANK"]
os.chdir(os.path.join(sys.argv[1], rank))
callbacks.SECONDS_BETWEEN_SAVES = 0.0
step, run = fit.Training.step, fit.Training.run

def interrupted(self, batch, number):
    if rank == "0" and number == int(os.environ.get("INTERRUPT_AT", -1)):
        os.kill(os.getppid(), signal.SIGINT)  # Ctrl-C, as torchrun gets it
        while True:
            pass  # until the signal comes back from there
    return step(self, batch, number)

def watched(self):
    run(self)
    torch.save(self.optimizer.theta, f"../theta{rank}.pt")

fit.Training.step, fit.Training.run = interrupted, watched
codes = []
for command in json.loads(sys.argv[2]):
    try:
        main(command)
    except SystemExit as end:
        codes.append(end.code)
    with open(f"../codes{rank}.json", "w") as file:
        json.dump(codes, file)
"""


def torchrun(*command, **environment):
    """Run a command in two processes."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *command]
    threads = {"OMP_NUM_THREADS": "1"}
    return subprocess.run(start, capture_output=True, text=True, timeout=300, env=os.environ | threads | environment)


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """Run a list of `unroll` commands, and say where: processes 0 and 1 stand in the folders 0 and 1 there."""

    def run(commands, place=None, **environment):
        if place is None:
            place = tmp_path_factory.mktemp("workers")
            (place / "0").mkdir()
            (place / "1").mkdir()
        commands = [[str(part) for part in command] for command in commands]
        start = ["--no-python", sys.executable, "-c", WORKER, str(place), json.dumps(commands)]
        done = torchrun(*start, **environment)
        return done, place

    return run


def options(fields):
    return [part for name, value in fields.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def alone(name, fields, path):
    """One process, for comparison."""
    recipe = load_recipe(name, fields)
    folder = RunFolder.create(path, recipe, {})
    train(recipe, folder, echo=lambda line: None)
    return folder


def contents(folder):
    """What must not depend on interruptions."""
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in folder.history()]
    return (folder.path / "model.safetensors").read_bytes(), (folder.path / "log.txt").read_text(), history


def assert_same_curve(one, two):
    for a, b in zip(one.history(), two.history(), strict=True):
        assert a.keys() == b.keys()
        assert [loss for _, loss in a["steps"]] == pytest.approx([loss for _, loss in b["steps"]], abs=1e-5)
        for name in a.keys() - {"steps", "seconds"}:
            assert a[name] == pytest.approx(b[name], abs=1e-5), name
    first, second = (load_file(folder.path / "model.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    for name, weights in first.items():
        torch.testing.assert_close(second[name], weights, rtol=0, atol=1e-5)


# --------------------------------------------------------------------------------------------------------- pictures

VARIED = {  # 149 pictures are left for training: the last batch holds 9, five for one process and four for the other
    "hidden_size": 12,
    "num_layers": 2,
    "rotation": 10.0,
    "translation": 1.0,
    "schedule": "one_cycle",
    "learning_rate": 0.01,
    "label_smoothing": 0.1,
    "weight_average": 0.99,
    "validation": 51,
    "patience": 3,
    "max_norm": 1.0,
    "batch_size": 20,
    "epochs": 4,
    "log_every": 1,
}


@pytest.fixture(scope="module")
def pictures(bars_folder, tmp_path_factory):
    """The same recipe in one process and in two, and what the two printed."""
    place, fields = tmp_path_factory.mktemp("pictures"), {**VARIED, "data": str(bars_folder)}
    one = alone("lstm-mnist", fields, place / "one")
    command = ["-m", "unroll", "train", "lstm-mnist", "--out", str(place / "runs" / "two"), "--no-figures"]
    done = torchrun(*command, *options(fields))
    assert done.returncode == 0, done.stderr
    return one, RunFolder(place / "runs" / "two"), done


@pytest.mark.slow
def test_two_processes_have_the_loss_curve_and_the_weights_of_one(pictures):
    one, two, _ = pictures
    assert_same_curve(one, two)
    assert one.metrics()["test"]["correct"] == two.metrics()["test"]["correct"]


@pytest.mark.slow
def test_two_processes_make_one_run_folder_and_print_once(pictures):
    one, two, done = pictures
    assert os.listdir(two.path.parent) == ["two"]
    assert sorted(os.listdir(two.path)) == sorted(os.listdir(one.path))
    assert done.stdout == (two.path / "log.txt").read_text() + f"Run folder: {two.path}\n"
    assert "Warning" not in done.stderr
    assert two.facts["processes"] == 2


@pytest.mark.slow
def test_interrupted_and_resumed_they_end_with_the_same_bits(pictures, workers, bars_folder):
    _, whole, _ = pictures
    fields = {**VARIED, "data": str(bars_folder)}
    begin = ["train", "lstm-mnist", "--out", "run", "--no-figures", *options(fields)]
    done, place = workers([begin], INTERRUPT_AT="19")
    assert done.stderr.count("interrupted") == 1
    assert "interrupted; go on with: unroll train --resume run\n" in done.stderr
    assert "unroll/training" not in done.stderr, "a traceback of ours"
    assert not RunFolder(place / "0" / "run").finished

    done, _ = workers([["train", "--resume", "run", "--no-figures"]], place)
    assert done.returncode == 0, done.stderr
    assert contents(RunFolder(place / "0" / "run")) == contents(whole)
    assert os.listdir(place / "1") == [], "only process 0 has files"
    assert torch.equal(torch.load(place / "theta0.pt"), torch.load(place / "theta1.pt"))


# ------------------------------------------------------------------------------------- sentences, and what goes wrong

RAGGED = {  # 41 sentences in batches of 8: one of the batches holds a single sentence, and a process has nothing to read
    "hidden_size": 6,
    "embedding_size": 5,
    "bidirectional": True,
    "pooling": "mean",
    "class_weights": "balanced",
    "label_smoothing": 0.1,
    "word_dropout": 0.1,
    "dropout": 0.0,
    "validation": 0,
    "patience": "none",
    "test": 10,
    "batch_size": 8,
    "epochs": 3,
    "log": "steps",
    "log_every": 1,
}


@pytest.fixture(scope="module")
def sentences(tmp_path_factory):
    draw, path = random.Random(0), tmp_path_factory.mktemp("sentences") / "sentences.tsv"
    known = ["the", "a", "film", "was", "is", "not", "very", "dull", "fine", "long"]
    rows = ["text\tlabel"]
    for number in range(51):
        words = [draw.choice(known) for _ in range(draw.randint(1, 12))]
        rows.append(f"{' '.join(words)}\t{'good' if number % 4 else 'bad'}")
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def several(workers, sentences, bars_folder, tmp_path_factory):
    """A run on sentences, then everything that goes wrong, in the same two processes."""
    place = tmp_path_factory.mktemp("several")
    for rank in "01":
        (place / rank).mkdir()
    (place / "0" / "only-here").symlink_to(bars_folder)
    (place / "0" / "data.tsv").write_text(sentences.read_text())
    (place / "1" / "data.tsv").write_text(sentences.read_text().replace("good", "fine", 1))
    (place / "0" / "file").touch()
    alone = ["train", "lstm-mnist", "--data", bars_folder, "--batch-size", "1", "--out", "b"]
    bars = ["train", "lstm-mnist", "--data", bars_folder, "--batch-size", "20", "--hidden-size", "4", "--out"]
    explode = ["--cell", "rnn", "--nonlinearity", "relu", "--optimizer", "sgd", "--learning-rate", "1e38"]
    wrong = {
        r"unroll: unknown recipe 'lstm-mnst'; did you mean 'lstm-mnist'\?": ["train", "lstm-mnst"],
        r"unroll: no such option '--hiden-size'; did you mean '--hidden-size'\?": [*bars, "a", "--hiden-size", "3"],
        r"unroll: batch_size is 1, but 2 processes share each batch; .*": alone,
        r"unroll: process 1 on \S+: .*only-here.*": ["train", "lstm-mnist", "--data", "only-here"],
        r"unroll: process 1 has other training data .*": [
            *("train", "lstm-sentences", "--data", "data.tsv", "--batch-size", "4", "--test", "2"),
        ],
        r"unroll: file cannot be a run folder: a file stands in the way": [*bars, "file"],
        r"unroll: the loss became (nan|inf) at epoch 1, step \d+; lower .*": [*bars, "exploded", *explode],
        r"unroll: run folder nowhere does not exist": ["train", "--resume", "nowhere"],
    }
    right = ["train", "lstm-sentences", "--out", "run", "--no-figures", *options({**RAGGED, "data": sentences})]
    done, _ = workers([right, *wrong.values()], place)
    return done, place, list(wrong)


@pytest.mark.slow
def test_ragged_sentences_with_class_weights_have_the_loss_curve_of_one_process(several, sentences, tmp_path):
    done, place, _ = several
    one = alone("lstm-sentences", {**RAGGED, "patience": None, "data": str(sentences)}, tmp_path / "one")
    assert_same_curve(one, RunFolder(place / "0" / "run"))
    assert "Warning" not in done.stderr
    assert sorted(os.listdir(place / "1")) == ["data.tsv"]


@pytest.mark.slow
def test_what_goes_wrong_is_said_once_and_ends_every_process_with_status_2(several):
    done, place, expected = several
    doubt, *said = [line for line in done.stderr.splitlines() if line.startswith("unroll:")]
    assert "no better than guessing" in doubt  # of the run that goes well, but is short
    assert len(said) == len(expected), done.stderr
    for line, pattern in zip(said, expected, strict=True):
        assert re.fullmatch(pattern, line), line
    for rank in "01":
        assert json.loads((place / f"codes{rank}.json").read_text()) == [0] + [2] * len(expected)
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------------------------------------------- without a group


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_shares_of_a_batch_make_it_up(size):
    lengths = torch.tensor([1, 2, 2, 3, 5])
    batch = Batch(torch.arange(30).view(6, 5), torch.arange(5), lengths)
    shares = [batch.share(rank, size) for rank in range(size)]
    assert sorted(torch.cat([share.y for share in shares]).tolist()) == [0, 1, 2, 3, 4]
    for share in shares:
        assert share.lengths is not None
        assert torch.equal(share.lengths, lengths[share.y])
        steps = max([1, *share.lengths.tolist()])
        assert torch.equal(share.x, batch.x[:steps, share.y])


def test_processes_draw_the_same_order_but_drop_different_units(bars_recipe, tmp_path, monkeypatch):
    recipe = bars_recipe(dropout=0.5)
    dataset = prepare(recipe)
    training = fit.Training(first_model(recipe, dataset.encoder), dataset, fit.Settings.of(recipe))
    training.epoch = 3
    orders, masks = [], []
    for rank in range(2):
        monkeypatch.setattr(distributed, "_rank", rank)
        orders.append(torch.randperm(50, generator=training._seed_epoch()))
        masks.append(torch.rand(50))
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(masks[0], masks[1])
