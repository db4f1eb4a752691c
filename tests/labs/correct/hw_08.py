import torch
import torch.nn as nn
import torch.optim as optim
from torchvision import datasets, transforms
from torch.utils.data import DataLoader
import matplotlib.pyplot as plt

# hyperparameters (the ones from the template, I only changed the number of epochs)
input_size = 28
hidden_size = 32
num_layers = 1
num_classes = 10
batch_size = 128
learning_rate = 0.00006
num_epochs = 20

train_dataset = datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test_dataset = datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)
train_loader = DataLoader(train_dataset, batch_size=batch_size, shuffle=True)
test_loader = DataLoader(test_dataset, batch_size=batch_size, shuffle=False)

class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super(ManualLSTMCell, self).__init__()
        # W for h, U for x like on the slides, the bias is inside U
        self.Wi = nn.Linear(hidden_size, hidden_size, bias=False)
        self.Ui = nn.Linear(input_size, hidden_size)
        self.Wf = nn.Linear(hidden_size, hidden_size, bias=False)
        self.Uf = nn.Linear(input_size, hidden_size)
        self.Wo = nn.Linear(hidden_size, hidden_size, bias=False)
        self.Uo = nn.Linear(input_size, hidden_size)
        self.Wc = nn.Linear(hidden_size, hidden_size, bias=False)
        self.Uc = nn.Linear(input_size, hidden_size)

    def forward(self, x, h_prev, c_prev):
        i = torch.sigmoid(self.Wi(h_prev) + self.Ui(x))
        f = torch.sigmoid(self.Wf(h_prev) + self.Uf(x))
        o = torch.sigmoid(self.Wo(h_prev) + self.Uo(x))
        c_tilde = torch.tanh(self.Wc(h_prev) + self.Uc(x))
        c_t = f*c_prev + i*c_tilde
        h_t = o*torch.tanh(c_t)
        return h_t, c_t

class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super(ManualLSTMClassifier, self).__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        h = torch.zeros(x.size(0), self.hidden_size).to(device)
        c = torch.zeros(x.size(0), self.hidden_size).to(device)
        for i in range(x.size(1)):
            row = x[:, i, :]
            h, c = self.cell(row, h, c)
        return self.fc(h)

device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)

for epoch in range(num_epochs):
    for i, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        outputs = model(images)
        loss = criterion(outputs, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (i+1) % 100 == 0:
            print('Epoch [{}/{}], Step [{}/{}], Loss: {:.4f}'.format(epoch+1, num_epochs, i+1, len(train_loader), loss.item()))

# testing
with torch.no_grad():
    correct = 0
    total = 0
    for images, labels in test_loader:
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        outputs = model(images)
        _, predicted = torch.max(outputs, 1)
        total += labels.size(0)
        correct += (predicted == labels).sum().item()
    print('Test Accuracy: {:.2f}%'.format(100 * correct / total))

# visualization
shown = [None]*10
for images, labels in test_loader:
    for img, lab in zip(images, labels):
        if shown[lab.item()] is None:
            shown[lab.item()] = img
    if all(s is not None for s in shown):
        break
plt.figure(figsize=(10, 4))
for d in range(10):
    out = model(shown[d].reshape(-1, 28, 28).to(device))
    p = torch.argmax(out).item()
    plt.subplot(2, 5, d+1)
    plt.imshow(shown[d].reshape(28, 28), cmap='gray')
    plt.title('True: ' + str(d) + ', Pred: ' + str(p))
    plt.axis('off')
plt.tight_layout()
plt.show()
