"""Random views of images: whole batches as tensors, on their device. Shapes: B images, C channels, H W pixels, values from 0 to 1.

A row of ``draw`` holds every random number of one view, so a view depends on its image and its row alone: shares of a batch on several
processes together are the batch of one. Cropping, resizing, flipping and blurring are linear and act on rows and columns separately, so
they are one pair of small matrices for each image; brightness, saturation, hue and greyscale are one 3x3 matrix on colours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

NUMBERS = 16
"""Uniform numbers that one view is made of."""

LUMA = (0.299, 0.587, 0.114)
"""Grey of a colour (ITU-R BT.601)."""

TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True)
class Augmentation:
    """What is done to an image; the defaults are the usual ones of supervised learning on small images (He et al. 2016).

    Attributes:
        crop: ``pad``: a crop of the same size after padding with black by an eighth of the side; ``resized``: a part of the image of
            ``smallest`` to all of its area and of proportions 3:4 to 4:3, resized (Szegedy et al. 2015); ``none``.
        smallest: Least area of a resized crop, as a share.
        flip: Chance of a mirror image.
        jitter: Strength of colour jitter (Chen et al. 2020): brightness, contrast and saturation change by up to 0.8 of it, hue by up to
            0.2 of a turn times it. 0: none.
        jitter_chance: Share of the images that it is done to.
        grey: Chance that colours are taken away.
        blur: Chance of a Gaussian blur of 0.1 to 2 pixels, times the side over 224.
        cutout: Side of a grey square, as a share of the image's, that is laid on it somewhere (DeVries & Taylor 2017). 0: none.
    """

    crop: Literal["none", "pad", "resized"] = "pad"
    smallest: float = 0.2
    flip: float = 0.5
    jitter: float = 0.0
    jitter_chance: float = 0.8
    grey: float = 0.0
    blur: float = 0.0
    cutout: float = 0.0

    def __call__(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Views (B, C, H, W), float32 from 0 to 1, of ``images`` (bytes, or floats from 0 to 1) by their rows ``drawn (B, NUMBERS)``."""
        drawn = drawn.to(images.device, torch.float32)
        x = self._shape(images, drawn)
        if self.jitter or self.grey:
            x = self._colour(x, drawn)
        return self._cut_out(x, drawn) if self.cutout else x

    def _shape(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Crop, resize, mirror and blur."""
        x = images.to(torch.float32, copy=True)
        if images.dtype == torch.uint8:
            x = x.mul_(1 / 255)
        height, width = x.shape[-2:]
        blurred = drawn[:, 11] < self.blur
        mirrored = drawn[:, 4] < self.flip
        if self.crop == "none" and not self.blur:
            return torch.where(mirrored[:, None, None, None], x.flip(3), x) if self.flip else x
        rows, columns = self._crops(drawn, height, width)
        columns = torch.where(mirrored[:, None, None], columns.flip(1), columns)
        if self.blur:
            sigma = (0.1 + 1.9 * drawn[:, 12]) * min(height, width) / 224
            sigma = torch.where(blurred, sigma, 0.0)
            rows, columns = _gaussian(sigma, height) @ rows, _gaussian(sigma, width) @ columns
        return (rows[:, None] @ x) @ columns[:, None].transpose(2, 3)  # (B, C, H, W)

    def _crops(self, drawn: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Matrices (B, H, H) and (B, W, W) that take rows and columns of an image to those of its crop."""
        if self.crop == "pad":
            return tuple(_shifted(drawn[:, 2 + i], n) for i, n in enumerate((height, width)))  # type: ignore[return-value]
        if self.crop == "none":
            return tuple(torch.eye(n, device=drawn.device).expand(len(drawn), n, n) for n in (height, width))  # type: ignore[return-value]
        area = self.smallest + (1 - self.smallest) * drawn[:, 0]
        proportion = torch.exp((2 * drawn[:, 1] - 1) * math.log(4 / 3))
        tall = (area / proportion).sqrt().clamp(max=1.0) * height
        wide = (area * proportion).sqrt().clamp(max=1.0) * width
        return _resampled(drawn[:, 2], tall, height), _resampled(drawn[:, 3], wide, width)

    def _colour(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Jitter and greyscale; contrast pulls towards the image's mean grey. Clipped once, at the end."""
        n, channels = x.shape[:2]
        done = drawn[:, 5] < self.jitter_chance
        brightness, contrast, saturation = (
            torch.where(done, 1 + 0.8 * self.jitter * (2 * drawn[:, i] - 1), 1.0).clamp(min=0) for i in (6, 7, 8)
        )
        if channels == 3:
            turn = torch.where(done, 0.2 * self.jitter * (2 * drawn[:, 9] - 1), 0.0) * 2 * math.pi
            mixing = _saturated(saturation) @ _turned(turn)
            grey = torch.tensor(LUMA, device=x.device).expand(3, 3)
            mixing = torch.where((drawn[:, 10] < self.grey)[:, None, None], grey, mixing) * (brightness * contrast)[:, None, None]
            x = (mixing @ x.flatten(2)).view_as(x)
            luma = torch.tensor(LUMA, device=x.device)
            mean = torch.einsum("bchw,c->b", x, luma) / (x.shape[2] * x.shape[3])
        else:
            x = x * (brightness * contrast)[:, None, None, None]
            mean = x.flatten(1).mean(1)
        lift = mean * (1 - contrast) / contrast.clamp(min=1e-3)  # the mean was scaled by the contrast too
        return (x + lift.view(n, 1, 1, 1)).clamp_(0, 1)

    def _cut_out(self, x: Tensor, drawn: Tensor) -> Tensor:
        covered = []
        for column, size in ((13, x.shape[2]), (14, x.shape[3])):
            half, centre = self.cutout * size / 2, drawn[:, column, None] * size
            covered.append((torch.arange(size, device=x.device) + 0.5 - centre).abs() < half)
        square = covered[0][:, None, :, None] & covered[1][:, None, None, :]  # (B, 1, H, W)
        return x.masked_fill_(square, 0.5)


def draw(n: int, *, generator: torch.Generator | None = None) -> Tensor:
    """Random numbers for ``n`` views: (n, NUMBERS) from 0 to 1, on the CPU; from torch's global generator unless another is given."""
    return torch.rand(n, NUMBERS, generator=generator)


def mix(values: Tensor, partners: Tensor, share: Tensor) -> Tensor:
    """Mix-up (Zhang et al. 2018) of images or of their targets (B, ...) with those of their partners; ``share (B,)`` is kept."""
    return torch.lerp(partners, values, share.to(values.device).view(-1, *[1] * (values.ndim - 1)))


def shares(n: int, alpha: float, *, generator: torch.Generator | None = None) -> Tensor:
    """One share for each of ``n`` images from ``Beta(alpha, alpha)``, folded so that each image keeps the larger part."""
    # Johnk's method needs only uniform numbers, which unlike torch.distributions can come from any generator.
    u = torch.rand(n, 64, 2, generator=generator, dtype=torch.float64).log_() / alpha
    total = u.logsumexp(2)
    accepted = (total <= 0).float().argmax(1)  # where none is, the first; for alpha <= 1 one of 64 fails with a chance below 1e-19
    share = (u[..., 0] - total)[torch.arange(n), accepted].exp().float()
    return torch.maximum(share, 1 - share)


def _shifted(u: Tensor, n: int) -> Tensor:
    """Matrices (B, n, n) that shift by whole places, up to an eighth of ``n`` both ways; what comes from outside is zero."""
    most = max(1, n // 8)
    offset = (u * (2 * most + 1)).long().clamp(max=2 * most) - most
    places = torch.arange(n, device=u.device)
    return (places[None, None, :] == places[None, :, None] + offset[:, None, None]).to(torch.float32)


def _resampled(u: Tensor, length: Tensor, n: int) -> Tensor:
    """Matrices (B, n, n) that take a stretch of ``length (B,)`` places to ``n``: linear, no coarser than the places it reads."""
    start = u * (n - length)
    scale = length / n
    centre = start[:, None] + (torch.arange(n, device=u.device) + 0.5) * scale[:, None] - 0.5  # (B, n)
    reach = torch.clamp(scale, min=1.0)[:, None, None]
    weight = (1 - (torch.arange(n, device=u.device) - centre[..., None]).abs() / reach).clamp(min=0)
    return weight / weight.sum(2, keepdim=True).clamp(min=1e-6)


def _gaussian(sigma: Tensor, n: int) -> Tensor:
    """Matrices (B, n, n) that blur by ``sigma (B,)`` places; the identity where it is zero."""
    places = torch.arange(n, device=sigma.device, dtype=torch.float32)
    distance = (places[:, None] - places[None, :]).square()
    weight = torch.exp(-distance / (2 * sigma.clamp(min=1e-2).square()[:, None, None]))
    return weight / weight.sum(2, keepdim=True)


def _saturated(amount: Tensor) -> Tensor:
    """Matrices (B, 3, 3) that move colours away from their grey by ``amount (B,)`` (0: to it)."""
    grey = torch.tensor(LUMA, device=amount.device).expand(3, 3)
    keep = amount[:, None, None]
    return keep * torch.eye(3, device=amount.device) + (1 - keep) * grey


def _turned(angle: Tensor) -> Tensor:
    """Matrices (B, 3, 3) that turn hues by ``angle (B,)`` in radians, and leave grey as it is."""
    to_yiq = torch.tensor(TO_YIQ, device=angle.device)
    c, s = angle.cos(), angle.sin()
    turn = torch.zeros(len(angle), 3, 3, device=angle.device)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = c
    turn[:, 1, 2], turn[:, 2, 1] = -s, s
    found: Tensor = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    return found
