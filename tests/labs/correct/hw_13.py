import torch
from torch import nn
from torch.utils.data import TensorDataset, DataLoader
import torchvision
from torchvision import transforms
import matplotlib.pyplot as plt

input_size = 28
hidden_size = 128
num_layers = 1
num_classes = 10
batch_size = 128
learning_rate = 0.001
num_epochs = 10

train_raw = torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test_raw = torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)

# everything to float in [0,1] once, is faster than ToTensor for every picture
train_x = train_raw.data.float().div(255)     # 60000 x 28 x 28
test_x = test_raw.data.float().div(255)
train_y, test_y = train_raw.targets, test_raw.targets

train_loader = DataLoader(TensorDataset(train_x, train_y), batch_size=batch_size, shuffle=True)
test_loader = DataLoader(TensorDataset(test_x, test_y), batch_size=1000)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        for gate in ['f', 'i', 'c', 'o']:
            U = nn.Parameter(torch.empty(input_size, hidden_size))
            W = nn.Parameter(torch.empty(hidden_size, hidden_size))
            b = nn.Parameter(torch.zeros(hidden_size))
            nn.init.xavier_normal_(U)
            nn.init.xavier_normal_(W)
            self.register_parameter('U_' + gate, U)
            self.register_parameter('W_' + gate, W)
            self.register_parameter('b_' + gate, b)

    def forward(self, x, h_prev, c_prev):
        f = torch.sigmoid(torch.addmm(torch.addmm(self.b_f, x, self.U_f), h_prev, self.W_f))
        i = torch.sigmoid(torch.addmm(torch.addmm(self.b_i, x, self.U_i), h_prev, self.W_i))
        c_tilde = torch.tanh(torch.addmm(torch.addmm(self.b_c, x, self.U_c), h_prev, self.W_c))
        c_t = f * c_prev + i * c_tilde
        o = torch.sigmoid(torch.addmm(torch.addmm(self.b_o, x, self.U_o), h_prev, self.W_o))
        h_t = o * torch.tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.lstm_cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        h_t = torch.zeros(x.size(0), self.hidden_size, dtype=x.dtype, device=x.device)
        c_t = torch.zeros(x.size(0), self.hidden_size, dtype=x.dtype, device=x.device)
        for row in torch.split(x, 1, dim=1):
            h_t, c_t = self.lstm_cell(row.squeeze(1), h_t, c_t)
        return self.fc(h_t)


device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, betas=(0.9, 0.99))

for epoch in range(num_epochs):
    for i, (images, labels) in enumerate(train_loader):
        images, labels = images.to(device), labels.to(device)
        loss = criterion(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (i + 1) % 100 == 0:
            print(f'Epoch [{epoch+1}/{num_epochs}], Step [{i+1}/{len(train_loader)}], Loss: {loss.item():.4f}')

pred = []
with torch.no_grad():
    for images, _ in test_loader:
        pred.append(model(images.to(device)).argmax(1).cpu())
pred = torch.cat(pred)
print(f'Test Accuracy: {(pred == test_y).double().mean() * 100:.2f}%')

plt.figure(figsize=(10, 4.5))
for d in range(10):
    idx = torch.where(test_y == d)[0][0]
    plt.subplot(2, 5, d + 1)
    plt.imshow(test_x[idx], cmap='gray')
    plt.title(f'true: {d}  pred: {pred[idx]}')
    plt.axis('off')
plt.tight_layout()
plt.savefig('result.png')
plt.show()
