import sys
import torch
import torch.nn as nn
import torch.optim as optim
from torch.utils.data import DataLoader
import torchvision
from torchvision import transforms
import matplotlib.pyplot as plt

# パラメータ
input_size = 28
hidden_size = 128
num_layers = 1
num_classes = 10
batch_size = 200
learning_rate = 0.0015
num_epochs = 8

train_dataset = torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test_dataset = torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)
train_loader = DataLoader(train_dataset, batch_size=batch_size, shuffle=True)
test_loader = DataLoader(test_dataset, batch_size=batch_size, shuffle=False)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        n_in = input_size + hidden_size
        # 順番: f, i, o, 候補
        self.gates = nn.ModuleList(
            [nn.Sequential(nn.Linear(n_in, hidden_size), nn.Sigmoid()) for _ in range(3)]
            + [nn.Sequential(nn.Linear(n_in, hidden_size), nn.Tanh())]
        )

    def forward(self, x, h_prev, c_prev):
        z = torch.hstack((x, h_prev))
        f, i, o, c_tilde = [g(z) for g in self.gates]
        c_t = f * c_prev + i * c_tilde
        h_t = o * torch.tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        h = x.new_zeros((x.size(0), self.hidden_size))
        c = h.clone()
        outputs = []
        for x_t in x.unbind(dim=1):
            h, c = self.cell(x_t, h, c)
            outputs.append(h)
        outputs = torch.stack(outputs)   # 時間, バッチ, 隠れ層
        return self.fc(outputs[-1])


device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.NAdam(model.parameters(), lr=learning_rate)


def progress(k, n, loss):
    # tqdm の代わり
    done = int(30 * k / n)
    sys.stdout.write('\r[' + '#' * done + '.' * (30 - done) + f'] {k}/{n} loss {loss:.4f}')
    sys.stdout.flush()


n_step = len(train_loader)
for epoch in range(num_epochs):
    for i, (images, labels) in enumerate(train_loader, 1):
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)

        optimizer.zero_grad()
        outputs = model(images)
        loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()

        progress(i, n_step, loss.item())
        if i % 100 == 0:
            print(f'\nEpoch [{epoch + 1}/{num_epochs}], Step [{i}/{n_step}], Loss: {loss.item():.4f}')
    print()

# テスト
model.eval()
with torch.no_grad():
    hits = [
        (model(images.reshape(-1, 28, 28).to(device)).argmax(1) == labels.to(device)).sum().item()
        for images, labels in test_loader
    ]
print(f'Test Accuracy: {100 * sum(hits) / len(test_dataset):.2f}%')

# 0 から 9 までの画像
first = [test_dataset.targets.tolist().index(d) for d in range(10)]
fig, axs = plt.subplots(2, 5, figsize=(10, 4.5))
for ax, k in zip(axs.flatten(), first):
    img, y = test_dataset[k]
    with torch.no_grad():
        p = model(img.view(1, 28, 28).to(device)).argmax().item()
    ax.imshow(img.view(28, 28), cmap='gray')
    ax.set_title(f'True: {y}, Pred: {p}')
    ax.axis('off')
plt.tight_layout()
plt.show()
