"""The hidden path: where s_t goes in the plane while a vanilla RNN of two units reads a sentence, word by word.

Shown before training (the first weights follow from the recipe and its seed) and after it, with what the readout makes
of every point of the plane. Can be read in greyscale: sentences differ in marker and line, classes in tint and label.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain, pairwise, product
from typing import Any

import numpy as np
import torch
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from unroll.data.sentences import SentenceEncoder
from unroll.models import SequenceModel
from unroll.report.blocks import count as counted
from unroll.report.canvas import subplots
from unroll.report.figures import as_label
from unroll.training.run import RunFolder, load
from unroll.training.tasks import first_model

Points = NDArray[np.float64]
Box = tuple[float, float, float, float]  # left, right, bottom, top

INK, GREY = "#1a1a1a", "#6b6b6b"
SENTENCES: list[tuple[str, str, Any]] = [  # colour, marker, line
    ("#1f4e8c", "o", "-"),
    ("#c1440e", "s", (0, (5, 2))),
    ("#2b7a5b", "^", (0, (1, 1.2))),
    ("#6a3d9a", "D", (0, (6, 2, 1, 2))),
]
DRAWN = {"task": "sentences", "cell": "rnn", "nonlinearity": "tanh", "hidden_size": 2, "num_layers": 1}
DRAWN |= {"bidirectional": False, "pooling": "last"}
TINTS = ["#f2d9cb", "#e6eef8", "#d3e6d6", "#f5eefa", "#dcd6a9", "#f2f2f2"]  # of different lightness
MANY_WORDS = 12  # of longer sentences only the first and the last word is written beside the path
EDGE = 1.12  # tanh keeps every unit within (-1, 1)


def draw_paths(folder: RunFolder) -> dict[str, Figure]:
    """`paths` for sentence runs of one vanilla RNN with two units; nothing for all others."""
    recipe = folder.recipe
    fields = recipe.model_dump()
    fits = all(fields[name] == value for name, value in DRAWN.items())
    if not fits or not (folder.path / "predictions.npz").is_file():
        return {}
    classifier = load(folder.path)
    classifier.model.cpu()
    encoder = classifier.encoder
    assert isinstance(encoder, SentenceEncoder)
    if len(encoder.class_names) > len(TINTS):
        return {}
    saved = folder.predictions()
    count = min(len(saved["one_of_each"]), len(SENTENCES))  # the first sentence of each class
    chosen, y = saved["one_of_each"][:count], saved["y"]
    rows = zip(saved["shown_values"], saved["shown_lengths"], strict=False)
    sentences = [torch.from_numpy(row[:length]) for row, length in list(rows)[:count]]
    labels = [encoder.class_names[y[n]] for n in chosen]
    if labels == sorted(labels):  # the class that is named last (1, pos, yes …) first, as in the lab
        sentences, labels = sentences[::-1], labels[::-1]

    figure, (left, right) = subplots(1, 2, figsize=(9.6, 5.5), sharex=True, sharey=True, layout="constrained")
    models = {
        "before training": first_model(recipe, encoder),
        f"after {counted(len(folder.history()), 'epoch')}": classifier.model,
    }
    for axes, (title, model) in zip((left, right), models.items(), strict=True):
        paths = [states(model, sentence) for sentence in sentences]
        border, boxes = _draw_plane(axes, model, encoder.class_names, np.concatenate(paths))
        labels_there = _draw_sentences(axes, paths, encoder, sentences)
        occupied = np.concatenate([*map(_dense, paths), border[::4]])
        _place_labels(axes, labels_there, occupied, boxes)
        axes.set(title=title, xlabel="first unit of $s_t$")
    left.set_ylabel("second unit of $s_t$")
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle=line, linewidth=1.8, markersize=6)
        for colour, marker, line in SENTENCES[:count]
    ]
    handles.append(Line2D([], [], color=INK, linewidth=1.4))
    names = [
        f"{as_label(' '.join(encoder.words_of(sentence)), 60)}  (true class {as_label(label)})"
        for sentence, label in zip(sentences, labels, strict=True)
    ]
    names.append("decision line of the readout" if len(encoder.class_names) == 2 else "decision lines of the readout")
    figure.suptitle("The hidden state, word by word", fontsize=13)
    columns = 3 if count == 2 else 1
    figure.legend(handles, names, loc="outside lower center", ncols=columns, handlelength=3, columnspacing=2.5)
    return {"paths": figure}


@torch.no_grad()
def states(model: SequenceModel, sentence: torch.Tensor) -> Points:
    """Word indices (T,) -> s_0 … s_T, (T + 1, 2)."""
    model.eval()
    x = sentence[:, None]
    if model.embedding is not None:
        x = torch.nn.functional.embedding(x, model.embedding)
    outputs, _ = model.layers(x)
    s: Points = outputs[:, 0].double().numpy()
    return np.concatenate([np.zeros((1, s.shape[1])), s])


@torch.no_grad()
def readout(model: SequenceModel, s: Points) -> Points:
    """States (…, 2) -> logits (…, C)."""
    logits: Points = s @ model.W_out.double().numpy().T + model.b_out.double().numpy()
    return logits


def _draw_plane(
    axes: Axes, model: SequenceModel, class_names: tuple[str, ...], visited: Points
) -> tuple[Points, list[Box]]:
    """What the readout makes of each point: a tint for each class, and the line where two classes are even.

    Returns:
        Points on these lines, and the boxes of the classes' names, for the labels to keep clear of.
    """
    ticks = np.linspace(-EDGE, EDGE, 401)
    logits = readout(model, np.stack(np.meshgrid(ticks, ticks), axis=-1))  # (401, 401, C)
    winner = logits.argmax(-1)
    border: list[Points] = [np.empty((0, 2))]
    boxes: list[Box] = []
    for k, name in enumerate(class_names):
        here = winner == k
        if not here.any():
            continue
        axes.contourf(ticks, ticks, here, levels=[0.5, 1.5], colors=[TINTS[k]], zorder=0)
        # The margin to the next class is positive inside the region and zero on its border.
        margin = logits[..., k] - np.delete(logits, k, axis=-1).max(-1)
        if not here.all():
            lines = axes.contour(ticks, ticks, margin, levels=[0.0], colors=[INK], linewidths=1.4, zorder=1)
            border += [np.asarray(segment) for segment in lines.allsegs[0]]
        text = f"read as {as_label(name)}"
        box = _inside(model, k, 0.042 * len(text), 0.12, visited)
        if box is not None:
            x, y = (box[0] + box[1]) / 2, (box[2] + box[3]) / 2
            axes.text(x, y, text, ha="center", va="center", fontsize=9, fontstyle="italic", color=GREY, zorder=2)
            boxes.append(box)
    axes.axhline(0, color="#ffffff", linewidth=1.2, zorder=0.5)
    axes.axvline(0, color="#ffffff", linewidth=1.2, zorder=0.5)
    halves = [-1, -0.5, 0, 0.5, 1]
    axes.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), aspect="equal", xticks=halves, yticks=halves)
    return np.concatenate(border), boxes


def _box(x: float, y: float, width: float, height: float) -> Box:
    return x - width / 2, x + width / 2, y - height / 2, y + height / 2


def _inside(model: SequenceModel, k: int, width: float, height: float, visited: Points) -> Box | None:
    """A box of this size in the region of class k, away from visited points and the middle; None without room."""
    room: dict[Box, float] = {}
    across, up = EDGE - 0.04 - width / 2, EDGE - 0.03 - height / 2
    for x, y in product(np.linspace(-across, across, 15), np.linspace(-up, up, 15)):
        box = _box(x, y, width, height)
        if (readout(model, np.array([*product(box[:2], box[2:])])).argmax(-1) == k).all():
            nearest = float(np.linalg.norm(visited - [x, y], axis=1).min())
            room[box] = min(0.6, nearest) + 0.5 * float(np.hypot(x, y))
    return max(room, key=lambda box: room[box]) if room else None


def _draw_sentences(
    axes: Axes, paths: list[Points], encoder: SentenceEncoder, sentences: list[torch.Tensor]
) -> list[tuple[Points, str, str]]:
    """Every path; where sentences begin alike they share states, drawn once in ink.

    Returns:
        Place, text and colour of a label for every state.
    """
    beginnings = [[tuple(sentence[:t].tolist()) for t in range(1, len(sentence) + 1)] for sentence in sentences]
    readers = Counter(chain.from_iterable(beginnings))
    drawn: set[tuple[int, ...]] = set()
    labels = [(paths[0][0], "$s_0$", INK)]
    for sentence, begun, path, style in zip(sentences, beginnings, paths, SENTENCES, strict=False):
        words = encoder.words_of(sentence)
        for t, key in enumerate(begun, start=1):
            if key in drawn:
                continue
            drawn.add(key)
            colour, marker, line = style if readers[key] == 1 else (INK, "o", "-")
            arrow: dict[str, Any] = {"arrowstyle": "-|>", "linestyle": line, "color": colour, "linewidth": 1.7}
            arrow |= {"shrinkA": 4, "shrinkB": 4, "mutation_scale": 11}
            axes.annotate("", path[t], path[t - 1], arrowprops=arrow, zorder=3)
            axes.plot(*path[t], linestyle="", marker=marker, color=colour, markersize=6.5, zorder=4)
            if len(words) <= MANY_WORDS or t in (1, len(words)):
                labels.append((path[t], f"$s_{{{t}}}$ {as_label(words[t - 1])}", colour))
    axes.plot(0, 0, marker="o", color="#ffffff", markeredgecolor=INK, markersize=7, zorder=5)
    return labels


def _dense(path: Points) -> Points:
    """Many points along a path."""
    return np.concatenate([np.linspace(start, end, 25) for start, end in pairwise(path)])


def _place_labels(axes: Axes, wanted: list[tuple[Points, str, str]], occupied: Points, boxes: list[Box]) -> None:
    """Each label beside its point, where it covers least of what is occupied and of the boxes of other texts."""
    height = 0.1  # of a line of text, in units of the plane
    for point, text, colour in wanted:
        width = 0.042 * (len(re.sub(r"[$_{}]", "", text)) + 0.5)

        found = []
        for angle, distance in product(np.linspace(0, 2 * np.pi, 16, endpoint=False), (0.06, 0.1, 0.15)):
            c, s = np.cos(angle), np.sin(angle)
            # The box's nearest point is `distance` away from the state.
            box = _box(point[0] + c * (distance + width / 2), point[1] + s * (distance + height / 2), width, height)
            low, high = np.array(box[::2]), np.array(box[1::2])
            covered = int(((occupied > low) & (occupied < high)).all(1).sum())
            shared = [np.minimum(high, b[1::2]) - np.maximum(low, b[::2]) for b in boxes]
            overlap = sum(float(np.prod(np.maximum(0.0, both))) for both in shared)
            outside = float(np.maximum(0.0, np.maximum(-EDGE - low, high - EDGE)).sum())
            found.append((covered + 3000 * overlap + 400 * outside + 10 * distance - 0.2 * c, box))
        box = min(found, key=lambda one: one[0])[1]
        x, y = (box[0] + box[1]) / 2, (box[2] + box[3]) / 2
        boxes.append(box)
        label = axes.text(x, y, text, ha="center", va="center", fontsize=9.5, color=colour, zorder=6)
        label.set_path_effects([patheffects.withStroke(linewidth=2.2, foreground="#ffffff", alpha=0.75)])
