# In-class lab 7, vanilla RNN
import torch
import torch.nn.functional as F
import matplotlib.pyplot as plt

vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}
n, m, T = 2, len(vocab), 4


def word_to_onehot(word):
    return F.one_hot(torch.tensor(vocab[word]), num_classes=m).float().reshape(m, 1)


train_data = [("The movie is good".split(), 1), ("The movie is bad".split(), 0)]

torch.manual_seed(42)
W = (0.5 * torch.randn(n, n)).requires_grad_()
U = (0.5 * torch.randn(n, m)).requires_grad_()
b = torch.zeros(n, 1).requires_grad_()
W_out = (0.5 * torch.randn(2, n)).requires_grad_()
b_out = torch.zeros(2, 1).requires_grad_()
params = [W, U, b, W_out, b_out]

learning_rate = 0.1
num_epochs = 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []


def run(sentence):
    s = torch.zeros(n, 1)
    for word in sentence:
        s = torch.tanh(torch.mm(W, s) + torch.mm(U, word_to_onehot(word)) + b)
    return torch.mm(W_out, s) + b_out


for epoch in range(1, num_epochs + 1):
    epoch_loss = 0.0
    for sentence, label in train_data:
        logits = run(sentence)
        loss = loss_fn(logits.t(), torch.tensor([label]))
        loss.backward()
        with torch.no_grad():
            for p in params:
                p -= learning_rate * p.grad
        epoch_loss += loss.item()
    epoch_loss /= len(train_data)
    loss_history.append(epoch_loss)
    if epoch % 50 == 0:
        print("Epoch [{}/{}] - Loss: {:.4f}".format(epoch, num_epochs, epoch_loss))

plt.figure(figsize=(6, 4))
plt.plot(range(1, num_epochs + 1), loss_history, label="loss")
plt.legend()
plt.grid(True)
plt.show()

print("==== Testing ====")
for sentence, _ in train_data:
    with torch.no_grad():
        print("Sentence:", sentence, "→ Prediction:", run(sentence).argmax().item())
