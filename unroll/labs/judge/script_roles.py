"""Which of a script's tensors is which of the lab's parameters: by name, by shape, and by what the loss comes to."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

ROLES = ("W", "U", "b", "W_out", "b_out")
_NAMES = {
    "W": "W Whh W_hh Wh W_h W_s Ws W_ss Wss W_rec Wrec W_r W_hidden W_state recurrent_weight w_hh",
    "U": "U Uh U_h Wxh W_xh Wx W_x Wih W_ih W_in Win U_in W_xs W_input input_weight w_ih",
    "b": "b bh b_h b_s bs bias b_hidden b_hh b_ih b_rnn b_state bias_h hidden_bias",
    "W_out": "W_out Wout Why W_hy Wy W_y W_o Wo V V_out W_output W_sy W_fc w_out weight_out out_weight",
    "b_out": "b_out bout by b_y bo b_o b_output b_fc bias_out out_bias",
}
_ROLES = {name: role for role, names in _NAMES.items() for name in names.split()}


def role_by_name(name: str) -> str | None:
    """The parameter that a name stands for; ``params['W']`` and ``self.W`` are names of W as well. None: no known name.

    >>> role_by_name("W"), role_by_name("params['b_out']"), role_by_name("net.Why"), role_by_name("x")
    ('W', 'b_out', 'W_out', None)
    """
    parts = re.findall(r"[A-Za-z_]\w*", name)
    return _ROLES.get(parts[-1]) if parts else None


@dataclass(frozen=True)
class Piece:
    """One tensor as a parameter.

    Attributes:
        name: in the script.
        role: one of `ROLES`; ``WU`` or ``UW`` for both side by side, ``s_0`` for a first state that is learned.
        turned: it is used transposed, as in ``x @ U`` with rows.
    """

    name: str
    role: str
    turned: bool


Reading = tuple[Piece, ...]


def readings(shapes: dict[str, tuple[int, ...]], n: int, m: int, zeros: set[str]) -> list[Reading]:
    """The ways in which tensors of these shapes can be the lab's parameters, the likeliest by their names first.

    Args:
        shapes: by name, of the tensors that the loss is computed from.
        n, m: units and words.
        zeros: names of those that hold nothing but zeros, which may be a first state.
    """
    options = [
        [Piece(name, role, turned) for role, turned in _fits(shape, n, m, name in zeros)]
        for name, shape in shapes.items()
    ]
    if any(not one for one in options):
        return []
    found = []
    for reading in itertools.islice(itertools.product(*options), 20000):
        roles = [piece.role for piece in reading]
        both = roles.count("WU") + roles.count("UW")
        if roles.count("W") + both > 1 or roles.count("U") + both > 1 or both > 1:
            continue
        if any(roles.count(role) > 1 for role in ("W_out", "b_out", "s_0")) or roles.count("b") > 2:
            continue
        found.append(reading)
    return sorted(found, key=_unlikely)


def _fits(shape: tuple[int, ...], n: int, m: int, zero: bool) -> Iterator[tuple[str, bool]]:
    if len(shape) == 2:
        high, wide = shape
        if (high, wide) == (n, m):
            yield "U", False
        if (high, wide) == (m, n):
            yield "U", True
        if (high, wide) == (n, n):
            yield from (("W", False), ("W", True))
        if (high, wide) == (2, n):
            yield "W_out", False
        if (high, wide) == (n, 2):
            yield "W_out", True
        if (high, wide) == (n, n + m):
            yield from (("WU", False), ("UW", False))
        if (high, wide) == (n + m, n):
            yield from (("WU", True), ("UW", True))
    if len(shape) == 1 or (len(shape) == 2 and 1 in shape):
        size = int(np.prod(shape))
        if size == n:
            yield "b", False
            if zero:
                yield "s_0", False
        if size == 2:
            yield "b_out", False


def _unlikely(reading: Reading) -> tuple[int, int]:
    other = sum(role_by_name(p.name) not in (None, p.role) or p.role == "s_0" for p in reading)
    missing = len({*ROLES} - {letter for p in reading for letter in roles_of(p)})
    # U's shape tells rows from columns, which a square W does not: where U is turned, so are the others.
    rows = any(piece.turned and "U" in roles_of(piece) for piece in reading)
    return 2 * other + 3 * missing, sum(
        piece.turned != rows for piece in reading if piece.role not in ("b", "b_out", "s_0")
    )


def roles_of(piece: Piece) -> tuple[str, ...]:
    """The parameters that a piece holds."""
    return ("W", "U") if piece.role in ("WU", "UW") else (piece.role,)


def as_roles(reading: Reading, values: dict[str, Any], n: int, m: int) -> dict[str, Any]:
    """The lab's parameters from the script's tensors; those that the script has not are zeros.

    Args:
        values: by name, each with a first axis of P.

    Returns:
        W (P, n, n), U (P, n, m), b (P, n), W_out (P, 2, n), b_out (P, 2), s_0 (P, n).
    """
    count = len(next(iter(values.values())))
    sizes = {"W": (n, n), "U": (n, m), "b": (n,), "W_out": (2, n), "b_out": (2,), "s_0": (n,)}
    found: dict[str, Any] = {role: np.zeros((count, *size)) for role, size in sizes.items()}
    for piece in reading:
        value = np.asarray(values[piece.name], dtype=np.float64)
        if piece.turned:
            value = np.swapaxes(value, 1, 2)
        if piece.role == "WU":
            found["W"], found["U"] = value[..., :n], value[..., n:]
        elif piece.role == "UW":
            found["U"], found["W"] = value[..., :m], value[..., m:]
        else:
            found[piece.role] = found[piece.role] + value.reshape(count, *sizes[piece.role])
    return found


def from_roles(piece: Piece, grads: dict[str, Any], shape: tuple[int, ...]) -> Any:
    """The gradient of a script's tensor, in its shape, from those of the lab's parameters (without the axis P)."""
    grad = (
        np.concatenate([grads[letter] for letter in piece.role], axis=1)
        if piece.role in ("WU", "UW")
        else grads[piece.role]
    )
    return (grad.T if piece.turned else grad).reshape(shape)
