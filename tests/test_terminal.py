"""What is printed: nothing of it steers the terminal, whichever command prints it."""

import ast
import json
import sys
import xml.dom.minidom
from pathlib import Path

import pytest

import unroll
from unroll.terminal import is_terminal, printable, say

STEERING = "\x1b]0;owned\x07\x9b2J\r\u202egnp.exe\u2066\ufeff\U000e0041\n\udcff"


def test_what_steers_a_terminal_is_shown_by_its_number(capsys):
    say(STEERING, "second line", error=True)
    printed = capsys.readouterr().err
    assert printed == (
        r"\u001b]0;owned\u0007\u009b2J\r\u202egnp.exe\u2066\ufeff\udb40\udc41\n\udcff" + "\nsecond line\n"
    )


def test_letters_of_all_languages_and_joined_signs_are_printed_as_they_are():
    text = "Straße 王小明 فارسی\u200cها 👩\u200d💻 ❤\ufe0f tab\tend"
    assert printable(text) == text


def test_json_stays_json():
    value = {"label": STEERING}
    assert json.loads(printable(json.dumps(value, ensure_ascii=False))) == value


def test_a_stream_that_is_closed_is_no_terminal(tmp_path):
    with open(tmp_path / "file", "w") as file:
        assert not is_terminal(file)
    assert not is_terminal(file)
    assert not is_terminal(None)


def test_nothing_is_printed_but_here():
    """`print` to a file is none of a person's terminal."""
    root = Path(unroll.__file__).parent
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or path.name == "terminal.py":
                continue
            called = ast.unparse(node.func)
            assert called not in ("click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write"), (
                f"{path}:{node.lineno}"
            )
            assert called != "print" or any(word.arg == "file" for word in node.keywords), f"{path}:{node.lineno}"


@pytest.fixture(scope="module")
def hostile_run(tmp_path_factory):
    """A run whose classes and words are as bad as they come."""
    from unroll.training.recipe import parse_recipe
    from unroll.training.run import RunFolder
    from unroll.training.train import train

    folder = tmp_path_factory.mktemp("hostile")
    labels = ["\x1b]0;a\x07$\\frac$", "<script>\u202e $x"]
    lines = [f"word{n % 2}\x1b[2J $\\q$ {'x' * 300}\t{labels[n % 2]}" for n in range(8)]
    (folder / "data.tsv").write_text("\n".join(["text\tlabel", *lines]) + "\n", encoding="utf-8")
    fields = {"task": "sentences", "data": str(folder / "data.tsv"), "test_data": str(folder / "data.tsv")}
    fields |= {"cell": "rnn", "hidden_size": 2, "batch_size": 4, "epochs": 1, "log": "epochs"}
    run = RunFolder.create(folder / "run", parse_recipe(fields, "hostile"), {})
    train(run.recipe, run, echo=lambda line: None)
    return run.path


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "RUN"],
        ["evaluate", "RUN", "--json"],
        ["predict", "RUN", "word1\x1b[2J"],
        ["predict", "RUN", "--json", "word1\x1b[2J", "other\x1b]0;b\x07 word0\x1b[2J"],
        ["look", "RUN", "--number", "0"],
        ["report", "RUN", "--redraw", "--title", "plain"],
    ],
)
def test_labels_and_words_reach_terminal_figures_and_report_without_control_characters(unroll, hostile_run, arguments):
    status, out, err = unroll(*[str(hostile_run) if argument == "RUN" else argument for argument in arguments])
    assert status == 0, err
    assert not [character for character in out + err if ord(character) < 32 and character not in "\n\t"]
    assert "\x9b" not in out + err
    assert "\u202e" not in out + err
    for figure in (hostile_run / "figures").glob("*.svg"):
        xml.dom.minidom.parseString(figure.read_bytes())


def test_stdout_may_be_closed(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    say("nobody hears")
