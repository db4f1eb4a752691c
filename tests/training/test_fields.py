"""Every field of every kind of recipe reaches training: changed, it changes the outcome, and to what the plain loop says."""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple, get_args, get_origin

import pytest
import torch

from unroll.engines import native
from unroll.engines.native import eager
from unroll.errors import InputError
from unroll.training import fit, train
from unroll.training.recipe import KINDS
from unroll.training.tasks import load_dataset


class Change(NamedTuple):
    """A field, the values that it takes in the place of the base's, and what the base has beside its usual fields."""

    field: str
    values: tuple[Any, ...]
    base: dict[str, Any] = {}  # noqa: RUF012 - nobody writes to it


SGD = {"optimizer": "sgd", "learning_rate": 0.1}
SHARED = [
    Change("cell", ("rnn", "gru", "peephole", "coupled", "layernorm", "mgu")),
    Change("nonlinearity", ("relu",), {"cell": "rnn"}),
    Change("hidden_size", (6,)),
    Change("num_layers", (2,)),
    Change("bidirectional", (True,)),
    Change("dropout", (0.3,)),
    Change("pooling", ("mean", "max")),
    Change("initialisation", ("uniform", "linear", "normal")),
    Change("forget_bias", (0.7,)),
    Change("optimizer", ("sgd", "adam"), {"weight_decay": 0.1}),
    Change("learning_rate", (0.03,)),
    Change("momentum", (0.5,), SGD),
    Change("nesterov", (True,), SGD | {"momentum": 0.5}),
    Change("weight_decay", (0.1,)),
    Change("schedule", ("one_cycle", "cosine")),
    Change("max_norm", (0.1,), SGD),
    Change("label_smoothing", (0.1,)),
    Change("weight_average", (0.5,)),
    Change("batch_size", (8,)),
    Change("epochs", (4,), {"schedule": "one_cycle"}),
    Change("shuffle", (False,)),
    Change("validation", (0.2, 7)),
    Change("seed", (1,)),
]
TESTED = [
    Change("test_data", ("test_{kind}",)),
    Change("test", (0.25, 8)),
    Change("class_weights", ("balanced",)),
]
OWN = {
    "images": [
        Change("data", ("more_pictures",)),
        Change("patience", (1, 2), {"validation": 12, "epochs": 8, "learning_rate": 0.1}),
        Change("standardise", (False,)),
        Change("rotation", (30.0,)),
        Change("scaling", (0.3,)),
        Change("shear", (20.0,)),
        Change("translation", (2.0,)),
        Change("elastic", (1.0,)),
        Change("plain_epochs", (1, 2), {"rotation": 30.0}),
    ],
    "sentences": [
        *TESTED,
        Change("data", ("more_sentences",)),
        Change("patience", (1, 2), {"validation": 12, "epochs": 8, "learning_rate": 0.1, "text_column": "title"}),
        Change("text_column", ("title",)),
        Change("label_column", ("grade",)),
        Change("lowercase", (False,)),
        Change("min_count", (12,)),
        Change("max_vocabulary", (6,)),
        Change("max_length", (4,)),
        Change("embedding_size", (4,)),
        Change("word_dropout", (0.3,)),
    ],
    "series": [
        *TESTED,
        Change("data", ("more_series",)),
        Change("patience", (1, 2), {"validation": 9, "epochs": 8, "learning_rate": 0.1}),
        Change("id_column", ("piece",)),
        Change("time_column", ("tick",)),
        Change("label_column", ("state",)),
        Change("features", ("a,b", ["state", "a"])),
        Change("ignore", ("piece,tick", ["b"])),
        Change("fill_missing", ("last", "zero")),
    ],
}
TABLE = {kind: {change.field: change for change in SHARED + OWN[kind]} for kind in KINDS}
TITLES = {"name", "about", "task"}  # what a recipe is called
SHARED_ELSEWHERE = {
    "engine",
    "device",
    "log",
    "log_every",
}  # what must change nothing but speed and print: tested below
OWN_ELSEWHERE = {"images": {"pictures"}, "sentences": set(), "series": set()}
REFUSED = {("fill_missing", "none")}  # values that this data does not allow


@pytest.mark.parametrize("kind", KINDS)
def test_fields_are_all_in_the_table(kind):
    elsewhere = SHARED_ELSEWHERE | OWN_ELSEWHERE[kind]
    assert set(TABLE[kind]) | TITLES | elsewhere == set(KINDS[kind].model_fields), (
        "every field needs a change in the table that shows where it goes"
    )
    assert not set(TABLE[kind]) & (TITLES | elsewhere)


@pytest.mark.parametrize("kind", KINDS)
def test_fields_with_a_choice_take_every_value(tiny_recipe, kind):
    for name, change in TABLE[kind].items():
        annotation = KINDS[kind].model_fields[name].annotation
        if get_origin(annotation) is Literal:
            usual = getattr(tiny_recipe(kind, **change.base), name)
            choices = {value for value in get_args(annotation) if (name, value) not in REFUSED}
            assert {usual, *change.values} == choices, name


@pytest.fixture(scope="module")
def base_outcome(tiny_recipe, product):
    """The outcome before a change; many changes have the same base."""
    known: dict[Any, Any] = {}

    def outcome(kind, base):
        key = kind, *sorted(base.items())
        if key not in known:
            known[key] = product(tiny_recipe(kind, **base))
        return known[key]

    return outcome


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [(kind, field, value) for kind in KINDS for field, change in TABLE[kind].items() for value in change.values],
)
def test_fields_change_the_outcome_to_the_plain_loops(
    tiny_recipe, base_outcome, product, plain, compare, kind, field, value
):
    base = TABLE[kind][field].base
    value = value.format(kind=kind) if isinstance(value, str) else value
    changed = tiny_recipe(kind, **base | {field: value})
    assert changed != tiny_recipe(kind, **base)
    found = product(changed)
    assert compare(found, base_outcome(kind, base)) is not None, f"{field} = {value!r} makes no difference"
    assert compare(found, plain(changed)) is None


# ------------------------------------------------------------------------------------------- engine, log, log_every


@pytest.mark.skipif(native.available() is not None, reason=str(native.available()))
@pytest.mark.parametrize("kind", KINDS)
def test_engine_changes_no_number(tiny_recipe, product, compare, kind):
    outcomes = [product(tiny_recipe(kind, engine=engine)) for engine in ("auto", "native", "reference")]
    assert compare(outcomes[0], outcomes[1]) is None
    assert compare(outcomes[0], outcomes[2]) is None


@pytest.mark.parametrize("kind", KINDS)
def test_engine_is_the_one_asked_for(tiny_recipe, product, monkeypatch, kind):
    monkeypatch.setattr(native, "available", lambda: "it has been taken away")
    with pytest.raises(InputError, match="engine 'native' cannot do this"):
        product(tiny_recipe(kind, engine="native"))
    for engine in ("auto", "reference"):
        product(tiny_recipe(kind, engine=engine, epochs=1))
    monkeypatch.undo()

    def never(*_, **__):
        raise AssertionError("compiled code is run")

    for module, name in ((eager, "forward"), (eager, "_compiled"), (native, "adam")):
        monkeypatch.setattr(module, name, never)
    product(tiny_recipe(kind, engine="reference", epochs=1))


@pytest.mark.parametrize("kind", KINDS)
def test_device_is_where_the_model_and_every_batch_are(tiny_recipe, product, compare, monkeypatch, kind):
    assert compare(product(tiny_recipe(kind, device="cpu")), product(tiny_recipe(kind))) is None
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="device is 'cuda', but torch finds none on this machine"):
            product(tiny_recipe(kind, device="cuda"))
    # No second device is at hand: torch's meta device, which holds no numbers, shows what is sent there.
    for module in (fit, train):
        monkeypatch.setattr(module, "find_device", lambda name, engine: torch.device("meta"))
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        product(tiny_recipe(kind, device="mps"))


@pytest.mark.parametrize("kind", KINDS)
def test_log_says_every_so_many_steps_or_epochs(tiny_recipe, product, kind):
    def printed(**changes):
        outcome = product(tiny_recipe(kind, epochs=4, **changes))
        lines = [line for line in outcome.lines if line.startswith("Epoch ")]
        return outcome, [re.sub(r"\d+\.\d{4}", "…", line) for line in lines]

    every_step, lines = printed()
    steps = len(every_step.losses[0])
    assert len(lines) == 4 * (steps + 1)
    outcome, lines = printed(log_every=3)
    assert lines == [
        line
        for epoch in range(1, 5)
        for line in [
            *(f"Epoch [{epoch}/4], Step [{number}/{steps}], Loss: …" for number in range(3, steps + 1, 3)),
            f"Epoch [{epoch}/4], Average Loss: …",
        ]
    ]
    assert outcome.losses == [losses[2::3] for losses in every_step.losses]
    assert printed(log="epochs")[1] == [f"Epoch [{epoch}/4] - Loss: …" for epoch in (1, 2, 3, 4)]
    outcome, lines = printed(log="epochs", log_every=2)
    assert lines == ["Epoch [2/4] - Loss: …", "Epoch [4/4] - Loss: …"]
    sums = [float(line.rpartition(" ")[2]) for line in outcome.lines if line.startswith("Epoch ")]
    assert sums == pytest.approx([sum(every_step.losses[1]), sum(every_step.losses[3])], abs=6e-5)


# ----------------------------------------------------------------------------------------------------------- pictures


def test_pictures_changes_no_number_and_is_kept_with_the_model(tiny_recipe, product, compare):
    usual = product(tiny_recipe("images"))
    for pictures, kept in (("auto", "plain"), ("plain", "plain"), ("digits", "digits")):
        recipe = tiny_recipe("images", pictures=pictures)
        assert compare(product(recipe), usual) is None
        assert load_dataset(recipe).encoder.pictures == kept
