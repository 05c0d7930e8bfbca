"""How a budget that is too short for everything is shared between the rungs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from warmstart.core import registry
from warmstart.engine import splits
from warmstart.engine.clock import Clock
from warmstart.engine.ladder import Ladder
from warmstart.engine.rungs import Candidate
from warmstart.stages import adapt
from warmstart.testing import tiny_bench


@pytest.mark.parametrize("few", [True, False])
def test_a_probe_is_hurried_for_rungs_that_can_follow_alone(few: bool, tmp_path: Path) -> None:
    """A tenth of a second a row: of ``full`` the shortest course takes over two minutes a fit, the whole one a quarter of an hour."""
    bench = tiny_bench(tmp_path / "bench")
    bench.measured |= {"forward": 0.1 / bench.mean_length, "probe": 1e-9}
    probe, full = (Candidate(name, registry.create("strategies", name)) for name in ("linear_probe", "full"))
    found = {}
    for budget in (150.0, 700.0, 20_000.0):
        ladder = Ladder(bench, splits.folds(bench.targets, None, seed=0)[:5], Clock(budget), tmp_path)
        decided = adapt._afford(ladder, [probe], [full], few=few)
        assert decided["kept"] == ["full"]
        found[budget] = decided["starved"]
    assert found == {150.0: False, 700.0: True, 20_000.0: False}


def test_what_was_given_up_is_climbed_in_full_or_not_at_all_where_another_had_its_time(tmp_path: Path) -> None:
    bench = tiny_bench(tmp_path / "bench")
    bench.measured |= {"forward": 0.1 / bench.mean_length, "probe": 1e-9}
    tail, full = (Candidate(name, registry.create("strategies", name)) for name in ("tail", "full"))
    ladder = Ladder(bench, splits.folds(bench.targets, None, seed=0)[:5], Clock(1700.0), tmp_path)
    bench.hint_rows = ladder.splits[0][0]
    above = adapt._climb_movers(ladder, [tail, full], [tail])
    assert [step.folds for step in above] == [5, 0]
    assert "does not fit in full" in above[1].note
    ladder.folder = tmp_path / "alone"
    alone = adapt._climb_movers(ladder, [full], [])[0]
    assert alone.folds == 5  # on one split, as there is nothing else, shortened, and then on the others
    assert alone.settings["contrastive"] < 40 or alone.settings["contrastive_rows"] < 64


def test_a_rung_measured_on_one_split_is_measured_on_others_in_the_time_that_is_left(tmp_path: Path) -> None:
    bench = tiny_bench(tmp_path / "bench")
    bench.measured |= {"forward": 0.1 / bench.mean_length, "probe": 1e-9}  # so dear that one split is planned
    ladder = Ladder(bench, splits.folds(bench.targets, None, seed=0), Clock(1700.0), tmp_path)
    bench.hint_rows = ladder.splits[0][0]
    step = ladder.climb("tail", registry.create("strategies", "tail"), seconds=ladder.left())
    assert (step.folds, len(ladder.splits) > 5) == (1, True)
    deep = ladder.deepened(step)
    assert deep.folds == 5  # each row once, and no repeats
    assert sorted(ladder.held_rows(deep.folds).tolist()) == list(range(len(bench.inputs)))
    assert deep.logits is not None
    assert step.logits is not None
    assert len(deep.logits) == len(bench.inputs)
    np.testing.assert_array_equal(deep.logits[: len(step.logits)], step.logits)
    assert ladder.deepened(deep) is deep
    again = Ladder(bench, ladder.splits, Clock(1700.0), tmp_path).climb("tail", step.strategy, seconds=1.0)  # resumed
    assert again.folds == 5
    np.testing.assert_array_equal(again.logits, deep.logits)
    ladder.clock = Clock(1.0)
    assert ladder.deepened(step) is step
