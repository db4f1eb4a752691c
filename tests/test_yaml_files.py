"""YAML: the same reader for every kind of file, and hostile text ends in one line, soon."""

import ast
import time
from pathlib import Path

import pytest
import yaml

import unroll
from unroll.errors import InputError, UnrollError
from unroll.labs.spec import load_lab
from unroll.training.recipe import load_recipe
from unroll.training.run import RunFolder
from unroll.yaml_files import MOST_BYTES, plain_value, read_yaml

BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)), "task: *a39"])
HOSTILE = {
    "alias bomb": BOMB,
    "alias": "name: &x bars\nabout: *x",
    "merged mapping": "a: &a {epochs: 3}\n<<: *a",
    "nested lists": "about: " + "[" * 50_000,
    "nested mappings": "about: " + "{a: " * 5_000,
    "nested lines": "about:\n" + "\n".join(" " * n + "-" for n in range(1, 300)),
    "date": "about: !!timestamp 2024-99-99",
    "binary": "about: !!binary '%%'",
    "python": "about: !!python/object/apply:os.getcwd []",
    "wrong tag": "epochs: !!int three",
    "wrong tag of a list": "about: !!seq text",
    "twice": "task: images\nepochs: 3\nepochs: 4",
    "list as a name": "[a, b]: 3",
    "control character": "about: a\x01b",
    "NUL": "about: a\0b",
    "escaped NUL": 'about: "a\\0b"',
    "half of a character": 'about: "a\\ud800b"',
    "two documents": "task: images\n---\ntask: images",
    "large": "about: " + "x" * MOST_BYTES,
    "list": "- 1",
    "nothing": "",
    "not UTF-8": b"about: \xff",
}
READERS = {
    "recipe": lambda path: load_recipe(str(path)),
    "run folder": lambda path: RunFolder(path.parent).recipe,
    "facts of a run": lambda path: RunFolder(path.parent).facts,
    "lab": lambda path: load_lab(str(path)),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_yaml_is_one_short_line_from_every_reader(reader, kind, tmp_path):
    path = tmp_path / "recipe.yaml"
    content = HOSTILE[kind]
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    began = time.process_time()
    with pytest.raises(UnrollError) as error:
        READERS[reader](path)
    assert time.process_time() - began < 10  # an alias bomb takes years
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-3", -3),
        ("0.5", 0.5),
        ("6.0e-05", 6e-5),
        (".inf", float("inf")),
        ("yes", True),
        ("False", False),
        ("", None),
        ("~", None),
        *(
            (text, text)
            for text in ("2024-01-31", "2024-99-99", "0x_", "0b_", "0x10", "007", "1_5", "1:30", "nan", "9" * 5000)
        ),
    ],
)
def test_words_stand_for_numbers_only_where_nobody_could_mean_another(text, value):
    found = plain_value(text)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(
    "text",
    ["2024-01-31", "0x10", "007", "1_5", "1:30", "1e5", "6e-05", "yes", "null", "", "3", " a", "a: b", "*a", "é\x1b"],
)
def test_text_that_is_written_reads_back_as_text(tmp_path, text):
    path = tmp_path / "one.yaml"
    path.write_text(yaml.safe_dump({"a": text}, allow_unicode=True), encoding="utf-8")
    assert read_yaml(path, "file", InputError) == {"a": text}


def test_no_other_module_reads_yaml():
    root = Path(unroll.__file__).parent
    for path in root.rglob("*.py"):
        if path.name == "yaml_files.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "yaml":
                assert node.attr == "safe_dump", f"{path}:{node.lineno}"
