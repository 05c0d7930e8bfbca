"""Budgets, and how a training run keeps to its share."""

from __future__ import annotations

import math
import time

import pytest

from warmstart.engine.clock import Clock, Pace


def test_what_earlier_attempts_spent_counts() -> None:
    clock = Clock(10.0, spent_before=4.0)
    assert 4.0 <= clock.elapsed() < 5.0
    assert clock.remaining() == pytest.approx(10.0 - clock.elapsed(), abs=0.1)
    assert Clock(None).remaining() == math.inf


def run(pace: Pace, total: int, seconds: float, start: int = 0) -> int:
    """Steps that a run of ``total`` steps takes, each of these seconds."""
    pace.start(start)
    step = start
    while step < (total := pace.total(step, total)):
        time.sleep(seconds)
        step += 1
    return step


def test_a_run_with_time_enough_is_left_alone() -> None:
    pace = Pace(30.0)
    assert run(pace, 50, 0.001) == 50
    assert run(Pace(math.inf), 20, 0.0) == 20
    assert pace.replans == []


def test_a_slow_run_is_shortened_to_its_seconds() -> None:
    pace, began = Pace(0.3), time.perf_counter()
    steps = run(pace, 1000, 0.01)
    assert 5 <= steps <= 30
    assert time.perf_counter() - began < 0.45
    assert pace.replans[-1][1] == steps
    assert all(at <= new for at, new in pace.replans)


def grow(pace: Pace, total: int, most: int, seconds: float) -> int:
    """Steps that a run takes that was planned for ``total`` and may go on to ``most``."""
    pace.start(0)
    step = 0
    while step < (total := pace.total(step, total, most)):
        time.sleep(seconds)
        step += 1
    return step


def test_a_quick_run_is_lengthened_where_it_may_grow() -> None:
    pace, began = Pace(1.0, may_grow=True), time.perf_counter()
    steps = grow(pace, 20, 1000, 0.01)
    assert 20 < steps <= 100
    assert time.perf_counter() - began < 1.15
    assert pace.replans[0][0] == 8
    assert grow(Pace(0.0, pace.replans, follow=True), 20, 1000, 0.0) == steps
    assert grow(Pace(1.0), 20, 1000, 0.0) == 20
    assert grow(Pace(5.0, may_grow=True), 20, 30, 0.0) == 30


def test_what_follows_training_keeps_its_share() -> None:
    pace, began = Pace(0.5, may_grow=True, after=0.3), time.perf_counter()
    assert grow(pace, 20, 1000, 0.01) <= 21
    assert time.perf_counter() - began < 0.3


def test_what_came_before_training_takes_its_share() -> None:
    pace = Pace(0.3)
    time.sleep(0.2)
    began = time.perf_counter()
    run(pace, 1000, 0.01)
    assert time.perf_counter() - began < 0.22


def test_a_machine_that_becomes_slower_is_noticed() -> None:
    pace, began = Pace(1.0, after=0.1), time.perf_counter()
    pace.start(0)
    step = total = 0
    for step in range(1000):
        total = pace.total(step, total or 150)
        if step >= total:
            break
        time.sleep(0.004 if step < 50 else 0.016)
    assert 50 < step < 100
    assert time.perf_counter() - began < 0.9  # what follows will take four times as long as it was told
    assert pace.replans[0][0] < 75


def test_long_steps_are_judged_at_once() -> None:
    pace, began = Pace(1.0), time.perf_counter()
    assert run(pace, 20, 0.7) == 3  # one too many, but not eight
    assert time.perf_counter() - began < 2.5


def test_what_is_usable_as_it_is_may_be_left_so() -> None:
    pace = Pace(0.0, may_skip=True)
    assert run(pace, 50, 0.0) == 0
    assert run(Pace(0.0, pace.replans, follow=True), 50, 0.0) == 0


def test_a_recorded_plan_is_followed_without_a_clock() -> None:
    pace = Pace(0.0, [(3, 20), (11, 14)], follow=True)
    assert run(pace, 100, 0.0) == 14
    assert pace.replans == [(3, 20), (11, 14)]
