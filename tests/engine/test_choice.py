"""Which rung is kept: the best, or one that is cheaper to serve where a comparison that could tell does not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from warmstart.core import registry
from warmstart.engine import choice, ladder
from warmstart.engine.clock import Clock
from warmstart.engine.step import Step
from warmstart.engine.workbench import Workbench
from warmstart.testing import tiny_bench

N = 96


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    return tiny_bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(autouse=True)
def many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """The 96 rows of the bench stand for many, but where a test says otherwise."""
    monkeypatch.setattr(choice, "FEW_ROWS", 0)


def step(bench: Workbench, name: str, right: Sequence[int], *, sure: float = 3.0, repeats: int = 1, label: str = "") -> Step:
    """A rung that predicts these of the held rows rightly, ``repeats`` times over, with logits of this size."""
    logits = np.zeros((N * repeats, 3), np.float32)
    for i in range(N * repeats):
        truth = bench.targets[i % N]
        logits[i, truth if i % N in set(right) else (truth + 1) % 3] = sure
    found = Step(label or name, registry.create("strategies", name), folds=repeats, logits=logits, seconds=1.0, trainable=10)
    found.predicted = 2.0
    return found


def choose(bench: Workbench, steps: Sequence[Step], *, prefer: str = "best", eligible: Sequence[str] = ()) -> choice.Choice:
    splits = [(np.arange(0), np.arange(N))] * max((s.folds for s in steps), default=1)
    climbed = ladder.Ladder(bench=bench, splits=splits, clock=Clock(None), folder=Path("unused"))
    return choice.choose(climbed, steps, prefer=prefer, eligible=eligible or [s.label for s in steps])


def first(n: int) -> range:
    return range(n)


def test_the_best_is_chosen_where_it_can_be_told_apart(bench: Workbench) -> None:
    found = choose(bench, [step(bench, "classic", first(50)), step(bench, "linear_probe", first(70)), step(bench, "full", first(90))])
    assert found.chosen.step.label == "full"
    assert [rung.chosen for rung in found.rungs] == [False, False, True]
    assert [(c.a, c.b) for c in found.comparisons] == [("full", "classic"), ("full", "linear_probe")]
    assert found.comparisons[0].difference == pytest.approx(40 / 96)
    assert found.verdict[0].startswith("Pre-training helped")
    assert "full was needed" in found.verdict[1]
    assert found.rungs[2].seconds_predicted == 2.0


def test_whether_pre_training_helped_is_told_by_the_better_rung_without_a_body(bench: Workbench) -> None:
    steps = [step(bench, "majority", first(40)), step(bench, "classic", first(10)), step(bench, "full", range(10, 54))]
    found = choose(bench, steps)
    assert [(c.a, c.b) for c in found.comparisons] == [("full", "majority")]
    assert found.comparisons[0].difference == pytest.approx(4 / 96)
    assert found.verdict[0].startswith(
        "Whether pre-training helped cannot be told from these rows: full cannot be told apart from majority"
    )
    even = choose(bench, [step(bench, "majority", first(40)), step(bench, "classic", first(40)), steps[2]])
    assert [c.b for c in even.comparisons] == ["classic"]
    no_classic = choose(bench, [steps[0], step(bench, "full", first(80))])
    assert no_classic.verdict[0].startswith("full was needed: ")


def test_a_rung_alone_is_called_that(bench: Workbench) -> None:
    assert choose(bench, [step(bench, "full", first(80))]).verdict == [
        "full is the only rung that was climbed, so it is compared with nothing."
    ]


def test_cheaper_to_serve_where_a_telling_comparison_cannot_tell(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right on the same rows; the dearer rung is only surer of it. Of 96 rows up to 3.8 % like none of these may have been missed."""
    steps = [step(bench, "classic", first(90), sure=2.0), step(bench, "full", first(90), sure=3.0)]
    assert choose(bench, steps).chosen.step.label == "full"
    monkeypatch.setattr(choice, "TELLING", 0.04)
    found = choose(bench, steps)
    assert found.chosen.step.label == "classic"
    assert "Pre-training was not needed" in found.verdict[0]
    assert "but it is cheaper to serve" in " ".join(found.verdict) or "full" not in found.verdict[-1]


def test_a_comparison_without_power_changes_nothing(bench: Workbench) -> None:
    """The rungs differ on forty rows of 96, so their true scores may well be ten points apart."""
    found = choose(bench, [step(bench, "classic", range(20, 70)), step(bench, "full", first(55))])
    compared = found.comparisons[0]
    assert compared.low <= 0 < choice.TELLING < compared.high
    assert found.chosen.step.label == "full"
    assert found.verdict[0].startswith("Whether pre-training helped cannot be told")


def test_rungs_that_cost_the_same_to_serve_are_never_swapped(bench: Workbench) -> None:
    found = choose(bench, [step(bench, "linear_probe", first(90)), step(bench, "full", first(91))])
    assert found.chosen.step.label == "full"
    assert "linear_probe might have been enough" in " ".join(found.verdict)


def test_prefer_cheapest_takes_the_first_within_one_standard_error(bench: Workbench) -> None:
    steps = [step(bench, name, first(n)) for name, n in (("classic", 60), ("linear_probe", 78), ("tail", 80), ("full", 81))]
    found = choose(bench, steps, prefer="cheapest")
    assert found.chosen.step.label == "linear_probe"  # one standard error of 81 of 96 is 3.6 rows
    assert choose(bench, steps).chosen.step.label == "full"
    assert "The cheapest rung within one standard error of the best is linear_probe." in choose(bench, steps).verdict


def test_with_very_few_rows_the_prior_decides_unless_it_is_measurably_wrong(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "FEW_ROWS", 200)
    close = [step(bench, "classic", first(62)), step(bench, "linear_probe", first(61)), step(bench, "tail", first(60))]
    assert choose(bench, close).chosen.step.label == "tail"
    assert choose(bench, close[:2]).chosen.step.label == "linear_probe"
    assert choose(bench, close, eligible=["classic"]).chosen.step.label == "classic"
    wrong = [step(bench, "classic", first(90)), step(bench, "tail", first(40))]
    assert choose(bench, wrong).chosen.step.label == "classic"


def test_further_splits_are_needed_only_while_they_may_change_the_choice(bench: Workbench) -> None:
    """Four splits of 24 rows; the favourite of the prior is ahead, level, or behind after the first."""
    splits = [(np.arange(0), np.arange(k, k + 24)) for k in range(0, N, 24)]
    climbed = ladder.Ladder(bench=bench, splits=splits, clock=Clock(None), folder=Path("unused"))

    def settled(favourite: Sequence[int], rival: Sequence[int], folds: int) -> bool:
        mine, theirs = step(bench, "tail", favourite), step(bench, "classic", rival)
        assert mine.logits is not None
        mine.folds, theirs.folds = folds, 4
        mine.logits = mine.logits[: 24 * folds]
        return choice.settled(climbed, mine, folds, [theirs])

    assert settled(range(20), range(8), 1)
    assert not settled(range(8), range(20), 1)
    assert not settled([*range(12), *range(24, 36)], range(48), 2)
    assert settled(range(12), range(12), 2)
    alone = step(bench, "tail", [])
    alone.folds = 4
    assert choice.settled(climbed, alone, 1, [])


def test_ties_go_to_the_lower_log_loss(bench: Workbench) -> None:
    steps = [step(bench, "tail", first(80), sure=9.0), step(bench, "full", first(80), sure=0.5)]
    losses = {
        s.step.label: s.loss
        for s in (choice.score(ladder.Ladder(bench, [(np.arange(0), np.arange(N))], Clock(None), Path("x")), s) for s in steps)
    }
    best = min(losses, key=losses.__getitem__)
    assert choose(bench, steps).chosen.step.label == best
    assert choose(bench, steps[::-1]).chosen.step.label == best


def test_only_what_is_eligible_is_chosen_and_what_was_passed_over_is_shown(bench: Workbench) -> None:
    passed = Step("lora", registry.create("strategies", "lora"), note="does not fit into the 3 s left")
    found = choose(bench, [step(bench, "classic", first(90)), step(bench, "tail", first(60)), passed], eligible=["tail", "lora"])
    assert found.chosen.step.label == "tail"
    assert found.rungs[2].score is None
    assert found.rungs[2].note == "does not fit into the 3 s left"
    assert found.verdict[0].startswith("Pre-training hurt")


def test_rungs_with_fewer_folds_are_compared_on_the_rows_that_both_have(bench: Workbench) -> None:
    """The same rows held twice are no more evidence than held once."""
    once = choose(bench, [step(bench, "classic", first(60)), step(bench, "full", first(70))])
    twice = choose(bench, [step(bench, "classic", first(60), repeats=2), step(bench, "full", first(70), repeats=2)])
    mixed = choose(bench, [step(bench, "classic", first(60), repeats=2), step(bench, "full", first(70))])
    assert mixed.comparisons[0].n == N
    for other in (twice, mixed):
        compared = other.comparisons[0]
        assert compared.difference == pytest.approx(once.comparisons[0].difference)
        assert compared.low == pytest.approx(once.comparisons[0].low, abs=0.02)
    assert [rung.examples for rung in mixed.rungs] == [2 * N, N]
    assert [rung.rows for rung in mixed.rungs] == [N, N]
    assert all(rung.expected is None for rung in mixed.rungs), "the same rows"


def test_rungs_that_answered_other_rows_have_a_score_to_be_expected_on_all(bench: Workbench) -> None:
    """The chosen rung may show a lower score than a cheaper one where it answered harder rows, and then more is expected of it."""
    halves = [(np.arange(0), np.arange(N // 2)), (np.arange(0), np.arange(N // 2, N))]
    climbed = ladder.Ladder(bench=bench, splits=halves, clock=Clock(None), folder=Path("unused"))
    cheap = step(bench, "classic", [*range(20), *range(N // 2, N)])  # weak on the first half, perfect on the second
    cheap.folds = 2
    dear = step(bench, "full", first(30))
    dear.logits = dear.logits[: N // 2] if dear.logits is not None else None
    found = choice.choose(climbed, [cheap, dear], prefer="best", eligible=["classic", "full"])
    classic, full = found.rungs
    assert full.chosen
    assert (classic.rows, full.rows) == (N, N // 2)
    assert classic.score > full.score
    assert classic.expected is not None
    assert full.expected is not None
    assert (classic.expected.n, full.expected.n) == (N, N)
    slope = 1 - 10 / 28  # full is right where classic is, and on 10 of the 28 other rows
    assert (classic.expected.value, full.expected.value) == pytest.approx((68 / 96, 30 / 48 + slope * (68 / 96 - 20 / 48)))
    assert full.expected.low < full.expected.value < full.expected.high


def test_a_chain_of_lucky_halves_chooses_nothing(bench: Workbench) -> None:
    """The probe is best on all rows, and loses on the first half to a tail that loses there to the classic rung."""
    halves = [(np.arange(0), np.arange(N // 2)), (np.arange(0), np.arange(N // 2, N))]
    climbed = ladder.Ladder(bench=bench, splits=halves, clock=Clock(None), folder=Path("unused"))
    classic, probe = step(bench, "classic", [*range(40), *range(60, 90)]), step(bench, "linear_probe", [*range(36), *range(48, 96)])
    classic.folds = probe.folds = 2
    tail = step(bench, "tail", range(38))
    tail.logits = tail.logits[: N // 2] if tail.logits is not None else None
    found = choice.choose(climbed, [classic, probe, tail], prefer="best", eligible=["classic", "linear_probe", "tail"])
    assert found.chosen.step.label == "linear_probe"
    expected = [rung.expected.value for rung in found.rungs if rung.expected is not None]
    assert expected[:2] == pytest.approx([70 / 96, 84 / 96])
    assert abs(expected[2] - 38 / 48) < 0.02, "the first half is as hard as the second"


def test_the_choice_looks_at_no_clock(bench: Workbench) -> None:
    """Two tails are told apart by what moves, so that a recipe run again chooses the same."""
    short, long = step(bench, "tail", first(80), label="tail (1 blocks)"), step(bench, "tail", first(80), label="tail (2 blocks)")
    long.trainable = 20
    for seconds in (0.1, 9.0):
        short.seconds = seconds
        assert choose(bench, [short, long], prefer="cheapest").chosen is not None
        assert choose(bench, [short, long], prefer="cheapest").chosen.step.label == "tail (1 blocks)"


def test_nothing_is_said_of_a_rung_that_was_rejected(bench: Workbench) -> None:
    steps = [step(bench, "classic", first(50)), step(bench, "linear_probe", first(70), label="linear_probe, continued")]
    steps += [step(bench, "linear_probe", first(69)), step(bench, "full", first(72))]
    asked = {"prefer": "best", "eligible": ["classic", "linear_probe", "full"]}
    climbed = ladder.Ladder(bench=bench, splits=[(np.arange(0), np.arange(N))], clock=Clock(None), folder=Path("unused"))
    found = choice.choose(climbed, steps, **asked, rejected=["linear_probe, continued"])
    assert not any("continued" in sentence for sentence in found.verdict)
    assert not any("continued" in c.a + c.b for c in found.comparisons)
    assert [rung.strategy for rung in found.rungs].count("linear_probe, continued") == 1
