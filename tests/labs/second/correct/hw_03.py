import logging
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
from torch import nn, optim
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

logging.basicConfig(level=logging.INFO, format="%(message)s")
log = logging.getLogger("lab7")

input_size = 28
hidden_size = 100
num_layers = 1
num_classes = 10
batch_size = 100
learning_rate = 0.003
num_epochs = 3


@dataclass
class Config:
    input_size: int = input_size
    hidden_size: int = hidden_size
    num_classes: int = num_classes
    batch_size: int = batch_size
    lr: float = learning_rate
    epochs: int = num_epochs


cfg = Config()
torch.manual_seed(2024)
device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")

prep = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
train_set = datasets.MNIST(root='./data', train=True, transform=prep, download=True)
test_set = datasets.MNIST(root='./data', train=False, transform=prep, download=True)
train_loader = DataLoader(train_set, batch_size=cfg.batch_size, shuffle=True, num_workers=2, pin_memory=True)
test_loader = DataLoader(test_set, batch_size=cfg.batch_size, shuffle=False, num_workers=2, pin_memory=True)


class ManualLSTMCell(nn.Module):
    GATES = ("f", "i", "o", "c")

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.W = nn.ParameterDict({g: nn.Parameter(torch.randn(hidden_size, hidden_size) / hidden_size ** 0.5) for g in self.GATES})
        self.U = nn.ParameterDict({g: nn.Parameter(torch.randn(hidden_size, input_size) / input_size ** 0.5) for g in self.GATES})
        self.b = nn.ParameterDict({g: nn.Parameter(torch.zeros(hidden_size)) for g in self.GATES})

    def forward(self, x, h_prev, c_prev):
        act = dict.fromkeys("fio", torch.sigmoid) | {"c": torch.tanh}
        gate = {g: act[g](h_prev @ self.W[g].T + x @ self.U[g].T + self.b[g]) for g in self.GATES}
        c_t = gate["f"] * c_prev + gate["i"] * gate["c"]
        h_t = gate["o"] * torch.tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.register_buffer("zero", torch.zeros(1, hidden_size))
        self.W_out = nn.Parameter(torch.randn(num_classes, hidden_size) * 0.1)
        self.b_out = nn.Parameter(torch.zeros(num_classes))

    def forward(self, x):
        h = c = self.zero.expand(len(x), -1)
        for t in range(x.size(1)):
            h, c = self.cell(x[:, t, :], h, c)
        return h @ self.W_out.T + self.b_out


model = ManualLSTMClassifier(cfg.input_size, cfg.hidden_size, cfg.num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=cfg.lr)
scheduler = optim.lr_scheduler.LambdaLR(optimizer, lr_lambda=lambda e: 0.5 ** e)

for epoch in range(1, cfg.epochs + 1):
    for step, (images, labels) in enumerate(train_loader, start=1):
        images = images.reshape(-1, 28, 28).to(device, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        loss = criterion(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if not step % 100:
            log.info("Epoch [%d/%d], Step [%d/%d], Loss: %.4f", epoch, cfg.epochs, step, len(train_loader), loss.item())
    scheduler.step()

model.eval()
hits = 0
with torch.inference_mode():
    for images, labels in test_loader:
        logits = model(images.reshape(-1, 28, 28).to(device))
        hits += int(logits.argmax(-1).eq(labels.to(device)).sum())
log.info("Test Accuracy: %.2f%%", 100 * hits / len(test_set))

shown = {}
for img, lab in test_set:
    shown.setdefault(lab, img)
    if len(shown) == 10:
        break
batch = torch.cat([shown[d] for d in range(10)]).to(device)
with torch.inference_mode():
    guess = model(batch).argmax(1).tolist()
log.info("true      %s", list(range(10)))
log.info("predicted %s", guess)
fig, axs = plt.subplots(1, 10, figsize=(15, 2))
for d in range(10):
    axs[d].imshow(batch[d].cpu(), cmap="gray_r")
    axs[d].set_title("%d -> %d" % (d, guess[d]))
    axs[d].axis("off")
fig.suptitle("true -> predicted")
plt.savefig("digits.png")
