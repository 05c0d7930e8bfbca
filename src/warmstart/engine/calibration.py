"""From logits to probabilities, and the one temperature that makes them honest on held-out rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, softmax

from warmstart.core.protocols import Link

LOWEST, HIGHEST = 0.05, 20.0
PRIOR_ROWS = 4.0


def probabilities(logits: ArrayLike, link: Link) -> NDArray[np.float64]:
    """Probabilities (N, C) of logits (N, C): of each class for ``softmax``, of each label alone for ``sigmoid``; no overflow."""
    values = np.asarray(logits, np.float64)
    result: NDArray[np.float64] = softmax(values, axis=1) if link == "softmax" else expit(values)
    return result


def apply_temperature(logits: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Logits divided by the temperature: above 1 less sure, below 1 surer; the order of the classes stays."""
    return np.asarray(logits, np.float64) / temperature


def fit_temperature(logits: ArrayLike, targets: NDArray[Any], link: Link) -> float:
    """The temperature with the least log loss on held-out rows (Guo, Pleiss, Sun & Weinberger 2017).

    The loss is convex in the inverse temperature ``b``. A gamma prior with its mode at 1, worth about four rows, adds the convex term
    ``4 (b - 1 - log b)``: a handful of rows, separable rows or constant logits leave the temperature near 1, and hundreds of rows do
    not feel it. For ``sigmoid`` the loss of a row is its mean over the labels, since labels of one row are not independent evidence.

    Args:
        logits: (N, C), of rows that the model was not fitted on.
        targets: (N,) class indices, where -1 (a label unknown to the model) is left out; for ``sigmoid`` (N, C) zeros and ones.
        link: How logits become probabilities.

    Returns:
        Between 0.05 and 20; 1 where there is no row to learn from.
    """
    values, truth = np.asarray(logits, np.float64), np.asarray(targets)
    if link == "softmax":
        values, truth = values[truth >= 0], truth[truth >= 0].astype(np.int64)
    if values.size == 0:
        return 1.0
    if link == "softmax":
        # -log p(true) = logsumexp(b * margins), where margins are the logits above that of the true class
        margins = values - values[np.arange(len(values)), truth][:, None]  # (N, C)
    else:
        margins = np.where(truth > 0, -values, values)  # (N, C)

    def penalised_loss(log_temperature: float) -> float:
        inverse = float(np.exp(-log_temperature))
        prior = PRIOR_ROWS * (inverse - 1 + log_temperature)
        return prior + (_softmax_loss if link == "softmax" else _sigmoid_loss)(inverse * margins)

    best = minimize_scalar(penalised_loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded", options={"xatol": 1e-4})
    return float(np.clip(np.exp(best.x), LOWEST, HIGHEST))


def _softmax_loss(margins: NDArray[np.float64]) -> float:
    top = margins.max(axis=1)  # (N,), at least 0: the true class has margin 0
    return float((top + np.log(np.exp(margins - top[:, None]).sum(axis=1))).sum())


def _sigmoid_loss(margins: NDArray[np.float64]) -> float:
    return float(np.logaddexp(0.0, margins).mean(axis=1).sum())
