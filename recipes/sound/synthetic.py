"""Sounds that are no speech, computed from a few random numbers each: tones, calls, noises, strokes, machines."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

RATE = 16_000

Wave = NDArray[np.float64]
Random = np.random.Generator


def _times(random: Random, low: float = 0.5, high: float = 1.2) -> Wave:
    return np.arange(int(random.uniform(low, high) * RATE)) / RATE


def _glide(frequency: Wave, *, harmonics: int = 1, fall: float = 1.0) -> Wave:
    """A tone whose frequency moves, with harmonics that fall by a power of their number."""
    phase = 2 * np.pi * np.cumsum(frequency) / RATE
    return sum(np.sin(k * phase) * (k * frequency < 0.45 * RATE) / k**fall for k in range(1, harmonics + 1))


def _contour(random: Random, octaves: Callable[[Wave], Wave], *, low: float = 200, high: float = 900, harmonics: int = 3) -> Wave:
    """A tone of a random height that moves by so many octaves over its length (0 to 1)."""
    t = _times(random)
    return _glide(random.uniform(low, high) * 2 ** octaves(t / t[-1]), harmonics=harmonics) * np.hanning(len(t)) ** 0.15


def _noise(random: Random, n: int, low: float, high: float) -> Wave:
    """Noise between two frequencies."""
    spectrum = np.fft.rfft(random.standard_normal(n))
    frequency = np.fft.rfftfreq(n, 1 / RATE)
    spectrum[(frequency < low) | (frequency > high)] = 0
    found = np.fft.irfft(spectrum, n)
    return found / (np.abs(found).max() + 1e-9)


def _struck(random: Random, stroke: Callable[[Wave], Wave], *, rate: float = 0.0, jitter: float = 0.0) -> Wave:
    """One stroke, or strokes at a rate a second with some disorder."""
    t = _times(random)
    out = np.zeros(len(t))
    starts = np.arange(0.02, t[-1], 1 / rate) if rate else np.array([0.02])
    for start in starts + jitter * random.standard_normal(len(starts)) / max(rate, 1):
        first = int(np.clip(start, 0, t[-1]) * RATE)
        wave = stroke(np.arange(min(len(t) - first, RATE // 2)) / RATE)
        out[first : first + len(wave)] += wave * random.uniform(0.6, 1)
    return out


def _pulsed(random: Random, wave: Wave, rate: float, *, share: float = 0.5) -> Wave:
    """Switched on and off so often a second."""
    return wave * ((np.arange(len(wave)) / RATE * rate + random.uniform()) % 1 < share)


def _steps(random: Random, semitones: list[int], *, harmonics: int = 4) -> Wave:
    """Notes one after another."""
    each, base = int(random.uniform(0.12, 0.25) * RATE), random.uniform(220, 500)
    t = np.arange(each) / RATE
    return np.concatenate([_glide(np.full(each, base * 2 ** (s / 12)), harmonics=harmonics) * np.exp(-6 * t) for s in semitones])


def _partials(random: Random, ratios: tuple[float, ...], *, decay: float, low: float, high: float) -> Wave:
    t, base = _times(random, 0.6, 1.3), random.uniform(low, high)
    return sum(np.sin(2 * np.pi * base * r * t) * np.exp(-decay * r**0.5 * t) / (i + 1) for i, r in enumerate(ratios) if base * r < 7_500)


def _pluck(random: Random) -> Wave:
    """Karplus & Strong (1983)."""
    period = int(RATE / random.uniform(110, 440))
    line, out = list(random.standard_normal(period)), []
    for i in range(int(random.uniform(0.6, 1.1) * RATE)):
        out.append(line[i % period])
        line[i % period] = 0.498 * (line[i % period] + line[(i + 1) % period])
    return np.array(out)


def _bursts(random: Random, n: int) -> Wave:
    return _noise(random, n, 1_500, 7_500) * np.exp(-np.arange(n) / RATE * 60)


SOUNDS: dict[str, Callable[[Random], Wave]] = {
    "_bark": lambda r: _struck(
        r, lambda t: (_glide(350 * 2 ** (-2 * t), harmonics=8) + 0.3 * r.standard_normal(len(t))) * np.exp(-18 * t), rate=3
    ),
    "_beeps": lambda r: _pulsed(r, _glide(np.full(RATE, r.uniform(800, 2_000))), r.uniform(4, 6)),
    "_bell": lambda r: _partials(r, (1, 2.0, 2.4, 3.0, 4.5, 5.3), decay=3, low=300, high=900),
    "_buzz": lambda r: _glide(np.full(RATE, r.uniform(90, 160)), harmonics=40, fall=0.5),
    "_call_falling": lambda r: _contour(r, lambda u: -1.2 * u),
    "_call_hill": lambda r: _contour(r, lambda u: np.sin(np.pi * u)),
    "_call_level": lambda r: _contour(r, lambda u: 0 * u),
    "_call_rising": lambda r: _contour(r, lambda u: 1.2 * u),
    "_call_valley": lambda r: _contour(r, lambda u: -np.sin(np.pi * u)),
    "_chirps": lambda r: _struck(r, lambda t: _glide(3_000 * 2 ** (6 * t)) * np.exp(-30 * t) * (t < 0.1), rate=r.uniform(4, 6)),
    "_chord_major": lambda r: _partials(r, (1, 1.26, 1.498, 2.0), decay=1, low=200, high=500),
    "_chord_minor": lambda r: _partials(r, (1, 1.189, 1.498, 2.0), decay=1, low=200, high=500),
    "_clap": lambda r: _struck(r, lambda t: _noise(r, len(t), 800, 4_000) * np.exp(-45 * t)),
    "_clicks_fast": lambda r: _struck(r, lambda t: _bursts(r, len(t)) * (t < 0.02), rate=r.uniform(22, 30)),
    "_clicks_slow": lambda r: _struck(r, lambda t: _bursts(r, len(t)) * (t < 0.02), rate=r.uniform(4, 6)),
    "_cricket": lambda r: _pulsed(r, _pulsed(r, _glide(np.full(RATE, r.uniform(4_000, 5_500))), 35), 3),
    "_crow": lambda r: _struck(
        r, lambda t: _glide(500 * 2 ** (-t) + 60 * r.standard_normal(len(t)), harmonics=10) * np.exp(-5 * t), rate=2
    ),
    "_drum": lambda r: _struck(r, lambda t: _glide(60 + 80 * np.exp(-20 * t)) * np.exp(-9 * t)),
    "_engine": lambda r: _glide(np.full(RATE, r.uniform(28, 45)), harmonics=60, fall=0.7) + 0.3 * _noise(r, RATE, 50, 800),
    "_frog": lambda r: _struck(r, lambda t: _glide(np.full(len(t), 90.0), harmonics=20, fall=0.3) * np.exp(-12 * t), rate=r.uniform(2, 3)),
    "_hiss": lambda r: _noise(r, int(RATE * r.uniform(0.5, 1)), 3_000, 7_800),
    "_knocks": lambda r: _struck(
        r, lambda t: _glide(np.full(len(t), 220.0), harmonics=3) * np.exp(-50 * t), rate=r.uniform(3, 5), jitter=0.1
    ),
    "_meow": lambda r: _glide(r.uniform(400, 600) * 2 ** np.sin(np.linspace(0, np.pi, RATE)) * 0.8, harmonics=9) * np.hanning(RATE),
    "_notes_down": lambda r: _steps(r, [12, 7, 4, 0]),
    "_notes_up": lambda r: _steps(r, [0, 4, 7, 12]),
    "_pluck": _pluck,
    "_rain": lambda r: _struck(r, lambda t: _bursts(r, len(t)) * (t < 0.01), rate=150, jitter=2.0),
    "_ring": lambda r: _pulsed(r, _partials(r, (1, 1.2, 2.4), decay=0.1, low=900, high=1_400), 20),
    "_rotor": lambda r: _noise(r, RATE, 60, 2_000) * (0.55 + 0.45 * np.sin(2 * np.pi * r.uniform(9, 13) * np.arange(RATE) / RATE)),
    "_rumble": lambda r: _noise(r, int(RATE * r.uniform(0.6, 1)), 20, 250),
    "_siren": lambda r: _glide(700 * 2 ** (0.5 * np.sin(2 * np.pi * r.uniform(2, 3) * np.arange(RATE) / RATE)), harmonics=4),
    "_snare": lambda r: _struck(r, lambda t: (_noise(r, len(t), 300, 7_000) + 0.5 * _glide(np.full(len(t), 190.0))) * np.exp(-16 * t)),
    "_trill": lambda r: _glide(r.uniform(1_500, 3_000) * 2 ** (0.2 * np.sign(np.sin(2 * np.pi * 18 * np.arange(RATE) / RATE)))),
    "_vibrato": lambda r: _glide(r.uniform(300, 800) * 2 ** (0.08 * np.sin(2 * np.pi * 6 * np.arange(RATE) / RATE)), harmonics=4),
    "_whistle": lambda r: _contour(r, lambda u: 0.4 * np.sin(3 * np.pi * u), low=1_200, high=2_500, harmonics=1),
    "_wind": lambda r: _noise(r, RATE, 150, 1_200) * (0.4 + 0.6 * np.hanning(RATE)),
}
KINDS = tuple(SOUNDS)


def sound(kind: str, random: Random) -> Wave:
    """One sound of a kind, with a little noise: (T,) at ``RATE``."""
    wave = SOUNDS[kind](random)
    return wave / (np.abs(wave).max() + 1e-9) + 10 ** random.uniform(-4, -2) * random.standard_normal(len(wave))
