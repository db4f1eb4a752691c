import torch
import matplotlib.pyplot as plt

vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}

def word_to_onehot(word):
    x = torch.zeros((len(vocab), 1))
    x[vocab[word], 0] = 1
    return x

train_data = [
    (["The", "movie", "is", "good"], 1),
    (["The", "movie", "is", "bad"], 0)
]

n = 2            # hidden units
m = len(vocab)   # input size
T = 4            # words of a sentence

torch.manual_seed(42)
W = torch.nn.Parameter(torch.randn(n, n) * 0.3)
U = torch.nn.Parameter(torch.randn(n, m) * 0.3)
b = torch.nn.Parameter(torch.zeros(n, 1))
W_out = torch.nn.Parameter(torch.randn(2, n) * 0.3)
b_out = torch.nn.Parameter(torch.zeros(2, 1))

learning_rate = 0.1
num_epochs = 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []

for epoch in range(num_epochs):
    loss_sum = 0
    s_t = torch.zeros(n, 1)

    for words, label in train_data:
        # forward
        for t in range(T):
            x_t = word_to_onehot(words[t])
            s_t = torch.tanh(W.matmul(s_t) + U.matmul(x_t) + b)
        logits = W_out.matmul(s_t) + b_out

        # loss and backward
        loss = loss_fn(logits.reshape(1, 2), torch.tensor([label]))
        loss.backward()
        loss_sum = loss_sum + loss.item()
        s_t = s_t.detach()

        # gradient descent
        with torch.no_grad():
            W.sub_(learning_rate * W.grad)
            U.sub_(learning_rate * U.grad)
            b.sub_(learning_rate * b.grad)
            W_out.sub_(learning_rate * W_out.grad)
            b_out.sub_(learning_rate * b_out.grad)
        W.grad = None
        U.grad = None
        b.grad = None
        W_out.grad = None
        b_out.grad = None

    loss_history.append(loss_sum / 2)
    if (epoch + 1) % 50 == 0:
        print(f"Epoch [{epoch + 1}/{num_epochs}] - Loss: {loss_sum / 2:.4f}")

plt.plot(loss_history, color="red")
plt.xlabel("epoch")
plt.ylabel("loss")
plt.savefig("rnn_loss.png")
plt.show()

print("==== Testing ====")
with torch.no_grad():
    for words, label in train_data:
        s_t = torch.zeros(n, 1)
        for t in range(T):
            s_t = torch.tanh(W.matmul(s_t) + U.matmul(word_to_onehot(words[t])) + b)
        logits = W_out.matmul(s_t) + b_out
        print(f"Sentence: {words} → Prediction: {logits.argmax().item()}")
