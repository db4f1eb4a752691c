import time
import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

input_size = 28
hidden_size = 128
num_layers = 1
num_classes = 10
batch_size = 64
learning_rate = 0.001
num_epochs = 5

USE_GPU = False
if torch.cuda.is_available():
    USE_GPU = True
device = torch.device("cuda:0" if USE_GPU else "cpu")
SEQ = 28
HISTORY = []

flat = transforms.Compose([
    transforms.ToTensor(),
    transforms.Lambda(lambda im: im.flatten()),   # 784
])
train_data = torchvision.datasets.MNIST(root='./data', train=True, transform=flat, download=True)
test_data = torchvision.datasets.MNIST(root='./data', train=False, transform=flat, download=True)
train_loader = torch.utils.data.DataLoader(train_data, batch_size, True)
test_loader = torch.utils.data.DataLoader(test_data, batch_size, False)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super(ManualLSTMCell, self).__init__()
        self.W_f = nn.Linear(input_size + hidden_size, hidden_size)
        self.W_i = nn.Linear(input_size + hidden_size, hidden_size)
        self.W_c = nn.Linear(input_size + hidden_size, hidden_size)
        self.W_o = nn.Linear(input_size + hidden_size, hidden_size)
        self.sig = nn.Sigmoid()
        self.tanh = nn.Tanh()

    def forward(self, x, h_prev, c_prev):
        z = torch.cat((x, h_prev), dim=1)
        ft = self.sig(self.W_f(z))
        it = self.sig(self.W_i(z))
        cc = self.tanh(self.W_c(z))
        ot = self.sig(self.W_o(z))
        ct = it * cc + ft * c_prev
        ht = self.tanh(ct) * ot
        return ht, ct


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super(ManualLSTMClassifier, self).__init__()
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)
        self.n = hidden_size
        self.d = input_size

    def forward(self, x):
        x = x.view(-1, SEQ * self.d)
        h = torch.zeros(x.size(0), self.n, dtype=x.dtype).to(x.device)
        c = torch.zeros(x.size(0), self.n, dtype=x.dtype).to(x.device)
        for start in range(0, SEQ * self.d, self.d):
            h, c = self.cell(x[:, start:start + self.d], h, c)
        return self.fc(h)


model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)


def train_one(epoch):
    global HISTORY
    tic = time.perf_counter()
    for i, (images, labels) in enumerate(train_loader):
        images = images.to(device)
        labels = labels.to(device)
        loss = criterion(model(images), labels)
        model.zero_grad()
        loss.backward()
        optimizer.step()
        HISTORY += [loss.item()]
        if (i + 1) % 100 == 0:
            print("Epoch [{0}/{1}], Step [{2}/{3}], Loss: {4:.4f}".format(epoch + 1, num_epochs, i + 1, len(train_loader), loss.item()))
    print("epoch time: {:.1f}s".format(time.perf_counter() - tic))


for epoch in range(num_epochs):
    train_one(epoch)
torch.save(model.state_dict(), "lstm_mnist.pt")

# load it again for the test
net = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
net.load_state_dict(torch.load("lstm_mnist.pt", map_location=device))
net.eval()

correct = 0
with torch.no_grad():
    for images, labels in test_loader:
        pred = net(images.to(device)).argmax(dim=1)
        correct += pred.eq(labels.to(device)).sum().item()
print("Test Accuracy: %d/%d" % (correct, len(test_data)))

seen = []
k = 0
while len(seen) < 10:
    img, lab = test_data[k]
    if lab == len(seen):
        with torch.no_grad():
            seen.append((img.view(28, 28), lab, net(img.unsqueeze(0).to(device)).argmax().item()))
        k = -1
    k += 1
for j, (img, lab, p) in enumerate(seen):
    plt.subplot(2, 5, j + 1)
    plt.imshow(img, cmap="gray")
    plt.title("True:%d Pred:%d" % (lab, p), fontsize=8)
    plt.axis("off")
plt.show()
