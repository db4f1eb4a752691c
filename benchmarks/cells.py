"""Cells of one's own on the kernels' interpreter, against torch.nn.GRU, the loop under autograd, torch.compile of
it, and jax.lax.scan where JAX is installed.

A step is a forward pass and a backward pass of all outputs, T = 28 and D = 28, float32, with and without the gradient of the
input. The baselines of a row are interleaved in one process with the same number of threads; a ratio is the median over the
rounds of (baseline's time) / (our time). The last rows measure the interpreter's overhead: our LSTM as a program against its
own kernel, and the time of the first call, reading and checking included.

Usage: python benchmarks/cells.py [--quick] [--compile] [--threads N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

try:
    import jax_cells
except ImportError:
    jax_cells = None  # type: ignore[assignment]
import torch
from engine import race, ratio
from torch import Tensor, nn

from unroll.cells import GRUCell, LSTMCell
from unroll.cells.base import Cell, as_cell
from unroll.engines import native, reference
from unroll.engines.native import programs

T = D = 28
SHAPES = [(64, 128), (128, 64), (32, 256)]


class LayerNormLSTM(nn.Module):
    """Ba, Kiros & Hinton: Layer normalization. 2016, supplement, eqs. 20-22."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = D, H
        self.W, self.U = nn.Linear(H, 4 * H, bias=False), nn.Linear(D, 4 * H)
        self.of_h, self.of_x, self.of_c = nn.LayerNorm(4 * H), nn.LayerNorm(4 * H), nn.LayerNorm(H)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = (self.of_h(self.W(h)) + self.of_x(self.U(x))).chunk(4, -1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(self.of_c(c)), c


class Peephole(nn.Module):
    """Gers & Schmidhuber: Recurrent nets that time and count. 2000."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = D, H
        self.gates = nn.Linear(D + H, 4 * H)
        self.p_i, self.p_f, self.p_o = (nn.Parameter(torch.randn(H) / H**0.5) for _ in range(3))

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, g, o = self.gates(torch.cat([x, h], 1)).chunk(4, 1)
        i, f = torch.sigmoid(i + self.p_i * c), torch.sigmoid(f + self.p_f * c)
        c = f * c + i * torch.tanh(g)
        return torch.sigmoid(o + self.p_o * c) * torch.tanh(c), c


class Coupled(nn.Module):
    """Greff et al.: LSTM: a search space odyssey. 2017, variant CIFG: f = 1 - i."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = D, H
        self.gates = nn.Linear(D + H, 3 * H)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, g, o = self.gates(torch.cat([x, h], 1)).chunk(3, 1)
        i = torch.sigmoid(i)
        c = (1 - i) * c + i * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class OneGate(nn.Module):
    """The cell of docs/own-cell.md."""

    def __init__(self, D: int, H: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = D, H
        self.gate, self.candidate = nn.Linear(D + H, H), nn.Linear(D + H, H)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        xh = torch.cat([x, h], dim=1)
        z = torch.sigmoid(self.gate(xh))
        n = torch.tanh(self.candidate(xh))
        return (1 - z) * h + z * n


KINDS = (LayerNormLSTM, Peephole, Coupled, OneGate)


def step(engine: Any, cell: Cell, x: Tensor) -> Callable[[], None]:
    """A forward and a backward pass of all outputs."""

    def run() -> None:
        outputs, _ = engine.scan(cell, x, cell.initial_state(x.shape[1]))
        outputs.sum().backward()

    return run


def torchs(layer: nn.Module, x: Tensor) -> Callable[[], None]:
    def run() -> None:
        layer(x)[0].sum().backward()

    return run


def compiled(cell: Cell, x: Tensor) -> tuple[Callable[[], None], float]:
    """The loop through torch.compile, and the seconds of its first call."""

    def loop(x: Tensor) -> Tensor:
        state, outputs = cell.initial_state(x.shape[1]), []
        for t in range(len(x)):
            state = cell(x[t], state)
            outputs.append(state[0] if isinstance(state, tuple) else state)
        return torch.stack(outputs)

    torch.compiler.reset()  # or it would count all cells as one function, and give up after eight
    fast = torch.compile(loop)

    def run() -> None:
        fast(x).sum().backward()

    began = time.perf_counter()
    run()
    return run, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one second per row instead of five")
    parser.add_argument("--compile", action="store_true", help="torch.compile too; about half a minute per row")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    seconds = 1.0 if given.quick else 5.0

    def report(name: str, B: int, H: int, times: dict[str, list[float]], **more: Any) -> None:
        row = {"row": name, "B": B, "H": H, "threads": given.threads, **more}
        row |= {f"{key} ms": round(statistics.median(value), 3) for key, value in times.items()}
        row |= {f"{key} / unroll": round(ratio(times, key), 2) for key in times if key != "unroll"}
        print(json.dumps(row), flush=True)

    for B, H in SHAPES:
        for wanted in (False, True):
            torch.manual_seed(0)
            x = torch.randn(T, B, D).requires_grad_(wanted)
            plain = LSTMCell(D, H)
            report(
                "GRU",
                B,
                H,
                race({"unroll": step(native, GRUCell(D, H), x), "torch.nn.GRU": torchs(nn.GRU(D, H), x)}, seconds),
                d_x=wanted,
            )
            for kind in KINDS:
                cell = as_cell(kind(D, H))
                baselines = {
                    "unroll": step(native, cell, x),
                    "loop": step(reference, cell, x),
                    "our LSTM": step(native, plain, x),
                }
                more: dict[str, Any] = {"d_x": wanted}
                if jax_cells is not None:
                    baselines["jax"], difference = jax_cells.step(cell.module, x, H)
                    assert difference < 1e-3, f"JAX's {kind.__name__} computes something else"
                if given.compile and not wanted:
                    baselines["torch.compile"], more["compile s"] = compiled(cell, x)
                report(kind.__name__, B, H, race(baselines, seconds), **more)
            report(
                "LSTM as a program",
                B,
                H,
                race({"unroll": step(programs, plain, x), "its own kernel": step(native, plain, x)}, seconds),
                d_x=wanted,
            )
    for kind in KINDS:
        x, times = torch.randn(T, 64, D), []
        for _ in range(5):
            cell = as_cell(kind(D, 128))
            began = time.perf_counter()
            step(native, cell, x)()
            times.append(time.perf_counter() - began)
        print(
            json.dumps({"row": "first call", "cell": kind.__name__, "seconds": [round(t, 4) for t in times]}),
            flush=True,
        )


if __name__ == "__main__":
    main()
