"""Train a regularised linear head on frozen states, pooled at every layer; or the head of a structured task on states as they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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

    layers: str = "auto"
    "auto: chosen by cross-validation among the last, the upper half and all; else points such as 0,3,6 (0: the embeddings)"
    strength: float | None = None
    "L2 penalty relative to the mean loss; None: chosen by cross-validation"


class Part:
    """The probe."""

    name = "linear_probe"
    order = 20
    serve_cost = 1.0
    worth = 0

    def __init__(self, options: Options) -> None:
        self.options = options

    def points(self, n_points: int) -> tuple[int, ...] | None:
        """The points of the trunk to read, or None to let cross-validation choose."""
        from warmstart.core.errors import BadOption

        if self.options.layers == "auto":
            return None
        try:
            points = tuple(sorted({int(p) for p in self.options.layers.split(",")}))
        except ValueError:
            points = (-1,)
        if points[0] < 0 or points[-1] >= n_points:
            raise BadOption(
                f"linear_probe.layers = {self.options.layers!r}", f"auto, or numbers from 0 to {n_points - 1}", "correct the value"
            )
        return points

    def plan(self, bench: Workbench, *, train: NDArray[np.int64], held: NDArray[np.int64], seconds: float) -> Plan | None:
        from warmstart.engine import answers, linear, probe, structured, training
        from warmstart.engine.job import Plan

        if answers.is_structured(bench.task):
            return structured.plan(bench, train, held, seconds)

        def cost(n: int) -> float:
            states = training.prefix_seconds(bench, probe.subset(bench, train, n), None) + training.prefix_seconds(bench, held, None)
            size = min(n, 20_000) * bench.n_classes * bench.width * (bench.backbone.n_blocks + 1)
            return states + 0.3 + size * bench.measured.get("probe", 1e-8)

        most = min(len(train), linear.most_rows(bench.width * (bench.backbone.n_blocks + 1)))
        for n in dict.fromkeys([most, *(n for n in (5000, 2500, 1200, 600, 300) if n < most)]):
            predicted = cost(n)
            if predicted <= seconds:
                return Plan({"rows": n if n < len(train) else None}, predicted, shortened=n < most)  # None: a refit has more of them
        return None

    def fit(self, bench: Workbench, train: NDArray[np.int64], held: NDArray[np.int64], job: Job) -> Fitted:
        import time

        import numpy as np

        from warmstart.engine import answers, predictor, probe, structured
        from warmstart.engine.job import Fitted
        from warmstart.engine.network import Network

        if answers.is_structured(bench.task):
            return structured.probe(bench, train, held, job)
        train = probe.subset(bench, train, job.settings["rows"])
        features = bench.pooled(np.concatenate([train, held]))
        began = time.perf_counter()
        found = probe.fit(bench, train, points=self.points(features.shape[1]), strength=self.options.strength)
        size = min(len(train), 20_000) * bench.n_classes * features.shape[1] * features.shape[2]
        bench.measured["probe"] = (time.perf_counter() - began) / size
        held_logits = found.head(features[len(train) :].to(bench.device)).detach().cpu().numpy()
        network = Network(bench.backbone.model, found.head)
        trainable = found.head.weight.numel() + found.head.bias.numel()
        note = f"layers {','.join(map(str, found.points))}, strength {found.strength:.0e}, {len(train)} rows"
        return Fitted(predictor.of(bench, network), held_logits, trainable, note, dict(job.settings))


def load(folder: Path, *, modality: Modality, device: torch.device, precision: torch.dtype, max_length: int) -> Predictor:
    """The predictor that a fit of this strategy saved."""
    from warmstart.engine import predictor

    return predictor.load(folder, modality=modality, device=device, precision=precision, max_length=max_length)
