"""YAMNet (Google 2019): MobileNetV1 over patches of a log-mel spectrogram, as a sequence with one state for each patch.

Between blocks the cells of all patches' maps lie in one sequence (B, T * H * W, C), so that a recording of any length has one state.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from warmstart.engine.bodies import Config, body


@body("warmstart-yamnet")
class YamNet(nn.Module):
    """``stem`` channels of the first convolution, then blocks of the channels ``widths`` with ``strides``; ``patch`` is [frames, bands].

    Convolutions are padded by TensorFlow's rule, and have biases (the norms are folded).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        height, width = (-(-int(n) // 2) for n in config.patch)
        self.stem = nn.Conv2d(1, int(config.stem), 3, stride=2)
        blocks, inputs = [], int(config.stem)
        for outputs, stride in zip(config.widths, config.strides, strict=True):
            blocks.append(Block(inputs, int(outputs), stride=int(stride), grid=(height, width)))
            inputs, height, width = int(outputs), -(-height // int(stride)), -(-width // int(stride))
        self.blocks = nn.ModuleList(blocks)
        self.cells = height * width

    def forward(self, input_features: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor]:
        """The state (B, T, D) of each of the patches (B, T, frames, bands); ``attention_mask (B, T)`` is for what reads the states."""
        batch, _, *patch = input_features.shape
        x = input_features.reshape(-1, 1, *patch).to(memory_format=torch.channels_last)
        x = functional.relu(self.stem(_padded(x, 2)))  # (B * T, C, H, W)
        x = _as_sequence(x, batch)
        for block in self.blocks:
            x = block(x)
        return (x.reshape(batch, -1, self.cells, x.shape[2]).mean(2),)


class Block(nn.Module):
    """A 3x3 convolution of each channel by itself, and one across channels, each followed by ReLU; ``grid`` is the map's (H, W)."""

    def __init__(self, inputs: int, outputs: int, *, stride: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid, self.stride = grid, stride
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride=stride, groups=inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T * H * W, inputs) -> (B, T * H * W / stride^2, outputs)."""
        batch, _, channels = x.shape
        maps = x.reshape(-1, *self.grid, channels).permute(0, 3, 1, 2)  # (B * T, C, H, W), without copying
        maps = functional.relu(self.depthwise(_padded(maps, self.stride)))
        return _as_sequence(functional.relu(self.pointwise(maps)), batch)


def _padded(x: Tensor, stride: int) -> Tensor:
    """For a 3x3 convolution: "SAME" of TensorFlow."""
    sides = []
    for size in (x.shape[-1], x.shape[-2]):
        whole = max((-(-size // stride) - 1) * stride + 3 - size, 0)
        sides += [whole // 2, whole - whole // 2]
    return functional.pad(x, sides)


def _as_sequence(maps: Tensor, batch: int) -> Tensor:
    """(B * T, C, H, W) -> (B, T * H * W, C)."""
    return maps.permute(0, 2, 3, 1).reshape(batch, -1, maps.shape[1])
