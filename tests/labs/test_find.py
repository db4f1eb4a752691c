"""Which classes of a student's file are taken as cell and classifier."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from unroll.labs.child.argument_names import meaning_of
from unroll.labs.child.find import Found, find, role_of, step_roles

HEAD = "import torch\nfrom torch import nn\nfrom torch.nn import Module\n"
STEP = "class {name}(nn.Module):\n    def forward(self, {arguments}):\n        return h, c\n"
WHOLE = (
    "class {name}(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.step = {cell}()\n"
    "    def forward(self, x):\n        return x\n"
)


def found(source: str, cell_name: str | None = None, seen: bool = False) -> Found:
    space: dict[str, Any] = {"__name__": "__main__"}
    exec(HEAD + source, space)
    instances = [space[name]() for name in ("Net",) if seen and name in space]
    return find(space, instances, cell_name)


def name(kind: type[nn.Module] | None) -> str | None:
    return None if kind is None else kind.__name__


@pytest.mark.parametrize(
    ("arguments", "roles"),
    [
        ("x, h_prev, c_prev", ["x", "h", "c"]),
        ("x_t, c_prev, h_prev", ["x", "c", "h"]),
        ("input, prev_h=None, prev_c=None", ["x", "h", "c"]),
        ("a, b, d", ["x", "h", "c"]),
        ("x, state", ["x", "hc"]),
        ("x, hidden", ["x", "hc"]),
        ("x, hc=None", ["x", "hc"]),
        ("x", None),
        ("x, h, c, mask", None),
    ],
)
def test_find_roles_of_a_steps_arguments(arguments: str, roles: list[str] | None) -> None:
    space: dict[str, Any] = {}
    exec(HEAD + STEP.format(name="Step", arguments=arguments), space)
    assert step_roles(space["Step"]) == roles


def test_find_role_of_words() -> None:
    assert [role_of(word) for word in ("hidden_state", "c_t_1", "hidden_cell", "data")] == ["h", "c", None, None]


def test_find_takes_the_labs_names_first() -> None:
    source = STEP.format(name="Other", arguments="x, h, c") + STEP.format(name="ManualLSTMCell", arguments="x, h, c")
    source += WHOLE.format(name="ManualLSTMClassifier", cell="Other")
    both = found(source)
    assert (name(both.cell), name(both.classifier)) == ("ManualLSTMCell", "ManualLSTMClassifier")
    assert name(found(source, "Other").cell) == "Other"


def test_find_takes_the_only_step_and_who_uses_it() -> None:
    source = STEP.format(name="Mine", arguments="x, state") + WHOLE.format(name="Net", cell="Mine")
    source += "class Loss(nn.Module):\n    def forward(self, x):\n        return x\n"
    both = found(source, seen=True)
    assert (name(both.cell), name(both.classifier)) == ("Mine", "Net")
    assert len(both.cells) == len(both.classifiers) == 1


def test_find_takes_no_classifier_with_states_for_a_cell() -> None:
    net = WHOLE.format(name="Net", cell="Mine").replace("self, x)", "self, x, h=None, c=None)")
    both = found(STEP.format(name="Mine", arguments="x, h, c") + net)
    assert (name(both.cell), name(both.classifier)) == ("Mine", "Net")


def test_find_says_why_there_is_no_cell() -> None:
    two = STEP.format(name="A", arguments="x, h, c") + STEP.format(name="B", arguments="x, h, c")
    assert "A, B; name one with --cell" in str(found(two).reason)
    assert "no class that is a torch.nn.Module" in str(found("").reason)
    assert "there is Net" in str(found("class Net(nn.Module):\n    def forward(self, x):\n        return x\n").reason)
    assert "no class Missing" in str(found(two, "Missing").reason)


def test_find_leaves_imported_modules_alone() -> None:
    assert found("from torch.nn import LSTMCell, GRUCell\n").cell is None


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("layer_dim", "layers"),
        ("num_hidden_layers", "layers"),
        ("hidden_layer_size", "hidden"),
        ("lstm_size", "hidden"),
        ("H", "hidden"),
        ("n_in", "input"),
        ("in_features", "input"),
        ("out_features", "classes"),
        ("p_drop", "dropout"),
        ("gain", None),
    ],
)
def test_the_meaning_of_a_constructors_argument(name: str, meaning: str | None) -> None:
    assert meaning_of(name) == meaning
