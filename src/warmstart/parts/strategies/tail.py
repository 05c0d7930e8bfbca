"""Train the last blocks of the body from a cut: everything below runs once per example, ever."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from warmstart.core.errors import BadOption

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from warmstart.core.protocols import Modality, Predictor
    from warmstart.engine.job import Fitted, Job, Plan
    from warmstart.engine.workbench import Workbench


MANY = 1000
"""Training rows from which all blocks move: on SST-2 six of six gave 88.7 in one epoch where four gave 87.5; with eight labels a
class of TREC four gave 75 where six gave 70."""


@dataclass(frozen=True)
class Options:
    """What can be set."""

    blocks: int | None = None
    "blocks to train, counted from the output; None: two thirds of them; the ladder tries one third, then two thirds or (many rows) all"
    head: Literal["pooled", "native"] = "pooled"
    "pooled: linear in the mean over tokens of the final state; native: the architecture's own, which transformers.pipeline opens"
    epochs: float | None = None
    "passes over the training rows; None: by their number and the budget"
    contrastive: int | None = None
    "steps of a supervised contrastive phase before the head is fitted; None: 40 where labels are few, unless more passes take its place"
    lr: float | None = None
    "peak learning rate of the blocks; None: 2e-4, but for a convolutional body far from home 1e-3, or 3e-3 if it has batch norms"
    head_lr: float = 1e-3
    "peak learning rate of the head"
    weight_decay: float = 0.01
    "decoupled weight decay of the blocks"
    smoothing: float = 0.0
    "label smoothing"


class Part:
    """The tail from a cut."""

    name = "tail"
    order = 30
    serve_cost = 1.0
    worth = 1

    def __init__(self, options: Options) -> None:
        self.options = options

    def variants(self, bench: Workbench) -> list[tuple[str, Part]]:
        """The rungs that the ladder climbs, by label: a short and a long tail, unless the number of blocks was given."""
        total = bench.backbone.n_blocks
        if self.options.blocks is not None or total < 3:
            return [(self.name, self)]
        many = len(bench.hint_rows) >= MANY
        longest = total if many else round(total * 2 / 3)
        short, long = (Part(replace(self.options, blocks=blocks)) for blocks in (max(1, round(total / 3)), longest))
        # With many rows the whole body gains most for its time; with few it has too much freedom.
        long.worth, short.worth = (4, 5) if many else (1, 3)
        return [(f"tail ({part.options.blocks} blocks)", part) for part in (short, long)]

    def point(self, bench: Workbench) -> int:
        """The cut: the number of frozen blocks."""
        total = bench.backbone.n_blocks
        blocks = self.options.blocks if self.options.blocks is not None else max(1, round(2 * total / 3))
        if total and not 1 <= blocks <= total:
            raise BadOption(f"tail.blocks = {blocks}", f"1 to {total}, the blocks of {bench.backbone.name}", "correct the value")
        return total - blocks

    def plan(self, bench: Workbench, *, train: NDArray[np.int64], held: NDArray[np.int64], seconds: float) -> Plan | None:
        from warmstart.core.errors import CutRefused
        from warmstart.engine import courses, finetune

        if bench.backbone.trunk is None:
            raise CutRefused("the body has no list of blocks to cut", "a body with a trunk", "use full")
        point = self.point(bench)
        bench.require_cut(point)
        wanted = courses.course(bench, self.options, point=point, n_train=len(train))
        return finetune.plan(bench, wanted, train=train, held=held, seconds=seconds)

    def fit(self, bench: Workbench, train: NDArray[np.int64], held: NDArray[np.int64], job: Job) -> Fitted:
        from warmstart.engine import finetune

        def groups(net: Any, lr: float) -> Any:
            blocks = finetune.blocks_from(net, job.settings["point"])
            return finetune.sequence(blocks, lr=lr, decay=1.0, weight_decay=self.options.weight_decay)

        return finetune.run(bench, train, held, job, prepare=finetune.nothing, groups=groups, finish=finetune.nothing)


def load(folder: Path, *, modality: Modality, device: torch.device, precision: torch.dtype, max_length: int) -> Predictor:
    """The predictor that a fit of this strategy saved."""
    from warmstart.engine import predictor

    return predictor.load(folder, modality=modality, device=device, precision=precision, max_length=max_length)
