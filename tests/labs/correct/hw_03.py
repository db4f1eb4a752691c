"""Lab 7 homework - LSTM from scratch on MNIST (each image is a sequence of 28 rows)."""
from __future__ import annotations

from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import datasets, transforms


@dataclass
class Config:
    input_size: int = 28
    hidden_size: int = 256
    num_layers: int = 1
    num_classes: int = 10
    batch_size: int = 128
    learning_rate: float = 2e-3
    num_epochs: int = 8
    weight_decay: float = 1e-2
    clip: float = 1.0
    seed: int = 1234


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        # all four gates in one matrix, order: i, f, g, o
        self.gates = nn.Linear(input_size + hidden_size, 4 * hidden_size)

    def forward(self, x: Tensor, h_prev: Tensor, c_prev: Tensor) -> tuple[Tensor, Tensor]:
        z: Tensor = self.gates(torch.cat([x, h_prev], dim=-1))
        i, f, g, o = z.chunk(4, dim=-1)
        c_t = torch.sigmoid(f) * c_prev + torch.sigmoid(i) * torch.tanh(g)
        h_t = torch.sigmoid(o) * torch.tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size: int, hidden_size: int, num_classes: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.head = nn.Linear(hidden_size, num_classes)

    def init_state(self, x: Tensor) -> tuple[Tensor, Tensor]:
        zeros = torch.zeros(x.size(0), self.hidden_size, device=x.device, dtype=x.dtype)
        return zeros, zeros.clone()

    def forward(self, x: Tensor) -> Tensor:
        h, c = self.init_state(x)
        for x_t in x.transpose(0, 1):      # (seq, batch, features)
            h, c = self.cell(x_t, h, c)
        return self.head(h)


def get_loaders(cfg: Config) -> tuple[DataLoader, DataLoader]:
    tf = transforms.Compose([
        transforms.ToTensor(),
        transforms.Normalize((0.1307,), (0.3081,)),
    ])
    train_set = datasets.MNIST(root="./data", train=True, transform=tf, download=True)
    test_set = datasets.MNIST(root="./data", train=False, transform=tf, download=True)
    train_loader = DataLoader(train_set, batch_size=cfg.batch_size, shuffle=True, num_workers=2)
    test_loader = DataLoader(test_set, batch_size=512, shuffle=False, num_workers=2)
    return train_loader, test_loader


def train(model: nn.Module, loader: DataLoader, cfg: Config, device: torch.device) -> list[float]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.learning_rate, weight_decay=cfg.weight_decay)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=cfg.num_epochs)
    history: list[float] = []
    for epoch in range(1, cfg.num_epochs + 1):
        model.train()
        for step, (images, labels) in enumerate(loader, 1):
            images = images.squeeze(1).to(device)
            labels = labels.to(device)
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), cfg.clip)
            optimizer.step()
            history.append(loss.item())
            if step % 100 == 0:
                print(f"Epoch [{epoch}/{cfg.num_epochs}], Step [{step}/{len(loader)}], Loss: {loss.item():.4f}")
        scheduler.step()
    return history


@torch.no_grad()
def evaluate(model: nn.Module, loader: DataLoader, device: torch.device) -> float:
    model.eval()
    hits, n = 0, 0
    for images, labels in loader:
        pred = model(images.squeeze(1).to(device)).argmax(dim=1)
        hits += int((pred == labels.to(device)).sum())
        n += labels.numel()
    return 100.0 * hits / n


@torch.no_grad()
def show_digits(model: nn.Module, dataset, device: torch.device) -> None:
    model.eval()
    chosen: dict[int, Tensor] = {}
    idx = 0
    while len(chosen) < 10:
        image, label = dataset[idx]
        chosen.setdefault(int(label), image)
        idx += 1
    batch = torch.cat([chosen[d] for d in range(10)]).to(device)   # (10, 28, 28)
    preds = model(batch).argmax(dim=1).tolist()
    fig, axes = plt.subplots(1, 10, figsize=(16, 2.2))
    for d, ax in enumerate(axes):
        ax.imshow(chosen[d][0], cmap="gray")
        ax.set_title(f"true {d}\npred {preds[d]}")
        ax.set_axis_off()
    fig.tight_layout()
    plt.show()


def main() -> None:
    cfg = Config()
    torch.manual_seed(cfg.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train_loader, test_loader = get_loaders(cfg)
    model = ManualLSTMClassifier(cfg.input_size, cfg.hidden_size, cfg.num_classes).to(device)
    history = train(model, train_loader, cfg, device)
    print(f"Test Accuracy: {evaluate(model, test_loader, device):.2f}%")

    plt.plot(history)
    plt.title("training loss")
    plt.show()
    show_digits(model, test_loader.dataset, device)


if __name__ == "__main__":
    main()
