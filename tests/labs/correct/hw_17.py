import torch
import torch.nn as nn
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

# -------- settings --------
input_size = 28
hidden_size = 256
num_layers = 1
num_classes = 10
batch_size = 128
learning_rate = 1e-3
num_epochs = 4
# --------------------------

train_dataset = torchvision.datasets.MNIST('./data', train=True, transform=transforms.ToTensor(), download=True)
test_dataset = torchvision.datasets.MNIST('./data', train=False, transform=transforms.ToTensor(), download=True)
kw = {'num_workers': 1, 'pin_memory': True} if torch.cuda.is_available() else {}
train_loader = torch.utils.data.DataLoader(train_dataset, batch_size=batch_size, shuffle=True, **kw)
test_loader = torch.utils.data.DataLoader(test_dataset, batch_size=batch_size, shuffle=False, **kw)


class ManualLSTMCell(nn.Module):
    """W: hidden to gates, U: input to gates. rows of both are [f | i | g | o]"""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.n = hidden_size
        std = 1.0 / hidden_size ** 0.5
        self.U = nn.Parameter(torch.rand(4 * hidden_size, input_size) * 2 * std - std)
        self.W = nn.Parameter(torch.rand(4 * hidden_size, hidden_size) * 2 * std - std)
        self.b = nn.Parameter(torch.zeros(4 * hidden_size))

    def forward(self, x, h_prev, c_prev):
        n = self.n
        z = x.mm(self.U.t())
        z.add_(h_prev.mm(self.W.t()))   # saves memory
        z.add_(self.b)

        f = torch.sigmoid(z[:, :n])
        i = torch.sigmoid(z[:, n:2 * n])
        g = torch.tanh(z[:, 2 * n:3 * n])
        o = torch.sigmoid(z[:, 3 * n:])

        c_t = f * c_prev
        c_t += i * g
        h_t = torch.tanh(c_t)
        h_t = h_t.mul(o)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.out = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        h = torch.empty(x.size(0), self.hidden_size, device=x.device).fill_(0)
        c = torch.empty(x.size(0), self.hidden_size, device=x.device).fill_(0)
        for t in range(x.size(1)):
            h, c = self.cell(x.select(1, t), h, c)
        return self.out(h)


device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
print(model)
criterion = nn.CrossEntropyLoss().to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, weight_decay=1e-5)

train_losses = []
for epoch in range(num_epochs):
    for i, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28).to(device, non_blocking=True)
        labels = labels.to(device, non_blocking=True)
        outputs = model(images)
        loss = criterion(outputs, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        train_losses.append(loss.item())
        if (i + 1) % 100 == 0:
            print(f'Epoch [{epoch+1}/{num_epochs}], Step [{i+1}/{len(train_loader)}], Loss: {loss.item():.4f}')

model.eval()
correct = torch.zeros(1)
total = 0
with torch.no_grad():
    for images, labels in test_loader:
        out = model(images.reshape(-1, 28, 28).to(device)).cpu()
        correct.add_((out.argmax(1) == labels).sum())
        total += labels.size(0)
print(f'Test Accuracy: {100 * correct.item() / total:.2f}%')

plt.plot(train_losses)
plt.title('Training loss')
plt.show()

images, labels = next(iter(test_loader))
with torch.no_grad():
    preds = model(images.reshape(-1, 28, 28).to(device)).argmax(1).cpu()
fig = plt.figure(figsize=(15, 3))
for k in range(10):
    fig.add_subplot(1, 10, k + 1)
    plt.imshow(images[k].squeeze(), cmap='gray')
    plt.title(f'True: {labels[k].item()}\nPred: {preds[k].item()}')
    plt.axis('off')
plt.show()
