"""Splits: stratified, grouped, repeatable, and honest about what cannot be split."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from warmstart.core.errors import BadOption, DataError
from warmstart.engine.splits import folds, hold_out


def balanced(n: int, classes: int) -> NDArray[np.int64]:
    return np.random.default_rng(0).permutation(np.arange(n) % classes)


@settings(max_examples=80, deadline=None)
@given(labels=st.lists(st.integers(0, 5), min_size=4, max_size=80), fraction=st.floats(0.05, 0.5), seed=st.integers(0, 5))
def test_hold_out_is_a_stratified_partition(labels: list[int], fraction: float, seed: int) -> None:
    targets = np.array(labels)
    try:
        train, test = hold_out(targets, None, fraction, seed)
    except DataError:
        counts = np.bincount(targets)
        assert fraction * counts[counts > 1].sum() < 1 or (counts <= 1).all()
        return
    assert sorted([*train, *test]) == list(range(len(labels)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(test) > 0).all()
    assert train.dtype == test.dtype == np.int64
    for label in set(labels):
        count, held = labels.count(label), int((targets[test] == label).sum())
        assert abs(held - fraction * count) <= 1
        assert held < count  # never a class that only the test rows have


def test_hold_out_depends_on_the_seed_alone() -> None:
    targets = balanced(100, 3)
    again = [hold_out(targets, None, 0.2, seed)[1].tolist() for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]


def test_multi_label_rates_are_kept() -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((600, 6)) < np.array([0.5, 0.3, 0.2, 0.1, 0.05, 0.02])).astype(np.float32)
    _, test = hold_out(targets, None, 0.25, 0)
    assert len(test) == 150
    np.testing.assert_allclose(targets[test].mean(axis=0), targets.mean(axis=0), atol=0.03)
    assert abs(targets[test][:, 5].sum() - targets[:, 5].sum() / 4) <= 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9)), min_size=6, max_size=120))
def test_a_group_is_never_on_both_sides(pairs: list[tuple[int, int]]) -> None:
    targets, groups = np.array([p[0] for p in pairs]), [f"g{p[1]}" for p in pairs]
    try:
        splits = [*folds(targets, groups, seed=0), hold_out(targets, groups, 0.3, 0)]
    except DataError:
        return
    for train, held in splits:
        assert not {groups[i] for i in train} & {groups[i] for i in held}
        assert sorted([*train, *held]) == list(range(len(pairs)))


def test_groups_of_unequal_size_still_give_the_fraction() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(300), rng.integers(1, 20, 300))
    targets = rng.integers(0, 3, len(groups))
    _, test = hold_out(targets, groups, 0.2, 0)
    assert abs(len(test) / len(groups) - 0.2) < 0.01
    sizes = [len(held) for _, held in folds(targets[:800], groups[:800], seed=0)]
    assert max(sizes) - min(sizes) <= 20


@pytest.mark.parametrize(
    ("n", "classes", "count", "held"),
    [
        (40, 2, 20, 8),
        (300, 3, 10, 60),
        (1_000, 4, 5, 200),
        (1_999, 4, 5, 400),
        (2_000, 4, 1, 300),
        (5_000, 4, 1, 750),
        (20_000, 4, 1, 1_500),
    ],
)
def test_the_plan_follows_the_number_of_rows(n: int, classes: int, count: int, held: int) -> None:
    plan = folds(balanced(n, classes), None, seed=0)
    assert len(plan) == count
    assert abs(len(plan[0][1]) - held) <= 1


def test_each_repeat_holds_every_row_once_and_differs_from_the_others() -> None:
    targets = balanced(60, 3)
    plan = folds(targets, None, seed=0)
    for first in range(0, 20, 5):
        assert sorted(np.concatenate([held for _, held in plan[first : first + 5]])) == list(range(60))
        assert all(set(targets[train]) == {0, 1, 2} for train, _ in plan)
    assert plan[0][1].tolist() != plan[5][1].tolist()
    np.testing.assert_equal(plan, folds(targets, None, seed=0))


def test_small_classes_lower_the_number_of_folds_and_single_rows_stay_in_training() -> None:
    targets = np.array([0] * 20 + [1] * 3 + [2])
    plan = folds(targets, None, seed=0)
    assert len(plan) == 3 * 4
    assert all(23 in train and set(targets[train]) == {0, 1, 2} for train, _ in plan)


def test_a_rare_class_among_many_rows() -> None:
    many = np.concatenate([balanced(2_500, 3), [3, 3, 3]])
    assert len(folds(many, None, seed=0)) == 3
    assert len(folds(np.concatenate([balanced(12_000, 3), [3, 3, 3]]), None, seed=0)) == 1


def test_what_cannot_be_split_is_refused() -> None:
    with pytest.raises(DataError, match="only 1 groups can be held out"):
        folds(balanced(20, 2), ["one"] * 20, seed=0)
    with pytest.raises(DataError, match="only 0 rows can be held out"):
        folds(np.arange(10), None, seed=0)
    with pytest.raises(DataError, match="cannot be split"):
        hold_out(np.arange(10), None, 0.2, 0)
    with pytest.raises(BadOption, match="between 0 and 1"):
        hold_out(balanced(20, 2), None, 1.5, 0)
