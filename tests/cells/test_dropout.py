"""Zoneout, variational and recurrent dropout: their equations, their masks, and the same numbers from every engine."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from tests.equations.cells import Coupled, LayerNormLSTM
from unroll.cells import (
    CELLS,
    GRUCell,
    LSTMCell,
    Mask,
    RecurrentDropout,
    RNNCell,
    VariationalDropout,
    Zoneout,
    cell_type,
)
from unroll.cells.base import Cell, joined, parts
from unroll.engines import native, reference
from unroll.engines.native import programs
from unroll.equations import read
from unroll.equations.program import Program
from unroll.errors import InputError
from unroll.layers import Recurrent
from unroll.models import SequenceClassifier

D, H = 5, 7
RAGGED = torch.tensor([5, 0, 3, 3, 1, 5, 2])
kernels = pytest.mark.skipif(native.instruction_set() is None, reason="the compiled kernels are not installed")


def nested(cell):
    return Zoneout(VariationalDropout(RecurrentDropout(cell, 0.25), inputs=0.2, states=0.4), 0.3)


WRAPPED = {
    "zoneout": lambda cell: Zoneout(cell, 0.3),
    "variational": lambda cell: VariationalDropout(cell, inputs=0.3, states=0.5),
    "inputs alone": lambda cell: VariationalDropout(cell, inputs=0.3),
    "recurrent": lambda cell: RecurrentDropout(cell, 0.4),
    "nested": nested,
}


class Own(Cell):
    """A cell of one's own that asks for masks: noise on its gate, and units left out for the whole sequence."""

    input_size, state_sizes, state_names = D, (H,), ("h",)

    def __init__(self) -> None:
        super().__init__()
        self.W, self.U = nn.Parameter(torch.randn(H, H) / 2), nn.Parameter(torch.randn(H, D) / 2)

    @property
    def masks(self):
        return (Mask(H, 0.2, scaled=True), Mask(H, 0.5, constant=True)) if self.training else ()

    def forward(self, x: Tensor, state: Tensor, *masks: Tensor) -> Tensor:
        noise, units = masks or (1, 1)
        return torch.tanh(state @ self.W.T + noise * (x @ self.U.T)) * units


# ------------------------------------------------------------------------------------------------------------ equations


def drawn(cell, T, B, seed=1):
    torch.manual_seed(seed)
    return reference.draw_masks(cell, T, cell.initial_state(B))


def test_zoneout_is_its_equation_unit_by_unit():
    cell = Zoneout(LSTMCell(D, H, dtype=torch.float64), (0.3, 0.6))
    T, B = 4, 3
    x = torch.randn(T, B, D, dtype=torch.float64)
    of_h, of_c = drawn(cell, T, B)
    torch.manual_seed(1)
    outputs, (_, c_n) = reference.scan(cell, x, cell.initial_state(B))
    h, c = cell.initial_state(B)
    for t in range(T):
        new = cell.cell(x[t], (h, c))
        h, c = (
            torch.tensor(
                [[fresh[b, k].item() if kept[t, b, k] else old[b, k].item() for k in range(H)] for b in range(B)],
                dtype=torch.float64,
            )
            for old, fresh, kept in zip((h, c), new, (of_h, of_c), strict=True)
        )
        torch.testing.assert_close(outputs[t], h, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(c_n, c, rtol=1e-14, atol=1e-14)
    assert 0 < float((of_h == 0).double().mean()) < float((of_c == 0).double().mean()) < 1


@pytest.mark.parametrize("constant", [True, False])
def test_dropout_of_what_a_step_reads_is_its_equation(constant):
    plain = LSTMCell(D, H, dtype=torch.float64)
    cell = VariationalDropout(plain, 0.2, 0.5) if constant else RecurrentDropout(plain, 0.5)
    T, B = 5, 3
    x = torch.randn(T, B, D, dtype=torch.float64)
    masks = drawn(cell, T, B)
    *of_x, of_h = masks
    torch.manual_seed(1)
    outputs, (h_n, c_n) = reference.scan(cell, x, cell.initial_state(B))
    h, c = plain.initial_state(B)
    for t in range(T):
        m = of_h[0 if constant else t]
        h, c = plain(x[t] * of_x[0][0] if constant else x[t], (h * m, c))
        torch.testing.assert_close(outputs[t], h, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close((h_n, c_n), (h, c))
    assert set(of_h.unique().tolist()) == {0.0, 2.0}
    assert len({of_h[t].numpy().tobytes() for t in range(T)}) == (1 if constant else T)
    if constant:
        torch.testing.assert_close(of_x[0].max().item(), 1.25)
        assert all(mask.stride(0) == 0 for mask in masks)  # not copied


def test_evaluation_is_the_mean_of_training_and_draws_nothing():
    x, state = torch.randn(3, D), (torch.randn(3, H), torch.randn(3, H))
    plain = LSTMCell(D, H)
    cell = Zoneout(plain, (0.25, 0.5))
    new = plain(x, state)
    kept, old = cell(x, state, torch.ones(3, H), torch.ones(3, H)), cell(x, state, torch.zeros(3, H), torch.zeros(3, H))
    torch.testing.assert_close(kept, new)
    torch.testing.assert_close(old, state)
    cell.eval()
    before = torch.get_rng_state()
    for found, one, zero, p in zip(cell(x, state), kept, old, (0.25, 0.5), strict=True):
        torch.testing.assert_close(found, (1 - p) * one + p * zero)
    for make in (WRAPPED["variational"], WRAPPED["recurrent"]):
        wrapped = make(plain).eval()
        torch.testing.assert_close(wrapped(x, state), new)
        assert wrapped.masks == ()
        for engine in ("auto", "reference"):
            Recurrent(wrapped, engine=engine)(x[None])
        assert read(wrapped).masks == ()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "mask", [Mask(50, 0.3), Mask(50, 0.3, constant=True), Mask(50, 0.7, scaled=True), Mask(50, 0.0)]
)
def test_masks_drop_their_share_and_each_number_by_itself(mask):
    torch.manual_seed(4)
    T, B = 40, 60
    found = mask.draw(T, torch.zeros(B, 1))
    assert found.shape == (T, B, 50)
    n = B * 50 * (1 if mask.constant else T)
    zeros = (found == 0).double()
    assert abs(float(zeros.mean()) - mask.share) <= 5 * math.sqrt(mask.share * (1 - mask.share) / n)
    torch.testing.assert_close(found.max(), torch.tensor(1 / (1 - mask.share) if mask.scaled else 1.0))
    if mask.share > 0:
        spread = math.sqrt(mask.share * (1 - mask.share))
        for axis in (1, 2):  # sequences and units differ as independent draws do
            means = zeros.mean([k for k in range(3) if k != axis])
            expected = spread * math.sqrt(means.numel() / n)
            assert 0.6 * expected < float(means.std()) < 1.5 * expected
        assert torch.equal(zeros[0], zeros[1]) is mask.constant
    assert mask.draw(3, torch.zeros(2, 1, dtype=torch.float64)).dtype == torch.float64


# -------------------------------------------------------------------------------------------------------------- engines


def both(cell, x, lengths=None, backwards=False):
    """Outputs, last states and all gradients under the same seed, of the reference and of the interpreter."""
    results, d = [], None
    B = x.shape[1]
    states = [torch.randn(B, size, dtype=torch.float64).requires_grad_() for size in cell.state_sizes]
    leaves = [t for t in (x, *states, *cell.parameters()) if t.is_floating_point()]
    for engine in (reference, native):
        torch.manual_seed(5)
        out, last = engine.scan(cell, x, joined(states), lengths, backwards)
        values = [out, *parts(last)]
        after = torch.rand(2)
        d = d or [torch.randn_like(value) for value in values]
        of = torch.autograd.grad(values, leaves, d, materialize_grads=True, allow_unused=True)
        results.append([after, *values, *of])
    return results


def close(results):
    theirs, ours = results
    assert torch.equal(theirs[0], ours[0])  # as much was drawn
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@kernels
@pytest.mark.parametrize("how", WRAPPED)
@pytest.mark.parametrize("kind", [*CELLS, LayerNormLSTM, Coupled, nn.GRUCell], ids=lambda k: getattr(k, "__name__", k))
def test_engines_see_the_same_masks_in_both_passes(kind, how):
    torch.manual_seed(2)
    cell = WRAPPED[how](cell_type(kind)(D, H) if isinstance(kind, str) else kind(D, H)).double()
    assert native.why_not(cell, torch.zeros(1, 1, D, dtype=torch.float64)) is None
    for T, B, lengths, backwards in (
        (4, 6, None, False),
        (5, 7, RAGGED, True),
        (1, 1, None, False),
        (3, 0, None, True),
    ):
        x = torch.randn(T, B, D, dtype=torch.float64, requires_grad=True)
        close(both(cell, x, lengths, backwards))
        close(both(cell.eval(), x, lengths, backwards))
        cell.train()


@kernels
def test_engines_see_the_same_masks_of_a_cell_of_ones_own():
    cell = Own().double()
    assert native.why_not(cell, torch.zeros(1, 1, D, dtype=torch.float64)) is None
    close(both(cell, torch.randn(5, 7, D, dtype=torch.float64, requires_grad=True), RAGGED, True))


@kernels
@pytest.mark.parametrize("name", ["lstm", "gru", "layernorm"])
def test_masks_stand_beside_words(name):
    cell = Zoneout(RecurrentDropout(cell_type(name)(9, H), 0.25), 0.3).double()
    x = torch.randint(9, (5, 7))
    assert native.why_not(cell, x) is None
    close(both(cell, x, RAGGED))
    with pytest.raises(InputError, match=r"inputs is 0.5, but x are words; drop states alone"):
        Recurrent(VariationalDropout(RNNCell(9, H), inputs=0.5))(x)


@kernels
def test_masks_are_the_same_in_a_second_derivative():
    cell = nested(LSTMCell(D, H)).double()
    x = torch.randn(3, 2, D, dtype=torch.float64, requires_grad=True)
    found = []
    for engine in (reference, native):
        torch.manual_seed(6)
        out, _ = engine.scan(cell, x, cell.initial_state(2))
        (first,) = torch.autograd.grad((out**3).sum(), x, create_graph=True)
        found.append(torch.autograd.grad((first**2).sum(), [x, *cell.parameters()]))
    torch.testing.assert_close(found[1], found[0], rtol=1e-10, atol=1e-10)


@kernels
def test_layers_of_wrapped_cells_draw_masks_of_their_own():
    torch.manual_seed(0)
    layer = Recurrent(Zoneout(GRUCell(H, H), 0.5), num_layers=2)
    both_ways = Recurrent([[nested(LSTMCell(D, H)) for _ in range(2)], [nested(LSTMCell(2 * H, H)) for _ in range(2)]])
    x, found = torch.randn(5, 7, D), []
    for engine in ("reference", "native"):
        both_ways.engine = engine
        torch.manual_seed(7)
        outputs, (h_n, c_n) = both_ways(x, lengths=RAGGED)
        found.append(outputs)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)
    assert (h_n.shape, c_n.shape) == ((4, 7, H), (4, 7, H))
    first, second = (cells[0] for cells in layer.cells)
    assert not torch.equal(first.cell.W, second.cell.W)
    torch.manual_seed(8)
    one = layer(torch.randn(3, 2, H))[0]
    torch.manual_seed(9)
    assert not torch.equal(one, layer(torch.randn(3, 2, H))[0])


@kernels
def test_a_model_of_wrapped_cells_learns_alike_on_both_engines():
    losses = []
    for engine in ("reference", "native"):
        torch.manual_seed(3)
        kind = lambda width, units: Zoneout(LSTMCell(width, units), 0.1)  # noqa: E731
        model = SequenceClassifier(kind, D, H, 3, engine=engine).double()
        model.initialise("orthogonal", forget_bias=1.0)
        assert bool((model.layers.cells[0][0].cell.b[H : 2 * H] == 1).all())
        x, y = torch.randn(6, 12, D, dtype=torch.float64), torch.arange(12) % 3
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        for _ in range(5):
            optimizer.zero_grad()
            model.backward(x, y)
            optimizer.step()
        losses.append(float(model.eval().loss(x, y).detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


@kernels
def test_training_and_evaluation_in_turn_read_the_cell_once_each(monkeypatch):
    count = []
    monkeypatch.setattr(programs, "read", lambda *given: count.append(1) or read(*given))
    layer, x = Recurrent(Zoneout(GRUCell(D, H), 0.2), engine="native"), torch.randn(2, 3, D)
    for _ in range(3):
        layer.train()(x)
        layer.eval()(x)
    assert len(count) == 2


# ------------------------------------------------------------------------------------------------------------- programs


def test_a_program_keeps_its_masks():
    program = read(nested(LSTMCell(D, H)))
    assert program.inputs == (D, H, H, D, H, H)
    assert [mask.share for mask in program.masks] == [0.3, 0.3, 0.2, 0.4, 0.25]
    assert [(mask.constant, mask.scaled) for mask in program.masks[1:4]] == [(False, False), (True, True), (True, True)]
    parameters = {name: tuple(p.shape) for name, p in nested(LSTMCell(D, H)).named_parameters()}
    again = Program.from_json(program.to_json(), program.constants, parameters)
    assert again.masks == program.masks
    with pytest.raises(InputError, match="the step program is damaged"):
        Program.from_json(program.to_json().replace('"masks": [[', '"masks": [["a", '), program.constants, parameters)


def test_formulas_print_a_mask_as_a_letter():
    assert "h_t = m_t ⊙ h1_t + (1 - m_t) ⊙ h_{t-1}" in str(read(Zoneout(GRUCell(D, H), 0.2)))
    assert "h_kept_t = m ⊙ h_{t-1}" in str(read(VariationalDropout(RNNCell(D, H), states=0.2))).replace("s_{", "h_{")
    lines = str(read(nested(RNNCell(D, H)))).split("\n")
    assert "x_kept_t = m2 ⊙ x_t" in lines
    assert "h_t = 0.75 h1_t + 0.25 h_{t-1}" in str(read(Zoneout(GRUCell(D, H), 0.25).eval()))


# -------------------------------------------------------------------------------------------------------------- wrappers


def test_wrappers_are_cells_with_the_parameters_of_what_they_wrap():
    plain = LSTMCell(D, H)
    cell = Zoneout(VariationalDropout(plain, states=0.5), 0.1)
    assert (cell.input_size, cell.state_sizes, cell.state_names) == (D, (H, H), ("h", "c"))
    assert cell.title == "LSTM with variational dropout and zoneout"
    assert [id(p) for p in cell.parameters()] == [id(p) for p in plain.parameters()]
    other = copy.deepcopy(cell)
    other.initialise("orthogonal")
    assert not other.cell.cell.b.any()
    assert plain.b.any()
    other.set_bias("f", 2.0)
    assert bool((other.cell.cell.b[H : 2 * H] == 2).all())
    other.load_state_dict(cell.state_dict())
    assert torch.equal(other.cell.cell.W, plain.W)
    assert (other.share, other.cell.states) == ((0.1, 0.1), 0.5)


def test_a_step_called_by_hand_draws_its_own_masks():
    cell, x, state = nested(LSTMCell(D, H)), torch.randn(3, D), (torch.randn(3, H), torch.randn(3, H))
    masks = [mask[0] for mask in drawn(cell, 1, 3)]
    torch.manual_seed(1)
    torch.testing.assert_close(cell(x, state), cell(x, state, *masks), rtol=0, atol=0)
    torch.manual_seed(1)
    assert not torch.equal(cell(x, state)[0], cell(x, state)[0])
    with pytest.raises(InputError, match=r"Zoneout.forward got 1 masks; expected 5"):
        cell(x, state, masks[0])


def test_quantities_are_those_of_the_step():
    cell, x, state = nested(LSTMCell(D, H)).eval(), torch.randn(3, D), (torch.randn(3, H), torch.randn(3, H))
    found = cell.quantities(x, state)
    assert list(found) == ["i", "f", "c_tilde", "o", "c", "h"]
    torch.testing.assert_close((found["h"], found["c"]), cell(x, state))
    cell.train()
    torch.manual_seed(1)
    assert bool((cell.quantities(x, state)["c"] == state[1]).any())  # kept by zoneout


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Zoneout(GRUCell(D, H), 1), r"share is 1; expected a share in \[0, 1\)"),
        (lambda: Zoneout(GRUCell(D, H), -0.1), r"share is -0.1; expected a share"),
        (lambda: Zoneout(GRUCell(D, H), "a"), r"share is 'a'; expected a share"),
        (lambda: Zoneout(GRUCell(D, H), True), r"share is True; expected a share"),
        (lambda: Zoneout(LSTMCell(D, H), (0.1,)), r"share has 1 numbers; expected one, or one for each state \(h, c\)"),
        (lambda: VariationalDropout(RNNCell(D, H), inputs=2), r"inputs is 2; expected a share"),
        (lambda: VariationalDropout(RNNCell(D, H), states=float("nan")), r"states is nan; expected a share"),
        (lambda: RecurrentDropout(RNNCell(D, H), 1.0), r"share is 1.0; expected a share"),
        (lambda: Mask(3, 1.5).draw(2, torch.zeros(2, 1)), r"the share of a mask is 1.5; expected a share in"),
        (lambda: Zoneout(nn.Linear(2, 2), 0.1), r"Linear.forward takes 1 arguments; expected x and the state"),
    ],
)
def test_wrappers_say_what_does_not_fit(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_dropped_inputs_need_a_known_width():
    class Wide(nn.Module):
        hidden_size = H

        def forward(self, x: Tensor, h: Tensor) -> Tensor:
            return h + x.sum(-1, keepdim=True)

    with pytest.raises(InputError, match="Wide does not say its input_size, the width of the inputs to be dropped"):
        VariationalDropout(Wide(), inputs=0.5)
    outputs, _ = Recurrent(VariationalDropout(Wide(), states=0.5))(torch.randn(3, 2, 4))
    assert outputs.shape == (3, 2, H)
