"""Average precision is COCO's, to the last bits, and its intervals come from resampled images."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from numpy.typing import NDArray

from warmstart.engine import average_precision as ap


def sample(n: int, *, seed: int = 0, noise: float = 0.02) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """Detections near true boxes, some of the wrong class, with scores that often tie."""
    random = np.random.default_rng(seed)
    compact, targets = np.full((n, 100, 6), -1.0, np.float32), []
    for i in range(n):
        g = int(random.integers(0, 9)) if i else 0
        centre, sides, label = random.uniform(0.2, 0.8, (g, 2)), random.uniform(0.05, 0.4, (g, 2)), random.integers(0, 3, g)
        targets.append(np.concatenate([centre - sides / 2, centre + sides / 2, label[:, None]], 1).astype(np.float32))
        source = random.integers(0, max(1, g), 40)
        boxes = np.concatenate([centre, sides], 1)[source] if g else random.uniform(0.1, 0.5, (40, 4))
        boxes = np.abs(boxes + random.normal(0, noise, (40, 4))) + 0.01
        classes = np.where(random.random(40) < 0.8, label[source] if g else 0, random.integers(0, 3, 40))
        compact[i, :40] = np.concatenate([boxes, random.random((40, 1)).round(1), classes[:, None]], 1)
    return compact, targets


def by_pycocotools(compact: NDArray[np.float32], targets: list[NDArray[np.float32]]) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth, side = COCO(), 100.0
        annotations, results = [], []
        for i, (rows, target) in enumerate(zip(compact.astype(float), targets, strict=True)):
            for x, y, right, bottom, label in target.astype(float):
                box = [x * side, y * side, (right - x) * side, (bottom - y) * side]
                one = {"id": len(annotations) + 1, "image_id": i + 1, "category_id": int(label) + 1, "bbox": box}
                annotations.append({**one, "area": box[2] * box[3], "iscrowd": 0})
            for x, y, w, h, score, label in rows[rows[:, 4] >= 0]:
                box = [(x - w / 2) * side, (y - h / 2) * side, w * side, h * side]
                results.append({"image_id": i + 1, "category_id": int(label) + 1, "bbox": box, "score": score})
        images, categories = [{"id": i + 1} for i in range(len(targets))], [{"id": k + 1} for k in range(3)]
        truth.dataset = {"images": images, "categories": categories, "annotations": annotations}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(v) for v in evaluation.stats[:3]]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_same_as_pycocotools(seed: int) -> None:
    compact, targets = sample(30, seed=seed)
    found = ap.metrics(compact, targets, seed=0)
    np.testing.assert_allclose([found[name].value for name in ("map", "ap50", "ap75")], by_pycocotools(compact, targets), atol=1e-12)
    assert all(m.low <= m.value <= m.high for m in found.values())


def test_an_image_that_counts_twice_is_an_image_that_is_there_twice() -> None:
    compact, targets = sample(12)
    random = np.random.default_rng(0).random((12, 100)).astype(np.float32)
    compact[:, :, 4] = np.where(compact[:, :, 4] >= 0, random, -1.0)
    twice = ap.average_precisions(ap.match(compact[[0, 1, 2, *range(12)]], [*targets[:3], *targets]), np.ones((1, 15), np.int64))
    weights = np.ones((1, 12), np.int64)
    weights[0, :3] = 2
    # Only between a detection and its double, which have one score, is there a point more on the curve.
    np.testing.assert_allclose(ap.average_precisions(ap.match(compact, targets), weights), twice, atol=0.01)


def test_of_one_class() -> None:
    compact, targets = sample(20)
    found = ap.by_class(compact, targets, ["a", "b", "c"], seed=0)
    assert list(found) == ["ap/a", "ap/b", "ap/c"]
    assert np.mean([m.value for m in found.values()]) == pytest.approx(ap.metrics(compact, targets, seed=0)["map"].value)
    curves = ap.curves(compact, targets, ["a", "b", "c"])
    assert all(len(line) == 101 and sorted(line, reverse=True) == line for line in curves.values())


def test_the_score_of_an_image() -> None:
    truth = np.array([[0.1, 0.1, 0.3, 0.3, 0]], np.float32)
    right, nothing = np.full((100, 6), -1.0, np.float32), np.full((100, 6), -1.0, np.float32)
    right[0] = [0.2, 0.2, 0.2, 0.2, 0.9, 0]
    wrong = right.copy()
    wrong[0, 5] = 1
    empty = np.zeros((0, 5), np.float32)
    compact = np.stack([right, nothing, wrong, nothing, right])
    found = ap.scores(compact, [truth, truth, truth, empty, empty])
    np.testing.assert_allclose(found, [1, 0, 0.05, 1, 0.1], atol=1e-6)


def test_nothing_to_find() -> None:
    compact = np.full((3, 100, 6), -1.0, np.float32)
    found = ap.metrics(compact, [np.zeros((0, 5), np.float32)] * 3, seed=0)
    assert found["map"].value == 0.0
    assert ap.by_class(compact, [np.zeros((0, 5), np.float32)] * 3, ["a"], seed=0) == {}


def test_a_class_that_the_model_does_not_know_counts_as_missed() -> None:
    truth = np.array([[0.1, 0.1, 0.3, 0.3, 0], [0.5, 0.5, 0.9, 0.9, -1]], np.float32)
    right = np.full((1, 100, 6), -1.0, np.float32)
    right[0, 0] = [0.2, 0.2, 0.2, 0.2, 0.9, 0]
    assert ap.metrics(right, [truth], seed=0)["map"].value == pytest.approx(0.5)
