"""Whether a run computes its frozen states in eight bits: only where the probe's score, measured with and without, does not fall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from warmstart.core.recipe import Recipe
from warmstart.core.report import Comparison
from warmstart.engine import int8, probe, statistics
from warmstart.engine.ladder import Ladder
from warmstart.engine.workbench import Workbench

ROWS = 1000
"""Training rows, and held-out rows, that a trial looks at."""

FEWEST = 100
"""Held-out rows below which nothing can be told."""

SHARE = 0.2
"""Of the time that is left, for the trial."""

LOSS = 0.005
"""What the probe may lose at most in the score of these rows."""


@dataclass(frozen=True)
class Trial:
    """Whether int8 is taken, and why, in one sentence."""

    taken: bool
    sentence: str


def decide(recipe: Recipe, ladder: Ladder) -> Trial | None:
    """Measure, or follow the plan, and leave the choice on the ladder's bench; None where int8 was not asked for."""
    if recipe.precision != "int8":
        return None
    recorded = recipe.plan.get("int8") or ladder.decided("int8", lambda: vars(_measure(recipe, ladder)))
    ladder.bench.int8 = recorded["taken"]
    return Trial(**recorded)


def _measure(recipe: Recipe, ladder: Ladder) -> Trial:
    bench, (train, held) = ladder.bench, ladder.splits[0]
    instead = str(bench.precision).removeprefix("torch.")
    if recipe.unlabelled is not None:
        return Trial(False, f"int8 was not taken but {instead}: it is not measured for a body that goes on with pre-training")
    if not int8.layers(bench.backbone.model):
        return Trial(False, f"int8 was not taken but {instead}: the body has no linear layers in its blocks")
    rate = bench.forward_seconds() * bench.mean_length
    n = min(ROWS, int(SHARE * ladder.left() / (4 * rate)))  # twice n rows, twice
    train, held = probe.subset(bench, train, n), probe.subset(bench, held, n)
    if len(held) < FEWEST:
        return Trial(False, f"int8 was not taken but {instead}: {FEWEST} held-out rows and the time for them are needed to measure it")
    scores = {name: _scores(bench, train, held, eight=name == "int8") for name in (instead, "int8")}
    metric = bench.task.main_metric
    return judge(
        statistics.compare("int8", instead, scores["int8"], scores[instead], clusters=None, seed=bench.seed, metric_name=metric),
        {name: float(found.mean()) for name, found in scores.items()},
    )


def judge(comparison: Comparison, scores: dict[str, float]) -> Trial:
    """Int8 is taken unless the probe loses more than ``LOSS``, or its interval lies below zero."""
    taken = comparison.difference >= -LOSS and comparison.high >= 0
    shown = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
    verb = "was taken" if taken else f"was not taken but {comparison.b}"
    return Trial(taken, f"int8 {verb}; probe on {comparison.n:,} held-out rows: {shown}; {comparison.sentence}")


def _scores(bench: Workbench, train: NDArray[np.int64], held: NDArray[np.int64], *, eight: bool) -> NDArray[np.float64]:
    """What a probe on states of one kind scores on each held row: (n,)."""
    before, bench.int8 = bench.int8, eight
    try:
        features = bench.pooled(np.concatenate([train, held]))  # (n, L + 1, D)
    finally:
        bench.int8 = before
    points, strength = probe.search(bench, features[: len(train)], bench.targets[train])
    found = probe.fit_on(bench, features[: len(train)], bench.targets[train], points=points, strengths=[strength])
    with torch.inference_mode():
        logits = found.head(features[len(train) :].to(bench.device)).cpu().numpy()
    return bench.task.scores(bench.task.probabilities(logits), bench.targets[held])
