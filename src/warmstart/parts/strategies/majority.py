"""Predict every class as often as it occurs: the floor below which nothing has been learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from warmstart.core.protocols import Input, Modality
    from warmstart.engine.job import Fitted, Job, Plan
    from warmstart.engine.workbench import Workbench

FILE = "majority.safetensors"


@dataclass(frozen=True)
class Options:
    """The majority has no options."""


@dataclass(frozen=True)
class MajorityPredictor:
    """The same ``row (C,)`` of logits for every input; of a structured task, the same answer in compact form."""

    row: NDArray[np.float32]
    structured: bool = False

    def logits(self, values: Sequence[Input], *, quiet: bool = True) -> NDArray[np.float32]:
        """(N, C)."""
        return self.rows(len(values))

    def rows(self, n: int) -> NDArray[np.float32]:
        """The answer for ``n`` inputs."""
        return np.tile(self.row, (n, *[1] * self.row.ndim))

    def save(self, folder: Path, *, labels: Sequence[str], temperature: float) -> None:
        """Write ``majority.safetensors``."""
        from warmstart.engine import store

        store.write_tensors(folder / FILE, {"row": self.row if self.structured else self.row / np.float32(temperature)})


class Part:
    """Frequencies of the classes."""

    name = "majority"
    order = 0
    serve_cost = 0.0
    worth = 0

    def __init__(self, options: Options) -> None:
        self.options = options

    def plan(self, bench: Workbench, *, train: NDArray[np.int64], held: NDArray[np.int64], seconds: float) -> Plan | None:
        from warmstart.engine.job import Plan

        return Plan({}, 0.0)

    def fit(self, bench: Workbench, train: NDArray[np.int64], held: NDArray[np.int64], job: Job) -> Fitted:
        """Log frequencies, with one more of each class than was seen (Laplace), so that none is impossible."""
        from warmstart.engine import answers
        from warmstart.engine.job import Fitted

        targets = bench.targets[train]
        if answers.is_structured(bench.task):
            constant = MajorityPredictor(answers.structured(bench.task).constant(list(targets)), structured=True)
            return Fitted(constant, constant.rows(len(held)), 0)
        if bench.task.link == "softmax":
            row = np.log((np.bincount(targets, minlength=bench.n_classes) + 1) / (len(train) + bench.n_classes))
        else:
            there = targets.sum(0)
            row = np.log((there + 1) / (len(train) - there + 1))
        predictor = MajorityPredictor(row.astype(np.float32))
        return Fitted(predictor, np.tile(predictor.row, (len(held), 1)), bench.n_classes)


def load(folder: Path, *, modality: Modality, device: torch.device, precision: torch.dtype, max_length: int) -> MajorityPredictor:
    """The predictor that a fit of this strategy saved."""
    from warmstart.engine import store

    return MajorityPredictor(store.read_tensors(folder / FILE)["row"].numpy())
