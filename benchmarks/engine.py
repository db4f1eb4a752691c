"""The native engine against its rivals: `torch.nn.LSTM` and `torch.nn.RNN`, the lab's cell, JAX, ONNX Runtime, torch.compile.

A step is a forward pass and a backward pass from the last hidden state, as a classifier has them; T = 28 and D = 28 unless it
says otherwise, float32. The rivals of a row take turns in one process with the same number of threads, and a ratio is
the median over the rounds of (rival's time) / (our time); the milliseconds are medians too. Memory is measured in
processes of their own. JAX, equinox and ONNX Runtime take part where they are installed. The group `share` says how much of
a whole training step the kernels take. A second table, the group `steps`, follows one layer over longer and longer
sequences: time and memory of a time step should stay what they are.

Usage: python benchmarks/engine.py [--quick] [--only NAME ...]
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch._inductor.config
from torch import Tensor, nn

from unroll.cells import LSTMCell
from unroll.data.batches import batches
from unroll.engines import native
from unroll.engines.native import eager
from unroll.layers import LSTM, RNN
from unroll.training.callbacks import Average
from unroll.training.fit import Settings, Training
from unroll.training.recipe import load_recipe
from unroll.training.tasks import first_model
from unroll.training.train import prepare

SHAPES = [(64, 128), (128, 128), (128, 64), (128, 32), (256, 256)]
T = D = 28
Row = dict[str, Any]


# --- timing -----------------------------------------------------------------------------------------------------------


def race(rivals: dict[str, Callable[[], object]], seconds: float, least: int = 5) -> dict[str, list[float]]:
    """Milliseconds a call, of every rival, in rounds in which they take turns, for about so many seconds.

    A turn is as many calls as fit into 20 ms, for in a training loop a step follows a step of the same engine.
    """
    calls = {}
    for name, run in rivals.items():
        run()
        began = time.perf_counter()
        run()
        calls[name] = max(1, round(0.02 / (time.perf_counter() - began)))
    times: dict[str, list[float]] = {name: [] for name in rivals}
    gc.collect()
    gc.disable()
    end = time.perf_counter() + seconds
    while len(times[next(iter(rivals))]) < least or time.perf_counter() < end:
        for name, run in rivals.items():
            began = time.perf_counter()
            for _ in range(calls[name]):
                run()
            times[name].append(1000 * (time.perf_counter() - began) / calls[name])
    gc.enable()
    return times


def ratio(times: dict[str, list[float]], rival: str, ours: str = "unroll") -> float:
    return statistics.median(b / a for a, b in zip(times[ours], times[rival], strict=True))


def peak(threads: int) -> float:
    """float32 operations a second, by multiply-adds that touch no memory."""
    best = 0.0
    native.multiply_add(10_000, threads)
    for _ in range(7):
        began = time.perf_counter()
        done = native.multiply_add(300_000, threads)
        best = max(best, done / (time.perf_counter() - began))
    return best


def operations(gates: int, B: int, H: int, T: int = T, D: int = D) -> int:
    """Multiplications and additions in the matrix products of a step; the last step sends nothing back to a later one."""
    forward = 2 * T * B * gates * H * (H + D)
    return 2 * forward + 2 * (T - 1) * B * gates * H * H


def step(layer: nn.Module, x: Tensor, **options: Any) -> Callable[[], None]:
    """Forward and backward of a layer, from its last hidden state."""
    H = layer.hidden_size
    weight = torch.randn(1, x.shape[1], H)
    parameters = list(layer.parameters())

    def run() -> None:
        for parameter in parameters:
            parameter.grad = None
        _, last = layer(x, **options)
        (last[0] if isinstance(last, tuple) else last).backward(weight)

    return run


# --- the rivals -------------------------------------------------------------------------------------------------------


class LabCell(nn.Module):
    """The LSTM as the lab sheet has it written: four linear layers over [x_t, h_{t-1}], a Python loop over time."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.forget, self.input, self.candidate, self.output = (
            nn.Linear(input_size + hidden_size, hidden_size) for _ in range(4)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = c = x.new_zeros(x.shape[1], self.hidden_size)
        outputs = []
        for x_t in x:
            both = torch.cat((x_t, h), dim=1)
            f, i, o = (
                torch.sigmoid(self.forget(both)),
                torch.sigmoid(self.input(both)),
                torch.sigmoid(self.output(both)),
            )
            c = f * c + i * torch.tanh(self.candidate(both))
            h = o * torch.tanh(c)
            outputs.append(h)
        return torch.stack(outputs), h[None]


class CellLoop(nn.Module):
    """Our own cell in a Python loop, for torch.compile."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.cell, self.hidden_size = LSTMCell(input_size, hidden_size), hidden_size

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = c = x.new_zeros(x.shape[1], self.hidden_size)
        outputs = []
        for x_t in x:
            h, c = self.cell(x_t, (h, c))
            outputs.append(h)
        return torch.stack(outputs), h[None]


class Packed(nn.Module):
    """`torch.nn.LSTM` over a packed batch, packing included, as people with ragged batches write it."""

    def __init__(self, layer: nn.LSTM) -> None:
        super().__init__()
        self.layer, self.hidden_size = layer, layer.hidden_size

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        out, (h, _) = self.layer(packed)
        return nn.utils.rnn.pad_packed_sequence(out)[0], h


def jax_step(B: int, H: int) -> Callable[[], object]:
    import equinox
    import jax
    import jax.numpy as jnp

    cell = equinox.nn.LSTMCell(D, H, key=jax.random.key(0))
    x = jax.random.normal(jax.random.key(1), (T, B, D))
    weight = jax.random.normal(jax.random.key(2), (B, H))

    def loss(cell: Any, x: Any) -> Any:
        def walk(state: Any, x_t: Any) -> tuple[Any, None]:
            return jax.vmap(cell)(x_t, state), None

        state, _ = jax.lax.scan(walk, (jnp.zeros((B, H)), jnp.zeros((B, H))), x)
        return (state[0] * weight).sum()

    gradient = equinox.filter_jit(equinox.filter_value_and_grad(loss))
    return lambda: jax.block_until_ready(gradient(cell, x))


def onnx_forward(layer: nn.LSTM, B: int) -> Callable[[Any], object]:
    """ONNX's LSTM operator with the layer's weights, on ONNX Runtime."""
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    H = layer.hidden_size

    def reorder(weight: Tensor) -> Any:  # ONNX's gates stand in the order i, o, f, c
        i, f, g, o = weight.detach().numpy().reshape(4, H, -1)
        return np.concatenate([i, o, f, g])

    weights = {
        "W": reorder(layer.weight_ih_l0)[None],
        "R": reorder(layer.weight_hh_l0)[None],
        "B": np.concatenate([reorder(layer.bias_ih_l0), reorder(layer.bias_hh_l0)]).reshape(1, -1),
    }
    node = helper.make_node("LSTM", ["x", "W", "R", "B"], ["y", "h"], hidden_size=H)
    graph = helper.make_graph(
        [node],
        "lstm",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [T, B, D])],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [T, 1, B, H]),
            helper.make_tensor_value_info("h", TensorProto.FLOAT, [1, B, H]),
        ],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would spin through our turn
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x.numpy()})


def installed(*names: str) -> bool:
    return all(importlib.util.find_spec(name) for name in names)


# --- the rows ---------------------------------------------------------------------------------------------------------


def row(name: str, times: dict[str, list[float]], rival: str, **more: Any) -> Row:
    return {
        "row": name,
        "ours_ms": statistics.median(times["unroll"]),
        "rival": rival,
        "rival_ms": statistics.median(times[rival]),
        "ratio": ratio(times, rival),
        **more,
    }


def against_torch(seconds: float, ours: type[nn.Module], theirs: type[nn.Module], threads: int) -> Iterable[Row]:
    torch.set_num_threads(threads)
    name = theirs.__name__
    gates = 4 if theirs is nn.LSTM else 1
    for B, H in SHAPES:
        x = torch.randn(T, B, D)
        layer = theirs(D, H)
        times = race({"unroll": step(ours.from_torch(layer), x), f"torch.nn.{name}": step(layer, x)}, seconds)
        best = peak(threads)
        share = operations(gates, B, H) / best / (statistics.median(times["unroll"]) / 1000)
        yield row(
            f"{name}, B={B} H={H}, {threads} thread{'s' * (threads > 1)}",
            times,
            f"torch.nn.{name}",
            share_of_peak=share,
            peak_gflops=best / 1e9,
        )


def ragged(seconds: float) -> Iterable[Row]:
    for B, H in [(64, 128), (128, 128)]:
        x = torch.randn(T, B, D)
        lengths = torch.randint(1, T + 1, (B,), generator=torch.Generator().manual_seed(0))
        layer = nn.LSTM(D, H)
        rivals = {
            "unroll": step(LSTM.from_torch(layer), x, lengths=lengths),
            "torch.nn.LSTM, packed": step(Packed(layer), x, lengths=lengths),
        }
        times = race(rivals, seconds)
        yield row(f"LSTM, lengths uniform in 1..T, B={B} H={H}", times, "torch.nn.LSTM, packed")


def lab(seconds: float) -> Iterable[Row]:
    x = torch.randn(T, 64, D)
    times = race({"unroll": step(LSTM(D, 128), x), "the lab's cell": step(LabCell(D, 128), x)}, seconds)
    yield row("LSTM, B=64 H=128", times, "the lab's cell")
    if installed("jax", "equinox"):
        for B, H in [(64, 128), (128, 32)]:
            x = torch.randn(T, B, D)
            times = race({"unroll": step(LSTM(D, H), x), "JAX, equinox cell": jax_step(B, H)}, seconds)
            yield row(f"LSTM, B={B} H={H} (JAX takes threads as it likes)", times, "JAX, equinox cell")
    else:
        yield {"row": "LSTM, B=64 H=128", "rival": "JAX, equinox cell", "note": "not installed"}


def compiled(seconds: float) -> Iterable[Row]:
    x = torch.randn(T, 64, D)
    torch._inductor.config.force_disable_caches = True  # the time to compile is asked for, not the time to look it up
    loop = CellLoop(D, 128)
    run = step(torch.compile(loop), x)
    began = time.perf_counter()
    try:
        run()
    except Exception as error:
        yield {"row": "LSTM, B=64 H=128", "rival": "torch.compile of the cell loop", "note": type(error).__name__}
        return
    took = time.perf_counter() - began
    times = race({"unroll": step(LSTM(D, 128), x), "torch.compile of the cell loop": run}, seconds)
    yield row("LSTM, B=64 H=128", times, "torch.compile of the cell loop", note=f"compiling took {took:.0f} s")


def inference(seconds: float) -> Iterable[Row]:
    B, H = 10_000, 128
    x = torch.randn(T, B, D)
    theirs = nn.LSTM(D, H)
    ours = LSTM.from_torch(theirs)
    rivals: dict[str, Callable[[Tensor], object]] = {"unroll": ours, "torch.nn.LSTM": theirs}
    if installed("onnx", "onnxruntime"):
        rivals["ONNX Runtime"] = onnx_forward(theirs, B)

    def without_gradients(run: Callable[[Tensor], object]) -> Callable[[], object]:
        def call() -> object:
            with torch.inference_mode():
                return run(x)

        return call

    times = race({name: without_gradients(run) for name, run in rivals.items()}, seconds)
    for rival in list(rivals)[1:]:
        yield row("LSTM, forward only, 10,000 images, H=128", times, rival)
    if "ONNX Runtime" not in rivals:
        yield {"row": "LSTM, forward only, 10,000 images, H=128", "rival": "ONNX Runtime", "note": "not installed"}


def long(seconds: float) -> Iterable[Row]:
    for steps, B, H in [(784, 64, 128), (10_000, 8, 64)]:
        x = torch.randn(steps, B, 1)
        layer = nn.LSTM(1, H)
        times = race({"unroll": step(LSTM.from_torch(layer), x), "torch.nn.LSTM": step(layer, x)}, seconds, least=3)
        yield row(f"LSTM, T={steps:,} D=1, B={B} H={H}", times, "torch.nn.LSTM")


MEMORY = """
import sys, torch
from unroll.layers import LSTM
ours, (steps, features, B, H) = sys.argv[1] == "unroll", map(int, sys.argv[2:])
torch.manual_seed(0)
layer = (LSTM if ours else torch.nn.LSTM)(features, H)
def step(T):
    layer.zero_grad()
    layer(torch.zeros(T, B, features))[1][0].sum().backward()
def status(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
step(1)  # what the first call of anything costs is not the step's
x = torch.randn(steps, B, features)
before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the high-water mark starts anew
for _ in range(3):
    layer.zero_grad()
    layer(x)[1][0].sum().backward()
print(status("VmHWM") - before)
"""


def peak_memory(steps: int, features: int, B: int, H: int) -> Row:
    """Of a step of both; nothing where it cannot be measured."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        return {}
    used = {}
    for who in ("unroll", "torch"):
        command = [sys.executable, "-c", MEMORY, who, *map(str, (steps, features, B, H))]
        used[who] = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1024
    return {"ours_mb": used["unroll"], "rival_mb": used["torch"], "memory_ratio": used["unroll"] / used["torch"]}


def memory(seconds: float) -> Iterable[Row]:
    for steps, features in [(28, 28), (784, 1)]:
        name = f"LSTM, peak memory of a step, T={steps} D={features}, B=64 H=128"
        found = peak_memory(steps, features, 64, 128) or {"note": "only measured on Linux"}
        yield {"row": name, "rival": "torch.nn.LSTM", **found}


LENGTHS = (28, 100, 784, 2000, 10_000)
STEPS_HEAD = """
LSTM, D=1 B=16 H=64, over longer and longer sequences; in brackets a time step's share.

| T | Unroll | torch.nn.LSTM | ratio | Unroll, peak memory | torch.nn.LSTM | ratio |
| --- | --- | --- | --- | --- | --- | --- |"""


def over_time(seconds: float, lengths: Iterable[int]) -> Iterable[Row]:
    B, H = 16, 64  # so that 10,000 steps fit into a small machine's memory
    layer = nn.LSTM(1, H)
    for steps in lengths:
        x = torch.randn(steps, B, 1)
        times = race({"unroll": step(LSTM.from_torch(layer), x), "torch.nn.LSTM": step(layer, x)}, seconds, least=3)
        name = f"LSTM, T={steps:,} D=1, B={B} H={H}"
        yield row(name, times, "torch.nn.LSTM", T=steps, **peak_memory(steps, 1, B, H))


def show_over_time(row: Row) -> str:
    cells, T = [f"{row['T']:,}"], row["T"]
    cells += [f"{row[who]:,.2f} ms ({1000 * row[who] / T:.2f} µs)" for who in ("ours_ms", "rival_ms")]
    cells.append(f"{row['ratio']:.2f}×")
    if "ours_mb" in row:
        cells += [f"{row[who]:.1f} MB ({1024 * row[who] / T:.1f} KB)" for who in ("ours_mb", "rival_mb")]
        cells.append(f"{row['memory_ratio']:.2f}×")
    else:
        cells += ["only measured on Linux", "", ""]
    return "| " + " | ".join(cells) + " |"


def overhead(seconds: float) -> Iterable[Row]:
    layer = nn.LSTM(1, 1)
    x = torch.randn(1, 1, 1)
    times = race({"unroll": step(LSTM.from_torch(layer), x), "torch.nn.LSTM": step(layer, x)}, seconds)
    yield row("LSTM, T=B=H=D=1: what a call costs", times, "torch.nn.LSTM")


class Timed:
    """The compiled library, with the seconds that its two kernels take added up."""

    def __init__(self, library: Any) -> None:
        self.library, self.seconds = library, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.library, name)

    def _timed(self, kernel: Callable[[Any], Any], call: Any) -> Any:
        began = time.perf_counter()
        result = kernel(call)
        self.seconds += time.perf_counter() - began
        return result

    def unroll_forward(self, call: Any) -> Any:
        return self._timed(self.library.unroll_forward, call)

    def unroll_backward(self, call: Any) -> Any:
        return self._timed(self.library.unroll_backward, call)


def share(seconds: float, threads: int) -> Iterable[Row]:
    """How much of a whole training step, loss, clipping, AdamW and averaging included, the recurrent kernels take."""
    recipe = load_recipe("lstm-mnist")
    dataset = prepare(recipe)
    library = Timed(eager.library)
    eager.library = library  # type: ignore[assignment]
    for number in sorted({1, threads}):
        torch.set_num_threads(number)
        training = Training(first_model(recipe, dataset.encoder), dataset, Settings.of(recipe), [Average(0.999)])
        training.callbacks[0].on_begin(training)
        steps, kernels = [], []
        ends = time.perf_counter() + seconds + 1
        # Batches are drawn as in training, outside the clock: drawing them is not part of a step.
        for step_number, batch in enumerate(batches(dataset.train, dataset.encoder, recipe.batch_size)):
            library.seconds, began = 0.0, time.perf_counter()
            training.step(batch, step_number)
            training.callbacks[0].on_step(training, step_number, 0.0)
            steps.append(1000 * (time.perf_counter() - began))
            kernels.append(1000 * library.seconds)
            if time.perf_counter() > ends:
                break
        ours, inside = statistics.median(steps[20:]), statistics.median(kernels[20:])
        yield {
            "row": f"training step of lstm-mnist, B=64 H=128, {number} thread{'s' if number > 1 else ''}",
            "rival": "its recurrent kernels",
            "ours_ms": ours,
            "rival_ms": inside,
            "ratio": inside / ours,
        }
    eager.library = library.library


def machine() -> dict[str, Any]:
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            model = next((line.split(":")[1].strip() for line in file if line.startswith("model name")), model)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "engine": native.describe(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load_before": os.getloadavg()[0],
    }


def show(row: Row) -> str:
    cells = [row["row"], row["rival"]]
    if "ours_ms" in row:
        cells += [f"{row['ours_ms']:.3g} ms", f"{row['rival_ms']:.3g} ms", f"{row['ratio']:.2f}×"]
    elif "ours_mb" in row:
        cells += [f"{row['ours_mb']:.1f} MB", f"{row['rival_mb']:.1f} MB", f"{row['memory_ratio']:.2f}×"]
    else:
        cells += ["", "", ""]
    cells.append(f"{row['share_of_peak']:.0%} of the FMA peak" if "share_of_peak" in row else row.get("note", ""))
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the time for every row")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these groups of rows")
    arguments = parser.parse_args()
    if native.available() is not None:
        sys.exit(f"nothing to measure: {native.available()}")
    seconds = 0.5 if arguments.quick else 5.0
    threads = torch.get_num_threads()
    facts = machine()
    groups: dict[str, Callable[[], Iterable[Row]]] = {
        "lstm": lambda: against_torch(seconds, LSTM, nn.LSTM, threads),
        "lstm1": lambda: against_torch(seconds, LSTM, nn.LSTM, 1),
        "rnn": lambda: against_torch(seconds, RNN, nn.RNN, threads),
        "rnn1": lambda: against_torch(seconds, RNN, nn.RNN, 1),
        "ragged": lambda: ragged(seconds),
        "inference": lambda: inference(seconds),
        "long": lambda: long(seconds),
        "memory": lambda: memory(seconds),
        "overhead": lambda: overhead(seconds),
        "share": lambda: share(seconds, threads),
        "lab": lambda: lab(seconds),
        "compiled": lambda: compiled(seconds),
        "steps": lambda: over_time(seconds, LENGTHS[:3] if arguments.quick else LENGTHS),  # last: a table of its own
    }
    unknown = set(arguments.only or ()) - set(groups)
    if unknown:
        sys.exit(f"unknown groups {sorted(unknown)}; there are {', '.join(groups)}")
    print(", ".join(f"{name} {value}" for name, value in facts.items()), end="\n\n")
    if arguments.only != ["steps"]:
        print("| step | rival | Unroll | rival | ratio | |")
        print("| --- | --- | --- | --- | --- | --- |")
    rows: list[Row] = []
    for name, group in groups.items():
        if arguments.only and name not in arguments.only:
            continue
        torch.manual_seed(0)
        torch.set_num_threads(threads)
        if name == "steps":
            print(STEPS_HEAD)
        for found in group():
            rows.append({"group": name, **found})
            print((show_over_time if name == "steps" else show)(found), flush=True)
    facts["load_after"] = os.getloadavg()[0]
    print(json.dumps({"benchmark": "engine", "machine": facts, "rows": rows}))


if __name__ == "__main__":
    main()
