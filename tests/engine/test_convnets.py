"""Networks by family: forms that fit small images, and folders that open as the same body."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from warmstart.core.errors import BadOption
from warmstart.engine import convnets, preprocessing, store
from warmstart.engine.convnets import Asked


@pytest.mark.parametrize("family", ["convnet", "small_resnet", "vgg", "resnet", "mobilenet_v2", "efficientnet", "convnext", "vit"])
def test_a_family_fits_small_images_and_opens_again(family: str, tmp_path: Path) -> None:
    channels, side = (1, 28) if family in ("resnet", "convnet") else (3, 32)
    shape = (channels, side, side)
    form = convnets.form(Asked(family, "tiny", shape))
    assert json.loads(json.dumps(form)) == form
    torch.manual_seed(0)
    body = convnets.build(form).eval()
    x = torch.randn(2, *shape)
    with torch.no_grad():
        state = body(pixel_values=x)[0]
        assert state.shape[0] == 2
        assert state.ndim < 4 or min(state.shape[2:]) >= convnets.LEAST_MAP
        mean, std = [0.5] * channels, [0.25] * channels
        convnets.save(body, tmp_path, mean=mean, std=std, shape=shape)
        assert torch.equal(store.load_body(tmp_path)(pixel_values=x)[0], state)
    how = preprocessing.of(tmp_path)
    assert how.geometry.resize == (side, side)
    assert how.geometry.channels == channels
    assert list(how.mean) == mean
    assert how.processor is None


def test_width_and_depth_are_those_asked_for() -> None:
    form = convnets.form(Asked("convnet", "tiny", (3, 32, 32), width=8, depth=2))
    assert form["widths"] == [8, 16, 32]
    assert form["convs"] == 2
    half = convnets.form(Asked("convnext", "tiny", (3, 32, 32), width=50, depth=100))
    assert half["hidden_sizes"] == [48, 96, 192, 384]
    assert half["depths"] == [3, 3, 9, 3]
    assert half["patch_size"] == 2
    deep = convnets.form(Asked("vgg", "base", (3, 64, 64), depth=19))
    assert (deep["widths"], deep["convs"], deep["dense"], deep["grid"]) == ([64, 128, 256, 512, 512], [2, 2, 4, 4, 4], 512, 2)
    given = convnets.form(Asked("resnet", "tiny", (3, 32, 32), values='{"depths": [1, 1], "hidden_sizes": [8, 16]}'))
    assert given["depths"] == [1, 1]
    assert convnets.build(given)(pixel_values=torch.zeros(1, 3, 32, 32))[0].shape == (1, 16, 4, 4)


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        (Asked("resnett", "tiny", (3, 32, 32)), "resnet"),
        (Asked("convnet", "tiny", (3, 32, 32), values="{"), "config"),
        (Asked("vgg", "tiny", (3, 32, 32), depth=12), "depth = 12"),
        (Asked("vit", "tiny", (3, 32, 32), values='{"hidden_act": "nonsense"}'), "vit"),
    ],
)
def test_what_cannot_be_made_is_refused(asked: Asked, given: str) -> None:
    with pytest.raises(BadOption, match=given):
        convnets.form(asked)
