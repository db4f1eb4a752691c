import math
import torch
import matplotlib.pyplot as plt

# 詞彙表
vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}

def word_to_onehot(word):
    """回傳 5x1 的 one-hot 行向量"""
    v = torch.zeros(len(vocab), 1)
    v[vocab[word]] = 1.
    return v

train_data = [
    (["The", "movie", "is", "good"], 1),   # 正面
    (["The", "movie", "is", "bad"], 0),    # 負面
]

n = 2
m = len(vocab)
T = 4
torch.manual_seed(42)

# Xavier 初始化
def xavier(out_dim, in_dim):
    limit = math.sqrt(6 / (in_dim + out_dim))
    w = (torch.rand(out_dim, in_dim) * 2 - 1) * limit
    w.requires_grad = True
    return w

參數 = {
    'W': xavier(n, n),
    'U': xavier(n, m),
    'b': torch.zeros(n, 1, requires_grad=True),
    'W_out': xavier(2, n),
    'b_out': torch.zeros(2, 1, requires_grad=True),
}

def 前向(sentence):
    s = torch.zeros(n, 1)
    for word in sentence:
        x = word_to_onehot(word)
        s = torch.tanh(參數['W'].mm(s) + 參數['U'].mm(x) + 參數['b'])
    return 參數['W_out'].mm(s) + 參數['b_out']

learning_rate = 0.1
num_epochs = 300
loss_fn = torch.nn.CrossEntropyLoss()
loss_history = []

for epoch in range(num_epochs):
    總損失 = 0.0
    for sentence, label in train_data:
        logits = 前向(sentence)
        loss = loss_fn(logits.transpose(0, 1), torch.tensor([label], dtype=torch.long))
        # 先清空梯度,再反向傳播
        for 名稱, p in 參數.items():
            if p.grad is not None:
                p.grad.zero_()
        loss.backward()
        # 手動更新
        with torch.no_grad():
            for 名稱, p in 參數.items():
                p.copy_(p - learning_rate * p.grad)
        總損失 += loss.item()
    loss_history.append(總損失 / len(train_data))
    if (epoch + 1) % 50 == 0:
        print(f"Epoch [{epoch+1}/{num_epochs}] - Loss: {loss_history[-1]:.4f}")

plt.plot(loss_history, color='red')
plt.xlabel('Epoch')
plt.ylabel('Loss')
plt.title('Loss curve')
plt.show()

print("==== Testing ====")
with torch.no_grad():
    for sentence, label in train_data:
        機率 = torch.softmax(前向(sentence), dim=0)
        print(f"Sentence: {sentence} → Prediction: {torch.argmax(機率).item()}   (prob. {機率.max().item():.3f}, label {label})")
