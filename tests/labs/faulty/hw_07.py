# Lab 7 homework. I use column vectors like in the lecture: x_t is 28 x N, h_t and c_t are hidden x N.
import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

input_size = 28
hidden_size = 64
num_layers = 1
num_classes = 10
batch_size = 100
learning_rate = 0.001
num_epochs = 5

train_dataset = torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test_dataset = torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)
train_loader = torch.utils.data.DataLoader(train_dataset, batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(test_dataset, batch_size=batch_size, shuffle=False)


def weight(rows, cols):
    return nn.Parameter(torch.randn(rows, cols) * 0.1)

def bias(rows):
    return nn.Parameter(torch.zeros(rows, 1))


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        n, m = hidden_size, input_size
        self.Wi, self.Ui, self.bi = weight(n, n), weight(n, m), bias(n)
        self.Wf, self.Uf, self.bf = weight(n, n), weight(n, m), bias(n)
        self.Wo, self.Uo, self.bo = weight(n, n), weight(n, m), bias(n)
        self.Wc, self.Uc, self.bc = weight(n, n), weight(n, m), bias(n)

    def forward(self, x, h_prev, c_prev):
        i = torch.sigmoid(self.Wi @ h_prev + self.Ui @ x + self.bi)
        f = torch.sigmoid(self.Wf @ h_prev + self.Uf @ x + self.bf)
        o = torch.sigmoid(self.Wo @ h_prev + self.Uo @ x + self.bo)
        c_tilde = torch.tanh(self.Wc @ h_prev + self.Uc @ x + self.bc)
        c_t = f * c_prev + i * c_tilde
        h_t = o * torch.tanh(c_t)
        return c_t, h_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.W_out = weight(num_classes, hidden_size)
        self.b_out = bias(num_classes)

    def forward(self, x):
        N = x.size(0)
        xs = x.permute(1, 2, 0)            # time, feature, N
        h = torch.zeros(self.hidden_size, N, device=x.device)
        c = torch.zeros(self.hidden_size, N, device=x.device)
        for x_t in xs:
            h, c = self.cell(x_t, h, c)
        logits = self.W_out @ h + self.b_out
        return logits.t()                  # N x 10 for the loss


device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)

total_step = len(train_loader)
for epoch in range(num_epochs):
    running = 0.0
    for i, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        outputs = model(images)
        loss = criterion(outputs, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running += loss.item()
        if (i + 1) % 100 == 0:
            print('Epoch [{}/{}], Step [{}/{}], Loss: {:.4f}'.format(epoch + 1, num_epochs, i + 1, total_step, loss.item()))
    print('   mean loss of the epoch: {:.4f}'.format(running / total_step))

correct = 0
total = 0
with torch.no_grad():
    for images, labels in test_loader:
        images = images.reshape(-1, 28, 28).to(device)
        outputs = model(images)
        predicted = outputs.argmax(1).cpu()
        correct += (predicted == labels).sum().item()
        total += labels.size(0)
print('Test Accuracy: {:.2f}%'.format(correct * 100 / total))

shown = []
need = 0
while need < 10:
    for k in range(len(test_dataset)):
        if test_dataset[k][1] == need:
            shown.append(k)
            break
    need += 1

plt.figure(figsize=(10, 5))
for j, k in enumerate(shown):
    image, label = test_dataset[k]
    with torch.no_grad():
        p = model(image.reshape(-1, 28, 28).to(device)).argmax(1).item()
    plt.subplot(2, 5, j + 1)
    plt.imshow(image[0].numpy(), cmap='gray')
    plt.title('true: {} pred: {}'.format(label, p))
    plt.axis('off')
plt.show()
