import torch
import matplotlib.pyplot as plt

vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}

def word_to_onehot(word):
    vec = torch.zeros(len(vocab), 1)
    vec[vocab[word]] = 1.0
    return vec

train_data = [
    (["The", "movie", "is", "good"], 0),
    (["The", "movie", "is", "bad"], 1),
]

n = 2
m = len(vocab)
T = 4
torch.manual_seed(42)

W = torch.nn.Parameter(torch.randn(n, n) * 0.5)
U = torch.nn.Parameter(torch.randn(n, m) * 0.5)
b = torch.nn.Parameter(torch.zeros(n, 1))
W_out = torch.nn.Parameter(torch.randn(2, n) * 0.5)
b_out = torch.nn.Parameter(torch.zeros(2, 1))
params = [W, U, b, W_out, b_out]

learning_rate = 0.1
num_epochs = 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []


def forward(sentence):
    s = torch.zeros(n, 1)
    for word in sentence:
        s = torch.tanh(torch.matmul(W, s) + torch.matmul(U, word_to_onehot(word)) + b)
    return torch.matmul(W_out, s) + b_out


for epoch in range(1, num_epochs + 1):
    losses = []
    for sentence, label in train_data:
        logits = forward(sentence)
        loss = loss_fn(logits.view(1, -1), torch.tensor([label]))
        loss.backward()
        with torch.no_grad():
            for p in params:
                p -= learning_rate * p.grad
                p.grad.zero_()
        losses.append(loss.item())
    loss_history.append(sum(losses) / len(losses))
    if epoch % 50 == 0:
        print("Epoch [{}/{}] - Loss: {:.4f}".format(epoch, num_epochs, loss_history[-1]))

plt.figure()
plt.plot(loss_history)
plt.title("loss")
plt.show()

print("==== Testing ====")
for sentence, label in train_data:
    pred = forward(sentence).argmax().item()
    print("Sentence: {} → Prediction: {}".format(sentence, pred))
