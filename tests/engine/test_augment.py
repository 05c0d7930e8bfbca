"""Views of images depend on the image and its row of numbers alone, and are what they say."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from warmstart.engine import augment
from warmstart.engine.augment import Augmentation

NOTHING = Augmentation(crop="none", flip=0.0)


def _images(channels: int = 3, n: int = 6, side: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _drawn(n: int = 6, seed: int = 0) -> torch.Tensor:
    return augment.draw(n, generator=torch.Generator().manual_seed(seed))


def test_nothing_is_nothing() -> None:
    images = _images()
    assert torch.allclose(NOTHING(images, _drawn()), images / 255)
    floats = images / 255
    found = NOTHING(floats, _drawn())
    assert torch.equal(found, floats)
    assert found.data_ptr() != floats.data_ptr()


def test_a_padded_crop_is_a_shift_with_black_from_outside() -> None:
    images, drawn = _images(), _drawn()
    drawn[:, 2], drawn[:, 3] = 0.999, 0.0  # two rows down, two columns to the left
    found = dataclasses.replace(NOTHING, crop="pad")(images, drawn)
    assert torch.allclose(found[:, :, :-2, 2:], images[:, :, 2:, :-2] / 255)
    assert not found[:, :, -2:].any()
    assert not found[..., :2].any()


def test_a_mirror_image_is_one() -> None:
    images = _images()
    for crop in ("none", "resized", "pad"):
        still = Augmentation(crop=crop, flip=0.0)(images, _drawn())
        assert torch.allclose(Augmentation(crop=crop, flip=1.0)(images, _drawn()), still.flip(3), atol=1e-6)


def test_a_resized_crop_keeps_flat_images_and_covers_the_share_of_the_area() -> None:
    flat = torch.full((6, 3, 16, 16), 0.25)
    assert torch.allclose(Augmentation(crop="resized")(flat, _drawn()), flat, atol=1e-6)
    ramp = torch.linspace(0, 1, 33)[:32].expand(1, 1, 32, 32)
    drawn = torch.tensor([[0.0, 0.5] + [0.0] * 14])  # least area, square, top left
    half = Augmentation(crop="resized", smallest=0.25, flip=0.0)(ramp, drawn)[0, 0]
    assert torch.allclose(half[:, 1:-1], (torch.arange(32) / 64 - 1 / 128).expand(32, 32)[:, 1:-1], atol=1e-5)
    whole = Augmentation(crop="resized", smallest=1.0, flip=0.0)(ramp, drawn)
    assert torch.allclose(whole, ramp, atol=1e-6)


def test_colours_change_within_bounds_and_grey_takes_them_away() -> None:
    images = _images()
    changed = dataclasses.replace(NOTHING, jitter=1.0, jitter_chance=1.0)(images, _drawn())
    assert float(changed.min()) >= 0
    assert float(changed.max()) <= 1
    assert not torch.allclose(changed, images / 255, atol=0.05)
    assert torch.allclose(dataclasses.replace(NOTHING, jitter=1.0, jitter_chance=0.0)(images, _drawn()), images / 255, atol=1e-5)
    grey = dataclasses.replace(NOTHING, grey=1.0)(images, _drawn())
    luma = (images / 255 * torch.tensor(augment.LUMA).view(3, 1, 1)).sum(1)
    assert torch.allclose(grey, luma[:, None].expand_as(grey), atol=1e-5)
    single = dataclasses.replace(NOTHING, jitter=1.0, grey=1.0)(_images(1), _drawn())
    assert single.shape == (6, 1, 16, 16)


def test_hue_turns_leave_grey_alone_and_a_whole_turn_is_none() -> None:
    turned = augment._turned(torch.tensor([0.0, 1.0, 2 * torch.pi]))
    assert torch.allclose(turned[[0, 2]], torch.eye(3).expand(2, 3, 3), atol=1e-5)
    assert torch.allclose(turned @ torch.ones(3), torch.ones(3, 3), atol=1e-3)


def test_blur_spreads_a_point_and_keeps_its_sum() -> None:
    point = torch.zeros(2, 1, 161, 161)
    point[:, :, 80, 80] = 1.0
    drawn = torch.full((2, augment.NUMBERS), 0.5)
    drawn[1, 11] = 0.99  # not blurred
    found = dataclasses.replace(NOTHING, blur=0.6)(point, drawn)
    assert float(found[0].sum()) == pytest.approx(1.0, abs=1e-4)
    assert 0.1 < float(found[0].max()) < 0.9
    assert torch.allclose(found[1], point[1])


def test_cutout_lays_a_square() -> None:
    drawn = _drawn()
    drawn[:, 13:15] = 0.5
    found = dataclasses.replace(NOTHING, cutout=0.5)(torch.zeros(6, 1, 16, 16), drawn)
    assert bool((found[:, :, 4:12, 4:12] == 0.5).all())
    assert float(found.sum()) == 6 * 64 * 0.5


def test_a_view_depends_on_its_own_row_alone() -> None:
    images, drawn = _images(), _drawn()
    strong = Augmentation(crop="resized", jitter=0.5, grey=0.2, blur=0.5, cutout=0.3)
    whole = strong(images, drawn)
    assert torch.allclose(whole[1::2], strong(images[1::2], drawn[1::2]), atol=1e-6)
    assert torch.equal(whole, strong(images, drawn))
    assert not torch.allclose(whole, strong(images, _drawn(seed=1)), atol=0.05)


def test_mix_up_mixes_images_and_targets_alike() -> None:
    values, partners = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    assert augment.mix(values, partners, torch.tensor([0.75, 1.0]))[:, 0, 0, 0].tolist() == [0.25, 0.0]
    assert augment.mix(torch.eye(2), torch.eye(2).flip(0), torch.tensor([0.6, 0.6])).tolist() == [
        pytest.approx([0.6, 0.4]),
        pytest.approx([0.4, 0.6]),
    ]


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_follow_a_folded_beta_distribution(alpha: float) -> None:
    found = augment.shares(20_000, alpha, generator=torch.Generator().manual_seed(0))
    expected = torch.distributions.Beta(alpha, alpha).sample((20_000,))
    expected = torch.maximum(expected, 1 - expected)
    assert float(found.min()) >= 0.5
    assert float(found.max()) <= 1
    assert float(found.mean()) == pytest.approx(float(expected.mean()), abs=0.01)
    assert float(found.std()) == pytest.approx(float(expected.std()), abs=0.01)
