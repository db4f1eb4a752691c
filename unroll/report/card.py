"""A model card of a run: a README with Hugging Face's metadata, and the weights beside it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from unroll.cells.own import is_own, own_parts
from unroll.equations.program import UnreadableError
from unroll.equations.read import read
from unroll.errors import InputError
from unroll.files import load_tensors, refuse_foreign, save_tensors
from unroll.report.blocks import percent
from unroll.report.document import command, title_of, wrapped
from unroll.report.export import input_words, operator_of
from unroll.report.pdf import write_whole
from unroll.terminal import INVISIBLE, UNPRINTABLE
from unroll.training.run import Classifier, RunFolder, load
from unroll.training.tasks import reads_words

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
{prepared}
{layers}{onnx}
Labels, in the order of the outputs: {labels}.

## Training

{command}

Seed {seed}; {versions}; {seconds:.0f} s of training.

## Limits

The model answers with one of the {classes} classes that it was trained on, whatever its input is. The accuracy above \
holds for sequences like those of {data}, and for no others.
"""
TEST = """
**Test accuracy {accuracy}** ({correct:,} of {total:,}; 95% interval {low} to {high}).

| class | correct | of | accuracy |
| --- | ---: | ---: | ---: |
{rows}
"""
TORCH = """\
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
"""
STEP = """\
One time step of a recurrent layer, x_t being its input; the weights are in `model.safetensors`, under \
`layers.cells.LAYER.DIRECTION`:

{step}
"""
ONNX = """
With ONNX Runtime:

```python
import onnxruntime

session = onnxruntime.InferenceSession({file})
(probabilities,) = session.run(["probabilities"], {feed})
```

{note}
"""


def card_files(folder: RunFolder, onnx: Path | None = None) -> list[Path]:
    """README.md and model.safetensors beside the ONNX file, or in the run: what `write_card` may write.

    Raises:
        InputError: a file that would be lost stands there.
    """
    target = folder.path if onnx is None else onnx.parent
    card, weights = target / "README.md", target / "model.safetensors"
    refuse_foreign(card, weights)
    # Weights that no card came with were trained or put there: all that there is of a model, maybe.
    exported = card.is_file() and not (target / "recipe.yaml").exists()
    if target.resolve() != folder.path.resolve() and weights.exists() and not exported:
        raise InputError(f"{weights} holds another model and would be lost; export into another folder")
    return [card, weights]


def write_card(folder: RunFolder, onnx: Path | None = None) -> list[Path]:
    """Write README.md, a model card with Hugging Face's metadata, and the weights, beside the ONNX file (or in the run).

    Raises:
        InputError: a file that would be lost stands there, or the folder cannot be written.
        RunError: the run is not finished.
    """
    card, weights = card_files(folder, onnx)
    text = card_text(folder, None if onnx is None else onnx.name)
    write_whole(card, text)
    source = folder.path / "model.safetensors"
    if weights.resolve() != source.resolve():
        tensors, metadata = load_tensors(source)
        recipe = metadata["recipe"]
        for field in ("data", "test_data"):  # not where the data lie on this machine
            if recipe.get(field) is not None:
                recipe[field] = Path(recipe[field]).name
        save_tensors(weights, tensors, metadata)
    return [card, weights]


def shown(text: Any) -> str:
    r"""Text of others, such as a label, as Markdown that shows it and does nothing else.

    >>> print(shown("[a|b](javascript:c)\n<d>"))
    \[a\|b\]\(javascript\:c\)�\<d\>
    """
    return re.sub(r"[!-/:-@\[-`{-~]", r"\\\g<0>", _printable(text))


def _printable(text: Any) -> str:
    return re.sub(f"\t|{UNPRINTABLE.pattern}", "\N{REPLACEMENT CHARACTER}", str(text))


def fenced(lines: list[str], language: str = "sh") -> str:
    """Lines as a block of code that ends after the last one, whatever is in them."""
    code = "\n".join(map(_printable, lines))
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", code)), default=0))
    return f"{fence}{language}\n{code}\n{fence}"


def card_text(folder: RunFolder, onnx: str | None = None) -> str:
    """The model card as Markdown, its metadata first."""
    classifier, metrics, recipe, facts = load(folder.path), folder.metrics(), folder.recipe, folder.facts
    words, test = input_words(classifier), metrics.get("test")
    mnist = recipe.task == "images" and recipe.data is None
    # Not where the data lie on this machine.
    names = {name: Path(place).name for name in ("data", "test_data") if (place := getattr(recipe, name, None))}
    if is_own(recipe.cell):
        file, cell = own_parts(recipe.cell)
        names["cell"] = f"{file.name}:{cell}"
    return CARD.format(
        metadata=_metadata(classifier, test, mnist),
        name=shown(recipe.name),
        title=shown(title_of(recipe, classifier.model.layers.cells[0][0].title)),
        parameters=metrics["parameters"],
        sequences=metrics["training_sequences"],
        test="" if test is None else _test(test),
        layers=_layers(classifier, words["torch"]),
        onnx="" if onnx is None else ONNX.format(file=json.dumps(onnx), **words),
        labels=", ".join(map(shown, classifier.class_names)),
        command=fenced(wrapped(command(recipe.model_copy(update=names)))),
        seed=recipe.seed,
        versions=", ".join(f"{key} {shown(facts[key])}" for key in ("unroll", "torch", "python") if key in facts),
        seconds=metrics["seconds"]["training"],
        classes=len(classifier.class_names),
        data="the MNIST digits" if mnist else "the data named above",
        **words,
    )


def _layers(classifier: Classifier, inputs: str) -> str:
    """The recurrent layers without this package: as torch's own, or as the equations of one time step."""
    layers = classifier.model.layers
    cell = layers.cells[0][0]
    operator = operator_of(layers.cells[0])
    if operator is None or hasattr(cell, "b_h"):  # of torch's two biases the snippet gives only the first
        try:
            step = fenced(str(read(cell, reads_words(classifier.recipe))).split("\n"), "text")
        except UnreadableError:
            return ""
        return STEP.format(step=step)
    options = f"{layers.input_size}, {layers.hidden_size}, num_layers={layers.num_layers}"
    options += f", bidirectional={layers.bidirectional}"
    if hasattr(cell, "nonlinearity"):
        options += f', nonlinearity="{cell.nonlinearity}"'
    return TORCH.format(
        layer=operator.name.lower(),
        operator=operator.name,
        options=options,
        layers=layers.num_layers,
        directions=layers.directions,
        torch=inputs,
    )


def _metadata(classifier: Classifier, test: dict[str, Any] | None, mnist: bool) -> str:
    recipe, task = classifier.recipe, input_words(classifier)["task"]
    name = "MNIST" if mnist else Path(recipe.data or "the lab's sentences").name
    found: dict[str, Any] = {"library_name": "unroll-rnn"}
    if task != "time-series-classification":  # none of Hugging Face's own
        found["pipeline_tag"] = task
    found["tags"] = [
        "unroll",
        own_parts(recipe.cell)[1] if is_own(recipe.cell) else recipe.cell,
        "recurrent-neural-network",
        task,
    ]
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
    text = yaml.safe_dump(found, sort_keys=False, allow_unicode=True)  # which has numbers for control characters
    return re.sub(f"[{INVISIBLE}]", "\N{REPLACEMENT CHARACTER}", text)


def _test(test: dict[str, Any]) -> str:
    rows = []
    for label, row in test["per_class"].items():
        share = percent(row["accuracy"]) if row["total"] else "–"
        rows.append(f"| {shown(label)} | {row['correct']} | {row['total']} | {share} |")
    low, high = map(percent, test["interval95"])
    return TEST.format(**{**test, "accuracy": percent(test["accuracy"])}, low=low, high=high, rows="\n".join(rows))
