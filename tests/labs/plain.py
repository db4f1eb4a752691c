"""The plain homework, written ten times from the starter by ten who did not meet: nobody's copy."""

from __future__ import annotations

import re

from unroll.labs.starter import starter

CAT = """self.W_f = nn.Linear(input_size + hidden_size, hidden_size)
self.W_i = nn.Linear(input_size + hidden_size, hidden_size)
self.W_c = nn.Linear(input_size + hidden_size, hidden_size)
self.W_o = nn.Linear(input_size + hidden_size, hidden_size)"""
ZEROS = "torch.zeros(x.size(0), self.hidden_size, device=x.device)"
STEP = "optimizer.zero_grad()\nloss.backward()\noptimizer.step()"
COUNT = "total += labels.size(0)\ncorrect += (predicted == labels).sum().item()"


def _gates(given: str, *names: str) -> dict[int, str]:
    f, i, c, o = names
    gates = {2: f"torch.sigmoid(self.{f}({given}))", 3: f"torch.sigmoid(self.{i}({given}))"}
    return gates | {4: f"torch.tanh(self.{c}({given}))", 6: f"torch.sigmoid(self.{o}({given}))"}


# What all write who follow the hints; each of the ten below says what it does otherwise.
OBVIOUS = {
    1: CAT,
    **_gates("torch.cat([x, h_prev], dim=1)", "W_f", "W_i", "W_c", "W_o"),
    5: "f * c_prev + i * c_tilde",
    7: "o * torch.tanh(c_t)",
    8: "nn.Linear(hidden_size, num_classes)",
    9: ZEROS,
    10: ZEROS,
    11: "self.cell(x[:, t, :], h, c)",
    12: "self.fc(h)",
    13: "model(images)",
    14: "criterion(outputs, labels)",
    15: STEP,
    16: "model(images).argmax(dim=1)",
    17: COUNT,
    18: "next(iter(test_loader))",
    19: 'f"True: {labels[n]} Pred: {predicted[n]}"',
}
TORCH_ZEROS = "torch.zeros(x.size(0), self.hidden_size).to(x.device)"
PLAIN: list[dict[int, str]] = [
    {},
    {
        1: CAT.replace("W_", "fc_"),
        **_gates("torch.cat((x, h_prev), 1)", "fc_f", "fc_i", "fc_c", "fc_o"),
        9: TORCH_ZEROS,
        10: TORCH_ZEROS,
    },
    {
        1: CAT.replace("W_f", "forget_gate")
        .replace("W_i", "input_gate")
        .replace("W_c", "candidate")
        .replace("W_o", "output_gate"),
        **_gates("torch.cat([h_prev, x], dim=1)", "forget_gate", "input_gate", "candidate", "output_gate"),
        16: "torch.argmax(model(images), 1)",
    },
    {
        1: CAT.replace("input_size + hidden_size", "hidden_size + input_size"),
        19: 'f"true {labels[n].item()}, pred {predicted[n].item()}"',
    },
    {
        1: CAT.replace("W_", "linear_"),
        **_gates("torch.cat((x, h_prev), dim=1)", "linear_f", "linear_i", "linear_c", "linear_o"),
        11: "self.cell(x[:, t], h, c)",
        17: "total += len(labels)\ncorrect += (predicted == labels).sum().item()",
    },
    {
        9: "x.new_zeros(x.size(0), self.hidden_size)",
        10: "torch.zeros_like(h)",
        15: "loss.backward()\noptimizer.step()\noptimizer.zero_grad()",
    },
    {
        1: "total = input_size + hidden_size\n" + CAT.replace("input_size + hidden_size", "total"),
        5: "torch.mul(f, c_prev) + torch.mul(i, c_tilde)",
        18: "test_dataset.data[:10] / 255, test_dataset.targets[:10]",
    },
    {
        9: "torch.zeros(x.shape[0], self.hidden_size, device=device)",
        10: "torch.zeros(x.shape[0], self.hidden_size, device=device)",
    },
    {
        16: "torch.max(model(images), 1)[1]",
        17: "correct += (predicted == labels).sum().item()\ntotal += labels.size(0)",
    },
    {
        1: CAT.replace("W_", "gate_"),
        **_gates("torch.cat([x, h_prev], 1)", "gate_f", "gate_i", "gate_c", "gate_o"),
        5: "i * c_tilde + f * c_prev",
    },
]


def plain(number: int) -> str:
    """The program of one of the ten; each trains with numbers of its own."""
    fill = OBVIOUS | PLAIN[number]
    lines: list[str] = []
    for line in starter("homework").splitlines():
        gap = re.search(r'gap\((\d+), ".*"\)', line)
        if gap is None or line.lstrip().startswith("#"):
            lines.append(line)
            continue
        space = line[: len(line) - len(line.lstrip())]
        before, after = line[len(space) : gap.start()], line[gap.end() :]
        first, *others = fill[int(gap[1])].split("\n")
        lines += [f"{space}{before}{first}{after}", *(f"{space}{other}" for other in others)]
    text = "\n".join(lines) + "\n"
    rates = ("0.001", "0.001", "0.002", "0.0005", "0.01", "0.001", "0.003", "0.005", "0.001", "0.0008")
    return text.replace("0.00006", rates[number]).replace("hidden_size = 32", f"hidden_size = {(64, 128)[number % 2]}")
