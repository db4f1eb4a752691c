import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

input_size = 28
hidden_size = 32
num_layers = 1
num_classes = 10
batch_size = 128
learning_rate = 0.0006
num_epochs = 10

train_loader = torch.utils.data.DataLoader(
    dataset=torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True),
    batch_size=batch_size,
    shuffle=True)
test_loader = torch.utils.data.DataLoader(
    dataset=torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True),
    batch_size=batch_size,
    shuffle=False)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super(ManualLSTMCell, self).__init__()
        self.input_to_all = nn.Linear(input_size, 4 * hidden_size)
        self.hidden_to_all = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.hidden_size = hidden_size

    def forward(self, x, h_prev, c_prev):
        total = self.input_to_all(x) + self.hidden_to_all(h_prev)
        f, i, c_hat, o = torch.split(total, self.hidden_size, dim=1)
        c_t = torch.sigmoid(f) * c_prev + torch.sigmoid(i) * torch.tanh(c_hat)
        h_t = torch.sigmoid(o) * torch.tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super(ManualLSTMClassifier, self).__init__()
        self.hidden_size = hidden_size
        self.lstm_cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        batch = x.size(0)
        h = torch.zeros(batch, self.hidden_size, device=x.device)
        c = torch.zeros(batch, self.hidden_size, device=x.device)
        # time first: (28, batch, 28)
        sequence = x.view(28, -1, 28)
        for row in sequence:
            h, c = self.lstm_cell(row, h, c)
        return self.fc(h)


device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)
print(model)
print('parameters:', sum(p.numel() for p in model.parameters()))

for epoch in range(num_epochs):
    for i, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        outputs = model(images)
        loss = criterion(outputs, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (i + 1) % 100 == 0:
            print(f'Epoch [{epoch+1}/{num_epochs}], Step [{i+1}/{len(train_loader)}], Loss: {loss.item():.4f}')

model.eval()
correct = 0
total = 0
show_images, show_true, show_pred = [], [], []
with torch.no_grad():
    for images, labels in test_loader:
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        predicted = model(images).argmax(1)
        correct += (predicted == labels).sum().item()
        total += labels.size(0)
        for k in range(labels.size(0)):
            if labels[k].item() not in show_true:
                show_images.append(images[k].cpu())
                show_true.append(labels[k].item())
                show_pred.append(predicted[k].item())
print(f'Test Accuracy: {100 * correct / total:.2f}%')

plt.figure(figsize=(10, 4))
for k in range(len(show_true)):
    plt.subplot(2, 5, k + 1)
    plt.imshow(show_images[k], cmap='gray')
    plt.title(f'True: {show_true[k]}  Pred: {show_pred[k]}')
    plt.axis('off')
plt.tight_layout()
plt.show()
