"""Intersection over union of class maps with the truth. N images, C classes, H W pixels; truths hold ``masks.VOID`` and ``UNKNOWN`` too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmstart.core.report import Metric
from warmstart.engine import statistics
from warmstart.engine.aside import Kept, Remake, opened
from warmstart.engine.masks import UNKNOWN, VOID, resized

Floats: TypeAlias = NDArray[np.float64]
Truth: TypeAlias = Kept | Remake
"""(H, W) classes, or what gives them."""


@dataclass(frozen=True)
class Tally:
    """Pixels of each image and class, (N, C): said and true, said or true, true. ``counted (N,)`` are those that are not void."""

    both: Floats
    either: Floats
    true: Floats
    counted: Floats


def tally(maps: NDArray[Any], truths: Sequence[Truth]) -> Tally:
    """Counts of class maps (N, h, w), each brought to the size of its truth (H, W) by the nearest pixel."""
    counts = np.zeros((3, len(truths), UNKNOWN + 1), np.int32)  # each truth is read once, and may lie on the disk
    counted = np.zeros(len(truths))
    for i, (found, aside) in enumerate(zip(maps, truths, strict=True)):
        truth = opened(aside)
        kept = truth != VOID
        answer, right = resized(found.astype(np.uint8), *truth.shape)[kept], truth[kept]
        for kind, classes in enumerate((answer, right, right[answer == right])):
            counts[kind, i] = np.bincount(classes, minlength=UNKNOWN + 1)[: UNKNOWN + 1]
        counted[i] = len(right)
    largest = np.flatnonzero(counts[1, :, :UNKNOWN].any(0)).max(initial=0)
    said, true, both = counts[..., : 1 + max(int(maps.max(initial=0)), int(largest))].astype(np.float64)
    return Tally(both, said + true - both, true, counted)


def scores(maps: NDArray[Any], truths: Sequence[Truth]) -> Floats:
    """(N,) intersection over union, averaged over the classes that are in an image or are said to be; 1 where every pixel is void."""
    found = tally(maps, truths)
    present = found.either > 0
    shares = np.divide(found.both, found.either, out=np.zeros_like(found.both), where=present)
    count = present.sum(1)
    return np.where(found.counted > 0, shares.sum(1) / np.maximum(count, 1), 1.0)


def metrics(maps: NDArray[Any], truths: Sequence[Truth], *, seed: int) -> dict[str, Metric]:
    """``miou`` over all pixels of all images, averaged over the classes that occur, and ``pixel_accuracy``; images are resampled."""
    found = tally(maps, truths)
    n = len(truths)

    def mean(counts: NDArray[np.int64]) -> Floats:
        return np.nan_to_num(_mean(_ratio(counts @ found.both, counts @ found.either)))

    def accuracy(counts: NDArray[np.int64]) -> Floats:
        return np.nan_to_num(_ratio(counts @ found.both.sum(1), counts @ found.counted))

    ones = np.ones(n, np.int64)
    return {
        name: _metric(float(statistic(ones[None])[0]), statistics.resample(statistic, ones, seed=seed), n)
        for name, statistic in (("miou", mean), ("pixel_accuracy", accuracy))
    }


def by_class(maps: NDArray[Any], truths: Sequence[Truth], labels: Sequence[str], *, seed: int) -> dict[str, Metric]:
    """Intersection over union of each class that is in some truth, over all pixels, as ``iou/CLASS``; ``n`` are images that have it."""
    found = tally(maps, truths)
    ones = np.ones(len(truths), np.int64)

    def each(counts: NDArray[np.int64]) -> Floats:
        return _ratio(counts @ found.both, counts @ found.either)

    observed, draws = each(ones[None])[0], statistics.resample(each, ones, seed=seed)
    measured = {}
    for c in np.flatnonzero(found.true.sum(0)).tolist():
        drawn = draws[:, c][np.isfinite(draws[:, c])]
        measured[f"iou/{labels[c]}"] = _metric(float(observed[c]), drawn, int((found.true[:, c] > 0).sum()))
    return measured


def _metric(value: float, draws: Floats, n: int) -> Metric:
    low, high = statistics.interval(draws, value, n)
    return Metric(value, min(low, value), max(high, value), n)


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Nothing of nothing is NaN."""
    found: Floats = np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0)
    return found


def _mean(shares: Floats) -> Floats:
    """(R,) over the classes that occur."""
    known = np.isfinite(shares)
    found: Floats = np.where(known, shares, 0).sum(1) / np.maximum(known.sum(1), 1)
    return found


def constant(truths: Sequence[Truth], *, side: int = 96) -> NDArray[np.uint8]:
    """The most frequent class of each pixel, (side, side); where all are void, the most frequent of all."""
    votes = np.zeros((UNKNOWN, side * side), np.int32)
    where = np.arange(side * side)
    for truth in truths:
        small = resized(opened(truth), side, side).ravel()
        known = small < UNKNOWN
        votes[small[known], where[known]] += 1
    votes[votes.sum(1).argmax(), votes.sum(0) == 0] = 1
    found: NDArray[np.uint8] = votes.argmax(0).astype(np.uint8).reshape(side, side)
    return found
