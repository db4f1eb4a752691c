import torch, torchvision
import torch.nn as nn
import torchvision.transforms as transforms
import matplotlib.pyplot as plt

input_size = 28
hidden_size = 128
num_layers = 1
num_classes = 10
batch_size = 128
learning_rate = 0.1
num_epochs = 10
momentum = 0.9

train_dataset = torchvision.datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(), download=True)
test_dataset = torchvision.datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor(), download=True)
train_loader = torch.utils.data.DataLoader(dataset=train_dataset, batch_size=batch_size, shuffle=True)
test_loader = torch.utils.data.DataLoader(dataset=test_dataset, batch_size=batch_size, shuffle=False)


# I split it in the part that comes from x and the part that comes from h.
# state is the tuple (h, c)
class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.x2h = nn.Linear(input_size, 4 * hidden_size)
        self.h2h = nn.Linear(hidden_size, 4 * hidden_size)

    def forward(self, x, state):
        h_prev, c_prev = state
        gates = self.x2h(x) + self.h2h(h_prev)
        ingate, forgetgate, cellgate, outgate = gates.chunk(4, 1)

        ingate = torch.sigmoid(ingate)
        forgetgate = torch.sigmoid(forgetgate)
        cellgate = torch.tanh(cellgate)
        outgate = torch.sigmoid(outgate)

        c_t = (forgetgate * c_prev) + (ingate * cellgate)
        h_t = outgate * torch.tanh(c_t)
        return h_t, (h_t, c_t)


class ManualLSTMClassifier(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super().__init__()
        self.hidden_size = hidden_size
        self.cell = ManualLSTMCell(input_size, hidden_size)
        self.fc = nn.Linear(hidden_size, num_classes)

    def forward(self, x):
        B = x.shape[0]
        state = (torch.zeros(B, self.hidden_size, device=x.device),
                 torch.zeros(B, self.hidden_size, device=x.device))
        for t in range(x.shape[1]):
            output, state = self.cell(x[:, t, :], state)
        return self.fc(output)


device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
model = ManualLSTMClassifier(input_size, hidden_size, num_classes).to(device)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum)

for epoch in range(num_epochs):
    for i, (images, labels) in enumerate(train_loader):
        images, labels = images.reshape(-1, 28, 28).to(device), labels.to(device)
        optimizer.zero_grad()
        outputs = model(images)
        loss = criterion(outputs, labels)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), max_norm=1.0)
        optimizer.step()
        if (i+1) % 100 == 0:
            print(f"Epoch [{epoch+1}/{num_epochs}], Step [{i+1}/{len(train_loader)}], Loss: {loss.item():.4f}")

correct = total = 0
with torch.no_grad():
    for images, labels in test_loader:
        images, labels = images.reshape(-1, 28, 28).to(device), labels.to(device)
        predicted = model(images).argmax(dim=1)
        total += labels.size(0)
        correct += (predicted == labels).sum().item()
print(f"Test Accuracy: {100*correct/total:.2f}%")

indices = torch.randperm(len(test_dataset))[:10].tolist()
fig = plt.figure(figsize=(20, 4))
for n, idx in enumerate(indices):
    image, label = test_dataset[idx]
    with torch.no_grad():
        pred = torch.argmax(model(image.to(device)), dim=1).item()   # image is 1x28x28 already
    ax = fig.add_subplot(1, 10, n + 1)
    ax.imshow(image.squeeze().numpy(), cmap="gray")
    ax.set_title(f"True {label} / Pred {pred}")
    ax.axis("off")
plt.show()
