"""The hand-in: two files with the right names, what the person's own code did, and no word that is not theirs."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path

import pypdf
import pytest
import yaml
from PIL import Image

from unroll.labs.answers import read_answers
from unroll.labs.handin import handin
from unroll.labs.own_run import Figure, OwnRun
from unroll.labs.results import captions, finite
from unroll.labs.spec import load_lab, questions_file

NAME = "313513054_Lab7_Homework"
ANSWERS = r"""# My answers

## 5. The gates

They decide what is **remembered**: $c_t = f_t \odot c_{t-1} + i_t \odot \tilde{c}_t$.

- first point
- second point

## Question 6

I changed the learning rate.

## 7

$$\left\|\frac{\partial L}{\partial s_t}\right\| \le \gamma^{T-t}$$
"""


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with a person's answers."""
    (tmp_path / "answers.md").write_text(ANSWERS)
    return tmp_path


@pytest.fixture
def hand_in(unroll, desk):
    """Hands a run in from the command line; exit status, stdout, stderr."""

    def given(run: Path, *flags: str, **changes: object) -> tuple[int, str, str]:
        options = {"lab": "homework", "student-id": "313513054", "answers": desk / "answers.md", "out": desk / "out"}
        options |= {name.replace("_", "-"): value for name, value in changes.items()}
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        return unroll("lab", "handin", run, *words, *flags)

    return given


def test_the_two_files_have_the_labs_names_and_hold_the_persons_own_work(own_run, hand_in, desk, read_pdf):
    run = own_run()
    status, said, err = hand_in(run, name="Ada Example")
    assert (status, err) == (0, "")
    out = desk / "out"
    assert said == f"Report: {out / NAME}.pdf\nCode: {out / NAME}.py\n"
    assert sorted(path.name for path in out.iterdir()) == [f"{NAME}.pdf", f"{NAME}.py"]
    assert (out / f"{NAME}.py").read_bytes() == (run / "code.py").read_bytes()
    text = read_pdf(out / f"{NAME}.pdf")
    parts = [
        "Ada Example",
        "Student 313513054",
        "(a) Hyperparameters",
        "ManualLSTMClassifier, has 8,138 parameters. The optimizer is Adam with lr = 6e-05.",
        "learning_rate 6e-05",
        "(b) Training loss record",
        "Step [400/469], Loss: 1.9000",
        "(c) Test accuracy",
        "printed a test accuracy of 94.10%",
        "over all test images: 94.12% (9,412 of 10,000 images)",
        "(d) Prediction results",
        "Ten digits",
        "Question 5 (5 points)",
        "They decide what is remembered",
        "Question 7 (5 points)",
        "def my_cell(x, h, c):",
        "unroll lab run",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)
    for absent in ("Not answered", "differ by", "recipe", "class LSTMCell", "Draft"):
        assert absent not in text, absent


def test_the_record_of_training_holds_no_line_of_the_test(own_run, hand_in, desk, read_pdf):
    log = "Loss: 0.5\nLoss: 0.4\ndone in 3 s\nTest loss: 0.3\nTest accuracy: 94.10%\nPredicted: 7\n"
    assert hand_in(own_run(log=log))[0] == 0
    text = read_pdf(desk / "out" / f"{NAME}.pdf")
    order = [
        "Loss: 0.5",
        "(c) Test accuracy",
        "done in 3 s",
        "Test loss: 0.3",
        "(d) Prediction results",
        "Predicted: 7",
    ]
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert text.count("Predicted: 7") == text.count("done in 3 s") == 1


def test_figures_are_called_as_the_code_calls_them_and_told_apart(own_run):
    titles = [
        ("Loss", ["Loss"]),
        ("Ten digits", ["Ten digits", "7", "2"]),
        ("Loss", ["Loss"]),
        ("", ["7", "2"]),
        ("", []),
    ]
    figures = [Figure(file=f"0{n}.png", title=own, titles=parts) for n, (own, parts) in enumerate(titles)]
    assert captions(figures) == [
        "Loss (1 of 2)",
        "Ten digits",
        "Loss (2 of 2)",
        "Drawn by the code (1 of 2)",
        "Drawn by the code (2 of 2)",
    ]


@pytest.mark.parametrize("room", [0, 1])
def test_a_full_disk_leaves_neither_file(own_run, hand_in, desk, monkeypatch, room):
    run, written = own_run(), []

    def fsync(handle):
        written.append(handle)
        if len(written) > room:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    status, out, err = hand_in(run)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "No space left on device" in err
    assert not (desk / "out").exists()


def test_the_same_run_gives_the_same_bytes(own_run, hand_in, desk, handout):
    run, pages = own_run(), handout()
    made = []
    for _ in range(2):
        assert hand_in(run, handout=pages)[0] == 0  # the second time over the first
        made.append((desk / "out" / f"{NAME}.pdf").read_bytes())
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("seen", "said"),
    [
        ({"log": "Test accuracy: 0.988"}, "The two numbers differ by 4.68 percentage points."),
        ({"log": "Test accuracy: 98.8%"}, "The two numbers differ by 4.68 percentage points."),
        ({"log": "Loss: 0.1"}, "the code printed no test accuracy"),
        ({"prediction": {"reason": "no model was called"}}, "It could not be computed again: no model was called."),
        ({"hyperparameters": {}}, "No hyperparameter was found"),
        ({"figures": []}, "printed no prediction and drew no figure"),
        (
            {"engine": {"engine_accuracy": 94.11, "engine_agrees": 9998}},
            "the engine of unroll computes 94.11%; 9,998 of its predictions are equal to the model's.",
        ),
    ],
)
def test_what_is_missing_or_differs_is_said(own_run, hand_in, desk, read_pdf, seen, said):
    assert hand_in(own_run(**seen))[0] == 0
    assert said in read_pdf(desk / "out" / f"{NAME}.pdf")


def test_in_class_the_predictions_take_the_place_of_a_test_set(own_run, hand_in, desk, read_pdf):
    log = "Epoch [50/300] - Loss: 0.0816\n==== Testing ====\nSentence: ['The', 'movie', 'is', 'bad'] → Prediction: 0\n"
    run = own_run(log=log, lab="inclass", prediction={"reason": "no model was called"}, images=None)
    (desk / "answers.md").write_text("## 1\n\nWhat was read so far.\n")
    status, _, err = hand_in(run, lab="inclass")
    assert (status, err) == (0, "Question 6 not answered (1 of 2); the report lists it so.\n")
    text = read_pdf(desk / "out" / "313513054_Lab7_InClass.pdf")
    assert "(c) Prediction results" in text
    assert "Test accuracy" not in text
    assert text.count("→ Prediction: 0") == 1
    assert text.index("Loss: 0.0816") < text.index("(c) Prediction results") < text.index("→ Prediction: 0")
    assert (
        text.index("Question 5")
        < text.index("What was read so far")
        < text.index("Question 6")
        < text.index("Not answered")
    )


def test_a_run_of_a_recipe_is_refused_with_the_command_that_helps(sentences_run, hand_in, desk):
    status, out, err = hand_in(sentences_run)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "is a run of a recipe, not of your own code; run that first (unroll lab run my_lab.py)" in err
    assert not (desk / "out").exists()


def test_a_recipes_results_stand_under_a_heading_that_says_whose_they_are(
    own_run, sentences_run, hand_in, desk, read_pdf
):
    assert hand_in(own_run(), compare=sentences_run)[0] == 0
    own, theirs = read_pdf(desk / "out" / f"{NAME}.pdf").split("Results of the package's recipe, not of this code")
    assert "100.00%" not in own
    assert "test accuracy is 100.00%" in theirs
    assert "94.12%" not in theirs
    assert "def my_cell" in own


def test_code_that_was_changed_since_it_ran_is_refused(own_run, hand_in, desk):
    run = own_run()
    with (run / "code.py").open("a") as file:
        file.write("# a late thought\n")
    status, _, err = hand_in(run)
    assert (status, err.count("\n")) == (2, 1)
    assert (
        "is not the code that ran: it was changed after the run, as its hash in own.json shows; run yours again" in err
    )
    assert not (desk / "out").exists()


def test_a_run_that_did_not_finish_is_handed_in_as_a_draft_alone_which_says_what_python_said(
    own_run, hand_in, desk, read_pdf
):
    error = {"type": "ValueError", "message": "no <b>such</b> *gate*", "line": 2}
    run = own_run(outcome={"error": error}, prediction={"reason": "the file ended early"})
    status, _, err = hand_in(run)
    assert (status, err.count("\n")) == (2, 1)
    assert "ended with an error" in err
    assert "--draft" in err
    assert not (desk / "out").exists()
    assert hand_in(run, "--draft")[0] == 0
    text = read_pdf(desk / "out" / f"{NAME}.pdf")
    assert "Draft. The code ended with an error (line 2): ValueError: no <b>such</b> *gate*." in text


def test_the_report_has_the_date_of_the_run(own_run, desk):
    made = handin(own_run(), load_lab("homework"), "1", out=desk / "out")
    assert pypdf.PdfReader(made.pdf).metadata.creation_date.date().isoformat() == "2026-05-04"


def test_a_run_of_the_other_lab_is_refused(own_run, hand_in):
    status, _, err = hand_in(own_run(lab="inclass"))
    assert status == 2
    assert "ran code of the lab inclass, and --lab is homework" in err


@pytest.mark.parametrize("content", ["{", "[" * 100_000, '{"kind": "recipe"}', "[]"])
def test_a_damaged_run_folder_is_one_line(own_run, hand_in, desk, content):
    run = own_run()
    (run / "own.json").write_text(content)
    status, out, err = hand_in(run)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "own.json is damaged" in err
    assert not (desk / "out").exists()


def test_a_loss_that_is_no_number_is_left_out_of_the_curve(own_run, desk):
    run = own_run(losses=[float("nan"), float("inf"), 1.5, 1.25])
    assert finite(OwnRun(run)) == [(3, 1.5), (4, 1.25)]
    assert handin(run, load_lab("homework"), "1", out=desk / "out").pdf.is_file()


def test_a_long_record_is_cut_in_its_middle(own_run, hand_in, desk, read_pdf):
    log = "a bar 100%\n" + "".join(f"Loss: {n}.5\n" for n in range(1000))
    assert hand_in(own_run(log=log))[0] == 0
    text = read_pdf(desk / "out" / f"{NAME}.pdf")
    assert "a bar 100%" in text
    assert "Loss: 0.5" in text
    assert "Loss: 999.5" in text
    assert "Loss: 500.5" not in text
    assert "781 lines left out" in text


def test_questions_without_an_answer_are_named_and_not_filled_in(own_run, hand_in, desk, read_pdf):
    (desk / "answers.md").write_text("## 5\n\n<!-- still to do -->\n\n## 6\n\nThe rate.\n\n## 7\n\nThe LSTM.\n")
    status, _, err = hand_in(own_run())
    assert (status, err) == (0, "Question 5 not answered (1 of 3); the report lists it so.\n")
    text = read_pdf(desk / "out" / f"{NAME}.pdf")
    between = text.split("Question 5")[1].split("Question 6")[0]
    assert between.split("in an LSTM.")[1].strip().startswith("Not answered.")
    assert "still to do" not in text


def test_without_answers_every_question_is_missing(own_run, desk):
    assert handin(own_run(), load_lab("homework"), "1", out=desk / "out").unanswered == [5, 6, 7]


@pytest.mark.parametrize(
    ("lab", "headings", "meant"),
    [
        ("homework", [5, 6, 7], [5, 6, 7]),
        ("homework", [7], [7]),
        ("homework", [1, 2, 3], [5, 6, 7]),
        ("homework", [3], [7]),
        ("inclass", [6, 5], [5, 6]),
        ("inclass", [2], [6]),
    ],
)
def test_answers_are_numbered_as_the_lab_does_or_from_one_on(tmp_path, lab, headings, meant):
    path = tmp_path / "answers.md"
    path.write_text("".join(f"## {number}\n\nanswer {number}\n\n" for number in headings))
    found = read_answers(path, load_lab(lab))
    assert sorted(found) == meant
    said = {number: blocks[0]["c"][0]["v"] for number, blocks in found.items()}
    assert sorted(said.values()) == sorted(f"answer {number}" for number in headings)
    assert [said[number] for number in meant] == [f"answer {number}" for number in sorted(headings)]


def test_a_number_that_could_be_either_is_the_labs_own(tmp_path):
    items = [{"points": 1, "checks": ["cell"]}, {"text": "two"}, {"text": "three"}]
    (tmp_path / "lab.yaml").write_text(yaml.safe_dump({"name": "{student_id}", "title": "t", "items": items}))
    lab, path = load_lab(str(tmp_path / "lab.yaml")), tmp_path / "answers.md"
    path.write_text("## 2\n\nx\n")
    assert list(read_answers(path, lab)) == [2]
    path.write_text("## 1\n\nx\n\n## 2\n\ny\n")  # 1 is no number of the lab's: both are counted from one on
    assert list(read_answers(path, lab)) == [2, 3]


def test_a_notebook_is_copied_and_its_code_cells_are_listed(own_run, hand_in, desk, read_pdf):
    cells = [
        {"cell_type": "markdown", "source": ["# Prose"]},
        {"cell_type": "code", "source": ["first_line = 1\n", "second_line = 2"]},
        {"cell_type": "code", "source": "third_line = 3"},
    ]
    code = json.dumps({"cells": cells, "nbformat": 4, "nbformat_minor": 5, "metadata": {}})
    assert hand_in(own_run(code=code, file="my_lab.ipynb"))[0] == 0
    copied = desk / "out" / f"{NAME}.ipynb"
    assert copied.read_text() == code
    text = read_pdf(copied.with_suffix(".pdf"))
    assert "second_line = 2" in text
    assert "third_line = 3" in text
    assert "# Prose" not in text
    assert "is byte for byte the notebook that ran. Listed is the text of its code cells" in text


def test_a_course_brings_its_own_names_questions_and_points(own_run, hand_in, desk, read_pdf):
    lab = {
        "name": "HW3-{student_id}",
        "title": "Deep Learning, third homework",
        "questions": [{"text": "What is $\\tanh$?", "points": 12.5}, {"text": "Why?"}],
    }
    (desk / "mine.yaml").write_text(yaml.safe_dump(lab))
    (desk / "answers.md").write_text("## 2\n\nBecause.\n")
    assert hand_in(own_run(), lab=desk / "mine.yaml")[0] == 0
    text = read_pdf(desk / "out" / "HW3-313513054.pdf")
    assert "Deep Learning, third homework" in text
    assert "Question 1 (12.5 points)" in text
    assert "What is tanh?" in text


@pytest.mark.parametrize("name", ["homework", "inclass"])
def test_the_printed_questions_are_a_file_in_which_nothing_is_answered_yet(tmp_path, unroll, name):
    status, printed, _ = unroll("lab", "handin", "--lab", name, "--questions")
    assert status == 0
    path = tmp_path / "answers.md"
    path.write_text(printed)
    lab = load_lab(name)
    assert printed == questions_file(lab)
    assert read_answers(path, lab) == {}
    path.write_text(printed.replace("## 6\n", "## 6\n\nI changed the learning rate.\n"))
    assert list(read_answers(path, lab)) == [6]


def test_headings_within_an_answer_do_not_begin_another(tmp_path):
    path = tmp_path / "answers.md"
    path.write_text("# Lab\n\n## Question 5\n\n### 2 gates\n\nText.\n\n## Q6: why\n\nMore.\n")
    found = read_answers(path, load_lab("inclass"))
    assert sorted(found) == [5, 6]
    assert [block["t"] for block in found[5]] == ["h", "p"]


def test_pictures_of_an_answer_are_set_with_it(own_run, hand_in, desk, read_pdf):
    run = own_run()
    (desk / "my.png").write_bytes((run / "figures" / "01.png").read_bytes())
    (desk / "answers.md").write_text("## 5\n\n- ![My own curve](my.png)\n\n## 6\n\nx\n")
    assert hand_in(run)[0] == 0
    assert "My own curve" in read_pdf(desk / "out" / f"{NAME}.pdf")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"student_id": "3135/13"}, "student id is '3135/13'"),
        ({"student_id": ".."}, "student id is '..'"),
        ({"student_id": ""}, "--student-id is empty"),
        ({"lab": "homewrk"}, "did you mean 'homework'"),
        ({"lab": "nowhere.yaml"}, "does not exist"),
        ({"answers": "nowhere.md"}, "cannot be read"),
        ({"handout": "nowhere.pdf"}, "cannot be read"),
        ({"compare": "nowhere"}, "nowhere"),
        ({"out": "/dev/null/out"}, "cannot be written"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(own_run, hand_in, desk, changes, said):
    status, out, err = hand_in(own_run(), **changes)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert not (desk / "out").exists()


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ("Only text.\n", "no heading with a question's number"),
        ("", "no heading with a question's number"),
        ("## 4\n\nx\n", "answers question 4, but the lab asks 5 to 7 (or 1 to 3 in their place)"),
        ("## 1\n\nx\n\n## 6\n\ny\n", "mixes two ways of numbering (1, 6); expected 5 to 7 (or 1 to 3 in their place)"),
        ("## 5\n\nx\n\n## 5\n\ny\n", "two headings for question 5"),
        ("## 5\n\n![x](nowhere.png)\n", "nowhere.png does not exist"),
        ("## 5\n\n![x](https://example.com/x)\n", "is none of .png"),
    ],
)
def test_answers_that_do_not_fit_are_one_line_and_nothing_is_written(own_run, hand_in, desk, answers, said):
    (desk / "answers.md").write_text(answers)
    status, out, err = hand_in(own_run())
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert said in err
    assert not (desk / "out").exists()


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
def test_hostile_answers_are_set_or_refused_in_one_line(own_run, hand_in, desk, kind):
    run = own_run()
    (desk / "my.png").write_bytes((run / "figures" / "01.png").read_bytes())
    (desk / "answers.md").write_text(f"## 5\n\n{HOSTILE_ANSWERS[kind]}\n\n## 6\n\nx\n\n## 7\n\nx\n", encoding="utf-8")
    status, _, error = hand_in(run)
    assert (status, error.count("\n")) in ((0, 0), (2, 1)), error
    if "heading" in kind or "link" in kind or "characters" in kind or "marks" in kind or "signs" in kind:
        assert status == 0 or "letters" in kind, error


@pytest.mark.parametrize("broken", ["b.png", "c.svg", "d.jpg"])
def test_the_picture_that_is_blamed_is_the_one_that_cannot_be_read(own_run, hand_in, desk, broken):
    run = own_run()
    for name in ("a.png", "b.png", "e.png"):
        (desk / name).write_bytes((run / "figures" / "01.png").read_bytes())
    square = '<rect width="20" height="20" fill="#888"/>' * 3
    (desk / "c.svg").write_text(f'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40">{square}</svg>')
    with Image.open(desk / "a.png") as picture:
        picture.convert("RGB").save(desk / "d.jpg")
    (desk / broken).write_bytes((desk / broken).read_bytes()[:100])
    pictures = "\n\n".join(f"![x]({name})" for name in ("a.png", "b.png", "c.svg", "d.jpg", "e.png"))
    (desk / "answers.md").write_text(f"## 5\n\n{pictures}\n\n## 6\n\nx\n")
    status, _, message = hand_in(run)
    assert status == 2
    assert message.startswith(f"unroll: the picture {desk / broken} cannot be read (")
    assert message.count("\n") == 1


def test_a_picture_that_unpacks_into_gigabytes_is_refused(own_run, hand_in, desk):
    Image.new("1", (20_000, 10_000)).save(desk / "large.png")
    (desk / "answers.md").write_text("## 5\n\n![x](large.png)\n\n## 6\n\nx\n")
    status, _, err = hand_in(own_run())
    assert status == 2
    assert f"the picture {desk / 'large.png'} is too large" in err


def test_a_figure_of_the_code_that_unpacks_into_gigabytes_is_refused(own_run, hand_in):
    room = io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(room, "png")
    status, _, err = hand_in(own_run(picture=room.getvalue()))
    assert (status, err.count("\n")) == (2, 1)
    assert "is too large" in err


@pytest.mark.parametrize("text", ["a\x1b]0;b", "x" * 301])
def test_a_persons_name_is_shown_as_it_is_or_refused(own_run, hand_in, desk, text):
    status, _, message = hand_in(own_run(), name=text)
    assert status == 2
    assert message.startswith("unroll: a title or a name is ")
    assert len(message) < 500
    assert not (desk / "out").exists()


# No font on earth has a shape for these, which stand for what the machine's fonts lack.
UNKNOWN = "\U0010fffd"


@pytest.mark.parametrize("place", ["name", "answers", "code", "log"])
def test_what_no_font_has_is_marked_with_one_warning_and_the_file_is_written(own_run, hand_in, desk, read_pdf, place):
    given, name = {}, "Ada"
    if place == "name":
        name = f"Ada {UNKNOWN}{UNKNOWN}"
    elif place == "answers":
        (desk / "answers.md").write_text(f"## 5\n\nA {UNKNOWN} gate.\n\n## 6\n\nx\n\n## 7\n\nx\n", encoding="utf-8")
    else:
        given[place] = f"print('a {UNKNOWN} b')\n"
    status, _, err = hand_in(own_run(**given), name=name)
    assert (status, err.count("\n")) == (0, 1), err
    assert err.startswith("unroll: no font on this machine has ")
    assert "shown as �" in err
    pdf = desk / "out" / f"{NAME}.pdf"
    assert "�" in read_pdf(pdf)
    assert pypdf.PdfReader(pdf).metadata.author == name


@pytest.mark.parametrize("text", ["王小明", "やまだ", "محمد", "अनिल", "Zoë Ångström", "😀🧠", "Ω"])
def test_a_name_in_any_script_is_written_and_the_hand_in_can_be_made_again(own_run, hand_in, desk, text):
    run = own_run()
    hand_in(run, name=text)
    status, _, err = hand_in(run, name=text)
    assert status == 0
    assert err.count("\n") <= 1  # whether the machine's fonts have it is the machine's matter
    assert pypdf.PdfReader(desk / "out" / f"{NAME}.pdf").metadata.author == text
