import torch
from torch import tanh, zeros
import matplotlib.pyplot as plt

vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}

def word_to_onehot(word):
    column = zeros(len(vocab), 1)
    column[vocab[word], 0] = 1.0
    return column

train_data = [
    (["The", "movie", "is", "good"], 1),
    (["The", "movie", "is", "bad"], 0),
]

n, m, T = 2, len(vocab), 4
torch.manual_seed(42)

theta = {
    "W": torch.randn(n, n),
    "U": torch.randn(n, m),
    "b": zeros(n, 1),
    "W_out": torch.randn(2, n),
    "b_out": zeros(2, 1),
}
for p in theta.values():
    p.requires_grad = True
W, U, b, W_out, b_out = theta.values()

learning_rate = 0.1
num_epochs = 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []


def rnn(sentence):
    s_prev = zeros(n, 1)
    for t in range(T):
        s_t = tanh(W @ s_prev + U @ word_to_onehot(sentence[t]) + b)
    return W_out @ s_t + b_out


def update():
    with torch.no_grad():
        for p in theta.values():
            p -= learning_rate * p.grad
            p.grad.zero_()


for epoch in range(num_epochs):
    running = 0
    for sentence, label in train_data:
        loss = loss_fn(rnn(sentence).view(1, 2), torch.tensor([label]))
        loss.backward()
        update()
        running += loss.item()
    loss_history.append(running / len(train_data))
    if (epoch + 1) % 50 == 0:
        print(f"Epoch [{epoch+1}/{num_epochs}] - Loss: {loss_history[-1]:.4f}")

plt.plot(loss_history)
plt.xlabel("epoch"); plt.ylabel("loss")
plt.show()

print("==== Testing ====")
with torch.no_grad():
    for sentence, label in train_data:
        print(f"Sentence: {sentence} → Prediction: {rnn(sentence).argmax().item()}")
