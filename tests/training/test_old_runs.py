"""Runs that version 0.1 trained: they load, predict what they predicted then, and can be reported."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import unroll
from unroll.files import load_tensors, save_tensors
from unroll.report.document import report
from unroll.report.figures import draw_figures
from unroll.report.pdf import write_pdf
from unroll.training.recipe import known_recipes
from unroll.training.run import RunFolder

RUNS = Path(__file__).parent.parent / "fixtures" / "runs-0.1"
NAMES = sorted(path.name for path in RUNS.iterdir())


@pytest.fixture(params=NAMES)
def old_run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy without its data, which the run was trained on elsewhere."""
    return Path(shutil.copytree(RUNS / request.param, tmp_path / request.param))


def test_there_is_one_of_every_recipe_that_version_0_1_had():
    assert len(NAMES) == 9
    assert set(NAMES) <= set(known_recipes())


def test_it_predicts_what_it_predicted_then(old_run: Path):
    expected = json.loads((old_run / "expected.json").read_text(encoding="utf-8"))
    classifier = unroll.load(old_run)
    kind = {"images": np.uint8, "series": np.float64}.get(classifier.encoder.task)
    inputs = expected["inputs"] if kind is None else [np.array(item, kind) for item in expected["inputs"]]
    predictions = classifier.predict(inputs)
    assert len(predictions) == len(expected["probabilities"]) >= 3
    for prediction, probabilities in zip(predictions, expected["probabilities"], strict=True):
        assert prediction.probabilities == pytest.approx(probabilities, rel=0, abs=1e-5)


def test_it_can_be_reported(old_run: Path, tmp_path: Path, read_pdf):
    folder = RunFolder(old_run)
    draw_figures(folder)
    text = read_pdf(write_pdf(report(folder), tmp_path / "report.pdf"))
    assert folder.recipe.name in text
    assert f"{100 * folder.metrics()['test']['accuracy']:.2f}%" in text or folder.recipe.data is None
    for line in (old_run / "log.txt").read_text(encoding="utf-8").splitlines():
        assert line in text


@pytest.mark.parametrize(("data", "kind"), [(None, "digits"), ("somewhere", "plain")])
def test_its_pictures_are_digits_where_it_was_trained_on_the_packaged_ones(tmp_path, data, kind):
    tensors, metadata = load_tensors(RUNS / "lstm-mnist" / "model.safetensors")
    assert "pictures" not in metadata["encoder"]
    metadata["recipe"]["data"] = data
    save_tensors(tmp_path / "model.safetensors", tensors, metadata)
    assert unroll.load(tmp_path / "model.safetensors").encoder.pictures == kind
