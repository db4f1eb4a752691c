import torch
import matplotlib.pyplot as plt


class TinyRNN:
    """plain python class, no nn.Module"""

    def __init__(self, n, m):
        def new(*shape):
            return (torch.randn(*shape) * 0.5).requires_grad_(True)
        self.n = n
        self.W, self.U, self.b = new(n, n), new(n, m), new(n, 1)
        self.W_out, self.b_out = new(2, n), new(2, 1)

    @property
    def params(self):
        return [self.W, self.U, self.b, self.W_out, self.b_out]

    def __call__(self, xs):
        s = torch.zeros(self.n, 1)
        for x in xs:
            s = torch.tanh(self.W.mm(s) + self.U.mm(x) + self.b)
        return self.W_out.mm(s) + self.b_out

    def step(self, lr):
        with torch.no_grad():
            for p in self.params:
                p.sub_(p.grad, alpha=lr)

    def zero(self):
        for p in self.params:
            p.grad = None


vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}


def word_to_onehot(word):
    return torch.eye(len(vocab))[vocab[word]].reshape(-1, 1)


train_data = [("The movie is good".split(), 1), ("The movie is bad".split(), 0)]

n, m, T = 2, len(vocab), 4
torch.manual_seed(42)
rnn = TinyRNN(n, m)

learning_rate = 0.1
num_epochs = 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []

for epoch in range(1, num_epochs + 1):
    epoch_loss = 0.0
    for sentence, y in train_data:
        rnn.zero()
        logits = rnn([word_to_onehot(w) for w in sentence])
        loss = loss_fn(logits.view(1, 2), torch.tensor([y]))
        loss.backward()
        rnn.step(learning_rate)
        epoch_loss += loss.item()
    loss_history.append(epoch_loss / 2)
    if epoch % 50 == 0:
        print("Epoch [%d/%d] - Loss: %.4f" % (epoch, num_epochs, epoch_loss / 2))

plt.figure()
plt.plot(range(1, num_epochs + 1), loss_history, 'r-')
plt.title("loss")
plt.show()

print("==== Testing ====")
for sentence, y in train_data:
    print("Sentence:", sentence, "→ Prediction:", int(torch.argmax(rnn(map(word_to_onehot, sentence)))))
