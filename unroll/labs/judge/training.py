"""What is wrong in a training loop, in its test and in its pictures, by what was seen of them.

Only what was reached is judged: where a file stopped, nothing is said to be missing behind that line.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from typing import Any

from unroll.labs.judge import pictures as judge_pictures
from unroll.labs.judge import testing as judge_testing
from unroll.labs.judge.seen_training import Seen
from unroll.labs.problems import Code, Problem, Witness

CHECK = "training"
_CODES = {
    "no-training": Code(
        "the model is not trained",
        ("What happens between making the model and testing it?", "Loss, backward, step: which of them run?"),
    ),
    "softmax-before-loss": Code(
        "cross-entropy is given probabilities, not logits",
        ("What does nn.CrossEntropyLoss expect?", "Look at what is done to the model's output before the loss."),
    ),
    "sigmoid-before-loss": Code(
        "cross-entropy is given a sigmoid's output, not logits",
        ("What does nn.CrossEntropyLoss expect?", "Look at what is done to the model's output before the loss."),
    ),
    "nll-on-logits": Code(
        "nn.NLLLoss is given logits, not log-probabilities",
        ("What does nn.NLLLoss expect?", "Which function turns logits into log-probabilities?"),
    ),
    "nll-on-softmax": Code(
        "nn.NLLLoss is given probabilities, not log-probabilities",
        ("What does nn.NLLLoss expect?", "Compare the loss's sign with what a loss should be."),
    ),
    "labels-wrong": Code(
        "labels do not belong to their images",
        ("Print a few labels beside their images.", "What happens to the labels between the loader and the loss?"),
    ),
    "no-zero-grad": Code(
        "gradients add up from step to step",
        ("What is in p.grad before backward is called for the second time?", "Which call empties the gradients?"),
    ),
    "no-backward": Code(
        "no gradients are computed",
        ("Where do the gradients that the optimizer uses come from?",),
    ),
    "no-step": Code(
        "the parameters are never updated",
        ("Gradients alone change nothing. What does?",),
    ),
    "step-once-an-epoch": Code(
        "one step is made for all the batches of an epoch",
        ("How often is step() called, and how often backward()?", "To which loop does each of the lines belong?"),
    ),
    "training-order": Code(
        "zeroing, backward and step stand in an order that cannot be",
        ("In which order do zero_grad, backward and step stand?", "What is a .grad before the first backward()?"),
    ),
    "step-without-gradients": Code(
        "the step is made when there are no gradients",
        ("In which order do zero_grad, backward and step stand?",),
    ),
    "loss-detached": Code(
        "the loss does not depend on the model's parameters",
        (
            "Does loss.grad_fn exist?",
            "Look for no_grad, detach, .data, .item() and torch.tensor between model and loss.",
        ),
    ),
    "other-model": Code(
        "the optimizer holds the parameters of another model",
        ("For which object was the optimizer made?", "Is the model made once more after its optimizer?"),
    ),
    "parameters-missing": Code(
        "the optimizer does not hold all of the model's parameters",
        ("What is handed to the optimizer when it is made?",),
    ),
    "parameters-unchanged": Code(
        "parameters are the same after training as before",
        ("Compare a parameter before and after a step.", "Is anything written back over the parameters?"),
    ),
    "parameters-nan": Code(
        "parameters become nan while the model is trained",
        ("Print the loss of the first steps.", "What makes a step too large, or a number that is none?"),
    ),
    "learning-rate-zero": Code("the learning rate is 0", ("Which number is the step multiplied by?",)),
    "model-made-again": Code(
        "the model is made anew within the training loop",
        ("What happens to what was learned when a new model takes the old one's name?",),
    ),
    "trained-on-test": Code(
        "the model is trained on test images",
        ("Which loader does the training loop go over?",),
    ),
    "one-batch": Code(
        "every epoch trains on its first batch only",
        ("How many batches has the loader, and how many are trained on?", "What ends the loop over the loader?"),
    ),
    "not-shuffled": Code(
        "the training images always come in the same order",
        ("Which argument of DataLoader puts them in a new order every epoch?",),
    ),
}
CODES: dict[str, Code] = _CODES | judge_testing.CODES | judge_pictures.CODES
REMARKS: frozenset[str] = frozenset({"not-shuffled"}) | judge_testing.REMARKS | judge_pictures.REMARKS
"""Codes of what is said without it being a fault."""


def judge_training(observed: dict[str, Any]) -> list[Problem]:
    """Return what is wrong, and the remarks (see `REMARKS`), of the checks ``training``, ``testing`` and ``pictures``.

    Args:
        observed: what `TrainingRecorder.data` has handed back.
    """
    seen = Seen(observed)
    return [*_training(seen), *judge_testing.judge(seen), *judge_pictures.judge(seen)]


def reached(observed: dict[str, Any]) -> dict[str, bool]:
    """For each check, whether there was enough to see for "nothing wrong" to mean that it is right."""
    seen = Seen(observed)
    return {
        "training": bool(seen.trained) and any(model["changed"].count(True) for model in seen.models),
        "testing": any(p.whole and p.after_training for p in seen.passes) and judge_testing.has_accuracy(seen),
        "pictures": len(judge_pictures.test_images(seen)) >= judge_pictures.ASKED,
    }


def _training(seen: Seen) -> list[Problem]:
    problems: list[Problem] = []

    def add(code: str, line: int | None, message: str, about: str | None = None, witness: Any = None) -> None:
        problems.append(Problem(CHECK, code, line, message, about, None if witness is None else Witness(*witness)))

    if not seen.backwards and not seen.losses and not seen.kinds["step"]:
        if not seen.stopped and not seen.code["backward"] and not seen.code["steps"]:
            add(
                "no-training",
                None,
                "The file ends without a training step: no loss, no backward() and no step of an optimizer.",
            )
        return problems
    _loss(seen, add)
    _labels(seen, add)
    _updates(seen, add)
    _images(seen, add)
    return problems


def _loss(seen: Seen, add: Any) -> None:
    """What goes into the loss."""
    losses = seen.training_losses
    logged = Counter[str]()
    for loss in losses:
        if loss["name"] == "cross_entropy":
            if loss["sums_to_one"]:
                logged["softmax-before-loss"] += 1
            elif loss["sigmoid"] or loss["form"] == "sigmoid":
                logged["sigmoid-before-loss"] += 1
        elif not loss["log_probabilities"]:
            logged["nll-on-softmax" if loss["sums_to_one"] else "nll-on-logits"] += 1
    if not logged:
        return
    code, count = logged.most_common(1)[0]
    if count < len(losses):  # what is so at some steps only is nobody's code
        return
    line = losses[0]["line"]
    where = "The model's own output is" if losses[0]["form"] == "same" else "What the loss is given is"
    add(
        code,
        line,
        {
            "softmax-before-loss": f"{where} a softmax: every row adds up to 1. cross_entropy takes the logits and applies "
            "log-softmax itself, so here softmax is applied twice: the loss cannot fall below 1.46 for ten classes, and "
            "gradients become small, so that the model learns slowly.",
            "sigmoid-before-loss": f"{where} a sigmoid's: every number lies between 0 and 1. cross_entropy takes the logits, "
            "of any size; between 0 and 1 no class can come out much more probable than another.",
            "nll-on-logits": "nll_loss is given the model's raw output. It takes log-probabilities (log_softmax); of raw "
            "output it has no lower bound: the loss falls below 0, and the outputs grow without the images being told apart.",
            "nll-on-softmax": "nll_loss is given probabilities (a softmax). It takes log-probabilities (log_softmax): "
            "here the loss is minus the probability, between -1 and 0, and its gradients almost vanish where the model is wrong.",
        }[code],
        "loss",
        _row(losses[0], code),
    )


def _row(loss: dict[str, Any], code: str) -> tuple[str, str, str] | None:
    """The first row that the loss was given, as a witness."""
    row = loss["row"]
    if not row or not all(math.isfinite(value) for value in row):
        return None
    numbers = ", ".join(f"{value:.3g}" for value in row)
    given = f"what {loss['name']} is given of the first image: {numbers}"
    if code == "softmax-before-loss":
        return given, "logits, which add up to any number", f"a sum of {sum(row):.4g}"
    if code == "sigmoid-before-loss":
        return given, "logits, of any size", f"{min(row):.3g} to {max(row):.3g}"
    return given, "logarithms of probabilities, whose exp adds up to 1", f"exp adds up to {sum(map(_exp, row)):.4g}"


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


def _labels(seen: Seen, add: Any) -> None:
    """Whether the loss is given each image's own label."""
    wrong = [loss for loss in seen.training_losses if loss.get("wrong")]
    known = sum(loss.get("known", 0) for loss in seen.training_losses)
    count = sum(loss["wrong"] for loss in wrong)
    if not wrong or count < 0.02 * known:
        return
    true, came = wrong[0]["examples"][0]
    shifts = {loss["shift"] for loss in wrong}
    how = ""
    if len(shifts) == 1 and None not in shifts and count == known:
        how = f" Every label is off by {shifts.pop()} (modulo 10)."
    elif all(loss["same_labels"] for loss in wrong):
        how = " They are the batch's own labels in another order."
    add(
        "labels-wrong",
        wrong[0]["line"],
        f"The loss is given labels that are not those of the images: for {count} of {known} images, such as {came} for a "
        f"{true}.{how} The model learns to answer wrong.",
        "labels",
        ("the first image whose label is another", f"label {true}", f"label {came}"),
    )


def _updates(seen: Seen, add: Any) -> None:
    """Gradients, the optimizer, and whether the parameters change."""
    backwards, steps = seen.backwards, seen.kinds["step"]
    steps_wait = any(
        step["under_if"] for step in seen.code["steps"]
    )  # such as every fourth batch: a short run may not reach it
    order = _order(seen)
    if order is not None:
        add("training-order", *order, "gradients")
        return
    if not backwards:
        over = not seen.stopped or len(seen.training_losses) > 1
        if over and not seen.code["backward"] and seen.training_losses:
            add(
                "no-backward",
                steps[0]["line"] if steps else seen.training_losses[0]["line"],
                "backward() is never called on the loss, so there are no gradients, and "
                + ("the optimizer's step changes nothing." if steps else "nothing to learn from."),
            )
        return
    refused = next((b for b in backwards if not b["wants"] or (b["leaf"] and b.get("refused") is None)), None)
    if refused is not None:
        add(
            "loss-detached",
            refused["line"],
            "The loss is cut off from the model: it has no grad_fn, so backward() gives the model's parameters no gradients. "
            "Something between the model and the loss (no_grad, detach, .data, .item(), torch.tensor) takes the numbers alone.",
            "loss",
        )
        return
    stale = [b for b in backwards if b["stale"]]
    again = [b for b in backwards if b["again"]]
    once = _once_an_epoch(seen)
    if once is not None:
        add("step-once-an-epoch", *once)
    elif stale and len(stale) >= 0.2 * len(again):
        add(
            "no-zero-grad",
            stale[0]["line"],
            "When backward() is called, the gradients of the step before are still there, although the parameters have been "
            f"updated with them ({len(stale)} of {len(again)} times): the new ones are added to them, and each step goes the way "
            "of all batches so far. They must be set to zero once a step.",
            "gradients",
            _norms(stale),
        )
    trained = [m for m in seen.models if m["backwards"]]
    if seen.made_again:
        cls, line, count = seen.made_again
        add(
            "model-made-again",
            line,
            f"{cls} is made anew within the training loop ({count} models were trained in turn): what one has learned is lost "
            "with it.",
            "model",
        )
    for number, model in enumerate(seen.models):
        if model not in trained or model["class"] == (seen.made_again or ("",))[0]:
            continue
        if _model(seen, number, model, steps, steps_wait, add):
            break


def _order(seen: Seen) -> tuple[int | None, str] | None:
    """Line and message, where Python or torch has refused an order of zeroing, backward and update."""
    told = "The order is forward, backward(), step, with zeroing before backward()."
    last = seen.backwards[-1] if seen.backwards else None
    if last is not None and "modified by an inplace operation" in (last.get("refused") or ""):
        begun = max(last["forwards"], default=None)
        if begun is not None and any(begun < step["at"] < last["at"] for step in seen.kinds["step"]):
            return last["line"], (
                "step() stands between the forward and its backward(): it changes the parameters that backward() still needs as "
                f"they were, and uses the gradients of the batch before. {told}"
            )
    message, line = seen.error.get("message", ""), seen.error.get("line")
    if "NoneType" not in message or "'grad'" in message or line not in seen.code["grads"] or not seen.code["backwards"]:
        return None
    if not seen.kinds["backward"]:
        if re.search("'(zero_|fill_)'", message):
            why = "Gradients are zeroed before the first backward(): a .grad is None until then, and has to be passed over."
        else:
            why = "The update stands before the first backward(), and a .grad is None until then."
        return line, f"{why} {told}"
    if (
        last is not None
        and last["forwards"]
        and all(g > 0 for m in seen.models if m["backwards"] for g in m["gradient"])
    ):
        why = "backward() has computed the gradients, and one is None again before the update: they are cleared between the two."
        return line, f"{why} {told}"
    return None


def _norms(stale: list[dict[str, Any]]) -> tuple[str, str, str] | None:
    """The length of a gradient that was added to another, and of its own."""
    norms = next((b["norms"] for b in stale if "norms" in b), None)
    if norms is None or not all(math.isfinite(n) for n in norms):
        return None
    given = "the gradient (norm over all parameters) when backward() was called for the second step"
    return given, f"{norms[0]:.4g}, that of this batch alone", f"{norms[1]:.4g}, with what was there before"


def _once_an_epoch(seen: Seen) -> tuple[int | None, str, str, tuple[str, str, str]] | None:
    """Line, message, about and witness, where each epoch computes gradients of several batches and then makes one step.

    A step that waits for several batches under a condition is deliberate, and so is a loss that is divided by their number.
    """
    reached = {step["line"] for step in seen.kinds["step"]}
    if any(step["under_if"] and step["line"] not in reached for step in seen.code["steps"]):
        return None
    every = seen.epochs()
    found = []
    for k, epoch in enumerate(every):
        end = every[k + 1].at if k + 1 < len(every) else len(seen.events)
        if epoch.cut or (seen.stopped and k + 1 == len(every)):
            continue
        backwards = [b for b in seen.backwards if epoch.at < b["at"] < end and b["forwards"]]
        steps = [s for s in seen.kinds["step"] if epoch.at < s["at"] < end]
        if len(steps) != 1 or epoch.loop is None or len({at for b in backwards for at in b["forwards"]}) < 2:
            return None
        within = any(epoch.loop["line"] <= line <= epoch.loop["end"] for line in steps[0]["lines"])
        if len(backwards) < 2 or within or steps[0]["at"] < backwards[-1]["at"]:
            return None
        if seen.optimizers[steps[0]["optimizer"]]["class"] == "LBFGS":
            return None
        found.append((backwards, steps[0]))
    if not found:
        return None
    backwards, step = found[0]
    adds = all(b["adds"] for b in backwards[1:])
    if adds and all(b["scaled"] for backwards, _ in found for b in backwards):
        return None
    uses = "the gradients of all of them, added up" if adds else "the gradients of the last of them only"
    count = len(backwards)
    return (
        step["line"],
        f"step() runs once an epoch, after the loop over the batches: of {count} batches in this short run, and of hundreds in a "
        f"whole one, the parameters are updated once, with {uses}. The model hardly learns. Each batch needs a step of its own.",
        "gradients",
        (f"one epoch of {count} batches", f"{count} steps", "1 step"),
    )


def _model(seen: Seen, number: int, model: dict[str, Any], steps: list[Any], steps_wait: bool, add: Any) -> bool:
    """Whether one trained model's parameters change, and why not; True where something was said."""
    called = model["name"] or "the model"
    if _nan(seen, number, model, steps, add):
        return True
    learns = [g > 0 for g in model["gradient"]]
    still = [k for k, changed in enumerate(model["changed"]) if learns[k] and not changed]
    if not still:
        return False
    held = [set(o["holds"][number]) if number < len(o["holds"]) else set[str]() for o in seen.optimizers]
    holding = [o for o, names in zip(seen.optimizers, held, strict=True) if names]
    all_held = set[str]().union(*held)
    everything = len(still) == sum(learns)
    unchanged = _value(model, still[0], "another number")
    if not steps:
        if everything and not steps_wait and not seen.stopped and not seen.code["steps"]:
            add(
                "no-step",
                seen.backwards[0]["line"],
                "backward() computes gradients, but nothing uses them: no optimizer makes a step, and the parameters of "
                f"{called} are the same after training as before."
                + (" Are the gradients zeroed before the update by hand?" if seen.code["grads"] else ""),
                None,
                unchanged,
            )
            return True
        return False
    line = steps[0]["line"]
    if everything and not holding:
        name = seen.optimizers[0]["name"] or seen.optimizers[0]["class"]
        add(
            "other-model",
            line,
            f"{name} holds none of the parameters of {called}, which the loss comes from, but those of another module: its "
            f"steps leave {called} as it is. Was {called} made anew after the optimizer?",
            "optimizer",
            unchanged,
        )
        return True
    if everything and all(o["lr"] == 0 and not o["scheduled"] for o in holding):
        add(
            "learning-rate-zero",
            line,
            "The learning rate is 0: every step is multiplied by it, and nothing changes.",
            "optimizer",
            unchanged,
        )
        return True
    mine = [s for s in steps if s["optimizer"] < len(held) and held[s["optimizer"]]]
    if everything and mine and all(s["empty"] for s in mine) and len(mine) + (not seen.stopped) > 1:
        before = [e["kind"] for e in seen.events[: mine[0]["at"]] if e["kind"] in ("forward", "backward")]
        why = (
            "zero_grad() stands between backward() and step()"
            if before[-1:] == ["backward"]
            else "step() stands before backward(), and zero_grad() between the two"
        )
        add(
            "step-without-gradients",
            mine[0]["line"],
            f"When step() is called, the gradients are empty or zero: {why}. The parameters of {called} never change. The order "
            "is zero_grad(), backward(), step().",
            "gradients",
            unchanged,
        )
        return True
    absent = [k for k in still if model["parameters"][k] not in all_held]
    missing = [model["parameters"][k] for k in absent]
    if missing and not everything:
        keep = "it keeps its" if len(missing) == 1 else "they keep their"
        add(
            "parameters-missing",
            line,
            f"The optimizer does not hold {listed(missing)} of {called}: {keep} "
            "random first values while the rest is trained.",
            ", ".join(missing),
            _value(model, absent[0], "another number"),
        )
        return True
    # A step may be too small for float32; these would not have been.
    seen_still = [k for k in still if _would_show(model["gradient"][k], holding)]
    stuck = [model["parameters"][k] for k in seen_still]
    full = [s for s in mine if not s["empty"]]
    if stuck and full and model["backwards"] > 1:
        add(
            "parameters-unchanged",
            line,
            f"{listed(stuck)} of {called}: the same after {len(full)} steps as before, although there are gradients.",
            ", ".join(stuck),
            _value(model, seen_still[0], "another number"),
        )
        return True
    return False


def _nan(seen: Seen, number: int, model: dict[str, Any], steps: list[Any], add: Any) -> bool:
    """Whether the numbers that a model has learned are none; says so."""
    lost = [k for k, bad in enumerate(model["lost"]) if bad]
    if not lost:
        return False
    called = model["name"] or "the model"
    named = [model["parameters"][k] for k in lost]
    rates = [o["lr"] for o in seen.optimizers if number < len(o["holds"]) and o["holds"][number]]
    if any(math.isnan(rate) for rate in rates):
        why = "The learning rate is nan, and so is what a step makes of every parameter."
    elif all(math.isfinite(value) for value in model["before"]):
        why = (
            "A step was too large (the learning rate, or gradients that grow without bound), or the loss was nan itself: a "
            "division by 0, or a logarithm of 0."
        )
    else:
        why = "They were so before the first step: a tensor that is never filled has whatever lay in memory."
    k = next((k for k in lost if not math.isfinite(model["after"][k])), None)
    add(
        "parameters-nan",
        steps[0]["line"] if steps else seen.backwards[0]["line"],
        f"{listed(named)} of {called}: nan or infinite after training, so that every answer is, too. {why}",
        ", ".join(named),
        None if k is None else _value(model, k, "a number"),
    )
    return True


def _value(model: dict[str, Any], k: int, expected: str) -> tuple[str, str, str] | None:
    """A parameter's first number before and after training."""
    given = f"the first number of {model['parameters'][k]} after training; before, it was {model['before'][k]:.6g}"
    return given, expected, f"{model['after'][k]:.6g}"


def _would_show(gradient: float, optimizers: list[dict[str, Any]]) -> bool:
    """Whether a step with such a gradient (over the parameter's size) cannot be lost in float32's rounding."""
    for o in optimizers:
        size = 1e-3 if any(word in o["class"] for word in ("Ada", "RMS", "Rprop", "Lion", "NAdam")) else gradient
        if o["lr"] * size > 1e-6:
            return True
    return False


def _images(seen: Seen, add: Any) -> None:
    """Which images the model is trained on, and in which order."""
    tested = [f for f in seen.trained if any(i >= seen.first_test for i in seen.images(f))]
    if tested:
        count = sum(sum(i >= seen.first_test for i in seen.images(f)) for f in tested)
        total = sum(len(seen.images(f)) for f in seen.trained)
        add(
            "trained-on-test",
            tested[0]["line"],
            f"The model is trained on test images ({count} of the {total} images that it was trained on): the test accuracy then "
            "says nothing of new images.",
            "images",
        )
    epochs = seen.epochs()
    if seen.stopped:
        epochs = epochs[:-1]
    epochs = [e for e in epochs if not e.cut]
    short = [
        e for e in epochs if e.batches is not None and e.batches > 1 and len(e.forwards) == 1 and e.loop is not None
    ]
    if short and len(short) == len(epochs) and (len(epochs) > 1 or short[0].left_early):
        first = short[0]
        rows = first.forwards[0]["rows"]
        add(
            "one-batch",
            first.line,
            f"Every epoch trains on one batch only, where the loader has {first.batches}: the loop over it ends after the first"
            + (f", and only {rows} images are learned from." if rows else "."),
            "batches",
            ("one epoch", f"{first.batches} batches", "1 batch"),
        )
    orders = [[i for f in e.forwards for i in seen.images(f)] for e in epochs]
    same = (
        len(orders) > 1 and all(order == orders[0] for order in orders) and len(orders[0]) > 30 and min(orders[0]) >= 0
    )
    if same and not short and len(epochs[0].forwards) > 1:
        add(
            "not-shuffled",
            epochs[0].line,
            "Every epoch trains on the images in the same order. With shuffle=True the batches are others each time, which "
            "usually trains better.",
            "images",
        )


def listed(names: list[str]) -> str:
    shown = ", ".join(names[:6])
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"
