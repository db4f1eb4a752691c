"""Leaves objects whose every use raises or lies."""

import torch
from torch import nn


class Trap:
    def __getattribute__(self, name):
        raise SystemExit(f"no {name} for you")

    def __eq__(self, other):
        raise KeyboardInterrupt

    def __hash__(self):
        raise MemoryError

    def __repr__(self):
        raise GeneratorExit

    def __bool__(self):
        raise RecursionError

    def __len__(self):
        return -1


class Model(nn.Module):
    def forward(self, x):
        return x

    @property
    def weight(self):
        raise SystemExit(3)

    def state_dict(self, *arguments, **named):
        raise KeyboardInterrupt

    def parameters(self, recurse=True):
        raise SystemExit(4)


trap, model, name = Trap(), Model(), torch.zeros(1)
names = {Trap(): 1} if False else [Trap() for _ in range(10)]
print("SET")
