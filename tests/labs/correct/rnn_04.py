import torch
import torch.nn.functional as F
import matplotlib.pyplot as plt

vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}

def word_to_onehot(word):
    onehot = torch.zeros(len(vocab), 1)
    onehot[vocab[word]] = 1
    return onehot

train_data = [(["The", "movie", "is", "good"], 1),
              (["The", "movie", "is", "bad"], 0)]

n, m, T = 2, len(vocab), 4
torch.manual_seed(42)

W     = (0.1 * torch.randn(n, n)).requires_grad_()
U     = (0.1 * torch.randn(n, m)).requires_grad_()
b     = torch.zeros(n, 1).requires_grad_()
W_out = (0.1 * torch.randn(2, n)).requires_grad_()
b_out = torch.zeros(2, 1).requires_grad_()

learning_rate = 0.1
num_epochs = 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []

# I work with rows (1 x n) instead of columns, so everything is transposed:
# s^T = tanh(s^T W^T + x^T U^T + b^T)
for epoch in range(num_epochs):
    epoch_loss = 0.0
    for words, label in train_data:
        s = torch.zeros(1, n)
        for w in words:
            x = word_to_onehot(w).t()
            s = F.tanh(s @ W.t() + x @ U.t() + b.t())
        logits = s @ W_out.t() + b_out.t()      # 1 x 2
        loss = loss_fn(logits, torch.LongTensor([label]))
        loss.backward()

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
        epoch_loss += loss.item() / len(train_data)

    loss_history.append(epoch_loss)
    if epoch % 50 == 49:
        print(f"Epoch [{epoch + 1}/{num_epochs}] - Loss: {epoch_loss:.4f}")

plt.figure()
plt.plot(loss_history, label='loss')
plt.legend()
plt.savefig('loss_inclass.png')
plt.show()

print('==== Testing ====')
with torch.no_grad():
    for words, label in train_data:
        s = torch.zeros(1, n)
        for w in words:
            s = F.tanh(s @ W.t() + word_to_onehot(w).t() @ U.t() + b.t())
        logits = s @ W_out.t() + b_out.t()
        print(f'Sentence: {words} → Prediction: {logits.argmax(dim=1).item()}')
