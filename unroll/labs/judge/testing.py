"""What is wrong in a test loop: which images were tested, and whether the printed number is the share of right answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from unroll.labs.judge.seen_training import Pass, Seen
from unroll.labs.problems import Code, Problem, Witness

CHECK = "testing"
TESTS, TRAINING = 10_000, 60_000  # images of the whole MNIST: a number written for it is right, whatever this run has
ACCURACY = re.compile(r"acc|correct|%|right|正確|正确|準確|准确|精度", re.IGNORECASE)
NUMBER = re.compile(r"(?<![\w.])[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")

CODES = {
    "no-testing": Code(
        "there is no test over the test images",
        ("Which images has the model not been trained on?", "Go over all of them, and count the right answers."),
    ),
    "tested-on-training": Code(
        "the accuracy is that of the training images",
        ("Which loader does the test loop go over?",),
    ),
    "part-of-test": Code(
        "only a part of the test images is tested",
        ("How many images does the test loop see?", "Look for a break, drop_last, or a single batch."),
    ),
    "tested-before-training": Code(
        "the model is tested before it is trained only",
        ("In which order do training and test run?",),
    ),
    "tests-untrained": Code(
        "the model that is tested is not the one that was trained",
        ("Which object was trained, and which is tested?", "Is the model made once more after its training?"),
    ),
    "counts-batches": Code(
        "right answers are divided by the number of batches",
        ("What does your denominator count: batches, or images?",),
    ),
    "mean-of-batches": Code(
        "the accuracies of unequal batches are averaged",
        ("The last batch is smaller. How much should it count?",),
    ),
    "last-batch-only": Code(
        "the accuracy is that of the last batch only",
        ("Which values are kept from one batch to the next?",),
    ),
    "wrong-denominator": Code(
        "right answers are divided by another number than that of the test images",
        ("How many images are in the set that was tested?",),
    ),
    "accuracy-hard-coded": Code(
        "the accuracy that is printed is a constant",
        ("Where does the printed number come from?",),
    ),
    "accuracy-differs": Code(
        "the accuracy that is printed is not that of the model's answers",
        ("Count the right answers of one batch by hand.",),
    ),
    "accuracy-not-printed": Code(
        "the test accuracy is not printed", ("The number must be seen by whoever runs the file.",)
    ),
    "argmax-axis": Code(
        "the largest logit is looked for over the images of the batch, not over the classes",
        ("Which axis of the output are the classes?",),
    ),
    "dropout-in-test": Code(
        "the model is tested in training mode, with dropout or batch norm",
        ("Which call switches dropout off?",),
    ),
    "no-eval": Code("the model is tested in training mode", ("Which call tells layers that training is over?",)),
    "no-no-grad": Code("gradients are recorded while the model is tested", ("Is a gradient needed in a test?",)),
}
REMARKS = frozenset({"no-eval", "no-no-grad"})


def judge(seen: Seen) -> list[Problem]:
    """See `judge_training`."""
    problems: list[Problem] = []

    def add(code: str, line: int | None, message: str, witness: Witness | None = None) -> None:
        problems.append(Problem(CHECK, code, line, message, "accuracy", witness))

    axis = _axis(seen)
    whole = [p for p in seen.passes if p.whole]
    after = [p for p in whole if p.after_training]
    if not whole:
        if axis is not None:
            problems.append(axis)
        else:
            _without(seen, add)
        return problems
    if not after and seen.trained:
        if not seen.stopped:
            add(
                "tested-before-training",
                whole[-1].line,
                "The test images go through the model before it is trained, and never after: the accuracy is that of a model "
                "that has learned nothing.",
            )
            return problems
        return problems
    tested = after or whole
    if _untrained(seen, after):
        called = seen.models[after[-1].model]["name"] or "The model that is tested"
        add(
            "tests-untrained",
            after[-1].line,
            f"{called} was never trained here, and its weights have nothing of those of the model that was: it was made anew, "
            "and the accuracy is that of its random first values.",
        )
        return problems
    if all(p.answered for p in tested) and not any(_accuracy_printed(seen, p) for p in tested):
        if axis is not None:
            problems.append(axis)
        else:
            _number(seen, tested, add)
    _mode(seen, tested, add)
    return problems


def _untrained(seen: Seen, after: list[Pass]) -> bool:
    """Whether all that was tested after the training is certainly a model that has learned nothing."""
    # One that answers well has learned elsewhere; one beside a model that was trained is there to compare.
    new = {k for k, model in enumerate(seen.models) if model["untrained"]}
    others = [p for p in seen.passes if p.after_training and p.part != "train" and p.model not in new]
    return (
        bool(after)
        and not seen.unknown_images()
        and all(p.model in new and p.answered and p.right < 0.3 * len(p.images) for p in after)
        and all(2 * len(p.images) < seen.tests for p in others)
    )


def has_accuracy(seen: Seen) -> bool:
    """Whether a whole pass over the test images was followed by its accuracy."""
    # The printed text has what was written in another way than by print.
    lines = [line for line in seen.printed.splitlines() if ACCURACY.search(line)]
    return any(
        p.whole and p.answered and (_accuracy_printed(seen, p) or any(_same(line, _right_shares(p)) for line in lines))
        for p in seen.passes
    )


# --- numbers --------------------------------------------------------------------------------------------------------------------


def numbers(text: str) -> Iterator[tuple[float, float]]:
    """The numbers of a text, each with the unit of its last digit."""
    for match in NUMBER.finditer(text):
        digits, _, exponent = match.group().lower().partition("e")
        places = len(digits.partition(".")[2])
        yield float(match.group()), 10.0 ** (int(exponent or 0) - places)


def _same(text: str, shares: Iterable[float]) -> bool:
    """Whether a text has one of these shares, as a fraction or in per cent, rounded or cut off."""
    found = list(numbers(text))
    for share in shares:
        for value, unit in found:
            if value == 0 and share:
                continue
            for scale in (1.0, 100.0):
                if scale == 1.0 and unit > 0.1 and share not in (0.0, 1.0):
                    continue  # a whole number is no fraction
                if abs(value - scale * share) < max(unit, scale * 2e-6) * 1.000001:
                    return True
    return False


def _right_shares(done: Pass) -> list[float]:
    count, size = len(done.images), done.sizes[0]
    shares = [done.right / count, 1 - done.right / count, done.right / TESTS]  # an error rate says as much
    if TESTS % size == 0 or len(set(done.sizes)) == 1:
        shares.append(_mean(done))
        batches = -(-TESTS // size)
        shares.append(sum(r / s for r, s in zip(done.right_by_batch(), done.sizes, strict=True)) / batches)
    return shares


def _mean(done: Pass) -> float:
    return sum(r / s for r, s in zip(done.right_by_batch(), done.sizes, strict=True)) / len(done.sizes)


def _accuracy_printed(seen: Seen, done: Pass) -> bool:
    shares = _right_shares(done)
    for printed in seen.prints(done.last):
        text = printed["text"]
        if _same(text, shares):
            return True
        whole = {int(value) for value, unit in numbers(text) if unit == 1.0}
        if done.right in whole and whole & {len(done.images), TESTS}:
            return True
    return False


# --- problems -------------------------------------------------------------------------------------------------------------------


def _number(seen: Seen, tested: list[Pass], add: Any) -> None:
    """Why no number that was printed is the accuracy."""
    done = tested[-1]
    count, right, batches = len(done.images), done.right, len(done.sizes)
    printed = [p for p in seen.prints(done.last) if ACCURACY.search(p["text"]) and list(numbers(p["text"]))]
    truth = f"the model answers {right} of {count} test images right, {100 * right / count:.2f}%"
    if not printed:
        silent = not seen.code["other_output"] and not any(s > (done.line or 0) for s in seen.code["shown"])
        if not seen.stopped and silent and not _same(seen.printed, _right_shares(done)):
            before = [p for p in seen.prints(-1, done.at) if ACCURACY.search(p["text"]) and _literal(seen, p)]
            if before:
                _hard_coded(before[-1], truth, add)
            else:
                add("accuracy-not-printed", done.line, f"The test accuracy is not printed: {truth} in this short run.")
        return
    constant = [p for p in printed if _literal(seen, p)]
    for told in printed:
        if told in constant:
            continue
        text = told["text"]
        witness = Witness(
            f"the {count} test images of a short run", f"{right} / {count} = {right / count:.6g}", text[:80]
        )
        if right and batches > 1 and _same(text, [right / batches, right / batches / 100]):
            add(
                "counts-batches",
                _counting(seen, done, told, "below"),
                f"The right answers are divided by the {batches} batches, not by the images: {truth}.",
                witness,
            )
            return
        if len(set(done.sizes)) > 1 and _same(text, [_mean(done), 1 - _mean(done)]):
            add(
                "mean-of-batches",
                _counting(seen, done, told, "above"),
                f"The accuracies of the batches are averaged as if all were of one size; the last has {done.sizes[-1]} images, "
                f"the others {done.sizes[0]}: {truth}, and the average of the batches is {100 * _mean(done):.2f}%.",
                witness,
            )
            return
        last = done.right_by_batch()[-1]
        if batches > 1 and last != right and _same(text, [last / done.sizes[-1], last / count, last / done.sizes[0]]):
            add(
                "last-batch-only",
                _counting(seen, done, told, "above", adds=False),
                f"Only the last batch is counted ({last} right of {done.sizes[-1]}): {truth}. The counts begin anew each time.",
                witness,
            )
            return
        others = (TRAINING, seen.first_test, done.sizes[0], done.sizes[-1])
        other = next((n for n in others if right and n != count and _same(text, [right / n])), None)
        if other is not None:
            add(
                "wrong-denominator",
                _counting(seen, done, told, "below"),
                f"The right answers are divided by {other}, not by the {count} images: {truth}.",
                witness,
            )
            return
    if constant and len(constant) == len(printed):
        _hard_coded(constant[-1], truth, add)
        return
    tells = [p for p in printed if p not in constant and re.search("test", p["text"], re.IGNORECASE)]
    # A number of another kind may stand beside "acc": only what is called the test's is held against the model's answers.
    if tells and not seen.unknown_images() and _last_line_only(tells):
        told = tells[-1]
        witness = Witness(
            f"the {count} test images of a short run", f"{right} / {count} = {right / count:.6g}", told["text"][:80]
        )
        add("accuracy-differs", told["line"], f"What is printed is not the share of right answers: {truth}.", witness)


def _counting(seen: Seen, done: Pass, printed: dict[str, Any], side: str, adds: bool = True) -> int | None:
    """The line that counts what stands above or below a printed quotient; else that of the quotient, or of the print.

    Args:
        adds: whether it is to be a line that adds to a count, or one that begins it anew.
    """
    mine = [q for q in seen.code["fractions"] if q["print"] <= (printed["line"] or 0) <= (q["end"] or q["print"])]
    around = [loop for loop in seen.code["loops"] if loop["line"] < (done.line or 0) <= loop["end"]]
    lines: set[int] = {q["line"] for q in mine}
    if around and mine:
        loop = max(around, key=lambda loop: loop["line"])
        within = {
            one["line"]
            for q in mine
            for one in q[side]
            if one["adds"] == adds and loop["line"] < one["line"] <= loop["end"]
        }
        lines = within or lines
    told: int | None = printed["line"]
    return lines.pop() if len(lines) == 1 else told


def _last_line_only(prints: list[dict[str, Any]]) -> bool:
    return len({p["line"] for p in prints}) == 1


def _literal(seen: Seen, printed: dict[str, Any]) -> bool:
    return any(
        p["literal"] and p["line"] <= (printed["line"] or 0) <= (p["end"] or p["line"]) for p in seen.code["prints"]
    ) and bool(list(numbers(printed["text"])))


def _hard_coded(printed: dict[str, Any], truth: str, add: Any) -> None:
    add(
        "accuracy-hard-coded",
        printed["line"],
        f'"{printed["text"][:80]}" is a constant in the file, not counted from the model\'s answers: {truth} in this short run.',
    )


def _axis(seen: Seen) -> Problem | None:
    if not seen.kinds["maximum"]:
        return None
    found = seen.kinds["maximum"][0]
    return Problem(
        CHECK,
        "argmax-axis",
        found["line"],
        f"The largest number is looked for along axis 0, over the {found['rows']} images of the batch: that gives "
        f"{found['columns']} positions in the batch, not a class for each image. The classes are axis 1.",
        "prediction",
    )


def _without(seen: Seen, add: Any) -> None:
    """Why there is no whole pass over the test images."""
    passes = [p for p in seen.passes if p.part in ("test", "train")]
    tests = [p for p in passes if p.part == "test"]

    def told(done: Pass) -> list[dict[str, Any]]:
        return [p for p in seen.prints(done.last) if ACCURACY.search(p["text"]) and list(numbers(p["text"]))]

    def matches(done: Pass) -> list[dict[str, Any]]:
        if not done.answered:
            return []
        batches, size = len(done.sizes), len(done.images)
        shares = [done.right / size, done.right / seen.tests, _mean(done), done.right / TESTS, done.right / TRAINING]
        if batches > 1:
            shares.append(done.right / batches)
        return [p for p in told(done) if _same(p["text"], shares)]

    partly = [p for p in tests if p.after_training or not seen.trained]
    short = [p for p in partly if len(set(p.images)) < seen.tests]
    best = max((p for p in short if matches(p)), key=lambda p: len(p.images), default=None)
    if best is not None:
        _part(seen, best, add)
        return
    training = [p for p in passes if p.part == "train" and p.after_training and 2 * len(p.images) >= seen.first_test]
    if training and matches(training[-1]):
        done = training[-1]
        add(
            "tested-on-training",
            done.line,
            f"The accuracy is counted over {len(done.images)} training images, which the model has learned from, not over "
            "the test images: it does not say how well new images are classified.",
        )
        return
    together = {i for p in partly for i in p.images}
    if seen.stopped or seen.unknown_images() or len(together) >= seen.distinct_tests:
        return
    # Several batches are more than a look at a few images: whatever is made of the answers, some are not among them.
    several = [p for p in short if len(p.sizes) > 1 and p.sizes[0] > 1]
    if several:
        _part(seen, max(several, key=lambda p: len(p.images)), add)
        return
    constant = [
        p
        for p in seen.kinds["print"]
        if _literal(seen, p) and re.search("test", p["text"], re.I) and ACCURACY.search(p["text"])
    ]
    if constant:
        add(
            "accuracy-hard-coded",
            constant[-1]["line"],
            f'"{constant[-1]["text"][:80]}" is a constant in the file: the test images never go through the model.',
        )
        return
    add("no-testing", None, "The file ends without a test: the test images do not go through the trained model.")


def _part(seen: Seen, done: Pass, add: Any) -> None:
    dropped = len(done.images) == seen.tests - seen.tests % done.sizes[0]
    dropped = dropped and any(e["drop_last"] for e in seen.kinds["loader"])
    add(
        "part-of-test",
        done.line,
        f"The accuracy is counted over {len(done.images)} of the {seen.tests} test images that this run has: "
        + (
            "the last, smaller batch is left out (drop_last)."
            if dropped
            else "the loop ends early, or sees a part of them only."
        ),
        Witness("the test images of a short run", f"{seen.tests} images", f"{len(done.images)} images"),
    )


def _mode(seen: Seen, tested: list[Pass], add: Any) -> None:
    done = tested[-1]
    model = seen.models[done.model]
    called = model["name"] or "the model"
    if done.training and model["random"]:
        add(
            "dropout-in-test",
            done.line,
            f"{called} is tested in training mode: its dropout or batch norm is still on, so the answers depend on chance or on "
            "the other images of the batch. eval() comes before the test.",
        )
    elif done.training:
        add(
            "no-eval",
            done.line,
            f"{called} is tested in training mode. Without dropout it makes no difference; eval() is the habit.",
        )
    if done.grad:
        add("no-no-grad", done.line, "The test runs without torch.no_grad(): right, but it takes more time and memory.")
