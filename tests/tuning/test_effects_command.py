"""`unroll effects`: what is trained again and what is not, the command's lines and files."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from unroll.training import fit
from unroll.training.trials import alone
from unroll.tuning import effects

# -------------------------------------------------------------------------------------------------- resume and extend


def test_an_interrupted_study_goes_on_and_trains_nothing_twice(unroll, pair, counted, monkeypatch):
    whole = [(4, 0.001, 1), (12, 0.02, 3), (12, 0.001, 1), (4, 0.02, 3)]
    whole += [(4, 0.02, 1), (12, 0.001, 3), (4, 0.001, 3), (12, 0.02, 1)]
    expected = [(*fields, seed) for seed in (0, 1, 2) for fields in whole]
    once = effects.train_once

    def interrupted(recipe):
        if len(counted) == 5:
            raise KeyboardInterrupt
        return once(recipe)

    monkeypatch.setattr(effects, "train_once", interrupted)
    status, out, err = unroll("effects", *pair, "--seeds", 3)
    assert (status, out) == (130, "")
    assert err == f"interrupted; go on with: unroll effects {pair[0]} {pair[1]} --seeds 3\n"
    assert [path.name for path in Path("effects/slow-to-fast").glob("[!.]*")] == ["effects.json"]
    monkeypatch.setattr(effects, "train_once", once)
    status, out, err = unroll("effects", *pair, "--seeds", 3)
    assert status == 0
    assert err == "5 of 24 trainings are in effects/slow-to-fast/effects.json already\n"
    assert counted == expected
    resumed = {path.name: path.read_bytes() for path in Path("effects/slow-to-fast").glob("[!.]*")}
    shutil.rmtree("effects")
    status, afresh, _ = unroll("effects", *pair, "--seeds", 3)
    assert afresh == out
    content = [
        json.loads(kept)
        for kept in (resumed.pop("effects.json"), Path("effects/slow-to-fast/effects.json").read_bytes())
    ]
    for kept in content:
        del kept["machine"]["time"]
    assert content[0] == content[1]
    assert resumed == {name: (Path("effects/slow-to-fast") / name).read_bytes() for name in resumed}
    assert set(resumed) == {"effects.md", "effects.png", "effects.svg"}


def test_a_killed_process_loses_the_training_that_ran_and_no_other(unroll, pair, tmp_path, monkeypatch, request):
    command = ["effects", *map(str, pair), "--seeds", "2", "--out", str(tmp_path / "out")]
    code = f"""
import os, signal
import torch
from unroll.cli import main
from unroll.tuning import effects
torch.set_num_threads({torch.get_num_threads()})
once, ran = effects.train_once, []
def train_once(recipe):
    ran.append(recipe)
    if len(ran) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return once(recipe)
effects.train_once = train_once
main({command!r})
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=request.config.rootpath, capture_output=True)
    assert killed.returncode == -signal.SIGKILL
    file = tmp_path / "out" / "effects.json"
    kept = json.loads(file.read_text())["trainings"]
    assert len(kept) == 3
    ran = []
    once = effects.train_once
    monkeypatch.setattr(effects, "train_once", lambda recipe: ran.append(recipe) or once(recipe))
    assert unroll(*command)[::2] == (0, f"3 of 16 trainings are in {file} already\n")
    assert len(ran) == 13
    assert json.loads(file.read_text())["trainings"][:3] == kept


def test_more_seeds_extend_a_study_and_fewer_read_a_part_of_it(unroll, pair, counted):
    _, two, _ = unroll("effects", *pair, "--seeds", 2)
    assert len(counted) == 16
    status, four, err = unroll("effects", *pair, "--seeds", 4)
    assert (status, err) == (0, "16 of 32 trainings are in effects/slow-to-fast/effects.json already\n")
    assert [seed for *_, seed in counted[16:]] == [2] * 8 + [3] * 8
    assert four != two
    status, again, err = unroll("effects", *pair, "--seeds", 2)
    assert (again, err) == (two, "")
    assert len(counted) == 32
    assert len(json.loads(Path("effects/slow-to-fast/effects.json").read_text())["trainings"]) == 32


def test_a_finished_study_is_told_again_on_any_machine_but_goes_on_only_on_its_own(unroll, pair, counted):
    unroll("effects", *pair, "--seeds", 2)
    file = Path("effects/slow-to-fast/effects.json")
    content = json.loads(file.read_text())
    content["machine"]["processor"] = "another"
    file.write_text(json.dumps(content))
    assert unroll("effects", *pair, "--seeds", 2)[0] == 0
    before = file.read_bytes()
    status, out, err = unroll("effects", *pair, "--seeds", 3)
    assert (status, out, len(counted)) == (2, "", 16)
    assert re.search(
        r"^unroll: effects/slow-to-fast/effects.json was measured with processor another, this is .*, and the two would not "
        r"compare; name another folder with --out\n$",
        err.partition("already\n")[2] or err,
    )
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ("first", "the first recipe is not the same"),
        ("second", "the second recipe is not the same"),
        ("data", "the data are not the same"),
        ("damaged", "is damaged"),
        ("list", "is damaged"),
        ("half", "is damaged"),
    ],
)
def test_the_file_of_another_study_is_refused_and_left_alone(
    unroll, pair, small, counted, tmp_path, bars_folder, change, what
):
    data = tmp_path / "data"
    shutil.copytree(bars_folder, data)
    first, second = small("slow", data=str(data)), small("fast", data=str(data), hidden_size=12)
    unroll("effects", first, second, "--seeds", 2, "--out", "here")
    file = Path("here/effects.json")
    if change == "first":
        small("slow", data=str(data), dropout=0.1)
    elif change == "second":
        small("fast", data=str(data), hidden_size=12, dropout=0.1)
    elif change == "data":
        labels = data / "t10k-labels-idx1-ubyte"
        content = bytearray(labels.read_bytes())
        content[-1] = (content[-1] + 1) % 3
        labels.write_bytes(content)
    else:
        trainings = json.loads(file.read_text()) | {"trainings": [{"seed": 0}]}
        file.write_text({"damaged": file.read_text()[:-9], "list": "[1]", "half": json.dumps(trainings)}[change])
    before = {path: path.read_bytes() for path in Path("here").iterdir()}
    ran = len(counted)
    status, out, err = unroll("effects", first, second, "--seeds", 3, "--out", "here")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("unroll: here/effects.json ")
    assert what in err
    assert "name another folder with --out" in err
    assert "remove it" in err
    assert len(counted) == ran
    assert {path: path.read_bytes() for path in Path("here").iterdir()} == before


def test_two_do_not_work_in_one_folder(unroll, pair, counted):
    folder = Path("new/place")
    with alone(folder, "unroll effects"):
        assert unroll("effects", *pair, "--seeds", 2, "--out", str(folder)) == (
            2,
            "",
            "unroll: another unroll effects is at work in new/place; wait until it has ended, or name another folder with "
            "--out\n",
        )
        (folder / "mine").write_text("")  # the folder is still there
    assert not counted
    assert unroll("effects", *pair, "--seeds", 2, "--out", str(folder))[0] == 0


def test_data_that_moved_are_still_the_same_data(unroll, small, counted, tmp_path, bars_folder):
    unroll("effects", small("slow"), small("fast", hidden_size=12), "--seeds", 2)
    shutil.copytree(bars_folder, tmp_path / "moved")
    moved = str(tmp_path / "moved")
    status, _, _ = unroll("effects", small("slow", data=moved), small("fast", data=moved, hidden_size=12), "--seeds", 2)
    assert (status, len(counted)) == (0, 4)


# --------------------------------------------------------------------------------------------------------- the command


def test_the_command_prints_and_writes_the_study_and_keeps_no_weights(unroll, pair, monkeypatch, tmp_path):
    status, out, err = unroll("effects", *pair, "--seeds", 2)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["recipe", "test", "accuracy", "training"]
    assert re.fullmatch(r"slow    \d+\.\d\d% ± \d+\.\d\d +\d+\.\d\d s ± \d+\.\d\d", lines[1])
    assert lines[2].startswith("fast    ")
    assert lines[3] == ""
    assert re.split("  +", lines[4]) == [
        "change",
        "made",
        "accuracy (points)",
        "95% interval",
        "time (s)",
        "time (factor)",
        "95% interval",
    ]
    signed = r"[+-]\d+\.\d\d"
    heads = [
        f"{change} +{made}"
        for change in ("hidden size: 4 → 12", "learning rate: 0.001 → 0.02", "epochs: 1 → 3")
        for made in ("alone", "undone")
    ]
    heads += ["all of them +together", "sum of those alone +sum", "sum of those undone +sum"]
    for head, line in zip(heads, lines[5:14], strict=True):
        numbers = (
            rf" +{signed} ± \d+\.\d\d +{signed} to {signed} +{signed} ± \d+\.\d\d +\d+\.\d\d× +\d+\.\d\d to \d+\.\d\d"
        )
        assert re.fullmatch(head + numbers, line)
    assert lines[14] == ""
    assert lines[15].startswith("Together the changes are worth ")
    folder = Path("effects/slow-to-fast")
    assert lines[16:] == [
        f"Table: {folder}/effects.md",
        f"Figure: {folder}/effects.png",
        f"Numbers: {folder}/effects.json",
    ]
    assert {path.name for path in folder.glob("[!.]*")} == {"effects.json", "effects.md", "effects.png", "effects.svg"}
    assert [path.name for path in tmp_path.iterdir()] == ["effects"]
    text = (folder / "effects.md").read_text()
    assert f"    unroll effects {pair[0]} {pair[1]} --seeds 2\n" in text
    assert "over 2 seeds" in text
    assert lines[15] in text
    assert "| hidden size: 4 → 12 | alone |" in text
    assert f"{torch.get_num_threads()} of" in text.splitlines()[-1]
    trainings = json.loads((folder / "effects.json").read_text())["trainings"]
    assert len(trainings) == 16
    for training in trainings:
        assert training["accuracy"] == training["correct"] / training["total"]
        assert training["total"] == 60
        assert training["seconds"] > 0
        assert training["recipe"]["task"] == "images"

    def no_training(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(fit.Training, "run", no_training)
    files = {path: path.read_bytes() for path in folder.iterdir()}
    assert unroll("effects", *pair, "--seeds", 2) == (0, out, "")
    assert {path: path.read_bytes() for path in folder.iterdir()} == files


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("seeds", "seeds is 1; expected at least 2, such as 5, as a single training has no spread"),
        ("unknown", "unknown recipe 'lstm-mnst'; did you mean 'lstm-mnist'?"),
        ("same", "no hyperparameter differs between slow and twin; name two other recipes"),
        ("tasks", "slow is about images and rnn-sentences about sentences; expected two recipes of one task"),
        ("no test", "the data of one have no test part to measure with; give both recipes test or test_data"),
        ("data", "data is {bars} and {other}; give both the same"),
        ("test", "one and two are tested on different data: test is 0.25 and 0.5; give both the same"),
        (
            "broken",
            "batch_size is 201, but there are only 200 training sequences; choose a smaller one, such as --batch-size 128",
        ),
    ],
)
def test_bad_input_meets_one_line_and_nothing_is_written(unroll, small, counted, tmp_path, bars_folder, case, message):
    slow = small("slow")
    file = tmp_path.parent / f"{tmp_path.name}-sentences.csv"
    file.write_text("text,label\n" + "".join(f"{'good' if k % 2 else 'bad'} {k},{k % 2}\n" for k in range(40)))
    sentences = [
        {"task": "sentences", "data": str(file), "name": name, "hidden_size": size, "test": test, "batch_size": 4}
        for name, size, test in (("one", 4, 0.25), ("two", 5, 0.5))
    ]
    if case == "no test":
        sentences = [{**fields, "test": 0} for fields in sentences]
    written = []
    for fields in sentences:
        written.append(tmp_path.parent / f"{tmp_path.name}-{fields['name']}.yaml")
        written[-1].write_text(yaml.safe_dump(fields))
    arguments = {
        "seeds": [slow, small("wide", hidden_size=5), "--seeds", 1],
        "unknown": [slow, "lstm-mnst"],
        "same": [slow, small("twin", seed=5, about="another", log="epochs")],
        "tasks": [slow, "rnn-sentences"],
        "no test": written,
        "data": [slow, small("elsewhere", data=str(tmp_path))],
        "test": written,
        "broken": [slow, small("large", batch_size=201)],
    }[case]
    status, out, err = unroll("effects", *arguments)
    assert (status, out, err.count("\n"), counted) == (2, "", 1, [])
    assert err.startswith("unroll: ")
    assert err.endswith(message.format(bars=bars_folder, other=tmp_path) + "\n")
    assert not list(tmp_path.iterdir())


def test_two_recipes_of_one_name_are_told_apart_by_their_files(unroll, small, counted, tmp_path):
    first, second = small("same"), tmp_path.parent / f"{tmp_path.name}-other.yaml"
    second.write_text(first.read_text().replace("hidden_size: 4", "hidden_size: 9"))
    status, out, _ = unroll("effects", first, second, "--seeds", 2)
    assert status == 0
    assert [line.split("  ")[0] for line in out.splitlines()[1:3]] == [str(first), str(second)]
    assert Path("effects/same-to-same/effects.json").is_file()


def test_a_place_that_cannot_be_written_to_costs_no_training(unroll, pair, counted, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for out in ("file", "file/below", "/proc/none"):
        status, _, err = unroll("effects", *pair, "--out", out)
        assert (status, err.count("\n"), counted) == (2, 1, [])
