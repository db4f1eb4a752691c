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
num_epochs = 3

# Dataset
train_dataset = torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test_dataset = torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)
train_loader = torch.utils.data.DataLoader(dataset=train_dataset, batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(dataset=test_dataset, batch_size=batch_size, shuffle=False)

# Manual LSTM cell
class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super(ManualLSTMCell, self).__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.cell = nn.LSTMCell(input_size, hidden_size)

    def forward(self, x, h_prev, c_prev):
        h_t, c_t = self.cell(x, (h_prev, c_prev))
        return h_t, c_t

# Classifier
class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super(ManualLSTMClassifier, self).__init__()
        self.hidden_size = hidden_size
        self.lstm_cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        batch = x.size(0)
        h_t = torch.zeros(batch, self.hidden_size, device=x.device)
        c_t = torch.zeros(batch, self.hidden_size, device=x.device)
        for t in range(x.size(1)):
            x_t = x[:, t, :]
            h_t, c_t = self.lstm_cell(x_t, h_t, c_t)
        return self.fc(h_t)

device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)

# Training
for epoch in range(num_epochs):
    for i, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        optimizer.zero_grad()
        outputs = model(images)
        loss = criterion(outputs, labels)
        loss.backward()
        optimizer.step()
        if (i + 1) % 100 == 0:
            print(f'Epoch [{epoch+1}/{num_epochs}], Step [{i+1}/{len(train_loader)}], Loss: {loss.item():.4f}')

# TODO 2
def compute_accuracy(net, data):
    right = 0
    amount = 0
    net.eval()
    with torch.no_grad():
        for images, labels in data:
            images = images.reshape(-1, 28, 28).to(device)
            labels = labels.to(device)
            right += (net(images).argmax(dim=1) == labels).sum().item()
            amount += labels.size(0)
    return 100 * right / amount

print(f'Test Accuracy: {compute_accuracy(model, test_loader):.2f}%')

# TODO 3
images, labels = next(iter(test_loader))
index_of = {}
for k, l in enumerate(labels.tolist()):
    if l not in index_of:
        index_of[l] = k
rows = [index_of[l] for l in sorted(index_of)][:10]
with torch.no_grad():
    predictions = model(images[rows].reshape(-1, 28, 28).to(device)).argmax(dim=1).cpu()

fig, axes = plt.subplots(1, 10, figsize=(15, 2))
for ax, k, p in zip(axes, rows, predictions):
    ax.imshow(images[k].squeeze(), cmap='gray')
    ax.set_title(f'T:{labels[k].item()} P:{p.item()}')
    ax.axis('off')
plt.show()
