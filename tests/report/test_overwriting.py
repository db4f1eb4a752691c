"""No command loses what it did not write: a file of someone else's stays, and one of ours is written anew."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from unroll.cli import cli
from unroll.errors import InputError
from unroll.files import SIGNS, refuse_foreign
from unroll.insight.memory import RECIPES

FOREIGN = {
    ".pdf": b"%PDF-1.7\n<</Title(An LSTM)/Keywords(mine)/Creator(Typst 0.15.1)>> unroll",
    ".png": b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR" + bytes(17) + b"\0\0\0\x11tEXtSoftware\0GIMP unroll",
    ".svg": b"<svg><!-- of unroll --><dc:title>mine</dc:title></svg>",
    ".onnx": b"\x08\x08\x12\x07pytorch: unroll",
    ".safetensors": b'\x30\0\0\0\0\0\0\0{"__metadata__":{"format":"pt","made":"unroll"}}',
    ".npz": b"PK\x03\x04" + bytes(26) + b"unroll.npy",
    ".json": b'{"mine": "unroll"}',
    ".md": b"# What unroll is to me\n\nlibrary_name: unroll-rnn\n",
    ".yaml": b"name: mine\nabout: unroll\n",
    ".py": b"print('another week of work')\n",
}


def recipe_file(path: Path, bars_folder: Path, name: str, **changes: object) -> Path:
    fields = {"name": name, "task": "images", "data": str(bars_folder), "hidden_size": 4, "batch_size": 50, "epochs": 1}
    path = path / f"{name}.yaml"
    path.write_text(yaml.safe_dump({**fields, **changes}))
    return path


# Of each command: its arguments, but for those that say where to write; the option that does; what it names in a folder.
COMMANDS = {
    "report": (["RUN"], "--out", "report.pdf"),
    "lab handin": (["OWN", "--lab", "homework", "--student-id", "313513054"], "--out", "."),
    "compare": (["RUN", "OTHER"], "--figure", "v1.2.png"),
    "export": (["RUN", "--card"], "--onnx", "model.onnx"),
    "look": (["RUN"], "--out", "."),
    "gradients": (["RUN", "--inputs", "5", "--no-pixels"], "--out", "."),
    "ablate": (["RUN", "--gate", "f", "--seeds", "1", "--epochs", "1"], "--out", "."),
    "memory": (["order", "--length", "10", "--seeds", "1"], "--out", "."),
    "effects": (["SLOW", "FAST", "--seeds", "2"], "--out", "."),
    "tune": (["SLOW", "--space", "hidden_size=4,8", "--space", "epochs=1,2", "--trials", "2"], "--out", "."),
    "train": (["SLOW"], "--out", "."),
    "lab run": (["OWN/code.py", "--lab", "inclass"], "--out", "."),
}
MORE = {"tune": ["importance.png", "importance.svg"]}  # which so short a search does not draw
KEPT = {".lock", "study.db"}  # these two say nothing of their own; what is no database of ours, the search refuses


def files(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file() and path.name not in KEPT]
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_every_command_that_is_told_where_to_write_is_here():
    told = {"--out", "--onnx", "--figure"}
    commands = {**cli.commands, **{f"lab {name}": command for name, command in cli.commands["lab"].commands.items()}}
    writing = {name for name, command in commands.items() if {o for p in command.params for o in p.opts} & told}
    # One overwrites nothing, not even what it wrote; the other's folder is its own (see tests/labs/test_grade.py).
    assert writing - {"lab start", "lab grade"} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_of_someone_elses_stays_and_ones_own_is_written_anew(
    name, unroll, bars_run, bars_folder, own_run, copied, tmp_path, monkeypatch
):
    for key, recipe in RECIPES.items():
        monkeypatch.setitem(RECIPES, key, replace(recipe, sequences=50))
    given = {"RUN": bars_run, "OTHER": copied(bars_run), "OWN": own_run()}
    given["OWN/code.py"] = given["OWN"] / "code.py"
    given["SLOW"] = recipe_file(tmp_path, bars_folder, "slow", validation=0.2)
    given["FAST"] = recipe_file(tmp_path, bars_folder, "fast", validation=0.2, hidden_size=8)
    arguments, option, target = COMMANDS[name]
    words = [*name.split(), *(given.get(word, word) for word in arguments), option]

    whole = tmp_path / "whole"
    status, _, said = unroll(*words, whole / target)
    assert status == 0, said
    written = files(whole)
    numbers = {file: (whole / file).stat().st_ino for file in written}
    if name != "train":  # whose folder is always a new one
        status, _, said = unroll(*words, whole / target)
        assert status == 0, said
        for file in written:
            # Every file is renamed into its place; the lists of trainings are read, and there is nothing to add.
            assert file in ("memory.json",) or (whole / file).stat().st_ino != numbers[file], file

    whole_folder = name in ("train", "lab run")  # which take a folder of someone else's for what it is
    for file in ["metrics.json"] if whole_folder else [*written, *MORE.get(name, [])]:
        folder = tmp_path / "others"
        (folder / file).parent.mkdir(parents=True)
        (folder / file).write_bytes(FOREIGN[Path(file).suffix])
        before = files(folder)
        status, out, said = unroll(*words, folder / target)
        assert (status, out, said.count("\n")) == (2, "", 1), (file, said)
        assert str(folder if whole_folder else folder / file) in said
        assert files(folder) == before, file
        shutil.rmtree(folder)


def test_an_empty_file_may_go_and_a_folder_or_what_cannot_be_known_may_not(tmp_path):
    empty, folder, unknown = tmp_path / "a.pdf", tmp_path / "b.pdf", tmp_path / "c.docx"
    empty.touch()
    folder.mkdir()
    unknown.write_text("A letter")
    refuse_foreign(empty, tmp_path / "none.pdf")
    with pytest.raises(InputError, match=r"b\.pdf is a folder; move it away, or name another place"):
        refuse_foreign(folder)
    with pytest.raises(InputError, match=r"c\.docx was not written by this package and would be lost"):
        refuse_foreign(empty, unknown)


def test_what_version_0_1_wrote_counts_as_ours(tmp_path):
    """Heads of files that it made."""
    pdf = b"/Keywords(recurrent neural network, LSTM, sequence classification)/Creator(Typst 0.15.0)/ModDate(D:2026"
    kept = {
        "r.pdf": b"%PDF-1.7\n" + pdf,
        "best.yaml": b"name: a-best\nabout: the best of 5 complete and 0 pruned trials, 9%\n",
    }
    kept["README.md"] = b"---\nlibrary_name: unroll-rnn\npipeline_tag: image-classification\n---\n"
    for name, content in kept.items():
        (tmp_path / name).write_bytes(content)
        refuse_foreign(tmp_path / name)
    assert {Path(name).suffix or name for name in kept} <= {Path(sign).suffix or sign for sign in SIGNS}


def test_the_weights_of_another_run_are_never_replaced(unroll, bars_run, copied, tmp_path):
    """They are of the same form as those that an export writes: what tells them apart is who put them there."""
    other = copied(bars_run)
    weights = (other / "model.safetensors").read_bytes() + b" "  # not the very same
    (other / "model.safetensors").write_bytes(weights)
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "model.safetensors").write_bytes(weights)
    for folder in (other, alone):
        status, out, said = unroll("export", bars_run, "--onnx", folder / "model.onnx", "--card")
        assert (status, out) == (2, "")
        assert "holds another model and would be lost; export into another folder" in said
        assert not (folder / "model.onnx").exists()
        assert not (folder / "README.md").exists()
        assert (folder / "model.safetensors").read_bytes() == weights


def test_code_that_was_handed_in_before_may_be_replaced_and_code_edited_since_may_not(unroll, own_run, tmp_path):
    out = tmp_path / "out"

    def hand_in(code):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return unroll("lab", "handin", own_run(code=code), "--lab", "homework", "--student-id", "1", "--out", out)

    assert hand_in("first = 1\n")[0] == 0
    (copy,) = out.glob("*.py")
    assert hand_in("second = 2\n")[0] == 0
    assert copy.read_text() == "second = 2\n"
    copy.write_text("second = 2  # a late thought\n")
    before = files(out)
    status, _, said = hand_in("third = 3\n")
    assert (status, said.count("\n")) == (2, 1)
    assert f"{copy} was not written by this package and would be lost" in said
    assert files(out) == before
    assert hand_in("second = 2  # a late thought\n")[0] == 0  # the late thought is what is handed in
    assert copy.read_text() == "second = 2  # a late thought\n"
