"""Every metric agrees with scikit-learn, has a sane interval, and is fast enough to be computed often."""

import time

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics as sk

from warmstart.core.errors import DataError
from warmstart.engine import metrics
from warmstart.engine.statistics import proportion


def single(n: int, classes: int, *, seed: int = 0, sharpness: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), targets] += sharpness
    return softmax(logits, axis=1), targets


def multi(n: int, labels: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = (rng.random((n, labels)) < 0.3).astype(np.float32)
    return expit(3 * targets - 1.5 + rng.normal(size=(n, labels))), targets


def test_single_label_agrees_with_scikit_learn() -> None:
    probabilities, targets = single(300, 7)
    predicted = probabilities.argmax(axis=1)
    found = metrics.single_label(probabilities, targets, seed=0)
    assert list(found) == ["accuracy", "macro_f1", "log_loss", "brier", "expected_calibration_error"]
    assert found["accuracy"].value == sk.accuracy_score(targets, predicted)
    assert (found["accuracy"].low, found["accuracy"].high) == proportion((targets == predicted).sum(), 300)
    assert found["macro_f1"].value == pytest.approx(sk.f1_score(targets, predicted, average="macro"))
    assert found["log_loss"].value == pytest.approx(sk.log_loss(targets, probabilities))
    assert found["brier"].value == pytest.approx(sk.brier_score_loss(targets, probabilities, scale_by_half=False))
    assert np.array_equal(metrics.confusion(probabilities, targets, 7), sk.confusion_matrix(targets, predicted))


def test_macro_f1_is_over_the_classes_that_occur() -> None:
    targets = np.array([0, 0, 1, 1])
    probabilities = np.eye(5)[[0, 0, 1, 2]]
    assert metrics.single_label(probabilities, targets, seed=0)["macro_f1"].value == pytest.approx(
        sk.f1_score(targets, [0, 0, 1, 2], average="macro", zero_division=0)
    )


def test_multi_label_agrees_with_scikit_learn() -> None:
    probabilities, targets = multi(300, 6)
    predicted = probabilities >= 0.4
    found = metrics.multi_label(probabilities, targets, threshold=0.4, seed=0)
    assert found["accuracy"].value == sk.accuracy_score(targets, predicted)
    assert found["example_f1"].value == pytest.approx(sk.f1_score(targets, predicted, average="samples", zero_division=1))
    assert found["micro_f1"].value == pytest.approx(sk.f1_score(targets, predicted, average="micro"))
    assert found["macro_f1"].value == pytest.approx(sk.f1_score(targets, predicted, average="macro"))
    assert found["log_loss"].value == pytest.approx(np.mean([sk.log_loss(targets[:, c], probabilities[:, c]) for c in range(6)]))
    assert found["brier"].value == pytest.approx(np.mean([sk.brier_score_loss(targets[:, c], probabilities[:, c]) for c in range(6)]))


@pytest.mark.parametrize("n", [1, 2, 8, 300])
@pytest.mark.parametrize("kind", ["single", "multi"])
def test_every_value_lies_in_its_finite_interval(n: int, kind: str) -> None:
    if kind == "single":
        found = metrics.single_label(*single(n, 3), seed=0)
    else:
        found = metrics.multi_label(*multi(n, 3), threshold=0.5, seed=0)
    for name, metric in found.items():
        assert np.isfinite([metric.low, metric.high]).all(), name
        assert 0 <= metric.low <= metric.value <= metric.high, name
        assert metric.n == n


@pytest.mark.parametrize("answer", [0, 1])
def test_eight_certain_rows_leave_doubt(answer: int) -> None:
    """Perfect or all wrong: no interval of a score may claim that the score is known."""
    targets = np.array([0, 1] * 4)
    found = metrics.single_label(np.eye(2)[np.abs(targets - answer)], targets, seed=0)
    for name in ("accuracy", "macro_f1", "expected_calibration_error"):
        assert found[name].high - found[name].low > 0.3, name


def test_bootstrap_interval_shrinks_with_rows() -> None:
    few, many = (metrics.single_label(*single(n, 4), seed=0)["macro_f1"] for n in (100, 2500))
    assert (few.high - few.low) / (many.high - many.low) == pytest.approx(5, rel=0.3)


def test_macro_f1_interval_covers_the_truth() -> None:
    truth = metrics.single_label(*single(50_000, 4, seed=99), seed=0)["macro_f1"].value
    draws = (metrics.single_label(*single(150, 4, seed=s), seed=s)["macro_f1"] for s in range(120))
    assert 0.91 <= np.mean([m.low <= truth <= m.high for m in draws]) <= 0.99


def test_macro_f1_interval_of_many_small_classes_holds_the_value_and_covers_the_truth() -> None:
    """All resamples lie below a macro F1 that is biased itself; percentiles of them would name neither the value nor the truth."""
    classes, rows = 200, 1000
    rng = np.random.default_rng(0)
    skill, rival = rng.uniform(0.4, 1, classes), rng.integers(classes, size=classes)
    expected = np.diag(skill)
    np.add.at(expected, (np.arange(classes), rival), 1 - skill)
    truth = (2 * expected.diagonal() / (expected.sum(axis=0) + expected.sum(axis=1))).mean()
    found = []
    for seed in range(20):
        draw = np.random.default_rng(seed)
        targets = draw.integers(classes, size=rows)
        predicted = np.where(draw.random(rows) < skill[targets], targets, rival[targets])
        found.append(metrics.single_label(np.eye(classes)[predicted], targets, seed=seed)["macro_f1"])
    assert all(m.low < m.value < m.high for m in found)
    assert np.mean([m.value for m in found]) < truth - 0.02, "no bias, nothing to test"
    assert np.mean([m.low <= truth <= m.high for m in found]) >= 0.85


def test_macro_f1_of_a_thousand_classes_with_five_rows_each_lies_in_its_interval() -> None:
    targets = np.repeat(np.arange(1000), 5)
    predicted = np.where(np.random.default_rng(0).random(5000) < 0.7, targets, np.roll(targets, 7))
    found = metrics.single_label(np.eye(1000)[predicted], targets, seed=0)["macro_f1"]
    assert found.low <= found.value < found.high - 0.01


def test_labels_unknown_to_the_model_count_as_wrong() -> None:
    probabilities, targets = single(100, 3, sharpness=20)
    targets = np.concatenate([targets, np.full(25, -1)])
    probabilities = np.concatenate([probabilities, probabilities[:25]])
    found = metrics.single_label(probabilities, targets, seed=0)
    assert found["accuracy"].value == 0.8
    assert found["macro_f1"].value < 0.95
    assert found["log_loss"].n == 100
    assert found["log_loss"].value < 0.01
    assert found["brier"].value == pytest.approx(2 * 0.2, abs=0.01)
    assert found["expected_calibration_error"].value == pytest.approx(0.2, abs=0.01)
    assert metrics.confusion(probabilities, targets, 3).sum() == 100


@pytest.mark.parametrize("targets", [np.array([], int), np.array([-1, -1])])
def test_nothing_to_measure_is_refused(targets: np.ndarray) -> None:
    with pytest.raises(DataError, match="Check the label column"):
        metrics.single_label(np.full((len(targets), 2), 0.5), targets, seed=0)


def test_example_f1_of_nothing_found_where_nothing_was_is_one() -> None:
    probabilities = np.array([[0.1, 0.2], [0.9, 0.2], [0.9, 0.9]])
    targets = np.array([[0, 0], [0, 0], [1, 0]], np.float32)
    assert metrics.example_f1(probabilities, targets, 0.5) == pytest.approx([1, 0, 2 / 3])


def test_micro_and_macro_f1_of_no_labels_at_all_are_one() -> None:
    found = metrics.multi_label(np.full((10, 2), 0.1), np.zeros((10, 2), np.float32), threshold=0.5, seed=0)
    assert found["micro_f1"].value == found["macro_f1"].value == 1


def test_calibration_error_finds_overconfidence_and_forgives_noise() -> None:
    rng = np.random.default_rng(0)
    top = rng.uniform(0.5, 1, size=2000)
    probabilities = np.stack([top, 1 - top], axis=1)
    honest = np.where(rng.random(2000) < top, 0, 1)
    boastful = np.where(rng.random(2000) < top - 0.2, 0, 1)
    calibrated = metrics.single_label(probabilities, honest, seed=0)["expected_calibration_error"]
    assert calibrated.low == 0
    assert calibrated.high < 0.06
    wrong = metrics.single_label(probabilities, boastful, seed=0)["expected_calibration_error"]
    assert wrong.low < 0.2 < wrong.high
    assert wrong.low > 0.15


def test_reliability_bins_hold_equal_mass_and_give_the_calibration_error() -> None:
    probabilities, targets = single(1500, 4)
    bins = metrics.reliability(probabilities, targets)
    assert len(bins) == 15
    assert {b.n for b in bins} == {100}
    assert [b.confidence for b in bins] == sorted(b.confidence for b in bins)
    error = sum(b.n * abs(b.confidence - b.accuracy) for b in bins) / 1500
    assert metrics.single_label(probabilities, targets, seed=0)["expected_calibration_error"].value == pytest.approx(error)


def test_reliability_of_one_confidence_is_one_bin() -> None:
    (only,) = metrics.reliability(np.full((400, 2), 0.5), np.array([0, 1] * 200))
    assert (only.confidence, only.accuracy, only.n) == (0.5, 0.5, 400)


def test_reliability_of_labels_counts_decisions() -> None:
    probabilities, targets = multi(40, 6)
    bins = metrics.reliability(probabilities, targets)
    assert len(bins) == 2
    assert sum(b.n for b in bins) == 240
    assert min(b.confidence for b in bins) >= 0.5


def test_banking77_sized_metrics_are_fast() -> None:
    probabilities, targets = single(2000, 77)
    start = time.process_time()
    metrics.single_label(probabilities, targets, seed=0)
    assert time.process_time() - start < 2
