import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

input_size = 28
hidden_size = 150
num_layers = 1
num_classes = 10
batch_size = 128
learning_rate = 0.001
num_epochs = 5

train_dataset = torchvision.datasets.MNIST(root='./data', train=True,
                                           transform=transforms.ToTensor(), download=True)
test_dataset = torchvision.datasets.MNIST(root='./data', train=False,
                                          transform=transforms.ToTensor(), download=True)
train_loader = torch.utils.data.DataLoader(dataset=train_dataset, batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(dataset=test_dataset, batch_size=batch_size, shuffle=False)

device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super(ManualLSTMCell, self).__init__()
        dim = input_size + hidden_size
        self.forget_layer = nn.Sequential(nn.Linear(dim, hidden_size), nn.Sigmoid())
        self.input_layer = nn.Sequential(nn.Linear(dim, hidden_size), nn.Sigmoid())
        self.output_layer = nn.Sequential(nn.Linear(dim, hidden_size), nn.Sigmoid())
        self.cell_layer = nn.Sequential(nn.Linear(dim, hidden_size), nn.Tanh())

    def forward(self, x, h_prev, c_prev):
        # concatenate input and last hidden state
        xh = torch.cat((x, h_prev), 1)
        # gates
        f = self.forget_layer(xh)
        i = self.input_layer(xh)
        c_tilde = self.cell_layer(xh)
        o = self.output_layer(xh)
        # new states
        c_t = f * c_prev + i * c_tilde
        h_t = o * torch.tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super(ManualLSTMClassifier, self).__init__()
        self.hidden_size = hidden_size
        self.lstm = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        batch, steps, _ = x.size()
        h_t = torch.zeros(batch, self.hidden_size).to(device)
        c_t = torch.zeros(batch, self.hidden_size).to(device)
        for t in range(steps):
            h_t, c_t = self.lstm(x[:, t, :], h_t.detach(), c_t.detach())
        out = self.fc(h_t)
        return out


model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)

loss_record = []
n_total_steps = len(train_loader)
for epoch in range(num_epochs):
    for i, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)

        # forward
        outputs = model(images)
        loss = criterion(outputs, labels)

        # backward
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        loss_record.append(loss.item())
        if (i + 1) % 100 == 0:
            print(f'Epoch [{epoch + 1}/{num_epochs}], Step [{i + 1}/{n_total_steps}], Loss: {loss.item():.4f}')

with torch.no_grad():
    n_correct = 0
    n_samples = 0
    for images, labels in test_loader:
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        outputs = model(images)
        _, predicted = torch.max(outputs.data, 1)
        n_samples += labels.size(0)
        n_correct += (predicted == labels).sum().item()
    acc = 100.0 * n_correct / n_samples
    print(f'Test Accuracy: {acc:.2f}%')

plt.plot(loss_record)
plt.title('training loss')
plt.show()

pick = [int(torch.where(test_dataset.targets == d)[0][3]) for d in range(10)]
samples = torch.stack([test_dataset[p][0] for p in pick])
with torch.no_grad():
    out = model(samples.reshape(-1, 28, 28).to(device))
pred = out.argmax(dim=1).tolist()
f, axs = plt.subplots(2, 5)
for d in range(10):
    a = axs[d // 5][d % 5]
    a.imshow(samples[d].squeeze(), cmap='gray')
    a.set_title(f'label {d}, pred {pred[d]}', fontsize=8)
    a.axis('off')
plt.show()
