"""The model card: its code runs, its metadata are read, and text of others does nothing in it but stand there."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from markdown_it import MarkdownIt

from unroll.files import load_tensors, save_tensors
from unroll.report.card import card_text, fenced, shown, write_card
from unroll.training.run import RunFolder, load

EVIL = [
    "<script>alert(1)</script>",
    "[free](javascript:alert(1)) <javascript:x> https://evil.example www.evil.example",
    "a | b ``` `c` ![d](file:///etc/passwd) &lt; \\ ~~e~~ **f** _g_ # h",
]
UNSEEN = "\u200b\u00ad\ufeff\U000e0041"


def rendered(text: str) -> str:
    """As HTML, by the rules of sharing sites: CommonMark with raw HTML, and tables."""
    return str(MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(text))


@pytest.fixture
def evil_run(bars_run, copied) -> RunFolder:
    """A run whose classes, name and data have such names."""
    run = copied(bars_run)
    tensors, metadata = load_tensors(run / "model.safetensors")
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["test"]["per_class"] = dict(zip(EVIL, metrics["test"]["per_class"].values(), strict=True))
    (run / "metrics.json").write_text(json.dumps(metrics))
    metadata["encoder"]["class_names"] = EVIL
    metadata["recipe"] |= {"data": f"/home/someone/secret place/``` x $(rm y){UNSEEN}"}
    save_tensors(run / "model.safetensors", tensors, metadata)
    saved = yaml.safe_load((run / "recipe.yaml").read_text())
    (run / "recipe.yaml").write_text(yaml.safe_dump({**metadata["recipe"], "ran_with": saved["ran_with"]}))
    return RunFolder(run)


def test_labels_are_text_and_nothing_else_in_a_card(evil_run):
    card = card_text(evil_run, "model.onnx")
    page = rendered(card.split("---\n", 2)[2])
    for mark in ("<script", "<a ", "<img", "<s>", "<em>", "<h1>h", "<javascript"):
        assert mark not in page, mark
    rows = re.findall(r"<tr>\n(.*?)</tr>", page, re.DOTALL)[1:]
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    assert [html.unescape(row[0]) for row in cells] == EVIL
    assert {len(row) for row in cells} == {4}
    labels = re.search(r"<p>Labels, in the order of the outputs: (.*)\.</p>", page)
    assert labels is not None
    assert html.unescape(labels[1]) == ", ".join(EVIL)
    assert page.count("<h2>") == len(re.findall("^## ", card, re.MULTILINE)) == 3


def test_weights_beside_a_card_carry_no_place_on_the_machine(evil_run, tmp_path):
    _, weights = write_card(evil_run, tmp_path / "model.onnx")
    _, metadata = load_tensors(weights)
    assert metadata["recipe"]["data"] == f"``` x $(rm y){UNSEEN}"
    assert b"secret place" not in weights.read_bytes()
    own, theirs = load(weights).model.state_dict(), load(evil_run.path).model.state_dict()
    assert all(torch.equal(own[name], theirs[name]) for name in theirs)


def test_a_card_names_no_place_on_the_machine_that_it_was_made_on(evil_run, bars_run):
    for folder in (evil_run, RunFolder(bars_run)):
        card = card_text(folder, "model.onnx")
        assert Path(folder.recipe.data).is_absolute()
        assert "/home" not in card
        assert str(Path(folder.recipe.data).parent) not in card
        assert "--data " in card
    code = re.findall(r"<pre><code class=\"language-sh\">(.*?)</code>", rendered(card_text(evil_run)), re.DOTALL)
    assert "--data '``` x $(rm y)\ufffd\ufffd\ufffd\ufffd'" in html.unescape(code[0])


@pytest.mark.parametrize(
    "character",
    [*"\t\n\r\x1b\0\x85\u2028\u202e\u2066\ud800", *"\ufeff\u00ad\u200b\u200f\u2060\U000e0001\U000e0041\U000e007f"],
    ids=ascii,
)
def test_what_cannot_be_printed_is_replaced(character):
    assert shown(f"a{character}b") == "a\ufffdb"
    assert fenced([f"a{character}b"]) == "```sh\na\ufffdb\n```"
    assert (
        shown("d\u00e9j\u00e0 \u65e5\u672c \U0001f469\u200d\U0001f680 1")
        == "d\u00e9j\u00e0 \u65e5\u672c \U0001f469\u200d\U0001f680 1"
    )


def test_a_card_holds_no_character_that_is_not_seen(evil_run):
    assert not set(UNSEEN) & set(card_text(evil_run))


def test_code_cannot_end_its_own_block():
    assert fenced(["```", "x ````"]) == "`````sh\n```\nx ````\n`````"


@pytest.mark.parametrize(
    ("pictures", "example", "said"),
    [("digits", "digit.png", "prepares picture files as MNIST's digits"), ("plain", "picture.png", "as they are")],
)
def test_a_card_says_how_picture_files_are_prepared(bars_run, copied, pictures, example, said):
    run = copied(bars_run)
    tensors, metadata = load_tensors(run / "model.safetensors")
    metadata["encoder"]["pictures"] = pictures
    save_tensors(run / "model.safetensors", tensors, metadata)
    card = card_text(RunFolder(run), "model.onnx")
    assert f'predict(["{example}"])' in card
    assert f"`predict` {said}" in card or f"`predict` takes picture files {said}" in card
    assert ("centred as MNIST's" in card) == (pictures == "digits")


def test_a_card_of_sentences_has_no_word_about_pictures(sentences_run):
    assert "picture" not in card_text(RunFolder(sentences_run))
