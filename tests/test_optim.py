"""The update rules, schedules and averages of unroll.optim, against hand computation and torch's own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unroll.errors import InputError
from unroll.optim import (
    OPTIMISERS,
    SCHEDULES,
    SGD,
    Adam,
    AdamW,
    Optimiser,
    Schedule,
    WeightAverage,
    applied,
    constant,
    cosine,
    one_cycle,
)

OTHER_ADAMW = {"weight_decay": 0.3, "betas": (0.8, 0.9)}
SETTINGS: list[tuple[type[Any], dict[str, Any], type[torch.optim.Optimizer], dict[str, Any]]] = [
    (SGD, {}, torch.optim.SGD, {}),
    (SGD, {"momentum": 0.9}, torch.optim.SGD, {"momentum": 0.9}),
    (
        SGD,
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        torch.optim.SGD,
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
    ),
    (Adam, {}, torch.optim.Adam, {}),
    (
        Adam,
        {"betas": (0.7, 0.95), "eps": 1e-3, "weight_decay": 0.1},
        torch.optim.Adam,
        {"betas": (0.7, 0.95), "eps": 1e-3, "weight_decay": 0.1},
    ),
    (AdamW, {}, torch.optim.AdamW, {}),
    (
        AdamW,
        OTHER_ADAMW,
        torch.optim.AdamW,
        OTHER_ADAMW,
    ),
    (Adam, {"weight_decay": 0.1, "engine": "reference"}, torch.optim.Adam, {"weight_decay": 0.1}),
    (AdamW, {**OTHER_ADAMW, "engine": "reference"}, torch.optim.AdamW, OTHER_ADAMW),
]
IDS = [f"{ours.__name__}-{'-'.join(options) or 'plain'}" for ours, options, _, _ in SETTINGS]


def net(dtype: torch.dtype = torch.float64) -> nn.Sequential:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)).to(dtype)


def losses(model: nn.Module, steps: int, seed: int = 0) -> Iterator[Tensor]:
    """One loss a step, on fresh random data; the caller updates in between."""
    generator = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    for _ in range(steps):
        x = torch.randn(8, 5, generator=generator, dtype=dtype)
        y = torch.randint(3, (8,), generator=generator)
        yield nn.functional.cross_entropy(3 * model(x), y)


def train(model: nn.Module, optimiser: Optimiser, steps: int, seed: int = 0) -> None:
    for loss in losses(model, steps, seed):
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.mark.parametrize("max_norm", [None, 0.5], ids=["unclipped", "clipped"])
@pytest.mark.parametrize(("kind", "options", "torch_kind", "torch_options"), SETTINGS, ids=IDS)
def test_a_hundred_steps_are_those_of_torch(
    kind: type[Any],
    options: dict[str, Any],
    torch_kind: Callable[..., torch.optim.Optimizer],
    torch_options: dict[str, Any],
    max_norm: float | None,
) -> None:
    ours, theirs = net(), net()
    start = flat(ours)
    mine = kind(ours.parameters(), 0.05, max_norm=max_norm, **options)
    torchs = torch_kind(theirs.parameters(), lr=0.05, **torch_options)
    clipped = 0
    for step, (loss, their_loss) in enumerate(zip(losses(ours, 100), losses(theirs, 100), strict=True)):
        mine.zero_grad()
        loss.backward()
        torchs.zero_grad()
        their_loss.backward()
        their_norm = nn.utils.clip_grad_norm_(theirs.parameters(), max_norm or math.inf)
        # A moving learning rate, so that a rule which keeps an old one is found out.
        mine.learning_rate = torchs.param_groups[0]["lr"] = 0.05 / (1 + 0.02 * step)
        norm = mine.step()
        torchs.step()
        clipped += max_norm is not None and float(their_norm) > max_norm
        assert norm.shape == ()
        assert float(norm) == pytest.approx(float(their_norm), rel=1e-10)
    assert max_norm is None or clipped > 10, "clipping was hardly exercised"
    assert (flat(ours) - start).abs().max() > 0.05
    torch.testing.assert_close(flat(ours), flat(theirs), rtol=0, atol=1e-11)


def test_first_steps_of_each_rule_are_those_computed_by_hand() -> None:
    def two_steps(build: Callable[[list[Tensor]], Optimiser]) -> float:
        p = nn.Parameter(torch.tensor([2.0], dtype=torch.float64))
        optimiser = build([p])
        for gradient in (3.0, -1.0):
            p.grad = torch.tensor([gradient], dtype=torch.float64)
            optimiser.step()
        return float(p.detach())

    assert two_steps(lambda p: SGD(p, 0.1)) == pytest.approx(2 - 0.3 + 0.1)
    # v = 3, then 0.5 * 3 - 1 = 0.5
    assert two_steps(lambda p: SGD(p, 0.1, momentum=0.5)) == pytest.approx(2 - 0.3 - 0.05)
    # 3 + 0.5 * 3 = 4.5, then -1 + 0.5 * 0.5 = -0.75
    assert two_steps(lambda p: SGD(p, 0.1, momentum=0.5, nesterov=True)) == pytest.approx(2 - 0.45 + 0.075)
    # m_hat / sqrt(v_hat) is 1, then (0.5*1.5 - 0.5)/(1 - 0.25) / sqrt((0.75*9*0.25 + 0.25)/(1 - 0.75**2))
    second = (0.25 / 0.75) / math.sqrt((0.75 * 9 * 0.25 + 0.25) / (1 - 0.75**2))
    adam = 2 - 0.1 - 0.1 * second
    assert two_steps(lambda p: Adam(p, 0.1, betas=(0.5, 0.75), eps=0)) == pytest.approx(adam)
    after_one = 2 * (1 - 0.1 * 0.2) - 0.1
    adamw = after_one * (1 - 0.1 * 0.2) - 0.1 * second
    assert two_steps(lambda p: AdamW(p, 0.1, betas=(0.5, 0.75), eps=0, weight_decay=0.2)) == pytest.approx(adamw)


@pytest.mark.parametrize(("kind", "options"), [s[:2] for s in SETTINGS], ids=IDS)
def test_a_saved_state_continues_bit_for_bit(kind: type[Any], options: dict[str, Any]) -> None:
    whole, first_half = net(torch.float32), net(torch.float32)
    optimiser = kind(whole.parameters(), 0.01, **options)
    train(whole, optimiser, 20)
    train(whole, optimiser, 15, seed=1)

    before = kind(first_half.parameters(), 0.01, **options)
    train(first_half, before, 20)
    saved = before.state_dict()
    assert all(isinstance(value, Tensor) for value in saved.values())
    weights = {name: value.clone() for name, value in first_half.state_dict().items()}
    train(first_half, before, 3)  # must not reach into what was saved

    second_half = net(torch.float32)
    second_half.load_state_dict(weights)
    after = kind(second_half.parameters(), 0.5, **options)  # the rate comes from the saved state
    after.load_state_dict(saved)
    train(second_half, after, 15, seed=1)
    assert torch.equal(flat(second_half), flat(whole))
    assert after.steps == 35


def test_state_survives_safetensors() -> None:
    safetensors = pytest.importorskip("safetensors.torch")
    model = net()
    optimiser = AdamW(model.parameters(), 0.01)
    train(model, optimiser, 3)
    average = WeightAverage(optimiser.theta)
    for state in (optimiser.state_dict(), average.state_dict()):
        loaded = safetensors.load(safetensors.save(state))
        assert loaded.keys() == state.keys()
        assert all(torch.equal(loaded[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "m"}, "expects learning_rate, m, steps, v"),
        (lambda s: {**s, "m": s["m"][:-1]}, r"'m' is \(65,\)"),
        (lambda s: {**s, "v": s["v"].float()}, "torch.float32"),
        (lambda s: {}, "entries none"),
    ],
)
def test_a_state_of_something_else_is_refused_and_nothing_is_touched(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str
) -> None:
    model = net()
    optimiser = Adam(model.parameters(), 0.01)
    train(model, optimiser, 2)
    before = optimiser.state_dict()
    with pytest.raises(InputError, match=message):
        optimiser.load_state_dict(change({name: value + 1 for name, value in before.items()}))
    after = optimiser.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_parameters_become_views_of_theta_and_keep_their_values() -> None:
    model = net()
    before = flat(model)
    optimiser = SGD(model.parameters(), 0.1)
    assert torch.equal(optimiser.theta, before)
    optimiser.theta.fill_(0.25)
    assert all(bool((p == 0.25).all()) for p in model.parameters())
    model.load_state_dict(net().state_dict())  # copies in place: still the same storage
    assert torch.equal(optimiser.theta, before)


def test_tied_parameters_stay_tied_and_move_once() -> None:
    shared = nn.Parameter(torch.tensor([1.0, 2.0]))
    other = nn.Parameter(torch.tensor([3.0]))
    optimiser = SGD([shared, other, shared], 0.1)
    assert optimiser.theta.shape == (3,)
    ((shared * shared).sum() + other.sum()).backward()
    optimiser.step()
    torch.testing.assert_close(shared.detach(), torch.tensor([0.8, 1.6]))


def test_a_transposed_parameter_is_laid_out_and_updated_in_its_own_order() -> None:
    p = nn.Parameter(torch.arange(6.0).reshape(2, 3).t())
    optimiser = SGD([p], 1.0)
    assert torch.equal(p.detach(), torch.arange(6.0).reshape(2, 3).t())
    gradient = torch.tensor([[1.0, 0, 0], [0, 0, 0]]).t()
    p.grad = gradient.clone()
    optimiser.step()
    assert torch.equal(p.detach(), torch.arange(6.0).reshape(2, 3).t() - gradient)


def test_a_missing_gradient_counts_as_zero() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    optimiser = SGD([unused, used], 0.1, momentum=0.5)
    (used.sum() + unused.sum()).backward()
    optimiser.step()
    optimiser.zero_grad()
    assert used.grad is None
    assert unused.grad is None
    used.sum().backward()
    norm = optimiser.step()
    assert float(norm) == pytest.approx(math.sqrt(2))
    # v of the unused one halves from 1 to 0.5 and goes on moving it
    torch.testing.assert_close(unused.detach(), torch.full((3,), 1 - 0.1 - 0.05))
    torch.testing.assert_close(used.detach(), torch.full((2,), 1 - 0.1 - 0.15))


def test_a_frozen_parameter_is_left_alone_even_by_weight_decay() -> None:
    frozen, free = nn.Parameter(torch.ones(2), requires_grad=False), nn.Parameter(torch.ones(2))
    optimiser = AdamW([frozen, free], 0.1, weight_decay=0.5)
    free.sum().backward()
    optimiser.step()
    assert torch.equal(frozen, torch.ones(2))
    assert bool((free < 1).all())


def test_gradients_below_the_limit_are_not_scaled() -> None:
    p = nn.Parameter(torch.zeros(2))
    optimiser = SGD([p], 1.0, max_norm=5.1)
    p.grad = torch.tensor([3.0, 4.0])
    assert float(optimiser.step()) == 5.0
    assert torch.equal(p.detach(), torch.tensor([-3.0, -4.0]))


@pytest.mark.parametrize("move", [lambda m: m.to(torch.float64), lambda m: Adam(m.parameters(), 0.1)])
def test_parameters_that_moved_are_noticed(move: Callable[[nn.Module], object]) -> None:
    model = net(torch.float32)
    optimiser = Adam(model.parameters(), 0.1)
    move(model)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    with pytest.raises(InputError, match="moved since the optimiser was built"):
        optimiser.step()


SHORT = torch.ones(3)


def weights() -> list[Tensor]:
    return [nn.Parameter(torch.ones(2))]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SGD(weights(), 0.0), "learning_rate is 0.0"),
        (lambda: Adam(weights(), -1e-3), "learning_rate is -0.001"),
        (lambda: Adam(weights(), math.nan), "learning_rate is nan"),
        (lambda: Adam(weights(), math.inf), "learning_rate is inf"),
        (lambda: SGD(weights(), 0.1, momentum=1.0), "momentum is 1.0"),
        (lambda: SGD(weights(), 0.1, nesterov=True), "nesterov is on and momentum is 0"),
        (lambda: SGD(weights(), 0.1, weight_decay=-1), "weight_decay is -1"),
        (lambda: SGD(weights(), 0.1, max_norm=0.0), "max_norm is 0.0"),
        (lambda: Adam(weights(), 0.1, betas=(1.0, 0.9)), r"betas\[0\] is 1.0"),
        (lambda: AdamW(weights(), 0.1, betas=(0.9, -0.1)), r"betas\[1\] is -0.1"),
        (lambda: AdamW(weights(), 0.1, betas=(0.9,)), "betas has 1 numbers"),  # type: ignore[arg-type]
        (lambda: Adam(weights(), 0.1, eps=-1.0), "eps is -1.0"),
        (lambda: Adam([], 0.1), "got 0 parameters"),
        (lambda: Adam([nn.Parameter(torch.ones(1), requires_grad=False)], 0.1), "got 1 parameters, none"),
        (lambda: Adam([*weights(), nn.Parameter(torch.ones(1).double())], 0.1), "more than one dtype"),
        (lambda: Adam([*weights(), nn.Parameter(torch.ones(1, device="meta"))], 0.1), "more than one device"),
        (lambda: Adam(weights(), 0.1).step(), "no gradient in any parameter"),
        (lambda: WeightAverage(torch.ones(2), 1.0), "decay is 1.0"),
        (lambda: WeightAverage(torch.ones(2)).load_state_dict({}), "entries none"),
        (
            lambda: WeightAverage(torch.ones(2)).load_state_dict(WeightAverage(torch.ones(3)).state_dict()),
            r"\(3,\)",
        ),
        (lambda: constant(10, 10, 0.1), "step is 10 of a run of 10"),
        (lambda: one_cycle(-1, 10, 0.1), "step is -1"),
        (lambda: cosine(10, 10, 0.1), "step is 10 of a run of 10"),
    ],
)
def test_bad_settings_meet_one_line_that_names_them(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        build()
    assert "\n" not in str(caught.value)


def torch_rates(total: int, build: Callable[[torch.optim.Optimizer], Any]) -> list[float]:
    optimiser = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.3)
    schedule = build(optimiser)
    rates = []
    for _ in range(total):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return rates


# Where the rise is shorter than a step, torch divides by zero or starts beyond the peak.
@pytest.mark.parametrize("total", [4, 7, 100, 4690])
def test_one_cycle_is_torchs(total: int) -> None:
    optimiser = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.3, total_steps=total)
    for step in range(total):
        expected = optimiser.param_groups[0]["lr"]
        assert one_cycle(step, total, 0.3) == pytest.approx(expected, rel=1e-12, abs=1e-15)
        optimiser.step()
        if step + 1 < total:
            schedule.step()


def test_one_cycle_starts_at_the_peak_where_the_rise_is_shorter_than_a_step() -> None:
    assert one_cycle(0, 1, 0.3) == 0.3
    assert one_cycle(0, 3, 0.3) == 0.3
    assert one_cycle(2, 3, 0.3) == pytest.approx(0.3 / 25 / 1e4)


def test_cosine_is_torchs() -> None:
    for floor in (0.0, 0.01):
        expected = torch_rates(50, partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=50, eta_min=floor))
        assert [cosine(step, 50, 0.3, floor=floor) for step in range(50)] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("total", [1, 2, 3, 10])
def test_every_schedule_stays_above_zero_and_not_above_its_peak(schedule: Schedule, total: int) -> None:
    rates = [schedule(step, total, 0.3) for step in range(total)]
    assert all(0 < rate <= 0.3 * (1 + 1e-12) for rate in rates)
    assert [2 * rate for rate in rates] == pytest.approx([schedule(step, total, 0.6) for step in range(total)])


def test_the_tables_hold_every_optimiser_and_schedule() -> None:
    assert list(OPTIMISERS.items()) == [("sgd", SGD), ("adam", Adam), ("adamw", AdamW)]
    assert list(SCHEDULES.items()) == [("constant", constant), ("one_cycle", one_cycle), ("cosine", cosine)]


def test_the_average_follows_its_equation() -> None:
    points = torch.arange(1.0, 41.0, dtype=torch.float64)
    average = WeightAverage(torch.zeros(1, dtype=torch.float64), decay=0.6)
    expected = 0.0
    for t, point in enumerate(points.tolist()):
        d = min(0.6, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * point
        average.update(torch.full((1,), point, dtype=torch.float64))
        assert float(average.average) == pytest.approx(expected, rel=1e-12)


def test_the_average_of_a_short_run_forgets_its_start_and_smooths_its_end() -> None:
    generator = torch.Generator().manual_seed(0)
    average = WeightAverage(torch.full((1000,), 100.0))
    for _ in range(300):
        average.update(torch.randn(1000, generator=generator))
    assert float(average.average.std()) < 0.25  # 1 for a single point
    assert abs(float(average.average.mean())) < 0.05


def test_averaged_weights_are_applied_for_a_while_and_given_back_even_after_an_error() -> None:
    model = net()
    optimiser = SGD(model.parameters(), 0.1)
    average = WeightAverage(optimiser.theta)
    for loss in losses(model, 5):
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        average.update(optimiser.theta)
    own = flat(model)

    def evaluate() -> None:
        with applied(average.average, optimiser.theta):
            assert torch.equal(flat(model), average.average)
            assert not torch.equal(flat(model), own)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate()
    assert torch.equal(flat(model), own)


def test_a_saved_average_continues_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    points = [torch.randn(3, generator=generator) for _ in range(10)]
    whole, half = WeightAverage(torch.zeros(3)), WeightAverage(torch.zeros(3))
    for point in points:
        whole.update(point)
    for point in points[:4]:
        half.update(point)
    saved = half.state_dict()
    half.update(points[0])
    resumed = WeightAverage(torch.ones(3))
    resumed.load_state_dict(saved)
    for point in points[4:]:
        resumed.update(point)
    assert torch.equal(resumed.average, whole.average)


@pytest.mark.parametrize(("ours", "theirs"), [(Adam, torch.optim.Adam), (AdamW, torch.optim.AdamW)])
def test_usual_settings_are_torchs(ours, theirs):
    found = []
    for kind in (ours, theirs):
        parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
        optimiser = kind([parameter])
        for _ in range(3):
            parameter.grad = torch.tensor([0.5, 1.0, -2.0], dtype=torch.float64)
            optimiser.step()
        found.append(parameter.detach())
    torch.testing.assert_close(*found)
