"""ResNet-18 to -152 by torchvision's names, into transformers' ResNet (He et al. 2016; stride in the 3x3 convolution)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from warmstart.core.protocols import Reference
from warmstart.engine import preprocessing
from warmstart.engine.network import Network
from warmstart.engine.rawnet import BIASED, NORM, Raw, renamed, widths

DEPTHS = {
    "resnet18": (2, 2, 2, 2),
    "resnet34": (3, 4, 6, 3),
    "resnet50": (3, 4, 6, 3),
    "resnet101": (3, 4, 23, 3),
    "resnet152": (3, 8, 36, 3),
}
BASIC = ("resnet18", "resnet34")


@dataclass(frozen=True)
class Options:
    """What can be set."""

    pixels: Literal["imagenet", "signed"] = "imagenet"
    "imagenet: normalised by ImageNet's mean and deviation; signed: from -1 to 1"
    size: int = 224
    "pixels on each side of what is cut out of the middle of an image"


class Part:
    """A 7x7 stem, four stages of residual blocks, a linear layer on the mean of the last map."""

    name = "resnet"
    architectures = tuple(DEPTHS)
    modality = "image"
    task = "classification"
    head: tuple[str, ...] = ("fc.weight", "fc.bias")
    small: Mapping[str, Any] = {"stem": 8, "planes": [8, 12, 16, 24]}

    def __init__(self, options: Options) -> None:
        self.options = options

    def names(self, architecture: str) -> dict[str, str]:
        """torchvision's name of every tensor, and transformers'."""
        convs, norms = [("conv1", "body.resnet.embedder.embedder.convolution")], [("bn1", "body.resnet.embedder.embedder.normalization")]
        for old, new, first in _blocks(architecture):
            layers = [(f"{old}.{{}}{i + 1}", f"{new}.layer.{i}") for i in range(_n_convs(architecture))]
            convs += [(place.format("conv"), f"{layer}.convolution") for place, layer in layers]
            norms += [(place.format("bn"), f"{layer}.normalization") for place, layer in layers]
            if first:
                convs.append((f"{old}.downsample.0", f"{new}.shortcut.convolution"))
                norms.append((f"{old}.downsample.1", f"{new}.shortcut.normalization"))
        return renamed(convs) | renamed(norms, NORM) | renamed([("fc", "body.classifier.1")], BIASED)

    def sizes(self, architecture: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Channels of the stem, and of the first convolution of each stage."""
        stem, *planes = widths(tensors, ["conv1", *(f"layer{stage}.0.conv1" for stage in range(1, 5))])
        return {"stem": stem, "planes": planes}

    def build(self, architecture: str, sizes: Mapping[str, Any], *, classes: int) -> Network:
        """transformers' classifier with fresh weights."""
        from transformers import ResNetConfig, ResNetForImageClassification

        config = ResNetConfig(
            embedding_size=sizes["stem"],
            hidden_sizes=[n if architecture in BASIC else 4 * n for n in sizes["planes"]],
            depths=list(DEPTHS[architecture]),
            layer_type="basic" if architecture in BASIC else "bottleneck",
            num_labels=classes,
        )
        return Network(ResNetForImageClassification(config), None)

    def example(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Two images of noise."""
        return {"pixel_values": torch.randn(2, 3, self.options.size, self.options.size, generator=generator)}

    def reference(self, architecture: str, tensors: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Reference:
        """The last map's mean, and the logits."""
        raw = Raw(tensors)
        n = _n_convs(architecture)
        x = functional.relu(raw.norm(raw.conv(batch["pixel_values"], "conv1", stride=2, padding=3), "bn1"))
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for name, _, first in _blocks(architecture):
            stride = 2 if first and not name.startswith("layer1.") else 1
            y = x
            for i in range(1, n + 1):
                at = stride if i == (1 if n == 2 else 2) else 1
                y = raw.norm(raw.conv(y, f"{name}.conv{i}", stride=at, padding=1 if n == 2 or i == 2 else 0), f"{name}.bn{i}")
                y = functional.relu(y) if i < n else y
            if first:
                x = raw.norm(raw.conv(x, f"{name}.downsample.0", stride=stride), f"{name}.downsample.1")
            x = functional.relu(x + y)
        features = x.mean((2, 3))
        return features, raw.linear(features, "fc") if "fc.weight" in tensors else None

    def save(self, folder: Path) -> None:
        """How pixels are prepared."""
        preprocessing.write_cropped(folder, size=self.options.size, pixels=self.options.pixels)


def _n_convs(architecture: str) -> int:
    return 2 if architecture in BASIC else 3


def _blocks(architecture: str) -> Iterator[tuple[str, str, bool]]:
    """torchvision's and transformers' name of every block, and whether the shape changes there."""
    for stage, depth in enumerate(DEPTHS[architecture]):
        for i in range(depth):
            changes = i == 0 and (stage > 0 or architecture not in BASIC)
            yield f"layer{stage + 1}.{i}", f"body.resnet.encoder.stages.{stage}.layers.{i}", changes
