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

W = torch.randn(n, n, requires_grad=True)
U = torch.randn(n, m, requires_grad=True)
b = torch.zeros(n, 1, requires_grad=True)
W_out = torch.randn(2, n, requires_grad=True)
b_out = torch.zeros(2, 1, requires_grad=True)

learning_rate = 0.1
num_epochs = 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []

for epoch in range(num_epochs):
    total_loss = 0
    for sentence, label in train_data:
        s = torch.zeros(n, 1)
        for t in range(T):
            x = word_to_onehot(sentence[t])
            s = torch.tanh(W @ s + U @ x + b)
        logits = W_out @ s + b_out
        loss = loss_fn(logits.T, torch.tensor([label]))
        loss.backward()

        with torch.no_grad():
            W -= learning_rate * W.grad
            U -= learning_rate * U.grad
            b -= learning_rate * b.grad
            W_out += learning_rate * W_out.grad
            b_out += learning_rate * b_out.grad

        W.grad.zero_()
        U.grad.zero_()
        b.grad.zero_()
        W_out.grad.zero_()
        b_out.grad.zero_()
        total_loss += loss.item()

    loss_history.append(total_loss / len(train_data))
    if (epoch + 1) % 50 == 0:
        print(f"Epoch [{epoch+1}/{num_epochs}] - Loss: {total_loss / len(train_data):.4f}")

plt.plot(loss_history)
plt.xlabel("Epoch")
plt.ylabel("Loss")
plt.show()

print("==== Testing ====")
with torch.no_grad():
    for sentence, label in train_data:
        s = torch.zeros(n, 1)
        for t in range(T):
            s = torch.tanh(W @ s + U @ word_to_onehot(sentence[t]) + b)
        logits = W_out @ s + b_out
        print(f"Sentence: {sentence} → Prediction: {torch.argmax(logits).item()}")
