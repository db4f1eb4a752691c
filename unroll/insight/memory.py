"""Memory: for how many steps can a cell keep something? The classic tasks, generated, over growing lengths.

- ``order``: temporal order (Hochreiter & Schmidhuber 1997, experiment 6a; at any length as in Pascanu et al. 2013,
  section 4.1.1). Two of the symbols are X or Y, one in the first and one in the second part, all others distract; the
  class is which of XX, XY, YX, YY it was.
- ``adding`` (Hochreiter & Schmidhuber 1997, experiment 4): two numbers of a series are marked; name their (scaled) sum.
- ``copy`` (after Hochreiter & Schmidhuber 1997, experiment 2c; Arjovsky, Shah & Bengio 2016, section 5.1): repeat five
  symbols after a pause of T steps.
- ``rows``: MNIST read row by row, then T blank rows before the digit is named.

Three cells, all with as many parameters:
- ``lstm``: forget and input bias from the chrono initialisation (Tallec & Ollivier, "Can recurrent neural networks warp
  time?", ICLR 2018, eq. 16).
- ``rnn``: the vanilla RNN of the lab, tanh, with orthogonal recurrent weights (Saxe et al. 2014).
- ``irnn``: the vanilla RNN with the best known help: max(0, ·) in the place of tanh and W = 1 to begin with (Le, Jaitly &
  Hinton, "A Simple Way to Initialize Recurrent Networks of Rectified Linear Units", 2015).

Each is trained with Adam and clipping; its learning rate for a task was chosen by trials at middle lengths, and is the
same at all lengths.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from unroll.cells import cell_type
from unroll.cells.variants import Removal, hold_open
from unroll.data.batches import Batch
from unroll.data.images import load_image_dataset
from unroll.errors import InputError, TrainingError, nearest
from unroll.insight.ablate import KeepOpen
from unroll.layers import Recurrent, stack
from unroll.optim import cosine
from unroll.training import DeviceName
from unroll.training.fit import Callback, Settings, Training, fit
from unroll.training.trials import Trials

CellName = Literal["lstm", "rnn", "irnn"]
CELLS: tuple[CellName, ...] = get_args(CellName)
Progress = Callable[[Sequence[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Task:
    """A task at one length.

    Attributes:
        steps: T as the model sees it, answers included.
        batch: from a size, a generator and the part ("train" if left out): x (T, B, D) or symbols (T, B), and the
            targets (answers, B).
        inputs, outputs: D (or the number of symbols) and the numbers the readout gives at a step.
        answers: how many of the last steps are read out.
        solved: the share of right answers at which the task counts as solved.
        guessing: the share of right answers of a model that has remembered nothing.
    """

    name: str
    length: int
    steps: int
    batch: Callable[..., tuple[Tensor, Tensor]] = field(compare=False, repr=False)
    inputs: int
    outputs: int
    answers: int
    solved: float
    guessing: float

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """outputs (answers, B, C)."""
        if self.name == "adding":
            return nn.functional.mse_loss(outputs[..., 0], targets)
        return nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    def right(self, outputs: Tensor, targets: Tensor) -> float:
        """Share of right answers; in ``adding`` right is within 0.04, as in 1997."""
        if self.name == "adding":
            return float(((outputs[..., 0] - targets).abs() < 0.04).double().mean())
        return float((outputs.argmax(-1) == targets).double().mean())


SYMBOLS, ALPHABET, REPEATED = 6, 8, 5


def task(name: str, length: int) -> Task:
    """A task by its name.

    Args:
        length: T, the number of steps of order and adding, of the pause in copy, of blank rows in rows.

    Raises:
        InputError: there is no such task, or it makes no sense at that length.
    """
    if name not in _TASKS:
        raise InputError(f"unknown task {name!r}{nearest(name, _TASKS)}")
    least, extra, draw, *facts = _TASKS[name]
    if length < least:
        raise InputError(f"length {length} of task {name!r}; expected at least {least}")
    return Task(name, length, length + extra, partial(draw, length), *facts)


def _order(T: int, size: int, generator: torch.Generator, part: str = "train") -> tuple[Tensor, Tensor]:
    """Symbols 0 and 1 are X and Y, 2 to 5 distract; X or Y at T/10 … 2T/10 and at 4T/10 … 5T/10."""
    x = torch.randint(2, SYMBOLS, (T, size), generator=generator)
    who = torch.randint(2, (2, size), generator=generator)
    for k, begin in enumerate((T // 10, 4 * T // 10)):
        place = begin + torch.randint(max(1, T // 10), (size,), generator=generator)
        x[place, torch.arange(size)] = who[k]
    return x, (2 * who[0] + who[1])[None]


def _adding(T: int, size: int, generator: torch.Generator, part: str = "train") -> tuple[Tensor, Tensor]:
    """Numbers from U(-1, 1); one mark in either half; target 1/2 + (X_1 + X_2)/4, between 0 and 1."""
    rows = torch.arange(size)
    values = torch.rand(size, T, generator=generator) * 2 - 1
    marks = torch.zeros(size, T)
    first = torch.randint(T // 2, (size,), generator=generator)
    second = torch.randint(T // 2, T, (size,), generator=generator)
    marks[rows, first] = marks[rows, second] = 1
    x = torch.stack([values.T, marks.T], dim=-1)  # (T, B, 2)
    return x, (0.5 + (values[rows, first] + values[rows, second]) / 4)[None]


def _copy(T: int, size: int, generator: torch.Generator, part: str = "train") -> tuple[Tensor, Tensor]:
    """Five symbols, T - 1 blanks, the signal to begin, and blanks while the symbols are to be repeated."""
    symbols = torch.randint(ALPHABET, (REPEATED, size), generator=generator)
    x = torch.full((T + 2 * REPEATED, size), ALPHABET)
    x[:REPEATED] = symbols
    x[REPEATED + T - 1] = ALPHABET + 1
    return x, symbols


@cache
def _digits(part: str) -> tuple[Tensor, Tensor]:
    dataset = load_image_dataset(None, standardise=True)
    chosen = dataset.train if part == "train" else dataset.test
    assert chosen is not None
    return dataset.encoder.features(chosen.values), chosen.y


def _rows(T: int, size: int, generator: torch.Generator, part: str = "train") -> tuple[Tensor, Tensor]:
    """Blank rows are zero: no ink and no paper."""
    x, y = _digits(part)
    index = torch.randint(len(y), (size,), generator=generator)
    return torch.cat([x[:, index], torch.zeros(T, size, 28)]), y[index][None]


# The least length, the steps besides, and the fields of `Task` from `batch` on.
_TASKS: dict[str, tuple[Any, ...]] = {
    "order": (10, 0, _order, SYMBOLS, 4, 1, 0.99, 0.25),
    "adding": (2, 0, _adding, 2, 1, 1, 0.999, 0.15),
    "copy": (1, 2 * REPEATED, _copy, ALPHABET + 2, ALPHABET, REPEATED, 0.99, 1 / ALPHABET),
    "rows": (0, 28, _rows, 28, 10, 1, 0.95, 0.1),
}


# ------------------------------------------------------------------------------------------------------------- recipes


@dataclass(frozen=True)
class Recipe:
    """How a cell is trained on a task."""

    hidden_size: int
    learning_rate: float
    batch_size: int
    sequences: int
    max_norm: float = 1.0


# Units of the LSTM, batch size, sequences, the learning rate of each cell; and the lengths to try.
_TRAINED = {
    "order": (32, 20, 60_000, (0.01, 0.0003, 0.0003), (20, 50, 100, 200, 400)),
    "adding": (32, 20, 100_000, (0.01, 0.001, 0.001), (50, 100, 200, 400, 600)),
    "copy": (64, 20, 100_000, (0.02, 0.001, 0.0003), (10, 50, 100, 200)),
    "rows": (64, 100, 90_000, (0.01, 0.001, 0.001), (0, 100, 300, 1000)),
}
RECIPES: dict[tuple[str, CellName], Recipe] = {
    (name, cell): Recipe(units, rate, batch, sequences)
    for name, (units, batch, sequences, rates, _) in _TRAINED.items()
    for cell, rate in zip(CELLS, rates, strict=True)
}


def parameters_of_lstm(hidden_size: int, inputs: int, outputs: int) -> int:
    return 4 * hidden_size * (hidden_size + inputs + 1) + outputs * (hidden_size + 1)


def equal_rnn(hidden_size: int, inputs: int, outputs: int) -> int:
    """Hidden units of the vanilla RNN that has as many parameters as an LSTM with `hidden_size`: the root of

    H² + H (D + 1 + C) + C = N_lstm,    rounded.
    """
    half = (inputs + 1 + outputs) / 2
    return round(math.sqrt(half**2 + parameters_of_lstm(hidden_size, inputs, outputs) - outputs) - half)


class Rememberer(nn.Module):
    """One layer, and a readout of its last `answers` outputs: W_out h_t + b_out."""

    def __init__(self, task: Task, cell: CellName, recipe: Recipe) -> None:
        super().__init__()
        H = recipe.hidden_size if cell == "lstm" else equal_rnn(recipe.hidden_size, task.inputs, task.outputs)
        kind = cell_type("rnn" if cell == "irnn" else cell)
        self.layer = Recurrent(
            stack(kind, task.inputs, H, 1, 1, **({"nonlinearity": "relu"} if cell == "irnn" else {}))
        )
        own: Any = self.layer.cells[0][0]
        own.initialise("orthogonal")  # W; U is Glorot's, b zero
        if cell == "lstm":
            # b_f = log U(1, T_max - 1), b_i = -b_f: unit j forgets in about as many steps as its draw says.
            b_f = torch.empty(H).uniform_(1, max(2.0, task.steps - 1.0)).log()
            own.set_bias("f", b_f)
            own.set_bias("i", -b_f)
        elif cell == "irnn":
            nn.init.eye_(own.W)
        self.W_out = nn.Parameter(torch.randn(task.outputs, H) / math.sqrt(H))
        self.b_out = nn.Parameter(torch.zeros(task.outputs))
        self.task = task

    def forward(self, x: Tensor) -> Tensor:
        """(T, B, …) -> (answers, B, C)."""
        h: Tensor = self.layer(x)[0]
        return h[-self.task.answers :] @ self.W_out.T + self.b_out

    def backward(self, x: Tensor, y: Tensor, lengths: Tensor | None = None) -> Tensor:
        """The task's mean loss of a batch with targets y (answers, B); its gradients go into the parameters."""
        loss = self.task.loss(self(x), y)
        loss.backward()
        return loss.detach()


class Stream:
    """Fresh sequences of a task without end, as `unroll.training.fit` takes them; an epoch is so many batches."""

    validation = None
    encoder = None

    def __init__(self, task: Task, seed: int, batches: int) -> None:
        self._task, self._batches = task, batches
        self._generator = torch.Generator().manual_seed(seed)

    def steps(self, batch_size: int) -> int:
        return self._batches

    def epoch(self, batch_size: int, generator: torch.Generator, shuffle: bool, augment: bool) -> Iterator[Batch]:
        for _ in range(self._batches):
            yield Batch(*self._task.batch(batch_size, self._generator), None)


class Test(Callback):
    """Test after every epoch, and stop where the task is solved."""

    def __init__(self, task: Task, seed: int) -> None:
        self._task = task
        self._x, self._y = task.batch(2000, torch.Generator().manual_seed(2**40 + seed), "test")
        self.seen, self.right, self.best = 0, 0.0, 0.0

    def on_step(self, training: Training, step: int, loss: float) -> None:
        self.seen += training.settings.batch_size

    def on_epoch(self, training: Training, row: dict[str, Any]) -> None:
        with torch.no_grad():
            theta = training.optimizer.theta
            outputs = torch.cat([training.model(part.to(theta.device)).cpu() for part in self._x.split(500, 1)], 1)
        self.right = self._task.right(outputs, self._y)
        self.best = max(self.best, self.right)
        training.stop |= self.right >= self._task.solved


def learn(
    task: Task,
    cell: CellName,
    recipe: Recipe,
    seed: int = 0,
    held_open: Removal | None = None,
    device: DeviceName = "cpu",
) -> dict[str, Any]:
    """Train until the task is solved on fresh sequences or the recipe's number of sequences is used up.

    Args:
        held_open: a gate of the LSTM, i, f or o, that is 1 for good.
        device: where to train; the models are small, and the CPU has kernels for them.

    Returns:
        ``solved``; ``diverged``: the loss became infinite, and training ended there; ``sequences`` seen until then (or
        all); ``right``: the share at the last test; ``best``: the best; ``parameters``; ``seconds``.
    """
    began = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Rememberer(task, cell, recipe)
    if held_open is not None:
        hold_open(model.layer.cells[0][0], held_open)
    steps = recipe.sequences // recipe.batch_size
    every = min(steps, max(1, 2000 // recipe.batch_size))
    peak = recipe.learning_rate
    settings = Settings(
        epochs=math.ceil(steps / every),
        batch_size=recipe.batch_size,
        optimizer="adam",
        learning_rate=peak,
        schedule=partial(cosine, floor=0.1 * peak),
        max_norm=recipe.max_norm,
        device=device,
    )
    test, diverged = Test(task, seed), False
    try:
        fit(model, Stream(task, seed, every), settings, [KeepOpen(held_open), test])
    except TrainingError:
        diverged = True
    return {
        "task": task.name,
        "length": task.length,
        "cell": cell,
        "seed": seed,
        "solved": not diverged and test.right >= task.solved,
        "diverged": diverged,
        "sequences": test.seen,
        "right": test.right,
        "best": test.best,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": round(time.perf_counter() - began, 2),
    }


_RESULT: dict[str, type] = {
    **dict.fromkeys(("task", "cell"), str),
    **dict.fromkeys(("length", "seed", "sequences", "parameters"), int),
    **dict.fromkeys(("solved", "diverged"), bool),
    **dict.fromkeys(("right", "seconds"), float),
}


def measure(
    todo: Sequence[tuple[Task, CellName, Recipe, int]],
    file: Path,
    progress: Progress = iter,
    device: DeviceName = "cpu",
) -> list[dict[str, Any]]:
    """The results of `learn` for all that `plan` gave; what the JSON file holds is not trained again.

    Raises:
        InputError: the file holds something else, or what an older version wrote.
    """
    names = ("task", "length", "cell", "seed")
    return Trials(file, names, _RESULT).complete(
        todo,
        lambda one: dict(zip(names, (one[0].name, one[0].length, one[1], one[3]), strict=True)),
        lambda one: learn(*one, device=device),
        progress,
    )


def summary(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each task, cell and length: how many seeds solved it, and the median of the sequences they needed."""
    rows, names = [], ("task", "cell", "length")
    for key in dict.fromkeys(tuple(r[name] for name in names) for r in results):
        same = [r for r in results if tuple(r[name] for name in names) == key]
        solved = [r["sequences"] for r in same if r["solved"]]
        row = {
            **dict(zip(names, key, strict=True)),
            "seeds": len(same),
            "solved": len(solved),
            "diverged": sum(r["diverged"] for r in same),
            "sequences": float(np.median(solved)) if solved else None,
            "right": float(np.median([r["right"] for r in same])),
            "parameters": same[0]["parameters"],
            "seconds": float(np.median([r["seconds"] for r in same])),
        }
        rows.append(row)
    return rows


def plan(tasks: Sequence[str], lengths: Sequence[int], seeds: int) -> list[tuple[Task, CellName, Recipe, int]]:
    """What is to be trained, the short before the long.

    Args:
        tasks: names; empty: all.
        lengths: empty: growing ones, each task's own.

    Raises:
        InputError: an unknown task, a length that makes no sense, fewer than one seed.
    """
    if seeds < 1:
        raise InputError(f"seeds is {seeds}; expected at least 1, such as 3")
    return [
        (made, cell, RECIPES[made.name, cell], seed)
        for name in dict.fromkeys(tasks or _TASKS)
        for made in [task(name, length) for length in lengths or (_TRAINED[name][-1] if name in _TRAINED else (10,))]
        for cell in CELLS
        for seed in range(seeds)
    ]


def text_table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The rows of `summary` as cells of text."""
    table = [["task", "length", "cell", "parameters", "solved", "sequences needed", "right answers"]]
    for row in rows:
        needed = "-" if row["sequences"] is None else f"{row['sequences']:,.0f}"
        solved, right = f"{row['solved']}/{row['seeds']}", f"{100 * row['right']:.1f}%"
        diverged = f" ({row['diverged']} diverged)" if row["diverged"] else ""
        begin = [row["task"], f"{row['length']:>6}", row["cell"], f"{row['parameters']:>10,}"]
        table.append([*begin, solved, f"{needed:>16}", right + diverged])
    return table
