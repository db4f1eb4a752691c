"""The space of a search: what can be written, and what is refused."""

import optuna
import pytest

from unroll.errors import RecipeError
from unroll.training.recipe import known_recipes, load_recipe, read_recipe
from unroll.tuning.space import Choice, Range, read_space

MNIST = load_recipe("lstm-mnist")


def space(*changes, written=None, fixed=()):
    return read_space(written, MNIST, list(changes), set(fixed), "lstm-mnist")


def test_ranges_and_choices_are_read_from_a_recipe_and_from_the_command_line_alike():
    written = {"learning_rate": "0.0003..0.03 log", "hidden_size": "32..256 step 32", "optimizer": ["sgd", "adam"]}
    expected = {
        "learning_rate": Range(0.0003, 0.03, log=True),
        "hidden_size": Range(32, 256, step=32),
        "optimizer": Choice(("sgd", "adam")),
    }
    assert space(written=written) == expected
    assert space("learning_rate=3e-4..3e-2 log", "hidden-size=32..256 step 32", "optimizer=sgd, adam") == expected


def test_narrowing_keeps_the_scale_and_a_field_set_on_the_command_line_is_not_searched():
    written = {"learning_rate": "0.0003..0.03 log", "epochs": "2..5"}
    assert space("learning_rate=0.001..0.01", written=written, fixed=["epochs"]) == {
        "learning_rate": Range(0.001, 0.01, log=True)
    }


def test_values_are_of_the_fields_own_type():
    found = space("weight_decay=0..1", "max_norm=none,1", "bidirectional=true,false", "epochs=2..3")
    assert found["weight_decay"] == Range(0.0, 1.0)
    assert isinstance(found["weight_decay"].low, float)
    assert found["max_norm"] == Choice((None, 1.0))
    assert found["bidirectional"] == Choice((True, False))
    assert isinstance(found["epochs"].low, int)


def test_a_range_ends_where_its_steps_do():
    assert space("hidden_size=32..100 step 32")["hidden_size"] == Range(32, 96, step=32)


def test_a_value_between_the_steps_is_not_in_the_space():
    found = space("hidden_size=100..200 step 32", "dropout=0..0.3 step 0.1", "epochs=2..5", "learning_rate=0.1..0.2")
    assert found["dropout"] == Range(0.0, 0.3, step=0.1)
    inside = {"hidden_size": [100, 132, 196], "dropout": [0.0, 0.1, 0.3], "epochs": [2, 5], "learning_rate": [0.123]}
    outside = {"hidden_size": [128, 228], "dropout": [0.15], "epochs": [2.5, 6, None], "learning_rate": [0.3, "a"]}
    assert all(value in found[name] for name, values in inside.items() for value in values)
    assert not any(value in found[name] for name, values in outside.items() for value in values)


def test_what_is_proposed_lies_in_the_space_and_both_ends_of_whole_numbers_come_up():
    found = space("learning_rate=0.001..0.1 log", "epochs=2..4", "hidden_size=32..96 step 32", "optimizer=sgd,adam")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    proposed = [{n: v.suggest(trial, n) for n, v in found.items()} for trial in (study.ask() for _ in range(60))]
    assert {p["epochs"] for p in proposed} == {2, 3, 4}
    assert {p["hidden_size"] for p in proposed} == {32, 64, 96}
    assert {p["optimizer"] for p in proposed} == {"sgd", "adam"}
    rates = sorted(p["learning_rate"] for p in proposed)
    assert rates[0] >= 0.001
    assert rates[-1] <= 0.1
    assert 0.005 < rates[30] < 0.02  # the middle of a logarithmic range is 0.01, not 0.05


def test_what_is_written_out_is_read_back_the_same():
    found = space("learning_rate=0.0003..0.03 log", "epochs=2..8 step 2", "max_norm=none,0.5", "dropout=0..0.5")
    assert space(written={name: values.written for name, values in found.items()}) == found


@pytest.mark.parametrize("name", [name for name in known_recipes() if "space" in read_recipe(name)[0]])
def test_every_packaged_space_can_be_read_and_holds_the_recipe_itself(name):
    recipe = load_recipe(name)
    found = read_space(read_recipe(name)[0]["space"], recipe, [], set(), name)
    assert [field for field, values in found.items() if getattr(recipe, field) not in values] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("learning_rat=0.1..1", "--space: images have no hyperparameter 'learning_rat'; did you mean 'learning_rate'?"),
        ("seed=1..3", "--space: images have no hyperparameter 'seed'; known: batch_size, "),
        ("learning_rate=0.1..0.01", "--space: learning_rate runs from 0.1 to 0.01; expected the smaller number first"),
        ("learning_rate=0..0.1 log", "--space: learning_rate begins at 0; a logarithmic range begins above 0"),
        ("hidden_size=0..5", "--space: hidden_size is 0; expected greater than or equal to 1"),
        ("hidden_size=1.5..3", "--space: hidden_size is 1.5; expected a valid integer"),
        ("epochs=2..5 step 0.5", "--space: epochs is a whole number; expected a whole step, not 0.5"),
        ("epochs=2..5 step 9", "--space: epochs goes from 2 to 5 in steps of 9; expected a smaller step above 0"),
        ("epochs=2..many", "--space: epochs is '2..many'; expected numbers of at most 1e+100, as in 0.001..0.1"),
        (
            "learning_rate=1e-300..1e300",
            "--space: learning_rate is '1e-300..1e300'; expected numbers of at most 1e+100, as in 0.001..0.1",
        ),
        ("optimizer=sgd,momentum", "--space: optimizer is 'momentum'; expected 'sgd', 'adam' or 'adamw'"),
        ("optimizer=sgd,sgd", "--space: optimizer is sgd, sgd; expected different values to choose from"),
        ("dropout=0,0.0", "--space: dropout is 0, 0.0; expected different values to choose from"),
        ("bidirectional=0..1", "--space: bidirectional is no number that could run from 0 to 1"),
        ("epochs=1_0..2_0", "--space: epochs is '1_0..2_0'; expected numbers"),
        ("epochs=10..20 step 1_0", "--space: epochs is '10..20 step 1_0'; expected numbers"),
        ("epochs=1_0,2_0", "--space: epochs is '1_0'; expected a number in the digits 0 to 9, without '_'"),
        ("epochs=2..none", "--space: epochs is '2..none'; expected numbers"),
        ("forget_bias=0..inf", "--space: forget_bias is '0..inf'; expected numbers"),
        ("forget_bias=nan,1", "--space: forget_bias is 'nan'; expected a finite number"),
        ("learning_rate", "--space is 'learning_rate'; expected FIELD=LOW..HIGH or FIELD=A,B,C"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(change, message):
    with pytest.raises(RecipeError) as error:
        space(change)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_nothing_to_search_is_said_with_the_way_out():
    with pytest.raises(RecipeError, match=r"recipe lstm-mnist leaves nothing to search; say what, as in: --space '"):
        space(written={"epochs": "2..5"}, fixed=["epochs"])


def test_a_space_that_is_no_mapping_is_refused():
    with pytest.raises(RecipeError, match=r"recipe lstm-mnist: space is \['epochs'\]; expected lines of the form"):
        space(written=["epochs"])
