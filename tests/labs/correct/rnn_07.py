import numpy as np
import torch
import matplotlib.pyplot as plt

vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}
n = 2; m = len(vocab); T = 4

def word_to_onehot(word):
    v = np.zeros((m, 1), dtype=np.float32)
    v[vocab[word], 0] = 1.0
    return torch.from_numpy(v)

train_data = [(["The", "movie", "is", "good"], 1), (["The", "movie", "is", "bad"], 0)]

# sentences as one array of one-hot columns: m x T
X = [torch.cat([word_to_onehot(w) for w in words], dim=1) for words, _ in train_data]
Y = [torch.tensor([y]) for _, y in train_data]

rng = np.random.default_rng(7)
def make(r, c):
    return torch.tensor(rng.normal(0, 1 / np.sqrt(c), size=(r, c)), dtype=torch.float32, requires_grad=True)

W, U, W_out = make(n, n), make(n, m), make(2, n)
b = torch.tensor(np.zeros((n, 1)), dtype=torch.float32, requires_grad=True)
b_out = torch.tensor(np.zeros((2, 1)), dtype=torch.float32, requires_grad=True)

learning_rate = 0.1
num_epochs = 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = np.zeros(num_epochs)

for epoch in range(num_epochs):
    for k in range(len(train_data)):
        S = [torch.zeros(n, 1)]
        for t in range(T):
            x_t = X[k][:, t:t+1]
            S.append(torch.tanh(torch.mm(W, S[t]) + torch.mm(U, x_t) + b))
        logits = torch.mm(W_out, S[T]) + b_out
        loss = loss_fn(logits.reshape(1, 2), Y[k])
        loss.backward()
        for p in (W, U, b, W_out, b_out):
            p.data -= learning_rate * p.grad.data
            p.grad.data.zero_()
        loss_history[epoch] += loss.item() / 2
    if (epoch + 1) % 50 == 0:
        print('Epoch [%d/%d] - Loss: %.4f' % (epoch + 1, num_epochs, loss_history[epoch]))

plt.semilogy(np.arange(num_epochs) + 1, loss_history)
plt.xlabel('epoch'); plt.ylabel('loss')
plt.show()

print('==== Testing ====')
for k, (words, y) in enumerate(train_data):
    s = np.zeros((n, 1))
    for t in range(T):
        s = np.tanh(W.detach().numpy() @ s + U.detach().numpy() @ X[k][:, t:t+1].numpy() + b.detach().numpy())
    out = W_out.detach().numpy() @ s + b_out.detach().numpy()
    print('Sentence:', words, '→ Prediction:', int(np.argmax(out)))
