"""Statistics of cepstra: features of sound made by hand, for the classic rung and as a floor for pre-trained bodies."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import DamagedModel
from warmstart.engine import sound, spectra
from warmstart.engine.sound import Sound

BANDS, COEFFICIENTS = 40, 20
PARTS = 5
"""Equal parts in time whose means tell a beginning from an end. On spoken digits (10 takes a class) 5 parts gained 11 points over none."""
FILE, NUMBERS = "cepstra.json", "cepstra.safetensors"
CONSTANT = 1e-6
"""A feature that varies less than this says nothing."""

Floats = NDArray[np.float32]


class Cepstra:
    """MFCCs of 25 ms frames with their first and second slopes: mean, deviation, least and greatest over time, and means of five parts.

    Features are standardised by the training inputs. Sounds are looked at below half of the rate that most of them were recorded at: above
    there is nothing but the resampler's edge.
    """

    def __init__(self) -> None:
        self._rate, self._high = sound.RATE, sound.RATE / 2
        self._shift = np.zeros(0, np.float32)
        self._scale = np.ones(0, np.float32)

    def fit(self, sounds: Sequence[Sound]) -> Floats:
        """Learn band and scale; the features of ``sounds``: (N, F) float32."""
        self._rate = int(np.median([s.rate for s in sounds]))
        known = [s.source_rate for s in sounds if s.source_rate] or [self._rate]
        self._high = min(self._rate, float(np.median(known))) / 2
        raw = self._raw(sounds)
        self._shift = raw.mean(0)
        spread = raw.std(0)
        self._scale = np.where(spread > CONSTANT, 1 / np.maximum(spread, CONSTANT), 0).astype(np.float32)
        return (raw - self._shift) * self._scale

    def transform(self, sounds: Sequence[Sound]) -> Floats:
        """Features (N, F) float32."""
        return (self._raw(sounds) - self._shift) * self._scale

    def save(self, folder: Path) -> None:
        """Write ``cepstra.safetensors`` and ``cepstra.json``."""
        from warmstart.engine import store

        store.write_tensors(folder / NUMBERS, {"shift": self._shift, "scale": self._scale})
        store.write_json(folder / FILE, {"rate": self._rate, "high": self._high})

    @classmethod
    def load(cls, folder: Path) -> Cepstra:
        """What ``save`` wrote; features are the same to the bit.

        Raises:
            DamagedModel: A file is missing or is not whole.
        """
        from warmstart.engine import store

        numbers = store.read_tensors(folder / NUMBERS)
        loaded = cls()
        try:
            how = json.loads((folder / FILE).read_text(encoding="utf-8"))
            loaded._rate, loaded._high = int(how["rate"]), float(how["high"])
            loaded._shift, loaded._scale = numbers["shift"].numpy(), numbers["scale"].numpy()
        except (OSError, ValueError, KeyError) as error:
            raise DamagedModel(f"{folder / FILE} cannot be read: {error}", "the file as it was written", "train again") from error
        return loaded

    def _raw(self, sounds: Sequence[Sound]) -> Floats:
        return np.stack([self._of(s) for s in sounds]) if sounds else np.zeros((0, len(self._shift)), np.float32)

    def _of(self, one: Sound) -> Floats:
        samples = sound.resampled(one.samples, one.rate, self._rate)
        frames = spectra.mfcc(samples, rate=self._rate, bands=BANDS, coefficients=COEFFICIENTS, high=self._high)  # (N, K)
        slope = spectra.slopes(frames)
        all_of_them = np.concatenate([frames, slope, spectra.slopes(slope)], axis=1)
        edges = np.linspace(0, len(frames), PARTS + 1).astype(int)
        parts = [frames[min(a, len(frames) - 1) : max(a + 1, b)].mean(0) for a, b in itertools.pairwise(edges)]
        return np.concatenate([all_of_them.mean(0), all_of_them.std(0), frames.min(0), frames.max(0), *parts])
