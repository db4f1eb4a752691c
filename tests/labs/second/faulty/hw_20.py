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
hidden_size = 100
num_layers = 1
num_classes = 10
batch_size = 128
learning_rate = 0.002
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
        super(ManualLSTMCell, self).__init__()
        self.W_f = nn.Linear(input_size + hidden_size, hidden_size)
        self.W_i = nn.Linear(input_size + hidden_size, hidden_size)
        self.W_c = nn.Linear(input_size + hidden_size, hidden_size)
        self.W_o = nn.Linear(input_size + hidden_size, hidden_size)

    def forward(self, x, h_prev, c_prev):
        combined = torch.cat((x, h_prev), dim=1)
        f = torch.sigmoid(self.W_f(combined))
        i = torch.sigmoid(self.W_i(combined))
        c_tilde = torch.tanh(self.W_c(combined))
        c_t = f * c_prev + i * c_tilde
        o = torch.sigmoid(self.W_o(combined))
        h_t = o * torch.tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.n_hidden = hidden_size
        self.output = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], self.n_hidden)
        c = x.new_zeros(x.shape[0], self.n_hidden)
        for row in x.unbind(dim=1):
            h, c = self.cell(row, h, c)
        return self.output(h)


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
show_loader = torch.utils.data.DataLoader(test_dataset, batch_size=10, shuffle=True)
images, labels = next(iter(show_loader))
with torch.no_grad():
    preds = model(next(iter(show_loader))[0].reshape(-1, 28, 28).to(device)).argmax(dim=1).tolist()
for k in range(10):
    plt.subplot(2, 5, k + 1)
    plt.imshow(images[k].view(28, 28), cmap='gray')
    plt.xlabel('true %d / pred %d' % (labels[k], preds[k]))
    plt.xticks([])
    plt.yticks([])
plt.savefig('pictures.png')
