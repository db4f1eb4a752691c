"""A trace against the engines that train, the model's own answers, and a round trip through its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import unroll
from unroll.cells import LSTMCell, cell_type
from unroll.cli import cli
from unroll.engines import ENGINES, native
from unroll.errors import InputError, RunError
from unroll.insight.look import look
from unroll.insight.trace import Trace, decided, trace
from unroll.models import SequenceClassifier
from unroll.report.insight import draw_look, unit_order
from unroll.training.recipe import load_recipe
from unroll.training.run import RunFolder
from unroll.training.train import train

LAYERS = [(kind, layers, both) for kind in (unroll.RNN, unroll.LSTM) for layers in (1, 2) for both in (False, True)]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("kind", "num_layers", "bidirectional"), LAYERS)
def test_a_trace_equals_the_outputs_of_every_engine(engine, kind, num_layers, bidirectional):
    if engine == "native" and native.instruction_set() is None:
        pytest.skip("installed without the kernels")
    torch.manual_seed(0)
    layer = kind(5, 7, num_layers, bidirectional=bidirectional, engine=engine, dtype=torch.float64)
    x, lengths = torch.randn(9, 3, 5, dtype=torch.float64), torch.tensor([9, 4, 1])
    outputs, _ = layer(x, lengths=lengths)
    seen = trace(layer, x, lengths)
    name = "h" if kind is unroll.LSTM else "s"
    ways = [seen(name, -1, way) for way in ("forward", "backward")[: layer.directions]]
    np.testing.assert_allclose(np.concatenate(ways, -1), outputs.detach().numpy(), atol=1e-12)


def test_the_traced_gates_obey_the_equations_and_the_cell_state_is_their_sum():
    torch.manual_seed(1)
    layer = unroll.LSTM(3, 4, dtype=torch.float64)
    cell, x = layer.cells[0][0], torch.randn(6, 2, 3, dtype=torch.float64)
    seen = trace(layer, x)
    assert seen.names() == ["i", "f", "c_tilde", "o", "c", "h"]
    h = np.concatenate([np.zeros((1, 2, 4)), seen("h")[:-1]])
    c = np.concatenate([np.zeros((1, 2, 4)), seen("c")[:-1]])
    W, U, b = (p.detach().numpy() for p in (cell.W, cell.U, cell.b))
    for block, name in enumerate(("i", "f", "c_tilde", "o")):
        rows = slice(4 * block, 4 * block + 4)
        a = h @ W[rows].T + x.numpy() @ U[rows].T + b[rows]
        np.testing.assert_allclose(seen(name), np.tanh(a) if name == "c_tilde" else 1 / (1 + np.exp(-a)), atol=1e-12)
    np.testing.assert_allclose(seen("c"), seen("f") * c + seen("i") * seen("c_tilde"), atol=1e-12)
    np.testing.assert_allclose(seen("h"), seen("o") * np.tanh(seen("c")), atol=1e-12)


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_the_probabilities_at_t_are_what_the_model_says_of_the_first_t_steps(cell, bidirectional, pooling):
    torch.manual_seed(2)
    model = SequenceClassifier(cell, 4, 6, 3, num_layers=2, bidirectional=bidirectional, pooling=pooling, dropout=0.5)
    x, lengths = torch.randn(5, 3, 4), torch.tensor([5, 3, 1])
    p = trace(model, x, lengths).p
    model.eval()
    for n, length in enumerate(lengths.tolist()):
        for t in range(1, length + 1):
            said = model(x[:t, n : n + 1]).softmax(-1)[0].detach().numpy()
            np.testing.assert_allclose(p[t - 1, n], said, atol=1e-6)
        assert not p[length:, n].any()


def test_words_are_traced_through_the_embedding_and_as_one_hot_vectors():
    torch.manual_seed(3)
    words = torch.tensor([[3], [0], [9]])
    for size in (None, 4):
        model = SequenceClassifier("lstm", 10, 6, 2, embedding_size=size).eval()
        p = trace(model, words).p
        np.testing.assert_allclose(p[-1], model(words).softmax(-1).detach().numpy(), atol=1e-6)


def test_what_stands_in_the_padding_is_not_seen():
    torch.manual_seed(4)
    model = SequenceClassifier("lstm", 4, 6, 3, bidirectional=True)
    x, lengths = torch.randn(5, 2, 4), torch.tensor([5, 2])
    other = x.clone()
    other[2:, 1] = 7.0
    one, two = trace(model, x, lengths), trace(model, other, lengths)
    for key in one.quantities:
        np.testing.assert_array_equal(one.quantities[key], two.quantities[key])
        assert not one.quantities[key][2:, 1].any()
    np.testing.assert_allclose(one.p, two.p)


def test_a_saved_trace_is_the_same_trace(tmp_path: Path):
    model = SequenceClassifier("lstm", 4, 6, 3)
    seen = trace(model, torch.randn(5, 2, 4))
    back = Trace.load(seen.save(tmp_path / "t.npz"))
    assert list(back.quantities) == list(seen.quantities)
    np.testing.assert_array_equal(back("f"), seen("f"))
    np.testing.assert_array_equal(back.p, seen.p)
    assert back.class_names == seen.class_names
    (tmp_path / "t.npz").write_bytes(b"PK no zip")
    for name in ("t.npz", "none.npz"):
        with pytest.raises(RunError, match="unroll look"):
            Trace.load(tmp_path / name)


def test_the_decision_is_made_after_the_last_change_of_mind():
    one, two = [0.9, 0.1], [0.2, 0.8]
    assert decided(np.array([one, two, one, two, two])) == 4
    assert decided(np.array([two, two])) == 1
    assert decided(np.array([two, one])) == 2


def test_inputs_that_do_not_fit_are_refused_in_one_line():
    model = SequenceClassifier("rnn", 4, 6, 3)
    for x, text in [
        (torch.zeros(5, 2, 3), "3 features"),
        (torch.zeros(5, 4), "expected"),
        (torch.zeros(0, 2, 4), "at least one"),
        (torch.tensor([[4]]), "0 to 3"),
        ([[1.0]], "expected a tensor"),
    ]:
        with pytest.raises(InputError, match=text) as error:
            trace(model, x)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="there is no quantity 'h'; known: s"):
        trace(model, torch.zeros(5, 2, 4))("h")


def test_units_with_the_same_course_stand_together():
    t = np.linspace(0, 6, 30)
    courses = np.stack([np.sin(t), np.cos(t), np.sin(t) + 0.01, np.cos(t) + 0.01, -np.sin(t), -np.sin(t) - 0.01], 1)
    place = np.argsort(unit_order(courses))
    for a, b in ((0, 2), (1, 3), (4, 5)):
        assert abs(place[a] - place[b]) == 1


@pytest.fixture(scope="module")
def sentence_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "rnn"
    recipe = load_recipe("rnn-sentences", {"epochs": 3})
    train(recipe, RunFolder.create(path, recipe, {}), echo=lambda line: None)
    return path


def test_a_run_is_traced_from_the_input_as_it_is_written(sentence_run: Path):
    seen = unroll.trace(sentence_run, "The movie is good")
    assert seen("s").shape == (4, 1, 2)
    assert unroll.trace(sentence_run, ["The movie", "bad"]).lengths.tolist() == [2, 1]
    said = unroll.load(sentence_run).predict(["The movie is good"])[0].probabilities
    np.testing.assert_allclose(seen.p[-1, 0], list(said.values()), atol=1e-6)


def test_look_draws_and_says_when_the_model_knew(sentence_run: Path):
    done = CliRunner().invoke(cli, ["look", str(sentence_run), "The movie is bad"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "from step" in done.output
    assert (sentence_run / "figures" / "look.png").stat().st_size > 10_000
    assert Trace.load(sentence_run / "figures" / "look.npz")("s").shape == (4, 1, 2)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--layer", "-1"], "Invalid value for '--layer': -1 is not in the range x>=0."),
        (["--direction", "up"], "Invalid value for '--direction': 'up' is not one of 'forward', 'backward'."),
    ],
)
def test_look_takes_layers_from_0_and_two_directions(unroll, sentence_run: Path, words, said):
    assert unroll("look", sentence_run, *words) == (2, "", f"unroll: {said}\n")


def test_look_warns_of_words_that_are_not_in_the_vocabulary(unroll, sentence_run: Path):
    status, _, err = unroll("look", sentence_run, "The sushi is good", "--out", "out")
    assert (status, err) == (0, "unroll: not in the vocabulary, left out: sushi\n")
    status, _, err = unroll("look", sentence_run, "The movie is good", "--out", "out")
    assert (status, err) == (0, "")


def test_look_without_an_input_takes_a_test_sequence_and_knows_its_class(sentence_run: Path):
    first, second = look(sentence_run), look(sentence_run, number=1)
    assert {first.truth, second.truth} == {"0", "1"}
    assert second.words == ["The", "movie", "is", "good"]


class Narrowed(nn.Module):
    """A cell of one's own: a gate, a value of two units, and sums that serve as arguments alone."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.gate = nn.Linear(input_size + hidden_size, hidden_size)
        self.down, self.up = nn.Linear(hidden_size, 2), nn.Linear(2, hidden_size)

    def forward(self, x, h):
        a = self.gate(torch.cat([x, h], 1))
        keep = torch.sigmoid(a)
        idea = torch.tanh(self.down(h))
        return keep * h + (1 - keep) * torch.tanh(self.up(idea))


def test_a_trace_of_a_cell_of_ones_own_has_the_values_that_have_formulas():
    torch.manual_seed(6)
    model = SequenceClassifier(Narrowed, 5, 7, 3)
    x = torch.randn(6, 2, 5)
    seen = trace(model, x, torch.tensor([6, 4]))
    assert seen.names() == ["keep", "idea", "h"]
    assert [seen(name).shape for name in seen.names()] == [(6, 2, 7), (6, 2, 2), (6, 2, 7)]
    cell, h = model.layers.cells[0][0].module, torch.zeros(2, 7)
    with torch.no_grad():
        for t in range(6):
            keep, idea = torch.sigmoid(cell.gate(torch.cat([x[t], h], 1))), torch.tanh(cell.down(h))
            h = cell(x[t], h)
            for name, value in (("keep", keep), ("idea", idea), ("h", h)):
                running = torch.tensor([1.0, float(t < 4)])[:, None]
                np.testing.assert_allclose(seen(name)[t], value * running, atol=1e-6)
    titles = [axes.get_title() for axes in draw_look(seen).figure.axes]
    assert {"keep", "idea", "h"} <= set(titles)


def test_a_picture_and_a_series_can_be_drawn():
    torch.manual_seed(5)
    model = SequenceClassifier("lstm", 28, 12, 10)
    seen = trace(model, torch.rand(28, 1, 28))
    for picture in (True, False):
        figure = draw_look(seen, picture=picture, meanings=LSTMCell.meanings)
        titles = [axes.get_title() for axes in figure.axes]
        assert sum("gate" in title for title in titles) == 3
        assert any("When did it know" in title for title in titles)


@pytest.mark.parametrize(
    ("cell", "gates"),
    [
        (
            "gru",
            [
                "reset gate r: share of the state that the candidate sees",
                "update gate z: share of the state that is kept",
            ],
        ),
        ("mgu", ["forget gate f: share of h that is replaced", "candidate h̃: what could be written"]),
        ("coupled", ["forget gate f: share of c that is kept", "input gate i: share of the candidate let in"]),
    ],
)
def test_a_figure_says_what_each_gate_of_other_cells_does_and_has_no_empty_panel(cell, gates):
    model = SequenceClassifier(cell, 4, 6, 3)
    figure = draw_look(trace(model, torch.rand(9, 1, 4)), meanings=cell_type(cell).meanings)
    shown = [axes for axes in figure.axes if axes.axison]
    assert set(gates) <= {axes.get_title() for axes in shown}
    assert all(axes.images or axes.lines or axes.get_ylabel() or axes.collections for axes in shown)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["unheard"], "holds no word"),
        (["--number", "9"], "does not exist; there are 2"),
        (["good", "--number", "1"], "give one of them"),
        (["--layer", "4"], "there is no layer 4; expected 0 to 0, counted from the input"),
        (["--direction", "backward"], "there is no direction 'backward'; this model reads forward"),
    ],
)
def test_look_refuses_what_does_not_fit_the_run(sentence_run: Path, arguments: list[str], text: str):
    done = CliRunner().invoke(cli, ["look", str(sentence_run), *arguments])
    assert isinstance(done.exception, InputError)
    assert text in str(done.exception)
