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
# # An LSTM that reads handwritten digits row by row
#
# From the equations to ten digits with their labels. Run the cells from top to bottom; the training takes about a
# minute on two cores. Nothing is downloaded: MNIST comes with the package.

# %% tags=["parameters"]
RECIPE = "lstm-mnist"  # `unroll recipes` lists the others: lstm-mnist-template, lstm-mnist-tuned, …
CHANGES: dict = {}  # any field of the recipe, for instance {"hidden_size": 64, "epochs": 2}
RUN = None  # folder to train into; None: a temporary one

# %%
import inspect
import os
import tempfile
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # torch's waiting threads leave the cores to others; as `unroll` does

import torch
from IPython.display import Image

from unroll import LSTM, LSTMCell, load
from unroll.report.figures import draw_figures
from unroll.training.facts import facts
from unroll.training.recipe import dump_recipe, load_recipe
from unroll.training.run import RunFolder
from unroll.training.tasks import load_dataset
from unroll.training.train import train

# %% [markdown]
# ## 1. The data
#
# An image is a sequence: row $t$ of its pixels is $x_t$. With 28 rows of 28 pixels, $T = 28$ and $D = 28$.

# %%
recipe = load_recipe(RECIPE, CHANGES)
dataset = load_dataset(recipe)
print(f"{len(dataset.train):,} training images, {len(dataset.test):,} test images")

values, _ = dataset.train.take(torch.arange(64))
x = dataset.encoder.features(values)  # (T, B, D): time first
T, B, D = x.shape
print(f"A batch: T = {T} rows, B = {B} images, D = {D} pixels a row; mean {x.mean():.2f}, deviation {x.std():.2f}")

# %% [markdown]
# ## 2. The cell
#
# $$\begin{aligned}
# i_t &= \sigma(W_i h_{t-1} + U_i x_t + b_i) && \text{input gate} \\
# f_t &= \sigma(W_f h_{t-1} + U_f x_t + b_f) && \text{forget gate} \\
# \tilde{c}_t &= \tanh(W_c h_{t-1} + U_c x_t + b_c) && \text{candidate} \\
# o_t &= \sigma(W_o h_{t-1} + U_o x_t + b_o) && \text{output gate} \\
# c_t &= f_t \odot c_{t-1} + i_t \odot \tilde{c}_t && \text{cell state} \\
# h_t &= o_t \odot \tanh(c_t) && \text{hidden state}
# \end{aligned}$$
#
# The same as code, with the four blocks of weights stacked in $W$, $U$ and $b$:

# %%
print(inspect.getsource(LSTMCell.equations))

# %% [markdown]
# One step, and then all of them, by hand:

# %%
torch.manual_seed(0)
cell = LSTMCell(input_size=D, hidden_size=4)
h, c = cell.initial_state(B)
gates = cell.equations(x[0], h, c)
print("f_1 of the first image:", gates.f[0].tolist())

for t in range(T):
    h, c = cell(x[t], (h, c))
print("h_T of the first image:", h[0].tolist())

# %% [markdown]
# Is it right? `torch.nn.LSTM` with the same weights must give the same numbers.

# %%
ours = LSTM(input_size=D, hidden_size=4)
theirs = ours.to_torch()
difference = (ours(x)[0] - theirs(x)[0]).abs().max().item()
print(f"largest difference over all {T} steps: {difference:.1e}")
assert difference < 1e-5

# %% [markdown]
# ## 3. Training
#
# Everything that the run depends on is in its recipe:

# %%
print(dump_recipe(recipe))

# %%
folder = RunFolder.create(RUN or Path(tempfile.mkdtemp()) / "run", recipe, facts())
metrics = train(recipe, folder)
draw_figures(folder)
print(f"{metrics['seconds']['training']:.0f} s for {metrics['parameters']:,} parameters")

# %%
Image(folder.path / "figures" / "loss.png", width=620)

# %% [markdown]
# ## 4. The test
#
# The interval says how far the accuracy might be off because the test set is finite.

# %%
test = metrics["test"]
low, high = test["interval95"]
print(f"Test Accuracy: {100 * test['accuracy']:.2f}%  (95% interval {100 * low:.2f}% to {100 * high:.2f}%)")
for name, row in test["per_class"].items():
    print(f"  {name}: {row['correct']} of {row['total']}")

# %%
Image(folder.path / "figures" / "confusion.png", width=520)

# %% [markdown]
# Ten test digits, one of each class, with true and predicted labels:

# %%
Image(folder.path / "figures" / "digits.png", width=620)

# %% [markdown]
# ## 5. Looking inside
#
# What the gates do while one test digit is read, row by row, and when the network knew which digit it is:

# %%
from unroll.insight.look import look
from unroll.report.figures import save_figure
from unroll.report.insight import draw_look

seen = look(folder.path)
figure = draw_look(seen.trace, seen.words, seen.picture, seen.truth)
Image(save_figure(figure, folder.path / "figures" / "look"), width=760)

# %% [markdown]
# ## 6. Using it

# %%
classifier = load(folder.path)
pictures, _ = dataset.test.take(torch.arange(5))
for prediction, truth in zip(classifier.predict(list(pictures)), dataset.test.y[:5].tolist(), strict=True):
    print(f"true {truth}, predicted {prediction.label} with probability {prediction.probability:.3f}")

# %% [markdown]
# The report of this run as a PDF, with everything above:

# %%
from unroll.report.document import report
from unroll.report.pdf import write_pdf

print(write_pdf(report(folder), folder.path / "report.pdf"))
