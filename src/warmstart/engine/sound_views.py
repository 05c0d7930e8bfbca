"""Random views of sounds, on their log-mel frames: whole batches as tensors. Shapes: B sounds, N frames, M bands, values in nats.

What happens to sound on its way is simple in this domain: other speeds are frames resampled in time, other throats bands resampled in
pitch, microphones and rooms add a curve over the bands and an echo that decays, noise adds power, a telephone has no upper bands.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from warmstart.engine.frames import FLOOR, scaled

NUMBERS = 32
"""Uniform numbers that one view is made of, beside the grain of its noise."""
KNOTS = 6
"""Of a random curve over the bands."""
FEWEST = 8
"""Frames of the shortest view."""


@dataclass(frozen=True)
class SoundAugmentation:
    """What is done to a sound; 0 (of ``speed`` and ``throat`` 1): nothing.

    Attributes:
        speed: Largest factor by which it is made longer or shorter.
        throat: Largest factor by which its frequencies are stretched (Jaitly & Hinton 2013).
        colour: Largest deviation, in nats, of a random curve over the bands.
        echo: Chance of an echo, which decays by a factor of up to 0.8 a frame.
        noise: Chance of coloured noise, 0 to 40 dB below the sound.
        narrow: Chance that the bands above 60 to 80 % of them all are silent, as on a telephone or in files of 8 kHz.
        hidden: Share of the bands, and of the frames, that are hidden at most, twice and once (Park et al. 2019).
    """

    speed: float = 1.15
    throat: float = 1.0
    colour: float = 0.5
    echo: float = 0.0
    noise: float = 0.3
    narrow: float = 0.0
    hidden: float = 0.125

    def __call__(self, x: Tensor, lengths: Tensor, drawn: Tensor, grain: torch.Generator) -> tuple[Tensor, Tensor]:
        """Views (B, N', M) as a body takes them, and their lengths, of ``x (B, N, M)`` in nats below the loudest cell.

        ``drawn (B, NUMBERS)`` are uniform numbers on the CPU, as are ``x`` and ``lengths (B,)``; ``grain`` makes the noise.
        """
        x, lengths = self._stretched(x, lengths, drawn)
        if self.colour:
            x = x + (self.colour * drawn[:, 2, None] * _curve(drawn[:, 8:14], x.shape[2]))[:, None]
        power = x.exp()
        if self.echo:
            power = self._echoed(power, drawn)
        if self.noise:
            power = self._noisy(power, drawn, grain)
        x = power.clamp(min=1e-12).log()
        n, m = x.shape[1:]
        real = torch.arange(n) < lengths[:, None]  # (B, N')
        if self.narrow:
            top = torch.where(drawn[:, 20] < self.narrow, (0.6 + 0.2 * drawn[:, 21]) * m, float(m))
            x = x.masked_fill((torch.arange(m) >= top[:, None])[:, None], -2 * FLOOR)
        x = x - x.masked_fill(~real[..., None], -torch.inf).amax((1, 2), keepdim=True)
        x = scaled(x.clamp(min=-FLOOR))
        if self.hidden:
            whole = torch.full((len(x),), float(m))
            for place in (22, 24):
                x = x.masked_fill(_stretch(drawn[:, place], drawn[:, place + 1] * self.hidden, whole, m)[:, None], 0.0)
            x = x.masked_fill(_stretch(drawn[:, 26], drawn[:, 27] * self.hidden, lengths.float(), n)[..., None], 0.0)
        return x * real[..., None], lengths

    def _stretched(self, x: Tensor, lengths: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor]:
        """In time and in pitch."""
        if self.speed > 1:
            factor = torch.exp((2 * drawn[:, 0] - 1) * math.log(self.speed))
            longer = (lengths * factor).long().clamp(min=FEWEST)
            x = _resampled(lengths / longer, int(longer.max()), x.shape[1]) @ x
            lengths = longer
        if self.throat > 1:
            factor = torch.exp((2 * drawn[:, 1] - 1) * math.log(self.throat))
            x = x @ _resampled(factor, x.shape[2], x.shape[2]).transpose(1, 2)
        return x, lengths

    def _echoed(self, power: Tensor, drawn: Tensor) -> Tensor:
        decay = (0.05 + 0.75 * drawn[:, 4, None]) * (drawn[:, 3, None] < self.echo)
        echo, frames = torch.zeros_like(power[:, 0]), []
        for frame in power.unbind(1):
            frames.append(echo)
            echo = decay * (echo + frame)
        return power + 0.5 * drawn[:, 5, None, None] * torch.stack(frames, 1)

    def _noisy(self, power: Tensor, drawn: Tensor, grain: torch.Generator) -> Tensor:
        """With noise whose cells have the spread of a periodogram."""
        colour = (1.5 * _curve(drawn[:, 14:20], power.shape[2])).exp()
        level = power.mean((1, 2)) * 10 ** (-4 * drawn[:, 7]) * (drawn[:, 6] < self.noise)
        colour = colour / colour.mean(1, keepdim=True) * level[:, None]
        return power + colour[:, None] * torch.empty_like(power).exponential_(generator=grain)


def _curve(u: Tensor, m: int) -> Tensor:
    """Smooth curves over ``m`` bands through normal numbers at ``KNOTS`` places: (B, m)."""
    knots = torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4))
    return functional.interpolate(knots[:, None], size=m, mode="linear", align_corners=True)[:, 0]


def _resampled(step: Tensor, n: int, of: int) -> Tensor:
    """Matrices (B, n, of) that read ``of`` places every ``step (B,)`` places, between neighbours; the last place goes on."""
    places = (torch.arange(n) * step[:, None]).clamp(max=of - 1.0)
    return (1 - (places[..., None] - torch.arange(of)).abs()).clamp(min=0)


def _stretch(start: Tensor, share: Tensor, lengths: Tensor, n: int) -> Tensor:
    """Which of ``n`` places lie in a stretch of so large a share of ``lengths (B,)``: (B, n)."""
    size = share * lengths
    first = (start * (lengths - size))[:, None]
    places = torch.arange(n)[None]
    return (places >= first) & (places < first + size[:, None])
