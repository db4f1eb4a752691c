"""A run's model for other tools: an ONNX file.

The graph holds ONNX's own LSTM, GRU or RNN operator for each layer of those cells; of any other cell a Scan for each layer
and direction, whose body is the cell's step program in ONNX's operators. Around it is everything else: pictures go in as
they are (float32, 0 to 255), series in their own units (float64, missing values filled as in training), words as numbers of
the vocabulary; logits and probabilities come out. Batch and time axes are dynamic. Sentences and series take a second
input, the length of each.

What a graph cannot do is refuse: where `predict` raises an error of a missing value that is not to be filled, or of one
that is infinite, NaN comes out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import unroll
from unroll.cells import GRUCell, LSTMCell, RNNCell
from unroll.cells.base import Cell, parts
from unroll.data.batches import Encoder, Sequences, batches
from unroll.data.images import ImageEncoder
from unroll.data.sentences import SentenceEncoder
from unroll.data.series import SeriesEncoder
from unroll.equations.emit_onnx import scan
from unroll.equations.program import UnreadableError
from unroll.equations.read import read
from unroll.errors import InputError, RunError, UnrollError
from unroll.files import refuse_foreign
from unroll.report.pdf import write_whole
from unroll.training.run import Classifier, RunFolder, load
from unroll.training.tasks import reads_words, test_inputs

OPSET, IR_VERSION = 17, 8  # understood by ONNX Runtime 1.12 and later
TOLERANCE = 1e-5
OWN = 200  # sequences of the run's own test part that are compared, at most
Array = NDArray[np.float32]


def export_onnx(folder: RunFolder, path: Path) -> Check | None:
    """Write the trained model of a run as ONNX.

    Returns:
        What comparing it with `predict` found; None where ONNX Runtime is not installed.

    Raises:
        InputError: onnx is not installed, the file cannot be written, a file that this package has not written would be
            lost, or the cell has no step program.
        RunError: the run holds no trained model, or ONNX Runtime gives other outputs.
    """
    try:
        import onnx
    except ImportError:
        raise InputError("onnx is not installed; install it with: pip install 'unroll-rnn[onnx]'") from None
    if path.suffix != ".onnx":
        raise InputError(f"--onnx is {path}; expected a file name that ends in .onnx")
    refuse_foreign(path)
    classifier = load(folder.path)
    classifier.model.cpu()
    model = build_graph(classifier)
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    checked = check(classifier, content)
    if checked is not None and not checked.difference <= TOLERANCE:
        raise RunError(
            f"ONNX Runtime and predict differ by {checked.difference:.1e}; expected at most {TOLERANCE:.0e}; {path} is "
            "not written"
        )
    write_whole(path, content)
    return checked


def build_graph(classifier: Classifier) -> Any:
    """The model as an onnx ModelProto: its nodes in ONNX's textual syntax, and the constants that they name.

    Raises:
        InputError: the cell has no step program; the message says which line of it is in the way.
    """
    from onnx import helper, numpy_helper, parser

    encoder, layers = classifier.encoder, list(classifier.model.layers.cells)
    constants: dict[str, Any] = {
        "W_out": classifier.model.W_out.detach().numpy().T,
        "b_out": classifier.model.b_out.detach().numpy(),
    }
    inputs = "int64[batch,time] tokens"
    if not isinstance(encoder, SentenceEncoder):
        kind = "double" if isinstance(encoder, SeriesEncoder) else "float"
        inputs = f"{kind}[batch,time,{encoder.input_size}] x"
    nodes = _input(classifier, constants)
    if _ragged(classifier):
        inputs += ", int64[batch] lengths"
        nodes += _mask(constants)
    for number, cells in enumerate(layers):
        layer = _scans if operator_of(cells) is None else _operator
        nodes += layer(classifier, number, list(cells), constants)
    pooled, pooling = _pool(classifier, f"h_{len(layers)}", constants)
    nodes += [
        *pooling,
        f"readout = MatMul({pooled}, W_out)",
        *_logits(encoder, constants),
        "probabilities = Softmax<axis = -1>(logits)",
    ]
    outputs = ", ".join(f"float[batch,{len(encoder.class_names)}] {name}" for name in ("logits", "probabilities"))
    head = f'<ir_version: {IR_VERSION}, opset_import: ["" : {OPSET}], producer_name: "unroll">'
    made = parser.parse_model("\n".join([head, f"unroll ({inputs}) => ({outputs}) {{", *nodes, "}"]))
    made.producer_version = unroll.__version__
    made.doc_string = input_words(classifier)["note"]
    for name, values in constants.items():
        made.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
    properties: dict[str, Any] = {"labels": encoder.class_names}
    if isinstance(encoder, SentenceEncoder):
        properties["vocabulary"] = encoder.words
    if isinstance(encoder, SeriesEncoder):
        properties["features"] = encoder.feature_names
    found = {name: json.dumps(values, ensure_ascii=False) for name, values in properties.items()}
    helper.set_model_props(made, {"input": made.doc_string, **found})
    return made


def _ragged(classifier: Classifier) -> bool:
    """Whether the model's sequences have lengths of their own."""
    return not isinstance(classifier.encoder, ImageEncoder)


def _input(classifier: Classifier, constants: dict[str, Any]) -> list[str]:
    """The graph's input -> h_0: features (T, B, D), normalised or embedded, or word indices (T, B) that the cells read."""
    encoder, model = classifier.encoder, classifier.model
    if isinstance(encoder, SentenceEncoder):
        if model.embedding is None:
            return ["h_0 = Transpose<perm = [1, 0]>(tokens)"]
        constants["words"] = model.embedding.detach().numpy()  # (V, E)
        return ["by_time = Transpose<perm = [1, 0]>(tokens)", "h_0 = Gather<axis = 0>(words, by_time)"]
    if isinstance(encoder, ImageEncoder):
        constants |= {"scale": np.float32(1 / (255 * encoder.std)), "shift": np.float32(-encoder.mean / encoder.std)}
        return [
            "scaled = Mul(x, scale)",
            "normalised = Add(scaled, shift)",
            "h_0 = Transpose<perm = [1, 0, 2]>(normalised)",
        ]
    assert isinstance(encoder, SeriesEncoder)
    # In float64, as the encoder does it: of Unix times, say, float32 keeps not even the minutes.
    constants |= {"mean": np.array(encoder.mean), "deviation": np.array(encoder.deviation)}
    return [
        "by_time = Transpose<perm = [1, 0, 2]>(x)",
        *_filled(encoder, constants),
        "centred = Sub(filled, mean)",
        "normalised = Div(centred, deviation)",
        "h_0 = Cast<to = 1>(normalised)",  # 1: float32
    ]


def _filled(encoder: SeriesEncoder, constants: dict[str, Any]) -> list[str]:
    """by_time (T, B, D) -> filled (T, B, D), every NaN replaced as `SeriesEncoder` replaces it."""
    if encoder.fill_missing == "none":
        return ["filled = Identity(by_time)"]
    if encoder.fill_missing != "last":
        constants["zero_value"] = np.array(0.0)
        value = "zero_value" if encoder.fill_missing == "zero" else "mean"
        return ["missing = IsNaN(by_time)", f"filled = Where(missing, {value}, by_time)"]
    size = f"double[batch,{encoder.input_size}]"
    constants["batch_and_features"] = np.array([1, 2])
    return [
        "series_shape = Shape(by_time)",
        "first_shape = Gather<axis = 0>(series_shape, batch_and_features)",
        "first = Expand(mean, first_shape)",  # what stands before the first value of a series
        "last_values, filled = Scan<num_scan_inputs = 1, body = step "
        f"({size} before, {size} now) => ({size} after, {size} found) "
        "{ missing = IsNaN(now) after = Where(missing, before, now) found = Identity(after) }>(first, by_time)",
    ]


def _scans(classifier: Classifier, number: int, cells: list[Cell], constants: dict[str, Any]) -> list[str]:
    """One layer of any cells, from their step programs: h_number -> the next h (T, B, H·directions) and its last states."""
    nodes, h, names = [], f"h_{number + 1}", []
    for direction, cell in enumerate(cells):
        try:
            program = read(cell, reads_words(classifier.recipe, number))
        except UnreadableError as why:
            raise InputError(
                f"the cell of layer {number + 1} cannot be exported, for its step cannot be read: {why}"
            ) from None
        initial = parts(cell.initial_state(2))
        if any(not torch.equal(part[0], part[1]) for part in initial):
            raise InputError(
                f"the initial state of layer {number + 1} differs between sequences; expected the same for all of them"
            )
        names.append(f"{h}_{('forward', 'backward')[direction]}")
        mask = "mask" if _ragged(classifier) else None
        nodes += scan(
            program,
            dict(cell.named_parameters()),
            [part[0] for part in initial],
            f"h_{number}",
            names[-1],
            constants,
            mask,
            direction == 1,
        )
    last = ", ".join(f"last_{name}" for name in names)
    return [*nodes, f"{h} = Concat<axis = -1>({', '.join(names)})", f"last_{h} = Concat<axis = -1>({last})"]


class Operator(NamedTuple):
    """ONNX's operator for a cell, which is also torch's name for its layer.

    Attributes:
        gates: the order in which it wants the gates' blocks.
        attributes: that make its equations the cell's own.
    """

    name: str
    gates: tuple[str, ...]
    attributes: str = ""


# The operators are faster in ONNX Runtime than a Scan; all other cells are emitted from their step programs.
OPERATORS: dict[type[Cell], Operator] = {
    RNNCell: Operator("RNN", ("s",)),
    LSTMCell: Operator("LSTM", ("i", "o", "f", "c_tilde")),
    GRUCell: Operator("GRU", ("z", "r", "n"), ", linear_before_reset = 1"),
}


def operator_of(cells: Iterable[Cell]) -> Operator | None:
    """ONNX's operator for the cells of a layer, one a direction; None where there is none."""
    (kind, *others) = {type(cell) for cell in cells}
    return None if others else OPERATORS.get(kind)


def _operator(classifier: Classifier, number: int, cells: list[Any], constants: dict[str, Any]) -> list[str]:
    """One layer by ONNX's operator: h_number -> the next h (T, B, H·directions) and its last states (B, H·directions)."""
    operator = operator_of(cells)
    assert operator is not None
    H, directions, nodes, x = cells[0].hidden_size, len(cells), [], f"h_{number}"
    U, W, b = ([_blocks(cell, name, operator.gates) for cell in cells] for name in ("U", "W", "b"))
    if reads_words(classifier.recipe, number):
        # A one-hot word picks a column of U. The columns are looked up, and the operator's input weights are the
        # identity: no one-hot vector over the whole vocabulary is ever made.
        constants["words"] = np.concatenate([block.T for block in U], axis=1)  # (V, G·H·directions)
        U = np.split(np.eye(constants["words"].shape[1], dtype=np.float32), directions)
        nodes, x = [f"looked_up = Gather<axis = 0>(words, {x})"], "looked_up"
    # ONNX has two biases, as torch; only the GRU's reset gate has a use for the second.
    second = [np.zeros_like(values) for values in b]
    for cell, values in zip(cells, second, strict=True):
        if getattr(cell, "b_h", None) is not None:
            values[-H:] = cell.b_h.detach().numpy()
    two = [np.concatenate(both) for both in zip(b, second, strict=True)]
    constants |= {f"U_{number}": np.stack(U), f"W_{number}": np.stack(W), f"b_{number}": np.stack(two)}
    constants |= {"keep_two": np.array([0, 0, -1]), "keep_one": np.array([0, -1])}
    attributes = f'hidden_size = {H}, direction = "{"bidirectional" if directions == 2 else "forward"}"'
    attributes += operator.attributes
    if hasattr(cells[0], "nonlinearity"):
        attributes += f", activations = {json.dumps([cells[0].nonlinearity.capitalize()] * directions)}"
    inputs = f"{x}, U_{number}, W_{number}, b_{number}"
    if _ragged(classifier):
        nodes.append(f"steps_{number} = Cast<to = 6>(lengths)")  # 6: int32
        inputs += f", steps_{number}"
    return [
        *nodes,
        f"Y_{number}, last_{number} = {operator.name}<{attributes}>({inputs})",
        f"Y_by_batch_{number} = Transpose<perm = [0, 2, 1, 3]>(Y_{number})",
        f"h_{number + 1} = Reshape(Y_by_batch_{number}, keep_two)",
        f"last_by_batch_{number} = Transpose<perm = [1, 0, 2]>(last_{number})",
        f"last_h_{number + 1} = Reshape(last_by_batch_{number}, keep_one)",
    ]


def _blocks(cell: Any, name: str, gates: tuple[str, ...]) -> Array:
    """W, U or b of a cell, the gates' blocks in ONNX's order; zeros for a bias that it does not have."""
    values = getattr(cell, name)
    if values is None:
        return np.zeros(len(cell.W), np.float32)
    found: Array = torch.cat([values.detach().cpu()[cell.block(gate)] for gate in gates]).numpy()
    return found


def _mask(constants: dict[str, Any]) -> list[str]:
    """Which steps belong to a sequence: number of the step < its length, (T, B, 1)."""
    constants |= {"zero": np.array(0), "one": np.array(1), "axis_1": np.array([1]), "axis_2": np.array([2])}
    return [
        "h_shape = Shape(h_0)",
        "T = Gather<axis = 0>(h_shape, zero)",
        "steps = Range(zero, T, one)",
        "column = Unsqueeze(steps, axis_1)",
        "inside = Less(column, lengths)",
        "mask = Unsqueeze(inside, axis_2)",
    ]


def _logits(encoder: Encoder, constants: dict[str, Any]) -> list[str]:
    """readout -> logits; of a series that `predict` refuses, NaN. The LSTM's own nodes make a number of NaN."""
    if not isinstance(encoder, SeriesEncoder):
        return ["logits = Add(readout, b_out)"]
    constants["no_number"] = np.float32(np.nan)
    return [
        "is_nan = IsNaN(h_0)",
        "is_infinite = IsInf(h_0)",
        "is_bad = Or(is_nan, is_infinite)",
        "is_bad_inside = And(is_bad, mask)",
        "bad_values = Cast<to = 1>(is_bad_inside)",
        "bad_series = ReduceMax<axes = [0, 2], keepdims = 0>(bad_values)",
        "refused_series = Cast<to = 9>(bad_series)",  # 9: bool
        "refused = Unsqueeze(refused_series, axis_1)",
        "sums = Add(readout, b_out)",
        "logits = Where(refused, no_number, sums)",
    ]


def _pool(classifier: Classifier, h: str, constants: dict[str, Any]) -> tuple[str, list[str]]:
    """What the readout reads (B, F), of the states h (T, B, F) and the last ones; and the nodes that make it."""
    how = classifier.model.head.pooling
    if how == "last":
        return f"last_{h}", []
    if not _ragged(classifier):
        return "pooled", [f"pooled = Reduce{how.capitalize()}<axes = [0], keepdims = 0>({h})"]
    constants["padding"] = np.float32(0 if how == "mean" else -np.inf)
    masked = f"masked = Where(mask, {h}, padding)"
    if how == "max":
        return "pooled", [masked, "pooled = ReduceMax<axes = [0], keepdims = 0>(masked)"]
    constants["axis_0"] = np.array([0])
    return "pooled", [
        masked,
        "total = ReduceSum<keepdims = 0>(masked, axis_0)",
        "lengths_float = Cast<to = 1>(lengths)",
        "lengths_column = Unsqueeze(lengths_float, axis_1)",
        "pooled = Div(total, lengths_column)",
    ]


class Check(NamedTuple):
    """What comparing ONNX Runtime with `predict` found.

    Attributes:
        difference: the largest one of probabilities and logits, relative where logits exceed 1.
        own: how many sequences of the run's own test part were among what was compared.
    """

    difference: float
    own: int


def check(classifier: Classifier, content: bytes) -> Check | None:
    """Compare ONNX Runtime with `predict`, from raw inputs on; None where ONNX Runtime is not installed.

    On inputs made at random, at two lengths and two batch sizes, and on what can be read of the run's own test part.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # not its remarks on constants that it folds
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    try:
        own = test_inputs(classifier.recipe, classifier.encoder, OWN)
        if own:
            classifier.encoder.encode(own)
    except (UnrollError, OSError):  # the data may be elsewhere by now, or others
        own = []
    random = np.random.default_rng(0)
    samples = [made_inputs(classifier.encoder, random, B, T) for T, B in product((7, 28), (1, 5))]
    differences = []
    for raw in [*samples, *([own] if own else [])]:
        found = session.run(["probabilities", "logits"], feeds(classifier.encoder, raw))
        for theirs, ours in zip(found, _own_outputs(classifier, raw), strict=True):
            assert theirs.shape == ours.shape
            differences.append(np.max(np.abs(theirs - ours) / np.maximum(1.0, np.abs(ours))))
    return Check(float(np.max(differences)), len(own))  # NaN, where any is


def made_inputs(encoder: Encoder, random: np.random.Generator, B: int, T: int) -> list[Any]:
    """Raw inputs for `predict`, B of T steps or, after the first, fewer; some values are missing if they may be."""
    if isinstance(encoder, ImageEncoder):
        return list(random.integers(0, 256, (B, encoder.rows, encoder.columns), dtype=np.uint8))
    lengths = [T, *random.integers(1, T + 1, B - 1).tolist()]
    if isinstance(encoder, SentenceEncoder):
        words = [word for word in encoder.words if encoder.tokens(word) == [word]] or list(encoder.words)
        return [" ".join(random.choice(words, length)) for length in lengths]
    assert isinstance(encoder, SeriesEncoder)
    D = encoder.input_size
    series = [encoder.mean + random.standard_normal((length, D)) * encoder.deviation for length in lengths]
    if encoder.fill_missing != "none":
        for values in series:
            values[random.random(values.shape) < 0.3] = np.nan
    return series


def feeds(encoder: Encoder, raw: list[Any]) -> dict[str, NDArray[Any]]:
    """What ONNX Runtime is given for inputs of `predict`: pixels, measurements with NaN behind the end, or tokens."""
    if isinstance(encoder, ImageEncoder):
        return {"x": np.stack(raw).astype(np.float32)}
    if isinstance(encoder, SentenceEncoder):
        values, found = encoder.encode(raw)
        rows = list(values) if found is None else values.split(found.tolist())
        padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True).numpy()
        return {"tokens": padded, "lengths": np.array([len(row) for row in rows])}
    lengths = np.array([len(values) for values in raw])
    x = np.full((len(raw), lengths.max(), encoder.input_size), np.nan)
    for row, values in zip(x, raw, strict=True):
        row[: len(values)] = values
    return {"x": x, "lengths": lengths}


@torch.no_grad()
def _own_outputs(classifier: Classifier, raw: list[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The probabilities that `predict` gives for raw inputs, and the logits behind them."""
    p = [[*prediction.probabilities.values()] for prediction in classifier.predict(raw)]
    values, lengths = classifier.encoder.encode(raw)
    (batch,) = batches(
        Sequences(values, torch.zeros(len(raw), dtype=torch.int64), lengths), classifier.encoder, len(raw)
    )
    return np.array(p), classifier.model(batch.x, batch.lengths).numpy()


def input_words(classifier: Classifier) -> dict[str, str]:
    """What goes in, in words: of the ONNX file (`note`, `feed`), of the layers in torch, of `predict` (`prepared`: how it
    reads files); and the task."""
    encoder, size = classifier.encoder, classifier.encoder.input_size
    if isinstance(encoder, ImageEncoder):
        digits, shape = encoder.pictures == "digits", f"{encoder.rows} rows of {encoder.columns} pixels"
        return {
            "task": "image-classification",
            "example": '"digit.png"' if digits else '"picture.png"',
            "each": "picture files or uint8 arrays (T, D)",
            "prepared": "\n`predict` prepares picture files as MNIST's digits were: one sign, dark on light or light on dark, "
            f"becomes bright ink on black, is scaled with its proportions kept and centred in {shape}. Arrays are taken as "
            "they are.\n"
            if digits
            else f"\n`predict` takes picture files as they are: made grey and scaled to {shape}, but not cut, centred or "
            "inverted, so they must look as the training pictures do. Arrays are taken as they are.\n",
            "note": f"x (batch, time, {size}) float32: pictures row by row, pixels from 0 to 255, "
            + ("ink bright on dark and centred as MNIST's; " if digits else "as in the training pictures; ")
            + "the normalisation is part of the model.",
            "feed": '{"x": x}',
            "torch": f"(time, batch, {size}): pixels / 255, minus {encoder.mean:.6g}, over {encoder.std:.6g}",
        }
    if isinstance(encoder, SentenceEncoder):
        unknown = "0 stands for unknown ones" if encoder.unknown else "leave out unknown ones"
        case = "lower case" if encoder.lowercase else "as written"
        one_hot = f"(time, batch, {size}): one-hot vectors over the vocabulary"
        return {
            "task": "text-classification",
            "example": '"The movie is good"',
            "each": "sentences",
            "prepared": "",
            "note": f"tokens (batch, time) int64: numbers of words in the vocabulary, {case}; {unknown}; pad with 0. "
            "lengths (batch) int64: words in each sentence.",
            "feed": '{"tokens": tokens, "lengths": lengths}',
            "torch": one_hot if classifier.model.embedding is None else '(time, batch, E): rows of `w["embedding"]`',
        }
    assert isinstance(encoder, SeriesEncoder)
    missing = {
        "none": "none may be missing: NaN in, NaN out",
        "zero": "NaN where one is missing, read as 0",
        "mean": "NaN where one is missing, read as the training part's mean",
        "last": "NaN where one is missing, read as the one before",
    }[encoder.fill_missing]
    return {
        "task": "time-series-classification",
        "example": "series",
        "each": "arrays (T, D)",
        "prepared": "",
        "note": f"x (batch, time, {size}) float64: measurements in their own units ({missing}); the standardisation is part "
        "of the model. lengths (batch) int64: steps in each series.",
        "feed": '{"x": x, "lengths": lengths}',
        "torch": f"(time, batch, {size}), standardised with the training part's mean and deviation",
    }
