"""What torch's functions are in the operations of a step program: a rule for each function, by name."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from unroll.equations.elementwise import Rule, RuleWriter, elementwise
from unroll.equations.movements import moved, result_of
from unroll.equations.products import addmm, einsum, embedding, linear, matmul, torch_cell
from unroll.equations.read import Reader, Value
from unroll.equations.reductions import (
    largest_or_smallest,
    layer_norm,
    logsumexp,
    norm,
    reduction,
    root,
    softmax,
    sum_or_mean,
    variance,
)

# --- element by element -------------------------------------------------------------------------------------------------


def _clamp(s: RuleWriter, a: int, low: Any, high: Any, stops: bool = False) -> int:
    """a within bounds. At a bound itself torch's clamp has the gradient of a, and the functions that saturate have none."""
    for bound, sign in ((low, 1.0), (high, -1.0)):
        if isinstance(bound, Tensor):
            raise s.reader.refuse("clamp with tensors as bounds; use maximum and minimum")
        if bound is not None:
            edge = s.program.number(float(bound))
            beyond = s.less(a, edge) if sign > 0 else s.less(edge, a)
            a = s.where(s.maximum(beyond, s.equal(a, edge)) if stops else beyond, edge, a)
    return a


def _pow(s: RuleWriter, a: int, b: int) -> int:
    exponent = s.program.value_of(b)
    if exponent is None:
        zero = s.mul(s.equal(a, 0.0), s.less(0.0, b))  # where log a has no gradient
        return s.where(zero, 0.0, s.exp(s.mul(b, s.log(s.where(zero, 1.0, a)))))
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


def _gelu(s: RuleWriter, a: int, approximate: str) -> int:
    if approximate == "none":
        return s.mul(s.mul(0.5, a), s.add(1.0, s.erf(s.div(a, math.sqrt(2)))))
    inner = s.mul(math.sqrt(2 / math.pi), s.add(a, s.mul(0.044715, s.mul(s.mul(a, a), a))))
    return s.mul(s.mul(0.5, a), s.add(1.0, s.tanh(inner)))


def _softplus(s: RuleWriter, a: int, beta: float, threshold: float) -> int:
    if beta == 1:
        return s.softplus(a)
    return s.div(s.softplus(s.mul(float(beta), a)), float(beta))


def _div(s: RuleWriter, a: int, b: int, rounding_mode: Any) -> int:
    if rounding_mode is not None:
        raise s.reader.refuse("div with a rounding mode")
    return s.div(a, b)


def _add(s: RuleWriter, a: int, b: int, alpha: float) -> int:
    return s.add(a, b if alpha == 1 else s.mul(float(alpha), b))


def _sub(s: RuleWriter, a: int, b: int, alpha: float) -> int:
    return s.sub(a, b if alpha == 1 else s.mul(float(alpha), b))


def _addc(op: str) -> Rule:
    return elementwise(
        lambda s, a, b, c, value: s.add(a, s.mul(float(value), getattr(s, op)(b, c))), 3, (("value", 1.0),)
    )


def _not(s: RuleWriter, a: int) -> int:
    return s.sub(1.0, a)


def _leaky(s: RuleWriter, a: int, slope: float, inplace: bool) -> int:
    return s.where(s.less(0.0, a), a, s.mul(float(slope), a))


def _elu(s: RuleWriter, a: int, alpha: float, *_: Any) -> int:
    return s.where(s.less(0.0, a), a, s.mul(float(alpha), s.expm1(s.where(s.less(0.0, a), 0.0, a))))


def _hard_sigmoid(s: RuleWriter, a: int) -> int:
    # torch's hardsigmoid itself has no rule: its derivative is 1/6 rounded to float32, which no check would pass
    return _clamp(s, s.add(s.div(a, 6.0), 0.5), 0.0, 1.0, stops=True)


# --- the same numbers -----------------------------------------------------------------------------------------------------


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
    ("log1p", lambda s, a: s.log1p(a)),
    ("expm1", lambda s, a: s.expm1(a)),
    ("erf", lambda s, a: s.erf(a)),
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
    "linear": linear,
    "addmm": addmm,
    "einsum": einsum,
    "embedding": embedding,
    "sum": sum_or_mean,
    "mean": sum_or_mean,
    "var": reduction(variance),
    "std": reduction(lambda s, v, n, o: root(s, variance(s, v, n, o))),
    "norm": reduction(norm),
    "vector_norm": reduction(norm),
    "linalg_vector_norm": reduction(norm),
    "logsumexp": reduction(logsumexp),
    "detach": _stopped,
    "data": _stopped,
    "layer_norm": layer_norm,
    "rms_norm": layer_norm,
}
RULES |= dict.fromkeys(("matmul", "mm", "__matmul__", "__rmatmul__"), matmul)
RULES |= dict.fromkeys(("max", "min", "amax", "amin"), largest_or_smallest)
RULES |= dict.fromkeys(("softmax", "log_softmax"), softmax)
RULES |= dict.fromkeys(("rnn_tanh_cell", "rnn_relu_cell", "lstm_cell", "gru_cell"), torch_cell)
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
