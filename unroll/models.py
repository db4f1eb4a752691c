"""The classifier: inputs -> recurrent layers -> logits = W_out h_T + b_out."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

from unroll.cells import Cell, LSTMCell
from unroll.cells.rnn import Nonlinearity
from unroll.engines import EngineName, choose, native
from unroll.engines.step import readout_gradients, readout_loss
from unroll.errors import InputError
from unroll.layers import LSTM, RNN

CellName = Literal["rnn", "lstm"]
Pooling = Literal["last", "mean", "max"]


_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _is_plain(parameter: Tensor | None) -> bool:
    """Whether it wants a gradient that is nobody's business but its own: no hook, and no other tensor that it is made from."""
    if type(parameter) is not nn.Parameter or not parameter.requires_grad:
        return False
    return not (parameter._backward_hooks or parameter._post_accumulate_grad_hooks)


class SequenceClassifier(nn.Module):
    """Reads a sequence, then names its class.

        h_1 … h_T = layers(x_1 … x_T)
        logits = W_out h_T + b_out

    In two directions h_T is the last state of either walk, side by side. With `pooling` ``"mean"`` or ``"max"`` the
    mean or maximum of h_t over all time steps takes the place of h_T.

    Args:
        cell: ``"rnn"`` or ``"lstm"``.
        input_size: D features, or V words where the inputs are word indices.
        hidden_size: H units in every layer and direction.
        num_classes: C.
        embedding_size: for word indices, read rows of a learnt (V, E) table in the place of one-hot vectors.
        dropout: share of values dropped, in training, between layers, from embedded words and from what the readout
            reads.
    """

    def __init__(
        self,
        cell: CellName,
        input_size: int,
        hidden_size: int,
        num_classes: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        embedding_size: int | None = None,
        pooling: Pooling = "last",
        nonlinearity: Nonlinearity = "tanh",
        engine: EngineName = "auto",
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise InputError(f"num_classes is {num_classes}, but a classifier needs at least 2 classes")
        self.dropout = dropout
        self.pooling = pooling
        self.embedding = None if embedding_size is None else nn.Parameter(torch.empty(input_size, embedding_size))
        width = input_size if embedding_size is None else embedding_size
        self.engine = engine
        self.layers: LSTM | RNN
        if cell == "lstm":
            self.layers = LSTM(
                width, hidden_size, num_layers, dropout=dropout, bidirectional=bidirectional, engine=engine
            )
        else:
            self.layers = RNN(
                width,
                hidden_size,
                num_layers,
                nonlinearity,
                dropout=dropout,
                bidirectional=bidirectional,
                engine=engine,
            )
        features = hidden_size * self.layers.directions
        self.W_out = nn.Parameter(torch.empty(num_classes, features))
        self.b_out = nn.Parameter(torch.empty(num_classes))
        self.initialise("uniform")

    @torch.no_grad()
    def initialise(self, how: str, forget_bias: float | None = None) -> None:
        """Draw all parameters anew, in the order W, U, b of each cell, W_out, b_out, embedding.

        `how` is explained at `CellParameters.initialise`; the readout follows suit: uniform with bound 1/√fan-in for
        ``uniform`` and ``linear``; for ``normal`` N(0, 1)/√fan-in, for ``orthogonal`` Glorot uniform, both with zero
        bias. Embedded words are drawn from N(0, 0.1²).
        """
        for cells in self.layers.cells:
            for cell in cells:
                cell.initialise(how)
                if forget_bias is not None and isinstance(cell, LSTMCell):
                    cell.set_forget_bias(forget_bias)
        bound = 1 / math.sqrt(self.W_out.shape[1])
        if how == "normal":
            self.W_out.normal_().mul_(bound)
            self.b_out.zero_()
        elif how == "orthogonal":
            nn.init.xavier_uniform_(self.W_out)
            self.b_out.zero_()
        else:
            self.W_out.uniform_(-bound, bound)
            self.b_out.uniform_(-bound, bound)
        if self.embedding is not None:
            self.embedding.normal_(std=0.1)

    def forward(
        self, x: Float[Tensor, "T B D"] | Integer[Tensor, "T B"], lengths: Integer[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B C"]:
        """x (T, B, D) features or (T, B) word indices, lengths (B,) or None -> logits (B, C)."""
        return torch.addmm(self.b_out, self.represent(x, lengths), self.W_out.T)  # h W_outᵀ + b_out

    def loss(
        self,
        x: Float[Tensor, "T B D"] | Integer[Tensor, "T B"],
        y: Integer[Tensor, " B"],
        lengths: Integer[Tensor, " B"] | None = None,
        class_weights: Float[Tensor, " C"] | None = None,
        label_smoothing: float = 0.0,
        total: float | None = None,
    ) -> Float[Tensor, ""]:
        """The mean cross-entropy of a batch whose classes are y (B,): `forward` and its loss in one.

        `unroll.engines.step.readout_loss` has the equation and the other arguments.
        """
        h = self.represent(x, lengths)
        reference = self.engine == "reference"
        return readout_loss(
            h, self.W_out, self.b_out, y, class_weights, label_smoothing, total=total, reference=reference
        )

    @torch.no_grad()
    def backpropagate(
        self,
        x: Float[Tensor, "T B D"] | Integer[Tensor, "T B"],
        y: Integer[Tensor, " B"],
        lengths: Integer[Tensor, " B"] | None = None,
        class_weights: Float[Tensor, " C"] | None = None,
        label_smoothing: float = 0.0,
    ) -> Float[Tensor, ""]:
        """The `loss` of a batch; its gradients are added to the parameters', as ``loss(...).backward()`` does.

        Where only a walk of the native engine lies between x and the readout, as in the LSTM lab, that engine goes there and
        back without a recorded graph: recording takes longer than all arithmetic beside the walk. Loss and gradients are the
        same to the bit.
        """
        cell = self._only_cell(x)
        if cell is None:
            with torch.enable_grad():
                loss = self.loss(x, y, lengths, class_weights, label_smoothing)
                loss.backward()
            return loss.detach()
        self.layers._check_input(x)
        walked = native.walk_there(cell, x, self.layers._check_lengths(lengths, *x.shape[:2]))
        loss, (d_h, *of_readout) = readout_gradients(
            walked.h, self.W_out, self.b_out, y, class_weights, label_smoothing
        )
        parameters = (cell.W, cell.U, cell.b, self.W_out, self.b_out)
        for parameter, gradient in zip(parameters, (*native.walk_back(walked, d_h), *of_readout), strict=True):
            assert parameter is not None and gradient is not None  # noqa: PT018 - or `_only_cell` had found none
            if parameter.grad is None:
                parameter.grad = gradient
            else:
                parameter.grad.add_(gradient)
        return loss

    def _only_cell(self, x: Tensor) -> Cell | None:
        """The cell, if a walk of the native engine over features is all that comes before the readout, and nobody listens in."""
        layers = self.layers
        if type(self) is not SequenceClassifier or type(layers) not in (LSTM, RNN):
            return None
        cell: Cell = layers.cells[0][0]
        alone = (
            len(layers.cells) == layers.directions == 1
            and not layers.batch_first
            and self.pooling == "last"
            and not (self.training and self.dropout)
            and x.is_floating_point()
            and x.dim() == 3
            and x.shape[0] > 0
            and not x.requires_grad
            and not any(getattr(layers, hooks) for hooks in _HOOKS)
            and not _has_any_global_hook()
            and all(_is_plain(p) for p in (cell.W, cell.U, cell.b, self.W_out, self.b_out))
            and self.engine != "reference"
            and choose(layers.engine, cell, x) == "native"
            and not (native.recorded(x) or torch.is_autocast_enabled("cpu"))
            and not (torch.is_anomaly_enabled() or torch.is_inference_mode_enabled())
        )
        return cell if alone else None

    def represent(
        self, x: Float[Tensor, "T B D"] | Integer[Tensor, "T B"], lengths: Integer[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B F"]:
        """What the readout reads of the batch: the pooled hidden states (B, H·directions)."""
        if self.embedding is not None:
            x = nn.functional.embedding(x, self.embedding)  # (T, B, E)
            x = nn.functional.dropout(x, self.dropout, self.training)
        outputs, state = self.layers(x, lengths=lengths)
        h = self._pool(outputs, state[0] if isinstance(state, tuple) else state, lengths)
        return nn.functional.dropout(h, self.dropout, self.training)

    def _pool(self, outputs: Tensor, h_n: Tensor, lengths: Tensor | None) -> Tensor:
        """outputs (T, B, H·directions), h_n (layers·directions, B, H) -> (B, H·directions)."""
        if self.pooling == "last":
            directions = self.layers.directions
            top = h_n if len(h_n) == directions else h_n[-directions:]
            return top.transpose(0, 1).flatten(1)
        if lengths is None:
            return outputs.mean(0) if self.pooling == "mean" else outputs.amax(0)
        steps = lengths.to(outputs.device)
        if self.pooling == "mean":  # the outputs are zero beyond a sequence's length
            return outputs.sum(0) / steps.clamp(min=1)[:, None]
        padding = torch.arange(outputs.shape[0], device=outputs.device)[:, None] >= steps  # (T, B)
        return outputs.masked_fill(padding[:, :, None], -torch.inf).amax(0)
