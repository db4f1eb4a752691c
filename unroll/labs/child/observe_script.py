"""Observes the in-class lab's script while it runs: its parameters, the forward of each sentence, and every update.

A script has no class to call again, so it is looked at from within: a function mode sees each call of torch, and at each
``backward()`` (or ``torch.autograd.grad``) the parameters, their gradients and the loss are noted. Nothing is judged here.
"""

from __future__ import annotations

import ast
import builtins
import itertools
import linecache
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode

from unroll.labs.child.lines import described, frames, line_now, parsed
from unroll.labs.child.patches import Patches
from unroll.labs.child.script_tensors import (
    array_of,
    behind,
    leaves,
    list_of,
    number_of,
    same,
    stacked,
    stop_of,
)
from unroll.labs.child.tape import tensors
from unroll.labs.judge.script_roles import role_by_name

FULL = (
    8  # backward passes whose forward is kept call by call; of the later ones only parameters, gradients and the loss
)
MOST = 2000  # backward passes that are kept at all; the lab makes 600
NUMBERS = 2_000_000  # of all parameters that are kept, over all backward passes
SMALL = 400  # elements of a tensor that is looked at
_PRODUCTS = frozenset(
    "matmul __matmul__ __rmatmul__ mm mv dot addmm addmv einsum linear cat concat hstack vstack".split()  # noqa: SIM905
)
_CHOICES = frozenset("argmax argmin max min topk sort argsort".split())  # noqa: SIM905
# What hands a tensor's values to Python, or compares them: one of these comes before each prediction that was computed.
_OF_ONE = frozenset(
    "item tolist numpy __array__ __bool__ __int__ __float__ __index__ __repr__ __str__ __format__ __contains__ __dlpack__".split()  # noqa: SIM905
)
_READ_OUT = (
    _OF_ONE
    | _CHOICES
    | frozenset(
        """__gt__ __lt__ __ge__ __le__ __eq__ __ne__ gt lt ge le eq ne greater less round where sign heaviside equal aminmax
        bernoulli multinomial""".split()  # noqa: SIM905
    )
)
# Calls that a forward ends with; at them the parameters are looked at, in case the gradients are worked out by hand.
_ENDS = frozenset("cross_entropy nll_loss log_softmax softmax logsumexp exp sigmoid".split())  # noqa: SIM905
# Backward passes after which the losses' own rows are not kept any longer, where most losses had a backward.
_USUAL = 100
_ASKED = frozenset(
    "shape size dim ndim numel dtype device requires_grad is_leaf grad grad_fn data __repr__ __str__ __format__ __len__".split()  # noqa: SIM905
)


class ScriptRecorder:
    """Records a script while it runs; a context manager around its execution.

    Args:
        filename: what the script's text is compiled under, which tells its frames from others.
        namespace: the one that it is executed in.
    """

    def __init__(self, filename: str, namespace: dict[str, Any]) -> None:
        self.filename, self.namespace = filename, namespace
        self._passes: list[dict[str, Any]] = []  # one a backward
        # One an end of a forward: stands in for them where gradients are by hand.
        self._losses: list[dict[str, Any]] = []
        self._read_out = {"certain": 0, "since": 0, "products": 0}  # see `_count_reading`
        self._count = 0
        self._numbers = 0
        self._tape: list[dict[str, Any]] = []
        self._taken: list[dict[str, Any]] = []  # calls of the cross-entropy since the last backward
        self._kept: list[Any] = []  # holds results, so that no other tensor gets their id
        self._lines: dict[int, tuple[int, str]] = {}  # id of a result -> the line and name of the call that made it
        self._last: dict[str, Tensor] = {}
        self._known: set[str] = set()  # names of parameters
        self._last_loss: Tensor | None = None
        self._updates: dict[str, dict[str, Any]] = {}
        self._printed: list[dict[str, Any]] = []
        self._choices: list[dict[str, Any]] = []
        self._plots: list[dict[str, Any]] = []
        self._optimizers: dict[str, int | None] = {}
        self._modules: dict[str, int | None] = {}
        self._failed: dict[str, Any] | None = None
        self._stopped: dict[str, Any] | None = None
        self._targets: dict[int, str] | None = None
        self._busy = False  # in calls of torch that are ours, and no part of the script
        self._patches, self._mode = Patches(), _Mode(self)

    # --- the time of running ------------------------------------------------------------------------------------------

    def __enter__(self) -> ScriptRecorder:
        import matplotlib.axes

        patch = self._patches
        patch.wrap(torch.autograd, "backward", lambda plain: self._around(plain, "backward"))
        patch.wrap(torch.autograd, "grad", lambda plain: self._around(plain, "grad"))
        patch.wrap(builtins, "print", self._around_print)
        patch.wrap(matplotlib.axes.Axes, "plot", self._around_plot)
        patch.later(register_optimizer_step_pre_hook(self._step).remove)
        patch.later(register_module_forward_pre_hook(self._module).remove)
        self._mode.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._mode.__exit__(kind, error, trace)  # type: ignore[no-untyped-call]
        self._patches.undo()
        if error is not None:
            self._stopped = described(error, self.filename)

    def line(self) -> int | None:
        """The line of the script that is being run; None in a call that is not the script's."""
        return line_now(self.filename)

    def _raised(self, error: Exception) -> dict[str, Any]:
        return described(error, self.filename) | {"line": self.line()}

    @contextmanager
    def _aside(self) -> Iterator[None]:
        before, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = before

    # --- names --------------------------------------------------------------------------------------------------------

    def _named(self) -> dict[str, Tensor]:
        """Every tensor that has a name in the script, by its name; direct names first."""
        found: dict[str, Tensor] = {}
        places = [self.namespace, *(f.f_locals for f in frames(self.filename) if f.f_code.co_name != "<module>")]
        inner: list[tuple[str, Any]] = []
        for place in places:
            for name, value in list(place.items()):
                if name.startswith("__"):
                    continue
                if isinstance(value, Tensor):
                    found[name] = value
                elif isinstance(value, list | tuple | dict | nn.Module) or self._own(value):
                    inner.append((name, value))
        for name, value in inner:
            for path, tensor in self._inside(name, value):
                found.setdefault(path, tensor)
        return found

    def _own(self, value: Any) -> bool:
        return type(value).__module__ == self.namespace.get("__name__") and hasattr(value, "__dict__")

    def _inside(self, name: str, value: Any) -> Iterator[tuple[str, Tensor]]:
        if isinstance(value, nn.Module):
            yield from ((f"{name}.{inner}", tensor) for inner, tensor in value.named_parameters())
        elif isinstance(value, list | tuple):
            if len(value) <= 20:
                yield from ((f"{name}[{n}]", one) for n, one in enumerate(value) if isinstance(one, Tensor))
        elif isinstance(value, dict):
            if len(value) <= 20:
                yield from ((f"{name}[{key!r}]", one) for key, one in list(value.items()) if isinstance(one, Tensor))
        else:
            for inner, one in list(vars(value).items()):
                if isinstance(one, Tensor):
                    yield f"{name}.{inner}", one
                elif isinstance(one, nn.Module | list | tuple | dict):
                    yield from self._inside(f"{name}.{inner}", one)

    def _parameters(self, loss: Tensor | None) -> tuple[dict[str, Tensor], list[str]]:
        """What may be a parameter, by name: what the loss was computed from, and what is called like one."""
        named = self._named()
        by_id: dict[int, str] = {}
        for name, tensor in named.items():
            if id(tensor) not in by_id or self._better(name) > self._better(by_id[id(tensor)]):
                by_id[id(tensor)] = name
        found: dict[str, Tensor] = {}
        used = []
        for number, leaf in enumerate(leaves(loss)):
            name = by_id.get(id(leaf), f"leaf {number}")
            if leaf.numel() * (len(self._passes) + 1) <= NUMBERS:
                found[name] = leaf
                used.append(name)
        ids = {id(t) for t in found.values()}
        for name, tensor in named.items():
            if id(tensor) in ids or name in found or not tensor.is_floating_point() or tensor.numel() > NUMBERS:
                continue
            if role_by_name(name) is not None:
                found[name] = tensor
                ids.add(id(tensor))
        self._known |= found.keys()
        return found, used

    def _better(self, name: str) -> tuple[bool, bool]:
        """How good a name of a parameter is: one of the lab's before others, one of earlier passes before a loop's variable."""
        return role_by_name(name) is not None, name in self._known

    # --- calls --------------------------------------------------------------------------------------------------------

    def called(self, func: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Make a call of torch for the script, and note it."""
        if self._busy:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if name in ("__get__", "__set__"):
            name = f"{getattr(getattr(func, '__self__', None), '__name__', name)}{'=' if name == '__set__' else ''}"
        grads = torch.is_grad_enabled()
        try:
            result = func(*args, **kwargs)
        except Exception as error:
            self._failed = {**self._raised(error), "call": name, "passes": self._count}
            raise
        with self._aside():
            self._look(name, result, args, kwargs, grads)
        return result

    def _look(self, name: str, result: Any, args: Any, kwargs: Any, grads: bool) -> None:
        if name == "cross_entropy":
            self._cross_entropy(args, kwargs)
        if name in _ENDS:
            self._end_of_forward(name, result)
        self._count_reading(name, args, kwargs)
        if self._count <= FULL and name not in _ASKED:
            self._note(name, result, args, kwargs, grads)
        if name in _CHOICES and args and isinstance(args[0], Tensor) and args[0].numel() <= SMALL:
            picked = result if isinstance(result, Tensor) else getattr(result, "indices", None)
            if isinstance(picked, Tensor) and not picked.is_floating_point():
                row = {"call": name, "given": list_of(args[0]), "picked": list_of(picked), "line": self.line()}
                self._choices = [*self._choices[-63:], {**row, "passes": self._count}]

    def _note(self, name: str, result: Any, args: Any, kwargs: Any, grads: bool) -> None:
        given = list(tensors((args, kwargs)))
        line = self.line()
        if line is None or len(self._tape) > 3000:
            return
        if (
            given
            and name not in ("requires_grad_", "requires_grad=", "grad=")
            and (name.endswith(("_", "=")) or (name.startswith("__i") and name.endswith("__")))
        ):
            self._change(name, given[0], line, grads)
        row: dict[str, Any] = {"call": name, "line": line, "to": self._target(line)}
        row["with"] = [list_of(t) if t.numel() <= SMALL else [] for t in given] if name in _PRODUCTS else []
        if isinstance(result, Tensor):
            self._kept.append(result)
            self._lines[id(result)] = (line, name)
            if result.numel() <= SMALL and result.is_floating_point():
                row["value"], row["shape"] = list_of(result), list(result.shape)
        self._kept.extend(given)
        row["ids"] = [id(t) for t in given]
        row["id"] = id(result)
        self._tape.append(row)

    def _change(self, name: str, target: Tensor, line: int, grads: bool) -> None:
        """An in-place call: an update where its target is a parameter, or shares a parameter's memory."""
        for one, tensor in self._last.items():
            if target is tensor or (target.numel() == tensor.numel() and target.data_ptr() == tensor.data_ptr()):
                idle = tensor.is_leaf and (tensor.grad is None or not bool(tensor.grad.any()))
                self._updates.setdefault(one, {"call": name, "line": line, "grad": grads, "idle": idle})

    def _target(self, line: int) -> str | None:
        """The name that the statement on a line is assigned to."""
        if self._targets is None:
            self._targets = {}
            for node in ast.walk(parsed(self.filename)):
                if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
                    goal = node.targets[0] if isinstance(node, ast.Assign) else node.target
                    for number in range(node.lineno, (node.end_lineno or node.lineno) + 1):
                        self._targets[number] = ast.unparse(goal)
        return self._targets.get(line)

    def _cross_entropy(self, args: Any, kwargs: Any) -> None:
        logits = args[0] if args else kwargs.get("input")
        target = args[1] if len(args) > 1 else kwargs.get("target")
        if not isinstance(logits, Tensor) or not isinstance(target, Tensor) or logits.numel() > SMALL:
            return
        row = {"line": self.line(), "input": list_of(logits), "shape": list(logits.shape), "target": list_of(target)}
        self._taken = [*self._taken[-7:], row]

    def _end_of_forward(self, name: str, result: Any) -> None:
        """Note the parameters, and the loss where the call gives one, unless updates are known to follow a backward."""
        loss = name in ("cross_entropy", "nll_loss") and isinstance(result, Tensor) and result.numel() == 1
        if len(self._losses) >= MOST or (self._count >= _USUAL and 4 * self._count >= len(self._losses)):
            return
        found, _ = self._parameters(None)
        values = {name: array_of(t) for name, t in found.items()}
        if self._count <= FULL:
            self._last = {**self._last, **found}
        last = self._losses[-1] if self._losses else None
        if last is not None and same(last["values"], values):
            if not loss:
                return
            if last["loss"] is None:
                self._losses.pop()
        self._numbers += sum(v.size for v in values.values())
        if self._numbers <= NUMBERS or len(self._losses) < FULL:
            row = self._row("loss", float(result.detach()) if loss else None, values, found)
            self._losses.append(row | {"passes": self._count})

    def _count_reading(self, name: str, args: Any, kwargs: Any) -> None:
        """Count calls that hand values to Python or compare them, without which no prediction is computed.

        ``since`` the last backward: of several values, of whole numbers, or of any after a product, as in a test. In the time
        before the value of a loss is read as well, so that single values do not count, unless they are compared.
        """
        seen = self._read_out
        if name in _PRODUCTS:
            seen["products"] += 1
        elif name in _READ_OUT:
            given = list(tensors((args, kwargs)))
            certain = name not in _OF_ONE or any(t.numel() > 1 or not t.is_floating_point() for t in given)
            seen["certain"] += certain
            seen["since"] += certain or seen["products"] > 0

    # --- backward -----------------------------------------------------------------------------------------------------

    def _row(self, kind: str, loss: float | None, values: dict[str, Any], found: dict[str, Tensor]) -> dict[str, Any]:
        row: dict[str, Any] = {"kind": kind, "line": self.line(), "loss": loss, "values": values}
        row |= {"before": {}, "after": {}, "used": [], "error": None, "taken": self._taken, "tape": [], "names": {}}
        if len(self._losses if kind == "loss" else self._passes) < FULL:
            row["names"] = {name: self._about(t) for name, t in found.items()}
        return row

    def _about(self, tensor: Tensor) -> dict[str, Any]:
        line, call = self._lines.get(id(tensor), (None, None))
        return {
            "shape": list(tensor.shape),
            "requires_grad": tensor.requires_grad,
            "leaf": tensor.is_leaf,
            "grad": tensor.is_leaf and tensor.grad is not None,
            "line": line,
            "call": call,
        }

    def _around(self, original: Callable[..., Any], kind: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.line() is None:
                return original(*args, **kwargs)
            first = args[0] if args else kwargs.get("tensors", kwargs.get("outputs"))
            loss = next(tensors(first), None)
            if loss is None or loss.numel() != 1:
                return original(*args, **kwargs)
            with self._aside():
                row, found = self._begin(kind, loss)
            try:
                result = original(*args, **kwargs)
            except Exception as error:
                row["error"] = self._raised(error)
                raise
            with self._aside():
                if kind == "backward":
                    row["after"] = {n: array_of(t.grad) for n, t in found.items() if t.is_leaf and t.grad is not None}
                else:
                    asked = args[1] if len(args) > 1 else kwargs.get("inputs")
                    asked = [asked] if isinstance(asked, Tensor) else list(asked or [])
                    names = {id(t): n for n, t in found.items()}
                    for tensor, grad in zip(asked, result, strict=False):
                        if isinstance(grad, Tensor) and id(tensor) in names:
                            row["after"][names[id(tensor)]] = array_of(grad)
            return result

        return call

    def _begin(self, kind: str, loss: Tensor) -> tuple[dict[str, Any], dict[str, Tensor]]:
        found, used = self._parameters(loss)
        if kind == "grad" and self._passes and loss is self._last_loss:  # one call a parameter: the same pass
            return self._passes[-1], found
        values = {name: array_of(t) for name, t in found.items()}
        row = self._row(kind, float(loss.detach()), values, found)
        row["used"] = used
        if kind == "backward":
            row["before"] = {n: array_of(t.grad) for n, t in found.items() if t.is_leaf and t.grad is not None}
        row["taken"] = self._taken
        if self._count < FULL:
            ids = {id(t): n for n, t in found.items()}
            needed = {id(call) for call in behind(self._tape, loss)}
            for call in self._tape[-1000:]:
                call["behind"] = id(call) in needed
                if not call["behind"] and not call["with"]:
                    continue
                call["of"] = [ids[i] for i in call["ids"] if i in ids]
                call["with"] = [one for i, one in zip(call["ids"], call["with"], strict=False) if i not in ids]
                row["tape"].append({k: v for k, v in call.items() if k not in ("id", "ids")})
        self._numbers += sum(3 * v.size for v in values.values())
        if len(self._passes) < MOST and (self._numbers <= NUMBERS or self._count < FULL):
            self._passes.append(row)
        self._count += 1
        self._read_out = {"certain": self._read_out["certain"], "since": 0, "products": 0}
        self._tape, self._taken, self._last, self._last_loss = [], [], found, loss
        if self._count > FULL:
            self._kept.clear()
        return row, found

    # --- what else is seen --------------------------------------------------------------------------------------------

    def _step(self, optimizer: Any, *_: Any) -> None:
        self._optimizers.setdefault(type(optimizer).__name__, self.line())

    def _module(self, module: nn.Module, *_: Any) -> None:
        if isinstance(module, nn.RNNBase | nn.RNNCellBase):
            self._modules.setdefault(type(module).__name__, self.line())

    def _around_print(self, original: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any, **kwargs: Any) -> None:
            original(*args, **kwargs)
            if self.line() is not None and len(self._printed) < 3000:
                sep = kwargs.get("sep")
                end = kwargs.get("end")
                with self._aside():
                    text = (" " if sep is None else sep).join(map(str, args)) + ("\n" if end is None else end)
                self._printed.append({"text": text[:1000], "line": self.line(), "passes": self._count})

        return call

    def _around_plot(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(axes: Any, *args: Any, **kwargs: Any) -> Any:
            lines = original(axes, *args, **kwargs)
            self._plots.append({"line": self.line(), "points": [len(one.get_xdata()) for one in lines]})
            return lines

        return call

    # --- what is handed back ------------------------------------------------------------------------------------------

    def data(self, outcome: dict[str, Any] | None = None) -> dict[str, Any]:
        """What was seen, as JSON values and numpy arrays.

        Args:
            outcome: of the execution, where that has caught what the script raised: ``type``, ``message`` and ``line``,
                or the same under ``error``; ``stopped`` and ``line`` where its time was up.

        Returns:
            ``passes``: one row a backward; ``values``, ``before``, ``after``: for each parameter the rows of all passes,
            NaN where there was none, and after the last pass in ``final``; and what was printed, drawn and chosen.
        """
        rows = self._losses if self._by_hand() else self._passes
        named = {} if rows else {n: t for n, t in self._named().items() if t.is_floating_point() and t.numel() <= SMALL}
        final = {name: array_of(t) for name, t in self._last.items()}
        stopped = self._stopped or stop_of(outcome)
        if stopped is not None:
            stopped = stopped | {"code": linecache.getline(self.filename, stopped["line"] or 0).strip()}
        ended = self._named()
        for name in {name for row in rows for name in row["values"]}:
            if name in ended and ended[name].numel() <= NUMBERS:
                final[name] = array_of(ended[name])
        return {
            "stopped": stopped,
            "failed": self._failed,
            "passes": [
                {k: v for k, v in row.items() if k not in ("values", "before", "after")}
                if n < FULL
                else {k: row[k] for k in ("kind", "line", "loss", "error")}
                for n, row in enumerate(rows)
            ],
            "count": self._count,
            "open": [{k: v for k, v in call.items() if k not in ("id", "ids")} for call in self._tape[-200:]],
            **{key: stacked(rows, key) for key in ("values", "before", "after")},
            "final": final,
            "named": {name: self._about(t) | {"value": array_of(t)} for name, t in named.items()},
            "ended": {n: self._about(t) for n, t in ended.items() if role_by_name(n) is not None},
            "made": self._made(),
            "backward": any("backward(" in line.split("#")[0] for line in linecache.getlines(self.filename)),
            "updates": self._updates,
            "optimizers": self._optimizers,
            "modules": self._modules,
            "printed": self._printed,
            "choices": self._choices,
            "plots": self._plots,
            "read_out": self._read_out,
            "settings": self._settings(),
        }

    def _by_hand(self) -> bool:
        """Whether parameters change again and again without a backward between, so that no update follows from one."""
        if not self._passes:
            return True
        changes = alone = at = 0
        for before, after in itertools.pairwise(self._losses):
            if not same(before["values"], after["values"]):
                changes += 1
                alone += after["passes"] == at
                at = after["passes"]
        return alone >= 3 and alone > 0.8 * changes

    def _made(self) -> dict[str, int]:
        """The line of the first assignment to each name."""
        self._target(1)
        made: dict[str, int] = {}
        for line, goal in sorted((self._targets or {}).items()):
            for name in re.findall(r"[\w.]+", goal):
                made.setdefault(name, line)
        return made

    def _settings(self) -> dict[str, Any]:
        space = self.namespace
        found: dict[str, Any] = {}
        for name in ("n", "m", "T", "num_epochs", "learning_rate", "lr"):
            if isinstance(space.get(name), int | float):
                found[name] = space[name]
        vocab = space.get("vocab")
        if isinstance(vocab, dict):
            found["vocab"] = {str(k): v for k, v in vocab.items() if isinstance(v, int)}
        history = space.get("loss_history")
        if isinstance(history, list | tuple):
            found["loss_history"] = [number_of(one) for one in history[:MOST]]
        return found


class _Mode(TorchFunctionMode):
    """Hands every call of torch that the script makes to the recorder."""

    def __init__(self, recorder: ScriptRecorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.recorder.called(func, args, kwargs or {})
