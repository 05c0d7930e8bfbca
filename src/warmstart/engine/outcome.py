"""The predictions that the final numbers rest on: on test rows by the model as saved, else out of fold; and what is drawn from them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from warmstart.core.protocols import Input
from warmstart.core.report import ErrorCase, Metric, ReliabilityBin
from warmstart.engine import answers, calibration, class_scores, metrics, review
from warmstart.engine.choice import Scored
from warmstart.engine.dataset import Dataset
from warmstart.engine.model import Model
from warmstart.engine.workbench import Workbench


@dataclass(frozen=True)
class Outcome:
    """``probabilities (N, C)`` of ``values``, each a different example, and the truth; ``rows`` are their numbers in the source. Of a
    structured task they are compact answers.

    ``own`` are their positions among the training rows, where they are training rows; ``seconds`` is how long answering took.
    """

    name: str
    values: list[Input]
    probabilities: NDArray[np.float64]
    targets: NDArray[Any]
    truths: list[str]
    rows: list[int]
    own: NDArray[np.int64] | None = None
    seconds: float = 0.0


def on_test(
    model: Model,
    values: list[Input],
    targets: NDArray[Any],
    raw: Sequence[Any],
    rows: list[int],
    *,
    name: str = "test rows",
    quiet: bool = True,
) -> Outcome:
    """What a model says of rows that played no part in making it."""
    began = time.perf_counter()
    found = model.probabilities(values, quiet=quiet)
    return Outcome(name, values, found, targets, [_shown(v) for v in raw], rows, seconds=time.perf_counter() - began)


def out_of_fold(chosen: Scored, rows: Dataset) -> Outcome:
    """Cross-validated predictions of the chosen rung, averaged over repeats; slightly hopeful, as the rung was chosen by them."""
    assert chosen.step.logits is not None and rows.train.targets is not None  # noqa: S101, PT018 - a chosen step was climbed
    if answers.is_structured(rows.task):
        seen, first = np.unique(chosen.rows, return_index=True)
        return _of_rows(rows, seen, chosen.step.logits[first])  # of an example that was held out repeatedly, the first
    scaled = calibration.apply_temperature(chosen.step.logits, chosen.temperature).astype(np.float32)
    found = rows.task.probabilities(scaled)
    seen, where, counts = np.unique(chosen.rows, return_inverse=True, return_counts=True)
    mean = np.zeros((len(seen), found.shape[1]))
    np.add.at(mean, where, found)
    return _of_rows(rows, seen, mean / counts[:, None])


def _of_rows(rows: Dataset, seen: NDArray[np.int64], found: NDArray[Any]) -> Outcome:
    assert rows.train.targets is not None  # noqa: S101 - labelled rows were asked for
    return Outcome(
        "cross-validated training rows",
        [rows.train.inputs[i] for i in seen],
        found,
        rows.targets[seen],
        [_shown(rows.train.targets[i]) for i in seen],
        [rows.train.rows[i] for i in seen],
        seen,
    )


def drawings(outcome: Outcome, model: Model) -> dict[str, Any]:
    """Confusion matrix, reliability and classes, or what a structured task has of confusions and curves, as fields of the report."""
    labels, task = model.labels, model.task
    if answers.is_structured(task):
        found: dict[str, Any] = {}
        if hasattr(task, "curves"):
            found["curves"] = task.curves(outcome.probabilities, outcome.targets, labels)
        if hasattr(task, "confusion"):
            found["confusion_labels"], found["confusion"] = task.confusion(outcome.probabilities, outcome.targets, labels)
        return found
    matrix: list[list[int]] = []
    if outcome.targets.ndim == 1:
        matrix = metrics.confusion(outcome.probabilities, outcome.targets, len(labels)).tolist()
    reliability: list[ReliabilityBin] = metrics.reliability(outcome.probabilities, outcome.targets)
    classes = class_scores.by_class(outcome.probabilities, outcome.targets, labels, threshold=getattr(task, "threshold", 0.5))
    return {
        "confusion_labels": list(labels) if matrix else [],
        "confusion": matrix,
        "reliability": reliability,
        "classes": classes,
        "curves": class_scores.curves(outcome.probabilities, outcome.targets, classes, labels),
    }


def errors(outcome: Outcome, model: Model, bench: Workbench | None, names: Sequence[str] = ()) -> list[ErrorCase]:
    """The most confident mistakes; with a bench, each with its nearest training examples (never itself)."""
    if answers.is_structured(model.task):
        return review.structured_errors(model.task, model.modality, model.labels, outcome)
    cases = review.errors(
        outcome.values,
        outcome.probabilities,
        outcome.targets,
        labels=model.labels,
        rows=outcome.rows,
        modality=model.modality,
        truths=outcome.truths,
        task=model.task,
    )
    if bench is None:
        return [case for _, case in cases]
    values = [outcome.values[i] for i, _ in cases]
    own = None if outcome.own is None else outcome.own[[i for i, _ in cases]]
    near = review.neighbours(bench, values, names, own=own)
    return [replace(case, neighbours=found) for (_, case), found in zip(cases, near, strict=True)]


def measure(outcome: Outcome, model: Model, seed: int) -> dict[str, Metric]:
    """Every metric of the task with its interval."""
    found = model.task.metrics(outcome.probabilities, outcome.targets, seed=seed)
    by_class = getattr(model.task, "by_class", None)
    if by_class is not None:
        found |= by_class(outcome.probabilities, outcome.targets, model.labels, seed=seed)
    speed = getattr(model.task, "speed", None)
    return found | speed(outcome.seconds, outcome.values) if speed is not None and outcome.seconds else found


def _shown(raw: Any) -> str:
    return " | ".join(map(str, raw)) if isinstance(raw, list | tuple | set | np.ndarray) else str(raw)
