# Lab 7 homework
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt
import time

# ---------- settings (I tried several) ----------
input_size = 28
hidden_size = 128
num_layers = 1
num_classes = 10
batch_size = 128
learning_rate = 0.001
num_epochs = 4

device = "cuda" if torch.cuda.is_available() else "cpu"
print("device:", device)

# ---------- data ----------
to_tensor = transforms.ToTensor()
train_dataset = torchvision.datasets.MNIST(root='./data', train=True, transform=to_tensor, download=True)
test_dataset = torchvision.datasets.MNIST(root='./data', train=False, transform=to_tensor, download=True)
train_loader = torch.utils.data.DataLoader(train_dataset, batch_size=batch_size, shuffle=True, num_workers=2)
test_loader = torch.utils.data.DataLoader(test_dataset, batch_size=batch_size, num_workers=2)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size
        self.from_x = nn.Linear(input_size, hidden_size * 4)
        self.from_h = nn.Linear(hidden_size, hidden_size * 4)

    def forward(self, x, h_prev, c_prev):
        a = self.from_x(x) + self.from_h(h_prev)
        i, f, g, o = torch.split(a, self.hidden_size, dim=1)
        c_t = f.sigmoid() * c_prev + i.sigmoid() * g.tanh()
        h_t = o.sigmoid() * c_t.tanh()
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super(ManualLSTMClassifier, self).__init__()
        self.hidden_size = hidden_size
        self.lstm_cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        batch = x.size(0)
        h_t = torch.randn(batch, self.hidden_size, dtype=x.dtype, device=x.device)
        c_t = torch.zeros(batch, self.hidden_size, dtype=x.dtype, device=x.device)
        for t in range(x.size(1)):
            h_t, c_t = self.lstm_cell(x[:, t, :], h_t, c_t)
        out = self.fc(h_t)
        return out


model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)


def train(model, loader):
    t0 = time.time()
    for epoch in range(num_epochs):
        model.train()
        for i, (x, y) in enumerate(loader):
            x = x.reshape(-1, 28, 28).to(device)
            y = y.to(device)
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            if i % 100 == 99:
                print('Epoch [%d/%d], Step [%d/%d], Loss: %.4f' % (epoch + 1, num_epochs, i + 1, len(loader), loss.item()))
    print('%.0f seconds' % (time.time() - t0))


train(model, train_loader)


def test(model, loader):
    model.eval()
    good, n = 0, 0
    with torch.no_grad():
        for x, y in loader:
            p = F.softmax(model(x.reshape(-1, 28, 28).to(device)), dim=1).argmax(dim=1).cpu()
            good += int((p == y).sum())
            n += len(y)
    return good / n


print('Test Accuracy: %.2f%%' % (100 * test(model, test_loader)))

# ten test pictures
for k in range(10):
    x, y = test_dataset[k]
    with torch.no_grad():
        p = int(model(x.reshape(-1, 28, 28).to(device)).argmax())
    print('picture', k, 'true', y, 'predicted', p)
    plt.subplot(2, 5, k + 1)
    plt.imshow(x.view(28, 28), cmap='gray')
    plt.xlabel('true %d / pred %d' % (y, p))
    plt.xticks([])
    plt.yticks([])
plt.savefig('pictures.png')
