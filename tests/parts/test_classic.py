"""The two rungs without a pre-trained body, on real text features."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from warmstart.core import registry
from warmstart.engine import sparse_linear
from warmstart.engine.balance import Balance
from warmstart.engine.calibration import probabilities
from warmstart.engine.clock import Pace
from warmstart.engine.job import Job

SUBJECTS = {
    "food": ("soup", "bread", "salt", "dinner"),
    "sport": ("goal", "match", "coach", "league"),
    "money": ("bank", "loan", "debt", "tax"),
}


def bench(n: int, *, link: str = "softmax", classes: int = 3, absent: int = 0) -> Any:
    """Sentences with a telling word or two among fillers; ``absent`` more classes that no row has."""
    rng = np.random.default_rng(0)
    words = list(SUBJECTS.values())[:classes]
    targets = np.arange(n) % classes
    inputs = [(f"the {rng.choice(words[c])} was a {rng.choice(['good', 'bad', 'late'])} {rng.choice(words[c])} today",) for c in targets]
    encoded = targets if link == "softmax" else np.eye(classes + absent, dtype=np.float32)[targets]
    modality = registry.create("modalities", "text")
    task = SimpleNamespace(link=link)
    return SimpleNamespace(
        inputs=inputs,
        targets=encoded,
        n_classes=classes + absent,
        task=task,
        modality=modality,
        seed=0,
        measured={},
        classes=targets,
        balance=Balance(),
    )


def climb(name: str, rows: Any, train: np.ndarray, held: np.ndarray, **options: Any) -> Any:
    part = registry.create("strategies", name, options=options)
    plan = part.plan(rows, train=train, held=held, seconds=1e9)
    assert plan is not None
    assert not plan.shortened
    return part.fit(rows, train, held, Job("fold0", plan.settings, 0, Pace(plan.seconds)))


def reloaded(name: str, fitted: Any, rows: Any, folder: Path, temperature: float) -> Any:
    fitted.predictor.save(folder, labels=["x"] * rows.n_classes, temperature=temperature)
    where = {"device": torch.device("cpu"), "precision": torch.float32, "max_length": 128}
    return registry.module("strategies", name).load(folder, modality=rows.modality, **where)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("name", ["classic", "majority"])
def test_saved_and_loaded_predicts_the_same(name: str, link: str, tmp_path: Path) -> None:
    rows = bench(60, link=link)
    fitted = climb(name, rows, np.arange(40), np.arange(40, 60))
    assert fitted.held_logits.shape == (20, 3)
    assert fitted.held_logits.dtype == np.float32
    assert np.array_equal(fitted.predictor.logits(rows.inputs[40:]), fitted.held_logits)
    again = reloaded(name, fitted, rows, tmp_path / "same", 1.0)
    assert np.array_equal(again.logits(rows.inputs[40:]), fitted.held_logits)
    cooler = reloaded(name, fitted, rows, tmp_path / "cooler", 2.0)
    np.testing.assert_allclose(cooler.logits(rows.inputs[40:]), fitted.held_logits / 2, rtol=1e-4, atol=1e-6)
    assert not list(tmp_path.rglob("*.pkl"))


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_classic_learns_and_its_logits_are_probabilities(link: str) -> None:
    rows = bench(150, link=link)
    fitted = climb("classic", rows, np.arange(100), np.arange(100, 150))
    p = probabilities(fitted.held_logits, link)
    assert (p.argmax(1) == rows.classes[100:]).all()
    assert p[np.arange(50), rows.classes[100:]].min() > 0.6
    assert fitted.note.startswith("C ")
    assert fitted.trainable > 3 * 50


def test_majority_is_the_smoothed_frequency() -> None:
    rows = bench(10, classes=2, absent=1)
    rows.targets = np.array([0] * 8 + [1] * 2)
    fitted = climb("majority", rows, np.arange(10), np.arange(10)[:0])
    assert fitted.held_logits.shape == (0, 3)
    np.testing.assert_allclose(np.exp(fitted.predictor.logits(rows.inputs[:1])), [[9 / 13, 3 / 13, 1 / 13]], rtol=1e-5)


def test_majority_of_several_labels_is_the_frequency_of_each() -> None:
    rows = bench(10, link="sigmoid", classes=2)
    rows.targets = np.array([[1, 0]] * 9 + [[0, 0]], np.float32)
    fitted = climb("majority", rows, np.arange(10), np.arange(1))
    np.testing.assert_allclose(probabilities(fitted.held_logits, "sigmoid"), [[10 / 12, 1 / 12]], rtol=1e-5)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("n", [1, 3, 16])
def test_classic_with_few_rows_and_missing_classes(n: int, link: str) -> None:
    rows = bench(40, link=link, absent=4)
    fitted = climb("classic", rows, np.arange(n), np.arange(n, 40))
    assert np.isfinite(fitted.held_logits).all()
    p = probabilities(fitted.held_logits, link)
    assert p[:, 3:].max() < 0.5
    assert p[:, 3:].min() > 0


def test_a_fixed_c_is_taken() -> None:
    rows = bench(60)
    assert climb("classic", rows, np.arange(50), np.arange(50, 60), c="0.7").note.startswith("C 0.7,")


def test_the_same_seed_gives_the_same_bits() -> None:
    first, second = (climb("classic", bench(90), np.arange(60), np.arange(60, 90)).held_logits for _ in range(2))
    assert np.array_equal(first, second)


def test_cost_grows_with_rows_and_too_little_time_means_fewer_rows() -> None:
    rows = bench(900)
    part = registry.create("strategies", "classic")
    few, many = (part.plan(rows, train=np.arange(n), held=np.arange(0), seconds=1e9).seconds for n in (100, 800))
    assert many > 2 * few > 0
    shorter = part.plan(rows, train=np.arange(800), held=np.arange(0), seconds=many / 2)
    assert shorter.shortened
    assert shorter.settings == {"rows": 200}
    fitted = part.fit(rows, np.arange(800), np.arange(800, 900), Job("fold0", shorter.settings, 0, Pace(1e9)))
    assert "200 rows" in fitted.note
    assert part.plan(rows, train=np.arange(800), held=np.arange(0), seconds=0.0) is None


def test_many_values_are_drawn_from_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_linear, "MAX_VALUES", 500)
    rng = np.random.default_rng(0)
    targets = np.arange(1_200) % 2
    features = sparse.csr_matrix(np.eye(4, dtype=np.float32)[2 * targets + rng.integers(0, 2, 1_200)])
    model = sparse_linear.fit(features, targets, link="softmax", n_classes=2, seed=0)
    assert (model.logits(features).argmax(1) == targets).all()


def test_uninformative_features_give_unsure_probabilities() -> None:
    rng = np.random.default_rng(0)
    features = sparse.random(600, 400, density=0.03, format="csr", dtype=np.float32, random_state=0)
    targets = rng.integers(0, 3, 600)
    model = sparse_linear.fit(features[:400], targets[:400], link="softmax", n_classes=3, seed=0)
    p = probabilities(model.logits(features[400:]), "softmax")
    assert -np.log(p[np.arange(200), targets[400:]]).mean() < np.log(3) + 0.1
