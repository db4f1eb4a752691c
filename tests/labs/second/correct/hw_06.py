import copy
import torch
import torch.nn as nn
import torch.optim as optim
from torch.utils.data import DataLoader, random_split
from torchvision import datasets, transforms
import matplotlib.pyplot as plt

input_size = 28
hidden_size = 128
num_layers = 1
num_classes = 10
batch_size = 64
learning_rate = 0.001
num_epochs = 12

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
torch.manual_seed(0)

full = datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test_dataset = datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)
n_val = len(full) // 12
train_part, val_part = random_split(full, [len(full) - n_val, n_val])
train_loader = DataLoader(train_part, batch_size=batch_size, shuffle=True)
val_loader = DataLoader(val_part, batch_size=500)
test_loader = DataLoader(test_dataset, batch_size=500)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        for name in ("forget", "input", "output", "cand"):
            setattr(self, "W_" + name, nn.Linear(hidden_size, hidden_size, bias=False))
            setattr(self, "U_" + name, nn.Linear(input_size, hidden_size))

    def pre(self, name, x, h):
        return getattr(self, "W_" + name)(h) + getattr(self, "U_" + name)(x)

    def forward(self, x, h_prev, c_prev):
        f_t = self.pre("forget", x, h_prev).sigmoid()
        i_t = self.pre("input", x, h_prev).sigmoid()
        o_t = self.pre("output", x, h_prev).sigmoid()
        c_t = f_t * c_prev + i_t * self.pre("cand", x, h_prev).tanh()
        return o_t * c_t.tanh(), c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        h_t = x.new_zeros(x.size(0), self.hidden_size)
        c_t = x.new_zeros(x.size(0), self.hidden_size)
        for row in x.permute(1, 0, 2):
            h_t, c_t = self.cell(row, h_t, c_t)
        return self.fc(h_t)


class Trainer:
    def __init__(self, model, criterion, optimizer, patience=2):
        self.model, self.criterion, self.optimizer = model, criterion, optimizer
        self.patience = patience
        self.best, self.best_acc, self.bad = None, -1.0, 0
        self.history = []

    def _prep(self, batch):
        x, y = batch
        return x.reshape(-1, 28, 28).to(device), y.to(device)

    def one_epoch(self, epoch):
        self.model.train()
        for step, batch in enumerate(train_loader, 1):
            x, y = self._prep(batch)
            self.optimizer.zero_grad()
            loss = self.criterion(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            self.history.append(loss.item())
            if step % 100 == 0:
                print(f"Epoch [{epoch}/{num_epochs}], Step [{step}/{len(train_loader)}], Loss: {loss.item():.4f}")

    @torch.no_grad()
    def accuracy(self, loader):
        self.model.eval()
        good = 0
        for batch in loader:
            x, y = self._prep(batch)
            good += (self.model(x).argmax(1) == y).sum().item()
        return good / len(loader.dataset)

    def fit(self):
        for epoch in range(1, num_epochs + 1):
            self.one_epoch(epoch)
            acc = self.accuracy(val_loader)
            print(f"   validation {acc:.4f}")
            if acc > self.best_acc:
                self.best, self.best_acc, self.bad = copy.deepcopy(self.model.state_dict()), acc, 0
            else:
                self.bad += 1
                if self.bad >= self.patience:
                    print("early stop")
                    break
        self.model.load_state_dict(self.best)


model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)
trainer = Trainer(model, criterion, optimizer)
trainer.fit()
print(f"Test Accuracy: {100 * trainer.accuracy(test_loader):.2f}%")

images, labels = next(iter(test_loader))
with torch.no_grad():
    preds = model(images.reshape(-1, 28, 28).to(device)).argmax(1).cpu()
idx = [int((labels == d).nonzero()[0]) for d in range(10)]
fig, axes = plt.subplots(2, 5)
for ax, k in zip(axes.ravel(), idx):
    ax.imshow(images[k, 0], cmap="gray")
    ax.set_title(f"T={labels[k].item()}, P={preds[k].item()}")
    ax.axis("off")
plt.show()
