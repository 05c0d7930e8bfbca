"""Average precision of detections as COCO defines it (Lin et al. 2014): matched once for each image, then cheap to resample over images.

Detections are compact: (N, D, 6) [cx, cy, w, h, score, class] as shares of the image's sides, filled up with scores of -1. Targets are N
arrays (G, 5) [xmin, ymin, xmax, ymax, class]; class -1 is one that the model does not know, whose boxes nothing can find. Overlap does not
change when sides are scaled, so this gives what pycocotools gives in pixels (the tests compare them). pycocotools keeps no matches of
single images that could be resampled without a loop in Python over every detection.

T thresholds of overlap, K classes with a true box, R resamples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmstart.core.report import Metric
from warmstart.engine import statistics
from warmstart.engine.boxes import overlaps

Floats: TypeAlias = NDArray[np.float64]

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST = 100
"""Detections of an image that count, as in COCO."""

CERTAIN = 0.5
"""A class that is not in an image is held against a detector from this score on, where single images are scored."""

MOST_WORK = 300_000_000
"""Detections, thresholds and resamples together; beyond it fewer resamples are drawn (about ten seconds)."""


@dataclass(frozen=True)
class Matches:
    """Detections of one class in all images, best first: ``right`` (T, n) says which found a true box, ``image`` (n,) where they are.

    ``truths`` (N,) counts the true boxes in each image.
    """

    scores: Floats
    right: NDArray[np.bool_]
    image: NDArray[np.int64]
    truths: NDArray[np.int64]


def corners(boxes: NDArray[Any]) -> NDArray[Any]:
    """[cx, cy, w, h] (..., 4) as [xmin, ymin, xmax, ymax]."""
    return np.concatenate([boxes[..., :2] - boxes[..., 2:4] / 2, boxes[..., :2] + boxes[..., 2:4] / 2], -1)


def match(compact: NDArray[Any], targets: Sequence[NDArray[Any]]) -> dict[int, Matches]:
    """Matches of every class that some image has; each detection, best first, takes the true box it overlaps most that is still free."""
    found: dict[int, Matches] = {}
    known = np.unique(np.concatenate([np.zeros(0), *(target[:, 4] for target in targets)])).astype(int)
    for label in known:
        parts: list[tuple[Floats, NDArray[np.bool_]]] = []
        truths = np.zeros(len(targets), np.int64)
        for i, (row, target) in enumerate(zip(compact, targets, strict=True)):
            own = row[(row[:, 4] >= 0) & (row[:, 5] == label)]
            own = own[np.argsort(-own[:, 4], kind="stable")][:MOST].astype(np.float64)
            truth = target[target[:, 4] == label]
            truths[i] = len(truth)
            parts.append((own[:, 4], _greedy(overlaps(corners(own[:, :4]), truth[:, :4]))))
        scores, right = np.concatenate([s for s, _ in parts]), np.concatenate([r for _, r in parts], 1)
        image = np.repeat(np.arange(len(parts)), [len(s) for s, _ in parts])
        order = np.argsort(-scores, kind="stable")
        found[int(label)] = Matches(scores[order], right[:, order], image[order], truths)
    return found


def _greedy(overlap: Floats) -> NDArray[np.bool_]:
    """Which detections (T, D) find a true box at each threshold, from their overlaps (D, G); detections are best first."""
    n, m = overlap.shape
    right = np.zeros((len(THRESHOLDS), n), np.bool_)
    free = np.ones((len(THRESHOLDS), m), np.bool_)
    each = np.arange(len(THRESHOLDS))
    for i in np.flatnonzero(overlap.max(1, initial=0) >= THRESHOLDS[0]):
        candidates = np.where(free, overlap[i], -1.0)
        best = m - 1 - candidates[:, ::-1].argmax(1)  # of equal ones the last, as in COCO
        right[:, i] = candidates[each, best] >= THRESHOLDS
        free[each, best] &= ~right[:, i]
    return right


def precision(matches: Matches, threshold: int, weights: NDArray[np.int64]) -> Floats:
    """Highest precision at or beyond each of the 101 recalls, (R, 101), when image ``i`` counts ``weights[r, i]`` times.

    NaN where no true box is left.
    """
    right = matches.right[threshold]
    last = int(np.flatnonzero(right)[-1]) + 1 if right.any() else 0  # what comes after the last success changes nothing
    total = weights @ matches.truths  # (R,)
    found = np.zeros((len(weights), len(RECALLS)))
    counted = weights[:, matches.image[:last]]  # (R, n)
    hits = np.cumsum(counted * right[:last], 1)
    seen = np.cumsum(counted, 1)
    best = np.maximum.accumulate((hits / np.maximum(seen, 1))[:, ::-1], 1)[:, ::-1]
    for r in range(len(weights)):
        at = np.searchsorted(hits[r] / max(total[r], 1), RECALLS, side="left")
        inside = at < last
        found[r, inside] = best[r, at[inside]]
    found[total == 0] = np.nan
    return found


def average_precisions(found: dict[int, Matches], weights: NDArray[np.int64]) -> Floats:
    """(R, K, T) average precision of each class at each threshold; NaN where no true box is left."""
    out = np.empty((len(weights), len(found), len(THRESHOLDS)))
    for k, matches in enumerate(found.values()):
        for t in range(len(THRESHOLDS)):
            out[:, k, t] = precision(matches, t, weights).mean(1)
    return out


def metrics(compact: NDArray[Any], targets: Sequence[NDArray[Any]], *, seed: int) -> dict[str, Metric]:
    """``map`` (overlaps of .5 to .95), ``ap50`` and ``ap75``, with 95 % intervals from resampling images."""
    n = len(targets)
    found = match(compact, targets)
    if not found:  # no image has a true box: nothing can be found
        return {name: Metric(0.0, 0.0, 1.0, n) for name in ("map", "ap50", "ap75")}
    seen, drawn = _resampled(found, n, seed)
    parts = {"map": np.s_[:], "ap50": np.s_[:1], "ap75": np.s_[5:6]}
    return {name: _metric(seen[:, :, part], drawn[:, :, part], n) for name, part in parts.items()}


def by_class(compact: NDArray[Any], targets: Sequence[NDArray[Any]], labels: Sequence[str], *, seed: int) -> dict[str, Metric]:
    """``ap/CLASS`` of each class that occurs."""
    found = match(compact, targets)
    if not found:
        return {}
    seen, drawn = _resampled(found, len(targets), seed)
    known = {k: labels[label] for k, label in enumerate(found) if label >= 0}
    return {f"ap/{name}": _metric(seen[:, k], drawn[:, k], int((list(found.values())[k].truths > 0).sum())) for k, name in known.items()}


def _resampled(found: dict[int, Matches], n: int, seed: int) -> tuple[Floats, Floats]:
    """``average_precisions`` of ``n`` images as they are, and of resamples of them."""
    most = max(len(m.scores) + 1 for m in found.values())
    work = sum(len(m.scores) for m in found.values()) * len(THRESHOLDS)
    chunk = max(1, 2_000_000 // most)

    def several(weights: NDArray[np.int64]) -> Floats:
        return np.concatenate([average_precisions(found, weights[i : i + chunk]) for i in range(0, len(weights), chunk)])

    resamples = int(np.clip(MOST_WORK / max(1, work), 100, 1000))
    return average_precisions(found, np.ones((1, n), np.int64)), statistics.resample(several, np.ones(n), seed=seed, resamples=resamples)


def _metric(seen: Floats, drawn: Floats, n: int) -> Metric:
    values = drawn.reshape(len(drawn), -1)
    values = values[~np.isnan(values).all(1)]
    value = float(np.nanmean(seen))
    return Metric(value, *statistics.interval(np.nanmean(values, 1), value, n), n)


def scores(compact: NDArray[Any], targets: Sequence[NDArray[Any]]) -> Floats:
    """(N,) score of each image between 0 and 1, for comparing two detectors on the same images.

    The mean over the classes that are in the image of the average precision within it (at .5 to .95), where a class that is not in it,
    but was found with a score of at least ``CERTAIN``, counts as 1 minus that score. An image with neither scores 1.
    """
    n = len(targets)
    total, count = np.zeros(n), np.zeros(n)
    found = match(compact, targets)
    for matches in found.values():
        for i in np.flatnonzero(matches.truths):
            of = matches.image == i
            one = Matches(matches.scores[of], matches.right[:, of], np.zeros(int(of.sum()), np.int64), matches.truths[i : i + 1])
            total[i] += average_precisions({0: one}, np.ones((1, 1), np.int64)).mean()
            count[i] += 1
    known = sorted({int(c) for row in compact for c in row[row[:, 4] >= CERTAIN, 5]})
    for label in known:
        present: NDArray[np.bool_] = np.array([label in found and bool(found[label].truths[i]) for i in range(n)])
        best = np.where(compact[:, :, 5] == label, compact[:, :, 4], -1.0).max(1)
        wrong = ~present & (best >= CERTAIN)
        total[wrong] += 1 - best[wrong]
        count[wrong] += 1
    return np.where(count > 0, total / np.maximum(count, 1), 1.0)


def curves(compact: NDArray[Any], targets: Sequence[NDArray[Any]], labels: Sequence[str]) -> dict[str, list[float]]:
    """Precision at the 101 recalls for each class that occurs, at an overlap of .5."""
    found = match(compact, targets)
    once = np.ones((1, len(targets)), np.int64)
    return {labels[label]: precision(matches, 0, once)[0].tolist() for label, matches in found.items() if label >= 0}
