"""The notebooks run from top to bottom, show what they promise, and are the same in both their forms."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest

from unroll.engines.native import instruction_set

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"
NAMES = sorted(path.stem for path in NOTEBOOKS.glob("*.py"))


@pytest.fixture(scope="module")
def slice_of_mnist(idx_writer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 600 training and 200 test images of MNIST, as IDX files."""
    from unroll.data.images import load_images

    folder = tmp_path_factory.mktemp("slice")
    for prefix, split, count in (("train", "train", 600), ("t10k", "test", 200)):
        part, _ = load_images(None, split)
        idx_writer(folder / f"{prefix}-images-idx3-ubyte", part.values[:count].numpy())
        idx_writer(folder / f"{prefix}-labels-idx1-ubyte", part.y[:count].numpy().astype(np.uint8))
    return folder


RUNNER = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=240).execute()
nbformat.write(notebook, sys.argv[1])
"""


def execute(name: str, parameters: str, folder: Path) -> nbformat.NotebookNode:
    """Run a notebook with other parameters, in a folder of its own; an error in a cell is raised."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    cell.source = parameters
    path = folder / "notebook.ipynb"
    nbformat.write(notebook, path)
    # A process of its own: the client leaves sockets and an event loop behind. The kernel shall find the package where
    # this process finds it, installed or not.
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, str(path)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return nbformat.read(path, as_version=4)


def printed(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")


def pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_there_is_a_notebook_for_each_lab_and_for_own_cells():
    assert NAMES == ["lstm_mnist", "own_cell", "rnn_sentences"]


@pytest.mark.parametrize("name", NAMES)
def test_both_forms_of_a_notebook_hold_the_same_cells_and_no_outputs(name):
    script = jupytext.read(NOTEBOOKS / f"{name}.py")
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    assert [(cell.cell_type, cell.source) for cell in notebook.cells] == [
        (cell.cell_type, cell.source) for cell in script.cells
    ], f"bring them in step with: jupytext --sync notebooks/{name}.py"
    assert not any(cell.get("outputs") for cell in notebook.cells)


@pytest.mark.slow
def test_the_lstm_notebook_goes_from_the_equations_to_ten_digits_and_a_report(slice_of_mnist, tmp_path):
    changes = {"data": str(slice_of_mnist), "hidden_size": 8, "epochs": 1, "log_every": 5}
    notebook = execute("lstm_mnist", f"RECIPE = 'lstm-mnist'\nCHANGES = {changes!r}\nRUN = 'run'", tmp_path)
    text = printed(notebook)
    assert "600 training images, 200 test images" in text
    assert "c_tilde = torch.tanh(a_c)" in text
    assert "Epoch [1/1], Step [5/10], Loss: " in text
    assert "Test Accuracy: " in text
    assert "true 7, predicted" in text  # the first test image of MNIST is a 7
    assert pictures(notebook) == 4  # loss, confusion matrix, ten digits, gates
    assert (tmp_path / "run" / "report.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_the_rnn_notebook_prints_the_labs_losses_by_hand_and_with_the_package(tmp_path):
    notebook = execute("rnn_sentences", "EPOCHS = 300\nLEARNING_RATE = 0.1\nRUN = 'run'", tmp_path)
    text = printed(notebook)
    for loss in ("0.0816", "0.0347", "0.0216", "0.0156", "0.0122", "0.0100"):
        assert text.count(f"- Loss: {loss}") == 2, loss
    assert "Sentence: ['The', 'movie', 'is', 'good'] -> Prediction: 1 (99.5%)" in text
    assert pictures(notebook) == 2  # loss, paths


@pytest.mark.slow
@pytest.mark.skipif(instruction_set() is None, reason="the compiled kernels are not installed")
def test_the_notebook_of_own_cells_goes_from_formulas_to_accuracy_and_speed(slice_of_mnist, tmp_path):
    changes = {"data": str(slice_of_mnist), "hidden_size": 8, "epochs": 1}
    notebook = execute("own_cell", f"CHANGES = {changes!r}\nREPEATS = 3", tmp_path)
    text = printed(notebook)
    assert "z_t = σ(W_gate xh_t + b_gate)\nn_t = tanh(W_candidate xh_t + b_candidate)\n" in text
    assert "largest difference of outputs and gradients: " in text
    assert "Epoch 1: loss " in text
    assert "Test Accuracy: " in text
    assert (
        " times as fast as the loop\nreference engine: randn_like draws random numbers of its own\nnative engine:\n"
        in text
    )
    assert pictures(notebook) == 1  # the gate
