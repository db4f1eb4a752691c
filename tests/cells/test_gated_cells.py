"""Peephole, coupled, layer-norm LSTM and minimal gated unit against their papers' equations, written out unit by unit."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from tests.cells.test_cells import sigmoid, weighted
from unroll.cells import CELLS, LSTMCell, cell_type
from unroll.cells.base import joined, parts
from unroll.cells.variants import without
from unroll.engines import native
from unroll.errors import InputError
from unroll.insight.trace import trace
from unroll.models import SequenceClassifier
from unroll.training.run import RunFolder, load
from unroll.training.train import train

NEW = ["peephole", "coupled", "layernorm", "mgu"]
X, H0, C0 = [0.5, -1.0, 2.0], [0.3, -0.2], [1.5, -0.7]


def made(name: str, bias: bool = True, D: int = 3, H: int = 2):
    torch.manual_seed(len(name))
    cell = cell_type(name)(D, H, bias=bias, dtype=torch.float64)
    with torch.no_grad():  # also what begins as 0 or 1
        for parameter in cell.parameters():
            parameter.normal_()
    return cell


def normed(z: list[float]) -> list[float]:
    mean = sum(z) / len(z)
    variance = sum((v - mean) ** 2 for v in z) / len(z)
    return [(v - mean) / math.sqrt(variance + 1e-5) for v in z]


def peephole(cell):
    i, f, g, o = (weighted(cell, k, X, H0) for k in range(4))
    p = cell.p.tolist()
    i = [sigmoid(i[k] + p[k] * C0[k]) for k in range(2)]
    f = [sigmoid(f[k] + p[2 + k] * C0[k]) for k in range(2)]
    g = [math.tanh(v) for v in g]
    c = [f[k] * C0[k] + i[k] * g[k] for k in range(2)]
    o = [sigmoid(o[k] + p[4 + k] * c[k]) for k in range(2)]
    return {"i": i, "f": f, "c_tilde": g, "o": o, "c": c, "h": [o[k] * math.tanh(c[k]) for k in range(2)]}


def coupled(cell):
    f, g, o = (weighted(cell, k, X, H0) for k in range(3))
    f, g, o = [sigmoid(v) for v in f], [math.tanh(v) for v in g], [sigmoid(v) for v in o]
    c = [f[k] * C0[k] + (1 - f[k]) * g[k] for k in range(2)]
    h = [o[k] * math.tanh(c[k]) for k in range(2)]
    return {"i": [1 - v for v in f], "f": f, "c_tilde": g, "o": o, "c": c, "h": h}


def layernorm(cell):
    b = cell.b.tolist() if cell.b is not None else [0.0] * 8
    from_h = normed([sum(row[k] * H0[k] for k in range(2)) for row in cell.W.tolist()])
    from_x = normed([sum(row[k] * X[k] for k in range(3)) for row in cell.U.tolist()])
    gains = zip(cell.alpha_h.tolist(), from_h, cell.alpha_x.tolist(), from_x, b, strict=True)
    a = [one * z + other * y + bias for one, z, other, y, bias in gains]
    i, f, o = ([sigmoid(v) for v in a[2 * k : 2 * k + 2]] for k in (0, 1, 3))
    g = [math.tanh(v) for v in a[4:6]]
    c = [f[k] * C0[k] + i[k] * g[k] for k in range(2)]
    beta = cell.beta.tolist() if cell.beta is not None else [0.0] * 2
    shown = [alpha * v + shift for alpha, v, shift in zip(cell.alpha_c.tolist(), normed(c), beta, strict=True)]
    return {"i": i, "f": f, "c_tilde": g, "o": o, "c": c, "h": [o[k] * math.tanh(shown[k]) for k in range(2)]}


def mgu(cell):
    f = [sigmoid(v) for v in weighted(cell, 0, X, H0)]
    g = [math.tanh(v) for v in weighted(cell, 1, X, [f[k] * H0[k] for k in range(2)])]
    return {"f": f, "h_tilde": g, "h": [(1 - f[k]) * H0[k] + f[k] * g[k] for k in range(2)]}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("by_hand", [peephole, coupled, layernorm, mgu])
def test_gated_cell_is_its_papers_equations(by_hand, bias):
    cell = made(by_hand.__name__, bias)
    row = lambda values: torch.tensor([values], dtype=torch.float64)  # noqa: E731
    state = joined([row(H0), row(C0)][: len(cell.state_names)])
    expected = by_hand(cell)
    found = cell.quantities(row(X), state)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], row(value), rtol=1e-13, atol=1e-13)
    for name, value in zip(cell.state_names, parts(cell(row(X), state)), strict=True):
        assert torch.equal(value, found[name])
    assert (cell.b is None) is not bias


@pytest.mark.parametrize("name", NEW)
def test_gated_cell_passes_gradcheck(name):
    cell = made(name, D=3, H=4)
    names, values = zip(*((n, p.detach().requires_grad_()) for n, p in cell.named_parameters()), strict=True)
    states = [torch.randn(2, 4, dtype=torch.float64).requires_grad_() for _ in cell.state_sizes]
    x = torch.randn(2, 3, dtype=torch.float64).requires_grad_()

    def step(x, *rest):
        before, parameters = rest[: len(states)], dict(zip(names, rest[len(states) :], strict=True))
        return parts(torch.func.functional_call(cell, parameters, (x, joined(before))))

    assert torch.autograd.gradcheck(step, (x, *states, *values))
    assert torch.autograd.gradgradcheck(step, (x, *states, *values))


def test_peephole_without_peepholes_is_torchs_lstm():
    cell, theirs = made("peephole", D=5, H=4), nn.LSTMCell(5, 4, dtype=torch.float64)
    with torch.no_grad():
        cell.p.zero_()
        theirs.weight_hh.copy_(cell.W)
        theirs.weight_ih.copy_(cell.U)
        theirs.bias_ih.copy_(cell.b)
        theirs.bias_hh.zero_()
    x, state = torch.randn(6, 5).double(), (torch.randn(6, 4).double(), torch.randn(6, 4).double())
    torch.testing.assert_close(cell(x, state), theirs(x, state), rtol=1e-13, atol=1e-13)


def test_layernorm_is_torchs_layer_norms_around_its_products():
    cell, H = made("layernorm", D=5, H=4), 4
    x, (h, c) = torch.randn(6, 5).double(), (torch.randn(6, 4).double(), torch.randn(6, 4).double())
    norms = [nn.LayerNorm(size, dtype=torch.float64) for size in (4 * H, 4 * H, H)]
    with torch.no_grad():
        for norm, alpha in zip(norms, (cell.alpha_h, cell.alpha_x, cell.alpha_c), strict=True):
            norm.weight.copy_(alpha)
        norms[1].bias.copy_(cell.b)  # the paper's β_2, with b = β_1 = 0
        norms[2].bias.copy_(cell.beta)
        i, f, g, o = (norms[0](h @ cell.W.T) + norms[1](x @ cell.U.T)).chunk(4, -1)
        c_new = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h_new = o.sigmoid() * norms[2](c_new).tanh()
    torch.testing.assert_close(cell(x, (h, c)), (h_new, c_new), rtol=1e-12, atol=1e-12)


def test_coupled_is_the_ablation_study_s_variant_without_its_unread_block():
    lstm, cell = LSTMCell(5, 4, dtype=torch.float64), cell_type("coupled")(5, 4, dtype=torch.float64)
    with torch.no_grad():
        for ours, whole in zip(cell.parameters(), lstm.parameters(), strict=True):
            ours.copy_(whole[4:])
    x, state = torch.randn(6, 5).double(), (torch.randn(6, 4).double(), torch.randn(6, 4).double())
    torch.testing.assert_close(cell(x, state), without(lstm, "coupled")(x, state), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("how", ["uniform", "linear", "normal", "orthogonal"])
def test_initialisation_of_gains_peepholes_and_shifts(how):
    drawn = how in ("uniform", "linear")
    cell = cell_type("layernorm")(28, 16)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.fill_(7)
    cell.initialise(how)
    for gain in (cell.alpha_h, cell.alpha_x, cell.alpha_c):
        assert bool((gain == 1).all())
    assert not cell.beta.any()
    assert bool(cell.b.any()) is drawn
    cell = cell_type("peephole")(28, 16)
    cell.initialise(how)
    assert bool(cell.p.any()) is drawn
    assert float(cell.p.detach().abs().max()) <= 16**-0.5


@pytest.mark.parametrize("name", NEW)
def test_gated_cell_reads_a_word_as_its_one_hot_vector(name):
    cell, words = made(name), torch.tensor([2, 0, 2])
    state = cell.initial_state(3)
    one_hot = nn.functional.one_hot(words, 3).double()
    torch.testing.assert_close(cell(words, state), cell(one_hot, state), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", NEW)
def test_gated_cell_trains_from_a_recipe_and_is_traced(name, bars_recipe, tmp_path):
    recipe = bars_recipe(cell=name, epochs=2, forget_bias=0.5, num_layers=2, bidirectional=True)
    folder = RunFolder.create(tmp_path / "run", recipe, {})
    metrics = train(recipe, folder)
    losses = [row["loss"] for row in folder.history()]
    assert losses[-1] < losses[0]
    classifier = load(tmp_path / "run")
    assert sum(p.numel() for p in classifier.model.parameters()) == metrics["parameters"]
    x = torch.randn(5, 3, 8)
    found, cell = trace(classifier.model, x), classifier.model.layers.cells[0][0]
    assert found.names() == list(cell.quantities(torch.randn(1, 8), cell.initial_state(1)))
    outputs, _ = classifier.model.layers(x)
    h = torch.from_numpy(found("h"))
    torch.testing.assert_close(outputs[..., : h.shape[-1]], h, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(native.instruction_set() is None, reason="the compiled kernels are not installed")
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("words", [False, True])
def test_native_engine_takes_each_cell_of_recipes(name, words):
    model = SequenceClassifier(name, 6, 5, 3, engine="native")
    x = torch.randint(6, (4, 2)) if words else torch.randn(4, 2, 6)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", ["gru", *NEW])
def test_gates_of_other_cells_are_not_removed(name):
    with pytest.raises(InputError, match="only the LSTM has gates to remove here, and the cell is of kind"):
        without(cell_type(name)(2, 2), "f")


def test_training_an_lstm_imports_no_other_cell():
    code = (
        "import sys; from unroll.training import train; from unroll.models import SequenceClassifier\n"
        "SequenceClassifier('lstm', 2, 2, 2)\n"
        "print(*sorted(name for name in sys.modules if name.startswith('unroll.cells.')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = [f"unroll.cells.{name}" for name in ("base", "lstm", "own", "parameters", "rnn")]
    assert done.stdout.split() == expected
