"""Small recordings for tests: tones with harmonics, whose class is their pitch contour."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

CONTOURS = {"down": -1.0, "flat": 0.0, "up": 1.0}
RATE = 8_000


def wave(label: str, random: np.random.Generator, *, seconds: float = 0.0, rate: int = RATE) -> NDArray[np.float32]:
    """A tone that falls, stays or rises by an octave, with harmonics, noise and a random pitch and length."""
    seconds = seconds or float(random.uniform(0.25, 0.5))
    t = np.arange(int(seconds * rate)) / rate
    pitch = random.uniform(200, 400) * 2 ** (CONTOURS[label] * t / seconds)
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    tone = sum(np.sin(k * phase) / k for k in (1, 2, 3))
    return (0.2 * tone + 0.01 * random.standard_normal(len(t))).astype(np.float32)


def folder(place: Path, n: int = 24, *, rate: int = RATE, seed: int = 0) -> Path:
    """A folder with a folder for each class of ``n`` WAV files in all."""
    random = np.random.default_rng(seed)
    for i in range(n):
        label = list(CONTOURS)[i % 3]
        (place / label).mkdir(parents=True, exist_ok=True)
        soundfile.write(place / label / f"{i:03}.wav", wave(label, random, rate=rate), rate)
    return place
