import torch
import matplotlib.pyplot as plt

vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}

def word_to_onehot(word):
    vec = torch.zeros(len(vocab), 1)
    vec[vocab[word]] = 1.0
    return vec

train_data = [
    (["The", "movie", "is", "good"], 1),
    (["The", "movie", "is", "bad"], 0),
]

n = 2
m = len(vocab)
T = 4
torch.manual_seed(42)

# parameters
W = torch.randn(n, n).requires_grad_()
U = torch.randn(n, m).requires_grad_()
b = torch.randn(n, 1).requires_grad_()
W_out = torch.randn(2, n).requires_grad_()
b_out = torch.randn(2, 1).requires_grad_()

learning_rate = 0.1
num_epochs = 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []

for epoch in range(num_epochs):
    running = []
    for words, y in train_data:
        s = torch.zeros(n, 1)
        for w in words:
            s = torch.tanh(W @ s + U @ word_to_onehot(w) + b)
        out = W_out @ s + b_out
        loss = loss_fn(s.t(), torch.tensor([y]))
        loss.backward()
        for p in (W, U, b, W_out, b_out):
            if p.grad is not None:
                with torch.no_grad():
                    p.sub_(learning_rate * p.grad)
                p.grad = None
        running.append(loss.item())
    loss_history.append(sum(running) / 2)
    if (epoch + 1) % 50 == 0:
        print(f"Epoch [{epoch+1}/{num_epochs}] - Loss: {loss_history[-1]:.4f}")

plt.plot(loss_history)
plt.show()

print("==== Testing ====")
with torch.no_grad():
    for sentence, label in train_data:
        s = torch.zeros(n, 1)
        for t in range(T):
            s = torch.tanh(W @ s + U @ word_to_onehot(sentence[t]) + b)
        logits = W_out @ s + b_out
        print(f"Sentence: {sentence} → Prediction: {torch.argmax(logits).item()}")
