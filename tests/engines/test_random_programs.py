"""Random cells on the interpreter, against the reference engine; `make programs` runs more of them."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from walks import SETS

from tests.equations.against import CALLS, Call, fault, results, rounding
from tests.equations.cells import Coupled, LayerNormLSTM, own
from tests.equations.random_cells import random_cell, smallest
from unroll.cells.base import Cell
from unroll.engines import native, reference
from unroll.engines.native import programs
from unroll.engines.native.instructions import OPS
from unroll.engines.native.lowering import lower
from unroll.equations import read
from unroll.equations.reverse import reverse

pytestmark = pytest.mark.skipif(native.instruction_set() is None, reason="the compiled kernels are not installed")


@pytest.mark.parametrize("first", range(0, 100, 20))
def test_random_cells_give_the_references_numbers_and_gradients(first):
    for seed in range(first, first + 20):
        sketch = random_cell(seed)
        assert fault(sketch) is None, sketch.source()


# Each was wrong once: an input that is not read, a state read in pieces, a sum over a row of a product as a gradient,
# a product of a gradient that is zero, a product of one column in a wide sum.
@pytest.mark.parametrize("seed", [4, 9, 44, 58, 2044, 31405, 37699])
def test_random_cells_that_were_wrong_once(seed):
    assert fault(random_cell(seed)) is None


@pytest.mark.parametrize("instruction_set", SETS, indirect=True)
def test_random_cells_on_every_instruction_set(instruction_set):
    for seed in range(200, 215):
        assert fault(random_cell(seed), CALLS[1:2]) is None, random_cell(seed).source()


def test_random_cells_in_float32_are_as_exact_as_torch():
    for seed in range(300, 325):
        assert max(rounding(random_cell(seed), Call(6, 11)).values()) <= 4, random_cell(seed).source()


@pytest.mark.parametrize("threads", [1, 2])
def test_random_cells_are_the_same_to_the_bit_from_run_to_run(threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for seed in range(400, 408):
            cell = random_cell(seed).cell()
            one, other = (results(programs, cell, Call(30, 64, ragged=True), torch.float32) for _ in range(2))
            assert all(torch.equal(one[name], other[name]) for name in one), seed
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("seed", [500, 501, 502])
def test_random_cells_under_gradcheck(seed):
    cell = random_cell(seed).cell().double()
    x = torch.randn(3, 2, cell.input_size, dtype=torch.float64, requires_grad=True)
    states = [torch.randn(2, n, dtype=torch.float64, requires_grad=True) for n in cell.state_sizes]
    state = lambda given: given[0] if len(given) == 1 else tuple(given)  # noqa: E731
    torch.autograd.gradcheck(lambda x, *s: programs.scan(cell, x, state(s))[0], (x, *states))


def test_random_cells_that_are_wrong_are_cut_down_to_what_is_wrong():
    sketch = random_cell(6)
    found = smallest(sketch, lambda s: any("mean" in line.text for line in s.lines))
    assert len(found.lines) <= 4 < len(sketch.lines)
    assert "mean" in found.source()


# --- forks and threads ----------------------------------------------------------------------------------------------------

CALL = Call(12, 40, ragged=True)  # enough for two threads


def walk(cell: Cell) -> list[torch.Tensor]:
    return list(results(programs, cell, CALL, torch.float32).values())


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def made() -> Cell:
    cell = own(LayerNormLSTM, 6, 32)
    with torch.no_grad():
        for p in cell.parameters():
            p.copy_(torch.linspace(-1, 1, p.numel()).reshape(p.shape))
    return cell


def forward(cell: Cell, n: float) -> torch.Tensor:
    x = torch.linspace(-1, n, 12 * 40 * 6).reshape(12, 40, 6)
    with torch.no_grad():
        return programs.scan(cell, x, cell.initial_state(40))[0]


class Scanned(Dataset):
    """What a cell makes of item n."""

    def __len__(self):
        return 4

    def __getitem__(self, n):
        return forward(made(), n)


def answer(pipe, cell):
    signal.alarm(60)  # rather than wait for ever
    pipe.send(forward(cell, 2).sum().item())
    torch.set_num_threads(1)  # for torch's own operations, which reading a cell calls, do not outlive a fork with more
    pipe.send(forward(made(), 2).sum().item())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of fork beside threads, from Python 3.12 on
def test_the_interpreter_works_in_a_forked_process():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        cell = made()
        walk(cell)  # after a backward pass there is none in a child
        expected = forward(cell, 2).sum().item()  # starts the parent's threads, which the child does not have
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        child = context.Process(target=answer, args=(theirs, cell))
        child.start()
        theirs.close()
        for _ in range(2):
            assert ours.poll(60)
            assert ours.recv() == pytest.approx(expected, rel=1e-5)
        child.join()
        assert child.exitcode == 0
    finally:
        torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_the_interpreter_works_in_workers_of_a_data_loader():
    found = list(DataLoader(Scanned(), batch_size=None, num_workers=2))
    for n, out in enumerate(found):
        torch.testing.assert_close(out, forward(made(), n))


def test_the_interpreter_gives_every_thread_of_python_what_it_gives_one_alone():
    cells = [random_cell(seed).cell() for seed in range(600, 606)]
    expected = [walk(cell) for cell in cells]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(walk, cells * 3))
    assert all(same(one, other) for one, other in zip(found, expected * 3, strict=True))


def test_the_interpreter_takes_one_cell_from_several_threads_of_python_that_read_it_at_once():
    cell = own(LayerNormLSTM, 6, 16)
    x = torch.randn(6, 9, 6)

    def walked() -> torch.Tensor:  # asks the cell for its type, which another thread reads meanwhile
        assert native.why_not(cell, x) is None
        return programs.scan(cell, x, cell.initial_state(9))[0]

    with ThreadPoolExecutor(6) as pool:
        found = [pool.submit(walked) for _ in range(12)]
        outs = [f.result() for f in found]
    torch.testing.assert_close(outs[0], reference.scan(cell, x, cell.initial_state(9))[0])
    assert all(torch.equal(out, outs[0]) for out in outs)


# --- what is written differently and is the same --------------------------------------------------------------------------


class Renamed(Coupled):
    """Coupled gates under other names, with operands the other way round, times one and plus nothing."""

    def __init__(self, D, H):
        super().__init__(D, H)
        self.zz_recurrent, self.aa_input = self.W, self.U
        del self.W, self.U

    def forward(self, features, hidden, memory):
        total = (hidden @ self.zz_recurrent * 1.0 + features @ self.aa_input).view(-1, 3, self.hidden_size)
        total = self.b + total / 1 + 0
        update, out = total[:, 0].sigmoid(), total[:, 2].sigmoid()
        memory = memory + update * (total[:, 1].tanh() - memory)
        return memory.tanh() * out, memory


def instructions(words):
    """How many values of each width and home there are, and how many instructions of each kind, forward and backward."""
    rest = iter(words)
    many = lambda n: [next(rest) for _ in range(n)]  # noqa: E731
    many(next(rest))  # widths of the inputs
    many(2 * next(rest))  # shapes of the weights
    values = Counter(tuple(many(4)[:2]) for _ in range(next(rest)))
    for _ in range(next(rest)):  # states
        _, pieces = many(2)
        many(6 * pieces)
    next(rest)  # how many constants
    code = [Counter(OPS[many(next(rest))[0]] for _ in range(next(rest))) for _ in ("forward", "backward")]
    jobs = sorted(tuple(many(next(rest))[:1]) for _ in range(next(rest)))
    assert not list(rest)
    return values, code, jobs


@pytest.mark.parametrize("grad", [True, False])
def test_lowering_gives_the_same_instructions_under_other_names_and_in_another_order(grad):
    def code(kind):
        program = read(own(kind, 6, 20))
        found = lower(program, reverse(program) if grad else None, [grad])
        return instructions(found.words), len(found.words), len(found.weights), found.numbers

    assert code(Coupled) == code(Renamed)
    assert code(Coupled) != code(LayerNormLSTM)
