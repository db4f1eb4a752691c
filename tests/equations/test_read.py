"""Reading a cell into a step program, and what is refused."""

from __future__ import annotations

import copy
import subprocess
import sys
from functools import partial

import pytest
import torch
from torch import nn

from tests.equations.cells import KINDS, Coupled, Own, own
from tests.equations.papers import PAPERS
from unroll.cells import CELLS, cell_type
from unroll.cells.base import as_cell, joined, parts
from unroll.equations import Program, UnreadableError, read
from unroll.equations.reverse import gradients, reverse
from unroll.errors import InputError

B, D, H = 4, 5, 6


def states_of(cell, batch=B):
    return [torch.randn(batch, n, dtype=torch.float64, requires_grad=True) for n in cell.state_sizes]


@pytest.fixture(params=[*KINDS, *PAPERS, *CELLS], ids=lambda kind: getattr(kind, "__name__", kind))
def cell(request):
    torch.manual_seed(0)
    kind = request.param
    made = cell_type(kind)(D, H) if isinstance(kind, str) else own(kind, D, H)
    return made.double()


def test_program_computes_what_the_cell_does_forward_and_backward(cell):
    program = read(cell)
    back = reverse(program)
    x, states, learnt = torch.randn(B, D).double().requires_grad_(), states_of(cell), dict(cell.named_parameters())
    new = parts(cell(x, joined(states)))
    d_new = [torch.randn_like(part) for part in new]
    found = torch.autograd.grad(new, [x, *states, *learnt.values()], d_new, materialize_grads=True)
    with torch.no_grad():
        values = program.step([x], states, learnt)
        d_x, d_states, d_learnt = gradients(program, back, values, d_new, learnt)
    for n, part in zip(program.new, new, strict=True):
        torch.testing.assert_close(values[n], part, rtol=1e-12, atol=1e-12)
    for ours, theirs in zip([*d_x, *d_states, *d_learnt.values()], found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)


def test_reading_leaves_the_cell_as_it_was(cell):
    before, generator = copy.deepcopy(cell.state_dict()), torch.get_rng_state()
    read(cell)
    assert torch.equal(generator, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in cell.state_dict().items())
    assert all(p.grad is None for p in cell.parameters())


def test_program_as_json_computes_the_same(cell):
    program = read(cell)
    other = Program.from_json(program.to_json(), program.constants, shapes_of(cell))
    assert other.to_json() == program.to_json()
    assert str(other) == str(program)  # the author's names among it
    x, states, learnt = torch.randn(B, D).double(), states_of(cell), dict(cell.named_parameters())
    ours, theirs = (p.step([x], states, learnt) for p in (program, other))
    assert all(torch.equal(ours[n], theirs[m]) for n, m in zip(program.new, other.new, strict=True))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"version": 1', '"version": 7', "the step program is of version 7; expected 1"),
        ('"version": 1', '"version": 1.0', "the step program is of version 1.0; expected 1"),
        ('"version": 1', '"version": true', "the step program is of version True; expected 1"),
        ('"tanh"', '"tonh"', "'tonh' is no operation"),
        ('"tanh"', '"tanh_back"', "'tanh_back' is no operation"),
        ('"tanh"', '["tanh"]', "is no operation"),
        ('"tanh"', '"gradient"', "'gradient' is no operation"),
        ('"tanh"', '"where"', r"where has 1 operands"),
        ('"tanh", [', '"tanh", [999, ', r"its operands are \(999, \d+\); expected nodes before it"),
        ('"tanh", [', '"tanh", [-1, ', "expected nodes before it"),
        ('"tanh", [', '"tanh", [true, ', "expected nodes before it"),
        ('"tanh", [', '"tanh", ["a", ', "expected nodes before it"),
        ('"new": [', '"new": [999, ', "new is"),
        ('"new": [', '"new": [0, ', "new is"),
        ('"initial": []', '"initial": [0]', "state 0 begins with a value of shape"),
        ('"initial": []', '"initial": {}', "initial is"),
        ('"inputs": [5]', '"inputs": [6]', "linear of shapes"),
        ('"inputs": [5]', '"inputs": [5, 5]', r"it has inputs \(5, 5\), masks"),
        ('"inputs": [5]', '"inputs": [0]', "0 stands where a whole number from 1"),
        ('"inputs": [5]', '"inputs": [5.0]', "5.0 stands where"),
        ('"inputs": [5]', '"inputs": [1e999]', "inf stands where"),
        ('"states": [6]', f'"states": [{10**30}]', "stands where a whole number from 1"),
        ('"states": [6]', '"states": []', r"it has inputs \(5,\), masks \[\] and 0 states"),
        ('"state_names": ["h"]', '"state_names": ["h", "c"]', "state_names are"),
        ('"state_names": ["h"]', '"state_names": ["a.b"]', "state_names are"),
        ("weight_ih", "weight_xx", "the cell has no parameter 'module.weight_xx'"),
        ('"slice", [', '"slice", [0, ', "slice has 2 operands"),
        ("[-1, 0, 6]", "[-1, 0, 7]", "linear|does not fit|whole number|shapes"),
        ("[-1, 0, 6]", "[-1, 6, 6]", "whole number from 7"),
        ("[-1, 0, 6]", "[0, 0, 6]", "along axis 0 does not fit"),
        ("[1.0]", "[NaN]", "its number is nan"),
        ("[1.0]", "[1e999]", "its number is inf"),
        ("[1.0]", "[1]", "its number is 1"),
        ("[1.0]", '["nan"]', "its number is 'nan'"),
        ('"nodes": [', '"nodes": [7, ', "node 0: it is 7"),
        ('"nodes": [', '"extra": 1, "nodes": [', r"entries \['extra'\] are missing or unknown"),
        ("{", "", "the step program is damaged: it is no JSON"),
        ("{", "[" * 100_000, "the step program is damaged: it is no JSON"),
    ],
)
def test_damaged_programs_are_refused(old, new, message):
    cell = as_cell(nn.GRUCell(D, H))
    cell.input_size = D
    text = read(cell).to_json()
    assert old in text
    with pytest.raises(InputError, match=message) as raised:
        Program.from_json(text.replace(old, new, 1), {}, shapes_of(cell))
    assert "\n" not in str(raised.value)


def shapes_of(cell):
    return {name: tuple(p.shape) for name, p in cell.named_parameters()}


def test_words_are_looked_up():
    program = read(cell_type("lstm")(D, H), words=True)
    assert [node.op for node in program.nodes].count("lookup") == 1


class Bad(Own):
    """A cell whose fault is a function of the cell, x and h."""

    def __init__(self, fault):
        super().__init__(D, H, W=(H, H), U=(H, D))
        self.fault = fault
        self.count = 0
        self.log = []
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x, h):
        h = torch.tanh(h @ self.W.T + x @ self.U.T)
        return self.fault(self, x, h)


def value(cell, x, h):
    return h if h[:, 0] > 0 else -h


def number(cell, x, h):
    return h * h[:, 0].tolist()[0]


def array(cell, x, h):
    return h * float(h.detach().numpy().mean())


def noise(cell, x, h):
    return h + torch.randn_like(h)


def dropped(cell, x, h):
    return nn.functional.dropout(h, 0.5, cell.training)


def counted(cell, x, h):
    cell.count += 1
    return h * cell.count


def remembered(cell, x, h):
    cell.seen.add_(1)
    return h


def layer(cell, x, h):
    cell.extra = nn.Linear(H, H)
    return cell.extra(h)


def rows(cell, x, h):
    return torch.stack([row * (k + 1) for k, row in enumerate(h)])


def batch(cell, x, h):
    return h / len(h)


def normed(cell, x, h):
    return h - h.mean(0)


def written(cell, x, h):
    x.mul_(2)
    return h + x[:, :1]


def stale(cell, x, h):
    first, _ = h.chunk(2, 1)
    first.add_(1)
    return h * 1.5


def foreign(cell, x, h):
    return h * FOREIGN


def unknown(cell, x, h):
    return torch.cumsum(h, 1)


def typed(cell, x, h):
    return h / (h.abs() + torch.finfo(h.dtype).eps)


def logged(cell, x, h):
    cell.log.append(len(x))
    return torch.tanh(h)


def outer(cell, x, h):
    return (h[:, :, None] @ h[:, None, :]).sum(1)


FOREIGN = torch.randn(H, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (value, "__bool__ reads a tensor's value in Python"),
        (number, "tolist reads a tensor's value in Python"),
        (array, "numpy reads a tensor's value in Python"),
        (noise, "randn_like draws random numbers of its own"),
        (dropped, "dropout draws random numbers of its own"),
        (counted, "depends on the size of the batch|keeps something from one call to the next"),
        (remembered, "add_ writes to a parameter or buffer in place"),
        (layer, "no operation for torch's kaiming_uniform_"),
        (rows, "moves the axis of the batch"),
        (batch, "depends on the size of the batch"),
        (typed, "depends on .* the type of its numbers"),
        (logged, "keeps something from one call to the next"),
        (normed, "reduces over the sequences of a batch"),
        (written, "mul_ writes to the step's input or state in place"),
        (stale, "reads a tensor that add_ has changed in place through another one"),
        (foreign, "wants a gradient and is no parameter of the cell"),
        (unknown, "the step program has no operation for torch's cumsum"),
        (outer, "a product of two tensors that both, or neither, depend on the batch"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_no_step_program_is_refused_by_line(fault, message):
    with pytest.raises(UnreadableError, match=message) as caught:
        read(as_cell(Bad(fault).double()))
    known = fault.__code__.co_firstlineno
    if "keeps" not in str(caught.value) and "makes modules" not in str(caught.value):
        file, line = str(caught.value).split(": ")[0].rsplit(":", 1)
        assert file == __file__
        assert known < int(line) <= known + 4


def test_training_and_evaluation_are_two_programs():
    cell = as_cell(Bad(dropped))
    read(cell.eval())
    with pytest.raises(UnreadableError, match="dropout"):
        read(cell.train())


def test_times_one_plus_zero_and_other_names_are_the_same_program():
    class Other(Coupled):
        def forward(self, x, h, c):
            h2, c2 = super().forward(x, h * 1.0, c + 0)
            return h2 / 1, c2

    one, other = read(own(Coupled, D, H)), read(as_cell(Other(D, H), (H, H)))
    assert [n.op for n in one.nodes if n.op != "number"] == [n.op for n in other.nodes if n.op != "number"]


class Beside(Own):
    def forward(self, x, h):
        return torch.tanh(torch.cat([x, self.v.expand(len(x), -1), h], 1) @ self.W.T)


def test_program_has_a_parameter_among_columns_for_every_sequence():
    torch.manual_seed(0)
    cell = own(partial(Beside, W=(H, D + H + 2), v=(2,)), D, H).double()
    program, x, (h,) = read(cell), torch.randn(B, D).double(), states_of(cell)
    values = program.step([x], [h], dict(cell.named_parameters()))
    torch.testing.assert_close(values[program.new[0]], cell(x, h), rtol=1e-12, atol=1e-12)


def test_reading_a_cell_imports_no_sympy():
    source = "import sys; from unroll import cells, equations; equations.read(cells.LSTMCell(3, 4)); "
    source += "sys.exit('sympy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == 0
