"""Log-mel spectra and cepstra of waveforms, in NumPy. Shapes: T samples, N frames, K bins, M mel bands."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

WINDOW_SECONDS, HOP_SECONDS = 0.025, 0.010
FLOOR_DB = 80.0
"""What lies further than this below a recording's loudest cell is counted as that far below: silence has no shape."""


def log_mel(samples: Floats, *, rate: int, bands: int, high: float) -> Floats:
    """Log power (natural) in mel bands, of frames of 25 ms every 10 ms under a Hann window: (T,) to (N, M); at least one frame.

    Args:
        samples: Mono, in -1 to 1.
        rate: Samples per second.
        bands: M, from 20 Hz to ``high`` Hz.
        high: Upper end of the highest band, at most half the rate.
    """
    window, hop, size = frame_sizes(rate)
    if len(samples) < window:
        samples = np.pad(samples, (0, window - len(samples)))
    frames = np.lib.stride_tricks.sliding_window_view(samples, window)[::hop]  # (N, window)
    shape = np.hanning(window + 1)[:-1].astype(np.float32)
    power = np.abs(np.fft.rfft(frames * shape, size)).astype(np.float32) ** 2  # (N, K)
    mel = power @ mel_bank(rate, size, bands, high).T  # (N, M)
    lowest = max(float(mel.max()) * 10 ** (-FLOOR_DB / 10), 1e-10)
    found: Floats = np.log(np.maximum(mel, lowest))
    return found


def frame_sizes(rate: int) -> tuple[int, int, int]:
    """Samples of a window and of a hop, and the length of its Fourier transform (the next power of two)."""
    window, hop = round(WINDOW_SECONDS * rate), round(HOP_SECONDS * rate)
    return window, hop, 1 << (window - 1).bit_length()


@lru_cache(maxsize=16)
def mel_bank(rate: int, size: int, bands: int, high: float) -> Floats:
    """Triangles of equal width on the mel scale 2595 log10(1 + f / 700): weights (M, K) of the K = size / 2 + 1 bins of a spectrum."""
    edges = _hertz(np.linspace(_mel(20.0), _mel(high), bands + 2))  # (M + 2,)
    bins = np.arange(size // 2 + 1) * rate / size  # (K,)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    bank: Floats = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    return bank


def mfcc(samples: Floats, *, rate: int, bands: int, coefficients: int, high: float) -> Floats:
    """Mel-frequency cepstral coefficients (Davis & Mermelstein 1980): the first of the DCT-II of ``log_mel``, (N, coefficients)."""
    from scipy.fft import dct

    found: Floats = dct(log_mel(samples, rate=rate, bands=bands, high=high), type=2, norm="ortho", axis=1)[:, :coefficients]
    return found


def slopes(frames: NDArray[np.float32], *, reach: int = 2) -> Floats:
    """Regression slope over ``2 * reach + 1`` frames at each frame ("delta" features); ends are repeated: (N, F) to (N, F)."""
    padded = np.pad(frames, ((reach, reach), (0, 0)), mode="edge")
    n = len(frames)
    found = np.zeros_like(frames)
    for k in range(1, reach + 1):
        found += k * (padded[reach + k : reach + k + n] - padded[reach - k : reach - k + n])
    return found / np.float32(2 * sum(k * k for k in range(1, reach + 1)))


def _mel(hertz: float) -> float:
    return 2595.0 * float(np.log10(1 + hertz / 700.0))


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = 700.0 * (10 ** (mel / 2595.0) - 1)
    return found
