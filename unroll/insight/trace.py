"""Trace: everything a model computes at each time step.

The scan here is the cell's own `quantities`, step by step (or its step program, where it has none), so the numbers are
those of the textbook page; they equal what the engines compute while training. Nothing is drawn here
(`unroll.report.insight`), and nothing can be differentiated (`unroll.insight.gradients`).
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unroll.cells.base import Cell, State, joined, parts
from unroll.data.batches import Sequences
from unroll.equations import UnreadableError, read
from unroll.equations.terms import formulas
from unroll.errors import InputError, RunError, nearest, quoted
from unroll.files import write_atomically
from unroll.layers import Recurrent
from unroll.models import SequenceModel
from unroll.training.run import Classifier, load

Array = NDArray[Any]
DIRECTIONS = ("forward", "backward")


@dataclass(frozen=True)
class Trace:
    """What a model computed, step by step.

    Attributes:
        quantities: for every layer and direction, by names such as ``"layer0.forward.f"``, the arrays (T, B, H): of an
            LSTM i, f, c_tilde, o, c and h, of a vanilla RNN s, of a cell of one's own the values that have a formula in
            `unroll.equations`, by the author's names. Zero beyond a sequence's own length.
        p: (T, B, C) class probabilities after each step: what the model would say had the sequence ended there. None
            for layers without a readout.
        x: what the first layer read, (T, B, D) or words (T, B).
        lengths: (B,) steps of each sequence.
        class_names: of the C classes; empty where nobody named them.
    """

    quantities: Mapping[str, Array]
    p: Array | None
    x: Array
    lengths: Array
    class_names: tuple[str, ...] = ()

    @property
    def layers(self) -> int:
        return 1 + max(int(key.split(".")[0].removeprefix("layer")) for key in self.quantities)

    def __call__(self, name: str, layer: int = -1, direction: str = "forward") -> Array:
        """One quantity (T, B, H); layer -1 is the top one.

        Raises:
            InputError: there is no such quantity, layer or direction.
        """
        if layer not in range(-self.layers, self.layers):
            raise InputError(
                f"there is no layer {quoted(layer)}; expected 0 to {self.layers - 1}, counted from the input"
            )
        ways = list(dict.fromkeys(key.split(".")[1] for key in self.quantities))
        if direction not in ways:
            raise InputError(f"there is no direction {quoted(direction)}; this model reads {' and '.join(ways)}")
        if name not in self.names():
            raise InputError(f"there is no quantity {quoted(name)}{nearest(name, self.names())}")
        return self.quantities[f"layer{layer % self.layers}.{direction}.{name}"]

    def names(self) -> list[str]:
        """The quantities that each layer and direction has, in the order of the equations."""
        return [key.split(".")[2] for key in self.quantities if key.startswith("layer0.forward.")]

    def save(self, path: str | Path) -> Path:
        """Write one `.npz`: each quantity under its name, and p, x, lengths, class_names."""
        content, names = io.BytesIO(), np.array(json.dumps(self.class_names))
        p = {} if self.p is None else {"p": self.p}
        arrays = {**self.quantities, "x": self.x, "lengths": self.lengths, "class_names": names, **p}
        np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
        write_atomically(Path(path), content.getvalue())
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> Trace:
        """What `save` wrote.

        Raises:
            RunError: the file is missing, damaged or something else.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {key: file[key] for key in file.files}
            names = tuple(json.loads(str(arrays.pop("class_names"))))
            return cls(arrays, arrays.pop("p", None), arrays.pop("x"), arrays.pop("lengths"), names)
        except FileNotFoundError:
            raise RunError(f"{path} does not exist; make a trace with: unroll look RUN") from None
        except Exception:  # zipfile, zlib and NumPy each raise kinds of their own where a file is damaged
            raise RunError(f"{path} is damaged or no trace; make one with: unroll look RUN") from None


@torch.no_grad()
def trace(model: str | Path | Classifier | SequenceModel | Recurrent, x: Any, lengths: Tensor | None = None) -> Trace:
    """Every gate, state and class probability at every time step.

        LSTM: i_t, f_t, c̃_t, o_t, c_t, h_t      vanilla RNN: s_t      p_t = softmax(W_out h_t + b_out)

    p_t is what the model would say had the sequence ended after step t. With `pooling` mean or max the readout sees h_1
    … h_t pooled; in two directions the backward scan is begun anew at every t, so that p_t has seen x_1 … x_t and no
    more.

    Args:
        model: a run folder or a loaded classifier; or a `SequenceModel`, `RNN` or `LSTM` of one's own.
        x: for a run what `predict` takes: one picture (file or uint8 (T, D)), sentence or series, or a list of them;
            or, as for a model, a tensor of what it reads: (T, B, D) features or (T, B) word indices.
        lengths: (B,) steps of each sequence, with a tensor; None: all T.

    Returns:
        A `Trace`; `save` writes it to one `.npz`.

    Raises:
        InputError: x does not fit the model.
        RunError: the run holds no trained model.

    >>> from unroll import LSTM
    >>> trace(LSTM(28, 16), torch.zeros(28, 1, 28))("f").shape
    (28, 1, 16)
    """
    if isinstance(model, str | Path):
        model = load(model)
    names: tuple[str, ...] = ()
    if isinstance(model, Classifier):
        names = model.class_names
        if not isinstance(x, Tensor):
            # A sentence is a string, a picture or a series an array: only a list holds several inputs.
            inputs = list(x) if isinstance(x, Sequence) and not isinstance(x, str) else [x]
            if not inputs:
                raise InputError("the list of inputs is empty; give at least one")
            index = torch.arange(len(inputs))
            values, lengths = model.encoder.encode(inputs)
            values, lengths = Sequences(values, index, lengths).take(index)  # padded
            x = model.encoder.features(values)
        model = model.model
    elif not isinstance(model, SequenceModel | Recurrent):
        raise InputError(
            f"the model is {quoted(model)}; expected a run folder, a loaded run, or a model or layer of this package"
        )
    elif not isinstance(x, Tensor):
        raise InputError(f"x is a {type(x).__name__}; expected a tensor (T, B, D) or (T, B) of word indices")

    classifier = model if isinstance(model, SequenceModel) else None
    layers: Recurrent = model.layers if isinstance(model, SequenceModel) else model
    embedding = None if classifier is None else classifier.embedding
    h = x = x.to(next(model.parameters()).device)
    if embedding is not None or not x.is_floating_point():
        known = (layers.input_size or sys.maxsize) if embedding is None else len(embedding)
        if x.is_floating_point() or (x.numel() and (int(x.min()) < 0 or int(x.max()) >= known)):
            raise InputError(f"x holds numbers that are no word indices; expected whole numbers from 0 to {known - 1}")
        h = x if embedding is None else nn.functional.embedding(x, embedding)
    if x.dim() != (3 if x.is_floating_point() else 2):
        raise InputError(f"x has shape {tuple(x.shape)}; expected (T, B, D) features or (T, B) word indices")
    layers.check_input(h)
    T, B = x.shape[:2]
    if T == 0 or B == 0:
        raise InputError(f"x has shape {tuple(x.shape)}; expected at least one time step and one sequence")
    checked = layers.check_lengths(lengths, T, B)
    ends = torch.full((B,), T) if checked is None else checked
    running = (torch.arange(T)[:, None] < ends).to(x.device)  # (T, B)

    kept: dict[str, Array] = {}
    for layer, cells in enumerate(layers.cells):
        ways = []
        for direction, cell in zip(DIRECTIONS, cells, strict=False):
            found = quantities(cell, h, running, reverse=direction == "backward")
            kept |= {f"layer{layer}.{direction}.{name}": value.cpu().numpy() for name, value in found.items()}
            ways.append(found[cell.state_names[0]])
        h = torch.cat(ways, dim=-1)  # (T, B, H·directions)
    p = None if classifier is None else _probabilities(classifier, x, h, running).cpu().numpy()
    return Trace(kept, p, x.cpu().numpy(), ends.numpy(), names)


def quantities(cell: Cell, x: Tensor, running: Tensor, reverse: bool = False) -> dict[str, Tensor]:
    """Scan `cell` over x (T, B, …) and keep all that its equations name, each (T, B, H); zero where not `running`.

    Args:
        running: (T, B), true within each sequence's own length.
        reverse: from each sequence's last step to its first.
    """
    T, B = running.shape
    step, state = _named(cell, words=not x.is_floating_point()), cell.initial_state(B)
    steps: list[dict[str, Tensor]] = [{}] * T
    for t in reversed(range(T)) if reverse else range(T):
        now = running[t][:, None]
        found = step(x[t], state)
        new = (found[name] for name in cell.state_names)
        state = joined([torch.where(now, after, before) for after, before in zip(new, parts(state), strict=True)])
        steps[t] = {name: value * now for name, value in found.items()}
    return {name: torch.stack([step[name] for step in steps]) for name in steps[0]}


def _named(cell: Cell, words: bool) -> Callable[[Tensor, State], dict[str, Tensor]]:
    """What computes the quantities of a step: the cell's own `quantities`, or else the values that its author has named."""
    if type(cell).quantities is not Cell.quantities:
        return cell.quantities
    try:
        program = read(cell, words)
    except UnreadableError:
        return cell.quantities
    nodes, parameters = formulas(program).values, dict(cell.named_parameters())

    def step(x: Tensor, state: State) -> dict[str, Tensor]:
        values = program.step((x,), parts(state), parameters)
        new = dict(zip(cell.state_names, (values[n] for n in program.new), strict=True))
        return {name: values[n] for name, n in nodes.items()} | new

    return step


def _probabilities(model: SequenceModel, x: Tensor, h: Tensor, running: Tensor) -> Tensor:
    """(T, B, C) what the model would say after each step; zero where not running."""
    T, B = running.shape
    if model.layers.directions == 1:
        if model.head.pooling == "mean":
            h = h.cumsum(0) / torch.arange(1, T + 1, device=h.device)[:, None, None]
        elif model.head.pooling == "max":
            h = h.cummax(0).values
        logits = h @ model.W_out.T + model.b_out
    else:
        # What the backward scan brings depends on where the sequence ends: every prefix is a sequence of its own.
        was_training = model.training
        model.eval()
        ends = torch.arange(1, T + 1)
        logits = torch.stack([model(x[:, n : n + 1].expand(-1, T, *x.shape[2:]), ends) for n in range(B)], dim=1)
        model.train(was_training)
    return model.head.decode(logits) * running[:, :, None]


def decided(p: Array) -> int:
    """The step (counted from 1) after which p (T, C) names the final class and no longer changes its mind."""
    said = p.argmax(-1)
    other = np.flatnonzero(said != said[-1])
    return int(other[-1]) + 2 if len(other) else 1
