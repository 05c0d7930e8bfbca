"""Linear heads against scikit-learn, and where data are awkward."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from warmstart.core.errors import TrainingFailed
from warmstart.engine import calibration, linear


def blobs(n: int, n_features: int, n_classes: int, *, spread: float = 1.5, seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Overlapping clusters, with features of very different scales and offsets."""
    rng = np.random.default_rng(seed)
    targets = np.arange(n) % n_classes
    x = rng.normal(size=(n_classes, n_features))[targets] + spread * rng.normal(size=(n, n_features))
    x = x * np.geomspace(0.01, 100, n_features) + rng.normal(size=n_features) * 10
    return torch.tensor(x, dtype=torch.float32), targets


def labels_of(features: torch.Tensor, n_labels: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    z = scaled(features)
    return (z @ rng.normal(size=(z.shape[1], n_labels)) + 0.5 * rng.normal(size=(len(z), n_labels)) > 0).astype(np.float32)


def scaled(features: torch.Tensor) -> np.ndarray:
    x = features.double().numpy()
    return (x - x.mean(0)) / x.std(0) / np.sqrt(x.shape[1])


def peer(z: np.ndarray, y: np.ndarray, strength: float, weights: np.ndarray | None = None) -> LogisticRegression:
    total = len(z) if weights is None else weights.sum()
    return LogisticRegression(C=1 / (total * strength), tol=1e-8, max_iter=5_000).fit(z, y, sample_weight=weights)


def thirds(n: int) -> list[linear.Fold]:
    part = np.random.default_rng(7).permutation(n) % 3
    return [(np.flatnonzero(part != k), np.flatnonzero(part == k)) for k in range(3)]


@pytest.mark.parametrize(("n", "n_features", "n_classes"), [(300, 20, 2), (300, 20, 5), (40, 200, 3)])
@pytest.mark.parametrize("strength", [1e-1, 1e-3, 1e-5])
def test_softmax_equals_sklearn(n: int, n_features: int, n_classes: int, strength: float) -> None:
    x, y = blobs(n, n_features, n_classes)
    ours = linear.fit(x, y, link="softmax", n_classes=n_classes, strength=strength, tolerance=1e-8).logits(x).softmax(-1)
    theirs = peer(scaled(x), y, strength / 2 if n_classes == 2 else strength).predict_proba(scaled(x))
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-3)


@pytest.mark.parametrize("strength", [1e-2, 1e-4])
def test_sigmoid_equals_one_binary_regression_for_each_label(strength: float) -> None:
    x, _ = blobs(300, 20, 3)
    y = labels_of(x, 4)
    ours = linear.fit(x, y, link="sigmoid", n_classes=4, strength=strength, tolerance=1e-8).logits(x).sigmoid()
    theirs = [peer(scaled(x), column, strength).predict_proba(scaled(x))[:, 1] for column in y.T]
    np.testing.assert_allclose(ours.numpy(), np.stack(theirs, 1), atol=1e-3)


@pytest.mark.parametrize("n_features", [20, 400])
def test_folds_solved_together_equal_folds_solved_alone(n_features: int) -> None:
    x, y = blobs(240, n_features, 3)
    folds = thirds(240)
    path = list(linear.fit_path(x, y, link="softmax", n_classes=3, strengths=[1e-2, 1e-3], folds=folds, tolerance=1e-8))
    z = scaled(x)
    for logits, strength in zip(path, [1e-2, 1e-3], strict=True):
        theirs = [peer(z[train], y[train], strength).predict_proba(z[held]) for train, held in folds]
        np.testing.assert_allclose(logits.softmax(-1).numpy(), np.concatenate(theirs), atol=1e-3)


def test_weights_count_rows() -> None:
    x, y = blobs(200, 10, 3)
    weights = np.arange(200) % 4 / 2
    ours = linear.fit(x, y, link="softmax", n_classes=3, strength=1e-3, tolerance=1e-8, weights=torch.tensor(weights)).logits(x).softmax(-1)
    theirs = peer(scaled(x), y, 1e-3, weights).predict_proba(scaled(x))
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-3)


def test_constant_features_get_no_weight_and_duplicates_share_it() -> None:
    x, y = blobs(120, 6, 3)
    x = torch.cat([x, torch.full((120, 1), 123.4), x[:, :1], torch.zeros(120, 1)], 1)
    fitted = linear.fit(x, y, link="softmax", n_classes=3, strength=1e-6)
    assert fitted.weight[:, [6, 8]].abs().max() == 0
    torch.testing.assert_close(fitted.weight[:, 0], fitted.weight[:, 7], rtol=1e-2, atol=1e-3)
    assert (fitted.logits(x).argmax(-1).numpy() == y).mean() > 0.6


def test_many_copies_of_one_feature_leave_the_factorisation_whole() -> None:
    x, y = blobs(900, 1, 2)
    once = linear.fit(x, y, link="softmax", n_classes=2, strength=1e-6).logits(x)
    often = linear.fit(x.repeat(1, 800), y, link="softmax", n_classes=2, strength=1e-6).logits(x.repeat(1, 800))
    torch.testing.assert_close(often.softmax(-1), once.softmax(-1), rtol=0, atol=2e-3)


def test_a_class_missing_from_training_is_unlikely_not_impossible() -> None:
    x, y = blobs(90, 12, 3)
    probabilities = linear.fit(x, y, link="softmax", n_classes=5, strength=1e-3).logits(x).softmax(-1)
    assert torch.isfinite(probabilities).all()
    missing = probabilities[:, 3:]
    assert 1e-4 < missing.mean() < 0.05
    three = linear.fit(x, y, link="softmax", n_classes=3, strength=1e-3).logits(x).softmax(-1)
    rest = probabilities[:, :3] / probabilities[:, :3].sum(-1, keepdim=True)
    torch.testing.assert_close(rest, three, rtol=0, atol=2e-3)


def test_labels_that_never_change_follow_laplace() -> None:
    x, _ = blobs(50, 8, 2)
    y = np.concatenate([labels_of(x, 1), np.zeros((50, 1)), np.ones((50, 1))], 1).astype(np.float32)
    fitted = linear.fit(x, y, link="sigmoid", n_classes=3, strength=1e-3)
    expected = torch.tensor([1 / 52, 51 / 52]).expand(50, 2)
    torch.testing.assert_close(fitted.logits(x).sigmoid()[:, 1:], expected)


def test_one_class_alone() -> None:
    x, _ = blobs(20, 5, 2)
    probabilities = linear.fit(x, np.ones(20, np.int64), link="softmax", n_classes=3, strength=1e-3).logits(x).softmax(-1)
    torch.testing.assert_close(probabilities[0], torch.tensor([1, 23, 1]) / 25)


def test_few_rows_many_classes_many_features() -> None:
    x, y = blobs(16, 2_688, 8)
    folds = [(np.arange(16)[np.arange(16) % 4 != k], np.arange(16)[np.arange(16) % 4 == k]) for k in range(4)]
    choice = linear.cross_validate(x, y, link="softmax", n_classes=77, folds=folds)
    assert choice.held_logits.shape == (16, 77)
    assert torch.isfinite(choice.held_logits).all()
    assert torch.isfinite(choice.log_losses).all()
    assert choice.held_logits[:, 8:].softmax(-1).max() < 0.5
    fitted = linear.fit(x, y, link="softmax", n_classes=77, strength=1e-3)
    assert (fitted.logits(x).argmax(-1).numpy() == y).all()


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_separable_rows_at_no_regularisation_stay_finite(link: linear.Link) -> None:
    x, y = blobs(60, 10, 2, spread=0.01)
    targets = y if link == "softmax" else np.eye(2, dtype=np.float32)[y]
    logits = linear.fit(x, targets, link=link, n_classes=2, strength=1e-9).logits(x)
    assert torch.isfinite(logits).all()
    assert (logits.argmax(-1).numpy() == y).all()


def test_cross_validation_takes_the_lowest_calibrated_log_loss_and_stops_when_it_only_rises() -> None:
    x, y = blobs(150, 60, 2, spread=4.0)
    folds = thirds(150)
    choice = linear.cross_validate(x, y, link="softmax", n_classes=2, folds=folds)
    held = np.concatenate([rows for _, rows in folds])
    temperature = calibration.fit_temperature(choice.held_logits, y[held], "softmax")
    losses = torch.nn.functional.cross_entropy(choice.held_logits / temperature, torch.from_numpy(y[held]))
    torch.testing.assert_close(losses, choice.log_losses[choice.strengths.index(choice.strength)])
    assert losses <= choice.log_losses.min() * 1.001
    assert len(choice.strengths) == len(choice.log_losses) == len(choice.scores) < len(linear.STRENGTHS)
    right = (choice.held_logits.argmax(-1).numpy() == y[held]).mean()
    assert choice.scores[choice.strengths.index(choice.strength)].item() == pytest.approx(right)


def test_targets_without_signal_get_the_strongest_regularisation() -> None:
    x, _ = blobs(150, 40, 2)
    y = np.random.default_rng(3).integers(0, 2, 150)
    choice = linear.cross_validate(x, y, link="softmax", n_classes=2, folds=thirds(150))
    assert choice.strength == linear.STRENGTHS[0]


def test_sigmoid_cross_validation_scores_single_decisions() -> None:
    x, _ = blobs(150, 12, 2)
    y = labels_of(x, 3)
    choice = linear.cross_validate(x, y, link="sigmoid", n_classes=3, folds=thirds(150))
    assert choice.scores.max() > 0.75
    assert choice.strength < 1e-1


def test_more_rows_than_are_fitted_are_still_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "MAX_ROWS", 300)
    monkeypatch.setattr(linear, "CHUNK_BYTES", 1_000)
    x, y = blobs(2_000, 8, 3)
    choice = linear.cross_validate(x.bfloat16(), y, link="softmax", n_classes=3, folds=thirds(2_000), seed=4)
    held = np.concatenate([rows for _, rows in thirds(2_000)])
    assert choice.held_logits.dtype == torch.float32
    assert (choice.held_logits.argmax(-1).numpy() == y[held]).mean() > 0.6
    again = linear.cross_validate(x.bfloat16(), y, link="softmax", n_classes=3, folds=thirds(2_000), seed=4)
    assert torch.equal(choice.held_logits, again.held_logits)


def test_features_that_are_not_finite_are_refused() -> None:
    x, y = blobs(30, 4, 2)
    x[3, 2] = float("nan")
    with pytest.raises(TrainingFailed, match="not finite"):
        linear.fit(x, y, link="softmax", n_classes=2, strength=1e-2)
