import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader
from torchvision import datasets
from torchvision.transforms import Compose, ToTensor, Normalize
import matplotlib.pyplot as plt

# 하이퍼파라미터
input_size = 28
hidden_size = 128
num_layers = 1
num_classes = 10
batch_size = 100
learning_rate = 0.002
num_epochs = 5

# 데이터셋
transform = Compose([ToTensor(), Normalize((0.5,), (0.5,))])
train_set = datasets.MNIST(root='./data', train=True, transform=transform, download=True)
test_set = datasets.MNIST(root='./data', train=False, transform=transform, download=True)
train_loader = DataLoader(train_set, batch_size=batch_size, shuffle=True)
test_loader = DataLoader(test_set, batch_size=batch_size, shuffle=False)

GATES = ('i', 'f', 'o', 'c')


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.p = nn.ParameterDict()
        for name in GATES:
            self.p['W_' + name] = nn.Parameter(torch.empty(hidden_size, hidden_size))
            self.p['U_' + name] = nn.Parameter(torch.empty(hidden_size, input_size))
            self.p['b_' + name] = nn.Parameter(torch.zeros(hidden_size))
            nn.init.orthogonal_(self.p['W_' + name])
            nn.init.xavier_uniform_(self.p['U_' + name])

    def forward(self, x, h_prev, c_prev):
        a = {}
        for name in GATES:
            # W h + U x + b
            a[name] = F.linear(h_prev, self.p['W_' + name]) + F.linear(x, self.p['U_' + name], self.p['b_' + name])
        # 게이트는 sigmoid, 후보 셀은 tanh
        gate = {name: torch.sigmoid(a[name]) for name in 'ifo'}
        c_t = gate['f'] * c_prev + gate['i'] * torch.tanh(a['c'])
        h_t = gate['o'] * torch.tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.out = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        h = torch.zeros((len(x), self.hidden_size), device=x.device)
        c = torch.zeros_like(h)
        x = x.permute(1, 0, 2)   # (28, 배치, 28)
        for x_t in x:
            h, c = self.cell(x_t, h, c)
        return self.out(h)


device = torch.device('cuda') if torch.cuda.is_available() else torch.device('cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.8)

# 학습
for epoch in range(num_epochs):
    total_loss = 0
    for step, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        outputs = model(images)
        loss = criterion(outputs, labels)
        for p in model.parameters():
            p.grad = None
        loss.backward()
        optimizer.step()
        total_loss += loss.item()
        if (step + 1) % 100 == 0:
            print(f'Epoch [{epoch + 1}/{num_epochs}], Step [{step + 1}/{len(train_loader)}], Loss: {loss.item():.4f}')
    scheduler.step()
    print(f'--> epoch {epoch + 1} 평균 loss: {total_loss / len(train_loader):.4f}')

# 테스트
model.eval()
correct, total = 0, 0
with torch.no_grad():
    for images, labels in test_loader:
        outputs = model(images.reshape(-1, 28, 28).to(device))
        correct += (outputs.argmax(dim=1).cpu() == labels).sum().item()
        total += labels.size(0)
print(f'Test Accuracy: {100 * correct / total:.2f}%')

# 시각화: 숫자 0~9
samples = {}
for img, y in test_set:
    samples.setdefault(y, img)
    if len(samples) == 10:
        break
plt.figure(figsize=(12, 3))
for k in range(10):
    with torch.no_grad():
        pred = model(samples[k].to(device)).argmax(1).item()
    plt.subplot(1, 10, k + 1)
    plt.imshow(samples[k][0] * 0.5 + 0.5, cmap='gray')
    plt.title(f'True {k}\nPred {pred}')
    plt.axis('off')
plt.show()
