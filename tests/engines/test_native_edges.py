"""The native engine at the edge: values that are not finite, threads, memory, and what does not fit."""

from __future__ import annotations

import gc
import math
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from walks import KINDS, SETS, assert_same, make_cell, make_state, results, torch_layer

from unroll.cells import LSTMCell
from unroll.engines import choose, native, reference
from unroll.engines import scan as scan_with
from unroll.engines.native import eager
from unroll.engines.native import library as native_library
from unroll.errors import InputError
from unroll.layers import LSTM, RNN

pytestmark = pytest.mark.skipif(native.available() is not None, reason=str(native.available()))


# --- values at the edge -----------------------------------------------------------------------------------------------

EXTREMES = {
    "saturated": lambda x: x.sign() * 1e4,
    "zero": lambda x: x * 0,
    "denormal": lambda x: x * 1e-39,
    "huge": lambda x: x * 1e30,
    "one infinity": lambda x: x.index_put(
        (torch.tensor(2), torch.tensor(1), torch.tensor(0)), torch.tensor(float("inf"), dtype=x.dtype)
    ),
    "minus infinity": lambda x: x.index_put(
        (torch.tensor(2), torch.tensor(1), torch.tensor(0)), torch.tensor(-float("inf"), dtype=x.dtype)
    ),
    "one NaN": lambda x: x.index_put(
        (torch.tensor(2), torch.tensor(1), torch.tensor(0)), torch.tensor(float("nan"), dtype=x.dtype)
    ),
}


@pytest.mark.parametrize("instruction_set", SETS, indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("H", [21, 32])
def test_extreme_inputs_come_out_as_torch_has_them(H, kind, extreme, dtype, instruction_set):
    torch.manual_seed(0)
    T, B, D = 5, 4, 3
    theirs = torch_layer(kind, D, H, dtype=dtype)
    ours = (LSTM if kind == "lstm" else RNN).from_torch(theirs, engine="native")
    x = EXTREMES[extreme](torch.randn(T, B, D, dtype=dtype))
    found = []
    for layer in (ours, theirs):
        x = x.detach().requires_grad_()
        out, last = layer(x)
        out.nansum().backward()
        found.append([out, *(last if isinstance(last, tuple) else (last,)), x.grad])
    found[0] += [ours.cells[0][0].W.grad, ours.cells[0][0].U.grad, ours.cells[0][0].b.grad]
    found[1] += [theirs.weight_hh_l0.grad, theirs.weight_ih_l0.grad, theirs.bias_ih_l0.grad]
    outputs = 3 if kind == "lstm" else 2
    close = 1e-5 if dtype == torch.float32 else 1e-12
    for n, (a, b) in enumerate(zip(*found, strict=True)):
        tolerance = close
        if n >= outputs:
            # The derivative of a saturated gate is zero or a rounding error; times a large input the latter shows, and
            # times an infinite one the one is NaN and the other infinite.
            tolerance = 100 * close
            a, b = (part.masked_fill(~part.isfinite(), float("nan")) for part in (a, b))
        scale = b.nan_to_num(0, 0, 0).abs().max().clamp_min(0.1).item()
        torch.testing.assert_close(
            a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True, msg=lambda text, n=n: f"result {n}: {text}"
        )


@pytest.mark.parametrize("instruction_set", SETS, indirect=True)
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_that_is_not_finite_counts_from_the_first_step_on_though_h0_is_zero(kind, dtype, bad, instruction_set):
    # 0 times infinity is NaN: the product that the kernels would leave out has something to say.
    D, H, B = 3, 37, 9
    for row, column in ((0, 0), (20, 36), (H - 1, 17)):
        cell = make_cell(kind, D, H, dtype=dtype)
        with torch.no_grad():
            cell.W[row - H, column] = bad  # of the last gate
        x, state = torch.randn(1, B, D, dtype=dtype), cell.initial_state(B)
        expected, found = reference.scan(cell, x, state)[0], native.scan(cell, x, state)[0]
        assert expected[0, :, row].isnan().all()
        torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("instruction_set", SETS, indirect=True)
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_a_derivative_that_is_not_finite_counts_in_the_first_step_though_h0_is_zero(kind, dtype, bad, instruction_set):
    # The same on the way back: what da h_0^T adds to the gradient of W is 0 only if da is finite.
    D, H, B = 3, 37, 9
    for steps, sequence, unit in ((1, 0, 0), (1, 4, 20), (3, 4, 36), (3, B - 1, 0)):
        cell = make_cell(kind, D, H, dtype=dtype)
        with torch.no_grad():
            cell.b[-H:] = 4  # so that every relu is open
        x, state = torch.randn(steps, B, D, dtype=dtype), cell.initial_state(B)
        gradients = []
        for engine in (reference, native):
            out = engine.scan(cell, x, state)[0]
            d_out = torch.ones_like(out)
            d_out[0, sequence, unit] = bad
            gradients.append(torch.autograd.grad(out, [cell.W], d_out)[0])
        expected, found = gradients
        assert expected[unit - H].isnan().all()
        torch.testing.assert_close(found, expected, equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_that_is_not_finite_is_seen_whichever_thread_packs_it(kind):
    D, H, B, T = 3, 130, 40, 24
    x = torch.randn(T, B, D, dtype=torch.float64)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for unit in (0, 20, 40, 60, 80, 100, 129):  # in every group of units
            cell = make_cell(kind, D, H)
            with torch.no_grad():
                cell.W[unit - H, 7] = math.inf
            found = native.scan(cell, x, cell.initial_state(B))[0]
            assert found[0, :, unit].isnan().all(), unit
    finally:
        torch.set_num_threads(before)


def test_saturated_gates_are_exact_so_that_memory_does_not_leak():
    cell = make_cell("lstm", 1, 1, dtype=torch.float32)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.b.copy_(torch.tensor([-1e4, 1e4, 0.0, 1e4]))  # nothing in, nothing forgotten
    c0 = torch.tensor([[0.7]])
    _, (h, c) = native.scan(cell, torch.zeros(10_000, 1, 1), (torch.zeros(1, 1), c0))
    assert torch.equal(c, c0)
    torch.testing.assert_close(h, torch.tanh(c0), rtol=1e-6, atol=0)


@pytest.mark.parametrize("instruction_set", SETS, indirect=True)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)], ids=str)
def test_the_nonlinearities_are_accurate_relative_to_their_value(instruction_set, dtype, tolerance):
    z = torch.cat([torch.linspace(-30, 30, 4001, dtype=dtype), torch.logspace(-6, 0, 200, dtype=dtype)])
    cell = make_cell("tanh", 1, 1, bias=False, dtype=dtype)
    with torch.no_grad():
        cell.W.zero_()
        cell.U.fill_(1)
    out, _ = native.scan(cell, z.reshape(1, -1, 1), z.new_zeros(len(z), 1))
    exact = torch.tanh(z.double())
    torch.testing.assert_close(out.flatten().double(), exact, rtol=tolerance, atol=0)

    cell = make_cell("lstm", 1, 1, bias=True, dtype=dtype)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.zero_()
        cell.U[1] = 1  # c = f c0 = sigmoid(z)
        cell.b[0] = -1e4
    zeros = z.new_zeros(len(z), 1)
    _, (_, c) = native.scan(cell, z.reshape(1, -1, 1), (zeros, zeros + 1))
    torch.testing.assert_close(c.flatten().double(), torch.sigmoid(z.double()), rtol=tolerance, atol=0)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_stands_in_the_padding_changes_nothing(kind, reverse):
    torch.manual_seed(0)
    T, B, D, H = 7, 11, 5, 20
    cell, state = make_cell(kind, D, H), make_state(kind, B, H)
    lengths = torch.randint(0, T + 1, (B,))
    x = torch.randn(T, B, D, dtype=torch.float64)
    padding = torch.arange(T)[:, None] >= lengths
    spoilt = x.masked_fill(padding[:, :, None], float("nan"))
    clean = results(native, cell, x, state, lengths, reverse)
    dirty = results(native, cell, spoilt, state, lengths, reverse)
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))
    assert not clean[0][padding].any()

    words = torch.randint(0, D, (T, B))
    clean = results(native, cell, words, state, lengths, reverse)
    dirty = results(native, cell, words.masked_fill(padding, -1), state, lengths, reverse)
    assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))


# --- threads and memory -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ragged", [False, True])
def test_runs_repeat_bit_for_bit(kind, ragged):
    torch.manual_seed(0)
    T, B, D, H = 9, 70, 12, 40
    cell = make_cell(kind, D, H, dtype=torch.float32)
    x, state = torch.randn(T, B, D), make_state(kind, B, H, torch.float32)
    lengths = torch.randint(0, T + 1, (B,)) if ragged else None
    first = results(native, cell, x, state, lengths)
    for _ in range(5):
        again = results(native, cell, x, state, lengths)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("ragged", [False, True])
def test_any_number_of_threads_gives_the_same_outputs(ragged):
    torch.manual_seed(0)
    T, B, D, H = 9, 70, 12, 40
    cell = make_cell("lstm", D, H)
    x, state = torch.randn(T, B, D, dtype=torch.float64), make_state("lstm", B, H)
    lengths = torch.randint(0, T + 1, (B,)) if ragged else None
    truth = results(reference, cell, x, state, lengths)
    found = []
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        found.append(results(native, cell, x, state, lengths))
        assert_same(found[-1], truth, 1e-10)
        assert torch.equal(found[-1][0], found[0][0])


def test_the_number_of_threads_may_change_between_forward_and_backward():
    torch.manual_seed(0)
    cell = make_cell("lstm", 12, 40)
    x = torch.randn(9, 70, 12, dtype=torch.float64)
    truth = results(reference, cell, x, cell.initial_state(70), into=(True, False), wants=(False, False, True))
    out, _ = native.scan(cell, x, cell.initial_state(70))
    torch.set_num_threads(1)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(0), dtype=out.dtype)
    found = torch.autograd.grad((out * weight).sum(), list(cell.parameters()))
    assert_same(found, truth[3:], 1e-10)


def test_several_python_threads_may_walk_at_once():
    torch.manual_seed(0)
    cells = [make_cell("lstm", 5, 30) for _ in range(4)]
    x = torch.randn(12, 40, 5, dtype=torch.float64)
    state = make_state("lstm", 40, 30)
    expected = [results(native, cell, x, state) for cell in cells]
    wrong: list[int] = []

    def work(n: int) -> None:
        for _ in range(10):
            found = results(native, cells[n], x, state)
            if not all(torch.equal(a, b) for a, b in zip(found, expected[n], strict=True)):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_memory_of_a_graph_that_is_never_walked_back_is_reused(monkeypatch):
    taken: list[int] = []
    given: list[int] = []

    class Library:
        unroll_forward = native_library.library.unroll_forward
        unroll_backward = native_library.library.unroll_backward

        @staticmethod
        def unroll_release(pointer: int) -> None:
            given.append(pointer)
            release(pointer)

    gc.collect()
    native.trim()
    release = native_library.library.unroll_release
    monkeypatch.setattr(eager, "library", Library)
    cell = make_cell("lstm", 5, 30)
    x = torch.randn(12, 40, 5, dtype=torch.float64)
    for _ in range(5):
        out = native.scan(cell, x, cell.initial_state(40))[0]
        taken.append(out.grad_fn.saved.pointer)
        del out
        gc.collect()
    assert [pointer for pointer in given if pointer in taken] == taken
    assert len(set(taken)) == 1


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="asks Linux for this process's memory")
def test_no_more_memory_is_kept_than_was_in_use_at_once():
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    gc.collect()
    native.trim()
    cell, before = make_cell("lstm", 1, 64, dtype=torch.float32), resident()
    for step in range(12):  # each too large for what was kept of the ones before
        T = round(130 * 1.3**step)
        out = native.scan(cell, torch.zeros(T, 64, 1), cell.initial_state(64))[0]
        del out
    largest = 5 * T * 64 * 64 * 4  # four gates and c
    kept = resident() - before
    native.trim()
    assert 0.5 * largest < kept < 1.7 * largest
    assert resident() - before < 0.5 * largest


DEFAULT_DEVICE = """
import torch
from unroll.layers import LSTM

torch.manual_seed(0)
layer = LSTM(4, 6, bidirectional=True, engine="native").double()
x, words = torch.randn(5, 3, 4, dtype=torch.float64), torch.randint(0, 4, (5, 3))

def results():
    found = []
    for input, lengths in ((x, None), (words, [5, 2, 0])):
        out, _ = layer(input, lengths=lengths)
        gradients = torch.autograd.grad(out.square().sum(), list(layer.parameters()), create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in gradients), list(layer.parameters()))
        traced = torch.ops.unroll.scan(
            x, x.new_zeros(3, 6), x.new_zeros(3, 6), *layer.cells[0][0].parameters(), None, False, False, 0, True
        )[0]
        found += [out, *gradients, *second, traced, *torch.autograd.grad(traced.sum(), [layer.cells[0][0].W])]
    return found

expected = results()
with torch.device("meta"):
    found = results()
assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
"""


def test_the_default_device_does_not_matter():
    # In a process of its own: memory on another device than the kernels' would end it.
    run = subprocess.run([sys.executable, "-c", DEFAULT_DEVICE], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3, 2, 5)}, "expected (T, B, 4)"),
        ({"state": (torch.zeros(3, 6), torch.zeros(2, 6))}, "expected (B, H) = (2, 6)"),
        ({"state": (torch.zeros(2, 6).double(),) * 2}, "give both the same dtype"),
        ({"lengths": torch.tensor([1, 4])}, "between 0 and T"),
        ({"lengths": torch.tensor([-1, 3])}, "between 0 and T"),
        ({"lengths": torch.tensor([1])}, "expected (2,) int64"),
        ({"lengths": torch.tensor([1.0, 2.0])}, "expected (2,) int64"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_kernels_see_it(change, message):
    arguments = {"x": torch.zeros(3, 2, 4), "state": (torch.zeros(2, 6),) * 2, "lengths": None} | change
    with pytest.raises(InputError) as raised:
        native.scan(LSTMCell(4, 6), **arguments)
    assert message in str(raised.value)


def test_the_reasons_why_not():
    cell = LSTMCell(2, 3)
    x = torch.zeros(1, 1, 2)
    assert native.why_not(cell, x) is None
    assert native.why_not(cell, torch.zeros(1, 1, dtype=torch.int64)) is None
    assert "float16" in native.why_not(cell.half(), x.half())
    assert "the weights are torch.float32" in native.why_not(LSTMCell(2, 3), x.double())
    assert "meta" in native.why_not(LSTMCell(2, 3, device="meta"), x)

    class Own(LSTMCell):  # read into a step program
        pass

    class Noisy(LSTMCell):
        def forward(self, x, state):
            h, c = super().forward(x, state)
            return h + torch.randn_like(h), c

    assert native.why_not(Own(2, 3), x) is None
    why = native.why_not(Noisy(2, 3), x)
    assert why.startswith(__file__)
    assert why.endswith(": randn_like draws random numbers of its own")
    assert "meta" in native.why_not(Own(2, 3, device="meta"), x)
    assert "the weights are torch.float32" in native.why_not(Own(2, 3), x.double())

    assert choose("auto", LSTMCell(2, 3), x) is native
    assert choose("auto", LSTMCell(2, 3).half(), x.half()) is reference
    assert choose("auto", Own(2, 3), x) is native
    assert choose("auto", Noisy(2, 3), x) is reference


def test_without_the_library_everything_runs_on_the_reference(monkeypatch):
    monkeypatch.setattr(native_library, "library", None)
    monkeypatch.setattr(native_library, "_obstacle", "the compiled kernels are not installed")
    assert native.describe() == "reference (the compiled kernels are not installed)"
    layer = LSTM(3, 4)
    layer(torch.zeros(2, 2, 3))[0].sum().backward()
    with pytest.raises(InputError, match="not installed"):
        scan_with(layer.cells[0][0], torch.zeros(2, 2, 3), (torch.zeros(2, 4),) * 2, engine="native")


def test_the_instruction_set_can_be_forced_from_outside():
    program = "from unroll.engines import native; print(native.describe())"
    for wanted, printed in [
        ("portable", "native (portable)"),
        ("vax", "reference (UNROLL_ISA=vax is no instruction set"),
    ]:
        if wanted == "portable" and wanted not in SETS:
            continue
        run = subprocess.run(
            [sys.executable, "-c", program],
            env={"UNROLL_ISA": wanted, "PATH": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.startswith(printed)
