"""What a run of a person's own code left behind -> the sections of its report. Read from the run's folder alone."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from unroll.labs.answers import check_picture_size
from unroll.labs.own_run import Figure, OwnRun
from unroll.report.blocks import count, duration, escape, note, paragraph, percent, record, section, table
from unroll.report.markdown import Block, inline

RECORD_LINES = 220  # a longer record is cut in its middle
RECORD_WIDTH = 100
MOST_FIGURES = 24
LOSS = re.compile(r"loss|\bepoch\b", re.IGNORECASE)
OF_TEST = re.compile(r"test|predict", re.IGNORECASE)
VERSIONS = {"python": "Python", "torch": "PyTorch", "platform": "System", "unroll": "Unroll", "numpy": "NumPy"}


def summary(run: OwnRun, code_name: str) -> list[Block]:
    """What this report is about, in two or three sentences."""
    facts = run.record
    text = f"This report shows what the code in `{code_name}`, listed at its end, did when it was run"
    text += f": it took {duration(facts.seconds)}."
    if facts.accuracy is not None:
        text += f" The model that it trained has a **test accuracy of {percent(facts.accuracy / 100)}**"
        if facts.correct is not None and facts.images is not None:
            text += f": {facts.correct:,} of {count(facts.images, 'test image')} are classified correctly"
        text += "."
    blocks = [paragraph(text)]
    if facts.failure is not None:
        place = "" if facts.failure.place is None else f" ({escape(facts.failure.place)})"
        said = escape(facts.failure.said)
        text = f"**Draft.** The code ended with an error{place}: {said}. What it did until then is shown."
        blocks.insert(0, note(text))
    return blocks


def sections(run: OwnRun, kind: Literal["lstm", "rnn"], files: dict[str, Path], curve: Path | None) -> list[Block]:
    """The parts that the lab asks for: (a) hyperparameters, (b) loss record, then test accuracy and predictions.

    Args:
        kind: of the lab; in class (`rnn`) there is no test set, so (c) is the predictions.
        files: the document's pictures; those of the run are added.
        curve: a plot of `losses`; None where there are none.
    """
    blocks = [*_hyperparameters(run), *_losses(run, files, curve)]
    training, later = printed(run)
    if kind == "lstm":
        after = [line for line in later if not _tells_class(line)]
        return [
            *blocks,
            *_accuracy(run, after),
            *_predictions(run, files, "(d)", filter(_tells_class, training + later)),
        ]
    return [*blocks, *_predictions(run, files, "(c)", [*filter(_tells_class, training), *later])]


def _hyperparameters(run: OwnRun) -> list[Block]:
    blocks: list[Block] = [section("(a) Hyperparameters", "sec-own-hyperparameters", numbered=False)]
    found = run.record.hyperparameters
    used = _model_and_optimizer(run)
    if not found:
        return [*blocks, note("**No hyperparameter** was found among the names at the top of the code."), *used]
    rows = [[[{"t": "code", "v": name}], one_line(_value(value))] for name, value in found.items()]
    return [
        *blocks,
        *used,
        table("tab-own-hyperparameters", "Hyperparameters, as the code set them.", ["Name", "Value"], "ll", rows),
    ]


def _model_and_optimizer(run: OwnRun) -> list[Block]:
    """What was trained, and how, as they were found when the code had run."""
    model, optimizer = run.record.model, run.record.optimizer
    said = []
    if model is not None and isinstance(model.get("parameters"), int):
        said.append(f"The model, `{escape(one_line(model.get('class')))}`, has {model['parameters']:,} parameters.")
    if optimizer is not None:
        set_to = [
            f"{name} = {_value(optimizer[name])}" for name in ("lr", "momentum", "weight_decay") if optimizer.get(name)
        ]
        given = f" with {', '.join(map(escape, set_to))}" if set_to else ""
        said.append(f"The optimizer is {escape(one_line(optimizer.get('class')))}{given}.")
    return [paragraph(" ".join(said))] if said else []


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _losses(run: OwnRun, files: dict[str, Path], curve: Path | None) -> list[Block]:
    blocks: list[Block] = [section("(b) Training loss record", "sec-own-losses", numbered=False)]
    log = printed(run)[0]
    said = []
    if curve is not None:
        files["own-curve.svg"] = curve
        numbers = [loss for _, loss in finite(run)]
        mean = [
            sum(part) / len(part)
            for part in (numbers[: len(numbers) // 10 or 1], numbers[-(len(numbers) // 10 or 1) :])
        ]
        caption = "The loss of each training step, recorded while the code ran."
        alt = (
            f"Plot of the loss against the training step: {count(len(numbers), 'step')}, from {mean[0]:.4g} (mean of the first "
            f"tenth) to {mean[1]:.4g} (mean of the last)."
        )
        said.append("[](#fig-own-curve) shows the loss of every training step")
    if any(log):
        said.append(f"[](#lst-record) {'' if said else 'shows '}what the code printed meanwhile")
    if said:
        blocks.append(paragraph(", ".join(said) + "."))
    else:
        blocks.append(note("**Missing:** the code printed nothing, and no loss was recorded."))
    if curve is not None:
        figure: Block = {"t": "figure", "file": "own-curve.svg", "alt": alt, "caption": inline(caption), "width": 74}
        blocks.append({**figure, "label": "fig-own-curve", "float": "none"})
    if any(log):
        blocks.append(record(_shortened(log)) | {"float": "none"})  # in its own section
    return blocks


def _shortened(lines: list[str]) -> list[str]:
    """Lines that fit the page, the middle of very many left out."""
    if len(lines) > RECORD_LINES:
        first = RECORD_LINES * 2 // 3
        last = RECORD_LINES - first
        left = len(lines) - first - last
        lines = [*lines[:first], f"… {count(left, 'line')} left out …", *lines[-last:]]
    return [
        piece
        for line in lines
        for piece in (textwrap.wrap(line[:2000], RECORD_WIDTH, break_on_hyphens=False, drop_whitespace=False) or [""])
    ]


def _accuracy(run: OwnRun, after: list[str]) -> list[Block]:
    facts = run.record
    blocks: list[Block] = [section("(c) Test accuracy", "sec-own-accuracy", numbered=False)]
    printed, computed = facts.printed_accuracy, facts.accuracy
    if printed is not None:
        blocks.append(paragraph(f"The code printed a test accuracy of **{percent(printed / 100)}**."))
    else:
        blocks.append(note("**Missing:** the code printed no test accuracy."))
    if any(after):
        blocks += [paragraph("After the training it printed:"), {"t": "pre", "v": "\n".join(_shortened(after))}]
    if computed is None:
        why = facts.not_recomputed or "no trained model was found when the code had run"
        blocks.append(paragraph(f"It could not be computed again: {escape(why)}."))
        return blocks
    of = ""
    if facts.correct is not None and facts.images is not None:
        of = f" ({facts.correct:,} of {count(facts.images, 'image')})"
    text = f"Computed again from the trained model, over all test images: **{percent(computed / 100)}**{of}."
    if facts.engine_accuracy is not None and facts.engine_agrees is not None:
        text += (
            " From the weights of its cell and its output layer alone, the engine of *unroll* computes "
            f"{percent(facts.engine_accuracy / 100)}; {facts.engine_agrees:,} of its predictions are equal to the model's."
        )
    blocks.append(paragraph(text))
    if printed is not None and facts.differs:
        points = f"{abs(printed - computed):.2f} percentage points"
        blocks.append(
            paragraph(
                f"**The two numbers differ by {points}.** The one that was computed again counts every test image once."
            )
        )
    return blocks


def _predictions(run: OwnRun, files: dict[str, Path], letter: str, lines: Iterable[str]) -> list[Block]:
    blocks: list[Block] = [section(f"{letter} Prediction results", "sec-own-predictions", numbered=False)]
    lines = list(lines)[:40]
    figures = run.record.figures
    if lines:
        blocks += [paragraph("The code printed:"), {"t": "pre", "v": "\n".join(_shortened(lines))}]
    if figures:
        blocks.append(paragraph(f"The code drew {count(len(figures), 'figure')}."))
    names = captions(figures)
    for number, (figure, source) in enumerate(list(zip(figures, run.figures, strict=True))[:MOST_FIGURES], start=1):
        check_picture_size(source)
        target = f"own-{number}{source.suffix.lower()}"
        files[target] = source
        title = "; ".join(one_line(title) for title in figure.titles if title.strip())[:500]
        caption = escape(names[number - 1])
        alt = f"Figure that the code has drawn: {title or 'without a title'}."
        blocks.append(
            {"t": "figure", "file": target, "alt": alt, "caption": inline(f"{caption}."), "width": 80}
            | {"label": f"fig-own-{number}", "float": "none"}
        )
    if not lines and not figures:
        blocks.append(note("**Missing:** the code printed no prediction and drew no figure."))
    return blocks


def captions(figures: list[Figure]) -> list[str]:
    """The figures' own titles, else that the code drew them; those that are alike are numbered."""
    titles = [
        one_line(figure.title or (figure.titles[0] if len(figure.titles) == 1 else "")) or "Drawn by the code"
        for figure in figures
    ]
    return [
        title if titles.count(title) == 1 else f"{title} ({titles[:n].count(title) + 1} of {titles.count(title)})"
        for n, title in enumerate(titles)
    ]


def how_it_was_run(run: OwnRun, code_name: str) -> list[Block]:
    """Versions, random seed and hash, and the command that runs it again."""
    facts = run.record
    rows: list[list[Any]] = [[one_line(VERSIONS.get(n, n)), one_line(v)] for n, v in facts.versions.items()]
    rows.append(["Random seed, set before the code ran", str(facts.seed)])
    rows.append(["Began", f"{facts.time:%Y-%m-%d %H:%M} UTC"])
    rows.append(["Time", duration(facts.seconds)])
    rows.append(
        [
            "SHA-256 of the code",
            [{"t": "code", "v": facts.sha256[:32]}, {"t": "break"}, {"t": "code", "v": facts.sha256[32:]}],
        ]
    )
    copied = f"The file `{code_name}` is byte for byte the one that ran; its text is listed."
    if run.source.is_notebook:
        copied = (
            f"The file `{code_name}` is byte for byte the notebook that ran. Listed is the text of its code cells, in their "
            "order; its lines that are no Python, such as `%matplotlib inline`, were passed over."
        )
    return [
        section("How it was run", "sec-own-run", numbered=False),
        paragraph(f"{copied} With the same versions, this runs it again:"),
        {"t": "pre", "v": f"unroll lab run {code_name}{f' --seed {facts.seed}' if facts.seed else ''}", "lang": "sh"},
        table("tab-own-run", "Versions and settings of the run.", ["What", "This run"], "ll", rows),
    ]


def one_line(text: object) -> str:
    """The text of a cell of a table."""
    return " ".join(str(text).split())[:200]


def printed(run: OwnRun) -> tuple[list[str], list[str]]:
    """What the code printed, without empty lines at its end: up to the last loss of the training, and after it."""
    lines = [line.rstrip() for line in run.log.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    losses = [n for n, line in enumerate(lines) if LOSS.search(line) and not OF_TEST.search(line)]
    end = losses[-1] + 1 if losses else len(lines)
    later = lines[end:]
    while later and not later[0]:
        later.pop(0)
    return lines[:end], later


def _tells_class(line: str) -> bool:
    return "predict" in line.lower()


def finite(run: OwnRun) -> list[tuple[int, float]]:
    """Training steps with their losses, those that can be drawn."""
    return [(step, float(loss)) for step, loss in enumerate(run.losses, start=1) if math.isfinite(loss)]
