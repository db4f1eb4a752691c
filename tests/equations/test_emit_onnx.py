"""Step programs as ONNX: ONNX Runtime computes what the reference engine does, for every operation and any cell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper, parser
from torch import nn

from tests.equations.cells import KINDS, LayerNormLSTM, Own, own
from unroll.cells import CELLS, LSTMCell, cell_type
from unroll.cells.base import as_cell, parts
from unroll.cells.variants import without
from unroll.engines import reference
from unroll.equations import Program, read
from unroll.equations.emit_onnx import OPERATORS, scan
from unroll.equations.program import ELEMENTWISE
from unroll.errors import InputError

LENGTHS = torch.tensor([5, 0, 3, 3, 1, 5, 2])


def graph_of(program, cell, ragged, backwards):
    """A graph with one scan, and its own check."""
    constants: dict = {}
    initial = [part[0] for part in parts(cell.initial_state(1))]
    mask = "mask" if ragged else None
    nodes = scan(program, dict(cell.named_parameters()), initial, "x", "y", constants, mask, backwards)
    inputs = f"float[time,batch,{program.inputs[0]}] x" if program.inputs else "int64[time,batch] x"
    inputs += ", bool[time,batch,1] mask" * ragged
    sizes = program.states
    outputs = f"float[time,batch,{sizes[0]}] y, float[batch,{sizes[0]}] last_y"
    outputs += "".join(f", float[batch,{size}] y_last_{k}" for k, size in enumerate(sizes) if k)
    head = '<ir_version: 8, opset_import: ["" : 17]>'
    made = parser.parse_model("\n".join([head, f"scanned ({inputs}) => ({outputs}) {{", *nodes, "}"]))
    for name, values in constants.items():
        made.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
    onnx.checker.check_model(made, full_check=True)
    graphs = [made.graph, *(a.g for node in made.graph.node for a in node.attribute if a.name == "body")]
    read = {name for graph in graphs for node in graph.node for name in node.input}
    assert set(constants) <= read  # or ONNX Runtime would warn of them
    return made


def close(cell, T, B, lengths=None, backwards=False, x=None):
    """Whether ONNX Runtime and the reference engine agree on outputs and all last states, in float32."""
    cell = cell.float().eval()
    x = torch.randn(T, B, cell.input_size) if x is None else x
    made = graph_of(read(cell, not x.is_floating_point()), cell, lengths is not None, backwards)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy()}
    if lengths is not None:
        feed["mask"] = (torch.arange(T)[:, None] < lengths)[:, :, None].numpy()
    with torch.no_grad():
        out, last = reference.scan(cell, x, cell.initial_state(B), lengths, backwards)
    for ours, theirs in zip(session.run(None, feed), [out, *parts(last)], strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5, atol=1e-5)
    return made


def test_emit_onnx_has_an_operator_for_every_operation_of_a_step():
    back = {op for op in ELEMENTWISE if op.endswith("_back")}  # of the backward step alone
    assert set(ELEMENTWISE) - back | {"linear", "lookup", "sum", "max", "slice", "concat", "stop"} == set(OPERATORS)
    program = Program((3,), (3,))
    x, h = program.add("input", of=(0,), shape=(3,)), program.add("state", of=(0,), shape=(3,))
    program.new = (program.add("relu_back", x, h, line="cell.py:7"),)
    with pytest.raises(InputError, match=r"cell\.py:7: ONNX has no operator for relu_back"):
        scan(program, {}, [torch.zeros(3)], "x", "y", {})


@pytest.mark.parametrize("of", ["rows", "columns", "weight", "x alone"])
@pytest.mark.parametrize("op", [op for op in ELEMENTWISE if not op.endswith("_back")])
def test_emit_onnx_computes_every_elementwise_operation(op, of):
    """On rows, on a row and one column, on a row and a weight, and before the scan."""
    torch.manual_seed(0)
    B, n = 6, 4
    program = Program((n,), (n,))
    x, h = program.add("input", of=(0,), shape=(n,)), program.add("state", of=(0,), shape=(n,))
    first = x if of == "x alone" else h
    if op in ("log", "sqrt", "pow"):  # of positive numbers
        first = program.add("exp", first)
    second = {
        "rows": x,
        "columns": program.slice(x, 0, 1),
        "weight": program.add("parameter", of=("w",), shape=(n,)),
        "x alone": x,
    }[of]
    operands = {"where": [program.add("less", first, second), first, second]}.get(op, [first, second])
    two = ("add", "sub", "mul", "div", "maximum", "minimum", "pow", "less", "equal")
    count = 3 if op == "where" else 2 if op in two else 1
    made = program.add(op, *operands[:count])
    program.new = (program.add("add", made, program.add("mul", h, program.number(0.0))),)
    w, values, state = torch.randn(n), torch.randn(1, B, n), torch.randn(n)
    values[0, :, 1] = w[1] = state[1] = 0.75  # equal ones among them
    constants: dict = {}
    nodes = scan(program, {"w": w}, [state], "x", "y", constants)
    graph = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[time,batch,{n}] x) => (float[time,batch,{n}] y) '
        f"{{ {' '.join(nodes)} }}"
    )
    for name, array in constants.items():
        graph.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
    onnx.checker.check_model(graph, full_check=True)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": values.numpy()})
    expected = program.step([values[0]], [state.expand(B, n)], {"w": w})[program.new[0]]
    np.testing.assert_allclose(found[0], expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [*KINDS, *CELLS, "coupled"], ids=lambda kind: getattr(kind, "__name__", kind))
@pytest.mark.filterwarnings("ignore:std:UserWarning")
def test_emit_onnx_scans_any_cell_as_the_reference_does(kind):
    torch.manual_seed(1)
    if kind == "coupled":
        cell = without(LSTMCell(6, 7), "coupled")
    else:
        cell = cell_type(kind)(6, 7) if isinstance(kind, str) else own(kind, 6, 7)
    close(cell, 4, 5)
    close(cell, 1, 1)
    close(cell, 5, 7, LENGTHS)
    close(cell, 5, 7, LENGTHS, backwards=True)
    close(cell, 3, 2, backwards=True)


class FirstLearnt(Own):
    """A learnt initial state, a weight beside x and h, a sum over gates, a state that only looks at x."""

    def __init__(self, D, H):
        super().__init__(D, H, W=(2 * H, D + H + 2), v=(2,), first=(H,))

    def forward(self, x, h, seen):
        a = torch.cat([x, h, self.v.expand(len(x), -1)], 1) @ self.W.T
        return torch.tanh(a.view(len(x), 2, -1).sum(1)), x

    def initial_state(self, batch_size):
        return self.first.expand(batch_size, -1), torch.ones(batch_size, self.input_size)


def test_emit_onnx_begins_with_the_cells_own_initial_state():
    torch.manual_seed(2)
    cell = as_cell(FirstLearnt(3, 4), (4, 3))
    close(cell, 4, 5)
    close(cell, 5, 7, LENGTHS)
    close(cell, 5, 7, LENGTHS, backwards=True)


class Clock(Own):
    """Does not look at x."""

    def forward(self, x, h):
        return h + 1


def test_emit_onnx_scans_a_cell_that_does_not_read_its_input():
    close(as_cell(Clock(3, 4)), 4, 5)
    close(as_cell(Clock(3, 4)), 5, 7, LENGTHS)


class Looked(Own):
    """Two tables, and the index itself as a number."""

    def __init__(self, D, H):
        super().__init__(D, H, W=(H, H), one=(D, H), two=(H, D))

    def forward(self, x, h):
        rows = nn.functional.embedding(x, self.one) * torch.sigmoid(nn.functional.embedding(x, self.two.T))
        return torch.tanh(h @ self.W.T + rows) * (x.float()[:, None] > 4)


@pytest.mark.parametrize("kind", [*CELLS, Looked], ids=str)
def test_emit_onnx_looks_words_up(kind):
    torch.manual_seed(3)
    cell = cell_type(kind)(9, 4) if isinstance(kind, str) else as_cell(kind(9, 4))
    close(cell, 5, 7, LENGTHS, x=torch.randint(0, 9, (5, 7)))
    made = close(cell, 4, 3, x=torch.randint(0, 9, (4, 3)))
    (body,) = [node for node in made.graph.node if node.op_type == "Scan"]
    assert "Gather" not in [node.op_type for node in body.attribute[0].g.node]  # looked up for all steps at once


def test_emit_onnx_computes_products_of_x_before_the_scan_and_weights_at_export():
    torch.manual_seed(4)
    made = close(own(LayerNormLSTM, 6, 7), 4, 5)
    (body,) = [attribute.g for node in made.graph.node for attribute in node.attribute if attribute.name == "body"]
    products = lambda nodes: [node.op_type for node in nodes].count("MatMul")  # noqa: E731
    assert (products(made.graph.node), products(body.node)) == (1, 1)
    assert {"Transpose", "Reshape"}.isdisjoint(node.op_type for node in [*made.graph.node, *body.node])
    assert {
        name
        for name in ("i", "f", "c")
        if any(n.name.endswith(f"_{name}") or f"_{name}" in n.output[0] for n in body.node)
    } == {"i", "f", "c"}


def test_emit_onnx_writes_no_name_that_would_be_syntax():
    cell = own(nn.RNNCell, 3, 4)
    program = read(cell)
    odd = "a = Identity(x) }"
    program.nodes = [replace(node, name=odd) if node.args else node for node in program.nodes]
    assert odd not in " ".join(scan(program, dict(cell.named_parameters()), [torch.zeros(4)], "x", "y", {}))


def test_emit_onnx_keeps_batch_and_time_free():
    made = close(own(nn.GRUCell, 3, 4), 4, 5)
    inferred = onnx.shape_inference.infer_shapes(made, strict_mode=True)
    assert [d.dim_param for d in inferred.graph.input[0].type.tensor_type.shape.dim][:2] == ["time", "batch"]
    session = onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])
    for T, B in ((1, 1), (3, 9), (8, 2)):
        y, last = session.run(None, {"x": np.zeros((T, B, 3), np.float32)})
        assert y.shape == (T, B, 4)
        assert last.shape == (B, 4)
