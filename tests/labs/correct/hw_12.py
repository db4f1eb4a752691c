# LSTM with column vectors like in the formulas on the slides: every column is one picture of the batch
import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

torch.manual_seed(42)

input_size = 28
hidden_size = 100
num_layers = 1
num_classes = 10
batch_size = 50
learning_rate = 0.001
num_epochs = 3

train_dataset = torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test_dataset = torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)
train_loader = torch.utils.data.DataLoader(train_dataset, batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(test_dataset, batch_size=batch_size, shuffle=False)


def weight(rows, cols):
    w = torch.randn(rows, cols) / (cols ** 0.5)
    return nn.Parameter(w)


def bias(rows):
    return nn.Parameter(torch.zeros(rows, 1))


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.W_i, self.U_i, self.b_i = weight(hidden_size, hidden_size), weight(hidden_size, input_size), bias(hidden_size)
        self.W_f, self.U_f, self.b_f = weight(hidden_size, hidden_size), weight(hidden_size, input_size), bias(hidden_size)
        self.W_o, self.U_o, self.b_o = weight(hidden_size, hidden_size), weight(hidden_size, input_size), bias(hidden_size)
        self.W, self.U, self.b = weight(hidden_size, hidden_size), weight(hidden_size, input_size), bias(hidden_size)

    def forward(self, x, h_prev, c_prev):
        # x: (28, B)   h_prev, c_prev: (hidden, B)
        i = torch.sigmoid(torch.matmul(self.W_i, h_prev) + torch.matmul(self.U_i, x) + self.b_i)
        f = torch.sigmoid(torch.matmul(self.W_f, h_prev) + torch.matmul(self.U_f, x) + self.b_f)
        o = torch.sigmoid(torch.matmul(self.W_o, h_prev) + torch.matmul(self.U_o, x) + self.b_o)
        c_tilde = torch.tanh(torch.matmul(self.W, h_prev) + torch.matmul(self.U, x) + self.b)
        c_t = f * c_prev + i * c_tilde
        h_t = o * torch.tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.W_out = weight(num_classes, hidden_size)
        self.b_out = bias(num_classes)

    def forward(self, x):
        B = x.size(0)
        x = x.permute(1, 2, 0)          # (B, T, 28) -> (T, 28, B)
        h = torch.zeros(self.hidden_size, B, device=x.device)
        c = torch.zeros(self.hidden_size, B, device=x.device)
        for t in range(x.size(0)):
            h, c = self.cell(x[t], h, c)
        logits = torch.matmul(self.W_out, h) + self.b_out     # (10, B)
        return logits.t()                                     # CrossEntropyLoss wants (B, 10)


device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)

for epoch in range(num_epochs):
    for i, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        logits = model(images)
        loss = criterion(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (i + 1) % 100 == 0:
            print(f'Epoch [{epoch+1}/{num_epochs}], Step [{i+1}/{len(train_loader)}], Loss: {loss.item():.4f}')

correct = 0
total = 0
with torch.no_grad():
    for images, labels in test_loader:
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        predicted = torch.argmax(model(images), dim=1)
        correct += (predicted == labels).sum().item()
        total += labels.size(0)
accuracy = 100 * correct / total
print(f'Test Accuracy: {accuracy:.2f}%')

# pictures
imgs = []
for d in range(10):
    for img, lab in test_dataset:
        if lab == d:
            imgs.append(img)
            break
imgs = torch.stack(imgs).reshape(-1, 28, 28)
with torch.no_grad():
    preds = torch.argmax(model(imgs.to(device)), dim=1)
fig, axes = plt.subplots(1, 10, figsize=(15, 2))
for d in range(10):
    axes[d].imshow(imgs[d].numpy(), cmap='gray')
    axes[d].set_title(f'T={d}, P={preds[d].item()}')
    axes[d].axis('off')
plt.show()
