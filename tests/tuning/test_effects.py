"""What each change is worth: what is to be trained, the statistics, figure and report."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import ttest_rel

from unroll.errors import InputError
from unroll.report.document import report
from unroll.report.effects import cells, draw_effects, markdown, text_table
from unroll.report.pdf import write_pdf
from unroll.training.recipe import load_recipe
from unroll.training.run import RunFolder
from unroll.training.trials import alone
from unroll.tuning import effects
from unroll.tuning.effects import Study, estimate, measure, plan, summarise, walk

FACTS = {"unroll": "1", "torch": "2", "processor": "a test's", "threads": 2, "engine": "native", "cores": 4}


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


def test_effects_are_paired_by_seed_as_scipys_test_for_pairs_has_it(pair, tmp_path, study, outcome):
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


def test_the_sums_are_of_the_single_effects_and_the_whole_is_not_their_sum(pair, tmp_path, study):
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


def test_a_diverged_training_has_no_accuracy_and_its_pairs_are_left_out(pair, tmp_path, study, outcome):
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


def test_where_everything_diverged_nothing_is_claimed(pair, tmp_path, study, outcome):
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


# --------------------------------------------------------------------------------------------------- figure and report


def test_the_marks_of_the_figure_stand_at_the_means_and_the_bars_at_the_intervals(pair, tmp_path, study):
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
def test_no_words_in_the_figure_lie_on_each_other(second, tmp_path, bars_folder, outcome):
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


def test_an_unfinished_study_in_a_run_folder_does_no_harm(pair, bars_run, tmp_path, read_pdf, study, outcome):
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


def test_a_bar_in_a_reason_does_not_break_the_markdown_table(small, tmp_path, study):
    found = study(small("a"), small("c", hidden_size=9), tmp_path / "out")
    found = replace(found, outcomes={name.replace("a", "a|b"): values for name, values in found.outcomes.items()})
    rows = [line for line in markdown(found, "command", FACTS).splitlines() if line.startswith("| a")]
    assert rows[0].startswith("| a\\|b | ")


def test_fewer_than_two_seeds_are_refused_from_python_too(pair):
    with pytest.raises(InputError, match="seeds is 0"):
        plan(walk(load_recipe(str(pair[0])), load_recipe(str(pair[1]))), 0)
