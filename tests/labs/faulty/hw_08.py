import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

# ===== Hyperparameters =====
input_size = 28        # one image row
hidden_size = 128
num_layers = 1
num_classes = 10
batch_size = 256
learning_rate = 0.004
num_epochs = 8
seq_len = 28           # rows of an image

# ===== Data =====
transform = transforms.ToTensor()
train_dataset = torchvision.datasets.MNIST(root='./data', train=True, transform=transform, download=True)
test_dataset = torchvision.datasets.MNIST(root='./data', train=False, transform=transform, download=True)
train_loader = torch.utils.data.DataLoader(train_dataset, batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(test_dataset, batch_size=batch_size, shuffle=False)


class Gate(nn.Module):
    """act(W h + U x + b)"""

    def __init__(self, input_size, hidden_size, act):
        super().__init__()
        self.U = nn.Linear(input_size, hidden_size, bias=True)
        self.W = nn.Linear(hidden_size, hidden_size, bias=False)
        self.act = act

    def forward(self, x, h):
        return self.act(self.W(h) + self.U(x))


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.gate = nn.ModuleDict({
            'forget': Gate(input_size, hidden_size, torch.sigmoid),
            'input': Gate(input_size, hidden_size, torch.sigmoid),
            'output': Gate(input_size, hidden_size, torch.sigmoid),
            'candidate': Gate(input_size, hidden_size, torch.tanh),
        })

    def forward(self, x, h_prev, c_prev):
        g = {name: gate(x, h_prev) for name, gate in self.gate.items()}
        c_t = g['forget'] * c_prev + g['input'] * g['candidate']
        h_t = g['output'] * torch.tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        h = torch.zeros(x.size(0), self.hidden_size, device=x.device)
        c = torch.zeros(x.size(0), self.hidden_size, device=x.device)
        for t in range(seq_len - 1):
            h, c = self.cell(x[:, t, :], h, c)
        return self.fc(h)


device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.AdamW(model.parameters(), lr=learning_rate)
scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)


def main():
    for epoch in range(num_epochs):
        for i, (images, labels) in enumerate(train_loader):
            images = images.reshape(-1, seq_len, input_size).to(device)
            labels = labels.to(device)
            loss = criterion(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if (i + 1) % 100 == 0:
                print(f'Epoch [{epoch+1}/{num_epochs}], Step [{i+1}/{len(train_loader)}], Loss: {loss.item():.4f}')
        scheduler.step()

    model.eval()
    correct = total = 0
    with torch.no_grad():
        for images, labels in test_loader:
            images = images.reshape(-1, seq_len, input_size).to(device)
            labels = labels.to(device)
            correct += (model(images).argmax(dim=1) == labels).sum().item()
            total += labels.size(0)
    print(f'Test Accuracy: {100 * correct / total:.2f}%')

    # one image of every digit
    fig, axes = plt.subplots(2, 5, figsize=(9, 4))
    for d, ax in enumerate(axes.ravel()):
        k = int((test_dataset.targets == d).nonzero()[0])
        img = test_dataset[k][0]
        with torch.no_grad():
            p = model(img.reshape(-1, seq_len, input_size).to(device)).argmax(dim=1).item()
        ax.imshow(img[0], cmap='gray')
        ax.set_title(f'True {d} Pred {p}')
        ax.set_axis_off()
    plt.show()


main()
