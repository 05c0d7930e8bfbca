"""A residual network for small images, as He et al. (2016, section 4.2) built it for CIFAR-10: a 3x3 stem that keeps the size."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from warmstart.engine.bodies import Config, Norm, body, normalisation


@body("warmstart-resnet")
class ResNet(nn.Module):
    """Stages of ``depth`` basic blocks; every stage after the first halves the map. ``widths`` are the channels of each stage.

    Options in the config: ``channels`` of the input (3), ``norm`` (batch or group) and ``shortcut``, the way round a block that changes
    the shape: conv (a 1x1 convolution), or pad (the paper's option A, without parameters: every second pixel, channels padded with zeros).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        widths = [int(n) for n in config.widths]
        norm: Norm = config.get("norm", "batch")
        self.stem = nn.Conv2d(int(config.get("channels", 3)), widths[0], 3, padding=1, bias=False)
        self.stem_norm = normalisation(norm, widths[0])
        pad = config.get("shortcut", "conv") == "pad"
        blocks, inputs = [], widths[0]
        for stage, width in enumerate(widths):
            for i in range(int(config.depth)):
                blocks.append(Block(inputs, width, stride=2 if stage and not i else 1, norm=norm, pad=pad))
                inputs = width
        self.blocks = nn.ModuleList(blocks)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor]:
        """The last stage's map (B, C, H, W) of images (B, channels, H, W)."""
        x = functional.relu(self.stem_norm(self.stem(pixel_values)))
        for block in self.blocks:
            x = block(x)
        return (x,)


class Block(nn.Module):
    """``relu(x + f(x))``, f being two 3x3 convolutions; a 1x1 convolution, or padding, on the way round where the shape changes."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, norm: Norm, pad: bool = False) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.first_norm = normalisation(norm, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = normalisation(norm, outputs)
        self.shortcut: nn.Module = nn.Identity()
        if pad and (stride > 1 or inputs != outputs):
            self.shortcut = Padded(outputs - inputs, stride)
        elif stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), normalisation(norm, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, H, W) -> (B, outputs, H / stride, W / stride)."""
        y = functional.relu(self.first_norm(self.first(x)))
        return functional.relu(self.shortcut(x) + self.second_norm(self.second(y)))


class Padded(nn.Module):
    """Every ``stride``-th pixel, with ``more`` channels of zeros, half of them on each side."""

    def __init__(self, more: int, stride: int) -> None:
        super().__init__()
        self.more, self.stride = more, stride

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C + more, H / stride, W / stride)."""
        return functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
