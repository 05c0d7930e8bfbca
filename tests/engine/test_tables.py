"""Readers and writers of tables: what goes in comes out, and whatever is wrong is named with its line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import resource
import string
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from warmstart.core.errors import BadOption, DataError, DiskFull, FileNotFound, FileUnreadable, WarmstartError
from warmstart.engine.tables import Table, read_table, write_records

ROWS = [{"text": "good, really", "label": "pos"}, {"text": 'a "bad"\nfilm', "label": "neg"}, {"text": "größer 好 🙂", "label": "pos"}]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}


def file(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def message(kind: type[WarmstartError], source: Any, *, skip_bad: bool = False) -> str:
    with pytest.raises(kind) as caught:
        read_table(source, skip_bad=skip_bad)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_written_records_are_read_again(tmp_path: Path, name: str) -> None:
    write_records(tmp_path / name, ROWS)
    assert read_table(tmp_path / name).columns == COLUMNS
    assert [p.name for p in tmp_path.iterdir()] == [name]


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NAMES = st.text(string.ascii_letters + "éß好 \n\"'", min_size=1, max_size=6)
TABLES = st.lists(NAMES, min_size=1, max_size=4, unique=True).flatmap(
    lambda names: st.lists(st.fixed_dictionaries(dict.fromkeys(names, CELLS)), min_size=1, max_size=6)
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=TABLES, suffix=st.sampled_from(["csv", "jsonl", "parquet"]))
def test_any_unicode_table_survives_the_round_trip(tmp_path: Path, records: list[dict[str, str]], suffix: str) -> None:
    path = tmp_path / f"table.{suffix}"
    write_records(path, records)
    assert read_table(path).columns == {name: [r[name] for r in records] for name in records[0]}


SOUP = st.one_of(
    st.binary(max_size=300),
    st.text('abc,;\t|"\r\n{}[]:', max_size=200).map(str.encode),
    st.binary(max_size=60).map(lambda b: b"PAR1" + b + b"PAR1"),
    st.binary(max_size=60).map(lambda b: b"ARROW1\0\0" + b),
    st.binary(max_size=60).map(lambda b: b"\x1f\x8b\x08" + b),
)
SUFFIXES = [".csv", ".tsv", ".jsonl", ".json", ".txt", ".parquet", ".arrow", ".csv.gz", ".jsonl.gz"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=SOUP, suffix=st.sampled_from(SUFFIXES), skip_bad=st.booleans())
def test_arbitrary_bytes_give_a_table_or_one_of_our_errors(tmp_path: Path, content: bytes, suffix: str, skip_bad: bool) -> None:
    path = file(tmp_path, f"soup{suffix}", content)
    try:
        table = read_table(path, skip_bad=skip_bad)
    except WarmstartError as error:
        assert error.do  # noqa: PT017 - either outcome is right
    else:
        assert all(len(values) == len(table.rows) > 0 for values in table.columns.values())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_parquet_file_is_never_a_traceback(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.parquet"
    write_records(path, ROWS * 5)
    whole = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=3)):
        whole[at] ^= 0xFF
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        read_table(path)
    except WarmstartError as error:
        assert str(path) in error.given  # noqa: PT017 - either outcome is right


def test_rows_are_the_lines_on_which_records_begin(tmp_path: Path) -> None:
    path = file(tmp_path, "a.csv", 'text,label\r\n"two\r\nlines",a\r\n\r\nthree,b\r\n')
    table = read_table(path)
    assert (table.rows, table.unit) == ([2, 5], "line")
    assert table.columns["text"] == ["two\r\nlines", "three"]


def test_byte_order_mark_and_gzip_are_no_obstacle(tmp_path: Path) -> None:
    for name in ("a.csv", "b.jsonl"):
        write_records(tmp_path / name, ROWS)
        marked = b"\xef\xbb\xbf" + (tmp_path / name).read_bytes()
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(marked))
        assert read_table(tmp_path / f"{name}.gz").columns == COLUMNS


@pytest.mark.parametrize(("delimiter", "said"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")])
def test_another_delimiter_is_found_and_said(tmp_path: Path, delimiter: str, said: str) -> None:
    table = read_table(file(tmp_path, "a.csv", f"text{delimiter}label\ngood, so good{delimiter}pos\n"))
    assert table.columns == {"text": ["good, so good"], "label": ["pos"]}
    assert said in table.notes[0]


def test_tsv_with_and_without_quoting(tmp_path: Path) -> None:
    unquoted = read_table(file(tmp_path, "a.tsv", 'text\tlabel\n"Never closed\tneg\nso "what"\tpos\n'))
    assert unquoted.columns["text"] == ['"Never closed', 'so "what"']
    quoted = read_table(file(tmp_path, "b.tsv", 'text\tlabel\n"a ""b""\nc\td"\tpos\n'))
    assert quoted.columns == {"text": ['a "b"\nc\td'], "label": ["pos"]}


BAD_LINES = [
    ("a.csv", b"text,label\nfine,a\nno,comma,here\n", "line 3", "wrong number of cells"),
    ("a.csv", b"text,label\nfine,a\ncaf\xe9,b\n", "line 3", "not UTF-8"),
    ("a.csv", b"text,label\nfine,a\nnu\0l,b\n", "line 3", "NUL byte"),
    ("a.csv", b'text,label\nfine,a\n"never closed,b\nmore,c\n', "line 3", "a quotation mark that is never closed"),
    ("a.csv", b"text,label\nfine,a\nold\rmac,b\n", "line 3", "not CSV"),
    ("a.jsonl", b'{"text": "fine"}\n{"text": \n', "line 2", "broken JSON"),
    ("a.jsonl", b'{"text": "fine"}\n["a"]\n', "line 2", "not a JSON object"),
    ("a.jsonl", b'{"text": "fine"}\n' + b"[" * 100_000 + b"\n", "line 2", "broken JSON"),
    ("a.json", b'[{"text": "fine"}, 3]', "row 2", "not a JSON object"),
    ("a.txt", b"fine\ncaf\xe9\n", "line 2", "not UTF-8"),
]


@pytest.mark.parametrize(("name", "content", "where", "reason"), BAD_LINES)
def test_a_bad_line_is_named_or_counted(tmp_path: Path, name: str, content: bytes, where: str, reason: str) -> None:
    path = file(tmp_path, name, content)
    said = message(FileUnreadable, path)
    assert f"{path}, {where}: {reason}" in said
    table = read_table(path, skip_bad=True)
    assert table.left_out == {reason: 1}
    assert table.columns["text"] == ["fine"]


def test_a_hundred_megabyte_line_is_named_or_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("wb") as out:
        out.write(b"text,label\nfine,a\n")
        for _ in range(100):
            out.write(b"x" * 1_000_000)
        out.write(b",b\nlast,c\n")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "line 3: line longer than 10 MB" in message(FileUnreadable, path)
    table = read_table(path, skip_bad=True)
    assert table.columns["text"] == ["fine", "last"]
    assert table.rows == [2, 4]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # kilobytes


def test_a_huge_quoted_cell_is_refused(tmp_path: Path) -> None:
    path = file(tmp_path, "a.csv", 'text,label\nfine,a\n"' + ("x" * 99 + "\n") * 110_000 + '",b\n')
    assert "line 3: not CSV (field larger than field limit" in message(FileUnreadable, path)
    assert csv.field_size_limit() == 131_072


FILES = [
    ("a.csv", b"", "is empty"),
    ("a.jsonl", b" \n \n", "is empty"),
    ("a.parquet", b"", "is empty"),
    ("a.parquet", b"PAR1 this is no table PAR1", "undamaged"),
    ("a.arrow", b"nor is this", "undamaged"),
    ("a.csv.gz", b"text,label\n", "Not a gzipped file"),
    ("a.csv", "text,label\ngood,a\n".encode("utf-16"), "iconv -f UTF-16"),
    ("a.csv", "text,label\ngood,a\n".encode("utf-16-le"), "iconv -f UTF-16"),
    ("a.csv", b"text,text\ngood,a\n", "two columns named 'text'"),
    ("a.xlsx", b"PK", "Known: .csv"),
    ("a.json", b'[{"text": ', "Expecting value"),
    ("a.csv", "größe,label\n".encode("latin-1") + b"a,b\n", "iconv -f WINDOWS-1252"),
]


@pytest.mark.parametrize(("name", "content", "said"), FILES)
@pytest.mark.parametrize("skip_bad", [False, True])
def test_an_unreadable_file_says_why(tmp_path: Path, name: str, content: bytes, said: str, skip_bad: bool) -> None:
    assert said in message(FileUnreadable, file(tmp_path, name, content), skip_bad=skip_bad)


def test_missing_files_folders_and_empty_tables(tmp_path: Path) -> None:
    file(tmp_path, "reviews.csv", "text,label\n")
    assert "Did you mean 'reviews.csv'?" in message(FileNotFound, tmp_path / "review.csv")
    assert "nor a folder" in message(FileNotFound, tmp_path / "nowhere" / "a.csv")
    assert "Check the path" in message(FileNotFound, "a sentence, not a path " * 50)
    assert "is a folder" in message(FileUnreadable, tmp_path)
    assert "has no rows" in message(DataError, tmp_path / "reviews.csv")


def test_json_arrays_and_missing_keys(tmp_path: Path) -> None:
    path = file(tmp_path, "a.json", json.dumps([{"text": "a", "labels": ["x", "y"]}, {"text": "b", "id": 3}]))
    assert read_table(path).columns == {"text": ["a", "b"], "labels": [["x", "y"], None], "id": [None, 3]}


def frames() -> list[tuple[str, Any]]:
    pandas, polars, datasets = (pytest.importorskip(name) for name in ("pandas", "polars", "datasets"))
    return [
        ("pandas", pandas.DataFrame(COLUMNS)),
        ("polars", polars.DataFrame(COLUMNS)),
        ("datasets", datasets.Dataset.from_dict(COLUMNS)),
        ("arrow", pa.table(COLUMNS)),
        ("mapping", COLUMNS),
        ("list", ROWS),
    ]


def test_frames_and_lists_are_tables() -> None:
    for name, frame in frames():
        table = read_table(frame)
        assert table == Table(COLUMNS, [1, 2, 3], table.source), name


def test_frames_give_plain_values_and_none_for_missing_ones() -> None:
    pandas, datasets = pytest.importorskip("pandas"), pytest.importorskip("datasets")
    frame = pandas.DataFrame({"text": ["a", None], "stars": [1.0, float("nan")], "tags": [["x"], []]})
    assert read_table(frame).columns == {"text": ["a", None], "stars": [1.0, None], "tags": [["x"], []]}
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    named = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, -1]}, features=features)
    assert read_table(named).columns["label"] == ["pos", None]
    assert "train" in message(DataError, datasets.DatasetDict(train=named))


@pytest.mark.parametrize("source", [{"a": [1], "b": [1, 2]}, {"a": "text"}, {}, [], 3, None])
def test_what_is_no_table_is_refused(source: Any) -> None:
    message(DataError, source)


def test_parquet_and_arrow_as_other_programs_write_them(tmp_path: Path) -> None:
    table = pa.table({"text": pa.array(["a", "b"]).dictionary_encode(), "labels": [["x"], []]})
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    for make, name in ((pa.ipc.new_file, "file.arrow"), (pa.ipc.new_stream, "stream.arrow")):
        with make(tmp_path / name, table.schema) as writer:
            writer.write_table(table)
    for name in ("a.parquet", "file.arrow", "stream.arrow"):
        assert read_table(tmp_path / name).columns == {"text": ["a", "b"], "labels": [["x"], []]}


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        ('{"text": "a"}\n', {"text": ["a"]}),
        ("text,label\na b,x\n", {"text": ["a b"], "label": ["x"]}),
        ("I liked it, really.\nNot me, no.\n", {"text": ["I liked it, really.", "Not me, no."]}),
        ("text\na\n", {"text": ["a"]}),
        ("[1] a note\n", {"text": ["[1] a note"]}),
    ],
)
def test_standard_input_is_recognised(monkeypatch: pytest.MonkeyPatch, content: str, columns: dict[str, list[str]]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    assert read_table("-").columns == columns


def test_predictions_are_flattened_for_tables_and_kept_whole_in_json(tmp_path: Path) -> None:
    records = [{"label": ["a", "b"], "probabilities": {"a": 0.75, "b": 0.5}}, {"label": [], "probabilities": {"a": 0.25, "b": 0.0}}]
    for name in ("p.csv", "p.jsonl", "p.parquet"):
        write_records(tmp_path / name, records)
    assert (tmp_path / "p.csv").read_text() == "label,probability_a,probability_b\na|b,0.75,0.5\n,0.25,0.0\n"
    assert [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()] == records
    whole = pa.parquet.read_table(tmp_path / "p.parquet").to_pydict()
    assert whole == {"label": [["a", "b"], []], "probability_a": [0.75, 0.25], "probability_b": [0.5, 0.0]}


def test_half_a_surrogate_pair_and_mixed_types_can_be_written(tmp_path: Path) -> None:
    records = [{"text": "\ud83d", "id": 1}, {"text": "b", "id": "x"}]
    for name in ("p.csv", "p.jsonl", "p.parquet"):
        write_records(tmp_path / name, records)
        assert len(read_table(tmp_path / name).rows) == 2
    assert read_table(tmp_path / "p.jsonl").columns["text"] == ["\ud83d", "b"]


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match=r"Known: \.csv, \.jsonl, \.parquet"):
        write_records(tmp_path / "p.xlsx", ROWS)
    file(tmp_path, "p.csv", "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))
    try:
        with pytest.raises(DiskFull):
            write_records(tmp_path / "p.csv", ROWS * 1_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "p.csv").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["p.csv"]
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(BadOption, match="cannot write"):
        write_records(tmp_path / "folder.csv", ROWS)
