"""The hand-in: two files with the right names, the person's own words in them, and no word that is not theirs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from unroll.cli import main
from unroll.errors import InputError
from unroll.report.handin import LABS, Lab, handin, load_lab, questions_file, read_answers
from unroll.training.run import RunFolder

CODE = '"""My own RNN."""\nimport torch\n\n\ndef my_cell(x, s):\n    return torch.tanh(x + s)\n'
ANSWERS = r"""# My answers

## 1. The hidden state

It is what the network **remembers**: $s_t = \tanh(W s_{t-1} + U x_t + b)$.

- first point
- second point

## Question 2

Gradients shrink:

$$\left\|\frac{\partial L}{\partial s_t}\right\| \le \gamma^{T-t}$$
"""


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with a person's code and answers."""
    (tmp_path / "my_lab.py").write_text(CODE)
    (tmp_path / "answers.md").write_text(ANSWERS)
    return tmp_path


def run_cli(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit:
        main([str(argument) for argument in arguments])
    return exit.value.code


def arguments(run: Path, desk: Path, **changes: object) -> list[object]:
    given = {
        "lab": "inclass",
        "student-id": "313513054",
        "code": desk / "my_lab.py",
        "answers": desk / "answers.md",
        "out": desk / "out",
    } | changes
    return ["handin", run, *(item for name, value in given.items() for item in (f"--{name}", value))]


def test_the_two_files_have_the_labs_names_and_hold_the_persons_own_work(sentences_run, desk, read_pdf, capsys):
    assert run_cli(*arguments(sentences_run, desk, name="Ada Example")) == 0
    out = desk / "out"
    assert sorted(path.name for path in out.iterdir()) == ["313513054_Lab7_InClass.pdf", "313513054_Lab7_InClass.py"]
    assert (out / "313513054_Lab7_InClass.py").read_text() == CODE
    text = read_pdf(out / "313513054_Lab7_InClass.pdf")
    for part in (
        "Ada Example",
        "Student 313513054",
        "def my_cell(x, s):",
        "It is what the network remembers",
        "first point",
        "Gradients shrink",
        "Question 1",
        "Question 2",
        "Loss: 0.0100",
        "test accuracy is 100.00%",
    ):
        assert part in text, part
    assert "Not answered" not in text
    assert "class RNNCell" not in text
    assert "not answered" not in capsys.readouterr().err


def test_questions_without_an_answer_are_named_and_not_filled_in(sentences_run, desk, read_pdf, capsys):
    (desk / "answers.md").write_text("## 1\n\n<!-- still to do -->\n\n## 2\n\nBecause of vanishing gradients.\n")
    assert run_cli(*arguments(sentences_run, desk)) == 0
    assert "Question 1 of 2 not answered" in capsys.readouterr().err
    text = read_pdf(desk / "out" / "313513054_Lab7_InClass.pdf")
    between = text.split("Question 1")[1].split("Question 2")[0]
    assert "Not answered." in between
    assert "still to do" not in text
    after_question = between.split("words?")[1].strip()
    assert after_question.startswith("Not answered.")


def test_without_answers_every_question_is_missing(sentences_run, desk):
    made = handin(RunFolder(sentences_run), load_lab("inclass"), "1", desk / "my_lab.py", out=desk / "out")
    assert made.unanswered == [1, 2]


def test_a_notebook_is_copied_and_its_code_cells_are_listed(sentences_run, desk, read_pdf):
    cells = [
        {"cell_type": "markdown", "source": ["# Prose"]},
        {"cell_type": "code", "source": ["first_line = 1\n", "second_line = 2"]},
        {"cell_type": "code", "source": "third_line = 3"},
    ]
    (desk / "my_lab.ipynb").write_text(json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}}))
    assert run_cli(*arguments(sentences_run, desk, code=desk / "my_lab.ipynb")) == 0
    copied = desk / "out" / "313513054_Lab7_InClass.ipynb"
    assert copied.read_bytes() == (desk / "my_lab.ipynb").read_bytes()
    text = read_pdf(copied.with_suffix(".pdf"))
    assert "second_line = 2" in text
    assert "third_line = 3" in text
    assert "# Prose" not in text


def test_a_course_brings_its_own_names_questions_and_points(sentences_run, desk, read_pdf):
    lab = {
        "name": "HW3-{student_id}",
        "title": "Deep Learning, third homework",
        "questions": [{"text": "What is $\\tanh$?", "points": 12.5}, {"text": "Why?"}],
    }
    (desk / "mine.yaml").write_text(yaml.safe_dump(lab))
    assert run_cli(*arguments(sentences_run, desk, lab=desk / "mine.yaml")) == 0
    text = read_pdf(desk / "out" / "HW3-313513054.pdf")
    assert "Deep Learning, third homework" in text
    assert "Question 1 (12.5 points)" in text
    assert "What is tanh?" in text


@pytest.mark.parametrize("name", ["homework", "inclass"])
def test_the_labs_that_come_along_are_whole(name):
    lab = load_lab(name)
    assert len(lab.questions) == {"homework": 3, "inclass": 2}[name]
    assert (
        lab.file_name("313513054") == {"homework": "313513054_Lab7_Homework", "inclass": "313513054_Lab7_InClass"}[name]
    )


def test_the_printed_questions_are_a_file_in_which_nothing_is_answered_yet(tmp_path, capsys):
    assert run_cli("handin", "--lab", "homework", "--questions") == 0
    printed = capsys.readouterr().out
    path = tmp_path / "answers.md"
    path.write_text(printed)
    lab = load_lab("homework")
    assert printed == questions_file(lab)
    assert read_answers(path, lab) == {}
    path.write_text(printed.replace("## 2\n", "## 2\n\nI changed the learning rate.\n"))
    assert list(read_answers(path, lab)) == [2]


def test_headings_within_an_answer_do_not_begin_another(tmp_path):
    path = tmp_path / "answers.md"
    path.write_text("# Lab\n\n## Question 1\n\n### 2 gates\n\nText.\n\n## Q2: why\n\nMore.\n")
    found = read_answers(path, load_lab("inclass"))
    assert sorted(found) == [1, 2]
    assert [block["t"] for block in found[1]] == ["h", "p"]


def test_pictures_of_an_answer_are_set_with_it(sentences_run, desk, read_pdf):
    (desk / "my.png").write_bytes((sentences_run / "figures" / "loss.png").read_bytes())
    (desk / "answers.md").write_text("## 1\n\n- ![My own curve](my.png)\n\n## 2\n\nx\n")
    assert run_cli(*arguments(sentences_run, desk)) == 0
    assert "My own curve" in read_pdf(desk / "out" / "313513054_Lab7_InClass.pdf")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"student-id": "3135/13"}, "student id is '3135/13'"),
        ({"student-id": ".."}, "student id is '..'"),
        ({"student-id": ""}, "--student-id is empty"),
        ({"lab": "homewrk"}, "did you mean 'homework'"),
        ({"lab": "homework"}, "the lab asks for lstm"),
        ({"lab": "nowhere.yaml"}, "does not exist"),
        ({"code": "nowhere.py"}, "cannot be read"),
        ({"code": "my_lab.c"}, "expected .py or .ipynb"),
        ({"answers": "nowhere.md"}, "cannot be read"),
        ({"out": "/dev/null/out"}, "cannot be written"),
        ({"name": "\U0010fffd"}, "no font on this machine has"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(sentences_run, desk, capsys, changes, said):
    assert run_cli(*arguments(sentences_run, desk, **changes)) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1
    assert not (desk / "out").exists()


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ("Only text.\n", "no heading with a question's number"),
        ("", "no heading with a question's number"),
        ("## 3\n\nx\n", "answers question 3, but the lab asks 1 to 2"),
        ("## 1\n\nx\n\n## 1\n\ny\n", "two headings for question 1"),
        ("## 1\n\n![x](nowhere.png)\n", "nowhere.png does not exist"),
        ("## 1\n\n![x](https://example.com/x)\n", "is none of .png"),
    ],
)
def test_answers_that_do_not_fit_are_one_line_and_nothing_is_written(sentences_run, desk, capsys, answers, said):
    (desk / "answers.md").write_text(answers)
    assert run_cli(*arguments(sentences_run, desk)) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1
    assert not (desk / "out").exists()


@pytest.mark.parametrize(
    ("lab", "said"),
    [
        ("name: x\ntitle: t\nquestions: [{text: a}]\n", "name"),
        ("name: '../{student_id}'\ntitle: t\nquestions: [{text: a}]\n", "expected a name"),
        ("name: '{student_id}'\ntitle: t\nquestions: []\n", "questions"),
        ("name: '{student_id}'\ntitle: t\nquestions: [{text: a, points: -1}]\n", "points"),
        ("name: [", "not valid YAML"),
        ("just text", "expected lines of the form"),
    ],
)
def test_a_lab_file_that_does_not_fit_is_one_line(tmp_path, lab, said):
    path = tmp_path / "lab.yaml"
    path.write_text(lab)
    with pytest.raises(InputError) as error:
        load_lab(str(path))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_notebook_that_is_none_is_an_error(sentences_run, desk):
    (desk / "my.ipynb").write_text('{"cells": 1}')
    with pytest.raises(InputError, match="no Jupyter notebook"):
        handin(RunFolder(sentences_run), load_lab("inclass"), "1", desk / "my.ipynb", out=desk / "out")
    assert not (desk / "out").exists()


def test_every_lab_file_is_read():
    assert {path.stem for path in LABS.iterdir()} == {"homework", "inclass"}
    assert all(isinstance(load_lab(path.stem), Lab) for path in LABS.iterdir())


HOSTILE_ANSWERS = {
    "an empty heading": "# \n\n### \u200b\n\nx",
    "a heading without letters": "### ![x](my.png)\n\nx",
    "a link of 9,000 characters": f"[a](http://example.com/{'y' * 9000})",
    "byte-order marks and soft hyphens": "\ufeffa\u00adb\ufeff",
    "tag characters": "a\U000e0041\U000e0042b",
    "control characters": "a\x1b]0;b\x07\x9bc `\x1b` $\x1b$",
    "signs of direction": "a\u202eb\u2066c",
    "no characters": "a\ufffeb\uffff",
    "formulas in formulas": "$$" + r"\frac{1}{" * 200 + "x" + "}" * 200 + "$$",
    "quotations in quotations": ">" * 500 + " a",
    "a large number": f"x\n\n## {'9' * 5000}\n\nx",
}


@pytest.mark.parametrize("kind", HOSTILE_ANSWERS)
def test_hostile_answers_are_set_or_refused_in_one_line(sentences_run, desk, capsys, kind):
    (desk / "my.png").write_bytes((sentences_run / "figures" / "loss.png").read_bytes())
    (desk / "answers.md").write_text(f"## 1\n\n{HOSTILE_ANSWERS[kind]}\n\n## 2\n\nx\n", encoding="utf-8")
    status = run_cli(*arguments(sentences_run, desk))
    error = capsys.readouterr().err
    assert (status, error.count("\n")) in ((0, 0), (2, 1)), error
    if "heading" in kind or "link" in kind or "characters" in kind or "marks" in kind or "signs" in kind:
        assert status == 0 or "letters" in kind, error


@pytest.mark.parametrize("broken", ["b.png", "c.svg", "d.jpg"])
def test_the_picture_that_is_blamed_is_the_one_that_cannot_be_read(sentences_run, desk, capsys, broken):
    for name in ("a.png", "b.png", "e.png"):
        (desk / name).write_bytes((sentences_run / "figures" / "loss.png").read_bytes())
    (desk / "c.svg").write_bytes((sentences_run / "figures" / "loss.svg").read_bytes())
    with Image.open(desk / "a.png") as picture:
        picture.convert("RGB").save(desk / "d.jpg")
    (desk / broken).write_bytes((desk / broken).read_bytes()[:100])
    pictures = "\n\n".join(f"![x]({name})" for name in ("a.png", "b.png", "c.svg", "d.jpg", "e.png"))
    (desk / "answers.md").write_text(f"## 1\n\n{pictures}\n\n## 2\n\nx\n")
    assert run_cli(*arguments(sentences_run, desk)) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"unroll: the picture {desk / broken} cannot be read (")
    assert message.count("\n") == 1


def test_a_picture_that_unpacks_into_gigabytes_is_refused(sentences_run, desk, capsys):
    Image.new("1", (20_000, 10_000)).save(desk / "large.png")
    (desk / "answers.md").write_text("## 1\n\n![x](large.png)\n\n## 2\n\nx\n")
    assert run_cli(*arguments(sentences_run, desk)) == 2
    assert f"the picture {desk / 'large.png'} is too large" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["a\x1b]0;b", "x" * 301])
def test_a_persons_name_is_shown_as_it_is_or_refused(sentences_run, desk, capsys, text):
    assert run_cli(*arguments(sentences_run, desk, name=text)) == 2
    message = capsys.readouterr().err
    assert message.startswith("unroll: a title or a name is ")
    assert len(message) < 500
    assert not (desk / "out").exists()


@pytest.mark.parametrize(
    "name", ["../{student_id}", "a/{student_id}", ".{student_id}", "{student_id}\n", "C:{student_id}"]
)
def test_a_labs_files_stay_in_their_folder(tmp_path, name):
    (tmp_path / "lab.yaml").write_text(yaml.safe_dump({"name": name, "title": "t", "questions": [{"text": "a"}]}))
    with pytest.raises(InputError, match="expected a name: at most 100 letters"):
        load_lab(str(tmp_path / "lab.yaml"))


def test_a_notebook_nested_without_end_is_one_line(sentences_run, desk, capsys):
    (desk / "my.ipynb").write_text("[" * 100_000)
    assert run_cli(*arguments(sentences_run, desk, code=desk / "my.ipynb")) == 2
    assert "is no Jupyter notebook" in capsys.readouterr().err
