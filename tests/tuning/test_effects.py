"""What each change is worth: the statistics, what is trained and how often, the command's lines, figure and report."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy.stats import ttest_rel

from unroll.errors import InputError
from unroll.report.document import report
from unroll.report.effects import cells, draw_effects, markdown, text_table
from unroll.report.pdf import write_pdf
from unroll.training import fit
from unroll.training.recipe import load_recipe
from unroll.training.run import RunFolder
from unroll.training.trials import alone
from unroll.tuning import effects
from unroll.tuning.effects import Study, estimate, measure, plan, summarise, walk

FACTS = {"unroll": "1", "torch": "2", "processor": "a test's", "threads": 2, "engine": "native", "cores": 4}


@pytest.fixture
def small(bars_folder, tmp_path):
    """Writes a recipe file beside the tests' other files; its path."""

    def write(name, **changes):
        fields = {"task": "images", "data": str(bars_folder), "hidden_size": 4, "batch_size": 50, "epochs": 1}
        path = tmp_path.parent / f"{tmp_path.name}-{name}.yaml"
        path.write_text(yaml.safe_dump({"name": name, **fields, **changes}))
        return path

    return write


@pytest.fixture
def pair(small):
    """Two recipes that differ in three hyperparameters."""
    return small("slow"), small("fast", hidden_size=12, learning_rate=0.02, epochs=3)


@pytest.fixture
def counted(monkeypatch):
    """The trainings that were run, as (fields, seed), with outcomes that follow from them in the place of a training."""
    ran = []

    def train_once(recipe):
        ran.append((recipe.hidden_size, recipe.learning_rate, recipe.epochs, recipe.seed))
        return outcome(recipe)

    monkeypatch.setattr(effects, "train_once", train_once)
    return ran


def outcome(recipe):
    """An outcome that is no sum of its parts and differs from seed to seed."""
    draw = np.random.default_rng([recipe.hidden_size, round(1e6 * recipe.learning_rate), recipe.epochs, recipe.seed])
    share = 1 - 1 / (1 + 0.02 * recipe.hidden_size * recipe.epochs * (1 + 50 * recipe.learning_rate))
    correct = round(1000 * share + draw.normal(0, 8))
    seconds = round(0.1 * recipe.epochs * recipe.hidden_size * draw.uniform(0.9, 1.1), 3)
    return {"accuracy": correct / 1000, "correct": correct, "total": 1000, "seconds": seconds}


def study(first, second, folder, seeds=5, trained=outcome):
    """A whole study with outcomes in the place of trainings; what came of it."""
    way = walk(load_recipe(str(first)), load_recipe(str(second)))
    book = Study(folder, way, effects.load_tested(way.first))
    with pytest.MonkeyPatch.context() as patch, alone(folder, "unroll effects"):
        patch.setattr(effects, "train_once", trained)
        measure(way, book, seeds)
    return summarise(way, book, seeds)


def row(found, change, made):
    (effect,) = [effect for effect in found.all() if effect.change.startswith(change) and effect.made == made]
    return effect


# ------------------------------------------------------------------------------------------------- between the recipes


def test_the_walk_knows_every_hyperparameter_that_differs_and_nothing_else(small):
    first = load_recipe(str(small("a", about="one", seed=3, log_every=7, engine="reference")))
    second = load_recipe(str(small("b", about="two", seed=4, log="epochs", hidden_size=8, rotation=10, forget_bias=1)))
    way = walk(first, second)
    assert [change for change, made in way.steps if made == "alone"] == [
        "hidden size: 4 → 8",
        "forget bias: none → 1.0",
        "rotation: 0.0 → 10.0",
    ]
    assert (way.second.engine, way.second.log, way.second.log_every) == ("reference", "steps", 7)
    alone, undone = (way.steps["rotation: 0.0 → 10.0", made] for made in ("alone", "undone"))
    assert (alone.hidden_size, alone.forget_bias, alone.rotation) == (4, None, 10)
    assert (undone.hidden_size, undone.forget_bias, undone.rotation) == (8, 1, 0)


def test_trainings_go_seed_by_seed_and_none_is_planned_twice(small):
    def planned(**changes):
        way = walk(load_recipe(str(small("a"))), load_recipe(str(small("b", **changes))))
        return [(recipe.seed, recipe.hidden_size, recipe.epochs) for recipe in plan(way, 2)]

    assert planned(hidden_size=8) == [(0, 4, 1), (0, 8, 1), (1, 4, 1), (1, 8, 1)]
    first = [(4, 1), (8, 2), (8, 1), (4, 2)]
    assert planned(hidden_size=8, epochs=2) == [(seed, *sizes) for seed in (0, 1) for sizes in first]
    assert len(planned(hidden_size=8, epochs=2, learning_rate=0.1)) == 2 * 8


def test_the_second_recipe_with_one_change_undone_reaches_what_training_it_alone_reaches(unroll, pair, tmp_path):
    """Against `unroll train` with the same fields: changes are neither mixed up nor made from the wrong end."""
    status, _, err = unroll("effects", *pair, "--seeds", 2)
    assert (status, err) == (0, "")
    rows = json.loads(Path("effects/slow-to-fast/effects.json").read_text())["rows"]
    options = {"slow": [], "fast": [], "learning rate": ["--learning-rate", 0.02], "undone": ["--learning-rate", 0.001]}
    reached = {}
    for name, file in (("slow", pair[0]), ("fast", pair[1]), ("learning rate", pair[0]), ("undone", pair[1])):
        for seed in (0, 1):
            out = tmp_path / f"{name}-{seed}"
            unroll("train", file, "--seed", seed, "--out", out, "--no-figures", *options[name])
            reached[name, seed] = 100 * RunFolder(out).metrics()["test"]["accuracy"]
    for made, before, after in (("alone", "slow", "learning rate"), ("undone", "undone", "fast")):
        (found,) = [r for r in rows if r["change"] == "learning rate: 0.001 → 0.02" and r["made"] == made]
        differences = [reached[after, seed] - reached[before, seed] for seed in (0, 1)]
        assert found["measured"]["points"]["mean"] == pytest.approx(sum(differences) / 2, abs=1e-9)
        assert found["measured"]["points"]["deviation"] == pytest.approx(np.std(differences, ddof=1), abs=1e-9)


# ---------------------------------------------------------------------------------------------------------- statistics


def test_the_estimate_of_an_example_computed_by_hand():
    found = estimate(np.array([1.0, np.nan, 2.0, 6.0]))
    assert (found.number, found.mean) == (3, 3.0)
    assert found.deviation == pytest.approx(7**0.5)  # (4 + 1 + 9) / 2
    reach = 4.302652729911275 * 7**0.5 / 3**0.5  # t(0.975) with 2 degrees of freedom, from a table
    assert (found.low, found.high) == (pytest.approx(3 - reach), pytest.approx(3 + reach))
    assert estimate(np.array([5.0, np.nan])) == effects.Estimate(1, 5.0, None, None, None)
    assert estimate(np.array([np.nan])) == effects.Estimate(0, None, None, None, None)


def test_effects_are_paired_by_seed_as_scipys_test_for_pairs_has_it(pair, tmp_path):
    found = study(*pair, tmp_path / "out")
    slow, fast = load_recipe(str(pair[0])), load_recipe(str(pair[1]))

    def reached(recipe, key, **changes):
        return np.array(
            [outcome(recipe.model_copy(update={**changes, "seed": seed}))[key] for seed in range(5)], dtype=float
        )

    for change, field in (("hidden size: 4 → 12", "hidden_size"), ("epochs: 1 → 3", "epochs")):
        for made in ("alone", "undone"):
            base, value = (slow, getattr(fast, field)) if made == "alone" else (fast, getattr(slow, field))
            effect = row(found, change, made)
            for key, got, transform in (
                ("accuracy", effect.points, lambda x: 100 * x),
                ("seconds", effect.seconds, lambda x: x),
                ("seconds", effect.factor, np.log),
            ):
                sides = transform(reached(base, key)), transform(reached(base, key, **{field: value}))
                without, with_it = sides if made == "alone" else sides[::-1]
                interval = ttest_rel(with_it, without).confidence_interval(0.95)
                mean, low, high = (with_it - without).mean(), interval.low, interval.high
                if got is effect.factor:
                    mean, low, high = np.exp([mean, low, high])
                else:
                    assert got.deviation == pytest.approx(np.std(with_it - without, ddof=1))
                assert (got.mean, got.low, got.high) == pytest.approx((mean, low, high))


def test_the_sums_are_of_the_single_effects_and_the_whole_is_not_their_sum(pair, tmp_path):
    found = study(*pair, tmp_path / "out")
    for made in ("alone", "undone"):
        single = [effect for effect in found.single if effect.made == made]
        assert len(single) == 3
        assert found.sums[made].points.mean == pytest.approx(sum(effect.points.mean for effect in single))
        assert found.sums[made].seconds.mean == pytest.approx(sum(effect.seconds.mean for effect in single))
        assert found.sums[made].factor.mean == pytest.approx(np.prod([effect.factor.mean for effect in single]))
    slow, fast = (100 * np.mean(found.outcomes[name][0] / 100) for name in ("slow", "fast"))
    whole = found.together.points.mean
    assert whole == pytest.approx(fast - slow)
    alone, undone = found.sums["alone"].points.mean, found.sums["undone"].points.mean
    assert abs(alone - whole) > 5
    assert abs(undone - whole) > 5
    assert text_table(found)[-1] == (
        f"Together the changes are worth {whole:+.2f} points; made alone from slow they add up to {alone:+.2f}, undone alone "
        f"from fast they add up to {undone:+.2f}. They need not add up: what a change is worth depends on those around it."
    )


def test_a_diverged_training_has_no_accuracy_and_its_pairs_are_left_out(pair, tmp_path):
    def trained(recipe):
        wide = (recipe.hidden_size, recipe.epochs) == (12, 1)
        if recipe.seed == 1 and wide and recipe.learning_rate == 0.001:
            return dict.fromkeys(("accuracy", "correct", "total", "seconds"))
        return outcome(recipe)

    found, whole = study(*pair, tmp_path / "out", trained=trained), study(*pair, tmp_path / "whole")
    effect = row(found, "hidden size", "alone")
    assert (effect.diverged, effect.points.number) == (1, 4)
    assert cells(effect)["accuracy (points)"].endswith(" (1 of 5 diverged)")
    assert row(found, "hidden size", "undone") == row(whole, "hidden size", "undone")
    assert row(found, "epochs", "alone") == row(whole, "epochs", "alone")
    assert found.sums["alone"].points.number == 4
    kept = [s for s in range(5) if s != 1]
    slow = load_recipe(str(pair[0]))
    differences = [
        outcome(slow.model_copy(update={"hidden_size": 12, "seed": s}))["accuracy"]
        - outcome(slow.model_copy(update={"seed": s}))["accuracy"]
        for s in kept
    ]
    assert effect.points.mean == pytest.approx(100 * np.mean(differences))


def test_where_everything_diverged_nothing_is_claimed(pair, tmp_path):
    def trained(recipe):
        if recipe.hidden_size == 4:
            return dict.fromkeys(("accuracy", "correct", "total", "seconds"))
        return outcome(recipe)

    found = study(*pair, tmp_path / "out", trained=trained)
    assert cells(row(found, "epochs", "alone"))["accuracy (points)"] == "– (5 of 5 diverged)"
    assert found.together.points.mean is None
    assert text_table(found)[1].split("  ")[0] == "slow"
    assert "– (5 of 5 diverged)" in text_table(found)[1]
    assert text_table(found)[-1] == "What all changes are worth together is not known, as trainings diverged."
    draw_effects(found)


def test_a_loss_that_is_no_number_is_a_divergence_and_no_error(small):
    wild = {"optimizer": "sgd", "cell": "rnn", "nonlinearity": "relu", "batch_size": 20}
    recipe = load_recipe(str(small("wild", learning_rate=1e38, **wild)))
    assert effects.train_once(recipe) == {"accuracy": None, "correct": None, "total": None, "seconds": None}


# ---------------------------------------------------------------------------------------------------------- impossible


def test_a_change_that_makes_no_sense_alone_is_a_row_of_its_own(small, tmp_path, unroll):
    plain = small("plain", optimizer="sgd", learning_rate=0.1)
    nesterov = small("nesterov", optimizer="sgd", learning_rate=0.1, momentum=0.5, nesterov=True)
    status, out, err = unroll("effects", plain, nesterov, "--seeds", 2)
    assert (status, err) == (0, "")
    reason = "nesterov is true and momentum is 0; expected a momentum above 0, such as 0.9"
    assert re.search(rf"^nesterov: false → true +alone +not possible alone: recipe plain: {reason}$", out, re.M)
    assert re.search(rf"^momentum: 0.0 → 0.5 +undone +not possible alone: recipe nesterov: {reason}$", out, re.M)
    assert re.search(r"^momentum: 0.0 → 0.5 +alone +[+-]\d+\.\d\d ± ", out, re.M)
    assert "not all of them can be made alone from plain, not all of them can be undone alone from nesterov" in out
    assert "sum of those" not in out
    content = json.loads(Path("effects/plain-to-nesterov/effects.json").read_text())
    # With momentum and without Nesterov is on both ways: two recipes, and this one between them.
    assert len(content["trainings"]) == 2 * 3


def test_a_change_that_the_data_forbid_is_found_and_the_rest_goes_on(small, tmp_path, unroll):
    first, second = small("first", batch_size=150), small("second", batch_size=20, validation=100)
    status, out, err = unroll("effects", first, second, "--seeds", 2)
    assert (status, err) == (0, "")
    reason = (
        "batch_size is 150, but there are only 100 training sequences; choose a smaller one, such as --batch-size 64"
    )
    assert re.search(rf"^validation: 0.0 → 100.0 +alone +not possible alone: {reason}$", out, re.M)
    assert re.search(rf"^batch size: 150 → 20 +undone +not possible alone: {reason}$", out, re.M)
    assert len(json.loads(Path("effects/first-to-second/effects.json").read_text())["trainings"]) == 2 * 3


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


# --------------------------------------------------------------------------------------------------- figure and report


def test_the_marks_of_the_figure_stand_at_the_means_and_the_bars_at_the_intervals(pair, tmp_path):
    found = study(*pair, tmp_path / "out")
    left, right = draw_effects(found).axes
    for axes, key in ((left, "points"), (right, "factor")):
        bars = [container for container in axes.containers if len(container.lines[0].get_xdata())]
        marked = [*found.single, found.together]
        assert len(bars) == len(marked) == 7
        for bar, effect in zip(bars, marked, strict=True):
            value = getattr(effect, key)
            assert bar.lines[0].get_xdata()[0] == pytest.approx(value.mean)
            assert bar.lines[2][0].get_segments()[0][:, 0] == pytest.approx([value.low, value.high])
    assert [label.get_text() for label in left.get_yticklabels()] == [
        "hidden size\n4 → 12",
        "learning rate\n0.001 → 0.02",
        "epochs\n1 → 3",
        "all of them",
    ]
    shapes = {bar.lines[0].get_marker() for bar in left.containers if len(bar.lines[0].get_xdata())}
    assert len(shapes) == 3  # so that a grey print tells them apart


@pytest.mark.parametrize("second", ["lstm-mnist-tuned", "lstm-mnist"])
def test_no_words_in_the_figure_lie_on_each_other(second, tmp_path, bars_folder):
    data = {"data": str(bars_folder)}
    first, other = (load_recipe(name, data) for name in ("lstm-mnist-template", second))
    way = walk(first, other)
    book = Study(tmp_path / "out", way, effects.load_tested(first))
    with pytest.MonkeyPatch.context() as patch, alone(tmp_path / "out", "unroll effects"):
        patch.setattr(effects, "train_once", outcome)
        measure(way, book, 3)
        found = summarise(way, book, 3)
    reason = replace(found.single[0], points=effects.NOTHING, factor=effects.NOTHING, reason="it makes no sense")
    figure = draw_effects(replace(found, single=[reason, *found.single[1:]]))
    figure.canvas.draw()
    whole = figure.bbox
    for axes in figure.axes:
        texts = [
            *axes.texts,
            axes.title,
            axes.xaxis.label,
            *(label for label in axes.get_yticklabels() if label.get_visible()),
        ]
        boxes = [text.get_window_extent() for text in texts if text.get_text()]
        assert len(boxes) >= len(way.steps) + 1
        for k, box in enumerate(boxes):
            assert whole.x0 <= box.x0 <= box.x1 <= whole.x1
            for other_box in boxes[:k]:
                assert not box.overlaps(other_box)
        for text in axes.texts:
            box = text.get_window_extent()
            assert axes.bbox.x0 <= box.x0 <= box.x1 <= axes.bbox.x1
    assert "not possible alone" in [text.get_text() for text in figure.axes[0].texts]


def test_a_study_in_a_run_folder_stands_in_its_report(unroll, pair, counted, bars_run, tmp_path, read_pdf):
    run = Path(shutil.copytree(bars_run, tmp_path / "run"))
    status, _, err = unroll("effects", *pair, "--seeds", 2, "--out", run)
    assert (status, err) == (0, "")
    text = read_pdf(write_pdf(report(RunFolder(run)), tmp_path / "report.pdf"))
    assert "What each hyperparameter is worth" in text
    assert "made alone in the first recipe (filled)" in text
    assert "What each change from slow to fast is worth" in text
    assert "over 2 seeds" in text
    found = json.loads((run / "effects.json").read_text())["rows"]
    for each in found:
        shown = " ".join(
            each[name] for name in ("change", "made", "accuracy (points)", "95% interval", "time (factor)")
        )
        assert shown in text
    # Copied as docs/report.md says, into figures/, it is the same.
    (run / "effects.svg").rename(run / "figures" / "effects.svg")
    moved = read_pdf(write_pdf(report(RunFolder(run)), tmp_path / "moved.pdf"))
    assert moved == text


def test_an_unfinished_study_in_a_run_folder_does_no_harm(pair, bars_run, tmp_path, read_pdf):
    run = Path(shutil.copytree(bars_run, tmp_path / "run"))

    def trained(recipe):
        if recipe.seed == 1:
            raise KeyboardInterrupt
        return outcome(recipe)

    with pytest.raises(KeyboardInterrupt):
        study(*pair, run, trained=trained)
    (run / "effects.svg").write_bytes((run / "figures" / "loss.svg").read_bytes())
    text = read_pdf(write_pdf(report(RunFolder(run)), tmp_path / "report.pdf"))
    assert "made alone in the first recipe (filled)" in text


def test_the_picture_can_be_read_in_grey(unroll, pair, counted):
    unroll("effects", *pair, "--seeds", 2)
    with Image.open("effects/slow-to-fast/effects.png") as picture:
        grey = np.asarray(picture.convert("L"))
    assert grey.min() < 60
    assert grey.max() == 255


def test_a_bar_in_a_reason_does_not_break_the_markdown_table(small, tmp_path):
    found = study(small("a"), small("c", hidden_size=9), tmp_path / "out")
    found = replace(found, outcomes={name.replace("a", "a|b"): values for name, values in found.outcomes.items()})
    rows = [line for line in markdown(found, "command", FACTS).splitlines() if line.startswith("| a")]
    assert rows[0].startswith("| a\\|b | ")


def test_fewer_than_two_seeds_are_refused_from_python_too(pair):
    with pytest.raises(InputError, match="seeds is 0"):
        plan(walk(load_recipe(str(pair[0])), load_recipe(str(pair[1]))), 0)
