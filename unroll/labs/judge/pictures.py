"""What is wrong in the pictures of test images: how many there are, and whether their labels and predictions stand with them."""

from __future__ import annotations

import re
from typing import Any

from unroll.labs.child.observe_pictures import SIDE
from unroll.labs.judge.seen_training import Seen
from unroll.labs.problems import Code, Problem, Witness

CHECK = "pictures"
ASKED = 10
_WORDS = "zero one two three four five six seven eight nine".split()  # noqa: SIM905

CODES = {
    "no-pictures": Code("no test images are shown", ("The lab asks for ten of them, with label and prediction.",)),
    "few-pictures": Code("fewer than ten test images are shown", ("How many images does the loop draw?",)),
    "pictures-of-training": Code("the images shown are training images", ("From which set are the images taken?",)),
    "label-missing": Code(
        "the true label is not shown with the images", ("What should a reader compare the prediction with?",)
    ),
    "prediction-missing": Code(
        "the prediction is not shown with the images", ("What does the model say of each image?",)
    ),
    "prediction-of-another": Code(
        "the predictions shown are not the model's for these images",
        ("Are images and predictions taken at the same positions?",),
    ),
}
REMARKS: frozenset[str] = frozenset()


def judge(seen: Seen) -> list[Problem]:
    """See `judge_training`."""
    problems: list[Problem] = []

    def add(code: str, line: int | None, message: str, about: str | None = None, witness: Any = None) -> None:
        problems.append(Problem(CHECK, code, line, message, about, witness))

    drawn = [p for p in seen.pictures if p["images"]]
    shown = test_images(seen)
    line = seen.pictures[-1]["line"] if seen.pictures else None
    # In a picture of several images some may not have been made out.
    unknown = len(drawn) < len(seen.pictures) or any(max(p["size"]) > SIDE for p in drawn)
    if not shown:
        if seen.stopped:
            return problems
        if drawn and not unknown:
            count = len({i for p in drawn for i in p["images"]})
            add(
                "pictures-of-training",
                line,
                f"The {count} images that are shown are training images; the lab asks for test images.",
            )
        elif not seen.pictures and not seen.code["other_pictures"]:
            add("no-pictures", None, "The file ends without showing ten test images with their labels and predictions.")
        return problems
    if len(shown) < ASKED and not seen.stopped and not unknown:
        line = next(p["line"] for p in reversed(drawn) if any(i >= seen.first_test for i in p["images"]))
        add(
            "few-pictures",
            line,
            f"{len(shown)} test image{'s are' if len(shown) > 1 else ' is'} shown; the lab asks for {ASKED}.",
            None,
            Witness("the figures that the file draws", f"{ASKED} test images", f"{len(shown)}"),
        )
    if not seen.stopped:
        _texts(seen, drawn, add)
    return problems


def test_images(seen: Seen) -> set[int]:
    """The numbers of the test images that are shown."""
    return {i for p in seen.pictures for i in p["images"] if i >= seen.first_test}


def digits(text: str) -> list[int]:
    """The digits 0 to 9 that stand alone in a text, or as words."""
    found = re.findall(r"(?<![\w.])\d(?!\.?\d)|\b(?:" + "|".join(_WORDS) + r")\b", text.lower().replace("_", " "))
    loose = found or re.findall(r"(?<!\d)\d(?!\d)", text)  # such as T7/P3
    return [int(d) if d.isdigit() else _WORDS.index(d) for d in loose]


def _texts(seen: Seen, drawn: list[dict[str, Any]], add: Any) -> None:
    """Whether each image's label and prediction stand with it."""
    answers: dict[int, set[int]] = {}
    trained = max((f["at"] for f in seen.trained), default=-1)
    for forward in seen.kinds["forward"]:
        if forward["at"] > trained:
            for image, predicted in zip(seen.images(forward), seen.predicted(forward), strict=True):
                if predicted >= 0:
                    answers.setdefault(image, set()).add(predicted)
    single = [p for p in drawn if p["event"] > trained and len(p["images"]) == 1 and p["images"][0] >= seen.first_test]
    if not single or not _own(single):
        # Many images in one picture, or texts of the whole figure: lists of digits, which are not told apart.
        return
    if _of_others(seen, single, answers, trained, add):
        return
    # Only where label and prediction differ, it can be seen which of them a text has.
    told = [(p, int(seen.labels[p["images"][0]]), answers.get(p["images"][0], set())) for p in single]
    plain = [(p, true, said) for p, true, said in told if said and true not in said]
    if len(plain) < 2 or len({true for _, true, _ in plain}) < 2:
        return
    elsewhere = _elsewhere(seen, single)
    label = sum(true in digits(p["own"]) for p, true, _ in plain)
    prediction = sum(bool(said & set(digits(p["own"]))) for p, _, said in plain)
    most = max(len(digits(p["own"])) for p, _, _ in plain)
    line = plain[0][0]["line"]
    first, true, said = plain[0]
    witness = Witness(
        f"an image of a {true}, test image {plain[0][0]['images'][0] - seen.first_test}",
        f"{min(said)}",
        first["own"][:60],
    )
    example = f'an image of a {true}, which the model takes for a {min(said)}, has "{first["own"][:60]}"'
    if 2 * prediction < len(plain) and 2 * label >= len(plain) and most >= 2:
        add(
            "prediction-of-another",
            line,
            f"The predictions beside the images are not what the model says of them: {example}. Images and predictions are "
            "probably taken from different places.",
            "prediction",
            witness,
        )
    elif 2 * prediction < len(plain) and 2 * label >= len(plain) and not elsewhere:
        add("prediction-missing", line, f"The prediction is not shown with the images: {example}.", "prediction")
    elif 2 * label < len(plain) and 2 * prediction >= len(plain) and not elsewhere:
        add("label-missing", line, f"The true label is not shown with the images: {example}.", "label")


def _of_others(
    seen: Seen, pictures: list[dict[str, Any]], answers: dict[int, set[int]], trained: int, add: Any
) -> bool:
    """Whether the texts have, in their order, the model's answers to other images than those shown; says so.

    That is so where a column of the texts' digits is not what the model says of the images, if only at one of them, and is what
    it said of a row of others. The labels, another column, tell that the texts are read rightly.
    """
    rows = [digits(p["own"]) for p in pictures]
    images = [p["images"][0] for p in pictures]
    if len(rows) < 5 or len({len(row) for row in rows}) != 1 or len(set(images)) < len(images):
        return False
    labels = [int(seen.labels[image]) for image in images]
    columns = [list(column) for column in zip(*rows, strict=True)]
    others = [column for column in columns if column != labels]
    said = [answers.get(image, set()) for image in images]
    if len(others) == len(columns) or any(all(a in s for a, s in zip(c, said, strict=True)) for c in columns):
        return False
    count = len(rows)
    for column in others:
        if len(set(column)) < 2:  # a model that says the same of everything
            continue
        wrong = [k for k, (answer, known) in enumerate(zip(column, said, strict=True)) if known and answer not in known]
        for done in reversed([p for p in seen.passes if p.at > trained]):
            for start in range(len(done.images) - count + 1):
                if wrong and done.predicted[start : start + count] == column:
                    first, k = pictures[wrong[0]], wrong[0]
                    add(
                        "prediction-of-another",
                        first["line"],
                        f"The predictions beside the images are the model's answers to {count} other images, "
                        f"which it was given in line {done.line}: an image of a {labels[k]}, which the model takes for a "
                        f'{min(said[k])}, has "{first["own"][:60]}". Images and predictions come from two draws.',
                        "prediction",
                        Witness(
                            f"test image {images[k] - seen.first_test}, a {labels[k]}",
                            f"{min(said[k])}",
                            f"{column[k]}",
                        ),
                    )
                    return True
    return False


def _own(pictures: list[dict[str, Any]]) -> bool:
    return sum(bool(digits(p["own"])) for p in pictures) * 2 >= len(pictures)


def _elsewhere(seen: Seen, pictures: list[dict[str, Any]]) -> bool:
    """Whether digits for all of these pictures stand in the figure's texts or were printed."""
    need = min(len(pictures), ASKED)
    if any(len(digits(p["figure"])) >= need for p in pictures):
        return True
    trained = max((f["at"] for f in seen.trained), default=-1)
    printed = [digits(p["text"]) for p in seen.prints(trained)]
    return any(len(d) >= need for d in printed) or sum(bool(d) for d in printed) >= need
