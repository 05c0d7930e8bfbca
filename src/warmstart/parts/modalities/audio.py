"""Sound: files in a folder per class, paths or bytes in a table, arrays; prepared as the backbone's feature extractor says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warmstart.core.errors import BadOption
from warmstart.core.protocols import Encoded, Input
from warmstart.engine import extraction, media, sound, variants
from warmstart.engine.cepstra import Cepstra
from warmstart.engine.extraction import Extraction
from warmstart.engine.frames import Frames
from warmstart.engine.media import SingleFeaturizer
from warmstart.engine.patches import Patches
from warmstart.engine.sound import Limit, Sound

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from warmstart.engine.draft import Table

NAMES = ("audio", "sound", "recording", "speech", "wav", "clip", *media.FILE_NAMES, "audio_path", "filepath")


@dataclass(frozen=True)
class Options:
    """What can be set."""

    seconds: float = 30.0
    "longest stretch of a recording that is used"
    window: float = 5.0
    "of a longer one, windows of so many seconds, spread evenly over it, are joined up to that length"
    rate: int | None = None
    "samples per second of arrays that come without a rate"


class Part:
    """The modality of sound: inputs are ``(Sound,)``, or before they are loaded a path, bytes, a struct of ``datasets`` or samples."""

    name = "audio"
    plural = "recordings"
    suffixes: tuple[str, ...] = sound.SUFFIXES
    roles: tuple[str, ...] = ("audio",)
    objective = "wav2vec"
    default_backbone: str | None = "soundnet"
    at_once = 200
    unit = "ms"

    def __init__(self, options: Options) -> None:
        self.options = options
        if options.seconds <= 0 or options.window <= 0:
            raise BadOption("seconds or window is not above 0", "lengths in seconds", "give for example --set modality.seconds=30")
        self._limit = Limit(options.seconds, options.window)

    def read(self, source: Any, *, skip_bad: bool) -> Table | None:
        """A folder of recordings, a sound file, or a list of recordings; None for anything else.

        Raises:
            DataError: A folder of splits.
        """
        from warmstart.engine.draft import Table

        if isinstance(source, list | tuple) and source and all(extraction.is_sound(v) for v in source):
            return Table({"audio": list(source)}, list(range(1, len(source) + 1)), "the list")
        path = media.path_of(source)
        if path is None:
            return None
        if path.is_dir():
            return media.read_folder(path, suffixes=sound.SUFFIXES, role="audio")
        if path.suffix.lower() in sound.SUFFIXES:
            return Table({"audio": [str(path.absolute())]}, [1], str(path))
        return None

    def matches(self, columns: Mapping[str, Sequence[Any]], *, folder: Path) -> bool:
        """Whether a column holds recordings; of names of files one at least must be there."""
        return any(media.holds(values, extraction.is_sound, folder) for values in columns.values())

    def infer(self, columns: Mapping[str, Sequence[Any]], given: Mapping[str, str]) -> dict[str, str]:
        """The column of recordings, by a well-known name where there are several.

        Raises:
            ColumnNotFound: No column holds recordings, or several do.
        """
        return media.infer(columns, given, role="audio", looks=extraction.is_sound, names=NAMES, plural="sound")

    def load(self, values: Sequence[Input], *, folder: Path, body: Path | None) -> list[Input]:
        """Every recording read, mixed to one channel and brought to the body's rate (16 kHz without a body), in threads."""
        raw = [value[0] if len(value) == 1 else tuple(value) for value in values]
        rate = extraction.rate_of(body)
        found = sound.read_all(raw, folder=folder, rate=rate, given_rate=self.options.rate, limit=self._limit)
        return [(one,) for one in found]

    def notes(self, values: Sequence[Input]) -> list[str]:
        """How many recordings are silent, shorter than a frame, clipped, or longer than what is used."""
        return sound.notes([value[0] for value in values], self._limit)

    def outline(self, value: Input) -> Input:
        """What ``notes`` needs of a recording."""
        return (sound.outline(value[0]),)

    def check(self, values: Sequence[Any]) -> str | None:
        """Why a recording cannot be used ("no such file", "empty file", "truncated sound file", ...), or None when it can."""
        for value in values:
            if not isinstance(value, Sound):
                return "missing sound" if value is None else "not a recording"
            if value.problem:
                return value.problem
        return None

    def content(self, value: Input) -> bytes:
        """Hash of the samples and their rate: the same for a recording and its copy in another lossless format."""
        found: bytes = value[0].digest
        return found

    def show(self, value: Input) -> str:
        """Its file and its length."""
        return str(value[0])

    def where(self, value: Input) -> str:
        """Its file."""
        return value[0].source if isinstance(value[0], Sound) else ""

    def picture(self, value: Input) -> str:
        """Its log-mel spectrogram as a small PNG: a data URI."""
        return sound.data_uri(value[0])

    def sound(self, value: Input, seconds: float) -> str:
        """Its beginning as a small MP3: a data URI."""
        return sound.playable(value[0], seconds)

    @property
    def augmentation(self) -> str:
        """What ``view`` does."""
        return repr(variants.SoundChanges())

    def view(self, value: Input, random: np.random.Generator) -> Input:
        """A random view of the same length: louder or softer, shifted, with noise, with a stretch silenced."""
        return (variants.of_sound(value[0], variants.SoundChanges(), random),)

    def extent(self, value: Input) -> float | None:
        """Milliseconds that are used."""
        return 1000 * float(value[0].used)

    def encoder(self, folder: Path, max_length: int) -> AudioEncoder:
        """The feature extractor of the body in ``folder``; the length of sound is bounded by the options, not by ``max_length``.

        Raises:
            BackboneNotFound: The folder says nothing of sound.
        """
        return AudioEncoder(extraction.of(folder), self._limit)

    def featurizer(self, options: Mapping[str, Any]) -> SingleFeaturizer:
        """Statistics of MFCCs.

        Raises:
            BadOption: There are no options.
        """
        if options:
            raise BadOption(f"no option {next(iter(options))!r}", "no options", "leave it out")
        return SingleFeaturizer(Cepstra())

    def load_featurizer(self, folder: Path) -> SingleFeaturizer:
        """The features that ``SingleFeaturizer.save`` wrote."""
        return SingleFeaturizer(Cepstra.load(folder))


class AudioEncoder:
    """A body's preprocessing: scaling of the wave, or a spectrogram."""

    def __init__(self, how: Extraction | Patches | Frames, limit: Limit) -> None:
        self._how = how
        self.fingerprint, self.instant = how.fingerprint, getattr(how, "instant", False)
        self.max_length = how.longest(limit.seconds)

    def size(self, example: Encoded) -> int:
        """Frames of the body."""
        return self._how.size(example)

    def encode(self, values: Sequence[Input]) -> list[Encoded]:
        """``input_values (S,)``, or ``input_features (M, N)``, of each recording."""
        return [self._how.encode(value[0]) for value in values]

    def collate(self, examples: Sequence[Encoded], *, length: int = 0) -> dict[str, Tensor]:
        """``input_values (B, S)`` with ``attention_mask (B, S)``, or ``input_features (B, M, N)``."""
        return self._how.collate(examples, length)

    def save(self, folder: Path) -> None:
        """Write the ``preprocessor_config.json`` that ``AutoFeatureExtractor`` reads."""
        self._how.save(folder)
