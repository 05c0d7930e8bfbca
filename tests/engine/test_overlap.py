"""Intersection over union is what its definition says, with void left out and unknown classes counted as errors."""

from __future__ import annotations

import numpy as np
import pytest

from warmstart.engine import overlap
from warmstart.engine.masks import UNKNOWN, VOID


def maps(n: int, seed: int) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 4, (n, 6, 5)).astype(np.uint8))


def by_hand(found: list[np.ndarray], truths: list[np.ndarray]) -> dict[int, float]:
    shares = {}
    for c in range(4):
        both = sum(int(((f == c) & (t == c)).sum()) for f, t in zip(found, truths, strict=True))
        either = sum(int((((f == c) | (t == c)) & (t != VOID)).sum()) for f, t in zip(found, truths, strict=True))
        if either:
            shares[c] = both / either
    return shares


def test_agrees_with_the_definition() -> None:
    found, truths = maps(20, 0), maps(20, 1)
    for truth in truths:
        truth[0, 0] = VOID
    truths[3][1, 1] = UNKNOWN
    shares = by_hand(found, truths)
    measured = overlap.metrics(np.stack(found), truths, seed=0)
    assert measured["miou"].value == pytest.approx(np.mean(list(shares.values())))
    counted = sum(int((t != VOID).sum()) for t in truths)
    right = sum(int((f == t).sum()) for f, t in zip(found, truths, strict=True))
    assert measured["pixel_accuracy"].value == pytest.approx(right / counted)
    each = overlap.by_class(np.stack(found), truths, "abcd", seed=0)
    assert {name: m.value for name, m in each.items()} == pytest.approx({f"iou/{'abcd'[c]}": v for c, v in shares.items()})
    assert all(m.low <= m.value <= m.high and m.high - m.low > 0.01 for m in each.values())
    single = overlap.scores(np.stack(found), truths)
    assert single[5] == pytest.approx(np.mean(list(by_hand([found[5]], [truths[5]]).values())))


def test_perfect_empty_and_resized() -> None:
    truths = maps(3, 2)
    assert overlap.scores(np.stack(truths), truths).tolist() == [1, 1, 1]
    void = [np.full((2, 2), VOID, np.uint8)]
    assert overlap.scores(np.zeros((1, 2, 2), np.uint8), void).tolist() == [1]
    large = [np.repeat(np.repeat(t, 3, 0), 3, 1) for t in truths]
    assert overlap.scores(np.stack(truths), large).tolist() == [1, 1, 1]


def test_the_best_constant_answer_is_the_most_frequent_class_of_each_pixel() -> None:
    truths = [np.array([[0, 1], [2, VOID]], np.uint8)] * 2 + [np.array([[1, 1], [1, VOID]], np.uint8)]
    found = overlap.constant(truths, side=2)
    assert found.tolist() == [[0, 1], [2, 1]]
