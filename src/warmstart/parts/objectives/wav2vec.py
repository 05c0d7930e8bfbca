"""Masked prediction for sound (wav2vec 2.0, HuBERT): a body that listens, from recordings without labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from warmstart.core.protocols import Learner
    from warmstart.engine.learner import Setting


@dataclass(frozen=True)
class Options:
    """What can be set; None: by the size, the budget and the data."""

    targets: Literal["clusters", "random_projection", "quantizer"] = "clusters"
    "what is predicted: k-means clusters of cepstra, random codes of log-mel frames, or codes that are learned with a contrastive loss"
    codes: int = 100
    "how many codes there are"
    width: int | None = None
    "features of a frame (D)"
    depth: int | None = None
    "transformer layers"
    rate: int | None = None
    "samples per second that the body takes; None: that of most recordings, at most 16,000"
    window: float = 8.0
    "seconds of the longest piece that recordings are cut to"
    mask: float = 0.65
    "share of the frames that masked spans would cover if they did not overlap"
    span: int = 10
    "frames of a masked span (20 ms each), at most a quarter of a recording"
    negatives: int = 50
    "false answers to tell the true one from, with targets = quantizer"
    batch: float | None = None
    "seconds of sound in a step, over all processes"
    lr: float | None = None
    "peak learning rate"
    warmup: float = 0.05
    "share of the steps in which the learning rate rises"
    weight_decay: float = 0.01
    "decoupled weight decay of matrices"
    dropout: float = 0.0
    "of the transformer"
    steps: int | None = None
    "None: by the budget; without one, 40 passes over the data"
    held: float = 0.05
    "share of the recordings that is set aside to measure, where no --validation is given"


class Part:
    """A convolutional feature encoder and a transformer, trained to say what stands in masked frames."""

    name = "wav2vec"
    modalities: tuple[str, ...] = ("audio",)

    def __init__(self, options: Options) -> None:
        self.options = options

    def prepare(self, setting: Setting) -> Learner:
        from warmstart.engine import wav2vec_plan

        return wav2vec_plan.prepare(self.options, setting)
