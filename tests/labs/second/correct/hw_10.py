import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim
from torchvision import datasets, transforms
from torch.utils.data import DataLoader
import matplotlib.pyplot as plt

input_size = 28; hidden_size = 150; num_layers = 1; num_classes = 10
batch_size = 128; learning_rate = 0.001; num_epochs = 5

device = torch.device('cuda') if torch.cuda.is_available() else torch.device('cpu')

mk = lambda train: DataLoader(datasets.MNIST(root='./data', train=train, transform=transforms.ToTensor(), download=True),
                              batch_size=batch_size, shuffle=train)
train_loader, test_loader = mk(True), mk(False)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        k = 1 / hidden_size ** 0.5
        self.U = nn.Parameter(torch.rand(4 * hidden_size, input_size) * 2 * k - k)
        self.W = nn.Parameter(torch.rand(4 * hidden_size, hidden_size) * 2 * k - k)
        self.b = nn.Parameter(torch.zeros(4 * hidden_size))

    def project(self, x):
        # U x + b for one row or for the whole picture
        return F.linear(x, self.U, self.b)

    def forward(self, x, h_prev, c_prev, ux=None):
        if ux is None:
            ux = self.project(x)
        a = ux + F.linear(h_prev, self.W)
        i, f, o, g = a.chunk(4, dim=1)
        i, f, o, g = i.sigmoid(), f.sigmoid(), o.sigmoid(), g.tanh()
        c_t = torch.addcmul(f * c_prev, i, g)
        h_t = o * c_t.tanh()
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.head = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        ux = self.cell.project(x)  # (batch, 28, 4*hidden), all the rows in one product
        h = x.new_zeros(x.size(0), self.hidden_size)
        c = x.new_zeros(x.size(0), self.hidden_size)
        for t in range(x.size(1)):
            h, c = self.cell(x[:, t], h, c, ux=ux[:, t])
        return self.head(h)


model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)
sched = optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.3)

for epoch in range(num_epochs):
    model.train()
    for step, (images, labels) in enumerate(train_loader):
        images, labels = images.reshape(-1, 28, 28).to(device), labels.to(device)
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        if step % 100 == 99:
            print(f"Epoch [{epoch+1}/{num_epochs}], Step [{step+1}/{len(train_loader)}], Loss: {loss.item():.4f}")
    sched.step()

model.eval()
with torch.no_grad():
    right = sum((model(im.reshape(-1, 28, 28).to(device)).argmax(1) == la.to(device)).sum().item() for im, la in test_loader)
print(f"Test Accuracy: {100 * right / len(test_loader.dataset):.2f}%")

ims, las = zip(*[test_loader.dataset[k] for k in range(10)])
with torch.no_grad():
    out = model(torch.cat(ims).to(device)).argmax(1)
fig, axes = plt.subplots(2, 5, figsize=(11, 5))
for k, ax in enumerate(axes.flatten()):
    ax.imshow(ims[k].squeeze(), cmap='gray'); ax.axis('off')
    ax.set_title(f"True: {las[k]}, Pred: {out[k].item()}")
plt.savefig('ten.png')
plt.show()
