"""Which head a body gets for speech recognition: its own CTC layer, its own decoder, or a fresh one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import CutRefused
from warmstart.engine import ctc, ctc_head, whisper_head
from warmstart.engine.transcripts import Writing
from warmstart.engine.workbench import Workbench


class Options(Protocol):
    """What of the task's options decides a head."""

    @property
    def beam(self) -> int: ...
    @property
    def ngrams(self) -> int: ...
    @property
    def language_weight(self) -> float: ...
    @property
    def reward(self) -> float: ...
    @property
    def language(self) -> str: ...
    @property
    def head(self) -> str: ...


def build(bench: Workbench, rows: NDArray[np.int64], options: Options, writing: Writing) -> Any:
    """The head for the bench's body, whose language model is counted in the transcripts of ``rows``.

    Raises:
        CutRefused: The body has no states in time, or too few for the transcripts.
    """
    folder, point = bench.backbone.folder, bench.backbone.n_blocks
    shapes = bench.shapes
    if options.head == "auto":
        decoder = whisper_head.of(folder, point, language=options.language, beam=options.beam, writing=writing)
        if decoder is not None:
            return decoder
        own = ctc_head.native(folder, point, bench.labels, decoding=decoding(bench, rows, options))
        if own is not None:
            return own
    if getattr(bench.backbone.model.config, "model_type", "") == "audio-spectrogram-transformer":
        raise CutRefused(
            "an audio spectrogram transformer mixes time with frequency in one sequence", "a body whose states are frames", "use Wav2Vec2"
        )
    last = ctc_head.chosen(shapes)[-1]
    frames = (bench.lengths[rows] * (ctc_head.frames(shapes[last]) / float(bench.lengths[0]))).astype(np.float64)
    targets = [bench.targets[int(i)] for i in rows]
    return ctc_head.convolutional(shapes, bench.labels, targets, frames, decoding=decoding(bench, rows, options))


def decoding(bench: Workbench, rows: NDArray[np.int64], options: Options) -> dict[str, Any]:
    """How a CTC head finds answers: with the characters' n-grams of the transcripts of ``rows``."""
    language = None
    if options.beam > 1 and options.ngrams:
        index = {ord(c): i + 1 for i, c in enumerate(bench.labels)}
        texts = [[index[int(code)] for code in bench.targets[int(i)] if int(code) in index] for i in rows]
        counted = ctc.NGrams.of(texts, order=options.ngrams, classes=len(bench.labels) + 1)
        language = {"order": counted.order, "counts": counted.counts}
    return {"beam": options.beam, "language": language, "weight": options.language_weight, "reward": options.reward}


def made(settings: Mapping[str, Any]) -> Any:
    """The head that has these settings, untrained."""
    return whisper_head.Head(dict(settings)) if settings["kind"] == "whisper" else ctc_head.Head(dict(settings))
