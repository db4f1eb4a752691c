"""Closed streams: no progress bar asks them anything, and no file takes their place."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path

import pytest

import unroll
from unroll.options import progress
from unroll.terminal import is_terminal
from unroll.training.callbacks import ProgressBar
from unroll.training.fit import Settings, fit
from unroll.training.tasks import build_model
from unroll.training.train import prepare


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [None, closed(), io.StringIO()])
def test_nothing_is_drawn_where_stderr_is_no_terminal(monkeypatch, bars_recipe, stream):
    recipe = bars_recipe(epochs=1)
    data = prepare(recipe)
    monkeypatch.setattr(sys, "stderr", stream)
    assert not is_terminal(sys.stderr)
    assert list(progress("models")([1, 2])) == [1, 2]
    training = fit(build_model(recipe, data.encoder), data, Settings.of(recipe), [ProgressBar()])
    assert training.epoch == 1
    assert stream is None or stream.closed or stream.getvalue() == ""


def test_one_place_asks_whether_there_is_a_terminal():
    asking = [path.name for path in Path(unroll.__file__).parent.rglob("*.py") if "isatty" in path.read_text("utf-8")]
    assert asking == ["terminal.py"]


@pytest.mark.slow
@pytest.mark.parametrize("closing", ["2>&-", "<&- >&- 2>&-"])
def test_a_run_is_the_same_where_the_shell_has_closed_its_streams(tmp_path, closing):
    command = (
        f"'{sys.executable}' -m unroll train rnn-sentences --epochs 2 --log-every 1 --no-figures --out run {closing}"
    )
    assert subprocess.run(command, shell=True, cwd=tmp_path, stdout=subprocess.DEVNULL).returncode == 0
    log = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    assert re.fullmatch(r"(Epoch \[[12]/2\] - Loss: [\d.]+\n){2}=== Testing ===\n(Sentence: .*\n){2}", log)
