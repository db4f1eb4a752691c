# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A cell of one's own
#
# Write one time step in plain PyTorch, look at its equations, train it on MNIST's rows, measure its speed. Within five minutes on
# two cores; the training takes most of them. Nothing is downloaded: MNIST comes with the package.

# %% tags=["parameters"]
CHANGES: dict = {"epochs": 2}  # any field of the recipe lstm-mnist, for instance {"epochs": 5, "hidden_size": 64}
REPEATS = 20  # passes that are timed

# %%
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # torch's waiting threads leave the cores to others; as `unroll` does

import torch
from IPython.display import Image
from torch import nn

import unroll
from unroll.report.figures import save_figure
from unroll.report.insight import draw_look
from unroll.training.callbacks import Listener
from unroll.training.evaluate import evaluated
from unroll.training.fit import Settings, fit
from unroll.training.recipe import load_recipe
from unroll.training.tasks import load_dataset

# %% [markdown]
# ## 1. The cell
#
# One gate $z$ decides what share of each unit is replaced. A step gets $x_t$ (B, D) and $h_{t-1}$ (B, H), and returns $h_t$.


# %%
class MyCell(nn.Module):
    def __init__(self, D, H):
        super().__init__()
        self.input_size, self.hidden_size = D, H
        self.gate = nn.Linear(D + H, H)
        self.candidate = nn.Linear(D + H, H)

    def forward(self, x, h):
        xh = torch.cat([x, h], dim=1)
        z = torch.sigmoid(self.gate(xh))
        n = torch.tanh(self.candidate(xh))
        return (1 - z) * h + z * n


# %% [markdown]
# The step is read, and becomes data: a small program that the compiled engine runs. Printed, it is formulas in your own names.

# %%
print(unroll.equations.read(unroll.as_cell(MyCell(28, 128))))

# %% [markdown]
# ## 2. A layer, and whether it is right
#
# `Recurrent` scans the cell over time. The engine `reference` is the plain loop under autograd; the other one must give the same
# outputs and the same gradients.

# %%
torch.manual_seed(0)
cell, x = MyCell(28, 128), torch.randn(28, 64, 28)  # x (T, B, D)
found = {}
for engine in ("reference", "native"):
    cell.zero_grad()
    outputs, _ = unroll.Recurrent(cell, engine=engine)(x)
    outputs.square().mean().backward()
    found[engine] = [outputs.detach(), *(p.grad.clone() for p in cell.parameters())]
difference = max((a - b).abs().max().item() for a, b in zip(*found.values(), strict=True))
print(f"largest difference of outputs and gradients: {difference:.1e}")
assert difference < 1e-5

# %% [markdown]
# ## 3. Training
#
# A picture is a sequence: row $t$ of its pixels is $x_t$, $T = 28$ and $D = 28$. Optimiser, learning rate and
# batches are those of the recipe `lstm-mnist`; its label smoothing and weight averaging are left out.

# %%
recipe = load_recipe("lstm-mnist", CHANGES)
data = load_dataset(recipe)
torch.manual_seed(0)
model = unroll.SequenceClassifier(MyCell, 28, recipe.hidden_size, 10)
began = time.perf_counter()
fit(model, data, Settings.of(recipe), [Listener(lambda row: print(f"Epoch {row['epoch']}: loss {row['loss']:.4f}"))])
print(f"{time.perf_counter() - began:.0f} s")

test = evaluated(model, data.test, data.encoder)
low, high = test["interval95"]
print(f"Test Accuracy: {100 * test['accuracy']:.2f}%  (95% interval {100 * low:.2f}% to {100 * high:.2f}%)")

# %% [markdown]
# ## 4. What the gate does
#
# Everything that you have given a name, while one test picture is read row by row:

# %%
picture = data.encoder.features(data.test.values[:1])  # (T, 1, D)
seen = unroll.trace(model, picture)
figure = draw_look(seen, None, picture=True, truth=str(data.test.y[0].item()))
Image(save_figure(figure, Path(tempfile.mkdtemp()) / "look"), width=760)

# %% [markdown]
# ## 5. Its speed
#
# Forward and backward, against the plain loop. Numbers are worth something only if nothing else runs on the machine.

# %%
times = {}
for engine in ("reference", "native"):
    layer = unroll.Recurrent(cell, engine=engine)
    seconds = []
    for _ in range(REPEATS + 2):
        began = time.perf_counter()
        layer(x)[0].sum().backward()
        seconds.append(time.perf_counter() - began)
    times[engine] = sorted(seconds[2:])[REPEATS // 2]  # the median, after two to warm up
    print(f"{engine}: {1000 * times[engine]:.2f} ms")
print(f"{times['reference'] / times['native']:.1f} times as fast as the loop")

# %% [markdown]
# ## 6. When a cell cannot be read
#
# Then the plain loop runs it, with the same numbers. `explain` says which engine would run it, and why not the other:


# %%
class Noisy(MyCell):
    def forward(self, x, h):
        return super().forward(x, h + 0.1 * torch.randn_like(h))


name, why = unroll.engines.explain("auto", unroll.as_cell(Noisy(28, 128)), x)
print(f"{name} engine: {why.split(': ', 1)[1]}")

# %% [markdown]
# Random numbers that a cell needs are drawn before the scan, as by the wrappers `Zoneout`, `VariationalDropout` and
# `RecurrentDropout`:

# %%
zoned = unroll.cells.Zoneout(MyCell(28, 128), 0.1)
print(unroll.engines.explain("auto", zoned, x)[0], "engine:")
print(unroll.equations.read(zoned))

# %% [markdown]
# From the shell the same cell, in a file: `unroll train lstm-mnist --cell my_cell.py:MyCell`. What a run then
# carries, what a step may do, and reports and ONNX: docs/own-cell.md.
