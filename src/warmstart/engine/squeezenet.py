"""SqueezeNet (Iandola et al. 2016): fire modules, whose 1x1 convolutions squeeze channels before 1x1 and 3x3 ones expand them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from warmstart.engine.bodies import Config, body


@body("warmstart-squeezenet")
class SqueezeNet(nn.Module):
    """``stem`` is [channels, kernel] of the first convolution; ``fires`` are [squeezed, expanded] of each module (expanded twice, by 1x1
    and by 3x3), ``pools`` the numbers of those before which the map is halved.

    Option in the config: ``classes``, the maps of a last convolution (none where it is 0), whose means are the logits.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        inputs, kernel = (int(n) for n in config.stem)
        self.stem = nn.Conv2d(int(config.get("channels", 3)), inputs, kernel, stride=2)
        blocks: list[nn.Module] = []
        for i, (squeezed, expanded) in enumerate(config.fires):
            blocks.append(Fire(inputs, int(squeezed), int(expanded), pool=i in config.pools))
            inputs = 2 * int(expanded)
        if config.get("classes", 0):
            blocks.append(ClassMaps(inputs, int(config.classes)))
        self.blocks = nn.ModuleList(blocks)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor]:
        """The last map (B, C, H, W) of images (B, channels, H, W)."""
        x = functional.relu(self.stem(pixel_values))
        for block in self.blocks:
            x = block(x)
        return (x,)


class Fire(nn.Module):
    """Squeeze, then expand; where ``pool``, after 3x3 max pooling that halves the map."""

    def __init__(self, inputs: int, squeezed: int, expanded: int, *, pool: bool) -> None:
        super().__init__()
        self.pool = pool
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, 2 * expanded, H, W)."""
        if self.pool:
            x = functional.max_pool2d(x, 3, stride=2, ceil_mode=True)
        x = functional.relu(self.squeeze(x))
        return functional.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], dim=1))


class ClassMaps(nn.Module):
    """A map for every class."""

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, classes, H, W)."""
        return functional.relu(self.conv(x))
