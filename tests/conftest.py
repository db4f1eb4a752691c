"""Small data and small runs that many tests share; everything is made here, nothing is downloaded."""

from __future__ import annotations

import os
import re
import struct
from pathlib import Path

import numpy as np
import pypdf
import pytest
import torch
from jaxtyping import install_import_hook

# The shapes that the public functions declare are checked in every test.
install_import_hook(
    [
        *(
            f"unroll.cells.{name}"
            for name in ("rnn", "lstm", "gru", "peephole", "coupled", "layernorm", "mgu", "parameters")
        ),
        *("unroll.engines.reference", "unroll.models"),
    ],
    "beartype.beartype",
)

ROWS = COLUMNS = 8
AT_ONCE = "PYTEST_XDIST_WORKER" in os.environ  # whether this process is one of several that run the tests
if AT_ONCE:
    os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start


def write_idx(path: Path, array: np.ndarray) -> None:
    """An IDX file of unsigned bytes, as LeCun's page describes it."""
    header = struct.pack(">BBBB", 0, 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    path.write_bytes(header + array.astype(np.uint8).tobytes())


@pytest.fixture(scope="session")
def idx_writer():
    """`write_idx`, for tests in other files."""
    return write_idx


def bars(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (count, 8, 8) of three classes that can be learnt: a bright row at the top, middle or bottom, in noise."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 3, count)
    labels[:3] = [0, 1, 2]
    pictures = random.integers(0, 60, (count, ROWS, COLUMNS))
    for picture, label in zip(pictures, labels, strict=True):
        picture[3 * label : 3 * label + 2] = random.integers(180, 256, (2, COLUMNS))
    return pictures, labels


@pytest.fixture(scope="session")
def bars_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the four IDX files of 200 training and 60 test pictures."""
    folder = tmp_path_factory.mktemp("bars")
    for prefix, count, seed in (("train", 200, 1), ("t10k", 60, 2)):
        pictures, labels = bars(count, seed)
        write_idx(folder / f"{prefix}-images-idx3-ubyte", pictures)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels)
    return folder


@pytest.fixture
def bars_recipe(bars_folder: Path):
    """A recipe that learns them in a second."""
    from unroll.training.recipe import parse_recipe

    def make(**changes):
        fields = {
            "name": "bars",
            "task": "images",
            "data": str(bars_folder),
            "hidden_size": 12,
            "learning_rate": 0.02,
            "batch_size": 20,
            "epochs": 3,
            "log_every": 5,
        }
        return parse_recipe(fields | changes, "bars")

    return make


@pytest.fixture(scope="session")
def bars_run(bars_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on them, with its figures."""
    from unroll.report.figures import draw_figures
    from unroll.training.recipe import load_recipe
    from unroll.training.run import RunFolder
    from unroll.training.train import train

    changes = {"data": str(bars_folder), "hidden_size": 12, "learning_rate": 0.02, "batch_size": 20, "epochs": 3}
    recipe = load_recipe("lstm-mnist", {**changes, "log_every": 5})
    folder = RunFolder.create(tmp_path_factory.mktemp("runs") / "bars", recipe, {"threads": torch.get_num_threads()})
    train(recipe, folder, echo=lambda line: None)
    draw_figures(folder)
    return folder.path


@pytest.fixture
def unroll(capsys, tmp_path, monkeypatch):
    """Runs a command in an empty folder; its exit status, stdout and stderr."""
    from unroll.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return end.value.code, captured.out, captured.err

    return run


def text_of(pdf: Path) -> str:
    """All text of a PDF, with hyphenation and line breaks undone."""
    pages = (page.extract_text() for page in pypdf.PdfReader(pdf).pages)
    text = re.sub(r"[-\u00ad]\n", "", "\n".join(pages))
    return re.sub(r"\s+", " ", text)


@pytest.fixture
def read_pdf():
    return text_of


@pytest.fixture(autouse=True)
def _alike(request: pytest.FixtureRequest):
    """Every test begins alike, whichever ran before it and however many run beside it.

    Two threads, as on the smallest machine: the tests' tensors are too small for more. One where pytest runs several
    tests at once, but for those of the code whose results could depend on it.
    """
    torch.set_num_threads(2 if not AT_ONCE or request.path.parent.name in ("engines", "training") else 1)
    torch.manual_seed(0)
