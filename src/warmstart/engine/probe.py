"""A linear head on frozen pooled states: which points of the trunk to read, and how strongly to regularise, by cross-validation."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from warmstart.core.errors import DataError
from warmstart.engine import balance, linear, linear_cost, splits, training
from warmstart.engine.network import PooledHead
from warmstart.engine.workbench import Workbench

SEARCH_ROWS = 4000
"""Rows that the search for points and strength looks at; the head is then fitted on all."""

HINT_ROWS = 1500
"""Rows that the first, wide search looks at."""

INNER_FOLDS, INNER_FOLDS_FEW, FEW = 3, 5, 1000
"""Folds of the search, and those below ``FEW`` rows, where a third is much to hold out: with ten images a class of CIFAR-10 on the last
state of a frozen ResNet-20, five give 81.4 % of the test images and three 80.7 % (ten draws)."""


AROUND = (10, 1, 0.1)
"""Times the strength that the wide search found, what each fit tries."""

FARTHER = 1.1
"""Sets of points grow from the last one downwards. Where the loss of one is so many times that of the smaller one before, a still larger
one is not tried. In 27 draws of TREC, SST-2, AG News and Banking77 with 8 to 64 labels a class it was the best of three in none of the
10 in which the second set was that much worse than the first."""


SLACK, LEAST_TOLD = 1.2, 0.2
"""A fit that is to end in time may take so many times what is predicted; and seconds of a pass that tell how quick the machine is now."""


@dataclass(frozen=True)
class Probe:
    """A fitted head and what cross-validation chose for it."""

    head: PooledHead
    points: tuple[int, ...]
    strength: float


def candidates(n_points: int) -> list[tuple[int, ...]]:
    """Sets of points to read: the last, the upper half, all (0 is the input of the first block)."""
    every = tuple(range(n_points))
    return list(dict.fromkeys([every[-1:], every[n_points // 2 :], every]))


def search(
    bench: Workbench,
    features: Tensor,
    targets: NDArray[Any],
    *,
    points: Sequence[tuple[int, ...]] | None = None,
    strengths: Sequence[float] = linear.STRENGTHS,
    groups: NDArray[np.int64] | None = None,
    weights: NDArray[np.float32] | None = None,
) -> tuple[tuple[int, ...], float]:
    """Points and strength with the lowest log loss out of fold, on at most ``SEARCH_ROWS`` rows.

    Args:
        bench: Says what the targets are.
        features: Pooled states (n, points, D).
        targets: Of the same rows.
        points: Sets of points to try; None: ``candidates``.
        strengths: To try.
        groups: Rows of one group, such as the views of one example, stay on one side.
        weights: (n,) what each row counts; None: the same.

    Raises:
        OutOfTime: The budget is used up.
    """
    rows = subset(bench, np.arange(len(targets)), SEARCH_ROWS)
    features, targets = features[torch.from_numpy(rows)], targets[rows]
    groups = None if groups is None else groups[rows]
    weights = balance.taken(weights, rows)
    tried = candidates(features.shape[1]) if points is None else points
    try:
        folds = splits.stratified(targets, INNER_FOLDS_FEW if len(targets) < FEW else INNER_FOLDS, seed=bench.seed, groups=groups)
    except DataError:  # a class with a single example cannot be on both sides
        return tried[-1], 1e-2
    found = []
    for chosen in tried:
        bench.check_time()
        choice = linear.cross_validate(
            features[:, list(chosen)].flatten(1),
            targets,
            link=bench.task.link,
            n_classes=bench.n_classes,
            folds=folds,
            strengths=strengths,
            weights=weights,
            seed=bench.seed,
        )
        found.append((float(choice.log_losses.min()), len(chosen), chosen, choice.strength))
        if len(found) > 1 and found[-1][0] > FARTHER * found[-2][0]:
            break
    _, _, chosen, strength = min(found)
    return chosen, strength


def hint(bench: Workbench, n: int) -> tuple[tuple[int, ...], float]:
    """Points and strength that suit these data, searched for once on at most ``n`` training rows of the first split.

    Where the ladder's probe has read ``bench.probe_rows`` rows, it is so many: a resumed run then finds the same, whoever asks first.
    Each fold only looks around this strength. That the first split's rows decide the points for all folds is one choice among three.
    """
    if bench.hint is None:
        rows = subset(bench, bench.hint_rows, min(bench.probe_rows or n, HINT_ROWS))
        bench.hint = search(bench, bench.pooled(rows), bench.targets[rows], weights=bench.balance.of(rows))
    return bench.hint


def fit(bench: Workbench, rows: NDArray[np.int64], *, points: tuple[int, ...] | None = None, strength: float | None = None) -> Probe:
    """The best linear head on the frozen pooled states of these rows; found once for the same rows."""
    good_points, good_strength = hint(bench, len(rows)) if points is None or strength is None else (points, strength)
    points = points or good_points
    around = [strength] if strength is not None else [good_strength * factor for factor in AROUND]
    known = rows.tobytes() + repr((points, around)).encode()
    if known not in bench.probes:
        bench.probes[known] = fit_on(bench, bench.pooled(rows), rows, points=points, strengths=around)
    found: Probe = copy.deepcopy(bench.probes[known])
    return found


def fit_on(
    bench: Workbench, features: Tensor, rows: NDArray[np.int64], *, points: tuple[int, ...], strengths: Sequence[float] = linear.STRENGTHS
) -> Probe:
    """The best linear head on given pooled states (n, points, D) of these rows: frozen ones, or those of a body that has moved."""
    targets, groups = bench.targets[rows], bench.variants.origin(rows) if bench.views else None
    weights = bench.balance.of(rows)
    strength = strengths[0]
    if len(strengths) > 1:
        _, strength = search(bench, features, targets, points=[points], strengths=strengths, groups=groups, weights=weights)
    x = features[:, list(points)].flatten(1)
    how: Any = {"link": bench.task.link, "n_classes": bench.n_classes, "strength": strength, "weights": weights, "seed": bench.seed}
    fitted = linear.fit(x, targets, **how)
    shift, deviation = x.mean(0), x.std(0, correction=0)
    # The head standardises its input, so that one learning rate suits every backbone when it is trained on.
    scale = torch.where(deviation > 1e-6, 1 / deviation, torch.zeros(()))
    weight = fitted.weight / torch.where(scale > 0, scale, torch.ones(()))
    bias = fitted.bias + fitted.weight @ shift
    return Probe(PooledHead(points, weight, bias, shift, scale).to(bench.device), points, strength)


def in_time(
    bench: Workbench, rows: NDArray[np.int64], held: NDArray[np.int64], *, sizes: Sequence[int], n_points: int
) -> NDArray[np.int64]:
    """Those of these rows that there is time to fit a head on before the rung must have ended: all where their states come as quickly as
    was planned, else as many of the first in the order of ``subset`` as one of ``sizes`` says. Their states and those of ``held`` are
    stored.

    Raises:
        OutOfTime: The time does not even do for the fewest.
    """
    if math.isinf(bench.deadline):
        return rows
    taken, slower = rows[:0], 1.0
    for n in [*sorted(n for n in sizes if n < len(rows)), len(rows)]:
        further = np.setdiff1d(subset(bench, rows, n), taken)
        read = further if len(taken) else np.concatenate([further, held])
        predicted = training.prefix_seconds(bench, read, None)
        fitting = (hint_seconds(bench, n) + seconds(bench, n, n_points=n_points)) * bench.measured.get("slower", 1.0)
        if len(taken) and time.perf_counter() + SLACK * slower * (predicted + fitting) > bench.deadline:
            return taken
        began = time.perf_counter()
        bench.pooled(read)
        if predicted > LEAST_TOLD:
            slower = max(1.0, (time.perf_counter() - began) / predicted)
        taken = np.union1d(taken, further)
    return rows


def seconds(bench: Workbench, n: int, *, n_points: int, strengths: int = len(AROUND)) -> float:
    """Predicted seconds of fitting a head on ``n`` rows: the search among so many strengths, then the fit. In the proportion in which the
    last probe was dearer or cheaper than predicted."""
    rows, size = min(n, linear.MAX_ROWS), _size(bench, n_points)
    searched = 0.0
    if strengths > 1:
        folds = INNER_FOLDS_FEW if rows < FEW else INNER_FOLDS
        searched = linear_cost.seconds(min(rows, SEARCH_ROWS), folds=folds, strengths=strengths, **size)
    return (searched + linear_cost.seconds(rows, **size)) * bench.measured.get("probe", 1.0)


def hint_seconds(bench: Workbench, n: int) -> float:
    """Predicted seconds of the wide search; none where it has been made."""
    if bench.hint is not None:
        return 0.0
    rows = min(bench.probe_rows or n, HINT_ROWS)
    tried = candidates(bench.backbone.n_blocks + 1)
    return sum(seconds(bench, rows, n_points=len(points), strengths=len(linear.STRENGTHS)) for points in tried)


def _size(bench: Workbench, n_points: int) -> dict[str, Any]:
    if "linear" not in bench.measured:
        bench.measured["linear"] = linear_cost.measured_rate(bench.device)
    return {"n_features": bench.width * n_points, "n_classes": bench.n_classes, "rate": bench.measured["linear"]}


def subset(bench: Workbench, rows: NDArray[np.int64], n: int | None) -> NDArray[np.int64]:
    """The rows that a probe with time for so many (None: all) looks at: those that come first in one order of all rows.

    So fewer are among more, and those of all rows are, where they are among the training rows of a split, also those of that split: a refit
    finds the states of all of them in the store.
    """
    if n is None or n >= len(rows):
        return rows
    place = np.random.default_rng(bench.seed).permutation(len(bench.targets))
    return np.sort(rows[np.argsort(place[rows])[:n]])
