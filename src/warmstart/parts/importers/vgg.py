"""VGG-11 to -19, with batch norms or without, by torchvision's names (Simonyan & Zisserman 2015)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from warmstart.core.protocols import Reference
from warmstart.engine import bodies, preprocessing, vgg
from warmstart.engine.network import Network, PooledHead
from warmstart.engine.rawnet import BIASED, NORM, Raw, renamed, widths

CONVS = {f"vgg{layers}": convs for layers, convs in vgg.CONVS.items()}


@dataclass(frozen=True)
class Options:
    """What can be set."""

    pixels: Literal["imagenet", "caffe"] = "imagenet"
    "imagenet: normalised by ImageNet's mean and deviation; caffe: from 0 to 255 without the mean (RGB)"
    size: int = 224
    "pixels on each side of what is cut out of the middle of an image"


class Part:
    """Five stages of convolutions, two dense layers, a linear layer of classes."""

    name = "vgg"
    architectures = tuple(name + norm for name in CONVS for norm in ("", "_bn"))
    modality = "image"
    task = "classification"
    head: tuple[str, ...] = ("classifier.6.weight", "classifier.6.bias")
    small: Mapping[str, Any] = {"widths": [4, 4, 8, 8, 8], "dense": 16}

    def __init__(self, options: Options) -> None:
        self.options = options

    def names(self, architecture: str) -> dict[str, str]:
        """torchvision's name of every tensor, and ours."""
        step = 3 if architecture.endswith("_bn") else 2
        places = [(at, stage, i * step) for at, stage, i in _places(architecture)]
        found = renamed([(f"features.{at}", f"body.stages.{stage}.layers.{i}") for at, stage, i in places], BIASED)
        if step == 3:
            found |= renamed([(f"features.{at + 1}", f"body.stages.{stage}.layers.{i + 1}") for at, stage, i in places], NORM)
        dense = [("classifier.0", "body.first"), ("classifier.3", "body.second"), ("classifier.6", "head")]
        return found | renamed(dense, BIASED)

    def sizes(self, architecture: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Channels of each stage, and of the dense layers."""
        firsts = [f"features.{at}" for at, _, i in _places(architecture) if i == 0]
        *stages, dense = widths(tensors, [*firsts, "classifier.0"])
        return {"widths": stages, "dense": dense}

    def build(self, architecture: str, sizes: Mapping[str, Any], *, classes: int) -> Network:
        """Our own body, and a linear head."""
        convs, norm = list(CONVS[architecture.removesuffix("_bn")]), "batch" if architecture.endswith("_bn") else "none"
        body = bodies.build({"model_type": "warmstart-vgg", **sizes, "convs": convs, "norm": norm})
        return Network(body, PooledHead.blank(len(convs), width=sizes["dense"], classes=classes) if classes else None)

    def example(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Two images of noise."""
        return {"pixel_values": torch.randn(2, 3, self.options.size, self.options.size, generator=generator)}

    def reference(self, architecture: str, tensors: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Reference:
        """What the second dense layer makes, and the logits."""
        raw = Raw(tensors)
        x = batch["pixel_values"]
        for at, stage, i in _places(architecture):
            if i == 0 and stage > 0:
                x = functional.max_pool2d(x, 2)
            x = raw.conv(x, f"features.{at}", padding=1)
            x = functional.relu(raw.norm(x, f"features.{at + 1}") if architecture.endswith("_bn") else x)
        x = functional.adaptive_avg_pool2d(functional.max_pool2d(x, 2), 7).flatten(1)
        features = functional.relu(raw.linear(functional.relu(raw.linear(x, "classifier.0")), "classifier.3"))
        return features, raw.linear(features, "classifier.6") if "classifier.6.weight" in tensors else None

    def save(self, folder: Path) -> None:
        """How pixels are prepared."""
        preprocessing.write_cropped(folder, size=self.options.size, pixels=self.options.pixels)


def _places(architecture: str) -> Iterator[tuple[int, int, int]]:
    """torchvision's number of every convolution, its stage, and its number there."""
    at, step = 0, 3 if architecture.endswith("_bn") else 2
    for stage, convs in enumerate(CONVS[architecture.removesuffix("_bn")]):
        for i in range(convs):
            yield at, stage, i
            at += step
        at += 1  # the pooling
