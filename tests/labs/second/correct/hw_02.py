import torch, time
import torch.nn as nn
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

# ---- hyper parameters ----
input_size = 28
hidden_size = 128
num_layers = 1
num_classes = 10
batch_size = 64
learning_rate = 0.001
num_epochs = 4

device = 'cuda' if torch.cuda.is_available() else 'cpu'
print('using', device)

tf = transforms.ToTensor()
train_loader = torch.utils.data.DataLoader(torchvision.datasets.MNIST(root='./data', train=True, transform=tf, download=True), batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(torchvision.datasets.MNIST(root='./data', train=False, transform=tf, download=True), batch_size=batch_size)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super(ManualLSTMCell, self).__init__()
        self.fc_f = nn.Linear(input_size + hidden_size, hidden_size)
        self.fc_i = nn.Linear(input_size + hidden_size, hidden_size)
        self.fc_c = nn.Linear(input_size + hidden_size, hidden_size)
        self.fc_o = nn.Linear(input_size + hidden_size, hidden_size)

    def forward(self, x, h_prev, c_prev):
        xh = torch.cat([x, h_prev], dim=1)
        f = torch.sigmoid(self.fc_f(xh))
        i = torch.sigmoid(self.fc_i(xh))
        c_tilde = torch.tanh(self.fc_c(xh))
        c_t = f * c_prev + i * c_tilde
        o = torch.sigmoid(self.fc_o(xh))
        return o * torch.tanh(c_t), c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super(ManualLSTMClassifier, self).__init__()
        self.hidden_size = hidden_size
        self.lstm_cell = ManualLSTMCell(input_size, hidden_size)
        self.out = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        # I write the recurrence out again here, calling the cell 28 times was slower on my laptop
        cell = self.lstm_cell
        h = torch.zeros(x.size(0), self.hidden_size, device=x.device, dtype=x.dtype)
        c = torch.zeros(x.size(0), self.hidden_size, device=x.device, dtype=x.dtype)
        for t in range(28):
            xh = torch.cat([x[:, t, :], h], dim=1)
            c = torch.sigmoid(cell.fc_f(xh)) * c + torch.sigmoid(cell.fc_i(xh)) * torch.tanh(cell.fc_c(xh))
            h = torch.sigmoid(cell.fc_o(xh)) * torch.tanh(c)
        return self.out(h)


model = ManualLSTMClassifier(input_size, hidden_size, num_classes)
model = model.to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.RMSprop(model.parameters(), lr=learning_rate)

start = time.time()
loss_record = []
for epoch in range(num_epochs):
    model.train()
    running = 0.0
    for i, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        optimizer.zero_grad()
        outputs = model(images)
        loss = criterion(outputs, labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        running += loss.item()
        if (i + 1) % 100 == 0:
            print('Epoch [%d/%d], Step [%d/%d], Loss: %.4f' % (epoch + 1, num_epochs, i + 1, len(train_loader), loss.item()))
    loss_record.append(running / len(train_loader))
print('training took %.1f s' % (time.time() - start))
print('mean loss per epoch:', loss_record)

# ---- TODO 2 ----
model.eval()
n_right, n_all = 0, 0
with torch.no_grad():
    for images, labels in test_loader:
        outputs = model(images.reshape(-1, 28, 28).to(device))
        _, predicted = torch.max(outputs.data, 1)
        n_all += labels.size(0)
        n_right += (predicted.cpu() == labels).sum().item()
print('Test Accuracy: %.2f%%' % (100.0 * n_right / n_all))

# ---- TODO 3 ----
images, labels = next(iter(test_loader))
with torch.no_grad():
    predicted = model(images.reshape(-1, 28, 28).to(device)).argmax(dim=1).cpu()
for k in range(10):
    plt.figure(figsize=(2, 2))
    plt.imshow(images[k].squeeze(), cmap='gray')
    plt.title('label %d, predicted %d' % (labels[k], predicted[k]))
    plt.axis('off')
    plt.show()
