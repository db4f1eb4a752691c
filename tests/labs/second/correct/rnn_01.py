import torch
import matplotlib.pyplot as plt

vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}

def word_to_onehot(word):
    v = torch.zeros(len(vocab), 1)
    v[vocab[word]] = 1.0
    return v

train_data = [
    (["The", "movie", "is", "good"], 1),
    (["The", "movie", "is", "bad"], 0),
]

n = 2
m = len(vocab)
T = 4
torch.manual_seed(42)

P = {
    "W": torch.randn(n, n),
    "U": torch.randn(n, m),
    "b": torch.zeros(n, 1),
    "W_out": torch.randn(2, n),
    "b_out": torch.zeros(2, 1),
}
for p in P.values():
    p.requires_grad_()

learning_rate = 0.1
num_epochs = 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []

def run(words):
    s = torch.zeros(n, 1)
    for w in words:
        k = vocab[w]
        # U times a one-hot column is just column k of U
        s = torch.tanh(P["W"] @ s + P["U"][:, k:k+1] + P["b"])
    return P["W_out"] @ s + P["b_out"]

for epoch in range(num_epochs):
    total = 0
    for words, label in train_data:
        logits = run(words)
        loss = loss_fn(logits.T, torch.tensor([label]))
        loss.backward()
        with torch.no_grad():
            for name in P:
                P[name] -= learning_rate * P[name].grad
                P[name].grad.zero_()
        total += loss.item()
    loss_history.append(total / len(train_data))
    if (epoch + 1) % 50 == 0:
        print(f"Epoch [{epoch+1}/{num_epochs}] - Loss: {loss_history[-1]:.4f}")

plt.plot(loss_history)
plt.xlabel("Epoch")
plt.ylabel("Loss")
plt.show()

print("==== Testing ====")
for words, label in train_data:
    with torch.no_grad():
        print(f"Sentence: {words} → Prediction: {run(words).argmax().item()}")
