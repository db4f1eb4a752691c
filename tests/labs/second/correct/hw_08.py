import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

# Hyperparameters
input_size = 28
hidden_size = 128
num_layers = 1
num_classes = 10
batch_size = 128
learning_rate = 0.001
num_epochs = 5

torch.manual_seed(7)
device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')

train_loader = torch.utils.data.DataLoader(
    torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True),
    batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(
    torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True),
    batch_size=1000, shuffle=False)


class Gate(nn.Module):
    """activation(W h + U x + b)"""

    def __init__(self, n_in, n_hid, activation, bias=0.0):
        super(Gate, self).__init__()
        self.W = nn.Parameter(nn.init.orthogonal_(torch.empty(n_hid, n_hid)))
        self.U = nn.Parameter(nn.init.xavier_uniform_(torch.empty(n_hid, n_in)))
        self.b = nn.Parameter(torch.full((n_hid,), bias))
        self.activation = activation

    def __call__(self, x, h):
        return self.activation(h.mm(self.W.t()) + x.mm(self.U.t()) + self.b)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super(ManualLSTMCell, self).__init__()
        self.forget = Gate(input_size, hidden_size, torch.sigmoid, bias=1.0)
        self.input = Gate(input_size, hidden_size, torch.sigmoid)
        self.output = Gate(input_size, hidden_size, torch.sigmoid)
        self.candidate = Gate(input_size, hidden_size, torch.tanh)

    def forward(self, x, h_prev, c_prev):
        c_t = self.forget(x, h_prev) * c_prev + self.input(x, h_prev) * self.candidate(x, h_prev)
        h_t = self.output(x, h_prev) * torch.tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super(ManualLSTMClassifier, self).__init__()
        self.hidden_size = hidden_size
        self.lstm_cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def init_state(self, like):
        return [torch.zeros(like.size(0), self.hidden_size, device=like.device, dtype=like.dtype) for _ in range(2)]

    def forward(self, x):
        h_t, c_t = self.init_state(x)
        for t in range(x.size(1)):
            h_t, c_t = self.lstm_cell(x[:, t, :], h_t, c_t)
        return self.fc(h_t)


model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)


def train():
    record = []
    total_step = len(train_loader)
    for epoch in range(num_epochs):
        for i, (images, labels) in enumerate(train_loader):
            images = images.reshape(-1, 28, 28).to(device)
            labels = labels.to(device)
            outputs = model(images)
            loss = criterion(outputs, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            record.append(loss.item())
            if (i + 1) % 100 == 0:
                print(f'Epoch [{epoch+1}/{num_epochs}], Step [{i+1}/{total_step}], Loss: {loss.item():.4f}')
    return record


def evaluate():
    correct = 0
    total = 0
    with torch.no_grad():
        for images, labels in test_loader:
            images = images.reshape(-1, 28, 28).to(device)
            labels = labels.to(device)
            predicted = torch.softmax(model(images), dim=1).argmax(dim=1)
            total += labels.size(0)
            correct += (predicted == labels).sum().item()
    return 100 * correct / total


def show():
    images, labels = next(iter(test_loader))
    with torch.no_grad():
        predicted = model(images.reshape(-1, 28, 28).to(device)).argmax(dim=1).cpu()
    print('labels     ', *labels[:10].tolist())
    print('predictions', *predicted[:10].tolist())
    grid = torch.cat(list(images[:10, 0]), dim=1)
    plt.figure(figsize=(12, 2))
    plt.imshow(grid, cmap='gray')
    plt.title('true: %s   predicted: %s' % (labels[:10].tolist(), predicted[:10].tolist()))
    plt.axis('off')
    plt.show()


plt.plot(train())
plt.title('training loss')
plt.show()
print(f'Test Accuracy: {evaluate():.2f}%')
show()
