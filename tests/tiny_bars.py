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
