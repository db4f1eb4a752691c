"""The hidden path: where s_t goes in the plane while a vanilla RNN of two units reads a sentence, word by word.

Shown before training (the first weights follow from the recipe and its seed) and after it, with what the readout makes
of every point of the plane. Can be read in greyscale: sentences differ in marker and line, classes in tint and label.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from unroll.data.sentences import SentenceEncoder
from unroll.models import SequenceModel
from unroll.training.recipe import SentenceRecipe
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
TINTS = ["#f2d9cb", "#e6eef8", "#d3e6d6", "#f5eefa", "#dcd6a9", "#f2f2f2"]  # of different lightness
MANY_WORDS = 12  # of longer sentences only the first and the last word is written beside the path
EDGE = 1.12  # tanh keeps every unit within (-1, 1)


def draw_paths(folder: RunFolder) -> dict[str, Figure]:
    """`paths` for sentence runs of one vanilla RNN with two units; nothing for all others."""
    recipe = folder.recipe
    if not (
        isinstance(recipe, SentenceRecipe)
        and recipe.cell == "rnn"
        and recipe.nonlinearity == "tanh"
        and recipe.hidden_size == 2
        and recipe.num_layers == 1
        and not recipe.bidirectional
        and recipe.pooling == "last"
        and (folder.path / "predictions.npz").is_file()
    ):
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

    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 5.5), sharex=True, sharey=True, layout="constrained")
    before = first_model(recipe, encoder)
    epochs = len(folder.history())
    for axes, model, title in (
        (left, before, "before training"),
        (right, classifier.model, f"after {epochs} epoch" + ("" if epochs == 1 else "s")),
    ):
        paths = [states(model, sentence) for sentence in sentences]
        taken = _draw_plane(axes, model, encoder.class_names, np.concatenate(paths))
        _draw_sentences(axes, paths, encoder, sentences, taken)
        axes.set_title(title)
        axes.set_xlabel("first unit of $s_t$")
    left.set_ylabel("second unit of $s_t$")
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle=line, linewidth=1.8, markersize=6)
        for colour, marker, line in SENTENCES[:count]
    ]
    names = [
        f"{' '.join(encoder.words_of(sentence))[:60]}  (true class {label})"
        for sentence, label in zip(sentences, labels, strict=True)
    ]
    handles.append(Line2D([], [], color=INK, linewidth=1.4))
    names.append("decision line of the readout" if len(encoder.class_names) == 2 else "decision lines of the readout")
    figure.suptitle("The hidden state, word by word", fontsize=13)
    figure.legend(
        handles,
        names,
        loc="outside lower center",
        ncols=3 if count == 2 else 1,
        frameon=False,
        handlelength=3,
        columnspacing=2.5,
    )
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
        text = f"read as {name}"
        box = _inside(model, k, 0.042 * len(text), 0.12, visited)
        if box is not None:
            x, y = (box[0] + box[1]) / 2, (box[2] + box[3]) / 2
            axes.text(x, y, text, ha="center", va="center", fontsize=9, fontstyle="italic", color=GREY, zorder=2)
            boxes.append(box)
    axes.axhline(0, color="#ffffff", linewidth=1.2, zorder=0.5)
    axes.axvline(0, color="#ffffff", linewidth=1.2, zorder=0.5)
    axes.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), aspect="equal")
    axes.set_xticks([-1, -0.5, 0, 0.5, 1])
    axes.set_yticks([-1, -0.5, 0, 0.5, 1])
    return np.concatenate(border), boxes


def _inside(model: SequenceModel, k: int, width: float, height: float, visited: Points) -> Box | None:
    """A box of this size in the region of class k, away from visited points and the middle; None without room."""
    best: tuple[float, Box] | None = None
    for x in np.linspace(-EDGE + 0.04 + width / 2, EDGE - 0.04 - width / 2, 15):
        for y in np.linspace(-EDGE + 0.03 + height / 2, EDGE - 0.03 - height / 2, 15):
            box = (x - width / 2, x + width / 2, y - height / 2, y + height / 2)
            corners = np.array([[i, j] for i in box[:2] for j in box[2:]])
            if (readout(model, corners).argmax(-1) != k).any():
                continue
            room = min(0.6, float(np.linalg.norm(visited - [x, y], axis=1).min()))
            worth = room + 0.5 * float(np.hypot(x, y))
            if best is None or worth > best[0]:
                best = (worth, box)
    return None if best is None else best[1]


def _draw_sentences(
    axes: Axes,
    paths: list[Points],
    encoder: SentenceEncoder,
    sentences: list[torch.Tensor],
    taken: tuple[Points, list[Box]],
) -> None:
    """Every path, with a label at every state; where sentences begin alike they share states, drawn once in ink."""
    readers: dict[tuple[int, ...], int] = {}
    for sentence in sentences:
        for t in range(1, len(sentence) + 1):
            key = tuple(sentence[:t].tolist())
            readers[key] = readers.get(key, 0) + 1
    drawn: set[tuple[int, ...]] = set()
    labels = [(paths[0][0], "$s_0$", INK)]
    for sentence, path, style in zip(sentences, paths, SENTENCES, strict=False):
        words = encoder.words_of(sentence)
        for t in range(1, len(path)):
            key = tuple(sentence[:t].tolist())
            if key in drawn:
                continue
            drawn.add(key)
            colour, marker, line = style if readers[key] == 1 else (INK, "o", "-")
            arrow: dict[str, Any] = {"arrowstyle": "-|>", "linestyle": line, "color": colour, "linewidth": 1.7}
            arrow |= {"shrinkA": 4, "shrinkB": 4, "mutation_scale": 11}
            axes.annotate("", path[t], path[t - 1], arrowprops=arrow, zorder=3)
            axes.plot(*path[t], linestyle="", marker=marker, color=colour, markersize=6.5, zorder=4)
            if len(words) <= MANY_WORDS or t in (1, len(words)):
                labels.append((path[t], f"$s_{{{t}}}$ {_plain(words[t - 1])}", colour))
    axes.plot(0, 0, marker="o", color="#ffffff", markeredgecolor=INK, markersize=7, zorder=5)
    border, boxes = taken
    occupied = np.concatenate([_dense(path) for path in paths] + [border[::4]])
    _place_labels(axes, labels, occupied, boxes)


def _plain(word: str) -> str:
    return word.replace("$", r"\$")


def _dense(path: Points) -> Points:
    """Many points along a path."""
    return np.concatenate([np.linspace(start, end, 25) for start, end in pairwise(path)])


def _place_labels(axes: Axes, wanted: list[tuple[Points, str, str]], occupied: Points, boxes: list[Box]) -> None:
    """Each label beside its point, where it covers least of what is occupied and of the boxes of other texts."""
    height = 0.1  # of a line of text, in units of the plane
    for point, text, colour in wanted:
        width = 0.042 * (len(text.replace("$", "").replace("_", "").replace("{", "").replace("}", "")) + 0.5)
        best = None
        for angle in np.linspace(0, 2 * np.pi, 16, endpoint=False):
            for distance in (0.06, 0.1, 0.15):
                c, s = np.cos(angle), np.sin(angle)
                # The box's nearest point is `distance` away from the state.
                x = point[0] + c * (distance + width / 2)
                y = point[1] + s * (distance + height / 2)
                box = (x - width / 2, x + width / 2, y - height / 2, y + height / 2)
                inside = (
                    (occupied[:, 0] > box[0])
                    & (occupied[:, 0] < box[1])
                    & (occupied[:, 1] > box[2])
                    & (occupied[:, 1] < box[3])
                )
                overlap = sum(
                    max(0.0, min(box[1], b[1]) - max(box[0], b[0])) * max(0.0, min(box[3], b[3]) - max(box[2], b[2]))
                    for b in boxes
                )
                outside = max(0.0, -EDGE - box[0], box[1] - EDGE) + max(0.0, -EDGE - box[2], box[3] - EDGE)
                cost = float(inside.sum()) + 3000 * overlap + 400 * outside + 10 * distance - 0.2 * c
                if best is None or cost < best[0]:
                    best = (cost, x, y, box)
        assert best is not None
        boxes.append(best[3])
        label = axes.text(best[1], best[2], text, ha="center", va="center", fontsize=9.5, color=colour, zorder=6)
        label.set_path_effects([patheffects.withStroke(linewidth=2.2, foreground="#ffffff", alpha=0.75)])
