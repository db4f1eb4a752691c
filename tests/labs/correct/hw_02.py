# -*- coding: utf-8 -*-
# Lab7 作業:手刻 LSTM
import torch
from torch import nn
from torchvision import datasets, transforms
import matplotlib.pyplot as plt

# ===== 超參數 =====
input_size    = 28
hidden_size   = 100
num_layers    = 1
num_classes   = 10
batch_size    = 100
learning_rate = 0.001
num_epochs    = 6

torch.manual_seed(0)

# ===== 資料 =====
轉換 = transforms.ToTensor()
train_data = datasets.MNIST(root='./data', train=True,  transform=轉換, download=True)
test_data  = datasets.MNIST(root='./data', train=False, transform=轉換, download=True)
train_loader = torch.utils.data.DataLoader(train_data, batch_size=batch_size, shuffle=True)
test_loader  = torch.utils.data.DataLoader(test_data,  batch_size=1000, shuffle=False)

device = 'cuda' if torch.cuda.is_available() else 'cpu'

class ManualLSTMCell(nn.Module):
    """一個時間步的 LSTM"""
    def __init__(self, input_size, hidden_size):
        super().__init__()
        合併大小 = hidden_size + input_size
        self.遺忘門 = nn.Linear(合併大小, hidden_size)
        self.輸入門 = nn.Linear(合併大小, hidden_size)
        self.輸出門 = nn.Linear(合併大小, hidden_size)
        self.候選   = nn.Linear(合併大小, hidden_size)

    def forward(self, x, h_prev, c_prev):
        hx = torch.cat((h_prev, x), 1)        # 先放 h 再放 x
        f = self.遺忘門(hx).sigmoid()
        i = self.輸入門(hx).sigmoid()
        c_tilde = self.候選(hx).tanh()
        # 新的記憶 = 忘掉一部分舊的 + 加上一部分新的
        c_t = i * c_tilde + c_prev * f
        o = self.輸出門(hx).sigmoid()
        h_t = c_t.tanh() * o
        return h_t, c_t

class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.分類層 = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        # x: (批次, 28 列, 28 像素)
        h = x.new_zeros(x.shape[0], self.hidden_size)
        c = x.new_zeros(x.shape[0], self.hidden_size)
        for 列 in x.unbind(1):
            h, c = self.cell(列, h, c)
        return self.分類層(h)

model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.RMSprop(model.parameters(), lr=learning_rate)

# ===== 訓練 =====
loss紀錄 = []
for epoch in range(num_epochs):
    for step, (images, labels) in enumerate(train_loader, start=1):
        images = images.view(-1, 28, 28).to(device)
        labels = labels.to(device)
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        loss紀錄.append(loss.item())
        if step % 100 == 0:
            print('Epoch [%d/%d], Step [%d/%d], Loss: %.4f' % (epoch + 1, num_epochs, step, len(train_loader), loss.item()))

plt.plot(loss紀錄)
plt.xlabel('step')
plt.ylabel('loss')
plt.savefig('loss.png')
plt.close()

# ===== 測試 =====
答對 = 0
全部 = 0
with torch.no_grad():
    for images, labels in test_loader:
        images = images.view(-1, 28, 28).to(device)
        預測 = model(images).argmax(1).cpu()
        答對 += (預測 == labels).sum().item()
        全部 += len(labels)
print('Test Accuracy: {:.2f}%'.format(答對 / 全部 * 100))

# ===== 畫出 0 到 9 各一張 =====
fig, axes = plt.subplots(2, 5, figsize=(10, 5))
for 數字, ax in enumerate(axes.flat):
    位置 = (test_data.targets == 數字).nonzero()[0].item()   # 第一張這個數字
    圖, 標籤 = test_data[位置]
    with torch.no_grad():
        p = model(圖.view(1, 28, 28).to(device)).argmax(1).item()
    ax.imshow(圖[0].numpy(), cmap='gray')
    ax.set_title('True:%d Pred:%d' % (標籤, p), color='g' if p == 標籤 else 'r')
    ax.axis('off')
plt.show()
