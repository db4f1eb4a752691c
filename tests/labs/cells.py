# ruff: noqa: E501 (a source of several lines stands in one)
"""Small cells of the tests' own: correct ones in unlike styles, and ones with a fault."""

from __future__ import annotations

HEAD = "import torch\nimport torch.nn as nn\nimport torch.nn.functional as F\n"

FOUR = """
class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size
        n = input_size + hidden_size
        self.W_f = nn.Linear(n, hidden_size)
        self.W_i = nn.Linear(n, hidden_size)
        self.W_c = nn.Linear(n, hidden_size)
        self.W_o = nn.Linear(n, hidden_size)

    def forward(self, x, h_prev, c_prev):
        z = torch.cat((x, h_prev), dim=1)
        f_t = torch.sigmoid(self.W_f(z))
        i_t = torch.sigmoid(self.W_i(z))
        c_tilde = torch.tanh(self.W_c(z))
        c_t = f_t * c_prev + i_t * c_tilde
        o_t = torch.sigmoid(self.W_o(z))
        h_t = o_t * torch.tanh(c_t)
        return h_t, c_t
"""

SPLIT = """
class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        D, H = input_size, hidden_size
        self.W_i = nn.Parameter(torch.randn(H, H) * 0.1)
        self.U_i = nn.Parameter(torch.randn(H, D) * 0.1)
        self.b_i = nn.Parameter(torch.zeros(H))
        self.W_f = nn.Parameter(torch.randn(H, H) * 0.1)
        self.U_f = nn.Parameter(torch.randn(H, D) * 0.1)
        self.b_f = nn.Parameter(torch.zeros(H))
        self.W_o = nn.Parameter(torch.randn(H, H) * 0.1)
        self.U_o = nn.Parameter(torch.randn(H, D) * 0.1)
        self.b_o = nn.Parameter(torch.zeros(H))
        self.W_g = nn.Parameter(torch.randn(H, H) * 0.1)
        self.U_g = nn.Parameter(torch.randn(H, D) * 0.1)
        self.b_g = nn.Parameter(torch.zeros(H))

    def forward(self, x, h_prev, c_prev):
        i = torch.sigmoid(h_prev @ self.W_i.T + x @ self.U_i.T + self.b_i)
        f = torch.sigmoid(h_prev @ self.W_f.T + x @ self.U_f.T + self.b_f)
        o = torch.sigmoid(h_prev @ self.W_o.T + x @ self.U_o.T + self.b_o)
        g = torch.tanh(h_prev @ self.W_g.T + x @ self.U_g.T + self.b_g)
        c = f * c_prev + i * g
        h = o * torch.tanh(c)
        return h, c
"""

PLAIN = (
    SPLIT.replace("(nn.Module)", "")
    .replace("        super().__init__()\n", "")
    .replace("nn.Parameter(torch.randn(H, H) * 0.1)", "torch.randn(H, H, requires_grad=True)")
    .replace("nn.Parameter(torch.randn(H, D) * 0.1)", "torch.randn(H, D, requires_grad=True)")
    .replace("nn.Parameter(torch.zeros(H))", "torch.zeros(H, requires_grad=True)")
)


def cell(
    init: str, forward: str, arguments: str = "x, h_prev, c_prev", name: str = "ManualLSTMCell", more: str = ""
) -> str:
    """A class of these lines."""
    lines = lambda text: "\n".join(f"        {line}" for line in text.strip("\n").splitlines())  # noqa: E731
    return (
        f"{more}\nclass {name}(nn.Module):\n    def __init__(self, input_size, hidden_size):\n        super().__init__()\n"
        f"        D, H = input_size, hidden_size\n        self.H = hidden_size\n{lines(init)}\n\n"
        f"    def forward(self, {arguments}):\n{lines(forward)}\n"
    )


ALL = "self.all = nn.Linear(D + H, 4 * H)"
END = "c = f * c_prev + i * g\nh = o * torch.tanh(c)\nreturn h, c"
SIG = "i, f, o = torch.sigmoid(i), torch.sigmoid(f), torch.sigmoid(o)\ng = torch.tanh(g)\n"
COLUMN = """
self.W = nn.Parameter(torch.randn(4, H, H))
self.U = nn.Parameter(torch.randn(4, H, D))
self.b = nn.Parameter(torch.zeros(4, H, 1))
"""

STYLES = {
    "four linears": FOUR,
    "h first": FOUR.replace("(x, h_prev), dim=1", "[h_prev, x], -1"),
    "parameters": SPLIT,
    "parameters, row vectors": SPLIT.replace("(H, D)", "(D, H)").replace(".T", ""),
    "one linear, chunk": cell(ALL, "i, f, g, o = self.all(torch.cat([x, h_prev], 1)).chunk(4, dim=1)\n" + SIG + END),
    "one linear, another order": cell(
        ALL, "o, g, f, i = self.all(torch.cat([h_prev, x], 1)).chunk(4, dim=1)\n" + SIG + END
    ),
    "slices": cell(
        ALL,
        "a = self.all(torch.cat([x, h_prev], 1))\nH = self.H\ni, f, g, o = a[:, :H], a[:, H:2*H], a[:, 2*H:3*H], a[:, 3*H:]\n"
        + SIG
        + END,
    ),
    "interleaved": cell(
        ALL,
        "a = self.all(torch.cat([x, h_prev], 1)).view(x.size(0), self.H, 4)\ni, f, g, o = a.unbind(-1)\n" + SIG + END,
    ),
    "two linears": cell(
        "self.x2h = nn.Linear(D, 4 * H)\nself.h2h = nn.Linear(H, 4 * H)",
        "i, f, g, o = torch.split(self.x2h(x) + self.h2h(h_prev), self.H, dim=1)\n" + SIG + END,
    ),
    "no biases": FOUR.replace("(n, hidden_size)", "(n, hidden_size, bias=False)"),
    "eight linears": cell(
        "\n".join(f"self.w{k} = nn.Linear(H, H)\nself.u{k} = nn.Linear(D, H)" for k in "ifgo"),
        "\n".join(f"{k} = self.w{k}(h_prev) + self.u{k}(x)" for k in "ifgo") + "\n" + SIG + END,
    ),
    "F.linear": cell(
        "self.W = nn.Parameter(torch.randn(4 * H, D + H))\nself.b = nn.Parameter(torch.zeros(4 * H))",
        "i, f, o, g = F.linear(torch.hstack((x, h_prev)), self.W, self.b).tensor_split(4, dim=1)\n" + SIG + END,
    ),
    "einsum": cell(
        "self.W = nn.Parameter(torch.randn(4, H, H))\nself.U = nn.Parameter(torch.randn(4, H, D))\nself.b = nn.Parameter(torch.zeros(4, 1, H))",
        "i, f, o, g = torch.einsum('bk,ghk->gbh', h_prev, self.W) + torch.einsum('bk,ghk->gbh', x, self.U) + self.b\n"
        + SIG
        + END,
    ),
    "columns": cell(
        COLUMN, "i, f, o, g = [self.W[k] @ h_prev + self.U[k] @ x + self.b[k] for k in range(4)]\n" + SIG + END
    ),
    "one column alone": cell(
        COLUMN,
        "assert x.shape[1] == 1\ni, f, o, g = (self.W[k].mm(h_prev) + self.U[k].mm(x) + self.b[k] for k in range(4))\n"
        + SIG
        + END,
    ),
    "vectors": cell(ALL, "i, f, g, o = self.all(torch.cat((x, h_prev), dim=0)).chunk(4, dim=0)\n" + SIG + END),
    "2σ(2x) - 1": FOUR.replace("torch.tanh(self.W_c(z))", "2 * torch.sigmoid(2 * self.W_c(z)) - 1").replace(
        "torch.tanh(c_t)", "(2 * torch.sigmoid(2 * c_t) - 1)"
    ),
    "1 / (1 + exp(-x))": "def sigmoid(a):\n    return 1 / (1 + torch.exp(-a))\n"
    + "def tanh(a):\n    p, m = torch.exp(a), torch.exp(-a)\n    return (p - m) / (p + m)\n"
    + FOUR.replace("torch.sigmoid", "sigmoid").replace("torch.tanh", "tanh"),
    "modules of activations": cell(
        ALL + "\nself.sigma, self.tanh = nn.Sigmoid(), nn.Tanh()",
        "a = self.all(torch.cat([x, h_prev], 1))\ni, f, o = self.sigma(a[:, : 3 * self.H]).chunk(3, 1)\n"
        "g = self.tanh(a[:, 3 * self.H :])\nc = torch.addcmul(i * g, f, c_prev)\nreturn o * self.tanh(c), c",
    ),
    "in place": cell(
        ALL,
        "i, f, g, o = self.all(torch.cat([x, h_prev], 1)).chunk(4, dim=1)\nc = c_prev.clone()\nc *= f.sigmoid()\n"
        "c += i.sigmoid() * g.tanh()\nh = torch.tanh(c)\nh = h.mul(o.sigmoid())\nreturn h, c",
    ),
    "own function": "def gate(x, h, W, U, b, act):\n    return act(h @ W.T + x @ U.T + b)\n"
    + cell(
        "\n".join(
            f"self.W{k} = nn.Parameter(torch.randn(H, H))\nself.U{k} = nn.Parameter(torch.randn(H, D))\nself.b{k} = nn.Parameter(torch.zeros(H))"
            for k in "ifgo"
        ),
        "\n".join(
            f"{k} = gate(x, h_prev, self.W{k}, self.U{k}, self.b{k}, torch.{'tanh' if k == 'g' else 'sigmoid'})"
            for k in "ifgo"
        )
        + "\n"
        + END,
    ),
    "ModuleDict": cell(
        "self.gates = nn.ModuleDict({k: nn.Linear(D + H, H) for k in ('input', 'forget', 'output', 'cand')})",
        "z = torch.cat([x, h_prev], 1)\na = {}\nfor k, m in self.gates.items():\n    a[k] = torch.tanh(m(z)) if k == 'cand' else torch.sigmoid(m(z))\n"
        "c = a['forget'] * c_prev + a['input'] * a['cand']\nreturn a['output'] * torch.tanh(c), c",
    ),
    "rows one by one": cell(
        ALL,
        "hs, cs = [], []\nfor b in range(x.shape[0]):\n    i, f, g, o = self.all(torch.cat([x[b], h_prev[b]])).chunk(4)\n"
        "    c = torch.sigmoid(f) * c_prev[b] + torch.sigmoid(i) * torch.tanh(g)\n    cs.append(c)\n    hs.append(torch.sigmoid(o) * torch.tanh(c))\n"
        "return torch.stack(hs), torch.stack(cs)",
    ),
    "units one by one": cell(
        ALL,
        "a = self.all(torch.cat([x, h_prev], 1))\nH = self.H\nh, c = torch.zeros_like(h_prev), torch.zeros_like(c_prev)\n"
        "i, f, o, g = torch.zeros_like(h), torch.zeros_like(h), torch.zeros_like(h), torch.zeros_like(h)\n"
        "for j in range(H):\n    i[:, j] = torch.sigmoid(a[:, j])\n    f[:, j] = torch.sigmoid(a[:, H + j])\n    o[:, j] = torch.sigmoid(a[:, 2 * H + j])\n"
        "    g[:, j] = torch.tanh(a[:, 3 * H + j])\n" + END,
    ),
    "prints": FOUR.replace(
        "        return", "        print('h', h_t.shape, float(h_t.mean()), h_t.detach().numpy().sum())\n        return"
    ),
    "a pair": FOUR.replace("x, h_prev, c_prev)", "x, state)").replace(
        "        z =", "        h_prev, c_prev = state\n        z ="
    ),
    "a pair, c first": FOUR.replace("x, h_prev, c_prev)", "x, state)")
    .replace("        z =", "        c_prev, h_prev = state\n        z =")
    .replace("return h_t, c_t", "return c_t, h_t"),
    "(h, (h, c))": FOUR.replace("x, h_prev, c_prev)", "x, hidden)")
    .replace("        z =", "        h_prev, c_prev = hidden\n        z =")
    .replace("return h_t, c_t", "return h_t, (h_t, c_t)"),
    "(o, h, c)": FOUR.replace("return h_t, c_t", "return o_t, h_t, c_t"),
    "states may be None": FOUR.replace("h_prev, c_prev)", "h_prev=None, c_prev=None)", 1).replace(
        "        z =",
        "        if h_prev is None:\n            h_prev = torch.zeros(x.size(0), self.hidden_size, device=x.device)\n            c_prev = torch.zeros_like(h_prev)\n        z =",
    ),
    "c before h by name": FOUR.replace("x, h_prev, c_prev)", "x, c_prev, h_prev)"),
    "float32": FOUR.replace(
        "        z =", "        x = x.float()\n        h_prev = h_prev.to(torch.float32)\n        z ="
    ),
    "i and f called the other way": FOUR.replace("f_t * c_prev + i_t * c_tilde", "i_t * c_prev + f_t * c_tilde"),
    "1 - σ": FOUR.replace("f_t = torch.sigmoid(self.W_f(z))", "f_t = 1 - torch.sigmoid(self.W_f(z))"),
    "keeps what it does not read": FOUR.replace(
        "        return",
        "        self.last_gates = (f_t, i_t, o_t)\n        self.calls = getattr(self, 'calls', 0) + 1\n        return",
    ),
    "an idle weight": FOUR.replace("        n =", "        self.fc = nn.Linear(3, 2)\n        n ="),
    "dropout": FOUR.replace("        n =", "        self.drop = nn.Dropout(0.3)\n        n =").replace(
        "return h_t", "return self.drop(h_t)"
    ),
    "own size in the file": "HID = 32\n"
    + cell(ALL, "i, f, g, o = self.all(torch.cat([x, h_prev], 1)).view(-1, 4, HID).unbind(1)\n" + SIG + END)
    + "\nthe_cell = ManualLSTMCell(28, HID)\n",
    "fixed sizes": FOUR.replace(
        "self, input_size, hidden_size):\n", "self):\n        input_size, hidden_size = 28, 32\n", 1
    ),
    "a list of what is registered": FOUR.replace(
        "\n    def forward", "        self.gates = [self.W_f, self.W_i, self.W_c, self.W_o]\n\n    def forward"
    )
    .replace("        c_tilde", "        assert len(self.gates) == 4\n        c_tilde")
    .replace("self.W_f(z)", "self.gates[0](z)"),
    "other names of sizes": FOUR.replace(
        "self, input_size, hidden_size):\n", "self, n_in, n_out):\n        input_size, hidden_size = n_in, n_out\n", 1
    ),
    "two biases": cell(
        "self.ih = nn.Linear(D, 4 * H)\nself.hh = nn.Linear(H, 4 * H)\nself.extra = nn.Parameter(torch.zeros(H))",
        "i, f, g, o = (self.ih(x) + self.hh(h_prev)).chunk(4, 1)\nf = f + self.extra + 1.0\n" + SIG + END,
    ),
}

STYLES |= {
    "a constant forget bias and no other": FOUR.replace("(n, hidden_size)", "(n, hidden_size, bias=False)").replace(
        "self.W_f(z)", "self.W_f(z) + 1.0"
    ),
    "attributes that cannot be copied": "import threading\n"
    + FOUR.replace(
        "        n =",
        "        self.log, self.lock, self.torch = open(__import__('os').devnull, 'w'), threading.Lock(), torch\n"
        "        self.numbers, self.held = (k for k in range(9)), {'locks': [threading.Lock()]}\n        n =",
    ),
    "lazy linears": FOUR.replace("nn.Linear(n,", "nn.LazyLinear("),
    "linears made by the first call": FOUR.replace(
        "        self.W_f = nn.Linear(n, hidden_size)\n", "        self.W_f = None\n"
    ).replace(
        "        f_t =",
        "        if self.W_f is None:\n            self.W_f = nn.Linear(z.shape[1], self.hidden_size)\n        f_t =",
    ),
    "no nn.Module": PLAIN,
    "no nn.Module, __call__": PLAIN.replace("forward(", "__call__("),
    "no nn.Module, step": PLAIN.replace("forward(", "step("),
    "no nn.Module, linears": FOUR.replace("(nn.Module)", "").replace("        super().__init__()\n", ""),
}

GATE_LINES = {k: f"{k}_t = torch.sigmoid(self.W_{k}(z))" for k in "fio"}
SUM = "c_t = f_t * c_prev + i_t * c_tilde"
LAST = "h_t = o_t * torch.tanh(c_t)"

FAULTS = {  # name: (source, codes of which one must be there, words in its message)
    "o with f's weights": (FOUR.replace("self.W_o(z)", "self.W_f(z)"), "shared-weights", "output gate o"),
    "i with f's weights": (FOUR.replace("self.W_i(z)", "self.W_f(z)"), "shared-weights", "input gate i"),
    "f with i's weights": (FOUR.replace("self.W_f(z)", "self.W_i(z)"), "shared-weights", "forget gate f"),
    "candidate with o's weights": (
        FOUR.replace("self.W_c(z)", "self.W_o(z)"),
        "shared-weights",
        "candidate c̃",
    ),
    "o with f's U": (SPLIT.replace("self.U_o.T", "self.U_f.T"), "shared-weights", "weights of x_t"),
    "g with i's W": (SPLIT.replace("self.W_g.T", "self.W_i.T"), "shared-weights", "weights of h_{t-1}"),
    "o with i's bias": (SPLIT.replace("+ self.b_o", "+ self.b_i"), "shared-bias", "output gate o"),
    "no bias in f": (SPLIT.replace(" + self.b_f)", ")"), "no-bias", "forget gate f"),
    "tanh for σ in f": (FOUR.replace("f_t = torch.sigmoid", "f_t = torch.tanh"), "activation", "forget gate f"),
    "tanh for σ in i": (FOUR.replace("i_t = torch.sigmoid", "i_t = torch.tanh"), "activation", "input gate i"),
    "tanh for σ in o": (FOUR.replace("o_t = torch.sigmoid", "o_t = torch.tanh"), "activation", "output gate o"),
    "σ for tanh in c̃": (
        FOUR.replace("c_tilde = torch.tanh", "c_tilde = torch.sigmoid"),
        "activation",
        "candidate c̃",
    ),
    "relu in c̃": (FOUR.replace("c_tilde = torch.tanh", "c_tilde = torch.relu"), "activation", "relu"),
    "none in c̃": (FOUR.replace("torch.tanh(self.W_c(z))", "self.W_c(z)"), "no-activation", "candidate c̃"),
    "none in f": (FOUR.replace("torch.sigmoid(self.W_f(z))", "self.W_f(z)"), "no-activation", "forget gate f"),
    "none in i": (FOUR.replace("torch.sigmoid(self.W_i(z))", "self.W_i(z)"), "no-activation", "input gate i"),
    "none in o": (FOUR.replace("torch.sigmoid(self.W_o(z))", "self.W_o(z)"), "no-activation", "output gate o"),
    "softmax in o": (
        FOUR.replace("torch.sigmoid(self.W_o(z))", "torch.softmax(self.W_o(z), dim=1)"),
        "activation",
        "softmax",
    ),
    "tanh twice": (
        FOUR.replace("torch.tanh(self.W_c(z))", "torch.tanh(torch.tanh(self.W_c(z)))"),
        "activation",
        "tanh of tanh",
    ),
    "σ twice": (
        FOUR.replace("torch.sigmoid(self.W_o(z))", "torch.sigmoid(torch.sigmoid(self.W_o(z)))"),
        "activation",
        "output gate",
    ),
    "hard σ": (FOUR.replace("f_t = torch.sigmoid", "f_t = F.hardsigmoid"), "activation", "hardsigmoid"),
    "no forget term": (FOUR.replace(SUM, "c_t = i_t * c_tilde"), "no-forget-term", "c_{t-1}"),
    "no input term": (FOUR.replace(SUM, "c_t = f_t * c_prev"), "no-input-term", "c_{t-1}"),
    "no forget gate": (FOUR.replace(SUM, "c_t = c_prev + i_t * c_tilde"), "no-forget-gate", "forget"),
    "no input gate": (FOUR.replace(SUM, "c_t = f_t * c_prev + c_tilde"), "no-input-gate", "input gate"),
    "minus": (FOUR.replace("+ i_t * c_tilde", "- i_t * c_tilde"), "minus", "subtracted"),
    "minus forget": (FOUR.replace(SUM, "c_t = i_t * c_tilde - f_t * c_prev"), "minus", "forget term"),
    "c_t added to h_t": (FOUR.replace(LAST, LAST + " + c_t"), "added", "c_t is added to h_t"),
    "h added to h_t": (FOUR.replace(LAST, LAST + " + h_prev"), "added", "h_{t-1} is added to h_t"),
    "h added to c_t": (FOUR.replace(SUM, SUM + " + h_prev"), "added", "h_{t-1} is added to c_t"),
    "c added to c_t": (FOUR.replace(SUM, SUM + " + c_prev"), "added", "c_{t-1} is added to c_t"),
    "no nn.Module, tanh for σ": (PLAIN.replace("f = torch.sigmoid", "f = torch.tanh"), "activation", "forget gate f"),
    "no nn.Module, an exception": (PLAIN.replace("c = f * c_prev", "c = f_t * c_prev"), "exception", "is no nn.Module"),
    "plus in the input term": (FOUR.replace("i_t * c_tilde", "(i_t + c_tilde)"), "plus", "input gate"),
    "c̃ with c_prev": (FOUR.replace(SUM, "c_t = c_tilde * c_prev + i_t * f_t"), "partner", "candidate"),
    "f multiplies both": (FOUR.replace("i_t * c_tilde", "f_t * c_tilde"), "partner", "i_t"),
    "o never used": (FOUR.replace(LAST, "h_t = f_t * torch.tanh(c_t)"), "partner", "o_t"),
    "h from the old c": (FOUR.replace(LAST, "h_t = o_t * torch.tanh(c_prev)"), "h-from-old-c", "c_{t-1}"),
    "h without o": (FOUR.replace(LAST, "h_t = torch.tanh(c_t)"), "no-output-gate", "output gate"),
    "h without tanh": (FOUR.replace(LAST, "h_t = o_t * c_t"), "h-no-tanh", "tanh"),
    "σ(c_t)": (FOUR.replace(LAST, "h_t = o_t * torch.sigmoid(c_t)"), "h-activation", "sigmoid"),
    "tanh(o ⊙ c)": (FOUR.replace(LAST, "h_t = torch.tanh(o_t * c_t)"), "h-activation", "product"),
    "h from c̃": (FOUR.replace(LAST, "h_t = o_t * torch.tanh(c_tilde)"), "h-without-c", "cell state"),
    "o + tanh": (FOUR.replace(LAST, "h_t = o_t + torch.tanh(c_t)"), "plus", "o ⊙ tanh"),
    "tanh around c_t": (FOUR.replace(SUM, "c_t = torch.tanh(f_t * c_prev + i_t * c_tilde)"), "c-activation", "tanh"),
    "order": (FOUR.replace("return h_t, c_t", "return c_t, h_t"), "order", "c_t first"),
    "x only": (FOUR.replace("(x, h_prev)", "(x, torch.zeros_like(h_prev))"), "no-h", "No gate"),
    "h only": (FOUR.replace("(x, h_prev)", "(x * 0, h_prev)"), "no-x", "No gate"),
    "o of x only": (SPLIT.replace("h_prev @ self.W_o.T + ", ""), "no-h", "output gate"),
    "c in the gates": (FOUR.replace("(x, h_prev)", "(x, c_prev)"), "c-in-gates", "c_{t-1}"),
    "h detached": (FOUR.replace("(x, h_prev)", "(x, h_prev.detach())"), "detached", "h_{t-1}"),
    "c by .data": (FOUR.replace("f_t * c_prev", "f_t * c_prev.data"), "detached", "c_{t-1}"),
    "no_grad": (
        FOUR.replace("        c_t =", "        with torch.no_grad():\n            c_t ="),
        "detached",
        "c_{t-1}",
    ),
    "own state": (
        FOUR.replace("        n =", "        self.c = None\n        n =")
        .replace(
            "        c_t = f_t * c_prev",
            "        if self.c is None:\n            self.c = torch.zeros_like(c_prev)\n        self.c = c_t = f_t * self.c",
        )
        .replace("return h_t", "self.c = c_t.detach()\n        return h_t"),
        "leak",
        "self.c",
    ),
    "rows mixed": (
        FOUR.replace("c_tilde = torch.tanh(self.W_c(z))", "c_tilde = torch.tanh(self.W_c(z).mean(0, keepdim=True))"),
        "mixed",
        "rows",
    ),
    "nn.LSTMCell": (
        cell("self.inner = nn.LSTMCell(D, H)", "return self.inner(x, (h_prev, c_prev))"),
        "forbidden",
        "lstm",
    ),
    "nn.LSTM": (
        cell(
            "self.inner = nn.LSTM(D, H)",
            "_, (h, c) = self.inner(x[None], (h_prev[None], c_prev[None]))\nreturn h[0], c[0]",
        ),
        "forbidden",
        "lstm",
    ),
    "plain tensors": (
        SPLIT.replace("nn.Parameter(torch.randn(H, H) * 0.1)", "torch.randn(H, H)"),
        "no-parameter",
        "W_i",
    ),
    "a Python list": (
        cell(
            "self.gates = [nn.Linear(D + H, H) for _ in range(4)]",
            "z = torch.cat([x, h_prev], 1)\ni, f, o, g = [m(z) for m in self.gates]\n" + SIG + END,
        ),
        "no-parameter",
        "gates[0]",
    ),
    "wrong size": (
        FOUR.replace("self.W_o = nn.Linear(n, hidden_size)", "self.W_o = nn.Linear(input_size, hidden_size)"),
        "exception",
        "fails",
    ),
    "h of the size of x": (FOUR.replace("return h_t, c_t", "return x, x"), "sizes", "shape"),
    "a name that is not there": (FOUR.replace("f_t * c_prev", "f_gate * c_prev"), "exception", "f_gate"),
    "not finished": (FOUR[: FOUR.index("        c_t =")] + "        pass\n", "sizes", "nothing"),
    "by element": (SPLIT.replace("h_prev @ self.W_o.T", "h_prev * self.W_o[0]"), "elementwise", "output gate"),
    "coupled": (FOUR.replace("i_t = torch.sigmoid(self.W_i(z))", "i_t = 1 - f_t"), "coupled", "add to one"),
    "peephole": (
        FOUR.replace("o_t = torch.sigmoid(self.W_o(z))", "o_t = torch.sigmoid(self.W_o(z) + c_t)"),
        "peephole",
        "o",
    ),
    "only h": (FOUR.replace("return h_t, c_t", "return h_t"), "returns", "only one"),
    "GRU": (
        cell(
            "self.a, self.g = nn.Linear(D + H, 2 * H), nn.Linear(D + H, H)",
            "z, r = torch.sigmoid(self.a(torch.cat([x, h_prev], 1))).chunk(2, 1)\nn = torch.tanh(self.g(torch.cat([x, r * h_prev], 1)))\nh = (1 - z) * n + z * h_prev\nreturn h, c_prev",
        ),
        "c-unchanged",
        "never updated",
    ),
    "in place before backward": (
        FOUR.replace(LAST, "h_t = torch.tanh(c_t)\n        g_t = h_t * o_t\n        h_t.add_(1)\n        h_t = g_t"),
        "backward",
        "backward",
    ),
}
