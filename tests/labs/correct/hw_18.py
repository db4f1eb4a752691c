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
batch_size = 128
learning_rate = 0.005
num_epochs = 5

train_loader = torch.utils.data.DataLoader(dataset=torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True), batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(dataset=torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True), batch_size=batch_size, shuffle=False)

def my_tanh(a):
    e1 = torch.exp(a)
    e2 = torch.exp(-a)
    return (e1 - e2) / (e1 + e2)

def my_sigmoid(a):
    return 0.5 * (my_tanh(a / 2) + 1)

class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        # without bias, I tried both and saw no difference
        self.Lf = nn.Linear(input_size + hidden_size, hidden_size, bias=False)
        self.Li = nn.Linear(input_size + hidden_size, hidden_size, bias=False)
        self.Lc = nn.Linear(input_size + hidden_size, hidden_size, bias=False)
        self.Lo = nn.Linear(input_size + hidden_size, hidden_size, bias=False)

    def forward(self, x, h_prev, c_prev):
        v = torch.cat([x, h_prev], dim=1)
        forget = my_sigmoid(self.Lf(v))
        inp = my_sigmoid(self.Li(v))
        cand = my_tanh(self.Lc(v))
        out = my_sigmoid(self.Lo(v))
        keep = forget * c_prev
        new = inp * cand
        c_t = keep + new
        h_t = out * my_tanh(c_t)
        return h_t, c_t

class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        h = torch.zeros(x.size(0), self.hidden_size).to(x.device)
        c = torch.zeros(x.size(0), self.hidden_size).to(x.device)
        for t in range(0, 28):
            h, c = self.cell(x[:, t, :], h, c)
        y = self.fc(h)
        return y

device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes)
model = model.to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adagrad(model.parameters(), lr=learning_rate * 2)

model.train()
for epoch in range(num_epochs):
    for i, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        y = model(images)
        loss = criterion(y, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (i+1) % 100 == 0:
            print ('Epoch [{}/{}], Step [{}/{}], Loss: {:.4f}'.format(epoch+1, num_epochs, i+1, len(train_loader), loss.item()))

model.eval()
correct = 0
total = 0
for images, labels in test_loader:
    images = images.reshape(-1, 28, 28).to(device)
    labels = labels.to(device)
    with torch.no_grad():
        y = model(images)
    predicted = torch.argmax(y, dim=1)
    for a, b in zip(predicted, labels):
        if a == b:
            correct += 1
        total += 1
print('Test Accuracy: {:.2f}%'.format(100*correct/total))

images, labels = next(iter(test_loader))
x = images[0:10].reshape(-1, 28, 28).to(device)
y = model(x)
predicted = torch.argmax(y, dim=1)
for j in range(10):
    plt.subplot(2, 5, j+1)
    plt.imshow(images[j][0], cmap='gray')
    plt.title('T%d P%d' % (labels[j].item(), predicted[j].item()))
    plt.axis('off')
plt.show()
