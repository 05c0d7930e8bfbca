"""Sound to pre-train on: decoded once to a file of 16-bit samples, mapped into memory, and cut to windows.

Memory does not grow with the corpus: recordings are decoded a few at a time, and windows are read from the file when a batch needs them.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import DataError
from warmstart.engine import sound, store
from warmstart.engine.sound import Limit, Sound

AT_ONCE = 64
"""Recordings that are decoded before they are written."""
MOST = Limit(seconds=3600.0, window=60.0)
"""Of a recording that is longer than an hour, 60 windows of a minute, spread over it, are learned from."""
PEEKED = 32
SAMPLES, INDEX = "sound.raw", "sound.json"
SHORTEST_SECONDS = 0.1
SILENCE = "silence"
EPSILON = 1e-7

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SoundCorpus:
    """Windows of recordings: window ``i`` is ``lengths[i]`` samples from ``starts[i]`` on, of recording ``recordings[i]``.

    ``seconds`` is the length of all recordings together, ``left_out`` maps a reason to a number of recordings.
    """

    samples: NDArray[np.int16]
    rate: int
    starts: Ints
    lengths: Ints
    recordings: Ints
    seconds: float
    hash: str
    left_out: dict[str, int]
    notes: tuple[str, ...]

    def wave(self, i: int) -> NDArray[np.float32]:
        """One window with mean 0 and variance 1, as the feature extractor of the saved body makes it: (T,)."""
        start, length = int(self.starts[i]), int(self.lengths[i])
        wave = self.samples[start : start + length].astype(np.float32) / 32768
        found: NDArray[np.float32] = (wave - wave.mean()) / np.sqrt(wave.var() + EPSILON)
        return found

    @property
    def n_recordings(self) -> int:
        """Recordings that can be learned from."""
        return len(np.unique(self.recordings))


def rate_of(values: Sequence[Any], *, folder: Path, given_rate: int | None) -> int:
    """The rate that most recordings have, of a few that are looked at, but no more than 16 kHz: (samples per second)."""
    few = [values[int(i)] for i in np.unique(np.linspace(0, len(values) - 1, PEEKED).astype(int))] if len(values) else []
    heads = sound.read_all(few, folder=folder, rate=sound.RATE, given_rate=given_rate, limit=Limit(1.0, 1.0))
    rates = Counter(one.source_rate for one in heads if not one.problem)
    return min(sound.RATE, max(sorted(rates), key=lambda rate: rates[rate])) if rates else sound.RATE


def build(
    values: Sequence[Any],
    *,
    place: Path,
    folder: Path,
    rate: int,
    window: float,
    given_rate: int | None = None,
    skip_bad: bool = False,
    source: str = "the data",
    rows: Sequence[int] | None = None,
) -> SoundCorpus:
    """Decode every recording to ``place`` (or take what an earlier call left there), and cut them to windows.

    Args:
        values: Recordings as ``sound.read`` takes them.
        place: Folder for the file of samples and its index.
        folder: What relative paths are relative to.
        rate: Samples per second of what is written.
        window: Seconds of the longest window; the last of a recording may be shorter, but not below 0.1 s.
        given_rate: Rate of samples that come without one.
        skip_bad: Leave out and count what cannot be used.
        source: What the values were read from, for an error.
        rows: Where each value stands in it.

    Raises:
        DataError: A recording cannot be used, or none is left.
        DiskFull: No space for the file.
    """
    index = _index(place, rate)
    if index is None:
        index = _decode(values, place=place, folder=folder, rate=rate, given_rate=given_rate, skip_bad=skip_bad, source=source, rows=rows)
    lengths = np.array(index["lengths"], np.int64)
    if not len(lengths):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in index["left_out"].items())
        raise DataError(f"no recording of {source} can be used ({reasons or 'it has none'})", "sound to learn from", "check the files")
    longest, shortest = max(1, round(window * rate)), max(1, round(SHORTEST_SECONDS * rate))
    starts, sizes, owners = _windows(lengths, longest, shortest)
    samples = np.memmap(place / SAMPLES, np.int16, mode="r")
    return SoundCorpus(
        samples, rate, starts, sizes, owners, float(lengths.sum()) / rate, index["hash"], index["left_out"], tuple(index["notes"])
    )


def _windows(lengths: Ints, longest: int, shortest: int) -> tuple[Ints, Ints, Ints]:
    """Starts, sizes and recordings of all windows: each recording is cut every ``longest`` samples; a rest below ``shortest`` is dropped,
    unless it is all there is."""
    starts, sizes, owners, place = [], [], [], 0
    for recording, length in enumerate(lengths.tolist()):
        for offset in range(0, length, longest):
            size = min(longest, length - offset)
            if size >= shortest or not offset:
                starts.append(place + offset)
                sizes.append(size)
                owners.append(recording)
        place += length
    return np.array(starts, np.int64), np.array(sizes, np.int64), np.array(owners, np.int64)


def _index(place: Path, rate: int) -> dict[str, Any] | None:
    """What an earlier call wrote; None where it did not finish, or for another rate."""
    try:
        found: dict[str, Any] = json.loads((place / INDEX).read_text(encoding="utf-8"))
        whole = (place / SAMPLES).stat().st_size == 2 * sum(found["lengths"])
    except (OSError, ValueError, KeyError):
        return None
    return found if whole and found["rate"] == rate else None


def _decode(
    values: Sequence[Any],
    *,
    place: Path,
    folder: Path,
    rate: int,
    given_rate: int | None,
    skip_bad: bool,
    source: str,
    rows: Sequence[int] | None,
) -> dict[str, Any]:
    """Write the samples, each recording at full scale, one after another; then the index, which says that the file is whole."""
    digest, lengths, left_out = hashlib.blake2b(digest_size=16), [], Counter[str]()
    clipped = cut = 0
    with store.replacing(place / SAMPLES) as temporary, temporary.open("wb") as file:
        for start in range(0, len(values), AT_ONCE):
            chunk = sound.read_all(values[start : start + AT_ONCE], folder=folder, rate=rate, given_rate=given_rate, limit=MOST)
            for offset, one in enumerate(chunk):
                if one.problem and not skip_bad:
                    raise _unusable(one, source, (rows or range(1, len(values) + 1))[start + offset])
                if one.problem or one.silent:
                    left_out[one.problem or SILENCE] += 1
                    continue
                pcm = _pcm(one)
                digest.update(pcm.tobytes())
                file.write(pcm.tobytes())
                lengths.append(len(pcm))
                clipped += one.clipped >= sound.CLIPPED_SHARE
                cut += one.seconds > MOST.seconds
    silent = left_out[SILENCE]
    notes = [
        text
        for count, text in (
            (silent, f"{silent:,} silent recordings teach nothing and were passed over"),
            (clipped, f"{clipped:,} recordings are clipped (at full scale for 1 sample in 1,000 or more)"),
            (cut, f"{cut:,} recordings are longer than an hour: of each, 60 windows of a minute are used"),
        )
        if count
    ]
    index = {"rate": rate, "lengths": lengths, "left_out": dict(left_out), "hash": digest.hexdigest(), "notes": notes}
    store.write_json(place / INDEX, index)
    return index


def _unusable(one: Sound, source: str, row: int) -> DataError:
    given = f"{source}, row {row}: {one.source and f'{one.source}: '}{one.problem}"
    return DataError(given, "sound that can be read", "correct it, or leave such rows out with --skip-bad")


def _pcm(one: Sound) -> NDArray[np.int16]:
    """16-bit samples with the loudest at full scale: quiet recordings keep their shape, and windows are normalised anyway."""
    found: NDArray[np.int16] = np.rint(one.samples * (32767 / float(np.abs(one.samples).max()))).astype(np.int16)
    return found
