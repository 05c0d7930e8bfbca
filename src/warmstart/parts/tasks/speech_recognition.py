"""what is said in a recording, as text"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import DataError
from warmstart.core.protocols import Input
from warmstart.core.registry import check_ranges
from warmstart.core.report import Metric
from warmstart.engine import sound, transcripts

if TYPE_CHECKING:
    from warmstart.engine.job import Fitted, Job, Plan
    from warmstart.engine.speech_baseline import Baseline
    from warmstart.engine.workbench import Workbench

NAMES = ("transcript", "transcription", "sentence", "text", "normalized_text", "raw_text", "utterance")
"""What a column of transcripts is called."""
FILE = re.compile(r"\S+\.\w{2,5}$")
MANY = 0.8
"""Transcripts differ: classes do not make up so large a share of the rows."""
FASTEST, UNUSED = 50.0, 0.5
"""Characters a second that nobody speaks; seconds of a recording that may be lost in reading."""
WORDS, DIFFERENT = 1.5, 20
"""They have so many words on average, or there are so many of them."""


@dataclass(frozen=True)
class Options:
    """How transcripts are written, and how answers are found."""

    case: Literal["lower", "upper", "kept"] = "lower"
    "case of all transcripts"
    punctuation: str = "'"
    "signs that are kept beside letters and digits; all others become spaces"
    beam: int = 8
    "prefixes that the search keeps; 1 takes the best path, and no language model"
    ngrams: int = 5
    "order of the language model of characters that is counted in the training transcripts; 0: none"
    language_weight: float = 0.5
    "weight of the language model against the sound"
    reward: float = 0.5
    "added for every character, in nats"
    language: str = "en"
    "language that a body such as Whisper is told to write"
    window: float = 20.0
    "a longer recording is transcribed in pieces of at most so many seconds, cut where it is quietest"
    epochs: float | None = None
    "passes over the training rows of a fresh head, and without any body; None: by their number"
    head: Literal["auto", "fresh"] = "auto"
    "auto: the body's own CTC layer or decoder where it has one; fresh: a new one"


class Part:
    """Speech recognition: transcripts as code points, connectionist temporal classification or the body's own decoder, word error rate."""

    name = "speech_recognition"
    structured = True
    modality = "audio"
    main_metric = "word_accuracy"
    column_names = NAMES
    unknown_name = "characters"
    modality_options: Mapping[str, Any] = MappingProxyType({"seconds": 3600.0})

    def __init__(self, options: Options) -> None:
        wanted = {
            "window": (options.window >= 1, "at least 1 second"),
            "beam": (options.beam >= 1, "at least 1"),
            "ngrams": (options.ngrams >= 0, "at least 0"),
        }
        check_ranges(self.name, options, wanted)
        self.options = options
        self.writing = transcripts.Writing(options.case, options.punctuation)

    def matches(self, values: Sequence[Any]) -> bool:
        """Whether these are texts, not names of files, most of which differ."""
        texts = [v for v in values if isinstance(v, str) and v.strip()]
        if not texts or any(not isinstance(v, str) and not _missing(v) for v in values):
            return False
        distinct = {self.writing.normal(t) for t in texts}
        many = len(distinct) >= max(2, MANY * len(texts)) and not all(FILE.fullmatch(t) for t in texts)
        return many and (len(distinct) >= DIFFERENT or sum(len(t.split()) for t in texts) >= WORDS * len(texts))

    def check(self, value: Any) -> str | None:
        """Why one transcript cannot be used, or None when it can."""
        if _missing(value):
            return "missing transcript"
        if not isinstance(value, str):
            return f"a transcript that is no text ({type(value).__name__})"
        return None if self.writing.normal(value) else "a transcript without a letter or digit"

    def check_pair(self, value: Input, target: str) -> str | None:
        """Why a recording and its transcript do not belong together: only a part of it is used, or nobody speaks so fast."""
        one, text = value[0], self.writing.normal(target)
        if one.seconds > one.used + UNUSED:
            return f"a recording of {one.seconds:.0f} s, of which {one.used:.0f} s are used, so that its transcript says too much"
        if len(text) > FASTEST * one.used:
            return f"a recording of {one.used:.2g} s, too short for a transcript of {len(text)} characters"
        return None

    def pieces(self, value: Input) -> list[Input]:
        """A long recording in pieces, cut where it is quietest."""
        return [(piece,) for piece in sound.pieces(value[0], self.options.window)]

    def rejoined(self, compact: NDArray[np.float32], counts: Sequence[int]) -> NDArray[np.float32]:
        """The answers for pieces, so many of each recording, as one for each recording."""
        return transcripts.rejoined(compact, counts)

    def labels(self, values: Sequence[Any]) -> tuple[str, ...]:
        """The characters, sorted; ``values`` have passed ``check``.

        Raises:
            DataError: All transcripts are the same.
        """
        texts = {self.writing.normal(v) for v in values}
        if len(texts) < 2:
            said = f"only one transcript {next(iter(texts))[:40]!r}" if texts else "no transcript"
            raise DataError(f"{said} in {len(values)} rows", "recordings of different words", "add some, or name another column")
        return tuple(sorted(set("".join(texts))))

    def encode(self, values: Sequence[Any], labels: Sequence[str]) -> NDArray[np.object_]:
        """Code points of each transcript: (N,) arrays."""
        found = np.empty(len(values), object)
        for i, value in enumerate(values):
            found[i] = transcripts.points(self.writing.normal(value))
        return found

    def unknown(self, values: Sequence[Any], labels: Sequence[str]) -> dict[str, int]:
        """In how many transcripts each character is that is not among ``labels``."""
        counts = Counter(c for value in values for c in set(self.writing.normal(value)))
        return {c: counts[c] for c in sorted(counts.keys() - set(labels))}

    def constant(self, targets: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
        """The most frequent transcript, in compact form: (1 + L,)."""
        counts = Counter(transcripts.text_of(t) for t in targets)
        text, count = max(counts.items(), key=lambda item: (item[1], item[0]))
        found: NDArray[np.float32] = transcripts.packed([(transcripts.points(text), count / len(targets))])[0]
        return found

    def counts(self, targets: Sequence[NDArray[Any]], labels: Sequence[str]) -> dict[str, int]:
        """How often each word is said."""
        return dict(Counter(word for t in targets for word in transcripts.text_of(t).split()).most_common())

    def check_body(self, body: Path) -> None:
        """Raise where the body's own decoder cannot write the language that was asked for.

        Raises:
            BackboneNotFound: It has no tokenizer, or none that knows the language.
        """
        from warmstart.engine import whisper_head

        if self.options.head == "auto":
            whisper_head.check(body, self.options.language)

    def head(self, bench: Workbench, rows: NDArray[np.int64]) -> Any:
        """The body's own CTC layer or decoder, where it has one and may be used, else a fresh head.

        Raises:
            CutRefused: The body has no states in time, or too few for the transcripts.
        """
        from warmstart.engine import speech_heads

        return speech_heads.build(bench, rows, self.options, self.writing)

    def head_epochs(self, n_train: int) -> float:
        """Passes over the training rows for a head alone."""
        from warmstart.engine import speech_baseline

        return speech_baseline.epochs(n_train) if self.options.epochs is None else self.options.epochs

    def build_head(self, settings: Mapping[str, Any]) -> Any:
        """The head that has these settings, untrained."""
        from warmstart.engine import speech_heads

        return speech_heads.made(settings)

    def plan_classic(self, bench: Workbench, train: NDArray[np.int64], seconds: float) -> Plan | None:
        """A recogniser on log-mel frames, from scratch; see ``engine.speech_baseline``."""
        from warmstart.engine import speech_baseline

        return speech_baseline.plan(bench, train, seconds, passes=self.options.epochs)

    def fit_classic(self, bench: Workbench, train: NDArray[np.int64], held: NDArray[np.int64], job: Job) -> Fitted:
        """What was planned."""
        from warmstart.engine import speech_baseline, speech_heads

        decoding = speech_heads.decoding(bench, train, self.options)
        return speech_baseline.run(bench, train, held, job, decoding=decoding)

    def load_classic(self, folder: Path) -> Baseline:
        """What it saved."""
        from warmstart.engine import speech_baseline

        return speech_baseline.load(folder)

    def decode(self, compact: NDArray[np.float32], labels: Sequence[str], values: Sequence[Any] = ()) -> list[str]:
        """The text of each row."""
        return [" ".join(transcripts.text_of(row[1:]).split()) for row in compact]

    def confidence(self, compact: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N,) the geometric mean of the probabilities of an answer's characters or tokens."""
        return np.clip(compact[:, 0].astype(np.float64), 0, 1)

    def speed(self, seconds: float, values: Sequence[Input]) -> dict[str, Metric]:
        """Seconds of computing for a second of sound."""
        factor = seconds / max(1e-9, sum(float(value[0].used) for value in values))
        return {"real_time_factor": Metric(factor, factor, factor, len(values))}

    def figure(self, value: Input, target: NDArray[Any], compact: NDArray[np.float32], labels: Sequence[str]) -> str:
        """Truth and answer word beside word, as HTML."""
        from warmstart.engine import speech_figures

        return speech_figures.figure(transcripts.text_of(target), self.decode(compact[None], labels)[0])

    def confusion(
        self, compact: NDArray[np.float32], targets: Sequence[NDArray[Any]], labels: Sequence[str]
    ) -> tuple[list[str], list[list[int]]]:
        """The words that were mixed up most often, and how often each was taken for each other."""
        return transcripts.confusion([transcripts.text_of(t) for t in targets], self.decode(compact, labels))

    def scores(self, compact: NDArray[np.float32], targets: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        """(N,) one less the word error rate of each utterance, at least 0."""
        return transcripts.word_scores([transcripts.text_of(t) for t in targets], self.decode(compact, ()))

    def metrics(self, compact: NDArray[np.float32], targets: Sequence[NDArray[Any]], *, seed: int) -> dict[str, Metric]:
        """Word accuracy, word and character error rate, share of utterances without error; see ``engine.transcripts.metrics``."""
        return transcripts.metrics([transcripts.text_of(t) for t in targets], self.decode(compact, ()), seed=seed)


def _missing(value: Any) -> bool:
    """None, NaN, NaT, NA, or blank."""
    try:
        return value is None or bool(value != value) or (isinstance(value, str) and not value.strip())
    except (TypeError, ValueError):  # pandas.NA has no truth value
        return True
