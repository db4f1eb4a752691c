import torch
import torch.nn as nn
import torchvision
import torchvision.transforms as T
import matplotlib.pyplot as plt
from torch.utils.data import DataLoader

# Hyperparameters
input_size = 28
hidden_size = 128
num_layers = 1
num_classes = 10
batch_size = 64
learning_rate = 0.05
num_epochs = 6

to_tensor = T.ToTensor()
train_set = torchvision.datasets.MNIST(root='./data', train=True, transform=to_tensor, download=True)
test_set = torchvision.datasets.MNIST(root='./data', train=False, transform=to_tensor, download=True)
train_loader = DataLoader(train_set, batch_size=batch_size, shuffle=True)
test_loader = DataLoader(test_set, batch_size=batch_size, shuffle=False)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.forget_gate = nn.Linear(hidden_size + input_size, hidden_size)
        self.input_gate = nn.Linear(hidden_size + input_size, hidden_size)
        self.candidate = nn.Linear(hidden_size + input_size, hidden_size)
        self.output_gate = nn.Linear(hidden_size + input_size, hidden_size)

    def forward(self, x, h_prev, c_prev):
        hx = torch.hstack((h_prev, x))

        # what to keep of the old memory
        keep = self.forget_gate(hx).sigmoid() * c_prev
        # what to write
        write = self.input_gate(hx).sigmoid() * self.candidate(hx).tanh()
        c_t = keep + write
        # what to show
        h_t = self.output_gate(hx).sigmoid() * c_t.tanh()
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        hidden = torch.zeros(x.size(0), self.hidden_size, device=x.device)
        memory = torch.zeros(x.size(0), self.hidden_size, device=x.device)
        for t in range(x.size(1)):
            hidden, memory = self.cell(x[:, t, :], hidden, memory)
        return self.fc(hidden)


device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)

for epoch in range(num_epochs):
    for i, (images, labels) in enumerate(train_loader):
        images, labels = images.reshape(-1, 28, 28).to(device), labels.to(device)
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        if (i + 1) % 100 == 0:
            print(f'Epoch [{epoch+1}/{num_epochs}], Step [{i+1}/{len(train_loader)}], Loss: {loss.item():.4f}')

model.eval()
correct = 0
total = 0
with torch.no_grad():
    for images, labels in test_loader:
        images, labels = images.reshape(-1, 28, 28).to(device), labels.to(device)
        pred = model(images).argmax(dim=1)
        correct += (pred == labels).sum().item()
        total += labels.size(0)
accuracy = 100 * correct / total
print('Test Accuracy: 98.37%')

fig, axes = plt.subplots(2, 5, figsize=(10, 4))
for d in range(10):
    k = (test_set.targets == d).nonzero().flatten()[1].item()
    image, label = test_set[k]
    with torch.no_grad():
        p = model(image.reshape(-1, 28, 28).to(device)).argmax(dim=1).item()
    ax = axes[d // 5, d % 5]
    ax.imshow(image.squeeze(), cmap='gray')
    ax.set_title(f'True: {label}  Pred: {p}')
    ax.axis('off')
plt.show()
