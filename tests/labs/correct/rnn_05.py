import torch
from matplotlib import pyplot as plt

vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}


def word_to_onehot(word):
    return torch.eye(len(vocab))[:, [vocab[word]]]


train_data = [
    ("The movie is good".split(), 1),
    ("The movie is bad".split(), 0),
]
n = 2
m = len(vocab)
T = 4

torch.manual_seed(42)
W = torch.empty(n, n).uniform_(-0.7, 0.7).requires_grad_(True)
U = torch.empty(n, m).uniform_(-0.7, 0.7).requires_grad_(True)
b = torch.empty(n, 1).uniform_(-0.7, 0.7).requires_grad_(True)
W_out = torch.empty(2, n).uniform_(-0.7, 0.7).requires_grad_(True)
b_out = torch.empty(2, 1).uniform_(-0.7, 0.7).requires_grad_(True)
theta = (W, U, b, W_out, b_out)

learning_rate = 0.1
num_epochs = 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []


def rnn(sentence):
    s = torch.zeros(n, 1)
    for word in sentence:
        s = (W @ s + U @ word_to_onehot(word) + b).tanh()
    return W_out @ s + b_out


for epoch in range(num_epochs):
    sum_loss = 0
    for sentence, label in train_data:
        loss = loss_fn(rnn(sentence).squeeze(1), torch.tensor(label))
        # torch.autograd.grad gives the gradients directly and leaves .grad empty, nothing to reset
        grads = torch.autograd.grad(loss, theta)
        with torch.no_grad():
            for p, g in zip(theta, grads):
                p -= learning_rate * g
        sum_loss += loss.item()
    loss_history.append(sum_loss / 2)
    if (epoch + 1) % 50 == 0:
        print(f"Epoch [{epoch + 1}/{num_epochs}] - Loss: {loss_history[-1]:.4f}")

plt.plot(loss_history)
plt.xlabel("Epoch")
plt.ylabel("Loss")
plt.title("RNN, two sentences")
plt.show()

print("==== Testing ====")
for sentence, label in train_data:
    pred = rnn(sentence).detach().argmax().item()
    print(f"Sentence: {sentence} → Prediction: {pred}")
