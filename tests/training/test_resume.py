"""Going on with a run: only with what it began with, by one process at a time, and whatever is left is done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from unroll.cli import cli
from unroll.errors import RunError
from unroll.files import load_tensors, stale_files, write_atomically
from unroll.report import figures
from unroll.training import callbacks
from unroll.training import train as training_train
from unroll.training.recipe import KINDS, TITLES, load_recipe
from unroll.training.run import LOCK, RunFolder
from unroll.training.saved import difference, fingerprints
from unroll.training.train import prepare, train
from unroll.training.trials import finished_run


def quiet(line: str) -> None:
    pass


@pytest.fixture
def interrupted(bars_recipe, tmp_path, monkeypatch):
    """A run that was saved after each of its first two epochs, of three."""
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_SAVES", 0.0)

    def interrupt(row):
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    recipe = bars_recipe(validation=0.2, patience=5)
    folder = RunFolder.create(tmp_path / "run", recipe, {})
    with pytest.raises(KeyboardInterrupt):
        train(recipe, folder, echo=quiet, on_epoch=interrupt)
    return folder


def resume(folder, **given):
    folder = RunFolder(folder.path)
    return train(folder.recipe, folder, echo=quiet, resume=True, **given)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}


# ---------------------------------------------------------------------------------------- what the training began with


@pytest.mark.parametrize(
    ("line", "edited", "message"),
    [
        ("learning_rate: 0.02", "learning_rate: 0.01", "learning_rate was 0.02 when training began and is 0.01 in"),
        ("seed: 0", "seed: 1", "seed was 0 when training began and is 1 in recipe.yaml now"),
        ("engine: auto", "engine: reference", "engine was auto when training began and is reference in"),
        ("batch_size: 20", "batch_size: 10", "batch_size was 20 when training began and is 10 in"),
        ("epochs: 3", "epochs: 4", "epochs was 3 when training began and is 4 in"),
        ("max_norm: null", "max_norm: 1.0", "max_norm was none when training began and is 1.0 in"),
        ("hidden_size: 12", "hidden_size: 13", "hidden_size was 12 when training began and is 13 in"),
    ],
)
def test_a_run_whose_recipe_was_edited_is_not_gone_on_with(interrupted, line, edited, message):
    path = interrupted.path / "recipe.yaml"
    text = path.read_text(encoding="utf-8")
    assert line in text
    path.write_text(text.replace(line, edited), encoding="utf-8")
    before = contents(interrupted)
    with pytest.raises(RunError, match=message):
        resume(interrupted)
    assert contents(interrupted) == before
    path.write_text(text, encoding="utf-8")
    resume(interrupted)
    assert interrupted.finished


@pytest.mark.parametrize("task", KINDS)
def test_every_field_of_a_recipe_tells_recipes_apart_but_titles_and_places(task):
    fields = KINDS[task]().model_dump()
    for field in fields:
        one, other = (SimpleNamespace(model_dump=lambda f=found: f) for found in (fields, {**fields, field: "another"}))
        found = difference(one, other, "{0}: {1}, {2}")
        if field in (*TITLES, "data", "test_data"):
            assert found is None
        else:
            assert found is not None
            assert found.startswith(f"{field}: ")
            assert found.endswith(", another")


def rewritten(folder: Path, name: str, change) -> None:
    content = np.frombuffer((folder / name).read_bytes(), np.uint8).copy()
    change(content)
    (folder / name).write_bytes(content.tobytes())


@pytest.mark.parametrize(
    ("part", "name", "change"),
    [
        ("the training data", "train-labels-idx1-ubyte", lambda content: np.copyto(content[8:], (content[8:] + 1) % 3)),
        ("the training data", "train-images-idx3-ubyte", lambda content: np.copyto(content[20:21], content[20:21] ^ 1)),
        ("the validation data", "train-images-idx3-ubyte", lambda content: np.copyto(content[-1:], content[-1:] ^ 1)),
        ("the test data", "t10k-images-idx3-ubyte", lambda content: np.copyto(content[-1:], content[-1:] ^ 1)),
    ],
)
def test_a_run_whose_data_have_changed_is_not_gone_on_with(
    interrupted, bars_folder, tmp_path, monkeypatch, part, name, change
):
    data = Path(shutil.copytree(bars_folder, tmp_path / "data"))
    recipe = interrupted.path / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace(str(bars_folder), str(data)))  # moved, but the same
    rewritten(data, name, change)
    before = contents(interrupted)
    with pytest.raises(RunError, match=f"{part} have changed since training began"):
        resume(interrupted)
    assert contents(interrupted) == before
    shutil.copy(bars_folder / name, data / name)
    resume(interrupted)
    assert interrupted.finished


def test_the_fingerprints_know_the_names_of_classes_and_words(tmp_path, tiny_recipe):
    path = tmp_path / "sentences.csv"
    path.write_text("text,label\n" + "a fine film,good\na dull film,bad\n" * 20)
    found = fingerprints(
        prepare(tiny_recipe("sentences", data=None, batch_size=2).model_copy(update={"data": str(path)}))
    )
    path.write_text(path.read_text().replace("film", "book"))
    again = fingerprints(
        prepare(tiny_recipe("sentences", data=None, batch_size=2).model_copy(update={"data": str(path)}))
    )
    assert [part for part in found if found[part] != again[part]] == ["the names of the classes, features or words"]


def test_a_finished_run_of_another_recipe_is_not_taken(bars_recipe, tmp_path):
    finished_run(tmp_path / "run", bars_recipe(epochs=1))
    with pytest.raises(RunError, match=r"the run of another recipe: epochs is 1 there, not 2; remove it"):
        finished_run(tmp_path / "run", bars_recipe(epochs=2))


# ------------------------------------------------------------------------------------------------ history and log


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
@pytest.mark.parametrize("name", ["history.jsonl", "log.txt"])
def test_a_file_that_has_become_shorter_is_not_filled_up(interrupted, name, kept):
    path = interrupted.path / name
    whole = path.read_bytes()
    saved = load_tensors(interrupted.path / "resume.safetensors")[1]["position"]["history" if "h" in name else "log"]
    path.write_bytes(whole[: kept % saved])
    before = contents(interrupted)
    with pytest.raises(RunError, match=rf"{name} has \d+ bytes, but had {saved} when the run was saved"):
        resume(interrupted)
    assert contents(interrupted) == before
    path.write_bytes(whole)
    resume(interrupted)
    assert [row["epoch"] for row in interrupted.history()] == [1, 2, 3]


def test_a_history_that_is_another_is_not_gone_on_with(interrupted):
    path = interrupted.path / "history.jsonl"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"epoch": 1', '"epoch": 2'), encoding="utf-8")
    with pytest.raises(RunError, match=r"history\.jsonl is damaged: line 1 is of epoch 2, expected 1"):
        resume(interrupted)


def test_what_was_written_after_the_save_is_taken_back(interrupted):
    for name in ("history.jsonl", "log.txt"):
        with open(interrupted.path / name, "ab") as file:
            file.write(b'{"epoch": 3, "lo')  # a line that a kill has cut
    resume(interrupted)
    assert [row["epoch"] for row in interrupted.history()] == [1, 2, 3]
    assert b"lo" not in (interrupted.path / "log.txt").read_bytes()[-20:]


# --------------------------------------------------------------------------------------------------- one at a time

HOLDER = """
import sys
from unroll.training.run import RunFolder
with RunFolder(sys.argv[1]).alone():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_a_second_process_is_kept_out_with_one_line(interrupted, unroll):
    before = contents(interrupted)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(interrupted.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        status, out, err = unroll("train", "--resume", interrupted.path)
        assert (status, out) == (2, "")
        assert err.count("\n") == 1
        assert f"another process is at work in {interrupted.path}; wait until it has ended" in err
        assert contents(interrupted) == before
        holder.kill()  # and with it the system lets go of the lock
    assert unroll("train", "--resume", interrupted.path, "--no-figures")[0] == 0


def test_a_folder_is_held_while_it_is_trained_in(interrupted):
    with interrupted.alone(), pytest.raises(RunError, match="another process is at work in"):
        resume(interrupted)
    resume(interrupted)
    with interrupted.alone(), interrupted.alone():  # the command holds it, and so does `train` within
        pass


def test_of_two_that_make_the_same_folder_one_wins(bars_recipe, tmp_path, monkeypatch):
    recipe, other = bars_recipe(), bars_recipe(seed=1)
    lost = []

    def meanwhile(path, content):
        with pytest.raises(RunError, match=r"another process is at work in|is not empty") as error:
            RunFolder.create(tmp_path / "run", other, {})
        lost.append(error)
        write_atomically(path, content)

    monkeypatch.setattr("unroll.training.run.write_atomically", meanwhile)
    folder = RunFolder.create(tmp_path / "run", recipe, {})
    assert len(lost) == 1
    assert folder.recipe == recipe
    with pytest.raises(RunError, match="is not empty"):
        RunFolder.create(tmp_path / "run", other, {})


def test_what_a_kill_left_of_the_making_of_a_folder_is_no_content(bars_recipe, tmp_path):
    (tmp_path / LOCK).touch()
    (tmp_path / ".recipe.yaml.abcd_123.unroll").write_text("name: bar")
    folder = RunFolder.create(tmp_path, bars_recipe(), {})
    assert {path.name for path in folder.path.iterdir()} == {LOCK, "recipe.yaml"}


# ------------------------------------------------------------------------------------------- killed between files


class Killed(BaseException):
    pass


def killed_at(number: int, monkeypatch) -> None:
    """The process ends in the writing of the file with this number: its temporary file stays."""
    replace, count = os.replace, 0

    def killed(source, target):
        nonlocal count
        count += 1
        if count > number:
            raise Killed
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    unlink = os.unlink
    monkeypatch.setattr(os, "unlink", lambda name, **more: None if count > number else unlink(name, **more))


@pytest.mark.slow
def test_whenever_a_run_is_killed_resume_does_what_is_left(unroll, tmp_path, monkeypatch):
    ours = b"\x89PNG tEXtSoftware\x00unroll <dc:title>unroll</dc:title>"  # or it would not be replaced
    monkeypatch.setattr(Figure, "savefig", lambda figure, file, **more: file.write(ours))  # to save time
    command = ("train", "rnn-sentences", "--epochs", "2", "--out")
    assert unroll(*command, tmp_path / "whole")[0] == 0
    whole = RunFolder(tmp_path / "whole")
    files = sorted(path.relative_to(whole.path) for path in whole.path.rglob("*") if path.is_file())
    written = 0
    for number in range(20):
        folder = tmp_path / str(number)
        with pytest.MonkeyPatch.context() as patch:
            killed_at(number, patch)
            try:
                cli.main([str(word) for word in (*command, folder)], standalone_mode=False)
            except Killed:
                written += 1
            else:
                break
        temporary = [path for path in folder.rglob(".*") if path.name != LOCK]
        assert len(temporary) == 1
        again = ("train", "--resume", folder) if (folder / "recipe.yaml").exists() else (*command, folder)
        assert unroll(*again)[0] == 0
        assert sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file()) == files
        run = RunFolder(folder)
        assert run.metrics()["test"] == whole.metrics()["test"]
        assert (folder / "figures" / "confusion.svg").read_bytes() == (
            whole.path / "figures/confusion.svg"
        ).read_bytes()
        status, _, err = unroll("train", "--resume", folder)
        assert (status, "there is nothing to resume" in err) == (2, True)
    assert written >= 10  # recipe, model, predictions, metrics, and three figures as PNG and SVG


def test_a_save_that_a_kill_left_in_a_finished_run_is_removed(unroll, bars_run, tmp_path):
    run = Path(shutil.copytree(bars_run, tmp_path / "run"))
    (run / "resume.safetensors").write_bytes(b"")
    assert unroll("train", "--resume", run)[0] == 0
    assert not (run / "resume.safetensors").exists()
    status, _, err = unroll("train", "--resume", run)
    assert status == 2
    assert "is finished; there is nothing to resume" in err


def test_only_own_temporary_files_are_removed(tmp_path):
    (tmp_path / "figures").mkdir()
    own = [tmp_path / ".metrics.json.0a_9zzzz.unroll", tmp_path / "figures" / ".loss.png.abcdefgh.unroll"]
    foreign = [
        ".metrics.json.bak",
        ".metrics.json.abcdefgh",
        "metrics.json.abcdefgh.unroll",
        ".notes.unroll",
        "x.unroll",
    ]
    for file in (*own, *(tmp_path / name for name in foreign)):
        file.touch()
    assert stale_files(tmp_path) == own


def test_all_figures_are_there_where_the_last_one_is(bars_run, tmp_path, monkeypatch):
    run = RunFolder(shutil.copytree(bars_run, tmp_path / "run"))
    assert run.drawn
    shutil.rmtree(run.path / "figures")
    names = []
    save = figures.save_figure
    monkeypatch.setattr(figures, "save_figure", lambda figure, path: names.append(path.name) or save(figure, path))
    figures.draw_figures(run)
    assert names[-1] == "loss"
    assert run.drawn


# ------------------------------------------------------------------------------------------------------- and more


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("--num-layers", "1000000"), "num_layers is 1000000; expected less than or equal to 1000"),
        (("--num-layers", "1000", "--hidden-size", "1000000"), "not enough memory"),
        (("--hidden-size", "10000000"), "hidden_size is 10000000; expected less than or equal to 1000000"),
    ],
)
def test_a_model_that_is_too_large_is_refused_before_its_folder_is_made(
    unroll, bars_folder, tmp_path, monkeypatch, changes, message
):
    def build(*_):
        raise AssertionError("the model is made")

    monkeypatch.setattr(training_train, "first_model", build)
    status, _, err = unroll("train", "lstm-mnist", "--data", bars_folder, "--out", "run", *changes)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_changed_recipe_is_no_more_what_its_file_says_of_it(bars_folder):
    whole = load_recipe("lstm-mnist")
    assert whole.about
    assert load_recipe("lstm-mnist", {"data": str(bars_folder), "seed": 3, "engine": "reference"}).about == whole.about
    assert load_recipe("lstm-mnist", {"hidden_size": 8}).about == ""
    assert load_recipe("lstm-mnist", {"hidden_size": 8, "about": "small"}).about == "small"


def test_a_temporary_file_that_another_process_took_for_a_stale_one_is_written_again(tmp_path, monkeypatch):
    replace, taken = os.replace, []

    def replace_late(source, target):
        if not taken:
            taken.append(Path(source))
            Path(source).unlink()
        replace(source, target)

    monkeypatch.setattr(os, "replace", replace_late)
    write_atomically(tmp_path / "x.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
    assert (tmp_path / "x.json").read_text() == "{}"
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "nowhere" / "x.json", "{}")
