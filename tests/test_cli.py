"""The command line: what is printed, and that bad input meets one line and exit status 2."""

import gc
import io
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unroll.training.run import RunFolder

SMALL = ["--hidden-size", "8", "--batch-size", "20", "--epochs", "1"]


def test_training_fills_a_run_folder_named_after_the_recipe(unroll, bars_folder):
    status, out, err = unroll("train", "lstm-mnist", "--data", bars_folder, *SMALL, "--seed", "4")
    assert (status, err) == (0, "")
    assert re.search(r"^Test Accuracy: \d+\.\d\d%$", out, re.M)
    assert out.splitlines()[-1] == "Run folder: runs/lstm-mnist"
    folder = RunFolder("runs/lstm-mnist")
    assert folder.recipe.seed == 4
    assert folder.recipe.hidden_size == 8
    assert {path.name for path in folder.path.glob("[!.]*")} == {
        "recipe.yaml",
        "history.jsonl",
        "log.txt",
        "metrics.json",
        "model.safetensors",
        "predictions.npz",
        "figures",
    }
    assert folder.facts["torch"]
    status, out, _ = unroll("train", "lstm-mnist", "--data", bars_folder, *SMALL, "--no-figures")
    assert out.splitlines()[-1] == "Run folder: runs/lstm-mnist-2"


def test_figures_are_drawn_as_png_and_svg(bars_run):
    for name in ("loss", "confusion", "digits"):
        with Image.open(bars_run / "figures" / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 5
        assert (bars_run / "figures" / f"{name}.svg").read_text().rstrip().endswith("</svg>")


def test_evaluate_prints_accuracy_interval_and_classes(unroll, bars_run):
    status, out, err = unroll("evaluate", bars_run)
    assert (status, err) == (0, "")
    test = RunFolder(bars_run).metrics()["test"]
    lines = out.splitlines()
    assert lines[0] == f"Test Accuracy: {100 * test['accuracy']:.2f}%"
    low, high = (100 * bound for bound in test["interval95"])
    assert lines[1] == f"95% interval: {low:.2f}% to {high:.2f}% ({test['correct']} of 60 correct)"
    assert len(lines) == 5
    status, out, _ = unroll("evaluate", bars_run, "--json")
    assert json.loads(out)["confusion"] == test["confusion"]


def test_evaluate_takes_another_data_set(unroll, bars_run, tmp_path, bars_folder):
    for path in bars_folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with np.load(bars_run / "predictions.npz") as saved:
        predicted = saved["p"].argmax(1)
    labels = tmp_path / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:8] + bytes(predicted.tolist()))
    status, out, _ = unroll("evaluate", bars_run, "--data", tmp_path)
    assert status == 0
    assert out.startswith("Test Accuracy: 100.00%\n")


def test_predict_names_the_class_of_a_picture(unroll, bars_run, tmp_path):
    picture = np.full((40, 40), 255, np.uint8)
    picture[10:30, 20:40] = 0
    Image.fromarray(picture).save(tmp_path / "block.png")
    Image.fromarray(picture[:30]).save(tmp_path / "wide.png")
    expected = "unroll: wide.png: is 40 x 30 pixels, and the model reads 8 x 8; cut it to these proportions\n"
    assert unroll("predict", bars_run, "wide.png") == (2, "", expected)
    status, out, err = unroll("predict", bars_run, "block.png")
    assert (status, err) == (0, "")
    assert re.fullmatch(r"block\.png: [012]  \(\d \d+\.\d%  \d \d+\.\d%  \d \d+\.\d%\)\n", out)
    status, out, _ = unroll("predict", bars_run, "--json", "block.png", "block.png")
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 2
    assert sum(rows[0]["probabilities"].values()) == pytest.approx(1, abs=1e-6)
    assert rows[0]["label"] == max(rows[0]["probabilities"], key=rows[0]["probabilities"].get)


def test_recipes_are_listed_with_what_they_are_for(unroll):
    status, out, _ = unroll("recipes")
    assert status == 0
    assert re.search(r"^lstm-mnist-template +the lab's starting point$", out, re.M)


def test_info_names_the_engine(unroll):
    status, out, _ = unroll("info")
    assert status == 0
    from unroll.engines import native

    assert f"engine: {native.describe()}" in out.splitlines()


def test_help_does_not_import_torch():
    code = "import sys; from unroll.cli import main\ntry: main(['--help'])\nfinally: print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "No such command 'trian'"),
        (["train"], "name a recipe, as in: unroll train lstm-mnist"),
        (["train", "lstm-mnst"], "unknown recipe 'lstm-mnst'; did you mean 'lstm-mnist'?"),
        (["train", "lstm-mnist", "--hiden-size", "3"], "no such option '--hiden-size'; did you mean '--hidden-size'?"),
        (["train", "lstm-mnist", "--hidden-size", "0"], "hidden_size is 0; expected greater than or equal to 1"),
        (["train", "lstm-mnist", "--learning-rate", "-1e-3"], "learning_rate is -0.001; expected greater than 0"),
        (["train", "lstm-mnist", "--embedding-size", "3"], "images have no field 'embedding_size'"),
        (["train", "lstm-mnist", "--data", "nowhere"], "nowhere"),
        (["train", "--resume", "nowhere"], "run folder nowhere does not exist"),
        (["train", "lstm-mnist", "--resume", "nowhere"], "--resume takes the run folder alone"),
        (["evaluate", "nowhere"], "run folder nowhere does not exist"),
        (["evaluate", "."], "is not a run folder: it holds no recipe.yaml"),
        (["predict", "."], "Missing argument 'INPUTS...'"),
    ],
)
def test_bad_input_meets_one_line_and_exit_status_2(unroll, tmp_path, arguments, message):
    status, out, err = unroll(*arguments)
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("unroll: ")
    assert message in err
    assert not list(tmp_path.iterdir())


def test_bad_data_files_meet_one_line_and_leave_nothing_behind(unroll, bars_folder, tmp_path):
    for change in ("truncate", "remove", "count"):
        folder = tmp_path / change
        folder.mkdir()
        for path in bars_folder.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        images = folder / "train-images-idx3-ubyte"
        if change == "truncate":
            images.write_bytes(images.read_bytes()[:-1])
        elif change == "remove":
            images.unlink()
        else:
            images.write_bytes((folder / "t10k-images-idx3-ubyte").read_bytes())
        status, out, err = unroll("train", "lstm-mnist", "--data", folder, *SMALL)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert "train-images-idx3-ubyte" in err or "train-images" in err
        assert not Path("runs").exists()


def test_a_batch_larger_than_the_set_leaves_nothing_behind(unroll, bars_folder):
    status, _, err = unroll("train", "lstm-mnist", "--data", bars_folder, "--batch-size", "201")
    assert status == 2
    assert err == (
        "unroll: batch_size is 201, but there are only 200 training sequences; "
        "choose a smaller one, such as --batch-size 128\n"
    )
    assert not Path("runs").exists()


def test_a_loss_that_is_no_number_keeps_the_folder(unroll, bars_folder):
    fields = ["--optimizer", "sgd", "--learning-rate", "1e38", "--cell", "rnn", "--nonlinearity", "relu"]
    status, _, err = unroll("train", "lstm-mnist", "--data", bars_folder, "--max-norm", "none", *SMALL, *fields)
    assert status == 2
    assert re.search(
        r"^unroll: the loss became (nan|inf) at epoch 1, step \d+; lower learning_rate or set max_norm", err
    )
    assert Path("runs/lstm-mnist/recipe.yaml").is_file()


def test_what_is_no_picture_is_named(unroll, bars_run, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    status, out, err = unroll("predict", bars_run, "text.png")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "text.png" in err


def test_a_finished_run_is_not_resumed(unroll, bars_run):
    status, _, err = unroll("train", "--resume", bars_run)
    assert status == 2
    assert "is finished; there is nothing to resume" in err


def test_an_interruption_says_how_to_go_on(unroll, bars_folder, monkeypatch):
    from unroll.training import fit

    def interrupt(self, batch, step):
        raise KeyboardInterrupt

    monkeypatch.setattr(fit.Training, "step", interrupt)
    status, _, err = unroll("train", "lstm-mnist", "--data", bars_folder, *SMALL)
    assert status == 130
    assert err == "interrupted; go on with: unroll train --resume runs/lstm-mnist\n"


def test_a_run_finds_its_data_from_any_folder(unroll, bars_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(bars_folder)
    unroll("train", "lstm-mnist", "--data", ".", "--out", tmp_path / "run", "--no-figures", *SMALL)
    monkeypatch.chdir(tmp_path)
    status, out, _ = unroll("evaluate", "run")
    assert (status, out[:14]) == (0, "Test Accuracy:")


def test_a_folder_that_cannot_be_made_meets_one_line(unroll, bars_folder, tmp_path):
    for out in ("/proc/none", "a" * 300):
        status, _, err = unroll("train", "lstm-mnist", "--data", bars_folder, *SMALL, "--out", out)
        assert (status, err.count("\n")) == (2, 1)


@pytest.mark.parametrize("size", [["--hidden-size", 10**6], ["--num-layers", 1000, "--hidden-size", 10**5]])
def test_a_model_larger_than_the_memory_is_refused_before_it_is_made(unroll, bars_folder, size):
    status, out, err = unroll("train", "lstm-mnist", "--data", bars_folder, "--batch-size", "20", *size)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert re.match(r"unroll: not enough memory: [\d,]+ parameters, with .*, take [\d,]+ GB, and this machine has", err)
    assert not Path("runs").exists()


@pytest.mark.parametrize(("option", "most"), [("--hidden-size", "1000000"), ("--num-layers", "1000")])
def test_a_size_that_no_machine_holds_is_refused_at_once(unroll, option, most):
    for size in (int(most) + 1, 10**200):
        status, out, err = unroll("train", "lstm-mnist", option, size)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert f"expected less than or equal to {most}" in err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_no_memory_for_the_first_step_leaves_nothing_behind(unroll, bars_folder, monkeypatch, error):
    from unroll.training import fit

    def run_out(self, batch, step):
        raise error

    monkeypatch.setattr(fit.Training, "step", run_out)
    status, out, err = unroll("train", "lstm-mnist", "--data", bars_folder, *SMALL)
    assert (status, out) == (2, "")
    assert err == "unroll: not enough memory for a model or batch of this size; choose smaller sizes\n"
    assert not Path("runs").exists()
    Path("empty").mkdir()
    unroll("train", "lstm-mnist", "--data", bars_folder, *SMALL, "--out", "empty")
    assert not list(Path("empty").iterdir())


def test_no_memory_later_keeps_what_has_been_trained(unroll, bars_folder, monkeypatch):
    from unroll.training import train

    def run_out(*_):
        raise MemoryError

    monkeypatch.setattr(train, "outcome", run_out)
    status, _, err = unroll("train", "lstm-mnist", "--data", bars_folder, *SMALL)
    assert (status, err.count("\n")) == (2, 1)
    assert Path("runs/lstm-mnist/history.jsonl").read_text().count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "lstm-mnist", "--out", ""],
        ["memory", "--out", ""],
        ["ablate", "RUN", "--out", " "],
        ["report", "RUN", "--out", ""],
        ["compare", "RUN", "RUN", "--figure", ""],
    ],
)
def test_an_empty_name_to_write_to_is_not_the_default(unroll, bars_run, tmp_path, arguments):
    status, out, err = unroll(*[bars_run if argument == "RUN" else argument for argument in arguments])
    option = arguments[-2]
    assert (status, out) == (2, "")
    assert err == f"unroll: {option} is empty; expected a value, or leave it out\n"
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def sentence_run(tmp_path_factory):
    """A run of the RNN lab, one epoch long."""
    from unroll.training.recipe import load_recipe
    from unroll.training.train import train

    recipe = load_recipe("rnn-sentences", {"epochs": 1})
    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "sentences", recipe, {})
    train(recipe, folder, echo=lambda line: None)
    return folder.path


def test_a_file_of_sentences_is_not_taken_for_a_sentence(unroll, sentence_run, monkeypatch):
    Path("movies.txt").write_text("The movie is good\nThe movie is bad\n")
    status, out, err = unroll("predict", sentence_run, "The movie is good", "movies.txt")
    assert (status, out) == (2, "")
    assert err == (
        f"unroll: movies.txt is a file, and {sentence_run} reads sentences; "
        f"to read it line by line: unroll predict {sentence_run} - < movies.txt\n"
    )
    with open("movies.txt") as file:
        monkeypatch.setattr(sys, "stdin", file)
        status, out, _ = unroll("predict", sentence_run, "-")
    assert (status, out.count("\n")) == (0, 2)


def test_an_error_while_predicting_stands_alone(unroll, sentence_run):
    status, out, err = unroll("predict", sentence_run, "The sushi is good")
    assert (status, err) == (0, "unroll: not in the vocabulary, left out: sushi\n")
    status, out, err = unroll("predict", sentence_run, "The sushi is good", "sushi")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "not in the vocabulary, left out" not in err


def given_on_stdin(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))


def test_stdin_is_utf8_with_or_without_byte_order_mark_whatever_the_locale(unroll, sentence_run, monkeypatch):
    given_on_stdin(monkeypatch, "\ufeffThe movie is good\n\nThe caf\u00e9 is bad\n".encode())
    status, out, err = unroll("predict", sentence_run, "-")
    assert (status, err) == (0, "unroll: not in the vocabulary, left out: caf\u00e9\n")
    assert [line.split(": ")[0] for line in out.splitlines()] == ["The movie is good", "The caf\u00e9 is bad"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"good\n\ncaf\xe9\n", "stdin, line 3: byte 0xe9 is not UTF-8; give text in the encoding UTF-8"),
        (b"good\n\nsushi\n", "stdin, line 3 holds no word of the vocabulary: 'sushi'"),
    ],
)
def test_a_bad_line_of_stdin_is_named_by_its_number(unroll, sentence_run, monkeypatch, content, message):
    given_on_stdin(monkeypatch, content)
    status, out, err = unroll("predict", sentence_run, "-")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"unroll: {message}")


@pytest.mark.parametrize("command", ["predict", "look"])
def test_arguments_that_are_not_utf8_are_refused(unroll, sentence_run, command):
    status, out, err = unroll(command, sentence_run, "good \udcff")
    assert (status, out) == (2, "")
    assert err == (
        "unroll: sentence 1 holds \\udcff, which is half of a character; expected text that UTF-8 can hold\n"
    )


def test_a_figure_that_cannot_be_drawn_does_not_fail_the_run(unroll, bars_folder, monkeypatch):
    def fail(folder):
        raise ValueError("no font\nat all")

    monkeypatch.setattr("unroll.report.figures.draw_figures", fail)
    status, out, err = unroll("train", "lstm-mnist", "--data", bars_folder, *SMALL)
    assert (status, out.splitlines()[-1]) == (0, "Run folder: runs/lstm-mnist")
    assert err == ("unroll: the run is complete, but its figures could not be drawn (ValueError: no font at all)\n")


@pytest.mark.parametrize("recipe", ["lstm-mnist", "lstm-mnst"])
def test_a_command_leaves_the_garbage_collector_as_it_was(unroll, bars_folder, recipe):
    status, _, _ = unroll("train", recipe, "--data", bars_folder, *SMALL, "--no-figures")
    assert status == (0 if recipe == "lstm-mnist" else 2)
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("batch", "held_out", "said"),
    [
        (
            64,
            199,
            "validation is 199, which leaves 1 training sequence, fewer than one batch (64); choose a smaller validation",
        ),
        (
            64,
            0.9,
            "validation is 0.9, which leaves 20 training sequences, fewer than one batch (64); choose a smaller validation",
        ),
        (
            199,
            2,
            "batch_size is 199, but there are only 198 training sequences; choose a smaller one, such as --batch-size 128",
        ),
        (
            300,
            199,
            "batch_size is 300, but there is only 1 training sequence; choose a smaller one, such as --batch-size 1",
        ),
    ],
)
def test_whichever_leaves_no_whole_batch_is_blamed(unroll, bars_folder, batch, held_out, said):
    words = ["train", "lstm-mnist", "--data", bars_folder, "--batch-size", batch, "--validation", held_out]
    assert unroll(*words) == (2, "", f"unroll: {said}\n")


@pytest.mark.parametrize(("field", "value"), [("translation", "8"), ("elastic", "40")])
def test_pictures_are_not_moved_out_of_themselves(unroll, bars_folder, field, value):
    said = f"{field} is {value} pixels, and the pictures have 8 x 8; expected fewer than 8, such as {field} 2"
    words = ["train", "lstm-mnist", "--data", bars_folder, f"--{field}", value]
    assert unroll(*words) == (2, "", f"unroll: {said}\n")
    assert not Path("runs").exists()


@pytest.mark.parametrize(("rate", "warned"), [("50", True), ("0.02", False)])
def test_a_training_that_ends_in_nonsense_is_warned_of(unroll, bars_folder, rate, warned):
    fields = [
        "--hidden-size",
        "8",
        "--batch-size",
        "20",
        "--epochs",
        "2",
        "--learning-rate",
        rate,
        "--max-norm",
        "none",
    ]
    status, _, err = unroll("train", "lstm-mnist", "--data", bars_folder, "--no-figures", *fields)
    assert status == 0
    assert bool(err) == warned
    if warned:
        assert re.fullmatch(
            r"unroll: the training loss ended at [\d.]+, no better than guessing among 3 classes \(1.099\); "
            "lower learning_rate, or train for more epochs\n",
            err,
        )


@pytest.mark.parametrize(
    ("losses", "steps", "warned"),
    [
        ([2.3148], [], True),  # one update
        ([2.31], [[100, 2.31]], True),
        ([2.9], [[100, 9.0], [200, 0.4]], False),  # a bad beginning
        ([2.29], [], False),
        ([9.0, 2.29], [], True),
        ([9.0, 2.2], [], False),
    ],
)
def test_the_last_loss_is_compared_with_guessing(losses, steps, warned):
    from unroll.cli import _no_better_than_guessing

    history = [{"loss": loss, "steps": steps} for loss in losses]
    assert (_no_better_than_guessing(history, 10) is not None) == warned


@pytest.mark.parametrize("stream", ["file", "none"])
def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(monkeypatch, capsys, stream):
    from unroll import options

    moments = iter([0.0, *[time for second in range(1, 10) for time in [10.0 * second] * 2], *[100.0] * 20])
    monkeypatch.setattr(options.time, "monotonic", lambda: next(moments))
    if stream == "none":
        monkeypatch.setattr(sys, "stderr", None)
    assert list(options.progress("trainings")(range(9))) == list(range(9))
    if stream == "file":
        lines = capsys.readouterr().err.splitlines()
        assert 2 <= len(lines) <= 6
        assert all(re.fullmatch(r"unroll: \d of 9 trainings", line) for line in lines)


@pytest.mark.parametrize(
    "address", ["postgresql://u:s3cret@h/d", "postgresql://h/d?password=s3cret", "http://u:s3 cret@h"]
)
@pytest.mark.parametrize(
    "words", ["tune X", "tune lstm-mnist X", "train X", "X", "info X", "train lstm-mnist --hidden-size X", "report X"]
)
def test_no_message_shows_the_password_of_an_address(unroll, address, words):
    status, out, err = unroll(*[address if word == "X" else word for word in words.split()])
    assert (status, out) == (2, "")
    assert err.startswith("unroll: ")
    assert "***" in err
    assert "cret" not in err


def test_a_password_is_hidden_where_an_address_is_cut():
    from unroll.errors import InputError, quoted

    address = f"postgresql://u:{'s3cret' * 100}@h/d"
    for message in (f"unknown {quoted(address)}", f"unknown {address!r}", f"{'x' * 200} {address}"):
        assert "s3cret" not in str(InputError(message))


def test_long_values_and_lists_are_shortened_in_messages():
    from unroll.errors import LONGEST, InputError, nearest, quoted

    message = str(InputError(f"begin {'x' * 100_000} end"))
    assert len(message) == LONGEST
    assert message.startswith("begin xxx")
    assert message.endswith("xxx end")
    assert len(nearest("x" * 100_000, [f"name {n}" for n in range(1000)])) < 350
    assert len(quoted(["x"] * 1000)) == 100
    assert quoted(10**5000) == "a number too large to write"


@pytest.mark.parametrize(
    "words",
    [
        "report X",
        "predict X a",
        "train --resume X",
        "evaluate X",
        "look X",
        "gradients X",
        "ablate X",
        "bptt X",
        "compare X X",
        "export X --card",
    ],
)
def test_a_file_in_the_place_of_a_run_is_called_a_file(unroll, tmp_path, words):
    (tmp_path / "reviews.csv").write_text("text,label\na,b\n")
    said = "unroll: reviews.csv is a file; expected a run folder, as unroll train makes it\n"
    assert unroll(*words.replace("X", "reviews.csv").split()) == (2, "", said)
    assert [path.name for path in tmp_path.iterdir()] == ["reviews.csv"]


@pytest.mark.parametrize(
    "words",
    ["train lstm-mnist", "tune lstm-mnist", "effects a.yaml b.yaml", "ablate RUN --out out", "memory order"],
)
def test_a_device_that_is_not_there_is_refused_before_anything_is_written(
    unroll, bars_folder, bars_run, tmp_path, monkeypatch, words
):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run = tmp_path / "bars"
    shutil.copytree(bars_run, run)
    saved = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(saved.replace("device: auto", "device: cuda"))
    for name in ("a", "b"):
        fields = f"task: images\ndata: {bars_folder}\nbatch_size: 20\ndevice: cuda\nhidden_size: {ord(name)}\n"
        (tmp_path / f"{name}.yaml").write_text(fields)
    given = [str(run) if word == "RUN" else word for word in words.split()]
    if given[0] in ("train", "tune"):
        given += ["--data", str(bars_folder), "--batch-size", "20"]
    if given[0] not in ("effects", "ablate"):
        given += ["--device", "cuda"]
    if given[0] == "tune":
        given += ["--space", "hidden_size=4,8"]
    before = sorted(tmp_path.rglob("*"))
    said = "unroll: device is 'cuda', but torch finds none on this machine; use device auto\n"
    assert unroll(*given) == (2, "", said)
    assert sorted(tmp_path.rglob("*")) == before


INTERRUPTED = """
import os, signal, sys
from importlib.abc import MetaPathFinder
class Finder(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "unroll.cli":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from unroll.__main__ import main
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_while_the_command_is_imported_is_quiet():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    scripts = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"][
        "scripts"
    ]
    assert scripts == {"unroll": "unroll.__main__:main"}
