"""The written answers of a PDF: found by question in whatever form, and never given to the wrong one in silence."""

from __future__ import annotations

import io
from pathlib import Path

import pypdf
import pytest
from pypdf.generic import DecodedStreamObject, NameObject

from unroll.labs.child.read_pdf import MOST_CHARACTERS, MOST_PAGES, read_pdf
from unroll.labs.grade.written import MOST_ANSWER, Answers, split_answers, written
from unroll.labs.process import Limits, run_child
from unroll.labs.spec import load_lab

LAB = load_lab("homework")
ASKED = {number: item.text or "" for number, item in LAB.questions.items()}
PARTED = {5: "the gates", 6: "the rate", 7: "the LSTM"}
HANDOUT = "".join(f"{n}. (5 points) {text}\n" for n, text in ASKED.items()) + "Hand in by Friday.\n"
UNTOLD = "The answers could not be told apart; this is the whole text of the PDF."


def split(text: str) -> Answers:
    return split_answers(text, LAB)


def with_heads(*heads: str) -> str:
    return "\n".join(f"{head} {answer}" for head, answer in zip(heads, PARTED.values(), strict=True))


@pytest.mark.parametrize(
    "heads",
    [
        ("Question 5\n", "Question 6\n", "Question 7\n"),
        ("Q5:", "Q6.", "Q7)"),
        ("## Question 5 (5 points)\n", "## Question 6 (5 points)\n", "## Question 7 (5 points)\nAnswer:"),
        ("A5:", "Ans. 6:", "Answer to question 7:"),
        ("第5題", "第6題：", "第7題"),
    ],
)
def test_split_by_headings_with_the_labs_numbers(heads):
    assert split("My report\n" + with_heads(*heads)) == Answers(PARTED, {})


@pytest.mark.parametrize("heads", [("5.", "6.", "7."), ("(5)", "(6)", "(7)"), ("5)", "6)", "7)"), ("5:", "6:", "7:")])
def test_split_by_numbers_of_lines_says_so_where_other_lines_have_numbers_too(heads):
    assert split(with_heads(*heads)) == Answers(PARTED, {})
    answers = split("2) My training\n" + with_heads(*heads))
    assert answers.found == PARTED
    assert all("number of its line" in answers.notes[number] for number in PARTED)


@pytest.mark.parametrize("heads", [("Question 1", "Question 2", "Question 3"), ("1.", "2.", "3.")])
def test_split_takes_numbers_from_one_on_for_the_questions_and_says_so(heads):
    answers = split(with_heads(*heads))
    assert answers.found == PARTED
    assert all("counting the questions alone" in answers.notes[number] for number in PARTED)


def test_split_needs_no_note_where_the_sentence_shows_what_a_number_means():
    text = "".join(f"Question {k}\n{ASKED[n]}\n{PARTED[n]}\n" for k, n in enumerate(ASKED, start=1))
    assert split(text) == Answers(PARTED, {})


def test_split_in_any_order():
    assert split("Q7 the LSTM\nQ5 the gates\nQ6 the rate") == Answers(PARTED, {})


def test_split_by_the_sentences_however_the_pdf_breaks_them():
    text = (
        "5. (5 points) Explain briefly the role of the for-\nget gate, input gate, output gate,\nand "
        "candidate cell in an LSTM .\nthe gates\n6. Describe what hyperparameters you\ntuned and how they "
        "affected your model’s ﬁnal accuracy.\nAnswer: the rate\n7. Between a simple RNN and an LSTM, which "
        "one is better for sequence learning\ntasks? Explain!\nthe LSTM"
    )
    assert split(text) == Answers(PARTED, {})


def test_split_finds_a_question_with_a_formula():
    lab = load_lab("inclass")
    asked = "What does the hidden state 𝑠𝑡 represent at each time step when processing a sequence of words?"
    text = f"5. {asked}\nmemory\n6. Why are RNNs hard to train?\nthey vanish"
    assert split_answers(text, lab) == Answers({5: "memory", 6: "they vanish"}, {})


def test_split_keeps_lists_within_answers():
    text = "Question 5\ntwo:\n1. one\n2. two\n6. six\nQuestion 6\nthe rate\nQuestion 7\n5. why"
    assert split(text) == Answers({5: "two:\n1. one\n2. two\n6. six", 6: "the rate", 7: "5. why"}, {})


def test_split_numbers_of_all_items():
    text = "".join(f"Question {n}\n{PARTED.get(n, 'see the code')}\n" for n in range(1, 8))
    assert split(text) == Answers(PARTED, {})


@pytest.mark.parametrize("heads", [("Q5", "Q6", "Q7"), ("5.", "6.", "7."), ("Question 1", "Question 2", "Question 3")])
def test_split_passes_over_the_handouts_list_of_questions(heads):
    assert split(HANDOUT + "My report\n" + with_heads(*heads)).found == PARTED


@pytest.mark.parametrize("behind", ["", "I think that gates are good.", with_heads("1.", "2.", "3.")])
def test_split_gives_what_follows_a_bare_list_to_all(behind):
    answers = split(HANDOUT + behind)
    assert set(answers.found.values()) == {f"Hand in by Friday.\n{behind}".strip()}
    assert all("Only the list" in answers.notes[number] for number in ASKED)


@pytest.mark.parametrize(
    "text",
    [
        "The gates are good, and I tuned the rate.",
        "I think:\n1. gates\n2. rate\n3. LSTM\n4. more",
        "2. rate\n1. gates\n3. LSTM",
        "Question 12: a\nQuestion 13: b",
        "5. a\n5. b\n6. c",
        "Q5\n" * 1000,
    ],
)
def test_split_gives_the_whole_text_to_all_where_it_cannot_tell(text):
    assert split(text) == Answers(dict.fromkeys(ASKED, text.strip()), dict.fromkeys(ASKED, UNTOLD))


def test_split_says_what_it_has_not_found_and_what_is_empty():
    answers = split("Question 5\nthe gates\nQuestion 7\n\nthe LSTM")
    assert answers.found == {5: "the gates", 7: "the LSTM"}
    assert "not found" in answers.notes[6]
    answers = split("Question 5\nthe gates\nQuestion 6\n\nQuestion 7\nthe LSTM")
    assert answers.found == {5: "the gates", 6: "", 7: "the LSTM"}
    assert "picture" in answers.notes[6]
    assert 5 not in answers.notes


def test_split_shows_all_of_a_question_that_stands_twice():
    answers = split("Q5 the gates\nQ6 the rate\nQ7 the LSTM\nQ5 more")
    assert answers.found[5] == "the gates\n\n[…]\n\nmore"
    assert list(answers.notes) == [5]
    assert "more than once" in answers.notes[5]


def test_split_does_not_take_a_sentence_within_prose_for_the_question():
    text = f"Q5 the gates\nQ6 the rate. My teacher said once: {ASKED[5]} I liked it\nQ7 the LSTM"
    assert split(text).notes == {}


def test_split_ends_an_answer_where_code_begins_and_says_so():
    answers = split(with_heads("Q5", "Q6", "Q7") + "\nimport torch\nx = 1")
    assert answers.found == PARTED
    assert "import torch" in answers.notes[7]


def test_split_cuts_an_endless_answer():
    found = split(with_heads("Q5", "Q6", "Q7") + "x" * 100_000).found[7]
    assert len(found) < MOST_ANSWER + 100
    assert found.endswith("see the PDF]")


# --- the PDF --------------------------------------------------------------------------------------------------------------


def made(*pages: str, **changes: str) -> bytes:
    """A PDF with a line of text a page."""
    writer = pypdf.PdfWriter()
    font = {NameObject("/Type"): NameObject("/Font"), NameObject("/Subtype"): NameObject("/Type1")}
    font[NameObject("/BaseFont")] = NameObject("/Helvetica")
    for text in pages:
        page = writer.add_blank_page(600, 800)
        stream = DecodedStreamObject()
        stream.set_data(b"".join(b"BT /F1 12 Tf 50 700 Td (%s) Tj ET\n" % text.encode() for text in [text] if text))
        page[NameObject("/Contents")] = writer._add_object(stream)
        fonts = pypdf.generic.DictionaryObject({NameObject("/F1"): pypdf.generic.DictionaryObject(font)})
        page[NameObject("/Resources")] = pypdf.generic.DictionaryObject({NameObject("/Font"): fonts})
    if changes:
        writer.encrypt(**changes, algorithm="RC4-128")
    room = io.BytesIO()
    writer.write(room)
    return room.getvalue()


@pytest.fixture
def given(tmp_path: Path):
    def read(content: bytes) -> dict:
        path = tmp_path / "given.pdf"
        path.write_bytes(content)
        return read_pdf({"file": str(path)})

    return read


def test_read_pdf(given):
    assert given(made("Question 5", "gates")) == {"pages": 2, "text": "Question 5\fgates", "reason": None, "note": None}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello", "The PDF is none"),
        (b"", "The PDF is none"),
        (b"%PDF-1.7\nhello", "damaged"),
        (made("gates")[:200], "damaged"),
        (made("", ""), "has no text"),
        (made("gates", user_password="secret"), "is encrypted"),
    ],
)
def test_read_pdf_gives_a_reason(given, content, reason):
    found = given(content)
    assert reason in found["reason"]
    assert not found["text"].strip()


def test_read_pdf_reads_what_only_forbids_changes(given):
    assert given(made("gates", user_password="", owner_password="secret"))["text"] == "gates"


def test_read_pdf_is_bounded(given):
    found = given(made(*["gates"] * (MOST_PAGES + 3)))
    assert (found["pages"], found["text"].count("gates")) == (MOST_PAGES + 3, MOST_PAGES)
    assert f"first {MOST_PAGES} pages" in found["note"]
    found = given(made(*["g" * 50_000] * 5))
    assert len(found["text"].replace("\f", "")) == MOST_CHARACTERS
    assert "characters" in found["note"]


def test_read_pdf_in_the_child(tmp_path):
    path = tmp_path / "given.pdf"
    path.write_bytes(made("Question 5 gates"))
    found = written(run_child({"name": "pdf", "file": str(path)}, Limits(seconds=60, memory=2 << 30)), LAB)
    assert (found.pages, found.reason, found.answers.found) == (1, None, {5: "gates"})


@pytest.mark.parametrize(
    "observed",
    [
        {"child": {"reason": "time", "message": "it was stopped after 60 seconds", "printed": ""}},
        {"pages": 1, "text": "", "reason": "The PDF has no text."},
        {"pages": "many", "text": ["a"]},
    ],
)
def test_written_names_the_reason_with_every_question(observed):
    found = written(observed, LAB)
    assert found.reason is not None
    assert found.answers == Answers({}, dict.fromkeys(ASKED, found.reason))


def test_written_tells_of_what_was_left_out():
    found = written({"pages": 9, "text": with_heads("Q5", "Q6", "Q7"), "note": "One page is damaged."}, LAB)
    assert found.answers.found == PARTED
    assert set(found.answers.notes.values()) == {"One page is damaged."}


@pytest.mark.parametrize("with_handout", [False, True])
def test_written_reads_our_own_hand_in(own_run, unroll, tmp_path, with_handout):
    answers = (
        "## 5\n\nThey decide.\n\n- first\n- second\n\n1. one\n\n## 6\n\n"
        + "The rate again. " * 400
        + "\n\n## 7\n\nThe *LSTM*.\n"
    )
    (tmp_path / "answers.md").write_text(answers)
    options = [
        "--lab",
        "homework",
        "--student-id",
        "313",
        "--answers",
        tmp_path / "answers.md",
        "--out",
        tmp_path / "out",
    ]
    if with_handout:
        (tmp_path / "lab.pdf").write_bytes(made("Lab 7", *(f"{n}. {text}" for n, text in ASKED.items()), "By Friday"))
        options += ["--handout", tmp_path / "lab.pdf"]
    assert unroll("lab", "handin", own_run(), *options)[0] == 0
    found = written(read_pdf({"file": str(tmp_path / "out" / "313_Lab7_Homework.pdf")}), LAB)
    assert found.answers.notes == {}
    parts = {number: " ".join(text.split()) for number, text in found.answers.found.items()}
    assert parts[5] == "They decide. • first • second 1. one"
    assert parts[6] == ("The rate again. " * 400).strip()  # over pages, without their numbers and titles
    assert parts[7] == "The LSTM."
