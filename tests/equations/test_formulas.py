"""Formulas: golden ones of known cells whichever way they are written; parentheses mean what the program computes."""

from __future__ import annotations

import random
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn

from tests.equations.cells import KINDS, LayerNormLSTM, Own, Peephole, own
from unroll.cells import CELLS, RNNCell, as_cell, cell_type
from unroll.equations import Program, read
from unroll.equations.formulas import OPERATIONS, TEXT, latex, mathml, text, words
from unroll.equations.names import parameter_symbols
from unroll.equations.program import ELEMENTWISE
from unroll.equations.terms import formulas
from unroll.report.formulas import parse_formula

D, H = 4, 6
LSTM = [
    "i_t = σ(W_i h_{t-1} + U_i x_t + b_i)",
    "f_t = σ(W_f h_{t-1} + U_f x_t + b_f)",
    "c̃_t = tanh(W_c h_{t-1} + U_c x_t + b_c)",
    "o_t = σ(W_o h_{t-1} + U_o x_t + b_o)",
    "c_t = f_t ⊙ c_{t-1} + i_t ⊙ c̃_t",
    "h_t = o_t ⊙ tanh(c_t)",
]
GRU = [
    "r_t = σ(W_r h_{t-1} + U_r x_t + b_r)",
    "z_t = σ(W_z h_{t-1} + U_z x_t + b_z)",
    "n_t = tanh(U_n x_t + b_n + r_t ⊙ (W_n h_{t-1} + b_h))",
    "h_t = z_t ⊙ h_{t-1} + (1 - z_t) ⊙ n_t",
]


def lines(cell, **options) -> list[str]:
    return str(read(cell, **options)).split("\n")


@pytest.mark.parametrize("given_words", [False, True])
def test_formulas_of_the_packages_cells_are_the_textbooks(given_words):
    assert lines(cell_type("lstm")(D, H), words=given_words) == LSTM
    assert lines(cell_type("gru")(D, H), words=given_words) == GRU
    assert lines(cell_type("rnn")(D, H), words=given_words) == ["s_t = tanh(W s_{t-1} + U x_t + b)"]
    assert lines(RNNCell(D, H, bias=False, nonlinearity="relu")) == ["s_t = max(0, W s_{t-1} + U x_t)"]


def test_formulas_of_cells_from_papers():
    assert lines(own(LayerNormLSTM, D, H)) == [
        "[i_t, f_t, g_t, o_t] = norm(W h_{t-1}) ⊙ γ_of_h + β_of_h + norm(U x_t) ⊙ γ_of_x + β_of_x + b",
        "c_t = σ(f_t) ⊙ c_{t-1} + σ(i_t) ⊙ tanh(g_t)",
        "h_t = σ(o_t) ⊙ tanh(norm(c_t) ⊙ γ_of_c + β_of_c)",
    ]
    assert lines(own(Peephole, D, H)) == [
        "g_t = W_g [x_t, h_{t-1}] + b_g",
        "o_t = W_o [x_t, h_{t-1}] + b_o",
        "i_t = σ(W_i [x_t, h_{t-1}] + b_i + p_i ⊙ c_{t-1})",
        "f_t = σ(W_f [x_t, h_{t-1}] + b_f + p_f ⊙ c_{t-1})",
        "c_t = f_t ⊙ c_{t-1} + i_t ⊙ tanh(g_t)",
        "h_t = σ(o_t + p_o ⊙ c_t) ⊙ tanh(c_t)",
    ]
    assert lines(own(nn.GRUCell, D, H))[2] == "n_t = tanh(W_ih_n x_t + b_ih_n + r_t ⊙ (W_hh_n h_{t-1} + b_hh_n))"
    assert lines(own(nn.LSTMCell, D, H))[-2:] == ["c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t", "h_t = o_t ⊙ tanh(c_t)"]


class SigmoidFirst(Own):
    """The sigmoid of three gates at once; a part of the product for each."""

    def __init__(self):
        super().__init__(D, H, W=(4 * H, H), U=(4 * H, D), b=(4 * H,))

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        a = h @ self.W.T + x @ self.U.T + self.b
        i, f, o = torch.sigmoid(a[:, : 3 * H]).chunk(3, 1)
        c_tilde = torch.tanh(a[:, 3 * H :])
        c = f * c + i * c_tilde
        return o * torch.tanh(c), c


class OneByOne(Own):
    """Parameters cut before they are used, in another order."""

    def __init__(self):
        super().__init__(D, H, W=(4 * H, H), U=(4 * H, D), b=(4, H))

    def forward(self, x: Tensor, h_prev: Tensor, c_prev: Tensor) -> tuple[Tensor, Tensor]:
        W_i, W_f, W_c, W_o = self.W.split(H)
        i_t = torch.sigmoid(h_prev @ W_i.T + x @ self.U[:H].T + self.b[0])
        f_t = torch.sigmoid(h_prev @ W_f.T + x @ self.U[H : 2 * H].T + self.b[1])
        c_tilde = torch.tanh(h_prev @ W_c.T + x @ self.U[2 * H : 3 * H].T + self.b[2])
        o_t = torch.sigmoid(h_prev @ W_o.T + x @ self.U[3 * H :].T + self.b[3])
        c_t = f_t * c_prev + i_t * c_tilde
        return o_t * torch.tanh(c_t), c_t


class Layers(nn.Module):
    """A layer for each gate."""

    def __init__(self):
        super().__init__()
        self.input_size, self.hidden_size = D, H
        for gate in "ifco":
            setattr(self, f"W_{gate}", nn.Linear(H, H, bias=False))
            setattr(self, f"U_{gate}", nn.Linear(D, H))

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i = torch.sigmoid(self.W_i(h) + self.U_i(x))
        f = torch.sigmoid(self.W_f(h) + self.U_f(x))
        c_tilde = torch.tanh(self.W_c(h) + self.U_c(x))
        o = torch.sigmoid(self.W_o(h) + self.U_o(x))
        c = f * c + i * c_tilde
        return o * torch.tanh(c), c


@pytest.mark.parametrize("kind", [SigmoidFirst, OneByOne, Layers])
def test_formulas_do_not_depend_on_how_the_gates_are_stacked(kind):
    found = lines(as_cell(kind(), (H, H)))
    spelled = [line.replace("W_c̃", "W_c") for line in LSTM]
    assert sorted(found) == sorted(spelled)
    assert found[-2:] == LSTM[-2:]


def test_formulas_name_values_that_the_author_has_not_only_where_they_are_used_twice():
    class Twice(Own):
        def forward(self, x: Tensor, h: Tensor) -> Tensor:
            return torch.sigmoid(h * h + h @ self.W.T) / (1 + torch.sigmoid(h * h + h @ self.W.T).sum(1, True))

    assert lines(as_cell(Twice(D, H, W=(H, H)))) == ["u1_t = σ(h_{t-1}² + W h_{t-1})", "h_t = u1_t / (sum(u1_t) + 1)"]


@pytest.mark.parametrize("op", ["add", "mul", "tanh", "concat"])
def test_formulas_of_long_programs_are_finished_at_once(op):
    """Thousands of operations one upon the other, which double where nothing is named."""
    program = Program(inputs=(H,), states=(H,), state_names=("h",))
    M = program.add("parameter", of=("M",), shape=(H, H))
    n = program.add("linear", program.add("state", of=(0,), shape=(H,)), M)
    for _ in range(3000):
        if op == "concat":
            n = program.slice(program.concat([n, n]), 1, H + 1)
        else:
            n = program.add(op, *[n] * (1 if op == "tanh" else 2))
    program.new = (program.concat([program.slice(n, 0, 2), program.slice(n, 2, H)]),)
    found = formulas(program)
    assert text(program).split("\n")[-1].startswith("h_t = ")
    assert max(map(len, text(program).split("\n"))) < 1000
    assert words(found)


def test_formulas_of_states_that_are_handed_on():
    class Delayed(Own):
        def forward(self, x: Tensor, h: Tensor, older: Tensor) -> tuple[Tensor, Tensor]:
            return torch.tanh(older @ self.W.T), h

    assert lines(as_cell(Delayed(D, H, W=(H, H)), (H, H))) == ["h_t = tanh(W older_{t-1})", "older_t = h_{t-1}"]


def test_formulas_tell_a_name_that_is_given_again_by_a_number():
    class Again(Own):
        def forward(self, x: Tensor, h: Tensor) -> Tensor:
            x = torch.relu(x @ self.U.T) ** 3
            h = torch.exp(x) * h
            return torch.cos(h) - h

    found = lines(as_cell(Again(D, H, U=(H, D))))
    assert found == ["x1_t = max(0, U x_t)^3", "h1_t = exp(x1_t) ⊙ h_{t-1}", "h_t = cos(h1_t) - h1_t"]


# --- every form -------------------------------------------------------------------------------------------------------------


def test_latex_and_words_of_the_lstm():
    found = formulas(read(cell_type("lstm")(D, H)))
    assert latex(found).split("\n")[3] == r"\tilde{c}_t &= \tanh(W_c\, h_{t-1} + U_c\, x_t + b_c) \\"
    assert words(found).split(". ")[2:5:2] == [
        "c tilde t equals tanh of W c times h t minus 1, plus U c times x t, plus b c",
        "c t equals f t times c t minus 1, plus i t times c tilde t",
    ]
    assert words(formulas(read(cell_type("gru")(D, H)))).endswith(
        "plus r t times the quantity W n times h t minus 1, plus b h. "
        "h t equals z t times h t minus 1, plus the quantity 1, minus z t, times n t"
    )
    assert '<mover accent="true"><mi>c</mi><mo>~</mo></mover>' in mathml(found)


def one_of_each() -> dict[str, Program]:
    """A program for each operation of step programs, which hands on what it computes."""
    programs = {}
    for op in (
        *ELEMENTWISE,
        "linear",
        "lookup",
        "slice",
        "concat",
        "sum",
        "max",
        "stop",
        "transpose",
        "reshape",
        "expand",
    ):
        if op.endswith("_back"):
            continue
        program = Program(inputs=(3,), states=(3,), state_names=("h",))
        x, h = (program.add(leaf, of=(0,), shape=(3,)) for leaf in ("input", "state"))
        M = program.add("parameter", of=("M",), shape=(3, 3))
        args, of, shape = (x, h, h), (), None
        if op in ELEMENTWISE:
            args = (x, h, h)[: {"where": 3}.get(op, 2 if op in BINARY else 1)]
        elif op in ("linear", "lookup"):
            args = (h, M)
        elif op in ("slice", "concat"):
            args, of, shape = ((x,), (-1, 0, 1), (1,)) if op == "slice" else ((x, h), (-1,), (6,))
        elif op in ("sum", "max", "stop"):
            args = (x,)
        else:
            of = (0, 1) if op == "transpose" else ()
            args, shape = (M,), (3, 3)
        n = program.add(op, *args, of=of, shape=shape)
        program.new = (n if program.nodes[n].row else program.add("linear", h, n),)
        programs[op] = program
    return programs


BINARY = ("add", "sub", "mul", "div", "maximum", "minimum", "pow", "less", "equal")
EACH = one_of_each()


@pytest.mark.parametrize("op", EACH)
def test_every_operation_is_written_in_every_form(op):
    found = formulas(EACH[op])
    assert text(EACH[op]).startswith("h_t = ")
    parse_formula(latex(found))
    ElementTree.fromstring(mathml(found))
    assert words(found).startswith("h t equals ")
    assert "{" not in words(found)


def test_every_elementwise_operation_has_a_sign():
    forward = {op for op in ELEMENTWISE if not op.endswith("_back")}
    assert forward - set(OPERATIONS) == {"add", "sub", "neg"}  # which make sums


@pytest.mark.parametrize("kind", [*KINDS, *CELLS], ids=str)
def test_latex_and_mathml_of_any_cell_are_well_formed(kind):
    found = formulas(read(cell_type(kind)(D, H) if isinstance(kind, str) else own(kind, D, H)))
    parse_formula(latex(found))
    root = ElementTree.fromstring(mathml(found))
    assert root.get("alttext") == words(found)
    assert not [e for e in root.iter() if e.tag.endswith("script") or any(key.startswith("on") for key in e.attrib)]


@pytest.mark.parametrize("seed", range(40))
def test_formulas_compute_what_the_program_does(seed):
    """Sums, differences, quotients and functions drawn at random: parentheses and the order of operations."""
    draw = random.Random(seed)
    program = Program(inputs=(3,), states=(3,), state_names=("h",))
    nodes = [program.add(leaf, of=(0,), shape=(3,)) for leaf in ("input", "state")] + [
        program.number(draw.choice((2, -3)))
    ]
    for _ in range(12):
        op = draw.choice(("add", "sub", "mul", "div", "neg", "tanh", "abs", "maximum"))
        args = [draw.choice(nodes[-5:]) for _ in range(2 if op in BINARY else 1)]
        if any(program.nodes[n].row for n in args):
            nodes.append(program.add(op, *args))
    nodes.append(program.add("add", nodes[1], nodes[-1]))
    program.new = (nodes[-1],)
    x, h = torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    values = {"x_t": x, "h_before": h, "tanh": torch.tanh, "absolute": torch.abs, "max": maximum}
    for equation in formulas(program).equations:
        values[PYTHON.symbol(equation.left[0])] = eval(PYTHON.write(equation.right), values)
    torch.testing.assert_close(values["h_t"], program.step((x,), (h,), {})[program.new[0]], rtol=1e-9, atol=1e-9)


def maximum(a: Tensor, b: Tensor) -> Tensor:
    return torch.maximum(*torch.broadcast_tensors(torch.as_tensor(a).double(), torch.as_tensor(b).double()))


PYTHON = replace(
    TEXT,
    symbol=lambda symbol: f"{symbol.base}{''.join(symbol.sub)}_{'before' if symbol.time == 't-1' else symbol.time}",
    template=lambda operation: SIGNS.get(operation.text, operation.text),
)
SIGNS = {"{0} ⊙ {1}": "{0} * {1}", "{0} {1}": "{0} * {1}", "|{0}|": "absolute({0})", "{0}²": "{0} ** 2"}


# --- parameters and values --------------------------------------------------------------------------------------------------


def test_parameters_have_short_symbols_that_differ():
    found = parameter_symbols(
        {
            "W": True,
            "a.weight": True,
            "a.bias": False,
            "b.weight": True,
            "b.bias": False,
            "norm.weight": False,
            "norm.bias": False,
        }
    )
    assert len(set(found.values())) == len(found)
    assert [found[path].base for path in ("a.weight", "a.bias", "norm.weight", "norm.bias")] == [
        "W",
        "b",
        "gamma",
        "beta",
    ]
    assert found["W"].sub == ()
    assert found["b.weight"].sub == ("b",)


def test_formulas_list_parameters_with_the_symbols_of_their_blocks():
    found = {letters.path: letters for letters in formulas(read(cell_type("lstm")(D, H))).parameters}
    assert {path: letters.shape for path, letters in found.items()} == {"W": (24, 6), "U": (24, 4), "b": (24,)}
    assert [symbol.sub for symbol in found["U"].symbols] == [("i",), ("f",), ("c",), ("o",)]


@pytest.mark.parametrize("name", CELLS)
def test_values_of_formulas_are_the_cells_quantities(name):
    cell = cell_type(name)(D, H).double()
    program = read(cell)
    x, states = torch.randn(3, D).double(), [torch.randn(3, H).double() for _ in cell.state_sizes]
    values = program.step((x,), states, dict(cell.named_parameters()))
    expected = cell.quantities(x, tuple(states) if len(states) > 1 else states[0])
    found = {called: values[n] for called, n in formulas(program).values.items()}
    assert set(expected) <= set(found)  # the layer-norm LSTM's sums have formulas of their own too
    assert len(found) == len(expected) or name == "layernorm"
    for called, value in expected.items():
        torch.testing.assert_close(found[called], value)
