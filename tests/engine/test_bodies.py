"""Bodies of our own: built from a config, saved, opened again by the same door as every other body, and cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from warmstart.core.errors import BackboneNotFound
from warmstart.engine import bodies, cut, store

MLP = {"model_type": "warmstart-mlp", "sizes": [27, 12, 8, 5], "activation": "sigmoid"}
CONVNET = {"model_type": "warmstart-convnet", "widths": [4, 8, 16], "norm": "batch", "pool": [True, True, False]}


def built(config: dict[str, Any]) -> torch.nn.Module:
    torch.manual_seed(0)
    return bodies.build(config).eval()


@pytest.mark.parametrize("config", [MLP, CONVNET, {**CONVNET, "norm": "group", "convs": 2}, {**MLP, "linear_code": True}])
def test_saved_and_opened(config: dict[str, Any], tmp_path: Path) -> None:
    body, images = built(config), torch.randn(2, 3, 3, 3) if "sizes" in config else torch.randn(2, 3, 8, 8)
    store.save_transformers(body, tmp_path)
    again = store.load_body(tmp_path)
    assert torch.equal(again(pixel_values=images)[0], body(pixel_values=images)[0])
    assert store.read_config(tmp_path) == again.config.to_dict() == config
    assert not again.training


def test_mlp_is_its_layers() -> None:
    body = built({**MLP, "linear_code": True})
    images = torch.rand(4, 3, 3, 3)
    x = images.flatten(1)
    for layer in body.layers[:-1]:
        x = torch.sigmoid(x @ layer.linear.weight.T + layer.linear.bias)
    x = x @ body.layers[-1].linear.weight.T + body.layers[-1].linear.bias
    torch.testing.assert_close(body(pixel_values=images)[0], x)
    torch.testing.assert_close(body(pixel_values=images.flatten(1))[0], x)


def test_convnet_halves_where_it_pools() -> None:
    assert built(CONVNET)(pixel_values=torch.randn(2, 3, 16, 12))[0].shape == (2, 16, 4, 3)


@pytest.mark.parametrize("config", [MLP, CONVNET])
def test_every_block_can_be_cut(config: dict[str, Any]) -> None:
    body, images = built(config), torch.randn(3, 3, 3, 3) if "sizes" in config else torch.randn(3, 3, 8, 8)
    trunk = cut.find_trunk(body)
    assert trunk is not None
    assert trunk.n_blocks == 3
    for point in range(1, 4):
        proof = cut.prove(body, trunk, {"pixel_values": images}, point)
        assert proof.ok, proof.reason


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "warmstart-mpl"}, "warmstart-mlp"),
        ({"model_type": "warmstart-mlp"}, "sizes"),
        ({**MLP, "activation": "relo"}, "relu"),
        ({**MLP, "sizes": [4]}, "number of inputs"),
    ],
)
def test_a_wrong_config_is_named(config: dict[str, Any], words: str) -> None:
    with pytest.raises(BackboneNotFound, match=words):
        bodies.build(config)


def test_weights_of_another_config_are_refused(tmp_path: Path) -> None:
    bodies.save(built(MLP), tmp_path)
    store.write_json(tmp_path / "config.json", {**MLP, "sizes": [27, 12, 8, 6]})
    with pytest.raises(BackboneNotFound, match="do not fit"):
        store.load_body(tmp_path)


def test_no_native_head() -> None:
    with pytest.raises(BackboneNotFound, match="head=pooled"):
        store.with_native_head(built(MLP), ["a", "b"], "single_label_classification", modality="image")
