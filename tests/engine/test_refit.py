"""The model that is kept after a cross-validation: fitted on every labelled row, in the time that the climb left for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from warmstart.core import registry
from warmstart.engine import probe, rungs, sparse_linear, splits
from warmstart.engine.clock import Clock
from warmstart.engine.job import Plan
from warmstart.engine.ladder import GROWTH, REFIT, Ladder
from warmstart.engine.rungs import Candidate
from warmstart.engine.step import Step
from warmstart.engine.workbench import Workbench
from warmstart.testing import tiny_bench


@pytest.fixture
def ladder(tmp_path: Path) -> Ladder:
    bench = tiny_bench(tmp_path / "bench")
    ladder = Ladder(bench, splits.folds(bench.targets, None, seed=0)[:5], Clock(1000.0), tmp_path)
    bench.hint_rows = ladder.splits[0][0]
    return ladder


def test_a_probe_learns_from_all_rows(ladder: Ladder) -> None:
    step = ladder.climb("linear_probe", registry.create("strategies", "linear_probe"), seconds=900)
    assert step.folds == 5
    kept = ladder.refit(step).network.head
    every = np.arange(len(ladder.bench.inputs))
    assert torch.equal(kept.weight, probe.fit(ladder.bench, every).head.weight)
    assert not torch.equal(kept.weight, probe.fit(ladder.bench, ladder.splits[0][0]).head.weight)


def test_the_classic_rung_learns_from_all_rows(ladder: Ladder) -> None:
    step = ladder.climb("classic", registry.create("strategies", "classic"), seconds=900)
    kept, bench = ladder.refit(step), ladder.bench
    assert step.folds == 5
    features = bench.modality.featurizer({}).fit(bench.inputs)
    how = {"link": "softmax", "n_classes": bench.n_classes, "candidates": sparse_linear.CANDIDATES, "weights": None, "seed": bench.seed}
    np.testing.assert_array_equal(kept.model.weight, sparse_linear.fit(features, bench.targets, **how).weight)


def test_one_that_was_hurried_stays_so(ladder: Ladder) -> None:
    step = ladder.climb("linear_probe", registry.create("strategies", "linear_probe"), seconds=900)
    step.settings["rows"] = 40
    few = probe.subset(ladder.bench, np.arange(len(ladder.bench.inputs)), 40)
    assert torch.equal(ladder.refit(step).network.head.weight, probe.fit(ladder.bench, few).head.weight)


class Fixed:
    """A rung whose fit takes so many seconds, whatever it gets."""

    order, serve_cost, worth = 30, 1.0, 1

    def __init__(self, seconds: float, once: float = 0.0, rows: int | None = None) -> None:
        self.seconds, self.once, self.rows = seconds, once, rows

    def plan(self, bench: Workbench, *, train: np.ndarray, held: np.ndarray, seconds: float) -> Plan | None:
        each = self.seconds + self.once / bench.fits
        settings = {} if self.rows is None else {"rows": self.rows}
        return Plan(settings, each, shortened=bool(settings), once=self.once) if each <= seconds else None


def test_the_first_fit_has_the_time_that_all_of_them_share(ladder: Ladder) -> None:
    rung = Fixed(10.0, once=100.0)
    plan, folds = ladder._affordable(rung, 190.0) or (Plan({}, 0.0), 0)
    assert (plan.seconds, folds) == (30.0, 5)
    step = Step("rung", rung, {}, folds, plan.seconds * folds, once=plan.once)
    ladder.clock = Clock(160.0 + ladder.after)
    first, second = (ladder._allowance(step, fold) for fold in (0, 1))
    assert first == pytest.approx(10.0 * 1.05 + 100.0, abs=0.1)
    assert second == pytest.approx(GROWTH * 160.0 / (4 + REFIT), abs=0.1)


def test_a_refit_does_not_compute_again_what_is_stored(ladder: Ladder) -> None:
    """So no time is kept for it: one fit of ten seconds fits where it, its refit and a hundred seconds for all do."""
    rung = Fixed(10.0, once=100.0, rows=40)
    needed = 100.0 + 10.0 * (1 + REFIT)
    assert ladder._affordable(rung, needed - 1.0) is None
    assert ladder._affordable(rung, needed + 1.0) == (Plan({"rows": 40}, 110.0, shortened=True, once=100.0), 1)
    step = Step("rung", rung, {}, 1, 110.0, seconds=220.0, once=100.0)
    assert step.own == (10.0, 20.0)


def test_a_hurried_probe_reads_for_a_split_what_its_refit_needs(ladder: Ladder, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = ladder.bench
    part = registry.create("strategies", "linear_probe")
    monkeypatch.setattr(registry.module("strategies", "linear_probe"), "FEWER_ROWS", (40,))
    bench.measured |= {"forward": 0.01 / bench.mean_length, "probe": 1e-9}
    step = ladder.climb("linear_probe", part, seconds=1.4)
    assert (step.folds, step.settings["rows"]) == (1, 40)
    every = np.arange(len(bench.inputs))
    assert bench.lacking(every, None) > 0
    assert bench.lacking(probe.subset(bench, every, 40), None) == 0


def test_only_one_rung_is_refitted(ladder: Ladder) -> None:
    """So of two rungs only the dearer needs time for that, and a rung that is cheaper than one before it needs none."""

    def total(*seconds: float) -> float:
        return rungs.total(ladder, [Candidate(str(s), Fixed(s)) for s in seconds])

    assert total(2.0, 3.0) == pytest.approx(5 * 5.0 + REFIT * 3.0)
    ladder.dearest = 2.0
    assert total(2.0) == pytest.approx(10.0)
    assert total(3.0) == pytest.approx(15.0 + REFIT)
    for seconds, needed in ((2.0, 10.0), (3.0, 15.0 + REFIT)):
        assert ladder._affordable(Fixed(seconds), needed + 0.01) == (Plan({}, seconds), 5)
        assert ladder._affordable(Fixed(seconds), needed - 0.01) == (Plan({}, seconds), 1)
