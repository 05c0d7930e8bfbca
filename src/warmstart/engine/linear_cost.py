"""How long the linear fits of ``linear.py`` take, from how fast this machine multiplies."""

from __future__ import annotations

import time

import torch

from warmstart.engine.linear_solver import STEPS

FIXED = 0.012
"""Seconds that a fit of one strength takes however small it is."""

DESIGN = 2.2
"""Multiplications a row, feature and coordinate that it takes to find the coordinates that are solved in."""

AROUND = 2.0
"""How many times the products of a step take with softmax, sums and the way back to the features around them. With 48 to 4,000 rows, 384
and 2,688 features, 2 to 77 classes, fits take between half and one and a half times of what follows from these numbers."""

SAMPLE = (512, 2_048)
"""Rows and features of the product that tells how fast the machine multiplies."""


def seconds(n: int, *, n_features: int, n_classes: int, rate: float, folds: int = 1, strengths: int = 1) -> float:
    """Predicted seconds of fitting so many strengths on ``n`` rows, all folds together, at ``rate`` multiplications a second."""
    own = min(n, n_features)  # the rows span what can be learned
    design = DESIGN * n * n_features * own + strengths * own**3 / 3
    step = (2 * n * own + own**2) * n_classes * folds
    return strengths * FIXED + (design + strengths * STEPS * AROUND * step) / rate


def measured_rate(device: torch.device) -> float:
    """Multiplications a second of a float32 product of matrices, the quickest of a few."""
    x = torch.ones(SAMPLE, device=device)
    best = min(_timed(x) for _ in range(4))
    return SAMPLE[0] ** 2 * SAMPLE[1] / max(best, 1e-7)


def _timed(x: torch.Tensor) -> float:
    began = time.perf_counter()
    (x @ x.T)[0, 0].item()
    return time.perf_counter() - began
