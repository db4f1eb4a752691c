import torch, torchvision
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

# hyper parameters (tuned)
input_size    = 28
hidden_size   = 256
num_layers    = 1
num_classes   = 10
batch_size    = 128
learning_rate = 0.001
num_epochs    = 6

mnist = torchvision.datasets.MNIST
train_dataset = mnist(root='./data', train=True,  transform=transforms.ToTensor(), download=True)
test_dataset  = mnist(root='./data', train=False, transform=transforms.ToTensor(), download=True)
train_loader = torch.utils.data.DataLoader(train_dataset, batch_size=batch_size, shuffle=True)
test_loader  = torch.utils.data.DataLoader(test_dataset,  batch_size=batch_size, shuffle=False)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        names = ['f', 'i', 'c', 'o']
        self.U = nn.ParameterDict({k: nn.Parameter(torch.empty(input_size, hidden_size)) for k in names})
        self.W = nn.ParameterDict({k: nn.Parameter(torch.empty(hidden_size, hidden_size)) for k in names})
        self.b = nn.ParameterDict({k: nn.Parameter(torch.zeros(hidden_size)) for k in names})
        for k in names:
            nn.init.xavier_uniform_(self.U[k])
            nn.init.orthogonal_(self.W[k])

    def affine(self, k, x, h):
        return torch.matmul(x, self.U[k]) + torch.matmul(h, self.W[k]) + self.b[k]

    def forward(self, x, h_prev, c_prev):
        f       = torch.sigmoid(self.affine('f', x, h_prev))
        i       = torch.sigmoid(self.affine('i', x, h_prev))
        c_tilde = torch.tanh(self.affine('c', x, h_prev))
        o       = torch.sigmoid(self.affine('o', x, h_prev))
        c_t = f * c_prev + i * c_tilde
        h_t = o * torch.tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.head = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        h = x.new_zeros((x.size(0), self.hidden_size))
        c = x.new_zeros((x.size(0), self.hidden_size))
        for t in range(x.size(1)):
            h, c = self.cell(x[:, t, :], h, c)
        return F.softmax(self.head(h), dim=1)


device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)

for epoch in range(num_epochs):
    model.train()
    for i, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        y_hat = model(images)
        loss = criterion(y_hat, labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if (i+1) % 100 == 0:
            print(f'Epoch [{epoch+1}/{num_epochs}], Step [{i+1}/{len(train_loader)}], Loss: {loss.item():.4f}')

@torch.no_grad()
def predict(images):
    model.eval()
    return model(images.reshape(-1, 28, 28).to(device)).argmax(dim=1).cpu()

ok = sum((predict(images) == labels).sum().item() for images, labels in test_loader)
print(f'Test Accuracy: {100 * ok / len(test_dataset):.2f}%')

ten = [(test_dataset.targets == d).nonzero()[0].item() for d in range(10)]
plt.figure(figsize=(12, 3))
for pos, j in enumerate(ten, 1):
    img, lab = test_dataset[j]
    plt.subplot(1, 10, pos)
    plt.imshow(img.squeeze(), cmap='gray')
    plt.title(f'T={lab}\nP={predict(img).item()}')
    plt.axis('off')
plt.show()
