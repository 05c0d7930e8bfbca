"""A rung that was hurried for others: measured again on all splits, or on more rows, where nothing came of those others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from warmstart.core import registry
from warmstart.engine import splits
from warmstart.engine.clock import Clock
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
