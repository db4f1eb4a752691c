import torch
import torch.nn as nn
from torchvision import datasets, transforms
import matplotlib.pyplot as plt

# Siêu tham số
input_size = 28
hidden_size = 128
num_layers = 1
num_classes = 10
batch_size = 64
learning_rate = 0.001
num_epochs = 5

# Dữ liệu
train_loader = torch.utils.data.DataLoader(
    datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True),
    batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(
    datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True),
    batch_size=batch_size, shuffle=False)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        # cột cuối cùng của mỗi ma trận là bias, vì ta thêm số 1 vào vector [x, h, 1]
        n = input_size + hidden_size + 1
        self.forget_gate = nn.Linear(n, hidden_size, bias=False)
        self.input_gate = nn.Linear(n, hidden_size, bias=False)
        self.output_gate = nn.Linear(n, hidden_size, bias=False)
        self.candidate = nn.Linear(n, hidden_size, bias=False)

    def forward(self, x, h_prev, c_prev):
        one = torch.ones(x.size(0), 1, device=x.device, dtype=x.dtype)
        v = torch.cat([x, h_prev, one], dim=1)
        f = torch.sigmoid(self.forget_gate(v))
        i = torch.sigmoid(self.input_gate(v))
        o = torch.sigmoid(self.output_gate(v))
        c_tilde = torch.tanh(self.candidate(v))
        c_t = f * c_prev + i * c_tilde
        h_t = o * torch.tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes, num_layers=1):
        super().__init__()
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.layers = nn.ModuleList()
        for l in range(num_layers):
            # lớp đầu nhận ảnh, các lớp sau nhận h của lớp trước
            self.layers.append(ManualLSTMCell(input_size if l == 0 else hidden_size, hidden_size))
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        B, T, _ = x.shape
        h = [torch.zeros(B, self.hidden_size, device=x.device) for _ in range(self.num_layers)]
        c = [torch.zeros(B, self.hidden_size, device=x.device) for _ in range(self.num_layers)]
        for t in range(T):
            inp = x[:, t, :]
            for l, cell in enumerate(self.layers):
                h[l], c[l] = cell(inp, h[l], c[l])
                inp = h[l]
        return self.fc(h[-1])


device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes, num_layers).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)

# Huấn luyện
for epoch in range(num_epochs):
    model.train()
    for i, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        outputs = model(images)
        loss = criterion(outputs, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (i + 1) % 100 == 0:
            print(f'Epoch [{epoch + 1}/{num_epochs}], Step [{i + 1}/{len(train_loader)}], Loss: {loss.item():.4f}')

# Kiểm tra
model.eval()
dung, tong = 0, 0
with torch.no_grad():
    for images, labels in test_loader:
        images = images.reshape(-1, 28, 28).to(device)
        du_doan = model(images).argmax(dim=1).cpu()
        dung += (du_doan == labels).sum().item()
        tong += labels.size(0)
print(f'Test Accuracy: {dung / tong * 100:.2f}%')

# Vẽ 10 ảnh
da_co = set()
fig, axes = plt.subplots(1, 10, figsize=(18, 2.5))
with torch.no_grad():
    for images, labels in test_loader:
        preds = model(images.reshape(-1, 28, 28).to(device)).argmax(dim=1).cpu()
        for img, y, p in zip(images, labels.tolist(), preds.tolist()):
            if y in da_co:
                continue
            da_co.add(y)
            axes[y].imshow(img.squeeze(), cmap='gray')
            axes[y].set_title(f'True {y}\nPred {p}')
            axes[y].axis('off')
        if len(da_co) == 10:
            break
plt.show()
