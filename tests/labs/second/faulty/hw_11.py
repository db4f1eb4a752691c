import torch
from torch import nn, optim
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from matplotlib import pyplot as plt

input_size = 28
hidden_size = 100
num_layers = 1
num_classes = 10
batch_size = 128
learning_rate = 0.001
num_epochs = 4

torch.manual_seed(1)
if torch.cuda.is_available():
    device = torch.device("cuda")
else:
    device = torch.device("cpu")

tfm = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
train_dataset = datasets.MNIST(root="./data", train=True, transform=tfm, download=True)
test_dataset = datasets.MNIST(root="./data", train=False, transform=tfm, download=True)
train_loader = DataLoader(train_dataset, batch_size=batch_size, shuffle=True)
test_loader = DataLoader(test_dataset, batch_size=batch_size, shuffle=False)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super(ManualLSTMCell, self).__init__()
        self.W_f = nn.Linear(input_size + hidden_size, hidden_size)
        self.W_i = nn.Linear(input_size + hidden_size, hidden_size)
        self.W_c = nn.Linear(input_size + hidden_size, hidden_size)
        self.W_o = nn.Linear(input_size + hidden_size, hidden_size)

    def forward(self, x, h_prev, c_prev):
        combined = torch.cat((x, h_prev), dim=1)
        f = torch.sigmoid(self.W_f(combined))
        i = torch.sigmoid(self.W_i(combined))
        c_tilde = torch.tanh(self.W_c(combined))
        c_t = f * c_prev + i * c_tilde
        o = torch.sigmoid(self.W_o(combined))
        h_t = o * torch.tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super(ManualLSTMClassifier, self).__init__()
        self.hidden_size = hidden_size
        self.lstm_cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        batch = x.size(0)
        h_t = torch.zeros(batch, self.hidden_size, dtype=x.dtype, device=x.device)
        c_t = torch.zeros(batch, self.hidden_size, dtype=x.dtype, device=x.device)
        outputs = []
        for t in range(x.size(1)):
            h_t, c_t = self.lstm_cell(x[:, t, :], h_t, c_t)
            outputs.append(h_t)
        out = self.fc(outputs[0])
        return out


model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)

loss_list = []
model.train()
for epoch in range(1, num_epochs + 1):
    for step, (images, labels) in enumerate(train_loader, 1):
        images, labels = images.reshape(-1, 28, 28).to(device), labels.to(device)
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        loss_list.append(loss.item())
        if step % 100 == 0:
            print("Epoch [{}/{}], Step [{}/{}], Loss: {:.4f}".format(epoch, num_epochs, step, len(train_loader), loss.item()))

plt.plot(loss_list)
plt.title("training loss")
plt.show()

correct = 0
with torch.no_grad():
    for images, labels in test_loader:
        pred = model(images.reshape(-1, 28, 28).to(device)).argmax(dim=1)
        correct += pred.eq(labels.to(device)).sum().item()
print("Test Accuracy: {:.2f}%".format(100.0 * correct / len(test_dataset)))

plt.figure(figsize=(12, 5))
for d in range(10):
    idx = (test_dataset.targets == d).nonzero()[0].item()
    image, label = test_dataset[idx]
    with torch.no_grad():
        p = model(image.reshape(-1, 28, 28).to(device)).argmax(dim=1).item()
    plt.subplot(2, 5, d + 1)
    plt.imshow(image[0], cmap="gray")
    plt.title("{} -> {}".format(label, p))
    plt.axis("off")
plt.show()
