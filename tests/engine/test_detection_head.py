"""The convolutional head: its targets, its suppression and its loss do what they say, for maps and for patches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from warmstart.core.errors import CutRefused
from warmstart.engine import average_precision, detection_head, detectors
from warmstart.engine.boxes import overlaps

MAPS = [(8, 64, 64), (8, 16, 24), (12, 16, 24), (16, 8, 12)]
BATCH = {"pixel_values": torch.zeros(2, 3, 64, 96)}
TRUTH = [np.array([[0.1, 0.2, 0.4, 0.6, 0], [0.5, 0.5, 0.9, 0.8, 1]], np.float32), np.array([[0.3, 0.3, 0.7, 0.7, 1]], np.float32)]


def test_points_are_the_last_of_each_size_and_maps_that_are_too_fine_are_left_out() -> None:
    assert detection_head.points(MAPS) == (2, 3)
    assert detection_head.points([(17, 8)] * 5) == (2, 4)
    with pytest.raises(CutRefused):
        detection_head.points([(8,), (8,)])


@pytest.mark.parametrize("special", [0, 1, 5])
def test_patches_become_a_map(special: int) -> None:
    patches = torch.arange(24.0).repeat(1, 1)[..., None]
    state = torch.cat([torch.full((1, special, 1), -1.0), patches], 1)
    found = detection_head.as_map(state, (64, 96))
    assert torch.equal(found, torch.arange(24.0).view(1, 1, 4, 6))
    with pytest.raises(CutRefused):
        detection_head.as_map(torch.zeros(1, 15, 1), (64, 64))


def test_boxes_that_the_targets_ask_for_are_found_again() -> None:
    h, w = 16, 24
    centres, weights, boxes = detection_head.heat(TRUTH[0], 2, (h, w))
    assert weights.sum() == pytest.approx(2, abs=1e-5)
    assert (centres == 1).sum(dim=(1, 2)).tolist() == [1, 1]
    cells = torch.tensor([w, h, w, h])
    middle = torch.stack(torch.meshgrid((torch.arange(w) + 0.5) / w, (torch.arange(h) + 0.5) / h, indexing="xy"), -1)
    far = torch.cat([middle - boxes[..., :2], boxes[..., 2:] - middle], -1).clamp_min(1e-3)
    outputs = torch.cat([torch.logit(centres.clamp(1e-4, 1 - 1e-4)), (far * cells / detection_head.UNIT).log().permute(2, 0, 1)])
    found = detection_head.compact(outputs[None])
    score = average_precision.scores(found, TRUTH[:1])
    assert score[0] == pytest.approx(1, abs=1e-6)
    assert detection_head.loss(outputs[None], TRUTH[:1]) < 0.05


def test_suppression_is_the_greedy_one() -> None:
    random = torch.Generator().manual_seed(0)
    corner, side = torch.rand(3, 40, 2, generator=random), torch.rand(3, 40, 2, generator=random) * 0.5 + 0.3
    boxes, classes = torch.cat([corner, corner + side], -1), torch.randint(2, (3, 40), generator=random)
    found = detection_head.suppressed(boxes, classes)
    for row in range(3):
        kept: list[int] = []
        for i in range(40):
            same = [j for j in kept if classes[row, i] == classes[row, j]]
            if not same or overlaps(boxes[row, same].numpy(), boxes[row, [i]].numpy()).max() <= detection_head.OVERLAP:
                kept.append(i)
        assert torch.nonzero(found[row]).flatten().tolist() == kept


@pytest.mark.parametrize("shapes", [MAPS, [(25, 8)] * 3], ids=["maps", "patches"])
def test_the_head_learns_and_comes_again_from_its_settings(shapes: list[tuple[int, ...]]) -> None:
    torch.manual_seed(0)
    head = detection_head.built(shapes, 2, width=16, depth=1)
    states = [torch.randn(2, *shapes[point]) for point in head.points]
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-3)
    losses = []
    for _ in range(120):
        loss = head.loss(head(states, BATCH), TRUTH, 0.0)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 3
    again = detectors.made(head.settings)
    again.load_state_dict(head.state_dict())
    with torch.no_grad():
        assert torch.equal(again(states, BATCH), head(states, BATCH))
        found = head.compact(head(states, BATCH))
    assert found.shape == (2, 100, 6)
    assert average_precision.scores(found, TRUTH).mean() > 0.3


def test_images_without_boxes_and_boxes_of_unknown_classes_teach_nothing_wrong() -> None:
    head = detection_head.built(MAPS, 2, width=16, depth=1)
    outputs = head([torch.randn(2, *MAPS[point]) for point in head.points], BATCH)
    loss = head.loss(outputs, [np.zeros((0, 5), np.float32), np.array([[0.1, 0.1, 0.2, 0.2, -1]], np.float32)], 0.0)
    assert torch.isfinite(loss)


def test_the_best_constant_answer_hits_what_is_often_there() -> None:
    often = np.array([0.1, 0.1, 0.4, 0.4, 0], np.float32)
    seldom = np.array([0.6, 0.6, 0.9, 0.9, 1], np.float32)
    found = detection_head.constant([np.stack([often, seldom]), often[None], often[None] + 0.01 * np.eye(5, dtype=np.float32)[0]])
    np.testing.assert_allclose(found[0, 4:], [1, 0])
    np.testing.assert_allclose(found[1], [0.75, 0.75, 0.3, 0.3, 1 / 3, 1], atol=1e-6)
    assert (found[2:, 4] == -1).all()
    assert (detection_head.constant([np.zeros((0, 5), np.float32)]) == -1).all()


def test_queries_are_paired_with_true_boxes() -> None:
    torch.manual_seed(0)
    head = detectors.made({"kind": "queries", "points": [3], "queries": 5, "deep": True, "width": 8, "classes": 2})
    states = [torch.randn(2, 9, 8)]
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for _ in range(150):
        loss = head.loss(head(states, {}), TRUTH, 0.0)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    with torch.no_grad():
        found = head.compact(head(states, {}))
    assert found.shape == (2, 100, 6)
    assert (found[:, 5:, 4] == -1).all()
    assert average_precision.scores(found, TRUTH).min() > 0.5
    assert torch.isfinite(head.loss(head(states, {}), [np.zeros((0, 5), np.float32)] * 2, 0.0))
