import torch
from torch import nn, optim
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
import matplotlib.pyplot as plt

input_size, hidden_size, num_layers, num_classes = 28, 128, 1, 10
batch_size = 64
learning_rate = 1e-3
num_epochs = 5

tf = transforms.ToTensor()
train_data = datasets.MNIST(root='./data', train=True, transform=tf, download=True)
test_data = datasets.MNIST(root='./data', train=False, transform=tf, download=True)
train_loader = DataLoader(train_data, batch_size=batch_size, shuffle=True)
test_loader = DataLoader(test_data, batch_size=batch_size, shuffle=False)


class ManualLSTMCell(nn.Module):
    """All four blocks come out of a single matrix product and are split afterwards."""

    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.gates = nn.Linear(input_size + hidden_size, 4 * hidden_size)

    def forward(self, x, h_prev, c_prev):
        z = self.gates(torch.cat([x, h_prev], dim=1))
        i, f, o, g = z.chunk(4, dim=1)
        i = i.sigmoid()
        f = f.sigmoid()
        o = o.sigmoid()
        g = g.sigmoid()
        c_t = f * c_prev + i * g
        h_t = o * c_t.tanh()
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.out = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], self.hidden_size)
        c = x.new_zeros(x.shape[0], self.hidden_size)
        for row in x.unbind(dim=1):
            h, c = self.cell(row, h, c)
        return self.out(h)


device = 'cuda' if torch.cuda.is_available() else 'cpu'
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)

losses = []
for epoch in range(num_epochs):
    for step, (images, labels) in enumerate(train_loader, start=1):
        images, labels = images.view(-1, 28, 28).to(device), labels.to(device)
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % 100 == 0:
            print('Epoch [{}/{}], Step [{}/{}], Loss: {:.4f}'.format(
                epoch + 1, num_epochs, step, len(train_loader), loss.item()))

n_right = 0
model.eval()
with torch.no_grad():
    for images, labels in test_loader:
        images, labels = images.view(-1, 28, 28).to(device), labels.to(device)
        n_right += (model(images).argmax(1) == labels).sum().item()
print('Test Accuracy: {:.2f}%'.format(100.0 * n_right / len(test_data)))

# loss curve
plt.figure()
plt.plot(losses)
plt.xlabel('step')
plt.ylabel('loss')
plt.savefig('loss.png')

# pictures
plt.figure(figsize=(12, 3))
images, labels = next(iter(test_loader))
with torch.no_grad():
    preds = model(images[:10].view(-1, 28, 28).to(device)).argmax(1).cpu()
for k in range(10):
    plt.subplot(1, 10, k + 1)
    plt.imshow(images[k, 0], cmap='gray')
    plt.title('T:{}\nP:{}'.format(labels[k].item(), preds[k].item()))
    plt.axis('off')
plt.show()
