"""Who is held out: one test split, or the folds behind an honest estimate, stratified, grouped, and the same for the same seed.

scikit-learn's stratified splitters refuse or warn at classes smaller than the number of folds, know nothing of multi-label targets,
and their grouped form takes minutes for 100,000 groups; dealing rows out class by class does all of it in one pass.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from warmstart.core.errors import BadOption, DataError

Indices: TypeAlias = NDArray[np.int64]
Split: TypeAlias = tuple[Indices, Indices]

ONE_DEV_ROWS = 2_000
ONE_DEV_ROWS_WHATEVER_CLASSES = 10_000
ONE_DEV_ROWS_STRUCTURED, STRUCTURED_FRACTION = 200, 0.2
"""Answers such as boxes and texts say more than one class each, and learning from them takes long: one split is enough earlier."""
DEV_FRACTION, DEV_ROWS_MIN, DEV_ROWS_MAX = 0.15, 300, 1_500


def hold_out(targets: NDArray[Any], groups: Any, fraction: float, seed: int) -> Split:
    """Indices ``(train, test)``, both sorted, with close to ``fraction`` of the rows, and of each class, in test.

    Args:
        targets: (N,) class indices, or (N, C) zeros and ones.
        groups: N values, or None; rows of one group stay together.
        fraction: Between 0 and 1.
        seed: Equal seeds give equal splits.

    Raises:
        BadOption: ``fraction`` is not between 0 and 1.
        DataError: One side would be empty.
    """
    if not 0 < fraction < 1:
        raise BadOption(f"a held-out fraction of {fraction}", "a number between 0 and 1", "correct the value")
    units = _Units(targets, groups)
    held = np.zeros(len(units.sizes), dtype=bool)
    owed = 0.0
    for unit in units.in_order(np.random.default_rng(seed)):
        owed += fraction * units.sizes[unit]  # rows that should be held by now but are not: spread evenly over every class
        if owed >= units.sizes[unit] / 2:
            held[unit] = True
            owed -= units.sizes[unit]
    return units.split(held)


def folds(targets: NDArray[Any], groups: Any, *, seed: int) -> list[Split]:
    """The splits ``(train, held)`` behind a held-out estimate: the fewer rows, the more folds.

    From 2,000 rows with at least five of each class (from 10,000 whatever the classes): one split that holds 15 % of the rows, at least
    300 and at most 1,500. Below: stratified 5-fold cross-validation, four times below 100 rows, twice below 400, else once; fewer folds
    where a class has fewer than five rows. A class with a single row is never held out. Repeats follow one another, so a prefix of the
    list is useful, and a rung may use no more than that.
    Targets that are objects, not classes, are split once from 200 rows on: a fifth is held.

    Raises:
        DataError: Fewer than two rows or groups can be dealt out.
    """
    units = _Units(targets, groups)
    n = len(targets)
    if targets.dtype == object and n >= ONE_DEV_ROWS_STRUCTURED:
        return [hold_out(targets, groups, min(DEV_ROWS_MAX / n, STRUCTURED_FRACTION), seed)]
    if n >= ONE_DEV_ROWS_WHATEVER_CLASSES or (n >= ONE_DEV_ROWS and units.smallest_class >= 5):
        n_held = min(max(int(DEV_FRACTION * n), DEV_ROWS_MIN), DEV_ROWS_MAX)
        return [hold_out(targets, groups, n_held / n, seed)]
    k = max(2, min(5, units.smallest_class))
    repeats = 4 if n < 100 else 2 if n < 400 else 1
    return [split for repeat in range(repeats) for split in _one_repeat(units, k, np.random.default_rng([seed, repeat]))]


def stratified(targets: NDArray[Any], k: int, *, seed: int, groups: Any = None) -> list[Split]:
    """One repeat of stratified k-fold cross-validation over these rows; fewer folds where there are fewer rows or groups.

    Raises:
        DataError: Fewer than two rows can be dealt out.
    """
    return _one_repeat(_Units(targets, groups), k, np.random.default_rng(seed))


def _one_repeat(units: _Units, k: int, rng: np.random.Generator) -> list[Split]:
    """Each unit, class by class, goes to the fold that has the fewest rows so far."""
    order = units.in_order(rng)
    k = min(k, len(order))
    if k < 2:
        raise DataError(
            f"only {len(order)} {units.noun} can be held out",
            f"at least two {units.noun}, of classes that occur twice",
            "add labelled rows",
        )
    fold = np.full(len(units.sizes), -1)
    loads = np.zeros(k)
    for unit in order:
        fold[unit] = loads.argmin()
        loads[fold[unit]] += units.sizes[unit]
    return [units.split(fold == i) for i in range(k)]


def _rarest_class(targets: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of each class (C,), and, for each row (N,), the rank of its rarest class, 0 being the rarest of all and C no class.

    A row is dealt out with the rarest label it has: the frequent ones come out even by themselves.
    """
    if targets.dtype == object:  # every answer is another one: nothing to stratify by
        return np.array([len(targets)]), np.zeros(len(targets), np.int64)
    if targets.ndim == 1:
        _, row_class, counts = np.unique(targets, return_inverse=True, return_counts=True)
        return counts, np.argsort(np.argsort(counts, kind="stable"))[row_class]
    member = targets > 0  # (N, C)
    counts = member.sum(axis=0)
    by_rarity = np.argsort(counts, kind="stable")
    return counts, np.where(member.any(axis=1), member[:, by_rarity].argmax(axis=1), len(counts))


class _Units:
    """What is dealt out: rows, or whole groups. A unit that has a row of a class with no second row is never held out."""

    def __init__(self, targets: NDArray[Any], groups: Any) -> None:
        n = len(targets)
        self.noun = "rows" if groups is None else "groups"
        if groups is None:
            self._unit_of_row = np.arange(n)
        else:
            names: dict[str, int] = {}
            self._unit_of_row = np.array([names.setdefault(str(g), len(names)) for g in groups], dtype=np.int64)
        self.sizes = np.bincount(self._unit_of_row)
        counts, rank_of_row = _rarest_class(targets)
        self.smallest_class = int(min(counts[counts > 1], default=0))
        self._stratum = np.full(len(self.sizes), len(counts))
        np.minimum.at(self._stratum, self._unit_of_row, rank_of_row)
        self._pinned = np.append(np.sort(counts), n)[self._stratum] == 1

    def in_order(self, rng: np.random.Generator) -> list[int]:
        """Units that may be held out, class by class, in random order within a class."""
        free = np.flatnonzero(~self._pinned)
        return [int(u) for u in free[np.lexsort((rng.random(len(free)), self._stratum[free]))]]

    def split(self, held: NDArray[np.bool_]) -> Split:
        """Rows of the units that are not held, and of those that are."""
        row_held = held[self._unit_of_row]
        train, test = np.flatnonzero(~row_held), np.flatnonzero(row_held)
        if not len(train) or not len(test):
            raise DataError(
                f"{len(row_held)} rows in {len(self.sizes)} {self.noun} cannot be split", "rows on both sides", "add labelled rows"
            )
        return train, test
