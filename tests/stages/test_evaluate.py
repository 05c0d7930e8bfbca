"""evaluate: labelled rows measured, and rows that cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import warmstart as package
from tiny_text import rows, write_csv

Run = Callable[..., tuple[int, Any, str]]
TABLE = rows(120, seed=21)


@pytest.fixture(scope="module")
def model(adapted: Callable[..., Path]) -> Path:
    return adapted("--strategy", "linear_probe")


def test_the_numbers_are_those_of_the_predictions(model: Path, tmp_path: Path, warmstart: Run) -> None:
    code, report, _ = warmstart("evaluate", model, write_csv(tmp_path / "more.csv", TABLE), "--out", tmp_path / "report")
    assert code == 0
    found = package.load(model).predict([row["text"] for row in TABLE])
    truths = [row["label"] for row in TABLE]
    accuracy = np.mean([record["label"] == truth for record, truth in zip(found, truths, strict=True)])
    loss = -np.mean([np.log(record["probabilities"][truth]) for record, truth in zip(found, truths, strict=True)])
    assert report["metrics"]["accuracy"]["value"] == pytest.approx(accuracy)
    assert report["metrics"]["log_loss"]["value"] == pytest.approx(loss)
    for metric in report["metrics"].values():
        assert metric["low"] <= metric["value"] <= metric["high"]
        assert metric["n"] == 120
    assert report["strategy"] == "linear_probe"
    assert "ladder" not in report
    written = json.loads((tmp_path / "report" / "report.json").read_text())
    assert written["metrics"] == report["metrics"]
    assert sum(map(sum, written["confusion"])) == 120
    assert sum(b["n"] for b in written["reliability"]) == 120
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<html" in page
    assert warmstart("evaluate", model, tmp_path / "more.csv", "--out", tmp_path / "report")[1]["error"]["kind"] == "FolderExists"
    assert warmstart("evaluate", model, tmp_path / "more.csv", "--out", tmp_path / "report", "--force")[0] == 0


def test_rows_with_labels_that_the_model_does_not_know(model: Path, tmp_path: Path, warmstart: Run) -> None:
    table = [*TABLE[:60], *({"text": f"the weather {i}", "label": "weather"} for i in range(4))]
    code, report, _ = warmstart("evaluate", model, write_csv(tmp_path / "more.csv", table))
    assert (code, report["metrics"]["accuracy"]["n"]) == (0, 64)
    assert any("4 rows carry the label 'weather'" in warning for warning in report["warnings"])
    code, printed, err = warmstart("evaluate", model, write_csv(tmp_path / "other.csv", table[60:]))
    assert (code, printed["error"]["kind"]) == (2, "DataError")
    assert "'weather'" in err


WRONG: list[tuple[dict[str, Any], list[str], str, str]] = [
    ({"text": "", "label": "cards"}, [], "DataError", "empty text"),
    ({"text": "my card", "label": ""}, [], "DataError", "missing label"),
    ({"text": "my card", "label": "cards"}, ["--column", "label=lable"], "ColumnNotFound", "'label'"),
    ({"text": "my card", "label": "cards"}, ["--column", "lable=label"], "BadOption", "'label'"),
]


@pytest.mark.parametrize(("row", "flags", "kind", "said"), WRONG, ids=[f"{said} {' '.join(flags)}" for _, flags, _, said in WRONG])
def test_wrong_rows(row: dict[str, Any], flags: list[str], kind: str, said: str, model: Path, tmp_path: Path, warmstart: Run) -> None:
    data = write_csv(tmp_path / "more.csv", [*TABLE[:10], row])
    code, printed, err = warmstart("evaluate", model, data, *flags)
    assert (code, printed["error"]["kind"]) == (2, kind)
    assert said in err
    assert err.count("\n") == 1


def test_bad_rows_are_left_out_and_counted(model: Path, tmp_path: Path, warmstart: Run) -> None:
    data = write_csv(tmp_path / "more.csv", [*TABLE[:10], {"text": "", "label": "cards"}, {"text": "my card", "label": ""}])
    code, report, _ = warmstart("evaluate", model, data, "--skip-bad")
    assert (code, report["metrics"]["accuracy"]["n"]) == (0, 10)
    assert [warning.removeprefix(f"1 row of {data} was ") for warning in report["warnings"] if "left out" in warning] == [
        "left out: empty text (line 12)",
        "left out: missing label (line 13)",
    ]


def test_unlabelled_rows_are_refused(model: Path, tmp_path: Path, warmstart: Run) -> None:
    data = write_csv(tmp_path / "more.csv", [{"text": row["text"], "id": i} for i, row in enumerate(TABLE)])
    code, printed, err = warmstart("evaluate", model, data)
    assert (code, printed["error"]["kind"]) == (2, "ColumnNotFound")
    assert "--column label=" in err


def test_several_labels_a_row(tmp_path: Path, backbone: Path, warmstart: Run) -> None:
    table = [{"text": f"{row['text']} loan", "label": f"{row['label']}|loans" if i % 4 else row["label"]} for i, row in enumerate(TABLE)]
    data = write_csv(tmp_path / "data.csv", table)
    args = ["adapt", data, "--backbone", backbone, "--strategy", "classic", "--out", tmp_path / "m", "--quiet"]
    assert warmstart(*args)[0] == 0
    code, report, _ = warmstart("evaluate", tmp_path / "m", data)
    assert (code, report["task"]) == (0, "multilabel")
    assert report["metrics"]["example_f1"]["value"] > 0.8
