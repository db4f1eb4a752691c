import torch
import torch.nn.functional as F
import matplotlib.pyplot as plt

vocab = {"The": 0, "movie": 1, "is": 2, "good": 3, "bad": 4}
n, m, T = 2, len(vocab), 4
learning_rate, num_epochs = 0.1, 300


def word_to_onehot(word):
    return F.one_hot(torch.tensor(vocab[word]), m).float().unsqueeze(1)


def get_data():
    return [(["The", "movie", "is", "good"], 1), (["The", "movie", "is", "bad"], 0)]


def step(W, U, b, s_prev, x_t):
    # s_t = φ(W s_{t-1} + U x_t + b)
    return torch.tanh(torch.addmm(torch.addmm(b, W, s_prev), U, x_t))


def main():
    train_data = get_data()
    gen = torch.Generator().manual_seed(123)   # 別のシードも試した
    W = torch.randn(n, n, generator=gen, requires_grad=True)
    U = torch.randn(n, m, generator=gen, requires_grad=True)
    b = torch.randn(n, 1, generator=gen, requires_grad=True)
    W_out = torch.randn(2, n, generator=gen, requires_grad=True)
    b_out = torch.randn(2, 1, generator=gen, requires_grad=True)

    loss_fn = torch.nn.CrossEntropyLoss()
    loss_history = []
    for epoch in range(1, num_epochs + 1):
        running = []
        for sentence, label in train_data:
            states = [torch.zeros(n, 1)]
            for word in sentence:
                states.append(step(W, U, b, states[-1], word_to_onehot(word)))
            logits = W_out @ states[-1] + b_out
            loss = loss_fn(logits.flatten()[None, :], torch.tensor([label]))
            loss.backward()
            with torch.no_grad():
                for name, p in [("W", W), ("U", U), ("b", b), ("W_out", W_out), ("b_out", b_out)]:
                    p.add_(p.grad, alpha=-learning_rate)   # 勾配降下
                    p.grad = torch.zeros_like(p)
            running.append(loss.detach())
        loss_history.append(torch.stack(running).mean().item())
        if epoch % 50 == 0:
            print(f"Epoch [{epoch}/{num_epochs}] - Loss: {loss_history[-1]:.4f}")

    plt.plot(loss_history)
    plt.title("loss")
    plt.show()

    print("==== Testing ====")
    for sentence, label in train_data:
        with torch.no_grad():
            s = torch.zeros(n, 1)
            for word in sentence:
                s = step(W, U, b, s, word_to_onehot(word))
            pred = torch.argmax(W_out @ s + b_out, dim=0).item()
        print(f"Sentence: {sentence} → Prediction: {pred}")


if __name__ == "__main__":
    main()
