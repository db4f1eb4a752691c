"""A run's model for other tools: an ONNX file, and a model card.

The ONNX graph holds one LSTM or RNN node for each layer, and everything around it: pictures go in as they are (0 to 255),
series in their own units, words as numbers of the vocabulary; logits and probabilities come out. Batch and time axes are
dynamic. Sentences and series take a second input, the length of each.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

import unroll
from unroll.cells import cell_type
from unroll.cells.parameters import CellParameters
from unroll.data.images import ImageEncoder
from unroll.data.sentences import SentenceEncoder
from unroll.data.series import SeriesEncoder
from unroll.errors import InputError, RunError
from unroll.report.pdf import write_whole
from unroll.training.recipe import ImageRecipe, SentenceRecipe
from unroll.training.run import Classifier, RunFolder, load

OPSET, IR_VERSION = 17, 8  # understood by ONNX Runtime 1.12 and later
TOLERANCE = 1e-5
Array = NDArray[np.float32]


def export_onnx(folder: RunFolder, path: Path) -> float | None:
    """Write the trained model of a run as ONNX.

    Returns:
        The largest difference to this package's own logits, at two lengths and two batch sizes; None where ONNX Runtime
        is not installed.

    Raises:
        InputError: onnx is not installed, or the file cannot be written.
        RunError: the run holds no trained model, or ONNX Runtime gives other outputs.
    """
    try:
        import onnx
    except ImportError:
        raise InputError("onnx is not installed; install it with: pip install 'unroll-rnn[onnx]'") from None
    if path.suffix != ".onnx":
        raise InputError(f"--onnx is {path}; expected a file name that ends in .onnx")
    classifier = load(folder.path)
    model = build_graph(classifier)
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    difference = check(classifier, content)
    if difference is not None and not difference <= TOLERANCE:
        raise RunError(
            f"ONNX Runtime's logits differ by {difference:.1e}; expected at most {TOLERANCE:.0e}; not written"
        )
    write_whole(path, content)
    return difference


class Graph:
    """Nodes and constants under construction; every method returns the name of what it made."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, values: Any) -> str:
        from onnx import numpy_helper

        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def add(self, kind: str, inputs: list[str], outputs: list[str] | str, **attributes: Any) -> str:
        from onnx import helper

        names = [outputs] if isinstance(outputs, str) else outputs
        self.nodes.append(helper.make_node(kind, inputs, names, name=f"{kind}_{len(self.nodes)}", **attributes))
        return names[0]


def build_graph(classifier: Classifier) -> Any:
    """The model as an onnx ModelProto."""
    from onnx import TensorProto, helper

    encoder, model = classifier.encoder, classifier.model
    graph = Graph()
    ragged = not isinstance(encoder, ImageEncoder)
    if isinstance(encoder, SentenceEncoder):
        inputs = [helper.make_tensor_value_info("tokens", TensorProto.INT64, ["batch", "time"])]
    else:
        inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "time", encoder.input_size])]
    lengths = ""
    if ragged:
        inputs.append(helper.make_tensor_value_info("lengths", TensorProto.INT64, ["batch"]))
        lengths = graph.add("Cast", ["lengths"], "lengths_int32", to=TensorProto.INT32)

    h = _input(graph, classifier)  # (T, B, D)
    looked_up = isinstance(encoder, SentenceEncoder) and model.embedding is None
    layers = list(model.layers.cells)
    last = ""
    for number, cells in enumerate(layers):
        h, last = _layer(graph, number, list(cells), h, lengths, looked_up and number == 0)
    read = _pool(graph, classifier, h, last)
    W_out = graph.constant("W_out", model.W_out.detach().numpy().T)
    b_out = graph.constant("b_out", model.b_out.detach().numpy())
    graph.add("MatMul", [read, W_out], "readout")
    graph.add("Add", ["readout", b_out], "logits")
    graph.add("Softmax", ["logits"], "probabilities", axis=-1)

    classes = len(encoder.class_names)
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", classes])
        for name in ("logits", "probabilities")
    ]
    made = helper.make_model(
        helper.make_graph(graph.nodes, "unroll", inputs, outputs, graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        producer_name="unroll",
        producer_version=unroll.__version__,
        doc_string=input_note(classifier),
    )
    made.ir_version = IR_VERSION
    helper.set_model_props(made, _properties(classifier))
    return made


def _properties(classifier: Classifier) -> dict[str, str]:
    encoder = classifier.encoder
    found = {"labels": json.dumps(encoder.class_names, ensure_ascii=False), "input": input_note(classifier)}
    if isinstance(encoder, SentenceEncoder):
        found["vocabulary"] = json.dumps(encoder.words, ensure_ascii=False)
    if isinstance(encoder, SeriesEncoder):
        found["features"] = json.dumps(encoder.feature_names, ensure_ascii=False)
    return found


def input_note(classifier: Classifier) -> str:
    """What goes in, in a sentence."""
    encoder = classifier.encoder
    if isinstance(encoder, ImageEncoder):
        return (
            f"x (batch, time, {encoder.columns}) float32: pictures row by row, pixels from 0 to 255, ink bright on dark; "
            "the normalisation is part of the model."
        )
    if isinstance(encoder, SentenceEncoder):
        unknown = f"{encoder.words[0]!r} (0) stands for unknown ones" if encoder.unknown else "leave out unknown ones"
        case = "lower case" if encoder.lowercase else "as written"
        return (
            f"tokens (batch, time) int64: numbers of words in the vocabulary, {case}; {unknown}; pad with 0. "
            "lengths (batch) int64: words in each sentence."
        )
    return (
        f"x (batch, time, {encoder.input_size}) float32: measurements in their own units; the standardisation is part of "
        "the model. lengths (batch) int64: steps in each series."
    )


def _input(graph: Graph, classifier: Classifier) -> str:
    """The graph's input -> (T, B, D): normalised, embedded, or with U looked up."""
    encoder, model = classifier.encoder, classifier.model
    if isinstance(encoder, SentenceEncoder):
        tokens = graph.add("Transpose", ["tokens"], "tokens_by_time", perm=[1, 0])
        if model.embedding is not None:
            table = model.embedding.detach().numpy()  # (V, E)
        else:
            # A one-hot word picks a column of U. The columns are looked up, and the node's input weights are the
            # identity: no one-hot vector over the whole vocabulary is ever made.
            columns = [_blocks(cell, cell.U).T for cell in model.layers.cells[0]]  # (V, G·H) for each direction
            table = np.concatenate(columns, axis=1)
        return graph.add("Gather", [graph.constant("words", table), tokens], "x_by_time", axis=0)
    if isinstance(encoder, ImageEncoder):
        scale, shift = np.float32(1 / (255 * encoder.std)), np.float32(encoder.mean / encoder.std)
        scaled = graph.add("Mul", ["x", graph.constant("scale", scale)], "x_scaled")
        normalised = graph.add("Sub", [scaled, graph.constant("shift", shift)], "x_normalised")
    else:
        assert isinstance(encoder, SeriesEncoder)
        mean, deviation = np.array(encoder.mean, np.float32), np.array(encoder.deviation, np.float32)
        centred = graph.add("Sub", ["x", graph.constant("mean", mean)], "x_centred")
        normalised = graph.add("Div", [centred, graph.constant("deviation", deviation)], "x_normalised")
    return graph.add("Transpose", [normalised], "x_by_time", perm=[1, 0, 2])


def _layer(graph: Graph, number: int, cells: list[Any], x: str, lengths: str, looked_up: bool) -> tuple[str, str]:
    """One layer -> its outputs (T, B, H·directions) and its last states (B, H·directions)."""
    H, directions = cells[0].hidden_size, len(cells)
    G = len(cells[0].gate_names) * H
    if looked_up:
        U = np.zeros((directions, G, directions * G), np.float32)
        for d in range(directions):
            U[d, :, d * G : (d + 1) * G] = np.eye(G)
    else:
        U = np.stack([_blocks(cell, cell.U) for cell in cells])
    W = np.stack([_blocks(cell, cell.W) for cell in cells])
    b = np.stack([np.zeros(G, np.float32) if cell.b is None else _blocks(cell, cell.b) for cell in cells])
    inputs = [
        x,
        graph.constant(f"U_{number}", U),
        graph.constant(f"W_{number}", W),
        graph.constant(f"b_{number}", np.concatenate([b, np.zeros_like(b)], axis=1)),  # ONNX has two biases, as torch
        lengths,
    ]
    attributes: dict[str, Any] = {"hidden_size": H, "direction": "bidirectional" if directions == 2 else "forward"}
    outputs = [f"Y_{number}", f"Y_h_{number}"]
    name, _ = operator_of(cells[0])
    if hasattr(cells[0], "nonlinearity"):
        activation = {"tanh": "Tanh", "relu": "Relu"}[cells[0].nonlinearity]
        attributes["activations"] = [activation] * directions
    graph.add(name, inputs, outputs, **attributes)
    flat = graph.constant(f"shape_{number}", np.array([0, 0, -1], np.int64))
    by_batch = graph.add("Transpose", [outputs[0]], f"Y_by_batch_{number}", perm=[0, 2, 1, 3])  # (T, B, directions, H)
    h = graph.add("Reshape", [by_batch, flat], f"h_{number}")
    last = graph.add("Transpose", [outputs[1]], f"last_by_batch_{number}", perm=[1, 0, 2])  # (B, directions, H)
    return h, graph.add(
        "Reshape", [last, graph.constant(f"flat_{number}", np.array([0, -1], np.int64))], f"last_{number}"
    )


class Operator(NamedTuple):
    """ONNX's operator for a cell, and the order in which it wants the gates' blocks."""

    name: str
    gates: tuple[str, ...]


OPERATORS = {"rnn": Operator("RNN", ("s",)), "lstm": Operator("LSTM", ("i", "o", "f", "c_tilde"))}


def operator_of(cell: CellParameters) -> Operator:
    """ONNX's operator for a cell.

    Raises:
        InputError: ONNX has none.
    """
    for name, operator in OPERATORS.items():
        if type(cell) is cell_type(name):
            return operator
    raise InputError(f"ONNX has no operator for the cell {cell.title!r}; export runs of cell {' or '.join(OPERATORS)}")


def _blocks(cell: CellParameters, parameter: Any) -> Array:
    """The gates' blocks in ONNX's order."""
    values = parameter.detach().cpu()
    found: Array = torch.cat([values[cell.block(gate)] for gate in operator_of(cell).gates]).numpy()
    return found


def _pool(graph: Graph, classifier: Classifier, h: str, last: str) -> str:
    """h (T, B, F), last (B, F) -> what the readout reads (B, F)."""
    from onnx import TensorProto

    how = classifier.model.head.pooling
    ragged = not isinstance(classifier.encoder, ImageEncoder)
    if how == "last":
        return last
    if not ragged:
        return graph.add("ReduceMean" if how == "mean" else "ReduceMax", [h], "pooled", axes=[0], keepdims=0)
    # Which steps belong to a sequence: number of the step < its length, (T, B, 1).
    shape = graph.add("Shape", [h], "h_shape")
    T = graph.add("Gather", [shape, graph.constant("first", np.array(0, np.int64))], "T", axis=0)
    zero, one = graph.constant("zero", np.array(0, np.int64)), graph.constant("one", np.array(1, np.int64))
    steps = graph.add("Range", [zero, T, one], "steps")
    column = graph.add("Unsqueeze", [steps, graph.constant("axis_1", np.array([1], np.int64))], "steps_column")
    inside = graph.add("Less", [column, "lengths"], "inside")
    mask = graph.add("Unsqueeze", [inside, graph.constant("axis_2", np.array([2], np.int64))], "mask")
    padding = np.float32(0 if how == "mean" else -np.inf)
    masked = graph.add("Where", [mask, h, graph.constant("padding", padding)], "h_masked")
    if how == "max":
        return graph.add("ReduceMax", [masked], "pooled", axes=[0], keepdims=0)
    total = graph.add("ReduceSum", [masked, graph.constant("axis_0", np.array([0], np.int64))], "h_sum", keepdims=0)
    counts = graph.add("Cast", ["lengths"], "lengths_float", to=TensorProto.FLOAT)
    per = graph.add("Unsqueeze", [counts, graph.constant("axis_last", np.array([1], np.int64))], "lengths_column")
    return graph.add("Div", [total, per], "pooled")


def check(classifier: Classifier, content: bytes) -> float | None:
    """The largest difference between ONNX Runtime's logits and the model's own, relative where logits exceed 1.

    At two lengths and two batch sizes, on random inputs; None where ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        return None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # not its remarks on constants that it folds
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    encoder = classifier.encoder
    largest = 0.0
    for T in (7, 28):
        for B in (1, 5):
            feeds, expected = _sample(classifier, random, B, T)
            (found,) = session.run(["logits"], feeds)
            difference = np.abs(found - expected) / np.maximum(1.0, np.abs(expected))
            largest = max(largest, float(difference.max()))
            assert found.shape == (B, len(encoder.class_names))
    return largest


@torch.no_grad()
def _sample(
    classifier: Classifier, random: np.random.Generator, B: int, T: int
) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Random inputs for ONNX Runtime, and the logits that the model itself gives for them."""
    encoder, model = classifier.encoder, classifier.model
    if isinstance(encoder, ImageEncoder):
        pixels = random.integers(0, 256, (B, T, encoder.columns)).astype(np.uint8)
        expected = model(encoder.features(torch.from_numpy(pixels)))
        return {"x": pixels.astype(np.float32)}, expected.numpy()
    lengths = random.integers(1, T + 1, B)
    lengths[0] = T
    if isinstance(encoder, SentenceEncoder):
        tokens = random.integers(0, encoder.input_size, (B, T))
        expected = model(torch.from_numpy(tokens).T, torch.from_numpy(lengths))
        return {"tokens": tokens, "lengths": lengths}, expected.numpy()
    assert isinstance(encoder, SeriesEncoder)
    mean, deviation = np.array(encoder.mean, np.float32), np.array(encoder.deviation, np.float32)
    standard = random.standard_normal((B, T, encoder.input_size)).astype(np.float32)
    raw = (standard * deviation + mean).astype(np.float32)
    again = torch.from_numpy((raw - mean) / deviation)
    expected = model(again.transpose(0, 1), torch.from_numpy(lengths))
    return {"x": raw, "lengths": lengths}, expected.numpy()


# --------------------------------------------------------------------------------------------------------------- card

MARK = "library_name: unroll-rnn"


def write_card(folder: RunFolder, onnx: Path | None = None) -> list[Path]:
    """Write README.md, a model card with Hugging Face's metadata, and the weights, beside the ONNX file (or in the run).

    Raises:
        InputError: a README.md that is no model card stands there, or the folder cannot be written.
        RunError: the run is not finished.
    """
    target = folder.path if onnx is None else onnx.parent
    card, weights = target / "README.md", target / "model.safetensors"
    if card.is_file() and MARK not in card.read_text(encoding="utf-8", errors="replace"):
        raise InputError(f"{card} is no model card of this package and would be lost; export into another folder")
    write_whole(card, card_text(folder, None if onnx is None else onnx.name))
    source = folder.path / "model.safetensors"
    if weights.resolve() != source.resolve():
        shutil.copyfile(source, weights)
    return [card, weights]


def card_text(folder: RunFolder, onnx: str | None = None) -> str:
    """The model card as Markdown, its metadata first."""
    from unroll.report.document import Parts, command, percent, wrapped

    parts = Parts(folder)
    classifier, metrics, recipe = load(folder.path), folder.metrics(), folder.recipe
    test = metrics.get("test")
    task = {"images": "image-classification", "sentences": "text-classification"}.get(
        recipe.task, "time-series-classification"
    )
    name = (
        "MNIST"
        if isinstance(recipe, ImageRecipe) and recipe.data is None
        else Path(recipe.data or "the lab's sentences").name
    )
    metadata: dict[str, Any] = {"library_name": "unroll-rnn", "pipeline_tag": task}
    if task == "time-series-classification":
        metadata.pop("pipeline_tag")  # none of Hugging Face's own
    metadata["tags"] = ["unroll", recipe.cell, "recurrent-neural-network", task]
    if isinstance(recipe, ImageRecipe) and recipe.data is None:
        metadata["datasets"] = ["ylecun/mnist"]
    if test is not None:
        metadata["metrics"] = ["accuracy"]
        result = {
            "task": {"type": task},
            "dataset": {"name": name, "type": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")},
            "metrics": [{"type": "accuracy", "value": test["accuracy"], "name": "Test accuracy"}],
        }
        metadata["model-index"] = [{"name": recipe.name, "results": [result]}]
    import yaml

    lines = [
        "---",
        yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {recipe.name}",
        "",
    ]
    lines += [
        f"{parts.title()}: {metrics['parameters']:,} parameters, trained on {metrics['training_sequences']:,} sequences."
    ]
    if test is not None:
        low, high = test["interval95"]
        lines += [
            "",
            f"**Test accuracy {percent(test['accuracy'])}** ({test['correct']:,} of {test['total']:,}; 95% interval "
            f"{percent(low)} to {percent(high)}).",
            "",
            "| class | correct | of | accuracy |",
            "| --- | ---: | ---: | ---: |",
        ]
        for label, row in test["per_class"].items():
            shown = percent(row["accuracy"]) if row["total"] else "–"
            lines.append(f"| {_cell(label)} | {row['correct']} | {row['total']} | {shown} |")
    lines += ["", "## Use", "", "With `unroll` (raw inputs, labels and normalisation included):", "", "```python"]
    example = {"images": "digit.png", "sentences": "The movie is good"}.get(recipe.task)
    lines += ["import unroll", "", 'classifier = unroll.load("model.safetensors")']
    lines += [
        f'print(classifier.predict(["{example}"]))' if example else "print(classifier.predict([series]))  # (T, D) each"
    ]
    lines += [
        "```",
        "",
        "The recurrent layers alone, in plain PyTorch:",
        "",
        "```python",
        *torch_snippet(classifier),
        "```",
        "",
    ]
    lines += [_torch_note(classifier), ""]
    if onnx is not None:
        feed = (
            '{"tokens": tokens, "lengths": lengths}'
            if isinstance(recipe, SentenceRecipe)
            else ('{"x": x}' if isinstance(recipe, ImageRecipe) else '{"x": x, "lengths": lengths}')
        )
        lines += ["With ONNX Runtime:", "", "```python", "import onnxruntime", ""]
        lines += [f'session = onnxruntime.InferenceSession("{onnx}")']
        lines += [f'(probabilities,) = session.run(["probabilities"], {feed})', "```", "", input_note(classifier), ""]
    lines += [
        "Labels, in the order of the outputs: " + ", ".join(f"`{name}`" for name in classifier.class_names) + ".",
        "",
    ]
    facts = folder.facts
    lines += ["## Training", "", "```sh", *wrapped(command(recipe)), "```", ""]
    versions = ", ".join(f"{key} {facts[key]}" for key in ("unroll", "torch", "python") if key in facts)
    lines += [f"Seed {recipe.seed}; {versions}; {metrics['seconds']['training']:.0f} s of training.", ""]
    lines += ["## Limits", "", _limits(classifier), ""]
    return "\n".join(lines)


def torch_snippet(classifier: Classifier) -> list[str]:
    """Python that loads the recurrent layers of model.safetensors into torch.nn.LSTM or torch.nn.RNN."""
    layers = classifier.model.layers
    kind = operator_of(layers.cells[0][0]).name
    options = "".join(
        [
            f", num_layers={layers.num_layers}" if layers.num_layers > 1 else "",
            ', nonlinearity="relu"' if getattr(layers.cells[0][0], "nonlinearity", "tanh") == "relu" else "",
            ", bidirectional=True" if layers.bidirectional else "",
        ]
    )
    names = '{"weight_ih": "U", "weight_hh": "W", "bias_ih": "b", "bias_hh": "b"}'
    several = layers.num_layers > 1 or layers.bidirectional
    key = "{theirs}_l{n}{'_reverse' * d}" if several else "{theirs}_l0"
    value = 'w[f"layers.cells.{n}.{d}.{ours}"]' if several else 'w[f"layers.cells.0.0.{ours}"]'
    loops = f" for n in range({layers.num_layers}) for d in range({layers.directions})" if several else ""
    return [
        "import torch",
        "from safetensors.torch import load_file",
        "",
        'w = load_file("model.safetensors")',
        f"lstm = torch.nn.{kind}({layers.input_size}, {layers.hidden_size}{options})".replace(
            "lstm =", f"{kind.lower()} ="
        ),
        f'{kind.lower()}.load_state_dict({{f"{key}": {value} * (theirs != "bias_hh")',
        f"    for theirs, ours in {names}.items(){loops}}})",
    ]


def _torch_note(classifier: Classifier) -> str:
    note = "torch keeps two biases where the equations have one; the second is zero."
    encoder = classifier.encoder
    if isinstance(encoder, ImageEncoder):
        return (
            f"{note} The input is (time, batch, {encoder.columns}): pixels / 255, minus {encoder.mean:.6g}, "
            f"over {encoder.std:.6g}."
        )
    if isinstance(encoder, SentenceEncoder):
        if classifier.model.embedding is not None:
            return f'{note} The input is (time, batch, E): rows of `w["embedding"]`.'
        return f"{note} The input is (time, batch, {encoder.input_size}): one-hot vectors over the vocabulary."
    return f"{note} The input is (time, batch, {encoder.input_size}), standardised with the training part's mean and deviation."


def _limits(classifier: Classifier) -> str:
    recipe = classifier.recipe
    where = "the MNIST digits" if isinstance(recipe, ImageRecipe) and recipe.data is None else "the data named above"
    return (
        f"The model knows the {len(classifier.class_names)} classes that it was trained on and always names one of them, "
        f"whatever it is shown. The accuracy above holds for sequences like those of {where}, and for no others."
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
