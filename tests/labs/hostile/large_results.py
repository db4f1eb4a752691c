"""Hands back far more than anybody needs: a model of 64 MB."""

import torch
from torch import nn

model = nn.Linear(4000, 4000)
with torch.no_grad():
    model(torch.zeros(1, 4000))
print("MADE")
