"""What each frame of sound is, as one of a few codes, computed before training: targets for masked prediction.

``clusters``: k-means of cepstra, the first targets of HuBERT (Hsu et al. 2021). ``random_projection``: the nearest of random vectors
after a random projection of log-mel frames, BEST-RQ (Chiu et al. 2022). Shapes: N frames, F features, P projected, V codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from warmstart.engine import spectra

BANDS, COEFFICIENTS = 40, 13
PROJECTED = 16
ROUNDS, FITTED_FRAMES, CHUNK = 25, 50_000, 8_192
EPSILON = 1e-5

Floats = NDArray[np.float32]
Kind = Literal["clusters", "random_projection"]


@dataclass(frozen=True)
class Frames:
    """Where a body's frames lie: the first sees ``field`` samples from 0 on, each next one ``stride`` samples later."""

    rate: int
    stride: int
    field: int
    high: float

    def features(self, wave: Floats, kind: Kind, n: int) -> Floats:
        """Features (n, F) of the ``n`` frames of a wave: cepstra with first and second slopes, or log-mel of two neighbouring frames."""
        if kind == "clusters":
            found = spectra.mfcc(wave, rate=self.rate, bands=BANDS, coefficients=COEFFICIENTS, high=self.high)
            slope = spectra.slopes(found)
            found = np.concatenate([found, slope, spectra.slopes(slope)], axis=1)
        else:
            found = spectra.log_mel(wave, rate=self.rate, bands=BANDS, high=self.high)
        window, hop, _ = spectra.frame_sizes(self.rate)
        middle = np.arange(n) * self.stride + self.field / 2
        nearest = np.clip(np.rint((middle - window / 2) / hop).astype(int), 0, len(found) - 1)
        both = [nearest] if kind == "clusters" else [nearest, np.minimum(nearest + 1, len(found) - 1)]
        return np.concatenate([found[each] for each in both], axis=1)


@dataclass(frozen=True)
class Codebook:
    """The code of a frame is the nearest of ``codes (V, P)`` to ``((x - shift) * scale) @ projection``, with projection (F, P)."""

    shift: Floats
    scale: Floats
    projection: Floats | None
    codes: Floats

    def __call__(self, features: Floats) -> NDArray[np.int64]:
        """(N, F) to (N,)."""
        return np.concatenate(
            [_nearest(self._projected(features[i : i + CHUNK]), self.codes) for i in range(0, max(1, len(features)), CHUNK)]
        )

    def _projected(self, features: Floats) -> Floats:
        x = (features - self.shift) * self.scale
        if self.projection is None:
            return x
        x = x @ self.projection
        found: Floats = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), EPSILON)
        return found


def learned(features: Floats, kind: Kind, *, codes: int, seed: int) -> Codebook:
    """The codebook for frames like these (N, F); at most 50,000 of them are looked at. The same numbers for the same arguments."""
    random = np.random.default_rng(seed)
    if len(features) > FITTED_FRAMES:
        features = features[np.sort(random.permutation(len(features))[:FITTED_FRAMES])]
    shift, scale = features.mean(0), 1 / np.maximum(features.std(0), EPSILON)
    if kind == "clusters":
        return Codebook(shift, scale, None, _kmeans((features - shift) * scale, min(codes, len(features)), random))
    projection = (random.standard_normal((features.shape[1], PROJECTED)) / np.sqrt(features.shape[1])).astype(np.float32)
    vectors = random.standard_normal((codes, PROJECTED)).astype(np.float32)
    return Codebook(shift, scale, projection, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def perplexity(codes: NDArray[np.int64], n: int) -> float:
    """How many codes are in use, in effect: exp of the entropy of their shares."""
    shares = np.bincount(codes, minlength=n) / max(1, len(codes))
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _nearest(x: Floats, codes: Floats) -> NDArray[np.int64]:
    found: NDArray[np.int64] = ((codes**2).sum(1) - 2 * (x @ codes.T)).argmin(1)
    return found


def _kmeans(x: Floats, k: int, random: np.random.Generator) -> Floats:
    """Lloyd's algorithm from k-means++ seeds (Arthur & Vassilvitskii 2007); sums run in one order, so that it gives the same bits again."""
    centres = _seeds(x, k, random)
    for _ in range(ROUNDS):
        nearest = np.concatenate([_nearest(x[i : i + CHUNK], centres) for i in range(0, len(x), CHUNK)])
        order = np.argsort(nearest, kind="stable")
        counts = np.bincount(nearest, minlength=k)
        present = np.flatnonzero(counts)
        sums = np.add.reduceat(x[order].astype(np.float64), np.concatenate([[0], np.cumsum(counts[present])[:-1]]), axis=0)
        updated = centres.copy()
        updated[present] = (sums / counts[present][:, None]).astype(np.float32)
        if np.array_equal(updated, centres):
            break
        centres = updated
    return centres


def _seeds(x: Floats, k: int, random: np.random.Generator) -> Floats:
    chosen = [int(random.integers(len(x)))]
    gap = ((x - x[chosen[0]]) ** 2).sum(1)
    for _ in range(k - 1):
        total = float(gap.sum(dtype=np.float64))
        pick = (
            int(np.searchsorted(np.cumsum(gap, dtype=np.float64), random.random() * total)) if total > 0 else int(random.integers(len(x)))
        )
        chosen.append(min(pick, len(x) - 1))
        gap = np.minimum(gap, ((x - x[chosen[-1]]) ** 2).sum(1))
    return x[chosen]
