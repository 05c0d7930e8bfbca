"""What predictions are worth: every metric with its 95 % interval. N rows, which must be different examples; C classes; L decisions a row.

A target of -1 is a label that the model does not know. Such a row is wrong for accuracy, a false alarm for macro F1, misses its whole
mass in the Brier score, is a wrong answer for the calibration error, and is left out of the log loss (whose ``n`` shows it) and of the
confusion matrix, where it has no place.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from warmstart.core.errors import DataError
from warmstart.core.report import Metric, ReliabilityBin
from warmstart.engine.statistics import NO_SPREAD, TAIL, bootstrap, mean_interval, proportion, resample

Floats: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]

EPSILON = float(np.finfo(np.float64).eps)
LOG_LOSS_BOUNDS = (0.0, float(-np.log(EPSILON)))
BINS_AT_MOST = 15
ROWS_PER_BIN = 20  # with fewer, noise alone makes a calibrated model look badly calibrated


def single_label(probabilities: Floats, targets: NDArray[Any], *, seed: int) -> dict[str, Metric]:
    """Metrics of one label per row.

    - ``accuracy``: exact interval (Clopper & Pearson 1934).
    - ``macro_f1``: mean F1 of the classes that occur among truths or predictions; bootstrap. With few rows per class it is biased low.
    - ``log_loss``: mean of ``-log p(true)``, natural logarithm, probabilities cut at 2.2e-16.
    - ``brier``: mean over rows of the sum over classes of squared errors (Brier 1950): 0 to 2, twice the usual two-class value.
    - ``expected_calibration_error``: of the top label, see ``reliability``.

    Args:
        probabilities: (N, C), rows add up to 1.
        targets: (N,) class indices, -1 for a label the model does not know.
        seed: Of the resampling.

    Raises:
        DataError: There are no rows, or the model knows none of their labels.
    """
    known = targets >= 0
    _require_rows(int(known.sum()), len(targets))
    n, classes = probabilities.shape
    right = correct(probabilities, targets)
    true_probability = probabilities[known, targets[known]]
    squared = np.square(probabilities).sum(axis=1) + 1
    squared[known] -= 2 * true_probability
    pairs, cells = np.unique(np.stack([targets, probabilities.argmax(axis=1)], axis=1), axis=0, return_counts=True)
    indices = np.arange(classes)
    macro = _Overlap(pairs[:, :1] == indices, pairs[:, 1:] == indices).macro
    return {
        "accuracy": Metric(float(right.mean()), *proportion(float(right.sum()), n), n),
        "macro_f1": _bootstrapped(macro, cells, seed),
        "log_loss": _mean(-np.log(np.clip(true_probability, EPSILON, 1)), LOG_LOSS_BOUNDS),
        "brier": _mean(squared, (0.0, 2.0)),
        "expected_calibration_error": _calibration_error(probabilities, targets, seed),
    }


def multi_label(probabilities: Floats, targets: NDArray[Any], *, threshold: float, seed: int) -> dict[str, Metric]:
    """Metrics of any number of labels per row; labels from ``threshold`` up are predicted.

    - ``example_f1``: mean over rows of each row's F1, 1 where nothing was to be found and nothing was.
    - ``accuracy``: rows whose labels are all right (subset accuracy); exact interval.
    - ``micro_f1``, ``macro_f1``: F1 of all decisions together; mean F1 of the labels that occur; bootstrap over rows.
    - ``log_loss``, ``brier``: mean over rows and labels of ``-log p`` and of squared errors (0 to 1).
    - ``expected_calibration_error``: of the decisions at 0.5, see ``reliability``; bootstrap over rows.

    Args:
        probabilities: (N, C), each between 0 and 1.
        targets: (N, C) zeros and ones.
        threshold: Least probability of a predicted label.
        seed: Of the resampling.

    Raises:
        DataError: There are no rows.
    """
    n = len(targets)
    _require_rows(n, n)
    truth, predicted = targets > 0, probabilities >= threshold
    right = (truth == predicted).all(axis=1)
    packed = np.packbits(np.concatenate([truth, predicted], axis=1), axis=1)
    _, first, cells = np.unique(packed, axis=0, return_index=True, return_counts=True)
    overlap = _Overlap(truth[first], predicted[first])
    losses = -np.log(np.clip(np.where(truth, probabilities, 1 - probabilities), EPSILON, 1))
    return {
        "example_f1": _mean(example_f1(probabilities, targets, threshold), (0.0, 1.0)),
        "accuracy": Metric(float(right.mean()), *proportion(float(right.sum()), n), n),
        "micro_f1": _bootstrapped(overlap.micro, cells, seed),
        "macro_f1": _bootstrapped(overlap.macro, cells, seed),
        "log_loss": _mean(losses.mean(axis=1), LOG_LOSS_BOUNDS),
        "brier": _mean(np.square(probabilities - truth).mean(axis=1), (0.0, 1.0)),
        "expected_calibration_error": _calibration_error(probabilities, targets, seed),
    }


def correct(probabilities: Floats, targets: NDArray[Any]) -> Floats:
    """(N,) 1 where the most probable class is the target (N,), else 0."""
    hits: Bools = probabilities.argmax(axis=1) == targets
    return hits.astype(np.float64)


def example_f1(probabilities: Floats, targets: NDArray[Any], threshold: float) -> Floats:
    """(N,) F1 of each row's set of labels: ``2 |true & predicted| / (|true| + |predicted|)``, and 1 when both are empty."""
    truth, predicted = targets > 0, probabilities >= threshold
    return _f1((truth & predicted).sum(axis=1), truth.sum(axis=1) + predicted.sum(axis=1))


def confusion(probabilities: Floats, targets: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """(C, C) rows of true class i (down) predicted as class j (across); targets (N,), -1 left out."""
    known = targets >= 0
    cells = targets[known].astype(np.int64) * classes + probabilities[known].argmax(axis=1)
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def reliability(probabilities: Floats, targets: NDArray[Any]) -> list[ReliabilityBin]:
    """Stated confidence against how often it was right, in bins of equal mass.

    One label per row, targets (N,): the confidence is the top probability. Multi-label, targets (N, C): each label is decided at 0.5,
    with the confidence ``max(p, 1 - p)``. There are 15 bins, fewer under 300 rows (at least 20 rows a bin); equal confidences share a bin.
    """
    confidence, hit, bins = _binned(probabilities, targets)
    members = np.bincount(bins.ravel())
    sums = [np.bincount(bins.ravel(), weights=x.ravel()) for x in (confidence, hit)]
    return [ReliabilityBin(float(sums[0][b] / m), float(sums[1][b] / m), int(m)) for b, m in enumerate(members) if m]


class _Overlap:
    """Hits and mentions of every class in K kinds of row; truth and predicted (K, C) are boolean."""

    def __init__(self, truth: Bools, predicted: Bools) -> None:
        self.hits = sparse.csr_matrix((truth & predicted).astype(np.float64))  # (K, C)
        self.mentions = sparse.csr_matrix(truth.astype(np.float64) + predicted)  # (K, C): true + predicted

    def macro(self, counts: NDArray[np.int64]) -> Floats:
        """(r,) mean F1 of the classes that occur under counts (r, K); 1 when none does."""
        hits, mentions = self.hits.T @ counts.T, self.mentions.T @ counts.T  # (C, r)
        occurs = mentions > 0
        total: Floats = np.where(occurs, _f1(hits, mentions), 0).sum(axis=0)
        mean: Floats = np.where(occurs.any(axis=0), total / np.maximum(occurs.sum(axis=0), 1), 1.0)
        return mean

    def micro(self, counts: NDArray[np.int64]) -> Floats:
        """(r,) F1 of all classes together under counts (r, K); 1 when none occurs."""
        return _f1(counts @ np.asarray(self.hits.sum(axis=1)).ravel(), counts @ np.asarray(self.mentions.sum(axis=1)).ravel())


def _f1(hits: NDArray[Any], mentions: NDArray[Any]) -> Floats:
    f1: Floats = np.where(mentions > 0, 2 * hits / np.maximum(mentions, 1), 1.0)
    return f1


def _binned(probabilities: Floats, targets: NDArray[Any]) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Confidence, hit (0 or 1) and bin of every decision, each (N, L)."""
    if targets.ndim == 1:
        confidence, hit = probabilities.max(axis=1)[:, None], correct(probabilities, targets)[:, None]
    else:
        confidence = np.maximum(probabilities, 1 - probabilities)
        hit = ((probabilities >= 0.5) == (targets > 0)).astype(np.float64)
    bins = min(BINS_AT_MOST, max(1, len(targets) // ROWS_PER_BIN))
    edges = np.unique(np.quantile(confidence, np.arange(1, bins) / bins))
    return confidence, hit, np.searchsorted(edges, confidence, side="right")


def _calibration_error(probabilities: Floats, targets: NDArray[Any], seed: int) -> Metric:
    """Expected calibration error (Naeini, Cooper & Hauskrecht 2015), in bins of equal mass.

    The error of a finite sample is biased upwards, and a resample's more so, so percentiles would miss the truth from above. The
    interval is the reflected one (basic bootstrap, Davison & Hinkley 1997), widened to hold the value, and starts at 0 when the gaps
    are no larger than their own resampling noise.
    """
    confidence, hit, bins = _binned(probabilities, targets)
    n, decisions = confidence.shape
    rows = np.repeat(np.arange(n), decisions)
    shape = (n, int(bins.max()) + 1)
    gaps = sparse.coo_matrix(((confidence - hit).ravel() / (n * decisions), (rows, bins.ravel())), shape=shape).tocsr()
    seen = np.asarray(gaps.sum(axis=0)).ravel()  # (bins,)
    value = float(np.abs(seen).sum())
    drawn: Floats = resample(lambda counts: counts @ gaps, np.ones(n), seed=seed)  # (R, bins)
    errors = np.abs(drawn).sum(axis=1)
    if np.ptp(errors) < NO_SPREAD:
        return Metric(value, *proportion(value * n, n), n)
    noise = float(np.quantile(np.abs(drawn - seen).sum(axis=1), 1 - 2 * TAIL))
    least, most = (float(q) for q in np.quantile(errors, [TAIL, 1 - TAIL]))
    low = 0.0 if value <= noise else min(value, max(0.0, 2 * value - most))
    return Metric(value, low, min(1.0, max(value, 2 * value - least)), n)


def _bootstrapped(statistic: Any, cells: NDArray[np.int64], seed: int) -> Metric:
    return Metric(float(statistic(cells[None])[0]), *bootstrap(statistic, cells, seed=seed), int(cells.sum()))


def _mean(scores: Floats, bounds: tuple[float, float]) -> Metric:
    return Metric(float(scores.mean()), *mean_interval(scores, bounds=bounds), len(scores))


def _require_rows(usable: int, rows: int) -> None:
    if usable == 0:
        given = f"the model knows the label of none of {rows} rows" if rows else "no rows to measure on"
        raise DataError(given, "rows with labels that the model was trained on", "check the label column and the file")
