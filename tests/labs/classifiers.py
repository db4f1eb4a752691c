"""Students' classifiers: right ones in many styles, and faults by their codes."""

# ruff: noqa: E501  (a student's text stands in one line)

CELL = """
import torch
import torch.nn as nn
import torch.nn.functional as F

class ManualLSTMCell(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size
        self.gates = nn.Linear(input_size + hidden_size, 4 * hidden_size)
    def forward(self, x, h_prev, c_prev):
        i, f, g, o = self.gates(torch.cat([x, h_prev], dim=1)).chunk(4, dim=1)
        c_t = torch.sigmoid(f) * c_prev + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c_t), c_t
"""
TUPLE_CELL = CELL.replace("x, h_prev, c_prev):", "x, state):\n        h_prev, c_prev = state").replace(
    "return torch.sigmoid(o) * torch.tanh(c_t), c_t",
    "h = torch.sigmoid(o) * torch.tanh(c_t)\n        return h, (h, c_t)",
)
COLUMN_CELL = """
import torch
import torch.nn as nn

class ManualLSTMCell(nn.Module):
    def __init__(self, D, H):
        super().__init__()
        self.W, self.U, self.b = (nn.Parameter(torch.randn(4 * H, n) * 0.1) for n in (H, D, 1))
    def forward(self, x, c_prev, h_prev):
        i, f, g, o = (self.W @ h_prev + self.U @ x + self.b).chunk(4, dim=0)
        c = torch.sigmoid(f) * c_prev + torch.sigmoid(i) * torch.tanh(g)
        return c, torch.sigmoid(o) * torch.tanh(c)
"""
PROJECTED = CELL.replace(
    "        self.gates = nn.Linear(input_size + hidden_size, 4 * hidden_size)\n",
    "        self.U = nn.Linear(input_size, 4 * hidden_size)\n        self.W = nn.Linear(hidden_size, 4 * hidden_size)\n",
).replace("self.gates(torch.cat([x, h_prev], dim=1)).chunk", "(ux + self.W(h_prev)).chunk")
MAYBE = PROJECTED.replace(
    "x, h_prev, c_prev):", "x, h_prev, c_prev, ux=None):\n        ux = self.U(x) if ux is None else ux"
)
NEEDED = PROJECTED.replace("x, h_prev, c_prev):", "ux, h_prev, c_prev):")
UNNAMED = PROJECTED.replace("x, h_prev, c_prev):", "a, b, s, m=None):\n        ux, h_prev, c_prev = m, b, s")
PARTS = PROJECTED.replace("x, h_prev, c_prev):", "x, h_prev, c_prev, *, parts=None):\n        ux = torch.cat(parts, 1)")
OWN = (
    "h = c = torch.zeros(len(x), self.hidden_size)\nfor t in range(28):\n"
    "    i, f, g, o = self.cell.gates(torch.cat([x[:, t], h], 1)).chunk(4, 1)\n"
    "    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)\n    h = torch.sigmoid(o) * torch.tanh(c)\nreturn self.fc(h)"
)
START = "B = x.size(0)\nh = torch.zeros(B, self.hidden_size)\nc = torch.zeros(B, self.hidden_size)\n"
LOOP = START + "for t in range(x.size(1)):\n    h, c = self.cell(x[:, t, :], h, c)\n"
RIGHT = LOOP + "return self.fc(h)"
INIT = "self.hidden_size = hidden_size\nself.cell = ManualLSTMCell(input_size, hidden_size)\nself.fc = nn.Linear(hidden_size, num_classes)"


def text_of(
    forward: str,
    init: str = INIT,
    cell: str = CELL,
    arguments: str = "input_size, hidden_size, num_classes",
    given: str = "x",
    more: str = "",
) -> str:
    def indented(body: str) -> str:
        return "".join(f"        {line}\n" for line in body.splitlines())

    return (
        f"{cell}\nclass ManualLSTMClassifier(nn.Module):\n    def __init__(self, {arguments}):\n        super().__init__()\n"
        f"{indented(init)}    def forward(self, {given}):\n{indented(forward)}{more}"
    )


CORRECT = {
    "plain": text_of(RIGHT),
    "image": text_of("x = x.squeeze(1)\n" + RIGHT),
    "four axes": text_of("B, _, T, D = x.size()\nx = x.view(B, T, D)\n" + RIGHT),
    "flat": text_of("x = x.view(-1, 28, 28)\nassert True\n" + RIGHT),
    "same zeros": text_of(
        "h = c = x.new_zeros(x.shape[0], self.hidden_size)\nfor row in x.unbind(1):\n    h, c = self.cell(row, h, c)\nreturn self.fc(h)"
    ),
    "transposed": text_of(
        START + "for row in x.transpose(0, 1):\n    h, c = self.cell(row, h, c)\nlogits = self.fc(h)\nreturn logits"
    ),
    "cell.forward": text_of(RIGHT.replace("self.cell(", "self.cell.forward(")),
    "keywords": text_of(RIGHT.replace("x[:, t, :], h, c", "c_prev=c, h_prev=h, x=x[:, t]")),
    "stacked outputs": text_of(
        START
        + "out = []\nfor t in range(28):\n    h, c = self.cell(x[:, t], h, c)\n    out.append(h)\nout = torch.stack(out, dim=1)\nreturn self.fc(out[:, -1, :])"
    ),
    "written to a tensor": text_of(
        START
        + "out = torch.zeros(B, 28, self.hidden_size)\nfor t in range(28):\n    h, c = self.cell(x[:, t], h, c)\n    out[:, t] = h\nreturn self.fc(out[:, -1])"
    ),
    "dropout": text_of(LOOP + "return self.fc(self.drop(h))", INIT + "\nself.drop = nn.Dropout(0.5)"),
    "norms": text_of(
        LOOP + "return self.fc(self.bn(self.ln(h)))",
        INIT + "\nself.ln = nn.LayerNorm(hidden_size)\nself.bn = nn.BatchNorm1d(hidden_size)",
    ),
    "two Linears": text_of(
        LOOP + "return self.fc(torch.relu(self.first(h)))", INIT + "\nself.first = nn.Linear(hidden_size, hidden_size)"
    ),
    "log_softmax": text_of(LOOP + "return F.log_softmax(self.fc(h), dim=1)"),
    "tuple state": text_of(
        "state = (torch.zeros(len(x), self.hidden_size), torch.zeros(len(x), self.hidden_size))\nfor t in range(28):\n    out, state = self.cell(x[:, t], state)\nreturn self.fc(out)",
        cell=TUPLE_CELL,
    ),
    "columns, c first": text_of(
        "h = torch.zeros(self.hidden_size, len(x))\nc = torch.zeros(self.hidden_size, len(x))\nfor t in range(28):\n    c, h = self.cell(x[:, t].T, c, h)\nreturn self.fc(h.T)",
        cell=COLUMN_CELL,
    ),
    "layers": text_of(
        "h = [torch.zeros(len(x), self.H) for _ in self.cells]\nc = [torch.zeros(len(x), self.H) for _ in self.cells]\n"
        "for t in range(x.size(1)):\n    inp = x[:, t]\n    for n, cell in enumerate(self.cells):\n        h[n], c[n] = cell(inp, h[n], c[n])\n        inp = self.drop(h[n])\nreturn self.fc(h[-1])",
        "self.H = hidden_size\nself.cells = nn.ModuleList([ManualLSTMCell(input_size if n == 0 else hidden_size, hidden_size) for n in range(2)])\nself.fc = nn.Linear(hidden_size, num_classes)\nself.drop = nn.Dropout(0.2)",
    ),
    "both directions": text_of(
        "h = c = h2 = c2 = torch.zeros(len(x), self.hidden_size)\nfor t in range(28):\n    h, c = self.cell(x[:, t], h, c)\n    h2, c2 = self.back(x[:, 27 - t], h2, c2)\nreturn self.fc(torch.cat([h, h2], 1))",
        "self.hidden_size = hidden_size\nself.cell = ManualLSTMCell(input_size, hidden_size)\nself.back = ManualLSTMCell(input_size, hidden_size)\nself.fc = nn.Linear(2 * hidden_size, num_classes)",
    ),
    "pictures one by one": text_of(
        "rows = []\nfor image in x:\n    h = torch.zeros(1, self.hidden_size)\n    c = torch.zeros(1, self.hidden_size)\n    for row in image:\n        h, c = self.cell(row.unsqueeze(0), h, c)\n    rows.append(self.fc(h))\nreturn torch.cat(rows)"
    ),
    "other names": text_of(
        RIGHT,
        "self.hidden_size = n_hidden\nself.cell = ManualLSTMCell(in_dim, n_hidden)\nself.fc = nn.Linear(n_hidden, n_out)",
        arguments="n_out, in_dim, n_hidden, num_layers, dropout=0.1, device='cpu'",
    ),
    "float32": text_of(
        RIGHT.replace("self.hidden_size)", "self.hidden_size, dtype=torch.float32)").replace(
            "x[:, t, :]", "x[:, t, :].float()"
        )
    ),
    "normalised, no bias": text_of(
        "x = (x - 0.1307) / 0.3081\n" + RIGHT, INIT.replace("num_classes)", "num_classes, bias=False)")
    ),
    "time first": text_of(
        "h = c = torch.zeros(x.size(1), self.hidden_size)\nfor t in range(x.size(0)):\n    h, c = self.cell(x[t], h, c)\nreturn self.fc(h)"
    ),
    "weights of one's own": text_of(
        LOOP + "return h @ self.W_out + self.b_out",
        INIT.replace(
            "self.fc = nn.Linear(hidden_size, num_classes)",
            "self.W_out = nn.Parameter(torch.randn(hidden_size, num_classes))\nself.b_out = nn.Parameter(torch.zeros(num_classes))",
        ),
    ),
    "hard-coded units": text_of(
        RIGHT,
        INIT.replace("hidden_size", "32").replace("self.32", "self.hidden_size"),
        arguments="input_size, hidden_size, num_classes",
    ),
    "state kept, reset by hand": text_of(
        "for t in range(28):\n    self.h, self.c = self.cell(x[:, t], self.h, self.c)\nreturn self.fc(self.h)",
        INIT + "\nself.init_hidden(3)",
        more="    def init_hidden(self, B):\n        self.h = self.c = torch.zeros(B, self.hidden_size)\n\ndef train(model):\n    model.init_hidden(64)\n",
    ),
    "state of the cell's own": text_of(
        START.replace("torch.zeros", "self.zeros")
        + "for t in range(28):\n    h, c = self.cell(x[:, t], h, c)\nreturn self.fc(h), (h, c)",
        more="    def zeros(self, *sizes):\n        return next(self.parameters()).new_zeros(*sizes)\n",
    ),
    "learned start": text_of(
        "h = self.h0.expand(len(x), -1)\nc = self.c0.expand(len(x), -1)\nfor t in range(28):\n    h, c = self.cell(x[:, t], h, c)\nreturn self.fc(h)",
        INIT
        + "\nself.h0 = nn.Parameter(torch.zeros(1, hidden_size))\nself.c0 = nn.Parameter(torch.zeros(1, hidden_size))",
    ),
    "input layer": text_of(
        LOOP.replace("x[:, t, :]", "torch.tanh(self.embed(x[:, t]))") + "return self.fc(h)",
        INIT.replace("Cell(input_size", "Cell(20") + "\nself.embed = nn.Linear(input_size, 20)",
    ),
    "zeros by None": text_of(
        "h = c = None\nfor t in range(28):\n    h, c = self.cell(x[:, t], h, c)\nreturn self.fc(h)",
        cell=CELL.replace(
            "        i, f",
            "        if h_prev is None:\n            h_prev = c_prev = x.new_zeros(len(x), self.hidden_size)\n        i, f",
        ),
    ),
    "optional states": text_of(
        "if h is None:\n    h = c = torch.zeros(len(x), self.hidden_size)\nfor t in range(28):\n    h, c = self.cell(x[:, t], h, c)\nreturn self.fc(h)",
        given="x, h=None, c=None",
    ),
    "required states": text_of(
        "for t in range(28):\n    h, c = self.cell(x[:, t], h, c)\nreturn self.fc(h), (h, c)", given="x, h, c"
    ),
    "dropout and norm between steps": text_of(
        LOOP.replace("    h, c = self.cell", "    h = self.drop(self.ln(h)) if t else h\n    h, c = self.cell")
        + "return self.fc(h)",
        INIT + "\nself.ln = nn.LayerNorm(hidden_size)\nself.drop = nn.Dropout(0.3)",
    ),
    "attention": text_of(
        START
        + "out = []\nfor t in range(28):\n    h, c = self.cell(x[:, t], h, c)\n    out.append(h)\nout = torch.stack(out, 1)\nweights = torch.softmax(self.score(out), 1)\nreturn self.fc((weights * out).sum(1))",
        INIT + "\nself.score = nn.Linear(hidden_size, 1)",
    ),
    "lists of states": text_of(
        "hs, cs = [torch.zeros(len(x), self.hidden_size)], [torch.zeros(len(x), self.hidden_size)]\nfor row in torch.chunk(x, 28, 1):\n    h, c = self.cell(row.squeeze(1), hs[-1].clone(), cs[-1].contiguous())\n    hs.append(h)\n    cs.append(c)\nreturn self.head(hs[-1])",
        INIT.replace("self.fc = ", "self.head = nn.Sequential(nn.Dropout(0.1), ") + ")",
    ),
    "layer by layer": text_of(
        "seq = [x[:, t] for t in range(28)]\nfor cell in self.cells:\n    h = c = torch.zeros(len(x), self.H)\n    out = []\n    for row in seq:\n        h, c = cell(row, h, c)\n        out.append(h)\n    seq = out\nreturn self.fc(seq[-1])",
        "self.H = hidden_size\nself.cells = nn.ModuleList([ManualLSTMCell(input_size, hidden_size), ManualLSTMCell(hidden_size, hidden_size)])\nself.fc = nn.Linear(hidden_size, num_classes)",
    ),
    "shared both directions": text_of(
        "ends = []\nfor order in (range(28), range(27, -1, -1)):\n    h = c = torch.zeros(len(x), self.hidden_size)\n    for t in order:\n        h, c = self.cell(x[:, t], h, c)\n    ends.append(h)\nreturn self.fc(ends[0] + ends[1])"
    ),
    "in place": text_of(
        START
        + "for t in range(28):\n    h_new, c_new = self.cell(x[:, t], h, c)\n    h, c = h_new.clone(), c_new\n    h.mul_(1.0)\nreturn self.fc(h)"
    ),
    "of each picture's own mean": text_of(
        "x = (x - x.mean((1, 2), keepdim=True)) / x.std((1, 2), keepdim=True)\n" + RIGHT
    ),
    "c first by both": text_of(
        "c, h = torch.zeros(len(x), self.hidden_size), torch.zeros(len(x), self.hidden_size)\nfor t in range(28):\n    c, h = self.cell(x[:, t], h, c)\nreturn self.fc(h)",
        cell=CELL.replace(
            "return torch.sigmoid(o) * torch.tanh(c_t), c_t", "return c_t, torch.sigmoid(o) * torch.tanh(c_t)"
        ),
    ),
    "one cell for each state size": text_of(
        RIGHT.replace("x[:, t, :]", "x[..., t, :].contiguous()"),
        INIT.replace(
            "ManualLSTMCell(input_size, hidden_size)", "nn.ModuleList([ManualLSTMCell(input_size, hidden_size)])"
        ).replace("self.cell =", "self.cells ="),
    ).replace("self.cell(", "self.cells[0]("),
    "noise in training": text_of("if self.training:\n    x = x + 0.1 * torch.randn_like(x)\n" + RIGHT),
    "device": text_of(RIGHT.replace("self.hidden_size)", "self.hidden_size).to(x.device)")),
    "U x of all rows beforehand": text_of(
        "ux = self.cell.U(x)\n" + RIGHT.replace("x[:, t, :], h, c", "x[:, t], h, c, ux=ux[:, t]"), cell=MAYBE
    ),
    "U x beforehand, by place": text_of(
        "ux = self.cell.U(x)\n" + RIGHT.replace("x[:, t, :], h, c", "x[:, t], h, c, ux[:, t]"), cell=MAYBE
    ),
    "U x beforehand, x without meaning": text_of(
        "ux = self.cell.U(x)\n" + RIGHT.replace("x[:, t, :], h, c", "x[:, 0], h, c, ux=ux[:, t]"), cell=MAYBE
    ),
    "U x beforehand, no x": text_of(
        "ux = self.cell.U(x)\n" + RIGHT.replace("x[:, t, :], h, c", "None, h, c, ux[:, t]"), cell=MAYBE
    ),
    "U x in the place of x": text_of(
        "ux = self.cell.U(x)\n" + RIGHT.replace("x[:, t, :], h, c", "ux[:, t], h, c"), cell=NEEDED
    ),
    "U x last": text_of(
        "ux = self.cell.U(x)\n" + RIGHT.replace("x[:, t, :], h, c", "h, c, ux[:, t]"),
        cell=NEEDED.replace("ux, h_prev, c_prev)", "h_prev, c_prev, ux)"),
    ),
    "U x beforehand, names that say nothing": text_of(
        "ux = self.cell.U(x)\n" + RIGHT.replace("x[:, t, :], h, c", "x[:, t], m=ux[:, t], s=c, b=h"), cell=UNNAMED
    ),
    "U x beforehand, one for each gate": text_of(
        "ux = self.cell.U(x)\n" + RIGHT.replace("x[:, t, :], h, c", "x[:, t], h, c, parts=ux[:, t].chunk(4, 1)"),
        cell=PARTS,
    ),
    "U x beforehand, a pair": text_of(
        "ux = self.cell.U(x)\n" + RIGHT.replace("x[:, t, :], h, c", "x[:, t], (h, c), pre=ux[:, t]"),
        cell=MAYBE.replace(
            "x, h_prev, c_prev, ux=None):", "x, state, pre=None):\n        ux, (h_prev, c_prev) = pre, state"
        ),
    ),
    "U x in **kwargs": text_of(
        "ux = self.cell.U(x)\n" + RIGHT.replace("x[:, t, :], h, c", "x[:, t], c_prev=c, more=ux[:, t], h_prev=h"),
        cell=PROJECTED.replace("x, h_prev, c_prev):", "x, h_prev, c_prev, **kwargs):\n        ux = kwargs['more']"),
    ),
    "a mask beside the state": text_of(
        "mask = torch.ones(x.size(0), self.hidden_size)\n" + RIGHT.replace("x[:, t, :], h, c", "x[:, t], h, c, mask"),
        cell=CELL.replace("x, h_prev, c_prev):", "x, h_prev, c_prev, h_mask=None):\n        h_prev = h_prev * h_mask"),
    ),
    "a gate that is learned beside the state": text_of(
        RIGHT.replace("x[:, t, :], h, c", "x[:, t], h, c, scale=self.scale"),
        INIT + "\nself.scale = nn.Parameter(torch.ones(hidden_size))",
        cell=CELL.replace("x, h_prev, c_prev):", "x, h_prev, c_prev, scale=1.0):\n        x = x * scale.mean()"),
    ),
    "keywords whose names say nothing": text_of(
        RIGHT.replace("x[:, t, :], h, c", "s=c, b=h, a=x[:, t]"),
        cell=CELL.replace("x, h_prev, c_prev):", "a, b, s):\n        x, h_prev, c_prev = a, b, s"),
    ),
    "state in an object": text_of(
        "state = State(torch.zeros(len(x), self.hidden_size), torch.zeros(len(x), self.hidden_size))\nfor t in range(28):\n    state = self.cell(x[:, t], state)\nreturn self.fc(state.h)",
        cell=CELL.replace("x, h_prev, c_prev):", "x, state):\n        h_prev, c_prev = state.h, state.c").replace(
            "return torch.sigmoid(o) * torch.tanh(c_t), c_t", "return State(torch.sigmoid(o) * torch.tanh(c_t), c_t)"
        )
        + "\nclass State:\n    def __init__(self, h, c):\n        self.h, self.c = h, c\n",
    ),
    "own loop": text_of(OWN),
    "own loop, columns": text_of(
        "h = c = torch.zeros(self.hidden_size, len(x))\nm = self.cell\nfor t in range(28):\n    a = m.W @ h + m.U @ x[:, t].T + m.b\n    i, f, g, o = a.chunk(4, 0)\n"
        "    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)\n    h = torch.sigmoid(o) * torch.tanh(c)\nreturn self.fc(h.T)",
        cell=COLUMN_CELL.replace("x, c_prev, h_prev", "x, h_prev, c_prev"),
    ),
    "own loop, log_softmax": text_of(OWN.replace("self.fc(h)", "F.log_softmax(self.fc(h), 1)")),
    "a method called train": text_of(
        RIGHT, more="    def train(self, loader=None, epochs=3):\n        return loader[epochs]\n"
    ),
    "holds what cannot be copied": text_of(
        RIGHT,
        INIT
        + "\nimport threading\nself.lock = threading.Lock()\nself.seen = [self.fc.weight * 2]\nself.rows = (n for n in [1])",
    ),
}


FAULTS = {
    "start-not-zero": [
        text_of(RIGHT.replace("h = torch.zeros", "h = torch.randn")),
        text_of(RIGHT.replace("c = torch.zeros", "c = torch.ones")),
    ],
    "state-leaks": [
        text_of(
            "if self.h is None or len(self.h) != len(x):\n    self.h = self.c = torch.zeros(len(x), self.hidden_size)\nh, c = self.h, self.c\nfor t in range(28):\n    h, c = self.cell(x[:, t], h, c)\nself.h, self.c = h.detach(), c.detach()\nreturn self.fc(h)",
            INIT + "\nself.h = None",
        ),
        text_of(
            "for t in range(28):\n    self.h, self.c = self.cell(x[:, t], self.h, self.c)\nreturn self.fc(self.h)",
            INIT + "\nself.h = torch.zeros(1, hidden_size).expand(3, -1)\nself.c = torch.zeros(3, hidden_size)",
        ),
    ],
    "h-not-handed-on": [
        text_of(RIGHT.replace("h, c = self", "out, c = self").replace("fc(h)", "fc(out)")),
        text_of(RIGHT.replace("x[:, t, :], h,", "x[:, t, :], torch.zeros_like(h),")),
    ],
    "c-not-handed-on": [text_of(RIGHT.replace("h, c = self", "h, _ = self"))],
    "state-not-handed-on": [
        text_of(
            RIGHT.replace(
                "    h, c = self",
                "    if t % 7 == 0:\n        h, c = torch.zeros_like(h), torch.zeros_like(c)\n    h, c = self",
            )
        ),
        text_of(
            RIGHT.replace("    h, c = self", "    h, c = torch.zeros_like(h), torch.zeros_like(c)\n    h, c = self")
        ),
    ],
    "states-swapped": [
        text_of(RIGHT.replace("h, c = self", "c, h = self")),
        text_of(RIGHT.replace("t, :], h, c", "t, :], c, h")),
        text_of(RIGHT.replace("t, :], h, c", "t, :], h, h")),
    ],
    "state-detached": [
        text_of(RIGHT.replace("t, :], h, c", "t, :], h.detach(), c.detach()")),
        text_of(RIGHT.replace("t, :], h, c", "t, :], h, c.data")),
        text_of(RIGHT.replace("fc(h)", "fc(h.detach())")),
    ],
    "no-gradient": [
        text_of(RIGHT.replace("for t", "with torch.no_grad():\n  for t").replace("    h, c", "      h, c"))
    ],
    "steps-missing": [
        text_of(RIGHT.replace("range(x.size(1))", "range(x.size(1) - 1)")),
        text_of(RIGHT.replace("range(x.size(1))", "range(1, 28)")),
    ],
    "steps-repeated": [
        text_of(RIGHT.replace("range(x.size(1))", "list(range(28)) * 2")),
        text_of(RIGHT.replace("    h, c = self.cell", "    h, c = self.cell(x[:, t], h, c)\n    h, c = self.cell")),
    ],
    "same-row": [text_of(RIGHT.replace("x[:, t, :]", "x[:, 0, :]"))],
    "rows-reversed": [
        text_of(RIGHT.replace("range(x.size(1))", "reversed(range(28))")),
        text_of("x = x.flip(1)\n" + RIGHT),
    ],
    "columns-for-rows": [
        text_of(RIGHT.replace("x[:, t, :]", "x[:, :, t]")),
        text_of("x = x.transpose(1, 2)\n" + RIGHT),
    ],
    "view-for-transpose": [
        text_of(
            START + "x = x.view(28, -1, 28)\nfor t in range(28):\n    h, c = self.cell(x[t], h, c)\nreturn self.fc(h)"
        ),
        text_of(START + "for row in x.reshape(28, B, 28):\n    h, c = self.cell(row, h, c)\nreturn self.fc(h)"),
    ],
    "batch-mixed": [
        text_of(RIGHT.replace("x[:, t, :]", "x[:, t].roll(t, 0)")),
        text_of(RIGHT.replace("fc(h)", "fc(h - h.mean(0))")),
    ],
    "not-last-step": [
        text_of(
            START
            + "out = []\nfor t in range(28):\n    h, c = self.cell(x[:, t], h, c)\n    out.append(h)\nreturn self.fc(out[0])"
        ),
        text_of(START + "for t in range(28):\n    last = h\n    h, c = self.cell(x[:, t], h, c)\nreturn self.fc(last)"),
    ],
    "all-steps": [
        text_of(
            START
            + "out = []\nfor t in range(28):\n    h, c = self.cell(x[:, t], h, c)\n    out.append(h)\nreturn self.fc(torch.stack(out).mean(0))"
        ),
        text_of(
            START + "s = 0\nfor t in range(28):\n    h, c = self.cell(x[:, t], h, c)\n    s = s + h\nreturn self.fc(s)"
        ),
    ],
    "c-for-h": [text_of(LOOP + "return self.fc(c)")],
    "c-beside-h": [text_of(LOOP + "return self.fc(c + h)")],
    "output-layer-unused": [text_of(LOOP + "return h"), text_of(LOOP + "return torch.cat([h, c], 1)[:, :10]")],
    "head-activation": [
        text_of(LOOP + f"return self.fc({name}(h))") for name in ("torch.tanh", "torch.relu", "torch.sigmoid")
    ],
    "logits-activation": [
        text_of(LOOP + f"return {name}(self.fc(h))") for name in ("torch.tanh", "F.relu", "torch.sigmoid")
    ],
    "logits-shape": [text_of(LOOP + "return self.fc(h).T"), text_of(LOOP + "return self.fc(h).argmax(1).double()")],
    "forbidden-module": [
        text_of(
            "out, _ = self.rnn(x)\nreturn self.fc(out[:, -1])",
            INIT + "\nself.rnn = nn.LSTM(input_size, hidden_size, batch_first=True)",
        ),
        text_of(
            "h = c = torch.zeros(len(x), self.hidden_size)\nfor t in range(28):\n    h, c = self.rnn(x[:, t], (h, c))\nreturn self.fc(h)",
            INIT + "\nself.rnn = nn.LSTMCell(input_size, hidden_size)",
        ),
    ],
    "cell-made-anew": [
        text_of(
            "self_cell = ManualLSTMCell(28, self.hidden_size).double()\n"
            + RIGHT.replace("self.cell", "self_cell").replace("torch.zeros(", "x.new_zeros(")
        )
    ],
    "classifier-raises": [text_of(RIGHT.replace("self.fc(h)", "self.fc(hh)"))],
    "cell-call": [
        text_of(RIGHT.replace("x[:, t, :], h, c", given))
        for given in ("x[t], h, c", "x[:, t], h", "x[:, t], h, c[:, 1:]")
    ],
    "cell-result-unused": [text_of(LOOP + "return self.fc(x[:, -1, :6])")],
}
