"""Documents from every format, streamed; what is no text is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from warmstart.core.errors import ColumnNotFound, DataError, FileNotFound, FileUnreadable
from warmstart.engine import corpus
from warmstart.engine.corpus import Texts

DOCUMENTS = ["One. Two!\nThree.", "Four, äöü 中文."]


def documents(texts: Texts) -> list[str]:
    found, open_ = [], ""
    for piece in texts.pieces():
        open_ += piece.text
        if piece.last:
            found.append(open_)
            open_ = ""
    assert open_ == ""
    return found


def write(folder: Path, suffix: str) -> Path:
    path = folder / f"corpus{suffix}"
    plain = f"\ufeff{DOCUMENTS[0]}\r\n \n\n{DOCUMENTS[1]}\n".encode()
    rows = [{"id": i, "body": text} for i, text in enumerate(DOCUMENTS)]
    if suffix in (".txt", ".md"):
        path.write_bytes(plain)
    elif suffix == ".txt.gz":
        path.write_bytes(gzip.compress(plain))
    elif suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row) for row in rows))
    elif suffix == ".json":
        path.write_text(json.dumps(rows))
    elif suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pa.Table.from_pylist(rows), path)
    else:
        delimiter = "\t" if suffix == ".tsv" else ","
        path.write_text(f"id{delimiter}body\n" + "".join(f'{i}{delimiter}"{text}"\n' for i, text in enumerate(DOCUMENTS)))
    return path


@pytest.mark.parametrize("suffix", [".txt", ".md", ".txt.gz", ".jsonl", ".json", ".csv", ".parquet"])
def test_every_format_gives_the_same_documents_and_hash(tmp_path: Path, suffix: str) -> None:
    texts = Texts(write(tmp_path, suffix))
    assert documents(texts) == DOCUMENTS
    survey, same = texts.survey(), Texts(DOCUMENTS).survey()
    assert (survey.documents, survey.characters, survey.hash) == (2, sum(map(len, DOCUMENTS)), same.hash)


def test_folders_patterns_and_lists_of_files(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name, text in {"b.txt": "second", "a.txt": "first", "in/c.txt": "third", ".hidden": "x"}.items():
        (tmp_path / name).write_text(text)
    assert documents(Texts(tmp_path)) == ["first", "second", "third"]
    assert documents(Texts(f"{tmp_path}/*.txt")) == ["first", "second"]
    assert documents(Texts([tmp_path / "b.txt", tmp_path / "in"])) == ["second", "third"]


def test_whole_keeps_every_character_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "PIECE", 40)
    text = "\n\nFirst  line\n\n  second " + "word " * 30 + "\n\nend"
    (tmp_path / "a.txt").write_text(text)
    texts = Texts(tmp_path / "a.txt", whole=True)
    assert documents(texts) == [text]
    assert max(len(piece.text) for piece in texts.pieces()) <= 40
    assert " ".join(documents(Texts(tmp_path / "a.txt"))).split() == text.split()


def test_a_column_is_inferred_or_given(tmp_path: Path) -> None:
    path = write(tmp_path, ".csv")
    texts = Texts(path)
    assert texts.notes == ["corpus.csv: the text is in column 'body'"]
    assert documents(Texts(path, column={"text": "id"})) == ["0", "1"]
    with pytest.raises(ColumnNotFound, match="Did you mean 'body'"):
        Texts(path, column={"text": "bodi"})


def test_bytes_that_are_not_utf8_are_named_or_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"good line\nbad \xff line\n\nlast\xe4")
    with pytest.raises(FileUnreadable, match=r"a\.txt, line 2: not UTF-8 \(0xff at byte 14 of the file\)"):
        Texts(path).survey()
    texts = Texts(path, skip_bad=True)
    assert texts.survey().left_out == {"not UTF-8": 2}
    assert documents(texts) == ["good line", "last"]
    path.write_text("a", encoding="utf-16")
    with pytest.raises(FileUnreadable, match=r"not UTF-8|NUL byte"):
        Texts(path).survey()


def test_rows_that_are_no_text_are_named_or_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n{"text": 3}\nnothing\n{"other": 1}\n{"text": "half \\ud800"}\n')
    with pytest.raises(FileUnreadable, match="line 2: not a string"):
        Texts(path).survey()
    texts = Texts(path, skip_bad=True)
    assert documents(texts) == ["fine"]
    assert texts.survey().left_out == {"not a string": 1, "not a JSON object": 1, "missing text": 1, "broken Unicode": 1}


@pytest.mark.parametrize(("name", "content", "error"), [("a.txt", b" \n\n", DataError), ("a.pdf", b"%PDF", FileUnreadable)])
def test_what_holds_no_text_is_refused(tmp_path: Path, name: str, content: bytes, error: type[Exception]) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(error):
        Texts(tmp_path / name).survey()


def test_no_such_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("x")
    with pytest.raises(FileNotFound, match=r"corpus\.txt"):
        Texts(tmp_path / "corpsu.txt")


def test_sentences() -> None:
    text = 'He came. "Why?" she said. It cost 3.50 dollars . Then\nthe end'
    assert corpus.sentences(text) == ["He came.", '"Why?" she said.', "It cost 3.50 dollars .", "Then", "the end"]
    assert corpus.sentences("你好。再见!Ok") == ["你好。", "再见!Ok"]
    assert corpus.sentences(" \n ") == []


def test_the_sample_is_bounded_and_the_same_each_time() -> None:
    texts = Texts([f"document number {i}" for i in range(2000)])
    first = list(corpus.sample(texts, characters=5_000, seed=1))
    assert 3_000 < sum(map(len, first)) < 7_000
    assert first == list(corpus.sample(texts, characters=5_000, seed=1)) != list(corpus.sample(texts, characters=5_000, seed=2))
