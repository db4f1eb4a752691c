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
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unroll.cells import cell_type
from unroll.cells.parameters import CellParameters
from unroll.data.batches import Encoder
from unroll.data.sentences import SentenceEncoder
from unroll.errors import RunError
from unroll.heads import wilson
from unroll.report.equations import EQUATIONS
from unroll.report.markdown import Block, Inline, formula, inline
from unroll.report.pdf import Document
from unroll.training.recipe import KINDS, AnyRecipe, ImageRecipe, SentenceRecipe, known_recipes, load_recipe, value_text
from unroll.training.run import RunFolder, load

RECORD_LINES = 220  # a longer record of the training is shortened to the epochs' own lines
LINES_A_COLUMN = 52
CODE_WIDTH = 104  # characters that fit into a line of a listing; longer lines go on in the next
EXAMPLES_SHOWN = 20
# Tables of so many rows and listings of so many lines are kept whole, at the head or foot of a page.
FLOATING_ROWS, FLOATING_LINES = 36, 62

# What a run folder may hold besides: figures whose names begin so, and a table in a JSON file of that name.
FURTHER = {
    "paths": "The path of the hidden state",
    "look": "Inside the cell",
    "trace": "Inside the cell",
    "gates": "Inside the cell",
    "gradients": "Gradients through time",
    "ablat": "Gates removed",
    "effects": "What each hyperparameter is worth",
    "memory": "What the cell can remember",
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


def report(folder: RunFolder, *, title: str | None = None, author: str | None = None, draft: bool = False) -> Document:
    """The report of a run.

    Args:
        draft: build from what there is, and say what is missing; without it, that is an error.

    Raises:
        RunError: the run is not finished or a figure is missing, and it is no draft.
    """
    parts = Parts(folder, draft)
    if parts.missing and not draft:
        raise RunError(parts.complaint())
    body = [
        *parts.cell(),
        *parts.hyperparameters(),
        *parts.training(),
        *parts.test(),
        *parts.further(),
        *parts.listing(),
        *parts.again(),
    ]
    byline: list[list[Inline]] = [[{"t": "text", "v": author}]] if author else []
    document = parts.document(title or parts.title(), body, author=author, byline=byline)
    document.replace_missing = True  # sentences of a data set may hold anything; a name must not be mutilated
    return document


@dataclass
class Parts:
    """The parts of a document about one run; `missing` collects what a part wanted and did not find."""

    folder: RunFolder
    draft: bool = False
    files: dict[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        path = self.folder.path
        self.recipe: AnyRecipe = self.folder.recipe
        self.facts = self.folder.facts
        self.metrics: dict[str, Any] | None = self.folder.metrics() if (path / "metrics.json").is_file() else None
        self.encoder: Encoder | None = load(path).encoder if (path / "model.safetensors").is_file() else None
        self.history = self.folder.history() if (path / "history.jsonl").is_file() else []
        self.unfinished = [
            name for name in ("history.jsonl", "metrics.json", "model.safetensors") if not (path / name).is_file()
        ]
        wanted = ["loss"]
        if self.test_outcome is not None:
            wanted += ["confusion"]
            if isinstance(self.recipe, ImageRecipe):
                wanted += ["digits"] + ["mistakes"] * (self.test_outcome["correct"] < self.test_outcome["total"])
        self.lost = [name for name in wanted if not self._svg(name).is_file()]
        if self.test_outcome is not None and not (path / "predictions.npz").is_file():
            self.unfinished.append("predictions.npz")

    @property
    def test_outcome(self) -> dict[str, Any] | None:
        return None if self.metrics is None else self.metrics.get("test")

    @property
    def missing(self) -> list[str]:
        """Files that a whole report needs and the folder lacks."""
        return self.unfinished + [f"figures/{name}.svg" for name in self.lost]

    def complaint(self) -> str:
        path = self.folder.path
        if self.unfinished:
            return (
                f"{path} is not finished ({', '.join(self.missing)} missing); go on with: unroll train --resume {path}, "
                "or build what there is with --draft"
            )
        return (
            f"{path} has lost {', '.join(self.missing)}; draw all figures again with --redraw, "
            "or build what there is with --draft"
        )

    # ------------------------------------------------------------------------------------------------- as a whole

    def document(
        self, title: str, body: list[Block], author: str | None = None, byline: list[list[Inline]] | None = None
    ) -> Document:
        summary = self.summary()
        if self.draft and self.missing:
            note = f"**Draft.** This run is not complete; missing: {', '.join(f'`{name}`' for name in self.missing)}."
            summary = [{"t": "missing", "c": inline(note)}, *summary]
        return Document(
            title=title,
            author=author,
            byline=byline or [],
            running=(title, self.recipe.name),
            summary=summary,
            body=body,
            description=f"Report of the training run {self.recipe.name}",
            keywords=["recurrent neural network", self.cell_name, "sequence classification"],
            when=self.when(),
            files=self.files,
        )

    def when(self) -> datetime.datetime | None:
        """When the run began."""
        try:
            return datetime.datetime.fromisoformat(self.facts["time"])
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def cell_name(self) -> str:
        return self.kind.title

    @property
    def kind(self) -> type[CellParameters]:
        """The class of the cell."""
        return cell_type(self.recipe.cell)

    def title(self) -> str:
        who = article(self.cell_name)
        who = who[0].upper() + who[1:]
        if isinstance(self.recipe, ImageRecipe):
            what = "handwritten digits" if self.recipe.data is None else "pictures"
            return f"{who} that reads {what} row by row"
        if isinstance(self.recipe, SentenceRecipe):
            return f"{who} that reads sentences word by word"
        return f"{who} that reads series of measurements"

    def summary(self) -> list[Block]:
        recipe, metrics, test = self.recipe, self.metrics, self.test_outcome
        layers = "one layer" if recipe.num_layers == 1 else f"{recipe.num_layers} layers"
        ways = ", reading in both directions" if recipe.bidirectional else ""
        text = f"This report documents the training run *{escape(recipe.name)}*: {self.kind.about} with {layers} of "
        text += f"{count(recipe.hidden_size, 'hidden unit')}{ways}"
        if metrics is not None:
            text += (
                f" and {count(metrics['parameters'], 'parameter')} was trained on "
                f"{count(metrics['training_sequences'], self.one_sequence)} for {count(metrics['epochs'], 'epoch')}, "
                f"in {duration(metrics['seconds']['training'])} on {self._machine()}"
            )
        text += "."
        if test is not None:
            text += (
                f" It names the class of {test['correct']:,} of {count(test['total'], 'test ' + self.one_sequence)} "
                f"correctly: a **test accuracy of {percent(test['accuracy'])}**, "
                f"with a 95% interval from {percent(test['interval95'][0])} to {percent(test['interval95'][1])}."
            )
        return [paragraph(text)]

    @property
    def one_sequence(self) -> str:
        if isinstance(self.recipe, ImageRecipe):
            return "image"
        return "sentence" if isinstance(self.recipe, SentenceRecipe) else "series"

    def _machine(self) -> str:
        threads = self.facts.get("threads")
        processor = escape(str(self.facts.get("processor", "an unknown processor")))
        return processor if threads is None else f"{count(threads, 'thread')} of {article(processor)}"

    # --------------------------------------------------------------------------------------------------- the cell

    def cell(self) -> list[Block]:
        """The equations of the cell that was trained, in the notation of the labs."""
        recipe = self.recipe
        blocks = [section("The equations", "sec-cell")]
        H = recipe.hidden_size
        D = getattr(recipe, "embedding_size", None) or (self.encoder.input_size if self.encoder is not None else None)
        letter = self.kind.state_names[0]
        state = f"{letter}_{{t-1}} \\in \\mathbb{{R}}^{{{H}}}"
        shapes = (
            f"$W \\in \\mathbb{{R}}^{{{H} \\times {H}}}$",
            f"$U \\in \\mathbb{{R}}^{{{H} \\times {D}}}$" if D else "$U$",
            f"$b \\in \\mathbb{{R}}^{{{H}}}$",
        )
        written = EQUATIONS.get(recipe.cell)
        begin = f"At each time step $t$ the cell reads {self._x_is(D)} and its own hidden state ${state}$"
        if written is None:
            blocks.append(paragraph(f"{begin}. Its equations are those of [](#lst-cell)."))
        else:
            blocks.append(paragraph(begin + written.before))
            blocks.append(equation(*written.formulas[recipe.nonlinearity], label="eq-cell"))
            blocks.append(paragraph(written.after(*shapes)))
        if recipe.num_layers > 1:
            blocks.append(
                paragraph(
                    f"There are {recipe.num_layers} such layers with weights of their own; each reads the hidden states "
                    "of the one below it."
                )
            )
        if recipe.bidirectional:
            blocks.append(paragraph("A second set of weights reads the same sequence from its end."))
        return blocks + self._readout()

    def _x_is(self, D: int | None) -> str:
        recipe = self.recipe
        where = f"$x_t \\in \\mathbb{{R}}^{{{D}}}$" if D else "$x_t$"
        if isinstance(recipe, ImageRecipe):
            rows = getattr(self.encoder, "rows", None)
            return f"{where}, row $t$ of the picture" + (f" (of {rows} rows)" if rows else "")
        if isinstance(recipe, SentenceRecipe):
            if recipe.embedding_size:
                return f"{where}, a learnt vector for word $t$"
            return f"{where}, word $t$ as a one-hot vector over the vocabulary"
        return f"{where}, the measurements at step $t$"

    def _readout(self) -> list[Block]:
        recipe = self.recipe
        letter = self.kind.state_names[0]
        C = len(self.encoder.class_names) if self.encoder is not None else None
        classes = f"the {C} classes" if C else "the classes"
        read, alt_read, say = f"{letter}_T", f"{letter} T", "the last hidden state"
        if recipe.pooling == "mean":
            read, alt_read, say = (
                f"\\overline{{{letter}}}",
                f"mean of {letter}",
                f"the mean of ${letter}_t$ over all steps",
            )
        elif recipe.pooling == "max":
            read, alt_read = f"\\max_t {letter}_t", f"maximum over t of {letter} t"
            say = f"the greatest value of each unit of ${letter}_t$ over all steps"
        if recipe.bidirectional:
            say += " of each direction, side by side,"
        loss = "cross-entropy of the true class $y$"
        smooth = recipe.label_smoothing
        if smooth:
            loss += f", with label smoothing: a share of {smooth:g} of the target is spread evenly over all classes"
        return [
            paragraph(f"The readout turns {say} into one probability for each of {classes}:"),
            equation(
                rf"z = W_{{\text{{out}}}}\, {read} + b_{{\text{{out}}}}, \qquad "
                r"p_k = \frac{e^{z_k}}{\sum_j e^{z_j}}, \qquad \mathcal{L} = -\log p_y",
                f"z equals W out times {alt_read} plus b out; p k equals e to the z k, divided by the sum over j of e to "
                "the z j; the loss is minus the logarithm of p y",
                label="eq-readout",
            ),
            paragraph(f"The loss $\\mathcal{{L}}$ is the {loss}."),
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
                value = getattr(self.recipe, name)
                off = value is None or value is False or value == "none" or (value == 0 and name != "seed")
                if off and name not in ("data", "standardise"):
                    unused.append(NAMES.get(name, name.replace("_", " ")))
                    continue
                meaning = _letters(fields[name].description or "")
                found.append([NAMES.get(name, name.replace("_", " ")), self._value(name, value), meaning])
            if found:
                rows += [{"group": group}, *found]
        blocks = [
            section("Hyperparameters", "sec-hyper"),
            paragraph("[](#tab-hyper) lists every setting that played a part in this run."),
            {
                "t": "table",
                "columns": [column("Hyperparameter"), column("Value"), column("Meaning", wide=True)],
                "rows": rows,
                "caption": inline("Hyperparameters of the run."),
                "label": "tab-hyper",
                "float": "auto" if len(rows) <= FLOATING_ROWS else "none",
            },
        ]
        if unused:
            blocks.append(paragraph(f"Not used in this run: {listed(unused)}."))
        return blocks

    def _applies(self, name: str) -> bool:
        recipe = self.recipe
        if name == "nonlinearity":
            return "nonlinearity" in inspect.signature(self.kind).parameters
        if name == "forget_bias":
            return "f" in self.kind.gate_names
        if name in ("momentum", "nesterov"):
            return recipe.optimizer == "sgd"
        if isinstance(recipe, SentenceRecipe) and recipe.data is None:
            return name not in GROUPS["Data"] or name == "data"  # the lab's two sentences are taken as they are
        return True

    def _value(self, name: str, value: Any) -> str:
        if name == "data":
            if value is not None:
                return str(value)
            return "MNIST" if isinstance(self.recipe, ImageRecipe) else "the lab's two sentences"
        if name == "cell":
            return self.cell_name
        if name == "optimizer":
            return {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}[value]
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, float):
            return f"{value:g}"
        if isinstance(value, int):
            return str(value) if name == "seed" else f"{value:,}"
        return str(value).replace("_", " ")

    # ------------------------------------------------------------------------------------------------------ training

    def training(self) -> list[Block]:
        """The record of the loss (b), as printed and as a curve."""
        blocks = [section("Training", "sec-training")]
        log = self.folder.path / "log.txt"
        lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
        if self.history:
            per_epoch = self._loss_per_epoch()
            text = f"[](#fig-loss) draws the training loss; it fell from {per_epoch[0]:.4f} in the first epoch to "
            text += f"{per_epoch[-1]:.4f} in epoch {len(per_epoch)}"
            if lines:
                text += ". [](#lst-record) is the record as it was printed"
            if len(lines) > RECORD_LINES:
                lines = [line for line in lines if ", Step [" not in line]
                text += ", without the lines of single steps (log.txt in the run folder holds all of them)"
            if "loss" not in self.lost:
                blocks.append(paragraph(text + "."))
        blocks += self._figure(
            "loss",
            "Training loss against epochs"
            + ("." if self.recipe.log == "steps" else ": the sum over the training sentences, epoch by epoch."),
            self._alt_loss(),
            64,
            "top",
        )
        if lines:
            blocks.append(record(lines))
        else:
            blocks.append(absent("the record of the loss", "log.txt"))
        return blocks

    def _loss_per_epoch(self) -> list[float]:
        factor = 1
        if self.recipe.log == "epochs" and self.metrics is not None:
            factor = math.ceil(self.metrics["training_sequences"] / self.recipe.batch_size)
        return [row["loss"] * factor for row in self.history]

    def _alt_loss(self) -> str:
        if not self.history:
            return "Line chart of the training loss."
        values = self._loss_per_epoch()
        return (
            f"Line chart of the training loss against epochs: from {values[0]:.4f} in epoch 1 down to {values[-1]:.4f} in "
            f"epoch {len(values)}."
        )

    # ---------------------------------------------------------------------------------------------------------- test

    def test(self) -> list[Block]:
        """The test accuracy (c) with its interval, classes and confusions; the examples (d)."""
        test = self.test_outcome
        blocks = [section("Test", "sec-test")]
        if test is None:
            if self.metrics is None:
                return [*blocks, absent("the outcome of the test", "metrics.json")]
            return [
                *blocks,
                paragraph("This run was not tested: its recipe set no test part aside, or it ran with --no-test."),
            ]
        low, high = test["interval95"]
        names = list(test["per_class"])
        blocks.append(
            paragraph(
                f"Of {count(test['total'], 'test ' + self.one_sequence)}, {test['correct']:,} are read correctly: the "
                f"**test accuracy is {percent(test['accuracy'])}**. Its 95% interval (Wilson) runs from {percent(low)} to "
                f"{percent(high)}; the mean loss on the test set is {test['loss']:.4f}. [](#tab-classes) gives the "
                f"accuracy class by class, [](#fig-confusion) what was taken for what."
                if "confusion" not in self.lost
                else f"The **test accuracy is {percent(test['accuracy'])}** ({test['correct']:,} of {test['total']:,})."
            )
        )
        worst = worst_confusion(test)
        classes = class_table(test)
        confusion = self._figure(
            "confusion",
            "Confusion matrix: rows are true classes, columns predicted ones; mistakes are shaded by their share of the row.",
            f"Confusion matrix of {len(names)} classes. {test['correct']} of {test['total']} stand on the diagonal. "
            + (
                f"The most frequent mistake: {worst[0]} read as {worst[1]}, {count(worst[2], 'time')}." if worst else ""
            ),
            58,
        )
        if len(names) <= 12 and max(map(len, names)) <= 8 and "confusion" not in self.lost:
            width = 97 if len(names) > 5 else 62
            blocks.append({"t": "pair", "share": 47, "blocks": [classes, confusion[0] | {"width": width}]})
        else:
            blocks += [classes, *confusion]
        return blocks + self._examples()

    def _examples(self) -> list[Block]:
        assert self.test_outcome is not None
        names = list(self.test_outcome["per_class"])
        if not (self.folder.path / "predictions.npz").is_file() or self.encoder is None:
            return [absent("the examples", "predictions.npz")]
        shown = self.folder.predictions()
        p, y = shown.pop("p"), shown.pop("y")
        chosen, mistakes = shown["one_of_each"], shown["mistakes"]
        if isinstance(self.recipe, ImageRecipe):
            right = sum(int(p[n].argmax()) == int(y[n]) for n in chosen)
            digits = "digits" if self.recipe.data is None else "pictures"
            number = {10: "Ten"}.get(len(chosen), str(len(chosen)))
            said = "; ".join(f"{names[y[n]]} predicted {names[p[n].argmax()]}" for n in chosen)
            blocks = []
            if "digits" not in self.lost:
                text = f"[](#fig-digits) shows one test {digits.removesuffix('s')} of each class"
                if len(mistakes) and "mistakes" not in self.lost:
                    text += ", [](#fig-mistakes) what the model got wrong while it was surest"
                blocks.append(paragraph(text + "."))
            blocks += self._figure(
                "digits",
                f"{number} test {digits}, the first of each class, with true and predicted labels; {right} of "
                f"{len(chosen)} are right.",
                f"{number} test {digits} with their labels: {said}.",
                74,
            )
            if len(mistakes):
                said = "; ".join(f"{names[y[n]]} predicted {names[p[n].argmax()]}" for n in mistakes)
                blocks += self._figure(
                    "mistakes",
                    f"The {len(mistakes)} mistakes of which the model was surest, with the probability that it gave to "
                    "the wrong class."
                    if len(mistakes) > 1
                    else "The one mistake, with the probability that the model gave to the wrong class.",
                    f"Test {digits} read wrongly: {said}.",
                    62,
                )
            return blocks
        text = f"[](#tab-examples) shows how single {'sentences' if self.one_sequence == 'sentence' else 'series'} are read."
        return [paragraph(text), self._example_table(shown, p, y, names)]

    def _example_table(self, shown: dict[str, Any], p: Any, y: Any, names: list[str]) -> Block:
        rows: list[Any] = []
        numbers = [*shown["one_of_each"], *shown["mistakes"]]
        seen = set()
        for place, n in enumerate(numbers[:EXAMPLES_SHOWN]):
            if int(n) in seen:
                continue
            seen.add(int(n))
            length = int(shown["shown_lengths"][place])
            if isinstance(self.encoder, SentenceEncoder):
                import torch

                words = self.encoder.words_of(torch.as_tensor(shown["shown_values"][place][:length]))
                what = " ".join(words)
            else:
                what = f"test series {int(n) + 1}, {count(length, 'step')}"
            k = int(p[n].argmax())
            verdict: Any = (
                names[k] if k == int(y[n]) else [{"t": "strong", "c": [{"t": "text", "v": f"{names[k]} (wrong)"}]}]
            )
            rows.append([what, names[int(y[n])], verdict, percent(float(p[n, k]))])
        what = "Sentence" if isinstance(self.encoder, SentenceEncoder) else "Series"
        caption = f"Predictions: the first test {self.one_sequence} of each class"
        if len(shown["mistakes"]):
            caption += ", then the mistakes of which the model was surest"
        return {
            "t": "table",
            "columns": [
                column(what, wide=any(len(row[0]) > 60 for row in rows)),
                column("True"),
                column("Predicted"),
                column("Probability", "right"),
            ],
            "rows": rows,
            "caption": inline(caption + "."),
            "label": "tab-examples",
        }

    # ------------------------------------------------------------------------------------------------------- further

    def further(self) -> list[Block]:
        """A section for each kind of finding that the run folder holds besides: figures, and tables in JSON files."""
        blocks: list[Block] = []
        stems = sorted({path.stem for place in (".", "figures") for path in (self.folder.path / place).glob("*.svg")})
        figures = [self._svg(stem) for stem in stems]
        tables = sorted(self.folder.path.glob("*.json"))
        titles = list(dict.fromkeys(FURTHER.values()))
        for title in titles:
            prefixes = tuple(prefix for prefix, named in FURTHER.items() if named == title)
            found: list[Block] = []
            for path in figures:
                if path.stem.startswith(prefixes) and path.stem not in KNOWN_FIGURES:
                    caption, alt = caption_of(path, title)
                    found += self._figure(path.stem, caption, alt, 92)
            for path in tables:
                if path.stem.startswith(prefixes):
                    found += json_table(path, title)
            if found:
                blocks += [section(title, f"sec-{prefixes[0]}"), *found]
        return blocks

    # ------------------------------------------------------------------------------------------------------- listing

    def listing(self) -> list[Block]:
        """The source of the cell."""
        module = self.kind.__module__.replace(".", "/")
        return [
            {"t": "flush"},  # no figure in the middle of the listing
            section("The equations as code", "sec-code"),
            paragraph(
                "[](#lst-cell) is the cell as it was trained: one time step, on plain automatic differentiation. Walking "
                "over time, layers and directions are not part of it."
            ),
            listing(inspect.getsource(self.kind).rstrip(), f"The cell, from `{module}.py`.", "lst-cell"),
        ]

    # --------------------------------------------------------------------------------------------------------- again

    def again(self) -> list[Block]:
        """Versions, seed, machine, and the command that runs it again."""
        facts = self.facts
        rows = [[name, str(facts[key])] for name, key in FACTS.items() if key in facts]
        rows.append(["Seed", str(self.recipe.seed)])
        if self.metrics is not None:
            rows.append(["Time for training", duration(self.metrics["seconds"]["training"])])
            if "test" in self.metrics["seconds"]:
                rows.append(["Time for the test", duration(self.metrics["seconds"]["test"])])
        return [
            section("How to run it again", "sec-again"),
            paragraph("With the versions of [](#tab-facts) installed, this command repeats the run:"),
            {"t": "pre", "v": "\n".join(wrapped(command(self.recipe))), "lang": "sh"},
            paragraph(
                "The same seed with the same versions on the same kind of machine gives the same weights to the bit."
            ),
            {
                "t": "table",
                "columns": [column("What"), column("This run")],
                "rows": rows,
                "caption": inline("Versions and machine of the run."),
                "label": "tab-facts",
            },
        ]

    # ------------------------------------------------------------------------------------------------------- figures

    def _svg(self, name: str) -> Path:
        """figures/NAME.svg; or NAME.svg, as commands that write figure and table into one folder leave it."""
        usual, beside = self.folder.path / "figures" / f"{name}.svg", self.folder.path / f"{name}.svg"
        return beside if beside.is_file() and not usual.is_file() else usual

    def _figure(self, name: str, caption: str, alt: str, width: int, floating: str = "none") -> list[Block]:
        path = self._svg(name)
        if not path.is_file():
            return [absent(f"the figure {name}", f"figures/{name}.svg")]
        file = f"figure-{name}.svg"
        self.files[file] = path
        block: Block = {"t": "figure", "file": file, "alt": alt, "caption": inline(caption), "width": width}
        return [block | {"label": f"fig-{name}", "float": floating}]


# ----------------------------------------------------------------------------------------------------- hyperparameters

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


def _letters(text: str) -> list[Inline]:
    """Plain text whose letters with an index, such as h_T, are set as formulas."""
    return inline(re.sub(r"\b([a-z])\\_([A-Za-z])\b", r"$\1_\2$", escape(text))) if text else []


def command(recipe: AnyRecipe) -> list[str]:
    """The words of a command that trains this recipe: the packaged one that is nearest to it, and what differs."""
    best: tuple[int, list[str]] | None = None
    wanted = recipe.model_dump()
    for name in known_recipes():
        base = load_recipe(name)
        if type(base) is not KINDS[recipe.task]:
            continue
        words = ["unroll", "train", name]
        for field_name, value in base.model_dump().items():
            if field_name not in NO_MATTER and wanted[field_name] != value:
                words += [f"--{field_name.replace('_', '-')}", value_text(wanted[field_name])]
        if best is None or (len(words), name != recipe.name) < (best[0], best[1][2] != recipe.name):
            best = len(words), words
    assert best is not None, "a recipe of every task comes with the package"
    return best[1]


def wrapped(words: list[str], width: int = 84) -> list[str]:
    """Words of a command -> lines of at most `width` characters, an option and its value never parted."""
    words = [shlex.quote(word) for word in words]
    pieces = [" ".join(words[:3])] + [" ".join(words[i : i + 2]) for i in range(3, len(words), 2)]
    lines = [pieces[0]]
    for piece in pieces[1:]:
        if len(lines[-1]) + len(piece) + 3 > width:
            lines[-1] += " \\"
            lines.append(f"    {piece}")
        else:
            lines[-1] += f" {piece}"
    return lines


# -------------------------------------------------------------------------------------------------------------- blocks


def section(title: str, label: str, level: int = 1) -> Block:
    return {"t": "section", "title": title, "label": label, "level": level}


def paragraph(text: str) -> Block:
    """Markdown of ours; `[](#label)` refers to a table, a figure or a listing."""
    return {"t": "p", "c": [_reference(node) for node in inline(text)]}


def _reference(node: Inline) -> Inline:
    if node["t"] == "link" and node["url"].startswith("#"):
        return {"t": "ref", "to": node["url"][1:]}
    return node


def equation(latex: str, alt: str, label: str) -> Block:
    block = formula(latex, alt)
    assert block["t"] == "equation", latex
    return block | {"label": label}


def column(title: str, align: str = "left", wide: bool = False) -> dict[str, Any]:
    return {"title": title, "align": align, "wide": wide}


def listing(text: str, caption: str, label: str, lang: str = "python") -> Block:
    numbers, lines = [], []
    for number, line in enumerate(text.expandtabs(4).splitlines(), start=1):
        indent = " " * (len(line) - len(line.lstrip()) + 8)
        pieces = (
            textwrap.wrap(
                line,
                CODE_WIDTH,
                subsequent_indent=indent if len(indent) < CODE_WIDTH // 2 else "",
                drop_whitespace=True,
                break_on_hyphens=False,
            )
            if len(line) > CODE_WIDTH
            else [line]
        )
        lines += pieces
        numbers += [str(number)] + [""] * (len(pieces) - 1)
    return {
        "t": "listing",
        "text": "\n".join(lines),
        "numbers": numbers,
        "lang": lang,
        "caption": inline(caption),
        "label": label,
    }


def record(lines: list[str]) -> Block:
    """The printed record, in two columns where its lines are short, cut into pieces that fit a page."""
    columns = 2 if len(lines) > 16 and max(map(len, lines)) <= 46 else 1
    size = LINES_A_COLUMN * columns
    chunks = []
    for start in range(0, len(lines), size):
        piece = lines[start : start + size]
        per_column = math.ceil(len(piece) / columns)
        chunks.append(["\n".join(piece[i : i + per_column]) for i in range(0, len(piece), per_column)])
    caption = inline("The training record as it was printed.")
    block: Block = {"t": "record", "chunks": chunks, "caption": caption, "label": "lst-record"}
    return block | {"float": "auto" if len(lines) <= FLOATING_LINES * columns else "none"}


def absent(what: str, file: str) -> Block:
    return {"t": "missing", "c": inline(f"**Missing:** {what} (`{file}` is not in the run folder).")}


def class_table(test: dict[str, Any]) -> Block:
    rows = []
    for name, row in test["per_class"].items():
        if row["total"]:
            low, high = wilson(row["correct"], row["total"])
            accuracy, interval = percent(row["accuracy"]), f"{100 * low:.1f} to {100 * high:.1f}%"
            rows.append([name, f"{row['correct']:,} of {row['total']:,}", accuracy, interval])
        else:
            rows.append([name, "0 of 0", "–", "–"])
    columns = [column("Class"), *(column(title, "right") for title in ("Correct", "Accuracy", "95% interval"))]
    caption = inline("Test accuracy of each class, with 95% Wilson intervals.")
    return {"t": "table", "columns": columns, "rows": rows, "caption": caption, "label": "tab-classes"}


def worst_confusion(test: dict[str, Any]) -> tuple[str, str, int] | None:
    """True class, predicted class and number of the most frequent mistake."""
    names = list(test["per_class"])
    pairs = [
        (number, row, k)
        for row, counts in enumerate(test["confusion"])
        for k, number in enumerate(counts)
        if k != row and number
    ]
    if not pairs:
        return None
    number, row, k = max(pairs, key=lambda pair: (pair[0], -pair[1], -pair[2]))
    return names[row], names[k], number


def caption_of(path: Path, title: str) -> tuple[str, str]:
    """Caption and text alternative of a figure: from a `.json` beside it (`caption`, `alt`), else from its name."""
    said: dict[str, Any] = {}
    beside = path.with_suffix(".json")
    if beside.is_file():
        try:
            content = json.loads(beside.read_text(encoding="utf-8"))
            # Where it holds a table, its caption is the table's.
            said = content if isinstance(content, dict) and "rows" not in content else {}
        except ValueError:
            said = {}
    if not {"caption", "alt"} & said.keys() and path.stem in CAPTIONS:
        return CAPTIONS[path.stem]
    name = path.stem.replace("_", " ").replace("-", " ")
    caption = escape(str(said["caption"])) if "caption" in said else f"{title} ({name})."
    return caption, str(said.get("alt", said.get("caption", f"Figure: {title}, {name}.")))


def json_table(path: Path, title: str) -> list[Block]:
    """A JSON file with a list of flat rows (or such a list under "rows") -> a table; nothing for any other."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise RunError(f"{path} is damaged: expected JSON; make it again or remove it") from None
    rows = content.get("rows") if isinstance(content, dict) else content
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        return []
    names = [name for name, value in rows[0].items() if not isinstance(value, list | dict)]
    columns = {name: [row.get(name) for row in rows] for name in names}
    numeric = {
        name: any(value is not None for value in values)
        and all(isinstance(value, int | float | None) for value in values)
        for name, values in columns.items()
    }
    caption = content.get("caption") if isinstance(content, dict) else None
    return [
        {
            "t": "table",
            "columns": [column(name.replace("_", " "), "right" if numeric[name] else "left") for name in names],
            "rows": [list(row) for row in zip(*map(_numbers, columns.values()), strict=True)],
            "caption": inline(escape(str(caption or TABLE_CAPTIONS.get(path.stem, f"{title}.")))),
            "label": f"tab-{path.stem}",
        }
    ]


# --------------------------------------------------------------------------------------------------------------- words


def _numbers(values: list[Any]) -> list[str]:
    """The cells of a column; its fractions with equally many decimals, so that they stand in line.

    >>> _numbers([0.991, 0.97, None]), _numbers([1e-09, 2.0]), _numbers([81674, 3])
    (['0.991', '0.970', '–'], ['1e-09', '2'], ['81,674', '3'])
    """
    fractions = [value for value in values if isinstance(value, float)]
    plain = all(value == 0 or 1e-3 <= abs(value) < 1e5 for value in fractions)
    decimals = max((len(f"{value:.4g}".partition(".")[2]) for value in fractions), default=0) if plain else None

    def cell(value: Any) -> str:
        if value is None:
            return "–"
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, float):
            return f"{value:.4g}" if decimals is None else f"{value:.{decimals}f}"
        return f"{value:,}" if isinstance(value, int) else str(value)

    return [cell(value) for value in values]


def percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def count(number: int, what: str) -> str:
    """
    >>> count(1, "epoch"), count(60000, "test image"), count(2, "series")
    ('1 epoch', '60,000 test images', '2 series')
    """
    plural = what if number == 1 or what.endswith("s") else what + "s"
    return f"{number:,} {plural}"


def duration(seconds: float) -> str:
    """
    >>> duration(0.158), duration(54.4), duration(754)
    ('0.16 s', '54 s', '12 min 34 s')
    """
    if seconds < 10:
        return f"{seconds:.2g} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def article(name: str) -> str:
    """
    >>> article("AMD EPYC"), article("LSTM"), article("GRU")
    ('an AMD EPYC', 'an LSTM', 'a GRU')
    """
    spelled = name.split(" ")[0].isupper()  # letter by letter: an L, an R, but a G
    return f"an {name}" if name[:1] in ("AEFHILMNORSX" if spelled else "AEIOUaeiou") else f"a {name}"


def listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def escape(text: str) -> str:
    """Text of others within Markdown of ours."""
    return "".join(f"\\{mark}" if mark in "\\`*_{}[]<>()#+-.!|$~&" else mark for mark in text.replace("\n", " "))
