import functools
import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

input_size = 28
hidden_size = 100
num_layers = 1
num_classes = 10
batch_size = 100
learning_rate = 0.001
num_epochs = 5
device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')

train_loader = torch.utils.data.DataLoader(torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True), batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True), batch_size=batch_size, shuffle=False)


# everything by hand, also the activation functions
def my_sigmoid(z):
    return 1 / (1 + torch.exp(-z))


def my_tanh(z):
    return 2 * my_sigmoid(2 * z) - 1


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.lin = nn.ModuleList(nn.Linear(input_size + hidden_size, hidden_size) for _ in range(4))

    def forward(self, x, h_prev, c_prev):
        v = torch.cat([h_prev, x], dim=-1)
        f, i, o, g = (act(layer(v)) for act, layer in zip([my_sigmoid] * 3 + [my_tanh], self.lin))
        return o * my_tanh(c_t := f * c_prev + i * g), c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        zero = torch.zeros(x.size(0), self.hidden_size, dtype=x.dtype, device=x.device)
        h, c = functools.reduce(lambda s, row: self.cell(row, s[0], s[1]), torch.unbind(x, dim=1), (zero, zero))
        return self.fc(h)


model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)

record = []
for epoch in range(num_epochs):
    for i, (images, labels) in enumerate(train_loader):
        optimizer.zero_grad()
        (loss := criterion(model(images.reshape(-1, 28, 28).to(device)), labels.to(device))).backward()
        optimizer.step()
        record.append(loss.item())
        if (n := i + 1) % 100 == 0:
            print(f'Epoch [{epoch+1}/{num_epochs}], Step [{n}/{len(train_loader)}], Loss: {record[-1]:.4f}')

plt.plot(record)
plt.savefig('loss.png')
plt.close()

total, correct = 0, 0
with torch.no_grad():
    it = iter(test_loader)
    while (batch := next(it, None)) is not None:
        images, labels = batch
        correct += torch.sum(torch.argmax(model(images.reshape(-1, 28, 28).to(device)), 1).cpu() == labels).item()
        total += len(labels)
print(f'Test Accuracy: {correct / total:.2%}')

images, labels = batch_one = next(iter(test_loader))
with torch.no_grad():
    preds = model(images[:10].reshape(-1, 28, 28).to(device)).argmax(1).tolist()
for n, p in enumerate(preds):
    plt.subplot(2, 5, n + 1)
    plt.imshow(images[n][0], cmap='binary')
    plt.xlabel(f'true {labels[n].item()}, pred {p}')
    plt.xticks([]); plt.yticks([])
plt.savefig('examples.png')
