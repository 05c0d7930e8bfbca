"""A small convolutional network for sound: log-mel frames to one state for every 40 ms, each of which sees about two seconds around it.

A few 2-D convolutions see patterns in time and pitch, then blocks in the manner of ConvNeXt (Liu et al. 2022) work along time alone. Norms
act within a frame, and padding is put back to zero before every convolution, so a recording does not depend on its company.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from warmstart.engine.bodies import Config, body

STRIDES = ((2, 2), (2, 2), (1, 2))
"""Of the stem, in time and in pitch."""


@body("warmstart-soundnet")
class SoundNet(nn.Module):
    """``bands`` in, ``stem`` channels of the three first convolutions, then ``depth`` blocks of ``width`` features.

    Further options in the config: ``kernel`` of the blocks (9 states) and ``growth`` of their hidden layer (2).
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        channels = [1, *(int(n) for n in config.stem)]
        width, bands = int(config.width), int(config.bands)
        self.stem = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=stride, padding=1) for a, b, stride in zip(channels[:-1], channels[1:], STRIDES, strict=True)
        )
        self.stem_norms = nn.ModuleList(nn.LayerNorm(n) for n in channels[1:])
        for _, step in STRIDES:
            bands = -(-bands // step)
        self.projection = nn.Linear(channels[-1] * bands, width)
        self.projection_norm = nn.LayerNorm(width)
        kernel, hidden = int(config.get("kernel", 9)), int(config.get("growth", 2) * width)
        self.blocks = nn.ModuleList(Block(width, hidden, kernel=kernel) for _ in range(int(config.depth)))
        self.norm = nn.LayerNorm(width)

    def forward(self, input_features: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor]:
        """The states (B, T, D) of frames (B, N, M), T = N / 4 rounded up; ``attention_mask (B, N)`` says which frames are real."""
        if attention_mask is None:
            attention_mask = input_features.new_ones(input_features.shape[:2])
        real = attention_mask.sum(1)  # (B,)
        x = (input_features * _mask(real, input_features))[:, None]  # (B, 1, N, M)
        for convolution, norm, (step, _) in zip(self.stem, self.stem_norms, STRIDES, strict=True):
            x = norm(convolution(x).permute(0, 2, 3, 1))  # (B, N, M, C)
            real = -torch.div(-real, step, rounding_mode="floor")
            x = (functional.gelu(x) * _mask(real, x)[..., None]).permute(0, 3, 1, 2)
        x = self.projection_norm(self.projection(x.permute(0, 2, 1, 3).flatten(2)))  # (B, T, D)
        mask = _mask(real, x)
        for block in self.blocks:
            x = block(x, mask)
        return (self.norm(x),)

    def _get_feat_extract_output_lengths(self, frames: Tensor | int) -> Tensor | int:
        """States of so many frames: by the name that bodies of transformers have for it."""
        return (frames + 3) // 4


class Block(nn.Module):
    """``x + f(x)``: each feature convolved along time, a norm, and two dense layers with GELU between them."""

    def __init__(self, width: int, hidden: int, *, kernel: int) -> None:
        super().__init__()
        self.along = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide, self.back = nn.Linear(width, hidden), nn.Linear(hidden, width)
        nn.init.zeros_(self.back.weight)  # every block begins as the identity
        nn.init.zeros_(self.back.bias)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D); ``mask (B, T, 1)``."""
        y = self.along((x * mask).transpose(1, 2)).transpose(1, 2)
        return x + cast(Tensor, self.back(functional.gelu(self.wide(self.norm(y)))))


def _mask(real: Tensor, x: Tensor) -> Tensor:
    """Ones at the first ``real (B,)`` places of the second dimension of ``x``: (B, T, 1) of its type."""
    return (torch.arange(x.shape[1], device=x.device) < real[:, None]).to(x.dtype)[..., None]
