import torch
import matplotlib.pyplot as plt

# ----- data -----
vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}

def word_to_onehot(word):
    v = [[0.0] for _ in vocab]
    v[vocab[word]][0] = 1.0
    return torch.tensor(v)

train_data = [
    (["The", "movie", "is", "good"], 1),
    (["The", "movie", "is", "bad"], 0),
]

# ----- sizes -----
n = 2
m = len(vocab)
T = 4

# ----- weights -----
torch.manual_seed(42)
W = torch.rand(n, n, requires_grad=True)
U = torch.rand(n, m, requires_grad=True)
b = torch.rand(n, 1, requires_grad=True)
W_out = torch.rand(2, n, requires_grad=True)
b_out = torch.rand(2, 1, requires_grad=True)

learning_rate = 0.1
num_epochs = 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []

# ----- training -----
for epoch in range(num_epochs):
    epoch_loss = 0
    for sentence, label in train_data:
        s_prev = torch.zeros(n, 1)
        for t in range(T):
            x_t = word_to_onehot(sentence[t])
            s_t = torch.tanh(W @ s_prev + U @ x_t + b)
            s_prev = s_t
        logits = W_out @ s_t + b_out
        loss = loss_fn(logits.flatten().unsqueeze(0), torch.tensor([label]))
        for p in (W, U, b, W_out, b_out):
            if p.grad is not None:
                p.grad.zero_()
        loss.backward()
        epoch_loss += loss.item()

        with torch.no_grad():
            W = W - learning_rate * W.grad
            U -= learning_rate * U.grad
            b -= learning_rate * b.grad
            W_out -= learning_rate * W_out.grad
            b_out -= learning_rate * b_out.grad

    loss_history.append(epoch_loss / len(train_data))
    if (epoch + 1) % 50 == 0:
        print(f"Epoch [{epoch + 1}/{num_epochs}] - Loss: {loss_history[epoch]:.4f}")

# ----- plot -----
plt.plot(loss_history, "b-")
plt.xlabel("Epoch")
plt.ylabel("Average loss")
plt.show()

# ----- testing -----
print("==== Testing ====")
with torch.no_grad():
    for sentence, _ in train_data:
        s_t = torch.zeros(n, 1)
        for t in range(T):
            s_t = torch.tanh(W @ s_t + U @ word_to_onehot(sentence[t]) + b)
        print(f"Sentence: {sentence} → Prediction: {(W_out @ s_t + b_out).argmax().item()}")
