"""Reproduce images from a code, from a noisy copy, or from a few of their patches (dense, convolutional, masked autoencoders)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from warmstart.core.protocols import Learner
    from warmstart.engine.learner import Setting


@dataclass(frozen=True)
class Options:
    """What can be set. None: by the dial, ``--size`` or ``--budget``."""

    architecture: Literal["auto", "dense", "convolutional", "masked"] = "auto"
    "dense layers, convolutions, or a vision transformer that sees a part of the patches; auto: convolutional, dense for vectors"
    hidden: str | None = None
    "units of the dense layers, or channels of the stages, from the images up, e.g. 512,256,64"
    activation: Literal["relu", "gelu", "tanh", "sigmoid"] | None = None
    "of dense layers; None: relu, or sigmoid where the code shall be sparse"
    norm: Literal["batch", "group", "none"] = "batch"
    "after convolutions; batch: each process has its own statistics"
    loss: Literal["auto", "squared", "cross_entropy"] = "auto"
    "squared: mean (x - g(f(x)))^2 over the pixels; cross_entropy: pixels as probabilities; auto: that for grey images in dense layers"
    noise: Literal["none", "masking", "salt", "gaussian"] = "none"
    "what is done to the images that go in (Vincent et al. 2008): pixels set to 0, to 0 or 1, or noise added"
    noise_amount: float = 0.3
    "share of the pixels, or deviation of the noise where a pixel goes from 0 to 1"
    sparsity: float | None = None
    "wanted mean activity of the units of a dense sigmoid code, e.g. 0.05; None: any"
    sparsity_cost: float = 0.01
    "weight of the Kullback-Leibler distance from it"
    contraction: float = 0.0
    "weight of the squared slope of the code (Rifai et al. 2011): exact for one sigmoid layer, else estimated with one random direction"
    width: int | None = None
    "masked: features of a patch"
    depth: int | None = None
    "masked: blocks of the encoder"
    patch: int | None = None
    "masked: side of a patch in pixels; None: the largest that leaves seven in a row"
    masked: float = 0.75
    "masked: share of the patches that is hidden"
    batch: int = 128
    "images of a step, over all processes"
    lr: float | None = None
    "peak learning rate of AdamW; None: 0.001"
    weight_decay: float = 0.0
    "decoupled weight decay"
    cooldown: float = 0.3
    "share of the steps, at the end, over which the learning rate falls to zero"
    steps: int | None = None
    "steps of training; 0 gives the body with random weights"
    side: int | None = None
    "side in pixels that images are resized to; None: as they are up to 64"


class Part:
    """Reconstruction; the body is the encoder: a perceptron, a small convolutional network, or a ViT of transformers."""

    name = "autoencoder"
    modalities = ("image",)

    def __init__(self, options: Options) -> None:
        self.options = options

    def prepare(self, setting: Setting) -> Learner:
        """See ``Objective.prepare``."""
        from warmstart.engine import autoencoder_learner

        return autoencoder_learner.prepare(self.options, setting)
