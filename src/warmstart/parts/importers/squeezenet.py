"""SqueezeNet 1.0 and 1.1 by torchvision's names (Iandola et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from warmstart.core.protocols import Reference
from warmstart.engine import bodies, preprocessing
from warmstart.engine.network import Network, PooledHead
from warmstart.engine.rawnet import BIASED, Raw, renamed, widths

FIRES = {"squeezenet1_0": (3, 4, 5, 7, 8, 9, 10, 12), "squeezenet1_1": (3, 4, 6, 7, 9, 10, 11, 12)}
"""torchvision's numbers of the fire modules; the numbers left out are poolings, and so is 2."""
POOLS = {"squeezenet1_0": (0, 3, 7), "squeezenet1_1": (0, 2, 4)}
"""Fire modules (from 0) behind a pooling."""
STEP = ("squeeze", "expand1x1", "expand3x3")


@dataclass(frozen=True)
class Options:
    """What can be set."""

    pixels: Literal["imagenet", "caffe"] = "imagenet"
    "imagenet: normalised by ImageNet's mean and deviation; caffe: from 0 to 255 without the mean (RGB)"
    size: int = 224
    "pixels on each side of what is cut out of the middle of an image"


class Part:
    """A stem, eight fire modules, and a map for every class whose mean is its logit."""

    name = "squeezenet"
    architectures = tuple(FIRES)
    modality = "image"
    task = "classification"
    head: tuple[str, ...] = ("classifier.1.weight", "classifier.1.bias")
    small: Mapping[str, Any] = {"stem": [8, 3], "fires": [[4, 8]] * 8}

    def __init__(self, options: Options) -> None:
        self.options = options

    def names(self, architecture: str) -> dict[str, str]:
        """torchvision's name of every tensor, and ours."""
        fires = FIRES[architecture]
        layers = [("features.0", "body.stem"), ("classifier.1", f"body.blocks.{len(fires)}.conv")]
        layers += [(f"features.{at}.{step}", f"body.blocks.{i}.{step}") for i, at in enumerate(fires) for step in STEP]
        return renamed(layers, BIASED)

    def sizes(self, architecture: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Channels of the stem and of every module."""
        weight = tensors["features.0.weight"]
        fires = [widths(tensors, [f"features.{at}.squeeze", f"features.{at}.expand1x1"]) for at in FIRES[architecture]]
        return {"stem": [len(weight), weight.shape[-1]], "fires": fires}

    def build(self, architecture: str, sizes: Mapping[str, Any], *, classes: int) -> Network:
        """Our own body, whose last maps are those of the classes, and a head that hands their means on."""
        body = bodies.build({"model_type": "warmstart-squeezenet", **sizes, "pools": list(POOLS[architecture]), "classes": classes})
        if not classes:
            return Network(body, None)
        nothing, ones = torch.zeros(classes), torch.ones(classes)
        return Network(body, PooledHead([len(FIRES[architecture]) + 1], torch.eye(classes), nothing, nothing, ones))

    def example(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Two images of noise, of the scale that the network takes."""
        scale = 60.0 if self.options.pixels == "caffe" else 1.0
        return {"pixel_values": scale * torch.randn(2, 3, self.options.size, self.options.size, generator=generator)}

    def reference(self, architecture: str, tensors: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Reference:
        """The last map's mean, which are the logits where there are classes."""
        raw = Raw(tensors)
        x = functional.relu(raw.conv(batch["pixel_values"], "features.0", stride=2))
        for i, at in enumerate(FIRES[architecture]):
            x = functional.max_pool2d(x, 3, stride=2, ceil_mode=True) if i in POOLS[architecture] else x
            x = functional.relu(raw.conv(x, f"features.{at}.squeeze"))
            wide = [raw.conv(x, f"features.{at}.expand1x1"), raw.conv(x, f"features.{at}.expand3x3", padding=1)]
            x = functional.relu(torch.cat(wide, dim=1))
        if "classifier.1.weight" not in tensors:
            return x.mean((2, 3)), None
        logits = functional.relu(raw.conv(x, "classifier.1")).mean((2, 3))
        return logits, logits

    def save(self, folder: Path) -> None:
        """How pixels are prepared."""
        preprocessing.write_cropped(folder, size=self.options.size, pixels=self.options.pixels)
