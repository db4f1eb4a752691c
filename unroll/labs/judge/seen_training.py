"""What was recorded of a training run, put in order: which calls trained, which tested, and in which passes over the images."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np


@dataclass
class Epoch:
    """One pass over a loader in which the model was trained.

    Attributes:
        line: where the loader was asked for its batches; batches: how many it has, None where it does not say.
        loop: the `for` at that line, None where it is none. left_early: whether there is a way out of it.
        at: its event. cut: whether the check has cut it short, see `unroll.labs.child.few_batches`.
    """

    at: int
    line: int | None
    batches: int | None
    loop: dict[str, Any] | None
    cut: bool = False
    forwards: list[dict[str, Any]] = field(default_factory=list)

    @property
    def left_early(self) -> bool:
        return self.loop is not None and bool(self.loop["left"])


@dataclass
class Pass:
    """Calls of one model at one line in which it was not trained, each image at most once.

    Attributes:
        images: their numbers, -1 where unknown; predicted: classes, -1 where the output has none; sizes: of the batches.
        at, last: the first and the last event. whole: whether they are all test images. part: ``train``, ``test`` or ``mixed``.
        after_training: whether the model had been trained before.
    """

    at: int
    last: int
    model: int
    line: int | None
    grad: bool
    training: bool
    after_training: bool
    images: list[int]
    predicted: list[int]
    sizes: list[int]
    labels: Any
    first_test: int
    whole: bool = False

    @property
    def part(self) -> str:
        known = [i for i in self.images if i >= 0]
        if not known or len(known) < len(self.images):
            return "unknown"
        tests = sum(i >= self.first_test for i in known)
        return "test" if tests == len(known) else "train" if not tests else "mixed"

    @property
    def answered(self) -> bool:
        """Whether the model's answers are known."""
        return all(p >= 0 for p in self.predicted)

    @cached_property
    def hits(self) -> list[bool]:
        return [p == self.labels[i] for i, p in zip(self.images, self.predicted, strict=True)]

    @property
    def right(self) -> int:
        return sum(self.hits)

    def right_by_batch(self) -> list[int]:
        ends = np.cumsum(self.sizes)
        return [sum(self.hits[end - size : end]) for end, size in zip(ends, self.sizes, strict=True)]


class Seen:
    """The recorded dict with its events sorted out."""

    def __init__(self, observed: dict[str, Any]) -> None:
        self.events: list[dict[str, Any]] = observed["events"]
        self.models: list[dict[str, Any]] = observed["models"]
        self.optimizers: list[dict[str, Any]] = observed["optimizers"]
        self.code: dict[str, Any] = observed["code"]
        self.stopped: bool = bool(observed["stopped"] or observed["truncated"])
        self.error: dict[str, Any] = observed.get("error") or {}
        self.first_test: int = observed["counts"]["train"]
        self.tests: int = observed["counts"]["test"]
        self.distinct_tests: int = observed["distinct"]["test"]
        self.pictures: list[dict[str, Any]] = observed["pictures"]
        self.printed: str = observed["printed"]
        self.labels = np.asarray(observed["labels"])
        self._images = np.asarray(observed["images"])
        self._predicted = np.asarray(observed["predicted"])
        for number, event in enumerate(self.events):
            event["at"] = number
        kinds = ("forward", "loss", "backward", "step", "loader", "print", "maximum")
        self.kinds = {kind: [e for e in self.events if e["kind"] == kind] for kind in kinds}
        self.losses = self.kinds["loss"]
        self.backwards = [b for b in self.kinds["backward"] if b["how"] == "backward"]
        trained = {at for b in self.kinds["backward"] if b.get("refused") is None for at in b["forwards"]}
        self.trained = [self.events[at] for at in sorted(trained)]
        self._trained = trained

    def images(self, forward: dict[str, Any]) -> list[int]:
        start = forward["start"]
        return [int(i) for i in self._images[start : start + forward["rows"]]]

    def predicted(self, forward: dict[str, Any]) -> list[int]:
        start = forward["start"]
        return [int(p) for p in self._predicted[start : start + forward["rows"]]]

    @property
    def training_losses(self) -> list[dict[str, Any]]:
        """Losses that were learned from; where there was no backward pass, those that could have been."""
        if self._trained:
            return [loss for loss in self.losses if loss["forward"] in self._trained]
        return [
            loss
            for loss in self.losses
            if loss["grad"] and (loss["forward"] is None or self.events[loss["forward"]]["training"])
        ]

    @cached_property
    def made_again(self) -> tuple[str, int, int] | None:
        """Class, line and number of models, where each epoch or step has trained a model of its own that nobody tested."""
        by_class: dict[str, list[int]] = {}
        for number, model in enumerate(self.models):
            if model["backwards"]:
                by_class.setdefault(model["class"], []).append(number)
        for cls, numbers in by_class.items():
            places = [made for made in self.code["made"].get(cls, []) if made["each_epoch"]]
            # Models that are tried one after the other are each tested; here at most the last one is.
            tested = {p.model for p in self.passes if p.after_training}
            if len(numbers) > 1 and places and not tested & set(numbers[:-1]):
                return cls, places[0]["line"], len(numbers)
        return None

    def epochs(self) -> list[Epoch]:
        """The passes over loaders in which the model was trained."""
        loops = {loop["line"]: loop for loop in self.code["loops"]}
        epochs: list[Epoch] = []
        current: Epoch | None = None
        loader: int | None = None
        for event in self.events:
            if event["kind"] == "loader":
                loader = event["loader"]
                loop = loops.get(event["line"])
                current = Epoch(event["at"], event["line"], event["batches"], loop, bool(event.get("cut")))
            elif (
                event["kind"] == "forward"
                and event["at"] in self._trained
                and current is not None
                and loader is not None
            ):
                if not current.forwards:
                    epochs.append(current)
                current.forwards.append(event)
        return epochs

    @cached_property
    def passes(self) -> list[Pass]:
        """The passes in which nothing was trained."""
        attempts = {loss["forward"] for loss in self.training_losses}
        passes: list[Pass] = []
        current: Pass | None = None
        trained = False
        for event in self.events:
            if event["kind"] == "loader":
                current = None
            if event["kind"] == "backward" and event["forwards"]:
                trained, current = True, None
            if event["kind"] != "forward" or event["at"] in self._trained or event["at"] in attempts:
                continue
            images = self.images(event)
            if not images:
                continue
            if (
                current is None
                or (current.model, current.line) != (event["module"], event["line"])
                or set(current.images) & {i for i in images if i >= 0}
            ):
                current = Pass(
                    event["at"],
                    event["at"],
                    event["module"],
                    event["line"],
                    event["grad"],
                    event["training"],
                    trained,
                    [],
                    [],
                    [],
                    self.labels,
                    self.first_test,
                )
                passes.append(current)
            current.images += images
            current.predicted += self.predicted(event)
            current.sizes.append(len(images))
            current.last = event["at"]
        for found in passes:
            found.whole = (
                found.part == "test"
                and len(found.images) == self.tests
                and len(set(found.images)) >= self.distinct_tests
            )
        return passes

    def unknown_images(self) -> bool:
        """Whether a model was given, outside training, what may be test images in another form."""
        return any(
            f["at"] not in self._trained and (not f["rows"] or any(i < 0 for i in self.images(f)))
            for f in self.kinds["forward"]
        )

    def prints(self, after: int, before: int | None = None) -> list[dict[str, Any]]:
        return [p for p in self.kinds["print"] if p["at"] > after and (before is None or p["at"] < before)]
