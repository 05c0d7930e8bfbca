"""What a body for sound takes: a waveform, or a spectrogram that its feature extractor makes; padded, with a mask.

The feature extractor of transformers is loaded from the body's folder and called for one recording at a time, so that an example does not
depend on its company. Waveforms (Wav2Vec2, HuBERT, WavLM) are scaled here as it says, which is the same and spares it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from warmstart.core.errors import BackboneNotFound
from warmstart.core.protocols import Encoded
from warmstart.engine import bodies, sound, store
from warmstart.engine.frames import Frames
from warmstart.engine.patches import Patches
from warmstart.engine.sound import Sound

if TYPE_CHECKING:
    from torch import Tensor

FILE, MASK = "preprocessor_config.json", "attention_mask"
SAMPLES_PER_TOKEN = 320
"""A token is so many samples where the body does not say how it shortens time (20 ms at 16 kHz, as in Wav2Vec2)."""
VARIANCE_FLOOR = 1e-7
LONGEST = 1 << 20
FEWEST_SAMPLES = 400
"""A shorter array of numbers is rather a vector than a wave."""


def rate_of(folder: Path | None) -> int:
    """Samples per second that the body in ``folder`` takes; 16,000 where there is no body, or it does not say."""
    found = store.read_object(folder / FILE).get("sampling_rate") if folder is not None else None
    return found if isinstance(found, int) and found > 0 else sound.RATE


def of(folder: Path) -> Extraction | Patches | Frames:
    """The preprocessing of the body in ``folder``: a feature extractor of transformers, or patches or frames for a body of our own.

    Raises:
        BackboneNotFound: The folder says nothing of sound.
    """
    found = store.read_object(folder / FILE)
    if "frames" in found:
        return Frames(folder, found)
    if "patches" in found:
        return Patches(folder, found)
    if str(store.read_config(folder).get("model_type")).startswith(bodies.PREFIX):
        raise _silent(folder)
    return Extraction(folder)


class Extraction:
    """The feature extractor in the folder of a body.

    Raises:
        BackboneNotFound: The folder says nothing of sound.
    """

    def __init__(self, folder: Path) -> None:
        self._extractor = _extractor(folder)
        config = store.read_config(folder)
        settings = self._extractor.to_dict()
        self.rate = int(settings.get("sampling_rate") or sound.RATE)
        self.name = str(self._extractor.model_input_names[0])
        self._wave = self.name == "input_values" and int(settings.get("feature_size", 1)) == 1 and "num_mel_bins" not in settings
        self.instant = self._wave
        self._normal = bool(settings.get("do_normalize", False))
        # Whisper pads every recording to 30 s: its mask says which frames are real, for the mean over them.
        self._asked = {"return_attention_mask": True} if config.get("model_type") == "whisper" else {}
        kernels, strides = (config.get(key) or [] for key in ("conv_kernel", "conv_stride"))
        self._stride = int(np.prod(strides)) if strides else SAMPLES_PER_TOKEN
        # Fewer samples than two frames need are padded with silence, or the convolutions would have nothing to give.
        self._fewest = _field(kernels, strides) + self._stride if strides else 1
        described = {key: value for key, value in settings.items() if key != "processor_class" and not key.startswith("_")}
        self.fingerprint = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode()).hexdigest()

    def longest(self, seconds: float) -> int:
        """Size of the largest example of a recording of so many seconds."""
        samples = round(seconds * self.rate)
        return self.size({self.name: np.zeros(max(self._fewest, samples), np.float32)}) if self._wave else LONGEST

    def encode(self, one: Sound) -> Encoded:
        """``input_values (S,)`` of a body that takes waveforms; else the extractor's array, such as ``input_features (M, N)``."""
        samples = sound.resampled(one.samples, one.rate, self.rate)
        if not self._wave:
            found = self._extractor(samples, sampling_rate=self.rate, return_tensors="np", **self._asked)
            return {key: np.asarray(found[key][0]) for key in (self.name, MASK) if key in found}
        if self._normal:
            samples = (samples - samples.mean()) / np.sqrt(samples.var() + VARIANCE_FLOOR)
        return {self.name: np.pad(samples, (0, max(0, self._fewest - len(samples)))).astype(np.float32, copy=False)}

    def size(self, example: Encoded) -> int:
        """Frames of the body, about: samples by its stride, or half the frames of a spectrogram."""
        array = example[self.name]
        return max(1, -(-len(array) // self._stride) if self._wave else max(array.shape) // 2)

    def collate(self, examples: Sequence[Encoded], length: int) -> dict[str, Tensor]:
        """``input_values (B, S)`` with ``attention_mask (B, S)``; spectrograms (B, ...) of the extractor."""
        import torch

        arrays = [example[self.name] for example in examples]
        if not self._wave and len({array.shape for array in arrays}) == 1:
            return {key: torch.from_numpy(np.stack([example[key] for example in examples])) for key in examples[0]}
        lengths = np.array([len(array) for array in arrays])
        longest = max(int(lengths.max()), length * self._stride if self._wave else 0)
        out = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), np.float32)
        for i, array in enumerate(arrays):
            out[i, : len(array)] = array
        batch = {self.name: torch.from_numpy(out)}
        # Also for bodies that were trained without a mask: a recording alone, which needs none, gives the same with it.
        batch[MASK] = torch.from_numpy((np.arange(longest) < lengths[:, None]).astype(np.int64))
        return batch

    def save(self, folder: Path) -> None:
        """Write the ``preprocessor_config.json`` that ``AutoFeatureExtractor`` reads."""
        self._extractor.save_pretrained(str(folder))


def _extractor(folder: Path) -> Any:
    from transformers import AutoFeatureExtractor

    store.quiet_transformers()
    try:
        found = AutoFeatureExtractor.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # an extractor that needs a missing library raises what it likes
        reason = str(error).strip().split("\n")[0][:200]
        raise BackboneNotFound(
            f"no feature extractor for sound can be loaded from {folder}: {reason}",
            f"{FILE} of a body for sound, such as Wav2Vec2, Whisper or AST",
            "name an audio backbone with --backbone, or copy its preprocessor file there too",
        ) from None
    if not getattr(found, "sampling_rate", None):
        raise _silent(folder)
    return found


def _silent(folder: Path) -> BackboneNotFound:
    if store.read_config(folder).get("model_type") == "warmstart-onnx":  # in the cache, where the user never put anything
        return BackboneNotFound(
            f"{folder.name.rpartition('-')[0]}.onnx was opened as a body for images, by the shape of its input",
            "to be told how it takes sound",
            "give --set backbone.modality=audio, and --set backbone.front=FILE.onnx where another file makes its frames",
        )
    return BackboneNotFound(
        f"{folder} is no body for sound: its {FILE} names no sampling_rate",
        "a body for sound, such as Wav2Vec2, Whisper or AST",
        "name one with --backbone",
    )


def _field(kernels: Sequence[int], strides: Sequence[int]) -> int:
    """Samples that the first frame sees."""
    field, stride = 1, 1
    for kernel, step in zip(kernels, strides, strict=True):
        field, stride = field + (kernel - 1) * stride, stride * step
    return field


def is_sound(value: Any) -> bool:
    """Whether one value of a column looks like sound: a name of a file, a struct of ``datasets``, bytes of a known format, or a wave."""
    if isinstance(value, str):
        return value.lower().endswith(sound.SUFFIXES) and "://" not in value
    if isinstance(value, Path):
        return value.suffix.lower() in sound.SUFFIXES
    if isinstance(value, bytes):
        return value[:4] in (b"fLaC", b"OggS", b"FORM") or value[:3] == b"ID3" or (value[:4] == b"RIFF" and value[8:12] == b"WAVE")
    if isinstance(value, Mapping):
        return "sampling_rate" in value or ({"bytes", "path"} >= set(value) and any(is_sound(v) for v in value.values()))
    if isinstance(value, tuple) and len(value) == 2:
        return np.ndim(value[1]) == 0 and isinstance(value[1], int | np.integer) and isinstance(value[0], np.ndarray | list)
    return isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind == "f" and len(value) >= FEWEST_SAMPLES
