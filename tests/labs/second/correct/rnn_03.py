# in-class lab 7: gradients derived by hand (BPTT), autograd only used to check them once
import torch
import matplotlib.pyplot as plt

vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}

def word_to_onehot(word):
    x = torch.zeros(len(vocab), 1)
    x[vocab[word], 0] = 1
    return x

train_data = [(["The", "movie", "is", "good"], 1), (["The", "movie", "is", "bad"], 0)]
n = 2
m = len(vocab)
T = 4

torch.manual_seed(42)
W = torch.randn(n, n) * 0.5
U = torch.randn(n, m) * 0.5
b = torch.zeros(n, 1)
W_out = torch.randn(2, n) * 0.5
b_out = torch.zeros(2, 1)

learning_rate = 0.1
num_epochs = 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []

def forward(sentence):
    s = [torch.zeros(n, 1)]
    xs = [word_to_onehot(w) for w in sentence]
    for x in xs:
        s.append(torch.tanh(W @ s[-1] + U @ x + b))
    return xs, s, W_out @ s[-1] + b_out

def backward(xs, s, logits, label):
    # softmax + cross entropy: dL/dlogits = p - y
    d = torch.softmax(logits, 0)
    d[label] -= 1
    dW_out, db_out = d @ s[-1].T, d
    dW, dU, db = torch.zeros_like(W), torch.zeros_like(U), torch.zeros_like(b)
    ds = W_out.T @ d
    for t in reversed(range(len(xs))):
        da = ds * (1 - s[t + 1] ** 2)
        dW += da @ s[t].T
        dU += da @ xs[t].T
        db += da
        ds = W.T @ da
    return dW, dU, db, dW_out, db_out

# check against autograd
params = [W, U, b, W_out, b_out]
for p in params:
    p.requires_grad_(True)
xs, s, logits = forward(train_data[0][0])
loss_fn(logits.T, torch.tensor([1])).backward()
with torch.no_grad():
    mine = backward(xs, s, logits, 1)
print("same as autograd:", all(torch.allclose(p.grad, g, atol=1e-6) for p, g in zip(params, mine)))
for p in params:
    p.grad = None
    p.requires_grad_(False)

for epoch in range(num_epochs):
    total = 0
    for sentence, label in train_data:
        xs, s, logits = forward(sentence)
        total += loss_fn(logits.T, torch.tensor([label])).item()
        dW, dU, db, dW_out, db_out = backward(xs, s, logits, label)
        W -= learning_rate * dW
        U -= learning_rate * dU
        b -= learning_rate * db
        W_out -= learning_rate * dW_out
        b_out -= learning_rate * db_out
    loss_history.append(total / len(train_data))
    if (epoch + 1) % 50 == 0:
        print(f"Epoch [{epoch + 1}/{num_epochs}] - Loss: {loss_history[-1]:.4f}")

plt.plot(loss_history)
plt.title("Training loss")
plt.show()

print("==== Testing ====")
for sentence, label in train_data:
    print(f"Sentence: {sentence} → Prediction: {forward(sentence)[2].argmax().item()}")
