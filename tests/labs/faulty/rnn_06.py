import torch
import matplotlib.pyplot as plt

vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}

def word_to_onehot(word):
    onehot = torch.zeros(len(vocab), 1)
    onehot[vocab[word]][0] = 1
    return onehot

train_data = [
    (["The", "movie", "is", "good"], 1),
    (["The", "movie", "is", "bad"], 0),
]

n = 2
m = len(vocab)
T = 4

torch.manual_seed(42)
W = torch.randn((n, n), requires_grad=True)
U = torch.randn((n, m), requires_grad=True)
b = torch.randn((n, 1), requires_grad=True)
W_out = torch.randn((2, n), requires_grad=True)
b_out = torch.randn((2, 1), requires_grad=True)

learning_rate = 0.1
num_epochs = 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []

# states[0] is the zero vector s_0
def forward(sentence):
    states = [torch.zeros(n, 1)]
    for t in range(T):
        x_t = word_to_onehot(sentence[t])
        states.append(torch.tanh(W @ states[t] + U @ x_t + b))
    logits = W_out @ states[T - 1] + b_out
    return logits

for epoch in range(num_epochs):
    total = 0.0
    for sentence, label in train_data:
        logits = forward(sentence)
        loss = loss_fn(logits.T, torch.tensor([label]))
        loss.backward()

        with torch.no_grad():
            W -= learning_rate * W.grad
            U -= learning_rate * U.grad
            b -= learning_rate * b.grad
            W_out -= learning_rate * W_out.grad
            b_out -= learning_rate * b_out.grad
            for grad in [W.grad, U.grad, b.grad, W_out.grad, b_out.grad]:
                grad.zero_()

        total += loss.item()

    avg = total / len(train_data)
    loss_history.append(avg)
    if (epoch + 1) % 50 == 0:
        print(f"Epoch [{epoch+1}/{num_epochs}] - Loss: {avg:.4f}")

plt.plot(loss_history)
plt.title("Loss curve")
plt.xlabel("Epoch")
plt.ylabel("Loss")
plt.show()

print("==== Testing ====")
for sentence, label in train_data:
    prediction = torch.argmax(forward(sentence)).item()
    print(f"Sentence: {sentence} → Prediction: {prediction}")
