"""Text files with one record a line -- CSV, TSV and JSON lines -- read so that every error names its line.

Parsing is the standard library's `csv` and `json`; here are the choice between formats, the columns, and the messages.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unroll.data.parts import listed, refuse_surrogates, shorten, visible
from unroll.errors import DataError
from unroll.files import refuse_special

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
FOREIGN = {
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"\xfd7zXZ": "compressed with xz; unpack it first",
    b"BZh": "compressed with bzip2; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd; unpack it first",
    b"PAR1": "a Parquet file; save it as CSV",
    b"ARROW1": "an Arrow file; save it as CSV",
    b"PK\x03\x04": "a zip archive, as Excel's .xlsx is; save a table as CSV, or unpack it first",
    b"\xd0\xcf\x11\xe0": "an old Excel file; save it as CSV",
    b"\x89HDF": "an HDF5 file; save it as CSV",
    b"SQLite": "a database; save a table as CSV",
    b"\x89PNG": "a picture (PNG); expected text, such as CSV",
    b"\xff\xd8\xff": "a picture (JPEG); expected text, such as CSV",
    b"GIF8": "a picture (GIF); expected text, such as CSV",
    b"II*\x00": "a picture (TIFF); expected text, such as CSV",
    b"MM\x00*": "a picture (TIFF); expected text, such as CSV",
    b"RIFF": "a picture (WebP), a sound or a film; expected text, such as CSV",
    b"%PDF-": "a PDF; expected text, such as CSV",
    b"\x93NUMPY": "a NumPy array; the suffix of those is .npy",
}
"""First bytes of files that people take for text -> what they are."""


QUOTED = r'(?m)((?:^|{0}) *"(?:[^"]++|"")*+") *(?={0}|$)'
"""A quoted field, after the delimiter before it, and the spaces after it."""

Record = tuple[int, tuple[Any, ...]]
"""The number of the line that a record begins on (the first is 1), and the wanted columns' values."""


def check_file(path: Path) -> None:
    """Raise DataError where there is nothing, or something else than a file."""
    try:
        refuse_special(path)
        path.stat()
    except FileNotFoundError:
        raise DataError(f"data file {path} does not exist") from None
    except OSError as error:
        raise DataError(f"data file {path} cannot be read: {error.strerror}") from None


def read_text(path: Path) -> str:
    """A whole text file, UTF-8 with or without byte order mark.

    Raises:
        DataError: there is no such file, it is empty, or it is in another encoding.
    """
    check_file(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"data file {path} cannot be read: {error.strerror}") from None
    try:
        if b"\0" in content:  # which is UTF-8, but in no text
            refuse_foreign(path)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        refuse_foreign(path)
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file in the encoding UTF-8"
        ) from None
    if not text.strip():
        raise DataError(f"{path} is empty; expected one record a line")
    return text


def refuse_foreign(path: Path) -> None:
    """Raise DataError, which names the format, for a file that begins as one of `FOREIGN`."""
    with open(path, "rb") as file:
        start = file.read(8)
    for first, what in FOREIGN.items():
        if start.startswith(first):
            raise DataError(f"{path} is {what}")


def lines_of(text: str) -> list[str]:
    """The lines of a text, split at line ends only: str.splitlines splits at characters of sentences, such as U+2028."""
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def read_records(path: Path, columns: Sequence[str]) -> tuple[list[Record], list[str], list[str]]:
    """The wanted columns of every record, the names of the others, and what is doubtful.

    The format follows from the suffix (.csv, .tsv or .tab, .jsonl or .ndjson), else from the first line. In a CSV file
    fields are parted by commas, or by semicolons or tabs where the first line says so. Quoted fields may hold
    delimiters, quotes (doubled) and line ends; see `read_table` for TSV. Blank lines are skipped.

    Columns that are all given as numbers (1, 2, …, as text) are positions in a file without a header line; otherwise
    the first line names the columns.

    Raises:
        DataError: a column is missing or asked for twice, a line does not parse, or there is no record.
    """
    text, suffix = read_text(path), path.suffix.lower()
    doubts: list[str] = []
    by_content = suffix not in (".csv", ".tsv", ".tab")
    if by_content and text.lstrip().startswith("[") and text.rstrip().endswith("]"):
        raise DataError(f"{path} is a JSON array; expected JSON lines, one object a line, or CSV")
    if suffix in (".jsonl", ".ndjson") or (by_content and text.lstrip().startswith("{")):
        refuse_equal(path, columns)
        records, names = [], dict.fromkeys(columns)
        for record, fields in _json_records(path, text, columns):
            records.append(record)
            names |= dict.fromkeys(fields)
        others = [name for name in names if name not in columns]
    else:
        table, doubts = read_table(path, text)
        header = header_of(table)
        if all(column.isdecimal() for column in columns) and not set(columns) <= set(header):
            header, body = [str(i) for i in range(1, len(header) + 1)], table
        else:
            body = table[1:]
        where = positions(path, columns, header)
        records = [(line, tuple(fields[i] for i in where)) for line, fields in body]
        others = [name for i, name in enumerate(header) if i not in where]
    if not records:
        raise DataError(f"{path} holds no record after its header line; expected one a line")
    return records, others, doubts


def read_table(path: Path, text: str | None = None) -> tuple[list[tuple[int, list[str]]], list[str]]:
    """Line number and fields of every line that is not blank, and what is doubtful; all have as many fields as the first.

    Programs that write TSV quote as in CSV, or not at all: then a quote is a character like any other, and two lone ones
    do not swallow the lines between them. Where a "quoted" field would hold line end and tab, or does not end as it
    should, the file is one without quoting.

    Args:
        text: what `read_text` gave for the file.

    Raises:
        DataError: a line does not parse, or has another number of fields than the first.
    """
    text, suffix = read_text(path) if text is None else text, path.suffix.lower()
    lines = lines_of(text)
    first = next(line for line in lines if line.strip())
    tabs = suffix in (".tsv", ".tab") or (suffix != ".csv" and "\t" in first)
    delimiter = "\t" if tabs else "," if "," in first else max(",;\t", key=first.count)
    try:
        rows = _parse(path, lines, delimiter, csv.QUOTE_MINIMAL)
    except DataError:
        rows = []
        if delimiter != "\t":  # as in: "good" , "pos"
            text = re.sub(QUOTED.format(delimiter), r"\1", "\n".join(lines))
            rows = _parse(path, text.split("\n"), delimiter, csv.QUOTE_MINIMAL)
    merged = [line for line, fields in rows if any(delimiter in field and "\n" in field for field in fields)]
    if delimiter == "\t" and (merged or not rows):
        rows, merged = _parse(path, lines, delimiter, csv.QUOTE_NONE), []
    if not rows:
        raise DataError(f"{path} holds nothing but empty fields; expected one record a line")
    width = len(rows[0][1])
    for line, fields in rows:
        if len(fields) != width:
            raise DataError(
                f"{path}, line {line}: found {_count(len(fields), 'field')}, expected {width} as in the first line; "
                f'put text that holds {DELIMITERS[delimiter]} in "quotes"'
            )
    if not merged:
        return rows, []
    more = f" (and {len(merged) - 1:,} more)" if len(merged) > 1 else ""
    return rows, [
        f"Warning: {path.name}, line {merged[0]}{more}: a quoted field holds line ends and {DELIMITERS[delimiter]}; if lone "
        'quotes merged several lines there, double those ("") that belong to the text'
    ]


def _parse(path: Path, lines: list[str], delimiter: str, quoting: int) -> list[tuple[int, list[str]]]:
    reader = csv.reader(
        (line + "\n" for line in lines),
        delimiter=delimiter,
        quoting=quoting,  # type: ignore[arg-type]
        strict=True,
        skipinitialspace=True,  # as in: good, "pos"
    )
    csv.field_size_limit(1 << 30)  # 131,072 at first; a document may be longer
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for fields in reader:
            if any(field.strip() for field in fields):
                rows.append((line, fields))
            line = reader.line_num + 1
    except csv.Error as error:
        endless = "unexpected end of data" in str(error)
        problem = "a quoted field begins here and does not end" if endless else f"after a quoted field {error}"
        raise DataError(f'{path}, line {line}: {problem}; double quotes ("") that belong to the text') from None
    return rows


def header_of(table: list[tuple[int, list[str]]]) -> list[str]:
    """The names in a table's first line; a column without one is called "Unnamed: 0", as pandas does, after its place."""
    return [visible(name).strip() or f"Unnamed: {i}" for i, name in enumerate(table[0][1])]


def refuse_equal(path: Path, columns: Sequence[str]) -> None:
    """Raise DataError where one column is asked for twice: the label would be read as what it is to be learnt from."""
    for column in columns:
        if columns.count(column) > 1:
            raise DataError(f"{path}: column {column!r} is to be read as two things; name a column for each")


def positions(path: Path, columns: Sequence[str], header: Sequence[str]) -> list[int]:
    """Where the wanted columns stand.

    Raises:
        DataError: one is missing, there twice, or asked for twice.
    """
    refuse_equal(path, columns)
    for column in columns:
        if column not in header:
            if all(column.isdecimal() for column in columns):
                raise DataError(f"{path}: there is no column {column}; its lines have {_count(len(header), 'field')}")
            raise DataError(missing_column(path, column, header))
        if header.count(column) > 1:
            raise DataError(f"{path}: {header.count(column)} columns are named {column!r}; expected one")
    return [header.index(column) for column in columns]


def missing_column(path: Path, missing: str, found: Sequence[str]) -> str:
    names = listed([repr(shorten(name, 36)) for name in found])
    return (
        f"{path} has no column {missing!r}; its first line names {names} "
        "(say which to read, or give numbers 1, 2, … for a file without header line)"
    )


def _json_records(path: Path, text: str, columns: Sequence[str]) -> Iterator[tuple[Record, Sequence[str]]]:
    """Every record, with the names of all columns that it has."""
    for line, content in enumerate(lines_of(text), start=1):
        if not content.strip():
            continue
        place = f"{path}, line {line}"
        try:
            fields = json.loads(content, object_pairs_hook=_object)
        except json.JSONDecodeError as error:
            raise DataError(f"{place}: not valid JSON ({error.msg}, column {error.colno})") from None
        except DataError as error:
            raise DataError(f"{place}: {error}") from None
        except (RecursionError, ValueError) as error:
            problem = "a whole number has too many digits to be read; write it as text, in quotes"  # over 4,300
            if isinstance(error, RecursionError):
                problem = "lists or objects are nested too deeply; expected an object of text and numbers"
            raise DataError(f"{place}: {problem}") from None
        if not isinstance(fields, dict):
            raise DataError(f'{place}: expected an object such as {{"{columns[0]}": …}}, got {shorten(content)}')
        for column in columns:
            if column not in fields:
                raise DataError(f"{place}: has no {column!r}; it holds {listed([*map(repr, fields)])}")
            if isinstance(fields[column], str):
                refuse_surrogates(fields[column], f"{place}: {column!r}")
        yield (line, tuple(fields[column] for column in columns)), list(fields)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; json itself would take the last of two values of one name."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise DataError(f"{shorten(next(name for name in names if names.count(name) > 1))!r} stands there twice")
    return fields


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
