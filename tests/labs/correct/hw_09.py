import math
import torch
import torch.nn as nn
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

input_size = 28
hidden_size = 128
num_layers = 1
num_classes = 10
batch_size = 64
learning_rate = 0.001
num_epochs = 5

tf = transforms.ToTensor()
train_loader = torch.utils.data.DataLoader(
    torchvision.datasets.MNIST(root='./data', train=True, transform=tf, download=True),
    batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(
    torchvision.datasets.MNIST(root='./data', train=False, transform=tf, download=True),
    batch_size=batch_size, shuffle=False)


# activation functions by hand, formulas from the lecture
def sigmoid(x):
    return 1 / (1 + torch.exp(-x))


def tanh(x):
    return 2 * sigmoid(2 * x) - 1


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        H, D = hidden_size, input_size
        k = 1 / math.sqrt(H)
        # input gate
        self.W_i = nn.Parameter(torch.empty(H, H).uniform_(-k, k))
        self.U_i = nn.Parameter(torch.empty(H, D).uniform_(-k, k))
        self.b_i = nn.Parameter(torch.zeros(H))
        # forget gate, bias 1 so that it remembers at the beginning
        self.W_f = nn.Parameter(torch.empty(H, H).uniform_(-k, k))
        self.U_f = nn.Parameter(torch.empty(H, D).uniform_(-k, k))
        self.b_f = nn.Parameter(torch.ones(H))
        # output gate
        self.W_o = nn.Parameter(torch.empty(H, H).uniform_(-k, k))
        self.U_o = nn.Parameter(torch.empty(H, D).uniform_(-k, k))
        self.b_o = nn.Parameter(torch.zeros(H))
        # candidate
        self.W_c = nn.Parameter(torch.empty(H, H).uniform_(-k, k))
        self.U_c = nn.Parameter(torch.empty(H, D).uniform_(-k, k))
        self.b_c = nn.Parameter(torch.zeros(H))

    def forward(self, x, h_prev, c_prev):
        i = sigmoid(h_prev @ self.W_i.t() + x @ self.U_i.t() + self.b_i)
        f = sigmoid(h_prev @ self.W_f.t() + x @ self.U_f.t() + self.b_f)
        o = sigmoid(h_prev @ self.W_o.t() + x @ self.U_o.t() + self.b_o)
        c_tilde = tanh(h_prev @ self.W_c.t() + x @ self.U_c.t() + self.b_c)
        c_t = f * c_prev + i * c_tilde
        h_t = o * tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.W_out = nn.Parameter(torch.randn(num_classes, hidden_size) * 0.1)
        self.b_out = nn.Parameter(torch.zeros(num_classes))

    def forward(self, x):
        h = torch.zeros(x.size(0), self.hidden_size, device=x.device)
        c = torch.zeros(x.size(0), self.hidden_size, device=x.device)
        T = x.size(1)
        for t in range(T):
            h, c = self.cell(x[:, t, :], h, c)
        logits = h @ self.W_out.t() + self.b_out
        return logits


device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)

print('number of parameters:', sum(p.numel() for p in model.parameters()))

for epoch in range(num_epochs):
    for step, batch in enumerate(train_loader):
        images = batch[0].reshape(-1, 28, 28).to(device)
        labels = batch[1].to(device)
        loss = criterion(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(f'Epoch [{epoch+1}/{num_epochs}], Step [{step+1}/{len(train_loader)}], Loss: {loss.item():.4f}')

right = 0
n = 0
with torch.no_grad():
    for images, labels in test_loader:
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        _, guess = model(images).max(dim=1)
        right = right + (guess == labels).sum().item()
        n = n + images.size(0)
print(f'Test Accuracy: {right / n * 100:.2f}%')

images, labels = next(iter(test_loader))
with torch.no_grad():
    guess = model(images.reshape(-1, 28, 28).to(device)).argmax(1).cpu()
for digit in range(10):
    where = (labels == digit).nonzero(as_tuple=True)[0]
    if len(where) == 0:
        continue
    j = where[0]
    plt.subplot(2, 5, digit + 1)
    plt.imshow(images[j].squeeze(), cmap='gray')
    plt.title(f'true {labels[j].item()} pred {guess[j].item()}', fontsize=8)
    plt.axis('off')
plt.show()
