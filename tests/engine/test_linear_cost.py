"""Predicted times of linear fits: what they count is what the fits do."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from warmstart.core import registry
from warmstart.engine import linear, linear_cost, linear_solver, probe, splits
from warmstart.engine.job import Job, Pace
from warmstart.testing import tiny_bench


@pytest.mark.parametrize("n_classes", [2, 12])
@pytest.mark.parametrize("n", [48, 600])
def test_a_fit_needs_about_as_many_steps_as_are_counted(n: int, n_classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()
    for owner, name in ((linear_solver.Problem, "gradient"), (linear_solver, "minimise")):
        plain = getattr(owner, name)

        def counted(*args: Any, plain: Any = plain, name: str = name, **kwargs: Any) -> Any:
            calls[name] += 1
            return plain(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)
    generator = torch.Generator().manual_seed(0)
    targets = np.arange(n) % n_classes
    centres = 0.5 * torch.randn(n_classes, 96, generator=generator)
    states = centres[torch.from_numpy(targets)] + torch.randn(n, 8, generator=generator) @ torch.randn(8, 96, generator=generator)
    folds = splits.stratified(targets, 3, seed=0)
    linear.cross_validate(states, targets, link="softmax", n_classes=n_classes, folds=folds)
    assert linear_solver.STEPS / 2.5 < calls["gradient"] / calls["minimise"] < linear_solver.STEPS * 2.5


def test_seconds_follow_rows_classes_folds_and_the_machine() -> None:
    size: dict[str, Any] = {"n_features": 400, "n_classes": 50, "rate": 1e9}
    few, many = (linear_cost.seconds(n, **size) - linear_cost.FIXED for n in (4_000, 8_000))
    assert many / few == pytest.approx(2, rel=0.06)  # more rows than features: the features span the problem
    once, folded = (linear_cost.seconds(4_000, folds=folds, **size) for folds in (1, 10))
    assert 5 < folded / once < 10
    assert linear_cost.seconds(4_000, **size | {"rate": 1e10}) - linear_cost.FIXED == pytest.approx(few / 10)
    assert linear_cost.measured_rate(torch.device("cpu")) > 1e8


def test_a_probe_that_took_longer_than_predicted_is_predicted_to_take_so_again(tmp_path: Path) -> None:
    bench = tiny_bench(tmp_path)
    train, held = np.arange(72), np.arange(72, 96)
    bench.hint_rows = train
    part = registry.create("strategies", "linear_probe")
    before = part.plan(bench, train=train, held=held, seconds=math.inf)
    assert before.once > probe.hint_seconds(bench, len(train)) > 0  # states, and the wide search
    part.fit(bench, train, held, Job("fold0", before.settings, 0, Pace(math.inf)))
    after = part.plan(bench, train=train, held=held, seconds=math.inf)
    assert after.once == 0
    correction = bench.measured["probe"]
    bench.measured["probe"] = 2 * correction
    dearer = part.plan(bench, train=train, held=held, seconds=math.inf)
    assert dearer.seconds - after.seconds == pytest.approx(after.seconds - 0.3)


@pytest.mark.parametrize("name", ["linear_probe", "tail", "full"])
def test_what_the_first_fit_stores_is_paid_for_once(name: str, tmp_path: Path) -> None:
    bench = tiny_bench(tmp_path)
    train, held = np.arange(72), np.arange(72, 96)
    bench.hint_rows = train
    bench.measured |= {"forward": 0.1 / bench.mean_length, "training": 3.0}
    part = registry.create("strategies", name)
    alone = part.plan(bench, train=train, held=held, seconds=math.inf)
    assert alone.once > 5.0
    bench.fits = 4
    shared = part.plan(bench, train=train, held=held, seconds=math.inf)
    assert shared.once == alone.once
    assert shared.seconds == pytest.approx(alone.seconds - 0.75 * alone.once)
    assert part.plan(bench, train=train, held=held, seconds=shared.seconds * 1.001).settings == alone.settings
    bench.pooled(np.arange(96))
    if name == "tail":
        bench.prepare(np.arange(96), alone.settings["point"])
    bench.hint = ((3,), 1e-2)
    assert part.plan(bench, train=train, held=held, seconds=math.inf).once == 0
