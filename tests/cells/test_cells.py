"""The cells against their equations, written a second time gate by gate in plain Python numbers."""

import math
import subprocess
import sys

import pytest
import torch

from unroll.cells import LSTMCell, RNNCell, as_cell, cell_type
from unroll.errors import InputError
from unroll.training.recipe import load_recipe
from unroll.training.run import RunFolder, load
from unroll.training.train import train


def sigmoid(z):
    return 1 / (1 + math.exp(-z))


def weighted(cell, block, x, h):
    """Row by row: W h + U x + b for one gate's block of rows, in Python floats."""
    H = cell.hidden_size
    result = []
    for unit in range(H):
        r = block * H + unit
        total = cell.b[r].item() if cell.b is not None else 0.0
        total += sum(cell.W[r, k].item() * h[k] for k in range(H))
        total += sum(cell.U[r, k].item() * x[k] for k in range(cell.input_size))
        result.append(total)
    return result


@pytest.mark.parametrize("bias", [True, False])
def test_lstm_cell_is_its_equations_gate_by_gate(bias):
    torch.manual_seed(1)
    cell = LSTMCell(3, 2, bias=bias, dtype=torch.float64)
    x, h, c = [0.5, -1.0, 2.0], [0.3, -0.2], [1.5, -0.7]
    i = [sigmoid(z) for z in weighted(cell, 0, x, h)]
    f = [sigmoid(z) for z in weighted(cell, 1, x, h)]
    candidate = [math.tanh(z) for z in weighted(cell, 2, x, h)]
    o = [sigmoid(z) for z in weighted(cell, 3, x, h)]
    c_new = [f[k] * c[k] + i[k] * candidate[k] for k in range(2)]
    h_new = [o[k] * math.tanh(c_new[k]) for k in range(2)]

    as_row = lambda values: torch.tensor([values], dtype=torch.float64)  # noqa: E731
    gates = cell.equations(as_row(x), as_row(h), as_row(c))
    for found, expected in zip(gates, (i, f, candidate, o, c_new, h_new), strict=True):
        torch.testing.assert_close(found, as_row(expected), rtol=1e-14, atol=1e-14)
    h_t, c_t = cell(as_row(x), (as_row(h), as_row(c)))
    assert torch.equal(h_t, gates.h)
    assert torch.equal(c_t, gates.c)


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
def test_rnn_cell_is_its_equation(nonlinearity):
    torch.manual_seed(2)
    cell = RNNCell(3, 4, nonlinearity=nonlinearity, dtype=torch.float64)
    x, s = [0.5, -1.0, 2.0], [0.3, -0.2, 0.9, -1.1]
    a = weighted(cell, 0, x, s)
    expected = [math.tanh(z) if nonlinearity == "tanh" else max(0.0, z) for z in a]
    found = cell(torch.tensor([x], dtype=torch.float64), torch.tensor([s], dtype=torch.float64))
    torch.testing.assert_close(found[0], torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("kind", [RNNCell, LSTMCell])
def test_a_word_index_reads_as_its_one_hot_vector(kind):
    cell = kind(5, 3)
    words = torch.tensor([4, 0, 4])
    one_hot = torch.nn.functional.one_hot(words, 5).float()
    state = cell.initial_state(3)
    by_index, by_vector = cell(words, state), cell(one_hot, state)
    if kind is RNNCell:
        by_index, by_vector = (by_index,), (by_vector,)
    for a, b in zip(by_index, by_vector, strict=True):
        torch.testing.assert_close(a, b)
    gradients = []
    for output in (by_index[0], by_vector[0]):
        cell.zero_grad()
        output.sum().backward()
        gradients.append(cell.U.grad.clone())
    torch.testing.assert_close(*gradients)


def test_forget_bias_sets_the_second_block_alone():
    cell = LSTMCell(2, 3)
    before = cell.b.detach().clone()
    cell.set_bias("f", 1.5)
    assert torch.equal(cell.b[3:6], torch.full((3,), 1.5))
    assert torch.equal(cell.b[:3], before[:3])
    assert torch.equal(cell.b[6:], before[6:])


@pytest.mark.parametrize("kind", [RNNCell, LSTMCell])
def test_orthogonal_initialisation_makes_every_block_of_w_orthogonal(kind):
    cell = kind(7, 6, dtype=torch.float64)
    cell.initialise("orthogonal")
    for block in cell.W.split(6):
        torch.testing.assert_close(block @ block.T, torch.eye(6, dtype=torch.float64))
    assert not cell.b.any()


def test_uniform_and_linear_initialisation_keep_their_bounds():
    cell = LSTMCell(28, 16)
    for how, bound in (("uniform", 16**-0.5), ("linear", 44**-0.5)):
        cell.initialise(how)
        for parameter in cell.parameters():
            assert parameter.abs().max() <= bound
            assert parameter.abs().max() > 0.8 * bound


def test_normal_initialisation_draws_w_then_u_as_the_lab_does():
    torch.manual_seed(42)
    cell = RNNCell(5, 2)
    torch.manual_seed(42)
    cell.initialise("normal")
    torch.manual_seed(42)
    W = torch.randn(2, 2) / math.sqrt(2)
    U = torch.randn(2, 5) / math.sqrt(5)
    torch.testing.assert_close(cell.W.data, W)
    torch.testing.assert_close(cell.U.data, U)


def test_odd_sizes_of_cells_are_named():
    # In a process of its own: here a checker of types would be first.
    code = (
        "import unroll\n"
        "for cell, given, more in (('RNNCell', (None, 4), {}), ('LSTMCell', ('3', 4), {}), ('LSTMCell', (3, None), {}), "
        "('LSTMCell', (True, 4), {}), ('LSTMCell', (3, 4), {'proj_size': 2})):\n"
        "    try: getattr(unroll, cell)(*given, **more)\n"
        "    except ValueError as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    expected = "; expected a whole number of at least 1"
    assert (done.stderr, done.stdout.splitlines()) == (
        "",
        [
            f"InputError input_size is None{expected}",
            f"InputError input_size is '3'{expected}",
            f"InputError hidden_size is None{expected}",
            f"InputError input_size is True{expected}",
            "InputError LSTMCell has no argument 'proj_size'",
        ],
    )


def test_bad_arguments_are_named():
    with pytest.raises(InputError, match=r"the cell is None; expected a module that computes one time step"):
        as_cell(None)
    with pytest.raises(InputError, match=r"hidden_size is 0; expected a whole number of at least 1"):
        LSTMCell(3, 0)
    with pytest.raises(InputError, match=r"nonlinearity is 'sin'; expected 'tanh' or 'relu'"):
        RNNCell(3, 2, nonlinearity="sin")
    with pytest.raises(InputError, match=r"unknown initialisation 'orthogonl'; did you mean 'orthogonal'\?"):
        LSTMCell(3, 2).initialise("orthogonl")


def test_gru_is_torchs_with_its_two_biases():
    ours, theirs = (kind(3, 5, dtype=torch.float64) for kind in (cell_type("gru"), torch.nn.GRUCell))
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.uniform_(-1, 1)
        theirs.weight_hh.copy_(ours.W)
        theirs.weight_ih.copy_(ours.U)
        theirs.bias_ih.copy_(ours.b)
        theirs.bias_hh.zero_()
        theirs.bias_hh[10:] = ours.b_h
    x, h = torch.randn(4, 3, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    torch.testing.assert_close(ours(x, h), theirs(x, h))
    assert list(ours.quantities(x, h)) == ["r", "z", "n", "h"]


def test_gru_trains_from_a_recipe(tmp_path):
    recipe = load_recipe("rnn-sentences", {"cell": "gru", "epochs": 100, "hidden_size": 4})
    metrics = train(recipe, RunFolder.create(tmp_path / "run", recipe, {}), echo=lambda line: None)
    rows = RunFolder(tmp_path / "run").history()
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert metrics["parameters"] == 3 * 4 * (4 + 5 + 1) + 4 + 2 * 4 + 2
    assert load(tmp_path / "run").predict(["The movie is good"])[0].label == "1"
