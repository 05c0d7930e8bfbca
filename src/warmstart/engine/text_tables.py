"""CSV, TSV, JSONL, JSON arrays and plain lines of text.

Files are read line by line as bytes, so that every complaint can name its line, and no line longer than ``MAX_LINE`` bytes is ever
held.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

from warmstart.core.errors import FileUnreadable
from warmstart.engine.draft import Draft, require_distinct

MAX_LINE = 10_000_000
"""Longest line or cell, in bytes: longer ones are almost always a missing line end or quote."""
TEXT_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".txt")
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


def sniff_suffix(content: bytes) -> str:
    """JSON lines begin with a brace; a table begins with a line of short names and has rows; anything else is one text a line."""
    lines = content.removeprefix(b"\xef\xbb\xbf").lstrip()[:100_000].decode("utf-8", "replace").splitlines()
    if not lines or lines[0].startswith("{"):
        return ".jsonl"
    delimiter = max(DELIMITERS, key=lines[0].count)
    header = next(csv.reader(lines[:1], delimiter=delimiter))
    named = all(re.fullmatch(r"[^\W\d][\w -]{0,40}", name) for name in header) and len(set(header)) == len(header)
    if lines[0].strip() == "text" or (len(header) > 1 and named and len(lines) > 1 and delimiter in lines[1]):
        return ".csv"
    return ".txt"


def read_text(open_bytes: Callable[[], BinaryIO], source: str, suffix: str) -> Draft:
    """Read bytes in the format of ``suffix``; ``open_bytes`` is called once for every pass over them.

    Raises:
        FileUnreadable: Empty, UTF-16 or binary, or without a usable header.
    """
    with open_bytes() as stream:
        head = stream.read(4096)
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or head.count(0) * 4 > len(head):
        advice = f"re-save it as UTF-8, e.g.: iconv -f UTF-16 -t UTF-8 {source} > utf8-{Path(source).name}"
        raise FileUnreadable(f"{source} seems to be UTF-16 or binary, not text", "UTF-8 text", advice)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start and len(head) < 4096:
        raise FileUnreadable(f"{source} is empty", "a table with a header and rows", "check how it was written")
    if suffix in (".csv", ".tsv"):
        return _read_delimited(open_bytes, source, "," if suffix == ".csv" else "\t")
    with open_bytes() as stream:
        if suffix == ".json" and start.startswith(b"["):
            return _read_json_array(stream, source)
        lines = _Lines(stream)
        return _read_plain_lines(lines, source) if suffix == ".txt" else _read_json_lines(lines, source)


class _BadLineError(Exception):
    """A line that is not text: ``args`` are the reason and a detail."""


class _Lines(Iterator[str]):
    """Decoded lines, with their ends, of a byte stream; goes on after a bad one. ``number`` counts from 1."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._offset = 0
        self.number = 0
        self.ended = False

    def __next__(self) -> str:
        line = self._stream.readline(MAX_LINE + 1)
        if not line:
            self.ended = True
            raise StopIteration
        start, self._offset, self.number = self._offset, self._offset + len(line), self.number + 1
        if len(line) > MAX_LINE:
            while line and not line.endswith(b"\n"):
                line = self._stream.readline(MAX_LINE)
                self._offset += len(line)
            raise _BadLineError(f"line longer than {MAX_LINE // 1_000_000} MB", "")
        if b"\0" in line:
            raise _BadLineError("NUL byte", f"at byte {start + line.index(0)} of the file")
        if start == 0:
            line = line.removeprefix(b"\xef\xbb\xbf")
        try:
            return line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise _BadLineError("not UTF-8", f"0x{line[error.start]:02x} at byte {start + error.start} of the file") from None


# Delimited text ---------------------------------------------------------------------------------------------------------------------


def _read_delimited(open_bytes: Callable[[], BinaryIO], source: str, delimiter: str) -> Draft:
    """CSV or TSV; a header that is a single cell by ``delimiter`` but several by another is read by that other, with a note."""
    with open_bytes() as stream:
        found = _sniff_delimiter(_Lines(stream), delimiter)
    if found != "\t":
        draft = _parse_delimited(open_bytes, source, found, csv.QUOTE_MINIMAL)
    else:
        # Most TSV writers do not quote, and a cell may begin with a quotation mark; spreadsheets do quote: fewer bad rows decide.
        attempts = (_parse_delimited(open_bytes, source, found, quoting) for quoting in (csv.QUOTE_NONE, csv.QUOTE_MINIMAL))
        draft = next(attempts)
        if draft.left_out:
            draft = min(draft, next(attempts), key=lambda d: d.left_out.total())
    if found != delimiter:
        draft.notes.append(f"{source}: cells are separated by {DELIMITERS[found]}, not {DELIMITERS[delimiter]}")
    return draft


def _sniff_delimiter(lines: _Lines, expected: str) -> str:
    try:
        header = next((line for line in lines if line.strip()), "")
        cells = {d: len(next(csv.reader([header], delimiter=d), [])) for d in DELIMITERS}
    except (_BadLineError, csv.Error):
        return expected  # the parser says what is wrong
    return expected if cells[expected] > 1 else max(DELIMITERS, key=lambda d: (cells[d], d == expected))


def _parse_delimited(open_bytes: Callable[[], BinaryIO], source: str, delimiter: str, quoting: Literal[0, 3]) -> Draft:
    draft = Draft(source)
    header: list[str] = []
    limit = csv.field_size_limit(MAX_LINE)  # a setting of the whole process: put back below
    try:
        with open_bytes() as stream:
            for line, record in _records(_Lines(stream), draft, delimiter, quoting):
                if not header:
                    if draft.left_out:
                        draft.finish(skip_bad=False)  # no header, no table
                    header = _header(record, source)
                    draft.columns = {name: [] for name in header}
                    columns = list(draft.columns.values())
                elif len(record) != len(header):
                    draft.reject(line, "wrong number of cells", f"{len(record)} cells, the header has {len(header)}")
                else:
                    for column, cell in zip(columns, record, strict=True):
                        column.append(cell)
                    draft.rows.append(line)
    finally:
        csv.field_size_limit(limit)
    return draft


def _records(lines: _Lines, draft: Draft, delimiter: str, quoting: Literal[0, 3]) -> Iterator[tuple[int, list[str]]]:
    """Non-blank records with the line each begins on; what cannot be read goes to ``draft.reject``."""
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting)
    while True:
        start = lines.number + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except _BadLineError as bad:
            draft.reject(lines.number, *bad.args)
        except csv.Error as error:
            draft.reject(start, "not CSV", str(error).split(" - ")[0])
        else:
            if lines.ended:  # the reader asked for more lines in the middle of a cell
                draft.reject(start, "a quotation mark that is never closed", f"it takes in everything up to line {lines.number}")
            elif record and quoting == csv.QUOTE_NONE:
                yield start, [_unquoted(cell) for cell in record]
            elif record:
                yield start, record


def _unquoted(cell: str) -> str:
    """The cell without its quotation marks if it is quoted properly as a whole."""
    inner = cell[1:-1]
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    return cell


def _header(record: Sequence[str], source: str) -> list[str]:
    names = [name or f"column_{i}" for i, name in enumerate(record, 1)]
    require_distinct(names, source)
    return names


# JSON and plain lines ---------------------------------------------------------------------------------------------------------------


def _text_lines(lines: _Lines, draft: Draft) -> Iterator[str]:
    while not lines.ended:
        try:
            yield from lines
        except _BadLineError as bad:
            draft.reject(lines.number, *bad.args)


def _read_json_lines(lines: _Lines, source: str) -> Draft:
    draft = Draft(source)
    for text in _text_lines(lines, draft):
        if not text.strip():
            continue
        try:
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            draft.reject(lines.number, "broken JSON", str(error))
        else:
            _add_json(draft, lines.number, record)
    return draft


def _read_json_array(stream: BinaryIO, source: str) -> Draft:
    draft = Draft(source, unit="row")
    try:
        records = json.loads(stream.read().removeprefix(b"\xef\xbb\xbf").decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FileUnreadable(f"{source}: {error}", "UTF-8 JSON: one array of objects, or one object a line", "correct the file") from error
    for row, record in enumerate(records, 1):
        _add_json(draft, row, record)
    return draft


def _add_json(draft: Draft, row: int, record: Any) -> None:
    if isinstance(record, dict):
        draft.add(row, record)
    else:
        draft.reject(row, "not a JSON object", f'it is a {type(record).__name__}; expected e.g. {{"text": "...", "label": "..."}}')


def _read_plain_lines(lines: _Lines, source: str) -> Draft:
    draft = Draft(source, columns={"text": []})
    for text in _text_lines(lines, draft):
        if text.strip():
            draft.add(lines.number, {"text": text.rstrip("\r\n")})
    return draft
