"""RNN, LSTM and GRU layers against torch's own, with copied weights: outputs, states and every gradient."""

import itertools
import re

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

from unroll.cells import LSTMCell
from unroll.engines import ENGINES, native
from unroll.errors import InputError
from unroll.layers import GRU, LSTM, RNN, Recurrent

T, B, D, H = 5, 4, 3, 6
engines = pytest.mark.parametrize("engine", ENGINES)
kinds = pytest.mark.parametrize("kind", [LSTM, RNN, GRU])


@pytest.fixture(autouse=True)
def _seed_and_skip(request):
    torch.manual_seed(0)
    engine = getattr(request.node, "callspec", None) and request.node.callspec.params.get("engine")
    if engine == "native" and native.why_not(LSTMCell(1, 1), torch.zeros(1, 1, 1)):
        pytest.skip("the native engine is not built here")


def pair(kind, engine, **options):
    """A torch layer in float64 and ours with its weights."""
    theirs = kind.torch_type(D, H, dtype=torch.float64, **options)
    return theirs, kind.from_torch(theirs, engine=engine)


def flat(state):
    return state if isinstance(state, tuple) else (state,)


def gradients(ours):
    """Ours by torch's names; torch's two biases share one gradient."""
    named = {}
    for cell, suffix in ours._cells_with_suffix():
        named[f"weight_hh_{suffix}"] = cell.W.grad
        named[f"weight_ih_{suffix}"] = cell.U.grad
        if cell.b is not None:
            named[f"bias_ih_{suffix}"] = named[f"bias_hh_{suffix}"] = cell.b.grad
            if isinstance(ours, GRU):  # whose candidate has a bias of its own at h
                H = cell.hidden_size
                named[f"bias_hh_{suffix}"] = torch.cat([cell.b.grad[: 2 * H], cell.b_h.grad])
    return named


def assert_same(theirs, ours, run):
    """`run(layer, x)` -> outputs and state; compares them, the gradients of x and of all weights."""
    results = []
    for layer in (theirs, ours):
        x = torch.randn(T, B, D, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
        outputs, state = run(layer, x)
        loss = sum(((part * (2 + k)).sin()).sum() for k, part in enumerate((outputs, *flat(state))))
        loss.backward()
        results.append((outputs, flat(state), x.grad))
    torch.testing.assert_close(results[1], results[0], rtol=1e-10, atol=1e-12)
    mine = gradients(ours)
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(mine[name], parameter.grad, rtol=1e-10, atol=1e-12)


@engines
@kinds
@pytest.mark.parametrize(
    ("num_layers", "bidirectional", "bias"), list(itertools.product([1, 3], [False, True], [True, False]))
)
def test_equal_to_torch_in_layers_and_directions(kind, engine, num_layers, bidirectional, bias):
    theirs, ours = pair(kind, engine, num_layers=num_layers, bidirectional=bidirectional, bias=bias)
    assert_same(theirs, ours, lambda layer, x: layer(x))


@engines
def test_relu_is_equal_to_torch(engine):
    theirs, ours = pair(RNN, engine, nonlinearity="relu", num_layers=2)
    assert_same(theirs, ours, lambda layer, x: layer(x))


@engines
@kinds
def test_initial_states_count_and_get_gradients(kind, engine):
    theirs, ours = pair(kind, engine, num_layers=2, bidirectional=True)
    seen = []
    for layer in (theirs, ours):
        first = [torch.randn(4, B, H, dtype=torch.float64).requires_grad_() for _ in range(2 if kind is LSTM else 1)]
        torch.manual_seed(5)
        with torch.no_grad():
            for part in first:
                part.normal_()
        outputs, state = layer(torch.ones(T, B, D, dtype=torch.float64), tuple(first) if kind is LSTM else first[0])
        (outputs.sum() + sum((part**2).sum() for part in flat(state))).backward()
        seen.append([outputs, *flat(state), *(part.grad for part in first)])
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-10, atol=1e-12)


@engines
@kinds
def test_batch_first_and_single_sequences_have_torchs_shapes(kind, engine):
    theirs, ours = pair(kind, engine, batch_first=True, bidirectional=True, num_layers=2)
    x = torch.randn(B, T, D, dtype=torch.float64)
    for given in (x, x[0]):
        expected, found = theirs(given), ours(given)
        torch.testing.assert_close(found[0], expected[0])
        torch.testing.assert_close(flat(found[1]), flat(expected[1]))


@engines
@kinds
def test_lengths_and_packed_sequences_are_equal_to_torchs_packed(kind, engine):
    lengths = torch.tensor([2, 5, 1, 4])
    theirs, ours = pair(kind, engine, num_layers=2, bidirectional=True)

    def packed(layer, x):
        outputs, state = layer(pack_padded_sequence(x, lengths, enforce_sorted=False))
        return pad_packed_sequence(outputs)[0], state

    def padded(layer, x):
        return layer(x, lengths=lengths) if layer is ours else packed(layer, x)

    assert_same(theirs, ours, packed)
    theirs.zero_grad(), ours.zero_grad()
    assert_same(theirs, ours, padded)


@engines
@kinds
def test_packed_result_has_the_form_of_torchs(kind, engine):
    theirs, ours = pair(kind, engine)
    sequences = [torch.randn(n, D, dtype=torch.float64) for n in (1, 4, 2)]
    packed = pack_sequence(sequences, enforce_sorted=False)
    expected, found = theirs(packed)[0], ours(packed)[0]
    torch.testing.assert_close(found.data, expected.data)
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        assert torch.equal(getattr(found, name), getattr(expected, name))


@engines
@kinds
def test_padding_changes_nothing_whatever_stands_there(kind, engine):
    layer = kind(D, H, num_layers=2, bidirectional=True, engine=engine)
    lengths = torch.tensor([2, 5, 1, 4])
    x = torch.randn(T, B, D)
    filled = x.clone()
    for k, n in enumerate(lengths):
        filled[n:, k] = float("nan")
    results = []
    for given in (x, filled):
        layer.zero_grad()
        outputs, state = layer(given, lengths=lengths)
        (outputs.sum() + sum(part.sum() for part in flat(state))).backward()
        results.append([outputs, *flat(state), *(p.grad.clone() for p in layer.parameters())])
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
    for k, n in enumerate(lengths):
        assert not results[0][0][n:, k].any()


@engines
@kinds
def test_a_sequence_is_read_the_same_alone_and_in_a_batch(kind, engine):
    layer = kind(D, H, bidirectional=True, engine=engine)
    lengths = torch.tensor([2, 5, 3, 4])
    x = torch.randn(T, B, D)
    together = layer(x, lengths=lengths)[0]
    for k, n in enumerate(lengths):
        alone = layer(x[:n, k])[0]
        torch.testing.assert_close(together[:n, k], alone)


@engines
@kinds
def test_word_indices_stand_for_one_hot_vectors(kind, engine):
    layer = kind(D, H, bidirectional=True, engine=engine)
    words = torch.randint(D, (T, B))
    lengths = torch.tensor([2, 5, 0, 4])
    gathered = []
    for x in (words, torch.nn.functional.one_hot(words, D).float()):
        layer.zero_grad()
        outputs, state = layer(x, lengths=lengths)
        (outputs.square().sum() + sum(part.sum() for part in flat(state))).backward()
        gathered.append([outputs, *flat(state), *(p.grad.clone() for p in layer.parameters())])
    torch.testing.assert_close(gathered[1], gathered[0])


@kinds
def test_weights_survive_the_way_to_torch_and_back(kind):
    layer = kind(D, H, num_layers=2, bidirectional=True, batch_first=True)
    back = kind.from_torch(layer.to_torch())
    x = torch.randn(B, T, D)
    torch.testing.assert_close(layer.to_torch()(x)[0], layer(x)[0])
    for name, parameter in layer.named_parameters():
        assert torch.equal(dict(back.named_parameters())[name], parameter)


@kinds
def test_dropout_acts_between_layers_in_training_only(kind):
    layer = kind(D, H, num_layers=2, dropout=0.5)
    x = torch.randn(T, B, D)
    assert not torch.equal(layer(x)[0], layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])
    single = kind(D, H, dropout=0.5)
    assert torch.equal(single(x)[0], single(x)[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: LSTM(3, 6, num_layers=0), "num_layers is 0; expected a whole number of at least 1"),
        (lambda: LSTM(None, 6), "input_size is None; expected a whole number of at least 1"),
        (lambda: RNN("a", 6), "input_size is 'a'; expected a whole number of at least 1"),
        (lambda: LSTM(True, 6), "input_size is True; expected a whole number of at least 1"),
        (lambda: RNN(3, 2.0), "hidden_size is 2.0; expected a whole number of at least 1"),
        (lambda: LSTM(3, 8, proj_size=4), "LSTM has no argument 'proj_size'; there are no projections here"),
        (lambda: LSTM(3, 8, num_layer=4), "LSTM has no argument 'num_layer'; did you mean 'num_layers'?"),
        (lambda: RNN(3, 8, num_layer=4), "RNN has no argument 'num_layer'; did you mean 'num_layers'?"),
        (lambda: LSTM(3, 6, dropout=1.5), "dropout is 1.5; expected a share in [0, 1)"),
        (lambda: LSTM(3, 6, engine="nativ"), "unknown engine 'nativ'; did you mean 'native'?"),
        (lambda: LSTM(3, 6)(torch.zeros(5, 4, 2)), "2 features in its last axis; expected input_size = 3"),
        (lambda: LSTM(3, 6)(torch.zeros(0, 4, 3)), "no time step (T = 0)"),
        (lambda: RNN(3, 6)(torch.zeros(5)), "shape (5,); expected (T, D) or (T, B, D)"),
        (
            lambda: RNN(3, 6)(torch.zeros(5, 4, 3), torch.zeros(1, 3, 6)),
            "expected (layers·directions, B, H) = (1, 4, 6)",
        ),
        (lambda: RNN(3, 6)(torch.zeros(5, 4, 3), lengths=torch.tensor([1, 2])), "expected one for each sequence, (4,)"),
        (
            lambda: RNN(3, 6)(torch.zeros(5, 4, 3), lengths=torch.tensor([1, 2, 9, 1])),
            "lengths run from 1 to 9; expected 0 to 5",
        ),
        (lambda: LSTM.from_torch(torch.nn.GRU(3, 6)), "from_torch got a GRU; expected torch.nn.LSTM"),
        (lambda: LSTM.from_torch(torch.nn.LSTM(3, 6, proj_size=2)), "proj_size = 2"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert message in str(error.value)


@engines
@kinds
def test_an_empty_batch_gives_empty_results(kind, engine):
    layer = kind(D, H, engine=engine)
    outputs, state = layer(torch.zeros(T, 0, D))
    assert outputs.shape == (T, 0, H)
    assert all(part.shape == (1, 0, H) for part in flat(state))


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize("layer_type", [RNN, LSTM])
def test_word_indices_may_have_any_integer_type(layer_type, engine):
    layer = layer_type(5, 3, engine=engine)
    words = torch.randint(0, 5, (4, 2))
    expected = layer(words)[0]
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
        assert torch.equal(layer(words.to(dtype))[0], expected)


@pytest.mark.parametrize("engine", ["auto", "reference"])
@pytest.mark.parametrize(
    ("index", "dtype"), [(5, torch.int64), (-1, torch.int64), (200, torch.uint8), (-3, torch.int16)]
)
def test_word_indices_out_of_range_are_named(index, dtype, engine):
    layer = LSTM(5, 3, engine=engine)
    words = torch.zeros(4, 2, dtype=dtype)
    words[3, 1] = index
    with pytest.raises(InputError) as raised:
        layer(words)
    assert str(raised.value) == f"LSTM: the input holds word index {index}; expected 0 to 4, for input_size is V = 5"
    layer(words, lengths=[4, 3])  # in the padding it is no word
    with pytest.raises(InputError, match="word index"):
        layer(pack_padded_sequence(words, [4, 4]))


@pytest.mark.parametrize("dtype", [torch.bool, torch.complex64], ids=str)
def test_what_is_neither_features_nor_indices_is_refused(dtype):
    with pytest.raises(InputError, match="expected features in floats or word indices in integers"):
        LSTM(5, 3)(torch.zeros(4, 2, dtype=dtype))


def test_word_indices_without_values_pass():
    layer = LSTM(5, 3, device="meta")
    assert layer(torch.zeros(4, 2, dtype=torch.int64, device="meta"))[0].shape == (4, 2, 3)
    layer = LSTM(5, 3)
    words = torch.randint(0, 5, (6, 4, 2))
    found = torch.func.vmap(lambda words: layer(words)[0])(words)
    torch.testing.assert_close(found, torch.stack([layer(part)[0] for part in words]))


def test_layers_say_what_they_are():
    assert repr(LSTM(3, 5)).startswith("LSTM(\n  3, 5, num_layers=1, engine='auto'\n")
    full = RNN(3, 5, 2, bias=False, batch_first=True, dropout=0.5, bidirectional=True, engine="reference")
    said = "3, 5, num_layers=2, batch_first=True, dropout=0.5, bidirectional=True, engine='reference', bias=False"
    assert repr(full).startswith(f"RNN(\n  {said}\n")


def test_words_need_not_hold_the_first_and_must_be_known():
    layer = LSTM(5, 3)
    outputs, _ = layer(torch.tensor([[1, 4], [2, 3]]))
    assert outputs.shape == (2, 2, 3)
    for word in (-1, 5):
        with pytest.raises(InputError, match=f"the input holds word index {word}; expected 0 to 4"):
            layer(torch.tensor([[1, word]]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_words_are_not_looked_at_while_traced():
    layer, words = LSTM(5, 3, engine="reference").requires_grad_(False), torch.tensor([[1, 4], [2, 3]])
    with torch.no_grad():
        traced = torch.jit.trace(lambda x: layer(x)[0], words)
        torch.testing.assert_close(traced(words), layer(words)[0])


def test_initial_states_of_every_layer_must_be_given():
    layer, x = LSTM(3, 5, num_layers=2), torch.randn(4, 2, 3)
    good = torch.zeros(2, 2, 5)
    layer(x, (good, good))
    for bad in ((good,), (good, None), (good, good, good), [good], good, (None, None)):
        with pytest.raises(InputError, match=r"the initial state is a .*; expected a tuple \(h_0, c_0\)"):
            layer(x, bad)
    with pytest.raises(InputError, match=r"an initial state has shape \(1, 2, 5\)"):
        layer(x, (good, good[:1]))
    with pytest.raises(InputError, match="LSTM: the input is a NoneType"):
        layer(None)


def test_words_of_one_sentence_need_no_batch():
    layer = LSTM(5, 3)
    words = torch.tensor([4, 0, 2])
    out, (h, c) = layer(words)
    expected, (h_batch, c_batch) = layer(words[:, None])
    assert (out.shape, h.shape, c.shape) == ((3, 3), (1, 3), (1, 3))
    assert torch.equal(out, expected[:, 0])
    assert torch.equal(torch.stack([h, c]), torch.stack([h_batch[:, 0], c_batch[:, 0]]))


@pytest.mark.parametrize("layer", [RNN(3, 4), LSTM(3, 4)])
@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ("ab", "expected 2 whole numbers from 0 to 5"),
        (["1", "2"], "expected 2 whole numbers from 0 to 5"),
        ([None, 2], "expected 2 whole numbers from 0 to 5"),
        ([[1], [1, 2]], "expected 2 whole numbers from 0 to 5"),
        ([10**30, 1], "expected 2 whole numbers from 0 to 5"),
        (object(), "expected 2 whole numbers from 0 to 5"),
        ([1.0, 2.0], "lengths are torch.float32; expected whole numbers"),
        ([float("nan"), 2], "lengths are torch.float32; expected whole numbers"),
        ([True, False], "lengths are torch.bool; expected whole numbers"),
        ([1j, 2], "lengths are torch.complex64; expected whole numbers"),
        ([[1, 2]], r"lengths has shape \(1, 2\); expected one for each sequence, \(2,\)"),
        (3, r"lengths has shape \(\); expected one for each sequence, \(2,\)"),
        ([1, 6], "lengths run from 1 to 6; expected 0 to 5"),
    ],
)
def test_odd_lengths_are_refused_plainly(layer, lengths, message):
    with pytest.raises(InputError, match=message):
        layer(torch.zeros(5, 2, 3), lengths=lengths)


@pytest.mark.parametrize("layer", [RNN(3, 4), LSTM(3, 4)])
@pytest.mark.parametrize("x", [torch.zeros(5, 2, 3), torch.zeros(5, 3)])
@pytest.mark.parametrize("hx", [5, "ab", {}, (), (None, None), [None], (torch.zeros(1, 2, 4),) * 3, object(), True])
def test_an_initial_state_that_is_none_is_refused_plainly(layer, x, hx):
    with pytest.raises(InputError, match=r"the initial state is a .*; expected a t"):
        layer(x, hx)


@pytest.mark.parametrize("shape", [(), (4,), (1, 4, 1), (2, 1, 4)])
@pytest.mark.parametrize("x", [torch.zeros(5, 2, 3), torch.zeros(5, 3)])
def test_an_initial_state_of_another_shape_is_refused_plainly(x, shape):
    with pytest.raises(InputError, match="an initial state has shape"):
        LSTM(3, 4)(x, (torch.zeros(shape), torch.zeros(shape)))


@pytest.mark.parametrize("x", [None, [1, 2], "text", 3.0])
def test_an_input_that_is_no_tensor_is_refused_plainly(x):
    with pytest.raises(InputError, match=r"the input is a .*; expected a tensor"):
        RNN(3, 4)(x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"hidden_size": 4.5}, "hidden_size is 4.5; expected a whole number"),
        ({"num_layers": "2"}, "num_layers is '2'; expected a whole number"),
        ({"dropout": "a"}, "dropout is 'a'; expected a share"),
        ({"engine": 5}, "unknown engine 5"),
    ],
)
def test_odd_arguments_of_a_layer_are_refused_plainly(arguments, message):
    with pytest.raises(InputError, match=message):
        RNN(3, **{"hidden_size": 4, **arguments})


def test_recurrent_takes_one_cell_a_list_or_all_of_them():
    cell = torch.nn.GRUCell(3, 4)
    x = torch.randn(5, 2, 3)
    one = Recurrent(cell)
    torch.testing.assert_close(one(x)[0], Recurrent([cell])(x)[0])
    torch.testing.assert_close(one(x)[0], Recurrent([[cell]])(x)[0])
    both = Recurrent(cell, bidirectional=True)
    torch.testing.assert_close(both(x)[0][..., :4], one(x)[0])
    assert not torch.equal(*(next(ways.parameters()) for ways in both.cells[0]))  # the second direction has its own
    deep = Recurrent([torch.nn.GRUCell(3, 4), torch.nn.GRUCell(8, 4)], bidirectional=True, batch_first=True)
    assert deep(x.transpose(0, 1))[0].shape == (2, 5, 8)
    assert Recurrent(torch.nn.GRUCell(4, 4), num_layers=3)(torch.randn(5, 2, 4))[1].shape == (3, 2, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Recurrent([]), "there are cells for 0 layers; expected at least 1"),
        (lambda: Recurrent([torch.nn.GRUCell(3, 3)], num_layers=2), "there are cells for 1 layers; expected 2"),
        (
            lambda: Recurrent(torch.nn.GRUCell(3, 4), num_layers=2),
            "layer 2 reads 3 features; expected 4: give one cell for each",
        ),
        (
            lambda: Recurrent([torch.nn.GRUCell(3, 4), torch.nn.GRUCell(4, 5)]),
            "layer 2 has states of sizes (5,); expected (4,)",
        ),
    ],
)
def test_cells_that_do_not_fit_each_other_are_named(call, message):
    with pytest.raises(InputError, match=re.escape(message)):
        call()
