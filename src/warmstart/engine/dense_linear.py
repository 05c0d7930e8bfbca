"""Linear models on dense hand-made features: softmax or sigmoid regression, regularised as cross-validation says."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from warmstart.core.errors import DataError
from warmstart.core.protocols import Link
from warmstart.engine import balance, linear, linear_cost, splits
from warmstart.engine.sparse_linear import Floats, Tuned

SEARCH_ROWS = 3_000
FOLDS = 3
STRENGTHS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)


def fit(
    features: Floats, targets: NDArray[Any], *, link: Link, n_classes: int, c: float | None = None, weights: Floats | None = None, seed: int
) -> Tuned:
    """The model with the lowest held-out log loss after one temperature, fitted on all rows (at most ``linear.MAX_ROWS``).

    Args:
        features: (N, F).
        targets: (N,) class indices for softmax, (N, C) zeros and ones for sigmoid; classes may be missing.
        link: softmax (one label of C) or sigmoid (any of C labels).
        n_classes: C.
        c: 1 / (N * strength), scikit-learn's C on features as they are scaled here; None: chosen on held-out rows.
        weights: (N,) what each row counts; None: the same.
        seed: Draws folds, and rows where there are too many.
    """
    x = torch.from_numpy(features)
    strength = _chosen(x, targets, link, n_classes, weights, seed) if c is None else 1 / (len(targets) * c)
    fitted = linear.fit(x, targets, link=link, n_classes=n_classes, strength=strength, weights=weights, seed=seed)
    return Tuned(fitted.weight.numpy(), fitted.bias.numpy(), 1 / (len(targets) * strength))


def _chosen(x: torch.Tensor, targets: NDArray[Any], link: Link, n_classes: int, weights: Floats | None, seed: int) -> float:
    rows = np.sort(np.random.default_rng(seed).permutation(len(targets))[:SEARCH_ROWS])
    try:
        folds = splits.stratified(targets[rows], FOLDS, seed=seed)
    except DataError:  # a class with a single example cannot be on both sides
        return 1e-2
    how: Any = {"link": link, "n_classes": n_classes, "strengths": STRENGTHS, "weights": balance.taken(weights, rows), "seed": seed}
    found = linear.cross_validate(x[torch.from_numpy(rows)], targets[rows], folds=folds, **how)
    return found.strength


def seconds(n: int, *, n_features: int, n_classes: int, tuned: bool, rate: float) -> float:
    """Predicted seconds of ``fit`` on ``n`` rows, at ``rate`` multiplications a second."""

    size: Any = {"n_features": n_features, "n_classes": n_classes, "rate": rate}
    searched = 0.0 if tuned else linear_cost.seconds(min(n, SEARCH_ROWS), folds=FOLDS, strengths=len(STRENGTHS), **size)
    return searched + linear_cost.seconds(min(n, linear.MAX_ROWS), **size)
