# ruff: noqa: E501 (a source of several lines stands in one)
"""Cells beside a key: GRUs, minimal gated units and peephole LSTMs in unlike styles, and ones with a single fault."""

from __future__ import annotations

HEAD = "import torch\nimport torch.nn as nn\nimport torch.nn.functional as F\n"


def cell(init: str, forward: str, arguments: str = "x, h_prev", name: str = "ManualGRUCell") -> str:
    """A class of these lines."""
    lines = lambda text: "\n".join(f"        {line}" for line in text.strip("\n").splitlines())  # noqa: E731
    return (
        f"class {name}(nn.Module):\n    def __init__(self, input_size, hidden_size):\n        super().__init__()\n"
        f"        D, H = input_size, hidden_size\n        self.hidden_size = hidden_size\n{lines(init)}\n\n"
        f"    def forward(self, {arguments}):\n{lines(forward)}\n"
    )


THREE = "self.W_r = nn.Linear(D + H, H)\nself.W_z = nn.Linear(D + H, H)\nself.W_n = nn.Linear(D + H, H)"
SIX = "\n".join(f"self.{m}_{g} = nn.Linear({n}, H)" for g in "rzn" for m, n in (("x", "D"), ("h", "H")))
RAW = "\n".join(
    [
        f"self.W_{g} = nn.Parameter(torch.randn(H, H))\nself.U_{g} = nn.Parameter(torch.randn(H, D))\nself.b_{g} = nn.Parameter(torch.randn(H))"
        for g in "rzn"
    ]
)
BEFORE = """v = torch.cat([x, h_prev], dim=1)
r_t = torch.sigmoid(self.W_r(v))
z_t = torch.sigmoid(self.W_z(v))
n_t = torch.tanh(self.W_n(torch.cat([x, r_t * h_prev], dim=1)))
h_t = z_t * h_prev + (1 - z_t) * n_t
return h_t"""
AFTER = """r = torch.sigmoid(self.x_r(x) + self.h_r(h_prev))
z = torch.sigmoid(self.x_z(x) + self.h_z(h_prev))
n = torch.tanh(self.x_n(x) + r * self.h_n(h_prev))
return (1 - z) * n + z * h_prev"""
ROWS = """r = torch.sigmoid(h @ self.W_r.T + x @ self.U_r.T + self.b_r)
z = torch.sigmoid(h @ self.W_z.T + x @ self.U_z.T + self.b_z)
n = torch.tanh((r * h) @ self.W_n.T + x @ self.U_n.T + self.b_n)
return z * h + (1 - z) * n"""
COLUMNS = """r = torch.sigmoid(self.W_r @ h + self.U_r @ x + self.b_r)
z = torch.sigmoid(self.W_z @ h + self.U_z @ x + self.b_z)
n = torch.tanh(self.U_n @ x + self.b_n + self.W_n @ (r * h))
return z * h + (1 - z) * n"""

STYLES = {
    "one Linear a gate, reset before": cell(THREE, BEFORE),
    "Linears for x and h, reset after": cell(SIX, AFTER),
    "the other convention": cell(THREE, BEFORE.replace("z_t * h_prev + (1 - z_t) * n_t", "(1 - z_t) * h_prev + z_t * n_t")),
    "raw parameters": cell(RAW, ROWS, "x, h"),
    "column vectors": cell(RAW.replace("torch.randn(H))", "torch.randn(H, 1))"), COLUMNS, "x, h"),
    "einsum": cell(
        RAW, ROWS.replace("h @ self.W_r.T", "torch.einsum('bj,ij->bi', h, self.W_r)").replace("(r * h) @ self.W_n.T", "torch.einsum('bj,ij->bi', r * h, self.W_n)"), "x, h"
    ),
    "one Linear for all": cell(
        "self.x2h = nn.Linear(D, 3 * H)\nself.h2h = nn.Linear(H, 3 * H)",
        "a, b = self.x2h(x).chunk(3, 1), self.h2h(h).chunk(3, 1)\nz = (a[0] + b[0]).sigmoid()\nr = (a[1] + b[1]).sigmoid()\nreturn torch.lerp((a[2] + r * b[2]).tanh(), h, z)",
        "x, h",
    ),
    "one Linear of two gates": cell(
        "self.gates = nn.Linear(D + H, 2 * H)\nself.new = nn.Linear(D + H, H)",
        "z, r = torch.sigmoid(self.gates(torch.cat((h, x), -1))).split(self.hidden_size, -1)\ng = torch.tanh(self.new(torch.cat((h * r, x), -1)))\nreturn h + (1 - z) * (g - h)",
        "x, h",
    ),
    "h first": cell(THREE, BEFORE.replace("v = torch.cat([x, h_prev]", "v = torch.cat([h_prev, x]"), "h_prev, x"),
    "no biases": cell(SIX.replace(", H)", ", H, bias=False)"), AFTER),
    "one bias for the candidate": cell(SIX.replace("self.h_n = nn.Linear(H, H)", "self.h_n = nn.Linear(H, H, bias=False)"), AFTER),
    "in place": cell(
        RAW,
        "r = h @ self.W_r.T\nr += x @ self.U_r.T\nr += self.b_r\nr.sigmoid_()\nz = (h @ self.W_z.T).add_(x @ self.U_z.T).add_(self.b_z).sigmoid_()\nn = ((r * h) @ self.W_n.T).add_(x @ self.U_n.T + self.b_n).tanh_()\nout = torch.zeros_like(h)\nout += z * h\nout += n\nout -= z * n\nreturn out",
        "x, h",
    ),
    "a sigmoid and a tanh of one's own": cell(
        THREE,
        BEFORE.replace("torch.sigmoid", "self.s").replace("torch.tanh", "self.t")
        + "\n\ndef_ = None",
    ).replace("        \n        def_ = None\n", "")
    + "\n    def s(self, a):\n        return 1 / (1 + torch.exp(-a))\n\n    def t(self, a):\n        return 2 * self.s(2 * a) - 1\n",
    "a dict of gates": cell(
        "self.g = nn.ModuleDict({k: nn.Linear(D + H, H) for k in 'rzn'})",
        "v = torch.hstack((x, h))\ng = {k: self.g[k](v).sigmoid() for k in 'rz'}\nn = self.g['n'](torch.hstack((x, g['r'] * h))).tanh()\nreturn g['z'] * h + (1.0 - g['z']) * n",
        "x, h",
    ),
    "returned twice": cell(THREE, BEFORE.replace("return h_t", "return h_t, h_t")),
    "a gate of one minus a sigmoid": cell(THREE, BEFORE.replace("z_t = torch.sigmoid(self.W_z(v))", "z_t = 1 - torch.sigmoid(self.W_z(v))")),
    "addcmul and baddbmm": cell(
        RAW,
        "r = torch.sigmoid(torch.addmm(self.b_r, x, self.U_r.T).addmm(h, self.W_r.T))\nz = torch.sigmoid(torch.addmm(self.b_z, x, self.U_z.T).addmm(h, self.W_z.T))\nn = torch.tanh(torch.addmm(self.b_n, x, self.U_n.T).addmm(r * h, self.W_n.T))\nreturn torch.addcmul(n, z, h - n)",
        "x, h",
    ),
    "interleaved": cell(
        "self.lin = nn.Linear(D + H, 2 * H)\nself.c = nn.Linear(D + H, H)",
        "a = self.lin(torch.cat((x, h), 1)).view(x.size(0), self.hidden_size, 2)\ng = torch.sigmoid(a)\nr, z = g[..., 0], g[..., 1]\nn = torch.tanh(self.c(torch.cat((x, r * h), 1)))\nreturn z * h + (1 - z) * n",
        "x, h",
    ),
}  # fmt: skip

LAST = "h_t = z_t * h_prev + (1 - z_t) * n_t"
FAULTS = {
    "r has tanh": (cell(THREE, BEFORE.replace("r_t = torch.sigmoid", "r_t = torch.tanh")), "key-activation", "r_t"),
    "z has tanh": (cell(THREE, BEFORE.replace("z_t = torch.sigmoid", "z_t = torch.tanh")), "key-activation", "z_t"),
    "n has a sigmoid": (cell(THREE, BEFORE.replace("torch.tanh", "torch.sigmoid")), "key-activation", "n_t"),
    "n has no tanh": (cell(SIX, AFTER.replace("torch.tanh", "")), "key-activation", "n_t"),
    "z has no sigmoid": (cell(THREE, BEFORE.replace("z_t = torch.sigmoid", "z_t = ")), "key-activation", "z_t"),
    "no reset gate": (cell(THREE, BEFORE.replace("r_t * h_prev", "h_prev")), "key-left-out", "n_t"),
    "no 1 - z": (cell(THREE, BEFORE.replace("(1 - z_t) * n_t", "n_t")), "key-left-out", "h_t"),
    "no z": (cell(THREE, BEFORE.replace("z_t * h_prev", "h_prev")), "key-left-out", "h_t"),
    "no candidate": (cell(THREE, BEFORE.replace("(1 - z_t) * n_t", "(1 - z_t)")), "key-left-out", "h_t"),
    "no old state": (cell(SIX, AFTER.replace(" + z * h_prev", "")), "key-left-out", "h_t"),
    "minus": (cell(THREE, BEFORE.replace("h_prev + (1", "h_prev - (1")), "key-sign", "h_t"),
    "z for 1 - z": (cell(THREE, BEFORE.replace("(1 - z_t)", "z_t")), "key-operation", "h_t"),
    "r for z": (cell(THREE, BEFORE.replace(LAST, "h_t = z_t * h_prev + (1 - r_t) * n_t")), "key-operand", "h_t"),
    "z in the candidate": (cell(SIX, AFTER.replace("r * self.h_n", "z * self.h_n")), "key-operand", "n_t"),
    "plus for times": (cell(THREE, BEFORE.replace("z_t * h_prev", "(z_t + h_prev)")), "key-operation", "h_t"),
    "tanh of h": (cell(THREE, BEFORE.replace("return h_t", "return torch.tanh(h_t)")), "key-added", "h_t"),
    "r times all": (cell(SIX, AFTER.replace("self.x_n(x) + r * self.h_n(h_prev)", "r * (self.x_n(x) + self.h_n(h_prev))")), "key-order", "n_t"),
    "shared weights": (cell(THREE, BEFORE.replace("self.W_z(v)", "self.W_r(v)")), "shared-weights", "z_t"),
    "no x": (cell(SIX, AFTER.replace("self.x_z(x) + ", "")), "no-x", "z_t"),
    "no h": (cell(SIX, AFTER.replace(" + self.h_r(h_prev)", "")), "no-h", "r_t"),
    "no bias": (cell(RAW, ROWS.replace(" + self.b_z", ""), "x, h"), "no-bias", "z_t"),
    "by element": (cell(RAW.replace("self.W_r = nn.Parameter(torch.randn(H, H))", "self.W_r = nn.Parameter(torch.randn(H))"), ROWS.replace("h @ self.W_r.T", "h * self.W_r"), "x, h"), "elementwise", "r_t"),
    "two faults": (cell(THREE, BEFORE.replace("torch.tanh", "").replace("(1 - z_t) * n_t", "n_t")), "key-left-out", "h_t"),
    "something else": (cell(THREE, BEFORE.replace(LAST, "h_t = torch.sin(3 * z_t * h_prev) + n_t ** 3 - z_t ** 2")), "differs", "h_t"),
}  # fmt: skip

MGU_LINES = """f = torch.sigmoid(self.W_f(torch.cat((x, h), 1)))
g = torch.tanh(self.W_g(torch.cat((x, f * h), 1)))
return (1 - f) * h + f * g"""
MGU_TWO = "self.W_f = nn.Linear(D + H, H)\nself.W_g = nn.Linear(D + H, H)"


def mgu(forward: str, init: str = MGU_TWO) -> str:
    return cell(init, forward, "x, h", "ManualMGUCell")


MGU_STYLES = {
    "two Linears": mgu(MGU_LINES),
    "the other convention": mgu(MGU_LINES.replace("(1 - f) * h + f * g", "f * h + (1 - f) * g").replace("f * h), 1", "(1 - f) * h), 1")),
    "raw": mgu(
        "f = (h @ self.W_r.T + x @ self.U_r.T + self.b_r).sigmoid()\ng = ((f * h) @ self.W_n.T + x @ self.U_n.T + self.b_n).tanh()\nreturn h + f * (g - h)",
        RAW,
    ),
}  # fmt: skip
MGU_FAULTS = {
    "no f in the candidate": (mgu(MGU_LINES.replace("f * h), 1", "h), 1")), "key-left-out", "h̃_t"),
    "f after the product": (
        mgu("f = torch.sigmoid(self.W_f(torch.cat((x, h), 1)))\ng = torch.tanh(self.U(x) + f * self.W(h))\nreturn (1 - f) * h + f * g", MGU_TWO + "\nself.U = nn.Linear(D, H)\nself.W = nn.Linear(H, H, bias=False)"),
        "key-order",
        "h̃_t",
    ),
    "h whole": (mgu(MGU_LINES.replace("(1 - f) * h", "h")), "key-left-out", "h_t"),
}  # fmt: skip

PEEP = "self.W = nn.Linear(D + H, 4 * H)\nself.p = nn.Parameter(torch.zeros(3, H))"
PEEP_LINES = """i, f, g, o = self.W(torch.cat((x, h), 1)).chunk(4, 1)
i = torch.sigmoid(i + self.p[0] * c)
f = torch.sigmoid(f + self.p[1] * c)
c = f * c + i * torch.tanh(g)
o = torch.sigmoid(o + self.p[2] * c)
return o * torch.tanh(c), c"""


def peephole(forward: str, arguments: str = "x, h, c") -> str:
    return cell(PEEP, forward, arguments, "ManualPEEPHOLECell")


PEEPHOLE_STYLES = {
    "as it is": peephole(PEEP_LINES),
    "a pair": peephole("h, c = state\n" + PEEP_LINES.replace("return o * torch.tanh(c), c", "return (o * torch.tanh(c), c)"), "x, state"),
    "other names": peephole(PEEP_LINES.replace("self.p[2] * c", "torch.diag(self.p[2]).matmul(c.T).T")),
}  # fmt: skip
PEEPHOLE_FAULTS = {
    "o sees the old c": (peephole(PEEP_LINES.replace("c = f * c +", "old, c = c, f * c +").replace("self.p[2] * c", "self.p[2] * old")), "key-operand", "o_t"),
    "no peephole": (peephole(PEEP_LINES.replace("f + self.p[1] * c", "f")), "key-left-out", "f_t"),
    "no tanh": (peephole(PEEP_LINES.replace("o * torch.tanh(c)", "o * c")), "key-activation", "h_t"),
}  # fmt: skip
