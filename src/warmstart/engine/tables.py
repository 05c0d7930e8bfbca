"""Tables in and out: files, frames and lists are read as columns of plain Python values; records are written."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from warmstart.core.errors import BadOption, DataError, FileNotFound, FileUnreadable, nearest
from warmstart.engine.draft import Draft, Table, require_distinct
from warmstart.engine.text_tables import TEXT_SUFFIXES, read_text, sniff_suffix

__all__ = ["Table", "read_table", "write_records", "writing"]

ARROW_SUFFIXES = (".parquet", ".arrow", ".feather", ".ipc")
WRITTEN_SUFFIXES = (".csv", ".jsonl", ".parquet")


def read_table(source: Any, *, skip_bad: bool = False) -> Table:
    """Read a file (``-``: standard input), a frame, a Hugging Face ``Dataset``, a mapping of columns, or a list of dicts or strings.

    Text files may be gzipped. Cells of CSV and TSV are strings; a key that a JSON record lacks is None. With ``skip_bad``, records that
    cannot be read are counted in ``left_out``.

    Raises:
        FileNotFound: No such file.
        FileUnreadable: A folder, an unknown format, a wrong encoding, or damage.
        DataError: There is no row.
    """
    if isinstance(source, Table):
        return source
    if isinstance(source, (str, os.PathLike)):
        draft = _read_standard_input() if str(source) == "-" else _read_path(Path(source))
    else:
        draft = _read_object(source)
    return draft.finish(skip_bad=skip_bad)


def _read_path(path: Path) -> Draft:
    _require_file(path)
    zipped = path.suffix.lower() == ".gz"
    suffix = (Path(path.stem) if zipped else path).suffix.lower()
    try:
        if suffix in TEXT_SUFFIXES:
            return read_text(lambda: cast(BinaryIO, gzip.GzipFile(path)) if zipped else path.open("rb"), str(path), suffix)
        if suffix in ARROW_SUFFIXES and not zipped:
            return _read_arrow_file(path, suffix)
    except (OSError, EOFError, zlib.error) as error:
        raise FileUnreadable(f"{path}: {error}", "a file that can be read to its end", "check its permissions, or get it again") from error
    known = ", ".join((*TEXT_SUFFIXES, *ARROW_SUFFIXES))
    raise FileUnreadable(f"{path} has the unknown extension {path.suffix!r}", f"known: {known}", "convert it, e.g. save it as CSV")


def _require_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise FileUnreadable(f"{path} is a folder", "a file", "name the file in it")
        if path.exists():
            return
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
    except OSError as error:
        raise FileNotFound(f"{str(path)[:80]!r}: {error.strerror}", "an existing file", "check the path") from error
    where = "" if path.parent.is_dir() else f", nor a folder {str(path.parent)!r}"
    raise FileNotFound(f"no file {str(path)!r}{where}.{nearest(path.name, siblings)}", "an existing file", "check the path")


def _read_standard_input() -> Draft:
    content = sys.stdin.buffer.read()
    draft = read_text(lambda: io.BytesIO(content), "standard input", sniff_suffix(content))
    if list(draft.columns) == ["text"]:
        draft.notes.append("standard input was read as one text a line")
    return draft


def _read_arrow_file(path: Path, suffix: str) -> Draft:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        if path.stat().st_size == 0:
            raise FileUnreadable(f"{path} is empty", f"a {suffix} file", "check how it was written")
        if suffix == ".parquet":
            with pa.parquet.ParquetFile(path) as file:
                return _from_arrow(file.read(), str(path))
        with pa.OSFile(str(path)) as file:
            is_file = file.read(6) == b"ARROW1"  # else the stream format, as the datasets library writes it
            file.seek(0)
            with (pa.ipc.open_file if is_file else pa.ipc.open_stream)(file) as reader:
                return _from_arrow(reader.read_all(), str(path))
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        reason = str(error).split("\n")[0][:200]
        raise FileUnreadable(f"{path}: {reason}", f"an undamaged {suffix} file", "write or download it again") from error


def _from_arrow(table: Any, source: str) -> Draft:
    require_distinct(table.column_names, source)
    return _from_columns(table.to_pydict(), source)


def _read_object(source: Any) -> Draft:
    """Frames are recognised by the library their class is from, so that none needs to be imported."""
    library, kind = type(source).__module__.split(".")[0], type(source).__name__
    if (library, kind) == ("pandas", "DataFrame"):
        require_distinct([str(c) for c in source.columns], "the pandas frame")
        present = source.astype(object)
        return _from_columns(present.where(present.notna(), None).to_dict(orient="list"), "the pandas frame")
    if (library, kind) == ("polars", "DataFrame"):
        return _from_columns(source.to_dict(as_series=False), "the polars frame")
    if (library, kind) == ("pyarrow", "Table"):
        return _from_arrow(source, "the Arrow table")
    if (library, kind) == ("datasets", "Dataset"):
        return _from_dataset(source)
    if isinstance(source, Mapping) and kind != "DatasetDict":
        return _from_columns(source, "the mapping of columns")
    if isinstance(source, Sequence) and not isinstance(source, (bytes, bytearray)):
        return _from_list(source)
    hint = f"give one of its splits: {', '.join(map(str, source))}" if kind == "DatasetDict" else "convert it to one of these"
    raise DataError(f"{kind} is not a table", "a path, a frame, a Dataset, a mapping of columns, a list of dicts or of strings", hint)


def _from_dataset(source: Any) -> Draft:
    """A Hugging Face ``Dataset``; numbers of a ``ClassLabel`` become the names they stand for (-1: missing); media stay encoded."""
    for name, feature in source.features.items():
        if type(feature).__name__ in ("Image", "Audio"):
            source = source.cast_column(name, type(feature)(decode=False))
    columns = dict(source.with_format(None)[:])
    for name, feature in source.features.items():
        if hasattr(feature, "int2str"):
            columns[name] = [None if v is None or v < 0 else feature.int2str(v) for v in columns[name]]
    return _from_columns(columns, "the dataset")


def _from_list(source: Sequence[Any]) -> Draft:
    draft = Draft("the list", unit="row")
    for row, item in enumerate(source, 1):
        record = {"text": item} if isinstance(item, str) else item
        if isinstance(record, Mapping):
            draft.add(row, {str(name): value for name, value in record.items()})
        else:
            draft.reject(row, "neither a dict nor a string", f"it is a {type(item).__name__}")
    return draft


def _from_columns(columns: Mapping[Any, Any], source: str) -> Draft:
    require_distinct([str(name) for name in columns], source)
    plain: dict[str, list[Any]] = {}
    for name, values in columns.items():
        if isinstance(values, (str, bytes, Mapping)) or not hasattr(values, "__iter__"):
            raise DataError(f"column {name!r} of {source} is a {type(values).__name__}", "a list of values", "give one value a row")
        plain[str(name)] = [_plain_value(v) for v in values]
    lengths = {name: len(values) for name, values in plain.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the columns of {source} differ in length: {lengths}", "columns of equal length", "give one value a row")
    n = next(iter(lengths.values()), 0)
    return Draft(source, "row", plain, list(range(1, n + 1)))


def _plain_value(value: Any) -> Any:
    """NumPy numbers and short arrays, as frames hold them, as Python's own; pixels and waves stay arrays."""
    keep = getattr(value, "ndim", 0) > 1 or (getattr(value, "ndim", 0) == 1 and value.dtype.kind == "f")
    return value.tolist() if hasattr(value, "tolist") and not keep else value


# Out ----------------------------------------------------------------------------------------------------------------------------------


def write_records(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write records as CSV, JSONL or Parquet, by extension; the file appears whole or not at all.

    In CSV and Parquet the mapping ``probabilities`` becomes columns ``probability_<label>``; in CSV a list becomes ``a|b``.

    Raises:
        BadOption: The extension is unknown, or it cannot be written there.
        DiskFull: No space left.
    """
    with writing(path) as write:
        write(records)


@contextmanager
def writing(path: Path) -> Iterator[Callable[[Sequence[Mapping[str, Any]]], None]]:
    """As ``write_records``, for records that come in blocks: gives what takes a block. All have the columns of the first; CSV and JSONL
    are written as they come, Parquet at the end.

    Raises:
        BadOption: The extension is unknown, or it cannot be written there.
        DiskFull: No space left.
    """
    require_writable(path)
    from warmstart.engine.store import replacing  # brings torch, which reading does not need

    suffix = path.suffix.lower()
    columns: list[str] = []
    whole: list[Mapping[str, Any]] = []
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:

            def write(records: Sequence[Mapping[str, Any]]) -> None:
                if suffix == ".csv":
                    _write_csv(file, records, columns)
                elif suffix == ".jsonl":
                    _write_jsonl(file, records)
                else:
                    whole.extend(records)

            yield write
            if suffix == ".parquet":
                _write_parquet(file, whole)
    except OSError as error:
        raise BadOption(f"cannot write {path}: {error.strerror or error}", "a file that can be written", "choose another place") from error


def require_writable(path: Path) -> None:
    """Look before the work is done whether ``write_records`` could write there.

    Raises:
        BadOption: The extension is unknown.
    """
    if path.suffix.lower() not in WRITTEN_SUFFIXES:
        raise BadOption(f"{path} has the extension {path.suffix!r}", f"known: {', '.join(WRITTEN_SUFFIXES)}", "choose one of these")


def _write_jsonl(file: BinaryIO, records: Sequence[Mapping[str, Any]]) -> None:
    for record in records:
        # Half of a surrogate pair has no UTF-8 form; as an escape it is valid JSON.
        file.write((json.dumps(record, ensure_ascii=False, default=_plain) + "\n").encode("utf-8", "backslashreplace"))


def _write_csv(file: BinaryIO, records: Sequence[Mapping[str, Any]], columns: list[str]) -> None:
    """Rows, and before the first ``columns``, which are settled by it."""
    found = _flattened(records)
    header = [] if columns else [list(found)]
    if not columns:
        columns.extend(found)
    text = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", newline="")
    plain = csv.writer(text, lineterminator="\n")
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)  # csv forgets to quote a carriage return
    for row in (*header, *zip(*(found.get(name, [None] * len(records)) for name in columns), strict=True)):
        cells = [_cell(value) for value in row]
        (quoted if any("\r" in c for c in cells) else plain).writerow(cells)
    text.detach()  # flushes, and leaves the file to its owner


def _write_parquet(file: BinaryIO, records: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    arrays = {}
    for name, values in _flattened(records).items():
        try:
            arrays[_cell(name)] = pa.array(values)
        except (pa.ArrowException, UnicodeEncodeError, OverflowError):  # values of several types, or half of a surrogate pair
            arrays[_cell(name)] = pa.array([None if v is None else _cell(v).encode("utf-8", "backslashreplace").decode() for v in values])
    pa.parquet.write_table(pa.table(arrays), file)


def _flattened(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for i, record in enumerate(records):
        flat = {name: value for name, value in record.items() if name != "probabilities"}
        flat |= {f"probability_{label}": value for label, value in record.get("probabilities", {}).items()}
        for name, value in flat.items():
            column = columns.setdefault(name, [])
            column.extend([None] * (i - len(column)))
            column.append(value)
    for column in columns.values():
        column.extend([None] * (len(records) - len(column)))
    return columns


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return "|".join(_cell(v) for v in value)
    return json.dumps(value, ensure_ascii=False, default=_plain) if isinstance(value, dict) else str(value)


def _plain(value: Any) -> Any:
    """NumPy numbers as Python's, anything else that JSON lacks (a date) as text."""
    return value.item() if hasattr(value, "item") else str(value)
