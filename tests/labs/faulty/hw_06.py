"""
Homework Lab 7: LSTM cell by hand.
The four gates are kept in one tensor with a leading axis (0 = f, 1 = i, 2 = o, 3 = candidate)
and the products are done by einsum.
"""
import torch
from torch import nn
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

input_size = 28
hidden_size = 80
num_layers = 1
num_classes = 10
batch_size = 128
learning_rate = 0.003
num_epochs = 3

train_loader = torch.utils.data.DataLoader(
    torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True),
    batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(
    torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True),
    batch_size=batch_size, shuffle=False)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.W = nn.Parameter(torch.randn(4, hidden_size, hidden_size) / hidden_size ** 0.5)
        self.U = nn.Parameter(torch.randn(4, hidden_size, input_size) / input_size ** 0.5)
        self.b = nn.Parameter(torch.zeros(4, 1, hidden_size))

    def forward(self, x, h_prev, c_prev):
        pre = torch.einsum('gij,nj->gni', self.W, h_prev) \
            + torch.einsum('gij,nj->gni', self.U, x) \
            + self.b
        forget, inp, out = torch.sigmoid(pre[:3])
        candidate = torch.tanh(pre[3])
        c_t = inp * candidate
        h_t = out * torch.tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.W_out = nn.Parameter(torch.randn(num_classes, hidden_size) / hidden_size ** 0.5)
        self.b_out = nn.Parameter(torch.zeros(num_classes))

    def forward(self, x):
        h = c = torch.zeros(x.size(0), self.hidden_size, device=x.device)
        for step in range(x.size(1)):
            h, c = self.cell(x[:, step], h, c)
        return torch.einsum('kh,nh->nk', self.W_out, h) + self.b_out


device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)

for epoch in range(num_epochs):
    for i, (images, labels) in enumerate(train_loader):
        images = images.squeeze(1).reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        logits = model(images)
        loss = criterion(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (i + 1) % 100 == 0:
            print(f'Epoch [{epoch+1}/{num_epochs}], Step [{i+1}/{len(train_loader)}], Loss: {loss:.4f}')

right = 0
count = 0
model.eval()
with torch.no_grad():
    for images, labels in test_loader:
        images = images.squeeze(1).reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        right += torch.sum(model(images).argmax(-1) == labels).item()
        count += labels.numel()
print(f'Test Accuracy: {right / count:.2%}')

images, labels = next(iter(test_loader))
pred = model(images.reshape(-1, 28, 28).to(device)).argmax(-1).cpu()
for k in range(10):
    plt.subplot(2, 5, k + 1)
    plt.imshow(images[k].squeeze(), cmap='gray_r')
    plt.xticks([])
    plt.yticks([])
    plt.xlabel(f'true {labels[k].item()}, pred {pred[k].item()}')
plt.show()
