import torch
import torch.nn as nn
from torch import einsum
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from matplotlib import pyplot as plt

INPUT, HIDDEN, LAYERS, CLASSES = 28, 64, 1, 10
BATCH = 64
LR = 3e-3
EPOCHS = 6
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

to_tensor = transforms.ToTensor()
train_ds = datasets.MNIST(root="./data", train=True, transform=to_tensor, download=True)
test_ds = datasets.MNIST(root="./data", train=False, transform=to_tensor, download=True)
train_loader = DataLoader(train_ds, batch_size=BATCH, shuffle=True)
test_loader = DataLoader(test_ds, batch_size=BATCH)


class ManualLSTMCell(nn.Module):
    # number 0: input gate, 1: forget gate, 2: output gate, 3: candidate
    def __init__(self, input_size, hidden_size):
        super().__init__()
        s = hidden_size ** -0.5
        self.W = nn.ParameterList([nn.Parameter(s * torch.randn(hidden_size, hidden_size)) for _ in range(4)])
        self.U = nn.ParameterList([nn.Parameter(s * torch.randn(hidden_size, input_size)) for _ in range(4)])
        self.b = nn.ParameterList([nn.Parameter(torch.zeros(1, hidden_size)) for _ in range(4)])

    def pre(self, k, x, h):
        return einsum("hj,bj->bh", self.W[k], h) + einsum("hd,bd->bh", self.U[k], x) + self.b[k]

    def forward(self, x, h_prev, c_prev):
        i = self.pre(0, x, h_prev).sigmoid()
        f = self.pre(1, x, h_prev).sigmoid()
        o = self.pre(2, x, h_prev).sigmoid()
        c_tilde = self.pre(3, x, h_prev).tanh()
        c_t = torch.addcmul(f * c_prev, i, c_tilde)
        return o * c_t.tanh(), c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.W_out = nn.Parameter(0.1 * torch.randn(num_classes, hidden_size))
        self.b_out = nn.Parameter(torch.zeros(num_classes))

    def forward(self, x):
        b = x.shape[0]
        h, c = torch.zeros(2, b, self.hidden_size, device=x.device)
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], h, c)
        return einsum("kh,bh->bk", self.W_out, h) + self.b_out


model = ManualLSTMClassifier(INPUT, HIDDEN, CLASSES).to(DEVICE)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=LR)
steps = len(train_loader)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=LR, total_steps=steps * EPOCHS)

record = []
for ep in range(EPOCHS):
    for st, (im, lb) in enumerate(train_loader):
        im = im.reshape(-1, 28, 28).to(DEVICE)
        lb = lb.to(DEVICE)
        optimizer.zero_grad()
        loss = criterion(model(im), lb)
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), 0.5)
        optimizer.step()
        schedule.step()
        if (st + 1) % 100 == 0:
            record.append(loss.item())
            print(f"Epoch [{ep + 1}/{EPOCHS}], Step [{st + 1}/{steps}], Loss: {loss.item():.4f}")


def accuracy(net, loader):
    good = 0
    with torch.no_grad():
        for im, lb in loader:
            out = net(im.reshape(-1, 28, 28).to(DEVICE))
            good += torch.sum(torch.argmax(out, -1) == lb.to(DEVICE)).item()
    return good / len(loader.dataset)


print("Test Accuracy: {:.2%}".format(accuracy(model, test_loader)))

fig, axs = plt.subplots(3, 4, figsize=(8, 6))
axs = axs.ravel()
for d in range(10):
    k = next(j for j, y in enumerate(test_ds.targets.tolist()) if y == d)
    picture = test_ds[k][0]
    with torch.no_grad():
        guess = model(picture.to(DEVICE)).argmax().item()
    axs[d].imshow(picture[0], cmap="Greys")
    axs[d].set_title(f"{d} -> {guess}")
    axs[d].axis("off")
axs[10].plot(record)
axs[10].set_title("loss")
axs[11].axis("off")
fig.suptitle("true label -> prediction")
plt.tight_layout()
plt.show()
