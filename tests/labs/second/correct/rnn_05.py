import torch
import matplotlib.pyplot as plt

vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}

def word_to_onehot(word):
    onehot = torch.zeros((len(vocab), 1))
    onehot[vocab[word]] = 1
    return onehot

train_data = [
    (["The", "movie", "is", "good"], 1),
    (["The", "movie", "is", "bad"], 0)
]

n = 2
m = len(vocab)
T = 4

torch.manual_seed(42)
W = torch.empty(n, n)
U = torch.empty(n, m)
W_out = torch.empty(2, n)
torch.nn.init.xavier_uniform_(W)
torch.nn.init.xavier_uniform_(U)
torch.nn.init.xavier_uniform_(W_out)
b = torch.zeros(n, 1)
b_out = torch.zeros(2, 1)
for tensor in (W, U, b, W_out, b_out):
    tensor.requires_grad = True

learning_rate = 0.1
num_epochs = 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []

for epoch in range(num_epochs):
    loss = 0
    for sentence, label in train_data:
        s = torch.zeros(n, 1)
        for t in range(T):
            x = word_to_onehot(sentence[t])
            s = torch.tanh(torch.mm(W, s) + torch.mm(U, x) + b)
        logits = torch.mm(W_out, s) + b_out
        loss = loss + loss_fn(logits.reshape(1, -1), torch.tensor([label]))

    # one update with the sum of both sentences
    loss.backward()
    with torch.no_grad():
        W -= learning_rate * W.grad
        U -= learning_rate * U.grad
        b -= learning_rate * b.grad
        W_out -= learning_rate * W_out.grad
        b_out -= learning_rate * b_out.grad
        W.grad.zero_()
        U.grad.zero_()
        b.grad.zero_()
        W_out.grad.zero_()
        b_out.grad.zero_()

    loss_history.append(loss.item())
    if (epoch + 1) % 50 == 0:
        print(f"Epoch [{epoch+1}/{num_epochs}] - Loss: {loss.item():.4f}")

plt.plot(loss_history)
plt.show()

print("==== Testing ====")
with torch.no_grad():
    for sentence, label in train_data:
        s = torch.zeros(n, 1)
        for word in sentence:
            s = torch.tanh(W @ s + U @ word_to_onehot(word) + b)
        print(f"Sentence: {sentence} → Prediction: {torch.argmax(W_out @ s + b_out).item()}")
