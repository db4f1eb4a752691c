"""The contract of a cell: any module that computes one step is scanned, traced and measured."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from unroll import as_cell
from unroll.cells import CELLS, cell_type
from unroll.cells.base import Cell, parts
from unroll.engines import scan
from unroll.errors import InputError
from unroll.insight.trace import trace
from unroll.layers import Recurrent

T, B, D, H = 5, 3, 4, 6


class Spread(nn.Module):
    """forward(x, h, c)."""

    def __init__(self, hidden_size: int = H) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = nn.LSTMCell(D, hidden_size)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        h, c = self.cell(x, (h, c))
        return h, c


class Pair(Spread):
    """forward(x, (h, c))."""

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return super().forward(x, *state)


class Begun(Spread):
    """A first state of its own."""

    def initial_state(self, batch_size: int) -> tuple[Tensor, Tensor]:
        return torch.ones(batch_size, H), torch.full((batch_size, H), 2.0)


def by_hand(step, x: Tensor, *state: Tensor) -> Tensor:
    outputs = []
    for t in range(len(x)):
        state = parts(step(x[t], *state))
        outputs.append(state[0])
    return torch.stack(outputs)


@pytest.mark.parametrize(
    ("module", "sizes", "states"),
    [
        (nn.GRUCell(D, H), None, 1),
        (nn.RNNCell(D, H), H, 1),
        (Spread(), None, 2),
        (Spread(), (H, H), 2),
        (Pair(), (H, H), 2),
        (nn.LSTMCell(D, H), (H, H), 2),
    ],
)
def test_as_cell_takes_each_form_of_a_step(module, sizes, states):
    cell = as_cell(module, sizes)
    assert cell.state_sizes == (H,) * states
    assert as_cell(cell) is cell
    x = torch.randn(T, B, D)
    outputs, _ = scan(cell, x, cell.initial_state(B))
    inner = module.cell if isinstance(module, Spread) else module
    zeros = torch.zeros(B, H)
    step = inner if states == 1 else lambda x_t, h, c: inner(x_t, (h, c))
    torch.testing.assert_close(outputs, by_hand(step, x, *[zeros] * states))


def test_as_cell_takes_a_first_state_of_the_modules_own():
    module = Begun()
    outputs, (h_n, c_n) = Recurrent([[as_cell(module)]])(torch.randn(T, B, D))
    assert (outputs.shape, h_n.shape, c_n.shape) == ((T, B, H), (1, B, H), (1, B, H))
    h, c = as_cell(module).initial_state(B)
    assert bool((h == 1).all())
    assert bool((c == 2).all())
    assert not torch.equal(outputs, Recurrent([[as_cell(Pair(), (H, H))]])(torch.randn(T, B, D))[0])


def test_states_of_unequal_sizes_are_scanned_with_lengths():
    class Wide(Cell):
        input_size, state_sizes, state_names = D, (2, 7), ("h", "m")

        def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            h, m = state
            m = m + x.sum(-1, keepdim=True)
            return h + m[:, :2], m

    x, lengths = torch.randn(T, B, D), torch.tensor([5, 2, 0])
    outputs, (h, m) = Recurrent([[Wide()]])(x, lengths=lengths)
    assert (h.shape, m.shape) == ((1, B, 2), (1, B, 7))
    for k, n in enumerate(lengths.tolist()):
        sums = x[:n, k].sum(-1).cumsum(0)
        torch.testing.assert_close(m[0, k], torch.full((7,), float(sums[-1]) if n else 0.0))
        torch.testing.assert_close(outputs[:n, k, 0], sums.cumsum(0))
        assert not outputs[n:, k].any()
    assert Recurrent([[Wide()]])(x, hx=(torch.zeros(1, B, 2), torch.zeros(1, B, 7)))[0].shape == (T, B, 2)
    with pytest.raises(InputError, match=r"an initial state has shape \(1, 3, 2\); expected .* \(1, 3, 7\)"):
        Recurrent([[Wide()]])(x, hx=(torch.zeros(1, B, 2), torch.zeros(1, B, 2)))
    with pytest.raises(InputError, match=r"the initial state is a Tensor; expected a tuple \(h_0, m_0\)"):
        Recurrent([[Wide()]])(x, hx=torch.zeros(1, B, 2))


def test_a_trace_has_the_states_of_any_cell():
    module = Spread()
    found = trace(Recurrent([[as_cell(module)]]), x := torch.randn(T, B, D))
    assert found.names() == ["h", "c"]
    outputs, _ = Recurrent([[as_cell(module)]])(x)
    torch.testing.assert_close(torch.from_numpy(found("h")), outputs.detach())


def test_as_cell_says_what_does_not_fit():
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    class Wrong(nn.Module):
        def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            return h, h

    with pytest.raises(InputError, match=r"Nothing.forward takes 1 arguments; expected x and the state"):
        as_cell(Nothing())
    with pytest.raises(InputError, match=r"Wrong has no hidden_size; give state_sizes"):
        as_cell(Wrong())
    for sizes in ((), (0,), (H, H, H)):
        with pytest.raises(InputError, match="state_sizes is"):
            as_cell(Spread(), sizes)
    cell = as_cell(Wrong(), H)
    with pytest.raises(
        InputError,
        match=r"Wrong.forward \(.*:\d+\) returned \[\(3, 6\), \(3, 6\)\]; expected the new state, \[\(3, 6\)\]",
    ):
        cell(torch.zeros(B, D), cell.initial_state(B))


@pytest.mark.parametrize("name", CELLS)
def test_cells_of_recipes_keep_the_contract(name):
    cell = cell_type(name)(D, H)
    assert cell.input_size == D
    assert cell.hidden_size == H == cell.state_sizes[0]
    assert len(cell.state_sizes) == len(cell.state_names)
    state = cell.initial_state(B)
    new = cell(torch.randn(B, D), state)
    assert [part.shape for part in parts(new)] == [part.shape for part in parts(state)]
    quantities = cell.quantities(torch.randn(B, D), state)
    assert set(cell.state_names) <= set(quantities)
    assert cell.W.shape == (len(cell.gate_names) * H, H)
    for gate in cell.gate_names:
        cell.set_bias(gate, 1.5)
        assert bool((cell.b[cell.block(gate)] == 1.5).all())
    with pytest.raises(InputError, match="unknown cell"):
        cell_type("no such cell")
