"""Runs beside each other."""

from __future__ import annotations

import json
import re
from math import comb

import numpy as np
import pytest

from unroll.cli import main
from unroll.errors import InputError
from unroll.report.compare import compare, draw_comparison, lines, mcnemar
from unroll.training.run import RunFolder


def run_cli(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit:
        main([str(argument) for argument in arguments])
    return exit.value.code


@pytest.fixture
def twin(bars_run, copied):
    """Another run on the same test set: other hidden size, and predictions that a test sets by hand."""
    run = copied(bars_run)
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace("hidden_size: 12", "hidden_size: 13"))
    return run


def set_right(run, right):
    """Make the run right on exactly the test sequences of the mask `right`."""
    with np.load(run / "predictions.npz") as saved:
        content = dict(saved)
    y = content["y"]
    content["p"] = np.eye(3, dtype=np.float32)[np.where(right, y, (y + 1) % 3)]
    np.savez(run / "predictions.npz", **content)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (3, 3), (2, 10), (0, 20), (15, 4)])
def test_mcnemar_is_the_two_sided_binomial_tail(b, c):
    n, k = b + c, min(b, c)
    expected = min(1.0, 2 * sum(comb(n, i) for i in range(k + 1)) / 2**n) if b != c else 1.0
    assert mcnemar(b, c) == pytest.approx(expected)
    assert mcnemar(c, b) == pytest.approx(mcnemar(b, c))


def test_mcnemar_counts_the_sequences_that_only_one_run_reads_correctly(bars_run, twin):
    total = RunFolder(bars_run).metrics()["test"]["total"]
    with np.load(bars_run / "predictions.npz") as saved:
        first = saved["p"].argmax(1) == saved["y"]
    right = first.copy()
    right[np.flatnonzero(first)[:7]] = False
    right[np.flatnonzero(~first)[:1]] = True
    set_right(twin, right)
    comparison = compare([RunFolder(bars_run), RunFolder(twin)])
    (pair,) = comparison.pairs
    assert (pair.only_first, pair.only_second) == (7, int((right & ~first).sum()))
    assert pair.p == pytest.approx(mcnemar(7, pair.only_second))
    assert total == len(first)


def test_only_the_differences_of_the_recipes_are_shown(bars_run, twin):
    comparison = compare([RunFolder(bars_run), RunFolder(twin)])
    assert comparison.differences == {"hidden_size": [12, 13]}
    text = "\n".join(lines(comparison))
    assert "hidden size" in text
    assert "learning rate" not in text
    assert f"{100 * RunFolder(twin).metrics()['test']['accuracy']:.2f}%" in text


def test_versions_and_threads_are_shown_where_they_differ(bars_run, twin):
    assert compare([RunFolder(bars_run), RunFolder(twin)]).ran_with == {}
    path = twin / "recipe.yaml"
    text = path.read_text(encoding="utf-8")
    threads = RunFolder(twin).facts["threads"]
    path.write_text(text.replace(f"threads: {threads}", f"threads: {threads + 3}\n  torch: 9.9.9"), encoding="utf-8")
    comparison = compare([RunFolder(bars_run), RunFolder(twin)])
    assert comparison.ran_with == {"torch": ["–", "9.9.9"], "threads": [threads, threads + 3]}
    shown = "\n".join(lines(comparison))
    assert re.search(rf"^ran with .*\ntorch +– +9\.9\.9\nthreads +{threads} +{threads + 3}$", shown, re.M)


def test_runs_on_different_test_sets_are_not_paired(bars_run, sentences_run):
    comparison = compare([RunFolder(bars_run), RunFolder(sentences_run)])
    assert comparison.pairs == []
    assert "different sequences" in " ".join(comparison.notes)


def test_the_command_prints_and_draws(bars_run, twin, tmp_path, capsys):
    figure = tmp_path / "out" / "both.png"
    assert run_cli("compare", bars_run, twin, "--figure", figure) == 0
    printed = capsys.readouterr().out
    assert "McNemar test" in printed
    assert str(figure) in printed
    assert figure.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in figure.with_suffix(".svg").read_text()


def test_the_same_comparison_gives_the_same_drawing(bars_run, twin, tmp_path):
    comparison = compare([RunFolder(bars_run), RunFolder(twin)])
    first = draw_comparison(comparison, tmp_path / "a.png").with_suffix(".svg").read_bytes()
    assert draw_comparison(comparison, tmp_path / "b.png").with_suffix(".svg").read_bytes() == first


def test_the_json_holds_everything(bars_run, twin, capsys):
    assert run_cli("compare", bars_run, twin, "--json", "--no-figure") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["differences"] == {"hidden_size": [12, 13]}
    assert len(found["runs"]) == 2


def test_one_run_or_the_same_twice_is_an_error(bars_run):
    with pytest.raises(InputError, match="at least two"):
        compare([RunFolder(bars_run)])
    with pytest.raises(InputError, match="twice"):
        compare([RunFolder(bars_run), RunFolder(bars_run)])


def test_bad_input_is_one_line(bars_run, twin, tmp_path, capsys):
    assert run_cli("compare", bars_run, twin, "--figure", tmp_path / "x.pdf") == 2
    assert capsys.readouterr().err.count("\n") == 1
    (twin / "predictions.npz").write_bytes(b"damaged")
    assert run_cli("compare", bars_run, twin, "--no-figure") == 2
    assert "damaged" in capsys.readouterr().err
    (twin / "metrics.json").unlink()
    assert run_cli("compare", bars_run, twin, "--no-figure") == 2
    assert "not finished" in capsys.readouterr().err
