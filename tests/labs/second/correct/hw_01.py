# Lab 7 Homework - LSTM by hand
import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms
from torch.utils.data import DataLoader
import matplotlib.pyplot as plt

input_size = 28
hidden_size = 96
num_layers = 1
num_classes = 10
batch_size = 128
learning_rate = 0.002
num_epochs = 3

device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

train_dataset = torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test_dataset = torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)
train_loader = DataLoader(train_dataset, batch_size=batch_size, shuffle=True)
test_loader = DataLoader(test_dataset, batch_size=batch_size, shuffle=False)


class ManualLSTMCell(nn.Module):
    """one big matrix theta = [W U b], so theta @ [h; x; 1] gives all the gates"""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.H = hidden_size
        bound = hidden_size ** -0.5
        self.theta = nn.Parameter(torch.empty(4 * hidden_size, hidden_size + input_size + 1).uniform_(-bound, bound))

    def forward(self, x: torch.Tensor, h_prev: torch.Tensor, c_prev: torch.Tensor):
        one = torch.ones_like(x[:, :1])
        z = torch.cat((h_prev, x, one), dim=1) @ self.theta.t()
        ifo, g = torch.split(z, [3 * self.H, self.H], dim=1)
        i, f, o = torch.split(ifo.sigmoid(), [self.H, self.H, self.H], dim=1)
        c_t = f * c_prev + i * g.tanh()
        h_t = o * c_t.tanh()
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size: int, hidden_size: int, num_classes: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = tuple(x.new_zeros(2, x.shape[0], self.hidden_size))
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], *state)
        return self.fc(state[0])


model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)

losses = []
for epoch in range(num_epochs):
    for step, (images, labels) in enumerate(train_loader, 1):
        images, labels = images.reshape(-1, 28, 28).to(device), labels.to(device)
        loss = criterion(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 100 == 0:
            print(f"Epoch [{epoch+1}/{num_epochs}], Step [{step}/{len(train_loader)}], Loss: {loss.item():.4f}")

model.eval()
with torch.no_grad():
    correct = total = 0
    for images, labels in test_loader:
        images, labels = images.reshape(-1, 28, 28).to(device), labels.to(device)
        correct += (model(images).argmax(1) == labels).sum().item()
        total += labels.numel()
print(f"Test Accuracy: {100 * correct / total:.2f}%")

# one picture of every digit
chosen = [next(k for k in range(len(test_dataset)) if test_dataset[k][1] == d) for d in range(10)]
fig, axes = plt.subplots(2, 5, figsize=(10, 4.5))
for ax, k in zip(axes.flat, chosen):
    img, y = test_dataset[k]
    with torch.no_grad():
        p = model(img.reshape(-1, 28, 28).to(device)).argmax(1).item()
    ax.imshow(img[0], cmap='gray')
    ax.set_title(f"True {y} / Pred {p}")
    ax.axis('off')
plt.tight_layout()
plt.show()
