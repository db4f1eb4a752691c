"""Cells from papers, each in plain PyTorch from its equations, that the engine was not made with in mind.

One has no product with the state, one a weight of low rank and scalar gates, one two states with a time step each of their own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tests.equations.cells import Own


class IndRNN(Own):
    """Li, Li, Cook, Zhu & Gao: Independently recurrent neural network (IndRNN). CVPR 2018, eq. 2."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__(D, H, W=(H, D), u=(H,), b=(H,))

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return torch.relu(x @ self.W.T + self.u * h + self.b)


class FastGRNN(Own):
    """Kusupati et al.: FastGRNN. NeurIPS 2018, section 3.2 (both equations), low rank as in section 3.2.1: W = W1 W2ᵀ."""

    def __init__(self, D: int, H: int) -> None:
        R = max(1, H // 3)
        super().__init__(D, H, W1=(H, R), W2=(D, R), U1=(H, R), U2=(H, R), b_z=(H,), b_h=(H,), zeta=(), nu=())

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        a = x @ self.W2 @ self.W1.T + h @ self.U2 @ self.U1.T
        z = torch.sigmoid(a + self.b_z)
        new = torch.tanh(a + self.b_h)
        return (torch.sigmoid(self.zeta) * (1 - z) + torch.sigmoid(self.nu)) * new + z * h


class LEM(nn.Module):
    """Rusch, Mishra, Erichson & Mahoney: Long expressive memory for sequence modeling. ICLR 2022, eq. 3."""

    def __init__(self, D: int, H: int, dt: float = 0.7) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.dt = D, H, dt
        self.of_x, self.of_y, self.of_z = nn.Linear(D, 4 * H), nn.Linear(H, 3 * H, bias=False), nn.Linear(H, H)

    def forward(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        V = self.of_x(x).chunk(4, dim=1)
        W = self.of_y(y).chunk(3, dim=1)
        fast = self.dt * torch.sigmoid(W[0] + V[0])  # Δt_n
        slow = self.dt * torch.sigmoid(W[1] + V[1])  # Δt̄_n
        z = (1 - fast) * z + fast * torch.tanh(W[2] + V[2])
        y = (1 - slow) * y + slow * torch.tanh(self.of_z(z) + V[3])
        return y, z


PAPERS = [IndRNN, FastGRNN, LEM]
