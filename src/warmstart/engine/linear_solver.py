"""The solver of ``linear.py``: several regularised linear problems on the same rows at once.

L-BFGS (Liu & Nocedal 1989) preconditioned with the exact Hessian at equal probabilities, which is also Böhning's bound (1992) where
there are two classes: the first step is a Newton step, and a few dozen suffice. That Hessian is the covariance times a number plus the
strength, so one Cholesky factor serves all classes and folds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from warmstart.core.protocols import Link

MAX_STEPS, STEPS = 200, 12
"""Steps of a fit at most, and about as many as one needs that starts from the strength before."""
TRIALS = 20
"""Lengths that are tried of one step."""
MEMORY = 8
"""Steps that L-BFGS remembers; 4 and 20 need as many steps to within 5 % on 77 classes."""


@dataclass(frozen=True)
class Problem:
    """P problems on the same rows ``z (n, R + 1)`` with targets ``y (n, C)`` and mean outer product ``gram (R + 1, R + 1)``.

    ``share (n, P)`` is the weight of each row in each problem (columns sum to one), ``counts (P,)`` the number of rows that have any.
    ``seen (P, C)`` tells which classes can be learned: a softmax class without a row, or a sigmoid label that never changes, cannot.
    """

    z: Tensor
    gram: Tensor
    y: Tensor
    share: Tensor
    counts: Tensor
    seen: Tensor
    link: Link

    @property
    def is_small(self) -> bool:
        """Whether a step is so little work (below a fifth of a billion multiplications) that a second thread only costs."""
        return self.z.numel() * self.seen.numel() < 2e8

    @property
    def curvature(self) -> float:
        """Second derivative of the loss by a logit at equal probabilities (softmax: on the space of contrasts)."""
        return 1 / self.y.shape[1] if self.link == "softmax" else 0.25

    def start(self) -> Tensor:
        """(P, C, R + 1): all zero, with logits of missing classes so low (or high) that they play no part."""
        start = self.z.new_zeros(*self.seen.shape, self.z.shape[1])
        ever = self.share.T @ self.y > 0.5  # only matters where a sigmoid label never changes: always, or never?
        start[..., -1] = torch.where(self.seen, 0.0, torch.where(ever, 30.0, -30.0))
        return start

    def name_missing(self, solution: Tensor) -> Tensor:
        """The solution with biases for the missing classes by Laplace's rule: seen 0 times in n, so about 1 / n of an average row."""
        named = solution.clone()
        rows = self.counts[:, None].expand_as(self.seen)
        if self.link == "softmax":
            level = (self.share * self.logits(solution).logsumexp(-1)).sum(0)  # (P,)
            bias = level[:, None] - (rows + self.seen.shape[1]).log()
        else:
            bias = solution[..., -1].sign() * (rows + 1).log()
        named[..., -1] = torch.where(self.seen, named[..., -1], bias)
        return named

    def logits(self, solution: Tensor) -> Tensor:
        """(n, P, C)."""
        return (self.z @ solution.flatten(0, 1).T).view(-1, *self.seen.shape)

    def residual(self, logits: Tensor) -> Tensor:
        """Derivative of the mean losses by the logits (n, P, C)."""
        residual = (logits.softmax(-1) if self.link == "softmax" else logits.sigmoid()) - self.y[:, None]
        residual *= self.share[..., None]
        residual *= self.seen
        return residual

    def gradient(self, residual: Tensor, solution: Tensor, penalty: Tensor) -> Tensor:
        """Of the objective, (P, C, R + 1)."""
        return (residual.flatten(1).T @ self.z).view_as(solution) + penalty * solution


def minimise(problem: Problem, solution: Tensor, strength: float, *, tolerance: float) -> Tensor:
    """Preconditioned L-BFGS on all problems at once, each with its own step length and stopping.

    Logits are linear in the step along a direction, so trying a step takes no product of matrices.
    """
    z = problem.z
    penalty = z.new_full((z.shape[1],), strength)
    penalty[-1] = 0.0  # the bias is free
    solve = _preconditioner(problem, penalty)
    pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=MEMORY)
    logits = problem.logits(solution)
    residual = problem.residual(logits)
    gradient = problem.gradient(residual, solution, penalty)
    for _ in range(MAX_STEPS):
        direction = -_two_loops(gradient, pairs, solve)
        slope = _dot(gradient, direction)
        step = (-slope > tolerance).float()  # (P,): finished problems rest
        if not bool(step.any()):
            break
        change = problem.logits(direction)
        pull, bend = _dot(penalty * solution, direction), _dot(penalty * direction, direction)
        for attempt in range(TRIALS):
            trial = logits + step[:, None] * change
            residual = problem.residual(trial)
            rise = (residual * change).sum((0, 2)) + pull + step * bend
            # The objective is convex, so its slope alone tells a step that went too far, and float32 resolves slopes
            # where it no longer resolves differences of losses (Hager & Zhang 2005).
            far = rise > -slope / 2
            if attempt == TRIALS - 1 or not bool(far.any()):
                break
            step = torch.where(far, step * (slope / (slope - rise)).clamp(min=0.1), step)
        moved = step[:, None, None] * direction
        solution, logits, before = solution + moved, trial, gradient
        gradient = problem.gradient(residual, solution, penalty)
        bent = gradient - before
        product = _dot(moved, bent)
        pairs.append((moved, bent, torch.where(product > 1e-20, 1 / product, 0.0)))
    return solution


def _preconditioner(problem: Problem, penalty: Tensor) -> Callable[[Tensor], Tensor]:
    """Inverse of the Hessian at equal probabilities, times gradients (P, C, R + 1)."""
    hessian = problem.gram * problem.curvature
    hessian.diagonal().add_(penalty.clamp(min=3e-6))  # keeps it positive in float32 where a strength would not
    factor = torch.linalg.cholesky(hessian)
    if problem.seen.numel() * STEPS < len(factor):
        return lambda g: torch.cholesky_solve(g.flatten(0, 1).T, factor).T.view_as(g)
    inverse = torch.cholesky_inverse(factor)  # a product takes half the time of two triangular solves
    return lambda g: (g.flatten(0, 1) @ inverse).view_as(g)


def _two_loops(gradient: Tensor, pairs: Sequence[tuple[Tensor, Tensor, Tensor]], solve: Callable[[Tensor], Tensor]) -> Tensor:
    """Inverse Hessian times gradient as L-BFGS estimates it (Nocedal & Wright 2006, algorithm 7.4), for each problem."""
    q = gradient
    alphas = []
    for moved, bent, rho in reversed(pairs):
        alphas.append(rho * _dot(moved, q))
        q = q - alphas[-1][:, None, None] * bent
    q = solve(q)
    for (moved, bent, rho), alpha in zip(pairs, reversed(alphas), strict=True):
        q = q + (alpha - rho * _dot(bent, q))[:, None, None] * moved
    return q


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """(P,)."""
    return (a * b).sum((1, 2))
