"""Train a tuned linear model on hand-made features, with no pre-trained body: what pre-training has to beat."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from warmstart.core.protocols import Featurizer, Input, Modality, Predictor
    from warmstart.engine.job import Fitted, Job, Plan
    from warmstart.engine.sparse_linear import Tuned
    from warmstart.engine.workbench import Workbench

FILE = "classic.safetensors"
STRUCTURED = "classic.json"
"""Names the structured task that knows how to load its model."""
SAMPLE_ROWS = 300
"""Rows on which the rates behind a prediction of cost are measured."""
PREDICT_ROWS = 8_192


@dataclass(frozen=True)
class Options:
    """What can be set."""

    c: float | None = None
    "C of the linear model (larger: less regularised); None: chosen on held-out rows"


@dataclass(frozen=True)
class ClassicPredictor:
    """Fitted features and a linear model on them."""

    featurizer: Featurizer
    model: Tuned

    def logits(self, values: Sequence[Input], *, quiet: bool = True) -> NDArray[np.float32]:
        """(N, C), in bounded memory."""
        chunks = (values[i : i + PREDICT_ROWS] for i in range(0, len(values), PREDICT_ROWS))
        found = [self.model.logits(self.featurizer.transform(chunk)) for chunk in chunks]
        return np.concatenate(found) if found else np.empty((0, len(self.model.bias)), np.float32)

    def save(self, folder: Path, *, labels: Sequence[str], temperature: float) -> None:
        """Write ``classic.safetensors``, and what the features need."""
        from warmstart.engine import store

        self.featurizer.save(folder)
        divisor = np.float32(temperature)
        tensors = {"weight": self.model.weight / divisor, "bias": self.model.bias / divisor, "c": np.array([self.model.c])}
        store.write_tensors(folder / FILE, tensors)


class Part:
    """Hand-made features and a linear model: a support vector machine on sparse ones, logistic regression on dense ones."""

    name = "classic"
    order = 10
    serve_cost = 0.05
    worth = 0

    def __init__(self, options: Options) -> None:
        self.options = options

    def plan(self, bench: Workbench, *, train: NDArray[np.int64], held: NDArray[np.int64], seconds: float) -> Plan | None:
        """All rows, or as many as there is time for.

        Raises:
            CutRefused: A structured task that has no model without a body.
        """
        from warmstart.core.errors import CutRefused
        from warmstart.engine import answers
        from warmstart.engine.job import Plan

        if answers.is_structured(bench.task):
            if not hasattr(bench.task, "plan_classic"):
                raise CutRefused(f"{bench.task.name} has no classic model without a pre-trained body", do="name one: --backbone FOLDER")
            found: Plan | None = bench.task.plan_classic(bench, train, seconds)
            return found
        for n in dict.fromkeys([len(train), *(n for n in (20_000, 5_000, 1_000, 200) if n < len(train))]):
            predicted = self._seconds(bench, n, len(held))
            if predicted <= seconds:
                return Plan({"rows": n if n < len(train) else None}, predicted, shortened=n < len(train))  # None: a refit has more of them
        return None

    def fit(self, bench: Workbench, train: NDArray[np.int64], held: NDArray[np.int64], job: Job) -> Fitted:
        from warmstart.engine import answers, dense_linear, probe, sparse_linear
        from warmstart.engine.job import Fitted

        if answers.is_structured(bench.task):
            task: Any = bench.task
            fitted: Fitted = task.fit_classic(bench, train, held, job)
            return fitted
        rows = probe.subset(bench, train, job.settings["rows"])
        featurizer = bench.modality.featurizer({})
        features = featurizer.fit([bench.inputs[int(i)] for i in rows])
        how: Any = {"link": bench.task.link, "n_classes": bench.n_classes, "weights": bench.balance.of(rows), "seed": bench.seed}
        if isinstance(features, np.ndarray):
            model = dense_linear.fit(features, bench.targets[rows], c=self.options.c, **how)
        else:
            candidates = sparse_linear.CANDIDATES if self.options.c is None else (self.options.c,)
            model = sparse_linear.fit(features, bench.targets[rows], candidates=candidates, **how)
        predictor = ClassicPredictor(featurizer, model)
        held_logits = predictor.logits([bench.inputs[int(i)] for i in held])
        note = f"C {model.c:g}, {features.shape[1]:,} features, {len(rows):,} rows"
        return Fitted(predictor, held_logits, model.weight.size + model.bias.size, note, dict(job.settings))

    def _seconds(self, bench: Workbench, n_train: int, n_held: int) -> float:
        """Rows times the measured cost of their features, and rows seen by all fits times classes times the measured cost of solving."""
        from warmstart.engine import dense_linear, sparse_linear

        if "classic_features" not in bench.measured:
            _measure(bench)
        if "classic_rate" in bench.measured:
            size, tuned = int(bench.measured["classic_width"]), self.options.c is not None
            rate = bench.measured["classic_rate"]
            solved = dense_linear.seconds(n_train, n_features=size, n_classes=bench.n_classes, tuned=tuned, rate=rate)
            return (n_train + n_held) * bench.measured["classic_features"] + solved
        fitted = sparse_linear.rows_fitted(n_train, len(sparse_linear.CANDIDATES) if self.options.c is None else 1)
        features = (n_train + n_held) * bench.measured["classic_features"]
        return features + fitted * bench.n_classes * bench.measured["classic_solve"]


def load(folder: Path, *, modality: Modality, device: torch.device, precision: torch.dtype, max_length: int) -> Predictor:
    """The predictor that a fit of this strategy saved."""
    from warmstart.core import registry
    from warmstart.engine import store
    from warmstart.engine.sparse_linear import Tuned

    if task := store.read_object(folder / STRUCTURED).get("task"):
        found: Predictor = registry.create("tasks", task).load_classic(folder)
        return found

    tensors = store.read_tensors(folder / FILE)
    model = Tuned(tensors["weight"].numpy(), tensors["bias"].numpy(), float(tensors["c"]))
    return ClassicPredictor(modality.load_featurizer(folder), model)


def _measure(bench: Workbench) -> None:
    """Seconds per row of making features, and per row and class of one fit, on a few rows."""
    import torch

    from warmstart.engine import linear_cost, sparse_linear

    rows = np.random.default_rng(bench.seed).permutation(len(bench.inputs))[:SAMPLE_ROWS]
    for sample in (rows[:2], rows):  # the first pays for imports
        began = time.perf_counter()
        features = bench.modality.featurizer({}).fit([bench.inputs[int(i)] for i in sample])
        featured = time.perf_counter()
        if isinstance(features, np.ndarray):
            bench.measured |= {"classic_rate": linear_cost.measured_rate(torch.device("cpu")), "classic_width": features.shape[1]}
            continue
        sparse_linear.margins(features, bench.targets[sample], link=bench.task.link, n_classes=bench.n_classes, c=1.0, seed=bench.seed)
        solved = time.perf_counter()
    bench.measured["classic_features"] = (featured - began) / len(rows)
    if "classic_rate" not in bench.measured:
        bench.measured["classic_solve"] = (solved - featured) / (len(rows) * bench.n_classes)
