"""MobileNetV2 of any width by torchvision's names (mobilenet_v2), into transformers' MobileNetV2 (Sandler et al. 2018)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from warmstart.core.protocols import Reference
from warmstart.engine import preprocessing
from warmstart.engine.network import Network
from warmstart.engine.rawnet import BIASED, NORM, Padding, Raw, renamed

EPS = 1e-5
"""Of torchvision's batch norms; transformers' own default is 1e-3."""
BLOCKS = [(1, 1, 1), (6, 2, 2), (6, 3, 2), (6, 4, 2), (6, 3, 1), (6, 3, 2), (6, 1, 1)]
"""Expansion, repeats and first stride of each stage (table 2 of the paper)."""


@dataclass(frozen=True)
class Options:
    """What can be set."""

    padding: Literal["torch", "same"] = "torch"
    "same: the weights were trained with TensorFlow's padding"
    pixels: Literal["imagenet", "signed"] = "imagenet"
    "imagenet: normalised by ImageNet's mean and deviation; signed: from -1 to 1, as TensorFlow's weights take them"
    size: int = 224
    "pixels on each side of what is cut out of the middle of an image"


class Part:
    """Convolution, norm and ReLU6; inverted residual blocks; a linear layer on the mean of the last map."""

    name = "mobilenet_v2"
    architectures = ("mobilenet_v2",)
    modality = "image"
    task = "classification"
    head: tuple[str, ...] = ("classifier.1.weight", "classifier.1.bias")
    small: Mapping[str, Any] = {"width": 0.1}

    def __init__(self, options: Options) -> None:
        self.options = options

    def names(self, architecture: str) -> dict[str, str]:
        """torchvision's name of every tensor, and transformers'."""
        convs, norms = [], []

        def layer(old: str, new: str) -> None:
            convs.append((f"{old}.0", f"body.mobilenet_v2.{new}.convolution"))
            norms.append((f"{old}.1", f"body.mobilenet_v2.{new}.normalization"))

        layer("features.0", "conv_stem.first_conv")
        for number, (expansion, _) in enumerate(_blocks(), start=1):
            old, new = f"features.{number}.conv", "conv_stem" if number == 1 else f"layer.{number - 2}"
            steps = ["conv_3x3"] if expansion == 1 else ["expand_1x1", "conv_3x3"]
            for i, step in enumerate(steps):
                layer(f"{old}.{i}", f"{new}.{step}")
            convs.append((f"{old}.{len(steps)}", f"body.mobilenet_v2.{new}.reduce_1x1.convolution"))
            norms.append((f"{old}.{len(steps) + 1}", f"body.mobilenet_v2.{new}.reduce_1x1.normalization"))
        layer("features.18", "conv_1x1")
        return renamed(convs) | renamed(norms, NORM) | renamed([("classifier.1", "body.classifier")], BIASED)

    def sizes(self, architecture: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """The width, by the last block."""
        return {"width": len(tensors["features.17.conv.2.weight"]) / 320}

    def build(self, architecture: str, sizes: Mapping[str, Any], *, classes: int) -> Network:
        """transformers' classifier with fresh weights."""
        from transformers import MobileNetV2Config, MobileNetV2ForImageClassification

        config = MobileNetV2Config(
            depth_multiplier=sizes["width"],
            image_size=self.options.size,
            tf_padding=self.options.padding == "same",
            layer_norm_eps=EPS,
            num_labels=classes,
        )
        return Network(MobileNetV2ForImageClassification(config), None)

    def example(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Two images of noise."""
        return {"pixel_values": torch.randn(2, 3, self.options.size, self.options.size, generator=generator)}

    def reference(self, architecture: str, tensors: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Reference:
        """The last map's mean, and the logits."""
        raw = Raw(tensors, eps=EPS)
        padding: Padding = "same" if self.options.padding == "same" else 1

        def layer(x: Tensor, name: str, *, stride: int = 1, pad: Padding = 0, depthwise: bool = False) -> Tensor:
            x = raw.conv(x, f"{name}.0", stride=stride, padding=pad, depthwise=depthwise)
            return functional.relu6(raw.norm(x, f"{name}.1"))

        x = layer(batch["pixel_values"], "features.0", stride=2, pad=padding)
        for number, (expansion, stride) in enumerate(_blocks(), start=1):
            name = f"features.{number}.conv"
            y = layer(x, f"{name}.0") if expansion > 1 else x
            n = int(expansion > 1)
            y = layer(y, f"{name}.{n}", stride=stride, pad=padding, depthwise=True)
            y = raw.norm(raw.conv(y, f"{name}.{n + 1}"), f"{name}.{n + 2}")
            x = x + y if x.shape == y.shape else y
        features = layer(x, "features.18").mean((2, 3))
        return features, raw.linear(features, "classifier.1") if "classifier.1.weight" in tensors else None

    def save(self, folder: Path) -> None:
        """How pixels are prepared."""
        preprocessing.write_cropped(folder, size=self.options.size, pixels=self.options.pixels)


def _blocks() -> list[tuple[int, int]]:
    """Expansion and stride of every block."""
    return [(expansion, stride if i == 0 else 1) for expansion, repeats, stride in BLOCKS for i in range(repeats)]
