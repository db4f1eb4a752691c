"""The classifier: its readout, pooling, embedding and first weights."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from unroll.engines import native
from unroll.errors import InputError
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


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("pooling", ["last", "max"])
def test_the_loss_is_the_cross_entropy_of_the_logits(pooling, engine):
    model = SequenceClassifier("lstm", D, H, C, bidirectional=True, pooling=pooling, engine=engine).double()
    x, y, lengths = torch.randn(T, B, D).double(), torch.tensor([2, 0, 1, 2]), torch.tensor([6, 2, 4, 1])
    weights, parameters = torch.tensor([1.0, 2.0, 3.0]).double(), list(model.parameters())
    logits = model(x, lengths)
    for options, expected in (
        ((), cross_entropy(logits, y)),
        ((weights, 0.2), cross_entropy(logits, y, weights, label_smoothing=0.2)),
        ((weights, 0.2, 5.0), cross_entropy(logits, y, weights, label_smoothing=0.2, reduction="sum") / 5),
    ):
        loss = model.loss(x, y, lengths, *options)
        torch.testing.assert_close(loss, expected)
        wanted = torch.autograd.grad(expected, parameters, retain_graph=True)
        for found, gradient in zip(torch.autograd.grad(loss, parameters, retain_graph=True), wanted, strict=True):
            torch.testing.assert_close(found, gradient)
        assert ("ReadoutLoss" in loss.grad_fn.name()) == (engine == "auto" and native.available() is None)


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
