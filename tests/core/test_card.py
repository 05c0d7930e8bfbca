"""Cards: written last, read strictly, and every byte of the folder accounted for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from warmstart.core import card
from warmstart.core.card import Body, Card, Source
from warmstart.core.errors import DamagedModel, NotAModel
from warmstart.core.report import Metric

CARD = Card(
    verb="adapt",
    task="classes",
    modality="text",
    strategy="tail",
    labels=("bad", "größe"),
    columns={"text": "review", "label": "stars"},
    backbone=Body("org/tiny", "abc", "mit", 1234),
    data=Source("reviews.csv", 100, "def"),
    head="native",
    temperature=1.5,
    parents=("org/tiny",),
    metrics={"accuracy": Metric(0.9, 0.85, 0.95, 50)},
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "features").mkdir()
    (tmp_path / "features" / "a.json").write_text("{}")
    (tmp_path / "README.md").write_text(card.readme(CARD, CARD.metrics))
    return tmp_path


def test_written_reads_back(folder: Path) -> None:
    written = CARD.write(folder)
    assert Card.read(folder) == written
    assert set(written.hashes) == {"model.safetensors", "features/a.json", "README.md"}
    written.verify(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "card.json", "features", "model.safetensors"]


def test_verify_names_what_was_changed(folder: Path) -> None:
    written = CARD.write(folder)
    (folder / "README.md").write_text("my own words")
    written.verify(folder)
    (folder / "features" / "a.json").write_text("{ }")
    with pytest.raises(DamagedModel, match=r"a\.json was changed"):
        written.verify(folder)
    (folder / "features" / "a.json").unlink()
    with pytest.raises(DamagedModel, match=r"a\.json is missing"):
        written.verify(folder)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "has no card.json"),
        ("{", "cannot be read"),
        ("[]", "is not a model card"),
        ('{"format": 1}', "is not a model card"),
        (json.dumps({"format": card.FORMAT + 1}), "has format"),
    ],
)
def test_what_a_bad_card_says(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "card.json").write_text(content)
    with pytest.raises(NotAModel, match=said) as caught:
        Card.read(tmp_path)
    assert caught.value.do


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(NotAModel, match="no model folder"):
        Card.read(tmp_path / "none")


def test_fields_of_a_later_version_are_dropped(folder: Path) -> None:
    CARD.write(folder)
    given = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    (folder / "card.json").write_text(json.dumps({**given, "mood": "good"}), encoding="utf-8")
    assert Card.read(folder).labels == ("bad", "größe")


def test_readme_says_what_was_measured_and_how_to_load() -> None:
    text = card.readme(CARD, CARD.metrics)
    front = text.split("---\n")[1]
    assert 'license: "mit"' in front
    assert 'base_model: "org/tiny"' in front
    assert "pipeline_tag: text-classification" in front
    assert "| accuracy | 0.900 [0.850, 0.950]  n=50 |" in text
    assert 'pipeline("text-classification"' in text
    local = card.readme(dataclasses.replace(CARD, head="pooled", backbone=Body("/home/me/tiny", "abc", "unknown", 5)), {})
    assert "base_model" not in local
    assert "AutoModel.from_pretrained" in local
    assert "pipeline(" not in local
    assert "AutoModel" not in card.readme(dataclasses.replace(CARD, head="none"), {})


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlanguage: en\nlicense: apache-2.0\n---\n# A", "apache-2.0"),
        ("---\nlicense: 'mit'\n---", "mit"),
        ("---\ntags: []\n---\nlicense: mit", "unknown"),
        ("", "unknown"),
    ],
)
def test_licence(tmp_path: Path, text: str, licence: str) -> None:
    (tmp_path / "README.md").write_text(text)
    assert card.licence(tmp_path) == licence


def test_licence_of_a_model_folder_is_its_card_s(folder: Path) -> None:
    CARD.write(folder)
    assert card.licence(folder) == "mit"
    assert card.licence(folder / "none") == "unknown"
