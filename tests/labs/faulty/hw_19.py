import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

# Hyperparameters
input_size = 28
hidden_size = 200
num_layers = 1
num_classes = 10
batch_size = 128
learning_rate = 0.001
num_epochs = 7

train_dataset = torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test_dataset = torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)
train_loader = torch.utils.data.DataLoader(train_dataset, batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(test_dataset, batch_size=batch_size, shuffle=False)

class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        # f, i and o together, the candidate alone
        self.fio = nn.Linear(input_size + hidden_size, 3 * hidden_size)
        self.cand = nn.Linear(input_size + hidden_size, hidden_size)

    def forward(self, x, h_prev, c_prev):
        v = torch.cat([x, h_prev], dim=1)
        f, i, o = torch.chunk(torch.sigmoid(self.fio(v)), 3, dim=1)
        c_tilde = torch.tanh(self.cand(v))
        c_t = torch.addcmul(f * c_prev, i, c_tilde)
        h_t = o * torch.tanh(c_t)
        return h_t, c_t

class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.lstm_cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        x = x.transpose(0, 1)                       # (28 steps, batch, 28)
        h = torch.zeros(x.size(1), self.hidden_size, device=x.device)
        c = torch.zeros_like(h)
        for x_t in x:
            h, c = self.lstm_cell(x_t, h, c)
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
        if (i + 1) % 100 == 0:
            print(f'Epoch [{epoch+1}/{num_epochs}], Step [{i+1}/{len(train_loader)}], Loss: {loss.item():.4f}')

# Test the model
model.eval()
correct = 0
total = 0
with torch.no_grad():
    for images, labels in test_loader:
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        outputs = model(images)
        predicted = outputs.argmax(dim=1)
        correct += (predicted == labels).sum().item()
        total += batch_size
print(f'Test Accuracy: {100 * correct / total:.2f}%')

# Visualization
ten_images, ten_labels = [], []
for digit in range(10):
    for image, label in test_dataset:
        if label == digit:
            ten_images.append(image)
            ten_labels.append(label)
            break
x = torch.stack(ten_images).reshape(-1, 28, 28)
with torch.no_grad():
    ten_pred = model(x.to(device)).argmax(dim=1).tolist()
plt.figure(figsize=(10, 4))
for k in range(10):
    plt.subplot(2, 5, k + 1)
    plt.imshow(x[k], cmap='gray')
    plt.title(f'True: {ten_labels[k]}\nPred: {ten_pred[k]}')
    plt.axis('off')
plt.tight_layout()
plt.show()
