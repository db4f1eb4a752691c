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


def init():
    W = torch.randn(n, n, requires_grad=True)
    U = torch.randn(n, m, requires_grad=True)
    b = torch.randn(n, 1, requires_grad=True)
    W_out = torch.randn(2, n, requires_grad=True)
    b_out = torch.randn(2, 1, requires_grad=True)
    return W, U, b, W_out, b_out


def forward(sentence, W, U, b, W_out, b_out):
    s = torch.zeros(n, 1)
    for word in sentence:
        s = torch.tanh(W @ s + U @ word_to_onehot(word) + b)
    return W_out @ s + b_out


learning_rate = 0.1
num_epochs = 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []


def train():
    params = init()
    for epoch in range(num_epochs):
        total = 0.0
        for sentence, label in train_data:
            loss = loss_fn(forward(sentence, *params).reshape(1, 2), torch.tensor([label]))
            loss.backward()
            with torch.no_grad():
                for p in params:
                    p -= learning_rate * p.grad
                    p.grad.zero_()
            total += loss.item()
        loss_history.append(total / 2)
        if (epoch + 1) % 50 == 0:
            print(f"Epoch [{epoch + 1}/{num_epochs}] - Loss: {total / 2:.4f}")
    return params


trained = train()
plt.plot(loss_history)
plt.show()

print("==== Testing ====")
params = init()
for sentence, label in train_data:
    logits = forward(sentence, *params)
    print(f"Sentence: {sentence} → Prediction: {logits.argmax().item()}")
