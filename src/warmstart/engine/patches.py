"""Patches of a log-mel spectrogram, for bodies of our own that see sound as a row of pictures (YAMNet).

``preprocessor_config.json`` says how, under ``patches``: samples of a ``window``, of a ``hop`` and of the Fourier transform (``fft``), mel
``bands`` from ``low`` to ``high`` Hz, what is added before the logarithm (``offset``), frames of a ``patch``, and the ``step`` from one
patch to the next. Shapes: T patches, F frames of a patch, M bands.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import BackboneNotFound
from warmstart.core.protocols import Encoded
from warmstart.engine import sound, store
from warmstart.engine.sound import Sound

if TYPE_CHECKING:
    from torch import Tensor

FILE = "preprocessor_config.json"
NAME, MASK = "input_features", "attention_mask"
TOKEN = 256
"""Cells of a spectrogram that cost a body about what a token does: 16 x 16 pixels."""

YAMNET: dict[str, Any] = {
    "window": 400,
    "hop": 160,
    "fft": 512,
    "bands": 64,
    "low": 125.0,
    "high": 7500.0,
    "offset": 0.001,
    "patch": 96,
    "step": 48,
}


def settings(rate: int, how: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in ``preprocessor_config.json``."""
    return {"sampling_rate": rate, "patches": dict(how)}


class Patches:
    """Waveforms as patches, by the ``settings`` in the folder of a body.

    Raises:
        BackboneNotFound: A value is missing or wrong.
    """

    def __init__(self, folder: Path, found: Mapping[str, Any]) -> None:
        try:
            how = found["patches"]
            self.rate = int(found["sampling_rate"])
            self._window, self._hop, self._fft, self._patch, self._step = (int(how[k]) for k in ("window", "hop", "fft", "patch", "step"))
            self._offset = float(how["offset"])
            self._mel = mel_weights(self.rate, self._fft, int(how["bands"]), float(how["low"]), float(how["high"]))  # (K, M)
        except (KeyError, TypeError, ValueError) as error:
            raise BackboneNotFound(
                f'"patches" in {folder / FILE} cannot be used: {error}', f"such as {json.dumps(YAMNET)}", "correct it"
            ) from None
        self._settings = {"sampling_rate": self.rate, "patches": dict(how)}
        self._tokens: int = max(1, -(-self._patch * self._mel.shape[1] // TOKEN))
        self.fingerprint = hashlib.sha256(json.dumps(self._settings, sort_keys=True).encode()).hexdigest()

    @property
    def _first(self) -> int:
        """Samples of the first patch."""
        return self._window + (self._patch - 1) * self._hop

    def longest(self, seconds: float) -> int:
        """Size of the largest example of a recording of so many seconds."""
        return self._tokens * self._count(round(seconds * self.rate))

    def encode(self, one: Sound) -> Encoded:
        """``input_features (T, F, M)``; the end is filled up with silence to a whole patch, of which there is one at least."""
        samples = sound.resampled(one.samples, one.rate, self.rate)
        n = self._count(len(samples))
        whole = np.zeros(self._first + (n - 1) * self._step * self._hop, np.float32)
        whole[: len(samples)] = samples[: len(whole)]
        frames = np.lib.stride_tricks.sliding_window_view(whole, self._window)[:: self._hop]  # (N, window)
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self._window) / self._window)
        magnitude = np.abs(np.fft.rfft(frames * hann.astype(np.float32), self._fft))  # (N, K)
        mel = np.log(magnitude @ self._mel + self._offset).astype(np.float32)  # (N, M)
        return {NAME: np.stack([mel[i * self._step : i * self._step + self._patch] for i in range(n)])}

    def size(self, example: Encoded) -> int:
        """Cells, ``TOKEN`` at a time."""
        return self._tokens * len(example[NAME])

    def collate(self, examples: Sequence[Encoded], length: int) -> dict[str, Tensor]:
        """``input_features (B, T, F, M)`` with ``attention_mask (B, T)``."""
        import torch

        lengths = np.array([len(example[NAME]) for example in examples])
        longest = max(int(lengths.max()), length // self._tokens)
        out = np.zeros((len(examples), longest, *examples[0][NAME].shape[1:]), np.float32)
        for row, example in zip(out, examples, strict=True):
            row[: len(example[NAME])] = example[NAME]
        return {NAME: torch.from_numpy(out), MASK: torch.from_numpy((np.arange(longest) < lengths[:, None]).astype(np.int64))}

    def save(self, folder: Path) -> None:
        """Write ``preprocessor_config.json``."""
        store.write_json(folder / FILE, self._settings)

    def _count(self, samples: int) -> int:
        """Patches of so many samples."""
        return 1 + max(0, -(-(samples - self._first) // (self._step * self._hop)))


def mel_weights(rate: int, fft: int, bands: int, low: float, high: float) -> NDArray[np.float32]:
    """Triangles that are straight on the mel scale (as TensorFlow makes them), without the constant part: (fft / 2 + 1, bands)."""
    mel = 1127.0 * np.log1p(np.arange(fft // 2 + 1) * rate / fft / 700.0)[:, None]  # (K, 1)
    edges = np.linspace(1127.0 * np.log1p(low / 700.0), 1127.0 * np.log1p(high / 700.0), bands + 2)
    rising = (mel - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel) / (edges[2:] - edges[1:-1])
    found: NDArray[np.float32] = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    found[0] = 0
    return found
