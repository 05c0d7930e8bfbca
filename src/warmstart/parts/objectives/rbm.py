"""Restricted Boltzmann machines, stacked into a deep belief network and unrolled into a deep autoencoder (Hinton & Salakhutdinov 2006)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from warmstart.core.protocols import Learner
    from warmstart.engine.learner import Setting


@dataclass(frozen=True)
class Options:
    """What can be set. None: by the dial, ``--size`` or ``--budget``."""

    hidden: str | None = None
    "hidden units of each layer, from the images up, e.g. 1000,500,250; None: 256 (tiny), 500,250 (small), 1000,500,250 (base)"
    linear_code: bool = False
    "Gaussian units in the highest layer, which make a linear code (as the 30 units of Hinton & Salakhutdinov 2006)"
    visible: Literal["auto", "bernoulli", "gaussian"] = "auto"
    "units for the pixels; auto: bernoulli for grey images and numbers from 0 to 1, else gaussian on standardised channels"
    k: int = 1
    "Gibbs steps of contrastive divergence"
    persistent: bool = False
    "chains go on from step to step (Tieleman 2008) in place of beginning at the data"
    chains: int | None = None
    "how many chains persist; None: as many as images in a step"
    lr: float | None = None
    "learning rate of the machines; None: 0.05, a tenth of it for layers with Gaussian units"
    momentum: float = 0.5
    "share of the last update that is added to the next"
    weight_decay: float = 0.0002
    "pull of the weights to zero"
    sparsity: float | None = None
    "wanted mean activity of a hidden unit, e.g. 0.1; None: any"
    sparsity_cost: float = 0.1
    "how much a distance from it counts"
    batch: int = 64
    "images of a step, over all processes"
    sweep: int = 10
    "steps of a layer that are taken at once, as one step of the training loop; 1 where several processes share the work"
    steps: int | None = None
    "steps of each layer; 0 gives the body with random weights"
    cooldown: float = 0.2
    "share of the steps of a layer, at the end, over which the learning rate falls to zero"
    unroll: bool | None = None
    "fine-tune all layers as an autoencoder at the end; None: where there are two or more"
    finetune_steps: int | None = None
    "steps of that"
    finetune_lr: float = 0.001
    "its peak learning rate (AdamW)"
    side: int | None = None
    "side in pixels that images are resized to; None: as they are up to 64"


class Part:
    """Contrastive divergence layer by layer; the body is a perceptron with sigmoid units."""

    name = "rbm"
    modalities = ("image",)

    def __init__(self, options: Options) -> None:
        self.options = options

    def prepare(self, setting: Setting) -> Learner:
        """See ``Objective.prepare``."""
        from warmstart.engine import dbn_learner

        return dbn_learner.prepare(self.options, setting)
