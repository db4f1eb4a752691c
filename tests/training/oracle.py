"""Training once more, in plain torch and by the recipe's words alone: what the product's training is compared with.

Everything that a recipe decides is done here a second time: reading and splitting the data, numbering words and classes,
the first weights, the order of the batches, what is drawn at random, the loss, the update, the schedule, patience and the
choice of the weights that are tested. The layers, optimisers and schedules are torch's, but for the cells that torch does not
have (`Loop`). Of the package there is only `unroll.data.augment`, which has tests of its own. Nothing here is fast, and nothing
checks its input.

Run it with float64 as torch's default type.
"""

from __future__ import annotations

import csv
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence
from torch.optim import SGD, Adam, AdamW, lr_scheduler

from unroll.data.augment import Augmentation, augment


@dataclass
class Outcome:
    """What a run shows of itself; the lists have one entry for each epoch."""

    losses: list[list[float]] = field(default_factory=list)  # of every step
    learning_rates: list[float] = field(default_factory=list)  # of the last step
    gradient_norms: list[float] = field(default_factory=list)  # mean over the steps, before clipping
    validation: list[tuple[float, float]] = field(default_factory=list)  # loss and accuracy
    weights: dict[str, Tensor] = field(default_factory=dict)  # those that are saved and tested, by name
    p: Tensor | None = None  # class probabilities of the test part
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)  # of the parts "validation" and "test"
    lines: list[str] = field(default_factory=list)  # what was printed (by the product alone)


# -------------------------------------------------------------------------------------------------------------- data


class Part(NamedTuple):
    """Sequences (T, …) and their classes."""

    sequences: list[Tensor]
    y: Tensor

    def batch(self, numbers: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Padded values (B, T, …), classes (B,) and lengths (B,)."""
        chosen = [self.sequences[i] for i in numbers]
        return pad_sequence(chosen, batch_first=True), self.y[numbers], torch.tensor([len(s) for s in chosen])


class Data(NamedTuple):
    train: Part
    validation: Part | None
    test: Part | None
    class_names: list[str]
    width: int  # features of a time step, or words
    inputs: Callable[[Tensor, torch.Generator | None], Tensor]  # (B, T, …) -> (T, B, …); distorted with a generator


def read(recipe: Any) -> Data:
    return {"images": read_images, "sentences": read_sentences, "series": read_series}[recipe.task](recipe)


def read_images(recipe: Any) -> Data:
    folder = Path(recipe.data)

    def idx(name: str, header: int) -> np.ndarray:
        return np.frombuffer((folder / name).read_bytes(), np.uint8, offset=header)

    parts, highest = {}, 0
    for prefix in ("train", "t10k"):
        labels = idx(f"{prefix}-labels-idx1-ubyte", 8)
        rows, columns = idx(f"{prefix}-images-idx3-ubyte", 0)[[11, 15]].tolist()
        pixels = idx(f"{prefix}-images-idx3-ubyte", 16).reshape(len(labels), rows, columns)
        parts[prefix] = Part(list(torch.tensor(pixels).double()), torch.tensor(labels).long())
        highest = max(highest, int(labels.max()))
    (pictures, y), total = parts["train"], len(parts["train"].y)
    kept = total - round(recipe.validation * total if recipe.validation < 1 else recipe.validation)
    train, held_out = Part(pictures[:kept], y[:kept]), Part(pictures[kept:], y[kept:])
    mean, deviation = 0.0, 1.0
    if recipe.standardise:
        pixels = torch.stack(train.sequences) / 255
        mean, deviation = pixels.mean(), pixels.std(correction=0)
    limits = Augmentation(recipe.rotation, recipe.scaling, recipe.shear, recipe.translation, recipe.elastic)

    def inputs(values: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is not None:
            values = augment(values, generator, limits)
        return ((values / 255 - mean) / deviation).transpose(0, 1)

    names = [str(k) for k in range(highest + 1)]
    return Data(train, held_out if kept < total else None, parts["t10k"], names, columns, inputs)


def read_sentences(recipe: Any) -> Data:
    """Of texts whose words are parted by spaces."""

    def table(path: str) -> list[tuple[list[str], str]]:
        rows = csv.DictReader(Path(path).read_text().splitlines())
        texts = [(row[recipe.text_column], row[recipe.label_column]) for row in rows]
        return [((t.lower() if recipe.lowercase else t).split()[: recipe.max_length], label) for t, label in texts]

    train, held_out, test = split(recipe, table)
    counts = Counter(word for words, _ in train for word in words)
    known = sorted((w for w in counts if counts[w] >= recipe.min_count), key=lambda w: (-counts[w], w))
    number = {word: k for k, word in enumerate(known[: recipe.max_vocabulary], start=1)}  # 0: all other words
    names = class_order(label for _, label in train)

    def part(rows: list[tuple[list[str], str]]) -> Part | None:
        sequences = [torch.tensor([number.get(word, 0) for word in words]) for words, _ in rows]
        return Part(sequences, torch.tensor([names.index(label) for _, label in rows])) if rows else None

    def inputs(values: Tensor, generator: torch.Generator | None) -> Tensor:
        if generator is not None and recipe.word_dropout:
            values = values.masked_fill(torch.rand(values.shape, generator=generator) < recipe.word_dropout, 0)
        return values.T

    return Data(part(train), part(held_out), part(test), names, len(number) + 1, inputs)  # type: ignore[arg-type]


def read_series(recipe: Any) -> Data:
    """From a long table, in CSV, or from arrays X and y, in .npz."""

    def is_feature(name: str) -> bool:
        return name not in (recipe.ignore or ()) and (recipe.features is None or name in recipe.features)

    def table(path: str) -> list[tuple[np.ndarray, str]]:
        if path.endswith(".npz"):
            arrays = np.load(path)
            x = arrays["X"][:, :, [d for d in range(arrays["X"].shape[2]) if is_feature(str(d))]]
            return [(x, str(label)) for x, label in zip(x, arrays["y"], strict=True)]
        series: dict[str, list[tuple[float, list[float], str]]] = {}
        for row in csv.DictReader(Path(path).read_text().splitlines()):
            name, time, label = (row.pop(c) for c in (recipe.id_column, recipe.time_column, recipe.label_column))
            steps = series.setdefault(name, [])
            steps.append((float(time), [float(row[c] or "nan") for c in row if is_feature(c)], label))
        return [(np.array([x for _, x, _ in sorted(steps)]), steps[0][2]) for steps in series.values()]

    train, held_out, test = split(recipe, table)
    steps = np.concatenate([x for x, _ in train])
    mean, deviation = np.nanmean(steps, 0), np.nanstd(steps, 0)
    names = class_order(label for _, label in train)

    def filled(x: np.ndarray) -> np.ndarray:
        x = x.copy()
        for t, d in np.argwhere(np.isnan(x)):  # in order of time: the value before may have been filled already
            x[t, d] = {"zero": 0.0, "mean": mean[d], "last": x[t - 1, d] if t else mean[d]}[recipe.fill_missing]
        return x

    def part(rows: list[tuple[np.ndarray, str]]) -> Part | None:
        # Kept in float32: that is how much of a measurement the product keeps too.
        scaled = [((filled(x) - mean) / deviation).astype(np.float32) for x, _ in rows]
        y = torch.tensor([names.index(label) for _, label in rows])
        return Part([torch.tensor(x).double() for x in scaled], y) if rows else None

    def inputs(values: Tensor, generator: torch.Generator | None) -> Tensor:
        return values.transpose(0, 1)

    return Data(part(train), part(held_out), part(test), names, len(mean), inputs)  # type: ignore[arg-type]


def split(recipe: Any, table: Callable[[str], list[Any]]) -> tuple[list[Any], list[Any], list[Any]]:
    """Training, validation and test rows of a recipe's file; a row ends with its label.

    Sequence number r of the n in its class, in the order drawn, stands at (r + ½)/n: the first go to the test part, the
    next to the validation part, and the others are trained on in the file's order.
    """
    rows = table(recipe.data)
    total = len(rows)
    tested = 0 if recipe.test_data else round(recipe.test * total if recipe.test < 1 else recipe.test)
    left = total - tested
    held_out = tested + round(recipe.validation * left if recipe.validation < 1 else recipe.validation)
    drawn = np.random.default_rng(recipe.seed).permutation(total).tolist()
    place = {}
    for label in {row[-1] for row in rows}:
        of_class = [i for i in drawn if rows[i][-1] == label]
        place.update({i: (r + 0.5) / len(of_class) for r, i in enumerate(of_class)})
    order = sorted(drawn, key=place.__getitem__)
    train, validation, test = (
        [rows[i] for i in sorted(numbers)] for numbers in (order[held_out:], order[tested:held_out], order[:tested])
    )
    return train, validation, table(recipe.test_data) if recipe.test_data else test


def class_order(labels: Any) -> list[str]:
    names = sorted(set(labels))
    return sorted(names, key=float) if all(name.isdecimal() for name in names) else names


# ------------------------------------------------------------------------------------------------------------- model


class Loop(nn.Module):
    """A layer in torch's form of a cell that torch does not have, one sequence and one step at a time."""

    BLOCKS = {"peephole": 4, "coupled": 3, "layernorm": 4, "mgu": 2}  # noqa: RUF012 - nobody writes to it

    def __init__(self, cell: str, D: int, H: int, bidirectional: bool) -> None:
        super().__init__()
        self.cell, self.input_size, rows = cell, D, self.BLOCKS[cell] * H
        self.ends = ("l0", "l0_reverse")[: 1 + bidirectional]
        self.more: dict[str, Tensor] = {"p": torch.zeros(3 * H)} if cell == "peephole" else {}
        if cell == "layernorm":
            ones = {"alpha_h": torch.ones(rows), "alpha_x": torch.ones(rows), "alpha_c": torch.ones(H)}
            self.more = ones | {"beta": torch.zeros(H)}
        for end in self.ends:
            first = {"weight_hh": torch.empty(rows, H), "weight_ih": torch.empty(rows, D), "bias_ih": torch.empty(rows)}
            for name, value in (first | {"bias_hh": torch.empty(rows)} | self.more).items():
                self.register_parameter(f"{name}_{end}", nn.Parameter(value.clone()))

    def forward(self, packed: Any) -> Any:
        x, lengths = pad_packed_sequence(packed)
        ways, last = [], []
        for end in self.ends:
            each = []
            for b, n in enumerate(lengths.tolist()):
                h = c = torch.zeros(getattr(self, f"weight_hh_{end}").shape[1])
                outputs = []
                for x_t in x[:n, b] if end == "l0" else x[:n, b].flip(0):
                    h, c = self.step(x_t, h, c, end)
                    outputs.append(h)
                each.append((torch.stack(outputs if end == "l0" else outputs[::-1]), h))
            ways.append(pad_sequence([rows for rows, _ in each]))
            last.append(torch.stack([h for _, h in each]))
        return pack_padded_sequence(torch.cat(ways, -1), lengths, enforce_sorted=False), torch.stack(last)

    def step(self, x: Tensor, h: Tensor, c: Tensor, end: str) -> tuple[Tensor, Tensor]:
        """x (D,), h and c (H,) -> h and c after the step; of a cell without c the same twice."""
        W, U, b = (getattr(self, f"{name}_{end}") for name in ("weight_hh", "weight_ih", "bias_ih"))
        more, H = {name: getattr(self, f"{name}_{end}") for name in self.more}, len(h)
        if self.cell == "mgu":
            f = torch.sigmoid(W[:H] @ h + U[:H] @ x + b[:H])
            h = h + f * (torch.tanh(W[H:] @ (f * h) + U[H:] @ x + b[H:]) - h)
            return h, h
        if self.cell == "layernorm":
            a = F.layer_norm(W @ h, b.shape, more["alpha_h"]) + F.layer_norm(U @ x, b.shape, more["alpha_x"]) + b
        else:
            a = W @ h + U @ x + b
        *first, g, o = a.split(H)
        p_i, p_f, p_o = more["p"].split(H) if self.cell == "peephole" else [torch.zeros(H)] * 3
        f = torch.sigmoid(first[-1] + p_f * c)
        i = 1 - f if self.cell == "coupled" else torch.sigmoid(first[0] + p_i * c)
        c = f * c + i * torch.tanh(g)
        shown = F.layer_norm(c, (H,), more["alpha_c"], more["beta"]) if self.cell == "layernorm" else c
        return torch.sigmoid(o + p_o * c) * torch.tanh(shown), c


class Model(nn.Module):
    """One torch layer for each layer of the recipe.

    Of torch's two biases the second stays zero, but for the GRU's candidate, which has both.
    """

    def __init__(self, recipe: Any, width: int, classes: int) -> None:
        super().__init__()
        self.recipe, self.words = recipe, width if recipe.task == "sentences" else None
        H, self.directions = recipe.hidden_size, 1 + recipe.bidirectional
        embedded = getattr(recipe, "embedding_size", None)
        widths = [embedded or width] + [H * self.directions] * (recipe.num_layers - 1)
        theirs: Any = {"lstm": nn.LSTM, "rnn": nn.RNN, "gru": nn.GRU}
        kind = theirs.get(recipe.cell) or partial(Loop, recipe.cell)
        options = {"nonlinearity": recipe.nonlinearity} if recipe.cell == "rnn" else {}
        self.layers = nn.ModuleList(kind(D, H, bidirectional=recipe.bidirectional, **options) for D in widths)
        self.W_out = nn.Parameter(torch.empty(classes, H * self.directions))
        self.b_out = nn.Parameter(torch.empty(classes))
        self.embedding = nn.Parameter(torch.empty(width, embedded)) if embedded else None
        self.draw()

    @torch.no_grad()
    def draw(self) -> None:
        """The first weights: W, U and b of each cell, W_out, b_out, embedding."""
        recipe, how, H = self.recipe, self.recipe.initialisation, self.recipe.hidden_size
        torch.manual_seed(recipe.seed)
        for layer in self.layers:
            D = layer.input_size
            for end in ("l0", "l0_reverse")[: self.directions]:
                W, U, b = (getattr(layer, f"{name}_{end}") for name in ("weight_hh", "weight_ih", "bias_ih"))
                b_h = getattr(layer, f"bias_hh_{end}").zero_()
                b_h.requires_grad_(recipe.cell == "gru")
                if recipe.cell == "gru":
                    b_h.register_hook(lambda d: d * (torch.arange(len(d)) >= 2 * len(d) // 3))
                b.zero_()
                if how == "normal":
                    W.copy_(torch.randn(W.shape) / math.sqrt(H))
                    U.copy_(torch.randn(U.shape) / math.sqrt(D))
                elif how == "orthogonal":
                    W.copy_(torch.cat([nn.init.orthogonal_(torch.empty(H, H)) for _ in range(len(W) // H)]))
                    U.copy_(torch.cat([evenly((H, D), math.sqrt(6 / (H + D))) for _ in range(len(W) // H)]))
                else:
                    for weights in (W, U, b):
                        weights.copy_(evenly(weights.shape, 1 / math.sqrt(H if how == "uniform" else D + H)))
                    if recipe.cell == "gru":
                        b_h[2 * H :] = evenly((H,), 1 / math.sqrt(H if how == "uniform" else D + H))
                    if recipe.cell == "peephole":
                        getattr(layer, f"p_{end}").copy_(
                            evenly((3 * H,), 1 / math.sqrt(H if how == "uniform" else D + H))
                        )
                if recipe.cell not in ("rnn", "gru") and recipe.forget_bias is not None:
                    start = 0 if recipe.cell in ("coupled", "mgu") else H
                    b[start : start + H] = recipe.forget_bias
        classes, features = self.W_out.shape
        self.b_out.zero_()
        if how == "normal":
            self.W_out.copy_(torch.randn(classes, features) / math.sqrt(features))
        elif how == "orthogonal":
            self.W_out.copy_(evenly((classes, features), math.sqrt(6 / (classes + features))))
        else:
            self.W_out.copy_(evenly((classes, features), 1 / math.sqrt(features)))
            self.b_out.copy_(evenly((classes,), 1 / math.sqrt(features)))
        if self.embedding is not None:
            self.embedding.copy_(0.1 * torch.randn(self.embedding.shape))

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (T, B, D) or (T, B), lengths (B,) -> logits (B, C)."""
        share = self.recipe.dropout
        if self.embedding is not None:
            x = F.dropout(F.embedding(x, self.embedding), share, self.training)
        elif self.words is not None:
            x = F.one_hot(x, self.words).double()
        for number, layer in enumerate(self.layers):
            if number > 0:
                x = F.dropout(x, share, self.training)
            outputs, state = layer(pack_padded_sequence(x, lengths, enforce_sorted=False))
            x, _ = pad_packed_sequence(outputs, total_length=len(x))
        if self.recipe.pooling == "last":
            h = (state[0] if isinstance(state, tuple) else state).transpose(0, 1).flatten(1)
        elif self.recipe.pooling == "mean":
            h = x.sum(0) / lengths[:, None]
        else:
            padding = torch.arange(len(x))[:, None] >= lengths
            h = x.masked_fill(padding[:, :, None], -math.inf).amax(0)
        return F.dropout(h, share, self.training) @ self.W_out.T + self.b_out

    def weights(self) -> dict[str, Tensor]:
        """By the names of a saved model."""
        found = {"W_out": self.W_out, "b_out": self.b_out}
        if self.embedding is not None:
            found["embedding"] = self.embedding
        for number, layer in enumerate(self.layers):
            for direction, end in enumerate(("l0", "l0_reverse")[: self.directions]):
                for ours, theirs in (("W", "weight_hh"), ("U", "weight_ih"), ("b", "bias_ih")):
                    found[f"layers.cells.{number}.{direction}.{ours}"] = getattr(layer, f"{theirs}_{end}")
                for name in getattr(layer, "more", ()):
                    found[f"layers.cells.{number}.{direction}.{name}"] = getattr(layer, f"{name}_{end}")
                if self.recipe.cell == "gru":
                    found[f"layers.cells.{number}.{direction}.b_h"] = getattr(layer, f"bias_hh_{end}")
        return found


def evenly(shape: Any, bound: float) -> Tensor:
    return torch.empty(shape).uniform_(-bound, bound)


# ---------------------------------------------------------------------------------------------------------- training


def train(recipe: Any) -> Outcome:
    data, outcome = read(recipe), Outcome()
    model = Model(recipe, data.width, len(data.class_names))
    weights = model.weights()
    steps = math.ceil(len(data.train.y) / recipe.batch_size)
    optimizer = make_optimizer(recipe, list(weights.values()))
    schedule = make_schedule(recipe, optimizer, recipe.epochs * steps)
    of_classes = None
    if getattr(recipe, "class_weights", "none") == "balanced":
        of_classes = len(data.train.y) / (len(data.class_names) * torch.bincount(data.train.y).double())
    average = {name: w.detach().clone() for name, w in weights.items()}
    best_loss, best_epoch, best, updates = math.inf, 0, None, 0
    for epoch in range(recipe.epochs):
        order, generator = draw_order(recipe, data.train, epoch)
        plain = getattr(recipe, "plain_epochs", 0) >= recipe.epochs - epoch
        losses, norms = [], []
        for numbers in order:
            values, y, lengths = data.train.batch(numbers)
            logits = model.train()(data.inputs(values, None if plain else generator), lengths)
            loss = F.cross_entropy(logits, y, of_classes, label_smoothing=recipe.label_smoothing)
            optimizer.zero_grad()
            loss.backward()
            norms.append(float(nn.utils.clip_grad_norm_(weights.values(), recipe.max_norm or math.inf)))
            losses.append(loss.item())
            rate = optimizer.param_groups[0]["lr"]
            optimizer.step()
            schedule.step()
            kept = min(recipe.weight_average or 0.0, (1 + updates) / (10 + updates))
            average = {name: kept * average[name] + (1 - kept) * w.detach() for name, w in weights.items()}
            updates += 1
        outcome.losses.append(losses)
        outcome.learning_rates.append(rate)
        outcome.gradient_norms.append(sum(norms) / len(norms))
        if data.validation is not None:
            tested = measure(probabilities(model, average, data.validation, data), data.validation.y)
            outcome.validation.append((tested["loss"], tested["accuracy"]))
            if recipe.patience is not None and tested["loss"] < best_loss:
                best_loss, best_epoch, best = tested["loss"], epoch, average
            if recipe.patience is not None and epoch - best_epoch >= recipe.patience:
                break
    kept_weights = best or average
    for name, part in (("validation", data.validation), ("test", data.test)):
        if part is not None:
            outcome.p = probabilities(model, kept_weights, part, data)
            outcome.metrics[name] = measure(outcome.p, part.y) | {"class_names": data.class_names}
    outcome.p = None if data.test is None else outcome.p
    ends = {"b_h": 2 * recipe.hidden_size}  # the part that is not zero
    outcome.weights = {name: w[ends.get(name.rpartition(".")[2], 0) :] for name, w in kept_weights.items()}
    return outcome


def make_optimizer(recipe: Any, parameters: list[Tensor]) -> torch.optim.Optimizer:
    options = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "sgd":
        return SGD(parameters, momentum=recipe.momentum, nesterov=recipe.nesterov, **options)
    return {"adam": Adam, "adamw": AdamW}[recipe.optimizer](parameters, **options)


def make_schedule(recipe: Any, optimizer: torch.optim.Optimizer, total: int) -> lr_scheduler.LRScheduler:
    if recipe.schedule == "one_cycle":
        return lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=total, cycle_momentum=False)
    if recipe.schedule == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=total)
    return lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)


def draw_order(recipe: Any, part: Part, epoch: int) -> tuple[list[list[int]], torch.Generator]:
    """Which sequences make up each batch, and the generator that order, distortions and lost words are drawn from.

    Each epoch has two seeds of its own: one for this generator, one for dropout. Sequences of unequal length are sorted
    by length in stretches of 50 batches, and the batches shuffled once more.
    """
    seeds = np.random.SeedSequence([recipe.seed, epoch]).generate_state(2, np.uint64) >> 1
    generator = torch.Generator().manual_seed(int(seeds[0]))
    torch.manual_seed(int(seeds[1]))
    size, lengths = recipe.batch_size, [len(sequence) for sequence in part.sequences]
    if not recipe.shuffle:
        return chunks(range(len(lengths)), size), generator
    order = torch.randperm(len(lengths), generator=generator).tolist()
    if len(set(lengths)) == 1:
        return chunks(order, size), generator
    found = []
    for stretch in chunks(order, 50 * size):
        found += chunks(sorted(stretch, key=lengths.__getitem__), size)
    return [found[i] for i in torch.randperm(len(found), generator=generator).tolist()], generator


def chunks(numbers: Any, size: int) -> list[list[int]]:
    return [list(numbers[i : i + size]) for i in range(0, len(numbers), size)]


@torch.no_grad()
def probabilities(model: Model, weights: dict[str, Tensor], part: Part, data: Data) -> Tensor:
    """(N, C), computed with `weights`; the model's own are as before afterwards."""
    own = {name: w.clone() for name, w in model.weights().items()}
    for name, w in model.weights().items():
        w.copy_(weights[name])
    values, _, lengths = part.batch(list(range(len(part.y))))
    p = model.eval()(data.inputs(values, None), lengths).softmax(1)
    for name, w in model.weights().items():
        w.copy_(own[name])
    return p


def measure(p: Tensor, y: Tensor) -> dict[str, Any]:
    """Row k of the confusion matrix counts how the sequences of class k were read."""
    confusion = [[0] * p.shape[1] for _ in range(p.shape[1])]
    for k, row in zip(y.tolist(), p.tolist(), strict=True):
        confusion[k][row.index(max(row))] += 1
    correct = sum(confusion[k][k] for k in range(len(confusion)))
    loss = -sum(math.log(max(row[k], 1e-12)) for k, row in zip(y.tolist(), p.tolist(), strict=True)) / len(y)
    return {"loss": loss, "accuracy": correct / len(y), "confusion": confusion}
