"""Every option and argument of every command, with everything that could stand there: one line, or success."""

import re

import click
import pytest

from unroll.cli import cli
from unroll.errors import LONGEST, InputError
from unroll.options import Command

COMMANDS = {
    f"{group} {name}".strip(): command
    for group, commands in {
        "": cli.commands,
        **{n: c.commands for n, c in cli.commands.items() if isinstance(c, click.Group)},
    }.items()
    for name, command in commands.items()
    if not isinstance(command, click.Group)
}
LISTED = sorted(COMMANDS)
OWN = len(COMMANDS["tune"].params)  # options that are no fields of recipes, which are added when they are asked for
VALUES = [
    "",
    " ",
    "a\0b",
    "\x1b]0;x\x07\x9b",
    "\u202e\ufeff",
    "\udcff",
    "9" * 300,
    "9" * 5000,
    "9e999999999",
    "x" * 100_000,
    "[" * 5000,
    "{a: [&x 1, *x]}",
    "2024-99-99",
    "0x_",
    "1_5",
    "!!python/object:os.system x",
    "../../x",
    ".",
    "=",
    "a=b=c..d",
    "nan",
    "none",
]


def parameters():
    """Every command with every option and argument of it; the recipe's fields, which `tune` has too, with `train` alone."""
    return [
        pytest.param(name, parameter, id=f"{name} {parameter.opts[0]}")
        for name in LISTED
        for parameter in COMMANDS[name].get_params(click.Context(COMMANDS[name], info_name=name))
        if not getattr(parameter, "is_flag", False) and (name != "tune" or parameter in COMMANDS[name].params[:OWN])
    ]


def required(command, without):
    """What a command cannot do without: recipes of the package; runs and data that do not exist."""
    words = {"tune": ["lstm-mnist"], "train": ["lstm-mnist"]}
    given = [*words.get(command.name, []), *(["--data", "nowhere"] if command.name in ("train", "tune") else [])]
    if not words.get(command.name):
        given = ["nowhere" for p in command.params if isinstance(p, click.Argument) and (p.required or p.nargs == -1)]
    if command.name == "handin":
        given = ["--lab", "homework", "--student-id", "1", "nowhere"]
    if command.name == "memory":
        given = ["no-such-task"]
    if without in given and without.startswith("--"):
        place = given.index(without)
        del given[place : place + 2]
    return given


@pytest.fixture
def nothing_trains(monkeypatch):
    def refuse(*_, **__):
        raise InputError("nothing is trained here")

    for name in (
        "unroll.training.fit.Training.__init__",
        "unroll.insight.memory.measure",
        "unroll.tuning.study._start",
    ):
        monkeypatch.setattr(name, refuse)


@pytest.mark.parametrize(("name", "parameter"), parameters())
def test_every_value_of_every_parameter_is_one_short_line_or_success(unroll, nothing_trains, tmp_path, name, parameter):
    command = COMMANDS[name]
    for value in VALUES:
        option = isinstance(parameter, click.Option)
        words = required(command, parameter.opts[0] if option else "")
        if option:
            words += [parameter.opts[0], value]
        else:
            place = [p.name for p in command.params if isinstance(p, click.Argument)].index(parameter.name)
            words[place : place + 1] = [value]
        if not option and value.startswith("-"):
            words = ["--", *words]
        status, out, err = unroll(*name.split(), *words)
        assert status in (0, 2), (value[:50], err[-500:])
        if status == 2:
            assert re.fullmatch(r"unroll: [^\n]+\n", err), (value[:50], err)
            assert len(err) <= LONGEST + len("unroll: \n")
            assert out == ""
        assert not [c for c in out + err if ord(c) < 32 and c not in "\n\t"]


@pytest.mark.parametrize(("name", "parameter"), parameters())
def test_every_option_is_given_once_unless_it_may_be_given_often(unroll, name, parameter):
    command = COMMANDS[name]
    assert isinstance(command, Command)
    if not isinstance(parameter, click.Option):
        return
    value = "1" if parameter.name in ("number", "layer", "length", "seeds") else "a"
    words = [*name.split(), *required(command, parameter.opts[0]), parameter.opts[0], value, parameter.opts[0], value]
    status, out, err = unroll(*words)
    assert (status, out) == (2, "")
    assert parameter.multiple or err == f"unroll: {parameter.opts[0]} is given 2 times; expected once\n"


@pytest.mark.parametrize("number", ["1_0", "\u0661\u0660"])
@pytest.mark.parametrize(("name", "parameter"), parameters())
def test_numbers_are_written_in_digits_alone(unroll, nothing_trains, name, parameter, number):
    from unroll.training.recipe import KINDS

    fields = [kind.model_fields[parameter.name] for kind in KINDS.values() if parameter.name in kind.model_fields]
    typed = isinstance(parameter.type, type(click.INT) | type(click.FLOAT))
    if not typed and not any(kind in str(field.annotation) for field in fields for kind in ("int", "float")):
        return
    words = required(COMMANDS[name], parameter.opts[0])
    if name == "train":
        recipes = {"images": "lstm-mnist", "sentences": "lstm-sentences", "series": "lstm-series"}
        words[0] = next(recipes[task] for task, kind in KINDS.items() if parameter.name in kind.model_fields)
    status, out, err = unroll(*name.split(), *words, parameter.opts[0], number)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"is {number!r}; expected" in err


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/x", "a/b", "a\\b", ".hidden", "..", "x.", "nul", "COM1.txt", "a\nb", " a", "a" * 101]
)
def test_a_recipes_name_never_leads_out_of_the_folder_of_runs(unroll, bars_folder, tmp_path, name):
    import yaml

    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"task": "images", "name": name, "data": str(bars_folder)}))
    for command in (["train"], ["tune", "--space", "hidden_size=4,8"], ["effects", "lstm-mnist"]):
        status, out, err = unroll(command[0], *command[1:], "mine.yaml")
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert "expected a name: at most 100 letters" in err
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize(
    "words",
    [
        ["look", "RUN", "--number"],
        ["look", "RUN", "--number", "0", "--direction"],
        ["look", "RUN"],
        ["ablate", "RUN", "--gate"],
        ["ablate", "RUN", "--epochs"],
        ["ablate", "RUN", "--seeds"],
        ["evaluate", "RUN", "--data"],
        ["predict", "RUN"],
        ["report", "RUN", "--out"],
        ["export", "RUN", "--onnx"],
        ["memory", "order", "--length"],
        ["memory", "order", "--seeds"],
        ["tune", "lstm-mnist", "--data", "DATA", "--batch-size", "20", "--space", "hidden_size=4,8", "--storage"],
        ["tune", "lstm-mnist", "--data", "DATA", "--batch-size", "20", "--space"],
    ],
    ids=" ".join,
)
def test_a_wrong_value_is_one_short_line_where_all_others_are_right(
    unroll, nothing_trains, bars_run, bars_folder, words
):
    given = [{"RUN": bars_run, "DATA": bars_folder}.get(word, word) for word in words]
    for value in ("9" * 300, "-1", "x" * 5000, "[[[", "nan", "a=b"):
        status, _, err = unroll(*given, value)
        assert status == 2, (value[:50], err)
        assert re.fullmatch(r"unroll: [^\n]+\n", err), (value[:50], err)
        assert len(err) <= LONGEST + len("unroll: \n")
