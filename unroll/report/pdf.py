"""A document as data -> PDF, with Typst; offline, tagged for screen readers (PDF/UA-1), the same bytes every time.

The template is `typst/report.typ`. It reads the document as JSON and evaluates nothing of it. Only fonts that the
compiler brings along are used, unless the text needs characters that none of them has (Chinese names, say): then the
machine's own fonts help out.
"""

from __future__ import annotations

import datetime
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from unroll.errors import InputError, check_digits, quoted
from unroll.files import refuse_foreign, write_together
from unroll.report.markdown import settable
from unroll.terminal import CONTROL

TEMPLATE = Path(__file__).parent / "typst"
LONGEST_TITLE = 300
MOST_ATTEMPTS = 20  # at a text for which fonts lack characters: the compiler may not name all of them at once
VERBATIM = ("author", "description", "keywords", "fonts")  # metadata, and names of fonts: no font sets them
FONTS = ["New Computer Modern", "Libertinus Serif", "DejaVu Sans Mono"]


@dataclass
class Document:
    """What the template sets.

    Attributes:
        title: at the top, and in the PDF's metadata.
        byline: lines of inline nodes under the title; the author among them.
        running: what pages from the second on carry at the top, left and right.
        summary, body: blocks, in the form that `unroll.report.markdown` describes and the template reads.
        author: for the PDF's metadata.
        when: the document's date; also its timestamp, so that equal documents are equal files.
        files: pictures, by the name that blocks use.
        replaced: characters of title, byline or text that no font on this machine has; `typeset` finds them, and puts � in
            their place. See `replaced_line`.
    """

    title: str
    running: tuple[str, str]
    summary: list[dict[str, Any]]
    body: list[dict[str, Any]]
    byline: list[list[dict[str, Any]]] = field(default_factory=list)
    author: str | None = None
    description: str = ""
    keywords: list[str] = field(default_factory=list)
    when: datetime.datetime | None = None
    files: dict[str, Path] = field(default_factory=dict)
    replaced: set[str] = field(default_factory=set)

    def to_json(self) -> str:
        said = {name: value for name, value in vars(self).items() if name not in ("when", "files", "replaced")}
        date = None if self.when is None else [self.when.year, self.when.month, self.when.day]
        return json.dumps(_settable({**said, "date": date, "fonts": FONTS}), ensure_ascii=False)


def write_pdf(document: Document, path: Path) -> Path:
    """Set the document and write it to `path`, whole or not at all.

    Raises:
        InputError: the folder cannot be written, or see `typeset`.
    """
    write_whole(path, typeset(document))
    return path


def write_whole(path: Path, content: bytes | str, beside: Mapping[Path, bytes] = MappingProxyType({})) -> None:
    """`write_atomically` into a folder that is made if need be; one line where that is not possible.

    Args:
        beside: further files of the folder, of which the caller knows that what stands there may go: all are written, or none.

    Raises:
        InputError: the folder cannot be made or written, or a file of someone else's stands there.
    """
    refuse_foreign(path)
    made = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_together({**beside, path: content})
    except OSError as error:
        if made:
            with suppress(OSError):
                path.parent.rmdir()
        raise InputError(f"{path} cannot be written: {error.strerror}; choose another folder") from None


def check_epoch() -> None:
    """Raise InputError where the date that the environment gives to makers of files is none, though no file of ours needs it."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    try:
        check_digits(given or "", "SOURCE_DATE_EPOCH", InputError)
        datetime.datetime.fromtimestamp(int(given or 0), datetime.UTC)
    except (ValueError, OverflowError, OSError):
        raise InputError(f"SOURCE_DATE_EPOCH is {quoted(given)}; expected seconds since 1970, or unset it") from None


def typeset(document: Document) -> bytes:
    """The document as the bytes of a PDF; what no font has is shown as �, and added to `document.replaced`.

    Raises:
        InputError: a title or a name is long or holds control characters, a picture cannot be read, or SOURCE_DATE_EPOCH is no
            date.
    """
    import typst

    check_epoch()
    _check_titles(document)
    timestamp = document.when or datetime.datetime(2000, 1, 1, tzinfo=datetime.UTC)
    with tempfile.TemporaryDirectory(prefix="unroll-") as name:
        root = Path(name)
        for item in TEMPLATE.iterdir():
            shutil.copyfile(item, root / item.name)
        for target, source in document.files.items():
            shutil.copyfile(source, root / target)
        settings: dict[str, Any] = {"root": str(root), "pdf_standards": ["ua-1"], "timestamp": timestamp}
        failed: Any = None
        ours = True
        said = json.loads(document.to_json())
        for _ in range(MOST_ATTEMPTS):
            (root / "data.json").write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")
            try:
                return bytes(typst.compile(str(root / "report.typ"), ignore_system_fonts=ours, **settings))
            except typst.TypstError as error:
                failed = error
            if not _lacks_glyph(failed):
                break
            if ours:  # the machine's own fonts help out
                ours = False
                continue
            missing = _missing(failed)
            if not missing:
                break
            document.replaced |= {letter for text in missing for letter in text}
            said = {name: value if name in VERBATIM else _without(value, missing) for name, value in said.items()}
        for target, source in document.files.items():  # the compiler does not always say which picture it means
            (root / "picture.typ").write_text(f'#set document(title: "one")\n#image("{target}", alt: "one")\n')
            try:
                typst.compile(str(root / "picture.typ"), **settings)
            except typst.TypstError as error:
                raise InputError(
                    f"the picture {source} cannot be read ({_first_line(error)}); make it again or take it out"
                ) from None
        raise InputError(f"the document cannot be set ({_first_line(failed)}); change what it holds there")


def _check_titles(document: Document) -> None:
    """Raise InputError where a title or a name is long or holds control characters: it would not be shown as it is."""
    byline = [node["v"] for line in document.byline for node in line if "v" in node]
    for text in (document.title, *document.running, document.author or "", *byline):
        if len(text) > LONGEST_TITLE or re.search(f"[{CONTROL}]", text):
            raise InputError(
                f"a title or a name is {quoted(text)}; expected at most {LONGEST_TITLE} characters, none a control character"
            )


def _settable(node: Any) -> Any:
    """`settable` for all text in a tree of blocks."""
    if isinstance(node, dict):
        return {key: _settable(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_settable(value) for value in node]
    return settable(node) if isinstance(node, str) else node


def _first_line(error: Any) -> str:
    return (str(error).splitlines() or ["without a word"])[0]


def replaced_line(replaced: set[str]) -> str:
    """What a command says where `Document.replaced` is not empty."""
    first = sorted(replaced)[:10]
    some = " ".join(first) + (" …" if len(replaced) > len(first) else "")
    return f"unroll: no font on this machine has {quoted(some)}; shown as �. Install one that has, for Chinese say fonts-noto-cjk"


def _missing(error: Any) -> set[str]:
    """The pieces of text that the compiler found no glyph for."""
    found = re.findall(r'the text `"(.*?)"` could not be displayed', error.diagnostic)
    return {re.sub(r"\\u\{([0-9a-f]+)\}", lambda match: chr(int(match[1], 16)), text) for text in found}


def _without(node: Any, missing: set[str]) -> Any:
    """A tree of blocks with � in the place of every missing piece of text."""
    if isinstance(node, dict):
        return {key: _without(value, missing) for key, value in node.items()}
    if isinstance(node, list):
        return [_without(value, missing) for value in node]
    if isinstance(node, str):
        for text in missing:
            node = node.replace(text, "\N{REPLACEMENT CHARACTER}" * len(text))
    return node


def _lacks_glyph(error: Any) -> bool:
    return "could not be displayed with" in str(error)
