"""Models: embedding -> recurrent layers -> head, z = W_out h + b_out."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any, get_args

import torch
from jaxtyping import Float, Integer
from torch import Tensor, nn

from unroll.cells import cell_type
from unroll.cells.base import parts
from unroll.cells.parameters import Initialisation
from unroll.engines import EngineName, choose
from unroll.errors import InputError, nearest
from unroll.heads import Classification, Head, Pooling, pool
from unroll.layers import Recurrent, stack


class SequenceModel(nn.Module):
    """Reads a sequence, then says what its head is trained to say.

        h_1 … h_T = layers(x_1 … x_T)
        z = W_out h + b_out

    h is h_T, or what the head's pooling makes of h_1 … h_T. In two directions the states of both scans stand side by side.

    Args:
        cell: name of the cell, such as ``"lstm"``, or what makes one from D and H: a class whose instances compute one step,
            see `unroll.as_cell`.
        input_size: D features, or V words where the inputs are word indices.
        hidden_size: H units in every layer and direction.
        head: what the model says.
        embedding_size: for word indices, read rows of a learnt (V, E) table in the place of one-hot vectors.
        dropout: share of values dropped, in training, between layers, from embedded words and from what the readout reads.
        nonlinearity: of cells that have a choice, ``"tanh"`` or ``"relu"``.

    Raises:
        InputError: there is no such cell or engine, or a size makes no sense.
    """

    def __init__(
        self,
        cell: str | Callable[[int, int], nn.Module],
        input_size: int,
        hidden_size: int,
        head: Head,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        embedding_size: int | None = None,
        nonlinearity: str = "tanh",
        engine: EngineName = "auto",
    ) -> None:
        super().__init__()
        self.head = head
        self.dropout = dropout
        self.embedding = None if embedding_size is None else nn.Parameter(torch.empty(input_size, embedding_size))
        width = input_size if embedding_size is None else embedding_size
        kind: Any = cell_type(cell) if isinstance(cell, str) else cell
        options = {"nonlinearity": nonlinearity} if "nonlinearity" in inspect.signature(kind).parameters else {}
        cells = stack(kind, width, hidden_size, num_layers, 2 if bidirectional else 1, **options)
        self.layers = Recurrent(cells, dropout=dropout, engine=engine)
        self.W_out = nn.Parameter(torch.empty(head.outputs, self.layers.hidden_size * self.layers.directions))
        self.b_out = nn.Parameter(torch.empty(head.outputs))
        self.initialise("uniform")

    @torch.no_grad()
    def initialise(self, how: str, forget_bias: float | None = None) -> None:
        """Draw all parameters anew, in the order W, U, b of each cell, W_out, b_out, embedding.

        `how` is explained at `CellParameters.initialise`; a cell of one's own keeps what it was made with. The readout:
        uniform with bound 1/√fan-in for ``uniform`` and ``linear``; for ``normal`` N(0, 1)/√fan-in, for ``orthogonal``
        Glorot uniform, both with zero bias. Embedded words are drawn from N(0, 0.1²). `forget_bias` is the first bias of
        gate f, in cells that have it.
        """
        if how not in get_args(Initialisation):
            raise InputError(f"unknown initialisation {how!r}{nearest(how, get_args(Initialisation))}")
        for cells in self.layers.cells:
            for cell in cells:
                cell.initialise(how)
                if forget_bias is not None:
                    cell.set_bias("f", forget_bias)
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
    ) -> Float[Tensor, "B O"]:
        """x (T, B, D) features or (T, B) word indices, lengths (B,) or None -> z (B, O)."""
        return torch.addmm(self.b_out, self.represent(x, lengths), self.W_out.T)  # h W_outᵀ + b_out

    def loss(
        self,
        x: Float[Tensor, "T B D"] | Integer[Tensor, "T B"],
        y: Tensor,
        lengths: Integer[Tensor, " B"] | None = None,
        total: float | None = None,
    ) -> Float[Tensor, ""]:
        """The head's mean loss of a batch with targets y: `forward` and its loss in one.

        Args:
            total: what to divide by, where the batch is a share of a larger one.
        """
        h = self.represent(x, lengths)
        return self.head.loss(h, self.W_out, self.b_out, y, total, self.layers.engine)

    def backward(
        self,
        x: Float[Tensor, "T B D"] | Integer[Tensor, "T B"],
        y: Tensor,
        lengths: Integer[Tensor, " B"] | None = None,
    ) -> Float[Tensor, ""]:
        """The `loss` of a batch; its gradients are added to the parameters', as ``loss(...).backward()`` does.

        Where one scan lies between x and a cross-entropy, as in the LSTM lab, an engine may compute both without a recorded
        graph, which takes longer than all arithmetic beside the scan. Loss and gradients are the same to the bit; hooks of
        modules and parameters are not called then (docs/decisions/0007).
        """
        found = self._by_engine(x, y, lengths)
        if found is None:
            recorded = self.loss(x, y, lengths)
            recorded.backward()
            return recorded.detach()
        loss, gradients = found
        for parameter, gradient in gradients:
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        return loss

    def _by_engine(
        self, x: Tensor, y: Tensor, lengths: Tensor | None
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]] | None:
        """What the engine's ``gradients`` gives, where one scan, its last state and a cross-entropy are all there is."""
        layers, cross_entropy = self.layers, self.head.cross_entropy
        alone = (
            type(layers) is Recurrent
            and type(self).represent is SequenceModel.represent
            and layers.num_layers == layers.directions == 1
            and self.head.pooling == "last"
            and not (self.training and self.dropout)
            and x.dim() == 3
        )
        if not alone or cross_entropy is None:
            return None
        cell, (weights, smoothing) = layers.cells[0][0], cross_entropy
        layers.check_input(x)
        lengths = layers.check_lengths(lengths, *x.shape[:2])
        weights = None if weights is None else weights.to(x)
        by_engine: Any = choose(layers.engine, cell, x).gradients
        return by_engine(cell, x, lengths, self.W_out, self.b_out, y, weights, smoothing)  # type: ignore[no-any-return]

    def represent(
        self, x: Float[Tensor, "T B D"] | Integer[Tensor, "T B"], lengths: Integer[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B F"]:
        """What the readout reads of the batch: the pooled hidden states (B, H·directions)."""
        if self.embedding is not None:
            x = nn.functional.embedding(x, self.embedding)  # (T, B, E)
            x = nn.functional.dropout(x, self.dropout, self.training)
        outputs, state = self.layers(x, lengths=lengths)
        h_n = parts(state)[0]  # (layers·directions, B, H)
        top = h_n if len(h_n) == self.layers.directions else h_n[-self.layers.directions :]
        h = pool(self.head.pooling, outputs, top.transpose(0, 1).flatten(1), lengths)
        return nn.functional.dropout(h, self.dropout, self.training)


class SequenceClassifier(SequenceModel):
    """A `SequenceModel` that classifies a sequence; z are the logits of C classes.

    Args:
        num_classes: C.
        pooling: what the readout reads: ``"last"`` (h_T), or the ``"mean"`` or ``"max"`` of h_t over all steps.
    """

    def __init__(
        self,
        cell: str | Callable[[int, int], nn.Module],
        input_size: int,
        hidden_size: int,
        num_classes: int,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        embedding_size: int | None = None,
        pooling: Pooling = "last",
        nonlinearity: str = "tanh",
        engine: EngineName = "auto",
    ) -> None:
        super().__init__(
            cell,
            input_size,
            hidden_size,
            Classification(num_classes, pooling),
            num_layers,
            bidirectional,
            dropout,
            embedding_size,
            nonlinearity,
            engine,
        )
