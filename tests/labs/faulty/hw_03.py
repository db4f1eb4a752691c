# Lab7 homework
# I wrote the weights as W (hidden->hidden), U (input->hidden), b, same letters as on the slides.

import math
import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

input_size = 28
hidden_size = 100
num_layers = 1
num_classes = 10
batch_size = 100
learning_rate = 0.002
num_epochs = 3

train_dataset = torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test_dataset = torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)

train_loader = torch.utils.data.DataLoader(dataset=train_dataset, batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(dataset=test_dataset, batch_size=batch_size, shuffle=False)


class ManualLSTMCell(nn.Module):

    def __init__(self, input_size, hidden_size):
        super().__init__()
        # forget gate
        self.W_f = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.U_f = nn.Parameter(torch.empty(hidden_size, input_size))
        self.b_f = nn.Parameter(torch.zeros(hidden_size))
        # input gate
        self.W_i = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.U_i = nn.Parameter(torch.empty(hidden_size, input_size))
        self.b_i = nn.Parameter(torch.zeros(hidden_size))
        # output gate
        self.W_o = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.U_o = nn.Parameter(torch.empty(hidden_size, input_size))
        self.b_o = nn.Parameter(torch.zeros(hidden_size))
        # candidate
        self.W = nn.Parameter(torch.empty(hidden_size, hidden_size))
        self.U = nn.Parameter(torch.empty(hidden_size, input_size))
        self.b = nn.Parameter(torch.zeros(hidden_size))

        k = 1 / math.sqrt(hidden_size)
        for p in self.parameters():
            if p.dim() == 2:
                nn.init.uniform_(p, -k, k)

    def forward(self, x, h_prev, c_prev):
        f = torch.sigmoid(h_prev @ self.W_f.T + x @ self.U_f.T + self.b_f)
        i = torch.sigmoid(h_prev @ self.W_i.T + x @ self.U_i.T + self.b_f)
        o = torch.sigmoid(h_prev @ self.W_o.T + x @ self.U_o.T + self.b_o)
        c_tilde = torch.tanh(h_prev @ self.W.T + x @ self.U.T + self.b)

        c_t = f * c_prev + i * c_tilde
        h_t = o * torch.tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):

    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.W_out = nn.Parameter(torch.randn(num_classes, hidden_size) * 0.05)
        self.b_out = nn.Parameter(torch.zeros(num_classes))

    def forward(self, x):
        N, T, _ = x.shape
        h_t = torch.zeros(N, self.hidden_size, device=x.device)
        c_t = torch.zeros(N, self.hidden_size, device=x.device)
        for t in range(T):
            h_t, c_t = self.cell(x[:, t], h_t, c_t)
        logits = h_t @ self.W_out.T + self.b_out
        return logits


device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)

for epoch in range(num_epochs):
    for step, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        logits = model(images)
        loss = criterion(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(f"Epoch [{epoch + 1}/{num_epochs}], Step [{step + 1}/{len(train_loader)}], Loss: {loss.item():.4f}")

with torch.no_grad():
    correct, total = 0, 0
    for images, labels in test_loader:
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        pred = model(images).argmax(dim=1)
        correct += (pred == labels).sum().item()
        total += len(labels)
    print(f"Test Accuracy: {correct / total * 100:.2f}%")

# show 10 pictures
idx = []
for d in range(10):
    idx.append((test_dataset.targets == d).nonzero()[0].item())
fig = plt.figure(figsize=(11, 5))
with torch.no_grad():
    for pos, j in enumerate(idx):
        image, label = test_dataset[j]
        pred = model(image.reshape(-1, 28, 28).to(device)).argmax(dim=1).item()
        print(f"True label: {label}  Prediction: {pred}")
        fig.add_subplot(2, 5, pos + 1)
        plt.imshow(image.reshape(28, 28), cmap="gray")
        plt.title(f"true {label} / pred {pred}")
        plt.axis("off")
plt.show()
