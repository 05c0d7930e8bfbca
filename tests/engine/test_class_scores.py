"""Scores of single classes agree with scikit-learn, and their intervals cover."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn import metrics as sk

from warmstart.engine import class_scores


def single(n: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    targets = rng.integers(classes, size=n)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), targets] += 1.5
    return softmax(logits, axis=1), targets


def test_single_label_agrees_with_scikit_learn() -> None:
    probabilities, targets = single(300, 5)
    found = class_scores.by_class(probabilities, targets, "abcde", threshold=0.5)
    precision, recall, f1, rows = sk.precision_recall_fscore_support(targets, probabilities.argmax(1))
    assert [c.label for c in found] == list("abcde")
    assert [c.rows for c in found] == rows.tolist()
    assert [c.f1.value for c in found] == pytest.approx(f1.tolist())
    assert [c.precision.value for c in found if c.precision] == pytest.approx(precision.tolist())
    assert [c.recall.value for c in found if c.recall] == pytest.approx(recall.tolist())
    for c in found:
        assert c.f1.low < c.f1.value < c.f1.high


def test_several_labels_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((200, 4)) < 0.3).astype(np.float32)
    probabilities = expit(2 * targets - 1 + rng.normal(size=(200, 4)))
    found = class_scores.by_class(probabilities, targets, "abcd", threshold=0.4)
    assert [c.f1.value for c in found] == pytest.approx(sk.f1_score(targets, probabilities >= 0.4, average=None).tolist())
    assert [c.rows for c in found] == targets.sum(0).tolist()
    curves = class_scores.curves(probabilities, targets, found, "abcd")
    assert set(curves) == set("abcd")


def test_classes_that_nobody_carries_or_names_are_left_out_and_unknown_labels_are_false_alarms() -> None:
    probabilities = np.eye(4)[[0, 0, 1, 1]]
    found = {c.label: c for c in class_scores.by_class(probabilities, np.array([0, 0, 2, -1]), "abcd", threshold=0.5)}
    assert set(found) == {"a", "b", "c"}
    assert (found["a"].f1.value, found["a"].rows) == (1.0, 2)
    assert found["a"].f1.low < 0.6, "two rows prove little"
    assert (found["b"].rows, found["b"].f1.value, found["b"].recall) == (0, 0.0, None)
    assert found["b"].f1.n == 2
    assert found["c"].precision is None


def test_the_interval_of_f1_covers() -> None:
    probabilities, targets = single(100_000, 4, seed=99)
    truth = [c.f1.value for c in class_scores.by_class(probabilities, targets, "abcd", threshold=0.5)]
    held = []
    for seed in range(150):
        found = class_scores.by_class(*single(80, 4, seed=seed), "abcd", threshold=0.5)
        held += [c.f1.low <= t <= c.f1.high for c, t in zip(found, truth, strict=True)]
    assert 0.93 <= np.mean(held) <= 0.995


def test_curves_fall_and_begin_with_the_best_precision() -> None:
    probabilities, targets = single(400, 20)
    labels = [f"c{i:02}" for i in range(20)]
    scores = class_scores.by_class(probabilities, targets, labels, threshold=0.5)
    curves = class_scores.curves(probabilities, targets, scores, labels)
    lowest = sorted(scores, key=lambda c: (c.f1.value, -c.rows))[: class_scores.CURVES]
    assert list(curves) == [c.label for c in lowest]
    for label, values in curves.items():
        c = labels.index(label)
        precision, recall, _ = sk.precision_recall_curve(targets == c, probabilities[:, c])
        assert len(values) == 101
        assert values == sorted(values, reverse=True)
        for at in (0.0, 0.37, 1.0):
            assert values[round(100 * at)] == pytest.approx(precision[:-1][recall[:-1] >= at - 1e-12].max(), abs=1e-4)
