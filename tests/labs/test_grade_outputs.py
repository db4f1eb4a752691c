"""What a graded class is told: feedback, tables, pages; and the points of a person that come back."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pypdf
import pytest

from unroll.errors import InputError
from unroll.files import SIGNS
from unroll.labs.grade.collect import PERSON, apply_points, read_points
from unroll.labs.grade.copies import Alike
from unroll.labs.grade.feedback import feedback_md, feedback_pdf
from unroll.labs.grade.pages import summary_html
from unroll.labs.grade.record import Graded, Reason, Record, Seen, Trained
from unroll.labs.grade.review import review_html
from unroll.labs.grade.tables import grades_csv, results_json
from unroll.labs.spec import load_lab
from unroll.report.markdown import parse_markdown, plain

LAB = load_lab("homework")
WITNESS = Seen(given="cell = Cell(2, 2)\nh, c = cell(x, h, c)", expected="c_t = [[0.73]]", got="c_t = [[1.23]]")
SHARED = Reason(points=6, code="shared-weights", message="o has the weights of f", place="line 42", witness=WITNESS)
HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)"> **b** [x](javascript:1) `c` #let y=1 $z$ \u202e\x1b[31m "q\' http://a.b'


def record(student: str = "313", **changes: object) -> Record:
    """Item 1 lost points, 2 to 4 are whole, 5 to 7 wait for a person."""
    items = {
        number: Graded(number=number, title=item.title, points=item.points) for number, item in enumerate(LAB.items, 1)
    }
    items = {n: item.model_copy(update={} if n > 4 else {"awarded": item.points}) for n, item in items.items()}
    items[1] = items[1].model_copy(update={"awarded": 24.0, "deductions": [SHARED]})
    items[5] = items[5].model_copy(update={"text": "The gates decide."})
    fields = {
        "student": student,
        "lab": "homework",
        "key": "k",
        "code": "a.py",
        "pdf": "a.pdf",
        "items": list(items.values()),
    }
    return Record.model_validate({**fields, **changes})


def with_item(of: Record, number: int, **changes: object) -> Record:
    items = [item.model_copy(update=changes) if item.number == number else item for item in of.items]
    return of.model_copy(update={"items": items})


def hostile() -> Record:
    bad = Reason(
        points=1,
        code=HOSTILE,
        message=HOSTILE,
        place=HOSTILE,
        witness=Seen(given=HOSTILE, expected=HOSTILE, got=HOSTILE),
    )
    one = record("evil", code=HOSTILE, pdf=HOSTILE, notes=[HOSTILE], review=[HOSTILE], stopped=HOSTILE, log=HOSTILE)
    one = one.model_copy(update={"formulas": {"yours": [HOSTILE], "lab": ["c_t"]}})
    one = with_item(one, 1, deductions=[bad], remarks=[bad], review=[HOSTILE], title=HOSTILE)
    return with_item(one, 5, text=HOSTILE, review=[HOSTILE])


def text_of(content: bytes) -> str:
    pages = pypdf.PdfReader(io.BytesIO(content)).pages
    return re.sub(r"\s+", " ", "\n".join(page.extract_text() for page in pages))


# --- feedback -------------------------------------------------------------------------------------------------------------

WHOLE = record(
    notes=["Its name was repaired."],
    stopped="it was stopped after 60 seconds",
    formulas={"yours": ["o_t = mine"], "lab": ["o_t = labs"]},
    trained=Trained(seconds=61.2, losses=(2.31, 0.12), printed=98.5, accuracy=97.04, by="engine"),
    log="\n".join(f"step {n}." for n in range(100)),
    figures=["01.png"],
)
SAID = [
    "Student 313",
    "Points so far: 49 of 70.",
    "items 5, 6 and 7 (15 points)",
    "it was stopped after 60 seconds",
    "24 of 30",
    "−6 points, line 42:",
    "o has the weights of f",
    "cell = Cell(2, 2)",
    "expected c_t = [[0.73]]",
    "got c_t = [[1.23]]",
    "Nothing here costs points.",
    "printed a test accuracy of 98.50%",
    "97.04%; this number counts",
    "o_t = mine",
    "o_t = labs",
    "last 40 of 100 lines",
    "step 99.",
    "Its name was repaired.",
    "unroll lab check a.py",
]


def test_feedback_says_everything_once_in_both_forms(picture):
    told = {"md": feedback_md(WHOLE, LAB), "pdf": text_of(feedback_pdf(WHOLE, LAB, {"01.png": picture}))}
    for form, text in told.items():
        flat = re.sub(r"\s+", " ", text).replace("\\", "").replace("*", "")
        assert [part for part in SAID if part not in flat] == [], form
        assert "step 59." not in flat
    assert "![Figure 1 of your file](figures/01.png)" in told["md"]


def test_feedback_of_a_whole_record_names_nothing_open():
    done = record(items=[item.model_copy(update={"awarded": item.points, "deductions": []}) for item in record().items])
    assert "**Points: 70 of 70.**" in feedback_md(done, LAB)
    assert "person" not in feedback_md(done, LAB)


def test_feedback_pdf_holds_the_pictures_and_is_the_same_every_time(picture):
    first = feedback_pdf(WHOLE, LAB, {"01.png": picture, "other.png": picture})
    assert feedback_pdf(WHOLE, LAB, {"01.png": picture}) == first
    assert sum(len(page.images) for page in pypdf.PdfReader(io.BytesIO(first)).pages) == 1
    assert re.search(SIGNS[".pdf"], first, re.DOTALL)  # so that it may be written again


def test_feedback_pdf_does_without_a_picture_that_is_none():
    assert "o has the weights of f" in text_of(feedback_pdf(WHOLE, LAB, {"01.png": b"none"}))


def test_feedback_pdf_sets_hostile_text_as_text():
    text = text_of(feedback_pdf(hostile(), LAB))
    assert "<script>alert(1)</script>" in text
    assert "#let y=1 $z$" in text


def test_feedback_md_renders_hostile_text_as_text():
    blocks = parse_markdown(feedback_md(hostile(), LAB))
    kinds = {node["t"] for block in blocks for node in walk(block)}
    assert not kinds & {"link", "picture", "code", "math", "emph"}
    told = "".join(plain(block.get("c", [])) for block in blocks)
    assert "**b** [x](javascript:1) `c` #let y=1 $z$" in told
    assert "\u202e" not in told
    assert "\x1b" not in told


@pytest.mark.parametrize("text", ["# head", "1. one", "- a", "+ a", "===", "> q", "    code", "```\nx", "| a |"])
def test_feedback_md_takes_no_beginning_of_a_line_for_markup(text):
    (block,) = [b for b in parse_markdown(feedback_md(record(notes=[text]), LAB)) if b["t"] == "ul"]
    assert block["items"] == [[{"t": "p", "c": [{"t": "text", "v": " ".join(text.split())}]}]]


def walk(node: object):
    if isinstance(node, dict):
        if "t" in node:
            yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


@pytest.fixture
def picture() -> bytes:
    from PIL import Image

    room = io.BytesIO()
    Image.linear_gradient("L").save(room, "png")
    return room.getvalue()


# --- tables ---------------------------------------------------------------------------------------------------------------


def rows(text: str) -> list[dict[str, str]]:
    assert text.startswith("\ufeff")
    return list(csv.DictReader(io.StringIO(text[1:])))


def test_grades_csv_has_a_row_a_student_by_id():
    two = record("b", review=["looks odd"], notes=["n 1", "n 2"])
    two = with_item(two, 2, awarded=None, review=["why"])
    first, second = rows(grades_csv([two, record("a")], LAB))
    assert first == {
        "student": "a", "1. Manual LSTM cell (30)": "24", "2. Training and hyperparameter tuning (15)": "15",
        "3. Testing loop (5)": "5", "4. Visualization of ten predictions (5)": "5", "5. Gates (5)": "",
        "6. Hyperparameters (5)": "",
        "7. Simple RNN or LSTM (5)": "", "total": "49", "open": "5 6 7", "needs_review": "", "notes": "",
    }  # fmt: skip
    assert (second["student"], second["total"], second["open"]) == ("b", "34", "2 5 6 7")
    assert (second["needs_review"], second["notes"]) == ("looks odd | item 2: why", "n 1 | n 2")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r\n=1", " =1", "＝1", "a;=1", "a\n=1"])
def test_grades_csv_holds_no_formula(text):
    whole = grades_csv([record(notes=[text])], LAB)
    assert whole.count("\r\n") == 2
    for delimiter in ",;\t":
        for row in csv.reader(io.StringIO(whole[1:]), delimiter=delimiter):
            assert not [found for found in row if found.lstrip().startswith(tuple("=+-@＝"))]


def test_results_json_has_scores_where_there_are_points():
    whole = json.loads(results_json(record(notes=["n"]), LAB))
    assert whole["score"] == 49
    assert "n" in whole["output"].split("\n")
    assert {whole[name] for name in ("output_format", "test_output_format", "test_name_format")} == {"text"}
    cell, *_, last = whole["tests"]
    assert {name: cell[name] for name in ("score", "max_score", "number", "name", "status", "visibility")} == {
        "score": 24, "max_score": 30, "number": "1", "name": "Manual LSTM cell", "status": "failed", "visibility": "visible",
    }  # fmt: skip
    for part in ("−6 points, line 42", "cell = Cell(2, 2)", "expected c_t", "got      c_t"):
        assert part in cell["output"]
    assert set(last) == {"number", "name", "output", "visibility"}  # a score of 0 would be shown to the student


# --- pages ----------------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """A page's tags with their attributes, and its text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.scripts: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.lasttag == "script":
            self.scripts.append(data)
        elif self.lasttag != "style":
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


ALIKE = Alike(("a", "b"), "same program", ("0.0731 in line 12", HOSTILE))


def both() -> dict[str, str]:
    class_ = [record("a"), hostile()]
    return {"summary": summary_html(class_, LAB, [ALIKE]), "review": review_html(class_, LAB, "c1")}


@pytest.mark.parametrize("name", ["summary", "review"])
def test_pages_run_their_own_script_alone_and_load_nothing(name):
    content = both()[name]
    page = Page(content)
    assert len(page.all("script")) == (name == "review")
    assert {tag for tag, _ in page.tags} & {"img", "iframe", "object", "embed", "link", "base", "form"} == set()
    assert not [a for _, attributes in page.tags for a in attributes if a.startswith("on") or a in ("src", "style")]
    assert not [a for a in page.all("a") if re.match(r"\w+:|//", a["href"] or "")]
    (policy,) = [m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    hashed = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in page.scripts if s.strip()]
    allowed = re.search(r"script-src ([^;]*)", policy or "")
    assert allowed is not None
    assert allowed[1] == (f"'sha256-{hashed[0]}'" if hashed else "'none'")
    assert "default-src 'none'" in (policy or "")
    assert "<script>alert(1)</script>" in page.text
    assert "\u202e" not in content


def test_summary_names_all_that_a_teacher_looks_for():
    class_ = [
        record("a"),
        record("b", stopped="endless loop"),
        record("c", pdf=None, code=None, review=["there is no code", "there is no PDF"]),
        record("d", review=["it forked"]),
        with_item(record("e"), 1, deductions=[], awarded=30.0),
    ]
    page = Page(summary_html(class_, LAB, [ALIKE]))
    for part in (
        "b: endless loop",
        "c: there is no code; there is no PDF",
        "d: it forked",
        "a, b: same program",
        "0.0731 in",
    ):
        assert part in page.text
    assert "4shared-weightsa gate has the weights of anothera, b, c, d" in page.text
    (drawn,) = page.all("svg")
    assert (drawn["aria-label"] or "").endswith("45–50 points: 4, 55–60 points: 1")
    assert len(page.all("rect")) == 14
    assert "Simple RNN or LSTM" in page.text


@pytest.mark.parametrize("class_", [[], [record("a", items=[])]])
def test_summary_of_next_to_nothing(class_):
    assert "None." in summary_html(class_, LAB)


def test_review_has_labelled_boxes_for_what_a_person_decides():
    odd = with_item(record("b"), 3, awarded=None, review=["could not be read"])
    page = Page(review_html([odd, record("a"), record("c", review=["it forked"])], LAB, "c1"))
    cards = [(a["data-student"], a["data-item"], a["data-left"]) for a in page.all("article")]
    questions = [(student, str(number), "1") for number in (5, 6, 7) for student in "abc"]
    others = [("b", "3", "1"), ("c", "all", "1"), *(("c", str(number), "0") for number in (1, 2, 3, 4))]
    assert cards == questions + others
    boxes = [a for a in page.all("input") if a["type"] == "number"]
    assert {(a["min"], a["step"]) for a in boxes} == {("0", "0.5")}
    assert [a["max"] for a in boxes[:9]] == ["5"] * 9
    assert len({a["id"] for a in boxes}) == len(boxes) == 14
    named = {a["for"] for a in page.all("label")}
    assert {a["id"] for a in page.all("input") + page.all("textarea")} == named
    assert "The gates decide." in page.text
    assert "could not be read" in page.text
    assert {a["href"] for a in page.all("a")} >= {"handed.in/a/a.pdf", "handed.in/b/a.py"}
    (main,) = page.all("main")
    assert (main["data-lab"], main["data-kept"]) == ("homework", "homework:c1")


def test_review_shows_what_was_given_before_and_tells_when_the_answer_has_changed():
    given = apply_points([record("a")], read({"a": {"5": {"points": 4.5, "comment": 'a "kind" word'}}}, ["a"]))
    first, again = Page(review_html([record("a")], LAB, "c")), Page(review_html(given, LAB, "c"))
    assert "value" not in first.all("input")[0]
    assert again.all("input")[0]["value"] == "4.5"
    assert 'a "kind" word' in again.text
    other = Page(review_html([with_item(record("a"), 5, text="Another answer.")], LAB, "c"))
    assert (
        first.all("article")[0]["data-of"] == again.all("article")[0]["data-of"] != other.all("article")[0]["data-of"]
    )


# --- points that come back ------------------------------------------------------------------------------------------------


def read(points: object, students: list[str], **changes: object):
    path = Path("points.json")
    path.write_text(json.dumps({"lab": "homework", "points": points, **changes}))
    return read_points(path, LAB, [record(student) for student in students])


@pytest.fixture(autouse=True)
def _desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_points_settle_an_item():
    before = with_item(record("a"), 3, awarded=None, review=["could not be read"])
    points = read({"a": {"3": {"points": 5, "comment": "fine"}, "5": {"points": 4.5, "comment": "nearly"}}}, ["a"])
    (after,) = apply_points([before], points)
    assert (after.awarded, after.needs_review) == (before.awarded + 9.5, [])
    assert after.items[2].deductions == []
    assert [(r.points, r.message) for r in after.items[2].remarks] == [(0, "fine")]
    assert [(r.points, r.code, r.message) for r in after.items[4].deductions] == [(0.5, PERSON, "nearly")]
    assert "nearly" in feedback_md(after, LAB)
    assert before.items[2].awarded is None


@pytest.mark.parametrize(
    ("points", "deductions", "remarks"),
    [(24, [6], []), (30, [], [0]), (27, [3], [0]), (20, [6, 4], []), (0, [6, 24], [])],
)
def test_points_keep_what_the_check_found_and_add_up(points, deductions, remarks):
    given = read({"a": {"1": {"points": points}}}, ["a"])
    once = apply_points([record("a")], given)
    assert apply_points(once, given) == once
    item = once[0].items[0]
    assert [reason.points for reason in item.deductions] == deductions
    assert [reason.points for reason in item.remarks] == remarks
    assert sum(deductions) == 30 - points == 30 - (item.awarded or 0)
    assert SHARED.message in [reason.message for reason in item.deductions + item.remarks]


def test_points_given_again_take_the_place_of_the_first():
    first = apply_points(
        [record("a")], read({"a": {"1": {"points": 20, "comment": "no"}, "2": {"points": 15, "comment": "x"}}}, ["a"])
    )
    again = {"1": {"points": 22, "comment": "rather"}, "2": {"points": 15, "comment": "y"}}
    (after,) = apply_points(first, read({"a": again}, ["a"]))
    assert [(reason.points, reason.message) for reason in after.items[0].deductions] == [
        (6, SHARED.message),
        (2, "rather"),
    ]
    assert [reason.message for reason in after.items[1].remarks] == ["y"]


def test_a_comment_alone_changes_no_points():
    (after,) = apply_points([record("a")], read({"a": {"1": {"comment": "see me"}, "6": {}}}, ["a"]))
    assert after.awarded == 49
    assert after.items[0].deductions == [SHARED]
    assert [reason.message for reason in after.items[0].remarks] == ["see me"]
    assert after.items[5] == record("a").items[5]


def test_what_was_looked_at_as_a_whole_is_settled():
    odd = [record(name, review=["it forked"]) for name in "ab"]
    a, b = apply_points(odd, read({}, ["a", "b"], seen=["a"]))
    assert (a.review, b.review) == ([], ["it forked"])


@pytest.mark.parametrize(
    ("points", "changes", "said"),
    [
        ({"x": {"5": {"points": 1}}}, {}, "no student 'x'"),
        ({}, {"seen": ["x"]}, "no student 'x'"),
        ({"a": {"9": {"points": 1}}}, {}, "student a, item 9: the lab has no such item"),
        ({"a": {"5": {"points": 5.5}}}, {}, "student a, item 5: 5.5 points; expected 0 to 5"),
        ({"a": {"5": {"points": -1}}}, {}, "points.a.5.points"),
        ({"a": {"5": {"points": "4"}}}, {}, "points.a.5.points"),
        ({"a": {"5": {"points": True}}}, {}, "points.a.5.points"),
        ({"a": {"5": {"points": float("nan")}}}, {}, "points.a.5.points"),
        ({"a": {"five": {"points": 1}}}, {}, "points.a.five"),
        ({"a": {"5": 4}}, {}, "points.a.5"),
        ({"a": {"5": {"point": 4}}}, {}, "points.a.5.point"),
        ([], {}, "'points'"),
        ({}, {"lab": "inclass"}, "for the lab 'inclass'"),
        ({}, {"more": 1}, "more"),
    ],
)
def test_points_that_do_not_fit_are_one_line(points, changes, said):
    with pytest.raises(InputError, match=re.escape(said)) as error:
        read(points, ["a"], **changes)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("points file points.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"null"])
def test_points_file_that_is_none(content):
    Path("p.json").write_bytes(content)
    with pytest.raises(InputError, match=r"points file p\.json"):
        read_points(Path("p.json"), LAB, [])
    with pytest.raises(InputError, match="cannot be read"):
        read_points(Path("missing.json"), LAB, [])
