"""docs/own-cell.md and the README's first example are run as they stand, and print what they show."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import unroll
from tests.docs.blocks import ROOT, blocks, commands, run, without_numbers
from unroll.cli import cli
from unroll.data.images import load_images
from unroll.engines import explain, native

PAGE = "docs/own-cell.md"

pytestmark = pytest.mark.skipif(native.instruction_set() is None, reason="the compiled kernels are not installed")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unroll.cells.own._loaded", {})


def first(page):
    return next(text for language, text in blocks(page) if language == "python")


@pytest.mark.slow
def test_own_cell_guide_prints_what_it_shows(tmp_path):
    scope, compared, file = {"__name__": "my_cell"}, 0, "my_cell.py"
    found = blocks(PAGE)
    for n, (language, text) in enumerate(found):
        if language == "python":
            printed = run(text, scope, tmp_path, file)
            file = f"block_{n}.py"
            following, shown = found[n + 1] if n + 1 < len(found) else ("", "")
            if following == "" and shown and not shown.startswith("$"):
                assert printed == shown
                compared += 1
    assert compared == 2
    assert [line.split()[0] for line in printed.splitlines()] == ["reference", "native"]  # the last block measures


def test_own_cell_example_of_the_readme_is_the_guides_in_fifteen_lines(tmp_path):
    example = first("README.md")
    assert example == first(PAGE)
    assert len([line for line in example.splitlines() if line.strip()]) == 15
    shown = next(text for language, text in blocks("README.md") if language == "" and text.startswith("xh_t"))
    assert run(example, {"__name__": "my_cell"}, tmp_path, "my_cell.py") == shown


def refusals():
    rows = re.findall(r"^\| `(.+?)` \| `(.+?)` \|$", (ROOT / PAGE).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert len(rows) >= 8
    return rows


@pytest.mark.parametrize(("line", "message"), refusals())
def test_own_cell_guide_says_what_is_said_of_refused_steps(line, message, tmp_path):
    scope = {"torch": torch, "nn": nn}
    source = f"""class Refused(nn.Module):
    input_size, hidden_size = 28, 128
    def __init__(self):
        super().__init__()
        self.W = nn.Parameter(torch.randn(128, 128))
    def forward(self, x, h):
        {line}
        return torch.tanh(h @ self.W)
"""
    run(source, scope, tmp_path, "refused.py")
    name, why = explain("auto", unroll.as_cell(scope["Refused"]()), torch.randn(3, 2, 28))
    assert name == "reference"
    assert re.fullmatch(r"(Refused\.forward \()?refused\.py:[67]\)?:? " + re.escape(message), why)


@pytest.mark.slow
def test_own_cell_guide_from_the_shell(tmp_path, idx_writer, capsys):
    for prefix, split, count in (("train", "train", 600), ("t10k", "test", 200)):
        part, _ = load_images(None, split)
        idx_writer(tmp_path / f"{prefix}-images-idx3-ubyte", part.values[:count].numpy())
        idx_writer(tmp_path / f"{prefix}-labels-idx1-ubyte", part.y[:count].numpy().astype(np.uint8))
    part, _ = load_images(None, "test")
    Image.fromarray(part.values[0].numpy()).save("photo.png")
    Path("my_cell.py").write_text(first(PAGE), encoding="utf-8")
    typed = [pair for _, text in blocks(PAGE) if text.startswith("$") for pair in commands(text)]
    assert [line.split()[1] for line, _ in typed] == ["train", "predict", "look", "report", "export"]
    for line, shown in typed:
        program, *words = shlex.split(line)
        assert program == "unroll"
        if words[0] == "train":
            words += ["--data", str(tmp_path), "--hidden-size", "16", "--log-every", "1"]
        capsys.readouterr()
        cli.main(args=words, standalone_mode=False)
        printed = iter([without_numbers(line) for line in capsys.readouterr().out.splitlines()])
        for expected in shown:
            assert expected == "…" or without_numbers(expected) in printed, expected
        if words[0] == "train":
            Path("my_cell.py").unlink()  # what follows needs it no more
