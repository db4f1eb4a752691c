"""What torch's functions are in the operations of a step program: a rule for each function, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from unroll.equations.movements import MOST_PIECES, gathered, moved, reshaped, result_of, transposed
from unroll.equations.read import Reader, Value

Rule = Callable[[Reader, Any, tuple[Any, ...], dict[str, Any]], Any]


# --- element by element -------------------------------------------------------------------------------------------------


def aligned(reader: Reader, given: Sequence[Any]) -> tuple[list[int], bool]:
    """Nodes of operands that torch broadcasts against each other, each as wide as the result, one wide, or a number."""
    values = [reader.value(one) for one in given]
    shapes = [tuple(one.shape) if isinstance(one, Tensor) else () for one in given]
    nodes = [value.node for value in values]
    batched = any(value.batched for value in values)
    if not batched:
        return nodes, False
    whole = tuple(torch.broadcast_shapes(*shapes))
    rest = whole[1:]
    found = []
    for node, value, shape in zip(nodes, values, shapes, strict=True):
        if reader.node(node).op == "number":
            found.append(node)
        elif value.batched:
            if len(shape) != len(whole):
                raise reader.refuse(f"shapes {shapes} mix the sequences of a batch")
            found.append(_widened(reader, node, shape[1:], rest))
        else:
            if len(shape) > len(rest):
                if len(shape) != len(whole) or shape[0] != 1:
                    raise reader.refuse(f"shapes {shapes} mix the sequences of a batch")
                node = reshaped(reader, "reshape", node, shape[1:])
            if math.prod(shape) == 1 and math.prod(rest) > 1:
                node = reshaped(reader, "reshape", node, (1,))
                found.append(reshaped(reader, "expand", node, (math.prod(rest),)))
                continue
            node = reshaped(reader, "expand", node, rest)
            found.append(reshaped(reader, "reshape", node, (math.prod(rest),)))
    return found, True


def _widened(reader: Reader, node: int, shape: tuple[int, ...], rest: tuple[int, ...]) -> int:
    """A row value of axes `shape` broadcast to axes `rest`; one column stays one, for it fits everywhere."""
    if shape == rest or math.prod(shape) == 1:
        return node
    return gathered(reader, [node], torch.arange(math.prod(shape)).reshape(shape).expand(rest).flatten())


class Sums:
    """Writes expressions over nodes: what the rules below are made of."""

    def __init__(self, reader: Reader) -> None:
        self.reader, self.program = reader, reader.program

    def __getattr__(self, op: str) -> Callable[..., int]:
        def add(*args: int | float) -> int:
            nodes = [self.program.number(a) if isinstance(a, float) else a for a in args]
            return self.program.add(op, *nodes, line=self.reader.line)

        return add

    def linear(self, v: int, M: int, b: int | None = None) -> int:
        product = self.program.add("linear", v, M, line=self.reader.line)
        return product if b is None else self.add(product, b)

    def mean(self, v: int, count: int) -> int:
        return self.mul(self.sum(v), 1.0 / count)


def elementwise(
    expression: Callable[..., int], operands: int | None = None, options: tuple[tuple[str, Any], ...] = ()
) -> Rule:
    """A rule for a function of tensors, element by element.

    Args:
        expression: from `Sums`, the operands' nodes and the options to the result's node.
        operands: how many arguments are tensors or numbers to be broadcast; the others are options.
        options: further arguments by name, with their usual values, in order.
    """
    count = operands if operands is not None else expression.__code__.co_argcount - 1 - len(options)

    def rule(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
        named = (
            "input",
            "other",
            "tensor1",
            "tensor2",
            "end",
            "weight",
            "mask",
            "value",
            "exponent",
            "min",
            "max",
            "self",
        )
        given, more = list(args[:count]), list(args[count:])
        chosen = {}
        for k, (name, usual) in enumerate(options):
            chosen[name] = more[k] if k < len(more) else kwargs.get(name, usual)
        given += [kwargs[name] for name in named if name in kwargs and name not in chosen][: count - len(given)]
        if len(given) != count:
            raise reader.refuse(f"{func.__name__} is called in a way that is not known")
        nodes, batched = aligned(reader, given)
        return result_of(reader, expression(Sums(reader), *nodes, *chosen.values()), batched)

    return rule


def _clamp(s: Sums, a: int, low: Any, high: Any, stops: bool = False) -> int:
    """a within bounds. At a bound itself torch's clamp has the gradient of a, and the functions that saturate have none."""
    for bound, sign in ((low, 1.0), (high, -1.0)):
        if isinstance(bound, Tensor):
            raise s.reader.refuse("clamp with tensors as bounds; use maximum and minimum")
        if bound is not None:
            edge = s.program.number(float(bound))
            beyond = s.less(a, edge) if sign > 0 else s.less(edge, a)
            a = s.where(s.maximum(beyond, s.equal(a, edge)) if stops else beyond, edge, a)
    return a


def _root(s: Sums, a: int) -> int:
    """√a with derivative 0 where a is 0, as torch has it in norm and std."""
    zero = s.equal(a, 0.0)
    return s.sub(s.sqrt(s.add(a, zero)), zero)


def _pow(s: Sums, a: int, b: int) -> int:
    exponent = s.program.value_of(b)
    if exponent is None:
        return s.exp(s.mul(b, s.log(a)))
    if exponent == 2:
        return s.mul(a, a)
    if exponent in (0.5, -0.5):
        root = s.sqrt(a)
        return root if exponent > 0 else s.div(1.0, root)
    if exponent == -1:
        return s.div(1.0, a)
    if exponent == 3:
        return s.mul(s.mul(a, a), a)
    return s.pow(a, b)


def _gelu(s: Sums, a: int, approximate: str) -> int:
    if approximate != "tanh":
        raise s.reader.refuse("gelu by the error function; expected approximate='tanh'")
    inner = s.mul(math.sqrt(2 / math.pi), s.add(a, s.mul(0.044715, s.mul(s.mul(a, a), a))))
    return s.mul(s.mul(0.5, a), s.add(1.0, s.tanh(inner)))


def _softplus(s: Sums, a: int, beta: float, threshold: float) -> int:
    if beta == 1:
        return s.softplus(a)
    return s.div(s.softplus(s.mul(float(beta), a)), float(beta))


def _div(s: Sums, a: int, b: int, rounding_mode: Any) -> int:
    if rounding_mode is not None:
        raise s.reader.refuse("div with a rounding mode")
    return s.div(a, b)


def _add(s: Sums, a: int, b: int, alpha: float) -> int:
    return s.add(a, b if alpha == 1 else s.mul(float(alpha), b))


def _sub(s: Sums, a: int, b: int, alpha: float) -> int:
    return s.sub(a, b if alpha == 1 else s.mul(float(alpha), b))


def _addc(op: str) -> Rule:
    return elementwise(
        lambda s, a, b, c, value: s.add(a, s.mul(float(value), getattr(s, op)(b, c))), 3, (("value", 1.0),)
    )


def _not(s: Sums, a: int) -> int:
    return s.sub(1.0, a)


def _leaky(s: Sums, a: int, slope: float, inplace: bool) -> int:
    return s.where(s.less(0.0, a), a, s.mul(float(slope), a))


def _elu(s: Sums, a: int, alpha: float, *_: Any) -> int:
    return s.where(s.less(0.0, a), a, s.mul(float(alpha), s.sub(s.exp(s.where(s.less(0.0, a), 0.0, a)), 1.0)))


def _hard_sigmoid(s: Sums, a: int) -> int:
    # torch's hardsigmoid itself has no rule: its derivative is 1/6 rounded to float32, which no check would pass
    return _clamp(s, s.add(s.div(a, 6.0), 0.5), 0.0, 1.0, stops=True)


# --- products -------------------------------------------------------------------------------------------------------------


def _product(reader: Reader, v: Any, M: Any, bias: Any, turned: bool) -> Value:
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
    s = Sums(reader)
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


def _linear(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
    return _product(reader, given["input"], given["weight"], given.get("bias"), False)


def _matmul(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    a, b = (*args, *kwargs.values())[:2]
    if func.__name__ == "__rmatmul__":
        a, b = b, a
    one, other = reader.value(a), reader.value(b)
    if not one.batched and not other.batched:
        raise reader.refuse(
            "a product of two weights; compute it outside of the step, or use the parameters themselves"
        )
    return _product(reader, a, b, None, True)


def _addmm(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    if kwargs.get("beta", 1) != 1 or kwargs.get("alpha", 1) != 1:
        raise reader.refuse("addmm with alpha or beta")
    bias, v, M = args[:3]
    return _product(reader, v, M, bias, True)


def _einsum(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
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
    s = Sums(reader)
    groups = math.prod(sizes[c] for c in kept)
    products = [s.linear(reader.program.slice(columns, g * k, (g + 1) * k, reader.line), node) for g in range(groups)]
    found = reader.program.concat(products, reader.line)
    have, want = [*kept, *new], list(out[1:])
    back = torch.arange(groups * n).reshape([sizes[c] for c in have]).permute([have.index(c) for c in want])
    return result_of(reader, gathered(reader, [found], back.flatten()))


def _embedding(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    words, M = args[:2] if len(args) > 1 else (args[0], kwargs["weight"])
    w = reader.value(words)
    if reader.node(w.node).op != "input":
        raise reader.refuse("embedding of what is not the step's input")
    return result_of(reader, reader.program.add("lookup", w.node, reader.value(M).node, line=reader.line))


def _same(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    value = reader.value(args[0])
    return result_of(reader, value.node, value.batched)


def _cast(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    found = func(*args, **kwargs)
    usual = args[0].dtype if isinstance(args[0], Tensor) and args[0].is_floating_point() else torch.float64
    if found.dtype not in (usual, torch.float64, torch.bool) and not (
        found.dtype == torch.float32 and func.__name__ == "float"
    ):
        raise reader.refuse(f"{func.__name__} makes {found.dtype} of it; a step computes in the parameters' type")
    return _same(reader, func, args, kwargs)


def _stopped(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    value = reader.value(args[0])
    return result_of(reader, reader.program.add("stop", value.node, line=reader.line), value.batched)


# --- reductions -------------------------------------------------------------------------------------------------------------


def _reduced(reader: Reader, given: Tensor, dims: Any) -> tuple[int, Tensor]:
    """The node that axes `dims` reduce, and its columns (numbers of the result, reduced to one)."""
    value = reader.value(given)
    if not value.batched or not reader.node(value.node).row:
        raise reader.refuse("a reduction of what does not depend on the batch")
    rank = given.dim()
    axes = () if dims is None else sorted({d % rank for d in ([dims] if isinstance(dims, int) else dims)})
    if not axes or 0 in axes:
        raise reader.refuse("reduces over the sequences of a batch; expected dim=-1")
    rest = given.shape[1:]
    kept = [d - 1 for d in range(1, rank) if d not in axes]
    count = math.prod(rest[d - 1] for d in axes)
    columns = torch.arange(math.prod(rest)).reshape(rest).permute([*kept, *(d - 1 for d in axes)]).reshape(-1, count)
    return value.node, columns


def _groups(reader: Reader, given: Tensor, dims: Any) -> tuple[list[int], int]:
    """The rows (B, k) over which axes `dims` reduce, one for each number of the result, and k."""
    node, columns = _reduced(reader, given, dims)
    if len(columns) > MOST_PIECES:
        raise reader.refuse(f"reduces over {len(columns)} groups of columns; expected at most {MOST_PIECES}")
    return [gathered(reader, [node], group) for group in columns], columns.shape[1]


def reduction(expression: Callable[[Sums, int, int, dict[str, Any]], int]) -> Rule:
    def rule(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
        dims = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
        rows, count = _groups(reader, args[0], dims)
        s = Sums(reader)
        return result_of(
            reader, reader.program.concat([expression(s, row, count, kwargs) for row in rows], reader.line)
        )

    return rule


def _sum(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    """Sum or mean; over an axis before the last, such as that of the gates, an addition of slices."""
    dims = kwargs.get("dim", kwargs.get("axis", args[1] if len(args) > 1 else None))
    node, columns = _reduced(reader, args[0], dims)
    s, (numbers, count) = Sums(reader), columns.shape
    if numbers > count:
        found, *others = (gathered(reader, [node], columns[:, k]) for k in range(count))
        for other in others:
            found = s.add(found, other)
    else:
        found = reader.program.concat([s.sum(gathered(reader, [node], group)) for group in columns], reader.line)
    return result_of(reader, found if func.__name__ == "sum" else s.mul(found, 1.0 / count))


def _deviations(s: Sums, v: int, count: int) -> int:
    return s.sub(v, s.mean(v, count))


def _variance(s: Sums, v: int, count: int, kwargs: dict[str, Any]) -> int:
    corrected = kwargs.get("correction", 1 if kwargs.get("unbiased", True) else 0)
    d = _deviations(s, v, count)
    return s.mul(s.sum(s.mul(d, d)), 1.0 / (count - corrected))


def _norm(s: Sums, v: int, count: int, kwargs: dict[str, Any]) -> int:
    if kwargs.get("p", kwargs.get("ord", 2)) not in (2, None, "fro"):
        raise s.reader.refuse("a norm that is not the Euclidean one")
    return _root(s, s.sum(s.mul(v, v)))


def _max(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if func.__name__ in ("max", "min") and (
        (len(args) > 1 and isinstance(args[1], Tensor)) or isinstance(kwargs.get("other"), Tensor)
    ):
        return elementwise(lambda s, a, b: getattr(s, func.__name__ + "imum")(a, b))(reader, func, args, kwargs)
    sign = 1.0 if func.__name__ in ("max", "amax") else -1.0
    found = reduction(lambda s, v, n, o: s.mul(sign, s.max(s.mul(sign, v))))(reader, func, args, kwargs)
    return found if func.__name__ in ("amax", "amin") else [found, None]  # the indices are no numbers to go on with


def _layer_norm(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    root = func.__name__ == "rms_norm"
    names = (
        ("input", "normalized_shape", "weight", "eps")
        if root
        else ("input", "normalized_shape", "weight", "bias", "eps")
    )
    given = dict(zip(names, args, strict=False)) | kwargs
    v, shape = given["input"], tuple(given["normalized_shape"])
    eps = given.get("eps")
    eps = (torch.finfo(torch.float64).eps if root else 1e-5) if eps is None else eps
    if given.get("eps") is None and root:
        raise reader.refuse("rms_norm without eps, whose usual value is another for each type")
    rows, count = _groups(reader, v, tuple(range(-len(shape), 0)))
    s, found = Sums(reader), []
    for row in rows:
        d = row if root else _deviations(s, row, count)
        deviation = s.sqrt(s.add(s.mean(s.mul(d, d), count), float(eps)))
        n = s.mul(d, s.div(1.0, deviation))
        for op, name in (("mul", "weight"), ("add", "bias")):
            if given.get(name) is not None:
                node = reshaped(reader, "reshape", reader.value(given[name]).node, (count,))
                n = getattr(s, op)(n, node)
        found.append(n)
    return result_of(reader, reader.program.concat(found, reader.line))


def _softmax(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Value:
    dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if not isinstance(dim, int) or dim % args[0].dim() != args[0].dim() - 1:
        raise reader.refuse(f"{func.__name__} over an axis that is not the last")
    rows, _ = _groups(reader, args[0], dim)
    s, found = Sums(reader), []
    for row in rows:
        shifted = s.sub(row, s.stop(s.max(row)))
        e = s.exp(shifted)
        found.append(s.sub(shifted, s.log(s.sum(e))) if func.__name__ == "log_softmax" else s.div(e, s.sum(e)))
    return result_of(reader, reader.program.concat(found, reader.line))


def _logsumexp(s: Sums, v: int, count: int, kwargs: dict[str, Any]) -> int:
    largest = s.stop(s.max(v))
    return s.add(s.log(s.sum(s.exp(s.sub(v, largest)))), largest)


# --- torch's cells ----------------------------------------------------------------------------------------------------------


def _torch_cell(reader: Reader, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """torch.nn.RNNCell, LSTMCell and GRUCell; the equations are in their documentation."""
    x, state, W_ih, W_hh, *biases = args
    b_ih, b_hh = (*biases, None, None)[:2]
    s = Sums(reader)
    h = state[0] if isinstance(state, tuple | list) else state
    ih, hh = (_product(reader, v, W, b, False).node for v, W, b in ((x, W_ih, b_ih), (h, W_hh, b_hh)))
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


RULES: dict[str, Rule] = {}
for _names, _expression in (
    ("sigmoid", lambda s, a: s.sigmoid(a)),
    ("tanh", lambda s, a: s.tanh(a)),
    ("exp", lambda s, a: s.exp(a)),
    ("log", lambda s, a: s.log(a)),
    ("sqrt", lambda s, a: s.sqrt(a)),
    ("abs __abs__ absolute", lambda s, a: s.abs(a)),
    ("neg __neg__ negative", lambda s, a: s.neg(a)),
    ("sign", lambda s, a: s.sign(a)),
    ("sin", lambda s, a: s.sin(a)),
    ("cos", lambda s, a: s.cos(a)),
    ("square", lambda s, a: s.mul(a, a)),
    ("rsqrt", lambda s, a: s.div(1.0, s.sqrt(a))),
    ("reciprocal", lambda s, a: s.div(1.0, a)),
    ("log1p", lambda s, a: s.log(s.add(1.0, a))),
    ("expm1", lambda s, a: s.sub(s.exp(a), 1.0)),
    ("relu6", lambda s, a: _clamp(s, a, 0.0, 6.0, stops=True)),
    ("tanhshrink", lambda s, a: s.sub(a, s.tanh(a))),
    ("softsign", lambda s, a: s.div(a, s.add(1.0, s.abs(a)))),
    ("logsigmoid log_sigmoid", lambda s, a: s.neg(s.softplus(s.neg(a)))),
    ("logical_not __invert__ bitwise_not", _not),
    ("mul __mul__ __rmul__ multiply", lambda s, a, b: s.mul(a, b)),
    ("rsub __rsub__", lambda s, a, b: s.sub(b, a)),
    ("__add__ __radd__", lambda s, a, b: s.add(a, b)),
    ("__sub__", lambda s, a, b: s.sub(a, b)),
    ("__truediv__ __div__", lambda s, a, b: s.div(a, b)),
    ("__rtruediv__ __rdiv__", lambda s, a, b: s.div(b, a)),
    ("pow __pow__ float_power", _pow),
    ("__rpow__", lambda s, a, b: _pow(s, b, a)),
    ("maximum fmax", lambda s, a, b: s.maximum(a, b)),
    ("minimum fmin", lambda s, a, b: s.minimum(a, b)),
    ("lt __lt__ less", lambda s, a, b: s.less(a, b)),
    ("gt __gt__ greater", lambda s, a, b: s.less(b, a)),
    ("le __le__ less_equal", lambda s, a, b: _not(s, s.less(b, a))),
    ("ge __ge__ greater_equal", lambda s, a, b: _not(s, s.less(a, b))),
    ("eq __eq__", lambda s, a, b: s.equal(a, b)),
    ("ne __ne__ not_equal", lambda s, a, b: _not(s, s.equal(a, b))),
    ("logical_and __and__", lambda s, a, b: s.mul(a, b)),
    ("logical_or __or__", lambda s, a, b: s.maximum(a, b)),
    ("masked_fill", lambda s, a, mask, value: s.where(mask, value, a)),
    ("lerp", lambda s, a, b, w: s.add(a, s.mul(w, s.sub(b, a)))),
):
    for _name in _names.split():
        RULES[_name] = elementwise(_expression)
RULES |= {
    "relu": elementwise(lambda s, a, inplace: s.relu(a), options=(("inplace", False),)),
    "silu": elementwise(lambda s, a, inplace: s.mul(a, s.sigmoid(a)), options=(("inplace", False),)),
    "mish": elementwise(lambda s, a, inplace: s.mul(a, s.tanh(s.softplus(a))), options=(("inplace", False),)),
    "hardswish": elementwise(lambda s, a, inplace: s.mul(a, _hard_sigmoid(s, a)), options=(("inplace", False),)),
    "hardtanh": elementwise(
        lambda s, a, low, high, inplace: _clamp(s, a, low, high, stops=True),
        1,
        (("min_val", -1.0), ("max_val", 1.0), ("inplace", False)),
    ),
    "leaky_relu": elementwise(_leaky, 1, (("negative_slope", 0.01), ("inplace", False))),
    "elu": elementwise(_elu, 1, (("alpha", 1.0), ("inplace", False))),
    "gelu": elementwise(_gelu, 1, (("approximate", "none"),)),
    "softplus": elementwise(_softplus, 1, (("beta", 1), ("threshold", 20))),
    "add": elementwise(_add, 2, (("alpha", 1),)),
    "sub": elementwise(_sub, 2, (("alpha", 1),)),
    "subtract": elementwise(_sub, 2, (("alpha", 1),)),
    "div": elementwise(_div, 2, (("rounding_mode", None),)),
    "divide": elementwise(_div, 2, (("rounding_mode", None),)),
    "true_divide": elementwise(_div, 2, (("rounding_mode", None),)),
    "clamp": elementwise(_clamp, 1, (("min", None), ("max", None))),
    "clip": elementwise(_clamp, 1, (("min", None), ("max", None))),
    "clamp_min": elementwise(lambda s, a, low: _clamp(s, a, low, None), 1, (("min", None),)),
    "clamp_max": elementwise(lambda s, a, high: _clamp(s, a, None, high), 1, (("max", None),)),
    "addcmul": _addc("mul"),
    "addcdiv": _addc("div"),
    "where": elementwise(lambda s, m, a, b: s.where(m, a, b)),
    "linear": _linear,
    "addmm": _addmm,
    "einsum": _einsum,
    "embedding": _embedding,
    "sum": _sum,
    "mean": _sum,
    "var": reduction(_variance),
    "std": reduction(lambda s, v, n, o: _root(s, _variance(s, v, n, o))),
    "norm": reduction(_norm),
    "vector_norm": reduction(_norm),
    "linalg_vector_norm": reduction(_norm),
    "logsumexp": reduction(_logsumexp),
    "detach": _stopped,
    "data": _stopped,
    "layer_norm": _layer_norm,
    "rms_norm": _layer_norm,
}
RULES |= dict.fromkeys(("matmul", "mm", "__matmul__", "__rmatmul__"), _matmul)
RULES |= dict.fromkeys(("max", "min", "amax", "amin"), _max)
RULES |= dict.fromkeys(("softmax", "log_softmax"), _softmax)
RULES |= dict.fromkeys(("rnn_tanh_cell", "rnn_relu_cell", "lstm_cell", "gru_cell"), _torch_cell)
RULES |= dict.fromkeys(("to", "type", "type_as", "float", "double", "bool"), _cast)
RULES |= dict.fromkeys(("contiguous", "clone", "dropout", "alias", "positive", "__pos__"), _same)
RULES |= dict.fromkeys(
    [
        "view",
        "reshape",
        "view_as",
        "reshape_as",
        "chunk",
        "unsafe_chunk",
        "split",
        "unsafe_split",
        "split_with_sizes",
        "tensor_split",
        "hsplit",
        "unbind",
        "select",
        "narrow",
        "__getitem__",
        "transpose",
        "permute",
        "movedim",
        "moveaxis",
        "swapaxes",
        "swapdims",
        "T",
        "mT",
        "t",
        "flatten",
        "ravel",
        "unflatten",
        "squeeze",
        "unsqueeze",
        "expand",
        "expand_as",
        "repeat",
        "tile",
        "repeat_interleave",
        "broadcast_to",
        "roll",
        "flip",
        "index_select",
        "cat",
        "concat",
        "concatenate",
        "hstack",
        "stack",
        "column_stack",
    ],
    moved,
)
