"""What a student's training loop, its test and its pictures do, seen from outside while the whole file runs on few images.

Nothing is asked of the text but what a short run cannot show (`observe_code`): what counts is which images go into the model,
what the loss is given, which gradients are there, and which parameters change.
"""

from __future__ import annotations

import builtins
import functools
import linecache
import logging
import math
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as modules
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.data import DataLoader

from unroll.labs.child.few_batches import FewBatches
from unroll.labs.child.graph import nodes_below
from unroll.labs.child.lines import frames, line_now
from unroll.labs.child.observe_code import read_code
from unroll.labs.child.observe_loss import facts_of, form_of
from unroll.labs.child.observe_pictures import LONGEST, Album, Gallery, Parts
from unroll.labs.child.patches import Patches
from unroll.labs.child.tracked import Tracked

MOST = 20_000  # events that are kept: a loop over single images on the small set has 256 of each kind an epoch
MOST_GRAPHS = 1024  # rows of outputs whose graphs are held back for the next backward pass
MOST_NODES = 4000  # of a graph that are looked at


class TrainingRecorder:
    """Records what a file does to the images, the model and the figures, between entering and leaving.

    Args:
        filename: the name that the file's text was compiled with; only its lines are told.
        parts: the images to know again: ``train`` and ``test`` -> (images (N, 28, 28) of uint8, labels (N,)); None: those that
            `unroll.labs.child.served` has served.
        text: the file's text; None: as `linecache` has it.
        whole: whether every epoch runs over all of its batches; else see `FewBatches`.

    Attributes:
        few: cuts long trainings short; None with `whole`.
        modules: every module whose forward was called, outermost first.
    """

    def __init__(
        self, filename: str | Path, parts: Parts | None = None, text: str | None = None, whole: bool = False
    ) -> None:
        self.filename = str(filename)
        self._parts, self._text = parts, text
        self.few = None if whole else FewBatches()
        self._album = Album(parts or {})
        self._served = 0
        self.events: list[dict[str, Any]] = []
        self.failed: list[str] = []
        self._images: list[np.ndarray[Any, Any]] = []
        self._predicted: list[np.ndarray[Any, Any]] = []
        self._rows = 0
        self._depths: dict[int, tuple[nn.Module, int]] = {}
        self._stack: list[int] = []
        self._direct: dict[int, nn.Module] = {}
        self._tracked: dict[int, tuple[int, Tracked] | None] = {}
        self._outputs: deque[tuple[int, Tensor]] = deque(maxlen=4)
        self._graphs: dict[int, tuple[Any, int, int]] = {}  # id(node) -> node, event, rows
        self._optimizers: dict[int, tuple[int, Any, dict[str, Any]]] = {}
        self._loaders: dict[int, tuple[int, Any]] = {}
        # module -> values, gradients, what was stepped
        self._kept: dict[int, tuple[list[float], list[float | None], set[int]]] = {}
        self._held: list[tuple[Tensor, Tensor]] | None = None  # the first gradients that were added to, as they were
        self._patches = Patches()
        self._gallery = Gallery(self.album, self.line, lambda: len(self.events), self.quietly)
        self._raised: str | None = None
        self._watching = False

    # --- beginning and end ------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        before = register_module_forward_pre_hook(self._before_module)
        after = register_module_forward_hook(self._after_module, with_kwargs=True, always_call=True)
        step = register_optimizer_step_pre_hook(self._before_step)
        stepped = register_optimizer_step_post_hook(self._after_step)
        patch = self._patches
        for hook in (before, after, step, stepped):
            patch.later(hook.remove)
        # What torch forgets when such a hook is removed; torch.compile takes it for a hook.
        patch.later(lambda: modules._global_forward_hooks_with_kwargs.pop(after.id, None))
        patch.wrap(torch.autograd, "backward", self._watched_backward)
        patch.wrap(torch.autograd, "grad", self._watched_grad)
        # A function mode would be told of these too, and of every other call: half as much again for a small model.
        for loss in ("cross_entropy", "nll_loss"):
            patch.wrap(F, loss, functools.partial(self._watched_loss, loss))
        for owner in (torch, Tensor):
            for maximum in ("argmax", "max"):
                patch.wrap(owner, maximum, self._watched_maximum)
        patch.wrap(DataLoader, "__iter__", self._watched_loader)
        patch.wrap(builtins, "print", self._watched_print)
        patch.wrap(logging.Logger, "handle", self._watched_log)
        self._gallery.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gallery.stop()
        self._patches.undo()
        if kind is not None and kind is not SystemExit:
            self._raised = kind.__name__
        self._graphs.clear()
        self._outputs.clear()

    # --- what all of them need --------------------------------------------------------------------------------------

    def line(self) -> int | None:
        """The student's line that is being run, the innermost one."""
        return line_now(self.filename)

    def quietly(self, watch: Callable[..., Any], *args: Any) -> Any:
        """Look on: what cannot be looked at is noted, and is never an error in the student's code."""
        if self._watching:  # our own sums and comparisons
            return None
        self._watching = True
        try:
            with torch.no_grad():
                return watch(*args)
        except Exception as error:
            if len(self.failed) < 20:
                self.failed.append(f"{type(error).__name__}: {error}"[:LONGEST])
            return None
        finally:
            self._watching = False

    def album(self) -> Album:
        """The images that are known again; those that are served are known once they were made."""
        if self._parts is None:
            served = sys.modules.get("unroll.labs.child.served")
            made = [] if served is None else list(served.made)
            if len(made) != self._served:
                self._served = len(made)
                before = self._album.counts["train"]
                self._album = Album({"train" if d.train else "test": (d.data, d.targets) for d in made})
                moved = self._album.counts["train"] - before  # the test images' numbers, where those came first
                if moved and not before:
                    for images in self._images:
                        images[images >= 0] += moved
                    for picture in self._gallery.pictures:
                        picture["images"] = [image + moved for image in picture["images"]]
        return self._album

    def _add(self, kind: str, **facts: Any) -> dict[str, Any] | None:
        if len(self.events) >= MOST:
            return None
        event = {"kind": kind, "line": self.line(), **facts}
        self.events.append(event)
        return event

    # --- modules ----------------------------------------------------------------------------------------------------

    def _before_module(self, module: nn.Module, args: Any) -> None:
        depth = len(self._stack)
        self._stack.append(id(module))
        known = self._depths.get(id(module))
        if known is None or depth < known[1]:
            self._depths[id(module)] = module, depth
        if depth == 0:
            self.quietly(self._find_direct, module)

    def _find_direct(self, module: nn.Module) -> None:
        """Find a module whose ``forward`` is called directly, past the hooks, and watch that from the next call on."""
        for frame in frames(self.filename):
            owner = frame.f_locals.get("self")
            if (
                frame.f_code.co_name == "forward"
                and isinstance(owner, nn.Module)
                and id(owner) not in self._direct
                and "forward" not in vars(owner)
            ):
                self._watch_direct(owner)

    def _watch_direct(self, owner: nn.Module) -> None:
        plain = owner.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if id(owner) in self._stack:
                return plain(*args, **kwargs)
            self._before_module(owner, args)
            result = None
            try:
                result = plain(*args, **kwargs)
            finally:
                self._after_module(owner, args, kwargs, result)
            return result

        self._direct[id(owner)] = owner
        self._depths[id(owner)] = owner, -1
        owner.forward = forward
        self._patches.later(lambda: vars(owner).pop("forward", None))

    def _after_module(self, module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        if id(module) in self._stack:
            del self._stack[self._stack.index(id(module)) :]
        if self._stack or result is None:
            return
        tracked = self._track(module)
        if tracked is not None:
            self.quietly(self._on_forward, tracked, module, (*args, *kwargs.values()), result, torch.is_grad_enabled())

    def _track(self, module: nn.Module) -> int | None:
        """The number of an outermost module; None for what has no parameters, such as a loss."""
        if id(module) not in self._tracked:
            tracked = Tracked(module)
            self._tracked[id(module)] = (len(self._known()), tracked) if tracked.names else None
            if tracked.names and self.few is not None:
                self.few.on_model()
        found = self._tracked[id(module)]
        return None if found is None else found[0]

    def _known(self) -> list[Tracked]:
        return [found[1] for found in self._tracked.values() if found is not None]

    def _on_forward(self, number: int, module: nn.Module, given: tuple[Any, ...], result: Any, grad: bool) -> None:
        inputs = next((g for g in given if isinstance(g, Tensor)), None)
        images = None
        if inputs is not None:
            images = self.album().find(inputs.detach().float().cpu().numpy())
        results = result if isinstance(result, tuple | list) else [result]
        output = next((r for r in results if isinstance(r, Tensor) and r.dim() == 2), None)
        rows = 0 if images is None else len(images)
        predicted = np.full(rows, -1, np.int16)
        if output is not None and len(output) == rows and output.shape[1] > 1:
            predicted = output.detach().float().cpu().numpy().argmax(1).astype(np.int16)
        event = self._add("forward", module=number, start=self._rows, rows=rows, grad=grad, training=module.training)
        if event is None:
            return
        if images is not None:
            self._images.append(images)
            self._predicted.append(predicted)
            self._rows += rows
        if output is None:
            return
        at = len(self.events) - 1
        self._outputs.append((at, output))
        node = output.grad_fn
        if node is not None:
            held = sum(r for _, _, r in self._graphs.values())
            # Evaluation that keeps graphs must not fill the memory.
            while self._graphs and held + len(output) > MOST_GRAPHS:
                held -= self._graphs.pop(next(iter(self._graphs)))[2]
            self._graphs[id(node)] = node, at, len(output)

    # --- the loss ---------------------------------------------------------------------------------------------------

    def _watched_loss(self, name: str, plain: Any) -> Any:
        def loss(*args: Any, **kwargs: Any) -> Any:
            result = plain(*args, **kwargs)
            self.quietly(self._on_loss, name, args, kwargs, result)
            return result

        return loss

    def _watched_maximum(self, plain: Any) -> Any:
        def maximum(*args: Any, **kwargs: Any) -> Any:
            if args[1:] or kwargs:
                self.quietly(self._on_maximum, args, kwargs)
            return plain(*args, **kwargs)

        return maximum

    def _on_loss(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        given = args[0] if args else kwargs.get("input")
        target = args[1] if len(args) > 1 else kwargs.get("target")
        if not isinstance(given, Tensor) or not isinstance(target, Tensor) or given.dim() != 2:
            return
        values = given.detach().double().cpu().numpy()
        forward, form = form_of(given, values, reversed(self._outputs))
        event = self._add(
            "loss",
            name=name,
            forward=forward,
            form=form,
            **facts_of(given, values),
            grad=isinstance(result, Tensor) and result.requires_grad,
        )
        if event is None or forward is None:
            return
        begun = self.events[forward]
        images = self._images_of(begun)
        labels = target.detach().cpu().numpy()
        if labels.ndim == 2 and labels.shape == values.shape and bool(((labels == 0) | (labels == 1)).all()):
            labels = labels.argmax(1)
        if labels.ndim != 1 or len(images) != len(labels):
            return
        known = images >= 0
        true, came = self.album().labels[images[known]], labels[known].astype(np.int64)
        event["known"], event["wrong"] = int(known.sum()), int((true != came).sum())
        if event["wrong"]:
            shifts = set(((came - true) % 10).tolist())
            event["shift"] = shifts.pop() if len(shifts) == 1 else None
            event["same_labels"] = bool((np.sort(true) == np.sort(came)).all())
            event["examples"] = [[int(t), int(c)] for t, c in zip(true, came, strict=True) if t != c][:3]

    def _images_of(self, event: dict[str, Any]) -> np.ndarray[Any, Any]:
        if not event["rows"]:
            return np.zeros(0, np.int32)
        start = self._rows
        for images in reversed(self._images):
            start -= len(images)
            if start == event["start"]:
                found: np.ndarray[Any, Any] = images
                return found
        return np.zeros(0, np.int32)

    def _on_maximum(self, args: Any, kwargs: Any) -> None:
        given = args[0] if args else kwargs.get("input")
        dim = args[1] if len(args) > 1 else kwargs.get("dim", kwargs.get("axis"))
        if not isinstance(given, Tensor) or given.dim() != 2 or not isinstance(dim, int):
            return
        if dim % 2 == 0 and len(given) > 1 and self._outputs and self._outputs[-1][1].shape == given.shape:
            _, form = form_of(given, given.detach().double().cpu().numpy(), reversed(self._outputs))
            if form != "unknown":
                self._add("maximum", axis=0, rows=len(given), columns=given.shape[1])

    # --- gradients and steps ----------------------------------------------------------------------------------------

    def _watched_backward(self, plain: Any) -> Any:
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            event = self.quietly(self._before_backward, tensors)
            try:
                result = plain(tensors, *args, **kwargs)
            except RuntimeError as error:
                if event is not None:
                    event["refused"] = str(error)[:LONGEST]
                raise
            if event is not None:
                self.quietly(self._after_backward, event)
            return result

        return backward

    def _watched_grad(self, plain: Any) -> Any:
        def grad(outputs: Any, *args: Any, **kwargs: Any) -> Any:
            event = self.quietly(self._before_backward, outputs, "grad")
            result = plain(outputs, *args, **kwargs)
            if event is not None:
                self.quietly(self._graphs.clear)
            return result

        return grad

    def _before_backward(self, tensors: Any, how: str = "backward") -> dict[str, Any] | None:
        roots = [t for t in ([tensors] if isinstance(tensors, Tensor) else list(tensors)) if isinstance(t, Tensor)]
        forwards = self._forwards_below(roots)
        stale = 0
        scaled = bool(roots) and all(
            r.grad_fn is not None and r.grad_fn.name().startswith(("Div", "Mul")) for r in roots
        )
        adds = False
        if how == "backward":
            for number in {self.events[at]["module"] for at in forwards}:
                tracked = self._known()[number]
                values, gradients, stepped = self._kept.get(number, ([], [], set()))
                there = tracked.gradients()
                adds |= any(there)
                now = zip(tracked.parameters, tracked.values(), there, strict=True)
                if values:
                    # The gradients that the last step used, as they were: this backward pass adds to them.
                    stale = max(
                        stale,
                        sum(
                            old == new and new not in (None, 0.0) and (id(p) in stepped or value != before)
                            for (p, value, new), before, old in zip(now, values, gradients, strict=True)
                        ),
                    )
                if stale and self._held is None:
                    self._held = [(p, p.grad.detach().clone()) for p in tracked.parameters if p.grad is not None]
        return self._add(
            "backward",
            how=how,
            forwards=sorted(forwards),
            stale=stale,
            adds=adds,
            scaled=scaled,
            again=any(self.events[at]["module"] in self._kept for at in forwards),
            leaf=bool(roots) and all(r.grad_fn is None for r in roots),
            wants=any(r.requires_grad for r in roots),
        )

    def _after_backward(self, event: dict[str, Any]) -> None:
        self._graphs.clear()
        if self.few is not None and event["forwards"]:
            self.few.on_backward()
        if event["stale"] and self._held:
            alone = math.sqrt(sum(float((p.grad - g).square().sum()) for p, g in self._held if p.grad is not None))
            event["norms"] = [
                alone,
                math.sqrt(sum(float(p.grad.square().sum()) for p, _ in self._held if p.grad is not None)),
            ]
            self._held = []
        for number in {self.events[at]["module"] for at in event["forwards"]}:
            tracked = self._known()[number]
            tracked.backwards += 1
            tracked.compare()
            for k, parameter in enumerate(tracked.parameters):
                if parameter.grad is not None and parameter.grad.numel():
                    size = float(parameter.grad.abs().max())
                    tracked.gradient[k] = max(tracked.gradient[k], size / max(float(parameter.abs().max()), 1e-6))
            self._kept[number] = tracked.values(), tracked.gradients(), set()

    def _forwards_below(self, roots: list[Tensor]) -> set[int]:
        """The forward calls whose outputs these tensors were made of, by the graph that torch keeps."""
        below = map(id, nodes_below(roots, MOST_NODES, self._graphs))
        return {self._graphs[number][1] for number in below if number in self._graphs}

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self.quietly(self._on_step, optimizer)

    def _on_step(self, optimizer: Any) -> None:
        if id(optimizer) not in self._optimizers:
            facts: dict[str, Any] = {"class": type(optimizer).__name__, "steps": 0, "lr": 0.0, "scheduled": False}
            self._optimizers[id(optimizer)] = len(self._optimizers), optimizer, facts
        number, _, facts = self._optimizers[id(optimizer)]
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        facts["holds"] = [
            [name for name, p in zip(t.names, t.parameters, strict=True) if id(p) in held] for t in self._known()
        ]
        facts["steps"] += 1
        rates = [facts["lr"], *(float(group.get("lr", 1.0)) for group in optimizer.param_groups)]
        facts["lr"] = math.nan if any(math.isnan(rate) for rate in rates) else max(rates)
        facts["scheduled"] |= any(float(group.get("initial_lr", 0.0)) > 0 for group in optimizer.param_groups)
        given = [p.grad for group in optimizer.param_groups for p in group["params"]]
        empty = all(g is None or not bool(g.any()) for g in given)
        lines = [frame.f_lineno for frame in frames(self.filename)][:20]
        self._add("step", optimizer=number, empty=empty, lines=lines)

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self.quietly(self._on_stepped, optimizer)

    def _on_stepped(self, optimizer: Any) -> None:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for number, (values, _, stepped) in list(self._kept.items()):
            self._kept[number] = values, self._known()[number].gradients(), stepped | held  # as clipping has left them

    # --- loaders and prints -----------------------------------------------------------------------------------------

    def _watched_loader(self, plain: Any) -> Any:
        def __iter__(loader: Any) -> Any:  # noqa: N807
            event = self.quietly(self._on_loader, loader)
            if self.few is None or event is None:
                return plain(loader)
            return self.few.few(plain(loader), event)

        return __iter__

    def _on_loader(self, loader: Any) -> dict[str, Any] | None:
        """Note it; return its event where the pass that begins may be cut short."""
        number, _ = self._loaders.setdefault(id(loader), (len(self._loaders), loader))
        batches = _length(loader)
        event = self._add("loader", loader=number, batches=batches, drop_last=bool(loader.drop_last))
        may_be_cut = self.few is not None and self.few.on_loader(number, batches)
        # What asks for single batches may count on there being more; a `for` takes what comes.
        return event if may_be_cut and self.line() in {loop["line"] for loop in self._code["loops"]} else None

    def _watched_print(self, plain: Any) -> Any:
        def print(*args: Any, **kwargs: Any) -> None:
            plain(*args, **kwargs)
            if kwargs.get("file") in (None, sys.stdout, sys.stderr):
                self.quietly(self._on_print, args, kwargs.get("sep"))

        return print

    def _watched_log(self, plain: Any) -> Any:
        def handle(logger: Any, record: Any) -> Any:
            result = plain(logger, record)
            self.quietly(lambda: self._on_print((record.getMessage(),), None))
            return result

        return handle

    def _on_print(self, args: tuple[Any, ...], separator: str | None) -> None:
        line = self.line()
        if line is not None:
            text = (" " if separator is None else separator).join(str(arg) for arg in args)
            self._add("print", text=text[:LONGEST])

    # --- what is handed back ----------------------------------------------------------------------------------------

    @functools.cached_property
    def _code(self) -> dict[str, Any]:
        return read_code(self._text if self._text is not None else "".join(linecache.getlines(self.filename)))

    @property
    def modules(self) -> list[nn.Module]:
        return [module for module, _ in sorted(self._depths.values(), key=lambda pair: pair[1])]

    def data(self, namespace: dict[str, Any], outcome: dict[str, Any] | None = None) -> dict[str, Any]:
        """What was seen, as JSON values and arrays.

        Args:
            namespace: the file's names, for what the student calls the model and the optimizer, and for the hyperparameters.
            outcome: how the run ended, as `Outcome.data` has it; None: the file ran to its end. Of what comes behind the line
                where it stopped nothing is said.
        """
        for tracked in self._known():
            self.quietly(tracked.compare)
        trained = [t for t in self._known() if t.backwards]
        outcome = outcome or {}
        stopped = self._raised is not None or bool(outcome.get("error")) or bool(outcome.get("stopped"))
        album = self.album()
        names = {id(value): name for name, value in reversed(list(namespace.items())) if not name.startswith("_")}
        return {
            "stopped": stopped,
            "error": outcome.get("error"),
            "printed": str(outcome.get("printed", ""))[-20_000:],
            "counts": album.counts,
            "distinct": album.distinct,
            "labels": album.labels,
            "images": np.concatenate([np.zeros(0, np.int32), *self._images]),
            "predicted": np.concatenate([np.zeros(0, np.int16), *self._predicted]),
            "events": self.events,
            "truncated": len(self.events) >= MOST,
            "models": [
                {
                    "name": names.get(id(t.module)),
                    "class": type(t.module).__name__,
                    "parameters": t.names,
                    "changed": t.changed,
                    "gradient": t.gradient,
                    "backwards": t.backwards,
                    "before": t.begun,
                    "after": t.entries(),
                    "lost": t.lost(),
                    "random": t.random,
                    "untrained": bool(self.quietly(t.unlike, trained)),
                }
                for t in self._known()
            ],
            "optimizers": [facts | {"name": names.get(id(o))} for _, o, facts in self._optimizers.values()],
            "pictures": [p for p in self._gallery.pictures if "event" in p],
            "code": self._code,
            "failed": self.failed,
        }


def _length(loader: Any) -> int | None:
    try:
        return len(loader)
    except TypeError:
        return None
