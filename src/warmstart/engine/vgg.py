"""VGG (Simonyan & Zisserman 2015): stages of 3x3 convolutions, then two dense layers."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from warmstart.engine.bodies import Config, Norm, body, normalisation

GRID = 7
"""The last map is pooled to so many cells on each side before the dense layers, where the config does not say another number."""

CONVS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each stage by the number of layers that a VGG is called after, its three dense ones counted (table 1 of the paper)."""


@body("warmstart-vgg")
class Vgg(nn.Module):
    """``widths`` are the channels of each stage, ``convs`` its convolutions, ``dense`` the features of both dense layers.

    Options in the config: ``norm`` (batch, group or none), ``channels`` of the input (3) and ``grid`` (7): the dense layers see
    ``grid x grid`` cells.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = [int(n) for n in config.widths]
        channels = [int(config.get("channels", 3)), *widths]
        norm: Norm = config.get("norm", "none")
        self.grid = int(config.get("grid", GRID))
        self.stages = nn.ModuleList(
            Stage(a, b, convs=int(n), norm=norm) for a, b, n in zip(channels[:-1], channels[1:], config.convs, strict=True)
        )
        self.first = nn.Linear(widths[-1] * self.grid**2, int(config.dense))
        self.second = nn.Linear(int(config.dense), int(config.dense))

    def forward(self, pixel_values: Tensor) -> tuple[Tensor]:
        """What the second dense layer makes (B, D) of images (B, channels, H, W)."""
        x = pixel_values
        for stage in self.stages:
            x = stage(x)
        x = functional.adaptive_avg_pool2d(x, self.grid).flatten(1)
        return (functional.relu(self.second(functional.relu(self.first(x)))),)


class Stage(nn.Module):
    """``convs`` times convolution (with a bias), norm where there is one, and ReLU; then 2x2 max pooling."""

    def __init__(self, inputs: int, outputs: int, *, convs: int, norm: Norm) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(convs):
            layers.append(nn.Conv2d(inputs if i == 0 else outputs, outputs, 3, padding=1))
            if norm != "none":
                layers.append(normalisation(norm, outputs))
            layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers, nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / 2, W / 2)."""
        return cast(Tensor, self.layers(x))
