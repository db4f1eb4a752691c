"""A run folder -> the document that tells of it: what was trained, how, how well, and how to do it again.

Reads the run folder alone and never trains. Each part is made by a function of its own, so that a hand-in can put the
same parts in another order.
"""

from __future__ import annotations

import datetime
import inspect
import json
import math
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from unroll.cells import CELLS, cell_type
from unroll.cells.base import AdaptedCell, Cell
from unroll.data.sentences import SentenceEncoder
from unroll.errors import RunError
from unroll.heads import wilson
from unroll.report.blocks import (
    absent,
    count,
    duration,
    equation,
    escape,
    json_table,
    listing,
    note,
    paragraph,
    percent,
    record,
    section,
    shown,
    table,
)
from unroll.report.equations import POOLED, before_step, equation_blocks
from unroll.report.markdown import Block, Inline, inline
from unroll.report.pdf import Document
from unroll.training.recipe import AnyRecipe, known_recipes, load_recipe, value_text
from unroll.training.run import RunFolder, load
from unroll.training.tasks import reads_words

RECORD_LINES = 220  # a longer record of the training is shortened to the epochs' own lines
EXAMPLES_SHOWN = 20

# What a run folder may hold besides: figures whose names begin so, and a table in a JSON file of that name.
FURTHER = {
    "The path of the hidden state": ("paths",),
    "Inside the cell": ("look", "trace", "gates"),
    "Gradients through time": ("gradients",),
    "Gates removed": ("ablat",),
    "What each hyperparameter is worth": ("effects",),
    "What the cell can remember": ("memory",),
}
# What the figures among them show, where no file beside them says it.
CAPTIONS = {
    "paths": (
        "The hidden state $s_t$ in the plane while a sentence is read, word by word: before training (left) and after it. "
        "The tint of each point is the class that the readout would give there.",
        "Two plots of the plane of the two hidden units, before and after training, with the path of the hidden state for "
        "each sentence and the decision line of the readout.",
    ),
    "look": (
        "Gates and states of the cell while one input is read, step by step.",
        "Heat maps of the gates, the candidate and the states over time for one input, with the probability of each class.",
    ),
    "gradients": (
        "How much of the gradient of the loss reaches each time step.",
        "Plots of the norm of the gradient of the loss with respect to the hidden state against the time step.",
    ),
    "effects": (
        "What each change is worth: made alone in the first recipe (filled), undone alone in the second (hollow), and all "
        "changes together, with 95% intervals.",
        "Two plots with a row for each hyperparameter: the change of the test accuracy in percentage points, and the factor "
        "by which training takes longer; the table beside the figure has the numbers.",
    ),
}
TABLE_CAPTIONS = {
    "ablate": "Test accuracy with one part of the cell taken away, mean and deviation over seeds; cost is what is lost "
    "against the whole cell, seconds are those of a training.",
}
KNOWN_FIGURES = ("loss", "confusion", "digits", "mistakes")
ONE_SEQUENCE = {"images": "image", "sentences": "sentence", "series": "series"}

GROUPS = {
    "Model": (
        *("cell", "nonlinearity", "hidden_size", "num_layers", "bidirectional", "dropout", "pooling"),
        *("embedding_size", "initialisation", "forget_bias"),
    ),
    "Optimisation": (
        *("optimizer", "learning_rate", "momentum", "nesterov", "weight_decay", "schedule", "max_norm"),
        *("label_smoothing", "class_weights", "weight_average", "batch_size", "epochs", "shuffle", "patience", "seed"),
    ),
    "Data": (
        *("data", "test_data", "test", "validation", "text_column", "label_column", "id_column", "time_column"),
        *("features", "ignore"),
        *("lowercase", "min_count", "max_vocabulary", "max_length", "word_dropout", "fill_missing", "standardise"),
        *("rotation", "scaling", "shear", "translation", "elastic", "plain_epochs"),
    ),
}
NAMES = {"num_layers": "layers", "max_norm": "gradient norm at most"}
FACTS = {
    "unroll": "unroll",
    "Python": "python",
    "PyTorch": "torch",
    "NumPy": "numpy",
    "Operating system": "platform",
    "Processor": "processor",
    "Cores": "cores",
    "Threads": "threads",
    "Engine": "engine",
    "Begun": "time",
}
NO_MATTER = {"name", "about", "task"}


def report(folder: RunFolder, *, title: str | None = None, author: str | None = None, draft: bool = False) -> Document:
    """The report of a run.

    Args:
        draft: build from what there is, and say what is missing; without it, that is an error.

    Raises:
        RunError: the run is not finished or a figure is missing, and it is no draft.
    """
    parts = Parts(folder, draft)
    body = [*parts.results(), *parts.code(), *parts.again()]
    byline: list[list[Inline]] = [[{"t": "text", "v": author}]] if author else []
    return parts.document(title or title_of(parts.recipe, parts.described.title), body, author, byline)


@dataclass
class Parts:
    """The parts of a document about one run; `missing` names the files that a whole report needs and the folder lacks.

    Raises:
        RunError: something is missing, and it is no draft.
    """

    folder: RunFolder
    draft: bool = False
    files: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        path = self.folder.path
        self.recipe: AnyRecipe = self.folder.recipe
        self.facts, self.history = self.folder.facts, self.folder.history()
        self.metrics: dict[str, Any] | None = self.folder.metrics() if (path / "metrics.json").is_file() else None
        self.outcome: dict[str, Any] | None = (self.metrics or {}).get("test")
        classifier = load(path) if (path / "model.safetensors").is_file() else None
        self.encoder = None if classifier is None else classifier.encoder
        self.cell: Cell | None = None if classifier is None else classifier.model.layers.cells[0][0]
        kind: type[Cell] = cell_type(self.recipe.cell) if self.recipe.cell in CELLS else Cell
        self.described: Cell | type[Cell] = self.cell or kind  # has title and sentences of the cell
        self.one_sequence = ONE_SEQUENCE[self.recipe.task]
        needed, figures = ["history.jsonl", "metrics.json", "model.safetensors"], ["loss"]
        if self.outcome is not None:
            needed.append("predictions.npz")
            figures.append("confusion")
            if self.recipe.task == "images":
                figures += ["digits"] + ["mistakes"] * (self.outcome["correct"] < self.outcome["total"])
        unfinished = [name for name in needed if not (path / name).is_file()]
        self.missing = unfinished + [f"figures/{name}.svg" for name in figures if not self._svg(name).is_file()]
        if self.missing and not self.draft:
            said = f"is not finished ({', '.join(self.missing)} missing); go on with: unroll train --resume {path}"
            if not unfinished:
                said = f"has lost {', '.join(self.missing)}; draw all figures again with --redraw"
            raise RunError(f"{path} {said}, or build what there is with --draft")

    # ------------------------------------------------------------------------------------------------- as a whole

    def document(self, title: str, body: list[Block], author: str | None, byline: list[list[Inline]]) -> Document:
        summary = [paragraph(self.summary())]
        if self.missing:
            names = ", ".join(f"`{name}`" for name in self.missing)
            summary.insert(0, note(f"**Draft.** This run is not complete; missing: {names}."))
        try:
            begun = datetime.datetime.fromisoformat(self.facts["time"])
        except (KeyError, TypeError, ValueError):
            begun = None
        return Document(
            title=title,
            author=author,
            byline=byline,
            running=(title, self.recipe.name),
            summary=summary,
            body=body,
            description=f"Report of the training run {self.recipe.name}",
            keywords=["recurrent neural network", self.described.title, "sequence classification"],
            when=begun,
            files=self.files,
        )

    def summary(self) -> str:
        recipe, metrics, test = self.recipe, self.metrics, self.outcome
        size = f"{count(recipe.num_layers, 'layer')} of {count(recipe.hidden_size, 'hidden unit')}"
        both = ", reading in both directions" if recipe.bidirectional else ""
        text = (
            f"This report documents the training run *{escape(recipe.name)}*: {self.described.about} with {size}{both}."
        )
        if metrics is not None:
            machine = escape(str(self.facts.get("processor", "an unknown processor")))
            if isinstance(self.facts.get("threads"), int):
                machine += f" ({count(self.facts['threads'], 'thread')})"
            text += (
                f" Its {count(metrics['parameters'], 'parameter')} were trained on "
                f"{count(metrics['training_sequences'], self.one_sequence)} for {count(metrics['epochs'], 'epoch')}, "
                f"in {duration(metrics['seconds']['training'])} on {machine}."
            )
        if test is not None:
            low, high = map(percent, test["interval95"])
            text += (
                f" It names the class of {test['correct']:,} of {count(test['total'], 'test ' + self.one_sequence)} "
                f"correctly: a **test accuracy of {percent(test['accuracy'])}**, with a 95% interval from {low} to {high}."
            )
        return text

    def results(self) -> list[Block]:
        """Everything between the summary and the code."""
        return [*self.equations(), *self.hyperparameters(), *self.training(), *self.test(), *self.further()]

    # --------------------------------------------------------------------------------------------------- the cell

    def equations(self) -> list[Block]:
        """The equations of the cell that was trained, from its step program."""
        recipe, cell, blocks = self.recipe, self.cell, [section("The equations", "sec-cell")]
        if cell is None:
            return [*blocks, absent("the equations of the cell", "model.safetensors")]
        size = getattr(recipe, "embedding_size", None)
        D = size or (self.encoder.input_size if self.encoder is not None else None)
        x = f"$x_t \\in \\mathbb{{R}}^{{{D}}}$" if D else "$x_t$"
        rows = getattr(self.encoder, "rows", None)
        word = "a learnt vector for word $t$" if size else "word $t$ as a one-hot vector over the vocabulary"
        what = {
            "images": "row $t$ of the picture" + (f" (of {rows} rows)" if rows else ""),
            "sentences": word,
            "series": "the measurements at step $t$",
        }[recipe.task]
        begin = f"At each time step $t$ the cell reads {x}, {what} and its own {before_step(cell)}"
        blocks += equation_blocks(cell, begin, reads_words(recipe), recipe.num_layers, 2 if recipe.bidirectional else 1)
        if recipe.num_layers > 1:
            text = f"There are {recipe.num_layers} such layers with weights of their own; each reads the hidden states of the "
            blocks.append(paragraph(text + "one below it."))
        if recipe.bidirectional:
            blocks.append(paragraph("A second set of weights reads the same sequence from its end."))
        return blocks + self._readout(cell.state_names[0])

    def code(self) -> list[Block]:
        """The source of the cell, where there is one: a cell that is computed from its program has none."""
        kind = source_of(self.described)
        try:
            source, file = inspect.getsource(kind).rstrip(), inspect.getsourcefile(kind)
        except (OSError, TypeError):
            return []
        if kind is Cell or kind.__module__.startswith("unroll.equations"):
            return []
        ours = kind.__module__.startswith("unroll.")
        name = f"{kind.__module__.replace('.', '/')}.py" if ours else Path(file or "").name
        return [
            {"t": "flush"},  # no figure in the middle of the listing
            section("The equations as code", "sec-code"),
            paragraph(
                "[](#lst-cell) is the cell as it was trained: one time step, on plain automatic differentiation. Scanning "
                "it over time, layers and directions are not part of it."
            ),
            listing(source, f"The cell, from `{name}`.", "lst-cell"),
        ]

    def _readout(self, state: str) -> list[Block]:
        read, aloud, said = POOLED[self.recipe.pooling](state)
        if self.recipe.bidirectional:
            said += " of each direction, side by side,"
        loss = "The loss $\\mathcal{L}$ is the cross-entropy of the true class $y$"
        if self.recipe.label_smoothing:
            loss += f", with label smoothing: a share of {self.recipe.label_smoothing:g} of the target is spread evenly over all "
            loss += "classes"
        classes = "" if self.encoder is None else f"{len(self.encoder.class_names)} "
        return [
            paragraph(f"The readout turns {said} into one probability for each of the {classes}classes:"),
            equation(
                rf"z = W_{{\text{{out}}}}\, {read} + b_{{\text{{out}}}}, \qquad "
                r"p_k = \frac{e^{z_k}}{\sum_j e^{z_j}}, \qquad \mathcal{L} = -\log p_y",
                f"z equals W out times {aloud} plus b out; p k equals e to the z k, divided by the sum over j of e to "
                "the z j; the loss is minus the logarithm of p y",
                label="eq-readout",
            ),
            paragraph(f"{loss}."),
        ]

    # ---------------------------------------------------------------------------------------------- hyperparameters

    def hyperparameters(self) -> list[Block]:
        """The table (a): every field that played a part, and in a sentence those that did not."""
        rows: list[Any] = []
        unused: list[str] = []
        fields = type(self.recipe).model_fields
        for group, names in GROUPS.items():
            found = []
            for name in names:
                if name not in fields or not self._applies(name):
                    continue
                value, called = getattr(self.recipe, name), NAMES.get(name, name.replace("_", " "))
                off = value is None or value is False or value == "none" or (value == 0 and name != "seed")
                if off and name not in ("data", "standardise"):
                    unused.append(called)
                else:
                    found.append([called, self._value(name, value), _meaning(fields[name].description or "")])
            if found:
                rows += [{"group": group}, *found]
        head = ["Hyperparameter", "Value", "Meaning"]
        blocks = [
            section("Hyperparameters", "sec-hyper"),
            paragraph("[](#tab-hyper) lists every setting that played a part in this run."),
            table("tab-hyper", "Hyperparameters of the run.", head, "llw", rows, floating=True),
        ]
        if unused:
            blocks.append(paragraph(f"Not used in this run: {', '.join(unused)}."))
        return blocks

    def _applies(self, name: str) -> bool:
        recipe = self.recipe
        if name == "nonlinearity":
            return "nonlinearity" in inspect.signature(source_of(self.described)).parameters
        if name == "forget_bias":
            return "f" in self.described.gate_names
        if name in ("momentum", "nesterov"):
            return recipe.optimizer == "sgd"
        # The lab's two sentences are taken as they are.
        return recipe.task != "sentences" or recipe.data is not None or name not in GROUPS["Data"] or name == "data"

    def _value(self, name: str, value: Any) -> str:
        if name == "data":
            return str(value or ("MNIST" if self.recipe.task == "images" else "the lab's two sentences"))
        if name == "cell":
            return self.described.title
        if name == "optimizer":
            return {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}[value]
        if type(value) is int and name != "seed":
            return f"{value:,}"
        return shown(value).replace("_", " ")

    # ------------------------------------------------------------------------------------------------------ training

    def training(self) -> list[Block]:
        """The record of the loss (b), as printed and as a curve."""
        blocks = [section("Training", "sec-training")]
        log = self.folder.path / "log.txt"
        lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
        alt = "Line chart of the training loss."
        whole = self.recipe.log == "epochs"  # the sum over the sentences takes the place of their mean
        if self.history:
            factor = 1
            if whole and self.metrics is not None:
                factor = math.ceil(self.metrics["training_sequences"] / self.recipe.batch_size)
            first, last = (f"{self.history[k]['loss'] * factor:.4f}" for k in (0, -1))
            alt = f"Line chart of the training loss against epochs: from {first} in epoch 1 down to {last} in epoch "
            alt += f"{len(self.history)}."
            text = f"[](#fig-loss) draws the training loss; it fell from {first} in the first epoch to {last} in epoch "
            text += f"{len(self.history)}. [](#lst-record) is the record as it was printed"
            if len(lines) > RECORD_LINES:
                lines = [line for line in lines if ", Step [" not in line]
                text += ", without the lines of single steps (log.txt in the run folder holds all of them)"
            blocks.append(paragraph(text + "."))
        caption = "Training loss against epochs" + (
            ": the sum over the training sentences, epoch by epoch." if whole else "."
        )
        blocks += self._figure("loss", caption, alt, 64, "top")
        blocks.append(record(lines) if lines else absent("the record of the loss", "log.txt"))
        return blocks

    # ---------------------------------------------------------------------------------------------------------- test

    def test(self) -> list[Block]:
        """The test accuracy (c) with its interval, classes and confusions; the examples (d)."""
        test, blocks = self.outcome, [section("Test", "sec-test")]
        if self.metrics is None:
            return [*blocks, absent("the outcome of the test", "metrics.json")]
        if test is None:
            text = "This run was not tested: its recipe set no test part aside, or it ran with --no-test."
            return [*blocks, paragraph(text)]
        low, high = map(percent, test["interval95"])
        blocks.append(
            paragraph(
                f"Of {count(test['total'], 'test ' + self.one_sequence)}, {test['correct']:,} are read correctly: the "
                f"**test accuracy is {percent(test['accuracy'])}**. Its 95% interval (Wilson) runs from {low} to "
                f"{high}; the mean loss on the test set is {test['loss']:.4f}. [](#tab-classes) gives the "
                f"accuracy class by class, [](#fig-confusion) what was taken for what."
            )
        )
        names, rows = list(test["per_class"]), []
        for name, row in test["per_class"].items():
            accuracy = interval = "–"
            if row["total"]:
                low, high = (f"{100 * share:.1f}" for share in wilson(row["correct"], row["total"]))
                accuracy, interval = percent(row["accuracy"]), f"{low} to {high}%"
            rows.append([name, f"{row['correct']:,} of {row['total']:,}", accuracy, interval])
        caption = "Test accuracy of each class, with 95% Wilson intervals."
        classes = table("tab-classes", caption, ["Class", "Correct", "Accuracy", "95% interval"], "lrrr", rows)
        alt = f"Confusion matrix of {len(names)} classes. {test['correct']} of {test['total']} stand on the diagonal."
        counts = test["confusion"]
        wrong = {(row, k): counts[row][k] for row in range(len(names)) for k in range(len(names)) if k != row}
        if any(wrong.values()):
            row, k = max(wrong, key=lambda place: wrong[place])
            alt += f" The most frequent mistake: {names[row]} read as {names[k]}, {count(counts[row][k], 'time')}."
        caption = (
            "Confusion matrix: true classes in rows, predicted in columns; mistakes shaded by their share of the row."
        )
        confusion = self._figure("confusion", caption, alt, 58)
        if len(names) <= 12 and max(map(len, names)) <= 8 and confusion[0]["t"] == "figure":
            confusion[0]["width"] = 97 if len(names) > 5 else 62
            blocks.append({"t": "pair", "share": 47, "blocks": [classes, *confusion]})
        else:
            blocks += [classes, *confusion]
        return blocks + self._examples(names)

    def _examples(self, names: list[str]) -> list[Block]:
        if not (self.folder.path / "predictions.npz").is_file() or self.encoder is None:
            return [absent("the examples", "predictions.npz")]
        saved = self.folder.predictions()
        chosen, mistakes = ([int(n) for n in saved[key]] for key in ("one_of_each", "mistakes"))
        true, predicted = saved["y"], saved["p"].argmax(1)
        if self.recipe.task != "images":
            text = "[](#tab-examples) shows how single sequences are read."
            return [paragraph(text), self._example_table(saved, names)]

        def labels(numbers: list[int]) -> str:
            return "; ".join(f"{names[true[n]]} predicted {names[predicted[n]]}" for n in numbers)

        right = sum(true[n] == predicted[n] for n in chosen)
        digit = "digit" if self.recipe.data is None else "picture"
        number = "Ten" if len(chosen) == 10 else str(len(chosen))
        caption = f"{number} test {digit}s, the first of each class, with true and predicted labels; {right} of {len(chosen)} "
        blocks = self._figure(
            "digits", f"{caption}are right.", f"{number} test {digit}s with their labels: {labels(chosen)}.", 74
        )
        text = f"[](#fig-digits) shows one test {digit} of each class"
        if mistakes:
            text += ", [](#fig-mistakes) what the model got wrong while it was surest"
            caption = (
                f"The {count(len(mistakes), 'mistake')} of which the model was surest, with the probability that it "
            )
            caption += "gave to the wrong class."
            blocks += self._figure("mistakes", caption, f"Test {digit}s read wrongly: {labels(mistakes)}.", 62)
        return [paragraph(text + "."), *blocks]

    def _example_table(self, saved: dict[str, Any], names: list[str]) -> Block:
        rows: dict[int, list[Any]] = {}
        numbers = [*saved["one_of_each"], *saved["mistakes"]][:EXAMPLES_SHOWN]
        for n, values, length in zip(map(int, numbers), saved["shown_values"], saved["shown_lengths"], strict=False):
            what = f"test series {n + 1}, {count(int(length), 'step')}"
            if isinstance(self.encoder, SentenceEncoder):
                what = " ".join(self.encoder.words_of(torch.as_tensor(values[:length])))
            true, k = saved["y"][n], saved["p"][n].argmax()
            verdict: Any = names[k]
            if k != true:
                verdict = [{"t": "strong", "c": [{"t": "text", "v": f"{names[k]} (wrong)"}]}]
            rows.setdefault(n, [what, names[true], verdict, percent(float(saved["p"][n, k]))])
        caption = f"Predictions: the first test {self.one_sequence} of each class"
        if len(saved["mistakes"]):
            caption += ", then the mistakes of which the model was surest"
        head = [self.one_sequence.capitalize(), "True", "Predicted", "Probability"]
        sides = "wllr" if any(len(row[0]) > 60 for row in rows.values()) else "lllr"
        return table("tab-examples", f"{caption}.", head, sides, list(rows.values()))

    # ------------------------------------------------------------------------------------------------------- further

    def further(self) -> list[Block]:
        """A section for each kind of finding that the run folder holds besides: figures, and tables in JSON files."""
        blocks: list[Block] = []
        path = self.folder.path
        stems = sorted({found.stem for place in (".", "figures") for found in (path / place).glob("*.svg")})
        for title, prefixes in FURTHER.items():
            found: list[Block] = []
            for stem in stems:
                if stem.startswith(prefixes) and stem not in KNOWN_FIGURES:
                    found += self._figure(stem, *caption_of(self._svg(stem), title), 92)
            for file in sorted(path.glob("*.json")):
                if file.stem.startswith(prefixes):
                    found += json_table(file, TABLE_CAPTIONS.get(file.stem, f"{title}."))
            if found:
                blocks += [section(title, f"sec-{prefixes[0]}"), *found]
        return blocks

    # --------------------------------------------------------------------------------------------------------- again

    def again(self) -> list[Block]:
        """Versions, seed, machine, and the command that runs it again."""
        rows = [[name, str(self.facts[key])] for name, key in FACTS.items() if key in self.facts]
        rows.append(["Seed", str(self.recipe.seed)])
        seconds = {} if self.metrics is None else self.metrics["seconds"]
        for key, name in (("training", "Time for training"), ("test", "Time for the test")):
            if key in seconds:
                rows.append([name, duration(seconds[key])])
        return [
            section("How to run it again", "sec-again"),
            paragraph("With the versions of [](#tab-facts) installed, this command repeats the run:"),
            {"t": "pre", "v": "\n".join(wrapped(command(self.recipe))), "lang": "sh"},
            paragraph(
                "The same seed with the same versions on the same kind of machine gives the same weights to the bit."
            ),
            table("tab-facts", "Versions and machine of the run.", ["What", "This run"], "ll", rows),
        ]

    # ------------------------------------------------------------------------------------------------------- figures

    def _svg(self, name: str) -> Path:
        """figures/NAME.svg; or NAME.svg, as commands that write figure and table into one folder leave it."""
        usual, beside = self.folder.path / "figures" / f"{name}.svg", self.folder.path / f"{name}.svg"
        return beside if beside.is_file() and not usual.is_file() else usual

    def _figure(self, name: str, caption: str, alt: str, width: int, floating: str = "none") -> list[Block]:
        path, file = self._svg(name), f"figure-{name}.svg"
        if not path.is_file():
            return [absent(f"the figure {name}", f"figures/{name}.svg")]
        self.files[file] = path
        block: Block = {"t": "figure", "file": file, "alt": alt, "caption": inline(caption), "width": width}
        return [block | {"label": f"fig-{name}", "float": floating}]


def source_of(cell: Cell | type[Cell]) -> type:
    """The class that the author of a cell has written."""
    if isinstance(cell, AdaptedCell):
        return type(cell.module)
    return cell if isinstance(cell, type) else type(cell)


def title_of(recipe: AnyRecipe, name: str) -> str:
    """What was trained, as the title of a report; `name` is that of the cell."""
    an = "An" if re.match("[AEIOUaeiou]|[FHLMNRSX][A-Z]", name) else "A"  # an LSTM, but a GRU
    what = "handwritten digits row by row" if recipe.data is None else "pictures row by row"
    what = {"sentences": "sentences word by word", "series": "series of measurements"}.get(recipe.task, what)
    return f"{an} {name} that reads {what}"


def _meaning(text: str) -> list[Inline]:
    """Plain text whose letters with an index, such as h_T, are set as formulas."""
    return inline(re.sub(r"\b([a-z])\\_([A-Za-z])\b", r"$\1_\2$", escape(text))) if text else []


def caption_of(path: Path, title: str) -> tuple[str, str]:
    """Caption and text alternative of a figure: from a `.json` beside it (`caption`, `alt`), else from its name."""
    try:
        said = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        said = {}
    if not isinstance(said, dict) or "rows" in said:  # where it holds a table, its caption is the table's
        said = {}
    if not {"caption", "alt"} & said.keys() and path.stem in CAPTIONS:
        return CAPTIONS[path.stem]
    name = path.stem.replace("_", " ").replace("-", " ")
    caption = escape(str(said["caption"])) if "caption" in said else f"{title} ({name})."
    return caption, str(said.get("alt", said.get("caption", f"Figure: {title}, {name}.")))


def command(recipe: AnyRecipe) -> list[str]:
    """The words of a command that trains this recipe: the packaged one that is nearest to it, and what differs."""
    found = []
    wanted = recipe.model_dump()
    for name in known_recipes():
        base = load_recipe(name)
        if base.task == recipe.task:
            words = ["unroll", "train", name]
            for changed, value in base.model_dump().items():
                if changed not in NO_MATTER and wanted[changed] != value:
                    words += [f"--{changed.replace('_', '-')}", value_text(wanted[changed])]
            found.append(words)
    return min(found, key=lambda words: (len(words), words[2] != recipe.name))


def wrapped(words: list[str], width: int = 84) -> list[str]:
    """Words of a command -> lines of at most `width` characters, an option and its value never parted."""
    words = [shlex.quote(word) for word in words]
    lines = [" ".join(words[:3])]
    for k in range(3, len(words), 2):
        piece = " ".join(words[k : k + 2])
        if len(lines[-1]) + len(piece) + 3 > width:
            lines[-1] += " \\"
            lines.append(f"    {piece}")
        else:
            lines[-1] += f" {piece}"
    return lines
