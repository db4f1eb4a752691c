"""The text of a handed-in PDF. It runs in the child, as whoever made the file may have made it to trip its reader."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

from unroll.labs.child.execute import TimeUp, time_limit

MOST_BYTES = 50 << 20
MOST_PAGES = 200
MOST_CHARACTERS = 200_000
SECONDS = 20.0


def read_pdf(task: dict[str, Any]) -> dict[str, Any]:
    """The text of a PDF's pages.

    Args:
        task: ``file``.

    Returns:
        ``pages``, their number, or None where it is not known; ``text``, the pages joined by form feeds, at most
        `MOST_CHARACTERS` of the first `MOST_PAGES`; ``reason``, why there is no text, or None; ``note``, why there is not all
        of it, or None. Reasons and notes are sentences about "the PDF".
    """
    found: dict[str, Any] = {"pages": None, "text": "", "reason": None, "note": None}
    path = Path(task["file"])
    if not path.is_file():
        return {**found, "reason": "The PDF is no file."}
    if path.stat().st_size > MOST_BYTES:
        return {**found, "reason": f"The PDF has more than {MOST_BYTES >> 20} MB."}
    content = path.read_bytes()
    if b"%PDF-" not in content[:1024]:
        return {**found, "reason": "The PDF is none: it has another form inside."}
    logging.getLogger("pypdf").setLevel(logging.CRITICAL + 1)
    texts: list[str] = []
    try:
        with time_limit(SECONDS):
            _read(content, found, texts)
    except TimeUp:
        found["note"] = f"The PDF could not be read to its end within {SECONDS:g} seconds."
    except (MemoryError, RecursionError):
        found["note"] = "The PDF is nested too deeply, or unpacks without end."
    except Exception as error:  # of any kind: pypdf takes a file at its word
        found["note"] = f"The PDF is damaged ({' '.join(str(error).split())[:100] or type(error).__name__})."
    found["text"] = "\f".join(texts)
    if found["reason"] is None and not found["text"].strip():
        found["reason"] = found["note"] or "The PDF has no text: it may hold scanned or photographed pages."
        found["note"] = None
    return found


def _read(content: bytes, found: dict[str, Any], texts: list[str]) -> None:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError

    reader = PdfReader(io.BytesIO(content))
    if reader.is_encrypted:
        try:
            opened = int(reader.decrypt(""))  # many forbid changes alone, and open without a password
        except (DependencyError, NotImplementedError):
            opened = 0
        if not opened:
            found["reason"] = "The PDF is encrypted."
            return
    found["pages"] = len(reader.pages)
    left = MOST_CHARACTERS
    damaged = 0
    for number in range(min(found["pages"], MOST_PAGES)):
        try:
            text = reader.pages[number].extract_text()
        except (MemoryError, RecursionError):
            raise
        except Exception:  # one damaged page does not lose the others
            damaged += 1
            continue
        texts.append(text[:left])
        left -= len(texts[-1])
        if len(text) > len(texts[-1]):
            found["note"] = f"Only the first {MOST_CHARACTERS:,} characters of the PDF were read."
            return
    if damaged:
        found["note"] = f"{damaged} of the PDF's pages are damaged and could not be read."
    elif found["pages"] > MOST_PAGES:
        found["note"] = f"Only the first {MOST_PAGES} pages of the PDF were read."
