"""Small images of bars, which a machine with a few units can learn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def bars(n: int, side: int = 8, *, channels: int = 1, seed: int = 0) -> NDArray[np.uint8]:
    """(N, side, side) or (N, side, side, channels): two bright rows or two bright columns, and a little noise."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 40, (n, side, side), dtype=np.uint8)
    for image in images:
        upright = image if random.random() < 0.5 else image.T
        upright[random.choice(side, 2, replace=False)] = 230
    return images if channels == 1 else np.stack([images] * channels, axis=3)


def patterns(n: int, *, kinds: int = 6, side: int = 8, noise: float = 0.3, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, side, side) of a few black and white patterns, always the same ones, with this share of the pixels turned; and which."""
    known = np.random.default_rng(99).integers(0, 2, (kinds, side, side))
    random = np.random.default_rng(seed)
    which = random.integers(0, kinds, n)
    turned = random.random((n, side, side)) < noise
    return ((known[which] ^ turned) * 255).astype(np.uint8), which
