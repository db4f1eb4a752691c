import torch
from functools import reduce
import matplotlib.pyplot as plt

vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}


def word_to_onehot(word: str) -> torch.Tensor:
    return torch.tensor([[float(i == vocab[word])] for i in range(len(vocab))])


train_data = [(["The", "movie", "is", "good"], 1), (["The", "movie", "is", "bad"], 0)]
n, m, T = 2, len(vocab), 4
torch.manual_seed(42)

# 參數
W, U, b, W_out, b_out = 全部參數 = [torch.normal(0, 0.7, size=形狀, requires_grad=True) for 形狀 in [(n, n), (n, m), (n, 1), (2, n), (2, 1)]]

learning_rate, num_epochs = 0.1, 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []

一步 = lambda s, x: (W @ s + U @ x + b).tanh()
前向 = lambda 句子: W_out @ reduce(一步, map(word_to_onehot, 句子), torch.zeros(n, 1)) + b_out


@torch.no_grad()
def 更新(*參數):
    for p in 參數:
        p.copy_(p - learning_rate * p.grad)
        p.grad.fill_(0)


for epoch in range(num_epochs):
    總損失 = 0.0
    for 句子, 標籤 in train_data:
        (loss := loss_fn(前向(句子).view(1, -1), torch.tensor([標籤]))).backward()
        更新(*全部參數)
        總損失 += loss.item()
    loss_history.append(總損失 / len(train_data))
    if epoch % 50 == 49:
        print(f"Epoch [{epoch+1}/{num_epochs}] - Loss: {loss_history[-1]:.4f}")

plt.plot(loss_history, label='loss')
plt.legend()
plt.show()

print("==== Testing ====")
for 句子, _ in train_data:
    print(f"Sentence: {句子} → Prediction: {前向(句子).argmax().item()}")
