"""Labelled drawings as files, and bodies of transformers for them, tiny and random, with their image processors."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as hf
from PIL import Image

from warmstart.engine import store
from warmstart.testing import drawings, tiny_image_backbone

__all__ = ["drawings", "hf_backbone", "tiny_image_backbone", "write_folder"]


def write_folder(folder: Path, n: int, *, seed: int = 0, side: int = 20) -> Path:
    """``n`` drawings as PNG files, in a folder for each class."""
    for i, (pixels, label) in enumerate(drawings(n, side=side, seed=seed)):
        place = folder / label
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{i:04d}.png")
    return folder


def hf_backbone(name: str, folder: Path) -> Path:
    """A tiny random ViT, ResNet or MobileNetV2 with its processor."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name == "vit":
            body = hf.ViTModel(hf.ViTConfig(**sizes, image_size=16, patch_size=8, initializer_range=0.3))
            processor = hf.ViTImageProcessorPil(size={"height": 16, "width": 16})
        elif name == "resnet":
            body = hf.ResNetModel(hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12, 16], depths=[1, 1, 1], layer_type="basic"))
            processor = hf.ConvNextImageProcessorPil(size={"shortest_edge": 16}, crop_pct=0.875)
        else:
            body = hf.MobileNetV2Model(hf.MobileNetV2Config(depth_multiplier=0.1, min_depth=4, image_size=16))
            processor = hf.MobileNetV2ImageProcessorPil(size={"shortest_edge": 18}, crop_size={"height": 16, "width": 16})
    store.quiet_transformers()
    store.save_transformers(body.eval(), folder)
    processor.save_pretrained(folder)
    return folder
