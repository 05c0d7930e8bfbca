"""MobileNetV1 of any width with its batch norms folded (conv0, dw1, pw1, ..., fc), into transformers' MobileNetV1 (Howard et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from warmstart.core.protocols import Reference
from warmstart.engine import preprocessing
from warmstart.engine.network import Network
from warmstart.engine.rawnet import BIASED, Padding, Raw, renamed

STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)


@dataclass(frozen=True)
class Options:
    """What can be set."""

    padding: Literal["torch", "same"] = "same"
    "same: the weights were trained with TensorFlow's padding"
    pixels: Literal["imagenet", "signed"] = "signed"
    "imagenet: normalised by ImageNet's mean and deviation; signed: from -1 to 1, as TensorFlow's weights take them"
    size: int = 224
    "pixels on each side of what is cut out of the middle of an image"


class Part:
    """Convolutions by depth and by point with ReLU6; a linear layer on the mean of the last map."""

    name = "mobilenet_v1"
    architectures = ("mobilenet_v1",)
    modality = "image"
    task = "classification"
    head: tuple[str, ...] = ("fc.weight", "fc.bias")
    small: Mapping[str, Any] = {"width": 0.25}

    def __init__(self, options: Options) -> None:
        self.options = options

    def names(self, architecture: str) -> dict[str, str]:
        """The published name of every tensor, and transformers': a folded bias is that of the norm, which does nothing else."""
        layers = [("conv0", "conv_stem")]
        for i in range(1, len(STRIDES) + 1):
            layers += [(f"dw{i}", f"layer.{2 * i - 2}"), (f"pw{i}", f"layer.{2 * i - 1}")]
        weights = {f"{old}.weight": f"body.mobilenet_v1.{new}.convolution.weight" for old, new in layers}
        biases = {f"{old}.bias": f"body.mobilenet_v1.{new}.normalization.bias" for old, new in layers}
        return weights | biases | renamed([("fc", "body.classifier")], BIASED)

    def sizes(self, architecture: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """The width, by the last layer."""
        return {"width": len(tensors[f"pw{len(STRIDES)}.weight"]) / 1024}

    def build(self, architecture: str, sizes: Mapping[str, Any], *, classes: int) -> Network:
        """transformers' classifier with fresh weights and norms that do nothing."""
        from transformers import MobileNetV1Config, MobileNetV1ForImageClassification

        config = MobileNetV1Config(
            depth_multiplier=sizes["width"],
            image_size=self.options.size,
            tf_padding=self.options.padding == "same",
            num_labels=classes,
        )
        network = Network(MobileNetV1ForImageClassification(config), None)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                assert layer.running_var is not None  # noqa: S101 - it tracks
                layer.running_var.fill_(1 - layer.eps)
        return network

    def example(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Two images of noise."""
        return {"pixel_values": torch.randn(2, 3, self.options.size, self.options.size, generator=generator)}

    def reference(self, architecture: str, tensors: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Reference:
        """The last map's mean, and the logits."""
        raw = Raw(tensors)
        padding: Padding = "same" if self.options.padding == "same" else 1
        x = functional.relu6(raw.conv(batch["pixel_values"], "conv0", stride=2, padding=padding))
        for i, stride in enumerate(STRIDES, start=1):
            x = functional.relu6(raw.conv(x, f"dw{i}", stride=stride, padding=padding, depthwise=True))
            x = functional.relu6(raw.conv(x, f"pw{i}"))
        features = x.mean((2, 3))
        return features, raw.linear(features, "fc") if "fc.weight" in tensors else None

    def save(self, folder: Path) -> None:
        """How pixels are prepared."""
        preprocessing.write_cropped(folder, size=self.options.size, pixels=self.options.pixels)
