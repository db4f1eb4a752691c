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
learning_rate = 0.0015
num_epochs = 3

device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')

train_dataset = torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test_dataset = torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)
train_loader = torch.utils.data.DataLoader(dataset=train_dataset, batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(dataset=test_dataset, batch_size=batch_size, shuffle=False)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size
        self.from_x = nn.Linear(input_size, hidden_size * 4)
        self.from_h = nn.Linear(hidden_size, hidden_size * 4)

    def forward(self, x, h_prev, c_prev):
        a = self.from_x(x) + self.from_h(h_prev)
        i, f, g, o = torch.split(a, self.hidden_size, dim=1)
        c_t = f.sigmoid() * c_prev + i.sigmoid() * g.tanh()
        h_t = o.sigmoid() * c_t.tanh()
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.n_hidden = hidden_size
        self.output = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], self.n_hidden)
        c = x.new_zeros(x.shape[0], self.n_hidden)
        for row in x.unbind(dim=1):
            h, c = self.cell(row, h, c)
        return self.output(c)


model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)

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

        if (i + 1) % 100 == 0:
            print(f'Epoch [{epoch+1}/{num_epochs}], Step [{i+1}/{total_step}], Loss: {loss.item():.4f}')

model.eval()
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
print(f'Test Accuracy: {100 * correct / total:.2f}%')

images, labels = next(iter(test_loader))
with torch.no_grad():
    predicted = model(images.reshape(-1, 28, 28).to(device)).argmax(dim=1).cpu()
fig, axes = plt.subplots(2, 5, figsize=(10, 5))
for d, ax in enumerate(axes.flat):
    k = (labels == d).nonzero()[0].item()
    ax.imshow(images[k].squeeze(), cmap='gray')
    ax.set_title(f'True: {labels[k].item()} Pred: {predicted[k].item()}')
    ax.axis('off')
plt.tight_layout()
plt.show()
