"""The embedded default for sound: found without a network, used where no body is named, its licence handed on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import tiny_sound
import warmstart
from warmstart.core import card, registry
from warmstart.core.card import Card
from warmstart.core.recipe import Recipe
from warmstart.engine import extraction, sources, store
from warmstart.stages import models, predict


def test_it_lies_in_the_package_and_is_small() -> None:
    part = registry.create("backbones", "soundnet")
    folder = part.find("soundnet")
    assert part.known() == {"soundnet": folder}
    assert part.find("soundne") is None
    assert Path(warmstart.__file__).parent in folder.parents
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4e6
    assert extraction.of(folder).rate == extraction.rate_of(folder) == 16_000
    body = store.load_body(folder)
    assert sum(p.numel() for p in body.parameters()) < 2e6
    assert card.licence(folder) == "apache-2.0"
    (row,) = [row for row in models.run() if row.name == "soundnet"]
    assert (row.licence, row.architecture) == ("apache-2.0", "warmstart-soundnet")


def test_it_is_what_sound_starts_from(tmp_path: Path) -> None:
    sounds, labels = tiny_sound.vowels(60)
    data = {"audio": sounds, "label": labels.tolist()}
    recipe, _, note = sources.resolve(Recipe(), data)
    assert (recipe.modality, recipe.backbone, note) == ("audio", "soundnet", "")
    warmstart.adapt(data, strategy="linear_probe", budget="60s", out=tmp_path / "model")
    found = Card.read(tmp_path / "model")
    assert (found.backbone.name, found.backbone.licence) == ("soundnet", "apache-2.0")
    more, expected = tiny_sound.vowels(40, seed=1)
    rows = list(predict.run(tmp_path / "model", more))
    assert np.mean([row["label"] == label for row, label in zip(rows, expected, strict=True)]) > 0.6
    assert [row["probabilities"] for row in warmstart.load(tmp_path / "model").predict(more)] == [row["probabilities"] for row in rows]
