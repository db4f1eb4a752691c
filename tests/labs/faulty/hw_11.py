import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

input_size = 28
hidden_size = 64
num_layers = 1
num_classes = 10
batch_size = 128
learning_rate = 0.002
num_epochs = 4

train_dataset = torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test_dataset = torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)
train_loader = torch.utils.data.DataLoader(train_dataset, batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(test_dataset, batch_size, shuffle=False)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hs = hidden_size
        self.linear = nn.Linear(input_size + hidden_size, hidden_size * 4)

    def forward(self, x, h_prev, c_prev):
        hs = self.hs
        y = self.linear(torch.cat((h_prev, x), 1))
        s = torch.sigmoid(y[:, :hs * 3])
        f_t, i_t, o_t = s[:, :hs], s[:, hs:hs * 2], s[:, hs * 2:]
        c_tilde = torch.tanh(y[:, hs * 3:])
        c_t = f_t * c_prev + i_t * c_tilde
        h_t = o_t * torch.tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.lstm_cell = ManualLSTMCell(input_size, hidden_size)
        self.linear_out = nn.Linear(hidden_size, num_classes)
        self.h = None
        self.c = None

    def forward(self, x):
        n = x.shape[0]
        if self.h is None or self.h.shape[0] != n:
            self.h = torch.zeros(n, self.hidden_size, device=x.device)
            self.c = torch.zeros(n, self.hidden_size, device=x.device)
        h, c = self.h, self.c

        for t in range(x.shape[1]):
            h, c = self.lstm_cell(x[:, t], h, c)

        self.h, self.c = h.detach(), c.detach()
        return self.linear_out(h)


device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)

for e in range(num_epochs):
    s = 0
    for images, labels in train_loader:
        s += 1
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        optimizer.zero_grad()
        y = model(images)
        loss = criterion(y, labels)
        loss.backward()
        optimizer.step()
        if s % 100 == 0:
            print(f'Epoch [{e + 1}/{num_epochs}], Step [{s}/{len(train_loader)}], Loss: {loss.item():.4f}')

model.eval()
good = 0
with torch.no_grad():
    for images, labels in test_loader:
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        good += model(images).argmax(1).eq(labels).sum().item()
print(f'Test Accuracy: {good / len(test_loader.dataset) * 100:.2f}%')

# ten examples
batch_images, batch_labels = next(iter(test_loader))
ten_images = batch_images[:10].reshape(-1, 28, 28)
ten_labels = batch_labels[:10]
with torch.no_grad():
    ten_pred = model(ten_images.to(device)).argmax(1).cpu()
for n in range(10):
    plt.subplot(2, 5, n + 1)
    plt.imshow(ten_images[n], cmap='gray')
    plt.title(f'{ten_labels[n].item()} / {ten_pred[n].item()}')
    plt.axis('off')
plt.suptitle('true / predicted')
plt.show()
