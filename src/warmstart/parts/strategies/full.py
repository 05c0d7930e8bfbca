"""Train everything; with ``decay`` below 1 the learning rate shrinks from the output down to the embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from warmstart.core.protocols import Modality, Predictor
    from warmstart.engine.job import Fitted, Job, Plan
    from warmstart.engine.workbench import Workbench


@dataclass(frozen=True)
class Options:
    """What can be set."""

    head: Literal["pooled", "native"] = "pooled"
    "pooled: linear in the mean over tokens of the final state; native: the architecture's own, which transformers.pipeline opens"
    epochs: float | None = None
    "passes over the training rows; None: by their number and the budget"
    contrastive: int | None = None
    "steps of a supervised contrastive phase before the head is fitted; None: 40 where labels are few, unless more passes take its place"
    lr: float | None = None
    "peak learning rate of the last block; None: 2e-4, but for a convolutional body far from home 1e-3, or 3e-3 if it has batch norms"
    decay: float = 1.0
    "factor on the learning rate from each block to the one below it"
    head_lr: float = 1e-3
    "peak learning rate of the head"
    weight_decay: float = 0.01
    "decoupled weight decay of the body"
    smoothing: float = 0.0
    "label smoothing"


class Part:
    """The whole body."""

    name = "full"
    order = 50
    serve_cost = 1.0
    worth = 2

    def __init__(self, options: Options) -> None:
        self.options = options

    def plan(self, bench: Workbench, *, train: NDArray[np.int64], held: NDArray[np.int64], seconds: float) -> Plan | None:
        from warmstart.engine import courses, finetune

        wanted = courses.course(bench, self.options, point=0, n_train=len(train))
        return finetune.plan(bench, wanted, train=train, held=held, seconds=seconds, cost=1.15)

    def fit(self, bench: Workbench, train: NDArray[np.int64], held: NDArray[np.int64], job: Job) -> Fitted:
        from warmstart.engine import finetune

        def groups(net: Any, lr: float) -> Any:
            return finetune.whole_body(net, lr=lr, decay=self.options.decay, weight_decay=self.options.weight_decay)

        return finetune.run(bench, train, held, job, prepare=finetune.nothing, groups=groups, finish=finetune.nothing)


def load(folder: Path, *, modality: Modality, device: torch.device, precision: torch.dtype, max_length: int) -> Predictor:
    """The predictor that a fit of this strategy saved."""
    from warmstart.engine import predictor

    return predictor.load(folder, modality=modality, device=device, precision=precision, max_length=max_length)
