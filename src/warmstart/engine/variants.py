"""Augmented views of training examples: changes that keep the label, each the same for the same example, seed and number.

A view stands in the activation store under a key of its own, so it is made and run through the frozen body once, like any example.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import BadOption
from warmstart.core.protocols import Input, Modality
from warmstart.engine.augment import NUMBERS, Augmentation
from warmstart.engine.images import Picture
from warmstart.engine.sound import Floats, Sound

MOST = 64
SMALL = 64
"""Images whose shorter side is at most this are shifted (He et al. 2016); of larger ones a part is taken (Szegedy et al. 2015)."""


@dataclass(frozen=True)
class Variants:
    """``count`` views of each of ``inputs``. Rows are numbered on: those of row ``i`` are ``N + i * count`` and the next."""

    inputs: Sequence[Input]
    modality: Modality
    count: int
    seed: int

    def spread(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """These rows, then all their views."""
        return np.concatenate([rows, (len(self.inputs) + rows[:, None] * self.count + np.arange(self.count)).ravel()])

    def origin(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The row that each row is a view of, or itself."""
        n = len(self.inputs)
        return np.where(rows < n, rows, (rows - n) // max(1, self.count))

    def extended(self, values: NDArray[Any]) -> NDArray[Any]:
        """What belongs to each row, once more for each view."""
        return np.concatenate([values, np.repeat(values, self.count, axis=0)]) if self.count else values

    def content(self, row: int) -> bytes:
        """What tells this row apart from all others, its views included."""
        own = self.modality.content(self.inputs[int(self.origin(np.array(row)))])
        n = len(self.inputs)
        if row < n:
            return own
        described = f"{self.modality.augmentation} {self.seed} {(row - n) % self.count}"  # type: ignore[attr-defined]
        return hashlib.blake2b(own, digest_size=16).digest() + described.encode()

    def view(self, row: int) -> Input:
        """The input of a row that is a view."""
        digest = hashlib.blake2b(self.content(row), digest_size=16).digest()
        random = np.random.default_rng(list(digest))
        found: Input = self.modality.view(self.inputs[int(self.origin(np.array(row)))], random)  # type: ignore[attr-defined]
        return found


def check(count: int, modality: Modality, link: str) -> None:
    """Whether views of these examples can be made.

    Raises:
        BadOption: There are none of such inputs, or their targets would have to change with them.
    """
    if not count:
        return
    if not hasattr(modality, "view"):
        raise BadOption(
            f"views = {count} with {modality.name}", "images or sound: there are no augmented views of others", "leave --views out"
        )
    if link not in ("softmax", "sigmoid"):
        raise BadOption(f"views = {count} with targets that are no labels", "a task whose labels hold for every view", "leave --views out")


def of_image(picture: Picture, augmentation: Augmentation, random: np.random.Generator) -> Picture:
    """A view of a picture as a body takes it; what is kept of it in small stays."""
    import torch

    pixels = picture.shown
    drawn = torch.from_numpy(random.random((1, NUMBERS)))
    how = augmentation if min(pixels.shape[:2]) > SMALL else replace(augmentation, crop="pad")
    x = torch.from_numpy(np.array(pixels))
    x = x[None, None] if x.ndim == 2 else x.permute(2, 0, 1)[None]  # (1, C, H, W)
    found = how(x, drawn)[0].mul(255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    digest = hashlib.blake2b(picture.digest + drawn.numpy().tobytes() + repr(how).encode(), digest_size=16).digest()
    whole = np.ascontiguousarray(found[..., 0] if pixels.ndim == 2 else found)
    return replace(picture, kept=whole, digest=digest, form=picture.form)


@dataclass(frozen=True)
class SoundChanges:
    """What is done to a recording, which keeps its length.

    Attributes:
        gain: Largest change of loudness, in dB.
        noise: Chance of white noise, 10 to 40 dB below the sound.
        shift: Largest shift in time, as a share of the length; what comes from outside is silence.
        masked: Longest stretch that is silenced, as a share of the length.
    """

    gain: float = 6.0
    noise: float = 0.5
    shift: float = 0.1
    masked: float = 0.1

    def __call__(self, samples: Floats, random: np.random.Generator) -> Floats:
        """A view of ``samples (T,)``."""
        n = len(samples)
        level, chance, depth, place, start, share = random.random(6)
        offset = round((2 * place - 1) * self.shift * n)
        found = np.zeros_like(samples)
        found[max(0, offset) : n + min(0, offset)] = samples[max(0, -offset) : n - max(0, offset)]
        stretch = int(share * self.masked * n)
        first = int(start * (n - stretch))
        found[first : first + stretch] = 0
        if chance < self.noise:
            power = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) * 10 ** (-(10 + 30 * depth) / 20)
            found += random.normal(0, 1, n).astype(np.float32) * np.float32(power)
        return found * np.float32(10 ** ((2 * level - 1) * self.gain / 20))


def of_sound(sound: Sound, changes: SoundChanges, random: np.random.Generator) -> Sound:
    """A view of a recording."""
    return replace(sound, kept=changes(sound.samples, random))
