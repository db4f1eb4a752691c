"""A run's model for other tools: an ONNX file, and a model card.

The ONNX graph holds one LSTM or RNN node for each layer, and everything around it: pictures go in as they are (0 to 255),
series in their own units, words as numbers of the vocabulary; logits and probabilities come out. Batch and time axes are
dynamic. Sentences and series take a second input, the length of each.
"""

from __future__ import annotations

import json
import re
import shutil
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

import unroll
from unroll.cells import cell_type
from unroll.cells.parameters import CellParameters
from unroll.data.images import ImageEncoder
from unroll.data.sentences import SentenceEncoder
from unroll.data.series import SeriesEncoder
from unroll.errors import InputError, RunError
from unroll.report.blocks import percent
from unroll.report.document import command, title_of, wrapped
from unroll.report.pdf import write_whole
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
    classifier.model.cpu()
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


def build_graph(classifier: Classifier) -> Any:
    """The model as an onnx ModelProto: its nodes in ONNX's textual syntax, and the constants that they name."""
    from onnx import helper, numpy_helper, parser

    encoder, layers = classifier.encoder, list(classifier.model.layers.cells)
    constants: dict[str, Any] = {
        "W_out": classifier.model.W_out.detach().numpy().T,
        "b_out": classifier.model.b_out.detach().numpy(),
        "keep_two": np.array([0, 0, -1]),
        "keep_one": np.array([0, -1]),
    }
    inputs = "int64[batch,time] tokens"
    if not isinstance(encoder, SentenceEncoder):
        inputs = f"float[batch,time,{encoder.input_size}] x"
    nodes = _input(classifier, constants)
    if _ragged(classifier):
        inputs += ", int64[batch] lengths"
        nodes.append("steps_read = Cast<to = 6>(lengths)")  # 6: int32
    for number, cells in enumerate(layers):
        nodes += _layer(classifier, number, list(cells), constants)
    read, pooling = _pool(classifier, f"h_{len(layers)}", constants)
    nodes += [
        *pooling,
        f"readout = MatMul({read}, W_out)",
        "logits = Add(readout, b_out)",
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
    """The graph's input -> h_0 (T, B, D): normalised, embedded, or with U looked up."""
    encoder, model = classifier.encoder, classifier.model
    if isinstance(encoder, SentenceEncoder):
        if model.embedding is not None:
            constants["words"] = model.embedding.detach().numpy()  # (V, E)
        else:
            # A one-hot word picks a column of U. The columns are looked up, and the node's input weights are the
            # identity: no one-hot vector over the whole vocabulary is ever made.
            columns = [
                _blocks(classifier, cell, "U").T for cell in model.layers.cells[0]
            ]  # (V, G·H) for each direction
            constants["words"] = np.concatenate(columns, axis=1)
        return ["by_time = Transpose<perm = [1, 0]>(tokens)", "h_0 = Gather<axis = 0>(words, by_time)"]
    constants["mean"], constants["deviation"] = _moments(encoder)
    return [
        "centred = Sub(x, mean)",
        "normalised = Div(centred, deviation)",
        "h_0 = Transpose<perm = [1, 0, 2]>(normalised)",
    ]


def _moments(encoder: Any) -> tuple[Any, Any]:
    """Mean and deviation of raw pictures or series."""
    if isinstance(encoder, ImageEncoder):
        return np.float32(255 * encoder.mean), np.float32(255 * encoder.std)
    return np.array(encoder.mean, np.float32), np.array(encoder.deviation, np.float32)


def _layer(classifier: Classifier, number: int, cells: list[Any], constants: dict[str, Any]) -> list[str]:
    """One layer: h_number (T, B, D) -> the next h (T, B, H·directions) and its last states (B, H·directions)."""
    H, directions = cells[0].hidden_size, len(cells)
    W, b = (np.stack([_blocks(classifier, cell, name) for cell in cells]) for name in ("W", "b"))
    if number == 0 and isinstance(classifier.encoder, SentenceEncoder) and classifier.model.embedding is None:
        G = b.shape[1]
        U = np.eye(directions * G, dtype=np.float32).reshape(directions, G, directions * G)
    else:
        U = np.stack([_blocks(classifier, cell, "U") for cell in cells])
    two = np.concatenate([b, np.zeros_like(b)], axis=1)  # ONNX has two biases, as torch
    constants |= {f"U_{number}": U, f"W_{number}": W, f"b_{number}": two}
    attributes = f'hidden_size = {H}, direction = "{"bidirectional" if directions == 2 else "forward"}"'
    if hasattr(cells[0], "nonlinearity"):
        attributes += f", activations = {json.dumps([cells[0].nonlinearity.capitalize()] * directions)}"
    inputs = f"h_{number}, U_{number}, W_{number}, b_{number}" + ", steps_read" * _ragged(classifier)
    return [
        f"Y_{number}, last_{number} = {_operator(classifier)[0]}<{attributes}>({inputs})",
        f"Y_by_batch_{number} = Transpose<perm = [0, 2, 1, 3]>(Y_{number})",
        f"h_{number + 1} = Reshape(Y_by_batch_{number}, keep_two)",
        f"last_by_batch_{number} = Transpose<perm = [1, 0, 2]>(last_{number})",
        f"last_h_{number + 1} = Reshape(last_by_batch_{number}, keep_one)",
    ]


# ONNX's operator for a cell, and the order in which it wants the gates' blocks.
OPERATORS = {"rnn": ("RNN", ("s",)), "lstm": ("LSTM", ("i", "o", "f", "c_tilde"))}


def _operator(classifier: Classifier) -> tuple[str, tuple[str, ...]]:
    cell = classifier.recipe.cell
    if cell not in OPERATORS:
        title = cell_type(cell).title
        raise InputError(f"ONNX has no operator for the cell {title!r}; export runs of cell {' or '.join(OPERATORS)}")
    return OPERATORS[cell]


def _blocks(classifier: Classifier, cell: CellParameters, name: str) -> Array:
    """W, U or b of a cell, the gates' blocks in ONNX's order; zeros for a bias that it does not have."""
    values = getattr(cell, name)
    if values is None:
        return np.zeros(len(cell.W), np.float32)
    found: Array = torch.cat([values.detach().cpu()[cell.block(gate)] for gate in _operator(classifier)[1]]).numpy()
    return found


def _pool(classifier: Classifier, h: str, constants: dict[str, Any]) -> tuple[str, list[str]]:
    """What the readout reads (B, F), of the states h (T, B, F) and the last ones; and the nodes that make it."""
    how = classifier.model.head.pooling
    if how == "last":
        return f"last_{h}", []
    if not _ragged(classifier):
        return "pooled", [f"pooled = Reduce{how.capitalize()}<axes = [0], keepdims = 0>({h})"]
    constants |= {"zero": np.array(0), "one": np.array(1), "padding": np.float32(0 if how == "mean" else -np.inf)}
    constants |= {f"axis_{k}": np.array([k]) for k in range(3)}
    # Which steps belong to a sequence: number of the step < its length, (T, B, 1).
    masked = [
        f"h_shape = Shape({h})",
        "T = Gather<axis = 0>(h_shape, zero)",
        "steps = Range(zero, T, one)",
        "column = Unsqueeze(steps, axis_1)",
        "inside = Less(column, lengths)",
        "mask = Unsqueeze(inside, axis_2)",
        f"masked = Where(mask, {h}, padding)",
    ]
    if how == "max":
        return "pooled", [*masked, "pooled = ReduceMax<axes = [0], keepdims = 0>(masked)"]
    return "pooled", [
        *masked,
        "total = ReduceSum<keepdims = 0>(masked, axis_0)",
        "lengths_float = Cast<to = 1>(lengths)",
        "lengths_column = Unsqueeze(lengths_float, axis_1)",
        "pooled = Div(total, lengths_column)",
    ]


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
    largest = 0.0
    for T, B in product((7, 28), (1, 5)):
        feeds, expected = _sample(classifier, random, B, T)
        (found,) = session.run(["logits"], feeds)
        assert found.shape == (B, len(classifier.class_names))
        difference = np.abs(found - expected) / np.maximum(1.0, np.abs(expected))
        largest = max(largest, float(difference.max()))
    return largest


@torch.no_grad()
def _sample(
    classifier: Classifier, random: np.random.Generator, B: int, T: int
) -> tuple[dict[str, NDArray[Any]], NDArray[Any]]:
    """Random inputs for ONNX Runtime, and the logits that the model itself gives for them."""
    encoder, name = classifier.encoder, "x"
    raw: Any
    values: Any
    if isinstance(encoder, SentenceEncoder):
        name = "tokens"
        raw = values = random.integers(0, encoder.input_size, (B, T))
    elif isinstance(encoder, ImageEncoder):
        raw = values = random.integers(0, 256, (B, T, encoder.columns)).astype(np.float32)
    else:
        mean, deviation = _moments(encoder)
        raw = random.standard_normal((B, T, encoder.input_size)).astype(np.float32) * deviation + mean
        values = (raw - mean) / deviation
    x = encoder.features(torch.from_numpy(values))
    if not _ragged(classifier):
        return {name: raw}, classifier.model(x).numpy()
    lengths = random.integers(1, T + 1, B)
    lengths[0] = T
    return {name: raw, "lengths": lengths}, classifier.model(x, torch.from_numpy(lengths)).numpy()


# --------------------------------------------------------------------------------------------------------------- card


def input_words(classifier: Classifier) -> dict[str, str]:
    """What goes in, in words: of the ONNX file (`note`, `feed`), of the layers in torch, of `predict`; and the task."""
    encoder, size = classifier.encoder, classifier.encoder.input_size
    if isinstance(encoder, ImageEncoder):
        return {
            "task": "image-classification",
            "example": '"digit.png"',
            "each": "picture files or uint8 arrays (T, D)",
            "note": f"x (batch, time, {size}) float32: pictures row by row, pixels from 0 to 255, ink bright on dark; "
            "the normalisation is part of the model.",
            "feed": '{"x": x}',
            "torch": f"(time, batch, {size}): pixels / 255, minus {encoder.mean:.6g}, over {encoder.std:.6g}",
        }
    if isinstance(encoder, SentenceEncoder):
        unknown = f"{encoder.words[0]!r} (0) stands for unknown ones" if encoder.unknown else "leave out unknown ones"
        case = "lower case" if encoder.lowercase else "as written"
        one_hot = f"(time, batch, {size}): one-hot vectors over the vocabulary"
        return {
            "task": "text-classification",
            "example": '"The movie is good"',
            "each": "sentences",
            "note": f"tokens (batch, time) int64: numbers of words in the vocabulary, {case}; {unknown}; pad with 0. "
            "lengths (batch) int64: words in each sentence.",
            "feed": '{"tokens": tokens, "lengths": lengths}',
            "torch": one_hot if classifier.model.embedding is None else '(time, batch, E): rows of `w["embedding"]`',
        }
    return {
        "task": "time-series-classification",
        "example": "series",
        "each": "arrays (T, D)",
        "note": f"x (batch, time, {size}) float32: measurements in their own units; the standardisation is part of the "
        "model. lengths (batch) int64: steps in each series.",
        "feed": '{"x": x, "lengths": lengths}',
        "torch": f"(time, batch, {size}), standardised with the training part's mean and deviation",
    }


MARK = "library_name: unroll-rnn"
CARD = """\
---
{metadata}---

# {name}

{title}: {parameters:,} parameters, trained on {sequences:,} sequences.
{test}
## Use

With `unroll` (raw inputs, labels and normalisation included):

```python
import unroll

classifier = unroll.load("model.safetensors")
print(classifier.predict([{example}]))  # {each}
```

The recurrent layers alone, in plain PyTorch:

```python
import torch
from safetensors.torch import load_file

w = load_file("model.safetensors")
names = {{"weight_ih": "U", "weight_hh": "W", "bias_ih": "b", "bias_hh": "b"}}
{layer} = torch.nn.{operator}({options})
{layer}.load_state_dict({{
    f"{{theirs}}_l{{n}}{{'_reverse' * d}}": w[f"layers.cells.{{n}}.{{d}}.{{ours}}"] * (theirs != "bias_hh")
    for theirs, ours in names.items() for n in range({layers}) for d in range({directions})
}})
```

torch keeps two biases where the equations have one; the second is zero. The input is {torch}.
{onnx}
Labels, in the order of the outputs: {labels}.

## Training

```sh
{command}
```

Seed {seed}; {versions}; {seconds:.0f} s of training.

## Limits

The model knows the {classes} classes that it was trained on and always names one of them, whatever it is shown. The \
accuracy above holds for sequences like those of {data}, and for no others.
"""
TEST = """
**Test accuracy {accuracy}** ({correct:,} of {total:,}; 95% interval {low} to {high}).

| class | correct | of | accuracy |
| --- | ---: | ---: | ---: |
{rows}
"""
ONNX = """
With ONNX Runtime:

```python
import onnxruntime

session = onnxruntime.InferenceSession("{file}")
(probabilities,) = session.run(["probabilities"], {feed})
```

{note}
"""


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
    classifier, metrics, recipe, facts = load(folder.path), folder.metrics(), folder.recipe, folder.facts
    words, layers, test = input_words(classifier), classifier.model.layers, metrics.get("test")
    mnist = recipe.task == "images" and recipe.data is None
    operator, _ = _operator(classifier)
    options = f"{layers.input_size}, {layers.hidden_size}, num_layers={layers.num_layers}"
    options += f", bidirectional={layers.bidirectional}"
    if recipe.cell == "rnn":
        options += f', nonlinearity="{recipe.nonlinearity}"'
    return CARD.format(
        metadata=_metadata(classifier, test, mnist),
        name=recipe.name,
        title=title_of(recipe),
        parameters=metrics["parameters"],
        sequences=metrics["training_sequences"],
        test="" if test is None else _test(test),
        layer=operator.lower(),
        operator=operator,
        options=options,
        layers=layers.num_layers,
        directions=layers.directions,
        onnx="" if onnx is None else ONNX.format(file=onnx, **words),
        labels=", ".join(f"`{name}`" for name in classifier.class_names),
        command="\n".join(wrapped(command(recipe))),
        seed=recipe.seed,
        versions=", ".join(f"{key} {facts[key]}" for key in ("unroll", "torch", "python") if key in facts),
        seconds=metrics["seconds"]["training"],
        classes=len(classifier.class_names),
        data="the MNIST digits" if mnist else "the data named above",
        **words,
    )


def _metadata(classifier: Classifier, test: dict[str, Any] | None, mnist: bool) -> str:
    recipe, task = classifier.recipe, input_words(classifier)["task"]
    name = "MNIST" if mnist else Path(recipe.data or "the lab's sentences").name
    found: dict[str, Any] = {"library_name": "unroll-rnn"}
    if task != "time-series-classification":  # none of Hugging Face's own
        found["pipeline_tag"] = task
    found["tags"] = ["unroll", recipe.cell, "recurrent-neural-network", task]
    if mnist:
        found["datasets"] = ["ylecun/mnist"]
    if test is not None:
        found["metrics"] = ["accuracy"]
        result = {
            "task": {"type": task},
            "dataset": {"name": name, "type": re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")},
            "metrics": [{"type": "accuracy", "value": test["accuracy"], "name": "Test accuracy"}],
        }
        found["model-index"] = [{"name": recipe.name, "results": [result]}]
    return str(yaml.safe_dump(found, sort_keys=False, allow_unicode=True))


def _test(test: dict[str, Any]) -> str:
    rows = []
    for label, row in test["per_class"].items():
        name, shown = (
            re.sub(r"(?=\|)", r"\\", label.replace("\n", " ")),
            percent(row["accuracy"]) if row["total"] else "–",
        )
        rows.append(f"| {name} | {row['correct']} | {row['total']} | {shown} |")
    low, high = map(percent, test["interval95"])
    return TEST.format(**{**test, "accuracy": percent(test["accuracy"])}, low=low, high=high, rows="\n".join(rows))
