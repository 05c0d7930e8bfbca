"""Patches of a spectrogram, or of the wave itself, for bodies that see sound as a row of pieces (YAMNet, ONNX files).

``preprocessor_config.json`` says how, under ``patches``: frames of a ``patch``, the ``step`` from one to the next, and what makes frames
(``front``). ``log_mel``: samples of a ``window``, of a ``hop`` and of the Fourier transform (``fft``), mel ``bands`` from ``low`` to
``high`` Hz, what is added before the logarithm (``offset``). ``onnx``: the ``file`` beside it, what samples are multiplied by before
(``gain``), what its frames are multiplied by (``scale``) and what is added to them (``offset``), samples of its ``window`` and ``hop``.
``wave``: samples times ``gain`` are the frames. ``margin`` seconds of silence are put before and after. Shapes: N frames, T patches, F
frames of a patch, M bands.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import BackboneNotFound
from warmstart.core.protocols import Encoded
from warmstart.engine import foreign, sound, store
from warmstart.engine.sound import Sound

if TYPE_CHECKING:
    from torch import Tensor

Samples: TypeAlias = NDArray[np.float32]

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


class Front(Protocol):
    """Makes the frames; ``window`` and ``hop`` in samples say how many there are."""

    window: int
    hop: int
    cells: int
    """Numbers of a frame."""

    def __call__(self, samples: Samples) -> Samples:
        """Frames (N, ...) of samples, of which there are ``window`` at least."""
        ...


class LogMel:
    """Logarithm of magnitudes in mel bands: (N, M)."""

    def __init__(self, rate: int, how: Mapping[str, Any]) -> None:
        self.window, self.hop, self._fft, self.cells = (int(how[key]) for key in ("window", "hop", "fft", "bands"))
        self._offset = float(how["offset"])
        self._mel = mel_weights(rate, self._fft, self.cells, float(how["low"]), float(how["high"]))  # (K, M)
        self._hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self.window) / self.window)).astype(np.float32)

    def __call__(self, samples: Samples) -> Samples:
        frames = np.lib.stride_tricks.sliding_window_view(samples, self.window)[:: self.hop]  # (N, window)
        magnitude = np.abs(np.fft.rfft(frames * self._hann, self._fft))  # (N, K)
        found: Samples = np.log(magnitude @ self._mel + self._offset).astype(np.float32)
        return found


class Wave:
    """The samples themselves: (N,)."""

    window = hop = cells = 1

    def __init__(self, how: Mapping[str, Any]) -> None:
        self._gain = float(how.get("gain", 1.0))

    def __call__(self, samples: Samples) -> Samples:
        return (samples * self._gain).astype(np.float32)


class OnnxFront:
    """What an ONNX file makes of the wave: (N, M)."""

    def __init__(self, folder: Path, how: Mapping[str, Any]) -> None:
        self.file = folder / str(how["file"])
        self.window, self.hop = int(how["window"]), int(how["hop"])
        self._gain, self._scale, self._offset = (float(how.get(key, value)) for key, value in (("gain", 1), ("scale", 1), ("offset", 0)))
        self._session = foreign.open_onnx(self.file)
        self._input = self._session.get_inputs()[0]
        self.cells = int(self._session.get_outputs()[0].shape[-1])

    def __call__(self, samples: Samples) -> Samples:
        shaped = (samples * self._gain).astype(np.float32).reshape(*[1] * (len(self._input.shape) - 1), -1)
        found = np.asarray(self._session.run(None, {self._input.name: shaped})[0], np.float32)
        return found.reshape(-1, found.shape[-1]) * np.float32(self._scale) + np.float32(self._offset)


class Patches:
    """Waveforms as patches, by the ``settings`` in the folder of a body.

    Raises:
        BackboneNotFound: A value is missing or wrong.
    """

    def __init__(self, folder: Path, found: Mapping[str, Any]) -> None:
        try:
            how = found["patches"]
            self.rate = int(found["sampling_rate"])
            self._patch, self._step = int(how["patch"]), int(how["step"])
            self._margin = round(float(how.get("margin", 0.0)) * self.rate)
            self._front = _front(folder, self.rate, how)
        except (KeyError, TypeError, ValueError) as error:
            raise BackboneNotFound(
                f'"patches" in {folder / FILE} cannot be used: {error}', f"such as {json.dumps(YAMNET)}", "correct it"
            ) from None
        self._settings = settings(self.rate, how)
        self._tokens: int = max(1, -(-self._patch * self._front.cells // TOKEN))
        digest = hashlib.sha256(json.dumps(self._settings, sort_keys=True).encode())
        if isinstance(self._front, OnnxFront):
            digest.update(self._front.file.read_bytes())
        self.fingerprint = digest.hexdigest()

    def longest(self, seconds: float) -> int:
        """Size of the largest example of a recording of so many seconds."""
        return self._tokens * self._count(round(seconds * self.rate) + 2 * self._margin)

    def encode(self, one: Sound) -> Encoded:
        """``input_features (T, F, M)``, or ``(T, F)`` of a wave; the end is filled up with silence to a whole patch, of which there is one
        at least."""
        samples = sound.resampled(one.samples, one.rate, self.rate)
        n = self._count(len(samples) + 2 * self._margin)
        whole = np.zeros(max(self._samples(n), len(samples) + 2 * self._margin), np.float32)
        whole[self._margin : self._margin + len(samples)] = samples
        frames = self._front(whole)
        n = min(n, 1 + (len(frames) - self._patch) // self._step)
        return {NAME: np.stack([frames[i * self._step : i * self._step + self._patch] for i in range(n)])}

    def size(self, example: Encoded) -> int:
        """Cells, ``TOKEN`` at a time."""
        return self._tokens * len(example[NAME])

    def collate(self, examples: Sequence[Encoded], length: int) -> dict[str, Tensor]:
        """``input_features (B, T, ...)`` with ``attention_mask (B, T)``."""
        import torch

        lengths = np.array([len(example[NAME]) for example in examples])
        longest = max(int(lengths.max()), length // self._tokens)
        out = np.zeros((len(examples), longest, *examples[0][NAME].shape[1:]), np.float32)
        for row, example in zip(out, examples, strict=True):
            row[: len(example[NAME])] = example[NAME]
        return {NAME: torch.from_numpy(out), MASK: torch.from_numpy((np.arange(longest) < lengths[:, None]).astype(np.int64))}

    def save(self, folder: Path) -> None:
        """Write ``preprocessor_config.json``, and the front's file where it has one."""
        if isinstance(self._front, OnnxFront):
            store.copy(self._front.file, folder / self._front.file.name)
        store.write_json(folder / FILE, self._settings)

    def _samples(self, patches: int) -> int:
        """Samples of so many patches."""
        return self._front.window + (self._patch + (patches - 1) * self._step - 1) * self._front.hop

    def _count(self, samples: int) -> int:
        """Patches of so many samples."""
        return 1 + max(0, -(-(samples - self._samples(1)) // (self._step * self._front.hop)))


def _front(folder: Path, rate: int, how: Mapping[str, Any]) -> Front:
    kind = how.get("front", "log_mel")
    if kind not in FRONTS:
        raise ValueError(f"no front {kind!r}; known: {', '.join(FRONTS)}")
    return FRONTS[kind](folder, rate, how)


FRONTS: dict[str, Callable[[Path, int, Mapping[str, Any]], Front]] = {
    "log_mel": lambda folder, rate, how: LogMel(rate, how),
    "onnx": lambda folder, rate, how: OnnxFront(folder, how),
    "wave": lambda folder, rate, how: Wave(how),
}


def mel_weights(rate: int, fft: int, bands: int, low: float, high: float) -> NDArray[np.float32]:
    """Triangles that are straight on the mel scale (as TensorFlow makes them), without the constant part: (fft / 2 + 1, bands)."""
    mel = 1127.0 * np.log1p(np.arange(fft // 2 + 1) * rate / fft / 700.0)[:, None]  # (K, 1)
    edges = np.linspace(1127.0 * np.log1p(low / 700.0), 1127.0 * np.log1p(high / 700.0), bands + 2)
    rising = (mel - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - mel) / (edges[2:] - edges[1:-1])
    found: NDArray[np.float32] = np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)
    found[0] = 0
    return found
