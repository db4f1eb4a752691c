"""The cells of cells.py in JAX: a step each, scanned by jax.lax.scan, differentiated and compiled by XLA.

Imported where JAX is installed (``pip install jax``). XLA takes the threads that it finds, whatever torch was told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from torch import Tensor, nn

from unroll.cells.base import parts

Weights = dict[str, Any]


def _norm(v: Any, w: Weights, name: str) -> Any:
    mean = v.mean(-1, keepdims=True)
    deviation = jnp.sqrt(((v - mean) ** 2).mean(-1, keepdims=True) + 1e-5)
    return (v - mean) / deviation * w[f"{name}.weight"] + w[f"{name}.bias"]


def layer_norm_lstm(w: Weights, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
    a = _norm(h @ w["W.weight"].T, w, "of_h") + _norm(x @ w["U.weight"].T + w["U.bias"], w, "of_x")
    i, f, g, o = jnp.split(a, 4, -1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(_norm(c, w, "of_c")), c


def peephole(w: Weights, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
    i, f, g, o = jnp.split(jnp.concatenate([x, h], 1) @ w["gates.weight"].T + w["gates.bias"], 4, -1)
    i, f = jax.nn.sigmoid(i + w["p_i"] * c), jax.nn.sigmoid(f + w["p_f"] * c)
    c = f * c + i * jnp.tanh(g)
    return jax.nn.sigmoid(o + w["p_o"] * c) * jnp.tanh(c), c


def coupled(w: Weights, x: Any, h: Any, c: Any) -> tuple[Any, Any]:
    i, g, o = jnp.split(jnp.concatenate([x, h], 1) @ w["gates.weight"].T + w["gates.bias"], 3, -1)
    i = jax.nn.sigmoid(i)
    c = (1 - i) * c + i * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def one_gate(w: Weights, x: Any, h: Any) -> tuple[Any]:
    xh = jnp.concatenate([x, h], 1)
    z = jax.nn.sigmoid(xh @ w["gate.weight"].T + w["gate.bias"])
    n = jnp.tanh(xh @ w["candidate.weight"].T + w["candidate.bias"])
    return ((1 - z) * h + z * n,)


STEPS: dict[str, Callable[..., tuple[Any, ...]]] = {
    "LayerNormLSTM": layer_norm_lstm,
    "Peephole": peephole,
    "Coupled": coupled,
    "OneGate": one_gate,
}


def step(module: nn.Module, x: Tensor, hidden_size: int) -> tuple[Callable[[], None], float]:
    """A forward and a backward pass of all outputs on copies of a module's weights, and how far its outputs are off.

    The gradient of x is taken where x wants one, as torch's is.
    """
    cell = STEPS[type(module).__name__]
    weights = {name: jnp.asarray(p.detach().numpy()) for name, p in module.named_parameters()}
    inputs = jnp.asarray(x.detach().numpy())
    states = 1 if type(module).__name__ == "OneGate" else 2
    begin = (jnp.zeros((x.shape[1], hidden_size)),) * states

    def outputs(w: Weights, x: Any) -> Any:
        def one(state: Any, now: Any) -> tuple[Any, Any]:
            state = cell(w, now, *state)
            return state, state[0]

        return jax.lax.scan(one, begin, x)[1]

    def loss(w: Weights, x: Any) -> Any:
        return outputs(w, x).sum()

    gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1) if x.requires_grad else 0))
    state = (x.new_zeros(x.shape[1], hidden_size),) * states
    expected = 0.0
    for now in x.detach():
        state = parts(module(now, *state))
        expected += float(state[0].detach().sum())
    difference = abs(float(gradients(weights, inputs)[0]) - expected) / max(1.0, abs(expected))
    return lambda: jax.block_until_ready(gradients(weights, inputs)), difference
