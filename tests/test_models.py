"""The classifier: its readout, pooling, embedding and first weights."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.nn.utils.parametrize import register_parametrization

from unroll.engines import native
from unroll.engines.native import eager
from unroll.errors import InputError
from unroll.heads import Classification
from unroll.models import SequenceClassifier

T, B, D, H, C = 6, 4, 3, 5, 3


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_logits_are_w_out_h_plus_b_out_of_the_last_state(cell):
    model = SequenceClassifier(cell, D, H, C)
    x = torch.randn(T, B, D)
    outputs, _ = model.layers(x)
    torch.testing.assert_close(model(x), outputs[-1] @ model.W_out.T + model.b_out)


def test_in_two_directions_the_last_states_of_both_walks_are_read():
    model = SequenceClassifier("lstm", D, H, C, num_layers=2, bidirectional=True)
    lengths = torch.tensor([6, 2, 4, 1])
    x = torch.randn(T, B, D)
    outputs, _ = model.layers(x, lengths=lengths)
    for k, n in enumerate(lengths):
        h = torch.cat([outputs[n - 1, k, :H], outputs[0, k, H:]])
        torch.testing.assert_close(model(x, lengths)[k], model.W_out @ h + model.b_out)


def with_loss(model, weights=None, smoothing=0.0):
    """The model, whose head has these class weights and this label smoothing."""
    model.head.class_weights, model.head.label_smoothing = weights, smoothing
    return model


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("pooling", ["last", "max"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_loss_is_the_cross_entropy_of_the_logits(pooling, engine, bidirectional):
    model = SequenceClassifier("lstm", D, H, C, bidirectional=bidirectional, pooling=pooling, engine=engine).double()
    x, y, lengths = torch.randn(T, B, D).double(), torch.tensor([2, 0, 1, 2]), torch.tensor([6, 2, 4, 1])
    weights, parameters = torch.tensor([1.0, 2.0, 3.0]).double(), list(model.parameters())
    logits = model(x, lengths)
    for options, total, expected in (
        ((), None, cross_entropy(logits, y)),
        ((weights, 0.2), None, cross_entropy(logits, y, weights, label_smoothing=0.2)),
        ((weights, 0.2), 5.0, cross_entropy(logits, y, weights, label_smoothing=0.2, reduction="sum") / 5),
    ):
        loss = with_loss(model, *options).loss(x, y, lengths, total)
        torch.testing.assert_close(loss, expected)
        wanted = torch.autograd.grad(expected, parameters, retain_graph=True)
        for found, gradient in zip(torch.autograd.grad(loss, parameters, retain_graph=True), wanted, strict=True):
            torch.testing.assert_close(found, gradient)
        compiled = loss.grad_fn.name() == "_ReadoutLossBackward"
        assert compiled == (engine == "auto" and native.available() is None)


def gradients(model):
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def both_ways(model, *arguments):
    """Gradients by `backward` and by autograd, each added to gradients that are there already."""
    found = []
    for way in (model.backward, lambda *given: model.loss(*given).backward()):
        for p in model.parameters():
            p.grad = torch.ones_like(p) if p.requires_grad else None
        torch.manual_seed(3)  # for dropout
        way(*arguments)
        found.append(gradients(model))
    return found


no_kernels = pytest.mark.skipif(native.available() is not None, reason="needs the compiled kernels")
LOSS = torch.tensor([1.0, 2.0, 3.0]), 0.2


@no_kernels
@pytest.mark.parametrize(("cell", "nonlinearity"), [("rnn", "tanh"), ("rnn", "relu"), ("lstm", "tanh")])
@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backward_without_a_graph_has_the_bits_of_autograd(cell, nonlinearity, ragged, dtype, monkeypatch):
    model = with_loss(SequenceClassifier(cell, D, H, C, dropout=0.5, nonlinearity=nonlinearity), *LOSS).to(dtype).eval()
    x, y = torch.randn(B, T, D, dtype=dtype).transpose(0, 1), torch.tensor([2, 0, 1, 2])
    given = x, y, torch.tensor([6, 2, 4, 1]) if ragged else None
    expected = model.loss(*given)
    expected.backward()
    autograds = gradients(model)
    model.zero_grad()
    monkeypatch.setattr(torch.Tensor, "backward", None)  # nobody records
    loss = model.backward(*given)
    assert torch.equal(loss, expected)
    assert not loss.requires_grad
    for mine, its in zip(gradients(model), autograds, strict=True):
        assert torch.equal(mine, its)

    kept = [p.grad for p in model.parameters()]  # as views of one long vector may be kept
    model.backward(*given)
    for p, its, grad in zip(model.parameters(), autograds, kept, strict=True):
        assert p.grad is grad
        assert torch.equal(grad, 2 * its)


def test_a_batch_that_does_not_fit_is_refused_in_the_layers_words():
    model, y = SequenceClassifier("lstm", D, H, C), torch.tensor([2, 0, 1, 2])
    with pytest.raises(InputError, match="the input has 4 features in its last axis; expected input_size = 3"):
        model.backward(torch.randn(T, B, 4), y)
    with pytest.raises(InputError, match="lengths run from 0 to 7; expected 0 to 6"):
        model.backward(torch.randn(T, B, D), y, torch.tensor([0, 1, 2, 7]))
    with pytest.raises(InputError, match="classes run from 0 to 3; expected 0 to 2"):
        model.backward(torch.randn(T, B, D), torch.tensor([0, 1, 2, 3]))


def test_a_readout_too_large_for_the_kernels_is_torchs(monkeypatch):
    model = with_loss(SequenceClassifier("lstm", D, H, C), None, 0.1).double()
    x, y = torch.randn(T, B, D).double(), torch.tensor([2, 0, 1, 2])
    wanted, _ = both_ways(model, x, y)
    monkeypatch.setattr(eager, "_MOST", 0)
    for mine, its in zip(both_ways(model, x, y)[0], wanted, strict=True):
        torch.testing.assert_close(mine, its)


class Elsewhere(torch.nn.Module):
    """A parametrisation: W is made from another tensor, which gets the gradient."""

    def forward(self, W):
        return 2 * W


class TorchsOwn(torch.nn.LSTM):
    """In the place of our layers."""

    directions = 1
    engine = "auto"

    def forward(self, x, lengths=None):
        return super().forward(x)


class Weighted(SequenceClassifier):
    def represent(self, x, lengths=None):
        return 3 * super().represent(x, lengths)


@pytest.mark.parametrize(
    ("options", "change"),
    [
        ({"num_layers": 2}, None),
        ({"bidirectional": True}, None),
        ({"pooling": "mean"}, None),
        ({"dropout": 0.5}, None),
        ({"engine": "reference"}, None),
        ({}, lambda model: model.W_out.requires_grad_(False)),
        ({}, lambda model: model.layers.cells[0][0].requires_grad_(False)),
        ({}, lambda model: setattr(model.layers, "engine", "reference")),
        ({}, lambda model: setattr(model, "layers", TorchsOwn(D, H))),
        ({}, lambda model: setattr(model, "__class__", Weighted)),
        ({}, lambda model: register_parametrization(model.layers.cells[0][0], "W", Elsewhere())),
    ],
)
def test_backward_leaves_what_is_more_than_one_scan_to_autograd(options, change):
    model = SequenceClassifier("lstm", D, H, C, **options)
    if change is not None:
        change(model)
    ours, autograds = both_ways(model, torch.randn(T, B, D), torch.tensor([2, 0, 1, 2]))
    for mine, its in zip(ours, autograds, strict=True):
        assert (mine is None and its is None) or torch.equal(mine, its)


def test_backward_gives_the_inputs_their_gradient_too():
    model = SequenceClassifier("lstm", D, H, C)
    x, y = torch.randn(T, B, D, requires_grad=True), torch.tensor([2, 0, 1, 2])
    (expected,) = torch.autograd.grad(model.loss(x, y), x)
    model.backward(x, y)
    assert torch.equal(x.grad, expected)


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch says where the operation was called
def test_whoever_looks_for_anomalies_finds_them():
    model = SequenceClassifier("lstm", D, H, C)
    with torch.autograd.detect_anomaly(), pytest.raises(RuntimeError, match="returned nan values"):
        model.backward(torch.full((T, B, D), math.nan), torch.tensor([2, 0, 1, 2]))


def test_backward_of_words_and_under_autocast():
    model = SequenceClassifier("lstm", 9, H, C)
    y = torch.tensor([2, 0, 1, 2])
    for mine, its in zip(*both_ways(model, torch.randint(9, (T, B)), y), strict=True):
        assert torch.equal(mine, its)
    with torch.autocast("cpu", torch.bfloat16):
        for mine, its in zip(*both_ways(model, torch.randn(T, B, 9), y), strict=True):
            assert torch.equal(mine, its)


def test_unknown_cells_and_poolings_are_refused():
    with pytest.raises(InputError, match="unknown cell 'gruu'"):
        SequenceClassifier("gruu", D, H, C)
    with pytest.raises(InputError, match="unknown pooling 'sum'; known: last, max, mean"):
        Classification(C, pooling="sum")


@pytest.mark.parametrize("pooling", ["mean", "max"])
@pytest.mark.parametrize("ragged", [False, True])
def test_pooling_takes_every_step_of_a_sequence_and_no_padding(pooling, ragged):
    model = SequenceClassifier("lstm", D, H, C, pooling=pooling)
    with torch.no_grad():
        model.layers.cells[0][0].b.sub_(1.0)  # outputs mostly negative: a zero from the padding would win a maximum
    lengths = torch.tensor([6, 2, 4, 1]) if ragged else None
    x = torch.randn(T, B, D)
    outputs, _ = model.layers(x, lengths=lengths)
    for k in range(B):
        steps = outputs[: lengths[k] if ragged else T, k]
        h = steps.mean(0) if pooling == "mean" else steps.amax(0)
        torch.testing.assert_close(model(x, lengths)[k], model.W_out @ h + model.b_out)


def test_no_sentence_of_a_batch_changes_anothers_result():
    model = SequenceClassifier("lstm", 9, H, C, embedding_size=4, bidirectional=True, pooling="max").eval()
    words, lengths = torch.randint(9, (T, B)), torch.tensor([6, 2, 4, 1])
    together = model(words, lengths)
    for k, n in enumerate(lengths):
        alone = model(words[:n, k : k + 1], lengths[k : k + 1])
        torch.testing.assert_close(together[k : k + 1], alone)


def test_an_embedding_is_a_row_of_its_table():
    model = SequenceClassifier("rnn", 9, H, C, embedding_size=4).eval()
    words = torch.randint(9, (T, B))
    outputs, _ = model.layers(model.embedding[words])
    torch.testing.assert_close(model(words), outputs[-1] @ model.W_out.T + model.b_out)


def test_dropout_acts_in_training_only():
    model = SequenceClassifier("lstm", D, H, C, dropout=0.5)
    x = torch.randn(T, B, D)
    assert not torch.equal(model(x), model(x))
    model.eval()
    assert torch.equal(model(x), model(x))


def test_normal_initialisation_draws_the_labs_numbers_in_the_labs_order():
    model = SequenceClassifier("rnn", 5, 2, 2)
    torch.manual_seed(42)
    model.initialise("normal")
    torch.manual_seed(42)
    cell = model.layers.cells[0][0]
    for found, shape in ((cell.W, (2, 2)), (cell.U, (2, 5)), (model.W_out, (2, 2))):
        torch.testing.assert_close(found.data, torch.randn(shape) / math.sqrt(shape[1]))
    assert not cell.b.any()
    assert not model.b_out.any()


def test_one_class_is_refused():
    with pytest.raises(InputError, match="num_classes is 1, but a classifier needs at least 2 classes"):
        SequenceClassifier("rnn", D, H, 1)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_cell_of_ones_own_is_a_model_like_any_other(num_layers):
    torch.manual_seed(0)
    model = SequenceClassifier(torch.nn.GRUCell, 3, 5, 4, num_layers=num_layers, bidirectional=True, pooling="mean")
    x, y = torch.randn(6, 2, 3), torch.tensor([0, 3])
    theirs = torch.nn.GRU(3, 5, num_layers, bidirectional=True)
    for layer, cells in enumerate(model.layers.cells):
        for suffix, cell in zip(("", "_reverse"), cells, strict=True):
            for name, parameter in cell.module.named_parameters():
                getattr(theirs, f"{name}_l{layer}{suffix}").data.copy_(parameter)
    torch.testing.assert_close(model(x), theirs(x)[0].mean(0) @ model.W_out.T + model.b_out)
    model.backward(x, y)
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())
    before = [p.detach().clone() for p in model.layers.parameters()]
    model.initialise("orthogonal", 1.0)  # how this cell draws, and that it has no gate f, is its own business
    assert all(torch.equal(a, b) for a, b in zip(before, model.layers.parameters(), strict=True))
    with pytest.raises(InputError, match=r"unknown initialisation 'ortogonal'.*orthogonal"):
        model.initialise("ortogonal")
