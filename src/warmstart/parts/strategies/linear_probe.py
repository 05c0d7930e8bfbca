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


FEWER_ROWS = (5000, 4000, 3200, 2500, 2000, 1600, 1200, 1000, 800, 600, 450, 300)
"""What is read where there is no time for all."""


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
        import numpy as np

        from warmstart.engine import answers, linear, probe, structured, training
        from warmstart.engine.job import Plan

        if answers.is_structured(bench.task):
            return structured.plan(bench, train, held, seconds)

        n_points = bench.backbone.n_blocks + 1
        most = min(len(train), linear.most_rows(bench.width * n_points))
        for n in dict.fromkeys([most, *(n for n in FEWER_ROWS if n < most)]):
            read = np.concatenate([probe.subset(bench, train, n), held])
            once = training.prefix_seconds(bench, read, None) + probe.hint_seconds(bench, n)
            predicted = 0.3 + probe.seconds(bench, n, n_points=self._n_points(bench)) + once / bench.fits
            if predicted <= seconds:  # no rows in the settings: all, and a refit has more of them
                return Plan({"rows": n if n < len(train) else None}, predicted, shortened=n < most, once=once)
        return None

    def _n_points(self, bench: Workbench) -> int:
        """How many points the head reads, as far as that is known: at most all."""
        named = self.points(bench.backbone.n_blocks + 1)
        return len(named or (bench.hint or (range(bench.backbone.n_blocks + 1),))[0])

    def fit(self, bench: Workbench, train: NDArray[np.int64], held: NDArray[np.int64], job: Job) -> Fitted:
        import time

        import numpy as np

        from warmstart.engine import answers, predictor, probe, structured
        from warmstart.engine.job import Fitted
        from warmstart.engine.network import Network

        if answers.is_structured(bench.task):
            return structured.probe(bench, train, held, job)
        planned = probe.subset(bench, train, job.settings["rows"])
        train, settings = planned, dict(job.settings)
        if job.seed == 0:  # the first fit, which computes most states; later ones are given up where they would take too long
            train = probe.in_time(bench, planned, held, sizes=FEWER_ROWS, n_points=self._n_points(bench))
        if len(train) < len(planned):
            settings["rows"] = len(train)
        features = bench.pooled(np.concatenate([train, held]))
        predicted = probe.hint_seconds(bench, len(train)) + probe.seconds(bench, len(train), n_points=self._n_points(bench))
        began = time.perf_counter()
        found = probe.fit(bench, train, points=self.points(features.shape[1]), strength=self.options.strength)
        bench.measured["probe"] = bench.measured.get("probe", 1.0) * (time.perf_counter() - began) / predicted
        held_logits = found.head(features[len(train) :].to(bench.device)).detach().cpu().numpy()
        network = Network(bench.backbone.model, found.head)
        trainable = found.head.weight.numel() + found.head.bias.numel()
        note = f"layers {','.join(map(str, found.points))}, strength {found.strength:.0e}, {len(train)} rows"
        return Fitted(predictor.of(bench, network), held_logits, trainable, note, settings)


def load(folder: Path, *, modality: Modality, device: torch.device, precision: torch.dtype, max_length: int) -> Predictor:
    """The predictor that a fit of this strategy saved."""
    from warmstart.engine import predictor

    return predictor.load(folder, modality=modality, device=device, precision=precision, max_length=max_length)
