"""Recordings: read, mixed to one channel, brought to one rate, and cut to a bounded length.

WAV, FLAC, OGG, MP3 and whatever else libsndfile reads, by path or as bytes; samples as arrays. A recording that cannot be used is
returned with its ``problem``, so that a table can be read to its end and every complaint can name its row.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from warmstart.engine import aside
from warmstart.engine.ahead import together
from warmstart.engine.aside import Kept, Shed
from warmstart.engine.hush import hushed

RATE = 16_000
"""Samples per second where no body asks for another rate."""
SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".caf", ".w64")
SILENT = 1e-4
"""Recordings whose loudest sample is below this (-80 dB of full scale) count as silent."""
SHORT = 0.025
"""Seconds; what is shorter holds less than one frame of a spectrogram."""
FULL_SCALE, CLIPPED_SHARE = 0.999, 1e-3
"""A recording counts as clipped when at least this share of its samples is at full scale."""
PAUSE = 0.1
HIGHEST_RATE = 768_000
THREADS = 4
PICTURE, BANDS, LEVELS = (240, 64), 64, 32
"""Width and height of a spectrogram in a report, its mel bands, and how many shades of loudness it has: 5 to 9 kB."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Limit:
    """How much of a recording is used: all of one up to ``seconds``; of a longer one, windows of ``window`` seconds, spread evenly over it
    and joined, as many as fit into ``seconds``."""

    seconds: float = 30.0
    window: float = 5.0

    def stretches(self, frames: int, rate: int) -> list[tuple[int, int]]:
        """First and last (exclusive) frame of each stretch that is used of ``frames`` frames."""
        most, window = max(1, round(self.seconds * rate)), max(1, round(min(self.window, self.seconds) * rate))
        if frames <= most:
            return [(0, frames)]
        count = max(1, most // window)
        first = np.linspace(0, frames - window, count + 2)[1:-1] if count < 3 else np.linspace(0, frames - window, count)
        return [(int(a), int(a) + window) for a in first]


@dataclass(frozen=True, eq=False)
class Sound:
    """A recording as it is used: mono ``samples (T,)`` at ``rate``, about -1 to 1; they may have been put aside, and are then read anew
    whenever they are asked for.

    ``source`` is its file (empty: given as samples or bytes), ``source_rate`` the rate that it was recorded at, ``seconds`` its whole
    length, ``clipped`` the share of its samples at full scale. ``problem`` says why it cannot be used; there are no samples then.
    """

    kept: Kept
    rate: int
    source_rate: int = 0
    seconds: float = 0.0
    clipped: float = 0.0
    source: str = ""
    problem: str = ""

    def __str__(self) -> str:
        return f"{Path(self.source).name or 'sound'} ({self.seconds:.2f} s)"

    def __repr__(self) -> str:
        return f"Sound({self.source!r}, {self.seconds:.2f} s, {self.digest.hex()[:8]})"

    @property
    def samples(self) -> Floats:
        """(T,)."""
        return aside.opened(self.kept)

    @cached_property
    def digest(self) -> bytes:
        """Hash of samples and rate."""
        return hashlib.blake2b(self.rate.to_bytes(4) + self.samples.tobytes(), digest_size=16).digest()

    @property
    def used(self) -> float:
        """Seconds that are used."""
        return self.kept.shape[0] / self.rate

    @cached_property
    def silent(self) -> bool:
        """Whether there is nothing to hear."""
        return not self.problem and float(np.abs(self.samples).max()) < SILENT


class _BadSoundError(Exception):
    """What is wrong with a recording."""


def read_all(
    values: Sequence[Any], *, folder: Path, rate: int = RATE, given_rate: int | None = None, limit: Limit | None = None
) -> list[Sound]:
    """``read`` of every value, by a few threads: decoding and resampling let go of the interpreter. Of many the samples are put aside."""
    shed = Shed()

    def one(value: Any) -> Sound:
        found = read(value, folder=folder, rate=rate, given_rate=given_rate, limit=limit)
        if isinstance(value, Sound) or found.problem:
            return found
        again = partial(_again, value, found.digest, folder=folder, rate=rate, given_rate=given_rate, limit=limit)
        done = replace(found, kept=shed.keep(found.samples, again))
        vars(done).update(digest=found.digest, silent=found.silent)  # known while the samples are at hand
        return done

    return together(one, values, threads=THREADS)


def _again(value: Any, digest: bytes, **how: Any) -> Floats:
    """The samples of a recording that there was no room to keep.

    Raises:
        DataError: It has changed, or is gone.
    """
    found = read(value, **how)
    if found.problem or found.digest != digest:
        raise aside.changed(found.source or "a recording", found.problem or "another recording than when the run began")
    return found.samples


def read(value: Any, *, folder: Path, rate: int = RATE, given_rate: int | None = None, limit: Limit | None = None) -> Sound:
    """One recording, as it stands in a table or in a program.

    Args:
        value: A path; the bytes of a file; ``{"path": ..., "bytes": ...}`` or ``{"array": ..., "sampling_rate": ...}`` as Hugging Face
            ``datasets`` has them; ``(samples, rate)``; or samples (T,), (T, channels) or (channels, T) at ``given_rate``.
        folder: What relative paths are relative to.
        rate: Samples per second of the result.
        given_rate: Rate of samples that come without one.
        limit: How much of it is used.
    """
    if isinstance(value, Sound):
        return value
    limit = limit or Limit()
    source = ""
    try:
        if isinstance(value, Mapping):
            source = str(value.get("path") or "")
            value, given_rate = _unfolded(value, given_rate)
        elif isinstance(value, tuple) and len(value) == 2 and np.ndim(value[1]) == 0:
            value, given_rate = value[0], value[1]
        if isinstance(value, (str, os.PathLike)):
            source = str(value)
            found, source_rate, frames = _from_file(folder / Path(value), limit)
        elif isinstance(value, (bytes, bytearray, memoryview)):
            found, source_rate, frames = _decoded(io.BytesIO(value), len(value), limit)
        else:
            found, source_rate, frames = _from_samples(value, given_rate, limit)
        return _mixed(found, rate, source_rate=source_rate, seconds=frames / source_rate, source=source)
    except _BadSoundError as error:
        return Sound(np.zeros(0, np.float32), rate, source=source, problem=str(error))


def notes(sounds: Sequence[Sound], limit: Limit) -> list[str]:
    """Sentences about what a person should know of these recordings (an outline of each will do): silence, hardly anything, clipping,
    those that were cut, mixed rates."""
    usable = [s for s in sounds if not s.problem]
    counts = {
        "are silent": sum(s.silent for s in usable),
        f"are shorter than {SHORT:g} s": sum(s.seconds < SHORT for s in usable),
        "are clipped (at full scale for 1 sample in 1,000 or more)": sum(s.clipped >= CLIPPED_SHARE for s in usable),
        f"are longer than {limit.seconds:g} s: of each, windows of {limit.window:g} s spread over it were used": sum(
            s.seconds > limit.seconds for s in usable
        ),
    }
    found = [f"{count:,} of {len(usable):,} recordings {what}" for what, count in counts.items() if count]
    rates = sorted({s.source_rate for s in usable})
    if len(rates) > 1:
        found.append(f"recordings have {len(rates)} rates, from {rates[0]:,} to {rates[-1]:,} Hz")
    return found


def outline(one: Sound) -> Sound:
    """A recording with no more than its loudest sample: all that ``notes`` needs."""
    return one if one.problem else replace(one, kept=np.abs(one.samples).max(keepdims=True))


def pieces(one: Sound, longest: float) -> list[Sound]:
    """A recording in pieces of at most ``longest`` seconds, one after another; each cut is in the middle of the quietest ``PAUSE`` seconds
    within the last third of what a piece may be long, so that it hardly ever goes through a word."""
    most, pause = max(2, round(longest * one.rate)), max(1, round(PAUSE * one.rate))
    found, start, length = [], 0, one.kept.shape[0]
    samples = one.samples if length > most else None
    while samples is not None and length - start > most:
        first = start + most - max(most // 3, min(pause, most - 1))
        loudness = np.convolve(np.square(samples[first : start + most], dtype=np.float64), np.ones(pause), "valid")
        end = first + (int(loudness.argmin()) + pause // 2 if len(loudness) else 0)
        found.append(replace(one, kept=aside.part(one.kept, start, end)))
        start = end
    return [*found, replace(one, kept=aside.part(one.kept, start, length))]


def resampled(samples: Floats, rate: int, to: int) -> Floats:
    """The same sound at another rate (soxr, high quality): (T,) to (T * to / rate,)."""
    if rate == to:
        return samples
    import soxr

    found: Floats = soxr.resample(samples, rate, to).astype(np.float32, copy=False)
    return found


def data_uri(one: Sound) -> str:
    """The log-mel spectrogram of a recording as a small PNG, high notes above, in a data URI; empty where there is none."""
    from matplotlib import colormaps
    from PIL import Image

    from warmstart.engine import spectra

    if one.problem:
        return ""
    width, height = PICTURE
    high = min(one.rate, one.source_rate or one.rate) / 2
    mel = spectra.log_mel(one.samples, rate=one.rate, bands=BANDS, high=high).T[::-1]  # (bands, N)
    floor, loudest = np.quantile(mel, [0.05, 0.999])
    levels = np.clip((mel - floor) / max(1e-9, float(loudest - floor)), 0, 1)
    image = Image.fromarray(np.round(levels * (LEVELS - 1)).astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
    image.putpalette((255 * colormaps["magma"](np.linspace(0, 1, LEVELS))[:, :3]).round().astype(np.uint8).tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def playable(one: Sound, seconds: float) -> str:
    """The beginning of a recording as an MP3 of at most 16 kHz, about 2.5 kB a second, in a data URI; empty where it cannot be made."""
    import soundfile

    if one.problem:
        return ""
    samples, rate = one.samples[: int(seconds * one.rate)], min(one.rate, RATE)
    buffer = io.BytesIO()
    how = {"format": "MP3", "subtype": "MPEG_LAYER_III", "compression_level": 0.8}
    try:
        soundfile.write(buffer, resampled(samples, one.rate, rate), rate, **how)
    except (soundfile.LibsndfileError, ValueError):  # a rate that MP3 does not know
        return ""
    return f"data:audio/mpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _unfolded(value: Mapping[str, Any], given_rate: int | None) -> tuple[Any, int | None]:
    """What a struct of ``datasets`` holds: samples and their rate, bytes, or a path."""
    if value.get("array") is not None:
        return value["array"], value.get("sampling_rate") or given_rate
    if value.get("bytes") is not None:
        return value["bytes"], None
    if value.get("path"):
        return value["path"], None
    raise _BadSoundError("missing sound")


def _from_file(path: Path, limit: Limit) -> tuple[Floats, int, int]:
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise _BadSoundError("a folder, not a sound file")
        with path.open("rb") as file:
            return _decoded(file, size, limit)
    except FileNotFoundError:
        raise _BadSoundError("no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
        raise _BadSoundError(f"a file that cannot be opened ({getattr(error, 'strerror', None) or 'no valid path'})") from None


def _decoded(file: BinaryIO, size: int, limit: Limit) -> tuple[Floats, int, int]:
    """The stretches that are used (T, channels), the rate, and how many frames the whole file has."""
    import soundfile

    if not size:
        raise _BadSoundError("empty file")
    if _cut_short(file, size):
        raise _BadSoundError("truncated sound file")
    try:
        with hushed() if _talks(file) else nullcontext(), soundfile.SoundFile(file) as sound:
            frames, rate = sound.frames, sound.samplerate
            parts = [_stretch(sound, a, b) for a, b in limit.stretches(frames, rate)]
    except soundfile.LibsndfileError as error:
        what = "damaged or truncated sound file" if _looks_like_sound(file) else "not a sound file that can be read"
        raise _BadSoundError(what) from error
    if not frames:
        raise _BadSoundError("sound file without samples")
    return np.concatenate(parts), rate, frames


def _talks(file: BinaryIO) -> bool:
    """Whether this is an MP3, whose decoder says on standard error what it stumbles on."""
    head = file.read(3)
    file.seek(0)
    return head == b"ID3" or (head[:1] == b"\xff" and head[1:2] >= b"\xe0")


def _stretch(sound: Any, start: int, stop: int) -> Floats:
    if start:
        sound.seek(start)
    found: Floats = sound.read(stop - start, dtype="float32", always_2d=True)
    if len(found) < 0.98 * (stop - start):  # an MP3 without a header of its own length may be some frames off
        raise _BadSoundError("truncated sound file")
    return found


def _cut_short(file: BinaryIO, size: int) -> bool:
    """Whether a WAV, AIFF or AU holds less than its header says, which libsndfile passes over; writers to a pipe leave 0 or the largest
    number."""
    head = file.read(12)
    try:
        if head[:4] == b"FORM" and head[8:11] == b"AIF":
            return int.from_bytes(head[4:8], "big") + 8 > size
        if head[:4] == b".snd":
            length = int.from_bytes(head[8:12], "big")
            return length < 0x7FFFFFFF and int.from_bytes(head[4:8], "big") + length > size
        return head[:4] == b"RIFF" and head[8:] == b"WAVE" and _short_wave(file, size)
    finally:
        file.seek(0)


def _short_wave(file: BinaryIO, size: int) -> bool:
    place = 12
    while place + 8 <= size:
        file.seek(place)
        chunk = file.read(8)
        length = int.from_bytes(chunk[4:], "little")
        if chunk[:4] == b"data":
            return 0 < length < 0x7FFFFFFF and place + 8 + length > size
        place += 8 + length + length % 2
    return True


def _looks_like_sound(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(4).startswith((b"RIFF", b"fLaC", b"OggS", b"ID3", b"\xff\xfb", b"\xff\xf3", b"FORM"))


def _from_samples(value: Any, rate: Any, limit: Limit) -> tuple[Floats, int, int]:
    if value is None or (isinstance(value, float) and value != value):
        raise _BadSoundError("missing sound")
    try:
        samples = np.asarray(value)
        if samples.dtype.kind in "iu":
            samples = samples.astype(np.float32) / float(np.iinfo(samples.dtype).max if samples.dtype.itemsize < 8 else 32_767)
        samples = samples.astype(np.float32)
    except (TypeError, ValueError):
        raise _BadSoundError(f"neither a path nor samples ({type(value).__name__})") from None
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        samples = samples.T  # torch's (channels, T)
    if samples.ndim not in (1, 2):
        raise _BadSoundError(f"samples of {samples.ndim} dimensions")
    if not rate:
        raise _BadSoundError("samples without a rate")
    rate = int(rate)
    samples = samples[:, None] if samples.ndim == 1 else samples  # (T, channels)
    if not len(samples):
        raise _BadSoundError("no samples")
    return np.concatenate([samples[a:b] for a, b in limit.stretches(len(samples), rate)]), rate, len(samples)


def _mixed(samples: Floats, rate: int, *, source_rate: int, seconds: float, source: str) -> Sound:
    """One channel at one rate."""
    if not 1 <= source_rate <= HIGHEST_RATE:
        raise _BadSoundError(f"a rate of {source_rate:,} Hz")
    if not np.isfinite(samples).all():
        raise _BadSoundError("samples that are not finite")
    clipped = float((np.abs(samples) >= FULL_SCALE).mean())
    mixed = samples.mean(1, dtype=np.float32)
    loudest = np.abs(samples).max(0, initial=0.0)  # (channels,)
    if float(np.abs(mixed).max(initial=0.0)) < SILENT <= loudest.max():  # channels that take each other away
        mixed = samples[:, loudest.argmax()]
    mono = resampled(np.ascontiguousarray(mixed), source_rate, rate)
    if not len(mono):
        raise _BadSoundError("no samples")
    return Sound(mono, rate, source_rate, seconds, clipped, source)
