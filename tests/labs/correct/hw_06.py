import random
import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor
import matplotlib.pyplot as plt


def set_seed(s):
    random.seed(s)
    np.random.seed(s)
    torch.manual_seed(s)


set_seed(7)

input_size = 28
hidden_size = 64
num_layers = 1
num_classes = 10
batch_size = 32
learning_rate = 0.001
num_epochs = 4

train_loader = DataLoader(MNIST('./data', train=True, transform=ToTensor(), download=True), batch_size=batch_size, shuffle=True)
test_loader = DataLoader(MNIST('./data', train=False, transform=ToTensor(), download=True), batch_size=batch_size)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size
        self.fc = nn.Linear(input_size + hidden_size, 4 * hidden_size)

    def forward(self, x, h_prev=None, c_prev=None):
        if h_prev is None:
            h_prev = x.new_zeros(x.size(0), self.hidden_size)
        if c_prev is None:
            c_prev = torch.zeros_like(h_prev)

        a = self.fc(torch.cat([x, h_prev], 1))
        # (B, 4H) -> four tensors (B, H)
        a_in, a_forget, a_cand, a_out = a.view(-1, 4, self.hidden_size).unbind(dim=1)

        i_t = torch.sigmoid(a_in)
        f_t = torch.sigmoid(a_forget)
        o_t = torch.sigmoid(a_out)
        c_tilde = torch.tanh(a_cand)

        c_t = torch.mul(f_t, c_prev) + torch.mul(i_t, c_tilde)
        h_t = torch.mul(o_t, torch.tanh(c_t))
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.linear = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        h = c = None
        for t in range(28):
            h, c = self.cell(x[:, t, :], h, c)
        return F.log_softmax(self.linear(h), dim=1)   # goes together with NLLLoss below


device = torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')
print('using', device)
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.NLLLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)

losses = []
for epoch in range(num_epochs):
    running = 0.0
    for step, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)

        log_p = model(images)
        loss = criterion(log_p, labels)

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        running += loss.item()
        if (step + 1) % 100 == 0:
            losses.append(running / 100)
            print(f'Epoch [{epoch + 1}/{num_epochs}], Step [{step + 1}/{len(train_loader)}], Loss: {running / 100:.4f}')
            running = 0.0


def test(loader):
    all_pred, all_true = [], []
    model.eval()
    with torch.no_grad():
        for images, labels in loader:
            log_p = model(images.reshape(-1, 28, 28).to(device))
            all_pred.append(log_p.argmax(1).cpu())
            all_true.append(labels)
    return torch.cat(all_pred), torch.cat(all_true)


pred, true = test(test_loader)
acc = (pred == true).float().mean().item()
print(f'Test Accuracy: {acc * 100:.2f}%')

plt.plot(losses)
plt.xlabel('x100 steps')
plt.ylabel('mean loss')
plt.show()

# one picture for each digit
fig, ax = plt.subplots(2, 5)
for d in range(10):
    j = int(np.where(true.numpy() == d)[0][0])
    img, _ = test_loader.dataset[j]
    a = ax[d // 5][d % 5]
    a.imshow(img.squeeze(0), cmap='gray')
    a.set_title(f'T:{d} P:{pred[j].item()}')
    a.axis('off')
plt.show()
