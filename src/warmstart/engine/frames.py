"""Frames of a log-mel spectrogram, for bodies of our own that read sound as one sequence (``warmstart-soundnet``).

``preprocessor_config.json`` says how, under ``frames``: mel ``bands`` from 20 Hz to ``high`` Hz, of 25 ms every 10 ms. Of every recording
the loudest cell is the upper end and what lies 80 dB below it the lower, so loudness means nothing. Shapes: N frames, M bands.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import BackboneNotFound
from warmstart.core.protocols import Encoded
from warmstart.engine import sound, spectra, store
from warmstart.engine.sound import Sound

if TYPE_CHECKING:
    from torch import Tensor

FILE = "preprocessor_config.json"
NAME, MASK = "input_features", "attention_mask"
BANDS = 64
PER_TOKEN = 4
"""Frames that a body makes one state of: 40 ms."""
FLOOR = spectra.FLOOR_DB * math.log(10) / 10
"""Nats of power between the loudest cell and the lowest."""

Values = TypeVar("Values", "NDArray[np.float32]", "Tensor")


def settings(*, rate: int = sound.RATE, bands: int = BANDS, high: float | None = None) -> dict[str, Any]:
    """What stands in ``preprocessor_config.json``."""
    return {"sampling_rate": rate, "frames": {"bands": bands, "high": high or rate / 2}}


def scaled(nats: Values) -> Values:
    """From nats below the loudest cell (``-FLOOR`` to 0) to what a body takes: -2 to 2."""
    found: Values = nats * (4 / FLOOR) + 2
    return found


class Frames:
    """Waveforms as frames, by the settings in the folder of a body.

    Raises:
        BackboneNotFound: A value is missing or wrong.
    """

    def __init__(self, folder: Path, found: Mapping[str, Any]) -> None:
        try:
            self.rate = int(found["sampling_rate"])
            self.bands, self._high = int(found["frames"]["bands"]), float(found["frames"]["high"])
            if not (self.rate >= 1_000 and self.bands >= 1 and 20 < self._high <= self.rate / 2):
                raise ValueError("high must lie between 20 and half of sampling_rate")
        except (KeyError, TypeError, ValueError) as error:
            shown = json.dumps(settings())
            raise BackboneNotFound(f'"frames" in {folder / FILE} cannot be used: {error}', f"such as {shown}", "correct it") from None
        self.settings = settings(rate=self.rate, bands=self.bands, high=self._high)
        self.fingerprint = hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    def nats(self, one: Sound) -> NDArray[np.float32]:
        """Log power below the loudest cell, ``-FLOOR`` to 0: (N, M)."""
        samples = sound.resampled(one.samples, one.rate, self.rate)
        mel = spectra.log_mel(samples, rate=self.rate, bands=self.bands, high=self._high)
        found: NDArray[np.float32] = mel - mel.max()
        return found

    def longest(self, seconds: float) -> int:
        """Size of the largest example of a recording of so many seconds."""
        _, hop, _ = spectra.frame_sizes(self.rate)
        return max(1, -(-round(seconds * self.rate) // (hop * PER_TOKEN)))

    def encode(self, one: Sound) -> Encoded:
        """``input_features (N, M)``."""
        return {NAME: scaled(self.nats(one))}

    def size(self, example: Encoded) -> int:
        """States that the body makes of it."""
        return -(-len(example[NAME]) // PER_TOKEN)

    def collate(self, examples: Sequence[Encoded], length: int) -> dict[str, Tensor]:
        """``input_features (B, N, M)`` with ``attention_mask (B, N)``."""
        return collated([example[NAME] for example in examples], longest=length * PER_TOKEN)

    def save(self, folder: Path) -> None:
        """Write ``preprocessor_config.json``."""
        store.write_json(folder / FILE, self.settings)


def collated(arrays: Sequence[NDArray[Any]], *, longest: int = 0) -> dict[str, Tensor]:
    """Arrays (N, M) as ``input_features (B, N, M)`` in float32, padded with zeros, and which frames are real: ``attention_mask (B, N)``."""
    import torch

    lengths = np.array([len(array) for array in arrays])
    longest = max(longest, int(lengths.max()))
    out = np.zeros((len(arrays), longest, arrays[0].shape[1]), np.float32)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return {NAME: torch.from_numpy(out), MASK: torch.from_numpy((np.arange(longest) < lengths[:, None]).astype(np.int64))}
