"""Optimisers written out from their update rules, learning-rate schedules, and weight averaging.

All parameters of a model are laid end to end in one flat vector theta, their gradients in one flat vector g.
An update rule is then a few lines on theta, g and its own state (m, v), as the papers print it, and costs the
same few vector operations whether the model has two parameters or two hundred. For Adam and AdamW the native engine
has the same rule compiled (`unroll.engines.native.adam`); the lines here are what it is held to.

Sources
    SGD with momentum   Sutskever, Martens, Dahl, Hinton: On the importance of initialization and momentum in
                        deep learning. ICML 2013, equations 1 to 4.
    Adam                Kingma, Ba: Adam: a method for stochastic optimization. ICLR 2015, Algorithm 1.
    AdamW               Loshchilov, Hutter: Decoupled weight decay regularization. ICLR 2019, Algorithm 2.
    clipping            Pascanu, Mikolov, Bengio: On the difficulty of training recurrent neural networks.
                        ICML 2013, Algorithm 1.
    one_cycle           Smith, Topin: Super-convergence: very fast training of neural networks using large
                        learning rates. 2018 (arXiv 1708.07120).
    cosine              Loshchilov, Hutter: SGDR: stochastic gradient descent with warm restarts. ICLR 2017,
                        equation 5.
    WeightAverage       Shamir, Zhang: Stochastic gradient descent for non-smooth optimization. ICML 2013,
                        section 4 (polynomial-decay averaging); Polyak, Juditsky 1992 for the idea.

What it does not do: parameter groups with rates of their own, sparse gradients, second-order methods.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from unroll.engines import EngineName, check_able, check_engine, native
from unroll.errors import InputError

# ------------------------------------------------------------------------------------------------- optimisers


class Optimiser(ABC):
    """What every update rule shares: theta, g, the norm of g, clipping, and the saved state.

    The constructor copies the parameters into one vector ``theta`` of N numbers and makes each parameter a
    view of its stretch, so that an operation on theta moves them all. From then on the parameters must stay
    where they are: move or convert the model (``model.to(...)``) *before* building its optimiser; `step`
    refuses to run otherwise. A parameter that appears twice (tied weights) is one stretch of theta; one that
    does not require a gradient when the optimiser is built is frozen: it is left out of theta, and weight
    decay does not touch it.

    Parameters
        parameters     tensors of one dtype on one device, as from ``model.parameters()``
        learning_rate  step size, > 0; the attribute of that name may be set before every step, by a schedule
        max_norm       clip g to this 2-norm, > 0; None leaves it as it is

    Raises `InputError` for a setting out of its range, no parameters, or a mixture of dtypes or devices.
    """

    theta: Tensor
    """(N,): all parameters end to end."""
    learning_rate: float

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float, max_norm: float | None = None) -> None:
        if not (learning_rate > 0 and math.isfinite(learning_rate)):
            raise InputError(f"learning_rate is {learning_rate}; expected a finite number above 0")
        if max_norm is not None and not max_norm > 0:
            raise InputError(f"max_norm is {max_norm}; expected a number above 0, or None for no clipping")
        self.learning_rate = float(learning_rate)
        self.max_norm = max_norm
        self.steps = 0
        self._parameters = _distinct(parameters)
        # From here on only dtype and device of the first count: _distinct has made sure that they are
        # everyone's.
        with torch.no_grad():
            self.theta = torch.cat([p.reshape(-1) for p in self._parameters])
        start = 0
        for p in self._parameters:
            p.data = self.theta[start : start + p.numel()].view(p.shape)
            start += p.numel()
        self._addresses = [p.data_ptr() for p in self._parameters]
        self._sizes = [p.numel() for p in self._parameters]

    @torch.no_grad()
    def step(self) -> Tensor:
        """Update theta from the gradients that `backward` left in the parameters.

            g = (grad_1, grad_2, ...)
            g <- g min(1, max_norm / (||g||_2 + 1e-6))
            theta <- rule(theta, g)

        A parameter whose gradient is None counts as one of gradient zero: momentum and weight decay still act
        on it (torch's optimisers skip it).

        Returns ||g||_2 before clipping, as a 0-dim tensor: it is left on its device and never waited for.
        Raises `InputError` when no parameter has a gradient, or when parameters no longer are where the
        constructor put them.
        """
        pairs = zip(self._parameters, self._gradients(), strict=True)
        g = torch.cat([p.new_zeros(p.numel()) if grad is None else grad.reshape(-1) for p, grad in pairs])
        # Not linalg.vector_norm: it splits g among the threads otherwise than the operations that follow,
        # which then fetch it from the other core's cache (measured: up to 40 us more for 80,000 parameters).
        norm = torch.dot(g, g).sqrt_()
        if self.max_norm is not None:
            # The 1e-6 is torch's clip_grad_norm_'s; a NaN norm makes g NaN, which the loss then shows.
            g.mul_((self.max_norm / (norm + 1e-6)).clamp_(max=1.0))
        self.steps += 1
        self._rule(self.theta, g)
        return norm

    @abstractmethod
    def _rule(self, theta: Tensor, g: Tensor) -> None:
        """One update of theta (N,) in place; g (N,) may be overwritten; ``self.steps`` is t = 1, 2, ..."""

    def _state(self) -> dict[str, Tensor]:
        """The vectors (N,) that the rule carries from step to step, by the paper's letters."""
        return {}

    def _gradients(self) -> list[Tensor | None]:
        """What `backward` left, each without gaps."""
        if [p.data_ptr() for p in self._parameters] != self._addresses:
            raise InputError(
                "parameters have moved since the optimiser was built (by model.to(...), .double() or another "
                "optimiser?); move the model first, then build one optimiser"
            )
        gradients = [None if (grad := p.grad) is None else grad.contiguous() for p in self._parameters]
        if all(grad is None for grad in gradients):
            raise InputError("step() found no gradient in any parameter; call loss.backward() before it")
        return gradients

    def zero_grad(self) -> None:
        """Forget the gradients (they become None, so that the next `backward` writes instead of adding)."""
        for p in self._parameters:
            p.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of what the next step depends on, except theta: a flat dict that safetensors can save."""
        state = {name: vector.clone() for name, vector in self._state().items()}
        state["steps"] = torch.tensor(self.steps)
        state["learning_rate"] = torch.tensor(self.learning_rate, dtype=torch.float64)
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned; the steps that follow are then bit-identical.

        Raises `InputError` when the state is of another kind of optimiser or of a model of another size.
        """
        own = self._state()
        expected = {*own, "steps", "learning_rate"}
        if set(state) != expected:
            raise InputError(
                f"optimiser state has entries {', '.join(sorted(state)) or 'none'}; {type(self).__name__} "
                f"with these settings expects {', '.join(sorted(expected))}: use the recipe it was saved with"
            )
        for name, vector in own.items():
            if state[name].shape != vector.shape or state[name].dtype != vector.dtype:
                raise InputError(
                    f"optimiser state {name!r} is {tuple(state[name].shape)} of {state[name].dtype}; this "
                    f"model's is {tuple(vector.shape)} of {vector.dtype}: use the model it was saved with"
                )
        for name, vector in own.items():
            vector.copy_(state[name])
        self.steps = int(state["steps"])
        self.learning_rate = float(state["learning_rate"])


def _distinct(parameters: Iterable[Tensor]) -> list[Tensor]:
    """The parameters that want a gradient, each once; `InputError` where they cannot share one vector."""
    given = list({id(p): p for p in parameters}.values())
    wanted = [p for p in given if p.requires_grad]
    if not wanted:
        raise InputError(
            f"the optimiser got {len(given)} parameters, none of which requires a gradient; expected at "
            "least one (an iterator such as model.parameters() can be read only once)"
        )
    for what, kinds in (("dtype", {p.dtype for p in wanted}), ("device", {p.device for p in wanted})):
        if len(kinds) > 1:
            raise InputError(
                f"parameters are of more than one {what}: {', '.join(sorted(map(str, kinds)))}; expected "
                "one: convert the whole model with model.to(...) before building the optimiser"
            )
    return wanted


class SGD(Optimiser):
    """Stochastic gradient descent with momentum mu and weight decay lambda (Sutskever et al. 2013).

        g <- g + lambda theta
        v <- mu v + g
        theta <- theta - alpha v                      classical momentum, equations 1 and 2
        theta <- theta - alpha (g + mu v)             Nesterov's, equations 3 and 4 in the look-ahead variable

    alpha is the learning rate. It multiplies v here, as in torch, where the paper folds it into v: the same
    thing while alpha is constant; under a schedule a change of alpha acts at once on all of v.

    Raises `InputError` when momentum or weight_decay is out of range, or Nesterov is asked for without
    momentum.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: float,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
    ) -> None:
        _check_fraction("momentum", momentum)
        _check_decay(weight_decay)
        if nesterov and momentum == 0:
            raise InputError("nesterov is on and momentum is 0; expected a momentum above 0, such as 0.9")
        super().__init__(parameters, learning_rate, max_norm)
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        self._v = torch.zeros_like(self.theta) if momentum else None

    def _state(self) -> dict[str, Tensor]:
        return {} if self._v is None else {"v": self._v}

    def _rule(self, theta: Tensor, g: Tensor) -> None:
        alpha, mu, v = self.learning_rate, self.momentum, self._v
        if self.weight_decay:
            g.add_(theta, alpha=self.weight_decay)
        if v is None:
            theta.sub_(g, alpha=alpha)
            return
        v.mul_(mu).add_(g)
        if self.nesterov:
            theta.sub_(g.add_(v, alpha=mu), alpha=alpha)
        else:
            theta.sub_(v, alpha=alpha)


class Adam(Optimiser):
    """Adaptive moment estimation (Kingma & Ba 2015, Algorithm 1), with weight decay lambda as an L2 penalty.

        g <- g + lambda theta
        m <- beta1 m + (1 - beta1) g                  first moment
        v <- beta2 v + (1 - beta2) g^2                second moment
        m_hat = m / (1 - beta1^t),  v_hat = v / (1 - beta2^t)
        theta <- theta - alpha m_hat / (sqrt(v_hat) + eps)

    The last two lines are computed in the order that the end of section 2 recommends: with
    c = sqrt(1 - beta2^t), theta <- theta - (alpha c / (1 - beta1^t)) m / (sqrt(v) + c eps), which is the same
    number with two passes over the vector fewer.

    `engine` is ``auto``: the compiled rule for float32 and float64 on a CPU, else the plain one; ``native`` or
    ``reference`` ask for one of them.

    Raises `InputError` when betas, eps or weight_decay are out of range, or the engine cannot do it.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        max_norm: float | None = None,
        engine: EngineName = "auto",
    ) -> None:
        if len(betas) != 2:
            raise InputError(f"betas has {len(betas)} numbers; expected two, such as (0.9, 0.999)")
        _check_fraction("betas[0]", betas[0])
        _check_fraction("betas[1]", betas[1])
        if not eps >= 0:
            raise InputError(f"eps is {eps}; expected a number of at least 0, such as 1e-8")
        _check_decay(weight_decay)
        super().__init__(parameters, learning_rate, max_norm)
        self.betas = (float(betas[0]), float(betas[1]))
        self.eps = eps
        self.weight_decay = weight_decay
        self._m = torch.zeros_like(self.theta)
        self._v = torch.zeros_like(self.theta)
        check_engine(engine)
        obstacle = native.refuses(self.theta)
        if engine == "native":
            check_able(engine, obstacle)
        self._compiled = engine != "reference" and obstacle is None

    def _state(self) -> dict[str, Tensor]:
        return {"m": self._m, "v": self._v}

    def _decay(self) -> tuple[float, float]:
        """Weight decay before the moments are updated: what of theta is added to g, and what of theta is kept."""
        return self.weight_decay, 1.0

    @torch.no_grad()
    def step(self) -> Tensor:
        if not self._compiled:
            return super().step()
        gradients = self._gradients()
        self.steps += 1
        penalty, keep = self._decay()
        rate, eps = self._rate_and_eps()
        return native.adam(
            self.theta,
            self._m,
            self._v,
            gradients,
            self._sizes,
            self.max_norm,
            penalty=penalty,
            keep=keep,
            betas=self.betas,
            rate=rate,
            eps=eps,
        )

    def _rate_and_eps(self) -> tuple[float, float]:
        (beta1, beta2), t = self.betas, self.steps
        c = math.sqrt(1 - beta2**t)
        return self.learning_rate * c / (1 - beta1**t), c * self.eps

    def _rule(self, theta: Tensor, g: Tensor) -> None:
        (beta1, beta2), m, v = self.betas, self._m, self._v
        penalty, keep = self._decay()
        rate, eps = self._rate_and_eps()
        if penalty:
            g.add_(theta, alpha=penalty)
        if keep != 1:
            theta.mul_(keep)
        m.lerp_(g, 1 - beta1)
        v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        theta.addcdiv_(m, v.sqrt().add_(eps), value=-rate)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, Algorithm 2).

        theta <- theta - alpha lambda theta           instead of adding lambda theta to g
        then Adam's update

    The decay is scaled by the learning rate alpha, schedule included, as in torch; the paper scales it by the
    schedule's multiplier only, so its lambda is alpha_peak times this one. All parameters are decayed, biases
    too (torch's default).
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        learning_rate: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        max_norm: float | None = None,
        engine: EngineName = "auto",
    ) -> None:
        super().__init__(
            parameters,
            learning_rate,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            max_norm=max_norm,
            engine=engine,
        )

    def _decay(self) -> tuple[float, float]:
        return 0.0, 1 - self.learning_rate * self.weight_decay


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise InputError(f"{name} is {value}; expected a number from 0 up to, but not including, 1")


def _check_decay(value: float) -> None:
    if not (value >= 0 and math.isfinite(value)):
        raise InputError(f"weight_decay is {value}; expected a finite number of at least 0")


OPTIMISERS: dict[str, type[SGD] | type[Adam] | type[AdamW]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}

# -------------------------------------------------------------------------------------------------- schedules

Schedule = Callable[[int, int, float], float]
"""``learning_rate = schedule(step, total_steps, peak)``, for step = 0, 1, ..., total_steps - 1."""


def constant(step: int, total_steps: int, peak: float) -> float:
    """alpha = peak at every step."""
    _check_step(step, total_steps)
    return peak


def one_cycle(step: int, total_steps: int, peak: float) -> float:
    """Up a half cosine from peak / 25 to peak, then down to peak / 250,000.

    With P = 0.3 total_steps - 1 the (possibly fractional) step of the peak, L = total_steps - 1 the last step, and
    cos_(a, b, x) = b + (a - b) (1 + cos(pi x)) / 2:

        step <= P:  cos_(peak / 25, peak, step / P)
        step >  P:  cos_(peak, peak / 250,000, (step - P) / (L - P))

    Smith & Topin 2018 with the cosine shape and the constants of torch's ``OneCycleLR``; momentum is not
    cycled. Where the rise is shorter than one step (P <= 0), the cycle starts at the peak.

    Raises `InputError` when step is outside the run.
    """
    _check_step(step, total_steps)
    low = peak / 25
    top, last = max(0.0, 0.3 * total_steps - 1), total_steps - 1
    if step <= top:
        return _half_cosine(low, peak, step / top) if top > 0 else peak
    return _half_cosine(peak, low / 1e4, (step - top) / (last - top))


def cosine(step: int, total_steps: int, peak: float, *, floor: float = 0.0) -> float:
    """Half a cosine from peak towards floor; no restarts.

        floor + (peak - floor) (1 + cos(pi step / total_steps)) / 2

    Loshchilov & Hutter 2017, equation 5. Floor itself would be reached at step = total_steps, one after the last.

    Raises `InputError` when step is outside the run.
    """
    _check_step(step, total_steps)
    return _half_cosine(peak, floor, step / total_steps)


def _half_cosine(start: float, end: float, x: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * x)) / 2


def _check_step(step: int, total_steps: int) -> None:
    if not 0 <= step < total_steps:
        raise InputError(f"step is {step} of a run of {total_steps}; expected 0 to total_steps - 1")


SCHEDULES: dict[str, Schedule] = {"constant": constant, "one_cycle": one_cycle, "cosine": cosine}

# ------------------------------------------------------------------------------------------- weight averaging


class WeightAverage:
    """A running average of theta that forgets its own beginning, for evaluation with smoother weights.

        d_t = min(decay, (1 + t) / (10 + t))          t = 0, 1, ... updates so far
        average <- d_t average + (1 - d_t) theta

    While (1 + t) / (10 + t) is the smaller, this is polynomial-decay averaging (Shamir & Zhang 2013, section
    4, eta = 8): the average reaches back over about the last ninth of the run *so far*, however long that is,
    so that a run of a few hundred steps is averaged sensibly with no length to tune and the random starting
    weights vanish as t^-9. From t = (10 decay - 1) / (1 - decay) on (8,990 updates for 0.999) it is the usual
    exponential average over the last 1 / (1 - decay) updates.

    Raises `InputError` when decay is not in [0, 1).
    """

    def __init__(self, theta: Tensor, decay: float = 0.999) -> None:
        _check_fraction("decay", decay)
        self.decay = decay
        self.updates = 0
        self.average = theta.detach().clone()

    @torch.no_grad()
    def update(self, theta: Tensor) -> None:
        """Take theta (N,) into the average; to be called after each `Optimiser.step`."""
        t = self.updates
        self.average.lerp_(theta, 1 - min(self.decay, (1 + t) / (10 + t)))
        self.updates = t + 1

    def state_dict(self) -> dict[str, Tensor]:
        """The average (copied) and the number of updates, as a flat dict that safetensors can save."""
        return {"average": self.average.clone(), "updates": torch.tensor(self.updates)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned. Raises `InputError` when it is of a model of another size."""
        if set(state) != {"average", "updates"}:
            raise InputError(
                f"weight-average state has the entries {', '.join(sorted(state)) or 'none'}; expected average, updates"
            )
        came, own = state["average"], self.average
        if came.shape != own.shape or came.dtype != own.dtype:
            raise InputError(
                f"averaged weights are {tuple(came.shape)} of {came.dtype}; this model's are "
                f"{tuple(own.shape)} of {own.dtype}: use the model that the state was saved with"
            )
        self.average.copy_(came)
        self.updates = int(state["updates"])


@contextmanager
def applied(weights: Tensor, theta: Tensor) -> Iterator[None]:
    """``with applied(average.average, optimiser.theta):`` the model has those weights; after it, its own."""
    own = theta.detach().clone()
    with torch.no_grad():
        theta.copy_(weights)
    try:
        yield
    finally:
        with torch.no_grad():
            theta.copy_(own)
