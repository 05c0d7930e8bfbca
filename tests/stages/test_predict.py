"""predict: every way in, every way out, and rows that cannot be used."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import warmstart as package
from tiny_text import LABELS, rows, write_csv
from warmstart import cli

Run = Callable[..., tuple[int, Any, str]]
TABLE = rows(30, seed=11)
TEXTS = [row["text"] for row in TABLE]


@pytest.fixture(scope="module")
def model(adapted: Callable[..., Path]) -> Path:
    return adapted("--strategy", "linear_probe")


@pytest.fixture(scope="module")
def expected(model: Path) -> list[dict[str, Any]]:
    return package.load(model).predict(TEXTS)


def test_sentences(model: Path, expected: list[dict[str, Any]], warmstart: Run) -> None:
    code, printed, err = warmstart("predict", model, *TEXTS)
    assert (code, err) == (0, "")
    assert printed == expected
    for record in printed:
        assert set(record["probabilities"]) == set(LABELS)
        assert sum(record["probabilities"].values()) == pytest.approx(1)


def test_one_sentence_and_people(model: Path, expected: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", str(model), TEXTS[0]]) == 0
    line = capsys.readouterr().out.split()
    assert line[:2] == [f"{expected[0]['probability']:.3f}", expected[0]["label"]]
    assert line[2:] == TEXTS[0].split()


def test_standard_input(model: Path, expected: list[dict[str, Any]], warmstart: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    content = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    code, printed, _ = warmstart("predict", model, "-")
    assert (code, printed) == (0, numbered(expected, first=1))


def numbered(records: list[dict[str, Any]], *, first: int) -> list[dict[str, Any]]:
    """Records as a file gives them: with their line (the header is line 1) or their number."""
    return [{"row": first + i, **record} for i, record in enumerate(records)]


@pytest.mark.parametrize("labelled", [True, False])
def test_a_file(labelled: bool, model: Path, expected: list[dict[str, Any]], tmp_path: Path, warmstart: Run) -> None:
    data = write_csv(tmp_path / "new.csv", TABLE if labelled else [{"text": text} for text in TEXTS])
    code, printed, _ = warmstart("predict", model, data)
    assert (code, printed) == (0, numbered(expected, first=2))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_written_by_extension(suffix: str, model: Path, expected: list[dict[str, Any]], tmp_path: Path, warmstart: Run) -> None:
    out = tmp_path / f"out{suffix}"
    code, printed, _ = warmstart("predict", model, write_csv(tmp_path / "new.csv", TABLE), "--out", out)
    assert (code, printed) == (0, {"out": str(out), "rows": 30})
    if suffix == ".jsonl":
        found = [json.loads(line) for line in out.read_text().splitlines()]
        assert found == [{"text": text, **record} for text, record in zip(TEXTS, numbered(expected, first=2), strict=True)]
        return
    flat = [
        {
            "row": r["row"],
            "text": text,
            "label": r["label"],
            "probability": r["probability"],
            **{f"probability_{k}": p for k, p in r["probabilities"].items()},
        }
        for text, r in zip(TEXTS, numbered(expected, first=2), strict=True)
    ]
    if suffix == ".parquet":
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(out) as file:
            assert file.read().to_pylist() == flat
        return
    with out.open(newline="") as file:
        assert list(csv.DictReader(file)) == [{name: str(value) for name, value in record.items()} for record in flat]


def test_nothing_is_overwritten_and_the_extension_is_checked_first(model: Path, tmp_path: Path, warmstart: Run) -> None:
    data = write_csv(tmp_path / "new.csv", TABLE)
    code, printed, _ = warmstart("predict", model, data, "--out", data)
    assert (code, printed["error"]["kind"]) == (2, "FolderExists")
    code, printed, _ = warmstart("predict", model, data, "--out", tmp_path / "out.xlsx")
    assert (code, printed["error"]["kind"]) == (2, "BadOption")
    assert [path.name for path in tmp_path.iterdir()] == ["new.csv"]
    assert warmstart("predict", model, data, "--out", tmp_path / "new" / "out.csv")[0] == 0
    assert (tmp_path / "new" / "out.csv").exists()


WRONG: list[tuple[list[dict[str, Any]], list[str], str, str]] = [
    ([{"text": "fine"}, {"text": " "}], [], "DataError", "2: empty text"),
    ([{"text": "fine"}, {"text": None}], [], "DataError", "2: missing text"),
    ([{"text": "fine"}, {"text": 5}], [], "DataError", "2: not a string"),
    ([{"text": "fine"}], ["--column", "text=txet"], "ColumnNotFound", "'text'"),
    ([{"number": 5}, {"number": 6}], [], "ColumnNotFound", "no column holds text"),
]


@pytest.mark.parametrize(("table", "flags", "kind", "said"), WRONG, ids=[said for *_, said in WRONG])
def test_wrong_rows(
    table: list[dict[str, Any]], flags: list[str], kind: str, said: str, model: Path, tmp_path: Path, warmstart: Run
) -> None:
    data = tmp_path / "new.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in table))
    code, printed, err = warmstart("predict", model, data, *flags, "--out", tmp_path / "out.csv")
    assert (code, printed["error"]["kind"]) == (2, kind)
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "out.csv").exists()


def test_bad_rows_can_be_left_out(model: Path, tmp_path: Path, warmstart: Run) -> None:
    data = tmp_path / "new.jsonl"
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in (TEXTS[0], "", TEXTS[1], None)))
    out = tmp_path / "out.jsonl"
    assert warmstart("predict", model, data, "--skip-bad", "--out", out)[:2] == (0, {"out": str(out), "rows": 2})
    assert [json.loads(line)["text"] for line in out.read_text().splitlines()] == TEXTS[:2]


def test_nan_in_a_frame(model: Path) -> None:
    pandas = pytest.importorskip("pandas")
    loaded = package.load(model)
    frame = pandas.DataFrame({"text": [TEXTS[0], float("nan")]})
    with pytest.raises(package.errors.DataError, match="missing text"):
        loaded.predict(frame)
    assert len(loaded.predict(frame, skip_bad=True)) == 1


def test_no_such_file_or_model(model: Path, tmp_path: Path, warmstart: Run) -> None:
    assert warmstart("predict", model, tmp_path / "none.csv")[1]["error"]["kind"] == "FileNotFound"
    assert warmstart("predict", tmp_path / "none", "text")[1]["error"]["kind"] == "NotAModel"
    assert warmstart("predict", tmp_path, "text")[1]["error"]["kind"] == "NotAModel"


def test_an_empty_list_is_no_error(model: Path) -> None:
    assert package.load(model).predict([]) == []


def test_many_rows_in_windows_are_the_same(model: Path) -> None:
    """More rows than go through at once, in one call and in parts."""
    loaded, texts = package.load(model), [row["text"] for row in rows(20_500, seed=4)]
    whole = loaded.probabilities([(text,) for text in texts])
    assert whole.shape == (20_500, 3)
    assert (whole[-40:] == loaded.probabilities([(text,) for text in texts[-40:]])).mean() > 0.9  # a lone row may round differently
    assert abs(whole[-40:] - loaded.probabilities([(text,) for text in texts[-40:]])).max() < 1e-5
