"""Small recordings for tests: tones whose class is the contour of their pitch, and vowels whose class is their formants."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

CONTOURS = {"down": -1.0, "flat": 0.0, "up": 1.0}
FORMANTS = {"a": (700, 1_100), "e": (450, 1_900), "i": (300, 2_300), "o": (450, 850), "u": (320, 800)}
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


def vowel(label: str, random: np.random.Generator) -> NDArray[np.float32]:
    """Harmonics under two formants, at a random pitch and loudness, with noise: a fifth to two fifths of a second at ``RATE``."""
    t = np.arange(int(random.uniform(0.2, 0.4) * RATE)) / RATE
    pitch = random.uniform(90, 250)
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.1 * np.sin(2 * np.pi * random.uniform(2, 5) * t))) / RATE
    harmonics = np.arange(1, int(3_600 / pitch))[:, None]
    loud = 0.01 + sum(1 / (1 + ((harmonics * pitch - formant) / 80) ** 2) for formant in FORMANTS[label])
    voice = (loud * np.sin(harmonics * phase + random.uniform(0, 6, harmonics.shape))).sum(0)
    noisy = voice / np.abs(voice).max() * random.uniform(0.2, 1) + random.uniform(0.02, 0.2) * random.standard_normal(len(t))
    return (0.5 * noisy).astype(np.float32)


def vowels(n: int, *, seed: int = 0) -> tuple[list[tuple[NDArray[np.float32], int]], NDArray[np.str_]]:
    """``n`` vowels as (samples, rate), the five in turn, and their labels."""
    random = np.random.default_rng(seed)
    labels = np.array([list(FORMANTS)[i % len(FORMANTS)] for i in range(n)])
    return [(vowel(label, random), RATE) for label in labels], labels


WORDS = {"bee": 300, "cow": 700, "dog": 1_500}
"""Words whose sound is a tone of so many hertz."""


def spoken(place: Path, name: str, n: int, *, seed: int = 0) -> Path:
    """``name.csv`` with columns file and transcript, and its recordings: strings of two or three of ``WORDS``, with pauses."""
    random = np.random.default_rng(seed)
    (place / name).mkdir(parents=True, exist_ok=True)
    lines = ["file,transcript"]
    for i in range(n):
        said = random.choice(list(WORDS), size=int(random.integers(2, 4))).tolist()
        pieces = []
        for word in said:
            t = np.arange(int(random.uniform(0.15, 0.25) * RATE)) / RATE
            pieces += [0.3 * np.sin(2 * np.pi * WORDS[word] * random.uniform(0.95, 1.05) * t), np.zeros(int(0.06 * RATE))]
        wave = np.concatenate(pieces)
        soundfile.write(place / name / f"{i:03}.wav", wave + 0.005 * random.standard_normal(len(wave)), RATE)
        lines.append(f"{name}/{i:03}.wav,{' '.join(said).title()}!")
    (place / f"{name}.csv").write_text("\n".join(lines) + "\n")
    return place / f"{name}.csv"
