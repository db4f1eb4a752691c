"""Small files as students write them, right ones in many styles; `training_faults` has ones with a fault."""

from __future__ import annotations

HEAD = """\
import io, torch, torch.nn as nn, torch.optim as optim, torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset
import matplotlib.pyplot as plt
torch.manual_seed(1)
input_size, hidden_size, num_classes, batch_size, learning_rate, num_epochs = 28, 12, 10, 100, 0.01, 2
class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.gates = nn.Linear(input_size + hidden_size, 4 * hidden_size)
    def forward(self, x, h, c):
        i, f, o, g = self.gates(torch.cat([x, h], 1)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)
    def forward(self, x):
        h = c = torch.zeros(len(x), self.hidden_size)
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], h, c)
        return self.fc(h)
"""
LOADERS = """\
train_dataset, test_dataset = MNIST(train=True), MNIST(train=False)
train_loader = DataLoader(train_dataset, batch_size=batch_size, shuffle=True)
test_loader = DataLoader(test_dataset, batch_size=batch_size)
"""
MODEL = """\
model = ManualLSTMClassifier(input_size, hidden_size, num_classes)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)
"""
LOOP = """\
for epoch in range(num_epochs):
    for step, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28)
        outputs = model(images)
        loss = criterion(outputs, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f'Epoch [{epoch + 1}/{num_epochs}], Loss: {loss.item():.4f}')
"""
TESTING = """\
model.eval()
correct = total = 0
with torch.no_grad():
    for images, labels in test_loader:
        images = images.reshape(-1, 28, 28)
        outputs = model(images)
        _, predicted = torch.max(outputs, 1)
        total += labels.size(0)
        correct += (predicted == labels).sum().item()
print(f'Test Accuracy: {100 * correct / total:.2f}%')
"""
PICTURES = """\
images, labels = next(iter(test_loader))
with torch.no_grad():
    predicted = model(images.reshape(-1, 28, 28)).argmax(1)
plt.figure(figsize=(10, 4))
for k in range(10):
    plt.subplot(2, 5, k + 1)
    plt.imshow(images[k].squeeze(), cmap='gray')
    plt.title(f'True: {labels[k]}, Pred: {predicted[k]}')
plt.show()
"""
WHOLE = HEAD + LOADERS + MODEL + LOOP + TESTING + PICTURES


def swapped(*changes: tuple[str, str], text: str = WHOLE) -> str:
    """A file with pieces of it replaced, each of which must be there."""
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


STYLES = {
    "template": WHOLE,
    "main": HEAD
    + "def main():\n"
    + "".join(f"    {line}\n" for line in (LOADERS + MODEL + LOOP + TESTING + PICTURES).splitlines())
    + "if __name__ == '__main__':\n    main()\n",
    "tensors": HEAD
    + """\
train, test = MNIST(train=True), MNIST(train=False)
X, y = (train.data.float() / 255 - 0.1307) / 0.3081, train.targets
Xt, yt = (test.data.float() / 255 - 0.1307) / 0.3081, test.targets
net = ManualLSTMClassifier(28, 16, 10)
opt = torch.optim.AdamW(net.parameters(), lr=1e-2)
for epoch in range(2):
    order = torch.randperm(len(X))
    for k in range(0, len(X), 64):
        rows = order[k:k + 64]
        opt.zero_grad(set_to_none=False)
        F.cross_entropy(net(X[rows]), y[rows]).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
net.eval()
with torch.no_grad():
    answers = net(Xt).argmax(dim=1)
print("test accuracy", (answers == yt).float().mean().item())
figure, axes = plt.subplots(2, 5)
for digit, ax in enumerate(axes.flat):
    k = int((yt == digit).nonzero()[0])
    ax.imshow(Xt[k], cmap="gray_r")
    ax.set_xlabel(f"label {yt[k]}")
    ax.set_title(f"predicted {answers[k]}")
figure.savefig(io.BytesIO())
""",
    "functions": HEAD
    + LOADERS
    + """\
def train(model, loader, criterion, optimizer):
    model.train()
    total = 0.0
    for x, y in loader:
        optimizer.zero_grad()
        loss = criterion(model(x.view(-1, 28, 28)), y)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(x)
    return total / len(loader.dataset)
def evaluate(model, loader):
    model.eval()
    right = 0
    with torch.inference_mode():
        for x, y in loader:
            right += (model(x.squeeze(1)).argmax(-1) == y).sum().item()
    return right / len(loader.dataset)
net = ManualLSTMClassifier(28, 12, 10)
optimizer = optim.RMSprop(net.parameters(), lr=0.005)
scheduler = optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
for epoch in range(1, 4):
    loss = train(net, train_loader, nn.CrossEntropyLoss(label_smoothing=0.1), optimizer)
    print(epoch, loss, "train acc", evaluate(net, train_loader), "test acc", evaluate(net, test_loader))
    scheduler.step()
"""
    + PICTURES.replace("model(", "net("),
    "tested in bfloat16": swapped(
        ("torch.zeros(len(x), self.hidden_size)", "torch.zeros(len(x), self.hidden_size, dtype=x.dtype)"),
        ("model.eval()\n", "model.eval().bfloat16()\n"),
        (
            "images = images.reshape(-1, 28, 28)\n        outputs = model(images)\n        _, ",
            "images = images.reshape(-1, 28, 28).bfloat16()\n        outputs = model(images)\n        _, ",
        ),
        ("model(images.reshape(-1, 28, 28)).argmax", "model(images.reshape(-1, 28, 28).bfloat16()).argmax"),
    ),
    "by hand": swapped(
        ("optimizer = optim.Adam(model.parameters(), lr=learning_rate)\n", ""),
        ("        optimizer.zero_grad()\n", ""),
        (
            "        optimizer.step()\n",
            "        with torch.no_grad():\n            for p in model.parameters():\n                p -= 0.5 * p.grad\n"
            "                p.grad = None\n",
        ),
    ),
    "data by hand": swapped(
        (
            "        optimizer.step()\n",
            "        for p in model.parameters():\n            p.data.add_(p.grad, alpha=-0.1)\n",
        ),
        ("optimizer.zero_grad", "model.zero_grad"),
        ("optimizer = optim.Adam(model.parameters(), lr=learning_rate)\n", ""),
    ),
    "accumulation": swapped(
        ("        optimizer.zero_grad()\n", ""),
        (
            "batch_size, learning_rate, num_epochs = 28, 12, 10, 100",
            "batch_size, learning_rate, num_epochs = 28, 12, 10, 32",
        ),
        ("loss.backward()", "(loss / 4).backward()"),
        (
            "        optimizer.step()\n",
            "        if (step + 1) % 4 == 0:\n            optimizer.step()\n            optimizer.zero_grad()\n",
        ),
    ),
    "accumulation longer than the short run": swapped(
        ("        optimizer.zero_grad()\n", ""),
        (
            "        optimizer.step()\n",
            "        if (step + 1) % 16 == 0:\n            optimizer.step()\n            optimizer.zero_grad()\n",
        ),
    ),
    "log_softmax and nll": swapped(
        ("nn.CrossEntropyLoss()", "nn.NLLLoss()"),
        ("criterion(outputs, labels)", "criterion(F.log_softmax(outputs, dim=1), labels)"),
    ),
    "own loss": swapped(
        ("criterion(outputs, labels)", "-(outputs.log_softmax(1) * F.one_hot(labels, 10)).sum(1).mean()"),
    ),
    "test in each epoch, with its loss": swapped(
        (TESTING, ""),
        (
            "    print(f'Epoch",
            "".join(f"    {line}\n" for line in TESTING.splitlines()).replace(
                "_, predicted", "test_loss = criterion(outputs, labels); _, predicted"
            )
            + "    model.train()\n    print(f'Epoch",
        ),
    ),
    "no no_grad, loss on test images": swapped(
        ("with torch.no_grad():\n    for", "if True:\n    for"),
        ("        total +=", "        test_loss = criterion(outputs, labels)\n        total +="),
        (
            "for epoch in range(num_epochs):\n",
            "for epoch in range(num_epochs):\n    criterion(model(images0), labels0)\n",
        ),
        ("model.eval()\n", ""),
        ("for epoch", "images0, labels0 = next(iter(test_loader)); images0 = images0.reshape(-1, 28, 28)\nfor epoch"),
    ),
    "whole MNIST's denominator": swapped(("100 * correct / total:.2f", "correct / 10000 * 100:.3f")),
    "forward called directly": swapped(("model(images", "model.forward(images")),
    "lbfgs": swapped(
        ("optim.Adam(model.parameters(), lr=learning_rate)", "optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)"),
        (
            "        optimizer.zero_grad()\n        loss.backward()\n        optimizer.step()\n",
            "        def closure():\n            optimizer.zero_grad()\n            l = criterion(model(images), labels)\n"
            "            l.backward()\n            return l\n        optimizer.step(closure)\n",
        ),
    ),
    "sum of losses": swapped(
        (
            "        optimizer.zero_grad()\n        loss.backward()\n        optimizer.step()\n",
            "        losses.append(loss)\n",
        ),
        ("    for step,", "    losses = []\n    for step,"),
        (
            "    print(f'Epoch",
            "    optimizer.zero_grad(); torch.stack(losses).mean().backward(); optimizer.step()\n    print(f'Epoch",
        ),
    ),
    "batch accuracies of equal batches": swapped(
        ("correct += (predicted == labels).sum().item()", "correct += (predicted == labels).float().mean().item()"),
        ("100 * correct / total", "100 * correct / len(test_loader)"),
    ),
    "validation split": swapped(
        (
            "train_loader = DataLoader(train_dataset",
            "train_dataset, val_dataset = torch.utils.data.random_split(train_dataset, [0.8, 0.2])\n"
            "val_loader = DataLoader(val_dataset, batch_size=50)\ntrain_loader = DataLoader(train_dataset",
        ),
        (
            "    print(f'Epoch",
            "    right = sum((model(x.reshape(-1, 28, 28)).argmax(1) == y).sum().item() for x, y in val_loader)\n"
            "    print(f'val acc {right / len(val_dataset):.3f}')\n    print(f'Epoch",
        ),
    ),
    "learning rates tried": swapped(
        (MODEL, ""),
        (LOOP, ""),
        (
            TESTING,
            "for learning_rate in (0.01, 0.001):\n"
            + "".join(f"    {line}\n" for line in (MODEL + LOOP + TESTING).splitlines()),
        ),
    ),
    "one image at a time": swapped(
        (
            TESTING,
            "right = 0\nfor x, y in test_dataset:\n    with torch.no_grad():\n        right += int(model(x).argmax()) == y\n"
            "print('Accuracy on the test set:', right, 'of', len(test_dataset))\n",
        ),
    ),
    "titles printed": swapped(
        (
            "    plt.title(f'True: {labels[k]}, Pred: {predicted[k]}')\n",
            "    print(int(labels[k]), int(predicted[k]))\n",
        )
    ),
    "optimizer of two groups": swapped(
        (
            "optim.Adam(model.parameters(), lr=learning_rate)",
            "optim.SGD([{'params': model.cell.parameters()}, {'params': model.fc.parameters(), 'lr': 0.3}], lr=0.1)",
        )
    ),
    "error rate": swapped(
        ("Test Accuracy: {100 * correct / total:.2f}%", "Test error: {100 - 100 * correct / total:.1f}%")
    ),
    "tiny learning rate": swapped(
        ("optim.Adam(model.parameters(), lr=learning_rate)", "optim.SGD(model.parameters(), lr=1e-9)")
    ),
    "warm-up in one step an epoch": swapped(
        ("10, 100, 0.01, 2", "10, 256, 0.01, 1"),
        (
            "lr=learning_rate)\n",
            "lr=learning_rate)\nwarm = optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1, s / 500))\n",
        ),
        ("        optimizer.step()\n", "        optimizer.step(); warm.step()\n"),
    ),
    "a trainer of its own": swapped(
        (
            MODEL + LOOP + TESTING,
            """\
class Trainer:
    def __init__(self):
        self.model = ManualLSTMClassifier(28, 12, 10)
        self.opt = optim.SGD(self.model.parameters(), 0.1)
    def fit(self):
        epoch = 0
        while epoch < 2:
            for x, y in train_loader:
                self.model.zero_grad()
                F.cross_entropy(self.model(x[:, 0]), y).backward()
                self.opt.step()
            epoch += 1
    @torch.no_grad()
    def test(self):
        return sum((self.model(x[:, 0]).argmax(1) == y).sum() for x, y in test_loader) / len(test_dataset)
t = Trainer(); t.fit(); model = t.model
print('Test accuracy:', t.test())
""",
        )
    ),
    "time first": swapped(
        ("x.shape[1]", "x.shape[0]"),
        ("x[:, t]", "x[t]"),
        ("len(x), self", "x.shape[1], self"),
        ("images.reshape(-1, 28, 28)", "images.reshape(-1, 28, 28).transpose(0, 1)"),
    ),
    "black and white": swapped(
        ("images = images.reshape(-1, 28, 28)", "images = (images.reshape(-1, 28, 28) > 0.4).float()")
    ),
    "noise on the training images": swapped(
        (
            "outputs = model(images)\n        loss",
            "outputs = model(images + 0.1 * torch.randn(images.shape))\n        loss",
        )
    ),
    "one picture of ten": swapped(
        (
            PICTURES,
            """\
images, labels = next(iter(test_loader))
answers = model(images.squeeze(1)).argmax(1)
plt.imshow(torch.cat([F.pad(image[0], (2, 2, 2, 2)) for image in images[:10]], 1))
plt.title(f'{labels[:10].tolist()} {answers[:10].tolist()}')
""",
        )
    ),
    "one figure after the other": swapped(
        (
            PICTURES,
            """\
for k in range(10):
    image, label = test_dataset[k]
    answer = model(image.view(1, 28, 28)).argmax().item()
    plt.imshow(image[0], cmap='gray')
    plt.text(1, 1, f'{label}/{answer}')
    plt.savefig(io.BytesIO())
    plt.clf()
""",
        )
    ),
    "all images in one batch": swapped(
        ("10, 100, 0.01, 2", "10, 256, 0.01, 2"),
        ("        loss.backward()\n        optimizer.step()\n", "        loss.backward()\n    optimizer.step()\n"),
        ("        loss.backward()\n", "        (0.5 * loss).backward(retain_graph=True); (0.5 * loss).backward()\n"),
    ),
    "gradient of all batches": swapped(
        ("        optimizer.zero_grad()\n", ""),
        ("    for step,", "    optimizer.zero_grad()\n    for step,"),
        (
            "        loss.backward()\n        optimizer.step()\n",
            "        (loss / len(train_loader)).backward()\n    optimizer.step()\n",
        ),
    ),
    "accumulation with a last step": swapped(
        ("        optimizer.zero_grad()\n", ""),
        (
            "        optimizer.step()\n",
            "        if (step + 1) % 16 == 0:\n            optimizer.step(); optimizer.zero_grad()\n"
            "    optimizer.step(); optimizer.zero_grad()\n",
        ),
    ),
    "accumulation in a function": swapped(
        ("        optimizer.zero_grad()\n", ""),
        ("        optimizer.step()\n", "        update(step + 1)\n"),
        (
            "for epoch",
            "def update(count):\n    if count % 3:\n        return\n    optimizer.step()\n    optimizer.zero_grad()\nfor epoch",
        ),
    ),
    "inverted images at random places": swapped(
        (
            "outputs = model(images)\n        loss",
            "images = 1 - images.roll(int(torch.randint(-3, 4, ())), 2)\n        outputs = model(images)\n        loss",
        )
    ),
    "predictions kept from the test": swapped(
        ("correct = total = 0", "correct = total = 0; kept = []"),
        ("        total +=", "        kept += predicted.tolist()\n        total +="),
        (
            PICTURES.split("plt.figure")[0],
            "images, labels = next(iter(test_loader)); predicted = kept\n"
            "print(model(test_dataset.data[50:60].float()).argmax(1))\n",
        ),
    ),
    "written to stdout": swapped(
        (
            "print(f'Test Accuracy: {100 * correct / total:.2f}%')",
            "import sys; sys.stdout.write(f'{100 * correct / total}%')",
        )
    ),
    "average of the weights, frozen": swapped(
        ("criterion =", "import copy; average = copy.deepcopy(model).requires_grad_(False)\ncriterion ="),
        (
            "        optimizer.step()\n",
            "        optimizer.step()\n"
            "        for a, p in zip(average.parameters(), model.parameters()): a.lerp_(p.detach(), 0.2)\n",
        ),
        (TESTING, "model = average\n" + TESTING),
    ),
    "copy frozen for the test": swapped(
        (TESTING, "import copy; model = copy.deepcopy(model).requires_grad_(False)\n" + TESTING)
    ),
    "loaded into a frozen model": swapped(
        (
            TESTING,
            "kept = model.state_dict(); model = type(model)(28, hidden_size, 10).requires_grad_(False)\n"
            "model.load_state_dict(kept)\n" + TESTING,
        )
    ),
    "first weights kept to compare": swapped(
        (
            TESTING,
            "trained, model = model, type(model)(28, hidden_size, 10)\n" + TESTING + "model = trained\n" + TESTING,
        )
    ),
    "mean of models": swapped(
        (
            TESTING,
            "first, model = model, type(model)(28, hidden_size, 10)\n"
            "optimizer = optim.Adam(model.parameters(), lr=learning_rate)\n" + LOOP + "second = model\n"
            "model = type(model)(28, hidden_size, 10)\n"
            "model.load_state_dict({k: (v + second.state_dict()[k]) / 2 for k, v in first.state_dict().items()})\n"
            + TESTING,
        )
    ),
    "constant of infinite numbers": swapped(
        (
            "        self.hidden_size = h",
            "        self.mask = nn.Parameter(torch.full((3, 3), -torch.inf).triu(1), requires_grad=False)\n"
            "        self.hidden_size = h",
        )
    ),
}
