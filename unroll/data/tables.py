"""Text files with one record a line -- CSV, TSV and JSON lines -- read so that every error names its line.

Parsing is the standard library's `csv` and `json`; here are the choice between formats, the columns, and the messages.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from unroll.data.parts import listed, refuse_surrogates
from unroll.errors import DataError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}


Record = tuple[int, tuple[Any, ...]]
"""The number of the line that a record begins on (the first is 1), and the wanted columns' values."""


def read_text(path: Path) -> str:
    """A whole text file, UTF-8 with or without byte order mark.

    Raises:
        DataError: there is no such file, it is empty, or it is in another encoding.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"data file {path} does not exist") from None
    except OSError as error:
        raise DataError(f"data file {path} cannot be read: {error.strerror}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file in the encoding UTF-8"
        ) from None
    if not text.strip():
        raise DataError(f"{path} is empty; expected one record a line")
    return text


def read_records(path: Path, columns: Sequence[str]) -> list[Record]:
    """The wanted columns of every record.

    The format follows from the suffix (.csv, .tsv or .tab, .jsonl or .ndjson), else from the first line. In a CSV file
    fields are parted by commas, or by semicolons or tabs where the first line says so. Quoted fields may hold
    delimiters, quotes (doubled) and line ends. Blank lines are skipped.

    Columns that are all given as numbers (1, 2, …, as text) are positions in a file without a header line; otherwise
    the first line names the columns.

    Raises:
        DataError: a column is missing, a line does not parse, or there is no record.
    """
    suffix = path.suffix.lower()
    by_content = suffix not in (".csv", ".tsv", ".tab")
    if suffix in (".jsonl", ".ndjson") or (by_content and read_text(path).lstrip().startswith("{")):
        records = list(_json_records(path, columns))
    else:
        where, body = _positions(path, columns, read_table(path))
        records = [(line, tuple(fields[i] for i in where)) for line, fields in body]
    if not records:
        raise DataError(f"{path} holds no record after its header line; expected one a line")
    return records


def read_table(path: Path) -> list[tuple[int, list[str]]]:
    """Line number and fields of every line that is not blank; all have as many fields as the first.

    Raises:
        DataError: a line does not parse, or has another number of fields than the first.
    """
    text, suffix = read_text(path), path.suffix.lower()
    first = text.lstrip("\r\n").splitlines()[0]
    tabs = suffix in (".tsv", ".tab") or (suffix != ".csv" and "\t" in first)
    delimiter = "\t" if tabs else "," if "," in first else max(",;\t", key=first.count)
    try:
        rows = _parse(path, text, delimiter, csv.QUOTE_MINIMAL)
    except DataError:
        if delimiter != "\t":
            raise
        # Most programs that write TSV do not quote: there a quote is a character like any other.
        rows = _parse(path, text, delimiter, csv.QUOTE_NONE)
    width = len(rows[0][1])
    for line, fields in rows:
        if len(fields) != width:
            raise DataError(
                f"{path}, line {line}: found {_count(len(fields), 'field')}, expected {width} as in the first line; "
                f'put text that holds {DELIMITERS[delimiter]} in "quotes"'
            )
    return rows


def _parse(path: Path, text: str, delimiter: str, quoting: int) -> list[tuple[int, list[str]]]:
    # The lines are split at line feeds only, as the csv module wants it: str.splitlines would also split at characters
    # such as U+2028 that may stand within a sentence.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    reader = csv.reader((line + "\n" for line in lines), delimiter=delimiter, quoting=quoting, strict=True)  # type: ignore[arg-type]
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))  # 131,072 at first; a document may be longer
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


def _positions(
    path: Path, columns: Sequence[str], table: list[tuple[int, list[str]]]
) -> tuple[list[int], list[tuple[int, list[str]]]]:
    """Where the wanted columns stand, and the lines below the header."""
    header = [name.strip() for name in table[0][1]]
    if all(column in header for column in columns):
        for column in columns:
            if header.count(column) > 1:
                raise DataError(f"{path}: {header.count(column)} columns are named {column!r}; expected one")
        return [header.index(column) for column in columns], table[1:]
    if all(column.isdecimal() for column in columns):
        for column in columns:
            if not 1 <= int(column) <= len(header):
                raise DataError(f"{path}: there is no column {column}; its lines have {_count(len(header), 'field')}")
        return [int(column) - 1 for column in columns], table
    missing = next(column for column in columns if column not in header)
    raise DataError(missing_column(path, missing, header))


def missing_column(path: Path, missing: str, found: Sequence[str]) -> str:
    names = listed([repr(_shorten(name)) for name in found])
    return (
        f"{path} has no column {missing!r}; its first line names {names} "
        "(say which to read, or give numbers 1, 2, … for a file without header line)"
    )


def _json_records(path: Path, columns: Sequence[str]) -> Iterator[Record]:
    text = read_text(path)
    for line, content in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not content.strip():
            continue
        place = f"{path}, line {line}"
        try:
            fields = json.loads(content)
        except json.JSONDecodeError as error:
            raise DataError(f"{place}: not valid JSON ({error.msg}, column {error.colno})") from None
        except (RecursionError, ValueError) as error:
            problem = "a whole number has too many digits to be read; write it as text, in quotes"  # over 4,300
            if isinstance(error, RecursionError):
                problem = "lists or objects are nested too deeply; expected an object of text and numbers"
            raise DataError(f"{place}: {problem}") from None
        if not isinstance(fields, dict):
            raise DataError(f'{place}: expected an object such as {{"{columns[0]}": …}}, got {_shorten(content)}')
        for column in columns:
            if column not in fields:
                raise DataError(f"{place}: has no {column!r}; it holds {listed([*map(repr, fields)])}")
            if isinstance(fields[column], str):
                refuse_surrogates(fields[column], f"{place}: {column!r}")
        yield line, tuple(fields[column] for column in columns)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _shorten(text: str, limit: int = 40) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
