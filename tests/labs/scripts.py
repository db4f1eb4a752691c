"""Small in-class scripts of the tests' own: correct ones in unlike styles, and ones with a fault; and what runs them."""

from __future__ import annotations

import contextlib
import io
import linecache
import warnings
from typing import Any

import matplotlib
import torch

from unroll.labs.child.observe_script import ScriptRecorder

HEAD = """
import torch
import matplotlib.pyplot as plt
vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}
def word_to_onehot(word):
    x = torch.zeros(len(vocab), 1)
    x[vocab[word]] = 1.0
    return x
train_data = [(["The", "movie", "is", "good"], 1), (["The", "movie", "is", "bad"], 0)]
n, m, T = 2, len(vocab), 4
torch.manual_seed(42)
learning_rate, num_epochs = 0.1, 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []
"""
MAKE = """
W = torch.randn(n, n, requires_grad=True)
U = torch.randn(n, m, requires_grad=True)
b = torch.zeros(n, 1, requires_grad=True)
W_out = torch.randn(2, n, requires_grad=True)
b_out = torch.zeros(2, 1, requires_grad=True)
"""
TRAIN = """
for epoch in range(num_epochs):
    total = 0.0
    for sentence, label in train_data:
        s = torch.zeros(n, 1)
        for word in sentence:
            x = word_to_onehot(word)
            s = torch.tanh(W @ s + U @ x + b)
        logits = W_out @ s + b_out
        loss = loss_fn(logits.T, torch.tensor([label]))
        loss.backward()
        with torch.no_grad():
            W -= learning_rate * W.grad
            U -= learning_rate * U.grad
            b -= learning_rate * b.grad
            W_out -= learning_rate * W_out.grad
            b_out -= learning_rate * b_out.grad
            for p in (W, U, b, W_out, b_out):
                p.grad.zero_()
        total += loss.item()
    loss_history.append(total / 2)
    if (epoch + 1) % 50 == 0:
        print(f"Epoch [{epoch + 1}/{num_epochs}] - Loss: {total / 2:.4f}")
plt.plot(loss_history)
plt.show()
"""
TEST = """
print("==== Testing ====")
for sentence, _ in train_data:
    s = torch.zeros(n, 1)
    for word in sentence:
        s = torch.tanh(W @ s + U @ word_to_onehot(word) + b)
    logits = W_out @ s + b_out
    print(f"Sentence: {sentence} → Prediction: {torch.argmax(logits).item()}")
"""
RIGHT = HEAD + MAKE + TRAIN + TEST


def observe(text: str) -> dict[str, Any]:
    """What is seen of a script, run as the check runs it."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    name = "/student/lab.py"
    linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    recorder = ScriptRecorder(name, namespace)
    random, grads = torch.get_rng_state(), torch.is_grad_enabled()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        with contextlib.suppress(Exception), recorder:
            exec(compile(text, name, "exec"), namespace)
    data = recorder.data()
    plt.close("all")
    torch.set_rng_state(random)
    torch.set_grad_enabled(grads)
    return data


def changed(*pairs: tuple[str, str], text: str = RIGHT) -> str:
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


UPDATE = TRAIN[TRAIN.index("        with torch.no_grad():") : TRAIN.index("        total += loss")]
STEP = "s = torch.tanh(W @ s + U @ x + b)"
BACK = "        loss.backward()\n"

FUNCTIONS = (
    HEAD
    + """
params = {"W": torch.randn(n, n) * 0.5, "U": torch.randn(n, m) * 0.5, "b": torch.zeros(n, 1), "W_out": torch.randn(2, n),
          "b_out": torch.zeros(2, 1)}
for p in params.values():
    p.requires_grad_(True)
def step(x, s):
    return torch.tanh(params["W"].mm(s) + params["U"].mm(x) + params["b"])
def run(sentence):
    state = torch.zeros(n, 1)
    for t in range(T):
        state = step(word_to_onehot(sentence[t]), state)
    return params["W_out"].mm(state) + params["b_out"]
def train():
    for epoch in range(1, num_epochs + 1):
        for sentence, label in train_data:
            loss = loss_fn(run(sentence).view(1, -1), torch.LongTensor([label]))
            for p in params.values():
                p.grad = None
            loss.backward()
            for p in params.values():
                p.data -= learning_rate * p.grad.data
        loss_history.append(loss.item())
        if epoch % 50 == 0:
            print("Epoch", epoch, "loss", round(loss.item(), 3))
train()
plt.figure(); plt.plot(loss_history); plt.show()
with torch.no_grad():
    for sentence, label in train_data:
        print(" ".join(sentence), "label", label, "prediction", run(sentence).flatten().argmax())
"""
)
ROWS = (
    HEAD
    + """
Wxh = torch.nn.Parameter(0.1 * torch.randn(m, n))
Whh = torch.nn.Parameter(0.1 * torch.randn(n, n))
bh = torch.nn.Parameter(torch.zeros(1, n))
Why = torch.nn.Parameter(0.1 * torch.randn(n, 2))
by = torch.nn.Parameter(torch.zeros(1, 2))
def forward(sentence):
    h = torch.zeros(1, n)
    for w in sentence:
        h = (h @ Whh + word_to_onehot(w).T @ Wxh + bh).tanh()
    return h @ Why + by
for epoch in range(num_epochs):
    for sentence, label in train_data:
        loss = loss_fn(forward(sentence), torch.tensor([label]))
        grads = torch.autograd.grad(loss, [Wxh, Whh, bh, Why, by])
        with torch.no_grad():
            for p, g in zip([Wxh, Whh, bh, Why, by], grads):
                p.sub_(learning_rate * g)
        loss_history.append(loss.item())
    if epoch % 50 == 49:
        print(f"Epoch {epoch + 1}: loss = {loss_history[-1]:.5f}")
plt.plot(loss_history)
for sentence, _ in train_data:
    p = torch.softmax(forward(sentence), dim=1)
    print(sentence, "->", "positive" if p[0, 1] > p[0, 0] else "negative")
"""
)
LINEAR = (
    HEAD
    + """
in_layer = torch.nn.Linear(m, n, bias=True)
rec = torch.nn.Linear(n, n, bias=True)
out = torch.nn.Linear(n, 2)
layers = [in_layer, rec, out]
for epoch in range(num_epochs):
    epoch_loss = 0
    for sentence, label in train_data:
        s = torch.zeros(n)
        for word in sentence:
            s = torch.tanh(rec(s) + in_layer(word_to_onehot(word).squeeze()))
        loss = loss_fn(out(s).unsqueeze(0), torch.tensor([label]))
        for l in layers:
            l.zero_grad()
        loss.backward()
        with torch.no_grad():
            for l in layers:
                for p in l.parameters():
                    p.copy_(p - learning_rate * p.grad)
        epoch_loss += loss.item()
    loss_history.append(epoch_loss)
    if (epoch + 1) % 50 == 0:
        print("Epoch [%d/%d] - Loss: %.4f" % (epoch + 1, num_epochs, epoch_loss))
plt.plot(loss_history)
for sentence, _ in train_data:
    s = torch.zeros(n)
    for word in sentence:
        s = torch.tanh(rec(s) + in_layer(word_to_onehot(word).squeeze()))
    print("Sentence:", sentence)
    print("Prediction:", out(s).argmax().item())
"""
)
CLASS = (
    HEAD
    + """
class RNN:
    def __init__(self):
        self.W, self.U = torch.randn(n, n) * 0.3, torch.randn(n, m) * 0.3
        self.b, self.W_out, self.b_out = torch.zeros(n), torch.randn(2, n) * 0.3, torch.zeros(2)
        self.params = [self.W, self.U, self.b, self.W_out, self.b_out]
        for p in self.params:
            p.requires_grad = True
    def __call__(self, words):
        s = torch.zeros(n)
        for i in words:
            s = torch.tanh(self.W @ s + self.U[:, i] + self.b)
        return self.W_out @ s + self.b_out
net = RNN()
for epoch in range(num_epochs):
    for sentence, label in train_data:
        logits = net([vocab[w] for w in sentence])
        loss = torch.logsumexp(logits, 0) - logits[label]
        loss.backward()
        for p in net.params:
            with torch.no_grad():
                p.add_(p.grad, alpha=-learning_rate)
            p.grad = None
    loss_history.append(loss.item())
    if epoch % 50 == 49:
        print(f"Epoch {epoch + 1}/{num_epochs} Loss {loss.item():.3f}")
plt.plot(loss_history)
for sentence, label in train_data:
    print(f"{sentence}: prediction {int(net([vocab[w] for w in sentence]).argmax())}, label {label}")
"""
)
CONCATENATED = changed(
    (
        MAKE,
        MAKE.replace("W = torch.randn(n, n, requires_grad=True)\nU = torch.randn(n, m,", "A = torch.randn(n, n + m,"),
    ),
    (STEP, "s = torch.tanh(A @ torch.cat([s, x]) + b)"),
    ("W @ s + U @ word_to_onehot(word) + b", "A @ torch.cat([s, word_to_onehot(word)]) + b"),
    (
        "            W -= learning_rate * W.grad\n            U -= learning_rate * U.grad\n",
        "            A -= learning_rate * A.grad\n",
    ),
    ("(W, U, b, W_out, b_out)", "(A, b, W_out, b_out)"),
)
BY_HAND = (
    HEAD
    + MAKE.replace(", requires_grad=True", "")
    + """
for epoch in range(num_epochs):
    for sentence, label in train_data:
        xs = [word_to_onehot(w) for w in sentence]
        states = [torch.zeros(n, 1)]
        for x in xs:
            states.append(torch.tanh(W @ states[-1] + U @ x + b))
        logits = W_out @ states[-1] + b_out
        loss = loss_fn(logits.T, torch.tensor([label]))
        d = torch.softmax(logits, 0)
        d[label] -= 1
        ds, dW, dU, db = W_out.T @ d, torch.zeros_like(W), torch.zeros_like(U), torch.zeros_like(b)
        for t in range(3, -1, -1):
            dz = ds * (1 - states[t + 1] ** 2)
            dW += dz @ states[t].T
            dU += dz @ xs[t].T
            db += dz
            ds = W.T @ dz
        W_out -= learning_rate * d @ states[-1].T
        b_out -= learning_rate * d
        W -= learning_rate * dW
        U -= learning_rate * dU
        b -= learning_rate * db
    loss_history.append(loss.item())
    if (epoch + 1) % 50 == 0:
        print(f"Epoch [{epoch + 1}/300] - Loss: {loss.item():.4f}")
plt.plot(loss_history)
"""
    + TEST
)
ONCE_AN_EPOCH = changed(
    (UPDATE, ""),
    (
        "    loss_history.append(total / 2)\n",
        UPDATE.replace("\n    ", "\n")[4:] + "    loss_history.append(total / 2)\n",
    ),
)
SUMMED = changed(
    (BACK + UPDATE, "        both = loss if label == 1 else both + loss\n"),
    (
        "    loss_history.append(total / 2)\n",
        "    both.backward()\n" + UPDATE.replace("\n    ", "\n")[4:] + "    loss_history.append(total / 2)\n",
    ),
)
ANEW = changed(
    (
        UPDATE,
        "        W, U, b, W_out, b_out = [(p - learning_rate * p.grad).detach().requires_grad_() for p in "
        "(W, U, b, W_out, b_out)]\n",
    )
)
STYLES = {
    "as the lab": RIGHT,
    "functions and a dictionary": FUNCTIONS,
    "rows and autograd.grad": ROWS,
    "linear layers": LINEAR,
    "a class, indices, its own cross-entropy": CLASS,
    "one matrix for both": CONCATENATED,
    "gradients by hand": BY_HAND,
    "once an epoch": ONCE_AN_EPOCH,
    "one loss for both": SUMMED,
    "new tensors": ANEW,
    "float64": changed(("import torch\n", "import torch\ntorch.set_default_dtype(torch.float64)\n")),
    "another seed, small weights": changed(
        ("manual_seed(42)", "manual_seed(7)"),
        (MAKE, MAKE + "for p in (W, U, W_out):\n    p.data *= 0.01\n"),
    ),
    "eight units, another rate": changed(
        ("n, m, T = 2", "n, m, T = 8"),
        ("learning_rate, num_epochs = 0.1", "lr, num_epochs = 0.05"),
        ("learning_rate", "lr"),
    ),
    "five units": changed(("n, m, T = 2", "n, m, T = 5")),
    "a tanh of its own": changed((STEP, "s = 2 / (1 + torch.exp(-2 * (W @ s + U @ x + b))) - 1")),
    "log-softmax": changed(("loss_fn(logits.T, ", "torch.nn.functional.nll_loss(torch.log_softmax(logits.T, 1), ")),
    "a first state with a gradient": changed(
        (
            "        s = torch.zeros(n, 1)\n        for word in sentence:\n            x",
            "        s = torch.zeros(n, 1, requires_grad=True)\n        for word in sentence:\n            x",
        )
    ),
    "sentences in another order": changed(
        (
            "for sentence, label in train_data:\n        s",
            "for sentence, label in (train_data if epoch % 2 else train_data[::-1]):\n        s",
        )
    ),
    "out=": changed(("W -= learning_rate * W.grad", "torch.sub(W, learning_rate * W.grad, out=W)")),
}


ZERO = """            for p in (W, U, b, W_out, b_out):
                p.grad.zero_()
"""
RESET = "        s = torch.zeros(n, 1)\n        for word in sentence:\n            x"
GUARDED = """        for p in (W, U, b, W_out, b_out):
            if p.grad is not None:
                p.data -= learning_rate * p.grad
                p.grad.zero_()
"""
# fmt: off
# Name: check, code, and how the correct script is changed.
FAULTS: dict[str, tuple[str, str, str]] = {
    "W_out without a gradient": ("values", "rnn-no-requires-grad", changed(
        ("W_out = torch.randn(2, n, requires_grad=True)", "W_out = torch.randn(2, n)"))),
    "no parameter asks for its gradient": ("values", "rnn-no-requires-grad", changed((", requires_grad=True", ""))),
    "W is no leaf": ("values", "rnn-no-leaf", changed(
        ("W = torch.randn(n, n, requires_grad=True)", "W = 0.1 * torch.randn(n, n, requires_grad=True)"))),
    "no b": ("values", "rnn-missing", changed(("b = torch.zeros(n, 1, requires_grad=True)\n", ""),
        ("U @ x + b)", "U @ x)"), ("            b -= learning_rate * b.grad\n", ""), ("(W, U, b, ", "(W, U, "),
        ("word_to_onehot(word) + b", "word_to_onehot(word)"))),
    "flat b on columns": ("values", "rnn-shape", changed(("b = torch.zeros(n, 1,", "b = torch.zeros(n,"))),
    "one row in W_out": ("values", "rnn-shape", changed(("W_out = torch.randn(2, n,", "W_out = torch.randn(1, n,"))),
    "all zeros": ("values", "rnn-zeros", changed(("torch.randn(n, n", "torch.zeros(n, n"),
        ("torch.randn(n, m", "torch.zeros(n, m"), ("torch.randn(2, n", "torch.zeros(2, n"))),
    "state not fed back": ("forward", "rnn-no-w", changed((STEP, "s = torch.tanh(U @ x + b)"))),
    "state always zero": ("forward", "rnn-no-w", changed((STEP, "s = torch.tanh(W @ torch.zeros(n, 1) + U @ x + b)"))),
    "no words": ("forward", "rnn-no-u", changed((STEP, "s = torch.tanh(W @ s + b)"))),
    "no bias": ("forward", "rnn-no-b", changed((STEP, "s = torch.tanh(W @ s + U @ x)"))),
    "no activation": ("forward", "rnn-no-activation", changed((STEP, "s = W @ s + U @ x + b"))),
    "minus U": ("forward", "rnn-sign", changed((STEP, "s = torch.tanh(W @ s - U @ x + b)"))),
    "b outside": ("forward", "rnn-activation-place", changed((STEP, "s = torch.tanh(W @ s + U @ x) + b"))),
    "W transposed": ("forward", "rnn-w-turned", changed((STEP, "s = torch.tanh(W.T @ s + U @ x + b)"))),
    "W_out for W": ("forward", "rnn-w-mixed", changed((STEP, "s = torch.tanh(W_out @ s + U @ x + b + 0 * W @ s)"))),
    "state kept": ("forward", "rnn-state-kept", changed(
        (RESET, "        s = s.detach()\n        for word in sentence:\n            x"),
        ("num_epochs = 0.1, 300", "num_epochs = 0.1, 300\ns = torch.zeros(n, 1)"))),
    "state kept with its graph": ("forward", "rnn-state-kept", changed(
        (RESET, "        for word in sentence:\n            x"),
        ("num_epochs = 0.1, 300", "num_epochs = 0.1, 300\ns = torch.zeros(n, 1)"))),
    "three words": ("forward", "rnn-words", changed(
        ("for word in sentence:\n            x", "for word in sentence[:3]:\n            x"))),
    "backwards": ("forward", "rnn-words", changed(
        ("for word in sentence:\n            x", "for word in reversed(sentence):\n            x"))),
    "one-hot at another place": ("forward", "rnn-onehot", changed(
        ("x[vocab[word]] = 1.0", "x[vocab[word] - 1] = 1.0"))),
    "ones, not one-hot": ("forward", "rnn-onehot", changed(("x[vocab[word]] = 1.0", "x[: vocab[word] + 1] = 1.0"))),
    "the same sentence": ("forward", "rnn-same-sentence", changed(
        ("for sentence, label in train_data:\n        s", "for sentence, label in [train_data[0]] * 2:\n        s"))),
    "the mean of states": ("forward", "rnn-read", changed(
        (STEP, STEP + "\n            mean = s / 4 if word == 'The' else mean + s / 4"),
        ("W_out @ s + b_out\n        loss", "W_out @ mean + b_out\n        loss"))),
    "s_3": ("forward", "rnn-read", changed((STEP, "before = s\n            " + STEP),
        ("W_out @ s + b_out\n        loss", "W_out @ before + b_out\n        loss"))),
    "no b_out": ("forward", "rnn-no-b-out", changed(("W_out @ s + b_out\n        loss", "W_out @ s\n        loss"))),
    "softmax": ("forward", "rnn-softmax", changed(("loss_fn(logits.T", "loss_fn(torch.softmax(logits.T, 1)"))),
    "labels exchanged": ("forward", "rnn-label", changed(("torch.tensor([label])", "torch.tensor([1 - label])"))),
    "always 1": ("forward", "rnn-label", changed(("torch.tensor([label])", "torch.tensor([1])"))),
    "detached": ("forward", "rnn-detached", changed((STEP, "s = torch.tanh(W @ s.detach() + U @ x + b)"))),
    "squares": ("forward", "rnn-differs", changed(
        ("loss_fn(logits.T, torch.tensor([label]))", "((logits.flatten() - torch.eye(2)[label]) ** 2).mean()"))),
    "a factor": ("forward", "rnn-differs", changed(
        ("W_out @ s + b_out\n        loss", "3 * (W_out @ s) + b_out\n        loss"))),
    "nn.RNN": ("forward", "rnn-forbidden", changed(
        ("for word in sentence:\n            x = word_to_onehot(word)\n            " + STEP,
         "s = cell(torch.stack([word_to_onehot(w).T for w in sentence]))[0][-1].T"),
        (MAKE, MAKE + "cell = torch.nn.RNN(m, n)\n"))),
    "shapes": ("forward", "rnn-shapes", changed((STEP, "s = torch.tanh(W @ s + U.T @ x + b)"))),
    "b_out not updated": ("update", "rnn-not-updated", changed(
        ("            b_out -= learning_rate * b_out.grad\n", ""))),
    "ascent": ("update", "rnn-ascent", changed(("W -= learning_rate * W.grad", "W += learning_rate * W.grad"))),
    "nothing zeroed": ("update", "rnn-not-zeroed", changed((ZERO, ""))),
    "b not zeroed": ("update", "rnn-not-zeroed", changed(
        ("for p in (W, U, b, W_out, b_out)", "for p in (W, U, W_out, b_out)"))),
    "another's gradient": ("update", "rnn-wrong-gradient", changed(("b_out.grad\n", "b.grad\n"))),
    "no rate": ("update", "rnn-no-rate", changed(("learning_rate * U.grad", "U.grad"))),
    "outside of no_grad": ("update", "rnn-outside-no-grad", changed(
        ("        with torch.no_grad():", "        if True:"))),
    "W reassigned": ("update", "rnn-reassigned", changed(
        ("W -= learning_rate * W.grad", "W = W - learning_rate * W.grad"))),
    "update first": ("update", "rnn-update-first", changed((BACK + UPDATE, UPDATE + BACK))),
    "update first, guarded": ("update", "rnn-update-first", changed(
        (BACK + UPDATE, GUARDED + BACK))),
    "optimizer": ("update", "rnn-optimizer", changed((UPDATE, "        opt.step()\n        opt.zero_grad()\n"),
        (MAKE, MAKE + "opt = torch.optim.SGD([W, U, b, W_out, b_out], lr=0.1)\n"))),
    "no backward": ("update", "rnn-no-backward", changed((BACK, ""))),
    "first gradient lost": ("update", "rnn-gradient-lost", changed(
        (BACK, "        for p in (W, U, b, W_out, b_out):\n            p.grad = None\n" + BACK), text=ONCE_AN_EPOCH)),
    "argmin": ("prediction", "rnn-argmin", changed(("torch.argmax(", "torch.argmin("))),
    "three epochs": ("prediction", "rnn-prediction", changed(("0.1, 300", "0.1, 3"))),
    "tested with another state": ("prediction", "rnn-prediction", changed(
        ("W_out @ s + b_out\n    print", "b_out\n    print"))),
    "not printed": ("prediction", "rnn-no-prediction", RIGHT.replace(TEST, "")),
    "losses of something else": ("prediction", "rnn-printed-loss", changed(("{total / 2:.4f}", "{7.25:.4f}"))),
}
# fmt: on
