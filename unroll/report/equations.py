"""The cells' equations as the report prints them: LaTeX, what is read out in its place, and the sentences around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Written(NamedTuple):
    """How a cell is written down."""

    before: str  # what ends the sentence before the formulas
    formulas: dict[str, tuple[str, str]]  # LaTeX and its text alternative, by nonlinearity
    after: Callable[[str, str, str], str]  # the sentences after them, given the shapes of W, U and b


_LSTM = (
    r"""\begin{aligned}
    i_t &= \sigma(W_i\, h_{t-1} + U_i\, x_t + b_i) \\
    f_t &= \sigma(W_f\, h_{t-1} + U_f\, x_t + b_f) \\
    \tilde{c}_t &= \tanh(W_c\, h_{t-1} + U_c\, x_t + b_c) \\
    o_t &= \sigma(W_o\, h_{t-1} + U_o\, x_t + b_o) \\
    c_t &= f_t \odot c_{t-1} + i_t \odot \tilde{c}_t \\
    h_t &= o_t \odot \tanh(c_t)
    \end{aligned}""",
    "i t equals sigma of W i times h t minus 1, plus U i times x t, plus b i. f t equals sigma of W f times h t minus 1, "
    "plus U f times x t, plus b f. c tilde t equals tanh of W c times h t minus 1, plus U c times x t, plus b c. "
    "o t equals sigma of W o times h t minus 1, plus U o times x t, plus b o. c t equals f t times c t minus 1, plus i t "
    "times c tilde t. h t equals o t times tanh of c t.",
)

_GRU = (
    r"""\begin{aligned}
    r_t &= \sigma(W_r\, h_{t-1} + U_r\, x_t + b_r) \\
    z_t &= \sigma(W_z\, h_{t-1} + U_z\, x_t + b_z) \\
    n_t &= \tanh(U_n\, x_t + b_n + r_t \odot (W_n\, h_{t-1} + b_h)) \\
    h_t &= z_t \odot h_{t-1} + (1 - z_t) \odot n_t
    \end{aligned}""",
    "r t equals sigma of W r times h t minus 1, plus U r times x t, plus b r. z t equals sigma of W z times h t minus 1, "
    "plus U z times x t, plus b z. n t equals tanh of U n times x t, plus b n, plus r t times the sum of W n times h t "
    "minus 1 and b h. h t equals z t times h t minus 1, plus 1 minus z t times n t.",
)

EQUATIONS = {
    "gru": Written(
        ". Two gates, whose values lie between 0 and 1, decide how much of it is replaced:",
        {"tanh": _GRU, "relu": _GRU},
        lambda W, U, b: (
            "From top to bottom these are the reset gate, the update gate, the candidate and the hidden state; "
            "$\\sigma(a) = 1/(1 + e^{-a})$ is the logistic function and $\\odot$ multiplies unit by unit. Each of the first "
            f"three blocks has weights {_dotted(W)}, {_dotted(U)} and {_dotted(b)} of its own, the candidate a second bias "
            "$b_h$; $h_0 = 0$."
        ),
    ),
    "lstm": Written(
        ". Three gates, whose values lie between 0 and 1, decide what the cell state $c_t$ takes in, keeps and shows:",
        {"tanh": _LSTM, "relu": _LSTM},
        lambda W, U, b: (
            "From top to bottom these are the input gate, the forget gate, the candidate, the output gate, the cell "
            "state and the hidden state; $\\sigma(a) = 1/(1 + e^{-a})$ is the logistic function and $\\odot$ "
            f"multiplies unit by unit. Each of the four blocks has weights {_dotted(W)}, {_dotted(U)} and {_dotted(b)} of "
            "its own; $h_0 = c_0 = 0$."
        ),
    ),
    "rnn": Written(
        ":",
        {
            "tanh": (
                r"s_t = \tanh(W\, s_{t-1} + U\, x_t + b)",
                "s t equals tanh of W times s t minus 1, plus U times x t, plus b",
            ),
            "relu": (
                r"s_t = \max(0,\; W\, s_{t-1} + U\, x_t + b)",
                "s t equals the greater of 0 and W times s t minus 1, plus U times x t, plus b",
            ),
        },
        lambda W, U, b: (
            f"The recurrent weights {W}, the input weights {U} and the bias {b} are the same at every step; $s_0 = 0$."
        ),
    ),
}

# What the readout reads, by the recipe's pooling: LaTeX, what is read out in its place, and in words; given the state.
POOLED: dict[str, Callable[[str], tuple[str, str, str]]] = {
    "last": lambda s: (f"{s}_T", f"{s} T", "the last hidden state"),
    "mean": lambda s: (f"\\overline{{{s}}}", f"mean of {s}", f"the mean of ${s}_t$ over all steps"),
    "max": lambda s: (
        f"\\max_t {s}_t",
        f"maximum over t of {s} t",
        f"the greatest value of each unit of ${s}_t$ over all steps",
    ),
}


def _dotted(shape: str) -> str:
    """$W ...$ -> $W_\\bullet ...$: one for each block."""
    return shape[:2] + "_\\bullet" + shape[2:]
