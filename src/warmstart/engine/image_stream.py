"""Batches of random views of labelled or unlabelled images: decoded once, augmented as whole batches, the same for any number of processes."""

from __future__ import annotations

import torch
from torch import Tensor

from warmstart.engine import augment, pixels
from warmstart.engine.augment import Augmentation
from warmstart.engine.order import Order
from warmstart.engine.pixels import Pixels

MOMENTS_FROM = 2_000
"""Images that mean and spread of the channels are told from."""


class ImageStream:
    """The share of one process of every step's batch.

    Args:
        images: What is learned from.
        augmentation: How views are made of it.
        batch: Images of a step over all processes.
        mean: Of each channel, taken away from values between 0 and 1.
        std: Of each channel, divided by.
        seed: Of the order and of the views.
        rank: Which of ``world`` processes this is.
        world: How many there are.
        device: Where the views are made.
    """

    def __init__(
        self,
        images: Pixels,
        augmentation: Augmentation,
        *,
        batch: int,
        mean: list[float],
        std: list[float],
        seed: int,
        rank: int,
        world: int,
        device: torch.device,
    ) -> None:
        self.images, self.augmentation, self.device = images, augmentation, device
        self._order = Order(len(images.train), batch, seed=seed)
        self._mean, self._std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (mean, std))
        self._seed, self._rank, self._world = seed, rank, world

    @property
    def batch(self) -> int:
        """Images of a step over all processes."""
        return self._order.batch

    def rows(self, step: int) -> Tensor:
        """Rows of ``images`` in the whole batch of a step, (B,)."""
        return self.images.train[self._order(step)]

    def numbers(self, step: int, purpose: int) -> torch.Generator:
        """Random numbers of a step for one purpose, the same in all processes."""
        return torch.Generator().manual_seed((((self._seed + 1) * 2_147_483_647 + step) * 31 + purpose) % 2**63)

    def mine(self, values: Tensor) -> Tensor:
        """This process's share of something that all have."""
        return values[self._rank :: self._world]

    def views(self, step: int, which: int = 0, *, shift: int = 0) -> Tensor:
        """View number ``which`` of this process's images of a step, or of those ``shift`` places further in the whole batch."""
        rows = self.rows(step)
        drawn = augment.draw(len(rows), generator=self.numbers(step, which))
        rows, drawn = (self.mine(values.roll(-shift, 0)) for values in (rows, drawn))
        return self.normal(self.augmentation(self.images.images[rows].to(self.device), drawn))

    def normal(self, x: Tensor) -> Tensor:
        """Images with values from 0 to 1 as the body takes them, in the memory layout that convolutions are fastest in."""
        return x.sub_(self._mean).div_(self._std).contiguous(memory_format=torch.channels_last)

    def plain(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) as they are."""
        return self.normal(pixels.unit(images.to(self.device)).clone())


def moments(images: Pixels, seed: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel of the training images, between 0 and 1, to four digits."""
    generator = torch.Generator().manual_seed(seed)
    rows = images.train[torch.randperm(len(images.train), generator=generator)[:MOMENTS_FROM]]
    std, mean = torch.std_mean(pixels.unit(images.images[rows]), dim=(0, 2, 3))
    return [round(v, 4) for v in mean.tolist()], [round(max(v, 1e-3), 4) for v in std.tolist()]
