"""Hand-made features of images: histograms of oriented gradients, colour histograms and a thumbnail; what pre-training has to beat.

Oriented gradients as in Dalal & Triggs (2005): 9 unsigned orientations, 8 x 8 cells, blocks of 2 x 2 cells normalised with clipping.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import DamagedModel
from warmstart.engine import images
from warmstart.engine.images import Picture, Pixels

Floats: TypeAlias = NDArray[np.float32]

CELLS = 8
ORIENTATIONS = 9
CLIP = 0.2
COLOURS = 4
"""Steps of each colour channel; a colour histogram is taken of each quarter of the image."""
GREYS = 16
THUMBNAIL = 8
SMALL = 48
"""Images whose shorter side is at most this in the median are looked at with 32 x 32 pixels, larger ones with 64 x 64."""
CHUNK = 256


class ImageFeatures:
    """Features (N, F) in float32, each with mean 0 and deviation 1 on the training images; constant ones are 0."""

    def __init__(self) -> None:
        self._side, self._colour = 32, True
        self._mean: Floats = np.zeros(0, np.float32)
        self._scale: Floats = np.zeros(0, np.float32)

    def fit(self, pictures: Sequence[Picture]) -> Floats:
        """Learn the size to look at, whether there is colour, and mean and deviation; the features of ``pictures``."""
        self._side = 32 if np.median([min(p.kept_small.shape[:2]) for p in pictures]) <= SMALL else 64
        self._colour = any(len(p.kept_small.shape) == 3 for p in pictures)
        raw = self._raw(pictures)
        self._mean = raw.mean(0)
        deviation = raw.std(0)
        self._scale = np.where(deviation > 1e-5, 1 / np.maximum(deviation, 1e-5), 0).astype(np.float32)
        return self._standardised(raw)

    def transform(self, pictures: Sequence[Picture]) -> Floats:
        """Features (N, F)."""
        return self._standardised(self._raw(pictures))

    def save(self, folder: Path) -> None:
        """Write ``features.safetensors`` and ``features.json``."""
        from warmstart.engine import store

        store.write_tensors(folder / "features.safetensors", {"mean": self._mean, "scale": self._scale})
        store.write_json(folder / "features.json", {"side": self._side, "colour": self._colour})

    @classmethod
    def load(cls, folder: Path) -> ImageFeatures:
        """What ``save`` wrote; features are the same to the bit.

        Raises:
            DamagedModel: A file is missing or is not whole.
        """
        from warmstart.engine import store

        tensors = store.read_tensors(folder / "features.safetensors")
        found = cls()
        try:
            settings = json.loads((folder / "features.json").read_text(encoding="utf-8"))
            found._side, found._colour = int(settings["side"]), bool(settings["colour"])
            found._mean, found._scale = tensors["mean"].numpy(), tensors["scale"].numpy()
        except (OSError, ValueError, KeyError) as error:
            raise DamagedModel(
                f"{folder / 'features.json'} cannot be read: {error}", "the file as it was written", "train again"
            ) from error
        return found

    def _standardised(self, raw: Floats) -> Floats:
        return (raw - self._mean) * self._scale

    def _raw(self, pictures: Sequence[Picture]) -> Floats:
        parts = [self._chunk([p.small for p in pictures[i : i + CHUNK]]) for i in range(0, len(pictures), CHUNK)]
        return np.concatenate(parts) if parts else np.zeros((0, len(self._mean)), np.float32)

    def _chunk(self, pixels: Sequence[Pixels]) -> Floats:
        side = self._side
        form = images.rgb if self._colour else images.grey
        small = np.stack([images.resized(form(p), side, side) for p in pixels])  # (N, S, S, 3) or (N, S, S)
        grey = np.stack([images.grey(p) for p in small]).astype(np.float32) / np.float32(255)
        tones = _colours(small) if self._colour else _greys(small)
        return np.concatenate([oriented_gradients(grey), tones, _thumbnails(small)], axis=1)


def oriented_gradients(grey: Floats) -> Floats:
    """Normalised histograms of oriented gradients (N, 7 * 7 * 4 * 9) of square images (N, S, S) with values from 0 to 1."""
    padded = np.pad(grey, ((0, 0), (1, 1), (1, 1)), mode="edge")
    across, down = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2], padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    strength = np.hypot(across, down)
    angle = np.arctan2(down, across) % np.pi * (ORIENTATIONS / np.pi)  # in steps of an orientation
    cells = np.empty((len(grey), CELLS, CELLS, ORIENTATIONS), np.float32)
    for k in range(ORIENTATIONS):
        apart = np.abs(angle - k)
        share = np.maximum(0, 1 - np.minimum(apart, ORIENTATIONS - apart))  # shared by the two nearest orientations
        cells[..., k] = _cells(strength * share)
    blocks = np.concatenate([cells[:, i : CELLS - 1 + i, j : CELLS - 1 + j] for i in (0, 1) for j in (0, 1)], axis=3)  # (N, 7, 7, 36)
    for limit in (CLIP, 1.0):
        blocks = np.minimum(blocks / np.sqrt((blocks**2).sum(3, keepdims=True) + 1e-4), limit)
    return blocks.reshape(len(grey), -1)


def _cells(values: Floats) -> Floats:
    """Sums over 8 x 8 cells of images (N, S, S)."""
    n, side = len(values), values.shape[1] // CELLS
    found: Floats = values.reshape(n, CELLS, side, CELLS, side).sum((2, 4), dtype=np.float32)
    return found


def _colours(small: NDArray[np.uint8]) -> Floats:
    """Square roots of the shares of 4 x 4 x 4 colours in each quarter of images (N, S, S, 3): (N, 4 * 64)."""
    step = 256 // COLOURS
    code = ((small[..., 0] // step).astype(np.int64) * COLOURS + small[..., 1] // step) * COLOURS + small[..., 2] // step
    return _quartered(code, COLOURS**3)


def _greys(small: NDArray[np.uint8]) -> Floats:
    """Square roots of the shares of 16 greys in each quarter of images (N, S, S): (N, 4 * 16)."""
    return _quartered((small // (256 // GREYS)).astype(np.int64), GREYS)


def _quartered(code: NDArray[np.int64], kinds: int) -> Floats:
    n, side = len(code), code.shape[1]
    quarter = (np.arange(side) * 2 // side)[:, None] * 2 + np.arange(side) * 2 // side  # (S, S)
    place = (np.arange(n)[:, None, None] * 4 + quarter) * kinds + code
    counts = np.bincount(place.ravel(), minlength=n * 4 * kinds).reshape(n, 4 * kinds)
    found: Floats = np.sqrt(counts * (4 / side**2)).astype(np.float32)
    return found


def _thumbnails(small: NDArray[np.uint8]) -> Floats:
    """Means over 8 x 8 fields, for each channel: (N, 64) or (N, 192)."""
    n, side = len(small), small.shape[1] // THUMBNAIL
    fields: Floats = small.reshape(n, THUMBNAIL, side, THUMBNAIL, side, -1).mean((2, 4), dtype=np.float32)
    return fields.reshape(n, -1) / np.float32(255)
