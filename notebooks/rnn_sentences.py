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
# # A vanilla RNN that reads two sentences word by word
#
# *The movie is good* is class 1, *The movie is bad* class 0. A network with two hidden units learns to tell them apart.
# Run the cells from top to bottom; it takes seconds.

# %% tags=["parameters"]
EPOCHS = 300
LEARNING_RATE = 0.1
RUN = None  # folder to train into; None: a temporary one

# %%
import inspect
import os
import tempfile
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # torch's waiting threads leave the cores to others; as `unroll` does

import torch
from IPython.display import Image
from torch.nn.functional import cross_entropy, one_hot

from unroll import RNNCell, load
from unroll.insight.bptt import backward
from unroll.report.figures import draw_figures
from unroll.training.facts import facts
from unroll.training.recipe import load_recipe
from unroll.training.run import RunFolder
from unroll.training.tasks import first_model, load_dataset
from unroll.training.train import train

# %% [markdown]
# ## 1. Words as one-hot vectors
#
# The vocabulary has five words, so word $t$ is a vector $x_t \in \mathbb{R}^5$ with a single 1 in it.

# %%
recipe = load_recipe("rnn-sentences", {"epochs": EPOCHS, "learning_rate": LEARNING_RATE})
dataset = load_dataset(recipe)
encoder = dataset.encoder
print("vocabulary:", encoder.words)

sentences = [(words, int(y)) for words, y in zip(dataset.train.values, dataset.train.y, strict=True)]
for words, y in sentences:
    print(encoder.words_of(words), "class", y)
print(one_hot(sentences[0][0], len(encoder.words)))

# %% [markdown]
# ## 2. The cell
#
# $$s_t = \tanh(W s_{t-1} + U x_t + b)$$
#
# and after the last word $z = W_{\text{out}} s_T + b_{\text{out}}$, one number for each class. As code:

# %%
print(inspect.getsource(RNNCell.forward))

# %% [markdown]
# Two hidden units before any training, word by word:

# %%
model = first_model(recipe, encoder)
cell = model.layers.cells[0][0]
s = cell.initial_state(1)
for word in sentences[0][0]:
    s = cell(word[None], s)
    print(f"{encoder.words[int(word)]:6}", [round(value, 4) for value in s[0].tolist()])

# %% [markdown]
# ## 3. Training by hand
#
# After every sentence each parameter moves a little against its gradient, and the gradient is set back to zero:
#
# $$p \leftarrow p - \eta \, \frac{\partial \mathcal{L}}{\partial p}$$

# %%
for epoch in range(1, EPOCHS + 1):
    total = 0.0
    for words, y in sentences:
        loss = cross_entropy(model(words[:, None]), torch.tensor([y]))
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= LEARNING_RATE * p.grad
                p.grad = None
        total += loss.item()
    if epoch % 50 == 0:
        print(f"Epoch [{epoch}/{EPOCHS}] - Loss: {total:.4f}")

# %% [markdown]
# Where do the gradients come from? Backpropagation through time, formula by formula, without autograd:

# %%
print(inspect.getsource(backward))

# %% [markdown]
# ## 4. The same with the package
#
# It prints the same losses, to the last digit, and keeps what is needed to draw and to predict.

# %%
folder = RunFolder.create(RUN or Path(tempfile.mkdtemp()) / "run", recipe, facts())
metrics = train(recipe, folder)
draw_figures(folder)
Image(folder.path / "figures" / "loss.png", width=620)

# %% [markdown]
# ## 5. What the hidden state represents
#
# With two units the hidden state is a point in the plane. Its path, word by word, before and after training; the tint
# is the class that the readout would give at each point. As long as the words are the same, so are the points: $s_t$ is
# what the network keeps of the words so far. The last word takes them to different sides of the line.

# %%
Image(folder.path / "figures" / "paths.png", width=820)

# %% [markdown]
# ## 6. Why RNNs are hard to train
#
# The gradient has to pass every step on its way back: each multiplies it by $W^\top \operatorname{diag}(1 - s_t^2)$.
# Here is what is left of $\lVert \partial \mathcal{L} / \partial s_t \rVert$ after many words of a network like this one,
# for recurrent weights of different sizes.

# %%
torch.manual_seed(0)
steps = 40
for scale in (0.5, 1.0, 2.0):
    cell = RNNCell(5, 16)
    with torch.no_grad():
        torch.nn.init.orthogonal_(cell.W).mul_(scale)
        cell.U.mul_(0.1)
    states = [cell.initial_state(1).requires_grad_()]
    for t in range(steps):
        states.append(cell(torch.tensor([t % 5]), states[-1]))
    gradients = torch.autograd.grad(states[-1].sum(), states)
    shown = "  ".join(f"{steps - t:2} back: {gradients[t].norm():.1e}" for t in (steps, steps - 10, steps - 20, 0))
    print(f"W scaled to {scale}:  {shown}")

# %% [markdown]
# ## 7. Using it

# %%
classifier = load(folder.path)
for text in ("The movie is good", "The movie is bad"):
    prediction = classifier.predict([text])[0]
    print(f"Sentence: {text.split()} -> Prediction: {prediction.label} ({100 * prediction.probability:.1f}%)")
