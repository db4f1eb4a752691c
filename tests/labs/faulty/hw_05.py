import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torch.utils.data import DataLoader
import torchvision
from torchvision import transforms
import matplotlib.pyplot as plt

torch.manual_seed(0)

input_size = 28
hidden_size = 96
num_layers = 1
num_classes = 10
batch_size = 64
learning_rate = 0.001
num_epochs = 4

train_set = torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test_set = torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)
train_loader = DataLoader(train_set, batch_size=batch_size, shuffle=True)
test_loader = DataLoader(test_set, batch_size=batch_size)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.H = hidden_size
        bound = hidden_size ** -0.5
        # rows: [f | i | c~ | o]
        self.weight_x = nn.Parameter(torch.empty(4 * hidden_size, input_size).uniform_(-bound, bound))
        self.weight_h = nn.Parameter(torch.empty(4 * hidden_size, hidden_size).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(4 * hidden_size))
        with torch.no_grad():
            self.bias[:hidden_size] = 1.0     # start with an open forget gate

    def forward(self, x, h_prev, c_prev):
        H = self.H
        a = F.linear(x, self.weight_x, self.bias) + F.linear(h_prev, self.weight_h)
        f = torch.sigmoid(a[:, :H])
        i = torch.sigmoid(a[:, H:2 * H])
        c_tilde = torch.tanh(a[:, 2 * H:3 * H])
        o = torch.sigmoid(a[:, 3 * H:])
        c_t = f * c_prev + i * c_tilde
        h_t = o * torch.tanh(c_prev)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        B = x.size(0)
        h = torch.zeros(B, self.hidden_size, dtype=x.dtype, device=x.device)
        c = torch.zeros_like(h)
        t = 0
        while t < x.size(1):
            h, c = self.cell(x[:, t, :], h, c)
            t += 1
        return self.fc(h)


device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)

steps = len(train_loader)
for epoch in range(num_epochs):
    for i, batch in enumerate(train_loader):
        images = batch[0].reshape(-1, 28, 28).to(device)
        labels = batch[1].to(device)
        loss = criterion(model(images), labels)
        model.zero_grad()
        loss.backward()
        optimizer.step()
        if i % 100 == 99:
            print(f'Epoch [{epoch+1}/{num_epochs}], Step [{i+1}/{steps}], Loss: {loss.item():.4f}')

model.eval()
all_pred, all_true = [], []
with torch.no_grad():
    for images, labels in test_loader:
        all_pred.append(model(images.reshape(-1, 28, 28).to(device)).argmax(1).cpu())
        all_true.append(labels)
all_pred = torch.cat(all_pred)
all_true = torch.cat(all_true)
accuracy = (all_pred == all_true).float().mean().item() * 100
print(f'Test Accuracy: {accuracy:.2f}%')

fig, ax = plt.subplots(1, 10, figsize=(15, 2))
for digit in range(10):
    where = torch.nonzero(all_true == digit)[0].item()
    ax[digit].imshow(test_set[where][0].squeeze(0), cmap='gray')
    ax[digit].set_title(f'{digit} -> {all_pred[where].item()}')
    ax[digit].axis('off')
fig.suptitle('true label -> prediction')
plt.show()
