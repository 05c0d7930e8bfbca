"""Two views of one thing belong together: SimCLR for images, SimCSE for text; needs no labels."""

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
    "channels of the first stage; in per cent of the default for transformers and keras:NAME; for text features of a token"
    depth: int | None = None
    "convolutions or blocks of each stage, layers of vgg; in per cent of the default for transformers; for text layers"
    norm: Literal["batch", "group"] = "batch"
    "normalisation of convnet, small_resnet and vgg; batch statistics are those of each process's share"
    config: str | None = None
    "JSON of values for the network's configuration"
    pixels: int | None = None
    "side of the images; None: as they are up to 64, else 64, and no less than a network of Keras takes"
    crop: float = 0.2
    "least share of an image's area that a view shows"
    features: int = 128
    "outputs of the projection, which stands between an image body and the loss and is thrown away"
    temperature: float | None = None
    "None: 0.5 for images, 0.05 for texts"
    dropout: float | None = None
    "for text: what makes two views of one; None: as the body has it, else 0.1"
    batch: int | None = None
    "images or texts of a step, over all processes; None: 256 images, 64 texts"
    optimizer: Literal["adamw", "sgd"] = "adamw"
    "sgd: with momentum 0.9"
    lr: float | None = None
    "peak learning rate; None: images 3e-3 (sgd 0.1), texts 1e-3, with --from a tenth, texts 3e-5"
    weight_decay: float = 0.05
    "of kernels and matrices; decoupled with adamw; with sgd 5e-4 is usual"
    warmup: float = 0.1
    "share of the steps in which the learning rate rises, before it falls to zero"
    steps: int | None = None
    "None: by the budget; without one 30, 60 or 100 passes over images by size, and one pass over texts"
    vocabulary: int = 8000
    "entries of the WordPiece vocabulary that is trained on the text, where no --from is given"
    max_length: int = 64
    "longest text in tokens; the rest is cut off"


class Part:
    """Contrastive learning over all processes' batches."""

    name = "contrastive"
    modalities: tuple[str, ...] = ("image", "text")

    def __init__(self, options: Options) -> None:
        self.options = options

    def prepare(self, setting: Setting) -> Learner:
        """Read the images or texts, and build what the size or the budget asks for."""
        from warmstart.engine import streamed

        return streamed.contrastive(self.options, setting)
