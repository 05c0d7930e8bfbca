"""Encoders of transformers for images and sound open from local folders as they were saved, and save and open again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf

from tiny_models import IMAGE_MODELS, SOUND_MODELS, WIDTH, tiny_batch, tiny_model
from warmstart.engine import cut, network, preprocessing, store

pytestmark = pytest.mark.filterwarnings("ignore:Support for mismatched key_padding_mask")  # of WavLM in transformers


@pytest.mark.parametrize("name", [name for name in IMAGE_MODELS | SOUND_MODELS if name != "whisper"])
@torch.no_grad()
def test_a_folder_opens_as_the_body_that_was_saved(name: str, tmp_path: Path) -> None:
    body, batch = tiny_model(name), tiny_batch(name)
    body.save_pretrained(tmp_path / "a")
    opened = store.load_body(tmp_path / "a")
    assert type(opened) is type(body)
    expected = network.last_state(cut.run(body, batch))
    torch.testing.assert_close(network.last_state(cut.run(opened, batch)), expected)
    store.save_transformers(opened, tmp_path / "b")
    torch.testing.assert_close(network.last_state(cut.run(store.load_body(tmp_path / "b"), batch)), expected)
    pooled = network.pooled_states(opened, cut.find_trunk(opened), batch)
    assert pooled.shape[0] == 3
    assert pooled.isfinite().all()


def whole(kind: str) -> Any:
    """A CLIP or SigLIP with both towers."""
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
    vision, text = {**sizes, "image_size": 16, "patch_size": 8}, {**sizes, "vocab_size": 50, "max_position_embeddings": 12}
    torch.manual_seed(0)
    if kind == "clip":
        text |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        return hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()
    return hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=vision)).eval()


@pytest.mark.parametrize("kind", ["clip", "siglip"])
@torch.no_grad()
def test_of_a_model_with_two_towers_the_one_for_images_is_the_body(kind: str, tmp_path: Path) -> None:
    both, images = whole(kind), torch.randn(2, 3, 16, 16)
    both.save_pretrained(tmp_path / "both")
    body = store.load_body(tmp_path / "both")
    expected = both.vision_model(pixel_values=images).last_hidden_state
    torch.testing.assert_close(body(pixel_values=images).last_hidden_state, expected)
    assert sum(p.numel() for p in body.parameters()) == sum(p.numel() for p in both.vision_model.parameters())
    store.save_transformers(body, tmp_path / "tower")
    torch.testing.assert_close(store.load_body(tmp_path / "tower")(pixel_values=images).last_hidden_state, expected)
    processor = {"clip": hf.CLIPImageProcessorPil, "siglip": hf.SiglipImageProcessorPil}[kind]
    sizes = {
        "clip": {"size": {"shortest_edge": 16}, "crop_size": {"height": 16, "width": 16}},
        "siglip": {"size": {"height": 16, "width": 16}},
    }
    processor(**sizes[kind]).save_pretrained(tmp_path / "both")
    assert preprocessing.of(tmp_path / "both").processor is None  # our own way gives the same
