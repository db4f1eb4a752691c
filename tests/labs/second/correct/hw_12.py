import torch
from torch import nn, optim
import torchvision
from torchvision import transforms
import matplotlib.pyplot as plt

input_size = 28
hidden_size = 64
num_layers = 1
num_classes = 10
batch_size = 128
learning_rate = 0.005
num_epochs = 3

device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
train_dataset = torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test_dataset = torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)
train_loader = torch.utils.data.DataLoader(dataset=train_dataset, batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(dataset=test_dataset, batch_size=batch_size, shuffle=False)

F_, I_, O_, C_ = range(4)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        # gate x hidden x (hidden or input)
        self.W = nn.Parameter(torch.zeros(4, hidden_size, hidden_size))
        self.U = nn.Parameter(torch.zeros(4, hidden_size, input_size))
        self.b = nn.Parameter(torch.zeros(4, 1, hidden_size))
        self.reset()

    def reset(self):
        for k in range(4):
            nn.init.orthogonal_(self.W[k])
            nn.init.xavier_normal_(self.U[k])
        with torch.no_grad():
            self.b[F_] += 1

    def forward(self, x, h_prev, c_prev):
        a = torch.einsum('gij,bj->gbi', self.W, h_prev) + torch.einsum('gij,bj->gbi', self.U, x) + self.b
        f, i, o = torch.sigmoid(a[:C_])
        c_t = torch.stack([f, i]).mul(torch.stack([c_prev, torch.tanh(a[C_])])).sum(0)
        h_t = o * torch.tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.linear = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        B, T, D = x.shape
        h = torch.zeros(B, self.hidden_size, device=x.device, dtype=x.dtype)
        c = torch.zeros(B, self.hidden_size, device=x.device, dtype=x.dtype)
        for t in range(T):
            h, c = self.cell(x.select(1, t), h, c)
        return self.linear(h)


def main():
    model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=learning_rate)
    losses = []
    for epoch in range(num_epochs):
        for i, batch in enumerate(train_loader):
            images = batch[0].reshape(-1, 28, 28).to(device)
            labels = batch[1].to(device)
            optimizer.zero_grad()
            loss = criterion(model(images), labels)
            loss.backward()
            optimizer.step()
            losses.append(float(loss))
            if (i + 1) % 100 == 0:
                print(f'Epoch [{epoch + 1}/{num_epochs}], Step [{i + 1}/{len(train_loader)}], Loss: {losses[-1]:.4f}')

    model.eval()
    errors = 0
    with torch.no_grad():
        for images, labels in test_loader:
            pred = model(images.reshape(-1, 28, 28).to(device)).max(1).indices
            errors += (pred != labels.to(device)).sum().item()
    print(f'Test Accuracy: {100 - 100 * errors / len(test_dataset):.2f}%')

    pick = torch.randperm(len(test_dataset))[:10].tolist()
    fig, ax = plt.subplots(2, 5, figsize=(10, 5))
    for n, k in enumerate(pick):
        image, label = test_dataset[k]
        with torch.no_grad():
            p = int(model(image.reshape(-1, 28, 28).to(device)).argmax())
        ax[n // 5][n % 5].imshow(image.squeeze(), cmap='gray')
        ax[n // 5][n % 5].set_title(f'{label} predicted as {p}')
        ax[n // 5][n % 5].axis('off')
    plt.show()


if __name__ == '__main__':
    main()
