# -*- coding: utf-8 -*-
"""Lab7 Homework"""
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
batch_size = 64
learning_rate = 0.001
num_epochs = 5

# Load MNIST
train_dataset = torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test_dataset = torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)
train_loader = torch.utils.data.DataLoader(dataset=train_dataset, batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(dataset=test_dataset, batch_size=batch_size, shuffle=False)


# LSTM cell
class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super(ManualLSTMCell, self).__init__()
        self.Wf = nn.Linear(input_size + hidden_size, hidden_size)
        self.Wi = nn.Linear(input_size + hidden_size, hidden_size)
        self.Wc = nn.Linear(input_size + hidden_size, hidden_size)
        self.Wo = nn.Linear(input_size + hidden_size, hidden_size)
        for layer in (self.Wf, self.Wi, self.Wc, self.Wo):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x, h_prev, c_prev):
        z = torch.cat([h_prev, x], dim=-1)
        ft = torch.sigmoid(self.Wf(z))
        it = torch.sigmoid(self.Wi(z))
        ct_tilde = torch.tanh(self.Wc(z))
        ct = ft * c_prev + it * ct_tilde
        ot = torch.sigmoid(self.Wo(z))
        ht = ot * torch.tanh(ct)
        return ht, ct


# Classifier
class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super(ManualLSTMClassifier, self).__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        ht = torch.zeros(x.size(0), self.hidden_size, device=x.device)
        ct = torch.zeros(x.size(0), self.hidden_size, device=x.device)
        for t in range(28):
            ht, ct = self.cell(x[:, t, :], ht, ct)
        return self.fc(ht)


device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()

cell = model.cell
params = [cell.Wf.weight, cell.Wf.bias,
          cell.Wi.weight, cell.Wi.bias,
          cell.Wc.weight, cell.Wc.bias,
          model.fc.weight, model.fc.bias]
optimizer = optim.Adam(params, lr=learning_rate)

# Train
for epoch in range(num_epochs):
    for step, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)

        outputs = model(images)
        loss = criterion(outputs, labels)

        model.zero_grad()
        loss.backward()
        optimizer.step()

        if (step + 1) % 100 == 0:
            print(f"Epoch [{epoch+1}/{num_epochs}], Step [{step+1}/{len(train_loader)}], Loss: {loss.item():.4f}")

# Test
model.eval()
correct, total = 0, 0
with torch.no_grad():
    for images, labels in test_loader:
        images, labels = images.reshape(-1, 28, 28).to(device), labels.to(device)
        predicted = torch.argmax(model(images), dim=1)
        correct += torch.sum(predicted == labels).item()
        total += labels.shape[0]
print(f"Test Accuracy: {100 * correct / total:.2f}%")

# Visualize
digits_found = [None] * 10
for image, label in test_dataset:
    if digits_found[label] is None:
        digits_found[label] = image
    if all(d is not None for d in digits_found):
        break

plt.figure(figsize=(12, 5))
with torch.no_grad():
    for label, image in enumerate(digits_found):
        guess = model(image.reshape(-1, 28, 28).to(device)).argmax(dim=1).item()
        plt.subplot(2, 5, label + 1)
        plt.imshow(image.squeeze().numpy(), cmap="gray")
        plt.title(f"True: {label} Predicted: {guess}")
        plt.axis("off")
plt.show()
