import torch
import matplotlib.pyplot as plt

vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}
onehots = torch.eye(len(vocab))

def word_to_onehot(word):
    """column vector 5 x 1"""
    return onehots[:, vocab[word]].unsqueeze(1)

train_data = [
    (["The", "movie", "is", "good"], 1),
    (["The", "movie", "is", "bad"], 0),
]

n = 2
m = len(vocab)
T = 4
torch.manual_seed(42)

# parameters
W = torch.empty(1, n).uniform_(-1, 1).requires_grad_(True)
U = torch.empty(n, m).uniform_(-1, 1).requires_grad_(True)
b = torch.zeros(n, 1, requires_grad=True)
W_out = torch.empty(2, n).uniform_(-1, 1).requires_grad_(True)
b_out = torch.zeros(2, 1, requires_grad=True)

learning_rate = 0.1
num_epochs = 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []

for epoch in range(num_epochs):
    losses = []
    for sentence, label in train_data:
        s = torch.zeros(n, 1)
        for t in range(T):
            s = torch.tanh(W @ s + U @ word_to_onehot(sentence[t]) + b)
        logits = W_out @ s + b_out
        loss = loss_fn(logits.squeeze(1).unsqueeze(0), torch.LongTensor([label]))
        loss.backward()
        losses.append(loss.item())

        with torch.no_grad():
            for p in (W, U, b, W_out, b_out):
                p -= learning_rate * p.grad
                p.grad.zero_()

    loss_history.append(sum(losses) / len(losses))
    if (epoch + 1) % 50 == 0:
        print("Epoch [%d/%d] - Loss: %.4f" % (epoch + 1, num_epochs, loss_history[-1]))

fig, ax = plt.subplots()
ax.plot(loss_history)
ax.set(xlabel="epoch", ylabel="cross entropy", title="loss of the RNN")
plt.show()

print("==== Testing ====")
for sentence, label in train_data:
    s = torch.zeros(n, 1)
    with torch.no_grad():
        for word in sentence:
            s = torch.tanh(W @ s + U @ word_to_onehot(word) + b)
        out = W_out @ s + b_out
    print("Sentence: %s → Prediction: %d" % (sentence, int(torch.argmax(out))))
