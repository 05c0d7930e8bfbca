"""Labels at hand: a convolutional network on labelled images or sound, or an encoder on labelled text; the body is kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from warmstart.core.protocols import Learner
    from warmstart.engine.learner import Setting


@dataclass(frozen=True)
class Options:
    """What can be set; None: by the size, the budget and the data."""

    family: str = "convnet"
    "network for images: convnet, small_resnet, vgg, a model type of transformers (resnet, convnext, mobilenet_v2, vit, ...), or keras:NAME"
    width: int | None = None
    "channels of the first stage; in per cent of the default for transformers and keras:NAME; for sound and text features of a state"
    depth: int | None = None
    "convolutions or blocks of each stage, layers of vgg; in per cent of the default for transformers; for sound and text layers"
    norm: Literal["batch", "group"] = "batch"
    "normalisation of convnet, small_resnet and vgg; batch statistics are those of each process's share"
    config: str | None = None
    "JSON of values for the network's configuration"
    pixels: int | None = None
    "side of the images; None: as they are up to 64, else 64, and no less than a network of Keras takes"
    augment: Literal["none", "light", "strong"] = "light"
    "light: images shifted and mirrored, sound at other speeds; strong: also colours and a square cut out, other voices, echo, noise"
    flip: float | None = None
    "chance of a mirror image; None: 0.5, and 0 for grey images"
    mixup: float = 0.0
    "mix-up with Beta(x, x); 0: none"
    smoothing: float = 0.1
    "label smoothing"
    batch: int | None = None
    "rows of a step, over all processes; None: 128 images, 64 recordings, 32 texts"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    "sgd: with momentum 0.9"
    lr: float | None = None
    "peak learning rate; None: images and sound 3e-3 (sgd 0.1), texts 1e-3, with --from a tenth, texts 5e-5"
    weight_decay: float = 0.05
    "of kernels and matrices; decoupled with adamw; with sgd 5e-4 is usual"
    warmup: float = 0.25
    "share of the steps in which the learning rate rises, before it falls to zero (one cycle)"
    steps: int | None = None
    "None: by the budget; without one 12, 30 or 60 passes over the data by size"
    vocabulary: int = 8000
    "entries of the WordPiece vocabulary that is trained on labelled text, where no --from is given"
    max_length: int = 128
    "longest text in tokens; the rest is cut off"
    seconds: float = 3.0
    "longest stretch of a recording that a step sees; of a longer one it is drawn anew each time"


class Part:
    """Cross entropy with a linear head, which is thrown away."""

    name = "supervised"
    modalities: tuple[str, ...] = ("image", "text", "audio")

    def __init__(self, options: Options) -> None:
        self.options = options

    def prepare(self, setting: Setting) -> Learner:
        """Read the labelled data, and build what the size or the budget asks for."""
        from warmstart.engine import streamed

        return streamed.supervised(self.options, setting)
