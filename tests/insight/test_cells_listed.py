"""`unroll cells`: counts, formulas, and what is printed."""

from __future__ import annotations

from unroll.cells import CELLS, LSTMCell, RNNCell, Zoneout
from unroll.engines import native
from unroll.equations import read
from unroll.insight.cells import WIDTH, Listed, listed, multiply_adds, text_formulas

D, H = 28, 128


def test_cells_listed_have_the_papers_counts():
    found = {cell.name: (cell.parameters, cell.multiply_adds) for cell in listed((), D, H)}
    products = H * (H + D)
    assert found == {
        "rnn": (products + H, products),
        "lstm": (4 * products + 4 * H, 4 * products),
        "gru": (3 * products + 4 * H, 3 * products),
        "peephole": (4 * products + 7 * H, 4 * products),
        "coupled": (3 * products + 3 * H, 3 * products),
        "layernorm": (4 * products + 14 * H, 4 * products),
        "mgu": (2 * products + 2 * H, 2 * products),
    }


def test_cells_listed_say_which_engine_scans_them(monkeypatch):
    if native.instruction_set() is not None:
        engines = {cell.name: cell.engine for cell in listed((), 3, 4)}
        assert engines.pop("rnn") == engines.pop("lstm") == "native, own kernel"
        assert set(engines.values()) == {"native, step program"}
    monkeypatch.setattr(native, "why_not", lambda cell, x: "there is no compiler")
    assert [cell.engine for cell in listed(["mgu"], 3, 4)] == ["reference"]


def test_multiply_adds_of_a_wrapped_cell_are_the_cells():
    assert multiply_adds(read(Zoneout(LSTMCell(3, 4), 0.1))) == multiply_adds(read(LSTMCell(3, 4))) == 16 * 7
    assert multiply_adds(read(RNNCell(1, 1))) == 2


def test_long_formulas_are_wrapped():
    lines = text_formulas(Listed("x", "X", 1, 1, "reference", ("y_t = " + " + ".join(["abcdef"] * 40), "h_t = y_t")))
    assert lines[0] == "x: X"
    assert lines[1].startswith("  y_t = abcdef")
    assert len(lines) > 4
    assert all(len(line) <= WIDTH for line in lines)
    assert all(line.startswith("      ") for line in lines[2:-1])
    assert lines[-1] == "  h_t = y_t"
    assert " ".join(" ".join(lines[1:-1]).split()) == "y_t = " + " + ".join(["abcdef"] * 40)


def test_cells_prints_a_table_and_formulas(unroll):
    status, out, err = unroll("cells")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "D = 28 features, H = 128 hidden units"
    assert lines[1].split() == ["cell", "title", "parameters", "multiply-adds", "engine"]
    assert [line.split()[0] for line in lines[2 : 2 + len(CELLS)]] == list(CELLS)
    assert "  h_t = o_t ⊙ tanh(c_t)" in lines
    assert "  h_t = (1 - f_t) ⊙ h_{t-1} + f_t ⊙ h̃_t" in lines
    assert max(map(len, lines)) <= WIDTH


def test_cells_prints_those_that_are_named_at_a_given_size(unroll):
    status, out, _ = unroll("cells", "mgu", "rnn", "--input-size", "3", "--hidden-size", "2")
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()[2:4]] == ["mgu", "rnn"]
    assert "LSTM" not in out
    assert out.splitlines()[2].split()[4:6] == ["24", "20"]
    for given, message in (
        (("gruu",), "unknown cell 'gruu'; did you mean 'gru'?"),
        (("gru", "--hidden-size", "0"), "0 is not in the range"),
        (("gru", "--input-size", "1000000000"), "1000000000 is not in the range"),
        (("gru", "--hidden-size", "1_0"), "'1_0'"),
    ):
        status, out, err = unroll("cells", *given)
        assert (status, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1
