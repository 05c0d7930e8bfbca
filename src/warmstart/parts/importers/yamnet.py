"""YAMNet, a MobileNetV1 for sound, with its batch norms folded (layer1.conv, layer2.depthwise, layer2.pointwise, ..., dense)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from warmstart.core.protocols import Reference
from warmstart.engine import bodies, patches, store
from warmstart.engine.network import Network, PooledHead
from warmstart.engine.rawnet import BIASED, Raw, renamed, widths

STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1)
LAYERS = range(2, 2 + len(STRIDES))
RATE = 16_000


@dataclass(frozen=True)
class Options:
    """No options."""


class Part:
    """Patches of 0.975 s of a log-mel spectrogram; several of 521 events at once, by a linear layer on the mean over all patches."""

    name = "yamnet"
    architectures = ("yamnet",)
    modality = "audio"
    task = "multilabel"
    head: tuple[str, ...] = ("dense.weight", "dense.bias")
    small: Mapping[str, Any] = {"stem": 4, "widths": [8] * len(STRIDES)}

    def __init__(self, options: Options) -> None:
        self.options = options

    def names(self, architecture: str) -> dict[str, str]:
        """The published name of every tensor, and ours."""
        layers = [("layer1.conv", "body.stem"), ("dense", "head")]
        layers += [(f"layer{at}.{step}", f"body.blocks.{at - 2}.{step}") for at in LAYERS for step in ("depthwise", "pointwise")]
        return renamed(layers, BIASED)

    def sizes(self, architecture: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Channels of every layer."""
        stem, *others = widths(tensors, ["layer1.conv", *(f"layer{at}.pointwise" for at in LAYERS)])
        return {"stem": stem, "widths": others}

    def build(self, architecture: str, sizes: Mapping[str, Any], *, classes: int) -> Network:
        """Our own body, and a linear head."""
        patch = [patches.YAMNET["patch"], patches.YAMNET["bands"]]
        body = bodies.build({"model_type": "warmstart-yamnet", **sizes, "strides": list(STRIDES), "patch": patch})
        return Network(body, PooledHead.blank(len(STRIDES), width=sizes["widths"][-1], classes=classes) if classes else None)

    def example(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Noise of three patches and of two."""
        shape = (2, 3, patches.YAMNET["patch"], patches.YAMNET["bands"])
        return {patches.NAME: torch.randn(shape, generator=generator), patches.MASK: torch.tensor([[1, 1, 1], [1, 1, 0]])}

    def reference(self, architecture: str, tensors: Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> Reference:
        """The mean over the patches of each recording, and the logits."""
        raw, found = Raw(tensors), []
        for recording, mask in zip(batch[patches.NAME], batch[patches.MASK], strict=True):
            x = functional.relu(raw.conv(recording[mask.bool()].unsqueeze(1), "layer1.conv", stride=2, padding="same"))
            for at, stride in zip(LAYERS, STRIDES, strict=True):
                x = functional.relu(raw.conv(x, f"layer{at}.depthwise", stride=stride, padding="same", depthwise=True))
                x = functional.relu(raw.conv(x, f"layer{at}.pointwise"))
            found.append(x.mean((0, 2, 3)))
        features = torch.stack(found)
        return features, raw.linear(features, "dense") if "dense.weight" in tensors else None

    def save(self, folder: Path) -> None:
        """How sound becomes patches."""
        store.write_json(folder / patches.FILE, patches.settings(RATE, patches.YAMNET))
