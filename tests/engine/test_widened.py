"""A rung that was hurried for others: measured again on all splits, or on more rows, where nothing came of those others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from warmstart.core import registry
from warmstart.engine import splits
from warmstart.engine.clock import Clock
from warmstart.engine.job import Job
from warmstart.engine.ladder import Ladder
from warmstart.engine.step import Step
from warmstart.engine.workbench import Workbench
from warmstart.testing import tiny_bench


@pytest.fixture
def bench(tmp_path: Path) -> Workbench:
    return tiny_bench(tmp_path / "bench")


def climbed(bench: Workbench, folder: Path, *, single: bool, seconds: float, rung: str = "linear_probe") -> tuple[Ladder, Step]:
    """A rung that got so many seconds of a budget of a thousand; each row costs it ten milliseconds, a probe once for all splits."""
    found = splits.folds(bench.targets, None, seed=0)
    bench.measured |= {"forward": 0.01 / bench.mean_length, "probe": 1e-9, "classic_features": 0.01, "classic_solve": 1e-9}
    one = Ladder(bench, [(np.arange(72), np.arange(72, 96))] if single else found[:5], Clock(1000.0), folder)
    bench.hint_rows = one.splits[0][0]
    return one, one.climb(rung, registry.create("strategies", rung), seconds=seconds)


@pytest.mark.parametrize(("rung", "seconds"), [("linear_probe", 2.0), ("classic", 2.95)])
def test_on_all_splits_where_there_is_time_after_all(rung: str, seconds: float, bench: Workbench, tmp_path: Path) -> None:
    one, hurried = climbed(bench, tmp_path, single=False, seconds=seconds, rung=rung)
    assert hurried.folds == 1
    wide = one.widened(hurried)
    assert wide.folds == 5
    assert hurried.logits is not None
    assert wide.logits is not None
    assert len(wide.logits) == 96
    np.testing.assert_array_equal(wide.logits[: len(hurried.logits)], hurried.logits)
    assert wide.seconds > hurried.seconds
    assert json.loads((tmp_path / "rungs" / rung / "plan.json").read_text())["folds"] == 5
    assert one.widened(wide) is wide, "there is nothing more to be had"


def test_nothing_where_there_is_no_time_or_a_plan_is_followed(bench: Workbench, tmp_path: Path) -> None:
    one, hurried = climbed(bench, tmp_path, single=False, seconds=2.0)
    assert hurried.folds == 1
    one.clock = Clock(8.0)
    assert one.widened(hurried) is hurried
    one.clock, one.follow = Clock(None), {}
    assert one.widened(hurried) is hurried


def test_on_more_rows_of_a_single_split(bench: Workbench, tmp_path: Path) -> None:
    one, hurried = climbed(bench, tmp_path, single=True, seconds=1e3)
    hurried.settings["rows"] = 40  # as if there had been no time for more
    bench.probe_rows, bench.hint, bench.probes = 40, None, {}
    wide = one.widened(hurried)
    assert (wide.folds, wide.settings["rows"], bench.probe_rows) == (1, None, 72)
    assert one.refit(wide).network.head is not None
    assert "72 rows" in wide.note


def test_on_some_more_rows_where_there_is_no_time_for_all(bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.module("strategies", "linear_probe"), "FEWER_ROWS", (60, 40, 20))
    one, hurried = climbed(bench, tmp_path, single=True, seconds=0.8)  # 24 held rows, 0.3 s around them
    assert hurried.settings["rows"] == 20
    bench.measured["forward"] = 10.0 / bench.mean_length
    one.clock = Clock(one.after + 270.0)
    wide = one.widened(hurried)
    assert (wide.settings["rows"], bench.probe_rows) == (40, 40)
    one.clock = Clock(one.after + 190.0)
    assert one.widened(wide) is wide, "twenty more rows take 200 seconds"


def test_a_probe_makes_do_with_fewer_rows_where_the_machine_became_slower(
    bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.module("strategies", "linear_probe"), "FEWER_ROWS", (60, 40, 20))
    plain = registry.create("strategies", "linear_probe")

    class Slowed:
        """A probe during whose first fit a row becomes as slow as a second."""

        def __getattr__(self, name: str) -> Any:
            return getattr(plain, name)

        def fit(self, bench: Workbench, train: Any, held: Any, job: Job) -> Any:
            bench.measured["forward"] = 1.0 / bench.mean_length
            return plain.fit(bench, train, held, job)

    bench.measured |= {"forward": 0.01 / bench.mean_length, "probe": 1e-9}
    found = splits.folds(bench.targets, None, seed=0)[:5]
    one = Ladder(bench, found, Clock(22.0), tmp_path)
    bench.hint_rows = found[0][0]
    step = one.climb("linear_probe", Slowed(), seconds=15.0)
    assert (step.folds, step.settings) == (5, {"rows": 20}), "twenty more rows would have taken twenty seconds"
    assert json.loads((tmp_path / "rungs" / "linear_probe" / "plan.json").read_text())["settings"] == {"rows": 20}
    assert "20 rows" in step.note
    one.refit(step)
    again = tiny_bench(tmp_path / "again")
    again.hint_rows = found[0][0]
    recorded = Ladder(again, found, Clock(None), tmp_path / "again", follow={"linear_probe": step.record()})
    followed = recorded.climb("linear_probe", plain, seconds=20.0)
    assert step.logits is not None
    assert followed.logits is not None
    np.testing.assert_array_equal(followed.logits, step.logits)
