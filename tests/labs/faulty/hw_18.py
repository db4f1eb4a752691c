"""Manual LSTM on MNIST, Lab 7 homework."""
import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

input_size = 28
hidden_size = 110
num_layers = 1
num_classes = 10
batch_size = 50
learning_rate = 0.0008
num_epochs = 4

train_dataset = torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test_dataset = torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)
train_loader = torch.utils.data.DataLoader(dataset=train_dataset, batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(dataset=test_dataset, batch_size=batch_size, shuffle=False)


def lstm_step(x, h, c, Wx, Wh, b):
    """Equations of the slides. Wx, Wh and b are lists in the order i, f, o, candidate."""
    zi, zf, zo, zc = [x.mm(Wx[k]) + h.mm(Wh[k]) + b[k] for k in range(4)]
    i, f, o = torch.sigmoid(zi), torch.sigmoid(zf), torch.sigmoid(zo)
    c_new = f * c + i * torch.tanh(zc)
    h_new = o * torch.tanh(c_new)
    return h_new, c_new


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.Wx = nn.ParameterList([nn.Parameter(torch.randn(input_size, hidden_size) * 0.08) for _ in range(4)])
        self.Wh = nn.ParameterList([nn.Parameter(torch.randn(hidden_size, hidden_size) * 0.08) for _ in range(4)])
        self.b = nn.ParameterList([nn.Parameter(torch.zeros(hidden_size)) for _ in range(4)])

    def forward(self, x, h_prev, c_prev):
        h_t, c_t = lstm_step(x, h_prev, c_prev, self.Wx, self.Wh, self.b)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.to_class = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        h = torch.zeros(len(x), self.hidden_size, device=x.device)
        c = torch.zeros(len(x), self.hidden_size, device=x.device)
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t, :], h, c)
        return self.to_class(h)


def evaluate(net, data_loader):
    net.eval()
    correct, total = 0, 0
    with torch.no_grad():
        for images, labels in data_loader:
            images = images.reshape(-1, 28, 28).to(device)
            labels = labels.to(device)
            _, guess = net(images).max(1)
            correct += guess.eq(labels).sum().item()
            total += labels.size(0)
    return 100.0 * correct / total


device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)

for epoch in range(num_epochs):
    model.train()
    for i, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        if (i + 1) % 100 == 0:
            print(f'Epoch [{epoch+1}/{num_epochs}], Step [{i+1}/{len(train_loader)}], Loss: {loss.item():.4f}')

accuracy = evaluate(model, train_loader)
print(f'Test Accuracy: {accuracy:.2f}%')

# pictures with true label and prediction
plt.figure(figsize=(10, 4.5))
shown = 0
for image, label in test_dataset:
    if label != shown:
        continue
    with torch.no_grad():
        pred = model(image.reshape(-1, 28, 28).to(device)).argmax(1).item()
    plt.subplot(2, 5, shown + 1)
    plt.imshow(image.reshape(28, 28), cmap='gray')
    plt.title(f'True {label}, Pred {pred}')
    plt.axis('off')
    shown += 1
    if shown == 10:
        break
plt.show()
