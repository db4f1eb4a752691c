"""Cells that outlive their source: programs in a file, and what a file may not say."""

import copy
import json

import pytest
import torch
from torch import nn

from tests.equations.cells import KINDS, LayerNormLSTM, Own, own
from unroll import Recurrent
from unroll.cells import GRUCell, VariationalDropout, Zoneout
from unroll.cells.base import Cell, Mask, as_cell, joined, parts
from unroll.engines import ENGINES, choose
from unroll.equations import UnreadableError, read
from unroll.equations.carry import as_program
from unroll.equations.cell import ProgramCell
from unroll.equations.program import Program
from unroll.equations.saved import DEEPEST, LARGEST_WIDTH, MOST_NODES, from_data
from unroll.equations.terms import formulas
from unroll.errors import InputError

D, H = 5, 6


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def cell(request):
    torch.manual_seed(1)
    made = own(request.param, D, H).float()
    made.input_size = D
    return made


def again(made):
    """The cell as a file would hold it: JSON and tensors."""
    found = ProgramCell.from_data(json.loads(json.dumps(made.to_data(), allow_nan=False)))
    found.load_state_dict(copy.deepcopy(made.state_dict()))
    return found.train(made.training)


def test_program_cell_computes_bit_by_bit_what_the_cell_does_by_the_native_engine(cell):
    x = torch.randn(4, 3, D, requires_grad=True)
    outcomes = []
    for one in (cell, again(as_program(cell))):
        layer = Recurrent(one)
        assert choose("auto", layer.cells[0][0], x) is ENGINES["native"]
        out, last = layer(x)
        gradients = torch.autograd.grad(out.square().sum(), [x, *layer.parameters()], allow_unused=True)
        outcomes.append([out, *parts(last), *gradients])
    assert len(outcomes[0]) == len(outcomes[1])
    for a, b in zip(*outcomes, strict=True):
        assert (a is None and b is None) or torch.equal(a, b)


def test_program_cell_has_the_authors_parameters_and_formulas(cell):
    made = as_program(cell)
    assert [name for name, _ in again(made).named_parameters()] == [name for name, _ in cell.named_parameters()]
    assert all(a is b for a, b in zip(made.parameters(), cell.parameters(), strict=True))
    assert str(read(again(made))) == str(read(cell))
    assert made.to_data() == again(made).to_data()


def test_program_cell_without_the_source_keeps_names_and_no_folder(tmp_path):
    made = as_program(own(LayerNormLSTM, D, H))
    text = json.dumps(made.to_data())
    assert "c_t = σ(f_t) ⊙ c_{t-1} + σ(i_t) ⊙ tanh(g_t)" in str(again(made).program)
    assert '"cells.py:' in text
    assert "/" not in text
    assert sorted(formulas(again(made).program).values) == ["c", "f", "g", "h", "i", "o"]


def test_program_cell_has_both_modes_where_they_differ():
    class Scaled(Own):
        def __init__(self):
            super().__init__(D, H, W=(H, H), U=(H, D))

        def forward(self, x, h):
            size = 2.0 if self.training else 3.0
            mask = torch.arange(H) % 2 if self.training else torch.arange(H) % 3
            return torch.tanh(x @ self.U.T + h @ self.W.T) * size + h * mask

    cell = as_cell(Scaled())
    cell.input_size = D
    was = [module.training for module in cell.modules()]
    made = again(as_program(cell))
    assert [module.training for module in cell.modules()] == was
    assert set(made.to_data()) >= {"training", "evaluation"}
    x, h = torch.randn(2, D), torch.randn(2, H)
    for mode in (True, False):
        torch.testing.assert_close(made.train(mode)(x, h), cell.train(mode)(x, h))
    assert "training" not in as_program(own(LayerNormLSTM, D, H)).to_data()


class Dropping(Own):
    def __init__(self):
        super().__init__(D, H, W=(H, H), U=(H, D))

    def forward(self, x, h):
        return torch.tanh(x @ self.U.T + nn.functional.dropout(h, 0.5, self.training) @ self.W.T)


def test_program_cell_of_evaluation_alone_refuses_to_be_trained():
    cell = as_cell(Dropping())
    cell.input_size = D
    made = again(as_program(cell))
    x, h = torch.randn(2, D), torch.randn(2, H)
    torch.testing.assert_close(made.eval()(x, h), cell.eval()(x, h))
    with pytest.raises(InputError, match="Dropping has a step program for evaluation only; it cannot be trained"):
        made.train()(x, h)
    with pytest.raises(UnreadableError, match="evaluation only"):
        read(made.train())


class Begins(Own):
    """A learnt first state."""

    def __init__(self):
        super().__init__(D, H, W=(H, H), U=(H, D), begin=(H,))

    def initial_state(self, batch_size):
        return torch.tanh(self.begin).expand(batch_size, -1)

    def forward(self, x, h):
        return torch.tanh(x @ self.U.T + h @ self.W.T)


def test_program_cell_begins_where_the_cell_does():
    cell = as_cell(Begins())
    cell.input_size = D
    made = again(as_program(cell))
    torch.testing.assert_close(made.initial_state(3), cell.initial_state(3))
    assert made.initial_state(3).abs().min() > 0
    x = torch.randn(4, 3, D)
    for one in (cell, made):
        one.zero_grad()
        Recurrent(one)(x)[0].sum().backward()
    torch.testing.assert_close(made.module.begin.grad, cell.module.begin.grad)
    assert made.module.begin.grad.abs().max() > 0


def test_program_cell_begins_at_zero_without_a_word():
    class Zeros(Begins):
        def initial_state(self, batch_size):
            return torch.zeros(batch_size, H)

    cell = as_cell(Zeros())
    cell.input_size = D
    made = as_program(cell)
    assert made.to_data()["evaluation"]["initial"] == []
    assert torch.equal(made.initial_state(2), torch.zeros(2, H))


def test_program_cell_keeps_frozen_parameters_frozen():
    cell = own(LayerNormLSTM, D, H)
    cell.module.b.requires_grad_(False)
    learnt = {name: p.requires_grad for name, p in again(as_program(cell)).named_parameters()}
    assert [name for name, wanted in learnt.items() if not wanted] == ["module.b"]


def test_program_cell_reads_words_or_features_and_not_the_other():
    class Words(Own):
        def __init__(self):
            super().__init__(D, H, W=(H, H), U=(H, D))

        def forward(self, x, h):
            return torch.tanh(nn.functional.embedding(x, self.U.T) + h @ self.W.T)

    cell = as_cell(Words())
    cell.input_size = D
    made = again(as_program(cell, words=True))
    x = torch.randint(0, D, (4, 3))
    made.input_size = D
    torch.testing.assert_close(Recurrent(made)(x)[0], Recurrent(cell)(x)[0])
    with pytest.raises(UnreadableError, match="Words reads word indices only"):
        read(made, words=False)
    with pytest.raises(UnreadableError, match="LayerNormLSTM reads features only"):
        read(as_program(own(LayerNormLSTM, D, H)), words=True)


def test_program_cell_is_differentiated_twice():
    made = again(as_program(own(LayerNormLSTM, D, H))).double()
    x = torch.randn(3, 2, D, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: Recurrent(made)(x)[0].sum(), x)


def test_a_program_that_is_not_the_cells_is_no_cell():
    class Liar(Cell):
        """Says another thing where nobody is reading."""

        input_size, state_sizes, state_names = D, (H,), ("h",)

        def __init__(self):
            super().__init__()
            self.W = nn.Parameter(torch.randn(H, D))

        def forward(self, x, h):
            return torch.tanh(x @ self.W.T) + h * (2 if len(x) == 3 else 1)

    with pytest.raises(UnreadableError, match="Liar and its step program compute different numbers"):
        as_program(Liar())


# ------------------------------------------------------------------------------------------------- what is not believed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.pop("frozen"), "the cell is .*; expected an object with"),
        (lambda data: data.update(more=1), "the cell is .*; expected an object with"),
        (lambda data: data.update(cell="no name"), "the cell's name is 'no name'"),
        (lambda data: data.update(frozen=["module.nobody"]), "frozen parameters"),
        (lambda data: data["parameters"].update({"module.W": [10**15, 1]}), "parameters are"),
        (lambda data: data["parameters"].update({"module.W": [24, 7]}), "linear of shapes"),
        (lambda data: data["parameters"].update({"forward": [1]}), "a tensor named 'forward'"),
        (lambda data: data["parameters"].update({"": [1]}), "a tensor named ''"),
        (lambda data: data["parameters"].update({"program.x": [1]}), "a tensor named 'program.x'"),
        (lambda data: data["constants"].update({"module.W": [24, 6]}), "a tensor named 'module.W'"),
        (lambda data: data.update(constants=[]), "constants are"),
        (lambda data: data["evaluation"].update(version=2), "version 2; expected 1"),
        (lambda data: data.update(training=dict(data["evaluation"], inputs=[])), "linear|does not fit|shapes"),
        (lambda data: data.update(training=[]), "the step program is damaged"),
    ],
)
def test_damaged_cells_are_refused(change, message):
    data = as_program(own(LayerNormLSTM, D, H)).to_data()
    change(data)
    with pytest.raises(InputError, match=message):
        ProgramCell.from_data(data)


def program(*nodes, new=None, state=4):
    """Data of a program of one state, made of nodes that follow input, state and a parameter W (4, 4)."""
    first = [["input", [], [0], None, None], ["state", [], [0], None, None], ["parameter", [], ["W"], None, None]]
    every = [*first, *nodes]
    return {
        "version": 1,
        "inputs": [4],
        "states": [state],
        "state_names": ["h"],
        "masks": [],
        "nodes": every,
        "new": [len(every) - 1 if new is None else new],
        "initial": [],
    }


def node(op, *args, of=(), name=None):
    return [op, list(args), list(of), name, None]


PARAMETERS = {"W": (4, 4), "v": (4,)}


def test_hostile_programs_begin_from_a_good_one():
    made = from_data(program(node("linear", 0, 2), node("tanh", 3)), {}, PARAMETERS)
    assert isinstance(made, Program)
    assert str(made) == "h_t = tanh(W x_t)"


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([node("linear", 2, 0)], "linear of shapes"),  # the matrix first
        ([node("linear", 0, 0)], "linear of shapes"),
        ([node("lookup", 0, 2)], "lookup of shapes"),  # the input is no word
        ([node("sum", 2)], "sum of shapes"),
        ([node("transpose", 0, of=(0, 1))], "transpose of shapes"),
        ([node("transpose", 2, of=(0, 5))], "transpose of shapes"),
        ([node("reshape", 2, of=(4, 5))], "reshape of shapes"),
        ([node("reshape", 2, of=(-1, 16))], "-1 stands where"),
        ([node("reshape", 0, of=(2, 2))], "reshape of shapes"),
        ([node("expand", 2, of=(10**6, 4, 4)), node("expand", 3, of=(10**6, 10**6, 4, 4))], "too large"),
        ([node("expand", 2, of=(4,))], "expand of shapes"),
        ([node("expand", 2, of=(4, 8))], "expand of shapes"),
        ([node("concat", of=(-1,))], "concat has 0 operands"),
        ([node("concat", 0, 2, of=(-1,))], "concat of shapes"),
        ([node("concat", 2, 2, of=(2,))], "whole number from 0 to 1"),
        ([node("slice", 2, of=(0, 3, 2))], "whole number from 4 to 4"),
        ([node("slice", 2, of=(0, 0, 5))], "5 stands where a whole number from 1 to 4"),
        ([node("add", 0, 2)], "is no row"),
        ([node("add", 0)], "add has 1 operands"),
        ([node("tanh", 0, of=(1,))], "tanh has 1 operands and is told"),
        ([node("tanh", 0, name="a b")], "its name is 'a b'"),
        ([node("tanh", 0, name="a" * 201)], "its name is"),
        ([["tanh", [0], [], None, "a\nb"]], "its line is"),
        ([node("tanh", 3)], "expected nodes before it"),  # itself
        ([node("tanh", 0), node("tanh", 0)], "is there already"),
        ([node("sum", 0)], r"state 0 is made a value of shape \(1,\)"),
        ([node("tanh", 2)], "state 0 is made a value of shape"),
        ([node("input", of=(1,))], "1 stands where a whole number from 0 to 0"),
        ([node("number", of=(10**400,))], "its number is"),
        ([node("constant", of=("W",))], "the cell has no constant 'W'"),
        ([node("parameter", of=(["W"],))], "of is"),
        ([node("widen", 0, of=(8,))], "'widen' is no operation"),
    ],
)
def test_hostile_programs_are_refused(nodes, message):
    with pytest.raises(InputError, match=message):
        from_data(program(*nodes), {}, PARAMETERS)


def test_hostile_programs_have_so_many_columns_and_nodes_and_no_more():
    double = [node("concat", n, n, of=(-1,)) for n in [0, *range(3, 21)]]
    with pytest.raises(InputError, match=f"expected at most {LARGEST_WIDTH}"):
        from_data(program(*double), {}, PARAMETERS)
    many = [node("number", of=(float(n),)) for n in range(MOST_NODES)]
    with pytest.raises(InputError, match=f"expected at most {MOST_NODES}"):
        from_data(program(*many), {}, PARAMETERS)


def test_hostile_programs_have_formulas_that_end():
    chain = [node("tanh", n) for n in [0, *range(3, 3 + DEEPEST)]]
    with pytest.raises(InputError, match="its formula is too long"):
        from_data(program(*chain), {}, PARAMETERS)
    fits = from_data(program(*chain[:-2]), {}, PARAMETERS)
    assert str(fits).count("tanh") == DEEPEST - 1
    chain[DEEPEST // 2][3] = "u"
    assert "u_t = tanh(" in str(from_data(program(*chain), {}, PARAMETERS))
    doubled = []  # written out it would have 2 to the 40 terms
    for n in range(40):
        doubled += [node("concat", 3 + 2 * n - 1 if n else 0, 3 + 2 * n - 1 if n else 0, of=(-1,))]
        doubled += [node("slice", 3 + 2 * n, of=(-1, 2, 6))]
    with pytest.raises(InputError, match="its formula is too long"):
        from_data(program(*doubled), {}, PARAMETERS)


def test_infinite_numbers_survive_and_nan_does_not():
    data = program(node("number", of=("-inf",)), node("maximum", 1, 3))
    made = from_data(data, {}, PARAMETERS)
    assert made.value_of(3) == float("-inf")
    assert '["number", [], ["-inf"]' in made.to_json()
    made.nodes[3] = made.nodes[3].__class__("number", (), (float("nan"),), (), False)
    with pytest.raises(InputError, match="NaN"):
        made.to_json()


def test_a_program_gives_each_reader_nodes_of_its_own():
    made = as_program(own(LayerNormLSTM, D, H))
    before = json.dumps(made.to_data())
    ours = read(made)
    ours.add("gradient", of=(0,), shape=(H,))
    ours.nodes[0] = ours.nodes[1]
    assert json.dumps(made.to_data()) == before
    state = joined([torch.zeros(2, H)] * 2)
    assert parts(made(torch.zeros(2, D), state))[0].shape == (2, H)


# --------------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("engine", ["native", "reference"])
@pytest.mark.parametrize("words", [False, True])
def test_program_cell_draws_the_masks_of_a_wrapper(engine, words):
    torch.manual_seed(2)
    inner = GRUCell(D, H)
    cell = Zoneout(inner, 0.3) if words else Zoneout(VariationalDropout(inner, inputs=0.2, states=0.4), 0.3)
    x = torch.randint(D, (4, 3)) if words else torch.randn(4, 3, D)
    made = again(as_program(cell, words))
    assert len(made.masks) == (1 if words else 3)
    for mode in (True, False):
        outputs = []
        for one in (cell.train(mode), made.train(mode)):
            torch.manual_seed(3)
            outputs.append(Recurrent(one, engine=engine)(x)[0])
        torch.testing.assert_close(*outputs)
        torch.manual_seed(4)
        assert torch.equal(Recurrent(made, engine=engine)(x)[0], outputs[1]) is not mode
    assert made.eval().masks == ()
    assert str(read(made.train(), words)) == str(read(cell.train(), words))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([[3, 0.5, False, False]], "it has inputs"),  # the input is 4 wide
        ([[4, 0.5, False, False]] * 3, "it has inputs"),
        ([[4, 0.5, False]], "a mask is"),
        ([[4, 0.5, 0, False]], "a mask is"),
        ([[4, 1.0, False, False]], "share of a mask"),
        ([[4, "0.5", False, False]], "share of a mask"),
        ("x", "a mask is"),
    ],
)
def test_program_refuses_masks_that_cannot_be(masks, message):
    data = program(node("linear", 0, 2), node("tanh", 3)) | {"inputs": [4, 4], "masks": [[4, 0.5, False, False]]}
    assert from_data(data, {}, PARAMETERS).masks == (Mask(4, 0.5),)
    with pytest.raises(InputError, match=message):
        from_data(data | {"masks": masks}, {}, PARAMETERS)


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_program_with_an_operation_on_numbers_is_read_on_any_device(device):
    data = program(["number", [], [2.0], None, None], node("exp", 3), node("mul", 1, 4))
    with torch.device(device):
        made = from_data(data, {}, PARAMETERS)
    assert made.value_of(4) == pytest.approx(7.389056)
