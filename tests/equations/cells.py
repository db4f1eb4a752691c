"""Cells as other people write them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unroll.cells.base import Cell, as_cell


class Own(nn.Module):
    """Sizes, and parameters of normal values."""

    def __init__(self, D: int, H: int, **shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.input_size, self.hidden_size = D, H
        for name, shape in shapes.items():
            setattr(self, name, nn.Parameter(torch.randn(shape) / 2))


class LayerNormLSTM(Own):
    """Ba, Kiros & Hinton: Layer normalization. 2016, supplement, eqs. 20-22."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__(D, H, W=(4 * H, H), U=(4 * H, D), b=(4 * H,))
        self.of_h, self.of_x, self.of_c = nn.LayerNorm(4 * H), nn.LayerNorm(4 * H), nn.LayerNorm(H)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        a = self.of_h(h @ self.W.T) + self.of_x(x @ self.U.T) + self.b
        i, f, g, o = a.chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(self.of_c(c)), c


class Peephole(Own):
    """Gers & Schmidhuber: Recurrent nets that time and count. 2000."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__(D, H, p_i=(H,), p_f=(H,), p_o=(H,))
        self.gates = nn.Linear(D + H, 4 * H)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        h, c = state
        i, f, g, o = self.gates(torch.cat([x, h], dim=1)).split(self.hidden_size, dim=1)
        i = torch.sigmoid(i + self.p_i * c)
        f = torch.sigmoid(f + self.p_f * c)
        c = f * c + i * torch.tanh(g)
        return torch.sigmoid(o + self.p_o * c) * torch.tanh(c), c


class Coupled(Own):
    """f = 1 - i; weights with inputs in rows, used from the right."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__(D, H, W=(H, 3 * H), U=(D, 3 * H), b=(3, H))

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        a = (x @ self.U + h @ self.W).view(-1, 3, self.hidden_size) + self.b
        i, o = a[:, 0].sigmoid(), a[:, 2].sigmoid()
        c = torch.lerp(c, a[:, 1].tanh(), i)
        return o.mul(c.tanh()), c


class Fourth(Own):
    """Four states, three of them only handed on, one an input."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__(D, H, W=(H, H), U=(H, D))

    def forward(self, x: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        h, last, older, seen = state
        new = torch.tanh(h @ self.W.T + x @ self.U.T) + 0.5 * older + seen.mean(1, keepdim=True)
        return new, h, last, x


class Minimal(Own):
    """Only one gate, by einsum and in-place operations; a buffer; a number of its own."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__(D, H, W=(2, H, H), U=(2, H, D), scale=())
        self.register_buffer("mask", (torch.arange(H) % 3 > 0).double())

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        f = torch.einsum("bd,hd->bh", x, self.U[0])
        f += h @ self.W[0].T
        f.sigmoid_()
        n = torch.einsum("bh,kh->bk", f * h, self.W[1]).add_(x @ self.U[1].T).tanh_()
        return (1 - f) * h + f * n * self.scale * self.mask


class Odd(Own):
    """As many operations as fit into one cell."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__(D, H, p=(H,), q=())
        self.all = nn.Linear(D + H, 3 * H)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        H = self.hidden_size
        a = self.all(torch.cat([h, x], 1)).view(-1, 3, H)
        z, r, n = a.unbind(1)
        z = torch.sigmoid(z + self.p * h)
        n = nn.functional.softplus(n) * self.q + nn.functional.elu(r)
        y = (1 - z) * h + z * torch.softmax(n, -1).mul(2).add_(1)
        y = torch.where(y > 0.3, y, torch.maximum(y, h) / (1 + h.abs().mean(-1, keepdim=True)))
        y = y + x.std(1, keepdim=True) * 0.1 + a.mean(1) + torch.clamp(x[:, ::2].amax(-1), min=0.3)[:, None]
        y = y + h @ torch.exp(self.all.weight[:H, :H]).T / H + (h**2 + 1).sum(-1, True).rsqrt()
        return (
            torch.log1p(y.exp()).detach() * 0.1 + torch.minimum(y, y.cos() + torch.relu(r)) * (z - 0.5).sign() + y.sin()
        )


def own(kind: type[nn.Module], D: int, H: int) -> Cell:
    """A cell of a class above, or of torch's."""
    states = {nn.LSTMCell: (H, H), Peephole: (H, H), Fourth: (H, H, H, D)}.get(kind)
    return as_cell(kind(D, H), states)


KINDS = [LayerNormLSTM, Peephole, Coupled, Fourth, Minimal, Odd, nn.RNNCell, nn.GRUCell, nn.LSTMCell]
