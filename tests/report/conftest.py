"""A finished run of each lab, and what reads a PDF back."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def sentences_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The RNN lab, with its figures."""
    from unroll.report.figures import draw_figures
    from unroll.training.recipe import load_recipe
    from unroll.training.run import RunFolder
    from unroll.training.train import train

    recipe = load_recipe("rnn-sentences")
    facts = {"unroll": "0.1.0", "processor": "a test's processor", "threads": torch.get_num_threads()}
    facts["time"] = "2026-03-04T05:06:07+00:00"
    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "lab", recipe, facts)
    train(recipe, folder, echo=lambda line: None)
    draw_figures(folder)
    return folder.path


@pytest.fixture
def copied(tmp_path: Path):
    """A copy of a run that a test may damage."""

    def copy(run: Path) -> Path:
        return Path(shutil.copytree(run, tmp_path / "copy"))

    return copy
