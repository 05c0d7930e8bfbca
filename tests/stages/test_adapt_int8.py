"""adapt --precision int8: measured before it is taken, told in the report, followed by the recipe, and served as it was fitted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import warmstart as package
from tiny_text import rows, write_csv
from warmstart.engine import device

pytestmark = pytest.mark.skipif(not device.has_int8(torch.device("cpu")), reason="the processor has no AVX-512 VNNI")


def test_the_choice_is_measured_told_and_followed(tmp_path: Path, backbone: Path) -> None:
    write_csv(tmp_path / "train.csv", rows(700))
    write_csv(tmp_path / "test.csv", rows(60, seed=1))
    given = {"test": tmp_path / "test.csv", "backbone": backbone, "strategy": "linear_probe", "precision": "int8"}
    model = package.adapt(tmp_path / "train.csv", out=tmp_path / "first", **given)
    report = json.loads((tmp_path / "first" / "report.json").read_text())
    told = next(text for text in report["warnings"] if text.startswith("int8 was"))
    plan = json.loads((tmp_path / "first" / "recipe.json").read_text())["plan"]
    assert plan["int8"]["sentence"] == told
    assert "held-out rows: " in told
    precision = json.loads((tmp_path / "first" / "warmstart.json").read_text())["precision"]
    assert (precision == "int8") is plan["int8"]["taken"] is told.startswith("int8 was taken")

    for taken in (True, False):  # a plan is followed, whatever a measurement would say now
        recipe = json.loads((tmp_path / "first" / "recipe.json").read_text())
        recipe["plan"]["int8"]["taken"] = taken
        (tmp_path / "recipe.json").write_text(json.dumps(recipe))
        again = package.adapt(tmp_path / "train.csv", out=tmp_path / str(taken), recipe=tmp_path / "recipe.json")
        if taken is plan["int8"]["taken"]:
            sentences = [row["text"] for row in rows(20, seed=3)]
            assert again.predict(sentences) == model.predict(sentences)
            assert (tmp_path / str(taken) / "head.safetensors").read_bytes() == (tmp_path / "first" / "head.safetensors").read_bytes()
        settings = json.loads((tmp_path / str(taken) / "warmstart.json").read_text())
        assert (settings["precision"] == "int8") is taken
