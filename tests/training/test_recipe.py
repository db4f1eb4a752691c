"""Recipes: what can be written, what is refused, and with which words."""

import pytest

from unroll.errors import RecipeError
from unroll.training.recipe import (
    KINDS,
    dump_recipe,
    field_value,
    known_recipes,
    load_recipe,
    parse_recipe,
    saved_recipe,
    value_text,
)


@pytest.mark.parametrize("name", known_recipes())
def test_every_packaged_recipe_loads_and_says_what_it_is_for(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about


def test_the_template_is_the_labs_starting_point():
    recipe = load_recipe("lstm-mnist-template")
    assert (recipe.hidden_size, recipe.optimizer, recipe.learning_rate) == (32, "adam", 6e-5)
    assert (recipe.batch_size, recipe.epochs) == (128, 2)


def test_the_tuned_recipe_is_the_labs_tuned_run():
    recipe = load_recipe("lstm-mnist-tuned")
    assert (recipe.hidden_size, recipe.optimizer, recipe.learning_rate) == (128, "adam", 1e-3)
    assert (recipe.batch_size, recipe.epochs) == (64, 5)


def test_ours_keeps_within_the_labs_frame():
    recipe = load_recipe("lstm-mnist")
    assert (recipe.cell, recipe.hidden_size, recipe.num_layers, recipe.bidirectional) == ("lstm", 128, 1, False)
    assert (recipe.epochs, recipe.pooling) == (5, "last")


def test_a_recipe_written_out_reads_back_the_same(tmp_path):
    recipe = load_recipe("lstm-mnist", {"seed": 7, "max_norm": None})
    path = tmp_path / "mine.yaml"
    path.write_text(dump_recipe(recipe))
    assert load_recipe(str(path)) == recipe


def test_a_run_folders_recipe_is_a_recipe_too(bars_run):
    assert load_recipe(str(bars_run / "recipe.yaml")).hidden_size == 12


def test_the_later_value_wins():
    assert load_recipe("lstm-mnist", {"hidden_size": 64}).hidden_size == 64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 0}, "hidden_size is 0; expected greater than or equal to 1"),
        ({"learning_rate": -0.1}, "learning_rate is -0.1; expected greater than 0"),
        ({"learning_rate": "fast"}, "learning_rate is 'fast'; expected a valid number"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"learning_rate": "1_0"}, "learning_rate is '1_0'; expected a number in the digits 0 to 9, without '_'"),
        ({"seed": "1_0"}, "seed is '1_0'; expected a number in the digits 0 to 9, without '_'"),
        ({"patience": "1_0", "validation": 0.1}, "patience is '1_0'; expected a number in the digits 0 to 9"),
        ({"dropout": 1}, "dropout is 1; expected less than 1"),
        (
            {"cell": "gruu"},
            "cell is 'gruu'; expected 'rnn', 'lstm', 'gru', 'peephole', 'coupled', 'layernorm', 'mgu' or FILE.py:CLASS",
        ),
        ({"hiden_size": 3}, "images have no field 'hiden_size'; did you mean 'hidden_size'?"),
        ({"embedding_size": 3}, "images have no field 'embedding_size'"),
        ({"rotation": 1000}, "rotation is 1000; expected less than or equal to 180"),
        ({"shear": 90}, "shear is 90; expected less than 90"),
        ({"optimizer": "sgd", "nesterov": True}, "nesterov is true and momentum is 0; expected a momentum above 0"),
        ({"patience": 3}, "patience is 3, but nothing is held out to be patient about; set validation, such as 0.1"),
    ],
)
def test_a_value_that_makes_no_sense_is_named(changes, message):
    with pytest.raises(RecipeError) as error:
        load_recipe("lstm-mnist", changes)
    assert str(error.value).startswith("recipe lstm-mnist: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_field_that_the_chosen_optimizer_does_not_read_may_have_any_value():
    assert load_recipe("lstm-mnist", {"optimizer": "adam", "nesterov": True}).nesterov


@pytest.mark.parametrize("given", ["", ",", " , ,", [], (), {}, {"a": 1}, [None]])
@pytest.mark.parametrize("field", ["features", "ignore"])
def test_columns_without_a_name_are_refused(field, given):
    with pytest.raises(RecipeError, match=f"^recipe lstm-series: {field} is ") as error:
        load_recipe("lstm-series", {field: given})
    if not given:
        assert str(error.value).endswith(f" is {given!r}; expected names of columns, parted by commas")


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(RecipeError, match=r"^unknown recipe 'lstm-mnst'; did you mean 'lstm-mnist'\?$"):
        load_recipe("lstm-mnst")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("task: images\nepochs: [", "line 2: not valid YAML"),
        ("- 1\n- 2\n", "expected lines of the form 'field: value'"),
        ("task: images\nhidden_size: 1_6\n", "hidden_size is '1_6'; expected a number in the digits 0 to 9"),
        ("epochs: 3\n", "task is None; expected one of images, sentences, series"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(RecipeError) as error:
        load_recipe(str(path))
    assert str(path) in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("task", KINDS)
def test_every_field_is_described(task):
    for name, field in KINDS[task].model_fields.items():
        assert name == "task" or field.description, name


def test_recipes_hold_no_field_twice():
    for path in known_recipes().values():
        keys = [
            line.split(":")[0] for line in path.read_text().splitlines() if ":" in line and not line.startswith(" ")
        ]
        assert len(keys) == len(set(keys)), path
        load_recipe(path.stem)


USUAL = {
    **{"name": "unnamed", "about": "", "cell": "lstm", "nonlinearity": "tanh", "hidden_size": 128, "num_layers": 1},
    **{"bidirectional": False, "dropout": 0.0, "pooling": "last", "initialisation": "orthogonal", "forget_bias": None},
    **{"optimizer": "adamw", "learning_rate": 1e-3, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0},
    **{"schedule": "constant", "max_norm": None, "label_smoothing": 0.0, "weight_average": None, "batch_size": 64},
    **{
        "epochs": 5,
        "shuffle": True,
        "validation": 0.0,
        "patience": None,
        "seed": 0,
        "engine": "auto",
        "device": "auto",
    },
    **{"log": "steps", "log_every": 100, "data": None},
}
TABLES = {"test_data": None, "test": 0.0, "label_column": "label", "class_weights": "none"}
USUAL_OF = {
    "images": {
        **{"standardise": True, "rotation": 0.0, "scaling": 0.0, "shear": 0.0, "translation": 0.0, "elastic": 0.0},
        "pictures": "auto",
        **{"plain_epochs": 0},
    },
    "sentences": {
        **TABLES,
        **{"text_column": "text", "lowercase": True, "min_count": 1, "max_vocabulary": None, "max_length": None},
        **{"embedding_size": None, "word_dropout": 0.0},
    },
    "series": {
        **TABLES,
        "id_column": "id",
        "time_column": "time",
        "features": None,
        "ignore": None,
        "fill_missing": "none",
    },
}


@pytest.mark.parametrize("task", KINDS)
def test_recipes_have_these_usual_values(task):
    assert KINDS[task]().model_dump() == {**USUAL, **USUAL_OF[task], "task": task}


@pytest.mark.parametrize(
    ("field", "least", "below"),
    [("hidden_size", 1, 0), ("epochs", 1, 0), ("log_every", 1, 0), ("dropout", 0.0, -0.1), ("plain_epochs", 0, -1)],
)
def test_recipes_take_the_least_value_and_none_below(field, least, below):
    assert getattr(parse_recipe({"task": "images", field: least}, "test"), field) == least
    with pytest.raises(RecipeError, match=f"{field} is {below}"):
        parse_recipe({"task": "images", field: below}, "test")


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("a, b ,", ("a", "b")),
        (["a,b", "c"], ("a,b", "c")),
        (0, ("0",)),
        ("Unnamed: 0", ("Unnamed: 0",)),
        ([0, "x"], ("0", "x")),
        (None, None),
    ],
)
@pytest.mark.parametrize("field", ["features", "ignore"])
def test_columns_are_names_parted_by_commas_or_a_list(tmp_path, field, given, names):
    recipe = parse_recipe({"task": "series", field: given}, "test")
    assert getattr(recipe, field) == names
    path = tmp_path / "again.yaml"
    path.write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(str(path)) == recipe


def test_columns_are_shown_as_the_command_line_takes_them():
    assert value_text(("a", "b")) == "a,b"
    assert field_value(value_text(("a", "b")), "features") == "a,b"


def test_a_recipe_that_has_no_name_is_called_like_its_file(tmp_path):
    for stem, name in (
        ("mine", "mine"),
        ("a+b (2)", "a-b -2"),
        ("..", "unnamed"),
        ("con", "unnamed"),
        ("x" * 150, "x" * 100),
    ):
        path = tmp_path / f"{stem}.yaml"
        path.write_text("task: images\n")
        assert load_recipe(str(path)).name == name


def test_a_run_of_an_older_version_may_have_any_name():
    assert saved_recipe({"task": "images", "name": "lr=0.1/x"}, "test").name == "lr-0.1-x"
    with pytest.raises(RecipeError, match="name is 3; expected a valid string"):
        saved_recipe({"task": "images", "name": 3}, "test")


@pytest.mark.parametrize("task", [["images"], {"images": 1}, None, 3, True, "image", "x" * 10_000])
def test_a_task_of_any_kind_is_one_short_line(task):
    with pytest.raises(RecipeError, match="expected one of images, sentences, series") as error:
        parse_recipe({"task": task}, "test")
    assert len(str(error.value)) < 500


ODD = {
    "list": [1],
    "mapping": {"a": 1},
    "long text": "x" * 10_000,
    "400 digits": 10**400,
    "minus": -(10**400),
    "nan": float("nan"),
    "inf": float("inf"),
    "digits": "9" * 5000,
    "5,000 digits": 10**5000,
    "control character": "\x1b",
}


@pytest.mark.parametrize("field", sorted({name for kind in KINDS.values() for name in kind.model_fields} - {"task"}))
@pytest.mark.parametrize("value", ODD)
def test_any_value_of_any_field_is_taken_or_one_short_line(field, value):
    kind = next(kind for kind, model in KINDS.items() if field in model.model_fields)
    message = "recipe test: "
    try:
        parse_recipe({"task": kind, field: ODD[value]}, "test")
    except RecipeError as error:
        message = str(error)
    assert message.startswith("recipe test: ")
    assert len(message) < 500


@pytest.mark.parametrize("field", ["data", "test_data", "text_column", "label_column", "id_column", "time_column"])
def test_text_is_taken_as_it_stands_but_not_where_it_is_empty(field):
    task = "series" if field in ("id_column", "time_column") else "sentences"
    for text in ("007", "1e5", "true", "2024", "1_5"):
        assert getattr(parse_recipe({"task": task, field: field_value(text, field)}, "test"), field) == text
    with pytest.raises(RecipeError, match=f"recipe test: {field} is empty; expected text"):
        parse_recipe({"task": task, field: " "}, "test")
