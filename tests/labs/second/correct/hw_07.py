# Lab7 homework. I did not use torch.optim at all, SGD is done by hand.
import torch
import torch.nn as nn
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

input_size = 28
hidden_size = 64
num_layers = 1
num_classes = 10
batch_size = 32
learning_rate = 0.5
num_epochs = 6

lr = lambda epoch: learning_rate / (1 + 0.5 * epoch)

device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
train_dataset = torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test_dataset = torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)
train_loader = torch.utils.data.DataLoader(train_dataset, batch_size=batch_size, shuffle=True, drop_last=True)
test_loader = torch.utils.data.DataLoader(test_dataset, batch_size=batch_size, shuffle=False)


def make(*shape):
    return nn.Parameter(torch.randn(*shape) * 0.1)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.Wf, self.Uf, self.bf = make(hidden_size, hidden_size), make(hidden_size, input_size), nn.Parameter(torch.ones(hidden_size))
        self.Wi, self.Ui, self.bi = make(hidden_size, hidden_size), make(hidden_size, input_size), make(hidden_size)
        self.Wo, self.Uo, self.bo = make(hidden_size, hidden_size), make(hidden_size, input_size), make(hidden_size)
        self.Wc, self.Uc, self.bc = make(hidden_size, hidden_size), make(hidden_size, input_size), make(hidden_size)

    def forward(self, x, h_prev, c_prev):
        lin = nn.functional.linear
        f = torch.sigmoid(lin(h_prev, self.Wf) + lin(x, self.Uf, self.bf))
        i = torch.sigmoid(lin(h_prev, self.Wi) + lin(x, self.Ui, self.bi))
        o = torch.sigmoid(lin(h_prev, self.Wo) + lin(x, self.Uo, self.bo))
        c_tilde = torch.tanh(lin(h_prev, self.Wc) + lin(x, self.Uc, self.bc))
        c_t = f * c_prev
        c_t = c_t + i * c_tilde
        h_t = o * torch.tanh(c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.Wout = make(num_classes, hidden_size)
        self.bout = nn.Parameter(torch.zeros(num_classes))

    def forward(self, x):
        h_t = torch.zeros(x.shape[0], self.hidden_size).to(x.device, x.dtype)
        c_t = torch.zeros(x.shape[0], self.hidden_size).to(x.device, x.dtype)
        t = 0
        while t < x.shape[1]:
            h_t, c_t = self.cell(x[:, t, :], h_t, c_t)
            t += 1
        return torch.matmul(h_t, self.Wout.t()) + self.bout


model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()

loss_list = []
for epoch in range(num_epochs):
    for i, (images, labels) in enumerate(train_loader):
        outputs = model(images.reshape(-1, 28, 28).to(device))
        loss = criterion(outputs, labels.to(device))
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= lr(epoch) * p.grad
                p.grad.zero_()
        if (i + 1) % 100 == 0:
            print(f'Epoch [{epoch+1}/{num_epochs}], Step [{i+1}/{len(train_loader)}], Loss: {loss.item():.4f}')
            loss_list.append(loss.item())

correct = 0
with torch.no_grad():
    for images, labels in test_loader:
        outputs = model(images.reshape(-1, 28, 28).to(device))
        for row, label in zip(outputs.tolist(), labels.tolist()):
            if row.index(max(row)) == label:
                correct += 1
print(f'Test Accuracy: {correct / len(test_dataset) * 100:.2f}%')

plt.figure(figsize=(12, 5))
for n in range(10):
    image, label = test_dataset[n]
    with torch.no_grad():
        scores = model(image.view(1, 28, 28).to(device))[0]
    plt.subplot(2, 5, n + 1)
    plt.imshow(image.view(28, 28).numpy(), cmap='gray')
    plt.title('true ' + str(label) + ' predicted ' + str(int(scores.argmax())))
plt.show()
