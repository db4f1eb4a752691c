"""The report: everything that the labs ask for stands in the PDF, and nothing of a user's text is ever run."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pypdf
import pytest
import torch
from torch import nn

from tests.equations.cells import KINDS, Fourth, Peephole, own
from unroll.cli import main
from unroll.errors import InputError, RunError
from unroll.models import SequenceClassifier
from unroll.report.blocks import record
from unroll.report.document import command, report, wrapped
from unroll.report.markdown import parse_markdown
from unroll.report.pdf import Document, typeset, write_pdf
from unroll.training.recipe import load_recipe, parse_recipe
from unroll.training.run import Classifier, RunFolder, load


def run_cli(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit:
        main([str(argument) for argument in arguments])
    return exit.value.code


@pytest.fixture(scope="module")
def image_pdf(bars_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pdf(report(RunFolder(bars_run)), tmp_path_factory.mktemp("pdf") / "bars.pdf")


@pytest.fixture(scope="module")
def lab_pdf(sentences_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pdf(report(RunFolder(sentences_run), author="Ada Example"), tmp_path_factory.mktemp("pdf") / "lab.pdf")


def document(text: str, **fields) -> Document:
    return Document(title="Title", running=("", ""), summary=[], body=parse_markdown(text), **fields)


# ------------------------------------------------------------------------------------------------------- what it says


def test_the_report_of_an_image_run_holds_every_part_that_the_lab_asks_for(image_pdf, bars_run, read_pdf):
    text = read_pdf(image_pdf)
    metrics = RunFolder(bars_run).metrics()["test"]
    assert "An LSTM that reads pictures row by row" in text
    for title in (
        "The equations",
        "Hyperparameters",
        "Training",
        "Test",
        "The equations as code",
        "How to run it again",
    ):
        assert title in text, title
    assert f"test accuracy is {100 * metrics['accuracy']:.2f}%" in text
    low, high = metrics["interval95"]
    assert f"from {100 * low:.2f}% to {100 * high:.2f}%" in text
    for name, row in metrics["per_class"].items():
        assert f"{name} {row['correct']} of {row['total']} {100 * row['accuracy']:.2f}%" in text
    assert "learning rate 0.02 (peak) learning rate" in text
    assert "hidden size 12" in text
    assert "class LSTMCell(CellParameters):" in text
    assert "c_tilde = torch.tanh(a_c)" in text


def test_every_printed_line_of_the_training_is_in_the_report(image_pdf, bars_run, read_pdf):
    text = read_pdf(image_pdf)
    lines = (bars_run / "log.txt").read_text().splitlines()
    assert len(lines) > 5
    for line in lines:
        assert line in text


def test_the_report_of_the_sentence_lab_shows_losses_sentences_and_predictions(lab_pdf, read_pdf):
    text = read_pdf(lab_pdf)
    assert "A vanilla RNN that reads sentences word by word" in text
    assert "Ada Example" in text
    assert "4 March 2026" in text
    for loss in ("0.0816", "0.0347", "0.0216", "0.0156", "0.0122", "0.0100"):
        assert f"Loss: {loss}" in text
    assert re.search(r"The movie is good 1 1 99\.\d\d%", text)
    assert re.search(r"The movie is bad 0 0 99\.\d\d%", text)
    assert "class RNNCell(CellParameters):" in text
    assert "unroll train rnn-sentences" in text
    assert "42" in text


def alternatives(pdf: Path) -> str:
    """The text alternatives of all figures and formulas of a tagged PDF."""
    found = []
    waiting = [pypdf.PdfReader(pdf).trailer["/Root"]["/StructTreeRoot"]]
    while waiting:
        element = waiting.pop().get_object()
        if isinstance(element, list):
            waiting += element
        elif isinstance(element, dict):
            found.append(str(element.get("/Alt", "")))
            if "/K" in element:
                waiting.append(element["/K"])
    return " ".join(found)


def test_equations_and_figures_have_text_alternatives_of_what_they_show(image_pdf, lab_pdf):
    assert "c tilde t equals tanh" in alternatives(image_pdf)
    assert "s t equals tanh of W times s t minus 1" in alternatives(lab_pdf)
    assert "c tilde" not in alternatives(lab_pdf)
    assert "Line chart of the training loss" in alternatives(lab_pdf)
    assert "Confusion matrix of 3 classes" in alternatives(image_pdf)


def test_the_pdf_is_tagged_for_screen_readers(image_pdf):
    reader = pypdf.PdfReader(image_pdf)
    catalogue = reader.trailer["/Root"]
    assert catalogue["/MarkInfo"]["/Marked"]
    assert catalogue["/Lang"].startswith("en")
    assert catalogue["/ViewerPreferences"]["/DisplayDocTitle"]
    assert "pdfuaid" in catalogue["/Metadata"].get_data().decode()
    assert reader.metadata.title == "An LSTM that reads pictures row by row"


def test_the_same_folder_gives_the_same_bytes(bars_run):
    assert typeset(report(RunFolder(bars_run))) == typeset(report(RunFolder(bars_run)))


def test_further_findings_in_the_folder_get_a_section_with_table_and_figure(bars_run, copied, tmp_path, read_pdf):
    run = copied(bars_run)
    rows = [{"removed": "nothing", "accuracy": 0.98765}, {"removed": "forget gate #panic()", "accuracy": 0.5}]
    (run / "ablate.json").write_text(json.dumps({"recipe": {}, "rows": rows}))
    (run / "figures" / "gradients.svg").write_bytes((run / "figures" / "loss.svg").read_bytes())
    text = read_pdf(write_pdf(report(RunFolder(run)), tmp_path / "report.pdf"))
    assert "Gates removed" in text
    assert "forget gate #panic() 0.5000" in text
    assert "nothing 0.9877" in text
    assert "Gradients through time" in text


def test_a_run_without_a_test_says_so_and_is_no_error(bars_run, copied, tmp_path, read_pdf):
    run = copied(bars_run)
    metrics = json.loads((run / "metrics.json").read_text())
    del metrics["test"]
    (run / "metrics.json").write_text(json.dumps(metrics))
    (run / "predictions.npz").unlink()
    text = read_pdf(write_pdf(report(RunFolder(run)), tmp_path / "report.pdf"))
    assert "This run was not tested" in text


@pytest.fixture
def reported(bars_run, tmp_path, monkeypatch):
    """The report of a finished run as if another cell had been trained in it."""

    def make(cell) -> Path:
        real = load(bars_run)
        model = SequenceClassifier(cell, real.encoder.input_size, 12, 3)
        monkeypatch.setattr("unroll.report.document.load", lambda _: Classifier(model, real.encoder, real.recipe))
        return write_pdf(report(RunFolder(bars_run)), tmp_path / "own.pdf")

    return make


def test_the_report_of_a_cell_of_ones_own_has_its_equations_parameters_and_source(reported, read_pdf):
    pdf = reported(lambda D, H: own(Peephole, D, H))
    text, said = read_pdf(pdf), alternatives(pdf)
    assert "A Peephole that reads pictures row by row" in text
    assert (
        "f t equals sigma of W f times x t and h t minus 1 side by side, plus b f, plus p f times c t minus 1" in said
    )
    assert "The 1,044 numbers that the cell learns" in text
    assert "gates.weight 48 × 20 960" in text
    assert "is the logistic function" in text
    assert "class Peephole(Own):" in text
    assert "The cell, from cells.py" in text
    assert "input gate" not in text


@pytest.mark.parametrize("kind", KINDS)
def test_the_equations_of_any_cell_are_set(reported, kind):
    if kind is not Fourth:  # whose states are of other sizes than those that a model is asked for
        assert " t equals " in alternatives(reported(lambda D, H: own(kind, D, H)))


def test_the_report_says_why_a_cell_has_no_formulas(reported, read_pdf):
    class Noisy(nn.Module):
        def __init__(self, D: int, H: int) -> None:
            super().__init__()
            self.input_size, self.hidden_size = D, H

        def forward(self, x, h):
            return torch.tanh(h + torch.randn_like(h) + x.sum(1, keepdim=True))

    text = read_pdf(reported(Noisy))
    assert "could not be read as formulas" in text
    assert "randn_like draws random numbers of its own" in text


# --------------------------------------------------------------------------------------------------------- user's text


@pytest.mark.parametrize(
    "text",
    [
        '#panic("ran")',
        "#set page(fill: red)",
        "$#panic()$",
        '`#eval("1")`',
        "@label",
        "<label>",
        "\\ _a_ $x",
        "= Not a heading",
    ],
)
def test_text_of_a_user_is_set_and_never_run(text, tmp_path, read_pdf):
    path = tmp_path / "x.pdf"
    words = [{"t": "p", "c": [{"t": "text", "v": text}]}, {"t": "pre", "v": text}]
    write_pdf(Document(title=text, author=text, running=(text, text), summary=[], body=words, byline=[]), path)
    assert read_pdf(path).count(re.sub(r"\s+", " ", text)) >= 3


def test_markdown_of_a_user_is_set_and_never_run(tmp_path, read_pdf):
    path = write_pdf(document('#panic()\n\n- *a* #read("data.json")\n\n$x #panic()$ and $\\foo$'), tmp_path / "x.pdf")
    text = read_pdf(path)
    assert "#panic()" in text
    assert '#read("data.json")' in text
    assert "\\foo" in text


def test_a_character_that_no_font_has_does_not_keep_a_data_set_from_being_reported(
    bars_run, copied, tmp_path, read_pdf
):
    run = copied(bars_run)
    log = (run / "log.txt").read_text()
    (run / "log.txt").write_text(log + "odd \U0010fffd end\n", encoding="utf-8")
    assert "odd \ufffd end" in read_pdf(write_pdf(report(RunFolder(run)), tmp_path / "x.pdf"))


def test_what_no_font_has_is_marked_in_titles_too_and_told_in_one_line(unroll, bars_run, tmp_path, read_pdf):
    path = tmp_path / "x.pdf"
    status, _, err = unroll("report", bars_run, "--author", "A\U0010fffd", "--title", "\U0010fffc B", "--out", path)
    assert (status, err.count("\n")) == (0, 1)
    assert err.startswith("unroll: no font on this machine has ")
    assert "� B A�" in read_pdf(path)


def test_a_picture_that_is_none_is_one_line(tmp_path):
    broken = tmp_path / "broken.svg"
    broken.write_text("no picture")
    made = document("text", files={"figure.svg": broken})
    made.body.append({"t": "figure", "file": "figure.svg", "alt": "a", "caption": [], "width": 50})
    with pytest.raises(InputError, match=r"broken\.svg cannot be read"):
        typeset(made)


# ----------------------------------------------------------------------------------------------------------- bad input


def test_an_unfinished_run_is_an_error_that_says_what_is_missing(bars_run, copied, capsys):
    run = copied(bars_run)
    (run / "metrics.json").unlink()
    assert run_cli("report", run) == 2
    message = capsys.readouterr().err
    assert "metrics.json missing" in message
    assert "--draft" in message
    assert message.count("\n") == 1
    assert not (run / "report.pdf").exists()


def test_a_draft_is_built_from_what_there_is_and_says_what_is_missing(bars_run, copied, read_pdf, capsys):
    run = copied(bars_run)
    for name in (
        "metrics.json",
        "model.safetensors",
        "predictions.npz",
        "log.txt",
        "history.jsonl",
        "figures/loss.svg",
    ):
        (run / name).unlink()
    assert run_cli("report", run, "--draft") == 0
    text = read_pdf(run / "report.pdf")
    assert "Draft." in text
    assert "metrics.json, model.safetensors" in text
    assert "Missing: the outcome of the test" in text
    assert "hidden size 12" in text


def test_a_lost_figure_is_one_line_and_can_be_drawn_again(bars_run, copied, capsys):
    run = copied(bars_run)
    (run / "figures" / "confusion.svg").unlink()
    assert run_cli("report", run) == 2
    message = capsys.readouterr().err
    assert "figures/confusion.svg" in message
    assert "--redraw" in message
    assert not (run / "report.pdf").exists()
    assert run_cli("report", run, "--redraw") == 0
    assert (run / "report.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize(("out", "said"), [("report.txt", "ends in .pdf"), ("file/in/it.pdf", "cannot be written")])
def test_a_place_that_cannot_be_written_is_one_line(bars_run, tmp_path, capsys, out, said):
    (tmp_path / "file").write_text("in the way")
    assert run_cli("report", bars_run, "--out", tmp_path / out) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_a_folder_that_is_no_run_is_an_error(tmp_path):
    with pytest.raises(RunError, match="does not exist"):
        RunFolder(tmp_path / "nowhere")


# --------------------------------------------------------------------------------------------------------------- parts


@pytest.mark.parametrize("name", ["lstm-mnist", "lstm-mnist-tuned", "rnn-sentences"])
def test_the_command_repeats_a_packaged_recipe_by_its_name(name):
    assert command(load_recipe(name)) == ["unroll", "train", name]


def test_the_command_holds_every_changed_field_and_gives_the_recipe_back():
    changes = {"hidden_size": 7, "forget_bias": None, "bidirectional": True, "learning_rate": 2e-5, "data": "my data"}
    recipe = load_recipe("lstm-mnist-tuned", changes)
    words = command(recipe)
    assert words[:2] == ["unroll", "train"]
    given = dict(zip(words[3::2], words[4::2], strict=True))
    assert given["--hidden-size"] == "7"
    assert given["--bidirectional"] == "true"
    assert given["--data"] == "my data"
    from unroll.training.recipe import field_value

    fields = {name.removeprefix("--").replace("-", "_"): field_value(value) for name, value in given.items()}
    again = load_recipe(words[2], fields).model_dump()
    wanted = recipe.model_dump()
    assert {k: v for k, v in again.items() if k not in ("name", "about")} == {
        k: v for k, v in wanted.items() if k not in ("name", "about")
    }
    assert "'my data'" in "\n".join(wrapped(words))


def test_a_long_record_keeps_its_lines_in_order_over_columns_and_pages():
    lines = [f"line {n}" for n in range(250)]
    block = record(lines)
    assert "\n".join(piece for chunk in block["chunks"] for piece in chunk).splitlines() == lines
    assert max(piece.count("\n") for chunk in block["chunks"] for piece in chunk) < 60


def test_only_what_played_a_part_is_a_hyperparameter(bars_run, tmp_path, read_pdf):
    text = read_pdf(write_pdf(report(RunFolder(bars_run)), tmp_path / "x.pdf"))
    assert "nonlinearity" not in text.split("as code")[0]
    assert "momentum" not in text
    assert "Not used in this run:" in text
    assert parse_recipe(RunFolder(bars_run).recipe.model_dump(), "x").cell == "lstm"


@pytest.mark.parametrize("given", ["abc", "9" * 30, "1.5", "1_0"])
def test_a_date_that_nobody_can_read_is_one_line(unroll, copied, bars_run, own_run, monkeypatch, given):
    own = own_run()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", given)
    run = copied(bars_run)
    handin = ["lab", "handin", own, "--lab", "homework", "--student-id", "313513054"]
    for words in (["report", run], ["report", run, "--redraw"], handin):
        status, out, err = unroll(*words)
        assert (status, out) == (2, "")
        assert err == f"unroll: SOURCE_DATE_EPOCH is '{given}'; expected seconds since 1970, or unset it\n"
    assert not (run / "report.pdf").exists()
    assert [path.name for path in Path().iterdir() if path.name.startswith("313")] == []


@pytest.mark.parametrize("option", ["--title", "--author"])
@pytest.mark.parametrize("text", ["\x1b[2J", "x" * 1000, "\ufeff\u00ad", "\udcff", "\U000e0041", "a\nb"])
def test_any_title_is_set_or_refused_in_one_line(unroll, bars_run, tmp_path, option, text):
    status, _, err = unroll("report", bars_run, option, text, "--out", tmp_path / "a.pdf")
    assert (status, err.count("\n")) in ((0, 0), (2, 1)), err
    assert len(err) < 500


@pytest.mark.parametrize("damage", [b"<svg>\x07</svg>", b"", b"<svg", b"\xff\xfe"])
def test_a_damaged_figure_is_named(unroll, copied, bars_run, damage):
    run = copied(bars_run)
    (run / "figures" / "confusion.svg").write_bytes(damage)
    status, _, err = unroll("report", run)
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith(f"unroll: the picture {run / 'figures' / 'confusion.svg'} cannot be read")
