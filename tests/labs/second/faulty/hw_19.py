import torch
from torch import nn, optim
from torch.utils.data import DataLoader
from torchvision import datasets, transforms
from matplotlib import pyplot as plt

input_size = 28
hidden_size = 128
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
        super().__init__()
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.n_hidden = hidden_size
        self.output = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], self.n_hidden)
        c = x.new_zeros(x.shape[0], self.n_hidden)
        for row in x.unbind(dim=1):
            h, c = self.cell(row, h, c)
        return self.output(h)


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

shown = [(test_dataset.targets == d).nonzero()[0].item() for d in range(10)]
images = torch.cat([test_dataset[k][0] for k in shown])
with torch.no_grad():
    predicted = model(images.to(device)).argmax(dim=0).cpu()
fig, axes = plt.subplots(1, 10, figsize=(15, 2.5))
for d in range(10):
    axes[d].imshow(images[d], cmap="gray")
    axes[d].set_title("true {}\npred {}".format(d, predicted[d].item()))
    axes[d].axis("off")
plt.show()
