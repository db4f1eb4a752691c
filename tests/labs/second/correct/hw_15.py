import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

# Hyper-parameters
input_size = 28
hidden_size = 110
num_layers = 1
num_classes = 10
batch_size = 128
learning_rate = 0.002
num_epochs = 4

device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')

train_dataset = torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test_dataset = torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)
train_loader = torch.utils.data.DataLoader(train_dataset, batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(test_dataset, batch_size=batch_size, shuffle=False)


def weights(hidden, inp):
    s = 1.0 / hidden ** 0.5
    return nn.ParameterList([
        nn.Parameter(torch.empty(hidden, hidden).uniform_(-s, s)),
        nn.Parameter(torch.empty(hidden, inp).uniform_(-s, s)),
        nn.Parameter(torch.empty(hidden, 1).uniform_(-s, s)),
    ])


class ManualLSTMCell(nn.Module):
    # like in the lecture: vectors are columns, W h + U x + b
    def __init__(self, input_size, hidden_size):
        super(ManualLSTMCell, self).__init__()
        self.f = weights(hidden_size, input_size)
        self.i = weights(hidden_size, input_size)
        self.o = weights(hidden_size, input_size)
        self.g = weights(hidden_size, input_size)

    @staticmethod
    def affine(params, h, x):
        W, U, b = params
        return W @ h + U @ x + b

    def forward(self, x, h_prev, c_prev):
        x, h, c = x.T, h_prev.T, c_prev.T
        f = torch.sigmoid(self.affine(self.f, h, x))
        i = torch.sigmoid(self.affine(self.i, h, x))
        o = torch.sigmoid(self.affine(self.o, h, x))
        g = torch.tanh(self.affine(self.g, h, x))
        c = f * c + i * g
        h = o * torch.tanh(c)
        return h.T, c.T


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super(ManualLSTMClassifier, self).__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.W_out = nn.Parameter(torch.randn(num_classes, hidden_size) * 0.05)
        self.b_out = nn.Parameter(torch.zeros(num_classes, 1))

    def forward(self, x):
        h = torch.zeros(x.size(0), self.hidden_size, device=x.device, dtype=x.dtype)
        c = torch.zeros(x.size(0), self.hidden_size, device=x.device, dtype=x.dtype)
        x = x.transpose(0, 1)
        for t in range(len(x)):
            h, c = self.cell(x[t], h, c)
        return (self.W_out @ h.T + self.b_out).T


model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss(reduction='sum')
optimizer = optim.Adam(model.parameters(), lr=learning_rate)

for epoch in range(num_epochs):
    model.train()
    for i, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        loss = criterion(model(images), labels) / labels.size(0)
        for p in model.parameters():
            p.grad = None
        loss.backward()
        optimizer.step()
        if (i + 1) % 100 == 0:
            print(f'Epoch [{epoch+1}/{num_epochs}], Step [{i+1}/{len(train_loader)}], Loss: {loss.item():.4f}')

# test, right answers counted per digit
model.eval()
right = [0] * 10
count = [0] * 10
with torch.no_grad():
    for images, labels in test_loader:
        p = model(images.reshape(-1, 28, 28).to(device)).argmax(1).cpu()
        for a, b in zip(labels.tolist(), p.tolist()):
            count[a] += 1
            right[a] += a == b
for d in range(10):
    print('digit', d, ':', right[d], 'of', count[d])
print(f'Test Accuracy: {100 * sum(right) / sum(count):.2f}%')

# ten pictures, one figure each
truth, guess = [], []
for d in range(10):
    k = int((test_dataset.targets == d).int().argmax())
    image, label = test_dataset[k]
    with torch.no_grad():
        p = model(image.reshape(-1, 28, 28).to(device)).argmax(1).item()
    truth.append(label)
    guess.append(p)
    plt.figure()
    plt.imshow(image.reshape(28, 28), cmap='gray')
    plt.suptitle('True label: %d   Predicted: %d' % (label, p))
    plt.show()
print('True     :', truth)
print('Predicted:', guess)
