"""How well each class of a classification is known. N rows, C classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart.core.report import ClassScore, Metric
from warmstart.engine.statistics import proportion

CURVES = 12
"""Classes whose precision is drawn against recall; of more, those with the lowest F1."""
RECALLS = np.linspace(0, 1, 101)

Floats = NDArray[np.float64]


def by_class(probabilities: Floats, targets: NDArray[Any], labels: Sequence[str], *, threshold: float) -> list[ClassScore]:
    """Precision, recall and F1 of every class that some row carries or was given, each with its exact interval.

    Of the rows that carry the class or were given it (so many that they are no matter of chance here), a share q is right, and
    ``F1 = 2 q / (1 + q)``. It grows with q, so that the exact interval of q (Clopper & Pearson 1934) gives that of F1.

    Args:
        probabilities: (N, C).
        targets: (N,) class indices, -1 for one the model does not know; or (N, C) zeros and ones.
        labels: C names.
        threshold: Least probability of a predicted label; of no meaning where there is one label a row.
    """
    carried, given, right = _counts(probabilities, targets, len(labels), threshold)
    return [_score(label, int(carried[c]), int(given[c]), int(right[c])) for c, label in enumerate(labels) if carried[c] + given[c]]


def curves(probabilities: Floats, targets: NDArray[Any], scores: Sequence[ClassScore], labels: Sequence[str]) -> dict[str, list[float]]:
    """Highest precision at or beyond recalls 0, .01, ... 1 of the classes that rows carry, the worst known first; at most ``CURVES``."""
    from sklearn.metrics import precision_recall_curve

    index = {label: c for c, label in enumerate(labels)}
    worst = sorted((s for s in scores if s.rows), key=lambda s: (s.f1.value, -s.rows))[:CURVES]
    found = {}
    for score in worst:
        c = index[score.label]
        truth = targets == c if targets.ndim == 1 else targets[:, c] > 0
        precision, recall, _ = precision_recall_curve(truth, probabilities[:, c])
        best = np.maximum.accumulate(precision[:-1])  # recall falls along this axis
        at = len(best) - np.searchsorted(recall[-2::-1], RECALLS - 1e-12, side="left") - 1
        found[score.label] = [round(float(p), 4) for p in best[at]]
    return found


def _counts(probabilities: Floats, targets: NDArray[Any], classes: int, threshold: float) -> tuple[NDArray[np.int64], ...]:
    """Rows that carry each class, were given it, and both (C,)."""
    if targets.ndim == 2:
        truth, said = targets > 0, probabilities >= threshold
        return truth.sum(0), said.sum(0), (truth & said).sum(0)
    decided = probabilities.argmax(axis=1)
    several = (targets[targets >= 0], decided, decided[decided == targets])
    return tuple(np.bincount(rows, minlength=classes) for rows in several)


def _score(label: str, carried: int, given: int, right: int) -> ClassScore:
    either = carried + given - right
    low, high = proportion(right, either)
    f1 = Metric(2 * right / (carried + given), 2 * low / (1 + low), 2 * high / (1 + high), either)
    return ClassScore(label, carried, f1, _share(right, given), _share(right, carried))


def _share(right: int, n: int) -> Metric | None:
    return Metric(right / n, *proportion(right, n), n) if n else None
