"""Model soups: what is averaged, how many courses there are, and the same soup again."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from warmstart.core import registry
from warmstart.core.errors import BadOption, OutOfTime
from warmstart.engine import finetune, ladder, rungs, soup
from warmstart.engine.clock import Clock, Pace
from warmstart.engine.job import Fitted, Job
from warmstart.engine.workbench import Workbench
from warmstart.testing import tiny_bench

TRAIN, HELD = np.arange(72), np.arange(72, 96)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


def part(**options: Any) -> Any:
    return registry.create("strategies", "soup", options={"epochs": 1, **options})


def cook(bench: Workbench, *, pace: Pace | None = None, folder: Path | None = None, **options: Any) -> Fitted:
    strategy = part(**options)
    plan = strategy.plan(bench, train=TRAIN, held=HELD, seconds=math.inf)
    fitted: Fitted = strategy.fit(bench, TRAIN, HELD, Job("fold0", plan.settings, 0, pace or Pace(math.inf), folder))
    return fitted


def weights(fitted: Fitted) -> dict[str, torch.Tensor]:
    predictor: Any = fitted.predictor
    return {name: value for name, value in predictor.network.state_dict().items() if value.is_floating_point()}


@pytest.mark.parametrize("head", ["pooled", "native"])
def test_a_soup_is_the_mean_of_its_courses(head: str, bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    members: list[dict[str, torch.Tensor]] = []
    learn = finetune.learn

    def seen(bench: Workbench, net: Any, *args: Any, **kwargs: Any) -> Any:
        found = learn(bench, net, *args, **kwargs)
        members.append({name: value.clone() for name, value in net.state_dict().items() if value.is_floating_point()})
        return found

    monkeypatch.setattr(finetune, "learn", seen)
    found = cook(bench, courses=3, head=head)
    assert len(members) == 3
    for name, value in weights(found).items():
        torch.testing.assert_close(value, sum(member[name] for member in members) / 3)
    moved = [name for name in members[0] if not torch.equal(members[0][name], members[1][name])]
    assert len(moved) > len(members[0]) / 2  # the courses differ
    assert "3 courses averaged" in found.note
    assert found.held_logits.shape == (len(HELD), bench.n_classes)
    full = registry.create("strategies", "full", options={"epochs": 1, "contrastive": 0, "head": head})
    plan = full.plan(bench, train=TRAIN, held=HELD, seconds=math.inf)
    assert found.trainable == full.fit(bench, TRAIN, HELD, Job("fold0", plan.settings, 0, Pace(math.inf))).trainable


def test_as_many_courses_as_there_is_time_for(bench: Workbench) -> None:
    def courses(seconds: float, **options: Any) -> int | None:
        plan = part(**options).plan(bench, train=TRAIN, held=HELD, seconds=seconds)
        return None if plan is None else plan.settings["courses"]

    whole = part().plan(bench, train=TRAIN, held=HELD, seconds=math.inf)
    one = whole.seconds / (whole.settings["courses"] - 1)  # it counts on the full rung's network
    assert whole.settings["courses"] == soup.USUAL
    least = part().smallest().plan(bench, train=TRAIN, held=HELD, seconds=math.inf)
    assert least.seconds == pytest.approx(one * (soup.LEAST - 1), rel=0.2)
    assert courses(one * 1.9) is None
    assert courses(one * 2.1) == 2
    assert courses(one * 4.1) == 4
    assert courses(one * 99) == soup.MOST
    assert courses(one * 2.9, courses=2) == 2
    assert courses(one * 99, courses=2) == 2
    assert courses(-1.0) is None


def test_spare_time_is_used_and_the_record_gives_the_same_soup(bench: Workbench) -> None:
    grown = Pace(math.inf, may_grow=True)
    most = cook(bench, pace=grown)
    assert f"{soup.MOST} courses averaged" in most.note
    late = Pace(0.0, may_grow=True)
    short = cook(bench, pace=late)
    assert "1 course averaged" in short.note
    assert late.replans == [(1, 1)]
    again = cook(bench, pace=Pace(math.inf, list(late.replans), True, may_grow=True))
    assert all(torch.equal(value, weights(again)[name]) for name, value in weights(short).items())
    np.testing.assert_array_equal(short.held_logits, again.held_logits)
    assert np.abs(short.held_logits - most.held_logits).max() > 0


def test_a_killed_soup_goes_on_to_the_same_bits(bench: Workbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = cook(bench, courses=3)
    learn, calls = finetune.learn, []

    def dying(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return learn(*args, **kwargs)

    monkeypatch.setattr(finetune, "learn", dying)
    with pytest.raises(KeyboardInterrupt):
        cook(bench, courses=3, folder=tmp_path)
    assert (tmp_path / "fold0.soup.safetensors").exists()
    resumed = cook(bench, courses=3, folder=tmp_path)
    assert len(calls) == 4  # one course was left to do
    np.testing.assert_array_equal(whole.held_logits, resumed.held_logits)
    assert not list(tmp_path.iterdir())


def test_a_course_that_is_too_late_is_left_out(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    learn, calls = finetune.learn, []

    def late(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise OutOfTime("the time for this rung is used up")
        return learn(*args, **kwargs)

    monkeypatch.setattr(finetune, "learn", late)
    pace = Pace(math.inf)
    assert "1 course averaged" in cook(bench, courses=3, pace=pace).note
    assert pace.replans == [(1, 1)]


def test_options(bench: Workbench) -> None:
    with pytest.raises(BadOption, match=r"soup\.courses = 0"):
        part(courses=0)
    assert part().variants(bench) == []  # rows are few here
    assert [label for label, _ in part(courses=2).variants(bench)] == ["soup"]


def test_the_full_rung_is_the_first_course(bench: Workbench) -> None:
    strategy = registry.create("strategies", "full", options={"epochs": 1, "contrastive": 0})
    plan = strategy.plan(bench, train=TRAIN, held=HELD, seconds=math.inf)
    full = strategy.fit(bench, TRAIN, HELD, Job("fold0", plan.settings, 0, Pace(math.inf)))
    alone = part(courses=soup.USUAL).plan(bench, train=TRAIN, held=HELD, seconds=math.inf)
    bench.fitted["full"] = (lambda: full.predictor, plan.settings)
    try:
        shared = part(courses=soup.USUAL).plan(bench, train=TRAIN, held=HELD, seconds=math.inf)
        assert shared.seconds / alone.seconds == pytest.approx((soup.USUAL - 1) / soup.USUAL, rel=0.2)
        one = cook(bench, pace=Pace(0.0, may_grow=True))  # no time for a second course
        assert "1 course averaged" in one.note
        np.testing.assert_array_equal(one.held_logits, full.held_logits)
        rough = strategy.plan(bench, train=TRAIN, held=HELD, seconds=math.inf).settings | {"probe_rows": 40}
        began = strategy.fit(bench, TRAIN, HELD, Job("fold0", rough, 0, Pace(math.inf)))
        bench.fitted["full"] = (lambda: began.predictor, rough)
        np.testing.assert_array_equal(cook(bench, pace=Pace(0.0, may_grow=True)).held_logits, began.held_logits)
        bench.fitted["full"] = (lambda: full.predictor, plan.settings)
        native = cook(bench, courses=1, head="native")  # began in another way, so it is none of them
        assert native.held_logits.shape == full.held_logits.shape
        assert np.abs(native.held_logits - full.held_logits).max() > 0
    finally:
        del bench.fitted["full"]


def test_with_many_rows_it_goes_before_the_tails(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    from warmstart.parts.strategies import tail

    monkeypatch.setattr(bench, "hint_rows", np.arange(tail.MANY))
    many = [rung for name in ("full", "soup", "tail") for rung in _rungs(name, bench)]
    assert [label.split()[0] for label, _ in sorted(many, key=lambda rung: rung[1].worth)] == ["full", "soup", "tail", "tail"]


def test_a_smaller_soup_is_kept_where_a_usual_one_does_not_fit(bench: Workbench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from warmstart.parts.strategies import tail

    monkeypatch.setattr(bench, "hint_rows", np.arange(tail.MANY))
    climb = ladder.Ladder(bench=bench, splits=[(TRAIN, HELD)], clock=Clock(None), folder=tmp_path)
    full, cooked, *tails = [rungs.Candidate(label, one) for name in ("full", "soup", "tail") for label, one in _rungs(name, bench)]
    course = rungs.total(climb, [cooked]) / (soup.USUAL - 1)

    def kept(courses: float) -> list[str]:
        return [r.label for r in rungs.affordable(climb, [*tails, full, cooked], rungs.total(climb, [full]) + courses * course)]

    assert "soup" in kept(1.2)
    assert "soup" not in kept(0.8)
    assert kept(0.8)[-1] == "full"


def _rungs(name: str, bench: Workbench) -> list[tuple[str, Any]]:
    strategy = registry.create("strategies", name)
    found: list[tuple[str, Any]] = strategy.variants(bench) if hasattr(strategy, "variants") else [(name, strategy)]
    return found
