import argparse
import time
import torch
import torch.nn as nn
import torch.optim as optim
import torchvision.datasets as dsets
import torchvision.transforms as T
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser(description='lab7 hw')
parser.add_argument('--hidden_size', type=int, default=128)
parser.add_argument('--batch_size', type=int, default=256)
parser.add_argument('--lr', type=float, default=0.003)
parser.add_argument('--epochs', type=int, default=10)
parser.add_argument('--no-cuda', action='store_true')
args, _ = parser.parse_known_args()

input_size = 28
hidden_size = args.hidden_size
num_layers = 1
num_classes = 10
batch_size = args.batch_size
learning_rate = args.lr
num_epochs = args.epochs
use_cuda = torch.cuda.is_available() and not args.no_cuda

train_dataset = dsets.MNIST(root='./data', train=True, transform=T.ToTensor(), download=True)
test_dataset = dsets.MNIST(root='./data', train=False, transform=T.ToTensor(), download=True)
train_loader = torch.utils.data.DataLoader(train_dataset, batch_size, shuffle=True, drop_last=True, pin_memory=use_cuda)
test_loader = torch.utils.data.DataLoader(test_dataset, batch_size, shuffle=False)


class ManualLSTMCell(nn.Module):
	def __init__(self, input_size, hidden_size):
		super(ManualLSTMCell, self).__init__()
		self.hidden_size = hidden_size
		self.linear = nn.Linear(input_size + hidden_size, hidden_size * 4)
		self.sig = nn.Sigmoid()
		self.tanh = nn.Tanh()

	def forward(self, x, h_prev, c_prev):
		xh = torch.cat((x, h_prev), dim=1)
		# f, i, o need sigmoid, last one is c~ and needs tanh
		gates, c_tilde = torch.split(self.linear(xh), [3 * self.hidden_size, self.hidden_size], dim=1)
		gates = self.sig(gates)
		f, i, o = torch.split(gates, self.hidden_size, dim=1)
		c_tilde = self.tanh(c_tilde)
		c_t = f * c_prev + i * c_tilde
		h_t = o * self.tanh(c_t)
		return h_t, c_t


class ManualLSTMClassifier(nn.Module):
	def __init__(self, input_size, hidden_size, num_classes):
		super(ManualLSTMClassifier, self).__init__()
		self.hidden_size = hidden_size
		self.lstm = ManualLSTMCell(input_size, hidden_size)
		self.out = nn.Linear(hidden_size, num_classes)

	def forward(self, x):
		h = torch.zeros(x.size(0), self.hidden_size)
		c = torch.zeros(x.size(0), self.hidden_size)
		if x.is_cuda:
			h = h.cuda()
			c = c.cuda()
		t = 0
		while t < x.size(1):
			h, c = self.lstm(x[:, t], h, c)
			t += 1
		return self.out(h)


model = ManualLSTMClassifier(input_size, hidden_size, num_classes)
if use_cuda:
	model.cuda()
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)
scheduler = optim.lr_scheduler.StepLR(optimizer, step_size=4, gamma=0.5)

start = time.time()
for epoch in range(num_epochs):
	for i, (images, labels) in enumerate(train_loader):
		images = images.reshape(-1, 28, 28)
		if use_cuda:
			images, labels = images.cuda(), labels.cuda()
		outputs = model(images)
		loss = criterion(outputs, labels)
		model.zero_grad()
		loss.backward()
		optimizer.step()
		if (i + 1) % 100 == 0:
			print("Epoch [{}/{}], Step [{}/{}], Loss: {:.4f}".format(epoch + 1, num_epochs, i + 1, len(train_loader), loss.item()))
	scheduler.step()
	print("  epoch done, lr now", scheduler.get_last_lr()[0], " %.1f s" % (time.time() - start))

# ---- test ----
model.eval()
n_right = 0
with torch.no_grad():
	for images, labels in test_loader:
		images = images.reshape(-1, 28, 28)
		if use_cuda:
			images, labels = images.cuda(), labels.cuda()
		n_right += model(images).max(1)[1].eq(labels).sum().item()
print("Test Accuracy: {:.2f}%".format(100.0 * n_right / len(test_dataset)))

# ---- ten pictures ----
images, labels = next(iter(test_loader))
images, labels = images[:10], labels[:10]
with torch.no_grad():
	x = images.reshape(-1, 28, 28)
	pred = model(x.cuda() if use_cuda else x).argmax(1).cpu()
plt.figure(figsize=(12, 5))
for k in range(10):
	plt.subplot(2, 5, k + 1)
	plt.imshow(images[k, 0], cmap='gray_r')
	plt.title("label %d, predicted %d" % (labels[k], pred[k]))
	plt.xticks([]); plt.yticks([])
plt.savefig('ten_digits.png')
plt.show()
