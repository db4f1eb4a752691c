"""Products of rows with weights: linear layers, matrix products, einsum, lookups, and torch's own cells."""

from __future__ import annotations

import math
from typing import Any

import torch

from unroll.equations.elementwise import RuleWriter
from unroll.equations.movements import gathered, reshaped, result_of, transposed
from unroll.equations.read import Reader, Value


def product(reader: Reader, v: Any, M: Any, bias: Any, turned: bool) -> Value:
    """v Mᵀ + bias; M (n, k), or (k, n) where it is `turned`."""
    row, weight = reader.value(v), reader.value(M)
    if not row.batched or weight.batched:
        raise reader.refuse(
            "a product of two tensors that both, or neither, depend on the batch; expected one with a weight"
        )
    if M.dim() == 1:
        M = M[None]
        node, turned = reshaped(reader, "reshape", weight.node, (1, M.shape[1])), False
    elif M.dim() == 2:
        node = weight.node
    else:
        raise reader.refuse(f"a product with a weight of shape {tuple(M.shape)}; expected a matrix")
    if turned:
        node = transposed(reader, node)
    k = v.shape[-1]
    if reader.node(row.node).op == "number":
        raise reader.refuse("a product of a tensor that holds one number only")
    whole = row.node
    if not reader.node(whole).row:  # a parameter, one row for all sequences
        raise reader.refuse("a product of two weights that is repeated for every sequence")
    groups = reader.node(whole).width // k
    s = RuleWriter(reader)
    products = [s.linear(reader.program.slice(whole, g * k, (g + 1) * k, reader.line), node) for g in range(groups)]
    found = reader.program.concat(products, reader.line)
    if bias is not None:
        of_bias = reader.value(bias)
        b = of_bias.node
        if of_bias.batched:
            found = s.add(found, b)
        else:
            n = reader.node(node).shape[0]
            rest = (*v.shape[1:-1], n)
            b = reshaped(reader, "expand", reshaped(reader, "reshape", b, tuple(bias.shape)), rest)
            found = s.add(found, reshaped(reader, "reshape", b, (math.prod(rest),)))
    return result_of(reader, found)


def linear(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
    return product(reader, given["input"], given["weight"], given.get("bias"), False)


def matmul(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    a, b = (*args, *kwargs.values())[:2]
    if func.__name__ == "__rmatmul__":
        a, b = b, a
    one, other = reader.value(a), reader.value(b)
    if not one.batched and not other.batched:
        raise reader.refuse(
            "a product of two weights; compute it outside of the step, or use the parameters themselves"
        )
    return product(reader, a, b, None, True)


def addmm(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    if kwargs.get("beta", 1) != 1 or kwargs.get("alpha", 1) != 1:
        raise reader.refuse("addmm with alpha or beta")
    bias, v, M = args[:3]
    return product(reader, v, M, bias, True)


def einsum(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    equation, *operands = args
    if len(operands) == 1 and isinstance(operands[0], list | tuple):
        operands = list(operands[0])
    if len(operands) != 2 or "->" not in equation or "." in equation:
        raise reader.refuse(f"einsum {equation!r}; expected two operands and an arrow")
    terms, out = equation.replace(" ", "").split("->")
    letters = terms.split(",")
    if not reader.value(operands[0]).batched:
        letters, operands = letters[::-1], operands[::-1]
    row, weight = letters
    v, M = operands
    batch = row[0]
    summed = [c for c in weight if c in row and c not in out]
    kept = [c for c in row[1:] if c not in weight]
    new = [c for c in weight if c not in row]
    shared = [c for c in weight if c in row and c in out]
    if out[:1] != batch or batch in weight or shared or not summed or len(set(row)) != len(row):
        raise reader.refuse(f"einsum {equation!r}, which is no product of rows with a weight")
    sizes = dict(zip(row, v.shape, strict=True)) | dict(zip(weight, M.shape, strict=True))
    index = torch.arange(math.prod(v.shape[1:])).reshape(v.shape[1:])
    order = [row[1:].index(c) for c in (*kept, *summed)]
    columns = gathered(reader, [reader.value(v).node], index.permute(order).flatten())
    k, n = math.prod(sizes[c] for c in summed), math.prod(sizes[c] for c in new)
    node = reader.value(M).node
    axes = [weight.index(c) for c in (*new, *summed)]
    if axes != list(range(len(axes))):
        if len(axes) != 2:
            raise reader.refuse(f"einsum {equation!r} with a weight of {len(axes)} axes in another order")
        node = transposed(reader, node)
    node = reshaped(reader, "reshape", node, (n, k))
    s = RuleWriter(reader)
    groups = math.prod(sizes[c] for c in kept)
    products = [s.linear(reader.program.slice(columns, g * k, (g + 1) * k, reader.line), node) for g in range(groups)]
    found = reader.program.concat(products, reader.line)
    have, want = [*kept, *new], list(out[1:])
    back = torch.arange(groups * n).reshape([sizes[c] for c in have]).permute([have.index(c) for c in want])
    return result_of(reader, gathered(reader, [found], back.flatten()))


def embedding(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    words, M = args[:2] if len(args) > 1 else (args[0], kwargs["weight"])
    w = reader.value(words)
    if reader.node(w.node).op != "input":
        raise reader.refuse("embedding of what is not the step's input")
    return result_of(reader, reader.program.add("lookup", w.node, reader.value(M).node, line=reader.line))


def torch_cell(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """torch.nn.RNNCell, LSTMCell and GRUCell; the equations are in their documentation."""
    x, state, W_ih, W_hh, *biases = args
    b_ih, b_hh = (*biases, None, None)[:2]
    s = RuleWriter(reader)
    h = state[0] if isinstance(state, tuple | list) else state
    ih, hh = (product(reader, v, W, b, False).node for v, W, b in ((x, W_ih, b_ih), (h, W_hh, b_hh)))
    H, old, part, name = h.shape[1], reader.value(h).node, reader.program.slice, reader.program.label
    if func.__name__ == "gru_cell":
        r, z = (s.sigmoid(s.add(part(ih, k * H, (k + 1) * H), part(hh, k * H, (k + 1) * H))) for k in (0, 1))
        n = s.tanh(s.add(part(ih, 2 * H, 3 * H), s.mul(name(r, "r"), part(hh, 2 * H, 3 * H))))
        z, n = name(z, "z"), name(n, "n")
        return result_of(reader, s.add(s.mul(s.sub(1.0, z), n), s.mul(z, old)))
    a = s.add(ih, hh)
    if func.__name__ == "lstm_cell":
        gates = zip("ifgo", (s.sigmoid, s.sigmoid, s.tanh, s.sigmoid), range(4), strict=True)
        i, f, g, o = (name(function(part(a, k * H, (k + 1) * H)), letter) for letter, function, k in gates)
        c = s.add(s.mul(f, reader.value(state[1]).node), s.mul(i, g))
        return [result_of(reader, s.mul(o, s.tanh(c))), result_of(reader, c)]
    return result_of(reader, s.tanh(a) if "tanh" in func.__name__ else s.relu(a))
