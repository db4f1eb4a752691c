"""A student's file is read as the Python that is run, and its lines keep their places."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from unroll.errors import InputError
from unroll.labs.source import read_source


def notebook(path: Path, *cells: str, **more: object) -> Path:
    text = {"cells": [{"cell_type": "code", "source": cell.splitlines(keepends=True)} for cell in cells], "nbformat": 4}
    path.write_text(json.dumps(text | more), encoding="utf-8")
    return path


def test_source_of_a_script_is_its_text(tmp_path: Path) -> None:
    path = tmp_path / "lab.py"
    path.write_bytes(b"x = 1\r\ny = '%d' % x\r\n")
    source = read_source(path)
    assert source.text == "x = 1\ny = '%d' % x\n"
    assert source.sha256 == hashlib.sha256(b"x = 1\r\ny = '%d' % x\r\n").hexdigest()
    assert source.place(2) == "line 2"


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"\xef\xbb\xbfa = '\xe6\xb8\xac'\n", "測"),
        ("# -*- coding: big5 -*-\na = '測'\n".encode("big5"), "測"),
        (b"# coding: latin-1\na = '\xe9'\n", "é"),
    ],
)
def test_source_reads_marks_and_cookies(tmp_path: Path, content: bytes, value: str) -> None:
    path = tmp_path / "lab.py"
    path.write_bytes(content)
    namespace: dict[str, str] = {}
    exec(read_source(path).text, namespace)
    assert namespace["a"] == value


def test_source_of_a_notebook_is_its_code_cells_with_their_places(tmp_path: Path) -> None:
    path = tmp_path / "lab.ipynb"
    cells = [
        {"cell_type": "markdown", "source": "x = 1"},
        {"cell_type": "code", "source": "a = 1\nb = 2"},
        {"cell_type": "code", "source": ""},
        {"cell_type": "code", "source": ["%matplotlib inline\n", "c = 1 / 0"]},
    ]
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    source = read_source(path)
    lines = source.text.split("\n")
    assert source.place(lines.index("b = 2") + 1) == "cell 1, line 2"
    assert source.place(lines.index("c = 1 / 0") + 1) == "cell 3, line 2"
    assert source.listing.split("\n\n")[1] == "# %% [3]\n%matplotlib inline\nc = 1 / 0"
    assert len(source.listing.split("\n")) == len(lines) - 1


def test_source_reads_notebooks_of_version_3_and_such_with_a_script_s_name(tmp_path: Path) -> None:
    path = tmp_path / "lab.py"
    path.write_text(
        json.dumps({"worksheets": [{"cells": [{"cell_type": "code", "input": ["a = 1"]}]}]}), encoding="utf-8"
    )
    assert read_source(path).place(2) == "cell 1, line 1"


def test_source_makes_comments_of_magics_and_nothing_else(tmp_path: Path) -> None:
    cell = '''%matplotlib inline
!pip install torch \\
    torchvision
if True:
    !ls
    %cd /content
text = """
%not a magic
!nor this
"""
value = (7
% 4)
files = !ls
help?
?print
%time done = value + 1
percent = 10 \\
% 4
same = value != 3'''
    source = read_source(notebook(tmp_path / "lab.ipynb", cell))
    namespace: dict[str, object] = {}
    exec(source.text, namespace)
    assert namespace["text"] == "\n%not a magic\n!nor this\n"
    assert (namespace["value"], namespace["done"], namespace["percent"], namespace["same"]) == (3, 4, 2, False)
    assert source.text.count("\n") == cell.count("\n") + 2


def test_source_runs_python_below_a_cell_magic_and_leaves_out_other_languages(tmp_path: Path) -> None:
    source = read_source(notebook(tmp_path / "lab.ipynb", "%%time\na = 1\n!ls", "%%bash\nb = 1", "c = 1"))
    namespace: dict[str, object] = {}
    exec(source.text, namespace)
    assert namespace["a"] == 1
    assert "b" not in namespace
    assert namespace["c"] == 1


def test_source_keeps_a_mistake_for_when_it_is_run(tmp_path: Path) -> None:
    assert "def f(:" in read_source(notebook(tmp_path / "lab.ipynb", "def f(:")).text


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("lab.txt", b"x = 1", "ends in .txt"),
        ("lab.py", b" \n", "holds no code"),
        ("lab.ipynb", b'{"cells": []}', "holds no code"),
        ("lab.ipynb", b"x = 1", "no Jupyter notebook"),
        ("lab.ipynb", b"[" * 100_000, "no Jupyter notebook"),
        ("lab.py", b"x = 1\ny = '\xb4\xfa'\n", "save it as UTF-8"),
        ("lab.py", "x = 1".encode("utf-16"), "UTF-16"),
        ("lab.py", b"# coding: nonsense\nx = 1", "unknown encoding"),
        ("lab.py", b"x = 1\0", "zero byte"),
        ("none.py", None, "No such file"),
    ],
)
def test_source_refuses_what_it_cannot_read_in_one_line(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        read_source(tmp_path / name)
    assert "\n" not in str(error.value)


def test_source_too_large_for_a_lab_is_refused_and_a_notebook_s_outputs_do_not_count(tmp_path: Path) -> None:
    for name, text in (("long.py", "x = 1\n" * 5001), ("wide.py", f"x = '{'a' * (1 << 20)}'\n")):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match="no more than 5,000 lines and 1 MB"):
            read_source(tmp_path / name)
    output = {"output_type": "stream", "name": "stdout", "text": ["a" * 100 + "\n"] * 20_000}
    cell = {"cell_type": "code", "source": "x = 1\n" * 4999, "outputs": [output]}
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": [cell]}))
    assert read_source(tmp_path / "a.ipynb").is_notebook
