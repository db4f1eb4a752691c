import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

# ---------------------------------------------------------------- settings
input_size = 28
hidden_size = 128
num_layers = 1
num_classes = 10
batch_size = 128
learning_rate = 0.0015
num_epochs = 6

# ---------------------------------------------------------------- data
def loader(train):
    ds = torchvision.datasets.MNIST(root='./data', train=train, transform=transforms.ToTensor(), download=True)
    return torch.utils.data.DataLoader(ds, batch_size=batch_size, shuffle=train)

train_loader = loader(True)
test_loader = loader(False)

# ---------------------------------------------------------------- model
class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super(ManualLSTMCell, self).__init__()
        # the bias sits in the x2* layers
        self.x2i = nn.Linear(input_size, hidden_size)
        self.h2i = nn.Linear(hidden_size, hidden_size, bias=False)
        self.x2f = nn.Linear(input_size, hidden_size)
        self.h2f = nn.Linear(hidden_size, hidden_size, bias=False)
        self.x2g = nn.Linear(input_size, hidden_size)
        self.h2g = nn.Linear(hidden_size, hidden_size, bias=False)
        self.x2o = nn.Linear(input_size, hidden_size)
        self.h2o = nn.Linear(hidden_size, hidden_size, bias=False)
        self.sigmoid = nn.Sigmoid()
        self.tanh = nn.Tanh()

    def forward(self, x, h_prev, c_prev):
        in_gate = self.sigmoid(self.x2i(x) + self.h2i(h_prev))
        forget_gate = self.sigmoid(self.x2f(x) + self.h2f(h_prev))
        cand = self.tanh(self.x2g(x) + self.h2g(h_prev))
        out_gate = self.sigmoid(self.x2o(x) + self.h2o(h_prev))

        c_t = torch.mul(forget_gate, c_prev) + torch.mul(in_gate, cand)
        h_t = torch.mul(out_gate, c_t)
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super(ManualLSTMClassifier, self).__init__()
        self.hidden_size = hidden_size
        self.lstm = ManualLSTMCell(input_size, hidden_size)
        self.classifier = nn.Linear(hidden_size, num_classes)

    def init_state(self, n, dev):
        return torch.zeros(n, self.hidden_size, device=dev), torch.zeros(n, self.hidden_size, device=dev)

    def forward(self, x):
        state = self.init_state(x.size(0), x.device)
        for t in range(x.size(1)):
            state = self.lstm(x[:, t, :], *state)
        h_last = state[0]
        return self.classifier(h_last)


device = torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.RMSprop(model.parameters(), lr=learning_rate)

# ---------------------------------------------------------------- training
def train_one_epoch(epoch):
    model.train()
    for batch, (images, labels) in enumerate(train_loader):
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        optimizer.zero_grad()
        out = model(images)
        loss = criterion(out, labels)
        loss.backward()
        optimizer.step()
        if (batch + 1) % 100 == 0:
            print('Epoch [%d/%d], Step [%d/%d], Loss: %.4f'
                  % (epoch + 1, num_epochs, batch + 1, len(train_loader), loss.item()))

for epoch in range(num_epochs):
    train_one_epoch(epoch)

# ---------------------------------------------------------------- testing
def test():
    model.eval()
    hits, seen = 0, 0
    with torch.no_grad():
        for images, labels in test_loader:
            images = images.reshape(-1, 28, 28).to(device)
            guess = model(images).argmax(dim=1).cpu()
            hits += int((guess == labels).sum())
            seen += labels.shape[0]
    return 100 * hits / seen

print('Test Accuracy: %.2f%%' % test())

# ---------------------------------------------------------------- ten images
found = {}
for images, labels in test_loader:
    for im, la in zip(images, labels):
        found.setdefault(int(la), im)
    if len(found) >= 10:
        break

plt.figure(figsize=(10, 4))
for place, (digit, im) in enumerate(sorted(found.items())[:10]):
    with torch.no_grad():
        p = int(model(im.reshape(-1, 28, 28).to(device)).argmax(1))
    plt.subplot(2, 5, place + 1)
    plt.imshow(im[0], cmap='gray')
    plt.title('True %d  Pred %d' % (digit, p))
    plt.axis('off')
plt.tight_layout()
plt.savefig('ten_digits.png')
plt.show()
