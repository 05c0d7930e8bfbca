"""ResNet-20 to -110 for CIFAR with parameter-free shortcuts (He et al. 2016, section 4.2, option A), named as torchvision's ResNets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from warmstart.core.protocols import Reference
from warmstart.engine import bodies, preprocessing, store
from warmstart.engine.network import Network, PooledHead
from warmstart.engine.rawnet import BIASED, NORM, Raw, renamed, widths

DEPTHS = {"resnet20_cifar": 3, "resnet32_cifar": 5, "resnet44_cifar": 7, "resnet56_cifar": 9, "resnet110_cifar": 18}
STAGES = 3


@dataclass(frozen=True)
class Options:
    """What can be set."""

    size: int = 32
    "pixels on each side that images are resized to"


class Part:
    """A 3x3 stem, three stages of basic blocks, a linear layer on the mean of the last map."""

    name = "cifar_resnet"
    architectures = tuple(DEPTHS)
    modality = "image"
    task = "classification"
    head: tuple[str, ...] = ("linear.weight", "linear.bias")
    small: Mapping[str, Any] = {"widths": [4, 8, 16]}

    def __init__(self, options: Options) -> None:
        self.options = options

    def names(self, architecture: str) -> dict[str, str]:
        """The published name of every tensor, and ours."""
        convs, norms = [("conv1", "body.stem")], [("bn1", "body.stem_norm")]
        for number, name in enumerate(_blocks(architecture)):
            for i, ours in ((1, "first"), (2, "second")):
                convs.append((f"{name}.conv{i}", f"body.blocks.{number}.{ours}"))
                norms.append((f"{name}.bn{i}", f"body.blocks.{number}.{ours}_norm"))
        return renamed(convs) | renamed(norms, NORM) | renamed([("linear", "head")], BIASED)

    def sizes(self, architecture: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Channels of each stage."""
        return {"widths": widths(tensors, [f"layer{stage}.0.conv1" for stage in range(1, STAGES + 1)])}

    def build(self, architecture: str, sizes: Mapping[str, Any], *, classes: int) -> Network:
        """Our own residual network, and a linear head."""
        size = self.options.size
        normal = preprocessing.PIXELS["imagenet"]
        image = {"size": [size, size], "channels": 3, "mean": normal["image_mean"], "std": normal["image_std"]}
        shape = {"widths": sizes["widths"], "depth": DEPTHS[architecture], "shortcut": "pad"}
        body = bodies.build({"model_type": "warmstart-resnet", **shape, "image": image})
        n_blocks = STAGES * DEPTHS[architecture]
        return Network(body, PooledHead.blank(n_blocks, width=sizes["widths"][-1], classes=classes) if classes else None)

    def example(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Two images of noise."""
        return {"pixel_values": torch.randn(2, 3, self.options.size, self.options.size, generator=generator)}

    def reference(self, architecture: str, tensors: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Reference:
        """The last map's mean, and the logits."""
        raw = Raw(tensors)
        x = functional.relu(raw.norm(raw.conv(batch["pixel_values"], "conv1", padding=1), "bn1"))
        for name in _blocks(architecture):
            stride = 2 if name.endswith(".0") and not name.startswith("layer1.") else 1
            y = functional.relu(raw.norm(raw.conv(x, f"{name}.conv1", stride=stride, padding=1), f"{name}.bn1"))
            y = raw.norm(raw.conv(y, f"{name}.conv2", padding=1), f"{name}.bn2")
            if x.shape != y.shape:
                x = x[:, :, ::2, ::2]
                nothing = x.new_zeros(len(x), (y.shape[1] - x.shape[1]) // 2, *x.shape[2:])
                x = torch.cat([nothing, x, nothing], dim=1)
            x = functional.relu(x + y)
        features = x.mean((2, 3))
        return features, raw.linear(features, "linear") if "linear.weight" in tensors else None

    def save(self, folder: Path) -> None:
        """How pixels are prepared, which the body's configuration says too."""
        store.write_json(folder / preprocessing.FILE, preprocessing.of(folder).settings)


def _blocks(architecture: str) -> list[str]:
    return [f"layer{stage}.{i}" for stage in range(1, STAGES + 1) for i in range(DEPTHS[architecture])]
