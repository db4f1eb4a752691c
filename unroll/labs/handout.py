"""A lab's handout with the results behind its own pages, as one PDF."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unroll.errors import InputError
from unroll.files import refuse_special

if TYPE_CHECKING:
    from pypdf import PdfReader

MOST_PAGES = 200
MOST_BYTES = 50 << 20
ACTIONS = ("/JavaScript", "/Launch", "/SubmitForm", "/ImportData", "/GoToE")
"""What a handed-in file does not do when somebody clicks into it."""


def read_handout(path: Path) -> PdfReader:
    """A handout, read through once.

    Raises:
        InputError: it is no PDF, is damaged, encrypted or empty, or has more than `MOST_PAGES` pages or `MOST_BYTES` bytes.
    """
    from pypdf import PdfReader

    try:
        refuse_special(path)
        size = path.stat().st_size
        content = path.read_bytes() if size <= MOST_BYTES else b""
    except OSError as error:
        raise InputError(f"handout {path} cannot be read: {error.strerror}") from None
    if size > MOST_BYTES:
        raise InputError(f"handout {path} has {size >> 20} MB; expected at most {MOST_BYTES >> 20}")
    if b"%PDF-" not in content[:1024]:
        raise InputError(f"handout {path} is no PDF; expected the lab's handout as a PDF file")
    with _refusals(path):
        reader = PdfReader(io.BytesIO(content))
        if reader.is_encrypted:
            raise InputError(f"handout {path} is encrypted; print it into a new PDF, and give that")
        pages = len(reader.pages)
        if pages > MOST_PAGES:
            raise InputError(f"handout {path} has {pages:,} pages; expected at most {MOST_PAGES}")
        if not pages:
            raise InputError(f"handout {path} has no pages; expected the lab's handout")
    return reader


def behind(handout: PdfReader, path: Path, results: bytes) -> bytes:
    """The PDF of a handout's pages, as they are, and then those of the results, whose metadata it carries.

    The results keep their tags and outline; the handout's own tags, actions and form logic are left out. The same two files
    give the same bytes.

    Args:
        handout: as `read_handout` gives it.
        path: what errors call it.
        results: a PDF that this package has typeset.

    Raises:
        InputError: the handout is damaged.
    """
    from pypdf import PdfReader, PdfWriter

    with _refusals(path):
        writer = PdfWriter(clone_from=PdfReader(io.BytesIO(results)))
        for number, page in enumerate(handout.pages):
            added = writer.insert_page(page, number)
            # Numbers of the handout's own tag tree, which would be looked up in that of the results.
            for name in ("/StructParents", "/AA", "/B"):
                added.pop(name, None)
            _keep_harmless(added)
        _claim_no_standard(writer)
        _sign_together(writer)
        made = io.BytesIO()
        writer.write(made)
        content = made.getvalue()
        PdfReader(io.BytesIO(content)).pages[len(handout.pages)].mediabox  # noqa: B018 - it can be read again
    return content


def _keep_harmless(page: Any) -> None:
    """Of a page's annotations leave out what runs or sends something, and what is no annotation."""
    from pypdf.generic import ArrayObject, DictionaryObject, NameObject

    found = page.get("/Annots")
    found = None if found is None else found.get_object()
    if not isinstance(found, ArrayObject):
        page.pop("/Annots", None)
        return
    kept = []
    for reference in found:
        annotation = reference.get_object()
        if not isinstance(annotation, DictionaryObject):
            continue
        action = annotation.get("/A")
        action = None if action is None else action.get_object()
        if isinstance(action, DictionaryObject) and action.get("/S") in ACTIONS:
            continue
        for name in ("/AA", "/StructParent"):
            annotation.pop(name, None)
        kept.append(reference)
    page[NameObject("/Annots")] = ArrayObject(kept)


def _claim_no_standard(writer: Any) -> None:
    """The results alone are PDF/UA; the handout may not be, so the whole does not say that it is."""
    metadata = writer.root_object.get("/Metadata")
    if metadata is not None:
        stream = metadata.get_object()
        claim = rb"<pdfuaid:(\w+)>[^<]*</pdfuaid:\1>"
        stream.set_data(re.sub(claim, b"", stream.get_data()))


def _sign_together(writer: Any) -> None:
    """Keywords and creator side by side, as Typst writes them: by both, a file is known to be ours (`unroll.files.SIGNS`)."""
    said = dict(writer.metadata or {})
    last = ("/Keywords", "/Creator")
    writer.metadata = {
        name: said[name] for name in (*(name for name in said if name not in last), *last) if name in said
    }


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Whatever pypdf raises about a file is one line, and what it remarks on the way is not shown."""
    said = logging.getLogger("pypdf")
    before = said.level
    said.setLevel(logging.CRITICAL + 1)  # for the loggers of its modules too
    try:
        yield
    except InputError:
        raise
    except (MemoryError, RecursionError):
        raise InputError(f"handout {path} is damaged: it is nested too deeply or unpacks without end") from None
    except Exception as error:  # of any kind: pypdf takes a file at its word, and trips over what does not hold
        reason = (" ".join(str(error).split()) or type(error).__name__)[:100]
        raise InputError(f"handout {path} is damaged ({reason}); print it into a new PDF, and give that") from None
    finally:
        said.setLevel(before)
