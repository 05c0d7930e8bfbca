"""Lines of text and records of tables as they come from disk, never a whole file at a time."""

from __future__ import annotations

import codecs
import csv
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from warmstart.core.errors import FileUnreadable
from warmstart.engine.text_tables import DELIMITERS, MAX_LINE

PART = 1 << 20
"""Bytes of a line of plain text that are read at once."""

PARQUET_ROWS = 1024


class Problems:
    """What to do about a bad place: the first one is an error, or with ``skip_bad`` all of them are counted in ``left_out``."""

    def __init__(self, *, skip_bad: bool) -> None:
        self.skip_bad = skip_bad
        self.left_out: Counter[str] = Counter()

    def add(self, where: str, reason: str, *, detail: str = "", do: str = "correct it") -> None:
        """Count it.

        Raises:
            FileUnreadable: Bad places are not to be skipped.
        """
        if not self.skip_bad:
            given = f"{where}: {reason}{detail and f' ({detail})'}"
            raise FileUnreadable(given, "text in UTF-8", f"{do}, or leave such places out with --skip-bad")
        self.left_out[reason] += 1


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unpacked where it is gzipped.

    Raises:
        FileUnreadable: It cannot be read to its end.
    """
    try:
        with cast(BinaryIO, gzip.GzipFile(path)) if path.suffix.lower() == ".gz" else path.open("rb") as stream:
            yield stream
    except (OSError, EOFError, zlib.error) as error:
        raise FileUnreadable(f"{path}: {error}", "a file that can be read to its end", "check its permissions, or get it again") from error


def lines(stream: BinaryIO, source: str, problems: Problems) -> Iterator[str]:
    """Lines of plain text with their ends, always ``\\n``; a line of more than 1 MiB comes in parts. Bad lines end where they go wrong."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    number, offset, fresh = 1, 0, True
    while data := stream.readline(PART):
        start, offset = offset, offset + len(data)
        if start == 0:
            data = data.removeprefix(codecs.BOM_UTF8)
            start = offset - len(data)
        ended = data.endswith(b"\n")
        bad = _bad_byte(data, start)
        try:
            text = "" if bad else decoder.decode(data, final=ended)
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            bad = ("not UTF-8", f"0x{byte:02x} at byte {start + max(0, error.start - (len(error.object) - len(data)))} of the file")
        if bad:
            advice = f"re-save it as UTF-8, e.g.: iconv -f WINDOWS-1252 -t UTF-8 {source} > utf8-{Path(source).name}"
            problems.add(f"{source}, line {number}", bad[0], detail=bad[1], do=advice if bad[0] == "not UTF-8" else "is it text?")
            decoder.reset()
            while data and not data.endswith(b"\n"):
                data = stream.readline(PART)
                offset += len(data)
            text, ended = "" if fresh else "\n", True
        if text:
            yield f"{text[:-2]}\n" if text.endswith("\r\n") else text
        number, fresh = number + ended, ended
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        problems.add(f"{source}, line {number}", "not UTF-8", detail="the file ends in the middle of a character")


def json_records(stream: BinaryIO, source: str, problems: Problems) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of JSON lines, each with the number of its line."""
    for number, line in _whole_lines(stream, source, problems):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            yield number, record
        else:
            problems.add(f"{source}, line {number}", "not a JSON object", do="write one JSON object a line")


def delimited_records(stream: BinaryIO, source: str, problems: Problems, *, tabs: bool) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of CSV or TSV as mappings, each with the number of the line where it ends.

    Raises:
        FileUnreadable: No header.
    """
    found = _whole_lines(stream, source, problems)
    first = next((line for _, line in found if line.strip()), "")
    counts = {d: first.count(d) for d in DELIMITERS}
    expected = "\t" if tabs else ","
    delimiter = expected if counts[expected] else max(DELIMITERS, key=lambda d: (counts[d], d == expected))
    header = next(csv.reader([first], delimiter=delimiter), [])
    if not any(name.strip() for name in header):
        raise FileUnreadable(f"{source} has no header", "a first line with the names of the columns", "add one")
    at = 1

    def numbered() -> Iterator[str]:
        nonlocal at
        for number, line in found:
            at = number
            yield line

    limit = csv.field_size_limit(MAX_LINE)  # a setting of the whole process: put back below
    quoting = csv.QUOTE_NONE if delimiter == "\t" and '"' not in first else csv.QUOTE_MINIMAL
    try:
        rows = csv.reader(numbered(), delimiter=delimiter, quoting=cast(Any, quoting))
        for row in rows:
            if len(row) == len(header):
                yield at, dict(zip(header, row, strict=True))
            elif row:
                problems.add(f"{source}, line {at}", "wrong number of cells", detail=f"{len(row)} cells, the header has {len(header)}")
    except csv.Error as error:
        raise FileUnreadable(f"{source}, line {at}: {error}", "a table of cells", "look for a quotation mark that is not closed") from None
    finally:
        csv.field_size_limit(limit)


def parquet_records(path: Path, names: list[str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a Parquet file, counted from 1; only the columns ``names`` are read.

    Raises:
        FileUnreadable: It is damaged, or no Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet

    number = 0
    try:
        with pa.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, columns=names):
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).split("\n")[0][:200]
        raise FileUnreadable(f"{path}: {reason}", "an undamaged .parquet file", "write or download it again") from error


def _whole_lines(stream: BinaryIO, source: str, problems: Problems) -> Iterator[tuple[int, str]]:
    number = 0
    while data := stream.readline(MAX_LINE + 1):
        number += 1
        if number == 1:
            data = data.removeprefix(codecs.BOM_UTF8)
        if len(data) > MAX_LINE:
            problems.add(f"{source}, line {number}", f"line longer than {MAX_LINE // 1_000_000} MB")
            while data and not data.endswith(b"\n"):
                data = stream.readline(MAX_LINE)
            continue
        if b"\0" in data:
            problems.add(f"{source}, line {number}", "NUL byte", do="is it text?")
            continue
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            problems.add(f"{source}, line {number}", "not UTF-8", detail=f"0x{data[error.start]:02x}", do="re-save it as UTF-8")
            continue
        yield number, text


def _bad_byte(data: bytes, start: int) -> tuple[str, str] | None:
    """UTF-16 and binary files have zero bytes, text in UTF-8 has none."""
    return ("NUL byte", f"at byte {start + data.index(0)} of the file: UTF-16 or no text at all") if b"\0" in data else None
