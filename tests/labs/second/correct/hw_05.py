import torch
import torch.nn as nn
import torch.optim as optim
import torchvision
import torchvision.transforms as T
import matplotlib.pyplot as plt
from tqdm import tqdm

input_size = 28
hidden_size = 128
num_layers = 1
num_classes = 10
batch_size = 256
learning_rate = 0.004
num_epochs = 4

device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')


def get_loaders(bs):
    def ds(train):
        return torchvision.datasets.MNIST(root='./data', train=train, transform=T.ToTensor(), download=True)
    def dl(d, shuffle):
        return torch.utils.data.DataLoader(d, batch_size=bs, shuffle=shuffle)
    return dl(ds(True), True), dl(ds(False), False)


train_loader, test_loader = get_loaders(batch_size)


class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super(ManualLSTMCell, self).__init__()
        self.x2h = nn.Linear(input_size, 4 * hidden_size)
        self.h2h = nn.Linear(hidden_size, 4 * hidden_size, bias=False)

    def forward(self, x, h_prev, c_prev):
        f, i, g, o = (self.x2h(x) + self.h2h(h_prev)).chunk(4, dim=-1)
        c_t = torch.sigmoid(i).mul(torch.tanh(g)).add(torch.sigmoid(f).mul(c_prev))
        h_t = torch.tanh(c_t).mul(torch.sigmoid(o))
        return h_t, c_t


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super(ManualLSTMClassifier, self).__init__()
        self.hidden_size = hidden_size
        self.lstm = ManualLSTMCell(input_size, hidden_size)
        self.classifier = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        outputs, cells = [], [torch.zeros(x.size(0), self.hidden_size, device=x.device, dtype=x.dtype)]
        hs = [torch.zeros_like(cells[0])]
        for step, row in zip(range(x.size(1)), x.unbind(1)):
            h, c = self.lstm(row, hs[step], cells[step])
            hs.append(h)
            cells.append(c)
            outputs.append(h)
        return self.classifier(torch.stack(outputs)[-1])


model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-4)

for epoch in range(num_epochs):
    model.train()
    bar = tqdm(enumerate(train_loader), total=len(train_loader), desc=f"epoch {epoch + 1}")
    for idx, (images, labels) in bar:
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)

        out = model(images)
        loss = criterion(out, labels)

        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        bar.set_postfix(loss=loss.item())
        if (idx + 1) % 100 == 0:
            tqdm.write("Epoch [{}/{}], Step [{}/{}], Loss: {:.4f}".format(epoch + 1, num_epochs, idx + 1, len(train_loader), loss.item()))


def test():
    model.eval()
    all_pred, all_true = [], []
    with torch.no_grad():
        for images, labels in test_loader:
            all_pred.append(model(images.reshape(-1, 28, 28).to(device)).argmax(1).cpu())
            all_true.append(labels)
    return torch.cat(all_pred), torch.cat(all_true)


pred, true = test()
print("Test Accuracy: {:.2f}%".format((pred == true).float().mean().item() * 100))

fig = plt.figure(figsize=(10, 5))
for d in range(10):
    where = int((true == d).nonzero()[0])
    ax = fig.add_subplot(2, 5, d + 1)
    ax.imshow(test_loader.dataset[where][0][0], cmap='gray')
    ax.set_title("True: {}\nPred: {}".format(true[where], pred[where]))
    ax.set_xticks([]); ax.set_yticks([])
plt.show()
