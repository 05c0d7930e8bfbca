"""Many images as one picture."""

from __future__ import annotations

import torch

from warmstart.engine import mosaic


def test_images_lie_row_by_row_with_a_line_between() -> None:
    images = torch.arange(1, 6).view(5, 1, 1, 1).expand(5, 1, 2, 2) / 10
    whole = mosaic.mosaic(images, columns=3)
    assert whole.shape == (5, 8)
    assert whole[0, 0] == images[0, 0, 0, 0]
    assert whole[0, 6] == images[2, 0, 0, 0]
    assert whole[3, 3] == images[4, 0, 0, 0]
    assert whole[2].sum() == 0
    assert whole[4, 7] == 0
    assert mosaic.mosaic(torch.rand(4, 3, 2, 2)).shape == (5, 5, 3)


def test_what_belongs_together_lies_below_each_other() -> None:
    first, second = torch.zeros(20, 1, 1, 1), torch.ones(20, 1, 1, 1)
    whole = mosaic.pairs(first, second)
    assert whole[::2, 0].tolist() == [0, 1, 0, 1]
    assert mosaic.pairs(first[:13], second[:13]).shape == (3, 19)
    assert mosaic.pairs(first[:3], second[:3]).shape == (3, 5)


def test_a_filter_is_stretched_around_grey() -> None:
    found = mosaic.spread(torch.tensor([[[[-2.0, 0.0, 1.0]]]]))
    assert found.flatten().tolist() == [0.0, 0.5, 0.75]
