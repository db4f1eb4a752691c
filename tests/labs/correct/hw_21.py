import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
from torchvision import transforms
import matplotlib.pyplot as plt

input_size = 28
hidden_size = 128
num_layers = 1
num_classes = 10
batch_size = 64
learning_rate = 0.001
num_epochs = 12
dropout = 0.2

transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean=[0.1307], std=[0.3081])])
train_dataset = torchvision.datasets.MNIST(root='./data', train=True, transform=transform, download=True)
test_dataset = torchvision.datasets.MNIST(root='./data', train=False, transform=transform, download=True)
train_loader = torch.utils.data.DataLoader(train_dataset, batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(test_dataset, batch_size=batch_size, shuffle=False)


class GateBase(nn.Module):
    """common helpers"""

    def make_gate(self, name, n_in, n_hid):
        setattr(self, 'U_' + name, nn.Parameter(torch.zeros(n_in, n_hid)))
        setattr(self, 'W_' + name, nn.Parameter(torch.zeros(n_hid, n_hid)))
        setattr(self, 'b_' + name, nn.Parameter(torch.zeros(n_hid)))

    def lin(self, name, x, h):
        U, W, b = (getattr(self, k + name) for k in ('U_', 'W_', 'b_'))
        return x @ U + h @ W + b

    def reset_parameters(self):
        for name, p in self.named_parameters():
            if p.dim() > 1:
                nn.init.kaiming_uniform_(p, a=5 ** 0.5)


class LSTMUnit(GateBase):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        for name in ('input', 'forget', 'output', 'cell'):
            self.make_gate(name, input_size, hidden_size)
        self.reset_parameters()
        nn.init.ones_(self.b_forget)

    def _gate(self, name, x, h):
        return torch.sigmoid(self.lin(name, x, h))

    def _update_cell(self, x, h_prev, c_prev):
        candidate = torch.tanh(self.lin('cell', x, h_prev))
        return self._gate('forget', x, h_prev) * c_prev + self._gate('input', x, h_prev) * candidate

    def forward(self, x, h_prev, c_prev):
        c_t = self._update_cell(x, h_prev, c_prev)
        h_t = self._gate('output', x, h_prev) * torch.tanh(c_t)
        return h_t, c_t


class RowLSTM(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes, p_drop=0.0):
        super().__init__()
        self.hidden_size = hidden_size
        self.unit = LSTMUnit(input_size, hidden_size)
        self.drop = nn.Dropout(p_drop)
        self.readout = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        h = torch.zeros(x.size(0), self.hidden_size, device=x.device)
        c = torch.zeros(x.size(0), self.hidden_size, device=x.device)
        for t in range(x.size(1)):
            h, c = self.unit(x[:, t, :], h, c)
        return self.readout(self.drop(h))


device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = RowLSTM(input_size, hidden_size, num_classes, dropout).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)
scheduler = optim.lr_scheduler.MultiStepLR(optimizer, milestones=[8, 11], gamma=0.3)


def evaluate():
    model.eval()
    ok = 0
    with torch.no_grad():
        for images, labels in test_loader:
            images = images.reshape(-1, 28, 28).to(device)
            ok += (model(images).argmax(1).cpu() == labels).sum().item()
    model.train()
    return 100 * ok / len(test_dataset)


model.train()
for epoch in range(num_epochs):
    for i, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        loss = criterion(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        if (i + 1) % 100 == 0:
            print(f'Epoch [{epoch + 1}/{num_epochs}], Step [{i + 1}/{len(train_loader)}], Loss: {loss.item():.4f}')
    scheduler.step()

print(f'Test Accuracy: {evaluate():.2f}%')

model.eval()
digits = list(range(10))
pos = [torch.nonzero(test_dataset.targets == d)[3].item() for d in digits]
batch = torch.cat([test_dataset[k][0] for k in pos], dim=0)
with torch.no_grad():
    preds = model(batch.to(device)).argmax(dim=1).cpu().tolist()
plt.figure(figsize=(10, 4))
for d in digits:
    plt.subplot(2, 5, d + 1)
    plt.imshow(batch[d] * 0.3081 + 0.1307, cmap='gray')
    plt.title('True %d | Pred %d' % (d, preds[d]))
    plt.axis('off')
plt.tight_layout()
plt.show()
