"""A corpus of unlabelled text: documents from plain text, JSONL, CSV, Parquet, folders of them or objects, streamed from disk.

In plain text a blank line ends a document; in a table every row is one. A pass over the corpus holds one piece of one document.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from warmstart.core import registry
from warmstart.core.errors import ColumnNotFound, DataError, FileNotFound, FileUnreadable, nearest
from warmstart.engine import text_files
from warmstart.engine.tables import read_table
from warmstart.engine.text_files import Problems

PIECE = 1 << 18
"""Characters of a document that are handed on at once; a longer document comes in several pieces, cut at the end of a line if it can be."""

SAMPLE_ROWS = 200
"""Rows that the column of text is inferred from."""

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
HELD_WHOLE = (".json", ".arrow", ".feather", ".ipc")
"""Tables that are read into memory, and so one at a time only."""
NO_TEXT = (*HELD_WHOLE, ".zip", ".tar", ".xz", ".bz2", ".zst", ".pdf", ".docx", ".png", ".jpg", ".wav", ".safetensors", ".bin")
SENTENCE_END = re.compile(r"""(?<=[.!?…])["'”’)\]]*(?P<gap>\s+)(?=["'“‘(\[]*\s?[^\W\d_a-z])|(?<=[。！？])(?P<none>)(?![」』”’）])|\n+""")
"""After a full stop, where a capital or a script without capitals follows; after the stops of Chinese and Japanese; at every line end."""


@dataclass(frozen=True)
class Piece:
    """A stretch of a document; ``last`` says that the document ends with it."""

    text: str
    last: bool = True


@dataclass(frozen=True)
class Survey:
    """What one pass over a corpus found. Equal texts have an equal ``hash``, whatever file and format they lie in."""

    documents: int
    characters: int
    hash: str
    left_out: Mapping[str, int] = field(default_factory=dict)


class Texts:
    """The documents of a corpus; every pass reads it anew.

    Args:
        source: A file, a folder, a pattern (``texts/*.txt``), a list of paths, a list of strings, a frame, or a ``Dataset``.
        column: ``{"text": name}`` of a table; inferred where it is not given.
        skip_bad: Leave out, and count, what cannot be read.
        whole: Plain text is kept to the letter, blank lines included, and every file is one document.

    Raises:
        FileNotFound: No such file.
        FileUnreadable: A file that is no text.
        ColumnNotFound: A table has no such column, or no column of text.
    """

    def __init__(self, source: Any, *, column: Mapping[str, str] | None = None, skip_bad: bool = False, whole: bool = False) -> None:
        self.skip_bad, self.whole = skip_bad, whole
        self._column = dict(column or {})
        self._files = _files(source)
        self._table = read_table(source, skip_bad=skip_bad) if self._files is None else None
        self.name = self._table.source if self._table else _shown(source, self._files or [])
        self.notes: list[str] = []
        self._columns = {path: self._text_column(path) for path in self._files or [] if _kind(path) in TABLES}
        self._survey: Survey | None = None

    def pieces(self) -> Iterator[Piece]:
        """Every document in order, in pieces of at most about ``PIECE`` characters; empty ones are left out."""
        return self._pieces(Problems(skip_bad=self.skip_bad))

    def survey(self) -> Survey:
        """Count and hash everything, once.

        Raises:
            DataError: There is no text.
            FileUnreadable: Something cannot be read and is not to be skipped; the file and the line are named.
        """
        if self._survey is None:
            problems, digest, documents, characters = Problems(skip_bad=self.skip_bad), hashlib.blake2b(digest_size=16), 0, 0
            for piece in self._pieces(problems):
                digest.update(piece.text.encode() + (b"\x1e" if piece.last else b""))
                documents, characters = documents + piece.last, characters + len(piece.text)
            if not characters:
                bad = f": {problems.left_out.total():,} places were left out" if problems.left_out else ""
                raise DataError(f"the corpus {self.name} holds no text{bad}", "at least one document", "check the file, or name its column")
            self._survey = Survey(documents, characters, digest.hexdigest(), dict(problems.left_out))
        return self._survey

    def _pieces(self, problems: Problems) -> Iterator[Piece]:
        if self._table is not None:
            name = _infer(self._table.columns, self._column, self.name)
            problems.left_out.update(self._table.left_out)
            rows = zip(self._table.rows, self._table.columns[name], strict=True)
            yield from _cells(((f"{self.name}, row {row}", value) for row, value in rows), problems)
        for path in self._files or []:
            if path in self._columns:
                yield from _cells(self._values(path, problems), problems)
                continue
            with text_files.opened(path) as stream:
                found = text_files.lines(stream, str(path), problems)
                yield from _cut(found) if self.whole else _paragraphs(found)

    def _values(self, path: Path, problems: Problems) -> Iterator[tuple[str, Any]]:
        name = self._columns[path]
        return ((f"{path}, {at}", record.get(name)) for at, record in _records(path, problems, [name]))

    def _text_column(self, path: Path) -> str:
        sample = [record for _, record in islice(_records(path, Problems(skip_bad=True)), SAMPLE_ROWS)]
        if not sample:
            return self._column.get("text", "text")
        columns: dict[str, list[Any]] = {name: [record.get(name) for record in sample] for name in {k: None for r in sample for k in r}}
        found = _infer(columns, self._column, str(path))
        if not self._column and len(columns) > 1:
            self.notes.append(f"{path.name}: the text is in column {found!r}")
        return found


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the white space between them: a rule, not a model, so an abbreviation may end one."""
    found, start = [], 0
    for match in SENTENCE_END.finditer(text):
        end = match.start("gap") if match["gap"] else match.start()
        if text[start:end].strip():
            found.append(text[start:end].strip())
        start = match.end()
    return [*found, text[start:].strip()] if text[start:].strip() else found


def _files(source: Any) -> list[Path] | None:
    """The files that are meant, or None for an object or standard input."""
    if isinstance(source, (list, tuple)) and source and all(isinstance(item, os.PathLike) for item in source):
        return [file for item in source for file in _files(item) or []]
    if not isinstance(source, (str, os.PathLike)) or str(source) == "-":
        return None
    path = Path(source)
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file() and not any(part.startswith(".") for part in p.relative_to(path).parts))
        if not inside:
            raise FileNotFound(f"the folder {path} holds no file", "a folder of text files", "check the path")
        return inside
    if path.is_file():
        return None if path.suffix.lower() in HELD_WHOLE else [path]
    matched = sorted(Path(p) for p in glob.glob(str(source), recursive=True) if Path(p).is_file())
    if matched:
        return matched
    siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    raise FileNotFound(f"no file {str(source)!r}.{nearest(path.name, siblings)}", "a text file, or a folder of them", "check the path")


def _shown(source: Any, files: list[Path]) -> str:
    return str(source) if isinstance(source, (str, os.PathLike)) else f"{files[0]} and {len(files) - 1} more"


def _kind(path: Path) -> str:
    """The extension that says how to read a file.

    Raises:
        FileUnreadable: One that no text has.
    """
    suffix = (Path(path.stem) if path.suffix.lower() == ".gz" else path).suffix.lower()
    if suffix in NO_TEXT or (suffix == ".parquet" and path.suffix.lower() == ".gz"):
        known = f"plain text (UTF-8, may be .gz), {', '.join(TABLES)}"
        raise FileUnreadable(f"{path} is no text: its extension is {path.suffix!r}", known, "convert it, or move it out of the folder")
    return suffix


def _records(path: Path, problems: Problems, names: list[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    kind = _kind(path)
    if kind == ".parquet":
        yield from ((f"row {row}", record) for row, record in text_files.parquet_records(path, names))
        return
    with text_files.opened(path) as stream:
        if kind in (".csv", ".tsv"):
            found = text_files.delimited_records(stream, str(path), problems, tabs=kind == ".tsv")
        else:
            found = text_files.json_records(stream, str(path), problems)
        yield from ((f"line {line}", record) for line, record in found)


def _infer(columns: Mapping[str, list[Any]], given: Mapping[str, str], source: str) -> str:
    name = given.get("text") or registry.create("modalities", "text").infer(columns, {})["text"]
    if name not in columns:
        raise ColumnNotFound(
            f"{source} has no column {name!r}.{nearest(name, columns)}",
            f"columns: {', '.join(map(repr, list(columns)[:20]))}",
            "name it: --column text=NAME",
        )
    return str(name)


def _cells(values: Iterator[tuple[str, Any]], problems: Problems) -> Iterator[Piece]:
    """Every value of a column as a document."""
    for where, value in values:
        if not isinstance(value, str):
            problems.add(where, "missing text" if value is None else "not a string", do="give every row a text")
        elif not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            problems.add(where, "broken Unicode", do="remove the half of a surrogate pair")
        elif value.strip():
            yield from _cut(iter(value.strip().splitlines(keepends=True)))


def _paragraphs(lines: Iterator[str]) -> Iterator[Piece]:
    """Documents between blank lines."""

    def document(first: str) -> Iterator[str]:
        yield first.lstrip()
        for line in lines:
            if not line.strip():
                return
            yield line

    for line in lines:
        if line.strip():
            yield from _cut(document(line), strip=True)


def _cut(lines: Iterator[str], *, strip: bool = False) -> Iterator[Piece]:
    """One document: lines collected to pieces."""
    held: list[str] = []
    size = 0
    for line in lines:
        if held and size + len(line) > PIECE:
            yield Piece("".join(held), last=False)
            held, size = [], 0
        while len(line) > PIECE:
            at = line.rfind(" ", PIECE // 2, PIECE) + 1 or PIECE
            yield Piece(line[:at], last=False)
            line = line[at:]
        held.append(line)
        size += len(line)
    text = "".join(held)
    if held:
        yield Piece(text.rstrip() if strip else text)


def sample(texts: Texts, *, characters: int, seed: int) -> Iterator[str]:
    """Pieces drawn at random that together have about ``characters`` characters; all of them where the corpus has no more."""
    share = characters / max(1, texts.survey().characters)
    for number, piece in enumerate(texts.pieces()):
        if share >= 1 or drawn(number, seed=seed) < share:
            yield piece.text


def drawn(number: int, *, seed: int) -> float:
    """A number from 0 to 1 that belongs to the item of this number: the same in every pass and process."""
    digest = hashlib.blake2b(f"{seed} {number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2.0**64
