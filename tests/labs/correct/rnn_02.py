# Lab 7 in class
import torch
import matplotlib.pyplot as plt

vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}
train_data = [(["The", "movie", "is", "good"], 1), (["The", "movie", "is", "bad"], 0)]
n = 2
m = len(vocab)
T = 4
learning_rate = 0.1
num_epochs = 300


def word_to_onehot(word):
    x = torch.zeros((m, 1))
    x[vocab[word], 0] = 1
    return x


def init_params():
    torch.manual_seed(42)
    W = torch.randn(n, n) * 0.5
    U = torch.randn(n, m) * 0.5
    b = torch.zeros(n, 1)
    W_out = torch.randn(2, n) * 0.5
    b_out = torch.zeros(2, 1)
    params = [W, U, b, W_out, b_out]
    for p in params:
        p.requires_grad_(True)
    return params


def forward(params, sentence):
    W, U, b, W_out, b_out = params
    s_t = torch.zeros(n, 1)
    for t in range(T):
        x_t = word_to_onehot(sentence[t])
        s_t = torch.tanh(torch.matmul(W, s_t) + torch.matmul(U, x_t) + b)
    return torch.matmul(W_out, s_t) + b_out


def update(params, lr):
    with torch.no_grad():
        for param in params:
            param -= lr * param.grad
            param.grad.zero_()


def predict(params, sentence):
    with torch.no_grad():
        return forward(params, sentence).argmax().item()


def train(params):
    loss_fn = torch.nn.CrossEntropyLoss()
    loss_history = []
    for epoch in range(num_epochs):
        losses = []
        for sentence, label in train_data:
            logits = forward(params, sentence)
            loss = loss_fn(logits.T, torch.tensor([label]))
            loss.backward()
            update(params, learning_rate)
            losses.append(loss.item())
        loss_history.append(sum(losses) / len(losses))
        if (epoch + 1) % 50 == 0:
            print("Epoch [{}/{}] - Loss: {:.4f}".format(epoch + 1, num_epochs, loss_history[-1]))
    return loss_history


params = init_params()
loss_history = train(params)

plt.plot(range(1, num_epochs + 1), loss_history, 'b-')
plt.xlabel('epoch')
plt.ylabel('loss')
plt.grid()
plt.show()

print("==== Testing ====")
for sentence, _ in train_data:
    print("Sentence:", sentence, "→ Prediction:", predict(params, sentence))
