"""Regularised linear heads on frozen features; the folds of a cross-validation are solved together, in one matrix product a step.

Features are standardised and divided by the square root of their number, so that a row has a squared length of about one and a
strength means the same whatever the backbone's width. With ``z`` the scaled row, the objective is

    mean_i loss(z_i W + b, y_i) + strength / 2 * ||W||^2,        the bias b is free

where loss is the cross entropy (softmax) or the sum over the labels of the binary cross entropies (sigmoid). scikit-learn's
``LogisticRegression`` minimises the same thing with ``C = 1 / (n * strength)`` (two classes: twice that, as it has one weight for both).

``linear_solver`` minimises it. With fewer rows than features the rows themselves span all that can be learned, and a QR decomposition makes
the problem as small as that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from warmstart.core.errors import TrainingFailed
from warmstart.core.protocols import Link
from warmstart.engine import calibration, linear_solver
from warmstart.engine.device import one_thread

Fold: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Rows to learn from, rows to predict."""

STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Best on pooled MiniLM states of all layers: 1e-4 for 2 classes in 6,920 rows, 3e-6 for 77 in 10,003; on labels of chance the first."""
MAX_ROWS = 20_000
"""Rows that a fit learns from at most, beyond it a seeded draw: the working copy is float32, so 20,000 x 2,688 features are 215 MB."""
MAX_BYTES = 1 << 30
"""Features that a fit takes at most, where they are so wide that ``MAX_ROWS`` would fill the memory."""

CHUNK_BYTES = 64 << 20


@dataclass(frozen=True)
class Linear:
    """A fitted head on the original features: ``weight (C, F)``, ``bias (C,)``, float32."""

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor, rows: NDArray[np.int64] | None = None) -> Tensor:
        """(N, C) of all ``features (N, F)``, or of these rows; read in chunks, so of any floating type and possibly memory-mapped."""
        size = max(1, CHUNK_BYTES // (4 * features.shape[1]))
        places = np.arange(len(features)) if rows is None else rows
        parts = [places[i : i + size] for i in range(0, max(1, len(places)), size)]
        return torch.cat([functional.linear(features[part].float(), self.weight, self.bias) for part in parts])


@dataclass(frozen=True)
class Choice:
    """The strength that predicted best, and how it was found.

    ``held_logits (M, C)`` are its out-of-fold logits, in the order of the folds' held rows, one fold after another.
    ``log_losses (S,)`` (after one temperature for all rows) and ``scores (S,)`` (share of right decisions) belong to
    ``strengths (S,)``, those tried, strongest first.
    """

    strength: float
    held_logits: Tensor
    strengths: tuple[float, ...]
    log_losses: Tensor
    scores: Tensor


def fit(
    features: Tensor,
    targets: Tensor | NDArray[Any],
    *,
    link: Link,
    n_classes: int,
    strength: float,
    weights: Tensor | NDArray[Any] | None = None,
    seed: int = 0,
    tolerance: float = 1e-6,
) -> Linear:
    """The head that minimises the objective above on all rows.

    Args:
        features: (N, F), any floating type, on the device that is to do the work.
        targets: (N,) class indices for softmax, (N, C) zeros and ones for sigmoid. Classes may be missing: they get a bias alone, as
            Laplace's rule of succession has it.
        link: softmax (one label of C) or sigmoid (any of C labels).
        n_classes: C.
        strength: L2 penalty, relative to the mean loss.
        weights: (N,) non-negative weight of each row in the mean.
        seed: Draws the rows where there are more than ``MAX_ROWS``.
        tolerance: Stop when one more step is expected to lower the objective (nats per row) by less than half of this. Probabilities
            are then within a few times its square root of the exact ones.

    Raises:
        TrainingFailed: Features are not finite.
    """
    rows = _draw(np.arange(len(features)), seed)
    share = _counting(weights, rows)[:, None]
    design = _design(features, rows)
    problem = _problem(design, targets, rows, share, link, n_classes)
    with one_thread(problem.is_small):
        solution = linear_solver.minimise(problem, problem.start(), strength, tolerance=tolerance)
        return design.linear(problem.name_missing(solution)[0])


def fit_path(
    features: Tensor,
    targets: Tensor | NDArray[Any],
    *,
    link: Link,
    n_classes: int,
    strengths: Sequence[float],
    folds: Sequence[Fold],
    weights: Tensor | NDArray[Any] | None = None,
    seed: int = 0,
    tolerance: float = 1e-5,
) -> Iterator[Tensor]:
    """Out-of-fold logits (M, C) for one strength after another, each started from the one before: give the strongest first.

    M counts the held rows of all folds, one fold after another. Features (never targets) are scaled over the rows of all folds.
    Arguments and errors are those of ``fit``.
    """
    rows = _draw(np.unique(np.concatenate([train for train, _ in folds])), seed)
    share = torch.from_numpy(np.stack([np.isin(rows, train) for train, _ in folds], 1)).float()
    share *= _counting(weights, rows)[:, None]
    design = _design(features, rows)
    problem = _problem(design, targets, rows, share, link, n_classes)
    solution = problem.start()
    for strength in strengths:
        with one_thread(problem.is_small):
            solution = linear_solver.minimise(problem, solution, strength, tolerance=tolerance)
        named = problem.name_missing(solution)
        yield torch.cat([design.linear(named[p]).logits(features, held) for p, (_, held) in enumerate(folds)])


def cross_validate(
    features: Tensor,
    targets: Tensor | NDArray[Any],
    *,
    link: Link,
    n_classes: int,
    folds: Sequence[Fold],
    strengths: Sequence[float] = STRENGTHS,
    weights: Tensor | NDArray[Any] | None = None,
    seed: int = 0,
) -> Choice:
    """The strength with the lowest out-of-fold log loss after one temperature; of those within 0.1 % of it the strongest.

    Rows count as ``weights`` say. A strong penalty makes a head unsure of itself: its raw loss is high although its decisions are good. As
    a temperature is fitted to whatever is chosen, only the loss after that counts. Frozen ResNet-20, last state, CIFAR-10, 50 images
    a class, six draws: 83.3 % of the test images right, where the raw loss takes weaker penalties and has 82.0 %.

    It walks from the strongest to the weakest, the dearest to fit, and stops after two in a row that are worse than the best.
    """
    ordered = sorted(strengths, reverse=True)
    held = np.concatenate([held for _, held in folds])
    truth, named = _one_hot(targets, held, link, n_classes).to(features.device), np.asarray(targets)[held]
    counting = _counting(weights, held)
    counting = (counting / counting.mean()).to(features.device)
    kept: list[Tensor] = []
    losses: list[float] = []
    how: Any = {"link": link, "n_classes": n_classes, "strengths": ordered, "folds": folds, "weights": weights, "seed": seed}
    for logits in fit_path(features, targets, **how):
        kept.append(logits)
        temperature = calibration.fit_temperature(logits.cpu().numpy(), named, link)
        losses.append(float((_losses(logits / temperature, truth, link) * counting).mean()))
        if len(losses) > 2 and min(losses[-2:]) > min(losses[:-2]):
            break
    best = next(i for i, loss in enumerate(losses) if loss <= min(losses) * 1.001)
    scores = torch.stack([_right(logits, truth, link).mean() for logits in kept])
    return Choice(ordered[best], kept[best], tuple(ordered[: len(kept)]), torch.tensor(losses), scores)


@dataclass(frozen=True)
class _Design:
    """Rows in the coordinates that are solved in: ``z (n, R + 1)``, whose last column is one; ``basis (V, R)`` leads back.

    V of the F features vary; where all do, ``varying`` is None. The others, such as zeros behind narrow states, get no weight.
    """

    z: Tensor
    mean: Tensor
    scale: Tensor
    basis: Tensor | None
    varying: Tensor | None = None

    def linear(self, solution: Tensor) -> Linear:
        """The head on the original features, from a solution (C, R + 1)."""
        weight = solution[:, :-1] if self.basis is None else solution[:, :-1] @ self.basis.T  # (C, F)
        if self.varying is not None:
            weight = weight.new_zeros(len(weight), len(self.mean)).index_copy_(1, self.varying, weight)
        weight = weight * self.scale
        return Linear(weight, solution[:, -1] - weight @ self.mean)


def most_rows(n_features: int) -> int:
    """Rows of so many float32 features that are worth bringing together for a fit."""
    return min(MAX_ROWS, MAX_BYTES // (4 * n_features))


def _draw(rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    if len(rows) <= MAX_ROWS:
        return rows
    return np.sort(np.random.default_rng(seed).choice(rows, MAX_ROWS, replace=False))


def _design(features: Tensor, rows: NDArray[np.int64]) -> _Design:
    z = torch.ones(len(rows), features.shape[1] + 1, device=features.device)
    x = z[:, :-1]
    x.copy_(features[rows])
    variance, mean = torch.var_mean(x, 0, correction=0)
    if not bool(torch.isfinite(variance).all()):
        raise TrainingFailed("features that are not finite", "finite numbers", "look for NaN or infinity, or use --precision float32")
    deviation = variance.sqrt()
    varies = deviation > 1e-6 * mean.abs()  # float32 keeps no more of a constant feature than this
    scale = torch.where(varies, 1 / (deviation * varies.sum().sqrt()), 0.0)
    x.sub_(mean).mul_(scale)
    varying = None
    if not bool(varies.all()):
        varying = varies.nonzero()[:, 0]
        z = torch.cat([x[:, varying], z[:, -1:]], 1)
        x = z[:, :-1]
    if len(rows) >= x.shape[1]:
        return _Design(z, mean, scale, None, varying)
    basis, triangle = torch.linalg.qr(x.T)
    return _Design(functional.pad(triangle.T, (0, 1), value=1.0), mean, scale, basis, varying)


def _problem(
    design: _Design, targets: Tensor | NDArray[Any], rows: NDArray[np.int64], share: Tensor, link: Link, n_classes: int
) -> linear_solver.Problem:
    device = design.z.device
    y = _one_hot(targets, rows, link, n_classes).to(device)
    share = share.to(device)
    there = (share > 0).float()
    counts = there.sum(0)
    positive = there.T @ y  # (P, C)
    seen = positive > 0
    if link == "sigmoid":
        seen &= positive < counts[:, None]
    gram = design.z.T @ design.z / len(design.z)
    return linear_solver.Problem(design.z, gram, y, share / share.sum(0), counts, seen, link)


def _one_hot(targets: Tensor | NDArray[Any], rows: NDArray[np.int64], link: Link, n_classes: int) -> Tensor:
    chosen = torch.as_tensor(targets)[rows]
    return functional.one_hot(chosen.long(), n_classes).float() if link == "softmax" else chosen.float()


def _counting(weights: Tensor | NDArray[Any] | None, rows: NDArray[np.int64]) -> Tensor:
    """What these rows count, (n,)."""
    return torch.ones(len(rows)) if weights is None else torch.as_tensor(weights)[rows].float()


def _losses(logits: Tensor, y: Tensor, link: Link) -> Tensor:
    """Loss of each row, safe for logits of any size."""
    if link == "softmax":
        return -(logits.log_softmax(-1) * y).sum(-1)
    return (functional.softplus(logits) - y * logits).sum(-1)


def _right(logits: Tensor, y: Tensor, link: Link) -> Tensor:
    """Which decisions are right, as zeros and ones: of each row, or of each row and label."""
    right = logits.argmax(-1) == y.argmax(-1) if link == "softmax" else (logits > 0) == (y > 0.5)
    return right.float()
