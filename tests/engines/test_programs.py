"""Cells of any author's on the kernels' interpreter, against the reference engine."""

from __future__ import annotations

import threading
from array import array
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.equations.cells import KINDS, LayerNormLSTM, Minimal, Odd, Own, Peephole, own
from tests.equations.papers import PAPERS
from unroll.cells import CELLS, cell_type
from unroll.cells.base import as_cell, joined, parts
from unroll.cells.variants import without
from unroll.engines import native, reference
from unroll.engines.native import library as native_library
from unroll.engines.native import programs
from unroll.engines.native.instructions import SAVED
from unroll.engines.native.lowering import lower
from unroll.equations import check, read
from unroll.equations.reverse import reverse
from unroll.errors import InputError
from unroll.layers import Recurrent

pytestmark = pytest.mark.skipif(native.instruction_set() is None, reason="the compiled kernels are not installed")


def both(cell, T, B, lengths=None, backwards=False, dtype=torch.float64, d_out_only=False):
    """Outputs, last states and all gradients, of the reference and of the interpreter."""
    cell = cell.to(dtype)
    generator = torch.Generator().manual_seed(T * 100 + B)
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)  # noqa: E731
    x = draw(T, B, cell.input_size).requires_grad_()
    states = [draw(B, size).requires_grad_() for size in cell.state_sizes]
    results, d = [], None
    for engine in (reference, programs):
        out, last = engine.scan(cell, x, joined(states), lengths, backwards)
        values = [out] if d_out_only else [out, *parts(last)]
        d = d or [draw(*value.shape) for value in values]
        of = torch.autograd.grad(values, [x, *states, *cell.parameters()], d, materialize_grads=True, allow_unused=True)
        results.append([*values, *of])
    return results


def close(ours, theirs, tolerance):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        if a.numel():
            assert float((a - b).detach().abs().max()) <= tolerance * max(1.0, float(b.detach().abs().max()))


RAGGED = torch.tensor([5, 0, 3, 3, 1, 5, 2])
SHAPES = [
    (4, 5, None, False),
    (1, 1, None, False),
    (5, 7, RAGGED, False),
    (5, 7, RAGGED, True),
    (3, 64, None, True),
    (3, 0, None, False),
]


@pytest.mark.parametrize("kind", [*KINDS, *PAPERS, *CELLS], ids=lambda kind: getattr(kind, "__name__", kind))
@pytest.mark.parametrize("H", [1, 7, 20, 33])
@pytest.mark.filterwarnings("ignore:std:UserWarning")  # of no sequences at all
def test_interpreter_gives_the_references_numbers_and_gradients(kind, H):
    torch.manual_seed(H)
    cell = cell_type(kind)(6, H) if isinstance(kind, str) else own(kind, 6, H)
    for T, B, lengths, backwards in SHAPES:
        theirs, ours = both(cell, T, B, lengths, backwards)
        close(ours, theirs, 1e-10)
        theirs, ours = both(cell, T, B, lengths, backwards, d_out_only=True)
        close(ours, theirs, 1e-10)


@pytest.mark.parametrize("kind", [LayerNormLSTM, nn.GRUCell, nn.LSTMCell, Minimal], ids=lambda kind: kind.__name__)
def test_interpreter_in_float32_is_as_exact_as_torch(kind):
    ratios = []
    for seed in range(5):  # for in some a rounding of one step grows over the next ones
        torch.manual_seed(seed)
        cell = own(kind, 9, 24)
        exact, _ = both(cell, 20, 11)
        theirs, ours = both(cell, 20, 11, dtype=torch.float32)
        errors = [
            [float((a - b).detach().abs().max()) for a, b in zip(found, exact, strict=True)] for found in (ours, theirs)
        ]
        ratios.append(torch.tensor(errors[0]) / torch.tensor(errors[1]).clamp(min=1e-9))
    assert float(torch.stack(ratios).median(0).values.max()) <= 4


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_interpreter_is_the_same_to_the_bit_from_run_to_run(threads):
    torch.manual_seed(0)
    cell = own(LayerNormLSTM, 8, 40)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        first = both(cell, 12, 50, dtype=torch.float32)[1]
        assert all(torch.equal(a, b) for a, b in zip(first, both(cell, 12, 50, dtype=torch.float32)[1], strict=True))
    finally:
        torch.set_num_threads(before)


def test_interpreter_with_frozen_weights_and_without_gradients():
    cell = own(Odd, 6, 7).double()
    cell.module.p.requires_grad_(False)
    theirs, ours = [], []
    x = torch.randn(4, 3, 6, dtype=torch.float64)
    for engine, results in ((reference, theirs), (programs, ours)):
        out, _ = engine.scan(cell, x, cell.initial_state(3))
        learnt = [p for p in cell.parameters() if p.requires_grad]
        results += [out, *torch.autograd.grad(out.sum(), learnt)]
        with torch.no_grad():
            results.append(engine.scan(cell, x, cell.initial_state(3))[0])
    close(ours, theirs, 1e-10)


def test_interpreter_takes_batch_first_inputs_where_they_lie():
    cell = own(LayerNormLSTM, 6, 7)
    x = torch.randn(3, 4, 6)
    out = [engine.scan(cell, x.transpose(0, 1), cell.initial_state(3))[0] for engine in (reference, programs)]
    torch.testing.assert_close(*out)


def test_interpreter_differentiates_twice_and_through_one_graph_twice():
    cell = own(Minimal, 3, 4).double()
    x = torch.randn(3, 2, 3, dtype=torch.float64, requires_grad=True)
    h = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda x, h: programs.scan(cell, x, h)[0], (x, h))
    torch.autograd.gradgradcheck(lambda x, h: programs.scan(cell, x, h)[0], (x, h))
    out, _ = programs.scan(cell, x, h)
    first = torch.autograd.grad(out.sum(), x, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(out.sum(), x)[0])


def test_interpreter_reads_words_and_not_what_stands_in_the_padding():
    for cell in (cell_type("gru")(9, 4).double(), without(cell_type("lstm")(9, 4), "coupled").double()):
        words, lengths = torch.randint(0, 9, (5, 3)), torch.tensor([5, 2, 0])
        words[2:, 1], words[:, 2] = 99, -5
        results = []
        for engine in (reference, programs):
            out, _ = engine.scan(cell, words, cell.initial_state(3), lengths)
            results.append([out, *torch.autograd.grad(out.sin().sum(), list(cell.parameters()))])
        close(results[1], results[0], 1e-10)


def test_a_layer_takes_the_interpreter_by_itself():
    layer = Recurrent(
        [[own(LayerNormLSTM, 6, 7), own(LayerNormLSTM, 6, 7)], [own(LayerNormLSTM, 14, 7), own(LayerNormLSTM, 14, 7)]]
    )
    x = torch.randn(4, 3, 6)
    assert native.why_not(layer.cells[0][0], x) is None
    out, last = layer(x)
    layer.engine = "reference"
    expected, expected_last = layer(x)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(last, expected_last)


def test_a_cell_that_changes_is_read_again():
    cell = own(Minimal, 3, 4)
    x = torch.randn(3, 2, 3)
    before = programs.scan(cell, x, cell.initial_state(2))[0]
    step = programs.step_of(cell, False)
    assert programs.step_of(cell, False) is step
    cell.module.mask = torch.zeros(4)
    after = programs.scan(cell, x, cell.initial_state(2))[0]
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, reference.scan(cell, x, cell.initial_state(2))[0])


class Held(Own):
    """Computes with what it holds beside its parameters."""

    def __init__(self):
        super().__init__(3, 4, W=(4, 4), U=(4, 3))
        self.register_buffer("mask", torch.rand(4))
        self.scales, self.turn = {"h": [0.5]}, torch.rand(4)
        self.gate = nn.Linear(4, 4)

    def forward(self, x, h):
        h = torch.tanh(x @ self.U.T + h @ self.W.T) * self.mask
        return self.gate(h) * self.scales["h"][0] + self.turn.to(h)


@pytest.mark.parametrize(
    "change",
    [
        lambda cell: cell.mask.zero_(),
        lambda cell: cell.load_state_dict({**cell.state_dict(), "mask": torch.ones(4)}),
        lambda cell: cell.scales["h"].__setitem__(0, 2.0),
        lambda cell: cell.turn.zero_(),
    ],
    ids=["buffer", "state dict", "list", "tensor"],
)
def test_a_cell_that_changes_within_is_computed_as_it_is_now(change):
    cell, x = as_cell(Held()), torch.randn(3, 2, 3)
    before = programs.scan(cell, x, cell.initial_state(2))[0]
    change(cell.module)
    after = programs.scan(cell, x, cell.initial_state(2))[0]
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, reference.scan(cell, x, cell.initial_state(2))[0])


class Edge(Own):
    """A function of what is zero at the first step."""

    def __init__(self, function):
        super().__init__(3, 4, W=(4, 4), U=(4, 3))
        self.function = function

    def forward(self, x, h):
        return torch.tanh(self.function(h @ self.W.T) + x @ self.U.T)


@pytest.mark.parametrize(
    "function",
    [
        lambda a: a.clamp(0, 1),
        lambda a: a.clamp(max=0),
        lambda a: nn.functional.hardtanh(a, 0, 1),
        nn.functional.relu6,
        nn.functional.elu,
        nn.functional.relu,
        torch.abs,
        lambda a: torch.maximum(a, torch.zeros_like(a)),
        lambda a: a / (a.norm(dim=-1, keepdim=True) + 0.1),
        lambda a: a / (a.std(-1, keepdim=True) + 0.1),
    ],
    ids="clamp clamp_max hardtanh relu6 elu relu abs maximum norm std".split(),  # noqa: SIM905
)
def test_interpreter_has_torchs_gradient_at_zero(function):
    cell = as_cell(Edge(function)).double()
    found = []
    for engine in (reference, programs):
        h, x = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True), torch.ones(1, 2, 3, dtype=torch.float64)
        out, _ = engine.scan(cell, x, h)
        found.append(torch.autograd.grad(out.sum(), [h, *cell.parameters()]))
    assert native.why_not(cell, x) is None
    close(*found, 1e-12)


@pytest.mark.parametrize(
    "state",
    [torch.zeros(2, 4).double(), torch.zeros(2, 5), torch.zeros(1, 4), (torch.zeros(2, 4),) * 2],
    ids=["type", "units", "sequences", "number"],
)
def test_a_state_that_does_not_fit_is_refused_before_the_kernels_see_it(state):
    cell = as_cell(Held())
    with pytest.raises(InputError, match=r"Held.forward \(.*test_programs.py:\d+\): the state (is|has)"):
        programs.scan(cell, torch.zeros(3, 2, 3), state)


def test_weights_that_do_not_fit_are_refused_before_the_kernels_see_them():
    cell, x = as_cell(Held()), torch.zeros(3, 2, 3)
    cell.module.U.data = torch.zeros(4, 3, dtype=torch.float64)
    assert native.why_not(cell, x) == "the weights are torch.float32 on cpu, and torch.float64 on cpu"
    cell = as_cell(Held())
    programs.scan(cell, x, cell.initial_state(2))
    cell.module.U.data = torch.zeros(4, 2)
    with pytest.raises(InputError, match=r"a weight has shape \(4, 2\); expected \(4, 3\)"):
        programs.scan(cell, x, cell.initial_state(2))


class Liar(Own):
    """Computes something else at every call, in a way that reading does not see."""

    def __init__(self):
        super().__init__(3, 4, W=(4, 4), U=(4, 3))

    def forward(self, x, h):
        return torch.tanh(x @ self.U.T + h @ self.W.T) * (0.5 if len(x) == check.BATCH else 1.0)


class Scaled(Own):
    """h = tanh(W [x, h]) times a buffer, a tensor, and what a list, a dictionary and an object hold."""

    def __init__(self):
        super().__init__(3, 4)
        self.linear = nn.Linear(7, 4)
        self.register_buffer("mask", torch.ones(4))
        self.plain, self.uneven = torch.ones(4), torch.arange(1.0, 5.0)
        self.factors, self.named, self.options = [2.0], {"a": [1.0]}, SimpleNamespace(b=1.0)

    def forward(self, x, h):
        factor = self.factors[0] * self.named["a"][0] * self.options.b
        return torch.tanh(self.linear(torch.cat([x, h], 1))) * self.mask * self.plain * self.uneven * factor


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.mask.mul_(0.5),
        lambda c: c.mask.copy_(torch.tensor([0.0, 1.0, 0.0, 1.0])),
        lambda c: c.load_state_dict({**c.state_dict(), "mask": torch.tensor([1.0, 2.0, 3.0, 4.0])}),
        lambda c: c.plain.mul_(0.5),
        lambda c: c.uneven.data.add_(1.0),
        lambda c: setattr(c, "plain", torch.zeros(4)),
        lambda c: c.factors.__setitem__(0, 0.5),
        lambda c: c.named["a"].__setitem__(0, 0.5),
        lambda c: setattr(c.options, "b", 0.5),
        lambda c: c.linear.weight.data.mul_(0.5),
        lambda c: setattr(c, "linear", nn.Linear(7, 4)),
    ],
)
def test_a_cell_whose_numbers_change_in_place_computes_with_the_new_ones(change):
    torch.manual_seed(0)
    module = Scaled()
    ours, theirs, x = Recurrent(module, engine="native"), Recurrent(module, engine="reference"), torch.randn(5, 2, 3)
    before = ours(x)[0]
    change(module)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0])
    assert not torch.allclose(ours(x)[0], before)


@pytest.mark.parametrize("inner", [False, True])
def test_a_cell_with_hooks_is_left_to_the_reference_which_calls_them(inner):
    module, seen = Scaled(), []
    layer, x = Recurrent(module), torch.randn(5, 2, 3)
    layer(x)
    handle = (module.linear if inner else module).register_forward_hook(lambda *_: seen.append(1))
    layer(x)
    assert len(seen) == 5
    assert "has hooks" in native.why_not(layer.cells[0][0], x)
    handle.remove()
    assert native.why_not(layer.cells[0][0], x) is None


def test_a_program_that_differs_from_its_cell_is_not_used():
    cell = as_cell(Liar())
    with pytest.warns(UserWarning, match=r"Liar\.forward .*different numbers; the reference engine takes its place"):
        assert "different numbers" in native.why_not(cell, torch.randn(2, 2, 3))
    native.why_not(cell, torch.randn(2, 2, 3))  # says so once


def test_the_interpreter_works_in_several_threads_at_once():
    cell = own(LayerNormLSTM, 6, 16)
    x = torch.randn(6, 9, 6)
    expected = programs.scan(cell, x, cell.initial_state(9))[0]
    found = []

    def work():
        for _ in range(10):
            out = programs.scan(cell, x, cell.initial_state(9))[0]
            out.sum().backward()
            found.append(torch.equal(out, expected))

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [True] * 40


@pytest.mark.parametrize(
    ("kind", "most"), [("lstm", 6), ("gru", 5), (nn.LSTMCell, 6), (nn.GRUCell, 5), (Peephole, 6), (LayerNormLSTM, 16)]
)
def test_what_is_saved_of_a_step_is_no_more_than_the_backward_step_reads(kind, most):
    """Numbers a sequence and step in units of H; our LSTM kernel saves 5, the loop under autograd 14 for a peephole."""
    H = 128
    program = read(cell_type(kind)(28, H) if isinstance(kind, str) else own(kind, 28, H))
    words = iter(lower(program, reverse(program), [True]).words)
    many = lambda n: [next(words) for _ in range(n)]  # noqa: E731
    many(next(words)), many(2 * next(words))  # inputs and weights
    values = [many(4) for _ in range(next(words))]
    assert sum(width for width, home, _, _ in values if home == SAVED) <= most * H


# --- the C boundary -----------------------------------------------------------------------------------------------------


def make(words, numbers):
    words, numbers = array("q", words), array("d", numbers)
    made = native_library.library.unroll_program_make(
        words.buffer_info()[0], len(words), numbers.buffer_info()[0], len(numbers)
    )
    if made:
        native_library.library.unroll_program_free(made)
    return bool(made)


@pytest.fixture(scope="module")
def code():
    program = read(own(LayerNormLSTM, 6, 20))
    return lower(program, reverse(program), [True])


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_malformed_programs_are_refused_or_harmless(code, data):
    assert make(code.words, code.numbers)
    words = list(code.words)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(words) - 1))
        kind = data.draw(st.sampled_from(["change", "large", "cut"]))
        if kind == "cut":
            del words[place]
        else:
            words[place] = data.draw(st.integers(-3, 40) if kind == "change" else st.integers(-(2**63), 2**63 - 1))
    make(words, code.numbers)
    make(words[: len(words) // 2], code.numbers)


def test_a_program_with_a_word_too_many_or_few_is_refused(code):
    assert not make([*code.words, 0], code.numbers)
    assert not make(code.words[:-1], code.numbers)
    assert not make(code.words, code.numbers[:-1])
    assert not make([], [])
