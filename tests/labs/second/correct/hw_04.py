# 實驗七 作業：手刻 LSTM
import torch
import torch.nn as nn
import torch.optim as optim
from torchvision import datasets, transforms
from torch.utils.data import DataLoader
import matplotlib.pyplot as plt

input_size = 28
hidden_size = 80
num_layers = 1
num_classes = 10
batch_size = 128
learning_rate = 0.002
num_epochs = 5

device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
訓練集 = datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
測試集 = datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)
train_loader = DataLoader(dataset=訓練集, batch_size=batch_size, shuffle=True)
test_loader = DataLoader(dataset=測試集, batch_size=batch_size, shuffle=False)

σ = torch.sigmoid
雙曲正切 = lambda z: torch.tanh(z)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        線性 = lambda: nn.Linear(input_size + hidden_size, hidden_size)
        self.遺忘, self.輸入, self.候選, self.輸出 = 線性(), 線性(), 線性(), 線性()

    def forward(self, x, h_prev, c_prev):
        合併 = torch.cat((x, h_prev), 1)
        新記憶 = σ(self.遺忘(合併)) * c_prev + σ(self.輸入(合併)) * 雙曲正切(self.候選(合併))
        return σ(self.輸出(合併)) * 雙曲正切(新記憶), 新記憶


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def 狀態(self, x, t):
        """遞迴：第 t 步之後的 (h, c)"""
        if t == 0:
            零 = torch.zeros(x.size(0), self.hidden_size).to(x)
            return 零, 零
        return self.cell(x[:, t - 1], *self.狀態(x, t - 1))

    def forward(self, x):
        h, _ = self.狀態(x, x.size(1))
        return self.fc(h)


model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)

損失紀錄 = []
總步數 = len(train_loader)
for 輪 in range(num_epochs):
    for 步, (圖, 標籤) in enumerate(train_loader):
        圖 = 圖.reshape(-1, 28, 28).to(device)
        標籤 = 標籤.to(device)
        損失 = criterion(model(圖), 標籤)
        optimizer.zero_grad()
        損失.backward()
        optimizer.step()
        損失紀錄.append(損失.item())
        if (步 + 1) % 100 == 0:
            print(f'Epoch [{輪+1}/{num_epochs}], Step [{步+1}/{總步數}], Loss: {損失.item():.4f}')

plt.plot(損失紀錄); plt.xlabel('step'); plt.ylabel('loss'); plt.show()

# 測試
model.eval()
對, 全部 = 0, 0
with torch.no_grad():
    for 圖, 標籤 in test_loader:
        預測 = model(圖.reshape(-1, 28, 28).to(device)).argmax(dim=1)
        對 += (預測 == 標籤.to(device)).sum().item()
        全部 += 標籤.size(0)
print(f'Test Accuracy: {對 / 全部 * 100:.2f}%')

# 0 到 9 各一張
with torch.no_grad():
    for 數字 in range(10):
        位置 = (測試集.targets == 數字).nonzero()[0].item()
        圖, 真 = 測試集[位置]
        猜 = model(圖.reshape(-1, 28, 28).to(device)).argmax(dim=1).item()
        plt.subplot(2, 5, 數字 + 1)
        plt.imshow(圖.squeeze(0), cmap='gray')
        plt.title(f'T:{真} P:{猜}')
        plt.axis('off')
plt.show()
