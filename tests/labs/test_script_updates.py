"""The check of the in-class script: gradients by hand, updates by other rules, and what is printed after training."""

from __future__ import annotations

import numpy as np
import pytest

from tests.labs.scripts import BACK, BY_HAND, FAULTS, MAKE, ONCE_AN_EPOCH, RIGHT, STYLES, TEST, UPDATE, changed, observe
from unroll.labs.judge.script import REMARKS, judge_script
from unroll.labs.judge.script_match import Run
from unroll.labs.problems import Problem


def judged(text: str) -> tuple[list[Problem], set[str]]:
    """Faults, and the codes of remarks."""
    problems = judge_script(observe(text))
    return [p for p in problems if p.code not in REMARKS], {p.code for p in problems if p.code in REMARKS}


def codes(text: str) -> tuple[list[str], set[str]]:
    faults, remarks = judged(text)
    return [p.code for p in faults], remarks


# --- gradients by hand ----------------------------------------------------------------------------------------------------------

CHECKED = changed(
    (
        "for epoch in range(num_epochs):\n",
        """
params = [W, U, b, W_out, b_out]
for p in params:
    p.requires_grad_(True)
s = torch.zeros(n, 1)
for w in train_data[0][0]:
    s = torch.tanh(W @ s + U @ word_to_onehot(w) + b)
loss_fn((W_out @ s + b_out).T, torch.tensor([1])).backward()
print("largest gradient", max(p.grad.abs().max() for p in params))
for p in params:
    p.grad = None
    p.requires_grad_(False)
for epoch in range(num_epochs):
""",
    ),
    text=BY_HAND,
)
NO_LOSS = changed(
    ("        loss = loss_fn(logits.T, torch.tensor([label]))\n", ""),
    ("        d[label] -= 1\n", "        loss = -torch.log(d[label, 0])\n        d[label] -= 1\n"),
    text=BY_HAND,
)
HANDS = {
    "checked once": CHECKED,
    "its own cross-entropy": NO_LOSS,
    "numbers of its own for a rate": changed(("learning_rate *", "0.05 *"), text=CHECKED),
    "both sentences together": changed(
        (
            "        W_out -= learning_rate * d @ states[-1].T\n        b_out -= learning_rate * d\n",
            "        g = (d @ states[-1].T, d)\n",
        ),
        (
            "        W -= learning_rate * dW\n        U -= learning_rate * dU\n        b -= learning_rate * db\n",
            "        g = (*g, dW, dU, db)\n        total = g if label == 1 else [one + two for one, two in zip(total, g)]\n"
            "    for p, one in zip((W_out, b_out, W, U, b), total):\n        p -= learning_rate * one\n",
        ),
        text=CHECKED,
    ),
    "new tensors": changed(("W -= learning_rate * dW", "W = W - learning_rate * dW"), text=CHECKED),
    "backward of logits": changed(
        (
            "        loss.backward()\n",
            "        logits.backward((torch.softmax(logits, 0) - torch.eye(2)[:, [label]]).detach())\n",
        )
    ),
}


@pytest.mark.parametrize("style", HANDS)
def test_script_gradients_by_hand_are_right(style: str) -> None:
    faults, remarks = codes(HANDS[style])
    assert faults == []
    assert remarks <= {"rnn-epoch-update"}


@pytest.mark.parametrize("text", [BY_HAND, CHECKED, NO_LOSS])
@pytest.mark.parametrize(
    ("old", "new", "code", "names"),
    [
        ("* (1 - states[t + 1] ** 2)", "* (1 - states[t] ** 2)", "rnn-update-differs", "W, U and b do"),
        ("        W -= learning_rate * dW\n", "", "rnn-not-updated", "W was"),
        ("U -= learning_rate * dU", "U += learning_rate * dU", "rnn-ascent", "U is"),
        ("b_out -= learning_rate * d\n", "b_out -= d\n", "rnn-no-rate", "b_out is"),
    ],
)
def test_script_gradients_by_hand_with_a_fault(text: str, old: str, new: str, code: str, names: str) -> None:
    (fault,), _ = judged(changed((old, new), text=text))
    assert (fault.check, fault.code) == ("update", code)
    assert f": {names} " in fault.message


def test_script_gradients_by_hand_that_cannot_be_followed_are_no_fault() -> None:
    # A random search has no gradients at all.
    text = changed(
        ("        d = torch.softmax(logits, 0)\n", "        d = torch.randn(2, 1)\n"),
        ("            dz = ds *", "            dz = torch.randn(n, 1) + ds *"),
        ("learning_rate * d @ states[-1].T", "learning_rate * torch.randn(2, n)"),
        (TEST, ""),
        text=BY_HAND,
    )
    faults, remarks = codes(text)
    assert faults == ["rnn-no-prediction"]
    assert "rnn-unread" in remarks


def test_script_check_of_each_gradient_leaves_the_passes() -> None:
    """Where every sentence has its backward(), updates are compared with it."""
    seen = observe(changed(("W -= learning_rate * W.grad", "W += learning_rate * W.grad")))
    assert {row["kind"] for row in seen["passes"]} == {"backward"}
    assert {row["kind"] for row in observe(CHECKED)["passes"]} == {"loss"}


# --- other rules ----------------------------------------------------------------------------------------------------------------

LOOP = """            for p in (W, U, b, W_out, b_out):
                STEP
                p.grad.zero_()
"""


def ruled(step: str, before: str = "", text: str = RIGHT) -> str:
    """The script with another update of each parameter."""
    loop = "        with torch.no_grad():\n" + LOOP.replace("STEP", step.replace("\n", "\n                "))
    return changed((UPDATE, loop), (MAKE, MAKE + before), text=text)


VELOCITY = "speed = {id(p): torch.zeros_like(p) for p in (W, U, b, W_out, b_out)}\n"
RULES = {
    "momentum": ruled("speed[id(p)].mul_(0.9).add_(p.grad)\np -= learning_rate * speed[id(p)]", VELOCITY),
    "momentum of a mean": ruled(
        "speed[id(p)] = 0.5 * speed[id(p)] + 0.5 * p.grad\np -= learning_rate * speed[id(p)]", VELOCITY
    ),
    "Nesterov": ruled(
        "speed[id(p)].mul_(0.9).add_(p.grad)\np -= learning_rate * (p.grad + 0.9 * speed[id(p)])", VELOCITY
    ),
    "weight decay": ruled("p -= learning_rate * (p.grad + 1e-3 * p)"),
    "small weight decay": ruled("p -= learning_rate * (p.grad + 1e-4 * p)"),
    "weight decay of matrices": ruled("p -= learning_rate * (p.grad + 0.01 * p * (min(p.shape) > 1))"),
    "momentum and weight decay": ruled(
        "speed[id(p)].mul_(0.9).add_(p.grad + 1e-3 * p)\np -= learning_rate * speed[id(p)]", VELOCITY
    ),
    "clipping": ruled("p.grad.clamp_(-0.1, 0.1)\np -= learning_rate * p.grad"),
    "clipping apart": ruled("p -= learning_rate * torch.clamp(p.grad, -0.2, 0.2)"),
}


@pytest.mark.parametrize("rule", RULES)
def test_script_other_rule_is_a_remark(rule: str) -> None:
    assert codes(RULES[rule]) == ([], {"rnn-not-plain"})


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (ruled("p -= learning_rate * p.grad.sign()"), ["rnn-update-differs"]),
        (ruled("p -= learning_rate * (p.grad + p.grad ** 2)"), ["rnn-update-differs"]),
        # Momentum with a fault of its own: the one is told, the other is not made a fault.
        (
            ruled(
                "speed[id(p)].mul_(0.9).add_(p.grad)\nif p is not b_out:\n    p -= learning_rate * speed[id(p)]",
                VELOCITY,
            ),
            ["rnn-not-updated"],
        ),
        (ruled("speed[id(p)].mul_(0.9).add_(p.grad)\np += learning_rate * speed[id(p)]", VELOCITY), ["rnn-ascent"]),
    ],
)
def test_script_other_rule_with_a_fault_is_one_problem(text: str, wanted: list[str]) -> None:
    assert codes(text)[0] == wanted


# --- no learning rate by name ---------------------------------------------------------------------------------------------------


def unnamed(text: str, rate: str = "0.1") -> str:
    """A script with a number, or another expression, in the place of the learning rate's name."""
    text = text.replace("learning_rate, num_epochs = 0.1", "num_epochs =").replace(
        "num_epochs =, 300", "num_epochs = 300"
    )
    text = text.replace("lr, num_epochs = 0.05, ", "num_epochs = ")
    return text.replace("learning_rate", rate).replace("lr *", f"{rate} *")


@pytest.mark.parametrize("style", STYLES)
def test_script_right_without_a_rate_by_name(style: str) -> None:
    text = unnamed(STYLES[style])
    assert "learning_rate" not in text
    faults, remarks = codes(text)
    assert faults == []
    assert remarks <= {"rnn-epoch-update"}


@pytest.mark.parametrize("rule", RULES)
def test_script_other_rule_without_a_rate_by_name_is_a_remark(rule: str) -> None:
    assert codes(unnamed(RULES[rule])) == ([], {"rnn-not-plain"})


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        ("p -= p.grad", []),
        ("p += 0.1 * p.grad", ["rnn-ascent"]),
        ("p.copy_(p + 0.3 * p.grad)", ["rnn-ascent"]),
        ("p *= 0.5", ["rnn-update-differs"]),
        ("p.copy_(p * 0.9)", ["rnn-update-differs"]),
        ("p -= 0.1 * p.grad.sign()", ["rnn-update-differs"]),
        ("p -= 0.1 * torch.randn_like(p)", ["rnn-update-differs"]),
    ],
)
def test_script_update_is_judged_without_a_rate_by_name(step: str, wanted: list[str]) -> None:
    faults, remarks = judged(unnamed(ruled(step)))
    assert [p.code for p in faults if p.check == "update"] == wanted
    assert "rnn-unread" not in remarks


def test_script_ascent_names_the_rate_that_its_updates_show() -> None:
    fault = judged(unnamed(ruled("p += 0.03 * p.grad")))[0][0]
    assert fault.code == "rnn-ascent"
    assert fault.witness is not None
    assert "learning_rate = 0.03" in fault.witness.given


def test_script_zeroed_between_without_a_rate_by_name() -> None:
    text = changed(
        (BACK, "        for p in (W, U, b, W_out, b_out):\n            p.grad = None\n" + BACK), text=ONCE_AN_EPOCH
    )
    assert codes(text)[0] == codes(unnamed(text))[0] == ["rnn-gradient-lost"]


@pytest.mark.parametrize(
    "step",
    ["p -= 0.1 * 0.99 ** epoch * p.grad", "p -= 0.1 * p.grad / max(1, sum(q.grad.norm() for q in (W, U)))"],
)
def test_script_another_rate_each_time_is_open_where_none_has_a_name(step: str) -> None:
    faults, remarks = judged(unnamed(ruled(step)))
    assert faults == []
    assert "rnn-unread" in remarks
    assert remarks <= {"rnn-unread", "rnn-rates"}


def test_script_raised_likelihood_is_no_ascent() -> None:
    text = changed(("loss = loss_fn(", "loss = -loss_fn("), text=unnamed(ruled("p += 0.1 * p.grad")))
    assert [p for p in judged(text)[0] if p.check == "update"] == []


def test_script_parameters_keep_their_name_in_a_loop() -> None:
    """The variable of a loop over the parameters is no name of the last one."""
    text = changed(
        ("(W, U, b, W_out, b_out):\n                p.grad", "(W, U, b, W_out, b_out):\n                p.grad"),
        (MAKE, MAKE.replace("b_out = torch.zeros(2, 1,", "last = torch.zeros(2, 1,") + "rest = [last]\ndel last\n"),
        ("            b_out -= learning_rate * b_out.grad\n", ""),
        ("b_out", "rest[0]"),
    )
    seen = observe(text)
    assert not np.isnan(seen["values"]["rest[0]"]).any()
    assert [p.code for p in judge_script(seen) if p.code not in REMARKS] == ["rnn-not-updated"]


@pytest.mark.parametrize(
    "pair",
    [
        ("learning_rate, num_epochs = 0.1", "learning_rate, num_epochs = float('nan')"),
        ("+ b)", "+ b) / (1 - epoch // 2)"),
    ],
)
def test_script_parameters_that_become_nan_are_one_problem(pair: tuple[str, str]) -> None:
    text = RIGHT.replace(*pair, 1)
    faults, _ = judged(text)
    nan = [p for p in faults if p.code == "rnn-nan"]
    assert [p.check for p in nan] == ["update"]
    assert "nan" in nan[0].message
    assert {p.check for p in faults} <= {"forward", "update"}


# --- the forward ----------------------------------------------------------------------------------------------------------------


def test_script_loss_of_the_state_is_named() -> None:
    text = changed(
        ("loss_fn(logits.T", "loss_fn(s.T"),
        (UPDATE, UPDATE.replace("b_out, ", "").replace("(W, U, b, W_out, b_out)", "(W, U, b)")),
        ("            W_out -= learning_rate * W_out.grad\n            b_out -= learning_rate * b_out.grad\n", ""),
    )
    faults, _ = judged(text)
    assert [(p.check, p.code) for p in faults] == [("forward", "rnn-loss-of-state")]
    assert text.splitlines()[(faults[0].line or 0) - 1].strip().startswith("loss = ")
    assert "W_out and b_out get no gradient" in faults[0].message


def test_script_ways_that_cannot_be_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script that matches nothing costs a bounded number of forwards."""
    from unroll.labs.judge import script_match

    seen, tried = observe(FAULTS["a factor"][2]), []
    original = script_match.fits
    monkeypatch.setattr(script_match, "fits", lambda *args, **named: tried.append(args[2]) or original(*args, **named))
    assert script_match.find_match(Run(seen)) is None
    assert len(tried) < 2000
    assert {how.start for how in tried} == {"zeros"}


# --- predictions ----------------------------------------------------------------------------------------------------------------

PRINT = TEST[TEST.index("    print(f") :]
PRINTS = {
    "a probability beside": '    p = torch.softmax(logits, 0)[1].item()\n    print(f"{sentence}: P(good)={p:.3f}, Prediction: '
    '{torch.argmax(logits)}")\n',
    "both probabilities": '    p = torch.softmax(logits, 0).flatten().tolist()\n    print(f"{sentence} good {p[1]:.2f} bad '
    '{p[0]:.2f} Prediction: {int(p[1] > p[0])}")\n',
    "a legend": '    print(f"{sentence} Prediction (0 = bad, 1 = good): {torch.argmax(logits).item()}")\n',
    "a word and its probability": '    p = torch.softmax(logits, 0)\n    word = "Positive" if p[1] > p[0] else "Negative"\n'
    '    print(sentence, "Prediction:", word, f"({p.max():.2f})")\n',
    "a word and a whole probability": '    p = torch.softmax(logits, 0)\n    word = "Positive" if p[1] > p[0] else "Negative"\n'
    '    print(sentence, "Prediction:", word, f"({p.max():.0f}.0)")\n',
    "the prediction alone": "    print(torch.argmax(logits).item())\n",
    "numpy": "    import numpy as np\n    print(sentence, 'prediction', np.argmax(logits.detach().numpy()))\n",
    "compared": "    print(sentence, 'prediction', int(logits[1] > logits[0]))\n",
    "built-in max": "    print(sentence, 'prediction', max((0, 1), key=lambda i: logits[i]))\n",
}


@pytest.mark.parametrize("order", ["train_data", "train_data[::-1]"])
@pytest.mark.parametrize("how", PRINTS)
def test_script_prediction_is_read(how: str, order: str) -> None:
    test = TEST.replace(PRINT, PRINTS[how]).replace("in train_data", f"in {order}")
    assert codes(changed((TEST, test))) == ([], set())


@pytest.mark.parametrize("how", ["a probability beside", "a word and its probability", "the prediction alone"])
def test_script_prediction_that_is_wrong_is_seen(how: str) -> None:
    text = changed((TEST, TEST.replace(PRINT, PRINTS[how]).replace("W_out @ s + b_out", "-W_out @ s - b_out")))
    faults, remarks = judged(text)
    assert [p.check for p in faults] == ["prediction"] or "rnn-unread" in remarks


@pytest.mark.parametrize(
    "test",
    [
        TEST.replace("torch.argmax(logits).item()", "label").replace("sentence, _", "sentence, label"),
        TEST.replace("    logits = W_out @ s + b_out\n", "").replace(
            "torch.argmax(logits).item()", "int('good' in sentence)"
        ),
        "print('The movie is good -> Prediction: 1')\nprint('The movie is bad -> Prediction: 0')\n",
    ],
)
def test_script_prediction_hard_coded(test: str) -> None:
    text = changed((TEST, test))
    faults, _ = judged(text)
    assert [(p.check, p.code) for p in faults] == [("prediction", "rnn-prediction-hard-coded")]
    assert "print" in text.splitlines()[(faults[0].line or 0) - 1]


def test_script_prediction_in_training_is_not_hard_coded() -> None:
    text = changed(
        (
            "        total += loss.item()\n",
            "        total += loss.item()\n        last[label] = torch.argmax(logits).item()\n",
        ),
        ("loss_history = []\n", "loss_history = []\nlast = {}\n"),
        (TEST, "for sentence, label in train_data:\n    print(sentence, 'Prediction:', last[label])\n"),
    )
    assert codes(text) == ([], set())


def test_script_wrong_prediction_has_no_witness_that_shows_nothing() -> None:
    (problem,), _ = judged(changed(("0.1, 300", "0.1, 3")))
    assert problem.code == "rnn-prediction"
    assert problem.witness is None
    assert "not learned enough" in problem.message
    # Where the trained parameters give another prediction, the witness has both.
    (problem,), _ = judged(changed(("W_out @ s + b_out\n    print", "b_out\n    print")))
    assert problem.witness is not None
    assert problem.witness.expected.split("prediction = ")[1] != problem.witness.got.split("prediction = ")[1]


def test_script_test_with_other_parameters_than_the_trained_is_said() -> None:
    text = changed((TEST, MAKE + "b_out.data += torch.tensor([[50.0], [0.0]])\n" + TEST))
    (problem,), _ = judged(text)
    assert problem.code == "rnn-prediction"
    assert "other values than those that were learned" in problem.message
