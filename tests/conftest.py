"""Small data and small runs that many tests share; everything is made here, nothing is downloaded."""

from __future__ import annotations

import io
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

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

OWN_CODE = '"""My own LSTM."""\nimport torch\n\n\ndef my_cell(x, h, c):\n    return torch.tanh(x + h), c\n'
OWN_LOG = (
    "".join(f"Epoch [1/1], Step [{step}/469], Loss: {2.3 - step / 1000:.4f}\n" for step in range(100, 500, 100))
    + "Test Accuracy: 94.10%\n"
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
def own_run(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder as `unroll lab run` leaves it; `changes` are to what the child process has seen."""

    def make(
        code: str = OWN_CODE,
        log: str = OWN_LOG,
        file: str = "my_lab.py",
        lab: str = "homework",
        picture: bytes | None = None,
        engine: dict[str, Any] | None = None,
        **changes: Any,
    ) -> Path:
        import datetime

        from unroll.data.images import read_part
        from unroll.labs.own_run import write_own_run
        from unroll.labs.source import read_source

        (tmp_path / "students").mkdir(exist_ok=True)
        path = tmp_path / "students" / file
        path.write_text(code, encoding="utf-8")
        figures = tmp_path / "students" / "figures"
        figures.mkdir(exist_ok=True)
        (figures / "01.png").write_bytes(picture or small_picture())
        predicted = read_part(None, "test")[1].astype(np.int64)
        predicted[9412:] = (predicted[9412:] + 1) % 10
        seen = {
            "outcome": {"error": None},
            "seconds": 61.5,
            "losses": [2.3 - n / 1000 for n in range(1, 470)],
            "figures": [{"file": "01.png", "titles": ["Ten digits"]}],
            "hyperparameters": {"hidden_size": 64, "learning_rate": 6e-5, "batch_size": 128},
            "optimizer": {"class": "Adam", "lr": 6e-5, "weight_decay": 0},
            "model": {"class": "ManualLSTMClassifier", "parameters": 8138},
            "weights": {},
            "prediction": {"predicted": predicted},
            "images": 10_000,
            "versions": {"python": "3.11.2", "torch": "2.13.0"},
            "warnings": [],
        } | changes
        folder = tmp_path / "run"
        time = datetime.datetime(2026, 5, 4, 3, 2, 1, tzinfo=datetime.UTC)
        write_own_run(
            folder,
            read_source(path),
            lab=lab,
            seed=0,
            threads=1,
            time=time,
            seen=seen,
            log=log,
            figures=figures,
            engine=engine or {},
        )
        return folder

    return make


def small_picture() -> bytes:
    """A PNG from black to white."""
    from PIL import Image

    room = io.BytesIO()
    Image.linear_gradient("L").save(room, "png")
    return room.getvalue()


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
    torch.default_generator.manual_seed(0)  # torch.manual_seed notes the stack for each kind of device
