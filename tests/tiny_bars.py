"""Small images of bars, which a machine with a few units can learn."""

from __future__ import annotations

from collections.abc import Sequence

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


def gains(codes: Sequence[NDArray[np.float32]], labels: NDArray[np.int64], *, per_class: int = 2, draws: int = 10) -> list[float]:
    """By how much a linear classifier on few labels is more often right on the second codes (N, D) than on the first, for each draw."""
    from sklearn.linear_model import LogisticRegression

    found = []
    for draw in range(draws):
        order = np.random.default_rng(draw).permutation(len(labels))
        train = np.concatenate([order[labels[order] == label][:per_class] for label in np.unique(labels)])
        test = np.setdiff1d(order, train)
        first, second = (LogisticRegression(max_iter=500).fit(x[train], labels[train]).score(x[test], labels[test]) for x in codes)
        found.append(second - first)
    return found
