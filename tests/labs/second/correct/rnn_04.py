import torch
from torch import tanh
import matplotlib.pyplot as plt

vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}
word_to_onehot = lambda word: torch.nn.functional.one_hot(torch.tensor(vocab[word]), len(vocab)).float().unsqueeze(1)
train_data = [(["The", "movie", "is", "good"], 1), (["The", "movie", "is", "bad"], 0)]

n = 2; m = len(vocab); T = 4
torch.manual_seed(42)

w_hh = torch.nn.Parameter(torch.randn(n, n))
w_xh = torch.nn.Parameter(torch.randn(n, m))
b_h = torch.nn.Parameter(torch.zeros(n, 1))
w_hy = torch.nn.Parameter(torch.randn(2, n))
b_y = torch.nn.Parameter(torch.zeros(2, 1))
params = (w_hh, w_xh, b_h, w_hy, b_y)

learning_rate = 0.1
num_epochs = 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []


def predict(words, w_hh, w_xh, b_h, w_hy, b_y):
    s = torch.zeros(n, 1)
    for t in range(T):
        s = tanh(torch.matmul(w_hh, s) + torch.matmul(w_xh, word_to_onehot(words[t])) + b_h)
    return torch.matmul(w_hy, s) + b_y


for epoch in range(num_epochs):
    epoch_losses = []
    for words, target in train_data:
        loss = loss_fn(predict(words, *params).squeeze(1).unsqueeze(0), torch.tensor([target]))
        grads = torch.autograd.grad(loss, params)
        with torch.no_grad():
            for p, g in zip(params, grads):
                p.add_(g, alpha=-learning_rate)
        epoch_losses.append(loss.item())
    loss_history.append(sum(epoch_losses) / len(epoch_losses))
    if not (epoch + 1) % 50:
        print(f"Epoch [{epoch + 1}/{num_epochs}] - Loss: {loss_history[-1]:.4f}")

plt.semilogy(loss_history)
plt.xlabel('epoch'); plt.ylabel('loss (log)')
plt.show()

print("==== Testing ====")
with torch.no_grad():
    for words, target in train_data:
        out = predict(words, *params)
        print(f"Sentence: {words} → Prediction: {out.argmax(0).item()}")
