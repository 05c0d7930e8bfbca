"""The errors that a report shows are those that the model was surest of."""

from __future__ import annotations

import numpy as np

from warmstart.core import registry
from warmstart.engine import review

TEXT = registry.create("modalities", "text")


def test_the_surest_mistakes_of_single_labels_come_first() -> None:
    task = registry.create("tasks", "classification")
    probabilities = np.array([[0.6, 0.4], [0.1, 0.9], [0.2, 0.8], [0.3, 0.7]])
    found = review.errors(
        [(f"text {i}",) for i in range(4)],
        probabilities,
        np.array([1, 0, 1, -1]),
        labels=["a", "b"],
        rows=[10, 11, 12, 13],
        modality=TEXT,
        truths=["b", "a", "b", "other"],
        task=task,
    )
    assert [i for i, _ in found] == [1, 3, 0]
    assert [(case.truth, case.predicted, case.probability, case.row) for _, case in found] == [
        ("a", "b", 0.9, 11),
        ("other", "b", 0.7, 13),
        ("b", "a", 0.6, 10),
    ]
    assert all(case.decision == case.sound == "" for _, case in found)


def test_of_several_labels_the_surest_wrong_decision_counts() -> None:
    task = registry.create("tasks", "multilabel", options={"threshold": 0.4})
    probabilities = np.array([[0.9, 0.1, 0.2], [0.45, 0.05, 0.1], [0.7, 0.02, 0.9], [0.1, 0.1, 0.1]])
    targets = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 0, 1]], np.float32)
    found = review.errors(
        [(f"text {i}",) for i in range(4)],
        probabilities,
        targets,
        labels=["a", "b", "c"],
        rows=[1, 2, 3, 4],
        modality=TEXT,
        truths=["a", "", "b|a |c", "c"],
        task=task,
    )
    assert [case.row for _, case in found] == [3, 4, 2], "a row that is right is no error"
    assert [case.truth for _, case in found] == ["a | b | c", "c", ""], "in the order of an answer"
    assert [case.decision for _, case in found] == ["without b", "without c", "with a"]
    assert [round(case.probability, 2) for _, case in found] == [0.98, 0.9, 0.45]
    assert [case.predicted for _, case in found] == ["a | c", "nothing", "a"]
