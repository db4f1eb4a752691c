"""The handout's pages before the results: as they are, deterministic, known as ours, and refused where they are no PDF."""

from __future__ import annotations

import io
import os

import pypdf
import pypdf.actions
import pytest
from pypdf.generic import ArrayObject, DecodedStreamObject, DictionaryObject, NameObject, NumberObject, TextStringObject

from unroll.errors import InputError
from unroll.files import refuse_foreign
from unroll.labs.handin import handin
from unroll.labs.handout import MOST_PAGES, behind, read_handout
from unroll.labs.spec import load_lab
from unroll.report.pdf import Document, typeset


@pytest.fixture(scope="module")
def results() -> bytes:
    """A small PDF of ours."""
    keywords = ["recurrent neural network", "LSTM", "sequence classification", f"code {'0' * 64}"]
    body = [
        {"t": "section", "title": "Findings", "label": "sec-x"},
        {"t": "p", "c": [{"t": "text", "v": "Our words."}]},
    ]
    return typeset(Document("Lab", ("Lab", "1"), [], body, author="王", keywords=keywords))


def test_the_results_stand_behind_the_handouts_pages_whose_sizes_are_kept(own_run, handout, tmp_path, read_pdf):
    pages = handout(((612, 792), (300, 200), (842, 595)))
    run = own_run()
    made = handin(run, load_lab("homework"), "1", handout=pages, out=tmp_path / "out")
    alone = handin(run, load_lab("homework"), "1", out=tmp_path / "alone")
    sizes = [tuple(map(round, page.mediabox[2:])) for page in pypdf.PdfReader(made.pdf).pages]
    assert sizes[:3] == [(612, 792), (300, 200), (842, 595)]
    assert len(sizes) == 3 + len(pypdf.PdfReader(alone.pdf).pages)
    assert read_pdf(made.pdf).strip() == read_pdf(alone.pdf).strip()
    assert pypdf.PdfReader(made.pdf).metadata.title == load_lab("homework").title


def test_the_whole_is_known_as_ours_and_the_handout_alone_is_not(handout, results, tmp_path):
    path = handout()
    (tmp_path / "whole.pdf").write_bytes(behind(read_handout(path), path, results))
    refuse_foreign(tmp_path / "whole.pdf")
    with pytest.raises(InputError, match="was not written by this package"):
        refuse_foreign(path)


def test_the_results_keep_their_tags_and_the_whole_claims_no_standard(handout, results):
    path = handout()
    whole = behind(read_handout(path), path, results)
    assert b"pdfuaid:part" in results
    assert b"pdfuaid:part" not in whole
    reader = pypdf.PdfReader(io.BytesIO(whole))
    assert reader.trailer["/Root"]["/MarkInfo"]["/Marked"]
    assert "/StructParents" in reader.pages[-1]
    assert reader.outline[0].title.endswith("Findings")


def test_scripts_and_launches_of_a_handout_are_left_out_and_links_stay(results, tmp_path):
    writer = pypdf.PdfWriter()
    page = writer.add_blank_page(200, 200)
    writer.add_open_action(pypdf.actions.JavaScript("app.alert('x')"))

    def annotation(kind: str, name: str) -> DictionaryObject:
        action = DictionaryObject({NameObject("/S"): NameObject(kind), NameObject(name): TextStringObject("http://x")})
        rectangle = ArrayObject([NumberObject(n) for n in (0, 0, 9, 9)])
        names = {"/Type": NameObject("/Annot"), "/Subtype": NameObject("/Link"), "/A": action, "/Rect": rectangle}
        return DictionaryObject({NameObject(key): value for key, value in names.items()})

    links = [annotation("/URI", "/URI"), annotation("/JavaScript", "/JS"), annotation("/Launch", "/F")]
    page[NameObject("/Annots")] = ArrayObject([writer._add_object(link) for link in links])
    page[NameObject("/AA")] = DictionaryObject()
    page[NameObject("/StructParents")] = NumberObject(0)
    writer.write(tmp_path / "lab.pdf")
    whole = behind(read_handout(tmp_path / "lab.pdf"), tmp_path / "lab.pdf", results)
    reader = pypdf.PdfReader(io.BytesIO(whole))
    first = reader.pages[0]
    assert [link.get_object()["/A"]["/S"] for link in first["/Annots"]] == ["/URI"]
    assert not {"/AA", "/StructParents"} & set(first)
    assert "/JavaScript" not in reader.trailer["/Root"].get("/Names", {})
    assert "/OpenAction" not in reader.trailer["/Root"]


def encrypted(path, password="secret"):
    writer = pypdf.PdfWriter()
    writer.add_blank_page(100, 100)
    writer.encrypt(password, algorithm="RC4-128")
    writer.write(path)


def cut(path):
    writer = pypdf.PdfWriter()
    for _ in range(20):
        page = writer.add_blank_page(100, 100)
        stream = DecodedStreamObject()
        stream.set_data(b"0 0 m " * 100)
        page[NameObject("/Contents")] = writer._add_object(stream)
    writer.write(path)
    path.write_bytes(path.read_bytes()[:3000])


def many(path):
    writer = pypdf.PdfWriter()
    for _ in range(MOST_PAGES + 1):
        writer.add_blank_page(100, 100)
    writer.write(path)


def large(path):
    path.touch()
    os.truncate(path, 60 << 20)  # takes no room on the disk


KINDS = {
    "a text": (lambda path: path.write_text("Dear all, here is the lab."), "is no PDF"),
    "an empty file": (lambda path: path.touch(), "is no PDF"),
    "a folder": (lambda path: path.mkdir(), "it is a folder"),
    "a head alone": (lambda path: path.write_text("%PDF-1.7\n"), "is damaged"),
    "noise": (lambda path: path.write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 50), "is damaged"),
    "a half": (cut, "is damaged"),
    "an encrypted one": (encrypted, "is encrypted"),
    "one for readers alone": (lambda path: encrypted(path, ""), "is encrypted"),
    "no pages": (lambda path: pypdf.PdfWriter().write(path), "has no pages"),
    "very many pages": (many, f"has {MOST_PAGES + 1} pages; expected at most {MOST_PAGES}"),
    "a very large file": (large, "has 60 MB"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_handout_that_is_none_is_one_line_and_nothing_is_written(own_run, unroll, tmp_path, kind):
    make, said = KINDS[kind]
    make(tmp_path / "lab.pdf")
    words = ["--lab", "homework", "--student-id", "1", "--handout", tmp_path / "lab.pdf", "--out", tmp_path / "out"]
    status, out, err = unroll("lab", "handin", own_run(), *words)
    assert (status, out, err.count("\n")) == (2, "", 1), err
    assert said in err
    assert not (tmp_path / "out").exists()
